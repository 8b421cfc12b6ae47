//! Journeys about nodes and volumes: nodes that are only sold are closed to everybody else, what the operator may write of a
//! node, nodes that are cordoned, pods that kube-scheduler binds, and tasks that go where their volumes are.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use supercargo_e2e::api_log::ApiLog;
use supercargo_e2e::install::NAMESPACE;
use supercargo_e2e::journey::{Journey, condition_of, journey, merge, succeeded};
use supercargo_e2e::sights::{self, Watch};
use supercargo_e2e::{kubectl, wait};

const PATIENCE: Duration = Duration::from_secs(30);
/// The pool that all journeys share.
const POOL: &str = "acme-north";

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

#[tokio::test(flavor = "multi_thread")]
async fn a_cordoned_node_is_on_offer_no_more_within_two_seconds_and_again_when_it_is_opened() {
    journey("cordons", |journey| async move {
        journey.pool().await?;
        journey.grant("1").await?;
        let node = journey.stage.info.nodes.last().context("a node")?.clone();
        let went = cordoned(&journey, &node).await;
        journey.kubectl(&["uncordon", &node]).await?;
        went
    })
    .await;
}

async fn cordoned(journey: &Journey, node: &str) -> Result<()> {
    let client = sights::client(&journey.stage.info).await?;
    let (mut nodes, mut offers) = (Watch::begin(&client, "Node", None).await?, Watch::begin(&client, "ProviderNode", None).await?);
    // How long after the node itself the offer shows it.
    let mut delay = async |unschedulable: bool, reason: &str| -> Result<Duration> {
        let shown = nodes.until(format!("the node's unschedulable to be {unschedulable}"), PATIENCE, |sight| {
            let is = sight.object["spec"]["unschedulable"] == true;
            (sight.object["metadata"]["name"] == node && is == unschedulable).then_some(sight.at)
        });
        let told = offers.until(format!("the offer to be {reason}"), PATIENCE, |sight| {
            let ready = condition_of(&sight.object, "Ready")?;
            (sight.object["metadata"]["name"] == node && ready["reason"] == reason).then_some(sight.at)
        });
        let (shown, told) = tokio::try_join!(shown, told)?;
        Ok(told.saturating_duration_since(shown))
    };
    delay(false, "Open").await?;
    journey.kubectl(&["cordon", node]).await?;
    let closed = delay(true, "NodeCordoned").await?;
    let there = json!({ "placement": { "nodeSelector": { "kubernetes.io/hostname": node } } });
    journey.task("waits", &["--for", "1"], there).await?;
    wait::until("the task to wait for the node", PATIENCE, || async {
        let waiting = journey.get("computetask", "waits").await?["status"]["waiting"].take();
        Ok(waiting.as_array().is_some_and(|all| all.iter().any(|one| one["reason"] == "NodeCordoned")).then_some(()))
    })
    .await?;
    journey.kubectl(&["uncordon", node]).await?;
    let opened = delay(false, "Open").await?;
    println!("an offer is closed {:.3} s after its node, and open {:.3} s after it", closed.as_secs_f64(), opened.as_secs_f64());
    ensure!(closed.max(opened) <= Duration::from_secs(2), "closed after {closed:?}, open after {opened:?}");
    let task = journey.finished("waits").await?;
    ensure!(succeeded(&task) && task["status"]["attempts"][0]["node"] == node, "{}", task["status"]);
    Ok(())
}

/// The task's one pod, which kube-scheduler has bound: the API server's own log says so.
async fn bound_by_scheduler(journey: &Journey, log: &mut ApiLog, task: &str) -> Result<()> {
    let pod = journey.pods(task).await?.pop().context("a pod")?;
    let bound = log.more()?.into_iter().filter(|write| write.kind == "create pods/binding" && pod["metadata"]["name"] == write.name);
    let by: Vec<String> = bound.filter(|write| write.namespace == journey.namespace).map(|write| write.user).collect();
    ensure!(by == ["system:kube-scheduler"], "it was bound by {by:?}");
    let term = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"][0];
    ensure!(term["matchFields"][0]["values"] == json!([pod["spec"]["nodeName"]]), "it goes where it was placed: {}", pod["spec"]);
    Ok(())
}

#[tokio::test]
async fn in_a_pool_beside_other_workloads_kube_scheduler_binds_the_tasks() {
    journey("beside", |journey| async move {
        journey.pool().await?;
        journey.grant("1").await?;
        let binding = async |binding: &str| -> Result<()> {
            journey.change("providerpool", POOL, json!({ "binding": binding })).await?;
            wait::until(format!("the pool to be seen with binding {binding}"), PATIENCE, || async {
                let pool = journey.get("providerpool", POOL).await?;
                Ok((pool["status"]["observedGeneration"] == pool["metadata"]["generation"]).then_some(()))
            })
            .await
        };
        let mut log = ApiLog::from_now(&journey.stage.info)?;
        let changed = binding("Scheduler").await;
        let went = match changed {
            Ok(()) => {
                async {
                    journey.task("guest", &["--for", "1"], json!({})).await?;
                    journey.finished("guest").await
                }
                .await
            }
            Err(error) => Err(error),
        };
        binding("Direct").await?;
        let task = went?;
        ensure!(succeeded(&task), "{}", task["status"]);
        bound_by_scheduler(&journey, &mut log, "guest").await
    })
    .await;
}

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
    bound_by_scheduler(journey, &mut log, "reader").await
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
