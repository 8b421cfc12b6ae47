//! What can be written into the books.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use supercargo_market::asset::Asset;
use supercargo_market::fees::{FeeSchedule, Payee};
use supercargo_market::metering::Evidence;
use supercargo_market::money::Amount;
use supercargo_market::rate_card::RateCard;
use supercargo_market::rating::ExactCost;
use supercargo_market::receipt::Metered;
use supercargo_market::work::{FundingId, SegmentId, WorkId};

/// One change of the books. Each can be committed any number of times and counts once.
#[derive(Debug, Clone, PartialEq)]
pub enum Posting {
    /// What a funding has received and given back in all. When that is less than what is held back and charged already, the
    /// rest is its shortfall: nothing more is held back, and what comes in or is given back covers it first.
    Fund {
        funding: FundingId,
        asset: Asset,
        deposited: Amount,
        withdrawn: Amount,
    },
    /// Hold back so much for a work from now on, with what the operator needs to find its pods again. A second one for
    /// an open reservation changes the amount and the detail.
    Reserve {
        work: WorkId,
        funding: FundingId,
        /// What it is priced in: only money of that kind can be held back for it.
        asset: Asset,
        /// For itself and for all that is below it.
        amount: Amount,
        detail: String,
        /// Whose it is a part of, for ever: it draws on what is held back for that one, and not on the funding.
        parent: Option<WorkId>,
    },
    Charge(Charge),
    /// Keep a rate card: receipts show those that charges were made by.
    Card(Arc<RateCard>),
    /// Hold nothing back for a work any more.
    Release {
        work: WorkId,
    },
    /// What the chain says of an account's cases, as totals: all lanes that have any. It moves no money: what comes back and
    /// what is paid for them shows in what the account has.
    Cases {
        funding: FundingId,
        lanes: Vec<LaneCases>,
    },
    /// What works that run have used by then, of what is held back for them. It moves no money: a charge takes its place when
    /// the attempt is over, and until then it only grows.
    Hold {
        at: i64,
        works: Vec<(WorkId, Amount)>,
    },
}

/// What disputes and refunds have come to for one lane, in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneCases {
    pub payee: Payee,
    /// Credited to the payee once, and back in the account: by cuts of the arbiter and by refunds.
    pub clawback: Amount,
    /// What the cases have cost the account.
    pub fees: Amount,
}

/// A segment of use, and what it costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    pub work: WorkId,
    pub attempt: u32,
    pub segment: SegmentId,
    /// Billed ones.
    pub seconds: u64,
    pub evidence: Evidence,
    /// Whose record it counts for, and whether it ended by a fault of that place.
    pub place: String,
    pub fault: bool,
    pub cost: ExactCost,
    /// Whom an account on a chain pays, and the fee out of it. A grant pays nobody on a chain.
    pub payee: Option<Payee>,
    pub fees: FeeSchedule,
    /// All that the cost follows from, for the receipt.
    pub metered: Option<Box<Metered>>,
    /// The day of UTC that it counts on, from 1970.
    pub day: i64,
}

impl Charge {
    /// Of the billed seconds those that it ran.
    pub fn served_seconds(&self) -> u64 {
        self.seconds.saturating_sub(self.metered.as_ref().map_or(0, |metered| metered.added_seconds))
    }
}

/// What became of a posting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    /// It had been applied before, and nothing was changed.
    Already,
    /// It would break a rule; in words. Nothing of it was applied.
    Refused(String),
}

/// A posting as the journal keeps it.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", tag = "posting")]
pub enum Line {
    Fund {
        funding: String,
        asset: Asset,
        deposited: u64,
        withdrawn: u64,
        #[serde(default, skip_serializing_if = "is_zero")]
        shortfall: u64,
    },
    Reserve {
        work: String,
        funding: String,
        amount: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
    },
    Charge {
        work: String,
        segment: String,
        attempt: u32,
        seconds: u64,
        evidence: Evidence,
        amount: u64,
        #[serde(default, skip_serializing_if = "is_zero")]
        absorbed: u64,
        /// Of what was metered, as much of its digest as tells it apart.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metered: Option<String>,
    },
    Card {
        card: String,
    },
    Release {
        work: String,
        returned: u64,
    },
    /// What of the account's credits came back in all and what its cases have cost, and of which payees: each with both.
    Cases {
        funding: String,
        returned: u64,
        case_fees: u64,
        clawback: Vec<(Payee, u64, u64)>,
    },
    /// So many works have used so much more.
    Hold {
        asset: Asset,
        at: i64,
        works: u64,
        more: u64,
    },
    Plan {
        post: String,
        funding: String,
        amount: u64,
    },
    Final {
        post: String,
        funding: String,
        amount: u64,
        transaction: String,
        block: u64,
    },
    Void {
        post: String,
        funding: String,
    },
    /// Bytes that these books don't know have used the nonce of a post for good.
    ForeignNonce {
        post: String,
        chain: String,
        signer: String,
        nonce: u64,
    },
    /// It was final, and the chain undid it.
    Undone {
        post: String,
        funding: String,
        amount: u64,
    },
}

fn is_zero(units: &u64) -> bool {
    *units == 0
}
