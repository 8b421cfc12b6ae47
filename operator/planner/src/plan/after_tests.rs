//! What is kept when something is over: which image an attempt ran, and a finished task for as long as it says.

use super::ends_tests::{holds, obeys, running, settled, write};
use super::simulation::{Theatre, gang, task, terms};
use super::tests::{calm, ends, runs, set, until};
use super::{Effect, plan};
use crate::world::convert;
use supercargo_crds::names::task_condition::FINISHED;

/// Its task has run for a minute and succeeded, and nothing is left of its pod; when that was told.
fn finished(ttl_seconds: Option<i64>) -> (Theatre, i64) {
    let mut task = task("a", "1", 0);
    task.spec.ttl_seconds_after_finished = ttl_seconds;
    let mut theatre = running(task);
    theatre.now += 60;
    let now = theatre.now;
    set(&mut theatre, |pod| ends(pod, now, 0));
    while !theatre.pods.is_empty() {
        theatre.pass();
    }
    let at = super::status::since(&theatre.tasks["a"].status.conditions, FINISHED).expect("it is told");
    (theatre, at)
}

/// Whether the task is to go now, and else when it is looked at again.
fn goes(theatre: &mut Theatre, now: i64) -> (bool, Option<i64>) {
    theatre.now = now;
    let planned = plan(&mut theatre.world, &terms(), now);
    let mut gone = planned.effects.iter().filter_map(|effect| if let Effect::DeleteTask { uid, .. } = effect { Some(uid) } else { None });
    (gone.next().is_some_and(|uid| uid == "uid-of-a"), planned.wake)
}

#[test]
fn a_finished_task_is_kept_for_as_long_as_it_says_whoever_leads_then() {
    for restarts in [false, true] {
        let (mut theatre, at) = finished(Some(30));
        if restarts {
            theatre.restart();
        }
        let (gone, wake) = goes(&mut theatre, at + 29);
        assert!(!gone && wake.is_some_and(|wake| wake <= at + 30), "restarts: {restarts}, looked at again at {wake:?}");
        assert!(goes(&mut theatre, at + 30).0, "restarts: {restarts}");
        assert!(goes(&mut theatre, at + 31).0, "until it is gone, restarts: {restarts}");
    }
    let (mut theatre, at) = finished(Some(0));
    assert!(goes(&mut theatre, at).0);
    let (mut theatre, at) = finished(None);
    assert!(!goes(&mut theatre, at + 365 * 86_400).0, "until somebody deletes it");
}

#[test]
fn how_long_a_finished_task_is_kept_counts_from_its_end_also_when_it_is_said_later() {
    let (mut theatre, at) = finished(None);
    theatre.now = at + 100;
    write(&mut theatre, |task| task.spec.ttl_seconds_after_finished = Some(200));
    assert!(!goes(&mut theatre, at + 199).0);
    write(&mut theatre, |task| task.spec.ttl_seconds_after_finished = Some(150));
    assert!(goes(&mut theatre, at + 199).0);
}

#[test]
fn a_finished_task_does_not_go_before_its_pod_is_free() {
    let mut task = task("a", "1", 0);
    task.spec.ttl_seconds_after_finished = Some(0);
    let mut theatre = running(task);
    theatre.now += 60;
    let now = theatre.now;
    set(&mut theatre, |pod| ends(pod, now, 0));
    let free = until(&mut theatre, "free_pod");
    let (gone, wake) = goes(&mut theatre, now + 10);
    assert!(!gone && wake.is_some(), "its pod is still held: it is looked at again at {wake:?}");
    free.into_iter().for_each(|effect| theatre.carry_out(effect));
    assert!(goes(&mut theatre, now + 11).0);
}

/// All its pods run this image, by their numbers, and end a minute later with these codes.
fn ends_with(theatre: &mut Theatre, images: [Option<&str>; 2], codes: [i32; 2]) {
    while theatre.pods.len() < theatre.world.reservations.values().map(|held| held.placement.workers.len()).sum::<usize>().max(1) {
        theatre.pass();
    }
    let now = theatre.now;
    set(theatre, |pod| runs(pod, now));
    theatre.now += 60;
    set(theatre, |pod| {
        let worker = usize::from(pod.name.ends_with("-1"));
        pod.image_digest = images[worker].map(str::to_owned);
        ends(pod, now + 60, codes[worker]);
    });
}

fn digests(of: &supercargo_crds::task_status::ComputeTaskStatus) -> Vec<Option<&str>> {
    of.attempts.iter().map(|attempt| attempt.image_digest.as_deref()).collect()
}

#[test]
fn each_attempt_says_which_image_it_ran_and_the_task_which_the_last_one_did() {
    let mut theatre = calm([task("a", "1", 1)]);
    ends_with(&mut theatre, [Some("sha256:one"), None], [1, 0]);
    while !theatre.pods.is_empty() {
        theatre.pass();
    }
    ends_with(&mut theatre, [Some("sha256:two"), None], [0, 0]);
    let status = settled(&mut theatre);
    assert_eq!(digests(&status), [Some("sha256:one"), Some("sha256:two")]);
    assert_eq!(status.resolved.and_then(|resolved| resolved.image).as_deref(), Some("sha256:two"));
}

#[test]
fn of_a_gang_it_is_the_image_of_who_decided_the_end_and_of_who_never_ran_it_is_none() {
    let mut theatre = calm([gang("a", "3", 0, 2, "All")]);
    ends_with(&mut theatre, [Some("sha256:one"), Some("sha256:two")], [0, 7]);
    let status = settled(&mut theatre);
    assert_eq!(digests(&status), [Some("sha256:two")]);
    assert_eq!(status.resolved.and_then(|resolved| resolved.image).as_deref(), Some("sha256:one"), "of the first worker");

    let mut theatre = calm([task("a", "1", 0)]);
    until(&mut theatre, "create_pod").into_iter().for_each(|effect| theatre.carry_out(effect));
    theatre.pass();
    set(&mut theatre, |pod| pod.deleting = true);
    set(&mut theatre, |pod| {
        (pod.phase, pod.terminal) = (crate::world::records::PodPhase::Failed, Some(pod.ours.as_ref().map_or(0, |ours| ours.bound)))
    });
    let told = until(&mut theatre, "write_task");
    assert_eq!(digests(super::tests::status(&told)), [None]);
}

#[test]
fn an_image_is_read_as_the_nodes_runtime_resolved_it() {
    let read = |image: &str| {
        let container =
            serde_json::json!({ "name": "task", "image": "i:latest", "imageID": image, "ready": false, "restartCount": 0, "state": {} });
        let object = serde_json::json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": { "containers": [] },
            "status": { "phase": "Running", "containerStatuses": [container] },
        });
        convert::pod(&serde_json::from_value(object).expect("a pod"), 0).expect("a record").image_digest
    };
    assert_eq!(read("registry.test/i@sha256:0a").as_deref(), Some("registry.test/i@sha256:0a"));
    assert_eq!(read(""), None, "nothing was pulled yet");
}

#[test]
fn an_image_whose_name_a_status_has_no_room_for_keeps_no_task_from_its_end() {
    let mut theatre = running(task("a", "1", 0));
    let (now, long) = (theatre.now, format!("registry.test/{}@sha256:0a", "i".repeat(600)));
    set(&mut theatre, |pod| {
        pod.image_digest = Some(long.clone());
        ends(pod, now + 60, 0);
    });
    let status = settled(&mut theatre);
    assert_eq!((digests(&status), status.phase.as_deref()), (vec![None], Some("Succeeded")));
}

#[test]
fn an_attempt_that_had_begun_when_its_task_was_called_over_ends_and_is_told_beside_it() {
    let mut theatre = running(task("a", "1", 0));
    let begun = theatre.now;
    theatre.now += 20;
    write(&mut theatre, |task| {
        let mut said = task.status.clone();
        super::outcome::finish(task, &mut said, false, "QueueTimeout", "it found no place in time".into(), begun);
        task.status = said;
    });
    theatre.pass();
    obeys(&mut theatre, 143);
    let status = settled(&mut theatre);
    let told: Vec<_> = status.attempts.iter().map(|attempt| (attempt.index, attempt.billed_seconds)).collect();
    assert_eq!((told, theatre.pods.len()), (vec![(0, 20)], 0));
    let charged = theatre.world.works.values().next().map(|balance| balance.charged);
    assert_eq!(status.cost.as_ref().map(|cost| cost.charged.0), charged);
    assert_eq!(holds(&status, FINISHED), Some((true, "QueueTimeout".to_owned())));
}
