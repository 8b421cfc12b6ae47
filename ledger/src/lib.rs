//! The books: who put money in, what is held back for which work, what was charged, what is owed to whom, and what the
//! chain has paid. Every change is a posting: idempotent by its id, fenced by the leader's counter, and a line of a
//! hash-chained journal.

mod backup;
mod batch;
mod commit;
mod error;
mod export;
mod group;
mod journal;
mod key;
mod kin;
mod migrate;
mod outbox;
mod owners;
mod plan;
mod posting;
mod read;
mod reader;
mod receipt;
mod rows;
mod signers;
mod store;
mod undone;
mod verify;
mod vouchers;
mod working;

pub use backup::Copied;
pub use error::LedgerError;
pub use export::verify_export;
pub use key::{JournalKey, KeyError};
pub use outbox::{Attempt, Post, PostState};
pub use posting::{Charge, LaneCases, Outcome, Posting};
pub use read::{Family, FundingBalance, Lane, ReservationRow, WorkBalance};
pub use reader::{Reader, restore};
pub use rows::Room;
pub use store::{sibling, sqlite_path};
pub use verify::{Expect, Verified};
pub use vouchers::{Voucher, VoucherTerms};

use error::Result;
use group::Writer;
use sqlx::AnyPool;
use std::fs::File;
use std::sync::Arc;
use store::Store;

const TAKING: &str = "taking the lead";

/// The right to write: the counter that its holder raised when it began to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence(i64);

impl Fence {
    pub fn number(self) -> i64 {
        self.0
    }
}

/// The books, open. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: Arc<Store>,
    writer: Writer,
    /// Held as long as anybody holds the books.
    _lock: Option<Arc<File>>,
}

impl Ledger {
    /// Opens the books at `sqlite:` or `postgres:`, makes them when there are none, and brings older ones to this version's
    /// form. Their journal is chained by hashes and signed by nobody.
    pub async fn open(url: &str) -> Result<Self> {
        Self::open_with(url, None).await
    }

    /// The same, and the key signs the last entry of each transaction.
    pub async fn open_signed(url: &str, key: JournalKey) -> Result<Self> {
        Self::open_with(url, Some(key)).await
    }

    async fn open_with(url: &str, key: Option<JournalKey>) -> Result<Self> {
        let lock = store::lock(url)?.map(Arc::new);
        Ok(Self::of(Store::open(url, key).await?, lock))
    }

    fn of(store: Store, lock: Option<Arc<File>>) -> Self {
        let store = Arc::new(store);
        Self { writer: Writer::start(Arc::clone(&store)), store, _lock: lock }
    }

    fn pool(&self) -> &AnyPool {
        &self.store.pool
    }

    /// Begins to lead: whoever led before can't write any more.
    pub async fn take_lead(&self, holder: &str) -> Result<Fence> {
        self.store.in_time(TAKING, self.raise_fence(holder)).await
    }

    async fn raise_fence(&self, holder: &str) -> Result<Fence> {
        let mut writing = self.store.begin_writing().await?;
        let number = writing.mark.fence + 1;
        let raise = sqlx::query("UPDATE facts SET value = $1 WHERE name = 'fence'").bind(number.to_string());
        raise.execute(&mut *writing.transaction).await.map_err(LedgerError::database(TAKING))?;
        self.store.append(&mut writing, "lead", &[serde_json::json!({ "holder": holder, "fence": number })]).await?;
        writing.commit(TAKING).await?;
        Ok(Fence(number))
    }
}

#[cfg(test)]
mod tests;
