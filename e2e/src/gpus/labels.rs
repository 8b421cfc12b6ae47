//! The labels that GPU feature discovery would put on the node.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

/// Sets the labels under a field manager of their own, so that a second time changes nothing.
pub async fn set(node: &str, model: &str, memory_mebibytes: u64, count: usize) -> Result<()> {
    let client = Client::try_default().await.context("reaching the API server")?;
    let labels = json!({
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": model,
        "nvidia.com/gpu.memory": memory_mebibytes.to_string(),
        "nvidia.com/gpu.count": count.to_string(),
    });
    let patch = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "labels": labels } });
    let parameters = PatchParams::apply("gpu-simulator").force();
    Api::<Node>::all(client).patch(node, &parameters, &Patch::Apply(&patch)).await.context("labelling the node")?;
    Ok(())
}
