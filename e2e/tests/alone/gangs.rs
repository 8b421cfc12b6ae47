//! Journeys of gangs that take every GPU of the cluster, and of what a drained node ran.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use supercargo_e2e::cluster::shell;
use supercargo_e2e::gpus::devices::GPU;
use supercargo_e2e::journey::{Journey, alone, condition_of, fills, holds, succeeded};
use supercargo_e2e::{kubectl, wait};

async fn names(journey: &Journey, kind: &str) -> Result<BTreeSet<String>> {
    let listed = journey.kubectl(&["get", kind, "-o", "jsonpath={.items[*].metadata.name}"]).await?;
    Ok(listed.split_whitespace().map(str::to_owned).collect())
}

#[tokio::test]
async fn a_gang_starts_together_on_two_nodes_and_each_provider_is_paid_for_the_same_seconds() {
    alone("gang", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let both = json!({ "gang": { "workers": 2 }, "resources": { "gpu": { "count": 4 } }, "budget": "2" });
        journey.task("ring", &["--for", "6"], both).await?;
        let running = journey.until("ring", "Started", "True", Duration::from_secs(60)).await?;
        let nodes: BTreeSet<&str> =
            running["status"]["assignments"].as_array().into_iter().flatten().filter_map(|one| one["node"].as_str()).collect();
        ensure!(nodes.len() == 2, "a worker of four GPUs fills a node: {}", running["status"]["assignments"]);
        for pod in journey.pods("ring").await? {
            let env = pod["spec"]["containers"][0]["env"].to_string();
            ensure!(env.contains("-0-0.supercargo-workers.") && env.contains("PET_NNODES"), "each knows the leader: {env}");
        }
        let policies = names(&journey, "networkpolicies").await?;
        ensure!(policies.len() == 3 && policies.contains("supercargo-tasks"), "its own beside those that stand there: {policies:?}");
        ensure!(names(&journey, "services").await?.contains("supercargo-workers"), "workers have names");

        let task = journey.finished("ring").await?;
        ensure!(condition_of(&task, "Succeeded").is_some_and(|condition| condition["status"] == "True"), "{}", task["status"]);
        let usage = &task["status"]["usage"];
        let (seconds, gpu_seconds) = (usage["seconds"].as_i64().context("seconds")?, usage["gpuSeconds"].as_i64().context("GPU seconds")?);
        // Whole seconds of two clocks: each worker's may be one less.
        ensure!(seconds >= 4 && (gpu_seconds - 8 * seconds).abs() <= 8, "{usage}");
        journey.freed("ring").await?;
        let writes = journey.operator_writes("ring")?;
        ensure!(writes.len() <= 3 + 2 * 2, "the operator wrote {writes:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_gang_that_does_not_fit_whole_waits_whole_and_says_how_much_of_it_fits() {
    alone("large", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let three = json!({ "gang": { "workers": 3 }, "resources": { "gpu": { "count": 4 } }, "budget": "2" });
        journey.task("three", &[], three).await?;
        let words = wait::until("the gang to wait in words", Duration::from_secs(10), || async {
            let task = journey.get("computetask", "three").await?;
            let said = condition_of(&task, "Reconciling").map(|condition| condition["message"].to_string()).unwrap_or_default();
            Ok(said.contains("of 3 workers fit at once").then_some(said))
        })
        .await?;
        ensure!(words.contains("2 of 3"), "{words}");
        ensure!(journey.pods("three").await?.is_empty(), "none of it starts");
        // What it waits for is no reason for a small one to wait that would be over before.
        journey.task("small", &["--for", "1"], json!({ "timeLimitSeconds": 60 })).await?;
        journey.finished("small").await.map(drop)
    })
    .await;
}

/// Makes or removes an image's other name on one node alone.
fn name_image(journey: &Journey, node: &str, args: &[&str]) -> Result<()> {
    let layout = &journey.stage.layout;
    let (ctr, socket) = (layout.bin("ctr").display().to_string(), layout.containerd_socket(node).display().to_string());
    let images = ["--address", &socket, "--namespace", "k8s.io", "images"];
    shell::run(&ctr, images.iter().copied().chain(args.iter().copied())).map(drop)
}

#[tokio::test]
async fn a_gang_of_which_one_can_not_start_is_told_so_ends_whole_in_time_and_costs_nothing() {
    alone("stuck", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let there = journey.stage.info.nodes[0].clone();
        let image = format!("localhost:1/only-there:{}", journey.namespace);
        name_image(&journey, &there, &["tag", "--force", "supercargo.dev/workload:local", &image])?;
        let went = stuck(&journey, &there, &image).await;
        name_image(&journey, &there, &["rm", &image])?;
        went
    })
    .await;
}

async fn stuck(journey: &Journey, there: &str, image: &str) -> Result<()> {
    // A worker of four GPUs fills a node: so there is one on each, and one of the nodes lacks the image.
    let both = json!({
        "gang": { "workers": 2, "startTimeoutSeconds": 10 }, "resources": { "gpu": { "count": 4 } }, "budget": "2", "image": image,
    });
    journey.task("pair", &["--for", "200"], both).await?;
    let task = journey.until("pair", "Started", "False", Duration::from_secs(20)).await?;
    let assignments = task["status"]["assignments"].as_array().context("assignments")?;
    let [worker] = assignments.iter().filter(|one| one["node"] != there).map(|one| &one["worker"]).collect::<Vec<_>>()[..] else {
        anyhow::bail!("one of two is elsewhere: {assignments:?}")
    };
    let told = condition_of(&task, "Started").context("Started")?;
    ensure!(["ErrImagePull", "ImagePullBackOff"].iter().any(|reason| told["reason"] == *reason), "{told}");
    ensure!(told["message"].as_str().is_some_and(|words| words.contains(image)), "{told}");
    let told = condition_of(&task, "Reconciling").context("Reconciling")?;
    holds(&told["message"], &format!("worker {worker} does not start"))?;

    let task = journey.finished("pair").await?;
    let attempts = task["status"]["attempts"].as_array().context("attempts")?;
    ensure!(attempts.len() == 1 && attempts[0]["outcome"] == "StartTimeout", "{attempts:?}");
    holds(&condition_of(&task, "Succeeded").context("Succeeded")?["message"], &format!("worker {worker} did not start within 10 s"))?;
    wait::until("none of its pods to be left, and nothing held back", Duration::from_secs(30), || async {
        let left = journey.pods("pair").await?;
        ensure!(left.is_empty(), "{} pods are left", left.len());
        let escrow = journey.get("escrow", "default").await?["status"].take();
        ensure!(escrow["reserved"] == "0.00" && escrow["charged"] == "0.00", "{escrow}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn what_runs_on_a_drained_node_goes_on_elsewhere_and_costs_nothing_there() {
    alone("drains", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        journey.task("moved", &["--for", "8"], json!({})).await?;
        let task = journey.until("moved", "Started", "True", Duration::from_secs(60)).await?;
        let node = task["status"]["assignments"][0]["node"].as_str().context("a node")?.to_owned();
        let layout = &journey.stage.layout;
        let turn = |spec: Value| {
            let patch = json!({ "spec": spec }).to_string();
            let node = node.clone();
            async move { kubectl::run(layout, &["patch", "providernode", &node, "--type=merge", "-p", &patch]).await.map(drop) }
        };
        turn(json!({ "availability": "Draining", "drainDeadlineSeconds": 0 })).await?;
        let finished = journey.finished("moved").await;
        turn(json!({ "availability": "Open", "drainDeadlineSeconds": null })).await?;
        let task = finished?;
        let attempts = task["status"]["attempts"].as_array().context("attempts")?;
        ensure!(attempts.len() == 2 && attempts[0]["outcome"] == "ProviderFault" && attempts[0]["billedSeconds"] == 0, "{attempts:?}");
        ensure!(attempts[1]["outcome"] == "Succeeded" && attempts[1]["node"] != node.as_str(), "{attempts:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_runs_on_a_node_that_drains_ends_there_before_its_deadline_and_nobody_else_comes() {
    alone("lets", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let node = journey.stage.info.nodes[1].clone();
        journey.task("stays", &["--for", "10"], fills(&node, GPU, 1)).await?;
        journey.until("stays", "Started", "True", Duration::from_secs(60)).await?;
        let (layout, over) = (&journey.stage.layout, json!({ "spec": { "availability": "Draining", "drainDeadlineSeconds": 120 } }));
        kubectl::run(layout, &["patch", "providernode", &node, "--type=merge", "-p", &over.to_string()]).await?;
        let went = stays(&journey, &node).await;
        let back = json!({ "spec": { "availability": "Open", "drainDeadlineSeconds": null } });
        kubectl::run(layout, &["patch", "providernode", &node, "--type=merge", "-p", &back.to_string()]).await?;
        went?;
        ensure!(succeeded(&journey.finished("comes").await?), "it comes when the node is open again");
        Ok(())
    })
    .await;
}

async fn stays(journey: &Journey, node: &str) -> Result<()> {
    journey.task("comes", &["--for", "1"], fills(node, GPU, 1)).await?;
    journey.waits_for("comes", &["NodeDraining"]).await?;
    let task = journey.finished("stays").await?;
    let attempts = task["status"]["attempts"].as_array().context("attempts")?;
    ensure!(succeeded(&task) && attempts.len() == 1 && attempts[0]["node"] == node, "{}", task["status"]);
    ensure!(journey.pods("comes").await?.is_empty(), "nobody else comes");
    Ok(())
}
