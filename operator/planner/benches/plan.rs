//! How long the planner's own passes take, from events to effects: prints each figure as `figure <name> <value> <unit>`.
//! Times are this thread's own, on the processor.

use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::time::Duration;
use supercargo_crds::validate::Range;
use supercargo_ledger::FundingBalance;
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;
use supercargo_planner::plan::{Plan, Terms, plan};
use supercargo_planner::world::records::{Escrow, Node, Pool, ProviderNode, Task};
use supercargo_planner::world::{Event, World};

const NOW: i64 = 1_800_000_000;
const NODES: usize = 500;
const TASKS: usize = 10_000;
const ESCROWS: usize = 20;

/// The processor's time that this thread has had.
fn spent() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or_default())
}

fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = spent();
    let done = work();
    ((spent() - start).as_secs_f64() * 1e3, done)
}

fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap_or_else(|error| unreachable!("it is written here: {error}"))
}

fn node(index: usize) -> Node {
    Node {
        name: format!("node-{index:04}"),
        labels: [("gpu".to_owned(), "yes".to_owned()), ("kubernetes.io/hostname".to_owned(), format!("node-{index:04}"))].into(),
        ready: true,
        ready_since: NOW,
        seen: NOW,
        cpu_millis: 128_000,
        memory_bytes: 1 << 40,
        storage_bytes: 4 << 40,
        pods: 110,
        devices: [("nvidia.com/gpu".to_owned(), 8)].into(),
        device_capacity: [("nvidia.com/gpu".to_owned(), 8)].into(),
        addresses: Range::read(&format!("10.1.{}.{}/32", index / 250, index % 250)).into_iter().collect(),
        ..Node::default()
    }
}

fn task(index: usize) -> Task {
    let spec = json!({
        "budget": "50", "image": "train:1", "escrowRef": { "name": format!("escrow-{}", index % ESCROWS) },
        "resources": { "gpu": { "models": if index.is_multiple_of(2) { vec!["H100"] } else { vec![] } } },
    });
    let spec = read(spec);
    Task {
        payer: Task::payer("team", &spec),
        namespace: "team".into(),
        name: format!("task-{index:05}"),
        uid: format!("uid-{index:05}").into(),
        generation: 1,
        created: NOW - 1_000 + index.cast_signed() as i64 / 100,
        deleting: false,
        spec,
        status: Default::default(),
        findings: Vec::new(),
    }
}

fn world() -> World {
    let mut world = World::default();
    let pool = json!({
        "provider": "acme", "selector": { "matchLabels": { "gpu": "yes" } },
        "gpus": [{ "resourceName": "nvidia.com/gpu", "model": "NVIDIA-H100-80GB-HBM3", "memory": "80Gi" }],
        "pricing": { "token": "USDC", "resources": [{ "resourceName": "nvidia.com/gpu", "perHour": "2.10" }] },
    });
    let pool =
        Pool { name: "pool".into(), generation: 1, created: NOW, spec: read(pool), status: Default::default(), findings: Vec::new() };
    world.apply(Event::Pool(Box::new(pool)));
    for index in 0..NODES {
        let node = node(index);
        let spec = read(json!({ "pool": "pool", "nodeName": node.name }));
        let provided = ProviderNode { name: node.name.clone(), uid: node.name.clone(), generation: 1, spec, status: Default::default() };
        world.apply(Event::Node(Box::new(node)));
        world.apply(Event::ProviderNode(Box::new(provided)));
    }
    for index in 0..ESCROWS {
        let (uid, spec) = (format!("escrow-{index}"), read(json!({ "funding": "Internal", "token": "USDC", "grant": "1000000" })));
        let (funding, name) = (Escrow::funding(&uid, &spec), uid.clone());
        let escrow = Escrow { namespace: "team".into(), name, uid: uid.clone(), generation: 1, spec, status: Default::default(), funding };
        world.apply(Event::Escrow(Box::new(escrow)));
        let all = Amount::from_units(1_000_000_000_000);
        let balance = FundingBalance { deposited: all, available: all, ..FundingBalance::default() };
        world.apply(Event::Funding { funding: FundingId::internal(&uid), balance, last_post: None });
    }
    world
}

/// As if every status that was written had been seen again.
fn seen(world: &mut World, planned: &Plan) {
    use supercargo_planner::plan::Effect;
    for effect in &planned.effects {
        match effect {
            Effect::WriteTask { namespace, name, status, .. } => {
                let Some(task) = world.tasks.get(&(namespace.clone(), name.clone())) else { continue };
                let task = Task { status: (**status).clone(), ..(**task).clone() };
                world.apply(Event::Task(Box::new(task)));
            }
            Effect::WriteNode { name, status, .. } => {
                let Some(node) = world.provider_nodes.get(name) else { continue };
                let node = ProviderNode { status: (**status).clone(), ..node.clone() };
                world.apply(Event::ProviderNode(Box::new(node)));
            }
            Effect::WritePool { name, status } => {
                let Some(pool) = world.pools.get(name) else { continue };
                let pool = Pool { status: (**status).clone(), ..pool.clone() };
                world.apply(Event::Pool(Box::new(pool)));
            }
            Effect::WriteEscrow { namespace, name, status, .. } => {
                let Some(escrow) = world.escrows.get(&(namespace.clone(), name.clone())) else { continue };
                let escrow = Escrow { status: (**status).clone(), ..escrow.clone() };
                world.apply(Event::Escrow(Box::new(escrow)));
            }
            _ => {}
        }
    }
}

fn main() {
    let terms = Terms { tokens: vec!["USDC".into()], ..Terms::default() };
    let mut world = world();
    let (nodes, planned) = timed(|| plan(&mut world, &terms, NOW));
    println!("the first pass over {NODES} new nodes takes {nodes:.1} ms");
    seen(&mut world, &planned);
    let planned = plan(&mut world, &terms, NOW);
    seen(&mut world, &planned);
    (0..TASKS).for_each(|index| world.apply(Event::Task(Box::new(task(index)))));
    let (first, planned) = timed(|| plan(&mut world, &terms, NOW));
    let decided = world.tasks.values().filter(|task| world.market.decision(&task.work()).is_some()).count();
    println!("{TASKS} new tasks on {NODES} nodes: {decided} have a place, {} effects", planned.effects.len());
    println!("figure plan.pass_full {first:.1} ms");
    seen(&mut world, &planned);
    let mut passes = 1;
    while world.todo.works.len() > decided {
        let (_, planned) = timed(|| plan(&mut world, &terms, NOW));
        seen(&mut world, &planned);
        passes += 1;
        if passes > 1_000 {
            println!("{} are not told after {passes} passes", world.todo.works.len());
            break;
        }
    }
    println!("after {passes} passes who waits has been told why");
    // The books have not answered: what is decided is asked again, and nothing else is looked at.
    let (asking, _) = timed(|| plan(&mut world, &terms, NOW));
    println!("a pass while {decided} reservations are under way takes {asking:.2} ms");
    while world.todo.works.pop().is_some() {}
    let (idle, planned) = timed(|| plan(&mut world, &terms, NOW));
    assert!(planned.effects.is_empty(), "nothing changed, and nothing is done");
    println!("figure plan.pass_idle {idle:.3} ms");
}
