//! The play: everything that happens, in its order, from the first job until nothing is left.

use super::books::Books;
use super::cluster::{Api, Container, Machine, NAMESPACE, News, task};
use super::faults::{Absences, Faults};
use super::officer::Officer;
use super::prometheus::Prometheus;
use super::trace::{BEGIN, Dice, Nanos, SECOND, Trace};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;
use std::rc::Rc;
use supercargo_crds::names::LABEL_TASK_UID;

/// How a container ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Exit,
    Killed,
    Evicted,
    Deadline,
    Power,
}

#[derive(Debug, Clone)]
pub enum Happening {
    Submit(usize),
    Delete(String),
    /// A task is gone: what it owned goes too.
    Collect(String),
    Notice(usize),
    Start(usize),
    End(usize, Ending),
    Heed(usize),
    Tell(usize),
    Heartbeat(usize),
    Silence(usize, bool, Nanos),
    Unheard(usize, Nanos),
    Return(usize),
    Arrive(usize),
    Pass(usize),
    Rise(usize),
    TakeLead(usize),
    Depose(usize),
    GiveUp,
}

/// The longest that is waited for the last task after the last job.
const PATIENCE: Nanos = 6 * 3_600 * SECOND;
const HEARTBEAT: Nanos = 300 * SECOND;

pub struct Play {
    pub trace: Trace,
    pub faults: Faults,
    pub now: Nanos,
    pub dice: Dice,
    pub api: Api,
    pub api_away: Absences,
    pub prometheus: Prometheus,
    pub machines: Vec<Machine>,
    pub containers: Vec<Container>,
    pub officers: Vec<Officer>,
    /// Who has the lease.
    pub leader: usize,
    /// Which of its steps the operator dies at next, and not before when.
    pub deaths: (usize, Nanos),
    pub died: BTreeMap<String, usize>,
    pub books: Books,
    queue: BTreeMap<(Nanos, u64), Happening>,
    turn: u64,
}

impl Play {
    pub async fn new(seed: u64, faults: &Faults, containers: usize) -> Self {
        let trace = Trace::new(seed, faults, containers);
        let mut dice = Dice::of(&[seed, 4]);
        let longest = (trace.span / 4).min(7_200 * SECOND);
        let api_away = match faults.api {
            true => Absences::draw(&mut dice, trace.span, 12, 60 * SECOND, longest),
            false => Absences::default(),
        };
        let mut play = Self {
            faults: faults.clone(),
            now: BEGIN,
            dice,
            api: Api::default(),
            api_away,
            prometheus: Prometheus::new(seed, trace.span, &faults.prometheus),
            machines: Machine::all(seed, faults, trace.span),
            containers: Vec::new(),
            officers: (0..if faults.leaders { 2 } else { 1 }).map(|_| Officer::default()).collect(),
            leader: 0,
            deaths: (0, BEGIN + 60 * SECOND),
            died: BTreeMap::new(),
            books: Books::open().await,
            queue: BTreeMap::new(),
            turn: 0,
            trace,
        };
        play.foresee();
        play
    }

    /// What happens whatever anybody does.
    fn foresee(&mut self) {
        (0..self.trace.jobs.len()).for_each(|job| self.at(self.trace.jobs[job].submitted, Happening::Submit(job)));
        (0..self.officers.len()).for_each(|who| self.at(BEGIN + SECOND, Happening::Rise(who)));
        for node in 0..self.machines.len() {
            let first = BEGIN + self.dice.between(2 * SECOND, HEARTBEAT);
            self.at(first, Happening::Heartbeat(node));
        }
        let (from, until) = (BEGIN + 60 * SECOND, BEGIN + self.trace.span);
        let longest = (self.trace.span / 4).min(7_200 * SECOND);
        for _ in 0..if self.faults.nodes { 36 } else { 0 } {
            let (at, node) = (self.dice.between(from, until), self.dice.below(self.machines.len() as u64) as usize);
            let (power, lasts) = (self.dice.chance(0.5), self.dice.log_uniform(10 * SECOND, longest));
            self.at(at, Happening::Silence(node, power, if power { lasts.max(60 * SECOND) } else { lasts }));
        }
        if self.faults.leaders {
            let mut at = from;
            while at < until {
                at += self.dice.between(30 * SECOND, 600 * SECOND);
                self.at(at, Happening::TakeLead(usize::MAX));
            }
        }
        self.at(until + PATIENCE, Happening::GiveUp);
    }

    pub fn at(&mut self, at: Nanos, what: Happening) {
        self.turn += 1;
        self.queue.insert((at.max(self.now), self.turn), what);
    }

    /// After so many milliseconds.
    pub fn after(&mut self, least: i64, most: i64, what: Happening) {
        let wait = self.dice.between(least * SECOND / 1_000, most * SECOND / 1_000);
        self.at(self.now + wait, what);
    }

    /// While the API server is away: until when.
    pub fn away_until(&self) -> Option<Nanos> {
        self.api_away.0.iter().find(|(from, until)| (*from..*until).contains(&self.now)).map(|(_, until)| *until)
    }

    /// Plays to the end; `false`: something was left when nobody had any patience.
    pub async fn run(&mut self) -> bool {
        while let Some(((at, _), what)) = self.queue.pop_first() {
            self.now = at;
            let gives_up = matches!(what, Happening::GiveUp);
            self.happen(what).await;
            self.publish();
            let submitted = self.now > BEGIN + self.trace.span + 120 * SECOND;
            if submitted && self.api.tasks.is_empty() && self.api.pods.is_empty() {
                return true;
            }
            if gives_up && self.trace.span + 3 * PATIENCE < self.now - BEGIN {
                return false;
            }
        }
        false
    }

    async fn happen(&mut self, what: Happening) {
        match what {
            Happening::Submit(job) => self.submit(job),
            Happening::Delete(uid) => self.delete_task(&uid),
            Happening::Collect(uid) => self.collect(&uid),
            Happening::Notice(id) => self.notice(id),
            Happening::Start(id) => self.start(id),
            Happening::End(id, ending) => self.end(id, ending),
            Happening::Heed(id) => self.heed(id),
            Happening::Tell(id) => self.tell(id),
            Happening::Heartbeat(node) => {
                if self.machines[node].silent.is_none() && self.away_until().is_none() {
                    self.tell_node(node);
                }
                self.at(self.now + HEARTBEAT, Happening::Heartbeat(node));
            }
            Happening::Silence(node, power, lasts) => self.silence(node, power, lasts),
            Happening::Unheard(node, since) => {
                if self.machines[node].silent.is_some_and(|(from, _)| from == since) {
                    self.unheard(node);
                }
            }
            Happening::Return(node) => self.comes_back(node),
            Happening::Arrive(who) => self.arrive(who),
            Happening::Pass(who) => self.pass(who).await,
            Happening::Rise(who) => self.rise(who).await,
            Happening::TakeLead(who) => self.take_lead(who).await,
            Happening::Depose(who) => self.depose(who),
            // Whoever still waits is told to go, again and again.
            Happening::GiveUp => {
                let left: Vec<String> = self.api.tasks.values().map(|task| task.uid.to_string()).collect();
                left.iter().for_each(|uid| self.delete_task(uid));
                self.at(self.now + PATIENCE / 6, Happening::GiveUp);
            }
        }
    }

    fn submit(&mut self, job: usize) {
        if let Some(until) = self.away_until() {
            return self.at(until + SECOND, Happening::Submit(job));
        }
        let job = self.trace.jobs[job].clone();
        // The last bearer of its name goes.
        if let Some(before) = self.api.tasks.get(&(NAMESPACE.to_owned(), job.name.clone())).map(|task| task.uid.to_string()) {
            self.delete_task(&before);
        }
        self.api.put_task(task(&job));
        if let Some(after) = job.deleted_after {
            self.at(self.now + after, Happening::Delete(job.uid));
        }
    }

    pub fn delete_task(&mut self, uid: &str) {
        if let Some(until) = self.away_until() {
            return self.at(until + SECOND, Happening::Delete(uid.to_owned()));
        }
        let Some(key) = self.api.tasks.iter().find(|(_, task)| &*task.uid == uid).map(|(key, _)| key.clone()) else { return };
        self.api.tasks.remove(&key);
        self.api.news.push(News::TaskGone(key));
        self.after(200, 2_000, Happening::Collect(uid.to_owned()));
    }

    fn collect(&mut self, uid: &str) {
        if let Some(until) = self.away_until() {
            return self.at(until + SECOND, Happening::Collect(uid.to_owned()));
        }
        let owned =
            |pod: &&core::Pod| pod.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_TASK_UID)).is_some_and(|of| of == uid);
        let names: Vec<String> = self.api.pods.values().filter(owned).filter_map(|pod| pod.metadata.name.clone()).collect();
        names.iter().for_each(|name| self.delete_pod(name, None));
    }

    /// A DELETE: the kubelet ends what runs, and the object goes when nothing holds it.
    pub fn delete_pod(&mut self, name: &str, grace_seconds: Option<i64>) {
        let Some(mut pod) = self.api.pods.get(name).cloned() else { return };
        let grace = grace_seconds.or_else(|| pod.spec.as_ref()?.termination_grace_period_seconds);
        let before = pod.metadata.deletion_grace_period_seconds;
        // A second deletion can only make it shorter.
        if pod.metadata.deletion_timestamp.is_some() && grace >= before {
            return;
        }
        pod.metadata.deletion_timestamp = jiff::Timestamp::from_second(self.now / SECOND).ok().map(Time);
        pod.metadata.deletion_grace_period_seconds = grace;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.api.put_pod(name.to_owned(), pod);
        self.api.remove_pod_if_free(name);
        if let Some(id) = self.containers.iter().rposition(|container| container.uid == uid) {
            self.after(50, 500, Happening::Heed(id));
        }
    }

    pub fn set_ready(&mut self, node: usize, ready: bool) {
        if self.machines[node].ready != ready {
            (self.machines[node].ready, self.machines[node].ready_since) = (ready, self.now / SECOND);
        }
        self.tell_node(node);
    }

    fn tell_node(&mut self, node: usize) {
        if self.machines[node].silent.is_none() {
            self.machines[node].told = self.now;
        }
        let record = self.machines[node].record(0);
        self.api.news.push(News::Node(Rc::new(record)));
    }

    /// Every watch is told what changed, each at its own pace.
    fn publish(&mut self) {
        let news = std::mem::take(&mut self.api.news);
        for who in 0..self.officers.len() {
            for one in &news {
                if self.faults.late_news && self.dice.chance(0.002) {
                    self.officers[who].stalled_until = self.now + self.dice.between(SECOND, 60 * SECOND);
                }
                let twice = self.faults.late_news && self.dice.chance(0.05);
                let at = (self.now + self.dice.between(SECOND / 200, SECOND / 20)).max(self.officers[who].stalled_until);
                if self.officers[who].expect(at, one.clone(), twice) {
                    self.at(at, Happening::Arrive(who));
                }
            }
        }
    }
}
