//! The outbox: a post is planned, signed into raw bytes, sent, mined, and booked when it is final. What is sent was
//! written here before, so a restart sends the same bytes again instead of making others.

use crate::commit::{amount, signed};
use crate::journal::POSTING;
use crate::posting::Line;
use crate::store::Writing;
use crate::{Fence, Ledger, LedgerError, Result};
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};
use supercargo_market::journal::Hash;
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

const GIVING_UP: &str = "giving a post up";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostState {
    /// Decided, nothing signed: it may still be dropped.
    Planned,
    /// Bytes exist that may be on their way.
    Signed,
    /// In a block that may still be undone.
    Mined,
    /// In a block that stays.
    Final,
    /// Given up: it can never be mined.
    Void,
}

impl PostState {
    fn read(text: &str) -> Result<Self> {
        match text {
            "PLANNED" => Ok(Self::Planned),
            "SIGNED" => Ok(Self::Signed),
            "MINED" => Ok(Self::Mined),
            "FINAL" => Ok(Self::Final),
            "VOID" => Ok(Self::Void),
            _ => Err(LedgerError::Broken(format!("{text:?} is no state of a post"))),
        }
    }
}

/// One account's rows on their way to the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    pub id: String,
    pub funding: FundingId,
    pub state: PostState,
    /// Payee and its total from this account.
    pub rows: Vec<(u32, u64)>,
    /// What the rows add to what was planned before.
    pub amount: Amount,
    pub lines_root: Hash,
    pub journal_head: Hash,
    pub winner: Option<String>,
    pub block: Option<u64>,
}

/// A signed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub hash: String,
    pub signer: String,
    pub nonce: u64,
    pub raw: Vec<u8>,
    pub max_fee: u128,
}

impl Ledger {
    /// The posts that are not finished.
    pub async fn open_posts(&self) -> Result<Vec<Post>> {
        let query = "SELECT id, funding, state, rows, amount, lines_root, journal_head, winner, block FROM posts WHERE state IN ('PLANNED', 'SIGNED', 'MINED') ORDER BY planned_at, id";
        let rows = sqlx::query(query).fetch_all(self.pool()).await.map_err(LedgerError::database("reading the outbox"))?;
        rows.iter().map(post).collect()
    }

    /// When the oldest post of an account that is not finished was planned.
    pub async fn open_since(&self, funding: &FundingId) -> Result<Option<i64>> {
        let query = "SELECT MIN(planned_at) FROM posts WHERE funding = $1 AND state IN ('PLANNED', 'SIGNED', 'MINED')";
        let row = sqlx::query(query).bind(funding.as_str()).fetch_one(self.pool()).await;
        Ok(row.map_err(LedgerError::database("reading since when a post is open"))?.get(0))
    }

    /// Every transaction that was signed for a post, the newest last.
    pub async fn attempts(&self, post: &str) -> Result<Vec<Attempt>> {
        let query = "SELECT hash, signer, nonce, raw, max_fee FROM attempts WHERE post = $1 ORDER BY signed_at, hash";
        let rows =
            sqlx::query(query).bind(post).fetch_all(self.pool()).await.map_err(LedgerError::database("reading a post's transactions"))?;
        rows.iter()
            .map(|row| {
                let max_fee: String = row.get(4);
                let max_fee = max_fee.parse().map_err(|_| LedgerError::Broken(format!("{max_fee:?} is no fee")))?;
                Ok(Attempt { hash: row.get(0), signer: row.get(1), nonce: row.get::<i64, _>(2).unsigned_abs(), raw: row.get(3), max_fee })
            })
            .collect()
    }

    /// When the newest of a post's transactions was signed.
    pub async fn last_signed_at(&self, post: &str) -> Result<i64> {
        let row = sqlx::query("SELECT COALESCE(MAX(signed_at), 0) FROM attempts WHERE post = $1").bind(post).fetch_one(self.pool()).await;
        Ok(row.map_err(LedgerError::database("reading when a post was signed"))?.get(0))
    }

    /// When the first of them was.
    pub async fn first_signed_at(&self, post: &str) -> Result<Option<i64>> {
        let row = sqlx::query("SELECT MIN(signed_at) FROM attempts WHERE post = $1").bind(post.to_owned()).fetch_one(self.pool()).await;
        Ok(row.map_err(LedgerError::database("reading since when a post is signed"))?.get(0))
    }

    /// Writes a signed transaction down. Only then may it be sent.
    pub async fn record_attempt(&self, fence: Fence, post: &str, attempt: &Attempt, now: i64) -> Result<()> {
        let doing = "writing a signed transaction down";
        let failed = LedgerError::database(doing);
        let mut writing = self.store.begin(fence).await?;
        let insert = "INSERT INTO attempts (hash, post, signer, nonce, raw, max_fee, fence, signed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING";
        sqlx::query(insert)
            .bind(&attempt.hash)
            .bind(post)
            .bind(&attempt.signer)
            .bind(attempt.nonce.cast_signed())
            .bind(&attempt.raw)
            .bind(attempt.max_fee.to_string())
            .bind(fence.number())
            .bind(now)
            .execute(&mut *writing.transaction)
            .await
            .map_err(&failed)?;
        sqlx::query("UPDATE posts SET state = 'SIGNED' WHERE id = $1 AND state IN ('PLANNED', 'SIGNED')")
            .bind(post)
            .execute(&mut *writing.transaction)
            .await
            .map_err(&failed)?;
        writing.commit(doing).await
    }

    /// One of the attempts is in a block; or, with `None`, no longer in any.
    pub async fn mark_mined(&self, fence: Fence, post: &str, mined: Option<(&str, u64)>) -> Result<()> {
        let doing = "marking a post as mined";
        let failed = LedgerError::database(doing);
        let mut writing = self.store.begin(fence).await?;
        let query = match mined {
            Some((hash, block)) => {
                sqlx::query("UPDATE posts SET state = 'MINED', winner = $1, block = $2 WHERE id = $3 AND state IN ('SIGNED', 'MINED')")
                    .bind(hash)
                    .bind(block.cast_signed())
                    .bind(post)
            }
            None => {
                sqlx::query("UPDATE posts SET state = 'SIGNED', winner = NULL, block = NULL WHERE id = $1 AND state = 'MINED'").bind(post)
            }
        };
        query.execute(&mut *writing.transaction).await.map_err(&failed)?;
        writing.commit(doing).await
    }

    /// Books a post that is final on the chain, in one transaction with its journal entry. A second time changes nothing.
    /// Rows that the chain skipped are planned again, with the post's lines, and are the post's no more.
    pub async fn book_final(&self, fence: Fence, id: &str, transaction_hash: &str, block: u64, skipped: &[usize]) -> Result<bool> {
        let doing = "booking a final post";
        let failed = LedgerError::database(doing);
        let mut writing = self.store.begin(fence).await?;
        let query = "SELECT id, funding, state, rows, amount, lines_root, journal_head, winner, block FROM posts WHERE id = $1";
        let row = sqlx::query(query).bind(id).fetch_one(&mut *writing.transaction).await.map_err(&failed)?;
        let found = post(&row)?;
        if found.state == PostState::Final {
            return Ok(false);
        }
        let funding = found.funding.as_str();
        let (mut units, mut credited) = (0, Vec::new());
        for (index, (payee, total)) in found.rows.iter().enumerate() {
            if skipped.contains(&index) {
                let update = sqlx::query("UPDATE lanes SET planned = posted WHERE funding = $1 AND payee = $2");
                update.bind(funding).bind(i64::from(*payee)).execute(&mut *writing.transaction).await.map_err(&failed)?;
                continue;
            }
            credited.push((*payee, *total));
            let query = "SELECT posted FROM lanes WHERE funding = $1 AND payee = $2";
            let row =
                sqlx::query(query).bind(funding).bind(i64::from(*payee)).fetch_one(&mut *writing.transaction).await.map_err(&failed)?;
            units += total.saturating_sub(amount(row.get(0)).units());
            let update =
                sqlx::query("UPDATE lanes SET posted = CASE WHEN posted < $1 THEN $1 ELSE posted END WHERE funding = $2 AND payee = $3");
            update
                .bind(signed(Amount::from_units(*total)))
                .bind(funding)
                .bind(i64::from(*payee))
                .execute(&mut *writing.transaction)
                .await
                .map_err(&failed)?;
        }
        if !skipped.is_empty() {
            sqlx::query("UPDATE charges SET post = NULL WHERE post = $1")
                .bind(id)
                .execute(&mut *writing.transaction)
                .await
                .map_err(&failed)?;
        }
        let moved = signed(Amount::from_units(units));
        sqlx::query("UPDATE fundings SET owed = owed - $1, posted = posted + $2 WHERE id = $3")
            .bind(moved)
            .bind(moved)
            .bind(funding)
            .execute(&mut *writing.transaction)
            .await
            .map_err(&failed)?;
        let update = sqlx::query("UPDATE posts SET state = 'FINAL', winner = $1, block = $2, rows = $3 WHERE id = $4");
        let credited = serde_json::to_string(&credited).map_err(|error| LedgerError::Broken(error.to_string()))?;
        let update = update.bind(transaction_hash).bind(block.cast_signed()).bind(credited).bind(id);
        update.execute(&mut *writing.transaction).await.map_err(&failed)?;
        let line = Line::Final {
            post: id.to_owned(),
            funding: funding.to_owned(),
            amount: units,
            transaction: transaction_hash.to_owned(),
            block,
        };
        self.store.append(&mut writing, POSTING, &[line]).await?;
        writing.commit(doing).await?;
        Ok(true)
    }

    /// Gives up a post that can never be mined: its rows are planned again.
    pub async fn void_post(&self, fence: Fence, id: &str) -> Result<()> {
        let mut writing = self.store.begin(fence).await?;
        self.give_up(&mut writing, id).await?;
        writing.commit(GIVING_UP).await
    }

    pub(crate) async fn give_up(&self, writing: &mut Writing, id: &str) -> Result<()> {
        let failed = LedgerError::database(GIVING_UP);
        let row = sqlx::query("SELECT funding FROM posts WHERE id = $1 AND state IN ('PLANNED', 'SIGNED')")
            .bind(id)
            .fetch_optional(&mut *writing.transaction)
            .await;
        let Some(row) = row.map_err(&failed)? else { return Ok(()) };
        let (funding, voided): (String, String) = (row.get(0), format!("{id}:void:{}", writing.mark.head.sequence));
        self.set_aside(writing, id, &voided).await?;
        sqlx::query("UPDATE lanes SET planned = posted WHERE funding = $1")
            .bind(&funding)
            .execute(&mut *writing.transaction)
            .await
            .map_err(&failed)?;
        self.store.append(writing, POSTING, &[Line::Void { post: id.to_owned(), funding }]).await.map(drop)
    }

    /// The same lanes will have the same id again, so what is given up takes another, with its transactions; its usage lines
    /// are planned again.
    pub(crate) async fn set_aside(&self, writing: &mut Writing, id: &str, aside: &str) -> Result<()> {
        let failed = LedgerError::database("setting a post aside");
        let copy = "INSERT INTO posts (id, funding, state, rows, amount, lines_root, journal_head, winner, block, planned_at) \
                    SELECT $1, funding, 'VOID', rows, amount, lines_root, journal_head, winner, block, planned_at FROM posts WHERE id = $2";
        for statement in [
            sqlx::query(copy).bind(aside).bind(id),
            sqlx::query("UPDATE attempts SET post = $1 WHERE post = $2").bind(aside).bind(id),
            sqlx::query("UPDATE charges SET post = NULL WHERE post = $1").bind(id),
            sqlx::query("DELETE FROM posts WHERE id = $1").bind(id),
        ] {
            statement.execute(&mut *writing.transaction).await.map_err(&failed)?;
        }
        Ok(())
    }

    /// The last post of an account that is final.
    pub async fn last_final(&self, funding: &FundingId) -> Result<Option<(String, u64)>> {
        let query = "SELECT winner, block FROM posts WHERE funding = $1 AND state = 'FINAL' ORDER BY block DESC LIMIT 1";
        let row = sqlx::query(query)
            .bind(funding.as_str())
            .fetch_optional(self.pool())
            .await
            .map_err(LedgerError::database("reading the last post"))?;
        Ok(row.map(|row| (row.get(0), row.get::<i64, _>(1).unsigned_abs())))
    }
}

pub(crate) async fn open_post(transaction: &mut Transaction<'_, Any>, funding: &FundingId) -> Result<Option<String>> {
    let query = "SELECT id FROM posts WHERE funding = $1 AND state IN ('PLANNED', 'SIGNED', 'MINED')";
    let row = sqlx::query(query)
        .bind(funding.as_str())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(LedgerError::database("looking for an open post"))?;
    Ok(row.map(|row| row.get(0)))
}

/// A post's rows, from a column.
pub(crate) fn rows(row: &AnyRow, index: usize) -> Result<Vec<(u32, u64)>> {
    serde_json::from_str(row.get(index)).map_err(|_| LedgerError::Broken("a post's rows can't be read".to_owned()))
}

pub(crate) fn post(row: &AnyRow) -> Result<Post> {
    let hash = |index: usize| -> Result<Hash> {
        let bytes: Vec<u8> = row.get(index);
        bytes.try_into().map_err(|_| LedgerError::Broken("a post's hash is not 32 bytes long".to_owned()))
    };
    Ok(Post {
        id: row.get(0),
        funding: FundingId::from_stored(row.get::<String, _>(1)),
        state: PostState::read(row.get(2))?,
        rows: rows(row, 3)?,
        amount: amount(row.get(4)),
        lines_root: hash(5)?,
        journal_head: hash(6)?,
        winner: row.get(7),
        block: row.get::<Option<i64>, _>(8).map(i64::unsigned_abs),
    })
}
