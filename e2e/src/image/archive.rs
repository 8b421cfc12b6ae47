//! An OCI archive of one layer. Nothing of the moment or the machine is in it: entries are sorted, times are zero.

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::io::Write;
use tar::{Builder, EntryType, Header};

pub struct File {
    pub path: String,
    pub mode: u32,
    pub content: Vec<u8>,
}

pub struct Archive<'a> {
    pub name: &'a str,
    pub entrypoint: String,
    pub user: &'a str,
    pub files: Vec<File>,
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl Archive<'_> {
    /// The archive's bytes and the image's digest.
    pub fn build(&self) -> Result<(Vec<u8>, String)> {
        let layer = self.layer().context("writing the layer")?;
        let compressed = compress(&layer).context("compressing the layer")?;
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = serde_json::to_vec(&json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "User": self.user, "Entrypoint": [self.entrypoint], "Env": ["PATH=/usr/local/bin"], "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
            "history": [{ "created_by": "supercargo" }],
        }))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len() },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(&compressed), "size": compressed.len() }],
        }))?;
        let index = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(&manifest),
                "size": manifest.len(),
                "platform": { "architecture": architecture, "os": "linux" },
                "annotations": { "io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": self.name },
            }],
        }))?;
        let image = digest(&manifest);
        let mut entries = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()), ("index.json".to_owned(), index)];
        for blob in [config, manifest, compressed] {
            entries.push((format!("blobs/{}", digest(&blob).replace(':', "/")), blob));
        }
        let mut tar = Builder::new(Vec::new());
        for (path, content) in entries {
            append(&mut tar, &path, 0o644, &content).with_context(|| format!("writing {path}"))?;
        }
        Ok((tar.into_inner().context("ending the archive")?, image))
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        let mut folders = BTreeSet::from(["tmp".to_owned()]);
        for file in &self.files {
            let parts: Vec<&str> = file.path.split('/').collect();
            folders.extend((1..parts.len()).map(|depth| parts[..depth].join("/")));
        }
        for folder in folders {
            let mode = if folder == "tmp" { 0o1777 } else { 0o755 };
            let mut header = header(mode, 0);
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, format!("{folder}/"), std::io::empty())?;
        }
        let mut files: Vec<&File> = self.files.iter().collect();
        files.sort_by(|one, two| one.path.cmp(&two.path));
        for file in files {
            append(&mut tar, &file.path, file.mode, &file.content)?;
        }
        Ok(tar.into_inner()?)
    }
}

fn header(mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}

fn append(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    Ok(tar.append_data(&mut header(mode, content.len()), path, content)?)
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: Vec<File>) -> Archive<'static> {
        Archive { name: "example.dev/a:1", entrypoint: "/a".into(), user: "1:1", files }
    }

    fn file(path: &str) -> File {
        File { path: path.into(), mode: 0o755, content: path.as_bytes().to_vec() }
    }

    #[test]
    fn the_same_files_in_any_order_are_the_same_image() {
        let one = archive(vec![file("usr/local/bin/a"), file("usr/local/bin/b")]).build().expect("builds");
        let two = archive(vec![file("usr/local/bin/b"), file("usr/local/bin/a")]).build().expect("builds");
        assert_eq!(one, two);
        let other = archive(vec![file("usr/local/bin/a")]).build().expect("builds");
        assert_ne!(one.1, other.1);
    }

    #[test]
    fn every_blob_lies_under_its_own_digest() {
        let (bytes, image) = archive(vec![file("a")]).build().expect("builds");
        let mut seen = 0;
        for entry in tar::Archive::new(bytes.as_slice()).entries().expect("a tar") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).expect("readable");
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(format!("sha256:{name}"), digest(&content));
                seen += 1;
            }
            if path == "index.json" {
                assert!(String::from_utf8_lossy(&content).contains(&image));
            }
        }
        assert_eq!(seen, 3);
    }
}
