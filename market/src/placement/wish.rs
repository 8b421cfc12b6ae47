//! What is asked of an offer's terms. Texts are compared once a card; whether a class is agreed to, what would be held
//! there, at which price and at which rank is then a matter of some numbers. Requests that differ only in who
//! asks, or in the nodes they name, have the same wish.

use super::filter::Reason;
use super::need::Need;
use super::terms::{Card, Names, Terms, list};
use super::words::{NOTHING, Words};
use super::{EXCLUSIVE, PRIVATE, Prices, Request, Strategy};
use crate::money::{Amount, Price};
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
    exclusive: bool,
    /// By card: what it comes to, or what speaks against it.
    cards: Vec<Result<Acceptable, Reason>>,
}

/// What a card that nothing speaks against comes to.
#[derive(Debug, Clone, Copy)]
struct Acceptable {
    /// The region's place.
    region: u32,
    device_memory_bytes: u64,
    /// What is paid for the node's other devices.
    beside_price: Price,
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

    pub(super) fn new(request: Arc<Request>) -> Self {
        Self { exclusive: request.tenancy == EXCLUSIVE, request, cards: Vec::new() }
    }

    /// Compares the texts of cards that are new.
    pub(super) fn refresh(&mut self, names: &Names) {
        if self.cards.len() < names.cards().len() {
            let texts = Texts::new(&self.request, names);
            let new = names.cards()[self.cards.len()..].iter().map(|card| texts.agree(&self.request, card));
            self.cards.extend(new);
        }
    }

    /// What would be held on a class and how it ranks, or the first thing that speaks against its terms.
    #[inline(always)]
    pub(super) fn agrees(&self, terms: &Terms) -> Result<Agreed, Reason> {
        let request = &self.request;
        let Acceptable { region, device_memory_bytes, beside_price } = self.cards[terms.card as usize]?;
        if terms.reputation < request.min_reputation {
            return Err(Reason::ReputationTooLow);
        }
        let need = self.need(terms);
        if need.devices > terms.total_devices {
            return Err(Reason::NodeTooSmall);
        }
        let price = price_per_hour(need, &terms.prices, beside_price).ok_or(Reason::PriceTooHigh)?;
        if request.max_price_per_hour.is_some_and(|most| price > most) {
            return Err(Reason::PriceTooHigh);
        }
        let reputation = u64::from(terms.reputation.min(100));
        let strategy = match request.strategy {
            Strategy::Cheapest => price.units(),
            Strategy::Fastest => u64::MAX - device_memory_bytes,
            Strategy::Quality => 100 - reputation,
            Strategy::Balanced => price.units() / 200 * (200 - reputation),
        };
        Ok(Agreed { rank: Rank { region, strategy, price_units: price.units() }, need })
    }

    fn need(&self, terms: &Terms) -> Need {
        let request = &self.request;
        let devices = if self.exclusive { request.devices.max(terms.total_devices) } else { request.devices };
        let share = |total: u64| match (u64::from(devices.min(terms.total_devices)), u64::from(terms.total_devices)) {
            (0, _) => 0,
            (some, all) => match total.checked_mul(some) {
                // Most nodes have a power of two: a division costs as much as everything else here.
                Some(product) if all.is_power_of_two() => product >> all.trailing_zeros(),
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

/// A request's texts compared with all that there are, so that a card is a matter of numbers.
struct Texts {
    resource: u32,
    token: u32,
    chain: u32,
    own_provider: u32,
    /// By number: whether it is acceptable.
    models: Vec<bool>,
    providers: Vec<bool>,
    data_classes: Vec<bool>,
    tenancies: Vec<bool>,
    /// By number: its place in the order of preference.
    regions: Vec<Option<u32>>,
}

impl Texts {
    fn new(request: &Request, names: &Names) -> Self {
        let which = |words: &Words, accepted: &dyn Fn(&str) -> bool| words.all().map(accepted).collect::<Vec<bool>>();
        let number = |words: &Words, text: Option<&String>| text.and_then(|text| words.find(text)).unwrap_or(NOTHING);
        let allowed = |name: &str| {
            let is = |known: &String| known == name;
            (request.allow_providers.is_empty() || request.allow_providers.iter().any(is)) && !request.deny_providers.iter().any(is)
        };
        let place = |name: &str| request.regions.iter().position(|region| region == name).and_then(|place| u32::try_from(place).ok());
        Self {
            resource: number(&names.resources, Some(&request.resource_name)),
            token: number(&names.tokens, Some(&request.token)),
            chain: number(&names.chains, request.chain.as_ref()),
            own_provider: number(&names.providers, request.own_provider.as_ref()),
            models: which(&names.models, &|model| {
                request.models.is_empty() || request.models.iter().any(|wanted| model_matches(wanted, model))
            }),
            providers: which(&names.providers, &allowed),
            data_classes: which(&names.data_classes, &|classes| list(classes).any(|class| class == request.data_class)),
            tenancies: which(&names.tenancies, &|tenancies| list(tenancies).any(|tenancy| tenancy == request.tenancy)),
            regions: names.regions.all().map(place).collect(),
        }
    }

    fn agree(&self, request: &Request, card: &Card) -> Result<Acceptable, Reason> {
        if request.devices > 0 {
            if card.resource != self.resource {
                return Err(Reason::ResourceNotSold);
            }
            if !self.models[card.model as usize] {
                return Err(Reason::ModelNotWanted);
            }
            if card.device_memory_bytes < request.device_memory_bytes {
                return Err(Reason::DeviceMemoryTooSmall);
            }
        }
        if card.token != self.token {
            return Err(Reason::TokenNotAccepted);
        }
        let on_chain = card.accepts_chain && self.chain != NOTHING && card.chain == self.chain;
        if if request.chain.is_some() { !on_chain } else { !card.accepts_internal } {
            return Err(Reason::FundingNotAccepted);
        }
        if !self.providers[card.provider as usize] {
            return Err(Reason::ProviderNotAllowed);
        }
        let region = self.regions.get(card.region as usize).copied().flatten();
        if !request.regions.is_empty() && region.is_none() {
            return Err(Reason::RegionNotWanted);
        }
        let elsewhere = request.data_class == PRIVATE && card.provider != self.own_provider;
        if !self.data_classes[card.data_classes as usize] || elsewhere {
            return Err(Reason::DataClassNotAllowed);
        }
        if card.isolation.is_none_or(|level| level < request.isolation_level) {
            return Err(Reason::IsolationTooWeak);
        }
        if !self.tenancies[card.tenancies as usize] {
            return Err(Reason::TenancyNotOffered);
        }
        Ok(Acceptable {
            region: region.unwrap_or(u32::MAX),
            device_memory_bytes: card.device_memory_bytes,
            beside_price: super::beside_price(request, card.beside_price),
        })
    }
}

/// What one worker holds, at the prices of its place.
pub(super) fn held(need: Need, prices: &Prices, beside_price: Price) -> Held {
    Held {
        devices: need.devices,
        device_price: prices.device,
        cpu_millis: need.cpu_millis,
        cpu_price: prices.cpu,
        memory_bytes: need.memory_bytes,
        memory_gib_price: prices.memory_gib,
        beside_price,
    }
}

/// The same as `rating::price_per_hour`, without its division of numbers of 128 bits when all are of a usual size: one
/// look at everything asks for a hundred thousand prices.
fn price_per_hour(need: Need, prices: &Prices, beside_price: Price) -> Option<Amount> {
    const USUAL_PRICE: u64 = 1 << 44;
    let (device, cpu, memory) = (prices.device.nanos_per_hour(), prices.cpu.nanos_per_hour(), prices.memory_gib.nanos_per_hour());
    let beside = beside_price.nanos_per_hour();
    let usual = device < USUAL_PRICE && cpu < USUAL_PRICE && memory < USUAL_PRICE && beside < USUAL_PRICE;
    if usual && need.devices < 1 << 20 && need.cpu_millis < 1 << 40 && need.memory_bytes < 1 << 50 {
        // In nanos an hour, times a thousand (of a core) times 2^30 (bytes of a GiB): less than 2^115, so that nothing
        // wraps, and nothing has to be looked at for wrapping.
        let times = |quantity: u64, price: u64| u128::from(quantity).wrapping_mul(u128::from(price));
        let devices = times(u64::from(need.devices), device).wrapping_add(u128::from(beside)).wrapping_mul(1_000) << 30;
        let cpu = times(need.cpu_millis, cpu) << 30;
        let memory = times(need.memory_bytes, memory).wrapping_mul(1_000);
        // Over a million times 2^30 is over 2^36 and then over 15,625, each rounded up.
        let over_2_36 = devices.wrapping_add(cpu).wrapping_add(memory).wrapping_add((1 << 36) - 1) >> 36;
        if let Ok(small) = u64::try_from(over_2_36) {
            return Some(Amount::from_units(small.div_ceil(15_625)));
        }
    }
    rating::price_per_hour(&held(need, prices, beside_price)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_price_is_what_rating_says(
            devices in 0..1_u32 << 21, cpu_millis in any::<u64>(), memory_bytes in any::<u64>(), less in (0..64_u32, 0..64_u32),
            prices in (0..1_u64 << 45, 0..1_u64 << 45, 0..1_u64 << 45, 0..1_u64 << 45),
        ) {
            let price = Price::from_nanos_per_hour;
            let beside = price(prices.3);
            let prices = Prices { device: price(prices.0), cpu: price(prices.1), memory_gib: price(prices.2) };
            let need = Need { devices, cpu_millis: cpu_millis >> less.0, memory_bytes: memory_bytes >> less.1, ..Need::default() };
            prop_assert_eq!(price_per_hour(need, &prices, beside), rating::price_per_hour(&held(need, &prices, beside)).ok());
        }
    }
}
