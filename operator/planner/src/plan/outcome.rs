//! How attempts end: whose doing it was, what is billed of it, and what becomes of the task.

use super::place;
use super::{evidence, node, status};
use crate::world::World;
use crate::world::records::{Placement, Pod, PodPhase, Task};
use supercargo_crds::common::Money;
use supercargo_crds::names::task_condition::{FINISHED, PLACED, RECONCILING, RESERVED, STARTED, SUCCEEDED};
use supercargo_crds::task::GangSuccess;
use supercargo_crds::task_status::{Attempt, ComputeTaskStatus, Cost, Usage};

const KEPT_ATTEMPTS: usize = 10;
/// After the second fault of providers in a row the next attempt waits, each time twice as long.
const FIRST_REST_SECONDS: i64 = 5;
const LONGEST_REST_SECONDS: i64 = 300;

/// How an attempt, or one worker of it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    Failed,
    ProviderFault,
    Deleted,
    Suspended,
    TimeLimit,
    StartTimeout,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::ProviderFault => "ProviderFault",
            Self::Deleted => "Deleted",
            Self::Suspended => "Suspended",
            Self::TimeLimit => "TimeLimit",
            Self::StartTimeout => "StartTimeout",
        }
    }
}

/// The one table of whose doing a worker's end was.
pub fn of_worker(task: &Task, placement: &Placement, pod: &Pod, seconds: u64) -> Outcome {
    let started = evidence::has_run(pod);
    match () {
        () if evidence::is_provider_fault(pod) => Outcome::ProviderFault,
        () if succeeded(pod) => Outcome::Succeeded,
        () if pod.reason.as_deref() == Some("DeadlineExceeded") && started => Outcome::TimeLimit,
        () if pod.reason.as_deref() == Some("DeadlineExceeded") => Outcome::StartTimeout,
        () if pod.deleting && task.spec.suspend => Outcome::Suspended,
        () if pod.deleting && started && seconds >= placement.run_seconds => Outcome::TimeLimit,
        () if pod.deleting && !started && pod.terminal.unwrap_or_default() >= placement.bound + place::start_timeout_seconds(task) => {
            Outcome::StartTimeout
        }
        () if pod.deleting || pod.gone => Outcome::Deleted,
        () => Outcome::Failed,
    }
}

pub fn succeeded(pod: &Pod) -> bool {
    pod.exit_code == Some(0) && pod.phase != PodPhase::Failed
}

/// Whether the end of this worker is the end of all: one that fails ends the attempt, and so does the leader where the
/// leader decides.
pub fn ends_all(task: Option<&Task>, worker: usize, pod: &Pod) -> bool {
    let leads = task.and_then(|task| task.spec.gang.as_ref()).is_some_and(|gang| gang.success == GangSuccess::Leader);
    pod.is_over() && (!succeeded(pod) || (leads && worker == 0))
}

/// How the attempt ended, and the worker that decided it: the first that failed by itself, else the first that failed.
fn of_attempt<'a>(task: &Task, placement: &Placement, workers: &[Option<&'a Pod>], seconds: &[u64]) -> Option<(Outcome, usize, &'a Pod)> {
    let ended = || workers.iter().enumerate().filter_map(|(worker, pod)| pod.map(|pod| (worker, pod)));
    let leader = task.spec.gang.as_ref().is_some_and(|gang| gang.success == GangSuccess::Leader);
    if leader && let Some((worker, pod)) = ended().next().filter(|(worker, pod)| *worker == 0 && succeeded(pod)) {
        return Some((Outcome::Succeeded, worker, pod));
    }
    let failed = ended().filter(|(_, pod)| !succeeded(pod) || evidence::is_provider_fault(pod));
    let first = failed.min_by_key(|(worker, pod)| (pod.deleting && !evidence::is_provider_fault(pod), pod.terminal, *worker));
    if first.is_none()
        && let Some(missing) = workers.iter().position(Option::is_none)
    {
        // Those that there are did what they were to do: the others never came.
        let outcome = if task.spec.suspend { Outcome::Suspended } else { Outcome::StartTimeout };
        return ended().next().map(|(_, pod)| (outcome, missing, pod));
    }
    let (worker, pod) = first.or_else(|| ended().next())?;
    // What all of them had is the longest that one of them had.
    let seconds = seconds.iter().copied().max().unwrap_or_default();
    Some((of_worker(task, placement, pod, seconds), worker, pod))
}

/// The latest attempt is charged and its pods are still there: what became of the task. `None` when that is told already,
/// or when there is no such attempt.
pub fn ended(world: &mut World, task: &Task, now: i64) -> Option<ComputeTaskStatus> {
    let work = task.work();
    let placement = world.latest.get(&work)?;
    if !world.is_charged(&work, placement.attempt) || task.was_told(placement.attempt) {
        return None;
    }
    let (workers, attempt) = (world.workers_of(&work, placement), placement.attempt);
    let billed = evidence::billed(&workers, placement, Some(task));
    let seconds: Vec<u64> = billed.iter().map(|measured| measured.map_or(0, |measured| measured.seconds)).collect();
    let (outcome, worker, pod) = of_attempt(task, placement, &workers, &seconds)?;
    let mut status = super::task::placed(task, placement, now);
    let started = workers.iter().map(|pod| pod.and_then(|pod| pod.first_running.or(pod.started.filter(|started| *started > 0))));
    if let Some(Some(started)) = started.collect::<Option<Vec<i64>>>().map(|all| all.into_iter().max()) {
        status::set(&mut status.conditions, STARTED, true, "Ran", "the container ran", task.generation, started);
    }
    status.attempts.push(Attempt {
        index: i32::try_from(placement.attempt).unwrap_or(i32::MAX),
        node: placement.workers[worker].node.clone(),
        outcome: outcome.name().to_owned(),
        exit_code: pod.exit_code.filter(|_| outcome != Outcome::StartTimeout),
        billed_seconds: seconds.iter().copied().max().unwrap_or_default().cast_signed(),
        evidence: billed[worker].map_or("None", |measured| evidence::name(measured.evidence)).to_owned(),
        message: last_words(pod),
        image_digest: pod.image_digest.clone(),
    });
    if let Some(resolved) = &mut status.resolved {
        resolved.image = pod.image_digest.clone().or(resolved.image.take());
    }
    let surplus = status.attempts.len().saturating_sub(KEPT_ATTEMPTS);
    status.attempts.drain(..surplus);
    let before = status.usage.clone().unwrap_or(Usage { seconds: 0, gpu_seconds: 0 });
    let gpu_seconds = placement.workers.iter().zip(&seconds).map(|(place, seconds)| u64::from(place.devices) * seconds).sum::<u64>();
    let wall = seconds.iter().copied().max().unwrap_or_default();
    status.usage =
        Some(Usage { seconds: before.seconds + wall.cast_signed(), gpu_seconds: before.gpu_seconds + gpu_seconds.cast_signed() });
    let fault = (outcome == Outcome::ProviderFault && !pod.drained).then(|| placement.workers[worker].node.clone());
    status.cost = cost(world, task, &placement.token);
    let words = words(task, outcome, worker, workers.len(), pod);
    conclude(task, &mut status, outcome, words, now);
    if let Some(node) = fault
        && world.blamed.insert(work.clone(), attempt) != Some(attempt)
    {
        node::blame(world, &node, now);
    }
    if let Some(rest) = rest_seconds(&status) {
        world.resting.insert(work, now + rest);
    }
    Some(status)
}

fn last_words(pod: &Pod) -> Option<String> {
    let words = pod.last_words.clone().or_else(|| pod.message.clone())?;
    let from = words.len().saturating_sub(4_000);
    let from = (from..words.len()).find(|&at| words.is_char_boundary(at)).unwrap_or_default();
    Some(words[from..].to_owned()).filter(|words| !words.is_empty())
}

pub fn cost(world: &World, task: &Task, token: &str) -> Option<Cost> {
    let balance = world.works.get(&task.work())?;
    Some(Cost {
        token: token.to_owned(),
        reserved: Money(balance.reserved),
        charged: Money(balance.charged),
        settled: Money(balance.settled),
        transaction: balance.transaction.clone(),
    })
}

fn words(task: &Task, outcome: Outcome, worker: usize, workers: usize, pod: &Pod) -> String {
    let who = if workers > 1 { format!("worker {worker}") } else { "it".to_owned() };
    match (outcome, pod.exit_code) {
        (Outcome::Succeeded, _) if workers > 1 => "its workers ended with exit code 0".to_owned(),
        (Outcome::Succeeded, _) => "it ended with exit code 0".to_owned(),
        (Outcome::TimeLimit, _) => "it was ended at its time limit, or before its budget would have been passed".to_owned(),
        (Outcome::StartTimeout, _) => format!("{who} did not start within {} s", place::start_timeout_seconds(task)),
        (Outcome::Suspended, _) => "it was suspended".to_owned(),
        // There is no such program, or it may not be run: the runtime says which.
        (_, Some(_)) if matches!(pod.reason.as_deref(), Some("StartError" | "ContainerCannotRun")) => {
            format!("{who} could not be started: {}", pod.last_words.as_deref().unwrap_or("the runtime does not say why"))
        }
        (_, Some(code)) => {
            format!("{who} ended with exit code {code}{}", pod.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default())
        }
        _ => pod.reason.clone().unwrap_or_else(|| format!("the pod of {who} was deleted")),
    }
}

/// Over, or another attempt.
fn conclude(task: &Task, status: &mut ComputeTaskStatus, outcome: Outcome, words: String, now: i64) {
    let counted =
        status.attempts.iter().filter(|attempt| ["Failed", "TimeLimit", "StartTimeout"].contains(&attempt.outcome.as_str())).count();
    let retries = usize::try_from(task.spec.retries).unwrap_or_default();
    match outcome {
        Outcome::Succeeded => finish(task, status, true, "Succeeded", words, now),
        Outcome::Failed | Outcome::TimeLimit | Outcome::StartTimeout if counted > retries => {
            finish(task, status, false, outcome.name(), words, now)
        }
        Outcome::Suspended => {
            status::clear(&mut status.conditions, STARTED);
            status::set(&mut status.conditions, RECONCILING, true, "Suspended", words, task.generation, now);
            status::phase(status, "Suspended", "Suspended");
        }
        _ => {
            for kind in [RESERVED, PLACED, STARTED] {
                status::clear(&mut status.conditions, kind);
            }
            status.assignments.clear();
            super::task::summarize(task, status);
            let message = format!("another attempt follows: {words}");
            status::set(&mut status.conditions, RECONCILING, true, "Retrying", message, task.generation, now);
            status::phase(status, "Waiting", "Retrying");
        }
    }
}

/// How long the next attempt waits: one fault may be chance, several in a row are not.
fn rest_seconds(status: &ComputeTaskStatus) -> Option<i64> {
    let faults = status.attempts.iter().rev().take_while(|attempt| attempt.outcome == Outcome::ProviderFault.name()).count();
    let doublings = u32::try_from(faults.checked_sub(2)?).unwrap_or(u32::MAX).min(16);
    Some((FIRST_REST_SECONDS << doublings).min(LONGEST_REST_SECONDS))
}

pub fn finish(task: &Task, status: &mut ComputeTaskStatus, succeeded: bool, reason: &str, words: String, now: i64) {
    status.observed_generation = task.generation;
    status.waiting.clear();
    status::clear(&mut status.conditions, RECONCILING);
    status::set(&mut status.conditions, SUCCEEDED, succeeded, reason, words.clone(), task.generation, now);
    status::set(&mut status.conditions, FINISHED, true, reason, words, task.generation, now);
    status::phase(status, if succeeded { "Succeeded" } else { "Failed" }, reason);
}
