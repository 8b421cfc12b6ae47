//! The cluster's network: one bridge for this machine and its nodes, a pair of virtual cables for each node, and routes
//! so that this machine reaches the pods. Nothing of it needs a packet filter on the machine itself.

use super::layout::{Layout, Subnet};
use super::shell::{sh, succeeds};
use anyhow::{Context, Result};

/// The second numbers of all 10.x.0.0 networks that this machine has an address in or a route to.
pub fn taken() -> Result<Vec<u8>> {
    let listed = sh("ip -4 route show table all").context("listing this machine's routes")?;
    Ok(second_numbers(&listed))
}

fn second_numbers(routes: &str) -> Vec<u8> {
    let mut found: Vec<u8> = routes
        .split_whitespace()
        .filter_map(|word| {
            let mut numbers = word.split(['.', '/']);
            (numbers.next() == Some("10")).then(|| numbers.next().and_then(|n| n.parse().ok())).flatten()
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The bridge, with this machine's address on it.
pub fn ensure_bridge(layout: &Layout, subnet: Subnet) -> Result<()> {
    let bridge = layout.bridge();
    if !succeeds(&format!("ip link show {bridge}")) {
        sh(&format!("ip link add {bridge} type bridge"))?;
    }
    sh(&format!("ip addr replace {}/24 dev {bridge}", subnet.gateway()))?;
    sh(&format!("ip link set {bridge} up"))?;
    Ok(())
}

/// Joins the node whose namespaces `pid` holds, and sets the routes between it, the other nodes and this machine.
pub fn ensure_node(layout: &Layout, subnet: Subnet, index: usize, nodes: usize, pid: u32) -> Result<()> {
    let (bridge, cable, address) = (layout.bridge(), cable(layout, index), subnet.node(index));
    let inside = |line: &str| sh(&format!("nsenter --target {pid} --net -- {line}"));
    if !succeeds(&format!("nsenter --target {pid} --net -- ip link show eth0")) {
        remove_link(&cable)?;
        sh(&format!("ip link add {cable} type veth peer name eth0 netns {pid}"))?;
    }
    sh(&format!("ip link set {cable} master {bridge} up"))?;
    inside("ip link set lo up")?;
    inside(&format!("ip addr replace {address}/24 dev eth0"))?;
    inside("ip link set eth0 up")?;
    inside(&format!("ip route replace default via {}", subnet.gateway()))?;
    inside("sysctl -qw net.ipv4.ip_forward=1")?;
    for other in (0..nodes).filter(|other| *other != index) {
        inside(&format!("ip route replace {} via {}", subnet.pods(other), subnet.node(other)))?;
    }
    sh(&format!("ip route replace {} via {address} dev {bridge}", subnet.pods(index)))?;
    Ok(())
}

/// Takes the bridge away, and with it the routes; the cables went with their nodes.
pub fn remove(layout: &Layout, nodes: usize) -> Result<()> {
    for link in (0..nodes).map(|index| cable(layout, index)).chain([layout.bridge()]) {
        remove_link(&link)?;
    }
    Ok(())
}

/// A cable goes by itself when its node's namespace does, a moment after the last process: perhaps just now.
fn remove_link(link: &str) -> Result<()> {
    let there = format!("ip link show {link}");
    if !succeeds(&there) {
        return Ok(());
    }
    match sh(&format!("ip link del {link}")) {
        Err(error) if succeeds(&there) => Err(error),
        _ => Ok(()),
    }
}

fn cable(layout: &Layout, index: usize) -> String {
    format!("sc{}n{index}", layout.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_in_use_are_read_from_the_routes() {
        let routes =
            "default via 10.0.2.2 dev eth0\n10.42.0.0/24 dev br0 src 10.42.0.1\n172.16.0.0/12 dev x\nbroadcast 10.42.0.255 dev br0";
        assert_eq!(second_numbers(routes), [0, 42]);
    }
}
