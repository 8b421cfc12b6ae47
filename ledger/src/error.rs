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
    #[error(
        "the backup is of books of form {theirs} and this version reads {ours}: restore it with the version that wrote it, and open what \
         was restored with this one, which brings it up to date"
    )]
    OldCopy { theirs: usize, ours: usize },
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
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Full,
    ReadOnly,
    Locked,
    Damaged,
    Other,
}

impl Refusal {
    fn of(error: &sqlx::Error) -> Self {
        Self::of_code(&error.as_database_error().and_then(|error| error.code()).unwrap_or_default())
    }

    fn of_code(code: &str) -> Self {
        match code {
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

#[cfg(test)]
mod tests {
    use super::Refusal::{self, Damaged, Full, Locked, Other, ReadOnly};

    #[test]
    fn each_code_of_either_database_is_the_refusal_that_it_is() {
        let cases = [
            ("a full disk, PostgreSQL", "53100", Full),
            ("a standby, PostgreSQL", "25006", ReadOnly),
            ("a lock that is not given, PostgreSQL", "55P03", Locked),
            ("a damaged table, PostgreSQL", "XX001", Damaged),
            ("a damaged index, PostgreSQL", "XX002", Damaged),
            ("too many connections, PostgreSQL", "53300", Other),
            ("a rule that is broken, PostgreSQL", "23514", Other),
            ("a full disk, SQLite", "13", Full),
            ("a file that is read-only, SQLite", "8", ReadOnly),
            ("a folder that is, SQLite's longer code", "1544", ReadOnly),
            ("busy, SQLite", "5", Locked),
            ("busy, while it reads an old moment", "517", Locked),
            ("locked, SQLite", "6", Locked),
            ("a damaged file, SQLite", "11", Damaged),
            ("no database at all, SQLite", "26", Damaged),
            ("a rule that is broken, SQLite", "275", Other),
            ("nobody says", "", Other),
        ];
        for (name, code, expected) in cases {
            assert_eq!(Refusal::of_code(code), expected, "{name}");
        }
    }
}
