//! What may be spent of an escrow: how a grant that changes goes into the books, what a day's limit leaves, and how long money
//! lasts. Days are those of UTC, counted from 1970.

use crate::money::Amount;
use crate::rating::ExactCost;

const DAY_SECONDS: i64 = 86_400;

pub fn day_of(second: i64) -> i64 {
    second.div_euclid(DAY_SECONDS)
}

/// What day it is, for who knew it to be `known`. A day that has begun is not over because a clock is set back; one that is
/// further ahead than the next never was: a clock was wrong.
pub fn today(known: i64, now: i64) -> i64 {
    let day = day_of(now);
    if known == day.saturating_add(1) { known } else { day }
}

/// The second that a day begins with.
pub fn begins(day: i64) -> i64 {
    day.saturating_mul(DAY_SECONDS)
}

/// What was put in and taken out of a grant in all. Both only rise: a grant that falls is money taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Granted {
    pub deposited: Amount,
    pub withdrawn: Amount,
}

impl Granted {
    /// So that as much is there as is granted now, or as much as is `bound`, held back and spent, if that is more: it falls
    /// further when less is bound. `None`: more than the books can hold.
    pub fn to(self, grant: Amount, bound: Amount) -> Option<Self> {
        let (there, wanted) = (self.deposited.saturating_sub(self.withdrawn), grant.max(bound));
        let deposited = self.deposited.checked_add(wanted.saturating_sub(there))?;
        let withdrawn = self.withdrawn.checked_add(there.saturating_sub(wanted))?;
        Some(Self { deposited, withdrawn })
    }
}

/// A day's limit, and what counts against it. What is held back counts as if it were charged on that day, whole: so no day is
/// charged more than its limit, whenever what runs ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    pub limit: Amount,
    pub charged: Amount,
    pub reserved: Amount,
}

impl Day {
    /// What may still be held back.
    pub fn left(&self) -> Amount {
        self.limit.saturating_sub(self.charged).saturating_sub(self.reserved)
    }
}

/// For how many seconds money lasts at what a second costs now. `None`: for ever.
pub fn lasts_seconds(money: Amount, second: ExactCost) -> Option<u64> {
    (second > ExactCost::default()).then(|| second.times_within(money))
}

/// A time to come, as exactly as it is worth telling: to the minute when it is near, to the hour when it is days away. It is
/// never told later than it is.
pub fn told(until: i64, now: i64) -> i64 {
    let step = match until.saturating_sub(now) {
        left if left > 2 * DAY_SECONDS => 3_600,
        left if left > 7_200 => 600,
        _ => 60,
    };
    until.saturating_sub(until.rem_euclid(step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rating::{self, Held};
    use proptest::prelude::*;

    fn units(units: u64) -> Amount {
        Amount::from_units(units)
    }

    fn granted(deposited: u64, withdrawn: u64) -> Granted {
        Granted { deposited: units(deposited), withdrawn: units(withdrawn) }
    }

    #[test]
    fn a_grant_rises_at_once_and_falls_as_far_as_nothing_is_bound() {
        for (name, before, grant, bound, after) in [
            ("a new one is put in", granted(0, 0), 100, 0, granted(100, 0)),
            ("the same one changes nothing", granted(100, 0), 100, 60, granted(100, 0)),
            ("more is put in", granted(100, 0), 150, 60, granted(150, 0)),
            ("less is taken out", granted(100, 0), 70, 60, granted(100, 30)),
            ("no more than is free", granted(100, 0), 20, 60, granted(100, 40)),
            ("and the rest when it is", granted(100, 40), 20, 30, granted(100, 70)),
            ("what is spent stays", granted(100, 70), 0, 30, granted(100, 70)),
            ("one that rises again is put in again", granted(100, 70), 50, 30, granted(120, 70)),
            ("nothing is granted any more", granted(100, 0), 0, 0, granted(100, 100)),
        ] {
            assert_eq!(before.to(units(grant), units(bound)), Some(after), "{name}");
        }
        assert_eq!(granted(u64::MAX, u64::MAX).to(units(1), Amount::ZERO), None);
    }

    #[test]
    fn what_is_held_back_counts_against_the_day() {
        for (name, limit, charged, reserved, left) in [
            ("a new day", 100, 0, 0, 100),
            ("what was charged is gone", 100, 30, 0, 70),
            ("what is held back may be charged today", 100, 30, 50, 20),
            ("a limit that was lowered leaves nothing", 40, 30, 50, 0),
            ("nothing may be charged", 0, 0, 0, 0),
        ] {
            let day = Day { limit: units(limit), charged: units(charged), reserved: units(reserved) };
            assert_eq!(day.left(), units(left), "{name}");
        }
    }

    #[test]
    fn days_begin_at_midnight_of_utc() {
        for (second, day) in [(0, 0), (86_399, 0), (86_400, 1), (-1, -1), (1_800_000_000, 20_833)] {
            assert_eq!(day_of(second), day);
            assert!(begins(day) <= second && second < begins(day + 1));
        }
    }

    #[test]
    fn a_day_that_has_begun_goes_on_and_one_that_a_wrong_clock_told_does_not() {
        let noon = 20_000 * DAY_SECONDS + DAY_SECONDS / 2;
        for (name, known, day) in [
            ("nothing was known", 0, 20_000),
            ("yesterday is over", 19_999, 20_000),
            ("it is the same day", 20_000, 20_000),
            ("the clock was set back over midnight", 20_001, 20_001),
            ("two days ahead", 20_002, 20_000),
            ("a year ahead", 20_365, 20_000),
            ("there is no such day", i64::MAX, 20_000),
        ] {
            assert_eq!(today(known, noon), day, "{name}");
        }
    }

    #[test]
    fn money_lasts_as_long_as_it_pays_for_whole_seconds() {
        let held = Held { devices: 1, device_price: "3.60".parse().expect("a price"), ..Held::default() };
        let second = rating::cost(&held, 1).expect("fits");
        for (money, lasts) in [(0, 0), (999, 0), (1_000, 1), (3_600_999, 3_600)] {
            assert_eq!(lasts_seconds(units(money), second), Some(lasts), "{money}");
        }
        assert_eq!(lasts_seconds(units(1), ExactCost::default()), None, "what costs nothing never ends it");
    }

    #[test]
    fn a_time_to_come_is_told_in_steps_that_grow_with_it() {
        let now = 1_800_000_000;
        for (left, told_left) in [(0, 0), (59, 0), (61, 60), (7_200, 7_200), (7_861, 7_800), (172_800, 172_800), (180_001, 180_000)] {
            assert_eq!(told(now + left, now), now + told_left, "{left}");
        }
        assert_eq!(told(now - 5, now), now - 60, "it is over");
    }

    proptest! {
        /// Whatever is held back, charged and given back, through as many days as it takes.
        #[test]
        fn no_day_is_charged_more_than_its_limit(
            limit in 0_u64..1_000, steps in prop::collection::vec((0_u8..4, 0_usize..8, 0_u64..500), 1..200),
        ) {
            let (mut charged, mut held) = (0, vec![0_u64; 8]);
            for (kind, work, amount) in steps {
                let reserved = held.iter().sum();
                match kind {
                    0 if held[work] == 0 => {
                        let day = Day { limit: units(limit), charged: units(charged), reserved: units(reserved) };
                        held[work] = if amount <= day.left().units() { amount } else { 0 };
                    }
                    1 => {
                        let taken = amount.min(held[work]);
                        (charged, held[work]) = (charged + taken, held[work] - taken);
                    }
                    2 => held[work] = 0,
                    3 => charged = 0,
                    _ => {}
                }
                prop_assert!(charged + held.iter().sum::<u64>() <= limit);
            }
        }

        #[test]
        fn a_grant_ends_where_it_is_told_to_by_whatever_way(
            steps in prop::collection::vec((0_u64..1_000, 0_u64..1_000), 1..50),
        ) {
            let mut before = Granted::default();
            for (grant, bound) in steps {
                // No more can be bound than was there.
                let bound = bound.min(before.deposited.units() - before.withdrawn.units());
                let after = before.to(units(grant), units(bound)).expect("is small");
                prop_assert!(after.deposited >= before.deposited && after.withdrawn >= before.withdrawn);
                prop_assert_eq!(after.deposited.units() - after.withdrawn.units(), grant.max(bound));
                prop_assert_eq!(after.to(units(grant), units(bound)), Some(after), "once is enough");
                before = after;
            }
        }
    }
}
