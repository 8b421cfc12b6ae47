//! A chain with the contract on it, an account with money, and the people who use it.

use alloy::providers::Provider;
use alloy::signers::SignerSync;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use supercargo_contracts::calls::{self, Limits};
use supercargo_contracts::*;

pub const WINDOW_SECONDS: u32 = 3_600;
pub const THAW_SECONDS: u32 = 4 * 86_400;
pub const CASE_SECONDS: u32 = 7 * 86_400;
pub const TOKEN: u64 = 1_000_000;
/// What the payer puts into the first account.
pub const DEPOSIT_UNITS: u64 = 1_000_000 * TOKEN;

/// Who sends a transaction.
#[derive(Debug, Clone, Copy)]
pub enum Who {
    /// Deployed the contract: its arbiter, and the settler's cold key.
    Arbiter,
    Payer,
    /// The settler's hot key.
    Settler,
    Provider,
    Stranger,
}

/// A chain that ends with the test.
struct Anvil(Child);

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Anvil {
    /// Starts on a free port, and returns its address once it listens.
    fn spawn(program: &Path) -> (Self, String) {
        let mut child = Command::new(program).args(["--port", "0"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix("Listening on ").map(str::to_owned)).expect("anvil listens");
        // Whoever writes to a pipe that nobody reads stops: read on until it ends.
        std::thread::spawn(move || lines.for_each(drop));
        (Self(child), format!("http://{address}"))
    }
}

pub struct Market {
    _anvil: Anvil,
    pub chain: Chain,
    pub at: Addresses,
    keys: Vec<PrivateKeySigner>,
    pub account: B256,
}

pub fn row(payee: u32, units: u64) -> Row {
    Row::new(payee, units.into()).unwrap()
}

impl Market {
    /// None where npm's tools are not installed: then there is no chain to start.
    pub async fn start() -> Option<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node_modules/.native/anvil");
        if !program.exists() {
            println!("skipped: contracts/node_modules/.native/anvil is missing, `make contracts-deps` installs it");
            return None;
        }
        // Another test of this program may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (anvil, address) = Anvil::spawn(&program);
        let chain = Chain::connect(&address).unwrap();
        let keys: Vec<_> = (1..=5).map(|n| PrivateKeySigner::from_bytes(&B256::repeat_byte(n)).unwrap()).collect();
        for key in &keys {
            let funds = (key.address(), U256::from(10).pow(U256::from(20)));
            let _: serde_json::Value = chain.provider().raw_request("anvil_setBalance".into(), funds).await.unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("contracts.json");
        let at = deploy(&chain, &keys[0], None, WINDOW_SECONDS, THAW_SECONDS, &file).await.unwrap();
        assert_eq!(at, deploy(&chain, &keys[0], None, WINDOW_SECONDS, THAW_SECONDS, &file).await.unwrap(), "deployed twice");
        let other_terms =
            deploy(&chain, &keys[0], None, WINDOW_SECONDS + 1, THAW_SECONDS, &folder.path().join("contracts.json")).await.unwrap();
        assert_ne!(at.escrow, other_terms.escrow, "other terms are another contract");
        assert_eq!(at.token, other_terms.token, "of the same token");
        let mut market = Self { _anvil: anvil, chain, at, keys, account: B256::ZERO };
        market.act(Who::Arbiter, calls::enroll_call(market.address(Who::Settler))).await.unwrap();
        let (payer, token, escrow) = (market.key(Who::Payer), market.at.token, market.at.escrow);
        market.chain.execute("minting", payer, token, calls::mint_call(payer.address(), 60 * DEPOSIT_UNITS)).await.unwrap();
        market.chain.execute("approving", payer, token, calls::approve_call(escrow, 60 * DEPOSIT_UNITS)).await.unwrap();
        market.account = market.open(0).await;
        Some(market)
    }

    /// Another account of the same payer, with its own deposit.
    pub async fn open(&self, salt: u8) -> B256 {
        let limits = Limits { allowance_units: 900_000 * TOKEN, burst_units: 900_000 * TOKEN, rate_units_per_second: 0, settler: 1 };
        let salt = B256::with_last_byte(salt);
        self.act(Who::Payer, calls::open_call(salt, Address::ZERO, limits).unwrap()).await.unwrap();
        let account = account_id(self.at.chain_id, self.at.escrow, self.address(Who::Payer), salt);
        self.act(Who::Payer, calls::deposit_call(account, DEPOSIT_UNITS)).await.unwrap();
        account
    }

    pub fn key(&self, who: Who) -> &PrivateKeySigner {
        &self.keys[who as usize]
    }

    pub fn address(&self, who: Who) -> Address {
        self.key(who).address()
    }

    pub async fn act(&self, who: Who, data: Bytes) -> Result<Receipt, ChainError> {
        self.chain.execute("the call", self.key(who), self.at.escrow, data).await
    }

    /// The words in which a call is refused.
    pub async fn refused(&self, who: Who, data: Bytes) -> String {
        self.act(who, data).await.unwrap_err().to_string()
    }

    pub async fn register(&self) -> u32 {
        self.act(Who::Provider, calls::register_call(self.address(Who::Provider))).await.unwrap().number.unwrap()
    }

    /// Registers until this many payees are there.
    pub async fn register_until(&self, payees: u32) {
        while self.register().await < payees {}
    }

    pub async fn post(&self, account: B256, rows: &[Row]) -> Receipt {
        self.act(Who::Settler, calls::post_call(account, rows, B256::repeat_byte(1), B256::repeat_byte(2))).await.unwrap()
    }

    /// The settler's signature of a row.
    pub fn voucher(&self, row: Row) -> Bytes {
        let digest = row_digest(self.at.chain_id, self.at.escrow, self.account, row);
        self.key(Who::Settler).sign_hash_sync(&digest).unwrap().as_bytes().to_vec().into()
    }

    pub async fn later(&self, seconds: u32) {
        let client = self.chain.provider();
        let _: serde_json::Value = client.raw_request("evm_increaseTime".into(), (seconds,)).await.unwrap();
        let _: serde_json::Value = client.raw_request("evm_mine".into(), ()).await.unwrap();
    }

    pub async fn lane(&self, payee: u32) -> LaneState {
        self.chain.lane(self.at.escrow, self.account, payee, BlockId::latest()).await.unwrap()
    }

    pub async fn funds(&self) -> AccountState {
        self.chain.account(self.at.escrow, self.account, BlockId::latest()).await.unwrap()
    }

    /// What somebody has of the token.
    pub async fn purse(&self, who: Who) -> u128 {
        self.chain.token_balance(self.at.token, self.address(who)).await.unwrap()
    }
}
