//! The planner: from what is to what should be done. Pure: the world and the time go in, effects come out. It is asked
//! again after every event and says the same until the world shows that it was done.

mod attempt;
mod escrow;
mod evidence;
mod gang;
mod node;
mod outcome;
mod place;
mod pod;
mod status;
mod task;
mod waiting;

use crate::world::World;
use k8s_openapi::api::core::v1::{Pod, Service};
use std::fmt;
use supercargo_crds::escrow::EscrowStatus;
use supercargo_crds::node::ProviderNodeStatus;
use supercargo_crds::pool::ProviderPoolStatus;
use supercargo_crds::task_status::ComputeTaskStatus;
use supercargo_ledger::Posting;
use supercargo_market::fees::FeeSchedule;
use supercargo_market::work::WorkId;

/// One thing to do. All of them can be done twice.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Everything for the books of one pass: one transaction.
    Book(Vec<Posting>),
    /// A worker's pod; before it the Service that its gang's workers find each other by.
    CreatePod {
        work: WorkId,
        service: Option<Box<Service>>,
        pod: Box<Pod>,
    },
    DeletePod {
        namespace: String,
        name: String,
        uid: String,
        /// The pod's own when it is not given.
        grace_seconds: Option<u32>,
    },
    /// The books have the pod's facts: its finalizer goes.
    FreePod {
        namespace: String,
        name: String,
        uid: String,
    },
    WriteTask {
        namespace: String,
        name: String,
        status: Box<ComputeTaskStatus>,
    },
    DeleteTask {
        namespace: String,
        name: String,
        uid: String,
    },
    ApplyNode {
        name: String,
        pool: String,
    },
    WriteNode {
        name: String,
        status: Box<ProviderNodeStatus>,
    },
    WritePool {
        name: String,
        status: Box<ProviderPoolStatus>,
    },
    WriteEscrow {
        namespace: String,
        name: String,
        status: Box<EscrowStatus>,
    },
}

impl Effect {
    /// What it is about: of two effects with one key the second waits for the first.
    pub fn key(&self) -> String {
        match self {
            Self::Book(_) => "books".to_owned(),
            Self::CreatePod { pod, .. } => format!(
                "pod/{}/{}",
                pod.metadata.namespace.as_deref().unwrap_or_default(),
                pod.metadata.name.as_deref().unwrap_or_default()
            ),
            Self::DeletePod { namespace, name, .. } | Self::FreePod { namespace, name, .. } => format!("pod/{namespace}/{name}"),
            Self::WriteTask { namespace, name, .. } | Self::DeleteTask { namespace, name, .. } => format!("task/{namespace}/{name}"),
            Self::ApplyNode { name, .. } | Self::WriteNode { name, .. } => format!("node/{name}"),
            Self::WritePool { name, .. } => format!("pool/{name}"),
            Self::WriteEscrow { namespace, name, .. } => format!("escrow/{namespace}/{name}"),
        }
    }

    /// A word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Book(_) => "book",
            Self::CreatePod { .. } => "create_pod",
            Self::DeletePod { .. } => "delete_pod",
            Self::FreePod { .. } => "free_pod",
            Self::WriteTask { .. } => "write_task",
            Self::DeleteTask { .. } => "delete_task",
            Self::ApplyNode { .. } => "apply_node",
            Self::WriteNode { .. } => "write_node",
            Self::WritePool { .. } => "write_pool",
            Self::WriteEscrow { .. } => "write_escrow",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Book(postings) => write!(formatter, "book {} postings", postings.len()),
            other => write!(formatter, "{} {}", other.kind(), other.key()),
        }
    }
}

/// What the planner knows besides the world: facts of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    pub fees: FeeSchedule,
    pub tokens: Vec<String>,
    pub chains: Vec<ChainTerms>,
}

#[derive(Debug, Clone)]
pub struct ChainTerms {
    pub name: String,
    pub chain_id: u64,
    pub contract: String,
    pub token: String,
    pub settler: u32,
}

/// What a pass found to do, and when to look again if nothing happens before.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub effects: Vec<Effect>,
    pub wake: Option<i64>,
}

impl Plan {
    fn wake_at(&mut self, at: i64) {
        self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
    }

    fn wake_at_next(&mut self, at: Option<i64>) {
        at.into_iter().for_each(|at| self.wake_at(at));
    }
}

/// One pass over the world.
pub fn plan(world: &mut World, terms: &Terms, now: i64) -> Plan {
    let mut plan = Plan::default();
    let mut postings = Vec::new();
    node::plan(world, &mut plan, now);
    escrow::plan(world, terms, &mut plan, &mut postings, now);
    task::plan(world, terms, &mut plan, &mut postings, now);
    if !postings.is_empty() {
        plan.effects.insert(0, Effect::Book(postings));
    }
    plan
}

#[cfg(test)]
mod tests;
