//! What is billed on the real cluster against containerd's own times: short tasks, some of them shorter than a second, many at
//! once. `SUPERCARGO_REAL_CONTAINERS` says how many: make nightly has 200.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use supercargo_e2e::bill::{amount, units, units_to_the_nanosecond};
use supercargo_e2e::journey::{Journey, alone, succeeded};
use supercargo_e2e::truth::Truth;
use tokio::time::interval;

const CONTAINERS: usize = 12;
/// As many of these run for less than two seconds as for more.
const SHORTEST_SECONDS: f64 = 0.2;
const LONGEST_SECONDS: f64 = 20.0;
/// With eight GPUs, and a task on each for four seconds on average.
const PATIENCE: Duration = Duration::from_secs(900);
/// Of their budgets.
const GRANT: &str = "1000";

fn containers() -> usize {
    std::env::var("SUPERCARGO_REAL_CONTAINERS").ok().and_then(|text| text.parse().ok()).unwrap_or(CONTAINERS)
}

/// How long each of them works: by steps of the golden section, so that any number of them one after the other is spread evenly.
fn works_seconds(number: usize) -> f64 {
    SHORTEST_SECONDS * (LONGEST_SECONDS / SHORTEST_SECONDS).powf((number as f64 * 0.618_034).fract())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_billed_is_what_containerd_saw_within_a_second() {
    alone("truth", |journey| async move {
        journey.pool().await?;
        journey.grant(GRANT).await?;
        let truth = Truth::begin(&journey.stage.layout, &journey.stage.info).await?;
        let all = containers();
        // Each begins at another moment of the second. As soon as a place is free would be as often as a kubelet looks, always at
        // the same moment of it: and whole seconds between times would be too many or too few, as that happens to be.
        let mut beats = interval(Duration::from_secs(1) + Duration::from_secs(1) / u32::try_from(all)?);
        for number in 0..all {
            beats.tick().await;
            let works = format!("{:.3}", works_seconds(number));
            journey.task(&format!("task-{number}"), &["--for", &works], json!({})).await?;
        }
        let mut errors = Vec::new();
        for number in 0..all {
            journey.until(&format!("task-{number}"), "Finished", "True", PATIENCE).await?;
        }
        let (tasks, pods) = (listed(&journey, "computetasks").await?, listed(&journey, "pods").await?);
        for task in tasks.values() {
            errors.push(error(task, &pods, &truth).await?);
        }
        ensure!(errors.len() == all, "{} of {all} tasks are there", errors.len());
        tell(&mut errors)
    })
    .await;
}

/// By their names.
async fn listed(journey: &Journey, kind: &str) -> Result<BTreeMap<String, Value>> {
    let list: Value = serde_json::from_str(&journey.kubectl(&["get", kind, "-o", "json"]).await?)?;
    let items = list["items"].as_array().context("a list")?.iter();
    Ok(items.map(|item| (item["metadata"]["name"].as_str().unwrap_or_default().to_owned(), item.clone())).collect())
}

/// What a task is billed for, less what its container truly ran, in seconds.
async fn error(task: &Value, pods: &BTreeMap<String, Value>, truth: &Truth) -> Result<f64> {
    let status = &task["status"];
    let attempts = status["attempts"].as_array().context("attempts")?;
    ensure!(succeeded(task) && attempts.len() == 1 && attempts[0]["evidence"] == "Record", "{status}");
    let pod = status["assignments"][0]["pod"].as_str().context("a pod")?;
    let pod = pods.get(pod).with_context(|| format!("there is no pod {pod}"))?;
    let ran = truth.of(&pod["status"]["containerStatuses"][0]["containerID"]).await?.nanoseconds()?;
    let (charged, due) = (amount(&status["cost"]["charged"])?.units(), units_to_the_nanosecond(ran));
    ensure!(charged.abs_diff(due) <= units(1) + 1, "it ran {ran} ns, which costs {due} millionths, and {charged} are charged");
    let billed = attempts[0]["billedSeconds"].as_u64().context("seconds")?;
    Ok(billed as f64 - ran as f64 / 1e9)
}

fn tell(errors: &mut [f64]) -> Result<()> {
    errors.sort_by(|one, other| one.abs().total_cmp(&other.abs()));
    let (middle, most) = (errors[errors.len() / 2].abs(), errors[errors.len() - 1].abs());
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    println!("{} containers against containerd's own times, mean {mean:+.3} s", errors.len());
    println!("figure metering.real_error_p50 {middle:.3} s");
    println!("figure metering.real_error_max {most:.3} s");
    println!("figure metering.real_bias {:.3} s", mean.abs());
    ensure!(most <= 1.0, "{most:.3} s beside what a container ran: {errors:?}");
    Ok(())
}
