//! Replaying the journal: one pass that finds a changed, missing or reordered entry.

use crate::{Ledger, LedgerError, Result};
use futures::TryStreamExt;
use sqlx::Row;
use supercargo_market::journal::{Envelope, GENESIS, Hash};

/// What a verified journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub entries: u64,
    pub head: Hash,
}

impl Ledger {
    /// Reads every entry once and holds each to the one before it.
    pub async fn verify(&self) -> Result<Verified> {
        let mut rows = sqlx::query("SELECT sequence, hash, kind, payload FROM journal ORDER BY sequence").fetch(&self.pool);
        let (mut entries, mut head) = (0_u64, GENESIS);
        while let Some(row) = rows.try_next().await.map_err(LedgerError::database("reading the journal"))? {
            entries += 1;
            let (sequence, stored): (i64, Vec<u8>) = (row.get(0), row.get(1));
            if sequence.unsigned_abs() != entries {
                return Err(LedgerError::Broken(format!("entry {entries} of the journal is missing")));
            }
            let (kind, payload): (String, String) = (row.get(2), row.get(3));
            let hash =
                Envelope { journal: &self.journal, sequence: entries, previous: head, kind: &kind, payload: payload.as_bytes() }.hash();
            if stored != hash {
                return Err(LedgerError::Broken(format!("entry {entries} of the journal was changed after it was written")));
            }
            head = hash;
        }
        Ok(Verified { entries, head })
    }
}
