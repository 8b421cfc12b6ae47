//! The operator killed after each of its writes: to the API server, whatever they are about, and to its books. No task that runs
//! is ended by that, nothing is billed twice and nothing is lost.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use supercargo_e2e::api_log::{ApiLog, Write};
use supercargo_e2e::bill::{Record, adds_up, is_paid_once, records, units};
use supercargo_e2e::cluster::Processes;
use supercargo_e2e::journey::{Journey, Stage, alone, condition_of};
use supercargo_e2e::sights::{self, Watch};
use supercargo_e2e::{install, kubectl, wait};
use supercargo_market::money::Amount;

const OPERATOR: &str = "/usr/local/bin/supercargo-operator";
const PATIENCE: Duration = Duration::from_secs(60);
/// What is told to a pod of its budget, and that it is free: both patch it.
const MARK: &str = "patch pods: a mark of its budget";
const FREE: &str = "patch pods: its finalizer";

/// What ends the operator: the first of these writes of its own after something else was applied. In this order each comes in
/// the life of what was applied.
const WRITES: [&str; 14] = [
    "patch networkpolicies",
    "create pods",
    "patch computetasks/status",
    FREE,
    MARK,
    "patch services",
    "delete pods",
    "patch escrows/status",
    "create events",
    "patch providernodes/status",
    "patch providernodes",
    "patch nodes",
    "patch providerpools/status",
    "delete computetasks",
];
/// Those of one attempt that are left in the end: one that runs through all of it, one for each write that needs no other, the
/// marked one, the gang, and those of the books.
const LEFT: usize = 8;

/// Kills the operator where it stands. Its pod goes too, so that another is made at once: the kubelet would wait longer each
/// time.
async fn kill_operator(stage: &Stage) -> Result<()> {
    let processes = Processes::new(&stage.layout);
    let found = processes.that_run(OPERATOR)?;
    ensure!(!found.is_empty(), "an operator runs");
    processes.kill(&found);
    let pods = ["-n", install::NAMESPACE, "delete", "pod", "-l", "app.kubernetes.io/component=operator", "--grace-period=0", "--force"];
    kubectl::run(&stage.layout, &pods).await.map(drop)
}

/// Whether the provider sells a node: what it has to tell of it changes with that.
async fn sell(journey: &Journey, node: &str, availability: &str) -> Result<()> {
    let patch = json!({ "spec": { "availability": availability } }).to_string();
    kubectl::run(&journey.stage.layout, &["patch", "providernode", node, "--type=merge", "-p", &patch]).await.map(drop)
}

/// A node that nobody runs, of the pool that is the journey's own: enough for what is written of nodes.
async fn empty_node(journey: &Journey, name: &str) -> Result<()> {
    let metadata = json!({ "name": format!("{}-{name}", journey.namespace), "labels": { "journey": journey.namespace } });
    journey.apply(json!({ "apiVersion": "v1", "kind": "Node", "metadata": metadata })).await
}

async fn own_pool(journey: &Journey, region: &str) -> Result<()> {
    journey
        .apply(json!({
            "apiVersion": "supercargo.dev/v1alpha1", "kind": "ProviderPool", "metadata": { "name": journey.namespace },
            "spec": {
                "provider": "hermit", "selector": { "matchLabels": { "journey": journey.namespace } }, "binding": "Direct", "region": region,
                "pricing": { "token": "USDC", "resources": [{ "resourceName": "nvidia.com/gpu", "perHour": "9" }] },
            },
        }))
        .await
}

/// Applies what brings the operator to this write.
async fn bring(journey: &Journey, turn: usize, write: &str) -> Result<()> {
    match write {
        "delete pods" => journey.kubectl(&["delete", "computetask", "cancelled", "--wait=false"]).await.map(drop),
        // Runs through all that follows.
        "patch networkpolicies" => journey.task("steady", &["--for", "200"], json!({})).await,
        MARK => {
            // Half of it is used after 30 s, and 55 may be needed: the time limit, a second of grace and ten to kill it.
            let change = json!({ "budget": Amount::from_units(units(60)).to_string(), "timeLimitSeconds": 44 });
            journey.task("marked", &["--for", "200", "--heed", "yes"], change).await
        }
        "patch services" => {
            journey.task("pair", &["--for", "5"], json!({ "gang": { "workers": 2 } })).await?;
            // What stands there is made again, the names of workers with it.
            journey.kubectl(&["delete", "networkpolicy", "supercargo-tasks", "--ignore-not-found"]).await.map(drop)
        }
        "patch escrows/status" => journey.grant("11").await,
        "create events" => journey.change("escrow", "default", json!({ "lowBalance": "100" })).await,
        "patch providernodes/status" => sell(journey, &journey.stage.info.nodes[1], "Closed").await,
        "patch providernodes" => {
            own_pool(journey, "here").await?;
            empty_node(journey, "one").await
        }
        "patch nodes" => empty_node(journey, "two").await,
        "patch providerpools/status" => own_pool(journey, "there").await,
        "delete computetasks" => journey.task("tidy", &["--for", "1"], json!({ "ttlSecondsAfterFinished": 1 })).await,
        _ => journey.task(&format!("short-{turn}"), &["--for", "5"], json!({})).await,
    }
}

/// Whether it is the write that is waited for, and about what was applied.
fn is_it(journey: &Journey, wanted: &str, write: &Write) -> bool {
    let kind = wanted.split_once(':').map_or(wanted, |(kind, _)| kind);
    // Only a task with so small a budget is told of it, and it is told long before its pod is free.
    let right = match wanted {
        MARK => write.name.starts_with("marked"),
        FREE => write.name.starts_with("short"),
        _ => true,
    };
    let ours = [journey.namespace.as_str(), ""].contains(&write.namespace.as_str());
    write.is_operators() && write.kind == kind && right && ours
}

/// Applies what brings the operator to this write, and kills it right after.
async fn kill_after(journey: &Journey, turn: usize, wanted: &str) -> Result<()> {
    if wanted == "delete pods" {
        journey.task("cancelled", &["--for", "200"], json!({})).await?;
        journey.until("cancelled", "Started", "True", PATIENCE).await?;
    }
    let mut log = ApiLog::from_now(&journey.stage.info)?;
    bring(journey, turn, wanted).await?;
    let written = log.until(wanted, PATIENCE, |write| is_it(journey, wanted, write)).await;
    let killed = match &written {
        Ok(_) => kill_operator(&journey.stage).await,
        Err(_) => Ok(()),
    };
    if wanted == "patch providernodes/status" {
        sell(journey, &journey.stage.info.nodes[1], "Open").await?;
    }
    let write = written?;
    println!("killed after {wanted} of {:?}", write.name);
    killed
}

/// Kills it when it has written to its books, before it can have done what it wrote there.
async fn kill_after_booking(journey: &Journey) -> Result<()> {
    // Once this one runs, the operator after the last one leads, and rests.
    journey.task("led", &["--for", "20"], json!({})).await?;
    journey.until("led", "Started", "True", PATIENCE).await?;
    let file = journey.stage.layout.cluster().join("volumes/books/books.db-wal");
    let state = || -> Result<(u64, SystemTime)> {
        let file = std::fs::metadata(&file).with_context(|| format!("looking at {}", file.display()))?;
        Ok((file.len(), file.modified()?))
    };
    let before = state()?;
    journey.task("booked", &["--for", "5"], json!({})).await?;
    wait::closely("the books to be written", PATIENCE, || Ok((state()? != before).then_some(()))).await?;
    kill_operator(&journey.stage).await
}

/// Every entry of the books, read by the operator's own command.
async fn books_are_whole(stage: &Stage) -> Result<()> {
    let verify = ["-n", install::NAMESPACE, "exec", "deploy/supercargo-operator", "--", OPERATOR, "books", "verify"];
    let told = wait::until("the books to be read", PATIENCE, || async { kubectl::run(&stage.layout, &verify).await.map(Some) }).await?;
    ensure!(told.contains("is whole"), "{told}");
    Ok(())
}

/// Both nodes of the journey's own pool are its own, closed to others, and it says how many they are.
async fn nodes_are_sold(journey: &Journey) -> Result<()> {
    wait::until("both nodes of the journey's pool to be sold", PATIENCE, || async {
        for name in ["one", "two"].map(|name| format!("{}-{name}", journey.namespace)) {
            let provided = journey.get("providernode", &name).await?;
            ensure!(provided["spec"]["pool"] == *journey.namespace, "{}", provided["spec"]);
            let taints = journey.kubectl(&["get", "node", &name, "-o", "jsonpath={.spec.taints[*].key}"]).await?;
            ensure!(taints.split_whitespace().filter(|key| *key == "supercargo.dev/sold").count() == 1, "{name} has the taints {taints}");
        }
        let pool = journey.get("providerpool", &journey.namespace).await?;
        let seen = pool["status"]["observedGeneration"] == pool["metadata"]["generation"];
        ensure!(seen && pool["status"]["nodes"] == 2, "{}", pool["status"]);
        Ok(Some(()))
    })
    .await
}

/// Everything is over, and nothing waits for anybody.
async fn all_is_over(journey: &Journey) -> Result<Vec<Value>> {
    let tasks = wait::until("every task to be finished", Duration::from_secs(240), || async {
        let listed: Value = serde_json::from_str(&journey.kubectl(&["get", "computetasks", "-o", "json"]).await?)?;
        let all = listed["items"].as_array().context("tasks")?;
        let open = all.iter().find(|task| condition_of(task, "Finished").is_none());
        ensure!(open.is_none(), "{}", open.unwrap_or(&Value::Null));
        Ok((!all.iter().any(|task| task["metadata"]["name"] == "tidy")).then(|| all.clone()))
    })
    .await?;
    wait::until("every pod to be free of its finalizer", PATIENCE, || async {
        let path = "jsonpath={.items[*].metadata.finalizers}";
        Ok(journey.kubectl(&["get", "pods", "-o", path]).await?.trim().is_empty().then_some(()))
    })
    .await?;
    Ok(tasks)
}

async fn killed_again_and_again(journey: &Journey) -> Result<()> {
    let client = sights::client(&journey.stage.info).await?;
    let mut pods = Watch::begin(&client, "Pod", Some(&journey.namespace)).await?;
    for (turn, write) in WRITES.into_iter().enumerate() {
        kill_after(journey, turn, write).await.with_context(|| format!("killing it after {write}"))?;
    }
    kill_after_booking(journey).await?;
    let tasks = all_is_over(journey).await?;
    let records: BTreeMap<String, Vec<Record>> = records(&mut pods)?;
    let names: Vec<&str> = tasks.iter().filter_map(|task| task["metadata"]["name"].as_str()).collect();
    ensure!(names.len() == LEFT, "these tasks are left: {names:?}");
    tasks.iter().try_for_each(|task| is_paid_once(task, &records))?;
    for gone in ["cancelled", "tidy"] {
        let pods = records.get(gone).map_or(&[][..], Vec::as_slice);
        ensure!(pods.len() == 1 && pods[0].attempt == "0", "{gone} has the pods {pods:?}");
    }
    adds_up(journey, 11_000_000, &records).await?;
    nodes_are_sold(journey).await?;
    books_are_whole(&journey.stage).await?;
    journey.kubectl(&["delete", "computetasks", "--all", "--timeout=60s"]).await?;
    wait::until("no pod to be left", PATIENCE, || async {
        Ok(journey.kubectl(&["get", "pods", "-o", "name"]).await?.trim().is_empty().then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes minutes: a part of make nightly"]
async fn an_operator_killed_after_each_of_its_writes_loses_nothing_and_bills_nothing_twice() {
    alone("killed", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let went = killed_again_and_again(&journey).await;
        journey.kubectl(&["delete", "providerpool", &journey.namespace, "--ignore-not-found", "--wait=false"]).await?;
        for name in ["one", "two"].map(|name| format!("{}-{name}", journey.namespace)) {
            journey.kubectl(&["delete", "providernode,node", &name, "--ignore-not-found", "--wait=false"]).await?;
        }
        went
    })
    .await;
}
