//! Operators are killed while they pay: SIGKILL, whatever they are at, on a real chain that is restarted and undone meanwhile.
//! Whatever was charged is on the chain in the end, no unit of it twice. An operator here is the paying half of one, in a
//! process of its own.

mod chain;
mod disputes;
mod follows;
mod officer;
#[path = "../../../e2e/src/postgres.rs"]
#[allow(dead_code, unused_imports, reason = "its other half is for tests")]
mod postgres;
mod rotates;

use alloy::providers::Provider;
use anyhow::{Context, Result, bail, ensure};
use chain::{Anvil, CHAIN, Market};
use libtest_mimic::{Arguments, Trial};
use officer::{FEE_BASIS_POINTS, FEE_PAYEE, FENCED, Orders, seconds};
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use supercargo_contracts::BlockId;
use supercargo_ledger::Ledger;
use tokio::process::{Child, Command};

/// For the process that is an officer: what to do, as JSON.
const ORDERS: &str = "SUPERCARGO_TEST_ORDERS";
/// When nobody dies any more all is paid in this time.
const PATIENCE: Duration = Duration::from_secs(120);
/// An officer lives for so many milliseconds at least, and at most.
const LIVES: (u64, u64) = (100, 3_000);

fn main() -> Result<ExitCode> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    if let Ok(orders) = std::env::var(ORDERS) {
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
        let code = runtime()?.block_on(officer::serve(serde_json::from_str(&orders)?))?;
        // Settlement goes on until the process ends.
        std::process::exit(code);
    }
    let trial = |name: &str, run: fn() -> Result<()>| Trial::test(name, move || run().map_err(|error| format!("{error:#}").into()));
    let trials = vec![
        trial("an_operator_that_is_killed_pays_everything_once_on_a_chain_that_is_restarted_and_undone", || {
            tokio::runtime::Runtime::new()?.block_on(killed())
        }),
        trial("two_operators_on_postgres_that_are_killed_in_turn_pay_everything_once", || {
            tokio::runtime::Runtime::new()?.block_on(in_turn())
        }),
        trial("an_account_with_a_lane_that_the_books_do_not_know_is_stalled_in_words", || {
            tokio::runtime::Runtime::new()?.block_on(follows::other_books())
        }),
        trial("a_key_that_is_rotated_while_a_post_is_on_its_way_doubles_and_loses_nothing", || {
            tokio::runtime::Runtime::new()?.block_on(rotates::under_way())
        }),
        trial("a_dispute_about_one_lane_keeps_no_other_payee_from_being_paid", || {
            tokio::runtime::Runtime::new()?.block_on(disputes::one_of_many())
        }),
        trial("what_the_arbiter_cuts_is_told_as_that_and_is_not_posted_again", || tokio::runtime::Runtime::new()?.block_on(follows::cut())),
    ];
    // They mostly wait: side by side they take no longer than the longer one.
    let arguments = Arguments { test_threads: Some(2), ..Arguments::from_args() };
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}

/// What a test lets happen, and for how long.
struct Drill {
    anvil: Anvil,
    market: Market,
    orders: Orders,
    dice: u64,
    /// The block at which the chain was begun the last time: what was before, it can't undo.
    since: u64,
    undone: u64,
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

impl Drill {
    async fn begin(program: &Path, folder: &Path, books: String) -> Result<Self> {
        let anvil = Anvil::start(program, folder)?;
        let market = Market::open(&anvil, FEE_PAYEE).await?;
        let (chain, account) = (market.config.clone(), market.account.to_string());
        let orders = Orders { books, chain, account, begun_millis: officer::millis(), last: None, log: folder.join("log") };
        let dice = number("SUPERCARGO_SEED").unwrap_or(orders.begun_millis);
        println!("{CHAIN} chain: SUPERCARGO_SEED={dice}");
        Ok(Self { anvil, market, orders, dice: dice | 1, since: 0, undone: 0 })
    }

    fn roll(&mut self, from: u64, to: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        from + self.dice % (to - from)
    }

    /// A life: how an officer ended by itself. None: it was killed.
    async fn life(&mut self) -> Result<Option<ExitStatus>> {
        let mut officer = start(&self.orders)?;
        let most = Duration::from_millis(self.roll(LIVES.0, LIVES.1));
        if let Ok(ended) = tokio::time::timeout(most, officer.wait()).await {
            return Ok(Some(ended?));
        }
        officer.kill().await.context("killing an officer")?;
        Ok(None)
    }

    /// The chain never has more than what was charged, at no moment.
    async fn paid(&self) -> Result<u64> {
        let charged = (0..self.orders.ended()).map(seconds).sum();
        let mut paid = 0;
        for payee in 1..=FEE_PAYEE {
            paid += self.lane(payee).await?;
        }
        ensure!(paid <= charged, "{paid} units were paid of {charged}");
        Ok(paid)
    }

    async fn lane(&self, payee: u32) -> Result<u64> {
        let Market { chain, at, account, .. } = &self.market;
        Ok(u64::try_from(chain.lane(at.escrow, *account, payee, BlockId::latest()).await?.posted_units)?)
    }

    async fn height(&self) -> Result<u64> {
        Ok(self.market.chain.provider().get_block_number().await?)
    }

    /// The newest blocks never were. They are not final yet, and the chain was not restarted since.
    async fn undo(&mut self) -> Result<()> {
        let depth = self.roll(1, 3).min(self.height().await?.saturating_sub(self.since + 1));
        if depth > 0 {
            let _: serde_json::Value = self.market.chain.provider().raw_request("anvil_reorg".into(), (depth, [(); 0])).await?;
            self.undone += 1;
        }
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.anvil.restart()?;
        chain::tick(&self.market.chain).await?;
        self.since = self.height().await?;
        Ok(())
    }

    /// Nobody dies any more: what was charged is paid, and the books are whole. Of how many lanes the chain has less or more than
    /// what is owed.
    async fn settle(mut self) -> Result<usize> {
        let tasks = self.orders.ended();
        self.orders.last = Some(tasks);
        self.orders.log = self.orders.log.with_extension("last");
        let ended = tokio::time::timeout(PATIENCE, start(&self.orders)?.wait()).await;
        let words = || std::fs::read_to_string(&self.orders.log).unwrap_or_default();
        let ended = ended.with_context(|| format!("not all was paid in {} s:\n{}", PATIENCE.as_secs(), words()))??;
        ensure!(ended.success(), "the last officer: {ended}:\n{}", words());
        let charged: u64 = (0..tasks).map(seconds).sum();
        let paid = self.paid().await?;
        let ledger = Ledger::open(&self.orders.books).await?;
        ledger.verify().await?;
        let mut wrong = 0;
        for lane in ledger.lanes(&self.orders.funding()).await? {
            let on_chain = self.lane(lane.payee).await?;
            if on_chain != lane.total.units() {
                println!("lane {} has {on_chain} of {}", lane.payee, lane.total.units());
                wrong += 1;
            }
        }
        ensure!(wrong > 0 || paid == charged, "the books' lanes are on the chain, and {paid} of {charged} units");
        let fee = charged * u64::from(FEE_BASIS_POINTS) / 10_000;
        let fee_paid = self.lane(FEE_PAYEE).await?;
        // Of each task a fraction of a unit stays with the provider.
        ensure!(fee_paid <= fee && fee - fee_paid <= u64::from(tasks), "the fee is {fee_paid} of {fee}");
        println!("{tasks} tasks of {charged} units, paid {paid}");
        Ok(wrong)
    }
}

fn start(orders: &Orders) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    let log = std::fs::File::options().create(true).append(true).open(&orders.log).context("opening an officer's log")?;
    command.env(ORDERS, serde_json::to_string(orders)?).stdin(Stdio::null()).stderr(log).kill_on_drop(true);
    command.spawn().context("starting an officer")
}

fn folder() -> Result<tempfile::TempDir> {
    // Beside the build's own files: a folder for temporary ones may be in memory.
    Ok(tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?)
}

/// In `make test`; the long run takes its number from the environment.
const KILLS: u64 = 25;
/// After so many kills the chain is restarted, or its last blocks are undone.
const RESTARTS: u64 = 10;
const UNDOINGS: u64 = 4;

async fn killed() -> Result<()> {
    let Some(program) = chain::program() else { return Ok(()) };
    let folder = folder()?;
    let books = format!("sqlite://{}", folder.path().join("books.db").display());
    let mut drill = Drill::begin(&program, folder.path(), books).await?;
    let asked = number("SUPERCARGO_KILLS");
    let (mut kills, kill) = (0, asked.unwrap_or(KILLS));
    while kills < kill {
        if let Some(ended) = drill.life().await? {
            bail!("an officer ended by itself: {ended}");
        }
        kills += 1;
        if kills % RESTARTS == 0 {
            drill.restart().await?;
        } else if kills % UNDOINGS == 0 {
            drill.undo().await?;
        }
        drill.paid().await?;
    }
    ensure!(drill.undone > 0, "no block was undone");
    let wrong = drill.settle().await?;
    if asked.is_some() {
        println!("figure settlement.sigkills {kills} kills");
    }
    ensure!(wrong == 0, "{wrong} lanes are wrong after {kills} kills");
    Ok(())
}

/// In `make test`; the long run takes its number from the environment.
const SECONDS: u64 = 60;

async fn in_turn() -> Result<()> {
    let Some(program) = chain::program() else { return Ok(()) };
    let folder = folder()?;
    let server = postgres::Postgres::start()?;
    let mut drill = Drill::begin(&program, folder.path(), server.url()).await?;
    let asked = number("SUPERCARGO_LEADER_SECONDS");
    let (began, length) = (Instant::now(), Duration::from_secs(asked.unwrap_or(SECONDS)));
    let (mut killed, mut deposed) = (0, 0);
    // Whoever is started takes the lead, from one that does not know it yet.
    let mut standing = start(&drill.orders)?;
    while began.elapsed() < length {
        let mut next = start(&drill.orders)?;
        let life = Duration::from_millis(drill.roll(LIVES.0, LIVES.1));
        match tokio::time::timeout(life, next.wait()).await {
            // The one before was only beginning, and took the lead after this one.
            Ok(ended) => ensure!(ended?.code() == Some(FENCED), "an officer ended by itself"),
            Err(_) => {
                if let Some(ended) = standing.try_wait()? {
                    ensure!(ended.code() == Some(FENCED), "an officer that was deposed ended with {ended}");
                    deposed += 1;
                } else {
                    standing.kill().await?;
                }
                std::mem::swap(&mut standing, &mut next);
                if drill.roll(0, 2) == 0 {
                    standing.kill().await?;
                    killed += 1;
                    standing = start(&drill.orders)?;
                }
            }
        }
        drill.paid().await?;
    }
    standing.kill().await?;
    println!("{killed} leaders were killed, and {deposed} deposed");
    ensure!(killed > 0 && deposed > 0, "nobody was killed or deposed");
    let wrong = drill.settle().await?;
    if asked.is_some() {
        println!("figure settlement.leader_kills_gap {wrong} rows");
    }
    ensure!(wrong == 0, "{wrong} lanes are wrong");
    Ok(())
}
