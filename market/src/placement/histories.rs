//! The indexed market against the slow and obvious one: the same choices and the same reasons, whatever happened before.

use super::tests::{offer, request};
use super::*;
use proptest::prelude::{Just, ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy as _;
use std::sync::Arc;

fn any_offer() -> impl proptest::strategy::Strategy<Value = Offer> {
    let own = (0..6_u32, 0..5_u32, 0..3_u64, 0..4_u64, prop::option::weighted(0.1, Just(Closed::Cordoned)), 0..3_u32);
    let terms = (1..4_u64, 0..3_usize, 0..2_u64, 40..60_u8, 0..3_usize, 1..3_u32, any::<bool>());
    (own, terms, prop::collection::vec((0..3_u32, 0..2_u32, 0..3_usize), 0..3)).prop_map(|(own, terms, tenants)| {
        let (node, free_devices, cpu, memory, closed, free_pods) = own;
        let (price, region, model, reputation, zone, replicas_per_device, plain) = terms;
        let tenancies = ["Shared", "Dedicated", "Exclusive"];
        let mut tenants: Vec<Tenant> = tenants
            .into_iter()
            .map(|(escrow, team, tenancy)| Tenant {
                funding: FundingId::internal(&escrow.to_string()),
                namespace: format!("team-{team}"),
                tenancy: tenancies[tenancy].into(),
            })
            .collect();
        tenants.sort();
        tenants.dedup();
        Offer {
            free_devices,
            free_cpu_millis: cpu * 4_000,
            free_memory_bytes: memory * (32 << 30),
            closed,
            free_pods: free_pods * 50,
            region: [None, Some("north".into()), Some("south".into())][region].clone(),
            device_memory_bytes: (40 << 30) << model,
            reputation,
            zone: [None, Some("a".into()), Some("b".into())][zone].clone(),
            replicas_per_device,
            tenants: if plain { vec![] } else { tenants },
            tenancies: tenancies.map(Into::into).to_vec(),
            labels: [("rack".to_owned(), (node % 2).to_string())].into(),
            // A tie between two models must not hide which one was chosen.
            model: format!("M{model}"),
            ..offer(&format!("n{}{node}", if node == 5 { "-" } else { "" }), &price.to_string())
        }
    })
}

fn any_request() -> impl proptest::strategy::Strategy<Value = Request> {
    let what = (0..4_u32, prop::option::of(0..9_000_u64), prop::option::of(0..(70_u64 << 30)), 0..3_usize, 0..3_usize);
    let which = (0..3_u32, 0..2_u32, 0..4_usize, any::<bool>(), any::<bool>(), 0..8_u32);
    (what, which, prop::option::of(1..20_u64)).prop_map(|(what, which, most)| {
        let (devices, cpu_millis, memory_bytes, strategy, tenancy) = what;
        let (escrow, team, regions, selects, excludes, only) = which;
        Request {
            funding: FundingId::internal(&escrow.to_string()),
            namespace: format!("team-{team}"),
            devices,
            cpu_millis,
            memory_bytes,
            strategy: [super::Strategy::Cheapest, super::Strategy::Fastest, super::Strategy::Balanced][strategy],
            tenancy: ["Shared", "Dedicated", "Exclusive"][tenancy].into(),
            regions: [vec![], vec!["north".into()], vec!["south".into(), "north".into()], vec![]][regions].clone(),
            node_selector: if selects { [("rack".to_owned(), "1".to_owned())].into() } else { BTreeMap::new() },
            excluded_nodes: if excludes { vec!["n2".into()] } else { vec![] },
            only_nodes: (only == 0).then(|| vec!["n1".into(), "n3".into()]),
            max_price_per_hour: most.map(|most| Amount::from_units(most * 1_000_000)),
            ..request()
        }
    })
}

/// Offers of the plain market, one a node.
fn put(offers: &mut Vec<Offer>, offer: &Offer) {
    offers.retain(|known| known.node != offer.node);
    offers.push(offer.clone());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_catalogue_chooses_and_refuses_as_the_plain_market_does(
        steps in prop::collection::vec((any_offer(), any::<bool>(), prop::collection::vec(any_request(), 1..3)), 1..25),
    ) {
        let mut catalog = Catalog::new();
        let mut offers = Vec::new();
        for (offer, leaves, requests) in steps {
            put(&mut offers, &offer);
            catalog.update(&offer);
            if leaves {
                offers.retain(|known| known.node != "n0");
                catalog.remove("n0", "nvidia.com/gpu");
            }
            prop_assert_eq!(catalog.len(), offers.len());
            for request in requests {
                prop_assert_eq!(catalog.choose(&Arc::new(request.clone())), choose(&offers, &request));
            }
        }
    }

    #[test]
    fn a_pass_never_puts_more_on_a_node_than_fits_nor_where_it_may_not_go(
        offers in prop::collection::vec(any_offer(), 1..8),
        rounds in prop::collection::vec((prop::collection::vec((any_request(), -1..2_i32, 1..4_u32, 0..3_usize), 1..6), 0..4_usize), 1..6),
    ) {
        let mut exchange = Exchange::new();
        let mut plain = Vec::new();
        for offer in &offers {
            put(&mut plain, offer);
            exchange.offer(offer);
        }
        let mut asked = BTreeMap::new();
        let mut told: BTreeMap<String, Arc<Vec<Refused>>> = BTreeMap::new();
        let mut runs: Vec<(String, Vec<Assignment>)> = Vec::new();
        for (round, (tasks, leaving)) in rounds.into_iter().enumerate() {
            for (index, (request, priority, workers, topology)) in tasks.into_iter().enumerate() {
                let id = format!("{round}-{index}");
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
                let zones: std::collections::BTreeSet<_> = assignments.iter().map(|one| zone(&plain, &one.node)).collect();
                prop_assert!(waiting.topology == Topology::Any || zones.len() == 1);
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
}

fn zone<'a>(offers: &'a [Offer], node: &str) -> Option<&'a String> {
    offers.iter().find(|offer| offer.node == node)?.zone.as_ref()
}

fn tenant(request: &Request) -> Tenant {
    Tenant { funding: request.funding.clone(), namespace: request.namespace.clone(), tenancy: request.tenancy.clone() }
}

fn hold(offer: &mut Offer, assignment: &Assignment, request: &Request) {
    offer.free_devices -= assignment.held.devices;
    offer.free_cpu_millis -= assignment.held.cpu_millis;
    offer.free_memory_bytes -= assignment.held.memory_bytes;
    offer.free_pods -= 1;
    // Each task once: two of one tenant leave one after the other.
    offer.tenants.push(tenant(request));
}

fn leave(offer: &mut Offer, assignment: &Assignment, request: &Request) {
    offer.free_devices += assignment.held.devices;
    offer.free_cpu_millis += assignment.held.cpu_millis;
    offer.free_memory_bytes += assignment.held.memory_bytes;
    offer.free_pods += 1;
    let at = offer.tenants.iter().position(|known| *known == tenant(request)).expect("it was there");
    offer.tenants.remove(at);
}

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
