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

