//! Bringing tasks to the market: what each asks for, what is held back for the place that it gets, and in which words it
//! waits.

use super::{Booking, account, budget, inventory, status};
use crate::world::World;
use crate::world::free::{isolation_rank, model_of};
use crate::world::funds::Funds;
use crate::world::market::Decision;
use crate::world::records::{Node, Parting, Place, Placement, Task};
use crate::world::volumes::{Missing, Reach};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use supercargo_crds::common::DataClass;
use supercargo_crds::task::{Strategy as Wanted, Topology as Near};
use supercargo_market::funding;
use supercargo_market::minimum::Rated;
use supercargo_market::money::Amount;
use supercargo_market::placement::{Assignment, Reason, Refused, Request, Strategy, Topology, Waiting};
use supercargo_market::rate_card::RateCard;
use supercargo_market::rating::Held;
use supercargo_market::work::{FundingId, WorkId};

/// Longer than a kubelet takes from the end of the grace period to the record of the end.
pub const KILL_LATENCY_SECONDS: u64 = 10;
/// A budget that pays for less is too small to start with.
const LEAST_SECONDS: u64 = 60;
pub const DEFAULT_STORAGE_BYTES: u64 = 1 << 30;
/// A place that the books have not heard of for so long is looked for again.
const STALE_SECONDS: i64 = 30;
/// Who found no money tries again when there is more, and at least so often.
const SHORT_SECONDS: i64 = 60;

/// Why a task waits, for its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    pub reason: String,
    pub nodes: i32,
    pub example: String,
}

impl Wait {
    pub fn new(reason: &str, example: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), nodes: 0, example: example.into() }
    }
}

/// Who pays for a task.
pub struct Payer<'a> {
    pub funding: &'a FundingId,
    pub chain: Option<&'a String>,
    pub token: &'a String,
    pub funds: Funds,
    /// The provider that the escrow calls its own.
    pub own_provider: Option<&'a String>,
}

/// The escrow that pays, or what is missing.
pub fn payer<'a>(world: &'a World, task: &Task) -> Result<Payer<'a>, Wait> {
    let key = &task.payer;
    let name = || format!("{}/{}", key.0, key.1);
    let Some(escrow) = world.escrows.get(key) else {
        return Err(Wait::new("EscrowNotFound", format!("there is no Escrow {}", name())));
    };
    if key.0 != task.namespace && !escrow.spec.allowed_namespaces.contains(&task.namespace) {
        return Err(Wait::new(
            "EscrowNotAllowed",
            format!("Escrow {} does not list namespace {} in allowedNamespaces", name(), task.namespace),
        ));
    }
    if let Some(why) = super::escrow::not_ready(world, escrow) {
        return Err(Wait::new("EscrowNotReady", format!("Escrow {}: {why}", name())));
    }
    if let Some(wait) = account::closed(world, escrow) {
        return Err(wait);
    }
    let Some((funding, funds)) = world.funds(escrow) else {
        return Err(Wait::new("EscrowNotReady", format!("Escrow {} is not in the books yet", name())));
    };
    let chain = escrow.spec.account_id.as_ref().and(escrow.spec.chain.as_ref());
    Ok(Payer { funding, chain, token: &escrow.spec.token, funds, own_provider: escrow.spec.provider.as_ref() })
}

/// What one worker asks of a node.
fn request(task: &Task, payer: &Payer<'_>, max_price_per_hour: Option<Amount>, excluded_nodes: Vec<String>, reach: Reach) -> Request {
    let spec = &task.spec;
    let units = |quantity: &Option<supercargo_crds::Quantity>| quantity.as_ref().and_then(|found| found.units().ok());
    Request {
        funding: payer.funding.clone(),
        namespace: task.namespace.clone(),
        own_provider: payer.own_provider.cloned(),
        chain: payer.chain.cloned(),
        token: payer.token.clone(),
        resource_name: spec.resources.gpu.resource_name.clone(),
        devices: spec.resources.gpu.count.unsigned_abs(),
        models: spec.resources.gpu.models.clone(),
        device_memory_bytes: units(&spec.resources.gpu.memory).unwrap_or_default(),
        cpu_millis: spec.resources.cpu.as_ref().and_then(|found| found.millis().ok()),
        memory_bytes: units(&spec.resources.memory),
        storage_bytes: storage_bytes(task),
        strategy: match spec.placement.strategy {
            Wanted::Cheapest => Strategy::Cheapest,
            Wanted::Fastest => Strategy::Fastest,
            Wanted::Quality => Strategy::Quality,
            Wanted::Balanced => Strategy::Balanced,
        },
        tenancy: spec.placement.tenancy.name().to_owned(),
        data_class: spec.data_class.name().to_owned(),
        isolation_level: isolation_rank(spec.placement.isolation),
        max_price_per_hour,
        min_reputation: u8::try_from(spec.placement.min_reputation).unwrap_or(100),
        regions: spec.placement.regions.clone(),
        node_selector: spec.placement.node_selector.clone(),
        allow_providers: spec.placement.providers.allow.clone(),
        deny_providers: spec.placement.providers.deny.clone(),
        excluded_nodes,
        only_nodes: reach.only_nodes,
    }
}

/// The container's own files and the scratch volumes.
pub fn storage_bytes(task: &Task) -> u64 {
    let scratch = task.spec.volumes.iter().filter_map(|volume| volume.scratch.as_ref()?.size.units().ok()).fold(0, u64::saturating_add);
    let asked = task.spec.resources.ephemeral_storage.as_ref().and_then(|asked| asked.units().ok());
    asked.unwrap_or_else(|| scratch.saturating_add(DEFAULT_STORAGE_BYTES))
}

/// From the end of a run to the record of it.
pub fn after_seconds(task: &Task) -> u64 {
    task.spec.grace_period_seconds.unsigned_abs() + KILL_LATENCY_SECONDS
}

/// Until when they may.
pub fn start_timeout(world: &World, task: &Task, placement: &Placement) -> i64 {
    world.clocks.as_it_is_now(placement.bound) + start_timeout_seconds(task)
}

/// How long its workers may take to start.
pub fn start_timeout_seconds(task: &Task) -> i64 {
    task.spec.gang.as_ref().map_or(task.spec.start_timeout_seconds, |gang| gang.start_timeout_seconds)
}

pub fn workers(task: &Task) -> u32 {
    task.spec.gang.as_ref().map_or(1, |gang| gang.workers.unsigned_abs().max(1))
}

/// What is left of its budget.
fn left(world: &World, task: &Task) -> Amount {
    let charged = world.works.get(&task.work()).map(|balance| balance.charged).unwrap_or_default();
    task.spec.budget.0.saturating_sub(charged)
}

/// The least that it must be able to run for.
pub fn least_seconds(task: &Task) -> u64 {
    LEAST_SECONDS.min(task.spec.time_limit_seconds.unsigned_abs())
}

/// The most that a worker may cost an hour for the budget to pay for the least that is worth starting.
fn affordable(task: &Task, left: Amount) -> Amount {
    let seconds = u128::from(least_seconds(task) + after_seconds(task)) * u128::from(workers(task));
    Amount::from_units(u64::try_from(u128::from(left.units()) * 3_600 / seconds).unwrap_or(u64::MAX))
}

/// What the task asks of the market, or what it waits for before it may ask.
pub fn wish(world: &World, task: &Task, now: i64) -> Result<Waiting, Wait> {
    let payer = payer(world, task)?;
    let work = task.work();
    if let Some(wait) = world.market.short_of(payer.funding, &work, now).and_then(|amount| lacks(world, &payer.funds, amount)) {
        return Err(wait);
    }
    let capped = world.market.capped_at(payer.funding, &work, now).and_then(|second| account::too_fast(world, payer.funding, second));
    if let Some(wait) = capped {
        return Err(wait);
    }
    let asked = task.spec.placement.max_price_per_hour.map(|most| most.0);
    let affordable = world.market.is_frugal(&work).then(|| affordable(task, left(world, task)));
    let goes_back = world.market.elsewhere_until(&work).is_some_and(|until| now >= until);
    let excluded = if goes_back { Vec::new() } else { failed_on(task) };
    let reach = world.reach_of(task).map_err(|missing| match missing {
        Missing::Claim(claim) => {
            Wait::new("VolumeNotFound", format!("there is no PersistentVolumeClaim {claim} in namespace {}", task.namespace))
        }
        Missing::Volume(claim) => Wait::new("VolumePending", format!("PersistentVolumeClaim {claim} has no volume yet")),
    })?;
    let request = request(task, &payer, asked.into_iter().chain(affordable).min(), excluded, reach);
    let most = task.spec.time_limit_seconds.saturating_add_unsigned(after_seconds(task)).saturating_add(start_timeout_seconds(task));
    Ok(Waiting {
        id: task.uid.clone(),
        request: Arc::new(request),
        priority: task.spec.priority,
        created: task.created,
        workers: workers(task),
        topology: match task.spec.gang.as_ref().map(|gang| gang.topology).unwrap_or_default() {
            Near::Any => Topology::Any,
            Near::Zone => Topology::Zone,
            Near::Node => Topology::Node,
        },
        seconds: most,
    })
}

/// Nodes where an attempt of it ended by the node's own fault.
fn failed_on(task: &Task) -> Vec<String> {
    let failed = task.status.attempts.iter().filter(|attempt| attempt.outcome == "ProviderFault");
    let mut nodes: Vec<String> = failed.map(|attempt| attempt.node.clone()).collect();
    nodes.sort();
    nodes.dedup();
    nodes
}

/// What is missing for so much to be held back, and when that ends by itself.
fn lacks(world: &World, funds: &Funds, amount: Amount) -> Option<Wait> {
    if amount > funds.available {
        let words = format!("{amount} has to be held back and {} is available in the Escrow", funds.available);
        return Some(Wait::new("EscrowTooLow", words));
    }
    let day = funds.day.filter(|day| amount > day.left())?;
    let words = if amount > day.limit {
        format!("{amount} has to be held back, and the Escrow's dailyLimit is {}: ask for less time or a smaller budget", day.limit)
    } else {
        let ends = status::time(funding::begins(world.today + 1)).map_or_else(String::new, |time| format!(", which ends at {}", time.0));
        format!(
            "{amount} has to be held back, and the Escrow's dailyLimit leaves {}: {} was charged today{ends}, and {} is held back",
            day.left(),
            day.charged,
            day.reserved
        )
    };
    Some(Wait::new("DailyLimit", words))
}

/// One look of the market at all who wait. Who gets a place is asked for in the books at once, unless there is news of it
/// that nobody has looked at yet. Who waits on is to be told why when nobody was sent away again: until then what stands in the way
/// may not stay there. Whether anything came of it that has to be looked at.
pub fn assign(world: &mut World, bookings: &mut Vec<Booking>, asked: &mut Vec<WorkId>, waiting: &mut Vec<WorkId>, now: i64) -> bool {
    let brought = world.market.assign(now);
    let any = !brought.placed.is_empty() || !brought.waiting.is_empty();
    let mut all_stay = true;
    if !waiting.is_empty() {
        let found: HashSet<&WorkId> = brought.placed.iter().map(|(work, _)| work).collect();
        waiting.retain(|work| !found.contains(work));
    }
    for (work, assignments) in brought.placed {
        if !decide(world, &work, assignments, now) {
            world.market.undo(&work);
            all_stay = false;
        } else if !world.todo.works.contains(&work) && reserve(world, &work, bookings) {
            asked.push(work);
            continue;
        }
        world.todo.works.push(work);
    }
    waiting.extend(brought.waiting);
    if all_stay {
        waiting.drain(..).for_each(|work| world.todo.works.push(work));
    }
    any
}

/// Takes a place, if there is money for it.
fn decide(world: &mut World, work: &WorkId, assignments: Vec<Assignment>, now: i64) -> bool {
    let Some(task) = world.task_of(work).cloned() else { return false };
    let Ok(payer) = payer(world, &task) else { return false };
    let before = world.works.get(work).map_or(0, |balance| balance.billed_seconds);
    let left = left(world, &task);
    let rated = budget::rated(world, &assignments, before, left);
    let Ok((rated, (run_seconds, amount))) = rated.and_then(|rated| budget::terms(&task, &rated, before, left).map(|terms| (rated, terms)))
    else {
        world.market.be_frugal(work);
        return false;
    };
    let funding = payer.funding.clone();
    if lacks(world, &payer.funds, amount).is_some() {
        let until = (now + SHORT_SECONDS).min(funding::begins(world.today + 1)).max(now + 1);
        world.market.is_short(&funding, work.clone(), amount, until);
        world.todo.alarms.set(until, work.clone());
        return false;
    }
    // What can't be counted was refused above.
    let held: Vec<Held> = rated.iter().map(|worker| worker.held).collect();
    let second = budget::second(&held).unwrap_or_default();
    if account::too_fast(world, &funding, second).is_some() {
        world.market.is_capped(&funding, work.clone(), second, now + SHORT_SECONDS);
        world.todo.alarms.set(now + SHORT_SECONDS, work.clone());
        return false;
    }
    let attempt = world.latest.get(work).map_or(0, |placement| placement.attempt + 1);
    let cards = cards(world, &assignments);
    let places = (0..).zip(assignments).map(|(worker, chosen)| place(world, &task, &payer, chosen, attempt, worker));
    let places = places.zip(&rated).map(|(place, rated)| Place { minimum_seconds: rated.minimum_seconds, ..place });
    let placement = Placement {
        attempt,
        namespace: task.namespace.clone(),
        task: task.name.clone(),
        token: payer.token.clone(),
        tenancy: task.spec.placement.tenancy.name().to_owned(),
        resource_name: task.spec.resources.gpu.resource_name.clone(),
        run_seconds,
        hold_seconds: start_timeout_seconds(&task).unsigned_abs() + run_seconds + after_seconds(&task),
        bound: now,
        billed_before_seconds: before,
        workers: places.collect(),
    };
    world.market.decide(work.clone(), Decision { funding, amount, placement, cards, at: now });
    true
}

/// Asks the books for what was decided. `false`: nothing is.
pub fn reserve(world: &World, work: &WorkId, bookings: &mut Vec<Booking>) -> bool {
    let Some(decision) = world.market.decision(work) else { return false };
    bookings.push(Booking::Reserve(work.clone(), decision.clone()));
    true
}

/// A budget that was raised lets what runs run on: more is held back, for longer, as far as there is money for it.
pub fn extend(world: &mut World, task: &Task, bookings: &mut Vec<Booking>) {
    let work = task.work();
    // What was asked for before is not in the way of the same again.
    world.market.undecide(&work);
    let Some(reservation) = world.reservations.get(&work) else { return };
    let placement = &reservation.placement;
    if placement.run_seconds >= task.spec.time_limit_seconds.unsigned_abs() {
        return;
    }
    let rated: Vec<Rated> = placement.workers.iter().map(Place::rated).collect();
    let terms = budget::terms(task, &rated, placement.billed_before_seconds, left(world, task));
    let (Ok((run_seconds, amount)), Ok(payer)) = (terms, payer(world, task)) else { return };
    let more = amount.saturating_sub(reservation.reserved);
    if run_seconds > placement.run_seconds && more <= payer.funds.most() {
        let hold_seconds = placement.hold_seconds + run_seconds - placement.run_seconds;
        let placement = Placement { run_seconds, hold_seconds, ..placement.clone() };
        let funding = reservation.funding.clone();
        world.market.extend(work.clone(), funding.clone(), more);
        // The cards are in the books since it was placed.
        bookings.push(Booking::Reserve(work, Arc::new(Decision { funding, amount, at: placement.bound, placement, cards: Vec::new() })));
    }
}

/// A decision that the books have not heard of for too long is none.
pub fn is_stale(decision: &Decision, now: i64) -> bool {
    now >= decision.at + STALE_SECONDS
}

pub fn books_are_silent() -> Wait {
    Wait::new("BooksSilent", format!("a place was found, and the books have not answered for {STALE_SECONDS} s"))
}

/// The cards that places are priced by, each once.
fn cards(world: &World, assignments: &[Assignment]) -> Vec<Arc<RateCard>> {
    let cards = assignments.iter().filter_map(|chosen| world.rate_cards.get(&chosen.pool));
    let different: BTreeMap<&str, &Arc<RateCard>> = cards.map(|known| (known.hash.as_str(), &known.card)).collect();
    different.into_values().cloned().collect()
}

/// The model that a node's devices are priced as.
fn model(world: &World, node: &str, resource: &str) -> Option<String> {
    let terms = world.terms_of(world.provider_node_of(node)?)?;
    Some(model_of(world.nodes.get(node)?, &terms, resource).0)
}

fn place(world: &World, task: &Task, payer: &Payer<'_>, chosen: Assignment, attempt: u32, worker: u32) -> Place {
    let pool = world.pools.get(&chosen.pool);
    let payee = pool.and_then(|pool| pool.spec.payee).and_then(|payee| u32::try_from(payee).ok());
    let card = world.rate_cards.get(&chosen.pool);
    Place {
        provider: pool.map(|pool| pool.spec.provider.clone()).unwrap_or_default(),
        pod: pod_name(task, attempt, worker),
        price_per_hour: chosen.price_per_hour,
        payee: payer.chain.and(payee),
        devices: chosen.held.devices,
        cpu_millis: chosen.held.cpu_millis,
        memory_bytes: chosen.held.memory_bytes,
        storage_bytes: storage_bytes(task),
        device_price_nanos: chosen.held.device_price.nanos_per_hour(),
        cpu_price_nanos: chosen.held.cpu_price.nanos_per_hour(),
        memory_price_nanos: chosen.held.memory_gib_price.nanos_per_hour(),
        beside_price_nanos: chosen.held.beside_price.nanos_per_hour(),
        rate_card: card.map(|card| card.hash.clone()).unwrap_or_default(),
        model: model(world, &chosen.node, &task.spec.resources.gpu.resource_name).unwrap_or_default(),
        basis: card.map(|card| card.card.basis).unwrap_or_default(),
        minimum_seconds: 0,
        parting: Parting::default(),
        billed: None,
        node: chosen.node,
        pool: chosen.pool,
        because: chosen.because,
    }
}

/// Why the market has no place for it, in words.
pub fn reasons(world: &World, task: &Task) -> Vec<Wait> {
    let work = task.work();
    if world.market.is_empty() {
        return vec![Wait::new("NoProvider", "no ProviderPool sells a node here")];
    }
    let Some(refused) = world.market.reasons(&work) else { return Vec::new() };
    // A node that sells what is asked for sells other things too: of those nobody wants to hear.
    let others = refused.iter().any(|one| one.reason != Reason::ResourceNotSold);
    let (left, asked) = (left(world, task), task.spec.placement.max_price_per_hour.map(|most| most.0));
    // The tighter of two limits is the one to be told.
    let frugal = world.market.is_frugal(&work) && asked.is_none_or(|asked| affordable(task, left) < asked);
    let told = refused.iter().filter(|one| !others || one.reason != Reason::ResourceNotSold);
    let wait = |one: &Refused| {
        let nodes = i32::try_from(one.nodes).unwrap_or(i32::MAX);
        if frugal && one.reason == Reason::PriceTooHigh {
            let words =
                format!("{}, and the {left} that is left of the budget pays for less than {} s of it", one.example, least_seconds(task));
            return Wait { reason: "BudgetTooSmall".to_owned(), nodes, example: words };
        }
        Wait { reason: one.reason.name().to_owned(), nodes, example: example(world, task, one) }
    };
    told.map(wait).collect()
}

/// In words: the market knows that a node has taints, and not which; and not why one that is vouched for is not for this task.
fn example(world: &World, task: &Task, refused: &Refused) -> String {
    let named = || world.nodes.get(refused.example.split_once(": ")?.0);
    let class = task.spec.data_class;
    let is_vouched_for = |node: &&Node| {
        let terms = world.provider_node_of(&node.name).and_then(|provided| world.terms_of(provided));
        terms.is_some_and(|terms| terms.data_classes.contains(&class))
    };
    match refused.reason {
        Reason::NodeTainted => {
            named().filter(|node| !node.closing_taints.is_empty()).map(|node| format!("{}: {}", node.name, inventory::tainted(node)))
        }
        Reason::DataClassNotAllowed if class != DataClass::Private => named().filter(is_vouched_for).map(|node| {
            let class = class.name();
            format!("{}: its provider vouches for {class} data, and the operator's dataClasses want it Proved", node.name)
        }),
        _ => None,
    }
    .unwrap_or_else(|| refused.example.clone())
}

/// A task's own part of the names of what is made for it.
pub fn stem(task: &Task) -> String {
    let name = task.name[..task.name.floor_char_boundary(40)].trim_end_matches(['-', '.']);
    let mut stem = String::with_capacity(name.len() + 24);
    // A gang's pods are hosts by their names, and a host's name has no dots.
    stem.extend(name.chars().map(|letter| if letter == '.' { '-' } else { letter }));
    stem.push('-');
    stem.extend(task.uid.chars().filter(|letter| *letter != '-').take(8));
    stem
}

/// The same worker of the same attempt always has the same pod.
pub fn pod_name(task: &Task, attempt: u32, worker: u32) -> String {
    format!("{}-{attempt}-{worker}", stem(task))
}
