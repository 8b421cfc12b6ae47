//! Small tasks that keep coming, and large ones among them: nobody starves, and whoever waits knows what for.

use super::plainly::Plain;
use super::tests::{offer, request};
use super::*;
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, proptest};
use proptest::strategy::Strategy as Generator;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Of its own escrow nothing has a higher priority: what an escrow puts before its large task is its own affair.
const FIRST: i32 = 5;
const LONGEST_SECONDS: i64 = 100;
/// When the large ones do.
const COME: i64 = 50;

fn any_node() -> impl Generator<Value = Offer> {
    (1..5_u32, 0..3_usize, 1..4_u64, any::<bool>()).prop_map(|(devices, zone, price, alone)| {
        let all = ["Shared", "Dedicated", "Exclusive"].map(str::to_owned);
        Offer {
            free_devices: devices,
            total_devices: devices,
            zone: [None, Some("a".into()), Some("b".into())][zone].clone(),
            tenancies: all[..if alone { 3 } else { 1 }].to_vec(),
            ..offer("", &price.to_string())
        }
    })
}

fn of_escrow(escrow: u32) -> Request {
    Request { funding: FundingId::internal(&format!("e{escrow}")), namespace: format!("team-{escrow}"), ..request() }
}

fn one(request: Request) -> Waiting {
    Waiting { id: "".into(), request: request.into(), priority: 0, created: 0, workers: 1, topology: Topology::Any, seconds: 60 }
}

/// What leaves room for others beside it on any node.
fn any_small() -> impl Generator<Value = Waiting> {
    (0..4_u32, 0..2_u32, 1..4_u64, -1..2_i32, 5..=LONGEST_SECONDS).prop_map(|(escrow, devices, cores, priority, seconds)| {
        let request = Request { devices, cpu_millis: Some(cores * 500), memory_bytes: Some(1 << 30), ..of_escrow(escrow) };
        Waiting { priority, seconds, ..one(request) }
    })
}

fn any_large() -> impl Generator<Value = Waiting> {
    (0..6_u32, 1..5_u32, 1..4_u32, 0..3_usize, 0..5_usize, 5..=LONGEST_SECONDS).prop_map(
        |(escrow, devices, workers, topology, tenancy, seconds)| {
            let tenancy = ["Shared", "Dedicated", "Exclusive"][tenancy.saturating_sub(2)].to_owned();
            let request = Request { devices, tenancy, cpu_millis: Some(2_000), ..of_escrow(escrow) };
            let topology = [Topology::Any, Topology::Zone, Topology::Node][topology];
            Waiting { priority: FIRST, workers, topology, seconds, ..one(request) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_small_ones_keep_coming_a_large_task_is_placed_when_those_before_it_have_ended_and_all_others_say_why_they_wait(
        nodes in prop::collection::vec(any_node(), 1..5),
        stream in prop::collection::vec(prop::collection::vec(any_small(), 0..4), 400),
        larges in prop::collection::vec(any_large(), 1..4),
        never in 0..10_u32,
        early in prop::collection::vec(1..6_i64, 7),
    ) {
        let (mut exchange, mut plain) = (Exchange::new(), Plain::default());
        for (index, node) in nodes.into_iter().enumerate() {
            let node = Offer { node: format!("n{index}"), ..node };
            exchange.offer(&node);
            plain.offered.push(node);
        }
        let larges: Vec<Waiting> = larges.into_iter().filter(|large| plain.could_wait(large, 0)).collect();
        let escrows: BTreeSet<&FundingId> = larges.iter().map(|large| &large.request.funding).collect();
        let again = larges.len() - escrows.len();
        for number in 0..never {
            let request = Request { devices: 5 + number, ..of_escrow(number) };
            exchange.wait(&Waiting { id: format!("never-{number}").into(), ..one(request) });
        }
        let mut waits: BTreeMap<Arc<str>, i64> = BTreeMap::new();
        let mut runs: Vec<(i64, Arc<str>)> = Vec::new();
        let mut told: BTreeMap<Arc<str>, Arc<Vec<Refused>>> = BTreeMap::new();
        for (now, tasks) in (0_i64..).zip(stream) {
            for (_, id) in runs.extract_if(.., |(ends, _)| *ends <= now) {
                exchange.ended(&id);
            }
            let comes = larges.iter().filter(|_| now == COME).cloned();
            for (number, task) in comes.chain(tasks).enumerate() {
                let kind = if task.priority == FIRST { "large" } else { "small" };
                let task = Waiting { id: format!("{kind}-{now}-{number}").into(), created: now, ..task };
                waits.insert(task.id.clone(), task.seconds);
                exchange.wait(&task);
            }
            let pass = exchange.assign(now);
            told.extend(pass.waiting);
            for (id, _) in pass.placed {
                let seconds = waits.remove(&id).expect("it waited");
                // Some end before they have to.
                runs.push((now + (seconds * early[runs.len() % early.len()] / 3).clamp(1, seconds), id));
            }
            // One after the other, each when whoever ran before has ended at the latest; and before another one of the same escrow
            // others may have their turn while the first one runs.
            let left = waits.keys().filter(|id| id.starts_with("large")).count();
            let most = usize::try_from((now - COME).max(0) / LONGEST_SECONDS).expect("few");
            prop_assert!(now < COME || left <= larges.len().saturating_sub(most.saturating_sub(again)), "at {now} s {left} large ones wait");
            for id in waits.keys() {
                let nodes: u32 = told[id].iter().map(|one| one.nodes).sum();
                prop_assert!(nodes as usize == plain.offered.len(), "{id} is told of {nodes} nodes: {:?}", told[id]);
            }
        }
    }
}

#[test]
fn a_small_task_that_smaller_ones_pass_is_placed_too() {
    let cores = Request { cpu_millis: Some(7_000), ..of_escrow(9) };
    let memory = Request { devices: 0, memory_bytes: Some(60 << 30), ..of_escrow(9) };
    let volume = Request { only_nodes: Some(vec!["n1".into()]), ..of_escrow(9) };
    let kinds = [(cores, 600), (memory, 600), (volume, 0)];
    for (request, patience) in kinds {
        let mut exchange = Exchange::new();
        ["n0", "n1"].into_iter().for_each(|node| exchange.offer(&offer(node, "1")));
        // Its escrow holds more than anybody.
        let holds = Waiting { seconds: 10_000, ..one(Request { devices: 3, ..of_escrow(9) }) };
        exchange.wait(&Waiting { id: "holds".into(), ..holds });
        let mut runs: Vec<(i64, Arc<str>)> = Vec::new();
        let mut at = None;
        for now in 0..1_000_i64 {
            for (_, id) in runs.extract_if(.., |(ends, _)| *ends <= now) {
                exchange.ended(&id);
            }
            if now == COME {
                exchange.wait(&Waiting { id: "passed".into(), created: now, ..one(request.clone()) });
            }
            let (escrow, seconds) = (u32::try_from(now % 3).expect("small"), 30 + now % (LONGEST_SECONDS - 30));
            let small = Request { cpu_millis: Some(1_000), memory_bytes: Some(15 << 30), ..of_escrow(escrow) };
            exchange.wait(&Waiting { id: format!("small-{now}").into(), created: now, seconds, ..one(small) });
            for (id, _) in exchange.assign(now).placed {
                let came = id.strip_prefix("small-").and_then(|came| came.parse::<i64>().ok());
                at = at.or((&*id == "passed").then_some(now));
                runs.extend(came.map(|came| (now + 30 + came % (LONGEST_SECONDS - 30), id)));
            }
        }
        let waited = at.map(|at| at - COME);
        assert!(waited.is_some_and(|waited| (patience..=patience + LONGEST_SECONDS).contains(&waited)), "{waited:?} s: {request:?}");
    }
}
