//! The labels that GPU feature discovery would put on the node, with its strategy `mixed` for GPUs in MIG mode.

use super::devices::{Devices, GPU};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use std::collections::BTreeMap;

/// So many of an H100's multiprocessors are in a slice.
const MULTIPROCESSORS: u64 = 16;

/// Sets the labels under a field manager of their own, so that a second time changes nothing.
pub async fn set(node: &str, model: &str, memory_mebibytes: u64, devices: &Devices) -> Result<()> {
    let client = Client::try_default().await.context("reaching the API server")?;
    let labels = labels(model, memory_mebibytes, devices);
    let patch = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "labels": labels } });
    let parameters = PatchParams::apply("gpu-simulator").force();
    Api::<Node>::all(client).patch(node, &parameters, &Patch::Apply(&patch)).await.context("labelling the node")?;
    Ok(())
}

/// GPUs in MIG mode are counted with the whole ones; their slices have labels of their own, named after their resource.
fn labels(model: &str, memory_mebibytes: u64, devices: &Devices) -> BTreeMap<String, String> {
    let product = model.replace(' ', "-");
    let mut labels = BTreeMap::new();
    let mut label = |resource: &str, suffix: &str, value: String| labels.insert(format!("{resource}.{suffix}"), value);
    label(GPU, "present", "true".to_owned());
    label(GPU, "product", product.clone());
    label(GPU, "memory", memory_mebibytes.to_string());
    label(GPU, "count", devices.gpus().to_string());
    // Of GPUs that are all in MIG mode none is handed out whole.
    label(GPU, "replicas", u8::from(!devices.of(GPU).is_empty()).to_string());
    label("nvidia.com/mig", "capable", "true".to_owned());
    label("nvidia.com/mig", "strategy", "mixed".to_owned());
    for resource in devices.resources() {
        let slices = devices.of(&resource);
        let Some(profile) = slices.first().and_then(|device| device.slice.as_ref()).map(|slice| slice.profile) else { continue };
        label(&resource, "product", format!("{product}-MIG-{profile}"));
        label(&resource, "count", slices.len().to_string());
        label(&resource, "replicas", "1".to_owned());
        label(&resource, "memory", profile.mebibytes().to_string());
        label(&resource, "multiprocessors", (MULTIPROCESSORS * profile.slices).to_string());
        label(&resource, "slices.gi", profile.slices.to_string());
        label(&resource, "slices.ci", profile.slices.to_string());
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(description: &str) -> Vec<(String, String)> {
        labels("NVIDIA H100 80GB HBM3", 81_559, &Devices::describe("n", description).expect("described")).into_iter().collect()
    }

    fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| (format!("nvidia.com/{name}"), (*value).to_owned())).collect()
    }

    #[test]
    fn a_node_with_whole_gpus_and_slices_has_the_labels_of_feature_discovery_for_both() {
        assert_eq!(
            of("nvidia.com/gpu=4,nvidia.com/mig-2g.20gb=2"),
            expected(&[
                ("gpu.count", "5"),
                ("gpu.memory", "81559"),
                ("gpu.present", "true"),
                ("gpu.product", "NVIDIA-H100-80GB-HBM3"),
                ("gpu.replicas", "1"),
                ("mig-2g.20gb.count", "2"),
                ("mig-2g.20gb.memory", "20480"),
                ("mig-2g.20gb.multiprocessors", "32"),
                ("mig-2g.20gb.product", "NVIDIA-H100-80GB-HBM3-MIG-2g.20gb"),
                ("mig-2g.20gb.replicas", "1"),
                ("mig-2g.20gb.slices.ci", "2"),
                ("mig-2g.20gb.slices.gi", "2"),
                ("mig.capable", "true"),
                ("mig.strategy", "mixed"),
            ])
        );
    }

    #[test]
    fn a_node_whose_gpus_are_all_in_slices_hands_out_no_whole_one() {
        let labels: BTreeMap<String, String> = of("nvidia.com/mig-1g.10gb=8").into_iter().collect();
        assert_eq!((labels["nvidia.com/gpu.count"].as_str(), labels["nvidia.com/gpu.replicas"].as_str()), ("2", "0"));
        assert_eq!(labels["nvidia.com/mig-1g.10gb.count"], "8");
    }

    #[test]
    fn every_label_is_one_that_an_api_server_takes() {
        let taken = |text: &str| text.len() <= 63 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        for (name, value) in of("nvidia.com/gpu=4,nvidia.com/mig-1g.10gb=2") {
            assert!(name.strip_prefix("nvidia.com/").is_some_and(taken) && taken(&value), "{name}: {value}");
        }
    }
}
