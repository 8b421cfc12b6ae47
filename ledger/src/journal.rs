//! The journal's end: where entries are appended, inside the transaction that does what they say. The last of them is
//! signed, and with it all before it.

use crate::batch::{Cell, FACTS, JOURNAL};
use crate::store::{Head, Store, Writing};
use crate::{LedgerError, Result};
use futures::future::join;
use serde::Serialize;
use supercargo_market::journal::{Envelope, Hash};

/// The kind of an entry whose payload is a posting.
pub(crate) const POSTING: &str = "posting";

impl Store {
    /// Appends one entry for each payload. Gives back the last one's hash.
    pub(crate) async fn append<P: Serialize>(&self, writing: &mut Writing, kind: &str, payloads: &[P]) -> Result<Hash> {
        let entries = self.entries(writing.mark.head, kind, payloads)?;
        self.write(writing, entries).await
    }

    /// Appends one entry for each payload after what else the transaction writes: while the database is busy with that, the
    /// entries are hashed.
    pub(crate) async fn append_after<P: Serialize>(
        &self,
        writing: &mut Writing,
        kind: &str,
        payloads: &[P],
        others: impl AsyncFnOnce(&mut Writing) -> Result<()>,
    ) -> Result<Hash> {
        let head = writing.mark.head;
        let (written, entries) = join(others(writing), async { self.entries(head, kind, payloads) }).await;
        written?;
        self.write(writing, entries?).await
    }

    async fn write(&self, writing: &mut Writing, (cells, head): (Vec<Cell>, Head)) -> Result<Hash> {
        JOURNAL.insert(&mut writing.transaction, cells, "appending to the journal").await?;
        if head != writing.mark.head {
            let fact = vec!["head".into(), head.to_string().into()];
            FACTS.put(&mut writing.transaction, fact, "naming the journal's head").await?;
        }
        writing.mark.head = head;
        Ok(head.hash)
    }

    /// The entries that come after the head, and the head that they lead to.
    fn entries<P: Serialize>(&self, mut head: Head, kind: &str, payloads: &[P]) -> Result<(Vec<Cell>, Head)> {
        let mut cells = Vec::with_capacity(payloads.len() * JOURNAL.columns.len());
        for (index, payload) in payloads.iter().enumerate() {
            let key = self.key.as_ref().filter(|_| index + 1 == payloads.len());
            let payload = serde_json::to_string(payload)
                .map_err(|error| LedgerError::Broken(format!("a journal entry can't be written: {error}")))?;
            let (sequence, signer) = (head.sequence + 1, key.map(crate::JournalKey::signer));
            let envelope = Envelope { journal: &self.journal, sequence, previous: head.hash, kind, payload: payload.as_bytes(), signer };
            head = Head { sequence, hash: envelope.hash() };
            let signature = key.map_or(Cell::Null, |key| key.sign(&head.hash).as_slice().into());
            let signer = signer.map_or(Cell::Null, |signer| signer.as_slice().into());
            cells.extend([sequence.cast_signed().into(), head.hash.as_slice().into(), kind.into(), payload.into(), signer, signature]);
        }
        Ok((cells, head))
    }
}
