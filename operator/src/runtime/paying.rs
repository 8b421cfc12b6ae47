//! What the configuration says of chains, and of when they are paid on.

use serde::Deserialize;
use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::path::PathBuf;
use supercargo_market::money::Amount;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChainConfig {
    /// The name that pools and escrows know it by.
    pub name: String,
    pub chain_id: u64,
    /// Its endpoints. Of three, two have to say the same; one alone is believed.
    pub rpcs: Vec<String>,
    /// A chain whose last final block is older than this is not believed to be up to date.
    #[serde(default = "an_hour")]
    pub oldest_final_seconds: u32,
    /// For a chain whose endpoints don't know what a finalized block is: one with so many above it is taken for that. Where
    /// they know it, this changes nothing.
    #[serde(default)]
    pub confirmations: Option<u32>,
    /// The escrow contract's address, and the token that it holds.
    pub contract: String,
    pub token: String,
    /// The token's address: when it is given, a contract that holds another one is refused.
    #[serde(default)]
    pub token_address: Option<String>,
    /// Less than this on the hot key is too little, in a billionth of the chain's coin.
    #[serde(default = "a_hundredth_coin")]
    pub gas_alert_gwei: u64,
    /// More than this is not offered for a unit of gas: posts wait until it is cheaper. Without it, or with 0, they pay what is asked.
    #[serde(default, deserialize_with = "some_number")]
    pub max_fee_gwei: Option<NonZeroU64>,
    /// What one of the chain's coins is worth in the token, for `settlement.gasMultiple`. Nobody is asked for it.
    #[serde(default)]
    pub coin_price: Option<Amount>,
    /// Our number as a settler of that contract, and the file with its hot key.
    pub settler: u32,
    pub settler_key_file: PathBuf,
    /// The file with the password, where the key is an encrypted keystore. Without it the key is in hex.
    #[serde(default)]
    pub settler_password_file: Option<PathBuf>,
}

fn an_hour() -> u32 {
    3_600
}

fn a_hundredth_coin() -> u64 {
    10_000_000
}

fn some_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU64>, D::Error> {
    Ok(NonZeroU64::new(u64::deserialize(deserializer)?))
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settlement {
    /// How often the chain is read.
    pub poll_seconds: u64,
    /// How long charges are gathered before they are posted.
    pub post_seconds: u64,
    /// Less than this waits for more.
    pub minimum_amount: Amount,
    /// An account that owes so much, or so many charges, is posted for sooner.
    pub post_amount: Option<Amount>,
    pub post_charges: Option<u64>,
    /// When all accounts of a chain together owe one payee so much, those that owe it anything are posted for sooner.
    pub post_exposure: Option<Amount>,
    /// What is less than so many times a post's gas waits for more: by `chains[].coinPrice`. With 0 nobody reckons.
    pub gas_multiple: u64,
}

impl Default for Settlement {
    fn default() -> Self {
        Self {
            poll_seconds: 5,
            post_seconds: 3_600,
            minimum_amount: Amount::from_units(10_000),
            post_amount: None,
            post_charges: None,
            post_exposure: None,
            gas_multiple: 0,
        }
    }
}

/// The field that is wrong, and what is wrong with it.
type Wrong = (String, String);

impl ChainConfig {
    /// An endpoint that is there twice would agree with itself. Its address is not repeated here: there may be a key in it.
    pub(super) fn validate_endpoints(&self) -> Result<(), Wrong> {
        let mut known = BTreeSet::new();
        for (index, address) in self.rpcs.iter().enumerate() {
            let field = format!("rpcs[{index}]");
            let url = reqwest::Url::parse(address).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
            let Some(url) = url else { return Err((field, "must be an address such as https://rpc.example.com".to_owned())) };
            if !known.insert(url) {
                return Err((field, "the endpoint is there twice, and can't agree with itself".to_owned()));
            }
        }
        Ok(())
    }
}

/// Whoever is owed is paid at least once a month.
const MOST_POST_SECONDS: u64 = 30 * 86_400;

impl Settlement {
    pub(super) fn validate(&self, chains: &[ChainConfig]) -> Result<(), Wrong> {
        let wrong = |field: &str, message: String| Err((field.to_owned(), message));
        if self.poll_seconds == 0 {
            return wrong("pollSeconds", "must be more than 0".to_owned());
        }
        if self.post_seconds > MOST_POST_SECONDS {
            return wrong("postSeconds", format!("must be at most {MOST_POST_SECONDS}, which is 30 days"));
        }
        let nothing = Some(Amount::ZERO);
        for (field, is_nothing) in [
            ("postAmount", self.post_amount == nothing),
            ("postCharges", self.post_charges == Some(0)),
            ("postExposure", self.post_exposure == nothing),
        ] {
            if is_nothing {
                return wrong(field, "must be more than 0: leave it out to post by time alone".to_owned());
            }
        }
        match chains.iter().find(|chain| chain.coin_price.is_none_or(Amount::is_zero)) {
            Some(chain) if self.gas_multiple > 0 => {
                wrong("gasMultiple", format!("chain {} has no coinPrice to reckon what gas costs", chain.name))
            }
            _ => Ok(()),
        }
    }
}
