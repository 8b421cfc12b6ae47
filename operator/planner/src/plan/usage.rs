//! What an attempt's containers used, before it is charged: it is asked for once, and waited for no longer than is said here.
//! Whether anybody can tell is never a reason not to charge.

use super::{Effect, Plan, Terms};
use crate::world::records::{Place, Placement, Pod};
use crate::world::{Usage, World};
use std::collections::BTreeMap;
use supercargo_market::metering::Measured;
use supercargo_market::rate_card::Basis;
use supercargo_market::work::WorkId;

/// Where CPU and memory are billed as they are held, nobody waits longer to hear what was used.
const GLANCE_SECONDS: i64 = 2;
/// For so long nobody asks for it again, where it is not needed, after there was no answer.
const REST_SECONDS: i64 = 30;

/// How what was used is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageTerms {
    /// Where CPU and memory are billed as they are used: the last samples are waited for until then, counted from the end. Half
    /// of it passes before anybody is asked, for samples may come late.
    pub settle_seconds: i64,
}

/// A container whose use is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub uid: String,
    pub namespace: String,
    pub pod: String,
    /// Since when there may be samples of it, by our clock.
    pub since: i64,
    /// The billed part of its life, by the clock of the evidence; whether that begins with its start; and all that it ran.
    pub from: i64,
    pub until: i64,
    pub from_start: bool,
    pub ran_seconds: u64,
    pub cpu_millis: u64,
    pub devices: u32,
}

/// What is known of it now, or that it is not the time to charge yet.
pub enum Reading {
    Wait,
    Ready(BTreeMap<String, Usage>),
}

/// What there is to know of it, asked for when it is time.
pub fn read(
    world: &mut World,
    work: &WorkId,
    placement: &Placement,
    billed: &[Option<Measured>],
    terms: &Terms,
    plan: &mut Plan,
    now: i64,
) -> Reading {
    let Some(usage) = terms.usage else { return Reading::Ready(BTreeMap::new()) };
    if let Some((_, used)) = world.usage.get(work).filter(|(attempt, _)| *attempt == placement.attempt) {
        return Reading::Ready(used.clone());
    }
    let workers = world.workers_of(work, placement);
    let ended = workers.iter().flatten().filter_map(|pod| pod.terminal).max().unwrap_or(now);
    let is_price = placement.workers.iter().any(|place| place.basis == Basis::Used);
    let rests = !is_price && world.usage_away.is_some_and(|away| now < away + REST_SECONDS);
    let (from, until) =
        if is_price { (ended + usage.settle_seconds / 2, ended + usage.settle_seconds) } else { (ended, ended + GLANCE_SECONDS) };
    let asked: Vec<Asked> = placement.workers.iter().zip(&workers).zip(billed).filter_map(asked).collect();
    if rests || now >= until || asked.is_empty() {
        return Reading::Ready(BTreeMap::new());
    }
    if now >= from {
        plan.effects.push(Effect::ReadUsage { work: work.clone(), attempt: placement.attempt, asked });
    }
    world.todo.alarms.set(if now < from { from } else { until }, work.clone());
    Reading::Wait
}

/// Of a container some of whose time is billed.
fn asked(((place, pod), measured): ((&Place, &Option<&Pod>), &Option<Measured>)) -> Option<Asked> {
    let (pod, measured) = ((*pod)?, (*measured)?);
    let ran_seconds = (measured.until - measured.from).unsigned_abs();
    let billed = measured.seconds.min(ran_seconds);
    (billed > 0).then(|| Asked {
        uid: pod.uid.clone(),
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        since: pod.ours.as_ref().map_or(measured.from, |ours| ours.bound.min(measured.from)),
        from: measured.until.saturating_sub_unsigned(billed),
        until: measured.until,
        from_start: billed == ran_seconds,
        ran_seconds,
        cpu_millis: place.cpu_millis,
        devices: place.devices,
    })
}
