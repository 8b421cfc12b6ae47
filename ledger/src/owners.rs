//! Who registered which payee, as a chain said it when it could be asked. A contract never changes that, so whoever restarts while
//! the chain is away goes on from here. They move no money, and are facts of the books by contract and payee.

use crate::batch::FACTS;
use crate::{Fence, Ledger, LedgerError, Result};
use sqlx::Row;
use std::collections::BTreeMap;

/// The beginning of these facts' names.
fn of(chain_id: u64, contract: &str) -> String {
    format!("payee owner:{chain_id}:{contract}:")
}

impl Ledger {
    /// Keeps the owners of a contract's payees, by their addresses. The same again changes nothing.
    pub async fn keep_owners(&self, fence: Fence, chain_id: u64, contract: &str, owners: &BTreeMap<u32, String>) -> Result<()> {
        let doing = "keeping who owns a payee";
        let mut writing = self.store.begin(fence).await?;
        for (payee, owner) in owners {
            let fact = vec![format!("{}{payee}", of(chain_id, contract)).into(), owner.clone().into()];
            FACTS.put(&mut writing.transaction, fact, doing).await?;
        }
        writing.commit(doing).await
    }

    /// The chain undid what was final: who owns which payee is asked anew.
    pub async fn forget_owners(&self, fence: Fence, chain_id: u64, contract: &str) -> Result<()> {
        let doing = "forgetting who owns payees";
        let mut writing = self.store.begin(fence).await?;
        let delete = sqlx::query("DELETE FROM facts WHERE name LIKE $1").bind(format!("{}%", of(chain_id, contract)));
        delete.execute(&mut *writing.transaction).await.map_err(LedgerError::database(doing))?;
        writing.commit(doing).await
    }

    /// The owners of a contract's payees, as far as they are known.
    pub async fn owners(&self, chain_id: u64, contract: &str) -> Result<BTreeMap<u32, String>> {
        let begin = of(chain_id, contract);
        let query = sqlx::query("SELECT name, value FROM facts WHERE name LIKE $1").bind(format!("{begin}%"));
        let rows = query.fetch_all(self.pool()).await.map_err(LedgerError::database("reading who owns payees"))?;
        let owner = |row: &sqlx::any::AnyRow| Some((row.get::<&str, _>(0).strip_prefix(&begin)?.parse().ok()?, row.get(1)));
        Ok(rows.iter().filter_map(owner).collect())
    }
}
