//! `crdgen`: writes what is generated from the kinds: the CRDs for the chart, JSON Schemas for editors and a reference
//! page. With `--check` it writes nothing and fails when a file differs.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use supercargo_crds::common::{LABEL_PATTERN, SERVICE_PATTERN};
use supercargo_crds::schema::explain;
use supercargo_crds::{ComputeTask, Escrow, ProviderNode, ProviderPool};

/// Larger ones don't go into a `kubectl apply` of client-side annotations, nor quickly through an API server.
const MOST_CRD_BYTES: usize = 200 << 10;

fn main() -> ExitCode {
    let check = std::env::args().any(|argument| argument == "--check");
    let crds: Vec<Value> = [ComputeTask::crd(), ProviderPool::crd(), ProviderNode::crd(), Escrow::crd()].iter().map(finished).collect();
    let mut files: Vec<(String, String)> = Vec::new();
    for crd in &crds {
        let plural = crd["spec"]["names"]["plural"].as_str().unwrap_or_default();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap_or_default().to_lowercase();
        let yaml = serde_yaml_ng::to_string(crd).expect("a CRD is plain data");
        files.push((
            format!("charts/supercargo/crds/{plural}.yaml"),
            format!("# Written by crdgen: change the types in crds/src instead.\n{yaml}"),
        ));
        let schema = format!("{:#}\n", editor_schema(crd));
        files.push((format!("crds/schemas/{kind}.json"), schema));
    }
    files.push(("crds/reference.md".to_owned(), reference(&crds)));
    let largest = files.iter().filter(|(path, _)| path.starts_with("charts")).map(|(_, text)| text.len()).max().unwrap_or_default();
    println!("figure kinds.crd_size_max {} KiB", largest.div_ceil(1024));
    if largest > MOST_CRD_BYTES {
        eprintln!("a CRD has {largest} bytes: at most {MOST_CRD_BYTES} are taken");
        return ExitCode::FAILURE;
    }
    let stale: Vec<&str> = files
        .iter()
        .filter(|(path, text)| std::fs::read_to_string(path).ok().as_ref() != Some(text))
        .map(|(path, _)| path.as_str())
        .collect();
    if check {
        for path in &stale {
            eprintln!("{path} differs from the types: run make generate");
        }
        return if stale.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    for (path, text) in &files {
        let folder = Path::new(path).parent().expect("every path has a folder");
        if let Err(error) = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, text)) {
            eprintln!("writing {path}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The CRD with what the derive can't say, and without what the API server would warn of.
fn finished(crd: &CustomResourceDefinition) -> Value {
    let mut crd = serde_json::to_value(crd).expect("a CRD is plain data");
    let kind = crd["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    tidy(schema);
    // Of what people write: what we say of it has limits for the API server's sake alone.
    explain(&mut schema["properties"]["spec"]);
    schema["properties"]["status"]["default"] = json!({ "observedGeneration": -1 });
    // Only restrictions of the name are allowed of a schema here, and the rules' paths need it to be known.
    schema["properties"]["metadata"] = json!({ "type": "object", "properties": { "name": { "type": "string", "maxLength": 253 } } });
    schema["x-kubernetes-validations"] = json!(rules(&kind));
    crd
}

/// What a kind asks of its objects' names.
fn rules(kind: &str) -> Vec<Value> {
    let size =
        |most: u32, why: &str| rule(&format!("size(self.metadata.name) <= {most}"), &format!("must have at most {most} characters: {why}"));
    let label = |pattern: &str, message: &str| rule(&format!("self.metadata.name.matches('{pattern}')"), message);
    match kind {
        "ComputeTask" => vec![
            size(52, "its pods' names need the rest of 63"),
            // A Service's name may not begin with a digit, and workers find each other by a Service of this name.
            label(
                SERVICE_PATTERN,
                "must be lower-case letters, digits and hyphens, a letter first and no hyphen last, such as finetune-8b",
            ),
        ],
        "ProviderNode" => vec![json!({
            "rule": "self.spec.cluster != 'local' || self.spec.nodeName == self.metadata.name",
            "message": "must be the object's own name in cluster local: give both the node's name",
            "fieldPath": ".spec.nodeName",
        })],
        _ => vec![
            size(63, "it is a label's value too"),
            label(LABEL_PATTERN, "must be lower-case letters, digits and hyphens, no hyphen at either end, such as acme-north"),
        ],
    }
}

/// A rule on the object's name.
fn rule(rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message, "fieldPath": ".metadata.name" })
}

/// Drops nullability (a null means absent), titles, and formats that the API server doesn't know; and the lines of texts
/// where the sources break them, since `kubectl explain` breaks them anew.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.remove("nullable");
            object.remove("title");
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
            }
            let unknown =
                matches!(object.get("format").and_then(Value::as_str), Some(format) if !["int32", "int64", "date-time"].contains(&format));
            if unknown {
                object.remove("format");
            }
            object.values_mut().for_each(tidy);
        }
        Value::Array(values) => values.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// The schema as editors take it: JSON Schema and nothing else, with the fields that every object has.
fn editor_schema(crd: &Value) -> Value {
    let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    plain(&mut schema);
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    let group = crd["spec"]["group"].as_str().unwrap_or_default();
    schema["properties"]["apiVersion"] = json!({ "const": format!("{group}/v1alpha1") });
    schema["properties"]["kind"] = json!({ "const": crd["spec"]["names"]["kind"] });
    schema["properties"]["metadata"] = json!({ "type": "object" });
    schema["required"] = json!(["apiVersion", "kind", "metadata", "spec"]);
    schema
}

/// Without what only Kubernetes knows, and closed: a field that there isn't is a slip of the pen.
fn plain(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.remove("x-kubernetes-int-or-string").is_some() {
                object.remove("anyOf");
                object.insert("type".into(), json!(["integer", "string"]));
            }
            // A field of ours may have such a name; what it has is a schema, never a bare value.
            object.retain(|name, value| value.is_object() || !(name.starts_with("x-kubernetes-") || name == "format"));
            if object.get("properties").is_some_and(Value::is_object) && object.get("type").is_some_and(Value::is_string) {
                object.insert("additionalProperties".into(), json!(false));
            }
            object.iter_mut().filter(|(name, _)| !["default", "enum"].contains(&name.as_str())).for_each(|(_, value)| plain(value));
        }
        Value::Array(values) => values.iter_mut().for_each(plain),
        _ => {}
    }
}

fn reference(crds: &[Value]) -> String {
    let mut page =
        "# The kinds, field by field\n\nWritten by crdgen from the types in `crds/src`; `kubectl explain` shows the same.\n".to_owned();
    for crd in crds {
        let names = &crd["spec"]["names"];
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let short = names["shortNames"][0].as_str().unwrap_or_default();
        let _ = write!(
            page,
            "\n## {} (`{short}`)\n\n{}\n\n| field | type | default | what it is |\n|---|---|---|---|\n",
            names["kind"].as_str().unwrap_or_default(),
            text(schema)
        );
        for part in ["spec", "status"] {
            rows(&mut page, part, &schema["properties"][part]);
        }
    }
    page
}

fn text(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

fn rows(page: &mut String, path: &str, schema: &Value) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, field) in properties {
        let path = format!("{path}.{name}");
        let (kind, inner) = match field["type"].as_str() {
            Some("array") => (format!("{}[]", field["items"]["type"].as_str().unwrap_or("object")), &field["items"]),
            Some(kind) => (kind.to_owned(), field),
            None => ("quantity".to_owned(), field),
        };
        let kind = field["enum"].as_array().map_or(kind, |values| values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
        let default = field.get("default").map(|value| format!("`{value}`")).unwrap_or_default();
        let default = if field["type"] == "object" { String::new() } else { default };
        let _ = writeln!(page, "| `{path}` | {kind} | {default} | {} |", text(field));
        rows(page, &path, inner);
    }
}
