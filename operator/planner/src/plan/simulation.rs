//! The planner against a simulated cluster: an API server that forgets answers or is away for hours, nodes whose pods run
//! and end, clocks that jump, and an operator that dies. Users and watches are in `people.rs`; what must always hold of it
//! all is in `histories.rs`. A failing seed is printed and replays.

mod histories;
mod people;

use super::{Effect, Fitting, Plan, Terms, plan};
use crate::world::convert;
use crate::world::records::{Escrow, Namespace, Node, Placement, Pod, PodPhase, Pool, ProviderNode, Reservation, Task};
use crate::world::standing::Policy;
use crate::world::{Event, World};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};
use supercargo_crds::node::ProviderNodeStatus;
use supercargo_crds::task_status::ComputeTaskStatus;
use supercargo_ledger::{FundingBalance, Posting, WorkBalance};
use supercargo_market::money::Amount;
use supercargo_market::placement::Record;
use supercargo_market::work::{FundingId, WorkId};

const DEVICES: u64 = 4;
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

/// What the books hold, as plainly as can be.
#[derive(Default)]
struct Books {
    funds: BTreeMap<FundingId, u64>,
    open: BTreeMap<WorkId, (FundingId, u64, Placement)>,
    latest: BTreeMap<WorkId, Placement>,
    charged: BTreeMap<WorkId, u64>,
    /// What was charged of each segment, in seconds.
    segments: BTreeMap<String, u64>,
    records: BTreeMap<String, Record>,
}

/// The cluster as it truly is, whatever the operator knows.
pub(super) struct Theatre {
    dice: Dice,
    pub(super) now: i64,
    pub(super) world: World,
    books: Books,
    pub(super) tasks: BTreeMap<String, Task>,
    pub(super) pods: BTreeMap<String, Pod>,
    /// Nodes whose kubelets say nothing, and since when.
    pub(super) silent: BTreeMap<String, i64>,
    /// Nodes whose kubelets ever said nothing: what ran there may have been given up.
    pub(super) were_silent: BTreeSet<String>,
    /// What was written of nodes, and which of them were tainted.
    pub(super) written: BTreeMap<String, ProviderNodeStatus>,
    pub(super) tainted: BTreeSet<String>,
    /// What people wrote over the specs of nodes.
    pub(super) turned: BTreeMap<String, serde_json::Value>,
    /// Pods that were told to end before they had ended.
    stopped: BTreeSet<String>,
    pub(super) faults: bool,
    /// How far the operator's clock is from the nodes', and whether it ever was.
    skew: i64,
    was_skewed: bool,
    /// For so many steps more the API server answers nobody.
    away: u64,
    /// Tasks and pods when watches last brought them.
    past: (BTreeMap<String, Task>, BTreeMap<String, Pod>),
    seed: u64,
}

pub(super) fn task(name: &str, budget: &str, retries: i32) -> Task {
    gang(name, budget, retries, 1, "All")
}

pub(super) fn gang(name: &str, budget: &str, retries: i32, workers: u32, success: &str) -> Task {
    let mut spec = serde_json::json!({ "budget": budget, "image": "i", "retries": retries, "resources": { "cpu": "1", "memory": "1Gi" }, "timeLimitSeconds": 600 });
    if workers > 1 {
        spec["gang"] = serde_json::json!({ "workers": workers, "success": success });
    }
    let spec = serde_json::from_value(spec).expect("a spec");
    Task {
        payer: Task::payer("n", &spec),
        namespace: "n".into(),
        name: name.into(),
        uid: format!("uid-of-{name}").into(),
        generation: 1,
        created: T,
        deleting: false,
        spec,
        status: ComputeTaskStatus::default(),
        findings: Vec::new(),
    }
}

pub(super) fn node(name: &str, now: i64, silent_since: Option<i64>) -> Node {
    Node {
        name: name.into(),
        labels: [("gpu".to_owned(), "yes".to_owned())].into(),
        ready: silent_since.is_none(),
        ready_since: silent_since.unwrap_or(T),
        seen: now,
        cpu_millis: 64_000,
        memory_bytes: 256 << 30,
        storage_bytes: 1 << 40,
        pods: 110,
        devices: [("nvidia.com/gpu".to_owned(), DEVICES)].into(),
        device_capacity: [("nvidia.com/gpu".to_owned(), DEVICES)].into(),
        ..Node::default()
    }
}

pub(super) fn pool() -> Pool {
    let spec = serde_json::json!({
        "provider": "acme", "selector": { "matchLabels": { "gpu": "yes" } },
        "pricing": { "token": "USDC", "resources": [{ "resourceName": "nvidia.com/gpu", "perHour": "3.60" }] },
    });
    Pool {
        name: "pool".into(),
        generation: 1,
        created: T,
        spec: serde_json::from_value(spec).expect("a spec"),
        status: Default::default(),
        findings: vec![],
    }
}

fn escrow() -> Escrow {
    let spec = serde_json::json!({ "funding": "Internal", "token": "USDC", "grant": "100" });
    let spec = serde_json::from_value(spec).expect("a spec");
    Escrow {
        funding: Escrow::funding("e", &spec),
        namespace: "n".into(),
        name: "default".into(),
        uid: "e".into(),
        generation: 1,
        spec,
        status: Default::default(),
    }
}

/// What the API server says of a policy that it has just made.
pub(super) fn made(fitting: &Fitting, generation: i64) -> Option<Policy> {
    let Fitting::Policy(policy) = fitting else { return None };
    let uid = policy.metadata.name.as_ref().map(|name| format!("uid-of-{name}"));
    let metadata = ObjectMeta { uid, generation: Some(generation), ..policy.metadata.clone() };
    convert::policy(&NetworkPolicy { metadata, spec: None })
}

pub(super) fn terms() -> Terms {
    Terms { tokens: vec!["USDC".into()], taints_nodes: true, user_namespaces: true, ..Terms::default() }
}

/// A container that is told to end ends: in order, as a good one does, or not.
fn obey(pod: &mut Pod, now: i64, orderly: bool) {
    let ran = pod.started.is_some();
    pod.phase = if ran && orderly { PodPhase::Succeeded } else { PodPhase::Failed };
    (pod.exit_code, pod.finished) = if ran { (Some(if orderly { 0 } else { 137 }), Some(now)) } else { (None, None) };
}

impl Theatre {
    pub(super) fn new(seed: u64) -> Self {
        let mut theatre = Self {
            dice: Dice(seed * 2 + 1),
            now: T,
            world: World::default(),
            books: Books::default(),
            tasks: BTreeMap::new(),
            pods: BTreeMap::new(),
            silent: BTreeMap::new(),
            were_silent: BTreeSet::new(),
            written: BTreeMap::new(),
            tainted: BTreeSet::new(),
            turned: BTreeMap::new(),
            stopped: BTreeSet::new(),
            faults: true,
            skew: 0,
            was_skewed: false,
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
        theatre.restart();
        theatre
    }

    /// The operator begins anew: it knows what it lists and what the books hold.
    pub(super) fn restart(&mut self) {
        let mut world = World::default();
        for name in ["n1", "n2"] {
            world.apply(Event::Node(Box::new(self.node(name))));
            world.apply(Event::ProviderNode(Box::new(self.provided(name))));
        }
        world.apply(Event::Pool(Box::new(pool())));
        world.apply(Event::Escrow(Box::new(escrow())));
        world.apply(Event::Namespace(Namespace { name: "n".into(), uid: "nu".into(), deleting: false }));
        self.tasks.values().for_each(|task| world.apply(Event::Task(Box::new(task.clone()))));
        self.pods.values().for_each(|pod| world.apply(Event::Pod(Box::new(self.seen(pod)))));
        self.world = world;
        self.tell_books();
    }

    pub(super) fn node(&self, name: &str) -> Node {
        Node { sold: self.tainted.contains(name), ..node(name, self.clock(), self.silent.get(name).copied()) }
    }

    /// The operator's.
    fn clock(&self) -> i64 {
        self.now + self.skew
    }

    /// A pod as a watch brings it now.
    fn seen(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        if pod.phase == PodPhase::Running {
            (pod.first_running, pod.last_alive) = (pod.first_running.or(Some(self.clock())), Some(self.clock()));
        }
        if pod.is_over() {
            pod.terminal = pod.terminal.or(Some(self.clock()));
        }
        pod
    }

    pub(super) fn provided(&self, name: &str) -> ProviderNode {
        let mut spec = serde_json::json!({ "pool": "pool", "nodeName": name });
        let turned = self.turned.get(name).and_then(|turned| turned.as_object()).cloned().unwrap_or_default();
        spec.as_object_mut().expect("an object").extend(turned);
        let spec = serde_json::from_value(spec).expect("a spec");
        ProviderNode {
            name: name.into(),
            uid: format!("uid-of-{name}"),
            generation: 1,
            spec,
            status: self.written.get(name).cloned().unwrap_or_default(),
        }
    }

    /// The lead is lost and taken again: what the books hold counts, and not what was thought of.
    fn lead_again(&mut self) {
        self.world.begin_anew(self.now + self.skew);
        self.tell_books();
    }

    fn tell_books(&mut self) {
        let works: Vec<WorkId> = self.books.latest.keys().cloned().collect();
        for work in works {
            if let (None, Some(latest)) = (self.books.open.get(&work), self.books.latest.get(&work)) {
                self.world.apply(Event::Charged { work: work.clone(), attempt: latest.attempt });
            }
            self.tell(&work);
        }
        for (place, record) in self.books.records.clone() {
            self.world.apply(Event::Record { place, record });
        }
        self.tell_funding();
    }

    fn tell(&mut self, work: &WorkId) {
        let latest = self.books.latest.get(work).cloned().map(Box::new);
        let charged = Amount::from_units(self.books.charged.get(work).copied().unwrap_or_default());
        let reservation = self.books.open.get(work).map(|(funding, amount, placement)| {
            Box::new(Reservation { funding: funding.clone(), reserved: Amount::from_units(*amount), charged, placement: placement.clone() })
        });
        let reserved = Amount::from_units(self.books.open.get(work).map_or(0, |(_, amount, _)| *amount));
        let balance = WorkBalance { reserved, charged, settled: charged, ..WorkBalance::default() };
        self.world.apply(Event::Reserved { work: work.clone(), reservation, latest, balance });
    }

    fn tell_funding(&mut self) {
        for (funding, available) in self.books.funds.clone() {
            let balance = FundingBalance {
                asset: "USDC".into(),
                deposited: Amount::from_units(100_000_000),
                available: Amount::from_units(available),
                ..FundingBalance::default()
            };
            self.world.apply(Event::Funding { funding, balance, last_post: None });
        }
    }

    fn chance(&mut self, of: u64) -> bool {
        self.faults && self.dice.roll(of) == 0
    }

    /// One pass, and whatever of it gets through.
    pub(super) fn pass(&mut self) {
        let clock = self.clock();
        let Plan { effects, .. } = plan(&mut self.world, &terms(), clock);
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

    pub(super) fn carry_out(&mut self, effect: Effect) {
        // An answer that is lost leaves the world as it was until a watch brings the news.
        let answered = !self.chance(6);
        match effect {
            Effect::Book(bookings) => bookings.into_iter().for_each(|booking| self.book(booking.posting())),
            Effect::CreatePod { work, .. } if self.chance(20) => {
                self.world.apply(Event::Unmade { work, why: "exceeded quota".into() });
            }
            Effect::CreatePod { pod, fitting, .. } => {
                let own = fitting.as_ref().and_then(|fitting| made(fitting, self.now)).filter(|_| answered);
                own.into_iter().for_each(|policy| self.world.apply(Event::PolicyMade(policy)));
                let name = pod.metadata.name.clone().expect("a name");
                if !self.pods.contains_key(&name) {
                    let mut made = (*pod).clone();
                    made.metadata.uid = Some(format!("uid-of-{name}"));
                    let record = convert::pod(&made, self.clock()).expect("a pod of ours");
                    let ours = record.ours.clone().expect("it is ours");
                    assert!(self.books.open.contains_key(&ours.work), "seed {}: a pod without a reservation", self.seed);
                    self.pods.insert(name.clone(), record);
                }
                if answered {
                    self.world.apply(Event::Pod(Box::new(self.seen(&self.pods[&name]))));
                }
            }
            Effect::DeletePod { name, .. } => {
                let orderly = self.chance(2);
                if let Some(pod) = self.pods.get_mut(&name) {
                    (pod.deleting, pod.delete_sent) = (true, pod.delete_sent.or(Some(self.now)));
                    if pod.phase.is_terminal() {
                        return;
                    }
                    self.stopped.insert(name);
                    if pod.node.as_ref().is_none_or(|node| !self.silent.contains_key(node)) {
                        obey(pod, self.now, orderly);
                    }
                }
            }
            Effect::MarkPod { name, notice, .. } => {
                if let Some(pod) = self.pods.get_mut(&name) {
                    pod.notice = notice;
                    let pod = self.seen(&self.pods[&name]);
                    if answered {
                        self.world.apply(Event::Pod(Box::new(pod)));
                    }
                }
            }
            Effect::FreePod { name, .. } => {
                if let Some(pod) = self.pods.remove(&name) {
                    let charged = self.books.segments.get(&format!("pod/{}/0/0", pod.uid)).copied();
                    let charged = charged.unwrap_or_else(|| panic!("seed {}: {name} went before its evidence was taken", self.seed));
                    self.is_what_ran(&pod, charged);
                    if answered {
                        self.world.apply(Event::PodGone { uid: pod.uid, at: self.clock() });
                    }
                }
            }
            Effect::WriteTask { name, uid, status, .. } => {
                self.is_its_own_success(&name, &status);
                if let Some(task) = self.tasks.get_mut(&name).filter(|task| *task.uid == *uid) {
                    task.status = *status;
                    if answered {
                        self.world.apply(Event::Task(Box::new(task.clone())));
                    }
                }
            }
            Effect::FindPods { work, attempt, names, at, .. } => {
                let there: Vec<Pod> = names.iter().filter_map(|name| self.pods.get(name)).map(|pod| self.seen(pod)).collect();
                if answered && there.is_empty() {
                    self.world.apply(Event::Absent { work, attempt, at });
                }
                there.into_iter().filter(|_| answered).for_each(|pod| self.world.apply(Event::Pod(Box::new(pod))));
            }
            Effect::FitNamespace { namespace, fittings, closed } if answered => {
                let made = fittings.iter().filter_map(|fitting| made(fitting, self.now));
                made.for_each(|policy| self.world.apply(Event::PolicyMade(policy)));
                self.world.apply(Event::Fitted { namespace, closed, at: self.clock() });
            }
            Effect::FitNamespace { .. } => {}
            Effect::DeleteTask { name, .. } => drop(self.tasks.remove(&name)),
            Effect::WriteNode { name, status, .. } => {
                self.written.insert(name.clone(), *status);
                if answered {
                    self.world.apply(Event::ProviderNode(Box::new(self.provided(&name))));
                }
            }
            Effect::TaintNode { name, sold } => {
                if sold {
                    self.tainted.insert(name.clone());
                } else {
                    self.tainted.remove(&name);
                }
                if answered {
                    self.world.apply(Event::Node(Box::new(self.node(&name))));
                }
            }
            Effect::ApplyNode { .. } | Effect::WritePool { .. } | Effect::WriteEscrow { .. } => {}
        }
    }

    fn book(&mut self, posting: Posting) {
        match posting {
            Posting::Fund { funding, deposited, .. } => {
                self.books.funds.entry(funding).or_insert(deposited.units());
                self.tell_funding();
            }
            Posting::Reserve { work, funding, amount, detail } => {
                let available = self.books.funds.get_mut(&funding).expect("a funding");
                if let Some((_, before, _)) = self.books.open.remove(&work) {
                    *available += before;
                }
                if *available < amount.units() {
                    self.world.apply(Event::Refused { work, why: "there is too little".into(), at: self.clock() });
                    return;
                }
                *available -= amount.units();
                let placement: Placement = serde_json::from_str(&detail).expect("a placement");
                self.books.latest.insert(work.clone(), placement.clone());
                self.books.open.insert(work.clone(), (funding, amount.units(), placement));
                self.tell(&work);
            }
            Posting::Charge(charge) => {
                if self.books.segments.insert(charge.segment.to_string(), charge.seconds).is_none() {
                    let cost = charge.cost.charged().expect("fits").units();
                    let (_, reserved, _) = self.books.open.get_mut(&charge.work).expect("a reservation to charge");
                    let taken = cost.min(*reserved);
                    *reserved -= taken;
                    *self.books.charged.entry(charge.work.clone()).or_default() += taken;
                    let record = self.books.records.entry(charge.place.clone()).or_default();
                    *record = record.with(charge.seconds, charge.fault, charge.evidence);
                }
                let record = self.books.records[&charge.place];
                self.world.apply(Event::Record { place: charge.place, record });
                self.world.apply(Event::Charged { work: charge.work, attempt: charge.attempt });
            }
            Posting::Release { work } => {
                if let Some((funding, left, _)) = self.books.open.remove(&work) {
                    *self.books.funds.get_mut(&funding).expect("a funding") += left;
                }
                self.tell(&work);
                self.tell_funding();
            }
        }
    }

    /// What happens without the operator: time, containers, and news of both.
    pub(super) fn live(&mut self) {
        self.now += 1 + self.dice.roll(20).cast_signed();
        if self.chance(100) {
            (self.skew, self.was_skewed) = (self.dice.roll(601).cast_signed() - 300, true);
        }
        self.away = if self.faults { self.away.saturating_sub(1) } else { 0 };
        if self.away == 0 && self.chance(150) {
            self.away = 1 + self.dice.roll(12);
        }
        if self.away > 0 {
            // Up to two hours in all.
            self.now += self.dice.roll(600).cast_signed();
        }
        self.people();
        let names: Vec<String> = self.pods.keys().cloned().collect();
        for name in ["n1", "n2"] {
            if self.silent.contains_key(name) {
                if !self.faults || self.dice.roll(40) == 0 {
                    self.silent.remove(name);
                }
            } else if self.chance(80) {
                self.silent.insert(name.to_owned(), self.now);
                self.were_silent.insert(name.to_owned());
            }
        }
        for name in names {
            let (start, end, code) = (self.dice.roll(3) == 0, self.dice.roll(12) == 0, self.dice.roll(4));
            let (evicted, orderly) = (self.chance(60), self.chance(2));
            let Some(pod) = self.pods.get_mut(&name) else { continue };
            if pod.node.as_ref().is_some_and(|node| self.silent.contains_key(node)) {
                continue;
            }
            if pod.deleting && !pod.phase.is_terminal() {
                // Its kubelet is back and does what was asked of it.
                obey(pod, self.now, orderly);
            }
            match pod.phase {
                PodPhase::Pending if start => {
                    pod.phase = PodPhase::Running;
                    pod.started = Some(self.now);
                }
                PodPhase::Running if evicted => {
                    pod.phase = PodPhase::Failed;
                    pod.reason = Some("Evicted".into());
                }
                PodPhase::Running if end => {
                    pod.phase = if code == 0 { PodPhase::Failed } else { PodPhase::Succeeded };
                    pod.exit_code = Some(i32::from(code == 0));
                    pod.finished = Some(self.now);
                }
                _ => {}
            }
        }
        self.watch();
    }
}
