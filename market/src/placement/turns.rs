//! Whose turn it is, and what is kept for whom.

use super::ranking::Limits;
use super::tests::{offer, request};
use super::*;
use std::sync::Arc;

fn waiting(id: &str, request: Request, created: i64, workers: u32, seconds: i64) -> Waiting {
    Waiting { id: id.into(), request: Arc::new(request), priority: 0, created, workers, topology: Topology::Any, seconds }
}

fn placed(pass: Pass) -> Vec<String> {
    pass.placed.into_iter().map(|(id, _)| id.to_string()).collect()
}

#[test]
fn an_escrow_that_holds_less_goes_first_then_priority_then_age() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    let of = |escrow: &str| Request { funding: FundingId::internal(escrow), ..request() };
    exchange.wait(&waiting("a-old", of("a"), 1, 1, 60));
    exchange.wait(&waiting("a-new", of("a"), 2, 1, 60));
    exchange.wait(&Waiting { priority: 9, ..waiting("a-urgent", of("a"), 3, 1, 60) });
    exchange.wait(&waiting("b-late", of("b"), 4, 1, 60));
    assert_eq!(placed(exchange.assign(0)), ["a-urgent", "b-late", "a-old", "a-new"]);
}

#[test]
fn of_large_tasks_of_one_escrow_that_did_not_fit_the_one_of_higher_priority_goes_first() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    let large = || Request { devices: 4, ..request() };
    exchange.wait(&waiting("has", large(), 1, 1, 60));
    assert_eq!(placed(exchange.assign(0)), ["has"]);
    for (id, priority, created) in [("low", 0, 2), ("high", 5, 3)] {
        exchange.wait(&Waiting { priority, ..waiting(id, large(), created, 1, 60) });
        assert!(placed(exchange.assign(created)).is_empty(), "there is no room for {id}");
    }
    exchange.ended("has");
    assert_eq!(placed(exchange.assign(9)), ["high"]);
    exchange.ended("high");
    assert_eq!(placed(exchange.assign(10)), ["low"]);
}

#[test]
fn while_urgent_ones_go_before_a_large_task_nobody_else_takes_what_it_waits_for() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    exchange.wait(&waiting("first", held_by("a"), 0, 2, 100));
    assert_eq!(placed(exchange.assign(0)), ["first"]);
    exchange.wait(&waiting("large", Request { devices: 4, ..held_by("a") }, 1, 1, 60));
    assert!(placed(exchange.assign(1)).is_empty());
    exchange.wait(&Waiting { priority: 9, ..waiting("urgent", held_by("a"), 2, 1, 60) });
    exchange.wait(&waiting("other", held_by("b"), 2, 1, 2_000));
    assert_eq!(placed(exchange.assign(2)), ["urgent"]);
}

#[test]
fn an_escrow_whose_urgent_ones_put_off_its_large_task_for_ever_keeps_nothing_from_others() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    for number in 0..4 {
        exchange.wait(&waiting(&format!("a-{number}"), held_by("a"), 0, 1, 100));
    }
    assert_eq!(placed(exchange.assign(0)).len(), 4);
    exchange.wait(&waiting("large", Request { devices: 4, ..held_by("a") }, 1, 1, 60));
    for number in 4..60 {
        exchange.wait(&Waiting { priority: 9, ..waiting(&format!("a-{number}"), held_by("a"), 2, 1, 100) });
        exchange.wait(&waiting(&format!("b-{number}"), held_by("b"), 2, 1, 100));
    }
    assert!(placed(exchange.assign(1)).is_empty());
    let mut runs: Vec<String> = (0..4).map(|number| format!("a-{number}")).collect();
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for second in 2..26_i64 {
        // One ends every ten seconds.
        exchange.ended(&runs.remove(0));
        let came = placed(exchange.assign(10 * second));
        assert!(came.len() == 1, "each place is taken again: {came:?}");
        runs.extend(came.iter().cloned());
        if 10 * second < 100 { before.extend(came) } else { after.extend(came) }
    }
    let theirs = |came: &[String]| came.iter().filter(|id| id.starts_with('b')).count();
    assert_eq!(theirs(&before), 0, "until the large one was to begin nobody else takes what it waits for");
    assert!(theirs(&after).abs_diff(after.len() / 2) <= 1, "and from then on the turns are fair: {after:?}");
    // It waits for nobody but those who run, once nothing goes before it.
    (0..60).for_each(|number| exchange.forget(&format!("a-{number}")));
    assert!(placed(exchange.assign(300)).is_empty());
    exchange.ended(&runs.remove(0));
    assert!(placed(exchange.assign(301)).is_empty(), "what is free is kept for it again");
    runs.iter().for_each(|id| exchange.ended(id));
    assert_eq!(placed(exchange.assign(302)).first().map(String::as_str), Some("large"));
}

#[test]
fn passes_that_find_nothing_free_do_not_begin_anew_what_is_kept() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    for number in 0..4 {
        exchange.wait(&waiting(&format!("a-{number}"), held_by("a"), 0, 1, 100));
    }
    assert_eq!(placed(exchange.assign(0)).len(), 4);
    exchange.wait(&waiting("large", Request { devices: 4, ..held_by("a") }, 1, 1, 60));
    for number in 4..8 {
        exchange.wait(&Waiting { priority: 9, ..waiting(&format!("a-{number}"), held_by("a"), 2, 1, 1_000) });
        exchange.wait(&waiting(&format!("b-{number}"), held_by("b"), 3, 1, 1_000));
    }
    // They run longer than they may, as what ends on a silent node does; and something else changes now and then.
    for second in [1, 100, 150, 200] {
        exchange.wait(&Waiting { priority: 9, ..waiting(&format!("a-then-{second}"), held_by("a"), second, 1, 1_000) });
        assert!(placed(exchange.assign(second)).is_empty());
    }
    (0..2).for_each(|number| exchange.ended(&format!("a-{number}")));
    assert_eq!(placed(exchange.assign(201)), ["b-4", "b-5"], "the time of the large one is over, and others hold less");
}

#[test]
fn an_escrow_with_one_large_task_after_the_other_does_not_have_all_that_is_freed() {
    let mut exchange = Exchange::new();
    ["n1", "n2"].into_iter().for_each(|node| exchange.offer(&offer(node, "1")));
    let whole = || Request { devices: 4, ..held_by("a") };
    (0..9).for_each(|number| exchange.wait(&waiting(&format!("a-{number}"), whole(), 0, 1, 100 + number)));
    assert_eq!(placed(exchange.assign(0)), ["a-0", "a-1"]);
    (0..9).for_each(|number| exchange.wait(&waiting(&format!("b-{number}"), held_by("b"), 1, 1, 1_000)));
    assert!(placed(exchange.assign(1)).is_empty());
    exchange.ended("a-0");
    assert_eq!(placed(exchange.assign(100)), ["a-2"], "what was kept for it");
    exchange.ended("a-1");
    assert_eq!(placed(exchange.assign(101)), ["b-0", "b-1", "b-2", "b-3"], "the other escrow holds nothing, and that one holds a node");
    exchange.ended("b-0");
    assert_eq!(placed(exchange.assign(102)), ["b-4"], "and then less than it");
    exchange.ended("a-2");
    assert_eq!(placed(exchange.assign(202)), ["a-3"], "who holds nothing has what its large task waits for");
}

#[test]
fn what_an_escrows_next_large_task_waits_for_goes_to_others_only_where_they_have_nowhere_else_to_go() {
    let mut exchange = Exchange::new();
    [("n1", "1"), ("n2", "2"), ("n3", "3")].into_iter().for_each(|(node, price)| exchange.offer(&offer(node, price)));
    let whole = || Request { devices: 4, ..held_by("a") };
    exchange.wait(&waiting("has", Request { devices: 3, only_nodes: Some(vec!["n1".into()]), ..held_by("c") }, 0, 1, 10));
    exchange.wait(&waiting("stays", Request { only_nodes: Some(vec!["n3".into()]), ..held_by("c") }, 0, 1, 100_000));
    exchange.wait(&waiting("b-0", Request { only_nodes: Some(vec!["n2".into()]), ..held_by("b") }, 0, 1, 10));
    assert_eq!(placed(exchange.assign(0)).len(), 3);
    exchange.wait(&waiting("first", whole(), 0, 1, 100_000));
    assert!(placed(exchange.assign(1)).is_empty());
    exchange.ended("has");
    assert_eq!(placed(exchange.assign(5)), ["first"]);
    exchange.wait(&waiting("next", whole(), 6, 1, 100));
    assert!(placed(exchange.assign(6)).is_empty());
    // What it says of terms that are new nobody has asked yet.
    exchange.offer(&Offer { model: "another".into(), closed: Some(Closed::Cordoned), ..offer("n4", "4") });
    let (mut ends, mut at) = (std::collections::BTreeMap::from([(10, "b-0".to_owned())]), None);
    for second in (8..60_i64).step_by(4) {
        let over = ends.extract_if(..=second, |_, _| true).map(|(_, id)| id).collect::<Vec<_>>();
        over.iter().for_each(|id| exchange.ended(id));
        exchange.wait(&waiting(&format!("b-{second}"), held_by("b"), second, 1, 10));
        let came = placed(exchange.assign(second));
        assert!(came.contains(&format!("b-{second}")), "it holds less and goes first: {came:?}");
        ends.insert(second + 10, format!("b-{second}"));
        at = at.or(came.contains(&"next".to_owned()).then_some(second));
    }
    assert_eq!(at, Some(12), "the small ones took the dearer node until the last one on the other had ended");
}

#[test]
fn who_asks_for_other_nodes_than_before_stays_in_the_line() {
    let mut exchange = Exchange::new();
    ["n1", "n2"].into_iter().for_each(|node| exchange.offer(&offer(node, "1")));
    let on =
        |nodes: &[&str]| Request { devices: 4, only_nodes: Some(nodes.iter().map(|node| (*node).to_owned()).collect()), ..held_by("a") };
    for (node, by) in [("n1", "a"), ("n2", "c")] {
        exchange.wait(&waiting(
            &format!("has-{node}"),
            Request { devices: 3, only_nodes: Some(vec![node.into()]), ..held_by(by) },
            0,
            1,
            100,
        ));
    }
    assert_eq!(placed(exchange.assign(0)).len(), 2);
    exchange.wait(&waiting("large", on(&["n1"]), 1, 1, 60));
    assert!(placed(exchange.assign(1)).is_empty());
    exchange.wait(&waiting("large", on(&["n1", "n3"]), 1, 1, 60));
    exchange.wait(&waiting("small", Request { only_nodes: Some(vec!["n1".into()]), ..held_by("b") }, 2, 1, 1_000));
    assert!(placed(exchange.assign(2)).is_empty(), "what is kept for it is kept from who came later, and holds less");
}

#[test]
fn of_many_large_tasks_each_keeps_what_only_it_waits_for() {
    let mut exchange = Exchange::new();
    let names: Vec<String> = (0..12).map(|number| format!("n{number:02}")).collect();
    for (number, name) in names.iter().enumerate() {
        // Half of them are on the same terms, and each of the others on its own.
        let price = if number < 6 { "1".to_owned() } else { number.to_string() };
        exchange.offer(&offer(name, &price));
        let there = Request { only_nodes: Some(vec![name.clone()]), ..held_by("others") };
        exchange.wait(&waiting(&format!("has-{number}"), Request { devices: 3, ..there.clone() }, 0, 1, 100));
        exchange.wait(&waiting(&format!("long-{number}"), Request { devices: 1, ..there }, 0, 1, 100));
    }
    assert_eq!(placed(exchange.assign(0)).len(), 24);
    for (number, name) in names.iter().enumerate() {
        let whole = Request { devices: 4, only_nodes: Some(vec![name.clone()]), ..held_by(&format!("large-{number}")) };
        exchange.wait(&waiting(&format!("large-{number}"), whole, 1, 1, 60));
    }
    assert!(placed(exchange.assign(1)).is_empty());
    (0..12).for_each(|number| exchange.ended(&format!("has-{number}")));
    (0..12).for_each(|number| exchange.wait(&waiting(&format!("small-{number}"), held_by("small"), 2, 1, 1_000)));
    assert!(placed(exchange.assign(2)).is_empty(), "what is free is kept, on each of the nodes");
    (0..12).for_each(|number| exchange.ended(&format!("long-{number}")));
    let placed = placed(exchange.assign(3));
    assert!(placed.iter().all(|id| id.starts_with("large")) && placed.len() == 12, "{placed:?}");
}

#[test]
fn of_large_tasks_that_wait_for_the_same_only_the_first_few_keep_it_from_others() {
    let mut exchange = Exchange::new();
    for number in 0..8 {
        exchange.offer(&offer(&format!("n{number}"), "1"));
        exchange.wait(&waiting(&format!("has-{number}"), Request { devices: 3, ..held_by("others") }, 0, 1, 100));
    }
    assert_eq!(placed(exchange.assign(0)).len(), 8);
    exchange.offer(&Offer { free_devices: 3, total_devices: 3, ..offer("other", "2") });
    // Nobody waits for a node that is closed, whatever its terms.
    exchange.offer(&Offer { closed: Some(Closed::Cordoned), ..offer("closed", "3") });
    exchange.wait(&waiting("elsewhere", Request { devices: 2, ..held_by("others") }, 0, 1, 100));
    assert_eq!(placed(exchange.assign(1)).len(), 1);
    (0..8).for_each(|number| {
        exchange.wait(&waiting(&format!("large-{number}"), Request { devices: 4, ..held_by("large") }, 1, 1, 60 + number))
    });
    assert!(placed(exchange.assign(2)).is_empty());
    (0..8).for_each(|number| exchange.wait(&waiting(&format!("small-{number}"), held_by("small"), 2, 1, 1_000)));
    assert_eq!(placed(exchange.assign(3)).len(), 5, "on the nodes of the other four, and where no large one fits");
}

#[test]
fn of_escrows_that_hold_the_same_the_one_whose_task_is_older_goes_first() {
    let mut exchange = Exchange::new();
    exchange.offer(&Offer { free_devices: 1, total_devices: 1, ..offer("n", "1") });
    for turn in 0..4 {
        exchange.wait(&waiting(&format!("a-{turn}"), held_by("a"), 2 * turn, 1, 60));
        exchange.wait(&waiting(&format!("b-{turn}"), held_by("b"), 2 * turn + 1, 1, 60));
    }
    let mut order = Vec::new();
    for second in 0..8 {
        let placed = placed(exchange.assign(second));
        placed.iter().for_each(|id| exchange.ended(id));
        order.extend(placed);
    }
    assert_eq!(order, ["a-0", "b-0", "a-1", "b-1", "a-2", "b-2", "a-3", "b-3"]);
}

#[test]
fn a_small_task_of_higher_priority_goes_before_a_large_one_that_did_not_fit() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    exchange.wait(&waiting("has", Request { devices: 3, ..request() }, 1, 1, 60));
    assert_eq!(placed(exchange.assign(0)), ["has"]);
    exchange.wait(&waiting("large", Request { devices: 4, ..request() }, 2, 1, 60));
    assert!(placed(exchange.assign(1)).is_empty());
    exchange.wait(&Waiting { priority: 5, ..waiting("urgent", request(), 3, 1, 1_000) });
    assert_eq!(placed(exchange.assign(2)), ["urgent"], "what is kept for the large one is not kept from it");
    exchange.ended("has");
    exchange.wait(&waiting("later", request(), 4, 1, 1_000));
    let pass = exchange.assign(3);
    assert_eq!(reasons(&pass, "later"), [Reason::KeptForGang], "whoever comes after it still waits");
    exchange.ended("urgent");
    assert_eq!(placed(exchange.assign(4)), ["large"]);
}

#[test]
fn what_no_node_could_ever_hold_takes_no_turn_from_a_gang_that_waits() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    exchange.wait(&waiting("first", held_by("b"), 0, 2, 100));
    assert_eq!(placed(exchange.assign(0)), ["first"]);
    for number in 0..9 {
        exchange.wait(&waiting(&format!("never-{number}"), Request { devices: 5 + number, ..held_by(&format!("a{number}")) }, 1, 1, 60));
    }
    // It holds more than anybody: but for its first turn everybody else would go before it.
    exchange.wait(&waiting("holds", held_by("z"), 1, 1, 1_000));
    assert_eq!(placed(exchange.assign(1)), ["holds"]);
    exchange.wait(&waiting("gang", held_by("z"), 2, 3, 60));
    for second in 2..5 {
        assert!(placed(exchange.assign(second)).is_empty());
        exchange.wait(&waiting(&format!("small-{second}"), held_by("c"), second, 1, 1_000));
    }
    exchange.ended("first");
    assert_eq!(placed(exchange.assign(5)), ["gang"]);
}

#[test]
fn that_nothing_could_ever_hold_one_task_says_nothing_of_the_next_that_has_its_number() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    let asks = |devices| Request { devices, ..held_by("a") };
    let come_and_go = |exchange: &mut Exchange, asked: std::ops::Range<u32>| {
        for devices in asked {
            exchange.wait(&waiting("other", asks(devices), 0, 1, 60));
            exchange.forget("other");
        }
    };
    exchange.wait(&waiting("never", asks(9), 0, 4, 60));
    exchange.wait(&waiting("first", held_by("small"), 0, 2, 100));
    (0..2).for_each(|second| drop(exchange.assign(second)));
    exchange.forget("never");
    // So many are kept for whoever asks the same; then all numbers are free, and the last one given again is the first.
    come_and_go(&mut exchange, 1_000..1_512);
    come_and_go(&mut exchange, 2_000..2_512);
    exchange.wait(&waiting("gang", asks(1), 1, 4, 60));
    assert!(placed(exchange.assign(2)).is_empty());
    exchange.wait(&waiting("long", held_by("small"), 2, 1, 1_000));
    assert!(placed(exchange.assign(3)).is_empty(), "the gang's places are kept");
}

#[test]
fn however_much_no_node_could_ever_hold_is_asked_for_a_gang_keeps_its_places_while_offers_change() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    for number in 0..300 {
        exchange.wait(&waiting(&format!("never-{number}"), Request { devices: 5 + number, ..held_by("a") }, 0, 1, 60));
    }
    exchange.wait(&waiting("first", held_by("b"), 0, 2, 100));
    assert_eq!(placed(exchange.assign(0)), ["first"]);
    exchange.wait(&waiting("gang", held_by("c"), 1, 4, 60));
    let free_storage_bytes = offer("n", "1").free_storage_bytes;
    for second in 1..5 {
        exchange.offer(&Offer { free_storage_bytes: free_storage_bytes - second, ..offer("n", "1") });
        assert!(placed(exchange.assign(second.cast_signed())).is_empty());
    }
    exchange.wait(&waiting("long", held_by("d"), 5, 1, 1_000));
    exchange.offer(&Offer { free_storage_bytes: free_storage_bytes - 5, ..offer("n", "1") });
    assert!(placed(exchange.assign(5)).is_empty(), "the gang's places are kept");
}

#[test]
fn what_no_node_could_ever_hold_gives_no_first_turn_to_others_of_its_escrow() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    exchange.wait(&waiting("never", Request { devices: 9, ..held_by("a") }, 0, 1, 60));
    exchange.wait(&waiting("holds", held_by("a"), 0, 1, 1_000));
    assert_eq!(placed(exchange.assign(0)), ["holds"]);
    // It has never waited, and its escrow holds more.
    exchange.wait(&waiting("new", Request { devices: 3, ..held_by("a") }, 1, 1, 60));
    exchange.wait(&waiting("other", held_by("b"), 2, 1, 60));
    assert_eq!(placed(exchange.assign(2)), ["other"]);
}

#[test]
fn what_a_short_task_takes_and_gives_back_before_a_claim_begins_is_not_missing_then() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    for number in 0..2 {
        exchange.wait(&waiting(&format!("first-{number}"), held_by("small"), number, 1, 100));
    }
    assert_eq!(placed(exchange.assign(0)).len(), 2);
    // It begins at 100, and then a device is left.
    exchange.wait(&waiting("large", Request { devices: 3, ..held_by("large") }, 2, 1, 100));
    exchange.wait(&waiting("short", held_by("a"), 3, 1, 50));
    exchange.wait(&waiting("long", held_by("b"), 4, 1, 1_000));
    assert_eq!(placed(exchange.assign(2)), ["short", "long"]);
}

#[test]
fn a_large_gang_is_not_passed_by_small_tasks_that_would_delay_it() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    let small = || Request { funding: FundingId::internal("small"), ..request() };
    exchange.wait(&waiting("first", small(), 1, 1, 1_000));
    assert_eq!(placed(exchange.assign(0)), ["first"]);
    exchange.wait(&waiting("gang", request(), 2, 4, 500));
    let before = exchange.assign(1);
    assert!(before.placed.is_empty(), "three of four workers fit");
    exchange.wait(&waiting("long", small(), 3, 1, 2_000));
    exchange.wait(&waiting("short", small(), 4, 1, 900));
    let pass = exchange.assign(10);
    assert_eq!(pass.placed.iter().map(|(id, _)| &**id).collect::<Vec<_>>(), ["short"], "it ends before the gang can start");
    let why =
        |pass: &Pass, id: &str| pass.waiting.iter().find(|(known, _)| **known == *id).expect("it is told").1.last().map(|one| one.reason);
    assert_eq!(why(&pass, "long"), Some(Reason::KeptForGang));
    assert_eq!(why(&before, "gang"), Some(Reason::GangIncomplete));
    exchange.ended("first");
    exchange.ended("short");
    assert_eq!(placed(exchange.assign(1_000)), ["gang"]);
}

#[test]
fn two_resources_of_a_node_share_its_cores_and_not_its_devices() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    exchange.offer(&Offer { resource_name: "nvidia.com/mig-1g.10gb".into(), ..offer("n", "1") });
    exchange.wait(&waiting("whole", Request { cpu_millis: Some(8_000), ..request() }, 1, 1, 60));
    assert_eq!(placed(exchange.assign(0)), ["whole"]);
    exchange.wait(&waiting("slice", Request { resource_name: "nvidia.com/mig-1g.10gb".into(), ..request() }, 2, 1, 60));
    let pass = exchange.assign(1);
    assert_eq!(pass.waiting[0].1.iter().map(|refused| refused.reason).collect::<Vec<_>>(), [Reason::ResourceNotSold, Reason::CpuInUse]);
    exchange.ended("whole");
    assert_eq!(placed(exchange.assign(2)), ["slice"]);
}

fn held_by(escrow: &str) -> Request {
    Request { funding: FundingId::internal(escrow), ..request() }
}

fn reasons(pass: &Pass, id: &str) -> Vec<Reason> {
    let told = pass.waiting.iter().find(|(known, _)| **known == *id);
    told.into_iter().flat_map(|(_, reasons)| reasons.iter().map(|refused| refused.reason)).collect()
}

#[test]
fn a_task_that_fits_nowhere_holds_up_nobody() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    exchange.wait(&Waiting { priority: 1_000, ..waiting("too-large", Request { devices: 9, ..request() }, 0, 1, 60) });
    exchange.wait(&waiting("gang", Request { devices: 4, ..request() }, 1, 3, 60));
    exchange.wait(&waiting("small", request(), 2, 1, 60));
    assert_eq!(placed(exchange.assign(0)), ["small"]);
}

#[test]
fn a_gang_starts_in_the_end_however_many_small_tasks_keep_coming() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    let mut ends: Vec<(i64, String)> = Vec::new();
    for second in 0..1_000_i64 {
        for (_, id) in ends.extract_if(.., |(end, _)| *end <= second) {
            exchange.ended(&id);
        }
        if second == 50 {
            exchange.wait(&waiting("gang", held_by("gang"), second, 4, 100));
        }
        let (id, seconds) = (format!("small-{second}"), 30 + second % 70);
        exchange.wait(&waiting(&id, held_by("small"), second, 1, seconds));
        let placed = placed(exchange.assign(second));
        if placed.contains(&"gang".to_owned()) {
            assert!(second <= 50 + 100, "as soon as those who ran when it came have ended, and not at {second}");
            return;
        }
        let seconds = |id: &str| id["small-".len()..].parse::<i64>().map(|created| 30 + created % 70).expect("a number");
        ends.extend(placed.into_iter().map(|id| (second + seconds(&id), id)));
    }
    panic!("it starved");
}

#[test]
fn who_wants_no_others_beside_it_is_not_kept_out_by_one_after_the_other() {
    let mut exchange = Exchange::new();
    exchange.offer(&Offer { tenancies: vec!["Shared".into(), "Dedicated".into()], ..offer("n", "1") });
    exchange.wait(&waiting("first", held_by("small"), 0, 1, 100));
    assert_eq!(placed(exchange.assign(0)), ["first"]);
    let alone = Request { tenancy: "Dedicated".into(), ..held_by("large") };
    exchange.wait(&waiting("dedicated", alone, 1, 1, 100));
    assert!(placed(exchange.assign(1)).is_empty());
    exchange.wait(&waiting("longer", held_by("small"), 2, 1, 200));
    exchange.wait(&waiting("shorter", held_by("small"), 3, 1, 50));
    let pass = exchange.assign(10);
    assert_eq!(reasons(&pass, "longer"), [Reason::KeptForGang]);
    assert_eq!(placed(pass), ["shorter"]);
    exchange.ended("first");
    exchange.ended("shorter");
    assert_eq!(placed(exchange.assign(100)), ["dedicated"]);
}

#[test]
fn what_no_node_could_ever_hold_keeps_no_places() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    exchange.wait(&waiting("first", held_by("small"), 0, 2, 100));
    assert_eq!(placed(exchange.assign(0)), ["first"]);
    for number in 0..9 {
        exchange.wait(&waiting(
            &format!("never-{number}"),
            Request { devices: 5 + number, ..held_by(&format!("never-{number}")) },
            1,
            1,
            100,
        ));
    }
    exchange.wait(&waiting("gang", held_by("gang"), 2, 4, 100));
    exchange.wait(&waiting("long", held_by("small"), 3, 1, 1_000));
    let pass = exchange.assign(1);
    assert!(pass.placed.is_empty(), "nine that can never be are no reason to let others pass the gang: {:?}", pass.placed);
    exchange.forget("gang");
    assert_eq!(placed(exchange.assign(2)), ["long"], "and for the nine alone nothing is kept");
}

#[test]
fn of_one_escrows_many_gangs_only_the_oldest_goes_before_its_turn() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    exchange.wait(&waiting("running", held_by("others"), 0, 4, 100));
    assert_eq!(placed(exchange.assign(0)), ["running"]);
    for number in 0..3 {
        exchange.wait(&waiting(&format!("many-{number}"), held_by("many"), 1 + number, 2, 100));
    }
    exchange.wait(&waiting("one", held_by("one"), 9, 2, 100));
    assert!(placed(exchange.assign(1)).is_empty());
    exchange.ended("running");
    assert_eq!(placed(exchange.assign(2)), ["many-0", "one"]);
}

#[test]
fn an_offer_that_comes_back_finds_taken_what_is_taken() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    exchange.wait(&waiting("stays", request(), 0, 3, 100));
    assert_eq!(placed(exchange.assign(0)), ["stays"]);
    exchange.withdraw("n", "nvidia.com/gpu");
    exchange.wait(&waiting("two", Request { devices: 2, ..request() }, 1, 1, 100));
    exchange.wait(&waiting("one", request(), 2, 1, 100));
    assert!(placed(exchange.assign(1)).is_empty());
    exchange.offer(&offer("n", "1"));
    assert_eq!(placed(exchange.assign(2)), ["one"]);
}

#[test]
fn devices_that_a_node_has_lost_are_not_given_back() {
    let mut exchange = Exchange::new();
    exchange.offer(&offer("n", "1"));
    exchange.wait(&waiting("all", request(), 0, 4, 100));
    assert_eq!(placed(exchange.assign(0)), ["all"]);
    exchange.offer(&Offer { free_devices: 2, ..offer("n", "1") });
    exchange.ended("all");
    (0..3).for_each(|number| exchange.wait(&waiting(&format!("next-{number}"), request(), 1, 1, 100)));
    assert_eq!(placed(exchange.assign(1)), ["next-0", "next-1"]);
}

#[test]
fn reasons_are_told_once_and_again_when_they_are_others() {
    let mut exchange = Exchange::new();
    exchange.offer(&Offer { free_devices: 0, ..offer("n", "1") });
    exchange.wait(&waiting("old", request(), 0, 1, 100));
    assert_eq!(reasons(&exchange.assign(0), "old"), [Reason::DevicesInUse]);
    exchange.offer(&Offer { free_devices: 0, ..offer("n", "1") });
    assert_eq!(exchange.assign(1), Pass::default(), "the offer is as it was");
    exchange.wait(&waiting("new", request(), 1, 1, 100));
    assert_eq!(exchange.assign(2).waiting.iter().map(|(id, _)| &**id).collect::<Vec<_>>(), ["new"]);
    exchange.offer(&Offer { closed: Some(Closed::Cordoned), ..offer("n", "1") });
    let pass = exchange.assign(3);
    assert_eq!((reasons(&pass, "old"), reasons(&pass, "new")), (vec![Reason::NodeCordoned], vec![Reason::NodeCordoned]));
}

#[test]
fn a_gang_goes_on_to_the_next_node_where_one_worker_takes_the_room_of_a_nodes_other_offers_too() {
    let mut exchange = Exchange::new();
    exchange.catalog.limits = Limits { few: 0, best: 1, in_all: 0, looks: 1 };
    let cores = |node: &str, price| Offer { zone: Some("a".into()), ..offer(node, price) };
    exchange.offer(&cores("n1", "1"));
    exchange.offer(&Offer { resource_name: "nvidia.com/mig-1g.10gb".into(), model: "MIG".into(), ..cores("n1", "1") });
    exchange.offer(&Offer { reputation: 40, ..cores("n2", "1") });
    let request = Request { devices: 0, cpu_millis: Some(8_000), strategy: Strategy::Quality, ..request() };
    exchange.wait(&Waiting { topology: Topology::Zone, ..waiting("gang", request, 0, 2, 60) });
    let pass = exchange.assign(0);
    let nodes: Vec<&str> = pass.placed.iter().flat_map(|(_, places)| places).map(|place| &*place.node).collect();
    assert_eq!(nodes, ["n1", "n2"]);
}
