//! An operator that dies at every write and every send, before a chain that fails at every step and whose gas is dear now and
//! then, seen through three endpoints of which one lies or is behind; the books are real ones. Whatever happens, each lane ends at
//! what is owed, and is credited no unit twice. Payees claim with vouchers meanwhile; some chains undo what was final, and some
//! books are lost and restored from an old backup: where the chain is beyond those, the account stalls, in words. And some keys
//! come into other hands: such a key signs nothing more, until a person gives another. Lanes that were credited are closed for a
//! window, payers dispute and freeze, and some transactions fail.

mod chain;
mod doors;
mod fuse;
mod runs;

use super::SettlementError;
use super::rail::{Pen, Price};
use chain::{Mined, State, Transaction};
use fuse::Fuse;
use std::sync::{Arc, Mutex};
use supercargo_ledger::{Attempt, Charge, Fence, Ledger, Post, Posting};
use supercargo_market::asset::Asset;
use supercargo_market::fees::{FeeSchedule, FeeShare};
use supercargo_market::metering::Evidence;
use supercargo_market::money::Amount;
use supercargo_market::rating::{self, Held};
use supercargo_market::work::{FundingId, SegmentId, WorkId};

/// A block is final when so many are above it.
const DEPTH: usize = 2;
/// Between two blocks: long enough that replacements happen.
const BLOCK_SECONDS: i64 = 25;
/// What gas costs when all is calm, and what is offered for it at most.
const CALM_FEE: u128 = 10;
const MOST_FEE: u128 = 2_000;

/// The same seed is the same run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

struct Simulated {
    state: Mutex<State>,
    dice: Mutex<Dice>,
    fuse: tokio::sync::Mutex<Fuse>,
}

fn fault(what: &str) -> SettlementError {
    SettlementError::Stalled(format!("simulated: {what}"))
}

impl Simulated {
    fn chance(&self, of: u64) -> bool {
        self.state.lock().expect("one thread").faults && self.dice.lock().expect("one thread").roll(of) == 0
    }

    /// A request may fail before it arrives; every one of these is also a place where the operator dies.
    fn may_fail(&self, what: &str) -> Result<(), SettlementError> {
        if self.chance(8) { Err(fault(what)) } else { Ok(()) }
    }

    /// The operator has written its last: nothing more comes from it.
    async fn is_dead(&self) -> bool {
        let dies = self.state.lock().expect("one thread").dies;
        dies && self.fuse.lock().await.is_burnt().await
    }

    /// The operator dies in the next look when it has written so many rows; if there is a look in which it writes them.
    async fn lay(&self, rows: Option<u64>) {
        let changes = {
            let mut state = self.state.lock().expect("one thread");
            std::mem::replace(&mut state.dies, rows.is_some()) || rows.is_some()
        };
        if changes {
            self.fuse.lock().await.lay(rows).await;
        }
    }

    /// What a block wants for gas from now on: now and then many times more than was offered.
    fn price(&self) {
        let (roll, times) = {
            let mut dice = self.dice.lock().expect("one thread");
            (dice.roll(12), dice.roll(500))
        };
        let mut state = self.state.lock().expect("one thread");
        match roll {
            _ if !state.faults => state.fee = CALM_FEE,
            0 => state.fee = CALM_FEE * u128::from(times + 1),
            1..4 => state.fee = CALM_FEE,
            _ => {}
        }
    }

    /// A block is made; or undone, with what was in it lost or waiting again; or the mempool is dropped.
    fn live(&self) {
        self.price();
        let roll = self.dice.lock().expect("one thread").roll(10);
        let keep = self.dice.lock().expect("one thread").roll(2) == 0;
        let depth = if self.dice.lock().expect("one thread").roll(3) == 0 { DEPTH + 3 } else { 0 };
        let fails = self.chance(12);
        let mut state = self.state.lock().expect("one thread");
        if state.faults && state.deep && depth > 0 && roll == 2 {
            // As long as it was, and without all that was in it.
            let from = state.blocks.len().saturating_sub(depth);
            let undone: Vec<Mined> = state.blocks.drain(from..).flatten().collect();
            if keep {
                state.waiting.extend(undone.into_iter().map(|mined| mined.transaction));
            }
            state.blocks.extend((0..depth).map(|_| Vec::new()));
            return;
        }
        if state.faults && roll == 0 && !state.blocks.is_empty() && !state.blocks.last().expect("a block").is_empty() {
            // Only blocks that are not final are undone.
            let undone = state.blocks.pop().unwrap_or_default();
            if keep {
                state.waiting.extend(undone.into_iter().map(|mined| mined.transaction));
            }
            state.blocks.push(Vec::new());
            return;
        }
        if state.faults && roll == 1 {
            state.waiting.clear();
        }
        let (key, next) = (state.key, state.nonce(state.blocks.len()));
        let fee = state.fee;
        let at = state.waiting.iter().position(|transaction| transaction.sender == Some((key, next)) && transaction.fee >= fee);
        let ours = at.map(|at| state.waiting.remove(at));
        let (others, waiting): (Vec<_>, Vec<_>) = state.waiting.drain(..).partition(|transaction| transaction.sender.is_none());
        // The contract takes nothing of a key that is not the settler's any more.
        let may_come = |(of, nonce): (u32, u64)| of == key && (nonce > next || (nonce == next && ours.is_none()));
        state.waiting = waiting.into_iter().filter(|transaction| transaction.sender.is_some_and(may_come)).collect();
        state.mine(ours.into_iter().chain(others).collect(), fails);
    }

    /// The payer is against what a lane was credited, or freezes an account for a while.
    fn oppose(&self, count: u64) {
        let (number, payee, freezes) = {
            let mut dice = self.dice.lock().expect("one thread");
            (dice.roll(2), if dice.roll(2) == 0 { 7 } else { 1 }, dice.roll(4) == 0)
        };
        let (funding, mut state) = (account(number), self.state.lock().expect("one thread"));
        if freezes {
            let until = state.blocks.len() + 4;
            state.frozen = Some((funding, until));
        } else {
            let hash = format!("dispute {count}");
            state.waiting.push(Transaction { hash, sender: None, fee: 0, funding, rows: vec![(payee, 0)], disputes: true });
        }
    }

    /// Somebody who has the first key sends something else with its next nonce.
    fn intrude(&self, count: u64) {
        let mut state = self.state.lock().expect("one thread");
        if state.key == 0 {
            let sender = Some((0, state.nonce(state.blocks.len())));
            let hash = format!("intruder {count}");
            state.waiting.insert(0, Transaction { hash, sender, fee: u128::MAX, funding: account(0), rows: Vec::new(), disputes: false });
        }
    }

    /// A person gives the settler another key.
    fn rotate(&self) {
        let mut state = self.state.lock().expect("one thread");
        state.key += 1;
        state.waiting.retain(|transaction| transaction.sender.is_none());
    }
}

impl Pen for Arc<Simulated> {
    fn signer(&self) -> String {
        format!("key {}", self.state.lock().expect("one thread").key)
    }

    fn most_fee_wei(&self) -> Option<u128> {
        Some(MOST_FEE)
    }

    fn sign(&self, post: &Post, nonce: u64, price: Price) -> Result<Attempt, SettlementError> {
        let mut state = self.state.lock().expect("one thread");
        let (id, fee, key) = (&post.id, price.max_fee_wei, state.key);
        assert!(!state.lent.contains(&key), "somebody else has key {key}, and it signs {id}");
        let raw = format!("{key} {id} {nonce} {fee}").into_bytes();
        let hash = format!("hash of {key} {id} {nonce} {fee}");
        let sender = Some((key, nonce));
        let transaction =
            Transaction { hash: hash.clone(), sender, fee, funding: post.funding.clone(), rows: post.rows.clone(), disputes: false };
        state.known.insert(raw.clone(), transaction);
        drop(state);
        Ok(Attempt { hash, signer: self.signer(), nonce, raw, max_fee: fee })
    }

    fn replace(&self, signed: &Attempt, price: Price) -> Result<Attempt, SettlementError> {
        let mut state = self.state.lock().expect("one thread");
        let (fee, nonce, first) = (price.max_fee_wei, signed.nonce, state.known[&signed.raw].clone());
        assert!(fee > first.fee && first.sender == Some((state.key, nonce)), "{} can't be replaced for {fee}", signed.hash);
        assert!(!state.lent.contains(&state.key), "somebody else has the key, and it signs {} again", signed.hash);
        let hash = format!("{} for {fee}", signed.hash);
        let raw = hash.clone().into_bytes();
        state.known.insert(raw.clone(), Transaction { hash: hash.clone(), fee, ..first });
        drop(state);
        Ok(Attempt { hash, signer: self.signer(), nonce, raw, max_fee: fee })
    }
}

pub(super) fn account(number: u64) -> FundingId {
    FundingId::chain("c", &format!("0x{number:064x}"))
}

/// Deposits, and a reservation for each of the works.
pub(super) async fn open(ledger: &Ledger, fence: Fence) {
    for number in 0..2 {
        let funding = account(number);
        let fund = Posting::Fund {
            funding: funding.clone(),
            asset: Asset::of(&funding, "USDC"),
            deposited: Amount::from_units(1_000_000),
            withdrawn: Amount::ZERO,
        };
        let reserve = Posting::Reserve {
            work: WorkId::task(number.to_string()),
            asset: Asset::of(&funding, "USDC"),
            funding,
            amount: Amount::from_units(500_000),
            detail: "{}".into(),
            parent: None,
        };
        ledger.commit(fence, &[fund, reserve]).await.expect("commits");
    }
}

pub(super) fn charge(work: u64, index: u32, seconds: u64) -> Posting {
    let held = Held { devices: 1, device_price: "0.0036".parse().expect("a price"), ..Held::default() };
    Posting::Charge(Charge {
        work: WorkId::task(work.to_string()),
        attempt: 0,
        segment: SegmentId::of_pod(work.to_string(), index),
        seconds,
        evidence: Evidence::Record,
        place: "acme/n1".into(),
        fault: false,
        cost: rating::cost(&held, seconds).expect("fits"),
        payee: Some(7),
        fees: FeeSchedule { basis_points: 250, shares: vec![FeeShare { payee: 1, basis_points: 10_000 }] },
        metered: None,
        day: 0,
    })
}
