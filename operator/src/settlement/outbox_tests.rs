//! Steps of the outbox over a rail that says what a test wants to hear, with the real books.

use super::SettlementError;
use super::outbox::{self, Progress};
use super::rail::{Included, Rail, Takes};
use super::simulation::{account, charge, open};
use std::collections::BTreeSet;
use supercargo_ledger::{Attempt, Fence, Ledger, Post, PostState};
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

pub(super) struct Told {
    pub(super) signer: &'static str,
    /// Whose post the contract refuses.
    pub(super) refuses: Option<FundingId>,
    pub(super) gas: bool,
    /// Gas costs more than may be paid.
    pub(super) dear: bool,
    /// What gas costs, where less is asked for.
    pub(super) price: u128,
    /// What is in a final block: hashes that begin so.
    pub(super) included: Option<(String, bool)>,
    /// So many more transactions of the signer are in the newest block, and in the final one.
    pub(super) used: (u64, u64),
    /// The lanes have what a post says.
    pub(super) credited: bool,
    /// Which of a post's rows would be credited; nobody can say it of this account's.
    pub(super) takes: Takes,
    pub(super) split: Option<FundingId>,
    /// What is in a block skipped these rows, and is in this one.
    pub(super) skipped: Vec<usize>,
    pub(super) block: u64,
    /// Fewer endpoints than are needed remember it.
    pub(super) by_few: bool,
    /// Whether a hash that begins so is included can't be asked.
    pub(super) unanswered: Option<String>,
}

pub(super) const PLAIN: Told = Told {
    signer: "one",
    refuses: None,
    gas: true,
    dear: false,
    price: 0,
    included: None,
    used: (0, 0),
    credited: false,
    takes: Takes::All,
    split: None,
    skipped: Vec::new(),
    block: 9,
    by_few: false,
    unanswered: None,
};

/// So many nonces of the key are used for good, the first of them by the first post.
pub(super) fn used(nonces: u64) -> Told {
    Told { used: (nonces, nonces), ..PLAIN }
}

pub(super) fn is_included(hash: &str, succeeded: bool) -> Option<(String, bool)> {
    Some((hash.to_owned(), succeeded))
}

impl Rail for Told {
    fn signer(&self) -> String {
        self.signer.to_owned()
    }
    fn finalized_block(&self) -> u64 {
        100
    }
    async fn latest_nonce(&self) -> Result<u64, SettlementError> {
        Ok(self.signer.len() as u64 + self.used.0)
    }
    async fn final_nonce(&self) -> Result<u64, SettlementError> {
        Ok(self.signer.len() as u64 + self.used.1)
    }
    async fn included(&self, hash: &str) -> Result<Option<Included>, SettlementError> {
        if self.unanswered.as_ref().is_some_and(|begins| hash.starts_with(begins)) {
            return Err(SettlementError::Waiting("the endpoints differ".to_owned()));
        }
        let found = self.included.as_ref().filter(|(found, _)| hash.starts_with(found));
        let included =
            |succeeded| Included { block: self.block, succeeded, skipped: self.skipped.clone(), gas_used: 70_000, by_few: self.by_few };
        Ok(found.map(|(_, succeeded)| included(*succeeded)))
    }
    async fn takes(&self, post: &Post) -> Result<Takes, SettlementError> {
        match &self.split {
            Some(split) if *split == post.funding => Err(SettlementError::Waiting("the endpoints differ".to_owned())),
            _ => Ok(self.takes),
        }
    }
    async fn is_credited(&self, _: &Post) -> Result<bool, SettlementError> {
        Ok(self.credited)
    }
    async fn sign(&self, post: &Post, nonce: u64, least_fee: u128) -> Result<Attempt, SettlementError> {
        match &self.refuses {
            _ if self.dear => Err(SettlementError::FeeHigh("dear".to_owned())),
            _ if !self.gas => Err(SettlementError::NoGas("empty".to_owned())),
            Some(refused) if *refused == post.funding => Err(SettlementError::Refused("frozen".to_owned())),
            _ => {
                let max_fee = least_fee.max(self.price);
                let hash = format!("{} {} {max_fee}", self.signer, post.id);
                Ok(Attempt { raw: hash.clone().into_bytes(), hash, signer: self.signer(), nonce, max_fee })
            }
        }
    }
    async fn replace(&self, post: &Post, signed: &Attempt, least_fee: u128) -> Result<Attempt, SettlementError> {
        self.sign(post, signed.nonce, least_fee).await
    }
    async fn send(&self, _: &[u8]) -> Result<(), SettlementError> {
        Ok(())
    }
}

/// Two accounts that owe something, and a post of each.
pub(super) async fn books() -> (Ledger, Fence) {
    books_at("sqlite::memory:").await
}

pub(super) async fn books_at(url: &str) -> (Ledger, Fence) {
    let ledger = Ledger::open(url).await.expect("opens");
    let fence = ledger.take_lead("one").await.expect("leads");
    open(&ledger, fence).await;
    ledger.commit(fence, &[charge(0, 1, 100), charge(1, 2, 100)]).await.expect("commits");
    for number in 0..2 {
        let planned_at = i64::try_from(number).expect("small");
        ledger.plan_post(fence, &account(number), planned_at).await.expect("plans");
    }
    (ledger, fence)
}

async fn plan(ledger: &Ledger, fence: Fence, number: u64, room: Amount) {
    ledger.plan_post_within(fence, &account(number), room, 5).await.expect("plans");
}

pub(super) async fn step(ledger: &Ledger, fence: Fence, rail: &Told, held: &[FundingId]) -> Progress {
    let held: BTreeSet<FundingId> = held.iter().cloned().collect();
    outbox::advance(ledger, fence, rail, "c", &held, 10).await.expect("a step")
}

#[tokio::test]
async fn a_post_that_the_contract_refuses_holds_up_no_other_account_and_charges_go_on() {
    let (ledger, fence) = books().await;
    let rail = Told { refuses: Some(account(0)), ..PLAIN };
    let progress = step(&ledger, fence, &rail, &[]).await;
    assert_eq!(progress.refused.into_iter().collect::<Vec<_>>(), [(account(0), "frozen".to_owned())]);
    assert_eq!(progress.signed, [account(1)]);
    let owed = async || ledger.funding(&account(0)).await.expect("reads").expect("known").owed;
    let before = owed().await;
    ledger.commit(fence, &[charge(0, 3, 100)]).await.expect("commits");
    assert!(owed().await > before);
    // The other is through and the freeze is over.
    let through = Told { included: is_included("one", true), ..PLAIN };
    step(&ledger, fence, &through, &[]).await;
    plan(&ledger, fence, 0, Amount::MAX).await;
    assert_eq!(step(&ledger, fence, &PLAIN, &[]).await.signed, [account(0)]);
}

#[tokio::test]
async fn a_post_that_the_contract_refuses_is_cut_anew_from_what_is_owed_and_what_room_there_is_then() {
    let (ledger, fence) = books().await;
    let cut = async || {
        let posts = ledger.open_posts().await.expect("reads").into_iter().filter(|post| post.funding == account(0));
        posts.map(|post| post.amount.units()).collect::<Vec<_>>()
    };
    assert_eq!(cut().await, [100]);
    let refusing = Told { refuses: Some(account(0)), ..PLAIN };
    assert_eq!(step(&ledger, fence, &refusing, &[account(1)]).await.void, 1);
    assert_eq!(cut().await, [0; 0], "what was emptied since can't pay it");
    // Nothing is cut by looking: a refusal is one post given up, however often the chain is asked.
    assert_eq!(step(&ledger, fence, &refusing, &[account(1)]).await.void, 0);

    ledger.commit(fence, &[charge(0, 3, 100)]).await.expect("commits");
    plan(&ledger, fence, 0, Amount::from_units(40)).await;
    assert_eq!(cut().await, [40], "of the room that is left");
    step(&ledger, fence, &PLAIN, &[account(1)]).await;
    step(&ledger, fence, &Told { included: is_included("one", true), ..PLAIN }, &[account(1)]).await;
    plan(&ledger, fence, 0, Amount::MAX).await;
    assert_eq!(cut().await, [160], "and then all that is owed");
}

#[tokio::test]
async fn of_an_account_that_is_held_nothing_is_signed() {
    let (ledger, fence) = books().await;
    let progress = step(&ledger, fence, &PLAIN, &[account(0)]).await;
    assert_eq!(progress.signed, [account(1)]);
    let states: Vec<_> = ledger.open_posts().await.expect("reads").into_iter().map(|post| (post.funding, post.state)).collect();
    assert_eq!(states, [(account(0), PostState::Planned), (account(1), PostState::Signed)]);
}

#[tokio::test]
async fn without_gas_nothing_is_signed_and_it_is_told() {
    let (ledger, fence) = books().await;
    let progress = step(&ledger, fence, &Told { gas: false, ..PLAIN }, &[]).await;
    assert!(matches!(progress.failed, Some(SettlementError::NoGas(_))));
    assert!(progress.signed.is_empty() && progress.refused.is_empty());
}

#[tokio::test]
async fn while_gas_is_dear_posts_wait_and_what_was_offered_before_stays_offered() {
    let (ledger, fence) = books().await;
    let dear = Told { dear: true, ..PLAIN };
    let progress = step(&ledger, fence, &dear, &[]).await;
    assert!(matches!(progress.failed, Some(SettlementError::FeeHigh(_))) && progress.signed.is_empty() && progress.void == 0);
    assert_eq!(ledger.open_posts().await.expect("reads").len(), 2, "they wait");

    assert_eq!(step(&ledger, fence, &PLAIN, &[]).await.signed.len(), 1);
    // A minute later it would be replaced.
    let progress = outbox::advance(&ledger, fence, &dear, "c", &BTreeSet::new(), 100).await.expect("a step");
    assert!(matches!(progress.failed, Some(SettlementError::FeeHigh(_))), "it is told");
    let post = ledger.open_posts().await.expect("reads").into_iter().find(|post| post.state == PostState::Signed).expect("is on its way");
    assert_eq!(ledger.attempts(&post.id).await.expect("reads").len(), 1);
    let through = Told { dear: true, included: is_included("one", true), ..PLAIN };
    assert_eq!(step(&ledger, fence, &through, &[]).await.done.len(), 1, "what was offered was enough in the end");
}

#[tokio::test]
async fn a_post_that_the_old_key_signed_is_signed_again_by_the_new_one() {
    let (ledger, fence) = books().await;
    step(&ledger, fence, &PLAIN, &[account(1)]).await;
    // What the old key sent fails, since the contract knows the new one by now.
    let rotated = Told { signer: "another", included: is_included("one", false), ..PLAIN };
    step(&ledger, fence, &rotated, &[account(1)]).await;
    let post = ledger.open_posts().await.expect("reads").remove(0);
    let mut signers: Vec<_> = ledger.attempts(&post.id).await.expect("reads").into_iter().map(|one| (one.signer, one.nonce)).collect();
    signers.sort();
    assert_eq!(signers, [("another".to_owned(), 7), ("one".to_owned(), 3)], "each with a nonce of its own");
    let through = Told { signer: "another", included: is_included("another", true), ..PLAIN };
    let progress = step(&ledger, fence, &through, &[account(1)]).await;
    let done: Vec<_> = progress.done.iter().map(|(post, gas)| (post.funding.clone(), *gas)).collect();
    assert_eq!(done, [(account(0), 70_000)]);
    assert!(ledger.funding(&account(0)).await.expect("reads").expect("known").owed.is_zero());
}

#[tokio::test]
async fn a_post_that_only_the_old_key_signed_and_that_is_refused_now_holds_up_no_other_account() {
    let (ledger, fence) = books().await;
    step(&ledger, fence, &PLAIN, &[account(1)]).await;
    let rotated = Told { signer: "another", refuses: Some(account(0)), ..PLAIN };
    let progress = step(&ledger, fence, &rotated, &[]).await;
    assert_eq!(progress.refused.into_keys().collect::<Vec<_>>(), [account(0)]);
    assert_eq!(progress.signed, [account(1)]);
    assert!(progress.failed.is_none());
    assert_eq!(progress.void, 0, "what the old key signed may still come through");
}

#[tokio::test]
async fn a_key_that_somebody_else_signs_with_signs_nothing_more_until_the_settler_has_another() {
    let (ledger, fence) = books().await;
    step(&ledger, fence, &PLAIN, &[account(1)]).await;
    let foreign = async || ledger.foreign_nonce("c", "one").await.expect("reads");
    // In a block that may still be undone it is nobody's yet.
    let progress = step(&ledger, fence, &Told { used: (1, 0), ..PLAIN }, &[]).await;
    assert_eq!((progress.void, foreign().await), (0, None));

    let used = Told { used: (1, 1), ..PLAIN };
    assert_eq!(step(&ledger, fence, &used, &[]).await.void, 1);
    assert_eq!(foreign().await, Some(3));
    plan(&ledger, fence, 0, Amount::MAX).await;
    for rail in [&used, &PLAIN, &used] {
        let progress = step(&ledger, fence, rail, &[]).await;
        assert!(progress.signed.is_empty() && progress.failed.is_none(), "nothing is signed: {progress:?}");
    }
    assert_eq!(ledger.open_posts().await.expect("reads").len(), 2, "what is owed stays planned");

    let rotated = Told { signer: "another", ..PLAIN };
    assert_eq!(step(&ledger, fence, &rotated, &[]).await.signed.len(), 1, "another key goes on");
}

#[tokio::test]
async fn what_is_on_its_way_when_a_key_turns_out_to_be_used_elsewhere_is_neither_replaced_nor_lost() {
    let (ledger, fence) = books().await;
    step(&ledger, fence, &PLAIN, &[account(1)]).await;
    // Of another account's post, by books that both keys are known to.
    ledger.note_foreign_nonce(fence, "none", "c", "one", 1).await.expect("notes it");
    ledger.note_foreign_nonce(fence, "none", "c", "another", 1).await.expect("notes it");
    for (rail, now) in [(&PLAIN, 100), (&Told { signer: "another", ..PLAIN }, 200)] {
        let progress = outbox::advance(&ledger, fence, rail, "c", &BTreeSet::new(), now).await.expect("a step");
        assert!(progress.failed.is_none() && progress.void == 0);
    }
    let post = ledger.open_posts().await.expect("reads").into_iter().find(|post| post.funding == account(0)).expect("it is on its way");
    assert_eq!(ledger.attempts(&post.id).await.expect("reads").len(), 1, "nothing more is signed for it");
    let through = Told { included: is_included("one", true), ..PLAIN };
    assert_eq!(step(&ledger, fence, &through, &[]).await.done.len(), 1);
}

#[tokio::test]
async fn a_nonce_that_another_post_of_ours_used_is_no_strangers() {
    let (ledger, fence) = books().await;
    let held = [account(1)];
    step(&ledger, fence, &PLAIN, &held).await;
    step(&ledger, fence, &Told { included: is_included("one", true), ..PLAIN }, &held).await;
    let first = ledger.newest_final("c", None, 1).await.expect("reads").remove(0);
    // The chain undid it, and the nonce was free again for the other account's.
    assert_eq!(step(&ledger, fence, &PLAIN, &[]).await.signed, [account(1)]);
    // Then what was undone came back.
    let back = Told { included: is_included(&format!("one {}", first.id), true), used: (1, 1), ..PLAIN };
    assert_eq!(step(&ledger, fence, &back, &[]).await.void, 1);
    assert_eq!(ledger.foreign_nonce("c", "one").await.expect("reads"), None);
}

#[tokio::test]
async fn what_nobody_can_say_of_one_account_holds_up_no_other() {
    let (ledger, fence) = books().await;
    let progress = step(&ledger, fence, &Told { split: Some(account(0)), ..PLAIN }, &[]).await;
    assert_eq!(progress.signed, [account(1)]);
    assert!(matches!(progress.failed, Some(SettlementError::Waiting(_))), "{progress:?}");
}

#[tokio::test]
async fn a_post_waits_for_closed_lanes_as_long_as_one_is_closed_once_and_no_longer() {
    let (ledger, fence) = books().await;
    // Planned at 0, and looked at 10 seconds later.
    for (takes, signed) in
        [(Takes::Nothing, vec![]), (Takes::Some { window_seconds: 11 }, vec![]), (Takes::Some { window_seconds: 10 }, vec![account(0)])]
    {
        let progress = step(&ledger, fence, &Told { takes, ..PLAIN }, &[account(1)]).await;
        assert_eq!(progress.signed, signed, "{takes:?}");
    }
}

#[tokio::test]
async fn a_receipt_that_nodes_have_forgotten_condemns_no_key_when_the_lanes_have_what_it_posted() {
    let (ledger, fence) = books().await;
    step(&ledger, fence, &PLAIN, &[account(1)]).await;
    let progress = step(&ledger, fence, &Told { credited: true, used: (1, 1), ..PLAIN }, &[account(1)]).await;
    assert_eq!((progress.void, ledger.foreign_nonce("c", "one").await.expect("reads")), (1, None));
    plan(&ledger, fence, 0, Amount::MAX).await;
    assert_eq!(step(&ledger, fence, &used(1), &[account(1)]).await.signed, [account(0)], "it is posted again, and booked by that");
}

#[tokio::test]
async fn a_receipt_that_one_of_two_nodes_has_forgotten_ends_its_post_by_what_the_lanes_have() {
    let few = |credited, used| Told { included: is_included("one", true), by_few: true, credited, used: (used, used), ..PLAIN };
    let looked = async |rail: Told| {
        let (ledger, fence) = books().await;
        step(&ledger, fence, &PLAIN, &[account(1)]).await;
        let progress = step(&ledger, fence, &rail, &[account(1)]).await;
        let posted = ledger.funding(&account(0)).await.expect("reads").expect("known").posted.units();
        let foreign = ledger.foreign_nonce("c", "one").await.expect("reads");
        (posted, progress.void, progress.failed.is_some(), foreign)
    };
    assert_eq!(looked(few(true, 1)).await, (100, 0, false, None), "it is booked");
    assert_eq!(looked(few(false, 1)).await, (0, 1, false, None), "it is planned anew, and the key is nobody else's");
    let failed = Told { included: is_included("one", false), ..few(true, 1) };
    assert_eq!(looked(failed).await, (0, 1, false, None), "who says that it failed is not the one to book it by");
    assert_eq!(looked(few(true, 0)).await, (0, 0, true, None), "a nonce that is not used was used by nothing");
    // Rows that it skipped: the lanes don't have them.
    let skipped = Told { skipped: vec![0], ..few(false, 1) };
    assert_eq!(looked(skipped).await, (0, 1, false, None));
}

#[tokio::test]
async fn what_waits_after_many_attempts_is_replaced_again_when_gas_costs_more_than_it_offers() {
    let (ledger, fence) = books().await;
    let held: BTreeSet<FundingId> = [account(1)].into();
    let offers = async |now: i64, price: u128| {
        outbox::advance(&ledger, fence, &Told { price, ..PLAIN }, "c", &held, now).await.expect("a step");
        let post = ledger.open_posts().await.expect("reads").into_iter().find(|post| post.funding == account(0)).expect("it is open");
        ledger.attempts(&post.id).await.expect("reads").iter().map(|attempt| attempt.max_fee).collect::<Vec<_>>()
    };
    let mut minutes = (1..=6).map(|minute| minute * 60);
    assert_eq!(offers(minutes.next().expect("the first"), 8).await, [8]);
    for now in minutes {
        offers(now, 8).await;
    }
    let six = vec![8, 11, 14, 18, 23, 29];
    for (now, price) in [(420, 1_000), (959, 1_000), (2_000, 29), (9_000, 8)] {
        assert_eq!(offers(now, price).await, six, "at {now} gas costs {price}");
    }
    assert_eq!(offers(9_000, 30).await, [&six[..], &[37]].concat(), "and more than what was offered last");
    for (now, offered) in [(9_599, 7), (9_600, 8), (9_605, 8)] {
        assert_eq!(offers(now, 300).await.len(), offered, "at {now}");
    }
    assert_eq!(offers(5_000, 1_000).await.len(), 9, "the clock was ahead, and is right again");
}

#[tokio::test]
async fn a_post_behind_a_nonce_that_an_undone_chain_left_open_takes_that_too() {
    let (ledger, fence) = books().await;
    step(&ledger, fence, &used(1), &[account(1)]).await;
    let id = ledger.open_posts().await.expect("reads").remove(0).id;
    let nonces = async || ledger.attempts(&id).await.expect("reads").iter().map(|attempt| attempt.nonce).collect::<Vec<_>>();
    let gap = Told { price: 1, ..PLAIN };
    for _ in 0..2 {
        assert_eq!(step(&ledger, fence, &gap, &[account(1)]).await.signed, [account(0)]);
        assert_eq!(nonces().await, [4, 3], "signed for it once");
    }
    // Somebody else's bytes, or another post's, have that nonce in the end: the first ones come next.
    step(&ledger, fence, &Told { price: 2, ..used(1) }, &[account(1)]).await;
    assert_eq!(nonces().await, [4, 3]);
}

#[tokio::test]
async fn a_post_waits_for_a_final_one_that_a_chain_undid_and_takes_no_nonce_of_it() {
    let (ledger, fence) = books().await;
    step(&ledger, fence, &PLAIN, &[account(1)]).await;
    step(&ledger, fence, &Told { included: is_included("one", true), ..PLAIN }, &[account(1)]).await;
    step(&ledger, fence, &used(1), &[account(0)]).await;
    let second = ledger.open_posts().await.expect("reads").remove(0);
    assert_eq!(second.funding, account(1));
    step(&ledger, fence, &Told { price: 1, ..PLAIN }, &[]).await;
    let nonces: Vec<u64> = ledger.attempts(&second.id).await.expect("reads").iter().map(|attempt| attempt.nonce).collect();
    assert_eq!(nonces, [4]);
}

#[tokio::test]
async fn while_a_block_becomes_final_the_next_account_is_posted_for_if_the_chain_counts_the_nonce() {
    let (ledger, fence) = books().await;
    let look = async |rail: Told| step(&ledger, fence, &rail, &[]).await;
    let nonces = async || {
        let mut nonces = Vec::new();
        for post in ledger.open_posts().await.expect("reads") {
            nonces.extend(ledger.attempts(&post.id).await.expect("reads").iter().map(|attempt| attempt.nonce));
        }
        nonces
    };
    look(PLAIN).await;
    assert_eq!(nonces().await, [3]);
    // It is in a block that is not final; the node that is asked for the next nonce has not seen it.
    let in_a_block = |used| Told { included: is_included("one", true), block: 101, used: (used, 0), ..PLAIN };
    look(in_a_block(0)).await;
    assert_eq!(nonces().await, [3]);
    look(in_a_block(1)).await;
    assert_eq!(nonces().await, [3, 4]);
    // The chain undoes the block: both are sent again, and neither is signed anew.
    look(PLAIN).await;
    assert_eq!(nonces().await, [3, 4]);
    let states: Vec<PostState> = ledger.open_posts().await.expect("reads").iter().map(|post| post.state).collect();
    assert_eq!(states, [PostState::Signed, PostState::Signed]);
}
