//! Types that several kinds share, and the bits of schema that Kubernetes adds to JSON Schema.

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use supercargo_market::money::{AMOUNT_PATTERN, Amount, PRICE_PATTERN, Price};

/// An amount as manifests write it: a decimal string of the token's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Money(pub Amount);

/// A price an hour as manifests write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HourlyPrice(pub Price);

macro_rules! decimal_schema {
    ($kind:ty, $name:literal, $pattern:expr, $length:literal) => {
        impl JsonSchema for $kind {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "maxLength": $length })
            }
        }
    };
}
decimal_schema!(Money, "Money", AMOUNT_PATTERN, 19);
decimal_schema!(HourlyPrice, "HourlyPrice", PRICE_PATTERN, 19);

/// How strongly a task is kept apart from the node and from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
pub enum IsolationLevel {
    /// A container, with the security floor of every task.
    #[default]
    Container,
    /// A kernel of its own in user space, such as gVisor.
    Sandbox,
    /// A virtual machine.
    #[serde(rename = "VM")]
    Vm,
}

/// Who else may be on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Tenancy {
    /// Anybody's tasks.
    #[default]
    Shared,
    /// Tasks of the same Escrow only.
    Dedicated,
    /// Nobody: the task pays for every GPU that the node sells.
    Exclusive,
}

/// How much a task's data must be protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
pub enum DataClass {
    #[default]
    Public,
    Shared,
    Confidential,
    /// Stays on nodes of the Escrow's own provider.
    Private,
}

macro_rules! named {
    ($kind:ident: $($variant:ident = $text:literal),+) => {
        impl $kind {
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}
named!(Tenancy: Shared = "Shared", Dedicated = "Dedicated", Exclusive = "Exclusive");
named!(DataClass: Public = "Public", Shared = "Shared", Confidential = "Confidential", Private = "Private");
named!(IsolationLevel: Container = "Container", Sandbox = "Sandbox", Vm = "VM");

/// A resource's name must be a qualified one, as device plugins advertise it.
pub const RESOURCE_NAME_PATTERN: &str = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";
/// A DNS label: what most names in Kubernetes are.
pub const LABEL_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A DNS label that a Service can have too: a letter first.
pub const SERVICE_PATTERN: &str = r"^[a-z]([-a-z0-9]*[a-z0-9])?$";
/// A DNS subdomain: what the names of Secrets, claims and nodes are.
pub const OBJECT_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A label's value.
pub const LABEL_VALUE_PATTERN: &str = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
/// A token's symbol.
pub const TOKEN_PATTERN: &str = r"^[A-Z][A-Z0-9]{0,11}$";
/// A key of a Secret or a ConfigMap.
pub const KEY_PATTERN: &str = r"^\.?[-_A-Za-z0-9][-._A-Za-z0-9]*$";
/// A port's name: hyphens stand alone, and one part has a letter.
pub const PORT_NAME_PATTERN: &str = r"^([0-9]+-)*[0-9]*[a-z][a-z0-9]*(-[a-z0-9]+)*$";
/// An environment variable's name.
pub const VARIABLE_PATTERN: &str = r"^[A-Za-z_][A-Za-z0-9_]*$";
/// An image's reference, as far as a pattern should judge it.
pub const IMAGE_PATTERN: &str = r"^[A-Za-z0-9\[][-A-Za-z0-9._:/@+\[\]]*$";
/// An absolute path.
pub const PATH_PATTERN: &str = r"^/";
/// Where a volume is mounted.
pub const MOUNT_PATH_PATTERN: &str = r"^/[^:]+$";
/// An account on a chain.
pub const ACCOUNT_PATTERN: &str = r"^0x[0-9a-fA-F]{64}$";
