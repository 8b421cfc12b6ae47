//! Whose turn it is, and what is kept for whom.

use super::tests::{offer, request};
use super::*;
use std::sync::Arc;

fn waiting(id: &str, request: Request, created: i64, workers: u32, seconds: i64) -> Waiting {
    Waiting { id: id.into(), request: Arc::new(request), priority: 0, created, workers, topology: Topology::Any, seconds }
}

fn placed(pass: Pass) -> Vec<String> {
    pass.placed.into_iter().map(|(id, _)| id).collect()
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
    assert_eq!(pass.placed.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["short"], "it ends before the gang can start");
    let why =
        |pass: &Pass, id: &str| pass.waiting.iter().find(|(known, _)| known == id).expect("it is told").1.last().map(|one| one.reason);
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
