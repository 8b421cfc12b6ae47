//! Journeys: each test has a namespace of its own in a cluster that all share, and one that fails prints the events,
//! conditions and logs that explain it.

use crate::chain_setup::{self, Market};
use crate::cluster::{self, ClusterInfo, Layout};
use crate::image::{self, Written};
use crate::people;
pub use crate::people::condition_of;
use crate::{api_log, bill, explain, http, install, kubectl, wait};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::future::Future;
use std::time::{Duration, Instant};
use supercargo_contracts::B256;
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard};

/// The cluster, while nobody has broken anything of it since it was found whole. Whoever goes alone has all of it.
static STAGE: RwLock<Option<Stage>> = RwLock::const_new(None);
/// Of the binaries that the tests were built with: one look is enough.
static IMAGES: OnceCell<Vec<Written>> = OnceCell::const_new();

/// The cluster with everything installed.
#[derive(Debug, Clone)]
pub struct Stage {
    pub layout: Layout,
    pub info: ClusterInfo,
    pub market: Market,
}

impl Stage {
    /// Brings up whatever is not up yet.
    pub async fn ready() -> Result<Self> {
        http::install_tls();
        let layout = Layout::here()?;
        let images = IMAGES.get_or_try_init(async || image::write_all(&layout)).await?;
        let info = cluster::up(&layout).await?;
        cluster::images::ensure(&layout, &info, images)?;
        let market = chain_setup::ensure(&layout, &info).await?;
        install::gpus(&layout, &info).await?;
        install::chart(&layout, &info, &market, &images[0]).await?;
        Ok(Self { layout, info, market })
    }
}

/// One test's way through the cluster.
#[derive(Debug, Clone)]
pub struct Journey {
    pub stage: Stage,
    pub namespace: String,
}

/// Runs a journey in its own namespace, beside others, and explains it when it fails.
pub async fn journey<F, A>(name: &str, way: F)
where
    F: FnOnce(Journey) -> A,
    A: Future<Output = Result<()>>,
{
    let stage = shared().await;
    walk(name, stage.clone().expect("it was made ready"), way).await;
}

/// The same for one that takes from the others what they need, a node, the operator or every GPU, or that measures.
pub async fn alone<F, A>(name: &str, way: F)
where
    F: FnOnce(Journey) -> A,
    A: Future<Output = Result<()>>,
{
    let mut stage = STAGE.write().await;
    // Whatever it does to the cluster is found, and healed, by whoever comes next.
    let ready = match stage.take() {
        Some(ready) => ready,
        None => made_ready().await,
    };
    walk(name, ready, way).await;
}

async fn shared() -> RwLockReadGuard<'static, Option<Stage>> {
    let found = STAGE.read().await;
    if found.is_some() {
        return found;
    }
    drop(found);
    let mut missing = STAGE.write().await;
    if missing.is_none() {
        *missing = Some(made_ready().await);
    }
    missing.downgrade()
}

async fn made_ready() -> Stage {
    let layout = Layout::here().expect("a checkout");
    explain::explained(&layout, &[install::GPUS], Stage::ready()).await.expect("the cluster comes up")
}

async fn walk<F, A>(name: &str, stage: Stage, way: F)
where
    F: FnOnce(Journey) -> A,
    A: Future<Output = Result<()>>,
{
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let journey = Journey { stage, namespace: format!("{name}-{:x}", since % 0x1000_0000) };
    let begun = Instant::now();
    kubectl::run(&journey.stage.layout, &["create", "namespace", &journey.namespace]).await.expect("a namespace is made");
    let went = explain::explained(&journey.stage.layout, &[&journey.namespace], way(journey.clone())).await;
    let deleted = kubectl::run(&journey.stage.layout, &["delete", "namespace", &journey.namespace, "--wait=false"]).await;
    println!("the journey took {:.1} s", begun.elapsed().as_secs_f64());
    went.unwrap_or_else(|error| unreachable_with(&format!("{error:#}")));
    deleted.expect("the namespace is deleted");
}

/// A test fails by panicking.
#[allow(clippy::panic, reason = "this is how a test fails, and only tests call it")]
fn unreachable_with(words: &str) -> ! {
    panic!("{words}")
}

impl Journey {
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let args: Vec<&str> = ["-n", &self.namespace].into_iter().chain(args.iter().copied()).collect();
        kubectl::run(&self.stage.layout, &args).await
    }

    pub async fn get(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"]).await?)?)
    }

    pub async fn apply(&self, object: Value) -> Result<()> {
        kubectl::apply(&self.stage.layout, &object.to_string()).await.map(drop)
    }

    /// A pool over all simulated GPUs that takes both kinds of money; all journeys share it.
    pub async fn pool(&self) -> Result<u32> {
        people::provider(&self.stage.layout, &self.stage.info, &self.stage.market).await
    }

    /// An account on the chain with this much in it, for the Escrow `default`.
    pub async fn funded(&self, deposit: u32) -> Result<B256> {
        self.apply(json!({
            "apiVersion": "supercargo.dev/v1alpha1", "kind": "Escrow", "metadata": { "name": "default", "namespace": self.namespace },
            "spec": { "funding": "Chain", "chain": "default", "token": "USDC" },
        }))
        .await?;
        people::account(&self.stage.layout, &self.stage.info, &self.stage.market, &self.namespace, deposit).await
    }

    /// Credit of the operator's own books.
    pub async fn grant(&self, amount: &str) -> Result<()> {
        self.apply(json!({
            "apiVersion": "supercargo.dev/v1alpha1", "kind": "Escrow", "metadata": { "name": "default", "namespace": self.namespace },
            "spec": { "funding": "Internal", "token": "USDC", "grant": amount },
        }))
        .await
    }

    /// A task that runs the tests' own program; `change` is laid over its spec.
    pub async fn task(&self, name: &str, args: &[&str], change: Value) -> Result<()> {
        self.apply(self.task_object(name, args, change)).await
    }

    /// The same, without applying it.
    pub fn task_object(&self, name: &str, args: &[&str], change: Value) -> Value {
        let mut spec = json!({
            "budget": "0.50", "image": "supercargo.dev/workload:local", "args": args,
            "resources": { "gpu": { "count": 1 }, "cpu": "50m", "memory": "32Mi" }, "timeLimitSeconds": 300, "gracePeriodSeconds": 1,
        });
        merge(&mut spec, change);
        json!({
            "apiVersion": "supercargo.dev/v1alpha1", "kind": "ComputeTask", "metadata": { "name": name, "namespace": self.namespace }, "spec": spec,
        })
    }

    /// Waits until a task's condition is there with this status; gives back the task.
    pub async fn until(&self, task: &str, condition: &str, status: &str, deadline: Duration) -> Result<Value> {
        wait::until(format!("{condition}={status} of {task}"), deadline, || async {
            let object = self.get("computetask", task).await?;
            Ok(condition_of(&object, condition).is_some_and(|found| found["status"] == status).then_some(object))
        })
        .await
    }

    pub async fn finished(&self, task: &str) -> Result<Value> {
        self.until(task, "Finished", "True", Duration::from_secs(90)).await
    }

    /// Waits until a node has told of itself at this second or later.
    pub async fn spoken(&self, node: &str, at: i64) -> Result<()> {
        wait::until(format!("{node} to have spoken at {at}"), Duration::from_secs(60), || async {
            let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].lastHeartbeatTime}";
            let heartbeat = self.kubectl(&["get", "node", node, "-o", path]).await?;
            Ok((bill::second(&Value::String(heartbeat))? >= at).then_some(()))
        })
        .await
    }

    /// The pods of a task that are still there.
    pub async fn pods(&self, task: &str) -> Result<Vec<Value>> {
        let label = format!("supercargo.dev/task={task}");
        let listed: Value = serde_json::from_str(&self.kubectl(&["get", "pods", "-l", &label, "-o", "json"]).await?)?;
        Ok(listed["items"].as_array().cloned().unwrap_or_default())
    }

    /// Watches the task's pod until its container has ended, before anybody takes the pod away.
    pub async fn container(&self, task: &str) -> Result<Value> {
        wait::until("the task's container to end", Duration::from_secs(60), || async {
            let pods = self.pods(task).await?;
            let ended = pods.first().map(|pod| &pod["status"]["containerStatuses"][0]["state"]["terminated"]);
            Ok(ended.filter(|ended| ended.is_object()).cloned())
        })
        .await
    }

    /// The task's one pod was bound by kube-scheduler: the API server's own log says so.
    pub async fn bound_by_scheduler(&self, log: &mut api_log::ApiLog, task: &str) -> Result<()> {
        let pod = self.pods(task).await?.pop().context("a pod")?;
        let bound = log.more()?.into_iter().filter(|write| write.kind == "create pods/binding" && pod["metadata"]["name"] == write.name);
        let by: Vec<String> = bound.filter(|write| write.namespace == self.namespace).map(|write| write.user).collect();
        ensure!(by == ["system:kube-scheduler"], "it was bound by {by:?}");
        let term = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"][0];
        ensure!(term["matchFields"][0]["values"] == json!([pod["spec"]["nodeName"]]), "it goes where it was placed: {}", pod["spec"]);
        Ok(())
    }

    /// Waits until a task says that it waits for one of these.
    pub async fn waits_for(&self, task: &str, reasons: &[&str]) -> Result<()> {
        wait::until(format!("{task} to wait for {}", reasons.join(" or ")), Duration::from_secs(30), || async {
            let status = self.get("computetask", task).await?["status"].take();
            let mut waiting = status["waiting"].as_array().into_iter().flatten();
            ensure!(waiting.any(|one| reasons.iter().any(|reason| one["reason"] == *reason)), "{status}");
            Ok(Some(()))
        })
        .await
    }

    /// Waits until no pod of a task is held for its evidence any more: nothing is left to do for it.
    pub async fn freed(&self, task: &str) -> Result<()> {
        wait::until(format!("the pods of {task} to be free of their finalizers"), Duration::from_secs(20), || async {
            let held = self.pods(task).await?.iter().any(|pod| pod["metadata"]["finalizers"].is_array());
            Ok((!held).then_some(()))
        })
        .await
    }

    /// Changes an object's spec.
    pub async fn change(&self, kind: &str, name: &str, spec: Value) -> Result<()> {
        let patch = json!({ "spec": spec }).to_string();
        self.kubectl(&["patch", kind, name, "--type=merge", "-p", &patch]).await.map(drop)
    }

    /// How many writes the operator did that name this, from the API server's own audit log.
    pub fn operator_writes(&self, name: &str) -> Result<Vec<String>> {
        let all = api_log::ApiLog::from_the_beginning(&self.stage.info)?.more()?;
        let ours = all.into_iter().filter(|write| write.is_operators() && write.namespace == self.namespace);
        Ok(ours.filter(|write| write.name.starts_with(name)).map(|write| write.kind).collect())
    }
}

/// What sends a task to this node alone, for so many of its devices.
pub fn fills(node: &str, resource: &str, count: u32) -> Value {
    json!({
        "placement": { "nodeSelector": { "kubernetes.io/hostname": node } }, "budget": "2",
        "resources": { "gpu": { "resourceName": resource, "count": count } },
    })
}

/// Lays one value over another.
pub fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            change.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value))
        }
        (into, change) => *into = change,
    }
}

/// Whether a task came to a good end.
pub fn succeeded(task: &Value) -> bool {
    condition_of(task, "Succeeded").is_some_and(|condition| condition["status"] == "True")
}

/// Holds an amount in a status to what it should be.
pub fn holds(value: &Value, expected: &str) -> Result<()> {
    ensure!(value == expected, "expected {expected}, found {value}");
    Ok(())
}
