//! The journal's end: where entries are appended, inside the transaction that does what they say.

use crate::{LedgerError, Result};
use serde::Serialize;
use sqlx::{Row, Sqlite, Transaction};
use supercargo_market::journal::{Envelope, GENESIS, Hash};

pub(crate) async fn head(transaction: &mut Transaction<'_, Sqlite>) -> Result<(u64, Hash)> {
    let failed = LedgerError::database("reading the journal's head");
    let row = sqlx::query("SELECT sequence, hash FROM journal ORDER BY sequence DESC LIMIT 1")
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    let Some(row) = row else { return Ok((0, GENESIS)) };
    let hash: Vec<u8> = row.get(1);
    let hash = hash.try_into().map_err(|_| LedgerError::Broken("a hash in the journal is not 32 bytes long".to_owned()))?;
    Ok((row.get::<i64, _>(0).unsigned_abs(), hash))
}

pub(crate) async fn append(transaction: &mut Transaction<'_, Sqlite>, journal: &str, kind: &str, payload: &impl Serialize) -> Result<Hash> {
    let (sequence, previous) = head(transaction).await?;
    let payload =
        serde_json::to_string(payload).map_err(|error| LedgerError::Broken(format!("a journal entry can't be written: {error}")))?;
    let sequence = sequence + 1;
    let hash = Envelope { journal, sequence, previous, kind, payload: payload.as_bytes() }.hash();
    sqlx::query("INSERT INTO journal (sequence, hash, kind, payload) VALUES (?, ?, ?, ?)")
        .bind(sequence.cast_signed())
        .bind(hash.as_slice())
        .bind(kind)
        .bind(payload)
        .execute(&mut **transaction)
        .await
        .map_err(LedgerError::database("appending to the journal"))?;
    Ok(hash)
}
