//! What a chain's configuration says, and whether the chain says the same: its contract, the contract's token, our key.

use super::SettlementError;
use super::evm::{EvmNode, EvmPen};
use super::owners::{self, Owners};
use super::rail::{Endpoints, Seen};
use crate::runtime::config::ChainConfig;
use std::collections::BTreeSet;
use supercargo_contracts::{Address, Chain, ChainError, PrivateKeySigner};
use supercargo_market::account::Times;

/// Every token of this version has so many decimals.
const DECIMALS: u8 = 6;

/// The endpoints of a chain, and the key that signs for it.
pub struct Wires {
    pub endpoints: Endpoints<EvmNode>,
    pub pen: EvmPen,
}

/// From the configuration alone: nothing is asked yet.
pub fn wires(config: &ChainConfig, key: PrivateKeySigner) -> Result<Wires, SettlementError> {
    let contract = address(&config.contract, "a contract's")?;
    let signer = key.address();
    let nodes: Result<Vec<EvmNode>, ChainError> =
        config.rpcs.iter().map(|url| Ok(EvmNode { chain: Chain::connect(url)?, contract, signer })).collect();
    let endpoints = Endpoints::new(nodes?).confirmed_by(config.confirmations.map(u64::from));
    let most_fee_wei = config.max_fee_gwei.map(|gwei| u128::from(gwei.get()) * 1_000_000_000);
    Ok(Wires { endpoints, pen: EvmPen { key, chain_id: config.chain_id, contract, most_fee_wei } })
}

/// How endpoints are called in words: by number and host, since the rest of an address may hold a key.
pub fn names(config: &ChainConfig) -> Vec<String> {
    let host = |url: &String| reqwest::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    config.rpcs.iter().enumerate().map(|(index, url)| format!("endpoint {} ({})", index + 1, host(url))).collect()
}

/// What can't change once it was seen: there is a contract, it holds the token that is configured, and these are its times.
pub async fn check_contract(seen: &Seen<'_, EvmNode, EvmPen>, config: &ChainConfig) -> Result<Times, SettlementError> {
    let contract = seen.pen.contract;
    let stalled = |words: String| Err(SettlementError::Stalled(words));
    let code = |node: &EvmNode| node.chain.clone();
    if !seen
        .majority("the contract's code", seen.agreeing().map(code).map(|chain| async move { Ok(chain.has_code(contract).await?) }))
        .await?
    {
        return stalled(format!("there is no contract at {contract} on chain {}", config.name));
    }
    let tokens = seen.agreeing().map(code).map(|chain| async move { said(chain.token(contract).await) });
    let token = match seen.majority("the contract's token", tokens).await? {
        Ok(token) => token,
        Err(words) => return stalled(format!("what is at {contract} on chain {} is not our contract: {words}", config.name)),
    };
    if let Some(configured) = &config.token_address {
        let configured = address(configured, "a token's")?;
        if token != configured {
            return stalled(format!("the contract on chain {} holds token {token}, and {configured} is configured", config.name));
        }
    }
    let decimals = seen.agreeing().map(code).map(|chain| async move { said(chain.token_decimals(token).await) });
    match seen.majority("the token's decimals", decimals).await? {
        Ok(DECIMALS) => {}
        Ok(decimals) => return stalled(format!("token {token} has {decimals} decimals: this version knows tokens with {DECIMALS}")),
        Err(words) => return stalled(format!("{token}, which the contract on chain {} holds, is no token: {words}", config.name)),
    }
    let times = seen.agreeing().map(code).map(|chain| async move { said(chain.window_and_thaw(contract).await) });
    match seen.majority("the contract's times", times).await? {
        Ok((window_seconds, thaw_seconds)) => Ok(Times { window_seconds, thaw_seconds }),
        Err(words) => stalled(format!("what is at {contract} on chain {} is not our contract: {words}", config.name)),
    }
}

/// Fees go to payees that the contract knows; else it is told in words. That stalls nothing: their part is kept, and everybody else
/// is paid.
pub async fn check_fees(
    seen: &Seen<'_, EvmNode, EvmPen>,
    config: &ChainConfig,
    owners: &Owners,
    payees: &BTreeSet<u32>,
) -> Result<Option<String>, SettlementError> {
    if let Some(error) = owners::learn(seen, owners, &config.name, payees).await.failed {
        return Err(error);
    }
    let unknown: Vec<String> = owners.unknown(&config.name).intersection(payees).map(u32::to_string).collect();
    let words = || {
        format!(
            "the configuration's fees.shares name payee {}, and the contract {} on chain {} knows none of that number: fees for it are \
             kept and not posted until it is registered, or another is named",
            unknown.join(", "),
            seen.pen.contract,
            config.name
        )
    };
    Ok((!unknown.is_empty()).then(words))
}

/// Our key is our settler's hot key. That may change at any time: the cold key sets another.
pub async fn check_key(seen: &Seen<'_, EvmNode, EvmPen>, config: &ChainConfig) -> Result<(), SettlementError> {
    let (contract, settler) = (seen.pen.contract, config.settler);
    let chains = seen.agreeing().map(|node| node.chain.clone());
    let hot = seen.majority("a settler", chains.map(|chain| async move { said(chain.settler(contract, settler).await) })).await?;
    let (hot, _) = hot.map_err(|words| SettlementError::Stalled(format!("settler {settler} is not enrolled: {words}")))?;
    let ours = seen.pen.key.address();
    if hot != ours {
        let file = config.settler_key_file.display();
        return Err(SettlementError::Stalled(format!("the key in {file} is {ours}, and settler {settler}'s hot key is {hot}")));
    }
    Ok(())
}

/// That a contract refuses is an answer too.
pub fn said<T>(answer: Result<T, ChainError>) -> Result<Result<T, String>, SettlementError> {
    match answer {
        Ok(value) => Ok(Ok(value)),
        Err(ChainError::Refused { words, .. }) => Ok(Err(words)),
        Err(other) => Err(other.into()),
    }
}

fn address(text: &str, whose: &str) -> Result<Address, SettlementError> {
    text.parse().map_err(|_| SettlementError::Stalled(format!("{text:?} is not {whose} address")))
}
