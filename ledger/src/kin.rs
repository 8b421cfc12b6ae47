//! Works below works: a session's tasks, an agent's executions. What is held back for one comes out of what its parent holds
//! and has not used, so a tree never costs more than was held back for its root.

use crate::commit::moved;
use crate::working::Working;
use crate::{LedgerError, Result};
use supercargo_market::money::Amount;

/// So many works may stand one below the other.
const DEEPEST: usize = 8;

/// A row of `kin`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kin {
    pub(crate) parent: Option<String>,
    /// Passed on to works below it, and not charged yet: what they hold and what they have passed on.
    pub(crate) lent: Amount,
    /// What works below it were charged, however far below.
    pub(crate) below: Amount,
}

impl Working {
    /// The works above one, the nearest first. A group has all of them in memory.
    fn above(&self, work: &str) -> Result<Vec<String>> {
        let (mut all, mut next) = (Vec::new(), work);
        while let Some(parent) = self.row(next)?.kin.parent.as_deref() {
            all.push(parent.to_owned());
            next = parent;
        }
        Ok(all)
    }

    /// The first work above one that is not in memory.
    pub(crate) fn unread_above(&self, work: &str) -> Option<String> {
        let mut row = self.reservations.get(work)?;
        loop {
            let parent = row.kin.parent.as_deref()?;
            match self.reservations.get(parent) {
                Some(next) => row = next,
                None => return Some(parent.to_owned()),
            }
        }
    }

    /// What speaks against a new work of this funding below that one.
    pub(crate) fn refuses_child(&self, parent: &str, funding: &str) -> Result<Option<String>> {
        let Some(row) = self.reservations.get(parent) else { return Ok(Some(format!("nothing was ever held back for {parent}"))) };
        if row.funding != funding {
            return Ok(Some(format!("{parent} is paid from {}, and what is below it can't be paid from {funding}", row.funding)));
        }
        // It, those above it, and the new one.
        let deep = self.above(parent)?.len() + 2 > DEEPEST;
        Ok(deep.then(|| format!("{parent} is the {DEEPEST}th of works one below the other, and nothing can be below it")))
    }

    /// Holds back so much more for a work below another, out of what that one holds and has not used. In words why not.
    pub(crate) fn draw(&mut self, parent: &str, more: Amount) -> Result<Option<String>> {
        let row = self.row_mut(parent)?;
        if more.is_zero() {
            return Ok(None);
        }
        if !row.open {
            return Ok(Some(format!("{more} is wanted, and nothing is held back for {parent} any more")));
        }
        let free = row.reserved.saturating_sub(row.used);
        if more > free {
            return Ok(Some(format!("{more} is wanted and {free} is left of {parent}")));
        }
        row.reserved = moved(row.reserved, more, Amount::ZERO, parent)?;
        row.kin.lent = moved(row.kin.lent, Amount::ZERO, more, parent)?;
        self.changes.reservations.insert(parent.to_owned());
        self.changes.kin.insert(parent.to_owned());
        Ok(None)
    }

    /// What is no longer held back for a work goes back to whom it came from: the nearest above it that is not over, or what
    /// pays for all of them.
    pub(crate) fn give_back(&mut self, work: &str, rest: Amount) -> Result<()> {
        for id in self.above(work)? {
            let row = self.row_mut(&id)?;
            row.kin.lent = moved(row.kin.lent, rest, Amount::ZERO, &id)?;
            let takes = row.open;
            if takes {
                row.reserved = moved(row.reserved, Amount::ZERO, rest, &id)?;
                self.changes.reservations.insert(id.clone());
            }
            self.changes.kin.insert(id);
            if takes {
                return Ok(());
            }
        }
        let name = self.row(work)?.funding.clone();
        let funding = self.fundings.get_mut(&name).ok_or_else(|| LedgerError::Broken(format!("{work}'s funding is unknown")))?;
        funding.reserved = moved(funding.reserved, rest, Amount::ZERO, &name)?;
        funding.available = moved(funding.available, Amount::ZERO, rest, &name)?;
        funding.cover_shortfall();
        self.changes.fundings.insert(name);
        Ok(())
    }

    /// What a work was charged counts for all above it.
    pub(crate) fn charge_above(&mut self, work: &str, taken: Amount) -> Result<()> {
        for id in self.above(work)? {
            let row = self.row_mut(&id)?;
            row.kin.lent = moved(row.kin.lent, taken, Amount::ZERO, &id)?;
            row.kin.below = moved(row.kin.below, Amount::ZERO, taken, &id)?;
            self.changes.kin.insert(id);
        }
        Ok(())
    }
}
