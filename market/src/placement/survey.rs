//! One look at everything: the best place for a shape and, counted, why all others refuse it. What was counted stays
//! with the shape and is brought up to date from the journal, so that a task that fits nowhere is looked at again only
//! where something changed.

use super::catalog::Catalog;
use super::filter::{self, Reason};
use super::fronts::Fronts;
use super::pick::{Pick, Search, Walk};
use super::ranking::Best;
use super::slot::{Asker, Slot};
use super::terms::Terms;
use super::wish::Agreed;
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
    /// The best place that will do, found by looking at every slot once.
    pub(super) fn survey(&mut self, search: &Search<'_>) -> Option<Pick> {
        let mut best = self.gather(search, Fronts::of_all(1)).fronts.pop()?;
        match self.next_of(&mut best, search) {
            Walk::Found(pick) => Some(pick),
            Walk::Nothing | Walk::Unknown => None,
        }
    }

    /// The best places that will do, found by looking at every slot once, by name. On the way the shape's tally is made
    /// and, where classes are many, its wish's ranking.
    pub(super) fn gather(&mut self, search: &Search<'_>, mut fronts: Fronts) -> Fronts {
        let number = self.shapes.shape(search.shape).wish;
        let wish = &self.shapes.wished(number).wish;
        let tally = if self.shelves.classes.len() > self.limits.few {
            let mut ranking = Best::of(self.limits.best, self.shelves.terms.len());
            let seen = self.look(search, &mut fronts, |slot, terms| {
                let agreed = wish.agrees(terms);
                if let (Ok(agreed), None) = (agreed, slot.closed)
                    && ranking.has_place_for(agreed.rank)
                    && agreed.need.fits_in(slot.room)
                {
                    ranking.add(agreed.rank, slot.class);
                }
                agreed
            });
            self.put_best(number, ranking);
            seen
        } else {
            // What the terms of a class come to is worked out once.
            let mut known: Vec<Option<Result<Agreed, Reason>>> = vec![None; self.shelves.classes.len()];
            self.look(search, &mut fronts, |slot, terms| *known[slot.class as usize].get_or_insert_with(|| wish.agrees(terms)))
        };
        self.shapes.shape_mut(search.shape).tally = Some(tally);
        fronts
    }

    /// Every slot, by name, with what the wish says of its terms.
    fn look(&self, search: &Search<'_>, fronts: &mut Fronts, mut agrees: impl FnMut(&Slot, &Terms) -> Result<Agreed, Reason>) -> Tally {
        let asker = &self.shapes.shape(search.shape).asker;
        let mut tally = Tally { at: self.journal.now(), fitting: 0, refusing: [(0, 0); REASONS] };
        // A loop within a loop for the compiler, where `for` would ask after each slot which of the two goes on.
        self.nodes.slots().flat_map(|first| self.ring(first)).for_each(|index| {
            let slot = self.slot(index);
            let terms = self.terms(slot.class);
            let agreed = agrees(slot, terms);
            if let Some(reason) = refuses(asker, slot, terms, agreed) {
                let known = &mut tally.refusing[reason as usize];
                // Names only rise.
                *known = if known.0 == 0 { (1, index) } else { (known.0 + 1, known.1) };
                return;
            }
            tally.fitting += 1;
            let Ok(Agreed { rank, need }) = agreed else { return };
            // Names only rise, and with them how many fitted before.
            let standing = (rank, slot.room.devices - need.devices, tally.fitting, index);
            fronts.add(terms.zone, standing, || search.allows(self, index, slot, need));
        });
        tally
    }

    /// What the shape is told by one slot.
    fn told(&self, number: u32, slot: &Slot) -> Option<Reason> {
        let shape = self.shapes.shape(number);
        let terms = self.terms(slot.class);
        refuses(&shape.asker, slot, terms, self.shapes.wished(shape.wish).wish.agrees(terms))
    }

    /// Brings a shape's tally up to date. False: there is none, or too much has changed since.
    pub(super) fn catch_up(&mut self, number: u32) -> bool {
        let now = self.journal.now();
        let Some(mut tally) = self.shapes.shape_mut(number).tally.take() else { return false };
        // Each change is two looks, a survey one a slot.
        if tally.at != now && self.journal.distance(tally.at) > self.len() as u64 / 2 {
            return false;
        }
        self.refresh(number);
        let Some(changes) = self.journal.since(tally.at) else { return false };
        let told = |slot: &Slot| (slot.node, self.told(number, slot));
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
            self.refresh(number);
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

/// The first thing that speaks against a slot, with what its terms came to.
#[inline]
fn refuses(asker: &Asker, slot: &Slot, terms: &Terms, agreed: Result<Agreed, Reason>) -> Option<Reason> {
    match (agreed, slot.closed) {
        (Err(Reason::ResourceNotSold), _) => Some(Reason::ResourceNotSold),
        (_, Some(closed)) => Some(filter::closed(closed).0),
        (Err(reason), _) => Some(reason),
        (Ok(agreed), None) => asker.refuses(slot, agreed.need, terms.replicas_per_device),
    }
}
