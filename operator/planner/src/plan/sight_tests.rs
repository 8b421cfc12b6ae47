//! What of a pod is seen, and when: what its node was silent about, and what is only told once more, is no sight of it.

use super::node_tests::stranger;
use super::simulation::Theatre;
use super::tests::calm;
use crate::world::Event;
use crate::world::records::{Node, Pod};

#[test]
fn a_node_that_comes_back_does_not_vouch_for_what_it_was_silent_about() {
    let mut theatre = calm([]);
    let begun = theatre.now;
    let running = Pod { first_running: Some(begun), last_alive: Some(begun), ..stranger("p", "n1") };
    theatre.world.apply(Event::Pod(Box::new(running.clone())));
    let heard = |theatre: &mut Theatre, ready: bool, since: i64, at: i64| {
        let node = Node { ready, ready_since: since, seen: at, ..theatre.node("n1") };
        theatre.world.apply(Event::Node(Box::new(node)));
        theatre.world.pods["uid-of-p"].last_alive
    };
    let since = theatre.node("n1").ready_since;
    assert_eq!(heard(&mut theatre, true, since, begun + 60), Some(begun + 60));
    assert_eq!(heard(&mut theatre, false, begun + 100, begun + 100), Some(begun + 60));
    // A watch that is begun anew lists the pod as it was.
    theatre.world.apply(Event::Pod(Box::new(Pod { last_alive: Some(begun + 500), ..running.clone() })));
    assert_eq!(heard(&mut theatre, true, begun + 900, begun + 900), Some(begun + 60));
    assert_eq!(heard(&mut theatre, true, begun + 900, begun + 905), Some(begun + 60), "what became of the pod is not told yet");
    theatre.world.apply(Event::Pod(Box::new(Pod { last_alive: Some(begun + 906), ..running })));
    assert_eq!(heard(&mut theatre, true, begun + 900, begun + 910), Some(begun + 910));
}

#[test]
fn a_pod_that_outlives_its_nodes_silence_is_alive_though_it_never_changes_again() {
    let mut theatre = calm([]);
    let begun = theatre.now;
    let pod = |theatre: &mut Theatre, version: &str, unready: bool, at: i64| {
        let seen = (!unready).then_some(begun + at);
        let pod = Pod { version: Some(version.to_owned()), unready, first_running: Some(begun), last_alive: seen, ..stranger("p", "n1") };
        theatre.world.apply(Event::Pod(Box::new(pod)));
    };
    let node = |theatre: &mut Theatre, ready: bool, since: i64, at: i64| {
        let node = Node { ready, ready_since: begun + since, seen: begun + at, ..theatre.node("n1") };
        theatre.world.apply(Event::Node(Box::new(node)));
        theatre.world.pods["uid-of-p"].last_alive.map(|last| last - begun)
    };
    pod(&mut theatre, "1", false, 0);
    node(&mut theatre, false, 100, 100);
    pod(&mut theatre, "2", true, 101);
    pod(&mut theatre, "3", false, 160);
    assert_eq!(node(&mut theatre, true, 160, 161), Some(0));
    assert_eq!(node(&mut theatre, true, 160, 220), Some(0), "others may still be told of");
    assert_eq!(node(&mut theatre, true, 160, 221), Some(221));
    assert_eq!(node(&mut theatre, true, 160, 9_000), Some(9_000), "it never changes again");
    // The next time nobody tells of it.
    node(&mut theatre, false, 9_100, 9_100);
    pod(&mut theatre, "4", true, 9_101);
    node(&mut theatre, true, 9_200, 9_200);
    assert_eq!(node(&mut theatre, true, 9_200, 9_300), Some(9_000));
}

#[test]
fn a_kubelets_clock_that_is_ahead_keeps_nobody_from_hearing_of_its_pods() {
    let mut theatre = calm([]);
    let begun = theatre.now;
    let node = |theatre: &mut Theatre, ready: bool, at: i64| {
        let node = Node { ready, ready_since: begun + 400, seen: begun + at, ..theatre.node("n1") };
        theatre.world.apply(Event::Node(Box::new(node)));
    };
    node(&mut theatre, false, 50);
    node(&mut theatre, true, 100);
    let pod = Pod { first_running: Some(begun + 110), last_alive: Some(begun + 110), ..stranger("p", "n1") };
    theatre.world.apply(Event::Pod(Box::new(pod)));
    node(&mut theatre, true, 500);
    assert_eq!(theatre.world.pods["uid-of-p"].last_alive, Some(begun + 500));
}

#[test]
fn a_pod_that_is_listed_once_more_as_it_was_is_no_sign_of_life() {
    let mut theatre = calm([]);
    let begun = theatre.now;
    let mut seen = |version: &str, at: i64| {
        let (version, seen) = (Some(version.to_owned()), Some(begun + at));
        theatre.world.apply(Event::Pod(Box::new(Pod { version, first_running: seen, last_alive: seen, ..stranger("p", "n1") })));
        theatre.world.pods["uid-of-p"].last_alive.map(|last| last - begun)
    };
    assert_eq!(seen("7", 5), Some(5));
    assert_eq!(seen("7", 3_000), Some(5), "a watch that began anew");
    assert_eq!(seen("8", 3_001), Some(3_001));
}

#[test]
fn when_its_kubelet_told_of_an_end_outlives_that_somebody_told_of_one_before() {
    let told = |containers: serde_json::Value, at: i64| {
        let pod = serde_json::json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u" },
            "spec": { "nodeName": "n1", "containers": [] },
            "status": { "phase": "Failed", "containerStatuses": containers },
        });
        crate::world::convert::pod(&serde_json::from_value(pod).expect("a pod"), at).expect("a record")
    };
    let ended = serde_json::json!([{
        "name": "main", "ready": false, "restartCount": 0, "image": "", "imageID": "",
        "state": { "terminated": { "exitCode": 1, "startedAt": "2027-01-15T08:00:00Z", "finishedAt": "2027-01-15T08:00:40Z" } },
    }]);
    let mut theatre = calm([]);
    let mut seen = |pod: Pod| {
        theatre.world.apply(Event::Pod(Box::new(pod)));
        let pod = &theatre.world.pods["u"];
        (pod.terminal, pod.recorded)
    };
    assert_eq!(seen(told(serde_json::json!([]), 1_800_000_010)), (Some(1_800_000_010), None));
    assert_eq!(seen(told(ended.clone(), 1_800_000_041)), (Some(1_800_000_010), Some(1_800_000_041)));
    assert_eq!(seen(told(ended, 1_800_000_090)), (Some(1_800_000_010), Some(1_800_000_041)));
}

#[test]
fn a_pod_that_is_told_to_be_unready_is_no_sign_of_life() {
    let seen = |ready: &str| {
        let pod = serde_json::json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u" },
            "spec": { "nodeName": "n1", "containers": [] },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] },
        });
        let pod = crate::world::convert::pod(&serde_json::from_value(pod).expect("a pod"), 7).expect("a record");
        (pod.first_running, pod.last_alive)
    };
    assert_eq!(seen("True"), (Some(7), Some(7)));
    assert_eq!(seen("False"), (Some(7), None));
}

#[test]
fn whoever_waits_for_a_time_of_a_clock_that_was_set_back_waits_no_longer() {
    let mut theatre = calm([]);
    let (now, work) = (theatre.now, supercargo_market::work::WorkId::task("u"));
    theatre.pass();
    theatre.world.resting.insert(work.clone(), now + 3_000);
    theatre.world.refusals.insert(work, ("there is too little".into(), now));
    theatre.now = now + 1;
    theatre.pass();
    assert_eq!((theatre.world.resting.len(), theatre.world.refusals.len()), (1, 1));
    theatre.now = now - 3_600;
    theatre.pass();
    assert_eq!((theatre.world.resting.len(), theatre.world.refusals.len()), (0, 0));
}
