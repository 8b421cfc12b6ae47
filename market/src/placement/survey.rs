//! One look at everything: the best place for a shape and, counted, why all others refuse it. What was counted stays
//! with the shape and is brought up to date from the journal, so that a task that fits nowhere is looked at again only
//! where something changed.

use super::catalog::Catalog;
use super::filter::{self, Reason};
use super::pick::{Order, Pick, Search, better};
use super::shelves::Level;
use super::slot::Slot;
use super::{Refused, Request};

/// The reasons that speak against a single offer.
const REASONS: usize = Reason::PodsInUse as usize + 1;

/// How many slots refuse a shape, by reason.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    /// The moment of the journal that it is true of.
    at: u64,
    /// Slots that do not refuse it.
    fitting: u32,
    /// By reason: how many, and the slot whose node comes first in the alphabet.
    refusing: [(u32, u32); REASONS],
}

impl Catalog {
    /// The best place that will do, found by looking at every slot once. On the way the shape's tally is made.
    pub(super) fn survey(&mut self, search: &Search<'_>) -> Option<Pick> {
        let shape = self.shapes.shape(search.shape);
        let (asker, wish) = (&shape.asker, &self.shapes.wished(shape.wish).wish);
        let whole_shelves = asker.names_no_node();
        let mut tally = Tally { at: self.journal.now(), fitting: 0, refusing: [(0, 0); REASONS] };
        let mut best: Option<(Order<'_>, Pick)> = None;
        let (mut standing, mut agreed, mut seen) = (None, Err(Reason::ResourceNotSold), [false; REASONS]);
        for place in &self.shelves.places {
            if standing != Some((place.class, place.level)) {
                if standing.is_none_or(|(class, _)| class != place.class) {
                    agreed = wish.agrees(&self.class(place.class).terms);
                }
                (standing, seen) = (Some((place.class, place.level)), [false; REASONS]);
            }
            let refused = match (agreed, place.level) {
                (Err(Reason::ResourceNotSold), _) => Some(Reason::ResourceNotSold),
                (_, Level::Closed(closed)) => Some(filter::closed(closed).0),
                (Err(reason), _) => Some(reason),
                (Ok(agreed), Level::Free(free)) if whole_shelves && free < agreed.need.devices => Some(Reason::DevicesInUse),
                (Ok(agreed), _) => asker.refuses(self.slot(place.slot), agreed.need, self.class(place.class).terms.replicas_per_device),
            };
            if let Some(reason) = refused {
                // On one shelf names only rise.
                let first = !std::mem::replace(&mut seen[reason as usize], true);
                let known = &mut tally.refusing[reason as usize];
                if known.0 == 0 || (first && *place.name < **self.name(known.1)) {
                    known.1 = place.slot;
                }
                known.0 += 1;
                continue;
            }
            tally.fitting += 1;
            let Ok(agreed) = agreed else { continue };
            let slot = self.slot(place.slot);
            let order = Order { rank: agreed.rank, left: slot.room.devices - agreed.need.devices, name: &place.name };
            if best.as_ref().is_none_or(|(known, _)| order < *known) && search.allows(self, place.slot, slot, agreed.need) {
                better(&mut best, order, Pick { slot: place.slot, need: agreed.need, price_units: agreed.rank.price_units });
            }
        }
        let best = best.map(|(_, pick)| pick);
        self.shapes.shape_mut(search.shape).tally = Some(tally);
        best
    }

    /// What the shape is told by one slot.
    fn refuses(&self, number: u32, slot: &Slot) -> Option<Reason> {
        let shape = self.shapes.shape(number);
        let terms = &self.class(slot.class).terms;
        match (self.shapes.wished(shape.wish).wish.agrees(terms), slot.closed) {
            (Err(Reason::ResourceNotSold), _) => Some(Reason::ResourceNotSold),
            (_, Some(closed)) => Some(filter::closed(closed).0),
            (Err(reason), _) => Some(reason),
            (Ok(agreed), None) => shape.asker.refuses(slot, agreed.need, terms.replicas_per_device),
        }
    }

    /// Brings a shape's tally up to date. False: there is none, or too much has changed since.
    pub(super) fn catch_up(&mut self, number: u32) -> bool {
        let now = self.journal.now();
        let wish = self.shapes.shape(number).wish;
        let Some(mut tally) = self.shapes.shape_mut(number).tally.take() else { return false };
        // Each change is two looks, a survey one a slot.
        if tally.at != now && self.journal.distance(tally.at) > self.len() as u64 / 2 {
            return false;
        }
        self.shapes.wished_mut(wish).wish.refresh(&self.names);
        let Some(changes) = self.journal.since(tally.at) else { return false };
        let told = |slot: &Slot| (slot.node, self.refuses(number, slot));
        let changes = changes.map(|(index, was)| (index, was.map(told), self.slots[index as usize].as_ref().map(told)));
        let changes: Vec<_> = changes.filter(|(_, before, after)| before != after).collect();
        // First all that left: after that every example is still one.
        for (index, before, _) in &changes {
            match before {
                Some((_, Some(reason))) => {
                    let known = &mut tally.refusing[*reason as usize];
                    known.0 -= 1;
                    if known.0 > 0 && known.1 == *index {
                        // Which is the next by name nobody knows.
                        return false;
                    }
                }
                Some((_, None)) => tally.fitting -= 1,
                None => {}
            }
        }
        for (index, _, after) in changes {
            match after {
                Some((_, Some(reason))) => {
                    let known = &mut tally.refusing[reason as usize];
                    if known.0 == 0 || self.name(index) < self.name(known.1) {
                        known.1 = index;
                    }
                    known.0 += 1;
                }
                Some((_, None)) => tally.fitting += 1,
                None => {}
            }
        }
        tally.at = now;
        self.shapes.shape_mut(number).tally = Some(tally);
        true
    }

    /// Whether it is known that no slot takes the shape.
    pub(super) fn is_refused_by_all(&mut self, number: u32) -> bool {
        self.shapes.shape(number).tally.is_some()
            && self.catch_up(number)
            && self.shapes.shape(number).tally.as_ref().is_some_and(|tally| tally.fitting == 0)
    }

    /// What speaks against every offer, counted.
    pub(super) fn refusals(&mut self, number: u32) -> Vec<Refused> {
        if !self.catch_up(number) {
            let wish = self.shapes.shape(number).wish;
            self.shapes.wished_mut(wish).wish.refresh(&self.names);
            self.survey(&Search::of(number));
        }
        let shape = self.shapes.shape(number);
        let known = shape.tally.iter().flat_map(|tally| tally.refusing).filter(|(nodes, _)| *nodes > 0);
        known.filter_map(|(nodes, example)| self.refused(nodes, example, &shape.request)).collect()
    }

    /// In words, by the same filter that says them of a whole offer.
    fn refused(&self, nodes: u32, example: u32, request: &Request) -> Option<Refused> {
        let told = filter::check(&self.offer_at(example, request), request).err();
        debug_assert!(told.is_some(), "a slot that refuses is an offer that is refused");
        told.map(|(reason, example)| Refused { reason, nodes, example })
    }

    /// How many slots would take the shape, as of its tally.
    pub(super) fn fitting(&self, number: u32) -> u32 {
        self.shapes.shape(number).tally.as_ref().map_or(0, |tally| tally.fitting)
    }
}
