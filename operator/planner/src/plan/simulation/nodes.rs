//! What happens on the simulated nodes without the operator: time, containers, kubelets that say nothing, machines that go
//! down, and nodes that somebody takes out of the API.

use super::{NODES, Theatre};
use crate::world::records::{Pod, PodPhase};

/// What Kubernetes calls it when it ends the pods of a node that is not there any more.
const GARBAGE: &str = "DeletionByPodGC";

/// A container that is told to end ends: in order, as a good one does, or not.
pub(super) fn obey(pod: &mut Pod, now: i64, orderly: bool) {
    let ran = pod.started.is_some();
    pod.phase = if ran && orderly { PodPhase::Succeeded } else { PodPhase::Failed };
    (pod.exit_code, pod.finished) = if ran { (Some(if orderly { 0 } else { 137 }), Some(now)) } else { (None, None) };
}

impl Theatre {
    /// What happens without the operator: time, containers, and news of both.
    pub(super) fn live(&mut self) {
        self.now += 1 + self.dice.roll(20).cast_signed();
        let (skew, jumps) = (self.skew, self.jumps);
        if self.skew != 0 && (!self.faults || self.dice.roll(10) == 0) {
            // Somebody sets it right.
            (self.skew, self.jumps) = (0, self.jumps + 1);
        } else if self.chance(100) {
            (self.skew, self.jumps) = (self.dice.roll(601).cast_signed() - 300, self.jumps + 1);
        }
        if self.jumps > jumps {
            self.world.clock_set(self.clock(), self.skew - skew);
        }
        self.away = if self.faults { self.away.saturating_sub(1) } else { 0 };
        if self.away == 0 && self.chance(150) {
            self.away = 1 + self.dice.roll(12);
        }
        if self.away > 0 {
            // Up to two hours in all.
            self.now += self.dice.roll(600).cast_signed();
        }
        self.arrive();
        self.people();
        self.providers();
        self.wear();
        for node in NODES {
            self.go_silent(node);
            self.go_away(node);
        }
        self.schedule();
        self.run();
        self.let_go();
        self.time();
        self.watch();
    }

    /// Its kubelet says nothing for a while, and in one case of three because the machine is down: nothing runs there any more.
    fn go_silent(&mut self, name: &str) {
        if self.silent.contains_key(name) {
            if !self.faults || self.dice.roll(40) == 0 {
                self.silent.remove(name);
                self.heard_since.insert(name.to_owned(), self.now);
                self.find_gone(name);
            }
        } else if self.chance(80) {
            self.silent.insert(name.to_owned(), self.now);
            self.were_silent.insert(name.to_owned());
            if self.dice.roll(3) == 0 {
                *self.hindered.entry("a crash").or_default() += 1;
                let running = self.pods.values().filter(|pod| pod.node.as_deref() == Some(name) && pod.phase == PodPhase::Running);
                let running: Vec<String> = running.map(|pod| pod.uid.clone()).collect();
                running.iter().for_each(|uid| self.died(uid, true));
            }
        }
    }

    /// A machine that is back has none of what ran there: nobody saw it end, and nobody says when that was.
    fn find_gone(&mut self, name: &str) {
        let here = |pod: &&Pod| pod.node.as_deref() == Some(name) && pod.phase == PodPhase::Running && self.has_crashed(&pod.uid);
        let gone: Vec<String> = self.pods.values().filter(here).map(|pod| pod.name.clone()).collect();
        for name in gone {
            if let Some(pod) = self.pods.get_mut(&name) {
                (pod.phase, pod.reason, pod.exit_code) = (PodPhase::Failed, Some("ContainerStatusUnknown".into()), Some(137));
            }
        }
    }

    /// Somebody deletes the Node. Kubernetes ends the pods that were there, some time later; the kubelet makes another Node when
    /// it is started again.
    fn go_away(&mut self, name: &str) {
        if self.away > 0 {
            return;
        }
        if !self.torn.contains(name) {
            if self.hinders("a node object", 150) {
                self.torn.insert(name.to_owned());
                self.cordoned.remove(name);
                self.tainted.remove(name);
                self.were_silent.insert(name.to_owned());
                self.were_closed.insert(name.to_owned());
            }
            return;
        }
        if !self.faults || self.dice.roll(12) == 0 {
            self.torn.remove(name);
            self.heard_since.insert(name.to_owned(), self.now);
            return;
        }
        let (now, silent) = (self.now, self.silent.contains_key(name));
        let left = self.pods.values().filter(|pod| pod.node.as_deref() == Some(name) && !pod.phase.is_terminal());
        let left: Vec<String> = left.map(|pod| pod.name.clone()).collect();
        for name in left {
            let (ends, told) = (self.dice.roll(3) == 0, self.dice.roll(2) == 0);
            if let Some(pod) = self.pods.get_mut(&name).filter(|_| ends) {
                (pod.phase, pod.disruption) = (PodPhase::Failed, Some(GARBAGE.to_owned()));
                (pod.deleting, pod.delete_sent) = (true, pod.delete_sent.or(Some(now)));
                // A kubelet that is there ends it, and may still say so.
                if told && !silent && pod.started.is_some() {
                    (pod.finished, pod.exit_code) = (Some(now), Some(137));
                }
                self.stopped.insert(name);
            }
        }
    }

    /// Containers start and end.
    fn run(&mut self) {
        let names: Vec<String> = self.pods.keys().cloned().collect();
        for name in names {
            let (start, end, code) = (self.dice.roll(3) == 0, self.dice.roll(12) == 0, self.dice.roll(4));
            let (evicted, orderly) = (self.chance(60), self.chance(2));
            let Some(pod) = self.pods.get(&name) else { continue };
            if pod.node.as_ref().is_some_and(|node| self.silent.contains_key(node)) {
                continue;
            }
            self.take_in(&name);
            let Some(pod) = self.pods.get_mut(&name) else { continue };
            if pod.deleting && !pod.phase.is_terminal() {
                // Its kubelet is back and does what was asked of it.
                obey(pod, self.now, orderly);
            }
            match pod.phase {
                PodPhase::Pending if start && pod.node.is_some() => {
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
    }
}
