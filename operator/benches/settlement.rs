//! What it costs the operator to pay 10,000 tasks of 100 providers on a real chain, read through three endpoints: prints each
//! figure as `figure <name> <value> <unit>`. The time is this process's own, on the processor; the chain is another one.

#[path = "../tests/payouts/chain.rs"]
#[allow(dead_code, reason = "the tests restart the chain as well")]
mod chain;

use anyhow::{Context, Result, ensure};
use chain::{Anvil, CHAIN, DEPOSIT_UNITS, Market, TOKEN};
use rustix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::time::Duration;
use supercargo_ledger::{Charge, Fence, Ledger, Posting};
use supercargo_market::asset::Asset;
use supercargo_market::fees::FeeSchedule;
use supercargo_market::metering::Evidence;
use supercargo_market::money::Amount;
use supercargo_market::rating::{self, Held};
use supercargo_market::work::{FundingId, SegmentId, WorkId};
use supercargo_operator::runtime::config::{ChainConfig, Settlement};
use supercargo_operator::runtime::telemetry::Metrics;
use supercargo_operator::settlement::{self, Owners, Settler};
use supercargo_operator::watch::News;
use supercargo_operator::world::Event;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const TASKS: u32 = 10_000;
const PROVIDERS: u32 = 100;
/// What the contract promises for a row of a lane that exists.
const MOST_GAS_ROW: u64 = 6_300;
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run())
}

/// The processor's time that this process has had.
fn spent() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or_default())
}

/// So many tasks that ended, spread over the providers.
async fn charge(ledger: &Ledger, fence: Fence, funding: &FundingId, round: u32, tasks: u32) -> Result<()> {
    let held = Held { devices: 1, device_price: "0.0036".parse()?, ..Held::default() };
    for from in (0..tasks).step_by(1_000) {
        let postings = (from..tasks.min(from + 1_000)).flat_map(|task| {
            let (uid, seconds) = (format!("{round}-{task}"), 600 + u64::from(task));
            let work = WorkId::task(uid.clone());
            let amount = Amount::from_units(50 * TOKEN);
            let reserve = Posting::Reserve {
                work: work.clone(),
                asset: Asset::of(funding, "USDC"),
                funding: funding.clone(),
                amount,
                detail: "{}".into(),
                parent: None,
            };
            let charge = rating::cost(&held, seconds).map(|cost| {
                Posting::Charge(Charge {
                    work: work.clone(),
                    attempt: 0,
                    segment: SegmentId::of_pod(uid, 0),
                    seconds,
                    evidence: Evidence::Record,
                    place: "acme/n1".into(),
                    fault: false,
                    cost,
                    payee: Some(task % PROVIDERS + 1),
                    fees: FeeSchedule::default(),
                    metered: None,
                    day: 0,
                })
            });
            [Some(reserve), charge.ok(), Some(Posting::Release { work })]
        });
        let postings: Vec<Posting> = postings.flatten().collect();
        ledger.commit(fence, &postings).await?;
    }
    Ok(())
}

/// Until so many tasks are told to be settled.
async fn settled(news: &mut mpsc::Receiver<News>, tasks: u32) -> Result<()> {
    let mut left = tasks;
    while left > 0 {
        let next = tokio::time::timeout(PATIENCE, news.recv()).await;
        match next.with_context(|| format!("{left} of {tasks} tasks were not settled within {} s", PATIENCE.as_secs()))? {
            Some(News::Event(Event::Settled { balance, .. })) if balance.settled == balance.charged => left -= 1,
            Some(_) => {}
            None => anyhow::bail!("settlement ended"),
        }
    }
    Ok(())
}

async fn run() -> Result<()> {
    let program = chain::program().context("there is no chain")?;
    // Beside the build's own files: a folder for temporary ones may be in memory.
    let folder = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    let anvil = Anvil::start(&program, folder.path())?;
    let market = Market::open(&anvil, PROVIDERS).await?;
    let config: ChainConfig = serde_json::from_value(market.config.clone())?;
    let ledger = Ledger::open(&format!("sqlite://{}", folder.path().join("books.db").display())).await?;
    let fence = ledger.take_lead("bench").await?;
    let funding = FundingId::chain(CHAIN, &market.account.to_string());
    let deposited = Amount::from_units(DEPOSIT_UNITS);
    ledger
        .commit(
            fence,
            &[Posting::Fund { asset: Asset::of(&funding, "USDC"), funding: funding.clone(), deposited, withdrawn: Amount::ZERO }],
        )
        .await?;

    let (news_out, mut news) = mpsc::channel(4_096);
    let (fence_out, fences) = watch::channel(None);
    let (_accounts_out, accounts) = watch::channel(vec![funding.clone()]);
    let settings = Settlement { poll_seconds: 1, post_seconds: 1, minimum_amount: Amount::from_units(1), ..Settlement::default() };
    let settler = Settler {
        ledger: ledger.clone(),
        settings,
        fence: fences,
        accounts,
        news: news_out,
        owners: Owners::default(),
        fee_payees: [].into(),
        metrics: Metrics::new()?,
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(settlement::run(settler, config, stop.clone()));

    // A first task of each provider makes its lane, which costs more, once.
    charge(&ledger, fence, &funding, 0, PROVIDERS).await?;
    fence_out.send_replace(Some(fence));
    settled(&mut news, PROVIDERS).await?;
    fence_out.send_replace(None);
    charge(&ledger, fence, &funding, 1, TASKS).await?;
    let start = spent();
    fence_out.send_replace(Some(fence));
    settled(&mut news, TASKS).await?;
    let used = spent() - start;
    stop.cancel();
    running.await?;

    let (transaction, _) = ledger.last_final(&funding).await?.context("a post is final")?;
    let receipt = market.chain.receipt(transaction.parse()?).await?.context("it has a receipt")?;
    let gas_row = receipt.gas_used.div_ceil(PROVIDERS.into());
    println!("figure settlement.plan_cpu {:.2} s", used.as_secs_f64());
    println!("beside settlement.gas_row {gas_row} gas");
    ensure!(gas_row <= MOST_GAS_ROW, "a row used {gas_row} gas: the contract promises {MOST_GAS_ROW}");
    Ok(())
}
