//! When an escrow's status is written: its money moves with every task. What a person does or has to do is written at once;
//! that something was charged, or whether there is enough, a few times at once and then every ten seconds; what is merely held
//! back, and until when the money lasts, as it was when it was another for a minute.

use crate::world::funds::Telling;
use supercargo_crds::common::{Money, Time};
use supercargo_crds::escrow::EscrowStatus;
use supercargo_crds::names::escrow_condition::{FUNDED, READY};

/// So many at once, and then one in so many seconds.
const AT_ONCE: i64 = 5;
const PAUSE_SECONDS: i64 = 10;
const LOOK_SECONDS: i64 = 60;

/// How soon a change is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    /// What is held back is given back, or the other way round.
    Figures,
    /// What was charged, and whether there is enough.
    Money,
    Facts,
}

/// The part of a status that only changes by what somebody does. What a chain has paid is told with its transaction.
fn facts(status: &EscrowStatus) -> EscrowStatus {
    let mut facts = EscrowStatus {
        available: None,
        reserved: None,
        held: None,
        owed: None,
        posted: None,
        charged: None,
        settled: None,
        funded_until: None,
        ..status.clone()
    };
    facts.conditions.retain(|condition| condition.type_ != FUNDED && condition.type_ != READY);
    facts
}

fn change(before: &EscrowStatus, next: &EscrowStatus) -> Change {
    let booked = |status: &EscrowStatus| {
        let units = |money: &Option<Money>| money.as_ref().map_or(0, |money| money.0.units());
        units(&status.charged).saturating_sub(units(&status.held))
    };
    match () {
        () if facts(before) != facts(next) => Change::Facts,
        () if before.conditions != next.conditions || before.settled != next.settled || booked(before) != booked(next) => Change::Money,
        () if before.available != next.available => Change::Figures,
        () => Change::None,
    }
}

impl Telling {
    /// Takes a turn, if there is one.
    fn take(&mut self, now: i64) -> bool {
        let free = self.turn() <= now;
        if free {
            self.spent_until = self.spent_until.max(now) + PAUSE_SECONDS;
        }
        free
    }

    /// When there is one.
    fn turn(&self) -> i64 {
        self.spent_until - (AT_ONCE - 1) * PAUSE_SECONDS
    }

    fn look_by(&mut self, at: i64) {
        self.look_at = Some(self.look_at.map_or(at, |known| known.min(at)));
    }
}

/// The status to write now, if one should be. `lasts` says until when the money lasts, which takes a while to find out; while
/// something `runs`, that may change though nothing else does.
pub fn due(
    telling: &mut Telling,
    before: &EscrowStatus,
    next: EscrowStatus,
    runs: bool,
    now: i64,
    lasts: impl FnOnce() -> Option<Time>,
) -> Option<EscrowStatus> {
    if telling.written.as_deref() == Some(before) {
        telling.written = None;
    }
    let looks = telling.look_at.take_if(|at| *at <= now).is_some();
    // What was to be written and is not there yet is written again.
    if let Some(written) = telling.written.clone().filter(|written| change(written, &next) == Change::None) {
        telling.look_by(now + LOOK_SECONDS);
        return Some(*written);
    }
    let change = change(before, &next);
    let told = change == Change::Facts || (change == Change::Money && (telling.take(now) || looks));
    if told || looks {
        let next = EscrowStatus { funded_until: lasts(), ..next };
        if runs {
            telling.look_by(now + LOOK_SECONDS);
        }
        let another = told || next.available != before.available || next.funded_until != before.funded_until;
        telling.written = another.then(|| Box::new(next.clone()));
        return another.then_some(next);
    }
    match change {
        Change::Money => telling.look_by(telling.turn()),
        Change::None if !runs && before.funded_until.is_none() => {}
        _ => telling.look_by(now + LOOK_SECONDS),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::status;
    use supercargo_market::money::Amount;

    const NOW: i64 = 1_800_000_000;

    fn money(units: u64) -> Option<Money> {
        Some(Money(Amount::from_units(units)))
    }

    /// Of a hundred units.
    fn status(reserved: u64, held: u64, charged: u64) -> EscrowStatus {
        let mut status = EscrowStatus {
            observed_generation: 1,
            deposited: money(100),
            available: money(100 - reserved - charged),
            reserved: money(reserved - held),
            held: money(held),
            charged: money(held + charged),
            ..EscrowStatus::default()
        };
        status::set(&mut status.conditions, FUNDED, true, if reserved > 50 { "Low" } else { "Funded" }, "", 1, NOW);
        status
    }

    /// What is written while this is so, a second at a time, and seen at once: at which seconds, and until when the money lasts.
    fn written(begin: EscrowStatus, runs: bool, seconds: i64, at: impl Fn(i64) -> EscrowStatus) -> Vec<(i64, Option<i64>)> {
        let (mut telling, mut before, mut written) = (Telling::default(), begin, Vec::new());
        for second in 0..seconds {
            let now = NOW + second;
            let lasts = || runs.then(|| status::time(NOW + 3_600)).flatten();
            if let Some(next) =
                due(&mut telling, &before, EscrowStatus { funded_until: before.funded_until.clone(), ..at(second) }, runs, now, lasts)
            {
                written.push((second, next.funded_until.as_ref().map(|until| until.0.as_second() - NOW)));
                before = next;
            }
        }
        written
    }

    #[test]
    fn what_somebody_did_is_told_at_once() {
        let next = EscrowStatus { observed_generation: 2, ..status(0, 0, 0) };
        assert_eq!(written(status(0, 0, 0), false, 200, |_| next.clone()), [(0, None)]);
        let deposited = EscrowStatus { deposited: money(500), ..status(0, 0, 0) };
        assert_eq!(written(status(0, 0, 0), false, 200, |_| deposited.clone()), [(0, None)]);
    }

    #[test]
    fn a_charge_is_told_at_once_and_a_thousand_of_them_every_ten_seconds() {
        assert_eq!(written(status(0, 0, 0), false, 200, |_| status(0, 0, 5)), [(0, None)]);
        let many = written(status(0, 0, 0), false, 61, |second| status(0, 0, second.unsigned_abs()));
        let at: Vec<i64> = many.iter().map(|(at, _)| *at).collect();
        assert_eq!(at, [1, 2, 3, 4, 5, 11, 21, 31, 41, 51], "the last is told, too, when nothing comes after it");
        let last = written(status(0, 0, 0), false, 61, |second| status(0, 0, second.unsigned_abs().min(8)));
        assert_eq!(last.last(), Some(&(11, None)));
    }

    #[test]
    fn whether_there_is_enough_is_told_like_a_charge() {
        let at: Vec<i64> = written(status(0, 0, 0), false, 41, |second| status(if second % 2 == 0 { 60 } else { 0 }, 0, 0))
            .into_iter()
            .map(|(at, _)| at)
            .collect();
        assert_eq!(at, [0, 1, 2, 3, 4, 11, 20, 31, 40]);
    }

    #[test]
    fn what_is_held_back_is_told_when_it_was_so_for_a_minute() {
        assert_eq!(written(status(0, 0, 0), true, 300, |_| status(40, 0, 0)), [(60, Some(3_600))]);
        let short = |second| if second < 50 { status(40, 0, 0) } else { status(0, 0, 0) };
        assert_eq!(written(status(0, 0, 0), false, 300, short), []);
    }

    #[test]
    fn what_runs_uses_is_no_reason_to_write() {
        let begin = EscrowStatus { funded_until: status::time(NOW + 3_600), ..status(40, 0, 0) };
        assert_eq!(written(begin, true, 600, |second| status(40, second.unsigned_abs() / 20, 0)), []);
    }

    #[test]
    fn when_nothing_runs_any_more_the_money_lasts_until_nobody_knows_when() {
        let begin = EscrowStatus { funded_until: status::time(NOW + 3_600), ..status(0, 0, 0) };
        assert_eq!(written(begin, false, 300, |_| status(0, 0, 0)), [(60, None)]);
    }

    #[test]
    fn what_nobody_has_seen_yet_is_written_again_and_takes_no_turn() {
        let (mut telling, before) = (Telling::default(), status(0, 0, 0));
        for second in 0..100 {
            let next = due(&mut telling, &before, status(0, 0, 5), false, NOW + second, || None);
            assert_eq!(next, Some(status(0, 0, 5)));
        }
        assert_eq!(telling.spent_until, NOW + PAUSE_SECONDS);
        assert_eq!(due(&mut telling, &status(0, 0, 5), status(0, 0, 5), false, NOW + 100, || None), None);
    }
}
