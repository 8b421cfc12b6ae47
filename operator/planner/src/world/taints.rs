//! Taints of nodes: those that a task's pod tolerates, and those that close a node to it.

use k8s_openapi::api::core::v1::Taint;
use supercargo_crds::names::TAINT_SOLD;

/// What tasks are let through: our own taint, and the one that keeps what needs no GPU away from GPUs.
pub const TOLERATED: [&str; 2] = [TAINT_SOLD, "nvidia.com/gpu"];

/// What Kubernetes says by taints of a node's health, and of a node that is cordoned: its conditions say the same.
const TOLD_OTHERWISE: [&str; 3] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "node.kubernetes.io/unschedulable"];

/// Those that keep tasks away, as people write them. To a pod that is bound already NoSchedule would do nothing: but whoever
/// sets it wants no new pods there, however they come.
pub fn closing<'a>(taints: impl Iterator<Item = &'a Taint>) -> Vec<String> {
    let closes = |taint: &&Taint| {
        let key = taint.key.as_str();
        ["NoSchedule", "NoExecute"].contains(&taint.effect.as_str()) && !TOLERATED.contains(&key) && !TOLD_OTHERWISE.contains(&key)
    };
    let mut all: Vec<String> = taints.filter(closes).map(written).collect();
    all.sort();
    all
}

fn written(taint: &Taint) -> String {
    match taint.value.as_deref().unwrap_or_default() {
        "" => format!("{}:{}", taint.key, taint.effect),
        value => format!("{}={value}:{}", taint.key, taint.effect),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taint_closes_a_node_to_tasks_unless_they_tolerate_it_or_it_tells_of_the_nodes_health() {
        let cases = [
            ("acme.test/kept", Some("for-us"), "NoSchedule", Some("acme.test/kept=for-us:NoSchedule")),
            ("acme.test/kept", None, "NoExecute", Some("acme.test/kept:NoExecute")),
            ("acme.test/kept", Some(""), "PreferNoSchedule", None),
            ("node-role.kubernetes.io/control-plane", None, "NoSchedule", Some("node-role.kubernetes.io/control-plane:NoSchedule")),
            ("node.kubernetes.io/disk-pressure", None, "NoSchedule", Some("node.kubernetes.io/disk-pressure:NoSchedule")),
            ("supercargo.dev/sold", None, "NoExecute", None),
            ("nvidia.com/gpu", Some("present"), "NoSchedule", None),
            ("node.kubernetes.io/not-ready", None, "NoExecute", None),
            ("node.kubernetes.io/unreachable", None, "NoSchedule", None),
            ("node.kubernetes.io/unschedulable", None, "NoSchedule", None),
        ];
        for (key, value, effect, told) in cases {
            let taint = Taint { key: key.into(), value: value.map(Into::into), effect: effect.into(), time_added: None };
            assert_eq!(closing([&taint].into_iter()), told.into_iter().collect::<Vec<_>>(), "{taint:?}");
        }
    }
}
