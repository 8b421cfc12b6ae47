//! Pools make nodes: a pool's selector names Kubernetes nodes, the older of two pools keeps a node, and each node's
//! inventory is shown. A person's overrides are never fought: only `nodeName` and `pool` are ours.

use super::{Effect, Plan, Terms, account, inventory, note, status};
use crate::world::World;
use crate::world::free::selects;
use crate::world::records::{Pod, Pool, ProviderNode};
use std::collections::BTreeMap;
use supercargo_crds::names::node_condition::{DRAINING, READY};
use supercargo_crds::node::Availability;
use supercargo_crds::pool::{Binding, PricingBasis, ProviderPoolStatus};

/// So many faults within so long set a node apart.
pub const MOST_FAULTS: usize = 3;
const FAULTS_WITHIN_SECONDS: i64 = 600;
const FIRST_QUARANTINE_SECONDS: i64 = 600;
const LONGEST_QUARANTINE_SECONDS: i64 = 86_400;
/// After so long without one the next is as short as the first.
const FORGIVEN_AFTER_SECONDS: i64 = 86_400;
/// What is free is shown as it was at most so long ago.
const STALE_SECONDS: i64 = 60;

pub fn plan(world: &mut World, terms: &Terms, plan: &mut Plan, now: i64) {
    while let Some(node) = world.todo.node_alarms.pop_due(now) {
        world.todo.nodes.push(node);
    }
    if world.todo.pools {
        world.todo.pools = pools(world, terms, plan, now);
    }
    let mut busy = Vec::new();
    while let Some(name) = world.todo.nodes.pop() {
        let offers = world.offers_of(&name, &terms.data_classes, now);
        world.market.offer(&name, &offers);
        let before = plan.effects.len();
        plan.effects.extend(taint(world, terms, &name));
        plan.effects.extend(tell(world, terms, &name, now));
        if plan.effects.len() > before {
            busy.push(name);
        }
    }
    busy.into_iter().for_each(|name| world.todo.nodes.push(name));
    plan.wake_at_next(world.todo.node_alarms.next());
}

/// Its status, if it is to be written. What is free changes with every task, and a task's start and end are not to cost two
/// writes more: it is written when it has been another for a minute.
fn tell(world: &mut World, terms: &Terms, name: &str, now: i64) -> Option<Effect> {
    let provided = world.provider_node_of(name)?;
    let next = inventory::status(world, terms, provided, now);
    let (differs, stale) = (inventory::differs(&provided.status, &next), provided.status.offers != next.offers);
    let note = note::on_node(provided, &next).map(Box::new);
    let name = provided.name.clone();
    if !differs {
        if !stale {
            world.stale_since.remove(&name);
            return None;
        }
        let until = *world.stale_since.entry(name.clone()).or_insert(now) + STALE_SECONDS;
        if now < until {
            world.todo.node_alarms.set(until, name);
            return None;
        }
    }
    Some(Effect::WriteNode { name, status: Box::new(next), note })
}

/// Which pool has which node. Whether anything is to be written.
fn pools(world: &World, terms: &Terms, plan: &mut Plan, now: i64) -> bool {
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
        let lost = lost.get(pool.name.as_str()).map_or(&[][..], Vec::as_slice);
        let mut next = pool_status(pool, count, lost, unread(world, terms, pool), now);
        account::voucher_fresh(world, pool, &mut next, now);
        if next != pool.status {
            plan.effects.push(Effect::WritePool { name: pool.name.clone(), status: Box::new(next) });
        }
    }
    plan.effects.len() > before
}

/// When what still runs on a node that is drained ends. It counts from when the draining was told, whatever else is true of
/// the node meanwhile.
pub fn drained_at(provided: &ProviderNode) -> Option<i64> {
    let conditions = &provided.status.conditions;
    let draining = provided.spec.availability == Availability::Draining && status::is_true(conditions, DRAINING);
    let since = status::since(conditions, DRAINING).filter(|_| draining)?;
    Some(since.saturating_add(provided.spec.drain_deadline_seconds?))
}

/// An attempt failed at that time for reasons of the node's own, whenever it is told. When that happens too often the node is
/// set apart, each time for twice as long. What fails until it is let back has had its quarantine: one power cut ends many.
pub fn blame(world: &mut World, node: &str, at: i64) {
    let record = world.quarantine.entry(node.to_owned()).or_default();
    if at < record.until {
        return;
    }
    record.faults.push(at);
    let latest = record.faults.iter().copied().max().unwrap_or(at);
    record.faults.retain(|fault| latest - fault < FAULTS_WITHIN_SECONDS);
    if record.faults.len() >= MOST_FAULTS {
        record.faults.clear();
        let times = if latest - record.until < FORGIVEN_AFTER_SECONDS { record.times } else { 0 };
        let until = latest + (FIRST_QUARANTINE_SECONDS << times.min(16)).min(LONGEST_QUARANTINE_SECONDS);
        (record.times, record.until) = (times + 1, record.until.max(until));
        world.todo.node_alarms.set(record.until, node.to_owned());
    }
    world.todo.nodes.push(node.to_owned());
}

/// Whether a node is blamed for what only Events say of it. Whoever may write in a namespace can write those: one namespace is
/// heeded once in so long.
pub fn heeds(world: &mut World, node: &str, namespace: &str, at: i64) -> bool {
    world.heeded.retain(|_, last| at - *last < FAULTS_WITHIN_SECONDS);
    let key = (node.to_owned(), namespace.to_owned());
    let heeds = !world.heeded.contains_key(&key);
    if heeds {
        world.heeded.insert(key, at);
    }
    heeds
}

/// When attempts failed there, of those that count for the next quarantine.
pub fn recent_faults(world: &World, node: &str, now: i64) -> Vec<i64> {
    let faults = world.quarantine.get(node).map(|record| record.faults.as_slice()).unwrap_or_default();
    faults.iter().copied().filter(|fault| now - fault < FAULTS_WITHIN_SECONDS).collect()
}

/// A node of a Direct pool is only ours: once nobody would be thrown out, the taint keeps it so. It goes when the node is
/// sold so no more. Whom we don't know we never throw out.
fn taint(world: &World, terms: &Terms, name: &str) -> Option<Effect> {
    let node = world.nodes.get(name)?;
    let pool = world.provider_node_of(name).and_then(|provided| world.pools.get(&provided.spec.pool));
    let direct = pool.is_some_and(|pool| pool.spec.binding == Binding::Direct && selects(pool, node));
    let told = |sold: bool| Effect::TaintNode { name: name.to_owned(), sold };
    match (direct, node.sold) {
        (true, false) if terms.taints_nodes && strangers(world, name).next().is_none() => Some(told(true)),
        (false, true) if terms.taints_nodes => Some(told(false)),
        _ => None,
    }
}

/// Pods of nobody's task that the taint would throw out.
pub fn strangers<'a>(world: &'a World, node: &str) -> impl Iterator<Item = &'a Pod> {
    world.pods_on(node).filter(|pod| pod.ours.is_none() && !pod.tolerates_sold && !pod.is_over())
}

/// Why CPU and memory that are billed as they are used may not be billed.
fn unread(world: &World, terms: &Terms, pool: &Pool) -> Option<&'static str> {
    let why = match terms.usage {
        None => "there is no Prometheus that could show what containers use",
        Some(_) if world.is_usage_unread() => "what containers use could not be read when it was last asked for",
        Some(_) => return None,
    };
    (pool.spec.pricing.basis == PricingBasis::Used).then_some(why)
}

fn pool_status(pool: &Pool, nodes: usize, lost: &[&str], unread: Option<&str>, now: i64) -> ProviderPoolStatus {
    let mut next = pool.status.clone();
    next.observed_generation = pool.generation;
    next.nodes = i32::try_from(nodes).unwrap_or(i32::MAX);
    let (ready, reason, message) = match (nodes, lost, unread) {
        _ if !pool.findings.is_empty() => (false, "Invalid", pool.findings.join("; ")),
        (0, [], _) => (false, "NoNodes", "no node has the labels of its selector".to_owned()),
        (_, [], None) => (true, "Selling", format!("it sells {nodes} nodes")),
        (_, [], Some(why)) => {
            (true, "UsageUnread", format!("it sells {nodes} nodes; {why}, and CPU and memory that nobody can show in time are not billed"))
        }
        (_, lost, _) => {
            (nodes > 0, "NodesTaken", format!("an older pool has {} of the nodes that it selects, such as {}", lost.len(), lost[0]))
        }
    };
    let at = status::since(&next.conditions, READY).filter(|_| status::is_true(&next.conditions, READY) == ready).unwrap_or(now);
    status::set(&mut next.conditions, READY, ready, reason, message, pool.generation, at);
    next
}
