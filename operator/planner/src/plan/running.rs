//! What runs has used so far. Once a minute the books are told of all works together, in one posting; nothing is charged by
//! that, and what an attempt's record says in the end takes its place.

use super::{Booking, Plan, evidence};
use crate::world::World;
use crate::world::records::{Place, Reservation};
use std::collections::BTreeMap;
use supercargo_ledger::Posting;
use supercargo_market::funding;
use supercargo_market::money::Amount;
use supercargo_market::rating::{self, ExactCost};
use supercargo_market::work::{FundingId, WorkId};

/// So often the books are told.
const HOLD_SECONDS: i64 = 60;

/// What an attempt has used so far, within what is held back for it, and what a second of it costs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Use {
    used: Amount,
    second: ExactCost,
}

/// All that runs on one token, and what was borne of what ever ran on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Running {
    pub used: Amount,
    pub hour: Amount,
    pub absorbed: Amount,
}

fn so_far(world: &World, work: &WorkId, reservation: &Reservation, now: i64) -> Use {
    let placement = &reservation.placement;
    let workers = world.workers_of(work, placement);
    let measured = evidence::so_far(world, &workers, placement, world.task_of(work).map(|task| &**task), now);
    // Nothing is used before the last of them has started.
    let began = measured.iter().flatten().any(|measured| measured.seconds > 0);
    let mut sum = (ExactCost::default(), ExactCost::default());
    for ((pod, place), measured) in workers.iter().zip(&placement.workers).zip(measured) {
        let cost = |seconds| rating::cost(&Place::held(place), seconds).unwrap_or_default();
        let runs = began && pod.is_some_and(|pod| !pod.is_over());
        let more = |sum: ExactCost, cost| sum.checked_add(cost).unwrap_or(sum);
        sum = (more(sum.0, cost(measured.map_or(0, |measured| measured.seconds))), more(sum.1, cost(u64::from(runs))));
    }
    Use { used: sum.0.charged().unwrap_or_default().min(reservation.reserved), second: sum.1 }
}

/// What has to be told to the books now.
pub fn plan(world: &mut World, plan: &mut Plan, bookings: &mut Vec<Booking>, now: i64) {
    let due = world.held_at.saturating_add(HOLD_SECONDS);
    if (world.held_at..due).contains(&now) {
        if !world.reservations.is_empty() {
            plan.wake_at(due);
        }
        return;
    }
    if std::mem::replace(&mut world.hold_asked, now) == now {
        return plan.wake_at(now + 1);
    }
    let of = |(work, held): (&WorkId, &Reservation)| (work.clone(), so_far(world, work, held, now).used);
    let mut works: Vec<(WorkId, Amount)> = world.reservations.iter().map(of).filter(|(_, used)| !used.is_zero()).collect();
    if works.is_empty() {
        world.held_at = now;
        return;
    }
    works.sort();
    bookings.push(Booking::Post(Posting::Hold { at: now, works }));
}

/// Until when the money of a funding lasts at what its works cost now. `None` while nothing runs.
pub fn lasts_until(world: &World, funding: &FundingId, now: i64) -> Option<i64> {
    let (balance, _) = world.fundings.get(funding)?;
    let (mut used, mut second) = (0_u64, ExactCost::default());
    for work in world.held_by(funding) {
        let one = so_far(world, work, world.reservations.get(work)?, now);
        (used, second) = (used.saturating_add(one.used.units()), second.checked_add(one.second).unwrap_or(second));
    }
    let money = balance.available.units().saturating_add(balance.reserved.units()).saturating_sub(used);
    let seconds = funding::lasts_seconds(Amount::from_units(money), second)?;
    Some(funding::told(now.checked_add_unsigned(seconds)?, now))
}

/// What runs now, by tokens.
pub fn by_tokens(world: &World, now: i64) -> BTreeMap<String, Running> {
    let plus = |one: Amount, other| one.checked_add(other).unwrap_or(Amount::MAX);
    let mut tokens: BTreeMap<String, Running> = BTreeMap::new();
    for (balance, _) in world.fundings.values() {
        let token = tokens.entry(balance.asset.id.clone()).or_default();
        token.absorbed = plus(token.absorbed, balance.absorbed);
    }
    for (work, held) in &world.reservations {
        let one = so_far(world, work, held, now);
        let hour = one.second.times(3_600).and_then(ExactCost::reserved).unwrap_or(Amount::MAX);
        let token = tokens.entry(held.placement.token.clone()).or_default();
        (token.used, token.hour) = (plus(token.used, one.used), plus(token.hour, hour));
    }
    tokens
}
