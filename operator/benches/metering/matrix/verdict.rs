//! What was billed against what happened: errors of each container, and what must never be.

use super::cluster::{Container, Slot};
use super::play::Play;
use super::trace::{Nanos, SECOND};
use std::collections::BTreeMap;
use supercargo_ledger::Charge;
use supercargo_market::metering::Evidence;

/// A provider's fault is not billed when the attempt was shorter.
const FAULT_FREE: Nanos = 600 * SECOND;

/// Errors in seconds, signed.
#[derive(Debug, Default, Clone)]
pub struct Errors(pub Vec<f64>);

impl Errors {
    pub fn mean(&self) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.iter().sum::<f64>() / self.0.len() as f64 }
    }

    /// The most that was too much.
    pub fn over(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }

    /// The size that so many of a thousand do not pass.
    pub fn within(&self, thousandths: usize) -> f64 {
        let mut sizes: Vec<f64> = self.0.iter().map(|error| error.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.get((sizes.len().max(1) - 1) * thousandths / 1_000).copied().unwrap_or_default()
    }

    pub fn most(&self) -> f64 {
        self.within(1_000)
    }
}

#[derive(Debug, Default)]
pub struct Verdict {
    pub containers: usize,
    /// Of containers whose record was there when they were charged.
    pub errors: Errors,
    /// Of workers that are billed from the start of another, by a clock that is not theirs and not the same.
    pub together: Errors,
    /// Of containers whose nodes' clocks were set while they ran, or while one that they began together with did.
    pub set: Errors,
    /// Ran, and never charged.
    pub missed: usize,
    pub double_seconds: f64,
    pub absorbed_seconds: f64,
    /// Charged without a whole record, its own or that of one that it began together with; and the most that such a charge was
    /// above what ran.
    pub incomplete: usize,
    pub incomplete_over: f64,
    /// A fault was charged to a provider that did nothing wrong.
    pub false_faults: usize,
    /// Of any GPU the part of the wall time that was billed.
    pub busiest: f64,
    /// What others measured: their errors, and how many containers they never saw.
    pub peers: Vec<(&'static str, Errors, usize)>,
}

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / SECOND as f64
}

/// What ran of a container, until now if it still does.
fn ran(container: &Container, now: Nanos) -> Nanos {
    container.started.map_or(0, |started| container.ended.unwrap_or(now) - started)
}

/// One attempt: its containers with their charges.
type Attempt<'a> = Vec<(&'a Container, Option<&'a Charge>)>;

/// What should be billed of each: from the last one's start, and nothing of a short attempt that a provider's fault ended.
fn due(attempt: &Attempt<'_>, workers: usize) -> Vec<Nanos> {
    let starts: Option<Vec<Nanos>> = attempt.iter().map(|(container, _)| container.started).collect();
    let last = starts.filter(|starts| starts.len() == workers).and_then(|starts| starts.into_iter().max());
    let one = |container: &Container| match (last, container.ended) {
        (Some(last), Some(ended)) => (ended - last).max(0),
        _ => 0,
    };
    let due: Vec<Nanos> = attempt.iter().map(|(container, _)| one(container)).collect();
    let fault = attempt.iter().any(|(_, charge)| charge.is_some_and(|charge| charge.fault));
    let billed = |charge: &Option<&Charge>| charge.map_or(0, |charge| charge.seconds);
    let longest = due.iter().copied().max().unwrap_or_default();
    // Whole seconds can't tell on which side of ten minutes it was.
    let near = (longest - FAULT_FREE).abs() <= SECOND;
    let free = if near { attempt.iter().all(|(_, charge)| billed(charge) == 0) } else { longest < FAULT_FREE };
    if fault && free { vec![0; due.len()] } else { due }
}

pub async fn judge(play: &Play) -> Verdict {
    let mut verdict = Verdict { containers: play.containers.iter().filter(|one| one.started.is_some()).count(), ..Verdict::default() };
    let mut attempts: BTreeMap<(usize, u32), Attempt<'_>> = BTreeMap::new();
    for container in &play.containers {
        let charge = play.books.charges.get(&container.uid);
        attempts.entry((container.job, container.attempt)).or_default().push((container, charge));
    }
    let mut billed: BTreeMap<usize, Vec<(Nanos, Nanos)>> = BTreeMap::new();
    for ((job, _), attempt) in &attempts {
        weigh(&mut verdict, attempt, play, play.trace.jobs[*job].workers as usize);
        // What is too much by a clock that was set is counted by itself.
        if !was_set(attempt, play) {
            billed.entry(*job).or_default().extend(stretch(attempt));
        }
    }
    for stretches in billed.values_mut() {
        stretches.sort_unstable();
        let overlap = |pair: &[(Nanos, Nanos)]| (pair[0].1 - pair[1].0 - SECOND).max(0);
        let twice: Nanos = stretches.windows(2).map(overlap).sum();
        verdict.double_seconds += seconds(twice);
    }
    money(&mut verdict, play).await;
    verdict.busiest = busiest(play);
    for peer in super::peers::all(play) {
        let ran: Vec<(Nanos, Option<Nanos>)> = play
            .containers
            .iter()
            .zip(peer.measured)
            .filter(|(one, _)| one.started.is_some())
            .map(|(one, seen)| (ran(one, play.now), seen))
            .collect();
        let missed = ran.iter().filter(|(_, seen)| seen.is_none()).count();
        let errors = ran.iter().map(|(ran, seen)| seconds(seen.unwrap_or_default() - ran)).collect();
        verdict.peers.push((peer.name, Errors(errors), missed));
    }
    verdict
}

/// Whether the clock of one of their nodes was set while it ran.
fn was_set(attempt: &Attempt<'_>, play: &Play) -> bool {
    attempt.iter().any(|(container, _)| {
        let lived = container.started.map(|started| (started, container.ended.unwrap_or(play.now)));
        lived.is_some_and(|(from, until)| play.machines[container.node].was_set(from, until))
    })
}

fn weigh(verdict: &mut Verdict, attempt: &Attempt<'_>, play: &Play, workers: usize) {
    let recorded = |charge: &Charge| matches!(charge.evidence, Evidence::Record | Evidence::Clamped);
    let unknown =
        |(container, charge): &(&Container, Option<&Charge>)| container.started.is_some() && charge.is_some_and(|charge| !recorded(charge));
    // Without one worker's record nobody knows when the last of them began.
    let whole = workers == 1 || !attempt.iter().any(unknown);
    let two_clocks = workers > 1 && (play.faults.skew_seconds > 0 || play.faults.sets);
    let was_set = was_set(attempt, play);
    for ((container, charge), due) in attempt.iter().zip(due(attempt, workers)) {
        let Some(charge) = charge else {
            verdict.missed += usize::from(container.started.is_some());
            continue;
        };
        let billed = charge.seconds as f64;
        let at_fault = container.reason.is_some_and(|reason| reason != "DeadlineExceeded") || !recorded(charge);
        verdict.false_faults += usize::from(charge.fault && !at_fault);
        if container.started.is_none() {
            verdict.double_seconds += billed;
        } else if !recorded(charge) || !whole {
            verdict.incomplete += 1;
            verdict.incomplete_over = verdict.incomplete_over.max(billed - seconds(ran(container, play.now)));
        } else if was_set {
            verdict.set.0.push(billed - seconds(due));
        } else if two_clocks {
            verdict.together.0.push(billed - seconds(due));
        } else {
            verdict.errors.0.push(billed - seconds(due));
        }
    }
}

/// From when until when a task is billed for an attempt.
fn stretch(attempt: &Attempt<'_>) -> Option<(Nanos, Nanos)> {
    let from = attempt.iter().filter_map(|(container, _)| container.started).max()?;
    let longest = attempt.iter().filter_map(|(_, charge)| charge.map(|charge| charge.seconds)).max()?;
    (longest > 0).then(|| (from, from + longest.cast_signed() * SECOND))
}

/// The books took each segment once: all that they took is what the segments cost.
async fn money(verdict: &mut Verdict, play: &Play) {
    for (work, sum) in play.books.sums().await {
        let of_work = || play.books.charges.values().filter(|charge| charge.work == work);
        let billed: u64 = of_work().map(|charge| charge.seconds).sum();
        let (due, taken, absorbed) = (sum.due.units(), sum.taken.units(), sum.absorbed.units());
        let per_unit = if due > 0 { billed as f64 / due as f64 } else { 0.0 };
        verdict.double_seconds += (taken + absorbed).abs_diff(due) as f64 * per_unit;
        verdict.absorbed_seconds += absorbed as f64 * per_unit;
    }
}

/// What was billed of each GPU against the time from its first container's start to its last one's end, in the whole seconds
/// that its node's clock shows.
fn busiest(play: &Play) -> f64 {
    let mut gpus: BTreeMap<(usize, usize), (f64, i64, i64)> = BTreeMap::new();
    for container in &play.containers {
        let (Some(charge), Some(started), Some(ended)) = (play.books.charges.get(&container.uid), container.started, container.ended)
        else {
            continue;
        };
        let machine = &play.machines[container.node];
        // By a clock that is set no time passes as it does, and what is too much by it is counted by itself.
        if !machine.sets.is_empty() {
            continue;
        }
        let replicas = if machine.shared { super::cluster::REPLICAS as f64 } else { 1.0 };
        for Slot { node, gpu, .. } in &container.slots {
            let (sum, first, last) = gpus.entry((*node, *gpu)).or_insert((0.0, i64::MAX, i64::MIN));
            *sum += charge.seconds as f64 / replicas;
            (*first, *last) = ((*first).min(machine.second(started)), (*last).max(machine.second(ended)));
        }
    }
    let part = |(sum, first, last): &(f64, i64, i64)| if *sum > 0.0 { sum / ((last - first).max(1) as f64) } else { 0.0 };
    gpus.values().map(part).fold(0.0, f64::max)
}
