//! The indexed market against the slow and obvious one: the same choices, the same reasons and the same turns, whatever
//! happened before.

use super::generators::{any_limits, any_of_a_greedy_escrow, any_offer, any_request, any_small_request, any_waiting};
use super::plainly::{Plain, hold, leave};
use super::ranking::Limits;
use super::tests::offer;
use super::*;
use crate::money::Price;
use proptest::prelude::{ProptestConfig, TestCaseError, any, prop, prop_assert, prop_assert_eq, proptest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Offers of the plain market, one a node.
fn put(offers: &mut Vec<Offer>, offer: &Offer) {
    offers.retain(|known| known.node != offer.node);
    offers.push(offer.clone());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_catalogue_chooses_and_refuses_as_the_plain_market_does(
        limits in any_limits(),
        requests in prop::collection::vec(any_request(), 1..5),
        steps in prop::collection::vec((any_offer(), any::<bool>(), prop::collection::vec(any::<prop::sample::Index>(), 0..3)), 1..40),
    ) {
        let mut catalog = Catalog::new();
        catalog.limits = limits;
        let mut offers = Vec::new();
        for (offer, leaves, asked) in steps {
            put(&mut offers, &offer);
            catalog.update(&offer);
            if leaves {
                offers.retain(|known| known.node != "n0");
                catalog.remove("n0", "nvidia.com/gpu");
            }
            prop_assert_eq!(catalog.len(), offers.len());
            for index in asked {
                let request = index.get(&requests);
                prop_assert_eq!(catalog.choose(&Arc::new(request.clone())), choose(&offers, request));
            }
        }
    }

    #[test]
    fn a_pass_never_puts_more_on_a_node_than_fits_nor_where_it_may_not_go(
        limits in any_limits(),
        offers in prop::collection::vec(any_offer(), 1..8),
        rounds in prop::collection::vec((prop::collection::vec((any_request(), -1..2_i32, 1..4_u32, 0..3_usize), 1..6), 0..4_usize), 1..6),
    ) {
        let mut exchange = Exchange::new();
        exchange.catalog.limits = limits;
        let mut plain = Vec::new();
        for offer in &offers {
            put(&mut plain, offer);
            exchange.offer(offer);
        }
        let mut asked = BTreeMap::new();
        let mut told: BTreeMap<Arc<str>, Arc<Vec<Refused>>> = BTreeMap::new();
        let mut runs: Vec<(Arc<str>, Vec<Assignment>)> = Vec::new();
        for (round, (tasks, leaving)) in rounds.into_iter().enumerate() {
            for (index, (request, priority, workers, topology)) in tasks.into_iter().enumerate() {
                let id: Arc<str> = format!("{round}-{index}").into();
                let topology = [Topology::Any, Topology::Zone, Topology::Node][topology];
                let request = Arc::new(request);
                let (created, seconds) = (i64::try_from(round).expect("few"), 100);
                let waiting = Waiting { id: id.clone(), request, priority, created, workers, topology, seconds };
                asked.insert(id, waiting.clone());
                exchange.wait(&waiting);
            }
            let pass = exchange.assign(i64::try_from(round).expect("few"));
            told.extend(pass.waiting.iter().cloned());
            for (id, assignments) in &pass.placed {
                let waiting = &asked[id];
                prop_assert_eq!(assignments.len(), waiting.workers as usize, "all or none");
                for assignment in assignments {
                    let offer = plain.iter_mut().find(|offer| offer.node == assignment.node).expect("it is on offer");
                    let found = filter::check(offer, &waiting.request);
                    prop_assert_eq!(found.map(|(held, _)| held).map_err(|(_, words)| words), Ok(assignment.held));
                    hold(offer, assignment, &waiting.request);
                }
                let zones: BTreeSet<_> = assignments.iter().map(|one| zone(&plain, &one.node)).collect();
                prop_assert!(waiting.topology == Topology::Any || zones.len() == 1);
                prop_assert!(waiting.topology != Topology::Node || assignments.iter().all(|one| one.node == assignments[0].node));
                runs.push((id.clone(), assignments.clone()));
            }
            prop_assert_eq!(exchange.assign(0), Pass::default(), "nothing changed");
            for (id, _) in &pass.placed {
                told.remove(id);
            }
            // What was told before and not told again is true still.
            for (id, reasons) in &told {
                prop_assert!(!reasons.is_empty(), "whoever waits knows why");
                let told: Vec<Refused> = reasons.iter().filter(|one| one.reason < Reason::KeptForGang).cloned().collect();
                if let Err(plainly) = choose(&plain, &asked[id].request) {
                    prop_assert_eq!(told, plainly, "the same reasons");
                } else {
                    prop_assert!(reasons.len() > told.len(), "what fits is kept for others or is not enough");
                }
            }
            for (id, assignments) in runs.drain(..leaving.min(runs.len())).collect::<Vec<_>>() {
                exchange.ended(&id);
                for assignment in assignments {
                    let offer = plain.iter_mut().find(|offer| offer.node == assignment.node).expect("it is on offer");
                    leave(offer, &assignment, &asked[&id].request);
                }
            }
        }
    }
    #[test]
    fn small_tasks_have_the_turns_and_places_that_one_look_after_the_other_gives_them(
        limits in any_limits(),
        requests in prop::collection::vec(any_small_request(), 1..6),
        rounds in prop::collection::vec((prop::collection::vec(any_offer(), 0..4), prop::collection::vec((any::<prop::sample::Index>(), -1..2_i32), 0..8), 0..4_usize, any::<bool>()), 1..8),
    ) {
        let mut exchange = Exchange::new();
        exchange.catalog.limits = limits;
        let mut plain = Plain::default();
        for (round, (offers, tasks, leaving, leaves)) in rounds.into_iter().enumerate() {
            for offer in &offers {
                put(&mut plain.offered, offer);
                exchange.offer(offer);
            }
            if leaves {
                plain.offered.retain(|known| known.node != "n0");
                exchange.withdraw("n0", "nvidia.com/gpu");
            }
            for (index, (request, priority)) in tasks.into_iter().enumerate() {
                let request = Arc::new(request.get(&requests).clone());
                let created = i64::try_from(round).expect("few");
                let task = Waiting { priority, ..waiting(&format!("{round}-{index}"), request, created) };
                exchange.wait(&task);
                plain.waits.push(task);
            }
            prop_assert_eq!(exchange.assign(0).placed, plain.pass(0));
            for run in plain.runs.drain(..leaving.min(plain.runs.len())) {
                exchange.ended(&run.task.id);
            }
        }
    }
    #[test]
    fn large_and_small_tasks_have_the_turns_places_and_reasons_that_one_look_after_the_other_gives_them(
        limits in any_limits(),
        offers in prop::collection::vec(any_offer(), 1..7),
        rounds in prop::collection::vec((prop::collection::vec(any_waiting(), 0..5), 0..4_usize, 1..60_i64), 1..10),
    ) {
        go_as_on_paper(limits, offers, rounds)?;
    }
    #[test]
    fn one_large_task_after_the_other_has_the_turns_that_one_look_after_the_other_gives_it(
        limits in any_limits(),
        prices in prop::collection::vec(1..4_u32, 1..4),
        rounds in prop::collection::vec((prop::collection::vec(any_of_a_greedy_escrow(), 0..4), 0..3_usize, 1..60_i64), 1..30),
    ) {
        let offers = (0..).zip(prices).map(|(number, price)| offer(&format!("n{number}"), &price.to_string())).collect();
        go_as_on_paper(limits, offers, rounds)?;
    }
    #[test]
    fn gangs_in_one_zone_of_many_have_the_places_that_trying_one_zone_after_the_other_gives_them(
        limits in any_limits(),
        offers in prop::collection::vec((any_offer(), 0..5_usize), 1..30),
        gangs in prop::collection::vec((any_request(), 1..5_u32, any::<bool>()), 1..8),
    ) {
        let (mut exchange, mut plain) = (Exchange::new(), Plain::default());
        exchange.catalog.limits = limits;
        for (index, (known, zone)) in offers.into_iter().enumerate() {
            // No two are on the same terms, and the dear ones not all in one zone.
            let cpu = Price::from_nanos_per_hour(1_000_000 * (index as u64 * 7 % 30));
            let zone = ["a", "b", "c", "d"].get(zone).map(|zone| (*zone).to_owned());
            let offer = Offer { node: format!("m{index}"), zone, prices: Prices { cpu, ..known.prices }, ..known };
            exchange.offer(&offer);
            plain.offered.push(offer);
        }
        for (now, (request, workers, stays)) in (0..).zip(gangs) {
            let id = format!("{now}");
            let gang = Waiting { workers, topology: Topology::Zone, ..waiting(&id, Arc::new(request), now) };
            exchange.wait(&gang);
            plain.waits.push(gang);
            prop_assert_eq!(exchange.assign(now).placed, plain.pass(now));
            exchange.forget(&id);
            plain.waits.clear();
            if !stays && plain.runs.pop_if(|run| *run.task.id == *id).is_some() {
                exchange.ended(&id);
            }
        }
    }
}

/// Who comes in each round, how many end early, and how long it is until the next.
type Rounds = Vec<(Vec<Waiting>, usize, i64)>;

/// Large and small ones have the turns, places and reasons that one look after the other gives them.
fn go_as_on_paper(limits: Limits, offers: Vec<Offer>, rounds: Rounds) -> Result<(), TestCaseError> {
    let (mut exchange, mut plain, mut now) = (Exchange::new(), Plain::default(), 0);
    exchange.catalog.limits = limits;
    for offer in offers {
        if plain.offered.iter().all(|known| known.node != offer.node) {
            exchange.offer(&offer);
            plain.offered.push(offer);
        }
    }
    let mut told = BTreeMap::new();
    for (round, (tasks, leaving, seconds)) in rounds.into_iter().enumerate() {
        for (index, task) in tasks.into_iter().enumerate() {
            let task = Waiting { id: format!("{round}-{index}").into(), created: now, ..task };
            // Of several for whom places are kept at a time it is told elsewhere.
            if !plain.could_wait(&task, now) || plain.waits.iter().all(|other| !plain.could_wait(other, now)) {
                exchange.wait(&task);
                plain.waits.push(task);
            }
        }
        let pass = exchange.assign(now);
        prop_assert_eq!(pass.placed, plain.pass(now));
        told.extend(pass.waiting);
        for task in &plain.waits {
            let told: Vec<_> = told[&task.id].iter().map(|one| (one.reason, one.nodes)).collect();
            prop_assert_eq!(told, plain.reasons(task), "the same reasons for {}", &task.id);
        }
        now += seconds;
        let early = plain.runs.iter().take(leaving).map(|run| run.task.id.clone()).collect::<Vec<_>>();
        for run in plain.runs.extract_if(.., |run| run.ends <= now || early.contains(&run.task.id)) {
            exchange.ended(&run.task.id);
        }
    }
    Ok(())
}

fn waiting(id: &str, request: Arc<Request>, created: i64) -> Waiting {
    Waiting { id: id.into(), request, priority: 0, created, workers: 1, topology: Topology::Any, seconds: 60 }
}

fn zone<'a>(offers: &'a [Offer], node: &str) -> Option<&'a String> {
    offers.iter().find(|offer| offer.node == node)?.zone.as_ref()
}
