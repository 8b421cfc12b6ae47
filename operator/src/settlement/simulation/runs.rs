//! The runs: an operator that dies, payees that claim, books that are lost, and what each lane has at the end of it.

use super::super::agree::Terms;
use super::super::rail::{Endpoints, Pen, Seen};
use super::super::recheck::{Rechecked, recheck};
use super::super::steps::{self, Steps};
use super::super::untold::Untold;
use super::super::{follow, outbox};
use super::chain::{Shown, State, Transaction};
use super::doors::{Door, doors};
use super::fuse::Fuse;
use super::{BLOCK_SECONDS, CALM_FEE, Dice, Simulated, account, charge, open};
use crate::settlement::SettlementError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use supercargo_ledger::{Expect, Fence, Lane, Ledger, LedgerError, Reader, Voucher, VoucherTerms, restore};
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

/// Runs in `make test`; the long set takes its number from the environment.
const RUNS: u64 = 300;
/// For each processor: a run mostly waits for its books.
const AT_ONCE: usize = 2;

/// In the middle of something, of which nothing goes on.
struct Died;

/// What came of a step, unless the operator died in it. What else fails is tried again at the next look.
async fn survives<T: Default, E: Into<SettlementError>>(chain: &Simulated, step: Result<T, E>) -> Result<T, Died> {
    let step = step.map_err(Into::into);
    if matches!(step, Err(SettlementError::Ledger(_))) || chain.is_dead().await {
        return Err(Died);
    }
    Ok(step.unwrap_or_default())
}

/// An operator in one look: it plans whatever is owed, and looks at final posts now and then.
struct Turn<'a> {
    ledger: &'a Ledger,
    fence: Fence,
    seen: &'a Seen<'a, Door, Arc<Simulated>>,
    foreign: &'a BTreeSet<FundingId>,
    now: i64,
    rechecked: &'a mut Rechecked,
}

impl Steps for Turn<'_> {
    async fn recheck(&mut self) -> Result<Option<SettlementError>, SettlementError> {
        if self.now % 4 != 0 {
            return Ok(None);
        }
        let (Rechecked { sent, undone }, kept) =
            recheck(self.ledger, self.fence, self.seen, "c", &mut Untold::default(), self.now * BLOCK_SECONDS).await?;
        *self.rechecked = Rechecked { sent: self.rechecked.sent + sent, undone: self.rechecked.undone + undone };
        Ok(kept)
    }

    async fn pay(&mut self) -> Result<Option<SettlementError>, SettlementError> {
        let clock = self.now * BLOCK_SECONDS;
        Ok(outbox::advance(self.ledger, self.fence, self.seen, "c", self.foreign, clock).await?.failed)
    }

    async fn plan(&mut self) -> Result<bool, SettlementError> {
        for number in (0..2).filter(|number| !self.foreign.contains(&account(*number))) {
            self.ledger.plan_post(self.fence, &account(number), self.now * BLOCK_SECONDS).await?;
        }
        Ok(true)
    }
}

/// One look, with its steps in the order of a desk's; the payees sign for nothing and claim what they were given. What fails is
/// tried again at the next look. Gives back the accounts of which the chain has more than the books.
async fn look(
    ledger: &Ledger,
    fence: Fence,
    chain: &Arc<Simulated>,
    endpoints: &Endpoints<Door>,
    now: i64,
    rechecked: &mut Rechecked,
) -> Result<BTreeSet<FundingId>, Died> {
    let Ok(agreed) = endpoints.look(Terms { chain_id: 1, now: 0, oldest_seconds: 0 }).await else { return Ok(BTreeSet::new()) };
    let foreign = stalled(ledger, chain, agreed.block.number as usize).await;
    let seen = Seen { endpoints, agreed: &agreed, pen: chain };
    let taken = steps::take(&mut Turn { ledger, fence, seen: &seen, foreign: &foreign, now, rechecked }).await;
    survives(chain, taken).await?;
    if now % 3 == 0 {
        survives(chain, vouch(ledger, fence, &foreign, chain.signer()).await).await?;
    }
    Ok(foreign)
}

/// The accounts of which so many blocks have more than these books, by the rule that accounts are followed by.
async fn stalled(ledger: &Ledger, chain: &Arc<Simulated>, blocks: usize) -> BTreeSet<FundingId> {
    let credited = chain.state.lock().expect("one thread").credited(blocks);
    let mut stalled = BTreeSet::new();
    for number in 0..2 {
        let vouched = ledger.vouched(&account(number)).await.expect("reads");
        for lane in ledger.lanes(&account(number)).await.expect("reads") {
            let has = credited.get(&(account(number), lane.payee)).copied().unwrap_or_default();
            let stall = follow::other_ledger(&lane, vouched.get(&lane.payee).copied().unwrap_or_default(), has.into());
            if let Some(stall) = stall {
                assert!(stall.words.contains("another ledger posted, or this one is an old backup"), "{}", stall.words);
                stalled.insert(account(number));
            }
        }
    }
    stalled
}

/// Keeps vouchers for all that is owed: what their signatures are is nothing to this chain.
async fn vouch(ledger: &Ledger, fence: Fence, foreign: &BTreeSet<FundingId>, signer: String) -> Result<(), LedgerError> {
    let terms = VoucherTerms { chain_id: 1, contract: "0xc".into(), signer };
    let lanes = ledger.lanes_without_voucher("c", &terms, None, 100).await.expect("reads");
    let lanes = lanes.into_iter().filter(|(funding, _)| !foreign.contains(funding));
    let voucher = |(funding, lane): (FundingId, Lane)| Voucher {
        funding,
        payee: lane.payee,
        total: lane.total,
        step: Amount::MAX,
        terms: terms.clone(),
        signature: Vec::new(),
        signed_at: 0,
    };
    ledger.keep_vouchers(fence, &lanes.map(voucher).collect::<Vec<_>>()).await.map(drop)
}

/// A payee takes its vouchers, or claims with what it took. What an operator with old books has is less, and changes nothing.
async fn claim(ledger: &Ledger, chain: &Arc<Simulated>, taken: &mut BTreeMap<(FundingId, u32), u64>) {
    let payee = if chain.dice.lock().expect("one thread").roll(2) == 0 { 7 } else { 1 };
    for voucher in ledger.vouchers("c", payee, &FundingId::from_stored(""), 10).await.expect("reads") {
        let kept = taken.entry((voucher.funding, payee)).or_default();
        *kept = (*kept).max(voucher.total.units());
    }
    let count = chain.dice.lock().expect("one thread").roll(1 << 30);
    let mut state = chain.state.lock().expect("one thread");
    for ((funding, payee), total) in taken.iter().filter(|((_, whose), _)| *whose == payee) {
        let hash = format!("claim {count} of {payee} from {funding}");
        state.waiting.push(Transaction {
            hash,
            sender: None,
            fee: 0,
            funding: funding.clone(),
            rows: vec![(*payee, *total)],
            disputes: false,
        });
    }
}

/// A person gives the settler another key some looks after it was told that somebody else has the one in use.
async fn mend(ledger: &Ledger, chain: &Arc<Simulated>, looks: &mut u32) {
    if ledger.foreign_nonce("c", &chain.signer()).await.expect("reads").is_none() {
        return;
    }
    {
        let mut state = chain.state.lock().expect("one thread");
        let key = state.key;
        state.lent.insert(key);
    }
    *looks += 1;
    if looks.is_multiple_of(5) {
        chain.rotate();
    }
}

/// Lanes that were credited another sum than what is owed.
#[derive(Default)]
struct Wrong {
    doubled: Vec<String>,
    lost: Vec<String>,
    /// Accounts that books which were restored are too old for, and what became of posts that were final.
    stalled: u64,
    rechecked: Rechecked,
    /// Runs in which the settler's key was used by somebody else.
    intruded: u64,
    /// How often an operator died in the middle of a look.
    deaths: u64,
    shown: Shown,
}

impl Wrong {
    fn count(&mut self, Shown { skipped, failed, disputes, refused }: Shown) {
        self.shown.skipped += skipped;
        self.shown.failed += failed;
        self.shown.disputes += disputes;
        self.shown.refused += refused;
    }

    fn with(mut self, other: Self) -> Self {
        self.doubled.extend(other.doubled);
        self.lost.extend(other.lost);
        self.stalled += other.stalled;
        self.rechecked.sent += other.rechecked.sent;
        self.rechecked.undone += other.rechecked.undone;
        self.intruded += other.intruded;
        self.deaths += other.deaths;
        self.count(other.shown);
        self
    }
}

/// What becomes of the books in a run.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Kept,
    /// They are restored as they were a while ago; what was charged since is charged again, or lost with them.
    Restored {
        again: bool,
    },
}

/// The books of one run, and their copies.
struct Shelf {
    folder: tempfile::TempDir,
    /// They are in memory, under this name: whoever dies leaves them there all the same.
    name: Option<String>,
    books: u32,
    copy: Option<(Vec<u8>, u32)>,
}

impl Shelf {
    fn url(&self) -> String {
        if let Some(name) = &self.name {
            return format!("sqlite:file:{name}?mode=memory&cache=shared");
        }
        format!("sqlite://{}", self.folder.path().join(format!("books{}.db", self.books)).display())
    }

    async fn copies(&mut self, charges: u32) {
        let mut copy = Vec::new();
        Reader::open(&self.url()).await.expect("opens").backup(&mut copy).await.expect("copies");
        self.copy = Some((copy, charges));
    }

    /// Other books with what the copy has, and how many charges that is.
    async fn restores(&mut self) -> Option<(Ledger, u32)> {
        let (copy, charges) = self.copy.take()?;
        self.books += 1;
        restore(&self.url(), None, copy.as_slice(), Expect::default()).await.expect("restores");
        Some((Ledger::open(&self.url()).await.expect("opens"), charges))
    }
}

fn seconds(charge: u32) -> u64 {
    100 + u64::from(charge)
}

async fn commits(ledger: &Ledger, fence: Fence, number: u32) {
    ledger.commit(fence, &[charge(u64::from(number % 2), number, seconds(number))]).await.expect("commits");
}

async fn run(seed: u64, wrong: &mut Wrong) {
    let fate = match seed % 10 {
        3 => Fate::Restored { again: true },
        6 => Fate::Restored { again: false },
        _ => Fate::Kept,
    };
    let name = (fate == Fate::Kept).then(|| format!("books-of-run-{seed}"));
    let mut shelf = Shelf { folder: tempfile::tempdir().expect("a folder"), name, books: 0, copy: None };
    let mut ledger = Ledger::open(&shelf.url()).await.expect("opens");
    let mut fence = ledger.take_lead("first").await.expect("leads");
    open(&ledger, fence).await;
    let state = Mutex::new(State { faults: true, deep: seed.is_multiple_of(5), fee: CALM_FEE, ..State::default() });
    let fuse = tokio::sync::Mutex::new(Fuse::of(&shelf.url()).await);
    let chain = Arc::new(Simulated { state, dice: Mutex::new(Dice(seed * 2 + 1)), fuse });
    let endpoints = doors(&chain, seed);
    let (mut charges, mut taken, mut lent) = (0, BTreeMap::new(), 0);
    let intruder = seed % 6 == 5;
    for now in 0..1_000_i64 {
        let faults = now < 60;
        chain.state.lock().expect("one thread").faults = faults;
        let roll = chain.dice.lock().expect("one thread").roll(6);
        if faults && roll < 3 && charges < 30 {
            charges += 1;
            commits(&ledger, fence, charges).await;
        }
        if faults && roll == 4 {
            claim(&ledger, &chain, &mut taken).await;
            chain.oppose(now.unsigned_abs());
        }
        if faults && roll == 5 {
            // The operator dies and another takes the lead: nothing is remembered but the books.
            fence = ledger.take_lead("next").await.expect("leads");
        }
        if faults && intruder && roll == 3 {
            chain.intrude(now.unsigned_abs());
        }
        if fate != Fate::Kept && now == 20 {
            shelf.copies(charges).await;
        }
        if now == 40
            && let Some((restored, known)) = shelf.restores().await
        {
            ledger = restored;
            *chain.fuse.lock().await = Fuse::of(&shelf.url()).await;
            chain.state.lock().expect("one thread").lent.clear();
            fence = ledger.take_lead("after the fire").await.expect("leads");
            for number in (known + 1..=charges).filter(|_| fate == Fate::Restored { again: true }) {
                commits(&ledger, fence, number).await;
            }
        }
        let fuse = Some(chain.dice.lock().expect("one thread").roll(60)).filter(|rows| faults && *rows < 20);
        chain.lay(fuse).await;
        let looked = look(&ledger, fence, &chain, &endpoints, now, &mut wrong.rechecked).await;
        chain.lay(None).await;
        if looked.is_err() {
            wrong.deaths += 1;
            drop(ledger);
            ledger = Ledger::open(&shelf.url()).await.expect("opens");
            fence = ledger.take_lead("next").await.expect("leads");
        }
        let foreign = looked.unwrap_or_default();
        mend(&ledger, &chain, &mut lent).await;
        chain.live();
        if !faults && settled(&ledger, &foreign).await && paid(&ledger, &chain, &foreign).await.is_empty() {
            break;
        }
    }
    assert!(lent == 0 || intruder || fate != Fate::Kept, "seed {seed}: nobody else ever had the key");
    wrong.intruded += u64::from(lent > 0 && intruder);
    wrong.count(chain.state.lock().expect("one thread").shown);
    judge(seed, fate, &ledger, &chain, charges, wrong).await;
}

/// What each lane has when all is over.
async fn judge(seed: u64, fate: Fate, ledger: &Ledger, chain: &Arc<Simulated>, charges: u32, wrong: &mut Wrong) {
    let everything = chain.state.lock().expect("one thread").blocks.len();
    let foreign = stalled(ledger, chain, everything).await;
    assert!(fate != Fate::Kept || foreign.is_empty(), "seed {seed}: nobody else ever posted, and {foreign:?} are stalled");
    wrong.stalled += foreign.len() as u64;
    assert!(settled(ledger, &foreign).await, "seed {seed}: faults stopped, and not all was settled");
    wrong.lost.extend(paid(ledger, chain, &foreign).await.iter().map(|words| format!("seed {seed}: {words}")));
    let credited = chain.state.lock().expect("one thread").credited(everything);
    for number in 0..2_u64 {
        for lane in ledger.lanes(&account(number)).await.expect("reads").iter().filter(|_| !foreign.contains(&account(number))) {
            let has = credited.get(&(account(number), lane.payee)).copied().unwrap_or_default();
            if has > lane.total.units() {
                wrong.doubled.push(format!("seed {seed}: lane {} of account {number} has {has} of {}", lane.payee, lane.total.units()));
            }
        }
        // Whatever books there were: each charge was made once.
        let made: u64 = (1..=charges).filter(|charge| u64::from(charge % 2) == number).map(seconds).sum();
        let has: u64 = credited.iter().filter(|((funding, _), _)| *funding == account(number)).map(|(_, units)| units).sum();
        if has > made {
            wrong.doubled.push(format!("seed {seed}: account {number} paid {has} for work of {made}"));
        }
    }
    ledger.verify().await.expect("the journal is whole");
}

/// Lanes of accounts that go on which don't have what they are owed.
async fn paid(ledger: &Ledger, chain: &Arc<Simulated>, foreign: &BTreeSet<FundingId>) -> Vec<String> {
    let lanes = {
        let state = chain.state.lock().expect("one thread");
        state.credited(state.blocks.len())
    };
    let mut less = Vec::new();
    for number in (0..2).filter(|number| !foreign.contains(&account(*number))) {
        for lane in ledger.lanes(&account(number)).await.expect("reads") {
            let credited = lanes.get(&(account(number), lane.payee)).copied().unwrap_or_default();
            if credited < lane.total.units() {
                less.push(format!("lane {} of account {number} has {credited} of {}", lane.payee, lane.total.units()));
            }
        }
    }
    less
}

async fn settled(ledger: &Ledger, foreign: &BTreeSet<FundingId>) -> bool {
    for number in (0..2).filter(|number| !foreign.contains(&account(*number))) {
        let balance = ledger.funding(&account(number)).await.expect("reads").expect("known");
        if !balance.owed.is_zero() {
            return false;
        }
    }
    ledger.open_posts().await.expect("reads").iter().all(|post| foreign.contains(&post.funding))
}

/// What came of these.
fn some(seeds: impl Iterator<Item = u64>) -> Wrong {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut wrong = Wrong::default();
    seeds.for_each(|seed| runtime.block_on(run(seed, &mut wrong)));
    wrong
}

#[test]
fn histories_of_crashes_and_reorganisations_pay_everything_once() {
    let asked = std::env::var("SUPERCARGO_CRASH_RUNS").ok().and_then(|text| text.parse().ok());
    let runs = asked.unwrap_or(RUNS);
    let threads = AT_ONCE * std::thread::available_parallelism().map_or(1, usize::from);
    let wrong = std::thread::scope(|scope| {
        let all: Vec<_> = (1..=threads).map(|first| scope.spawn(move || some((first as u64..=runs).step_by(threads)))).collect();
        all.into_iter().map(|some| some.join().expect("what breaks is told by its seed")).fold(Wrong::default(), Wrong::with)
    });
    if asked.is_some() {
        println!("figure settlement.crash_runs {runs} runs");
        println!("figure settlement.double_paid {} payouts", wrong.doubled.len());
        println!("figure settlement.lost {} payouts", wrong.lost.len());
    }
    let Wrong { stalled, rechecked, intruded, deaths, shown, .. } = wrong;
    println!("{shown:?}");
    println!(
        "{deaths} operators died, {stalled} accounts and {intruded} keys stalled; of final posts {} were sent again and {} taken back",
        rechecked.sent, rechecked.undone
    );
    assert!(stalled > 0 && rechecked.sent > 0, "nothing was undone, or no books were too old: the runs show too little");
    assert!(intruded > 0 && deaths > runs, "nobody else used a key, or hardly anybody died: the runs show too little");
    let Shown { skipped, failed, disputes, refused } = shown;
    assert!([skipped, failed, disputes, refused].iter().all(|often| *often > 0), "the contract took all that it was given: {shown:?}");
    let all = [wrong.doubled, wrong.lost].concat();
    assert!(all.is_empty(), "of {runs} runs: {all:#?}");
}
