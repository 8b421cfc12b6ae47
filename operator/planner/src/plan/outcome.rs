//! How attempts end: whose doing it was, what is billed of it, and what becomes of the task.

use super::parting::EVICTED;
use super::place;
use super::{account, evidence, hindrance, node, status, waiting};
use crate::world::World;
use crate::world::convert::TOLD_HINDRANCES;
use crate::world::records::{Placement, Pod, PodPhase, Task};
use std::collections::BTreeSet;
use supercargo_crds::common::Money;
use supercargo_crds::names::task_condition::{FINISHED, PLACED, RECONCILING, RESERVED, STARTED, SUCCEEDED};
use supercargo_crds::task::GangSuccess;
use supercargo_crds::task_status::{Attempt, ComputeTaskStatus, Cost, Receipt, Usage};

const KEPT_ATTEMPTS: usize = 10;
/// Whom so many nodes in a row, one after the other, made no sandbox for, no other one would.
const SANDBOX_NODES: usize = 3;
/// Whose volume was not attached so often in a row has one that can't be, also where there is no other node.
const VOLUME_TRIES: usize = 4;
/// A status has no room for a longer name of an image.
const LONGEST_IMAGE: usize = 512;
/// After the second fault of providers in a row, or a refusal by the API server, the next attempt waits, each time twice as
/// long.
const FIRST_REST_SECONDS: i64 = 5;
const LONGEST_REST_SECONDS: i64 = 300;
/// Kubernetes gives whole seconds, and one may be lost at each end of a run.
const CLOCK_SECONDS: i64 = 2;

/// How an attempt, or one worker of it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    Failed,
    ProviderFault,
    Refused,
    Deleted,
    Suspended,
    TimeLimit,
    StartTimeout,
    /// What it would have cost from then on could not be collected.
    Unfunded,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::ProviderFault => "ProviderFault",
            Self::Refused => "Refused",
            Self::Deleted => "Deleted",
            Self::Suspended => "Suspended",
            Self::TimeLimit => "TimeLimit",
            Self::StartTimeout => "StartTimeout",
            Self::Unfunded => "Unfunded",
        }
    }
}

/// The one table of whose doing a worker's end was; `seconds` is what the attempt had of its time.
pub fn of_worker(task: &Task, placement: &Placement, pod: &Pod, seconds: u64) -> Outcome {
    let started = evidence::has_run(pod);
    match () {
        () if succeeded(pod) => Outcome::Succeeded,
        () if is_provider_fault(pod) => Outcome::ProviderFault,
        () if pod.reason.as_deref() == Some("DeadlineExceeded") && started => Outcome::TimeLimit,
        () if pod.reason.as_deref() == Some("DeadlineExceeded") => Outcome::StartTimeout,
        () if !was_stopped(pod) => Outcome::Failed,
        () if task.spec.suspend => Outcome::Suspended,
        () if started && seconds.saturating_add_signed(CLOCK_SECONDS) >= placement.run_seconds => Outcome::TimeLimit,
        () if !started && is_late(task, placement, pod) => Outcome::StartTimeout,
        () => Outcome::Deleted,
    }
}

/// Whether somebody ended it. What a container exits with after that says nothing of its work; one that ended before, by
/// its own record, ended by itself.
pub fn was_stopped(pod: &Pod) -> bool {
    if pod.parting.by_itself {
        return false;
    }
    if !pod.deleting {
        return pod.gone && !pod.phase.is_terminal() && pod.finished.is_none();
    }
    let ended_before = |(finished, sent): (i64, i64)| {
        // What our own eyes saw running then may have ended just before; what ended long before has a clock that is wrong.
        finished < sent && (!pod.ran_on || finished >= sent - CLOCK_SECONDS)
    };
    !pod.finished.filter(|finished| *finished > 0).zip(pod.delete_sent).is_some_and(ended_before)
}

/// It did what it was to do, and nobody had to end it.
pub fn succeeded(pod: &Pod) -> bool {
    pod.exit_code == Some(0) && pod.phase != PodPhase::Failed && !was_stopped(pod)
}

/// Its node could not start it while there was time. One that has started after all, before anybody could end it, has run as
/// every other.
fn was_unable(pod: &Pod) -> bool {
    pod.parting.unable && !evidence::has_run(pod)
}

/// The one table of ends that are the node's doing, or the cluster's, and never the task's.
pub fn is_provider_fault(pod: &Pod) -> bool {
    match pod.reason.as_deref().unwrap_or_default() {
        _ if succeeded(pod) => false,
        _ if (pod.parting.drained && !pod.parting.by_itself) || was_unable(pod) => true,
        // Its kubelet would not have it.
        "InvalidNodeInfo" | "NodeAffinity" | "SMTAlignmentError" | "TaintToleration" | "TopologyAffinityError" => true,
        "UnexpectedAdmissionError" | "UnexpectedPredicateFailureType" | "UnknownReason" => true,
        reason if reason.starts_with("OutOf") => true,
        // Its kubelet ended it for the node's sake, or is not heard of.
        "NodeLost" | "NodeShutdown" | "Preempting" | "Shutdown" | "Terminated" => true,
        "Evicted" => !has_outgrown(pod),
        // A container that never was can't be found either: that is no fault of the node's.
        "ContainerStatusUnknown" if evidence::has_run(pod) => true,
        "DeadlineExceeded" | "OOMKilled" => false,
        reason @ ("StartError" | "ContainerCannotRun") if !was_stopped(pod) => {
            is_of_the_node(reason, pod.last_words.as_deref().unwrap_or_default())
        }
        // A controller ended it for the node's sake; or it failed with a broken device.
        _ => {
            if was_stopped(pod) {
                pod.parting.evicted || pod.disruption.as_deref().is_some_and(|reason| reason != EVICTED)
            } else {
                pod.parting.broken || pod.devices.iter().any(|device| device.healthy == Some(false))
            }
        }
    }
}

/// What runtimes say when a node can't give a container its devices, or when they do not get on with their work.
const RUNTIMES_OWN: [&str; 5] = [
    "CDI device injection failed",
    "context deadline exceeded",
    "failed to reserve container name",
    "nvidia-container-cli: detection error",
    "nvidia-container-cli: initialization error",
];
/// Where they repeat what a task or its image asks for: a program or a path may be called like one of the above.
const TASKS_OWN: [&str; 6] = ["exec: ", "exec /", "chdir", "find user", "mkdir", "mount"];

/// The same of what keeps a container from starting, by the reason and the words of its kubelet. Images, commands, Secrets and
/// ConfigMaps are the task's, and what nobody knows is too: or it would be tried again for ever.
pub fn is_of_the_node(reason: &str, message: &str) -> bool {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    match reason {
        // Its network, its runtime, its runtime class. The sandbox lives on the task's own memory.
        "FailedCreatePodSandBox" => !says(&["memory limit too low"]),
        // A volume that may be in one place alone is in another one.
        "FailedAttachVolume" => !says(&["Multi-Attach error"]),
        "FailedMount" => says(&["not found in the list of registered CSI drivers"]),
        "CreateContainerError" | "RunContainerError" | "StartError" | "ContainerCannotRun" => says(&RUNTIMES_OWN) && !says(&TASKS_OWN),
        _ => false,
    }
}

/// Whether its node could not start it by what Events say alone, and not by what its kubelet writes where nobody else may.
pub fn is_only_told(pod: &Pod) -> bool {
    was_unable(pod) && pod.hindrance.as_ref().is_none_or(|(reason, _)| TOLD_HINDRANCES.contains(&reason.as_str()))
}

/// Whether what this node could not do others could not do before it: then it is the task's doing, or its volume's, or it would
/// be tried for ever.
pub fn is_in_vain(before: &[Attempt], node: &str, pod: &Pod) -> bool {
    let Some((reason, _)) = pod.hindrance.as_ref().filter(|_| was_unable(pod)) else { return false };
    let faults = before.iter().rev().take_while(|attempt| attempt.outcome == Outcome::ProviderFault.name());
    let alike = |words: &'static str| {
        faults.take_while(move |attempt| attempt.message.as_deref().is_some_and(|message| message.starts_with(words)))
    };
    match reason.as_str() {
        "FailedAttachVolume" => alike("AttachVolume").zip(2..).any(|(attempt, tries)| attempt.node != node || tries == VOLUME_TRIES),
        "FailedCreatePodSandBox" => {
            let nodes: BTreeSet<&str> = alike("Failed to create pod sandbox").map(|attempt| attempt.node.as_str()).chain([node]).collect();
            nodes.len() >= SANDBOX_NODES
        }
        _ => false,
    }
}

/// Whether its node could not start it for a volume's sake.
fn waits_for_a_volume(pod: &Pod) -> bool {
    was_unable(pod) && pod.hindrance.as_ref().is_some_and(|(reason, _)| matches!(reason.as_str(), "FailedAttachVolume" | "FailedMount"))
}

/// The kubelet calls it an eviction too when the task itself outgrows its disk.
fn has_outgrown(pod: &Pod) -> bool {
    let words = [
        "exceeds the total limit of containers",
        "exceeded its local ephemeral storage limit",
        "Usage of EmptyDir volume",
        // The node was short of something, and this had more of it than it asked for.
        "has larger consumption of",
    ];
    pod.message.as_deref().is_some_and(|message| words.iter().any(|word| message.contains(word)))
}

/// Its time to start was over when it ended.
fn is_late(task: &Task, placement: &Placement, pod: &Pod) -> bool {
    pod.terminal.unwrap_or_default() + CLOCK_SECONDS >= placement.bound + place::start_timeout_seconds(task)
}

/// Whether the end of this worker is the end of all: one that fails ends the attempt, and so does the leader where the
/// leader decides.
pub fn ends_all(task: Option<&Task>, worker: usize, pod: &Pod) -> bool {
    let leads = task.and_then(|task| task.spec.gang.as_ref()).is_some_and(|gang| gang.success == GangSuccess::Leader);
    pod.is_over() && (!succeeded(pod) || (leads && worker == 0))
}

/// How the attempt ended, and the worker that decided it: the first that failed by itself, else the first that was ended.
fn of_attempt<'a>(
    task: &Task,
    placement: &Placement,
    workers: &[Option<&'a Pod>],
    seconds: &[u64],
    refused: bool,
) -> Option<(Outcome, usize, &'a Pod)> {
    let ended = || workers.iter().enumerate().filter_map(|(worker, pod)| pod.map(|pod| (worker, pod)));
    let leader = task.spec.gang.as_ref().is_some_and(|gang| gang.success == GangSuccess::Leader);
    if leader && let Some((worker, pod)) = ended().next().filter(|(worker, pod)| *worker == 0 && succeeded(pod)) {
        return Some((Outcome::Succeeded, worker, pod));
    }
    // What all of them had is the longest that one of them had.
    let seconds = seconds.iter().copied().max().unwrap_or_default();
    let of = |(worker, pod): (usize, &'a Pod)| (of_worker(task, placement, pod, seconds), worker, pod);
    let failed = || ended().filter(|(_, pod)| !succeeded(pod));
    let by_itself = failed().filter(|(_, pod)| !was_stopped(pod) || is_provider_fault(pod));
    if let Some(first) = by_itself.min_by_key(|(worker, pod)| (pod.terminal, *worker)) {
        return Some(of(first));
    }
    // Of those that were ended, who never started is the reason rather than who ran and waited for it.
    let stopped = failed().min_by_key(|(worker, pod)| (evidence::has_run(pod), pod.terminal, *worker));
    let late = stopped.is_none_or(|(_, pod)| is_late(task, placement, pod));
    if let Some(missing) = workers.iter().position(Option::is_none)
        && (task.spec.suspend || refused || late)
    {
        // Those that there are ran or were about to: the others never came.
        let came_late = if refused { Outcome::Refused } else { Outcome::StartTimeout };
        let outcome = if task.spec.suspend { Outcome::Suspended } else { came_late };
        return ended().next().map(|(_, pod)| (outcome, missing, pod));
    }
    stopped.or_else(|| ended().next()).map(of)
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
    let billed = evidence::billed(world, &workers, placement, Some(task));
    let seconds: Vec<u64> = billed.iter().map(|measured| measured.map_or(0, |measured| measured.seconds)).collect();
    let added = evidence::added(&workers, placement, &billed);
    let paid: Vec<u64> = seconds.iter().zip(added).map(|(ran, added)| ran + added).collect();
    let wall = paid.iter().copied().max().unwrap_or_default();
    let refused = world.refused(&work, attempt).cloned();
    let (outcome, worker, pod) = of_attempt(task, placement, &workers, &seconds, refused.is_some())?;
    let refused = refused.filter(|_| outcome == Outcome::Refused);
    let unfunded = account::ended_for(world, &work, attempt, pod).filter(|_| outcome == Outcome::Deleted);
    let outcome = if unfunded.is_some() { Outcome::Unfunded } else { outcome };
    let mut status = super::task::placed(task, placement, now);
    let in_vain = outcome == Outcome::ProviderFault && is_in_vain(&status.attempts, &placement.workers[worker].node, pod);
    let outcome = if in_vain { Outcome::StartTimeout } else { outcome };
    let started = workers.iter().map(|pod| pod.and_then(|pod| pod.first_running.or(pod.started.filter(|started| *started > 0))));
    if let Some(Some(started)) = started.collect::<Option<Vec<i64>>>().map(|all| all.into_iter().max()) {
        status::set(&mut status.conditions, STARTED, true, "Ran", "the container ran", task.generation, started);
    }
    if refused.is_some() {
        // Of refusals in a row one is enough: there are other attempts to be told of.
        status.attempts.pop_if(|last| last.outcome == outcome.name());
    }
    status.attempts.push(Attempt {
        index: i32::try_from(placement.attempt).unwrap_or(i32::MAX),
        node: placement.workers[worker].node.clone(),
        outcome: outcome.name().to_owned(),
        exit_code: pod.exit_code.filter(|_| !matches!(outcome, Outcome::StartTimeout | Outcome::Refused) && !was_unable(pod)),
        billed_seconds: wall.cast_signed(),
        evidence: billed[worker].map_or("None", |measured| evidence::name(measured.evidence)).to_owned(),
        message: refused.as_ref().map_or_else(|| last_words(pod), |refused| Some(refused.why.clone())),
        image_digest: image(pod),
    });
    if let Some(resolved) = &mut status.resolved {
        resolved.image = workers[0].and_then(image).or(resolved.image.take());
    }
    let surplus = status.attempts.len().saturating_sub(KEPT_ATTEMPTS);
    status.attempts.drain(..surplus);
    let before = status.usage.clone().unwrap_or_default();
    let gpu_seconds = placement.workers.iter().zip(&paid).map(|(place, seconds)| u64::from(place.devices) * seconds).sum::<u64>();
    let balance = world.works.get(&work);
    status.usage = Some(Usage {
        seconds: before.seconds + wall.cast_signed(),
        gpu_seconds: before.gpu_seconds + gpu_seconds.cast_signed(),
        gpu_utilization_percent: balance.and_then(|balance| balance.gpu_percent).and_then(|percent| i32::try_from(percent).ok()),
    });
    let digest = balance.and_then(|balance| balance.receipt.clone());
    // Where it stands on the chain comes later, and beside it.
    status.receipt = digest.map(|digest| Receipt { digest, root: None, transaction: None });
    // A volume that can't be attached is no better on another node.
    let blames = outcome == Outcome::ProviderFault && !pod.parting.drained && !waits_for_a_volume(pod);
    let fault = blames.then(|| (placement.workers[worker].node.clone(), evidence::ended_at(pod, placement, now), is_only_told(pod)));
    status.cost = cost(world, task, &placement.token);
    let why = refused.as_ref().map(|refused| refused.why.clone()).or(unfunded);
    let words = why.unwrap_or_else(|| words(task, outcome, worker, workers.len(), pod));
    conclude(task, &mut status, outcome, words, now);
    if let Some((node, at, by_events)) = fault
        && world.blamed.insert(work.clone(), attempt) != Some(attempt)
        && (!by_events || node::heeds(world, &node, &task.namespace, at))
    {
        node::blame(world, &node, at);
    }
    world.recalled.remove(&work);
    let rest = refused.map(|refused| pause_seconds(refused.times - 1)).or_else(|| rest_seconds(&status));
    if let Some(rest) = rest {
        world.resting.insert(work, now + rest);
    }
    Some(status)
}

fn image(pod: &Pod) -> Option<String> {
    pod.image_digest.clone().filter(|image| image.len() <= LONGEST_IMAGE)
}

fn last_words(pod: &Pod) -> Option<String> {
    let words = unable(pod).or(pod.last_words.as_ref()).or(pod.message.as_ref())?;
    let from = words.len().saturating_sub(4_000);
    let from = (from..words.len()).find(|&at| words.is_char_boundary(at)).unwrap_or_default();
    Some(words[from..].to_owned()).filter(|words| !words.is_empty())
}

/// Why its node could not start it, as far as that is still known.
fn unable(pod: &Pod) -> Option<&String> {
    pod.hindrance.as_ref().filter(|_| was_unable(pod)).map(|(_, message)| message)
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
        (Outcome::StartTimeout, _) if was_unable(pod) => {
            format!(
                "{} could not start {who} either: {}",
                pod.node.as_deref().unwrap_or("its node"),
                unable(pod).map_or("", String::as_str)
            )
        }
        (Outcome::StartTimeout, _) => format!("{who} did not start within {} s", place::start_timeout_seconds(task)),
        (Outcome::Suspended, _) => "it was suspended".to_owned(),
        (Outcome::ProviderFault, _) if was_unable(pod) => {
            let why = unable(pod).map(|why| format!(": {why}")).unwrap_or_default();
            format!("{} could not start {who} in time{why}", pod.node.as_deref().unwrap_or("its node"))
        }
        // There is no such program, or it may not be run: the runtime says which.
        (_, Some(_)) if matches!(pod.reason.as_deref(), Some("StartError" | "ContainerCannotRun")) => {
            format!("{who} could not be started: {}", pod.last_words.as_deref().unwrap_or("the runtime does not say why"))
        }
        (Outcome::Deleted, _) => format!("{} pod was deleted", if workers > 1 { format!("{who}'s") } else { "its".to_owned() }),
        (_, Some(code)) => {
            format!("{who} ended with exit code {code}{}", cause(pod).map(|cause| format!(" ({cause})")).unwrap_or_default())
        }
        _ => cause(pod).unwrap_or("it is not known why").to_owned(),
    }
}

/// Why it ended, in a word.
fn cause(pod: &Pod) -> Option<&str> {
    let fault = is_provider_fault(pod);
    let broken = || if was_stopped(pod) { pod.disruption.as_deref() } else { Some("DeviceUnhealthy") };
    match pod.reason.as_deref() {
        _ if fault && pod.parting.drained => Some("Drained"),
        None if fault => broken(),
        reason => reason,
    }
}

/// Over, or another attempt.
fn conclude(task: &Task, status: &mut ComputeTaskStatus, outcome: Outcome, words: String, now: i64) {
    let fails = matches!(outcome, Outcome::Failed | Outcome::TimeLimit | Outcome::StartTimeout);
    // Fewer attempts are kept than may fail.
    let failed = status.failed_attempts.unwrap_or_default() + i32::from(fails);
    status.failed_attempts = Some(failed).filter(|failed| *failed > 0);
    match outcome {
        Outcome::Succeeded => finish(task, status, true, "Succeeded", words, now),
        _ if fails && failed > task.spec.retries => finish(task, status, false, outcome.name(), words, now),
        Outcome::Suspended => {
            give_up(task, status);
            status.waiting_since = None;
            status::set(&mut status.conditions, RECONCILING, true, "Suspended", words, task.generation, now);
            status::phase(status, "Suspended", "Suspended");
        }
        Outcome::Refused => {
            give_up(task, status);
            // All of it is one wait.
            status.waiting_since = status::time(waiting::since(task, now));
            status.waiting = waiting::only(hindrance::REFUSED, &words);
            status::set(&mut status.conditions, RECONCILING, true, hindrance::REFUSED, words, task.generation, now);
            status::phase(status, "Waiting", hindrance::REFUSED);
        }
        _ => {
            give_up(task, status);
            status.waiting_since = status::time(now);
            let message = format!("another attempt follows: {words}");
            status::set(&mut status.conditions, RECONCILING, true, "Retrying", message, task.generation, now);
            status::phase(status, "Waiting", "Retrying");
        }
    }
}

/// It has no place any more, and nothing is held back for it.
pub fn give_up(task: &Task, status: &mut ComputeTaskStatus) {
    for kind in [RESERVED, PLACED, STARTED] {
        status::clear(&mut status.conditions, kind);
    }
    status.assignments.clear();
    super::task::summarize(task, status);
}

/// How long the next attempt waits: one fault may be chance, several in a row are not.
fn rest_seconds(status: &ComputeTaskStatus) -> Option<i64> {
    let faults = status.attempts.iter().rev().take_while(|attempt| attempt.outcome == Outcome::ProviderFault.name()).count();
    Some(pause_seconds(u32::try_from(faults.checked_sub(2)?).unwrap_or(u32::MAX)))
}

/// Each pause is twice as long as the one before.
pub fn pause_seconds(doublings: u32) -> i64 {
    (FIRST_REST_SECONDS << doublings.min(16)).min(LONGEST_REST_SECONDS)
}

pub fn finish(task: &Task, status: &mut ComputeTaskStatus, succeeded: bool, reason: &str, words: String, now: i64) {
    status.observed_generation = task.generation;
    status.waiting.clear();
    status.waiting_since = None;
    status::clear(&mut status.conditions, RECONCILING);
    status::set(&mut status.conditions, SUCCEEDED, succeeded, reason, words.clone(), task.generation, now);
    status::set(&mut status.conditions, FINISHED, true, reason, words, task.generation, now);
    status::phase(status, if succeeded { "Succeeded" } else { "Failed" }, reason);
}
