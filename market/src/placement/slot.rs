//! What the catalogue keeps of one offer: the little that is the node's own, packed so that a hundred thousand of them
//! are small and are looked through in milliseconds. And who asks, as the slots see them.

use super::Closed;
use super::filter::Reason;
use super::need::Need;
use super::neighbours::{Neighbours, Tenancy, Who};
use std::sync::Arc;

/// One offer. Everything else about it stands in its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// Its node's number.
    pub(super) node: u32,
    pub(super) class: u32,
    pub(super) closed: Option<Closed>,
    /// Whether others have some of its node's other devices.
    pub(super) beside_in_use: bool,
    /// What is free.
    pub(super) room: Need,
    /// Of its labels' numbers: a label whose bit is not here is not among them.
    pub(super) label_bits: u64,
    /// Numbers of its labels, sorted.
    pub(super) labels: Arc<[u32]>,
    pub(super) neighbours: Neighbours,
}

impl Slot {
    /// Whether it is acceptable to nobody to whom the slot before was not.
    pub(super) fn is_less_than(&self, before: &Self) -> bool {
        self.class == before.class
            && (self.closed.is_some() || before.closed.is_none())
            && (self.beside_in_use || !before.beside_in_use)
            && self.room.fits_in(before.room)
            && self.labels == before.labels
            && self.neighbours.include(&before.neighbours)
    }
}

/// One bit of 64 for each number, set together.
pub(super) fn bits(numbers: &[u32]) -> u64 {
    numbers.iter().fold(0, |bits, number| bits | 1 << (number.wrapping_mul(0x9E37_79B9) >> 26))
}

/// The only nodes that will do: a list to go through, and a bit for each number to ask about one.
#[derive(Debug)]
pub(super) struct Only {
    pub(super) nodes: Vec<u32>,
    bits: Vec<u64>,
}

impl Only {
    pub(super) fn new(nodes: Vec<u32>) -> Self {
        let words = nodes.iter().max().map_or(0, |most| *most as usize / 64 + 1);
        let mut bits = vec![0; words];
        nodes.iter().for_each(|node| bits[*node as usize / 64] |= 1 << (node % 64));
        Self { nodes, bits }
    }

    fn has(&self, node: u32) -> bool {
        self.bits.get(node as usize / 64).is_some_and(|word| word >> (node % 64) & 1 == 1)
    }
}

/// Who asks, and which nodes it names: what of a request concerns the very node.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) who: Who,
    pub(super) has_devices: bool,
    /// Numbers of labels that a node must have, and their bits.
    pub(super) selector: Vec<u32>,
    pub(super) selector_bits: u64,
    /// Numbers of nodes, sorted.
    pub(super) excluded: Vec<u32>,
    pub(super) only: Option<Only>,
}

impl Asker {
    /// The first thing that speaks against this very node: the same as the filter of whole offers says.
    #[inline]
    pub(super) fn refuses(&self, slot: &Slot, need: Need, replicas: u32) -> Option<Reason> {
        if let Some(reason) = self.unwanted(slot) {
            return Some(reason);
        }
        if slot.room.devices < need.devices || (slot.beside_in_use && self.who.tenancy == Tenancy::Exclusive) {
            return Some(Reason::DevicesInUse);
        }
        if !slot.neighbours.welcome(self.who, self.has_devices && replicas > 1) {
            return Some(Reason::OccupiedByOthers);
        }
        need.shortage_beside_devices(slot.room)
    }

    /// Why it would not go there even if nobody else did.
    #[inline]
    pub(super) fn unwanted(&self, slot: &Slot) -> Option<Reason> {
        let may_have_all = slot.label_bits & self.selector_bits == self.selector_bits;
        if !may_have_all || self.selector.iter().any(|label| slot.labels.binary_search(label).is_err()) {
            return Some(Reason::SelectorDoesNotMatch);
        }
        if self.excluded.binary_search(&slot.node).is_ok() {
            return Some(Reason::FailedThereBefore);
        }
        if self.only.as_ref().is_some_and(|only| !only.has(slot.node)) {
            return Some(Reason::VolumeElsewhere);
        }
        None
    }
}
