//! What a task is billed for beyond what it ran, where its card asks for a minimum. A second of one worker costs 0.001 here.

use super::ends_tests::{obeys, settled, write};
use super::simulation::{Theatre, gang, task};
use super::tests::{calm, ends, runs, set, until};
use super::{Booking, Effect};
use crate::world::records::{Pod, Task};
use supercargo_ledger::Posting;

/// Everybody's card asks for so much.
fn asking(minimum_seconds: i32, task: Task) -> Theatre {
    let mut theatre = calm([task]);
    theatre.pool.spec.pricing.minimum_seconds = minimum_seconds;
    theatre.restart();
    theatre
}

/// The next attempt has all its pods.
fn make(theatre: &mut Theatre) {
    for _ in 0..10 {
        theatre.pass();
        let wanted: usize = theatre.world.reservations.values().map(|held| held.placement.workers.len()).sum();
        if wanted > 0 && theatre.pods.values().filter(|pod| !pod.is_over()).count() == wanted {
            return;
        }
    }
    panic!("no attempt is made in ten passes")
}

/// The next attempt runs.
fn begin(theatre: &mut Theatre) {
    make(theatre);
    let now = theatre.now;
    set(theatre, |pod| {
        if !pod.is_over() {
            runs(pod, now);
        }
    });
}

/// The next attempt runs for so long, and ends like this.
fn attempt(theatre: &mut Theatre, seconds: i64, end: impl Fn(&mut Pod, i64)) {
    begin(theatre);
    theatre.now += seconds;
    let now = theatre.now;
    set(theatre, |pod| {
        if !pod.is_over() {
            end(pod, now);
        }
    });
    until(theatre, "free_pod");
    theatre.pass();
}

fn succeeds(pod: &mut Pod, at: i64) {
    ends(pod, at, 0);
}

fn fails(pod: &mut Pod, at: i64) {
    ends(pod, at, 1);
}

fn is_shut_down(pod: &mut Pod, at: i64) {
    ends(pod, at, 137);
    pod.reason = Some("NodeShutdown".into());
}

/// What each attempt was billed for, and what all of them cost.
fn told(theatre: &mut Theatre) -> (Vec<i64>, String) {
    let status = settled(theatre);
    let billed = status.attempts.iter().map(|attempt| attempt.billed_seconds).collect();
    let all = status.usage.map(|usage| usage.seconds);
    let balance = &theatre.world.works[&theatre.tasks["a"].work()];
    assert_eq!(all.map(i64::unsigned_abs), Some(balance.billed_seconds), "status and books say the same");
    (billed, balance.charged.to_string())
}

fn reserved(theatre: &mut Theatre) -> String {
    begin(theatre);
    theatre.world.reservations.values().next().expect("something is held back").reserved.to_string()
}

#[test]
fn a_task_that_is_shorter_than_the_minimum_is_billed_for_the_minimum_and_a_longer_one_for_what_it_ran() {
    for (ran, billed, cost) in [(0, 60, "0.06"), (10, 60, "0.06"), (60, 60, "0.06"), (61, 61, "0.061")] {
        let mut theatre = asking(60, task("a", "1", 0));
        attempt(&mut theatre, ran, succeeds);
        assert_eq!(told(&mut theatre), (vec![billed], cost.to_owned()), "it ran {ran} s");
    }
}

#[test]
fn what_is_added_is_told_apart_in_the_charge() {
    let mut theatre = asking(60, task("a", "1", 0));
    begin(&mut theatre);
    theatre.now += 10;
    let now = theatre.now;
    set(&mut theatre, |pod| succeeds(pod, now));
    let booked = until(&mut theatre, "book");
    let bookings = booked.iter().filter_map(|effect| if let Effect::Book(bookings) = effect { Some(bookings) } else { None });
    let charge =
        bookings.flatten().find_map(|booking| if let Booking::Post(Posting::Charge(charge)) = booking { Some(charge) } else { None });
    let charge = charge.expect("a charge");
    let metered = charge.metered.as_ref().expect("it is new");
    assert_eq!((charge.seconds, metered.added_seconds, charge.served_seconds()), (60, 50, 10));
    assert_eq!((metered.until - metered.from, metered.ended.by_provider), (10, false), "and the times are those of the run");
}

#[test]
fn a_providers_fault_costs_no_minimum_and_the_attempt_after_it_does() {
    let mut theatre = asking(60, task("a", "1", 0));
    attempt(&mut theatre, 10, is_shut_down);
    attempt(&mut theatre, 20, succeeds);
    assert_eq!(told(&mut theatre), (vec![0, 60], "0.06".to_owned()));
}

#[test]
fn a_task_that_fails_and_tries_again_is_brought_up_to_the_minimum_once() {
    let mut theatre = asking(60, task("a", "1", 1));
    attempt(&mut theatre, 40, fails);
    attempt(&mut theatre, 30, succeeds);
    assert_eq!(told(&mut theatre), (vec![60, 30], "0.09".to_owned()));
}

#[test]
fn a_task_that_is_suspended_and_resumed_is_brought_up_to_the_minimum_once() {
    let mut theatre = asking(60, task("a", "1", 0));
    begin(&mut theatre);
    theatre.now += 10;
    write(&mut theatre, |task| task.spec.suspend = true);
    theatre.pass();
    obeys(&mut theatre, 0);
    settled(&mut theatre);
    write(&mut theatre, |task| task.spec.suspend = false);
    attempt(&mut theatre, 5, succeeds);
    assert_eq!(told(&mut theatre), (vec![60, 5], "0.065".to_owned()));
}

#[test]
fn workers_of_a_gang_are_short_of_the_minimum_by_what_the_longest_of_them_is() {
    let mut theatre = asking(60, gang("a", "3", 0, 2, "All"));
    attempt(&mut theatre, 50, |pod, now| ends(pod, if pod.name.ends_with("-0") { now } else { now - 30 }, 0));
    assert_eq!(told(&mut theatre), (vec![60], "0.09".to_owned()), "50 s and 20 s, and 10 s more of each");
}

#[test]
fn a_task_that_never_ran_costs_no_minimum() {
    let mut theatre = asking(60, task("a", "1", 0));
    make(&mut theatre);
    write(&mut theatre, |task| task.spec.suspend = true);
    theatre.pass();
    obeys(&mut theatre, 0);
    assert_eq!(told(&mut theatre), (vec![0], "0.00".to_owned()));
}

#[test]
fn what_has_no_record_and_was_not_seen_for_a_second_costs_no_minimum() {
    for (seen_seconds, billed) in [(0, 0), (10, 60)] {
        let mut theatre = asking(60, task("a", "1", 0));
        make(&mut theatre);
        let begun = theatre.now;
        set(&mut theatre, |pod| {
            ends(pod, begun + seen_seconds, 0);
            (pod.started, pod.finished) = (None, None);
            (pod.first_running, pod.last_alive) = (Some(begun), Some(begun + seen_seconds));
        });
        assert_eq!(told(&mut theatre).0, vec![billed], "it was seen for {seen_seconds} s");
    }
}

#[test]
fn what_is_held_back_pays_for_the_minimum_as_far_as_the_budget_does() {
    // Ten minutes with their end cost 0.64.
    for (minimum, budget, held, billed) in [(60, "9", "0.64", 60), (3_600, "9", "3.60", 3_600), (3_600, "1", "1.00", 1_000)] {
        let mut theatre = asking(minimum, task("a", budget, 0));
        assert_eq!(reserved(&mut theatre), held, "{minimum} s within {budget}");
        theatre.now += 10;
        let now = theatre.now;
        set(&mut theatre, |pod| succeeds(pod, now));
        let cost = format!("{}.{:02}", billed / 1_000, billed % 1_000 / 10);
        assert_eq!(told(&mut theatre), (vec![billed], cost), "{minimum} s within {budget}");
    }
}
