//! What is paid for by the row and by the task, signatures and calldata included, in a lane's steady state. `make
//! contracts-check` holds every single call to its recorded cost; these are the sums that were promised.

use super::market::*;
use supercargo_contracts::{B256, Row, calls};

const PROVIDERS: u32 = 100;
/// How many tasks one post of a row for each provider settles.
const TASKS: u64 = 10_000;

fn rows(payees: std::ops::RangeInclusive<u32>, units: u64) -> Vec<Row> {
    payees.map(|payee| row(payee, units)).collect()
}

#[tokio::test]
async fn settling_ten_thousand_tasks_stays_within_the_figures() {
    let Some(market) = Market::start().await else { return };
    market.register_until(PROVIDERS).await;
    let mut accounts = vec![market.account];
    for salt in 1..50 {
        accounts.push(market.open(salt).await);
    }
    for account in &accounts {
        market.post(*account, &rows(1..=PROVIDERS, 1_234_567)).await;
    }
    market.later(WINDOW_SECONDS).await;
    let mut used = Vec::new();
    for account in &accounts {
        used.push(market.post(*account, &rows(1..=PROVIDERS, 2_345_678)).await.gas_used);
    }
    let sum = |payers: usize| used[..payers].iter().sum::<u64>();
    let (a_row, a_task) = (used[0].div_ceil(PROVIDERS.into()), used[0].div_ceil(TASKS));
    println!("figure contracts.gas_row {a_row} gas");
    println!("figure contracts.gas_task {a_task} gas");
    println!("figure contracts.gas_task_10_payers {} gas", sum(10).div_ceil(TASKS));
    println!("figure contracts.gas_task_50_payers {} gas", sum(50).div_ceil(TASKS));
    assert!(a_row <= 6_300 && a_task <= 66);
    collecting(&market, &accounts).await;
}

async fn collecting(market: &Market, accounts: &[B256]) {
    // The provider's purse and lanes are as they are in the middle of their lives.
    market.act(Who::Stranger, calls::collect_call(1, accounts)).await.unwrap();
    market.later(WINDOW_SECONDS).await;
    let one = market.act(Who::Stranger, calls::collect_call(1, &accounts[..1])).await.unwrap().gas_used;
    let many = market.act(Who::Stranger, calls::collect_call(1, &accounts[1..])).await.unwrap().gas_used;
    let further = (many - one).div_ceil(accounts.len() as u64 - 2);
    println!("figure contracts.gas_collect_first {one} gas");
    println!("figure contracts.gas_collect_lane {further} gas");
    assert!(one <= 48_000 && further <= 6_000);
}

#[tokio::test]
async fn claiming_stays_within_the_figures() {
    let Some(market) = Market::start().await else { return };
    market.register_until(23).await;
    market.post(market.account, &rows(1..=23, 1_234_567)).await;
    market.later(WINDOW_SECONDS).await;
    for payee in 1..=23 {
        market.act(Who::Stranger, calls::collect_call(payee, &[market.account])).await.unwrap();
    }
    let next = row(1, 3_456_789);
    let claim = calls::claim_call(market.account, next, market.voucher(next));
    let one = market.act(Who::Stranger, claim).await.unwrap().gas_used;
    let many = |rows: Vec<Row>| {
        let signatures: Vec<u8> = rows.iter().flat_map(|row| market.voucher(*row).to_vec()).collect();
        calls::claim_many_call(market.account, &rows, signatures.into())
    };
    let few = market.act(Who::Stranger, many(rows(2..=3, 3_456_789))).await.unwrap().gas_used;
    let more = market.act(Who::Stranger, many(rows(4..=23, 3_456_789))).await.unwrap().gas_used;
    let marginal = (more - few).div_ceil(18);
    println!("figure contracts.gas_claim {one} gas");
    println!("figure contracts.gas_claim_marginal {marginal} gas");
    assert!(one < 48_000 && marginal < 13_000);
}

#[tokio::test]
async fn the_code_fits_a_contract() {
    use alloy::providers::Provider;
    let Some(market) = Market::start().await else { return };
    let size = market.chain.provider().get_code_at(market.at.escrow).await.unwrap().len();
    println!("figure contracts.size {size} B");
    assert!(size <= 24_576);
}
