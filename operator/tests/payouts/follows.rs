//! What settlement tells of an account on a real chain: that other books post from it, and what its disputes have come to.

use super::chain::{self, Anvil, CHAIN, DEPOSIT_UNITS, Market, TOKEN};
use super::officer::{FEE_PAYEE, charge};
use super::{PATIENCE, folder};
use alloy::providers::Provider;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::Duration;
use supercargo_contracts::{B256, BlockId, Bytes, LaneState, PrivateKeySigner, Row, calls};
use supercargo_crds::names::escrow_stall::OTHER_LEDGER;
use supercargo_ledger::{Fence, LaneCases, Ledger, Outcome, Posting};
use supercargo_market::asset::Asset;
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;
use supercargo_operator::runtime::config::Settlement;
use supercargo_operator::runtime::telemetry::Metrics;
use supercargo_operator::settlement::{self, Owners, Settler};
use supercargo_operator::watch::News;
use supercargo_operator::world::Event;
use supercargo_operator::world::records::Account;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const LOOK: Duration = Duration::from_millis(200);

/// Books, and a settlement that pays from them and tells what it sees.
pub struct Office {
    pub ledger: Ledger,
    pub fence: Fence,
    pub funding: FundingId,
    news: mpsc::Receiver<News>,
    _accounts: watch::Sender<Vec<FundingId>>,
    _fences: watch::Sender<Option<Fence>>,
}

impl Office {
    pub async fn open(market: &Market, folder: &Path) -> Result<Self> {
        let ledger = Ledger::open(&format!("sqlite://{}", folder.join("books.db").display())).await?;
        let fence = ledger.take_lead("office").await?;
        let funding = FundingId::chain(CHAIN, &market.account.to_string());
        let deposited = Amount::from_units(DEPOSIT_UNITS);
        let fund = Posting::Fund { asset: Asset::of(&funding, "USDC"), funding: funding.clone(), deposited, withdrawn: Amount::ZERO };
        ledger.commit(fence, &[fund]).await?;
        let (sender, news) = mpsc::channel(1_024);
        let (accounts, named) = watch::channel(vec![funding.clone()]);
        let (fences, lead) = watch::channel(Some(fence));
        let settings = Settlement { poll_seconds: 1, post_seconds: 1, minimum_amount: Amount::from_units(1), ..Settlement::default() };
        let (metrics, owners, fee_payees) = (Metrics::new()?, Owners::default(), [FEE_PAYEE].into());
        let settler = Settler { ledger: ledger.clone(), settings, fence: lead, accounts: named, news: sender, metrics, owners, fee_payees };
        let config = serde_json::from_value(market.config.clone())?;
        tokio::spawn(settlement::run(settler, config, CancellationToken::new()));
        Ok(Self { ledger, fence, funding, news, _accounts: accounts, _fences: fences })
    }

    /// What is told of the account from now on, until it is like this.
    pub async fn told(&mut self, what: &str, wanted: impl Fn(&Account) -> bool) -> Result<Account> {
        let told = async {
            while let Some(news) = self.news.recv().await {
                if let News::Event(Event::Account { account, .. }) = news
                    && wanted(&account)
                {
                    return Ok(*account);
                }
            }
            anyhow::bail!("settlement has ended")
        };
        tokio::time::timeout(PATIENCE, told).await.with_context(|| format!("waiting for an account {what}"))?
    }

    /// All that was charged is on the chain, for good.
    pub async fn paid(&self) -> Result<()> {
        until("all is paid", async || Ok(self.ledger.unsettled().await?.is_empty() && self.ledger.open_posts().await?.is_empty())).await
    }
}

pub async fn until(what: &str, is: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let mut looks = tokio::time::interval(LOOK);
    let comes = async {
        while !is().await? {
            looks.tick().await;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, comes).await.with_context(|| format!("waiting until {what}"))?
}

impl Market {
    pub async fn execute(&self, what: &'static str, signer: &PrivateKeySigner, data: Bytes) -> Result<u64> {
        Ok(self.chain.execute(what, signer, self.at.escrow, data).await?.block_number)
    }

    pub async fn lane(&self, payee: u32) -> Result<LaneState> {
        Ok(self.chain.lane(self.at.escrow, self.account, payee, BlockId::latest()).await?)
    }
}

pub async fn other_books() -> Result<()> {
    let Some(program) = chain::program() else { return Ok(()) };
    let folder = folder()?;
    let anvil = Anvil::start(&program, folder.path())?;
    let market = Market::open(&anvil, FEE_PAYEE).await?;
    // These books' copy is from before the lane of payee 3, and they owe payee 1.
    let row = Row::new(3, 5_000).context("it fits")?;
    let block = market.execute("posting", &market.settler, calls::post_call(market.account, &[row], B256::ZERO, B256::ZERO)).await?;
    until("the post is final", async || Ok(market.chain.finalized().await?.block().is_some_and(|last| last.number >= block))).await?;
    let mut office = Office::open(&market, folder.path()).await?;
    charge(&office.ledger, office.fence, &office.funding, 0..1).await?;
    // Twice: what would be posted is, with the first of two looks.
    for _ in 0..2 {
        let stalled = office.told("that is stalled", |account| account.stalled.is_some()).await?.stalled.context("it is")?;
        ensure!(stalled.reason == OTHER_LEDGER, "{stalled:?}");
        let expected = "the chain has credited 5000 units from this account and 0 of them to payees that these books know: another ledger \
                        posted, or this one is an old backup";
        ensure!(stalled.words.starts_with(expected), "{}", stalled.words);
    }
    ensure!(office.ledger.open_posts().await?.is_empty(), "something is posted from an account with other books");
    ensure!(market.lane(1).await?.posted_units == 0, "something was posted from an account with other books");
    Ok(())
}

pub async fn cut() -> Result<()> {
    let Some(program) = chain::program() else { return Ok(()) };
    let folder = folder()?;
    let anvil = Anvil::start(&program, folder.path())?;
    let window = 600;
    let market = Market::with_window(&anvil, FEE_PAYEE, window).await?;
    let mut office = Office::open(&market, folder.path()).await?;
    charge(&office.ledger, office.fence, &office.funding, 0..1).await?;
    office.paid().await?;
    // Whoever deploys is the arbiter, too.
    market.execute("disputing", &market.payer, calls::dispute_call(market.account, 1)).await?;
    market.execute("resolving", &market.payer, calls::resolve_call(market.account, 1, 200)).await?;
    let told = office.told("with a cut", |account| account.cases.iter().any(|lane| !lane.clawback.is_zero())).await?;
    let cut = LaneCases { payee: 1, clawback: Amount::from_units(200), fees: Amount::from_units(TOKEN) };
    ensure!(told.cases == [cut], "{:?}", told.cases);
    ensure!(told.stalled.is_none(), "{:?}", told.stalled);
    let cases = Posting::Cases { funding: office.funding.clone(), lanes: told.cases };
    ensure!(office.ledger.commit(office.fence, &[cases]).await? == [Outcome::Applied]);
    // What was cut is not posted again: the payee gets what it earns from now on.
    charge(&office.ledger, office.fence, &office.funding, 5..6).await?;
    let _: serde_json::Value = market.chain.provider().raw_request("evm_increaseTime".into(), (window,)).await?;
    office.paid().await?;
    let lanes = office.ledger.lanes(&office.funding).await?;
    let owed = lanes.iter().find(|lane| lane.payee == 1).context("payee 1 is owed something")?.total.units();
    let lane = market.lane(1).await?;
    ensure!((lane.posted_units, lane.returned_units) == (owed.into(), 200), "{lane:?} of {owed}");
    ensure!(lane.withdrawn_units == 200, "nothing else has left the lane: {lane:?}");
    Ok(())
}
