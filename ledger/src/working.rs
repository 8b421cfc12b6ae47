//! What a group of postings touches: read from the database at once, changed in memory by the rules, and written back at
//! once. The database holds the rules again when it is written.

use crate::batch::{CHARGES, FUNDINGS, LANES, RESERVATIONS};
use crate::commit::{amount, signed};
use crate::journal::POSTING;
use crate::posting::{Charge, Line, Posting};
use crate::store::{Store, Writing};
use crate::{LedgerError, Result};
use serde_json::{Value, json};
use sqlx::Row;
use sqlx::any::AnyRow;
use std::collections::{BTreeMap, BTreeSet};
use supercargo_market::fees::{Payee, Split};
use supercargo_market::money::Amount;
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
    charges: Vec<Value>,
    lanes: BTreeMap<(String, Payee), u64>,
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
        for row in RESERVATIONS.find(&mut writing.transaction, &keys(&works), "reading reservations").await? {
            let reservation = reservation(&row)?;
            fundings.insert(reservation.funding.clone());
            working.reservations.insert(row.get(0), reservation);
        }
        for row in CHARGES.find(&mut writing.transaction, &keys(&segments), "looking for charges").await? {
            working.segments.insert(row.get(0));
        }
        for row in FUNDINGS.find(&mut writing.transaction, &keys(&fundings), "reading balances").await? {
            working.fundings.insert(row.get(0), funding(&row));
        }
        Ok(working)
    }

    pub(crate) async fn save(&self, store: &Store, writing: &mut Writing) -> Result<()> {
        let fundings: Vec<_> = self.fundings.iter().filter(|(_, row)| row.changed).map(|(id, row)| funding_row(id, row)).collect();
        let reservations: Result<Vec<_>> =
            self.reservations.iter().filter(|(_, row)| row.changed).map(|(work, row)| reservation_row(work, row)).collect();
        let lanes: Vec<_> = self.lanes.iter().map(|((funding, payee), more)| json!([funding, payee, more, 0, 0])).collect();
        FUNDINGS.put(&mut writing.transaction, &fundings, "writing balances").await?;
        RESERVATIONS.put(&mut writing.transaction, &reservations?, "writing reservations").await?;
        CHARGES.insert(&mut writing.transaction, &self.charges, "writing charges").await?;
        LANES.grow(&mut writing.transaction, "total", &lanes, "adding to lanes").await?;
        store.append(writing, POSTING, &self.lines).await.map(drop)
    }

    pub(crate) fn add_charge(&mut self, charge: &Charge, funding: &str, taken: Amount) {
        let (segment, evidence) = (charge.segment.to_string(), format!("{:?}", charge.evidence));
        let seconds = i64::try_from(charge.seconds).unwrap_or(i64::MAX);
        let salt = hex::encode(crate::key::random::<32>());
        let work = charge.work.to_string();
        self.charges.push(json!([segment, work, funding, charge.attempt, seconds, evidence, signed(taken), salt, null]));
        self.segments.insert(segment);
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

fn keys(names: &BTreeSet<String>) -> Vec<Value> {
    names.iter().map(|name| json!([name])).collect()
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

fn funding_row(id: &str, row: &Funding) -> Value {
    let numbers = [row.deposited, row.withdrawn, row.available, row.reserved, row.owed, row.posted].map(signed);
    let [deposited, withdrawn, available, reserved, owed, posted] = numbers;
    json!([id, row.asset, deposited, withdrawn, available, reserved, owed, posted])
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

fn reservation_row(work: &str, row: &Reservation) -> Result<Value> {
    let split = serde_json::to_string(&row.split).map_err(|error| LedgerError::Broken(error.to_string()))?;
    let [reserved, charged, absorbed] = [row.reserved, row.charged, row.absorbed].map(signed);
    Ok(json!([work, row.funding, reserved, charged, row.exact.to_digits(), split, absorbed, i64::from(row.open), row.detail]))
}
