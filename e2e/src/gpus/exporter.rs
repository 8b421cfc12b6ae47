//! The exporter: every device under DCGM's names, with the pod that has it; and the command that makes one ill, well or stuck.

use super::devices::{Device, Devices};
use super::protocol::v1::ListPodResourcesRequest;
use super::protocol::v1::pod_resources_lister_client::PodResourcesListerClient;
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;
use tonic::transport::Endpoint;
use warp::Filter;
use warp::http::StatusCode;

/// What the exporter tells of.
#[derive(Clone)]
pub struct Exporter {
    pub devices: Devices,
    pub node: String,
    pub model: String,
    pub memory_mebibytes: u64,
    /// The pod's labels as DCGM's exporter had them before, which it still writes with its flag of this name.
    pub use_old_namespace: bool,
    pub pod_resources: PathBuf,
    pub started: Instant,
}

type Holder = (String, String, String);

impl Exporter {
    /// GET /metrics; PUT /devices/UUID/healthy, /devices/UUID/unhealthy or /devices/UUID/stuck.
    pub async fn serve(self, address: SocketAddr) -> Result<()> {
        let devices = self.devices.clone();
        let metrics = warp::path!("metrics").and(warp::get()).then(move || {
            let exporter = self.clone();
            async move { exporter.page().await }
        });
        let health = warp::path!("devices" / String / String).and(warp::put()).map(move |uuid: String, health: String| {
            let known = match health.as_str() {
                "healthy" | "unhealthy" => devices.set_health(&uuid, health == "healthy"),
                "stuck" => devices.stick(&uuid),
                _ => false,
            };
            let (words, status) =
                if known { ("done\n", StatusCode::OK) } else { ("there is no such device or health\n", StatusCode::NOT_FOUND) };
            warp::reply::with_status(words.to_owned(), status)
        });
        let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        warp::serve(metrics.or(health)).incoming(listener).run().await;
        Ok(())
    }

    async fn page(&self) -> String {
        // Without the kubelet's answer the devices are told of all the same, as nobody's.
        let holders = self.holders().await.unwrap_or_default();
        page(self, &holders)
    }

    async fn holders(&self) -> Result<HashMap<String, Holder>> {
        let channel =
            Endpoint::try_from(format!("unix://{}", self.pod_resources.display()))?.connect().await.context("reaching pod-resources")?;
        let listed = PodResourcesListerClient::new(channel).list(ListPodResourcesRequest {}).await?.into_inner();
        let mut holders = HashMap::new();
        for pod in listed.pod_resources {
            for container in pod.containers {
                for uuid in container.devices.into_iter().flat_map(|devices| devices.device_ids) {
                    holders.insert(uuid, (pod.namespace.clone(), pod.name.clone(), container.name.clone()));
                }
            }
        }
        Ok(holders)
    }
}

fn page(exporter: &Exporter, holders: &HashMap<String, Holder>) -> String {
    let series = [
        ("DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization (in %)."),
        ("DCGM_FI_DEV_FB_USED", "gauge", "Framebuffer memory used (in MiB)."),
        ("DCGM_FI_DEV_FB_FREE", "gauge", "Framebuffer memory free (in MiB)."),
        ("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W)."),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter", "Total energy consumption since boot (in mJ)."),
        ("DCGM_FI_DEV_XID_ERRORS", "gauge", "Value of the last XID error encountered."),
    ];
    let mut page = String::new();
    for (name, kind, help) in series {
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for device in exporter.devices.resources().iter().flat_map(|resource| exporter.devices.of(resource)) {
            let holder = holders.get(&device.uuid);
            let value = value(exporter, &device, name, holder.is_some());
            let _ = writeln!(page, "{name}{{{}}} {value}", labels(exporter, &device, holder));
        }
    }
    page
}

fn value(exporter: &Exporter, device: &Device, name: &str, used: bool) -> u64 {
    let memory = device.slice.as_ref().map_or(exporter.memory_mebibytes, |slice| slice.profile.mebibytes());
    match name {
        "DCGM_FI_DEV_GPU_UTIL" => 90 * u64::from(used),
        "DCGM_FI_DEV_FB_USED" => memory / 2 * u64::from(used),
        "DCGM_FI_DEV_FB_FREE" => memory - memory / 2 * u64::from(used),
        "DCGM_FI_DEV_POWER_USAGE" => 60 + 340 * u64::from(used),
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION" => exporter.started.elapsed().as_secs() * 60_000,
        // 79: the device has fallen off the bus.
        _ => 79 * u64::from(!device.healthy),
    }
}

/// A slice is told of under its GPU's number and UUID, with its profile and instance: DCGM has no name of its own for it.
fn labels(exporter: &Exporter, device: &Device, holder: Option<&Holder>) -> String {
    let (gpu, uuid, instance) = match &device.slice {
        None => (device.index, &device.uuid, String::new()),
        Some(slice) => (slice.gpu_index, &slice.gpu_uuid, format!("GPU_I_PROFILE=\"{}\",GPU_I_ID=\"{}\",", slice.profile, slice.instance)),
    };
    let [container, namespace, pod] =
        if exporter.use_old_namespace { ["container_name", "pod_namespace", "pod_name"] } else { ["container", "namespace", "pod"] };
    let held = holder.map_or(["", "", ""], |(namespace, pod, name)| [name, namespace, pod]);
    format!(
        "gpu=\"{gpu}\",UUID=\"{uuid}\",pci_bus_id=\"00000000:{:02X}:00.0\",device=\"nvidia{gpu}\",modelName=\"{}\",{instance}Hostname=\"{}\",\
         {container}=\"{}\",{namespace}=\"{}\",{pod}=\"{}\"",
        gpu + 1,
        exporter.model,
        exporter.node,
        held[0],
        held[1],
        held[2]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exporter(description: &str, use_old_namespace: bool) -> Exporter {
        Exporter {
            devices: Devices::describe("n", description).expect("described"),
            node: "n".into(),
            model: "NVIDIA H100 80GB HBM3".into(),
            memory_mebibytes: 100,
            use_old_namespace,
            pod_resources: PathBuf::new(),
            started: Instant::now(),
        }
    }

    fn held(device: &Device) -> HashMap<String, Holder> {
        [(device.uuid.clone(), ("team".to_owned(), "pod-1".to_owned(), "task".to_owned()))].into()
    }

    #[test]
    fn every_device_is_told_of_with_the_pod_that_has_it() {
        let exporter = exporter("nvidia.com/gpu=2", false);
        let all = exporter.devices.of("nvidia.com/gpu");
        exporter.devices.set_health(&all[1].uuid, false);
        let page = page(&exporter, &held(&all[0]));
        let line = |name: &str, index: usize| {
            page.lines().find(|line| line.starts_with(name) && line.contains(&all[index].uuid)).expect(name).to_owned()
        };
        assert!(line("DCGM_FI_DEV_GPU_UTIL{", 0).ends_with("container=\"task\",namespace=\"team\",pod=\"pod-1\"} 90"), "{page}");
        assert!(line("DCGM_FI_DEV_GPU_UTIL{", 1).ends_with("pod=\"\"} 0"));
        assert!(line("DCGM_FI_DEV_XID_ERRORS{", 1).ends_with("} 79"));
        assert!(line("DCGM_FI_DEV_FB_USED{", 0).ends_with("} 50") && line("DCGM_FI_DEV_FB_FREE{", 1).ends_with("} 100"));
    }

    #[test]
    fn a_series_has_the_labels_of_dcgms_exporter_in_its_order() {
        let exporter = exporter("nvidia.com/gpu=1", false);
        let device = &exporter.devices.of("nvidia.com/gpu")[0];
        let expected = format!(
            "gpu=\"0\",UUID=\"{}\",pci_bus_id=\"00000000:01:00.0\",device=\"nvidia0\",modelName=\"NVIDIA H100 80GB HBM3\",Hostname=\"n\",\
             container=\"\",namespace=\"\",pod=\"\"",
            device.uuid
        );
        assert_eq!(labels(&exporter, device, None), expected);
    }

    #[test]
    fn a_slice_is_told_of_under_its_gpu_with_its_profile_and_instance() {
        let exporter = exporter("nvidia.com/gpu=4,nvidia.com/mig-1g.10gb=2", false);
        let slices = exporter.devices.of("nvidia.com/mig-1g.10gb");
        let gpu = slices[1].slice.clone().expect("a slice").gpu_uuid;
        let page = page(&exporter, &held(&slices[1]));
        let expected = format!(
            "DCGM_FI_DEV_FB_USED{{gpu=\"4\",UUID=\"{gpu}\",pci_bus_id=\"00000000:05:00.0\",device=\"nvidia4\",modelName=\"NVIDIA H100 80GB HBM3\",\
             GPU_I_PROFILE=\"1g.10gb\",GPU_I_ID=\"2\",Hostname=\"n\",container=\"task\",namespace=\"team\",pod=\"pod-1\"}} 5120"
        );
        assert!(page.lines().any(|line| line == expected), "{page}");
    }

    #[test]
    fn a_pod_is_named_the_old_way_where_that_is_asked_for() {
        let exporter = exporter("nvidia.com/gpu=1", true);
        let page = page(&exporter, &held(&exporter.devices.of("nvidia.com/gpu")[0]));
        assert!(page.contains("Hostname=\"n\",container_name=\"task\",pod_namespace=\"team\",pod_name=\"pod-1\"} 90"), "{page}");
    }
}
