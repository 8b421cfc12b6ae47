//! The books: who put money in, what is held back for which work, what was charged, what is owed to whom, and what the
//! chain has paid. Every change is a posting: idempotent by its id, fenced by the leader's counter, and a line of a
//! hash-chained journal.

mod commit;
mod journal;
mod migrate;
mod outbox;
mod posting;
mod read;
mod verify;

pub use outbox::{Attempt, Post, PostState};
pub use posting::{Charge, Outcome, Posting};
pub use read::{FundingBalance, Lane, ReservationRow, WorkBalance};
pub use verify::Verified;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool};
use std::str::FromStr;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("the books' address {url:?} is not one: use sqlite:///path/to/books.db")]
    BadUrl { url: String, source: sqlx::Error },
    #[error("opening the books at {url}: {source}. Is the volume writable, and is it used by this operator only?")]
    Open { url: String, source: sqlx::Error },
    #[error("the books have form {theirs} and this operator knows {ours}: they were written by a newer one, which has to open them")]
    Newer { theirs: usize, ours: usize },
    #[error("{doing}: {source}")]
    Database { doing: &'static str, source: sqlx::Error },
    #[error("another replica leads: its fence is {current} and ours was {ours}")]
    Fenced { ours: i64, current: i64 },
    #[error("the books contradict themselves: {0}")]
    Broken(String),
}

impl LedgerError {
    fn database(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Database { doing, source }
    }
}

type Result<T> = std::result::Result<T, LedgerError>;

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
    pool: SqlitePool,
    journal: String,
}

impl Ledger {
    /// Opens the books, makes them when there are none, and brings older ones to this version's form.
    pub async fn open(url: &str) -> Result<Self> {
        let options = SqliteConnectOptions::from_str(url).map_err(|source| LedgerError::BadUrl { url: url.to_owned(), source })?;
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        // One connection: SQLite has one writer, and readers that never wait for it would see the past.
        let pool = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None).connect_with(options).await;
        let pool = pool.map_err(|source| LedgerError::Open { url: url.to_owned(), source })?;
        migrate::run(&pool).await?;
        let journal = Self::journal_id(&pool).await?;
        Ok(Self { pool, journal })
    }

    /// The journal's own name, drawn once: two books never have the same hashes.
    async fn journal_id(pool: &SqlitePool) -> Result<String> {
        let failed = LedgerError::database("naming the journal");
        sqlx::query("INSERT INTO facts (name, value) VALUES ('journal', lower(hex(randomblob(16)))) ON CONFLICT DO NOTHING")
            .execute(pool)
            .await
            .map_err(&failed)?;
        let row = sqlx::query("SELECT value FROM facts WHERE name = 'journal'").fetch_one(pool).await.map_err(&failed)?;
        Ok(row.get(0))
    }

    /// Begins to lead: whoever led before can't write any more.
    pub async fn take_lead(&self, holder: &str) -> Result<Fence> {
        let failed = LedgerError::database("taking the lead");
        let mut transaction = self.pool.begin().await.map_err(&failed)?;
        let raised = "INSERT INTO facts (name, value) VALUES ('fence', '1') ON CONFLICT DO UPDATE SET value = CAST(value AS INTEGER) + 1 RETURNING value";
        let value: String = sqlx::query(raised).fetch_one(&mut *transaction).await.map_err(&failed)?.get(0);
        let number = value.parse().map_err(|_| LedgerError::Broken(format!("the fence is {value:?}")))?;
        journal::append(&mut transaction, &self.journal, "lead", &serde_json::json!({ "holder": holder, "fence": number })).await?;
        transaction.commit().await.map_err(&failed)?;
        Ok(Fence(number))
    }
}

#[cfg(test)]
mod tests;
