//! What is remembered of a node's faults: over a restart, by when they happened, and not for ever.

use super::ends_tests::running;
use super::node::blame;
use super::node_tests::settled;
use super::simulation::{Theatre, task, terms};
use super::tests::{calm, ends, set, until};
use super::{Effect, plan};
use crate::world::records::PodPhase;

const DAY: i64 = 86_400;

fn faults(theatre: &Theatre) -> Vec<i64> {
    let record = theatre.written["n1"].record.as_ref().expect("a record");
    record.recent_faults.iter().map(|at| at.0.as_second()).collect()
}

/// Three faults at once, and how long the node is set apart for them.
fn set_apart(theatre: &mut Theatre) -> i64 {
    (0..3).for_each(|_| blame(&mut theatre.world, "n1", theatre.now));
    let status = settled(theatre, "n1");
    status.quarantine.expect("it is set apart").until.0.as_second() - theatre.now
}

#[test]
fn faults_before_the_third_are_known_to_whoever_leads_next() {
    let mut theatre = calm([]);
    settled(&mut theatre, "n1");
    let begun = theatre.now;
    for at in [begun, begun + 200] {
        theatre.now = at;
        blame(&mut theatre.world, "n1", at);
        settled(&mut theatre, "n1");
        theatre.restart();
    }
    assert_eq!(faults(&theatre), [begun, begun + 200]);
    theatre.now = begun + 599;
    blame(&mut theatre.world, "n1", begun + 599);
    assert!(theatre.world.is_set_apart("n1", begun + 600));
    settled(&mut theatre, "n1");
    assert!(faults(&theatre).is_empty(), "they have had their quarantine");
    theatre.restart();
    (0..2).for_each(|_| blame(&mut theatre.world, "n1", begun + 1_199));
    assert!(!theatre.world.is_set_apart("n1", begun + 1_199), "and do not count again");
}

#[test]
fn that_a_fault_does_not_count_any_more_is_no_reason_to_write() {
    let mut theatre = calm([]);
    settled(&mut theatre, "n1");
    blame(&mut theatre.world, "n1", theatre.now);
    let written = until(&mut theatre, "write_node");
    assert_eq!(written.len(), 1, "{written:?}");
    settled(&mut theatre, "n1");
    theatre.now += 601;
    theatre.restart();
    for _ in 0..6 {
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        assert!(effects.iter().all(|effect| !matches!(effect, Effect::WriteNode { .. })), "{effects:?}");
        effects.into_iter().for_each(|effect| theatre.carry_out(effect));
    }
}

#[test]
fn a_fault_counts_by_when_it_happened_and_not_by_when_it_is_told() {
    let mut theatre = running(task("a", "1", 0));
    let (begun, node) = (theatre.now, theatre.pods["a-uidofa-0-0"].node.clone().expect("a node"));
    // Nobody hears of it for an hour.
    theatre.now += 3_600;
    let now = theatre.now;
    set(&mut theatre, |pod| {
        ends(pod, begun + 60, 137);
        (pod.phase, pod.reason, pod.terminal) = (PodPhase::Failed, Some("Shutdown".into()), Some(now));
    });
    until(&mut theatre, "write_task");
    assert_eq!(theatre.world.quarantine[&node].faults, [begun + 60]);
    // So three of a whole hour, told at once, are none too many.
    for at in [begun + 1_000, begun + 2_000] {
        blame(&mut theatre.world, &node, at);
    }
    assert!(!theatre.world.is_set_apart(&node, now));
    let mut theatre = calm([]);
    for at in [3_000, 0, 1_000, 3_500, 2_000] {
        blame(&mut theatre.world, "n1", begun + at);
    }
    assert_eq!(theatre.world.quarantine["n1"].faults, [begun + 3_000, begun + 3_500], "in whatever order they are told");
}

#[test]
fn after_a_day_without_a_quarantine_the_next_is_as_short_as_the_first() {
    for restarts in [false, true] {
        let mut theatre = calm([]);
        let lengths: Vec<i64> = [0, DAY - 1, DAY - 1, DAY, 0]
            .into_iter()
            .map(|pause| {
                theatre.now += pause;
                if restarts {
                    theatre.restart();
                }
                let seconds = set_apart(&mut theatre);
                theatre.now += seconds;
                settled(&mut theatre, "n1");
                seconds
            })
            .collect();
        assert_eq!(lengths, [600, 1_200, 2_400, 600, 1_200], "restarts: {restarts}");
        assert_eq!(theatre.written["n1"].record.as_ref().map(|record| record.quarantines), Some(2));
    }
}

#[test]
fn one_power_cut_is_one_quarantine_however_many_tasks_it_ends() {
    let mut theatre = calm([]);
    let begun = theatre.now;
    // Some are heard of later, and some of what was told late happened before.
    for number in 0..24 {
        theatre.now = begun + 10 * number;
        blame(&mut theatre.world, "n1", begun + number % 3);
    }
    let record = &theatre.world.quarantine["n1"];
    assert_eq!((record.times, record.until, record.faults.len()), (1, begun + 2 + 600, 0));
    // What fails after it was let back counts again.
    (0..3).for_each(|_| blame(&mut theatre.world, "n1", begun + 602));
    assert_eq!(theatre.world.quarantine["n1"].times, 2);
}
