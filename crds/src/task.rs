//! ComputeTask: what a buyer wants run, on what, for how long, and at which cost at most.

use crate::common::{DataClass, IMAGE_PATTERN, LABEL_PATTERN, Money, PATH_PATTERN};
use crate::schema;
pub use crate::task_container::{
    ClaimSource, Egress, EnvSource, EnvVar, KeyRef, Network, NetworkPort, NetworkRule, ObjectName, Scratch, Security, Volume,
};
pub use crate::task_placement::{Gang, GangSuccess, Gpu, Placement, Providers, Resources, Strategy, Topology};
use crate::task_status::ComputeTaskStatus;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Fields that only a suspended task may change.
const FIXED: [&str; 18] = [
    "image",
    "command",
    "args",
    "env",
    "workingDir",
    "imagePullSecrets",
    "volumes",
    "security",
    "resources",
    "gang",
    "timeLimitSeconds",
    "startTimeoutSeconds",
    "gracePeriodSeconds",
    "retries",
    "onNodeLoss",
    "placement",
    "dataClass",
    "network",
];

fn spec_rules() -> serde_json::Value {
    let mut rules = schema::immutable_unless_suspended(&FIXED);
    rules.push(schema::order_immutable_unless_suspended("env", "$(NAME) stands for an earlier variable's value"));
    rules.extend(schema::immutable(&["escrowRef"]));
    rules.push(schema::rule_at(
        "budget",
        "!isQuantity(self.budget) || !isQuantity(oldSelf.budget) || quantity(self.budget).compareTo(quantity(oldSelf.budget)) >= 0",
        "budget can only rise: give at least what it was",
    ));
    rules.push(schema::rule_at(
        "budget",
        "!isQuantity(self.budget) || quantity(self.budget).compareTo(quantity('0')) > 0",
        "budget must be more than 0: it is the most that the task may ever cost",
    ));
    json!(rules)
}

/// GPU work that is placed on the best node that may run it, metered, and paid from an Escrow.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "supercargo.dev",
    version = "v1alpha1",
    kind = "ComputeTask",
    namespaced,
    status = "ComputeTaskStatus",
    derive = "PartialEq",
    shortname = "ct",
    category = "supercargo",
    doc = "Work that is placed on the best node that may run it, metered to the second, and paid from an Escrow. Its name is a DNS label of at most 52 characters that begins with a letter: its pods and its Service are named after it.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes"),
    printcolumn(name = "GPUs", type_ = "integer", json_path = ".status.gpus"),
    printcolumn(name = "Cost", type_ = "string", json_path = ".status.cost.charged"),
    printcolumn(name = "Budget", type_ = "string", json_path = ".spec.budget"),
    printcolumn(name = "Provider", type_ = "string", json_path = ".status.providers", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = spec_rules()))]
pub struct ComputeTaskSpec {
    /// The Escrow that pays. Default: the namespace's Escrow `default`. It can never be changed.
    #[serde(default)]
    pub escrow_ref: EscrowRef,
    /// The most that this task may ever cost, in the Escrow's token: every attempt, every worker, fees and everything
    /// included. The task is ended before it would be passed: so early that its grace period is paid too. It may rise at any
    /// time and never falls. When 50, 80 and 95 % of it are used while the task runs, the status and an Event say so; and
    /// where the task may come that far, SUPERCARGO_NOTICE names a file in its container that says how much is used and
    /// when it ends. Until then that file is empty.
    pub budget: Money,
    /// The container image. The node pulls it; pulling is not billed.
    #[schemars(length(min = 1, max = 1024), regex(pattern = IMAGE_PATTERN))]
    pub image: String,
    /// What to run in the container instead of the image's entry point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 8192)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,
    /// Arguments of the command, or of the image's entry point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512), inner(length(max = 8192)), extend("x-kubernetes-list-type" = "atomic"))]
    pub args: Vec<String>,
    /// Environment variables. Names that begin with SUPERCARGO_, PET_ or NVIDIA_ are refused: they are ours, torchrun's and
    /// the device plugin's. Their order counts, since `$(NAME)` stands for an earlier variable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// The directory to start in. Default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = PATH_PATTERN))]
    pub working_dir: Option<String>,
    /// Secrets of this namespace that the image is pulled with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<ObjectName>,
    /// Storage that the container sees. Nothing of the node's own can be mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volumes: Vec<Volume>,
    /// Whom the container runs as. Capabilities, privilege and escalation can't be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// What one worker gets: requests and limits alike.
    #[serde(default)]
    pub resources: Resources,
    /// Workers that start together or not at all. Default: one worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<Gang>,
    /// How long an attempt may run from its container's start. Then it is ended with its grace period, and fails.
    #[serde(default = "day")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub time_limit_seconds: i64,
    /// How long an attempt may take from its placement to its container's start: image pull, volumes and init, all of it
    /// unbilled. Then the attempt ends. A gang's own limit replaces it.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 1, max = 86_400))]
    pub start_timeout_seconds: i64,
    /// How long the task may wait for a place before it fails, counted from `status.waitingSince`: each attempt's wait
    /// begins anew, and neither the time that it ran nor the time that it was suspended counts. Default: without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub queue_timeout_seconds: Option<i64>,
    /// Seconds between SIGTERM and SIGKILL when the task is cancelled, suspended or ended by a limit. They are billed.
    #[serde(default = "thirty")]
    #[schemars(range(min = 0, max = 3_600))]
    pub grace_period_seconds: i64,
    /// How many times a failed attempt is followed by another, all from one budget. A provider's faults don't count.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub retries: i32,
    /// What happens when the node is lost (300 s without a sign of it). Retry: another attempt elsewhere, which doesn't
    /// count as one of the retries. Wait: nothing, until the node comes back.
    #[serde(default)]
    pub on_node_loss: OnNodeLoss,
    /// How long the finished task is kept before it is deleted. Default: until somebody deletes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i64>,
    /// While true nothing runs: a running attempt is ended with its grace period, and the task keeps its place in no
    /// queue. Set to false it runs again, in a new attempt.
    #[serde(default)]
    pub suspend: bool,
    /// Among the tasks of one Escrow the higher goes first. It means nothing between Escrows: they share fairly.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// Where the task may run, and what is best.
    #[serde(default)]
    pub placement: Placement,
    /// How much the task's data must be protected. Only nodes vouched or proved for that class are used, as the operator's
    /// configuration asks for: by default Confidential wants proof. Private stays on nodes of the Escrow's own provider.
    #[serde(default)]
    pub data_class: DataClass,
    /// What the task may reach. Default: its own gang and nothing else.
    #[serde(default)]
    pub network: Network,
}

fn day() -> i64 {
    86_400
}

pub(crate) fn ten_minutes() -> i64 {
    600
}

fn thirty() -> i64 {
    30
}

/// The Escrow that pays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EscrowRef {
    /// The Escrow's name.
    #[serde(default = "default_name")]
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub name: String,
    /// The Escrow's namespace, which must allow this one. Default: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub namespace: Option<String>,
}

fn default_name() -> String {
    "default".to_owned()
}

impl Default for EscrowRef {
    fn default() -> Self {
        Self { name: default_name(), namespace: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum OnNodeLoss {
    /// Another attempt elsewhere; it doesn't count as one of the retries.
    #[default]
    Retry,
    /// Wait for the node to come back.
    Wait,
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::CustomResourceExt;
    use std::collections::BTreeSet;

    #[test]
    fn every_field_is_either_fixed_or_one_of_those_that_may_change() {
        const OTHERS: [&str; 6] = ["budget", "suspend", "priority", "queueTimeoutSeconds", "ttlSecondsAfterFinished", "escrowRef"];
        let crd = serde_json::to_value(ComputeTask::crd()).expect("a CRD is plain data");
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        let fields: BTreeSet<&str> = spec.as_object().expect("an object").keys().map(String::as_str).collect();
        let known: Vec<&str> = FIXED.into_iter().chain(OTHERS).collect();
        assert_eq!(known.iter().copied().collect::<BTreeSet<_>>(), fields);
        assert_eq!(known.len(), fields.len(), "none is both");
    }
}
