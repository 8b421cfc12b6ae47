//! When a run began, and so when it ends: by what we saw, and by what its node says where we looked late.

use super::ends_tests::{made, running, settled};
use super::simulation::{Theatre, task};
use crate::world::Event;
use crate::world::records::Node;
use supercargo_crds::names::task_condition::STARTED;

/// A task of ten minutes that began 300 s ago, and an operator that sees it only now, for the first time. By its node's clock, which
/// may be ahead of ours, its node told of itself so long after it began.
fn begun_unseen(node_ahead: i64, told_after: i64) -> (Theatre, i64) {
    let mut theatre = running(task("a", "1", 0));
    let begun = theatre.now;
    theatre.tasks.values_mut().for_each(|task| task.status.conditions.clear());
    theatre.now = begun + 300;
    let now = theatre.now;
    theatre.pods.values_mut().for_each(|pod| {
        (pod.started, pod.first_running, pod.last_alive) = (Some(begun + node_ahead), Some(now), Some(now));
    });
    theatre.restart();
    let told = |node: Node| Node { seen: now, heartbeat: Some(begun + node_ahead + told_after), ..node };
    let nodes: Vec<Node> = theatre.world.nodes.values().cloned().map(told).collect();
    nodes.into_iter().for_each(|node| theatre.world.apply(Event::Node(Box::new(node))));
    settled(&mut theatre);
    (theatre, begun)
}

/// Whether it is told to end then.
fn is_ended(theatre: &mut Theatre, at: i64) -> bool {
    theatre.now = at;
    settled(theatre);
    theatre.pods.values().any(|pod| pod.deleting)
}

#[test]
fn who_was_seen_late_to_run_runs_no_longer_for_it() {
    let cases = [
        ("its own start counts", 0, 300, 600),
        ("whatever its node's clock says", 4_000, 300, 600),
        ("old news say only that it began 200 s ago at the latest", 0, 100, 800),
        ("what was told before it started says nothing", 0, -10, 900),
    ];
    for (name, node_ahead, told_after, ends) in cases {
        let (mut theatre, begun) = begun_unseen(node_ahead, told_after);
        assert!(!is_ended(&mut theatre, begun + ends - 1), "{name}: its time is not over");
        assert!(is_ended(&mut theatre, begun + ends), "{name}");
    }
}

#[test]
fn a_node_whose_clock_is_set_after_a_start_was_told_ends_nothing() {
    let (mut theatre, begun) = begun_unseen(0, 300);
    let seen = theatre.now;
    let nodes: Vec<Node> =
        theatre.world.nodes.values().cloned().map(|node| Node { seen, heartbeat: Some(begun + 9_000), ..node }).collect();
    nodes.into_iter().for_each(|node| theatre.world.apply(Event::Node(Box::new(node))));
    assert!(!is_ended(&mut theatre, begun + 599));
    assert!(is_ended(&mut theatre, begun + 600));
}

#[test]
fn a_clock_of_ours_that_is_set_forward_ends_no_run_before_its_time() {
    let mut theatre = running(task("a", "1", 0));
    let begun = theatre.now;
    theatre.now += 5;
    settled(&mut theatre);
    theatre.now = begun + 3_600 + 100;
    theatre.world.clock_set(theatre.now, 3_600);
    let told = |theatre: &Theatre| super::status::since(&theatre.tasks["a"].status.conditions, STARTED);
    for at in [100, 300, 599] {
        assert!(!is_ended(&mut theatre, begun + 3_600 + at), "it has run for {at} s");
    }
    assert_eq!(told(&theatre), Some(begun), "when it began is told as it was");
    let deadline = theatre.tasks["a"].status.resolved.as_ref().and_then(|resolved| resolved.deadline.clone());
    assert_eq!(deadline, super::status::time(begun + 3_600 + 600), "and when it ends as that is now");
    assert!(is_ended(&mut theatre, begun + 3_600 + 600));
}

#[test]
fn of_a_run_that_was_seen_late_a_clock_that_is_set_forward_takes_nothing_and_adds_nothing() {
    let mut theatre = running(task("a", "1", 0));
    let begun = theatre.now;
    theatre.now += 5;
    settled(&mut theatre);
    theatre.now = begun + 300;
    theatre.pods.values_mut().for_each(|pod| pod.first_running = Some(begun + 300));
    theatre.restart();
    theatre.now = begun + 460;
    theatre.world.clock_set(theatre.now, 60);
    for at in [460, 500, 659] {
        assert!(!is_ended(&mut theatre, begun + at), "it has run for {} s", at - 60);
    }
    assert!(is_ended(&mut theatre, begun + 660));
}

#[test]
fn a_clock_of_ours_that_is_set_forward_takes_nobodys_time_to_start() {
    let mut theatre = made(task("a", "1", 0));
    let bound = theatre.world.reservations.values().next().expect("it is held").placement.bound;
    theatre.now = bound + 3_600 + 100;
    theatre.world.clock_set(theatre.now, 3_600);
    assert!(!is_ended(&mut theatre, bound + 3_600 + 599));
    assert!(is_ended(&mut theatre, bound + 3_600 + 600));
}
