//! What pods show of their kubelets' clocks. Workers that belong together are billed from the start of the last of them, and
//! kubelets' clocks may differ: no pod alone tells a clock that is behind from an image that was quick to pull. And a clock that
//! was set while a container ran makes its record a wrong one.

use super::records::Pod;
use foldhash::HashMap;
use std::collections::VecDeque;
use supercargo_market::metering::Ahead;

/// Clocks are set and drift: what a node showed is forgotten after one to two of these.
const WINDOW_SECONDS: i64 = 3_600;

/// So often our clock may be set until it is forgotten what was counted by it before.
const MOST_SETS: usize = 16;

/// What is compared, and what a record may be cut by: that rests on one clock of ours alone.
#[derive(Debug, Default)]
pub struct Clocks {
    all: HashMap<String, Shown>,
    sure: HashMap<String, Shown>,
    /// What was bound until then was bound by another clock than what is seen since.
    anew_after: i64,
    /// When our own clock was set forward, by what it said until then, and by how much.
    sets: VecDeque<(i64, i64)>,
}

/// What a node showed in this window, and in the one before.
#[derive(Debug, Clone, Copy, Default)]
struct Shown {
    window: i64,
    lately: Option<Ahead>,
    before: Option<Ahead>,
}

impl Shown {
    fn see(&mut self, at: i64, ahead: Ahead) {
        let window = at / WINDOW_SECONDS;
        if window > self.window {
            let next = window == self.window + 1;
            *self = Self { window, lately: None, before: self.lately.filter(|_| next) };
        }
        match [self.lately, self.before].into_iter().flatten().try_fold(ahead, Ahead::and) {
            Some(_) => self.lately = Some(self.lately.and_then(|lately| lately.and(ahead)).unwrap_or(ahead)),
            // One of the clocks was set: what was shown before says nothing of it as it is now.
            None => (self.lately, self.before) = (Some(ahead), None),
        }
    }

    fn both(&self) -> Option<Ahead> {
        [self.lately, self.before].into_iter().flatten().reduce(|one, other| one.and(other).unwrap_or(one))
    }
}

impl Clocks {
    /// A pod's newest version, and the one before it: only what is new in it is a sight.
    pub fn see(&mut self, pod: &Pod, before: Option<&Pod>) {
        let sights = |pod: &Pod| (pod.started, pod.finished, pod.first_running, pod.terminal);
        if pod.ours.as_ref().is_none_or(|ours| ours.bound == 0) || before.is_some_and(|before| sights(before) == sights(pod)) {
            return;
        }
        let record = pod.record();
        let (Some(node), Some(ahead)) = (&pod.node, Ahead::lately(&record)) else { return };
        let at = pod.terminal.or(pod.first_running).unwrap_or_default();
        self.all.entry(node.clone()).or_default().see(at, ahead);
        // Nothing starts before it is bound by the same clock.
        if self.is_ours(record.bound) && ahead.least <= ahead.most.saturating_add(1) {
            self.sure.entry(node.clone()).or_default().see(at, ahead);
        }
    }

    /// From now on another clock of ours sees, or somebody else has bound by his what is there already.
    pub fn begin_anew(&mut self, now: i64, bound: impl Iterator<Item = i64>) {
        self.sure.clear();
        self.anew_after = bound.fold(now, i64::max);
        self.sets.clear();
    }

    /// Our own clock, which says this now, was set.
    pub fn set(&mut self, now: i64, by: i64, bound: impl Iterator<Item = i64>) {
        let mut sets = std::mem::take(&mut self.sets);
        self.begin_anew(now, bound);
        if by > 0 {
            sets.push_back((now - by, by));
        }
        // What it is set back by it was set forward by less.
        let mut back = -by;
        while back > 0
            && let Some((until, forward)) = sets.pop_back()
        {
            if forward > back {
                sets.push_back((until, forward - back));
            }
            back -= forward;
        }
        if sets.len() > MOST_SETS {
            sets.pop_front();
        }
        self.sets = sets;
    }

    /// What our clock said then, as it would say it now. What it said before it was set back can't be told from what it says since.
    pub fn as_it_is_now(&self, second: i64) -> i64 {
        self.sets.iter().fold(second, |second, (until, by)| if second <= *until { second.saturating_add(*by) } else { second })
    }

    /// Whether the clock that bound it is the one that we see by.
    pub fn is_ours(&self, bound: i64) -> bool {
        bound > self.anew_after
    }

    pub fn of(&self, node: &str) -> Option<Ahead> {
        self.all.get(node).and_then(Shown::both)
    }

    /// What a record may be cut by that begins now.
    pub fn surely(&self, node: &str) -> Option<Ahead> {
        self.sure.get(node).and_then(Shown::both)
    }

    pub fn forget(&mut self, node: &str) {
        self.all.remove(node);
        self.sure.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::Ours;
    use super::*;
    use supercargo_market::work::WorkId;

    const T: i64 = 1_800_000_000;

    /// A pod that took so long to start, by a clock that ours is so far ahead of.
    fn pod(at: i64, pull: i64, ahead: i64) -> Pod {
        let ours = Ours { work: WorkId::task("uid"), task: "task".into(), attempt: 1, worker: 0, bound: at };
        let (node, started) = (Some("gpu-0".to_owned()), Some(at + pull - ahead));
        Pod { node, ours: Some(ours), started, first_running: Some(at + pull + 1), ..Pod::default() }
    }

    fn shown(pods: &[Pod]) -> Option<(i64, i64)> {
        let mut clocks = Clocks::default();
        pods.iter().for_each(|pod| clocks.see(pod, None));
        clocks.of("gpu-0").map(|ahead| (ahead.least, ahead.most))
    }

    #[test]
    fn each_pod_narrows_what_is_known_of_its_nodes_clock() {
        assert_eq!(shown(&[]), None);
        assert_eq!(shown(&[pod(T, 200, 90)]), Some((-110, 91)));
        assert_eq!(shown(&[pod(T, 200, 90), pod(T + 300, 2, 90)]), Some((88, 91)));
        let late = Pod { first_running: Some(T + 999), ..pod(T, 200, 0) };
        assert_eq!(shown(std::slice::from_ref(&late)), Some((-200, 799)));
        assert_eq!(shown(&[late, pod(T + 400, 4, 0)]), Some((-4, 1)));
    }

    #[test]
    fn what_a_clock_showed_is_forgotten_when_it_was_set_and_when_it_is_old() {
        let right = pod(T, 2, 0);
        assert_eq!(shown(&[right.clone(), pod(T + 300, 2, -300)]), Some((-302, -299)), "it was set");
        assert_eq!(shown(&[right.clone(), pod(T + WINDOW_SECONDS, 60, 0)]), Some((-2, 1)), "the window before counts");
        assert_eq!(shown(&[right.clone(), pod(T + 3 * WINDOW_SECONDS, 60, 0)]), Some((-60, 1)), "one from long ago does not");
        let mut clocks = Clocks::default();
        clocks.see(&right, None);
        clocks.forget("gpu-0");
        assert_eq!(clocks.of("gpu-0"), None);
    }

    #[test]
    fn what_an_end_shows_is_how_the_clock_is_by_now() {
        let mut clocks = Clocks::default();
        let runs = pod(T, 2, 0);
        clocks.see(&runs, None);
        // The kubelet's clock is set five minutes forward while it runs.
        let over = Pod { finished: Some(T + 400), terminal: Some(T + 101), ..runs.clone() };
        clocks.see(&over, Some(&runs));
        assert_eq!(clocks.of("gpu-0").map(|ahead| ahead.most), Some(-299));
        clocks.see(&pod(T + 200, 2, -300), None);
        assert_eq!(clocks.of("gpu-0"), Some(Ahead { least: -302, most: -299 }));
        assert_eq!(clocks.surely("gpu-0"), clocks.of("gpu-0"));
    }

    #[test]
    fn by_what_another_clock_bound_nothing_is_cut() {
        let mut clocks = Clocks::default();
        clocks.see(&pod(T, 2, 0), None);
        clocks.begin_anew(T + 10, [T + 40].into_iter());
        assert_eq!((clocks.surely("gpu-0"), clocks.of("gpu-0").is_some()), (None, true));
        clocks.see(&pod(T + 40, 2, 0), None);
        assert_eq!(clocks.surely("gpu-0"), None);
        // It was bound by one that is ahead, and heard of after that: it can't have started before.
        clocks.see(&Pod { started: Some(T + 35), first_running: Some(T + 36), ..pod(T + 41, 2, 0) }, None);
        assert_eq!(clocks.surely("gpu-0"), None);
        clocks.see(&pod(T + 41, 2, 0), None);
        assert_eq!(clocks.surely("gpu-0"), Some(Ahead { least: -2, most: 1 }));
    }

    #[test]
    fn what_our_own_clock_said_before_it_was_set_forward_is_read_as_it_would_say_it_now() {
        let mut clocks = Clocks::default();
        let read = |clocks: &Clocks, second: i64| clocks.as_it_is_now(T + second) - T;
        assert_eq!(read(&clocks, 0), 0);
        clocks.set(T + 3_700, 3_600, std::iter::empty());
        assert_eq!((read(&clocks, 0), read(&clocks, 100), read(&clocks, 3_701)), (3_600, 3_700, 3_701));
        clocks.set(T + 5_000, 1_000, std::iter::empty());
        assert_eq!((read(&clocks, 0), read(&clocks, 3_701), read(&clocks, 5_001)), (4_600, 4_701, 5_001));
        clocks.set(T + 5_000, -600, std::iter::empty());
        assert_eq!((read(&clocks, 0), read(&clocks, 3_701), read(&clocks, 5_001)), (4_000, 4_101, 5_001));
        clocks.set(T + 1_000, -4_000, std::iter::empty());
        assert_eq!((read(&clocks, 0), read(&clocks, 1_001)), (0, 1_001), "it is as it was");
        clocks.set(T + 500, -500, std::iter::empty());
        assert_eq!(read(&clocks, 501), 501);
    }

    #[test]
    fn pods_that_are_not_ours_show_nothing() {
        assert_eq!(shown(&[Pod { ours: None, ..pod(T, 2, 0) }]), None);
    }
}
