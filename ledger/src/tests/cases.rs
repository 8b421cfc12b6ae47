//! What cuts, refunds and disputes have come to, on both databases.

use super::*;
use crate::{Expect, FundingBalance, LaneCases, Outcome, Reader, restore};

/// Of each payee what came back, and what its cases have cost.
fn cases(lanes: &[(u32, u64, u64)]) -> Posting {
    let lanes = lanes.iter().map(|(payee, clawback, fees)| LaneCases { payee: *payee, clawback: units(*clawback), fees: units(*fees) });
    Posting::Cases { funding: account(), lanes: lanes.collect() }
}

async fn balance(ledger: &Ledger) -> FundingBalance {
    ledger.funding(&account()).await.expect("reads").expect("is there")
}

/// What was put in, with what came back, is somewhere: as the chain's own sums say.
fn somewhere(balance: &FundingBalance) -> u64 {
    let there = [balance.available, balance.reserved, balance.owed, balance.posted, balance.withdrawn, balance.case_fees];
    there.map(Amount::units).iter().sum::<u64>() - balance.returned.units()
}

on_both! {
    async fn a_cut_and_its_fee_are_kept_as_totals_and_nothing_of_them_was_put_in(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        let post = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
        ledger.book_final(fence, &post.id, "0x1", 9, &[]).await.expect("books");
        // The arbiter cuts 40 of what the payee was credited, and the case cost 5: the account has 35 more than before.
        let cut = [fund(1_035), cases(&[(7, 40, 5)])];
        assert_eq!(ledger.commit(fence, &cut).await.expect("commits"), [Outcome::Applied, Outcome::Applied]);
        let after = balance(&ledger).await;
        assert_eq!((after.available, after.posted, after.returned, after.case_fees), (units(635), units(100), units(40), units(5)));
        assert_eq!((after.put_in(), somewhere(&after)), (units(1_000), 1_000));
        let entries = ledger.verify().await.expect("the journal is whole").entries;
        assert_eq!(ledger.commit(fence, &cut).await.expect("commits"), [Outcome::Already, Outcome::Already]);
        assert_eq!((balance(&ledger).await, ledger.verify().await.expect("the journal is whole").entries), (after, entries));
    }

    async fn what_was_cut_is_not_owed_again(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        let post = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
        ledger.book_final(fence, &post.id, "0x1", 9, &[]).await.expect("books");
        ledger.commit(fence, &[fund(1_090), cases(&[(7, 90, 0)])]).await.expect("commits");
        assert_eq!(ledger.plan_post(fence, &account(), 0).await.expect("plans"), None, "all of it is back, and none of it is owed");
        ledger.commit(fence, &[charge("a", 1, 50)]).await.expect("commits");
        let next = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("more is owed");
        assert_eq!((next.rows.as_slice(), next.amount), ([(1, 15), (7, 135)].as_slice(), units(50)), "only what is newly earned");
    }

    async fn what_the_chain_says_of_cases_takes_the_place_of_what_it_said(place: Place) {
        let (ledger, fence) = place.books().await;
        let unknown = ledger.commit(fence, &[cases(&[(7, 40, 5)])]).await.expect("commits");
        assert!(matches!(&unknown[..], [Outcome::Refused(_)]), "of an account that the books don't know: {unknown:?}");
        ledger.commit(fence, &[fund(1_000)]).await.expect("commits");
        assert_eq!(ledger.commit(fence, &[cases(&[])]).await.expect("commits"), [Outcome::Already], "there was never one");
        // The last of these undoes what was final.
        for (lanes, returned, fees) in [(vec![(7, 40, 5)], 40, 5), (vec![(1, 2, 0), (7, 40, 10)], 42, 10), (vec![(1, 2, 0)], 2, 0)] {
            for outcome in [Outcome::Applied, Outcome::Already] {
                assert_eq!(ledger.commit(fence, &[cases(&lanes)]).await.expect("commits"), [outcome], "{lanes:?}");
                let balance = balance(&ledger).await;
                assert_eq!((balance.returned, balance.case_fees, balance.available), (units(returned), units(fees), units(1_000)));
            }
        }
        drop(ledger);
        // Another leader has nothing of it in memory.
        let next = Ledger::open(&place.url).await.expect("opens");
        let fence = next.take_lead("next").await.expect("leads");
        assert_eq!(next.commit(fence, &[cases(&[(1, 2, 0)])]).await.expect("commits"), [Outcome::Already]);
        next.verify().await.expect("the journal is whole");
    }

    async fn a_backup_has_them_and_the_database_holds_their_rules(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), cases(&[(7, 40, 5)])]).await.expect("commits");
        let mut copy = Vec::new();
        Reader::open(&place.url).await.expect("opens").backup(&mut copy).await.expect("copies");
        let other = Place::sqlite();
        restore(&other.url, None, copy.as_slice(), Expect::default()).await.expect("restores");
        let again = Ledger::open(&other.url).await.expect("opens");
        assert_eq!(balance(&again).await, balance(&ledger).await);
        for slip in [
            "UPDATE cases SET clawback = -1",
            "UPDATE cases SET fees = -1",
            "INSERT INTO cases (funding, payee, clawback, fees) VALUES ('nobody', 1, 0, 0)",
            "INSERT INTO cases (funding, payee, clawback, fees) SELECT id, 0, 0, 0 FROM fundings",
        ] {
            sqlx::query(slip).execute(ledger.pool()).await.expect_err(slip);
        }
    }
}
