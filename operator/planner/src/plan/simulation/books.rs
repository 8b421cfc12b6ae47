//! The books of the simulated cluster, and what they tell the operator.

use super::Theatre;
use crate::world::Event;
use crate::world::records::{Placement, Reservation};
use std::collections::BTreeMap;
use supercargo_ledger::{FundingBalance, Posting, WorkBalance};
use supercargo_market::asset::Asset;
use supercargo_market::funding::{Granted, day_of};
use supercargo_market::money::Amount;
use supercargo_market::placement::Record;
use supercargo_market::work::{FundingId, WorkId};

/// What the books hold, as plainly as can be.
#[derive(Default)]
pub(super) struct Books {
    /// What is free, and what was put in and taken out.
    pub(super) funds: BTreeMap<FundingId, u64>,
    pub(super) granted: BTreeMap<FundingId, Granted>,
    pub(super) open: BTreeMap<WorkId, (FundingId, u64, Placement)>,
    pub(super) latest: BTreeMap<WorkId, Placement>,
    pub(super) charged: BTreeMap<WorkId, u64>,
    /// What works that run have used.
    pub(super) held: BTreeMap<WorkId, u64>,
    pub(super) days: BTreeMap<(FundingId, i64), u64>,
    payers: BTreeMap<WorkId, FundingId>,
    /// When what a work may use last became more while it ran.
    pub(super) raised: BTreeMap<WorkId, i64>,
    /// How many workers each attempt has.
    pub(super) workers: BTreeMap<(WorkId, u32), usize>,
    /// How often the operator's clock had jumped when an attempt got its place.
    pub(super) jumps: BTreeMap<(WorkId, u32), u64>,
    /// What was charged of each segment, in seconds.
    pub(super) segments: BTreeMap<String, u64>,
    /// Of these, what was added up to a card's minimum; and what each attempt was billed for.
    pub(super) added: BTreeMap<String, u64>,
    pub(super) billed: BTreeMap<WorkId, BTreeMap<u32, u64>>,
    pub(super) records: BTreeMap<String, Record>,
}

impl Books {
    /// What one payer's works come to.
    pub(super) fn of(&self, funding: &FundingId, all: &BTreeMap<WorkId, u64>) -> u64 {
        all.iter().filter(|(work, _)| self.payers.get(*work) == Some(funding)).map(|(_, amount)| amount).sum()
    }

    pub(super) fn reserved(&self, funding: &FundingId) -> u64 {
        self.open.values().filter(|(payer, ..)| payer == funding).map(|(_, reserved, _)| reserved).sum()
    }
}

impl Theatre {
    pub(super) fn tell_books(&mut self) {
        let works: Vec<WorkId> = self.books.latest.keys().cloned().collect();
        for work in works {
            if let (None, Some(latest)) = (self.books.open.get(&work), self.books.latest.get(&work)) {
                self.world.apply(Event::Charged { work: work.clone(), attempt: latest.attempt });
            }
            self.tell(&work);
        }
        for (place, record) in self.books.records.clone() {
            self.world.apply(Event::Record { place, record });
        }
        self.tell_funding();
    }

    fn tell(&mut self, work: &WorkId) {
        let latest = self.books.latest.get(work).cloned().map(Box::new);
        let charged = Amount::from_units(self.books.charged.get(work).copied().unwrap_or_default());
        let reservation = self.books.open.get(work).map(|(funding, amount, placement)| {
            Box::new(Reservation { funding: funding.clone(), reserved: Amount::from_units(*amount), charged, placement: placement.clone() })
        });
        let reserved = Amount::from_units(self.books.open.get(work).map_or(0, |(_, amount, _)| *amount));
        let billed_seconds = self.books.billed.get(work).map_or(0, |attempts| attempts.values().sum());
        let balance = WorkBalance { reserved, charged, settled: charged, billed_seconds, ..WorkBalance::default() };
        self.world.apply(Event::Reserved { work: work.clone(), reservation, latest, balance });
    }

    fn tell_funding(&mut self) {
        for (funding, available) in self.books.funds.clone() {
            let Granted { deposited, withdrawn } = self.books.granted[&funding];
            let sum = |all: &BTreeMap<WorkId, u64>| Amount::from_units(self.books.of(&funding, all));
            let balance = FundingBalance {
                asset: Asset::of(&funding, "USDC"),
                deposited,
                withdrawn,
                available: Amount::from_units(available),
                reserved: Amount::from_units(self.books.reserved(&funding)),
                posted: sum(&self.books.charged),
                held: sum(&self.books.held),
                ..FundingBalance::default()
            };
            let days = (funding.clone(), i64::MIN)..=(funding.clone(), day_of(self.clock()) + 1);
            if let Some(((_, day), charged)) = self.books.days.range(days).next_back() {
                self.world.apply(Event::Spent { funding: funding.clone(), day: *day, charged: Amount::from_units(*charged) });
            }
            self.world.apply(Event::Funding { funding, balance, last_post: None });
        }
    }

    pub(super) fn book(&mut self, posting: Posting) {
        match posting {
            Posting::Fund { funding, deposited, withdrawn, .. } => {
                let before = self.books.granted.insert(funding.clone(), Granted { deposited, withdrawn }).unwrap_or_default();
                let free = self.books.funds.entry(funding).or_default();
                *free += deposited.units() - before.deposited.units();
                *free -= withdrawn.units() - before.withdrawn.units();
                self.tell_funding();
            }
            Posting::Reserve { work, funding, amount, detail, .. } => {
                let before = self.books.open.get(&work).map_or(0, |(_, before, _)| *before);
                let available = self.books.funds.get_mut(&funding).expect("a funding");
                if *available + before < amount.units() {
                    self.world.apply(Event::Refused { work, why: "there is too little".into(), at: self.clock() });
                    return;
                }
                *available = *available + before - amount.units();
                let placement: Placement = serde_json::from_str(&detail).expect("a placement");
                let known = self.books.latest.insert(work.clone(), placement.clone());
                if known.is_some_and(|known| known.attempt == placement.attempt && known.run_seconds < placement.run_seconds) {
                    self.books.raised.insert(work.clone(), self.now);
                }
                self.books.payers.insert(work.clone(), funding.clone());
                self.books.workers.insert((work.clone(), placement.attempt), placement.workers.len());
                // It may be booked after our clock, by which it was decided, was set back.
                let jumps = if placement.bound > self.now { u64::MAX } else { self.jumps };
                self.books.jumps.entry((work.clone(), placement.attempt)).or_insert(jumps);
                self.books.open.insert(work.clone(), (funding, amount.units(), placement));
                self.tell(&work);
                self.tell_funding();
            }
            Posting::Charge(charge) => {
                if !self.books.segments.contains_key(&charge.segment.to_string()) {
                    self.is_billed_once(&charge);
                }
                if self.books.segments.insert(charge.segment.to_string(), charge.seconds).is_none() {
                    self.adds_a_minimum(&charge);
                    let cost = charge.cost.charged().expect("fits").units();
                    let (payer, reserved, _) = self.books.open.get_mut(&charge.work).expect("a reservation to charge");
                    let taken = cost.min(*reserved);
                    *reserved -= taken;
                    self.books.held.remove(&charge.work);
                    *self.books.days.entry((payer.clone(), charge.day)).or_default() += taken;
                    *self.books.charged.entry(charge.work.clone()).or_default() += taken;
                    let record = self.books.records.entry(charge.place.clone()).or_default();
                    *record = record.with(charge.served_seconds(), charge.fault, charge.evidence);
                }
                let record = self.books.records[&charge.place];
                self.world.apply(Event::Record { place: charge.place, record });
                self.world.apply(Event::Charged { work: charge.work, attempt: charge.attempt });
            }
            // The planner's own bookings have none.
            Posting::Card(_) | Posting::Cases { .. } => {}
            Posting::Hold { at, works } => {
                for (work, used) in works {
                    let Some((_, reserved, _)) = self.books.open.get(&work) else { continue };
                    let held = self.books.held.entry(work).or_default();
                    *held = (*held).max(used.units().min(*reserved));
                }
                let held = |funding: &FundingId| Amount::from_units(self.books.of(funding, &self.books.held));
                let fundings = self.books.funds.keys().map(|funding| (funding.clone(), held(funding))).collect();
                self.world.apply(Event::Held { at, fundings });
            }
            Posting::Release { work } => {
                self.books.held.remove(&work);
                if let Some((funding, left, _)) = self.books.open.remove(&work) {
                    *self.books.funds.get_mut(&funding).expect("a funding") += left;
                }
                self.tell(&work);
                self.tell_funding();
            }
        }
    }
}
