//! The API server's own log of writes: who wrote what, and when to the microsecond.

use crate::cluster::ClusterInfo;
use crate::{install, wait};
use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

/// One write, answered.
#[derive(Debug, Clone)]
pub struct Write {
    pub user: String,
    /// The verb and what it was about, such as `patch computetasks/status`.
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub asked: Timestamp,
    pub answered: Timestamp,
}

impl Write {
    fn read(line: &str) -> Option<Self> {
        let entry: Value = serde_json::from_str(line).ok()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (verb, object) = (text(&entry["verb"]), &entry["objectRef"]);
        let write = ["create", "update", "patch", "delete"].contains(&verb.as_str());
        if !write || entry["stage"] != "ResponseComplete" {
            return None;
        }
        let part = object["subresource"].as_str().map(|part| format!("/{part}")).unwrap_or_default();
        Some(Self {
            user: text(&entry["user"]["username"]),
            kind: format!("{verb} {}{part}", text(&object["resource"])),
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
            asked: entry["requestReceivedTimestamp"].as_str()?.parse().ok()?,
            answered: entry["stageTimestamp"].as_str()?.parse().ok()?,
        })
    }

    /// Whether the operator did it.
    pub fn is_operators(&self) -> bool {
        self.user == format!("system:serviceaccount:{}:supercargo-operator", install::NAMESPACE)
    }
}

/// Reads on where it stopped, also when the API server has begun another file meanwhile.
#[derive(Debug)]
pub struct ApiLog {
    path: PathBuf,
    file: File,
    half_line: Vec<u8>,
}

impl ApiLog {
    /// Everything that is there.
    pub fn from_the_beginning(info: &ClusterInfo) -> Result<Self> {
        let path = info.audit_log.clone();
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { path, file, half_line: Vec::new() })
    }

    /// Only what is written from now on.
    pub fn from_now(info: &ClusterInfo) -> Result<Self> {
        let mut log = Self::from_the_beginning(info)?;
        // What is half written now begins before now.
        log.file.seek(SeekFrom::End(0)).context("finding the end of the API server's log")?;
        Ok(log)
    }

    /// The writes since the last time.
    pub fn more(&mut self) -> Result<Vec<Write>> {
        let mut bytes = std::mem::take(&mut self.half_line);
        self.file.read_to_end(&mut bytes).context("reading the API server's log")?;
        let inode = |file: std::io::Result<std::fs::Metadata>| file.map(|file| file.ino()).ok();
        if inode(std::fs::metadata(&self.path)) != inode(self.file.metadata())
            && let Ok(next) = File::open(&self.path)
        {
            // The end of the one before may have come since it was read.
            self.file.read_to_end(&mut bytes).context("reading the end of the API server's log")?;
            self.file = next;
            self.file.read_to_end(&mut bytes).context("reading the API server's next log")?;
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.half_line = bytes.split_off(whole);
        Ok(String::from_utf8_lossy(&bytes).lines().filter_map(Write::read).collect())
    }

    /// The next write that `pick` takes, a few milliseconds after it was answered.
    pub async fn until(&mut self, what: impl Into<String>, deadline: Duration, mut pick: impl FnMut(&Write) -> bool) -> Result<Write> {
        wait::closely(what, deadline, || Ok(self.more()?.into_iter().find(|write| pick(write)))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(verb: &str, stage: &str) -> String {
        let object = r#"{"resource":"computetasks","namespace":"n","name":"t","subresource":"status"}"#;
        format!(
            "{{\"stage\":\"{stage}\",\"verb\":\"{verb}\",\"user\":{{\"username\":\"u\"}},\"objectRef\":{object},\
             \"requestReceivedTimestamp\":\"2026-01-02T03:04:05.000006Z\",\"stageTimestamp\":\"2026-01-02T03:04:05.001006Z\"}}\n"
        )
    }

    #[test]
    fn only_answered_writes_are_read_with_their_times() {
        let write = Write::read(&line("patch", "ResponseComplete")).expect("a write");
        assert_eq!((write.kind.as_str(), write.namespace.as_str(), write.name.as_str()), ("patch computetasks/status", "n", "t"));
        assert_eq!(write.answered.duration_since(write.asked).as_micros(), 1_000);
        assert!(!write.is_operators());
        assert!(Write::read(&line("patch", "ResponseStarted")).is_none() && Write::read(&line("get", "ResponseComplete")).is_none());
    }

    #[test]
    fn it_goes_on_where_it_stopped_through_half_lines_and_into_the_next_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let (one, two) = (line("create", "ResponseComplete"), line("delete", "ResponseComplete"));
        std::fs::write(&path, &one[..40]).expect("writes");
        let mut log = ApiLog { file: File::open(&path).expect("opens"), path: path.clone(), half_line: Vec::new() };
        let kinds = |log: &mut ApiLog| log.more().expect("reads").into_iter().map(|write| write.kind).collect::<Vec<_>>();
        assert!(kinds(&mut log).is_empty());
        std::fs::write(&path, &one).expect("writes");
        assert_eq!(kinds(&mut log), ["create computetasks/status"]);
        std::fs::write(&path, format!("{one}{two}")).expect("writes");
        std::fs::rename(&path, folder.path().join("audit-1.log")).expect("renames");
        std::fs::write(&path, &two).expect("writes");
        assert_eq!(kinds(&mut log), ["delete computetasks/status", "delete computetasks/status"]);
        assert!(kinds(&mut log).is_empty());
    }
}
