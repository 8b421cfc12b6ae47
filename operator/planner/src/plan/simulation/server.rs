//! The simulated API server: what it makes of the operator's effects, and what it answers.

use super::Theatre;
use super::nodes::obey;
use super::objects::made;
use crate::plan::Effect;
use crate::world::records::Pod;
use crate::world::{Event, convert};

impl Theatre {
    pub(in crate::plan) fn carry_out(&mut self, effect: Effect) {
        // An answer that is lost leaves the world as it was until a watch brings the news.
        let answered = !self.chance(6);
        match effect {
            Effect::Book(bookings) => bookings.into_iter().for_each(|booking| self.book(booking.posting())),
            Effect::CreatePod { work, pod, .. } if self.chance(20) => {
                let pod = pod.metadata.name.expect("a name");
                self.world.apply(Event::Unmade { work, pod, why: "exceeded quota".into() });
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
}
