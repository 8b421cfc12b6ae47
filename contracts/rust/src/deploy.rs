//! Puts the contract on a chain once, and remembers where: a second run finds what the first one made.

use super::bindings::{Escrow, TestToken};
use super::client::{Chain, ChainError};
use super::transaction::Call;
use alloy::primitives::{Address, B256, Uint, keccak256};
use alloy::signers::local::PrivateKeySigner;
use alloy::sol_types::SolConstructor;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Where things are on one chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    pub chain_id: u64,
    pub token: Address,
    pub escrow: Address,
    /// The hash of the code and the terms that were deployed: with others it is another contract.
    #[serde(default)]
    pub version: B256,
}

/// What is fixed for ever when the contract is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Seconds in which a credited row can't be collected yet, and may be disputed.
    pub window_seconds: u32,
    /// Seconds that leaving takes: more than the window, a halt (12 h), finality (1 h) and an outage (48 h) together.
    pub thaw_seconds: u32,
    /// Seconds until a case that nobody resolved lapses to the payee: at least the window.
    pub case_seconds: u32,
    /// What a dispute costs its account.
    pub case_fee_units: u64,
    /// Who resolves cases.
    pub arbiter: Address,
}

/// [`deploy_with`] cases of seven days for one token of six decimals, resolved by whoever deploys.
pub async fn deploy(
    chain: &Chain,
    signer: &PrivateKeySigner,
    token: Option<Address>,
    window_seconds: u32,
    thaw_seconds: u32,
    file: &Path,
) -> Result<Addresses, ChainError> {
    let terms = Terms { window_seconds, thaw_seconds, case_seconds: 7 * 86_400, case_fee_units: 1_000_000, arbiter: signer.address() };
    deploy_with(chain, signer, token, terms, file).await
}

/// Deploys the escrow contract, and a test token where none is given, unless `file` names ones of this version that are
/// there.
pub async fn deploy_with(
    chain: &Chain,
    signer: &PrivateKeySigner,
    token: Option<Address>,
    terms: Terms,
    file: &Path,
) -> Result<Addresses, ChainError> {
    let chain_id = chain.chain_id().await?;
    let mut known = read(file)?.filter(|known| known.chain_id == chain_id && token.is_none_or(|token| token == known.token));
    if let Some(there) = &known
        && !chain.has_code(there.escrow).await?
    {
        // The chain began anew.
        known = None;
    }
    let token = match token.or(known.as_ref().map(|known| known.token)) {
        Some(token) => token,
        None => create(chain, signer, "deploying the test token", TestToken::BYTECODE.to_vec()).await?,
    };
    let arguments = Escrow::constructorCall {
        token,
        terms: Escrow::Terms {
            window: Uint::from(terms.window_seconds),
            thaw: Uint::from(terms.thaw_seconds),
            case_: Uint::from(terms.case_seconds),
            caseFee: Uint::from(terms.case_fee_units),
            arbiter: terms.arbiter,
        },
    };
    let code = [Escrow::BYTECODE.to_vec(), arguments.abi_encode()].concat();
    let version = keccak256(&code);
    if let Some(known) = known.filter(|known| known.version == version) {
        return Ok(known);
    }
    let escrow = create(chain, signer, "deploying the escrow contract", code).await?;
    let addresses = Addresses { chain_id, token, escrow, version };
    write(file, &addresses)?;
    Ok(addresses)
}

async fn create(chain: &Chain, signer: &PrivateKeySigner, what: &'static str, code: Vec<u8>) -> Result<Address, ChainError> {
    let nonce = chain.nonce(signer.address(), alloy::eips::BlockId::pending()).await?;
    // The contract's own size bounds what its creation uses.
    chain.submit(what, signer, &Call { to: None, data: code.into(), gas_limit: 8_000_000 }).await?;
    Ok(signer.address().create(nonce))
}

fn read(file: &Path) -> Result<Option<Addresses>, ChainError> {
    match std::fs::read_to_string(file) {
        Ok(text) => {
            serde_json::from_str(&text).map(Some).map_err(|e| ChainError::Setup(format!("{} is no file of addresses: {e}", file.display())))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(ChainError::Setup(format!("reading {}: {e}", file.display()))),
    }
}

fn write(file: &Path, addresses: &Addresses) -> Result<(), ChainError> {
    let text = serde_json::to_string_pretty(addresses).map_err(|e| ChainError::Setup(e.to_string()))?;
    std::fs::write(file, text).map_err(|e| ChainError::Setup(format!("writing {}: {e}", file.display())))
}
