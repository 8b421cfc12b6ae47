//! The kinds on a real API server: the examples apply as they stand, and what is wrong is refused in words.

use std::path::Path;
use supercargo_e2e::journey::Stage;
use supercargo_e2e::kubectl;

/// Every line: what is tried, and the words that must be in the refusal. `~` begins a patch of an object that stands.
const CASES: &str = include_str!("kinds.tsv");

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
    for line in CASES.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (kind, rest) = line.split_once('\t').expect("a kind");
        let (spec, expected) = rest.split_once('\t').expect("a spec and a message");
        let namespace = if matches!(kind, "ComputeTask" | "Escrow") { ", \"namespace\": \"kinds\"" } else { "" };
        let object = format!(
            "{{\"apiVersion\": \"supercargo.dev/v1alpha1\", \"kind\": \"{kind}\", \"metadata\": {{\"name\": \"case\"{namespace}}}, \"spec\": {spec}}}"
        );
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
