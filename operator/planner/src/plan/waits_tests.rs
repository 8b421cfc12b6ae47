//! What keeps a task from its place: how long it may wait, nodes that take nothing, and an API server that does not let its
//! pod be made.

use super::ends_tests::{holds, running, settled, write};
use super::simulation::{Theatre, task, terms};
use super::tests::{calm, ends, pods, set, status, until};
use super::{Booking, Effect, plan};
use crate::world::Event;
use crate::world::records::{Node, Task};
use supercargo_crds::task_status::ComputeTaskStatus;
use supercargo_ledger::Posting;
use supercargo_market::placement::Closed;

fn patient(seconds: i64) -> Task {
    let mut task = task("a", "1", 1);
    task.spec.queue_timeout_seconds = Some(seconds);
    task
}

fn sells_nothing(theatre: &mut Theatre) {
    theatre.world.apply(Event::PoolGone("pool".into()));
}

#[test]
fn only_the_time_that_a_task_waits_counts_against_its_queue_timeout() {
    let timed_out = |theatre: &mut Theatre| holds(&settled(theatre), "Finished").is_some_and(|(_, reason)| reason == "QueueTimeout");
    let mut theatre = calm([patient(100)]);
    let begun = theatre.now;
    sells_nothing(&mut theatre);
    theatre.now = begun + 99;
    assert!(!timed_out(&mut theatre));
    write(&mut theatre, |task| task.spec.suspend = true);
    assert_eq!(settled(&mut theatre).waiting_since, None);
    theatre.now = begun + 5_000;
    assert!(!timed_out(&mut theatre), "nobody waits while it is suspended");
    write(&mut theatre, |task| task.spec.suspend = false);
    assert!(!timed_out(&mut theatre));
    theatre.now += 60;
    theatre.restart();
    sells_nothing(&mut theatre);
    assert!(!timed_out(&mut theatre), "a restart forgets nothing");
    theatre.now += 39;
    assert!(!timed_out(&mut theatre));
    theatre.now += 1;
    assert!(timed_out(&mut theatre));

    // It runs for longer than it may wait, and fails: its wait for another place begins then.
    let mut theatre = running(patient(100));
    theatre.now += 500;
    let now = theatre.now;
    set(&mut theatre, |pod| ends(pod, now, 1));
    sells_nothing(&mut theatre);
    theatre.now += 99;
    assert!(!timed_out(&mut theatre), "it is told only now that it waits");
    let since = theatre.tasks["a"].status.waiting_since.as_ref().map(|since| since.0.as_second());
    theatre.now = since.expect("it waits") + 99;
    assert!(!timed_out(&mut theatre));
    theatre.now += 1;
    assert!(timed_out(&mut theatre));
}

#[test]
fn a_cordoned_node_is_offered_to_nobody() {
    let mut theatre = calm([]);
    settle_nodes(&mut theatre);
    for name in ["n1", "n2"] {
        let node = Node { cordoned: true, ..theatre.node(name) };
        theatre.world.apply(Event::Node(Box::new(node)));
        let closed: Vec<_> =
            theatre.world.offers_of(name, &terms().data_classes, theatre.now).into_iter().map(|offer| offer.closed).collect();
        assert_eq!(closed, [Some(Closed::Cordoned)]);
    }
    let task = task("a", "1", 0);
    theatre.tasks.insert("a".into(), task.clone());
    theatre.world.apply(Event::Task(Box::new(task)));
    let waits = until(&mut theatre, "write_task");
    let waiting = &status(&waits).waiting;
    assert_eq!((waiting[0].reason.as_str(), waiting[0].nodes), ("NodeCordoned", 2));
    waits.into_iter().for_each(|effect| theatre.carry_out(effect));
    let node = theatre.node("n2");
    theatre.world.apply(Event::Node(Box::new(node)));
    let made = until(&mut theatre, "create_pod");
    assert_eq!(pods(&made)[0].spec.as_ref().and_then(|spec| spec.node_name.as_deref()), Some("n2"));
}

fn settle_nodes(theatre: &mut Theatre) {
    for _ in 0..6 {
        theatre.pass();
    }
}

#[test]
fn how_often_a_node_was_set_apart_is_known_also_after_it_was_open_again_and_the_operator_began_anew() {
    let mut theatre = calm([]);
    let set_apart = |theatre: &mut Theatre| {
        for _ in 0..3 {
            super::node::blame(&mut theatre.world, "n1", theatre.now);
        }
        settle_nodes(theatre);
        theatre.written["n1"].quarantine.as_ref().map(|quarantine| quarantine.until.0.as_second() - theatre.now)
    };
    for seconds in [600, 1_200, 2_400] {
        assert_eq!(set_apart(&mut theatre), Some(seconds));
        theatre.now += seconds;
        settle_nodes(&mut theatre);
        assert_eq!(theatre.written["n1"].quarantine, None);
        theatre.restart();
        settle_nodes(&mut theatre);
    }
    assert_eq!(theatre.written["n1"].record.as_ref().map(|record| record.quarantines), Some(3));
}

/// The API server says no to the pod that is to be made.
pub(super) fn refusal(effect: &Effect) -> Event {
    let Effect::CreatePod { work, pod, .. } = effect else { panic!("it is a pod: {effect}") };
    Event::Unmade { work: work.clone(), pod: pod.metadata.name.clone().expect("a name"), why: "exceeded quota: gpus".into() }
}

/// It does; what becomes of the task then.
fn refuse(theatre: &mut Theatre, first: bool) -> ComputeTaskStatus {
    let made = until(theatre, "create_pod");
    theatre.world.apply(refusal(&made[0]));
    if first {
        let told = until(theatre, "write_task");
        assert_eq!(holds(status(&told), "Started"), Some((false, "PodRefused".to_owned())));
        told.into_iter().for_each(|effect| theatre.carry_out(effect));
    }
    let known = plan(&mut theatre.world, &terms(), theatre.now).effects;
    assert!(known.iter().all(|effect| effect.kind() != "write_task"), "that is told already: {known:?}");
    theatre.now += 1;
    let book = until(theatre, "book");
    assert!(matches!(&book[..], [Effect::Book(all)] if matches!(all[..], [Booking::Post(Posting::Release { .. })])), "{book:?}");
    book.into_iter().for_each(|effect| theatre.carry_out(effect));
    settled(theatre)
}

#[test]
fn a_task_whose_pod_is_refused_gives_its_place_back_and_asks_again_later_each_time() {
    let mut theatre = calm([patient(1_000)]);
    let begun = theatre.now;
    for (attempt, pause) in [(0, 5), (1, 10), (2, 20), (3, 40)] {
        let status = refuse(&mut theatre, attempt == 0);
        assert!(theatre.world.reservations.is_empty() && theatre.pods.is_empty(), "attempt {attempt}");
        assert_eq!((status.phase.as_deref(), status.waiting[0].reason.as_str()), (Some("Waiting"), "PodRefused"));
        assert_eq!(status.waiting[0].example, "exceeded quota: gpus");
        assert_eq!(["Reserved", "Placed"].map(|kind| holds(&status, kind)), [None, None], "its place is free for others");
        assert_eq!(status.waiting_since.map(|since| since.0.as_second()), Some(begun), "all of it is one wait");
        theatre.now += pause - 1;
        let soon = plan(&mut theatre.world, &terms(), theatre.now).effects;
        assert!(soon.iter().all(|effect| effect.kind() != "book"), "{pause}: {soon:?}");
        theatre.now += 1;
    }
    // The quota is raised.
    let made = until(&mut theatre, "create_pod");
    assert_eq!(pods(&made)[0].metadata.name.as_deref(), Some("a-uidofa-4-0"));
    made.into_iter().for_each(|effect| theatre.carry_out(effect));
    theatre.pass();
    assert!(theatre.world.unmade.is_empty() && theatre.pods.len() == 1);
}

#[test]
fn a_task_whose_pod_is_refused_for_too_long_comes_to_its_queue_timeout() {
    let mut theatre = calm([patient(20)]);
    refuse(&mut theatre, true);
    theatre.now += 20;
    assert_eq!(holds(&settled(&mut theatre), "Finished"), Some((true, "QueueTimeout".to_owned())));
}
