//! Posts that were final, looked at again. A chain that undid what it had promised never to undo may have lost them: then the
//! same bytes are sent again, and only where these can never be included any more, and the chain's lanes have less than they said,
//! is what they paid owed anew. Whatever is paid twice by that is credited once: a row is a total.

use super::SettlementError;
use super::rail::{Included, Rail};
use supercargo_ledger::{Attempt, Fence, Ledger, Post};

/// So many of a chain's newest posts are looked at: no reorganisation that anybody mends by waiting goes further back.
const MOST: u32 = 16;

/// What is further down is left alone: no reorganisation goes there, and nodes forget old receipts.
const DEEPEST_BLOCKS: u64 = 100_000;

/// What became of the newest final posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rechecked {
    /// Not on the chain, and sent again.
    pub sent: u64,
    /// Taken back: owed anew.
    pub undone: u64,
}

/// What became of them, and the first thing that kept one of them from being looked at.
pub async fn recheck<R: Rail>(
    ledger: &Ledger,
    fence: Fence,
    rail: &R,
    chain: &str,
) -> Result<(Rechecked, Option<SettlementError>), SettlementError> {
    let (mut rechecked, mut failed) = (Rechecked::default(), None);
    let mut missing = Vec::new();
    for post in ledger.newest_final(chain, MOST).await? {
        // A chain that is shorter than it was comes to this block again.
        let depth = post.block.and_then(|block| rail.finalized_block().checked_sub(block));
        if depth.is_none_or(|depth| depth > DEEPEST_BLOCKS) {
            continue;
        }
        let attempts = ledger.attempts(&post.id).await?;
        let looked = match there(rail, &attempts).await {
            Ok(Some((attempt, found))) => found_again(ledger, fence, rail, &post, attempt, &found, &mut rechecked).await,
            Ok(None) => {
                missing.push((post, attempts));
                Ok(())
            }
            Err(error) => Err(error),
        };
        go_on(looked, &mut failed)?;
    }
    // The oldest first: its nonce comes before the others'.
    for (post, attempts) in missing {
        go_on(bring_back(ledger, fence, rail, &post, &attempts, &mut rechecked).await, &mut failed)?;
    }
    Ok((rechecked, failed))
}

/// What a chain does not say of one post keeps no other from being looked at. Books that can't be used end it.
fn go_on(looked: Result<(), SettlementError>, failed: &mut Option<SettlementError>) -> Result<(), SettlementError> {
    match looked {
        Err(error @ SettlementError::Ledger(_)) => Err(error),
        Err(error) => {
            failed.get_or_insert(error);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// It is there. In another block than before other rows may have been skipped.
async fn found_again<R: Rail>(
    ledger: &Ledger,
    fence: Fence,
    rail: &R,
    post: &Post,
    attempt: &Attempt,
    found: &Included,
    rechecked: &mut Rechecked,
) -> Result<(), SettlementError> {
    if (post.winner.as_deref(), post.block) == (Some(attempt.hash.as_str()), Some(found.block)) {
        return Ok(());
    }
    if found.skipped.is_empty() || rail.is_credited(post).await? {
        return Ok(ledger.move_final(fence, &post.id, &attempt.hash, found.block).await?);
    }
    if ledger.undo_final(fence, &post.id).await? {
        rechecked.undone += 1;
        tracing::error!(post = post.id, "the chain moved a post that was final, and skipped rows of it: what it paid is owed again");
    }
    Ok(())
}

/// The one of its transactions that is in a block, with an effect.
async fn there<'a, R: Rail>(rail: &R, attempts: &'a [Attempt]) -> Result<Option<(&'a Attempt, Included)>, SettlementError> {
    for attempt in attempts {
        if let Some(found) = rail.included(&attempt.hash).await?.filter(|found| found.succeeded) {
            return Ok(Some((attempt, found)));
        }
    }
    Ok(None)
}

async fn bring_back<R: Rail>(
    ledger: &Ledger,
    fence: Fence,
    rail: &R,
    post: &Post,
    attempts: &[Attempt],
    rechecked: &mut Rechecked,
) -> Result<(), SettlementError> {
    let ours = rail.signer();
    let winner = attempts.iter().find(|attempt| Some(&attempt.hash) == post.winner.as_ref() && attempt.signer == ours);
    let last = winner.or_else(|| attempts.iter().rfind(|attempt| attempt.signer == ours));
    if let Some(attempt) = last {
        if rail.latest_nonce().await? <= attempt.nonce {
            rail.send(&attempt.raw).await?;
            rechecked.sent += 1;
            tracing::error!(post = post.id, hash = attempt.hash, "the chain undid a post that was final: the same bytes are sent again");
            return Ok(());
        }
        if rail.final_nonce().await? <= attempt.nonce {
            // What used the nonce may be undone too, and ours come back.
            return Ok(());
        }
    }
    if rail.is_credited(post).await? {
        // A node has forgotten the receipt, or a claim or a later post has brought it: nothing of it is lost.
        return Ok(());
    }
    if ledger.undo_final(fence, &post.id).await? {
        rechecked.undone += 1;
        tracing::error!(post = post.id, "the chain undid a post that was final, and it can't come back: what it paid is owed again");
    }
    Ok(())
}
