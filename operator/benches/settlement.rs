//! What it costs the operator to pay 10,000 tasks of 100 providers on a real chain, read through three endpoints: prints each
//! figure as `figure <name> <value> <unit>`. The time is this process's own, on the processor; the chain is another one.

use alloy::providers::Provider;
use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use supercargo_contracts::calls::{self, Limits};
use supercargo_contracts::{Address, Addresses, B256, Chain, PrivateKeySigner, U256, account_id, deploy};
use supercargo_ledger::{Charge, Fence, Ledger, Posting};
use supercargo_market::fees::FeeSchedule;
use supercargo_market::metering::Evidence;
use supercargo_market::money::Amount;
use supercargo_market::rating::{self, Held};
use supercargo_market::work::{FundingId, SegmentId, WorkId};
use supercargo_operator::runtime::config::{ChainConfig, Settlement};
use supercargo_operator::runtime::telemetry::Metrics;
use supercargo_operator::settlement::{self, Settler};
use supercargo_operator::watch::News;
use supercargo_operator::world::Event;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const TASKS: u32 = 10_000;
const PROVIDERS: u32 = 100;
const TOKEN: u64 = 1_000_000;
const DEPOSIT_UNITS: u64 = 1_000_000 * TOKEN;
/// A lane takes its next row after this.
const WINDOW_SECONDS: u32 = 1;
const THAW_SECONDS: u32 = 4 * 86_400;
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

/// A chain that ends with the benchmark.
struct Anvil(Child);

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Anvil {
    fn start(program: &Path) -> Result<(Self, u16)> {
        let arguments = ["--port", "0", "--slots-in-an-epoch", "1"];
        let child = Command::new(program).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut anvil = Self(child.context("starting anvil")?);
        let output = BufReader::new(anvil.0.stdout.take().context("anvil's output")?);
        let mut lines = output.lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix("Listening on ").map(str::to_owned)).context("anvil ended")?;
        // Whoever writes to a pipe that nobody reads stops: read on until it ends.
        std::thread::spawn(move || lines.for_each(drop));
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).with_context(|| format!("{address} has no port"))?;
        Ok((anvil, port))
    }
}

/// A contract on the chain, with a settler, providers, and an account with money.
struct Market {
    chain: Chain,
    at: Addresses,
    settler: PrivateKeySigner,
    account: B256,
}

async fn open_market(url: &str, folder: &Path) -> Result<Market> {
    let chain = Chain::connect(url)?;
    let [payer, settler] = [1, 2].map(B256::repeat_byte).map(|key| PrivateKeySigner::from_bytes(&key));
    let (payer, settler) = (payer?, settler?);
    for key in [&payer, &settler] {
        let funds = (key.address(), U256::from(10).pow(U256::from(20)));
        let _: serde_json::Value = chain.provider().raw_request("anvil_setBalance".into(), funds).await?;
    }
    let at = deploy(&chain, &payer, None, WINDOW_SECONDS, THAW_SECONDS, &folder.join("contracts.json")).await?;
    let (token, escrow, salt) = (at.token, at.escrow, B256::ZERO);
    chain.execute("enrolling", &payer, escrow, calls::enroll_call(settler.address())).await?;
    chain.execute("minting", &payer, token, calls::mint_call(payer.address(), DEPOSIT_UNITS)).await?;
    chain.execute("approving", &payer, token, calls::approve_call(escrow, DEPOSIT_UNITS)).await?;
    let limits = Limits { allowance_units: DEPOSIT_UNITS, burst_units: 900_000 * TOKEN, rate_units_per_second: 0, settler: 1 };
    let open = calls::open_call(salt, Address::ZERO, limits).context("the limits fit")?;
    chain.execute("opening", &payer, escrow, open).await?;
    let account = account_id(at.chain_id, escrow, payer.address(), salt);
    chain.execute("depositing", &payer, escrow, calls::deposit_call(account, DEPOSIT_UNITS)).await?;
    for _ in 0..PROVIDERS {
        chain.execute("registering", &payer, escrow, calls::register_call(payer.address())).await?;
    }
    Ok(Market { chain, at, settler, account })
}

/// So many tasks that ended, spread over the providers.
async fn charge(ledger: &Ledger, fence: Fence, funding: &FundingId, round: u32, tasks: u32) -> Result<()> {
    let held = Held { devices: 1, device_price: "0.0036".parse()?, ..Held::default() };
    for from in (0..tasks).step_by(1_000) {
        let postings = (from..tasks.min(from + 1_000)).flat_map(|task| {
            let (uid, seconds) = (format!("{round}-{task}"), 600 + u64::from(task));
            let work = WorkId::task(uid.clone());
            let amount = Amount::from_units(50 * TOKEN);
            let reserve = Posting::Reserve { work: work.clone(), funding: funding.clone(), amount, detail: "{}".into() };
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
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts/node_modules/.native/anvil");
    ensure!(program.exists(), "{} is missing: `make contracts-deps` installs it", program.display());
    // Beside the build's own files: a folder for temporary ones may be in memory.
    let folder = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    let (_anvil, port) = Anvil::start(&program)?;
    let url = format!("http://127.0.0.1:{port}");
    let market = open_market(&url, folder.path()).await?;
    let _: serde_json::Value = market.chain.provider().raw_request("evm_setIntervalMining".into(), (1,)).await?;

    let key = folder.path().join("key");
    std::fs::write(&key, market.settler.to_bytes().to_string())?;
    let config = ChainConfig {
        name: "bench".to_owned(),
        chain_id: market.at.chain_id,
        rpcs: vec![url, format!("http://localhost:{port}"), format!("http://[::ffff:127.0.0.1]:{port}")],
        oldest_final_seconds: 3_600,
        contract: market.at.escrow.to_string(),
        token: "USDC".to_owned(),
        token_address: Some(market.at.token.to_string()),
        gas_alert_gwei: 0,
        settler: 1,
        settler_key_file: key,
    };
    let ledger = Ledger::open(&format!("sqlite://{}", folder.path().join("books.db").display())).await?;
    let fence = ledger.take_lead("bench").await?;
    let funding = FundingId::chain("bench", &market.account.to_string());
    let deposited = Amount::from_units(DEPOSIT_UNITS);
    ledger.commit(fence, &[Posting::Fund { funding: funding.clone(), asset: "USDC".into(), deposited, withdrawn: Amount::ZERO }]).await?;

    let (news_out, mut news) = mpsc::channel(4_096);
    let (fence_out, fences) = watch::channel(None);
    let (_accounts_out, accounts) = watch::channel(vec![funding.clone()]);
    let settings = Settlement { poll_seconds: 1, post_seconds: 1, minimum_amount: Amount::from_units(1) };
    let settler = Settler { ledger: ledger.clone(), settings, fence: fences, accounts, news: news_out, metrics: Metrics::new()? };
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
