//! What can be collected of an account on a chain, whatever its payer does next: leaving and lowering take a thaw, and what
//! goes with them is counted as gone from the day that it is announced. Amounts are in base units, times in seconds of the
//! chain's clock.

use crate::money::Amount;
use crate::rating::ExactCost;

/// Of the account's rate no more than this many percent are used by what runs: the rest is for what was late.
pub const MOST_RATE_PERCENT: u64 = 80;
/// Until what was sent is final.
const FINALITY_SECONDS: u64 = 3_600;
/// A bucket that fills is looked at in so many steps: each step is a line in the books, and no more.
const LEVEL_STEPS: u64 = 16;

/// What the contract fixed when it was deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// After a credit a lane takes no other for so long.
    pub window_seconds: u64,
    /// So long leaving and lowering take.
    pub thaw_seconds: u64,
}

/// What a payer allows to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    pub allowance_units: u64,
    pub burst_units: u64,
    pub rate_units_per_second: u64,
}

/// What waits for its time, and takes effect then whoever wants it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub limits: Limits,
    /// Another settler: we can't collect anything from then on.
    pub leaves_us: bool,
    pub apply_at: u64,
}

/// An account as it stands at one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    pub balance_units: u64,
    pub thawing_units: u64,
    /// From then on what thaws may be gone.
    pub thaw_end: u64,
    pub limits: Limits,
    /// What may leave at once: how full the bucket is, unless there is less money or allowance than that.
    pub level_units: u64,
    pub change: Option<Change>,
}

/// What of it we can count on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// Stays, whatever waits for its time.
    pub lasting_units: u64,
    /// Is there now and allowed, however fast it may leave.
    pub there_units: u64,
    /// Something goes. What costs more than what stays has to have ended by then, so that there is time to collect it.
    pub until: Option<u64>,
    /// How fast it may leave, now and then.
    pub rate_units_per_second: u64,
}

impl Limits {
    fn lower(self, other: Self) -> Self {
        Self {
            allowance_units: self.allowance_units.min(other.allowance_units),
            burst_units: self.burst_units.min(other.burst_units),
            rate_units_per_second: self.rate_units_per_second.min(other.rate_units_per_second),
        }
    }

    /// What the bucket lets through in half a thaw. A lane is closed for a window after each credit, of at most a burst, and
    /// while it is closed a bucket that is full takes in nothing.
    fn bucket(self, level: u64, times: Times) -> u64 {
        let step = (self.burst_units / LEVEL_STEPS).max(1);
        let level = if level < self.burst_units { level / step * step } else { self.burst_units };
        let credits = (times.thaw_seconds.saturating_sub(FINALITY_SECONDS) / times.window_seconds.max(1)).max(1);
        let seconds = (times.thaw_seconds / 2).min((credits - 1).saturating_mul(times.window_seconds));
        let refilled = self.rate_units_per_second.saturating_mul(seconds);
        level.saturating_add(refilled).min(self.burst_units.saturating_mul(credits))
    }
}

impl Times {
    /// Before something goes, what is owed has to be on the chain: half a thaw, or as long as a lane is closed if that is
    /// longer.
    fn collect_seconds(self) -> u64 {
        (self.thaw_seconds / 2).max(self.window_seconds.saturating_add(FINALITY_SECONDS))
    }
}

/// What can be collected of an account.
pub fn reach(account: &Account, times: Times) -> Reach {
    let Account { balance_units, limits, level_units, .. } = *account;
    let stays = account.change.map_or(limits, |change| limits.lower(change.limits));
    // Where all that there is may leave at once, the bucket holds nothing back.
    let level = if level_units < balance_units.min(limits.allowance_units) { level_units } else { u64::MAX };
    let collected = |money: u64, limits: Limits| money.min(limits.allowance_units).min(limits.bucket(level, times));
    let lasting = collected(balance_units.saturating_sub(account.thawing_units), stays);
    let thaws = (account.thawing_units > 0).then_some(account.thaw_end);
    let leaves_us = account.change.is_some_and(|change| change.leaves_us);
    let changes = account.change.filter(|_| leaves_us || stays != limits).map(|change| change.apply_at);
    Reach {
        lasting_units: if leaves_us { 0 } else { lasting },
        there_units: balance_units.min(limits.allowance_units),
        until: thaws.into_iter().chain(changes).min().map(|gone| gone.saturating_sub(times.collect_seconds())),
        rate_units_per_second: stays.rate_units_per_second,
    }
}

/// Whether what runs may cost so much a second at this rate.
pub fn is_within_rate(second: ExactCost, rate_units_per_second: u64) -> bool {
    let most = u128::from(rate_units_per_second) * u128::from(MOST_RATE_PERCENT) * 36;
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    // In what an hour costs: a second of most things costs less than a unit.
    second.times(3_600).and_then(ExactCost::reserved).is_ok_and(|hour| hour <= Amount::from_units(most))
}

/// Of what is held back for works, in the order in which they began: how many of the first can go on when so much can be
/// collected and so much of it is owed already.
pub fn outlast(collectable: u64, owed: u64, reserved: impl IntoIterator<Item = u64>) -> usize {
    let mut sum = owed;
    reserved
        .into_iter()
        .take_while(|units| {
            sum = sum.saturating_add(*units);
            sum <= collectable
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rating::{self, Held};
    use proptest::prelude::*;

    const DAY: u64 = 86_400;
    /// A lane is closed for a day, and four days are a thaw: half of it is two.
    const TIMES: Times = Times { window_seconds: DAY, thaw_seconds: 4 * DAY };
    const ROOMY: Limits = Limits { allowance_units: 1_000_000, burst_units: 1_000_000, rate_units_per_second: 1_000 };

    fn account(balance_units: u64) -> Account {
        Account { balance_units, limits: ROOMY, level_units: ROOMY.burst_units, ..Account::default() }
    }

    fn scheduled(limits: Limits, leaves_us: bool) -> Option<Change> {
        Some(Change { limits, leaves_us, apply_at: 50 * DAY })
    }

    #[test]
    fn what_stays_is_the_least_of_what_is_there_and_what_may_leave() {
        let slow = |rate_units_per_second, burst_units| Limits { burst_units, rate_units_per_second, ..ROOMY };
        let limited = |limits: Limits, level_units| Account { limits, level_units, ..account(900_000) };
        let little = |balance_units| Account { balance_units, ..limited(slow(0, 160_000), 0) };
        let cases = [
            ("all of it", account(900_000), 900_000),
            ("but what thaws", Account { thawing_units: 300_000, thaw_end: 9 * DAY, ..account(900_000) }, 600_000),
            ("more thaws than there is", Account { thawing_units: 900_001, thaw_end: 9 * DAY, ..account(900_000) }, 0),
            ("what is allowed", limited(Limits { allowance_units: 5, ..ROOMY }, 1_000_000), 5),
            ("the bucket and what comes into it in half a thaw", limited(slow(1, 160_000), 160_000), 160_000 + 2 * DAY),
            ("a bucket that is nearly full counts as its last step", limited(slow(1, 160_000), 159_999), 150_000 + 2 * DAY),
            ("an empty one counts as what comes into it", limited(slow(1, 160_000), 9_999), 2 * DAY),
            ("a level above the burst is none", limited(slow(0, 16), 1_000_000), 16),
            ("a full one counts as it is, whatever its steps", limited(slow(0, 33), 33), 33),
            ("of little money all of it, when all of it may leave", Account { level_units: 9_999, ..little(9_999) }, 9_999),
            ("of a little more, when not all of it may, the last step", Account { level_units: 9_999, ..little(10_000) }, 0),
            ("of a little allowance all of it, when all of it may leave", limited(Limits { allowance_units: 5, ..slow(0, 160_000) }, 5), 5),
            (
                "what all may leave of is held by a lower burst all the same",
                Account { level_units: 9_999, change: scheduled(slow(0, 5_000), false), ..little(9_999) },
                5_000,
            ),
            ("a burst for each time that the lane is open", limited(slow(1_000, 100_000), 0), 300_000),
            ("a lowering counts from when it is scheduled", Account { change: scheduled(slow(1, 0), false), ..account(9) }, 0),
            ("a lower allowance, too", Account { change: scheduled(Limits { allowance_units: 7, ..ROOMY }, false), ..account(9) }, 7),
            (
                "what is scheduled higher is not higher",
                Account { change: scheduled(Limits { allowance_units: u64::MAX, ..ROOMY }, false), ..account(2_000_000) },
                1_000_000,
            ),
            ("another settler leaves nothing", Account { change: scheduled(ROOMY, true), ..account(900_000) }, 0),
        ];
        for (name, account, expected) in cases {
            assert_eq!(reach(&account, TIMES).lasting_units, expected, "{name}");
        }
    }

    #[test]
    fn what_goes_can_be_collected_until_half_a_thaw_before_it_goes() {
        let thaws = Account { thawing_units: 1, thaw_end: 9 * DAY, ..account(9) };
        let lowered = scheduled(Limits { burst_units: 1, ..ROOMY }, false);
        let cases = [
            ("nothing goes", account(9), TIMES, None),
            ("a thaw", thaws, TIMES, Some(7 * DAY)),
            ("a lowering", Account { change: lowered, ..account(9) }, TIMES, Some(48 * DAY)),
            ("another settler", Account { change: scheduled(ROOMY, true), ..account(9) }, TIMES, Some(48 * DAY)),
            ("what lowers nothing", Account { change: scheduled(ROOMY, false), ..account(9) }, TIMES, None),
            ("of two the first", Account { change: lowered, ..thaws }, TIMES, Some(7 * DAY)),
            ("a window longer than half a thaw", thaws, Times { window_seconds: 3 * DAY, ..TIMES }, Some(6 * DAY - 3_600)),
        ];
        for (name, account, times, expected) in cases {
            let found = reach(&account, times);
            assert_eq!((found.until, found.there_units), (expected, 9), "{name}");
        }
    }

    #[test]
    fn what_runs_uses_four_fifths_of_the_rate_and_no_more() {
        // At 3.60 an hour a second costs 1,000 units.
        let second = |per_hour: &str| {
            let held = Held { devices: 1, device_price: per_hour.parse().expect("a price"), ..Held::default() };
            rating::cost(&held, 1).expect("fits")
        };
        for (per_hour, rate, within) in [
            ("3.60", 1_250, true),
            ("3.60", 1_249, false),
            ("0", 0, true),
            ("0.000001", 0, false),
            ("3.600001", 1_250, false),
            ("3.60", u64::MAX, true),
        ] {
            assert_eq!(is_within_rate(second(per_hour), rate), within, "{per_hour} an hour at {rate} a second");
        }
    }

    #[test]
    fn who_began_first_goes_on() {
        for (collectable, owed, reserved, expected) in [
            (100, 0, vec![50, 50], 2),
            (99, 0, vec![50, 50], 1),
            (100, 51, vec![50, 1], 0),
            (0, 0, vec![], 0),
            (0, 0, vec![0, 1], 1),
            (u64::MAX, u64::MAX, vec![1], 1),
        ] {
            assert_eq!(outlast(collectable, owed, reserved.clone()), expected, "{collectable} less {owed} for {reserved:?}");
        }
    }

    proptest! {
        /// The payer does what it can; we post once a window, as much as the bucket holds.
        #[test]
        fn what_stays_is_collected_before_the_rest_is_gone(
            balance in 0_u64..2_000_000, thawing in 0_u64..2_000_000, allowance in 0_u64..2_000_000, burst in 0_u64..1_000_000,
            rate in 0_u64..50, level in 0_u64..1_000_000, window in 1_u64..3, closed in 0_u64..3,
        ) {
            let times = Times { window_seconds: window * DAY, thaw_seconds: window * DAY + 61 * 3_600 };
            let limits = Limits { allowance_units: allowance, burst_units: burst, rate_units_per_second: rate };
            let thaw_end = times.thaw_seconds;
            let account = Account { balance_units: balance, thawing_units: thawing, thaw_end, limits, level_units: level.min(burst), change: None };
            let due = reach(&account, times).lasting_units;
            let (mut level, mut at, mut collected) = (level.min(burst), 0, 0);
            // The lane may have been credited just before the thaw began.
            let mut next = closed.min(window) * DAY;
            while next < thaw_end && collected < due {
                level = level.saturating_add(rate * (next - at)).min(burst);
                let part = level.min(due - collected);
                (collected, level, at) = (collected + part, level - part, next);
                next += times.window_seconds;
            }
            prop_assert_eq!(collected, due, "of {:?}", account);
        }
    }
}
