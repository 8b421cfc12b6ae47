//! A chain that fails at every step, seen through three endpoints of which one lies or is behind, with the real books:
//! whatever happens, each lane ends at what is owed, and is credited no unit twice.

use super::SettlementError;
use super::agree::Terms;
use super::outbox;
use super::rail::{Endpoints, Included, Node, Pen, Price, Seen};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use supercargo_contracts::{Finality, keccak256};
use supercargo_ledger::{Attempt, Charge, Fence, Ledger, Post, Posting};
use supercargo_market::fees::{FeeSchedule, FeeShare};
use supercargo_market::metering::Evidence;
use supercargo_market::money::Amount;
use supercargo_market::rating::{self, Held};
use supercargo_market::work::{FundingId, SegmentId, WorkId};

/// Runs in `make test`; the long set takes its number from the environment.
const RUNS: u64 = 300;
/// A block is final when so many are above it.
const DEPTH: usize = 2;

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
    nonce: u64,
    funding: FundingId,
    rows: Vec<(u32, u64)>,
}

#[derive(Default)]
struct State {
    known: HashMap<Vec<u8>, Transaction>,
    waiting: Vec<Transaction>,
    blocks: Vec<Vec<Transaction>>,
    faults: bool,
}

impl State {
    fn nonce(&self, blocks: usize) -> u64 {
        self.blocks[..blocks].iter().flatten().count() as u64
    }

    /// What the contract has credited, replayed from the blocks: a row is a total.
    fn lanes(&self) -> BTreeMap<(FundingId, u32), u64> {
        let mut lanes = BTreeMap::new();
        for transaction in self.blocks.iter().flatten() {
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

    /// A block is made; or undone, with what was in it lost or waiting again; or the mempool is dropped.
    fn live(&self) {
        let roll = self.dice.lock().expect("one thread").roll(10);
        let keep = self.dice.lock().expect("one thread").roll(2) == 0;
        let mut state = self.state.lock().expect("one thread");
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
        let next = state.nonce(state.blocks.len());
        let at = state.waiting.iter().position(|transaction| transaction.nonce == next);
        let block = at.map(|at| vec![state.waiting.remove(at)]).unwrap_or_default();
        state.waiting.retain(|transaction| transaction.nonce > next || (transaction.nonce == next && block.is_empty()));
        state.blocks.push(block);
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

    async fn last_final(&self) -> Result<Option<Finality>, SettlementError> {
        self.chain.may_fail("asking for finality")?;
        let ahead = if self.manner == Manner::Forked { 3 } else { 0 };
        Ok(Some(self.named((self.seen() + ahead).saturating_sub(DEPTH) as u64)))
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

    async fn window_is_closed(&self, _: &Post) -> Result<bool, SettlementError> {
        Ok(!self.lies() && !self.chain.chance(5))
    }

    async fn price(&self, _: &Post) -> Result<Price, SettlementError> {
        self.chain.may_fail("asking for fees")?;
        if self.lies() {
            return Err(SettlementError::Refused("a lie".to_owned()));
        }
        let max_fee_wei = if self.lies() { u128::MAX } else { 0 };
        Ok(Price { gas: 1, max_fee_wei, priority_fee_wei: 0 })
    }

    async fn gas_balance_wei(&self) -> Result<u128, SettlementError> {
        Ok(if self.lies() { 0 } else { u128::MAX / 2 })
    }

    async fn send(&self, raw: &[u8]) -> Result<(), SettlementError> {
        self.chain.may_fail("sending")?;
        if self.lies() {
            // It takes the bytes, and nobody ever sees them.
            return Ok(());
        }
        {
            let mut state = self.chain.state.lock().expect("one thread");
            let transaction = state.known[raw].clone();
            let used = state.nonce(state.blocks.len()) > transaction.nonce;
            if !used && !state.waiting.iter().any(|waiting| waiting.hash == transaction.hash) {
                state.waiting.push(transaction);
            }
        }
        // It arrived, and the answer did not.
        self.chain.may_fail("the answer")
    }
}

impl Pen for Arc<Simulated> {
    fn signer(&self) -> String {
        "simulated".to_owned()
    }

    fn sign(&self, post: &Post, nonce: u64, price: Price) -> Result<Attempt, SettlementError> {
        let (id, fee) = (&post.id, price.max_fee_wei);
        let raw = format!("{id} {nonce} {fee}").into_bytes();
        let hash = format!("hash of {id} {nonce} {fee}");
        let transaction = Transaction { hash: hash.clone(), nonce, funding: post.funding.clone(), rows: post.rows.clone() };
        self.state.lock().expect("one thread").known.insert(raw.clone(), transaction);
        Ok(Attempt { hash, signer: self.signer(), nonce, raw, max_fee: fee })
    }
}

/// Of three endpoints the one whose fault a seed decides; or one alone that has none.
fn doors(chain: &Arc<Simulated>, seed: u64) -> Endpoints<Door> {
    let faulty = [Manner::Honest, Manner::Behind(4), Manner::Forked, Manner::Lying][(seed % 4) as usize];
    let manners = if seed.is_multiple_of(8) { vec![Manner::Honest] } else { vec![faulty, Manner::Honest, Manner::Honest] };
    Endpoints::new(manners.into_iter().map(|manner| Door { chain: Arc::clone(chain), manner }).collect())
}

/// One look, and one step of what is planned. What fails is tried again at the next.
async fn look(ledger: &Ledger, fence: Fence, chain: &Arc<Simulated>, endpoints: &Endpoints<Door>, clock: i64) {
    for number in 0..2 {
        let _ = outbox::plan(ledger, fence, &account(number), Amount::from_units(1), Amount::MAX, clock).await;
    }
    let Ok(agreed) = endpoints.look(Terms { chain_id: 1, now: 0, oldest_seconds: 0 }).await else { return };
    let seen = Seen { endpoints, agreed: &agreed, pen: chain };
    let _ = outbox::advance(ledger, fence, &seen, "c", &BTreeSet::new(), clock).await;
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
            asset: "USDC".into(),
            deposited: Amount::from_units(1_000_000),
            withdrawn: Amount::ZERO,
        };
        let reserve =
            Posting::Reserve { work: WorkId::task(number.to_string()), funding, amount: Amount::from_units(500_000), detail: "{}".into() };
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
    })
}

/// Lanes that were credited another sum than what is owed.
#[derive(Default)]
struct Wrong {
    doubled: Vec<String>,
    lost: Vec<String>,
}

async fn run(seed: u64, wrong: &mut Wrong) {
    let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
    let mut fence = ledger.take_lead("first").await.expect("leads");
    open(&ledger, fence).await;
    let state = Mutex::new(State { faults: true, ..State::default() });
    let chain = Arc::new(Simulated { state, dice: Mutex::new(Dice(seed * 2 + 1)) });
    let endpoints = doors(&chain, seed);
    let mut charges = 0;
    for now in 0..1_000_i64 {
        let faults = now < 60;
        chain.state.lock().expect("one thread").faults = faults;
        let roll = chain.dice.lock().expect("one thread").roll(6);
        if faults && roll < 3 && charges < 30 {
            charges += 1;
            ledger.commit(fence, &[charge(u64::from(charges % 2), charges, 100 + u64::from(charges))]).await.expect("commits");
        }
        if faults && roll == 5 {
            // The operator dies and another takes the lead: nothing is remembered but the books.
            fence = ledger.take_lead("next").await.expect("leads");
        }
        // Time goes fast enough that replacements happen.
        look(&ledger, fence, &chain, &endpoints, now * 25).await;
        chain.live();
        if !faults && settled(&ledger).await {
            break;
        }
    }
    assert!(settled(&ledger).await, "seed {seed}: faults stopped, and not all was settled");
    let lanes = chain.state.lock().expect("one thread").lanes();
    for number in 0..2 {
        for lane in ledger.lanes(&account(number)).await.expect("reads") {
            let credited = lanes.get(&(account(number), lane.payee)).copied().unwrap_or_default();
            let words = || format!("seed {seed}: lane {} of account {number} has {credited} of {}", lane.payee, lane.total.units());
            match credited.cmp(&lane.total.units()) {
                Ordering::Greater => wrong.doubled.push(words()),
                Ordering::Less => wrong.lost.push(words()),
                Ordering::Equal => {}
            }
        }
    }
    ledger.verify().await.expect("the journal is whole");
}

async fn settled(ledger: &Ledger) -> bool {
    for number in 0..2 {
        let balance = ledger.funding(&account(number)).await.expect("reads").expect("known");
        if !balance.owed.is_zero() {
            return false;
        }
    }
    ledger.open_posts().await.expect("reads").is_empty()
}

#[tokio::test]
async fn histories_of_crashes_and_reorganisations_pay_everything_once() {
    let asked = std::env::var("SUPERCARGO_CRASH_RUNS").ok().and_then(|text| text.parse().ok());
    let (runs, mut wrong) = (asked.unwrap_or(RUNS), Wrong::default());
    for seed in 1..=runs {
        run(seed, &mut wrong).await;
    }
    if asked.is_some() {
        println!("figure settlement.crash_runs {runs} runs");
        println!("figure settlement.double_paid {} payouts", wrong.doubled.len());
        println!("figure settlement.lost {} payouts", wrong.lost.len());
    }
    let all = [wrong.doubled, wrong.lost].concat();
    assert!(all.is_empty(), "of {runs} runs: {all:#?}");
}
