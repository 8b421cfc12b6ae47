//! What a pod takes of its node, as kube-scheduler and the kubelet count it.

use super::convert::{devices, millis, units};
use super::records::Requests;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// The greater of what runs together in the end and of the most that runs together on the way there; with the pod's own
/// CPU and memory in place of its containers', where it has them, and with its overhead.
pub(super) fn requests(object: &Pod) -> Requests {
    let Some(spec) = &object.spec else { return Requests::default() };
    let mut taken = of_containers(spec);
    let own = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    // Only these can be asked for by a pod as a whole: disk and devices are its containers'.
    if let Some(own) = own.filter(|own| own.contains_key("cpu")) {
        taken.cpu_millis = millis(own, "cpu");
    }
    if let Some(own) = own.filter(|own| own.contains_key("memory")) {
        taken.memory_bytes = units(own, "memory");
    }
    taken.add(&spec.overhead.as_ref().map(read).unwrap_or_default());
    taken
}

/// Containers run together. Init containers run one after the other before them, but for those that are restarted always:
/// such a sidecar runs on beside all that come after it.
fn of_containers(spec: &PodSpec) -> Requests {
    let of = |container: &Container| {
        let asked = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        asked.map(read).unwrap_or_default()
    };
    let mut together = Requests::default();
    spec.containers.iter().for_each(|container| together.add(&of(container)));
    let (mut sidecars, mut on_the_way) = (Requests::default(), Requests::default());
    for container in spec.init_containers.iter().flatten() {
        let mut now = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            together.add(&now);
            sidecars.add(&now);
            now = sidecars.clone();
        } else {
            now.add(&sidecars);
        }
        on_the_way.raise_to(&now);
    }
    together.raise_to(&on_the_way);
    together
}

fn read(all: &BTreeMap<String, Quantity>) -> Requests {
    Requests {
        cpu_millis: millis(all, "cpu"),
        memory_bytes: units(all, "memory"),
        storage_bytes: units(all, "ephemeral-storage"),
        devices: devices(all),
    }
}

impl Requests {
    pub fn add(&mut self, other: &Self) {
        self.each(other, u64::saturating_add);
    }

    /// The greater of each.
    fn raise_to(&mut self, other: &Self) {
        self.each(other, u64::max);
    }

    fn each(&mut self, other: &Self, of: impl Fn(u64, u64) -> u64) {
        self.cpu_millis = of(self.cpu_millis, other.cpu_millis);
        self.memory_bytes = of(self.memory_bytes, other.memory_bytes);
        self.storage_bytes = of(self.storage_bytes, other.storage_bytes);
        for (name, count) in &other.devices {
            let known = self.devices.entry(name.clone()).or_default();
            *known = of(*known, *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Thousandths of a core, MiB, MiB of disk and GPUs of a pod of this spec.
    fn taken(spec: &Value) -> [u64; 4] {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": spec });
        let found = requests(&serde_json::from_value(pod).expect("a pod"));
        let devices = found.devices.get("nvidia.com/gpu").copied().unwrap_or_default();
        [found.cpu_millis, found.memory_bytes >> 20, found.storage_bytes >> 20, devices]
    }

    fn asks(requests: Value) -> Value {
        json!({ "name": "c", "resources": { "requests": requests } })
    }

    fn sidecar(requests: Value) -> Value {
        json!({ "name": "s", "restartPolicy": "Always", "resources": { "requests": requests } })
    }

    #[test]
    fn a_pod_takes_what_kubernetes_says_that_it_takes() {
        let cpu = |quantity: &str| asks(json!({ "cpu": quantity }));
        let beside = |quantity: &str| sidecar(json!({ "cpu": quantity }));
        let with_gpu = || asks(json!({ "cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi", "nvidia.com/gpu": "1" }));
        let cases = [
            ("nothing", json!({ "containers": [{ "name": "c" }] }), [0, 0, 0, 0]),
            ("its containers together", json!({ "containers": [with_gpu(), with_gpu()] }), [2_000, 2_048, 2_048, 2]),
            ("a small init container before them", json!({ "initContainers": [cpu("500m")], "containers": [cpu("1")] }), [1_000, 0, 0, 0]),
            ("the greatest init container", json!({ "initContainers": [cpu("3"), cpu("2")], "containers": [cpu("1")] }), [3_000, 0, 0, 0]),
            ("a sidecar beside its containers", json!({ "initContainers": [beside("1")], "containers": [cpu("1")] }), [2_000, 0, 0, 0]),
            (
                "an init container beside an earlier sidecar",
                json!({ "initContainers": [beside("1"), cpu("3")], "containers": [cpu("1")] }),
                [4_000, 0, 0, 0],
            ),
            (
                "and not beside a later one",
                json!({ "initContainers": [cpu("3"), beside("1")], "containers": [cpu("1")] }),
                [3_000, 0, 0, 0],
            ),
            (
                "sidecars together",
                json!({ "initContainers": [beside("1"), cpu("1"), beside("2")], "containers": [cpu("500m")] }),
                [3_500, 0, 0, 0],
            ),
            (
                "a device of an init container",
                json!({ "initContainers": [with_gpu()], "containers": [cpu("1")] }),
                [1_000, 1_024, 1_024, 1],
            ),
            (
                "what the pod asks for as a whole in place of its containers' CPU and memory",
                json!({ "resources": { "requests": { "cpu": "500m", "memory": "64Mi", "ephemeral-storage": "9Gi" } }, "initContainers": [beside("1")], "containers": [with_gpu()] }),
                [500, 64, 1_024, 1],
            ),
            (
                "of what the pod leaves open its containers'",
                json!({ "resources": { "requests": { "cpu": "4" } }, "containers": [with_gpu()] }),
                [4_000, 1_024, 1_024, 1],
            ),
            (
                "limits of the pod alone are no requests",
                json!({ "resources": { "limits": { "cpu": "4" } }, "containers": [cpu("1")] }),
                [1_000, 0, 0, 0],
            ),
            (
                "overhead on top of all",
                json!({ "overhead": { "cpu": "250m", "memory": "128Mi", "ephemeral-storage": "1Mi" }, "resources": { "requests": { "cpu": "2" } }, "containers": [cpu("1")] }),
                [2_250, 128, 1, 0],
            ),
        ];
        for (what, spec, expected) in cases {
            assert_eq!(taken(&spec), expected, "{what}");
        }
    }

    #[test]
    fn quantities_that_no_node_has_do_not_wrap() {
        let most = || asks(json!({ "memory": u64::MAX.to_string() }));
        assert_eq!(taken(&json!({ "containers": [most(), most()] }))[1], u64::MAX >> 20);
    }
}
