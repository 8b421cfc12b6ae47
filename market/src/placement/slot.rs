//! What the catalogue keeps of one offer: the little that is the node's own, packed so that a hundred thousand of them
//! are small and are looked through in milliseconds. And who asks, as the slots see them.

use super::filter::Reason;
use super::need::Need;
use super::{Closed, DEDICATED, EXCLUSIVE};
use std::sync::Arc;

/// One offer. Everything else about it stands in its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// Its node's number.
    pub(super) node: u32,
    pub(super) class: u32,
    pub(super) closed: Option<Closed>,
    /// What is free.
    pub(super) room: Need,
    /// Numbers of its labels, sorted.
    pub(super) labels: Arc<[u32]>,
    pub(super) neighbours: Vec<Neighbour>,
}

impl Slot {
    /// Whether it is acceptable to nobody to whom the slot before was not.
    pub(super) fn is_less_than(&self, before: &Self) -> bool {
        let there = |neighbour: &Neighbour| self.neighbours.iter().any(|known| known.tenant == neighbour.tenant);
        self.class == before.class
            && (self.closed.is_some() || before.closed.is_none())
            && self.room.fits_in(before.room)
            && self.labels == before.labels
            && before.neighbours.iter().all(there)
    }
}

/// Tasks of one tenant on a node, by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) tenant: Who,
    /// How many tasks: it is gone when the last one is.
    pub(super) tasks: u32,
}

/// A tenant, by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Who {
    pub(super) funding: u32,
    pub(super) namespace: u32,
    pub(super) tenancy: Tenancy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Tenancy {
    Shared,
    Dedicated,
    Exclusive,
}

impl Tenancy {
    pub(super) fn named(name: &str) -> Self {
        match name {
            EXCLUSIVE => Self::Exclusive,
            DEDICATED => Self::Dedicated,
            _ => Self::Shared,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Exclusive => EXCLUSIVE,
            Self::Dedicated => DEDICATED,
            Self::Shared => "Shared",
        }
    }
}

impl Who {
    /// Whether two may be on one node; `of_one_namespace` when its devices are shared and both have some.
    pub(super) fn may_join(self, other: Self, of_one_namespace: bool) -> bool {
        let alone = |who: Self| who.tenancy == Tenancy::Exclusive;
        let dedicated = self.tenancy == Tenancy::Dedicated || other.tenancy == Tenancy::Dedicated;
        !alone(self)
            && !alone(other)
            && (self.funding == other.funding || !dedicated)
            && (!of_one_namespace || self.namespace == other.namespace)
    }
}

/// Who asks, and which nodes it names: what of a request concerns the very node.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) who: Who,
    pub(super) has_devices: bool,
    /// Numbers of labels that a node must have.
    pub(super) selector: Vec<u32>,
    /// Numbers of nodes, sorted.
    pub(super) excluded: Vec<u32>,
    pub(super) only: Option<Vec<u32>>,
}

impl Asker {
    /// Whether every node of a class is alike to it but for what is in use there.
    pub(super) fn names_no_node(&self) -> bool {
        self.selector.is_empty() && self.excluded.is_empty() && self.only.is_none()
    }

    /// The first thing that speaks against this very node: the same as the filter of whole offers says.
    pub(super) fn refuses(&self, slot: &Slot, need: Need, replicas: u32) -> Option<Reason> {
        if let Some(reason) = self.unwanted(slot) {
            return Some(reason);
        }
        if slot.room.devices < need.devices {
            return Some(Reason::DevicesInUse);
        }
        if !slot.neighbours.is_empty() && !self.may_join(slot, replicas) {
            return Some(Reason::OccupiedByOthers);
        }
        need.shortage_beside_devices(slot.room)
    }

    /// Why it would not go there even if nobody else did.
    pub(super) fn unwanted(&self, slot: &Slot) -> Option<Reason> {
        if self.selector.iter().any(|label| slot.labels.binary_search(label).is_err()) {
            return Some(Reason::SelectorDoesNotMatch);
        }
        if self.excluded.binary_search(&slot.node).is_ok() {
            return Some(Reason::FailedThereBefore);
        }
        if self.only.as_ref().is_some_and(|only| only.binary_search(&slot.node).is_err()) {
            return Some(Reason::VolumeElsewhere);
        }
        None
    }

    fn may_join(&self, slot: &Slot, replicas: u32) -> bool {
        let of_one_namespace = self.has_devices && replicas > 1;
        slot.neighbours.iter().all(|neighbour| self.who.may_join(neighbour.tenant, of_one_namespace))
    }
}
