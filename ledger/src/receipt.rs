//! Receipts from the books: what is final at the charge, the journal's entries of it, and the way to the roots that were
//! posted since.

use crate::commit::amount;
use crate::store::Store;
use crate::verify::Entry;
use crate::working::asset;
use crate::{Ledger, LedgerError, Reader, Result};
use sha2::{Digest, Sha256};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::collections::BTreeMap;
use supercargo_market::fees::Split;
use supercargo_market::journal::{GENESIS, Hash, leaf, prove, root};
use supercargo_market::metering::Evidence;
use supercargo_market::receipt::{Anchor, Body, Charged, FORMAT, Journal, Link, Metered, Proof, Receipt, Stretch, usage_line};
use supercargo_market::work::WorkId;

/// As far as this a signed entry is looked for: more than one group of postings ever is.
const MOST_LINKS: u64 = 16_384;

/// What the books keep of a charge besides what a body says.
struct Kept {
    salt: Hash,
    post: Option<String>,
}

impl Reader {
    /// The receipt of a work; `None` when nothing was charged for it.
    pub async fn receipt(&self, work: &WorkId) -> Result<Option<Receipt>> {
        self.store().receipt(work).await
    }
}

impl Ledger {
    /// The receipt of a work; `None` when nothing was charged for it.
    pub async fn receipt(&self, work: &WorkId) -> Result<Option<Receipt>> {
        self.store.receipt(work).await
    }
}

impl Store {
    /// All of one moment.
    async fn receipt(&self, work: &WorkId) -> Result<Option<Receipt>> {
        let mut reading = self.begin_reading().await?;
        let Some((body, kept)) = body(&mut reading, work).await? else { return Ok(None) };
        let stretches = stretches(&mut reading, &body).await?;
        let anchors = anchors(&mut reading, &body, &kept).await?;
        let digest = hex::encode(body.digest());
        Ok(Some(Receipt { body, digest, journal: Journal { name: self.journal.clone(), stretches }, anchors }))
    }
}

fn failed() -> impl Fn(sqlx::Error) -> LedgerError {
    LedgerError::database("reading a receipt")
}

fn unreadable(work: &WorkId, what: &str) -> LedgerError {
    LedgerError::Broken(format!("{work}'s {what} can't be read"))
}

fn hash(row: &AnyRow, index: usize) -> Result<Hash> {
    row.get::<Vec<u8>, _>(index).try_into().map_err(|_| LedgerError::Broken("a hash in the books is not 32 bytes long".to_owned()))
}

fn evidence(text: &str) -> Result<Evidence> {
    serde_json::from_value(text.into()).map_err(|_| LedgerError::Broken(format!("{text:?} is no evidence")))
}

/// A receipt's body. The same books give the same.
async fn body(reading: &mut AnyConnection, work: &WorkId) -> Result<Option<(Body, Vec<Kept>)>> {
    let query = "SELECT r.funding, f.asset, r.open, r.charged, r.absorbed, r.split FROM reservations r JOIN fundings f ON f.id = r.funding WHERE r.work = $1";
    let Some(row) = sqlx::query(query).bind(work.to_string()).fetch_optional(&mut *reading).await.map_err(failed())? else {
        return Ok(None);
    };
    let query = "SELECT segment, attempt, seconds, evidence, amount, metered, entry, salt, post FROM charges WHERE work = $1";
    let charges = sqlx::query(query).bind(work.to_string()).fetch_all(&mut *reading).await.map_err(failed())?;
    let mut charges = charges.iter().map(|row| charged(row, work)).collect::<Result<Vec<_>>>()?;
    if charges.is_empty() {
        return Ok(None);
    }
    charges.sort_by(|(one, _), (other, _)| (one.entry, &one.segment).cmp(&(other.entry, &other.segment)));
    let (charges, kept): (Vec<Charged>, Vec<Kept>) = charges.into_iter().unzip();
    let mut cards = BTreeMap::new();
    for hash in charges.iter().filter_map(|charge| Some(&charge.metered.as_ref()?.card)) {
        if cards.contains_key(hash) {
            continue;
        }
        let row = sqlx::query("SELECT card FROM cards WHERE hash = $1").bind(hash.clone()).fetch_optional(&mut *reading).await;
        if let Some(row) = row.map_err(failed())? {
            cards.insert(hash.clone(), serde_json::from_str(row.get(0)).map_err(|_| unreadable(work, "rate card"))?);
        }
    }
    let split: Split = serde_json::from_str(row.get(5)).map_err(|_| unreadable(work, "split"))?;
    let body = Body {
        format: FORMAT.to_owned(),
        work: work.to_string(),
        funding: row.get(0),
        token: asset(&row, 1)?.id,
        open: row.get::<i64, _>(2) == 1,
        charges,
        cards,
        charged: amount(row.get(3)),
        absorbed: amount(row.get(4)),
        provider: split.provider,
        fees: split.fees,
    };
    Ok(Some((body, kept)))
}

fn charged(row: &AnyRow, work: &WorkId) -> Result<(Charged, Kept)> {
    let metered: Option<Metered> =
        row.get::<Option<&str>, _>(5).map(serde_json::from_str).transpose().map_err(|_| unreadable(work, "metered use"))?;
    let charged = Charged {
        segment: row.get(0),
        attempt: u32::try_from(row.get::<i64, _>(1)).map_err(|_| unreadable(work, "attempt"))?,
        seconds: row.get::<i64, _>(2).unsigned_abs(),
        evidence: evidence(row.get(3))?,
        amount: amount(row.get(4)),
        entry: row.get::<Option<i64>, _>(6).map(i64::unsigned_abs),
        metered,
    };
    Ok((charged, Kept { salt: hash(row, 7)?, post: row.get(8) }))
}

/// What a status tells of a receipt once nothing is held back: its digest, and how busy the devices were.
pub(crate) async fn summary(reading: &mut AnyConnection, work: &WorkId) -> Result<Option<(String, Option<u32>)>> {
    let body = body(reading, work).await?;
    Ok(body.filter(|(body, _)| !body.open).map(|(body, _)| (hex::encode(body.digest()), body.gpu_percent())))
}

/// The entries of the charges, each with those after it up to one that is signed.
async fn stretches(reading: &mut AnyConnection, body: &Body) -> Result<Vec<Stretch>> {
    let own: Vec<u64> = body.charges.iter().filter_map(|charge| charge.entry).collect();
    let mut stretches = Vec::new();
    let mut left = own.as_slice();
    while let [first, ..] = left {
        let query = "SELECT sequence FROM journal WHERE sequence >= $1 AND sequence < $2 AND signer IS NOT NULL ORDER BY sequence LIMIT 1";
        let limit = first.saturating_add(MOST_LINKS);
        let signed = sqlx::query(query).bind(first.cast_signed()).bind(limit.cast_signed()).fetch_optional(&mut *reading).await;
        let signed = signed.map_err(failed())?.map(|row| row.get::<i64, _>(0).unsigned_abs());
        // In a journal that nobody signs, its own entry is all that there is to show.
        let last = signed.unwrap_or(*first);
        let query = "SELECT sequence, hash, kind, payload, signer, signature FROM journal WHERE sequence >= $1 AND sequence <= $2 ORDER BY sequence";
        let from = first.saturating_sub(1).cast_signed();
        let rows = sqlx::query(query).bind(from).bind(last.cast_signed()).fetch_all(&mut *reading).await.map_err(failed())?;
        let entries = rows.iter().map(Entry::read).collect::<Result<Vec<_>>>()?;
        let (before, entries) = match entries.split_first() {
            Some((before, entries)) if before.sequence < *first => (before.hash, entries),
            _ => (GENESIS, entries.as_slice()),
        };
        let links = entries.iter().map(|entry| link(entry, own.contains(&entry.sequence))).collect();
        stretches.push(Stretch { previous: hex::encode(before), links });
        left = &left[left.partition_point(|entry| *entry <= last)..];
    }
    Ok(stretches)
}

fn link(entry: &Entry, shown: bool) -> Link {
    Link {
        sequence: entry.sequence,
        kind: entry.kind.clone(),
        payload: shown.then(|| entry.payload.clone()),
        payload_hash: (!shown).then(|| hex::encode(Sha256::digest(&entry.payload))),
        hash: hex::encode(entry.hash),
        signer: entry.seal.as_ref().map(|(signer, _)| hex::encode(signer)),
        signature: entry.seal.as_ref().map(|(_, signature)| hex::encode(signature)),
    }
}

/// The posts that pay for the charges, with the proofs that lead to their roots.
async fn anchors(reading: &mut AnyConnection, body: &Body, kept: &[Kept]) -> Result<Vec<Anchor>> {
    let mut posts: Vec<&String> = kept.iter().filter_map(|kept| kept.post.as_ref()).collect();
    posts.sort_unstable();
    posts.dedup();
    let mut anchors = Vec::new();
    for post in posts {
        let query = "SELECT lines_root, journal_head, winner, block, state FROM posts WHERE id = $1";
        let row = sqlx::query(query).bind(post.clone()).fetch_one(&mut *reading).await.map_err(failed())?;
        let lines = lines(reading, "post = $1", post, i64::MAX).await?;
        let leaves: Vec<Hash> = lines.iter().map(|(_, leaf)| *leaf).collect();
        let posted = hash(&row, 0)?;
        if root(&leaves) != posted {
            return Err(LedgerError::Broken(format!("the usage lines of post {post} do not lead to its root")));
        }
        let own = body.charges.iter().zip(kept).filter(|(_, kept)| kept.post.as_ref() == Some(post));
        let proof = |(charge, kept): (&Charged, &Kept)| {
            let index = lines.binary_search_by(|(segment, _)| segment.as_str().cmp(&charge.segment)).ok()?;
            let path = prove(&leaves, index)?.into_iter().map(Into::into).collect();
            Some(Proof { segment: charge.segment.clone(), salt: hex::encode(kept.salt), path })
        };
        let is_final = row.get::<&str, _>(4) == "FINAL";
        anchors.push(Anchor {
            post: post.clone(),
            root: hex::encode(posted),
            journal_head: hex::encode(hash(&row, 1)?),
            transaction: row.get::<Option<String>, _>(2).filter(|_| is_final),
            block: row.get::<Option<i64>, _>(3).filter(|_| is_final).map(i64::unsigned_abs),
            proofs: own.filter_map(proof).collect(),
        });
    }
    Ok(anchors)
}

/// Usage lines up to an entry of the journal as leaves, in the order of their segments' bytes, which not every database has by
/// itself.
pub(crate) async fn lines(reading: &mut AnyConnection, of: &str, id: &str, until: i64) -> Result<Vec<(String, Hash)>> {
    let query = format!(
        "SELECT segment, work, attempt, seconds, evidence, amount, salt, metered FROM charges WHERE {of} AND COALESCE(entry, 0) <= $2"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(query)).bind(id.to_owned()).bind(until).fetch_all(reading).await;
    let rows = rows.map_err(LedgerError::database("reading usage lines"))?;
    let mut lines = rows.iter().map(line).collect::<Result<Vec<_>>>()?;
    lines.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    Ok(lines)
}

fn line(row: &AnyRow) -> Result<(String, Hash)> {
    let segment: String = row.get(0);
    let attempt = u32::try_from(row.get::<i64, _>(2)).map_err(|_| LedgerError::Broken(format!("{segment} has no attempt")))?;
    let metered: Option<Hash> = row.get::<Option<&str>, _>(7).map(|text| Sha256::digest(text).into());
    let seconds = row.get::<i64, _>(3).unsigned_abs();
    let text = usage_line(&segment, row.get(1), attempt, seconds, evidence(row.get(4))?, amount(row.get(5)), metered.as_ref());
    Ok((segment, leaf(&hash(row, 6)?, text.as_bytes())))
}
