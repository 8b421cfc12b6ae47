//! What a task's pod is made of, beside the floor that every pod has.

use super::simulation::task;
use super::tests::{calm, pods, until};
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
