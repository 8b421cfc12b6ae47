//! What of a ComputeTask its container sees: environment, volumes, user and network. Nothing here reaches the host.

use crate::common::LABEL_PATTERN;
use crate::quantity::Quantity;
use crate::schema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
