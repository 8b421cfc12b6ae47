//! What the catalogue keeps of one offer: the little that is the node's own, packed so that a hundred thousand are small.

use super::filter::Reason;
use super::{Closed, DEDICATED, EXCLUSIVE, Held, Request};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What a worker takes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Need {
    pub(super) devices: u32,
    pub(super) cpu_millis: u64,
    pub(super) memory_bytes: u64,
    pub(super) storage_bytes: u64,
    pub(super) pods: u32,
}

impl Need {
    pub(super) fn of(held: &Held, request: &Request) -> Self {
        Self {
            devices: held.devices,
            cpu_millis: held.cpu_millis,
            memory_bytes: held.memory_bytes,
            storage_bytes: request.storage_bytes,
            pods: 1,
        }
    }

    pub(super) fn times(self, count: u32) -> Self {
        let many = |quantity: u64| quantity.saturating_mul(u64::from(count));
        Self {
            devices: self.devices.saturating_mul(count),
            cpu_millis: many(self.cpu_millis),
            memory_bytes: many(self.memory_bytes),
            storage_bytes: many(self.storage_bytes),
            pods: self.pods.saturating_mul(count),
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            devices: self.devices.saturating_add(other.devices),
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            storage_bytes: self.storage_bytes.saturating_add(other.storage_bytes),
            pods: self.pods.saturating_add(other.pods),
        }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            devices: self.devices.saturating_sub(other.devices),
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            storage_bytes: self.storage_bytes.saturating_sub(other.storage_bytes),
            pods: self.pods.saturating_sub(other.pods),
        }
    }

    pub(super) fn fits_in(self, room: Self) -> bool {
        self.shortage(room).is_none()
    }

    /// The first thing of which there is too little, in the order of the reasons.
    pub(super) fn shortage(self, room: Self) -> Option<Reason> {
        if room.devices < self.devices {
            return Some(Reason::DevicesInUse);
        }
        self.shortage_beside_devices(room)
    }

    pub(super) fn shortage_beside_devices(self, room: Self) -> Option<Reason> {
        let short = [
            (room.cpu_millis < self.cpu_millis, Reason::CpuInUse),
            (room.memory_bytes < self.memory_bytes, Reason::MemoryInUse),
            (room.storage_bytes < self.storage_bytes, Reason::StorageInUse),
            (room.pods < self.pods, Reason::PodsInUse),
        ];
        short.into_iter().find(|(short, _)| *short).map(|(_, reason)| reason)
    }
}

/// A tenant of a node, by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) funding: u32,
    pub(super) namespace: u32,
    pub(super) tenancy: Tenancy,
    /// How many tasks: it is gone when the last one is.
    pub(super) tasks: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) node: Arc<str>,
    pub(super) class: u32,
    /// The next offer of the same node, in a ring.
    pub(super) sibling: u32,
    pub(super) closed: Option<Closed>,
    pub(super) room: Need,
    /// Numbers of its labels, sorted.
    pub(super) labels: Box<[u32]>,
    pub(super) neighbours: Vec<Neighbour>,
}

/// Numbers for texts that occur often.
#[derive(Debug, Default)]
pub(super) struct Words {
    numbers: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
}

impl Words {
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if let Some(known) = self.numbers.get(text) {
            return *known;
        }
        let next = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.numbers.insert(text, next);
        next
    }

    pub(super) fn text(&self, number: u32) -> &str {
        self.texts.get(number as usize).map(|text| &**text).unwrap_or_default()
    }

    /// Whether a number is among those of a slot's labels.
    pub(super) fn has(&self, labels: &[u32], key: &str, value: &str) -> bool {
        self.numbers.get(format!("{key}={value}").as_str()).is_some_and(|number| labels.binary_search(number).is_ok())
    }

    pub(super) fn label(&mut self, key: &str, value: &str) -> u32 {
        self.number(&format!("{key}={value}"))
    }

    pub(super) fn labels(&mut self, labels: &BTreeMap<String, String>) -> Box<[u32]> {
        let mut numbers: Vec<u32> = labels.iter().map(|(key, value)| self.label(key, value)).collect();
        numbers.sort_unstable();
        numbers.into()
    }
}

/// A request as the slots are asked about it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) funding: u32,
    pub(super) namespace: u32,
    pub(super) tenancy: Tenancy,
    pub(super) devices: bool,
    pub(super) selector: Vec<u32>,
}

impl Asked {
    pub(super) fn new(request: &Request, words: &mut Words) -> Self {
        Self {
            funding: words.number(request.funding.as_str()),
            namespace: words.number(&request.namespace),
            tenancy: Tenancy::named(&request.tenancy),
            devices: request.devices > 0,
            selector: request.node_selector.iter().map(|(key, value)| words.label(key, value)).collect(),
        }
    }
}

impl Slot {
    /// The first thing that speaks against this very node; the same as the filter of whole offers says.
    pub(super) fn refuses(&self, request: &Request, asked: &Asked, need: Need, replicas: u32) -> Option<Reason> {
        self.unnamed(request, asked).or_else(|| {
            if self.room.devices < need.devices {
                return Some(Reason::DevicesInUse);
            }
            if !self.neighbours.is_empty() && !self.may_join(asked, replicas) {
                return Some(Reason::OccupiedByOthers);
            }
            need.shortage_beside_devices(self.room)
        })
    }

    fn unnamed(&self, request: &Request, asked: &Asked) -> Option<Reason> {
        if asked.selector.iter().any(|label| self.labels.binary_search(label).is_err()) {
            return Some(Reason::SelectorDoesNotMatch);
        }
        if request.excluded_nodes.iter().any(|node| **node == *self.node) {
            return Some(Reason::FailedThereBefore);
        }
        if request.only_nodes.as_ref().is_some_and(|only| only.iter().all(|node| **node != *self.node)) {
            return Some(Reason::VolumeElsewhere);
        }
        None
    }

    fn may_join(&self, asked: &Asked, replicas: u32) -> bool {
        let shared_devices = asked.devices && replicas > 1;
        asked.tenancy != Tenancy::Exclusive
            && self.neighbours.iter().all(|neighbour| {
                let ours = neighbour.funding == asked.funding;
                neighbour.tenancy != Tenancy::Exclusive
                    && (ours || (asked.tenancy != Tenancy::Dedicated && neighbour.tenancy != Tenancy::Dedicated))
                    && (!shared_devices || neighbour.namespace == asked.namespace)
            })
    }
}
