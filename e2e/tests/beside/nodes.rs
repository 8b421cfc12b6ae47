//! Journeys about volumes: tasks go where their volumes are, and pods whose volume is still to be found are bound by
//! kube-scheduler.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use supercargo_e2e::api_log::ApiLog;
use supercargo_e2e::journey::{Journey, condition_of, journey, merge, succeeded};
use supercargo_e2e::wait;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_claim_that_waits_for_its_first_pod_gets_its_volume_with_the_task() {
    journey("binds", |journey| async move {
        journey.pool().await?;
        journey.grant("1").await?;
        let node = journey.stage.info.nodes.last().context("a node")?.clone();
        let volume = format!("{}-data", journey.namespace);
        let went = first_consumer(&journey, &volume, &node).await;
        for (kind, name) in [("persistentvolume", &volume), ("storageclass", &journey.namespace)] {
            journey.kubectl(&["delete", kind, name, "--ignore-not-found", "--wait=false"]).await?;
        }
        went
    })
    .await;
}

async fn first_consumer(journey: &Journey, volume: &str, node: &str) -> Result<()> {
    let class = journey.namespace.as_str();
    journey
        .apply(json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": class },
            "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
        }))
        .await?;
    local_volume(journey, volume, node, class).await?;
    claim(journey, json!({ "storageClassName": class })).await?;
    wait::until("the claim to wait for a pod", PATIENCE, || async {
        let events = journey.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]).await?;
        Ok(events.split_whitespace().any(|reason| reason == "WaitForFirstConsumer").then_some(()))
    })
    .await?;
    let mut log = ApiLog::from_now(&journey.stage.info)?;
    journey.task("reader", &["--for", "1"], mounted()).await?;
    let task = journey.finished("reader").await?;
    ensure!(succeeded(&task) && task["status"]["attempts"][0]["node"] == *node, "the volume is on {node}: {}", task["status"]);
    let claim = journey.get("persistentvolumeclaim", "data").await?;
    ensure!(claim["spec"]["volumeName"] == volume && claim["status"]["phase"] == "Bound", "{claim}");
    journey.bound_by_scheduler(&mut log, "reader").await
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

/// What lays the claim `data` into a task.
fn mounted() -> Value {
    json!({ "volumes": [{ "name": "data", "mountPath": "/data", "persistentVolumeClaim": { "claimName": "data" } }] })
}

async fn on_the_volumes_node(journey: &Journey, volume: &str, node: &str) -> Result<()> {
    journey.task("reader", &["--for", "1"], mounted()).await?;
    wait::until("the task to wait for its claim", Duration::from_secs(10), || async {
        let task = journey.get("computetask", "reader").await?;
        Ok((task["status"]["waiting"][0]["reason"] == "VolumeNotFound").then_some(()))
    })
    .await?;

    local_volume(journey, volume, node, "").await?;
    claim(journey, json!({ "storageClassName": "", "volumeName": volume })).await?;
    let task = journey.finished("reader").await?;
    ensure!(succeeded(&task), "{}", task["status"]);
    ensure!(task["status"]["attempts"][0]["node"] == *node, "the volume is on {node}: {}", task["status"]["attempts"]);
    Ok(())
}

/// A folder of one node, as a volume of this class.
async fn local_volume(journey: &Journey, name: &str, node: &str, class: &str) -> Result<()> {
    let folder = journey.stage.layout.cluster().join("volumes").join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let here = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] });
    journey
        .apply(json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
            "spec": {
                "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": class, "local": { "path": folder },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [here] }] } },
            },
        }))
        .await
}

/// The claim `data`, with this beside what every claim has.
async fn claim(journey: &Journey, with: Value) -> Result<()> {
    let mut spec = json!({ "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } });
    merge(&mut spec, with);
    let metadata = json!({ "name": "data", "namespace": journey.namespace });
    journey.apply(json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec })).await
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
