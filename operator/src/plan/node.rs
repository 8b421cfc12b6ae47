//! Pools make nodes: a pool's selector names Kubernetes nodes, the older of two pools keeps a node, and each node's
//! inventory is shown. A person's overrides are never fought: only `nodeName` and `pool` are ours.

use super::{Effect, Plan, status};
use crate::world::World;
use crate::world::free::{model_of, replicas_of};
use crate::world::records::{Node, Pool, ProviderNode};
use std::collections::BTreeMap;
use supercargo_crds::common::DataClass;
use supercargo_crds::names::node_condition::{HEALTHY, READY};
use supercargo_crds::node::{Availability, DataClassBasis, DataClassStatus, OfferStatus, ProviderNodeStatus, Quarantine};
use supercargo_crds::pool::ProviderPoolStatus;

/// So many faults within so long set a node apart.
const MOST_FAULTS: usize = 3;
const FAULTS_WITHIN_SECONDS: i64 = 600;
const FIRST_QUARANTINE_SECONDS: i64 = 600;
const LONGEST_QUARANTINE_SECONDS: i64 = 86_400;

pub fn plan(world: &mut World, plan: &mut Plan, now: i64) {
    while let Some(node) = world.todo.node_alarms.pop_due(now) {
        world.todo.nodes.push(node);
    }
    if world.todo.pools {
        world.todo.pools = pools(world, plan, now);
    }
    let mut busy = Vec::new();
    while let Some(name) = world.todo.nodes.pop() {
        let offers = world.offers_of(&name, now);
        world.market.offer(&name, &offers);
        let Some(provided) = world.provider_node_of(&name) else { continue };
        let next = node_status(world, provided, &world.devices_taken(&name), now);
        if differs(&provided.status, &next) {
            plan.effects.push(Effect::WriteNode { name: provided.name.clone(), status: Box::new(next) });
            busy.push(name);
        }
    }
    busy.into_iter().for_each(|name| world.todo.nodes.push(name));
    plan.wake_at_next(world.todo.node_alarms.next());
}

/// Which pool has which node. Whether anything is to be written.
fn pools(world: &World, plan: &mut Plan, now: i64) -> bool {
    let before = plan.effects.len();
    let mut pools: Vec<&Pool> = world.pools.values().collect();
    pools.sort_by(|one, two| (one.created, &one.name).cmp(&(two.created, &two.name)));
    let mut owner: BTreeMap<&str, &Pool> = BTreeMap::new();
    let mut lost: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for pool in &pools {
        for node in world.nodes.values().filter(|node| selects(pool, node)) {
            if owner.contains_key(node.name.as_str()) {
                lost.entry(&pool.name).or_default().push(&node.name);
            } else {
                owner.insert(&node.name, pool);
                *counts.entry(&pool.name).or_default() += 1;
            }
        }
    }
    for (node, pool) in &owner {
        let known = world.provider_nodes.get(*node);
        if known.is_none_or(|known| known.spec.pool != pool.name) {
            plan.effects.push(Effect::ApplyNode { name: (*node).to_owned(), pool: pool.name.clone() });
        }
    }
    for pool in pools {
        let count = counts.get(pool.name.as_str()).copied().unwrap_or_default();
        let next = pool_status(pool, count, lost.get(pool.name.as_str()).map_or(&[], Vec::as_slice), now);
        if next != pool.status {
            plan.effects.push(Effect::WritePool { name: pool.name.clone(), status: Box::new(next) });
        }
    }
    plan.effects.len() > before
}

/// When what still runs on a node that is drained ends.
pub fn drained_at(provided: &ProviderNode) -> Option<i64> {
    if provided.spec.availability != Availability::Draining {
        return None;
    }
    let told = provided.status.conditions.iter().find(|condition| condition.type_ == READY && condition.reason == "Draining")?;
    Some(told.last_transition_time.0.as_second() + provided.spec.drain_deadline_seconds?)
}

/// An attempt failed for reasons of the node's own. When that happens too often the node is set apart, each time for twice
/// as long.
pub fn blame(world: &mut World, node: &str, now: i64) {
    let record = world.quarantine.entry(node.to_owned()).or_default();
    record.faults.retain(|at| now - at < FAULTS_WITHIN_SECONDS);
    record.faults.push(now);
    if record.faults.len() >= MOST_FAULTS {
        record.faults.clear();
        record.until = now + (FIRST_QUARANTINE_SECONDS << record.times.min(16)).min(LONGEST_QUARANTINE_SECONDS);
        record.times += 1;
        world.todo.node_alarms.set(record.until, node.to_owned());
        world.todo.nodes.push(node.to_owned());
    }
}

fn selects(pool: &Pool, node: &Node) -> bool {
    let wanted = &pool.spec.selector.match_labels;
    !wanted.is_empty() && wanted.iter().all(|(key, value)| node.labels.get(key) == Some(value))
}

/// What is free changes with every task: it alone is no reason to write.
fn differs(before: &ProviderNodeStatus, next: &ProviderNodeStatus) -> bool {
    let without_free = |status: &ProviderNodeStatus| {
        let mut status = status.clone();
        status.offers.iter_mut().for_each(|offer| offer.free = 0);
        status.free = None;
        status
    };
    without_free(before) != without_free(next)
}

fn node_status(world: &World, provided: &ProviderNode, used: &BTreeMap<String, u64>, now: i64) -> ProviderNodeStatus {
    let mut next = provided.status.clone();
    next.observed_generation = provided.generation;
    next.reputation = Some(50);
    let node = world.nodes.get(&provided.spec.node_name);
    let (ready, reason, message) = match (node, provided.spec.availability) {
        (None, _) => (false, "NoNode", format!("there is no node {}", provided.spec.node_name)),
        (Some(node), _) if !node.ready => (false, "NodeNotReady", "its kubelet is not ready".to_owned()),
        (Some(node), _) if node.cordoned => (false, "NodeCordoned", "the node is cordoned".to_owned()),
        (_, Availability::Draining) => (false, "Draining", "it takes no new tasks".to_owned()),
        (_, Availability::Closed) => (false, "Closed", "it takes no tasks".to_owned()),
        (Some(node), _) if world.is_set_apart(&node.name, now) => (false, "Quarantined", quarantined(world, &node.name)),
        _ => (true, "Open", "it takes tasks".to_owned()),
    };
    let at = status::since(&next.conditions, READY).filter(|_| status::is_true(&next.conditions, READY) == ready).unwrap_or(now);
    status::set(&mut next.conditions, READY, ready, reason, message, provided.generation, at);
    let apart = world.is_set_apart(&provided.spec.node_name, now);
    let (healthy, reason) = match node {
        Some(node) if node.ready && apart => (false, "Quarantined"),
        Some(node) if node.ready => (true, "Healthy"),
        _ => (false, "NodeNotReady"),
    };
    status::set(&mut next.conditions, HEALTHY, healthy, reason, "", provided.generation, at);
    next.offers = node.map(|node| offers(world, provided, node, used)).unwrap_or_default();
    next.summarize();
    let record = world.quarantine.get(&provided.spec.node_name).filter(|_| apart);
    next.quarantine = record.and_then(|record| {
        let faults = i32::try_from(MOST_FAULTS).unwrap_or(i32::MAX);
        Some(Quarantine { until: status::time(record.until)?, faults, message: None })
    });
    let terms = world.terms_of(provided);
    let vouched = |class: &DataClass| DataClassStatus { class: *class, basis: DataClassBasis::Vouched };
    next.data_classes = terms.map(|terms| terms.data_classes.iter().map(vouched).collect()).unwrap_or_default();
    next
}

fn quarantined(world: &World, node: &str) -> String {
    let until = world.quarantine.get(node).and_then(|record| jiff::Timestamp::from_second(record.until).ok()).unwrap_or_default();
    format!("{MOST_FAULTS} attempts in ten minutes failed for reasons of its own: it takes no tasks until {until}")
}

fn offers(world: &World, provided: &ProviderNode, node: &Node, used: &BTreeMap<String, u64>) -> Vec<OfferStatus> {
    let Some(terms) = world.terms_of(provided) else { return Vec::new() };
    let sold = world.sold_resources(node, &terms);
    sold.into_iter()
        .map(|resource| {
            let (model, memory, model_from) = model_of(node, &terms, resource);
            let count = node.devices.get(resource).copied().unwrap_or_default();
            let free = count.saturating_sub(used.get(resource).copied().unwrap_or_default());
            OfferStatus {
                resource_name: resource.to_owned(),
                model,
                model_from: model_from.to_owned(),
                memory: format!("{}Mi", memory >> 20),
                count: count.cast_signed(),
                free: free.cast_signed(),
                replicas_per_device: replicas_of(node),
            }
        })
        .collect()
}

fn pool_status(pool: &Pool, nodes: usize, lost: &[&str], now: i64) -> ProviderPoolStatus {
    let mut next = pool.status.clone();
    next.observed_generation = pool.generation;
    next.nodes = i32::try_from(nodes).unwrap_or(i32::MAX);
    let (ready, reason, message) = match (nodes, lost) {
        _ if !pool.findings.is_empty() => (false, "Invalid", pool.findings.join("; ")),
        (0, []) => (false, "NoNodes", "no node has the labels of its selector".to_owned()),
        (_, []) => (true, "Selling", format!("it sells {nodes} nodes")),
        (_, lost) => {
            (nodes > 0, "NodesTaken", format!("an older pool has {} of the nodes that it selects, such as {}", lost.len(), lost[0]))
        }
    };
    let at = status::since(&next.conditions, READY).filter(|_| status::is_true(&next.conditions, READY) == ready).unwrap_or(now);
    status::set(&mut next.conditions, READY, ready, reason, message, pool.generation, at);
    next
}
