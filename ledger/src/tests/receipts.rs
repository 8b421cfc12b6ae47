//! Receipts: what the books say of one work, checked as a buyer would.

use super::*;
use crate::key::is_signed;
use crate::{JournalKey, Outcome};
use std::sync::Arc;
use supercargo_market::money::Price;
use supercargo_market::rate_card::{Basis, Rate, RateCard};
use supercargo_market::receipt::{self, Checked, DeviceSource, Devices, Ended, Expected, Metered, Receipt};
use supercargo_market::usage::{Shows, Used};

fn key() -> JournalKey {
    JournalKey::from_seed(&[5; 32]).expect("a seed is a key")
}

fn card(basis: Basis) -> RateCard {
    let rate = Rate { resource_name: "gpu".into(), model: None, per_hour: "0.0036".parse().expect("a price") };
    let cpu_per_hour = "0.0036".parse().expect("a price");
    RateCard { token: "USDC".into(), resources: vec![rate], cpu_per_hour, memory_gib_per_hour: Price::ZERO, basis, minimum_seconds: 0 }
}

/// One base unit a second for its device, and one for each second of a core.
fn metered(basis: Basis) -> Metered {
    let used = Used {
        cpu_milli_seconds: 25_000,
        memory_mib_seconds: 0,
        cpu_seconds_shown: 50,
        memory_seconds_shown: 50,
        gpu_percent: Some(70),
        gpu_seconds_shown: 50,
        gaps: 1,
        resets: 0,
        shows: Shows::Part,
    };
    Metered {
        task: "n/train".into(),
        worker: 0,
        provider: "acme".into(),
        node: "n1".into(),
        from: 1_800_000_000,
        until: 1_800_000_100,
        card: card(basis).hash().to_string(),
        devices: Devices { resource_name: "gpu".into(), model: "x".into(), count: 1, ids: Vec::new(), source: DeviceSource::Count },
        cpu_millis: 1_000,
        memory_bytes: 1 << 30,
        beside_per_hour: Price::ZERO,
        cut: None,
        added_seconds: 0,
        used: Some(used),
        anomalies: Vec::new(),
        ended: Ended::default(),
    }
}

fn metered_charge(work: &str, segment: u32, seconds: u64, basis: Basis) -> Posting {
    let Posting::Charge(plain) = charge(work, segment, seconds) else { unreachable!("it is a charge") };
    let price = "0.0036".parse().expect("a price");
    let held = Held { devices: 1, device_price: price, cpu_millis: 1_000, cpu_price: price, memory_bytes: 1 << 30, ..Held::default() };
    let metered = metered(basis);
    let cost = metered.cost(basis, &held, seconds).expect("fits");
    Posting::Charge(Charge { cost, metered: Some(Box::new(metered)), ..plain })
}

async fn signed(place: &Place) -> (Ledger, Fence) {
    let ledger = Ledger::open_signed(&place.url, key()).await.expect("opens");
    let fence = ledger.take_lead("test").await.expect("leads");
    (ledger, fence)
}

async fn of(ledger: &Ledger, work: &str) -> Receipt {
    ledger.receipt(&WorkId::task(work)).await.expect("reads").expect("something was charged")
}

fn check(receipt: &Receipt, expected: &Expected) -> Checked {
    receipt::verify(&receipt.text(), expected, &is_signed).expect("it holds")
}

async fn settle(ledger: &Ledger, fence: Fence, transaction: &str) -> crate::Post {
    let post = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
    let attempt = crate::Attempt { hash: transaction.into(), signer: "0xs".into(), nonce: 0, raw: vec![1], max_fee: 5 };
    ledger.record_attempt(fence, &post.id, &attempt, 1).await.expect("records");
    assert!(ledger.book_final(fence, &post.id, transaction, 9, &[]).await.expect("books"));
    post
}

on_both! {
    async fn a_receipt_holds_from_the_charge_to_the_root_on_the_chain(place: Place) {
        let (ledger, fence) = signed(&place).await;
        for basis in [Basis::Allocated, Basis::Used] {
            let (work, card) = (format!("{basis:?}"), Posting::Card(Arc::new(card(basis))));
            let others = [reserve("another", 10), charge("another", if basis == Basis::Used { 1 } else { 0 }, 3), release("another")];
            let own = [card, reserve(&work, 150), metered_charge(&work, 0, 50, basis), metered_charge(&work, 1, 100, basis), release(&work)];
            for group in [vec![fund(1_000)], others.to_vec(), own.to_vec(), vec![reserve("c", 10), release("c")]] {
                let outcomes = ledger.commit(fence, &group).await.expect("commits");
                assert!(outcomes.iter().all(|outcome| !matches!(outcome, Outcome::Refused(_))), "{outcomes:?}");
            }
            let fresh = of(&ledger, &work).await;
            // Allocated: 2 a second of 150; Used: 1 a second, and 25 for the CPU of each.
            assert_eq!((fresh.body.charged.units(), fresh.body.absorbed.units()), if basis == Basis::Used { (150, 50) } else { (150, 150) });
            let checked = check(&fresh, &Expected { signer: Some(key().signer()), ..Expected::default() });
            assert_eq!((checked.charges, checked.signed, checked.anchored, checked.unrated), (2, 2, 0, 0));
            let balance = ledger.work_with_receipt(&WorkId::task(work.as_str())).await.expect("reads");
            assert_eq!((balance.receipt.as_ref(), balance.gpu_percent, balance.root), (Some(&fresh.digest), Some(70), None));

            let post = settle(&ledger, fence, &format!("0x{basis:?}")).await;
            let settled = of(&ledger, &work).await;
            assert_eq!((&settled.body, &settled.digest), (&fresh.body, &fresh.digest), "what is anchored later stands beside it");
            let expected = Expected { digest: Some(settled.body.digest()), root: Some(post.lines_root), signer: Some(key().signer()) };
            assert_eq!(check(&settled, &expected).anchored, 2);
            assert_eq!((settled.anchors[0].transaction.clone(), settled.anchors[0].block), (Some(format!("0x{basis:?}")), Some(9)));
            let balance = ledger.work_with_receipt(&WorkId::task(work.as_str())).await.expect("reads");
            assert_eq!(balance.root, Some(format!("0x{}", hex::encode(post.lines_root))));
            let paid = ledger.works_of(&post.id).await.expect("reads");
            let (_, told) = paid.iter().find(|(id, _)| *id.uid == *work).expect("it is paid for");
            assert_eq!((&told.root, &told.transaction, told.settled), (&balance.root, &balance.transaction, balance.settled));
            // Another reader of the same books has the same bytes.
            let reader = crate::Reader::open(&place.url).await.expect("opens");
            let again = reader.receipt(&WorkId::task(work.as_str())).await.expect("reads").expect("is there");
            assert_eq!(again.text(), settled.text());
        }
    }

    async fn a_receipt_whose_post_was_taken_back_leads_to_no_root_until_it_is_posted_again(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100), release("a")]).await.expect("commits");
        let post = settle(&ledger, fence, "0x1").await;
        let settled = of(&ledger, "a").await;
        assert_eq!(settled.anchors.len(), 1);
        assert!(ledger.undo_final(fence, &post.id).await.expect("takes it back"));
        let owed = of(&ledger, "a").await;
        assert_eq!((owed.anchors.len(), &owed.digest), (0, &settled.digest), "what was charged is as it was");
        let balance = ledger.work(&WorkId::task("a")).await.expect("reads");
        assert_eq!((balance.settled, balance.transaction, balance.root), (units(0), None, None));
        settle(&ledger, fence, "0x2").await;
        let again = of(&ledger, "a").await;
        assert_eq!(again.anchors.iter().map(|anchor| anchor.transaction.as_deref()).collect::<Vec<_>>(), [Some("0x2")]);
    }

    async fn a_work_that_cost_nothing_has_no_receipt_and_one_that_runs_is_told_of_no_digest(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), release("a"), reserve("b", 400)]).await.expect("commits");
        assert_eq!(ledger.receipt(&WorkId::task("a")).await.expect("reads"), None);
        assert_eq!(ledger.receipt(&WorkId::task("nobody")).await.expect("reads"), None);
        ledger.commit(fence, &[metered_charge("b", 0, 10, Basis::Allocated)]).await.expect("commits");
        assert!(of(&ledger, "b").await.body.open);
        assert_eq!(ledger.work_with_receipt(&WorkId::task("b")).await.expect("reads").receipt, None);
        ledger.commit(fence, &[release("b")]).await.expect("commits");
        let done = of(&ledger, "b").await;
        assert_eq!(ledger.work_with_receipt(&WorkId::task("b")).await.expect("reads").receipt, Some(done.digest));
    }

    async fn a_charge_of_older_books_is_shown_and_proved_but_not_calculated_again(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100), charge("a", 1, 20), release("a")]).await.expect("commits");
        let post = settle(&ledger, fence, "0x1").await;
        let receipt = of(&ledger, "a").await;
        let checked = check(&receipt, &Expected { root: Some(post.lines_root), ..Expected::default() });
        assert_eq!((checked.charges, checked.unrated, checked.entered, checked.signed), (2, 2, 2, 0));
    }

    async fn a_rate_card_is_kept_once_whoever_leads(place: Place) {
        let (ledger, fence) = place.books().await;
        let cards = [Basis::Allocated, Basis::Used, Basis::Used].map(|basis| Posting::Card(Arc::new(card(basis))));
        let outcomes = ledger.commit(fence, &cards).await.expect("commits");
        assert_eq!(outcomes, [Outcome::Applied, Outcome::Applied, Outcome::Already]);
        let fence = ledger.take_lead("another").await.expect("leads");
        assert_eq!(ledger.commit(fence, &cards).await.expect("commits"), vec![Outcome::Already; 3]);
    }
}
