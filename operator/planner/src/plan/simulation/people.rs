//! Users, who suspend tasks and let them go on, raise budgets and delete what they don't want any more, whatever the
//! operator is about to write of it; providers, who close nodes and drain them; and the watches that bring the news of all that, late or not at all.

use super::nodes::obey;
use super::{NODES, Theatre};
use crate::plan::parting::EVICTED;
use crate::world::Event;
use crate::world::records::{Pod, PodPhase, Task};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

impl Theatre {
    pub(super) fn people(&mut self) {
        if self.away > 0 {
            return;
        }
        let names: Vec<String> = self.tasks.keys().cloned().collect();
        for name in names {
            let (goes, turns, raises) = (self.chance(400), self.chance(60), self.chance(100));
            if goes {
                self.tasks.remove(&name);
                continue;
            }
            let Some(task) = self.tasks.get_mut(&name) else { continue };
            // In the end everybody lets their tasks run.
            let suspend = self.faults && task.spec.suspend != turns;
            let (before, spec) = ((task.spec.suspend, task.spec.budget.0), &mut task.spec);
            spec.suspend = suspend;
            if raises {
                spec.budget.0 = spec.budget.0.checked_add(spec.budget.0).unwrap_or(spec.budget.0);
            }
            task.generation += i64::from((spec.suspend, spec.budget.0) != before);
        }
        self.collect_garbage();
    }

    /// Those who have the nodes close them and open them again, and drain them; and whoever may evicts what runs there.
    pub(super) fn providers(&mut self) {
        if self.away > 0 {
            return;
        }
        for name in NODES {
            let (cordons, drains, opens) = (self.chance(80), self.chance(80), !self.faults || self.dice.roll(12) == 0);
            if opens {
                self.cordoned.remove(name);
                self.turned.remove(name);
            }
            let cordons = cordons && !self.torn.contains(name);
            if cordons {
                self.cordoned.insert(name.to_owned());
            }
            if drains {
                let seconds = self.dice.roll(60);
                self.turned.insert(name.to_owned(), json!({ "availability": "Draining", "drainDeadlineSeconds": seconds }));
            }
            if cordons || drains {
                self.were_closed.insert(name.to_owned());
            }
        }
        self.tear();
        let running = self.pods.iter().filter(|(_, pod)| pod.phase == PodPhase::Running && !pod.deleting);
        let running: Vec<String> = running.map(|(name, _)| name.clone()).collect();
        for name in running {
            if self.chance(60)
                && let Some(pod) = self.pods.get_mut(&name)
            {
                (pod.deleting, pod.delete_sent, pod.disruption) = (true, Some(self.now), Some(EVICTED.to_owned()));
                self.stopped.insert(name);
            }
        }
    }

    /// Whoever may strips pods of their finalizers by hand, and takes pods away at once.
    fn tear(&mut self) {
        let names: Vec<String> = self.pods.keys().cloned().collect();
        for name in names {
            let (strips, forces) = (self.hinders("a stripped finalizer", 250), self.hinders("a forced deletion", 250));
            let (now, orderly) = (self.now, self.chance(2));
            let Some(pod) = self.pods.get_mut(&name) else { continue };
            pod.has_finalizer &= !strips;
            if !forces {
                continue;
            }
            (pod.deleting, pod.delete_sent) = (true, pod.delete_sent.or(Some(now)));
            let (held, uid) = (pod.has_finalizer, pod.uid.clone());
            let heard = pod.node.as_ref().is_none_or(|node| !self.silent.contains_key(node));
            if !pod.phase.is_terminal() {
                self.stopped.insert(name.clone());
                if heard && held {
                    obey(pod, now, orderly);
                }
            }
            if !held {
                // Nobody is asked whether it has ended.
                *self.hindered.entry("a pod object").or_default() += 1;
                self.pods.remove(&name);
                self.time();
                self.died(&uid, false);
            }
        }
    }

    /// What is to go and nothing holds any more goes when it has ended.
    pub(super) fn let_go(&mut self) {
        self.time();
        self.pods.retain(|_, pod| pod.has_finalizer || !pod.deleting || !pod.phase.is_terminal());
    }

    /// What belongs to a task that is gone goes too, sooner or later.
    fn collect_garbage(&mut self) {
        let left = |pod: &Pod| pod.ours.as_ref().is_some_and(|ours| !self.tasks.contains_key(&ours.task));
        let names: Vec<String> = self.pods.iter().filter(|(_, pod)| left(pod) && !pod.deleting).map(|(name, _)| name.clone()).collect();
        for name in names {
            let soon = !self.faults || self.dice.roll(3) == 0;
            if let Some(pod) = self.pods.get_mut(&name).filter(|_| soon) {
                pod.deleting = true;
            }
        }
    }

    /// Watches bring what has changed, sometimes late, and sometimes all that there is.
    pub(super) fn watch(&mut self) {
        let (late, behind, lists) = (self.chance(4), self.chance(12), self.chance(10));
        if late || self.away > 0 {
            return;
        }
        if self.faults {
            let now = (self.tasks.clone(), self.pods.iter().map(|(name, pod)| (name.clone(), self.stands(pod))).collect());
            let past = std::mem::replace(&mut self.past, now);
            if behind {
                return self.watch_behind(past);
            }
        }
        for name in NODES {
            if !self.torn.contains(name) {
                self.world.apply(Event::Node(Box::new(self.node(name))));
            } else if self.world.nodes.contains_key(name) {
                self.world.apply(Event::NodeGone(name.to_owned()));
            }
            let provided = self.provided(name);
            if lists || self.world.provider_nodes.get(name) != Some(&provided) {
                self.world.apply(Event::ProviderNode(Box::new(provided)));
            }
        }
        self.all_is_told();
        let there: BTreeSet<&String> = self.pods.values().map(|pod| &pod.uid).collect();
        let gone: Vec<String> =
            self.world.pods.values().filter(|pod| !pod.gone && !there.contains(&pod.uid)).map(|pod| pod.uid.clone()).collect();
        gone.into_iter().for_each(|uid| self.world.apply(Event::PodGone { uid, at: self.now + self.skew }));
        let known = |pod: &Pod| self.world.pods.get(&pod.uid).filter(|known| !known.gone).and_then(|known| known.version.as_ref());
        let news = |pod: &&Pod| lists || known(pod) != Some(&self.version_of(pod));
        let pods: Vec<Pod> = self.pods.values().filter(news).map(|pod| self.seen(pod)).collect();
        pods.into_iter().for_each(|pod| self.world.apply(Event::Pod(Box::new(pod))));
        let deleted = |task: &&std::sync::Arc<Task>| !self.tasks.contains_key(&task.name);
        let deleted: Vec<_> = self.world.tasks.values().filter(deleted).map(|task| task.key()).collect();
        deleted.into_iter().for_each(|key| self.world.apply(Event::TaskGone(key)));
        let news = |task: &&Task| lists || self.world.tasks.get(&task.key()).is_none_or(|known| **known != **task);
        let tasks: Vec<Task> = self.tasks.values().filter(news).cloned().collect();
        tasks.into_iter().for_each(|task| self.world.apply(Event::Task(Box::new(task))));
    }

    /// What was, of what there still is, though the answers to the operator's own writes have told it more since.
    fn watch_behind(&mut self, (tasks, pods): (BTreeMap<String, Task>, BTreeMap<String, Pod>)) {
        let still = |name: &str, pod: &Pod| self.pods.get(name).is_some_and(|now| now.uid == pod.uid);
        let pods: Vec<Pod> = pods.into_iter().filter(|(name, pod)| still(name, pod)).map(|(_, pod)| self.comes(pod)).collect();
        pods.into_iter().for_each(|pod| self.world.apply(Event::Pod(Box::new(pod))));
        let tasks = tasks.into_iter().filter(|(name, _)| self.tasks.contains_key(name));
        tasks.for_each(|(_, task)| self.world.apply(Event::Task(Box::new(task))));
    }
}
