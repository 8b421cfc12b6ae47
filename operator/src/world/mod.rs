//! What is, in compact records: one owner, no locks. `apply` takes an event in; the planner reads the rest.

pub mod free;
pub mod records;

use records::{Account, Escrow, Namespace, Node, Placement, Pod, Pool, ProviderNode, Reservation, Task};
use std::collections::{BTreeMap, HashMap};
use supercargo_ledger::{FundingBalance, WorkBalance};
use supercargo_market::work::{FundingId, WorkId};

/// A name in a namespace.
pub type Key = (String, String);

/// One thing that changed.
#[derive(Debug, Clone)]
pub enum Event {
    Task(Box<Task>),
    TaskGone(Key),
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
    /// What the ledger holds for a work: after a commit, and for every open reservation when the lead begins.
    Reserved {
        work: WorkId,
        reservation: Option<Box<Reservation>>,
        latest: Option<Box<Placement>>,
        balance: WorkBalance,
    },
    /// The ledger would not hold money back.
    Refused {
        work: WorkId,
        why: String,
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
    /// A post that pays for a work is final.
    Settled {
        work: WorkId,
        balance: WorkBalance,
    },
    /// What the chain says of an account, at finality.
    Account {
        funding: FundingId,
        account: Account,
    },
}

/// Everything that the planner may look at.
#[derive(Debug, Default)]
pub struct World {
    pub tasks: BTreeMap<Key, Task>,
    pub pods: HashMap<String, Pod>,
    pub nodes: BTreeMap<String, Node>,
    pub pools: BTreeMap<String, Pool>,
    pub provider_nodes: BTreeMap<String, ProviderNode>,
    pub escrows: BTreeMap<Key, Escrow>,
    pub namespaces: BTreeMap<String, Namespace>,
    pub reservations: HashMap<WorkId, Reservation>,
    pub works: HashMap<WorkId, WorkBalance>,
    /// Where each work's latest attempt went, also when nothing is held back for it any more.
    pub latest: HashMap<WorkId, Placement>,
    /// When the reasons for waiting were last written, so that they are not written too often.
    pub told: HashMap<WorkId, i64>,
    pub refusals: HashMap<WorkId, (String, i64)>,
    pub charged: std::collections::HashSet<(WorkId, u32)>,
    pub fundings: HashMap<FundingId, (FundingBalance, Option<(String, u64)>)>,
    pub accounts: HashMap<FundingId, Account>,
}

impl World {
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Task(task) => drop(self.tasks.insert(task.key(), *task)),
            Event::TaskGone(key) => drop(self.tasks.remove(&key)),
            Event::Pod(pod) => self.apply_pod(*pod),
            Event::PodGone { uid, at } => self.pod_gone(&uid, at),
            Event::Node(node) => drop(self.nodes.insert(node.name.clone(), *node)),
            Event::NodeGone(name) => drop(self.nodes.remove(&name)),
            Event::Pool(pool) => drop(self.pools.insert(pool.name.clone(), *pool)),
            Event::PoolGone(name) => drop(self.pools.remove(&name)),
            Event::ProviderNode(node) => drop(self.provider_nodes.insert(node.name.clone(), *node)),
            Event::ProviderNodeGone(name) => drop(self.provider_nodes.remove(&name)),
            Event::Escrow(escrow) => drop(self.escrows.insert(escrow.key(), *escrow)),
            Event::EscrowGone(key) => drop(self.escrows.remove(&key)),
            Event::Namespace(namespace) => drop(self.namespaces.insert(namespace.name.clone(), namespace)),
            Event::NamespaceGone(name) => drop(self.namespaces.remove(&name)),
            Event::Reserved { work, reservation, latest, balance } => self.reserved(work, reservation, latest, balance),
            Event::Refused { work, why, at } => drop(self.refusals.insert(work, (why, at))),
            Event::Charged { work, attempt } => drop(self.charged.insert((work, attempt))),
            Event::Funding { funding, balance, last_post } => drop(self.fundings.insert(funding, (balance, last_post))),
            Event::Settled { work, balance } => drop(self.works.insert(work, balance)),
            Event::Account { funding, account } => drop(self.accounts.insert(funding, account)),
        }
    }

    /// What our own clock saw of a pod outlives the pod's next version.
    fn apply_pod(&mut self, mut pod: Pod) {
        if let Some(before) = self.pods.get(&pod.uid) {
            pod.first_running = before.first_running.or(pod.first_running);
            pod.terminal = before.terminal.or(pod.terminal);
        }
        self.pods.insert(pod.uid.clone(), pod);
    }

    /// A pod of ours that went without its evidence being taken stays, as what was last seen of it.
    fn pod_gone(&mut self, uid: &str, at: i64) {
        let Some(pod) = self.pods.get(uid) else { return };
        let owed =
            pod.ours.as_ref().is_some_and(|ours| !self.is_charged(&ours.work, ours.attempt) && self.reservations.contains_key(&ours.work));
        match self.pods.get_mut(uid) {
            Some(pod) if owed => {
                pod.gone = true;
                pod.has_finalizer = false;
                pod.terminal = pod.terminal.or(Some(at));
            }
            _ => drop(self.pods.remove(uid)),
        }
    }

    fn reserved(&mut self, work: WorkId, reservation: Option<Box<Reservation>>, latest: Option<Box<Placement>>, balance: WorkBalance) {
        self.refusals.remove(&work);
        if let Some(latest) = latest {
            self.latest.insert(work.clone(), *latest);
        }
        match reservation {
            Some(reservation) => drop(self.reservations.insert(work.clone(), *reservation)),
            None => drop(self.reservations.remove(&work)),
        }
        self.works.insert(work, balance);
    }

    /// Whether the books hold an attempt's facts. Another attempt is only ever made after the one before was charged.
    pub fn is_charged(&self, work: &WorkId, attempt: u32) -> bool {
        self.charged.contains(&(work.clone(), attempt)) || self.latest.get(work).is_some_and(|latest| latest.attempt > attempt)
    }

    pub fn pod_of(&self, work: &WorkId, attempt: u32) -> Option<&Pod> {
        // A task has few pods and pods are found by UID: the index that would find them by work is not worth its upkeep
        // until a pass shows it.
        self.pods.values().find(|pod| pod.ours.as_ref().is_some_and(|ours| ours.work == *work && ours.attempt == attempt))
    }

    pub fn placement_of(&self, work: &WorkId) -> Option<&Placement> {
        self.reservations.get(work).map(|reservation| &reservation.placement)
    }

    /// The escrow's funding, if it names one.
    pub fn funding_of(escrow: &Escrow) -> Option<FundingId> {
        match escrow.spec.funding {
            supercargo_crds::escrow::Funding::Internal => Some(FundingId::internal(&escrow.uid)),
            supercargo_crds::escrow::Funding::Chain => {
                Some(FundingId::chain(escrow.spec.chain.as_deref()?, escrow.spec.account_id.as_deref()?))
            }
        }
    }

    /// Namespaces' UIDs name tenants.
    pub fn cluster_uid(&self) -> Option<&str> {
        self.namespaces.get("kube-system").map(|namespace| namespace.uid.as_str())
    }
}
