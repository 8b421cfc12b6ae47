//! What of a ComputeTask its container sees: environment, volumes, user and network. Nothing here reaches the host.

use crate::common::{KEY_PATTERN, LABEL_PATTERN, MOUNT_PATH_PATTERN, OBJECT_PATTERN, PORT_NAME_PATTERN, VARIABLE_PATTERN};
use crate::quantity::Quantity;
use crate::schema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An object of this namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectName {
    /// The object's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_PATTERN))]
    pub name: String,
}

/// An environment variable: a value, or a key of a Secret or ConfigMap of this namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule("!(has(self.value) && has(self.valueFrom))", "an environment variable has a value or a valueFrom, not both: leave one out")]))]
pub struct EnvVar {
    /// The variable's name.
    #[schemars(length(min = 1, max = 256), regex(pattern = VARIABLE_PATTERN))]
    pub name: String,
    /// Its value. `$(NAME)` stands for an earlier variable's, and `$$` for a dollar sign. Default: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32_768))]
    pub value: Option<String>,
    /// Where its value comes from instead: exactly one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvSource>,
}

/// Where a variable's value comes from: exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule("has(self.secretKeyRef) != has(self.configMapKeyRef)", "exactly one of secretKeyRef and configMapKeyRef must be given")]))]
pub struct EnvSource {
    /// A key of a Secret of this namespace. Until it is there the task does not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
    /// A key of a ConfigMap of this namespace. Until it is there the task does not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
}

/// A key of an object of this namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_PATTERN))]
    pub name: String,
    /// The key within it.
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY_PATTERN))]
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
    /// The volume's name within this task. `shm` and `supercargo` are ours.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub name: String,
    /// An absolute path in the container. It overlaps no other volume's, and lies in none of /dev, /proc, /sys,
    /// /etc/supercargo, /run/secrets and /var/run/secrets.
    #[schemars(length(min = 2, max = 1024), regex(pattern = MOUNT_PATH_PATTERN))]
    pub mount_path: String,
    /// Mounts the volume for reading only. Secrets and ConfigMaps always are.
    #[serde(default)]
    pub read_only: bool,
    /// Disk of the node that is gone when the attempt ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Scratch>,
    /// A PersistentVolumeClaim of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSource>,
    /// A Secret of this namespace, a file for each key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectName>,
    /// A ConfigMap of this namespace, a file for each key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ObjectName>,
}

/// Disk of the node that is gone when the attempt ends. It counts inside `resources.ephemeralStorage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scratch {
    /// Bytes, such as 100Gi. The attempt is ended when it writes more.
    pub size: Quantity,
}

/// A PersistentVolumeClaim of this namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSource {
    /// The claim's name. It may be made later: the task waits for it until its start timeout.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_PATTERN))]
    pub claim_name: String,
}

/// Whom the container runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    /// The user's number. Default: the image's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub run_as_user: Option<i64>,
    /// The group's number. Default: the image's group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub run_as_group: Option<i64>,
    /// The number of the group that volumes are handed to. Default: they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub fs_group: Option<i64>,
}

/// What the task may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
pub struct Network {
    /// None: its own gang and what `rules` say. Internet: every public address as well; not the cluster, not its nodes,
    /// not the cloud's metadata. It is written as NetworkPolicies, and holds where the cluster's network plugin enforces
    /// those.
    #[serde(default)]
    pub egress: Egress,
    /// Address ranges that may be reached as well. None of them lies within the node's own addresses, link-local ones or the
    /// cloud's metadata; what of these a wider range holds is cut out of it.
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

/// An address range that the task may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkRule {
    /// An address range such as 203.0.113.0/24: its first address, and how many bits of it count.
    #[schemars(length(min = 3, max = 49))]
    pub cidr: String,
    /// Ports within it. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 1, max = 65_535)), extend("x-kubernetes-list-type" = "set"))]
    pub ports: Vec<i32>,
}

/// A port of the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkPort {
    /// The port's name within this task.
    #[schemars(length(min = 1, max = 15), regex(pattern = PORT_NAME_PATTERN))]
    pub name: String,
    /// The port that the container listens on.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
}
