//! Placement: which offer a task goes to, or why it waits. The same input always gives the same output.
//!
//! [`choose`] is the plain market, one look after the other. [`Exchange`] decides the same from what it keeps, and a
//! planner tells it what changes and asks once a pass (`wiring.rs` is this as a test):
//!
//! | when | then |
//! |---|---|
//! | the lead begins | `offer` for every node, `run` for every open reservation, `wait` for every task that may be placed |
//! | a node, its pods or its terms changed | `offer` again, less what pods hold that are of no reservation; `withdraw` what it sells no more |
//! | a task came or changed, and its payer is good for it | `wait`; saying the same twice changes nothing |
//! | it is suspended, finished or gone, or its payer is not good for it | `forget` |
//! | once a pass | `assign`: a reservation for each that is placed, a status for each whose reasons changed |
//! | the books refuse the reservation | `ended`, and `wait` when it is to be tried again |
//! | the books hold the reservation | nothing, or `run` where that says more than the pass did |
//! | the attempt is charged and its pod is over | `ended` |
//!
//! A task that is placed holds its places from then on, whatever its node's offers say meanwhile: nothing is given away
//! twice between a decision and its reservation. Where the reasons have `FailedThereBefore`, the same task may `wait`
//! with no node excluded: elsewhere first, but the same node before none. While the reasons have one that `may_pass`, another
//! node is only in use, and worth a while.

mod catalog;
mod claims;
mod exchange;
mod filter;
mod fit;
mod fronts;
mod holdings;
mod journal;
mod need;
mod neighbours;
mod nodes;
mod pick;
mod ranking;
mod reputation;
mod round;
mod shapes;
mod shelves;
mod slot;
mod survey;
mod terms;
mod wish;
mod words;

pub use catalog::Catalog;
pub use exchange::{Exchange, Pass, Running, Topology, Waiting, Worker};
pub use filter::Reason;
pub use reputation::Record;

use crate::money::{Amount, Price};
use crate::rating::{self, Held};
use crate::work::FundingId;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

const EXCLUSIVE: &str = "Exclusive";
const DEDICATED: &str = "Dedicated";
const PRIVATE: &str = "Private";

/// What one node sells of one resource, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Offer {
    pub node: String,
    pub pool: String,
    pub provider: String,
    pub resource_name: String,
    pub model: String,
    pub device_memory_bytes: u64,
    pub free_devices: u32,
    pub total_devices: u32,
    pub free_cpu_millis: u64,
    /// What its devices' shares are made of: less what others have of the node, so that the last device has its share too.
    pub total_cpu_millis: u64,
    pub free_memory_bytes: u64,
    pub total_memory_bytes: u64,
    pub free_storage_bytes: u64,
    pub free_pods: u32,
    pub prices: Prices,
    pub beside: Beside,
    pub token: String,
    pub accepts_chain: bool,
    pub accepts_internal: bool,
    pub chain: Option<String>,
    pub region: Option<String>,
    /// Where gangs of topology Zone stay together.
    pub zone: Option<String>,
    pub reputation: u8,
    /// More than one: a device is handed out several times, and then only within one namespace.
    pub replicas_per_device: u32,
    /// Whose tasks are on the node now, each once.
    pub tenants: Vec<Tenant>,
    pub labels: BTreeMap<String, String>,
    pub data_classes: Vec<String>,
    pub tenancies: Vec<String>,
    /// Levels on offer: 0 Container, 1 Sandbox, 2 VM.
    pub isolation_levels: Vec<u8>,
    /// Why nothing new may start here at all.
    pub closed: Option<Closed>,
}

/// All devices of the node's other offers: who has the node alone has them too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Beside {
    /// What they cost an hour, all together.
    pub price: Price,
    /// Somebody whom the market does not know has some of them.
    pub in_use: bool,
}

/// A task on a node, as far as its neighbours care.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant {
    pub funding: FundingId,
    pub namespace: String,
    pub tenancy: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Closed {
    NotReady,
    Cordoned,
    Draining,
    ClosedByProvider,
    Tainted,
    Quarantined,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Prices {
    pub device: Price,
    pub cpu: Price,
    pub memory_gib: Price,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Strategy {
    #[default]
    Cheapest,
    Fastest,
    Quality,
    Balanced,
}

/// What one worker asks for, and on which terms.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    pub funding: FundingId,
    pub namespace: String,
    /// The provider that the escrow names as its own: where Private data may go.
    pub own_provider: Option<String>,
    pub chain: Option<String>,
    pub token: String,
    pub resource_name: String,
    pub devices: u32,
    pub models: Vec<String>,
    pub device_memory_bytes: u64,
    /// Absent: the node's share in proportion to the devices.
    pub cpu_millis: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub storage_bytes: u64,
    pub strategy: Strategy,
    pub tenancy: String,
    pub data_class: String,
    pub isolation_level: u8,
    pub max_price_per_hour: Option<Amount>,
    pub min_reputation: u8,
    pub regions: Vec<String>,
    pub node_selector: BTreeMap<String, String>,
    pub allow_providers: Vec<String>,
    pub deny_providers: Vec<String>,
    pub excluded_nodes: Vec<String>,
    /// The nodes that its volumes can be reached from. Absent: all.
    pub only_nodes: Option<Vec<String>>,
}

/// Where a worker goes, and what it holds there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub node: String,
    pub pool: String,
    pub held: Held,
    pub price_per_hour: Amount,
    /// What decided, for people.
    pub because: String,
}

/// How many offers were refused for one reason, with one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub reason: Reason,
    pub nodes: u32,
    pub example: String,
}

/// The best offer for one worker, or everything that speaks against each.
pub fn choose(offers: &[Offer], request: &Request) -> Result<Assignment, Vec<Refused>> {
    let mut best: Option<(Score<'_>, &Offer, Held)> = None;
    let mut refused: BTreeMap<Reason, Refused> = BTreeMap::new();
    for offer in offers {
        match filter::check(offer, request) {
            Ok((held, price)) => {
                let score = Score::of(offer, request, price, held.devices);
                if best.as_ref().is_none_or(|(known, ..)| score < *known) {
                    best = Some((score, offer, held));
                }
            }
            Err((reason, example)) => refuse(&mut refused, reason, example),
        }
    }
    let Some((score, offer, held)) = best else { return Err(refused.into_values().collect()) };
    Ok(assignment(offer, request, held, score.price))
}

/// Counts an offer that one reason refuses. The example is the node that comes first in the
/// alphabet: it does not flicker.
fn refuse(refused: &mut BTreeMap<Reason, Refused>, reason: Reason, example: String) {
    match refused.entry(reason) {
        Entry::Vacant(free) => drop(free.insert(Refused { reason, nodes: 1, example })),
        Entry::Occupied(mut known) => {
            let known = known.get_mut();
            known.nodes += 1;
            let named = |text: &str| text.split(": ").next().unwrap_or_default().to_owned();
            if (named(&example), &example) < (named(&known.example), &known.example) {
                known.example = example;
            }
        }
    }
}

fn assignment(offer: &Offer, request: &Request, held: Held, price: Amount) -> Assignment {
    let because = because(request.strategy, price, &offer.model, offer.reputation);
    Assignment { node: offer.node.clone(), pool: offer.pool.clone(), held, price_per_hour: price, because }
}

fn because(strategy: Strategy, price: Amount, model: &str, reputation: u8) -> String {
    match strategy {
        Strategy::Cheapest => format!("the cheapest that fits, at {price} an hour"),
        Strategy::Fastest => format!("the fastest that fits, with {model}"),
        Strategy::Quality => format!("the best reputation that fits, {reputation} of 100"),
        Strategy::Balanced => format!("the best balance of price and reputation that fits, at {price} an hour"),
    }
}

/// Less is better: region in the task's order, what the strategy asks, then price, then the tightest fit, then the name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score<'a> {
    rank: Rank,
    price: Amount,
    left: u32,
    node: &'a str,
}

/// What of a score is the same for all offers on the same terms: the region's place, and the strategy's number.
type Rank = (usize, u64);

fn rank(offer: &Offer, request: &Request, price: Amount) -> Rank {
    let region = request.regions.iter().position(|region| Some(region) == offer.region.as_ref()).unwrap_or(usize::MAX);
    let reputation = u64::from(offer.reputation.min(100));
    let strategy = match request.strategy {
        Strategy::Cheapest => price.units(),
        // The larger the device's memory the newer it is, as a rule: until offers carry measured speed.
        Strategy::Fastest => u64::MAX - offer.device_memory_bytes,
        Strategy::Quality => 100 - reputation,
        // A reputation of 100 halves the price that is compared.
        Strategy::Balanced => price.units() / 200 * (200 - reputation),
    };
    (region, strategy)
}

impl<'a> Score<'a> {
    fn of(offer: &'a Offer, request: &Request, price: Amount, devices: u32) -> Self {
        Self { rank: rank(offer, request, price), price, left: offer.free_devices.saturating_sub(devices), node: &offer.node }
    }
}

/// What a worker holds on an offer: what it asks, or the node's share in proportion to its devices. Alone on a node it
/// holds every device that is sold there, and pays for those of the node's other offers.
pub fn held_on(offer: &Offer, request: &Request) -> Held {
    let devices = if request.tenancy == EXCLUSIVE { request.devices.max(offer.total_devices) } else { request.devices };
    let share = |total: u64| match (devices, offer.total_devices) {
        (0, _) | (_, 0) => 0,
        (devices, all) => u64::try_from(u128::from(total) * u128::from(devices.min(all)) / u128::from(all)).unwrap_or(total),
    };
    Held {
        devices,
        device_price: offer.prices.device,
        // A worker without devices that asks for nothing gets a core and a GiB.
        cpu_millis: request.cpu_millis.unwrap_or_else(|| if devices == 0 { 1_000 } else { share(offer.total_cpu_millis) }),
        cpu_price: offer.prices.cpu,
        memory_bytes: request.memory_bytes.unwrap_or_else(|| if devices == 0 { 1 << 30 } else { share(offer.total_memory_bytes) }),
        memory_gib_price: offer.prices.memory_gib,
        beside_price: beside_price(request, offer.beside.price),
    }
}

/// What it pays for the node's other devices.
fn beside_price(request: &Request, price: Price) -> Price {
    if request.tenancy == EXCLUSIVE { price } else { Price::ZERO }
}

pub(crate) fn price(held: &Held) -> Option<Amount> {
    rating::price_per_hour(held).ok()
}

#[cfg(test)]
mod generators;
#[cfg(test)]
mod histories;
#[cfg(test)]
mod plainly;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod turns;
#[cfg(test)]
mod wiring;
