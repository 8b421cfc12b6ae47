//! The endpoints of the simulated chain: of three one may be behind, have other blocks, or lie.

use super::chain::WINDOW;
use super::{BLOCK_SECONDS, DEPTH, Simulated, fault};
use crate::settlement::SettlementError;
use crate::settlement::rail::{Endpoints, Included, Node, Price, Takes};
use std::sync::Arc;
use supercargo_contracts::{Finality, Finalized, keccak256};
use supercargo_ledger::Post;

/// What is wrong with an endpoint, besides what may fail with every one.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// It is so many blocks behind.
    Behind(usize),
    /// It has blocks of its own, and calls more of them final.
    Forked,
    /// It has the blocks that all have, and says of what is in them whatever it likes.
    Lying,
}

/// One endpoint of the simulated chain.
pub(super) struct Door {
    chain: Arc<Simulated>,
    manner: Manner,
}

impl Door {
    /// As many blocks as it has seen.
    fn seen(&self) -> usize {
        let blocks = self.chain.state.lock().expect("one thread").blocks.len();
        if let Manner::Behind(by) = self.manner { blocks.saturating_sub(by) } else { blocks }
    }

    fn lies(&self) -> bool {
        self.manner == Manner::Lying && self.chain.dice.lock().expect("one thread").roll(2) == 0
    }

    fn named(&self, number: u64) -> Finality {
        let fork = u8::from(self.manner == Manner::Forked);
        Finality { number, hash: keccak256([&number.to_be_bytes()[..], &[fork]].concat()), timestamp: number }
    }
}

impl Node for Door {
    async fn chain_id(&self) -> Result<u64, SettlementError> {
        self.chain.may_fail("asking for the chain's id")?;
        Ok(1)
    }

    async fn last_final(&self) -> Result<Finalized, SettlementError> {
        self.chain.may_fail("asking for finality")?;
        let ahead = if self.manner == Manner::Forked { 3 } else { 0 };
        Ok(Finalized::Block(self.named((self.seen() + ahead).saturating_sub(DEPTH) as u64)))
    }

    async fn block(&self, number: u64) -> Result<Option<Finality>, SettlementError> {
        self.chain.may_fail("asking for a block")?;
        Ok(Some(self.named(number)))
    }

    async fn latest_nonce(&self) -> Result<u64, SettlementError> {
        self.chain.may_fail("asking for a nonce")?;
        if self.lies() {
            return Ok(self.chain.dice.lock().expect("one thread").roll(100));
        }
        let seen = self.seen();
        Ok(self.chain.state.lock().expect("one thread").nonce(seen))
    }

    async fn nonce_at(&self, block: u64) -> Result<u64, SettlementError> {
        self.chain.may_fail("asking for a final nonce")?;
        if self.lies() {
            return Ok(1_000);
        }
        Ok(self.chain.state.lock().expect("one thread").nonce(block as usize))
    }

    async fn included(&self, hash: &str) -> Result<Option<Included>, SettlementError> {
        self.chain.may_fail("asking for a receipt")?;
        if self.lies() {
            let lie = Included { block: 0, succeeded: self.lies(), skipped: Vec::new(), gas_used: 0, by_few: false };
            return Ok(self.lies().then_some(lie));
        }
        let seen = self.seen();
        let state = self.chain.state.lock().expect("one thread");
        let blocks = state.blocks[..seen].iter().enumerate();
        let mut found = blocks.flat_map(|(at, block)| block.iter().map(move |mined| (at, mined)));
        let found = found.find(|(_, mined)| mined.transaction.hash == hash);
        // Blocks count from 1, so that none is final at the beginning.
        Ok(found.map(|(at, mined)| {
            let (succeeded, skipped) = (mined.succeeded, mined.skipped.clone());
            Included { block: at as u64 + 1, succeeded, skipped, gas_used: 0, by_few: false }
        }))
    }

    async fn takes(&self, post: &Post) -> Result<Takes, SettlementError> {
        self.chain.may_fail("asking for lanes")?;
        if self.lies() {
            return Ok(Takes::Nothing);
        }
        let block = self.seen();
        let lanes = self.chain.state.lock().expect("one thread").lanes(block);
        let (mut open, mut closed) = (0, 0);
        for (payee, total) in &post.rows {
            let lane = lanes.get(&(post.funding.clone(), *payee)).copied().unwrap_or_default();
            if *total > lane.posted {
                *(if lane.takes(block) { &mut open } else { &mut closed }) += 1;
            }
        }
        Ok(Takes::of(open, closed, WINDOW as u64 * BLOCK_SECONDS.unsigned_abs()))
    }

    async fn is_credited_at(&self, post: &Post, block: u64) -> Result<bool, SettlementError> {
        self.chain.may_fail("asking for a lane")?;
        if self.lies() {
            return Ok(self.chain.dice.lock().expect("one thread").roll(2) == 0);
        }
        let lanes = self.chain.state.lock().expect("one thread").credited(block as usize);
        let has = |payee: u32| lanes.get(&(post.funding.clone(), payee)).copied().unwrap_or_default();
        Ok(post.rows.iter().all(|(payee, total)| has(*payee) >= *total))
    }

    async fn price(&self, post: &Post) -> Result<Price, SettlementError> {
        self.chain.may_fail("asking for fees")?;
        let block = self.seen();
        if self.chain.state.lock().expect("one thread").is_frozen(&post.funding, block) {
            self.chain.state.lock().expect("one thread").shown.refused += 1;
            return Err(SettlementError::Refused("frozen".to_owned()));
        }
        if self.lies() {
            return Err(SettlementError::Refused("a lie".to_owned()));
        }
        let fee = self.chain.state.lock().expect("one thread").fee;
        let max_fee_wei = if self.lies() { u128::MAX } else { fee };
        Ok(Price { gas: 1, max_fee_wei, priority_fee_wei: 0 })
    }

    async fn gas_balance_wei(&self) -> Result<u128, SettlementError> {
        Ok(if self.lies() { 0 } else { u128::MAX / 2 })
    }

    async fn send(&self, raw: &[u8]) -> Result<(), SettlementError> {
        if self.chain.is_dead().await {
            return Err(fault("it is dead"));
        }
        self.chain.may_fail("sending")?;
        if self.lies() {
            // It takes the bytes, and nobody ever sees them.
            return Ok(());
        }
        {
            let mut state = self.chain.state.lock().expect("one thread");
            let transaction = state.known[raw].clone();
            let next = (state.key, state.nonce(state.blocks.len()));
            let may_come = transaction.sender.is_some_and(|(key, nonce)| key == next.0 && nonce >= next.1);
            if may_come && !state.waiting.iter().any(|waiting| waiting.hash == transaction.hash) {
                state.waiting.push(transaction);
            }
        }
        // It arrived, and the answer did not.
        self.chain.may_fail("the answer")
    }
}

/// Of three endpoints the one whose fault a seed decides; or one alone that has none.
pub(super) fn doors(chain: &Arc<Simulated>, seed: u64) -> Endpoints<Door> {
    let faulty = [Manner::Honest, Manner::Behind(4), Manner::Forked, Manner::Lying][(seed % 4) as usize];
    let manners = if seed.is_multiple_of(8) { vec![Manner::Honest] } else { vec![faulty, Manner::Honest, Manner::Honest] };
    Endpoints::new(manners.into_iter().map(|manner| Door { chain: Arc::clone(chain), manner }).collect())
}
