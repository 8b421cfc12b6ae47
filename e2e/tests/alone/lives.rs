//! Whom a task goes ahead of, and that it has a node alone.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use supercargo_e2e::bill::{WHOLE_NODE, amount, records};
use supercargo_e2e::gpus::devices::GPU;
use supercargo_e2e::journey::{Journey, alone, fills, succeeded};
use supercargo_e2e::kubectl;
use supercargo_e2e::sights::{self, Watch};

const PATIENCE: Duration = Duration::from_secs(60);
const SLICE: &str = "nvidia.com/mig-1g.10gb";

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_node_alone_pays_for_all_of_it_and_whoever_else_wants_it_waits() {
    alone("alone", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let node = journey.stage.info.nodes[1].clone();
        // The pool sells it to nobody alone: what its provider writes over this one node counts, and nobody writes it back.
        let over = |tenancies: Value| {
            let (layout, node) = (journey.stage.layout.clone(), node.clone());
            let patch = json!({ "spec": { "tenancies": tenancies } }).to_string();
            async move { kubectl::run(&layout, &["patch", "providernode", &node, "--type=merge", "-p", &patch]).await }
        };
        over(json!(["Shared", "Exclusive"])).await?;
        let went = has_it_alone(&journey, &node).await;
        let left = journey.get("providernode", &node).await?["spec"]["tenancies"].take();
        over(Value::Null).await?;
        went?;
        ensure!(left == json!(["Shared", "Exclusive"]), "what a person wrote became {left}");
        Ok(())
    })
    .await;
}

async fn has_it_alone(journey: &Journey, node: &str) -> Result<()> {
    let client = sights::client(&journey.stage.info).await?;
    let mut pods = Watch::begin(&client, "Pod", Some(&journey.namespace)).await?;
    let mut alone = fills(node, GPU, 1);
    alone["placement"]["tenancy"] = "Exclusive".into();
    journey.task("alone", &["--for", "12"], alone).await?;
    journey.until("alone", "Started", "True", PATIENCE).await?;
    let pod = journey.pods("alone").await?.pop().context("its pod")?;
    ensure!(pod["spec"]["containers"][0]["resources"]["limits"][GPU] == "4", "{}", pod["spec"]["containers"][0]["resources"]);
    journey.task("beside", &["--for", "1"], fills(node, SLICE, 1)).await?;
    journey.waits_for("beside", &["OccupiedByOthers", "DevicesInUse"]).await?;
    let (task, beside) = (journey.finished("alone").await?, journey.finished("beside").await?);
    ensure!(succeeded(&task) && succeeded(&beside), "{} and {}", task["status"], beside["status"]);
    let records = records(&mut pods)?;
    ensure!(records["alone"][0].finished <= records["beside"][0].started, "{records:?}");
    let billed = task["status"]["attempts"][0]["billedSeconds"].as_u64().context("seconds")?;
    // Of the slices nobody had one, and it kept both from others: an hour of each is 0.32.
    let slices = 2 * 320_000 * billed / 3_600;
    let charged = amount(&task["status"]["cost"]["charged"])?.units();
    ensure!(charged.abs_diff(WHOLE_NODE.units(billed) + slices) <= 2, "{charged} millionths are charged for {billed} s of the whole node");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_wait_for_one_place_the_one_of_higher_priority_goes_first_though_it_came_later() {
    alone("ahead", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let node = journey.stage.info.nodes[1].clone();
        let client = sights::client(&journey.stage.info).await?;
        let mut pods = Watch::begin(&client, "Pod", Some(&journey.namespace)).await?;
        for task in ["has", "keeps"] {
            journey.task(task, &["--for", "200"], fills(&node, SLICE, 1)).await?;
            journey.until(task, "Started", "True", PATIENCE).await?;
        }
        for (task, priority) in [("low", 0), ("high", 5)] {
            let mut change = fills(&node, SLICE, 1);
            change["priority"] = priority.into();
            journey.task(task, &["--for", "1"], change).await?;
            journey.waits_for(task, &["DevicesInUse"]).await?;
        }
        journey.kubectl(&["delete", "computetask", "has", "--wait=false"]).await?;
        for task in ["high", "low"] {
            ensure!(succeeded(&journey.finished(task).await?), "{task}");
        }
        let records = records(&mut pods)?;
        let (has, high, low) = (&records["has"][0], &records["high"][0], &records["low"][0]);
        ensure!(has.finished <= high.started && high.finished <= low.started, "{records:?}");
        Ok(())
    })
    .await;
}
