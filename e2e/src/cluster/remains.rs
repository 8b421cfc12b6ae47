//! Counts what a cluster has on this machine beside its files, by kind: before it came up and after it went, the two
//! counts have to be equal.

use super::shell::sh;
use super::{Layout, cgroup, machine, process::Processes};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// How many of each kind of thing there are.
pub type Count = BTreeMap<&'static str, usize>;

/// Everything of the kinds that the cluster makes, and each of the kernel's settings that a kubelet changes. Processes and cgroups are counted by the cluster's own name, the
/// rest over the whole machine, so that something left under another name is seen as well.
pub fn count(layout: &Layout) -> Result<Count> {
    let group = Processes::new(layout).top_group();
    let lines = |text: String| text.lines().filter(|line| !line.trim().is_empty()).count();
    let filters = |program: &str| Ok::<_, anyhow::Error>(sh(program)?.lines().filter(|line| line.starts_with(['-', ':'])).count());
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading this machine's mounts")?;
    let mut count = Count::from([
        ("processes", cgroup::processes(&group)?.len()),
        ("cgroups", cgroup::count(&group)?),
        ("mounts", lines(mounts)),
        ("network links", lines(sh("ip -o link show")?)),
        ("routes", lines(sh("ip -4 route show")?)),
        ("network namespaces", namespaces("net")?),
        ("mount namespaces", namespaces("mnt")?),
        ("host name namespaces", namespaces("uts")?),
        ("cgroup namespaces", namespaces("cgroup")?),
        ("ipc namespaces", namespaces("ipc")?),
        ("process namespaces", namespaces("pid")?),
        ("packet filter rules and chains", filters("iptables-save")?),
        ("packet filter rules and chains of IPv6", filters("ip6tables-save")?),
        ("loop devices", lines(sh("losetup --list --noheadings")?)),
        ("socket folders", usize::from(layout.sockets().exists())),
        ("folders", machine::folders()),
    ]);
    count.extend(machine::settings());
    Ok(count)
}

/// What there is more of in `after` than in `before`.
pub fn left_behind(before: &Count, after: &Count) -> Vec<(&'static str, usize)> {
    after.iter().map(|(kind, n)| (*kind, n.saturating_sub(before.get(kind).copied().unwrap_or(0)))).filter(|(_, more)| *more > 0).collect()
}

fn namespaces(kind: &str) -> Result<usize> {
    let mut found = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir("/proc").context("listing processes")?.flatten() {
        // A process may end between the listing and the look at it.
        if entry.file_name().to_string_lossy().chars().all(|c| c.is_ascii_digit())
            && let Ok(namespace) = std::fs::read_link(entry.path().join("ns").join(kind))
        {
            found.insert(namespace);
        }
    }
    Ok(found.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is_more_of_was_left_behind() {
        let before = Count::from([("mounts", 10), ("routes", 3)]);
        let after = Count::from([("mounts", 12), ("routes", 2)]);
        assert_eq!(left_behind(&before, &after), [("mounts", 2)]);
    }
}
