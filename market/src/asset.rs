//! What an amount is in. The same symbol on two chains is two assets, and a grant's is neither of them.

use crate::money::AMOUNT_DECIMALS;
use crate::work::FundingId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// Where an asset moves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Rail {
    /// In the books alone: what a platform grants.
    #[default]
    Internal,
    /// On a chain, by its configured name.
    Chain(String),
}

/// Money of one kind. Its text is `chain:default/USDC/6`, its JSON an object of the three.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asset {
    pub rail: Rail,
    /// The token's symbol.
    pub id: String,
    /// Of its base unit.
    pub decimals: u32,
}

/// A text that is no asset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no asset such as \"chain:default/USDC/6\" or \"internal/USDC/6\"")]
pub struct NoAsset(String);

impl Asset {
    /// What a funding holds of a token.
    pub fn of(funding: &FundingId, token: &str) -> Self {
        Self { rail: Rail::of(funding), id: token.to_owned(), decimals: AMOUNT_DECIMALS }
    }
}

/// Nothing yet: a grant that holds no token.
impl Default for Asset {
    fn default() -> Self {
        Self { rail: Rail::Internal, id: String::new(), decimals: AMOUNT_DECIMALS }
    }
}

impl Rail {
    /// What a funding's money moves on.
    pub fn of(funding: &FundingId) -> Self {
        funding.account().map_or(Self::Internal, |(chain, _)| Self::Chain(chain.to_owned()))
    }
}

impl fmt::Display for Rail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internal => formatter.write_str("internal"),
            Self::Chain(name) => write!(formatter, "chain:{name}"),
        }
    }
}

impl fmt::Display for Asset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.rail, self.id, self.decimals)
    }
}

impl FromStr for Rail {
    type Err = NoAsset;

    fn from_str(text: &str) -> Result<Self, NoAsset> {
        match text.strip_prefix("chain:") {
            Some(name) if !name.is_empty() => Ok(Self::Chain(name.to_owned())),
            None if text == "internal" => Ok(Self::Internal),
            _ => Err(NoAsset(text.to_owned())),
        }
    }
}

impl FromStr for Asset {
    type Err = NoAsset;

    fn from_str(text: &str) -> Result<Self, NoAsset> {
        let wrong = || NoAsset(text.to_owned());
        let [rail, id, decimals] = text.split('/').collect::<Vec<_>>()[..] else { return Err(wrong()) };
        let parsed: u32 = decimals.parse().map_err(|_| wrong())?;
        // One asset has one text: no "+6", no "06".
        if id.is_empty() || parsed.to_string() != decimals {
            return Err(wrong());
        }
        Ok(Self { rail: rail.parse().map_err(|_| wrong())?, id: id.to_owned(), decimals: parsed })
    }
}

impl Serialize for Rail {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rail {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asset_has_one_text_and_one_json() {
        let chain = Asset::of(&FundingId::chain("default", "0xAA"), "USDC");
        let grant = Asset::of(&FundingId::internal("u"), "USDC");
        for (asset, text, json) in [
            (&chain, "chain:default/USDC/6", r#"{"rail":"chain:default","id":"USDC","decimals":6}"#),
            (&grant, "internal/USDC/6", r#"{"rail":"internal","id":"USDC","decimals":6}"#),
        ] {
            assert_eq!(asset.to_string(), text);
            assert_eq!(text.parse().as_ref(), Ok(asset));
            assert_eq!(serde_json::to_string(asset).unwrap(), json);
            assert_eq!(&serde_json::from_str::<Asset>(json).unwrap(), asset);
        }
    }

    #[test]
    fn the_same_symbol_elsewhere_or_with_other_decimals_is_another_asset() {
        let asset = |text: &str| text.parse::<Asset>().unwrap();
        let usdc = asset("chain:default/USDC/6");
        for other in ["chain:base/USDC/6", "internal/USDC/6", "chain:default/EURC/6", "chain:default/USDC/18"] {
            assert_ne!(asset(other), usdc, "{other}");
        }
    }

    #[test]
    fn what_is_no_asset_is_refused_in_words() {
        for wrong in [
            "USDC",
            "",
            "chain:/USDC/6",
            "bank/USDC/6",
            "internal/USDC",
            "internal//6",
            "internal/USDC/06",
            "internal/USDC/six",
            "internal/a/b/6",
        ] {
            let words = format!("{wrong:?} is no asset such as \"chain:default/USDC/6\" or \"internal/USDC/6\"");
            assert_eq!(wrong.parse::<Asset>().unwrap_err().to_string(), words);
        }
    }
}
