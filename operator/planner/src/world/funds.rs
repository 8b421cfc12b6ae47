//! What an escrow has left to hold back, by the books and by what its owner allows; and what was told of it.

use super::records::Escrow;
use super::{Key, World};
use supercargo_crds::escrow::{EscrowStatus, Funding};
use supercargo_market::funding::Day;
use supercargo_market::money::Amount;
use supercargo_market::work::{FundingId, WorkId};

/// Whose clock was ahead for a while may have been told of a day that is yet to come.
const KEPT_DAYS: usize = 3;

/// What may be held back now, and with a limit of the day what of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Funds {
    pub available: Amount,
    pub day: Option<Day>,
}

impl Funds {
    /// The most that may be held back for one task.
    pub fn most(&self) -> Amount {
        self.day.map_or(self.available, |day| self.available.min(day.left()))
    }
}

/// What is told of an escrow's money: it moves with every task, and its status must not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Telling {
    /// Until when what was written has used up its turns.
    pub spent_until: i64,
    /// When its figures are looked at though nothing else is to be told.
    pub look_at: Option<i64>,
    /// Was to be written, and is not seen yet.
    pub written: Option<Box<EscrowStatus>>,
}

impl World {
    /// `None` as long as the books do not know the escrow. What was decided counts, also before the books know of it.
    pub fn funds<'a>(&self, escrow: &'a Escrow) -> Option<(&'a FundingId, Funds)> {
        let funding = escrow.funding.as_ref()?;
        let (balance, _) = self.fundings.get(funding)?;
        let committed = self.market.committed(funding);
        let reserved = balance.reserved.checked_add(committed).unwrap_or(Amount::MAX);
        let bound = [balance.owed, balance.posted].iter().try_fold(balance.reserved, |sum, part| sum.checked_add(*part));
        // A grant that was lowered lends no more than what it is now, also before the books have it.
        let granted = match escrow.spec.funding {
            Funding::Internal => escrow.spec.grant.map(|grant| grant.0.saturating_sub(bound.unwrap_or(Amount::MAX))),
            Funding::Chain => None,
        };
        let available = granted.map_or(balance.available, |granted| granted.min(balance.available)).saturating_sub(committed);
        let charged = self.days.get(funding).and_then(|days| days.get(&self.today)).copied().unwrap_or_default();
        let day = escrow.spec.daily_limit.map(|limit| Day { limit: limit.0, charged, reserved });
        Some((funding, Funds { available, day }))
    }

    /// The works that something is held back for.
    pub fn held_by(&self, funding: &FundingId) -> impl Iterator<Item = &WorkId> {
        self.index.held_by.get(funding).into_iter().flatten()
    }

    /// Something is held back for a work, or nothing any more.
    pub(super) fn link_funding(&mut self, work: &WorkId, before: Option<&FundingId>, after: Option<&FundingId>) {
        if before == after {
            return;
        }
        if let Some(funding) = before {
            super::apply::unlink(&mut self.index.held_by, funding, work);
        }
        if let Some(funding) = after {
            self.index.held_by.entry(funding.clone()).or_default().insert(work.clone());
        }
    }

    pub(super) fn spent(&mut self, funding: FundingId, day: i64, charged: Amount) {
        self.today = self.today.max(day);
        let days = self.days.entry(funding.clone()).or_default();
        days.insert(day, charged);
        if days.len() > KEPT_DAYS {
            days.pop_first();
        }
        self.lend(&funding);
    }

    /// A part of what is reserved is used by now.
    pub(super) fn held(&mut self, at: i64, fundings: Vec<(FundingId, Amount)>) {
        self.held_at = at;
        self.fundings.values_mut().for_each(|(balance, _)| balance.held = Amount::ZERO);
        for (funding, held) in fundings {
            if let Some((balance, _)) = self.fundings.get_mut(&funding) {
                balance.held = held;
            }
        }
    }

    /// Who waits for money may have enough of it now.
    pub(super) fn lend(&mut self, funding: &FundingId) {
        let payers: Vec<Key> = self.escrows_of(funding);
        let most = payers.iter().filter_map(|key| Some(self.funds(self.escrows.get(key)?)?.1.most())).max();
        if let Some(most) = most {
            self.market.funding_has(funding, most).into_iter().for_each(|work| self.todo.works.push(work));
        }
    }
}
