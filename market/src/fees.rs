//! Fees come out of the price, never on top. They are rows of ordinary payees, as cumulative as the provider's own, and
//! together the rows are exactly what was charged.

use crate::money::Amount;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const WHOLE: u32 = 10_000;

/// A payee's number on its chain.
pub type Payee = u32;

/// One payee's part of the fee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FeeShare {
    pub payee: Payee,
    /// Of the fee, in hundredths of a percent. All shares together are 10,000.
    pub basis_points: u32,
}

/// What of each charge is a fee, and whose.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FeeSchedule {
    /// Of the charge, in hundredths of a percent.
    pub basis_points: u32,
    #[serde(default)]
    pub shares: Vec<FeeShare>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeeError {
    #[error("basisPoints is {0}: a fee is at most 10000, which is all of it")]
    MoreThanAll(u32),
    #[error("the shares add up to {0} basis points: they must be 10000 together, or none when there is no fee")]
    SharesDoNotAddUp(u64),
    #[error("payee {0} has two shares")]
    Twice(Payee),
    #[error("a share is of payee 0, who is nobody: payees are counted from 1")]
    Nobody,
}

impl FeeSchedule {
    pub fn validate(&self) -> Result<(), FeeError> {
        if self.basis_points > WHOLE {
            return Err(FeeError::MoreThanAll(self.basis_points));
        }
        let sum: u64 = self.shares.iter().map(|share| u64::from(share.basis_points)).sum();
        if sum != u64::from(WHOLE) && !(self.basis_points == 0 && self.shares.is_empty()) {
            return Err(FeeError::SharesDoNotAddUp(sum));
        }
        if self.shares.iter().any(|share| share.payee == 0) {
            return Err(FeeError::Nobody);
        }
        let mut seen = BTreeMap::new();
        match self.shares.iter().find(|share| seen.insert(share.payee, ()).is_some()) {
            Some(share) => Err(FeeError::Twice(share.payee)),
            None => Ok(()),
        }
    }

    /// What one payee's fee comes to when so much was charged in all.
    fn target(&self, share: &FeeShare, charged: Amount) -> u64 {
        let all = u128::from(charged.units()) * u128::from(self.basis_points) * u128::from(share.basis_points);
        // Both factors are at most 10,000, so the quotient is at most `charged`.
        u64::try_from(all / (u128::from(WHOLE) * u128::from(WHOLE))).unwrap_or(u64::MAX)
    }
}

/// What a work's charges were split into so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Split {
    pub provider: Amount,
    pub fees: BTreeMap<Payee, Amount>,
}

impl Split {
    pub fn total(&self) -> Amount {
        let units = self.fees.values().map(|fee| fee.units()).sum::<u64>() + self.provider.units();
        Amount::from_units(units)
    }

    /// The split once `charged` is charged in all. No part ever falls, also when the schedule has changed since: a fee
    /// that the next unit can't hold waits for the one after it.
    #[must_use]
    pub fn grown_to(&self, schedule: &FeeSchedule, charged: Amount) -> Self {
        let mut left = charged.saturating_sub(self.total()).units();
        let mut next = self.clone();
        for share in &schedule.shares {
            let fee = next.fees.entry(share.payee).or_default();
            let more = schedule.target(share, charged).saturating_sub(fee.units()).min(left);
            *fee = Amount::from_units(fee.units() + more);
            left -= more;
        }
        next.fees.retain(|_, fee| !fee.is_zero());
        next.provider = Amount::from_units(next.provider.units() + left);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedule(basis_points: u32, shares: &[(Payee, u32)]) -> FeeSchedule {
        let shares = shares.iter().map(|&(payee, basis_points)| FeeShare { payee, basis_points }).collect();
        FeeSchedule { basis_points, shares }
    }

    #[test]
    fn the_parts_are_the_whole() {
        let split = Split::default().grown_to(&schedule(250, &[(1, 9_000), (2, 700), (3, 300)]), Amount::from_units(1_000_000));
        assert_eq!(split.provider.units(), 975_000);
        assert_eq!(split.fees.values().map(|fee| fee.units()).collect::<Vec<_>>(), [22_500, 1_750, 750]);
    }

    #[test]
    fn a_schedule_that_does_not_add_up_is_refused() {
        assert_eq!(schedule(250, &[(1, 9_000)]).validate(), Err(FeeError::SharesDoNotAddUp(9_000)));
        assert_eq!(schedule(10_001, &[(1, 10_000)]).validate(), Err(FeeError::MoreThanAll(10_001)));
        assert_eq!(schedule(1, &[(1, 5_000), (1, 5_000)]).validate(), Err(FeeError::Twice(1)));
        assert_eq!(schedule(250, &[(0, 10_000)]).validate(), Err(FeeError::Nobody));
        assert_eq!(schedule(0, &[]).validate(), Ok(()));
    }

    #[test]
    fn shares_that_do_not_add_up_still_make_parts_that_are_the_charge_and_no_more() {
        let charged = Amount::from_units(1_000);
        for (basis_points, shares, provider) in [
            (5_000, vec![(1, 10_000), (2, 10_000)], 0),
            (20_000, vec![(1, 10_000)], 0),
            (1_000, vec![(1, 4_000)], 960),
            (1_000, vec![], 1_000),
        ] {
            let split = Split::default().grown_to(&schedule(basis_points, &shares), charged);
            assert_eq!((split.total(), split.provider.units()), (charged, provider), "{basis_points} of {shares:?}");
        }
    }

    proptest! {
        #[test]
        fn no_part_ever_falls_and_all_of_them_are_the_charge(steps in prop::collection::vec((0_u64..5_000, 0_u32..=10_000), 1..40)) {
            let mut split = Split::default();
            let mut charged = 0;
            for (more, basis_points) in steps {
                charged += more;
                let next = split.grown_to(&schedule(basis_points, &[(1, 9_000), (2, 700), (3, 300)]), Amount::from_units(charged));
                prop_assert_eq!(next.total().units(), charged);
                prop_assert!(next.provider >= split.provider);
                for (payee, fee) in &split.fees {
                    prop_assert!(next.fees[payee] >= *fee);
                }
                split = next;
            }
        }
    }
}
