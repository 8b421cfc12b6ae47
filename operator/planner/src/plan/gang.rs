//! What workers that belong together know of each other: their numbers, how many they are, and where the leader is.

use crate::world::records::{Placement, Task};
use supercargo_crds::names::SERVICE_WORKERS;

/// Where torchrun and its like listen unless they are told otherwise.
const RENDEZVOUS_PORT: u16 = 29_400;

/// The worker's number, how many there are and where the leader is; also in the words of torchrun.
pub fn env(task: &Task, placement: &Placement, worker: u32) -> Vec<(&'static str, String)> {
    let count = placement.workers.len().to_string();
    // Attempts don't share names: an old address is not taken for a new one.
    let leader = format!("{}.{SERVICE_WORKERS}.{}.svc", placement.workers[0].pod, task.namespace);
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
        ("PET_RDZV_ID", task.uid.to_string()),
    ]
}
