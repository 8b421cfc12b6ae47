//! Where the books are: SQLite or PostgreSQL, by URL. Both speak the same SQL here. What only one of them has is in this
//! file and in `migrate`.

use crate::key::JournalKey;
use crate::{Fence, LedgerError, Result, migrate};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{Any, AnyConnection, AnyPool, Connection, Executor, Row, Transaction};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use supercargo_market::journal::{GENESIS, Hash};

/// So long a write waits for somebody else's lock.
const LOCK_WAIT_MILLISECONDS: u64 = 5_000;
/// So long we wait for a server to answer.
const CONNECT_SECONDS: u64 = 10;
/// So long a server may take to say that a connection is as it was, when somebody gives it back. Whoever gave up what he asked of
/// it gives it back in the middle of that; a server that is gone without hanging up would keep its place in the pool.
const GIVE_BACK: Duration = Duration::from_secs(1);
/// So long a transaction of postings may take. A server's machine may be gone without hanging up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    fn of(url: &str) -> Option<Self> {
        match url.split_once(':')?.0 {
            "sqlite" => Some(Self::Sqlite),
            "postgres" | "postgresql" => Some(Self::Postgres),
            _ => None,
        }
    }

    /// SQLite's IMMEDIATE takes the writer's place at once: nobody changes the fence between the look and the commit.
    fn begin_writing(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// All that is read inside is of one moment.
    fn begin_reading(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// In PostgreSQL the fence's row is what writers wait for each other at.
    fn facts_for_writing(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT name, value FROM facts WHERE name IN ('fence', 'head')",
            Self::Postgres => "SELECT name, value FROM facts WHERE name IN ('fence', 'head') ORDER BY name FOR UPDATE",
        }
    }

    /// What is set on every connection. An answer means that it is on the disk, whatever the server's own defaults are.
    fn settings(self, access: Access) -> String {
        match (self, access) {
            (Self::Sqlite, Access::Write) => format!(
                "PRAGMA busy_timeout = {LOCK_WAIT_MILLISECONDS}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                 PRAGMA foreign_keys = ON; PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 16384; \
                 PRAGMA temp_store = MEMORY;"
            ),
            (Self::Sqlite, Access::Read) => format!("PRAGMA busy_timeout = {LOCK_WAIT_MILLISECONDS}; PRAGMA query_only = ON;"),
            (Self::Postgres, Access::Write) => format!(
                "SET synchronous_commit = on; SET lock_timeout = {LOCK_WAIT_MILLISECONDS}; SET idle_in_transaction_session_timeout = 30000"
            ),
            (Self::Postgres, Access::Read) => "SET default_transaction_read_only = on".to_owned(),
        }
    }

    /// A connection that does not answer when it comes back is closed, and its place is free at once. One to SQLite always answers,
    /// and books in memory are gone with it.
    fn takes_back(self, pool: AnyPoolOptions) -> AnyPoolOptions {
        match self {
            Self::Sqlite => pool,
            Self::Postgres => pool.after_release(|connection, _| {
                Box::pin(async move {
                    if tokio::time::timeout(GIVE_BACK, connection.ping()).await.is_ok_and(|answer| answer.is_ok()) {
                        return Ok(true);
                    }
                    // Whoever closes it in order waits until all is sent that was to be. Its socket goes at once when nobody has it
                    // any more, and something has to stand in its place.
                    *connection = AnyConnection::connect("sqlite::memory:").await?;
                    Ok(false)
                })
            }),
        }
    }

    /// SQLite has one writer, and readers that never wait for it would see the past.
    fn connections(self) -> u32 {
        match self {
            Self::Sqlite => 1,
            Self::Postgres => 8,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// An open database that has this version's form.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) pool: AnyPool,
    pub(crate) dialect: Dialect,
    /// The journal's own name.
    pub(crate) journal: String,
    pub(crate) key: Option<JournalKey>,
    pub(crate) patience: Duration,
}

impl Store {
    pub(crate) async fn connect(url: &str, access: Access) -> Result<(AnyPool, Dialect)> {
        sqlx::any::install_default_drivers();
        let dialect = Dialect::of(url).ok_or_else(|| LedgerError::BadUrl { url: hidden(url) })?;
        let address = if dialect == Dialect::Sqlite { with_mode(url, access) } else { url.to_owned() };
        let options = AnyConnectOptions::from_str(&address).map_err(|_| LedgerError::BadUrl { url: hidden(url) })?;
        let failed = |source| match LedgerError::database("opening the books")(source) {
            LedgerError::Database { source, .. } => LedgerError::Open { url: hidden(url), source },
            known => known,
        };
        let settings: Arc<str> = dialect.settings(access).into();
        // The first one by hand: a pool would try again and again, and hide what a database says of a wrong address.
        let first = async {
            let mut connection = AnyConnection::connect_with(&options).await?;
            connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(&*settings))).await?;
            connection.close().await
        };
        let first = tokio::time::timeout(Duration::from_secs(CONNECT_SECONDS), first).await;
        first.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(failed)?;
        let options_of_pool = AnyPoolOptions::new()
            .max_connections(dialect.connections())
            .acquire_timeout(Duration::from_secs(CONNECT_SECONDS))
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(move |connection, _| {
                let settings = Arc::clone(&settings);
                Box::pin(async move { connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(&*settings))).await.map(drop) })
            });
        let pool = dialect.takes_back(options_of_pool).connect_with(options).await.map_err(failed)?;
        Ok((pool, dialect))
    }

    /// To write: makes the books when there are none, and brings older ones to this version's form.
    pub(crate) async fn open(url: &str, key: Option<JournalKey>) -> Result<Self> {
        let (pool, dialect) = Self::connect(url, Access::Write).await?;
        migrate::run(&pool, dialect).await?;
        let journal = journal_id(&pool).await?;
        Ok(Self { pool, dialect, journal, key, patience: PATIENCE })
    }

    /// To read only, beside an operator that may be writing.
    pub(crate) async fn open_to_read(url: &str) -> Result<Self> {
        let (pool, dialect) = Self::connect(url, Access::Read).await?;
        migrate::check(&pool, dialect).await?;
        let journal = fact(&pool, "journal").await?.ok_or_else(|| LedgerError::Broken("the journal has no name".to_owned()))?;
        Ok(Self { pool, dialect, journal, key: None, patience: PATIENCE })
    }

    /// What the database has to answer in time. What is given up leaves a connection that nobody uses again before it answers, and
    /// that is closed when it does not do so soon.
    pub(crate) async fn in_time<T>(&self, doing: &'static str, asked: impl Future<Output = Result<T>>) -> Result<T> {
        let answered = tokio::time::timeout(self.patience, asked).await;
        answered.unwrap_or(Err(LedgerError::Silent { doing, seconds: self.patience.as_secs() }))
    }

    /// A transaction of the only writer.
    pub(crate) async fn begin_writing(&self) -> Result<Writing> {
        let mut transaction =
            self.pool.begin_with(self.dialect.begin_writing()).await.map_err(LedgerError::database("beginning a transaction"))?;
        let mark = Mark::read(&mut transaction, self.dialect.facts_for_writing()).await?;
        Ok(Writing { transaction, mark })
    }

    /// A transaction that only the leader gets.
    pub(crate) async fn begin(&self, ours: Fence) -> Result<Writing> {
        let writing = self.begin_writing().await?;
        let current = writing.mark.fence;
        if current == ours.0 { Ok(writing) } else { Err(LedgerError::Fenced { ours: ours.0, current }) }
    }

    pub(crate) async fn begin_reading(&self) -> Result<Transaction<'static, Any>> {
        self.pool.begin_with(self.dialect.begin_reading()).await.map_err(LedgerError::database("beginning to read"))
    }
}

/// A transaction that holds the writer's place, with what it found there.
pub(crate) struct Writing {
    pub(crate) transaction: Transaction<'static, Any>,
    pub(crate) mark: Mark,
}

impl Writing {
    pub(crate) async fn commit(self, doing: &'static str) -> Result<()> {
        self.transaction.commit().await.map_err(LedgerError::database(doing))
    }
}

/// How far the books have come: whatever is written moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) fence: i64,
    pub(crate) head: Head,
}

impl Mark {
    async fn read(connection: &mut AnyConnection, query: &'static str) -> Result<Self> {
        let mut mark = Self { fence: 0, head: Head::default() };
        for row in sqlx::query(query).fetch_all(connection).await.map_err(LedgerError::database("reading the fence"))? {
            let value: String = row.get(1);
            match row.get(0) {
                "fence" => mark.fence = value.parse().map_err(|_| LedgerError::Broken(format!("the fence is {value:?}")))?,
                _ => mark.head = Head::parse(&value)?,
            }
        }
        Ok(mark)
    }
}

/// The journal's last entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) sequence: u64,
    pub(crate) hash: Hash,
}

impl Default for Head {
    fn default() -> Self {
        Self { sequence: 0, hash: GENESIS }
    }
}

impl Head {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let broken = || LedgerError::Broken(format!("the journal's head {text:?} can't be read"));
        let (sequence, hash) = text.split_once(':').ok_or_else(broken)?;
        let hash = hex::decode(hash).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(broken)?;
        Ok(Self { sequence: sequence.parse().map_err(|_| broken())?, hash })
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.sequence, hex::encode(self.hash))
    }
}

pub(crate) async fn fact(pool: &AnyPool, name: &str) -> Result<Option<String>> {
    let row = sqlx::query("SELECT value FROM facts WHERE name = $1").bind(name.to_owned()).fetch_optional(pool).await;
    Ok(row.map_err(LedgerError::database("reading a fact of the books"))?.map(|row| row.get(0)))
}

/// The journal's own name, drawn once: two books never have the same hashes. The fence and the head are there from the
/// beginning, because writers wait for each other at their rows.
async fn journal_id(pool: &AnyPool) -> Result<String> {
    let failed = LedgerError::database("naming the journal");
    sqlx::query("INSERT INTO facts (name, value) VALUES ('journal', $1), ('fence', '0'), ('head', $2) ON CONFLICT (name) DO NOTHING")
        .bind(hex::encode(crate::key::random::<16>()))
        .bind(Head::default().to_string())
        .execute(pool)
        .await
        .map_err(&failed)?;
    fact(pool, "journal").await?.ok_or_else(|| LedgerError::Broken("the journal has no name".to_owned()))
}

/// A password is no part of an error's words.
fn hidden(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    match rest.split_once('@') {
        Some((user, host)) => format!("{scheme}://{}@{host}", user.split(':').next().unwrap_or_default()),
        None => url.to_owned(),
    }
}

/// The file of a SQLite address; `None` for books in memory and for PostgreSQL.
pub fn sqlite_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    let (path, options) = path.split_once('?').unwrap_or((path, ""));
    (path != ":memory:" && !options.contains("mode=memory")).then(|| PathBuf::from(path))
}

fn with_mode(url: &str, access: Access) -> String {
    if url.contains("mode=") || sqlite_path(url).is_none() {
        return url.to_owned();
    }
    let mode = if access == Access::Write { "mode=rwc" } else { "mode=rw" };
    format!("{url}{}{mode}", if url.contains('?') { '&' } else { '?' })
}

/// Says to every other operator that a SQLite file is in use, for as long as the value lives or the process does.
pub(crate) fn lock(url: &str) -> Result<Option<File>> {
    let Some(books) = sqlite_path(url) else { return Ok(None) };
    let path = sibling(&books, "lock");
    let failed = |source| LedgerError::LockFile { path: path.clone(), source: Arc::new(source) };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(LedgerError::InUse { path: books }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// A file beside the books, named after them.
pub fn sibling(books: &Path, ending: &str) -> PathBuf {
    let mut name = books.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}
