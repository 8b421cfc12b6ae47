//! Quantities of a node: what a worker takes, what is left. Nothing here ever wraps.

use super::Offer;
use super::filter::Reason;
use crate::rating::Held;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Need {
    pub(super) devices: u32,
    pub(super) pods: u32,
    pub(super) cpu_millis: u64,
    pub(super) memory_bytes: u64,
    pub(super) storage_bytes: u64,
}

impl Need {
    pub(super) fn of(held: &Held, storage_bytes: u64) -> Self {
        Self { devices: held.devices, pods: 1, cpu_millis: held.cpu_millis, memory_bytes: held.memory_bytes, storage_bytes }
    }

    pub(super) fn free_of(offer: &Offer) -> Self {
        Self {
            devices: offer.free_devices,
            pods: offer.free_pods,
            cpu_millis: offer.free_cpu_millis,
            memory_bytes: offer.free_memory_bytes,
            storage_bytes: offer.free_storage_bytes,
        }
    }

    /// What it takes of the other offers of its node: devices are each offer's own.
    pub(super) fn beside(self) -> Self {
        Self { devices: 0, ..self }
    }

    fn each(self, other: Self, wide: impl Fn(u64, u64) -> u64, narrow: impl Fn(u32, u32) -> u32) -> Self {
        Self {
            devices: narrow(self.devices, other.devices),
            pods: narrow(self.pods, other.pods),
            cpu_millis: wide(self.cpu_millis, other.cpu_millis),
            memory_bytes: wide(self.memory_bytes, other.memory_bytes),
            storage_bytes: wide(self.storage_bytes, other.storage_bytes),
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add, u32::saturating_add)
    }

    pub(super) fn minus(self, other: Self) -> Self {
        self.each(other, u64::saturating_sub, u32::saturating_sub)
    }

    /// The greater of each.
    pub(super) fn most(self, other: Self) -> Self {
        self.each(other, u64::max, u32::max)
    }

    pub(super) fn times(self, count: u32) -> Self {
        if count == 1 {
            return self;
        }
        let many = Self { devices: count, pods: count, ..Self::default() };
        let many = Self { cpu_millis: u64::from(count), memory_bytes: u64::from(count), storage_bytes: u64::from(count), ..many };
        self.each(many, u64::saturating_mul, u32::saturating_mul)
    }

    pub(super) fn fits_in(self, room: Self) -> bool {
        room.devices >= self.devices && self.shortage_beside_devices(room).is_none()
    }

    /// How often it fits, up to `most`.
    pub(super) fn copies_in(self, room: Self, most: u32) -> u32 {
        let wide = |room: u64, need: u64| room.checked_div(need).map_or(most, |times| u32::try_from(times).unwrap_or(most));
        let narrow = |room: u32, need: u32| room.checked_div(need).unwrap_or(most);
        let all = [
            narrow(room.devices, self.devices),
            narrow(room.pods, self.pods),
            wide(room.cpu_millis, self.cpu_millis),
            wide(room.memory_bytes, self.memory_bytes),
            wide(room.storage_bytes, self.storage_bytes),
        ];
        all.into_iter().fold(most, u32::min)
    }

    /// The first thing beside devices of which there is too little, in the order of the reasons.
    pub(super) fn shortage_beside_devices(self, room: Self) -> Option<Reason> {
        match () {
            () if room.cpu_millis < self.cpu_millis => Some(Reason::CpuInUse),
            () if room.memory_bytes < self.memory_bytes => Some(Reason::MemoryInUse),
            () if room.storage_bytes < self.storage_bytes => Some(Reason::StorageInUse),
            () if room.pods < self.pods => Some(Reason::PodsInUse),
            () => None,
        }
    }
}
