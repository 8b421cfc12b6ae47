//! The planner against a simulated cluster: an API server that forgets answers or is away for hours, nodes whose pods run
//! and end, clocks that jump, and an operator that dies. Its objects are in `objects.rs`, its books in `books.rs`; what the
//! API server does is in `server.rs`, what nodes do in `nodes.rs`, and their GPUs in `gpus.rs`, users and watches in `people.rs`;
//! of what kinds tasks are in `variety.rs`; what must always hold
//! of it all is in `histories.rs`. A failing seed is printed and replays.

mod books;
mod gpus;
mod histories;
mod nodes;
mod objects;
mod people;
mod server;
mod variety;

use super::{Effect, Plan, plan};
use crate::world::records::{Escrow, Namespace, Pod, Pool, Task};
use crate::world::{Event, World};
use books::Books;
use gpus::Gpus;
use objects::escrow;
pub(super) use objects::{escrow_with, gang, made, node, pool, task, terms};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use supercargo_crds::common::Money;
use supercargo_crds::node::ProviderNodeStatus;

const DEVICES: u64 = 4;
const NODES: [&str; 2] = ["n1", "n2"];
const T: i64 = 1_800_000_000;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// The cluster as it truly is, whatever the operator knows.
pub(super) struct Theatre {
    dice: Dice,
    pub(super) now: i64,
    pub(super) world: World,
    books: Books,
    pub(super) escrow: Escrow,
    /// Another one, that pays for some of the tasks.
    other: Option<Escrow>,
    pub(super) pool: Pool,
    pub(super) tasks: BTreeMap<String, Task>,
    pub(super) pods: BTreeMap<String, Pod>,
    /// Nodes whose kubelets say nothing, and since when.
    pub(super) silent: BTreeMap<String, i64>,
    /// Nodes whose kubelets ever said nothing: what ran there may have been given up.
    pub(super) were_silent: BTreeSet<String>,
    /// Since when nodes that once were silent, or gone, are heard of again.
    heard_since: BTreeMap<String, i64>,
    /// Nodes that somebody took out of the API.
    torn: BTreeSet<String>,
    gpus: Gpus,
    /// How many pods there were of each name.
    made: BTreeMap<String, u32>,
    /// What was last written into each pod, and its version, by UID.
    versions: RefCell<HashMap<String, (String, u64)>>,
    /// What was written of nodes, and which of them were tainted.
    pub(super) written: BTreeMap<String, ProviderNodeStatus>,
    pub(super) tainted: BTreeSet<String>,
    /// What people wrote over the specs of nodes.
    pub(super) turned: BTreeMap<String, serde_json::Value>,
    /// Pods that were told to end before they had ended.
    stopped: BTreeSet<String>,
    /// Nodes that are cordoned, and those that people ever closed by whatever means.
    cordoned: BTreeSet<String>,
    pub(super) were_closed: BTreeSet<String>,
    /// Names that somebody else's pods have.
    taken: BTreeSet<String>,
    /// Statuses that are on their way to their tasks for so many steps more, and the tasks for which this operator waits so.
    late: Vec<(u64, Effect)>,
    in_flight: BTreeSet<String>,
    /// What came in the way of writes, and how often.
    hindered: BTreeMap<&'static str, u64>,
    pub(super) faults: bool,
    /// Nobody stages what happens: whatever ends has a reason.
    random: bool,
    /// What has ended stays to be looked at until somebody deletes it.
    keeps_ended: bool,
    /// How far the operator's clock is from the nodes', and how often it has jumped.
    skew: i64,
    jumps: u64,
    /// How often it had when a pod's place was chosen, by UID.
    jumps_before: BTreeMap<String, u64>,
    /// For so many steps more the API server answers nobody.
    away: u64,
    /// Tasks and pods when watches last brought them.
    past: (BTreeMap<String, Task>, BTreeMap<String, Pod>),
    seed: u64,
}

impl Theatre {
    pub(super) fn new(seed: u64) -> Self {
        let mut theatre = Self {
            dice: Dice(seed * 2 + 1),
            // Some begin shortly before midnight.
            now: if seed % 6 == 1 { T + 57_300 } else { T },
            world: World::default(),
            books: Books::default(),
            escrow: escrow(),
            other: None,
            pool: pool(),
            tasks: BTreeMap::new(),
            pods: BTreeMap::new(),
            silent: BTreeMap::new(),
            were_silent: BTreeSet::new(),
            heard_since: BTreeMap::new(),
            torn: BTreeSet::new(),
            gpus: Gpus::default(),
            made: BTreeMap::new(),
            versions: RefCell::default(),
            written: BTreeMap::new(),
            tainted: BTreeSet::new(),
            turned: BTreeMap::new(),
            stopped: BTreeSet::new(),
            cordoned: BTreeSet::new(),
            were_closed: BTreeSet::new(),
            taken: BTreeSet::new(),
            late: Vec::new(),
            in_flight: BTreeSet::new(),
            hindered: BTreeMap::new(),
            faults: true,
            random: false,
            keeps_ended: false,
            skew: 0,
            jumps: 0,
            jumps_before: BTreeMap::new(),
            away: 0,
            past: Default::default(),
            seed,
        };
        for index in 0..2 + theatre.dice.roll(8) {
            let retries = i32::try_from(theatre.dice.roll(3)).expect("small");
            let workers = if index % 4 == 3 { 2 + u32::try_from(theatre.dice.roll(2)).expect("small") } else { 1 };
            let success = if theatre.dice.roll(2) == 0 { "All" } else { "Leader" };
            let (name, budget) = (format!("t{index}"), if index % 3 == 0 { "0.20" } else { "3" });
            theatre.tasks.insert(name.clone(), gang(&name, budget, retries, workers, success));
        }
        if seed % 3 == 1 {
            theatre.escrow.spec.daily_limit = "2.5".parse().ok().map(Money);
        }
        if seed % 5 == 2 {
            theatre.pool.spec.pricing.minimum_seconds = 90;
        }
        theatre.restart();
        theatre
    }

    /// The operator begins anew: it knows what it lists and what the books hold.
    pub(super) fn restart(&mut self) {
        let mut world = World::default();
        for name in NODES {
            if !self.torn.contains(name) {
                world.apply(Event::Node(Box::new(self.node(name))));
            }
            world.apply(Event::ProviderNode(Box::new(self.provided(name))));
        }
        world.apply(Event::Pool(Box::new(self.pool.clone())));
        [Some(&self.escrow), self.other.as_ref()]
            .into_iter()
            .flatten()
            .for_each(|escrow| world.apply(Event::Escrow(Box::new(escrow.clone()))));
        world.apply(Event::Namespace(Namespace { name: "n".into(), uid: "nu".into(), deleting: false }));
        self.tasks.values().for_each(|task| world.apply(Event::Task(Box::new(task.clone()))));
        self.pods.values().for_each(|pod| world.apply(Event::Pod(Box::new(self.seen(pod)))));
        world.begin_anew(self.clock());
        self.world = world;
        self.in_flight.clear();
        self.tell_books();
    }

    /// The operator's.
    pub(super) fn clock(&self) -> i64 {
        self.now + self.skew
    }

    /// The lead is lost and taken again: what the books hold counts, and not what was thought of.
    fn lead_again(&mut self) {
        self.world.begin_anew(self.now + self.skew);
        self.in_flight.clear();
        self.tell_books();
    }

    fn chance(&mut self, of: u64) -> bool {
        self.faults && self.dice.roll(of) == 0
    }

    /// The same, counted: whatever is to come in the way of writes does.
    fn hinders(&mut self, what: &'static str, of: u64) -> bool {
        let hinders = self.chance(of);
        *self.hindered.entry(what).or_default() += u64::from(hinders);
        hinders
    }

    /// One pass, and whatever of it gets through.
    pub(super) fn pass(&mut self) {
        let clock = self.clock();
        let Plan { effects, .. } = plan(&mut self.world, &terms(), clock);
        self.says_why(&effects);
        for effect in effects {
            // The books are reached another way than the API server.
            if self.chance(6) || (self.away > 0 && !matches!(effect, Effect::Book(_))) {
                continue;
            }
            self.carry_out(effect);
            if self.chance(25) && self.away == 0 {
                if self.dice.roll(3) == 0 {
                    self.lead_again()
                } else {
                    self.restart()
                }
                return;
            }
        }
    }
}
