//! The terms of an offer: everything that is not the node's own. Offers on the same terms are one class, so that what
//! depends on terms alone is decided once for all of them. Where prices, sizes or reputations are each node's own, classes
//! are many; but the rest, the card, is as many as pools sell kinds of device. Packed into numbers, unpacked for people.

use super::words::{NOTHING, Words};
use super::{Beside, Offer, Prices};
use crate::money::Price;
use foldhash::HashMap;
use std::collections::BTreeMap;

/// What of the terms is never one node's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Card {
    pub(super) provider: u32,
    pub(super) resource: u32,
    pub(super) model: u32,
    pub(super) token: u32,
    pub(super) chain: u32,
    pub(super) region: u32,
    /// Numbers of whole lists: there are few.
    pub(super) data_classes: u32,
    pub(super) tenancies: u32,
    pub(super) device_memory_bytes: u64,
    /// Of a node's other offers. Nodes differ in it only where they sell other things.
    pub(super) beside_price: Price,
    pub(super) accepts_chain: bool,
    pub(super) accepts_internal: bool,
    /// The strongest level on offer, if there is one.
    pub(super) isolation: Option<u8>,
}

/// Small enough to lie on one line of the processor's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(align(64))]
pub(super) struct Terms {
    /// The number of its card.
    pub(super) card: u32,
    pub(super) pool: u32,
    pub(super) zone: u32,
    pub(super) total_devices: u32,
    pub(super) replicas_per_device: u32,
    pub(super) reputation: u8,
    pub(super) total_cpu_millis: u64,
    pub(super) total_memory_bytes: u64,
    pub(super) prices: Prices,
}

/// The texts of all terms, and all cards. There are as many as there are pools, models and regions: none is ever let go.
#[derive(Debug, Default)]
pub(super) struct Names {
    cards: Vec<Card>,
    card_numbers: HashMap<Card, u32>,
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
        let card = Card {
            provider: self.providers.number(&offer.provider),
            resource: self.resources.number(&offer.resource_name),
            model: self.models.number(&offer.model),
            token: self.tokens.number(&offer.token),
            chain: maybe(&mut self.chains, &offer.chain),
            region: maybe(&mut self.regions, &offer.region),
            data_classes: self.data_classes.number(&offer.data_classes.join(BETWEEN)),
            tenancies: self.tenancies.number(&offer.tenancies.join(BETWEEN)),
            device_memory_bytes: offer.device_memory_bytes,
            beside_price: offer.beside.price,
            accepts_chain: offer.accepts_chain,
            accepts_internal: offer.accepts_internal,
            isolation: offer.isolation_levels.iter().max().copied(),
        };
        Terms {
            card: self.card_number(card),
            pool: self.pools.number(&offer.pool),
            zone: maybe(&mut self.zones, &offer.zone),
            total_devices: offer.total_devices,
            replicas_per_device: offer.replicas_per_device,
            reputation: offer.reputation,
            total_cpu_millis: offer.total_cpu_millis,
            total_memory_bytes: offer.total_memory_bytes,
            prices: offer.prices,
        }
    }

    fn card_number(&mut self, card: Card) -> u32 {
        let cards = &mut self.cards;
        *self.card_numbers.entry(card).or_insert_with(|| {
            cards.push(card);
            u32::try_from(cards.len() - 1).unwrap_or(NOTHING)
        })
    }

    pub(super) fn card(&self, terms: &Terms) -> &Card {
        &self.cards[terms.card as usize]
    }

    pub(super) fn cards(&self) -> &[Card] {
        &self.cards
    }

    /// An offer on these terms, with nothing of a node's own.
    pub(super) fn unpack(&self, terms: &Terms) -> Offer {
        let text = |words: &Words, number: u32| words.text(number).to_string();
        let maybe = |words: &Words, number: u32| (number != NOTHING).then(|| text(words, number));
        let words = |words: &Words, number: u32| list(words.text(number)).map(str::to_owned).collect();
        let card = self.card(terms);
        Offer {
            node: String::new(),
            pool: text(&self.pools, terms.pool),
            provider: text(&self.providers, card.provider),
            resource_name: text(&self.resources, card.resource),
            model: text(&self.models, card.model),
            device_memory_bytes: card.device_memory_bytes,
            free_devices: 0,
            total_devices: terms.total_devices,
            free_cpu_millis: 0,
            total_cpu_millis: terms.total_cpu_millis,
            free_memory_bytes: 0,
            total_memory_bytes: terms.total_memory_bytes,
            free_storage_bytes: 0,
            free_pods: 0,
            prices: terms.prices,
            beside: Beside { price: card.beside_price, in_use: false },
            token: text(&self.tokens, card.token),
            accepts_chain: card.accepts_chain,
            accepts_internal: card.accepts_internal,
            chain: maybe(&self.chains, card.chain),
            region: maybe(&self.regions, card.region),
            zone: maybe(&self.zones, terms.zone),
            reputation: terms.reputation,
            replicas_per_device: terms.replicas_per_device,
            tenants: Vec::new(),
            labels: BTreeMap::new(),
            data_classes: words(&self.data_classes, card.data_classes),
            tenancies: words(&self.tenancies, card.tenancies),
            isolation_levels: card.isolation.into_iter().collect(),
            closed: None,
        }
    }
}
