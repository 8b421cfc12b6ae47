//! Pauses before what failed is tried again. They grow, and they are spread: who failed together does not come back together.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What spreads them; as good as chance.
pub fn nanos() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos())
}

/// Up to half of it, by chance.
pub fn some_of(pause: Duration, nanos: u32) -> Duration {
    pause / 2 * (nanos % 1_000) / 1_000
}

/// From three quarters of it to five quarters.
pub fn spread(pause: Duration, nanos: u32) -> Duration {
    pause * 3 / 4 + some_of(pause, nanos)
}

/// Of one thing that may fail again and again. A failure long after the last one is the first of others.
#[derive(Debug)]
pub struct Pauses {
    first: Duration,
    longest: Duration,
    last: Option<(Instant, Duration)>,
}

const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

impl Pauses {
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, last: None }
    }

    /// It has failed now: so long it rests.
    pub fn next(&mut self, now: Instant, nanos: u32) -> Duration {
        let last = self.last.filter(|(at, _)| now.saturating_duration_since(*at) < FORGOTTEN_AFTER);
        let pause = last.map_or(self.first, |(_, pause)| (pause * 2).min(self.longest));
        self.last = Some((now, pause));
        spread(pause, nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_quiet_minute() {
        let mut pauses = Pauses::new(Duration::from_millis(200), Duration::from_secs(5));
        let begin = Instant::now();
        // The spread is in the middle.
        let mut at = |second: u64| pauses.next(begin + Duration::from_secs(second), 500).as_millis();
        let grown: Vec<u128> = (0..8).map(&mut at).collect();
        assert_eq!(grown, [200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
        assert_eq!((at(66), at(126)), (5_000, 200));
    }

    #[test]
    fn a_pause_is_spread_over_half_of_itself() {
        let second = Duration::from_secs(1);
        assert_eq!([0, 500, 999].map(|nanos| spread(second, nanos).as_millis()), [750, 1_000, 1_249]);
    }
}
