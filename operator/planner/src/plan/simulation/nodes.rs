//! What happens on the simulated nodes without the operator: time, containers, and kubelets that say nothing.

use super::Theatre;
use crate::world::records::{Pod, PodPhase};

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
        self.arrive();
        self.people();
        self.providers();
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
