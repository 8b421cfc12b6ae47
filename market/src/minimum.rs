//! The minimum of a rate card: the least seconds that a task is billed for, in all its attempts together. What is missing is
//! added when an attempt ends that has run: so it is added once, and never when the provider's fault ended the attempt.

use crate::money::Amount;
use crate::rating::{self, ExactCost, Held, TooMuch};

/// What a worker holds, and the minimum that its card asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rated {
    pub held: Held,
    pub minimum_seconds: u32,
}

/// An attempt that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// What the task was billed for in its attempts before.
    pub before_seconds: u64,
    /// What the worker that ran longest is billed for.
    pub longest_seconds: u64,
    /// All its workers have started.
    pub ran: bool,
    /// A provider's fault ended it.
    pub by_provider: bool,
}

impl Over {
    /// What a worker is billed for beyond what it ran. Workers run together: each is short of what the longest of them is.
    pub fn added_seconds(&self, minimum_seconds: u32) -> u64 {
        let missing = u64::from(minimum_seconds).saturating_sub(self.before_seconds.saturating_add(self.longest_seconds));
        if self.ran && !self.by_provider { missing } else { 0 }
    }
}

/// The same workers with no more of a minimum than the money pays for: what is added is never more than what is held back.
pub fn within(workers: &[Rated], before_seconds: u64, money: Amount) -> Result<Vec<Rated>, TooMuch> {
    let second = workers.iter().try_fold(ExactCost::default(), |sum, worker| sum.checked_add(rating::cost(&worker.held, 1)?))?;
    let most = before_seconds.saturating_add(second.times_within(money));
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    Ok(workers.iter().map(|worker| Rated { minimum_seconds: worker.minimum_seconds.min(most), ..*worker }).collect())
}

/// What a run of so many seconds costs at most, with its end.
pub fn worst(workers: &[Rated], before_seconds: u64, run_seconds: u64) -> Result<ExactCost, TooMuch> {
    workers.iter().try_fold(ExactCost::default(), |sum, worker| {
        let missing = u64::from(worker.minimum_seconds).saturating_sub(before_seconds);
        sum.checked_add(rating::cost(&worker.held, run_seconds.max(missing))?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// At 3.60 an hour a second of a device costs 0.001.
    fn rated(devices: u32, minimum_seconds: u32) -> Rated {
        Rated { held: Held { devices, device_price: "3.60".parse().expect("a price"), ..Held::default() }, minimum_seconds }
    }

    #[test]
    fn what_is_missing_is_added_once_a_task_and_never_for_a_providers_fault() {
        let over = |before_seconds, longest_seconds| Over { before_seconds, longest_seconds, ran: true, by_provider: false };
        let fault = |over| Over { by_provider: true, ..over };
        let cases = [
            ("a card without a minimum", over(0, 10), 0, 0),
            ("shorter than the minimum", over(0, 10), 60, 50),
            ("ended within its first second", over(0, 0), 60, 60),
            ("just as long", over(0, 60), 60, 0),
            ("longer", over(0, 61), 60, 0),
            ("attempts before count", over(45, 10), 60, 5),
            ("and what was added to them", over(60, 10), 60, 0),
            ("the provider's fault ended it", fault(over(0, 10)), 60, 0),
            ("also when it was billed", fault(over(0, 700)), 3_600, 0),
            ("what came before does not make it up", fault(over(30, 10)), 60, 0),
            ("it never ran", Over { ran: false, ..over(0, 0) }, 60, 0),
            ("more than there can be", over(u64::MAX, u64::MAX), 60, 0),
        ];
        for (name, over, minimum, added) in cases {
            assert_eq!(over.added_seconds(minimum), added, "{name}");
        }
    }

    #[test]
    fn a_minimum_that_the_money_does_not_pay_for_is_cut_to_what_it_does() {
        let amount = |text: &str| text.parse::<Amount>().expect("an amount");
        let cases = [
            ("it is enough", vec![rated(1, 600)], 0, "0.60", vec![600]),
            ("it is less", vec![rated(1, 600)], 0, "0.20", vec![200]),
            ("what was billed before is paid", vec![rated(1, 600)], 450, "0.10", vec![550]),
            ("workers share it", vec![rated(1, 600), rated(2, 60)], 0, "0.30", vec![100, 60]),
            ("nothing is left", vec![rated(1, 600)], 0, "0", vec![0]),
            ("what costs nothing is never cut", vec![rated(0, 600)], 0, "0", vec![600]),
        ];
        for (name, workers, before, money, expected) in cases {
            let cut = within(&workers, before, amount(money)).expect("fits");
            assert_eq!(cut.iter().map(|worker| worker.minimum_seconds).collect::<Vec<_>>(), expected, "{name}");
        }
    }

    #[test]
    fn the_worst_cost_of_a_run_has_the_minimum_of_each_worker_in_it() {
        let cases = [
            ("the run is longer", vec![rated(1, 60)], 0, 640, "0.64"),
            ("the minimum is", vec![rated(1, 3_600)], 0, 640, "3.60"),
            ("less what was billed before", vec![rated(1, 3_600)], 600, 640, "3.00"),
            ("each worker has its own", vec![rated(1, 1_000), rated(2, 0)], 0, 640, "2.28"),
        ];
        for (name, workers, before, run, expected) in cases {
            assert_eq!(worst(&workers, before, run).and_then(ExactCost::reserved).expect("fits").to_string(), expected, "{name}");
        }
    }

    proptest! {
        /// However a task's attempts end: the minimum costs no more than what is held back, and comes in one piece.
        #[test]
        fn a_minimum_is_added_once_and_within_what_is_held_back(
            minimums in prop::collection::vec(0_u32..3_600, 1..5), runs in prop::collection::vec((0_u64..700, any::<bool>()), 1..6),
            left in 0_u64..5_000_000,
        ) {
            let money = Amount::from_units(left);
            let (mut before, mut added_to) = (0, vec![0; minimums.len()]);
            for (longest, by_provider) in runs {
                let workers: Vec<Rated> = minimums.iter().map(|minimum| rated(1, *minimum)).collect();
                let workers = within(&workers, before, money).expect("fits");
                let held = worst(&workers, before, longest).and_then(ExactCost::reserved).expect("fits");
                let over = Over { before_seconds: before, longest_seconds: longest, ran: true, by_provider };
                let added: Vec<u64> = workers.iter().map(|worker| over.added_seconds(worker.minimum_seconds)).collect();
                let billed = workers.iter().zip(&added).try_fold(ExactCost::default(), |sum, (worker, added)| {
                    sum.checked_add(rating::cost(&worker.held, longest + added)?)
                });
                let billed = billed.and_then(ExactCost::reserved).expect("fits");
                prop_assert!(billed <= held, "what is held back pays for it");
                prop_assert!(added.iter().all(|added| *added == 0) || billed <= money, "and so does what is left");
                prop_assert!(!by_provider || added.iter().all(|added| *added == 0));
                added_to.iter_mut().zip(&added).for_each(|(sum, added)| *sum += added);
                before += longest + added.iter().copied().max().unwrap_or_default();
                for ((sum, added), minimum) in added_to.iter().zip(&added).zip(&minimums) {
                    prop_assert!(*sum <= u64::from(*minimum), "no more is added in all");
                    prop_assert!(*added == 0 || *sum + longest <= u64::from(*minimum), "nor to a run");
                }
            }
        }
    }
}
