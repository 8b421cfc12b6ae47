//! Objects as API servers have stored them, in `recorded/`: today's types must read each, and say the same when they write
//! it. A file that stands is never changed; a field that comes later is recorded in a file of its own.

use crate::{ComputeTask, Escrow, ProviderNode, ProviderPool};
use kube::CustomResourceExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;

/// Every recorded object, by its file's name.
fn recorded() -> Vec<(String, Value)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded/v1alpha1");
    let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let mut all: Vec<_> = files
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("readable");
            (path.file_name().expect("a file").display().to_string(), serde_yaml_ng::from_str(&text).expect("YAML"))
        })
        .collect();
    all.sort_by(|one: &(String, Value), other| one.0.cmp(&other.0));
    all
}

fn of(kind: &str) -> Vec<Value> {
    recorded().into_iter().map(|(_, object)| object).filter(|object| object["kind"] == kind).collect()
}

fn read_and_written<K: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let read: K = serde_json::from_value(object.clone()).expect("is read");
    serde_json::to_value(read).expect("is written")
}

#[test]
fn what_was_stored_is_read_and_says_the_same_when_it_is_written() {
    let all = recorded();
    assert!(all.len() >= 9, "{} objects", all.len());
    for (file, object) in all {
        let written = match object["kind"].as_str() {
            Some("ComputeTask") => read_and_written::<ComputeTask>(&object),
            Some("ProviderPool") => read_and_written::<ProviderPool>(&object),
            Some("ProviderNode") => read_and_written::<ProviderNode>(&object),
            Some("Escrow") => read_and_written::<Escrow>(&object),
            other => panic!("{file} is of kind {other:?}"),
        };
        assert_eq!(written, object, "{file}");
    }
}

#[test]
fn each_field_that_there_is_was_recorded() {
    for crd in [ComputeTask::crd(), ProviderPool::crd(), ProviderNode::crd(), Escrow::crd()] {
        let kind = crd.spec.names.kind.clone();
        let crd = serde_json::to_value(crd).expect("a CRD is plain data");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let (mut asked, mut found) = (BTreeSet::new(), BTreeSet::new());
        for part in ["spec", "status"] {
            fields(part, &schema["properties"][part], &mut asked);
            of(&kind).iter().for_each(|object| values(part, &schema["properties"][part], &object[part], &mut found));
        }
        let missing: Vec<_> = asked.difference(&found).collect();
        assert!(missing.is_empty(), "{kind}: record an object with {missing:?}");
    }
}

/// The paths of all fields of a schema; the items of a list are `[]`.
fn fields(path: &str, schema: &Value, paths: &mut BTreeSet<String>) {
    paths.insert(path.to_owned());
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        fields(&format!("{path}.{name}"), field, paths);
    }
    if schema["items"]["properties"].is_object() {
        fields(&format!("{path}[]"), &schema["items"], paths);
    }
}

/// Those of them that a value has.
fn values(path: &str, schema: &Value, value: &Value, paths: &mut BTreeSet<String>) {
    if value.is_null() {
        return;
    }
    paths.insert(path.to_owned());
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        values(&format!("{path}.{name}"), field, &value[name], paths);
    }
    for item in value.as_array().into_iter().flatten().filter(|_| schema["items"]["properties"].is_object()) {
        values(&format!("{path}[]"), &schema["items"], item, paths);
    }
}

#[test]
fn a_quantity_and_an_amount_are_kept_as_they_were_meant() {
    let mut object = of("ComputeTask").remove(0);
    for (cpu, memory) in [(serde_json::json!(4), "1000Mi"), (serde_json::json!("4000m"), "1e9")] {
        object["spec"]["resources"]["cpu"] = cpu.clone();
        object["spec"]["resources"]["memory"] = memory.into();
        let written = read_and_written::<ComputeTask>(&object);
        assert_eq!(written["spec"]["resources"]["cpu"], cpu);
        assert_eq!(written["spec"]["resources"]["memory"], memory);
    }
    // An amount is a number of the token's smallest unit: it may be spelled anew, and is never another one.
    for (budget, spelled) in [("48", "48.00"), ("48.1", "48.10"), ("0.000001", "0.000001"), ("999999999999.999999", "999999999999.999999")]
    {
        object["spec"]["budget"] = budget.into();
        assert_eq!(read_and_written::<ComputeTask>(&object)["spec"]["budget"], spelled);
    }
}
