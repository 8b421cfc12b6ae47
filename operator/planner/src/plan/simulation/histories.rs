//! What must always hold, and ten thousand random histories in which it is held to after every step.

use super::super::{Effect, attempt, place, status};
use super::{DEVICES, NODES, Theatre};
use crate::world::records::{Pod, PodPhase, Task};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use supercargo_crds::task::GangSuccess;
use supercargo_crds::task_status::ComputeTaskStatus;
use supercargo_ledger::Charge;
use supercargo_market::funding::day_of;

const HISTORIES: u64 = 10_000;
/// From so many on they are the nightly ones, which have a figure of their own.
const NIGHTLY: u64 = 1_000_000;
/// Once so many have broken the others are not tried.
const MOST_BROKEN: usize = 16;

/// What comes in the way of writes: quotas and policies that the API server refuses, names that are taken, what somebody else
/// writes at the same time, and statuses that are late, also after somebody told more.
const HINDERED: [&str; 8] = ["a quota", "a policy", "a name", "a finalizer", "a taint", "a status", "a late status", "a status of old"];
/// What breaks, and what people tear away: machines that go down, GPUs that fall ill, so that a kubelet will not have a pod, and
/// objects that are deleted by hand.
const BROKEN: [&str; 7] =
    ["a crash", "an ill GPU", "no room", "a node object", "a pod object", "a forced deletion", "a stripped finalizer"];
/// Who has not started by then says what for.
const SLOW_SECONDS: i64 = 30;

/// Says how to see it again, if it breaks.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("SUPERCARGO_SEED={} replays it alone", self.0);
        }
    }
}

impl Theatre {
    /// What was charged of a pod is what its container ran, by its own record, and never more: unless all that there was to
    /// go by is a clock that jumped meanwhile. Of a gang nothing is billed before the last one has started.
    pub(super) fn is_what_ran(&self, pod: &Pod, charged: u64) {
        let (Some(started), Some(finished), Some(ours)) = (pod.started, pod.finished, pod.ours.as_ref()) else { return };
        let workers = self.books.workers.get(&(ours.work.clone(), ours.attempt)).copied().unwrap_or(1);
        let together = workers > 1;
        let all = self.gpus.started(ours, workers);
        // Once our clock has jumped, whose start was the last is told by what we saw before and after: each still pays no more
        // than its own record says.
        let last = all.filter(|_| self.jumps == 0).unwrap_or(started);
        let ran = (finished - last.max(started)).max(0).unsigned_abs();
        let steady = self.is_steady(&pod.uid);
        assert!(charged <= ran || !steady, "seed {}: {} s of {} were charged, and it ran {ran} s", self.seed, charged, pod.name);
        let never = together && all.is_none() && steady;
        assert!(!never || charged == 0, "seed {}: {charged} s of {} were charged, and not all of its gang started", self.seed, pod.name);
        let heard = pod.node.as_ref().is_some_and(|node| !self.were_silent.contains(node));
        // What is evicted from a node that was never closed is paid for like everything else.
        let open = pod.node.as_ref().is_some_and(|node| !self.were_closed.contains(node));
        let well = pod.node.as_ref().is_some_and(|node| !self.gpus.were_ill.contains(node));
        let well = well && pod.devices.iter().all(|device| device.healthy != Some(false));
        let there = self.tasks.contains_key(&ours.task);
        let whole = pod.reason.is_none() && heard && open && well && there && !together && self.is_right(&pod.uid);
        assert!(!whole || charged == ran, "seed {}: {} s of {} were charged, and it ran {ran} s", self.seed, charged, pod.name);
    }

    /// Whether the operator's clock has gone evenly since a pod was made.
    pub(super) fn is_steady(&self, uid: &str) -> bool {
        self.jumps_before.get(uid) == Some(&self.jumps)
    }

    /// Whether it has also gone right.
    pub(super) fn is_right(&self, uid: &str) -> bool {
        self.skew == 0 && self.is_steady(uid)
    }

    /// What is added up to the card's minimum comes once a task, and never when a provider's fault ended it.
    pub(super) fn adds_a_minimum(&mut self, charge: &Charge) {
        let minimum = u64::from(self.pool.spec.pricing.minimum_seconds.unsigned_abs());
        let (added, seed) = (charge.seconds - charge.served_seconds(), self.seed);
        let billed = self.books.billed.entry(charge.work.clone()).or_default();
        let before: u64 = billed.range(..charge.attempt).map(|(_, seconds)| seconds).sum();
        assert!(added == 0 || !charge.fault, "seed {seed}: {added} s were added to what a provider's fault ended: {charge:?}");
        assert!(added == 0 || before + charge.seconds <= minimum, "seed {seed}: {added} s were added after {before} s: {charge:?}");
        let longest = billed.entry(charge.attempt).or_default();
        *longest = charge.seconds.max(*longest);
        self.books.added.insert(charge.segment.to_string(), added);
    }

    /// Whoever was told to end has not succeeded, whatever its exit code; nor has a gang of which one that counts was.
    pub(super) fn is_its_own_success(&self, task: &str, status: &ComputeTaskStatus) {
        let Some(last) = status.attempts.last().filter(|last| last.outcome == "Succeeded") else { return };
        let Some(task) = self.tasks.get(task) else { return };
        let all = task.spec.gang.as_ref().is_none_or(|gang| gang.success == GangSuccess::All);
        for worker in 0..if all { place::workers(task) } else { 1 } {
            let pod = place::pod_name(task, last.index.unsigned_abs(), worker);
            assert!(!self.stopped.contains(&pod), "seed {}: {pod} was told to end, and has succeeded", self.seed);
        }
    }

    /// Whoever leads when it is told, the seconds that a status tells are those that the books charged.
    pub(super) fn is_told_as_charged(&self, task: &str, status: &ComputeTaskStatus) {
        let (Some(task), Some(last)) = (self.tasks.get(task), status.attempts.last()) else { return };
        let pods = (0..place::workers(task)).map(|worker| place::pod_name(task, last.index.unsigned_abs(), worker));
        // Of a pod that somebody took away unseen another one was made, and perhaps another.
        let uids = pods.flat_map(|pod| {
            let made = self.made.get(&pod).copied().unwrap_or_default();
            (2..=made).map(|number| format!("uid-of-{pod}-{number}")).chain([format!("uid-of-{pod}")]).collect::<Vec<_>>()
        });
        let uids: Vec<String> = uids.collect();
        let right = uids.iter().filter(|uid| self.jumps_before.contains_key(*uid)).all(|uid| self.is_right(uid));
        let charged = uids.iter().filter_map(|uid| self.books.segments.get(&format!("pod/{uid}/0/0"))).max();
        let told = charged.is_none_or(|charged| *charged == last.billed_seconds.unsigned_abs());
        let latest = self.books.latest.get(&task.work());
        assert!(told || !right, "seed {}: {charged:?} s of {uids:?} were charged, and this is told: {last:?}, of {latest:?}", self.seed);
    }

    /// Nobody who runs is told to end by us, unless somebody said so, its node or one of its gang's is or was away or closed, its time
    /// is over, also as it was told of a pod of its name that somebody took away unseen, or it is one of several of which another one
    /// is not there.
    pub(super) fn ends_for_a_reason(&self, pod: &Pod) {
        let Some(ours) = pod.ours.as_ref().filter(|_| self.random && pod.phase == PodPhase::Running && !pod.deleting) else { return };
        let Some(started) = pod.started.filter(|_| self.is_right(&pod.uid)) else { return };
        // Also what was said and taken back before the operator heard of it.
        let wanted = |task: Option<&Task>| task.is_some_and(|task| task.work() == ours.work && !task.deleting && !task.spec.suspend);
        let known = self.world.tasks.values().find(|task| task.work() == ours.work);
        let said = !wanted(self.tasks.get(&ours.task)) || !wanted(known.map(AsRef::as_ref));
        let latest = self.books.latest.get(&ours.work).filter(|latest| latest.attempt == ours.attempt);
        let mut nodes = latest.into_iter().flat_map(|latest| &latest.workers).map(|place| &place.node);
        let away = nodes.any(|node| self.were_silent.contains(node) || self.were_closed.contains(node));
        // Of what is decided at once with more time for it nobody has heard yet.
        let again = known.filter(|_| self.made.get(&pod.name).is_some_and(|made| *made > 1));
        let told = again.zip(latest).and_then(|(task, latest)| attempt::told_started(task, latest));
        let since = told.map_or(started, |told| told.min(started));
        let over = latest.is_none_or(|latest| self.now + 1 >= since + latest.run_seconds.cast_signed())
            || self.books.raised.get(&ours.work) == Some(&self.now);
        let workers = self.books.workers.get(&(ours.work.clone(), ours.attempt)).copied().unwrap_or(1);
        let of_it = |other: &&Pod| other.ours.as_ref().is_some_and(|other| (&other.work, other.attempt) == (&ours.work, ours.attempt));
        let run = self.pods.values().filter(of_it).filter(|other| other.phase == PodPhase::Running && !other.deleting).count();
        let reason = said || away || over || run < workers;
        assert!(
            reason,
            "seed {}: {} runs since {started}, and is told to end at {} for no reason: {latest:?}",
            self.seed, pod.name, self.now
        );
    }

    /// Whatever waits says why, or is told so now.
    pub(super) fn says_why(&self, effects: &[Effect]) {
        for task in self.world.tasks.values().filter(|task| self.waits(task)) {
            let told = |effect: &Effect| matches!(effect, Effect::WriteTask { uid, .. } if **uid == *task.uid);
            let stalled = status::is_true(&task.status.conditions, "Stalled");
            let says = !task.status.waiting.is_empty() || stalled || effects.iter().any(told);
            assert!(says, "seed {}: {} waits, and does not say why: {:?}", self.seed, task.name, task.status);
        }
    }

    /// Whether it has neither a place nor been found one, or has one for long and has not started there.
    fn waits(&self, task: &Task) -> bool {
        let work = task.work();
        if task.deleting || task.spec.suspend || status::is_true(&task.status.conditions, "Finished") {
            return false;
        }
        let Some(held) = self.world.reservations.get(&work) else { return self.world.market.decision(&work).is_none() };
        let workers = self.world.workers_of(&work, &held.placement);
        let ends = attempt::is_ending(Some(task), &workers) || attempt::is_over(&self.world, &work, &held.placement, &workers);
        let started = |pod: &Option<&Pod>| pod.is_some_and(|pod| pod.first_running.is_some() || pod.started.is_some());
        let late = self.clock() >= held.placement.bound + place::start_timeout_seconds(task);
        !ends && !late && !workers.iter().all(started) && self.clock() >= held.placement.bound + SLOW_SECONDS
    }

    fn holds(&self) {
        for node in NODES {
            // What a silent node runs on nobody knows; nothing new goes there.
            if self.silent.contains_key(node) {
                continue;
            }
            let on_it = self.pods.values().filter(|pod| pod.node.as_deref() == Some(node) && !pod.is_over() && !pod.deleting);
            let used: u64 = on_it.map(|pod| pod.requests.devices.get("nvidia.com/gpu").copied().unwrap_or_default()).sum();
            assert!(used <= DEVICES, "seed {}: {used} devices of {node} are used", self.seed);
            self.are_neighbours(node);
        }
        for task in self.tasks.values() {
            let charged = self.books.charged.get(&task.work()).copied().unwrap_or_default();
            assert!(charged <= task.spec.budget.0.units(), "seed {}: {} cost {charged}", self.seed, task.name);
            let told = task.status.cost.as_ref().map(|cost| cost.charged.0).unwrap_or_default();
            assert!(told <= task.spec.budget.0, "seed {}: {} is told to have cost {told}", self.seed, task.name);
            let of_task = |pod: &&Pod| !pod.deleting && !pod.is_over() && pod.ours.as_ref().is_some_and(|ours| ours.work == task.work());
            let attempts: BTreeSet<u32> = self.pods.values().filter(of_task).filter_map(|pod| Some(pod.ours.as_ref()?.attempt)).collect();
            assert!(attempts.len() <= 1, "seed {}: {} has attempts {attempts:?} at once", self.seed, task.name);
        }
        for (work, used) in &self.books.held {
            let reserved = self.books.open.get(work).map(|(_, reserved, _)| *reserved);
            assert!(reserved.is_some_and(|reserved| *used <= reserved), "seed {}: {work} has used {used} of {reserved:?}", self.seed);
        }
        for (funding, free) in &self.books.funds {
            let (reserved, spent) = (self.books.reserved(funding), self.books.of(funding, &self.books.charged));
            assert!(reserved + spent + free == 100_000_000, "seed {}: money of {funding:?} was made or lost", self.seed);
            let limit = self.escrow.spec.daily_limit.as_ref().filter(|_| self.escrow.funding.as_ref() == Some(funding));
            let days = self.books.days.iter().filter(|((payer, _), _)| payer == funding && self.jumps == 0);
            for ((_, day), charged) in days {
                let held = if *day == day_of(self.now) { reserved } else { 0 };
                let kept = limit.is_none_or(|limit| held + charged <= limit.0.units());
                assert!(kept, "seed {}: a day has cost {charged}, and {held} is held back", self.seed);
            }
        }
    }

    fn is_over(&self) -> bool {
        // A budget that is used up can still be raised, and a day ends: until then the task waits, and says so.
        let spent = |task: &Task| matches!(task.status.reason.as_deref(), Some("BudgetTooSmall" | "DailyLimit"));
        let finished = |task: &Task| spent(task) || task.status.conditions.iter().any(|condition| condition.type_ == "Finished");
        // What somebody stripped of its finalizer is nobody's to take away.
        let left = |pod: &Pod| pod.has_finalizer || !pod.is_over();
        self.tasks.values().all(finished) && !self.pods.values().any(left) && self.books.open.is_empty()
    }
}

/// What came in the way of the operator's writes.
fn history(seed: u64) -> BTreeMap<&'static str, u64> {
    let _replay = Replay(seed);
    let mut theatre = Theatre::new(seed);
    theatre.vary();
    for step in 0..600 {
        theatre.faults = step < 40;
        theatre.pass();
        theatre.holds();
        theatre.live();
        theatre.holds();
        if !theatre.faults && theatre.is_over() {
            return theatre.hindered;
        }
    }
    let left: Vec<_> =
        theatre.tasks.values().map(|task| (task.name.clone(), task.status.phase.clone(), task.status.waiting.clone())).collect();
    panic!(
        "seed {seed}: faults stopped, and not all is over: {left:?}, {:?}, {} reservations",
        theatre.pods.values().collect::<Vec<_>>(),
        theatre.books.open.len()
    );
}

fn added(counts: impl Iterator<Item = (&'static str, u64)>) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    counts.for_each(|(what, times)| *sums.entry(what).or_default() += times);
    sums
}

#[test]
fn random_histories_charge_everything_once_and_come_to_an_end() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("SUPERCARGO_SEED") {
        return drop(history(seed));
    }
    let histories = number("SUPERCARGO_HISTORIES").unwrap_or(HISTORIES);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let broken: Mutex<Vec<u64>> = Mutex::default();
    // One that breaks stops nobody: what else breaks is worth knowing too.
    let go_on = || broken.lock().expect("nobody panics with it").len() < MOST_BROKEN;
    let tried = |seed: u64| {
        std::panic::catch_unwind(|| history(seed)).unwrap_or_else(|_| {
            broken.lock().expect("nobody panics with it").push(seed);
            BTreeMap::new()
        })
    };
    let hindered = std::thread::scope(|scope| {
        let of = |first: usize| added((first as u64..=histories).step_by(threads).take_while(|_| go_on()).flat_map(tried));
        let all: Vec<_> = (1..=threads).map(|first| scope.spawn(move || of(first))).collect();
        added(all.into_iter().flat_map(|some| some.join().expect("what breaks is told by its seed")))
    });
    let broken = broken.into_inner().expect("nobody panics with it");
    assert!(broken.is_empty(), "these seeds break: {broken:?}");
    let all_of_it = HINDERED.iter().chain(&BROKEN).all(|what| hindered.get(what).is_some_and(|times| *times > 0));
    assert!(all_of_it || histories < HISTORIES, "{hindered:?}");
    if histories >= NIGHTLY {
        println!("figure plan.sim_histories_nightly {histories} runs");
    } else {
        println!("figure plan.sim_histories {histories} runs");
    }
}
