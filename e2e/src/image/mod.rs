//! Container images without a container engine: one layer of static binaries, written so that the same binaries always
//! give the same digest.

mod archive;

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
const FORMAT: &str = "1";
/// Where Debian and most others keep the public certificate authorities.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

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
    hasher.update(std::fs::read(CERTIFICATES).unwrap_or_default());
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
        let content =
            std::fs::read(CERTIFICATES).with_context(|| format!("reading {CERTIFICATES}: install the package ca-certificates"))?;
        files.push(File { path: CERTIFICATES.trim_start_matches('/').to_owned(), mode: 0o644, content });
    }
    let archive = Archive { name: image.name, entrypoint: format!("/usr/local/bin/{}", image.binaries[0]), user: image.user, files };
    let (bytes, digest) = archive.build()?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let half = path.with_extension("tar.half");
    std::fs::write(&half, &bytes).with_context(|| format!("writing {}", half.display()))?;
    std::fs::rename(&half, path).with_context(|| format!("putting {} in place", path.display()))?;
    Ok(Written { name: image.name, path: path.to_owned(), digest, bytes: bytes.len() as u64 })
}

/// Every image of the local cluster, from the binaries beside this program.
pub fn write_all(layout: &Layout) -> Result<Vec<Written>> {
    let program = std::env::current_exe().context("finding this program")?;
    let beside = program.parent().context("this program lies in a folder")?;
    // Tests run from a folder below.
    let binaries = if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside };
    let folder = layout.state().join("images");
    std::iter::once(&OPERATOR).chain(&LOCAL).map(|image| write(image, binaries, &folder)).collect()
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
