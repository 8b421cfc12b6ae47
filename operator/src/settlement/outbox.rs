//! One step of a post at a time. Whatever happened before this moment, the ledger's rows and the chain's answers decide
//! what comes next; nothing is remembered in between.

use super::SettlementError;
use super::rail::{Included, Rail, Takes, borne_out};
use std::collections::{BTreeMap, BTreeSet};
use supercargo_ledger::{Attempt, Fence, Ledger, Post, PostState};
use supercargo_market::work::FundingId;

/// What is not included in this time is replaced by bytes that offer more.
const SECONDS_BEFORE_REPLACEMENT: i64 = 60;
/// After so many attempts more is offered only when gas costs more than the last of them does, and less often.
const MOST_ATTEMPTS: usize = 6;
pub const SECONDS_BEFORE_LATE_REPLACEMENT: i64 = 600;

/// What came of one step of every open post.
#[derive(Debug, Default)]
pub struct Progress {
    /// Posts that became final, with the gas that they used.
    pub done: Vec<(Post, u64)>,
    /// How many were given up: they can never be included with an effect, or were refused before they were signed.
    pub void: u64,
    /// Accounts whose post is on its way now.
    pub signed: Vec<FundingId>,
    /// Accounts whose post the contract refuses, in words.
    pub refused: BTreeMap<FundingId, String>,
    /// Accounts whose post can't go on, and what is known of why; and those whose post waits for a lane's window.
    pub kept: BTreeMap<FundingId, String>,
    pub waits: BTreeSet<FundingId>,
    /// What kept the rest from a step.
    pub failed: Option<SettlementError>,
}

/// Brings each open post of a chain one step further. Of accounts that are held nothing new is signed.
pub async fn advance<R: Rail>(
    ledger: &Ledger,
    fence: Fence,
    rail: &R,
    chain: &str,
    held: &BTreeSet<FundingId>,
    now: i64,
) -> Result<Progress, SettlementError> {
    let mut progress = Progress::default();
    let posts: Vec<Post> =
        ledger.open_posts().await?.into_iter().filter(|post| post.funding.account().is_some_and(|(name, _)| name == chain)).collect();
    // Of a signer's one post waits for its block at a time: its nonces follow each other without a gap. That a block becomes final is
    // waited for by many at once.
    let (begun, planned): (Vec<Post>, Vec<Post>) = posts.into_iter().partition(|post| post.state != PostState::Planned);
    let quill = Quill { now, lent: ledger.foreign_nonce(chain, &rail.signer()).await?.is_some() };
    let mut busy = false;
    for post in begun.into_iter().chain(planned) {
        if post.state == PostState::Planned && (busy || quill.lent || held.contains(&post.funding)) {
            continue;
        }
        match step(ledger, fence, rail, &post, quill).await {
            Ok(Step::Final(gas_used)) => {
                // Its nonce is known to be used only at the next look.
                busy = true;
                progress.done.push((post, gas_used));
            }
            Ok(Step::UnderWay) => {
                busy = true;
                progress.signed.push(post.funding);
            }
            // The next nonce is free, and the chain says so.
            Ok(Step::Mined) => progress.signed.push(post.funding),
            Ok(Step::Waits) => drop(progress.waits.insert(post.funding)),
            Ok(Step::Void) => {
                busy = true;
                progress.void += 1;
            }
            // Nothing of it was signed by the key in use, so its nonce is free for the next.
            Err(SettlementError::Refused(words)) => {
                // As it is cut the contract may never take it: the next plan is of what is owed and what room there is then.
                if post.state == PostState::Planned {
                    ledger.void_post(fence, &post.id).await?;
                    progress.void += 1;
                }
                progress.refused.insert(post.funding, words);
            }
            Err(error) => {
                // Nothing was signed: what can't be known of one account holds up no other.
                let is_alone = post.state == PostState::Planned
                    && matches!(error, SettlementError::Waiting(_) | SettlementError::Chain(_))
                    && ledger.attempts(&post.id).await?.is_empty();
                progress.kept.insert(post.funding, error.briefly());
                progress.failed.get_or_insert(error);
                if !is_alone {
                    break;
                }
            }
        }
    }
    Ok(progress)
}

/// When bytes would be signed, and whether somebody else signs with the key, too: then it signs nothing new.
#[derive(Clone, Copy)]
struct Quill {
    now: i64,
    lent: bool,
}

/// What a step brought a post to.
enum Step {
    /// Its account's window is open, or for another key.
    Waits,
    /// It was given up, and its rows are planned again.
    Void,
    UnderWay,
    /// It is in a block that can still be undone, and its nonce is used.
    Mined,
    Final(u64),
}

async fn step<R: Rail>(ledger: &Ledger, fence: Fence, rail: &R, post: &Post, quill: Quill) -> Result<Step, SettlementError> {
    match post.state {
        PostState::Planned if is_ready(ledger, rail, post, quill.now).await? => first_attempt(ledger, fence, rail, post, quill.now).await,
        PostState::Signed | PostState::Mined => signed(ledger, fence, rail, post, quill).await,
        PostState::Planned | PostState::Final | PostState::Void => Ok(Step::Waits),
    }
}

/// Rows of one post are credited together, so that the works that they pay are paid whole. But whose lane is closed again and
/// again, by claims or by another's, keeps nobody waiting for longer than a lane is closed once.
async fn is_ready<R: Rail>(ledger: &Ledger, rail: &R, post: &Post, now: i64) -> Result<bool, SettlementError> {
    match rail.takes(post).await? {
        Takes::All => Ok(true),
        Takes::Nothing => Ok(false),
        Takes::Some { window_seconds } => {
            let since = ledger.open_since(&post.funding).await?.unwrap_or(now);
            Ok(now < since || now >= since.saturating_add_unsigned(window_seconds))
        }
    }
}

/// With the signer's next nonce. What is sent was written down before.
async fn first_attempt<R: Rail>(ledger: &Ledger, fence: Fence, rail: &R, post: &Post, now: i64) -> Result<Step, SettlementError> {
    let nonce = rail.latest_nonce().await?;
    let attempt = rail.sign(post, nonce, 0).await?;
    ledger.record_attempt(fence, &post.id, &attempt, now).await?;
    rail.send(&attempt.raw).await?;
    Ok(Step::UnderWay)
}

/// Bytes exist that may be on their way: what became of them?
async fn signed<R: Rail>(ledger: &Ledger, fence: Fence, rail: &R, post: &Post, quill: Quill) -> Result<Step, SettlementError> {
    let attempts = ledger.attempts(&post.id).await?;
    let ours = rail.signer();
    let mut by_few = None;
    for attempt in &attempts {
        // What a key that is no longer the settler's has sent may fail, and the new one's is still to come.
        match rail.included(&attempt.hash).await?.filter(|included| included.succeeded || attempt.signer == ours) {
            Some(included) if included.by_few => drop(by_few.get_or_insert((attempt, included))),
            Some(included) => return mined(ledger, fence, rail, post, attempt, &included).await,
            None => {}
        }
    }
    if let Some((attempt, included)) = by_few {
        return mined(ledger, fence, rail, post, attempt, &included).await;
    }
    if post.state == PostState::Mined {
        // The block that it was in was undone.
        ledger.mark_mined(fence, &post.id, None).await?;
    }
    let (mine, next): (Vec<_>, _) = (attempts.into_iter().filter(|attempt| attempt.signer == ours).collect(), rail.latest_nonce().await?);
    let Some(last) = foremost(&mine, next) else {
        if quill.lent {
            return Ok(Step::Waits);
        }
        // The settler has another key now. Both may be included, and count once: a row is a total.
        return first_attempt(ledger, fence, rail, post, quill.now).await;
    };
    if next > last.nonce {
        // The nonce is used. By ours, if its receipt is only late: the next look tells. Else by somebody with our key.
        for attempt in &mine {
            if rail.included(&attempt.hash).await?.is_some() {
                return Ok(Step::UnderWay);
            }
        }
        return foreign_nonce(ledger, fence, rail, post, last).await;
    }
    if next < last.nonce && !quill.lent && !ledger.is_nonce_wanted(&ours, next).await? {
        // The chain undid what was final, and nothing of ours comes before these bytes any more: the post takes that nonce, too.
        return first_attempt(ledger, fence, rail, post, quill.now).await;
    }
    let tries = mine.len();
    if !quill.lent && is_late(tries, ledger.last_signed_at(&post.id).await?, quill.now) {
        match replacement(rail, post, last, tries).await {
            Ok(Some(replacement)) => {
                ledger.record_attempt(fence, &post.id, &replacement, quill.now).await?;
                rail.send(&replacement.raw).await?;
                return Ok(Step::UnderWay);
            }
            Ok(None) => {}
            // The first bytes may still be on their way, or be taken when the contract takes them again.
            Err(SettlementError::Refused(words) | SettlementError::NoGas(words)) => tracing::warn!(post = post.id, words, "not replaced"),
            // They may do when gas is cheaper.
            Err(dear @ SettlementError::FeeHigh(_)) => {
                rail.send(&last.raw).await?;
                return Err(dear);
            }
            Err(error) => return Err(error),
        }
    }
    rail.send(&last.raw).await?;
    Ok(Step::UnderWay)
}

/// Of the same key's: what can be included first is the newest with the lowest nonce that is not used. Where all are used, the
/// newest with the highest.
pub fn foremost(attempts: &[Attempt], next: u64) -> Option<&Attempt> {
    let free = attempts.iter().rev().filter(|attempt| attempt.nonce >= next).min_by_key(|attempt| attempt.nonce);
    free.or_else(|| attempts.iter().max_by_key(|attempt| attempt.nonce))
}

/// Whether more may be offered now. A time that is yet to come was told by a clock that was wrong.
fn is_late(tries: usize, signed_at: i64, now: i64) -> bool {
    is_over(signed_at, if tries < MOST_ATTEMPTS { SECONDS_BEFORE_REPLACEMENT } else { SECONDS_BEFORE_LATE_REPLACEMENT }, now)
}

pub fn is_over(signed_at: i64, patience_seconds: i64, now: i64) -> bool {
    now < signed_at || now >= signed_at + patience_seconds
}

/// Nodes want an eighth more for a replacement; the same nonce, so that only one of them can ever be included.
async fn replacement<R: Rail>(rail: &R, post: &Post, last: &Attempt, tries: usize) -> Result<Option<Attempt>, SettlementError> {
    // What was offered more for so often and is enough by now waits for something else than a fee.
    if tries >= MOST_ATTEMPTS && rail.sign(post, last.nonce, 0).await?.max_fee <= last.max_fee {
        return Ok(None);
    }
    dearer(rail, post, last).await.map(Some)
}

/// The same call for as much more as nodes want of a replacement, or for what gas costs if that is more.
pub async fn dearer<R: Rail>(rail: &R, post: &Post, last: &Attempt) -> Result<Attempt, SettlementError> {
    rail.replace(post, last, last.max_fee + last.max_fee / 4 + 1).await
}

async fn mined<R: Rail>(
    ledger: &Ledger,
    fence: Fence,
    rail: &R,
    post: &Post,
    attempt: &Attempt,
    included: &Included,
) -> Result<Step, SettlementError> {
    if included.block > rail.finalized_block() {
        ledger.mark_mined(fence, &post.id, Some((&attempt.hash, included.block))).await?;
        // Where nobody can say, the next one waits: what is mined already is kept from nothing by that.
        let is_used = attempt.signer != rail.signer() || rail.latest_nonce().await.is_ok_and(|next| next > attempt.nonce);
        return Ok(if is_used { Step::Mined } else { Step::UnderWay });
    }
    let included = borne_out(rail, post, attempt, included).await?;
    if included.succeeded {
        ledger.book_final(fence, &post.id, &attempt.hash, included.block, &included.skipped).await?;
        return Ok(Step::Final(included.gas_used));
    }
    // Final and failed: nothing was credited, and never will be by these bytes.
    ledger.mark_mined(fence, &post.id, None).await?;
    ledger.void_post(fence, &post.id).await?;
    Ok(Step::Void)
}

/// Our nonce is used by other bytes. Once that is beyond doubt final, ours can never be included: the rows are planned again, and
/// paid once all the same, since a row is a total. Bytes that these books never saw are somebody else's, who has the key.
async fn foreign_nonce<R: Rail>(ledger: &Ledger, fence: Fence, rail: &R, post: &Post, last: &Attempt) -> Result<Step, SettlementError> {
    if rail.final_nonce().await? <= last.nonce {
        return Ok(Step::UnderWay);
    }
    // Where a chain undid what was final a nonce is used a second time, by another post's bytes.
    for hash in ledger.signed_with(&last.signer, last.nonce).await? {
        if rail.included(&hash).await?.is_some() {
            ledger.void_post(fence, &post.id).await?;
            return Ok(Step::Void);
        }
    }
    if rail.is_credited(post).await? {
        // What was posted is there: a node has forgotten the receipt. The same rows again credit nothing, and are booked.
        ledger.void_post(fence, &post.id).await?;
        return Ok(Step::Void);
    }
    let chain = post.funding.account().map(|(chain, _)| chain).unwrap_or_default();
    ledger.note_foreign_nonce(fence, &post.id, chain, &last.signer, last.nonce).await?;
    tracing::error!(signer = last.signer, nonce = last.nonce, "a transaction that we did not make used our nonce: nothing more is signed");
    Ok(Step::Void)
}
