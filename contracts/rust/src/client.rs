//! One endpoint of a chain: reads at finality, and sends bytes. A failed read is an error, never an answer.

use super::bindings::{Escrow, TestToken};
use super::transaction::{Call, Fees, SignedTransaction, sign};
use super::words::revert_words;
use alloy::eips::{BlockId, BlockNumberOrTag};
use alloy::network::TransactionBuilder;
use alloy::primitives::{Address, B256, Bytes};
use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use alloy::rpc::types::TransactionRequest;
use alloy::signers::local::PrivateKeySigner;
use alloy::sol_types::SolEvent;
use alloy::transports::{RpcError, TransportErrorKind};
use std::time::Duration;
use thiserror::Error;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What went wrong between us and the chain.
#[derive(Debug, Error)]
pub enum ChainError {
    #[error("{0} is not the address of an endpoint")]
    Address(String),
    #[error("making an HTTP client: {0}")]
    Client(#[source] reqwest::Error),
    #[error("asking the chain for {what}: {source}")]
    Asking { what: &'static str, source: RpcError<TransportErrorKind> },
    #[error("calling {what}: {source}")]
    Calling { what: &'static str, source: alloy::contract::Error },
    /// The contract said no: asking again changes nothing.
    #[error("{what}: {words}")]
    Refused { what: &'static str, words: String },
    #[error("signing: {0}")]
    Signing(#[from] alloy::signers::Error),
    #[error("{what} was included but failed: {hash}")]
    Failed { what: &'static str, hash: B256 },
    #[error("{0}")]
    Setup(String),
}

impl ChainError {
    /// For people, without the endpoint's address: there may be a key in it.
    pub fn briefly(&self) -> String {
        match self {
            Self::Asking { source: RpcError::ErrorResp(said), .. } => {
                format!("answers with an error: {}", said.message.chars().take(120).collect::<String>())
            }
            Self::Asking { .. } | Self::Calling { .. } => "does not answer".to_owned(),
            other => other.to_string(),
        }
    }
}

/// The latest block that can't be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finality {
    pub number: u64,
    pub hash: B256,
    pub timestamp: u64,
}

/// What an endpoint says when it is asked for the finalized block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalized {
    Block(Finality),
    /// It knows what that is, and has none yet.
    NotYet,
    /// Its chain calls no block final.
    NoTag,
}

impl Finalized {
    pub fn block(self) -> Option<Finality> {
        if let Self::Block(block) = self { Some(block) } else { None }
    }
}

/// An account at one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountState {
    pub payer: Address,
    pub tenant: B256,
    pub balance_units: u128,
    pub thawing_units: u128,
    pub thaw_end: u64,
    pub spendable_units: u128,
    pub allowance_units: u128,
    pub burst_units: u128,
    pub rate_units_per_second: u128,
    pub settler: u32,
    pub guardian: Address,
    pub frozen_until: u64,
    /// Ever, to all payees.
    pub credited_units: u128,
}

/// What of an account waits for its time: other limits, or another settler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeState {
    pub allowance_units: u128,
    pub burst_units: u128,
    pub rate_units_per_second: u128,
    pub settler: u32,
    pub apply_at: u64,
}

/// A lane at one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneState {
    pub posted_units: u128,
    pub mature_units: u128,
    pub withdrawn_units: u128,
    pub matures_at: u64,
    /// When an open case lapses to the payee; 0 without one.
    pub disputed_until: u64,
    /// What all its cases have cost its account.
    pub case_fee_units: u128,
    /// What went back to its account, by cuts and refunds.
    pub returned_units: u128,
}

/// Whose signatures of a settler's rows are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettlerKeys {
    pub hot: Address,
    /// The one before, whose signatures are good until then.
    pub previous: Address,
    pub previous_until: u64,
    /// Nothing of the settler's is credited before.
    pub halted_until: u64,
}

impl SettlerKeys {
    /// Whether a row that this key signed can be claimed with at that time.
    pub fn are_good(&self, signer: Address, now: u64) -> bool {
        signer == self.hot || (signer == self.previous && now < self.previous_until)
    }
}

/// Where a transaction was included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub hash: B256,
    pub block_number: u64,
    pub block_hash: B256,
    pub succeeded: bool,
    pub gas_used: u64,
    pub posted: Option<PostedEvent>,
    /// The number that a registration or an enrolment gave.
    pub number: Option<u32>,
    /// What a collection paid.
    pub collected_units: Option<u128>,
}

/// What a post did, as its event tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostedEvent {
    pub account: B256,
    pub credited_units: u128,
    /// Numbers of the rows that were left for later.
    pub skipped: Vec<usize>,
    /// The contract that tells it: any contract can say anything.
    pub contract: Address,
    pub lines_root: B256,
    pub journal_head: B256,
}

/// A connection to one endpoint.
#[derive(Debug, Clone)]
pub struct Chain {
    provider: DynProvider,
}

type Result<T> = std::result::Result<T, ChainError>;

fn asking(what: &'static str) -> impl FnOnce(RpcError<TransportErrorKind>) -> ChainError {
    move |source| match source.as_error_resp().and_then(|e| e.as_revert_data()) {
        Some(data) => ChainError::Refused { what, words: revert_words(&data) },
        None => ChainError::Asking { what, source },
    }
}

fn calling(what: &'static str) -> impl FnOnce(alloy::contract::Error) -> ChainError {
    move |source| match source.as_revert_data() {
        Some(data) => ChainError::Refused { what, words: revert_words(&data) },
        None => ChainError::Calling { what, source },
    }
}

impl Chain {
    pub fn connect(url: &str) -> Result<Self> {
        let url = url.parse().map_err(|_| ChainError::Address(url.to_owned()))?;
        let client = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).build().map_err(ChainError::Client)?;
        Ok(Self { provider: ProviderBuilder::new().disable_recommended_fillers().connect_reqwest(client, url).erased() })
    }

    /// For calls that have no method here.
    pub fn provider(&self) -> &DynProvider {
        &self.provider
    }

    pub async fn chain_id(&self) -> Result<u64> {
        self.provider.get_chain_id().await.map_err(asking("its id"))
    }

    pub async fn has_code(&self, address: Address) -> Result<bool> {
        Ok(!self.provider.get_code_at(address).await.map_err(asking("a contract's code"))?.is_empty())
    }

    pub async fn finalized(&self) -> Result<Finalized> {
        match self.find_block(BlockNumberOrTag::Finalized, "the finalized block").await {
            Err(ChainError::Asking { source: RpcError::ErrorResp(said), .. }) if no_such_tag(said.code, &said.message) => {
                Ok(Finalized::NoTag)
            }
            found => Ok(found?.map_or(Finalized::NotYet, Finalized::Block)),
        }
    }

    pub async fn height(&self) -> Result<u64> {
        self.provider.get_block_number().await.map_err(asking("its height"))
    }

    /// The block that this endpoint has at a height.
    pub async fn block(&self, number: u64) -> Result<Option<Finality>> {
        self.find_block(number.into(), "a block").await
    }

    async fn find_block(&self, at: BlockNumberOrTag, what: &'static str) -> Result<Option<Finality>> {
        let block = self.provider.get_block_by_number(at).await.map_err(asking(what))?;
        Ok(block.map(|b| Finality { number: b.header.number, hash: b.header.hash, timestamp: b.header.timestamp }))
    }

    /// Is the block of this number still this one? An endpoint that does not have it knows no answer.
    pub async fn is_canonical(&self, number: u64, hash: B256) -> Result<bool> {
        let block = self.block(number).await?;
        let block = block.ok_or_else(|| ChainError::Setup(format!("an endpoint has no block {number}, and a receipt from it")))?;
        Ok(block.hash == hash)
    }

    pub async fn account(&self, contract: Address, account: B256, at: BlockId) -> Result<AccountState> {
        let escrow = Escrow::new(contract, &self.provider);
        let seen = escrow.viewAccount(account).block(at).call().await.map_err(calling("viewAccount"))?;
        Ok(AccountState {
            payer: seen.payer,
            tenant: seen.tenant,
            balance_units: seen.balance.to(),
            thawing_units: seen.thawing.to(),
            thaw_end: seen.thawEnd.to(),
            spendable_units: seen.spendable.to(),
            allowance_units: seen.limits.allowance.to(),
            burst_units: seen.limits.burst.to(),
            rate_units_per_second: seen.limits.rate.to(),
            settler: seen.limits.settler,
            guardian: seen.guardian,
            frozen_until: seen.frozenUntil.to(),
            credited_units: seen.credited.to(),
        })
    }

    pub async fn lane(&self, contract: Address, account: B256, payee: u32, at: BlockId) -> Result<LaneState> {
        let escrow = Escrow::new(contract, &self.provider);
        let seen = escrow.viewLane(account, payee).block(at).call().await.map_err(calling("viewLane"))?;
        Ok(LaneState {
            posted_units: seen.posted.to(),
            mature_units: seen.mature.to(),
            withdrawn_units: seen.withdrawn.to(),
            matures_at: seen.maturesAt.to(),
            disputed_until: seen.disputedUntil.to(),
            case_fee_units: seen.caseFees.to(),
            returned_units: seen.returned.to(),
        })
    }

    /// What is scheduled for an account.
    pub async fn change(&self, contract: Address, account: B256, at: BlockId) -> Result<Option<ChangeState>> {
        let seen = Escrow::new(contract, &self.provider).viewChange(account).block(at).call().await.map_err(calling("viewChange"))?;
        let change = ChangeState {
            allowance_units: seen.limits.allowance.to(),
            burst_units: seen.limits.burst.to(),
            rate_units_per_second: seen.limits.rate.to(),
            settler: seen.limits.settler,
            apply_at: seen.applyAt.to(),
        };
        Ok((change.apply_at != 0).then_some(change))
    }

    /// How long a lane is closed after a credit, and how long leaving takes, in seconds: fixed for ever.
    pub async fn window_and_thaw(&self, contract: Address) -> Result<(u64, u64)> {
        let escrow = Escrow::new(contract, &self.provider);
        let window = escrow.WINDOW().call().await.map_err(calling("WINDOW"))?;
        let thaw = escrow.THAW().call().await.map_err(calling("THAW"))?;
        Ok((window.to(), thaw.to()))
    }

    /// A settler's hot and cold key.
    pub async fn settler(&self, contract: Address, settler: u32) -> Result<(Address, Address)> {
        let seen = Escrow::new(contract, &self.provider).viewSettler(settler).call().await.map_err(calling("viewSettler"))?;
        Ok((seen.hot, seen.cold))
    }

    /// Whose signatures of a settler's rows are good, and until when nothing can be claimed with them all the same.
    pub async fn settler_keys(&self, contract: Address, settler: u32) -> Result<SettlerKeys> {
        let seen = Escrow::new(contract, &self.provider).viewSettler(settler).call().await.map_err(calling("viewSettler"))?;
        Ok(SettlerKeys {
            hot: seen.hot,
            previous: seen.previous,
            previous_until: seen.previousUntil.to(),
            halted_until: seen.haltedUntil.to(),
        })
    }

    /// Who owns a payee, and where it is paid to.
    pub async fn payee(&self, contract: Address, payee: u32) -> Result<(Address, Address)> {
        let seen = Escrow::new(contract, &self.provider).viewPayee(payee).call().await.map_err(calling("viewPayee"))?;
        Ok((seen.owner, seen.payTo))
    }

    /// Who owns a payee, as of a block: for ever. `None`: the contract says that it knows no payee of this number; that it refuses
    /// for another reason says nothing of the payee.
    pub async fn payee_owner(&self, contract: Address, payee: u32, at: BlockId) -> Result<Option<Address>> {
        match Escrow::new(contract, &self.provider).viewPayee(payee).block(at).call().await {
            Ok(seen) => Ok(Some(seen.owner)),
            Err(error) if error.as_decoded_error::<Escrow::UnknownPayee>().is_some() => Ok(None),
            Err(error) => Err(calling("viewPayee")(error)),
        }
    }

    /// What an address has of the contract's token.
    pub async fn token_balance(&self, token: Address, of: Address) -> Result<u128> {
        let seen = TestToken::new(token, &self.provider).balanceOf(of).call().await.map_err(calling("balanceOf"))?;
        Ok(seen.saturating_to())
    }

    pub async fn token_decimals(&self, token: Address) -> Result<u8> {
        TestToken::new(token, &self.provider).decimals().call().await.map_err(calling("decimals"))
    }

    pub async fn token(&self, contract: Address) -> Result<Address> {
        Escrow::new(contract, &self.provider).TOKEN().call().await.map_err(calling("TOKEN"))
    }

    /// How many transactions of this address are included at `at`.
    pub async fn nonce(&self, address: Address, at: BlockId) -> Result<u64> {
        self.provider.get_transaction_count(address).block_id(at).await.map_err(asking("a nonce"))
    }

    pub async fn gas_balance_wei(&self, address: Address) -> Result<u128> {
        Ok(self.provider.get_balance(address).await.map_err(asking("a balance"))?.saturating_to())
    }

    pub async fn fees(&self) -> Result<Fees> {
        let estimate = self.provider.estimate_eip1559_fees().await.map_err(asking("what inclusion costs"))?;
        Ok(Fees { max_fee_wei: estimate.max_fee_per_gas, priority_fee_wei: estimate.max_priority_fee_per_gas })
    }

    /// What the call would use, or why it would be refused.
    pub async fn estimate_gas(&self, what: &'static str, from: Address, to: Address, data: Bytes) -> Result<u64> {
        let request = TransactionRequest::default().with_from(from).with_to(to).with_input(data);
        self.provider.estimate_gas(request).await.map_err(asking(what))
    }

    /// Hands over bytes. "Known already" and "nonce used" are no errors here: the receipt tells what came of it.
    pub async fn send_raw(&self, raw: &[u8]) -> Result<()> {
        match self.provider.send_raw_transaction(raw).await {
            Ok(_) => Ok(()),
            Err(RpcError::ErrorResp(said)) if already_there(&said.message) => Ok(()),
            Err(source) => Err(asking("inclusion")(source)),
        }
    }

    pub async fn receipt(&self, hash: B256) -> Result<Option<Receipt>> {
        let Some(found) = self.provider.get_transaction_receipt(hash).await.map_err(asking("a receipt"))? else { return Ok(None) };
        let (Some(block_number), Some(block_hash)) = (found.block_number, found.block_hash) else { return Ok(None) };
        let posted = found.logs().iter().find_map(|log| Escrow::Posted::decode_log(&log.inner).ok()).map(|event| PostedEvent {
            account: event.account,
            credited_units: event.credited.saturating_to(),
            skipped: numbers_of_bits(&event.skipped),
            contract: event.address,
            lines_root: event.linesRoot,
            journal_head: event.journalHead,
        });
        let registered = found.logs().iter().find_map(|log| Escrow::Registered::decode_log(&log.inner).ok()).map(|event| event.payee);
        let enrolled = found.logs().iter().find_map(|log| Escrow::Enrolled::decode_log(&log.inner).ok()).map(|event| event.settler);
        let collected =
            found.logs().iter().find_map(|log| Escrow::Collected::decode_log(&log.inner).ok()).map(|event| event.amount.saturating_to());
        Ok(Some(Receipt {
            hash,
            block_number,
            block_hash,
            succeeded: found.status(),
            gas_used: found.gas_used,
            posted,
            number: registered.or(enrolled),
            collected_units: collected,
        }))
    }

    /// Signs a call, sends it and waits until it is included: for people's commands, which have no outbox.
    pub async fn execute(&self, what: &'static str, signer: &PrivateKeySigner, to: Address, data: Bytes) -> Result<Receipt> {
        let gas_limit = self.estimate_gas(what, signer.address(), to, data.clone()).await? * 5 / 4;
        self.submit(what, signer, &Call { to: Some(to), data, gas_limit }).await
    }

    pub(crate) async fn submit(&self, what: &'static str, signer: &PrivateKeySigner, call: &Call) -> Result<Receipt> {
        let nonce = self.nonce(signer.address(), BlockId::pending()).await?;
        let signed: SignedTransaction = sign(signer, self.chain_id().await?, nonce, self.fees().await?, call)?;
        self.send_raw(&signed.raw).await?;
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while std::time::Instant::now() < deadline {
            if let Some(receipt) = self.receipt(signed.hash).await? {
                return if receipt.succeeded { Ok(receipt) } else { Err(ChainError::Failed { what, hash: signed.hash }) };
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Err(ChainError::Setup(format!(
            "{what} was sent as {} and not included within 60 s: look for it before you send it again",
            signed.hash
        )))
    }
}

/// The numbers of the bits that are set, the lowest of a byte first: rows that the contract skipped.
fn numbers_of_bits(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len() * 8).filter(|n| bytes[n / 8] >> (n % 8) & 1 == 1).collect()
}

/// Whether an endpoint was asked for the finalized block and doesn't know what that is. One that knows it and has none yet,
/// and one that is busy, is no such endpoint.
fn no_such_tag(code: i64, message: &str) -> bool {
    const INVALID_PARAMS: i64 = -32_602;
    let message = message.to_lowercase();
    code == INVALID_PARAMS
        || ["tag not supported", "unsupported block tag", "unknown block tag", "invalid block tag"]
            .iter()
            .any(|words| message.contains(words))
}

fn already_there(message: &str) -> bool {
    let message = message.to_lowercase();
    ["already known", "already imported", "nonce too low", "known transaction"].iter().any(|known| message.contains(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_were_skipped_are_the_bits_that_are_set() {
        assert_eq!(numbers_of_bits(&[]), [0; 0]);
        assert_eq!(numbers_of_bits(&[0b1000_0010, 0b1]), [1, 7, 8]);
    }

    #[test]
    fn an_endpoint_that_does_not_know_the_tag_is_told_from_one_that_has_nothing_final_yet_or_is_busy() {
        for (code, said, unknown) in [
            (-32_602, "invalid argument 0: hex string without 0x prefix", true),
            (-32_000, "Unsupported block tag: finalized", true),
            (-32_000, "finalized block not found", false),
            (-39_001, "Unknown block", false),
            (429, "rate limit exceeded", false),
        ] {
            assert_eq!(no_such_tag(code, said), unknown, "{said}");
        }
    }

    #[test]
    fn what_nodes_say_of_bytes_they_have_is_no_error() {
        for said in ["already known", "nonce too low: next nonce 5, tx nonce 4", "AlreadyKnown: already imported"] {
            assert!(already_there(said), "{said}");
        }
        assert!(!already_there("insufficient funds for gas"));
    }
}
