//! How fast and how small placement is: prints each figure as `figure <name> <value> <unit>`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use supercargo_market::money::Price;
use supercargo_market::placement::{Catalog, Exchange, Offer, Prices, Request, Strategy, Topology, Waiting};
use supercargo_market::work::FundingId;

/// Counts what is allocated, so that memory is measured and not guessed.
struct Counting;
static ALLOCATED_BYTES: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "an allocator can't be counted without being one; it only passes on")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        ALLOCATED_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const MODELS: [(&str, u64, u64); 5] = [
    ("NVIDIA-H100-80GB-HBM3", 80, 2_100),
    ("NVIDIA-H200", 141, 3_200),
    ("NVIDIA-A100-SXM4-80GB", 80, 1_300),
    ("NVIDIA-L40S", 48, 800),
    ("Tesla-T4", 16, 300),
];
const REGIONS: [&str; 4] = ["eu-north", "eu-west", "us-east", "ap-south"];

/// A node of one of some hundred pools: five models, four regions, ten providers, five reputations.
fn offer(index: u64, free_devices: u32) -> Offer {
    let (model, memory_gib, price) = MODELS[(index % 5) as usize];
    let (region, provider) = (REGIONS[(index / 5 % 4) as usize], index / 20 % 10);
    Offer {
        node: format!("node-{index:06}"),
        pool: format!("pool-{model}-{region}-{provider}"),
        provider: format!("provider-{provider}"),
        resource_name: "nvidia.com/gpu".into(),
        model: model.into(),
        device_memory_bytes: memory_gib << 30,
        free_devices,
        total_devices: 8,
        free_cpu_millis: 128_000,
        total_cpu_millis: 128_000,
        free_memory_bytes: 1 << 40,
        total_memory_bytes: 1 << 40,
        free_storage_bytes: 4 << 40,
        free_pods: 110,
        prices: Prices { device: Price::from_nanos_per_hour((price + provider * 7) * 1_000_000), ..Prices::default() },
        token: "USDC".into(),
        accepts_chain: true,
        accepts_internal: true,
        chain: Some("default".into()),
        region: Some(region.into()),
        zone: Some(format!("{region}-{}", index % 3)),
        reputation: (50 + index / 200 % 5) as u8,
        replicas_per_device: 1,
        tenants: vec![],
        labels: BTreeMap::from([
            ("kubernetes.io/arch".into(), "amd64".into()),
            ("kubernetes.io/hostname".into(), format!("node-{index:06}")),
            ("topology.kubernetes.io/region".into(), region.into()),
        ]),
        data_classes: vec!["Public".into(), "Shared".into()],
        tenancies: vec!["Shared".into(), "Dedicated".into()],
        isolation_levels: vec![0],
        closed: None,
    }
}

fn request(kind: u64) -> Request {
    Request {
        funding: FundingId::internal(&format!("escrow-{}", kind % 20)),
        namespace: format!("team-{}", kind % 20),
        own_provider: None,
        chain: None,
        token: "USDC".into(),
        resource_name: "nvidia.com/gpu".into(),
        devices: 1,
        models: if kind.is_multiple_of(2) { vec![] } else { vec!["H100".into()] },
        device_memory_bytes: (kind % 3) * (40 << 30),
        cpu_millis: None,
        memory_bytes: None,
        storage_bytes: 1 << 30,
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

fn figure(name: &str, value: f64, unit: &str) {
    println!("figure {name} {value:.3} {unit}");
}

fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

fn at(sorted: &mut [Duration], hundredths: usize) -> f64 {
    sorted.sort_unstable();
    micros(sorted[(sorted.len() - 1) * hundredths / 100])
}

fn main() {
    let before = ALLOCATED_BYTES.load(Ordering::Relaxed);
    let mut exchange = Exchange::new();
    // Everything is taken, so that everybody waits.
    (0..100_000).for_each(|index| exchange.offer(&offer(index, 0)));
    (0..10_000).for_each(|index| exchange.wait(waiting(index)));
    drop(exchange.pass(0));
    figure("placement.memory", (ALLOCATED_BYTES.load(Ordering::Relaxed) - before) as f64 / 1e6, "MB");
    drop(exchange);
    decisions();
    passes();
}

fn waiting(index: u64) -> Waiting {
    let request = Arc::new(request(index % 120));
    Waiting {
        id: format!("task-{index:05}"),
        request,
        priority: 0,
        created: index.cast_signed(),
        workers: 1,
        topology: Topology::Any,
        seconds: 3_600,
    }
}

/// One-GPU decisions over 100,000 offers; each is taken before the next, as an update of its offer.
fn decisions() {
    let mut catalog = Catalog::new();
    let mut offers: Vec<Offer> = (0..100_000).map(|index| offer(index, 8)).collect();
    offers.iter().for_each(|offer| catalog.update(offer));
    let requests: Vec<Arc<Request>> = (0..20).map(|kind| Arc::new(request(kind))).collect();
    let (mut decided, mut updated) = (Vec::new(), Vec::new());
    for round in 0..20_000 {
        let start = Instant::now();
        let found = catalog.choose(&requests[round % requests.len()]);
        decided.push(start.elapsed());
        let Ok(found) = found else { continue };
        let index: usize = found.node["node-".len()..].parse().unwrap_or_default();
        offers[index].free_devices -= 1;
        let start = Instant::now();
        catalog.update(&offers[index]);
        updated.push(start.elapsed());
    }
    figure("placement.decision_p99", at(&mut decided, 99), "us");
    figure("placement.update", at(&mut updated, 99), "us");
    // The hardest: nobody fits, and each of the offers is asked why; or a selector that one node in 100,000 has.
    let hostname = |index: u64| BTreeMap::from([("kubernetes.io/hostname".to_owned(), format!("node-{index:06}"))]);
    let hard = [
        Request { max_price_per_hour: Some("0.01".parse().unwrap_or_default()), ..request(0) },
        Request { cpu_millis: Some(1_000_000), ..request(0) },
        Request { node_selector: hostname(99_999), ..request(0) },
        Request { node_selector: hostname(1_000_000), ..request(0) },
        Request { storage_bytes: 1 << 50, strategy: Strategy::Balanced, ..request(1) },
    ];
    let mut slowest = decided;
    for request in hard.map(Arc::new) {
        let start = Instant::now();
        drop(catalog.choose(&request));
        slowest.push(start.elapsed());
    }
    figure("placement.decision_max", at(&mut slowest, 100), "us");
    rate();
}

/// Decided and taken, in one pass.
fn rate() {
    let mut exchange = Exchange::new();
    (0..100_000).for_each(|index| exchange.offer(&offer(index, 8)));
    (0..100_000).for_each(|index| exchange.wait(waiting(index)));
    let start = Instant::now();
    let placed = exchange.pass(0).map(|pass| pass.placed.len()).unwrap_or_default();
    figure("placement.rate", placed as f64 / start.elapsed().as_secs_f64(), "1/s");
}

fn passes() {
    let mut exchange = Exchange::new();
    (0..500).for_each(|index| exchange.offer(&offer(index, 8)));
    (0..10_000).for_each(|index| exchange.wait(waiting(index)));
    let start = Instant::now();
    let pass = exchange.pass(0);
    figure("plan.pass_full", micros(start.elapsed()) / 1e3, "ms");
    let (placed, waits) = pass.map(|pass| (pass.placed.len(), pass.waiting.len())).unwrap_or_default();
    println!("of 10,000 on 500 nodes {placed} were placed and {waits} wait");
    let start = Instant::now();
    drop(exchange.pass(1));
    figure("plan.pass_idle", micros(start.elapsed()) / 1e3, "ms");
}
