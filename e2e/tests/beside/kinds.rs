//! The kinds on a real API server: the examples apply as they stand, and what is wrong is refused in words.

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use std::time::Duration;
use supercargo_e2e::journey::{Journey, journey};
use supercargo_e2e::{kubectl, wait};

/// Every line: what is tried under which name, and the whole of what the API server says.
const CASES: &str = include_str!("kinds.tsv");
/// Every line: what stands, what is changed of it, and the whole of what is said, or that it is accepted.
const CHANGES: &str = include_str!("kinds-changes.tsv");
/// So many of them are tried at once: kubectl takes longer to start than to be answered.
const AT_ONCE: usize = 3;
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

/// kubectl with something to read.
async fn given(journey: &Journey, args: &[&str], object: &str) -> Result<String> {
    kubectl::with_input(&journey.stage.layout, args, object).await
}

/// Who is refused by the gate must be refused from the first row on.
async fn gate_answers(journey: &Journey) -> Result<()> {
    let wrong = r#"{"budget": "1", "image": "i", "resources": {"cpu": "-1"}}"#;
    let probe = manifest("ComputeTask", &journey.namespace, "probe", wrong).to_string();
    wait::until("the gate to answer", Duration::from_secs(60), || async {
        Ok(given(journey, &["create", "--dry-run=server", "-f", "-"], &probe).await.err().map(drop))
    })
    .await
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_words_that_say_what_would_be_right() {
    journey("kinds", |journey| async move {
        gate_answers(&journey).await?;
        let tried = async |line: Vec<&str>| {
            let [kind, name, spec, expected] = line[..] else { panic!("four columns: {line:?}") };
            let object = manifest(kind, &journey.namespace, name, spec).to_string();
            match given(&journey, &["create", "--dry-run=server", "-f", "-"], &object).await {
                Ok(_) => Some(format!("{kind} {name} {spec}: was accepted")),
                Err(error) => {
                    let found = complaint(&format!("{error:#}"));
                    (found != expected).then(|| format!("{kind} {name} {spec}:\n  expected {expected}\n  found    {found}"))
                }
            }
        };
        let all: Vec<Option<String>> = stream::iter(lines(CASES)).map(tried).buffered(AT_ONCE).collect().await;
        let (cases, wrong) = (all.len(), all.into_iter().flatten().collect::<Vec<_>>());
        println!("figure kinds.bad_manifests {cases} cases");
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_stands_changes_only_as_it_may() {
    journey("changes", |journey| async move {
        gate_answers(&journey).await?;
        let changed = async |(index, line): (usize, Vec<&str>)| -> Result<Option<String>> {
            let [kind, spec, change, expected] = line[..] else { panic!("four columns: {line:?}") };
            let name = format!("{}-{index}", journey.namespace);
            journey.apply(manifest(kind, &journey.namespace, &name, spec)).await.with_context(|| format!("{kind} {spec}"))?;
            let patch = format!("{{\"spec\": {change}}}");
            let found = match journey.kubectl(&["patch", kind, &name, "--type=merge", "--dry-run=server", "--patch", &patch]).await {
                Ok(_) => "accepted".to_owned(),
                Err(error) => complaint(&format!("{error:#}")),
            };
            journey.kubectl(&["delete", kind, &name, "--wait=false"]).await?;
            Ok((found != expected).then(|| format!("{kind} {spec} {change}:\n  expected {expected}\n  found    {found}")))
        };
        let all: Vec<Option<String>> = stream::iter(lines(CHANGES).enumerate()).map(changed).buffered(AT_ONCE).try_collect().await?;
        let wrong: Vec<String> = all.into_iter().flatten().collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_unknown_field_is_named_even_by_clients_that_are_only_warned() {
    journey("unknown", |journey| async move {
        gate_answers(&journey).await?;
        let object = manifest("ComputeTask", &journey.namespace, "case", r#"{"budget": "1", "image": "i", "imagee": "x"}"#);
        // What client-go asks for when nobody says anything else.
        let warned = ["create", "--dry-run=server", "--validate=warn", "--warnings-as-errors", "-f", "-"];
        let warned = given(&journey, &warned, &object.to_string()).await.err().context("a warning is an error here")?;
        let applied = journey.apply(object).await.err().context("server-side apply refuses it")?;
        ensure!(format!("{warned:#}").contains("Warning: unknown field \"spec.imagee\""), "{warned:#}");
        ensure!(format!("{applied:#}").contains(".spec.imagee: field not declared in schema"), "{applied:#}");
        Ok(())
    })
    .await;
}

/// The examples of one scope, those of a namespace in this test's own.
fn examples(journey: &Journey, namespaced: bool) -> Result<Vec<(String, Value)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(journey.stage.layout.root.join("crds/examples"))? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let mut object = <Value as serde::Deserialize>::deserialize(document)?;
            let kind = object["kind"].as_str().context("a kind")?.to_owned();
            if kind == "Namespace" || is_namespaced(&kind) != namespaced {
                continue;
            }
            if namespaced {
                object["metadata"]["namespace"] = journey.namespace.clone().into();
            }
            found.push((path.display().to_string(), object));
        }
    }
    Ok(found)
}

#[tokio::test]
async fn crds_and_examples_apply_without_a_warning_and_the_second_time_nothing_changes() {
    journey("examples", |journey| async move {
        gate_answers(&journey).await?;
        let crds = journey.stage.layout.root.join("charts/supercargo/crds").display().to_string();
        journey.kubectl(&["apply", "--server-side", "--warnings-as-errors", "-f", &crds]).await.context("CRDs apply without a warning")?;
        let drift = journey.kubectl(&["diff", "--server-side", "-f", &crds]).await.context("nothing differs")?;
        ensure!(drift.is_empty(), "{drift}");

        // Pools and nodes for a try only: the operator would take them for real.
        let cluster_scoped = examples(&journey, false)?;
        for (file, object) in &cluster_scoped {
            let tried = ["apply", "--server-side", "--dry-run=server", "--warnings-as-errors", "-f", "-"];
            given(&journey, &tried, &object.to_string()).await.with_context(|| file.clone())?;
        }
        let namespaced = examples(&journey, true)?;
        for (file, object) in &namespaced {
            applied_twice(&journey, &object.to_string()).await.with_context(|| file.clone())?;
        }
        ensure!((cluster_scoped.len(), namespaced.len()) == (2, 7), "{} and {}", cluster_scoped.len(), namespaced.len());
        Ok(())
    })
    .await;
}

async fn applied_twice(journey: &Journey, object: &str) -> Result<()> {
    given(journey, &["apply", "--warnings-as-errors", "-f", "-"], object).await?;
    given(journey, &["apply", "-f", "-"], object).await?;
    let generation = given(journey, &["get", "-o", "jsonpath={.items[0].metadata.generation}", "-f", "-"], object).await?;
    ensure!(generation == "1", "the second time changed what the first had made");
    let drift = given(journey, &["diff", "-f", "-"], object).await.context("it differs")?;
    ensure!(drift.is_empty(), "{drift}");
    Ok(())
}

#[tokio::test]
async fn a_new_objects_status_says_that_nobody_has_seen_it() {
    journey("unseen", |journey| async move {
        gate_answers(&journey).await?;
        let mut found = Vec::new();
        for (_, mut object) in examples(&journey, true)?.into_iter().chain(examples(&journey, false)?) {
            // Another test may have made what the example makes. A ProviderNode has its node's name.
            object["metadata"]["name"] = journey.namespace.clone().into();
            if object["kind"] == "ProviderNode" {
                object["spec"]["nodeName"] = journey.namespace.clone().into();
            }
            let made = given(&journey, &["create", "--dry-run=server", "-o", "json", "-f", "-"], &object.to_string()).await?;
            let made: Value = serde_json::from_str(&made)?;
            found.push(made["status"]["observedGeneration"].clone());
        }
        ensure!(found == vec![json!(-1); 9], "{found:?}");
        Ok(())
    })
    .await;
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
    journey("explains", |journey| async move {
        let published = journey.kubectl(&["get", "--raw", "/openapi/v3/apis/supercargo.dev/v1alpha1"]).await?;
        let published: Value = serde_json::from_str(&published)?;
        let schemas = published["components"]["schemas"].as_object().context("schemas")?;
        for kind in KINDS {
            let ours = |schema: &&Value| {
                let known = &schema["x-kubernetes-group-version-kind"][0];
                known["group"] == "supercargo.dev" && known["kind"].as_str().is_some_and(|name| name.to_lowercase() == kind)
            };
            let schema = schemas.values().find(ours).with_context(|| format!("{kind} is published"))?;
            let mut found = Vec::new();
            let count: usize = ["spec", "status"].iter().map(|part| silent(part, &schema["properties"][part], &mut found)).sum();
            ensure!(found.is_empty(), "{kind}: {found:?}");
            let listed = journey.kubectl(&["explain", kind, "--recursive"]).await?;
            let fields = listed.lines().filter(|line| line.contains('\t')).count();
            ensure!(fields >= count, "{kind}: {fields} of {count} fields are listed:\n{listed}");
        }
        let deep = journey.kubectl(&["explain", "ct.spec.placement.providers.deny"]).await?;
        ensure!(deep.contains("None of these."), "{deep}");
        Ok(())
    })
    .await;
}
