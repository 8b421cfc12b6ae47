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
fn the_operator_follows_and_makes_policies_and_takes_none_away() {
    let objects = render(&[]).expect("renders");
    let role = of_kind(&objects, "ClusterRole").into_iter().find(|role| role["metadata"]["name"] == "supercargo-operator");
    let rules = role.expect("the operator's role")["rules"].as_array().cloned().unwrap_or_default();
    let verbs = |resource: &str| {
        let rules = rules.iter().filter(|rule| rule["resources"].to_string().contains(&format!("\"{resource}\"")));
        let mut verbs: Vec<_> = rules.flat_map(|rule| rule["verbs"].as_array().cloned().unwrap_or_default()).collect();
        verbs.sort_by_key(Value::to_string);
        verbs
    };
    assert_eq!(verbs("networkpolicies"), ["create", "list", "patch", "watch"]);
    assert_eq!(verbs("services"), ["create", "patch"]);
}

#[test]
fn the_api_is_for_those_who_are_let_in_and_for_no_task_or_is_not_there() {
    let reviews = |objects: &[Value]| {
        let rules = of_kind(objects, "ClusterRole").into_iter().flat_map(|role| role["rules"].as_array().cloned().unwrap_or_default());
        rules
            .filter(|rule| rule.to_string().contains("reviews"))
            .flat_map(|rule| rule["verbs"].as_array().cloned().unwrap_or_default())
            .collect()
    };
    let objects = render(&[]).expect("renders");
    let verbs: Vec<Value> = reviews(&objects);
    assert_eq!(verbs, ["create", "create"]);
    let policy = &of_kind(&objects, "NetworkPolicy")[0]["spec"];
    assert_eq!(policy["policyTypes"], serde_json::json!(["Ingress"]));
    let rules = policy["ingress"].as_array().expect("rules");
    let api = rules.iter().find(|rule| rule["ports"][0]["port"] == "api").expect("a rule for the API");
    let tasks = serde_json::json!([{ "key": "supercargo.dev/task", "operator": "DoesNotExist" }]);
    assert_eq!(api["from"][0]["podSelector"]["matchExpressions"], tasks);
    let operator = of_kind(&objects, "Deployment").into_iter().find(|object| object["metadata"]["name"] == "supercargo-operator");
    let ports = &operator.expect("the operator")["spec"]["template"]["spec"]["containers"][0]["ports"];
    for rule in rules {
        let port = &rule["ports"][0]["port"];
        assert!(ports.as_array().is_some_and(|open| open.iter().any(|open| open["name"] == *port)), "{port} is no port of it");
    }
    let config = of_kind(&objects, "ConfigMap")[0]["data"]["config.yaml"].as_str().expect("a file");
    assert!(config.contains(r#"api: {listen: "0.0.0.0:8081", audience: "supercargo"}"#), "{config}");

    let without = render(&["--set", "api.enabled=false"]).expect("renders");
    let verbs: Vec<Value> = reviews(&without);
    assert!(verbs.is_empty() && of_kind(&without, "NetworkPolicy").is_empty());
    let named = |object: &&Value| object["metadata"]["name"] == "supercargo-api";
    assert!(!of_kind(&without, "Service").iter().any(named) && of_kind(&objects, "Service").iter().any(named));
    assert!(!of_kind(&without, "ConfigMap")[0].to_string().contains("8081"));
}

#[test]
fn of_nodes_the_operator_writes_one_taint_or_nothing() {
    let writes_nodes = |objects: &[Value]| {
        let rules = of_kind(objects, "ClusterRole").into_iter().flat_map(|role| role["rules"].as_array().cloned().unwrap_or_default());
        let on_nodes = rules.filter(|rule| rule["resources"].to_string().contains("\"nodes\""));
        on_nodes.flat_map(|rule| rule["verbs"].as_array().cloned().unwrap_or_default()).any(|verb| verb == "patch" || verb == "update")
    };
    let objects = render(&[]).expect("renders");
    assert!(writes_nodes(&objects));
    let policy = of_kind(&objects, "ValidatingAdmissionPolicy")[0];
    assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    let binding = of_kind(&objects, "ValidatingAdmissionPolicyBinding")[0];
    assert_eq!((&binding["spec"]["policyName"], &binding["spec"]["validationActions"][0]), (&policy["metadata"]["name"], &"Deny".into()));

    let without = render(&["--set", "config.taintNodes=false"]).expect("renders");
    assert!(!writes_nodes(&without) && of_kind(&without, "ValidatingAdmissionPolicy").is_empty());
}

#[test]
fn no_class_that_anybody_may_define_preempts_a_task_and_a_task_preempts_nobody() {
    let objects = render(&[]).expect("renders");
    let class = of_kind(&objects, "PriorityClass")[0];
    // Kubernetes keeps what is above this for itself.
    assert_eq!((&class["value"], &class["preemptionPolicy"]), (&1_000_000_000.into(), &"Never".into()));
    assert_eq!((&class["metadata"]["name"], &class["globalDefault"]), (&"supercargo-paid".into(), &false.into()));
}

#[test]
fn prometheus_finds_the_operator_and_the_gate_by_one_name_of_a_port() {
    let objects = render(&["--set", "serviceMonitor.enabled=true"]).expect("renders");
    let monitor = &of_kind(&objects, "ServiceMonitor")[0]["spec"];
    let selected = |labels: &Value| {
        let wanted = monitor["selector"]["matchLabels"].as_object().expect("labels");
        wanted.iter().all(|(name, value)| labels[name] == *value)
    };
    let services = of_kind(&objects, "Service").into_iter().filter(|service| selected(&service["metadata"]["labels"]));
    let mut scraped = Vec::new();
    for service in services {
        let ports = service["spec"]["ports"].as_array().expect("ports");
        let Some(port) = ports.iter().find(|port| port["name"] == monitor["endpoints"][0]["port"]) else { continue };
        let component = &service["spec"]["selector"]["app.kubernetes.io/component"];
        let pod = of_kind(&objects, "Deployment").into_iter().map(|deployment| &deployment["spec"]["template"]);
        let pod = pod.into_iter().find(|pod| pod["metadata"]["labels"]["app.kubernetes.io/component"] == *component).expect("a pod");
        let open = pod["spec"]["containers"][0]["ports"].as_array().expect("ports");
        assert!(open.iter().any(|open| open["name"] == port["targetPort"]), "{service} leads nowhere");
        scraped.push(component.as_str().expect("a component"));
    }
    scraped.sort_unstable();
    assert_eq!(scraped, ["gate", "operator"]);
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
fn with_cert_manager_the_gate_serves_its_certificate_and_may_do_nothing_in_the_cluster() {
    let by_default = render(&[]).expect("renders");
    assert!(!by_default.iter().any(|object| object["apiVersion"] == "cert-manager.io/v1"));

    let objects = render(&["--set", "gate.certificate.certManager.enabled=true"]).expect("renders");
    let webhook = of_kind(&objects, "ValidatingWebhookConfiguration")[0];
    assert_eq!(webhook["metadata"]["annotations"]["cert-manager.io/inject-ca-from"], "supercargo/supercargo-gate");
    let certificate = of_kind(&objects, "Certificate")[0];
    assert_eq!(certificate["spec"]["dnsNames"][0], "supercargo-gate.supercargo.svc");
    assert_eq!(certificate["spec"]["issuerRef"]["name"], of_kind(&objects, "Issuer")[0]["metadata"]["name"]);
    let gate =
        of_kind(&objects, "Deployment").into_iter().find(|object| object["metadata"]["name"] == "supercargo-gate").expect("the gate");
    let pod = &gate["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][0]["secret"]["secretName"], certificate["spec"]["secretName"]);
    let mounted = pod["containers"][0]["volumeMounts"][0]["mountPath"].as_str().expect("a path");
    assert_eq!(pod["containers"][0]["args"][0], format!("--certificate-file={mounted}/tls.crt"));
    assert_eq!(pod["automountServiceAccountToken"], false);
    let bound = ["RoleBinding", "ClusterRoleBinding"].map(|kind| of_kind(&objects, kind)).concat();
    assert!(!bound.iter().any(|binding| binding["subjects"].to_string().contains("supercargo-gate")), "no role is left to it");

    let own = "gate.certificate.certManager={\"enabled\":true,\"issuerRef\":{\"name\":\"acme-ca\",\"kind\":\"ClusterIssuer\"}}";
    let objects = render(&["--set-json", own]).expect("renders");
    assert!(of_kind(&objects, "Issuer").is_empty());
    let issuer = &of_kind(&objects, "Certificate")[0]["spec"]["issuerRef"];
    assert_eq!(
        (&issuer["name"], &issuer["kind"], &issuer["group"]),
        (&"acme-ca".into(), &"ClusterIssuer".into(), &"cert-manager.io".into())
    );
    let said = render(&["--set", "gate.certificate.certManager.issuer=acme-ca"]).expect_err("no such value");
    assert!(said.contains("issuer"), "{said}");
}

#[test]
fn the_configuration_is_one_that_the_operator_takes_and_wrong_values_are_named() {
    let objects = render(&["--set", "settler.existingSecret=key", "--set-json", CHAIN]).expect("renders");
    let text = of_kind(&objects, "ConfigMap")[0]["data"]["config.yaml"].as_str().expect("a file").to_owned();
    let config: Value = serde_yaml_ng::from_str(&text).expect("YAML");
    assert_eq!(config["chains"][0]["settlerKeyFile"], "/etc/supercargo/keys/key");
    assert_eq!(config["chains"][0].get("settlerPasswordFile"), None);
    assert_eq!(config["settlement"]["postSeconds"], 3600);
    assert_eq!(config["dataClasses"]["Confidential"], "Proved", "a word does not suffice unless somebody says so");

    let objects = render(&["--set", "settler.existingSecret=key,settler.passwordSecret=word", "--set-json", CHAIN]).expect("renders");
    let text = of_kind(&objects, "ConfigMap")[0]["data"]["config.yaml"].as_str().expect("a file").to_owned();
    let config: Value = serde_yaml_ng::from_str(&text).expect("YAML");
    assert_eq!(config["chains"][0]["settlerPasswordFile"], "/etc/supercargo/password/password");

    let said = render(&["--set-json", CHAIN]).expect_err("no key");
    assert!(said.contains("config.chains needs settler.existingSecret"), "{said}");
    let twice = CHAIN.replace(r#"["http://rpc.test"]"#, r#"["http://rpc.test","http://rpc.test"]"#);
    let said = render(&["--set", "settler.existingSecret=key", "--set-json", &twice]).expect_err("an endpoint can't agree with itself");
    assert!(said.contains("config/chains/0/rpcs"), "{said}");
    for wrong in ["config.settlement.postAmount=5", "config.settlement.postCharges=0", "config.settlement.postEverything=1"] {
        let said = render(&["--set", wrong]).expect_err("no such posts");
        assert!(said.contains("config/settlement"), "{said}");
    }
    // An operator that may not start charges nobody while things run: it is told before that.
    let fees = [
        (r#"{"basisPoints":250}"#, "config.fees.shares add up to 0 basis points"),
        (r#"{"basisPoints":250,"shares":[{"payee":2,"basisPoints":6000}]}"#, "config.fees.shares add up to 6000 basis points"),
        (r#"{"basisPoints":9,"shares":[{"payee":2,"basisPoints":6000},{"payee":2,"basisPoints":4000}]}"#, "config.fees.shares: a payee"),
        (r#"{"basisPoints":10001,"shares":[{"payee":2,"basisPoints":10000}]}"#, "config/fees/basisPoints"),
        (r#"{"basisPoints":9,"shares":[{"payee":0,"basisPoints":10000}]}"#, "config/fees/shares/0/payee"),
    ];
    for (wrong, expected) in fees {
        let said = render(&["--set-json", &format!("config.fees={wrong}")]).expect_err("they don't add up");
        assert!(said.contains(expected), "{said}");
    }
    let right = r#"config.fees={"basisPoints":250,"shares":[{"payee":2,"basisPoints":6000},{"payee":3,"basisPoints":4000}]}"#;
    render(&["--set-json", right]).expect("they add up");
    let said = render(&["--set", "oprator.log=debug"]).expect_err("unknown value");
    assert!(said.contains("oprator"), "{said}");
}
