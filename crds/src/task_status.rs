//! What we say of a ComputeTask.

use crate::common::{Condition, Money, Time};
use crate::names::task_condition::FINISHED;
use crate::schema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What became of the task. Programs read the conditions; `phase` and `reason` are for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = serde_json::json!({"observedGeneration": -1})))]
pub struct ComputeTaskStatus {
    /// The generation of the spec that this status is about; -1 until we have seen it.
    #[serde(default = "unseen")]
    pub observed_generation: i64,
    /// Reserved, Placed, Started, Succeeded and Finished as they come; Reconciling until it has started; Stalled when a
    /// person must act.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Waiting, Starting, Running, Succeeded, Failed, Suspended or Stalled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub phase: Option<String>,
    /// The latest reason, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// The nodes of the last attempt in short: the first worker's, and how many others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub nodes: Option<String>,
    /// GPUs of all workers together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<i64>,
    /// The providers of the last attempt in short: the first worker's, and how many others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub providers: Option<String>,
    /// What the spec left open, as it was decided for the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
    /// Where each worker of the last attempt went, and why there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["worker"]))]
    pub assignments: Vec<Assignment>,
    /// Why it waits: each reason with how many nodes it excludes, and one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub waiting: Vec<Waiting>,
    /// Since when it waits for a place: `queueTimeoutSeconds` counts from then. Absent while it runs, is suspended or has
    /// finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub waiting_since: Option<Time>,
    /// How many attempts failed so far: more than `retries` are the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_attempts: Option<i32>,
    /// The last 10 attempts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub attempts: Vec<Attempt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// What proves the charges: written with the end, and once all of them are settled with where they stand on the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
}

fn unseen() -> i64 {
    -1
}

impl Default for ComputeTaskStatus {
    fn default() -> Self {
        Self {
            observed_generation: unseen(),
            conditions: Vec::new(),
            phase: None,
            reason: None,
            nodes: None,
            gpus: None,
            providers: None,
            resolved: None,
            assignments: Vec::new(),
            waiting: Vec::new(),
            waiting_since: None,
            failed_attempts: None,
            attempts: Vec::new(),
            usage: None,
            cost: None,
            receipt: None,
        }
    }
}

impl ComputeTaskStatus {
    /// How far it is: whether it is finished, and the last attempt that it tells of. It only ever grows.
    pub fn progress(&self) -> (bool, Option<i32>) {
        let finished = self.conditions.iter().any(|condition| condition.type_ == FINISHED && condition.status == "True");
        (finished, self.attempts.iter().map(|attempt| attempt.index).max())
    }

    /// Writes the summaries that people see in columns, from the assignments and what one worker has.
    pub fn summarize(&mut self, gpus_per_worker: i32, workers: i32) {
        self.gpus = Some(i64::from(gpus_per_worker) * i64::from(workers));
        self.nodes = in_short(self.assignments.iter().map(|assignment| assignment.node.as_str()));
        self.providers = in_short(self.assignments.iter().map(|assignment| assignment.provider.as_str()));
    }
}

/// The first of them, and how many others there are besides.
fn in_short<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut different: Vec<&str> = Vec::new();
    for name in names {
        if !different.contains(&name) {
            different.push(name);
        }
    }
    match different.as_slice() {
        [] => None,
        [one] => Some((*one).to_owned()),
        [first, others @ ..] => Some(format!("{first} and {} more", others.len())),
    }
}

/// What the spec left open, as it was decided: each fact once it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    /// The Escrow that pays, as namespace/name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 127))]
    pub escrow: Option<String>,
    /// The image by its digest, as the first worker's node pulled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1200))]
    pub image: Option<String>,
    /// Cores of each worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub cpu: Option<String>,
    /// Memory of each worker in bytes, shared memory included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub memory: Option<String>,
    /// Disk of each worker's node in bytes, scratch volumes included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub ephemeral_storage: Option<String>,
    /// How long the attempt may take to start: the task's limit or its gang's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timeout_seconds: Option<i64>,
    /// When the attempt is ended at the latest: by its time limit or by its budget, whichever comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub deadline: Option<Time>,
}

/// What proves the charges to whoever has the usage lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The SHA-256 of the body of its receipt, in hex: what was final when the charges were written.
    #[schemars(length(max = 64))]
    pub digest: String,
    /// The root of the usage lines that it is one of, as it was posted to the chain. Absent for internal credit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 66))]
    pub root: Option<String>,
    /// The transaction that posted the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 66))]
    pub transaction: Option<String>,
}

/// Where one worker went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The worker's number, from 0.
    pub worker: i32,
    /// The Kubernetes node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// The pool that sells the node.
    #[schemars(length(max = 63))]
    pub pool: String,
    /// Who is paid.
    #[schemars(length(max = 63))]
    pub provider: String,
    /// The worker's pod, in the task's namespace.
    #[schemars(length(max = 63))]
    pub pod: String,
    /// What decided.
    #[schemars(length(max = 256))]
    pub because: String,
    /// What the worker costs an hour, in the Escrow's token.
    pub price_per_hour: Money,
    /// Cores, as given and billed.
    #[schemars(length(max = 32))]
    pub cpu: String,
    /// Bytes, as given and billed.
    #[schemars(length(max = 32))]
    pub memory: String,
    /// The hash of the rate card that the attempt is billed by.
    #[schemars(length(max = 64))]
    pub rate_card: String,
}

/// One reason to wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// The reason, in a word.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// How many nodes it excludes.
    pub nodes: i32,
    /// One of them, in words.
    #[schemars(length(max = 256))]
    pub example: String,
}

/// One attempt and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The attempt's number: they count up.
    pub index: i32,
    /// Where it ran.
    #[schemars(length(max = 253))]
    pub node: String,
    /// Succeeded, Failed, ProviderFault, Refused, Deleted, Suspended, TimeLimit, StartTimeout, or Unfunded: its money went.
    #[schemars(length(max = 32))]
    pub outcome: String,
    /// What the container exited with, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Seconds that were billed.
    pub billed_seconds: i64,
    /// What the seconds rest on: Record, Clamped, Observed or None.
    #[schemars(length(max = 16))]
    pub evidence: String,
    /// The last lines that it wrote, or what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
    /// Which image ran, as the node's runtime resolved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image_digest: Option<String>,
}

/// What was used in all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Billed seconds of all attempts.
    pub seconds: i64,
    /// The same, times the GPUs.
    pub gpu_seconds: i64,
    /// How busy the GPUs were on average, in percent, as far as their exporter tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_utilization_percent: Option<i32>,
}

/// What it costs, in the Escrow's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// The token that the amounts are in.
    #[schemars(length(max = 12))]
    pub token: String,
    /// Held back for it now, besides what is charged.
    pub reserved: Money,
    /// Charged so far. Of an attempt that runs: what it had used when it passed the last mark of the budget.
    pub charged: Money,
    /// Of what was charged: paid on the chain, for good.
    pub settled: Money,
    /// The last transaction that paid for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 66))]
    pub transaction: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(worker: i32, node: &str) -> Assignment {
        Assignment {
            worker,
            node: node.into(),
            pool: "p".into(),
            provider: "acme".into(),
            pod: format!("t-0-{worker}"),
            because: String::new(),
            price_per_hour: Money::default(),
            cpu: "1".into(),
            memory: "1".into(),
            rate_card: String::new(),
        }
    }

    #[test]
    fn columns_tell_of_all_workers_and_not_of_the_first_alone() {
        let mut status = ComputeTaskStatus::default();
        status.summarize(2, 1);
        assert_eq!((status.gpus, &status.nodes, &status.providers), (Some(2), &None, &None));
        status.assignments = vec![assignment(0, "a"), assignment(1, "b"), assignment(2, "b"), assignment(3, "c")];
        status.summarize(8, 4);
        assert_eq!((status.gpus, status.nodes.as_deref(), status.providers.as_deref()), (Some(32), Some("a and 2 more"), Some("acme")));
    }
}
