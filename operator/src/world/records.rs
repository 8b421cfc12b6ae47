//! The compact records that the world is made of: no Kubernetes object is kept.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use supercargo_crds::escrow::{EscrowSpec, EscrowStatus};
use supercargo_crds::node::{ProviderNodeSpec, ProviderNodeStatus};
use supercargo_crds::pool::{ProviderPoolSpec, ProviderPoolStatus};
use supercargo_crds::task::ComputeTaskSpec;
use supercargo_crds::task_status::ComputeTaskStatus;
use supercargo_market::money::Amount;
use supercargo_market::work::{FundingId, WorkId};

#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub created: i64,
    pub deleting: bool,
    pub spec: ComputeTaskSpec,
    pub status: ComputeTaskStatus,
}

impl Task {
    pub fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }

    pub fn work(&self) -> WorkId {
        WorkId::task(&self.uid)
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
    pub node: Option<String>,
    pub phase: PodPhase,
    pub requests: Requests,
    /// Some when it is a task's.
    pub ours: Option<Ours>,
    pub deleting: bool,
    pub has_finalizer: bool,
    /// Why the kubelet or a controller ended it, such as Evicted or DeadlineExceeded.
    pub reason: Option<String>,
    pub message: Option<String>,
    /// Why its container waits, such as ErrImagePull, and in words.
    pub waiting: Option<(String, String)>,
    /// The kubelet's clock.
    pub started: Option<i64>,
    pub finished: Option<i64>,
    pub exit_code: Option<i32>,
    pub last_words: Option<String>,
    pub image_digest: Option<String>,
    /// Our clock.
    pub first_running: Option<i64>,
    pub last_alive: Option<i64>,
    pub terminal: Option<i64>,
    /// It is no longer in the API.
    pub gone: bool,
}

impl Pod {
    /// Nothing of it runs any more.
    pub fn is_over(&self) -> bool {
        self.gone || self.phase.is_terminal() || (self.deleting && self.finished.is_some()) || (self.deleting && self.node.is_none())
    }
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Node {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub ready: bool,
    pub cordoned: bool,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub storage_bytes: u64,
    pub pods: u64,
    pub devices: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    pub name: String,
    pub generation: i64,
    pub created: i64,
    pub spec: ProviderPoolSpec,
    pub status: ProviderPoolStatus,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ProviderNode {
    pub name: String,
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
}

impl Escrow {
    pub fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    pub name: String,
    pub uid: String,
    pub deleting: bool,
}

/// Where an attempt went: the part of a reservation that only the operator reads, as it stands in the ledger's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    pub attempt: u32,
    /// Failures that counted against the task's retries.
    pub failures: u32,
    pub namespace: String,
    pub task: String,
    pub node: String,
    pub pool: String,
    pub provider: String,
    pub pod: String,
    pub because: String,
    pub price_per_hour: Amount,
    pub token: String,
    /// What the provider is paid as, on the escrow's chain.
    pub payee: Option<u32>,
    pub resource_name: String,
    pub devices: u32,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub device_price_nanos: u64,
    pub cpu_price_nanos: u64,
    pub memory_price_nanos: u64,
    pub rate_card: String,
    /// How long the container may run before the time limit or the budget ends it.
    pub run_seconds: u64,
    pub bound: i64,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Put in and not taken out or thawing, with what was posted since.
    pub funded: Amount,
    pub tenant: String,
    pub settler: u32,
    pub exists: bool,
    /// Something is wrong that a person has to mend, in words.
    pub stalled: Option<String>,
}
