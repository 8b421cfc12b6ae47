//! Who runs where until when. A holding belongs to its node and not to the node's offer: an offer that goes and comes
//! back finds taken what is taken.

use super::catalog::{At, Catalog};
use super::need::Need;
use super::neighbours::{Neighbour, Neighbours, Who};
use crate::work::FundingId;
use foldhash::HashMap;
use std::sync::Arc;

/// What one worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) task: Arc<str>,
    pub(super) at: At,
    pub(super) need: Need,
    pub(super) who: Who,
    pub(super) ends: i64,
}

/// A task that has its places.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    funding: FundingId,
    price_units: u64,
    workers: Vec<Holding>,
}

#[derive(Debug, Default)]
pub(super) struct Holdings {
    holders: HashMap<Arc<str>, Holder>,
    by_node: HashMap<u32, Vec<Holding>>,
}

impl Holdings {
    pub(super) fn has(&self, task: &str) -> bool {
        self.holders.contains_key(task)
    }

    /// Whether a task holds just that.
    pub(super) fn is(&self, task: &str, workers: &[Holding]) -> bool {
        self.holders.get(task).is_some_and(|holder| holder.workers == workers)
    }

    pub(super) fn add(&mut self, catalog: &mut Catalog, funding: FundingId, price_units: u64, workers: Vec<Holding>) {
        let Some(first) = workers.first() else { return };
        let task = first.task.clone();
        for worker in &workers {
            catalog.nodes.keep_again(worker.at.node);
            self.by_node.entry(worker.at.node).or_default().push(worker.clone());
        }
        self.holders.insert(task, Holder { funding, price_units, workers });
    }

    /// What the task held: given back, with who paid how much for it.
    pub(super) fn end(&mut self, catalog: &mut Catalog, task: &str) -> Option<(FundingId, u64)> {
        let holder = self.holders.remove(task)?;
        for worker in &holder.workers {
            catalog.give_back(worker.at, worker.need, worker.who);
            if let Some(there) = self.by_node.get_mut(&worker.at.node) {
                there.retain(|holding| holding.task != worker.task);
                if there.is_empty() {
                    self.by_node.remove(&worker.at.node);
                }
            }
            catalog.nodes.release(worker.at.node);
        }
        Some((holder.funding, holder.price_units))
    }

    pub(super) fn on(&self, node: u32) -> &[Holding] {
        self.by_node.get(&node).map(Vec::as_slice).unwrap_or_default()
    }

    /// What of an offer is held, and by whom.
    pub(super) fn taken(&self, at: At) -> (Need, Neighbours) {
        let (mut taken, mut neighbours) = (Need::default(), Neighbours::default());
        for holding in self.on(at.node) {
            taken = taken.plus(holding.need_of(at.resource));
            neighbours.join(Neighbour { tenant: holding.who, tasks: 1 });
        }
        (taken, neighbours)
    }
}

impl Holding {
    /// What it takes of an offer of its node.
    pub(super) fn need_of(&self, resource: u32) -> Need {
        if self.at.resource == resource { self.need } else { self.need.beside() }
    }
}
