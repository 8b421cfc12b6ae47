//! The objects of the simulated cluster, as people and the operator's own writes have made them.

use super::gpus::GPU;
use super::{DEVICES, T, Theatre};
use crate::plan::{Fitting, Terms};
use crate::world::convert;
use crate::world::records::{Escrow, Node, Pod, PodPhase, Pool, ProviderNode, Task};
use crate::world::standing::Policy;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::LazyLock;
use supercargo_crds::node::ProviderNodeSpec;
use supercargo_crds::task_status::ComputeTaskStatus;

pub(in crate::plan) fn task(name: &str, budget: &str, retries: i32) -> Task {
    gang(name, budget, retries, 1, "All")
}

pub(in crate::plan) fn gang(name: &str, budget: &str, retries: i32, workers: u32, success: &str) -> Task {
    let mut spec = serde_json::json!({ "budget": budget, "image": "i", "retries": retries, "resources": { "cpu": "1", "memory": "1Gi" }, "timeLimitSeconds": 600 });
    if workers > 1 {
        spec["gang"] = serde_json::json!({ "workers": workers, "success": success });
    }
    let spec = serde_json::from_value(spec).expect("a spec");
    Task {
        payer: Task::payer("n", &spec),
        namespace: "n".into(),
        name: name.into(),
        uid: format!("uid-of-{name}").into(),
        generation: 1,
        created: T,
        deleting: false,
        spec,
        status: ComputeTaskStatus::default(),
        findings: Vec::new(),
    }
}

pub(in crate::plan) fn node(name: &str, now: i64, silent_since: Option<i64>) -> Node {
    Node {
        name: name.into(),
        labels: [("gpu".to_owned(), "yes".to_owned())].into(),
        ready: silent_since.is_none(),
        ready_since: silent_since.unwrap_or(T),
        seen: now,
        cpu_millis: 64_000,
        memory_bytes: 256 << 30,
        storage_bytes: 1 << 40,
        pods: 110,
        devices: [("nvidia.com/gpu".to_owned(), DEVICES)].into(),
        device_capacity: [("nvidia.com/gpu".to_owned(), DEVICES)].into(),
        ..Node::default()
    }
}

pub(in crate::plan) fn pool() -> Pool {
    let spec = serde_json::json!({
        "provider": "acme", "selector": { "matchLabels": { "gpu": "yes" } },
        "pricing": { "token": "USDC", "resources": [{ "resourceName": "nvidia.com/gpu", "perHour": "3.60" }] },
    });
    Pool {
        name: "pool".into(),
        generation: 1,
        created: T,
        spec: serde_json::from_value(spec).expect("a spec"),
        status: Default::default(),
        findings: vec![],
    }
}

pub(super) fn escrow() -> Escrow {
    escrow_with(serde_json::json!({ "funding": "Internal", "token": "USDC", "grant": "100" }))
}

/// The Escrow of the one namespace, with such a spec.
pub(in crate::plan) fn escrow_with(spec: serde_json::Value) -> Escrow {
    let spec = serde_json::from_value(spec).expect("a spec");
    Escrow {
        funding: Escrow::funding("e", &spec),
        namespace: "n".into(),
        name: "default".into(),
        uid: "e".into(),
        generation: 1,
        spec,
        status: Default::default(),
    }
}

/// What the API server says of a policy that it has just made.
pub(in crate::plan) fn made(fitting: &Fitting, generation: i64) -> Option<Policy> {
    let Fitting::Policy(policy) = fitting else { return None };
    let uid = policy.metadata.name.as_ref().map(|name| format!("uid-of-{name}"));
    let metadata = ObjectMeta { uid, generation: Some(generation), ..policy.metadata.clone() };
    convert::policy(&NetworkPolicy { metadata, spec: None })
}

pub(in crate::plan) fn terms() -> Terms {
    Terms { tokens: vec!["USDC".into()], taints_nodes: true, user_namespaces: true, ..Terms::default() }
}

impl Theatre {
    pub(in crate::plan) fn node(&self, name: &str) -> Node {
        let (sold, cordoned) = (self.tainted.contains(name), self.cordoned.contains(name));
        let known = node(name, self.clock(), self.silent.get(name).copied());
        let heard_since = self.heard_since.get(name).copied().filter(|_| known.ready);
        let devices = [(GPU.to_owned(), self.well(name))].into();
        Node { sold, cordoned, devices, ready_since: heard_since.unwrap_or(known.ready_since), ..known }
    }

    /// A pod as a watch brings it now.
    pub(super) fn seen(&self, pod: &Pod) -> Pod {
        self.comes(self.stands(pod))
    }

    /// A pod as it stands in the API server now. Of a node that nobody hears of, what runs there is told to be unready.
    pub(super) fn stands(&self, pod: &Pod) -> Pod {
        let unready = pod.phase == PodPhase::Running && !self.is_heard(pod);
        Pod { devices: self.devices_of(pod), version: Some(self.version_of(pod)), unready, ..pod.clone() }
    }

    /// What the operator's clock says of it when the news comes.
    pub(super) fn comes(&self, mut pod: Pod) -> Pod {
        let now = Some(self.clock());
        if pod.phase == PodPhase::Running {
            (pod.first_running, pod.last_alive) = (pod.first_running.or(now), now.filter(|_| !pod.unready));
        }
        if pod.is_over() {
            pod.terminal = pod.terminal.or(now);
        }
        pod.recorded = pod.finished.and(now);
        pod
    }

    fn is_heard(&self, pod: &Pod) -> bool {
        pod.node.as_ref().is_none_or(|node| !self.silent.contains_key(node))
    }

    /// Another number, and a greater one, whenever anybody has written something else into it.
    pub(super) fn version_of(&self, pod: &Pod) -> String {
        let (marks, mut versions) = (self.marks_of(pod), self.versions.borrow_mut());
        let (last, number) = versions.entry(pod.uid.clone()).or_default();
        if *last != marks {
            (*last, *number) = (marks, *number + 1);
        }
        number.to_string()
    }

    fn marks_of(&self, pod: &Pod) -> String {
        let marks = [pod.deleting, pod.has_finalizer, pod.forced, self.is_heard(pod)].map(u8::from);
        let ill = self.devices_of(pod).iter().filter(|device| device.healthy == Some(false)).count();
        let times = [pod.started, pod.finished, pod.delete_sent].map(Option::unwrap_or_default);
        let words = [&pod.node, &pod.reason, &pod.disruption, &pod.notice].map(|word| word.as_deref().unwrap_or_default());
        format!("{} {ill} {marks:?} {times:?} {}", pod.phase as u8, words.join(" "))
    }

    pub(in crate::plan) fn provided(&self, name: &str) -> ProviderNode {
        static PLAIN: LazyLock<ProviderNodeSpec> =
            LazyLock::new(|| serde_json::from_value(serde_json::json!({ "pool": "pool", "nodeName": "" })).expect("a spec"));
        let mut spec = PLAIN.clone();
        if let Some(turned) = self.turned.get(name).and_then(|turned| turned.as_object()) {
            let mut whole = serde_json::json!({ "pool": "pool", "nodeName": name });
            whole.as_object_mut().expect("an object").extend(turned.clone());
            spec = serde_json::from_value(whole).expect("a spec");
        }
        spec.node_name = name.into();
        ProviderNode {
            name: name.into(),
            uid: format!("uid-of-{name}"),
            generation: 1,
            spec,
            status: self.written.get(name).cloned().unwrap_or_default(),
        }
    }
}
