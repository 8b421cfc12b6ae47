//! Container images without a container engine: one layer of static binaries, written so that the same binaries always
//! give the same digest.

mod archive;
pub mod stray;

use crate::cluster::Layout;
use anyhow::{Context, Result};
use archive::{Archive, File};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One image: its name, the binaries in it, whom it runs as.
pub struct Image {
    pub name: &'static str,
    pub binaries: &'static [&'static str],
    pub certificates: bool,
    pub user: &'static str,
}

pub const OPERATOR: Image = Image {
    name: concat!("supercargo.dev/operator:", env!("CARGO_PKG_VERSION")),
    binaries: &["supercargo-operator", "supercargo-gate", "kubectl-supercargo"],
    certificates: true,
    user: "65532:65532",
};
/// Images that only the local cluster needs.
pub const LOCAL: [Image; 3] = [
    Image { name: "supercargo.dev/pause:local", binaries: &["pause"], certificates: false, user: "65535:65535" },
    Image { name: "supercargo.dev/gpu-simulator:local", binaries: &["gpu-simulator"], certificates: false, user: "0:0" },
    Image { name: "supercargo.dev/workload:local", binaries: &["workload"], certificates: false, user: "65532:65532" },
];

/// An image that was written.
#[derive(Debug, Clone)]
pub struct Written {
    pub name: &'static str,
    pub path: PathBuf,
    pub digest: String,
    pub bytes: u64,
}

/// Changes when the archive is written differently.
const FORMAT: &str = "2";
/// Where programs look for the public certificate authorities.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
/// Where Debian's package has Mozilla's list: the machine's own bundle may hold authorities that only its owner trusts.
const AUTHORITIES: &str = "/usr/share/ca-certificates/mozilla";

/// Writes an image from the binaries that lie beside this program, unless the one that is there was made of the same.
pub fn write(image: &Image, binaries: &Path, folder: &Path) -> Result<Written> {
    let short = image.name.rsplit('/').next().unwrap_or(image.name).split(':').next().unwrap_or(image.name);
    let (path, record) = (folder.join(format!("{short}.tar")), folder.join(format!("{short}.made-of")));
    let made_of = made_of(image, binaries)?;
    if let Ok(known) = std::fs::read_to_string(&record)
        && let Some((digest, sources)) = known.split_once('\n')
        && sources == made_of
        && let Ok(metadata) = std::fs::metadata(&path)
    {
        return Ok(Written { name: image.name, path, digest: digest.to_owned(), bytes: metadata.len() });
    }
    let written = write_anew(image, binaries, folder, &path)?;
    std::fs::write(&record, format!("{}\n{made_of}", written.digest)).with_context(|| format!("writing {}", record.display()))?;
    Ok(written)
}

/// What decides the image's bytes: the program that writes it and the binaries that go in.
fn made_of(image: &Image, binaries: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    hasher.update(image.name);
    hasher.update(image.user);
    if image.certificates {
        hasher.update(authorities(Path::new(AUTHORITIES))?);
    }
    for binary in image.binaries {
        let path = binaries.join(binary);
        hasher.update(std::fs::read(&path).with_context(|| format!("reading {}: build the workspace first", path.display()))?);
    }
    Ok(format!("{FORMAT} {}", hex::encode(hasher.finalize())))
}

fn write_anew(image: &Image, binaries: &Path, folder: &Path, path: &Path) -> Result<Written> {
    let mut files = Vec::new();
    for binary in image.binaries {
        let content = stripped(&binaries.join(binary))?;
        files.push(File { path: format!("usr/local/bin/{binary}"), mode: 0o755, content });
    }
    if image.certificates {
        files.push(File { path: CERTIFICATES.to_owned(), mode: 0o644, content: authorities(Path::new(AUTHORITIES))? });
    }
    let archive = Archive { name: image.name, entrypoint: format!("/usr/local/bin/{}", image.binaries[0]), user: image.user, files };
    let (bytes, digest) = archive.build()?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let half = path.with_extension("tar.half");
    std::fs::write(&half, &bytes).with_context(|| format!("writing {}", half.display()))?;
    std::fs::rename(&half, path).with_context(|| format!("putting {} in place", path.display()))?;
    Ok(Written { name: image.name, path: path.to_owned(), digest, bytes: bytes.len() as u64 })
}

/// The public certificate authorities, one after the other by name.
fn authorities(folder: &Path) -> Result<Vec<u8>> {
    let missing = || format!("reading {}: install the package ca-certificates", folder.display());
    let entries = std::fs::read_dir(folder).with_context(missing)?.collect::<Result<Vec<_>, _>>().with_context(missing)?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
    paths.sort();
    anyhow::ensure!(!paths.is_empty(), "{} holds no certificate: install the package ca-certificates", folder.display());
    let mut all = Vec::new();
    for path in paths {
        all.extend(std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
        if all.last() != Some(&b'\n') {
            all.push(b'\n');
        }
    }
    Ok(all)
}

/// The folder of the programs that were built together with this one.
pub fn beside() -> Result<PathBuf> {
    let program = std::env::current_exe().context("finding this program")?;
    let folder = program.parent().context("this program lies in a folder")?;
    // Tests run from a folder below.
    Ok(if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder }.to_owned())
}

/// Every image of the local cluster, from the binaries beside this program.
pub fn write_all(layout: &Layout) -> Result<Vec<Written>> {
    let (binaries, folder) = (beside()?, layout.state().join("images"));
    std::iter::once(&OPERATOR).chain(&LOCAL).map(|image| write(image, &binaries, &folder)).collect()
}

/// Refuses binaries that tell where they were compiled: an image of them would differ from machine to machine, and say whose.
pub fn refuse_strays(layout: &Layout) -> Result<()> {
    let binaries = beside()?;
    for binary in OPERATOR.binaries {
        if let Some(path) = stray::find(&stripped(&binaries.join(binary))?, &stray::own_paths(layout)) {
            anyhow::bail!("{binary} holds {path}, so it was compiled before paths were remapped: run cargo clean");
        }
    }
    Ok(())
}

/// The binary without its symbols: binutils come with the linker.
fn stripped(binary: &Path) -> Result<Vec<u8>> {
    let place = tempfile::NamedTempFile::new().context("making a temporary file")?;
    let status = Command::new("strip")
        .arg("--strip-all")
        .arg("-o")
        .arg(place.path())
        .arg(binary)
        .status()
        .context("starting strip: install binutils")?;
    anyhow::ensure!(status.success(), "strip refused {}", binary.display());
    std::fs::read(place.path()).with_context(|| format!("reading the stripped {}", binary.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_authorities_are_bundled_by_name_and_nothing_else_is() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [("b.crt", "B"), ("a.crt", "A\n"), ("README", "no")] {
            std::fs::write(folder.path().join(name), text).expect("writes");
        }
        assert_eq!(authorities(folder.path()).expect("reads"), b"A\nB\n");
        let empty = tempfile::tempdir().expect("a folder");
        assert!(authorities(empty.path()).expect_err("none").to_string().contains("ca-certificates"));
    }
}
