//! Kubelets: they start containers, end them, and tell of both in whole seconds of their own clocks, when they can.

use super::cluster::{Container, Machine};
use super::play::{Ending, Happening, Play};
use super::trace::{Nanos, SECOND};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use supercargo_crds::names::{LABEL_ATTEMPT, LABEL_TASK_UID, LABEL_WORKER};

fn time(second: i64) -> Option<Time> {
    jiff::Timestamp::from_second(second).ok().map(Time)
}

fn ready(is: bool) -> core::PodCondition {
    let status = if is { "True" } else { "False" };
    core::PodCondition { type_: "Ready".to_owned(), status: status.to_owned(), ..Default::default() }
}

/// What a kubelet writes of a container into its pod.
fn status(container: &Container, machine: &Machine) -> core::PodStatus {
    let started = container.started.map(|at| machine.second(at));
    let mut state = core::ContainerState::default();
    let mut phase = "Pending";
    match (started, container.ended) {
        (Some(_), Some(_)) if container.unrecorded => {
            phase = "Failed";
            let reason = Some("ContainerStatusUnknown".to_owned());
            // A kubelet that knows nothing says nothing, or 1970.
            let start = if container.worker.is_multiple_of(2) { None } else { time(0) };
            let ended = core::ContainerStateTerminated { exit_code: 137, reason, started_at: start, ..Default::default() };
            state.terminated = Some(ended);
        }
        (Some(started), Some(ended)) => {
            phase = if container.exit_code == 0 { "Succeeded" } else { "Failed" };
            let (started_at, finished_at) = (time(started), time(machine.second(ended)));
            state.terminated =
                Some(core::ContainerStateTerminated { exit_code: container.exit_code, started_at, finished_at, ..Default::default() });
        }
        (Some(started), None) => {
            phase = "Running";
            state.running = Some(core::ContainerStateRunning { started_at: time(started) });
        }
        (None, _) if container.cancelled => phase = "Failed",
        (None, _) => {}
    }
    let one = core::ContainerStatus { name: "task".to_owned(), image_id: "sha256:1".to_owned(), state: Some(state), ..Default::default() };
    core::PodStatus {
        phase: Some(phase.to_owned()),
        conditions: (phase == "Running").then(|| vec![ready(true)]),
        reason: container.reason.map(str::to_owned),
        container_statuses: Some(vec![one]),
        ..Default::default()
    }
}

impl Play {
    /// A pod that was made: its kubelet sees it soon.
    pub fn bind(&mut self, pod: &core::Pod) {
        let label = |name: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(name)).map_or("", String::as_str);
        let number = |name: &str| label(name).parse().expect("a number");
        let job = self.trace.jobs.iter().position(|job| job.uid == label(LABEL_TASK_UID)).expect("somebody's job");
        let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).expect("is bound by us");
        let node = self.machines.iter().position(|machine| machine.name == node_name).expect("a node");
        let (attempt, worker) = (number(LABEL_ATTEMPT), number(LABEL_WORKER));
        let id = self.containers.len();
        self.containers.push(Container {
            job,
            attempt,
            worker,
            name: pod.metadata.name.clone().expect("a name"),
            uid: pod.metadata.uid.clone().expect("a UID"),
            node,
            slots: Vec::new(),
            life: self.trace.life(job, attempt, worker),
            started: None,
            ended: None,
            exit_code: 0,
            reason: None,
            cancelled: false,
            unrecorded: false,
            shown: (None, None),
        });
        self.after(20, 500, Happening::Notice(id));
    }

    fn is_silent(&self, id: usize) -> bool {
        self.machines[self.containers[id].node].silent.is_some()
    }

    /// Whether the API server still has this very pod, and somebody wants it gone.
    fn wanted(&self, id: usize) -> (bool, bool) {
        let container = &self.containers[id];
        let pod = self.api.pods.get(&container.name).filter(|pod| pod.metadata.uid.as_ref() == Some(&container.uid));
        (pod.is_some(), pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()))
    }

    /// The kubelet sees a pod: it gives it its devices and pulls its image.
    pub fn notice(&mut self, id: usize) {
        if self.is_silent(id) || self.containers[id].started.is_some() || self.containers[id].cancelled {
            return;
        }
        if self.wanted(id).1 {
            return self.cancel(id, None);
        }
        let (node, devices) = (self.containers[id].node, self.trace.jobs[self.containers[id].job].devices as usize);
        if self.containers[id].slots.is_empty() {
            match self.machines[node].take(node, devices, id) {
                Some(slots) => self.containers[id].slots = slots,
                None => return self.cancel(id, Some("UnexpectedAdmissionError")),
            }
            let name = self.containers[id].name.clone();
            let deadline = self.api.pods[&name].spec.as_ref().and_then(|spec| spec.active_deadline_seconds).unwrap_or(i64::MAX / SECOND);
            self.at(self.now.saturating_add(deadline.saturating_mul(SECOND)), Happening::End(id, Ending::Deadline));
        }
        self.at(self.now + self.containers[id].life.pull, Happening::Start(id));
    }

    fn cancel(&mut self, id: usize, reason: Option<&'static str>) {
        (self.containers[id].cancelled, self.containers[id].reason) = (true, reason);
        self.let_go(id);
        self.after(50, 500, Happening::Tell(id));
    }

    fn let_go(&mut self, id: usize) {
        let node = self.containers[id].node;
        self.machines[node].used.retain(|_, holder| *holder != id);
    }

    pub fn start(&mut self, id: usize) {
        let container = &mut self.containers[id];
        let powerless = self.machines[container.node].silent.is_some_and(|(_, power)| power);
        if container.cancelled || container.started.is_some() || powerless {
            return;
        }
        container.started = Some(self.now);
        let (runs, evicted) = (container.life.runs, container.life.evicted_after);
        self.at(self.now + runs, Happening::End(id, Ending::Exit));
        if let Some(after) = evicted {
            self.at(self.now + after, Happening::End(id, Ending::Evicted));
        }
        self.after(50, 1_000, Happening::Tell(id));
    }

    pub fn end(&mut self, id: usize, ending: Ending) {
        let container = &mut self.containers[id];
        if container.ended.is_some() || container.cancelled {
            return;
        }
        if container.started.is_none() {
            if ending == Ending::Deadline {
                self.cancel(id, Some("DeadlineExceeded"));
            }
            return;
        }
        container.ended = Some(self.now);
        container.unrecorded = ending == Ending::Power;
        (container.exit_code, container.reason) = match ending {
            Ending::Exit => (container.life.exit_code, None),
            Ending::Killed => (137, None),
            Ending::Evicted => (137, Some("Evicted")),
            Ending::Deadline => (137, Some("DeadlineExceeded")),
            Ending::Power => (137, None),
        };
        self.let_go(id);
        self.after(50, 1_000, Happening::Tell(id));
    }

    /// Its pod is to go: what runs gets SIGTERM, and SIGKILL when its grace is over.
    pub fn heed(&mut self, id: usize) {
        if self.is_silent(id) || self.containers[id].ended.is_some() || self.containers[id].cancelled {
            return;
        }
        if self.containers[id].started.is_none() {
            return self.cancel(id, None);
        }
        let grace = self.api.pods.get(&self.containers[id].name).and_then(|pod| pod.metadata.deletion_grace_period_seconds).unwrap_or(0);
        let goes_on = self.containers[id].life.heeds.min(grace * SECOND);
        self.at(self.now + goes_on, Happening::End(id, Ending::Killed));
    }

    /// The kubelet writes what it knows, or tries again later.
    pub fn tell(&mut self, id: usize) {
        if self.is_silent(id) {
            return;
        }
        if let Some(until) = self.away_until() {
            let again = until + self.dice.between(SECOND / 10, 3 * SECOND);
            return self.at(again, Happening::Tell(id));
        }
        let (there, _) = self.wanted(id);
        let container = &mut self.containers[id];
        if there && let Some(mut pod) = self.api.pods.get(&container.name).cloned() {
            let next = status(container, &self.machines[container.node]);
            let running = next.phase.as_deref() == Some("Running");
            container.shown.0 = container.shown.0.or(running.then_some(self.now));
            if !running {
                container.shown.1 = container.shown.1.or(Some(self.now));
            }
            pod.status = Some(next);
            let name = container.name.clone();
            self.api.put_pod(name.clone(), pod);
            self.api.remove_pod_if_free(&name);
        }
    }

    fn on(&self, node: usize) -> Vec<usize> {
        (0..self.containers.len()).filter(|id| self.containers[*id].node == node).collect()
    }

    /// Nobody hears of a node any more. Without power what runs there ends; without the network it goes on.
    pub fn silence(&mut self, node: usize, power: bool, lasts: Nanos) {
        if self.machines[node].silent.is_some() {
            return;
        }
        self.machines[node].silent = Some((self.now, power));
        if power {
            self.on(node).into_iter().for_each(|id| self.end(id, Ending::Power));
        }
        self.at(self.now + 40 * SECOND, Happening::Unheard(node, self.now));
        self.at(self.now + lasts, Happening::Return(node));
    }

    /// Nobody heard of it for too long: it is not ready any more, nor is what runs there.
    pub fn unheard(&mut self, node: usize) {
        self.set_ready(node, false);
        for id in self.on(node) {
            let name = self.containers[id].name.clone();
            let Some(mut pod) = self.api.pods.get(&name).filter(|_| self.wanted(id).0).cloned() else { continue };
            if let Some(status) = pod.status.as_mut().filter(|status| status.phase.as_deref() == Some("Running")) {
                status.conditions = Some(vec![ready(false)]);
                self.api.put_pod(name, pod);
            }
        }
    }

    /// It is back, and has to catch up with what it missed.
    pub fn comes_back(&mut self, node: usize) {
        self.machines[node].silent = None;
        self.set_ready(node, true);
        for id in self.on(node) {
            let (there, unwanted) = self.wanted(id);
            if there {
                self.after(500, 3_000, Happening::Tell(id));
            }
            match self.containers[id].started {
                None => self.after(500, 3_000, Happening::Notice(id)),
                Some(_) if unwanted => self.after(500, 3_000, Happening::Heed(id)),
                Some(_) => {}
            }
        }
    }
}
