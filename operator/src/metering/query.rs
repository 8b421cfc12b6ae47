//! What a Prometheus is asked for: raw samples of one container, in pieces that no answer outgrows.

use crate::plan::usage::Asked;
use std::collections::BTreeMap;

pub const CPU: &str = "container_cpu_usage_seconds_total";
pub const MEMORY: &str = "container_memory_working_set_bytes";
pub const GPU: &str = "DCGM_FI_DEV_GPU_UTIL";
/// The container of a task's pod.
pub const CONTAINER: &str = "task";

/// How a GPU's exporter calls the pod that has a device, and the scrape may have renamed it: with the exporter's own pod beside
/// it, as it is now, and as it was before.
pub const SPELLINGS: [[&str; 3]; 3] = [
    ["exported_namespace", "exported_pod", "exported_container"],
    ["namespace", "pod", "container"],
    ["pod_namespace", "pod_name", "container_name"],
];

/// So much of a life is asked for at once.
const PIECE_SECONDS: i64 = 6 * 3_600;
/// Samples are looked for before the pod was bound and after its end, for clocks are apart.
const BEFORE_SECONDS: i64 = 60;
const AFTER_SECONDS: i64 = 900;

/// A part of time, by its end and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub until: i64,
    pub seconds: i64,
}

/// The pieces of a container's life, up to now.
pub fn pieces(asked: &Asked, now: i64) -> Vec<Piece> {
    let from = asked.since - BEFORE_SECONDS;
    let until = now.min(asked.until.max(asked.since) + AFTER_SECONDS);
    let begins = std::iter::successors(Some(from), |begin| Some(begin + PIECE_SECONDS)).take_while(|begin| *begin < until);
    begins.map(|begin| Piece { until: until.min(begin + PIECE_SECONDS), seconds: PIECE_SECONDS.min(until - begin) }).collect()
}

/// CPU and memory of a container, as its kubelet tells it.
pub fn of_container(asked: &Asked, match_labels: &BTreeMap<String, String>, piece: Piece) -> String {
    select(&format!("__name__=~\"{CPU}|{MEMORY}\""), SPELLINGS[1], asked, match_labels, piece)
}

/// Its devices, under one of the spellings.
pub fn of_devices(asked: &Asked, spelling: [&str; 3], match_labels: &BTreeMap<String, String>, piece: Piece) -> String {
    select(&format!("__name__=\"{GPU}\""), spelling, asked, match_labels, piece)
}

fn select(name: &str, spelling: [&str; 3], asked: &Asked, match_labels: &BTreeMap<String, String>, piece: Piece) -> String {
    let [namespace, pod, container] = spelling;
    let own = [(namespace, asked.namespace.as_str()), (pod, asked.pod.as_str()), (container, CONTAINER)];
    let ours = match_labels.iter().map(|(label, value)| (label.as_str(), value.as_str()));
    let labels: Vec<String> = own.into_iter().chain(ours).map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
    format!("{{{name},{}}}[{}s]", labels.join(","), piece.seconds)
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn asked() -> Asked {
        Asked {
            uid: "5ab3c1d0-0000-4000-8000-000000000001".into(),
            namespace: "team".into(),
            pod: "train-0-0".into(),
            since: 1_800_000_000,
            from: 1_800_000_010,
            until: 1_800_000_100,
            from_start: true,
            ran_seconds: 90,
            cpu_millis: 2_000,
            devices: 1,
        }
    }

    #[test]
    fn one_container_of_one_cluster_is_asked_for() {
        let labels = [("cluster".to_owned(), "a\"b\\".to_owned())].into();
        let piece = Piece { until: 7, seconds: 60 };
        assert_eq!(
            of_container(&asked(), &labels, piece),
            "{__name__=~\"container_cpu_usage_seconds_total|container_memory_working_set_bytes\",namespace=\"team\",pod=\"train-0-0\",container=\"task\",cluster=\"a\\\"b\\\\\"}[60s]"
        );
        assert_eq!(
            of_devices(&asked(), SPELLINGS[0], &BTreeMap::new(), piece),
            "{__name__=\"DCGM_FI_DEV_GPU_UTIL\",exported_namespace=\"team\",exported_pod=\"train-0-0\",exported_container=\"task\"}[60s]"
        );
    }

    #[test]
    fn a_life_is_asked_for_in_pieces_without_a_hole() {
        let asked = Asked { until: 1_800_000_000 + 50_000, ..asked() };
        let all = pieces(&asked, asked.until + 5_000);
        assert_eq!((all.len(), all[0].until - all[0].seconds, all[2].until), (3, asked.since - 60, asked.until + 900));
        assert!(all.windows(2).all(|pair| pair[0].until == pair[1].until - pair[1].seconds));
        assert_eq!(pieces(&asked, asked.since + 10), [Piece { until: asked.since + 10, seconds: 70 }]);
        assert_eq!(pieces(&asked, asked.since - 100), [], "a clock that went back");
    }
}
