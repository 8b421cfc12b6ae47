//! What a task asks for and can't have: each is told in one condition, in words of whoever found it, and mended where it can be.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use supercargo_e2e::explain::explained;
use supercargo_e2e::journey::{Journey, condition_of, holds, journey};
use supercargo_e2e::sights::{self, Watch};
use supercargo_e2e::{kubectl, wait};

const PROMISED: Duration = Duration::from_secs(5);

/// From when on it can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The API server refuses the pod: from apply on.
    Applied,
    /// The kubelet finds it out: from when the pod's status shows it.
    Shown,
}

/// A task's name, what is laid over its spec, and the condition that tells it with such a reason and in these words.
struct Case {
    task: &'static str,
    change: Value,
    known: Known,
    condition: &'static str,
    reason: &'static str,
    words: &'static str,
}

fn cases() -> Vec<Case> {
    let case = |task, known, condition, reason, words, change| Case { task, change, known, condition, reason, words };
    let volume = json!({ "name": "keys", "mountPath": "/keys", "secret": { "name": "never" } });
    let secret = json!({ "valueFrom": { "secretKeyRef": { "name": "never", "key": "k" } }, "name": "TOKEN" });
    vec![
        case(
            "image",
            Known::Shown,
            "Started",
            "Image",
            "localhost:1/nothing:here",
            json!({ "image": "localhost:1/nothing:here", "startTimeoutSeconds": 12 }),
        ),
        case("command", Known::Shown, "Succeeded", "Failed", "/no/such/program", json!({ "command": ["/no/such/program"] })),
        case("secret", Known::Shown, "Started", "CreateContainerConfigError", "secret \"never\" not found", json!({ "env": [secret] })),
        // The pod's status says nothing of it, ever: only an Event does.
        case("volume", Known::Applied, "Started", "FailedMount", "secret \"never\" not found", json!({ "volumes": [volume] })),
        case(
            "quota",
            Known::Applied,
            "Started",
            "PodRefused",
            "exceeded quota: none",
            json!({ "resources": { "gpu": { "resourceName": "nvidia.com/mig-1g.10gb" } }, "args": ["--for", "1"] }),
        ),
        case(
            "limit",
            Known::Applied,
            "Started",
            "PodRefused",
            "maximum memory usage per Container is 1Gi",
            json!({ "resources": { "memory": "2Gi" }, "args": ["--for", "1"] }),
        ),
    ]
}

/// What stands in the namespace: slices of GPUs are for nobody, and no container has more than a gibibyte.
fn hindrances(namespace: &str) -> [Value; 2] {
    let metadata = json!({ "name": "none", "namespace": namespace });
    [
        json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata,
            "spec": { "hard": { "requests.nvidia.com/mig-1g.10gb": "0" } },
        }),
        json!({
            "apiVersion": "v1", "kind": "LimitRange", "metadata": metadata,
            "spec": { "limits": [{ "type": "Container", "max": { "memory": "1Gi" } }] },
        }),
    ]
}

fn is_told(case: &Case, task: &Value) -> bool {
    condition_of(task, case.condition).is_some_and(|found| {
        let words = found["message"].as_str().is_some_and(|message| message.contains(case.words));
        words && found["status"] == "False" && found["reason"].as_str().is_some_and(|reason| reason.contains(case.reason))
    })
}

/// When each task was first told what it lacks.
async fn told(tasks: &mut Watch, cases: &[Case]) -> Result<BTreeMap<&'static str, Instant>> {
    let (mut told, mut last) = (BTreeMap::new(), BTreeMap::new());
    let all = tasks.until("every task to be told what it lacks", Duration::from_secs(40), |sight| {
        let name = &sight.object["metadata"]["name"];
        if let Some(case) = cases.iter().find(|case| *name == case.task) {
            last.insert(case.task, sight.object["status"]["conditions"].to_string());
            if is_told(case, &sight.object) {
                told.entry(case.task).or_insert(sight.at);
            }
        }
        (told.len() == cases.len()).then_some(())
    });
    let all = all.await;
    last.retain(|task, _| !told.contains_key(task));
    all.with_context(|| format!("what the others say: {last:?}"))?;
    Ok(told)
}

/// When the status of each task's pod first showed what it lacks.
fn shown(pods: &mut Watch) -> BTreeMap<String, Instant> {
    let mut shown = BTreeMap::new();
    for sight in pods.rest() {
        let state = &sight.object["status"]["containerStatuses"][0]["state"];
        let waits = state["waiting"]["reason"].as_str().is_some_and(|reason| reason != "ContainerCreating");
        if let Some(task) =
            sight.object["metadata"]["labels"]["supercargo.dev/task"].as_str().filter(|_| waits || !state["terminated"].is_null())
        {
            shown.entry(task.to_owned()).or_insert(sight.at);
        }
    }
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_keeps_a_pod_from_being_made_or_started_is_told_in_words_within_five_seconds() {
    journey("refused", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        for object in hindrances(&journey.namespace) {
            journey.apply(object).await?;
        }
        // A quota counts from when its controller has seen it.
        wait::until("the quota to count", Duration::from_secs(30), || async {
            Ok(journey.get("resourcequota", "none").await?["status"]["used"].is_object().then_some(()))
        })
        .await?;
        let client = sights::client(&journey.stage.info).await?;
        let mut pods = Watch::begin(&client, "Pod", Some(&journey.namespace)).await?;
        let mut tasks = Watch::begin(&client, "ComputeTask", Some(&journey.namespace)).await?;
        let cases = cases();
        let objects: Vec<Value> = cases.iter().map(|case| journey.task_object(case.task, &[], case.change.clone())).collect();
        let applied = Instant::now();
        journey.apply(json!({ "apiVersion": "v1", "kind": "List", "items": objects })).await?;
        let (told, shown) = (told(&mut tasks, &cases).await?, shown(&mut pods));
        for case in &cases {
            let since = match case.known {
                Known::Applied => applied,
                Known::Shown => *shown.get(case.task).with_context(|| format!("the pod of {} shows nothing", case.task))?,
            };
            let delay = told[case.task].saturating_duration_since(since);
            println!("{}: told after {:.2} s", case.task, delay.as_secs_f64());
            ensure!(delay <= PROMISED, "{} was told after {delay:?}", case.task);
        }
        mended(&journey).await?;
        given(&journey).await
    })
    .await;
}

/// What can be mended runs when it is, and what can't has cost nothing.
async fn mended(journey: &Journey) -> Result<()> {
    journey.kubectl(&["delete", "resourcequota,limitrange", "none"]).await?;
    journey.kubectl(&["create", "secret", "generic", "never", "--from-literal=k=v"]).await?;
    for task in ["quota", "limit", "secret", "volume"] {
        let task = journey.finished(task).await?;
        ensure!(condition_of(&task, "Succeeded").is_some_and(|condition| condition["status"] == "True"), "{}", task["status"]);
    }
    for (task, outcome) in [("image", "StartTimeout"), ("command", "Failed")] {
        let task = journey.finished(task).await?;
        ensure!(task["status"]["attempts"][0]["outcome"] == outcome, "{}", task["status"]);
        holds(&task["status"]["cost"]["charged"], "0.00")?;
    }
    Ok(())
}

/// A namespace that gives every container a GPU: a task that pays for none waits until it does so no more.
async fn given(journey: &Journey) -> Result<()> {
    let gift = json!({ "nvidia.com/gpu": "1" });
    let limits = json!([{ "type": "Container", "default": gift, "defaultRequest": gift }]);
    journey
        .apply(json!({
            "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "gift", "namespace": journey.namespace },
            "spec": { "limits": limits },
        }))
        .await?;
    journey.task("gift", &["--for", "1"], json!({ "resources": { "gpu": { "count": 0 } } })).await?;
    let told = journey.until("gift", "Reconciling", "True", PROMISED).await?;
    let condition = condition_of(&told, "Reconciling").context("it is told")?;
    ensure!(condition["reason"] == "UnpaidDevice", "{condition}");
    ensure!(condition["message"].as_str().is_some_and(|words| words.contains("LimitRange gift gives every container")), "{condition}");
    journey.kubectl(&["delete", "limitrange", "gift"]).await?;
    let task = journey.finished("gift").await?;
    ensure!(condition_of(&task, "Succeeded").is_some_and(|condition| condition["status"] == "True"), "{}", task["status"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_takes_its_tasks_along_and_they_are_billed() {
    journey("leaves", |journey| async move {
        journey.pool().await?;
        let room = format!("{}-room", journey.namespace);
        journey
            .apply(json!({
                "apiVersion": "supercargo.dev/v1alpha1", "kind": "Escrow", "metadata": { "name": "default", "namespace": journey.namespace },
                "spec": { "funding": "Internal", "token": "USDC", "grant": "10", "allowedNamespaces": [room] },
            }))
            .await?;
        kubectl::run(&journey.stage.layout, &["create", "namespace", &room]).await?;
        let inside = Journey { namespace: room.clone(), ..journey.clone() };
        let went = explained(&journey.stage.layout, &[&room], leaves(&journey, &inside)).await;
        // Whatever went wrong: nothing of it runs on beside the next test.
        kubectl::run(&journey.stage.layout, &["delete", "namespace", &room, "--wait=false", "--ignore-not-found"]).await?;
        went
    })
    .await;
}

async fn leaves(journey: &Journey, inside: &Journey) -> Result<()> {
    let room = &inside.namespace;
    let payer = json!({ "escrowRef": { "name": "default", "namespace": journey.namespace } });
    inside.task("runs", &["--for", "200"], payer.clone()).await?;
    inside.until("runs", "Started", "True", Duration::from_secs(60)).await?;
    // Somebody's own finalizer keeps the namespace for as long as this looks at it.
    inside.kubectl(&["create", "configmap", "kept"]).await?;
    let hold = |finalizers: Value| json!([{ "op": "add", "path": "/metadata/finalizers", "value": finalizers }]).to_string();
    inside.kubectl(&["patch", "configmap", "kept", "--type=json", "-p", &hold(json!(["example.com/kept"]))]).await?;
    kubectl::run(&journey.stage.layout, &["delete", "namespace", room, "--wait=false"]).await?;
    let left = left_behind(journey, inside, payer).await;
    inside.kubectl(&["patch", "configmap", "kept", "--type=json", "-p", &hold(json!([]))]).await?;
    left?;
    wait::until("the namespace to be gone", Duration::from_secs(60), || async {
        let left = kubectl::run(&journey.stage.layout, &["get", "namespace", room, "--ignore-not-found", "-o", "name"]).await?;
        Ok(left.trim().is_empty().then_some(()))
    })
    .await
}

/// What becomes of a task in a namespace that is being deleted, and of one that comes too late.
async fn left_behind(journey: &Journey, inside: &Journey, payer: Value) -> Result<()> {
    let late = inside.task("late", &[], payer).await.err().context("nothing new is made there")?;
    ensure!(format!("{late:#}").contains("because it is being terminated"), "{late:#}");
    wait::until("what ran there to be billed and nothing held back", Duration::from_secs(60), || async {
        let status = journey.get("escrow", "default").await?["status"].take();
        ensure!(status["reserved"] == "0.00" && status["charged"] != "0.00", "{status}");
        Ok(Some(()))
    })
    .await
}
