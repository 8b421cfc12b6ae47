//! Reviews as an API server sends them: what tests and the bench ask the gate.

use serde_json::{Map, Value, json};

const TASKS: [&str; 5] = [
    include_str!("../../crds/examples/task-minimal.yaml"),
    include_str!("../../crds/examples/task-cpu.yaml"),
    include_str!("../../crds/examples/task-slice.yaml"),
    include_str!("../../crds/examples/task-gang.yaml"),
    include_str!("../../crds/examples/task-finetune.yaml"),
];

/// The examples of tasks, as people write them.
pub fn tasks() -> Vec<Value> {
    TASKS.iter().map(|text| serde_yaml_ng::from_str(text).expect("an example is YAML")).collect()
}

/// An object as it comes to the gate: with what the API server adds to it.
pub fn stored(mut object: Value) -> Value {
    let fields: Map<String, Value> =
        object["spec"].as_object().into_iter().flatten().map(|(name, _)| (format!("f:{name}"), json!({}))).collect();
    let applied = object.to_string();
    let metadata = object["metadata"].as_object_mut().expect("an object has metadata");
    metadata.insert("uid".into(), json!("8f2b4e0e-6c52-4c0b-9a55-0f5b5f0e7c11"));
    metadata.insert("generation".into(), json!(1));
    metadata.insert("creationTimestamp".into(), json!("2026-03-01T10:00:00Z"));
    metadata.insert("annotations".into(), json!({ "kubectl.kubernetes.io/last-applied-configuration": applied }));
    let managed = json!([{
        "manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": "supercargo.dev/v1alpha1",
        "time": "2026-03-01T10:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": { "f:metadata": { "f:annotations": {} }, "f:spec": fields },
    }]);
    metadata.insert("managedFields".into(), managed);
    object["status"] = json!({ "observedGeneration": -1 });
    object
}

/// The review of an object that is made, or changed where there is an old one.
pub fn review(uid: &str, object: &Value, old: Option<&Value>) -> Value {
    let kind = object["kind"].as_str().unwrap_or_default();
    let (group_kind, resource) = (
        json!({ "group": "supercargo.dev", "version": "v1alpha1", "kind": kind }),
        json!({ "group": "supercargo.dev", "version": "v1alpha1", "resource": format!("{}s", kind.to_lowercase()) }),
    );
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": uid, "kind": group_kind, "resource": resource, "requestKind": group_kind, "requestResource": resource,
            "name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"],
            "operation": if old.is_some() { "UPDATE" } else { "CREATE" },
            "userInfo": {
                "username": "system:serviceaccount:argocd:argocd-application-controller", "uid": "0c1b6f1e-58a3-4c8e-8b0e-3a7f5d0c9a21",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:argocd", "system:authenticated"],
                "extra": { "authentication.kubernetes.io/credential-id": ["JTI=2f1c7e90-1c1d-4b3e-9a57-6a0d3c1e8f42"] },
            },
            "object": object, "oldObject": old, "dryRun": false,
            "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "kubectl-client-side-apply", "fieldValidation": "Strict" },
        },
    })
}

/// The examples as they are made and changed, right as they stand and with one thing wrong; with each, whether it is right.
pub fn reviews() -> Vec<(Value, bool)> {
    let mut all = Vec::new();
    for (index, task) in tasks().into_iter().map(stored).enumerate() {
        let uid = |kind: &str| format!("5d3f4a92-9c1e-4d5b-8a7e-{kind}{index:08}");
        let mut raised = task.clone();
        raised["spec"]["budget"] = json!("500.00");
        let mut wrong = task.clone();
        match index % 3 {
            0 => wrong["spec"]["env"] = json!([{ "name": "NVIDIA_VISIBLE_DEVICES", "value": "all" }]),
            1 => wrong["spec"]["resources"]["cpu"] = json!("99999"),
            _ => wrong["spec"]["network"] = json!({ "rules": [{ "cidr": "10.0.0.1/8" }] }),
        }
        all.push((review(&uid("aaaa"), &task, None), true));
        all.push((review(&uid("bbbb"), &raised, Some(&task)), true));
        all.push((review(&uid("cccc"), &wrong, None), false));
    }
    all
}
