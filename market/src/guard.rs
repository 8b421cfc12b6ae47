//! The guard of a budget: how long a run may last so that its end is still paid for, and when which part of the budget is
//! used. Seconds are those of the run, from its start on; rounding is always in the budget's favour.

use crate::money::Amount;
use crate::rating::{ExactCost, TooMuch};

/// Parts of a budget that are worth a word when they are used, in percent.
pub const MARKS: [u8; 3] = [50, 80, 95];

/// A run, and the budget that pays for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// What a second of it costs, with all its workers.
    pub second: ExactCost,
    pub budget: Amount,
    /// What was charged before this run.
    pub spent: Amount,
    /// From the signal to end until the record of the end: the grace period, and what it takes to kill. Paid like the run.
    pub after_seconds: u64,
}

/// How long a run may last until it is signalled to end, and what is held back for it, with its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leash {
    pub run_seconds: u64,
    pub reserved: Amount,
}

/// A part of a budget, the second of the run in which it is used, and what is used by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub percent: u8,
    pub at_seconds: u64,
    pub used: Amount,
}

impl Guard {
    /// As long as the limit says, if the budget pays for that and for the end; else as long as it does. `None`: not even for
    /// a second.
    pub fn leash(&self, limit_seconds: u64) -> Option<Leash> {
        let left = self.budget.saturating_sub(self.spent);
        let worst = limit_seconds.checked_add(self.after_seconds).ok_or(TooMuch).and_then(|seconds| self.second.times(seconds));
        if let Some(reserved) = worst.and_then(ExactCost::reserved).ok().filter(|worst| *worst <= left) {
            return Some(Leash { run_seconds: limit_seconds, reserved });
        }
        let run_seconds = self.second.times_within(left).saturating_sub(self.after_seconds).min(limit_seconds);
        (run_seconds > 0).then_some(Leash { run_seconds, reserved: left })
    }

    /// The marks that a run of so many seconds comes to before it is signalled to end, in their order.
    pub fn marks(&self, run_seconds: u64) -> impl DoubleEndedIterator<Item = Mark> {
        let guard = *self;
        MARKS.into_iter().filter_map(move |percent| guard.mark(percent)).filter(move |mark| mark.at_seconds < run_seconds)
    }

    fn mark(&self, percent: u8) -> Option<Mark> {
        let part = (u128::from(self.budget.units()) * u128::from(percent)).div_ceil(100);
        let due = Amount::from_units(u64::try_from(part).ok()?).saturating_sub(self.spent);
        let at_seconds = self.second.times_to(due)?;
        let used = self.spent.checked_add(self.second.times(at_seconds).ok()?.charged().ok()?)?;
        Some(Mark { percent, at_seconds, used })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rating::{self, Held};
    use proptest::prelude::*;

    fn second(per_hour: &str, devices: u32) -> ExactCost {
        let held = Held { devices, device_price: per_hour.parse().expect("a price"), ..Held::default() };
        rating::cost(&held, 1).expect("fits")
    }

    /// At 3.60 an hour a second costs 0.001.
    fn guard(budget: &str, spent: &str, devices: u32, after_seconds: u64) -> Guard {
        let amount = |text: &str| text.parse::<Amount>().expect("an amount");
        Guard { second: second("3.60", devices), budget: amount(budget), spent: amount(spent), after_seconds }
    }

    #[test]
    fn a_run_is_as_long_as_its_limit_or_as_the_budget_pays_for_with_its_end() {
        let cases = [
            ("the limit comes first", guard("1.00", "0", 1, 40), 600, Some((600, "0.64"))),
            ("the limit and its end are paid to the last unit", guard("0.64", "0", 1, 40), 600, Some((600, "0.64"))),
            ("a unit less is a second less", guard("0.639999", "0", 1, 40), 600, Some((599, "0.639999"))),
            ("the budget comes first", guard("0.20", "0", 1, 40), 600, Some((160, "0.20"))),
            ("what was spent is gone", guard("0.20", "0.05", 1, 40), 600, Some((110, "0.15"))),
            ("two workers use it twice as fast", guard("0.20", "0", 2, 40), 600, Some((60, "0.20"))),
            ("a grace period may take most of it", guard("0.20", "0", 1, 199), 600, Some((1, "0.20"))),
            ("and then all of it", guard("0.20", "0", 1, 200), 600, None),
            ("nothing is left", guard("0.20", "0.20", 1, 0), 600, None),
            ("more was spent than there is", guard("0.20", "0.30", 1, 0), 600, None),
            (
                "what costs nothing runs to its limit",
                Guard { second: ExactCost::default(), ..guard("0.20", "0.20", 1, 40) },
                600,
                Some((600, "0.00")),
            ),
            ("a limit that nobody could pay", guard("0.20", "0", 1, 40), u64::MAX, Some((160, "0.20"))),
        ];
        for (name, guard, limit, expected) in cases {
            let found = guard.leash(limit).map(|leash| (leash.run_seconds, leash.reserved.to_string()));
            assert_eq!(found, expected.map(|(seconds, reserved)| (seconds, reserved.to_owned())), "{name}");
        }
    }

    #[test]
    fn marks_count_of_the_budget_and_come_while_it_runs_or_not_at_all() {
        type Told = (u8, u64, &'static str);
        let cases: [(&str, Guard, u64, &[Told]); 8] = [
            ("all three", guard("1.00", "0", 1, 10), 990, &[(50, 500, "0.50"), (80, 800, "0.80"), (95, 950, "0.95")]),
            ("one that comes with the signal to end is none", guard("0.20", "0", 1, 40), 160, &[(50, 100, "0.10")]),
            ("a run that needs little of it", guard("3.00", "0", 1, 40), 600, &[]),
            ("workers count together", guard("1.00", "0", 2, 10), 490, &[(50, 250, "0.50"), (80, 400, "0.80"), (95, 475, "0.95")]),
            (
                "what was used before has passed at once",
                guard("1.00", "0.60", 1, 10),
                390,
                &[(50, 0, "0.60"), (80, 200, "0.80"), (95, 350, "0.95")],
            ),
            (
                "within a second is in that second",
                guard("0.1001", "0", 1, 1),
                99,
                &[(50, 51, "0.051"), (80, 81, "0.081"), (95, 96, "0.096")],
            ),
            ("a raised budget moves those that are to come", guard("2.00", "0", 1, 10), 1_000, &[]),
            ("what costs nothing uses nothing", Guard { second: ExactCost::default(), ..guard("1.00", "0", 1, 10) }, 600, &[]),
        ];
        for (name, guard, run_seconds, expected) in cases {
            let found: Vec<_> = guard.marks(run_seconds).map(|mark| (mark.percent, mark.at_seconds, mark.used.to_string())).collect();
            let expected: Vec<_> = expected.iter().map(|(percent, at, used)| (*percent, *at, (*used).to_owned())).collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn the_end_of_a_run_never_costs_more_than_the_budget(
            nanos in 1_u64..10_000_000_000_000, devices in 1_u32..512, budget in 0_u64..1_000_000_000_000,
            spent in 0_u64..1_000_000_000_000, after_seconds in 0_u64..4_000, limit in 1_u64..31_536_000,
        ) {
            let held = Held { devices, device_price: crate::money::Price::from_nanos_per_hour(nanos), ..Held::default() };
            let (budget, spent) = (Amount::from_units(budget), Amount::from_units(spent));
            let guard = Guard { second: rating::cost(&held, 1).expect("fits"), budget, spent, after_seconds };
            let Some(leash) = guard.leash(limit) else { return Ok(()) };
            let worst = rating::cost(&held, leash.run_seconds + after_seconds).and_then(ExactCost::reserved).expect("fits");
            prop_assert!(worst <= leash.reserved);
            prop_assert!(spent.units() + leash.reserved.units() <= budget.units());
            prop_assert!(leash.run_seconds <= limit);
            let longer = rating::cost(&held, leash.run_seconds + after_seconds + 1).and_then(ExactCost::reserved).expect("fits");
            prop_assert!(leash.run_seconds == limit || longer > leash.reserved, "no second is left unused");
            let marks: Vec<Mark> = guard.marks(leash.run_seconds).collect();
            for mark in &marks {
                let (used, part) = (u128::from(mark.used.units()) * 100, u128::from(budget.units()) * u128::from(mark.percent));
                prop_assert!(used >= part && mark.used <= budget && mark.at_seconds < leash.run_seconds);
                let before = mark.at_seconds.checked_sub(1).map(|seconds| rating::cost(&held, seconds).and_then(ExactCost::charged).expect("fits"));
                let too_soon = before.is_some_and(|before| u128::from(spent.units() + before.units()) * 100 >= part);
                prop_assert!(!too_soon, "it is passed in the first second that uses it");
            }
            prop_assert!(marks.is_sorted_by_key(|mark| (mark.at_seconds, mark.percent)));
        }
    }
}
