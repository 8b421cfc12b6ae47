//! The cluster's cgroups: everything that belongs to a checkout runs below one name, so that `down` finds every last
//! process however it was started, and each node sees its own part as the whole machine.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";
/// The controllers that a kubelet wants, where the kernel has them.
const NEEDED: [&str; 6] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

/// The folders where a cgroup has to be made: one a controller with cgroup v1, one in all with v2.
pub fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading which cgroups are mounted")?;
    let found = hierarchies_in(&mounts);
    anyhow::ensure!(!found.is_empty(), "no cgroup file system is mounted below {MOUNT}: mount one, or run on a machine that has it");
    Ok(found)
}

/// A v2 hierarchy beside v1 controllers is of no use to a v1 container runtime.
fn hierarchies_in(mounts: &str) -> Vec<PathBuf> {
    let of_kind = |kind: &str| -> Vec<PathBuf> {
        mounts
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(' ');
                let (_, target, found) = (fields.next()?, fields.next()?, fields.next()?);
                (found == kind && target.starts_with(MOUNT)).then(|| PathBuf::from(target))
            })
            .collect()
    };
    let v1 = of_kind("cgroup");
    if v1.is_empty() { of_kind("cgroup2") } else { v1 }
}

/// Is this machine's container runtime to use cgroup v2?
pub fn is_v2() -> Result<bool> {
    Ok(hierarchies()?.iter().all(|h| h.join("cgroup.controllers").exists()))
}

/// Makes `group` (a relative path) in every hierarchy, able to limit what it holds.
pub fn make(group: &str) -> Result<()> {
    hierarchies()?.iter().try_for_each(|hierarchy| make_in(hierarchy, group))
}

fn make_in(hierarchy: &Path, group: &str) -> Result<()> {
    let mut folder = hierarchy.to_owned();
    for part in group.split('/') {
        let parent = folder.clone();
        folder.push(part);
        std::fs::create_dir_all(&folder).with_context(|| cannot_make(&folder))?;
        inherit_cpuset(&parent, &folder)?;
        delegate(&parent)?;
    }
    Ok(())
}

/// With v2, what is below a cgroup has only the controllers that the cgroup passes on. The kernel lets it pass on none while
/// it holds processes of its own; so processes are in leaves here, and only the root of all is free of that rule.
fn delegate(folder: &Path) -> Result<()> {
    // Only v2 has this file.
    let Ok(offered) = std::fs::read_to_string(folder.join("cgroup.controllers")) else { return Ok(()) };
    let file = folder.join("cgroup.subtree_control");
    let passed_on = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let has = |list: &str, controller: &str| list.split_whitespace().any(|word| word == controller);
    let lacking = NEEDED.into_iter().filter(|controller| has(&offered, controller) && !has(&passed_on, controller));
    let wanted: Vec<String> = lacking.map(|controller| format!("+{controller}")).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    std::fs::write(&file, wanted.join(" ")).with_context(|| {
        format!(
            "passing {} on in {}: a cgroup that holds processes of its own can't; in a container, move them into one below it first",
            wanted.join(" "),
            file.display()
        )
    })
}

/// Whether `group` can be made, asked without leaving it there.
pub fn check_writable(group: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        delegate(&hierarchy)?;
        let folder = hierarchy.join(group);
        if !folder.exists() {
            std::fs::create_dir(&folder).and_then(|()| std::fs::remove_dir(&folder)).with_context(|| cannot_make(&folder))?;
        }
    }
    Ok(())
}

fn cannot_make(folder: &Path) -> String {
    format!("making the cgroup {}: the local cluster needs to write cgroups; run it as root on a machine that allows it", folder.display())
}

/// A fresh v1 cpuset is empty and refuses processes until it has processors and memory nodes.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let Ok(have) = std::fs::read_to_string(child.join(file)) else { continue };
        if have.trim().is_empty() {
            let given = std::fs::read_to_string(parent.join(file)).with_context(|| format!("reading {file} of {}", parent.display()))?;
            std::fs::write(child.join(file), given.trim()).with_context(|| format!("setting {file} of {}", child.display()))?;
        }
    }
    Ok(())
}

/// The files that a process writes its id to, to be in `group`.
pub fn doors(group: &str) -> Result<Vec<PathBuf>> {
    Ok(hierarchies()?.into_iter().map(|h| h.join(group).join("cgroup.procs")).collect())
}

/// All processes in `group` and below it, in any hierarchy.
pub fn processes(group: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        for folder in folders(&hierarchy.join(group)) {
            // A cgroup may vanish between the listing and the reading: then it holds nobody.
            let listed = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(listed.lines().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Whether there is a cgroup whose name begins so.
pub fn any(beginning: &str) -> Result<bool> {
    let begins = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(beginning);
    Ok(hierarchies()?.iter().any(|hierarchy| std::fs::read_dir(hierarchy).into_iter().flatten().flatten().any(begins)))
}

/// How many cgroups exist at and below `group`.
pub fn count(group: &str) -> Result<usize> {
    Ok(hierarchies()?.iter().map(|h| folders(&h.join(group)).len()).sum())
}

/// Removes `group` and all below it; they must be empty of processes.
pub fn remove(group: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        for folder in folders(&hierarchy.join(group)).iter().rev() {
            std::fs::remove_dir(folder).with_context(|| format!("removing the cgroup {}", folder.display()))?;
        }
    }
    Ok(())
}

/// The folder and all below it, parents first.
fn folders(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = if top.is_dir() { vec![top.to_owned()] } else { Vec::new() };
    while let Some(folder) = next.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        next.extend(entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        found.push(folder);
    }
    found.sort_by_key(|folder| folder.components().count());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_controllers_are_taken_before_a_v2_hierarchy_beside_them() {
        let both = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(hierarchies_in(both), [PathBuf::from("/sys/fs/cgroup/cpu")]);
        assert_eq!(hierarchies_in("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"), [PathBuf::from("/sys/fs/cgroup")]);
        assert!(hierarchies_in("tmpfs /tmp tmpfs rw 0 0\n").is_empty());
    }

    /// A tree of plain files, as the kernel would show it.
    fn tree(controllers: &str, folders: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in folders {
            let folder = root.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("cgroup.controllers"), controllers).unwrap();
            std::fs::write(folder.join("cgroup.subtree_control"), "").unwrap();
        }
        root
    }

    #[test]
    fn with_v2_every_ancestor_passes_its_controllers_on_and_the_leaf_does_not() {
        let root = tree("cpuset cpu memory pids rdma\n", &["", "ours", "ours/node", "ours/node/daemons"]);
        std::fs::write(root.path().join("cgroup.subtree_control"), "cpu pids\n").unwrap();
        make_in(root.path(), "ours/node/daemons").unwrap();
        let written = |folder: &str| std::fs::read_to_string(root.path().join(folder).join("cgroup.subtree_control")).unwrap();
        assert_eq!(written(""), "+cpuset +memory", "what it passes on already is not asked for again");
        assert_eq!(written("ours"), "+cpuset +cpu +memory +pids");
        assert_eq!(written("ours/node"), "+cpuset +cpu +memory +pids");
        assert_eq!(written("ours/node/daemons"), "");
    }

    #[test]
    fn with_v1_a_fresh_cpuset_has_what_its_parent_has() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("ours")).unwrap();
        for (file, text) in [("cpuset.cpus", "0-1\n"), ("ours/cpuset.cpus", "\n"), ("cpuset.mems", "0\n"), ("ours/cpuset.mems", "\n")] {
            std::fs::write(root.path().join(file), text).unwrap();
        }
        make_in(root.path(), "ours").unwrap();
        assert_eq!(std::fs::read_to_string(root.path().join("ours/cpuset.cpus")).unwrap(), "0-1");
        assert_eq!(std::fs::read_to_string(root.path().join("ours/cpuset.mems")).unwrap(), "0");
    }
}
