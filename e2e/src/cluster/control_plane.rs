//! etcd, the API server, the controller manager and the scheduler: what each is started with, and when it is ready.

use super::layout::{ClusterInfo, Layout, write_if_changed};
use super::pki;
use super::process::{Processes, Spec};
use crate::wait;
use anyhow::Result;
use std::time::Duration;

/// Every write to the API is logged, so that tests can count who wrote what; reads are not.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, verbs: [get, list, watch]}
- {level: None, resources: [{group: coordination.k8s.io}]}
- {level: Metadata}
";

pub async fn ensure(layout: &Layout, info: &ClusterInfo, processes: &Processes) -> Result<()> {
    write_if_changed(&layout.cluster().join("audit-policy.yaml"), AUDIT_POLICY)?;
    for user in ["admin", "controller-manager", "scheduler"] {
        pki::write_kubeconfig(layout, info, user)?;
    }
    let kube = layout.bin("kube");
    let spec = |name: &str, args: Vec<String>| {
        let component = if name == "etcd" { name.to_owned() } else { format!("kube-{name}") };
        Spec::new(name, kube.clone(), std::iter::once(component).chain(args).collect())
    };
    processes.ensure(&spec("etcd", etcd(layout, info))).await?;
    let started = processes.ensure(&spec("apiserver", api_server(layout, info))).await?;
    ready(layout, processes).await?;
    processes.ensure(&spec("controller-manager", controller_manager(layout, info))).await?;
    processes.ensure(&spec("scheduler", scheduler(layout, info))).await?;
    if started {
        // The kubelets' and Prometheus's rights; the rest is built in.
        crate::kubectl::apply(layout, super::observe::RBAC).await?;
    }
    Ok(())
}

async fn ready(layout: &Layout, processes: &Processes) -> Result<()> {
    wait::until("the API server to answer", Duration::from_secs(60), || async {
        anyhow::ensure!(
            processes.alive("apiserver").is_some(),
            wait::Hopeless(format!("the API server ended:\n{}", processes.last_words("apiserver")))
        );
        anyhow::ensure!(processes.alive("etcd").is_some(), wait::Hopeless(format!("etcd ended:\n{}", processes.last_words("etcd"))));
        Ok(crate::kubectl::run(layout, &["get", "--raw", "/readyz"]).await.ok())
    })
    .await
    .map(|_| ())
}

fn etcd(layout: &Layout, info: &ClusterInfo) -> Vec<String> {
    let (client, peer) = (info.ports.etcd, info.ports.etcd_peer);
    vec![
        format!("--data-dir={}", layout.cluster().join("etcd").display()),
        format!("--listen-client-urls=http://127.0.0.1:{client}"),
        format!("--advertise-client-urls=http://127.0.0.1:{client}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
        // A test cluster may lose its last second when the machine loses its power.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

fn api_server(layout: &Layout, info: &ClusterInfo) -> Vec<String> {
    let pki = |file: &str| layout.pki(file).display().to_string();
    vec![
        format!("--etcd-servers=http://127.0.0.1:{}", info.ports.etcd),
        format!("--secure-port={}", info.ports.api),
        format!("--advertise-address={}", info.subnet.gateway()),
        format!("--service-cluster-ip-range={}", info.subnet.services()),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        format!("--kubelet-client-certificate={}", pki("apiserver-kubelet.crt")),
        format!("--kubelet-client-key={}", pki("apiserver-kubelet.key")),
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        // Webhooks are called at their pods' addresses: this machine has no kube-proxy of its own.
        "--enable-aggregator-routing=true".into(),
        format!("--audit-policy-file={}", layout.cluster().join("audit-policy.yaml").display()),
        format!("--audit-log-path={}", layout.audit_log().display()),
        "--audit-log-maxsize=200".into(),
        "--audit-log-maxbackup=2".into(),
    ]
}

fn controller_manager(layout: &Layout, info: &ClusterInfo) -> Vec<String> {
    let pki = |file: &str| layout.pki(file).display().to_string();
    vec![
        // Otherwise it makes a folder for plugins on the machine itself.
        format!("--flex-volume-plugin-dir={}", layout.cluster().join("plugins").display()),
        format!("--kubeconfig={}", layout.kubeconfig("controller-manager").display()),
        format!("--secure-port={}", info.ports.controllers),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--service-account-private-key-file={}", pki("sa.key")),
        format!("--cluster-cidr={}", info.subnet.all_pods()),
        "--use-service-account-credentials=true".into(),
        "--allocate-node-cidrs=false".into(),
        "--leader-elect=false".into(),
        // A node that stops answering is seen sooner than after the usual 40 s.
        "--node-monitor-grace-period=20s".into(),
        "--node-monitor-period=2s".into(),
        "--controllers=*,-nodeipam,-service-lb-controller,-node-route-controller,-cloud-node-lifecycle-controller".into(),
    ]
}

fn scheduler(layout: &Layout, info: &ClusterInfo) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", layout.kubeconfig("scheduler").display()),
        format!("--secure-port={}", info.ports.scheduler),
        "--leader-elect=false".into(),
    ]
}
