//! Every offer, indexed. A slot holds what is the node's own, a class the terms that many slots share (`terms.rs`), and
//! one ordered set has all slots by class, then by what is free, then by name (`shelves.rs`). Chooses what `choose`
//! would choose, in microseconds.

use super::journal::Journal;
use super::need::Need;
use super::neighbours::{Neighbour, Neighbours, Tenancy, Who};
use super::nodes::Nodes;
use super::pick::{Pick, Search};
use super::ranking::Limits;
use super::shapes::Shapes;
use super::shelves::Shelves;
use super::slot::{Slot, bits};
use super::terms::Names;
use super::wish::held;
use super::words::Words;
use super::{Assignment, Beside, Offer, Refused, Request, Tenant};
use crate::money::Amount;
use std::sync::Arc;

/// Where a slot's room comes from.
#[derive(Debug, Clone, Copy, Default)]
struct Stock {
    /// What the offer said was free, and what of that was taken here since.
    offered: Need,
    taken: Need,
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It may hold whom it would not have held if nobody else were there.
    More,
    Less,
    None,
}

/// A resource of a node, by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub(super) node: u32,
    pub(super) resource: u32,
}

#[derive(Debug, Default)]
pub struct Catalog {
    pub(super) names: Names,
    pub(super) nodes: Nodes,
    pub(super) labels: Words,
    pub(super) fundings: Words,
    pub(super) namespaces: Words,
    pub(super) shelves: Shelves,
    pub(super) slots: Vec<Option<Slot>>,
    stock: Vec<Stock>,
    /// By slot the next of the same node, in a ring.
    siblings: Vec<u32>,
    vacant: Vec<u32>,
    pub(super) shapes: Shapes,
    pub(super) journal: Journal,
    /// Counts how often a slot may have become acceptable to somebody whom it was not acceptable to.
    pub(super) grown: u64,
    pub(super) limits: Limits,
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

    /// Takes an offer in, or what became of it: one node has one offer of a resource. False: it is as it was.
    pub fn update(&mut self, offer: &Offer) -> bool {
        self.put(offer, Need::default(), Neighbours::default()) != Change::None
    }

    /// The best offer for one worker, or everything that speaks against each.
    pub fn choose(&mut self, request: &Arc<Request>) -> Result<Assignment, Vec<Refused>> {
        let shape = self.enter(request);
        let found = match self.pick(&Search::of(shape)) {
            Some(pick) => Ok(self.assignment(request, &pick)),
            None => Err(self.refusals(shape)),
        };
        self.leave(shape);
        found
    }

    /// An offer, less what was taken of it, with those who took that as neighbours.
    pub(super) fn put(&mut self, offer: &Offer, taken: Need, mut neighbours: Neighbours) -> Change {
        let terms = self.names.pack(offer);
        let class = self.class_for(&terms);
        let offered = Need::free_of(offer);
        let known = self.slot_of(&offer.node, &offer.resource_name);
        let index = known.unwrap_or_else(|| self.new_slot(&offer.node));
        let stock = &mut self.stock[index as usize];
        let offers_less = offered.fits_in(stock.offered);
        (stock.offered, stock.taken) = (offered, taken);
        for tenant in &offer.tenants {
            let tenant = self.who(tenant);
            neighbours.join(Neighbour { tenant, tasks: 1 });
        }
        let labels = self.labels.keep_labels(&offer.labels);
        let slot = Slot {
            node: self.nodes.find(&offer.node).expect("a slot keeps its node's number"),
            class,
            closed: offer.closed,
            beside_in_use: offer.beside.in_use,
            room: offered.minus(taken),
            label_bits: bits(&labels),
            labels,
            neighbours,
        };
        let before = self.slots[index as usize].as_ref();
        let labels = before.map(|before| before.labels.clone());
        let same = before == Some(&slot);
        let opens = before.is_none_or(|before| {
            slot.class != before.class
                || slot.labels != before.labels
                || (before.closed.is_some() && slot.closed.is_none())
                || (before.beside_in_use && !slot.beside_in_use)
                || !slot.neighbours.include(&before.neighbours)
        });
        if !same {
            let grown = before.is_none_or(|before| !slot.is_less_than(before));
            self.set(index, Some(slot), grown);
        }
        // The new ones are kept by now: those that stayed were never let go.
        labels.iter().flat_map(|labels| labels.iter()).for_each(|label| self.labels.release(*label));
        match (opens || !offers_less, same) {
            (true, _) => Change::More,
            (false, false) => Change::Less,
            (false, true) => Change::None,
        }
    }

    /// The node sells this no more. False: it did not before.
    pub fn remove(&mut self, node: &str, resource_name: &str) -> bool {
        let Some(index) = self.slot_of(node, resource_name) else { return false };
        let next = self.siblings[index as usize];
        let (number, labels) = (self.slot(index).node, self.slot(index).labels.clone());
        if next == index {
            self.nodes.set_slot(number, None);
        } else {
            let before = self.ring(index).last().unwrap_or(index);
            self.siblings[before as usize] = next;
            self.nodes.set_slot(number, Some(next));
        }
        self.set(index, None, false);
        labels.iter().for_each(|label| self.labels.release(*label));
        self.nodes.release(number);
        self.vacant.push(index);
        true
    }

    /// An empty slot in the ring of its node.
    fn new_slot(&mut self, node: &str) -> u32 {
        let index = self.vacant.pop().unwrap_or_else(|| u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        let number = self.nodes.keep(node);
        let mut sibling = index;
        match self.nodes.slot(number) {
            Some(first) => sibling = std::mem::replace(&mut self.siblings[first as usize], index),
            None => self.nodes.set_slot(number, Some(index)),
        }
        if index as usize == self.slots.len() {
            self.slots.push(None);
            self.stock.push(Stock::default());
            self.siblings.push(index);
        }
        self.siblings[index as usize] = sibling;
        index
    }

    pub(super) fn slot(&self, index: u32) -> &Slot {
        self.slots[index as usize].as_ref().expect("a slot that is asked for is in use")
    }

    pub(super) fn name(&self, index: u32) -> &Arc<str> {
        self.nodes.name(self.slot(index).node)
    }

    /// What the offer said was free, and what of that was taken here since.
    pub(super) fn stock(&self, index: u32) -> (Need, Need) {
        (self.stock[index as usize].offered, self.stock[index as usize].taken)
    }

    pub(super) fn slot_of(&self, node: &str, resource_name: &str) -> Option<u32> {
        let resource = self.names.resources.find(resource_name)?;
        self.slots_of(self.nodes.find(node)?).find(|index| self.at(*index).resource == resource)
    }

    /// All offers of a node.
    pub(super) fn slots_of(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        self.nodes.slot(node).into_iter().flat_map(|first| self.ring(first))
    }

    /// All offers of a slot's node, from this one on.
    pub(super) fn ring(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(Some(first), move |at| Some(self.siblings[*at as usize]).filter(|next| *next != first))
    }

    /// A worker comes to a node, for one of its resources.
    pub(super) fn take(&mut self, at: At, need: Need, who: Who) {
        self.change(
            at,
            need,
            |stock, need| stock.taken = stock.taken.plus(need),
            |neighbours| {
                neighbours.join(Neighbour { tenant: who, tasks: 1 });
            },
        );
    }

    /// It leaves.
    pub(super) fn give_back(&mut self, at: At, need: Need, who: Who) {
        self.change(at, need, |stock, need| stock.taken = stock.taken.minus(need), |neighbours| neighbours.leave(who));
    }

    /// Devices are the resource's own; everything else all offers of the node share.
    fn change(&mut self, at: At, need: Need, book: impl Fn(&mut Stock, Need), meet: impl Fn(&mut Neighbours)) {
        let Some(first) = self.nodes.slot(at.node) else { return };
        let mut index = first;
        loop {
            let mut slot = self.slot(index).clone();
            let own = self.resource(slot.class) == at.resource;
            let stock = &mut self.stock[index as usize];
            book(stock, if own { need } else { need.beside() });
            slot.room = stock.offered.minus(stock.taken);
            meet(&mut slot.neighbours);
            let grown = !slot.is_less_than(self.slot(index));
            self.set(index, Some(slot), grown);
            index = self.siblings[index as usize];
            if index == first {
                return;
            }
        }
    }

    pub(super) fn resource(&self, class: u32) -> u32 {
        self.names.card(self.terms(class)).resource
    }

    pub(super) fn at(&self, index: u32) -> At {
        let slot = self.slot(index);
        At { node: slot.node, resource: self.resource(slot.class) }
    }

    pub(super) fn who(&mut self, tenant: &Tenant) -> Who {
        Who {
            funding: self.fundings.number(tenant.funding.as_str()),
            namespace: self.namespaces.number(&tenant.namespace),
            tenancy: Tenancy::named(&tenant.tenancy),
        }
    }

    pub(super) fn assignment(&self, request: &Request, pick: &Pick) -> Assignment {
        let slot = self.slot(pick.slot);
        let terms = self.terms(slot.class);
        let price = Amount::from_units(pick.price_units);
        let because = super::because(request.strategy, price, self.names.models.text(self.names.card(terms).model), terms.reputation);
        Assignment {
            node: self.nodes.name(slot.node).to_string(),
            pool: self.names.pools.text(terms.pool).to_string(),
            held: held(pick.need, &terms.prices, super::beside_price(request, self.names.card(terms).beside_price)),
            price_per_hour: price,
            because,
        }
    }

    /// An offer as it stands; of its labels those that the request asks for.
    pub(super) fn offer_at(&self, index: u32, request: &Request) -> Offer {
        let slot = self.slot(index);
        let has = |key: &str, value: &str| {
            self.labels.find(&super::words::label(key, value)).is_some_and(|label| slot.labels.binary_search(&label).is_ok())
        };
        let labels = request.node_selector.iter().filter(|(key, value)| has(key, value));
        let tenant = |neighbour: &Neighbour| Tenant {
            funding: crate::work::FundingId::from_stored(&**self.fundings.text(neighbour.tenant.funding)),
            namespace: self.namespaces.text(neighbour.tenant.namespace).to_string(),
            tenancy: neighbour.tenant.tenancy.name().to_owned(),
        };
        let terms = self.names.unpack(self.terms(slot.class));
        Offer {
            node: self.nodes.name(slot.node).to_string(),
            closed: slot.closed,
            free_devices: slot.room.devices,
            free_cpu_millis: slot.room.cpu_millis,
            free_memory_bytes: slot.room.memory_bytes,
            free_storage_bytes: slot.room.storage_bytes,
            free_pods: slot.room.pods,
            labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
            tenants: slot.neighbours.iter().map(tenant).collect(),
            beside: Beside { in_use: slot.beside_in_use, ..terms.beside },
            ..terms
        }
    }
}
