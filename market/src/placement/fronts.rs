//! The best places for several workers at once, gathered in one look at everything: of all offers, or of each zone.
//! Who comes somewhere takes room there and gives none: until all have their places nothing comes before those that
//! were the best, and what is not among them is not needed.

use super::catalog::Catalog;
use super::pick::{Pick, Search, Walk};
use super::wish::Rank;
use std::collections::BTreeSet;

/// A slot in the order in which slots are chosen: its rank, the devices left free, how many names come before its own.
pub(super) type Standing = (Rank, u32, u32, u32);

/// The best places of one zone, or of all.
#[derive(Debug, Clone, Default)]
pub(super) struct Front {
    best: BTreeSet<Standing>,
    /// There are more.
    cut: bool,
}

#[derive(Debug)]
pub(super) struct Fronts {
    /// So many of the best are kept.
    most: usize,
    /// By zone; one alone where zones don't matter.
    pub(super) fronts: Vec<Front>,
    by_zone: bool,
}

impl Fronts {
    pub(super) fn of_all(most: usize) -> Self {
        Self { most, fronts: vec![Front::default()], by_zone: false }
    }

    pub(super) fn by_zone(most: usize, zones: usize) -> Self {
        Self { most, fronts: vec![Front::default(); zones], by_zone: true }
    }

    #[inline]
    pub(super) fn add(&mut self, zone: u32, standing: Standing, allows: impl FnOnce() -> bool) {
        let Some(front) = self.fronts.get_mut(if self.by_zone { zone as usize } else { 0 }) else { return };
        let full = front.best.len() >= self.most;
        if full && front.best.last().is_some_and(|last| *last < standing) {
            front.cut = true;
        } else if allows() {
            front.best.insert(standing);
            if full {
                front.best.pop_last();
                front.cut = true;
            }
        }
    }
}

impl Catalog {
    /// The best place of a front for a worker who comes there now.
    pub(super) fn next_of(&self, front: &mut Front, search: &Search<'_>) -> Walk {
        let shape = self.shapes.shape(search.shape);
        let wish = &self.shapes.wished(shape.wish).wish;
        while let Some((rank, left, turn, index)) = front.best.pop_first() {
            let slot = self.slot(index);
            let terms = self.terms(slot.class);
            let Ok(agreed) = wish.agrees(terms) else { continue };
            let fits = shape.asker.refuses(slot, agreed.need, terms.replicas_per_device).is_none();
            if fits && search.allows(self, index, slot, agreed.need) {
                // For the next worker it is a tighter fit.
                front.best.insert((rank, left.saturating_sub(agreed.need.devices), turn, index));
                return Walk::Found(Pick { slot: index, need: agreed.need, price_units: rank.price_units });
            }
        }
        if front.cut { Walk::Unknown } else { Walk::Nothing }
    }
}
