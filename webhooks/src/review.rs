//! Answering one admission review: pure. Only what is judged is read: the rest of a review costs no memory.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use supercargo_crds::names::GROUP;
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
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    kind: Kind,
    #[serde(default)]
    old_object: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    group: String,
    kind: String,
}

/// The same review again, for an object of a known kind. Of the object only what is judged: what its managers wrote about
/// its fields is often the larger part of it.
#[derive(Deserialize)]
#[serde(bound(deserialize = "S: DeserializeOwned"))]
struct New<S> {
    request: NewObject<S>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "S: DeserializeOwned"))]
struct NewObject<S> {
    object: Object<S>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "S: DeserializeOwned"))]
struct Object<S> {
    #[serde(default)]
    metadata: Metadata,
    spec: S,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    deletion_timestamp: Option<IgnoredAny>,
}

/// And of the old object, where there is one, the spec.
#[derive(Deserialize)]
#[serde(bound(deserialize = "S: DeserializeOwned"))]
struct Old<S> {
    request: OldObject<S>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: DeserializeOwned"))]
struct OldObject<S> {
    old_object: Spec<S>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "S: DeserializeOwned"))]
struct Spec<S> {
    spec: S,
}

/// The answer to a review. Kinds that we do not know are allowed: they are somebody else's to judge.
pub fn answer(body: &[u8]) -> Result<(Value, Verdict), ReviewError> {
    let review: Envelope = serde_json::from_slice(body).map_err(|_| ReviewError::NotAReview)?;
    if review.api_version != "admission.k8s.io/v1" {
        return Err(ReviewError::NotAReview);
    }
    let Request { uid, kind: Kind { group, kind }, old_object } = review.request;
    let changed = old_object.is_some();
    let findings = match (group.as_str(), kind.as_str()) {
        (GROUP, "ComputeTask") => judged(body, changed, |name, spec| validate::task(&ComputeTask::new(name, spec))),
        (GROUP, "ProviderPool") => judged(body, changed, |name, spec| validate::pool(&ProviderPool::new(name, spec))),
        _ => Vec::new(),
    };
    let mut response = json!({ "uid": uid, "allowed": findings.is_empty() });
    if !findings.is_empty() {
        response["status"] = json!({ "code": 422, "reason": "Invalid", "message": validate::told(&findings) });
    }
    let verdict = if findings.is_empty() { Verdict::Allowed } else { Verdict::Refused };
    Ok((json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response }), verdict))
}

/// Nothing is found wrong with an object that is on its way out, nor with one whose spec stays as it was: who takes a
/// finalizer or a label off is not the one to mend a spec.
fn judged<S: DeserializeOwned + PartialEq>(body: &[u8], changed: bool, judge: fn(&str, S) -> Vec<Finding>) -> Vec<Finding> {
    // The schema refuses what can't be read with better words than ours; an object that only we can't read is allowed.
    let Ok(New { request: NewObject { object } }) = serde_json::from_slice::<New<S>>(body) else { return Vec::new() };
    let same = || serde_json::from_slice::<Old<S>>(body).is_ok_and(|old| old.request.old_object.spec == object.spec);
    if object.metadata.deletion_timestamp.is_some() || (changed && same()) {
        return Vec::new();
    }
    judge(&object.metadata.name.unwrap_or_default(), object.spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(kind: &str, spec: Value) -> Vec<u8> {
        let object =
            json!({ "apiVersion": "supercargo.dev/v1alpha1", "kind": kind, "metadata": { "name": "t", "namespace": "n" }, "spec": spec });
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": { "uid": "u", "kind": { "group": GROUP, "kind": kind }, "object": object } }).to_string().into_bytes()
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
            "spec.env[0].name: NVIDIA_X begins with NVIDIA_, which is reserved: take another name; spec.resources.cpu: 99999 is more than any node has: at most 10000"
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
    fn of_many_findings_the_first_are_told_and_how_many_more_there_are() {
        let env: Vec<Value> = (0..30).map(|index| json!({ "name": format!("NVIDIA_{index}"), "value": "1" })).collect();
        let (allowed, message) = said("ComputeTask", json!({ "budget": "1", "image": "i", "env": env }));
        assert!(!allowed);
        assert_eq!(message.matches("is reserved").count(), validate::MOST_FINDINGS);
        assert!(message.ends_with("; and 10 more"), "{message}");
        let long = json!({ "budget": "1", "image": "i", "env": [{ "name": format!("NVIDIA_{}", "\u{00e9}".repeat(100_000)) }] });
        assert!(said("ComputeTask", long).1.len() < 2_000);
    }

    #[test]
    fn a_kind_of_another_group_is_not_ours() {
        let mut review: Value =
            serde_json::from_slice(&review("ComputeTask", json!({ "budget": "1", "image": "i", "resources": { "cpu": "99999" } })))
                .expect("JSON");
        review["request"]["kind"]["group"] = json!("batch");
        assert_eq!(answer(review.to_string().as_bytes()).expect("a review").1, Verdict::Allowed);
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
