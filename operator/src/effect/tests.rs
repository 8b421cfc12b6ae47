//! Effects against an API server of a few lines, and how long they wait when it refuses them.

use super::{EffectError, Executor, FIRST_PAUSE, Hands, LONGEST_PAUSE, MOST_IN_FLIGHT, REFUSED_PAUSE, kubernetes};
use crate::plan::{Effect, Fitting};
use crate::runtime;
use crate::runtime::telemetry::Metrics;
use crate::world::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::Status;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use supercargo_crds::task_status::ComputeTaskStatus;
use supercargo_ledger::Ledger;
use supercargo_market::work::WorkId;
use warp::Filter;
use warp::http::{Method, StatusCode};

/// What it was asked: the method, the path and the body.
type Asked = (Method, String, Value);

/// Answers every request with what `answer` makes of it, and keeps what it was asked.
async fn api_server(answer: impl Fn(&Method) -> (u16, Value) + Clone + Send + Sync + 'static) -> (kube::Client, Arc<Mutex<Vec<Asked>>>) {
    // An error only says that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let seen = asked.clone();
    let parts = warp::method().and(warp::path::full()).and(warp::body::bytes());
    let page = parts.map(move |method: Method, path: warp::path::FullPath, body: warp::hyper::body::Bytes| {
        let (code, text) = answer(&method);
        let body = serde_json::from_slice(&body).unwrap_or_default();
        seen.lock().expect("nobody panics with it").push((method, path.as_str().to_owned(), body));
        warp::reply::with_status(warp::reply::json(&text), StatusCode::from_u16(code).expect("a code"))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(warp::serve(page).incoming(listener).run());
    let client = runtime::client(kube::Config::new(address.parse().expect("an address"))).expect("a client");
    (client, asked)
}

fn status(code: u16, message: &str, retry_after_seconds: u32) -> Value {
    let reason = if code == 404 { "NotFound" } else { "" };
    let details = json!({ "retryAfterSeconds": retry_after_seconds });
    json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message, "details": details })
}

fn write_task() -> Effect {
    let status = Box::new(ComputeTaskStatus::default());
    Effect::WriteTask { namespace: "n".into(), name: "t".into(), uid: "mine".into(), status, note: None }
}

fn task(uid: &str) -> Value {
    json!({
        "apiVersion": "supercargo.dev/v1alpha1", "kind": "ComputeTask",
        "metadata": { "name": "t", "namespace": "n", "uid": uid, "resourceVersion": "7" }, "spec": { "budget": "1", "image": "i" },
    })
}

#[tokio::test]
async fn a_status_is_written_only_onto_the_task_that_it_was_made_for_as_it_was_looked_at() {
    let (client, asked) = api_server(|_| (200, task("mine"))).await;
    let events = kubernetes::carry_out(&client, write_task()).await.expect("it is written");
    assert!(matches!(&events[..], [Event::Task(task)] if *task.uid == *"mine"), "{events:?}");
    let asked = asked.lock().expect("nobody panics with it");
    let [(Method::GET, _, _), (Method::PATCH, path, body)] = &asked[..] else { panic!("it looks, then writes: {asked:?}") };
    assert!(path.ends_with("/computetasks/t/status"), "{path}");
    assert_eq!(body["metadata"]["resourceVersion"], "7", "what came between is not written over");
}

#[tokio::test]
async fn another_task_of_the_same_name_and_none_are_left_alone() {
    for answer in [(200, task("another")), (404, status(404, "not found", 0))] {
        let (client, asked) = api_server(move |_| answer.clone()).await;
        let events = kubernetes::carry_out(&client, write_task()).await.expect("there is nothing to do");
        let asked = asked.lock().expect("nobody panics with it");
        assert!(matches!(&events[..], [Event::NoTask(uid)] if **uid == *"mine"), "what is not there is asked for no more: {events:?}");
        assert!(asked.len() == 1 && asked[0].0 == Method::GET, "{asked:?}");
    }
}

#[tokio::test]
async fn what_was_told_by_who_leads_now_is_not_untold_by_who_led_before() {
    let mut finished = task("mine");
    finished["status"] =
        json!({ "attempts": [{ "index": 0, "node": "n1", "outcome": "Succeeded", "billedSeconds": 7, "evidence": "Record" }] });
    let (client, asked) = api_server(move |_| (200, finished.clone())).await;
    let events = kubernetes::carry_out(&client, write_task()).await.expect("there is nothing to do");
    assert!(matches!(&events[..], [Event::Task(task)] if task.was_told(0)), "{events:?}");
    let asked = asked.lock().expect("nobody panics with it");
    assert!(asked.iter().all(|(method, ..)| *method == Method::GET), "{asked:?}");
}

#[tokio::test]
async fn a_task_that_changed_since_it_was_looked_at_is_tried_again() {
    let (client, _) =
        api_server(|method| if *method == Method::GET { (200, task("mine")) } else { (409, status(409, "changed", 0)) }).await;
    let error = kubernetes::carry_out(&client, write_task()).await.expect_err("it is not written");
    assert!(!error.needs_a_person() && error.event().is_none());
}

#[tokio::test]
async fn a_nodes_status_is_written_whole_whatever_somebody_else_has_written_there() {
    let node = json!({
        "apiVersion": "supercargo.dev/v1alpha1", "kind": "ProviderNode", "metadata": { "name": "n1", "uid": "node" },
        "spec": { "pool": "p", "nodeName": "n1" }, "status": { "quarantine": { "until": "2027-01-15T08:00:00Z" } },
    });
    let (client, asked) = api_server(move |_| (200, node.clone())).await;
    let effect = Effect::WriteNode { name: "n1".into(), status: Box::default(), note: None };
    let events = kubernetes::carry_out(&client, effect).await.expect("it is written");
    assert!(matches!(&events[..], [Event::ProviderNode(node)] if node.status.quarantine.is_some()), "half an object is read: {events:?}");
    let asked = asked.lock().expect("nobody panics with it");
    let [(Method::PATCH, path, body)] = &asked[..] else { panic!("one write: {asked:?}") };
    assert!(path.ends_with("/providernodes/n1/status"), "{path}");
    assert_eq!(*body, json!([{ "op": "add", "path": "/status", "value": { "observedGeneration": -1 } }]));
}

/// A pod of the task with this UID, which a finalizer holds or nothing does any more.
fn pod(of_task: &str, finalizers: &[&str], leaving: bool) -> Value {
    let labels = json!({
        "supercargo.dev/task": "t", "supercargo.dev/task-uid": of_task, "supercargo.dev/attempt": "0", "supercargo.dev/worker": "0",
    });
    let mut metadata = json!({
        "name": "t-0-0", "namespace": "n", "uid": "pod", "resourceVersion": "7", "labels": labels, "finalizers": finalizers,
    });
    if leaving {
        metadata["deletionTimestamp"] = "2027-01-15T08:00:00Z".into();
        metadata["deletionGracePeriodSeconds"] = 0.into();
    }
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": { "containers": [] } })
}

fn create_pod() -> Effect {
    let read = serde_json::from_value(pod("mine", &["supercargo.dev/evidence"], false)).expect("a pod");
    Effect::CreatePod { work: WorkId::task("mine"), fitting: None, pod: Box::new(read) }
}

#[tokio::test]
async fn a_pod_of_the_name_is_the_tasks_own_or_in_its_way() {
    let answer = |found: (u16, Value)| {
        move |method: &Method| if *method == Method::POST { (409, status(409, "it exists", 0)) } else { found.clone() }
    };
    let mut own = pod("mine", &[], false);
    own["metadata"]["labels"]["somebody"] = "put-it-there".into();
    let (client, _) = api_server(answer((200, own))).await;
    let events = kubernetes::carry_out(&client, create_pod()).await.expect("it was made before");
    assert!(matches!(&events[..], [Event::Pod(pod)] if pod.uid == "pod"), "{events:?}");

    let (client, _) = api_server(answer((200, pod("another", &[], false)))).await;
    let error = kubernetes::carry_out(&client, create_pod()).await.expect_err("its name is taken");
    assert!(error.needs_a_person(), "asking again at once helps nobody");
    let Some(Event::Unmade { pod, why, .. }) = error.event() else { panic!("the task is told of it") };
    assert_eq!((pod.as_str(), why.as_str()), ("t-0-0", "there is a pod t-0-0 already, and it is none of this task's"));

    // As when several write one quota.
    let (client, _) = api_server(answer((404, status(404, "not found", 0)))).await;
    let error = kubernetes::carry_out(&client, create_pod()).await.expect_err("it is not made");
    assert!(!error.needs_a_person() && error.event().is_none(), "it is tried again, after a pause");
}

#[tokio::test]
async fn a_pod_that_is_there_already_is_not_refused_for_the_quota_that_it_uses_up_itself() {
    let answer = |found: (u16, Value)| {
        move |method: &Method| if *method == Method::POST { (403, status(403, "exceeded quota", 0)) } else { found.clone() }
    };
    let (client, _) = api_server(answer((200, pod("mine", &[], false)))).await;
    let events = kubernetes::carry_out(&client, create_pod()).await.expect("it was made before");
    assert!(matches!(&events[..], [Event::Pod(pod)] if pod.uid == "pod"), "{events:?}");

    for found in [(404, status(404, "not found", 0)), (200, pod("another", &[], false))] {
        let (client, _) = api_server(answer(found)).await;
        let error = kubernetes::carry_out(&client, create_pod()).await.expect_err("it is refused");
        let Some(Event::Unmade { pod, why, .. }) = error.event() else { panic!("the task is told of it") };
        assert!(pod == "t-0-0" && why.contains("exceeded quota"), "{why}");
    }
}

#[tokio::test]
async fn the_finalizer_is_taken_off_as_it_was_looked_at_and_others_stay() {
    let ours = "supercargo.dev/evidence";
    let free = || Effect::FreePod { namespace: "n".into(), name: "t-0-0".into(), uid: "pod".into() };
    for (others, leaving) in [(vec!["acme.test/kept"], true), (vec![], false), (vec![], true)] {
        let before = [&others[..], &[ours]].concat();
        let (before, after) = (pod("mine", &before, leaving), pod("mine", &others, leaving));
        let answer = move |method: &Method| (200, if *method == Method::GET { before.clone() } else { after.clone() });
        let (client, asked) = api_server(answer).await;
        let events = kubernetes::carry_out(&client, free()).await.expect("it is free");
        let asked = asked.lock().expect("nobody panics with it");
        let patch = &asked.last().expect("it is patched").2["metadata"];
        assert_eq!((&patch["uid"], &patch["resourceVersion"], &patch["finalizers"]), (&json!("pod"), &json!("7"), &json!(others)));
        // What went with the answer is not there any more, whatever a watch tells first.
        let gone = matches!(&events[..], [Event::PodGone { uid, .. }] if uid == "pod");
        assert_eq!(gone, leaving && others.is_empty(), "{events:?}");
    }
    let (client, _) = api_server(|method| {
        if *method == Method::GET { (200, pod("mine", &["supercargo.dev/evidence"], true)) } else { (409, status(409, "changed", 0)) }
    })
    .await;
    let error = kubernetes::carry_out(&client, free()).await.expect_err("it has changed since");
    assert!(!error.needs_a_person() && error.event().is_none());
}

fn delete_pod(version: Option<&str>) -> Effect {
    let version = version.map(str::to_owned);
    Effect::DeletePod { namespace: "n".into(), name: "t-0-0".into(), uid: "pod".into(), grace_seconds: Some(0), version }
}

#[tokio::test]
async fn who_has_started_since_it_was_looked_at_is_not_ended_for_having_not() {
    let found = pod("mine", &[], false);
    let (client, asked) = api_server(move |method| match *method {
        Method::GET => (200, found.clone()),
        _ => (409, status(409, "the ResourceVersion in the precondition does not match", 0)),
    })
    .await;
    let events = kubernetes::carry_out(&client, delete_pod(Some("6"))).await.expect("it is looked at again");
    assert!(matches!(&events[..], [Event::Pod(pod)] if pod.version.as_deref() == Some("7")), "{events:?}");
    let first = asked.lock().expect("nobody panics with it")[0].2["preconditions"].clone();
    assert_eq!(first, json!({ "uid": "pod", "resourceVersion": "6" }));

    // Another one has its name by now.
    let mut other = pod("mine", &[], false);
    other["metadata"]["uid"] = json!("other");
    let (client, _) = api_server(move |method| match *method {
        Method::GET => (200, other.clone()),
        _ => (409, status(409, "the UID in the precondition does not match", 0)),
    })
    .await;
    let events = kubernetes::carry_out(&client, delete_pod(Some("6"))).await.expect("it is gone");
    assert!(matches!(&events[..], [Event::PodGone { uid, .. }] if uid == "pod"), "{events:?}");
}

#[tokio::test]
async fn what_is_to_be_deleted_and_is_not_there_is_gone_and_what_conflicts_is_tried_again() {
    let delete_pod = || delete_pod(None);
    let delete_task = || Effect::DeleteTask { namespace: "n".into(), name: "t".into(), uid: "mine".into() };
    let (client, _) = api_server(|_| (404, status(404, "not found", 0))).await;
    let events = kubernetes::carry_out(&client, delete_pod()).await.expect("it is gone");
    assert!(matches!(&events[..], [Event::PodGone { uid, .. }] if uid == "pod"), "{events:?}");
    let events = kubernetes::carry_out(&client, delete_task()).await.expect("it is gone");
    assert!(matches!(&events[..], [Event::NoTask(uid)] if **uid == *"mine"), "and not whoever has its name now: {events:?}");
    let (client, _) = api_server(|_| (409, status(409, "the UID in the precondition does not match", 0))).await;
    for effect in [delete_pod(), delete_task()] {
        let error = kubernetes::carry_out(&client, effect).await.expect_err("it is not known what is there");
        assert!(!error.needs_a_person() && error.event().is_none());
    }
}

#[tokio::test]
async fn who_is_refused_a_policy_is_told_which_and_why() {
    let (client, _) = api_server(|_| (403, status(403, "admission webhook \"w\" denied the request", 0))).await;
    let metadata = ObjectMeta { name: Some("p".into()), namespace: Some("n".into()), ..ObjectMeta::default() };
    let fittings = vec![Fitting::Policy(Box::new(NetworkPolicy { metadata, spec: None }))];
    let effect = Effect::FitNamespace { namespace: "n".into(), fittings, closed: Arc::default() };
    let error = kubernetes::carry_out(&client, effect).await.expect_err("it is refused");
    assert!(error.needs_a_person());
    let Some(Event::Unfit { namespace, why }) = error.event() else { panic!("the namespace is told of") };
    assert_eq!((namespace.as_str(), why.as_str()), ("n", "applying a NetworkPolicy: admission webhook \"w\" denied the request"));
}

#[tokio::test]
async fn a_request_that_is_turned_away_is_told_of_at_once_with_how_long_to_stay_away() {
    let (client, asked) = api_server(|_| (429, status(429, "too many requests", 7))).await;
    let error = kubernetes::carry_out(&client, write_task()).await.expect_err("it is turned away");
    assert_eq!(error.asked_pause(), Some(Duration::from_secs(7)));
    assert_eq!(asked.lock().expect("nobody panics with it").len(), 1);
}

#[test]
fn the_pause_after_a_failure_is_what_the_api_server_asks_for_and_never_longer_than_a_minute_and_a_half() {
    let error = |code: u16, retry_after_seconds: u32| {
        let status: Status = serde_json::from_value(status(code, "no", retry_after_seconds)).expect("a status");
        EffectError::Kubernetes { doing: "trying", source: kube::Error::Api(status.boxed()) }
    };
    // The code, what is asked for, how long the pauses have grown, and the shortest and the longest that comes of it.
    let cases = [
        (500, 0, FIRST_PAUSE, 0.1875, 0.3125),
        (500, 0, LONGEST_PAUSE, 45.0, 75.0),
        (409, 0, FIRST_PAUSE, 0.1875, 0.3125),
        (429, 0, FIRST_PAUSE, 1.0, 1.5),
        (429, 7, FIRST_PAUSE, 7.0, 10.5),
        (429, 1, Duration::from_secs(40), 30.0, 50.0),
        (429, 86_400, FIRST_PAUSE, 60.0, 90.0),
        (503, 3, FIRST_PAUSE, 3.0, 4.5),
        (403, 0, FIRST_PAUSE, REFUSED_PAUSE.as_secs_f64(), REFUSED_PAUSE.as_secs_f64()),
    ];
    for (code, asked, grown, shortest, longest) in cases {
        let pauses = [0, 999].map(|nanos| error(code, asked).pause(grown, nanos).as_secs_f64());
        let near = |one: f64, other: f64| (one - other).abs() <= other / 500.0;
        assert!(near(pauses[0], shortest) && near(pauses[1], longest), "{code} that asks for {asked} s: {pauses:?}");
    }
}

#[tokio::test]
async fn of_a_providers_node_only_its_name_and_its_pool_are_written() {
    let node = json!({
        "apiVersion": "supercargo.dev/v1alpha1", "kind": "ProviderNode", "metadata": { "name": "n1", "uid": "u" },
        "spec": { "nodeName": "n1", "pool": "acme", "availability": "Closed", "region": "mars" },
    });
    let (client, asked) = api_server(move |_| (200, node.clone())).await;
    let effect = Effect::ApplyNode { name: "n1".into(), pool: "acme".into() };
    let events = kubernetes::carry_out(&client, effect).await.expect("it is written");
    assert!(matches!(&events[..], [Event::ProviderNode(node)] if node.spec.region.as_deref() == Some("mars")), "{events:?}");
    let asked = asked.lock().expect("nobody panics with it");
    let [(Method::PATCH, path, body)] = &asked[..] else { panic!("it is applied, and nothing else: {asked:?}") };
    assert!(path.ends_with("/providernodes/n1"), "{path}");
    assert_eq!(body["spec"], json!({ "nodeName": "n1", "pool": "acme" }), "the rest is a person's");
}

#[tokio::test]
async fn the_books_are_written_however_many_requests_hang() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", silent.local_addr().expect("an address"));
    // An error only says that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = runtime::client(kube::Config::new(address.parse().expect("an address"))).expect("a client");
    let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
    let fence = ledger.take_lead("us").await.expect("leads");
    let (sender, mut done) = tokio::sync::mpsc::channel(1);
    let metrics = Metrics::new().expect("no name is there twice");
    let mut executor = Executor::new(Hands { client, ledger, usage: None }, sender, metrics);
    let free = |index: usize| Effect::FreePod { namespace: "n".into(), name: format!("p{index}"), uid: "u".into() };
    executor.start((0..80).map(free).collect(), fence);
    assert_eq!(executor.in_flight.len(), MOST_IN_FLIGHT);
    executor.start(vec![Effect::Book(Vec::new())], fence);
    let first = tokio::time::timeout(Duration::from_secs(30), done.recv()).await.expect("somebody is done").expect("a result");
    assert!(first.key == "books" && first.result.is_ok(), "{first:?}");
}
