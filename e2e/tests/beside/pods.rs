//! What the operator makes for a task, read back from the API server: its pod, and what the pod may reach.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use supercargo_e2e::journey::{Journey, journey, succeeded};

/// As long as a name may be: a pod's name keeps 40 letters of it.
const LONG: &str = "a-model-that-is-trained-with-a-name-too-long-for-pod";

/// What this pod's spec must say, each with where it says it.
fn is_as_promised(pod: &Value, task: &Value) -> Result<()> {
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    let uid: String = task["metadata"]["uid"].as_str().context("a UID")?.chars().filter(|letter| *letter != '-').take(8).collect();
    let container = &spec["containers"][0]["securityContext"];
    let expected = [
        ("name", &metadata["name"], json!(format!("a-model-that-is-trained-with-a-name-too-{uid}-0-0"))),
        ("deadline", &spec["activeDeadlineSeconds"], json!(600 + 77)),
        ("restarts", &spec["restartPolicy"], json!("Never")),
        ("grace", &spec["terminationGracePeriodSeconds"], json!(1)),
        ("class", &spec["priorityClassName"], json!("supercargo-paid")),
        ("users", &spec["hostUsers"], json!(false)),
        ("token", &spec["automountServiceAccountToken"], json!(false)),
        ("host's network", &spec["hostNetwork"], Value::Null),
        ("system calls", &spec["securityContext"]["seccompProfile"]["type"], json!("RuntimeDefault")),
        ("privileged", &container["privileged"], json!(false)),
        ("escalation", &container["allowPrivilegeEscalation"], json!(false)),
        ("capabilities", &container["capabilities"], json!({ "drop": ["ALL"] })),
        ("autoscaler", &metadata["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"], json!("false")),
        ("karpenter", &metadata["annotations"]["karpenter.sh/do-not-disrupt"], json!("true")),
        ("owner", &metadata["ownerReferences"][0]["uid"], task["metadata"]["uid"].clone()),
    ];
    for (what, found, expected) in expected {
        ensure!(*found == expected, "{what}: {found} instead of {expected} in {pod}");
    }
    // A node that is gone for minutes takes none of its tasks with it.
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let mut all = spec["tolerations"].as_array().into_iter().flatten();
        let found = all.find(|one| one["key"] == key).with_context(|| format!("{key} is tolerated: {}", spec["tolerations"]))?;
        ensure!(found["effect"] == "NoExecute" && found["tolerationSeconds"].is_null(), "{found}");
    }
    Ok(())
}

async fn policy(journey: &Journey, name: &str) -> Result<Value> {
    Ok(journey.get("networkpolicy", name).await?["spec"].take())
}

/// What a policy's rules leave out of everything that there is.
fn left_out(policy: &Value) -> BTreeSet<String> {
    let rules = policy["egress"].as_array().into_iter().flatten();
    let blocks = rules.filter_map(|rule| rule["to"].as_array()).flatten().filter(|to| to["ipBlock"]["cidr"] == "0.0.0.0/0");
    blocks.filter_map(|to| to["ipBlock"]["except"].as_array()).flatten().filter_map(|range| range.as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_pod_is_what_was_promised_and_reaches_the_internet_and_what_is_asked_for_and_nothing_of_the_cluster() {
    journey("promised", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let node = &journey.stage.info.nodes[0];
        let network = json!({
            "egress": "Internet", "ports": [{ "name": "web", "port": 8080 }],
            "rules": [{ "cidr": "172.30.0.0/16", "ports": [5432] }, { "cidr": "10.0.0.0/8" }],
        });
        let change =
            json!({ "network": network, "timeLimitSeconds": 77, "placement": { "nodeSelector": { "kubernetes.io/hostname": node } } });
        journey.task(LONG, &["--for", "200"], change).await?;
        let task = journey.until(LONG, "Started", "True", Duration::from_secs(60)).await?;
        let pod = journey.pods(LONG).await?.pop().context("its pod")?;
        is_as_promised(&pod, &task)?;
        ensure!(pod["metadata"]["labels"]["supercargo.dev/egress"] == "internet", "{}", pod["metadata"]["labels"]);

        let nothing = policy(&journey, "supercargo-tasks").await?;
        let both = json!(["Ingress", "Egress"]);
        ensure!(nothing["policyTypes"] == both && nothing["egress"].is_null() && nothing["ingress"].is_null(), "{nothing}");
        let internet = policy(&journey, "supercargo-internet").await?;
        let closed = left_out(&internet);
        // Private ranges hold the nodes, the pods and the Services here; metadata is asked for at a link-local address.
        for range in ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"] {
            ensure!(closed.contains(range), "{range} is open: {internet}");
        }
        let name = pod["metadata"]["name"].as_str().context("a name")?.trim_end_matches("-0-0").to_owned();
        let own = policy(&journey, &name).await?;
        let uid = &task["metadata"]["uid"];
        ensure!(own["podSelector"]["matchLabels"]["supercargo.dev/task-uid"] == *uid, "{own}");
        let open = json!({
            "to": [{ "ipBlock": { "cidr": "172.30.0.0/16" } }],
            "ports": [{ "port": 5432, "protocol": "TCP" }, { "port": 5432, "protocol": "UDP" }],
        });
        ensure!(own["egress"][0] == open, "{own}");
        // Of a range that the cluster lies in the rest is opened.
        let wide = &own["egress"][1]["to"][0]["ipBlock"];
        let closed: BTreeSet<&str> = wide["except"].as_array().context("exceptions")?.iter().filter_map(Value::as_str).collect();
        let nodes = (0..journey.stage.info.nodes.len()).map(|index| format!("{}/32", journey.stage.info.subnet.node(index)));
        ensure!(wide["cidr"] == "10.0.0.0/8" && nodes.into_iter().all(|node| closed.contains(&*node)), "{own}");
        let web = json!([{ "from": [{ "podSelector": {} }], "ports": [{ "port": 8080, "protocol": "TCP" }] }]);
        ensure!(own["ingress"] == web, "{own}");
        journey.kubectl(&["delete", "computetask", LONG, "--wait=false"]).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_command_that_the_image_does_not_have_never_costs_the_node_its_name() {
    journey("typo", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        for name in ["one", "two", "three"] {
            journey.task(name, &[], json!({ "command": ["/no/such/thing"] })).await?;
        }
        for name in ["one", "two", "three"] {
            let task = journey.finished(name).await?;
            ensure!(!succeeded(&task) && task["status"]["attempts"][0]["outcome"] == "Failed", "{}", task["status"]);
        }
        for node in &journey.stage.info.nodes {
            let provided = journey.get("providernode", node).await?;
            ensure!(provided["status"]["quarantine"].is_null(), "{}", provided["status"]);
        }
        Ok(())
    })
    .await;
}
