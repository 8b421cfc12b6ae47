//! Journeys of tasks through a real cluster: from apply to the end of the money.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use supercargo_contracts::{BlockId, Chain};
use supercargo_e2e::chain_setup::{self, Person};
use supercargo_e2e::cluster::{self, Processes};
use supercargo_e2e::journey::{Journey, condition_of, holds, journey};
use supercargo_e2e::people::{self, printed};
use supercargo_e2e::{kubectl, wait};
use supercargo_market::money::Amount;

fn amount(value: &Value) -> Result<Amount> {
    value.as_str().context("an amount is a text")?.parse().context("reading an amount")
}

/// Whole seconds between two of Kubernetes' times.
fn seconds(container: &Value) -> Result<i64> {
    let time =
        |name: &str| -> Result<jiff::Timestamp> { container[name].as_str().context("a time is a text")?.parse().context("reading a time") };
    Ok(time("finishedAt")?.as_second() - time("startedAt")?.as_second())
}

/// Watches the task's pod until its container has ended, before anybody takes the pod away.
async fn container(journey: &Journey, task: &str) -> Result<Value> {
    let label = format!("supercargo.dev/task={task}");
    wait::until("the task's container to end", Duration::from_secs(60), || async {
        let listed: Value = serde_json::from_str(&journey.kubectl(&["get", "pods", "-l", &label, "-o", "json"]).await?)?;
        let ended = &listed["items"][0]["status"]["containerStatuses"][0]["state"]["terminated"];
        Ok(ended.is_object().then(|| ended.clone()))
    })
    .await
}

#[tokio::test]
async fn a_task_is_placed_run_and_charged_for_what_its_container_ran() {
    journey("runs", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        journey.task("train", &["--for", "5"], json!({})).await?;
        let task = journey.finished("train").await?;
        let record = container(&journey, "train").await?;
        ensure!(condition_of(&task, "Succeeded").is_some_and(|condition| condition["status"] == "True"), "it succeeded");

        // By another way than the operator's: price times seconds, in millionths.
        let ran = seconds(&record)?;
        let per_hour = 2_100_000_f64 + 0.05 * 20_000_f64 + 32.0 / 1024.0 * 4_000_f64;
        let expected = (per_hour * ran as f64 / 3_600.0).floor() as u64;
        let charged = amount(&task["status"]["cost"]["charged"])?;
        ensure!(charged.units().abs_diff(expected) <= 1, "{ran} s cost {expected} millionths, and {} were charged", charged.units());
        ensure!(task["status"]["usage"]["gpuSeconds"] == ran, "GPU seconds are {}", task["status"]["usage"]["gpuSeconds"]);
        ensure!(task["status"]["attempts"][0]["evidence"] == "Record", "the evidence is the container's record");
        ensure!(task["status"]["cost"]["settled"] == task["status"]["cost"]["charged"], "a grant is settled at once");

        wait::until("the pod to be free of its finalizer", Duration::from_secs(20), || async {
            let left = journey
                .kubectl(&["get", "pods", "-l", "supercargo.dev/task=train", "-o", "jsonpath={.items[*].metadata.finalizers}"])
                .await?;
            Ok(left.trim().is_empty().then_some(()))
        })
        .await?;
        let writes = journey.operator_writes("train")?;
        println!("figure task.writes {} writes", writes.len());
        ensure!(writes.len() <= 4, "the operator wrote {writes:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_task_that_fails_tells_its_exit_code_and_what_it_said() {
    journey("fails", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        journey.task("broken", &["--say", "no such dataset", "--exit", "3"], json!({ "retries": 1 })).await?;
        let task = journey.finished("broken").await?;
        let attempts = task["status"]["attempts"].as_array().context("attempts")?;
        ensure!(attempts.len() == 2, "one retry: {attempts:?}");
        for attempt in attempts {
            ensure!(attempt["exitCode"] == 3 && attempt["outcome"] == "Failed", "{attempt}");
            ensure!(attempt["message"].as_str().is_some_and(|words| words.contains("no such dataset")), "{attempt}");
        }
        holds(&condition_of(&task, "Succeeded").context("Succeeded")?["message"], "it ended with exit code 3")
    })
    .await;
}

#[tokio::test]
async fn whatever_keeps_a_task_waiting_is_said_within_five_seconds() {
    journey("waits", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        journey.task("penniless", &[], json!({ "escrowRef": { "name": "later" } })).await?;
        journey.task("choosy", &[], json!({ "resources": { "gpu": { "models": ["B200"] } } })).await?;
        journey.task("cheap", &[], json!({ "budget": "0.001" })).await?;
        let begun = Instant::now();
        let reason = |task: &'static str, reason: &'static str, words: &'static str| {
            let journey = journey.clone();
            async move {
                wait::until(format!("{task} to wait for {reason}"), Duration::from_secs(10), || async {
                    let task = journey.get("computetask", task).await?;
                    let said = condition_of(&task, "Reconciling").map(|condition| condition["message"].to_string()).unwrap_or_default();
                    Ok((task["status"]["reason"] == reason && said.contains(words)).then_some(()))
                })
                .await
            }
        };
        reason("penniless", "EscrowNotFound", "there is no Escrow").await?;
        println!("figure task.reason_delay {:.2} s", begun.elapsed().as_secs_f64());
        reason("choosy", "ModelNotWanted", "has NVIDIA-H100-80GB-HBM3").await?;
        reason("cheap", "BudgetTooSmall", "of the budget pays for").await?;
        journey
            .apply(json!({
                "apiVersion": "supercargo.dev/v1alpha1", "kind": "Escrow", "metadata": { "name": "later", "namespace": journey.namespace },
                "spec": { "funding": "Internal", "token": "USDC", "grant": "1" },
            }))
            .await?;
        journey.finished("penniless").await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn an_image_that_can_not_be_pulled_is_said_in_the_kubelets_words() {
    journey("pulls", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        journey.task("typo", &[], json!({ "image": "localhost:1/nothing:here", "startTimeoutSeconds": 12 })).await?;
        let task = journey.until("typo", "Started", "False", Duration::from_secs(30)).await?;
        let started = condition_of(&task, "Started").context("Started")?;
        ensure!(started["reason"].as_str().is_some_and(|reason| reason.contains("Image")), "{started}");
        let task = journey.finished("typo").await?;
        ensure!(task["status"]["attempts"][0]["outcome"] == "StartTimeout", "{}", task["status"]);
        holds(&task["status"]["cost"]["charged"], "0.00")
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_task_is_charged_for_what_it_ran_and_gives_the_rest_back() {
    journey("cancels", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        journey.task("long", &["--for", "200"], json!({})).await?;
        journey.until("long", "Started", "True", Duration::from_secs(60)).await?;
        journey.kubectl(&["delete", "computetask", "long", "--wait=false"]).await?;
        wait::until("its pod to go", Duration::from_secs(60), || async {
            Ok(journey.kubectl(&["get", "pods", "-o", "name"]).await?.trim().is_empty().then_some(()))
        })
        .await?;
        // What is free again pays for the next task, and the books show both.
        journey.task("next", &["--for", "1"], json!({})).await?;
        let next = journey.finished("next").await?;
        ensure!(condition_of(&next, "Succeeded").is_some_and(|condition| condition["status"] == "True"), "{}", next["status"]);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_device_that_falls_ill_is_offered_no_more() {
    journey("ill", |journey| async move {
        journey.pool().await?;
        let node = &journey.stage.info.nodes[1];
        let address = journey.stage.info.subnet.node(1);
        let client = supercargo_e2e::http::client()?;
        let page = client.get(format!("http://{address}:9400/metrics")).send().await?.text().await?;
        let line =
            page.lines().find(|line| line.starts_with("DCGM_FI_DEV_XID_ERRORS{gpu=\"3\"") && line.contains("GPU-")).context("device 3")?;
        let uuid = line.split("UUID=\"").nth(1).and_then(|rest| rest.split('"').next()).context("a UUID")?.to_owned();
        let turn = |health: &'static str| {
            let request = client.put(format!("http://{address}:9400/devices/{uuid}/{health}"));
            async move { request.send().await?.error_for_status().map(drop) }
        };
        let offered = |count: i64| {
            let (layout, node) = (journey.stage.layout.clone(), node.clone());
            async move {
                wait::until(format!("{count} GPUs on offer"), Duration::from_secs(45), || async {
                    let found: Value = serde_json::from_str(&kubectl::run(&layout, &["get", "providernode", &node, "-o", "json"]).await?)?;
                    let offers = found["status"]["offers"].as_array().cloned().unwrap_or_default();
                    Ok(offers.iter().any(|offer| offer["resourceName"] == "nvidia.com/gpu" && offer["count"] == count).then_some(()))
                })
                .await
            }
        };
        offered(4).await?;
        turn("unhealthy").await?;
        let fewer = offered(3).await;
        turn("healthy").await?;
        fewer?;
        offered(4).await
    })
    .await;
}

#[tokio::test]
async fn simulated_gpus_come_back_when_their_kubelet_was_killed() {
    journey("kubelet", |journey| async move {
        journey.pool().await?;
        let node = &journey.stage.info.nodes[1];
        let kubelet = format!("{node}-kubelet");
        let pid = Processes::new(&journey.stage.layout).alive(&kubelet).context("the kubelet runs")?;
        let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().context("starting kill")?;
        ensure!(killed.success(), "the kubelet is killed");
        cluster::up(&journey.stage.layout).await?;
        wait::until("the GPUs to be allocatable again", Duration::from_secs(60), || async {
            let path = "jsonpath={.status.allocatable.nvidia\\.com/gpu} {.status.allocatable.nvidia\\.com/mig-1g\\.10gb}";
            let found = kubectl::run(&journey.stage.layout, &["get", "node", node, "-o", path]).await?;
            Ok((found.trim() == "4 2").then_some(()))
        })
        .await?;
        // On that very node: a task has what the new kubelet was told of.
        journey.grant("10").await?;
        let there = json!({ "placement": { "nodeSelector": { "kubernetes.io/hostname": node } }, "resources": { "gpu": { "count": 2 } } });
        journey.task("after", &["--for", "1"], there).await?;
        let task = journey.finished("after").await?;
        ensure!(condition_of(&task, "Succeeded").is_some_and(|condition| condition["status"] == "True"), "{}", task["status"]);
        Ok(())
    })
    .await;
}

/// Opens, binds and fills an account for the journey's Escrow.
async fn funded(journey: &Journey) -> Result<String> {
    let stage = &journey.stage;
    journey
        .apply(json!({
            "apiVersion": "supercargo.dev/v1alpha1", "kind": "Escrow", "metadata": { "name": "default", "namespace": journey.namespace },
            "spec": { "funding": "Chain", "chain": "default", "token": "USDC" },
        }))
        .await?;
    wait::until("the Escrow to name its tenant", Duration::from_secs(30), || async {
        Ok(journey.get("escrow", "default").await?["status"]["tenant"].is_string().then_some(()))
    })
    .await?;
    chain_setup::mint(&stage.info, &stage.market, Person::Buyer, 100_000_000).await?;
    let buyer = |args: Vec<String>| async move {
        let mut all: Vec<&str> = vec!["escrow"];
        all.extend(args.iter().map(String::as_str));
        all.extend(["-n", journey.namespace.as_str(), "--salt", journey.namespace.as_str()]);
        people::send(&stage.layout, &stage.info, &stage.market, Person::Buyer, &all).await
    };
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let opened = buyer(words("open default --allowance 50 --burst 50 --per-hour 3600")).await?;
    let account = printed(&opened, "account ")?.to_owned();
    let patch = json!({ "spec": { "accountId": account } }).to_string();
    journey.kubectl(&["patch", "escrow", "default", "--type=merge", "-p", &patch]).await?;
    buyer(words("bind default")).await?;
    buyer(words("deposit 20 default")).await?;
    wait::until("the Escrow to be Ready", Duration::from_secs(60), || async {
        let escrow = journey.get("escrow", "default").await?;
        Ok(condition_of(&escrow, "Ready").is_some_and(|ready| ready["status"] == "True").then_some(()))
    })
    .await?;
    Ok(account)
}

#[tokio::test]
async fn a_task_is_paid_on_the_chain_once_though_the_operator_is_killed_again_and_again() {
    journey("pays", |journey| async move {
        let payee = journey.pool().await?;
        let account = funded(&journey).await?;
        journey.task("paid", &["--for", "6"], json!({})).await?;
        let kill = || async {
            kubectl::run(
                &journey.stage.layout,
                &["-n", "supercargo", "delete", "pod", "-l", "app.kubernetes.io/component=operator", "--grace-period=0", "--force"],
            )
            .await
        };
        journey.until("paid", "Started", "True", Duration::from_secs(60)).await?;
        kill().await?;
        container(&journey, "paid").await?;
        kill().await?;
        let task = journey.finished("paid").await?;
        kill().await?;
        let task_cost = amount(&task["status"]["cost"]["charged"])?;
        let settled = wait::until("its cost to be settled", Duration::from_secs(120), || async {
            let task = journey.get("computetask", "paid").await?;
            let cost = &task["status"]["cost"];
            Ok((cost["transaction"].is_string() && cost["settled"] == cost["charged"]).then_some(task))
        })
        .await?;
        ensure!(amount(&settled["status"]["cost"]["settled"])? == task_cost, "what was charged is what was settled");

        let chain = Chain::connect(&journey.stage.info.chain_url)?;
        let contract = journey.stage.market.addresses.escrow;
        let account = account.parse().context("reading the account")?;
        let mut credited = 0;
        for payee in journey.stage.market.fee_payees.iter().chain([&payee]) {
            credited += chain.lane(contract, account, *payee, BlockId::latest()).await?.posted_units;
        }
        ensure!(credited == u128::from(task_cost.units()), "the lanes say {credited}, and {} were charged", task_cost.units());
        let left = chain.account(contract, account, BlockId::latest()).await?.balance_units;
        ensure!(left == 20_000_000 - credited, "the account has {left} left");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_gpu_of_this_machine_is_metered_as_a_simulated_one_is() {
    if !std::path::Path::new("/dev/nvidia0").exists() {
        println!("skipped: this machine has no NVIDIA GPU");
        return;
    }
    let listed =
        std::process::Command::new("nvidia-smi").args(["--query-gpu=uuid", "--format=csv,noheader"]).output().expect("nvidia-smi starts");
    let uuids = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(uuids.lines().all(|uuid| uuid.starts_with("GPU-")) && !uuids.is_empty(), "{uuids}");
}
