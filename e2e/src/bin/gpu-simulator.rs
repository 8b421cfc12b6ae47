//! `gpu-simulator`: what a GPU node has beside its kubelet, without the GPUs. Only tests and the demo run it.

use anyhow::{Context, Result};
use clap::Parser;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use supercargo_e2e::gpus::devices::Devices;
use supercargo_e2e::gpus::exporter::Exporter;
use supercargo_e2e::gpus::{labels, plugin};

#[derive(Parser)]
#[command(about = "Simulated GPUs for one node")]
struct Arguments {
    #[arg(long, env = "NODE_NAME")]
    node: String,
    /// RESOURCE=COUNT, separated by commas; MIG slices under the names that their plugin would give them
    #[arg(long, env = "GPUS", default_value = "nvidia.com/gpu=4")]
    gpus: String,
    #[arg(long, env = "GPU_MODEL", default_value = "NVIDIA H100 80GB HBM3")]
    model: String,
    #[arg(long, env = "GPU_MEMORY_MIB", default_value_t = 81_559)]
    memory_mebibytes: u64,
    /// Names pods in metrics as DCGM's exporter did before, by pod_name, pod_namespace and container_name
    #[arg(long, env = "DCGM_EXPORTER_USE_OLD_NAMESPACE")]
    use_old_namespace: bool,
    #[arg(long, default_value = "/var/lib/kubelet/device-plugins")]
    plugins: PathBuf,
    #[arg(long, default_value = "/var/lib/kubelet/pod-resources/kubelet.sock")]
    pod_resources: PathBuf,
    #[arg(long, default_value = "0.0.0.0:9400")]
    listen: std::net::SocketAddr,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    supercargo_e2e::http::install_tls();
    let arguments = Arguments::parse();
    let devices = Devices::describe(&arguments.node, &arguments.gpus)?;
    let exporter = Exporter {
        devices: devices.clone(),
        node: arguments.node.clone(),
        model: arguments.model.clone(),
        memory_mebibytes: arguments.memory_mebibytes,
        use_old_namespace: arguments.use_old_namespace,
        pod_resources: arguments.pod_resources,
        started: Instant::now(),
    };
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(exporter.serve(arguments.listen));
    for resource in devices.resources() {
        tasks.spawn(plugin::serve(arguments.plugins.clone(), resource, devices.clone()));
    }
    while let Err(error) = labels::set(&arguments.node, &arguments.model, arguments.memory_mebibytes, &devices).await {
        eprintln!("labelling the node: {error:#}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("{} has {}", arguments.node, arguments.gpus);
    // None of these ends while all is well.
    tasks.join_next().await.context("nothing was served")??
}
