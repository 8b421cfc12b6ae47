//! What would make `up` fail half-way is looked for first, and named in one line with what to do. Nothing is made here,
//! so nothing is left behind.

use super::layout::{ClusterInfo, Layout};
use super::process::Processes;
use super::{cgroup, programs};
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;

const NEEDED_DISK_GIB: u64 = 4;
const TOOLS: [&str; 9] = ["ip", "iptables", "conntrack", "mkfs.ext4", "unshare", "nsenter", "mount", "prometheus", "sysctl"];
const PROGRAMS: [&str; 6] = ["kube", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "anvil"];

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
    Ok(())
}

fn on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|folder| folder.join(tool).is_file())
}

fn disk(root: &Path) -> Result<()> {
    let stat = rustix::fs::statvfs(root).with_context(|| format!("asking how full the disk of {} is", root.display()))?;
    let free_gib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 30;
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
