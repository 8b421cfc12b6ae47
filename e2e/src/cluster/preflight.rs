//! What would make `up` fail half-way is looked for first, and named in one line with what to do.

use super::layout::Layout;
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;

const NEEDED_DISK_GIB: u64 = 4;
const TOOLS: [&str; 9] = ["ip", "iptables", "conntrack", "mkfs.ext4", "unshare", "nsenter", "mount", "prometheus", "sysctl"];
const PROGRAMS: [&str; 6] = ["kube", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "anvil"];

pub fn check(layout: &Layout) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "the local cluster makes namespaces, mounts and cgroups: run it as root");
    let missing: Vec<&str> = TOOLS.into_iter().filter(|tool| !on_path(tool)).collect();
    ensure!(missing.is_empty(), "not installed: {}; run `make prerequisites`", missing.join(", "));
    let unbuilt: Vec<&str> = PROGRAMS.into_iter().filter(|program| !layout.bin(program).exists()).collect();
    ensure!(unbuilt.is_empty(), "not built: {}; run `make cluster-bin`", unbuilt.join(", "));
    let socket = layout.containerd_socket("node-1");
    ensure!(socket.as_os_str().len() < 100, "{} is too long for a socket", socket.display());
    disk(&layout.root)?;
    super::cgroup::hierarchies()?;
    let running = super::process::Processes::new(layout).alive("apiserver").is_some();
    match layout.read_info()? {
        Some(info) if !running => port_is_free(info.ports.api),
        _ => Ok(()),
    }
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

fn port_is_free(port: u16) -> Result<()> {
    match std::net::TcpListener::bind(("0.0.0.0", port)) {
        Ok(_) => Ok(()),
        Err(error) => {
            bail!("port {port}, which this cluster's API server had, is taken ({error}): run `make down`, then `make up` for a new one")
        }
    }
}
