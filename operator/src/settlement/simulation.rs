//! An operator that dies at every write and every send, before a chain that fails at every step and whose gas is dear now and
//! then, seen through three endpoints of which one lies or is behind; the books are real ones. Whatever happens, each lane ends at
//! what is owed, and is credited no unit twice. Payees claim with vouchers meanwhile; some chains undo what was final, and some
//! books are lost and restored from an old backup: where the chain is beyond those, the account stalls, in words. And some keys
//! come into other hands: such a key signs nothing more, until a person gives another.

mod fuse;
mod runs;

use super::SettlementError;
use super::rail::{Endpoints, Included, Node, Pen, Price, Takes};
use fuse::Fuse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use supercargo_contracts::{Finality, Finalized, keccak256};
use supercargo_ledger::{Attempt, Charge, Fence, Ledger, Post, Posting};
use supercargo_market::asset::Asset;
use supercargo_market::fees::{FeeSchedule, FeeShare};
use supercargo_market::metering::Evidence;
use supercargo_market::money::Amount;
use supercargo_market::rating::{self, Held};
use supercargo_market::work::{FundingId, SegmentId, WorkId};

/// A block is final when so many are above it.
const DEPTH: usize = 2;
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

#[derive(Clone)]
struct Transaction {
    hash: String,
    /// Which of our keys sends it, with which nonce; a claim has another sender.
    sender: Option<(u32, u64)>,
    fee: u128,
    funding: FundingId,
    rows: Vec<(u32, u64)>,
}

#[derive(Default)]
struct State {
    known: HashMap<Vec<u8>, Transaction>,
    waiting: Vec<Transaction>,
    blocks: Vec<Vec<Transaction>>,
    faults: bool,
    /// What is final may be undone, too.
    deep: bool,
    /// The settler's key, by its number, and those of which the books know that somebody else has them.
    key: u32,
    lent: BTreeSet<u32>,
    /// What a block wants for gas.
    fee: u128,
    /// The operator dies in this look.
    dies: bool,
}

impl State {
    /// The next one of the settler's key.
    fn nonce(&self, blocks: usize) -> u64 {
        let ours = |transaction: &&Transaction| transaction.sender.is_some_and(|(key, _)| key == self.key);
        self.blocks[..blocks].iter().flatten().filter(ours).count() as u64
    }

    /// What the contract has credited, replayed from so many blocks: a row is a total.
    fn lanes(&self, blocks: usize) -> BTreeMap<(FundingId, u32), u64> {
        let mut lanes = BTreeMap::new();
        for transaction in self.blocks[..blocks.min(self.blocks.len())].iter().flatten() {
            for (payee, total) in &transaction.rows {
                let lane: &mut u64 = lanes.entry((transaction.funding.clone(), *payee)).or_default();
                *lane = (*lane).max(*total);
            }
        }
        lanes
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
        let mut state = self.state.lock().expect("one thread");
        if state.faults && state.deep && depth > 0 && roll == 2 {
            // As long as it was, and without all that was in it.
            let from = state.blocks.len().saturating_sub(depth);
            let undone: Vec<Transaction> = state.blocks.drain(from..).flatten().collect();
            if keep {
                state.waiting.extend(undone);
            }
            state.blocks.extend((0..depth).map(|_| Vec::new()));
            return;
        }
        if state.faults && roll == 0 && !state.blocks.is_empty() && !state.blocks.last().expect("a block").is_empty() {
            // Only blocks that are not final are undone.
            let undone = state.blocks.pop().unwrap_or_default();
            if keep {
                state.waiting.extend(undone);
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
        let (claims, waiting): (Vec<_>, Vec<_>) = state.waiting.drain(..).partition(|transaction| transaction.sender.is_none());
        // The contract takes nothing of a key that is not the settler's any more.
        let may_come = |(of, nonce): (u32, u64)| of == key && (nonce > next || (nonce == next && ours.is_none()));
        state.waiting = waiting.into_iter().filter(|transaction| transaction.sender.is_some_and(may_come)).collect();
        state.blocks.push(ours.into_iter().chain(claims).collect());
    }

    /// Somebody who has the first key sends something else with its next nonce.
    fn intrude(&self, count: u64) {
        let mut state = self.state.lock().expect("one thread");
        if state.key == 0 {
            let sender = Some((0, state.nonce(state.blocks.len())));
            let hash = format!("intruder {count}");
            state.waiting.insert(0, Transaction { hash, sender, fee: u128::MAX, funding: account(0), rows: Vec::new() });
        }
    }

    /// A person gives the settler another key.
    fn rotate(&self) {
        let mut state = self.state.lock().expect("one thread");
        state.key += 1;
        state.waiting.retain(|transaction| transaction.sender.is_none());
    }
}

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
struct Door {
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
            let lie = Included { block: 0, succeeded: self.lies(), skipped: Vec::new(), gas_used: 0 };
            return Ok(self.lies().then_some(lie));
        }
        let seen = self.seen();
        let state = self.chain.state.lock().expect("one thread");
        let found = state.blocks[..seen].iter().position(|block| block.iter().any(|transaction| transaction.hash == hash));
        // Blocks count from 1, so that none is final at the beginning.
        Ok(found.map(|at| Included { block: at as u64 + 1, succeeded: true, skipped: Vec::new(), gas_used: 0 }))
    }

    async fn takes(&self, _: &Post) -> Result<Takes, SettlementError> {
        Ok(if self.lies() || self.chain.chance(5) { Takes::Nothing } else { Takes::All })
    }

    async fn is_credited_at(&self, post: &Post, block: u64) -> Result<bool, SettlementError> {
        self.chain.may_fail("asking for a lane")?;
        if self.lies() {
            return Ok(self.chain.dice.lock().expect("one thread").roll(2) == 0);
        }
        let lanes = self.chain.state.lock().expect("one thread").lanes(block as usize);
        let has = |payee: u32| lanes.get(&(post.funding.clone(), payee)).copied().unwrap_or_default();
        Ok(post.rows.iter().all(|(payee, total)| has(*payee) >= *total))
    }

    async fn price(&self, _: &Post) -> Result<Price, SettlementError> {
        self.chain.may_fail("asking for fees")?;
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
        let transaction = Transaction { hash: hash.clone(), sender, fee, funding: post.funding.clone(), rows: post.rows.clone() };
        state.known.insert(raw.clone(), transaction);
        drop(state);
        Ok(Attempt { hash, signer: self.signer(), nonce, raw, max_fee: fee })
    }
}

/// Of three endpoints the one whose fault a seed decides; or one alone that has none.
fn doors(chain: &Arc<Simulated>, seed: u64) -> Endpoints<Door> {
    let faulty = [Manner::Honest, Manner::Behind(4), Manner::Forked, Manner::Lying][(seed % 4) as usize];
    let manners = if seed.is_multiple_of(8) { vec![Manner::Honest] } else { vec![faulty, Manner::Honest, Manner::Honest] };
    Endpoints::new(manners.into_iter().map(|manner| Door { chain: Arc::clone(chain), manner }).collect())
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
