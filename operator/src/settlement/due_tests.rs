//! Whose posts are planned when, with the real books.

use super::*;
use crate::settlement::simulation::{account, charge, open};
use supercargo_ledger::PostState;

/// Time is the only reason, and it was just now.
const HOURLY: Settlement = Settlement {
    poll_seconds: 5,
    post_seconds: 3_600,
    minimum_amount: Amount::from_units(1),
    post_amount: None,
    post_charges: None,
    post_exposure: None,
    gas_multiple: 0,
};
const NOW: i64 = 1_000_000;

struct Office {
    ledger: Ledger,
    fence: Fence,
    calendar: Calendar,
    followed: Followed,
    refused: Refused,
    gas: Option<Gas>,
    unknown: BTreeSet<u32>,
    segment: u32,
}

impl Office {
    /// Two accounts that owe nothing yet, and posts that were just planned.
    async fn open() -> Self {
        let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
        let fence = ledger.take_lead("one").await.expect("leads");
        open(&ledger, fence).await;
        let calendar = Calendar { last_post: NOW, ..Calendar::default() };
        let mut followed = Followed::default();
        followed.rooms.extend([0, 1].map(|number| (account(number), Room::from(Amount::MAX))));
        Self { ledger, fence, calendar, followed, refused: Refused::default(), gas: None, unknown: BTreeSet::new(), segment: 0 }
    }

    async fn earns(&mut self, work: u64, units: u64) {
        self.segment += 1;
        self.ledger.commit(self.fence, &[charge(work, self.segment, units)]).await.expect("commits");
    }

    /// Whose posts are planned when this is looked at: each is final at once.
    async fn plans(&mut self, settings: &Settlement, after: i64) -> Vec<(FundingId, u64)> {
        let Self { ledger, fence, calendar, followed, refused, gas, unknown, .. } = self;
        let asked = Asked { chain: "c", settings, followed, refused, gas: *gas, unknown };
        if calendar.is_worth_a_look(&asked, NOW + after) {
            let posts = calendar.plan(ledger, *fence, &asked, NOW + after).await.expect("plans");
            forget(refused, &posts, settings, NOW + after);
        }
        let posts = ledger.open_posts().await.expect("reads");
        for post in &posts {
            assert_eq!(post.state, PostState::Planned);
            ledger.book_final(*fence, &post.id, "0x1", 1, &[]).await.expect("books");
        }
        posts.into_iter().map(|post| (post.funding, post.amount.units())).collect()
    }
}

#[tokio::test]
async fn by_default_posts_are_planned_by_time_alone() {
    let mut office = Office::open().await;
    office.earns(0, 100_000).await;
    office.earns(1, 10).await;
    assert_eq!(office.plans(&HOURLY, 3_599).await, []);
    assert_eq!(office.plans(&HOURLY, 3_600).await, [(account(0), 100_000), (account(1), 10)]);
    office.earns(1, 10).await;
    assert_eq!(office.plans(&HOURLY, 3_700).await, [], "and an hour later again");
    let minimum = Settlement { minimum_amount: Amount::from_units(11), ..HOURLY };
    assert_eq!(office.plans(&minimum, 7_200).await, [], "too little waits");
    office.earns(1, 1).await;
    assert_eq!(office.plans(&minimum, 10_800).await, [(account(1), 11)], "and is not dropped");
}

#[tokio::test]
async fn an_amount_or_a_number_of_charges_is_posted_for_at_once_and_of_that_account_alone() {
    for settings in [Settlement { post_amount: Some(Amount::from_units(300)), ..HOURLY }, Settlement { post_charges: Some(3), ..HOURLY }] {
        let mut office = Office::open().await;
        office.earns(1, 100).await;
        office.earns(0, 100).await;
        office.earns(0, 100).await;
        assert_eq!(office.plans(&settings, 5).await, [], "{settings:?}");
        office.earns(0, 100).await;
        assert_eq!(office.plans(&settings, 10).await, [(account(0), 300)], "{settings:?}");
        office.earns(0, 100).await;
        assert_eq!(office.plans(&settings, 15).await, [], "what was posted counts no more: {settings:?}");
    }
}

#[tokio::test]
async fn what_one_payee_is_owed_by_all_accounts_together_is_posted_for_by_each_of_them() {
    let mut office = Office::open().await;
    // Of each hundred two and a half are a fee.
    let settings = Settlement { post_exposure: Some(Amount::from_units(195)), ..HOURLY };
    office.earns(0, 100).await;
    assert_eq!(office.plans(&settings, 5).await, []);
    office.earns(1, 100).await;
    assert_eq!(office.plans(&settings, 10).await, [(account(0), 100), (account(1), 100)]);
}

#[tokio::test]
async fn what_is_not_worth_its_gas_waits_until_gas_is_cheaper_or_more_is_owed() {
    let mut office = Office::open().await;
    let settings = Settlement { gas_multiple: 10, post_amount: Some(Amount::from_units(1)), ..HOURLY };
    // Two rows are 52,000 gas: at this fee 130 units.
    let coin = Amount::from_units(2_500_000_000);
    office.gas = Some(Gas { coin, fee_wei: 1_000_000 });
    office.earns(0, 1_299).await;
    assert_eq!(office.plans(&settings, 5).await, []);
    office.earns(0, 1).await;
    assert_eq!(office.plans(&settings, 10).await, [(account(0), 1_300)]);
    office.earns(0, 130).await;
    assert_eq!(office.plans(&settings, 9_000).await, [], "time does not make it worth more");
    assert_eq!(office.calendar.dear, [account(0)].into(), "and gas alone keeps it");
    assert_eq!(office.plans(&settings, 9_001).await, []);
    assert_eq!(office.calendar.dear, [account(0)].into(), "it is not for less time that it waits");
    office.gas = Some(Gas { coin, fee_wei: 100_000 });
    assert_eq!(office.plans(&settings, 9_005).await, [(account(0), 130)]);
    assert!(office.calendar.dear.is_empty());
    // What is too little whatever gas costs waits for that.
    let settings = Settlement { minimum_amount: Amount::from_units(500), ..settings };
    office.gas = Some(Gas { coin, fee_wei: 1_000_000 });
    office.earns(0, 499).await;
    assert_eq!(office.plans(&settings, 20_000).await, []);
    assert!(office.calendar.dear.is_empty());
}

#[tokio::test]
async fn who_goes_is_posted_for_at_once_and_once_and_nothing_is_too_little() {
    let mut office = Office::open().await;
    let settings = Settlement { minimum_amount: Amount::from_units(1_000), ..HOURLY };
    office.earns(0, 10).await;
    office.earns(1, 10).await;
    office.followed.leaving.insert(account(0), NOW);
    office.followed.held.insert(account(0));
    assert_eq!(office.plans(&settings, 5).await, [], "what is held is not posted");
    office.followed.held.clear();
    assert_eq!(office.plans(&settings, 10).await, [(account(0), 10)]);
    office.earns(0, 10).await;
    assert_eq!(office.plans(&settings, 15).await, []);
    assert_eq!(office.plans(&settings, 3_600).await, [(account(0), 10)]);
}

#[tokio::test]
async fn where_no_post_can_carry_what_is_waited_for_a_full_one_is_made() {
    let mut office = Office::open().await;
    let settings = Settlement { minimum_amount: Amount::from_units(10), ..HOURLY };
    office.earns(0, 1_000).await;
    office.followed.most.insert(account(0), Amount::from_units(5));
    office.followed.rooms.insert(account(0), Amount::from_units(4).into());
    assert_eq!(office.plans(&settings, 3_600).await, [], "it is not full yet");
    office.followed.rooms.insert(account(0), Amount::from_units(5).into());
    assert_eq!(office.plans(&settings, 7_200).await, [(account(0), 5)]);
}

#[tokio::test]
async fn while_something_goes_posts_are_made_every_hour_however_seldom_they_are_else() {
    let mut office = Office::open().await;
    let settings = Settlement { post_seconds: 604_800, ..HOURLY };
    office.earns(0, 10).await;
    office.earns(1, 10).await;
    office.followed.leaving.insert(account(0), NOW);
    office.followed.rooms.insert(account(0), Amount::ZERO.into());
    assert_eq!(office.plans(&settings, 5).await, [], "nothing may leave it now");
    office.followed.rooms.insert(account(0), Amount::MAX.into());
    assert_eq!(office.plans(&settings, 10).await, [(account(0), 10)]);
    office.earns(0, 10).await;
    assert_eq!(office.plans(&settings, 3_609).await, []);
    assert_eq!(office.plans(&settings, 3_610).await, [(account(0), 10)]);
}

#[tokio::test]
async fn what_the_contract_refused_is_planned_again_after_a_while_and_within_what_room_there_is() {
    let mut office = Office::open().await;
    let settings = Settlement { post_amount: Some(Amount::from_units(1)), ..HOURLY };
    office.earns(0, 100).await;
    office.refused.insert(account(0), ("frozen".to_owned(), NOW));
    for after in [5, 599] {
        assert_eq!(office.plans(&settings, after).await, [], "after {after} s");
    }
    office.followed.rooms.insert(account(0), Amount::from_units(40).into());
    assert_eq!(office.plans(&HOURLY, 600).await, [(account(0), 40)]);
}

#[tokio::test]
async fn what_was_refused_and_is_too_little_to_be_posted_now_keeps_an_account_from_nothing() {
    let mut office = Office::open().await;
    let settings = Settlement { minimum_amount: Amount::from_units(100), ..HOURLY };
    office.earns(0, 99).await;
    office.earns(1, 100).await;
    for number in 0..2 {
        office.refused.insert(account(number), ("frozen".to_owned(), NOW));
    }
    for (after, posts, left) in [(599, vec![], vec![account(0), account(1)]), (600, vec![(account(1), 100)], vec![account(1)])] {
        assert_eq!(office.plans(&settings, after).await, posts, "after {after} s");
        assert_eq!(office.refused.keys().cloned().collect::<Vec<_>>(), left, "after {after} s");
    }
}

#[tokio::test]
async fn whom_the_contract_does_not_know_waits_and_everybody_else_is_posted_for() {
    let mut office = Office::open().await;
    office.earns(0, 1_000).await;
    office.earns(1, 1_000).await;
    // The fee's payee is known, and the provider's is not.
    office.unknown.insert(7);
    assert_eq!(office.plans(&HOURLY, 3_600).await, [(account(0), 25), (account(1), 25)]);
    office.earns(0, 1_000).await;
    assert_eq!(office.plans(&HOURLY, 7_200).await, [(account(0), 25)]);
    assert_eq!(office.plans(&HOURLY, 10_800).await, [], "nobody else is owed anything");

    // It is registered: what it is owed is not waited for any longer, but where nothing may be posted now.
    office.unknown.clear();
    office.calendar.change([7].into());
    office.followed.held.insert(account(1));
    assert_eq!(office.plans(&HOURLY, 10_805).await, [(account(0), 1_950)]);
    assert_eq!(office.plans(&HOURLY, 10_810).await, []);
    office.followed.held.clear();
    assert_eq!(office.plans(&HOURLY, 10_815).await, [(account(1), 975)]);
    office.earns(1, 1_000).await;
    assert_eq!(office.plans(&HOURLY, 10_820).await, [], "and from then on it is as it was");
}

#[tokio::test]
async fn who_was_refused_because_of_a_payee_is_posted_for_without_it_as_soon_as_that_is_known() {
    let mut office = Office::open().await;
    office.earns(0, 1_000).await;
    office.refused.insert(account(0), ("no payee has the number 7".to_owned(), NOW));
    assert_eq!(office.plans(&HOURLY, 5).await, []);
    office.unknown.insert(7);
    office.calendar.change([7].into());
    assert_eq!(office.plans(&HOURLY, 10).await, [(account(0), 25)]);
}

#[tokio::test]
async fn what_waits_for_a_payee_makes_nothing_else_due_sooner() {
    for settings in [
        Settlement { post_amount: Some(Amount::from_units(300)), ..HOURLY },
        Settlement { post_charges: Some(2), ..HOURLY },
        Settlement { post_exposure: Some(Amount::from_units(300)), ..HOURLY },
    ] {
        let mut office = Office::open().await;
        office.unknown.insert(7);
        office.earns(0, 1_000).await;
        office.earns(0, 1_000).await;
        assert_eq!(office.plans(&settings, 5).await, [], "{settings:?}");
        assert_eq!(office.plans(&settings, 3_600).await, [(account(0), 50)], "{settings:?}");
    }
}

#[tokio::test]
async fn a_clock_that_was_ahead_for_a_while_holds_no_post_back() {
    let mut office = Office::open().await;
    office.earns(0, 100).await;
    assert_eq!(office.plans(&HOURLY, 86_400).await, [(account(0), 100)]);
    office.earns(0, 10).await;
    assert_eq!(office.plans(&HOURLY, 3_600).await, [(account(0), 10)]);
    office.earns(0, 10).await;
    assert_eq!(office.plans(&HOURLY, 3_605).await, [], "and from then on every hour");
}

#[tokio::test]
async fn what_was_not_looked_at_on_the_chain_is_not_posted() {
    let mut office = Office::open().await;
    let settings = Settlement { post_amount: Some(Amount::from_units(1)), ..HOURLY };
    office.earns(0, 100).await;
    office.earns(1, 100).await;
    let room = office.followed.rooms.remove(&account(1)).expect("is there");
    assert_eq!(office.plans(&settings, 5).await, [(account(0), 100)]);
    office.followed.rooms.insert(account(1), room);
    assert_eq!(office.plans(&settings, 10).await, [(account(1), 100)]);
}
