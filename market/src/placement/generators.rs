//! Offers and requests of every kind, few enough of each that they meet.

use super::ranking::Limits;
use super::tests::{offer, request};
use super::{Beside, Closed, Offer, Request, Strategy, Tenant, Topology, Waiting};
use crate::money::{Amount, Price};
use crate::work::FundingId;
use proptest::prelude::{Just, any, prop};
use proptest::strategy::Strategy as Generator;
use std::collections::BTreeMap;

const TENANCIES: [&str; 3] = ["Shared", "Dedicated", "Exclusive"];

fn escrow(number: u32) -> FundingId {
    FundingId::internal(&number.to_string())
}

/// Of most things what suits everybody, now and then something else.
fn rarely<T: Clone + std::fmt::Debug + 'static>(usual: T, other: T) -> impl Generator<Value = T> {
    prop::strategy::Union::new_weighted(vec![(9, Just(usual)), (1, Just(other))])
}

fn any_tenants() -> impl Generator<Value = Vec<Tenant>> {
    let one = (0..3_u32, 0..2_u32, 0..3_usize).prop_map(|(funding, team, tenancy)| Tenant {
        funding: escrow(funding),
        namespace: format!("team-{team}"),
        tenancy: TENANCIES[tenancy].into(),
    });
    prop::collection::btree_set(one, 0..3).prop_map(|tenants| tenants.into_iter().collect())
}

pub(super) fn any_offer() -> impl Generator<Value = Offer> {
    let own = (0..6_u32, 0..5_u32, 0..3_u64, 0..4_u64, prop::option::weighted(0.1, Just(Closed::Cordoned)), 0..3_u32);
    let terms = (1..4_u64, 0..3_usize, 0..2_u64, 40..60_u8, 0..3_usize, 1..3_u32);
    let rare = (
        rarely("USDC", "EURC"),
        rarely((true, true), (false, true)),
        rarely("default", "other"),
        rarely("acme", "zeta"),
        rarely(vec!["Public", "Private"], vec!["Private"]),
        rarely(TENANCIES.to_vec(), vec!["Shared"]),
        rarely(vec![0, 2], vec![]),
        rarely(4_u32, 0),
        rarely(Beside::default(), Beside { price: Price::from_nanos_per_hour(2_000_000_000), in_use: false }),
        rarely(false, true),
    );
    let tenants = prop::option::weighted(0.4, any_tenants());
    (own, terms, rare, tenants).prop_map(|(own, terms, rare, tenants)| {
        let (node, free_devices, cpu, memory, closed, free_pods) = own;
        let (price, region, model, reputation, zone, replicas_per_device) = terms;
        let (token, (accepts_internal, accepts_chain), chain, provider, classes, tenancies, levels, total_devices, beside, in_use) = rare;
        let texts = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
        Offer {
            free_devices,
            total_devices,
            beside: Beside { in_use, ..beside },
            free_cpu_millis: cpu * 4_000,
            free_memory_bytes: memory * (32 << 30),
            closed,
            free_pods: free_pods * 50,
            region: [None, Some("north".into()), Some("south".into())][region].clone(),
            device_memory_bytes: (40 << 30) << model,
            reputation,
            zone: [None, Some("a".into()), Some("b".into())][zone].clone(),
            replicas_per_device,
            token: token.into(),
            accepts_internal,
            accepts_chain,
            chain: Some(chain.into()),
            provider: provider.into(),
            data_classes: texts(classes),
            tenancies: texts(tenancies),
            isolation_levels: levels,
            tenants: tenants.unwrap_or_default(),
            labels: [("rack".to_owned(), (node % 2).to_string())].into(),
            // A tie between two models must not hide which one was chosen.
            model: format!("M{model}"),
            ..offer(&format!("n{}{node}", if node == 5 { "-" } else { "" }), &price.to_string())
        }
    })
}

pub(super) fn any_request() -> impl Generator<Value = Request> {
    let what = (0..4_u32, prop::option::of(0..9_000_u64), prop::option::of(0..(70_u64 << 30)), 0..4_usize, 0..5_usize, 0..120_u64);
    let which = (0..3_u32, 0..2_u32, 0..4_usize, any::<bool>(), any::<bool>(), 0..12_usize);
    let rare = (
        rarely(None, Some("default".to_owned())),
        rarely(vec![], vec!["M1".to_owned()]),
        rarely(0_u64, 80 << 30),
        rarely("Public", "Private"),
        rarely(0_u8, 1),
        rarely(0_u8, 50),
        rarely(vec![], vec!["zeta".to_owned()]),
        rarely(vec![], vec!["zeta".to_owned()]),
        rarely("nvidia.com/gpu", "nvidia.com/mig-1g.10gb"),
    );
    (what, which, rare, prop::option::of(1..20_u64)).prop_map(|(what, which, rare, most)| {
        let (devices, cpu_millis, memory_bytes, strategy, tenancy, storage) = what;
        let (funding, team, regions, selects, excludes, only) = which;
        let (chain, models, device_memory_bytes, data_class, isolation_level, min_reputation, allow, deny, resource_name) = rare;
        Request {
            funding: escrow(funding),
            namespace: format!("team-{team}"),
            own_provider: (team == 0).then(|| "acme".to_owned()),
            devices,
            cpu_millis,
            memory_bytes,
            storage_bytes: storage << 30,
            strategy: [Strategy::Cheapest, Strategy::Fastest, Strategy::Quality, Strategy::Balanced][strategy],
            tenancy: TENANCIES[tenancy.saturating_sub(2)].into(),
            regions: [vec![], vec!["north".into()], vec!["south".into(), "north".into()], vec![]][regions].clone(),
            node_selector: if selects { [("rack".to_owned(), "1".to_owned())].into() } else { BTreeMap::new() },
            excluded_nodes: if excludes { vec!["n2".into()] } else { vec![] },
            only_nodes: [Some(vec!["n1".into(), "n3".into()]), Some(vec!["n2".into()])].get(only).cloned().flatten(),
            max_price_per_hour: most.map(|most| Amount::from_units(most * 1_000_000)),
            chain,
            models,
            device_memory_bytes,
            data_class: data_class.into(),
            isolation_level,
            min_reputation,
            allow_providers: allow,
            deny_providers: deny,
            resource_name: resource_name.into(),
            ..request()
        }
    })
}

/// One GPU, beside anybody, on any terms: nothing that places would be kept for.
pub(super) fn any_small_request() -> impl Generator<Value = Request> {
    any_request().prop_map(|request| {
        let only_nodes = request.only_nodes.filter(|nodes| nodes.len() > 1);
        Request { devices: request.devices.min(1), tenancy: "Shared".into(), only_nodes, ..request }
    })
}

/// Of one worker or several, alone or beside others.
pub(super) fn any_waiting() -> impl Generator<Value = Waiting> {
    let together = prop::strategy::Union::new_weighted(vec![(2, Just((1, 0))), (1, Just((2, 0))), (1, Just((2, 1))), (1, Just((3, 2)))]);
    (any_request(), -1..2_i32, together, 10..200_i64).prop_map(|(request, priority, (workers, topology), seconds)| Waiting {
        id: "".into(),
        request: request.into(),
        priority,
        created: 0,
        workers,
        topology: [Topology::Any, Topology::Zone, Topology::Node][topology],
        seconds,
    })
}

/// One escrow with one large task after the other, among others that want little.
pub(super) fn any_of_a_greedy_escrow() -> impl Generator<Value = Waiting> {
    (0..7_u32, 2..5_u32, 20..150_i64).prop_map(|(escrow, devices, seconds)| {
        let devices = if escrow < 3 { devices } else { 1 };
        let request = Request { funding: FundingId::internal(&format!("e{}", escrow.max(2))), devices, ..request() };
        Waiting { id: "".into(), request: request.into(), priority: 0, created: 0, workers: 1, topology: Topology::Any, seconds }
    })
}

/// The usual limits, and such as make every way of finding out give way to the next.
pub(super) fn any_limits() -> impl Generator<Value = Limits> {
    prop::strategy::Union::new([
        Just(Limits::default()),
        Just(Limits { few: 1, best: 2, in_all: 3, looks: 2 }),
        Just(Limits { few: 0, best: 1, in_all: 0, looks: 1 }),
        Just(Limits { looks: 1, ..Limits::default() }),
    ])
}
