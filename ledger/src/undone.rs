//! What was final and is not on the chain any more: the chain undid what it had promised never to undo.

use crate::commit::signed;
use crate::journal::POSTING;
use crate::outbox::{open_post, post, rows};
use crate::posting::Line;
use crate::{Fence, Ledger, LedgerError, Post, Result};
use sqlx::{Any, Row, Transaction};
use std::collections::BTreeMap;
use supercargo_market::money::Amount;

impl Ledger {
    /// The newest final posts of a chain's accounts, or the newest of those before one of them; the oldest of them first.
    pub async fn newest_final(&self, chain: &str, before: Option<&Post>, most: u32) -> Result<Vec<Post>> {
        let query = "SELECT id, funding, state, rows, amount, lines_root, journal_head, winner, block FROM posts \
                     WHERE state = 'FINAL' AND funding LIKE $1 AND (block < $2 OR (block = $2 AND id > $3)) \
                     ORDER BY block DESC, id LIMIT $4";
        let block = before.map_or(i64::MAX, |post| post.block.unwrap_or_default().cast_signed());
        let id = before.map_or("", |post| post.id.as_str());
        let query = sqlx::query(query).bind(format!("chain:{chain}:%")).bind(block).bind(id.to_owned()).bind(i64::from(most));
        let rows = query.fetch_all(self.pool()).await;
        let rows = rows.map_err(LedgerError::database("reading the newest final posts"))?;
        rows.iter().rev().map(post).collect()
    }

    /// A final post is in another block than it was, or there by another of its transactions.
    pub async fn move_final(&self, fence: Fence, id: &str, transaction_hash: &str, block: u64) -> Result<()> {
        let doing = "noting where a final post is";
        let mut writing = self.store.begin(fence).await?;
        let update = sqlx::query("UPDATE posts SET winner = $1, block = $2 WHERE id = $3 AND state = 'FINAL'");
        let update = update.bind(transaction_hash).bind(block.cast_signed()).bind(id).execute(&mut *writing.transaction).await;
        update.map_err(LedgerError::database(doing))?;
        writing.commit(doing).await
    }

    /// Takes a final post back that can never be on the chain again: what its payees were paid from the account beyond what
    /// other final posts say is owed anew. More than was undone, perhaps: but a row is a total, and the contract knows what it
    /// has. `false`: another post of the account comes first, which is under way, or final and says all of it, too.
    pub async fn undo_final(&self, fence: Fence, id: &str) -> Result<bool> {
        let doing = "taking a final post back";
        let failed = LedgerError::database(doing);
        let mut writing = self.store.begin(fence).await?;
        let query =
            "SELECT id, funding, state, rows, amount, lines_root, journal_head, winner, block FROM posts WHERE id = $1 AND state = 'FINAL'";
        let row = sqlx::query(query).bind(id).fetch_optional(&mut *writing.transaction).await.map_err(&failed)?;
        let Some(found) = row.as_ref().map(post).transpose()? else { return Ok(true) };
        if open_post(&mut writing.transaction, &found.funding).await?.is_some() {
            return Ok(false);
        }
        let (besides, mut units) = (said_besides(&mut writing.transaction, &found).await?, 0);
        for (payee, _) in &found.rows {
            let query = sqlx::query("SELECT posted FROM lanes WHERE funding = $1 AND payee = $2");
            let row = query.bind(found.funding.as_str()).bind(i64::from(*payee)).fetch_one(&mut *writing.transaction).await;
            let posted = row.map_err(&failed)?.get::<i64, _>(0).unsigned_abs();
            let left = besides.get(payee).copied().unwrap_or_default().min(posted);
            units += posted - left;
            let update = sqlx::query("UPDATE lanes SET posted = $1, planned = $1 WHERE funding = $2 AND payee = $3");
            let update = update.bind(signed(Amount::from_units(left))).bind(found.funding.as_str()).bind(i64::from(*payee));
            update.execute(&mut *writing.transaction).await.map_err(&failed)?;
        }
        if units == 0 {
            return Ok(false);
        }
        let moved = signed(Amount::from_units(units));
        let update = sqlx::query("UPDATE fundings SET owed = owed + $1, posted = posted - $2 WHERE id = $3");
        update.bind(moved).bind(moved).bind(found.funding.as_str()).execute(&mut *writing.transaction).await.map_err(&failed)?;
        let undone = format!("{id}:undone:{}", writing.mark.head.sequence);
        self.set_aside(&mut writing, id, &undone).await?;
        let line = Line::Undone { post: id.to_owned(), funding: found.funding.to_string(), amount: units };
        self.store.append(&mut writing, POSTING, &[line]).await?;
        writing.commit(doing).await?;
        Ok(true)
    }
}

/// What the account's other final posts say of each lane: the works that they carry stay paid.
async fn said_besides(transaction: &mut Transaction<'_, Any>, post: &Post) -> Result<BTreeMap<u32, u64>> {
    let query = sqlx::query("SELECT rows FROM posts WHERE funding = $1 AND state = 'FINAL' AND id <> $2");
    let posts = query.bind(post.funding.as_str()).bind(&post.id).fetch_all(&mut **transaction).await;
    let mut said = BTreeMap::new();
    for post in posts.map_err(LedgerError::database("reading what other posts say"))? {
        for (payee, total) in rows(&post, 0)? {
            let most: &mut u64 = said.entry(payee).or_default();
            *most = total.max(*most);
        }
    }
    Ok(said)
}
