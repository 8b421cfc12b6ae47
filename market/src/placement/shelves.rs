//! The order in which slots are looked at. Slots on the same terms are one class; within it those with as much free
//! stand on one shelf, by name. All shelves of all classes are one ordered set, and each class keeps a line on each of
//! its shelves, so that most are passed over without being opened.

use super::Closed;
use super::catalog::Catalog;
use super::need::Need;
use super::slot::Slot;
use super::terms::Terms;
use foldhash::HashMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where a slot stands in its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// So many devices are free.
    Free(u32),
    Closed(Closed),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Shelf {
    pub(super) level: Level,
    pub(super) slots: u32,
    /// No slot on it has more of anything. Whoever looks at all of them and finds less says so here.
    pub(super) most: Need,
}

#[derive(Debug, Default)]
pub(super) struct Class {
    slots: u32,
    /// By level.
    pub(super) shelves: Vec<Shelf>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) class: u32,
    pub(super) level: Level,
    pub(super) name: Arc<str>,
    pub(super) slot: u32,
}

#[derive(Debug, Default)]
pub(super) struct Shelves {
    /// Some may be empty: their number is given to the next class.
    pub(super) classes: Vec<Class>,
    /// The terms of each class.
    pub(super) terms: Vec<Terms>,
    class_of: HashMap<Terms, u32>,
    vacant: Vec<u32>,
    pub(super) places: BTreeSet<Place>,
    /// Counts how often a class came or went.
    pub(super) version: u64,
    /// Comes before every name.
    no_name: Arc<str>,
}

impl Class {
    /// The shelves of open nodes on which so much might be free, the tightest first.
    pub(super) fn with(&self, need: Need) -> impl Iterator<Item = (u32, &Shelf)> {
        let from = self.shelves.partition_point(|shelf| shelf.level < Level::Free(need.devices));
        self.shelves[from..].iter().filter_map(move |shelf| match shelf.level {
            Level::Free(free) if need.fits_in(shelf.most) => Some((free, shelf)),
            _ => None,
        })
    }

    pub(super) fn has_devices(&self, devices: u32) -> bool {
        let from = self.shelves.partition_point(|shelf| shelf.level < Level::Free(devices));
        self.shelves.get(from).is_some_and(|shelf| matches!(shelf.level, Level::Free(_)))
    }
}

impl Shelves {
    /// What stands on one shelf, by name.
    pub(super) fn on(&self, class: u32, level: Level) -> impl Iterator<Item = &Place> {
        let first = Place { class, level, name: self.no_name.clone(), slot: 0 };
        self.places.range(first..).take_while(move |place| place.class == class && place.level == level)
    }

    /// Everything on a shelf was looked at: no more than this is there.
    pub(super) fn tighten(&mut self, class: u32, level: Level, most: Need) {
        let shelves = &mut self.classes[class as usize].shelves;
        if let Ok(at) = shelves.binary_search_by_key(&level, |shelf| shelf.level) {
            shelves[at].most = most;
        }
    }

    fn add(&mut self, index: u32, slot: &Slot, name: &Arc<str>) {
        let level = level(slot);
        let shelves = &mut self.classes[slot.class as usize].shelves;
        match shelves.binary_search_by_key(&level, |shelf| shelf.level) {
            Ok(at) => {
                shelves[at].slots += 1;
                shelves[at].most = shelves[at].most.most(slot.room);
            }
            Err(at) => shelves.insert(at, Shelf { level, slots: 1, most: slot.room }),
        }
        self.places.insert(Place { class: slot.class, level, name: name.clone(), slot: index });
    }

    fn remove(&mut self, index: u32, slot: &Slot, name: &Arc<str>) {
        let level = level(slot);
        let shelves = &mut self.classes[slot.class as usize].shelves;
        if let Ok(at) = shelves.binary_search_by_key(&level, |shelf| shelf.level) {
            shelves[at].slots -= 1;
            if shelves[at].slots == 0 {
                shelves.remove(at);
            }
        }
        self.places.remove(&Place { class: slot.class, level, name: name.clone(), slot: index });
    }
}

fn level(slot: &Slot) -> Level {
    slot.closed.map_or(Level::Free(slot.room.devices), Level::Closed)
}

impl Catalog {
    /// The class of these terms, made if there is none.
    pub(super) fn class_for(&mut self, terms: &Terms) -> u32 {
        let shelves = &mut self.shelves;
        if let Some(known) = shelves.class_of.get(terms) {
            return *known;
        }
        let number = shelves.vacant.pop().unwrap_or_else(|| u32::try_from(shelves.classes.len()).unwrap_or(u32::MAX));
        match shelves.terms.get_mut(number as usize) {
            Some(place) => *place = *terms,
            None => {
                shelves.terms.push(*terms);
                shelves.classes.push(Class::default());
            }
        }
        shelves.class_of.insert(*terms, number);
        self.reclassed();
        number
    }

    /// What was known of classes, and of slots by their class, is known no more.
    fn reclassed(&mut self) {
        self.shelves.version += 1;
        self.journal.begin_anew();
    }

    /// The one place where a slot changes: on its shelf, in its class and in the journal.
    pub(super) fn set(&mut self, index: u32, new: Option<Slot>, grown: bool) {
        self.grown += u64::from(grown);
        let old = std::mem::replace(&mut self.slots[index as usize], new);
        let new = self.slots[index as usize].as_ref();
        let node = new.or(old.as_ref()).map(|slot| slot.node).unwrap_or_default();
        let name = self.nodes.name(node);
        let stays = old.as_ref().zip(new).is_some_and(|(old, new)| old.class == new.class && level(old) == level(new));
        if let (true, Some(new)) = (stays, new) {
            let shelves = &mut self.shelves.classes[new.class as usize].shelves;
            if let Ok(at) = shelves.binary_search_by_key(&level(new), |shelf| shelf.level) {
                shelves[at].most = shelves[at].most.most(new.room);
            }
        } else {
            if let Some(old) = &old {
                self.shelves.remove(index, old, name);
            }
            if let Some(new) = new {
                self.shelves.add(index, new, name);
            }
        }
        let (from, to) = (old.as_ref().map(|slot| slot.class), new.map(|slot| slot.class));
        self.journal.note(index, old);
        if from != to {
            self.moved(from, to);
        }
    }

    /// A slot changed its class: one that nobody is in ends.
    fn moved(&mut self, from: Option<u32>, to: Option<u32>) {
        if let Some(to) = to {
            self.shelves.classes[to as usize].slots += 1;
        }
        let Some(from) = from else { return };
        let class = &mut self.shelves.classes[from as usize];
        class.slots -= 1;
        if class.slots == 0 {
            self.shelves.class_of.remove(&self.shelves.terms[from as usize]);
            self.shelves.vacant.push(from);
            self.reclassed();
        }
    }
}
