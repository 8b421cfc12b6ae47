//! The devices themselves: how many, under which resource, and how they are.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;

/// One simulated device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub uuid: String,
    pub index: usize,
    pub healthy: bool,
    /// It is said to be healthy, and all the same nobody can be given it.
    pub stuck: bool,
    /// What it is a slice of, for a MIG device.
    pub slice: Option<Slice>,
}

/// Where a MIG device is: an instance of its own on a GPU that is in MIG mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    pub profile: Profile,
    pub gpu_index: usize,
    pub gpu_uuid: String,
    pub instance: usize,
}

/// The size of a MIG device, such as `1g.10gb`: so many sevenths of a GPU's processors, so much memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    pub slices: u64,
    pub gigabytes: u64,
}

impl Profile {
    pub fn mebibytes(self) -> u64 {
        self.gigabytes * 1024
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}g.{}gb", self.slices, self.gigabytes)
    }
}

/// A GPU has so many slices.
const SLICES: u64 = 7;
pub const GPU: &str = "nvidia.com/gpu";
const MIG: &str = "nvidia.com/mig-";

/// The profile of a resource such as `nvidia.com/mig-1g.10gb`; of any other none.
pub fn profile(resource: &str) -> Result<Option<Profile>> {
    let Some(name) = resource.strip_prefix(MIG) else { return Ok(None) };
    let read = || {
        let (slices, memory) = name.split_once("g.")?;
        let (slices, gigabytes) = (slices.parse().ok()?, memory.strip_suffix("gb")?.parse().ok()?);
        (1..=SLICES).contains(&slices).then_some(Profile { slices, gigabytes })
    };
    read().map(Some).with_context(|| format!("{name:?} is not a MIG profile such as 1g.10gb"))
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
            all.insert(resource.to_owned(), (profile(resource)?, count));
        }
        // GPUs in MIG mode come after the whole ones, each with slices of one size.
        let mut gpus: usize = all.values().filter(|(profile, _)| profile.is_none()).map(|(_, count)| count).sum();
        let mut devices = BTreeMap::new();
        for (resource, (profile, count)) in all {
            let per_gpu = profile.map_or(1, |profile| (SLICES / profile.slices) as usize);
            let slice = |index: usize| {
                let (gpu_index, instance) = (gpus + index / per_gpu, 1 + index % per_gpu);
                profile.map(|profile| Slice { profile, gpu_index, gpu_uuid: uuid(node, GPU, gpu_index), instance })
            };
            let device = |index| Device { uuid: uuid(node, &resource, index), index, healthy: true, stuck: false, slice: slice(index) };
            let those: Vec<Device> = (0..count).map(device).collect();
            gpus += profile.map_or(0, |_| count.div_ceil(per_gpu));
            devices.insert(resource, those);
        }
        Ok(Self { state: Arc::new(watch::Sender::new(devices)) })
    }

    /// How many GPUs the node has, whole or in slices.
    pub fn gpus(&self) -> usize {
        let state = self.state.borrow();
        let sliced = state.values().flatten().filter_map(|device| device.slice.as_ref().map(|slice| slice.gpu_index));
        let whole = state.values().flatten().filter(|device| device.slice.is_none()).count();
        whole + sliced.collect::<BTreeSet<_>>().len()
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

    /// Makes a device ill or well, or all slices of a GPU. False when there is no such device.
    pub fn set_health(&self, uuid: &str, healthy: bool) -> bool {
        self.set(uuid, healthy, false)
    }

    /// Nobody can be given it from now on, and nothing says so beforehand.
    pub fn stick(&self, uuid: &str) -> bool {
        self.set(uuid, true, true)
    }

    fn set(&self, uuid: &str, healthy: bool, stuck: bool) -> bool {
        let mut found = false;
        self.state.send_if_modified(|all| {
            let mut changed = false;
            let is_it = |device: &Device| device.uuid == uuid || device.slice.as_ref().is_some_and(|slice| slice.gpu_uuid == uuid);
            for device in all.values_mut().flatten().filter(|device| is_it(device)) {
                found = true;
                changed |= std::mem::replace(&mut device.healthy, healthy) != healthy;
                device.stuck = stuck;
            }
            changed
        });
        found
    }
}

/// The same device has the same UUID for ever, on any machine.
fn uuid(node: &str, resource: &str, index: usize) -> String {
    let digest = hex::encode(Sha256::digest(format!("{node}/{resource}/{index}")));
    let prefix = if resource.starts_with(MIG) { "MIG" } else { "GPU" };
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
        for name in ["1g", "1g.x", "8g.80gb", "g.10gb", "1g.10gb.me"] {
            let error = Devices::describe("n", &format!("nvidia.com/mig-{name}=1")).expect_err("no profile").to_string();
            assert_eq!(error, format!("{name:?} is not a MIG profile such as 1g.10gb"));
        }
    }

    #[test]
    fn slices_are_on_gpus_of_their_own_seven_to_a_gpu_at_most() {
        let devices = Devices::describe("n", "nvidia.com/gpu=2,nvidia.com/mig-1g.10gb=8,nvidia.com/mig-3g.40gb=3").expect("described");
        let places = |resource: &str| -> Vec<(usize, usize)> {
            devices.of(resource).iter().filter_map(|device| device.slice.as_ref()).map(|slice| (slice.gpu_index, slice.instance)).collect()
        };
        assert_eq!(places("nvidia.com/gpu"), []);
        assert_eq!(places("nvidia.com/mig-1g.10gb"), [(2, 1), (2, 2), (2, 3), (2, 4), (2, 5), (2, 6), (2, 7), (3, 1)]);
        assert_eq!(places("nvidia.com/mig-3g.40gb"), [(4, 1), (4, 2), (5, 1)]);
        assert_eq!(devices.gpus(), 6);
    }

    #[test]
    fn a_gpu_that_falls_ill_takes_all_its_slices_with_it() {
        let devices = Devices::describe("n", "nvidia.com/gpu=1,nvidia.com/mig-3g.40gb=3").expect("described");
        let slices = || devices.of("nvidia.com/mig-3g.40gb");
        let gpu = slices()[0].slice.clone().expect("a slice").gpu_uuid;
        assert!(gpu.starts_with("GPU-") && devices.set_health(&gpu, false));
        assert_eq!(slices().iter().map(|device| device.healthy).collect::<Vec<_>>(), [false, false, true]);
        assert!(devices.of("nvidia.com/gpu")[0].healthy);
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
