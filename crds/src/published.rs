//! What `crdgen` has written, held to what API servers and editors read: `make check` holds the files to the types.

use serde_json::Value;
use std::path::{Path, PathBuf};

fn files(folder: &str) -> Vec<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("readable");
        // JSON is YAML too; of a file with several documents the first.
        let first = serde_yaml_ng::Deserializer::from_str(&text).next().expect("a document");
        (path, <Value as serde::Deserialize>::deserialize(first).expect("YAML"))
    };
    paths.map(read).collect()
}

fn crds() -> Vec<(PathBuf, Value)> {
    files("../charts/supercargo/crds")
}

fn no_null(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Null => found.push(path.to_owned()),
        Value::Object(fields) => fields.iter().for_each(|(name, field)| no_null(&format!("{path}.{name}"), field, found)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, item)| no_null(&format!("{path}[{index}]"), item, found)),
        _ => {}
    }
}

/// What JSON Schema's draft 7 says of the keywords that we use; another keyword is a finding.
fn judge(path: &str, schema: &Value, found: &mut Vec<String>) {
    let Some(fields) = schema.as_object() else { return found.push(format!("{path} is no schema: {schema}")) };
    for (keyword, value) in fields {
        let is_type =
            |name: &Value| ["object", "array", "string", "integer", "number", "boolean"].iter().any(|known| name.as_str() == Some(*known));
        let good = match keyword.as_str() {
            "type" => is_type(value) || value.as_array().is_some_and(|names| !names.is_empty() && names.iter().all(is_type)),
            "$schema" | "description" | "pattern" => value.is_string(),
            "required" => value
                .as_array()
                .is_some_and(|names| names.iter().all(|name| !fields["properties"][name.as_str().unwrap_or_default()].is_null())),
            "enum" => value.as_array().is_some_and(|values| !values.is_empty()),
            "const" | "default" => true,
            "minimum" | "maximum" => value.is_number(),
            "minLength" | "maxLength" | "minItems" | "maxItems" | "maxProperties" => value.is_u64(),
            "additionalProperties" if value.is_boolean() => true,
            "additionalProperties" | "items" => {
                judge(&format!("{path}[]"), value, found);
                true
            }
            "properties" => value.as_object().is_some_and(|properties| {
                properties.iter().for_each(|(name, property)| judge(&format!("{path}.{name}"), property, found));
                true
            }),
            _ => false,
        };
        if !good {
            found.push(format!("{path}: {keyword}: {value}"));
        }
    }
    let open = fields.contains_key("properties") && fields.get("additionalProperties") != Some(&Value::Bool(false));
    if open {
        found.push(format!("{path} takes fields that there are not"));
    }
}

#[test]
fn what_editors_read_is_json_schema_and_closed() {
    let schemas = files("schemas");
    assert_eq!(schemas.len(), 4);
    let mut found = Vec::new();
    for (path, schema) in &schemas {
        let name = path.file_stem().expect("a name").display().to_string();
        no_null(&name, schema, &mut found);
        judge(&name, schema, &mut found);
    }
    assert_eq!(found, [""; 0]);
    let quantity = &schemas.iter().find(|(path, _)| path.ends_with("computetask.json")).expect("a task's").1;
    let cpu = &quantity["properties"]["spec"]["properties"]["resources"]["properties"]["cpu"];
    assert_eq!(cpu["type"], serde_json::json!(["integer", "string"]));
}

#[test]
fn nothing_in_a_crd_is_null() {
    let mut found = Vec::new();
    let crds = crds();
    assert_eq!(crds.len(), 4);
    crds.iter().for_each(|(path, crd)| no_null(&path.display().to_string(), crd, &mut found));
    assert_eq!(found, [""; 0]);
}

/// As far as an editor looks: types, fields and words.
fn fits(path: &str, schema: &Value, value: &Value, found: &mut Vec<String>) {
    let is = |kind: &Value| match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64(),
        Some("boolean") => value.is_boolean(),
        _ => schema["const"] == *value,
    };
    let kinds = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
    if !kinds.iter().any(is) {
        found.push(format!("{path} is no {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        found.push(format!("{path} is none of {}", schema["enum"]));
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        match &schema["properties"][name] {
            Value::Null if schema["additionalProperties"] == false => found.push(format!("{path}.{name} is no field")),
            Value::Null => {}
            known => fits(&format!("{path}.{name}"), known, field, found),
        }
    }
    value.as_array().into_iter().flatten().for_each(|item| fits(&format!("{path}[]"), &schema["items"], item, found));
}

#[test]
fn an_editor_finds_nothing_wrong_with_the_examples_and_names_a_field_that_there_is_not() {
    let schemas = files("schemas");
    let mut seen = 0;
    for (path, mut example) in files("examples").into_iter().filter(|(path, _)| !path.ends_with("namespaces.yaml")) {
        let schema = schemas.iter().map(|(_, schema)| schema).find(|schema| schema["properties"]["kind"]["const"] == example["kind"]);
        let (schema, mut found) = (schema.expect("a kind of ours"), Vec::new());
        fits("", schema, &example, &mut found);
        assert_eq!(found, [""; 0], "{}", path.display());
        example["spec"]["imagee"] = "x".into();
        fits("", schema, &example, &mut found);
        assert_eq!(found, [".spec.imagee is no field"]);
        seen += 1;
    }
    assert_eq!(seen, 9);
}
