//! The life of a task: wait, reserve, place, start, run, end, retry. Conditions say where it stands; each is written
//! when a person or a program could act on it, and not before.

use super::place::{self, Wait};
use super::{Effect, Plan, evidence, pod, status};
use crate::world::World;
use crate::world::records::{Placement, Pod, PodPhase, Task};
use std::collections::BTreeSet;
use supercargo_crds::common::Money;
use supercargo_crds::names::task_condition::{FINISHED, PLACED, RECONCILING, RESERVED, STALLED, STARTED, SUCCEEDED};
use supercargo_crds::task_status::{Assignment, Attempt, ComputeTaskStatus, Cost, Usage, Waiting};
use supercargo_crds::validate;
use supercargo_ledger::Posting;
use supercargo_market::placement::{Offer, Tenant};

/// A start is told only when the end does not come at once: the end tells it too.
const QUIET_SECONDS: i64 = 2;
/// Reasons for waiting are written at most so often a task, but for the first.
const REASONS_SECONDS: i64 = 60;
/// A refusal by the books is asked again after so long.
const REFUSED_SECONDS: i64 = 5;
const KEPT_ATTEMPTS: usize = 10;

pub fn plan(world: &mut World, plan: &mut Plan, postings: &mut Vec<Posting>, now: i64) {
    let mut offers = world.offers();
    let mut waiting: Vec<Task> = world.tasks.values().filter(|task| !task.deleting).cloned().collect();
    // Within an escrow the higher priority first, then the older, then the name: the same order every time.
    waiting.sort_by(|one, two| {
        let rank = |task: &Task| (-task.spec.priority, task.created, task.uid.clone());
        rank(one).cmp(&rank(two))
    });
    for task in waiting {
        let step = step(world, &mut offers, &task, plan, postings, now);
        if let Some(status) = step
            && status != task.status
        {
            plan.effects.push(Effect::WriteTask { namespace: task.namespace.clone(), name: task.name.clone(), status: Box::new(status) });
        }
    }
}

/// What one task needs; the status to write, if one should be.
fn step(
    world: &mut World,
    offers: &mut [Offer],
    task: &Task,
    plan: &mut Plan,
    postings: &mut Vec<Posting>,
    now: i64,
) -> Option<ComputeTaskStatus> {
    if status::is_true(&task.status.conditions, FINISHED) {
        return finished(world, task, plan, now);
    }
    let work = task.work();
    if let Some(placement) = world.placement_of(&work).cloned() {
        return match world.pod_of(&work, placement.attempt) {
            Some(pod) => attempt(task, &placement, &pod.clone(), plan, now),
            None => {
                start(world, task, &placement, plan);
                None
            }
        };
    }
    if let Some(ended) = ended(world, task, now) {
        return Some(ended);
    }
    wait_or_place(world, offers, task, plan, postings, now)
}

/// The attempt has its reservation: now its pod.
fn start(world: &World, task: &Task, placement: &Placement, plan: &mut Plan) {
    let pool = world.pools.get(&placement.pool).map(|pool| &pool.spec);
    plan.effects.push(Effect::CreatePod(Box::new(pod::build(task, placement, pool))));
}

/// An attempt whose pod exists and is not charged yet.
fn attempt(task: &Task, placement: &Placement, pod: &Pod, plan: &mut Plan, now: i64) -> Option<ComputeTaskStatus> {
    if pod.is_over() {
        return None;
    }
    let grace = u32::try_from(task.spec.grace_period_seconds).unwrap_or_default();
    let mut end = |grace_seconds| {
        if !pod.deleting {
            plan.effects.push(Effect::DeletePod {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                grace_seconds,
            });
        }
    };
    if task.spec.suspend {
        end(grace);
        return None;
    }
    if pod.phase == PodPhase::Running {
        let started = pod.first_running.unwrap_or(now);
        let until = started + placement.run_seconds.cast_signed();
        if now >= until {
            end(grace);
        }
        plan.wake_at(until.max(now + 1));
        if now < started + QUIET_SECONDS {
            plan.wake_at(started + QUIET_SECONDS);
            return None;
        }
        return Some(running(task, placement, started));
    }
    let until = placement.bound + task.spec.start_timeout_seconds;
    if now >= until {
        end(0);
        return None;
    }
    plan.wake_at(until);
    let trouble =
        pod.waiting.as_ref().filter(|(reason, _)| !reason.is_empty() && reason != "ContainerCreating" && reason != "PodInitializing");
    trouble.map(|(reason, message)| starting(task, placement, reason, message, now))
}

fn running(task: &Task, placement: &Placement, started: i64) -> ComputeTaskStatus {
    let mut status = placed(task, placement, started);
    status::set(&mut status.conditions, STARTED, true, "Running", "the container runs", task.generation, started);
    status::clear(&mut status.conditions, RECONCILING);
    status::phase(&mut status, "Running", "Running");
    status
}

/// It has its place and does not start: why, in the kubelet's words.
fn starting(task: &Task, placement: &Placement, reason: &str, message: &str, now: i64) -> ComputeTaskStatus {
    let mut status = placed(task, placement, now);
    let message = if message.is_empty() { format!("{} says {reason}", placement.node) } else { message.to_owned() };
    status::set(&mut status.conditions, STARTED, false, reason, message, task.generation, now);
    status::set(&mut status.conditions, RECONCILING, true, reason, "the container does not start", task.generation, now);
    status::phase(&mut status, "Starting", reason);
    status
}

/// What is true from the placement on.
fn placed(task: &Task, placement: &Placement, now: i64) -> ComputeTaskStatus {
    let mut status = task.status.clone();
    status.observed_generation = task.generation;
    status.waiting.clear();
    status::clear(&mut status.conditions, STALLED);
    let (reserved, placed) = ("money is held back for it".to_owned(), format!("on {}: {}", placement.node, placement.because));
    status::set(&mut status.conditions, RESERVED, true, "Reserved", reserved, task.generation, now);
    status::set(&mut status.conditions, PLACED, true, "Placed", placed, task.generation, now);
    status.assignments = vec![assignment(placement)];
    status
}

fn assignment(placement: &Placement) -> Assignment {
    Assignment {
        worker: 0,
        node: placement.node.clone(),
        pool: placement.pool.clone(),
        provider: placement.provider.clone(),
        pod: placement.pod.clone(),
        because: placement.because.clone(),
        price_per_hour: Money(placement.price_per_hour),
        cpu: format!("{}m", placement.cpu_millis),
        memory: placement.memory_bytes.to_string(),
        rate_card: placement.rate_card.clone(),
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Succeeded,
    Failed,
    ProviderFault,
    Deleted,
    Suspended,
    TimeLimit,
    StartTimeout,
}

impl Outcome {
    fn name(self) -> &'static str {
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

/// The one table of whose doing an end was.
fn outcome(task: &Task, placement: &Placement, pod: &Pod, seconds: u64) -> Outcome {
    let started = evidence::has_run(pod);
    match () {
        () if evidence::is_provider_fault(pod) => Outcome::ProviderFault,
        () if pod.exit_code == Some(0) && pod.phase != PodPhase::Failed => Outcome::Succeeded,
        () if pod.reason.as_deref() == Some("DeadlineExceeded") && started => Outcome::TimeLimit,
        () if pod.reason.as_deref() == Some("DeadlineExceeded") => Outcome::StartTimeout,
        () if pod.deleting && task.spec.suspend => Outcome::Suspended,
        () if pod.deleting && started && seconds >= placement.run_seconds => Outcome::TimeLimit,
        () if pod.deleting && !started && pod.terminal.unwrap_or_default() >= placement.bound + task.spec.start_timeout_seconds => {
            Outcome::StartTimeout
        }
        () if pod.deleting || pod.gone => Outcome::Deleted,
        () => Outcome::Failed,
    }
}

/// The latest attempt is charged and its pod is still there: what became of the task. `None` when that is told already,
/// or when there is no such attempt.
fn ended(world: &World, task: &Task, now: i64) -> Option<ComputeTaskStatus> {
    let work = task.work();
    let placement = world.latest.get(&work)?;
    if !world.is_charged(&work, placement.attempt) || told(task, placement.attempt) {
        return None;
    }
    let pod = world.pod_of(&work, placement.attempt)?;
    let billed = evidence::billed(pod, placement);
    let outcome = outcome(task, placement, pod, billed.seconds);
    let mut status = placed(task, placement, now);
    let started = pod.first_running.or(pod.started.filter(|started| *started > 0));
    if started.is_some() {
        status::set(&mut status.conditions, STARTED, true, "Ran", "the container ran", task.generation, started.unwrap_or(now));
    }
    status.attempts.push(Attempt {
        index: i32::try_from(placement.attempt).unwrap_or(i32::MAX),
        node: placement.node.clone(),
        outcome: outcome.name().to_owned(),
        exit_code: pod.exit_code,
        billed_seconds: billed.seconds.cast_signed(),
        evidence: evidence::evidence_name(billed.evidence).to_owned(),
        message: last_words(pod),
        image_digest: pod.image_digest.clone(),
    });
    let surplus = status.attempts.len().saturating_sub(KEPT_ATTEMPTS);
    status.attempts.drain(..surplus);
    usage_and_cost(world, task, placement, billed.seconds, &mut status);
    conclude(task, &mut status, outcome, pod, now);
    Some(status)
}

fn told(task: &Task, attempt: u32) -> bool {
    task.status.attempts.iter().any(|known| u32::try_from(known.index) == Ok(attempt))
}

fn last_words(pod: &Pod) -> Option<String> {
    let words = pod.last_words.clone().or_else(|| pod.message.clone())?;
    let from = words.len().saturating_sub(4_000);
    let from = (from..words.len()).find(|&at| words.is_char_boundary(at)).unwrap_or_default();
    Some(words[from..].to_owned()).filter(|words| !words.is_empty())
}

fn usage_and_cost(world: &World, task: &Task, placement: &Placement, seconds: u64, status: &mut ComputeTaskStatus) {
    let before = status.usage.clone().unwrap_or(Usage { seconds: 0, gpu_seconds: 0 });
    let seconds = seconds.cast_signed();
    status.usage =
        Some(Usage { seconds: before.seconds + seconds, gpu_seconds: before.gpu_seconds + seconds * i64::from(placement.devices) });
    status.cost = cost(world, task, &placement.token);
}

fn cost(world: &World, task: &Task, token: &str) -> Option<Cost> {
    let balance = world.works.get(&task.work())?;
    Some(Cost {
        token: token.to_owned(),
        reserved: Money(balance.reserved),
        charged: Money(balance.charged),
        settled: Money(balance.settled),
        transaction: balance.transaction.clone(),
    })
}

/// Over, or another attempt.
fn conclude(task: &Task, status: &mut ComputeTaskStatus, outcome: Outcome, pod: &Pod, now: i64) {
    let counted =
        status.attempts.iter().filter(|attempt| ["Failed", "TimeLimit", "StartTimeout"].contains(&attempt.outcome.as_str())).count();
    let retries = usize::try_from(task.spec.retries).unwrap_or_default();
    let words = match (outcome, pod.exit_code) {
        (Outcome::Succeeded, _) => "it ended with exit code 0".to_owned(),
        (Outcome::TimeLimit, _) => "it was ended at its time limit, or before its budget would have been passed".to_owned(),
        (Outcome::StartTimeout, _) => format!("it did not start within {} s", task.spec.start_timeout_seconds),
        (Outcome::Suspended, _) => "it was suspended".to_owned(),
        (_, Some(code)) => {
            format!("it ended with exit code {code}{}", pod.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default())
        }
        _ => pod.reason.clone().unwrap_or_else(|| "its pod was deleted".to_owned()),
    };
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
            status::set(
                &mut status.conditions,
                RECONCILING,
                true,
                "Retrying",
                format!("another attempt follows: {words}"),
                task.generation,
                now,
            );
            status::phase(status, "Waiting", "Retrying");
        }
    }
}

fn finish(task: &Task, status: &mut ComputeTaskStatus, succeeded: bool, reason: &str, words: String, now: i64) {
    status.observed_generation = task.generation;
    status.waiting.clear();
    status::clear(&mut status.conditions, RECONCILING);
    status::set(&mut status.conditions, SUCCEEDED, succeeded, reason, words.clone(), task.generation, now);
    status::set(&mut status.conditions, FINISHED, true, reason, words, task.generation, now);
    status::phase(status, if succeeded { "Succeeded" } else { "Failed" }, reason);
}

/// Finished: what was paid since, and when it may go.
fn finished(world: &World, task: &Task, plan: &mut Plan, now: i64) -> Option<ComputeTaskStatus> {
    if let Some(ttl) = task.spec.ttl_seconds_after_finished {
        let until = status::since(&task.status.conditions, FINISHED).unwrap_or(now) + ttl;
        let pod_left = world.pods.values().any(|pod| pod.has_finalizer && pod.ours.as_ref().is_some_and(|ours| ours.work == task.work()));
        if now >= until && !pod_left {
            plan.effects.push(Effect::DeleteTask { namespace: task.namespace.clone(), name: task.name.clone(), uid: task.uid.clone() });
            return None;
        }
        plan.wake_at(until.max(now + 1));
    }
    let token = task.status.cost.as_ref()?.token.clone();
    let cost = cost(world, task, &token)?;
    // One write more, later: when all of it is paid.
    let before = task.status.cost.as_ref()?;
    (cost != *before && cost.settled == cost.charged).then(|| ComputeTaskStatus { cost: Some(cost), ..task.status.clone() })
}

/// Nothing is held back for it: a place, or the reasons why not.
fn wait_or_place(
    world: &mut World,
    offers: &mut [Offer],
    task: &Task,
    plan: &mut Plan,
    postings: &mut Vec<Posting>,
    now: i64,
) -> Option<ComputeTaskStatus> {
    let findings = findings(task);
    if !findings.is_empty() {
        return Some(stalled(task, "Invalid", &findings.join("; "), now));
    }
    if task.spec.suspend {
        return Some(suspended(task, now));
    }
    if let Some(limit) = task.spec.queue_timeout_seconds {
        let until = task.created + limit;
        if now >= until {
            let mut status = task.status.clone();
            finish(task, &mut status, false, "QueueTimeout", format!("it found no place within {limit} s"), now);
            return Some(status);
        }
        plan.wake_at(until);
    }
    if let Some((why, at)) = world.refusals.get(&task.work())
        && now < at + REFUSED_SECONDS
    {
        let wait = Wait::new("EscrowTooLow", why.clone());
        plan.wake_at(at + REFUSED_SECONDS);
        return waits(world, task, vec![wait], now);
    }
    match place::place(world, offers, task, now) {
        Ok((posting, placement)) => {
            take(offers, task, &posting, &placement);
            postings.push(posting);
            None
        }
        Err(reasons) => waits(world, task, reasons, now),
    }
}

/// What one placement leaves for the next in the same pass.
fn take(offers: &mut [Offer], task: &Task, posting: &Posting, placement: &Placement) {
    for offer in offers.iter_mut().filter(|offer| offer.node == placement.node) {
        if offer.resource_name == placement.resource_name {
            offer.free_devices = offer.free_devices.saturating_sub(placement.devices);
        }
        offer.free_cpu_millis = offer.free_cpu_millis.saturating_sub(placement.cpu_millis);
        offer.free_memory_bytes = offer.free_memory_bytes.saturating_sub(placement.memory_bytes);
        offer.free_pods = offer.free_pods.saturating_sub(1);
        if let Posting::Reserve { funding, .. } = posting {
            let tenancy = task.spec.placement.tenancy.name().to_owned();
            offer.tenants.push(Tenant { funding: funding.clone(), namespace: task.namespace.clone(), tenancy });
        }
    }
}

/// What the gate would have said, and what this version can't do: a person must act.
fn findings(task: &Task) -> Vec<String> {
    let mut object = supercargo_crds::ComputeTask::new(&task.name, task.spec.clone());
    object.metadata.namespace = Some(task.namespace.clone());
    let mut findings: Vec<String> = validate::task(&object).iter().map(ToString::to_string).collect();
    if task.spec.gang.as_ref().is_some_and(|gang| gang.workers > 1) {
        findings.push("spec.gang.workers: this version places tasks of one worker".to_owned());
    }
    findings
}

fn stalled(task: &Task, reason: &str, message: &str, now: i64) -> ComputeTaskStatus {
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
    status::clear(&mut status.conditions, STALLED);
    status::set(&mut status.conditions, RECONCILING, true, "Suspended", "it runs when spec.suspend is set to false", task.generation, now);
    status::phase(&mut status, "Suspended", "Suspended");
    status
}

/// The reasons, written when their set changes and not too often.
fn waits(world: &mut World, task: &Task, reasons: Vec<Wait>, now: i64) -> Option<ComputeTaskStatus> {
    let names = |all: &[Waiting]| all.iter().map(|one| one.reason.clone()).collect::<BTreeSet<_>>();
    let waiting: Vec<Waiting> =
        reasons.into_iter().map(|wait| Waiting { reason: wait.reason, nodes: wait.nodes, example: clipped(&wait.example) }).collect();
    let first = task.status.waiting.is_empty() || task.status.observed_generation != task.generation;
    let same = names(&waiting) == names(&task.status.waiting);
    let recent = world.told.get(&task.work()).is_some_and(|told| now < told + REASONS_SECONDS);
    if !first && (same || recent) {
        return None;
    }
    world.told.insert(task.work(), now);
    let mut status = task.status.clone();
    status.observed_generation = task.generation;
    status::clear(&mut status.conditions, STALLED);
    let message = waiting.iter().map(|one| {
        if one.nodes > 0 { format!("{} nodes: {} (for example {})", one.nodes, one.reason, one.example) } else { one.example.clone() }
    });
    let message = message.collect::<Vec<_>>().join("; ");
    let reason = waiting.first().map_or("Waiting", |one| one.reason.as_str()).to_owned();
    status::set(&mut status.conditions, RECONCILING, true, &reason, message, task.generation, now);
    status::phase(&mut status, "Waiting", &reason);
    status.waiting = waiting;
    Some(status)
}

fn clipped(text: &str) -> String {
    text.chars().take(250).collect()
}
