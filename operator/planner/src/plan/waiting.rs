//! Tasks that have no place: they are on the market, or something else comes first, and their status says what.

use super::place::{self, Wait};
use super::{Terms, hindrance, network, outcome, status};
use crate::world::World;
use crate::world::records::Task;
use std::collections::BTreeSet;
use supercargo_crds::names::task_condition::{RECONCILING, RESERVED, STALLED, STARTED};
use supercargo_crds::task_status::{ComputeTaskStatus, Waiting};

/// Reasons for waiting are written at most so often a task, but for the first.
const REASONS_SECONDS: i64 = 60;
/// So many tasks a second are told that their reasons have changed.
const REASONS_A_SECOND: i64 = 10;
/// A refusal by the books is asked again after so long.
const REFUSED_SECONDS: i64 = 5;

/// Nothing is held back for it: on to the market, unless something is to be mended or waited for first.
pub fn step(world: &mut World, terms: &Terms, task: &Task, now: i64) -> Option<ComputeTaskStatus> {
    let work = task.work();
    let closed = network::findings(world, terms, task);
    if !task.findings.is_empty() || !closed.is_empty() {
        world.market.forget(&work);
        let findings: Vec<&str> = task.findings.iter().chain(&closed).map(String::as_str).collect();
        return Some(stalled(task, "Invalid", &findings.join("; "), now));
    }
    if task.spec.suspend {
        world.market.forget(&work);
        return Some(suspended(task, now));
    }
    if let Some(limit) = task.spec.queue_timeout_seconds {
        let until = since(task, now) + limit;
        if now >= until {
            world.market.forget(&work);
            let mut status = task.status.clone();
            outcome::finish(task, &mut status, false, "QueueTimeout", format!("it found no place within {limit} s"), now);
            return Some(status);
        }
        world.todo.alarms.set(until, work.clone());
    }
    let waits = match before_the_market(world, task, now) {
        Err(wait) => {
            world.market.stop(&work);
            vec![wait]
        }
        Ok(wish) => {
            world.market.wait(&wish);
            world
                .market
                .elsewhere_until(&work)
                .filter(|until| now < *until)
                .into_iter()
                .for_each(|at| world.todo.alarms.set(at, work.clone()));
            place::reasons(world, task)
        }
    };
    // It has been put on the market in this very pass: there are no reasons yet.
    if waits.is_empty() { None } else { told(world, task, waits, now) }
}

/// Since when it waits for a place. What was suspended until now, or ran before, begins anew.
pub fn since(task: &Task, now: i64) -> i64 {
    if let Some(since) = &task.status.waiting_since {
        return since.0.as_second();
    }
    let of = |kind: &str| task.status.conditions.iter().find(|condition| condition.type_ == kind);
    let suspended = of(RECONCILING).is_some_and(|condition| condition.reason == "Suspended");
    if suspended || !task.status.attempts.is_empty() { now } else { task.created }
}

/// What the task asks of the market, or what keeps it from asking.
fn before_the_market(world: &mut World, task: &Task, now: i64) -> Result<supercargo_market::placement::Waiting, Wait> {
    let work = task.work();
    if let Some(wait) = hindrance::of_namespace(world, task) {
        // What has to stand there first is tried on, though nobody has a place there.
        world.grounds.todo.insert(task.namespace.clone());
        return Err(wait);
    }
    if let Some(until) = world.resting.get(&work).copied().filter(|until| now < *until) {
        world.todo.alarms.set(until, work.clone());
        let latest = world.latest.get(&work).map(|latest| latest.attempt);
        if let Some(unmade) = world.unmade.get(&work).filter(|unmade| Some(unmade.attempt) == latest) {
            return Err(Wait::new(hindrance::REFUSED, unmade.why.clone()));
        }
        return Err(Wait::new("Resting", "several attempts in a row ended by faults of providers: the next one waits a little"));
    }
    if let Some((why, at)) = world.refusals.get(&work).filter(|(_, at)| now < at + REFUSED_SECONDS) {
        let wait = Wait::new("EscrowTooLow", why.clone());
        world.todo.alarms.set(at + REFUSED_SECONDS, work);
        return Err(wait);
    }
    place::wish(world, task, now)
}

/// The reasons, written when their set changes and not too often.
pub fn told(world: &mut World, task: &Task, reasons: Vec<Wait>, now: i64) -> Option<ComputeTaskStatus> {
    let names = |all: &[Waiting]| all.iter().map(|one| one.reason.clone()).collect::<BTreeSet<_>>();
    let waiting: Vec<Waiting> =
        reasons.into_iter().map(|wait| Waiting { reason: wait.reason, nodes: wait.nodes, example: clipped(&wait.example) }).collect();
    // That the place it had was given back is told at once, too.
    let placed = status::is_true(&task.status.conditions, RESERVED);
    let first = placed || task.status.waiting.is_empty() || task.status.observed_generation != task.generation;
    if !first && names(&waiting) == names(&task.status.waiting) {
        return None;
    }
    if !may_tell(world, task, names(&waiting), first, now) {
        return None;
    }
    let mut status = task.status.clone();
    status.observed_generation = task.generation;
    status::clear(&mut status.conditions, STALLED);
    outcome::give_up(task, &mut status);
    let message = waiting.iter().map(|one| {
        if one.nodes > 0 { format!("{} nodes: {} (for example {})", one.nodes, one.reason, one.example) } else { one.example.clone() }
    });
    let message = message.collect::<Vec<_>>().join("; ");
    let reason = waiting.first().map_or("Waiting", |one| one.reason.as_str()).to_owned();
    status::set(&mut status.conditions, RECONCILING, true, &reason, message, task.generation, now);
    status::phase(&mut status, "Waiting", &reason);
    status.waiting_since = status::time(since(task, now));
    status.waiting = waiting;
    Some(status)
}

/// Whether reasons may be written now; else the task is looked at again when they may.
fn may_tell(world: &mut World, task: &Task, names: BTreeSet<String>, first: bool, now: i64) -> bool {
    let work = task.work();
    let before = world.told.get(&work);
    // What was to be written and is not there yet is written again.
    if before.is_some_and(|(_, told)| *told == names) {
        return true;
    }
    if let Some((at, _)) = before.filter(|(at, _)| !first && now < at + REASONS_SECONDS) {
        world.todo.alarms.set(at + REASONS_SECONDS, work);
        return false;
    }
    if !first && let Err(seconds) = world.pace.take(now, REASONS_A_SECOND) {
        world.todo.alarms.set(now + seconds, work);
        return false;
    }
    world.told.insert(work, (now, names));
    true
}

/// What keeps a task that has its places from starting changes as often as a kubelet tries again: it is written as seldom
/// as other reasons are. Whatever else became of the task is written at once.
pub fn paced(world: &mut World, task: &Task, next: ComputeTaskStatus, now: i64) -> Option<ComputeTaskStatus> {
    let hindered = |status: &ComputeTaskStatus| {
        let told = status.conditions.iter().find(|condition| condition.type_ == STARTED && condition.status == "False")?;
        Some(format!("{}: {}", told.reason, told.message))
    };
    let (before, Some(words)) = (hindered(&task.status), hindered(&next)) else { return Some(next) };
    let elsewhere = next.assignments != task.status.assignments;
    // Another attempt that waits for what the one before waited for, and says so already, has no news.
    let known = |one: &Waiting| task.status.waiting.iter().any(|told| told.reason == one.reason);
    let again = !status::is_true(&task.status.conditions, RESERVED) && next.waiting.iter().all(known);
    let first = (!again && (before.is_none() || elsewhere)) || task.status.observed_generation != task.generation;
    if !first && (before.as_ref() == Some(&words) || (again && next.waiting == task.status.waiting)) {
        return None;
    }
    may_tell(world, task, [words].into(), first, now).then_some(next)
}

/// One thing keeps it waiting.
pub fn only(reason: &str, example: &str) -> Vec<Waiting> {
    vec![Waiting { reason: reason.chars().take(64).collect(), nodes: 0, example: clipped(example) }]
}

pub(super) fn stalled(task: &Task, reason: &str, message: &str, now: i64) -> ComputeTaskStatus {
    let mut status = task.status.clone();
    status.observed_generation = task.generation;
    status.waiting.clear();
    status::clear(&mut status.conditions, RECONCILING);
    status::set(&mut status.conditions, STALLED, true, reason, message, task.generation, now);
    status::phase(&mut status, "Stalled", reason);
    status
}

fn suspended(task: &Task, now: i64) -> ComputeTaskStatus {
    let mut status = task.status.clone();
    status.observed_generation = task.generation;
    status.waiting.clear();
    status.waiting_since = None;
    status::clear(&mut status.conditions, STALLED);
    status::set(&mut status.conditions, RECONCILING, true, "Suspended", "it runs when spec.suspend is set to false", task.generation, now);
    status::phase(&mut status, "Suspended", "Suspended");
    status
}

fn clipped(text: &str) -> String {
    text.chars().take(250).collect()
}
