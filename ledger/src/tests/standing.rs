//! What stands between charges: what works have used so far, what an account is short of, and what a day has cost.

use super::*;
use crate::{Outcome, Reader, restore};

fn hold(at: i64, works: &[(&str, u64)]) -> Posting {
    Posting::Hold { at, works: works.iter().map(|(work, used)| (WorkId::task(*work), units(*used))).collect() }
}

fn charge_on(day: i64, work: &str, segment: u32, seconds: u64) -> Posting {
    match charge(work, segment, seconds) {
        Posting::Charge(charge) => Posting::Charge(Charge { day, ..charge }),
        _ => unreachable!("it is a charge"),
    }
}

async fn balance(ledger: &Ledger) -> crate::FundingBalance {
    ledger.funding(&account()).await.expect("reads").expect("is there")
}

/// What is available, reserved, held of that, and owed.
async fn stands(ledger: &Ledger) -> [u64; 4] {
    let balance = balance(ledger).await;
    [balance.available, balance.reserved, balance.held, balance.owed].map(Amount::units)
}

on_both! {
    async fn what_works_have_used_only_grows_and_only_within_what_is_held_back(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), reserve("b", 100)]).await.expect("commits");
        let entries = ledger.verify().await.expect("verifies").entries;
        for (posting, outcome, held) in [
            (hold(60, &[("a", 30), ("b", 40)]), Outcome::Applied, 70),
            (hold(60, &[("a", 30), ("b", 40)]), Outcome::Already, 70),
            (hold(50, &[("a", 20)]), Outcome::Already, 70),
            (hold(120, &[("a", 90), ("b", 500)]), Outcome::Applied, 190),
            (hold(180, &[("nobody", 5)]), Outcome::Already, 190),
            (hold(180, &[]), Outcome::Already, 190),
        ] {
            assert_eq!(ledger.commit(fence, std::slice::from_ref(&posting)).await.expect("commits"), [outcome], "{posting:?}");
            assert_eq!(stands(&ledger).await, [500, 500, held, 0], "no money moves");
        }
        let work = ledger.work(&WorkId::task("a")).await.expect("reads");
        assert_eq!((work.held, work.reserved, work.charged), (units(90), units(400), units(0)));
        assert_eq!(ledger.verify().await.expect("verifies").entries, entries + 2, "all works are one entry");
    }

    async fn the_charge_takes_the_place_of_what_was_used(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), reserve("b", 100), hold(60, &[("a", 90), ("b", 60)])]).await.expect("commits");
        // More or less than was thought: what the record says is what counts.
        ledger.commit(fence, &[charge("a", 0, 95), release("a")]).await.expect("commits");
        assert_eq!(stands(&ledger).await, [805, 100, 60, 95]);
        // A fault of the provider's, which nobody pays for: what was held is given back.
        ledger.commit(fence, &[charge("b", 0, 0), release("b")]).await.expect("commits");
        assert_eq!(stands(&ledger).await, [905, 0, 0, 95]);
        assert_eq!(ledger.commit(fence, &[hold(120, &[("a", 99), ("b", 99)])]).await.expect("commits"), [Outcome::Already], "it is over");
        assert_eq!(stands(&ledger).await, [905, 0, 0, 95]);
        // Another attempt begins with nothing used.
        ledger.commit(fence, &[reserve("b", 100), hold(180, &[("b", 7)])]).await.expect("commits");
        assert_eq!(stands(&ledger).await, [805, 100, 7, 95]);
        ledger.commit(fence, &[reserve("b", 5)]).await.expect("commits");
        assert_eq!(stands(&ledger).await, [900, 5, 5, 95], "no more is used than is held back");
        ledger.verify().await.expect("the journal is whole");
    }

    async fn what_was_used_is_found_again_and_charged_once_whoever_leads(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), hold(60, &[("a", 60)])]).await.expect("commits");
        drop(ledger);
        let ledger = Ledger::open(&place.url).await.expect("opens");
        let next = ledger.take_lead("next").await.expect("leads");
        ledger.commit(fence, &[hold(120, &[("a", 120)])]).await.expect_err("an old leader holds nothing");
        assert_eq!(ledger.work(&WorkId::task("a")).await.expect("reads").held, units(60));
        ledger.commit(next, &[hold(90, &[("a", 80)])]).await.expect("commits");
        for _ in 0..2 {
            ledger.commit(next, &[charge("a", 0, 85), release("a")]).await.expect("commits");
            assert_eq!(stands(&ledger).await, [915, 0, 0, 85]);
        }
    }

    async fn an_account_that_loses_what_is_bound_is_short_of_it_and_lends_nothing(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), reserve("b", 300), charge("a", 0, 100)]).await.expect("commits");
        assert_eq!(ledger.commit(fence, &[fund(550)]).await.expect("commits"), [Outcome::Applied]);
        let short = balance(&ledger).await;
        assert_eq!((short.deposited, short.shortfall, short.available), (units(700), units(150), units(0)));
        assert_eq!(ledger.commit(fence, &[fund(550)]).await.expect("commits"), [Outcome::Already]);
        let outcomes = ledger.commit(fence, &[reserve("c", 1)]).await.expect("commits");
        assert_eq!(outcomes, [Outcome::Refused("0.000001 is wanted and 0.00 is available".into())]);
        // What is given back covers it first; what ran is charged all the same.
        ledger.commit(fence, &[charge("b", 0, 200), release("b")]).await.expect("commits");
        let short = balance(&ledger).await;
        assert_eq!((short.deposited, short.shortfall, short.available, short.owed), (units(600), units(50), units(0), units(300)));
        ledger.commit(fence, &[reserve("a", 220)]).await.expect("commits");
        let covered = balance(&ledger).await;
        assert_eq!((covered.deposited, covered.shortfall, covered.available), (units(550), units(0), units(30)));
        ledger.commit(fence, &[fund(500)]).await.expect("commits");
        ledger.commit(fence, &[fund(900)]).await.expect("commits");
        let mended = balance(&ledger).await;
        assert_eq!((mended.deposited, mended.shortfall, mended.available), (units(900), units(0), units(380)));
        ledger.verify().await.expect("the journal is whole");
    }

    async fn what_is_absorbed_is_an_account_of_its_own(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 50), reserve("b", 20)]).await.expect("commits");
        for _ in 0..2 {
            ledger.commit(fence, &[charge("a", 0, 80), charge("b", 0, 25), release("a"), release("b")]).await.expect("commits");
            let balance = balance(&ledger).await;
            assert_eq!((balance.owed, balance.absorbed, balance.available), (units(70), units(35), units(930)));
        }
    }

    async fn what_was_charged_counts_on_its_day_once(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400)]).await.expect("commits");
        assert_eq!(ledger.last_day(&account(), i64::MAX).await.expect("reads"), None);
        let charges = [(charge_on(7, "a", 0, 30), 7, 30), (charge_on(7, "a", 1, 20), 7, 50), (charge_on(8, "a", 2, 500), 8, 350)];
        for (charge, day, charged) in charges {
            for _ in 0..2 {
                ledger.commit(fence, std::slice::from_ref(&charge)).await.expect("commits");
                assert_eq!(ledger.last_day(&account(), i64::MAX).await.expect("reads"), Some((day, units(charged))));
            }
        }
        assert_eq!(ledger.last_day(&account(), 7).await.expect("reads"), Some((7, units(50))), "a later day is not looked at");
        assert_eq!(ledger.last_day(&account(), 6).await.expect("reads"), None);
    }

    async fn a_backup_has_what_stands_between_charges(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge_on(7, "a", 0, 30), hold(60, &[("a", 50)])]).await.expect("commits");
        let mut copy = Vec::new();
        Reader::open(&place.url).await.expect("opens").backup(&mut copy).await.expect("copies");
        let other = Place::sqlite();
        restore(&other.url, None, copy.as_slice(), crate::Expect::default()).await.expect("restores");
        let again = Ledger::open(&other.url).await.expect("opens");
        assert_eq!(again.work(&WorkId::task("a")).await.expect("reads").held, units(50));
        assert_eq!(again.last_day(&account(), 7).await.expect("reads"), Some((7, units(30))));
        assert_eq!(balance(&again).await, balance(&ledger).await);
    }

    async fn the_database_itself_holds_what_is_held_and_short(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), hold(60, &[("a", 50)])]).await.expect("commits");
        for slip in [
            "UPDATE fundings SET held = 401",
            "UPDATE fundings SET held = -1",
            "UPDATE fundings SET shortfall = 1",
            "UPDATE fundings SET shortfall = -1",
            "UPDATE holds SET used = 0",
            "INSERT INTO holds (work, used, seen) VALUES ('task:x', 1, 0)",
            "INSERT INTO days (funding, day, charged) SELECT id, 1, -1 FROM fundings",
        ] {
            sqlx::query(slip).execute(ledger.pool()).await.expect_err(slip);
        }
    }
}
