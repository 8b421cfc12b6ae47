//! Pods that are taken away by hand: nothing is billed twice and nothing is lost.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::EvictParams;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use supercargo_e2e::bill::{Record, adds_up, amount, records, second, units};
use supercargo_e2e::journey::{Journey, journey, succeeded};
use supercargo_e2e::sights::{self, Watch};
use supercargo_e2e::wait;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_or_evicted_by_hand_is_billed_and_told_as_such_and_the_task_runs_again() {
    journey("hand", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let client = sights::client(&journey.stage.info).await?;
        let mut pods = Watch::begin(&client, "Pod", Some(&journey.namespace)).await?;
        journey.task("again", &["--for", "8"], json!({})).await?;
        journey.until("again", "Started", "True", PATIENCE).await?;
        let pod = journey.pods("again").await?[0]["metadata"]["name"].as_str().context("a name")?.to_owned();
        journey.kubectl(&["delete", "pod", &pod, "--wait=false"]).await?;
        // Whoever may evict in a namespace has no free runs by that.
        journey.task("evicted", &["--for", "8"], json!({})).await?;
        journey.until("evicted", "Started", "True", PATIENCE).await?;
        let pod = journey.pods("evicted").await?[0]["metadata"]["name"].as_str().context("a name")?.to_owned();
        Api::<Pod>::namespaced(client, &journey.namespace).evict(&pod, &EvictParams::default()).await.context("evicting a pod")?;
        let records = both_ran_again(&journey, &mut pods).await?;
        adds_up(&journey, 10_000_000, &records).await
    })
    .await;
}

/// Each succeeded in its second attempt, and both attempts are billed as they ran.
async fn both_ran_again(journey: &Journey, pods: &mut Watch) -> Result<BTreeMap<String, Vec<Record>>> {
    let mut attempts = Vec::new();
    for task in ["again", "evicted"] {
        let task = journey.finished(task).await?;
        let all = task["status"]["attempts"].as_array().context("attempts")?.clone();
        let outcomes: Vec<&Value> = all.iter().map(|attempt| &attempt["outcome"]).collect();
        ensure!(succeeded(&task) && outcomes == ["Deleted", "Succeeded"], "{}", task["status"]);
        attempts.push(all);
    }
    let records = records(pods)?;
    for (task, attempts) in ["again", "evicted"].into_iter().zip(attempts) {
        for (attempt, record) in attempts.iter().zip(&records[task]) {
            let billed = attempt["billedSeconds"].as_u64().context("seconds")?;
            ensure!(billed > 0 && billed.abs_diff(record.seconds) <= 1, "{} of {record:?} are billed: {attempts:?}", billed);
        }
    }
    Ok(records)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_torn_away_with_its_evidence_is_billed_for_what_was_seen_of_it() {
    journey("torn", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        journey.task("torn", &["--for", "15"], json!({})).await?;
        journey.until("torn", "Started", "True", PATIENCE).await?;
        let pod = journey.pods("torn").await?.pop().context("a pod")?;
        let (name, node) = (pod["metadata"]["name"].as_str().context("a name")?, pod["spec"]["nodeName"].as_str().context("a node")?);
        let started = second(&pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"])?;
        // What its node said last, with the pod still running, is evidence.
        journey.spoken(node, started + 6).await?;
        let strip = r#"[{"op": "remove", "path": "/metadata/finalizers"}]"#;
        journey.kubectl(&["patch", "pod", name, "--type=json", "-p", strip]).await?;
        journey.kubectl(&["delete", "pod", name, "--grace-period=0", "--force"]).await?;
        let ran = jiff::Timestamp::now().as_second() - started;
        let task = journey.finished("torn").await?;
        let attempts = task["status"]["attempts"].as_array().context("attempts")?;
        ensure!(succeeded(&task) && attempts.len() == 2, "{}", task["status"]);
        ensure!(attempts[0]["outcome"] == "Deleted" && attempts[0]["evidence"] == "Observed", "{attempts:?}");
        // The first and the last second of it may have been seen by nobody.
        let billed = attempts[0]["billedSeconds"].as_i64().context("seconds")?;
        ensure!((4..=ran + 1).contains(&billed), "{billed} s are billed of an attempt that was torn away after {ran} s");
        let sum = attempts.iter().filter_map(|attempt| attempt["billedSeconds"].as_u64()).sum();
        let charged = amount(&task["status"]["cost"]["charged"])?.units();
        ensure!(charged.abs_diff(units(sum)) <= 1, "{charged} millionths are charged for {sum} s");
        wait::until("nothing to be held back", PATIENCE, || async {
            Ok((amount(&journey.get("escrow", "default").await?["status"]["reserved"])?.units() == 0).then_some(()))
        })
        .await
    })
    .await;
}
