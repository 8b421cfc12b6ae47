//! Answering one admission review: pure.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use supercargo_crds::validate::{self, Finding};
use supercargo_crds::{ComputeTask, ProviderPool};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    #[error("the body is not an AdmissionReview of admission.k8s.io/v1")]
    NotAReview,
}

/// What was decided, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    Refused,
}

/// The answer to a review. Kinds that we do not know are allowed: they are somebody else's to judge.
pub fn answer(body: &[u8]) -> Result<(Value, Verdict), ReviewError> {
    let review: Value = serde_json::from_slice(body).map_err(|_| ReviewError::NotAReview)?;
    let request = &review["request"];
    let uid = request["uid"].as_str().filter(|_| review["apiVersion"] == "admission.k8s.io/v1").ok_or(ReviewError::NotAReview)?;
    let findings = match request["kind"]["kind"].as_str() {
        Some("ComputeTask") => judged::<ComputeTask>(&request["object"], validate::task),
        Some("ProviderPool") => judged::<ProviderPool>(&request["object"], validate::pool),
        _ => Vec::new(),
    };
    let mut response = json!({ "uid": uid, "allowed": findings.is_empty() });
    if !findings.is_empty() {
        response["status"] = json!({ "code": 422, "reason": "Invalid", "message": findings.join("; ") });
    }
    let verdict = if findings.is_empty() { Verdict::Allowed } else { Verdict::Refused };
    Ok((json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response }), verdict))
}

fn judged<K: DeserializeOwned>(object: &Value, judge: fn(&K) -> Vec<Finding>) -> Vec<String> {
    match K::deserialize(object) {
        Ok(object) => judge(&object).iter().map(ToString::to_string).collect(),
        // The schema refuses it with better words than ours; an object that only we can't read is not refused for that.
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(kind: &str, spec: Value) -> Vec<u8> {
        let object =
            json!({ "apiVersion": "supercargo.dev/v1alpha1", "kind": kind, "metadata": { "name": "t", "namespace": "n" }, "spec": spec });
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": { "uid": "u", "kind": { "kind": kind }, "object": object } }).to_string().into_bytes()
    }

    fn said(kind: &str, spec: Value) -> (bool, String) {
        let (answer, _) = answer(&review(kind, spec)).expect("a review");
        assert_eq!(answer["response"]["uid"], "u");
        let response = &answer["response"];
        (response["allowed"] == true, response["status"]["message"].as_str().unwrap_or_default().to_owned())
    }

    #[test]
    fn what_is_right_is_allowed_and_what_is_wrong_is_refused_with_every_finding() {
        assert_eq!(said("ComputeTask", json!({ "budget": "1", "image": "i" })), (true, String::new()));
        let wrong = json!({ "budget": "1", "image": "i", "env": [{ "name": "NVIDIA_X", "value": "1" }], "resources": { "cpu": "99999" } });
        let (allowed, message) = said("ComputeTask", wrong);
        assert!(!allowed);
        assert_eq!(
            message,
            "spec.env[0].name: NVIDIA_X begins with NVIDIA_, which is reserved: take another name; spec.resources.cpu: 99999 is more than any node has"
        );
    }

    #[test]
    fn kinds_that_are_not_ours_and_objects_that_only_the_schema_understands_are_allowed() {
        assert!(said("Deployment", json!({})).0);
        assert!(said("ComputeTask", json!({ "budget": 7 })).0);
    }

    #[test]
    fn what_is_no_review_is_an_error() {
        for body in [&b"{"[..], b"{}", b"null", b"[]", br#"{"apiVersion":"v1","request":{"uid":"u"}}"#] {
            assert_eq!(answer(body), Err(ReviewError::NotAReview));
        }
    }
}
