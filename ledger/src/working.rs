//! What groups of postings touch: read from the database once, changed in memory by the rules, and written back a group at a
//! time. The database holds the rules again when it is written.
//!
//! What was read stays here for the next group. Whoever else writes moves the mark of the books, and then all of it is read
//! again.

use crate::batch::{CARDS, CASES, CHARGES, Cell, DAYS, FUNDINGS, HOLDS, KIN, LANES, RECORDS, RESERVATIONS};
use crate::commit::{amount, signed};
use crate::group::Written;
use crate::journal::POSTING;
use crate::kin::Kin;
use crate::posting::{Charge, LaneCases, Line, Posting};
use crate::store::{Mark, Store, Writing};
use crate::vouchers::payee;
use crate::{LedgerError, Result};
use sqlx::Row;
use sqlx::any::AnyRow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use supercargo_market::asset::{Asset, NoAsset};
use supercargo_market::fees::{Payee, Split};
use supercargo_market::money::Amount;
use supercargo_market::placement::Record;
use supercargo_market::rating::ExactCost;

/// With more works than these the next group begins with nothing in memory.
const MOST_WORKS: usize = 65_536;

/// A row of `fundings`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Funding {
    pub(crate) asset: Asset,
    pub(crate) deposited: Amount,
    pub(crate) withdrawn: Amount,
    pub(crate) available: Amount,
    pub(crate) reserved: Amount,
    pub(crate) owed: Amount,
    pub(crate) posted: Amount,
    pub(crate) held: Amount,
    pub(crate) shortfall: Amount,
    pub(crate) absorbed: Amount,
}

/// A row of `reservations`, of `holds` and of `kin`.
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
    pub(crate) used: Amount,
    pub(crate) seen: i64,
    pub(crate) kin: Kin,
    /// Of its segments, those that were charged here.
    pub(crate) segments: BTreeSet<String>,
    /// Made here: it has no other segments.
    pub(crate) whole: bool,
}

/// The part of the books that groups of postings are about.
#[derive(Debug, Default)]
pub(crate) struct Working {
    /// How far the books had come when this was true of them; `None` when nothing was read yet.
    mark: Option<Mark>,
    pub(crate) fundings: HashMap<String, Funding>,
    pub(crate) reservations: HashMap<String, Reservation>,
    /// Segments that the group is about, and that were charged before.
    pub(crate) found: BTreeSet<String>,
    /// Rate cards that are kept, by their hashes.
    pub(crate) cards: BTreeSet<String>,
    /// Cases of accounts that a group was about.
    pub(crate) cases: HashMap<String, BTreeMap<Payee, LaneCases>>,
    pub(crate) changes: Changes,
}

/// What a group changes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) fundings: BTreeSet<String>,
    pub(crate) reservations: BTreeSet<String>,
    /// Works that have used more, or whose use was charged.
    pub(crate) holds: BTreeSet<String>,
    /// Works of which those below them changed, or that came below another.
    pub(crate) kin: BTreeSet<String>,
    pub(crate) cases: BTreeSet<String>,
    charges: Vec<Cell>,
    lanes: BTreeMap<(String, Payee), u64>,
    /// Where among the cells of a charge the number of its entry belongs, and which of the lines that is.
    entries: Vec<(usize, usize)>,
    pub(crate) cards: BTreeMap<String, String>,
    days: BTreeMap<(String, i64), u64>,
    /// What places have served and done wrong.
    records: BTreeMap<String, Record>,
    pub(crate) lines: Vec<Line>,
}

impl Working {
    /// What is still true of books that have come so far.
    pub(crate) fn at(self, mark: Mark) -> Self {
        if self.mark == Some(mark) && self.reservations.len() <= MOST_WORKS { self } else { Self { mark: Some(mark), ..Self::default() } }
    }

    /// Reads what the postings need and is not here.
    pub(crate) async fn fetch(&mut self, writing: &mut Writing, postings: impl Iterator<Item = &Posting>) -> Result<()> {
        let (mut fundings, mut works, mut segments, mut cards) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut cases = BTreeSet::new();
        for posting in postings {
            match posting {
                Posting::Fund { funding, .. } => drop(fundings.insert(funding.to_string())),
                Posting::Reserve { work, funding, parent, .. } => {
                    fundings.insert(funding.to_string());
                    works.insert(work.to_string());
                    works.extend(parent.as_ref().map(ToString::to_string));
                }
                Posting::Charge(charge) => {
                    let work = charge.work.to_string();
                    if self.reservations.get(&work).is_none_or(|row| !row.whole) {
                        segments.insert(charge.segment.to_string());
                    }
                    works.insert(work);
                }
                Posting::Card(card) => drop(cards.insert(card.hash().to_string())),
                Posting::Cases { funding, .. } => {
                    fundings.insert(funding.to_string());
                    cases.insert(funding.to_string());
                }
                Posting::Release { work } => drop(works.insert(work.to_string())),
                Posting::Hold { works: held, .. } => works.extend(held.iter().map(|(work, _)| work.to_string())),
            }
        }
        let unread = works.iter().filter(|work| !self.reservations.contains_key(*work)).cloned().collect();
        self.fetch_works(writing, unread, &mut fundings).await?;
        // Each step up is one question more: trees are shallow, and most works have nobody above them.
        loop {
            let unread: BTreeSet<String> = works.iter().filter_map(|work| self.unread_above(work)).collect();
            if unread.is_empty() {
                break;
            }
            self.fetch_works(writing, unread, &mut fundings).await?;
        }
        self.found.clear();
        for row in CHARGES.find(&mut writing.transaction, segments.iter(), "looking for charges").await? {
            self.found.insert(row.get(0));
        }
        cards.retain(|card| !self.cards.contains(card));
        for row in CARDS.find(&mut writing.transaction, cards.iter(), "looking for rate cards").await? {
            self.cards.insert(row.get(0));
        }
        fundings.retain(|funding| !self.fundings.contains_key(funding));
        for row in FUNDINGS.find(&mut writing.transaction, fundings.iter(), "reading balances").await? {
            self.fundings.insert(row.get(0), funding(&row)?);
        }
        cases.retain(|funding| !self.cases.contains_key(funding));
        for row in CASES.find(&mut writing.transaction, cases.iter(), "reading cases").await? {
            let lane = LaneCases { payee: payee(&row, 1), clawback: amount(row.get(2)), fees: amount(row.get(3)) };
            self.cases.entry(row.get(0)).or_default().insert(lane.payee, lane);
        }
        for funding in cases {
            self.cases.entry(funding).or_default();
        }
        Ok(())
    }

    async fn fetch_works(&mut self, writing: &mut Writing, mut works: BTreeSet<String>, fundings: &mut BTreeSet<String>) -> Result<()> {
        for row in RESERVATIONS.find(&mut writing.transaction, works.iter(), "reading reservations").await? {
            let reservation = reservation(&row)?;
            fundings.insert(reservation.funding.clone());
            self.reservations.insert(row.get(0), reservation);
        }
        works.retain(|work| self.reservations.contains_key(work));
        for row in KIN.find(&mut writing.transaction, works.iter(), "reading what is below works").await? {
            if let Some(reservation) = self.reservations.get_mut(row.get::<&str, _>(0)) {
                reservation.kin = Kin { parent: row.get(1), lent: amount(row.get(2)), below: amount(row.get(3)) };
            }
        }
        works.retain(|work| self.reservations.get(work).is_some_and(|row| row.open));
        for row in HOLDS.find(&mut writing.transaction, works.iter(), "reading what works have used").await? {
            if let Some(reservation) = self.reservations.get_mut(row.get::<&str, _>(0)) {
                (reservation.used, reservation.seen) = (amount(row.get(1)), row.get(2));
            }
        }
        Ok(())
    }

    /// A work that a group is about, and that exists.
    pub(crate) fn row(&self, work: &str) -> Result<&Reservation> {
        self.reservations.get(work).ok_or_else(|| LedgerError::Broken(format!("{work} has no reservation")))
    }

    pub(crate) fn row_mut(&mut self, work: &str) -> Result<&mut Reservation> {
        self.reservations.get_mut(work).ok_or_else(|| LedgerError::Broken(format!("{work} has no reservation")))
    }

    /// Writes what the group has changed. Works that are over are forgotten then: hardly anybody asks for them again.
    pub(crate) async fn save(&mut self, store: &Store, writing: &mut Writing) -> Result<()> {
        let mut changes = std::mem::take(&mut self.changes);
        let lines = std::mem::take(&mut changes.lines);
        store.append_after(writing, POSTING, &lines, async |writing| self.save_tables(writing, changes).await).await?;
        self.mark = Some(writing.mark);
        Ok(())
    }

    async fn save_tables(&mut self, writing: &mut Writing, mut changes: Changes) -> Result<()> {
        for (cell, line) in std::mem::take(&mut changes.entries) {
            // The lines are appended in their order, below.
            changes.charges[cell] = Cell::Number(writing.mark.head.sequence.cast_signed() + 1 + i64::try_from(line).unwrap_or(i64::MAX));
        }
        let mut cells = Vec::with_capacity(changes.fundings.len() * FUNDINGS.columns.len());
        for id in changes.fundings {
            let Some(row) = self.fundings.get(&id) else { continue };
            let moved = [row.deposited, row.withdrawn, row.available, row.reserved, row.owed, row.posted];
            let beside = [row.held, row.shortfall, row.absorbed];
            cells.extend([id.into(), row.asset.to_string().into()]);
            cells.extend(moved.into_iter().chain(beside).map(|amount| Cell::Number(signed(amount))));
        }
        FUNDINGS.put(&mut writing.transaction, cells, "writing balances").await?;
        let kin = changes.kin.iter().filter_map(|work| Some((work, &self.reservations.get(work)?.kin)));
        let kin: Vec<Cell> = kin
            .flat_map(|(work, kin)| {
                let parent = kin.parent.as_deref().map_or(Cell::Null, Cell::from);
                [work.as_str().into(), parent, signed(kin.lent).into(), signed(kin.below).into()]
            })
            .collect();
        let mut cells = Vec::with_capacity(changes.reservations.len() * RESERVATIONS.columns.len());
        for work in changes.reservations {
            let Some(row) = self.reservations.get(&work) else { continue };
            cells.extend(row.cells(&work)?);
            if !row.open {
                self.reservations.remove(&work);
            }
        }
        RESERVATIONS.put(&mut writing.transaction, cells, "writing reservations").await?;
        KIN.put(&mut writing.transaction, kin, "writing what is below works").await?;
        self.save_holds(writing, &changes.holds).await?;
        self.save_cases(writing, &changes.cases).await?;
        CHARGES.insert(&mut writing.transaction, changes.charges, "writing charges").await?;
        let cards = changes.cards.into_iter().flat_map(|(hash, card)| [hash.into(), card.into()]);
        CARDS.insert(&mut writing.transaction, cards.collect(), "keeping rate cards").await?;
        let lanes = changes.lanes.into_iter().flat_map(|((funding, payee), more)| {
            [funding.into(), i64::from(payee).into(), signed(Amount::from_units(more)).into(), 0.into(), 0.into()]
        });
        LANES.grow(&mut writing.transaction, &["total"], lanes.collect(), "adding to lanes").await?;
        let days = changes
            .days
            .into_iter()
            .flat_map(|((funding, day), charged)| [Cell::from(funding), day.into(), signed(Amount::from_units(charged)).into()]);
        DAYS.grow(&mut writing.transaction, &["charged"], days.collect(), "adding to days").await?;
        let records = changes.records.into_iter().flat_map(|(place, record)| {
            let served = i64::try_from(record.served_seconds).unwrap_or(i64::MAX);
            [place.into(), served.into(), i64::from(record.faults).into(), i64::from(record.disagreements).into()]
        });
        let growing = ["served_seconds", "faults", "disagreements"];
        RECORDS.grow(&mut writing.transaction, &growing, records.collect(), "adding to records").await
    }

    async fn save_cases(&self, writing: &mut Writing, fundings: &BTreeSet<String>) -> Result<()> {
        CASES.remove(&mut writing.transaction, fundings.iter(), "exchanging cases").await?;
        let lanes = fundings.iter().flat_map(|funding| self.cases.get(funding).into_iter().flatten().map(move |(_, lane)| (funding, lane)));
        let cells = lanes.flat_map(|(funding, lane)| {
            let [clawback, fees] = [lane.clawback, lane.fees].map(|amount| Cell::Number(signed(amount)));
            [funding.as_str().into(), i64::from(lane.payee).into(), clawback, fees]
        });
        CASES.insert(&mut writing.transaction, cells.collect(), "writing cases").await
    }

    /// What works have used is kept as long as it is not charged.
    async fn save_holds(&self, writing: &mut Writing, works: &BTreeSet<String>) -> Result<()> {
        let (mut over, mut cells) = (BTreeSet::new(), Vec::with_capacity(works.len() * HOLDS.columns.len()));
        for work in works {
            match self.reservations.get(work).filter(|row| !row.used.is_zero()) {
                Some(row) => cells.extend([Cell::from(work.as_str()), signed(row.used).into(), row.seen.into()]),
                None => drop(over.insert(work.clone())),
            }
        }
        HOLDS.remove(&mut writing.transaction, over.iter(), "forgetting what works had used").await?;
        HOLDS.put(&mut writing.transaction, cells, "writing what works have used").await
    }
}

impl Reservation {
    fn cells(&self, work: &str) -> Result<[Cell; 9]> {
        let split = serde_json::to_string(&self.split).map_err(|error| LedgerError::Broken(error.to_string()))?;
        let [reserved, charged, absorbed] = [self.reserved, self.charged, self.absorbed].map(|amount| Cell::Number(signed(amount)));
        let (exact, open) = (self.exact.to_digits().into(), i64::from(self.open).into());
        Ok([work.into(), self.funding.as_str().into(), reserved, charged, exact, split.into(), absorbed, open, self.detail.as_str().into()])
    }
}

impl Changes {
    pub(crate) fn add_charge(&mut self, charge: &Charge, funding: &str, taken: Amount, metered: Option<&Written>) {
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
            metered.map_or(Cell::Null, |written| written.text.as_str().into()),
            charge.payee.map_or(Cell::Null, |payee| i64::from(payee).into()),
            Cell::Null,
        ]);
        // Its own line comes next.
        self.entries.push((self.charges.len() - 1, self.lines.len()));
        if !taken.is_zero() {
            *self.days.entry((funding.to_owned(), charge.day)).or_default() += taken.units();
        }
        let record = self.records.entry(charge.place.clone()).or_default();
        *record = record.with(charge.served_seconds(), charge.fault, charge.evidence);
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

/// What an account holds.
pub(crate) fn asset(row: &AnyRow, index: usize) -> Result<Asset> {
    let text: &str = row.get(index);
    text.parse().map_err(|error: NoAsset| LedgerError::Broken(error.to_string()))
}

fn funding(row: &AnyRow) -> Result<Funding> {
    Ok(Funding {
        asset: asset(row, 1)?,
        deposited: amount(row.get(2)),
        withdrawn: amount(row.get(3)),
        available: amount(row.get(4)),
        reserved: amount(row.get(5)),
        owed: amount(row.get(6)),
        posted: amount(row.get(7)),
        held: amount(row.get(8)),
        shortfall: amount(row.get(9)),
        absorbed: amount(row.get(10)),
    })
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
        ..Reservation::default()
    })
}
