//! What a task's pod is made of, beside the floor that every pod has.

use super::place::pod_name;
use super::simulation::{gang, task};
use super::tests::{calm, pods, until};
use crate::world::records::Task;
use k8s_openapi::api::core::v1 as core;

fn pod_with(shared_memory: Option<&str>) -> core::PodSpec {
    let mut task = task("a", "1", 0);
    task.spec.resources.shared_memory = shared_memory.map(|size| serde_json::from_value(size.into()).expect("a quantity"));
    let made = until(&mut calm([task]), "create_pod");
    pods(&made)[0].spec.clone().expect("a spec")
}

#[test]
fn dev_shm_is_as_large_as_was_asked_for_counts_inside_memory_and_is_the_runtimes_own_otherwise() {
    for (asked, size) in [(None, None), (Some("512Mi"), Some("512Mi")), (Some("1Gi"), Some("1Gi"))] {
        let spec = pod_with(asked);
        let mounts = spec.containers[0].volume_mounts.iter().flatten().filter(|mount| mount.mount_path == "/dev/shm");
        let mounted: Vec<(&str, Option<bool>)> = mounts.map(|mount| (mount.name.as_str(), mount.read_only)).collect();
        assert_eq!(mounted, size.map(|_| ("shm", Some(false))).into_iter().collect::<Vec<_>>(), "{asked:?}");
        let volume = spec.volumes.iter().flatten().find(|volume| volume.name == "shm").and_then(|volume| volume.empty_dir.clone());
        let made = volume.as_ref().map(|volume| (volume.medium.as_deref(), volume.size_limit.as_ref().map(|limit| limit.0.as_str())));
        assert_eq!(made, size.map(|size| (Some("Memory"), Some(size))), "{asked:?}");
        let limits = spec.containers[0].resources.clone().and_then(|resources| resources.limits).expect("limits");
        assert_eq!(limits["memory"].0, (1_u64 << 30).to_string(), "what is written there is in the memory that is paid for");
    }
}

#[test]
fn nothing_of_kubernetes_ends_a_pod_before_its_time_and_no_pod_outlives_it() {
    let mut own = task("a", "1", 0);
    own.spec.start_timeout_seconds = 120;
    let mut together = gang("a", "1", 0, 2, "All");
    together.spec.gang.as_mut().expect("a gang").start_timeout_seconds = 300;
    for (task, start_timeout_seconds) in [(task("a", "1", 0), 600), (own, 120), (together, 300)] {
        let made = until(&mut calm([task]), "create_pod");
        let pod = pods(&made)[0];
        let spec = pod.spec.as_ref().expect("a spec");
        assert_eq!(spec.active_deadline_seconds, Some(start_timeout_seconds + 600), "to start, and then its time limit");
        let written = serde_json::to_value(&spec.tolerations).expect("JSON");
        let keys: Vec<&str> = written.as_array().into_iter().flatten().filter_map(|one| one["key"].as_str()).collect();
        let silent = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
        assert_eq!(keys, [silent[0], silent[1], "supercargo.dev/sold", "nvidia.com/gpu"]);
        let all = written.as_array().into_iter().flatten();
        assert!(all.clone().all(|one| one["operator"] == "Exists" && one["tolerationSeconds"].is_null()), "for as long as it takes");
        assert!(all.take(2).all(|one| one["effect"] == "NoExecute"), "nothing new goes there");
        let annotations = pod.metadata.annotations.clone().unwrap_or_default();
        assert_eq!(annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"], "false");
        assert_eq!(annotations["karpenter.sh/do-not-disrupt"], "true");
        assert_eq!((spec.priority_class_name.as_deref(), spec.priority), (Some("supercargo-paid"), None));
        let security = spec.security_context.as_ref().and_then(|security| security.seccomp_profile.as_ref());
        assert_eq!(security.map(|profile| profile.type_.as_str()), Some("RuntimeDefault"));
    }
}

#[test]
fn a_pods_name_is_short_valid_and_its_tasks_alone() {
    let long = "trains-a-very-large-language-model-on-all-of-it";
    let cut = "trains-a-very-large-language-model-on-al";
    let named = |name: &str, uid: &str| {
        let named = Task { uid: uid.into(), ..task(name, "1", 0) };
        pod_name(&named, 7, 31)
    };
    let uid = "0a1b2c3d-4e5f-6789-abcd-ef0123456789";
    for (name, stem) in
        [("a", "a"), ("a.b", "a-b"), (long, cut), (&format!("{}-rest", &cut[..39]), &cut[..39]), (&"x".repeat(253), &"x".repeat(40))]
    {
        assert_eq!(named(name, uid), format!("{stem}-0a1b2c3d-7-31"));
        let letters = |text: &str| text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-');
        assert!(named(name, uid).len() <= 63 && letters(&named(name, uid)), "it is a host's name too");
    }
    assert_ne!(named(long, uid), named(long, "1a1b2c3d-4e5f-6789-abcd-ef0123456789"), "another task that begins alike has another");
}
