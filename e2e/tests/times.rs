//! How soon things happen, by one clock at both ends: the test's own, or the API server's.

use anyhow::{Context, Result, ensure};
use kube::api::{DeleteParams, DynamicObject, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use supercargo_e2e::api_log::{ApiLog, Write};
use supercargo_e2e::cluster::GPU_EXPORTER_PORT;
use supercargo_e2e::harness::figures::percentile;
use supercargo_e2e::journey::{Journey, alone, condition_of, succeeded};
use supercargo_e2e::sights::{self, Sight, Watch};
use supercargo_e2e::{demo, http, wait};
use tokio::time::{MissedTickBehavior, interval};

/// So many tasks, each beside a bare pod.
const STARTS: usize = 15;
/// So many tasks one after the other: with the slowest left out of what is asked, one is.
const POSTS: usize = 120;
/// So many of them are there before they go together: fewer than there are GPUs.
const TOGETHER: usize = 6;
const PATIENCE: Duration = Duration::from_secs(60);

/// A journey's namespace, and the one watch on its pods.
struct Pods {
    client: Client,
    namespace: String,
    watch: Watch,
}

impl Pods {
    async fn watched(journey: &Journey) -> Result<Self> {
        let client = sights::client(&journey.stage.info).await?;
        let namespace = journey.namespace.clone();
        let watch = Watch::begin(&client, "Pod", Some(&namespace)).await?;
        Ok(Self { client, namespace, watch })
    }

    fn api(&self, object: &Value) -> Result<Api<DynamicObject>> {
        Ok(sights::objects(&self.client, object["kind"].as_str().context("a kind")?, Some(&self.namespace)))
    }

    /// Creates a task or a pod, and gives back when that was asked for.
    async fn create(&self, object: &Value) -> Result<Instant> {
        let read: DynamicObject = serde_json::from_value(object.clone())?;
        let begun = Instant::now();
        self.api(object)?.create(&PostParams::default(), &read).await.context("creating it")?;
        Ok(begun)
    }

    /// When the pod of each was first seen to be so, and the pod as it was then.
    async fn seen<const COUNT: usize>(
        &mut self,
        objects: [&Value; COUNT],
        what: &str,
        so: impl Fn(&Sight) -> bool,
    ) -> Result<[(Instant, Value); COUNT]> {
        let mut found: [Option<(Instant, Value)>; COUNT] = [const { None }; COUNT];
        let all = self.watch.until(format!("the pod of each to be {what}"), PATIENCE, |sight| {
            let of = objects.iter().position(|object| is_of(&sight.object, &object["metadata"]["name"])).filter(|_| so(sight))?;
            found[of].get_or_insert_with(|| (sight.at, sight.object.clone()));
            found.iter().all(Option::is_some).then_some(())
        });
        all.await?;
        Ok(found.map(|found| found.expect("all were found")))
    }

    /// Deletes what was created, until nothing is left of it.
    async fn clear<const COUNT: usize>(&mut self, objects: [&Value; COUNT]) -> Result<()> {
        for object in objects {
            let name = object["metadata"]["name"].as_str().context("a name")?;
            self.api(object)?.delete(name, &DeleteParams::default()).await.context("deleting it")?;
        }
        self.seen(objects, "gone", |sight| sight.gone).await.map(drop)
    }

    /// For each from apply to Running, as the API server shows it; nothing of them is left afterwards.
    async fn start<const COUNT: usize>(&mut self, objects: [&Value; COUNT]) -> Result<[(Duration, Value); COUNT]> {
        let mut begun = [None; COUNT];
        for (object, begun) in objects.iter().zip(&mut begun) {
            *begun = Some(self.create(object).await?);
        }
        let running = self.seen(objects, "running", |sight| sight.object["status"]["phase"] == "Running").await?;
        self.clear(objects).await?;
        let mut begun = begun.into_iter().flatten();
        Ok(running.map(|(at, pod)| (at - begun.next().expect("each has begun"), pod)))
    }
}

/// Whether it is the pod of a task of this name, or a bare pod that is called so itself.
fn is_of(pod: &Value, name: &Value) -> bool {
    pod["metadata"]["name"] == *name || pod["metadata"]["labels"]["supercargo.dev/task"] == *name
}

/// A pod that anybody could write for kube-scheduler: the container that a task's pod has, and leave to be where that pod was.
fn bare(like: &Value, namespace: &str, name: &str) -> Value {
    let kept = |field: &str| like["spec"][field].clone();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "containers": kept("containers"), "volumes": kept("volumes"), "securityContext": kept("securityContext"), "tolerations": kept("tolerations"),
            "terminationGracePeriodSeconds": kept("terminationGracePeriodSeconds"), "restartPolicy": "Never",
            "nodeSelector": { "kubernetes.io/hostname": kept("nodeName") }, "automountServiceAccountToken": false, "enableServiceLinks": false,
        },
    })
}

/// Nothing of other journeys runs or ends any more: what is measured has the machine to itself.
async fn quiet(journey: &Journey) -> Result<()> {
    wait::until("the tasks of other journeys to be gone", Duration::from_secs(120), || async {
        // The demo's task is left to be looked at: it ended before the demo did.
        let others = format!("--field-selector=metadata.namespace!={}", demo::NAMESPACE);
        let left = journey.kubectl(&["get", "pods", "-A", "-l", "supercargo.dev/task-uid", &others, "-o", "name"]).await?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_hardly_later_than_a_bare_pod_of_the_same_container() {
    alone("starts", |journey| async move {
        journey.pool().await?;
        journey.grant("100").await?;
        quiet(&journey).await?;
        let mut pods = Pods::watched(&journey).await?;
        // Both on one node: its kubelet looks at what has started once a second, and so sees both in the same look.
        let node = &journey.stage.info.nodes[1];
        let there = json!({ "placement": { "nodeSelector": { "kubernetes.io/hostname": node } } });
        let task = |name: &str| journey.task_object(name, &["--for", "250"], there.clone());
        // The first of all finds nothing warm, and shows what container the operator makes.
        let [(_, made)] = pods.start([&task("first")]).await?;
        let (mut tasks, mut bares) = (Vec::new(), Vec::new());
        // A little longer than the kubelet's second: each turn begins at another moment of that, or what is shorter than a second
        // would be seen of none of them.
        let mut beats = interval(Duration::from_secs(1) + Duration::from_secs(1) / STARTS as u32);
        beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for turn in 0..STARTS {
            beats.tick().await;
            let (task, pod) = (task(&format!("task-{turn}")), bare(&made, &journey.namespace, &format!("pod-{turn}")));
            // Who goes first changes, so that neither always has the other ahead of it.
            let [(task, _), (pod, _)] = if turn % 2 == 0 {
                pods.start([&task, &pod]).await?
            } else {
                let [pod, task] = pods.start([&pod, &task]).await?;
                [task, pod]
            };
            tasks.push(task);
            bares.push(pod);
        }
        let (task, pod) = (percentile(&tasks, 50).as_secs_f64(), percentile(&bares, 50).as_secs_f64());
        println!("apply to Running, {STARTS} each: a task p50 {task:.3} s, a bare pod p50 {pod:.3} s");
        println!("figure task.overhead_vs_pod_p50 {:.3} s", task - pod);
        ensure!(task - pod <= 0.2, "a task starts {:.3} s later than a bare pod: {tasks:?} and {bares:?}", task - pod);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_asked_for_as_soon_as_its_task_is_applied() {
    alone("posts", |journey| async move {
        journey.pool().await?;
        journey.grant("100").await?;
        quiet(&journey).await?;
        let mut pods = Pods::watched(&journey).await?;
        let mut log = ApiLog::from_now(&journey.stage.info)?;
        // What is measured ends with the request. A pod that lacks its Secret starts nothing: it leaves the machine idle.
        let never = json!({ "volumes": [{ "name": "none", "mountPath": "/none", "secret": { "name": "none" } }] });
        for turn in 0..POSTS / TOGETHER {
            let tasks: [Value; TOGETHER] =
                std::array::from_fn(|number| journey.task_object(&format!("task-{}", turn * TOGETHER + number), &[], never.clone()));
            for task in &tasks {
                pods.create(task).await?;
                pods.seen([task], "there", |sight| !sight.gone).await?;
            }
            pods.clear(tasks.each_ref()).await?;
        }
        let (mut applied, mut took) = (BTreeMap::new(), Vec::new());
        for write in log.more()?.into_iter().filter(|write| write.namespace == journey.namespace) {
            if write.kind == "create computetasks" {
                applied.insert(write.name, write.asked);
            } else if write.kind == "create pods" && write.is_operators() {
                // The pod is called after its task, with three more parts.
                let task = write.name.rsplitn(4, '-').last().unwrap_or_default();
                let since = applied.get(task).with_context(|| format!("{} has no task", write.name))?;
                took.push(write.asked.duration_since(*since).try_into().unwrap_or_default());
            }
        }
        ensure!(took.len() == POSTS, "{} of {POSTS} pods were asked for once", took.len());
        let milliseconds = |percent: usize| percentile(&took, percent).as_secs_f64() * 1_000.0;
        println!("apply to Pod POST, {POSTS} one after the other: p50 {:.1} ms, slowest {:.1} ms", milliseconds(50), milliseconds(100));
        println!("figure task.apply_to_post_p99 {:.1} ms", milliseconds(99));
        ensure!(milliseconds(99) <= 100.0, "{took:?}");
        Ok(())
    })
    .await;
}

/// A node's GPUs, as the exporter and the API server show them.
struct Gpus<'a> {
    journey: &'a Journey,
    node: &'a str,
    exporter: String,
    nodes: Watch,
    offers: Watch,
}

impl<'a> Gpus<'a> {
    async fn of(journey: &'a Journey, index: usize) -> Result<Self> {
        let info = &journey.stage.info;
        let exporter = format!("http://{}:{GPU_EXPORTER_PORT}", info.subnet.node(index));
        let client = sights::client(info).await?;
        let (nodes, offers) = (Watch::begin(&client, "Node", None).await?, Watch::begin(&client, "ProviderNode", None).await?);
        Ok(Self { journey, node: &info.nodes[index], exporter, nodes, offers })
    }

    /// The one of which the exporter says this.
    async fn with(&self, label: &str) -> Result<String> {
        let page = http::client()?.get(format!("{}/metrics", self.exporter)).send().await?.text().await?;
        let of = |line: &&str| line.starts_with("DCGM_FI_DEV_XID_ERRORS{") && line.contains("GPU-") && line.contains(label);
        let line = page.lines().find(of).with_context(|| format!("a GPU with {label}"))?;
        Ok(line.split("UUID=\"").nth(1).and_then(|rest| rest.split('"').next()).context("a UUID")?.to_owned())
    }

    async fn turn(&self, uuid: &str, health: &str) -> Result<()> {
        http::client()?.put(format!("{}/devices/{uuid}/{health}", self.exporter)).send().await?.error_for_status()?;
        Ok(())
    }

    /// When the node had so many, and when so many of it were on offer.
    async fn until(&mut self, count: i64) -> Result<(Instant, Instant)> {
        let node = self.node;
        let shown = self.nodes.until(format!("{count} allocatable GPUs"), PATIENCE, |sight| {
            let allocatable = &sight.object["status"]["allocatable"]["nvidia.com/gpu"];
            (sight.object["metadata"]["name"] == node && *allocatable == count.to_string().as_str()).then_some(sight.at)
        });
        let offered = self.offers.until(format!("{count} GPUs on offer"), PATIENCE, |sight| {
            let all = sight.object["status"]["offers"].as_array()?;
            let gpus = all.iter().find(|offer| offer["resourceName"] == "nvidia.com/gpu")?;
            (sight.object["metadata"]["name"] == node && gpus["count"] == count).then_some(sight.at)
        });
        tokio::try_join!(shown, offered)
    }

    /// How much later than by the API a device that falls ill is on offer no more, and what `during` finds meanwhile.
    async fn ill(&mut self, uuid: &str, during: impl AsyncFnOnce(&Journey) -> Result<()>) -> Result<Duration> {
        self.until(4).await?;
        self.turn(uuid, "unhealthy").await?;
        let fewer = self.until(3).await;
        let found = during(self.journey).await;
        self.turn(uuid, "healthy").await?;
        let (shown, offered) = fewer?;
        found?;
        self.until(4).await?;
        Ok(offered.saturating_duration_since(shown))
    }
}

fn is_soon(delay: Duration) -> Result<()> {
    ensure!(delay <= Duration::from_secs(2), "offered for {delay:?} longer than the API showed it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_falls_ill_is_offered_no_more() {
    alone("ill", |journey| async move {
        journey.pool().await?;
        let mut gpus = Gpus::of(&journey, 1).await?;
        let last = gpus.with("{gpu=\"3\"").await?;
        let delay = gpus.ill(&last, async |_| Ok(())).await?;
        println!("figure task.health_delay {:.3} s", delay.as_secs_f64());
        is_soon(delay)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_falls_ill_under_a_task_is_named_and_the_task_goes_on() {
    alone("worn", |journey| async move {
        journey.pool().await?;
        journey.grant("1").await?;
        let node = journey.stage.info.nodes[1].clone();
        let there = json!({ "placement": { "nodeSelector": { "kubernetes.io/hostname": node } } });
        journey.task("has", &["--for", "20"], there).await?;
        journey.until("has", "Started", "True", PATIENCE).await?;
        let pod = journey.pods("has").await?.pop().context("a pod")?;
        let pod = pod["metadata"]["name"].as_str().context("a name")?;
        let mut gpus = Gpus::of(&journey, 1).await?;
        let uuid = gpus.with(&format!("pod=\"{pod}\"")).await?;
        let named = async |journey: &Journey| -> Result<()> {
            wait::until("the node to name the device, as the pod's status does", PATIENCE, || async {
                let told = &journey.get("pod", pod).await?["status"]["containerStatuses"][0]["allocatedResourcesStatus"];
                let devices = told[0]["resources"].as_array().into_iter().flatten();
                let ill = devices.filter(|device| device["health"] == "Unhealthy").map(|device| device["resourceID"] == uuid);
                ensure!(ill.collect::<Vec<_>>() == [true], "the pod's devices are {told}");
                let devices = &journey.get("providernode", &node).await?["status"]["devices"];
                let ours = devices.as_array().into_iter().flatten().find(|device| device["id"] == uuid);
                ensure!(ours.is_some_and(|device| device["health"] == "Unhealthy"), "the node's devices are {devices}");
                Ok(Some(()))
            })
            .await
        };
        is_soon(gpus.ill(&uuid, named).await?)?;
        let task = journey.finished("has").await?;
        let attempts = task["status"]["attempts"].as_array().context("attempts")?;
        ensure!(succeeded(&task) && attempts.len() == 1, "{}", task["status"]);
        Ok(())
    })
    .await;
}

/// Whatever there was to say is said when so long nothing was, and then nothing is for long.
const SETTLED: Duration = Duration::from_secs(3);
const QUIET: Duration = Duration::from_secs(20);
/// How many tasks are applied at once: as many as the promise speaks of.
const WAITING: usize = 50;

/// What keeps each of them, by turns: the change to its spec, and the reason and words that it is told in.
fn hindrances() -> [(Value, &'static str, &'static str); 10] {
    let claim = json!({ "name": "data", "mountPath": "/data", "persistentVolumeClaim": { "claimName": "never" } });
    [
        (json!({ "escrowRef": { "name": "never" } }), "EscrowNotFound", "there is no Escrow"),
        (json!({ "resources": { "gpu": { "models": ["B200"] } } }), "ModelNotWanted", "has NVIDIA-H100-80GB-HBM3"),
        (json!({ "budget": "0.001" }), "BudgetTooSmall", "of the budget pays for"),
        (json!({ "volumes": [claim] }), "VolumeNotFound", "there is no PersistentVolumeClaim never"),
        (json!({ "resources": { "gpu": { "memory": "100Gi" } } }), "DeviceMemoryTooSmall", "has 81559 MiB a device"),
        (json!({ "placement": { "maxPricePerHour": "2" } }), "PriceTooHigh", "asks 2.101125 an hour"),
        (json!({ "placement": { "regions": ["mars"] } }), "RegionNotWanted", "is in eu-north-1"),
        (json!({ "placement": { "providers": { "deny": ["acme"] } } }), "ProviderNotAllowed", "belongs to acme"),
        (json!({ "placement": { "tenancy": "Exclusive" } }), "TenancyNotOffered", "does not offer Exclusive tenancy"),
        (json!({ "placement": { "nodeSelector": { "rack": "7" } } }), "SelectorDoesNotMatch", "has no label rack=7"),
    ]
}

/// The tasks that don't say yet what keeps them, each with what it says instead.
fn silent(tasks: &Value) -> Vec<String> {
    let said = |task: &Value| condition_of(task, "Reconciling").map(|condition| condition["message"].to_string()).unwrap_or_default();
    let found = |name: &str| tasks["items"].as_array().into_iter().flatten().find(|task| task["metadata"]["name"] == name);
    let hindrances = hindrances();
    let mut silent = Vec::new();
    for index in 0..WAITING {
        let (_, reason, words) = &hindrances[index % hindrances.len()];
        let task = found(&format!("waits-{index}")).unwrap_or(&Value::Null);
        if task["status"]["reason"] != *reason || !said(task).contains(words) {
            silent.push(format!("waits-{index} does not say {reason}: {} {}", task["status"]["reason"], said(task)));
        }
    }
    silent
}

#[tokio::test]
async fn whatever_keeps_fifty_tasks_waiting_is_said_within_five_seconds() {
    alone("waits", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let hindrances = hindrances();
        let mut tasks: Vec<Value> = (0..WAITING)
            .map(|index| journey.task_object(&format!("waits-{index}"), &[], hindrances[index % hindrances.len()].0.clone()))
            .collect();
        // The one whose Escrow comes after all.
        tasks[0]["spec"]["escrowRef"]["name"] = "later".into();
        // The clock runs from before the first of them can be known, so it holds the time that applying them takes too.
        let begun = Instant::now();
        let applying = journey.apply(json!({ "apiVersion": "v1", "kind": "List", "items": tasks }));
        let all_said = wait::until("all tasks to say what keeps them", Duration::from_secs(20), || async {
            let listed: Value = serde_json::from_str(&journey.kubectl(&["get", "computetasks", "-o", "json"]).await?)?;
            let silent = silent(&listed);
            match silent.first() {
                Some(first) => Err(anyhow::anyhow!("{} of {WAITING} are silent: {first}", silent.len())),
                None => Ok(Some(begun.elapsed())),
            }
        });
        let (applied, slowest) = tokio::join!(applying, all_said);
        applied?;
        let slowest = slowest?;
        println!("figure task.reason_delay {:.2} s", slowest.as_secs_f64());
        ensure!(slowest <= Duration::from_secs(5), "the slowest of {WAITING} was told what keeps it after {slowest:?}");
        journey
            .apply(json!({
                "apiVersion": "supercargo.dev/v1alpha1", "kind": "Escrow", "metadata": { "name": "later", "namespace": journey.namespace },
                "spec": { "funding": "Internal", "token": "USDC", "grant": "10" },
            }))
            .await?;
        journey.finished("waits-0").await?;
        nothing_is_written(&journey).await
    })
    .await;
}

/// While so many wait and one runs, and nothing changes, the operator has nothing to say. Its lease is another matter, and so is
/// what is free of each node, which is told once, a minute after it changed.
async fn nothing_is_written(journey: &Journey) -> Result<()> {
    journey.task("runs", &["--for", "200"], json!({})).await?;
    journey.until("runs", "Started", "True", Duration::from_secs(60)).await?;
    let mut log = ApiLog::from_now(&journey.stage.info)?;
    let of_node = |write: &Write| write.kind.ends_with(" providernodes/status");
    let told = |write: &Write| write.is_operators() && !write.kind.ends_with(" leases");
    // Of the task that has just started, and of the others a moment ago.
    while log.until("a write", SETTLED, |write| told(write) && !of_node(write)).await.is_ok() {}
    tokio::time::sleep(QUIET).await;
    let (nodes, others): (Vec<Write>, Vec<Write>) = log.more()?.into_iter().filter(told).partition(of_node);
    ensure!(others.is_empty(), "nothing changed, and the operator wrote {others:?}");
    ensure!(nodes.len() <= journey.stage.info.nodes.len(), "what is free was told again and again: {nodes:?}");
    Ok(())
}
