//! Whether the machine's clock was set while we looked away. What is billed follows from containers' own records, but deadlines and
//! days are ours: whoever wonders why something ended early finds it said here.

use std::time::Instant;

/// Whole seconds are read, and a clock that is slewed is never this far off between two looks.
const SLACK_SECONDS: i64 = 2;

/// Both clocks as they were at the last look: the one that people set, and the one that only goes on.
#[derive(Debug, Clone, Copy)]
pub struct Looked {
    second: i64,
    at: Instant,
}

impl Looked {
    pub fn now(second: i64, at: Instant) -> Self {
        Self { second, at }
    }

    /// By how many seconds the clock was set since the last look: forward, or back when it is less than nothing. Time that a
    /// machine slept is time that it was set forward by.
    pub fn again(&mut self, second: i64, at: Instant) -> Option<i64> {
        let passed = i64::try_from(at.saturating_duration_since(self.at).as_secs()).unwrap_or(i64::MAX);
        let by = second.saturating_sub(self.second).saturating_sub(passed);
        *self = Self::now(second, at);
        (by.abs() > SLACK_SECONDS).then_some(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_that_is_set_is_noticed_at_the_next_look_and_once() {
        let (begun, t) = (Instant::now(), 1_800_000_000);
        let mut looked = Looked::now(t, begun);
        let cases = [
            ("it goes on", 10, 10, None),
            ("whole seconds are read", 20, 19, None),
            ("it is slewed", 30, 31, None),
            ("it is set an hour forward", 40, 3_641, Some(3_600)),
            ("and goes on from there", 50, 3_651, None),
            ("it is set back", 60, 61, Some(-3_600)),
            ("back to 1970", 70, -1_800_000_000, Some(-1_800_000_071)),
            ("and is right again", 80, 81, Some(1_800_000_071)),
        ];
        for (name, passed, told, expected) in cases {
            assert_eq!(looked.again(t + told, begun + Duration::from_secs(passed)), expected, "{name}");
        }
    }
}
