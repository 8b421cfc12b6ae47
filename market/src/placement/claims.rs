//! What a large task waits for: the places that it will take, and when. A smaller one passes only where it takes none of
//! that, or has ended before.

use super::catalog::{Catalog, Pick};
use super::exchange::{Holding, Waiting, fit, undo};
use super::slot::Need;
use std::collections::HashMap;

#[derive(Debug, Clone, Copy, Default)]
struct Claim {
    start: i64,
    need: Need,
    /// What those who run there will have given back by then.
    returning: Need,
}

#[derive(Debug, Default)]
pub(super) struct Claims(HashMap<u32, Claim>);

impl Claims {
    /// Whether a worker that ends then may come to a slot.
    pub(super) fn allow(&self, catalog: &Catalog, slot: u32, need: Need, ends: i64) -> bool {
        self.0
            .get(&slot)
            .is_none_or(|claim| ends <= claim.start || need.plus(claim.need).fits_in(catalog.slot(slot).room.plus(claim.returning)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Claims the places that will be free the soonest. False: not even an empty market has them.
    pub(super) fn claim(&mut self, catalog: &mut Catalog, waiting: &Waiting, running: &[&Holding], now: i64) -> bool {
        let mut by_end = running.to_vec();
        by_end.sort_by_key(|holding| (holding.ends, holding.slot));
        let Some((released, picks)) = soonest(catalog, waiting, &by_end) else { return false };
        let start = by_end[..released].last().map_or(now, |last| last.ends.max(now));
        for pick in picks {
            for slot in catalog.ring(pick.slot).collect::<Vec<_>>() {
                let own = |need: Need| if slot == pick.slot { need } else { Need { devices: 0, ..need } };
                let claim = self.0.entry(slot).or_insert_with(|| {
                    let there = by_end[..released].iter().filter(|holding| holding.slot == pick.slot);
                    let returning = there.fold(Need::default(), |sum, holding| sum.plus(own(holding.need)));
                    Claim { start, need: Need::default(), returning }
                });
                claim.need = claim.need.plus(own(pick.need));
                claim.start = claim.start.min(start);
            }
        }
        true
    }
}

/// How many of those who run must have ended, in their order, and where it goes then.
fn soonest(catalog: &mut Catalog, waiting: &Waiting, by_end: &[&Holding]) -> Option<(usize, Vec<Pick>)> {
    let mut released = 0;
    let mut attempt = |catalog: &mut Catalog, target: usize| {
        while released < target {
            let holding = by_end[released];
            catalog.give_back(holding.slot, holding.need, &holding.tenant);
            released += 1;
        }
        while released > target {
            released -= 1;
            let holding = by_end[released];
            catalog.take(holding.slot, holding.need, &holding.tenant);
        }
        let picks = fit(catalog, waiting, &Claims::default(), i64::MAX).ok()?;
        undo(catalog, waiting, &picks);
        Some(picks)
    };
    let (mut low, mut high) = (0, 1);
    let mut found = loop {
        high = high.min(by_end.len());
        match attempt(catalog, high) {
            Some(picks) => break Some(picks),
            None if high == by_end.len() => break None,
            None => (low, high) = (high, high * 2),
        }
    };
    while found.is_some() && low + 1 < high {
        let middle = low.midpoint(high);
        match attempt(catalog, middle) {
            Some(picks) => (found, high) = (Some(picks), middle),
            None => low = middle,
        }
    }
    // Those who run go back to where they are.
    attempt(catalog, 0);
    found.map(|picks| (high, picks))
}
