//! Who may do what: a kubelet is its own node and no other, and the operator has what its chart says and nothing beside.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use supercargo_e2e::cluster::shell;
use supercargo_e2e::install::NAMESPACE;
use supercargo_e2e::journey::{Journey, journey};
use supercargo_e2e::{kubectl, wait};

/// kubectl with a kubelet's own certificate.
async fn as_node(journey: &Journey, node: &str, args: &[&str], input: &str) -> Result<String> {
    let kubeconfig = journey.stage.layout.kubeconfig(node).display().to_string();
    kubectl::with_input(&journey.stage.layout, &[&["--kubeconfig", kubeconfig.as_str()][..], args].concat(), input).await
}

/// What was said of something that was to be refused.
fn refusal(went: Result<String>) -> Result<String> {
    went.map_or_else(|error| Ok(format!("{error:#}")), |done| Err(anyhow::anyhow!("it was let through: {done}")))
}

/// Server-side apply asks for nothing before it writes: what is refused is the writing.
const APPLY: [&str; 5] = ["apply", "--server-side", "--force-conflicts", "-f", "-"];

#[tokio::test]
async fn a_kubelet_is_its_own_node_and_writes_no_other() {
    journey("kubelets", |journey| async move {
        let nodes = &journey.stage.info.nodes;
        for (node, other) in nodes.iter().zip(nodes.iter().rev()) {
            let who: Value = serde_json::from_str(&as_node(&journey, node, &["auth", "whoami", "-o", "json"], "").await?)?;
            let user = &who["status"]["userInfo"];
            ensure!(user["username"] == format!("system:node:{node}"), "{user}");
            ensure!(user["groups"].as_array().is_some_and(|groups| groups.contains(&json!("system:nodes"))), "{user}");

            let labelled = |name: &str, label: &str| {
                let metadata = json!({ "name": name, "labels": { label: journey.namespace } });
                json!({ "apiVersion": "v1", "kind": "Node", "metadata": metadata }).to_string()
            };
            // What it is refused below it may do with its own, so that it is refused for what it is about.
            let tried = [&APPLY[..], &["--dry-run=server"]].concat();
            as_node(&journey, node, &tried, &labelled(node, "acme.test/journey")).await.context("its own node")?;
            let said = refusal(as_node(&journey, node, &APPLY, &labelled(other, "acme.test/journey")).await)?;
            ensure!(said.contains(&format!("node \"{node}\" is not allowed to modify node \"{other}\"")), "{said}");

            // The labels that a pool's administrator may rely on, since no kubelet can set them.
            let kept = "supercargo.node-restriction.kubernetes.io/model";
            let said = refusal(as_node(&journey, node, &APPLY, &labelled(node, kept)).await)?;
            ensure!(said.contains(&format!("is not allowed to modify labels: {kept}")), "{said}");

            let offer = json!({
                "apiVersion": "supercargo.dev/v1alpha1", "kind": "ProviderNode", "metadata": { "name": node },
                "spec": { "availability": "Open" },
            });
            let said = refusal(as_node(&journey, node, &APPLY, &offer.to_string()).await)?;
            ensure!(said.contains("cannot patch resource \"providernodes\""), "{said}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_kubelet_reads_the_secrets_of_the_pods_that_it_runs_and_of_no_others() {
    journey("secrets", |journey| async move {
        journey.pool().await?;
        journey.grant("1").await?;
        let [node, other] = &journey.stage.info.nodes[..] else { anyhow::bail!("the cluster has two nodes") };
        journey.kubectl(&["create", "secret", "generic", "kept", "--from-literal=word=mellon"]).await?;
        let read = async |node: &str| {
            let args = ["-n", &journey.namespace, "get", "secret", "kept", "-o", "jsonpath={.data.word}"];
            as_node(&journey, node, &args, "").await
        };
        let none = |node: &str| format!("no relationship found between node '{node}' and this object");
        let said = refusal(read(node).await)?;
        ensure!(said.contains(&none(node)), "{said}");

        let word = json!({ "name": "WORD", "valueFrom": { "secretKeyRef": { "name": "kept", "key": "word" } } });
        let there = json!({ "env": [word], "placement": { "nodeSelector": { "kubernetes.io/hostname": node } } });
        journey.task("speaks", &["--for", "200"], there).await?;
        journey.until("speaks", "Started", "True", Duration::from_secs(60)).await?;
        let found =
            wait::until("the pod's own node to be let read its secret", Duration::from_secs(10), || async { read(node).await.map(Some) });
        ensure!(found.await? == "bWVsbG9u", "it is the secret that was kept");
        let said = refusal(read(other).await)?;
        ensure!(said.contains(&none(other)), "{said}");

        journey.kubectl(&["delete", "computetask", "speaks", "--wait=false"]).await?;
        wait::until("the node to be let read it no more", Duration::from_secs(60), || async {
            Ok(refusal(read(node).await)?.contains(&none(node)).then_some(()))
        })
        .await
    })
    .await;
}

/// Each single thing that rules allow: the verb, what it is done to, and which one if it is not all of them.
fn single<'a>(rules: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    let list = |value: &'a Value| value.as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut all = BTreeSet::new();
    for rule in rules {
        let names: Vec<&str> = if rule["resourceNames"][0].is_null() { vec!["*"] } else { list(&rule["resourceNames"]).collect() };
        for (verb, group) in list(&rule["verbs"]).flat_map(|verb| list(&rule["apiGroups"]).map(move |group| (verb, group))) {
            for resource in list(&rule["resources"]) {
                all.extend(names.iter().map(|name| format!("{verb} {resource} of {group:?}: {name}")));
            }
        }
    }
    all
}

/// What an account of the operator's namespace may do in a namespace, as the API server itself sees it.
async fn allowed(journey: &Journey, account: &str, namespace: &str) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": { "namespace": namespace },
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let account = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
    let args = ["create", "--raw", path, "-f", "-", &account];
    let answer = kubectl::with_input(&journey.stage.layout, &args, &review.to_string()).await?;
    let answer: Value = serde_json::from_str(&answer)?;
    let rules = single(answer["status"]["resourceRules"].as_array().context("rules")?);
    // In no order that would last.
    let paths = answer["status"]["nonResourceRules"].as_array().context("paths")?.iter().map(Value::to_string).collect();
    Ok((rules, paths))
}

/// What the chart's text gives to the operator in the whole cluster, and beside that in its own namespace.
fn chart(journey: &Journey) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let layout = &journey.stage.layout;
    let (chart, values) = (layout.root.join("charts/supercargo"), layout.cluster().join("values.json"));
    let (chart, values) = (chart.display().to_string(), values.display().to_string());
    let args = ["template", "supercargo", &chart, "--namespace", NAMESPACE, "--values", &values, "--show-only", "templates/rbac.yaml"];
    // Alone, helm takes the cluster for an old one.
    let text = shell::run(&layout.bin("helm").display().to_string(), args.into_iter().chain(["--kube-version", "1.36.0"]))?;
    let mut found = (BTreeSet::new(), BTreeSet::new());
    for document in serde_yaml_ng::Deserializer::from_str(&text) {
        let object = <Value as serde::Deserialize>::deserialize(document)?;
        let rules = object["rules"].as_array().map(single).unwrap_or_default();
        match object["kind"].as_str() {
            Some("ClusterRole") => found.0.extend(rules),
            Some("Role") => found.1.extend(rules),
            _ => {}
        }
    }
    ensure!(found.0.contains("patch computetasks/status of \"supercargo.dev\": *") && !found.1.is_empty(), "{found:?}");
    Ok(found)
}

#[tokio::test]
async fn the_operator_may_do_what_its_chart_says_and_nothing_else() {
    journey("rights", |journey| async move {
        let (everywhere, at_home) = chart(&journey)?;
        for namespace in [NAMESPACE, &journey.namespace] {
            let mut expected = everywhere.clone();
            if namespace == NAMESPACE {
                expected.extend(at_home.iter().cloned());
            }
            // An account that nobody gave anything may ask who it is, and the like.
            let ((operator, paths), (nobody, open)) =
                tokio::try_join!(allowed(&journey, "supercargo-operator", namespace), allowed(&journey, "nobody", namespace))?;
            let own: BTreeSet<String> = operator.difference(&nobody).cloned().collect();
            let (more, less): (Vec<_>, Vec<_>) = (own.difference(&expected).collect(), expected.difference(&own).collect());
            ensure!(more.is_empty() && less.is_empty(), "in {namespace} it may {more:?}, and may not {less:?}");
            ensure!(paths == open, "{paths:?} are open to it, and {open:?} to anybody");
        }
        // What matters most is tried.
        let account = format!("--as=system:serviceaccount:{NAMESPACE}:supercargo-operator");
        let exec = format!("/api/v1/namespaces/{NAMESPACE}/pods/any/exec?command=true");
        for (args, resource) in [
            (vec!["-n", NAMESPACE, "get", "secret", "settler"], "cannot get resource \"secrets\""),
            (vec!["create", "clusterrole", &journey.namespace, "--verb=get", "--resource=pods"], "cannot create resource \"clusterroles\""),
            (vec!["create", "--raw", &exec, "-f", "-"], "cannot create resource \"pods/exec\""),
        ] {
            let said = refusal(kubectl::with_input(&journey.stage.layout, &[&args[..], &[account.as_str()]].concat(), "{}").await)?;
            ensure!(said.contains(resource), "{said}");
        }
        Ok(())
    })
    .await;
}
