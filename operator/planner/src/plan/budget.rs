//! A task's budget, as `market::guard` takes it.

use super::place;
use crate::world::records::Task;
use supercargo_market::guard::Guard;
use supercargo_market::money::Amount;
use supercargo_market::rating::{self, ExactCost, Held, TooMuch};

/// The guard of a run of workers that hold this.
pub fn guard(task: &Task, held: &[Held], budget: Amount, spent: Amount) -> Result<Guard, TooMuch> {
    let seconds = held.iter().map(|held| rating::cost(held, 1));
    let second = seconds.into_iter().try_fold(ExactCost::default(), |sum, cost| sum.checked_add(cost?))?;
    Ok(Guard { second, budget, spent, after_seconds: place::after_seconds(task) })
}
