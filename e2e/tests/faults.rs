//! Faults in a real cluster: whatever is killed, cut off or taken away by hand, no task that runs is ended by us, nothing is
//! billed twice and nothing is lost.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::EvictParams;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};
use supercargo_e2e::api_log::ApiLog;
use supercargo_e2e::bill::{Record, amount, records, second, units};
use supercargo_e2e::cluster::{self, Processes};
use supercargo_e2e::journey::{Journey, Stage, condition_of, journey, succeeded};
use supercargo_e2e::sights::{self, Watch};
use supercargo_e2e::{install, kubectl, wait};

const OPERATOR: &str = "/usr/local/bin/supercargo-operator";
const PATIENCE: Duration = Duration::from_secs(60);

/// What ends the operator: the first of these writes of its own after another task was applied. In this order each comes in
/// the life of what was applied.
const WRITES: [&str; 8] = [
    "patch networkpolicies",
    "create pods",
    "patch computetasks/status",
    "patch pods",
    "delete pods",
    "patch escrows/status",
    "patch providernodes/status",
    "delete computetasks",
];

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

/// Applies what brings the operator to this write, and kills it right after.
async fn kill_after(journey: &Journey, turn: usize, kind: &str) -> Result<()> {
    let mut log = ApiLog::from_now(&journey.stage.info)?;
    let node = &journey.stage.info.nodes[1];
    match kind {
        "delete pods" => {
            journey.task("cancelled", &["--for", "200"], json!({})).await?;
            journey.until("cancelled", "Started", "True", PATIENCE).await?;
            log.more()?;
            journey.kubectl(&["delete", "computetask", "cancelled", "--wait=false"]).await?;
        }
        // Runs through all that follows.
        "patch networkpolicies" => journey.task("steady", &["--for", "100"], json!({})).await?,
        "patch escrows/status" => journey.grant("11").await?,
        "patch providernodes/status" => sell(journey, node, "Closed").await?,
        "delete computetasks" => journey.task("tidy", &["--for", "1"], json!({ "ttlSecondsAfterFinished": 1 })).await?,
        _ => journey.task(&format!("short-{turn}"), &["--for", "5"], json!({})).await?,
    }
    let ours = |namespace: &str| namespace.is_empty() || namespace == journey.namespace;
    let written = log.until(kind, PATIENCE, |write| write.is_operators() && write.kind == kind && ours(&write.namespace)).await;
    let killed = match &written {
        Ok(_) => kill_operator(&journey.stage).await,
        Err(_) => Ok(()),
    };
    if kind == "patch providernodes/status" {
        sell(journey, node, "Open").await?;
    }
    let write = written?;
    println!("killed after {kind} of {:?}", write.name);
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

/// The task succeeded in one attempt, and is charged for what its one pod's container ran.
fn is_paid_once(task: &Value, records: &BTreeMap<String, Vec<Record>>) -> Result<()> {
    let name = task["metadata"]["name"].as_str().context("a name")?;
    let attempts = task["status"]["attempts"].as_array().context("attempts")?;
    ensure!(succeeded(task) && attempts.len() == 1, "{name}: {}", task["status"]);
    let pods = records.get(name).map_or(&[][..], Vec::as_slice);
    let [pod] = pods else { anyhow::bail!("{name} has the pods {pods:?}") };
    let billed = attempts[0]["billedSeconds"].as_u64().context("seconds")?;
    ensure!(billed.abs_diff(pod.seconds) <= 1, "{name} is billed {billed} s, and its container ran {} s", pod.seconds);
    let charged = amount(&task["status"]["cost"]["charged"])?.units();
    ensure!(charged.abs_diff(units(billed)) <= 1, "{name} is charged {charged} millionths for {billed} s");
    Ok(())
}

/// What was granted is what is free and what was charged: nothing is held back any more, and the charges are what all pods'
/// records are worth.
async fn adds_up(journey: &Journey, granted: u64, records: &BTreeMap<String, Vec<Record>>) -> Result<()> {
    let pods: Vec<&Record> = records.values().flatten().collect();
    let worth: u64 = pods.iter().map(|record| units(record.seconds)).sum();
    wait::until("the Escrow to add up", PATIENCE, || async {
        let status = journey.get("escrow", "default").await?["status"].take();
        let units_of = |name: &str| Ok::<u64, anyhow::Error>(amount(&status[name]).with_context(|| format!("{name} in {status}"))?.units());
        let (available, reserved, charged) = (units_of("available")?, units_of("reserved")?, units_of("charged")?);
        ensure!(units_of("deposited")? == granted && available + reserved + charged == granted, "{status}");
        ensure!(reserved == 0, "{status}");
        // A second of each may be cut by our clock, and a part of a millionth is nobody's.
        let slack = pods.len() as u64 * (units(1) + 1);
        ensure!(charged.abs_diff(worth) <= slack, "{charged} were charged, and {} records are worth {worth}: {records:?}", pods.len());
        Ok(Some(()))
    })
    .await
}

/// Every entry of the books, read by the operator's own command.
async fn books_are_whole(stage: &Stage) -> Result<()> {
    let verify = ["-n", install::NAMESPACE, "exec", "deploy/supercargo-operator", "--", OPERATOR, "books", "verify"];
    let told = wait::until("the books to be read", PATIENCE, || async { kubectl::run(&stage.layout, &verify).await.map(Some) }).await?;
    ensure!(told.contains("is whole"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes minutes: a part of make nightly"]
async fn an_operator_killed_after_each_of_its_writes_loses_nothing_and_bills_nothing_twice() {
    journey("killed", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let client = sights::client(&journey.stage.info).await?;
        let mut pods = Watch::begin(&client, "Pod", Some(&journey.namespace)).await?;
        for (turn, kind) in WRITES.into_iter().enumerate() {
            kill_after(&journey, turn, kind).await.with_context(|| format!("killing it after {kind}"))?;
        }
        kill_after_booking(&journey).await?;

        wait::until("every task to be finished", Duration::from_secs(180), || async {
            let listed: Value = serde_json::from_str(&journey.kubectl(&["get", "computetasks", "-o", "json"]).await?)?;
            let all = listed["items"].as_array().context("tasks")?;
            let open = all.iter().find(|task| condition_of(task, "Finished").is_none());
            ensure!(open.is_none(), "{}", open.unwrap_or(&Value::Null));
            Ok((!all.iter().any(|task| task["metadata"]["name"] == "tidy")).then_some(()))
        })
        .await?;
        wait::until("every pod to be free of its finalizer", PATIENCE, || async {
            let path = "jsonpath={.items[*].metadata.finalizers}";
            Ok(journey.kubectl(&["get", "pods", "-o", path]).await?.trim().is_empty().then_some(()))
        })
        .await?;
        let records = records(&mut pods)?;
        let listed: Value = serde_json::from_str(&journey.kubectl(&["get", "computetasks", "-o", "json"]).await?)?;
        let tasks = listed["items"].as_array().context("tasks")?;
        ensure!(tasks.len() == 6, "{} tasks are left", tasks.len());
        tasks.iter().try_for_each(|task| is_paid_once(task, &records))?;
        for gone in ["cancelled", "tidy"] {
            let pods = records.get(gone).map_or(&[][..], Vec::as_slice);
            ensure!(pods.len() == 1 && pods[0].attempt == "0", "{gone} has the pods {pods:?}");
        }
        adds_up(&journey, 11_000_000, &records).await?;
        books_are_whole(&journey.stage).await?;
        journey.kubectl(&["delete", "computetasks", "--all", "--timeout=60s"]).await?;
        wait::until("no pod to be left", PATIENCE, || async {
            Ok(journey.kubectl(&["get", "pods", "-o", "name"]).await?.trim().is_empty().then_some(()))
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes minutes: a part of make nightly"]
async fn what_ends_while_the_api_server_is_away_is_billed_as_soon_as_it_is_back() {
    journey("away", |journey| async move {
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
        cluster::up(&journey.stage.layout).await?;
        let (ended, back) = (ended?, Instant::now());
        ensure!(ended >= Duration::from_secs(20), "it was to be away for some 30 s, and the container ended after {ended:?}");
        journey.finished("ends").await?;
        println!("away for {:.0} s; told of the end {:.1} s after it was back", away.elapsed().as_secs_f64(), back.elapsed().as_secs_f64());
        ensure!(back.elapsed() <= Duration::from_secs(30), "it was billed {:?} after the API server was back", back.elapsed());
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
async fn a_task_goes_on_while_its_kubelet_is_dead_and_the_node_is_offered_to_nobody() {
    journey("kubelet", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let client = sights::client(&journey.stage.info).await?;
        let mut pods = Watch::begin(&client, "Pod", Some(&journey.namespace)).await?;
        let mut offers = Watch::begin(&client, "ProviderNode", None).await?;
        let node = journey.stage.info.nodes[1].clone();
        let there = |count: u32| json!({ "placement": { "nodeSelector": { "kubernetes.io/hostname": node } }, "resources": { "gpu": { "count": count } } });
        journey.task("through", &["--for", "60"], there(1)).await?;
        journey.until("through", "Started", "True", PATIENCE).await?;
        let processes = Processes::new(&journey.stage.layout);
        processes.kill(&[processes.alive(&format!("{node}-kubelet")).context("the kubelet runs")?]);
        let closed = offers.until("the node to be offered to nobody", PATIENCE, |sight| {
            let ready = condition_of(&sight.object, "Ready")?;
            (sight.object["metadata"]["name"] == node.as_str() && ready["reason"] == "NodeNotReady").then_some(())
        });
        let closed = closed.await;
        cluster::up(&journey.stage.layout).await?;
        closed?;
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
