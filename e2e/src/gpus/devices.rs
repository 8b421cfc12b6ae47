//! The devices themselves: how many, under which resource, and how they are.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// One simulated device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub uuid: String,
    pub index: usize,
    pub healthy: bool,
}

/// All devices of a node, by resource. A change of health is seen by whoever watches.
#[derive(Debug, Clone)]
pub struct Devices {
    state: Arc<watch::Sender<BTreeMap<String, Vec<Device>>>>,
}

impl Devices {
    /// From a description such as `nvidia.com/gpu=4,nvidia.com/mig-1g.10gb=2`.
    pub fn describe(node: &str, description: &str) -> Result<Self> {
        let mut all = BTreeMap::new();
        for part in description.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (resource, count) = part.split_once('=').with_context(|| format!("{part:?} is not RESOURCE=COUNT"))?;
            let count: usize = count.parse().with_context(|| format!("{count:?} is not a number of devices"))?;
            let devices = (0..count).map(|index| Device { uuid: uuid(node, resource, index), index, healthy: true }).collect();
            all.insert(resource.to_owned(), devices);
        }
        Ok(Self { state: Arc::new(watch::Sender::new(all)) })
    }

    pub fn resources(&self) -> Vec<String> {
        self.state.borrow().keys().cloned().collect()
    }

    pub fn of(&self, resource: &str) -> Vec<Device> {
        self.state.borrow().get(resource).cloned().unwrap_or_default()
    }

    pub fn changes(&self) -> watch::Receiver<BTreeMap<String, Vec<Device>>> {
        self.state.subscribe()
    }

    /// Makes a device ill or well. False when there is no such device.
    pub fn set_health(&self, uuid: &str, healthy: bool) -> bool {
        let mut found = false;
        self.state.send_if_modified(|all| {
            let device = all.values_mut().flatten().find(|device| device.uuid == uuid);
            found = device.is_some();
            device.is_some_and(|device| std::mem::replace(&mut device.healthy, healthy) != healthy)
        });
        found
    }
}

/// The same device has the same UUID for ever, on any machine.
fn uuid(node: &str, resource: &str, index: usize) -> String {
    let digest = hex::encode(Sha256::digest(format!("{node}/{resource}/{index}")));
    let prefix = if resource.contains("/mig-") { "MIG" } else { "GPU" };
    format!("{prefix}-{}-{}-{}-{}-{}", &digest[..8], &digest[8..12], &digest[12..16], &digest[16..20], &digest[20..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_keeps_its_uuid_and_no_two_share_one() {
        let describe = || Devices::describe("n", "nvidia.com/gpu=4,nvidia.com/mig-1g.10gb=2").expect("described");
        assert_eq!(describe().of("nvidia.com/gpu"), describe().of("nvidia.com/gpu"));
        let all: Vec<String> =
            describe().resources().iter().flat_map(|resource| describe().of(resource)).map(|device| device.uuid).collect();
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 6);
        assert!(all[0].starts_with("GPU-") && all[5].starts_with("MIG-") && all[0].len() == 40, "{all:?}");
    }

    #[test]
    fn a_description_that_is_none_is_named() {
        assert_eq!(Devices::describe("n", "gpu").expect_err("no count").to_string(), "\"gpu\" is not RESOURCE=COUNT");
        assert_eq!(Devices::describe("n", "gpu=x").expect_err("no number").to_string(), "\"x\" is not a number of devices");
    }

    #[test]
    fn a_change_of_health_is_seen_once() {
        let devices = Devices::describe("n", "nvidia.com/gpu=1").expect("described");
        let (mut changes, uuid) = (devices.changes(), devices.of("nvidia.com/gpu")[0].uuid.clone());
        assert!(devices.set_health(&uuid, false));
        assert!(changes.has_changed().expect("open"));
        changes.mark_unchanged();
        assert!(devices.set_health(&uuid, false));
        assert!(!changes.has_changed().expect("open"), "it was ill already");
        assert!(!devices.set_health("another", false));
    }
}
