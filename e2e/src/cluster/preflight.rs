//! What would make `up` fail half-way is looked for first, and named in one line with what to do. Nothing is made here,
//! so nothing is left behind.

use super::layout::{ClusterInfo, Layout};
use super::process::Processes;
use super::{cgroup, programs};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};

const NEEDED_DISK_GIB: u64 = 4;
const TOOLS: [&str; 9] = ["ip", "iptables", "conntrack", "mkfs.ext4", "unshare", "nsenter", "mount", "prometheus", "sysctl"];
const PROGRAMS: [&str; 7] = ["kube", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "helm", CHAIN];
const CHAIN: &str = "anvil";
/// What the chain's starter becomes, seen from it: as npm installed it.
const CHAIN_ITSELF: &str = "../../contracts/node_modules/.native/anvil";

pub fn check(layout: &Layout) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "the local cluster makes namespaces, mounts and cgroups: run it as root");
    let missing: Vec<&str> = TOOLS.into_iter().filter(|tool| !on_path(tool)).collect();
    ensure!(missing.is_empty(), "not installed: {}; run `make prerequisites`", missing.join(", "));
    built(layout)?;
    let socket = layout.containerd_socket("node-1");
    ensure!(socket.as_os_str().len() < 100, "{} is too long for a socket", socket.display());
    disk(&layout.root)?;
    let info = layout.read_info()?;
    cgroup::check_writable(&Processes::new(layout).top_group())?;
    info.map_or(Ok(()), |info| ports_are_free(layout, &info))
}

/// A program that is not there or not whole is built again by make once it is gone.
fn built(layout: &Layout) -> Result<()> {
    let unbuilt: Vec<&str> = PROGRAMS.into_iter().filter(|program| !layout.bin(program).exists()).collect();
    ensure!(unbuilt.is_empty(), "not built: {}; run `make cluster-bin`", unbuilt.join(", "));
    let broken: Vec<String> = PROGRAMS
        .into_iter()
        .map(|program| layout.bin(program))
        .filter(|file| !programs::is_whole(file))
        .map(|file| file.display().to_string())
        .collect();
    ensure!(broken.is_empty(), "built only in part: run `rm {} && make cluster-bin`", broken.join(" "));
    let chain = chain_itself(layout)?;
    ensure!(
        programs::is_whole(&chain),
        "installed only in part: {}; run `rm -r contracts/node_modules && make cluster-bin`",
        chain.display()
    );
    Ok(())
}

/// The starter is a script, and whole however little is left of the program.
fn chain_itself(layout: &Layout) -> Result<PathBuf> {
    let starter = layout.bin(CHAIN);
    let starter = starter.canonicalize().with_context(|| format!("finding {}", starter.display()))?;
    let folder = starter.parent().context("a program lies in a folder")?;
    Ok(folder.join(CHAIN_ITSELF))
}

fn on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|folder| folder.join(tool).is_file())
}

fn disk(root: &Path) -> Result<()> {
    let stat = rustix::fs::statvfs(root).with_context(|| format!("asking how full the disk of {} is", root.display()))?;
    enough(root, stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn enough(root: &Path, free_bytes: u64) -> Result<()> {
    let free_gib = free_bytes >> 30;
    if free_gib < NEEDED_DISK_GIB {
        bail!(
            "{} has {free_gib} GiB left on its disk and the local cluster needs {NEEDED_DISK_GIB}: make room, or move the checkout",
            root.display()
        );
    }
    Ok(())
}

/// A port that somebody else took while our process was gone. Our own leftovers are no hindrance: they are ended before
/// the process is started again.
fn ports_are_free(layout: &Layout, info: &ClusterInfo) -> Result<()> {
    let processes = Processes::new(layout);
    for (process, port) in info.ports.by_process() {
        if processes.any(process)? {
            continue;
        }
        if let Err(error) = std::net::TcpListener::bind(("0.0.0.0", port)) {
            bail!("port {port}, which {process} of this cluster had, is taken ({error}): run `make down`, then `make up` for another");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A checkout whose programs are all there and whole: each is this test itself.
    fn checkout() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path()).unwrap();
        let native = layout.root.join("contracts/node_modules/.native");
        std::fs::create_dir_all(layout.bin("")).unwrap();
        std::fs::create_dir_all(&native).unwrap();
        let programs = PROGRAMS.into_iter().filter(|program| *program != CHAIN).map(|program| layout.bin(program));
        for program in programs.chain([native.join(CHAIN)]) {
            symlink(std::env::current_exe().unwrap(), program).unwrap();
        }
        executable(&layout.bin(CHAIN), b"#!/bin/sh\n");
        (folder, layout)
    }

    fn executable(file: &Path, bytes: &[u8]) {
        std::fs::write(file, bytes).unwrap();
        std::fs::set_permissions(file, Permissions::from_mode(0o755)).unwrap();
    }

    /// As a disk that filled up leaves it.
    fn cut_off(file: &Path) {
        let mut start = Vec::new();
        std::fs::File::open(file).unwrap().take(1000).read_to_end(&mut start).unwrap();
        std::fs::remove_file(file).unwrap();
        executable(file, &start);
    }

    fn refused(layout: &Layout) -> String {
        let said = format!("{:#}", built(layout).unwrap_err());
        assert_eq!(said.lines().count(), 1, "{said}");
        said.replace(&layout.root.display().to_string(), "")
    }

    #[test]
    fn a_program_that_is_not_there_or_not_whole_is_named_with_how_to_build_it_again() {
        let (_folder, layout) = checkout();
        built(&layout).unwrap();
        cut_off(&layout.bin("helm"));
        assert_eq!(refused(&layout), "built only in part: run `rm /.state/bin/helm && make cluster-bin`");
        std::fs::remove_file(layout.bin("helm")).unwrap();
        assert_eq!(refused(&layout), "not built: helm; run `make cluster-bin`");
    }

    #[test]
    fn a_chain_of_which_only_the_starter_is_whole_is_refused() {
        let (_folder, layout) = checkout();
        let words = "contracts/node_modules/.native/anvil; run `rm -r contracts/node_modules && make cluster-bin`";
        let itself = layout.root.join("contracts/node_modules/.native/anvil");
        let gone: fn(&Path) = |file| std::fs::remove_file(file).unwrap();
        for spoil in [cut_off, gone] {
            spoil(&itself);
            let said = refused(&layout);
            assert!(said.starts_with("installed only in part: ") && said.ends_with(words), "{said}");
        }
    }

    #[test]
    fn a_disk_with_too_little_room_is_refused_and_one_with_just_enough_is_not() {
        let gib = |count: u64| count << 30;
        enough(Path::new("x"), gib(NEEDED_DISK_GIB)).unwrap();
        let error = enough(Path::new("x"), gib(NEEDED_DISK_GIB) - 1).unwrap_err().to_string();
        assert_eq!(error, "x has 3 GiB left on its disk and the local cluster needs 4: make room, or move the checkout");
    }
}
