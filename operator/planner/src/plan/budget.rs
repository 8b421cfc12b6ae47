//! A task that runs, and its budget. When a mark of the budget is passed, the status and an Event say how much is used, and
//! a file in each container says when it ends. The rule is `market::guard`'s; that the run ends in time is `attempt`'s doing.

use super::{Effect, Plan, outcome, place};
use crate::world::World;
use crate::world::records::{Place, PodPhase, Reservation, Task};
use supercargo_crds::common::Money;
use supercargo_crds::names::task_condition::STARTED;
use supercargo_crds::task_status::ComputeTaskStatus;
use supercargo_market::guard::{Guard, Mark};
use supercargo_market::minimum::{self, Rated};
use supercargo_market::money::Amount;
use supercargo_market::placement::Assignment;
use supercargo_market::rating::{self, ExactCost, Held, TooMuch};

/// The guard of a run of workers that hold this.
pub fn guard(task: &Task, held: &[Held], budget: Amount, spent: Amount) -> Result<Guard, TooMuch> {
    Ok(Guard { second: second(held)?, budget, spent, after_seconds: place::after_seconds(task) })
}

/// What workers hold there, and what their cards ask for at least, as far as the rest of the budget pays for it.
pub fn rated(world: &World, assignments: &[Assignment], billed_before_seconds: u64, left: Amount) -> Result<Vec<Rated>, TooMuch> {
    let minimum = |chosen: &Assignment| world.rate_cards.get(&chosen.pool).map_or(0, |known| known.card.minimum_seconds);
    let rated = assignments.iter().map(|chosen| Rated { held: chosen.held, minimum_seconds: minimum(chosen) });
    minimum::within(&rated.collect::<Vec<_>>(), billed_before_seconds, left)
}

/// How long it may run and what is held back for that, with its cards' minimum, within the rest of its budget.
pub fn terms(task: &Task, workers: &[Rated], billed_before_seconds: u64, left: Amount) -> Result<(u64, Amount), TooMuch> {
    let held: Vec<Held> = workers.iter().map(|worker| worker.held).collect();
    let leash = guard(task, &held, left, Amount::ZERO)?.leash(task.spec.time_limit_seconds.unsigned_abs()).ok_or(TooMuch)?;
    if leash.run_seconds < place::least_seconds(task) {
        return Err(TooMuch);
    }
    let worst = minimum::worst(workers, billed_before_seconds, leash.run_seconds + place::after_seconds(task))?.reserved()?;
    Ok((leash.run_seconds, leash.reserved.max(worst.min(left))))
}

/// What a second of all these workers costs.
pub fn second(held: &[Held]) -> Result<ExactCost, TooMuch> {
    held.iter().try_fold(ExactCost::default(), |sum, held| sum.checked_add(rating::cost(held, 1)?))
}

/// The guard of the run that money is held back for.
fn of_reservation(task: &Task, reservation: &Reservation) -> Option<Guard> {
    let placement = &reservation.placement;
    // What ends before its time limit ends by what is held back: a budget that was raised counts when more of it is.
    let whole = placement.run_seconds >= task.spec.time_limit_seconds.unsigned_abs();
    let budget = if whole { task.spec.budget.0 } else { reservation.charged.checked_add(reservation.reserved)? };
    let held: Vec<Held> = placement.workers.iter().map(Place::held).collect();
    guard(task, &held, budget, reservation.charged).ok()
}

/// Whether the run that money is held back for may come to a mark of its budget.
pub fn may_be_marked(world: &World, task: &Task) -> bool {
    let of = |reservation: &Reservation| {
        of_reservation(task, reservation).is_some_and(|guard| guard.marks(reservation.placement.run_seconds).next().is_some())
    };
    world.reservations.get(&task.work()).is_some_and(of)
}

/// Says of a run that began then what is used of its budget, in its status and to its containers; and when to look again.
pub fn watch(world: &World, task: &Task, began: i64, status: &mut ComputeTaskStatus, plan: &mut Plan, now: i64) -> Option<i64> {
    let reservation = world.reservations.get(&task.work())?;
    let placement = &reservation.placement;
    let guard = of_reservation(task, reservation)?;
    let ends = super::status::time(began + placement.run_seconds.cast_signed())?.0;
    let at = |mark: &Mark| began + mark.at_seconds.cast_signed();
    let passed = guard.marks(placement.run_seconds).rfind(|mark| at(mark) <= now);
    if let Some(mark) = &passed {
        tell(world, task, &placement.token, mark, status);
        if let Some(started) = status.conditions.iter_mut().find(|condition| condition.type_ == STARTED) {
            let (percent, used, budget, token) = (mark.percent, mark.used, guard.budget, &placement.token);
            let words = format!("{percent} % of the budget is used, {used} of {budget} {token}, and it ends at {ends} at the latest");
            started.message = format!("{}; {words}", started.message);
        }
    }
    let notice = passed.map(|mark| format!("usedPercent={}\nused={}\nbudget={}\nendsAt={ends}\n", mark.percent, mark.used, guard.budget));
    let workers = world.workers_of(&task.work(), placement);
    for pod in workers.into_iter().flatten().filter(|pod| pod.phase == PodPhase::Running && !pod.deleting && pod.notice != notice) {
        plan.effects.push(Effect::MarkPod {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            notice: notice.clone(),
        });
    }
    guard.marks(placement.run_seconds).map(|mark| at(&mark)).find(|at| *at > now)
}

/// What is charged so far rises when a mark is passed, and so says which were told. It never falls while the task runs: a
/// budget that was raised has its marks where less was told, and not again where more was.
fn tell(world: &World, task: &Task, token: &str, mark: &Mark, status: &mut ComputeTaskStatus) {
    let told = status.cost.as_ref().map(|cost| cost.charged.0).unwrap_or_default();
    if mark.used <= told {
        return;
    }
    if let Some(mut cost) = outcome::cost(world, task, token) {
        let since = mark.used.saturating_sub(cost.charged.0);
        cost.reserved = Money(cost.reserved.0.saturating_sub(since));
        cost.charged = Money(mark.used);
        status.cost = Some(cost);
    }
}
