//! Everyone who waits, everyone who runs and everything on offer; and the pass that brings them together: fair between
//! escrows by what they hold, then by priority, then by age.

use super::catalog::{Catalog, Pick};
use super::claims::Claims;
use super::filter::Reason;
use super::slot::Need;
use super::{Assignment, EXCLUSIVE, Offer, Refused, Request, Tenant};
use crate::money::Amount;
use crate::work::FundingId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

/// Large tasks that places are kept for at a time, oldest first; and how many are looked at to find them.
const CLAIMS: usize = 4;
const CLAIMS_TRIED: usize = 8;

/// How near to each other the workers of a gang must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Topology {
    #[default]
    Any,
    Zone,
    Node,
}

/// A task that waits for its places, all of them at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub id: String,
    /// What each worker asks. Tasks that ask the same share it.
    pub request: Arc<Request>,
    pub priority: i32,
    /// Seconds; of two of one priority the older goes first.
    pub created: i64,
    pub workers: u32,
    pub topology: Topology,
    /// The longest that it may hold its places, grace included.
    pub seconds: i64,
}

/// What one worker of a running task holds.
#[derive(Debug, Clone)]
pub struct Holding {
    pub(super) slot: u32,
    pub(super) need: Need,
    pub(super) tenant: Tenant,
    pub(super) ends: i64,
    price: Amount,
}

/// What a pass decided. Who waits has the same reasons for as long as nothing changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pass {
    pub placed: Vec<(String, Vec<Assignment>)>,
    pub waiting: Vec<(String, Arc<Vec<Refused>>)>,
}

type Turn = (Reverse<i32>, i64, String);
/// Tasks that are refused alike: the same request, as often, as near and as long.
type Kind = (*const Request, u32, Topology, i64);

#[derive(Debug, Default)]
pub struct Exchange {
    catalog: Catalog,
    requests: HashSet<Arc<Request>>,
    waiting: BTreeMap<FundingId, BTreeMap<Turn, Arc<Waiting>>>,
    turns: HashMap<String, (FundingId, Turn)>,
    running: HashMap<String, Vec<Holding>>,
    held: HashMap<FundingId, u64>,
    /// Large tasks that did not fit, oldest first: the next pass begins with them.
    stuck: BTreeSet<(i64, String)>,
    changed: bool,
}

impl Exchange {
    pub fn new() -> Self {
        Self::default()
    }

    /// An offer as it stands now, with everything that runs there already taken off.
    pub fn offer(&mut self, offer: &Offer) {
        self.changed = true;
        self.catalog.update(offer);
    }

    pub fn withdraw(&mut self, node: &str, resource_name: &str) {
        let Some(gone) = self.catalog.slot_of(node, resource_name) else { return };
        self.changed = true;
        // What is held there has nothing to give back to any more.
        for holding in self.running.values_mut().flat_map(|holdings| holdings.extract_if(.., |holding| holding.slot == gone)) {
            if let Some(held) = self.held.get_mut(&holding.tenant.funding) {
                *held = held.saturating_sub(holding.price.units());
            }
        }
        self.catalog.remove(node, resource_name);
    }

    /// A task waits, or asks for something else than before.
    pub fn wait(&mut self, mut waiting: Waiting) {
        self.forget(&waiting.id);
        self.changed = true;
        match self.requests.get(&waiting.request) {
            Some(known) => waiting.request = known.clone(),
            None => drop(self.requests.insert(waiting.request.clone())),
        }
        let funding = waiting.request.funding.clone();
        let turn = (Reverse(waiting.priority), waiting.created, waiting.id.clone());
        self.turns.insert(waiting.id.clone(), (funding.clone(), turn.clone()));
        self.waiting.entry(funding).or_default().insert(turn, Arc::new(waiting));
    }

    /// A task waits no more.
    pub fn forget(&mut self, id: &str) {
        let Some((funding, turn)) = self.turns.remove(id) else { return };
        self.changed = true;
        if let Some(turns) = self.waiting.get_mut(&funding)
            && let Some(gone) = turns.remove(&turn)
        {
            self.stuck.remove(&(gone.created, gone.id.clone()));
            if turns.is_empty() {
                self.waiting.remove(&funding);
            }
            // Two are left when nobody else asks the same: this one and the one that is kept to be shared.
            if Arc::strong_count(&gone.request) == 2 {
                self.requests.remove(&gone.request);
            }
        }
    }

    /// A task that ran has left its places.
    pub fn ended(&mut self, id: &str) {
        for holding in self.running.remove(id).unwrap_or_default() {
            self.changed = true;
            self.catalog.give_back(holding.slot, holding.need, &holding.tenant);
            if let Some(held) = self.held.get_mut(&holding.tenant.funding) {
                *held = held.saturating_sub(holding.price.units());
            }
        }
    }

    /// Places whom it can and says why the others wait. `None`: nothing changed since the last pass.
    pub fn pass(&mut self, now: i64) -> Option<Pass> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut round = Round { now, claims: Claims::default(), tried: 0, claimed: 0, placed: Vec::new(), refused: HashMap::new() };
        let oldest: Vec<Arc<Waiting>> = self.stuck.iter().filter_map(|(_, id)| self.find(id)).take(CLAIMS_TRIED).collect();
        for waiting in &oldest {
            self.attempt(waiting, &mut round);
        }
        let lanes: Vec<(FundingId, Vec<Arc<Waiting>>)> =
            self.waiting.iter().map(|(funding, turns)| (funding.clone(), turns.values().rev().cloned().collect())).collect();
        self.fairly(lanes, &mut round);
        for (id, _) in &round.placed {
            self.forget(id);
        }
        self.changed = false;
        Some(Pass { waiting: self.reasons(&round), placed: round.placed })
    }

    fn find(&self, id: &str) -> Option<Arc<Waiting>> {
        let (funding, turn) = self.turns.get(id)?;
        self.waiting.get(funding)?.get(turn).cloned()
    }

    /// The escrow that holds the least has the next turn.
    fn fairly(&mut self, mut lanes: Vec<(FundingId, Vec<Arc<Waiting>>)>, round: &mut Round) {
        let held = |exchange: &Self, funding: &FundingId| exchange.held.get(funding).copied().unwrap_or_default();
        let mut turns: BinaryHeap<Reverse<(u64, usize)>> =
            lanes.iter().enumerate().map(|(lane, (funding, _))| Reverse((held(self, funding), lane))).collect();
        while let Some(Reverse((_, lane))) = turns.pop() {
            let Some(waiting) = lanes[lane].1.pop() else { continue };
            self.attempt(&waiting, round);
            turns.push(Reverse((held(self, &lanes[lane].0), lane)));
        }
    }

    fn attempt(&mut self, waiting: &Arc<Waiting>, round: &mut Round) {
        let kind = kind(waiting);
        // Room only becomes less in a pass: whoever is like one that did not fit does not fit either.
        if self.running.contains_key(&waiting.id) || round.refused.contains_key(&kind) {
            return;
        }
        let ends = round.now.saturating_add(waiting.seconds);
        let picks = match fit(&mut self.catalog, waiting, &round.claims, ends) {
            Ok(picks) => picks,
            Err(fitting) => {
                round.refused.insert(kind, fitting);
                return self.keep_places(waiting, round);
            }
        };
        let tenant = tenant(&waiting.request);
        let assignments = picks.iter().map(|pick| self.catalog.assignment(&waiting.request, pick)).collect();
        let sum = picks.iter().fold(0_u64, |sum, pick| sum.saturating_add(pick.price.units()));
        let held = self.held.entry(waiting.request.funding.clone()).or_default();
        *held = held.saturating_add(sum);
        let holding = |pick: &Pick| Holding { slot: pick.slot, need: pick.need, tenant: tenant.clone(), ends, price: pick.price };
        self.running.insert(waiting.id.clone(), picks.iter().map(holding).collect());
        round.placed.push((waiting.id.clone(), assignments));
    }

    /// A large task that does not fit keeps what it waits for, so that small ones can't pass it for ever.
    fn keep_places(&mut self, waiting: &Waiting, round: &mut Round) {
        let large = waiting.workers > 1 || waiting.request.devices > 1 || waiting.request.tenancy == EXCLUSIVE;
        if !large {
            return;
        }
        self.stuck.insert((waiting.created, waiting.id.clone()));
        if round.claimed < CLAIMS && round.tried < CLAIMS_TRIED {
            round.tried += 1;
            let running: Vec<&Holding> = self.running.values().flatten().collect();
            round.claimed += usize::from(round.claims.claim(&mut self.catalog, waiting, &running, round.now));
        }
    }

    /// Why each waits, as things stand after the pass; worked out once for all that ask the same.
    fn reasons(&mut self, round: &Round) -> Vec<(String, Arc<Vec<Refused>>)> {
        let mut known: HashMap<Kind, Arc<Vec<Refused>>> = HashMap::new();
        let mut all = Vec::new();
        for waiting in self.waiting.values().flat_map(BTreeMap::values) {
            let kind = kind(waiting);
            let reasons = known.entry(kind).or_insert_with(|| {
                let mut refused: Vec<Refused> = self.catalog.refusals(&waiting.request).into_values().collect();
                let counted: usize = refused.iter().map(|refused| refused.nodes as usize).sum();
                let fitting = round.refused.get(&kind).copied().unwrap_or_default();
                let nodes = u32::try_from(self.catalog.len() - counted).unwrap_or(u32::MAX);
                if waiting.workers > 1 {
                    let example = format!("{fitting} of {} workers fit at once", waiting.workers);
                    refused.push(Refused { reason: Reason::GangIncomplete, nodes, example });
                } else if nodes > 0 && !round.claims.is_empty() {
                    let example = "what is free is kept for a larger task that waits longer".to_owned();
                    refused.push(Refused { reason: Reason::KeptForGang, nodes, example });
                }
                Arc::new(refused)
            });
            all.push((waiting.id.clone(), reasons.clone()));
        }
        all
    }
}

/// One pass on its way.
struct Round {
    now: i64,
    claims: Claims,
    tried: usize,
    claimed: usize,
    placed: Vec<(String, Vec<Assignment>)>,
    /// What did not fit, and how many of its workers did.
    refused: HashMap<Kind, u32>,
}

fn kind(waiting: &Waiting) -> Kind {
    (Arc::as_ptr(&waiting.request), waiting.workers, waiting.topology, waiting.seconds)
}

fn tenant(request: &Request) -> Tenant {
    Tenant { funding: request.funding.clone(), namespace: request.namespace.clone(), tenancy: request.tenancy.clone() }
}

/// Places for all workers, taken; or how many would have fitted, and nothing taken.
pub(super) fn fit(catalog: &mut Catalog, waiting: &Waiting, claims: &Claims, ends: i64) -> Result<Vec<Pick>, u32> {
    match waiting.topology {
        // One worker is always together.
        _ if waiting.workers == 1 => fill(catalog, waiting, claims, ends, None),
        Topology::Any => fill(catalog, waiting, claims, ends, None),
        Topology::Node => {
            let pick = catalog.pick(&waiting.request, waiting.workers, |catalog, (slot, need)| claims.allow(catalog, slot, need, ends));
            let pick = pick.ok_or(0_u32)?;
            let tenant = tenant(&waiting.request);
            (0..waiting.workers).for_each(|_| catalog.take(pick.slot, pick.need, &tenant));
            Ok(vec![pick; waiting.workers as usize])
        }
        Topology::Zone => {
            let mut best: Option<(u64, String)> = None;
            let mut most = 0;
            for zone in catalog.zones() {
                match fill(catalog, waiting, claims, ends, Some(&zone)) {
                    Ok(picks) => {
                        let price = picks.iter().fold(0_u64, |sum, pick| sum.saturating_add(pick.price.units()));
                        undo(catalog, waiting, &picks);
                        if best.as_ref().is_none_or(|(known, _)| price < *known) {
                            best = Some((price, zone));
                        }
                    }
                    Err(fitting) => most = most.max(fitting),
                }
            }
            let (_, zone) = best.ok_or(most)?;
            fill(catalog, waiting, claims, ends, Some(&zone))
        }
    }
}

fn fill(catalog: &mut Catalog, waiting: &Waiting, claims: &Claims, ends: i64, zone: Option<&str>) -> Result<Vec<Pick>, u32> {
    let tenant = tenant(&waiting.request);
    let mut picks = Vec::new();
    for fitting in 0..waiting.workers {
        let pick = catalog.pick(&waiting.request, 1, |catalog, (slot, need)| {
            zone.is_none_or(|zone| catalog.zone_of(slot) == Some(zone)) && claims.allow(catalog, slot, need, ends)
        });
        let Some(pick) = pick else {
            undo(catalog, waiting, &picks);
            return Err(fitting);
        };
        catalog.take(pick.slot, pick.need, &tenant);
        picks.push(pick);
    }
    Ok(picks)
}

pub(super) fn undo(catalog: &mut Catalog, waiting: &Waiting, picks: &[Pick]) {
    let tenant = tenant(&waiting.request);
    for pick in picks {
        catalog.give_back(pick.slot, pick.need, &tenant);
    }
}
