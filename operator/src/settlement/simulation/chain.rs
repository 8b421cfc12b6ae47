//! What is on the simulated chain, by the contract's rules: a row is a total, a lane that was credited takes no other row until its
//! window is over, and while a case about it is open it takes what comes in. A block is a unit of time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use supercargo_market::work::FundingId;

/// A lane that was credited is closed for so many blocks, and a case lapses after so many.
pub(super) const WINDOW: usize = 2;
const CASE: usize = 9;

#[derive(Clone)]
pub(super) struct Transaction {
    pub(super) hash: String,
    /// Which of our keys sends it, with which nonce; a claim or a dispute has another sender.
    pub(super) sender: Option<(u32, u64)>,
    pub(super) fee: u128,
    pub(super) funding: FundingId,
    pub(super) rows: Vec<(u32, u64)>,
    /// It is the payer's word against the lanes of these rows.
    pub(super) disputes: bool,
}

/// A transaction in a block, and what came of it.
#[derive(Clone)]
pub(super) struct Mined {
    pub(super) transaction: Transaction,
    pub(super) succeeded: bool,
    pub(super) skipped: Vec<usize>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lane {
    pub(super) posted: u64,
    mature: u64,
    /// When the last credit came; of a case, a window before it lapses.
    since: usize,
    lapses_at: usize,
}

impl Lane {
    /// Whether a row would be credited in this block.
    pub(super) fn takes(&self, block: usize) -> bool {
        self.mature == self.posted || block < self.since || block >= self.since + WINDOW
    }

    /// Whether the row was skipped.
    fn credit(&mut self, total: u64, block: usize) -> bool {
        if total <= self.posted {
            return false;
        }
        if !self.takes(block) {
            return true;
        }
        let joins_the_case = self.mature < self.posted && block < self.since;
        if !joins_the_case {
            (self.mature, self.since) = (self.posted, block);
        }
        self.posted = total;
        false
    }

    fn dispute(&mut self, block: usize) {
        let matures = self.mature < self.posted && block < self.since + WINDOW;
        if matures && block >= self.lapses_at {
            self.lapses_at = block + CASE;
            self.since = self.lapses_at - WINDOW;
        }
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) known: HashMap<Vec<u8>, Transaction>,
    pub(super) waiting: Vec<Transaction>,
    pub(super) blocks: Vec<Vec<Mined>>,
    pub(super) faults: bool,
    /// What is final may be undone, too.
    pub(super) deep: bool,
    /// The settler's key, by its number, and those of which the books know that somebody else has them.
    pub(super) key: u32,
    pub(super) lent: BTreeSet<u32>,
    /// What a block wants for gas.
    pub(super) fee: u128,
    /// Nothing leaves this account until this block.
    pub(super) frozen: Option<(FundingId, usize)>,
    /// The operator dies in this look.
    pub(super) dies: bool,
    /// How many rows were skipped, transactions failed, lanes disputed and posts refused.
    pub(super) shown: Shown,
}

/// How often the chain did not do what it was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shown {
    pub(super) skipped: u64,
    pub(super) failed: u64,
    pub(super) disputes: u64,
    pub(super) refused: u64,
}

impl State {
    /// The next one of the settler's key.
    pub(super) fn nonce(&self, blocks: usize) -> u64 {
        let ours = |mined: &&Mined| mined.transaction.sender.is_some_and(|(key, _)| key == self.key);
        self.blocks[..blocks].iter().flatten().filter(ours).count() as u64
    }

    pub(super) fn is_frozen(&self, funding: &FundingId, block: usize) -> bool {
        self.frozen.as_ref().is_some_and(|(frozen, until)| frozen == funding && block < *until)
    }

    /// The lanes after so many blocks.
    pub(super) fn lanes(&self, blocks: usize) -> BTreeMap<(FundingId, u32), Lane> {
        let mut lanes = BTreeMap::new();
        for (block, mined) in self.blocks[..blocks.min(self.blocks.len())].iter().enumerate() {
            for mined in mined.iter().filter(|mined| mined.succeeded) {
                apply(&mined.transaction, &mut lanes, block);
            }
        }
        lanes
    }

    /// What they were credited.
    pub(super) fn credited(&self, blocks: usize) -> BTreeMap<(FundingId, u32), u64> {
        self.lanes(blocks).into_iter().map(|(lane, state)| (lane, state.posted)).collect()
    }

    /// A block with these. Where nothing may leave, or gas runs out, a transaction fails and its nonce is used all the same.
    pub(super) fn mine(&mut self, transactions: Vec<Transaction>, fails: bool) {
        let block = self.blocks.len();
        let mut lanes = self.lanes(block);
        let mut mined = Vec::new();
        for transaction in transactions {
            let ours = transaction.sender.is_some();
            let succeeded = transaction.disputes || !(self.is_frozen(&transaction.funding, block) || (fails && ours));
            let skipped = if succeeded { apply(&transaction, &mut lanes, block) } else { Vec::new() };
            self.shown.skipped += if ours { skipped.len() as u64 } else { 0 };
            self.shown.failed += u64::from(ours && !succeeded);
            self.shown.disputes += u64::from(transaction.disputes);
            mined.push(Mined { transaction, succeeded, skipped });
        }
        self.blocks.push(mined);
    }
}

/// Gives back the rows that were skipped.
fn apply(transaction: &Transaction, lanes: &mut BTreeMap<(FundingId, u32), Lane>, block: usize) -> Vec<usize> {
    let mut skipped = Vec::new();
    for (index, (payee, total)) in transaction.rows.iter().enumerate() {
        let lane = lanes.entry((transaction.funding.clone(), *payee)).or_default();
        if transaction.disputes {
            lane.dispute(block);
        } else if lane.credit(*total, block) {
            skipped.push(index);
        }
    }
    skipped
}
