//! How nodes part with workers: they are silent for too long, a drain comes to its deadline, a device breaks, they can't start
//! them in time, or somebody evicts what runs on a node that is closed. Pods' records don't say so, nor may nodes say it later on:
//! the books keep it with the worker's place.

use super::{Booking, attempt, evidence, node, outcome, place};
use crate::world::World;
use crate::world::market::Decision;
use crate::world::records::{Parting, Placement, Pod, Task};
use std::sync::Arc;
use supercargo_crds::task::OnNodeLoss;
use supercargo_market::metering::{Evidence, Measured};
use supercargo_market::work::WorkId;

/// A node that is silent for so long is lost.
const LOST_SECONDS: i64 = 300;
/// What Kubernetes calls an eviction that somebody asked for: whoever drains a node does, and whoever may evict in a namespace
/// can.
pub const EVICTED: &str = "EvictionByEvictionAPI";

/// Nobody waits longer for a node that is silent, unless the task does.
pub fn lose(world: &mut World, work: &WorkId, task: Option<&Task>, placement: &Placement, now: i64) {
    if task.is_some_and(|task| task.spec.on_node_loss == OnNodeLoss::Wait) {
        return;
    }
    let (mut lost, mut again) = (Vec::new(), None);
    for pod in world.workers_of(work, placement).into_iter().flatten().filter(|pod| !pod.is_over()) {
        let Some(node) = pod.node.as_ref().and_then(|node| world.nodes.get(node)).filter(|node| !node.ready) else { continue };
        let until = node.ready_since.max(node.turned) + LOST_SECONDS;
        if now >= until {
            lost.push(pod.uid.clone());
        } else {
            again = Some(until).into_iter().chain(again).min();
        }
    }
    again.into_iter().for_each(|at| world.todo.alarms.set(at, work.clone()));
    for uid in lost {
        if let Some(pod) = world.pods.get_mut(&uid) {
            pod.part(Parting { lost: true, ..Parting::default() });
            pod.terminal = pod.terminal.or(Some(now));
        }
    }
}

/// What runs on a node that is drained ends at the node's deadline, and goes on elsewhere.
pub fn drain(world: &mut World, task: &Task, placement: &Placement, now: i64) {
    let (mut drained, mut again) = (Vec::new(), None);
    for pod in world.workers_of(&task.work(), placement).into_iter().flatten().filter(|pod| !pod.parting.drained) {
        let Some(until) = pod.node.as_ref().and_then(|node| node::drained_at(world.provider_node_of(node)?)) else { continue };
        // Who was told to end before the deadline, or ended by itself, was not ended by it: also when that is seen only later.
        let before = pod.delete_sent.is_some_and(|sent| sent < until) || (pod.is_over() && !(pod.deleting && outcome::was_stopped(pod)));
        if before {
            continue;
        }
        if now >= until {
            drained.push(pod.uid.clone());
        } else if !pod.is_over() {
            again = Some(until).into_iter().chain(again).min();
        }
    }
    again.into_iter().for_each(|at| world.todo.alarms.set(at, task.work()));
    for uid in drained {
        world.pods.get_mut(&uid).into_iter().for_each(|pod| pod.part(Parting { drained: true, ..Parting::default() }));
    }
}

/// Who has not started when its time for that is over has its node to thank, if what the kubelet says is the node's own.
pub fn time_out(world: &mut World, task: &Task, placement: &Placement, now: i64) {
    if now < place::start_timeout(world, task, placement) {
        return;
    }
    let waits = |pod: &&Pod| !pod.is_over() && !pod.deleting && !pod.parting.unable && !evidence::has_run(pod);
    let hindered = |pod: &Pod| {
        let (reason, message) = attempt::obstacle(pod)?;
        outcome::is_of_the_node(reason, message).then(|| (pod.uid.clone(), (reason.clone(), message.clone())))
    };
    let workers = world.workers_of(&task.work(), placement).into_iter().flatten();
    let unable: Vec<_> = workers.filter(waits).filter_map(hindered).collect();
    for (uid, told) in unable {
        if let Some(pod) = world.pods.get_mut(&uid) {
            pod.part(Parting { unable: true, ..Parting::default() });
            // What it says when it is ended says less.
            pod.hindrance = Some(told);
        }
    }
}

/// An eviction is a node's doing while the node is closed to tasks; from an open one somebody else has done it.
pub fn evict(world: &mut World, work: &WorkId) {
    // What is charged was judged before.
    let Some(reservation) = world.reservations.get(work) else { return };
    let asked = |pod: &&Pod| pod.disruption.as_deref() == Some(EVICTED) && !pod.parting.evicted;
    let closed = |pod: &&Pod| pod.node.as_ref().is_some_and(|node| world.is_closed(node));
    let workers = world.workers_of(work, &reservation.placement).into_iter().flatten();
    let evicted: Vec<String> = workers.filter(asked).filter(closed).map(|pod| pod.uid.clone()).collect();
    for uid in evicted {
        world.pods.get_mut(&uid).into_iter().for_each(|pod| pod.part(Parting { evicted: true, ..Parting::default() }));
    }
}

/// What failed by itself with a broken device has its node to thank for it, also when nobody shows the device any more.
pub fn break_off(world: &mut World, work: &WorkId) {
    let Some(reservation) = world.reservations.get(work) else { return };
    let failed = |pod: &&Pod| pod.is_over() && !pod.parting.broken && !outcome::was_stopped(pod) && !outcome::succeeded(pod);
    let broken = |pod: &&Pod| pod.devices.iter().any(|device| device.healthy == Some(false));
    let workers = world.workers_of(work, &reservation.placement).into_iter().flatten();
    let all: Vec<String> = workers.filter(failed).filter(broken).map(|pod| pod.uid.clone()).collect();
    for uid in all {
        world.pods.get_mut(&uid).into_iter().for_each(|pod| pod.part(Parting { broken: true, ..Parting::default() }));
    }
}

/// Has the books keep how its nodes have parted with an attempt's workers, as soon as they did.
pub fn keep(world: &World, work: &WorkId, bookings: &mut Vec<Booking>) {
    let Some(reservation) = world.reservations.get(work) else { return };
    let placement = &reservation.placement;
    let workers = world.workers_of(work, placement);
    let known = |pod: &Pod, parting: Parting| pod.parting.is_none() || parting.or(pod.parting) == parting;
    if workers.iter().zip(&placement.workers).any(|(pod, place)| pod.is_some_and(|pod| !known(pod, place.parting))) {
        bookings.extend(kept(world, work, &workers, &vec![None; workers.len()]));
    }
}

/// The same when it is charged, with what is billed: where nodes have parted with workers, or our own clock was needed, whoever
/// leads next can't work it out again.
pub fn keep_billed(world: &World, work: &WorkId, workers: &[Option<&Pod>], billed: &[Option<Measured>], bookings: &mut Vec<Booking>) {
    let parted = workers.iter().flatten().any(|pod| !pod.parting.is_none());
    let by_our_clock = |measured: &Measured| matches!(measured.evidence, Evidence::Clamped | Evidence::Observed);
    // Workers of a gang are compared by what all pods of their nodes have shown of the kubelets' clocks.
    if parted || workers.len() > 1 || billed.iter().flatten().any(by_our_clock) {
        bookings.extend(kept(world, work, workers, billed));
    }
}

/// What is held back for it stays as it is.
fn kept(world: &World, work: &WorkId, workers: &[Option<&Pod>], billed: &[Option<Measured>]) -> Option<Booking> {
    let reservation = world.reservations.get(work)?;
    let mut placement = reservation.placement.clone();
    for ((place, pod), billed) in placement.workers.iter_mut().zip(workers).zip(billed) {
        place.parting = pod.map_or(place.parting, |pod| place.parting.or(pod.parting));
        place.billed = *billed;
    }
    let (funding, amount, at) = (reservation.funding.clone(), reservation.reserved, placement.bound);
    Some(Booking::Reserve(work.clone(), Arc::new(Decision { funding, amount, placement, cards: Vec::new(), at })))
}
