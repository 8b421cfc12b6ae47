//! What keeps pods from being made, whoever says so. Who has a place gives it back for it, and who has none does not look for
//! one: a place that nobody can use would be kept from others, and nobody would pay for it.

use super::place::Wait;
use super::{Terms, pod, standing};
use crate::world::World;
use crate::world::records::{Placement, Task};

/// The API server will not have a pod, or what has to stand in its namespace first.
pub const REFUSED: &str = "PodRefused";

/// What is true of every task like it in its namespace.
pub fn of_namespace(world: &World, task: &Task) -> Option<Wait> {
    let namespace = &task.namespace;
    if world.is_going(namespace) {
        return Some(Wait::new("NamespaceGoes", format!("namespace {namespace} is being deleted")));
    }
    let unpaid = world.unpaid_device(task).map(|why| Wait::new("UnpaidDevice", why));
    unpaid.or_else(|| standing::refused(world, namespace).map(|why| Wait::new(REFUSED, why)))
}

/// Why those pods of an attempt that are missing are not to be had.
pub fn refused(world: &World, task: &Task, placement: &Placement) -> Option<Wait> {
    let of_pods = || world.refused(&task.work(), placement.attempt).map(|refused| Wait::new(REFUSED, &refused.why));
    of_namespace(world, task).or_else(of_pods)
}

/// One is missing, and nobody knows how isolated it has to run: its place is sold under no terms now.
pub fn unsold(world: &World, terms: &Terms, task: &Task, placement: &Placement) -> Option<Wait> {
    let workers = world.workers_of(&task.work(), placement);
    let missing = workers.into_iter().zip(&placement.workers).filter(|(pod, _)| pod.is_none());
    let mut unsold = missing.map(|(_, place)| place).filter(|place| pod::Site::of(world, terms, task, &place.node).is_none());
    unsold.next().map(|place| Wait::new("NotSold", format!("ProviderPool {} sells node {} no more", place.pool, place.node)))
}
