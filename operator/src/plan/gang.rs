//! What workers that belong together know of each other: their numbers, how many they are, and where the leader is.

use super::{place, pod};
use crate::world::records::{Placement, Task};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use supercargo_crds::names::{LABEL_MANAGED, LABEL_TASK, LABEL_TASK_UID, MANAGED_BY};

/// Where torchrun and its like listen unless they are told otherwise.
const RENDEZVOUS_PORT: u16 = 29_400;

/// Gives each worker a name in the cluster's DNS, also before it is ready: they find each other while they start.
pub fn service(task: &Task) -> Service {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let labels = [label(LABEL_MANAGED, MANAGED_BY), label(LABEL_TASK, &task.name), label(LABEL_TASK_UID, &task.uid)];
    Service {
        metadata: ObjectMeta {
            name: Some(place::stem(task)),
            namespace: Some(task.namespace.clone()),
            labels: Some(labels.into()),
            owner_references: Some(vec![pod::owner(task)]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some([label(LABEL_TASK_UID, &task.uid)].into()),
            publish_not_ready_addresses: Some(true),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// A worker's name under the Service. Attempts don't share names: an old address is not taken for a new one.
pub fn hostname(attempt: u32, worker: u32) -> String {
    format!("worker-{attempt}-{worker}")
}

/// The worker's number, how many there are and where the leader is; also in the words of torchrun.
pub fn env(task: &Task, placement: &Placement, worker: u32) -> Vec<(&'static str, String)> {
    let count = placement.workers.len().to_string();
    let leader = format!("{}.{}.{}.svc", hostname(placement.attempt, 0), place::stem(task), task.namespace);
    let devices = placement.workers[worker as usize].devices.max(1).to_string();
    vec![
        ("SUPERCARGO_WORKER", worker.to_string()),
        ("SUPERCARGO_WORKERS", count.clone()),
        ("SUPERCARGO_LEADER", leader.clone()),
        ("PET_NODE_RANK", worker.to_string()),
        ("PET_NNODES", count),
        ("PET_NPROC_PER_NODE", devices),
        ("PET_MASTER_ADDR", leader.clone()),
        ("PET_MASTER_PORT", RENDEZVOUS_PORT.to_string()),
        ("PET_RDZV_ENDPOINT", format!("{leader}:{RENDEZVOUS_PORT}")),
        ("PET_RDZV_ID", task.uid.clone()),
    ]
}
