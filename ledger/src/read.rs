//! Reading the books.

use crate::commit::amount;
use crate::receipt::summary;
use crate::rows::owed_to_others;
use crate::working::asset;
use crate::{Ledger, LedgerError, Result};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};
use std::collections::{BTreeMap, BTreeSet};
use supercargo_market::asset::Asset;
use supercargo_market::money::Amount;
use supercargo_market::placement::Record;
use supercargo_market::work::{FundingId, WorkId};

/// Where a funding's money stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FundingBalance {
    pub asset: Asset,
    pub deposited: Amount,
    pub withdrawn: Amount,
    pub available: Amount,
    pub reserved: Amount,
    pub owed: Amount,
    pub posted: Amount,
    /// Of what is reserved: used by works that run, as it was last looked at.
    pub held: Amount,
    /// Of what was deposited: not there any more, though it is reserved or charged.
    pub shortfall: Amount,
    /// What its works have cost beyond what was held back for them: nobody is charged that.
    pub absorbed: Amount,
    /// Credited on the chain once, and back in its account: it is in what was deposited again.
    pub returned: Amount,
    /// What disputes have cost: what was deposited is without it.
    pub case_fees: Amount,
}

impl FundingBalance {
    /// Everything that was ever put in and is not missing: what came back was put in only once, and what cases have cost was
    /// put in, too.
    pub fn put_in(&self) -> Amount {
        let units = |amount: Amount| amount.units();
        let all = units(self.deposited).saturating_add(units(self.case_fees));
        Amount::from_units(all.saturating_sub(units(self.shortfall)).saturating_sub(units(self.returned)))
    }
}

/// A reservation as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationRow {
    pub work: WorkId,
    pub funding: FundingId,
    pub reserved: Amount,
    pub charged: Amount,
    pub open: bool,
    pub detail: String,
}

/// What one work has cost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkBalance {
    pub reserved: Amount,
    /// Of what is reserved: used, as it was last looked at while it ran.
    pub held: Amount,
    pub charged: Amount,
    pub absorbed: Amount,
    /// Of what was charged: final on the chain, or paid by a grant.
    pub settled: Amount,
    /// Of all its attempts, each as long as its longest worker.
    pub billed_seconds: u64,
    pub transaction: Option<String>,
    /// The root of usage lines that this transaction posted.
    pub root: Option<String>,
    /// The digest of its receipt, and how busy its devices were on average, in percent: where it was asked for, and once
    /// nothing is held back.
    pub receipt: Option<String>,
    pub gpu_percent: Option<u32>,
}

/// How a work stands to others: whose part it is, and what works below it, however far below, have cost and hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Family {
    pub parent: Option<WorkId>,
    pub charged_below: Amount,
    pub held_below: Amount,
}

/// Of the work in `r`: the seconds of its attempts. Workers of one run together.
const BILLED_SECONDS: &str = "(SELECT CAST(COALESCE(SUM(a.longest), 0) AS BIGINT) FROM \
    (SELECT MAX(b.seconds) AS longest FROM charges b WHERE b.work = r.work GROUP BY b.attempt) a)";

/// What an account owes a payee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    pub payee: u32,
    pub total: Amount,
    pub planned: Amount,
    pub posted: Amount,
}

impl Ledger {
    pub async fn funding(&self, funding: &FundingId) -> Result<Option<FundingBalance>> {
        let query = "SELECT asset, deposited, withdrawn, available, reserved, owed, posted, held, shortfall, absorbed, \
                     (SELECT CAST(COALESCE(SUM(clawback), 0) AS BIGINT) FROM cases WHERE funding = id), \
                     (SELECT CAST(COALESCE(SUM(fees), 0) AS BIGINT) FROM cases WHERE funding = id) FROM fundings WHERE id = $1";
        let row = sqlx::query(query)
            .bind(funding.to_string())
            .fetch_optional(self.pool())
            .await
            .map_err(LedgerError::database("reading a balance"))?;
        let balance = |row: AnyRow| {
            Ok(FundingBalance {
                asset: asset(&row, 0)?,
                deposited: amount(row.get(1)),
                withdrawn: amount(row.get(2)),
                available: amount(row.get(3)),
                reserved: amount(row.get(4)),
                owed: amount(row.get(5)),
                posted: amount(row.get(6)),
                held: amount(row.get(7)),
                shortfall: amount(row.get(8)),
                absorbed: amount(row.get(9)),
                returned: amount(row.get(10)),
                case_fees: amount(row.get(11)),
            })
        };
        row.map(balance).transpose()
    }

    /// The last day of UTC, counted from 1970, on which something was charged, and how much. What was charged by a clock that
    /// was far ahead stands on days after `latest`: those are not looked at.
    pub async fn last_day(&self, funding: &FundingId, latest: i64) -> Result<Option<(i64, Amount)>> {
        let query = "SELECT day, charged FROM days WHERE funding = $1 AND day <= $2 ORDER BY day DESC LIMIT 1";
        let query = sqlx::query(query).bind(funding.to_string()).bind(latest);
        let row = query.fetch_optional(self.pool()).await.map_err(LedgerError::database("reading what a day has cost"))?;
        Ok(row.map(|row| (row.get(0), amount(row.get(1)))))
    }

    /// Every reservation that holds something back: where a new leader begins.
    pub async fn open_reservations(&self) -> Result<Vec<ReservationRow>> {
        let query = "SELECT work, funding, reserved, charged, open, detail FROM reservations WHERE open = 1 ORDER BY work";
        let rows = sqlx::query(query).fetch_all(self.pool()).await.map_err(LedgerError::database("reading reservations"))?;
        rows.iter().map(reservation).collect()
    }

    pub async fn reservation(&self, work: &WorkId) -> Result<Option<ReservationRow>> {
        let query = "SELECT work, funding, reserved, charged, open, detail FROM reservations WHERE work = $1";
        let row = sqlx::query(query)
            .bind(work.to_string())
            .fetch_optional(self.pool())
            .await
            .map_err(LedgerError::database("reading a reservation"))?;
        row.as_ref().map(reservation).transpose()
    }

    pub async fn work(&self, work: &WorkId) -> Result<WorkBalance> {
        let failed = LedgerError::database("reading what a work has cost");
        let id = work.to_string();
        let query = format!(
            "SELECT r.reserved, r.charged, r.absorbed, r.funding, COALESCE(h.used, 0), {BILLED_SECONDS} \
             FROM reservations r LEFT JOIN holds h ON h.work = r.work WHERE r.work = $1"
        );
        let row = sqlx::query(AssertSqlSafe(query)).bind(id.clone()).fetch_optional(self.pool()).await.map_err(&failed)?;
        let Some(row) = row else { return Ok(WorkBalance::default()) };
        let charged = amount(row.get(1));
        let by_grant = FundingId::from_stored(row.get::<String, _>(3)).account().is_none();
        let query = "SELECT CAST(SUM(c.amount) AS BIGINT), p.winner, p.lines_root FROM charges c JOIN posts p ON p.id = c.post \
                     WHERE c.work = $1 AND p.state = 'FINAL' GROUP BY p.id, p.winner, p.lines_root ORDER BY p.winner";
        let paid = sqlx::query(query).bind(id.clone()).fetch_all(self.pool()).await.map_err(&failed)?;
        let settled = Amount::from_units(paid.iter().map(|row| amount(row.get(0)).units()).sum());
        Ok(WorkBalance {
            reserved: amount(row.get(0)),
            held: amount(row.get(4)),
            charged,
            absorbed: amount(row.get(2)),
            settled: if by_grant { charged } else { settled },
            billed_seconds: row.get::<i64, _>(5).unsigned_abs(),
            transaction: paid.last().and_then(|row| row.get(1)),
            root: paid.last().map(|row| root_text(row, 2)),
            ..WorkBalance::default()
        })
    }

    /// The same with what is told of its receipt. While it runs that grows, and nobody is told of it.
    pub async fn work_with_receipt(&self, work: &WorkId) -> Result<WorkBalance> {
        let mut balance = self.work(work).await?;
        let mut connection = self.pool().acquire().await.map_err(LedgerError::database("reading a receipt"))?;
        if let Some((digest, gpu_percent)) = summary(&mut connection, work).await? {
            (balance.receipt, balance.gpu_percent) = (Some(digest), gpu_percent);
        }
        Ok(balance)
    }

    pub async fn family(&self, work: &WorkId) -> Result<Family> {
        let query = "SELECT parent, below, lent FROM kin WHERE work = $1";
        let row = sqlx::query(query).bind(work.to_string()).fetch_optional(self.pool()).await;
        let Some(row) = row.map_err(LedgerError::database("reading what is below a work"))? else { return Ok(Family::default()) };
        let parent = row.get::<Option<&str>, _>(0).map(work_id).transpose()?;
        Ok(Family { parent, charged_below: amount(row.get(1)), held_below: amount(row.get(2)) })
    }

    pub async fn lanes(&self, funding: &FundingId) -> Result<Vec<Lane>> {
        let query = "SELECT payee, total, planned, posted FROM lanes WHERE funding = $1 ORDER BY payee";
        let rows =
            sqlx::query(query).bind(funding.to_string()).fetch_all(self.pool()).await.map_err(LedgerError::database("reading lanes"))?;
        Ok(rows.iter().map(lane).collect())
    }

    /// Every lane of a chain's accounts with something that is not final there.
    pub async fn unsettled(&self) -> Result<Vec<(FundingId, Lane)>> {
        let query = "SELECT payee, total, planned, posted, funding FROM lanes WHERE total > posted AND funding LIKE 'chain:%' ORDER BY funding, payee";
        let rows = sqlx::query(query).fetch_all(self.pool()).await.map_err(LedgerError::database("reading what is not settled"))?;
        Ok(rows.iter().map(|row| (FundingId::from_stored(row.get::<String, _>(4)), lane(row))).collect())
    }

    /// How many charges of each chain's account no post carries yet, but for those that wait for payees that the contract does not
    /// know.
    pub async fn unposted_charges(&self, unknown: &BTreeSet<u32>) -> Result<BTreeMap<FundingId, u64>> {
        let others = owed_to_others(unknown);
        let query = format!("SELECT funding, COUNT(*) FROM charges WHERE post IS NULL AND funding LIKE 'chain:%'{others} GROUP BY funding");
        let rows =
            sqlx::query(AssertSqlSafe(query)).fetch_all(self.pool()).await.map_err(LedgerError::database("counting what is not posted"))?;
        Ok(rows.iter().map(|row| (FundingId::from_stored(row.get::<String, _>(0)), row.get::<i64, _>(1).unsigned_abs())).collect())
    }

    /// Of every funding with works that have used something that is not charged yet: how much.
    pub async fn held(&self) -> Result<Vec<(FundingId, Amount)>> {
        let rows = sqlx::query("SELECT id, held FROM fundings WHERE held > 0 ORDER BY id").fetch_all(self.pool()).await;
        let rows = rows.map_err(LedgerError::database("reading what works have used"))?;
        Ok(rows.iter().map(|row| (FundingId::from_stored(row.get::<String, _>(0)), amount(row.get(1)))).collect())
    }

    /// Every funding that the books know.
    pub async fn fundings(&self) -> Result<Vec<FundingId>> {
        let rows = sqlx::query("SELECT id FROM fundings ORDER BY id")
            .fetch_all(self.pool())
            .await
            .map_err(LedgerError::database("reading fundings"))?;
        Ok(rows.iter().map(|row| FundingId::from_stored(row.get::<String, _>(0))).collect())
    }

    /// What a place has served, and what went wrong there.
    pub async fn record(&self, place: &str) -> Result<Record> {
        let query = "SELECT place, served_seconds, faults, disagreements FROM records WHERE place = $1";
        let row = sqlx::query(query).bind(place.to_owned()).fetch_optional(self.pool()).await;
        Ok(row.map_err(LedgerError::database("reading a record"))?.map(|row| record(&row)).unwrap_or_default())
    }

    /// Every place's record.
    pub async fn records(&self) -> Result<Vec<(String, Record)>> {
        let query = "SELECT place, served_seconds, faults, disagreements FROM records ORDER BY place";
        let rows = sqlx::query(query).fetch_all(self.pool()).await.map_err(LedgerError::database("reading records"))?;
        Ok(rows.iter().map(|row| (row.get(0), record(row))).collect())
    }

    /// The works that a post pays for, as [`Ledger::work`] has each of them: all at once, since there may be thousands.
    pub async fn works_of(&self, post: &str) -> Result<Vec<(WorkId, WorkBalance)>> {
        let query = format!(
            "SELECT r.reserved, r.charged, r.absorbed, \
             CAST(COALESCE(SUM(CASE WHEN p.state = 'FINAL' THEN c.amount ELSE 0 END), 0) AS BIGINT), \
             MAX(CASE WHEN p.state = 'FINAL' THEN p.winner || '/' || p.id END), r.work, \
             CAST(COALESCE(MAX(h.used), 0) AS BIGINT), {BILLED_SECONDS} \
             FROM reservations r JOIN charges c ON c.work = r.work LEFT JOIN posts p ON p.id = c.post \
             LEFT JOIN holds h ON h.work = r.work WHERE r.work IN (SELECT work FROM charges WHERE post = $1) \
             GROUP BY r.work, r.reserved, r.charged, r.absorbed ORDER BY r.work"
        );
        let rows = sqlx::query(AssertSqlSafe(query)).bind(post.to_owned()).fetch_all(self.pool()).await;
        let rows = rows.map_err(LedgerError::database("reading what a post pays for"))?;
        let mut roots: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut works = Vec::with_capacity(rows.len());
        for row in &rows {
            let last: Option<String> = row.get(4);
            let (transaction, root) = match last.as_deref().and_then(|last| last.split_once('/')) {
                Some((transaction, id)) => {
                    if !roots.contains_key(id) {
                        roots.insert(id.to_owned(), self.root_of(id).await?);
                    }
                    (Some(transaction.to_owned()), roots.get(id).cloned().flatten())
                }
                None => (None, None),
            };
            let [reserved, charged, absorbed, settled, held] = [0, 1, 2, 3, 6].map(|index| amount(row.get(index)));
            let billed_seconds = row.get::<i64, _>(7).unsigned_abs();
            works.push((
                work_id(row.get(5))?,
                WorkBalance { reserved, held, charged, absorbed, settled, billed_seconds, transaction, root, ..Default::default() },
            ));
        }
        Ok(works)
    }

    /// The root of usage lines of a post.
    async fn root_of(&self, post: &str) -> Result<Option<String>> {
        let row = sqlx::query("SELECT lines_root FROM posts WHERE id = $1").bind(post.to_owned()).fetch_optional(self.pool()).await;
        Ok(row.map_err(LedgerError::database("reading a post's root"))?.map(|row| root_text(&row, 0)))
    }
}

/// As the chain's explorers write it.
fn root_text(row: &AnyRow, index: usize) -> String {
    format!("0x{}", hex::encode(row.get::<Vec<u8>, _>(index)))
}

pub(crate) fn lane(row: &AnyRow) -> Lane {
    let payee = u32::try_from(row.get::<i64, _>(0)).unwrap_or_default();
    Lane { payee, total: amount(row.get(1)), planned: amount(row.get(2)), posted: amount(row.get(3)) }
}

pub(crate) fn work_id(text: &str) -> Result<WorkId> {
    match text.split_once(':') {
        Some(("task", uid)) => Ok(WorkId::task(uid)),
        _ => Err(LedgerError::Broken(format!("{text:?} names no work"))),
    }
}

fn record(row: &AnyRow) -> Record {
    let count = |index: usize| u32::try_from(row.get::<i64, _>(index)).unwrap_or(u32::MAX);
    Record { served_seconds: row.get::<i64, _>(1).unsigned_abs(), faults: count(2), disagreements: count(3) }
}

fn reservation(row: &AnyRow) -> Result<ReservationRow> {
    Ok(ReservationRow {
        work: work_id(row.get(0))?,
        funding: FundingId::from_stored(row.get::<String, _>(1)),
        reserved: amount(row.get(2)),
        charged: amount(row.get(3)),
        open: row.get::<i64, _>(4) == 1,
        detail: row.get(5),
    })
}
