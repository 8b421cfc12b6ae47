//! Whoever led before can change nothing at all, by whichever way in.

use super::*;
use crate::{Attempt, LedgerError, Voucher, VoucherTerms};

/// Everything that can be written, and what came of it.
async fn everything(ledger: &Ledger, fence: Fence, planned: &str, last: &str) -> Vec<(&'static str, Result<(), LedgerError>)> {
    let attempt = Attempt { hash: "0x9".into(), signer: "0xs".into(), nonce: 9, raw: vec![1], max_fee: 1 };
    let terms = VoucherTerms { chain_id: 1, contract: "0xc".into(), signer: "0xs".into() };
    let voucher = Voucher { funding: account(), payee: 7, total: units(5), step: units(5), terms, signature: vec![1], signed_at: 9 };
    vec![
        ("commit", ledger.commit(fence, &[charge("a", 5, 7)]).await.map(drop)),
        ("plan_post", ledger.plan_post(fence, &account(), 0).await.map(drop)),
        ("plan_post_within", ledger.plan_post_within(fence, &account(), units(1), 0).await.map(drop)),
        ("record_attempt", ledger.record_attempt(fence, planned, &attempt, 0).await),
        ("mark_mined", ledger.mark_mined(fence, planned, Some(("0x9", 9))).await),
        ("book_final", ledger.book_final(fence, planned, "0x9", 9, &[]).await.map(drop)),
        ("void_post", ledger.void_post(fence, planned).await),
        ("move_final", ledger.move_final(fence, last, "0x9", 9).await),
        ("undo_final", ledger.undo_final(fence, last).await.map(drop)),
        ("note_foreign_nonce", ledger.note_foreign_nonce(fence, planned, "default", "0xs", 1).await),
        ("keep_owners", ledger.keep_owners(fence, 1, "0xc", &[(7, "0xa".to_owned())].into()).await),
        ("forget_owners", ledger.forget_owners(fence, 1, "0xc").await),
        ("keep_vouchers", ledger.keep_vouchers(fence, &[voucher]).await),
    ]
}

async fn copied(place: &Place) -> Vec<u8> {
    let mut copy = Vec::new();
    crate::Reader::open(&place.url).await.expect("opens").backup(&mut copy).await.expect("copies");
    copy
}

on_both! {
    async fn an_old_leader_can_write_nothing_by_any_way(place: Place) {
        let (ledger, old) = place.books().await;
        ledger.commit(old, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        let last = ledger.plan_post(old, &account(), 0).await.expect("plans").expect("something is owed");
        ledger.book_final(old, &last.id, "0x1", 1, &[]).await.expect("books");
        ledger.commit(old, &[charge("a", 1, 50)]).await.expect("commits");
        let planned = ledger.plan_post(old, &account(), 0).await.expect("plans").expect("more is owed");
        let new = ledger.take_lead("another").await.expect("leads");

        let before = copied(&place).await;
        for (what, outcome) in everything(&ledger, old, &planned.id, &last.id).await {
            assert!(matches!(outcome, Err(LedgerError::Fenced { ours: 1, current: 2 })), "{what}: {outcome:?}");
        }
        assert_eq!(copied(&place).await, before, "not a row is another");
        // Who leads may do all of it.
        for (what, outcome) in everything(&ledger, new, &planned.id, &last.id).await {
            assert!(outcome.is_ok(), "{what}: {outcome:?}");
        }
    }
}
