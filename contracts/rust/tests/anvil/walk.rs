//! Everything that happens to an account from its first deposit to its last withdrawal, and each refusal in words.

use super::market::*;
use supercargo_contracts::calls;

const TEN: u64 = 10 * TOKEN;
const TWELVE: u64 = 12 * TOKEN;

#[tokio::test]
async fn an_account_is_funded_charged_disputed_collected_and_left() {
    let Some(market) = Market::start().await else { return };
    let payee = market.register().await;
    posted_and_claimed(&market, payee).await;
    disputed_and_lapsed(&market, payee).await;
    collected(&market, payee).await;
    left(&market).await;
}

async fn posted_and_claimed(market: &Market, payee: u32) {
    let posted = market.post(market.account, &[row(payee, TEN)]).await.posted.unwrap();
    assert_eq!((posted.credited_units, posted.skipped), (u128::from(TEN), vec![]));
    let again = market.post(market.account, &[row(payee, TEN)]).await.posted.unwrap();
    assert_eq!(again.credited_units, 0, "posted twice");
    let waits = market.post(market.account, &[row(payee, TWELVE)]).await.posted.unwrap();
    assert_eq!((waits.credited_units, waits.skipped), (0, vec![0]), "its window is open");

    let voucher = market.voucher(row(payee, TWELVE));
    let claim = calls::claim_call(market.account, row(payee, TWELVE), voucher.clone());
    assert!(market.refused(Who::Stranger, claim.clone()).await.contains("takes its next row at"));
    let forged = calls::claim_call(market.account, row(payee, 13 * TOKEN), voucher);
    assert!(market.refused(Who::Stranger, forged).await.contains("not by the hot key"));
    market.later(WINDOW_SECONDS).await;
    market.act(Who::Stranger, claim).await.unwrap();
    assert_eq!(market.lane(payee).await.posted_units, u128::from(TWELVE));
}

async fn disputed_and_lapsed(market: &Market, payee: u32) {
    let dispute = calls::dispute_call(market.account, payee);
    assert!(market.refused(Who::Stranger, dispute.clone()).await.contains("neither the payer"));
    market.act(Who::Payer, dispute.clone()).await.unwrap();
    assert!(market.refused(Who::Payer, dispute).await.contains("already"));
    let held = market.lane(payee).await;
    assert_eq!((held.posted_units, held.mature_units), (u128::from(TWELVE), u128::from(TEN)));
    assert!(market.refused(Who::Arbiter, calls::resolve_call(market.account, payee, 3 * TOKEN)).await.contains("can't be cut"));
    market.later(CASE_SECONDS).await;
    let lapsed = market.lane(payee).await;
    assert_eq!(lapsed.mature_units, u128::from(TWELVE), "nobody answered");
    assert_eq!((lapsed.case_fee_units > 0, lapsed.returned_units), (true, 0), "the fee is gone however it ends");
    assert_eq!(market.funds().await.credited_units, u128::from(TWELVE));
}

async fn collected(market: &Market, payee: u32) {
    let collect = calls::collect_call(payee, &[market.account]);
    assert_eq!(market.act(Who::Stranger, collect.clone()).await.unwrap().collected_units, Some(u128::from(TWELVE)));
    assert_eq!(market.purse(Who::Provider).await, u128::from(TWELVE));
    assert!(market.refused(Who::Stranger, collect).await.contains("nothing is mature"));
}

async fn left(market: &Market) {
    let before = market.purse(Who::Payer).await;
    market.act(Who::Payer, calls::thaw_call(market.account, 5 * TOKEN)).await.unwrap();
    assert!(market.refused(Who::Payer, calls::withdraw_call(market.account)).await.contains("thaws until"));
    market.later(THAW_SECONDS).await;
    market.act(Who::Payer, calls::withdraw_call(market.account)).await.unwrap();
    assert_eq!(market.purse(Who::Payer).await - before, u128::from(5 * TOKEN));
    let fee = TOKEN;
    let left = market.funds().await.balance_units;
    assert_eq!(left, u128::from(DEPOSIT_UNITS - TWELVE - fee - 5 * TOKEN), "the deposit less payment, fee and withdrawal");
}
