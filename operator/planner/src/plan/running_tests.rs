//! What the books are told of works that run. A second of one worker costs 0.001 here.

use super::ends_tests::running;
use super::running::by_tokens;
use super::simulation::{Theatre, gang, task, terms};
use super::tests::{calm, ends, runs, set, until};
use super::{Booking, Effect, plan};
use crate::world::Event;
use crate::world::records::{Node, Task};
use supercargo_ledger::Posting;

/// The holds that passes find to tell the books, each with its second and units, while everything is carried out.
fn told(theatre: &mut Theatre, seconds: i64) -> Vec<(i64, Vec<u64>)> {
    let (begun, mut told) = (theatre.now, Vec::new());
    while theatre.now < begun + seconds {
        theatre.now += 1;
        for effect in plan(&mut theatre.world, &terms(), theatre.now).effects {
            if let Effect::Book(bookings) = &effect {
                told.extend(bookings.iter().filter_map(|booking| match booking {
                    Booking::Post(Posting::Hold { at, works }) => {
                        assert_eq!(*at, theatre.now);
                        Some((theatre.now - begun, works.iter().map(|(_, used)| used.units()).collect()))
                    }
                    _ => None,
                }));
            }
            theatre.carry_out(effect);
        }
    }
    told
}

fn balance(theatre: &Theatre) -> [u64; 4] {
    let (balance, _) = theatre.world.fundings.values().next().expect("there is one");
    [balance.available, balance.reserved, balance.held, balance.posted].map(|amount| amount.units())
}

fn silent(theatre: &mut Theatre) {
    for name in ["n1", "n2"] {
        let node = Node { ready: false, ready_since: theatre.now, ..theatre.node(name) };
        theatre.world.apply(Event::Node(Box::new(node)));
    }
}

#[test]
fn what_runs_is_told_to_the_books_once_a_minute_all_works_in_one_posting() {
    let mut theatre = calm((0..3).map(|number| task(&format!("t{number}"), "3", 0)));
    let begun = theatre.now;
    theatre.now += 59;
    for _ in 0..8 {
        theatre.pass();
    }
    let now = theatre.now;
    set(&mut theatre, |pod| runs(pod, now));
    theatre.now = begun + 60;
    assert_eq!(told(&mut theatre, 200), [(59, vec![60_000; 3]), (119, vec![120_000; 3]), (179, vec![180_000; 3])]);
    assert_eq!(balance(&theatre)[2], 540_000);
    assert_eq!(by_tokens(&theatre.world, theatre.now)["USDC"].used.units(), 3 * 201_000, "and in memory to the second");
    assert_eq!(by_tokens(&theatre.world, theatre.now)["USDC"].hour.to_string(), "10.80");
}

#[test]
fn while_the_books_do_not_answer_they_are_asked_again_each_second_and_nothing_is_lost() {
    let mut theatre = running(task("a", "3", 0));
    theatre.now += 97;
    for second in 98..101 {
        theatre.now += 1;
        let planned = books(&mut theatre);
        let [Booking::Post(Posting::Hold { works, .. })] = &planned[..] else { panic!("{planned:?}") };
        assert_eq!(works[0].1.units(), second * 1_000);
        assert_eq!(books(&mut theatre), [], "not with every pass");
    }
    theatre.restart();
    assert_eq!(told(&mut theatre, 1), [(1, vec![101_000])], "who leads next begins with it");
}

#[test]
fn the_record_of_the_end_takes_the_place_of_what_was_told() {
    let mut theatre = running(task("a", "3", 0));
    let begun = theatre.now;
    told(&mut theatre, 125);
    let [available, reserved, held, posted] = balance(&theatre);
    assert!(held >= 60_000 && posted == 0, "{held} held, {posted} charged");
    assert_eq!(available + reserved, 100_000_000, "and no money moves");
    // It had ended before: more was held than it has used.
    set(&mut theatre, |pod| ends(pod, begun + 30, 0));
    theatre.pass();
    assert_eq!(balance(&theatre), [99_970_000, 0, 0, 30_000]);
    assert_eq!(told(&mut theatre, 200), []);
}

#[test]
fn a_short_attempt_that_a_provider_ended_gives_all_of_it_back() {
    let mut theatre = running(task("a", "3", 0));
    let begun = theatre.now;
    told(&mut theatre, 125);
    assert!(balance(&theatre)[2] > 0);
    set(&mut theatre, |pod| {
        ends(pod, begun + 125, 137);
        pod.reason = Some("NodeShutdown".into());
    });
    theatre.pass();
    let [_, _, held, posted] = balance(&theatre);
    assert_eq!((held, posted), (0, 0));
}

#[test]
fn no_more_is_used_than_is_held_back_however_long_nobody_can_end_it() {
    // The books and the API server are away: nobody ends it.
    let mut long = task("a", "0.20", 0);
    long.spec.grace_period_seconds = 0;
    let mut theatre = running(long);
    theatre.now += 5_000;
    assert_eq!(by_tokens(&theatre.world, theatre.now)["USDC"].used.units(), 200_000);
    let planned = books(&mut theatre);
    let [Booking::Post(Posting::Hold { works, .. })] = &planned[..] else { panic!("{planned:?}") };
    assert_eq!(works[0].1.units(), 200_000);
    let now = theatre.now;
    set(&mut theatre, |pod| ends(pod, now, 0));
    theatre.pass();
    assert_eq!(balance(&theatre), [99_800_000, 0, 0, 200_000], "the rest is absorbed");
}

fn books(theatre: &mut Theatre) -> Vec<Booking> {
    let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
    let books = effects.into_iter().find_map(|effect| if let Effect::Book(bookings) = effect { Some(bookings) } else { None });
    books.unwrap_or_default()
}

#[test]
fn a_silent_nodes_pods_use_what_they_were_last_known_to() {
    let mut patient = task("a", "3", 0);
    patient.spec.on_node_loss = supercargo_crds::task::OnNodeLoss::Wait;
    let mut theatre = running(patient);
    theatre.now += 40;
    set(&mut theatre, |pod| pod.last_alive = pod.first_running.map(|first| first + 35));
    silent(&mut theatre);
    theatre.now += 300;
    assert_eq!(by_tokens(&theatre.world, theatre.now)["USDC"].used.units(), 35_000);
}

#[test]
fn a_gang_uses_nothing_before_its_last_worker_has_started() {
    let mut theatre = calm([gang("a", "3", 0, 2, "All")]);
    while theatre.pods.len() < 2 {
        theatre.pass();
    }
    let begun = theatre.now;
    set(&mut theatre, |pod| {
        if pod.name.ends_with("-0") {
            runs(pod, begun);
        }
    });
    theatre.now += 100;
    let live = by_tokens(&theatre.world, theatre.now)["USDC"];
    assert_eq!((live.used.units(), live.hour.units()), (0, 0));
    set(&mut theatre, |pod| {
        if pod.name.ends_with("-1") {
            runs(pod, begun + 100);
        }
    });
    theatre.now += 50;
    let live = by_tokens(&theatre.world, theatre.now)["USDC"];
    assert_eq!((live.used.units(), live.hour.to_string().as_str()), (2 * 50_000, "7.20"));
}

#[test]
fn a_clock_that_is_set_back_stops_no_minute() {
    let mut theatre = running(task("a", "3", 0));
    told(&mut theatre, 130);
    let now = theatre.now;
    set(&mut theatre, |pod| pod.last_alive = Some(now));
    theatre.now -= 86_400;
    let again = told(&mut theatre, 61);
    assert_eq!(again.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 61]);
}

#[test]
fn nothing_is_told_while_nothing_runs() {
    let mut waits: Task = task("a", "3", 0);
    waits.spec.start_timeout_seconds = 86_400;
    let mut theatre = calm([waits]);
    let made = until(&mut theatre, "create_pod");
    made.into_iter().for_each(|effect| theatre.carry_out(effect));
    assert_eq!(told(&mut theatre, 200), []);
}
