//! The compact records that the world is made of: no Kubernetes object is kept.

use super::places::NODE_LOST;
pub use super::places::{Parting, Place, Placement};
use super::volumes::Requirement;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use supercargo_crds::escrow::{EscrowSpec, EscrowStatus, Funding};
use supercargo_crds::node::{ProviderNodeSpec, ProviderNodeStatus};
use supercargo_crds::pool::{ProviderPoolSpec, ProviderPoolStatus};
use supercargo_crds::task::ComputeTaskSpec;
use supercargo_crds::task_status::ComputeTaskStatus;
use supercargo_crds::validate::Range;
use supercargo_ledger::LaneCases;
use supercargo_market::metering::{Ahead, PodRecord};
use supercargo_market::money::Amount;
use supercargo_market::work::{FundingId, WorkId};

#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    pub namespace: String,
    pub name: String,
    pub uid: Arc<str>,
    pub generation: i64,
    pub created: i64,
    pub deleting: bool,
    pub spec: ComputeTaskSpec,
    pub status: ComputeTaskStatus,
    /// What is wrong with the spec, in the words of the gate.
    pub findings: Vec<String>,
    /// The Escrow that it names.
    pub payer: (String, String),
}

impl Task {
    /// The Escrow that a task names: where it says no namespace, one in its own.
    pub fn payer(namespace: &str, spec: &ComputeTaskSpec) -> (String, String) {
        let reference = &spec.escrow_ref;
        (reference.namespace.clone().unwrap_or_else(|| namespace.to_owned()), reference.name.clone())
    }

    pub fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }

    pub fn work(&self) -> WorkId {
        WorkId::task(self.uid.clone())
    }

    /// Whether nothing but a place is missing.
    pub fn wants_a_place(&self) -> bool {
        !self.deleting && !self.spec.suspend && self.findings.is_empty() && !self.status.progress().0
    }

    /// Whether its status had how an attempt ended. They are told in their order, and not all of them are kept.
    pub fn was_told(&self, attempt: u32) -> bool {
        self.status.attempts.iter().any(|known| u32::try_from(known.index).is_ok_and(|known| known >= attempt))
    }
}

/// Which attempt of which work a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    pub work: WorkId,
    pub task: String,
    pub attempt: u32,
    pub worker: u32,
    pub bound: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodPhase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

impl PodPhase {
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// What a pod takes of its node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Requests {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub storage_bytes: u64,
    pub devices: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Another one with each change; none where nobody says.
    pub version: Option<String>,
    pub node: Option<String>,
    pub phase: PodPhase,
    pub requests: Requests,
    /// Some when it is a task's.
    pub ours: Option<Ours>,
    pub deleting: bool,
    /// When it was told to end, by the API server's clock.
    pub delete_sent: Option<i64>,
    /// It was seen to run on after that.
    pub ran_on: bool,
    pub has_finalizer: bool,
    /// Why the kubelet or a controller ended it, such as Evicted or DeadlineExceeded.
    pub reason: Option<String>,
    pub message: Option<String>,
    /// Why it is in somebody's way, such as DeletionByTaintManager: its condition DisruptionTarget.
    pub disruption: Option<String>,
    /// Why its container waits, such as ErrImagePull, and in words.
    pub waiting: Option<(String, String)>,
    /// Its volumes are mounted and its network is there.
    pub has_sandbox: bool,
    /// What keeps it from that, as the kubelet tells it in Events: the status does not say.
    pub hindrance: Option<(String, String)>,
    /// Why kube-scheduler does not bind it, such as Unschedulable, and in words.
    pub unbound: Option<(String, String)>,
    /// The kubelet's clock.
    pub started: Option<i64>,
    pub finished: Option<i64>,
    pub exit_code: Option<i32>,
    pub last_words: Option<String>,
    pub image_digest: Option<String>,
    /// What its containers were told of their budget.
    pub notice: Option<String>,
    /// The devices that it has, as far as they are reported.
    pub devices: Vec<Device>,
    /// Whether it may stay where only ours may.
    pub tolerates_sold: bool,
    /// Our clock.
    pub first_running: Option<i64>,
    pub last_alive: Option<i64>,
    pub terminal: Option<i64>,
    /// When its end was first told, which may be later: somebody may say that it is over before its kubelet does.
    pub recorded: Option<i64>,
    /// What others on its node had shown of the kubelet's clock when it was first seen to run.
    pub clock_at_start: Option<Ahead>,
    /// It runs, and is told to be unready: nobody hears of its node.
    pub unready: bool,
    /// The API server waits for no kubelet to end it.
    pub forced: bool,
    /// How long it has to end in order.
    pub grace_seconds: i64,
    /// It is no longer in the API.
    pub gone: bool,
    pub parting: Parting,
}

/// One device that a pod has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub id: String,
    pub resource_name: String,
    /// None while nothing reports of it.
    pub healthy: Option<bool>,
}

impl Device {
    /// Of two reports of one device the worse counts, and one that only one of them names is as that says.
    pub fn worse(before: &[Self], mut now: Vec<Self>) -> Vec<Self> {
        for known in before {
            match now.iter_mut().find(|device| device.id == known.id) {
                Some(device) if known.healthy == Some(false) || device.healthy.is_none() => device.healthy = known.healthy,
                Some(_) => {}
                None => now.push(known.clone()),
            }
        }
        now
    }
}

impl Pod {
    /// Whether it is as it was seen already, or earlier: versions are numbers that grow, wherever they are numbers.
    pub fn is_no_newer_than(&self, before: &Self) -> bool {
        let number = |version: &Option<String>| version.as_ref()?.parse::<u64>().ok();
        let older = || number(&self.version).zip(number(&before.version)).is_some_and(|(now, before)| now < before);
        (self.version.is_some() && self.version == before.version) || older()
    }

    /// What it shows of how long its container ran.
    pub fn record(&self) -> PodRecord {
        PodRecord {
            started: self.started,
            finished: self.finished,
            bound: self.ours.as_ref().map(|ours| ours.bound).unwrap_or_default(),
            first_running: self.first_running,
            last_alive: self.last_alive,
            terminal: self.terminal,
            recorded: self.recorded,
            clock: None,
            clock_at_start: None,
        }
    }

    /// Whether its volumes are still to be mounted, or its sandbox is to be made.
    pub fn awaits_sandbox(&self) -> bool {
        self.phase == PodPhase::Pending && !self.has_sandbox
    }

    /// Of two versions of one pod: what is true of this one never becomes what is true of the other.
    pub fn is_later_than(&self, other: &Self) -> bool {
        let (ended, seems_to_run) = (self.phase.is_terminal() || self.finished.is_some(), !other.phase.is_terminal());
        (ended && seems_to_run && (self.phase.is_terminal() || other.finished.is_none())) || (self.deleting && !other.deleting)
    }

    /// Its node has parted with it.
    pub fn part(&mut self, parting: Parting) {
        self.parting = self.parting.or(parting);
        if self.parting.lost {
            self.reason = Some(NODE_LOST.to_owned());
        }
    }

    /// Nothing of it runs any more, or nobody waits for it to end.
    pub fn is_over(&self) -> bool {
        self.parting.lost || self.has_left()
    }

    /// It was given up with its node, and still runs there.
    pub fn is_left_behind(&self) -> bool {
        self.parting.lost && !self.has_left()
    }

    fn has_left(&self) -> bool {
        self.gone || self.phase.is_terminal() || (self.deleting && self.finished.is_some()) || (self.deleting && self.node.is_none())
    }
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Node {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub ready: bool,
    /// Since when it is as ready as it is, by the cluster's clock.
    pub ready_since: i64,
    /// Since when we see it so, by our clock: a kubelet that calls itself not ready tells the time by its own.
    pub turned: i64,
    /// When it was last seen, by our clock.
    pub seen: i64,
    /// When its kubelet last told of itself, by that kubelet's clock.
    pub heartbeat: Option<i64>,
    pub cordoned: bool,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub storage_bytes: u64,
    pub pods: u64,
    /// Healthy ones, and all of them.
    pub devices: BTreeMap<String, u64>,
    pub device_capacity: BTreeMap<String, u64>,
    /// Whether it has the taint that keeps everybody else away.
    pub sold: bool,
    /// Taints that keep tasks away, as people write them.
    pub closing_taints: Vec<String>,
    /// Whether its runtime can give pods users of their own.
    pub user_namespaces: bool,
    /// Its addresses and the ranges of its pods.
    pub addresses: Vec<Range>,
}

/// What a node did to attempts lately.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quarantine {
    /// When attempts failed for reasons of the node's own.
    pub faults: Vec<i64>,
    /// How often it was set apart, and until when it is.
    pub times: u32,
    pub until: i64,
}

/// That the API server does not let a pod of an attempt be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmade {
    pub attempt: u32,
    /// In its words.
    pub why: String,
    /// Attempts in a row that came to nothing for it.
    pub times: u32,
    /// Which of them: none of these is on its way.
    pub pods: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    pub name: String,
    pub generation: i64,
    pub created: i64,
    pub spec: ProviderPoolSpec,
    pub status: ProviderPoolStatus,
    /// What is wrong with the spec, in the words of the gate.
    pub findings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ProviderNode {
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub spec: ProviderNodeSpec,
    pub status: ProviderNodeStatus,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Escrow {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub spec: EscrowSpec,
    pub status: EscrowStatus,
    /// Its money in the books, if it says where that is.
    pub funding: Option<FundingId>,
}

impl Escrow {
    /// Where an escrow's money is in the books. On a chain: once the spec names its account.
    pub fn funding(uid: &str, spec: &EscrowSpec) -> Option<FundingId> {
        match spec.funding {
            Funding::Internal => Some(FundingId::internal(uid)),
            Funding::Chain => Some(FundingId::chain(spec.chain.as_deref()?, spec.account_id.as_deref()?)),
        }
    }

    pub fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }
}

/// A task's way to a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub namespace: String,
    pub name: String,
    pub class: String,
    /// The volume that it is bound to, or is about to be.
    pub volume: Option<String>,
}

/// From which nodes a volume can be reached: one of these terms has to hold. None: from all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    pub class: String,
    /// Some claim has it.
    pub claimed: bool,
    pub terms: Vec<Vec<Requirement>>,
}

/// How the volumes of a class come to their claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageClass {
    pub name: String,
    /// Only when a pod asks for them.
    pub waits_for_pods: bool,
    /// They are made; otherwise there are only those that somebody made before.
    pub makes_volumes: bool,
}

/// What a LimitRange gives to containers that did not ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub namespace: String,
    pub name: String,
    /// Names of resources that are devices.
    pub devices: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    pub name: String,
    pub uid: String,
    pub deleting: bool,
}

/// What the ledger holds back for a work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    pub funding: FundingId,
    pub reserved: Amount,
    pub charged: Amount,
    pub placement: Placement,
}

/// What a chain says of an account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// What can be collected of it whatever its payer does next, with what was posted since.
    pub funded: Amount,
    pub tenant: String,
    pub settler: u32,
    /// The token that the chain's contract holds.
    pub token: String,
    pub exists: bool,
    /// Something is wrong that a person has to mend. While the chain can't be read nothing else is known.
    pub stalled: Option<Stall>,
    pub leaving: Leaving,
    /// What came back of its lanes, and what disputing them has cost.
    pub cases: Vec<LaneCases>,
    /// The books say something else of what was credited, and that lasts.
    pub differs: Option<Differs>,
    /// Payees that it owes and its contract does not know: what is theirs waits, and nothing else does.
    pub unknown_payees: Vec<u32>,
    /// The settler's key has little left for gas, or posts wait until it is cheaper: no task has to wait for that.
    pub gas_low: Option<Stall>,
    /// What it owes is kept from the chain though nothing refuses it, and that lasts.
    pub stuck: Option<Stuck>,
}

/// Since when nothing of what an account owes goes out, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    pub since: i64,
    pub why: String,
}

/// What the chain has credited, what the books have as posted, and since when those are not the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Differs {
    pub credited: Amount,
    pub posted: Amount,
    pub since: i64,
}

/// What goes of an account, or stands still in it, and how fast it may be paid from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leaving {
    /// What is there now and allowed, with what was posted since.
    pub there: Amount,
    /// What costs more than what stays has to have ended by then.
    pub until: Option<i64>,
    pub thawing: Amount,
    pub thaw_end: Option<i64>,
    /// When other limits, or another settler, take effect.
    pub change_at: Option<i64>,
    pub leaves_us: bool,
    /// Nothing can be posted until then.
    pub frozen_until: Option<i64>,
    /// None: not known.
    pub rate_units_per_second: Option<u64>,
}

/// That a work has to end, because what it would cost from then on could not be collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recall {
    pub funding: FundingId,
    pub attempt: u32,
    /// It is told to end then.
    pub at: i64,
    pub why: String,
}

/// What a person has to mend before an account is paid from: a condition's reason and its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    pub reason: &'static str,
    pub words: String,
}
