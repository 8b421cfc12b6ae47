use crate::{Attempt, Charge, Fence, Ledger, LedgerError, Outcome, PostState, Posting};
use proptest::prelude::*;
use supercargo_market::fees::{FeeSchedule, FeeShare};
use supercargo_market::metering::Evidence;
use supercargo_market::money::Amount;
use supercargo_market::rating::{self, Held};
use supercargo_market::work::{FundingId, SegmentId, WorkId};

async fn books() -> (Ledger, Fence) {
    let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
    let fence = ledger.take_lead("test").await.expect("leads");
    (ledger, fence)
}

fn account() -> FundingId {
    FundingId::chain("default", "0xaa")
}

fn units(units: u64) -> Amount {
    Amount::from_units(units)
}

fn fund(deposited: u64) -> Posting {
    Posting::Fund { funding: account(), asset: "USDC".into(), deposited: units(deposited), withdrawn: Amount::ZERO }
}

fn reserve(work: &str, amount: u64) -> Posting {
    Posting::Reserve { work: WorkId::task(work), funding: account(), amount: units(amount), detail: "{}".into() }
}

/// A charge of one base unit a second.
fn charge(work: &str, segment: u32, seconds: u64) -> Posting {
    let held = Held { devices: 1, device_price: "0.0036".parse().expect("a price"), ..Held::default() };
    Posting::Charge(Charge {
        work: WorkId::task(work),
        attempt: 0,
        segment: SegmentId::of_pod(format!("pod-of-{work}"), segment),
        seconds,
        evidence: Evidence::Record,
        cost: rating::cost(&held, seconds).expect("fits"),
        payee: Some(7),
        fees: FeeSchedule { basis_points: 1_000, shares: vec![FeeShare { payee: 1, basis_points: 10_000 }] },
    })
}

fn release(work: &str) -> Posting {
    Posting::Release { work: WorkId::task(work) }
}

#[tokio::test]
async fn every_posting_counts_once() {
    let (ledger, fence) = books().await;
    let postings = [fund(1_000), reserve("a", 400), charge("a", 0, 100), release("a")];
    assert_eq!(ledger.commit(fence, &postings).await.expect("commits"), vec![Outcome::Applied; 4]);
    let before = ledger.funding(&account()).await.expect("reads").expect("known");
    assert_eq!(ledger.commit(fence, &[fund(1_000), charge("a", 0, 100), release("a")]).await.expect("commits"), vec![Outcome::Already; 3]);
    assert_eq!(ledger.funding(&account()).await.expect("reads"), Some(before.clone()));
    assert_eq!((before.available, before.reserved, before.owed), (units(900), units(0), units(100)));
}

#[tokio::test]
async fn a_reservation_beyond_the_balance_is_refused_in_words_and_harms_no_other() {
    let (ledger, fence) = books().await;
    let outcomes = ledger.commit(fence, &[fund(1_000_000), reserve("a", 2_000_000), reserve("b", 1_000_000)]).await.expect("commits");
    assert_eq!(outcomes, [Outcome::Applied, Outcome::Refused("2.00 is wanted and 1.00 is available".into()), Outcome::Applied]);
}

#[tokio::test]
async fn what_the_reservation_does_not_cover_is_absorbed_and_never_the_buyers() {
    let (ledger, fence) = books().await;
    ledger.commit(fence, &[fund(1_000), reserve("a", 50), charge("a", 0, 80)]).await.expect("commits");
    let work = ledger.work(&WorkId::task("a")).await.expect("reads");
    assert_eq!((work.charged, work.absorbed, work.reserved), (units(50), units(30), units(0)));
}

#[tokio::test]
async fn what_was_absorbed_once_is_not_billed_to_the_next_attempt() {
    let (ledger, fence) = books().await;
    let first = [fund(1_000), reserve("a", 50), charge("a", 0, 80), release("a")];
    ledger.commit(fence, &first).await.expect("commits");
    ledger.commit(fence, &[reserve("a", 500), charge("a", 1, 100)]).await.expect("commits");
    let work = ledger.work(&WorkId::task("a")).await.expect("reads");
    assert_eq!((work.charged, work.absorbed), (units(150), units(30)));
}

#[tokio::test]
async fn an_old_leader_can_not_write() {
    let (ledger, old) = books().await;
    let new = ledger.take_lead("another").await.expect("leads");
    assert!(matches!(ledger.commit(old, &[fund(1)]).await, Err(LedgerError::Fenced { ours: 1, current: 2 })));
    assert_eq!(ledger.commit(new, &[fund(1)]).await.expect("commits"), [Outcome::Applied]);
}

#[tokio::test]
async fn a_post_carries_totals_and_is_booked_once() {
    let (ledger, fence) = books().await;
    ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
    let post = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
    assert_eq!((post.rows.as_slice(), post.amount), ([(1, 10), (7, 90)].as_slice(), units(100)));
    ledger.commit(fence, &[charge("a", 1, 50)]).await.expect("commits");
    assert_eq!(ledger.plan_post(fence, &account(), 0).await.expect("plans"), None, "one is under way");

    let attempt = Attempt { hash: "0x1".into(), signer: "0xs".into(), nonce: 0, raw: vec![1], max_fee: 5 };
    ledger.record_attempt(fence, &post.id, &attempt, 1).await.expect("records");
    ledger.record_attempt(fence, &post.id, &attempt, 1).await.expect("records once");
    assert_eq!(ledger.attempts(&post.id).await.expect("reads"), [attempt]);
    ledger.mark_mined(fence, &post.id, Some(("0x1", 9))).await.expect("marks");
    assert_eq!(ledger.open_posts().await.expect("reads")[0].state, PostState::Mined);
    assert!(ledger.book_final(fence, &post.id, "0x1", 9, &[]).await.expect("books"));
    assert!(!ledger.book_final(fence, &post.id, "0x1", 9, &[]).await.expect("books once"));

    let balance = ledger.funding(&account()).await.expect("reads").expect("known");
    assert_eq!((balance.posted, balance.owed), (units(100), units(50)));
    let work = ledger.work(&WorkId::task("a")).await.expect("reads");
    assert_eq!((work.settled, work.transaction.as_deref()), (units(100), Some("0x1")));
    let next = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("more is owed");
    assert_eq!((next.rows.as_slice(), next.amount), ([(1, 15), (7, 135)].as_slice(), units(50)));
}

#[tokio::test]
async fn a_row_that_the_chain_skipped_is_planned_again() {
    let (ledger, fence) = books().await;
    ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
    let post = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
    ledger.book_final(fence, &post.id, "0x1", 9, &[0]).await.expect("books");
    let balance = ledger.funding(&account()).await.expect("reads").expect("known");
    assert_eq!((balance.posted, balance.owed), (units(90), units(10)));
    assert!(ledger.work(&WorkId::task("a")).await.expect("reads").settled.is_zero(), "not all of it is paid");
    let next = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("the skipped row");
    assert_eq!((next.rows.as_slice(), next.amount), ([(1, 10)].as_slice(), units(10)));
}

#[tokio::test]
async fn a_post_that_is_given_up_is_planned_again_with_all_its_lines() {
    let (ledger, fence) = books().await;
    ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
    let post = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
    ledger.void_post(fence, &post.id).await.expect("gives up");
    let again = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
    assert_eq!((again.id, again.rows, again.lines_root), (post.id, post.rows, post.lines_root));
}

#[tokio::test]
async fn a_changed_journal_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("books.db").display());
    let ledger = Ledger::open(&url).await.expect("opens");
    let fence = ledger.take_lead("test").await.expect("leads");
    ledger.commit(fence, &[fund(1_000), reserve("a", 400)]).await.expect("commits");
    assert_eq!(ledger.verify().await.expect("verifies").entries, 3);
    let refused = sqlx::query("UPDATE journal SET payload = '{}' WHERE sequence = 2").execute(&ledger.pool).await;
    assert!(refused.expect_err("the trigger").to_string().contains("append-only"));
    for statement in ["DROP TRIGGER journal_is_append_only_update", "UPDATE journal SET payload = '{}' WHERE sequence = 2"] {
        sqlx::query(statement).execute(&ledger.pool).await.expect("an attacker's statement");
    }
    assert_eq!(
        ledger.verify().await.expect_err("found").to_string(),
        "the books contradict themselves: entry 2 of the journal was changed after it was written"
    );
}

#[tokio::test]
async fn books_that_were_closed_are_found_as_they_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("books.db").display());
    let ledger = Ledger::open(&url).await.expect("opens");
    let fence = ledger.take_lead("one").await.expect("leads");
    ledger.commit(fence, &[fund(1_000), reserve("a", 400)]).await.expect("commits");
    drop(ledger);
    let ledger = Ledger::open(&url).await.expect("opens");
    let open = ledger.open_reservations().await.expect("reads");
    assert_eq!((open.len(), open[0].reserved), (1, units(400)));
    assert_eq!(ledger.take_lead("two").await.expect("leads").number(), 2);
}

#[derive(Debug, Clone)]
enum Step {
    Fund(u64),
    Reserve(u8, u64),
    Charge(u8, u32, u64),
    Release(u8),
    Plan,
    Settle,
    Void,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0_u64..5_000).prop_map(Step::Fund),
        (0_u8..4, 0_u64..2_000).prop_map(|(work, amount)| Step::Reserve(work, amount)),
        (0_u8..4, 0_u32..6, 0_u64..900).prop_map(|(work, segment, seconds)| Step::Charge(work, segment, seconds)),
        (0_u8..4).prop_map(Step::Release),
        Just(Step::Plan),
        Just(Step::Settle),
        Just(Step::Void),
        Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

async fn live(steps: Vec<Step>) {
    let (ledger, mut fence) = books().await;
    let mut deposited = 0;
    for step in steps {
        let posting = match step {
            Step::Fund(more) => {
                deposited += more;
                Some(fund(deposited))
            }
            Step::Reserve(work, amount) => Some(reserve(&work.to_string(), amount)),
            Step::Charge(work, segment, seconds) => Some(charge(&work.to_string(), segment, seconds)),
            Step::Release(work) => Some(release(&work.to_string())),
            Step::Plan => ledger.plan_post(fence, &account(), 0).await.map(|_| None).expect("plans"),
            Step::Settle => {
                for post in ledger.open_posts().await.expect("reads") {
                    ledger.book_final(fence, &post.id, "0x1", 1, &[]).await.expect("books");
                }
                None
            }
            Step::Void => {
                for post in ledger.open_posts().await.expect("reads") {
                    ledger.void_post(fence, &post.id).await.expect("gives up");
                }
                None
            }
            Step::Restart => {
                fence = ledger.take_lead("again").await.expect("leads");
                None
            }
        };
        if let Some(posting) = posting {
            // A second time changes nothing, whatever the first did.
            ledger.commit(fence, std::slice::from_ref(&posting)).await.expect("commits");
            let before = ledger.funding(&account()).await.expect("reads");
            ledger.commit(fence, &[posting]).await.expect("commits");
            assert_eq!(ledger.funding(&account()).await.expect("reads"), before);
        }
        holds(&ledger).await;
    }
    ledger.verify().await.expect("the journal is whole");
}

/// What must always hold, by another way than the database's own.
async fn holds(ledger: &Ledger) {
    let Some(balance) = ledger.funding(&account()).await.expect("reads") else { return };
    let parts = [balance.withdrawn, balance.available, balance.reserved, balance.owed, balance.posted];
    assert_eq!(balance.deposited.units(), parts.iter().map(|part| part.units()).sum::<u64>(), "every unit stands somewhere");
    let (mut charged, mut reserved) = (0, 0);
    for work in 0..4 {
        let work = ledger.work(&WorkId::task(work.to_string())).await.expect("reads");
        charged += work.charged.units();
        reserved += work.reserved.units();
        assert!(work.settled <= work.charged);
    }
    assert_eq!(balance.owed.units() + balance.posted.units(), charged, "what was charged is owed or posted");
    assert_eq!(balance.reserved.units(), reserved, "what is reserved is some work's");
    let lanes = ledger.lanes(&account()).await.expect("reads");
    assert_eq!(lanes.iter().map(|lane| lane.total.units()).sum::<u64>(), charged, "the lanes are what was charged");
    assert_eq!(lanes.iter().map(|lane| lane.posted.units()).sum::<u64>(), balance.posted.units(), "what is posted is some lane's");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn random_histories_keep_the_books_balanced(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(live(steps));
    }
}
