//! The GPUs of the simulated nodes. A kubelet gives them to the pods that it takes in, as long as there are enough that are
//! well and nobody's; they fall ill and get well again. What is billed of each is held against the time that there was.

use super::{DEVICES, NODES, Theatre};
use crate::world::records::{Device, Ours, Pod, PodPhase};
use std::collections::{BTreeMap, BTreeSet};
use supercargo_ledger::Charge;
use supercargo_market::metering::Evidence;
use supercargo_market::work::WorkId;

pub(super) const GPU: &str = "nvidia.com/gpu";

/// A GPU of a node, by its number.
type Gpu = (String, u64);

/// What was billed of a worker: its work and attempt, its GPUs, and from when until when.
struct Billed {
    work: WorkId,
    attempt: u32,
    gpus: BTreeSet<Gpu>,
    from: i64,
    until: i64,
}

/// A container's true life, whatever its record says of it.
#[derive(Debug, Clone, Copy)]
struct Ran {
    started: i64,
    ended: Option<i64>,
    /// With its whole machine.
    crashed: bool,
    /// When the news of the end came.
    told: Option<i64>,
}

#[derive(Default)]
pub(super) struct Gpus {
    /// By pods' UIDs.
    given: BTreeMap<String, BTreeSet<Gpu>>,
    ill: BTreeSet<Gpu>,
    /// Nodes of which one was ever ill.
    pub(super) were_ill: BTreeSet<String>,
    billed: Vec<Billed>,
    ran: BTreeMap<String, Ran>,
    /// When each worker of an attempt first started.
    began: BTreeMap<(WorkId, u32), BTreeMap<u32, i64>>,
    /// How the devices of pods that have ended were then: nobody reports of them any more.
    ended: BTreeMap<String, Vec<Device>>,
}

impl Gpus {
    /// When the last of an attempt's workers started, if all have.
    pub(super) fn started(&self, ours: &Ours, workers: usize) -> Option<i64> {
        let began = self.began.get(&(ours.work.clone(), ours.attempt)).filter(|began| began.len() == workers)?;
        began.values().max().copied()
    }
}

impl Theatre {
    /// GPUs of a node that are well.
    pub(super) fn well(&self, node: &str) -> u64 {
        DEVICES - self.gpus.ill.iter().filter(|(of, _)| of == node).count() as u64
    }

    /// What a kubelet reports of a pod's devices.
    pub(super) fn devices_of(&self, pod: &Pod) -> Vec<Device> {
        if let Some(then) = self.gpus.ended.get(&pod.uid) {
            return then.clone();
        }
        let gpus = self.gpus.given.get(&pod.uid).into_iter().flatten();
        let device = |gpu: &Gpu| Device {
            id: format!("{}-{}", gpu.0, gpu.1),
            resource_name: GPU.to_owned(),
            healthy: Some(!self.gpus.ill.contains(gpu)),
        };
        gpus.map(device).collect()
    }

    /// They fall ill and get well again.
    pub(super) fn wear(&mut self) {
        for node in NODES {
            let number = self.dice.roll(DEVICES);
            let gpu = (node.to_owned(), number);
            if self.gpus.ill.contains(&gpu) {
                if self.dice.roll(5) == 0 {
                    self.gpus.ill.remove(&gpu);
                }
            } else if self.hinders("an ill GPU", 60) {
                self.gpus.ill.insert(gpu);
                self.gpus.were_ill.insert(node.to_owned());
            }
        }
        if !self.faults {
            self.gpus.ill.clear();
        }
    }

    /// A kubelet that is heard of takes a pod in, or will not have it. Nobody is sent where there is nothing for it, unless
    /// something has come in between.
    pub(super) fn take_in(&mut self, name: &str) {
        let Some((pod, node)) = self.pods.get(name).and_then(|pod| Some((pod, pod.node.clone()?))) else { return };
        if pod.phase != PodPhase::Pending || pod.deleting || self.gpus.given.contains_key(&pod.uid) {
            return;
        }
        let (uid, asked) = (pod.uid.clone(), pod.requests.devices.get(GPU).copied().unwrap_or_default() as usize);
        let live = self.pods.values().filter(|pod| !pod.phase.is_terminal());
        let taken: BTreeSet<&Gpu> = live.filter_map(|pod| self.gpus.given.get(&pod.uid)).flatten().collect();
        let free = (0..DEVICES).map(|number| (node.clone(), number)).filter(|gpu| !taken.contains(gpu) && !self.gpus.ill.contains(gpu));
        let gpus: BTreeSet<Gpu> = free.take(asked).collect();
        if gpus.len() == asked {
            self.gpus.given.insert(uid, gpus);
            return;
        }
        let between = self.gpus.were_ill.contains(&node) || self.were_silent.contains(&node);
        assert!(between, "seed {}: {name} was sent to {node}, which has no GPU for it", self.seed);
        *self.hindered.entry("no room").or_default() += 1;
        if let Some(pod) = self.pods.get_mut(name) {
            (pod.phase, pod.reason) = (PodPhase::Failed, Some("UnexpectedAdmissionError".into()));
        }
    }

    /// Containers that have started and ended since this was asked last.
    pub(super) fn time(&mut self) {
        let over = self.pods.values().filter(|pod| pod.phase.is_terminal() && !self.gpus.ended.contains_key(&pod.uid));
        let over: Vec<(String, Vec<Device>)> = over.map(|pod| (pod.uid.clone(), self.devices_of(pod))).collect();
        self.gpus.ended.extend(over);
        for pod in self.pods.values() {
            if let (Some(started), Some(ours)) = (pod.started, &pod.ours) {
                self.gpus.began.entry((ours.work.clone(), ours.attempt)).or_default().entry(ours.worker).or_insert(started);
                let ran = self.gpus.ran.entry(pod.uid.clone()).or_insert(Ran { started, ended: None, crashed: false, told: None });
                if pod.phase.is_terminal() {
                    ran.ended = ran.ended.or(pod.finished).or(Some(self.now));
                }
            }
        }
    }

    /// Its container is no more, whatever anybody is told of it.
    pub(super) fn died(&mut self, uid: &str, crashed: bool) {
        if let Some(ran) = self.gpus.ran.get_mut(uid).filter(|ran| ran.ended.is_none()) {
            (ran.ended, ran.crashed) = (Some(self.now), crashed);
        }
    }

    pub(super) fn has_crashed(&self, uid: &str) -> bool {
        self.gpus.ran.get(uid).is_some_and(|ran| ran.crashed)
    }

    /// Watches have brought all that there is.
    pub(super) fn all_is_told(&mut self) {
        let now = self.now;
        self.gpus.ran.values_mut().filter(|ran| ran.ended.is_some()).for_each(|ran| ran.told = ran.told.or(Some(now)));
    }

    /// Nothing is billed that did not run, no second of a GPU twice, and no second of a task for two attempts.
    pub(super) fn is_billed_once(&mut self, charge: &Charge) {
        let segment = charge.segment.to_string();
        let uid = segment.split('/').nth(1).unwrap_or_default();
        // What is added up to a card's minimum is no time.
        let served = charge.served_seconds();
        let Some(metered) = charge.metered.as_ref().filter(|_| served > 0 && self.is_right(uid)) else { return };
        let Some(life) = self.gpus.ran.get(uid) else { return };
        // A node that is heard of vouches for what runs there until there is news of it: of what leaves no record that is all.
        let vouched = charge.evidence == Evidence::Observed && !life.crashed;
        let ran = if vouched { life.told } else { life.ended }.unwrap_or(self.now) - life.started;
        let (seconds, seed) = (served.cast_signed(), self.seed);
        assert!(seconds <= ran, "seed {seed}: {seconds} s of {uid} are billed, and it ran {ran} s: {:?}, {life:?}", charge.evidence);
        let gpus = self.gpus.given.get(uid).cloned().unwrap_or_default();
        let (work, attempt) = (charge.work.clone(), charge.attempt);
        let until = if vouched { metered.until.min(life.ended.unwrap_or(self.now)) } else { metered.until };
        let billed = Billed { work, attempt, gpus, from: metered.until - seconds, until };
        for other in self.gpus.billed.iter().filter(|other| other.from < billed.until && billed.from < other.until) {
            let both: Vec<&Gpu> = billed.gpus.intersection(&other.gpus).collect();
            assert!(both.is_empty(), "seed {seed}: {both:?} are billed twice, the second time for {uid}");
            let again = billed.work == other.work && billed.attempt != other.attempt;
            assert!(!again, "seed {seed}: attempts {} and {} of {uid}'s task are billed for the same time", other.attempt, billed.attempt);
        }
        self.gpus.billed.push(billed);
    }
}
