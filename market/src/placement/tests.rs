use super::*;

pub(super) fn offer(node: &str, price: &str) -> Offer {
    Offer {
        node: node.into(),
        pool: "pool".into(),
        provider: "acme".into(),
        resource_name: "nvidia.com/gpu".into(),
        model: "NVIDIA-H100-80GB-HBM3".into(),
        device_memory_bytes: 80 << 30,
        free_devices: 4,
        total_devices: 4,
        free_cpu_millis: 8_000,
        total_cpu_millis: 8_000,
        free_memory_bytes: 64 << 30,
        total_memory_bytes: 64 << 30,
        free_storage_bytes: 100 << 30,
        free_pods: 100,
        prices: Prices { device: price.parse().expect("a price"), ..Prices::default() },
        beside: Beside::default(),
        token: "USDC".into(),
        accepts_chain: true,
        accepts_internal: true,
        chain: Some("default".into()),
        region: Some("north".into()),
        zone: None,
        reputation: 50,
        replicas_per_device: 1,
        tenants: vec![],
        labels: BTreeMap::new(),
        data_classes: vec!["Public".into()],
        tenancies: vec!["Shared".into()],
        isolation_levels: vec![0],
        closed: None,
    }
}

pub(super) fn request() -> Request {
    Request {
        funding: FundingId::internal("e"),
        namespace: "team".into(),
        own_provider: None,
        chain: None,
        token: "USDC".into(),
        resource_name: "nvidia.com/gpu".into(),
        devices: 1,
        models: vec![],
        device_memory_bytes: 0,
        cpu_millis: None,
        memory_bytes: None,
        storage_bytes: 0,
        strategy: Strategy::Cheapest,
        tenancy: "Shared".into(),
        data_class: "Public".into(),
        isolation_level: 0,
        max_price_per_hour: None,
        min_reputation: 0,
        regions: vec![],
        node_selector: BTreeMap::new(),
        allow_providers: vec![],
        deny_providers: vec![],
        excluded_nodes: vec![],
        only_nodes: None,
    }
}

#[test]
fn the_strategy_decides_between_offers_that_fit() {
    let cheap = offer("cheap", "1");
    let fast = Offer { device_memory_bytes: 141 << 30, ..offer("fast", "4") };
    let good = Offer { reputation: 99, ..offer("good", "2") };
    let offers = [fast, good, cheap];
    let on = |strategy| choose(&offers, &Request { strategy, ..request() }).map(|assignment| assignment.node).expect("fits");
    assert_eq!(on(Strategy::Cheapest), "cheap");
    assert_eq!(on(Strategy::Fastest), "fast");
    assert_eq!(on(Strategy::Quality), "good");
    assert_eq!(on(Strategy::Balanced), "cheap");
}

#[test]
fn a_region_that_is_preferred_comes_before_a_price() {
    let offers = [Offer { region: Some("south".into()), ..offer("a", "1") }, offer("b", "2")];
    let wanted = Request { regions: vec!["north".into(), "south".into()], ..request() };
    assert_eq!(choose(&offers, &wanted).map(|assignment| assignment.node), Ok("b".into()));
}

#[test]
fn cpu_and_memory_that_nobody_asked_for_are_the_share_of_the_devices() {
    let assignment = choose(&[offer("n", "1")], &request()).expect("fits");
    assert_eq!((assignment.held.cpu_millis, assignment.held.memory_bytes), (2_000, 16 << 30));
}

#[test]
fn each_filter_refuses_with_its_own_reason() {
    let cases: Vec<(Reason, Offer, Request)> = vec![
        (Reason::ResourceNotSold, offer("n", "1"), Request { resource_name: "nvidia.com/mig-1g.10gb".into(), ..request() }),
        (Reason::NodeNotReady, Offer { closed: Some(Closed::NotReady), ..offer("n", "1") }, request()),
        (Reason::NodeCordoned, Offer { closed: Some(Closed::Cordoned), ..offer("n", "1") }, request()),
        (Reason::NodeTainted, Offer { closed: Some(Closed::Tainted), ..offer("n", "1") }, request()),
        (Reason::ModelNotWanted, offer("n", "1"), Request { models: vec!["A100".into()], ..request() }),
        (Reason::DeviceMemoryTooSmall, offer("n", "1"), Request { device_memory_bytes: 81 << 30, ..request() }),
        (Reason::TokenNotAccepted, offer("n", "1"), Request { token: "EURC".into(), ..request() }),
        (Reason::FundingNotAccepted, Offer { accepts_internal: false, ..offer("n", "1") }, request()),
        (Reason::FundingNotAccepted, offer("n", "1"), Request { chain: Some("other".into()), ..request() }),
        (Reason::ProviderNotAllowed, offer("n", "1"), Request { deny_providers: vec!["acme".into()], ..request() }),
        (Reason::ProviderNotAllowed, offer("n", "1"), Request { allow_providers: vec!["else".into()], ..request() }),
        (Reason::RegionNotWanted, offer("n", "1"), Request { regions: vec!["south".into()], ..request() }),
        (Reason::SelectorDoesNotMatch, offer("n", "1"), Request { node_selector: [("a".into(), "b".into())].into(), ..request() }),
        (Reason::DataClassNotAllowed, offer("n", "1"), Request { data_class: "Private".into(), ..request() }),
        (Reason::IsolationTooWeak, offer("n", "1"), Request { isolation_level: 2, ..request() }),
        (Reason::TenancyNotOffered, offer("n", "1"), Request { tenancy: "Exclusive".into(), ..request() }),
        (Reason::ReputationTooLow, offer("n", "1"), Request { min_reputation: 51, ..request() }),
        (Reason::NodeTooSmall, offer("n", "1"), Request { devices: 5, ..request() }),
        (Reason::NodeTooSmall, Offer { free_devices: 0, ..offer("n", "1") }, Request { devices: 16, ..request() }),
        (Reason::PriceTooHigh, offer("n", "1"), Request { max_price_per_hour: "0.99".parse().ok(), ..request() }),
        (Reason::FailedThereBefore, offer("n", "1"), Request { excluded_nodes: vec!["n".into()], ..request() }),
        (Reason::DevicesInUse, Offer { free_devices: 0, ..offer("n", "1") }, request()),
        (Reason::VolumeElsewhere, offer("n", "1"), Request { only_nodes: Some(vec!["m".into()]), ..request() }),
        (Reason::CpuInUse, offer("n", "1"), Request { cpu_millis: Some(9_000), ..request() }),
        (Reason::MemoryInUse, offer("n", "1"), Request { memory_bytes: Some(65 << 30), ..request() }),
        (Reason::StorageInUse, offer("n", "1"), Request { storage_bytes: 101 << 30, ..request() }),
        (Reason::PodsInUse, Offer { free_pods: 0, ..offer("n", "1") }, request()),
    ];
    for (reason, offer, request) in cases {
        let refused = choose(std::slice::from_ref(&offer), &request).expect_err(reason.name());
        assert_eq!(refused.iter().map(|refused| refused.reason).collect::<Vec<_>>(), [reason]);
        assert!(refused[0].example.starts_with("n: "), "{}", refused[0].example);
    }
}

#[test]
fn reasons_count_their_nodes_and_name_one() {
    let full = |node: &str| Offer { free_devices: 0, ..offer(node, "1") };
    let offers = [full("a"), full("b"), Offer { closed: Some(Closed::Cordoned), ..offer("c", "1") }];
    let refused = choose(&offers, &request()).expect_err("nothing is free");
    let seen: Vec<(Reason, u32, &str)> = refused.iter().map(|refused| (refused.reason, refused.nodes, refused.example.as_str())).collect();
    assert_eq!(seen, [(Reason::NodeCordoned, 1, "c: the node is cordoned"), (Reason::DevicesInUse, 2, "a: 0 of 4 are free")]);
}

#[test]
fn a_task_without_devices_goes_to_any_node() {
    let wanted =
        Request { devices: 0, cpu_millis: Some(500), memory_bytes: Some(1 << 20), resource_name: "nvidia.com/gpu".into(), ..request() };
    let other = Offer { resource_name: "nvidia.com/mig-1g.10gb".into(), free_devices: 0, ..offer("n", "1") };
    assert_eq!(choose(&[other], &wanted).map(|assignment| assignment.held.device_price), Ok("1".parse().expect("a price")));
}

#[test]
fn neighbours_are_as_both_sides_tenancy_allows() {
    let tenant = |escrow: &str, namespace: &str, tenancy: &str| Tenant {
        funding: FundingId::internal(escrow),
        namespace: namespace.into(),
        tenancy: tenancy.into(),
    };
    // Who is there, replicas of a device, who comes, and whether they may be neighbours.
    let cases = [
        (tenant("x", "b", "Shared"), 1, "Shared", true),
        (tenant("x", "b", "Shared"), 4, "Shared", false),
        (tenant("x", "team", "Shared"), 4, "Shared", true),
        (tenant("x", "b", "Shared"), 1, "Dedicated", false),
        (tenant("e", "b", "Shared"), 1, "Dedicated", true),
        (tenant("x", "b", "Dedicated"), 1, "Shared", false),
        (tenant("e", "b", "Dedicated"), 1, "Shared", true),
        (tenant("e", "team", "Shared"), 1, "Exclusive", false),
        (tenant("e", "team", "Exclusive"), 1, "Shared", false),
    ];
    for (there, replicas_per_device, tenancy, may) in cases {
        let offer = Offer {
            replicas_per_device,
            tenancies: vec!["Shared".into(), "Dedicated".into(), "Exclusive".into()],
            // As many are free as there are: what counts here is who has the rest.
            tenants: vec![there.clone()],
            ..offer("n", "1")
        };
        let found = choose(&[offer], &Request { tenancy: tenancy.into(), ..request() });
        assert_eq!(found.is_ok(), may, "{there:?} and {tenancy}");
    }
}

#[test]
fn alone_on_a_node_a_task_holds_and_pays_for_every_device() {
    let all = Offer { tenancies: vec!["Exclusive".into()], ..offer("n", "1.50") };
    let alone = Request { tenancy: "Exclusive".into(), ..request() };
    let assignment = choose(&[all], &alone).expect("fits");
    assert_eq!((assignment.held.devices, assignment.price_per_hour.to_string()), (4, "6.00".into()));
}

#[test]
fn alone_on_a_node_a_task_pays_for_what_else_is_sold_there_and_comes_only_where_nobody_has_any_of_it() {
    let beside = |in_use| Beside { price: "3.50".parse().expect("a price"), in_use };
    let on = |in_use| Offer { tenancies: vec!["Shared".into(), "Exclusive".into()], beside: beside(in_use), ..offer("n", "1.50") };
    let wanted = |tenancy: &str, most: Option<&str>| Request {
        tenancy: tenancy.into(),
        max_price_per_hour: most.map(|most| most.parse().expect("an amount")),
        ..request()
    };
    let price = |offer, request| choose(&[offer], &request).map(|assignment| assignment.price_per_hour.to_string());
    let reason = |offer, request| choose(&[offer], &request).map_err(|refused| refused[0].reason).expect_err("it is refused");
    assert_eq!(price(on(false), wanted("Exclusive", Some("9.50"))), Ok("9.50".into()));
    assert_eq!(reason(on(false), wanted("Exclusive", Some("9.49"))), Reason::PriceTooHigh);
    assert_eq!(reason(on(true), wanted("Exclusive", None)), Reason::DevicesInUse);
    assert_eq!(price(on(true), wanted("Shared", None)), Ok("1.50".into()), "who shares the node has no part in it");
}

#[test]
fn a_node_that_could_never_hold_so_many_is_told_apart_from_one_whose_devices_are_in_use() {
    let large = |node: &str| Offer { free_devices: 3, total_devices: 16, ..offer(node, "1") };
    let refused =
        choose(&[offer("b", "1"), large("c"), offer("a", "1")], &Request { devices: 9, ..request() }).expect_err("none has so many free");
    let seen: Vec<(Reason, u32, &str)> = refused.iter().map(|refused| (refused.reason, refused.nodes, refused.example.as_str())).collect();
    let words = "a: sells 4 in all, and 9 are asked for";
    assert_eq!(seen, [(Reason::NodeTooSmall, 2, words), (Reason::DevicesInUse, 1, "c: 3 of 16 are free")]);
}

#[test]
fn private_data_stays_with_the_escrows_own_provider() {
    let private = Offer { data_classes: vec!["Private".into()], ..offer("n", "1") };
    let wanted = |own: Option<&str>| Request { data_class: "Private".into(), own_provider: own.map(Into::into), ..request() };
    assert!(choose(std::slice::from_ref(&private), &wanted(Some("acme"))).is_ok());
    assert_eq!(choose(&[private], &wanted(Some("else"))).expect_err("another's")[0].reason, Reason::DataClassNotAllowed);
}
