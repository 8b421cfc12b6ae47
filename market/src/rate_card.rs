//! Rate cards: what a provider asks. A card is immutable and named by its hash; a later price is a new card, and what
//! ran under the old one keeps it.

use crate::money::Price;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Whether CPU and memory are billed as reserved or as used. Used is never above what was reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Basis {
    #[default]
    Allocated,
    Used,
}

/// The price of one unit of a resource, for one model of it or for all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    pub resource_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    pub per_hour: Price,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateCard {
    pub token: String,
    pub resources: Vec<Rate>,
    pub cpu_per_hour: Price,
    #[serde(rename = "memoryGiBPerHour")]
    pub memory_gib_per_hour: Price,
    pub basis: Basis,
    pub minimum_seconds: u32,
}

/// The SHA-256 of a card's canonical bytes: its name in attempts, charges and receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CardHash(pub [u8; 32]);

impl fmt::Display for CardHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    #[error("the card has no price for {resource_name} of model {model:?}")]
    NoPrice { resource_name: String, model: String },
    #[error("the prices of {resource_name} for {first:?} and {second:?} both match model {model:?} equally well")]
    Tie { resource_name: String, model: String, first: String, second: String },
}

/// A product name's words in lower case: `NVIDIA-H100-80GB-HBM3` has nvidia, h100, 80gb and hbm3.
pub fn model_tokens(name: &str) -> BTreeSet<String> {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_ascii_lowercase).collect()
}

/// Whether every word of `wanted` is one of `product`'s words.
pub fn model_matches(wanted: &str, product: &str) -> bool {
    let wanted = model_tokens(wanted);
    !wanted.is_empty() && wanted.is_subset(&model_tokens(product))
}

impl RateCard {
    /// Two rates of one resource that match every model equally well, so that no model will ever tell them apart: both for
    /// all models, or for the same words.
    pub fn never_apart(&self) -> Option<(usize, usize)> {
        let key = |rate: &Rate| (rate.resource_name.clone(), rate.model.as_deref().map(model_tokens));
        let mut seen: BTreeMap<_, usize> = BTreeMap::new();
        self.resources.iter().enumerate().find_map(|(index, rate)| seen.insert(key(rate), index).map(|first| (first, index)))
    }

    /// Field by field in a fixed order, each with its length before it, so that no two cards have the same bytes.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = b"supercargo.rate-card.v1".to_vec();
        let mut text = |value: &str| {
            bytes.extend((value.len() as u64).to_be_bytes());
            bytes.extend(value.as_bytes());
        };
        text(&self.token);
        text(match self.basis {
            Basis::Allocated => "Allocated",
            Basis::Used => "Used",
        });
        for number in [self.cpu_per_hour.nanos_per_hour(), self.memory_gib_per_hour.nanos_per_hour(), u64::from(self.minimum_seconds)] {
            text(&number.to_string());
        }
        for rate in &self.resources {
            text(&rate.resource_name);
            // A rate for every model is not one for a model without a name.
            text(if rate.model.is_some() { "1" } else { "0" });
            text(rate.model.as_deref().unwrap_or_default());
            text(&rate.per_hour.nanos_per_hour().to_string());
        }
        bytes
    }

    pub fn hash(&self) -> CardHash {
        CardHash(Sha256::digest(self.canonical_bytes()).into())
    }

    /// The price of one unit of a resource of a model: of the rates whose words all occur in the model's name the one
    /// with the most words, else the rate for every model. Two that match equally well are an error, not a choice.
    pub fn price_of(&self, resource_name: &str, model: &str) -> Result<Price, CardError> {
        let matching = self.resources.iter().filter(|rate| rate.resource_name == resource_name);
        let matching = matching.filter(|rate| rate.model.as_deref().is_none_or(|wanted| model_matches(wanted, model)));
        let words = |rate: &Rate| rate.model.as_deref().map_or(0, |name| model_tokens(name).len());
        let mut best: Option<&Rate> = None;
        let mut tied: Option<&Rate> = None;
        for rate in matching {
            match best {
                Some(known) if words(known) > words(rate) => {}
                Some(known) if words(known) == words(rate) => tied = Some(rate),
                _ => (best, tied) = (Some(rate), None),
            }
        }
        match (best, tied) {
            (Some(first), Some(second)) => Err(CardError::Tie {
                resource_name: resource_name.to_owned(),
                model: model.to_owned(),
                first: first.model.clone().unwrap_or_default(),
                second: second.model.clone().unwrap_or_default(),
            }),
            (Some(rate), None) => Ok(rate.per_hour),
            (None, _) => Err(CardError::NoPrice { resource_name: resource_name.to_owned(), model: model.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(resource_name: &str, model: Option<&str>, per_hour: &str) -> Rate {
        Rate { resource_name: resource_name.into(), model: model.map(Into::into), per_hour: per_hour.parse().expect("a price") }
    }

    fn card(resources: Vec<Rate>) -> RateCard {
        RateCard {
            token: "USDC".into(),
            resources,
            cpu_per_hour: Price::ZERO,
            memory_gib_per_hour: Price::ZERO,
            basis: Basis::Allocated,
            minimum_seconds: 0,
        }
    }

    #[test]
    fn the_rate_with_the_most_words_of_the_model_is_the_price() {
        let gpu = "nvidia.com/gpu";
        let card = card(vec![rate(gpu, Some("H100"), "2.10"), rate(gpu, Some("h100-HBM3"), "2.50"), rate(gpu, None, "0.60")]);
        assert_eq!(card.price_of(gpu, "NVIDIA-H100-80GB-HBM3"), "2.50".parse().map_err(|_| unreachable!()));
        assert_eq!(card.price_of(gpu, "NVIDIA-H100-PCIe"), "2.10".parse().map_err(|_| unreachable!()));
        assert_eq!(card.price_of(gpu, "Tesla-T4"), "0.60".parse().map_err(|_| unreachable!()));
        assert!(matches!(card.price_of("nvidia.com/mig-1g.10gb", ""), Err(CardError::NoPrice { .. })));
    }

    #[test]
    fn a_tie_is_refused_and_names_both() {
        let gpu = "nvidia.com/gpu";
        let card = card(vec![rate(gpu, Some("H100"), "2.10"), rate(gpu, Some("HBM3"), "2.50")]);
        let error = card.price_of(gpu, "NVIDIA-H100-80GB-HBM3").expect_err("both have one word");
        assert_eq!(
            error.to_string(),
            "the prices of nvidia.com/gpu for \"H100\" and \"HBM3\" both match model \"NVIDIA-H100-80GB-HBM3\" equally well"
        );
    }

    #[test]
    fn a_model_matches_by_whole_words_only() {
        assert!(model_matches("a100", "NVIDIA-A100-SXM4-80GB"));
        assert!(!model_matches("A10", "NVIDIA-A100-SXM4-80GB"));
        assert!(!model_matches("", "NVIDIA-A100-SXM4-80GB"));
    }

    #[test]
    fn any_change_makes_another_card() {
        let gpu = "nvidia.com/gpu";
        let one = card(vec![rate(gpu, Some("H100"), "2.10")]);
        let mut other = one.clone();
        assert_eq!(one.hash(), other.hash());
        other.minimum_seconds = 60;
        assert_ne!(one.hash(), other.hash());
        assert_ne!(one.hash(), card(vec![rate(gpu, None, "2.10")]).hash());
        assert_ne!(card(vec![rate(gpu, Some(""), "2.10")]).hash(), card(vec![rate(gpu, None, "2.10")]).hash());
    }

    #[test]
    fn a_card_keeps_its_name_for_ever() {
        let mut card = card(vec![rate("nvidia.com/gpu", Some("H100"), "2.10"), rate("nvidia.com/gpu", None, "0.60")]);
        card.minimum_seconds = 60;
        assert_eq!(card.hash().to_string(), "95d018bf840cc42a66f0c786ec6b0e8f3b705ce70802b2348606d9ab69051223");
    }

    #[test]
    fn rates_that_no_model_tells_apart_are_found() {
        let gpu = "nvidia.com/gpu";
        let found = |models: [Option<&str>; 2]| card(models.map(|model| rate(gpu, model, "1.00")).to_vec()).never_apart();
        assert_eq!(found([None, None]), Some((0, 1)));
        assert_eq!(found([Some("H100 NVIDIA"), Some("nvidia-h100")]), Some((0, 1)));
        assert_eq!(found([Some("H100"), None]), None);
        assert_eq!(found([Some("H100"), Some("HBM3")]), None);
    }
}
