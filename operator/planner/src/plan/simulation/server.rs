//! The simulated API server: what it makes of the operator's effects, and what it answers.

use super::Theatre;
use super::nodes::obey;
use super::objects::made;
use crate::plan::Effect;
use crate::world::records::Pod;
use crate::world::{Event, convert};
use k8s_openapi::api::core::v1 as core;
use supercargo_crds::task_status::ComputeTaskStatus;

impl Theatre {
    pub(in crate::plan) fn carry_out(&mut self, effect: Effect) {
        // An answer that is lost leaves the world as it was until a watch brings the news.
        let answered = !self.chance(6);
        match effect {
            Effect::Book(bookings) => bookings.into_iter().for_each(|booking| self.book(booking.posting())),
            Effect::CreatePod { work, pod, .. } if self.is_refused(&pod) => {
                let pod = pod.metadata.name.expect("a name");
                self.world.apply(Event::Unmade { work, pod, why: "exceeded quota".into() });
            }
            Effect::CreatePod { pod, fitting, .. } => {
                let own = fitting.as_ref().and_then(|fitting| made(fitting, self.now)).filter(|_| answered);
                own.into_iter().for_each(|policy| self.world.apply(Event::PolicyMade(policy)));
                let name = pod.metadata.name.clone().expect("a name");
                if !self.pods.contains_key(&name) {
                    let mut made = (*pod).clone();
                    let uid = self.new_uid(&name);
                    made.metadata.uid = Some(uid.clone());
                    let record = convert::pod(&made, self.clock()).expect("a pod of ours");
                    let ours = record.ours.clone().expect("it is ours");
                    let jumps = self.books.jumps.get(&(ours.work.clone(), ours.attempt)).copied().unwrap_or_default();
                    self.jumps_before.insert(uid, jumps);
                    assert!(self.books.open.contains_key(&ours.work), "seed {}: a pod without a reservation", self.seed);
                    self.stopped.remove(&name);
                    self.pods.insert(name.clone(), record);
                }
                if answered {
                    self.world.apply(Event::Pod(Box::new(self.seen(&self.pods[&name]))));
                }
            }
            Effect::DeletePod { name, version: Some(version), .. } if self.is_another(&name, &version) => {
                let pod = self.seen(&self.pods[&name]);
                if answered {
                    self.world.apply(Event::Pod(Box::new(pod)));
                }
            }
            Effect::DeletePod { name, uid, grace_seconds, .. } => {
                self.is_ours(&name);
                self.pods.get(&name).filter(|pod| pod.uid == uid).into_iter().for_each(|pod| self.ends_for_a_reason(pod));
                let orderly = self.chance(2);
                if let Some(pod) = self.pods.get_mut(&name).filter(|pod| pod.uid == uid) {
                    (pod.deleting, pod.delete_sent) = (true, pod.delete_sent.or(Some(self.now)));
                    pod.forced |= grace_seconds == Some(0);
                    if pod.phase.is_terminal() {
                        return;
                    }
                    self.stopped.insert(name);
                    if pod.node.as_ref().is_none_or(|node| !self.silent.contains_key(node)) {
                        obey(pod, self.now, orderly);
                    }
                }
            }
            Effect::MarkPod { name, uid, notice, .. } => {
                self.is_ours(&name);
                if let Some(pod) = self.pods.get_mut(&name).filter(|pod| pod.uid == uid) {
                    pod.notice = notice;
                    let pod = self.seen(&self.pods[&name]);
                    if answered {
                        self.world.apply(Event::Pod(Box::new(pod)));
                    }
                }
            }
            // Somebody wrote it since it was looked at.
            Effect::FreePod { .. } if self.hinders("a finalizer", 12) => {}
            Effect::FreePod { name, uid, .. } => {
                self.is_ours(&name);
                self.time();
                if let Some(pod) = self.pods.get(&name).filter(|pod| pod.uid == uid).cloned() {
                    let charged = self.books.segments.get(&format!("pod/{}/0/0", pod.uid)).copied();
                    let charged = charged.unwrap_or_else(|| panic!("seed {}: {name} went before its evidence was taken", self.seed));
                    let added = self.books.added.get(&format!("pod/{}/0/0", pod.uid)).copied().unwrap_or_default();
                    self.is_what_ran(&pod, charged - added);
                    let answer = if pod.deleting || !self.keeps_ended {
                        self.pods.remove(&name);
                        Event::PodGone { uid, at: self.clock() }
                    } else {
                        let pod = Pod { has_finalizer: false, ..pod };
                        self.pods.insert(name, pod.clone());
                        Event::Pod(Box::new(self.seen(&pod)))
                    };
                    if answered {
                        self.world.apply(answer);
                    }
                }
            }
            Effect::WriteTask { ref name, .. } if self.in_flight.contains(name) => {}
            Effect::WriteTask { ref name, .. } if self.hinders("a late status", 15) => {
                self.in_flight.insert(name.clone());
                self.late.push((1 + self.dice.roll(4), effect));
            }
            Effect::WriteTask { ref name, .. } if self.hinders("a status", 15) => self.meddle(&name.clone()),
            Effect::WriteTask { name, uid, status, .. } => self.write_task(&name, &uid, *status, answered),
            Effect::FindPods { work, attempt, names, at, .. } => {
                let there: Vec<Pod> = names.iter().filter_map(|name| self.pods.get(name)).map(|pod| self.seen(pod)).collect();
                if answered && there.is_empty() {
                    self.world.apply(Event::Absent { work, attempt, at });
                }
                there.into_iter().filter(|_| answered).for_each(|pod| self.world.apply(Event::Pod(Box::new(pod))));
            }
            Effect::FitNamespace { namespace, .. } if self.hinders("a policy", 15) => {
                self.world.apply(Event::Unfit { namespace, why: "exceeded quota".into() });
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
            Effect::TaintNode { .. } if self.hinders("a taint", 12) => {}
            Effect::TaintNode { name, sold } => {
                if sold && !self.torn.contains(&name) {
                    self.tainted.insert(name.clone());
                } else {
                    self.tainted.remove(&name);
                }
                if answered && !self.torn.contains(&name) {
                    self.world.apply(Event::Node(Box::new(self.node(&name))));
                }
            }
            Effect::WriteEscrow { name, status, .. } => {
                let mut escrows = [Some(&mut self.escrow), self.other.as_mut()].into_iter().flatten();
                if let Some(escrow) = escrows.find(|escrow| escrow.name == name) {
                    escrow.status = *status;
                    if answered {
                        self.world.apply(Event::Escrow(Box::new(escrow.clone())));
                    }
                }
            }
            // Nobody here tells what is used.
            Effect::ReadUsage { .. } | Effect::ApplyNode { .. } | Effect::WritePool { .. } => {}
        }
    }

    /// There is no room for it, or its name is somebody else's: for good. Whatever refuses one that is there already, it is found.
    fn is_refused(&mut self, pod: &core::Pod) -> bool {
        let name = pod.metadata.name.as_ref().expect("a name");
        if self.pods.contains_key(name) {
            return false;
        }
        if self.hinders("a name", 40) {
            self.taken.insert(name.clone());
        }
        self.taken.contains(name) || self.hinders("a quota", 20)
    }

    /// Of another pod of the same name it is another one.
    fn new_uid(&mut self, name: &str) -> String {
        let made = self.made.entry(name.to_owned()).or_default();
        *made += 1;
        if *made == 1 { format!("uid-of-{name}") } else { format!("uid-of-{name}-{made}") }
    }

    /// Whether it has changed since it was looked at.
    fn is_another(&self, name: &str, version: &str) -> bool {
        self.random && self.pods.get(name).is_some_and(|pod| self.version_of(pod) != version)
    }

    fn is_ours(&self, name: &str) {
        assert!(!self.taken.contains(name), "seed {}: {name} is somebody else's", self.seed);
    }

    /// Somebody writes a task while the operator is about to.
    fn meddle(&mut self, name: &str) {
        if let Some(task) = self.tasks.get_mut(name) {
            (task.spec.priority, task.generation) = (task.spec.priority + 1, task.generation + 1);
        }
    }

    /// What was on its way to its task gets there: its operator may be gone, and another one may have told more since.
    pub(super) fn arrive(&mut self) {
        if self.away > 0 {
            return;
        }
        let arrives = |(steps, effect): (u64, Effect)| if self.faults && steps > 0 { Err((steps - 1, effect)) } else { Ok(effect) };
        let (arrived, late): (Vec<_>, Vec<_>) = std::mem::take(&mut self.late).into_iter().map(arrives).partition(Result::is_ok);
        self.late = late.into_iter().filter_map(Result::err).collect();
        for effect in arrived.into_iter().flatten() {
            if let Effect::WriteTask { name, uid, status, .. } = effect {
                self.in_flight.remove(&name);
                self.write_task(&name, &uid, *status, false);
            }
        }
    }

    /// As the effect does it: what has been told of later than that is not untold.
    fn write_task(&mut self, name: &str, uid: &str, status: ComputeTaskStatus, answered: bool) {
        let there = self.tasks.get(name).filter(|task| *task.uid == *uid);
        let untold = there.is_some_and(|task| task.status.progress() > status.progress());
        if there.is_some() && !untold {
            self.is_its_own_success(name, &status);
            self.is_told_as_charged(name, &status);
        }
        let answer = match self.tasks.get_mut(name).filter(|task| *task.uid == *uid) {
            Some(task) => {
                if untold {
                    *self.hindered.entry("a status of old").or_default() += 1;
                } else {
                    task.status = status;
                }
                Event::Task(Box::new(task.clone()))
            }
            None => Event::NoTask(uid.into()),
        };
        if answered {
            self.world.apply(answer);
        }
    }
}
