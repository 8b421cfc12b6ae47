//! The cluster as it truly is: what the API server holds, which nodes there are, and what each container really did. Times
//! are nanoseconds; what kubelets tell of them is in `kubelet.rs`.

use super::faults::Faults;
use super::trace::{BEGIN, Dice, Life, Nanos, SECOND};
use k8s_openapi::api::core::v1 as core;
use serde_json::json;
use std::collections::BTreeMap;
use std::rc::Rc;
use supercargo_crds::escrow::EscrowStatus;
use supercargo_crds::node::ProviderNodeStatus;
use supercargo_crds::pool::ProviderPoolStatus;
use supercargo_planner::world::Key;
use supercargo_planner::world::records::{Escrow, Node, Pool, ProviderNode, Task};

pub const NAMESPACE: &str = "team";
pub const WHOLE: &str = "nvidia.com/gpu";
pub const SHARED: &str = "nvidia.com/gpu.shared";
const WHOLE_NODES: usize = 10;
const SHARED_NODES: usize = 4;
const GPUS: usize = 8;
/// So often each node's clock is set, where that goes wrong.
const SETS: usize = 12;
/// So many share a GPU.
pub const REPLICAS: usize = 4;

/// A change, as a watch brings it.
#[derive(Clone)]
pub enum News {
    Task(Rc<Task>),
    TaskGone(Key),
    Pod(Rc<core::Pod>),
    PodGone(String),
    Node(Rc<Node>),
    Provided(Rc<ProviderNode>),
    Pool(Rc<Pool>),
    Escrow(Rc<Escrow>),
}

/// What the API server holds.
#[derive(Default)]
pub struct Api {
    pub tasks: BTreeMap<Key, Task>,
    pub pods: BTreeMap<String, core::Pod>,
    pub provided: BTreeMap<String, ProviderNodeStatus>,
    pub pools: BTreeMap<String, ProviderPoolStatus>,
    pub escrow: EscrowStatus,
    /// What no watch has been told yet.
    pub news: Vec<News>,
}

/// One part of a GPU that a container can have for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    pub node: usize,
    pub gpu: usize,
    pub replica: usize,
}

pub struct Machine {
    pub name: String,
    pub shared: bool,
    /// How far its clock is ahead of ours.
    pub skew: Nanos,
    /// When its clock is set, and by how much.
    pub sets: Vec<(Nanos, Nanos)>,
    /// Nobody hears of it, since when; and whether it lost its power.
    pub silent: Option<(Nanos, bool)>,
    pub ready: bool,
    pub ready_since: i64,
    /// When its kubelet last told of itself.
    pub told: Nanos,
    pub used: BTreeMap<Slot, usize>,
}

/// What a container really did, and what of it was told.
pub struct Container {
    pub job: usize,
    pub attempt: u32,
    pub worker: u32,
    pub name: String,
    pub uid: String,
    pub node: usize,
    pub slots: Vec<Slot>,
    pub life: Life,
    pub started: Option<Nanos>,
    pub ended: Option<Nanos>,
    pub exit_code: i32,
    /// Why the kubelet says that it ended, where it says so.
    pub reason: Option<&'static str>,
    /// It will never start.
    pub cancelled: bool,
    /// Its record went with the power of its node.
    pub unrecorded: bool,
    /// Since when and until when the API server shows it as running.
    pub shown: (Option<Nanos>, Option<Nanos>),
}

impl Machine {
    pub fn all(seed: u64, faults: &Faults, span: Nanos) -> Vec<Self> {
        let mut dice = Dice::of(&[seed, 3]);
        let mut setting = Dice::of(&[seed, 6]);
        let skew_seconds = faults.skew_seconds;
        let mut set = |_| {
            let by = setting.log_uniform(5 * SECOND, 3_600 * SECOND);
            (BEGIN + setting.between(0, span.max(1)), if setting.chance(0.5) { by } else { -by })
        };
        let mut sets = || if faults.sets { (0..SETS).map(&mut set).collect() } else { Vec::new() };
        let one = |index: usize| Self {
            name: format!("node-{index:02}"),
            shared: index >= WHOLE_NODES,
            skew: if skew_seconds > 0 { dice.between(-skew_seconds * SECOND, skew_seconds * SECOND) } else { 0 },
            sets: sets(),
            silent: None,
            ready: true,
            ready_since: BEGIN / SECOND,
            told: BEGIN,
            used: BTreeMap::new(),
        };
        (0..WHOLE_NODES + SHARED_NODES).map(one).collect()
    }

    /// What its clock shows, in the whole seconds that Kubernetes gives.
    pub fn second(&self, at: Nanos) -> i64 {
        let set: Nanos = self.sets.iter().filter(|(when, _)| *when <= at).map(|(_, by)| by).sum();
        (at + self.skew + set).div_euclid(SECOND)
    }

    /// Whether its clock was set between two times.
    pub fn was_set(&self, from: Nanos, until: Nanos) -> bool {
        self.sets.iter().any(|(at, _)| (from..=until).contains(at))
    }

    /// The parts of GPUs that a new container gets, the same as long as they are free.
    pub fn take(&mut self, node: usize, devices: usize, container: usize) -> Option<Vec<Slot>> {
        let replicas = if self.shared { REPLICAS } else { 1 };
        let all = (0..replicas).flat_map(|replica| (0..GPUS).map(move |gpu| Slot { node, gpu, replica }));
        let free: Vec<Slot> = all.filter(|slot| !self.used.contains_key(slot)).take(devices).collect();
        if free.len() < devices {
            return None;
        }
        self.used.extend(free.iter().map(|slot| (*slot, container)));
        Some(free)
    }

    pub fn record(&self, seen: i64) -> Node {
        let (resource, count) = if self.shared { (SHARED, GPUS * REPLICAS) } else { (WHOLE, GPUS) };
        let devices: BTreeMap<String, u64> = [(resource.to_owned(), count as u64)].into();
        Node {
            name: self.name.clone(),
            labels: [("sells".to_owned(), pool_of(self.shared).to_owned())].into(),
            ready: self.ready,
            ready_since: self.ready_since,
            seen,
            heartbeat: Some(self.second(self.told)),
            cpu_millis: 256_000,
            memory_bytes: 1 << 40,
            storage_bytes: 8 << 40,
            pods: 250,
            device_capacity: devices.clone(),
            devices,
            ..Node::default()
        }
    }
}

pub fn pool_of(shared: bool) -> &'static str {
    if shared { "parts" } else { "wholes" }
}

fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("it is written here")
}

impl Api {
    pub fn pool(&self, shared: bool) -> Pool {
        let (name, resource, price) = if shared { ("parts", SHARED, "0.90") } else { ("wholes", WHOLE, "3.60") };
        let mut spec = json!({
            "provider": "acme", "selector": { "matchLabels": { "sells": name } },
            "pricing": { "token": "USDC", "resources": [{ "resourceName": resource, "perHour": price }] },
        });
        if shared {
            let pricing = &mut spec["pricing"];
            (pricing["cpuPerHour"], pricing["memoryGiBPerHour"], pricing["basis"]) = (json!("0.36"), json!("0.072"), json!("Used"));
        }
        let status = self.pools.get(name).cloned().unwrap_or_default();
        Pool { name: name.into(), generation: 1, created: BEGIN / SECOND, spec: read(spec), status, findings: Vec::new() }
    }

    pub fn escrow(&self) -> Escrow {
        let spec = read(json!({ "funding": "Internal", "token": "USDC", "grant": "1000000" }));
        Escrow {
            funding: Escrow::funding("escrow", &spec),
            namespace: NAMESPACE.into(),
            name: "default".into(),
            uid: "escrow".into(),
            generation: 1,
            spec,
            status: self.escrow.clone(),
        }
    }

    pub fn provided(&self, machine: &Machine) -> ProviderNode {
        ProviderNode {
            name: machine.name.clone(),
            uid: format!("uid-of-{}", machine.name),
            generation: 1,
            spec: read(json!({ "pool": pool_of(machine.shared), "nodeName": machine.name })),
            status: self.provided.get(&machine.name).cloned().unwrap_or_default(),
        }
    }

    pub fn put_task(&mut self, task: Task) {
        self.news.push(News::Task(Rc::new(task.clone())));
        self.tasks.insert(task.key(), task);
    }

    pub fn put_pod(&mut self, name: String, pod: core::Pod) {
        self.news.push(News::Pod(Rc::new(pod.clone())));
        self.pods.insert(name, pod);
    }

    /// What is deleted goes when nothing holds it any more.
    pub fn remove_pod_if_free(&mut self, name: &str) {
        let free = |pod: &core::Pod| {
            let over = pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_some_and(|phase| phase != "Running");
            let forced = pod.metadata.deletion_grace_period_seconds == Some(0);
            pod.metadata.deletion_timestamp.is_some() && pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty) && (over || forced)
        };
        if self.pods.get(name).is_some_and(free)
            && let Some(pod) = self.pods.remove(name)
        {
            self.news.push(News::PodGone(pod.metadata.uid.unwrap_or_default()));
        }
    }
}

pub fn task(job: &super::trace::Job) -> Task {
    let mut spec = json!({
        "budget": "100000", "image": "train:1", "retries": job.retries, "timeLimitSeconds": job.limit_seconds, "ttlSecondsAfterFinished": 30,
        "resources": { "cpu": "1", "memory": "1Gi", "gpu": { "count": job.devices, "resourceName": if job.shared { SHARED } else { WHOLE } } },
    });
    if job.workers > 1 {
        spec["gang"] = json!({ "workers": job.workers });
    }
    let spec = read(spec);
    Task {
        payer: Task::payer(NAMESPACE, &spec),
        namespace: NAMESPACE.into(),
        name: job.name.clone(),
        uid: job.uid.as_str().into(),
        generation: 1,
        created: job.submitted / SECOND,
        deleting: false,
        spec,
        status: Default::default(),
        findings: Vec::new(),
    }
}
