//! Taking evidence: an attempt that is over is charged from its pod's record, and what it held back is released, in one
//! transaction. The pod's task need not exist any more.

use super::outcome::is_provider_fault;
use super::{Booking, Terms, attempt, parting};
use crate::world::World;
use crate::world::free::record_place;
use crate::world::records::{Place, Placement, Pod, Task};
use supercargo_ledger::{Charge, Posting};
use supercargo_market::metering::{self, Evidence, Measured, PodRecord};
use supercargo_market::rating;
use supercargo_market::work::{SegmentId, WorkId};

/// A provider's fault is not billed when the attempt was shorter.
const FAULT_FREE_SECONDS: u64 = 600;

pub fn plan(world: &mut World, work: &WorkId, terms: &Terms, bookings: &mut Vec<Booking>) {
    parting::evict(world, work);
    let Some(reservation) = world.reservations.get(work) else { return };
    let placement = &reservation.placement;
    let workers = world.workers_of(work, placement);
    if world.is_charged(work, placement.attempt) || !attempt::is_over(world, work, placement, &workers) {
        return parting::keep(world, work, bookings);
    }
    let billed = billed(world, &workers, placement, world.task_of(work).map(|task| &**task));
    parting::keep_billed(world, work, &workers, &billed, bookings);
    for ((pod, place), measured) in workers.iter().zip(&placement.workers).zip(billed) {
        if let (Some(pod), Some(measured)) = (pod, measured) {
            bookings.push(Booking::Post(Posting::Charge(charge(work, placement, place, pod, measured, terms))));
        }
    }
    bookings.push(Booking::Post(Posting::Release { work: work.clone() }));
}

/// Whoever leads now may have seen it run only later than it was told to run.
fn record(world: &World, pod: &Pod, placement: &Placement, told: Option<i64>) -> PodRecord {
    let record = pod.record();
    PodRecord {
        bound: record.bound.max(placement.bound),
        first_running: pod.first_running.map(|seen| told.map_or(seen, |told| seen.min(told))),
        clock: pod.node.as_ref().and_then(|node| world.clocks.of(node)),
        ..record
    }
}

/// What is billed of each worker: from the last one's start, and nothing of a short attempt that a provider's fault ended.
pub fn billed(world: &World, workers: &[Option<&Pod>], placement: &Placement, task: Option<&Task>) -> Vec<Option<Measured>> {
    // The books know, where nobody else does.
    if placement.workers.iter().any(|place| place.billed.is_some()) {
        return placement.workers.iter().map(|place| place.billed).collect();
    }
    let told = task.filter(|task| !task.was_told(placement.attempt)).and_then(|task| attempt::told_started(task, placement));
    let records: Vec<Option<PodRecord>> = workers.iter().map(|pod| pod.map(|pod| record(world, pod, placement, told))).collect();
    let mut measured = metering::measure_together(&records);
    let longest = measured.iter().flatten().map(|one| one.seconds).max().unwrap_or_default();
    if longest < FAULT_FREE_SECONDS && workers.iter().flatten().any(|pod| is_provider_fault(pod)) {
        measured.iter_mut().flatten().for_each(|one| one.seconds = 0);
    }
    measured
}

fn charge(work: &WorkId, placement: &Placement, place: &Place, pod: &Pod, measured: Measured, terms: &Terms) -> Charge {
    Charge {
        work: work.clone(),
        attempt: placement.attempt,
        segment: SegmentId::of_pod(&pod.uid, 0),
        seconds: measured.seconds,
        evidence: measured.evidence,
        place: record_place(&place.provider, &place.node),
        // Who drains a node said so before.
        fault: is_provider_fault(pod) && !pod.parting.drained,
        // A cost that does not fit was refused when the reservation was made; zero seconds always fit.
        cost: rating::cost(&place.held(), measured.seconds).unwrap_or_default(),
        payee: place.payee,
        fees: terms.fees.clone(),
        metered: None,
    }
}

/// Whether its container ever ran: a start of 1970 is none.
pub fn has_run(pod: &Pod) -> bool {
    pod.first_running.is_some() || pod.started.is_some_and(|started| started > 0)
}

pub fn name(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Record => "Record",
        Evidence::Clamped => "Clamped",
        Evidence::Observed => "Observed",
        Evidence::None => "None",
    }
}
