//! Every offer, indexed: nodes on the same terms are one class, a class keeps its nodes by what is free, and a request
//! looks at classes in the order of its own scores. Chooses what `choose` would choose, in microseconds.

use super::filter;
use super::slot::{Asked, Need, Neighbour, Slot, Words};
use super::{Assignment, Closed, Held, Offer, Rank, Refused, Request, Tenant, assignment, held_on, rank};
use crate::money::Amount;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Requests whose ranking of the classes is kept; more begin anew.
const VIEWS: usize = 256;

/// Where a slot stands in its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shelf {
    Free(u32),
    Closed(Closed),
}

/// Offers on the same terms: everything but what is the node's own.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) terms: Offer,
    pub(super) shelves: BTreeMap<Shelf, BTreeMap<Arc<str>, u32>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    rank: Rank,
    price: Amount,
    class: u32,
}

/// How one request sees the classes.
#[derive(Debug)]
struct View {
    asked: Asked,
    ranked: Vec<Ranked>,
    /// How many of the first classes have no device left for it, and since when that is known.
    spent: usize,
    spent_at: u64,
}

/// One place for one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pick {
    pub(super) slot: u32,
    pub(super) held: Held,
    pub(super) need: Need,
    pub(super) price: Amount,
}

#[derive(Debug, Default)]
pub struct Catalog {
    pub(super) classes: Vec<Class>,
    class_of: HashMap<Offer, u32>,
    pub(super) slots: Vec<Slot>,
    vacant: Vec<u32>,
    by_node: HashMap<Arc<str>, u32>,
    pub(super) words: Words,
    views: HashMap<Arc<Request>, View>,
    /// Counts how often devices came free or an offer came.
    grown: u64,
}

impl Catalog {
    pub fn new() -> Self {
        Self::default()
    }

    /// How many offers there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes an offer in, or what became of it: one node has one offer of a resource.
    pub fn update(&mut self, offer: &Offer) {
        let class = self.class_for(offer);
        let tenants: Vec<Neighbour> = offer.tenants.iter().map(|tenant| self.neighbour(tenant)).collect();
        let labels = self.words.labels(&offer.labels);
        let room = Need {
            devices: offer.free_devices,
            cpu_millis: offer.free_cpu_millis,
            memory_bytes: offer.free_memory_bytes,
            storage_bytes: offer.free_storage_bytes,
            pods: offer.free_pods,
        };
        if let Some(known) = self.slot_of(&offer.node, &offer.resource_name) {
            self.unshelve(known);
            let slot = &mut self.slots[known as usize];
            let same = slot.class == class && slot.closed == offer.closed && room.devices <= slot.room.devices;
            self.grown += u64::from(!same);
            (slot.class, slot.closed, slot.room, slot.labels, slot.neighbours) = (class, offer.closed, room, labels, tenants);
            self.shelve(known);
            return;
        }
        self.grown += 1;
        let index = self.vacant.pop().unwrap_or_else(|| u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        let first = self.by_node.get(offer.node.as_str()).copied();
        let (node, sibling) = match first {
            Some(first) => (self.slots[first as usize].node.clone(), self.slots[first as usize].sibling),
            None => (Arc::from(offer.node.as_str()), index),
        };
        let slot = Slot { node: node.clone(), class, sibling, closed: offer.closed, room, labels, neighbours: tenants };
        match self.slots.get_mut(index as usize) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        match first {
            Some(first) => self.slots[first as usize].sibling = index,
            None => drop(self.by_node.insert(node, index)),
        }
        self.shelve(index);
    }

    /// The node sells this no more.
    pub fn remove(&mut self, node: &str, resource_name: &str) {
        let Some(index) = self.slot_of(node, resource_name) else { return };
        self.unshelve(index);
        let next = self.slots[index as usize].sibling;
        if next == index {
            self.by_node.remove(node);
        } else {
            let before = self.ring(index).last().unwrap_or(index);
            self.slots[before as usize].sibling = next;
            self.by_node.insert(self.slots[next as usize].node.clone(), next);
        }
        self.vacant.push(index);
    }

    /// The best offer for one worker, or everything that speaks against each.
    pub fn choose(&mut self, request: &Arc<Request>) -> Result<Assignment, Vec<Refused>> {
        match self.pick(request, 1, |_, _| true) {
            Some(pick) => Ok(self.assignment(request, &pick)),
            None => Err(self.refusals(request).into_values().collect()),
        }
    }

    pub(super) fn assignment(&self, request: &Request, pick: &Pick) -> Assignment {
        let slot = &self.slots[pick.slot as usize];
        let chosen = assignment(&self.classes[slot.class as usize].terms, request, pick.held, pick.price);
        Assignment { node: slot.node.to_string(), ..chosen }
    }

    pub(super) fn slot(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }

    pub(super) fn zone_of(&self, index: u32) -> Option<&str> {
        self.classes[self.slots[index as usize].class as usize].terms.zone.as_deref()
    }

    /// Every zone that is on offer.
    pub(super) fn zones(&self) -> BTreeSet<String> {
        self.classes.iter().filter_map(|class| class.terms.zone.clone()).collect()
    }

    pub(super) fn slot_of(&self, node: &str, resource_name: &str) -> Option<u32> {
        let first = *self.by_node.get(node)?;
        self.ring(first).find(|index| self.classes[self.slots[*index as usize].class as usize].terms.resource_name == resource_name)
    }

    /// All offers of a slot's node, from this one on.
    pub(super) fn ring(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(Some(first), move |at| Some(self.slots[*at as usize].sibling).filter(|next| *next != first))
    }

    /// The best place with room for `copies` workers that `allowed` lets pass.
    pub(super) fn pick(&mut self, request: &Arc<Request>, copies: u32, allowed: impl Fn(&Self, (u32, Need)) -> bool) -> Option<Pick> {
        self.see(request);
        let view = self.views.get(request)?;
        let (mut at, mut spent, mut passing) = (if view.spent_at == self.grown { view.spent } else { 0 }, 0, true);
        let mut picked = None;
        while let Some(first) = view.ranked.get(at) {
            let mut best: Option<(u32, &Arc<str>, Pick)> = None;
            // Classes of equal score are one: the tightest fit and then the name decide between them.
            while let Some(ranked) = view.ranked.get(at).filter(|next| (next.rank, next.price) == (first.rank, first.price)) {
                at += 1;
                let held = held_on(&self.classes[ranked.class as usize].terms, request);
                let need = Need::of(&held, request).times(copies);
                passing = passing && !self.has_devices(ranked.class, held.devices);
                if passing {
                    spent = at;
                }
                let bound = best.as_ref().map(|(left, name, _)| (*left, *name));
                let found = self.tightest(ranked.class, request, &view.asked, need, bound, &allowed);
                if let Some((free, name, slot)) = found {
                    let pick = Pick { slot, held, need: Need::of(&held, request), price: ranked.price };
                    best = Some((free - need.devices, name, pick));
                }
            }
            if let Some((.., pick)) = best {
                picked = Some(pick);
                break;
            }
        }
        let grown = self.grown;
        if let Some(view) = self.views.get_mut(request) {
            let known = if view.spent_at == grown { view.spent } else { 0 };
            (view.spent, view.spent_at) = (known.max(spent), grown);
        }
        picked
    }

    fn has_devices(&self, class: u32, devices: u32) -> bool {
        let last = self.classes[class as usize].shelves.range(Shelf::Free(devices)..Shelf::Free(u32::MAX)).next();
        last.is_some()
    }

    /// The first node of a class that fits, if it is tighter than `bound`.
    fn tightest(
        &self,
        class: u32,
        request: &Request,
        asked: &Asked,
        need: Need,
        bound: Option<(u32, &Arc<str>)>,
        allowed: &impl Fn(&Self, (u32, Need)) -> bool,
    ) -> Option<(u32, &Arc<str>, u32)> {
        let class = &self.classes[class as usize];
        let replicas = class.terms.replicas_per_device;
        for (shelf, nodes) in class.shelves.range(Shelf::Free(need.devices)..) {
            let Shelf::Free(free) = *shelf else { return None };
            for (name, &slot) in nodes {
                if bound.is_some_and(|bound| bound <= (free - need.devices, name)) {
                    return None;
                }
                let fits = self.slots[slot as usize].refuses(request, asked, need, replicas).is_none();
                if fits && allowed(self, (slot, need)) {
                    return Some((free, name, slot));
                }
            }
        }
        None
    }

    /// A worker comes to a slot, with its tenant.
    pub(super) fn take(&mut self, index: u32, need: Need, tenant: &Tenant) {
        let neighbour = self.neighbour(tenant);
        self.change(index, |slot, own| {
            slot.room = slot.room.minus(if own { need } else { Need { devices: 0, ..need } });
            match slot.neighbours.iter_mut().find(|known| Neighbour { tasks: 1, ..**known } == neighbour) {
                Some(known) => known.tasks += 1,
                None => slot.neighbours.push(neighbour),
            }
        });
    }

    /// It leaves.
    pub(super) fn give_back(&mut self, index: u32, need: Need, tenant: &Tenant) {
        let neighbour = self.neighbour(tenant);
        self.change(index, |slot, own| {
            slot.room = slot.room.plus(if own { need } else { Need { devices: 0, ..need } });
            for known in slot.neighbours.iter_mut().filter(|known| Neighbour { tasks: 1, ..**known } == neighbour) {
                known.tasks -= 1;
            }
            slot.neighbours.retain(|known| known.tasks > 0);
        });
    }

    fn change(&mut self, index: u32, mut change: impl FnMut(&mut Slot, bool)) {
        let mut at = index;
        loop {
            let before = self.slots[at as usize].room.devices;
            if at == index {
                self.unshelve(at);
            }
            change(&mut self.slots[at as usize], at == index);
            self.grown += u64::from(self.slots[at as usize].room.devices > before);
            debug_assert!(at == index || self.slots[at as usize].room.devices == before, "siblings share no devices");
            if at == index {
                self.shelve(at);
            }
            at = self.slots[at as usize].sibling;
            if at == index {
                return;
            }
        }
    }

    fn neighbour(&mut self, tenant: &Tenant) -> Neighbour {
        Neighbour {
            funding: self.words.number(tenant.funding.as_str()),
            namespace: self.words.number(&tenant.namespace),
            tenancy: super::slot::Tenancy::named(&tenant.tenancy),
            tasks: 1,
        }
    }

    fn shelf(slot: &Slot) -> Shelf {
        slot.closed.map_or(Shelf::Free(slot.room.devices), Shelf::Closed)
    }

    fn shelve(&mut self, index: u32) {
        let slot = &self.slots[index as usize];
        let shelves = &mut self.classes[slot.class as usize].shelves;
        shelves.entry(Self::shelf(slot)).or_default().insert(slot.node.clone(), index);
    }

    fn unshelve(&mut self, index: u32) {
        let slot = &self.slots[index as usize];
        let shelves = &mut self.classes[slot.class as usize].shelves;
        let shelf = Self::shelf(slot);
        if let Some(nodes) = shelves.get_mut(&shelf) {
            nodes.remove(&slot.node);
            if nodes.is_empty() {
                shelves.remove(&shelf);
            }
        }
    }

    fn class_for(&mut self, offer: &Offer) -> u32 {
        let terms = terms_of(offer);
        if let Some(known) = self.class_of.get(&terms) {
            return *known;
        }
        let index = u32::try_from(self.classes.len()).unwrap_or(u32::MAX);
        for (request, view) in &mut self.views {
            if let Some(entry) = ranked(&terms, request, index) {
                let place = view.ranked.partition_point(|known| *known < entry);
                view.ranked.insert(place, entry);
                view.spent = 0;
            }
        }
        self.classes.push(Class { terms: terms.clone(), shelves: BTreeMap::new() });
        self.class_of.insert(terms, index);
        index
    }

    /// Makes sure that the request's ranking of the classes is there.
    fn see(&mut self, request: &Arc<Request>) {
        if self.views.contains_key(request) {
            return;
        }
        if self.views.len() >= VIEWS {
            self.views.clear();
        }
        let all = self.classes.iter().zip(0..);
        let mut all: Vec<_> = all.filter_map(|(class, index)| ranked(&class.terms, request, index)).collect();
        all.sort_unstable();
        let asked = Asked::new(request, &mut self.words);
        self.views.insert(request.clone(), View { asked, ranked: all, spent: 0, spent_at: self.grown });
    }
}

fn ranked(terms: &Offer, request: &Request, class: u32) -> Option<Ranked> {
    filter::sold(terms, request).ok()?;
    let (_, price) = filter::agreed(terms, request).ok()?;
    Some(Ranked { rank: rank(terms, request, price), price, class })
}

/// An offer without what is the node's own.
fn terms_of(offer: &Offer) -> Offer {
    Offer {
        node: String::new(),
        free_devices: 0,
        free_cpu_millis: 0,
        free_memory_bytes: 0,
        free_storage_bytes: 0,
        free_pods: 0,
        labels: BTreeMap::new(),
        tenants: Vec::new(),
        closed: None,
        ..offer.clone()
    }
}
