//! A node: a holder process with mount, network, host-name and cgroup namespaces of its own, and inside them the
//! container runtime, the kubelet and kube-proxy that any machine would run. The kubelet's folder is a file system of
//! its own on a loop device, so that limits on local storage are real.

use super::layout::{ClusterInfo, Layout, write_if_changed};
use super::process::{Processes, Spec};
use super::shell::run;
use super::{cgroup, network, pki};
use crate::wait;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;

const KUBELET_DISK: &str = "12G";
/// The leaf of the node's cgroup that its own processes are in, beside the kubelet's pods: the node's cgroup itself has to be
/// empty, or with cgroup v2 the kubelet could limit nothing.
const DAEMONS: &str = "daemons";

/// Brings node number `index` up, or heals what of it is gone. Doesn't wait for it to be Ready. True when something of it
/// was started now.
pub async fn ensure(layout: &Layout, info: &ClusterInfo, processes: &Processes, index: usize) -> Result<bool> {
    let node = Node { layout, info, name: &info.nodes[index], index };
    let holder = node.ensure_namespaces(processes).await?;
    network::ensure_node(layout, info.subnet, index, info.nodes.len(), holder)?;
    node.write_configuration()?;
    let mut started = false;
    for mut spec in [node.containerd(), node.kubelet(), node.proxy()] {
        spec.inside = Some(holder);
        spec.group = format!("{}/{DAEMONS}", node.name);
        if spec.name == node.process("kubelet") {
            // A kubelet that finds no runtime gives up.
            node.runtime_answers().await?;
        }
        started |= processes.ensure(&spec).await?;
    }
    Ok(started)
}

struct Node<'a> {
    layout: &'a Layout,
    info: &'a ClusterInfo,
    name: &'a str,
    index: usize,
}

impl Node<'_> {
    fn folder(&self, part: &str) -> PathBuf {
        self.layout.node(self.name).join(part)
    }
    fn process(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    async fn runtime_answers(&self) -> Result<()> {
        let socket = self.layout.containerd_socket(self.name);
        let what = format!("{} to answer at {}", self.process("containerd"), socket.display());
        wait::until(what, Duration::from_secs(60), || async { Ok(UnixStream::connect(&socket).await.is_ok().then_some(())) }).await
    }

    /// The process that holds the namespaces. Without it they can't be entered any more: then whatever still runs in
    /// them is ended, and the node starts anew from its disk, as a machine does after a power cut.
    async fn ensure_namespaces(&self, processes: &Processes) -> Result<u32> {
        let holder = self.process("holder");
        if let Some(pid) = processes.alive(&holder) {
            return Ok(pid);
        }
        processes.end(self.name).await?;
        // The new holder begins in the node's cgroup, which with cgroup v2 must not pass anything on yet.
        let group = format!("{}/{}", processes.top_group(), self.name);
        let what = format!("the cgroups of {} to empty", self.name);
        wait::until(what, Duration::from_secs(10), || async { cgroup::remove(&group).map(Some) }).await?;
        let sockets = self.layout.sockets().join(self.name);
        for folder in ["log", "cni/net.d", "cni/lib", "containerd", "kubelet"].map(|part| self.folder(part)).into_iter().chain([sockets]) {
            std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let disk = self.folder("kubelet.ext4");
        if !disk.exists() {
            let half = self.folder("kubelet.ext4.half");
            let path = half.display().to_string();
            run("truncate", ["-s", KUBELET_DISK, &path])?;
            run("mkfs.ext4", ["-q", "-O", "^has_journal", "-E", "lazy_itable_init=1", &path])?;
            std::fs::rename(&half, &disk).with_context(|| format!("putting {} in place", disk.display()))?;
        }
        let script = self.folder("enter.sh");
        std::fs::write(&script, self.entry_script()?).with_context(|| format!("writing {}", script.display()))?;
        let ready = self.folder("ready");
        let _ = std::fs::remove_file(&ready);
        let unshare = ["--mount", "--net", "--uts", "--cgroup", "--propagation", "private", "sh"];
        let mut args: Vec<String> = unshare.map(str::to_owned).to_vec();
        args.push(script.display().to_string());
        let mut spec = Spec::new(&holder, PathBuf::from("unshare"), args);
        spec.group = self.name.to_owned();
        processes.ensure(&spec).await?;
        wait::until(format!("the namespaces of {}", self.name), Duration::from_secs(20), || async {
            anyhow::ensure!(
                processes.alive(&holder).is_some(),
                wait::Hopeless(format!("{} could not be set up:\n{}", self.name, processes.last_words(&holder)))
            );
            Ok(ready.exists().then_some(()))
        })
        .await?;
        processes.alive(&holder).with_context(|| format!("the holder of {} ended", self.name))
    }

    /// Runs inside the fresh namespaces: what it mounts is seen by this node alone and goes when the node goes.
    fn entry_script(&self) -> Result<String> {
        let mut cgroups = String::new();
        for hierarchy in cgroup::hierarchies()? {
            let at = hierarchy.display();
            if cgroup::is_v2()? {
                // Unshared while in the node's cgroup, which so is the root of all that is seen here; then out of its way.
                cgroups += &format!("mount -t cgroup2 cgroup2 {at}\nmkdir -p {at}/{DAEMONS}\necho $$ > {at}/{DAEMONS}/cgroup.procs\n");
            } else {
                let folder = hierarchy.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                let options = if folder == "systemd" { "none,name=systemd".to_owned() } else { folder };
                cgroups += &format!("mkdir -p {at} && mount -t cgroup -o {options} cgroup {at}\n");
            }
        }
        let tmpfs = if cgroup::is_v2()? { "" } else { "mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup\n" };
        Ok(format!(
            "set -eu\n\
             hostname {name}\n\
             mount -t sysfs sysfs /sys\n{tmpfs}{cgroups}\
             mkdir -p /var/lib/kubelet /var/lib/cni /var/log /run/containerd\n\
             mount -o loop {disk} {kubelet}\n\
             mount --bind {kubelet} /var/lib/kubelet\n\
             mount --make-rshared /var/lib/kubelet\n\
             mount --bind {cni} /var/lib/cni\n\
             mount --bind {log} /var/log\n\
             mount -t tmpfs -o mode=755 tmpfs /run/containerd\n\
             ln -s {socket} /run/containerd/containerd.sock\n\
             touch {ready}\n\
             exec sleep infinity\n",
            name = self.name,
            disk = self.folder("kubelet.ext4").display(),
            kubelet = self.folder("kubelet").display(),
            cni = self.folder("cni/lib").display(),
            log = self.folder("log").display(),
            // Where cAdvisor looks for it, to know of which pod a container is.
            socket = self.layout.containerd_socket(self.name).display(),
            ready = self.folder("ready").display(),
        ))
    }

    fn write_configuration(&self) -> Result<()> {
        pki::write_kubeconfig(self.layout, self.info, self.name)?;
        pki::write_kubeconfig(self.layout, self.info, "proxy")?;
        for (file, text) in [
            ("containerd.toml", self.containerd_configuration()),
            ("cni/net.d/10-bridge.conflist", self.cni_configuration()),
            ("kubelet.yaml", self.kubelet_configuration()),
            ("proxy.yaml", self.proxy_configuration()),
        ] {
            write_if_changed(&self.folder(file), &text)?;
        }
        Ok(())
    }

    fn containerd(&self) -> Spec {
        let args = vec!["--config".into(), self.folder("containerd.toml").display().to_string()];
        let mut spec = Spec::new(self.process("containerd"), self.layout.bin("containerd"), args);
        // containerd looks for its shim and for runc on the path.
        let path = std::env::var("PATH").unwrap_or_default();
        spec.env.push(("PATH".into(), format!("{}:{path}", self.layout.state().join("bin").display())));
        spec
    }

    fn containerd_configuration(&self) -> String {
        format!(
            "version = 3\nroot = \"{root}\"\nstate = \"{sockets}/{name}/state\"\n\
             disabled_plugins = [\"io.containerd.nri.v1.nri\"]\n\
             [grpc]\naddress = \"{socket}\"\n\
             [plugins.'io.containerd.internal.v1.opt']\npath = \"{opt}\"\n\
             [plugins.'io.containerd.cri.v1.images']\nsnapshotter = \"overlayfs\"\n\
             [plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = \"{pause}\"\n\
             [plugins.'io.containerd.cri.v1.runtime']\nrestrict_oom_score_adj = true\nnetns_mounts_under_state_dir = true\n\
             [plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = [\"/usr/lib/cni\", \"/opt/cni/bin\"]\nconf_dir = \"{cni}\"\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = \"runc\"\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nBinaryName = \"{runc}\"\nSystemdCgroup = false\n",
            root = self.folder("containerd").display(),
            opt = self.folder("opt").display(),
            sockets = self.layout.sockets().display(),
            name = self.name,
            socket = self.layout.containerd_socket(self.name).display(),
            pause = super::PAUSE_IMAGE,
            cni = self.folder("cni/net.d").display(),
            runc = self.layout.bin("runc").display(),
        )
    }

    /// Pods' addresses are routed, not masked: every connection shows where it really came from.
    fn cni_configuration(&self) -> String {
        format!(
            r#"{{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
    "ipam": {{"type": "host-local", "dataDir": "/var/lib/cni/networks", "ranges": [[{{"subnet": "{}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}
]}}
"#,
            self.info.subnet.pods(self.index)
        )
    }

    fn kubelet(&self) -> Spec {
        let args = vec![
            "kubelet".into(),
            format!("--config={}", self.folder("kubelet.yaml").display()),
            format!("--kubeconfig={}", self.layout.kubeconfig(self.name).display()),
            format!("--hostname-override={}", self.name),
            format!("--node-ip={}", self.info.subnet.node(self.index)),
        ];
        Spec::new(self.process("kubelet"), self.layout.bin("kube"), args)
    }

    fn kubelet_configuration(&self) -> String {
        let v2 = cgroup::is_v2().unwrap_or(false);
        format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
             containerRuntimeEndpoint: unix://{socket}\n\
             cgroupDriver: cgroupfs\nfailCgroupV1: false\ncgroupsPerQOS: true\nenforceNodeAllocatable: []\n\
             featureGates: {{KubeletInUserNamespace: true}}\n\
             localStorageCapacityIsolation: true\nvolumePluginDir: {plugins}\n\
             evictionHard: {{memory.available: 64Mi, nodefs.available: 64Mi, imagefs.available: 64Mi}}\n\
             evictionPressureTransitionPeriod: 10s\n\
             imageGCHighThresholdPercent: 100\n\
             authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {pki}/ca.crt}}}}\n\
             authorization: {{mode: Webhook}}\n\
             tlsCertFile: {pki}/{name}.crt\ntlsPrivateKeyFile: {pki}/{name}.key\n\
             healthzPort: 10248\nreadOnlyPort: 0\nmaxPods: 110\nfailSwapOn: false\n\
             nodeStatusUpdateFrequency: 2s\nsyncFrequency: 10s\n{v1}",
            plugins = self.folder("plugins").display(),
            socket = self.layout.containerd_socket(self.name).display(),
            pki = self.layout.pki("").display().to_string().trim_end_matches('/'),
            name = self.name,
            v1 = if v2 { "" } else { "memorySwap: {}\n" },
        )
    }

    fn proxy(&self) -> Spec {
        let args = vec![
            "kube-proxy".into(),
            format!("--config={}", self.folder("proxy.yaml").display()),
            format!("--hostname-override={}", self.name),
        ];
        Spec::new(self.process("proxy"), self.layout.bin("kube"), args)
    }

    fn proxy_configuration(&self) -> String {
        format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: iptables\n\
             clientConnection: {{kubeconfig: {kubeconfig}}}\nclusterCIDR: {pods}\n\
             conntrack: {{maxPerCore: 0, min: 0, tcpCloseWaitTimeout: 0s, tcpEstablishedTimeout: 0s}}\n",
            kubeconfig = self.layout.kubeconfig("proxy").display(),
            pods = self.info.subnet.all_pods(),
        )
    }
}
