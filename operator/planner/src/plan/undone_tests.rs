//! What a chain had promised never to undo, and undid: what was told to be paid is told to be owed again, once.

use super::ends_tests::{running, settled};
use super::note;
use super::simulation::{escrow_with, task};
use super::tests::{ends, set};
use crate::world::Event;
use supercargo_crds::common::Money;
use supercargo_crds::escrow::{EscrowStatus, LastPost};
use supercargo_ledger::WorkBalance;
use supercargo_market::money::Amount;

#[test]
fn a_finished_task_says_that_it_is_paid_and_that_it_is_not_any_more_and_where_it_is_again() {
    let mut theatre = running(task("a", "1", 0));
    theatre.now += 60;
    let now = theatre.now;
    set(&mut theatre, |pod| ends(pod, now, 0));
    settled(&mut theatre);
    let (work, balance) = theatre.world.works.iter().next().map(|(work, balance)| (work.clone(), balance.clone())).expect("there is one");
    let charged = balance.charged;
    assert!(!charged.is_zero());
    let mut told = |paid: Amount, transaction: Option<&str>| {
        let (transaction, root) = (transaction.map(str::to_owned), transaction.map(|transaction| format!("root of {transaction}")));
        let balance = WorkBalance { settled: paid, transaction, root, ..balance.clone() };
        theatre.world.apply(Event::Settled { work: work.clone(), balance });
        let status = settled(&mut theatre);
        let (cost, receipt) = (status.cost.expect("is told"), status.receipt);
        let (shown, root) = receipt.map(|receipt| (receipt.transaction, receipt.root)).unwrap_or_default();
        assert!(shown.is_none() || shown == cost.transaction, "both say the same");
        (cost.settled.0, cost.transaction, root)
    };
    let by = |name: &str| Some(name.to_owned());
    assert_eq!(told(charged, Some("0xa")).0, charged);
    assert_eq!(told(Amount::ZERO, None), (Amount::ZERO, None, None), "a chain undid it");
    assert_eq!(told(charged, Some("0xb")).1, by("0xb"));
    // It is in another transaction now.
    assert_eq!(told(charged, Some("0xc")).1, by("0xc"));
}

#[test]
fn that_less_is_posted_than_was_is_an_event_of_its_own_and_that_more_is_none() {
    let mut escrow = escrow_with(serde_json::json!({
        "funding": "Chain", "token": "USDC", "chain": "c", "accountId": format!("0x{}", "1".repeat(64)),
    }));
    let posted = |units: u64| Some(Money(Amount::from_units(units)));
    let last_post = |block| Some(LastPost { transaction: "0xa".into(), block });
    escrow.status = EscrowStatus { posted: posted(5_000_000), last_post: last_post(9), ..EscrowStatus::default() };
    let told = |next: Option<Money>| note::on_escrow(&escrow, &EscrowStatus { posted: next, ..EscrowStatus::default() });
    for same in [posted(5_000_000), posted(6_000_000), None] {
        assert_eq!(told(same), None);
    }
    let note = told(posted(2_000_000)).expect("it is told");
    assert_eq!((note.reason.as_str(), note.warning, note.name.as_str()), ("PostUndone", true, "default.postundone-e-9-5000000-2000000"));
    let words = "3.00 USDC that was posted by block 9 is owed again, and is posted anew: the chain has undone what was final, or the \
                 operator's books are an older copy";
    assert_eq!(note.message, words);
}
