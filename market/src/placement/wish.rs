//! What is asked of an offer's terms, with all comparing of texts done beforehand: whether a class is agreed to, what
//! would be held there, at which price and at which rank is then a matter of numbers. Requests that differ only in who
//! asks, or in the nodes they name, have the same wish.

use super::filter::Reason;
use super::need::Need;
use super::terms::{Names, Terms, list};
use super::words::{NOTHING, Words};
use super::{EXCLUSIVE, PRIVATE, Prices, Request, Strategy};
use crate::money::Amount;
use crate::rate_card::model_matches;
use crate::rating::{self, Held};
use std::sync::Arc;

/// A class that is agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) rank: Rank,
    /// What one worker would take.
    pub(super) need: Need,
}

/// Less is better: the region's place, the strategy's number, then the price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) region: u32,
    pub(super) strategy: u64,
    pub(super) price_units: u64,
}

#[derive(Debug)]
pub(super) struct Wish {
    request: Arc<Request>,
    /// The version of the names that the following was made with.
    made_with: usize,
    resource: u32,
    token: u32,
    chain: u32,
    own_provider: u32,
    exclusive: bool,
    private: bool,
    /// By number: whether it is acceptable.
    models: Vec<bool>,
    providers: Vec<bool>,
    data_classes: Vec<bool>,
    tenancies: Vec<bool>,
    /// By number: its place in the order of preference.
    regions: Vec<Option<u32>>,
}

impl Wish {
    /// The request without who asks and which nodes it names.
    pub(super) fn key(request: &Request) -> Request {
        Request {
            funding: crate::work::FundingId::from_stored(""),
            namespace: String::new(),
            node_selector: Default::default(),
            excluded_nodes: Vec::new(),
            only_nodes: None,
            ..request.clone()
        }
    }

    pub(super) fn new(request: Arc<Request>, names: &Names) -> Self {
        let which = |words: &Words, accepted: &dyn Fn(&str) -> bool| words.all().map(accepted).collect::<Vec<bool>>();
        let number = |words: &Words, text: Option<&String>| text.and_then(|text| words.find(text)).unwrap_or(NOTHING);
        let allowed = |name: &str| {
            let is = |known: &String| known == name;
            (request.allow_providers.is_empty() || request.allow_providers.iter().any(is)) && !request.deny_providers.iter().any(is)
        };
        let place = |name: &str| request.regions.iter().position(|region| region == name).and_then(|place| u32::try_from(place).ok());
        Self {
            made_with: names.version(),
            resource: number(&names.resources, Some(&request.resource_name)),
            token: number(&names.tokens, Some(&request.token)),
            chain: number(&names.chains, request.chain.as_ref()),
            own_provider: number(&names.providers, request.own_provider.as_ref()),
            exclusive: request.tenancy == EXCLUSIVE,
            private: request.data_class == PRIVATE,
            models: which(&names.models, &|model| {
                request.models.is_empty() || request.models.iter().any(|wanted| model_matches(wanted, model))
            }),
            providers: which(&names.providers, &allowed),
            data_classes: which(&names.data_classes, &|classes| list(classes).any(|class| class == request.data_class)),
            tenancies: which(&names.tenancies, &|tenancies| list(tenancies).any(|tenancy| tenancy == request.tenancy)),
            regions: names.regions.all().map(place).collect(),
            request,
        }
    }

    /// Compares the texts again when there are new ones.
    pub(super) fn refresh(&mut self, names: &Names) {
        if self.made_with != names.version() {
            *self = Self::new(self.request.clone(), names);
        }
    }

    /// What would be held on a class and how it ranks, or the first thing that speaks against its terms.
    pub(super) fn agrees(&self, terms: &Terms) -> Result<Agreed, Reason> {
        let request = &self.request;
        if request.devices > 0 && self.resource != terms.resource {
            return Err(Reason::ResourceNotSold);
        }
        if request.devices > 0 {
            if !self.models[terms.model as usize] {
                return Err(Reason::ModelNotWanted);
            }
            if terms.device_memory_bytes < request.device_memory_bytes {
                return Err(Reason::DeviceMemoryTooSmall);
            }
        }
        if terms.token != self.token {
            return Err(Reason::TokenNotAccepted);
        }
        let on_chain = request.chain.is_some();
        if if on_chain { !terms.accepts_chain || self.chain == NOTHING || terms.chain != self.chain } else { !terms.accepts_internal } {
            return Err(Reason::FundingNotAccepted);
        }
        if !self.providers[terms.provider as usize] {
            return Err(Reason::ProviderNotAllowed);
        }
        let region = self.regions.get(terms.region as usize).copied().flatten();
        if !request.regions.is_empty() && region.is_none() {
            return Err(Reason::RegionNotWanted);
        }
        if !self.data_classes[terms.data_classes as usize] || (self.private && terms.provider != self.own_provider) {
            return Err(Reason::DataClassNotAllowed);
        }
        if terms.isolation.is_none_or(|level| level < request.isolation_level) {
            return Err(Reason::IsolationTooWeak);
        }
        if !self.tenancies[terms.tenancies as usize] {
            return Err(Reason::TenancyNotOffered);
        }
        if terms.reputation < request.min_reputation {
            return Err(Reason::ReputationTooLow);
        }
        let need = self.need(terms);
        let price = price_per_hour(need, &terms.prices).ok_or(Reason::PriceTooHigh)?;
        if request.max_price_per_hour.is_some_and(|most| price > most) {
            return Err(Reason::PriceTooHigh);
        }
        let rank = Rank { region: region.unwrap_or(u32::MAX), strategy: self.strategy(terms, price), price_units: price.units() };
        Ok(Agreed { rank, need })
    }

    fn strategy(&self, terms: &Terms, price: Amount) -> u64 {
        let reputation = u64::from(terms.reputation.min(100));
        match self.request.strategy {
            Strategy::Cheapest => price.units(),
            Strategy::Fastest => u64::MAX - terms.device_memory_bytes,
            Strategy::Quality => 100 - reputation,
            Strategy::Balanced => price.units() / 200 * (200 - reputation),
        }
    }

    fn need(&self, terms: &Terms) -> Need {
        let request = &self.request;
        let devices = if self.exclusive { request.devices.max(terms.total_devices) } else { request.devices };
        let share = |total: u64| match (u64::from(devices.min(terms.total_devices)), u64::from(terms.total_devices)) {
            (0, _) => 0,
            (some, all) => match total.checked_mul(some) {
                Some(product) => product / all,
                None => u64::try_from(u128::from(total) * u128::from(some) / u128::from(all)).unwrap_or(total),
            },
        };
        Need {
            devices,
            pods: 1,
            cpu_millis: request.cpu_millis.unwrap_or_else(|| if devices == 0 { 1_000 } else { share(terms.total_cpu_millis) }),
            memory_bytes: request.memory_bytes.unwrap_or_else(|| if devices == 0 { 1 << 30 } else { share(terms.total_memory_bytes) }),
            storage_bytes: request.storage_bytes,
        }
    }
}

/// What one worker holds, at the prices of its place.
pub(super) fn held(need: Need, prices: &Prices) -> Held {
    Held {
        devices: need.devices,
        device_price: prices.device,
        cpu_millis: need.cpu_millis,
        cpu_price: prices.cpu,
        memory_bytes: need.memory_bytes,
        memory_gib_price: prices.memory_gib,
    }
}

/// The same as `rating::price_per_hour`, without its division of numbers of 128 bits when all are of a usual size: one
/// look at everything asks for a hundred thousand prices.
fn price_per_hour(need: Need, prices: &Prices) -> Option<Amount> {
    const USUAL_PRICE: u64 = 1 << 44;
    let (device, cpu, memory) = (prices.device.nanos_per_hour(), prices.cpu.nanos_per_hour(), prices.memory_gib.nanos_per_hour());
    let usual = device < USUAL_PRICE && cpu < USUAL_PRICE && memory < USUAL_PRICE;
    if usual && need.devices < 1 << 20 && need.cpu_millis < 1 << 40 && need.memory_bytes < 1 << 50 {
        // In nanos an hour, times a thousand (of a core) times 2^30 (bytes of a GiB): less than 2^115.
        let devices = u128::from(u64::from(need.devices) * device) * (1_000 << 30);
        let cpu = (u128::from(need.cpu_millis) * u128::from(cpu)) << 30;
        let memory = u128::from(need.memory_bytes) * u128::from(memory) * 1_000;
        // Over a million times 2^30 is over 2^36 and then over 15,625, each rounded up.
        let over_2_36 = (devices + cpu + memory + ((1 << 36) - 1)) >> 36;
        if let Ok(small) = u64::try_from(over_2_36) {
            return Some(Amount::from_units(small.div_ceil(15_625)));
        }
    }
    rating::price_per_hour(&held(need, prices)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Price;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_price_is_what_rating_says(
            devices in 0..1_u32 << 21, cpu_millis in any::<u64>(), memory_bytes in any::<u64>(), less in (0..64_u32, 0..64_u32),
            prices in (0..1_u64 << 45, 0..1_u64 << 45, 0..1_u64 << 45),
        ) {
            let price = Price::from_nanos_per_hour;
            let prices = Prices { device: price(prices.0), cpu: price(prices.1), memory_gib: price(prices.2) };
            let need = Need { devices, cpu_millis: cpu_millis >> less.0, memory_bytes: memory_bytes >> less.1, ..Need::default() };
            prop_assert_eq!(price_per_hour(need, &prices), rating::price_per_hour(&held(need, &prices)).ok());
        }
    }
}
