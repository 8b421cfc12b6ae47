//! A market on the local chain: the contract, this operator as a settler, and whoever the fee goes to. Done once; a second
//! time finds what the first one made.

use crate::cluster::{ClusterInfo, Layout};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use supercargo_contracts::{Addresses, Chain, PrivateKeySigner, calls, deploy};
use tokio::sync::Mutex;

/// How long a credited row can be disputed here, and so when it matures: short, so that a demo sees it.
const WINDOW_SECONDS: u32 = 5;
/// Longer than a halt, finality and an outage of two days, as the contract demands.
const THAW_SECONDS: u32 = 4 * 86_400;

/// People of the local chain. Their keys are the ones that every anvil prints: worth nothing anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Person {
    /// Deploys the contract and takes the fees.
    Platform,
    Buyer,
    Provider,
    /// The operator's hot key.
    Settler,
}

impl Person {
    const ALL: [Self; 4] = [Self::Platform, Self::Buyer, Self::Provider, Self::Settler];

    fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Buyer => "buyer",
            Self::Provider => "provider",
            Self::Settler => "settler",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Platform => "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
            Self::Buyer => "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
            Self::Provider => "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
            Self::Settler => "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
        }
    }

    pub fn signer(self) -> PrivateKeySigner {
        self.key().parse().expect("the key is written above")
    }

    /// The file with the key, for commands.
    pub fn key_file(self, layout: &Layout) -> PathBuf {
        layout.cluster().join("keys").join(self.name())
    }
}

/// Who sends a transaction holds this: of two with one key at once both would have the same nonce.
pub static SENDING: Mutex<()> = Mutex::const_new(());

/// What stands on the chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Market {
    pub addresses: Addresses,
    pub settler: u32,
    pub fee_payees: Vec<u32>,
}

pub async fn ensure(layout: &Layout, info: &ClusterInfo) -> Result<Market> {
    for person in Person::ALL {
        let file = person.key_file(layout);
        std::fs::create_dir_all(file.parent().context("a key lies in a folder")?).context("making the folder of keys")?;
        std::fs::write(&file, person.key()).with_context(|| format!("writing {}", file.display()))?;
    }
    let chain = Chain::connect(&info.chain_url)?;
    let platform = Person::Platform.signer();
    let addresses = deploy(&chain, &platform, None, WINDOW_SECONDS, THAW_SECONDS, &layout.cluster().join("contracts.json")).await?;
    let file = layout.cluster().join("market.json");
    let known: Option<Market> = std::fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str(&text).ok());
    if let Some(known) = known.filter(|known| known.addresses == addresses)
        && agrees(&chain, &known).await
    {
        return Ok(known);
    }
    let contract = addresses.escrow;
    let number = |receipt: supercargo_contracts::Receipt| receipt.number.context("the receipt has no number");
    let settler =
        number(chain.execute("enrolling the settler", &platform, contract, calls::enroll_call(Person::Settler.signer().address())).await?)?;
    let mut fee_payees = Vec::new();
    for _ in 0..3 {
        fee_payees.push(number(
            chain.execute("registering a fee's payee", &platform, contract, calls::register_call(platform.address())).await?,
        )?);
    }
    let market = Market { addresses, settler, fee_payees };
    std::fs::write(&file, serde_json::to_string_pretty(&market)?).with_context(|| format!("writing {}", file.display()))?;
    Ok(market)
}

/// A chain that lost its last seconds may have lost what was written down here.
async fn agrees(chain: &Chain, known: &Market) -> bool {
    let contract = known.addresses.escrow;
    let settler = chain.settler(contract, known.settler).await;
    let mut right = settler.is_ok_and(|(hot, _)| hot == Person::Settler.signer().address());
    for payee in &known.fee_payees {
        let owner = chain.payee(contract, *payee).await;
        right &= owner.is_ok_and(|(owner, _)| owner == Person::Platform.signer().address());
    }
    right
}

/// Gives somebody test money.
pub async fn mint(info: &ClusterInfo, market: &Market, to: Person, units: u64) -> Result<()> {
    let chain = Chain::connect(&info.chain_url)?;
    let _one_at_a_time = SENDING.lock().await;
    chain
        .execute("minting test money", &Person::Platform.signer(), market.addresses.token, calls::mint_call(to.signer().address(), units))
        .await?;
    Ok(())
}
