//! What is free: allocatable, less the requests of every pod that has not ended and is not of a reservation. What is
//! reserved the market takes off by itself.

use super::World;
use super::records::{Node, Pod, Pool, ProviderNode, Requests};
use crate::plan::data_classes::DataClasses;
use std::collections::{BTreeMap, BTreeSet};
use supercargo_crds::common::{DataClass, IsolationLevel, Tenancy};
use supercargo_crds::node::{Availability, DataClassBasis};
use supercargo_crds::pool::{Accepts, ProviderPoolSpec};
use supercargo_market::money::Price;
use supercargo_market::placement::{Beside, Closed, Offer, Prices, Record, Tenant};
use supercargo_market::work::FundingId;

/// This cluster, as ProviderNodes name it.
const LOCAL: &str = "local";

/// So long a kubelet that is back has to end what is no longer asked for: its grace, and half of this for the rest.
const RETURN_SECONDS: i64 = 60;

/// A node that was given up.
#[derive(Debug, Default)]
pub struct Returning {
    /// How long it has to end what it ran then, and until when, once it is heard of.
    pub seconds: i64,
    pub until: Option<i64>,
}

/// What pods take of a node that are of no reservation.
#[derive(Debug, Default)]
struct Taken {
    all: Requests,
    pods: u64,
    /// Of that, what is of nobody's task.
    by_strangers: Requests,
    /// Who has devices of it: by namespace, for nobody knows of more.
    tenants: BTreeSet<Tenant>,
}

impl World {
    /// What pods take of a node that are of no reservation: what the market does not know of by itself.
    fn taken_by_others(&self, node: &str) -> Taken {
        let mut taken = Taken::default();
        for pod in self.pods_on(node).filter(|pod| !pod.is_over()) {
            let reserved = pod.ours.as_ref().and_then(|ours| self.reservations.get(&ours.work));
            if reserved.is_none_or(|reservation| reservation.placement.place_of(pod).is_none()) {
                taken.all.add(&pod.requests);
                taken.pods += 1;
                if !pod.requests.devices.is_empty() {
                    taken.tenants.insert(unknown_tenant(&pod.namespace));
                }
            }
            if pod.ours.is_none() {
                taken.by_strangers.add(&pod.requests);
            }
        }
        taken
    }

    /// Devices of a node that pods have.
    pub fn devices_taken(&self, node: &str) -> BTreeMap<String, u64> {
        let mut taken = Requests::default();
        self.pods_on(node).filter(|pod| !pod.is_over()).for_each(|pod| taken.add(&pod.requests));
        taken.devices
    }

    /// Whether a task has the node for itself: of nothing there is anything free then.
    pub fn is_held_alone(&self, node: &str) -> bool {
        let live = self.pods_on(node).filter(|pod| !pod.is_over());
        let mut held = live.filter_map(|pod| Some((pod, &self.reservations.get(&pod.ours.as_ref()?.work)?.placement)));
        held.any(|(pod, placement)| placement.tenancy == Tenancy::Exclusive.name() && placement.place_of(pod).is_some())
    }

    /// What a node has on offer, less what others take of it.
    pub fn offers_of(&self, node: &str, data_classes: &DataClasses, now: i64) -> Vec<Offer> {
        let (Some(node), Some(provided)) = (self.nodes.get(node), self.provider_node_of(node)) else { return Vec::new() };
        // What is wrong with a pool is told by its status; nothing is sold under terms that can't be read.
        let Some(terms) = self.terms_of(provided) else { return Vec::new() };
        let used = self.taken_by_others(&node.name);
        let mut resources = self.sold_resources(node, &terms);
        if resources.is_empty() {
            resources.push("");
        }
        let apart = self.is_set_apart(&node.name, now).then_some(Closed::Quarantined);
        let returning = self.is_returning(&node.name, now).then_some(Closed::NotReady);
        let reputation = self.record_of(&terms.provider, &node.name).reputation();
        let suffices = |class: &&DataClass| data_classes.suffices(**class, basis_of(**class));
        let classes: Vec<String> = terms.data_classes.iter().filter(suffices).map(|class| class.name().to_owned()).collect();
        let offers = resources.into_iter().filter_map(|resource| {
            let total = self.devices_sold(node, resource);
            offer(provided, node, &terms, (resource, total), &used, reputation)
        });
        let whole = |offer: Offer| Offer { closed: offer.closed.or(returning).or(apart), data_classes: classes.clone(), ..offer };
        let mut offers: Vec<Offer> = offers.map(whole).collect();
        set_beside(&mut offers);
        offers
    }

    /// What a node is sold under: its pool's terms, and its own over them.
    pub fn terms_of(&self, provided: &ProviderNode) -> Option<ProviderPoolSpec> {
        let pool = self.pools.get(&provided.spec.pool).filter(|pool| pool.findings.is_empty())?;
        let node = self.nodes.get(&provided.spec.node_name)?;
        selects(pool, node).then(|| provided.spec.over(&pool.spec))
    }

    /// What a provider's node has served, and what went wrong there.
    pub fn record_of(&self, provider: &str, node: &str) -> Record {
        self.records.get(&record_place(provider, node)).copied().unwrap_or_default()
    }

    /// Devices of a resource that are sold: the healthy ones, and of the others those that somebody has, for they are not
    /// taken off twice.
    pub fn devices_sold(&self, node: &Node, resource: &str) -> u64 {
        let live = self.pods_on(&node.name).filter(|pod| !pod.is_over());
        let broken = live.flat_map(|pod| &pod.devices).filter(|device| device.resource_name == resource && device.healthy == Some(false));
        let of = |devices: &BTreeMap<String, u64>| devices.get(resource).copied().unwrap_or_default();
        let (healthy, all) = (of(&node.devices), of(&node.device_capacity));
        (healthy + broken.count() as u64).min(all.max(healthy))
    }

    /// Whether a node takes no tasks because too many failed there.
    pub fn is_set_apart(&self, node: &str, now: i64) -> bool {
        self.quarantine.get(node).is_some_and(|record| now < record.until)
    }

    /// Whether a node that was given up has still to end what it ran then: nobody knows what that takes of it.
    pub fn is_returning(&self, node: &str, now: i64) -> bool {
        self.pods_on(node).any(Pod::is_left_behind)
            || self.returning.get(node).is_some_and(|known| known.until.is_none_or(|until| now < until))
    }

    /// A pod that was given up goes from the API: its kubelet hears of that only when it is back.
    pub(super) fn leaves_behind(&mut self, pod: &Pod, at: i64) {
        let Some(node) = pod.node.as_ref().filter(|_| pod.is_left_behind()).and_then(|node| self.nodes.get(node)) else { return };
        let (name, ready) = (node.name.clone(), node.ready);
        let seconds = RETURN_SECONDS.max(pod.grace_seconds + RETURN_SECONDS / 2);
        let known = self.returning.entry(name.clone()).or_default();
        known.seconds = known.seconds.max(seconds);
        known.until = None;
        if ready {
            self.returns(name, at);
        }
    }

    /// Its time to end what it ran begins when it is heard of, each time that it is.
    pub(super) fn comes_back(&mut self, node: &Node) {
        let Some(known) = self.returning.get_mut(&node.name) else { return };
        match (node.ready, known.until) {
            (false, _) => known.until = None,
            (true, None) => self.returns(node.name.clone(), node.seen),
            (true, Some(until)) if until <= node.seen => drop(self.returning.remove(&node.name)),
            (true, Some(_)) => {}
        }
    }

    fn returns(&mut self, node: String, at: i64) {
        let Some(known) = self.returning.get_mut(&node) else { return };
        let until = at + known.seconds;
        known.until = Some(until);
        self.todo.node_alarms.set(until, node);
    }

    /// Whether somebody closed a node to tasks, or took it away.
    pub fn is_closed(&self, node: &str) -> bool {
        let there = self.nodes.get(node).zip(self.provider_node_of(node));
        there.is_none_or(|(node, provided)| closed(provided, node).is_some())
    }

    /// The ProviderNode of a node of this cluster: it has the node's name.
    pub fn provider_node_of(&self, node: &str) -> Option<&ProviderNode> {
        self.provider_nodes.get(node).filter(|provided| provided.spec.node_name == node && provided.spec.cluster == LOCAL)
    }

    /// Resources of a node that its pool has a price for.
    pub fn sold_resources<'a>(&self, node: &'a Node, pool: &ProviderPoolSpec) -> Vec<&'a str> {
        let priced = |name: &str| pool.pricing.resources.iter().any(|price| price.resource_name == name);
        node.devices.iter().filter(|(name, count)| **count > 0 && priced(name)).map(|(name, _)| name.as_str()).collect()
    }
}

/// The model of a resource: what the administrator vouches for, else what the node's own labels claim.
pub fn model_of(node: &Node, pool: &ProviderPoolSpec, resource: &str) -> (String, u64, &'static str) {
    if let Some(facts) = pool.gpus.iter().find(|facts| facts.resource_name == resource) {
        return (facts.model.clone(), facts.memory.units().unwrap_or_default(), "Vouched");
    }
    let label = |name: &str| node.labels.get(name).cloned().unwrap_or_default();
    let mebibytes: u64 = label("nvidia.com/gpu.memory").parse().unwrap_or_default();
    (label("nvidia.com/gpu.product"), mebibytes << 20, "Claimed")
}

/// What a class of data rests on at a node that has it. Nothing attests to nodes yet.
pub fn basis_of(_: DataClass) -> DataClassBasis {
    DataClassBasis::Vouched
}

/// How often each device is handed out, where it is more than once.
pub fn replicas_of(node: &Node) -> Option<i64> {
    node.labels.get("nvidia.com/gpu.replicas").and_then(|count| count.parse().ok())
}

/// Whether a pool is of this node.
pub fn selects(pool: &Pool, node: &Node) -> bool {
    let wanted = &pool.spec.selector.match_labels;
    !wanted.is_empty() && wanted.iter().all(|(key, value)| node.labels.get(key) == Some(value))
}

/// Where a record is kept under: a node that goes to another provider begins anew.
pub fn record_place(provider: &str, node: &str) -> String {
    format!("{provider}/{node}")
}

/// Whoever has devices without a reservation: it is of no escrow, and minds nobody but who shares a device with it.
fn unknown_tenant(namespace: &str) -> Tenant {
    Tenant { funding: FundingId::from_stored(""), namespace: namespace.to_owned(), tenancy: Tenancy::Shared.name().to_owned() }
}

fn offer(
    provided: &ProviderNode,
    node: &Node,
    pool: &ProviderPoolSpec,
    (resource, total): (&str, u64),
    used: &Taken,
    reputation: u8,
) -> Option<Offer> {
    let (model, memory, _) = model_of(node, pool, resource);
    let card = pool.pricing.card();
    let device = if resource.is_empty() { Default::default() } else { card.price_of(resource, &model).ok()? };
    let free = total.saturating_sub(used.all.devices.get(resource).copied().unwrap_or_default());
    let closed = if node.ready { closed(provided, node) } else { Some(Closed::NotReady) };
    Some(Offer {
        node: node.name.clone(),
        pool: provided.spec.pool.clone(),
        provider: pool.provider.clone(),
        resource_name: resource.to_owned(),
        model,
        device_memory_bytes: memory,
        free_devices: u32::try_from(free).unwrap_or(u32::MAX),
        total_devices: u32::try_from(total).unwrap_or(u32::MAX),
        free_cpu_millis: node.cpu_millis.saturating_sub(used.all.cpu_millis),
        total_cpu_millis: node.cpu_millis.saturating_sub(used.by_strangers.cpu_millis),
        free_memory_bytes: node.memory_bytes.saturating_sub(used.all.memory_bytes),
        total_memory_bytes: node.memory_bytes.saturating_sub(used.by_strangers.memory_bytes),
        free_storage_bytes: node.storage_bytes.saturating_sub(used.all.storage_bytes),
        free_pods: u32::try_from(node.pods.saturating_sub(used.pods)).unwrap_or(u32::MAX),
        prices: Prices { device, cpu: card.cpu_per_hour, memory_gib: card.memory_gib_per_hour },
        beside: Beside::default(),
        token: pool.pricing.token.clone(),
        accepts_chain: pool.accepts.contains(&Accepts::Chain),
        accepts_internal: pool.accepts.contains(&Accepts::Internal),
        chain: pool.chain.clone(),
        region: pool.region.clone(),
        zone: node.labels.get("topology.kubernetes.io/zone").cloned(),
        reputation,
        replicas_per_device: replicas_of(node).and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
        tenants: used.tenants.iter().cloned().collect(),
        labels: node.labels.clone(),
        data_classes: Vec::new(),
        tenancies: pool.tenancies.iter().map(|tenancy| tenancy.name().to_owned()).collect(),
        isolation_levels: pool.isolation.iter().map(|isolation| isolation_rank(isolation.level)).collect(),
        closed,
    })
}

/// What people closed it to tasks by.
fn closed(provided: &ProviderNode, node: &Node) -> Option<Closed> {
    match provided.spec.availability {
        _ if node.cordoned => Some(Closed::Cordoned),
        Availability::Draining => Some(Closed::Draining),
        Availability::Closed => Some(Closed::ClosedByProvider),
        Availability::Open => (!node.closing_taints.is_empty()).then_some(Closed::Tainted),
    }
}

/// Tells each offer of a node what the others come to.
fn set_beside(offers: &mut [Offer]) {
    let all: Vec<(u64, bool)> = offers
        .iter()
        .map(|offer| {
            let price = offer.prices.device.nanos_per_hour().saturating_mul(u64::from(offer.total_devices));
            (price, offer.free_devices < offer.total_devices)
        })
        .collect();
    for (number, offer) in offers.iter_mut().enumerate() {
        let others = all.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, one)| one);
        let (price, in_use) = others.fold((0_u64, false), |(sum, any), (price, in_use)| (sum.saturating_add(*price), any || *in_use));
        offer.beside = Beside { price: Price::from_nanos_per_hour(price), in_use };
    }
}

pub fn isolation_rank(level: IsolationLevel) -> u8 {
    match level {
        IsolationLevel::Container => 0,
        IsolationLevel::Sandbox => 1,
        IsolationLevel::Vm => 2,
    }
}
