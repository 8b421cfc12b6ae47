//! The best place for one worker. A wish ranks the classes once; whoever asks walks down the ranking and takes the first
//! place that fits. A walk that gets long gives way to a survey, which costs the same whatever the answer is: no
//! decision takes longer than one walk and one survey.

use super::catalog::Catalog;
use super::claims::Claims;
use super::need::Need;
use super::shelves::{Class, Level};
use super::slot::Slot;
use super::wish::{Agreed, Rank};

/// A ranking has the best of the classes, up to so many.
const RANKED: usize = 1_024;
/// Rankings are all forgotten when they have so many entries together.
const RANKED_IN_ALL: usize = 200_000;
/// A walk looks at so many slots and shelves.
const LOOKS: u32 = 4_096;

/// One place for one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pick {
    pub(super) slot: u32,
    pub(super) need: Need,
    pub(super) price_units: u64,
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) shape: u32,
    /// How many workers must find room on the one node.
    pub(super) copies: u32,
    pub(super) zone: Option<u32>,
    /// What is kept for others, and when this worker would have ended.
    pub(super) kept: Option<(&'a Claims, i64)>,
}

impl Search<'_> {
    pub(super) fn of(shape: u32) -> Self {
        Self { shape, copies: 1, zone: None, kept: None }
    }

    /// Whether this slot, which has room for a worker, will do.
    pub(super) fn allows(&self, catalog: &Catalog, index: u32, slot: &Slot, need: Need) -> bool {
        let in_zone = self.zone.is_none_or(|zone| catalog.shelves.classes[slot.class as usize].terms.zone == zone);
        in_zone
            && (self.copies == 1 || need.times(self.copies).fits_in(slot.room))
            && self.kept.is_none_or(|(claims, ends)| {
                claims.allow(index, slot.room, need.times(self.copies), ends, catalog.shapes.shape(self.shape).asker.who)
            })
    }
}

#[derive(Debug, Clone, Copy)]
struct Ranked {
    agreed: Agreed,
    class: u32,
}

/// How a wish ranks the classes.
#[derive(Debug, Default)]
pub(super) struct View {
    /// As of which version of the classes; none: never.
    version: Option<u64>,
    ranked: Vec<Ranked>,
    /// There are more classes than these: it is good only until something grows.
    partial: bool,
    /// How many of the first classes have no devices left, and since when that is known.
    spent: usize,
    grown: u64,
}

enum Walk {
    Found(Pick),
    Nothing,
    /// It got long, or the ranking ended before the classes did.
    Unknown,
}

impl Catalog {
    /// The best place that will do.
    pub(super) fn pick(&mut self, search: &Search<'_>) -> Option<Pick> {
        let wish = self.shapes.shape(search.shape).wish;
        self.shapes.wished_mut(wish).wish.refresh(&self.names);
        if self.is_refused_by_all(search.shape) {
            return None;
        }
        if self.shapes.shape(search.shape).asker.only.is_some() {
            return self.pick_among(search);
        }
        let mut view = std::mem::take(&mut self.shapes.wished_mut(wish).view);
        let fresh = view.version == Some(self.shelves.version) && !(view.partial && view.grown != self.grown);
        if !fresh {
            view = self.rank(wish);
        } else if view.grown != self.grown {
            (view.spent, view.grown) = (0, self.grown);
        }
        let walk = self.walk(&mut view, search);
        self.shapes.wished_mut(wish).view = view;
        match walk {
            Walk::Found(pick) => Some(pick),
            Walk::Nothing => None,
            Walk::Unknown => self.survey(search),
        }
    }

    /// Volumes tie a task to few nodes: they are asked one by one.
    fn pick_among(&self, search: &Search<'_>) -> Option<Pick> {
        let shape = self.shapes.shape(search.shape);
        let wish = &self.shapes.wished(shape.wish).wish;
        let mut best: Option<(Order<'_>, Pick)> = None;
        for index in shape.asker.only.iter().flatten().flat_map(|node| self.slots_of(*node)) {
            let slot = self.slot(index);
            let terms = &self.shelves.classes[slot.class as usize].terms;
            let Some(agreed) = wish.agrees(terms).ok().filter(|_| slot.closed.is_none()) else { continue };
            let fits = shape.asker.refuses(slot, agreed.need, terms.replicas_per_device).is_none();
            if fits && search.allows(self, index, slot, agreed.need) {
                let order = Order { rank: agreed.rank, left: slot.room.devices - agreed.need.devices, name: self.name(index) };
                better(&mut best, order, Pick { slot: index, need: agreed.need, price_units: agreed.rank.price_units });
            }
        }
        best.map(|(_, pick)| pick)
    }

    /// Ranks the classes anew: all that agree or, where those are many, the best that have room.
    fn rank(&mut self, wish: u32) -> View {
        let known: usize = self.shapes.views().map(|view| view.ranked.len()).sum();
        if known > RANKED_IN_ALL {
            self.shapes.forget_views();
        }
        let wish = &self.shapes.wished(wish).wish;
        let with_slots = self.shelves.classes.iter().zip(0..).filter(|(class, _)| !class.shelves.is_empty());
        let agreed = with_slots.filter_map(|(class, number)| wish.agrees(&class.terms).ok().map(|agreed| Ranked { agreed, class: number }));
        let mut ranked: Vec<Ranked> = agreed.collect();
        let partial = ranked.len() > RANKED;
        if partial {
            ranked.retain(|ranked| self.class(ranked.class).with(ranked.agreed.need).next().is_some());
        }
        let order = |ranked: &Ranked| (ranked.agreed.rank, ranked.class);
        if ranked.len() > RANKED {
            ranked.select_nth_unstable_by_key(RANKED, order);
            ranked.truncate(RANKED);
            ranked.shrink_to_fit();
        }
        ranked.sort_unstable_by_key(order);
        View { version: Some(self.shelves.version), ranked, partial, spent: 0, grown: self.grown }
    }

    pub(super) fn class(&self, class: u32) -> &Class {
        &self.shelves.classes[class as usize]
    }

    fn walk(&mut self, view: &mut View, search: &Search<'_>) -> Walk {
        let (mut at, mut looks, mut spending) = (view.spent, LOOKS, true);
        while let Some(first) = view.ranked.get(at) {
            // Classes of one rank are one: the tightest fit and then the name decide between them.
            let alike = view.ranked[at..].iter().take_while(|next| next.agreed.rank == first.agreed.rank).count();
            let band = &view.ranked[at..at + alike];
            at += alike;
            spending = spending && !band.iter().any(|ranked| self.class(ranked.class).has_devices(ranked.agreed.need.devices));
            if spending {
                view.spent = at;
                continue;
            }
            match self.tightest(band, search, &mut looks) {
                Walk::Nothing => {}
                other => return other,
            }
        }
        if view.partial {
            // All of the best are taken: the next time others are the best.
            view.version = None;
            return Walk::Unknown;
        }
        Walk::Nothing
    }

    /// The place in a band that leaves the fewest devices free, and of those the first by name.
    fn tightest(&mut self, band: &[Ranked], search: &Search<'_>, looks: &mut u32) -> Walk {
        let mut at_least = 0;
        let in_zone = |catalog: &Self, class: u32| search.zone.is_none_or(|zone| catalog.class(class).terms.zone == zone);
        loop {
            let left = |ranked: &Ranked| {
                if !in_zone(self, ranked.class) {
                    return None;
                }
                let need = ranked.agreed.need;
                let wanted = Need { devices: need.devices.saturating_add(at_least), ..need };
                // `most` says what a shelf may have of everything else.
                self.class(ranked.class).with(wanted).map(|(free, _)| free - need.devices).next()
            };
            let Some(left) = band.iter().filter_map(left).min() else { return Walk::Nothing };
            let mut best: Option<(Order<'_>, Pick)> = None;
            let mut tighter = Vec::new();
            for ranked in band {
                if !in_zone(self, ranked.class) {
                    continue;
                }
                let need = ranked.agreed.need;
                let level = Level::Free(need.devices + left);
                match self.first_on(ranked, level, search, looks) {
                    Ok(slot) => {
                        let order = Order { rank: ranked.agreed.rank, left, name: self.name(slot) };
                        better(&mut best, order, Pick { slot, need, price_units: ranked.agreed.rank.price_units });
                    }
                    Err(Some(most)) => tighter.push((ranked.class, level, most)),
                    Err(None) => {}
                }
                if *looks == 0 {
                    return Walk::Unknown;
                }
            }
            let best = best.map(|(_, pick)| pick);
            tighter.into_iter().for_each(|(class, level, most)| self.shelves.tighten(class, level, most));
            if let Some(pick) = best {
                return Walk::Found(pick);
            }
            at_least = left + 1;
        }
    }

    /// The first slot on a shelf that will do; else the most of everything that those on it have.
    fn first_on(&self, ranked: &Ranked, level: Level, search: &Search<'_>, looks: &mut u32) -> Result<u32, Option<Need>> {
        let class = self.class(ranked.class);
        let need = ranked.agreed.need;
        let shelf = class.shelves.iter().find(|shelf| shelf.level == level).filter(|shelf| need.fits_in(shelf.most));
        if shelf.is_none() {
            return Err(None);
        }
        let asker = &self.shapes.shape(search.shape).asker;
        let mut most = Need::default();
        for place in self.shelves.on(ranked.class, level) {
            let slot = self.slot(place.slot);
            if asker.refuses(slot, need, class.terms.replicas_per_device).is_none() && search.allows(self, place.slot, slot, need) {
                return Ok(place.slot);
            }
            most = most.most(slot.room);
            *looks -= 1;
            if *looks == 0 {
                return Err(None);
            }
        }
        Err(Some(most))
    }
}

/// Less is better, to the last: no two offers are alike.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order<'a> {
    pub(super) rank: Rank,
    pub(super) left: u32,
    pub(super) name: &'a str,
}

pub(super) fn better<'a>(best: &mut Option<(Order<'a>, Pick)>, order: Order<'a>, pick: Pick) {
    if best.as_ref().is_none_or(|(known, _)| order < *known) {
        *best = Some((order, pick));
    }
}
