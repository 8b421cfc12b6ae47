//! The life of a task: wait, reserve, place, start, run, end, retry. Conditions say where it stands; each is written
//! when a person or a program could act on it, and not before.

use super::{Booking, Effect, Plan, Terms, attempt, evidence, hindrance, note, outcome, parting, place, pod, status, waiting};
use crate::world::World;
use crate::world::records::{Place, Placement, Task};
use supercargo_crds::common::Money;
use supercargo_crds::names::task_condition::{FINISHED, PLACED, RESERVED, STALLED};
use supercargo_crds::task_status::{Assignment, ComputeTaskStatus, Receipt, Resolved};
use supercargo_ledger::Posting;
use supercargo_market::work::WorkId;

/// What is held back for pods that were never made is given back when it is sure that none is on its way: a refusal is an
/// answer, and silence is none.
const ON_ITS_WAY_SECONDS: i64 = 60;
const REFUSED_SECONDS: i64 = 1;
/// A pass that finds more than this to do leaves the rest to the next one.
const MOST_EFFECTS: usize = 256;
/// So often a pass asks the market: a place that somebody could not pay for goes to the next.
const ROUNDS: usize = 8;

/// Every work that something was said of, and the market with all who wait.
pub fn plan(world: &mut World, terms: &Terms, plan: &mut Plan, bookings: &mut Vec<Booking>, now: i64) {
    while let Some(work) = world.todo.alarms.pop_due(now) {
        world.todo.works.push(work);
    }
    let (mut busy, mut waiting) = (Vec::new(), Vec::new());
    let most = plan.effects.len() + MOST_EFFECTS;
    for _ in 0..ROUNDS {
        while plan.effects.len() < most
            && let Some(work) = world.todo.works.pop()
        {
            // What was done is seen only when the world shows it: until then it is found to do again.
            if step(world, terms, &work, plan, bookings, now) {
                busy.push(work);
            }
        }
        if !place::assign(world, bookings, &mut busy, &mut waiting, now) && world.todo.works.is_empty() {
            break;
        }
    }
    waiting.into_iter().for_each(|work| world.todo.works.push(work));
    if !world.todo.works.is_empty() {
        plan.wake_at(now);
    }
    busy.into_iter().for_each(|work| world.todo.works.push(work));
    plan.wake_at_next(world.todo.alarms.next());
}

/// What one work needs. Whether it is anything.
fn step(world: &mut World, terms: &Terms, work: &WorkId, plan: &mut Plan, bookings: &mut Vec<Booking>, now: i64) -> bool {
    let before = plan.effects.len() + bookings.len();
    let task = world.task_of(work).cloned();
    if let Some(why) = world.unread.get(work) {
        let lives = task.as_deref().filter(|task| !task.deleting && !status::is_true(&task.status.conditions, FINISHED));
        lives.into_iter().for_each(|task| tell(task, waiting::stalled(task, "BooksUnreadable", why, now), plan));
        return plan.effects.len() + bookings.len() > before;
    }
    let lives = task.as_deref().filter(|task| !task.deleting);
    let status = match lives {
        Some(task) => advance(world, terms, task, plan, bookings, now),
        None => {
            abandon(world, work, plan, now);
            None
        }
    };
    evidence::plan(world, work, terms, plan, bookings, now);
    let goes_on = lives.filter(|task| !status::is_true(&task.status.conditions, FINISHED));
    give_back(world, terms, work, goes_on, plan, bookings, now);
    if let (Some(task), Some(status)) = (lives, status) {
        tell(task, status, plan);
    }
    pod::plan(world, work, lives, plan);
    if task.is_none() && world.pods_of(work).next().is_none() && !world.reservations.contains_key(work) {
        world.forget(work);
    }
    plan.effects.len() + bookings.len() > before
}

fn tell(task: &Task, status: ComputeTaskStatus, plan: &mut Plan) {
    if status != task.status {
        let note = note::on_task(task, &status).map(Box::new);
        let (namespace, name, uid) = (task.namespace.clone(), task.name.clone(), task.uid.to_string());
        plan.effects.push(Effect::WriteTask { namespace, name, uid, status: Box::new(status), note });
    }
}

/// What still runs for nobody ends. What it runs in is its own until the books have its end.
fn abandon(world: &mut World, work: &WorkId, plan: &mut Plan, now: i64) {
    if let Some(placement) = world.reservations.get(work).map(|reservation| reservation.placement.clone()) {
        world.market.stop(work);
        parting::lose(world, work, None, &placement, now);
        attempt::abandon(world, work, plan);
    } else {
        world.market.forget(work);
    }
}

/// The status to write, if one should be.
fn advance(
    world: &mut World,
    terms: &Terms,
    task: &Task,
    plan: &mut Plan,
    bookings: &mut Vec<Booking>,
    now: i64,
) -> Option<ComputeTaskStatus> {
    let work = task.work();
    if status::is_true(&task.status.conditions, FINISHED) {
        return finished(world, task, plan, now);
    }
    if let Some(placement) = world.reservations.get(&work).map(|reservation| reservation.placement.clone()) {
        place::extend(world, task, bookings);
        return attempt::step(world, terms, task, &placement, plan, now);
    }
    if let Some(ended) = outcome::ended(world, task, now) {
        return Some(ended);
    }
    let silent = world.market.decision(&work).is_some_and(|decision| place::is_stale(decision, now));
    if silent {
        world.market.undo(&work);
    }
    if !task.spec.suspend && task.findings.is_empty() && place::reserve(world, &work, bookings) {
        return None;
    }
    let waits = waiting::step(world, terms, task, now);
    if waits.is_none() && silent { waiting::told(world, task, vec![place::books_are_silent()], now) } else { waits }
}

/// An attempt that has no pod and will have none gives back what is held for it; one that lacks some ends without them. That
/// we heard of none says nothing: the API server may have made one and have been away since, so it is asked by name first.
fn give_back(world: &mut World, terms: &Terms, work: &WorkId, task: Option<&Task>, plan: &mut Plan, bookings: &mut Vec<Booking>, now: i64) {
    let Some(reservation) = world.reservations.get(work) else { return };
    let placement = &reservation.placement;
    let workers = world.workers_of(work, placement);
    let (none, missing) = (workers.iter().all(Option::is_none), workers.contains(&None));
    if !missing || world.absent.get(work) == Some(&placement.attempt) && !none {
        return;
    }
    let late = |task: &Task| now >= place::start_timeout(world, task, placement);
    let unsold = |task: &Task| none && hindrance::unsold(world, terms, task, placement).is_some();
    let hindered = |task: &Task| late(task) || hindrance::refused(world, task, placement).is_some() || unsold(task);
    let over = attempt::is_ending(task, &workers) || task.is_some_and(hindered);
    let (refused, asked) = (world.refused(work, placement.attempt), world.asked.get(work).copied());
    let is_refused = |place: &Place| refused.is_some_and(|refused| refused.pods.contains(&place.pod));
    // Whoever led before may have asked for what this one did not.
    let unasked = asked.is_none() && world.led_since <= placement.bound;
    // The first is asked for alone.
    let mut wanted = workers.iter().zip(&placement.workers).take(if none { 1 } else { usize::MAX });
    let answered = unasked || wanted.all(|(pod, place)| pod.is_some() || is_refused(place));
    let patience = if answered { REFUSED_SECONDS } else { ON_ITS_WAY_SECONDS };
    let sure = asked.unwrap_or(world.led_since).max(placement.bound) + patience;
    let refused = refused.map(|refused| refused.times);
    match (over, now >= sure) {
        (true, true) if none && world.absent.get(work) == Some(&placement.attempt) => {
            bookings.push(Booking::Post(Posting::Release { work: work.clone() }));
            if let Some(times) = refused {
                let until = world.resting.entry(work.clone()).or_default();
                *until = if *until > now { *until } else { now + outcome::pause_seconds(times - 1) };
            }
        }
        (true, true) => plan.effects.push(Effect::FindPods {
            work: work.clone(),
            attempt: placement.attempt,
            namespace: placement.namespace.clone(),
            names: placement.workers.iter().zip(&workers).filter(|(_, pod)| pod.is_none()).map(|(place, _)| place.pod.clone()).collect(),
            at: now,
        }),
        (true, false) => world.todo.alarms.set(sure, work.clone()),
        (false, _) => {}
    }
}

/// What is true from the placement on.
pub fn placed(task: &Task, placement: &Placement, now: i64) -> ComputeTaskStatus {
    let mut status = task.status.clone();
    status.observed_generation = task.generation;
    status.waiting.clear();
    status::clear(&mut status.conditions, STALLED);
    let reserved = "money is held back for it".to_owned();
    let first = &placement.workers[0];
    let words = match placement.workers.len() {
        1 => format!("on {}: {}", first.node, first.because),
        count => format!("{count} workers, the first on {}: {}", first.node, first.because),
    };
    status::set(&mut status.conditions, RESERVED, true, "Reserved", reserved, task.generation, now);
    status::set(&mut status.conditions, PLACED, true, "Placed", words, task.generation, now);
    status.assignments = (0..).zip(&placement.workers).map(|(worker, place)| assignment(worker, place)).collect();
    summarize(task, &mut status);
    let (namespace, name) = &task.payer;
    status.resolved = Some(Resolved {
        escrow: Some(format!("{namespace}/{name}")),
        cpu: Some(format!("{}m", first.cpu_millis)),
        memory: Some(first.memory_bytes.to_string()),
        ephemeral_storage: Some(first.storage_bytes.to_string()),
        start_timeout_seconds: Some(place::start_timeout_seconds(task)),
        ..status.resolved.take().unwrap_or_default()
    });
    status
}

/// What people see in columns.
pub fn summarize(task: &Task, status: &mut ComputeTaskStatus) {
    status.summarize(task.spec.resources.gpu.count, i32::try_from(place::workers(task)).unwrap_or(i32::MAX));
}

fn assignment(worker: i32, place: &Place) -> Assignment {
    Assignment {
        worker,
        node: place.node.clone(),
        pool: place.pool.clone(),
        provider: place.provider.clone(),
        pod: place.pod.clone(),
        because: place.because.clone(),
        price_per_hour: Money(place.price_per_hour),
        cpu: format!("{}m", place.cpu_millis),
        memory: place.memory_bytes.to_string(),
        rate_card: place.rate_card.clone(),
    }
}

/// Finished: what was paid since, and when it may go.
fn finished(world: &mut World, task: &Task, plan: &mut Plan, now: i64) -> Option<ComputeTaskStatus> {
    let work = task.work();
    // What says so may be written late, when another attempt has begun: that one ends, and what it cost is told beside it.
    abandon(world, &work, plan, now);
    if let Some(ended) = outcome::ended(world, task, now) {
        let ComputeTaskStatus { attempts, usage, cost, receipt, resolved, .. } = ended;
        return Some(ComputeTaskStatus { attempts, usage, cost, receipt, resolved, ..task.status.clone() });
    }
    if let Some(ttl) = task.spec.ttl_seconds_after_finished {
        let until = status::since(&task.status.conditions, FINISHED).unwrap_or(now) + ttl;
        let pod_left = world.pods_of(&work).any(|pod| pod.has_finalizer);
        if now >= until && !pod_left {
            plan.effects.push(Effect::DeleteTask { namespace: task.namespace.clone(), name: task.name.clone(), uid: task.uid.to_string() });
            return None;
        }
        world.todo.alarms.set(until.max(now + 1), work.clone());
    }
    let before = task.status.cost.as_ref()?;
    let cost = outcome::cost(world, task, &before.token)?;
    // One write more, later: when all of it is paid, and where that is seen. And when a chain has undone that it was.
    let is_news = cost.settled == cost.charged || cost.settled < before.settled;
    (cost != *before && is_news).then(|| {
        let root = world.works.get(&work).and_then(|balance| balance.root.clone());
        let receipt = task.status.receipt.clone().map(|receipt| Receipt { root, transaction: cost.transaction.clone(), ..receipt });
        ComputeTaskStatus { cost: Some(cost), receipt, ..task.status.clone() }
    })
}
