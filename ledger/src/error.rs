//! What can go wrong with the books, and what to do about it. A database's own words come along as the source.

use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    #[error("the books' address {url:?} is not one: use sqlite:///path/to/books.db or postgres://user@host/database")]
    BadUrl { url: String },
    #[error("opening the books at {url}: {source}. Is the address right, and is the volume or the server there?")]
    Open { url: String, source: Arc<sqlx::Error> },
    #[error("the books at {path} are open in another operator: one SQLite file has one operator. Stop the other one, or use PostgreSQL")]
    InUse { path: PathBuf },
    #[error("using the lock file {path}: {source}. Is the volume writable for this user?")]
    LockFile { path: PathBuf, source: Arc<std::io::Error> },
    #[error("the books have form {theirs} and this operator knows {ours}: they were written by a newer one, which has to open them")]
    Newer { theirs: usize, ours: usize },
    #[error("the books have form {theirs} and this program reads {ours}: start this version's operator once, it brings them up to date")]
    Older { theirs: usize, ours: usize },
    #[error("{doing}: the books' volume is full. Make it larger or free space; nothing of this was written, and it is tried again")]
    Full { doing: &'static str, source: Arc<sqlx::Error> },
    #[error("{doing}: the books are read-only. Mount their volume writable, or name the primary server; nothing of this was written")]
    ReadOnly { doing: &'static str, source: Arc<sqlx::Error> },
    #[error(
        "{doing}: another program holds the books locked for longer than we wait. End it; nothing of this was written, and it is tried again"
    )]
    Locked { doing: &'static str, source: Arc<sqlx::Error> },
    #[error(
        "{doing}: the database has not answered for {seconds} s. Is it there, and is the way to it open? Whether this was written is \
         found out when it is tried again: it counts once"
    )]
    Silent { doing: &'static str, seconds: u64 },
    #[error("{doing}: this is no database of ours, or it is damaged: {source}. Restore the newest backup")]
    Damaged { doing: &'static str, source: Arc<sqlx::Error> },
    #[error("{doing}: {source}")]
    Database { doing: &'static str, source: Arc<sqlx::Error> },
    #[error("another replica leads: its fence is {current} and ours was {ours}")]
    Fenced { ours: i64, current: i64 },
    #[error("the books contradict themselves: {0}")]
    Broken(String),
    #[error("reading or writing the file: {source}")]
    File { source: Arc<std::io::Error> },
    #[error("line {number} of the file: {reason}")]
    Line { number: u64, reason: String },
    #[error("the books are closing: nothing more is written")]
    Closing,
}

pub(crate) type Result<T> = std::result::Result<T, LedgerError>;

/// What kind of refusal a database's code is. SQLite's codes are numbers whose lowest byte is the kind; PostgreSQL's are
/// five characters.
enum Refusal {
    Full,
    ReadOnly,
    Locked,
    Damaged,
    Other,
}

impl Refusal {
    fn of(error: &sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
        match &*code {
            "53100" => Self::Full,
            "25006" => Self::ReadOnly,
            "55P03" => Self::Locked,
            "XX001" | "XX002" => Self::Damaged,
            text if text.len() == 5 => Self::Other,
            text => match text.parse::<u32>().map(|code| code & 0xff) {
                Ok(13) => Self::Full,
                Ok(8) => Self::ReadOnly,
                Ok(5 | 6) => Self::Locked,
                Ok(11 | 26) => Self::Damaged,
                _ => Self::Other,
            },
        }
    }
}

impl LedgerError {
    pub(crate) fn database(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| {
            let (refusal, source) = (Refusal::of(&source), Arc::new(source));
            match refusal {
                Refusal::Full => Self::Full { doing, source },
                Refusal::ReadOnly => Self::ReadOnly { doing, source },
                Refusal::Locked => Self::Locked { doing, source },
                Refusal::Damaged => Self::Damaged { doing, source },
                Refusal::Other => Self::Database { doing, source },
            }
        }
    }

    /// Whether what was asked for is at fault, and not the database: the same without it may succeed.
    pub fn is_of_the_request(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Database { source, .. } => source
                .as_database_error()
                .is_some_and(|error| error.is_check_violation() || error.is_foreign_key_violation() || error.is_unique_violation()),
            _ => false,
        }
    }
}
