//! What a ComputeTask runs on: resources, workers that belong together, and which nodes will do.

use crate::common::{IsolationLevel, LABEL_PATTERN, LABEL_VALUE_PATTERN, Money, RESOURCE_NAME_PATTERN, Tenancy};
use crate::quantity::Quantity;
use crate::task::ten_minutes;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one worker gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// GPUs of one worker. Default: one whole GPU of any model.
    #[serde(default)]
    pub gpu: Gpu,
    /// Cores. Default: a share of the node, less what others' pods take there, in proportion to the GPUs; 1 for a task without a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Bytes. Default: a share of the node, less what others' pods take there, in proportion to the GPUs; 1Gi for a task without a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    /// Disk of the node: the container's own files, logs and scratch volumes. Default: 1Gi and the scratch volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<Quantity>,
    /// Size of /dev/shm. It counts inside `memory`, also where that is left out. Default: the runtime's 64Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_memory: Option<Quantity>,
}

/// GPUs of one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// How many. 0 is a task without a GPU.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 64))]
    pub count: i32,
    /// The extended resource: a whole GPU, or a slice under the name that its device plugin gives it.
    #[serde(default = "nvidia_gpu")]
    #[schemars(length(max = 253), regex(pattern = RESOURCE_NAME_PATTERN))]
    pub resource_name: String,
    /// Models that will do, as whole words of the product's name in any case: H100 matches NVIDIA-H100-80GB-HBM3.
    /// Default: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub models: Vec<String>,
    /// The least memory of each. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

fn one() -> i32 {
    1
}

fn nvidia_gpu() -> String {
    "nvidia.com/gpu".to_owned()
}

impl Default for Gpu {
    fn default() -> Self {
        Self { count: one(), resource_name: nvidia_gpu(), models: Vec::new(), memory: None }
    }
}

/// Workers that start together or not at all. They are billed from the last one's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gang {
    /// How many. Each gets all of `resources`, its number, the count and the leader's address.
    #[schemars(range(min = 1, max = 512))]
    pub workers: i32,
    /// How long all workers may take to start. It replaces the task's own limit.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 1, max = 86_400))]
    pub start_timeout_seconds: i64,
    /// Whose success is the task's. All: every worker's. Leader: worker 0's; the others are ended with it.
    #[serde(default)]
    pub success: GangSuccess,
    /// How near to each other the workers must be. Any: anywhere. Zone: in one zone. Node: on one node.
    #[serde(default)]
    pub topology: Topology,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum GangSuccess {
    #[default]
    All,
    /// Worker 0 decides; the others are ended with it.
    Leader,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Topology {
    #[default]
    Any,
    Zone,
    Node,
}

/// Where the task may run, and what is best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// What is best among the nodes that may run it. Cheapest: the lowest price. Fastest: the strongest device. Quality:
    /// the best reputation. Balanced: price weighed with reputation.
    #[serde(default)]
    pub strategy: Strategy,
    /// Who else may be on the node. Shared: anybody's tasks. Dedicated: tasks of the same Escrow only. Exclusive: nobody;
    /// the task pays for every GPU that the node sells.
    #[serde(default)]
    pub tenancy: Tenancy,
    /// The most that one worker may cost an hour, in the Escrow's token, everything included. Default: no limit but the budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_price_per_hour: Option<Money>,
    /// The least reputation of a node, 0 to 100. A newcomer has 50.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub min_reputation: i32,
    /// Regions that will do, the best first. Default: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub regions: Vec<String>,
    /// Labels that the node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Providers that may or may not be used. Default: all may.
    #[serde(default)]
    pub providers: Providers,
    /// The weakest isolation that will do. Container: a container, with the security floor of every task. Sandbox: a kernel
    /// of its own in user space, such as gVisor. VM: a virtual machine.
    #[serde(default)]
    pub isolation: IsolationLevel,
}

/// A bounded map of label values.
pub(crate) fn labels(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "object", "additionalProperties": { "type": "string", "maxLength": 63, "pattern": LABEL_VALUE_PATTERN }, "maxProperties": 32 })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    /// The lowest price.
    #[default]
    Cheapest,
    /// The strongest device.
    Fastest,
    /// The best reputation.
    Quality,
    /// Price weighed with reputation.
    Balanced,
}

/// Providers that may or may not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
pub struct Providers {
    /// Only these. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN)), extend("x-kubernetes-list-type" = "set"))]
    pub allow: Vec<String>,
    /// None of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN)), extend("x-kubernetes-list-type" = "set"))]
    pub deny: Vec<String>,
}
