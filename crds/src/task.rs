//! ComputeTask: what a buyer wants run, on what, for how long, and at which cost at most.

use crate::common::{DataClass, IsolationLevel, LABEL_PATTERN, Money, RESOURCE_NAME_PATTERN, Tenancy};
use crate::quantity::Quantity;
use crate::schema;
use crate::task_status::ComputeTaskStatus;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

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
    rules.extend(schema::immutable(&["escrowRef"]));
    rules.push(schema::rule_at("budget", "quantity(self.budget).compareTo(quantity(oldSelf.budget)) >= 0", "budget can only rise"));
    rules.push(schema::rule_at(
        "budget",
        "quantity(self.budget).compareTo(quantity('0')) > 0",
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
    doc = "Work that is placed on the best node that may run it, metered to the second, and paid from an Escrow. Its name has at most 52 characters.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.assignments[*].node"),
    printcolumn(name = "GPUs", type_ = "integer", json_path = ".spec.resources.gpu.count"),
    printcolumn(name = "Cost", type_ = "string", json_path = ".status.cost.charged"),
    printcolumn(name = "Budget", type_ = "string", json_path = ".spec.budget"),
    printcolumn(name = "Provider", type_ = "string", json_path = ".status.assignments[*].provider", priority = 1),
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
    /// included. The task is ended before it would be passed. It may rise at any time and never falls.
    pub budget: Money,
    /// The container image. The node pulls it; pulling is not billed.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// What to run in the container instead of the image's entry point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 8192)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,
    /// Arguments of the command, or of the image's entry point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512), inner(length(max = 8192)), extend("x-kubernetes-list-type" = "atomic"))]
    pub args: Vec<String>,
    /// Environment variables. Names that begin with SUPERCARGO_ or NVIDIA_ are ours and the device plugin's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// The directory to start in. Default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/"))]
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
    /// How long the task may wait for a place in all before it fails. Default: without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub queue_timeout_seconds: Option<i64>,
    /// Seconds between SIGTERM and SIGKILL when the task is cancelled, suspended or ended by a limit. They are billed.
    #[serde(default = "thirty")]
    #[schemars(range(min = 0, max = 3_600))]
    pub grace_period_seconds: i64,
    /// How many times a failed attempt is followed by another. A provider's faults don't count.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub retries: i32,
    /// What happens when the node is lost (300 s without a sign of it).
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
    /// How much the task's data must be protected. Only nodes vouched or proved for that class are used.
    #[serde(default)]
    pub data_class: DataClass,
    /// What the task may reach. Default: its own gang and nothing else.
    #[serde(default)]
    pub network: Network,
}

fn day() -> i64 {
    86_400
}

fn ten_minutes() -> i64 {
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

/// An object of this namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectName {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// An environment variable: a value, or a key of a Secret or ConfigMap of this namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule("!(has(self.value) && has(self.valueFrom))", "an environment variable has a value or a valueFrom, not both")]))]
pub struct EnvVar {
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32_768))]
    pub value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvSource>,
}

/// Where a variable's value comes from: exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule("has(self.secretKeyRef) != has(self.configMapKeyRef)", "exactly one of secretKeyRef and configMapKeyRef must be given")]))]
pub struct EnvSource {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
}

/// A key of an object of this namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A volume and where the container sees it: exactly one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule(
    "[has(self.scratch), has(self.persistentVolumeClaim), has(self.secret), has(self.configMap)].filter(given, given).size() == 1",
    "exactly one of scratch, persistentVolumeClaim, secret and configMap must be given"
)]))]
pub struct Volume {
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub name: String,
    /// An absolute path in the container.
    #[schemars(length(min = 2, max = 1024), regex(pattern = r"^/[^:]+$"))]
    pub mount_path: String,
    /// Mounts the volume for reading only. Secrets and ConfigMaps always are.
    #[serde(default)]
    pub read_only: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Scratch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ObjectName>,
}

/// Disk of the node that is gone when the attempt ends. It counts inside `resources.ephemeralStorage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scratch {
    pub size: Quantity,
}

/// A PersistentVolumeClaim of this namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSource {
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// Whom the container runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    /// Default: the image's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65_535))]
    pub run_as_user: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65_535))]
    pub run_as_group: Option<i64>,
    /// The group that volumes are handed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65_535))]
    pub fs_group: Option<i64>,
}

/// What one worker gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    #[serde(default)]
    pub gpu: Gpu,
    /// Cores. Default: the node's share in proportion to the GPUs; 1 for a task without a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Bytes. Default: the node's share in proportion to the GPUs; 1Gi for a task without a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    /// Disk of the node: the container's own files, logs and scratch volumes. Default: 1Gi and the scratch volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<Quantity>,
    /// Size of /dev/shm, inside `memory`. Default: the runtime's 64Mi.
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
    #[schemars(range(min = 1, max = 512))]
    pub workers: i32,
    /// How long all workers may take to start.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 1, max = 86_400))]
    pub start_timeout_seconds: i64,
    /// Whose success is the task's.
    #[serde(default)]
    pub success: GangSuccess,
    /// How near to each other the workers must be.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum OnNodeLoss {
    /// Another attempt elsewhere; it doesn't count as one of the retries.
    #[default]
    Retry,
    /// Wait for the node to come back.
    Wait,
}

/// Where the task may run, and what is best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// What is best among the nodes that may run it.
    #[serde(default)]
    pub strategy: Strategy,
    #[serde(default)]
    pub tenancy: Tenancy,
    /// The most that one worker may cost an hour, everything included. Default: no limit but the budget.
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
    #[serde(default)]
    pub providers: Providers,
    /// The weakest isolation that will do.
    #[serde(default)]
    pub isolation: IsolationLevel,
}

/// A bounded map of label values.
pub(crate) fn labels(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "object", "additionalProperties": { "type": "string", "maxLength": 63 }, "maxProperties": 32 })
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
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub allow: Vec<String>,
    /// None of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub deny: Vec<String>,
}

/// What the task may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
pub struct Network {
    #[serde(default)]
    pub egress: Egress,
    /// Address ranges that may be reached as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub rules: Vec<NetworkRule>,
    /// Ports of the task that others of its namespace may reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub ports: Vec<NetworkPort>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Egress {
    /// Its own gang and what `rules` say.
    #[default]
    None,
    /// Every public address: not the cluster, not its nodes, not the cloud's metadata.
    Internet,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkRule {
    /// An address range such as 203.0.113.0/24.
    #[schemars(length(min = 3, max = 49))]
    pub cidr: String,
    /// Ports within it. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 1, max = 65_535)), extend("x-kubernetes-list-type" = "set"))]
    pub ports: Vec<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkPort {
    #[schemars(length(min = 1, max = 15), regex(pattern = LABEL_PATTERN))]
    pub name: String,
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
}
