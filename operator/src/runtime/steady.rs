//! Whether the machine's clock was set while we looked away. What is billed follows from containers' own records, but deadlines and
//! days are ours: what runs is not to end early for it, and whoever wonders about the rest finds it said here.

use rustix::time::{ClockId, clock_gettime};

/// Whole seconds are read, and a clock that is slewed is never this far off between two looks.
const SLACK_SECONDS: i64 = 2;

/// Both clocks as they were at the last look: the one that people set, and the one that only goes on.
#[derive(Debug, Clone, Copy)]
pub struct Looked {
    second: i64,
    steady: i64,
}

/// Seconds of the clock that nobody can set. It goes on while the machine sleeps: what runs elsewhere runs on.
pub fn steady_second() -> i64 {
    clock_gettime(ClockId::Boottime).tv_sec
}

impl Looked {
    pub fn now(second: i64, steady: i64) -> Self {
        Self { second, steady }
    }

    /// By how many seconds the clock was set since the last look: forward, or back when it is less than nothing.
    pub fn again(&mut self, second: i64, steady: i64) -> Option<i64> {
        let by = second.saturating_sub(self.second).saturating_sub(steady.saturating_sub(self.steady));
        *self = Self::now(second, steady);
        (by.abs() > SLACK_SECONDS).then_some(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_at_the_next_look_and_once() {
        let (begun, t) = (5_000, 1_800_000_000);
        let mut looked = Looked::now(t, begun);
        let cases = [
            ("it goes on", 10, 10, None),
            ("whole seconds are read", 20, 19, None),
            ("it is slewed", 30, 31, None),
            ("it is set an hour forward", 40, 3_641, Some(3_600)),
            ("and goes on from there", 50, 3_651, None),
            ("it is set back", 60, 61, Some(-3_600)),
            ("the machine sleeps for an hour", 3_660, 3_661, None),
            ("back to 1970", 3_670, -1_800_000_000, Some(-1_800_003_671)),
            ("and is right again", 3_680, 3_681, Some(1_800_003_671)),
        ];
        for (name, passed, told, expected) in cases {
            assert_eq!(looked.again(t + told, begun + passed), expected, "{name}");
        }
    }
}
