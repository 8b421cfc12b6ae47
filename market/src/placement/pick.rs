//! The best place for one worker. A wish ranks the classes once; whoever asks walks down the ranking and takes the first
//! place that fits. A walk that gets long gives way to a survey, which costs the same whatever the answer is: no
//! decision takes longer than one walk and one survey.

use super::catalog::Catalog;
use super::claims::Claims;
use super::need::Need;
use super::neighbours::Tenancy;
use super::ranking::{Ranked, Ranking};
use super::shelves::{Class, Level};
use super::slot::Slot;
use super::terms::Terms;
use super::wish::Rank;

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
        let who = catalog.shapes.shape(self.shape).asker.who;
        let all = need.times(self.copies);
        self.zone.is_none_or(|zone| catalog.terms(slot.class).zone == zone)
            && (self.copies == 1 || (who.tenancy != Tenancy::Exclusive && all.fits_in(slot.room)))
            && self.kept.is_none_or(|(claims, ends)| claims.allow(index, slot.room, all, ends, who))
    }
}

/// What came of looking where the best places are.
pub(super) enum Walk {
    Found(Pick),
    Nothing,
    /// It got long, or ended before the places did.
    Unknown,
}

impl Catalog {
    /// The best place that will do.
    pub(super) fn pick(&mut self, search: &Search<'_>) -> Option<Pick> {
        let mut looks = self.limits.looks;
        match self.seek(search, &mut looks) {
            Walk::Found(pick) => Some(pick),
            Walk::Nothing => None,
            Walk::Unknown => self.survey(search),
        }
    }

    /// The best place that will do, as far as so many looks find it.
    pub(super) fn seek(&mut self, search: &Search<'_>, looks: &mut u32) -> Walk {
        let wish = self.shapes.shape(search.shape).wish;
        self.refresh(search.shape);
        if self.is_refused_by_all(search.shape) {
            return Walk::Nothing;
        }
        if self.shapes.shape(search.shape).asker.only.is_some() {
            return self.pick_among(search).map_or(Walk::Nothing, Walk::Found);
        }
        let Some(mut ranking) = self.take_ranking(wish) else { return Walk::Unknown };
        let walk = self.walk(&mut ranking, search, looks);
        self.put_ranking(wish, ranking);
        walk
    }

    /// Has the shape's wish look at the cards that are new.
    pub(super) fn refresh(&mut self, shape: u32) {
        let wish = self.shapes.shape(shape).wish;
        self.shapes.wished_mut(wish).wish.refresh(&self.names);
    }

    /// Volumes tie a task to few nodes: they are asked one by one.
    fn pick_among(&self, search: &Search<'_>) -> Option<Pick> {
        let shape = self.shapes.shape(search.shape);
        let wish = &self.shapes.wished(shape.wish).wish;
        let mut best: Option<(Order<'_>, Pick)> = None;
        for index in shape.asker.only.iter().flat_map(|only| &only.nodes).flat_map(|node| self.slots_of(*node)) {
            let slot = self.slot(index);
            let terms = self.terms(slot.class);
            let Some(agreed) = wish.agrees(terms).ok().filter(|_| slot.closed.is_none()) else { continue };
            let fits = shape.asker.refuses(slot, agreed.need, terms.replicas_per_device).is_none();
            if fits && search.allows(self, index, slot, agreed.need) {
                let order = Order { rank: agreed.rank, left: slot.room.devices - agreed.need.devices, name: self.name(index) };
                better(&mut best, order, Pick { slot: index, need: agreed.need, price_units: agreed.rank.price_units });
            }
        }
        best.map(|(_, pick)| pick)
    }

    pub(super) fn terms(&self, class: u32) -> &Terms {
        &self.shelves.terms[class as usize]
    }

    pub(super) fn class(&self, class: u32) -> &Class {
        &self.shelves.classes[class as usize]
    }

    fn walk(&mut self, ranking: &mut Ranking, search: &Search<'_>, looks: &mut u32) -> Walk {
        let (mut at, mut spending) = (ranking.spent, true);
        while let Some(first) = ranking.classes.get(at) {
            // Classes of one rank are one: the tightest fit and then the name decide between them.
            let alike = ranking.classes[at..].iter().take_while(|next| next.agreed.rank == first.agreed.rank).count();
            let band = &ranking.classes[at..at + alike];
            at += alike;
            spending = spending && !band.iter().any(|ranked| self.class(ranked.class).has_devices(ranked.agreed.need.devices));
            if spending {
                ranking.spent = at;
                continue;
            }
            match self.tightest(band, search, looks) {
                Walk::Nothing => {}
                other => return other,
            }
        }
        if ranking.partial {
            // All of the best are taken: the next time others are the best.
            ranking.end();
            return Walk::Unknown;
        }
        Walk::Nothing
    }

    /// The place in a band that leaves the fewest devices free, and of those the first by name.
    fn tightest(&mut self, band: &[Ranked], search: &Search<'_>, looks: &mut u32) -> Walk {
        let mut at_least = 0;
        let in_zone = |catalog: &Self, class: u32| search.zone.is_none_or(|zone| catalog.terms(class).zone == zone);
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
            if asker.refuses(slot, need, self.terms(ranked.class).replicas_per_device).is_none()
                && search.allows(self, place.slot, slot, need)
            {
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
