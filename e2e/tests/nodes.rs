//! Journeys about nodes and volumes: nodes that are only sold are closed to everybody else, what the operator may write of a
//! node, and tasks that go where their volumes are.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use supercargo_e2e::install::NAMESPACE;
use supercargo_e2e::journey::{Journey, condition_of, journey};
use supercargo_e2e::{kubectl, wait};

/// A node that nobody runs: enough for what is only written of nodes.
async fn empty_node(journey: &Journey, name: &str) -> Result<()> {
    let label = json!({ "journey": journey.namespace });
    let taint = json!({ "key": "acme.test/kept", "value": "for-us", "effect": "NoSchedule" });
    journey
        .apply(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": label }, "spec": { "taints": [taint] } }))
        .await
}

async fn taints(journey: &Journey, node: &str) -> Result<Vec<String>> {
    let listed = journey.kubectl(&["get", "node", node, "-o", "jsonpath={.spec.taints[*].key}"]).await?;
    Ok(listed.split_whitespace().map(str::to_owned).collect())
}

/// Waits until the node is sold, or is not any more.
async fn until_sold(journey: &Journey, node: &str, sold: bool) -> Result<()> {
    let what = if sold { "the node to be tainted" } else { "the node's taint to go" };
    wait::until(what, Duration::from_secs(20), || async {
        let found = taints(journey, node).await?;
        ensure!(found.iter().any(|key| key == "acme.test/kept"), "somebody else's taint was lost: {found:?}");
        Ok((found.iter().any(|key| key == "supercargo.dev/sold") == sold).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_node_that_is_only_sold_is_closed_to_others_and_the_operator_writes_nothing_else_of_it() {
    journey("sold", |journey| async move {
        let node = format!("{}-node", journey.namespace);
        let went = sold(&journey, &node).await;
        for (kind, name) in [("providerpool", &journey.namespace), ("providernode", &node), ("node", &node)] {
            journey.kubectl(&["delete", kind, name, "--ignore-not-found", "--wait=false"]).await?;
        }
        went
    })
    .await;
}

async fn sold(journey: &Journey, node: &str) -> Result<()> {
    empty_node(journey, node).await?;
    let pool = json!({
        "apiVersion": "supercargo.dev/v1alpha1", "kind": "ProviderPool", "metadata": { "name": journey.namespace },
        "spec": {
            "provider": "hermit", "selector": { "matchLabels": { "journey": journey.namespace } }, "binding": "Direct",
            "pricing": { "token": "USDC", "resources": [{ "resourceName": "nvidia.com/gpu", "perHour": "9" }] },
        },
    });
    journey.apply(pool).await?;
    until_sold(journey, node, true).await?;
    let told = wait::until("the condition Sold", Duration::from_secs(10), || async {
        let provided = journey.get("providernode", node).await?;
        Ok(condition_of(&provided, "Sold").filter(|condition| condition["status"] == "True").cloned())
    })
    .await?;
    ensure!(told["reason"] == "Tainted", "{told}");

    let account = format!("--as=system:serviceaccount:{NAMESPACE}:supercargo-operator");
    for (what, patch) in [
        ("may not change a node's metadata", json!({ "metadata": { "labels": { "nvidia.com/gpu.present": "true" } } })),
        ("may not change a node's spec", json!({ "spec": { "unschedulable": true } })),
        ("may only change the taint supercargo.dev/sold", json!({ "spec": { "taints": [] } })),
    ] {
        let refused = journey.kubectl(&["patch", "node", node, &account, "--type=merge", "-p", &patch.to_string()]).await;
        let words = refused.err().with_context(|| format!("{patch} was let through"))?.to_string();
        ensure!(words.contains(what), "{words}");
    }

    // The nodes of the local cluster run other things too: who they are is said, and none of them is thrown out.
    journey.pool().await?;
    let listed: Value = serde_json::from_str(&kubectl::run(&journey.stage.layout, &["get", "providernodes", "-o", "json"]).await?)?;
    for name in &journey.stage.info.nodes {
        let provided = listed["items"].as_array().into_iter().flatten().find(|one| one["metadata"]["name"] == **name);
        let told = provided.and_then(|provided| condition_of(provided, "Sold")).with_context(|| format!("Sold of {name}"))?;
        ensure!(told["reason"] == "PodsWouldGo" && told["message"].to_string().contains("gpu-simulator"), "{told}");
    }

    journey.kubectl(&["delete", "providerpool", &journey.namespace]).await?;
    until_sold(journey, node, false).await
}

#[tokio::test]
async fn a_task_goes_where_its_volume_is_and_waits_in_words_while_there_is_none() {
    journey("volume", |journey| async move {
        journey.pool().await?;
        journey.grant("1").await?;
        let node = journey.stage.info.nodes.last().context("a node")?.clone();
        let volume = format!("{}-data", journey.namespace);
        let went = on_the_volumes_node(&journey, &volume, &node).await;
        journey.kubectl(&["delete", "persistentvolume", &volume, "--ignore-not-found", "--wait=false"]).await?;
        went
    })
    .await;
}

async fn on_the_volumes_node(journey: &Journey, volume: &str, node: &str) -> Result<()> {
    let mounted = json!({ "volumes": [{ "name": "data", "mountPath": "/data", "persistentVolumeClaim": { "claimName": "data" } }] });
    journey.task("reader", &["--for", "1"], mounted).await?;
    wait::until("the task to wait for its claim", Duration::from_secs(10), || async {
        let task = journey.get("computetask", "reader").await?;
        Ok((task["status"]["waiting"][0]["reason"] == "VolumeNotFound").then_some(()))
    })
    .await?;

    let folder = journey.stage.layout.cluster().join("volumes").join(volume);
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let here = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] });
    journey
        .apply(json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": volume },
            "spec": {
                "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "", "local": { "path": folder },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [here] }] } },
            },
        }))
        .await?;
    journey
        .apply(json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data", "namespace": journey.namespace },
            "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": volume, "resources": { "requests": { "storage": "1Gi" } } },
        }))
        .await?;
    let task = journey.finished("reader").await?;
    ensure!(condition_of(&task, "Succeeded").is_some_and(|condition| condition["status"] == "True"), "{}", task["status"]);
    ensure!(task["status"]["attempts"][0]["node"] == *node, "the volume is on {node}: {}", task["status"]["attempts"]);
    Ok(())
}

#[tokio::test]
async fn a_pod_that_the_scheduler_finds_no_node_for_is_told_in_its_words() {
    journey("unbound", |journey| async move {
        journey.pool().await?;
        journey.grant("1").await?;
        let class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": journey.namespace },
            "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
        });
        journey.apply(class).await?;
        let went = bound_at_last(&journey).await;
        for name in ["small", "large"].map(|size| volume(&journey, size)) {
            journey.kubectl(&["delete", "persistentvolume", &name, "--ignore-not-found", "--wait=false"]).await?;
        }
        journey.kubectl(&["delete", "storageclass", &journey.namespace, "--wait=false"]).await?;
        went
    })
    .await;
}

fn volume(journey: &Journey, size: &str) -> String {
    format!("{}-{size}", journey.namespace)
}

/// A volume of the journey's class, on the last node.
async fn make_volume(journey: &Journey, size: &str, capacity: &str) -> Result<()> {
    let name = volume(journey, size);
    let folder = journey.stage.layout.cluster().join("volumes").join(&name);
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let node = journey.stage.info.nodes.last().context("a node")?;
    let here = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] });
    journey
        .apply(json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
            "spec": {
                "capacity": { "storage": capacity }, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": journey.namespace, "local": { "path": folder },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [here] }] } },
            },
        }))
        .await
}

/// There is a volume, but a smaller one than is claimed: who binds the pod finds that out, and nobody before.
async fn bound_at_last(journey: &Journey) -> Result<()> {
    make_volume(journey, "small", "1Gi").await?;
    journey
        .apply(json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data", "namespace": journey.namespace },
            "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": journey.namespace, "resources": { "requests": { "storage": "2Gi" } } },
        }))
        .await?;
    let mounted = json!({ "volumes": [{ "name": "data", "mountPath": "/data", "persistentVolumeClaim": { "claimName": "data" } }] });
    journey.task("reader", &["--for", "1"], mounted).await?;
    let task = wait::until("the task to say what its pod waits for", Duration::from_secs(20), || async {
        let task = journey.get("computetask", "reader").await?;
        Ok((task["status"]["waiting"][0]["reason"] == "Unschedulable").then_some(task))
    })
    .await?;
    let started = condition_of(&task, "Started").context("Started")?;
    ensure!(started["message"].as_str().is_some_and(|words| words.contains("persistent volumes to bind")), "{started}");

    make_volume(journey, "large", "2Gi").await?;
    let task = journey.finished("reader").await?;
    ensure!(condition_of(&task, "Succeeded").is_some_and(|condition| condition["status"] == "True"), "{}", task["status"]);
    ensure!(task["status"]["waiting"].is_null(), "{}", task["status"]["waiting"]);
    Ok(())
}
