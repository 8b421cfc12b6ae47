//! What Kubernetes adds to JSON Schema, as functions that the kinds' attributes call: list types and CEL rules; and limits
//! and defaults in words, since `kubectl explain` shows neither.

use crate::{common, quantity};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};
use supercargo_market::money::{AMOUNT_DECIMALS, AMOUNT_PATTERN, PRICE_DECIMALS, PRICE_PATTERN};

/// What patterns ask, in words: an API server only shows the pattern itself.
const PATTERN_WORDS: [(&str, &str); 13] = [
    (common::LABEL_PATTERN, "Lower-case letters, digits and hyphens; no hyphen at either end."),
    (common::OBJECT_PATTERN, "Lower-case letters, digits, hyphens and dots; a letter or digit at both ends and beside each dot."),
    (common::LABEL_VALUE_PATTERN, "Letters, digits, hyphens, underscores and dots; a letter or digit at both ends."),
    (common::RESOURCE_NAME_PATTERN, "A domain, a slash and a name, such as nvidia.com/gpu."),
    (common::TOKEN_PATTERN, "Up to 12 capital letters and digits, a letter first."),
    (common::KEY_PATTERN, "Letters, digits, hyphens, underscores and dots; not two dots first."),
    (common::PORT_NAME_PATTERN, "Lower-case letters, digits and single hyphens between them, with at least one letter."),
    (common::VARIABLE_PATTERN, "Letters, digits and underscores, no digit first."),
    (common::IMAGE_PATTERN, "No spaces; letters, digits and . _ - : / @ + only."),
    (common::PATH_PATTERN, "It begins with a slash."),
    (common::MOUNT_PATH_PATTERN, "It begins with a slash and has no colon."),
    (common::ACCOUNT_PATTERN, "0x and 64 hexadecimal digits."),
    (quantity::PATTERN, "A quantity, such as 4, 500m or 8Gi."),
];

/// Rules that a field keeps its value unless the object was suspended, one for each name, so that the message names
/// the field.
pub fn immutable_unless_suspended(fields: &[&str]) -> Vec<Value> {
    fields
        .iter()
        .map(|field| kept(field, "oldSelf.suspend || ", "can't be changed while the task is not suspended: set suspend to true first"))
        .collect()
}

/// Rules that a field keeps its value for ever.
pub fn immutable(fields: &[&str]) -> Vec<Value> {
    fields.iter().map(|field| kept(field, "", "can't be changed: make another object")).collect()
}

fn kept(field: &str, unless: &str, why: &str) -> Value {
    json!({
        "rule": format!("{unless}(has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field}))"),
        "message": format!("{field} {why}"),
        "fieldPath": format!(".{field}"),
        "reason": "FieldValueForbidden",
    })
}

/// A rule that the items of a list keyed by name keep their order too: to Kubernetes such lists are equal in any order.
pub fn order_immutable_unless_suspended(field: &str, why: &str) -> Value {
    let names = |of: &str| format!("{of}.{field}.map(item, item.name)");
    let both = format!("!has(self.{field}) || !has(oldSelf.{field}) || size(self.{field}) != size(oldSelf.{field})");
    json!({
        // Another item is the other rule's to say; the same ones in another order are this one's.
        "rule": format!("oldSelf.suspend || {both} || self.{field} != oldSelf.{field} || {} == {}", names("self"), names("oldSelf")),
        "message": format!("the order of {field} can't be changed while the task is not suspended, since {why}: set suspend to true first"),
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

/// Conditions: a list keyed by type, so that several owners keep theirs. The type is Kubernetes' own, and the bounds too.
pub fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One aspect of how things stand.",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": { "type": "string", "format": "date-time", "description": "When the status last changed." },
                "message": { "type": "string", "maxLength": 32_768, "description": "Details for people." },
                "observedGeneration": {
                    "type": "integer", "format": "int64",
                    "description": "The metadata.generation that it was set for: if that is higher now, it is out of date.",
                },
                "reason": { "type": "string", "minLength": 1, "maxLength": 1_024, "description": "Why, in one word for programs." },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it is so: True, False or Unknown." },
                "type": { "type": "string", "minLength": 1, "maxLength": 316, "description": "Which aspect it is." },
            },
        },
    })
}

/// A time as Kubernetes writes it.
pub fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

/// A few of them.
pub fn times(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "atomic",
        "items": { "type": "string", "format": "date-time" },
    })
}

/// Closes each field's text with its default and its limits, as the schema has them: they are written in one place, and
/// are what people read.
pub fn explain(schema: &mut Value) {
    for (_, field) in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        let facts = facts(field);
        if let Some(text) = field.get("description").and_then(Value::as_str).filter(|_| !facts.is_empty()) {
            field["description"] = json!(format!("{text} {}", facts.join(" ")));
        }
        explain(field);
        if let Some(items) = field.get_mut("items") {
            explain(items);
        }
    }
}

fn facts(field: &Value) -> Vec<String> {
    let mut facts = Vec::new();
    let number = |of: &Value, name: &str| of.get(name).and_then(Value::as_f64).map(|number| format!("{number}"));
    let default = field.get("default").filter(|value| !value.is_object() && !value.is_null());
    if let Some(value) = default {
        facts.push(format!("Default: {}.", value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
    }
    match (number(field, "minimum"), number(field, "maximum")) {
        (Some(least), Some(most)) => facts.push(format!("{least} to {most}.")),
        (Some(least), None) => facts.push(format!("At least {least}.")),
        (None, Some(most)) => facts.push(format!("At most {most}.")),
        (None, None) => {}
    }
    // Nobody counts the characters of a quantity or an amount.
    let decimals =
        [(AMOUNT_PATTERN, AMOUNT_DECIMALS), (PRICE_PATTERN, PRICE_DECIMALS)].into_iter().find(|(pattern, _)| field["pattern"] == *pattern);
    let numeric = decimals.is_some() || field.get("x-kubernetes-int-or-string").is_some();
    if let Some((_, decimals)) = decimals {
        facts.push(format!("A decimal number in quotes, with up to {decimals} decimals."));
    }
    let within = [field, &field["items"], &field["additionalProperties"]].map(|schema| schema["pattern"].as_str());
    if let Some((_, words)) = within.into_iter().flatten().find_map(|pattern| PATTERN_WORDS.iter().find(|(known, _)| *known == pattern)) {
        facts.push((*words).to_owned());
    }
    let each = number(&field["items"], "maxLength").map(|length| format!(", each of at most {length} characters"));
    let ports = number(&field["items"], "minimum").zip(number(&field["items"], "maximum"));
    let each = each.or_else(|| ports.map(|(least, most)| format!(", each {least} to {most}"))).unwrap_or_default();
    for (bound, what) in [("maxItems", "items"), ("maxProperties", "entries"), ("maxLength", "characters")] {
        if let Some(most) = number(field, bound).filter(|_| !numeric) {
            facts.push(format!("At most {most} {what}{each}."));
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ComputeTask, Escrow, ProviderNode, ProviderPool};
    use kube::CustomResourceExt;

    fn kinds() -> Vec<Value> {
        let crds = [ComputeTask::crd(), ProviderPool::crd(), ProviderNode::crd(), Escrow::crd()];
        let schema =
            |crd| serde_json::to_value(crd).expect("a CRD is plain data")["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
        crds.map(schema).to_vec()
    }

    /// Every field of a schema, with its path.
    fn each(path: &str, schema: &Value, judge: &mut impl FnMut(&str, &Value)) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            judge(&path, field);
            each(&path, field, judge);
            each(&path, &field["items"], judge);
        }
    }

    #[test]
    fn every_field_says_what_it_is() {
        let mut silent = Vec::new();
        for kind in kinds() {
            each("", &kind, &mut |path, field| {
                if field["description"].as_str().is_none_or(|text| text.len() < 8) && ![".spec", ".status"].contains(&path) {
                    silent.push(path.to_owned());
                }
            });
        }
        assert_eq!(silent, [""; 0]);
    }

    #[test]
    fn every_value_of_an_enumeration_is_told_in_its_fields_text() {
        let mut untold = Vec::new();
        for kind in kinds() {
            each("", &kind, &mut |path, field| {
                let text = field["description"].as_str().unwrap_or_default();
                let words = field["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
                // Classes of data have no meaning of their own: what each asks of a node is the operator's configuration.
                untold.extend(
                    words.filter(|word| !path.ends_with("dataClass") && !text.contains(word)).map(|word| format!("{path}: {word}")),
                );
            });
        }
        assert_eq!(untold, [""; 0]);
    }

    #[test]
    fn every_list_and_map_and_string_has_a_bound_and_every_list_a_type() {
        let mut unbounded = Vec::new();
        // These patterns say themselves how long a text may be.
        let fixed = |field: &Value| [common::TOKEN_PATTERN, common::ACCOUNT_PATTERN].iter().any(|pattern| field["pattern"] == **pattern);
        let mut judge = |path: &str, field: &Value| {
            let bound = |name: &str| field.get(name).is_some();
            let bounded = match field["type"].as_str() {
                Some("array") => bound("maxItems") && bound("x-kubernetes-list-type"),
                Some("object") => bound("properties") || bound("maxProperties"),
                Some("string") => bound("maxLength") || bound("enum") || field["format"] == "date-time" || fixed(field),
                _ => true,
            };
            if !bounded {
                unbounded.push(path.to_owned());
            }
        };
        kinds().iter().for_each(|kind| each("", kind, &mut judge));
        assert_eq!(unbounded, [""; 0]);
    }

    #[test]
    fn conditions_have_kubernetes_own_bounds() {
        for kind in kinds() {
            let fields = &kind["properties"]["status"]["properties"]["conditions"]["items"]["properties"];
            let most = ["type", "reason", "message"].map(|name| fields[name]["maxLength"].as_u64());
            assert_eq!(most, [Some(316), Some(1_024), Some(32_768)]);
            assert_eq!(fields["status"]["enum"], json!(["True", "False", "Unknown"]));
        }
    }

    #[test]
    fn what_a_pattern_asks_is_told_in_words() {
        let mut untold = Vec::new();
        for mut kind in kinds() {
            explain(&mut kind["properties"]["spec"]);
            each("", &kind["properties"]["spec"], &mut |path, field| {
                let text = field["description"].as_str().unwrap_or_default();
                for pattern in [field, &field["items"], &field["additionalProperties"]].map(|schema| schema["pattern"].as_str()) {
                    let words = pattern.map(|pattern| PATTERN_WORDS.iter().find(|(known, _)| *known == pattern).map(|(_, words)| *words));
                    let told = match words {
                        None => true,
                        Some(Some(words)) => text.contains(words),
                        Some(None) => text.contains("A decimal number in quotes"),
                    };
                    if !told {
                        untold.push(format!("{path}: {pattern:?}"));
                    }
                }
            });
        }
        assert_eq!(untold, [""; 0]);
    }

    #[test]
    fn explaining_a_schema_changes_nothing_but_texts() {
        fn silent(schema: &Value) -> Value {
            match schema {
                Value::Object(fields) => fields
                    .iter()
                    .filter(|(name, text)| *name != "description" || !text.is_string())
                    .map(|(n, v)| (n.clone(), silent(v)))
                    .collect(),
                Value::Array(values) => values.iter().map(silent).collect(),
                other => other.clone(),
            }
        }
        for kind in kinds() {
            let mut explained = kind.clone();
            explain(&mut explained);
            assert_eq!(silent(&explained), silent(&kind));
        }
    }

    #[test]
    fn nothing_that_reaches_the_host_or_the_cluster_is_a_field() {
        const NEVER: [&str; 12] = [
            "hostpath",
            "hostnetwork",
            "hostpid",
            "hostipc",
            "hostport",
            "privileged",
            "capabilities",
            "escalation",
            "serviceaccount",
            "procmount",
            "hostusers",
            "devices",
        ];
        let mut found = Vec::new();
        let task = &kinds()[0];
        each("", &task["properties"]["spec"], &mut |path, field| {
            let name = path.rsplit('.').next().unwrap_or_default().to_lowercase();
            let own = |word: &&str| name.contains(*word);
            // Only the Escrow that pays may be another namespace's, and that one has to allow it.
            let elsewhere = name == "namespace" && path != ".escrowRef.namespace";
            let open = field["x-kubernetes-preserve-unknown-fields"] == true || field["x-kubernetes-embedded-resource"] == true;
            if NEVER.iter().any(own) || elsewhere || open {
                found.push(path.to_owned());
            }
        });
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn a_fields_text_ends_with_its_default_and_limits() {
        let mut schema = json!({ "properties": {
            "retries": { "description": "How often.", "type": "integer", "default": 0, "minimum": 0, "maximum": 100 },
            "args": { "description": "Arguments.", "type": "array", "maxItems": 512, "items": { "type": "string", "maxLength": 8192 } },
            "plain": { "description": "Nothing more.", "type": "boolean" },
        }});
        explain(&mut schema);
        let text = |name: &str| schema["properties"][name]["description"].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("retries"), "How often. Default: 0. 0 to 100.");
        assert_eq!(text("args"), "Arguments. At most 512 items, each of at most 8192 characters.");
        assert_eq!(text("plain"), "Nothing more.");
    }
}
