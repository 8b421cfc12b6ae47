//! The kinds on a real API server: the examples apply as they stand, and what is wrong is refused in words.

use std::path::Path;
use supercargo_e2e::journey::Stage;
use supercargo_e2e::kubectl;

/// Every line: what is tried, and the words that must be in the refusal.
const CASES: &str = include_str!("kinds.tsv");
/// Every line: what stands, what is changed of it, and the words that must be in the refusal, or that it is accepted.
const CHANGES: &str = include_str!("kinds-changes.tsv");

fn lines(table: &str) -> impl Iterator<Item = Vec<&str>> {
    table.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| line.split('\t').collect())
}

/// An object of this kind; where its own name belongs into its spec, `NAME` stands.
fn manifest(kind: &str, name: &str, spec: &str) -> String {
    let namespace = if is_namespaced(kind) { ", \"namespace\": \"kinds\"" } else { "" };
    let spec = spec.replace("NAME", name);
    format!(
        "{{\"apiVersion\": \"supercargo.dev/v1alpha1\", \"kind\": \"{kind}\", \"metadata\": {{\"name\": \"{name}\"{namespace}}}, \"spec\": {spec}}}"
    )
}

fn is_namespaced(kind: &str) -> bool {
    matches!(kind, "ComputeTask" | "Escrow")
}

#[tokio::test]
async fn the_examples_apply_without_a_warning() {
    let stage = Stage::ready().await.expect("the cluster comes up");
    let folder = stage.layout.root.join("crds/examples");
    let apply = |file: &Path| {
        let (layout, file) = (stage.layout.clone(), file.display().to_string());
        async move { kubectl::run(&layout, &["apply", "--server-side", "--dry-run=server", "--warnings-as-errors", "-f", &file]).await }
    };
    kubectl::run(&stage.layout, &["apply", "--server-side", "-f", &folder.join("namespaces.yaml").display().to_string()])
        .await
        .expect("namespaces");
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).expect("the examples") {
        let path = entry.expect("an entry").path();
        apply(&path).await.unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
        seen += 1;
    }
    assert_eq!(seen, 10);
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_words_that_say_what_would_be_right() {
    let stage = Stage::ready().await.expect("the cluster comes up");
    let mut wrong = Vec::new();
    let mut cases = 0;
    kubectl::run(&stage.layout, &["create", "namespace", "kinds"]).await.ok();
    for line in lines(CASES) {
        let [kind, spec, expected] = line[..] else { panic!("three columns: {line:?}") };
        let object = manifest(kind, "case", spec);
        cases += 1;
        match kubectl::with_input(&stage.layout, &["create", "--dry-run=server", "-f", "-"], &object).await {
            Ok(_) => wrong.push(format!("{kind} {spec}: was accepted")),
            Err(error) if format!("{error:#}").contains(expected) => {}
            Err(error) => wrong.push(format!("{kind} {spec}:\n  expected {expected}\n  found    {error:#}")),
        }
    }
    println!("figure kinds.bad_manifests {cases} cases");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_stands_changes_only_as_it_may() {
    let stage = Stage::ready().await.expect("the cluster comes up");
    kubectl::run(&stage.layout, &["create", "namespace", "kinds"]).await.ok();
    let mut wrong = Vec::new();
    for (index, line) in lines(CHANGES).enumerate() {
        let [kind, spec, change, expected] = line[..] else { panic!("four columns: {line:?}") };
        let name = format!("change-{index}");
        kubectl::apply(&stage.layout, &manifest(kind, &name, spec)).await.unwrap_or_else(|error| panic!("{kind} {spec}: {error:#}"));
        let patch = format!("{{\"spec\": {change}}}");
        let namespace: &[&str] = if is_namespaced(kind) { &["--namespace", "kinds"] } else { &[] };
        let patched = [namespace, &["patch", kind, &name, "--type=merge", "--dry-run=server", "--patch", &patch]].concat();
        match (kubectl::run(&stage.layout, &patched).await, expected) {
            (Ok(_), "accepted") => {}
            (Ok(_), _) => wrong.push(format!("{kind} {spec} {change}: was accepted")),
            (Err(error), expected) if format!("{error:#}").contains(expected) => {}
            (Err(error), expected) => wrong.push(format!("{kind} {spec} {change}:\n  expected {expected}\n  found    {error:#}")),
        }
        let deleted = [namespace, &["delete", kind, &name, "--wait=false"]].concat();
        kubectl::run(&stage.layout, &deleted).await.expect("is deleted");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn an_unknown_field_is_named_even_by_clients_that_are_only_warned() {
    let stage = Stage::ready().await.expect("the cluster comes up");
    kubectl::run(&stage.layout, &["create", "namespace", "kinds"]).await.ok();
    let object = manifest("ComputeTask", "case", r#"{"budget": "1", "image": "i", "imagee": "x"}"#);
    // What client-go asks for when nobody says anything else.
    let warned = ["create", "--dry-run=server", "--validate=warn", "--warnings-as-errors", "-f", "-"];
    let said = kubectl::with_input(&stage.layout, &warned, &object).await.expect_err("a warning is an error here");
    assert!(format!("{said:#}").contains("Warning: unknown field \"spec.imagee\""), "{said:#}");
    let said = kubectl::apply(&stage.layout, &object).await.expect_err("server-side apply refuses it");
    assert!(format!("{said:#}").contains(".spec.imagee: field not declared in schema"), "{said:#}");
}
