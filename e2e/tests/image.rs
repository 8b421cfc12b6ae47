//! The image that people run: the same bytes from the same binaries, small, nobody's, and without a word of who built it.

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::OnceLock;
use supercargo_e2e::cluster::Layout;
use supercargo_e2e::image::{self, OPERATOR, stray};
use tar::Archive;
use tempfile::TempDir;

/// What figures.tsv asks of it.
const MOST_BYTES: u64 = 25_000_000;
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// An image that was written into an empty folder, and what is in it.
struct Image {
    digest: String,
    archive: Vec<u8>,
    config: Value,
    files: BTreeMap<String, File>,
}

struct File {
    mode: u32,
    owner: u64,
    content: Vec<u8>,
}

/// Every entry of an archive that is a file.
fn files(archive: impl Read) -> Result<BTreeMap<String, File>> {
    let mut files = BTreeMap::new();
    for entry in Archive::new(archive).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            let (mode, owner) = (entry.header().mode()?, entry.header().uid()?);
            files.insert(entry.path()?.display().to_string(), File { mode, owner, content });
        }
    }
    Ok(files)
}

/// Writes the image as `make image` does, where nothing is to be found of an earlier one.
fn written() -> Result<Image> {
    let folder = TempDir::new()?;
    let written = image::write(&OPERATOR, &image::beside()?, folder.path())?;
    let archive = std::fs::read(&written.path)?;
    let parts = files(archive.as_slice())?;
    let part = |name: &str| parts.get(name).map(|file| file.content.as_slice()).with_context(|| format!("{name} in the archive"));
    let blob = |digest: &Value| part(&format!("blobs/{}", digest.as_str().unwrap_or_default().replace(':', "/")));
    let index: Value = serde_json::from_slice(part("index.json")?)?;
    ensure!(index["manifests"][0]["digest"] == written.digest, "the archive is the image that it is said to be: {index}");
    let manifest: Value = serde_json::from_slice(blob(&index["manifests"][0]["digest"])?)?;
    let config = serde_json::from_slice(blob(&manifest["config"]["digest"])?)?;
    let files = files(GzDecoder::new(blob(&manifest["layers"][0]["digest"])?))?;
    Ok(Image { digest: written.digest, archive, config, files })
}

/// Written once for all tests of it: stripping and compressing takes seconds.
fn once() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| written().expect("the image is written"))
}

#[test]
fn the_same_binaries_are_the_same_image_to_the_last_byte() {
    let (one, two) = (once(), written().expect("the image is written again"));
    assert_eq!(one.digest, two.digest);
    assert!(one.archive == two.archive, "two archives of one digest differ around it");
}

#[test]
fn it_is_small() {
    let bytes = once().archive.len() as u64;
    println!("{:.1} MB, compressed", bytes as f64 / 1e6);
    assert!(bytes <= MOST_BYTES, "{bytes} bytes");
}

#[test]
fn it_runs_as_nobody_and_whoever_runs_it_can_change_nothing_of_it() {
    let image = once();
    let user = image.config["config"]["User"].as_str().expect("a user");
    let numbers: Vec<u32> = user.split(':').map(|number| number.parse().expect("a number, so that a kubelet can tell")).collect();
    assert!(numbers.len() == 2 && !numbers.contains(&0), "it runs as {user}");
    let names: Vec<&str> = image.files.keys().map(String::as_str).collect();
    let mut expected: Vec<String> = OPERATOR.binaries.iter().map(|binary| format!("usr/local/bin/{binary}")).collect();
    expected.push(CERTIFICATES.to_owned());
    expected.sort();
    assert_eq!(names, expected, "there is nothing else in it");
    for (name, file) in &image.files {
        let expected = if name == CERTIFICATES { 0o644 } else { 0o755 };
        assert_eq!((file.mode, file.owner), (expected, 0), "{name}");
    }
    let entrypoint = image.config["config"]["Entrypoint"][0].as_str().expect("an entrypoint");
    assert!(names.contains(&entrypoint.trim_start_matches('/')), "{entrypoint}");
}

#[test]
fn it_knows_the_public_certificate_authorities() {
    let text = std::str::from_utf8(&once().files[CERTIFICATES].content).expect("PEM is text");
    let (begun, ended) = (text.matches("-----BEGIN CERTIFICATE-----").count(), text.matches("-----END CERTIFICATE-----").count());
    // Mozilla lists more than a hundred, and never was near so few.
    assert!(begun == ended && begun >= 50, "{begun} certificates begin and {ended} end");
}

#[test]
fn no_binary_in_it_tells_where_it_was_compiled() {
    let own = stray::own_paths(&Layout::here().expect("a checkout"));
    assert!(!own.is_empty(), "there are paths to look for");
    for (name, file) in &once().files {
        assert_eq!(stray::find(&file.content, &own), None, "{name}");
    }
}
