//! Everyone who waits, everyone who runs and everything on offer; and the pass that brings them together: fair between
//! escrows by what they hold, then by priority, then by age. It is told what changes and says what changed.

use super::catalog::{At, Catalog, Change};
use super::claims::{Claims, Gang, Sought, waits_for_several};
use super::filter::Reason;
use super::fit::{fits, price_units};
use super::holdings::{Holding, Holdings};
use super::need::Need;
use super::pick::Pick;
use super::round::Round;
use super::{Assignment, DEDICATED, EXCLUSIVE, Offer, Refused, Request, Tenant, price};
use crate::rating::Held;
use crate::work::FundingId;
use foldhash::{HashMap, HashSet};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

/// A small task that waits for several others to end is passed by smaller ones for so long at most.
const PATIENCE_SECONDS: i64 = 600;
/// Large tasks that have the first turns of a pass: the oldest of each escrow, up to so many escrows.
const FIRST_TURNS: usize = 8;
/// How often places are looked for, for tasks that they could be kept for.
const TRIES: usize = 256;

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
    pub id: Arc<str>,
    /// What each worker asks.
    pub request: Arc<Request>,
    pub priority: i32,
    /// Seconds; of two of one priority the older goes first.
    pub created: i64,
    pub workers: u32,
    pub topology: Topology,
    /// The longest that it may hold its places, grace included.
    pub seconds: i64,
}

/// A task that has its places from before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub id: Arc<str>,
    pub tenant: Tenant,
    /// When it will have ended at the latest.
    pub ends: i64,
    pub workers: Vec<Worker>,
}

/// What one worker holds, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    pub node: String,
    pub resource_name: String,
    pub held: Held,
    pub storage_bytes: u64,
}

/// What a pass decided, and what it has to say that it did not say before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pass {
    pub placed: Vec<(Arc<str>, Vec<Assignment>)>,
    /// Why tasks wait: those that are new, and those whose reasons are not what they were.
    pub waiting: Vec<(Arc<str>, Arc<Vec<Refused>>)>,
}

/// The order within an escrow.
pub(super) type Turn = (Reverse<i32>, i64, Arc<str>);
/// Tasks that are refused alike: the same request, as often, as near and as long.
pub(super) type Kind = (Gang, i64);

/// A task in its lane.
#[derive(Debug)]
struct Waiter {
    gang: Gang,
    seconds: i64,
    /// What it was last told.
    told: Option<Arc<Vec<Refused>>>,
}

/// What waits on one escrow, and what the escrow holds already, in money an hour.
#[derive(Debug, Default)]
struct Lane {
    price_units: u64,
    waiters: BTreeMap<Turn, Waiter>,
}

#[derive(Debug, Default)]
pub struct Exchange {
    pub(super) catalog: Catalog,
    lanes: BTreeMap<FundingId, Lane>,
    turns: HashMap<Arc<str>, (FundingId, Turn)>,
    holdings: Holdings,
    /// Large tasks that did not fit, oldest first: the next pass begins with them. And when what was first kept for them was to
    /// be free.
    stuck: BTreeMap<(i64, Arc<str>), Option<i64>>,
    /// The large task of each escrow that a first turn placed: while that one runs the others wait for the fair turn.
    went_first: HashMap<FundingId, Arc<str>>,
    /// What no offer will ever hold, until there are more; and what some would if nobody else were there, until offers change.
    hopeless: HashSet<Gang>,
    hopeful: HashSet<Gang>,
    /// What each kind was last told: it is told again only when that changed.
    told: HashMap<Kind, Arc<Vec<Refused>>>,
    changed: bool,
}

impl Exchange {
    pub fn new() -> Self {
        Self::default()
    }

    /// An offer, with everything taken off that the exchange does not know of: what its own tasks hold it takes off itself.
    pub fn offer(&mut self, offer: &Offer) {
        let node = self.catalog.nodes.find(&offer.node);
        let resource = self.catalog.names.resources.number(&offer.resource_name);
        let (taken, neighbours) = node.map(|node| self.holdings.taken(At { node, resource })).unwrap_or_default();
        match self.catalog.put(offer, taken, neighbours) {
            Change::None => return,
            Change::More => self.begin_to_hope(),
            // What could hold nobody holds nobody now; who was thought to have a place somewhere is looked at again.
            Change::Less => self.hopeful.clear(),
        }
        self.changed = true;
    }

    /// The node sells this no more. Who runs there holds it all the same, until they have ended.
    pub fn withdraw(&mut self, node: &str, resource_name: &str) {
        self.changed |= self.catalog.remove(node, resource_name);
    }

    /// A task waits, or asks for something else than before. Saying the same twice changes nothing.
    pub fn wait(&mut self, waiting: &Waiting) {
        let shape = self.catalog.enter(&waiting.request);
        let gang = Gang { shape, workers: waiting.workers, topology: waiting.topology };
        let turn: Turn = (Reverse(waiting.priority), waiting.created, waiting.id.clone());
        let known = self.turns.get(&waiting.id).filter(|(_, known)| *known == turn);
        let known = known.and_then(|(funding, turn)| self.lanes.get(funding)?.waiters.get(turn));
        if known.is_some_and(|known| known.gang == gang && known.seconds == waiting.seconds) {
            return self.leave(shape);
        }
        // Asking for something else, or for the same on other nodes, costs nobody its place in the line.
        let key = (waiting.created, waiting.id.clone());
        let stuck = self.stuck.contains_key(&key);
        self.forget(&waiting.id);
        if stuck {
            self.stuck.insert(key, None);
        }
        self.changed = true;
        let funding = waiting.request.funding.clone();
        self.turns.insert(turn.2.clone(), (funding.clone(), turn.clone()));
        let waiter = Waiter { gang, seconds: waiting.seconds, told: None };
        self.lanes.entry(funding).or_default().waiters.insert(turn, waiter);
    }

    /// A task waits no more.
    pub fn forget(&mut self, id: &str) {
        let Some((funding, turn)) = self.turns.remove(id) else { return };
        self.stuck.remove(&(turn.1, turn.2.clone()));
        let Some(lane) = self.lanes.get_mut(&funding) else { return };
        if let Some(gone) = lane.waiters.remove(&turn) {
            self.changed = true;
            self.leave(gone.gang.shape);
        }
        self.end_lane(&funding);
    }

    fn leave(&mut self, shape: u32) {
        if self.catalog.leave(shape) {
            self.begin_to_hope();
        }
    }

    fn begin_to_hope(&mut self) {
        self.hopeless.clear();
        self.hopeful.clear();
    }

    /// A task runs, from before this exchange was made or placed by somebody else. Saying the same twice changes nothing.
    pub fn run(&mut self, running: &Running) {
        let task = running.id.clone();
        let who = self.catalog.who(&running.tenant);
        let mut workers = Vec::new();
        for worker in &running.workers {
            let resource = self.catalog.names.resources.number(&worker.resource_name);
            let at = At { node: self.catalog.nodes.keep(&worker.node), resource };
            let need = Need::of(&worker.held, worker.storage_bytes);
            workers.push(Holding { task: task.clone(), at, need, who, ends: running.ends });
        }
        let nodes: Vec<u32> = workers.iter().map(|worker| worker.at.node).collect();
        if !self.holdings.is(&running.id, &workers) {
            self.ended(&running.id);
            workers.iter().for_each(|worker| self.catalog.take(worker.at, worker.need, who));
            let prices = running.workers.iter().filter_map(|worker| price(&worker.held));
            let sum = prices.fold(0_u64, |sum, price| sum.saturating_add(price.units()));
            self.hold(running.tenant.funding.clone(), sum, workers);
            self.changed = true;
        }
        nodes.into_iter().for_each(|node| self.catalog.nodes.release(node));
    }

    /// A task has left its places, or could not take them after all.
    pub fn ended(&mut self, id: &str) {
        let Some((funding, price_units)) = self.holdings.end(&mut self.catalog, id) else { return };
        self.changed = true;
        if let Some(lane) = self.lanes.get_mut(&funding) {
            lane.price_units = lane.price_units.saturating_sub(price_units);
        }
        self.end_lane(&funding);
    }

    fn hold(&mut self, funding: FundingId, price_units: u64, workers: Vec<Holding>) {
        let lane = self.lanes.entry(funding.clone()).or_default();
        lane.price_units = lane.price_units.saturating_add(price_units);
        self.holdings.add(&mut self.catalog, funding, price_units, workers);
    }

    fn end_lane(&mut self, funding: &FundingId) {
        if self.lanes.get(funding).is_some_and(|lane| lane.waiters.is_empty() && lane.price_units == 0) {
            self.lanes.remove(funding);
        }
    }

    /// Places whom it can, and says why the others wait. Nothing when nothing changed.
    pub fn assign(&mut self, now: i64) -> Pass {
        if !self.changed {
            return Pass::default();
        }
        let mut round = Round::at(now);
        let mut lanes = std::mem::take(&mut self.lanes);
        self.first_turns(&mut lanes, &mut round);
        self.fairly(&mut lanes, &mut round);
        self.lanes = lanes;
        for (id, _) in &round.placed {
            self.forget(id);
        }
        let waiting = self.reasons(&round);
        self.changed = false;
        Pass { placed: round.placed, waiting }
    }

    /// Escrows with a large task that did not fit before, the oldest first: what it waits for must not go to others. Each has
    /// one at a time that came to its places so, or whoever asks for one large thing after the other would have all that is
    /// freed: while that one runs, what the next one waits for goes to those who hold less and have nowhere else to go.
    fn first_turns(&mut self, lanes: &mut BTreeMap<FundingId, Lane>, round: &mut Round) {
        let oldest: Vec<Arc<str>> = self.stuck.keys().map(|(_, id)| id.clone()).collect();
        let least = lanes.values().filter(|lane| !lane.waiters.is_empty()).map(|lane| lane.price_units).min().unwrap_or_default();
        self.went_first.retain(|_, id| self.holdings.has(id));
        let (mut had, mut later): (Vec<FundingId>, Vec<FundingId>) = Default::default();
        for id in oldest {
            let known = |funding: &FundingId| had.contains(funding) || later.contains(funding);
            let Some((funding, turn)) = self.turns.get(&id).filter(|(funding, _)| !known(funding)).cloned() else { continue };
            let Some(lane) = lanes.get_mut(&funding) else { continue };
            let Some(gang) = lane.waiters.get(&turn).map(|waiter| waiter.gang).filter(|gang| !self.hopeless.contains(gang)) else {
                continue;
            };
            if self.went_first.contains_key(&funding) {
                later.push(funding);
                continue;
            }
            self.first_turn(&funding, lane, least, round);
            // What turns out never to fit has had none.
            if !self.hopeless.contains(&gang) {
                had.push(funding);
            }
            if had.len() == FIRST_TURNS {
                break;
            }
        }
        if !later.is_empty() {
            round.begin_to_yield();
        }
        for funding in later.into_iter().take(FIRST_TURNS) {
            self.keep_for_next(funding, lanes, round);
        }
    }

    /// Keeps what an escrow's next large task waits for from all but those who hold less.
    fn keep_for_next(&mut self, funding: FundingId, lanes: &BTreeMap<FundingId, Lane>, round: &mut Round) {
        let lane = &lanes[&funding];
        let Some(turn) = self.next_large(lane) else { return };
        let gang = lane.waiters[&turn].gang;
        self.catalog.refresh(gang.shape);
        if round.tries == TRIES || round.claims.suffice(&self.catalog, gang) {
            return;
        }
        round.tries += 1;
        match round.claims.seek(&self.catalog, &self.holdings, gang, round.now) {
            Sought::Found(places) => round.keep_until_its_turn(&self.catalog, &self.holdings, (funding, lane.price_units), turn, places),
            Sought::Never => drop(self.hopeless.insert(gang)),
            Sought::Behind => {}
        }
    }

    /// The first of an escrow's large tasks that did not fit, and that something could hold.
    fn next_large(&self, lane: &Lane) -> Option<Turn> {
        let is_large = |(turn, waiter): &(&Turn, &Waiter)| self.is_stuck(turn) && !self.hopeless.contains(&waiter.gang);
        lane.waiters.iter().find(is_large).map(|(turn, _)| turn.clone())
    }

    /// The first of an escrow's large tasks, and one of those that are before it: that one may have what is kept for it, and
    /// nobody else, until the large one was to begin. From then on whoever is before it waits for the fair turn, as others
    /// do that hold less: who puts off a large task for ever keeps nothing from them.
    fn first_turn(&mut self, funding: &FundingId, lane: &mut Lane, least: u64, round: &mut Round) {
        let Some(large) = self.next_large(lane) else { return };
        let key = (large.1, large.2.clone());
        let late = self.stuck[&key].is_some_and(|begins| begins <= round.now);
        if late && lane.waiters.range(..&large).next().is_none() {
            // Nobody puts it off any more: what is kept for it begins anew.
            self.stuck.insert(key, None);
        }
        for (turn, waiter) in lane.waiters.range(..&large) {
            if late && lane.price_units > least && self.would_fit(turn, waiter, round) {
                return;
            }
            if let Some(price_units) = self.attempt((funding, lane.price_units), turn, waiter, round) {
                lane.price_units = lane.price_units.saturating_add(price_units);
                break;
            }
        }
        if let Some(price_units) = self.attempt((funding, lane.price_units), &large, &lane.waiters[&large], round) {
            lane.price_units = lane.price_units.saturating_add(price_units);
            self.went_first.insert(funding.clone(), large.2);
        }
    }

    /// The escrow that holds the least has the next turn, and of those that hold the same whose next task is the oldest; who
    /// does not fit leaves it to the next of the same escrow.
    fn fairly(&mut self, lanes: &mut BTreeMap<FundingId, Lane>, round: &mut Round) {
        let mut queues: Vec<_> =
            lanes.iter_mut().map(|(funding, lane)| (funding, &mut lane.price_units, lane.waiters.iter().peekable())).collect();
        let mut turns = BinaryHeap::new();
        for (number, (_, held, queue)) in queues.iter_mut().enumerate() {
            turns.extend(queue.peek().map(|((_, created, _), _)| Reverse((**held, *created, number))));
        }
        while let Some(Reverse((_, _, number))) = turns.pop() {
            let (funding, held, queue) = &mut queues[number];
            let Some((turn, waiter)) = queue.next() else { continue };
            if let Some(price_units) = self.attempt((funding, **held), turn, waiter, round) {
                **held = held.saturating_add(price_units);
                round.had_its_turn(&self.catalog, &self.holdings, funding, turn);
            }
            turns.extend(queue.peek().map(|((_, created, _), _)| Reverse((**held, *created, number))));
        }
    }

    /// Places a task of an escrow that holds so much. What it costs an hour; `None`: it waits on.
    fn attempt(&mut self, by: (&FundingId, u64), turn: &Turn, waiter: &Waiter, round: &mut Round) -> Option<u64> {
        let kind = (waiter.gang, waiter.seconds);
        if round.is_refused(by, turn, &kind) || self.holdings.has(&turn.2) {
            return None;
        }
        let ends = round.now.saturating_add(waiter.seconds);
        let picks = match round.fit(&mut self.catalog, by, kind, ends) {
            Ok(picks) => picks,
            Err(()) => {
                self.keep_places(by.0, turn, waiter.gang, round);
                return None;
            }
        };
        let shape = self.catalog.shapes.shape(waiter.gang.shape);
        let (request, who) = (shape.request.clone(), shape.asker.who);
        let assignments = picks.iter().map(|pick| self.catalog.assignment(&request, pick)).collect();
        let holding = |pick: &Pick| Holding { task: turn.2.clone(), at: self.catalog.at(pick.slot), need: pick.need, who, ends };
        let workers = picks.iter().map(holding).collect();
        picks.iter().for_each(|pick| round.comes(&self.catalog, pick, ends));
        let sum = price_units(&picks);
        self.holdings.add(&mut self.catalog, by.0.clone(), sum, workers);
        round.placed.push((turn.2.clone(), assignments));
        Some(sum)
    }

    fn would_fit(&mut self, turn: &Turn, waiter: &Waiter, round: &Round) -> bool {
        let known = round.refused.contains_key(&(waiter.gang, waiter.seconds)) || self.holdings.has(&turn.2);
        !known && fits(&mut self.catalog, waiter.gang, &round.claims, round.now.saturating_add(waiter.seconds))
    }

    /// Whether small ones could pass it for ever: what is made free for it is never all that it needs, or in one place only.
    fn is_large(&self, turn: &Turn, gang: Gang, now: i64) -> bool {
        let request = &self.catalog.shapes.shape(gang.shape).request;
        let alone = request.tenancy == EXCLUSIVE || request.tenancy == DEDICATED;
        let tied = request.only_nodes.as_ref().is_some_and(|nodes| nodes.len() == 1);
        let patient = || now.saturating_sub(turn.1) >= PATIENCE_SECONDS && waits_for_several(&self.catalog, &self.holdings, gang.shape);
        gang.workers > 1 || request.devices > 1 || alone || tied || self.is_stuck(turn) || patient()
    }

    fn is_stuck(&self, turn: &Turn) -> bool {
        self.stuck.contains_key(&(turn.1, turn.2.clone()))
    }

    /// A large task that does not fit keeps what it waits for, so that small ones can't pass it for ever.
    fn keep_places(&mut self, funding: &FundingId, turn: &Turn, gang: Gang, round: &mut Round) {
        if !self.is_large(turn, gang, round.now) {
            return;
        }
        let begins = self.stuck.entry((turn.1, turn.2.clone())).or_default();
        let tried = round.tries == TRIES || round.behind.contains(&gang);
        if round.keeps_on(&self.catalog, &self.holdings, funding, turn) || tried || self.hopeless.contains(&gang) {
            return;
        }
        round.tries += 1;
        if round.claims.suffice(&self.catalog, gang) {
            round.behind.insert(gang);
            return;
        }
        match round.claims.seek(&self.catalog, &self.holdings, gang, round.now) {
            Sought::Found(places) => {
                *begins = begins.or(Some(places.start));
                round.keep(&self.catalog, &self.holdings, turn, &places);
            }
            Sought::Never => drop(self.hopeless.insert(gang)),
            // Whether it could ever fit is not for others' claims to say.
            Sought::Behind => {
                round.behind.insert(gang);
                let alone = || Claims::default().seek(&self.catalog, &self.holdings, gang, round.now);
                let hopes = self.hopeful.contains(&gang) || alone() != Sought::Never;
                if hopes {
                    self.hopeful.insert(gang)
                } else {
                    self.hopeless.insert(gang)
                };
            }
        }
    }

    /// Why each waits, as things stand after the pass: worked out once for all that ask the same, told to whom it is new.
    fn reasons(&mut self, round: &Round) -> Vec<(Arc<str>, Arc<Vec<Refused>>)> {
        let mut known: HashMap<Kind, Arc<Vec<Refused>>> = HashMap::default();
        let mut news = Vec::new();
        for (turn, waiter) in self.lanes.values_mut().flat_map(|lane| &mut lane.waiters) {
            if self.holdings.has(&turn.2) {
                continue;
            }
            let kind = (waiter.gang, waiter.seconds);
            let reasons = known.entry(kind).or_insert_with(|| {
                let reasons = why(&mut self.catalog, waiter.gang, round.refused.get(&kind), &round.claims);
                let before = self.told.get(&kind).filter(|before| ***before == reasons);
                before.cloned().unwrap_or_else(|| Arc::new(reasons))
            });
            let same = waiter.told.as_ref().is_some_and(|told| Arc::ptr_eq(told, reasons) || *told == *reasons);
            if !same {
                news.push((turn.2.clone(), reasons.clone()));
                waiter.told = Some(reasons.clone());
            }
        }
        self.told = known;
        news
    }
}

/// What every offer says to a task's workers, and what stands against it when some would take one.
fn why(catalog: &mut Catalog, gang: Gang, fitted: Option<&u32>, claims: &Claims) -> Vec<Refused> {
    let mut reasons = catalog.refusals(gang.shape);
    let nodes = catalog.fitting(gang.shape);
    if gang.workers > 1 {
        let example = format!("{} of {} workers fit at once", fitted.copied().unwrap_or_default(), gang.workers);
        reasons.push(Refused { reason: Reason::GangIncomplete, nodes, example });
    } else if nodes > 0 && !claims.is_empty() {
        let example = "what is free is kept for a larger task that waits longer".to_owned();
        reasons.push(Refused { reason: Reason::KeptForGang, nodes, example });
    }
    reasons
}
