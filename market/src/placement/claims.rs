//! What a large task waits for: the places that it will take, and when. A smaller one passes only where it takes none of
//! that, or has ended before.

use super::catalog::Catalog;
use super::exchange::Topology;
use super::holdings::{Holding, Holdings};
use super::need::Need;
use super::neighbours::{Tenancy, Who};
use super::shelves::{Class, Level};
use super::slot::{Asker, Slot};
use super::wish::Wish;
use super::words::NOTHING;
use foldhash::HashMap;
use std::collections::{BTreeMap, BTreeSet};

/// Of those that could use offers on the same card, places are kept for so many at a time.
const CLAIMS: usize = 4;
/// A large task looks at so many nodes for its claim.
const CONSIDERED: usize = 4_096;

/// What of one slot is claimed.
#[derive(Debug, Clone)]
struct Claim {
    start: i64,
    need: Need,
    /// What those who run there will have given back by then.
    returning: Need,
    by: Vec<Who>,
    /// Its devices are handed out several times: only to one namespace.
    of_one_namespace: bool,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Claims {
    by_slot: HashMap<u32, Claim>,
    /// How many there are of each card.
    by_card: HashMap<u32, usize>,
}

/// The places of all workers of a task, and when all are free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) start: i64,
    shape: u32,
    places: Vec<(u32, Need)>,
}

/// What became of a wish for places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sought {
    Found(Places),
    /// Others claim what it would need.
    Behind,
    /// Not even when all who run have ended.
    Never,
}

/// All workers of a task, as far as placement cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Gang {
    pub(super) shape: u32,
    pub(super) workers: u32,
    pub(super) topology: Topology,
}

/// A place for one worker, and when it is free.
type Opening = (i64, u32, Need);

impl Claims {
    pub(super) fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    /// Whether a worker that ends then may come to a slot with so much room.
    pub(super) fn allow(&self, slot: u32, room: Need, need: Need, ends: i64, who: Who) -> bool {
        self.by_slot.get(&slot).is_none_or(|claim| {
            let beside = || claim.by.iter().all(|by| who.may_join(*by, claim.of_one_namespace));
            ends <= claim.start || (need.plus(claim.need).fits_in(room.plus(claim.returning)) && beside())
        })
    }

    /// Somebody comes: who has ended before a claim begins gives back what it takes.
    pub(super) fn pass(&mut self, catalog: &Catalog, index: u32, need: Need, ends: i64) {
        if self.is_empty() {
            return;
        }
        for slot in catalog.ring(index) {
            if let Some(claim) = self.by_slot.get_mut(&slot).filter(|claim| ends <= claim.start) {
                claim.returning = claim.returning.plus(if slot == index { need } else { need.beside() });
            }
        }
    }

    /// Whether enough is kept already of all that a task could use: for the next few, and not for everybody. Who can only go to
    /// certain nodes waits for those alone.
    pub(super) fn suffice(&self, catalog: &Catalog, gang: Gang) -> bool {
        let shape = catalog.shapes.shape(gang.shape);
        if self.is_empty() || shape.asker.only.is_some() {
            return false;
        }
        let short = |number: u32| self.by_card.get(&catalog.terms(number).card).is_none_or(|claims| *claims < CLAIMS);
        let mut agreed = agreed(catalog, &catalog.shapes.wished(shape.wish).wish).filter(|(_, number, _)| short(*number));
        // What would never do is not waited for.
        !agreed.any(|(class, number, need)| open(catalog, class, number).any(|slot| would_do(catalog, &shape.asker, slot, need)))
    }

    /// The places that will be free the soonest.
    pub(super) fn seek(&self, catalog: &Catalog, holdings: &Holdings, gang: Gang, now: i64) -> Sought {
        let slots: Vec<_> = wanted(catalog, gang.shape).take(CONSIDERED).collect();
        let mut by_zone: BTreeMap<u32, Vec<Opening>> = BTreeMap::new();
        for (slot, need) in slots.iter().copied() {
            let openings = self.openings(catalog, holdings, gang, (slot, need), now);
            let group = match gang.topology {
                Topology::Any => 0,
                Topology::Node => slot,
                Topology::Zone => catalog.terms(catalog.slot(slot).class).zone,
            };
            if gang.topology != Topology::Zone || gang.workers == 1 || group != NOTHING {
                by_zone.entry(group).or_default().extend(openings.into_iter().map(|time| (time, slot, need)));
            }
        }
        let workers = gang.workers as usize;
        let groups = by_zone.into_values().filter(|openings| openings.len() >= workers).map(|mut openings| {
            openings.sort_unstable_by_key(|(time, slot, _)| (*time, *slot));
            openings.truncate(workers);
            openings
        });
        let Some(best) = groups.min_by_key(|openings| openings.last().map(|(time, ..)| *time)) else {
            return if self.is_empty() && slots.len() < CONSIDERED { Sought::Never } else { Sought::Behind };
        };
        let start = best.last().map_or(now, |(time, ..)| *time);
        Sought::Found(Places { start, shape: gang.shape, places: best.into_iter().map(|(_, slot, need)| (slot, need)).collect() })
    }

    /// Claims places that were found.
    pub(super) fn claim(&mut self, catalog: &Catalog, holdings: &Holdings, found: &Places) {
        let cards: BTreeSet<u32> = found.places.iter().map(|(slot, _)| catalog.terms(catalog.slot(*slot).class).card).collect();
        cards.into_iter().for_each(|card| *self.by_card.entry(card).or_default() += 1);
        found.places.iter().for_each(|place| self.add(catalog, holdings, found.shape, *place, found.start));
    }

    /// When a slot has room for a worker, for another one, and so on.
    fn openings(&self, catalog: &Catalog, holdings: &Holdings, gang: Gang, place: (u32, Need), now: i64) -> Vec<i64> {
        let (index, need) = place;
        let slot = catalog.slot(index);
        let terms = catalog.terms(slot.class);
        let asker = &catalog.shapes.shape(gang.shape).asker;
        let claimed = self.by_slot.get(&index);
        let (offered, mut taken) = catalog.stock(index);
        let mut there = Slot { room: Need::default(), ..slot.clone() };
        let mut leaving: Vec<_> = holdings.on(slot.node).iter().collect();
        leaving.sort_by_key(|holding| holding.ends);
        let mut openings = Vec::new();
        for (time, holding) in std::iter::once((now, None)).chain(leaving.iter().map(|one| (one.ends.max(now), Some(*one)))) {
            if let Some(holding) = holding {
                taken = taken.minus(holding.need_of(catalog.resource(slot.class)));
                there.neighbours.leave(holding.who);
            }
            there.room = offered.minus(taken).minus(claimed.map(|claim| claim.need).unwrap_or_default());
            let beside = claimed.is_none_or(|claim| claim.by.iter().all(|by| asker.who.may_join(*by, claim.of_one_namespace)));
            if beside && asker.refuses(&there, need, terms.replicas_per_device).is_none() {
                let most = if asker.who.tenancy == Tenancy::Exclusive { 1 } else { gang.workers };
                let copies = need.copies_in(there.room, most) as usize;
                openings.resize(copies.max(openings.len()), time);
            }
        }
        openings
    }

    fn add(&mut self, catalog: &Catalog, holdings: &Holdings, shape: u32, place: (u32, Need), start: i64) {
        let (index, need) = place;
        let asker = &catalog.shapes.shape(shape).asker;
        let node = catalog.slot(index).node;
        for slot in catalog.ring(index) {
            let terms = catalog.terms(catalog.slot(slot).class);
            let none = Claim { start, need: Need::default(), returning: Need::default(), by: Vec::new(), of_one_namespace: false };
            let claim = self.by_slot.entry(slot).or_insert(none);
            claim.start = claim.start.min(start);
            claim.need = claim.need.plus(if slot == index { need } else { need.beside() });
            let back = holdings.on(node).iter().filter(|holding| holding.ends <= claim.start);
            claim.returning =
                back.fold(Need::default(), |sum, holding| sum.plus(holding.need_of(catalog.resource(catalog.slot(slot).class))));
            claim.of_one_namespace |= asker.has_devices && terms.replicas_per_device > 1;
            if !claim.by.contains(&asker.who) {
                claim.by.push(asker.who);
            }
        }
    }
}

/// Whether several must end before a worker has room: whoever is smaller could take each place as it is freed. Not so where it
/// fits, or would whoever of those ends that hold as many devices.
pub(super) fn waits_for_several(catalog: &Catalog, holdings: &Holdings, shape: u32) -> bool {
    let asker = &catalog.shapes.shape(shape).asker;
    wanted(catalog, shape).all(|(index, need)| {
        let slot = catalog.slot(index);
        let (offered, taken) = catalog.stock(index);
        let (resource, replicas) = (catalog.resource(slot.class), catalog.terms(slot.class).replicas_per_device);
        let refuses_without = |leaves: &Holding| {
            let mut there = slot.clone();
            there.room = offered.minus(taken.minus(leaves.need_of(resource)));
            there.neighbours.leave(leaves.who);
            asker.refuses(&there, need, replicas).is_some()
        };
        let mut alike = holdings.on(slot.node).iter().filter(|holding| holding.need_of(resource).devices >= need.devices).peekable();
        asker.refuses(slot, need, replicas).is_some() && (alike.peek().is_none() || alike.any(refuses_without))
    })
}

/// Open nodes that would hold a worker if nobody else were there, with what it takes.
fn wanted(catalog: &Catalog, shape: u32) -> impl Iterator<Item = (u32, Need)> {
    let shape = catalog.shapes.shape(shape);
    let (asker, wish) = (&shape.asker, &catalog.shapes.wished(shape.wish).wish);
    // Of a hundred thousand nodes nobody goes through more than those that it names.
    let named = asker.only.iter().flat_map(|only| only.nodes.chunk_by(|one, two| one == two)).flat_map(|node| catalog.slots_of(node[0]));
    let named = named.map(|slot| (slot, catalog.slot(slot))).filter(|(_, slot)| slot.closed.is_none());
    let named = named.filter_map(|(index, slot)| Some((index, wish.agrees(catalog.terms(slot.class)).ok()?.need)));
    let classes = asker.only.is_none().then(|| agreed(catalog, wish)).into_iter().flatten();
    let anywhere = classes.flat_map(move |(class, number, need)| open(catalog, class, number).map(move |slot| (slot, need)));
    named.chain(anywhere).filter(move |(slot, need)| would_do(catalog, asker, *slot, *need))
}

/// All slots of a class that are not closed.
fn open<'a>(catalog: &'a Catalog, class: &'a Class, number: u32) -> impl Iterator<Item = u32> + 'a {
    let levels = class.shelves.iter().map(|shelf| shelf.level).filter(|level| matches!(level, Level::Free(_)));
    levels.flat_map(move |level| catalog.shelves.on(number, level)).map(|place| place.slot)
}

/// Whether a slot would hold a worker if nobody else were there.
fn would_do(catalog: &Catalog, asker: &Asker, slot: u32, need: Need) -> bool {
    need.fits_in(catalog.stock(slot).0) && asker.unwanted(catalog.slot(slot)).is_none()
}

/// Classes of offers whose terms a task agrees with, and what a worker takes there.
fn agreed<'a>(catalog: &'a Catalog, wish: &Wish) -> impl Iterator<Item = (&'a Class, u32, Need)> {
    let classes = catalog.shelves.classes.iter().zip(0..).filter(|(class, _)| !class.shelves.is_empty());
    classes.filter_map(|(class, number)| Some((class, number, wish.agrees(catalog.terms(number)).ok()?.need)))
}
