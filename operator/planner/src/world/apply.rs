//! News: how each thing that happened changes what is known, and who has to be looked at because of it.

use super::records::{self, Account, Escrow, Leaving, Namespace, Node, Ours, Pod, ProviderNode, Reservation, Task};
use super::{CLUSTER_NAMESPACE, Event, Key, NamedCard, World};
use foldhash::HashMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use supercargo_market::work::{FundingId, WorkId};

/// So long a kubelet that is back may take to tell of its pods.
const TELLING_SECONDS: i64 = 60;

/// Takes one out of a set of sets, and the set with its last.
pub(super) fn unlink<K: std::hash::Hash + Eq, T: Ord>(index: &mut HashMap<K, BTreeSet<T>>, key: &K, one: &T) {
    if let Some(all) = index.get_mut(key) {
        all.remove(one);
        if all.is_empty() {
            index.remove(key);
        }
    }
}

impl World {
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Task(task) => self.apply_task(*task),
            Event::TaskGone(key) => self.task_gone(&key),
            Event::NoTask(uid) => {
                let key = self.task_of(&WorkId::task(uid)).map(|task| task.key());
                key.into_iter().for_each(|key| self.task_gone(&key));
            }
            Event::Pod(pod) => self.apply_pod(*pod),
            Event::PodGone { uid, at } => self.pod_gone(&uid, at),
            Event::Node(node) => self.apply_node(*node),
            Event::NodeGone(name) => {
                self.nodes.remove(&name);
                self.clocks.forget(&name);
                self.returning.remove(&name);
                self.grounds.surveyed = false;
                self.node_changed(&name, true);
            }
            Event::Pool(pool) => {
                let card = pool.spec.pricing.card();
                self.rate_cards.insert(pool.name.clone(), NamedCard { hash: card.hash().to_string(), card: Arc::new(card) });
                let changed = self.pools.insert(pool.name.clone(), (*pool).clone()).is_none_or(|before| before.spec != pool.spec);
                self.pool_changed(changed.then_some(&pool.name));
            }
            Event::PoolGone(name) => {
                self.pools.remove(&name);
                self.rate_cards.remove(&name);
                self.pool_changed(Some(&name));
            }
            Event::ProviderNode(node) => self.apply_provider_node(*node),
            Event::ProviderNodeGone(name) => {
                self.stale_since.remove(&name);
                let node = self.provider_nodes.remove(&name).map_or(name, |node| node.spec.node_name);
                self.node_changed(&node, true);
            }
            Event::Escrow(escrow) => self.apply_escrow(*escrow),
            Event::EscrowGone(key) => {
                self.escrows.remove(&key);
                self.tellings.remove(&key);
                self.escrow_changed(&key);
            }
            Event::Namespace(namespace) => self.apply_namespace(namespace),
            Event::NamespaceGone(name) => {
                self.namespaces.remove(&name);
                self.grounds.forget(&name);
            }
            Event::Limits(limits) => {
                let key = (limits.namespace.clone(), limits.name.clone());
                if self.limits.insert(key.clone(), limits.clone()).as_ref() != Some(&limits) {
                    self.works_in(&key.0);
                }
            }
            Event::LimitsGone(key) => {
                self.limits.remove(&key);
                self.works_in(&key.0);
            }
            Event::Claim(claim) => self.apply_claim(claim),
            Event::ClaimGone(key) => {
                self.claims.remove(&key);
                self.claim_changed(&key);
            }
            Event::Volume(volume) => self.apply_volume(*volume),
            Event::VolumeGone(name) => self.volume_gone(&name),
            Event::StorageClass(class) => self.apply_storage_class(class),
            Event::StorageClassGone(name) => {
                self.storage_classes.remove(&name);
                self.nodes_moved();
            }
            Event::Hindered { uid, namespace, reason, message } => {
                if let Some(pod) = self.pods.get_mut(&uid).filter(|pod| pod.namespace == namespace && pod.awaits_sandbox()) {
                    pod.hindrance = Some((reason, message));
                    let pod = pod.clone();
                    self.pod_changed(&pod);
                }
            }
            Event::Policy(policy) => self.grounds.see(policy),
            Event::PolicyGone { uid, key } => self.policy_gone(&uid, &key),
            Event::PolicyMade(policy) => self.grounds.made(policy),
            Event::Fitted { namespace, closed, at } => {
                self.grounds.fitted(&namespace, closed, at);
                self.works_in(&namespace);
            }
            Event::Unfit { namespace, why } => {
                self.works_in(&namespace);
                self.grounds.refused.insert(namespace, why);
            }
            Event::Reserved { work, reservation, latest, balance } => self.reserved(work, reservation, latest, balance),
            Event::Refused { work, why, at } => {
                // What runs goes on with what is held back for it.
                if self.reservations.contains_key(&work) {
                    self.market.undecide(&work)
                } else {
                    self.market.undo(&work)
                }
                self.refusals.insert(work.clone(), (why, at));
                self.todo.works.push(work);
            }
            Event::Unread { work, why } => {
                self.unread.insert(work.clone(), why);
                self.todo.works.push(work);
            }
            Event::Unmade { work, pod, why } => self.unmade(work, pod, why),
            Event::Absent { work, attempt, at } => {
                // An answer says nothing of a pod that was made after the question.
                if self.asked.get(&work).is_none_or(|asked| *asked < at) {
                    self.absent.insert(work.clone(), attempt);
                }
                self.todo.works.push(work);
            }
            Event::Charged { work, attempt } => {
                self.usage.remove(&work);
                self.charged.insert((work.clone(), attempt));
                self.todo.works.push(work);
            }
            Event::Funding { funding, balance, last_post } => self.apply_funding(funding, balance, last_post),
            Event::Posted { funding, balance, last_post } => self.posted(funding, balance, last_post),
            Event::Unfunded { funding, why, at } => {
                self.escrows_of(&funding).into_iter().for_each(|key| self.todo.escrows.push(key));
                self.unfunded.insert(funding, (why, at));
            }
            Event::Spent { funding, day, charged } => self.spent(funding, day, charged),
            Event::Held { at, fundings } => self.held(at, fundings),
            Event::Settled { work, balance } => self.settled(work, balance),
            Event::Used { work, attempt, used } => {
                self.todo.pools |= self.is_usage_unread();
                (self.usage_away, self.usage_away_since) = (None, None);
                self.usage.insert(work.clone(), (attempt, used));
                self.todo.works.push(work);
            }
            Event::UsageAway { at } => {
                let before = self.is_usage_unread();
                self.usage_away = Some(at);
                self.usage_away_since.get_or_insert(at);
                self.todo.pools |= self.is_usage_unread() != before;
            }
            Event::Account { funding, account } => {
                let before = self.accounts.insert(funding.clone(), (*account).clone());
                let payers: Vec<Key> = self.escrows_of(&funding);
                if payers.is_empty() {
                    self.todo.unnamed.push(funding.clone());
                }
                // Sums move with every post and block: nobody waits for a sum who is not told of it by the books.
                let same = before.is_some_and(|before| {
                    let leaving = Leaving { there: account.leaving.there, ..before.leaving.clone() };
                    Account { funded: account.funded, leaving, ..before } == *account
                });
                payers.iter().for_each(|key| if same { self.todo.escrows.push(key.clone()) } else { self.escrow_changed(key) });
            }
            Event::Vouched { chain, unsigned, unknown } => {
                if self.unsigned.get(&chain) != Some(&unsigned) || self.unknown_payees.get(&chain) != Some(&unknown) {
                    self.unsigned.insert(chain.clone(), unsigned);
                    self.unknown_payees.insert(chain, unknown);
                    self.todo.pools = true;
                }
            }
            Event::Record { place, record } => {
                if let Some((_, node)) = place.split_once('/') {
                    self.todo.nodes.push(node.to_owned());
                }
                self.records.insert(place, record);
            }
        }
    }

    fn apply_task(&mut self, mut task: Task) {
        let (key, work, payer) = (task.key(), task.work(), task.payer.clone());
        // A watch may be behind the answers to our own writes: what was told of an attempt is not untold, or it would run again.
        if let Some(before) = self.tasks.get(&key).filter(|before| before.uid == task.uid) {
            if before.generation > task.generation {
                return;
            }
            if before.status.progress() > task.status.progress() {
                task.status = before.status.clone();
            }
        }
        let task = Arc::new(task);
        if let Some(before) = self.tasks.insert(key, task.clone()) {
            let old = before.work();
            unlink(&mut self.index.paid_by, &before.payer, &old);
            Self::claims_of(&before).for_each(|claim| unlink(&mut self.index.claimed_by, &claim, &old));
            if old != work {
                self.index.tasks.remove(&old);
                self.todo.works.push(old);
            }
        }
        self.index.tasks.insert(work.clone(), task.clone());
        self.index.paid_by.entry(payer).or_default().insert(work.clone());
        for claim in Self::claims_of(&task) {
            self.index.claimed_by.entry(claim).or_default().insert(work.clone());
        }
        self.todo.works.push(work);
    }

    fn task_gone(&mut self, key: &Key) {
        let Some(task) = self.tasks.remove(key) else { return };
        let work = task.work();
        unlink(&mut self.index.paid_by, &task.payer, &work);
        Self::claims_of(&task).for_each(|claim| unlink(&mut self.index.claimed_by, &claim, &work));
        self.index.tasks.remove(&work);
        self.told.remove(&work);
        self.refusals.remove(&work);
        self.todo.works.push(work);
    }

    /// What our own clock saw of a pod outlives the pod's next version.
    fn apply_pod(&mut self, mut pod: Pod) {
        // A pod of a silent node looks as it did when the silence began: that it is still listed says nothing of it.
        let silent = pod.node.as_ref().and_then(|node| self.nodes.get(node)).is_some_and(|node| !node.ready);
        if let Some(before) = self.pods.get(&pod.uid) {
            // A watch may be behind the answers to what we asked for: what has ended does not run again.
            if before.is_later_than(&pod) {
                return;
            }
            pod.first_running = before.first_running.or(pod.first_running);
            pod.terminal = before.terminal.or(pod.terminal);
            pod.recorded = before.recorded.or(pod.recorded);
            // That it is told once more as it was, or was before, says nothing of it either.
            let known = silent || pod.is_no_newer_than(before);
            pod.last_alive = if known { before.last_alive } else { before.last_alive.max(pod.last_alive) };
            pod.parting = before.parting;
            pod.ran_on |= before.ran_on;
            // A kubelet may take the devices back, and mend them, before anybody asks how they were.
            if pod.is_over() {
                pod.devices = records::Device::worse(&before.devices, std::mem::take(&mut pod.devices));
            }
            pod.hindrance = before.hindrance.clone().filter(|_| pod.awaits_sandbox() || pod.parting.unable);
            if pod.parting.lost {
                pod.reason = before.reason.clone();
            }
            if before.node != pod.node
                && let Some(node) = &before.node
            {
                unlink(&mut self.index.pods_on, node, &pod.uid);
            }
        } else if let Some(ours) = &pod.ours {
            let place = self.latest.get(&ours.work).and_then(|latest| latest.place_of(&pod));
            place.map(|place| place.parting).into_iter().for_each(|parting| pod.part(parting));
        }
        // What ends in the second in which it is told to shows later on only that it was told.
        pod.parting.by_itself |= pod.phase.is_terminal() && !pod.deleting;
        if let Some(node) = &pod.node {
            self.index.pods_on.entry(node.clone()).or_default().insert(pod.uid.clone());
        }
        if let Some(ours) = &pod.ours {
            self.index.pods_of.entry(ours.work.clone()).or_default().insert(pod.uid.clone());
        }
        let before = self.pods.get(&pod.uid);
        pod.clock_at_start = match before.filter(|before| before.first_running.is_some()) {
            Some(before) => before.clock_at_start,
            None => pod.node.as_ref().filter(|_| pod.first_running.is_some()).and_then(|node| self.clocks.surely(node)),
        };
        self.clocks.see(&pod, before);
        self.pod_changed(&pod);
        let ours = pod.ours.clone();
        let known = self.pods.insert(pod.uid.clone(), pod).is_some();
        if let Some(Ours { work, .. }) = ours {
            if !known {
                self.absent.remove(&work);
            }
            let whole = |held: &Reservation| !self.workers_of(&work, &held.placement).contains(&None);
            if self.unmade.contains_key(&work) && self.reservations.get(&work).is_some_and(whole) {
                self.unmade.remove(&work);
            }
        }
    }

    fn pod_changed(&mut self, pod: &Pod) {
        if let Some(node) = &pod.node {
            self.todo.nodes.push(node.clone());
        }
        if let Some(ours) = &pod.ours {
            self.todo.works.push(ours.work.clone());
        }
    }

    /// A pod of ours that went before its evidence was taken, or its task was told, stays as what was last seen of it.
    fn pod_gone(&mut self, uid: &str, at: i64) {
        let Some(pod) = self.pods.get(uid).cloned() else { return };
        self.leaves_behind(&pod, at);
        self.pod_changed(&pod);
        let owed = pod.ours.as_ref().is_some_and(|ours| {
            let charged = self.is_charged(&ours.work, ours.attempt);
            let told = self.task_of(&ours.work).is_none_or(|task| task.was_told(ours.attempt));
            (!charged && self.reservations.contains_key(&ours.work)) || !told
        });
        match self.pods.get_mut(uid) {
            Some(pod) if owed => {
                pod.gone = true;
                pod.has_finalizer = false;
                pod.terminal = pod.terminal.or(Some(at));
            }
            _ => self.forget_pod(&pod),
        }
    }

    pub fn forget_pod(&mut self, pod: &Pod) {
        if let Some(node) = &pod.node {
            unlink(&mut self.index.pods_on, node, &pod.uid);
        }
        if let Some(ours) = &pod.ours {
            unlink(&mut self.index.pods_of, &ours.work, &pod.uid);
        }
        self.pods.remove(&pod.uid);
    }

    /// A node that is ready, and was so before, says that what runs there is alive. One that comes back has yet to tell what
    /// became of its pods meanwhile: of each by itself.
    fn apply_node(&mut self, mut node: Node) {
        let before = self.nodes.get(&node.name);
        // News may come long after what it tells of: no longer was it alive after we last saw it than its own clock says.
        if let Some((known, (earlier, later))) = before.and_then(|known| Some((known, known.heartbeat.zip(node.heartbeat)?))) {
            node.seen = node.seen.min(known.seen + (later - earlier).max(0));
        }
        let same = |before: &Node| before.ready == node.ready && (!node.ready || before.ready_since == node.ready_since);
        node.turned = before.map_or(node.ready_since.min(node.seen), |before| if same(before) { before.turned } else { node.seen });
        let stayed = node.ready && before.is_some_and(same);
        let moved = before.is_none_or(|before| before.labels != node.labels);
        self.grounds.surveyed &= before.is_some_and(|before| before.addresses == node.addresses);
        // By then every pod that did not outlive the silence has been told of.
        let all_told = node.seen >= node.turned + TELLING_SECONDS;
        let there: Vec<String> = if stayed { self.pods_on(&node.name).map(|pod| pod.uid.clone()).collect() } else { Vec::new() };
        for uid in there {
            let Some(pod) = self.pods.get_mut(&uid) else { continue };
            let runs = pod.phase == records::PodPhase::Running && !pod.parting.lost && !pod.unready;
            if runs && (all_told || pod.last_alive >= Some(node.turned)) {
                pod.last_alive = pod.last_alive.max(Some(node.seen));
            }
        }
        self.comes_back(&node);
        let name = node.name.clone();
        self.nodes.insert(name.clone(), node);
        if moved {
            self.nodes_moved();
        }
        self.node_changed(&name, moved);
    }

    fn node_changed(&mut self, name: &str, pools_too: bool) {
        self.todo.pools |= pools_too;
        self.todo.nodes.push(name.to_owned());
        let works: Vec<WorkId> = self.pods_on(name).filter_map(|pod| Some(pod.ours.as_ref()?.work.clone())).collect();
        works.into_iter().for_each(|work| self.todo.works.push(work));
    }

    /// A node that was set apart stays so, whoever leads now, and how often it was is not forgotten.
    fn apply_provider_node(&mut self, node: ProviderNode) {
        let name = node.spec.node_name.clone();
        let (told, record) = (node.status.quarantine.as_ref(), node.status.record.as_ref());
        let times = record.map_or(0, |record| u32::try_from(record.quarantines).unwrap_or_default()).max(u32::from(told.is_some()));
        let until = told.map(|told| &told.until).or(record.and_then(|record| record.last_let_back.as_ref()));
        if times > 0 {
            let known = self.quarantine.entry(name.clone()).or_default();
            // Each is further in the future than the one before, and may count anew after a good time.
            let until = until.map_or(0, |until| until.0.as_second());
            if until > known.until || known.times == 0 {
                (known.times, known.until) = (times, until);
                self.todo.node_alarms.set(until, name.clone());
            }
        }
        let offers = node.status.offers.clone();
        let before = self.provider_nodes.insert(node.name.clone(), node);
        if before.is_some_and(|before| before.status.offers != offers) {
            // It was written: what has changed since has changed just now.
            self.stale_since.remove(&name);
        }
        self.node_changed(&name, true);
    }

    fn pool_changed(&mut self, name: Option<&String>) {
        self.todo.pools = true;
        let nodes = self.provider_nodes.values().filter(|node| name.is_some_and(|name| node.spec.pool == *name));
        let nodes: Vec<String> = nodes.map(|node| node.spec.node_name.clone()).collect();
        nodes.into_iter().for_each(|node| self.todo.nodes.push(node));
    }

    fn apply_escrow(&mut self, escrow: Escrow) {
        let key = escrow.key();
        let before = self.escrows.insert(key.clone(), escrow.clone());
        if before.is_some_and(|before| before.spec == escrow.spec && before.uid == escrow.uid) {
            self.todo.escrows.push(key);
        } else {
            self.escrow_changed(&key);
        }
    }

    /// It may pay for others than before.
    pub(super) fn escrow_changed(&mut self, key: &Key) {
        self.todo.escrows.push(key.clone());
        for work in self.index.paid_by.get(key).into_iter().flatten() {
            self.todo.works.push(work.clone());
        }
    }

    /// Tenants are named by the UIDs of namespaces.
    fn apply_namespace(&mut self, namespace: Namespace) {
        let name = namespace.name.clone();
        let before = self.namespaces.insert(name.clone(), namespace.clone());
        if before.as_ref().is_some_and(|before| *before == namespace) {
            return;
        }
        let named = before.is_none_or(|before| before.uid != namespace.uid);
        let escrows: Vec<Key> = self.escrows.keys().filter(|key| named && (name == CLUSTER_NAMESPACE || key.0 == name)).cloned().collect();
        escrows.iter().for_each(|key| self.escrow_changed(key));
        self.works_in(&name);
    }

    /// What is true of a namespace is true of all tasks in it.
    fn works_in(&mut self, namespace: &str) {
        let works: Vec<WorkId> = self.tasks_in(namespace).map(|task| task.work()).collect();
        works.into_iter().for_each(|work| self.todo.works.push(work));
    }

    pub(super) fn escrows_of(&self, funding: &FundingId) -> Vec<Key> {
        self.escrows.values().filter(|escrow| escrow.funding.as_ref() == Some(funding)).map(Escrow::key).collect()
    }
}
