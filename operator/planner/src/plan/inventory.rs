//! What is said of a node: what it offers, how it is, what it has served, and why it takes no tasks where it takes none.

use super::node::{MOST_FAULTS, recent_faults, strangers};
use super::{Terms, status};
use crate::world::World;
use crate::world::free::{basis_of, model_of, replicas_of, selects};
use crate::world::records::{Device, Node, ProviderNode};
use std::collections::BTreeMap;
use supercargo_crds::common::{Condition, DataClass};
use supercargo_crds::names::node_condition::{DRAINING, HEALTHY, READY, REGISTERED, SOLD};
use supercargo_crds::node::{
    Availability, DataClassStatus, DeviceHealth, DeviceStatus, OfferStatus, ProviderNodeStatus, Quarantine, RecordStatus,
};
use supercargo_crds::pool::{Binding, ProviderPoolSpec};

const MOST_DEVICES: usize = 256;
/// So many pods are named in a message.
const NAMED_PODS: usize = 5;

const RETURNING: &str = "it was silent for so long that it was given up, and has still to end what it ran then";

/// Whether a condition holds, why, and in words.
type Told = (bool, &'static str, String);

/// What changes with every task is alone no reason to write: what is free, what was served, and which healthy devices are
/// in use. Nor is it that a fault does not count any more.
pub fn differs(before: &ProviderNodeStatus, next: &ProviderNodeStatus) -> bool {
    let steady = |status: &ProviderNodeStatus| {
        let mut status = status.clone();
        status.offers.iter_mut().for_each(|offer| offer.free = 0);
        status.free = None;
        status.record.iter_mut().for_each(|record| {
            record.served_seconds = 0;
            record.recent_faults.clear();
        });
        status.devices.retain(|device| device.health == DeviceHealth::Unhealthy);
        status
    };
    let faults = |status: &ProviderNodeStatus| status.record.as_ref().map(|record| record.recent_faults.clone()).unwrap_or_default();
    let known = faults(before);
    faults(next).iter().any(|fault| !known.contains(fault)) || steady(before) != steady(next)
}

pub fn status(world: &World, terms: &Terms, provided: &ProviderNode, now: i64) -> ProviderNodeStatus {
    let mut next = provided.status.clone();
    next.observed_generation = provided.generation;
    let node = world.nodes.get(&provided.spec.node_name);
    let sold_under = world.terms_of(provided);
    let tell = |conditions: &mut Vec<Condition>, kind: &str, (is, reason, message): Told| {
        status::set(conditions, kind, is, reason, message, provided.generation, now);
    };
    tell(&mut next.conditions, READY, ready(world, provided, node, now));
    tell(&mut next.conditions, HEALTHY, healthy(world, node, sold_under.as_ref(), now));
    tell(&mut next.conditions, REGISTERED, registered(world, node, sold_under.as_ref()));
    match node.and_then(|node| sold(world, terms, node, sold_under.as_ref())) {
        Some(told) => tell(&mut next.conditions, SOLD, told),
        None => status::clear(&mut next.conditions, SOLD),
    }
    tell(&mut next.conditions, DRAINING, draining(provided));
    next.offers = node.zip(sold_under.as_ref()).map(|(node, sold_under)| offers(world, node, sold_under)).unwrap_or_default();
    next.summarize();
    next.devices = devices(world, &provided.spec.node_name);
    next.quarantine = quarantine(world, &provided.spec.node_name, now);
    let provider = sold_under.as_ref().map(|terms| terms.provider.as_str()).unwrap_or_default();
    let record = world.record_of(provider, &provided.spec.node_name);
    let apart = world.quarantine.get(&provided.spec.node_name);
    next.reputation = Some(i32::from(record.reputation()));
    next.record = Some(RecordStatus {
        served_seconds: record.served_seconds.cast_signed(),
        faults: i64::from(record.faults),
        disagreements: i64::from(record.disagreements),
        quarantines: apart.map_or(0, |apart| i64::from(apart.times)),
        recent_faults: recent_faults(world, &provided.spec.node_name, now).into_iter().filter_map(status::time).collect(),
        last_let_back: apart.filter(|apart| apart.until > 0).and_then(|apart| status::time(apart.until)),
    });
    let rests_on = |class: &DataClass| DataClassStatus { class: *class, basis: basis_of(*class) };
    next.data_classes = sold_under.map(|terms| terms.data_classes.iter().map(rests_on).collect()).unwrap_or_default();
    next
}

fn ready(world: &World, provided: &ProviderNode, node: Option<&Node>, now: i64) -> Told {
    match (node, provided.spec.availability) {
        (None, _) => (false, "NoNode", format!("there is no node {}", provided.spec.node_name)),
        (Some(node), _) if !node.ready => (false, "NodeNotReady", "its kubelet is not ready".to_owned()),
        (Some(node), _) if world.is_returning(&node.name, now) => (false, "Returning", RETURNING.to_owned()),
        (Some(node), _) if node.cordoned => (false, "NodeCordoned", "the node is cordoned".to_owned()),
        (_, Availability::Draining) => (false, "Draining", "it takes no new tasks".to_owned()),
        (_, Availability::Closed) => (false, "Closed", "it takes no tasks".to_owned()),
        (Some(node), _) if !node.closing_taints.is_empty() => (false, "NodeTainted", tainted(node)),
        (Some(node), _) if world.is_set_apart(&node.name, now) => (false, "Quarantined", quarantined(world, &node.name)),
        (Some(node), _) => not_selling(world, provided, node).unwrap_or((true, "Open", "it takes tasks".to_owned())),
    }
}

/// Which of its taints keep tasks away.
pub fn tainted(node: &Node) -> String {
    format!("it has a taint that tasks do not tolerate: {}", node.closing_taints.join(", "))
}

/// Whether what runs there has to come to its end.
fn draining(provided: &ProviderNode) -> Told {
    match (provided.spec.availability, provided.spec.drain_deadline_seconds) {
        (Availability::Draining, Some(seconds)) => {
            (true, "Draining", format!("what runs there may go on for {seconds} s from when this began"))
        }
        (Availability::Draining, None) => (true, "Draining", "what runs there may go on for as long as it takes".to_owned()),
        _ => (false, "NotDraining", "what runs there may go on".to_owned()),
    }
}

/// Why its pool sells nothing here, if it does not.
fn not_selling(world: &World, provided: &ProviderNode, node: &Node) -> Option<Told> {
    let name = &provided.spec.pool;
    let Some(pool) = world.pools.get(name) else { return Some((false, "NoPool", format!("there is no ProviderPool {name}"))) };
    match () {
        () if !pool.findings.is_empty() => Some((false, "PoolInvalid", format!("ProviderPool {name}: {}", pool.findings.join("; ")))),
        () if !selects(pool, node) => Some((false, "NotSelected", format!("the selector of ProviderPool {name} does not select the node"))),
        () => None,
    }
}

fn quarantined(world: &World, node: &str) -> String {
    let until = world.quarantine.get(node).and_then(|record| jiff::Timestamp::from_second(record.until).ok()).unwrap_or_default();
    format!("{MOST_FAULTS} attempts in ten minutes failed for reasons of its own: it takes no tasks until {until}")
}

fn quarantine(world: &World, node: &str, now: i64) -> Option<Quarantine> {
    let record = world.quarantine.get(node).filter(|_| world.is_set_apart(node, now))?;
    let faults = i32::try_from(MOST_FAULTS).unwrap_or(i32::MAX);
    Some(Quarantine { until: status::time(record.until)?, faults, message: None })
}

/// Whether Kubernetes hears from it, and its devices work.
fn healthy(world: &World, node: Option<&Node>, terms: Option<&ProviderPoolSpec>, now: i64) -> Told {
    let Some(node) = node.filter(|node| node.ready) else { return (false, "NodeNotReady", "its kubelet is not ready".to_owned()) };
    if world.is_set_apart(&node.name, now) {
        return (false, "Quarantined", quarantined(world, &node.name));
    }
    let priced = |name: &str| terms.is_some_and(|terms| terms.pricing.resources.iter().any(|price| price.resource_name == name));
    let broken: Vec<String> = node
        .device_capacity
        .iter()
        .filter(|(name, _)| priced(name))
        .map(|(name, all)| (name, all, node.devices.get(name).copied().unwrap_or_default()))
        .filter(|(_, all, healthy)| healthy < *all)
        .map(|(name, all, healthy)| format!("{} of {all} {name}", all - healthy))
        .collect();
    if broken.is_empty() {
        (true, "Healthy", "all its devices work".to_owned())
    } else {
        (false, "DevicesUnhealthy", format!("not healthy: {}", broken.join(", ")))
    }
}

/// Whether what is sold here is known and has a price.
fn registered(world: &World, node: Option<&Node>, terms: Option<&ProviderPoolSpec>) -> Told {
    match node.zip(terms) {
        Some((node, terms)) if !world.sold_resources(node, terms).is_empty() => {
            (true, "Registered", "its resources are known and have a price".to_owned())
        }
        Some(_) => (false, "NothingSold", "it has none of the resources that its pool has a price for".to_owned()),
        None => (false, "NoTerms", "no pool sells it".to_owned()),
    }
}

/// Whether nobody else's pods get there, in pools that bind by themselves.
fn sold(world: &World, terms: &Terms, node: &Node, sold_under: Option<&ProviderPoolSpec>) -> Option<Told> {
    sold_under.filter(|sold_under| sold_under.binding == Binding::Direct && terms.taints_nodes)?;
    if node.sold {
        return Some((true, "Tainted", "nobody else's pods get there".to_owned()));
    }
    let mut names: Vec<String> = strangers(world, &node.name).map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    names.sort();
    let more = names.len().saturating_sub(NAMED_PODS);
    names.truncate(NAMED_PODS);
    Some(match (names.is_empty(), more) {
        (true, _) => (false, "Tainting", "it is about to be tainted".to_owned()),
        (_, 0) => (false, "PodsWouldGo", format!("these pods do not tolerate its taint: {}", names.join(", "))),
        (_, more) => (false, "PodsWouldGo", format!("these pods do not tolerate its taint: {} and {more} more", names.join(", "))),
    })
}

/// What its pods' statuses say of their devices; of two that speak of one the worse.
fn devices(world: &World, node: &str) -> Vec<DeviceStatus> {
    let mut known: BTreeMap<&str, DeviceStatus> = BTreeMap::new();
    let health = |device: &Device| match device.healthy {
        Some(true) => DeviceHealth::Healthy,
        Some(false) => DeviceHealth::Unhealthy,
        None => DeviceHealth::Unknown,
    };
    for device in world.pods_on(node).filter(|pod| !pod.is_over()).flat_map(|pod| &pod.devices) {
        let told = DeviceStatus {
            id: device.id.chars().take(128).collect(),
            resource_name: device.resource_name.clone(),
            health: health(device),
            message: None,
        };
        let entry = known.entry(&device.id).or_insert_with(|| told.clone());
        if told.health == DeviceHealth::Unhealthy {
            *entry = told;
        }
    }
    known.into_values().take(MOST_DEVICES).collect()
}

fn offers(world: &World, node: &Node, terms: &ProviderPoolSpec) -> Vec<OfferStatus> {
    let used = world.devices_taken(&node.name);
    let alone = world.is_held_alone(&node.name);
    let offer = |resource: &str| {
        let (model, memory, model_from) = model_of(node, terms, resource);
        let of = |devices: &BTreeMap<String, u64>| devices.get(resource).copied().unwrap_or_default();
        OfferStatus {
            resource_name: resource.to_owned(),
            model,
            model_from: model_from.to_owned(),
            memory: format!("{}Mi", memory >> 20),
            count: of(&node.devices).cast_signed(),
            free: if alone { 0 } else { world.devices_sold(node, resource).saturating_sub(of(&used)).cast_signed() },
            replicas_per_device: replicas_of(node),
        }
    };
    world.sold_resources(node, terms).into_iter().map(offer).collect()
}
