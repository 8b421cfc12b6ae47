//! Installing Supercargo into the local cluster as anybody would: CRDs, the chart by Helm, and the simulated GPUs beside.

use crate::chain_setup::{Market, Person};
use crate::cluster::{ClusterInfo, Layout, images};
use crate::image::Written;
use crate::{kubectl, wait};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::process::Command;

pub const NAMESPACE: &str = "supercargo";
/// Where the simulated GPUs' pods are.
pub const GPUS: &str = "gpu-simulator";
/// The name that pools and escrows give the local chain.
pub const CHAIN: &str = "default";

/// The simulated GPUs, until every node shows them.
pub async fn gpus(layout: &Layout, info: &ClusterInfo) -> Result<()> {
    let manifest =
        std::fs::read_to_string(layout.root.join("e2e/manifests/gpu-simulator.yaml")).context("reading the simulator's manifest")?;
    kubectl::apply(layout, &manifest).await?;
    wait::until("every node to have GPUs", Duration::from_secs(120), || async {
        let listed: Value = serde_json::from_str(&kubectl::run(layout, &["get", "nodes", "-o", "json"]).await?)?;
        let ready = |node: &Value| {
            let present = node["metadata"]["labels"]["nvidia.com/gpu.present"] == "true";
            present && node["status"]["allocatable"]["nvidia.com/gpu"].as_str().is_some_and(|count| count != "0")
        };
        let all = listed["items"].as_array().map_or(0, |nodes| nodes.iter().filter(|node| ready(node)).count());
        Ok((all == info.nodes.len()).then_some(()))
    })
    .await
}

/// The chart, from the image that was just built; until its pods are ready.
pub async fn chart(layout: &Layout, info: &ClusterInfo, market: &Market, operator: &Written) -> Result<()> {
    let chart = layout.root.join("charts/supercargo");
    kubectl::run(layout, &["apply", "--server-side", "--force-conflicts", "-f", &chart.join("crds").display().to_string()]).await?;
    kubectl::run(layout, &["wait", "--for=condition=Established", "--timeout=30s", "-f", &chart.join("crds").display().to_string()])
        .await?;
    kubectl::apply(layout, &volume(layout, info)?).await?;
    let values = layout.cluster().join("values.json");
    std::fs::write(&values, serde_json::to_string_pretty(&chart_values(info, market, operator))?)
        .with_context(|| format!("writing {}", values.display()))?;
    let output = Command::new(layout.bin("helm"))
        .args(["upgrade", "--install", "supercargo", &chart.display().to_string(), "--namespace", NAMESPACE, "--wait", "--timeout", "120s"])
        .envs(crate::http::direct())
        .args(["--values", &values.display().to_string(), "--kubeconfig", &info.kubeconfig.display().to_string()])
        .output()
        .await
        .context("starting helm")?;
    if !output.status.success() {
        let pods = kubectl::run(layout, &["-n", NAMESPACE, "describe", "pods"]).await.unwrap_or_default();
        anyhow::bail!("helm: {}\n{pods}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn chart_values(info: &ClusterInfo, market: &Market, operator: &Written) -> Value {
    // 90, 7 and 3 percent of a fee of 2.5 percent.
    let shares: Vec<Value> = market
        .fee_payees
        .iter()
        .zip([9_000, 700, 300])
        .map(|(payee, basis_points)| json!({ "payee": payee, "basisPoints": basis_points }))
        .collect();
    json!({
        "image": { "tag": images::build_tag(operator) },
        "books": { "existingClaim": "books" },
        "settler": { "existingSecret": "settler" },
        "config": {
            "tokens": [{ "symbol": "USDC" }],
            "chains": [{
                "name": CHAIN, "chainId": info.chain_id, "rpcs": [info.chain_url], "contract": market.addresses.escrow.to_string(),
                "token": "USDC", "settler": market.settler,
            }],
            "fees": { "basisPoints": 250, "shares": shares },
            "settlement": { "pollSeconds": 1, "postSeconds": 2, "minimumAmount": "0.000001" },
            "gpuResourceNames": ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb"],
            // What it scrapes every few seconds is there within as many.
            "prometheus": { "url": info.prometheus_url, "settleSeconds": 10, "gapSeconds": 30 },
        },
    })
}

/// A namespace with the settler's key, and a disk for the books that outlives the operator's pod.
fn volume(layout: &Layout, info: &ClusterInfo) -> Result<String> {
    let path = layout.cluster().join("volumes/books");
    std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    let key = std::fs::read_to_string(Person::Settler.key_file(layout)).context("reading the settler's key")?;
    let objects = [
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "settler", "namespace": NAMESPACE }, "stringData": { "key": key } }),
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "supercargo-books" },
            "spec": {
                "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "",
                "claimRef": { "namespace": NAMESPACE, "name": "books" },
                "local": { "path": path },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": [info.nodes[0]] }] }] } },
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "books", "namespace": NAMESPACE },
            "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": "supercargo-books", "resources": { "requests": { "storage": "1Gi" } } },
        }),
    ];
    Ok(objects.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n---\n"))
}
