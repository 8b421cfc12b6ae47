//! The matrix's rows: what goes wrong in each.

use super::trace::{BEGIN, Dice, Nanos, SECOND};

/// What goes wrong in one row.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub name: &'static str,
    pub prometheus: Prometheus,
    /// How far each node's clock may be from ours.
    pub skew_seconds: i64,
    /// Nodes' clocks are set, forward and back, whatever runs there.
    pub sets: bool,
    pub evictions: f64,
    /// Nodes lose power, or the network; some records do not survive it.
    pub nodes: bool,
    /// The API server is away for a while.
    pub api: bool,
    /// What the API server tells comes late, and twice.
    pub late_news: bool,
    /// The operator dies around each of its effects in turn.
    pub kills: bool,
    /// Another takes the lead, and the one before does not know it yet.
    pub leaders: bool,
}

/// What Prometheus suffers: no second is billed by it, but CPU and memory where a card bills them as they are used; and those
/// that sample it feel it.
#[derive(Debug, Clone, Default)]
pub struct Prometheus {
    pub away: bool,
    pub wiped: bool,
    pub loses: bool,
    pub resets: bool,
    pub late: bool,
}

impl Faults {
    pub fn none(name: &'static str) -> Self {
        Self { name, evictions: 0.01, ..Self::default() }
    }

    fn of(name: &'static str, change: fn(&mut Self)) -> Self {
        let mut faults = Self::none(name);
        change(&mut faults);
        faults
    }
}

pub fn rows() -> Vec<Faults> {
    vec![
        Faults::none("none"),
        Faults::of("Prometheus away", |faults| faults.prometheus.away = true),
        Faults::of("Prometheus wiped", |faults| faults.prometheus.wiped = true),
        Faults::of("scrapes lost", |faults| faults.prometheus.loses = true),
        Faults::of("counters reset", |faults| faults.prometheus.resets = true),
        Faults::of("late and doubled", |faults| (faults.prometheus.late, faults.late_news) = (true, true)),
        Faults::of("clocks 5 min apart", |faults| faults.skew_seconds = 300),
        Faults::of("evictions", |faults| faults.evictions = 0.05),
        Faults::of("nodes lost", |faults| faults.nodes = true),
        Faults::of("API away", |faults| faults.api = true),
        Faults::of("operator killed", |faults| faults.kills = true),
        Faults::of("two leaders", |faults| faults.leaders = true),
        Faults {
            name: "all at once",
            prometheus: Prometheus { away: true, wiped: true, loses: true, resets: true, late: true },
            skew_seconds: 300,
            // Who sees late what was by a clock that was set since can't tell the two apart.
            sets: false,
            evictions: 0.05,
            nodes: true,
            api: true,
            late_news: true,
            kills: true,
            leaders: true,
        },
        Faults::of("clocks set", |faults| faults.sets = true),
    ]
}

/// Times at which something is away: so many of them, each for as long as is drawn.
#[derive(Debug, Default)]
pub struct Absences(pub Vec<(Nanos, Nanos)>);

impl Absences {
    pub fn draw(dice: &mut Dice, span: Nanos, count: u64, least: Nanos, most: Nanos) -> Self {
        let one = |_| {
            let from = BEGIN + dice.between(0, span.max(1));
            (from, from + dice.log_uniform(least, most))
        };
        let mut all: Vec<(Nanos, Nanos)> = (0..count).map(one).collect();
        all.sort_unstable();
        // One absence at a time.
        all.dedup_by(|later, earlier| later.0 <= earlier.1 + 60 * SECOND);
        Self(all)
    }

    pub fn covers(&self, at: Nanos) -> bool {
        self.0.iter().any(|(from, until)| (*from..*until).contains(&at))
    }
}
