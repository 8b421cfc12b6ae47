//! Taking evidence: an attempt that is over is charged from its pod's record, and what it held back is released, in one
//! transaction. The pod's task need not exist any more.

use super::Terms;
use crate::world::World;
use crate::world::records::{Placement, Pod};
use supercargo_ledger::{Charge, Posting};
use supercargo_market::metering::{self, Evidence, Measured, PodRecord};
use supercargo_market::money::Price;
use supercargo_market::rating::{self, Held};
use supercargo_market::work::SegmentId;

/// A provider's fault is not billed when the attempt was shorter.
const FAULT_FREE_SECONDS: u64 = 600;

pub fn plan(world: &World, terms: &Terms, postings: &mut Vec<Posting>) {
    let mut pods: Vec<&Pod> = world.pods.values().filter(|pod| pod.is_over()).collect();
    pods.sort_by(|one, two| one.uid.cmp(&two.uid));
    for pod in pods {
        let Some(ours) = &pod.ours else { continue };
        let Some(reservation) = world.reservations.get(&ours.work) else { continue };
        let placement = &reservation.placement;
        if placement.attempt != ours.attempt || world.is_charged(&ours.work, ours.attempt) {
            continue;
        }
        postings.push(Posting::Charge(charge(pod, placement, terms)));
        postings.push(Posting::Release { work: ours.work.clone() });
    }
}

pub fn measured(pod: &Pod, placement: &Placement) -> Measured {
    let bound = pod.ours.as_ref().map_or(placement.bound, |ours| ours.bound.max(placement.bound));
    let record = PodRecord {
        started: pod.started,
        finished: pod.finished,
        bound,
        first_running: pod.first_running,
        last_alive: pod.last_alive,
        terminal: pod.terminal,
    };
    metering::measure(&record)
}

/// What is billed of it: nothing of a short attempt that ended by the provider's fault.
pub fn billed(pod: &Pod, placement: &Placement) -> Measured {
    let measured = measured(pod, placement);
    if is_provider_fault(pod) && measured.seconds < FAULT_FREE_SECONDS { Measured { seconds: 0, ..measured } } else { measured }
}

fn charge(pod: &Pod, placement: &Placement, terms: &Terms) -> Charge {
    let measured = billed(pod, placement);
    let work = supercargo_market::work::WorkId::task(pod.ours.as_ref().map(|ours| ours.work.uid.clone()).unwrap_or_default());
    Charge {
        work,
        attempt: placement.attempt,
        segment: SegmentId::of_pod(&pod.uid, 0),
        seconds: measured.seconds,
        evidence: measured.evidence,
        // A cost that does not fit was refused when the reservation was made; zero seconds always fit.
        cost: rating::cost(&held(placement), measured.seconds).unwrap_or_default(),
        payee: placement.payee,
        fees: terms.fees.clone(),
    }
}

pub fn held(placement: &Placement) -> Held {
    Held {
        devices: placement.devices,
        device_price: Price::from_nanos_per_hour(placement.device_price_nanos),
        cpu_millis: placement.cpu_millis,
        cpu_price: Price::from_nanos_per_hour(placement.cpu_price_nanos),
        memory_bytes: placement.memory_bytes,
        memory_gib_price: Price::from_nanos_per_hour(placement.memory_price_nanos),
    }
}

/// Ends that are the node's doing, or the cluster's, and never the task's.
pub fn is_provider_fault(pod: &Pod) -> bool {
    let reason = pod.reason.as_deref().unwrap_or_default();
    let faults = [
        "Evicted",
        "NodeLost",
        "NodeAffinity",
        "NodeShutdown",
        "Terminated",
        "UnexpectedAdmissionError",
        "ContainerStatusUnknown",
        "Shutdown",
        "Preempting",
    ];
    // A container that never was can't be found either: that is no fault of the node's.
    if reason == "ContainerStatusUnknown" && !has_run(pod) {
        return false;
    }
    let kubelet = faults.contains(&reason) || reason.starts_with("OutOf") || reason.starts_with("Topology");
    // The kubelet calls it an eviction too when the task itself outgrows its disk.
    let outgrown = reason == "Evicted"
        && pod.message.as_deref().is_some_and(|message| {
            message.contains("exceeds the total limit") || message.contains("exceeded its local ephemeral storage limit")
        });
    kubelet && !outgrown
}

/// Whether its container ever ran: a start of 1970 is none.
pub fn has_run(pod: &Pod) -> bool {
    pod.first_running.is_some() || pod.started.is_some_and(|started| started > 0)
}

pub fn evidence_name(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Record => "Record",
        Evidence::Clamped => "Clamped",
        Evidence::Observed => "Observed",
        Evidence::None => "None",
    }
}
