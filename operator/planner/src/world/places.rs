//! Where an attempt went, as the books keep it; and how its nodes parted with its workers.

use super::records::Pod;
use serde::{Deserialize, Serialize};
use supercargo_market::metering::Measured;
use supercargo_market::minimum::Rated;
use supercargo_market::money::{Amount, Price};
use supercargo_market::rate_card::Basis;
use supercargo_market::rating::{self, ExactCost, Held, TooMuch};

/// What is told as the reason of the end of a pod whose node is silent.
pub const NODE_LOST: &str = "NodeLost";

/// What a node does to a worker, and the worker's pod does not say. It is kept in the books: whoever leads next bills and tells
/// the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Parting {
    /// The node is silent for so long that nobody waits for it.
    pub lost: bool,
    /// The node is drained, and what runs there has had its time.
    pub drained: bool,
    /// Somebody evicted it while the node was closed to tasks.
    pub evicted: bool,
    /// It failed while one of its devices was broken.
    pub broken: bool,
    /// The node could not start it while there was time.
    pub unable: bool,
    /// It was seen to have ended before anybody told it to: then no drain has ended it, nor an eviction.
    pub by_itself: bool,
}

impl Parting {
    /// Whether its node has done nothing to it.
    pub fn is_none(&self) -> bool {
        Self { by_itself: false, ..*self } == Self::default()
    }

    /// Whether its node has ended it.
    pub fn is_the_end(&self) -> bool {
        self.lost || (!self.is_none() && !self.by_itself)
    }

    pub fn or(self, other: Self) -> Self {
        Self {
            lost: self.lost || other.lost,
            drained: self.drained || other.drained,
            evicted: self.evicted || other.evicted,
            broken: self.broken || other.broken,
            unable: self.unable || other.unable,
            by_itself: self.by_itself || other.by_itself,
        }
    }
}

/// Where an attempt went: the part of a reservation that only the operator reads, as it stands in the ledger's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    pub attempt: u32,
    pub namespace: String,
    pub task: String,
    pub token: String,
    pub tenancy: String,
    pub resource_name: String,
    /// How long the containers may run before the time limit or the budget ends them.
    pub run_seconds: u64,
    /// How long it may hold its places at most: until it has started, run and ended.
    pub hold_seconds: u64,
    pub bound: i64,
    /// What its task was billed for in the attempts before.
    #[serde(default, skip_serializing_if = "is_none")]
    pub billed_before_seconds: u64,
    /// By the worker's number.
    pub workers: Vec<Place>,
}

impl Placement {
    /// What a second of it costs, with all its workers.
    pub fn second(&self) -> Result<ExactCost, TooMuch> {
        self.workers.iter().try_fold(ExactCost::default(), |sum, place| sum.checked_add(rating::cost(&place.held(), 1)?))
    }

    /// The place that a pod of this attempt has: the pod has its name, in its namespace. What somebody else calls the same has
    /// none.
    pub fn place_of(&self, pod: &Pod) -> Option<&Place> {
        let ours = pod.ours.as_ref().filter(|ours| ours.attempt == self.attempt && pod.namespace == self.namespace)?;
        self.workers.get(usize::try_from(ours.worker).ok()?).filter(|place| place.pod == pod.name)
    }
}

/// Where one worker went, what it holds there and whom that pays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    pub node: String,
    pub pool: String,
    pub provider: String,
    pub pod: String,
    pub because: String,
    pub price_per_hour: Amount,
    /// What the provider is paid as, on the escrow's chain.
    pub payee: Option<u32>,
    pub devices: u32,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub storage_bytes: u64,
    pub device_price_nanos: u64,
    pub cpu_price_nanos: u64,
    pub memory_price_nanos: u64,
    /// Of the node's other devices, for who has the node alone.
    #[serde(default)]
    pub beside_price_nanos: u64,
    pub rate_card: String,
    /// The model that its devices are priced as.
    #[serde(default)]
    pub model: String,
    /// Whether CPU and memory are billed as they are held or as they are used.
    #[serde(default)]
    pub basis: Basis,
    /// What its card asks for at least, as far as the budget pays for it.
    #[serde(default, skip_serializing_if = "is_free")]
    pub minimum_seconds: u32,
    #[serde(default, skip_serializing_if = "Parting::is_none")]
    pub parting: Parting,
    /// What was billed of it, where its pod's record alone does not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billed: Option<Measured>,
}

fn is_none(seconds: &u64) -> bool {
    *seconds == 0
}

fn is_free(seconds: &u32) -> bool {
    *seconds == 0
}

impl Place {
    pub fn rated(&self) -> Rated {
        Rated { held: self.held(), minimum_seconds: self.minimum_seconds }
    }

    pub fn held(&self) -> Held {
        Held {
            devices: self.devices,
            device_price: Price::from_nanos_per_hour(self.device_price_nanos),
            cpu_millis: self.cpu_millis,
            cpu_price: Price::from_nanos_per_hour(self.cpu_price_nanos),
            memory_bytes: self.memory_bytes,
            memory_gib_price: Price::from_nanos_per_hour(self.memory_price_nanos),
            beside_price: Price::from_nanos_per_hour(self.beside_price_nanos),
        }
    }
}
