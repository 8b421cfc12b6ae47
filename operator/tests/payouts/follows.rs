//! What settlement tells of an account on a real chain: that other books post from it.

use super::chain::{self, Anvil, CHAIN, DEPOSIT_UNITS, Market};
use super::officer::{FEE_PAYEE, charge};
use super::{PATIENCE, folder};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::Duration;
use supercargo_contracts::{B256, BlockId, Bytes, LaneState, PrivateKeySigner, Row, calls};
use supercargo_crds::names::escrow_stall::OTHER_LEDGER;
use supercargo_ledger::{Fence, Ledger, Posting};
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
struct Office {
    ledger: Ledger,
    fence: Fence,
    funding: FundingId,
    news: mpsc::Receiver<News>,
    _accounts: watch::Sender<Vec<FundingId>>,
    _fences: watch::Sender<Option<Fence>>,
}

impl Office {
    async fn open(market: &Market, folder: &Path) -> Result<Self> {
        let ledger = Ledger::open(&format!("sqlite://{}", folder.join("books.db").display())).await?;
        let fence = ledger.take_lead("office").await?;
        let funding = FundingId::chain(CHAIN, &market.account.to_string());
        let deposited = Amount::from_units(DEPOSIT_UNITS);
        let fund = Posting::Fund { funding: funding.clone(), asset: "USDC".into(), deposited, withdrawn: Amount::ZERO };
        ledger.commit(fence, &[fund]).await?;
        let (sender, news) = mpsc::channel(1_024);
        let (accounts, named) = watch::channel(vec![funding.clone()]);
        let (fences, lead) = watch::channel(Some(fence));
        let settings = Settlement { poll_seconds: 1, post_seconds: 1, minimum_amount: Amount::from_units(1) };
        let (metrics, owners) = (Metrics::new()?, Owners::default());
        let settler = Settler { ledger: ledger.clone(), settings, fence: lead, accounts: named, news: sender, metrics, owners };
        let config = serde_json::from_value(market.config.clone())?;
        tokio::spawn(settlement::run(settler, config, CancellationToken::new()));
        Ok(Self { ledger, fence, funding, news, _accounts: accounts, _fences: fences })
    }

    /// What is told of the account from now on, until it is like this.
    async fn told(&mut self, what: &str, wanted: impl Fn(&Account) -> bool) -> Result<Account> {
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
}

async fn until(what: &str, is: impl AsyncFn() -> Result<bool>) -> Result<()> {
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
    async fn execute(&self, what: &'static str, signer: &PrivateKeySigner, data: Bytes) -> Result<u64> {
        Ok(self.chain.execute(what, signer, self.at.escrow, data).await?.block_number)
    }

    async fn lane(&self, payee: u32) -> Result<LaneState> {
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
    until("the post is final", async || Ok(market.chain.finalized().await?.is_some_and(|last| last.number >= block))).await?;
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
