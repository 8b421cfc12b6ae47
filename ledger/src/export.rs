//! The journal as a file: one line of JSON for each entry, between a line that names the journal and one that says where it
//! ends. Whoever has it can check it without the books, in one pass and in constant memory.

use crate::store::{Head, Store};
use crate::verify::{Chain, Entry, Expect, Verified, envelope};
use crate::{LedgerError, Result};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Read, Write};
use std::sync::Arc;
use supercargo_market::journal::Hash;

const FORMAT: &str = "supercargo.journal";
/// No line that we write is as long: a file of another kind is not read into memory whole.
const LONGEST_LINE_BYTES: u64 = 16 << 20;

/// A line of an exported journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Entry {
        version: u32,
        sequence: u64,
        previous: String,
        kind: String,
        payload: String,
        hash: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signer: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
    },
    Begin {
        format: String,
        journal: String,
    },
    End {
        entries: u64,
        head: String,
    },
}

/// Reading a file that is made of lines of JSON.
pub(crate) struct Lines<R> {
    reader: R,
    text: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, text: Vec::new(), number: 0 }
    }

    /// The next line with the bytes that it was read from; `None` at the end of the file.
    pub(crate) fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<(T, &[u8])>> {
        self.text.clear();
        let mut limited = Read::take(&mut self.reader, LONGEST_LINE_BYTES);
        let read = limited.read_until(b'\n', &mut self.text).map_err(|source| LedgerError::File { source: Arc::new(source) })?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let number = self.number;
        let line = serde_json::from_slice(&self.text).map_err(|error| LedgerError::Line { number, reason: error.to_string() })?;
        Ok(Some((line, &self.text)))
    }

    pub(crate) fn wrong(&self, reason: &str) -> LedgerError {
        LedgerError::Line { number: self.number.max(1), reason: reason.to_owned() }
    }
}

pub(crate) fn write_line(out: &mut impl Write, line: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line).map_err(|error| LedgerError::Broken(format!("a line can't be written: {error}")))?;
    text.push(b'\n');
    out.write_all(&text).map_err(|source| LedgerError::File { source: Arc::new(source) })?;
    Ok(text)
}

fn hash_of(text: &str, lines: &Lines<impl BufRead>) -> Result<Hash> {
    let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| lines.wrong("a hash is 64 hexadecimal digits"))
}

impl Store {
    /// Writes the journal out, and verifies it on the way.
    pub(crate) async fn export(&self, out: &mut impl Write, expect: Expect) -> Result<Verified> {
        write_line(out, &Line::Begin { format: FORMAT.to_owned(), journal: self.journal.clone() })?;
        let mut chain = Chain::new(self.journal.clone(), expect);
        let head = self.head().await?;
        while chain.head().sequence < head.sequence {
            let page = self.entries_after(chain.head().sequence).await?;
            if page.is_empty() {
                break;
            }
            for entry in page.iter().filter(|entry| entry.sequence <= head.sequence) {
                let previous = chain.head().hash;
                chain.take(entry)?;
                write_line(out, &line_of(&self.journal, entry, previous))?;
            }
        }
        let verified = chain.end(head)?;
        write_line(out, &Line::End { entries: verified.entries, head: hex::encode(verified.head) })?;
        out.flush().map_err(|source| LedgerError::File { source: Arc::new(source) })?;
        Ok(verified)
    }
}

fn line_of(journal: &str, entry: &Entry, previous: Hash) -> Line {
    let envelope = envelope(journal, entry, previous);
    Line::Entry {
        version: envelope.version(),
        sequence: entry.sequence,
        previous: hex::encode(previous),
        kind: entry.kind.clone(),
        payload: entry.payload.clone(),
        hash: hex::encode(entry.hash),
        signer: envelope.signer.map(hex::encode),
        signature: entry.seal.as_ref().map(|(_, signature)| hex::encode(signature)),
    }
}

/// Checks an exported journal: whatever was changed, left out, put in or put elsewhere is found.
pub fn verify_export(reader: impl BufRead, expect: Expect) -> Result<Verified> {
    let mut lines = Lines::new(reader);
    let journal = match lines.next::<Line>()? {
        Some((Line::Begin { format, journal }, _)) if format == FORMAT => journal,
        _ => return Err(lines.wrong("this is no exported journal: the first line does not say so")),
    };
    let mut chain = Chain::new(journal, expect);
    loop {
        match lines.next::<Line>()?.map(|(line, _)| line) {
            Some(Line::Entry { version, sequence, previous, kind, payload, hash, signer, signature }) => {
                let before = chain.head().hash;
                let signer = signer.map(|text| hash_of(&text, &lines)).transpose()?;
                let signature = signature.map(hex::decode).transpose().map_err(|_| lines.wrong("a signature is hexadecimal digits"))?;
                if signer.is_some() != signature.is_some() {
                    return Err(lines.wrong("a signer has a signature, and a signature a signer"));
                }
                let entry = Entry { sequence, hash: hash_of(&hash, &lines)?, kind, payload, seal: signer.zip(signature) };
                if version != envelope(chain.journal(), &entry, before).version() {
                    return Err(LedgerError::Broken(format!("entry {sequence} of the journal is not of version {version}")));
                }
                chain.take(&entry)?;
                if hash_of(&previous, &lines)? != before {
                    return Err(LedgerError::Broken(format!("entry {sequence} of the journal names another one as the one before it")));
                }
            }
            Some(Line::End { entries, head }) => {
                let head = Head { sequence: entries, hash: hash_of(&head, &lines)? };
                return match lines.next::<Line>()? {
                    None => chain.end(head),
                    Some(_) => Err(lines.wrong("the journal goes on after its end")),
                };
            }
            Some(Line::Begin { .. }) => return Err(lines.wrong("another journal begins here")),
            None => return Err(lines.wrong("the file ends before the journal does: it was cut off here")),
        }
    }
}
