//! Applying postings: all those of one pass in one transaction, each with its own outcome.

use crate::posting::{Charge, Line, Outcome, Posting};
use crate::{Fence, Ledger, LedgerError, Result, journal};
use sqlx::{Row, Sqlite, Transaction};
use supercargo_market::fees::Split;
use supercargo_market::money::Amount;
use supercargo_market::rating::ExactCost;
use supercargo_market::work::{FundingId, WorkId};

impl Ledger {
    /// Applies the postings in their order, durably. One that is refused leaves the others as they are; an error leaves
    /// everything as it was.
    pub async fn commit(&self, fence: Fence, postings: &[Posting]) -> Result<Vec<Outcome>> {
        let mut transaction = self.begin(fence).await?;
        let mut outcomes = Vec::with_capacity(postings.len());
        for posting in postings {
            let outcome = match posting {
                Posting::Fund { funding, asset, deposited, withdrawn } => {
                    fund(&mut transaction, &self.journal, funding, asset, *deposited, *withdrawn).await?
                }
                Posting::Reserve { work, funding, amount, detail } => {
                    reserve(&mut transaction, &self.journal, work, funding, *amount, detail).await?
                }
                Posting::Charge(charge) => apply_charge(&mut transaction, &self.journal, charge).await?,
                Posting::Release { work } => release(&mut transaction, &self.journal, work).await?,
            };
            outcomes.push(outcome);
        }
        transaction.commit().await.map_err(LedgerError::database("committing postings"))?;
        Ok(outcomes)
    }

    /// A transaction that only the leader gets.
    pub(crate) async fn begin(&self, fence: Fence) -> Result<Transaction<'static, Sqlite>> {
        // IMMEDIATE takes the writer's place at once: nobody changes the fence between the look and the commit.
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(LedgerError::database("beginning a transaction"))?;
        let row = sqlx::query("SELECT CAST(value AS INTEGER) FROM facts WHERE name = 'fence'").fetch_optional(&mut *transaction).await;
        let current: i64 = row.map_err(LedgerError::database("reading the fence"))?.map_or(0, |row| row.get(0));
        if current == fence.0 { Ok(transaction) } else { Err(LedgerError::Fenced { ours: fence.0, current }) }
    }
}

pub(crate) fn signed(amount: Amount) -> i64 {
    // Amounts are at most 10^18 - 1 where they are parsed, and a column's CHECK refuses what became negative here.
    i64::try_from(amount.units()).unwrap_or(i64::MIN)
}

pub(crate) fn amount(units: i64) -> Amount {
    Amount::from_units(units.unsigned_abs())
}

async fn fund(
    transaction: &mut Transaction<'_, Sqlite>,
    journal: &str,
    funding: &FundingId,
    asset: &str,
    deposited: Amount,
    withdrawn: Amount,
) -> Result<Outcome> {
    let failed = LedgerError::database("booking a deposit");
    sqlx::query("INSERT INTO fundings (id, asset) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(funding.as_str())
        .bind(asset)
        .execute(&mut **transaction)
        .await
        .map_err(&failed)?;
    let row = sqlx::query("SELECT asset, deposited, withdrawn, available FROM fundings WHERE id = ?")
        .bind(funding.as_str())
        .fetch_one(&mut **transaction)
        .await;
    let row = row.map_err(&failed)?;
    let (known, in_before, out_before, available): (String, i64, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
    if known != asset {
        return Ok(Outcome::Refused(format!("{funding} is in {known}, not in {asset}")));
    }
    let (deposited_units, withdrawn_units) = (signed(deposited), signed(withdrawn));
    if deposited_units == in_before && withdrawn_units == out_before {
        return Ok(Outcome::Already);
    }
    let left = available + (deposited_units - in_before) - (withdrawn_units - out_before);
    if left < 0 {
        return Ok(Outcome::Refused(format!("{funding} would be short of {}: that much is reserved or spent", amount(left))));
    }
    sqlx::query("UPDATE fundings SET deposited = ?, withdrawn = ?, available = ? WHERE id = ?")
        .bind(deposited_units)
        .bind(withdrawn_units)
        .bind(left)
        .bind(funding.as_str())
        .execute(&mut **transaction)
        .await
        .map_err(&failed)?;
    let line =
        Line::Fund { funding: funding.to_string(), asset: asset.to_owned(), deposited: deposited.units(), withdrawn: withdrawn.units() };
    journal::append(transaction, journal, "posting", &line).await?;
    Ok(Outcome::Applied)
}

async fn reserve(
    transaction: &mut Transaction<'_, Sqlite>,
    journal: &str,
    work: &WorkId,
    funding: &FundingId,
    wanted: Amount,
    detail: &str,
) -> Result<Outcome> {
    let failed = LedgerError::database("reserving");
    let id = work.to_string();
    let row = sqlx::query("SELECT funding, reserved, open, detail FROM reservations WHERE work = ?")
        .bind(&id)
        .fetch_optional(&mut **transaction)
        .await
        .map_err(&failed)?;
    let (held, same) = match &row {
        None => (0, false),
        Some(row) if row.get::<String, _>(0) != funding.as_str() => {
            return Ok(Outcome::Refused(format!("{work} was reserved from {} and can't change to {funding}", row.get::<String, _>(0))));
        }
        Some(row) => {
            (row.get::<i64, _>(1), row.get::<i64, _>(2) == 1 && row.get::<i64, _>(1) == signed(wanted) && row.get::<String, _>(3) == detail)
        }
    };
    if same {
        return Ok(Outcome::Already);
    }
    let more = signed(wanted) - held;
    let balance = sqlx::query("SELECT available FROM fundings WHERE id = ?")
        .bind(funding.as_str())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(&failed)?;
    let available: i64 = match balance {
        None => return Ok(Outcome::Refused(format!("{funding} has no money yet"))),
        Some(row) => row.get(0),
    };
    if more > available {
        return Ok(Outcome::Refused(format!("{} is wanted and {} is available", wanted, amount(available))));
    }
    sqlx::query("UPDATE fundings SET available = available - ?, reserved = reserved + ? WHERE id = ?")
        .bind(more)
        .bind(more)
        .bind(funding.as_str())
        .execute(&mut **transaction)
        .await
        .map_err(&failed)?;
    let upsert = "INSERT INTO reservations (work, funding, reserved, open, detail) VALUES (?, ?, ?, 1, ?) \
                  ON CONFLICT (work) DO UPDATE SET reserved = excluded.reserved, open = 1, detail = excluded.detail";
    sqlx::query(upsert)
        .bind(&id)
        .bind(funding.as_str())
        .bind(signed(wanted))
        .bind(detail)
        .execute(&mut **transaction)
        .await
        .map_err(&failed)?;
    journal::append(transaction, journal, "posting", &Line::Reserve { work: id, funding: funding.to_string(), amount: wanted.units() })
        .await?;
    Ok(Outcome::Applied)
}

async fn apply_charge(transaction: &mut Transaction<'_, Sqlite>, journal: &str, charge: &Charge) -> Result<Outcome> {
    let failed = LedgerError::database("charging");
    let (work, segment) = (charge.work.to_string(), charge.segment.to_string());
    let known =
        sqlx::query("SELECT 1 FROM charges WHERE segment = ?").bind(&segment).fetch_optional(&mut **transaction).await.map_err(&failed)?;
    if known.is_some() {
        return Ok(Outcome::Already);
    }
    let row = sqlx::query("SELECT funding, reserved, charged, exact, split, absorbed FROM reservations WHERE work = ?")
        .bind(&work)
        .fetch_optional(&mut **transaction)
        .await
        .map_err(&failed)?;
    let Some(row) = row else { return Ok(Outcome::Refused(format!("{work} has no reservation to charge"))) };
    let (funding, reserved, charged): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
    let exact = ExactCost::from_digits(row.get(3)).ok_or_else(|| LedgerError::Broken(format!("{work}'s exact cost can't be read")))?;
    let split: Split = serde_json::from_str(row.get(4)).map_err(|_| LedgerError::Broken(format!("{work}'s split can't be read")))?;

    let Some((exact, all)) = exact.checked_add(charge.cost).and_then(|exact| Ok((exact, exact.charged()?))).ok() else {
        return Ok(Outcome::Refused(format!("{segment} costs more than the books can hold")));
    };
    // What the reservation no longer covers is ours to bear: it is shown, and never the buyer's.
    // What was absorbed once stays so: a later attempt's reservation does not pay for it.
    let due = signed(all) - charged - row.get::<i64, _>(5);
    let taken = due.min(reserved);
    let absorbed = due - taken;
    let split = if charge.payee.is_some() { split.grown_to(&charge.fees, amount(charged + taken)) } else { split };
    if let Some(payee) = charge.payee {
        grow_lanes(transaction, &funding, &work, payee, row.get(4), &split).await?;
    }
    sqlx::query("UPDATE reservations SET reserved = reserved - ?, charged = charged + ?, exact = ?, split = ?, absorbed = absorbed + ? WHERE work = ?")
        .bind(taken)
        .bind(taken)
        .bind(exact.to_digits())
        .bind(serde_json::to_string(&split).map_err(|error| LedgerError::Broken(error.to_string()))?)
        .bind(absorbed)
        .bind(&work)
        .execute(&mut **transaction)
        .await
        .map_err(&failed)?;
    // A grant is paid in the books: what is charged is settled at once.
    let column = if charge.payee.is_some() {
        "UPDATE fundings SET reserved = reserved - ?, owed = owed + ? WHERE id = ?"
    } else {
        "UPDATE fundings SET reserved = reserved - ?, posted = posted + ? WHERE id = ?"
    };
    sqlx::query(column).bind(taken).bind(taken).bind(&funding).execute(&mut **transaction).await.map_err(&failed)?;
    let insert = "INSERT INTO charges (segment, work, funding, attempt, seconds, evidence, amount, salt) VALUES (?, ?, ?, ?, ?, ?, ?, randomblob(32))";
    sqlx::query(insert)
        .bind(&segment)
        .bind(&work)
        .bind(&funding)
        .bind(i64::from(charge.attempt))
        .bind(i64::try_from(charge.seconds).unwrap_or(i64::MAX))
        .bind(format!("{:?}", charge.evidence))
        .bind(taken)
        .execute(&mut **transaction)
        .await
        .map_err(&failed)?;
    let line = Line::Charge {
        work,
        segment,
        attempt: charge.attempt,
        seconds: charge.seconds,
        evidence: charge.evidence,
        amount: taken.unsigned_abs(),
        absorbed: absorbed.unsigned_abs(),
    };
    journal::append(transaction, journal, "posting", &line).await?;
    Ok(Outcome::Applied)
}

/// Adds to each payee's lane what its part of the split has grown by.
async fn grow_lanes(
    transaction: &mut Transaction<'_, Sqlite>,
    funding: &str,
    work: &str,
    payee: u32,
    before: &str,
    after: &Split,
) -> Result<()> {
    let failed = LedgerError::database("adding to a lane");
    let before: Split = serde_json::from_str(before).map_err(|_| LedgerError::Broken(format!("{work}'s split can't be read")))?;
    let provider = (payee, after.provider.saturating_sub(before.provider));
    let fees = after.fees.iter().map(|(payee, fee)| (*payee, fee.saturating_sub(before.fees.get(payee).copied().unwrap_or_default())));
    for (payee, more) in std::iter::once(provider).chain(fees).filter(|(_, more)| !more.is_zero()) {
        sqlx::query("INSERT INTO lanes (funding, payee, total) VALUES (?, ?, ?) ON CONFLICT (funding, payee) DO UPDATE SET total = total + excluded.total")
            .bind(funding)
            .bind(i64::from(payee))
            .bind(signed(more))
            .execute(&mut **transaction)
            .await
            .map_err(&failed)?;
    }
    Ok(())
}

async fn release(transaction: &mut Transaction<'_, Sqlite>, journal: &str, work: &WorkId) -> Result<Outcome> {
    let failed = LedgerError::database("releasing a reservation");
    let id = work.to_string();
    let row = sqlx::query("SELECT funding, reserved FROM reservations WHERE work = ? AND open = 1")
        .bind(&id)
        .fetch_optional(&mut **transaction)
        .await
        .map_err(&failed)?;
    let Some(row) = row else { return Ok(Outcome::Already) };
    let (funding, returned): (String, i64) = (row.get(0), row.get(1));
    sqlx::query("UPDATE fundings SET reserved = reserved - ?, available = available + ? WHERE id = ?")
        .bind(returned)
        .bind(returned)
        .bind(&funding)
        .execute(&mut **transaction)
        .await
        .map_err(&failed)?;
    sqlx::query("UPDATE reservations SET reserved = 0, open = 0 WHERE work = ?")
        .bind(&id)
        .execute(&mut **transaction)
        .await
        .map_err(&failed)?;
    journal::append(transaction, journal, "posting", &Line::Release { work: id, returned: returned.unsigned_abs() }).await?;
    Ok(Outcome::Applied)
}
