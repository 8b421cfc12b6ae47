//! An endpoint of an EVM chain, and the settler's hot key.

use super::SettlementError;
use super::rail::{Included, Node, Pen, Price, Takes};
use supercargo_contracts::{
    Address, B256, BlockId, Bytes, Call, Chain, ChainError, Fees, Finality, Finalized, PrivateKeySigner, Row, calls, read, sign,
};
use supercargo_ledger::{Attempt, Post};
use supercargo_market::work::FundingId;

/// What is asked of one endpoint for one contract and one signer.
#[derive(Debug, Clone)]
pub struct EvmNode {
    pub chain: Chain,
    pub contract: Address,
    pub signer: Address,
}

/// What signs posts to one contract.
#[derive(Debug, Clone)]
pub struct EvmPen {
    pub key: PrivateKeySigner,
    pub chain_id: u64,
    pub contract: Address,
    /// More than this is not offered for a unit of gas.
    pub most_fee_wei: Option<u128>,
}

/// The account of a funding as the chain writes it.
pub fn account_of(funding: &FundingId) -> Result<B256, SettlementError> {
    let hex = funding.account().map(|(_, account)| account).unwrap_or_default();
    hex.parse().map_err(|_| SettlementError::Stalled(format!("{funding} names no account")))
}

/// A case takes what comes in, until a window before it lapses: nobody leaves behind a dispute.
fn case_takes(disputed_until: u64, window_seconds: u64, now: u64) -> bool {
    disputed_until > 0 && now.saturating_add(window_seconds) < disputed_until
}

/// Calldata of a post.
fn post_data(post: &Post) -> Result<Bytes, SettlementError> {
    let rows: Option<Vec<_>> = post.rows.iter().map(|(payee, total)| Row::new(*payee, u128::from(*total))).collect();
    let rows = rows.ok_or_else(|| SettlementError::Stalled("a row's total does not fit the contract".to_owned()))?;
    Ok(calls::post_call(account_of(&post.funding)?, &rows, post.lines_root.into(), post.journal_head.into()))
}

impl Node for EvmNode {
    async fn chain_id(&self) -> Result<u64, SettlementError> {
        Ok(self.chain.chain_id().await?)
    }

    async fn last_final(&self) -> Result<Finalized, SettlementError> {
        Ok(self.chain.finalized().await?)
    }

    async fn height(&self) -> Result<u64, SettlementError> {
        Ok(self.chain.height().await?)
    }

    async fn block(&self, number: u64) -> Result<Option<Finality>, SettlementError> {
        Ok(self.chain.block(number).await?)
    }

    async fn latest_nonce(&self) -> Result<u64, SettlementError> {
        Ok(self.chain.nonce(self.signer, BlockId::latest()).await?)
    }

    async fn nonce_at(&self, block: u64) -> Result<u64, SettlementError> {
        Ok(self.chain.nonce(self.signer, BlockId::number(block)).await?)
    }

    async fn included(&self, hash: &str) -> Result<Option<Included>, SettlementError> {
        let hash: B256 = hash.parse().map_err(|_| SettlementError::Stalled(format!("{hash:?} is not a transaction's hash")))?;
        let Some(receipt) = self.chain.receipt(hash).await? else { return Ok(None) };
        if !self.chain.is_canonical(receipt.block_number, receipt.block_hash).await? {
            return Ok(None);
        }
        let skipped = match receipt.posted {
            Some(posted) => posted.skipped,
            // Without the contract's own words nobody knows which rows it took.
            None if receipt.succeeded => {
                return Err(SettlementError::Waiting(format!("an endpoint's receipt of {hash} lacks the event that says what was posted")));
            }
            None => Vec::new(),
        };
        Ok(Some(Included { block: receipt.block_number, succeeded: receipt.succeeded, skipped, gas_used: receipt.gas_used, by_few: false }))
    }

    async fn takes(&self, post: &Post) -> Result<Takes, SettlementError> {
        let account = account_of(&post.funding)?;
        let (mut open, mut closed) = (0, Vec::new());
        for (payee, total) in &post.rows {
            let lane = self.chain.lane(self.contract, account, *payee, BlockId::latest()).await?;
            // A row that was claimed credits nothing, and is skipped by no window.
            if u128::from(*total) <= lane.posted_units {
                continue;
            }
            if lane.posted_units > lane.mature_units { closed.push(lane.disputed_until) } else { open += 1 }
        }
        if closed.is_empty() {
            return Ok(Takes::All);
        }
        let (window_seconds, _) = self.chain.window_and_thaw(self.contract).await?;
        // Without a time nobody knows which cases still take something.
        let newest = self.chain.block(self.chain.height().await?).await?;
        let now = newest.ok_or_else(|| SettlementError::Waiting("an endpoint lacks its newest block".to_owned()))?.timestamp;
        let cases = closed.iter().filter(|until| case_takes(**until, window_seconds, now)).count();
        Ok(Takes::of(open + cases, closed.len() - cases, window_seconds))
    }

    async fn is_credited_at(&self, post: &Post, block: u64) -> Result<bool, SettlementError> {
        let account = account_of(&post.funding)?;
        for (payee, total) in &post.rows {
            let lane = self.chain.lane(self.contract, account, *payee, BlockId::number(block)).await?;
            if lane.posted_units < u128::from(*total) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn price(&self, post: &Post) -> Result<Price, SettlementError> {
        let estimate = self.chain.estimate_gas("posting rows", self.signer, self.contract, post_data(post)?).await;
        let gas = estimate.map_err(|error| match error {
            ChainError::Refused { words, .. } => SettlementError::Refused(words),
            other => SettlementError::Chain(other),
        })?;
        let fees = self.chain.fees().await?;
        Ok(Price { gas, max_fee_wei: fees.max_fee_wei, priority_fee_wei: fees.priority_fee_wei })
    }

    async fn gas_balance_wei(&self) -> Result<u128, SettlementError> {
        Ok(self.chain.gas_balance_wei(self.signer).await?)
    }

    async fn send(&self, raw: &[u8]) -> Result<(), SettlementError> {
        Ok(self.chain.send_raw(raw).await?)
    }
}

impl Pen for EvmPen {
    fn signer(&self) -> String {
        self.key.address().to_string()
    }

    fn most_fee_wei(&self) -> Option<u128> {
        self.most_fee_wei
    }

    fn sign(&self, post: &Post, nonce: u64, price: Price) -> Result<Attempt, SettlementError> {
        self.signed(nonce, price, &Call { to: Some(self.contract), data: post_data(post)?, gas_limit: price.gas })
    }

    fn replace(&self, signed: &Attempt, price: Price) -> Result<Attempt, SettlementError> {
        let unread = || SettlementError::Stalled(format!("what was signed as {} can't be read", signed.hash));
        let (nonce, call) = read(&signed.raw).ok_or_else(unread)?;
        // What the post lacks by now, the first bytes may carry.
        self.signed(nonce, price, &Call { gas_limit: call.gas_limit.max(price.gas), ..call })
    }
}

impl EvmPen {
    fn signed(&self, nonce: u64, price: Price, call: &Call) -> Result<Attempt, SettlementError> {
        let fees = Fees { max_fee_wei: price.max_fee_wei, priority_fee_wei: price.priority_fee_wei.min(price.max_fee_wei) };
        let signed = sign(&self.key, self.chain_id, nonce, fees, call).map_err(ChainError::from)?;
        Ok(Attempt { hash: signed.hash.to_string(), signer: self.signer(), nonce, raw: signed.raw.to_vec(), max_fee: fees.max_fee_wei })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use supercargo_ledger::PostState;
    use supercargo_market::money::Amount;

    #[test]
    fn a_replacement_calls_the_same_with_the_same_nonce_also_when_its_post_has_lost_rows_since() {
        let contract = Address::repeat_byte(9);
        let pen = EvmPen { key: PrivateKeySigner::random(), chain_id: 1, contract, most_fee_wei: None };
        let post = Post {
            id: "p".to_owned(),
            funding: FundingId::chain("c", &B256::ZERO.to_string()),
            state: PostState::Planned,
            rows: vec![(7, 9), (8, 2)],
            amount: Amount::from_units(11),
            lines_root: [3; 32],
            journal_head: [4; 32],
            winner: None,
            block: None,
        };
        let price = |gas, fee| Price { gas, max_fee_wei: fee, priority_fee_wei: fee };
        let first = pen.sign(&post, 5, price(90_000, 10)).expect("signs");
        for (gas, least) in [(70_000, 90_000), (95_000, 95_000)] {
            let second = pen.replace(&first, price(gas, 13)).expect("signs");
            assert_eq!((second.nonce, second.max_fee, &second.signer), (5, 13, &first.signer));
            assert_ne!(second.hash, first.hash);
            let ((_, before), (nonce, after)) = (read(&first.raw).expect("is ours"), read(&second.raw).expect("is ours"));
            assert_eq!((nonce, after.to, &after.data, after.gas_limit), (5, Some(contract), &before.data, least));
        }
        assert!(pen.replace(&Attempt { raw: vec![1, 2], ..first }, price(1, 1)).is_err());
    }

    #[test]
    fn a_lane_with_an_open_case_takes_rows_until_a_window_before_the_case_lapses() {
        for (disputed_until, now, takes) in
            [(0, 100, false), (1_000, 100, true), (1_000, 899, true), (1_000, 900, false), (1_000, 1_000, false)]
        {
            assert_eq!(case_takes(disputed_until, 100, now), takes, "a case until {disputed_until} at {now}");
        }
    }

    #[test]
    fn a_post_waits_for_lanes_that_are_closed_as_long_as_none_is_open() {
        let some = Takes::Some { window_seconds: 60 };
        for (open, closed, takes) in [(0, 0, Takes::All), (2, 0, Takes::All), (1, 1, some), (0, 2, Takes::Nothing)] {
            assert_eq!(Takes::of(open, closed, 60), takes, "{open} open, {closed} closed");
        }
    }
}
