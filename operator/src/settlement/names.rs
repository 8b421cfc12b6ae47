//! Whom a look is for: the accounts that escrows name, and those that owe something, whether an escrow names them or not.

use supercargo_ledger::{Ledger, LedgerError};
use supercargo_market::work::FundingId;

#[derive(Debug, Default)]
pub struct Names {
    /// By the books, when they were last read. None before that.
    owing: Option<Vec<FundingId>>,
}

impl Names {
    /// Books that can't be read say nothing: who owed something when they last could be does so still.
    pub async fn read(&mut self, ledger: &Ledger) -> Result<(), LedgerError> {
        self.owing = Some(ledger.unsettled().await?.into_iter().map(|(funding, _)| funding).collect());
        Ok(())
    }

    /// In order, each once. None while the books were never read: nobody knows who owes something.
    pub fn of(&self, chain: &str, escrows: Vec<FundingId>) -> Option<Vec<FundingId>> {
        let is_here = |funding: &FundingId| funding.account().is_some_and(|(name, _)| name == chain);
        let mut names: Vec<FundingId> = escrows.into_iter().chain(self.owing.clone()?).filter(is_here).collect();
        names.sort();
        names.dedup();
        Some(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settlement::simulation::{account, charge, open};
    use sqlx::{AnyConnection, Connection, Executor};

    #[tokio::test]
    async fn books_that_can_not_be_read_do_not_say_that_nobody_owes_anything() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("books.db").display());
        let ledger = Ledger::open(&url).await.expect("opens");
        let fence = ledger.take_lead("one").await.expect("leads");
        open(&ledger, fence).await;
        ledger.commit(fence, &[charge(1, 1, 100)]).await.expect("commits");
        let (mut names, mut begun) = (Names::default(), Names::default());
        let escrows = || vec![account(0), account(0), FundingId::chain("another", "0x1")];
        assert_eq!(names.of("c", escrows()), None, "the books were never read");
        names.read(&ledger).await.expect("reads");
        assert_eq!(names.of("c", escrows()), Some(vec![account(0), account(1)]));
        let mut other = AnyConnection::connect(&url).await.expect("connects");
        other.execute("ALTER TABLE lanes RENAME TO gone").await.expect("breaks the books");
        assert!(names.read(&ledger).await.is_err() && begun.read(&ledger).await.is_err());
        assert_eq!(names.of("c", vec![]), Some(vec![account(1)]), "it owed something when they could be read");
        assert_eq!(begun.of("c", escrows()), None);
    }
}
