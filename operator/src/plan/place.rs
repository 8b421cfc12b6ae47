//! Deciding where a task goes, what is held back for it, and in which words it waits.

use crate::world::World;
use crate::world::free::isolation_rank;
use crate::world::records::{Placement, Task};
use supercargo_crds::task::Strategy as Wanted;
use supercargo_ledger::Posting;
use supercargo_market::money::Amount;
use supercargo_market::placement::{self, Assignment, Offer, Request, Strategy};
use supercargo_market::rating::{self, Held};
use supercargo_market::work::FundingId;

/// Longer than a kubelet takes from the end of the grace period to the record of the end.
pub const KILL_LATENCY_SECONDS: u64 = 10;
/// A budget that pays for less is too small to start with.
const LEAST_SECONDS: u64 = 60;
pub const DEFAULT_STORAGE_BYTES: u64 = 1 << 30;

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
pub struct Payer {
    pub funding: FundingId,
    pub chain: Option<String>,
    pub token: String,
    pub available: Amount,
    /// The provider that the escrow calls its own.
    pub own_provider: Option<String>,
}

/// The escrow that pays, or what is missing.
pub fn payer(world: &World, task: &Task) -> Result<Payer, Wait> {
    let reference = &task.spec.escrow_ref;
    let namespace = reference.namespace.as_ref().unwrap_or(&task.namespace);
    let name = format!("{namespace}/{}", reference.name);
    let Some(escrow) = world.escrows.get(&(namespace.clone(), reference.name.clone())) else {
        return Err(Wait::new("EscrowNotFound", format!("there is no Escrow {name}")));
    };
    if *namespace != task.namespace && !escrow.spec.allowed_namespaces.contains(&task.namespace) {
        return Err(Wait::new(
            "EscrowNotAllowed",
            format!("Escrow {name} does not list namespace {} in allowedNamespaces", task.namespace),
        ));
    }
    if let Some(why) = super::escrow::not_ready(world, escrow) {
        return Err(Wait::new("EscrowNotReady", format!("Escrow {name}: {why}")));
    }
    let funding = World::funding_of(escrow).and_then(|funding| world.fundings.get(&funding).map(|found| (funding, found.0.available)));
    let Some((funding, available)) = funding else {
        return Err(Wait::new("EscrowNotReady", format!("Escrow {name} is not in the books yet")));
    };
    let chain = escrow.spec.account_id.as_ref().and(escrow.spec.chain.clone());
    Ok(Payer { funding, chain, token: escrow.spec.token.clone(), available, own_provider: escrow.spec.provider.clone() })
}

fn request(task: &Task, payer: &Payer, excluded_nodes: Vec<String>) -> Request {
    let spec = &task.spec;
    let units = |quantity: &Option<supercargo_crds::Quantity>| quantity.as_ref().and_then(|found| found.units().ok());
    Request {
        funding: payer.funding.clone(),
        namespace: task.namespace.clone(),
        own_provider: payer.own_provider.clone(),
        chain: payer.chain.clone(),
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
        max_price_per_hour: spec.placement.max_price_per_hour.map(|most| most.0),
        min_reputation: u8::try_from(spec.placement.min_reputation).unwrap_or(100),
        regions: spec.placement.regions.clone(),
        node_selector: spec.placement.node_selector.clone(),
        allow_providers: spec.placement.providers.allow.clone(),
        deny_providers: spec.placement.providers.deny.clone(),
        excluded_nodes,
        // Claims are not watched here: a pod whose volume is elsewhere waits for its start timeout and says so.
        only_nodes: None,
    }
}

/// The container's own files and the scratch volumes.
pub fn storage_bytes(task: &Task) -> u64 {
    let scratch = task.spec.volumes.iter().filter_map(|volume| volume.scratch.as_ref()?.size.units().ok()).fold(0, u64::saturating_add);
    let asked = task.spec.resources.ephemeral_storage.as_ref().and_then(|asked| asked.units().ok());
    asked.unwrap_or_else(|| scratch.saturating_add(DEFAULT_STORAGE_BYTES))
}

/// How long it may run and what is held back for that, within the rest of its budget.
fn terms(task: &Task, held: &Held, left: Amount) -> Result<(u64, Amount), Wait> {
    let too_much = |_| Wait::new("PriceTooHigh", "it would cost more than can be paid");
    let after = task.spec.grace_period_seconds.unsigned_abs() + KILL_LATENCY_SECONDS;
    let limit = task.spec.time_limit_seconds.unsigned_abs();
    let worst = rating::cost(held, limit + after).and_then(|cost| cost.reserved()).map_err(too_much)?;
    if worst <= left {
        return Ok((limit, worst));
    }
    let seconds = rating::seconds_for(held, 1, left).map_err(too_much)?.unwrap_or(limit + after);
    let run = seconds.saturating_sub(after).min(limit);
    if run < LEAST_SECONDS.min(limit) {
        let message =
            format!("the {left} that is left of the budget pays for {run} s after the grace period; {LEAST_SECONDS} s are the least");
        return Err(Wait::new("BudgetTooSmall", message));
    }
    Ok((run, left))
}

/// What has been spent of a task's budget.
pub fn charged(world: &World, task: &Task) -> Amount {
    world.works.get(&task.work()).map(|balance| balance.charged).unwrap_or_default()
}

/// A place for the task's next attempt, as a posting; or why it waits.
pub fn place(world: &World, offers: &[Offer], task: &Task, now: i64) -> Result<(Posting, Placement), Vec<Wait>> {
    let payer = payer(world, task).map_err(|wait| vec![wait])?;
    let before = world.latest.get(&task.work());
    let excluded = excluded(task);
    // Elsewhere first; but where there is no other place the same one gets another chance.
    let assignment = choose(offers, task, &payer, excluded).or_else(|waits| {
        let only_that = waits.iter().any(|wait| wait.reason == placement::Reason::FailedThereBefore.name());
        if only_that { choose(offers, task, &payer, Vec::new()) } else { Err(waits) }
    })?;
    let left = task.spec.budget.0.saturating_sub(charged(world, task));
    let (run_seconds, amount) = terms(task, &assignment.held, left).map_err(|wait| vec![wait])?;
    if amount > payer.available {
        let message = format!("{amount} has to be held back and {} is available in the Escrow", payer.available);
        return Err(vec![Wait::new("EscrowTooLow", message)]);
    }
    let attempt = before.map_or(0, |placement| placement.attempt + 1);
    let failures = before.map_or(0, |placement| placement.failures);
    let placement = placement(world, task, &payer, &assignment, attempt, failures, run_seconds, now);
    let detail = serde_json::to_string(&placement).map_err(|error| vec![Wait::new("Internal", error.to_string())])?;
    let posting = Posting::Reserve { work: task.work(), funding: payer.funding, amount, detail };
    Ok((posting, placement))
}

/// Nodes where an attempt of it ended by the node's own fault.
fn excluded(task: &Task) -> Vec<String> {
    task.status.attempts.iter().filter(|attempt| attempt.outcome == "ProviderFault").map(|attempt| attempt.node.clone()).collect()
}

fn choose(offers: &[Offer], task: &Task, payer: &Payer, excluded: Vec<String>) -> Result<Assignment, Vec<Wait>> {
    if offers.is_empty() {
        return Err(vec![Wait::new("NoProvider", "no ProviderPool sells a node here")]);
    }
    placement::choose(offers, &request(task, payer, excluded)).map_err(|refused| {
        // A node that sells what is asked for sells other things too: of those nobody wants to hear.
        let others = refused.iter().any(|one| one.reason != placement::Reason::ResourceNotSold);
        let told = refused.into_iter().filter(|one| !others || one.reason != placement::Reason::ResourceNotSold);
        let wait = |one: placement::Refused| Wait {
            reason: one.reason.name().to_owned(),
            nodes: i32::try_from(one.nodes).unwrap_or(i32::MAX),
            example: one.example,
        };
        told.map(wait).collect()
    })
}

#[allow(clippy::too_many_arguments, reason = "a record is filled from what was decided, field by field")]
fn placement(
    world: &World,
    task: &Task,
    payer: &Payer,
    chosen: &Assignment,
    attempt: u32,
    failures: u32,
    run_seconds: u64,
    now: i64,
) -> Placement {
    let pool = world.pools.get(&chosen.pool);
    let payee = pool.and_then(|pool| pool.spec.payee).and_then(|payee| u32::try_from(payee).ok());
    Placement {
        attempt,
        failures,
        namespace: task.namespace.clone(),
        task: task.name.clone(),
        node: chosen.node.clone(),
        pool: chosen.pool.clone(),
        provider: pool.map(|pool| pool.spec.provider.clone()).unwrap_or_default(),
        pod: pod_name(task, attempt, 0),
        because: chosen.because.clone(),
        price_per_hour: chosen.price_per_hour,
        token: payer.token.clone(),
        payee: payer.chain.as_ref().and(payee),
        resource_name: task.spec.resources.gpu.resource_name.clone(),
        devices: chosen.held.devices,
        cpu_millis: chosen.held.cpu_millis,
        memory_bytes: chosen.held.memory_bytes,
        device_price_nanos: chosen.held.device_price.nanos_per_hour(),
        cpu_price_nanos: chosen.held.cpu_price.nanos_per_hour(),
        memory_price_nanos: chosen.held.memory_gib_price.nanos_per_hour(),
        rate_card: pool.map(|pool| pool.spec.pricing.card().hash().to_string()).unwrap_or_default(),
        run_seconds,
        bound: now,
    }
}

/// The same attempt always has the same pod.
pub fn pod_name(task: &Task, attempt: u32, worker: u32) -> String {
    let name: String = task.name.chars().take(40).collect();
    let uid: String = task.uid.chars().filter(|letter| *letter != '-').take(8).collect();
    format!("{}-{uid}-{attempt}-{worker}", name.trim_end_matches(['-', '.']))
}
