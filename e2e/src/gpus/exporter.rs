//! The exporter: every device under DCGM's names, with the pod that has it; and the command that makes one ill or well.

use super::devices::Devices;
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
    pub pod_resources: PathBuf,
    pub started: Instant,
}

type Holder = (String, String, String);

impl Exporter {
    /// GET /metrics; PUT /devices/UUID/healthy or /devices/UUID/unhealthy.
    pub async fn serve(self, address: SocketAddr) -> Result<()> {
        let devices = self.devices.clone();
        let metrics = warp::path!("metrics").and(warp::get()).then(move || {
            let exporter = self.clone();
            async move { exporter.page().await }
        });
        let health = warp::path!("devices" / String / String).and(warp::put()).map(move |uuid: String, health: String| {
            let known = matches!(health.as_str(), "healthy" | "unhealthy") && devices.set_health(&uuid, health == "healthy");
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
            let (namespace, pod, container) = holder.map_or(("", "", ""), |(one, two, three)| (one, two, three));
            let used = holder.is_some();
            let value = match name {
                "DCGM_FI_DEV_GPU_UTIL" => {
                    if used {
                        90
                    } else {
                        0
                    }
                }
                "DCGM_FI_DEV_FB_USED" => {
                    if used {
                        exporter.memory_mebibytes / 2
                    } else {
                        0
                    }
                }
                "DCGM_FI_DEV_FB_FREE" => {
                    if used {
                        exporter.memory_mebibytes / 2
                    } else {
                        exporter.memory_mebibytes
                    }
                }
                "DCGM_FI_DEV_POWER_USAGE" => {
                    if used {
                        400
                    } else {
                        60
                    }
                }
                "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION" => exporter.started.elapsed().as_secs() * 60_000,
                // 79: the device has fallen off the bus.
                _ => {
                    if device.healthy {
                        0
                    } else {
                        79
                    }
                }
            };
            let _ = writeln!(
                page,
                "{name}{{gpu=\"{}\",UUID=\"{}\",device=\"nvidia{}\",modelName=\"{}\",Hostname=\"{}\",container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\"}} {value}",
                device.index, device.uuid, device.index, exporter.model, exporter.node
            );
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_is_told_of_with_the_pod_that_has_it() {
        let devices = Devices::describe("n", "nvidia.com/gpu=2").expect("described");
        let all = devices.of("nvidia.com/gpu");
        devices.set_health(&all[1].uuid, false);
        let exporter = Exporter {
            devices,
            node: "n".into(),
            model: "M".into(),
            memory_mebibytes: 100,
            pod_resources: PathBuf::new(),
            started: Instant::now(),
        };
        let holders = [(all[0].uuid.clone(), ("team".to_owned(), "pod-1".to_owned(), "task".to_owned()))].into();
        let page = page(&exporter, &holders);
        let line = |name: &str, index: usize| {
            page.lines().find(|line| line.starts_with(name) && line.contains(&all[index].uuid)).expect(name).to_owned()
        };
        assert!(line("DCGM_FI_DEV_GPU_UTIL{", 0).ends_with("container=\"task\",namespace=\"team\",pod=\"pod-1\"} 90"), "{page}");
        assert!(line("DCGM_FI_DEV_GPU_UTIL{", 1).ends_with("pod=\"\"} 0"));
        assert!(line("DCGM_FI_DEV_XID_ERRORS{", 1).ends_with("} 79"));
    }
}
