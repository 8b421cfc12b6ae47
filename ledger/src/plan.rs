//! Planning a post: which rows it carries, and which usage lines it brings onto the chain with them.
//!
//! A transaction carries so many rows and no more. What an account owes to more payees than that goes in a round: what each of
//! its lanes was owed when the round began, a post after the other. Lanes that grow meanwhile wait for the next round, so none
//! keeps another from its turn; and the usage lines go with the round's last post, when all that they were charged for is posted.
//!
//! What is owed to payees that the contract does not know waits until it does, and with it the usage lines of what was charged
//! for them. Everybody else's are posted.

use crate::batch::FACTS;
use crate::commit::signed;
use crate::journal::POSTING;
use crate::outbox::open_post;
use crate::posting::Line;
use crate::read::lane;
use crate::receipt::lines;
use crate::rows::{Room, owed_to_others, post_id, rows_within};
use crate::store::Writing;
use crate::{Fence, Lane, Ledger, LedgerError, Post, PostState, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::{Any, AssertSqlSafe, Row, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use supercargo_market::journal::{Hash, root};
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

/// As many rows as one transaction carries.
const MOST_ROWS: usize = 100;
const DOING: &str = "planning a post";

/// What is posted to more payees than one post has rows for.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Round {
    /// What each lane of the account was owed when it began.
    totals: BTreeMap<u32, u64>,
    /// The journal's last entry then.
    entry: i64,
}

impl Round {
    /// What of it a lane is still owed, as if it had not grown since.
    fn part(&self, lane: &Lane) -> Lane {
        let total = self.totals.get(&lane.payee).map_or(lane.planned, |units| Amount::from_units(*units).max(lane.planned));
        Lane { total: total.min(lane.total), ..*lane }
    }

    /// Those with least to credit first, as within a post.
    fn left(&self, lanes: &[Lane]) -> Vec<Lane> {
        let mut left = grown(lanes.iter().map(|lane| self.part(lane)));
        left.sort_by_key(|lane| (lane.total.saturating_sub(lane.planned), lane.payee));
        left
    }
}

fn grown(lanes: impl Iterator<Item = Lane>) -> Vec<Lane> {
    lanes.filter(|lane| lane.total > lane.planned).collect()
}

/// What a post is made of.
#[derive(Default)]
struct Cargo {
    rows: Vec<(u32, u64)>,
    /// What they add to what was planned before.
    more: u64,
    /// The usage lines that it carries are those up to this entry of the journal; None: it carries none.
    until: Option<i64>,
    /// And of those not the ones of charges that these payees have a part in: theirs waits.
    unknown: BTreeSet<u32>,
}

impl Ledger {
    /// Plans a post of every lane that has grown, unless one is under way. The same lanes give the same id, as long as no
    /// final post has it.
    pub async fn plan_post(&self, fence: Fence, funding: &FundingId, now: i64) -> Result<Option<Post>> {
        self.plan_post_within(fence, funding, Amount::MAX, now).await
    }

    /// The same of as much as the account lets through now. What has no room waits for the next post, and the usage lines
    /// with it: a post carries those of works that are paid wholly with it, or none.
    pub async fn plan_post_within(
        &self,
        fence: Fence,
        funding: &FundingId,
        room: impl Into<Room> + Send,
        now: i64,
    ) -> Result<Option<Post>> {
        let mut writing = self.store.begin(fence).await?;
        if open_post(&mut writing.transaction, funding).await?.is_some() {
            return Ok(None);
        }
        let Cargo { rows, more, until, unknown } = cargo(&mut writing, funding, &room.into()).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let mut id = post_id(funding, &rows);
        // The chain skipped these very rows before, in a post that is final: this is another one.
        while exists(&mut writing.transaction, &id).await? {
            id = hex::encode(Sha256::digest(id));
        }
        let lines_root = lines_root(&mut writing.transaction, funding, until, &unknown).await?;
        let line = Line::Plan { post: id.clone(), funding: funding.to_string(), amount: more };
        let journal_head = self.store.append(&mut writing, POSTING, &[line]).await?;
        let amount = Amount::from_units(more);
        let (state, funding, winner, block) = (PostState::Planned, funding.clone(), None, None);
        let post = Post { id, funding, state, rows, amount, lines_root, journal_head, winner, block };
        write(&mut writing.transaction, &post, until, &unknown, now).await?;
        writing.commit(DOING).await?;
        Ok(Some(post))
    }
}

/// What the account's next post carries.
async fn cargo(writing: &mut Writing, funding: &FundingId, room: &Room) -> Result<Cargo> {
    let query = "SELECT payee, total, planned, posted FROM lanes WHERE funding = $1 ORDER BY payee";
    let rows = sqlx::query(query).bind(funding.as_str()).fetch_all(&mut *writing.transaction).await;
    let lanes: Vec<Lane> = rows.map_err(LedgerError::database(DOING))?.iter().map(lane).collect();
    let (all, waiting): (Vec<Lane>, Vec<Lane>) = grown(lanes.iter().copied()).into_iter().partition(|lane| room.takes(lane));
    let unknown = waiting.iter().map(|lane| lane.payee).collect();
    if all.len() <= MOST_ROWS {
        let (rows, more, whole) = rows_within(&all, room);
        return Ok(Cargo { rows, more, until: whole.then_some(i64::MAX), unknown });
    }
    // Who gets to be known while a round is posted has its turn in it.
    let payable: Vec<Lane> = lanes.iter().filter(|lane| room.takes(lane)).copied().collect();
    let name = format!("round:{funding}");
    let known = sqlx::query("SELECT value FROM facts WHERE name = $1").bind(name.clone()).fetch_optional(&mut *writing.transaction).await;
    let known: Option<String> = known.map_err(LedgerError::database(DOING))?.map(|row| row.get(0));
    let broken = |_| LedgerError::Broken(format!("the round of posts of {funding} can't be read"));
    let mut round: Round = known.map(|text| serde_json::from_str(&text).map_err(broken)).transpose()?.unwrap_or_default();
    let mut left = round.left(&payable);
    if left.is_empty() {
        let totals = lanes.iter().map(|lane| (lane.payee, lane.total.units())).collect();
        round = Round { totals, entry: writing.mark.head.sequence.cast_signed() };
        left = round.left(&payable);
        let text = serde_json::to_string(&round).map_err(|error| LedgerError::Broken(error.to_string()))?;
        FACTS.put(&mut writing.transaction, vec![name.into(), text.into()], DOING).await?;
    }
    let now = &left[..left.len().min(MOST_ROWS)];
    let (rows, more, whole) = rows_within(now, room);
    Ok(Cargo { rows, more, until: (whole && now.len() == left.len()).then_some(round.entry), unknown })
}

/// The post, what it carries, and what is planned of each lane with it.
async fn write(transaction: &mut Transaction<'_, Any>, post: &Post, until: Option<i64>, unknown: &BTreeSet<u32>, now: i64) -> Result<()> {
    let failed = LedgerError::database(DOING);
    let insert = "INSERT INTO posts (id, funding, state, rows, amount, lines_root, journal_head, planned_at) VALUES ($1, $2, 'PLANNED', $3, $4, $5, $6, $7)";
    sqlx::query(insert)
        .bind(&post.id)
        .bind(post.funding.as_str())
        .bind(serde_json::to_string(&post.rows).map_err(|error| LedgerError::Broken(error.to_string()))?)
        .bind(signed(post.amount))
        .bind(post.lines_root.as_slice())
        .bind(post.journal_head.as_slice())
        .bind(now)
        .execute(&mut **transaction)
        .await
        .map_err(&failed)?;
    for (payee, total) in &post.rows {
        let update = sqlx::query("UPDATE lanes SET planned = $1 WHERE funding = $2 AND payee = $3");
        let update = update.bind(signed(Amount::from_units(*total))).bind(post.funding.as_str()).bind(i64::from(*payee));
        update.execute(&mut **transaction).await.map_err(&failed)?;
    }
    if let Some(until) = until {
        let others = owed_to_others(unknown);
        let update = format!("UPDATE charges SET post = $1 WHERE funding = $2 AND post IS NULL AND COALESCE(entry, 0) <= $3{others}");
        let update = sqlx::query(AssertSqlSafe(update)).bind(&post.id).bind(post.funding.as_str()).bind(until);
        update.execute(&mut **transaction).await.map_err(&failed)?;
    }
    Ok(())
}

async fn exists(transaction: &mut Transaction<'_, Any>, id: &str) -> Result<bool> {
    let row = sqlx::query("SELECT id FROM posts WHERE id = $1").bind(id).fetch_optional(&mut **transaction).await;
    Ok(row.map_err(LedgerError::database("looking for a post"))?.is_some())
}

/// The root of the usage lines that the post carries.
async fn lines_root(
    transaction: &mut Transaction<'_, Any>,
    funding: &FundingId,
    until: Option<i64>,
    unknown: &BTreeSet<u32>,
) -> Result<Hash> {
    let Some(until) = until else { return Ok(root(&[])) };
    let of = format!("funding = $1 AND post IS NULL{}", owed_to_others(unknown));
    let lines = lines(transaction, &of, funding.as_str(), until).await?;
    Ok(root(&lines.into_iter().map(|(_, leaf)| leaf).collect::<Vec<Hash>>()))
}
