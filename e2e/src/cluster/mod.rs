//! A Kubernetes cluster of real parts on one machine: brought up, healed, counted and taken down again.

mod cgroup;
mod chain;
mod control_plane;
pub mod images;
mod layout;
mod lock;
mod machine;
mod network;
mod node;
mod observe;
mod pki;
mod preflight;
mod process;
mod programs;
pub mod remains;
pub mod shell;

pub use chain::CHAIN_ID;
pub use layout::{ClusterInfo, Layout, Ports, STATE_VERSION, Subnet};
pub use observe::GPU_EXPORTER_PORT;
pub use process::Processes;

use crate::{kubectl, wait};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The image of the container that holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "supercargo.dev/pause:local";
const NODES: [&str; 2] = ["node-1", "node-2"];

/// Brings the cluster up, or heals what of it is gone. A healthy one is left as it is.
pub async fn up(layout: &Layout) -> Result<ClusterInfo> {
    preflight::check(layout)?;
    let _one_at_a_time = lock::take(layout)?;
    let started = Instant::now();
    let stage = |what: &str| println!("{:>6.1} s  {what}", started.elapsed().as_secs_f32());
    let fresh = layout.read_info()?.is_none();
    let info = recorded_or_chosen(layout)?;
    let processes = Processes::new(layout);
    machine::note(&processes.top_group())?;
    network::ensure_bridge(layout, info.subnet)?;
    pki::ensure(layout, &info)?;
    control_plane::ensure(layout, &info, &processes).await?;
    stage("control plane answers");
    let mut healed = Vec::new();
    for (index, node) in info.nodes.iter().enumerate() {
        let now = jiff::Timestamp::now();
        if node::ensure(layout, &info, &processes, index).await? {
            healed.push((node.as_str(), now));
        }
    }
    chain::ensure(layout, &info, &processes).await?;
    observe::ensure_prometheus(layout, &info, &processes).await?;
    stage("chain and Prometheus answer");
    nodes_ready(layout, &info, &processes, &healed).await?;
    stage("all nodes are Ready");
    if fresh {
        println!("figure bedrock.nodes_ready {:.1} s", started.elapsed().as_secs_f32());
    }
    Ok(info)
}

/// Takes everything down and removes its state; built programs stay. Of a checkout that was moved, what it had before; of a
/// copy, only the copied files: the cluster is the original's.
pub async fn down(layout: &Layout) -> Result<()> {
    anyhow::ensure!(rustix::process::geteuid().is_root(), "only root can end the local cluster's processes: run it as root");
    let _one_at_a_time = lock::take(layout)?;
    let before = layout.before_it_was_moved();
    for theirs in before.iter().chain([layout]) {
        end(theirs).await?;
    }
    machine::give_back()?;
    let sockets = before.iter().chain([layout]).map(Layout::sockets);
    for folder in std::iter::once(layout.cluster()).chain(sockets) {
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        }
    }
    Ok(())
}

async fn end(layout: &Layout) -> Result<()> {
    let processes = Processes::new(layout);
    processes.end("").await?;
    network::remove(layout, NODES.len())?;
    let group = processes.top_group();
    wait::until("the cluster's cgroups to empty", Duration::from_secs(10), || async { cgroup::remove(&group).map(Some) }).await
}

/// Whether a cluster could come up here: an error in one line when not.
pub fn check(layout: &Layout) -> Result<()> {
    preflight::check(layout)
}

/// One line for each process: whether it runs.
pub fn status(layout: &Layout) -> Result<Vec<(String, Option<u32>)>> {
    let Some(info) = layout.read_info()? else { return Ok(Vec::new()) };
    let processes = Processes::new(layout);
    Ok(process_names(&info).into_iter().map(|name| (name.clone(), processes.alive(&name))).collect())
}

/// Every process that `up` starts, by name.
pub fn process_names(info: &ClusterInfo) -> Vec<String> {
    let mut names: Vec<String> =
        ["etcd", "apiserver", "controller-manager", "scheduler", "chain", "chain-keeper", "prometheus"].map(str::to_owned).to_vec();
    for node in &info.nodes {
        names.extend(["holder", "containerd", "kubelet", "proxy"].map(|part| format!("{node}-{part}")));
    }
    names
}

fn recorded_or_chosen(layout: &Layout) -> Result<ClusterInfo> {
    if let Some(info) = layout.read_info()? {
        return Ok(info);
    }
    std::fs::create_dir_all(layout.cluster()).with_context(|| format!("making {}", layout.cluster().display()))?;
    let subnet = Subnet::choose(&layout.id, &network::taken()?)?;
    let ports = Ports::free(&layout.id)?;
    let info = ClusterInfo {
        version: STATE_VERSION,
        id: layout.id.clone(),
        root: layout.root.clone(),
        subnet,
        nodes: NODES.map(str::to_owned).to_vec(),
        kubeconfig: layout.kubeconfig("admin"),
        audit_log: layout.audit_log(),
        chain_url: format!("http://{}:{}", subnet.gateway(), ports.chain),
        chain_id: CHAIN_ID,
        prometheus_url: format!("http://{}:{}", subnet.gateway(), ports.prometheus),
        ports,
    };
    layout.write_info(&info)?;
    Ok(info)
}

/// Every node is Ready and every process runs. A node that was healed has to say so itself, after it was started: what
/// it said before it was killed still stands for a while.
async fn nodes_ready(layout: &Layout, info: &ClusterInfo, processes: &Processes, healed: &[(&str, jiff::Timestamp)]) -> Result<()> {
    wait::until("every node to be Ready", Duration::from_secs(90), || async {
        for name in process_names(info) {
            anyhow::ensure!(processes.alive(&name).is_some(), wait::Hopeless(format!("{name} ended:\n{}", processes.last_words(&name))));
        }
        let Ok(listed) = kubectl::run(layout, &["get", "nodes", "-o", "json"]).await else { return Ok(None) };
        let listed: Value = serde_json::from_str(&listed).context("reading the nodes")?;
        let heartbeats = ready_heartbeats(&listed);
        let ready = |node: &String| {
            let since = healed.iter().find(|(name, _)| name == node).map(|(_, since)| *since);
            heartbeats.get(node.as_str()).is_some_and(|heartbeat| since.is_none_or(|since| *heartbeat >= since))
        };
        Ok(info.nodes.iter().all(ready).then_some(()))
    })
    .await
}

/// The nodes that are Ready, with when they last said so.
fn ready_heartbeats(nodes: &Value) -> BTreeMap<&str, jiff::Timestamp> {
    let ready = |node: &Value| -> Option<jiff::Timestamp> {
        let conditions = node["status"]["conditions"].as_array()?;
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready" && condition["status"] == "True")?;
        ready["lastHeartbeatTime"].as_str()?.parse().ok()
    };
    let nodes = nodes["items"].as_array().into_iter().flatten();
    nodes.filter_map(|node| Some((node["metadata"]["name"].as_str()?, ready(node)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_ready_node_counts_with_when_it_last_said_so() {
        let node = |name: &str, status: &str| {
            let ready = serde_json::json!({"type": "Ready", "status": status, "lastHeartbeatTime": "2026-01-02T03:04:05Z"});
            serde_json::json!({"metadata": {"name": name}, "status": {"conditions": [ready]}})
        };
        let nodes = serde_json::json!({"items": [node("a", "True"), node("b", "Unknown"), {"metadata": {"name": "new"}}]});
        assert_eq!(ready_heartbeats(&nodes), BTreeMap::from([("a", "2026-01-02T03:04:05Z".parse().unwrap())]));
    }
}
