//! The operator on the stage: its own world, planner and books' effects, and writes to the simulated API server. It dies
//! around its effects, and two of it may believe that they lead.

use super::cluster::{NAMESPACE, News, pool_of};
use super::play::{Happening, Play};
use super::trace::{BEGIN, Nanos, SECOND};
use k8s_openapi::api::core::v1 as core;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use supercargo_ledger::{Fence, LedgerError};
use supercargo_operator::effect;
use supercargo_planner::plan::usage::UsageTerms;
use supercargo_planner::plan::{Effect, Fitting, Plan, Terms, plan};
use supercargo_planner::world::records::{Namespace, Node, Task};
use supercargo_planner::world::standing::Policy;
use supercargo_planner::world::{Event, World, convert};

const LONGEST_REST: Nanos = 10 * SECOND;
/// How long an effect and its answer take.
const LATENCY: Nanos = SECOND / 100;
/// A killed operator is back after so long at most.
const LONGEST_DEATH: Nanos = 30 * SECOND;
/// A leader that nobody heard of is replaced.
const LEASE: Nanos = 6 * SECOND;
/// A step that does not come for so long is passed over.
const PATIENCE: Nanos = 900 * SECOND;

/// The operator's own default.
const SETTLE_SECONDS: i64 = 60;

/// The operator dies before one of these, when it is done and the answer is lost, or right after the answer.
const STEPS: [&str; 9] =
    ["book", "create_pod", "write_task", "free_pod", "delete_pod", "delete_task", "write_node", "find_pods", "read_usage"];
const MOMENTS: [&str; 3] = ["before", "unanswered", "after"];

#[derive(Default)]
pub struct Officer {
    world: World,
    fence: Option<Fence>,
    up: bool,
    leads: bool,
    inbox: VecDeque<(Nanos, News)>,
    pass_at: Option<Nanos>,
    /// What it watches reaches it only then.
    pub stalled_until: Nanos,
}

impl Officer {
    /// News that will be there at that time. Whether anybody waits for it.
    pub fn expect(&mut self, at: Nanos, news: News, twice: bool) -> bool {
        if twice {
            self.inbox.push_back((at, news.clone()));
        }
        self.inbox.push_back((at, news));
        self.up
    }

    fn hear(&mut self, news: &News, clock: i64) {
        let event = match news {
            News::Task(task) => Some(Event::Task(Box::new((**task).clone()))),
            News::TaskGone(key) => Some(Event::TaskGone(key.clone())),
            News::Pod(pod) => convert::pod(pod, clock).map(|pod| Event::Pod(Box::new(pod))),
            News::PodGone(uid) => Some(Event::PodGone { uid: uid.clone(), at: clock }),
            News::Node(node) => Some(Event::Node(Box::new(Node { seen: clock, ..(**node).clone() }))),
            News::Provided(node) => Some(Event::ProviderNode(Box::new((**node).clone()))),
            News::Pool(pool) => Some(Event::Pool(Box::new((**pool).clone()))),
            News::Escrow(escrow) => Some(Event::Escrow(Box::new((**escrow).clone()))),
        };
        event.into_iter().for_each(|event| self.world.apply(event));
    }
}

impl Play {
    /// The operators' clocks are right.
    fn clock(&self) -> i64 {
        self.now.div_euclid(SECOND)
    }

    fn look_again(&mut self, who: usize, at: Nanos) {
        let officer = &mut self.officers[who];
        if officer.pass_at.is_none_or(|known| at < known) {
            officer.pass_at = Some(at);
            self.at(at, Happening::Pass(who));
        }
    }

    pub fn arrive(&mut self, who: usize) {
        if let Some(until) = self.away_until() {
            return self.at(until + SECOND / 10, Happening::Arrive(who));
        }
        let (clock, now) = (self.clock(), self.now);
        let officer = &mut self.officers[who];
        while officer.up && officer.inbox.front().is_some_and(|(at, _)| *at <= now) {
            let (_, news) = officer.inbox.pop_front().expect("there is one");
            officer.hear(&news, clock);
        }
        self.look_again(who, self.now + LATENCY);
    }

    /// A process begins: it lists what there is.
    pub async fn rise(&mut self, who: usize) {
        if let Some(until) = self.away_until() {
            return self.at(until + SECOND, Happening::Rise(who));
        }
        let clock = self.clock();
        let mut officer = Officer { up: true, ..Officer::default() };
        let namespace = |name: &str| Event::Namespace(Namespace { name: name.into(), uid: format!("uid-of-{name}"), deleting: false });
        [namespace(NAMESPACE), namespace("kube-system")].into_iter().for_each(|event| officer.world.apply(event));
        let mut news: Vec<News> = [false, true].map(|shared| News::Pool(Rc::new(self.api.pool(shared)))).into();
        news.push(News::Escrow(Rc::new(self.api.escrow())));
        for machine in &self.machines {
            news.push(News::Node(Rc::new(machine.record(clock))));
            news.push(News::Provided(Rc::new(self.api.provided(machine))));
        }
        news.extend(self.api.tasks.values().map(|task| News::Task(Rc::new(task.clone()))));
        let pods: Vec<News> = self.api.pods.values().map(|pod| News::Pod(Rc::new(pod.clone()))).collect();
        // Each kind has a watch of its own, and none waits for another.
        let place = if self.dice.chance(0.5) { 0 } else { news.len() };
        news.splice(place..place, pods);
        news.iter().for_each(|one| officer.hear(one, clock));
        self.officers[who] = officer;
        if self.leader == who {
            self.begin(who).await;
        }
    }

    async fn begin(&mut self, who: usize) {
        let clock = self.clock();
        let ledger = self.books.ledger.clone();
        let officer = &mut self.officers[who];
        officer.fence = Some(ledger.take_lead(&format!("operator-{who}")).await.expect("books in memory"));
        officer.leads = true;
        officer.world.begin_anew(clock);
        let of_pods = officer.world.pods.values().filter_map(|pod| Some(pod.ours.as_ref()?.work.clone()));
        let with_pods: BTreeSet<_> = of_pods.collect();
        let works: Vec<_> = officer.world.tasks.values().map(|task| task.work()).chain(with_pods.iter().cloned()).collect();
        let events = effect::load(&ledger, &works, &with_pods).await.expect("books in memory");
        events.into_iter().for_each(|event| officer.world.apply(event));
        self.look_again(who, self.now + LATENCY);
    }

    /// Somebody else gets the lease, if he lives; the one before learns of it a little later.
    pub async fn take_lead(&mut self, who: usize) {
        let who = if who == usize::MAX { (self.leader + 1) % self.officers.len() } else { who };
        if who == self.leader || !self.officers[who].up || self.away_until().is_some() {
            return;
        }
        let before = std::mem::replace(&mut self.leader, who);
        self.after(200, 15_000, Happening::Depose(before));
        self.begin(who).await;
    }

    pub fn depose(&mut self, who: usize) {
        if self.leader != who {
            (self.officers[who].leads, self.officers[who].fence) = (false, None);
        }
    }

    /// It dies, with all that it knew.
    fn die(&mut self, who: usize) {
        self.officers[who] = Officer::default();
        let back = self.now + self.dice.between(SECOND, LONGEST_DEATH);
        self.at(back, Happening::Rise(who));
        if self.officers.len() > 1 && self.leader == who {
            self.at(self.now + LEASE, Happening::TakeLead((who + 1) % self.officers.len()));
        }
    }

    /// Whether it dies at this moment of this effect: each has its turn.
    fn dies(&mut self, effect: &str, moment: &str) -> bool {
        let (turn, from) = self.deaths;
        if !self.faults.kills || self.now < from || self.now > BEGIN + self.trace.span {
            return false;
        }
        let (step, of) = (STEPS[turn / MOMENTS.len() % STEPS.len()], MOMENTS[turn % MOMENTS.len()]);
        if step == effect && of == moment {
            self.deaths = (turn + 1, self.now + self.dice.between(SECOND, 120 * SECOND));
            *self.died.entry(format!("{moment} {effect}")).or_default() += 1;
            return true;
        }
        if self.now > from + PATIENCE {
            self.deaths = (turn + 1, self.now);
        }
        false
    }

    pub async fn pass(&mut self, who: usize) {
        if self.officers[who].pass_at != Some(self.now) {
            return;
        }
        self.officers[who].pass_at = None;
        let Officer { up: true, leads: true, fence: Some(fence), .. } = self.officers[who] else { return };
        let clock = self.clock();
        let usage = Some(UsageTerms { settle_seconds: SETTLE_SECONDS });
        let terms = Terms { tokens: vec!["USDC".into()], usage, ..Terms::default() };
        let Plan { effects, wake } = plan(&mut self.officers[who].world, &terms, clock);
        let mut done = false;
        for effect in effects {
            let kind = effect.kind();
            if self.dies(kind, "before") {
                return self.die(who);
            }
            let events = match effect {
                Effect::Book(bookings) => match self.books.book(fence, bookings).await {
                    Ok(events) => events,
                    Err(LedgerError::Fenced { .. }) => {
                        (self.officers[who].leads, self.officers[who].fence) = (false, None);
                        return;
                    }
                    Err(error) => unreachable!("books in memory: {error}"),
                },
                Effect::ReadUsage { work, attempt, asked } => self.read_usage(work, attempt, &asked, clock),
                _ if self.away_until().is_some() => continue,
                other => self.carry_out(other, clock),
            };
            done = true;
            if self.dies(kind, "unanswered") {
                return self.die(who);
            }
            events.into_iter().for_each(|event| self.officers[who].world.apply(event));
            if self.dies(kind, "after") {
                return self.die(who);
            }
        }
        let by_plan = wake.map(|at| at * SECOND).filter(|at| done || *at > self.now);
        let soon = if done { LATENCY } else { SECOND };
        let next = by_plan.unwrap_or(self.now + LONGEST_REST).clamp(self.now + soon, self.now + LONGEST_REST);
        self.look_again(who, if done { self.now + LATENCY } else { next });
    }

    /// An effect on the API server, and what it answers.
    fn carry_out(&mut self, effect: Effect, clock: i64) -> Vec<Event> {
        let found = |pod: &core::Pod| convert::pod(pod, clock).map(|pod| Event::Pod(Box::new(pod)));
        match effect {
            Effect::CreatePod { pod, .. } => {
                let name = pod.metadata.name.clone().expect("a name");
                if !self.api.pods.contains_key(&name) {
                    let mut made = *pod;
                    made.metadata.uid = Some(format!("pod-{}", self.containers.len()));
                    self.bind(&made);
                    self.api.put_pod(name.clone(), made);
                }
                found(&self.api.pods[&name]).into_iter().collect()
            }
            Effect::FindPods { work, attempt, names, at, .. } => {
                let there: Vec<Event> = names.iter().filter_map(|name| found(self.api.pods.get(name)?)).collect();
                if there.is_empty() { vec![Event::Absent { work, attempt, at }] } else { there }
            }
            Effect::DeletePod { name, uid, grace_seconds, .. } => {
                if self.api.pods.get(&name).is_some_and(|pod| pod.metadata.uid.as_ref() == Some(&uid)) {
                    self.delete_pod(&name, grace_seconds.map(i64::from));
                }
                self.api.pods.get(&name).and_then(found).into_iter().collect()
            }
            Effect::FreePod { name, uid, .. } => {
                let Some(mut pod) = self.api.pods.get(&name).filter(|pod| pod.metadata.uid.as_ref() == Some(&uid)).cloned() else {
                    return vec![Event::PodGone { uid, at: clock }];
                };
                pod.metadata.finalizers = None;
                let event = found(&pod);
                self.api.put_pod(name.clone(), pod);
                self.api.remove_pod_if_free(&name);
                event.into_iter().collect()
            }
            Effect::DeleteTask { namespace, name, uid } => {
                self.delete_task(&uid);
                vec![Event::TaskGone((namespace, name))]
            }
            Effect::FitNamespace { namespace, fittings, closed } => {
                let made = fittings.iter().filter_map(stands).map(Event::PolicyMade);
                made.chain([Event::Fitted { namespace, closed, at: clock }]).collect()
            }
            other => self.write(other),
        }
    }

    /// Statuses are applied by name, whole.
    fn write(&mut self, effect: Effect) -> Vec<Event> {
        match effect {
            Effect::WriteTask { namespace, name, uid, status, .. } => {
                let named = self.api.tasks.get(&(namespace, name));
                let Some(task) = named.filter(|task| *task.uid == *uid).cloned() else { return Vec::new() };
                let task = Task { status: *status, ..task };
                self.api.put_task(task.clone());
                vec![Event::Task(Box::new(task))]
            }
            Effect::WriteNode { name, status, .. } => {
                self.api.provided.insert(name.clone(), *status);
                let machine = self.machines.iter().find(|machine| machine.name == name).expect("a node");
                let provided = self.api.provided(machine);
                self.api.news.push(News::Provided(Rc::new(provided.clone())));
                vec![Event::ProviderNode(Box::new(provided))]
            }
            Effect::WritePool { name, status } => {
                self.api.pools.insert(name.clone(), *status);
                let pool = self.api.pool(name == pool_of(true));
                self.api.news.push(News::Pool(Rc::new(pool.clone())));
                vec![Event::Pool(Box::new(pool))]
            }
            Effect::WriteEscrow { status, .. } => {
                self.api.escrow = *status;
                let escrow = self.api.escrow();
                self.api.news.push(News::Escrow(Rc::new(escrow.clone())));
                vec![Event::Escrow(Box::new(escrow))]
            }
            _ => Vec::new(),
        }
    }
}

/// A policy as the API server gives it back.
fn stands(fitting: &Fitting) -> Option<Policy> {
    let Fitting::Policy(policy) = fitting else { return None };
    let mut made = policy.clone();
    (made.metadata.uid, made.metadata.generation) = (made.metadata.name.clone(), Some(1));
    convert::policy(&made)
}
