//! A provider's reputation: what it has served against what went wrong by its fault, from 0 to 100. All in hours, so that
//! a person can follow it: a newcomer has as many good hours as bad ones, and each that is added moves it less.

use crate::metering::Evidence;

const SECONDS_PER_HOUR: u64 = 3_600;
/// What a newcomer begins with, good and bad: a reputation of 50 that some days of service move.
const NEWCOMER_HOURS: u64 = 100;
/// An attempt that ended by the provider's fault undoes so many hours.
const FAULT_HOURS: u64 = 10;
/// Evidence that disagrees weighs more: it may be a lie.
const DISAGREEMENT_HOURS: u64 = 50;

/// What a reputation is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Record {
    /// Seconds of attempts that were served.
    pub served_seconds: u64,
    /// Attempts that ended by the provider's fault.
    pub faults: u32,
    /// Times that two sources did not say the same.
    pub disagreements: u32,
}

impl Record {
    /// With one container more: what it served, or that it ended by the provider's fault.
    pub fn with(self, seconds: u64, fault: bool, evidence: Evidence) -> Self {
        Self {
            served_seconds: self.served_seconds.saturating_add(if fault { 0 } else { seconds }),
            faults: self.faults.saturating_add(u32::from(fault)),
            // The container's record says what our own clock rules out.
            disagreements: self.disagreements.saturating_add(u32::from(evidence == Evidence::Clamped)),
        }
    }

    pub fn reputation(&self) -> u8 {
        let good = u128::from(NEWCOMER_HOURS + self.served_seconds / SECONDS_PER_HOUR);
        let bad = NEWCOMER_HOURS + u64::from(self.faults) * FAULT_HOURS + u64::from(self.disagreements) * DISAGREEMENT_HOURS;
        u8::try_from(100 * good / (good + u128::from(bad))).unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_newcomer_has_fifty_and_a_thousand_hours_without_fault_make_ninety() {
        assert_eq!(Record::default().reputation(), 50);
        let of = |hours: u64, faults, disagreements| Record { served_seconds: hours * 3_600, faults, disagreements }.reputation();
        assert_eq!([of(100, 0, 0), of(1_000, 0, 0), of(0, 5, 0), of(0, 0, 5), of(1_000, 10, 0)], [66, 91, 40, 22, 84]);
    }

    proptest! {
        #[test]
        fn service_never_lowers_it_and_a_fault_never_raises_it(served_seconds in any::<u64>(), faults in any::<u32>(), disagreements in any::<u32>()) {
            let record = Record { served_seconds, faults, disagreements };
            let served = Record { served_seconds: served_seconds.saturating_add(3_600), ..record }.reputation();
            let failed = Record { faults: faults.saturating_add(1), ..record }.reputation();
            let disagreed = Record { disagreements: disagreements.saturating_add(1), ..record }.reputation();
            let now = record.reputation();
            prop_assert!(now <= 100 && served >= now && failed <= now && disagreed <= now);
        }
    }
}
