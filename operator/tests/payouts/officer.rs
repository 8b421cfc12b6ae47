//! The paying half of an operator, in a process of its own that can be killed: the real books and the real settlement, and work
//! that ends as time goes by.

use super::chain::{CHAIN, DEPOSIT_UNITS};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use supercargo_ledger::{Charge, Fence, Ledger, LedgerError, Posting};
use supercargo_market::asset::Asset;
use supercargo_market::fees::{FeeSchedule, FeeShare};
use supercargo_market::metering::Evidence;
use supercargo_market::money::Amount;
use supercargo_market::rating::{self, Held};
use supercargo_market::work::{FundingId, SegmentId, WorkId};
use supercargo_operator::runtime::config::{ChainConfig, Settlement};
use supercargo_operator::runtime::telemetry::Metrics;
use supercargo_operator::settlement::{self, Owners, Settler};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub const PROVIDERS: u32 = 5;
/// Who is paid the fee.
pub const FEE_PAYEE: u32 = PROVIDERS + 1;
pub const FEE_BASIS_POINTS: u32 = 250;
/// How an officer ends that somebody else took the lead from.
pub const FENCED: i32 = 3;
/// A task ends each so many milliseconds.
const BETWEEN_TASKS: u64 = 50;
/// Who begins anew may not know which of so many tasks the one before has charged: it charges them all.
const AGAIN: u32 = 100;
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    pub books: String,
    pub chain: serde_json::Value,
    pub account: String,
    pub begun_millis: u64,
    /// With so many tasks all is over: charge them, see them paid, and end.
    pub last: Option<u32>,
    /// Where its words go.
    pub log: PathBuf,
}

pub fn millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Orders {
    /// How many tasks have ended by now.
    pub fn ended(&self) -> u32 {
        u32::try_from(millis().saturating_sub(self.begun_millis) / BETWEEN_TASKS).unwrap_or(u32::MAX)
    }

    pub fn funding(&self) -> FundingId {
        FundingId::chain(CHAIN, &self.account)
    }
}

/// What a task costs: each second a unit.
pub fn seconds(task: u32) -> u64 {
    600 + u64::from(task) * 7 % 1_000
}

pub async fn serve(orders: Orders) -> Result<i32> {
    let ledger = Ledger::open(&orders.books).await?;
    let fence = ledger.take_lead("officer").await?;
    let config: ChainConfig = serde_json::from_value(orders.chain.clone())?;
    // The settlement's news are the planner's, and there is none here.
    let (news, mut heard) = mpsc::channel(1_024);
    tokio::spawn(async move { while heard.recv().await.is_some() {} });
    let (_accounts, accounts) = watch::channel(vec![orders.funding()]);
    let (_fence, fences) = watch::channel(Some(fence));
    let settings = Settlement { poll_seconds: 1, post_seconds: 1, minimum_amount: Amount::from_units(1), ..Settlement::default() };
    let (metrics, owners, fee_payees) = (Metrics::new()?, Owners::default(), [FEE_PAYEE].into());
    let settler = Settler { ledger: ledger.clone(), settings, fence: fences, accounts, news, metrics, owners, fee_payees };
    tokio::spawn(settlement::run(settler, config, CancellationToken::new()));

    let deposited = Amount::from_units(DEPOSIT_UNITS);
    let fund = Posting::Fund { funding: orders.funding(), asset: Asset::of(&orders.funding(), "USDC"), deposited, withdrawn: Amount::ZERO };
    match book(&ledger, fence, &orders, fund).await {
        Err(error) => matches!(error.downcast_ref(), Some(LedgerError::Fenced { .. })).then_some(FENCED).ok_or(error),
        Ok(()) => Ok(0),
    }
}

/// Charges tasks as they end; when that is over, until the last of them is paid.
async fn book(ledger: &Ledger, fence: Fence, orders: &Orders, fund: Posting) -> Result<()> {
    ledger.commit(fence, &[fund]).await?;
    let mut from = if orders.last.is_some() { 0 } else { orders.ended().saturating_sub(AGAIN) };
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        let until = orders.last.unwrap_or_else(|| orders.ended());
        for first in (from..until).step_by(50) {
            charge(ledger, fence, &orders.funding(), first..until.min(first + 50)).await?;
        }
        from = until;
        if orders.last.is_some() && ledger.unsettled().await?.is_empty() && ledger.open_posts().await?.is_empty() {
            return Ok(());
        }
    }
}

pub async fn charge(ledger: &Ledger, fence: Fence, funding: &FundingId, tasks: Range<u32>) -> Result<()> {
    let held = Held { devices: 1, device_price: "0.0036".parse()?, ..Held::default() };
    let fees = FeeSchedule { basis_points: FEE_BASIS_POINTS, shares: vec![FeeShare { payee: FEE_PAYEE, basis_points: 10_000 }] };
    let mut postings = Vec::new();
    for task in tasks {
        let work = WorkId::task(format!("task-{task}"));
        let amount = Amount::from_units(2 * seconds(task));
        postings.push(Posting::Reserve {
            work: work.clone(),
            asset: Asset::of(funding, "USDC"),
            funding: funding.clone(),
            amount,
            detail: "{}".into(),
            parent: None,
        });
        postings.push(Posting::Charge(Charge {
            work: work.clone(),
            attempt: 0,
            segment: SegmentId::of_pod(format!("pod-{task}"), 0),
            seconds: seconds(task),
            evidence: Evidence::Record,
            place: "acme/n1".into(),
            fault: false,
            cost: rating::cost(&held, seconds(task))?,
            payee: Some(task % PROVIDERS + 1),
            fees: fees.clone(),
            metered: None,
            day: 0,
        }));
        postings.push(Posting::Release { work });
    }
    ledger.commit(fence, &postings).await?;
    Ok(())
}
