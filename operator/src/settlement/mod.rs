//! Paying: follows accounts at finality, and brings what is owed onto the chain through the outbox. Work is paid at most
//! once by the shape of the contract, and at least once because what is signed was written down before it was sent.

#![allow(clippy::result_large_err, reason = "a chain's errors carry what the node said; none is made in a hot loop")]

mod agree;
mod course;
mod desk;
mod due;
mod evm;
mod follow;
mod health;
mod key;
mod names;
mod outbox;
mod owners;
mod rail;
mod recheck;
mod setup;
mod steps;
mod stuck;
mod told;
mod untold;
mod vouchers;

#[cfg(test)]
mod outbox_tests;
#[cfg(test)]
mod rail_tests;
#[cfg(test)]
mod recheck_tests;
#[cfg(test)]
mod setup_tests;
#[cfg(test)]
mod simulation;

use crate::runtime::config::{ChainConfig, Settlement};
use crate::runtime::telemetry::Metrics;
use crate::watch::{News, now};
use desk::Desk;
pub use owners::Owners;
use std::collections::BTreeSet;
use std::time::Duration;
use supercargo_contracts::ChainError;
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
    /// Too few endpoints say the same: asking again may help.
    #[error("{0}")]
    Waiting(String),
    /// The signer can't pay for a transaction.
    #[error("{0}")]
    NoGas(String),
    /// A transaction would cost more than the configuration pays: asking again later helps.
    #[error("{0}")]
    FeeHigh(String),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl SettlementError {
    /// The contract's words, when it is what refuses.
    fn refusal(&self) -> Option<&str> {
        if let Self::Refused(words) = self { Some(words) } else { None }
    }

    /// For people, without an endpoint's address.
    fn briefly(&self) -> String {
        if let Self::Chain(error) = self { error.briefly() } else { self.to_string() }
    }
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
    /// Who owns which payee, for whoever asks for vouchers.
    pub owners: Owners,
    /// Whom fees go to, by the configuration.
    pub fee_payees: BTreeSet<u32>,
    pub metrics: Metrics,
}

/// A look that takes longer waits for something that does not come: at very many accounts it takes minutes.
const LONGEST_LOOK: Duration = Duration::from_secs(900);

/// Serves one chain until told to stop.
pub async fn run(settler: Settler, config: ChainConfig, stop: CancellationToken) {
    let mut pause = tokio::time::interval(Duration::from_secs(settler.settings.poll_seconds));
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut desk = Desk::new(settler, config);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = pause.tick() => {}
        }
        // Ended anywhere, a look goes on from what is in the books: a connection to them may be dead without a word.
        tokio::select! {
            () = stop.cancelled() => return,
            looked = tokio::time::timeout(LONGEST_LOOK, desk.turn(now())) => {
                if looked.is_err() {
                    tracing::error!(chain = desk.chain(), seconds = LONGEST_LOOK.as_secs(), "settling: a look did not end, and is given up");
                }
            }
        }
    }
}
