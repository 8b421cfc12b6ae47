//! A copy of the books as a file, of one moment, while they are written: one line of JSON for each row of each table. It
//! is read back into empty books of either kind, wholly or not at all.

use crate::batch::{Cell, FACTS, JOURNAL, TABLES};
use crate::export::{Lines, write_line};
use crate::store::{Head, Store};
use crate::verify::{Chain, Entry, Expect, Verified};
use crate::{LedgerError, Result, migrate};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{BufRead, Write};
use std::sync::Arc;

const FORMAT: &str = "supercargo.books";
/// So many rows are put in at once.
const BATCH: usize = 1_000;

/// A line of a backup.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    /// The number of a table in `TABLES`, and a row of it.
    Row(usize, Value),
    Begin {
        format: String,
        form: usize,
        journal: String,
    },
    End {
        rows: u64,
        /// Over all lines before this one.
        digest: String,
    },
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    pub rows: u64,
    pub digest: String,
}

/// How many steps the books' form has taken is the database's own affair.
fn is_kept(table: usize, row: &Value) -> bool {
    !(TABLES[table].name == FACTS.name && row[0] == "form")
}

impl Store {
    pub(crate) async fn backup(&self, out: &mut impl Write) -> Result<Copied> {
        let mut transaction = self.begin_reading().await?;
        let (mut digest, mut rows) = (Sha256::new(), 0);
        let begin = Line::Begin { format: FORMAT.to_owned(), form: migrate::FORM, journal: self.journal.clone() };
        digest.update(write_line(out, &begin)?);
        for (number, table) in TABLES.iter().enumerate() {
            let mut stream = sqlx::query(table.select_all()).fetch(&mut *transaction);
            while let Some(row) = stream.try_next().await.map_err(LedgerError::database("copying the books"))? {
                let row = table.read(&row);
                if is_kept(number, &row) {
                    digest.update(write_line(out, &Line::Row(number, row))?);
                    rows += 1;
                }
            }
        }
        let digest = hex::encode(digest.finalize());
        write_line(out, &Line::End { rows, digest: digest.clone() })?;
        out.flush().map_err(|source| LedgerError::File { source: Arc::new(source) })?;
        Ok(Copied { rows, digest })
    }
}

/// Reads a backup into empty books. Its journal is verified on the way, and goes on with an entry that says what was
/// restored.
pub(crate) async fn restore(store: &mut Store, reader: impl BufRead, expect: Expect) -> Result<Verified> {
    let mut lines = Lines::new(reader);
    let mut digest = Sha256::new();
    let (journal, bytes) = match lines.next::<Line>()? {
        Some((Line::Begin { format, form, journal }, bytes)) if format == FORMAT => {
            if form > migrate::FORM {
                return Err(LedgerError::Newer { theirs: form, ours: migrate::FORM });
            }
            if form < migrate::FORM {
                return Err(LedgerError::OldCopy { theirs: form, ours: migrate::FORM });
            }
            (journal, bytes)
        }
        _ => return Err(lines.wrong("this is no backup of books: the first line does not say so")),
    };
    digest.update(bytes);
    let mut writing = store.begin_writing().await?;
    if writing.mark.head.sequence > 0 {
        return Err(LedgerError::Broken("a backup is restored into empty books, and these have entries".to_owned()));
    }
    store.journal.clone_from(&journal);
    let mut chain = Chain::new(journal, expect);
    let (mut rows, mut table, mut batch) = (0, 0, Vec::new());
    let told = loop {
        match lines.next::<Line>()? {
            Some((Line::Row(number, row), bytes)) if number < TABLES.len() && number >= table => {
                digest.update(bytes);
                rows += 1;
                if number != table || batch.len() >= BATCH * TABLES[table].columns.len() {
                    put(&mut writing, table, std::mem::take(&mut batch)).await?;
                    table = number;
                }
                if TABLES[number].name == JOURNAL.name {
                    chain.take(&entry(&row).ok_or_else(|| lines.wrong("an entry of the journal can't be read"))?)?;
                }
                batch.extend(TABLES[number].write(&row).ok_or_else(|| lines.wrong("this is no row of that table"))?);
            }
            Some((Line::End { rows, digest }, _)) => break Copied { rows, digest },
            Some(_) => return Err(lines.wrong("what stands here has no place in a backup")),
            None => return Err(lines.wrong("the file ends before the backup does: it was cut off here")),
        }
    };
    put(&mut writing, table, batch).await?;
    let read = Copied { rows, digest: hex::encode(digest.finalize()) };
    if read != told {
        return Err(lines.wrong("the backup was changed after it was written: its digest is another"));
    }
    let query = sqlx::query("SELECT value FROM facts WHERE name = 'head'").fetch_one(&mut *writing.transaction);
    let head: String = sqlx::Row::get(&query.await.map_err(LedgerError::database("reading the restored head"))?, 0);
    writing.mark.head = Head::parse(&head)?;
    let verified = chain.end(writing.mark.head)?;
    store.append(&mut writing, "restore", &[json!({ "backup": read.digest, "entries": verified.entries })]).await?;
    writing.commit("restoring a backup").await?;
    Ok(verified)
}

async fn put(writing: &mut crate::store::Writing, table: usize, batch: Vec<Cell>) -> Result<()> {
    // The facts are there already, with what new books begin with.
    let doing = "restoring a backup";
    match TABLES[table] {
        facts if facts.name == FACTS.name => facts.put(&mut writing.transaction, batch, doing).await,
        other => other.insert(&mut writing.transaction, batch, doing).await,
    }
}

fn entry(row: &Value) -> Option<Entry> {
    let bytes = |index: usize| hex::decode(row[index].as_str()?).ok();
    let seal = match (bytes(4), bytes(5)) {
        (Some(signer), Some(signature)) => Some((signer.try_into().ok()?, signature)),
        _ => None,
    };
    let (kind, payload) = (row[2].as_str()?.to_owned(), row[3].as_str()?.to_owned());
    Some(Entry { sequence: row[0].as_u64()?, hash: bytes(1)?.try_into().ok()?, kind, payload, seal })
}
