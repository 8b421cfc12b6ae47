//! The kinds on a real API server: the examples apply as they stand, and what is wrong is refused in words.

use serde_json::{Value, json};
use std::time::Duration;
use supercargo_e2e::journey::Stage;
use supercargo_e2e::{kubectl, wait};

/// Every line: what is tried under which name, and the whole of what the API server says.
const CASES: &str = include_str!("kinds.tsv");
/// Every line: what stands, what is changed of it, and the whole of what is said, or that it is accepted.
const CHANGES: &str = include_str!("kinds-changes.tsv");
const KINDS: [&str; 4] = ["computetask", "providerpool", "providernode", "escrow"];

fn lines(table: &str) -> impl Iterator<Item = Vec<&str>> {
    table.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| line.split('\t').collect())
}

/// A list or a text that is too long to be written down: `{"repeat": 3, "item": "a#"}` is `["a0", "a1", "a2"]`, and
/// `{"repeat": 3, "letter": "x"}` is `"xxx"`.
fn expanded(value: Value) -> Value {
    let count = value["repeat"].as_u64().and_then(|count| usize::try_from(count).ok());
    if let Some(count) = count {
        let item = |index: usize| -> Value {
            serde_json::from_str(&value["item"].to_string().replace('#', &index.to_string())).expect("an item is JSON")
        };
        return value["letter"].as_str().map_or_else(|| (0..count).map(item).collect(), |letter| letter.repeat(count).into());
    }
    match value {
        Value::Object(fields) => fields.into_iter().map(|(name, field)| (name, expanded(field))).collect(),
        Value::Array(items) => items.into_iter().map(expanded).collect(),
        other => other,
    }
}

/// An object of this kind; where its own name belongs into its spec, `NAME` stands.
fn manifest(kind: &str, namespace: &str, name: &str, spec: &str) -> Value {
    let spec =
        expanded(serde_json::from_str(&spec.replace("NAME", name)).unwrap_or_else(|error| unreachable!("the table has {spec}: {error}")));
    let mut object = json!({ "apiVersion": "supercargo.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec });
    if is_namespaced(kind) {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}

fn is_namespaced(kind: &str) -> bool {
    matches!(kind, "ComputeTask" | "Escrow")
}

/// What was said of the object, without kubectl's words around it; of several findings each, in their order.
fn complaint(said: &str) -> String {
    const BEFORE: [&str; 3] = ["denied the request: ", "strict decoding error: ", " is invalid: "];
    let rest = BEFORE.iter().find_map(|before| said.split_once(before)).map_or(said, |(_, rest)| rest);
    let findings = rest.lines().map(|line| line.trim().trim_start_matches("* ")).filter(|line| !line.is_empty());
    findings.collect::<Vec<_>>().join(" | ")
}

/// A namespace of this test's own, which goes whatever comes of it.
struct Room {
    stage: Stage,
    namespace: String,
}

impl Room {
    async fn new(name: &str) -> Self {
        let stage = Stage::ready().await.expect("the cluster comes up");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let namespace = format!("{name}-{:x}", now % 0x1000_0000);
        kubectl::run(&stage.layout, &["create", "namespace", &namespace]).await.expect("a namespace is made");
        // Who is refused by the gate must be refused from the first row on.
        let wrong = r#"{"budget": "1", "image": "i", "resources": {"cpu": "-1"}}"#;
        let probe = manifest("ComputeTask", &namespace, "probe", wrong).to_string();
        wait::until("the gate to answer", Duration::from_secs(60), || async {
            Ok(kubectl::with_input(&stage.layout, &["create", "--dry-run=server", "-f", "-"], &probe).await.err())
        })
        .await
        .expect("the gate answers");
        Self { stage, namespace }
    }

    async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        kubectl::run(&self.stage.layout, args).await
    }

    async fn given(&self, args: &[&str], object: &str) -> anyhow::Result<String> {
        kubectl::with_input(&self.stage.layout, args, object).await
    }

    async fn left(self) {
        self.run(&["delete", "namespace", &self.namespace, "--wait=false"]).await.expect("the namespace is deleted");
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_words_that_say_what_would_be_right() {
    let room = Room::new("kinds").await;
    let (mut wrong, mut cases) = (Vec::new(), 0);
    for line in lines(CASES) {
        let [kind, name, spec, expected] = line[..] else { panic!("four columns: {line:?}") };
        let object = manifest(kind, &room.namespace, name, spec).to_string();
        cases += 1;
        match room.given(&["create", "--dry-run=server", "-f", "-"], &object).await {
            Ok(_) => wrong.push(format!("{kind} {name} {spec}: was accepted")),
            Err(error) => match complaint(&format!("{error:#}")) {
                found if found == expected => {}
                found => wrong.push(format!("{kind} {name} {spec}:\n  expected {expected}\n  found    {found}")),
            },
        }
    }
    room.left().await;
    println!("figure kinds.bad_manifests {cases} cases");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_stands_changes_only_as_it_may() {
    let room = Room::new("changes").await;
    let mut wrong = Vec::new();
    for (index, line) in lines(CHANGES).enumerate() {
        let [kind, spec, change, expected] = line[..] else { panic!("four columns: {line:?}") };
        let name = format!("{}-{index}", room.namespace);
        let object = manifest(kind, &room.namespace, &name, spec).to_string();
        kubectl::apply(&room.stage.layout, &object).await.unwrap_or_else(|error| panic!("{kind} {spec}: {error:#}"));
        let patch = format!("{{\"spec\": {change}}}");
        let namespace: &[&str] = if is_namespaced(kind) { &["--namespace", &room.namespace] } else { &[] };
        let patched = [namespace, &["patch", kind, &name, "--type=merge", "--dry-run=server", "--patch", &patch]].concat();
        let found = match room.run(&patched).await {
            Ok(_) => "accepted".to_owned(),
            Err(error) => complaint(&format!("{error:#}")),
        };
        if found != expected {
            wrong.push(format!("{kind} {spec} {change}:\n  expected {expected}\n  found    {found}"));
        }
        let deleted = [namespace, &["delete", kind, &name, "--wait=false"]].concat();
        room.run(&deleted).await.expect("is deleted");
    }
    room.left().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn an_unknown_field_is_named_even_by_clients_that_are_only_warned() {
    let room = Room::new("unknown").await;
    let object = manifest("ComputeTask", &room.namespace, "case", r#"{"budget": "1", "image": "i", "imagee": "x"}"#).to_string();
    // What client-go asks for when nobody says anything else.
    let warned = ["create", "--dry-run=server", "--validate=warn", "--warnings-as-errors", "-f", "-"];
    let warned = room.given(&warned, &object).await.expect_err("a warning is an error here");
    let applied = kubectl::apply(&room.stage.layout, &object).await.expect_err("server-side apply refuses it");
    room.left().await;
    assert!(format!("{warned:#}").contains("Warning: unknown field \"spec.imagee\""), "{warned:#}");
    assert!(format!("{applied:#}").contains(".spec.imagee: field not declared in schema"), "{applied:#}");
}

/// The examples of one scope, those of a namespace in this test's own.
fn examples(room: &Room, namespaced: bool) -> Vec<(String, Value)> {
    let folder = room.stage.layout.root.join("crds/examples");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the examples") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let mut object = <Value as serde::Deserialize>::deserialize(document).expect("YAML");
            let kind = object["kind"].as_str().expect("a kind").to_owned();
            if kind == "Namespace" || is_namespaced(&kind) != namespaced {
                continue;
            }
            if namespaced {
                object["metadata"]["namespace"] = room.namespace.clone().into();
            }
            found.push((path.display().to_string(), object));
        }
    }
    found
}

#[tokio::test]
async fn crds_and_examples_apply_without_a_warning_and_the_second_time_nothing_changes() {
    let room = Room::new("examples").await;
    let crds = room.stage.layout.root.join("charts/supercargo/crds").display().to_string();
    room.run(&["apply", "--server-side", "--warnings-as-errors", "-f", &crds]).await.expect("CRDs apply without a warning");
    let drift = room.run(&["diff", "--server-side", "-f", &crds]).await.expect("nothing differs");
    assert_eq!(drift, "");

    // Pools and nodes for a try only: the operator would take them for real.
    let cluster_scoped = examples(&room, false);
    for (file, object) in &cluster_scoped {
        let tried = ["apply", "--server-side", "--dry-run=server", "--warnings-as-errors", "-f", "-"];
        room.given(&tried, &object.to_string()).await.unwrap_or_else(|error| panic!("{file}: {error:#}"));
    }
    let namespaced = examples(&room, true);
    for (file, object) in &namespaced {
        let object = object.to_string();
        room.given(&["apply", "--warnings-as-errors", "-f", "-"], &object).await.unwrap_or_else(|error| panic!("{file}: {error:#}"));
        room.given(&["apply", "-f", "-"], &object).await.unwrap_or_else(|error| panic!("{file}: {error:#}"));
        let generation = ["get", "-o", "jsonpath={.items[0].metadata.generation}", "-f", "-"];
        let generation = room.given(&generation, &object).await.unwrap_or_else(|error| panic!("{file}: {error:#}"));
        assert_eq!(generation, "1", "{file}: the second time changed what the first had made");
        let drift = room.given(&["diff", "-f", "-"], &object).await.unwrap_or_else(|error| panic!("{file} differs: {error:#}"));
        assert_eq!(drift, "", "{file}");
    }
    room.left().await;
    assert_eq!((cluster_scoped.len(), namespaced.len()), (2, 7));
}

#[tokio::test]
async fn a_new_objects_status_says_that_nobody_has_seen_it() {
    let room = Room::new("unseen").await;
    let mut found = Vec::new();
    for (_, mut object) in examples(&room, true).into_iter().chain(examples(&room, false)) {
        // Another test may have made what the example makes. A ProviderNode has its node's name.
        object["metadata"]["name"] = room.namespace.clone().into();
        if object["kind"] == "ProviderNode" {
            object["spec"]["nodeName"] = room.namespace.clone().into();
        }
        let made = room.given(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &object.to_string()).await.expect("is taken");
        let made: Value = serde_json::from_str(&made).expect("JSON");
        found.push(made["status"]["observedGeneration"].clone());
    }
    room.left().await;
    assert_eq!(found, vec![json!(-1); 9]);
}

/// The paths of fields without a text, and how many fields there are.
fn silent(path: &str, schema: &Value, found: &mut Vec<String>) -> usize {
    let mut count = 0;
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        count += 1;
        if field["description"].as_str().is_none_or(str::is_empty) {
            found.push(path.clone());
        }
        count += silent(&path, field, found) + silent(&path, &field["items"], found);
    }
    count
}

#[tokio::test]
async fn explaining_a_kind_goes_to_the_end_of_every_path_and_each_has_a_text() {
    let stage = Stage::ready().await.expect("the cluster comes up");
    let published = kubectl::run(&stage.layout, &["get", "--raw", "/openapi/v3/apis/supercargo.dev/v1alpha1"]).await.expect("is served");
    let published: Value = serde_json::from_str(&published).expect("JSON");
    let schemas = published["components"]["schemas"].as_object().expect("schemas");
    for kind in KINDS {
        let ours = |schema: &&Value| {
            let known = &schema["x-kubernetes-group-version-kind"][0];
            known["group"] == "supercargo.dev" && known["kind"].as_str().is_some_and(|name| name.to_lowercase() == kind)
        };
        let schema = schemas.values().find(ours).unwrap_or_else(|| panic!("{kind} is published"));
        let mut found = Vec::new();
        let count: usize = ["spec", "status"].iter().map(|part| silent(part, &schema["properties"][part], &mut found)).sum();
        assert_eq!(found, [""; 0], "{kind}");
        let listed = kubectl::run(&stage.layout, &["explain", kind, "--recursive"]).await.expect("is explained");
        let fields = listed.lines().filter(|line| line.contains('\t')).count();
        assert!(fields >= count, "{kind}: {fields} of {count} fields are listed:\n{listed}");
    }
    let deep = kubectl::run(&stage.layout, &["explain", "ct.spec.placement.providers.deny"]).await.expect("is explained");
    assert!(deep.contains("None of these."), "{deep}");
}
