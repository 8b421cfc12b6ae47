//! ProviderNode: one node's inventory, and what its provider overrides on it.

use crate::common::{Condition, DataClass, LABEL_PATTERN, OBJECT_PATTERN, Tenancy, Time};
use crate::pool::{GpuFacts, Isolation, ProviderPoolSpec};
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
    printcolumn(name = "Free", type_ = "string", json_path = ".status.free"),
    printcolumn(name = "Reputation", type_ = "integer", json_path = ".status.reputation"),
    printcolumn(name = "Model", type_ = "string", json_path = ".status.models", priority = 1),
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
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_PATTERN))]
    pub node_name: String,
    /// Open takes tasks. Draining takes none and lets what runs finish until the deadline. Closed takes none.
    #[serde(default)]
    pub availability: Availability,
    /// How long what runs may go on while draining, from when the condition Draining became True: also while the node is
    /// cordoned or not ready. A change moves the deadline. Default: as long as it takes.
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
    /// Replaces the pool's tenancies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub tenancies: Option<Vec<Tenancy>>,
    /// Replaces the pool's isolation: a runtime class may be there on some nodes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["level"]))]
    pub isolation: Option<Vec<Isolation>>,
    /// Replaces what the pool says of these resources, where this node has others of the same name. Prices are the pool's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["resourceName"]))]
    pub gpus: Vec<GpuFacts>,
}

impl ProviderNodeSpec {
    /// What is sold on this node: its pool's terms with its own laid over them.
    pub fn over(&self, pool: &ProviderPoolSpec) -> ProviderPoolSpec {
        let mut sold = pool.clone();
        sold.region = self.region.clone().or(sold.region);
        sold.data_classes = self.data_classes.clone().unwrap_or(sold.data_classes);
        sold.tenancies = self.tenancies.clone().unwrap_or(sold.tenancies);
        sold.isolation = self.isolation.clone().unwrap_or(sold.isolation);
        sold.gpus.retain(|facts| !self.gpus.iter().any(|own| own.resource_name == facts.resource_name));
        sold.gpus.extend(self.gpus.iter().cloned());
        sold
    }
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
    /// Ready: it takes tasks. Healthy: Kubernetes hears from it, and its devices work. Registered: its resources are known and
    /// have a price. Sold, in pools with binding Direct: it is tainted, so that nobody else's pods get there; False names the
    /// pods that would be thrown out. Draining: what runs there has until a deadline. Stalled when a person must act.
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
    /// What the reputation is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordStatus>,
    /// What is free of each resource, in short, as it was at most a minute ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub free: Option<String>,
    /// The products that it has, in short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub models: Option<String>,
    /// Devices that pods have and whose health is reported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub devices: Vec<DeviceStatus>,
    /// Classes of data that it may have, and what each rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["class"]))]
    pub data_classes: Vec<DataClassStatus>,
    /// Set while it takes no tasks because too much went wrong on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
}

impl ProviderNodeStatus {
    /// Writes the summaries that people see in columns, from the offers.
    pub fn summarize(&mut self) {
        let joined = |texts: Vec<String>| (!texts.is_empty()).then(|| texts.join(", ").chars().take(1024).collect());
        self.free = joined(self.offers.iter().map(|offer| format!("{}/{} {}", offer.free, offer.count, offer.resource_name)).collect());
        let mut models: Vec<String> = self.offers.iter().map(|offer| offer.model.clone()).filter(|model| !model.is_empty()).collect();
        models.dedup();
        self.models = joined(models);
    }
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// The device's id, as its driver or its device plugin gives it.
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
    /// The extended resource that it is one of.
    #[schemars(length(max = 253))]
    pub resource_name: String,
    /// Healthy, Unhealthy, or Unknown while nothing reports of it.
    pub health: DeviceHealth,
    /// What was last reported of it, such as an XID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DeviceHealth {
    Healthy,
    Unhealthy,
    #[default]
    Unknown,
}

/// A class of data that a node may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DataClassStatus {
    /// The class: Public, Shared, Confidential or Private.
    pub class: DataClass,
    /// Vouched: the pool's administrator says so. Proved: an attestation does. Which of them suffices for a class is the
    /// operator's configuration.
    pub basis: DataClassBasis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DataClassBasis {
    Vouched,
    Proved,
}

/// What a provider's node has served, and what went wrong there. Service is written along with the rest, and may be behind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordStatus {
    /// Seconds of tasks that were served.
    pub served_seconds: i64,
    /// Attempts that ended by the provider's fault.
    pub faults: i64,
    /// Times that two sources did not say the same.
    pub disagreements: i64,
    /// Times that it was set apart with less than a day between them: each lasts twice as long as the one before.
    pub quarantines: i64,
    /// When attempts failed for reasons of its own, of those that still count: three within ten minutes set it apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::times")]
    pub recent_faults: Vec<Time>,
    /// When it was last let back, or will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_let_back: Option<Time>,
}

/// Why and how long a node is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quarantine {
    /// When it takes tasks again.
    #[schemars(schema_with = "schema::time")]
    pub until: Time,
    /// Faults that count against it.
    #[serde(default)]
    pub faults: i32,
    /// The last fault, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
}

fn unseen() -> i64 {
    -1
}

impl Default for ProviderNodeStatus {
    fn default() -> Self {
        Self {
            observed_generation: unseen(),
            conditions: Vec::new(),
            offers: Vec::new(),
            reputation: None,
            record: None,
            free: None,
            models: None,
            devices: Vec::new(),
            data_classes: Vec::new(),
            quarantine: None,
        }
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
    /// Of these, free, as it was at most a minute ago. None while a task has the node alone.
    pub free: i64,
    /// How many of them share one device, by time-slicing. Absent: each is a device or a slice of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas_per_device: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_node_says_itself_replaces_its_pools_terms_and_the_rest_stays() {
        let pool: ProviderPoolSpec = serde_json::from_value(json!({
            "provider": "acme", "selector": { "matchLabels": { "a": "b" } }, "pricing": { "token": "USDC" }, "region": "north",
            "gpus": [{ "resourceName": "a.b/gpu", "model": "H100", "memory": "80Gi" }, { "resourceName": "a.b/slice", "model": "H100", "memory": "10Gi" }],
        }))
        .expect("a pool");
        let node = |more: serde_json::Value| {
            let mut spec = json!({ "pool": "p", "nodeName": "n" });
            spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            serde_json::from_value::<ProviderNodeSpec>(spec).expect("a node")
        };
        assert_eq!(node(json!({})).over(&pool), pool);
        let own = json!({ "tenancies": ["Exclusive"], "isolation": [{ "level": "VM", "runtimeClassName": "kata" }],
            "gpus": [{ "resourceName": "a.b/gpu", "model": "A100", "memory": "40Gi" }] });
        let sold = node(own).over(&pool);
        assert_eq!(sold.tenancies, [Tenancy::Exclusive]);
        assert_eq!((sold.region.as_deref(), sold.isolation.len()), (Some("north"), 1));
        let models: Vec<&str> = sold.gpus.iter().map(|facts| facts.model.as_str()).collect();
        assert_eq!(models, ["H100", "A100"]);
    }

    #[test]
    fn columns_tell_of_every_resource() {
        let offer = |resource_name: &str, count, free| OfferStatus {
            resource_name: resource_name.into(),
            model: "H100".into(),
            model_from: "Vouched".into(),
            memory: "1Gi".into(),
            count,
            free,
            replicas_per_device: None,
        };
        let mut status = ProviderNodeStatus { offers: vec![offer("a.b/gpu", 8, 3), offer("a.b/slice", 14, 0)], ..Default::default() };
        status.summarize();
        assert_eq!(status.free.as_deref(), Some("3/8 a.b/gpu, 0/14 a.b/slice"));
        assert_eq!(status.models.as_deref(), Some("H100"));
    }
}
