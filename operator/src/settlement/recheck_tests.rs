//! Final posts that a chain undid, looked at again, with the real books.

use super::SettlementError;
use super::outbox_tests::{PLAIN, Told, books, is_included, step, used};
use super::rail::{Included, Rail, Takes};
use super::recheck::{Rechecked, recheck};
use super::simulation::{account, charge, open};
use super::untold::Untold;
use std::sync::Mutex;
use supercargo_ledger::{Attempt, Fence, Ledger, Post};

/// A chain of one post a block, from block 1 on. It has so many of them, and has forgotten the receipts of the first.
struct Undone {
    has: u64,
    forgotten: u64,
    finalized: u64,
    credited: bool,
    asked: Mutex<u32>,
    sent: Mutex<Vec<u64>>,
    /// What gas costs; nobody says it otherwise.
    fee: Option<u128>,
}

impl Undone {
    fn of(has: u64) -> Self {
        Self { has, forgotten: 0, finalized: 100, credited: false, asked: Mutex::default(), sent: Mutex::default(), fee: None }
    }

    /// How many receipts were asked for, and which posts were sent again.
    async fn looked(&self, ledger: &Ledger, fence: Fence) -> (u32, Vec<u64>) {
        self.looked_at(ledger, fence, 30).await
    }

    async fn looked_at(&self, ledger: &Ledger, fence: Fence, now: i64) -> (u32, Vec<u64>) {
        let (_, failed) = recheck(ledger, fence, self, "c", &mut Untold::default(), now).await.expect("looks");
        assert!(failed.is_none(), "{failed:?}");
        (*self.asked.lock().expect("one thread"), self.sent.lock().expect("one thread").clone())
    }
}

impl Rail for Undone {
    fn signer(&self) -> String {
        "one".to_owned()
    }
    fn finalized_block(&self) -> u64 {
        self.finalized
    }
    async fn latest_nonce(&self) -> Result<u64, SettlementError> {
        Ok(self.has)
    }
    async fn final_nonce(&self) -> Result<u64, SettlementError> {
        Ok(self.has)
    }
    async fn included(&self, hash: &str) -> Result<Option<Included>, SettlementError> {
        *self.asked.lock().expect("one thread") += 1;
        let number: u64 = hash.parse().expect("a number");
        Ok((self.forgotten..self.has).contains(&number).then(|| Included {
            block: number + 1,
            succeeded: true,
            skipped: Vec::new(),
            gas_used: 0,
            by_few: false,
        }))
    }
    async fn takes(&self, _: &Post) -> Result<Takes, SettlementError> {
        Ok(Takes::All)
    }
    async fn is_credited(&self, _: &Post) -> Result<bool, SettlementError> {
        Ok(self.credited)
    }
    async fn sign(&self, post: &Post, nonce: u64, least_fee: u128) -> Result<Attempt, SettlementError> {
        let nobody = || SettlementError::Waiting("nobody says what gas costs".to_owned());
        let max_fee = self.fee.ok_or_else(nobody)?.max(least_fee);
        // Its hash is that of nothing in a block.
        let raw = vec![100 + u8::try_from(max_fee).expect("is small")];
        assert_eq!(post.winner, Some(nonce.to_string()), "it is the nonce that it was in a block with");
        Ok(Attempt { hash: format!("{}{max_fee}", 1_000 + nonce), signer: self.signer(), nonce, raw, max_fee })
    }
    async fn replace(&self, post: &Post, signed: &Attempt, least_fee: u128) -> Result<Attempt, SettlementError> {
        self.sign(post, signed.nonce, least_fee).await
    }
    async fn send(&self, raw: &[u8]) -> Result<(), SettlementError> {
        self.sent.lock().expect("one thread").push(raw[0].into());
        Ok(())
    }
}

/// Final posts in a block each, of two accounts in turn.
async fn posted(posts: u8) -> (Ledger, Fence) {
    let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
    let fence = ledger.take_lead("one").await.expect("leads");
    open(&ledger, fence).await;
    for number in 0..posts {
        let whose = u64::from(number % 2);
        ledger.commit(fence, &[charge(whose, number.into(), 100)]).await.expect("commits");
        let post = ledger.plan_post(fence, &account(whose), 0).await.expect("plans").expect("it is owed");
        let attempt = Attempt { hash: number.to_string(), signer: "one".into(), nonce: number.into(), raw: vec![number], max_fee: 1 };
        ledger.record_attempt(fence, &post.id, &attempt, 0).await.expect("is written down");
        ledger.book_final(fence, &post.id, &attempt.hash, u64::from(number) + 1, &[]).await.expect("books");
    }
    (ledger, fence)
}

#[tokio::test]
async fn all_that_a_chain_undid_is_sent_again_however_much_it_is_and_the_oldest_first() {
    let (ledger, fence) = posted(50).await;
    for has in [3, 17, 18, 34, 49] {
        let (_, sent) = Undone::of(has).looked(&ledger, fence).await;
        assert_eq!(sent, (has..50).collect::<Vec<_>>(), "the chain has {has} of 50");
    }
    // It is shorter now, and comes to the later ones again.
    let shorter = Undone { finalized: 20, ..Undone::of(3) };
    assert_eq!(shorter.looked(&ledger, fence).await.1, (3..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_was_final_and_is_sent_again_offers_more_once_gas_costs_more_and_never_has_another_nonce() {
    let (ledger, fence) = posted(2).await;
    let id = ledger.newest_final("c", None, 1).await.expect("reads").remove(0).id;
    let signed = async || -> Vec<(u64, u128)> {
        ledger.attempts(&id).await.expect("reads").iter().map(|attempt| (attempt.nonce, attempt.max_fee)).collect()
    };
    // The second post is gone. The first number of its bytes is 1; of those that offer more, a hundred more than the fee.
    for (fee, now, sent, offers) in [
        (Some(1), 700, 1, vec![1]),
        (None, 700, 1, vec![1]),
        (Some(8), 599, 1, vec![1]),
        (Some(8), 600, 108, vec![1, 8]),
        (Some(20), 610, 108, vec![1, 8]),
        (Some(8), 1_200, 108, vec![1, 8]),
        (Some(9), 1_210, 111, vec![1, 8, 11]),
        (Some(1), 1_820, 1, vec![1, 8, 11]),
        (None, 1_830, 111, vec![1, 8, 11]),
    ] {
        let rail = Undone { fee, ..Undone::of(1) };
        assert_eq!(rail.looked_at(&ledger, fence, now).await.1, [sent], "{fee:?} at {now}");
        assert_eq!(signed().await, offers.into_iter().map(|fee| (1, fee)).collect::<Vec<_>>(), "{fee:?} at {now}");
    }
    // With a key that somebody else has nothing new is signed.
    ledger.note_foreign_nonce(fence, "of no post", "c", "one", 9).await.expect("notes");
    let dear = Undone { fee: Some(50), ..Undone::of(1) };
    assert_eq!(dear.looked_at(&ledger, fence, 9_000).await.1, [111]);
    assert_eq!(signed().await.len(), 3);
}

#[tokio::test]
async fn of_a_chain_that_undid_nothing_only_the_newest_posts_are_asked_for() {
    let (ledger, fence) = posted(50).await;
    assert_eq!(Undone::of(50).looked(&ledger, fence).await, (16, vec![]));
    // Nodes that forget receipts have undone nothing.
    let pruned = Undone { forgotten: 50, credited: true, ..Undone::of(50) };
    assert_eq!(pruned.looked(&ledger, fence).await, (16, vec![]));
}

#[tokio::test]
async fn a_final_post_whose_receipt_is_forgotten_is_owed_anew_only_if_its_lanes_have_less_than_it_said() {
    let (ledger, fence) = books().await;
    step(&ledger, fence, &PLAIN, &[account(1)]).await;
    step(&ledger, fence, &Told { included: is_included("one", true), ..PLAIN }, &[account(1)]).await;
    let posted = async || ledger.funding(&account(0)).await.expect("reads").expect("known").posted.units();
    let looks = async |rail: &Told| recheck(&ledger, fence, rail, "c", &mut Untold::default(), 30).await.expect("looks").0;
    // Its nonce is free: an undone block, and the same bytes go out again, for those of later nonces wait for them.
    assert_eq!(looks(&Told { credited: true, ..PLAIN }).await, Rechecked { sent: 1, undone: 0 });
    // Its nonce is used for good, and no endpoint has its receipt.
    let used = Told { used: (1, 1), ..PLAIN };
    assert_eq!(looks(&Told { credited: true, used: (1, 1), ..PLAIN }).await, Rechecked::default(), "a node that prunes");
    assert_eq!(posted().await, 100);
    assert_eq!(looks(&used).await, Rechecked { sent: 0, undone: 1 }, "another chain");
    assert_eq!(posted().await, 0);
    // Of another key, which sends nothing again.
    ledger.plan_post(fence, &account(0), 20).await.expect("plans");
    let second = Told { signer: "second", ..PLAIN };
    step(&ledger, fence, &second, &[account(1)]).await;
    step(&ledger, fence, &Told { included: is_included("second", true), ..second }, &[account(1)]).await;
    assert_eq!(posted().await, 100);
    assert_eq!(looks(&Told { signer: "another", credited: true, ..PLAIN }).await, Rechecked::default());
    assert_eq!(looks(&Told { signer: "another", ..PLAIN }).await, Rechecked { sent: 0, undone: 1 });
}

#[tokio::test]
async fn a_final_post_that_is_in_another_block_without_all_of_its_rows_is_owed_anew() {
    let (ledger, fence) = books().await;
    step(&ledger, fence, &PLAIN, &[account(1)]).await;
    step(&ledger, fence, &Told { included: is_included("one", true), ..PLAIN }, &[account(1)]).await;
    let posted = async || ledger.funding(&account(0)).await.expect("reads").expect("known").posted.units();
    for (block, skipped, credited, undone, left) in [(12, vec![], false, 0, 100), (13, vec![0], true, 0, 100), (14, vec![0], false, 1, 0)] {
        let moved = Told { included: is_included("one", true), block, skipped, credited, ..PLAIN };
        let (looked, failed) = recheck(&ledger, fence, &moved, "c", &mut Untold::default(), 30).await.expect("looks");
        assert!(failed.is_none(), "{failed:?}");
        assert_eq!(looked, Rechecked { sent: 0, undone }, "in block {block}");
        assert_eq!(posted().await, left, "in block {block}");
    }
}

#[tokio::test]
async fn a_final_post_that_one_of_two_nodes_has_forgotten_stays_where_it_is_as_long_as_its_lanes_have_it() {
    let (ledger, fence) = books().await;
    step(&ledger, fence, &PLAIN, &[account(1)]).await;
    step(&ledger, fence, &Told { included: is_included("one", true), ..PLAIN }, &[account(1)]).await;
    let few = |credited, block| Told { included: is_included("one", true), by_few: true, used: (1, 1), credited, block, ..PLAIN };
    for (credited, block, undone) in [(true, 9, 0), (true, 12, 0), (false, 9, 1)] {
        let (looked, failed) = recheck(&ledger, fence, &few(credited, block), "c", &mut Untold::default(), 30).await.expect("looks");
        assert!(failed.is_none(), "{failed:?}");
        assert_eq!(looked, Rechecked { sent: 0, undone });
        let found = ledger.newest_final("c", None, 1).await.expect("reads").first().and_then(|post| post.block);
        assert_eq!(found, (undone == 0).then_some(9), "one alone moves nothing");
    }
}

#[tokio::test]
async fn a_post_that_is_undone_counts_once_until_it_is_there_again() {
    let (ledger, fence) = books().await;
    step(&ledger, fence, &PLAIN, &[account(1)]).await;
    let there = || Told { included: is_included("one", true), used: (1, 1), ..PLAIN };
    step(&ledger, fence, &there(), &[account(1)]).await;
    let mut untold = Untold::default();
    for (rail, sent, counted) in [(PLAIN, 1, 1), (PLAIN, 1, 0), (there(), 0, 0), (PLAIN, 1, 1)] {
        let (looked, _) = recheck(&ledger, fence, &rail, "c", &mut untold, 30).await.expect("looks");
        assert_eq!((looked.sent, untold.count_undone()), (sent, counted));
    }
    assert!(untold.is_empty(), "it stays paid, as far as the books go");
}

#[tokio::test]
async fn a_final_post_that_moves_to_another_block_is_told() {
    let (ledger, fence) = books().await;
    step(&ledger, fence, &PLAIN, &[account(1)]).await;
    step(&ledger, fence, &Told { included: is_included("one", true), ..PLAIN }, &[account(1)]).await;
    let mut untold = Untold::default();
    for (block, is_news) in [(9, false), (12, true)] {
        let rail = Told { included: is_included("one", true), block, ..PLAIN };
        recheck(&ledger, fence, &rail, "c", &mut untold, 30).await.expect("looks");
        assert_eq!(untold.first().is_some(), is_news, "in block {block}");
    }
}

#[tokio::test]
async fn one_final_post_that_can_not_be_looked_at_keeps_no_other_from_it() {
    let (ledger, fence) = books().await;
    let through = || Told { included: is_included("one", true), ..PLAIN };
    for _ in 0..4 {
        step(&ledger, fence, &PLAIN, &[]).await;
        step(&ledger, fence, &through(), &[]).await;
    }
    let finals = ledger.newest_final("c", None, 9).await.expect("reads");
    assert_eq!(finals.len(), 2);
    let unanswered = Some(format!("one {}", finals[0].id));
    let gone = Told { unanswered, used: (2, 2), ..PLAIN };
    let (looked, failed) = recheck(&ledger, fence, &gone, "c", &mut Untold::default(), 30).await.expect("looks");
    assert!(matches!(failed, Some(SettlementError::Waiting(_))), "of one it can't be said: {failed:?}");
    assert_eq!(looked, Rechecked { sent: 0, undone: 1 });
    let posted = async |post: &Post| ledger.funding(&post.funding).await.expect("reads").expect("known").posted.units();
    assert_eq!((posted(&finals[0]).await, posted(&finals[1]).await), (100, 0), "the other is owed anew");
}

#[tokio::test]
async fn a_final_post_behind_a_nonce_that_nothing_uses_any_more_is_signed_for_that_too_and_once() {
    let (ledger, fence) = books().await;
    step(&ledger, fence, &used(1), &[account(1)]).await;
    step(&ledger, fence, &Told { included: is_included("one", true), ..used(1) }, &[account(1)]).await;
    let id = ledger.newest_final("c", None, 1).await.expect("reads").remove(0).id;
    // The chain is one transaction of the key behind what the post's bytes come after.
    let gap = Told { price: 1, ..PLAIN };
    for _ in 0..2 {
        let (looked, failed) = recheck(&ledger, fence, &gap, "c", &mut Untold::default(), 30).await.expect("looks");
        assert!(failed.is_none(), "{failed:?}");
        assert_eq!(looked, Rechecked { sent: 1, undone: 0 });
        let nonces: Vec<u64> = ledger.attempts(&id).await.expect("reads").iter().map(|attempt| attempt.nonce).collect();
        assert_eq!(nonces, [4, 3]);
    }
}

#[tokio::test]
async fn a_key_that_somebody_else_has_signs_for_no_nonce_that_an_undone_chain_left_open() {
    let (ledger, fence) = books().await;
    step(&ledger, fence, &used(1), &[account(1)]).await;
    step(&ledger, fence, &Told { included: is_included("one", true), ..used(1) }, &[account(1)]).await;
    let id = ledger.newest_final("c", None, 1).await.expect("reads").remove(0).id;
    ledger.note_foreign_nonce(fence, "of no post", "c", "one", 9).await.expect("notes");
    recheck(&ledger, fence, &Told { price: 1, ..PLAIN }, "c", &mut Untold::default(), 30).await.expect("looks");
    assert_eq!(ledger.attempts(&id).await.expect("reads").len(), 1);
}
