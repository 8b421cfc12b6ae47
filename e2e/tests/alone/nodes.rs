//! Journeys about nodes: those that are only sold are closed to everybody else, what the operator may write of a node, nodes that
//! are cordoned, and a pool whose pods kube-scheduler binds.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use supercargo_e2e::api_log::ApiLog;
use supercargo_e2e::install::NAMESPACE;
use supercargo_e2e::journey::{Journey, alone, condition_of, succeeded};
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
    alone("sold", |journey| async move {
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
    alone("cordons", |journey| async move {
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

#[tokio::test]
async fn in_a_pool_beside_other_workloads_kube_scheduler_binds_the_tasks() {
    alone("beside", |journey| async move {
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
        journey.bound_by_scheduler(&mut log, "guest").await
    })
    .await;
}
