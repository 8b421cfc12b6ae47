//! An attempt that has its places: its pods are made, all of them start or none stays, and what ends one ends all.

use super::place::Wait;
use super::{Effect, Plan, Terms, account, budget, hindrance, network, outcome, parting, place, pod, standing, status, waiting};
use crate::world::World;
use crate::world::records::{Placement, Pod, PodPhase, Task};
use supercargo_crds::names::task_condition::{RECONCILING, STARTED};
use supercargo_crds::task_status::ComputeTaskStatus;
use supercargo_market::work::WorkId;

/// A start is told only when the end does not come within two seconds: the end tells it too. Of whole seconds the first may be
/// nearly over when it begins.
const QUIET_SECONDS: i64 = 3;
/// What is seen so soon is not late: whole seconds are read, and news take a moment.
const PROMPT_SECONDS: i64 = 5;
/// Whoever waits longer for its start is told what for, though nothing speaks against it.
const SLOW_SECONDS: i64 = 30;
/// What a kubelet says of a container that it is about to start.
const QUIET: [&str; 3] = ["", "ContainerCreating", "PodInitializing"];

/// What an attempt needs now; the status to write, if one should be.
pub fn step(world: &mut World, terms: &Terms, task: &Task, placement: &Placement, plan: &mut Plan, now: i64) -> Option<ComputeTaskStatus> {
    parting::lose(world, &task.work(), Some(task), placement, now);
    parting::drain(world, task, placement, now);
    parting::time_out(world, task, placement, now);
    if !standing::stands(world, &task.namespace) {
        world.grounds.todo.insert(task.namespace.clone());
    }
    let before = plan.effects.len();
    let (status, again) = look(world, terms, task, placement, plan, now);
    if plan.effects[before..].iter().any(|effect| matches!(effect, Effect::CreatePod { .. })) {
        world.asked.insert(task.work(), now);
        world.absent.remove(&task.work());
    }
    again.into_iter().for_each(|at| world.todo.alarms.set(at, task.work()));
    waiting::paced(world, task, status?, now)
}

/// The status, and when to look again.
fn look(
    world: &World,
    terms: &Terms,
    task: &Task,
    placement: &Placement,
    plan: &mut Plan,
    now: i64,
) -> (Option<ComputeTaskStatus>, Option<i64>) {
    let work = task.work();
    let workers = world.workers_of(&work, placement);
    if is_over(world, &work, placement, &workers) {
        return (None, None);
    }
    let started = started(world, task, placement, &workers);
    let timeout = place::start_timeout(world, task, placement);
    // No time passes for it when our clock is set forward: what is told of its start stays, and it is counted as that says now.
    let began = started.map(|started| world.clocks.as_it_is_now(started));
    let until = began.map_or(timeout, |began| began + placement.run_seconds.cast_signed());
    let until = account::recalled_at(world, &work, placement.attempt).map_or(until, |at| until.min(at));
    let ending = is_ending(Some(task), &workers);
    if ending || now >= until {
        // Who has not started may have, and nobody has heard of it yet: then nobody else is to end either.
        let waiting = |pod: &&Pod| !pod.is_over() && !pod.deleting && pod.phase != PodPhase::Running;
        let late: Vec<_> =
            workers.iter().copied().filter(|pod| !ending && started.is_none() && pod.as_ref().is_some_and(waiting)).collect();
        end(task, if late.is_empty() { &workers } else { &late }, plan);
        return (None, None);
    }
    let slow = placement.bound + SLOW_SECONDS;
    let patience = if now < slow { until.min(slow) } else { until };
    if workers.contains(&None) {
        // One attempt at a time: what is left of the last one has been told to end before the next one begins.
        let earlier = |pod: &Pod| pod.ours.as_ref().is_some_and(|ours| ours.attempt != placement.attempt);
        if let Some(left) = world.pods_of(&work).find(|pod| earlier(pod) && !pod.deleting && (pod.parting.lost || !pod.is_over())) {
            let why = || Wait::new("EarlierAttempt", format!("pod {} of the attempt before has not been told to end yet", left.name));
            return ((now >= slow).then(|| unmade(task, placement, why(), now)), Some(patience));
        }
        if let Some(why) = hindrance::refused(world, task, placement) {
            // It gives its places back, and the next attempt asks again: what there is of it waits for nobody.
            end(task, &workers, plan);
            return (Some(unmade(task, placement, why, now)), Some(until));
        }
        let leaving = workers.iter().flatten().any(|pod| pod.deleting);
        if standing::stands(world, &task.namespace) && !leaving {
            start(world, terms, task, placement, &workers, plan);
        }
        let why =
            hindrance::unsold(world, terms, task, placement).or_else(|| (now >= slow).then(|| missing(world, task, placement, &workers)));
        return (why.map(|why| unmade(task, placement, why, now)), Some(patience));
    }
    match started.zip(began) {
        None => {
            let why = trouble(placement, &workers).or_else(|| slowness(world, placement, &workers).filter(|_| now >= slow));
            (why.map(|why| starting(task, placement, why, now)), Some(patience))
        }
        Some((started, _)) if now < started + QUIET_SECONDS => (None, Some(until.min(started + QUIET_SECONDS))),
        Some((started, began)) => {
            let mut status = running(task, placement, started, began);
            let next = budget::watch(world, task, began, &mut status, plan, now);
            (Some(status), next.into_iter().chain([until]).min())
        }
    }
}

/// Makes the pods that are missing: the first before the others, with what is the task's own.
fn start(world: &World, terms: &Terms, task: &Task, placement: &Placement, workers: &[Option<&Pod>], plan: &mut Plan) {
    let Some(closed) = &world.grounds.closed else { return };
    let first = workers.iter().all(Option::is_none);
    let missing = (0..).zip(workers).filter(|(_, pod)| pod.is_none()).take(if first { 1 } else { usize::MAX });
    for (worker, _) in missing {
        let Some(site) = pod::Site::of(world, terms, task, &placement.workers[worker as usize].node) else { continue };
        let fitting = if first { network::own(terms, task, closed) } else { None };
        plan.effects.push(Effect::CreatePod { work: task.work(), fitting, pod: Box::new(pod::build(task, placement, worker, &site)) });
    }
}

/// When the last of them started, by our clock. Once that is told it stands.
fn started(world: &World, task: &Task, placement: &Placement, workers: &[Option<&Pod>]) -> Option<i64> {
    let told = told_started(task, placement);
    let one = |pod: &Pod| {
        let seen = pod.first_running.or(pod.started.filter(|started| *started > 0))?;
        Some(if told.is_none() { not_after(world, placement, pod, seen) } else { seen })
    };
    let seen = workers.iter().try_fold(i64::MIN, |latest, pod| Some(latest.max(pod.and_then(one)?)))?;
    Some(told.map_or(seen, |told| seen.min(told)))
}

/// Who is seen late to run has run since its own start, or its time limit and its budget would be counted from when we looked. Its
/// node has told the time since then: so far ahead of that node's clock ours is at the most, and nobody starts before it is bound.
fn not_after(world: &World, placement: &Placement, pod: &Pod, seen: i64) -> i64 {
    let node = pod.node.as_ref().and_then(|node| world.nodes.get(node)).filter(|node| node.ready);
    let heard = node.and_then(|node| Some((node.seen, node.heartbeat?)));
    let own = pod.started.filter(|started| *started > 0).zip(heard).filter(|(started, (_, told))| told >= started);
    let own = own.map(|(started, (heard, told))| (started + (heard - told)).max(placement.bound));
    own.filter(|own| *own < seen - PROMPT_SECONDS).unwrap_or(seen)
}

/// When it was told that all of them run. Whoever leads now may have seen them later, and no time is counted anew. What was
/// told before it was bound was told of another attempt.
pub fn told_started(task: &Task, placement: &Placement) -> Option<i64> {
    let conditions = &task.status.conditions;
    status::since(conditions, STARTED).filter(|told| status::is_true(conditions, STARTED) && *told >= placement.bound)
}

/// Whether what there is of it has to end: somebody said so, or a worker's end is the end of all.
pub fn is_ending(task: Option<&Task>, workers: &[Option<&Pod>]) -> bool {
    let over = workers.iter().enumerate().any(|(worker, pod)| pod.is_some_and(|pod| outcome::ends_all(task, worker, pod)));
    over || task.is_none_or(|task| task.spec.suspend) || workers.iter().flatten().any(|pod| pod.parting.drained)
}

/// Nothing of it runs, and nothing of it will: those that are missing are known not to be there. One that is on its way when
/// the others end would run for nobody.
pub fn is_over(world: &World, work: &WorkId, placement: &Placement, workers: &[Option<&Pod>]) -> bool {
    let there = || workers.iter().flatten();
    let all = || !workers.contains(&None) || world.absent.get(work) == Some(&placement.attempt);
    there().next().is_some() && there().all(|pod| pod.is_over()) && all()
}

fn end(task: &Task, workers: &[Option<&Pod>], plan: &mut Plan) {
    let grace = u32::try_from(task.spec.grace_period_seconds).unwrap_or_default();
    for pod in workers.iter().flatten().filter(|pod| !pod.is_over()) {
        // What has not started has nothing to put in order.
        let (grace, version) = if pod.phase == PodPhase::Running { (grace, None) } else { (0, pod.version.clone()) };
        plan.effects.extend(delete(pod, Some(grace), version));
    }
}

/// Ends a pod that is not ended already; with the grace that it was made with, unless another is given. For what a silent node
/// was told to end the API server waits until it is told not to.
pub fn delete(pod: &Pod, grace_seconds: Option<u32>, version: Option<String>) -> Option<Effect> {
    let forces = grace_seconds == Some(0) && pod.is_left_behind() && !pod.forced;
    (!pod.deleting || forces).then(|| Effect::DeletePod {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        grace_seconds,
        version,
    })
}

/// Its task is gone, or goes: what of it runs ends.
pub fn abandon(world: &World, work: &WorkId, plan: &mut Plan) {
    for pod in world.pods_of(work).filter(|pod| !pod.is_over()) {
        plan.effects.extend(delete(pod, None, None));
    }
}

fn running(task: &Task, placement: &Placement, started: i64, began: i64) -> ComputeTaskStatus {
    let mut status = super::task::placed(task, placement, started);
    let words =
        if placement.workers.len() > 1 { format!("all {} workers run", placement.workers.len()) } else { "the container runs".to_owned() };
    status::set(&mut status.conditions, STARTED, true, "Running", words, task.generation, started);
    status::clear(&mut status.conditions, RECONCILING);
    status.waiting_since = None;
    if let Some(resolved) = &mut status.resolved {
        resolved.deadline = status::time(began + placement.run_seconds.cast_signed());
    }
    status::phase(&mut status, "Running", "Running");
    status
}

/// Its pods can't be made: why, in the words of whoever says so.
fn unmade(task: &Task, placement: &Placement, why: Wait, now: i64) -> ComputeTaskStatus {
    let mut status = super::task::placed(task, placement, now);
    status.waiting = waiting::only(&why.reason, &why.example);
    // It waits for a place again: the time until then counts too.
    status.waiting_since = status::time(waiting::since(task, now));
    status::set(&mut status.conditions, STARTED, false, &why.reason, why.example, task.generation, now);
    status::set(&mut status.conditions, RECONCILING, true, &why.reason, "its pod can not be made", task.generation, now);
    status::phase(&mut status, "Starting", &why.reason);
    status
}

/// Nobody refuses its pods, and all the same not all of them are there.
fn missing(world: &World, task: &Task, placement: &Placement, workers: &[Option<&Pod>]) -> Wait {
    let leaving = workers.iter().flatten().find(|pod| pod.deleting);
    let absent = || workers.iter().zip(&placement.workers).find(|(pod, _)| pod.is_none()).map_or("", |(_, place)| &place.pod);
    match leaving {
        Some(pod) => Wait::new("PodLeaves", format!("pod {} was told to end, and has not ended yet", pod.name)),
        None if !standing::stands(world, &task.namespace) => {
            Wait::new("NamespaceOpen", format!("what closes namespace {} to others is not there yet", task.namespace))
        }
        None => Wait::new("PodMissing", format!("the API server was asked for pod {}, and has not answered yet", absent())),
    }
}

/// What its kubelet says keeps it from starting.
pub fn obstacle(pod: &Pod) -> Option<&(String, String)> {
    pod.waiting.as_ref().filter(|(reason, _)| !QUIET.contains(&reason.as_str())).or(pod.hindrance.as_ref())
}

/// Which worker does not start, and why.
type Why = (usize, Wait);

/// It has its places and does not start: why, in the words of its kubelet, or of kube-scheduler where that binds it.
fn trouble(placement: &Placement, workers: &[Option<&Pod>]) -> Option<Why> {
    let waits = |pod: &Pod| obstacle(pod).or_else(|| pod.unbound.as_ref().filter(|_| pod.node.is_none())).cloned();
    let (worker, (reason, message)) = workers.iter().enumerate().find_map(|(worker, pod)| Some((worker, waits((*pod)?)?)))?;
    let message = if message.is_empty() { format!("{} says {reason}", placement.workers[worker].node) } else { message };
    Some((worker, Wait::new(&reason, message)))
}

/// Nobody says anything against it, and it takes its time all the same.
fn slowness(world: &World, placement: &Placement, workers: &[Option<&Pod>]) -> Option<Why> {
    let (worker, pod) =
        workers.iter().enumerate().find_map(|(worker, pod)| Some((worker, pod.filter(|pod| pod.first_running.is_none())?)))?;
    let node = &placement.workers[worker].node;
    let ready = world.nodes.get(node).is_some_and(|node| node.ready);
    let wait = match () {
        () if !ready => Wait::new("NodeNotReady", format!("nothing is heard of {node}")),
        () if pod.node.is_none() => Wait::new("NotBound", format!("kube-scheduler has not bound it to {node} yet")),
        () => Wait::new(QUIET[1], format!("{node} is still pulling its image or making its container")),
    };
    Some((worker, wait))
}

fn starting(task: &Task, placement: &Placement, (worker, why): Why, now: i64) -> ComputeTaskStatus {
    let mut status = super::task::placed(task, placement, now);
    status.waiting = waiting::only(&why.reason, &why.example);
    status::set(&mut status.conditions, STARTED, false, &why.reason, why.example, task.generation, now);
    let words =
        if placement.workers.len() > 1 { format!("worker {worker} does not start") } else { "the container does not start".to_owned() };
    status::set(&mut status.conditions, RECONCILING, true, &why.reason, words, task.generation, now);
    status::phase(&mut status, "Starting", &why.reason);
    status
}
