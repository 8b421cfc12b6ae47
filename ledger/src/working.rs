//! What a group of postings touches: read from the database at once, changed in memory by the rules, and written back at
//! once. The database holds the rules again when it is written.

use crate::batch::{CHARGES, Cell, FUNDINGS, LANES, RECORDS, RESERVATIONS};
use crate::commit::{amount, signed};
use crate::journal::POSTING;
use crate::posting::{Charge, Line, Posting};
use crate::store::{Store, Writing};
use crate::{LedgerError, Result};
use sqlx::Row;
use sqlx::any::AnyRow;
use std::collections::{BTreeMap, BTreeSet};
use supercargo_market::fees::{Payee, Split};
use supercargo_market::money::Amount;
use supercargo_market::placement::Record;
use supercargo_market::rating::ExactCost;

/// A row of `fundings`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Funding {
    pub(crate) asset: String,
    pub(crate) deposited: Amount,
    pub(crate) withdrawn: Amount,
    pub(crate) available: Amount,
    pub(crate) reserved: Amount,
    pub(crate) owed: Amount,
    pub(crate) posted: Amount,
    pub(crate) changed: bool,
}

/// A row of `reservations`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reservation {
    pub(crate) funding: String,
    pub(crate) reserved: Amount,
    pub(crate) charged: Amount,
    pub(crate) exact: ExactCost,
    pub(crate) split: Split,
    pub(crate) absorbed: Amount,
    pub(crate) open: bool,
    pub(crate) detail: String,
    pub(crate) changed: bool,
}

/// The part of the books that a group of postings is about.
#[derive(Debug, Default)]
pub(crate) struct Working {
    pub(crate) fundings: BTreeMap<String, Funding>,
    pub(crate) reservations: BTreeMap<String, Reservation>,
    /// The segments that were charged, before or in this group.
    pub(crate) segments: BTreeSet<String>,
    charges: Vec<Cell>,
    lanes: BTreeMap<(String, Payee), u64>,
    /// What places have served and done wrong in this group.
    records: BTreeMap<String, Record>,
    pub(crate) lines: Vec<Line>,
}

impl Working {
    pub(crate) async fn load(writing: &mut Writing, postings: &[&Posting]) -> Result<Self> {
        let (mut fundings, mut works, mut segments) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for posting in postings {
            match posting {
                Posting::Fund { funding, .. } => drop(fundings.insert(funding.to_string())),
                Posting::Reserve { work, funding, .. } => {
                    fundings.insert(funding.to_string());
                    works.insert(work.to_string());
                }
                Posting::Charge(charge) => {
                    works.insert(charge.work.to_string());
                    segments.insert(charge.segment.to_string());
                }
                Posting::Release { work } => drop(works.insert(work.to_string())),
            }
        }
        let mut working = Self::default();
        for row in RESERVATIONS.find(&mut writing.transaction, works.iter(), "reading reservations").await? {
            let reservation = reservation(&row)?;
            fundings.insert(reservation.funding.clone());
            working.reservations.insert(row.get(0), reservation);
        }
        for row in CHARGES.find(&mut writing.transaction, segments.iter(), "looking for charges").await? {
            working.segments.insert(row.get(0));
        }
        for row in FUNDINGS.find(&mut writing.transaction, fundings.iter(), "reading balances").await? {
            working.fundings.insert(row.get(0), funding(&row));
        }
        Ok(working)
    }

    pub(crate) async fn save(self, store: &Store, writing: &mut Writing) -> Result<()> {
        let (mut fundings, mut reservations, mut lanes) = (Vec::new(), Vec::new(), Vec::new());
        for (id, row) in self.fundings.into_iter().filter(|(_, row)| row.changed) {
            fundings.extend([id.into(), row.asset.into()]);
            let numbers = [row.deposited, row.withdrawn, row.available, row.reserved, row.owed, row.posted];
            fundings.extend(numbers.map(|amount| Cell::Number(signed(amount))));
        }
        for (work, row) in self.reservations.into_iter().filter(|(_, row)| row.changed) {
            let split = serde_json::to_string(&row.split).map_err(|error| LedgerError::Broken(error.to_string()))?;
            let [reserved, charged, absorbed] = [row.reserved, row.charged, row.absorbed].map(|amount| Cell::Number(signed(amount)));
            let (exact, open) = (row.exact.to_digits().into(), i64::from(row.open).into());
            reservations.extend([
                work.into(),
                row.funding.into(),
                reserved,
                charged,
                exact,
                split.into(),
                absorbed,
                open,
                row.detail.into(),
            ]);
        }
        for ((funding, payee), more) in self.lanes {
            lanes.extend([funding.into(), i64::from(payee).into(), signed(Amount::from_units(more)).into(), 0.into(), 0.into()]);
        }
        FUNDINGS.put(&mut writing.transaction, fundings, "writing balances").await?;
        RESERVATIONS.put(&mut writing.transaction, reservations, "writing reservations").await?;
        CHARGES.insert(&mut writing.transaction, self.charges, "writing charges").await?;
        LANES.grow(&mut writing.transaction, &["total"], lanes, "adding to lanes").await?;
        let records = self.records.into_iter().flat_map(|(place, record)| {
            let served = i64::try_from(record.served_seconds).unwrap_or(i64::MAX);
            [place.into(), served.into(), i64::from(record.faults).into(), i64::from(record.disagreements).into()]
        });
        let growing = ["served_seconds", "faults", "disagreements"];
        RECORDS.grow(&mut writing.transaction, &growing, records.collect(), "adding to records").await?;
        store.append(writing, POSTING, &self.lines).await.map(drop)
    }

    pub(crate) fn add_charge(&mut self, charge: &Charge, funding: &str, taken: Amount) {
        let segment = charge.segment.to_string();
        let seconds = i64::try_from(charge.seconds).unwrap_or(i64::MAX);
        let salt = crate::key::random::<32>();
        self.charges.extend([
            segment.as_str().into(),
            charge.work.to_string().into(),
            funding.into(),
            i64::from(charge.attempt).into(),
            seconds.into(),
            format!("{:?}", charge.evidence).into(),
            signed(taken).into(),
            salt.as_slice().into(),
            Cell::Null,
        ]);
        self.segments.insert(segment);
        let record = self.records.entry(charge.place.clone()).or_default();
        *record = record.with(charge.seconds, charge.fault, charge.evidence);
    }

    /// Adds to each payee's lane what its part of the split has grown by.
    pub(crate) fn grow_lanes(&mut self, funding: &str, payee: Payee, before: &Split, after: &Split) {
        let provider = (payee, after.provider.saturating_sub(before.provider));
        let fees = after.fees.iter().map(|(payee, fee)| (*payee, fee.saturating_sub(before.fees.get(payee).copied().unwrap_or_default())));
        for (payee, more) in std::iter::once(provider).chain(fees).filter(|(_, more)| !more.is_zero()) {
            *self.lanes.entry((funding.to_owned(), payee)).or_default() += more.units();
        }
    }
}

fn funding(row: &AnyRow) -> Funding {
    Funding {
        asset: row.get(1),
        deposited: amount(row.get(2)),
        withdrawn: amount(row.get(3)),
        available: amount(row.get(4)),
        reserved: amount(row.get(5)),
        owed: amount(row.get(6)),
        posted: amount(row.get(7)),
        changed: false,
    }
}

fn reservation(row: &AnyRow) -> Result<Reservation> {
    let work: String = row.get(0);
    let unreadable = |what| LedgerError::Broken(format!("{work}'s {what} can't be read"));
    Ok(Reservation {
        funding: row.get(1),
        reserved: amount(row.get(2)),
        charged: amount(row.get(3)),
        exact: ExactCost::from_digits(row.get(4)).ok_or_else(|| unreadable("exact cost"))?,
        split: serde_json::from_str(row.get(5)).map_err(|_| unreadable("split"))?,
        absorbed: amount(row.get(6)),
        open: row.get::<i64, _>(7) == 1,
        detail: row.get(8),
        changed: false,
    })
}
