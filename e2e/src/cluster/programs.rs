//! Is a built program whole? A disk that filled up or a copy that was cut off leaves a file that looks built and fails
//! later, in odd ways.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

/// An executable script, or a 64-bit ELF file that is as long as its own headers say.
pub fn is_whole(file: &Path) -> bool {
    length_and_need(file).is_some_and(|(length, need)| length >= need)
}

fn length_and_need(path: &Path) -> Option<(u64, u64)> {
    let mut file = File::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return None;
    }
    let mut start = Vec::new();
    file.by_ref().take(64).read_to_end(&mut start).ok()?;
    if start.starts_with(b"#!") {
        return Some((metadata.len(), 3));
    }
    // 64 bits, little-endian: what every program here is built as.
    if !start.starts_with(b"\x7fELF\x02\x01") || start.len() < 64 {
        return None;
    }
    let sections_end = number(&start, 40)? + short(&start, 58)? * short(&start, 60)?;
    let (table, size, count) = (number(&start, 32)?, short(&start, 54)?, short(&start, 56)?);
    let mut need = sections_end;
    for index in 0..count {
        let mut header = [0; 56];
        file.read_exact_at(&mut header, table.checked_add(index * size)?).ok()?;
        need = need.max(number(&header, 8)?.checked_add(number(&header, 32)?)?);
    }
    Some((metadata.len(), need))
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_cut_off_is_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (mine, copy) = (std::env::current_exe().unwrap(), folder.path().join("copy"));
        std::fs::copy(&mine, &copy).unwrap();
        assert!(is_whole(&copy));
        let length = std::fs::metadata(&copy).unwrap().len();
        for shorter in [length / 2, 70, 10, 0] {
            File::options().write(true).open(&copy).unwrap().set_len(shorter).unwrap();
            assert!(!is_whole(&copy), "{shorter} of {length} bytes");
        }
        assert!(!is_whole(&folder.path().join("absent")));
    }

    #[test]
    fn a_script_is_whole_when_it_can_be_run() {
        let script = tempfile::tempdir().unwrap();
        let file = script.path().join("run");
        std::fs::write(&file, "#!/bin/sh\nexec true\n").unwrap();
        assert!(!is_whole(&file), "not executable");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(is_whole(&file));
    }
}
