//! Faults of the cluster: whatever is killed or cut off, no task that runs is ended by us, nothing is billed twice and nothing is
//! lost.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::time::{Duration, Instant};
use supercargo_e2e::bill::{adds_up, is_paid_once, records};
use supercargo_e2e::cluster::{self, Processes};
use supercargo_e2e::journey::{Journey, alone, condition_of, succeeded};
use supercargo_e2e::sights::{self, Sight, Watch};
use supercargo_e2e::{kubectl, wait};

const OPERATOR: &str = "/usr/local/bin/supercargo-operator";
const PATIENCE: Duration = Duration::from_secs(60);
/// Whoever runs on a node that nothing is heard of for five minutes is lost.
const LONGER_THAN_SILENT: Duration = Duration::from_secs(330);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes minutes: a part of make nightly"]
async fn what_ends_while_the_api_server_is_away_is_billed_as_soon_as_it_is_back() {
    alone("away", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let client = sights::client(&journey.stage.info).await?;
        let mut pods = Watch::begin(&client, "Pod", Some(&journey.namespace)).await?;
        // A word that no other container has.
        let word = format!("--{}", journey.namespace);
        journey.task("ends", &["--for", "35", &word], json!({})).await?;
        journey.task("goes-on", &["--for", "75"], json!({})).await?;
        for task in ["ends", "goes-on"] {
            journey.until(task, "Started", "True", PATIENCE).await?;
        }
        let processes = Processes::new(&journey.stage.layout);
        let operators = processes.that_run(OPERATOR)?;
        ensure!(processes.that_run(&word)?.len() == 1, "one container has the word");

        let away = Instant::now();
        processes.kill(&[processes.alive("apiserver").context("the API server runs")?]);
        let ended = wait::until("the first task's container to end", Duration::from_secs(90), || async {
            Ok(processes.that_run(&word)?.is_empty().then_some(away.elapsed()))
        })
        .await;
        let (up, told) = tokio::join!(cluster::up(&journey.stage.layout), told_after(&journey, "ends"));
        up?;
        let (ended, told) = (ended?, told?);
        ensure!(ended >= Duration::from_secs(20), "it was to be away for some 30 s, and the container ended after {ended:?}");
        println!("ended {:.0} s after it went away; told of {:.1} s after it was back", ended.as_secs_f64(), told.as_secs_f64());
        ensure!(told <= Duration::from_secs(30), "it was billed {told:?} after the API server was back");
        journey.finished("goes-on").await?;

        let records = records(&mut pods)?;
        for task in ["ends", "goes-on"] {
            let task = journey.get("computetask", task).await?;
            is_paid_once(&task, &records)?;
            ensure!(task["status"]["attempts"][0]["evidence"] == "Record", "{}", task["status"]["attempts"]);
        }
        adds_up(&journey, 10_000_000, &records).await?;
        ensure!(processes.that_run(OPERATOR)? == operators, "it took no new operator");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes minutes: a part of make nightly"]
async fn an_api_server_that_is_away_for_longer_than_a_node_may_be_silent_ends_nothing() {
    alone("away-for-long", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let client = sights::client(&journey.stage.info).await?;
        let mut pods = Watch::begin(&client, "Pod", Some(&journey.namespace)).await?;
        journey.task("goes-on", &["--for", "420"], json!({ "timeLimitSeconds": 900 })).await?;
        journey.until("goes-on", "Started", "True", PATIENCE).await?;
        let processes = Processes::new(&journey.stage.layout);
        processes.kill(&[processes.alive("apiserver").context("the API server runs")?]);
        tokio::time::sleep(LONGER_THAN_SILENT).await;
        cluster::up(&journey.stage.layout).await?;
        let task = journey.until("goes-on", "Finished", "True", LOST).await?;
        let attempts = task["status"]["attempts"].as_array().context("attempts")?;
        ensure!(succeeded(&task) && attempts.len() == 1, "{}", task["status"]);
        let records = records(&mut pods)?;
        is_paid_once(&task, &records)?;
        adds_up(&journey, 10_000_000, &records).await
    })
    .await;
}

/// How long after the API server answers again the task is finished. The nodes are Ready much later than it answers.
async fn told_after(journey: &Journey, task: &str) -> Result<Duration> {
    wait::until("the API server to answer", PATIENCE, || async {
        kubectl::run(&journey.stage.layout, &["get", "--raw", "/readyz"]).await.map(Some)
    })
    .await?;
    let back = Instant::now();
    journey.finished(task).await?;
    Ok(back.elapsed())
}

/// A node is lost when nothing was heard of it for five minutes, after the forty seconds that Kubernetes itself waits.
const LOST: Duration = Duration::from_secs(450);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes minutes: a part of make nightly"]
async fn what_a_lost_node_ran_runs_elsewhere_or_waits_for_it_as_the_task_says() {
    alone("lost", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let client = sights::client(&journey.stage.info).await?;
        let mut pods = Watch::begin(&client, "Pod", Some(&journey.namespace)).await?;
        let (first, last) = (journey.stage.info.nodes[0].clone(), journey.stage.info.nodes[1].clone());
        journey.kubectl(&["cordon", &first]).await?;
        let placed = on_the_last(&journey, &first, &last).await;
        journey.kubectl(&["uncordon", &first]).await?;
        placed?;
        let processes = Processes::new(&journey.stage.layout);
        processes.kill(&[processes.alive(&format!("{last}-kubelet")).context("the kubelet runs")?]);
        let went = elsewhere(&journey, &first).await;
        let waits = journey.get("computetask", "waits").await;
        cluster::up(&journey.stage.layout).await?;
        went?;
        let waits = waits?;
        ensure!(waits["status"]["attempts"][0].is_null() && waits["status"]["phase"] == "Running", "it waits: {}", waits["status"]);
        let waits = journey.until("waits", "Finished", "True", LOST).await?;
        wait::until("what is left of the lost attempt to go", PATIENCE, || async {
            Ok((journey.pods("moves").await?.len() == 1).then_some(()))
        })
        .await?;
        is_paid_once(&waits, &records(&mut pods)?)?;
        journey.kubectl(&["delete", "computetask", "moves", "--wait=false"]).await.map(drop)
    })
    .await;
}

/// Two that run there: one goes elsewhere when the node is lost, the other waits for it.
async fn on_the_last(journey: &Journey, first: &str, last: &str) -> Result<()> {
    wait::until("the first node to be offered to nobody", PATIENCE, || async {
        let provided = journey.get("providernode", first).await?;
        Ok(condition_of(&provided, "Ready").is_some_and(|ready| ready["reason"] == "NodeCordoned").then_some(()))
    })
    .await?;
    for (task, policy) in [("moves", "Retry"), ("waits", "Wait")] {
        journey.task(task, &["--for", "450"], json!({ "onNodeLoss": policy, "timeLimitSeconds": 600 })).await?;
    }
    for task in ["moves", "waits"] {
        let task = journey.until(task, "Started", "True", PATIENCE).await?;
        ensure!(task["status"]["assignments"][0]["node"] == *last, "{}", task["status"]);
    }
    Ok(())
}

/// Its next attempt runs on the other node, and the lost one costs nothing: it was a short one.
async fn elsewhere(journey: &Journey, first: &str) -> Result<()> {
    let task = wait::until("the task to run on the other node", LOST, || async {
        let task = journey.get("computetask", "moves").await?;
        let status = &task["status"];
        let moved =
            status["assignments"][0]["node"] == *first && condition_of(&task, "Started").is_some_and(|told| told["status"] == "True");
        Ok(moved.then_some(task))
    })
    .await?;
    let attempt = &task["status"]["attempts"][0];
    ensure!(attempt["outcome"] == "ProviderFault" && attempt["billedSeconds"] == 0, "{attempt}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_on_while_its_kubelet_is_dead_and_the_node_is_offered_to_nobody() {
    alone("kubelet", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let client = sights::client(&journey.stage.info).await?;
        let mut pods = Watch::begin(&client, "Pod", Some(&journey.namespace)).await?;
        let (mut nodes, mut offers) = (Watch::begin(&client, "Node", None).await?, Watch::begin(&client, "ProviderNode", None).await?);
        let node = journey.stage.info.nodes[1].clone();
        let there = |count: u32| json!({ "placement": { "nodeSelector": { "kubernetes.io/hostname": node } }, "resources": { "gpu": { "count": count } } });
        journey.task("through", &["--for", "60"], there(1)).await?;
        journey.until("through", "Started", "True", PATIENCE).await?;
        let processes = Processes::new(&journey.stage.layout);
        processes.kill(&[processes.alive(&format!("{node}-kubelet")).context("the kubelet runs")?]);
        let of_node = |sight: &Sight| sight.object["metadata"]["name"] == node.as_str();
        let shown = nodes.until("Kubernetes to say that nothing is heard of the node", PATIENCE, |sight| {
            let silent = condition_of(&sight.object, "Ready").is_some_and(|ready| ready["status"] == "Unknown");
            (of_node(sight) && silent).then_some(sight.at)
        });
        let closed = offers.until("the node to be offered to nobody", PATIENCE, |sight| {
            let closed = condition_of(&sight.object, "Ready")?["reason"] == "NodeNotReady";
            (of_node(sight) && closed).then_some(sight.at)
        });
        let seen = tokio::try_join!(shown, closed);
        cluster::up(&journey.stage.layout).await?;
        let (shown, closed) = seen?;
        let delay = closed.saturating_duration_since(shown);
        println!("a node that is not Ready is offered to nobody {:.3} s later", delay.as_secs_f64());
        ensure!(delay <= Duration::from_secs(2), "it was still on offer for {delay:?}");
        journey.finished("through").await?;
        let task = journey.get("computetask", "through").await?;
        is_paid_once(&task, &records(&mut pods)?)?;

        // What the new kubelet was told of by the device plugin is there to be had.
        wait::until("the GPUs to be allocatable again", PATIENCE, || async {
            let path = "jsonpath={.status.allocatable.nvidia\\.com/gpu} {.status.allocatable.nvidia\\.com/mig-1g\\.10gb}";
            let found = kubectl::run(&journey.stage.layout, &["get", "node", &node, "-o", path]).await?;
            Ok((found.trim() == "4 2").then_some(()))
        })
        .await?;
        journey.task("after", &["--for", "1"], there(2)).await?;
        let task = journey.finished("after").await?;
        ensure!(succeeded(&task), "{}", task["status"]);
        Ok(())
    })
    .await;
}
