//! Vouchers: of each lane the rows that were signed for its payee, in steps up to the newest total. They move no money: what is
//! claimed with one is found on the chain.

use crate::commit::{amount, signed};
use crate::read::lane;
use crate::store::Writing;
use crate::{Fence, Lane, Ledger, LedgerError, Result};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};
use std::collections::{BTreeMap, BTreeSet};
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

/// A signed row, and what it is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voucher {
    pub funding: FundingId,
    pub payee: u32,
    pub total: Amount,
    /// So far it is at most above the lane's voucher below it, or above what the lane was credited when it was signed.
    pub step: Amount,
    pub terms: VoucherTerms,
    pub signature: Vec<u8>,
    pub signed_at: i64,
}

/// Where vouchers can be claimed with, and whose word they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoucherTerms {
    pub chain_id: u64,
    pub contract: String,
    pub signer: String,
}

/// Lanes of a chain's accounts with more in them than a voucher of these terms is for.
const WITHOUT_VOUCHER: &str = "FROM lanes l LEFT JOIN vouchers v ON v.funding = l.funding AND v.payee = l.payee \
     AND v.total >= l.total AND v.chain_id = $1 AND v.contract = $2 AND v.signer = $3 \
     WHERE v.payee IS NULL AND l.total > 0 AND l.funding LIKE $4";

/// All accounts of a chain.
fn of_chain(chain: &str) -> String {
    format!("chain:{chain}:%")
}

impl Ledger {
    /// Lanes of a chain for whose whole total there is no voucher of these terms, in pages after one of them.
    pub async fn lanes_without_voucher(
        &self,
        chain: &str,
        terms: &VoucherTerms,
        after: Option<&(FundingId, u32)>,
        most: u32,
    ) -> Result<Vec<(FundingId, Lane)>> {
        let query = format!(
            "SELECT l.payee, l.total, l.planned, l.posted, l.funding {WITHOUT_VOUCHER} \
             AND (l.funding > $5 OR (l.funding = $5 AND l.payee > $6)) ORDER BY l.funding, l.payee LIMIT $7"
        );
        let (funding, payee) = after.map_or_else(|| (String::new(), 0), |(funding, payee)| (funding.to_string(), *payee));
        let rows = sqlx::query(AssertSqlSafe(query))
            .bind(terms.chain_id.cast_signed())
            .bind(&terms.contract)
            .bind(&terms.signer)
            .bind(of_chain(chain))
            .bind(funding)
            .bind(i64::from(payee))
            .bind(i64::from(most))
            .fetch_all(self.pool())
            .await
            .map_err(LedgerError::database("looking for lanes without a voucher"))?;
        Ok(rows.iter().map(|row| (FundingId::from_stored(row.get::<String, _>(4)), lane(row))).collect())
    }

    /// Whose lanes those are.
    pub async fn payees_without_voucher(&self, chain: &str, terms: &VoucherTerms) -> Result<BTreeSet<u32>> {
        let rows = sqlx::query(AssertSqlSafe(format!("SELECT DISTINCT l.payee {WITHOUT_VOUCHER}")))
            .bind(terms.chain_id.cast_signed())
            .bind(&terms.contract)
            .bind(&terms.signer)
            .bind(of_chain(chain))
            .fetch_all(self.pool())
            .await
            .map_err(LedgerError::database("looking for payees without a voucher"))?;
        Ok(rows.iter().map(|row| payee(row, 0)).collect())
    }

    /// Lanes of an account whose vouchers of these terms are further apart than this, where that matters: more is owed than that.
    pub async fn lanes_with_wide_vouchers(&self, funding: &FundingId, terms: &VoucherTerms, step: Amount) -> Result<Vec<Lane>> {
        let query = "SELECT l.payee, l.total, l.planned, l.posted FROM lanes l WHERE l.funding = $1 AND l.total - l.posted > $2 \
                     AND EXISTS (SELECT 1 FROM vouchers v WHERE v.funding = l.funding AND v.payee = l.payee AND v.step > $2 \
                     AND v.chain_id = $3 AND v.contract = $4 AND v.signer = $5) ORDER BY l.payee";
        let rows = sqlx::query(query)
            .bind(funding.to_string())
            .bind(signed(step))
            .bind(terms.chain_id.cast_signed())
            .bind(&terms.contract)
            .bind(&terms.signer)
            .fetch_all(self.pool())
            .await
            .map_err(LedgerError::database("looking for vouchers that are too far apart"))?;
        Ok(rows.iter().map(lane).collect())
    }

    /// Keeps vouchers, all in one transaction. Those of a lane come together, and take the place of all that are kept for it. Where
    /// they lead to less than what is kept for the same contract they change nothing.
    pub async fn keep_vouchers(&self, fence: Fence, vouchers: &[Voucher]) -> Result<()> {
        let doing = "keeping vouchers";
        let mut writing = self.store.begin(fence).await?;
        for of_lane in vouchers.chunk_by(|one, other| (&one.funding, one.payee) == (&other.funding, other.payee)) {
            keep(&mut writing, of_lane).await.map_err(LedgerError::database(doing))?;
        }
        writing.commit(doing).await
    }

    /// A payee's vouchers from a chain's accounts, in the order of those, after one of them; of an account the one for most first.
    pub async fn vouchers(&self, chain: &str, payee: u32, after: &FundingId, most: u32) -> Result<Vec<Voucher>> {
        self.vouchers_below(chain, payee, (after, Amount::ZERO), most).await
    }

    /// The same from within an account's: those for less than this of it, and then the others'.
    pub async fn vouchers_below(&self, chain: &str, payee: u32, (after, below): (&FundingId, Amount), most: u32) -> Result<Vec<Voucher>> {
        let query = "SELECT funding, payee, total, step, chain_id, contract, signer, signature, signed_at FROM vouchers \
                     WHERE payee = $1 AND funding LIKE $2 AND (funding > $3 OR (funding = $3 AND total < $4)) \
                     ORDER BY funding, total DESC LIMIT $5";
        let rows = sqlx::query(query)
            .bind(i64::from(payee))
            .bind(of_chain(chain))
            .bind(after.to_string())
            .bind(signed(below))
            .bind(i64::from(most))
            .fetch_all(self.pool())
            .await
            .map_err(LedgerError::database("reading vouchers"))?;
        Ok(rows.iter().map(voucher).collect())
    }

    /// Whom a chain's accounts owe, or have ever owed.
    pub async fn payees(&self, chain: &str) -> Result<BTreeSet<u32>> {
        let query = sqlx::query("SELECT DISTINCT payee FROM lanes WHERE funding LIKE $1").bind(of_chain(chain));
        let rows = query.fetch_all(self.pool()).await.map_err(LedgerError::database("reading payees"))?;
        Ok(rows.iter().map(|row| payee(row, 0)).collect())
    }

    /// For how much of each lane of an account there is a voucher: so much may be on the chain without a post of ours.
    pub async fn vouched(&self, funding: &FundingId) -> Result<BTreeMap<u32, Amount>> {
        let query = sqlx::query("SELECT payee, MAX(total) FROM vouchers WHERE funding = $1 GROUP BY payee").bind(funding.to_string());
        let rows = query.fetch_all(self.pool()).await.map_err(LedgerError::database("reading what is vouched for"))?;
        Ok(rows.iter().map(|row| (payee(row, 0), amount(row.get(1)))).collect())
    }
}

/// Those of one lane.
async fn keep(writing: &mut Writing, vouchers: &[Voucher]) -> sqlx::Result<()> {
    let Some(last) = vouchers.iter().max_by_key(|voucher| voucher.total) else { return Ok(()) };
    let (funding, payee) = (last.funding.to_string(), i64::from(last.payee));
    let query = "SELECT COUNT(*) FROM vouchers WHERE funding = $1 AND payee = $2 AND total > $3 AND chain_id = $4 AND contract = $5";
    let query = sqlx::query(query).bind(funding.clone()).bind(payee).bind(signed(last.total));
    let query = query.bind(last.terms.chain_id.cast_signed()).bind(&last.terms.contract);
    if query.fetch_one(&mut *writing.transaction).await?.get::<i64, _>(0) > 0 {
        return Ok(());
    }
    let delete = sqlx::query("DELETE FROM vouchers WHERE funding = $1 AND payee = $2").bind(funding).bind(payee);
    delete.execute(&mut *writing.transaction).await?;
    let put = "INSERT INTO vouchers (funding, payee, total, step, chain_id, contract, signer, signature, signed_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    for voucher in vouchers {
        sqlx::query(put)
            .bind(voucher.funding.to_string())
            .bind(payee)
            .bind(signed(voucher.total))
            .bind(signed(voucher.step))
            .bind(voucher.terms.chain_id.cast_signed())
            .bind(&voucher.terms.contract)
            .bind(&voucher.terms.signer)
            .bind(&voucher.signature)
            .bind(voucher.signed_at)
            .execute(&mut *writing.transaction)
            .await?;
    }
    Ok(())
}

pub(crate) fn payee(row: &AnyRow, index: usize) -> u32 {
    u32::try_from(row.get::<i64, _>(index)).unwrap_or_default()
}

fn voucher(row: &AnyRow) -> Voucher {
    Voucher {
        funding: FundingId::from_stored(row.get::<String, _>(0)),
        payee: payee(row, 1),
        total: amount(row.get(2)),
        step: amount(row.get(3)),
        terms: VoucherTerms { chain_id: row.get::<i64, _>(4).unsigned_abs(), contract: row.get(5), signer: row.get(6) },
        signature: row.get(7),
        signed_at: row.get(8),
    }
}
