//! From Kubernetes objects to compact records. `None` means that the object is none of ours to know.

use crate::world::Event;
use crate::world::records::{self, Ours, PodPhase};
use crate::world::requests::requests;
use crate::world::standing::Policy;
use crate::world::taints::closing;
use crate::world::volumes::Requirement;
use k8s_openapi::api::core::v1::{
    ContainerStateTerminated, ContainerStatus, Event as Told, LimitRange, Namespace, Node, NodeSelectorRequirement, PersistentVolume,
    PersistentVolumeClaim, Pod, PodCondition, PodStatus, ResourceStatus, Toleration,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::collections::BTreeMap;
use supercargo_crds::names::{
    ANNOTATION_BOUND, ANNOTATION_BUDGET_NOTICE, FINALIZER_EVIDENCE, LABEL_ATTEMPT, LABEL_TASK, LABEL_TASK_UID, LABEL_WORKER, TAINT_SOLD,
};
use supercargo_crds::validate::{self, Finding, Range};
use supercargo_crds::{ComputeTask, Escrow, ProviderNode, ProviderPool};
use supercargo_market::work::WorkId;

fn seconds(time: Option<&Time>) -> Option<i64> {
    time.map(|time| time.0.as_second())
}

/// What the gate would have said, as long as it would have been.
fn told(findings: &[Finding]) -> Vec<String> {
    if findings.is_empty() { Vec::new() } else { vec![validate::told(findings)] }
}

fn identity(meta: &ObjectMeta) -> Option<(String, String, String)> {
    Some((meta.namespace.clone().unwrap_or_default(), meta.name.clone()?, meta.uid.clone()?))
}

pub fn task(object: &ComputeTask) -> Option<records::Task> {
    let (namespace, name, uid) = identity(&object.metadata)?;
    Some(records::Task {
        payer: records::Task::payer(&namespace, &object.spec),
        namespace,
        name,
        uid: uid.into(),
        generation: object.metadata.generation.unwrap_or_default(),
        created: seconds(object.metadata.creation_timestamp.as_ref()).unwrap_or_default(),
        deleting: object.metadata.deletion_timestamp.is_some(),
        findings: told(&validate::task(object)),
        spec: object.spec.clone(),
        status: object.status.clone().unwrap_or_default(),
    })
}

pub fn pool(object: &ProviderPool) -> Option<records::Pool> {
    let (_, name, _) = identity(&object.metadata)?;
    Some(records::Pool {
        name,
        generation: object.metadata.generation.unwrap_or_default(),
        created: seconds(object.metadata.creation_timestamp.as_ref()).unwrap_or_default(),
        findings: told(&validate::pool(object)),
        spec: object.spec.clone(),
        status: object.status.clone().unwrap_or_default(),
    })
}

pub fn provider_node(object: &ProviderNode) -> Option<records::ProviderNode> {
    let (_, name, uid) = identity(&object.metadata)?;
    let generation = object.metadata.generation.unwrap_or_default();
    Some(records::ProviderNode { name, uid, generation, spec: object.spec.clone(), status: object.status.clone().unwrap_or_default() })
}

pub fn escrow(object: &Escrow) -> Option<records::Escrow> {
    let (namespace, name, uid) = identity(&object.metadata)?;
    let generation = object.metadata.generation.unwrap_or_default();
    let funding = records::Escrow::funding(&uid, &object.spec);
    let (spec, status) = (object.spec.clone(), object.status.clone().unwrap_or_default());
    Some(records::Escrow { namespace, name, uid, generation, spec, status, funding })
}

pub fn namespace(object: &Namespace) -> Option<records::Namespace> {
    let (_, name, uid) = identity(&object.metadata)?;
    Some(records::Namespace { name, uid, deleting: object.metadata.deletion_timestamp.is_some() })
}

/// A quantity of none gives nothing.
pub fn limits(object: &LimitRange) -> Option<records::Limits> {
    let (namespace, name, _) = identity(&object.metadata)?;
    let items = object.spec.iter().flat_map(|spec| &spec.limits).filter(|item| item.type_ == "Container");
    let given = items.flat_map(|item| [&item.default, &item.default_request]).flatten().flat_map(devices);
    Some(records::Limits { namespace, name, devices: given.filter(|(_, count)| *count > 0).map(|(device, _)| device).collect() })
}

pub fn policy(object: &NetworkPolicy) -> Option<Policy> {
    let (namespace, name, uid) = identity(&object.metadata)?;
    let owner = object.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "ComputeTask");
    let owner = owner.map(|owner| WorkId::task(owner.uid.as_str()));
    Some(Policy { namespace, name, uid, generation: object.metadata.generation.unwrap_or_default(), owner })
}

/// What keeps a container from being made that its pod's status does not say.
pub const TOLD_HINDRANCES: [&str; 3] = ["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"];

const UNREAD: [&str; 2] = ["failed to sync secret cache", "failed to sync configmap cache"];

/// What a kubelet says of a pod that it can't start, or whoever attaches volumes to its node.
pub fn hindrance(object: &Told) -> Option<Event> {
    let (uid, reason) = (object.involved_object.uid.clone()?, object.reason.clone()?);
    let message = object.message.clone().unwrap_or_default();
    // That a kubelet has not read yet what it is to mount says nothing of that: it tries again, and then it knows.
    if !TOLD_HINDRANCES.contains(&reason.as_str()) || UNREAD.iter().any(|words| message.contains(words)) {
        return None;
    }
    // Whoever may write Events in one namespace says nothing of another's pods.
    let namespace = object.metadata.namespace.clone()?;
    Some(Event::Hindered { uid, namespace, reason, message })
}

pub fn claim(object: &PersistentVolumeClaim) -> Option<records::Claim> {
    let (namespace, name, _) = identity(&object.metadata)?;
    let spec = object.spec.as_ref();
    let volume = spec.and_then(|spec| spec.volume_name.clone()).filter(|volume| !volume.is_empty());
    let class = spec.and_then(|spec| spec.storage_class_name.clone()).unwrap_or_default();
    Some(records::Claim { namespace, name, class, volume })
}

pub fn storage_class(object: &StorageClass) -> Option<records::StorageClass> {
    Some(records::StorageClass {
        name: object.metadata.name.clone()?,
        waits_for_pods: object.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
        makes_volumes: object.provisioner != "kubernetes.io/no-provisioner",
    })
}

pub fn volume(object: &PersistentVolume) -> Option<records::Volume> {
    let (_, name, _) = identity(&object.metadata)?;
    let affinity = object.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()).and_then(|affinity| affinity.required.as_ref());
    let read = |of_name: bool| {
        move |requirement: &NodeSelectorRequirement| Requirement {
            key: requirement.key.clone(),
            operator: requirement.operator.clone(),
            values: requirement.values.clone().unwrap_or_default(),
            of_name,
        }
    };
    let terms = affinity.iter().flat_map(|affinity| &affinity.node_selector_terms).map(|term| {
        let labels = term.match_expressions.iter().flatten().map(read(false));
        labels.chain(term.match_fields.iter().flatten().map(read(true))).collect()
    });
    let spec = object.spec.as_ref();
    let class = spec.and_then(|spec| spec.storage_class_name.clone()).unwrap_or_default();
    let claimed = spec.is_some_and(|spec| spec.claim_ref.is_some());
    Some(records::Volume { name, class, claimed, terms: terms.collect() })
}

fn quantity(quantity: &Quantity) -> supercargo_crds::Quantity {
    supercargo_crds::Quantity::Text(quantity.0.clone())
}

pub(super) fn units(of: &BTreeMap<String, Quantity>, name: &str) -> u64 {
    of.get(name).and_then(|found| quantity(found).units().ok()).unwrap_or_default()
}

pub(super) fn millis(of: &BTreeMap<String, Quantity>, name: &str) -> u64 {
    of.get(name).and_then(|found| quantity(found).millis().ok()).unwrap_or_default()
}

/// Extended resources have a domain in their name.
pub(super) fn devices(of: &BTreeMap<String, Quantity>) -> BTreeMap<String, u64> {
    of.keys().filter(|name| name.contains('/')).map(|name| (name.clone(), units(of, name))).collect()
}

pub fn node(object: &Node, now: i64) -> Option<records::Node> {
    let (_, name, _) = identity(&object.metadata)?;
    let status = object.status.clone().unwrap_or_default();
    let allocatable = status.allocatable.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let told = conditions.iter().find(|condition| condition.type_ == "Ready");
    let ready = told.is_some_and(|condition| condition.status == "True");
    let taints = object.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    // The handler without a name is the one of pods that name no runtime class.
    let mut handlers = status.runtime_handlers.iter().flatten().filter(|handler| handler.name.as_deref().unwrap_or_default().is_empty());
    Some(records::Node {
        name,
        labels: object.metadata.labels.clone().unwrap_or_default(),
        ready,
        ready_since: told.and_then(|condition| seconds(condition.last_transition_time.as_ref())).unwrap_or(now),
        turned: now,
        seen: now,
        heartbeat: told.and_then(|condition| seconds(condition.last_heartbeat_time.as_ref())),
        cordoned: object.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default(),
        cpu_millis: millis(&allocatable, "cpu"),
        memory_bytes: units(&allocatable, "memory"),
        storage_bytes: units(&allocatable, "ephemeral-storage"),
        pods: units(&allocatable, "pods"),
        devices: devices(&allocatable),
        device_capacity: devices(&status.capacity.unwrap_or_default()),
        closing_taints: closing(taints.clone()),
        sold: taints.clone().any(|taint| taint.key == TAINT_SOLD && taint.effect == "NoExecute"),
        user_namespaces: handlers.any(|handler| handler.features.as_ref().and_then(|can| can.user_namespaces).unwrap_or_default()),
        addresses: status
            .addresses
            .into_iter()
            .flatten()
            .filter(|address| address.type_.ends_with("IP"))
            .filter_map(|address| Some(Range::of(address.address.parse().ok()?)))
            .chain(object.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten()).filter_map(|range| Range::read(range)))
            .collect(),
    })
}

pub fn pod(object: &Pod, now: i64) -> Option<records::Pod> {
    let (namespace, name, uid) = identity(&object.metadata)?;
    let spec = object.spec.as_ref()?;
    let status = object.status.clone().unwrap_or_default();
    let phase = match status.phase.as_deref() {
        Some("Running") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        Some("Unknown") => PodPhase::Unknown,
        _ => PodPhase::Pending,
    };
    let container = status.container_statuses.as_ref().and_then(|statuses| statuses.first());
    let mut record = records::Pod {
        namespace,
        name,
        uid,
        version: object.metadata.resource_version.clone(),
        node: spec.node_name.clone().filter(|node| !node.is_empty()),
        phase,
        requests: requests(object),
        ours: ours(&object.metadata),
        deleting: object.metadata.deletion_timestamp.is_some(),
        delete_sent: delete_sent(&object.metadata),
        forced: object.metadata.deletion_grace_period_seconds == Some(0),
        grace_seconds: spec.termination_grace_period_seconds.unwrap_or_default(),
        has_finalizer: object.metadata.finalizers.as_ref().is_some_and(|all| all.iter().any(|one| one == FINALIZER_EVIDENCE)),
        has_sandbox: condition(&status, "PodReadyToStartContainers").is_some(),
        unbound: unbound(&status),
        reason: status.reason.clone(),
        message: status.message.clone(),
        disruption: condition(&status, "DisruptionTarget").map(|found| found.reason.clone().unwrap_or_default()),
        notice: object.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION_BUDGET_NOTICE).cloned()),
        tolerates_sold: spec.tolerations.iter().flatten().any(tolerates_sold),
        ..records::Pod::default()
    };
    if let Some(container) = container {
        read_container(&mut record, container);
    }
    if phase == PodPhase::Running {
        // Of a node that nobody hears of, what runs there is told to be unready: that it is listed says nothing of it.
        let unheard = status.conditions.iter().flatten().any(|found| found.type_ == "Ready" && found.status == "False");
        (record.first_running, record.last_alive, record.unready) = (Some(now), (!unheard).then_some(now), unheard);
    }
    if record.is_over() {
        record.terminal = Some(now);
    }
    record.recorded = record.finished.map(|_| now);
    record.ran_on = record.deleting && phase == PodPhase::Running && record.finished.is_none();
    Some(record)
}

/// The time of a deletion is when the grace period ends.
fn delete_sent(meta: &ObjectMeta) -> Option<i64> {
    Some(seconds(meta.deletion_timestamp.as_ref())? - meta.deletion_grace_period_seconds.unwrap_or_default())
}

/// A condition that holds.
fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|found| found.type_ == kind && found.status == "True")
}

/// What kube-scheduler says of a pod that it finds no node for.
fn unbound(status: &PodStatus) -> Option<(String, String)> {
    let told = status.conditions.iter().flatten().find(|found| found.type_ == "PodScheduled" && found.status == "False")?;
    Some((told.reason.clone()?, told.message.clone().unwrap_or_default()))
}

/// Whether a pod with this may stay on a node that is sold.
fn tolerates_sold(toleration: &Toleration) -> bool {
    let exists = toleration.operator.as_deref() == Some("Exists");
    let key = toleration.key.as_deref().unwrap_or_default();
    let named = key == TAINT_SOLD && (exists || toleration.value.as_deref().unwrap_or_default().is_empty());
    let always = matches!(toleration.effect.as_deref(), None | Some("" | "NoExecute")) && toleration.toleration_seconds.is_none();
    always && (named || (key.is_empty() && exists))
}

/// How a container ended, where its exit code alone says less.
const TOLD_ENDS: [&str; 4] = [STATUS_UNKNOWN, "OOMKilled", "StartError", "ContainerCannotRun"];
/// Nobody saw it end.
const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";

/// Whether a runtime only found it gone, when it was started again after its machine was: then the time of the end is that of
/// the runtime's own start, and says nothing of the container. So containerd tells of it.
fn was_found_gone(ended: &ContainerStateTerminated) -> bool {
    ended.exit_code == 255 && ended.reason.as_deref() == Some("Unknown")
}

fn read_container(record: &mut records::Pod, container: &ContainerStatus) {
    record.devices = container.allocated_resources_status.iter().flatten().flat_map(reported).collect();
    record.image_digest = Some(container.image_id.clone()).filter(|id| !id.is_empty());
    let Some(state) = &container.state else { return };
    if let Some(running) = &state.running {
        record.started = seconds(running.started_at.as_ref());
    }
    if let Some(ended) = &state.terminated {
        record.started = seconds(ended.started_at.as_ref());
        let found_gone = was_found_gone(ended);
        record.finished = seconds(ended.finished_at.as_ref()).filter(|_| !found_gone);
        record.exit_code = Some(ended.exit_code);
        record.last_words = ended.message.clone();
        let reason = if found_gone { Some(STATUS_UNKNOWN) } else { ended.reason.as_deref() };
        let told = reason.filter(|reason| TOLD_ENDS.contains(reason));
        record.reason = record.reason.take().or_else(|| told.map(str::to_owned));
    }
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.clone().unwrap_or_default();
        record.waiting = Some((reason, waiting.message.clone().unwrap_or_default()));
    }
}

/// What the kubelet reports of the devices of one resource.
fn reported(status: &ResourceStatus) -> impl Iterator<Item = records::Device> {
    status.resources.iter().flatten().map(|device| records::Device {
        id: device.resource_id.clone(),
        resource_name: status.name.clone(),
        healthy: match device.health.as_deref() {
            Some("Healthy") => Some(true),
            Some("Unhealthy") => Some(false),
            _ => None,
        },
    })
}

fn ours(meta: &ObjectMeta) -> Option<Ours> {
    let labels = meta.labels.as_ref()?;
    let number = |name: &str| labels.get(name).and_then(|value| value.parse().ok());
    Some(Ours {
        work: WorkId::task(labels.get(LABEL_TASK_UID)?.as_str()),
        task: labels.get(LABEL_TASK)?.clone(),
        attempt: number(LABEL_ATTEMPT)?,
        worker: number(LABEL_WORKER)?,
        bound: meta.annotations.as_ref().and_then(|all| all.get(ANNOTATION_BOUND)).and_then(|value| value.parse().ok()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_is_to_end_says_since_when_and_for_whom() {
        let read = |state: serde_json::Value| {
            let object = serde_json::json!({
                "metadata": { "name": "p", "namespace": "n", "uid": "u", "deletionTimestamp": "2027-01-15T08:00:30Z", "deletionGracePeriodSeconds": 30 },
                "spec": { "containers": [] },
                "status": {
                    "phase": "Running",
                    "conditions": [
                        { "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager" },
                        { "type": "PodReadyToStartContainers", "status": "False" },
                    ],
                    "containerStatuses": [{ "name": "task", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state }],
                },
            });
            pod(&serde_json::from_value(object).expect("a pod"), 1_800_000_005).expect("a record")
        };
        let runs = read(serde_json::json!({ "running": { "startedAt": "2027-01-15T07:00:00Z" } }));
        assert_eq!((runs.deleting, runs.delete_sent, runs.ran_on), (true, Some(1_800_000_000), true));
        assert_eq!((runs.disruption.as_deref(), runs.has_sandbox), (Some("DeletionByTaintManager"), false));
        let ended = serde_json::json!({ "exitCode": 0, "startedAt": "2027-01-15T07:00:00Z", "finishedAt": "2027-01-15T08:00:02Z" });
        let over = read(serde_json::json!({ "terminated": ended }));
        assert_eq!((over.ran_on, over.finished, over.is_over()), (false, Some(1_800_000_002), true));
    }

    #[test]
    fn of_all_events_only_those_are_heard_that_say_what_a_pods_status_does_not() {
        let heard = |reason: &str, message: &str| {
            let object = serde_json::json!({
                "metadata": { "name": "e", "namespace": "n" }, "involvedObject": { "kind": "Pod", "uid": "u" },
                "reason": reason, "message": message,
            });
            hindrance(&serde_json::from_value(object).expect("an event"))
        };
        for reason in ["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"] {
            let Some(Event::Hindered { uid, namespace, reason: told, message }) = heard(reason, "why") else { panic!("{reason} is heard") };
            assert_eq!((uid.as_str(), namespace.as_str(), told.as_str(), message.as_str()), ("u", "n", reason, "why"));
        }
        for reason in ["BackOff", "FailedKillPod", "NodeNotReady"] {
            assert!(heard(reason, "why").is_none(), "{reason}");
        }
        let unread = "MountVolume.SetUp failed for volume \"keys\" : failed to sync secret cache: timed out waiting for the condition";
        assert!(heard("FailedMount", unread).is_none(), "it will know soon");
    }

    #[test]
    fn the_end_of_a_container_that_a_runtime_finds_gone_is_known_to_nobody() {
        let read = |exit_code: i32, reason: &str| {
            let ended = serde_json::json!({
                "exitCode": exit_code, "reason": reason, "startedAt": "2027-01-15T07:00:00Z", "finishedAt": "2027-01-15T08:00:00Z",
            });
            let container = serde_json::json!({ "name": "task", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": { "terminated": ended } });
            let object = serde_json::json!({
                "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": { "containers": [] },
                "status": { "phase": "Failed", "containerStatuses": [container] },
            });
            let record = pod(&serde_json::from_value(object).expect("a pod"), 1_800_000_005).expect("a record");
            (record.finished.is_some(), record.reason)
        };
        // What containerd says of what ran when its machine went down, after that has come up again.
        assert_eq!(read(255, "Unknown"), (false, Some("ContainerStatusUnknown".to_owned())));
        assert_eq!(read(255, "Error"), (true, None), "so does a program that exits with 255");
        assert_eq!(read(137, "OOMKilled"), (true, Some("OOMKilled".to_owned())));
    }
}
