//! Replaying a journal: one pass that finds a changed, missing or reordered entry.

use crate::key::is_signed;
use crate::store::{Head, Store, fact};
use crate::{Ledger, LedgerError, Result};
use sqlx::Row;
use sqlx::any::AnyRow;
use supercargo_market::journal::{Envelope, GENESIS, Hash};

/// So many entries are read at once.
const PAGE: i64 = 1_000;

/// What a verified journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub journal: String,
    pub entries: u64,
    pub head: Hash,
    /// Whose signature covers the most, and how many entries: all up to the last that is signed.
    pub signer: Option<Hash>,
    pub signed: u64,
}

/// What else must be true of a journal than that it fits together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expect {
    /// Nobody but this key signed it, and its signature covers every entry.
    pub signer: Option<Hash>,
    /// This is the hash of one of its entries: it goes on at least as far as was shown elsewhere, on the chain say.
    pub head: Option<Hash>,
}

/// An entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    pub(crate) hash: Hash,
    pub(crate) kind: String,
    pub(crate) payload: String,
    pub(crate) seal: Option<(Hash, Vec<u8>)>,
}

impl Entry {
    /// From its sequence, hash, kind, payload, signer and signature.
    pub(crate) fn read(row: &AnyRow) -> Result<Self> {
        let hash =
            |bytes: Vec<u8>| bytes.try_into().map_err(|_| LedgerError::Broken("a hash in the journal is not 32 bytes long".to_owned()));
        let signer: Option<Hash> = row.get::<Option<Vec<u8>>, _>(4).map(hash).transpose()?;
        let seal = signer.zip(row.get::<Option<Vec<u8>>, _>(5));
        let (sequence, kind, payload) = (row.get::<i64, _>(0).unsigned_abs(), row.get(2), row.get(3));
        Ok(Self { sequence, hash: hash(row.get(1))?, kind, payload, seal })
    }
}

pub(crate) fn envelope<'a>(journal: &'a str, entry: &'a Entry, previous: Hash) -> Envelope<'a> {
    let signer = entry.seal.as_ref().map(|(signer, _)| *signer);
    Envelope { journal, sequence: entry.sequence, previous, kind: &entry.kind, payload: entry.payload.as_bytes(), signer }
}

/// A journal as far as it was read.
#[derive(Debug)]
pub(crate) struct Chain {
    expect: Expect,
    found: bool,
    verified: Verified,
}

impl Chain {
    pub(crate) fn new(journal: String, expect: Expect) -> Self {
        Self { expect, found: false, verified: Verified { journal, entries: 0, head: GENESIS, signer: None, signed: 0 } }
    }

    pub(crate) fn head(&self) -> Head {
        Head { sequence: self.verified.entries, hash: self.verified.head }
    }

    pub(crate) fn journal(&self) -> &str {
        &self.verified.journal
    }

    /// Holds an entry to the one before it.
    pub(crate) fn take(&mut self, entry: &Entry) -> Result<()> {
        let (verified, sequence) = (&mut self.verified, entry.sequence);
        if sequence != verified.entries + 1 {
            return Err(LedgerError::Broken(format!(
                "entry {} of the journal is missing: entry {sequence} stands there",
                verified.entries + 1
            )));
        }
        if envelope(&verified.journal, entry, verified.head).hash() != entry.hash {
            return Err(LedgerError::Broken(format!("entry {sequence} of the journal was changed after it was written")));
        }
        if let Some((signer, signature)) = &entry.seal {
            if !is_signed(signer, &entry.hash, signature) {
                return Err(LedgerError::Broken(format!("entry {sequence} of the journal has a false signature")));
            }
            if self.expect.signer.is_some_and(|expected| expected != *signer) {
                return Err(LedgerError::Broken(format!("entry {sequence} of the journal is signed by {}", hex::encode(signer))));
            }
            (verified.signer, verified.signed) = (Some(*signer), sequence);
        }
        (verified.entries, verified.head) = (sequence, entry.hash);
        self.found |= self.expect.head == Some(entry.hash);
        Ok(())
    }

    /// The end, when it is where the journal says that it is.
    pub(crate) fn end(self, head: Head) -> Result<Verified> {
        let Verified { entries, signed, .. } = self.verified;
        if head.sequence > entries {
            return Err(LedgerError::Broken(format!("entry {} of the journal is missing: it has {} entries", entries + 1, head.sequence)));
        }
        if head != self.head() {
            return Err(LedgerError::Broken(format!("entry {entries} of the journal is not the one that the books call its last")));
        }
        if self.expect.signer.is_some() && signed < entries {
            return Err(LedgerError::Broken(format!("nobody signed entries {} to {entries} of the journal", signed + 1)));
        }
        match self.expect.head {
            Some(head) if !self.found => {
                Err(LedgerError::Broken(format!("no entry of the journal has the hash {}: it ends before", hex::encode(head))))
            }
            _ => Ok(self.verified),
        }
    }
}

impl Store {
    /// The entries after `sequence`, a page of them.
    pub(crate) async fn entries_after(&self, sequence: u64) -> Result<Vec<Entry>> {
        let query = "SELECT sequence, hash, kind, payload, signer, signature FROM journal WHERE sequence > $1 ORDER BY sequence LIMIT $2";
        let rows = sqlx::query(query).bind(sequence.cast_signed()).bind(PAGE).fetch_all(&self.pool).await;
        let rows = rows.map_err(LedgerError::database("reading the journal"))?;
        rows.iter().map(Entry::read).collect()
    }

    /// What the books call the journal's last entry.
    pub(crate) async fn head(&self) -> Result<Head> {
        Head::parse(&fact(&self.pool, "head").await?.ok_or_else(|| LedgerError::Broken("the journal has no head".to_owned()))?)
    }

    /// Reads every entry once and holds each to the one before it. No more than a page is in memory, and who writes is not
    /// kept waiting: what is added meanwhile is read too.
    pub(crate) async fn verify(&self, expect: Expect) -> Result<Verified> {
        let mut chain = Chain::new(self.journal.clone(), expect);
        loop {
            let head = self.head().await?;
            let page = self.entries_after(chain.head().sequence).await?;
            for entry in &page {
                chain.take(entry)?;
            }
            // The head is older than the page: when it is still the same, nothing was added in between.
            if page.is_empty() && head == self.head().await? {
                return chain.end(head);
            }
        }
    }
}

impl Ledger {
    /// Reads every entry of the journal once and holds each to the one before it.
    pub async fn verify(&self) -> Result<Verified> {
        self.store.verify(Expect::default()).await
    }
}
