//! When a run began, and so when it ends: by what we saw, and by what its node says where we looked late.

use super::ends_tests::{running, settled};
use super::simulation::{Theatre, task};
use crate::world::Event;
use crate::world::records::Node;

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
