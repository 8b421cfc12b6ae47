//! The planner: from what is to what should be done. Pure: the world and the time go in, effects come out. It is asked
//! again after every event and says the same until the world shows that it was done.

mod account;
mod attempt;
mod budget;
pub mod data_classes;
mod escrow;
mod evidence;
mod gang;
mod hindrance;
mod inventory;
pub mod network;
mod node;
pub mod note;
mod outcome;
mod parting;
mod place;
mod pod;
pub mod running;
mod standing;
mod status;
mod task;
mod telling;
pub mod usage;
mod waiting;

use crate::world::World;
use crate::world::market::Decision;
use data_classes::DataClasses;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use network::NetworkTerms;
use note::Note;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use supercargo_crds::escrow::EscrowStatus;
use supercargo_crds::node::ProviderNodeStatus;
use supercargo_crds::pool::ProviderPoolStatus;
use supercargo_crds::task_status::ComputeTaskStatus;
use supercargo_crds::validate::Range;
use supercargo_ledger::Posting;
use supercargo_market::asset::Asset;
use supercargo_market::fees::FeeSchedule;
use supercargo_market::funding;
use supercargo_market::work::WorkId;
use usage::{Asked, UsageTerms};

/// What is there for pods, and before them.
#[derive(Debug, Clone, PartialEq)]
pub enum Fitting {
    Policy(Box<NetworkPolicy>),
    Service(Box<Service>),
}

/// One thing for the books.
#[derive(Debug, Clone, PartialEq)]
pub enum Booking {
    /// Holds back money for a place.
    Reserve(WorkId, Arc<Decision>),
    Post(Posting),
}

impl Booking {
    /// All that the ledger is to take for it: the cards first, by which a place is priced.
    pub fn postings(self) -> Vec<Posting> {
        let cards = match &self {
            Self::Reserve(_, decision) => decision.cards.iter().cloned().map(Posting::Card).collect(),
            Self::Post(_) => Vec::new(),
        };
        cards.into_iter().chain([self.posting()]).collect()
    }

    /// As the ledger takes it. A placement is written as text here, and not in the pass that found it: writing takes longer.
    pub fn posting(self) -> Posting {
        match self {
            Self::Reserve(work, decision) => {
                let Decision { funding, amount, placement, .. } = &*decision;
                // Its own types can't fail to be written as JSON.
                let detail = serde_json::to_string(placement).unwrap_or_default();
                Posting::Reserve {
                    work,
                    asset: Asset::of(funding, &placement.token),
                    funding: funding.clone(),
                    amount: *amount,
                    detail,
                    parent: None,
                }
            }
            Self::Post(posting) => posting,
        }
    }
}

/// One thing to do. All of them can be done twice.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Everything for the books of one pass: one transaction.
    Book(Vec<Booking>),
    /// What tasks need to be there in a namespace before their pods, as it is while these ranges are the cluster's own.
    FitNamespace {
        namespace: String,
        fittings: Vec<Fitting>,
        closed: Arc<BTreeSet<Range>>,
    },
    /// A worker's pod, and before it what is the task's own.
    CreatePod {
        work: WorkId,
        fitting: Option<Fitting>,
        pod: Box<Pod>,
    },
    /// Whether an attempt that nobody heard of has pods after all.
    FindPods {
        work: WorkId,
        attempt: u32,
        namespace: String,
        names: Vec<String>,
        at: i64,
    },
    /// What an attempt's containers used.
    ReadUsage {
        work: WorkId,
        attempt: u32,
        asked: Vec<Asked>,
    },
    DeletePod {
        namespace: String,
        name: String,
        uid: String,
        /// The pod's own when it is not given.
        grace_seconds: Option<u32>,
        /// Only if it is still as it was seen: what has not started may have, and nobody has heard of it yet.
        version: Option<String>,
    },
    /// What its containers find in the file of their budget's marks. None: nothing.
    MarkPod {
        namespace: String,
        name: String,
        uid: String,
        notice: Option<String>,
    },
    /// The books have the pod's facts: its finalizer goes.
    FreePod {
        namespace: String,
        name: String,
        uid: String,
    },
    /// Of the very task with this UID: another one may have its name by now.
    WriteTask {
        namespace: String,
        name: String,
        uid: String,
        status: Box<ComputeTaskStatus>,
        note: Option<Box<Note>>,
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
    /// Nobody but us gets there; or everybody again.
    TaintNode {
        name: String,
        sold: bool,
    },
    WriteNode {
        name: String,
        status: Box<ProviderNodeStatus>,
        note: Option<Box<Note>>,
    },
    WritePool {
        name: String,
        status: Box<ProviderPoolStatus>,
    },
    WriteEscrow {
        namespace: String,
        name: String,
        status: Box<EscrowStatus>,
        note: Option<Box<Note>>,
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
            Self::FindPods { namespace, names, .. } => {
                format!("pods/{namespace}/{}", names.first().map(String::as_str).unwrap_or_default())
            }
            Self::DeletePod { namespace, name, .. } | Self::MarkPod { namespace, name, .. } | Self::FreePod { namespace, name, .. } => {
                format!("pod/{namespace}/{name}")
            }
            Self::ReadUsage { work, .. } => format!("usage/{work}"),
            Self::WriteTask { namespace, name, .. } | Self::DeleteTask { namespace, name, .. } => format!("task/{namespace}/{name}"),
            Self::ApplyNode { name, .. } | Self::WriteNode { name, .. } => format!("node/{name}"),
            Self::TaintNode { name, .. } => format!("taint/{name}"),
            Self::WritePool { name, .. } => format!("pool/{name}"),
            Self::WriteEscrow { namespace, name, .. } => format!("escrow/{namespace}/{name}"),
            Self::FitNamespace { namespace, .. } => format!("namespace/{namespace}"),
        }
    }

    /// A word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Book(_) => "book",
            Self::CreatePod { .. } => "create_pod",
            Self::FindPods { .. } => "find_pods",
            Self::ReadUsage { .. } => "read_usage",
            Self::DeletePod { .. } => "delete_pod",
            Self::MarkPod { .. } => "mark_pod",
            Self::FreePod { .. } => "free_pod",
            Self::WriteTask { .. } => "write_task",
            Self::DeleteTask { .. } => "delete_task",
            Self::ApplyNode { .. } => "apply_node",
            Self::TaintNode { .. } => "taint_node",
            Self::WriteNode { .. } => "write_node",
            Self::WritePool { .. } => "write_pool",
            Self::WriteEscrow { .. } => "write_escrow",
            Self::FitNamespace { .. } => "fit_namespace",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Book(bookings) => write!(formatter, "book {} postings", bookings.len()),
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
    pub network: NetworkTerms,
    pub data_classes: DataClasses,
    /// Whether nodes that are only ours are tainted, so that nobody else's pods get there.
    pub taints_nodes: bool,
    /// Whether pods get users of their own where the node can give them.
    pub user_namespaces: bool,
    /// Where somebody can tell what containers use.
    pub usage: Option<UsageTerms>,
}

#[derive(Debug, Clone)]
pub struct ChainTerms {
    pub name: String,
    pub chain_id: u64,
    pub contract: String,
    pub token: String,
    pub settler: u32,
    /// How many endpoints it is read through.
    pub endpoints: usize,
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
    let mut bookings = Vec::new();
    world.look_at_clock(now);
    world.today = funding::today(world.today, now);
    standing::refresh(world, terms);
    node::plan(world, terms, &mut plan, now);
    escrow::plan(world, terms, &mut plan, &mut bookings, now);
    task::plan(world, terms, &mut plan, &mut bookings, now);
    standing::plan(world, terms, &mut plan, now);
    running::plan(world, &mut plan, &mut bookings, now);
    if !bookings.is_empty() {
        plan.effects.insert(0, Effect::Book(bookings));
    }
    plan
}

#[cfg(test)]
mod account_tests;
#[cfg(test)]
mod after_tests;
#[cfg(test)]
mod budget_tests;
#[cfg(test)]
mod ends_tests;
#[cfg(test)]
mod funds_tests;
#[cfg(test)]
mod hindrance_tests;
#[cfg(test)]
mod minimum_tests;
#[cfg(test)]
mod node_tests;
#[cfg(test)]
mod parting_tests;
#[cfg(test)]
mod pod_tests;
#[cfg(test)]
mod pool_tests;
#[cfg(test)]
mod quarantine_tests;
#[cfg(test)]
mod running_tests;
#[cfg(test)]
mod sight_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod start_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unable_tests;
#[cfg(test)]
mod undone_tests;
#[cfg(test)]
mod usage_tests;
#[cfg(test)]
mod waiting_tests;
#[cfg(test)]
mod waits_tests;
