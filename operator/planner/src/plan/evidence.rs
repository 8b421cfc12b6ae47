//! Taking evidence: an attempt that is over is charged from its pod's record, and what it held back is released, in one
//! transaction. The pod's task need not exist any more.

use super::outcome::{is_only_told, is_provider_fault};
use super::usage::{self, Reading};
use super::{Booking, Plan, Terms, attempt, parting};
use crate::world::free::record_place;
use crate::world::records::{Place, Placement, Pod, Task};
use crate::world::{Usage, World};
use supercargo_ledger::{Charge, Posting};
use supercargo_market::metering::{self, Evidence, Measured, PodRecord};
use supercargo_market::minimum::Over;
use supercargo_market::rate_card::Basis;
use supercargo_market::receipt::{DeviceSource, Devices, Ended, Metered, words_digest};
use supercargo_market::usage::{Anomaly, Shows, same_devices};
use supercargo_market::work::{SegmentId, WorkId};

/// A provider's fault is not billed when the attempt was shorter.
const FAULT_FREE_SECONDS: u64 = 600;

pub fn plan(world: &mut World, work: &WorkId, terms: &Terms, plan: &mut Plan, bookings: &mut Vec<Booking>, now: i64) {
    parting::evict(world, work);
    parting::break_off(world, work);
    let Some(reservation) = world.reservations.get(work) else { return };
    let placement = &reservation.placement;
    let workers = world.workers_of(work, placement);
    if world.is_charged(work, placement.attempt) || !attempt::is_over(world, work, placement, &workers) {
        return parting::keep(world, work, bookings);
    }
    let billed = billed(world, &workers, placement, world.task_of(work).map(|task| &**task));
    let added = added(&workers, placement, &billed);
    let placement = placement.clone();
    let Reading::Ready(used) = usage::read(world, work, &placement, &billed, terms, plan, now) else {
        return parting::keep(world, work, bookings);
    };
    let workers = world.workers_of(work, &placement);
    parting::keep_billed(world, work, &workers, &billed, bookings);
    for (worker, ((pod, measured), added)) in (0..).zip(workers.iter().zip(billed).zip(added)) {
        if let (Some(pod), Some(measured)) = (pod, measured) {
            let charge = charge(work, &placement, worker, (pod, measured, added, used.get(&pod.uid)), terms, world.today);
            bookings.push(Booking::Post(Posting::Charge(charge)));
        }
    }
    bookings.push(Booking::Post(Posting::Release { work: work.clone() }));
}

/// Whoever leads now may have seen it run only later than it was told to run.
fn record(world: &World, pod: &Pod, placement: &Placement, told: Option<i64>) -> PodRecord {
    let record = pod.record();
    let bound = record.bound.max(placement.bound);
    PodRecord {
        bound,
        first_running: pod.first_running.map(|seen| told.map_or(seen, |told| seen.min(told))),
        clock: pod.node.as_ref().and_then(|node| world.clocks.of(node)),
        clock_at_start: pod.clock_at_start.filter(|_| world.clocks.is_ours(bound)),
        ..record
    }
}

fn records(world: &World, workers: &[Option<&Pod>], placement: &Placement, task: Option<&Task>) -> Vec<Option<PodRecord>> {
    let told = task.filter(|task| !task.was_told(placement.attempt)).and_then(|task| attempt::told_started(task, placement));
    workers.iter().map(|pod| pod.map(|pod| record(world, pod, placement, told))).collect()
}

/// What each worker has used so far: who runs on a node that is heard of runs until now.
pub fn so_far(world: &World, workers: &[Option<&Pod>], placement: &Placement, task: Option<&Task>, now: i64) -> Vec<Option<Measured>> {
    let mut records = records(world, workers, placement, task);
    for (record, pod) in records.iter_mut().zip(workers) {
        let heard = |pod: &&Pod| pod.node.as_ref().and_then(|node| world.nodes.get(node)).is_some_and(|node| node.ready);
        if let (Some(record), Some(_)) = (record, pod.filter(|pod| !pod.is_over()).filter(heard)) {
            record.last_alive = record.last_alive.max(Some(now));
        }
    }
    metering::measure_together(&records)
}

/// What is billed of each worker: from the last one's start, and nothing of a short attempt that a provider's fault ended.
pub fn billed(world: &World, workers: &[Option<&Pod>], placement: &Placement, task: Option<&Task>) -> Vec<Option<Measured>> {
    // The books know, where nobody else does.
    if placement.workers.iter().any(|place| place.billed.is_some()) {
        return placement.workers.iter().map(|place| place.billed).collect();
    }
    let mut measured = metering::measure_together(&records(world, workers, placement, task));
    let longest = measured.iter().flatten().map(|one| one.seconds).max().unwrap_or_default();
    if longest < FAULT_FREE_SECONDS && workers.iter().flatten().any(|pod| is_provider_fault(pod)) {
        measured.iter_mut().flatten().for_each(|one| one.seconds = 0);
    }
    measured
}

/// What each worker is billed for beyond that, up to the minimum of its card.
pub fn added(workers: &[Option<&Pod>], placement: &Placement, billed: &[Option<Measured>]) -> Vec<u64> {
    let over = Over {
        before_seconds: placement.billed_before_seconds,
        longest_seconds: billed.iter().flatten().map(|one| one.seconds).max().unwrap_or_default(),
        ran: billed.iter().all(|one| one.is_some_and(has_shown)),
        // Of whom nothing is left the books know how its node parted with it.
        by_provider: workers.iter().zip(&placement.workers).any(|(pod, place)| pod.map_or(place.parting.is_the_end(), is_provider_fault)),
    };
    placement.workers.iter().map(|place| over.added_seconds(place.minimum_seconds)).collect()
}

/// Whether it is known to have run, by its own record or for a second before our eyes. Of what was seen for less, or not at all,
/// whoever leads next may have seen something else.
fn has_shown(measured: Measured) -> bool {
    match measured.evidence {
        Evidence::Record | Evidence::Clamped => true,
        Evidence::Observed => measured.seconds > 0,
        Evidence::None => false,
    }
}

/// Whether nobody could show what is the price of its CPU and memory. It is charged without them then: what is not shown is never
/// guessed, and no task waits longer to be over.
fn is_unshown(place: &Place, measured: Measured, usage: Option<&Usage>) -> bool {
    let shows = usage.and_then(|usage| usage.used).map_or(Shows::Nothing, |used| used.shows);
    let is_priced = place.cpu_price_nanos > 0 || place.memory_price_nanos > 0;
    place.basis == Basis::Used && is_priced && measured.seconds > 0 && shows == Shows::Nothing
}

/// A worker's pod, what is billed of it and beyond it, and what its containers used.
type Ran<'a> = (&'a Pod, Measured, u64, Option<&'a Usage>);

fn charge(work: &WorkId, placement: &Placement, worker: u32, ran: Ran, terms: &Terms, day: i64) -> Charge {
    let place = &placement.workers[worker as usize];
    let (pod, measured, added, _) = ran;
    let seconds = measured.seconds.saturating_add(added);
    let metered = metered(placement, worker, ran);
    Charge {
        work: work.clone(),
        attempt: placement.attempt,
        segment: SegmentId::of_pod(&pod.uid, 0),
        seconds,
        evidence: measured.evidence,
        place: record_place(&place.provider, &place.node),
        // Who drains a node said so before; and what anybody could have told goes on nobody's record for good.
        fault: is_provider_fault(pod) && !pod.parting.drained && !is_only_told(pod),
        // A cost that does not fit was refused when the reservation was made; zero seconds always fit.
        cost: metered.cost(place.basis, &place.held(), seconds).unwrap_or_default(),
        payee: place.payee,
        fees: terms.fees.clone(),
        metered: Some(Box::new(metered)),
        day,
    }
}

/// All that the receipt has to say of a worker.
fn metered(placement: &Placement, worker: u32, (pod, measured, added_seconds, used): Ran) -> Metered {
    let place = &placement.workers[worker as usize];
    let mut anomalies = used.map(|usage| usage.anomalies.clone()).unwrap_or_default();
    let told: Vec<&str> =
        pod.devices.iter().filter(|device| device.resource_name == placement.resource_name).map(|device| device.id.as_str()).collect();
    let exported = used.map(|usage| &usage.devices).filter(|devices| !devices.is_empty());
    if exported.is_some_and(|exported| !same_devices(&told, exported, place.devices)) {
        anomalies.push(Anomaly::OtherDevices);
    }
    if is_unshown(place, measured, used) {
        anomalies.push(Anomaly::UseNotShown);
    }
    let (ids, source) = match exported {
        _ if !told.is_empty() => (told.into_iter().map(str::to_owned).collect(), DeviceSource::Kubelet),
        Some(exported) => (exported.iter().cloned().collect(), DeviceSource::Exporter),
        None => (Vec::new(), DeviceSource::Count),
    };
    Metered {
        task: format!("{}/{}", placement.namespace, placement.task),
        worker,
        provider: place.provider.clone(),
        node: place.node.clone(),
        from: measured.from,
        until: measured.until,
        cut: measured.cut,
        card: place.rate_card.clone(),
        devices: Devices { resource_name: placement.resource_name.clone(), model: place.model.clone(), count: place.devices, ids, source },
        cpu_millis: place.cpu_millis,
        memory_bytes: place.memory_bytes,
        beside_per_hour: place.held().beside_price,
        added_seconds,
        used: used.and_then(|usage| usage.used),
        anomalies,
        ended: Ended {
            exit_code: pod.exit_code,
            image: pod.image_digest.clone(),
            words: pod.last_words.as_deref().map(words_digest),
            by_provider: is_provider_fault(pod),
        },
    }
}

/// Whether its container ever ran: a start of 1970 is none.
pub fn has_run(pod: &Pod) -> bool {
    pod.first_running.is_some() || pod.started.is_some_and(|started| started > 0)
}

/// When it ended: by its own record, else when that was first seen.
pub fn ended_at(pod: &Pod, placement: &Placement, now: i64) -> i64 {
    let ended = pod.finished.filter(|finished| *finished > 0).or(pod.terminal).unwrap_or(now);
    ended.max(placement.bound).min(now)
}

pub fn name(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Record => "Record",
        Evidence::Clamped => "Clamped",
        Evidence::Observed => "Observed",
        Evidence::None => "None",
    }
}
