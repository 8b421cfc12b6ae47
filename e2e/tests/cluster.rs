//! The local cluster itself: it heals whatever is killed, leaves nothing behind, and refuses in one line what can't work.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use supercargo_e2e::cluster::{self, ClusterInfo, Layout, Processes, remains};
use supercargo_e2e::explain::explained;
use supercargo_e2e::{http, image, kubectl, wait};
use tempfile::TempDir;

/// A second checkout, as far as the cluster is concerned: it has the programs of this one and state of its own. A cluster
/// of this checkout can stay up beside it.
fn checkout() -> Result<(TempDir, Layout)> {
    let folder = tempfile::Builder::new().prefix("checkout-").tempdir()?;
    let layout = furnish(folder.path())?;
    Ok((folder, layout))
}

fn furnish(folder: &Path) -> Result<Layout> {
    let module = folder.join("e2e/cluster/go.mod");
    std::fs::create_dir_all(module.parent().context("it lies in a folder")?)?;
    std::fs::write(module, "")?;
    std::fs::create_dir_all(folder.join(".state"))?;
    std::os::unix::fs::symlink(Layout::here()?.state().join("bin"), folder.join(".state/bin"))?;
    Layout::of(folder)
}

/// One that has a cluster, at a fixed place: what an interrupted test leaves is taken down here, or by `make down`.
async fn second() -> Result<Layout> {
    let folder = Layout::here()?.second();
    if folder.exists() {
        cluster::down(&Layout::of(&folder)?).await?;
        std::fs::remove_dir_all(&folder)?;
    }
    furnish(&folder)
}

#[tokio::test]
async fn a_cluster_heals_whatever_is_killed_and_goes_down_with_its_pods_and_nothing_else() {
    http::install_tls();
    let (first, layout) = (Layout::here().expect("a checkout"), second().await.expect("a second checkout"));
    let neighbour = explained(&first, &["default"], Neighbour::settled(&first)).await.expect("a cluster beside it");
    let before = remains::count(&layout).expect("counts");
    let journey = explained(&layout, &["default"], heals(&layout)).await;
    let down = cluster::down(&layout).await;

    // A process's namespaces go a moment after it.
    let left = wait::until("everything to be gone", Duration::from_secs(20), || async {
        Ok(remains::left_behind(&before, &remains::count(&layout)?).is_empty().then(Vec::new))
    })
    .await;
    let left = left.unwrap_or_else(|_| remains::left_behind(&before, &remains::count(&layout).expect("counts")));
    let alone = explained(&first, &["default"], neighbour.is_left_alone()).await;
    journey.expect("the cluster heals");
    down.expect("goes down");
    println!("figure bedrock.left_behind {} things", left.iter().map(|(_, count)| count).sum::<usize>());
    assert!(left.is_empty(), "left behind: {left:?}");
    alone.expect("what is another checkout's is left alone");
    cluster::down(&layout).await.expect("going down twice is no error");
    std::fs::remove_dir_all(&layout.root).expect("the second checkout goes");
}

/// This checkout's own cluster, with a pod on each node, while another comes and goes beside it.
struct Neighbour {
    layout: Layout,
    info: ClusterInfo,
    pods: Vec<String>,
    processes: Vec<(String, Option<u32>)>,
    containers: BTreeMap<String, String>,
}

impl Neighbour {
    async fn settled(layout: &Layout) -> Result<Self> {
        let info = cluster::up(layout).await?;
        cluster::images::ensure(layout, &info, &image::write_all(layout)?)?;
        let pods = start_pods(layout, &info, "beside").await?;
        let (processes, containers) = (cluster::status(layout)?, containers(layout, &pods).await?);
        ensure!(processes.iter().all(|(_, pid)| pid.is_some()), "every process of it runs: {processes:?}");
        Ok(Self { layout: layout.clone(), info, pods, processes, containers })
    }

    /// Its processes and containers are those of before, and it does what it is there for.
    async fn is_left_alone(&self) -> Result<()> {
        let now = (cluster::status(&self.layout)?, containers(&self.layout, &self.pods).await?);
        pods_run(&self.layout, &self.info, "neighbour").await?;
        delete_pods(&self.layout, &self.pods).await?;
        ensure!(now.0 == self.processes, "the processes were {:?}, and are {:?}", self.processes, now.0);
        ensure!(now.1 == self.containers, "the containers were {:?}, and are {:?}", self.containers, now.1);
        Ok(())
    }
}

/// What of the pods runs, as their kubelets see it: each container, and how often it was started again.
async fn containers(layout: &Layout, pods: &[String]) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for pod in pods {
        let read: Value = serde_json::from_str(&kubectl::run(layout, &["get", "pod", pod, "-o", "json"]).await?)?;
        let status = &read["status"]["containerStatuses"][0];
        ensure!(status["state"]["running"].is_object(), "{pod} does not run: {}", read["status"]);
        found.insert(pod.clone(), format!("{} started {} times again", status["containerID"], status["restartCount"]));
    }
    Ok(found)
}

async fn heals(layout: &Layout) -> Result<()> {
    let info = cluster::up(layout).await?;
    let processes = Processes::new(layout);
    let ids = || -> Result<BTreeMap<String, Option<u32>>> { Ok(cluster::status(layout)?.into_iter().collect()) };
    let first = ids()?;
    cluster::up(layout).await.context("coming up again")?;
    let second = ids()?;
    ensure!(second == first && first.values().all(Option::is_some), "a healthy cluster is left as it is: {first:?}, then {second:?}");

    cluster::images::ensure(layout, &info, &image::write_all(layout)?)?;
    pods_run(layout, &info, "first").await.context("before anything is killed")?;
    kubectl::run(layout, &["create", "configmap", "kept", "--from-literal=a=b"]).await?;
    let known = remember_on_chain(layout, &info).await?;
    for name in cluster::process_names(&info) {
        let started = Instant::now();
        let pid = processes.alive(&name).with_context(|| format!("{name} runs"))?;
        ensure!(Command::new("kill").args(["-9", &pid.to_string()]).status()?.success(), "{name} is killed");
        let gone = || async { Ok(processes.alive(&name).is_none().then_some(())) };
        wait::until(format!("{name} to be gone"), Duration::from_secs(5), gone).await?;
        cluster::up(layout).await.with_context(|| format!("healing {name}"))?;
        let now = ids()?;
        ensure!(now.values().all(Option::is_some), "after {name}: {now:?}");
        ensure!(now[&name] != Some(pid), "{name} is another process");
        println!("{name} healed in {:.1} s", started.elapsed().as_secs_f32());
        pods_run(layout, &info, &name).await.with_context(|| format!("after {name} was healed"))?;
    }
    forgets_its_records(layout, &info, &processes).await?;
    let kept: Value = serde_json::from_str(&kubectl::run(layout, &["get", "configmap", "kept", "-o", "json"]).await?)?;
    ensure!(kept["data"]["a"] == "b", "etcd kept what was written: {kept}");
    let receipt = http::rpc(&info.chain_url, "eth_getTransactionReceipt", json!([known])).await?;
    ensure!(receipt["status"] == "0x1", "the chain kept the transaction: {receipt}");
    // It goes down with these.
    start_pods(layout, &info, "left").await.map(drop)
}

/// A new pod on each node comes to run: the whole way from the API server to the container.
async fn pods_run(layout: &Layout, info: &ClusterInfo, name: &str) -> Result<()> {
    let pods = start_pods(layout, info, &format!("after-{name}")).await?;
    delete_pods(layout, &pods).await
}

async fn delete_pods(layout: &Layout, pods: &[String]) -> Result<()> {
    let delete: Vec<&str> = ["delete", "pod", "--timeout=60s"].into_iter().chain(pods.iter().map(String::as_str)).collect();
    kubectl::run(layout, &delete).await.map(drop)
}

/// Their names, when they run.
async fn start_pods(layout: &Layout, info: &ClusterInfo, name: &str) -> Result<Vec<String>> {
    let pods: Vec<String> = info.nodes.iter().map(|node| format!("{name}-on-{node}")).collect();
    let objects = pods.iter().zip(&info.nodes).map(|(pod, node)| {
        let container = json!({ "name": "pause", "image": cluster::PAUSE_IMAGE, "imagePullPolicy": "Never" });
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod },
            "spec": { "nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container], "automountServiceAccountToken": false },
        })
    });
    // Its service account is made by a controller, a moment after the namespace; and what was healed may not take it at once.
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<_>>() }).to_string();
    wait::until("the pods to be taken", Duration::from_secs(30), || async { kubectl::apply(layout, &list).await.map(Some) }).await?;
    wait::until("a pod on each node to run", Duration::from_secs(60), || async {
        let listed: Value = serde_json::from_str(&kubectl::run(layout, &["get", "pods", "-o", "json"]).await?)?;
        let running =
            |pod: &&Value| pods.iter().any(|name| pod["metadata"]["name"] == name.as_str()) && pod["status"]["phase"] == "Running";
        let running = listed["items"].as_array().map_or(0, |items| items.iter().filter(running).count());
        ensure!(running == pods.len(), "{running} of {} run", pods.len());
        Ok(Some(()))
    })
    .await?;
    Ok(pods)
}

/// Without its record a process is unknown: it is ended and started again, and never runs twice.
async fn forgets_its_records(layout: &Layout, info: &ClusterInfo, processes: &Processes) -> Result<()> {
    let run = layout.cluster().join("run");
    let (kubelet, proxy) = (format!("{}-kubelet", info.nodes[0]), format!("{}-proxy", info.nodes[0]));
    let mut before = BTreeMap::new();
    for name in ["scheduler", kubelet.as_str(), proxy.as_str()] {
        before.insert(name.to_owned(), processes.alive(name).with_context(|| format!("{name} runs"))?);
    }
    std::fs::remove_file(run.join("scheduler"))?;
    std::fs::remove_file(run.join(&kubelet))?;
    std::fs::write(run.join(&proxy), "")?;
    cluster::up(layout).await.context("healing lost records")?;
    for (name, old) in before {
        ensure!(processes.alive(&name).is_some_and(|pid| pid != old), "{name} is another process");
        // One that ended and was not waited for has no command line any more.
        let command = std::fs::read(format!("/proc/{old}/cmdline")).unwrap_or_default();
        ensure!(command.is_empty(), "the {name} of before still runs: {}", String::from_utf8_lossy(&command));
    }
    pods_run(layout, info, "records").await.context("after records were lost")
}

/// A transaction that the chain has written to its disk: it writes every few seconds.
async fn remember_on_chain(layout: &Layout, info: &ClusterInfo) -> Result<Value> {
    let accounts = http::rpc(&info.chain_url, "eth_accounts", json!([])).await?;
    let transfer = json!([{"from": accounts[0], "to": accounts[1], "value": "0x1"}]);
    let transaction = http::rpc(&info.chain_url, "eth_sendTransaction", transfer).await?;
    let hash = transaction.as_str().context("a hash is a text")?.to_owned();
    wait::until("the transaction to be written", Duration::from_secs(30), || async {
        let state = std::fs::read_to_string(layout.cluster().join("chain.json"))?;
        Ok(state.contains(&hash).then_some(()))
    })
    .await?;
    Ok(transaction)
}

/// `local up` in that checkout, after `prepare` ran as a shell command in a mount namespace of its own.
fn refused_after(layout: &Layout, prepare: &str) -> Output {
    // A copy, since a user without rights can't look into everybody's build folder.
    let local = layout.root.join("local");
    std::fs::copy(env!("CARGO_BIN_EXE_local"), &local).expect("copies");
    let script = format!("set -eu; cd {root}; {prepare} {local} up", root = layout.root.display(), local = local.display());
    let limited = ["60", "unshare", "--mount", "--propagation", "private", "sh", "-c", &script];
    Command::new("timeout").args(limited).output().expect("starts")
}

fn assert_refused(layout: &Layout, output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "one line: {said}");
    for word in words {
        assert!(said.contains(word), "{word:?} in {said}");
    }
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "it is refused before anything is begun");
    let left = remains::count(layout).expect("counts");
    assert_eq!((left["processes"], left["cgroups"], left["socket folders"]), (0, 0, 0));
    assert!(!Command::new("ip").args(["link", "show", &layout.bridge()]).output().expect("ip starts").status.success(), "no bridge");
}

#[test]
fn without_root_it_says_so() {
    let (folder, layout) = checkout().expect("a checkout");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("opens the folder");
    let output = refused_after(&layout, "setpriv --reuid 65534 --regid 65534 --clear-groups");
    assert_refused(&layout, &output, &["run it as root"]);
    assert!(!layout.cluster().exists());
}

#[test]
fn without_the_right_to_write_cgroups_it_says_so() {
    let (_folder, layout) = checkout().expect("a checkout");
    let read_only =
        "for m in $(grep -oE ' /sys/fs/cgroup[^ ]* cgroup2? ' /proc/self/mounts | cut -d' ' -f2); do mount -o remount,bind,ro $m; done;";
    let output = refused_after(&layout, read_only);
    assert_refused(&layout, &output, &["cgroup", "run it as root on a machine that allows it"]);
    assert!(!layout.cluster().exists());
}

#[test]
fn with_a_disk_nearly_full_it_says_so() {
    let (_folder, layout) = checkout().expect("a checkout");
    let root = layout.root.display().to_string();
    let small = format!(
        "mkdir /tmp/copy-$$; cp -a {root}/. /tmp/copy-$$; mount -t tmpfs -o size=64m tmpfs {root}; cp -a /tmp/copy-$$/. {root}; \
         rm -r /tmp/copy-$$; cd {root};"
    );
    let output = refused_after(&layout, &small);
    assert_refused(&layout, &output, &["has 0 GiB left", "make room"]);
    assert!(!layout.cluster().exists());
}

#[test]
fn with_a_program_built_only_in_part_it_says_which_and_how_to_build_it_again() {
    let (folder, layout) = checkout().expect("a checkout");
    let (real, bin) = (Layout::here().expect("a checkout").state().join("bin"), folder.path().join(".state/bin"));
    std::fs::remove_file(&bin).expect("the link goes");
    std::fs::create_dir(&bin).expect("makes a folder");
    for program in ["kube", "containerd", "containerd-shim-runc-v2", "ctr", "helm", "anvil"] {
        std::os::unix::fs::symlink(real.join(program), bin.join(program)).expect("links");
    }
    assert_refused(&layout, &refused_after(&layout, ""), &["not built: runc", "make cluster-bin"]);
    let whole = std::fs::read(real.join("runc")).expect("reads");
    std::fs::write(bin.join("runc"), &whole[..whole.len() / 2]).expect("writes");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bin.join("runc"), open).expect("can be run");
    assert_refused(&layout, &refused_after(&layout, ""), &["built only in part", "runc && make cluster-bin"]);
}

/// As `up` would have recorded it, with this port for the chain.
fn record(layout: &Layout, version: u32, chain: u16) {
    let mut ports = serde_json::to_value(cluster::Ports::free(&layout.id).expect("free ports")).expect("a value");
    ports["chain"] = chain.into();
    let info = json!({
        "version": version, "id": layout.id, "root": layout.root, "subnet": 250, "ports": ports, "nodes": ["node-1", "node-2"], "kubeconfig": "", "auditLog": "",
        "chainUrl": "", "chainId": 1, "prometheusUrl": "",
    });
    std::fs::create_dir_all(layout.cluster()).expect("makes the folder");
    std::fs::write(layout.cluster().join("cluster.json"), info.to_string()).expect("writes");
}

#[tokio::test]
async fn with_a_port_taken_or_a_folder_of_another_version_it_says_so_and_down_clears_it() {
    let (_folder, layout) = checkout().expect("a checkout");
    let somebody = std::net::TcpListener::bind(("0.0.0.0", 0)).expect("a port");
    let port = somebody.local_addr().expect("an address").port();
    record(&layout, cluster::STATE_VERSION, port);
    assert_refused(
        &layout,
        &refused_after(&layout, ""),
        &[&format!("port {port}, which chain of this cluster had, is taken"), "`make down`"],
    );
    record(&layout, cluster::STATE_VERSION + 1, port);
    assert_refused(&layout, &refused_after(&layout, ""), &["another version of this checkout", "`make down`"]);
    cluster::down(&layout).await.expect("goes down");
    assert!(!Path::exists(&layout.cluster()));
}
