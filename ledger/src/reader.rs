//! The books for reading only, beside an operator that writes: to verify them, to write the journal out, to copy them.

use crate::backup::{self, Copied};
use crate::store::{self, Store};
use crate::verify::{Expect, Verified};
use crate::{JournalKey, Result};
use std::io::{BufRead, Write};

/// Books that are only read.
#[derive(Debug)]
pub struct Reader(Store);

impl Reader {
    pub async fn open(url: &str) -> Result<Self> {
        Ok(Self(Store::open_to_read(url).await?))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0
    }

    /// Reads every entry of the journal once and holds each to the one before it.
    pub async fn verify(&self, expect: Expect) -> Result<Verified> {
        self.0.verify(expect).await
    }

    /// Writes the journal out, a line an entry, for `verify_export` to check anywhere.
    pub async fn export(&self, out: &mut impl Write, expect: Expect) -> Result<Verified> {
        self.0.export(out, expect).await
    }

    /// Writes a copy of all the books, of one moment.
    pub async fn backup(&self, out: &mut impl Write) -> Result<Copied> {
        self.0.backup(out).await
    }
}

/// Reads a backup into new books, wholly or not at all. The journal goes on where the backup ends; what the chain has
/// beyond it, settlement finds.
pub async fn restore(url: &str, key: Option<JournalKey>, reader: impl BufRead, expect: Expect) -> Result<Verified> {
    let _lock = store::lock(url)?;
    let mut store = Store::open(url, key).await?;
    let restored = backup::restore(&mut store, reader, expect).await;
    store.pool.close().await;
    restored
}
