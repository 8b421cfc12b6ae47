//! What a cluster changes of the machine itself. A kubelet sets the kernel's settings as it likes them, and nodes need folders
//! that a machine without Kubernetes has not: both are noted before the first cluster comes up, and given back when the last
//! one is gone.

use super::cgroup;
use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// How the cgroups of all checkouts' clusters begin.
pub const CLUSTERS: &str = "supercargo-";
/// What kubelets set.
const SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];
/// Where a node mounts what is its own.
const FOLDERS: [&str; 3] = ["/var/lib/kubelet", "/var/lib/cni", "/run/containerd"];

/// As the machine was.
#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    settings: BTreeMap<String, String>,
    /// Those that were not there.
    folders: Vec<PathBuf>,
}

/// Where settings are, and where the note is: a machine that was restarted has neither.
struct Machine<'a> {
    settings: &'a Path,
    note: &'a Path,
}

const THIS: fn() -> Machine<'static> = || Machine { settings: Path::new("/proc/sys"), note: Path::new("/run/supercargo-machine.json") };

/// Before anything is changed, for a cluster that has this cgroup from now on.
pub fn note(group: &str) -> Result<()> {
    let _one_at_a_time = lock()?;
    cgroup::make(group)?;
    THIS().note(&FOLDERS.map(PathBuf::from))
}

/// When no cluster of any checkout is left.
pub fn give_back() -> Result<()> {
    let _one_at_a_time = lock()?;
    if cgroup::any(CLUSTERS)? { Ok(()) } else { THIS().give_back() }
}

/// Held until it is dropped. The folder is there anyway.
fn lock() -> Result<File> {
    let run = File::open("/run").context("opening /run")?;
    flock(&run, FlockOperation::LockExclusive).context("locking /run")?;
    Ok(run)
}

/// Each setting's value, as far as it is a number.
pub fn settings() -> Vec<(&'static str, usize)> {
    let machine = THIS();
    SETTINGS.into_iter().filter_map(|name| Some((name, machine.read(name)?.trim().parse().ok()?))).collect()
}

/// How many of the folders are there.
pub fn folders() -> usize {
    FOLDERS.iter().filter(|folder| Path::new(folder).exists()).count()
}

impl Machine<'_> {
    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.settings.join(name)).ok()
    }

    fn note(&self, folders: &[PathBuf]) -> Result<()> {
        if self.note.exists() {
            return Ok(());
        }
        let settings = SETTINGS.into_iter().filter_map(|name| Some((name.to_owned(), self.read(name)?))).collect();
        let noted = Noted { settings, folders: folders.iter().filter(|folder| !folder.exists()).cloned().collect() };
        let half = self.note.with_extension("half");
        std::fs::write(&half, serde_json::to_string(&noted)?).with_context(|| format!("writing {}", half.display()))?;
        std::fs::rename(&half, self.note).with_context(|| format!("putting {} in place", self.note.display()))
    }

    fn give_back(&self) -> Result<()> {
        let Ok(text) = std::fs::read_to_string(self.note) else { return Ok(()) };
        let noted: Noted = serde_json::from_str(&text).with_context(|| format!("reading {}", self.note.display()))?;
        for (name, before) in &noted.settings {
            if self.read(name).as_ref() != Some(before) {
                let file = self.settings.join(name);
                std::fs::write(&file, before).with_context(|| format!("giving {} back", file.display()))?;
            }
        }
        noted.folders.iter().for_each(|folder| remove_empty(folder));
        std::fs::remove_file(self.note).with_context(|| format!("removing {}", self.note.display()))
    }
}

/// The folder and those in it, as far as nobody put a file there.
fn remove_empty(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).for_each(|entry| remove_empty(&entry.path()));
    // One that somebody uses stays.
    let _ = std::fs::remove_dir(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_given_back_as_it_was_before_the_first_cluster() {
        let root = tempfile::tempdir().unwrap();
        let (kernel, note) = (root.path().join("sys"), root.path().join("note.json"));
        std::fs::create_dir_all(kernel.join("kernel/keys")).unwrap();
        std::fs::write(kernel.join("kernel/panic"), "0\n").unwrap();
        let machine = Machine { settings: &kernel, note: &note };
        let [theirs, ours, used] = ["theirs", "ours", "used"].map(|name| root.path().join(name));
        std::fs::create_dir(&theirs).unwrap();
        machine.note(&[theirs.clone(), ours.clone(), used.clone()]).unwrap();

        std::fs::write(kernel.join("kernel/panic"), "10\n").unwrap();
        machine.note(&[]).unwrap();
        std::fs::create_dir_all(ours.join("bin")).unwrap();
        std::fs::create_dir(&used).unwrap();
        std::fs::write(used.join("file"), "").unwrap();
        machine.give_back().unwrap();
        assert_eq!(std::fs::read_to_string(kernel.join("kernel/panic")).unwrap(), "0\n", "as before the first");
        assert!(theirs.exists() && used.exists() && !ours.exists() && !note.exists());
        machine.give_back().unwrap();
    }
}
