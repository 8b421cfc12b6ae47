//! ProviderPool: what one provider sells, on which nodes, at which prices.

use crate::common::{
    Condition, DataClass, HourlyPrice, IsolationLevel, LABEL_PATTERN, OBJECT_PATTERN, RESOURCE_NAME_PATTERN, TOKEN_PATTERN, Tenancy,
};
use crate::quantity::Quantity;
use crate::schema;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use supercargo_market::rate_card::{Basis, Rate, RateCard};

/// What one provider sells.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "supercargo.dev",
    version = "v1alpha1",
    kind = "ProviderPool",
    status = "ProviderPoolStatus",
    derive = "PartialEq",
    shortname = "pp",
    category = "supercargo",
    doc = "What one provider sells: which nodes, which GPUs, at which prices, and who is paid.",
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.provider"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Region", type_ = "string", json_path = ".spec.region"),
    printcolumn(name = "Binding", type_ = "string", json_path = ".spec.binding", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    schema::rule_at("payee", "!self.accepts.exists(way, way == 'Chain') || (has(self.payee) && has(self.chain))", "a pool that accepts Chain needs a chain and the payee that is paid there: give both, or accept Internal alone"),
    // Else who wants to be paid on a chain, and forgets to say so, would work for credit alone.
    schema::rule_at("accepts", "self.accepts.exists(way, way == 'Chain') || !(has(self.payee) || has(self.chain))", "a pool with a chain or a payee must accept Chain: add it, or leave chain and payee out"),
]))]
pub struct ProviderPoolSpec {
    /// The provider's name, as tasks allow or deny it.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub provider: String,
    /// The chain, by the name that the operator's configuration gives it, on which the provider is paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub chain: Option<String>,
    /// The provider's number on that chain: what `kubectl supercargo payee register` printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub payee: Option<i64>,
    /// Which Escrows may pay. Chain: those with an account on a chain; it needs `chain` and `payee`. Internal: those with
    /// credit in the operator's books, for which nothing is paid on a chain.
    #[serde(default = "internal")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub accepts: Vec<Accepts>,
    /// The nodes that are sold. Of two pools that select one node the older keeps it.
    pub selector: NodeSelector,
    /// Where the nodes are, as tasks name regions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub region: Option<String>,
    /// How pods get to the nodes. Direct: the nodes are only ours, and we bind pods to them. Scheduler: they run other
    /// workloads too, and kube-scheduler binds.
    #[serde(default)]
    pub binding: Binding,
    /// What the administrator vouches for: a kubelet may set any label, so facts that prices hang on stand here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["resourceName"]))]
    pub gpus: Vec<GpuFacts>,
    /// Classes of data that the administrator vouches for. For which of them that suffices is the operator's configuration: by
    /// default Confidential data wants proof.
    #[serde(default = "public")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub data_classes: Vec<DataClass>,
    /// Tenancies on offer.
    #[serde(default = "shared")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub tenancies: Vec<Tenancy>,
    /// Isolation on offer, each level with the runtime class that gives it.
    #[serde(default = "container")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["level"]))]
    pub isolation: Vec<Isolation>,
    /// The rate card. A changed one is a new card: what runs keeps the card that it started under.
    pub pricing: Pricing,
}

fn internal() -> Vec<Accepts> {
    vec![Accepts::Internal]
}

fn public() -> Vec<DataClass> {
    vec![DataClass::Public]
}

fn shared() -> Vec<Tenancy> {
    vec![Tenancy::Shared]
}

fn container() -> Vec<Isolation> {
    vec![Isolation { level: IsolationLevel::Container, runtime_class_name: None }]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Accepts {
    Chain,
    Internal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Binding {
    /// The nodes are only ours: we bind pods to them.
    #[default]
    Direct,
    /// Beside other workloads: kube-scheduler binds.
    Scheduler,
}

/// Nodes by their labels. All of them must be there; an empty selector is refused, for it would sell every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule_at("matchLabels", "size(self.matchLabels) > 0", "matchLabels must name at least one label: an empty selector would sell every node")]))]
pub struct NodeSelector {
    /// Labels that a node must have, all of them.
    #[schemars(schema_with = "crate::task_placement::labels")]
    pub match_labels: BTreeMap<String, String>,
}

/// What a resource is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuFacts {
    /// The extended resource, as its device plugin advertises it.
    #[schemars(length(max = 253), regex(pattern = RESOURCE_NAME_PATTERN))]
    pub resource_name: String,
    /// The product's name, such as NVIDIA-H100-80GB-HBM3.
    #[schemars(length(min = 1, max = 128))]
    pub model: String,
    /// Bytes of memory of one, such as 81559Mi.
    pub memory: Quantity,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Isolation {
    /// Container: a container, with the security floor of every task. Sandbox: a kernel of its own in user space, such as
    /// gVisor. VM: a virtual machine.
    pub level: IsolationLevel,
    /// The RuntimeClass that gives it. Default: the node's own runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_PATTERN))]
    pub runtime_class_name: Option<String>,
}

/// A rate card. All prices are for an hour and include the fee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pricing {
    /// The token that prices are in.
    #[schemars(regex(pattern = TOKEN_PATTERN))]
    pub token: String,
    /// Prices of resources. Of those that match a model the one with the most words of it counts. Two
    /// that match equally well are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub resources: Vec<ResourcePrice>,
    /// What a core costs an hour.
    #[serde(default)]
    pub cpu_per_hour: HourlyPrice,
    /// What a GiB of memory costs an hour.
    #[serde(default, rename = "memoryGiBPerHour")]
    pub memory_gib_per_hour: HourlyPrice,
    /// How CPU and memory are billed. Allocated: what the task was given. Used: what it used, never above that.
    #[serde(default)]
    pub basis: PricingBasis,
    /// The least seconds that a task is billed for, once, and never for a provider's fault.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3_600))]
    pub minimum_seconds: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum PricingBasis {
    #[default]
    Allocated,
    Used,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourcePrice {
    /// The extended resource that is priced.
    #[schemars(length(max = 253), regex(pattern = RESOURCE_NAME_PATTERN))]
    pub resource_name: String,
    /// Words of the model's name. Default: every model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub model: Option<String>,
    /// What one of it costs an hour.
    pub per_hour: HourlyPrice,
}

impl Pricing {
    pub fn card(&self) -> RateCard {
        let rate = |price: &ResourcePrice| Rate {
            resource_name: price.resource_name.clone(),
            model: price.model.clone(),
            per_hour: price.per_hour.0,
        };
        RateCard {
            token: self.token.clone(),
            resources: self.resources.iter().map(rate).collect(),
            cpu_per_hour: self.cpu_per_hour.0,
            memory_gib_per_hour: self.memory_gib_per_hour.0,
            basis: match self.basis {
                PricingBasis::Allocated => Basis::Allocated,
                PricingBasis::Used => Basis::Used,
            },
            minimum_seconds: self.minimum_seconds.unsigned_abs(),
        }
    }
}

/// What we say of a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = serde_json::json!({"observedGeneration": -1})))]
pub struct ProviderPoolStatus {
    /// The generation of the spec that this status is about; -1 until we have seen it.
    #[serde(default = "unseen")]
    pub observed_generation: i64,
    /// Ready: it sells. VoucherFresh: all that its payee has earned is signed for, so that it can be claimed on the chain
    /// without the operator. Stalled when a person must act.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// How many nodes it sells.
    #[serde(default)]
    pub nodes: i32,
}

fn unseen() -> i64 {
    -1
}

impl Default for ProviderPoolStatus {
    fn default() -> Self {
        Self { observed_generation: unseen(), conditions: Vec::new(), nodes: 0 }
    }
}
