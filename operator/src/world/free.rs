//! What is free: allocatable, less the requests of every pod that has not ended, less what is reserved for pods that do
//! not exist yet.

use super::World;
use super::records::{Node, ProviderNode, Requests};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use supercargo_crds::common::IsolationLevel;
use supercargo_crds::node::Availability;
use supercargo_crds::pool::{Accepts, ProviderPoolSpec};
use supercargo_market::placement::{Closed, Offer, Prices, Tenant};

/// A newcomer's reputation.
const NEWCOMER: u8 = 50;

impl World {
    /// What of every node is taken.
    pub fn taken(&self) -> HashMap<&str, (Requests, u64)> {
        let mut taken: HashMap<&str, (Requests, u64)> = HashMap::new();
        let mut with_pod = std::collections::HashSet::new();
        for pod in self.pods.values() {
            if let Some(ours) = &pod.ours {
                with_pod.insert((&ours.work, ours.attempt));
            }
            if let (Some(node), false) = (&pod.node, pod.is_over()) {
                add(taken.entry(node).or_default(), &pod.requests);
            }
        }
        for (work, reservation) in &self.reservations {
            let placement = &reservation.placement;
            if !with_pod.contains(&(work, placement.attempt)) {
                let requests = Requests {
                    cpu_millis: placement.cpu_millis,
                    memory_bytes: placement.memory_bytes,
                    storage_bytes: 0,
                    devices: [(placement.resource_name.clone(), u64::from(placement.devices))].into(),
                };
                add(taken.entry(&placement.node).or_default(), &requests);
            }
        }
        taken
    }

    /// Whose tasks are on every node.
    fn tenants(&self) -> HashMap<&str, BTreeSet<Tenant>> {
        let tenancies: HashMap<&str, &str> =
            self.tasks.values().map(|task| (task.uid.as_str(), task.spec.placement.tenancy.name())).collect();
        let mut tenants: HashMap<&str, BTreeSet<Tenant>> = HashMap::new();
        for (work, reservation) in &self.reservations {
            let placement = &reservation.placement;
            tenants.entry(&placement.node).or_default().insert(Tenant {
                funding: reservation.funding.clone(),
                namespace: placement.namespace.clone(),
                tenancy: tenancies.get(work.uid.as_str()).copied().unwrap_or("Shared").to_owned(),
            });
        }
        tenants
    }

    /// Everything that is on offer, as it stands.
    pub fn offers(&self) -> Vec<Offer> {
        let taken = self.taken();
        let tenants = self.tenants();
        let mut offers = Vec::new();
        for provided in self.provider_nodes.values() {
            let (Some(node), Some(pool)) = (self.nodes.get(&provided.spec.node_name), self.pools.get(&provided.spec.pool)) else {
                continue;
            };
            let none = Default::default();
            let used = taken.get(node.name.as_str()).unwrap_or(&none);
            let mut resources = self.sold_resources(node, &pool.spec);
            if resources.is_empty() {
                resources.push("");
            }
            for resource in resources {
                let there = tenants.get(node.name.as_str()).into_iter().flatten().cloned().collect();
                offers.extend(offer(provided, node, &pool.spec, resource, used).map(|offer| Offer { tenants: there, ..offer }));
            }
        }
        offers
    }

    /// Resources of a node that its pool has a price for.
    pub fn sold_resources<'a>(&self, node: &'a Node, pool: &ProviderPoolSpec) -> Vec<&'a str> {
        let priced = |name: &str| pool.pricing.resources.iter().any(|price| price.resource_name == name);
        node.devices.iter().filter(|(name, count)| **count > 0 && priced(name)).map(|(name, _)| name.as_str()).collect()
    }
}

fn add(to: &mut (Requests, u64), requests: &Requests) {
    to.0.cpu_millis += requests.cpu_millis;
    to.0.memory_bytes += requests.memory_bytes;
    to.0.storage_bytes += requests.storage_bytes;
    for (name, count) in &requests.devices {
        *to.0.devices.entry(name.clone()).or_default() += count;
    }
    to.1 += 1;
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

fn offer(provided: &ProviderNode, node: &Node, pool: &ProviderPoolSpec, resource: &str, used: &(Requests, u64)) -> Option<Offer> {
    let (model, memory, _) = model_of(node, pool, resource);
    let card = pool.pricing.card();
    let device = if resource.is_empty() { Default::default() } else { card.price_of(resource, &model).ok()? };
    let total = node.devices.get(resource).copied().unwrap_or_default();
    let free = total.saturating_sub(used.0.devices.get(resource).copied().unwrap_or_default());
    let closed = match (node.ready, node.cordoned, provided.spec.availability) {
        (false, ..) => Some(Closed::NotReady),
        (_, true, _) => Some(Closed::Cordoned),
        (.., Availability::Draining) => Some(Closed::Draining),
        (.., Availability::Closed) => Some(Closed::ClosedByProvider),
        _ => None,
    };
    let classes = provided.spec.data_classes.as_ref().unwrap_or(&pool.data_classes);
    Some(Offer {
        node: node.name.clone(),
        pool: provided.spec.pool.clone(),
        provider: pool.provider.clone(),
        resource_name: resource.to_owned(),
        model,
        device_memory_bytes: memory,
        free_devices: u32::try_from(free).unwrap_or(u32::MAX),
        total_devices: u32::try_from(total).unwrap_or(u32::MAX),
        free_cpu_millis: node.cpu_millis.saturating_sub(used.0.cpu_millis),
        total_cpu_millis: node.cpu_millis,
        free_memory_bytes: node.memory_bytes.saturating_sub(used.0.memory_bytes),
        total_memory_bytes: node.memory_bytes,
        free_storage_bytes: node.storage_bytes.saturating_sub(used.0.storage_bytes),
        free_pods: u32::try_from(node.pods.saturating_sub(used.1)).unwrap_or(u32::MAX),
        prices: Prices { device, cpu: card.cpu_per_hour, memory_gib: card.memory_gib_per_hour },
        token: pool.pricing.token.clone(),
        accepts_chain: pool.accepts.contains(&Accepts::Chain),
        accepts_internal: pool.accepts.contains(&Accepts::Internal),
        chain: pool.chain.clone(),
        region: provided.spec.region.clone().or_else(|| pool.region.clone()),
        zone: node.labels.get("topology.kubernetes.io/zone").cloned(),
        reputation: NEWCOMER,
        replicas_per_device: node.labels.get("nvidia.com/gpu.replicas").and_then(|count| count.parse().ok()).unwrap_or(1),
        tenants: Vec::new(),
        labels: labels_of(node),
        data_classes: classes.iter().map(|class| class.name().to_owned()).collect(),
        tenancies: pool.tenancies.iter().map(|tenancy| tenancy.name().to_owned()).collect(),
        isolation_levels: pool.isolation.iter().map(|isolation| isolation_rank(isolation.level)).collect(),
        closed,
    })
}

fn labels_of(node: &Node) -> BTreeMap<String, String> {
    node.labels.clone()
}

pub fn isolation_rank(level: IsolationLevel) -> u8 {
    match level {
        IsolationLevel::Container => 0,
        IsolationLevel::Sandbox => 1,
        IsolationLevel::Vm => 2,
    }
}
