//! What watches the cluster: Prometheus, which scrapes kubelets, containers, GPUs, the operator and the gate.

use super::layout::{ClusterInfo, Layout, write_if_changed};
use super::process::{Processes, Spec};
use crate::wait;
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;

/// The rights of the identities that this cluster adds to the built-in ones.
pub const RBAC: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: local-prometheus}
rules:
- {apiGroups: [\"\"], resources: [nodes/metrics, services/proxy], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: local-prometheus}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: local-prometheus}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: prometheus}]
";

/// Where the simulated GPUs' exporter listens on each node.
pub const GPU_EXPORTER_PORT: u16 = 9400;
/// What the chart installs: each job, and the Service whose port `metrics` it asks.
const INSTALLED: [(&str, &str); 2] = [("operator", "supercargo-metrics"), ("gate", "supercargo-gate")];

pub async fn ensure_prometheus(layout: &Layout, info: &ClusterInfo, processes: &Processes) -> Result<()> {
    let file = layout.cluster().join("prometheus.yaml");
    write_if_changed(&file, &configuration(layout, info))?;
    let args = vec![
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", layout.cluster().join("prometheus").display()),
        format!("--web.listen-address={}:{}", info.subnet.gateway(), info.ports.prometheus),
        "--storage.tsdb.retention.time=1d".into(),
        "--log.level=warn".into(),
    ];
    let started = processes.ensure(&Spec::new("prometheus", PathBuf::from("prometheus"), args)).await?;
    if started {
        wait::until("Prometheus to answer", Duration::from_secs(30), || async {
            anyhow::ensure!(
                processes.alive("prometheus").is_some(),
                wait::Hopeless(format!("Prometheus ended:\n{}", processes.last_words("prometheus")))
            );
            let answer = crate::http::client()?.get(format!("{}/-/ready", info.prometheus_url)).send().await;
            Ok(answer.is_ok_and(|a| a.status().is_success()).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Debian builds Prometheus without its discovery through the API server, so the targets are written out: the nodes'
/// kubelets and GPU exporters by address, and what the chart installs through the API server's proxy to its Services.
fn configuration(layout: &Layout, info: &ClusterInfo) -> String {
    let pki = layout.pki("").display().to_string();
    let pki = pki.trim_end_matches('/');
    let tls = format!("{{ca_file: {pki}/ca.crt, cert_file: {pki}/prometheus.crt, key_file: {pki}/prometheus.key}}");
    let nodes = |port: u16| -> String {
        let targets = info
            .nodes
            .iter()
            .enumerate()
            .map(|(index, node)| format!("{{targets: [\"{}:{port}\"], labels: {{node: {node}}}}}", info.subnet.node(index)));
        targets.collect::<Vec<_>>().join(", ")
    };
    let kubelet = |job: &str, path: &str| {
        format!("- {{job_name: {job}, scheme: https, metrics_path: {path}, tls_config: {tls}, static_configs: [{}]}}\n", nodes(10250))
    };
    let api = format!("{}:{}", info.subnet.gateway(), info.ports.api);
    let installed = INSTALLED.map(|(job, service)| {
        let path = format!("/api/v1/namespaces/supercargo/services/{service}:metrics/proxy/metrics");
        format!(
            "- {{job_name: {job}, scheme: https, metrics_path: {path}, tls_config: {tls}, static_configs: [{{targets: [\"{api}\"]}}]}}\n"
        )
    });
    format!(
        "global: {{scrape_interval: 5s, scrape_timeout: 4s}}\nscrape_configs:\n{}{}\
         - {{job_name: gpus, honor_labels: true, static_configs: [{}]}}\n{}",
        kubelet("kubelet", "/metrics"),
        kubelet("cadvisor", "/metrics/cadvisor"),
        nodes(GPU_EXPORTER_PORT),
        installed.concat(),
    )
}
