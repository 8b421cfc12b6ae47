//! ProviderNode: one node's inventory, and what its provider overrides on it.

use crate::common::{Condition, DataClass, LABEL_PATTERN};
use crate::schema;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One node's inventory and overrides.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "supercargo.dev",
    version = "v1alpha1",
    kind = "ProviderNode",
    status = "ProviderNodeStatus",
    derive = "PartialEq",
    shortname = "pn",
    category = "supercargo",
    doc = "One node that a provider sells: its inventory, health and reputation, and what overrides its pool. Its pool makes it.",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Availability", type_ = "string", json_path = ".spec.availability"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "GPUs", type_ = "string", json_path = ".status.offers[*].count"),
    printcolumn(name = "Free", type_ = "string", json_path = ".status.offers[*].free"),
    printcolumn(name = "Reputation", type_ = "integer", json_path = ".status.reputation"),
    printcolumn(name = "Model", type_ = "string", json_path = ".status.offers[*].model", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::immutable(&["nodeName", "cluster"])))]
pub struct ProviderNodeSpec {
    /// The pool that it belongs to.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub pool: String,
    /// The cluster that it is in.
    #[serde(default = "local")]
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub cluster: String,
    /// The Kubernetes node. For the local cluster it is this object's own name.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// Open takes tasks. Draining takes none and lets what runs finish until the deadline. Closed takes none.
    #[serde(default)]
    pub availability: Availability,
    /// How long what runs may go on while draining. Default: as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub drain_deadline_seconds: Option<i64>,
    /// Replaces the pool's region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub region: Option<String>,
    /// Replaces the pool's classes of data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub data_classes: Option<Vec<DataClass>>,
}

fn local() -> String {
    "local".to_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Availability {
    #[default]
    Open,
    Draining,
    Closed,
}

/// What we say of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = serde_json::json!({"observedGeneration": -1})))]
pub struct ProviderNodeStatus {
    /// The generation of the spec that this status is about; -1 until we have seen it.
    #[serde(default = "unseen")]
    pub observed_generation: i64,
    /// Ready: it takes tasks. Healthy: Kubernetes hears from it. Stalled when a person must act.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// What is sold here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["resourceName"]))]
    pub offers: Vec<OfferStatus>,
    /// 0 to 100. A newcomer has 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reputation: Option<i32>,
}

fn unseen() -> i64 {
    -1
}

impl Default for ProviderNodeStatus {
    fn default() -> Self {
        Self { observed_generation: unseen(), conditions: Vec::new(), offers: Vec::new(), reputation: None }
    }
}

/// One resource of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferStatus {
    /// The extended resource.
    #[schemars(length(max = 253))]
    pub resource_name: String,
    /// The product's name.
    #[schemars(length(max = 128))]
    pub model: String,
    /// Vouched by the pool's administrator, or Claimed by the node's own labels.
    #[schemars(length(max = 16))]
    pub model_from: String,
    /// Memory of one device.
    #[schemars(length(max = 32))]
    pub memory: String,
    /// Healthy devices.
    pub count: i64,
    /// Of these, free.
    pub free: i64,
}
