//! What is, in compact records: one owner, no locks. `apply` takes an event in and notes what has to be looked at because
//! of it; the planner reads the rest.

mod apply;
mod booked;
pub mod clocks;
pub mod convert;
pub mod dirt;
pub mod free;
pub mod funds;
pub mod market;
mod places;
pub mod records;
mod requests;
pub mod standing;
pub mod taints;
pub mod volumes;

use clocks::Clocks;
use dirt::{Alarms, Pace, Queue};
use foldhash::{HashMap, HashSet};
use free::Returning;
use funds::Telling;
use market::Market;
use records::{
    Account, Claim, Escrow, Limits, Namespace, Node, Placement, Pod, Pool, ProviderNode, Quarantine, Recall, Reservation, StorageClass,
    Task, Unmade, Volume,
};
use standing::{Grounds, Policy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use supercargo_crds::validate::Range;
use supercargo_ledger::{FundingBalance, WorkBalance};
use supercargo_market::money::Amount;
use supercargo_market::placement::Record;
use supercargo_market::rate_card::RateCard;
use supercargo_market::usage::{Anomaly, Used};
use supercargo_market::work::{FundingId, WorkId};

/// A name in a namespace.
pub type Key = (String, String);

/// One thing that changed.
#[derive(Debug, Clone)]
pub enum Event {
    Task(Box<Task>),
    TaskGone(Key),
    /// The API server has no task with this UID any more.
    NoTask(Arc<str>),
    Pod(Box<Pod>),
    PodGone {
        uid: String,
        at: i64,
    },
    Node(Box<Node>),
    NodeGone(String),
    Pool(Box<Pool>),
    PoolGone(String),
    ProviderNode(Box<ProviderNode>),
    ProviderNodeGone(String),
    Escrow(Box<Escrow>),
    EscrowGone(Key),
    Namespace(Namespace),
    NamespaceGone(String),
    Limits(Limits),
    LimitsGone(Key),
    Claim(Claim),
    ClaimGone(Key),
    Volume(Box<Volume>),
    VolumeGone(String),
    StorageClass(StorageClass),
    StorageClassGone(String),
    /// A kubelet tells why it can't make a pod's container.
    Hindered {
        uid: String,
        namespace: String,
        reason: String,
        message: String,
    },
    Policy(Policy),
    PolicyGone {
        uid: String,
        key: Key,
    },
    /// We made it what it is.
    PolicyMade(Policy),
    /// What tasks need stands in a namespace, as it was to be while these ranges were the cluster's own.
    Fitted {
        namespace: String,
        closed: Arc<BTreeSet<Range>>,
        at: i64,
    },
    /// The API server will not have what tasks need in a namespace.
    Unfit {
        namespace: String,
        why: String,
    },
    /// What the ledger holds for a work: after a commit, and for every open reservation when the lead begins.
    Reserved {
        work: WorkId,
        reservation: Option<Box<Reservation>>,
        latest: Option<Box<Placement>>,
        balance: WorkBalance,
    },
    /// What the ledger holds of a work can't be read.
    Unread {
        work: WorkId,
        why: String,
    },
    /// The ledger would not hold money back.
    Refused {
        work: WorkId,
        why: String,
        at: i64,
    },
    /// The API server will not have a work's pod of this name.
    Unmade {
        work: WorkId,
        pod: String,
        why: String,
    },
    /// The API server was asked by name at that time, and had none of those of an attempt's pods that were missing.
    Absent {
        work: WorkId,
        attempt: u32,
        at: i64,
    },
    /// The books hold an attempt's facts.
    Charged {
        work: WorkId,
        attempt: u32,
    },
    Funding {
        funding: FundingId,
        balance: FundingBalance,
        last_post: Option<(String, u64)>,
    },
    /// A post of it is final: of what it owed more is posted, or less if the chain has undone that.
    Posted {
        funding: FundingId,
        balance: FundingBalance,
        last_post: Option<(String, u64)>,
    },
    /// The books refuse what was to be put into it.
    Unfunded {
        funding: FundingId,
        why: String,
        at: i64,
    },
    /// What a funding was charged on the last day on which it was charged anything, of those that may have begun.
    Spent {
        funding: FundingId,
        day: i64,
        charged: Amount,
    },
    /// The books have what works had used by then: so much of each funding, and nothing of the others.
    Held {
        at: i64,
        fundings: Vec<(FundingId, Amount)>,
    },
    /// A post that pays for a work is final.
    Settled {
        work: WorkId,
        balance: WorkBalance,
    },
    /// What the chain says of an account, at finality.
    Account {
        funding: FundingId,
        account: Box<Account>,
    },
    /// To whom of a chain's payees something is owed that is not signed for, and since when: of all others everything is.
    Vouched {
        chain: String,
        unsigned: BTreeMap<u32, i64>,
        /// And which of them its contract does not know.
        unknown: BTreeSet<u32>,
    },
    /// What an attempt's containers used, as far as anybody tells; by their pods' UIDs.
    Used {
        work: WorkId,
        attempt: u32,
        used: BTreeMap<String, Usage>,
    },
    /// What containers use can't be read.
    UsageAway {
        at: i64,
    },
    /// What a provider's node has served by now, and what went wrong there.
    Record {
        place: String,
        record: Record,
    },
}

/// What was read of one container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    pub used: Option<Used>,
    /// The devices that the GPUs' exporter says its pod has.
    pub devices: BTreeSet<String>,
    pub anomalies: Vec<Anomaly>,
}

/// A rate card and the hash that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCard {
    pub hash: String,
    pub card: Arc<RateCard>,
}

/// Everything that the planner may look at.
#[derive(Debug, Default)]
pub struct World {
    pub tasks: BTreeMap<Key, Arc<Task>>,
    pub pods: HashMap<String, Pod>,
    pub nodes: BTreeMap<String, Node>,
    pub clocks: Clocks,
    pub pools: BTreeMap<String, Pool>,
    /// Each pool's rate card.
    pub rate_cards: HashMap<String, NamedCard>,
    pub provider_nodes: BTreeMap<String, ProviderNode>,
    pub escrows: BTreeMap<Key, Escrow>,
    pub namespaces: BTreeMap<String, Namespace>,
    pub limits: BTreeMap<Key, Limits>,
    pub claims: HashMap<Key, Claim>,
    pub volumes: HashMap<String, Volume>,
    pub storage_classes: HashMap<String, StorageClass>,
    /// What stands beside pods, by namespaces.
    pub grounds: Grounds,
    pub quarantine: HashMap<String, Quarantine>,
    /// Nodes that were given up, and have to end what they ran then.
    pub returning: HashMap<String, Returning>,
    /// Which namespaces' Events a node was blamed by, and when.
    pub heeded: HashMap<(String, String), i64>,
    /// Since when what a node's status says is free is not.
    pub stale_since: HashMap<String, i64>,
    /// By provider and node.
    pub records: HashMap<String, Record>,
    pub reservations: HashMap<WorkId, Reservation>,
    pub works: HashMap<WorkId, WorkBalance>,
    /// Where each work's latest attempt went, also when nothing is held back for it any more.
    pub latest: HashMap<WorkId, Placement>,
    /// When which reasons for waiting were last written, so that they are not written too often.
    pub told: HashMap<WorkId, (i64, BTreeSet<String>)>,
    pub pace: Pace,
    pub refusals: HashMap<WorkId, (String, i64)>,
    /// What the books hold of these can't be read, and why: nothing is done of them until somebody has put that right.
    pub unread: HashMap<WorkId, String>,
    /// Why the books took no money into it, and when.
    pub unfunded: HashMap<FundingId, (String, i64)>,
    /// Whose pods the API server refuses.
    pub unmade: HashMap<WorkId, Unmade>,
    /// When each work's pods were last asked for, and the attempts that are known to have none.
    pub asked: HashMap<WorkId, i64>,
    pub absent: HashMap<WorkId, u32>,
    /// Since when this process leads: what was asked for before, another one knew.
    pub led_since: i64,
    /// When a pass was last made.
    pub looked: i64,
    /// Whose latest faults were counted against their nodes.
    pub blamed: HashMap<WorkId, u32>,
    /// Who tries again not before when.
    pub resting: HashMap<WorkId, i64>,
    pub charged: HashSet<(WorkId, u32)>,
    /// What the latest attempts used, until they are charged.
    pub usage: HashMap<WorkId, (u32, BTreeMap<String, Usage>)>,
    /// When what containers use could last not be read.
    pub usage_away: Option<i64>,
    /// Since when that is so, without an answer in between.
    pub usage_away_since: Option<i64>,
    pub fundings: HashMap<FundingId, (FundingBalance, Option<(String, u64)>)>,
    pub accounts: HashMap<FundingId, Account>,
    /// By chain: payees whom something is owed that is not signed for, and since when.
    pub unsigned: BTreeMap<String, BTreeMap<u32, i64>>,
    pub unknown_payees: BTreeMap<String, BTreeSet<u32>>,
    /// Whose money goes.
    pub recalled: HashMap<WorkId, Recall>,
    /// The day of UTC, from 1970: one that has begun is not over because a clock is set back.
    pub today: i64,
    /// What each funding was charged on its last days.
    pub days: HashMap<FundingId, BTreeMap<i64, Amount>>,
    /// When what works have used was last written into the books.
    pub held_at: i64,
    /// When that was last asked for: as long as the books are away it is added up once a second, and not with every pass.
    pub hold_asked: i64,
    /// What is told of escrows, and how often.
    pub tellings: HashMap<Key, Telling>,
    /// Who waits, who holds what, and what is on offer.
    pub market: Market,
    pub todo: Todo,
    index: Index,
}

/// What the next pass looks at.
#[derive(Debug, Default)]
pub struct Todo {
    pub works: Queue<WorkId>,
    pub nodes: Queue<String>,
    pub escrows: Queue<Key>,
    /// Accounts that no Escrow names.
    pub unnamed: Queue<FundingId>,
    /// Which pool has which node has to be found out again.
    pub pools: bool,
    pub alarms: Alarms<WorkId>,
    pub node_alarms: Alarms<String>,
    pub escrow_alarms: Alarms<Key>,
}

/// Ways from one thing to those that it concerns.
#[derive(Debug, Default)]
struct Index {
    tasks: HashMap<WorkId, Arc<Task>>,
    pods_of: HashMap<WorkId, BTreeSet<String>>,
    pods_on: HashMap<String, BTreeSet<String>>,
    /// Tasks by the escrow that they name.
    paid_by: HashMap<Key, BTreeSet<WorkId>>,
    /// Works by the funding that holds something back for them.
    held_by: HashMap<FundingId, BTreeSet<WorkId>>,
    /// Tasks by the claims that they name.
    claimed_by: HashMap<Key, BTreeSet<WorkId>>,
}

impl World {
    /// Everything is looked at again, and read from the books again: somebody else may have led meanwhile.
    pub fn begin_anew(&mut self, now: i64) {
        self.led_since = now;
        // Whoever led before bound by a clock of his.
        self.clocks.begin_anew(now, self.pods.values().filter_map(|pod| Some(pod.ours.as_ref()?.bound)));
        self.asked.clear();
        self.absent.clear();
        self.market = Market::default();
        self.reservations.clear();
        self.works.clear();
        self.latest.clear();
        self.charged.clear();
        self.usage.clear();
        self.fundings.clear();
        self.days.clear();
        (self.held_at, self.hold_asked) = (0, 0);
        self.tellings.clear();
        self.index.held_by.clear();
        self.refusals.clear();
        self.unread.clear();
        self.unfunded.clear();
        self.records.clear();
        self.todo = Todo { pools: true, ..Todo::default() };
        for node in self.provider_nodes.values() {
            // Whoever led before knows of them, and has cleared them where they have had their quarantine.
            let faults: Vec<i64> = node.status.record.iter().flat_map(|record| &record.recent_faults).map(|at| at.0.as_second()).collect();
            if !faults.is_empty() || self.quarantine.contains_key(&node.spec.node_name) {
                self.quarantine.entry(node.spec.node_name.clone()).or_default().faults = faults;
            }
        }
        self.quarantine.iter().for_each(|(node, record)| self.todo.node_alarms.set(record.until, node.clone()));
        self.wake_returning();
        self.nodes.keys().for_each(|name| self.todo.nodes.push(name.clone()));
        self.provider_nodes.values().for_each(|node| self.todo.nodes.push(node.spec.node_name.clone()));
        self.escrows.keys().for_each(|key| self.todo.escrows.push(key.clone()));
        // In an order: the same world is planned in the same way.
        let works: BTreeSet<WorkId> = self.index.tasks.keys().chain(self.index.pods_of.keys()).cloned().collect();
        works.into_iter().for_each(|work| self.todo.works.push(work));
    }

    fn wake_returning(&mut self) {
        for (node, until) in self.returning.iter().filter_map(|(node, known)| Some((node, known.until?))) {
            self.todo.node_alarms.set(until, node.clone());
        }
    }

    /// By a clock that was set back nobody waits for what was to come at a time of the old one.
    pub fn look_at_clock(&mut self, now: i64) {
        // Clocks are slewed all the time, and whole seconds are read.
        if now < self.looked - 2 {
            self.resting.clear();
            self.refusals.clear();
            self.unfunded.clear();
            self.market.forget_times();
            self.told.values_mut().for_each(|(at, _)| *at = now.min(*at));
            self.led_since = now.min(self.led_since);
            let times = self.stale_since.values_mut().chain(self.heeded.values_mut()).chain(self.asked.values_mut());
            times.for_each(|at| *at = now.min(*at));
            self.nodes.values_mut().for_each(|node| node.turned = now.min(node.turned));
            self.returning.values_mut().for_each(|known| known.until = known.until.map(|until| until.min(now + known.seconds)));
            self.wake_returning();
        }
        self.looked = now;
    }

    /// Our clock, which says this now, was set: what was seen by it says nothing of others', and what runs does not end for it.
    pub fn clock_set(&mut self, now: i64, by: i64) {
        self.clocks.set(now, by, self.pods.values().filter_map(|pod| Some(pod.ours.as_ref()?.bound)));
        self.reservations.keys().cloned().for_each(|work| self.todo.works.push(work));
    }

    /// Whether what containers use can't be read, and not only for a moment.
    pub fn is_usage_unread(&self) -> bool {
        self.usage_away.zip(self.usage_away_since).is_some_and(|(last, since)| last - since >= UNREAD_SECONDS)
    }

    /// Nothing is left of a work but what the books hold.
    pub fn forget(&mut self, work: &WorkId) {
        self.market.forget(work);
        self.works.remove(work);
        self.told.remove(work);
        self.refusals.remove(work);
        self.unread.remove(work);
        self.resting.remove(work);
        self.unmade.remove(work);
        self.asked.remove(work);
        self.absent.remove(work);
        self.blamed.remove(work);
        self.recalled.remove(work);
        self.usage.remove(work);
        for attempt in 0..=self.latest.remove(work).map_or(0, |latest| latest.attempt) {
            self.charged.remove(&(work.clone(), attempt));
        }
    }

    /// Whether the books hold an attempt's facts. Another attempt is only ever made after the one before was charged.
    pub fn is_charged(&self, work: &WorkId, attempt: u32) -> bool {
        self.charged.contains(&(work.clone(), attempt)) || self.latest.get(work).is_some_and(|latest| latest.attempt > attempt)
    }

    pub fn task_of(&self, work: &WorkId) -> Option<&Arc<Task>> {
        self.index.tasks.get(work)
    }

    /// Every pod of a work, of whichever attempt.
    pub fn pods_of(&self, work: &WorkId) -> impl Iterator<Item = &Pod> {
        self.index.pods_of.get(work).into_iter().flatten().filter_map(|uid| self.pods.get(uid))
    }

    /// The pods of an attempt by their worker's number. Of two of one number, one of which is gone, it is the other.
    pub fn workers_of(&self, work: &WorkId, placement: &Placement) -> Vec<Option<&Pod>> {
        let mut workers = vec![None; placement.workers.len()];
        for pod in self.pods_of(work) {
            let place = placement.place_of(pod).and(pod.ours.as_ref());
            let place = place.and_then(|ours| workers.get_mut(usize::try_from(ours.worker).ok()?));
            if let Some(place) = place.filter(|place| place.is_none_or(|known: &Pod| known.gone)) {
                *place = Some(pod);
            }
        }
        workers
    }

    /// What the API server says against the pods of an attempt.
    pub fn refused(&self, work: &WorkId, attempt: u32) -> Option<&Unmade> {
        self.unmade.get(work).filter(|unmade| unmade.attempt == attempt)
    }

    /// A device that every container of a task's namespace is given, and this task does not pay for: which, by what.
    pub fn unpaid_device(&self, task: &Task) -> Option<String> {
        if self.limits.is_empty() {
            return None;
        }
        let gpu = &task.spec.resources.gpu;
        let here = self.limits.range((task.namespace.clone(), String::new())..).take_while(|((place, _), _)| *place == task.namespace);
        let mut given = here.flat_map(|(_, limits)| limits.devices.iter().map(|device| (device, &limits.name)));
        let (device, limits) = given.find(|(device, _)| gpu.count == 0 || **device != gpu.resource_name)?;
        Some(format!("LimitRange {limits} gives every container of namespace {} {device}, which nobody would pay for", task.namespace))
    }

    pub fn is_going(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(|namespace| namespace.deleting)
    }

    pub fn tasks_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Task>> {
        let from = self.tasks.range((namespace.to_owned(), String::new())..);
        from.take_while(move |((place, _), _)| place == namespace).map(|(_, task)| task)
    }

    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Pod> {
        self.index.pods_on.get(node).into_iter().flatten().filter_map(|uid| self.pods.get(uid))
    }

    /// Namespaces' UIDs name tenants.
    pub fn cluster_uid(&self) -> Option<&str> {
        self.namespaces.get(CLUSTER_NAMESPACE).map(|namespace| namespace.uid.as_str())
    }
}

/// Nobody is told that what containers use can't be read when it can be read again sooner.
const UNREAD_SECONDS: i64 = 60;

/// Its UID is the cluster's.
const CLUSTER_NAMESPACE: &str = "kube-system";
