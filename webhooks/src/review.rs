//! Answering one admission review: pure. Only what is judged is read: the rest of a review costs no memory.

use serde::Deserialize;
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

/// What of a review says which object it is about.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    api_version: String,
    request: Request,
}

#[derive(Deserialize)]
struct Request {
    uid: String,
    kind: Kind,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

/// The same review again, for an object of a known kind.
#[derive(Deserialize)]
#[serde(bound(deserialize = "K: DeserializeOwned"))]
struct Objects<K> {
    request: Pair<K>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "K: DeserializeOwned"))]
struct Pair<K> {
    object: K,
    #[serde(default)]
    old_object: Option<Old>,
}

/// Of the old object only the spec is looked at.
#[derive(Deserialize)]
struct Old {
    spec: Value,
}

/// The answer to a review. Kinds that we do not know are allowed: they are somebody else's to judge.
pub fn answer(body: &[u8]) -> Result<(Value, Verdict), ReviewError> {
    let review: Envelope = serde_json::from_slice(body).map_err(|_| ReviewError::NotAReview)?;
    if review.api_version != "admission.k8s.io/v1" {
        return Err(ReviewError::NotAReview);
    }
    let findings = match review.request.kind.kind.as_str() {
        "ComputeTask" => judged::<ComputeTask>(body, validate::task),
        "ProviderPool" => judged::<ProviderPool>(body, validate::pool),
        _ => Vec::new(),
    };
    let mut response = json!({ "uid": review.request.uid, "allowed": findings.is_empty() });
    if !findings.is_empty() {
        response["status"] = json!({ "code": 422, "reason": "Invalid", "message": findings.join("; ") });
    }
    let verdict = if findings.is_empty() { Verdict::Allowed } else { Verdict::Refused };
    Ok((json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response }), verdict))
}

/// Nothing is found wrong with an object that is on its way out, nor with one whose spec stays as it was: who takes a
/// finalizer or a label off is not the one to mend a spec.
fn judged<K: DeserializeOwned + kube::Resource + kube::core::object::HasSpec>(body: &[u8], judge: fn(&K) -> Vec<Finding>) -> Vec<String>
where
    K::Spec: DeserializeOwned + PartialEq,
{
    // The schema refuses what can't be read with better words than ours; an object that only we can't read is allowed.
    let Ok(read) = serde_json::from_slice::<Objects<K>>(body) else { return Vec::new() };
    let Pair { object, old_object, .. } = read.request;
    let old_spec = old_object.and_then(|old| K::Spec::deserialize(old.spec).ok());
    if object.meta().deletion_timestamp.is_some() || old_spec.is_some_and(|old| old == *object.spec()) {
        return Vec::new();
    }
    judge(&object).iter().map(ToString::to_string).collect()
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
    fn an_object_on_its_way_out_and_a_spec_that_stays_are_never_refused() {
        let wrong = json!({ "budget": "1", "image": "i", "resources": { "cpu": "99999" } });
        let mut review: Value = serde_json::from_slice(&review("ComputeTask", wrong.clone())).expect("JSON");
        let refused = |review: &Value| answer(review.to_string().as_bytes()).expect("a review").1 == Verdict::Refused;
        assert!(refused(&review));
        review["request"]["oldObject"] = json!({ "spec": wrong });
        assert!(!refused(&review), "the spec stays");
        review["request"]["oldObject"] = json!({ "spec": { "budget": "1", "image": "another" } });
        assert!(refused(&review), "the spec changes");
        review["request"]["object"]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!refused(&review), "it goes");
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
