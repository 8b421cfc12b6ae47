//! One step of a post at a time. Whatever happened before this moment, the ledger's rows and the chain's answers decide
//! what comes next; nothing is remembered in between.

use super::SettlementError;
use super::rail::{Included, Rail};
use supercargo_ledger::{Attempt, Fence, Ledger, Post, PostState};
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

/// After so many sendings without inclusion the fee is raised; so often at most.
const SECONDS_BEFORE_REPLACEMENT: i64 = 60;
const MOST_ATTEMPTS: usize = 6;

/// Plans a post of what an account owes, when it is worth one.
pub async fn plan<R: Rail>(
    ledger: &Ledger,
    fence: Fence,
    _rail: &R,
    funding: &FundingId,
    least: Amount,
    now: i64,
) -> Result<(), SettlementError> {
    let lanes = ledger.lanes(funding).await?;
    let owed: u64 = lanes.iter().map(|lane| lane.total.units() - lane.planned.units()).sum();
    if owed > 0 && owed >= least.units() {
        ledger.plan_post(fence, funding, now).await?;
    }
    Ok(())
}

/// Brings each open post of a chain one step further. Gives back those that became final.
pub async fn advance<R: Rail>(ledger: &Ledger, fence: Fence, rail: &R, chain: &str, now: i64) -> Result<Vec<Post>, SettlementError> {
    let mut done = Vec::new();
    let posts: Vec<Post> =
        ledger.open_posts().await?.into_iter().filter(|post| post.funding.account().is_some_and(|(name, _)| name == chain)).collect();
    // One post of a signer is under way at a time: its nonces follow each other without a gap.
    let mut busy = posts.iter().any(|post| matches!(post.state, PostState::Signed | PostState::Mined));
    for post in posts {
        if post.state == PostState::Planned && busy {
            continue;
        }
        match step(ledger, fence, rail, &post, now).await {
            Ok(true) => done.push(post),
            Ok(false) => busy = true,
            // Nothing of it was signed, so its nonce is free for the next; it is tried again at the next look.
            Err(SettlementError::Refused(words)) if post.state == PostState::Planned => {
                tracing::warn!(post = post.id, words, "the contract refuses a post");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Whether the post became final.
async fn step<R: Rail>(ledger: &Ledger, fence: Fence, rail: &R, post: &Post, now: i64) -> Result<bool, SettlementError> {
    match post.state {
        PostState::Planned => {
            if rail.window_is_closed(post).await? {
                let nonce = rail.latest_nonce().await?;
                let attempt = rail.sign(post, nonce, 0).await?;
                ledger.record_attempt(fence, &post.id, &attempt, now).await?;
                rail.send(&attempt.raw).await?;
            }
            Ok(false)
        }
        PostState::Signed | PostState::Mined => signed(ledger, fence, rail, post, now).await,
        PostState::Final | PostState::Void => Ok(false),
    }
}

/// Bytes exist that may be on their way: what became of them?
async fn signed<R: Rail>(ledger: &Ledger, fence: Fence, rail: &R, post: &Post, now: i64) -> Result<bool, SettlementError> {
    let attempts = ledger.attempts(&post.id).await?;
    for attempt in &attempts {
        if let Some(included) = rail.included(&attempt.hash).await? {
            return mined(ledger, fence, rail, post, attempt, &included).await;
        }
    }
    if post.state == PostState::Mined {
        // The block that it was in was undone.
        ledger.mark_mined(fence, &post.id, None).await?;
    }
    let Some(last) = attempts.last() else {
        return Err(SettlementError::Stalled(format!("post {} is signed and has no transaction", post.id)));
    };
    if rail.latest_nonce().await? > last.nonce {
        // The nonce is used. By ours, if its receipt is only late: the next look tells. Else by somebody with our key.
        for attempt in &attempts {
            if rail.included(&attempt.hash).await?.is_some() {
                return Ok(false);
            }
        }
        return foreign_nonce(ledger, fence, rail, post, last).await;
    }
    if attempts.len() < MOST_ATTEMPTS && now >= ledger.last_signed_at(&post.id).await? + SECONDS_BEFORE_REPLACEMENT {
        // Nodes want an eighth more for a replacement; the same nonce, so that only one of them can ever be included.
        let replacement = rail.sign(post, last.nonce, last.max_fee + last.max_fee / 4 + 1).await?;
        ledger.record_attempt(fence, &post.id, &replacement, now).await?;
        rail.send(&replacement.raw).await?;
        return Ok(false);
    }
    rail.send(&last.raw).await?;
    Ok(false)
}

async fn mined<R: Rail>(
    ledger: &Ledger,
    fence: Fence,
    rail: &R,
    post: &Post,
    attempt: &Attempt,
    included: &Included,
) -> Result<bool, SettlementError> {
    if included.block > rail.finalized_block().await? {
        ledger.mark_mined(fence, &post.id, Some((&attempt.hash, included.block))).await?;
        return Ok(false);
    }
    if included.succeeded {
        ledger.book_final(fence, &post.id, &attempt.hash, included.block, &included.skipped).await?;
        return Ok(true);
    }
    // Final and failed: nothing was credited, and never will be by these bytes.
    ledger.mark_mined(fence, &post.id, None).await?;
    ledger.void_post(fence, &post.id).await?;
    Ok(false)
}

/// Somebody else used our nonce. Once that is beyond doubt final, our bytes can never be included: the rows are planned
/// again, and paid once all the same, since a row is a total.
async fn foreign_nonce<R: Rail>(ledger: &Ledger, fence: Fence, rail: &R, post: &Post, last: &Attempt) -> Result<bool, SettlementError> {
    if rail.final_nonce().await? > last.nonce {
        ledger.void_post(fence, &post.id).await?;
        tracing::error!(
            signer = rail.signer(),
            nonce = last.nonce,
            "a transaction that we did not make used our nonce: the key may be in other hands"
        );
    }
    Ok(false)
}
