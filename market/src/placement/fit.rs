//! Places for all workers of a task, or for none.

use super::catalog::Catalog;
use super::claims::{Claims, Gang};
use super::exchange::Topology;
use super::pick::{Pick, Search};

/// Places for all workers, taken; or how many would have fitted, and nothing taken.
pub(super) fn fit(catalog: &mut Catalog, gang: Gang, claims: &Claims, ends: i64) -> Result<Vec<Pick>, u32> {
    catalog.refresh(gang.shape);
    let search = Search { kept: (!claims.is_empty()).then_some((claims, ends)), ..Search::of(gang.shape) };
    match gang.topology {
        // One worker is always together.
        _ if gang.workers == 1 => fill(catalog, gang, search),
        Topology::Any => fill(catalog, gang, search),
        Topology::Node => {
            let pick = catalog.pick(&Search { copies: gang.workers, ..search }).ok_or(0_u32)?;
            let picks = vec![pick; gang.workers as usize];
            let who = catalog.shapes.shape(gang.shape).asker.who;
            picks.iter().for_each(|pick| catalog.take(catalog.at(pick.slot), pick.need, who));
            Ok(picks)
        }
        Topology::Zone => {
            let mut zones: Vec<(String, u32)> = catalog.names.zones.all().map(str::to_owned).zip(0..).collect();
            zones.sort_unstable();
            let mut best: Option<(u64, u32)> = None;
            let mut most = 0;
            for (_, zone) in zones {
                match fill(catalog, gang, Search { zone: Some(zone), ..search }) {
                    Ok(picks) => {
                        undo(catalog, gang, &picks);
                        let price = price_units(&picks);
                        if best.is_none_or(|(known, _)| price < known) {
                            best = Some((price, zone));
                        }
                    }
                    Err(fitting) => most = most.max(fitting),
                }
            }
            let (_, zone) = best.ok_or(most)?;
            fill(catalog, gang, Search { zone: Some(zone), ..search })
        }
    }
}

/// What all of them cost an hour.
pub(super) fn price_units(picks: &[Pick]) -> u64 {
    picks.iter().fold(0_u64, |sum, pick| sum.saturating_add(pick.price_units))
}

/// One worker after the other to the best place that is left.
fn fill(catalog: &mut Catalog, gang: Gang, search: Search<'_>) -> Result<Vec<Pick>, u32> {
    let who = catalog.shapes.shape(gang.shape).asker.who;
    let mut picks = Vec::new();
    for fitting in 0..gang.workers {
        let Some(pick) = catalog.pick(&search) else {
            undo(catalog, gang, &picks);
            return Err(fitting);
        };
        catalog.take(catalog.at(pick.slot), pick.need, who);
        picks.push(pick);
    }
    Ok(picks)
}

fn undo(catalog: &mut Catalog, gang: Gang, picks: &[Pick]) {
    let who = catalog.shapes.shape(gang.shape).asker.who;
    picks.iter().for_each(|pick| catalog.give_back(catalog.at(pick.slot), pick.need, who));
}
