//! Vouchers in steps. The contract credits a lane no more at a time than what its account's bucket holds, a burst at most, and then
//! takes nothing more for a window: a voucher for all that is owed is worth nothing to who is owed more than that. So a lane has
//! several, each for a total; whichever is claimed with, the next one goes on from there.

use crate::money::Amount;

/// No lane has more vouchers: what is further than these lead is signed for when they are behind.
pub const MOST_STEPS: usize = 64;

/// How far a voucher is at most above the one below it: half a burst, so that whatever was credited before, a claim finds one for
/// more than half of what the bucket can hold.
#[must_use]
pub fn step(burst: Amount) -> Amount {
    Amount::from_units(burst.units().div_ceil(2).max(1))
}

/// For which totals vouchers are signed, the least first: of a lane that is owed `total` and has been credited `credited` for good.
/// The same steps lead to a total that has grown, so that vouchers which were taken stay what they are. The last is for all of it.
#[must_use]
pub fn totals(credited: Amount, total: Amount, step: Amount) -> Vec<Amount> {
    let (step, total) = (step.units().max(1), total.units());
    let first = (credited.units() / step).saturating_add(1);
    let steps = (first..).map_while(|number| number.checked_mul(step).filter(|units| *units < total));
    steps.take(MOST_STEPS - 1).chain([total]).map(Amount::from_units).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn units(credited: u64, total: u64, step: u64) -> Vec<u64> {
        let totals = totals(Amount::from_units(credited), Amount::from_units(total), Amount::from_units(step));
        totals.into_iter().map(Amount::units).collect()
    }

    #[test]
    fn a_lane_has_a_voucher_for_each_step_above_what_was_credited_and_one_for_all() {
        for (credited, total, step, expected) in [
            (0, 25, 10, vec![10, 20, 25]),
            (0, 20, 10, vec![10, 20]),
            (10, 25, 10, vec![20, 25]),
            (9, 25, 10, vec![10, 20, 25]),
            (15, 18, 10, vec![18]),
            (15, 33, 10, vec![20, 30, 33]),
            (0, 7, u64::MAX, vec![7]),
            (0, 3, 0, vec![1, 2, 3]),
            (30, 25, 10, vec![25]),
            (u64::MAX, 25, 10, vec![25]),
        ] {
            assert_eq!(units(credited, total, step), expected, "{credited} of {total} by {step}");
        }
        let many = units(0, 1_000, 1);
        assert_eq!((many.len(), many[62], many[63]), (64, 63, 1_000));
        for (burst, expected) in [(0, 1), (1, 1), (2, 1), (5, 3), (10, 5)] {
            assert_eq!(step(Amount::from_units(burst)).units(), expected, "of a burst of {burst}");
        }
    }

    proptest! {
        /// A lane that is claimed from whenever its bucket is full gets to all that it is owed, a burst at a time.
        #[test]
        fn who_claims_the_greatest_that_fits_gets_it_all(posted in 0..500u64, more in 1..500u64, burst in 1..200u64, ahead in 0..500u64) {
            let total = posted + more;
            let signed = units(posted, total, step(Amount::from_units(burst)).units());
            prop_assume!(signed.len() < MOST_STEPS);
            // A post or a claim may have brought it anywhere since they were signed.
            let mut has = (posted + ahead).min(total);
            let mut claims = 0;
            while has < total {
                let next = signed.iter().copied().filter(|total| *total > has && *total - has <= burst).max();
                let next = next.expect("one of them fits");
                prop_assert!(next == total || (next - has) * 2 >= burst, "{next} of {signed:?} after {has} is less than half a burst");
                (has, claims) = (next, claims + 1);
            }
            prop_assert!(claims <= more * 2 / burst + 1);
        }
    }
}
