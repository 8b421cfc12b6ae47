//! Paying: follows accounts at finality, and brings what is owed onto the chain through the outbox. Work is paid at most
//! once by the shape of the contract, and at least once because what is signed was written down before it was sent.

#![allow(clippy::result_large_err, reason = "a chain's errors carry what the node said; none is made in a hot loop")]

mod follow;
mod outbox;
mod rail;

#[cfg(test)]
mod simulation;

use crate::runtime::config::{ChainConfig, Settlement};
use crate::runtime::telemetry::Metrics;
use crate::watch::{News, now};
use crate::world::Event;
use crate::world::records::Account;
use rail::Evm;
use std::time::Duration;
use supercargo_contracts::{Address, B256, Bytes, Chain, ChainError, PrivateKeySigner};
use supercargo_ledger::{Fence, Ledger, LedgerError};
use supercargo_market::work::FundingId;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

#[derive(Debug, thiserror::Error)]
pub enum SettlementError {
    /// Something is set up wrongly: asking again changes nothing until a person acts.
    #[error("{0}")]
    Stalled(String),
    /// The contract says no to one post: others are not held up by it.
    #[error("the contract refuses the post: {0}")]
    Refused(String),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What settlement works with.
#[derive(Clone)]
pub struct Settler {
    pub ledger: Ledger,
    pub settings: Settlement,
    /// The right to write, while this replica leads.
    pub fence: watch::Receiver<Option<Fence>>,
    /// Accounts that escrows name.
    pub accounts: watch::Receiver<Vec<FundingId>>,
    pub news: mpsc::Sender<News>,
    pub metrics: Metrics,
}

/// Serves one chain until told to stop.
pub async fn run(settler: Settler, config: ChainConfig, stop: CancellationToken) {
    let mut rail: Option<Evm> = None;
    let mut last_post = 0;
    let mut pause = tokio::time::interval(Duration::from_secs(settler.settings.poll_seconds));
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = pause.tick() => {}
        }
        if rail.is_none() {
            match connect(&config).await {
                Ok(connected) => rail = Some(connected),
                Err(error) => {
                    tracing::warn!(chain = config.name, %error, "the chain can't be used");
                    if let SettlementError::Stalled(words) = error {
                        tell_stalled(&settler, &config, &words).await;
                    }
                    continue;
                }
            }
        }
        let Some(connected) = &rail else { continue };
        if let Err(error) = turn(&settler, &config, connected, &mut last_post).await {
            // The set-up was held to the configuration when we connected: what fails here is one post or one answer, and
            // says nothing about the accounts.
            tracing::warn!(chain = config.name, %error, "settling");
        }
    }
}

/// Every account of a chain that can't be used says so.
async fn tell_stalled(settler: &Settler, config: &ChainConfig, words: &str) {
    let funds = settler.accounts.borrow().clone();
    for funding in funds.into_iter().filter(|funding| funding.account().is_some_and(|(chain, _)| chain == config.name)) {
        let account =
            Account { stalled: Some(words.to_owned()), exists: false, funded: Default::default(), tenant: String::new(), settler: 0 };
        let _ = settler.news.send(News::Event(Event::Account { funding, account })).await;
    }
}

/// One look at the chain, and one step of each open post.
async fn turn(settler: &Settler, config: &ChainConfig, rail: &Evm, last_post: &mut i64) -> Result<(), SettlementError> {
    let accounts = settler.accounts.borrow().clone();
    for funding in accounts.iter().filter(|funding| funding.account().is_some_and(|(chain, _)| chain == config.name)) {
        if let Some(account) = follow::observe(&settler.ledger, rail, config, funding).await? {
            let _ = settler.news.send(News::Event(Event::Account { funding: funding.clone(), account })).await;
        }
    }
    let Some(fence) = *settler.fence.borrow() else { return Ok(()) };
    let gas = rail.chain.gas_balance_wei(rail.signer.address()).await?;
    settler.metrics.signer_gas_gwei.set(i64::try_from(gas / 1_000_000_000).unwrap_or(i64::MAX));

    let settled = outbox::advance(&settler.ledger, fence, rail, &config.name, now()).await?;
    for post in settled {
        settler.metrics.posts.with_label_values(&["final"]).inc();
        announce(settler, &post.funding, &post.id).await?;
    }
    if now() >= *last_post + settler.settings.post_seconds.cast_signed() {
        *last_post = now();
        for funding in settler.ledger.accounts().await? {
            if funding.account().is_some_and(|(chain, _)| chain == config.name) {
                outbox::plan(&settler.ledger, fence, rail, &funding, settler.settings.minimum_amount, now()).await?;
            }
        }
        outbox::advance(&settler.ledger, fence, rail, &config.name, now()).await?;
    }
    Ok(())
}

/// Tells the world what a final post has changed.
async fn announce(settler: &Settler, funding: &FundingId, post: &str) -> Result<(), SettlementError> {
    if let Some(balance) = settler.ledger.funding(funding).await? {
        let last_post = settler.ledger.last_final(funding).await?;
        let _ = settler.news.send(News::Event(Event::Funding { funding: funding.clone(), balance, last_post })).await;
    }
    for work in settler.ledger.works_of(post).await? {
        let balance = settler.ledger.work(&work).await?;
        let _ = settler.news.send(News::Event(Event::Settled { work, balance })).await;
    }
    Ok(())
}

/// A rail that was held to the configuration: the chain's id, the contract, and our key.
async fn connect(config: &ChainConfig) -> Result<Evm, SettlementError> {
    let stalled = |words: String| SettlementError::Stalled(words);
    let url = config.rpcs.first().ok_or_else(|| stalled(format!("chain {} has no endpoint", config.name)))?;
    let chain = Chain::connect(url)?;
    let id = chain.chain_id().await?;
    if id != config.chain_id {
        return Err(stalled(format!("the endpoint of chain {} serves chain id {id}, and {} is configured", config.name, config.chain_id)));
    }
    let contract: Address = config.contract.parse().map_err(|_| stalled(format!("{:?} is not a contract's address", config.contract)))?;
    if !chain.has_code(contract).await? {
        return Err(stalled(format!("there is no contract at {contract} on chain {}", config.name)));
    }
    let signer = read_key(&config.settler_key_file)?;
    let (hot, _) = chain.settler(contract, config.settler).await.map_err(|error| match error {
        ChainError::Refused { words, .. } => stalled(format!("settler {} is not enrolled: {words}", config.settler)),
        other => SettlementError::Chain(other),
    })?;
    if hot != signer.address() {
        return Err(stalled(format!(
            "the key in {} is {}, and settler {}'s hot key is {hot}",
            config.settler_key_file.display(),
            signer.address(),
            config.settler
        )));
    }
    Ok(Evm { chain, chain_id: id, contract, signer })
}

/// The key as hex, with or without 0x. What is in the file is never printed.
fn read_key(path: &std::path::Path) -> Result<PrivateKeySigner, SettlementError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| SettlementError::Stalled(format!("reading the settler's key {}: {error}", path.display())))?;
    text.trim().parse().map_err(|_| SettlementError::Stalled(format!("{} does not hold a private key in hex", path.display())))
}

/// The account of a funding as the chain writes it.
fn account_of(funding: &FundingId) -> Result<B256, SettlementError> {
    let hex = funding.account().map(|(_, account)| account).unwrap_or_default();
    hex.parse().map_err(|_| SettlementError::Stalled(format!("{funding} names no account")))
}

/// Calldata of a post.
fn post_data(account: B256, rows: &[(u32, u64)], lines_root: [u8; 32], journal_head: [u8; 32]) -> Result<Bytes, SettlementError> {
    let rows: Option<Vec<_>> = rows.iter().map(|(payee, total)| supercargo_contracts::Row::new(*payee, u128::from(*total))).collect();
    let rows = rows.ok_or_else(|| SettlementError::Stalled("a row's total does not fit the contract".to_owned()))?;
    Ok(supercargo_contracts::calls::post_call(account, &rows, lines_root.into(), journal_head.into()))
}
