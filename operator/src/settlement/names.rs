//! Whom a look is for: the accounts that escrows name, and those that owe something, whether an escrow names them or not.

use std::collections::BTreeSet;
use supercargo_ledger::{Ledger, LedgerError};
use supercargo_market::work::FundingId;

/// So many accounts that the books don't know are looked at in one look: anybody can name as many as they like.
const MOST_STRANGERS: usize = 32;

#[derive(Debug, Default)]
pub struct Names {
    /// By the books, when they were last read. None before that.
    owing: Option<BTreeSet<FundingId>>,
    /// Those with money in the books.
    known: BTreeSet<FundingId>,
    /// Whose turn it was last of those that the books don't know.
    turn: Option<FundingId>,
}

impl Names {
    /// Books that can't be read say nothing: who owed something when they last could be does so still.
    pub async fn read(&mut self, ledger: &Ledger) -> Result<(), LedgerError> {
        let owing: BTreeSet<FundingId> = ledger.unsettled().await?.into_iter().map(|(funding, _)| funding).collect();
        self.known = ledger.fundings().await?.into_iter().collect();
        self.owing = Some(owing);
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

    /// Those of this look: all that the books know, first those that owe something, and of the others the next.
    pub fn in_turn(&mut self, named: &[FundingId]) -> Vec<FundingId> {
        let (mut names, strangers): (Vec<_>, Vec<_>) = named.iter().cloned().partition(|funding| self.known.contains(funding));
        let first = strangers.partition_point(|funding| Some(funding) <= self.turn.as_ref());
        let next: Vec<FundingId> = strangers.iter().cycle().skip(first).take(strangers.len().min(MOST_STRANGERS)).cloned().collect();
        self.turn = next.last().cloned();
        names.sort_by_key(|funding| !self.owing.as_ref().is_some_and(|owing| owing.contains(funding)));
        names.extend(next);
        names
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

    #[tokio::test]
    async fn whoever_names_thousands_of_accounts_keeps_nobody_waiting_and_each_has_its_turn() {
        let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
        let fence = ledger.take_lead("one").await.expect("leads");
        open(&ledger, fence).await;
        let mut names = Names::default();
        names.read(&ledger).await.expect("reads");
        let named: Vec<FundingId> = (0..102).map(account).collect();
        let mut turns = Vec::new();
        for _ in 0..8 {
            let look = names.in_turn(&named);
            assert_eq!(look[..2], [account(0), account(1)], "whom the books know is looked at each time");
            assert_eq!(look.len(), 2 + 32);
            turns.extend_from_slice(&look[2..]);
        }
        let expected: Vec<FundingId> = named[2..].iter().cycle().take(8 * 32).cloned().collect();
        assert_eq!(turns, expected);
        assert_eq!(names.in_turn(&named[..5]).len(), 5, "a few are all looked at each time");
        assert_eq!(names.in_turn(&[]), []);
    }

    #[tokio::test]
    async fn accounts_that_owe_something_come_first() {
        let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
        let fence = ledger.take_lead("one").await.expect("leads");
        open(&ledger, fence).await;
        ledger.commit(fence, &[charge(1, 1, 100)]).await.expect("commits");
        let mut names = Names::default();
        names.read(&ledger).await.expect("reads");
        let named: Vec<FundingId> = (0..3).map(account).collect();
        assert_eq!(names.in_turn(&named), [account(1), account(0), account(2)]);
    }
}
