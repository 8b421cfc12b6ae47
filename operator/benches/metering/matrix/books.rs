//! The books of a play: the real ledger, and what was truly written there first of each container.

use std::collections::BTreeMap;
use supercargo_ledger::{Charge, Fence, Ledger, LedgerError, Posting};
use supercargo_market::money::Amount;
use supercargo_market::rating::ExactCost;
use supercargo_market::work::WorkId;
use supercargo_operator::effect;
use supercargo_planner::plan::Booking;
use supercargo_planner::world::Event;

pub struct Books {
    pub ledger: Ledger,
    /// The first charge of each segment that was committed, by the pod's UID.
    pub charges: BTreeMap<String, Charge>,
    /// Writes that the books refused to somebody who no longer led.
    pub fenced: usize,
}

/// What the books took of a work against what its segments cost, each counted once.
pub struct Sum {
    pub due: Amount,
    pub taken: Amount,
    pub absorbed: Amount,
}

impl Books {
    pub async fn open() -> Self {
        let ledger = Ledger::open("sqlite::memory:").await.expect("books in memory");
        Self { ledger, charges: BTreeMap::new(), fenced: 0 }
    }

    /// As the operator does it, and noted when it is done.
    pub async fn book(&mut self, fence: Fence, bookings: Vec<Booking>) -> Result<Vec<Event>, LedgerError> {
        let charges: Vec<Charge> = bookings.iter().filter_map(charge).cloned().collect();
        let events = effect::book(&self.ledger, fence, bookings, &mut Vec::new()).await;
        match &events {
            Ok(_) => charges.into_iter().for_each(|charge| _ = self.charges.entry(charge.segment.subject.clone()).or_insert(charge)),
            Err(LedgerError::Fenced { .. }) => self.fenced += 1,
            Err(error) => unreachable!("books in memory: {error}"),
        }
        events
    }

    pub async fn sums(&self) -> BTreeMap<WorkId, Sum> {
        let mut exact: BTreeMap<WorkId, ExactCost> = BTreeMap::new();
        for charge in self.charges.values() {
            let sum = exact.entry(charge.work.clone()).or_default();
            *sum = sum.checked_add(charge.cost).expect("fits");
        }
        let mut sums = BTreeMap::new();
        for (work, due) in exact {
            let balance = self.ledger.work(&work).await.expect("can be read");
            sums.insert(work, Sum { due: due.charged().expect("fits"), taken: balance.charged, absorbed: balance.absorbed });
        }
        sums
    }
}

fn charge(booking: &Booking) -> Option<&Charge> {
    match booking {
        Booking::Post(Posting::Charge(charge)) => Some(charge),
        _ => None,
    }
}
