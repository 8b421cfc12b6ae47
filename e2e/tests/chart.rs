//! The chart as Helm renders it: what a provider's security team would ask is answered by a test.

use serde_json::Value;
use std::process::Command;
use supercargo_e2e::cluster::Layout;

const CHAIN: &str =
    r#"config.chains=[{"name":"default","chainId":1,"rpcs":["http://rpc.test"],"contract":"0x1","token":"USDC","settler":1}]"#;

/// Every object that the chart renders with these settings, or what Helm said.
fn render(settings: &[&str]) -> Result<Vec<Value>, String> {
    let layout = Layout::here().expect("a checkout");
    let output = Command::new(layout.bin("helm"))
        .args([
            "template",
            "supercargo",
            &layout.root.join("charts/supercargo").display().to_string(),
            "--namespace",
            "supercargo",
            "--kube-version",
            "1.36.0",
        ])
        .args(settings)
        .output()
        .expect("helm starts");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    let read = |document| <Value as serde::Deserialize>::deserialize(document).expect("YAML");
    Ok(documents.map(read).filter(|value: &Value| !value.is_null()).collect())
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

#[test]
fn every_container_runs_as_nobody_with_nothing() {
    let objects = render(&[]).expect("renders");
    let deployments = of_kind(&objects, "Deployment");
    assert_eq!(deployments.len(), 2);
    for deployment in deployments {
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert!(pod["hostNetwork"].is_null() && pod["hostPID"].is_null());
        for container in pod["containers"].as_array().expect("containers") {
            let security = &container["securityContext"];
            assert_eq!(security["readOnlyRootFilesystem"], true, "{container}");
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["capabilities"]["drop"][0], "ALL");
            assert!(container["resources"]["limits"]["memory"].is_string());
        }
        let host = pod["volumes"].as_array().is_some_and(|volumes| volumes.iter().any(|volume| !volume["hostPath"].is_null()));
        assert!(!host, "nothing of the host is mounted");
    }
}

#[test]
fn no_role_has_a_wildcard_and_the_operator_reads_no_secret() {
    let objects = render(&[]).expect("renders");
    for role in of_kind(&objects, "ClusterRole").into_iter().chain(of_kind(&objects, "Role")) {
        for rule in role["rules"].as_array().expect("rules") {
            assert!(!rule.to_string().contains("\"*\""), "{} has {rule}", role["metadata"]["name"]);
            if role["metadata"]["name"] == "supercargo-operator" {
                assert!(!rule["resources"].to_string().contains("secrets"), "{rule}");
            }
        }
    }
}

#[test]
fn the_gate_can_be_left_out_and_its_bundle_is_not_in_the_text() {
    let objects = render(&[]).expect("renders");
    let webhook = of_kind(&objects, "ValidatingWebhookConfiguration")[0];
    assert!(webhook["webhooks"][0]["clientConfig"]["caBundle"].is_null());
    assert_eq!(webhook["webhooks"][0]["failurePolicy"], "Ignore");
    assert_eq!(webhook["webhooks"][0]["timeoutSeconds"], 2);
    let without = render(&["--set", "gate.enabled=false"]).expect("renders");
    assert!(of_kind(&without, "ValidatingWebhookConfiguration").is_empty() && of_kind(&without, "Deployment").len() == 1);
}

#[test]
fn the_configuration_is_one_that_the_operator_takes_and_wrong_values_are_named() {
    let objects = render(&["--set", "settler.existingSecret=key", "--set-json", CHAIN]).expect("renders");
    let text = of_kind(&objects, "ConfigMap")[0]["data"]["config.yaml"].as_str().expect("a file").to_owned();
    let config: Value = serde_yaml_ng::from_str(&text).expect("YAML");
    assert_eq!(config["chains"][0]["settlerKeyFile"], "/etc/supercargo/keys/key");
    assert_eq!(config["settlement"]["postSeconds"], 3600);

    let said = render(&["--set-json", CHAIN]).expect_err("no key");
    assert!(said.contains("config.chains needs settler.existingSecret"), "{said}");
    let said = render(&["--set", "oprator.log=debug"]).expect_err("unknown value");
    assert!(said.contains("oprator"), "{said}");
}
