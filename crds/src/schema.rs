//! What Kubernetes adds to JSON Schema, as functions that the kinds' attributes call: list types and CEL rules.

use schemars::{Schema, SchemaGenerator};
use serde_json::{Value, json};

/// Rules that a field keeps its value unless the object was suspended, one for each name, so that the message names
/// the field.
pub fn immutable_unless_suspended(fields: &[&str]) -> Vec<Value> {
    fields.iter().map(|field| kept(field, "oldSelf.suspend || ", "can't be changed while the task is not suspended")).collect()
}

/// Rules that a field keeps its value for ever.
pub fn immutable(fields: &[&str]) -> Vec<Value> {
    fields.iter().map(|field| kept(field, "", "can't be changed")).collect()
}

fn kept(field: &str, unless: &str, why: &str) -> Value {
    json!({
        "rule": format!("{unless}(has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field}))"),
        "message": format!("{field} {why}"),
        "fieldPath": format!(".{field}"),
        "reason": "FieldValueForbidden",
    })
}

/// One rule on the whole of a type.
pub fn rule(rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message })
}

/// A rule whose finding belongs to one field.
pub fn rule_at(field: &str, rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message, "fieldPath": format!(".{field}") })
}

/// Conditions: a list keyed by type, so that several owners keep theirs.
pub fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<Vec<crate::common::Condition>>();
    schema.insert("x-kubernetes-list-type".into(), json!("map"));
    schema.insert("x-kubernetes-list-map-keys".into(), json!(["type"]));
    schema.insert("maxItems".into(), json!(16));
    schema
}
