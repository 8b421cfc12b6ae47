//! How fast and how small placement is: prints each figure as `figure <name> <value> <unit>`. Times are this thread's own,
//! on the processor: what one core needs, whoever else is at work on the machine. The plain market, which looks at one
//! offer after the other, is measured beside it.

use rustix::time::{ClockId, clock_gettime};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use supercargo_market::money::Price;
use supercargo_market::placement::{self, Catalog, Exchange, Offer, Prices, Request, Strategy, Tenant, Topology, Waiting};
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
        beside: placement::Beside::default(),
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

/// The processor's time that this thread has had.
fn spent() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or_default())
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = spent();
    let done = work();
    (spent() - start, done)
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

/// All parts, or those that are named.
fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let parts: [(&str, fn()); 5] = [("memory", memory), ("decisions", decisions), ("hardest", hardest), ("rate", rate), ("passes", passes)];
    parts.into_iter().filter(|(name, _)| named.is_empty() || named.iter().any(|word| word == name)).for_each(|(_, part)| part());
}

fn waiting(index: u64) -> Waiting {
    Waiting {
        id: format!("task-{index:05}").into(),
        request: Arc::new(request(index % 120)),
        priority: 0,
        created: index.cast_signed(),
        workers: 1,
        topology: Topology::Any,
        seconds: 3_600,
    }
}

fn memory() {
    let before = ALLOCATED_BYTES.load(Ordering::Relaxed);
    let mut exchange = Exchange::new();
    // Everything is taken, so that everybody waits.
    (0..100_000).for_each(|index| exchange.offer(&offer(index, 0)));
    (0..10_000).for_each(|index| exchange.wait(&waiting(index)));
    drop(exchange.assign(0));
    let megabytes = |before: usize| (ALLOCATED_BYTES.load(Ordering::Relaxed) - before) as f64 / 1e6;
    figure("placement.memory", megabytes(before), "MB");
    drop(exchange);
    let before = ALLOCATED_BYTES.load(Ordering::Relaxed);
    let mut catalog = Catalog::new();
    (0..100_000).for_each(|index| assert!(catalog.update(&unlike(index))));
    println!("100,000 offers of which no two are on the same terms take {:.1} MB", megabytes(before));
}

/// One-GPU decisions over 100,000 offers; each is taken before the next, as an update of its offer.
fn decisions() {
    let mut catalog = Catalog::new();
    let mut offers: Vec<Offer> = (0..100_000).map(|index| offer(index, 8)).collect();
    offers.iter().for_each(|offer| assert!(catalog.update(offer)));
    let requests: Vec<Arc<Request>> = (0..20).map(|kind| Arc::new(request(kind))).collect();
    let (mut decided, mut updated) = (Vec::new(), Vec::new());
    for round in 0..20_000 {
        let (took, found) = timed(|| catalog.choose(&requests[round % requests.len()]));
        decided.push(took);
        let Ok(found) = found else { continue };
        let index: usize = found.node["node-".len()..].parse().unwrap_or_default();
        offers[index].free_devices -= 1;
        updated.push(timed(|| catalog.update(&offers[index])).0);
    }
    let (plainly, _) = timed(|| placement::choose(&offers, &requests[0]));
    figure("placement.decision_p99", at(&mut decided, 99), "us");
    println!("the plain market takes {:.0} us for one", micros(plainly));
    figure("placement.update", at(&mut updated, 99), "us");
}

/// An offer on terms that no other has.
fn unlike(index: u64) -> Offer {
    let cpu = Price::from_nanos_per_hour(1_000_000_000 + index);
    Offer { prices: Prices { cpu, ..offer(index, 8).prices }, ..offer(index, 8) }
}

/// An offer on terms that no other has, in a zone where everything is dearer than in all zones before.
fn dearer_by_zone(index: u64) -> Offer {
    let zone = index / 5 % 4 * 3 + index % 3;
    let cpu = Price::from_nanos_per_hour((1 + zone) * 1_000_000_000 + index);
    Offer { prices: Prices { cpu, ..offer(index, 8).prices }, ..offer(index, 8) }
}

/// A node that some task is on already.
fn shared(index: u64) -> Offer {
    let tenants = vec![Tenant { funding: FundingId::internal("other"), namespace: "other".into(), tenancy: "Shared".into() }];
    Offer { tenants, ..offer(index, 7) }
}

/// Requests that are hard, each in its own way.
fn hard() -> [(&'static str, Request); 9] {
    let hostname = |index: u64| BTreeMap::from([("kubernetes.io/hostname".to_owned(), format!("node-{index:06}"))]);
    [
        ("a price that nobody asks", Request { max_price_per_hour: Some("0.01".parse().unwrap_or_default()), ..request(0) }),
        ("cores that no node has", Request { cpu_millis: Some(1_000_000), ..request(0) }),
        ("a disk that no node has", Request { storage_bytes: 1 << 50, strategy: Strategy::Balanced, ..request(1) }),
        ("a model that nobody has", Request { models: vec!["B200".into()], ..request(0) }),
        ("the last node by name", Request { node_selector: hostname(99_999), ..request(0) }),
        ("a node that is not there", Request { node_selector: hostname(1_000_000), ..request(0) }),
        (
            "a volume on a thousand nodes",
            Request {
                only_nodes: Some((0..1_000).map(|node| format!("node-{:06}", node * 97)).collect()),
                storage_bytes: 1 << 50,
                ..request(0)
            },
        ),
        ("nobody else's tasks beside", Request { tenancy: "Dedicated".into(), ..request(0) }),
        ("anything at all", Request { strategy: Strategy::Quality, ..request(2) }),
    ]
}

/// The slowest decision of all, for one worker and for gangs.
fn hardest() {
    let hard = hard();
    let mut slowest: f64 = 0.0;
    for (kind, of) in [
        ("alike", offer as fn(u64, u32) -> Offer),
        ("all unlike", |index, _| unlike(index)),
        ("all unlike and dearer by zone", |index, _| dearer_by_zone(index)),
        ("all in use", |index, _| shared(index)),
    ] {
        let mut catalog = Catalog::new();
        (0..100_000).for_each(|index| assert!(catalog.update(&of(index, 8))));
        for (what, request) in &hard {
            // Each is asked for the first time: it has a disk of its own size.
            let first = |number| Arc::new(Request { storage_bytes: request.storage_bytes + number, ..request.clone() });
            let mut times = [1, 2, 3, 4, 5].map(|number| timed(|| drop(catalog.choose(&first(number)))).0);
            let again = timed(|| drop(catalog.choose(&first(5)))).0;
            slowest = slowest.max(told(kind, what, &mut times));
            println!("offers {kind}, {what}: {:.0} us when asked again", micros(again));
        }
        drop(catalog);
        let mut exchange = Exchange::new();
        (0..100_000).for_each(|index| exchange.offer(&of(index, 8)));
        for (what, topology) in [("a gang", Topology::Any), ("a gang in one zone", Topology::Zone), ("a gang on one node", Topology::Node)]
        {
            let mut times = [1, 2, 3, 4, 5].map(|number| gang(&mut exchange, topology, number));
            slowest = slowest.max(told(kind, what, &mut times));
        }
    }
    let offers: Vec<Offer> = (0..100_000).map(unlike).collect();
    let (plainly, _) = timed(|| drop(placement::choose(&offers, &hard[1].1)));
    figure("placement.decision_max", slowest, "us");
    println!("the plain market takes {:.0} us for {}", micros(plainly), hard[1].0);
}

/// The slowest of some times, in microseconds.
fn told(kind: &str, what: &str, times: &mut [Duration]) -> f64 {
    let (median, slowest) = (at(times, 50), at(times, 100));
    println!("offers {kind}, {what}: {median:.0} us, and {slowest:.0} the slowest");
    slowest
}

/// All workers of a gang that asks for something new are placed, and leave.
fn gang(exchange: &mut Exchange, topology: Topology, number: u64) -> Duration {
    let request = Request { storage_bytes: (2 << 30) + number, ..request(0) };
    let task = Waiting { request: Arc::new(request), workers: 4, topology, ..waiting(number) };
    exchange.wait(&task);
    let (took, pass) = timed(|| exchange.assign(0));
    assert_eq!(pass.placed.len(), 1, "there is room for it");
    exchange.ended(&task.id);
    took
}

/// Decided and taken, in one pass.
fn rate() {
    let pass = |of: fn(u64) -> Offer| {
        let mut exchange = Exchange::new();
        (0..100_000).for_each(|index| exchange.offer(&of(index)));
        (0..100_000).for_each(|index| exchange.wait(&waiting(index)));
        let (took, pass) = timed(|| exchange.assign(0));
        pass.placed.len() as f64 / took.as_secs_f64()
    };
    figure("placement.rate", pass(|index| offer(index, 8)), "1/s");
    println!("where no two offers are on the same terms: {:.0} 1/s", pass(unlike));
}

fn passes() {
    let full = |kind: &str, task: fn(u64) -> Waiting| {
        let mut exchange = Exchange::new();
        (0..500).for_each(|index| exchange.offer(&offer(index, 8)));
        (0..10_000).for_each(|index| exchange.wait(&task(index)));
        let (took, pass) = timed(|| exchange.assign(0));
        println!(
            "of 10,000 {kind} on 500 nodes {} were placed and {} wait: {:.1} ms",
            pass.placed.len(),
            pass.waiting.len(),
            micros(took) / 1e3
        );
        exchange
    };
    let mut exchange = full("tasks", waiting);
    println!("the pass with nothing changed takes {:.3} ms", micros(timed(|| exchange.assign(1)).0) / 1e3);
    exchange.ended("task-00000");
    println!("the pass after one task ended takes {:.1} ms", micros(timed(|| exchange.assign(2)).0) / 1e3);
    exchange.ended("task-00001");
    println!("and when all have waited for hours {:.1} ms", micros(timed(|| exchange.assign(20_000)).0) / 1e3);
    full("tasks of which no two ask the same", |index| {
        let request = Request { storage_bytes: index << 20, ..request(index) };
        Waiting { request: Arc::new(request), ..waiting(index) }
    });
    full("tasks, every tenth a gang of eight,", |index| Waiting {
        workers: if index.is_multiple_of(10) { 8 } else { 1 },
        ..waiting(index)
    });
    full("tasks that want all of one node, no two the same,", |index| {
        let node = vec!["node-000000".to_owned()];
        let request = Request { storage_bytes: index << 20, devices: 8, models: vec![], only_nodes: Some(node), ..request(index) };
        Waiting { request: Arc::new(request), ..waiting(index) }
    });
}
