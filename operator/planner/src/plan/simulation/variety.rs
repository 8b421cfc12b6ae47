//! Of what kinds the tasks of a history are, who pays for them, and how pods come to nodes.

use super::Theatre;
use super::objects::escrow_with;
use crate::world::records::{Escrow, PodPhase, Task};
use serde_json::json;
use std::collections::BTreeMap;
use supercargo_crds::common::Tenancy;
use supercargo_crds::pool::Binding;
use supercargo_market::work::FundingId;

impl Theatre {
    /// Two escrows pay, tasks have priorities, and some want several devices or no others beside them.
    pub(super) fn vary(&mut self) {
        let other = escrow_with(json!({ "funding": "Internal", "token": "USDC", "grant": "100" }));
        self.other = Some(Escrow { name: "other".into(), uid: "o".into(), funding: Escrow::funding("o", &other.spec), ..other });
        // Others are done with them sooner: whatever is kept is looked at again and again.
        (self.random, self.keeps_ended) = (true, self.dice.roll(8) == 0);
        self.pool.spec.tenancies = vec![Tenancy::Shared, Tenancy::Dedicated, Tenancy::Exclusive];
        if self.dice.roll(4) == 0 {
            self.pool.spec.binding = Binding::Scheduler;
        }
        let mut tasks = std::mem::take(&mut self.tasks);
        tasks.values_mut().for_each(|task| self.vary_task(task));
        self.tasks = tasks;
        self.restart();
    }

    fn vary_task(&mut self, task: &mut Task) {
        let spec = &mut task.spec;
        spec.priority = i32::try_from(self.dice.roll(3)).expect("small") - 1;
        spec.resources.gpu.count = [1, 1, 1, 2][self.dice.roll(4) as usize];
        spec.placement.tenancy = match self.dice.roll(10) {
            0 => Tenancy::Exclusive,
            1 | 2 => Tenancy::Dedicated,
            _ => Tenancy::Shared,
        };
        if let Some(gang) = spec.gang.as_mut().filter(|_| spec.placement.tenancy == Tenancy::Exclusive) {
            // There are two nodes.
            gang.workers = 2;
        }
        spec.queue_timeout_seconds = (self.dice.roll(8) == 0).then_some(900);
        spec.ttl_seconds_after_finished = (self.dice.roll(8) == 0).then_some(300);
        if self.dice.roll(3) == 0 {
            spec.escrow_ref.name = "other".into();
        }
        task.payer = Task::payer(&task.namespace, &task.spec);
    }

    /// Where the operator does not bind pods itself, kube-scheduler does, sooner or later.
    pub(super) fn schedule(&mut self) {
        let waits = self.pods.iter().filter(|(_, pod)| pod.node.is_none() && pod.phase == PodPhase::Pending && !pod.deleting);
        let waits: Vec<String> = waits.map(|(name, _)| name.clone()).collect();
        for name in waits {
            let late = self.dice.roll(2) == 0;
            let node = self.pods[&name].ours.as_ref().and_then(|ours| {
                let (_, _, placement) = self.books.open.get(&ours.work)?;
                placement.workers.iter().find(|place| place.pod == name).map(|place| place.node.clone())
            });
            let Some(pod) = self.pods.get_mut(&name).filter(|_| !late) else { continue };
            pod.node = node.filter(|node| !self.torn.contains(node) && !self.cordoned.contains(node));
        }
    }

    /// Nobody has a neighbour whom it may not have.
    pub(super) fn are_neighbours(&self, node: &str) {
        let mut there: BTreeMap<&str, Vec<&FundingId>> = BTreeMap::new();
        let live = self.pods.values().filter(|pod| pod.node.as_deref() == Some(node) && !pod.is_over() && !pod.deleting);
        for (payer, _, placement) in live.filter_map(|pod| self.books.open.get(&pod.ours.as_ref()?.work)) {
            there.entry(&placement.tenancy).or_default().push(payer);
        }
        let all: Vec<_> = there.values().flatten().collect();
        let alone = there.get("Exclusive").is_none_or(|_| all.len() == 1);
        let among_its_own = there.get("Dedicated").is_none_or(|payers| all.iter().all(|payer| **payer == payers[0]));
        assert!(alone && among_its_own, "seed {}: on {node} are {there:?}", self.seed);
    }
}
