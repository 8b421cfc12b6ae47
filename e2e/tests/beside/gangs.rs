//! Journeys of tasks with several workers, of which one fails or is refused.

use anyhow::{Context, ensure};
use serde_json::json;
use std::time::Duration;
use supercargo_e2e::journey::{condition_of, holds, journey};
use supercargo_e2e::wait;

#[tokio::test]
async fn one_worker_that_fails_ends_the_gang_and_is_the_one_that_is_told() {
    journey("breaks", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let two = json!({ "gang": { "workers": 2 } });
        journey.task("pair", &["--for", "4", "--worker", "1", "--say", "no route to the leader", "--exit", "9"], two).await?;
        let task = journey.finished("pair").await?;
        let attempt = &task["status"]["attempts"][0];
        ensure!(attempt["exitCode"] == 9 && attempt["outcome"] == "Failed", "{attempt}");
        ensure!(attempt["message"].as_str().is_some_and(|words| words.contains("no route to the leader")), "{attempt}");
        holds(&condition_of(&task, "Succeeded").context("Succeeded")?["message"], "worker 1 ended with exit code 9")
    })
    .await;
}

#[tokio::test]
async fn a_gang_of_which_one_is_refused_keeps_no_place_costs_nothing_and_runs_when_it_may() {
    journey("refuses", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        // Room for one of two.
        let hard = json!({ "requests.nvidia.com/mig-1g.10gb": "1" });
        let metadata = json!({ "name": "one", "namespace": journey.namespace });
        journey.apply(json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": { "hard": hard } })).await?;
        wait::until("the quota to count", Duration::from_secs(30), || async {
            Ok(journey.get("resourcequota", "one").await?["status"]["used"].is_object().then_some(()))
        })
        .await?;
        let slices = json!({ "gang": { "workers": 2 }, "resources": { "gpu": { "resourceName": "nvidia.com/mig-1g.10gb" } } });
        journey.task("pair", &["--for", "4"], slices).await?;
        let task = journey.until("pair", "Started", "False", Duration::from_secs(20)).await?;
        let told = condition_of(&task, "Started").context("Started")?;
        ensure!(told["reason"] == "PodRefused", "{told}");
        ensure!(told["message"].as_str().is_some_and(|words| words.contains("exceeded quota: one")), "{told}");
        wait::until("its attempt to be over, and nothing to be left of it", Duration::from_secs(30), || async {
            let status = journey.get("computetask", "pair").await?["status"].take();
            let attempts = status["attempts"].as_array().context("attempts")?;
            ensure!(attempts.len() == 1 && attempts[0]["outcome"] == "Refused" && attempts[0]["billedSeconds"] == 0, "{status}");
            let left = journey.pods("pair").await?;
            ensure!(left.is_empty(), "{} pods are left", left.len());
            Ok(Some(()))
        })
        .await?;
        journey.kubectl(&["delete", "resourcequota", "one"]).await?;
        let task = journey.finished("pair").await?;
        ensure!(condition_of(&task, "Succeeded").is_some_and(|condition| condition["status"] == "True"), "{}", task["status"]);
        Ok(())
    })
    .await;
}
