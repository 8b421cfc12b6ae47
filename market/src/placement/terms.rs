//! The terms of an offer: everything that is not the node's own. Offers on the same terms are one class, so that what
//! depends on terms alone is decided once for all of them. Packed into numbers, and unpacked for people.

use super::words::{NOTHING, Words};
use super::{Offer, Prices};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Terms {
    pub(super) pool: u32,
    pub(super) provider: u32,
    pub(super) resource: u32,
    pub(super) model: u32,
    pub(super) token: u32,
    pub(super) chain: u32,
    pub(super) region: u32,
    pub(super) zone: u32,
    /// Numbers of whole lists: there are few.
    pub(super) data_classes: u32,
    pub(super) tenancies: u32,
    pub(super) total_devices: u32,
    pub(super) replicas_per_device: u32,
    pub(super) device_memory_bytes: u64,
    pub(super) total_cpu_millis: u64,
    pub(super) total_memory_bytes: u64,
    pub(super) prices: Prices,
    pub(super) accepts_chain: bool,
    pub(super) accepts_internal: bool,
    pub(super) reputation: u8,
    /// The strongest level on offer, if there is one.
    pub(super) isolation: Option<u8>,
}

/// The texts of all terms. There are as many as there are pools, models and regions: none is ever let go.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) pools: Words,
    pub(super) providers: Words,
    pub(super) resources: Words,
    pub(super) models: Words,
    pub(super) tokens: Words,
    pub(super) chains: Words,
    pub(super) regions: Words,
    pub(super) zones: Words,
    pub(super) data_classes: Words,
    pub(super) tenancies: Words,
}

/// What stands between the words of a list; no word has it.
const BETWEEN: &str = "\n";

pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(BETWEEN).filter(|word| !word.is_empty())
}

impl Names {
    pub(super) fn pack(&mut self, offer: &Offer) -> Terms {
        let maybe = |words: &mut Words, text: &Option<String>| text.as_ref().map_or(NOTHING, |text| words.number(text));
        Terms {
            pool: self.pools.number(&offer.pool),
            provider: self.providers.number(&offer.provider),
            resource: self.resources.number(&offer.resource_name),
            model: self.models.number(&offer.model),
            token: self.tokens.number(&offer.token),
            chain: maybe(&mut self.chains, &offer.chain),
            region: maybe(&mut self.regions, &offer.region),
            zone: maybe(&mut self.zones, &offer.zone),
            data_classes: self.data_classes.number(&offer.data_classes.join(BETWEEN)),
            tenancies: self.tenancies.number(&offer.tenancies.join(BETWEEN)),
            total_devices: offer.total_devices,
            replicas_per_device: offer.replicas_per_device,
            device_memory_bytes: offer.device_memory_bytes,
            total_cpu_millis: offer.total_cpu_millis,
            total_memory_bytes: offer.total_memory_bytes,
            prices: offer.prices,
            accepts_chain: offer.accepts_chain,
            accepts_internal: offer.accepts_internal,
            reputation: offer.reputation,
            isolation: offer.isolation_levels.iter().max().copied(),
        }
    }

    /// An offer on these terms, with nothing of a node's own.
    pub(super) fn unpack(&self, terms: &Terms) -> Offer {
        let text = |words: &Words, number: u32| words.text(number).to_string();
        let maybe = |words: &Words, number: u32| (number != NOTHING).then(|| text(words, number));
        let words = |words: &Words, number: u32| list(words.text(number)).map(str::to_owned).collect();
        Offer {
            node: String::new(),
            pool: text(&self.pools, terms.pool),
            provider: text(&self.providers, terms.provider),
            resource_name: text(&self.resources, terms.resource),
            model: text(&self.models, terms.model),
            device_memory_bytes: terms.device_memory_bytes,
            free_devices: 0,
            total_devices: terms.total_devices,
            free_cpu_millis: 0,
            total_cpu_millis: terms.total_cpu_millis,
            free_memory_bytes: 0,
            total_memory_bytes: terms.total_memory_bytes,
            free_storage_bytes: 0,
            free_pods: 0,
            prices: terms.prices,
            token: text(&self.tokens, terms.token),
            accepts_chain: terms.accepts_chain,
            accepts_internal: terms.accepts_internal,
            chain: maybe(&self.chains, terms.chain),
            region: maybe(&self.regions, terms.region),
            zone: maybe(&self.zones, terms.zone),
            reputation: terms.reputation,
            replicas_per_device: terms.replicas_per_device,
            tenants: Vec::new(),
            labels: BTreeMap::new(),
            data_classes: words(&self.data_classes, terms.data_classes),
            tenancies: words(&self.tenancies, terms.tenancies),
            isolation_levels: terms.isolation.into_iter().collect(),
            closed: None,
        }
    }

    /// Grows with every text that is new: whoever compared texts before has to do it again.
    pub(super) fn version(&self) -> usize {
        let all = [&self.providers, &self.resources, &self.models, &self.tokens, &self.chains];
        let rest = [&self.regions, &self.data_classes, &self.tenancies];
        all.iter().chain(&rest).map(|words| words.len()).sum()
    }
}
