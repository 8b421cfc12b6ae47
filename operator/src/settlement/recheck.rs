//! Posts that were final, looked at again. A chain that undid what it had promised never to undo may have lost them: then the
//! same bytes are sent again, or, where gas costs more by now than they offer, the same call for more. Only where these can never
//! be included any more, and the chain's lanes have less than they said, is what they paid owed anew. Whatever is paid twice by that
//! is credited once: a row is a total.

use super::SettlementError;
use super::outbox::{SECONDS_BEFORE_LATE_REPLACEMENT, dearer, foremost, is_over};
use super::rail::{Included, Rail};
use super::untold::Untold;
use supercargo_ledger::{Attempt, Fence, Ledger, Post};

/// So many posts are looked at, the newest first, and the next ones as long as one of these is not where it was: what a chain
/// undid is everything from some block on.
const PAGE: u32 = 16;

/// What is further down is left alone: no reorganisation goes there, and nodes forget old receipts.
const DEEPEST_BLOCKS: u64 = 100_000;

/// What became of final posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rechecked {
    /// Not on the chain, and sent again.
    pub sent: u64,
    /// Taken back: owed anew.
    pub undone: u64,
}

/// What can be done for a post that is in no block any more.
enum Fate {
    /// Its bytes can be included again: those that were, and of the same nonce those that offer most.
    Free { first: Attempt, dearest: Attempt },
    /// What used its nonce may be undone too, and its bytes come back.
    Unsure,
    /// A node has forgotten the receipt, or a claim or a later post has brought it: nothing of it is lost.
    Credited,
    /// It can never come back.
    Gone,
}

/// What became of them, which is to be told of those that are not what they were, and the first thing that kept one of them from being looked at.
pub async fn recheck<R: Rail>(
    ledger: &Ledger,
    fence: Fence,
    rail: &R,
    chain: &str,
    untold: &mut Untold,
    now: i64,
) -> Result<(Rechecked, Option<SettlementError>), SettlementError> {
    let mut recheck = Recheck { ledger, fence, rail, untold, done: Rechecked::default(), failed: None };
    let lost = recheck.look(chain).await?;
    recheck.untold.missing(lost.iter().map(|(post, _)| post));
    let closed = recheck.close_gap(chain, &lost, now).await;
    recheck.go_on(closed)?;
    // The oldest first: its nonce comes before the others'.
    for (post, fate) in lost.iter().rev() {
        if let Fate::Free { first, dearest } = fate {
            let sent = recheck.send_again(chain, post, (first, dearest), now).await;
            recheck.go_on(sent)?;
        }
    }
    // The newest first: it says the most of each lane.
    for (post, _) in lost.iter().filter(|(_, fate)| matches!(fate, Fate::Gone)) {
        recheck.undo(post, "the chain undid a post that was final, and it can't come back: what it paid is owed again").await?;
    }
    Ok((recheck.done, recheck.failed))
}

struct Recheck<'a, R> {
    ledger: &'a Ledger,
    fence: Fence,
    rail: &'a R,
    untold: &'a mut Untold,
    done: Rechecked,
    failed: Option<SettlementError>,
}

impl<R: Rail> Recheck<'_, R> {
    /// The posts that are not on the chain, the newest first.
    async fn look(&mut self, chain: &str) -> Result<Vec<(Post, Fate)>, SettlementError> {
        let (mut lost, mut before) = (Vec::new(), None);
        loop {
            let page = self.ledger.newest_final(chain, before.as_ref(), PAGE).await?;
            let Some(oldest) = page.first().cloned() else { return Ok(lost) };
            let mut moved = false;
            for post in page.into_iter().rev() {
                // A chain that is shorter than it was comes to this block again.
                let depth = post.block.and_then(|block| self.rail.finalized_block().checked_sub(block));
                if depth.is_some_and(|depth| depth > DEEPEST_BLOCKS) {
                    return Ok(lost);
                }
                moved |= depth.is_none();
                if depth.is_some() {
                    let looked = self.look_at(post, &mut lost).await;
                    moved |= self.go_on(looked)?;
                }
            }
            if !moved {
                return Ok(lost);
            }
            before = Some(oldest);
        }
    }

    /// Whether it is somewhere else than it was.
    async fn look_at(&mut self, post: Post, lost: &mut Vec<(Post, Fate)>) -> Result<bool, SettlementError> {
        let attempts = self.ledger.attempts(&post.id).await?;
        if let Some((attempt, found)) = there(self.rail, &post, &attempts).await? {
            // What a few remember moves nothing: it is where it was as long as its lanes say so.
            if found.by_few {
                return Ok(false);
            }
            let moved = (post.winner.as_deref(), post.block) != (Some(attempt.hash.as_str()), Some(found.block));
            if moved {
                self.found_again(&post, attempt, &found).await?;
            }
            return Ok(moved);
        }
        let fate = self.fate(&post, attempts).await?;
        let moved = !matches!(fate, Fate::Credited);
        lost.push((post, fate));
        Ok(moved)
    }

    /// What a chain does not say of one post keeps no other from being looked at. Books that can't be used end it.
    fn go_on<T: Default>(&mut self, looked: Result<T, SettlementError>) -> Result<T, SettlementError> {
        match looked {
            Err(error @ SettlementError::Ledger(_)) => Err(error),
            Err(error) => {
                self.failed.get_or_insert(error);
                Ok(T::default())
            }
            Ok(value) => Ok(value),
        }
    }

    /// It is there. In another block than before other rows may have been skipped.
    async fn found_again(&mut self, post: &Post, attempt: &Attempt, found: &Included) -> Result<(), SettlementError> {
        if found.skipped.is_empty() || self.rail.is_credited(post).await? {
            self.ledger.move_final(self.fence, &post.id, &attempt.hash, found.block).await?;
            self.untold.post(&post.funding, &post.id);
            return Ok(());
        }
        self.undo(post, "the chain moved a post that was final, and skipped rows of it: what it paid is owed again").await
    }

    async fn fate(&self, post: &Post, attempts: Vec<Attempt>) -> Result<Fate, SettlementError> {
        let ours: Vec<Attempt> = attempts.into_iter().filter(|attempt| attempt.signer == self.rail.signer()).collect();
        let next = self.rail.latest_nonce().await?;
        if let Some(attempt) = foremost(&ours, next) {
            if next <= attempt.nonce {
                let same = || ours.iter().filter(|other| other.nonce == attempt.nonce);
                let first = same().find(|other| Some(&other.hash) == post.winner.as_ref()).unwrap_or(attempt).clone();
                let dearest = same().max_by_key(|other| other.max_fee).unwrap_or(attempt).clone();
                return Ok(Fate::Free { first, dearest });
            }
            if self.rail.final_nonce().await? <= attempt.nonce {
                return Ok(Fate::Unsure);
            }
        }
        Ok(if self.rail.is_credited(post).await? { Fate::Credited } else { Fate::Gone })
    }

    /// Bytes whose nonce comes after one that nothing of ours uses any more are never included: the oldest of these posts is signed
    /// for that, too. Both count once: a row is a total.
    async fn close_gap(&mut self, chain: &str, lost: &[(Post, Fate)], now: i64) -> Result<(), SettlementError> {
        let free =
            lost.iter().filter_map(|(post, fate)| if let Fate::Free { first, .. } = fate { Some((first.nonce, post)) } else { None });
        let Some((lowest, post)) = free.min_by_key(|(nonce, _)| *nonce) else { return Ok(()) };
        let (signer, next) = (self.rail.signer(), self.rail.latest_nonce().await?);
        let lent = self.ledger.foreign_nonce(chain, &signer).await?.is_some();
        if lent || next >= lowest || self.ledger.is_nonce_wanted(&signer, next).await? {
            return Ok(());
        }
        let attempt = self.rail.sign(post, next, 0).await?;
        self.ledger.record_attempt(self.fence, &post.id, &attempt, now).await?;
        tracing::error!(post = post.id, next, lowest, "the chain undid what was final: a post is signed for a nonce that nothing else has");
        self.rail.send(&attempt.raw).await
    }

    async fn send_again(
        &mut self,
        chain: &str,
        post: &Post,
        (first, dearest): (&Attempt, &Attempt),
        now: i64,
    ) -> Result<(), SettlementError> {
        let attempt = match self.enough(chain, post, (first, dearest), now).await {
            Ok(attempt) => attempt,
            Err(error @ SettlementError::Ledger(_)) => return Err(error),
            // Whatever keeps it from being signed for more, what was signed may do.
            Err(error) => {
                tracing::warn!(post = post.id, "not replaced: {error}");
                dearest.clone()
            }
        };
        self.rail.send(&attempt.raw).await?;
        self.done.sent += 1;
        if self.untold.undone(&post.id) {
            tracing::error!(post = post.id, hash = attempt.hash, "the chain undid a post that was final: it is sent again");
        }
        Ok(())
    }

    /// Of what was signed for the post with one nonce the bytes that offer enough by now, or others that do, written down. Since all
    /// of them call the same, whichever is included does the same. More is offered only when gas costs more, as it is of a post
    /// that was replaced often: most that a chain undid comes back by itself.
    async fn enough(&self, chain: &str, post: &Post, (first, dearest): (&Attempt, &Attempt), now: i64) -> Result<Attempt, SettlementError> {
        let is_lent = self.ledger.foreign_nonce(chain, &self.rail.signer()).await?.is_some();
        let signed_at = self.ledger.last_signed_at(&post.id).await?;
        if is_lent || !is_over(signed_at, SECONDS_BEFORE_LATE_REPLACEMENT, now) {
            return Ok(dearest.clone());
        }
        let fee = self.rail.sign(post, dearest.nonce, 0).await?.max_fee;
        if let Some(enough) = [first, dearest].into_iter().find(|attempt| attempt.max_fee >= fee) {
            return Ok(enough.clone());
        }
        let replacement = dearer(self.rail, post, dearest).await?;
        self.ledger.record_attempt(self.fence, &post.id, &replacement, now).await?;
        Ok(replacement)
    }

    async fn undo(&mut self, post: &Post, words: &str) -> Result<(), SettlementError> {
        self.untold.taken_back(self.ledger, post).await?;
        if self.ledger.undo_final(self.fence, &post.id).await? {
            self.done.undone += 1;
            self.untold.undone(&post.id);
            tracing::error!(post = post.id, "{words}");
        }
        Ok(())
    }
}

/// The one of its transactions that is in a block, with an effect.
async fn there<'a, R: Rail>(rail: &R, post: &Post, attempts: &'a [Attempt]) -> Result<Option<(&'a Attempt, Included)>, SettlementError> {
    for attempt in attempts {
        if let Some(found) = rail.included(&attempt.hash).await?.filter(|found| found.succeeded)
            && (!found.by_few || rail.is_credited(post).await?)
        {
            return Ok(Some((attempt, found)));
        }
    }
    Ok(None)
}
