//! A real chain of a test's own, with the contract on it: it can be stopped and begun again from its state, and its last blocks
//! can be undone.

use alloy::providers::Provider;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use supercargo_contracts::calls::{self, Limits};
use supercargo_contracts::{Address, Addresses, B256, Chain, PrivateKeySigner, U256, account_id, deploy};

/// What the chain is called.
pub const CHAIN: &str = "test";
pub const TOKEN: u64 = 1_000_000;
pub const DEPOSIT_UNITS: u64 = 1_000_000 * TOKEN;
/// A lane takes its next row after this.
const WINDOW_SECONDS: u32 = 1;
const THAW_SECONDS: u32 = 4 * 86_400;

/// None where npm's tools are not installed: then there is no chain to start.
pub fn program() -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts/node_modules/.native/anvil");
    if !program.exists() {
        println!("skipped: contracts/node_modules/.native/anvil is missing, `make contracts-deps` installs it");
    }
    Some(program).filter(|program| program.exists())
}

/// A chain that ends with whoever has it.
pub struct Anvil {
    child: Child,
    port: u16,
    program: PathBuf,
    folder: PathBuf,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Anvil {
    /// On a free port. What it knows is kept in the folder.
    pub fn start(program: &Path, folder: &Path) -> Result<Self> {
        let (child, port) = begin(program, folder, 0)?;
        Ok(Self { child, port, program: program.to_owned(), folder: folder.to_owned() })
    }

    /// Three addresses of the one chain: an operator wants that endpoints agree.
    pub fn urls(&self) -> Vec<String> {
        ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"].map(|host| format!("http://{host}:{}", self.port)).into()
    }

    /// It is told to end, writes down what it knows, and begins again with that.
    pub fn restart(&mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("ending the chain")?;
        self.child.wait().context("waiting for the chain to end")?;
        self.child = begin(&self.program, &self.folder, self.port)?.0;
        Ok(())
    }
}

fn begin(program: &Path, folder: &Path, port: u16) -> Result<(Child, u16)> {
    let (port, state) = (port.to_string(), folder.join("chain.json").display().to_string());
    let arguments = ["--port", &port, "--slots-in-an-epoch", "1", "--state", &state];
    let mut child = Command::new(program).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("starting anvil")?;
    let output = BufReader::new(child.stdout.take().context("anvil's output")?);
    let mut lines = output.lines().map_while(Result::ok);
    let address = lines.find_map(|line| line.strip_prefix("Listening on ").map(str::to_owned)).context("anvil ended")?;
    // Whoever writes to a pipe that nobody reads stops: read on until it ends.
    std::thread::spawn(move || lines.for_each(drop));
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).with_context(|| format!("{address} has no port"))?;
    Ok((child, port))
}

/// From now on, and until it ends, a block comes each second.
pub async fn tick(chain: &Chain) -> Result<()> {
    let _: Value = chain.provider().raw_request("evm_setIntervalMining".into(), (1,)).await?;
    Ok(())
}

/// A contract on the chain, with a settler, payees, and an account with money.
pub struct Market {
    pub chain: Chain,
    pub at: Addresses,
    pub account: B256,
    /// Also the arbiter.
    pub payer: PrivateKeySigner,
    pub settler: PrivateKeySigner,
    /// How an operator's configuration names it.
    pub config: Value,
}

impl Market {
    /// Payees are numbered from 1.
    pub async fn open(anvil: &Anvil, payees: u32) -> Result<Self> {
        Self::with_window(anvil, payees, WINDOW_SECONDS).await
    }

    pub async fn with_window(anvil: &Anvil, payees: u32, window_seconds: u32) -> Result<Self> {
        let chain = Chain::connect(&anvil.urls()[0])?;
        let [payer, settler] = [1, 2].map(B256::repeat_byte).map(|key| PrivateKeySigner::from_bytes(&key));
        let (payer, settler) = (payer?, settler?);
        for key in [&payer, &settler] {
            let funds = (key.address(), U256::from(10).pow(U256::from(20)));
            let _: Value = chain.provider().raw_request("anvil_setBalance".into(), funds).await?;
        }
        let at = deploy(&chain, &payer, None, window_seconds, THAW_SECONDS, &anvil.folder.join("contracts.json")).await?;
        let (token, escrow, salt) = (at.token, at.escrow, B256::ZERO);
        chain.execute("enrolling", &payer, escrow, calls::enroll_call(settler.address())).await?;
        chain.execute("minting", &payer, token, calls::mint_call(payer.address(), DEPOSIT_UNITS)).await?;
        chain.execute("approving", &payer, token, calls::approve_call(escrow, DEPOSIT_UNITS)).await?;
        let limits = Limits { allowance_units: DEPOSIT_UNITS, burst_units: 900_000 * TOKEN, rate_units_per_second: 0, settler: 1 };
        let open = calls::open_call(salt, Address::ZERO, limits).context("the limits fit")?;
        chain.execute("opening", &payer, escrow, open).await?;
        let account = account_id(at.chain_id, escrow, payer.address(), salt);
        chain.execute("depositing", &payer, escrow, calls::deposit_call(account, DEPOSIT_UNITS)).await?;
        for _ in 0..payees {
            chain.execute("registering", &payer, escrow, calls::register_call(payer.address())).await?;
        }
        let key_file = anvil.folder.join("key");
        std::fs::write(&key_file, settler.to_bytes().to_string())?;
        tick(&chain).await?;
        let config = json!({
            "name": CHAIN, "chainId": at.chain_id, "rpcs": anvil.urls(), "contract": at.escrow.to_string(), "token": "USDC",
            "tokenAddress": at.token.to_string(), "settler": 1, "settlerKeyFile": key_file,
        });
        Ok(Self { chain, at, account, payer, settler, config })
    }
}
