//! Where everything of a local cluster lies: one ignored folder in the checkout, one short folder for sockets, and the
//! record of what was chosen, so that a second `up` and every test find the same cluster.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// Rises when the layout of the state folder changes; an older folder is refused in words.
pub const STATE_VERSION: u32 = 2;

/// The folders of one checkout's cluster.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The checkout.
    pub root: PathBuf,
    /// Short and unique to the checkout: names cgroups, bridges and the socket folder.
    pub id: String,
}

impl Layout {
    /// The layout of the checkout at `root`.
    pub fn of(root: &Path) -> Result<Self> {
        let root = root.canonicalize().with_context(|| format!("finding the checkout {}", root.display()))?;
        let id = hex::encode(&Sha256::digest(root.as_os_str().as_encoded_bytes())[..4]);
        Ok(Self { root, id })
    }

    /// The layout of the checkout that this program was started in.
    pub fn here() -> Result<Self> {
        let start = std::env::current_dir().context("finding the current folder")?;
        let root = start.ancestors().find(|folder| folder.join("e2e/cluster/go.mod").is_file());
        let root = root.with_context(|| format!("{} is not inside a checkout of Supercargo", start.display()))?;
        Self::of(root)
    }

    pub fn state(&self) -> PathBuf {
        self.root.join(".state")
    }
    pub fn bin(&self, program: &str) -> PathBuf {
        self.state().join("bin").join(program)
    }
    /// Another checkout's root, as far as a cluster is concerned: for the test that kills everything of one.
    pub fn second(&self) -> PathBuf {
        self.state().join("second")
    }
    /// All that belongs to one life of the cluster; `down` removes it.
    pub fn cluster(&self) -> PathBuf {
        self.state().join("cluster")
    }
    pub fn pki(&self, file: &str) -> PathBuf {
        self.cluster().join("pki").join(file)
    }
    pub fn logs(&self, process: &str) -> PathBuf {
        self.cluster().join("logs").join(format!("{process}.log"))
    }
    pub fn node(&self, node: &str) -> PathBuf {
        self.cluster().join(node)
    }
    /// Sockets need short paths: the kernel allows 107 bytes.
    pub fn sockets(&self) -> PathBuf {
        PathBuf::from(format!("/run/supercargo-{}", self.id))
    }
    pub fn containerd_socket(&self, node: &str) -> PathBuf {
        self.sockets().join(node).join("containerd.sock")
    }
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.cluster().join(if user == "admin" { "kubeconfig".to_owned() } else { format!("kubeconfig-{user}") })
    }
    pub fn audit_log(&self) -> PathBuf {
        self.cluster().join("logs/audit.log")
    }
    fn info_file(&self) -> PathBuf {
        self.cluster().join("cluster.json")
    }
    pub fn bridge(&self) -> String {
        format!("sc{}", self.id)
    }

    /// What an earlier `up` chose, if there was one.
    pub fn read_info(&self) -> Result<Option<ClusterInfo>> {
        let file = self.info_file();
        if !file.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let value: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("{} is damaged: run `make down`, then `make up`", file.display()))?;
        let version = value["version"].as_u64().unwrap_or(0);
        ensure!(
            version == u64::from(STATE_VERSION),
            "{} was written by another version of this checkout (layout {version}, this is {STATE_VERSION}): run `make down`, then `make up`",
            self.cluster().display()
        );
        let info: ClusterInfo =
            serde_json::from_value(value).with_context(|| format!("{} is damaged: run `make down`, then `make up`", file.display()))?;
        ensure!(
            info.id == self.id && info.root == self.root,
            "{} was made in {}, and was moved or copied: run `make down`, then `make up`",
            self.cluster().display(),
            info.root.display()
        );
        Ok(Some(info))
    }

    /// The cluster that this checkout had under another path, unless it is still there: then this one is only a copy.
    pub fn before_it_was_moved(&self) -> Option<Self> {
        let recorded = |layout: &Self| -> Option<Self> {
            let value: serde_json::Value = serde_json::from_slice(&std::fs::read(layout.info_file()).ok()?).ok()?;
            let id = value["id"].as_str().filter(|id| id.len() == self.id.len() && id.chars().all(|c| c.is_ascii_hexdigit()))?;
            Some(Self { root: PathBuf::from(value["root"].as_str()?), id: id.to_owned() })
        };
        let before = recorded(self).filter(|before| before.id != self.id)?;
        let still_there = recorded(&before).is_some_and(|there| there.id == before.id);
        (!still_there).then_some(before)
    }

    /// Records what was chosen; whole or not at all.
    pub fn write_info(&self, info: &ClusterInfo) -> Result<()> {
        let file = self.info_file();
        let half = file.with_extension("json.half");
        std::fs::write(&half, serde_json::to_string_pretty(info)?).with_context(|| format!("writing {}", half.display()))?;
        std::fs::rename(&half, &file).with_context(|| format!("putting {} in place", file.display()))
    }
}

/// Writes a configuration, unless it is there already: kube-proxy ends when its own is written again, even unchanged.
pub fn write_if_changed(file: &Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(file).is_ok_and(|there| there == text) {
        return Ok(());
    }
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// What `up` chose, for the driver's next run and for whoever wants to talk to the cluster.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterInfo {
    pub version: u32,
    /// The layout that it was chosen for: a folder that was moved or copied has another.
    pub id: String,
    pub root: PathBuf,
    pub subnet: Subnet,
    pub ports: Ports,
    pub nodes: Vec<String>,
    pub kubeconfig: PathBuf,
    pub audit_log: PathBuf,
    /// Where this machine and the pods alike reach the chain and Prometheus.
    pub chain_url: String,
    pub chain_id: u64,
    pub prometheus_url: String,
}

impl ClusterInfo {
    /// The cluster of the checkout that this program was started in; an error in words when none is up.
    pub fn here() -> Result<Self> {
        Layout::here()?.read_info()?.context("no local cluster is up: run `make up`")
    }
}

/// The ports that were free when the cluster first came up.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Ports {
    pub etcd: u16,
    pub etcd_peer: u16,
    pub api: u16,
    pub controllers: u16,
    pub scheduler: u16,
    pub prometheus: u16,
    pub chain: u16,
}

/// Clusters' ports are among these.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 10_000;

impl Ports {
    /// Each port with the process that listens on it.
    pub fn by_process(&self) -> [(&'static str, u16); 7] {
        [
            ("etcd", self.etcd),
            ("etcd", self.etcd_peer),
            ("apiserver", self.api),
            ("controller-manager", self.controllers),
            ("scheduler", self.scheduler),
            ("prometheus", self.prometheus),
            ("chain", self.chain),
        ]
    }

    /// Free ones, in an order that differs from checkout to checkout; all are held at once, so that no two are equal. They are
    /// below what the kernel gives to outgoing connections: none of those ever takes the port of a process that is healed.
    pub fn free(id: &str) -> Result<Self> {
        let start = id.get(..4).and_then(|digits| u16::from_str_radix(digits, 16).ok()).context("reading the checkout's id")?;
        let candidates = (0..PORTS).map(|step| FIRST_PORT + (start % PORTS + step) % PORTS);
        let free = candidates.filter_map(|port| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok());
        let held: Vec<_> = free.take(7).collect();
        ensure!(held.len() == 7, "no seven ports of {FIRST_PORT} to {} are free: end what holds them", FIRST_PORT + PORTS - 1);
        let port = |n: usize| held[n].local_addr().map(|a| a.port()).context("reading the port that was given");
        Ok(Self {
            etcd: port(0)?,
            etcd_peer: port(1)?,
            api: port(2)?,
            controllers: port(3)?,
            scheduler: port(4)?,
            prometheus: port(5)?,
            chain: port(6)?,
        })
    }
}

/// The cluster's share of 10.0.0.0/8: one /16, named by its second number.
/// Machines are in x.0.0/24, the pods of node n in x.(16+n).0/24, services in x.128.0/20.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Subnet(pub u8);

impl Subnet {
    /// The first free one in an order that differs from checkout to checkout; `taken` are second numbers in use.
    pub fn choose(id: &str, taken: &[u8]) -> Result<Self> {
        let start = u8::from_str_radix(&id[..2], 16).context("reading the checkout's id")?;
        let candidates = (0..200u16).map(|step| 16 + ((u16::from(start) + step) % 200) as u8);
        candidates
            .into_iter()
            .find(|second| !taken.contains(second))
            .map(Self)
            .context("every network 10.16.0.0/16 to 10.215.0.0/16 is in use on this machine: take another checkout's cluster down first")
    }

    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, 0, 1)
    }
    pub fn node(self, index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, 0, 11 + index as u8)
    }
    pub fn pods(self, index: usize) -> String {
        format!("10.{}.{}.0/24", self.0, 16 + index)
    }
    pub fn all_pods(self) -> String {
        format!("10.{}.16.0/20", self.0)
    }
    pub fn services(self) -> String {
        format!("10.{}.128.0/20", self.0)
    }
    pub fn first_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, 128, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_checkouts_choose_two_subnets_and_a_taken_one_is_passed_over() {
        let first = Subnet::choose("00aaaaaa", &[]).unwrap();
        assert_ne!(first, Subnet::choose("37aaaaaa", &[]).unwrap());
        assert_eq!(Subnet::choose("00aaaaaa", &[first.0]).unwrap(), Subnet(first.0 + 1));
        assert!(Subnet::choose("00aaaaaa", &(0..=255).collect::<Vec<_>>()).is_err());
    }

    #[test]
    fn the_same_checkout_has_the_same_id() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Layout::of(folder.path()).unwrap().id, Layout::of(folder.path()).unwrap().id);
    }

    #[test]
    fn a_state_folder_of_another_version_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path()).unwrap();
        std::fs::create_dir_all(layout.cluster()).unwrap();
        std::fs::write(layout.info_file(), r#"{"version": 0}"#).unwrap();
        assert!(layout.read_info().unwrap_err().to_string().contains("run `make down`"));
        std::fs::write(layout.info_file(), "{ half").unwrap();
        assert!(layout.read_info().unwrap_err().to_string().contains("is damaged"));
    }

    #[test]
    fn a_cluster_of_another_checkout_is_refused_and_only_a_moved_one_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        std::fs::create_dir_all(&old).unwrap();
        let layout = Layout::of(&old).unwrap();
        std::fs::create_dir_all(layout.cluster()).unwrap();
        let info = ClusterInfo {
            version: STATE_VERSION,
            id: layout.id.clone(),
            root: layout.root.clone(),
            subnet: Subnet(20),
            ports: Ports::free(&layout.id).unwrap(),
            nodes: Vec::new(),
            kubeconfig: PathBuf::new(),
            audit_log: PathBuf::new(),
            chain_url: String::new(),
            chain_id: 1,
            prometheus_url: String::new(),
        };
        layout.write_info(&info).unwrap();
        assert_eq!(layout.read_info().unwrap(), Some(info));
        assert!(layout.before_it_was_moved().is_none());

        std::fs::rename(&old, &new).unwrap();
        let moved = Layout::of(&new).unwrap();
        assert!(moved.read_info().unwrap_err().to_string().contains("was moved or copied: run `make down`"));
        assert_eq!(moved.before_it_was_moved().map(|before| before.id), Some(layout.id.clone()));

        std::fs::create_dir_all(layout.cluster()).unwrap();
        std::fs::copy(moved.info_file(), layout.info_file()).unwrap();
        assert!(moved.before_it_was_moved().is_none(), "the original is still there");
    }
}
