//! Paths of this machine in a binary: what the compiler was not told to forget.

use crate::cluster::Layout;
use std::path::{Path, PathBuf};

/// What `.cargo/rustc` puts in place of this machine's folders. A folder that is called so already tells nothing.
const PUT_IN_PLACE: [&str; 3] = ["/cargo", "/rustup", "/supercargo"];

/// The folders that no binary may name: the checkout, and where the registry, the toolchain and their owner are at home.
pub fn own_paths(layout: &Layout) -> Vec<String> {
    let set = ["CARGO_HOME", "RUSTUP_HOME", "HOME"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    telling(set.chain([layout.root.clone()]))
}

fn telling(folders: impl IntoIterator<Item = PathBuf>) -> Vec<String> {
    let deep = |folder: &PathBuf| folder.is_absolute() && folder.parent().is_some();
    let plain = |folder: &PathBuf| !PUT_IN_PLACE.iter().any(|known| folder == Path::new(known));
    folders.into_iter().filter(deep).filter(plain).map(|folder| format!("{}/", folder.display())).collect()
}

/// The first of the folders that is in there, with what follows it.
pub fn find(bytes: &[u8], folders: &[String]) -> Option<String> {
    let at = |folder: &String| bytes.windows(folder.len()).position(|window| window == folder.as_bytes());
    let start = folders.iter().find_map(at)?;
    let name = |byte: &&u8| byte.is_ascii_alphanumeric() || b"/._-@+".contains(byte);
    Some(String::from_utf8_lossy(&bytes[start..].iter().take(80).take_while(name).copied().collect::<Vec<_>>()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_that_names_a_folder_of_this_machine_is_found_out() {
        let folders = telling(["/opt/ann/.cargo", "/cargo", "/", "", "/opt/ann/src"].map(PathBuf::from));
        assert_eq!(folders, ["/opt/ann/.cargo/", "/opt/ann/src/"]);
        let mut bytes = vec![0xff; 1_000];
        bytes.extend(b"text/opt/ann/src/main.rs\0more");
        assert_eq!(find(&bytes, &folders).as_deref(), Some("/opt/ann/src/main.rs"));
        assert_eq!(find(b"\x7fELF/cargo/registry/src /opt/anna/src/x", &folders), None);
        assert_eq!(find(b"", &folders), None);
    }
}
