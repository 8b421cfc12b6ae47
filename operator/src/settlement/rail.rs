//! The rail: the few things that the outbox asks of a chain. The EVM's is the only one so far; the tests have another
//! that crashes, forgets and undoes.

use super::SettlementError;
use supercargo_contracts::{Address, B256, Bytes, Call, Chain, Fees, PrivateKeySigner, sign};
use supercargo_ledger::{Attempt, Post};

/// A transaction that is in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Included {
    pub block: u64,
    pub succeeded: bool,
    pub skipped: Vec<usize>,
}

/// What the outbox asks of a chain. Every answer may be late or never come; none is read as "no".
pub trait Rail {
    fn signer(&self) -> String;
    /// The highest block that can't be undone.
    async fn finalized_block(&self) -> Result<u64, SettlementError>;
    /// How many transactions of the signer are in the newest block's state.
    async fn latest_nonce(&self) -> Result<u64, SettlementError>;
    /// The same of the finalized block's state.
    async fn final_nonce(&self) -> Result<u64, SettlementError>;
    async fn included(&self, hash: &str) -> Result<Option<Included>, SettlementError>;
    /// Whether nothing of this account is on the chain that still matures: a row would be skipped.
    async fn window_is_closed(&self, post: &Post) -> Result<bool, SettlementError>;
    /// The post, signed with this nonce; the fee is at least `least_fee`.
    async fn sign(&self, post: &Post, nonce: u64, least_fee: u128) -> Result<Attempt, SettlementError>;
    async fn send(&self, raw: &[u8]) -> Result<(), SettlementError>;
}

#[derive(Debug, Clone)]
pub struct Evm {
    pub chain: Chain,
    pub chain_id: u64,
    pub contract: Address,
    pub signer: PrivateKeySigner,
}

fn hash_of(text: &str) -> Result<B256, SettlementError> {
    text.parse().map_err(|_| SettlementError::Stalled(format!("{text:?} is not a transaction's hash")))
}

impl Rail for Evm {
    fn signer(&self) -> String {
        self.signer.address().to_string()
    }

    async fn finalized_block(&self) -> Result<u64, SettlementError> {
        Ok(self.chain.finalized().await?.map_or(0, |block| block.number))
    }

    async fn latest_nonce(&self) -> Result<u64, SettlementError> {
        Ok(self.chain.nonce(self.signer.address(), supercargo_contracts::BlockId::latest()).await?)
    }

    async fn final_nonce(&self) -> Result<u64, SettlementError> {
        let block = self.finalized_block().await?;
        Ok(self.chain.nonce(self.signer.address(), supercargo_contracts::BlockId::number(block)).await?)
    }

    async fn included(&self, hash: &str) -> Result<Option<Included>, SettlementError> {
        let Some(receipt) = self.chain.receipt(hash_of(hash)?).await? else { return Ok(None) };
        if !self.chain.is_canonical(receipt.block_number, receipt.block_hash).await? {
            return Ok(None);
        }
        let skipped = receipt.posted.map(|posted| posted.skipped).unwrap_or_default();
        Ok(Some(Included { block: receipt.block_number, succeeded: receipt.succeeded, skipped }))
    }

    async fn window_is_closed(&self, post: &Post) -> Result<bool, SettlementError> {
        let account = super::account_of(&post.funding)?;
        for (payee, _) in &post.rows {
            let lane = self.chain.lane(self.contract, account, *payee, supercargo_contracts::BlockId::latest()).await?;
            if lane.posted_units > lane.mature_units {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn sign(&self, post: &Post, nonce: u64, least_fee: u128) -> Result<Attempt, SettlementError> {
        let data: Bytes = super::post_data(super::account_of(&post.funding)?, &post.rows, post.lines_root, post.journal_head)?;
        let gas =
            self.chain.estimate_gas("posting rows", self.signer.address(), self.contract, data.clone()).await.map_err(
                |error| match error {
                    supercargo_contracts::ChainError::Refused { words, .. } => SettlementError::Refused(words),
                    other => SettlementError::Chain(other),
                },
            )?;
        let fees = self.chain.fees().await?;
        let fees = Fees { max_fee_wei: fees.max_fee_wei.max(least_fee), priority_fee_wei: fees.priority_fee_wei };
        let call = Call { to: Some(self.contract), data, gas_limit: gas + gas / 4 };
        let signed = sign(&self.signer, self.chain_id, nonce, fees, &call).map_err(supercargo_contracts::ChainError::from)?;
        Ok(Attempt { hash: signed.hash.to_string(), signer: self.signer(), nonce, raw: signed.raw.to_vec(), max_fee: fees.max_fee_wei })
    }

    async fn send(&self, raw: &[u8]) -> Result<(), SettlementError> {
        Ok(self.chain.send_raw(raw).await?)
    }
}
