//! What pods show of their kubelets' clocks. Workers that belong together are billed from the start of the last of them, and
//! kubelets' clocks may differ: no pod alone tells a clock that is behind from an image that was quick to pull.

use super::records::Pod;
use foldhash::HashMap;
use supercargo_market::metering::Ahead;

/// Clocks are set and drift: what a node showed is forgotten after one to two of these.
const WINDOW_SECONDS: i64 = 3_600;

#[derive(Debug, Default)]
pub struct Clocks(HashMap<String, Shown>);

/// What a node showed in this window, and in the one before.
#[derive(Debug, Clone, Copy, Default)]
struct Shown {
    window: i64,
    lately: Option<Ahead>,
    before: Option<Ahead>,
}

impl Clocks {
    /// A pod's newest version, and the one before it: only what is new in it is a sight.
    pub fn see(&mut self, pod: &Pod, before: Option<&Pod>) {
        let sights = |pod: &Pod| (pod.started, pod.finished, pod.first_running, pod.terminal);
        if pod.ours.as_ref().is_none_or(|ours| ours.bound == 0) || before.is_some_and(|before| sights(before) == sights(pod)) {
            return;
        }
        let (Some(node), Some(ahead)) = (&pod.node, Ahead::of(&pod.record())) else { return };
        let window = pod.terminal.or(pod.first_running).unwrap_or_default() / WINDOW_SECONDS;
        let shown = self.0.entry(node.clone()).or_default();
        if window > shown.window {
            let next = window == shown.window + 1;
            *shown = Shown { window, lately: None, before: shown.lately.filter(|_| next) };
        }
        match [shown.lately, shown.before].into_iter().flatten().try_fold(ahead, Ahead::and) {
            Some(_) => shown.lately = Some(shown.lately.and_then(|lately| lately.and(ahead)).unwrap_or(ahead)),
            // One of the clocks was set: what was shown before says nothing of it as it is now.
            None => (shown.lately, shown.before) = (Some(ahead), None),
        }
    }

    pub fn of(&self, node: &str) -> Option<Ahead> {
        let shown = self.0.get(node)?;
        [shown.lately, shown.before].into_iter().flatten().reduce(|one, other| one.and(other).unwrap_or(one))
    }

    pub fn forget(&mut self, node: &str) {
        self.0.remove(node);
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
    fn pods_that_are_not_ours_show_nothing() {
        assert_eq!(shown(&[Pod { ours: None, ..pod(T, 2, 0) }]), None);
    }
}
