//! Whom a task goes ahead of, and whom it has a node with.

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

/// The pool sells its nodes to nobody alone: what its provider writes over this one node counts, and nobody writes it back.
async fn offers(journey: &Journey, node: &str, tenancies: Value) -> Result<()> {
    let patch = json!({ "spec": { "tenancies": tenancies } }).to_string();
    kubectl::run(&journey.stage.layout, &["patch", "providernode", node, "--type=merge", "-p", &patch]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_node_alone_pays_for_all_of_it_and_whoever_else_wants_it_waits() {
    alone("alone", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let node = journey.stage.info.nodes[1].clone();
        offers(&journey, &node, json!(["Shared", "Exclusive"])).await?;
        let went = has_it_alone(&journey, &node).await;
        let left = journey.get("providernode", &node).await?["spec"]["tenancies"].take();
        offers(&journey, &node, Value::Null).await?;
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

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_a_node_with_nobody_elses_tasks_shares_it_with_its_own_escrows_alone() {
    alone("among", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let others = Journey { namespace: format!("{}-others", journey.namespace), ..journey.clone() };
        kubectl::run(&journey.stage.layout, &["create", "namespace", &others.namespace]).await?;
        let node = journey.stage.info.nodes[1].clone();
        offers(&journey, &node, json!(["Shared", "Dedicated"])).await?;
        let went = among_its_own(&journey, &others, &node).await;
        offers(&journey, &node, Value::Null).await?;
        kubectl::run(&journey.stage.layout, &["delete", "namespace", &others.namespace, "--wait=false"]).await?;
        went
    })
    .await;
}

async fn among_its_own(journey: &Journey, others: &Journey, node: &str) -> Result<()> {
    others.grant("10").await?;
    let on_node = |tenancy: &str| {
        let mut change = fills(node, GPU, 1);
        change["placement"]["tenancy"] = tenancy.into();
        change
    };
    journey.task("first", &["--for", "200"], on_node("Dedicated")).await?;
    journey.until("first", "Started", "True", PATIENCE).await?;
    others.task("stranger", &["--for", "200"], on_node("Shared")).await?;
    others.waits_for("stranger", &["OccupiedByOthers"]).await?;
    // Three GPUs are free, and whose money it is decides.
    journey.task("second", &["--for", "1"], on_node("Shared")).await?;
    ensure!(succeeded(&journey.finished("second").await?), "it runs beside its own");
    others.waits_for("stranger", &["OccupiedByOthers"]).await?;
    journey.kubectl(&["delete", "computetask", "first", "--wait=false"]).await?;
    others.until("stranger", "Started", "True", PATIENCE).await?;
    // And the other way round: where others already are it does not go.
    journey.task("third", &["--for", "1"], on_node("Dedicated")).await?;
    journey.waits_for("third", &["OccupiedByOthers"]).await?;
    others.kubectl(&["delete", "computetask", "stranger", "--wait=false"]).await?;
    ensure!(succeeded(&journey.finished("third").await?), "it runs when they are gone");
    Ok(())
}
