//! Places for all workers of a task, or for none. They are sought by walks; where those don't get far enough, among the
//! best places of all zones, gathered in one survey for all workers.

use super::catalog::Catalog;
use super::claims::{Claims, Gang};
use super::exchange::Topology;
use super::fronts::{Front, Fronts};
use super::pick::{Pick, Search, Walk};

/// Why there are not places for all.
enum Short {
    /// Only so many fit.
    Fitting(u32),
    /// Nobody knows: more has to be looked at.
    Unknown,
}

/// Places for all workers, taken; or how many would have fitted, and nothing taken.
pub(super) fn fit(catalog: &mut Catalog, gang: Gang, claims: &Claims, ends: i64) -> Result<Vec<Pick>, u32> {
    catalog.refresh(gang.shape);
    let search = Search { kept: (!claims.is_empty()).then_some((claims, ends)), ..Search::of(gang.shape) };
    // One worker is always together.
    let topology = if gang.workers == 1 { Topology::Any } else { gang.topology };
    if topology == Topology::Node {
        let pick = catalog.pick(&Search { copies: gang.workers, ..search }).ok_or(0_u32)?;
        let picks = vec![pick; gang.workers as usize];
        let who = catalog.shapes.shape(gang.shape).asker.who;
        picks.iter().for_each(|pick| catalog.take(catalog.at(pick.slot), pick.need, who));
        return Ok(picks);
    }
    let (mut gathered, mut most) = (None, gang.workers as usize);
    loop {
        let found = match topology {
            Topology::Zone => in_one_zone(catalog, gang, search, gathered.as_ref()),
            _ => {
                let mut looks = catalog.limits.looks;
                fill(catalog, gang, search, front(gathered.as_ref(), 0), &mut looks)
            }
        };
        match found {
            Ok(picks) => return Ok(picks),
            Err(Short::Fitting(fitting)) => return Err(fitting),
            Err(Short::Unknown) => {}
        }
        let fronts = match topology {
            Topology::Zone => Fronts::by_zone(most, catalog.names.zones.all().count()),
            _ => Fronts::of_all(most),
        };
        gathered = Some(catalog.gather(&search, fronts));
        // So many are too few where one who comes takes the room of a node's other offers, too.
        most = most.saturating_mul(2);
    }
}

/// Whether there are places for all workers. Nothing is taken.
pub(super) fn fits(catalog: &mut Catalog, gang: Gang, claims: &Claims, ends: i64) -> bool {
    let before = catalog.grown;
    fit(catalog, gang, claims, ends).is_ok_and(|picks| {
        undo(catalog, gang, &picks, before);
        true
    })
}

fn front(gathered: Option<&Fronts>, number: u32) -> Option<Front> {
    gathered.map(|gathered| gathered.fronts.get(number as usize).cloned().unwrap_or_default())
}

/// All zones are tried: of those with room for everyone the one that costs the least, and of several the first by name.
fn in_one_zone(catalog: &mut Catalog, gang: Gang, search: Search<'_>, gathered: Option<&Fronts>) -> Result<Vec<Pick>, Short> {
    let mut zones: Vec<(String, u32)> = catalog.names.zones.all().map(str::to_owned).zip(0..).collect();
    zones.sort_unstable();
    let mut best: Option<(u64, u32)> = None;
    let (mut most, mut looks) = (0, catalog.limits.looks);
    for (_, zone) in zones {
        let before = catalog.grown;
        match fill(catalog, gang, Search { zone: Some(zone), ..search }, front(gathered, zone), &mut looks) {
            Ok(picks) => {
                undo(catalog, gang, &picks, before);
                let price = price_units(&picks);
                if best.is_none_or(|(known, _)| price < known) {
                    best = Some((price, zone));
                }
            }
            Err(Short::Fitting(fitting)) => most = most.max(fitting),
            Err(Short::Unknown) => return Err(Short::Unknown),
        }
    }
    let (_, zone) = best.ok_or(Short::Fitting(most))?;
    fill(catalog, gang, Search { zone: Some(zone), ..search }, front(gathered, zone), &mut looks)
}

/// What all of them cost an hour.
pub(super) fn price_units(picks: &[Pick]) -> u64 {
    picks.iter().fold(0_u64, |sum, pick| sum.saturating_add(pick.price_units))
}

/// One worker after the other to the best place that is left: of a front, or as far as the looks of a walk go.
fn fill(catalog: &mut Catalog, gang: Gang, search: Search<'_>, mut front: Option<Front>, looks: &mut u32) -> Result<Vec<Pick>, Short> {
    let who = catalog.shapes.shape(gang.shape).asker.who;
    let before = catalog.grown;
    let mut picks = Vec::new();
    for fitting in 0..gang.workers {
        let found = match &mut front {
            Some(front) => catalog.next_of(front, &search),
            None => catalog.seek(&search, looks),
        };
        let short = match found {
            Walk::Found(pick) => {
                catalog.take(catalog.at(pick.slot), pick.need, who);
                picks.push(pick);
                continue;
            }
            Walk::Nothing => Short::Fitting(fitting),
            Walk::Unknown => Short::Unknown,
        };
        undo(catalog, gang, &picks, before);
        return Err(short);
    }
    Ok(picks)
}

/// All leave again, and everything is as it was before they came. In between nothing was surveyed, so that what rankings say
/// of then is true now; only what was spent is not.
fn undo(catalog: &mut Catalog, gang: Gang, picks: &[Pick], before: u64) {
    let (who, wish) = (catalog.shapes.shape(gang.shape).asker.who, catalog.shapes.shape(gang.shape).wish);
    picks.iter().for_each(|pick| catalog.give_back(catalog.at(pick.slot), pick.need, who));
    catalog.grown = before;
    catalog.shapes.wished_mut(wish).ranking.spent = 0;
}
