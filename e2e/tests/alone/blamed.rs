//! What a node does to tasks before they ever run there: that is the provider's doing. It costs the task an attempt and no
//! money, and a node that does so again and again is set apart.

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;
use supercargo_e2e::bill::{WHOLE_NODE, amount, second, units};
use supercargo_e2e::cluster::GPU_EXPORTER_PORT;
use supercargo_e2e::gpus::devices::{Devices, GPU};
use supercargo_e2e::install::NAMESPACE;
use supercargo_e2e::journey::{Journey, alone, condition_of, fills, succeeded};
use supercargo_e2e::{http, kubectl, sights, wait};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(60);
const OPERATOR: &str = "deployment/supercargo-operator";
/// As whom the operator writes.
const WRITER: &str = "supercargo";

/// Turns a simulated GPU of a node healthy, or has it be stuck.
async fn turn(journey: &Journey, index: usize, state: &str) -> Result<()> {
    let info = &journey.stage.info;
    let uuid = Devices::describe(&info.nodes[index], "nvidia.com/gpu=4")?.of(GPU)[0].uuid.clone();
    let url = format!("http://{}:{GPU_EXPORTER_PORT}/devices/{uuid}/{state}", info.subnet.node(index));
    http::client()?.put(url).send().await?.error_for_status()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_where_three_attempts_in_a_row_fail_by_its_own_fault_is_set_apart_and_let_back() {
    alone("apart", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let node = journey.stage.info.nodes[1].clone();
        turn(&journey, 1, "stuck").await?;
        let went = set_apart(&journey, &node).await;
        // Whatever went wrong, other journeys need the node.
        let mended = turn(&journey, 1, "healthy").await;
        let back = let_back(&journey, &node, if went.is_ok() { 8 } else { 0 }).await;
        went?;
        mended?;
        is_back(&journey, &node, back?).await
    })
    .await;
}

/// A GPU that is said to be healthy, and that nobody can be given: its kubelet can't take the pod in.
async fn set_apart(journey: &Journey, node: &str) -> Result<()> {
    journey.task("unlucky", &["--for", "1"], fills(node, GPU, 4)).await?;
    let task = wait::until("three attempts to be over", PATIENCE, || async {
        let task = journey.get("computetask", "unlucky").await?;
        Ok(task["status"]["attempts"][2].is_object().then_some(task))
    })
    .await?;
    let attempts = task["status"]["attempts"].as_array().context("attempts")?;
    let of_node = |attempt: &Value| attempt["outcome"] == "ProviderFault" && attempt["node"] == node && attempt["billedSeconds"] == 0;
    ensure!(attempts.len() == 3 && attempts.iter().all(of_node), "{attempts:?}");
    let words = attempts[0]["message"].as_str().context("the kubelet's words")?;
    ensure!(words.contains("does not answer"), "{words}");
    let provided = wait::until("the node to be set apart", PATIENCE, || async {
        let provided = journey.get("providernode", node).await?;
        Ok(provided["status"]["quarantine"].is_object().then_some(provided))
    })
    .await?;
    let ready = condition_of(&provided, "Ready").context("Ready")?;
    ensure!(ready["status"] == "False" && ready["reason"] == "Quarantined", "{ready}");
    ensure!(ready["message"].as_str().is_some_and(|words| words.contains("3 attempts in ten minutes failed")), "{ready}");
    let events: Value =
        serde_json::from_str(&kubectl::run(&journey.stage.layout, &["-n", "default", "get", "events", "-o", "json"]).await?)?;
    let mut told = events["items"].as_array().into_iter().flatten();
    ensure!(told.any(|event| event["reason"] == "Quarantined" && event["involvedObject"]["name"] == node), "an Event says so: {events}");
    let escrow = journey.get("escrow", "default").await?["status"].take();
    ensure!(escrow["charged"] == "0.00", "nothing of it is paid for: {escrow}");
    Ok(())
}

/// It takes ten minutes, and longer after another time. What its status says counts for whoever leads next: so that end is
/// brought near while nobody leads. Gives back when it is.
async fn let_back(journey: &Journey, node: &str, seconds: i64) -> Result<i64> {
    let layout = &journey.stage.layout;
    let scale = async |replicas: &str| kubectl::run(layout, &["-n", NAMESPACE, "scale", OPERATOR, replicas]).await;
    scale("--replicas=0").await?;
    let ended = wait::until("the operator to be gone", PATIENCE, || async {
        let label = "app.kubernetes.io/component=operator";
        Ok(kubectl::run(layout, &["-n", NAMESPACE, "get", "pods", "-l", label, "-o", "name"]).await?.trim().is_empty().then_some(()))
    })
    .await;
    let until = jiff::Timestamp::now().as_second() + seconds;
    let written = ends_at(journey, node, until).await;
    scale("--replicas=1").await?;
    ended?;
    written?;
    kubectl::run(layout, &["-n", NAMESPACE, "rollout", "status", OPERATOR, "--timeout=60s"]).await?;
    Ok(until)
}

/// Writes it as the operator does: what somebody else has written of a status is not the operator's to take away.
async fn ends_at(journey: &Journey, node: &str, until: i64) -> Result<()> {
    let mut status = journey.get("providernode", node).await?["status"].take();
    if !status["quarantine"].is_object() {
        return Ok(());
    }
    status["quarantine"]["until"] = jiff::Timestamp::from_second(until).context("a time")?.to_string().into();
    let object = json!({
        "apiVersion": "supercargo.dev/v1alpha1", "kind": "ProviderNode", "metadata": { "name": node }, "status": status,
    });
    let nodes = sights::objects(&sights::client(&journey.stage.info).await?, "ProviderNode", None);
    let written = nodes.patch_status(node, &PatchParams::apply(WRITER).force(), &Patch::Apply(&object)).await;
    written.map(drop).context("writing a node's status")
}

/// What waited for the node runs there, and not before its time.
async fn is_back(journey: &Journey, node: &str, until: i64) -> Result<()> {
    let task = journey.finished("unlucky").await?;
    let attempts = task["status"]["attempts"].as_array().context("attempts")?;
    ensure!(succeeded(&task) && attempts.len() == 4 && attempts[3]["node"] == node, "{}", task["status"]);
    let pod = journey.pods("unlucky").await?.into_iter().find(|pod| pod["status"]["phase"] == "Succeeded").context("its last pod")?;
    let bound = second(&pod["metadata"]["creationTimestamp"])?;
    ensure!((until..=until + 10).contains(&bound), "it was to be let back at {until}, and a pod came at {bound}");
    let provided = journey.get("providernode", node).await?;
    ensure!(condition_of(&provided, "Ready").is_some_and(|ready| ready["status"] == "True"), "{}", provided["status"]);
    ensure!(provided["status"]["quarantine"].is_null(), "{}", provided["status"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_takes_the_devices_before_ours_comes_to_them_costs_the_task_an_attempt_and_nothing_else() {
    alone("race", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let went = overtaken(&journey).await;
        journey.kubectl(&["delete", "validatingwebhookconfiguration", &journey.namespace, "--ignore-not-found"]).await?;
        journey.kubectl(&["delete", "pod", "stranger", "--ignore-not-found", "--grace-period=0", "--force"]).await?;
        went
    })
    .await;
}

/// The API server asks somebody whether our pods may be made, who does not answer: so they come when that is given up.
async fn deaf(journey: &Journey, listener: &TcpListener) -> Result<()> {
    let url = format!("https://{}/", listener.local_addr()?);
    let rule = json!({ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] });
    journey
        .apply(json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": { "name": journey.namespace },
            "webhooks": [{
                "name": "deaf.supercargo.test", "clientConfig": { "url": url }, "rules": [rule], "failurePolicy": "Ignore",
                "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 20,
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": journey.namespace } },
                "objectSelector": { "matchLabels": { "supercargo.dev/task": "late" } },
            }],
        }))
        .await?;
    // It asks from some moment on: a pod that is only tried shows when.
    let tried = pod(journey, "tried", json!({ "labels": { "supercargo.dev/task": "late" } }), 0);
    wait::until("the API server to ask", PATIENCE, || async {
        let text = tried.to_string();
        let trying = kubectl::with_input(&journey.stage.layout, &["create", "--dry-run=server", "-f", "-"], &text);
        tokio::pin!(trying);
        let mut asked = false;
        loop {
            tokio::select! {
                // Whoever hangs up gives no answer either.
                heard = listener.accept() => asked |= heard.map(|_| true).context("being asked")?,
                made = &mut trying => return made.map(|_| asked.then_some(())),
            }
        }
    })
    .await
}

/// Somebody else's pod that goes to the last node by itself.
fn pod(journey: &Journey, name: &str, metadata: Value, gpus: u32) -> Value {
    let limits = if gpus > 0 { json!({ GPU: gpus.to_string() }) } else { json!({}) };
    let container = json!({
        "name": "stranger", "image": "supercargo.dev/workload:local", "imagePullPolicy": "IfNotPresent", "args": ["--for", "200"],
        "resources": { "limits": limits },
    });
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {
            "nodeName": journey.stage.info.nodes[1], "containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false, "tolerations": [{ "operator": "Exists" }],
        },
    });
    (object["metadata"]["name"], object["metadata"]["namespace"]) = (name.into(), journey.namespace.clone().into());
    object
}

async fn overtaken(journey: &Journey) -> Result<()> {
    let node = journey.stage.info.nodes[1].clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.context("a port")?;
    deaf(journey, &listener).await?;
    journey.task("late", &["--for", "1"], fills(&node, GPU, 4)).await?;
    // The place is chosen, and money is held back for it: the API server has been asked for the pod, and asks in turn.
    let asked = tokio::time::timeout(PATIENCE, listener.accept()).await.context("waited for the task's pod to be asked for")??;
    journey.apply(pod(journey, "stranger", json!({}), 4)).await?;
    wait::until("the other pod to have the devices", PATIENCE, || async {
        Ok((journey.get("pod", "stranger").await?["status"]["phase"] == "Running").then_some(()))
    })
    .await?;
    ensure!(journey.pods("late").await?.is_empty(), "the task's own pod is still to come");
    drop((asked, listener));
    let task = wait::until("the first attempt to be over", PATIENCE, || async {
        let task = journey.get("computetask", "late").await?;
        Ok(task["status"]["attempts"][0].is_object().then_some(task))
    })
    .await?;
    let attempt = &task["status"]["attempts"][0];
    ensure!(attempt["outcome"] == "ProviderFault" && attempt["node"] == *node && attempt["billedSeconds"] == 0, "{attempt}");
    ensure!(attempt["message"].as_str().is_some_and(|words| words.contains(GPU)), "the kubelet says what there was not: {attempt}");
    journey.waits_for("late", &["DevicesInUse", "FailedThereBefore"]).await?;
    journey.kubectl(&["delete", "validatingwebhookconfiguration", &journey.namespace]).await?;
    journey.kubectl(&["delete", "pod", "stranger", "--wait=false"]).await?;
    let task = journey.finished("late").await?;
    let attempts = task["status"]["attempts"].as_array().context("attempts")?;
    ensure!(succeeded(&task) && attempts.len() == 2, "{}", task["status"]);
    let billed = attempts[1]["billedSeconds"].as_u64().context("seconds")?;
    let charged = amount(&task["status"]["cost"]["charged"])?.units();
    ensure!(charged.abs_diff(WHOLE_NODE.units(billed)) <= 1 && charged >= units(1), "{charged} millionths are charged for {billed} s");
    Ok(())
}

/// The pool that all journeys share.
const POOL: &str = "acme-north";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_can_not_start_a_pod_is_told_and_blamed_and_the_task_runs_on_another_one() {
    alone("sandbox", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        // A runtime that no node has.
        let class = json!({
            "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": journey.namespace }, "handler": "nobody",
        });
        journey.apply(class).await?;
        let broken = sells_with(&journey, json!([{ "level": "Container", "runtimeClassName": journey.namespace }])).await;
        let went = match broken {
            Ok(()) => not_started(&journey).await,
            Err(error) => Err(error),
        };
        sells_with(&journey, Value::Null).await?;
        let node = went?;
        let task = journey.finished("unlucky").await?;
        let attempts = task["status"]["attempts"].as_array().context("attempts")?;
        ensure!(succeeded(&task) && attempts.len() == 2 && attempts[1]["node"] != node, "{}", task["status"]);
        let attempt = &attempts[0];
        ensure!(attempt["outcome"] == "ProviderFault" && attempt["node"] == node && attempt["billedSeconds"] == 0, "{attempt}");
        ensure!(attempt["message"].as_str().is_some_and(|words| words.contains("nobody")), "{attempt}");
        journey.kubectl(&["delete", "runtimeclass", &journey.namespace]).await.map(drop)
    })
    .await;
}

/// Waits until the pool is seen with this isolation.
async fn sells_with(journey: &Journey, isolation: Value) -> Result<()> {
    journey.change("providerpool", POOL, json!({ "isolation": isolation })).await?;
    wait::until("the pool's isolation to be seen", PATIENCE, || async {
        let pool = journey.get("providerpool", POOL).await?;
        Ok((pool["status"]["observedGeneration"] == pool["metadata"]["generation"]).then_some(()))
    })
    .await
}

/// The node that was to run it, once the task says why it does not.
async fn not_started(journey: &Journey) -> Result<Value> {
    journey.task("unlucky", &["--for", "1"], json!({ "startTimeoutSeconds": 12 })).await?;
    journey.waits_for("unlucky", &["FailedCreatePodSandBox"]).await?;
    let mut task = journey.get("computetask", "unlucky").await?;
    let started = condition_of(&task, "Started").context("Started")?;
    ensure!(started["message"].as_str().is_some_and(|words| words.contains("no runtime for \"nobody\" is configured")), "{started}");
    Ok(task["status"]["assignments"][0]["node"].take())
}
