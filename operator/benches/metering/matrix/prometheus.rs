//! Prometheus as a row lets it be: which samples it takes, which of them it has when somebody asks, and what they say. What
//! containers truly use follows from the seed.

use super::cluster::Container;
use super::faults::{self, Absences};
use super::play::Play;
use super::trace::{BEGIN, Dice, Nanos, SECOND};
use std::collections::BTreeMap;
use supercargo_market::work::WorkId;
use supercargo_operator::metering::answer::{Found, Gathered};
use supercargo_operator::metering::{query, told};
use supercargo_planner::plan::usage::Asked;
use supercargo_planner::world::Event;

/// So often kubelets are scraped.
pub const STEP: Nanos = 15 * SECOND;
/// The operator's own default.
const GAP_MILLIS: u64 = 120_000;
/// A container's use of CPU changes this often, and its memory no more often than a gap is long: between two samples that are
/// believed there is one change at most.
const CPU_PERIOD: Nanos = 20 * SECOND;
const MEMORY_PERIOD: Nanos = 150 * SECOND;
const MOST_CPU_MILLIS: u64 = 1_000;
const MOST_MEMORY_MIB: u64 = 1_024;

/// What became of Prometheus in a row.
pub struct Prometheus {
    seed: u64,
    away: Absences,
    /// An exporter that begins again is not there for a scrape or two, and its counters begin at zero.
    restarts: Absences,
    wiped: Option<Nanos>,
    /// The part of its scrapes that fail.
    loses: f64,
    late: bool,
}

impl Prometheus {
    pub fn new(seed: u64, span: Nanos, faults: &faults::Prometheus) -> Self {
        let mut dice = Dice::of(&[seed, 5]);
        let (mut away, mut restarts) = (Absences::default(), Absences::default());
        if faults.away {
            let longest = (span / 2).min(86_400 * SECOND);
            away = Absences::draw(&mut dice, span, 6, 60 * SECOND, longest);
        }
        if faults.resets {
            restarts = Absences::draw(&mut dice, span, 200, 5 * SECOND, 60 * SECOND);
        }
        let wiped = faults.wiped.then(|| BEGIN + dice.between(span / 4, span * 3 / 4));
        let loses = if faults.loses { 0.01 * 50_f64.powf(dice.fraction()) } else { 0.0 };
        Self { seed, away, restarts, wiped, loses, late: faults.late }
    }

    /// When a sample counts as taken, if it is there at all in the end. Twice the same sample is one.
    pub fn keeps(&self, container: usize, at: Nanos) -> Option<Nanos> {
        let (there, comes) = self.takes(container, at);
        (there && self.wiped.is_none_or(|wiped| at >= wiped)).then_some(comes)
    }

    /// Whether a scrape brings anything, and when that can be read.
    fn takes(&self, container: usize, at: Nanos) -> (bool, Nanos) {
        let mut dice = Dice::of(&[self.seed, 6, container as u64, at.unsigned_abs()]);
        let there = !self.away.covers(at) && !self.restarts.covers(at) && !dice.chance(self.loses);
        (there, if self.late && dice.chance(0.05) { at + dice.between(0, 60 * SECOND) } else { at })
    }

    /// The series of a container between two times, as they are told at this one.
    fn tells(&self, id: usize, container: &Container, within: (Nanos, Nanos), now: Nanos) -> Vec<Found> {
        let Some(started) = container.started else { return Vec::new() };
        let ended = container.ended.unwrap_or(now);
        let truth = Use::of(self.seed, id, ended - started);
        let (mut cpu, mut memory, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for at in looks(within.0.max(started), within.1.min(ended), STEP) {
            let (there, comes) = self.takes(id, at);
            if !there || comes > now || self.wiped.is_some_and(|wiped| at < wiped && wiped <= now) {
                continue;
            }
            let mut dice = Dice::of(&[self.seed, 7, id as u64, at.unsigned_abs()]);
            // An exporter may tell what it saw a little before.
            let seen = if self.late { (at - dice.between(0, STEP * 2 / 3)).max(started) } else { at };
            let begun = self.restarts.0.iter().map(|(_, until)| *until).filter(|until| *until <= seen).max().unwrap_or(started);
            let micros = truth.cpu_micros(seen - started) - truth.cpu_micros((begun - started).max(0));
            let second = at as f64 / SECOND as f64;
            cpu.push((second, format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)));
            memory.push((second, truth.memory_bytes(seen - started).to_string()));
            if self.late && dice.chance(0.05) {
                cpu.extend(cpu.last().cloned());
            }
            if self.late && dice.chance(0.005) {
                // Two that contradict each other.
                cpu.push((second, (micros / 1_000_000 + 60).to_string()));
            }
            if self.late && dice.chance(0.5) {
                again.extend(cpu.last().cloned());
            }
        }
        let path = format!("/kubepods/{}", container.uid);
        let series = |name: &str, job: &str, values| Found {
            metric: [("__name__", name), ("job", job), ("id", path.as_str())]
                .map(|(label, value)| (label.to_owned(), value.to_owned()))
                .into(),
            values,
        };
        vec![series(query::CPU, "kubelets", cpu), series(query::MEMORY, "kubelets", memory), series(query::CPU, "again", again)]
    }
}

/// The moments within a stretch of time at which somebody looks.
pub fn looks(from: Nanos, until: Nanos, every: Nanos) -> impl Iterator<Item = Nanos> {
    ((from + every - 1).div_euclid(every)..=until.div_euclid(every)).map(move |turn| turn * every)
}

/// What a container truly uses, from its start on.
pub struct Use {
    /// Thousandths of a core times nanoseconds before each period, and in it.
    cpu: Vec<(u64, u64)>,
    /// Bytes in each period.
    memory: Vec<u64>,
}

impl Use {
    pub fn of(seed: u64, id: usize, life: Nanos) -> Self {
        let roll = |what: u64, period: Nanos, most: u64| Dice::of(&[seed, what, id as u64, period.unsigned_abs()]).below(most + 1);
        let mut before = 0;
        let cpu = (0..=life / CPU_PERIOD).map(|period| {
            let rate = roll(8, period, MOST_CPU_MILLIS);
            let begins = before;
            before += rate * CPU_PERIOD.unsigned_abs();
            (begins, rate)
        });
        let cpu = cpu.collect();
        let memory = (0..=life / MEMORY_PERIOD).map(|period| roll(9, period, MOST_MEMORY_MIB) << 20).collect();
        Self { cpu, memory }
    }

    /// Thousandths of a core, times nanoseconds.
    fn cpu(&self, elapsed: Nanos) -> u64 {
        let (before, rate) = self.cpu[usize::try_from(elapsed / CPU_PERIOD).expect("after its start")];
        before + rate * (elapsed % CPU_PERIOD).unsigned_abs()
    }

    fn cpu_micros(&self, elapsed: Nanos) -> u64 {
        self.cpu(elapsed) / 1_000_000
    }

    fn memory_bytes(&self, elapsed: Nanos) -> u64 {
        self.memory[usize::try_from(elapsed / MEMORY_PERIOD).expect("after its start")]
    }

    /// Seconds of a whole core, and of all the memory that it may have.
    pub fn seconds(&self, life: Nanos) -> (f64, f64) {
        let whole = SECOND as f64;
        let memory = self.memory.iter().zip(0..).map(|(bytes, period)| {
            let lasts = (life - period * MEMORY_PERIOD).min(MEMORY_PERIOD);
            *bytes as f64 * lasts as f64
        });
        let most = (MOST_MEMORY_MIB << 20) as f64;
        (self.cpu(life) as f64 / MOST_CPU_MILLIS as f64 / whole, memory.sum::<f64>() / most / whole)
    }
}

impl Play {
    /// What containers used, read as the operator reads it.
    pub fn read_usage(&self, work: WorkId, attempt: u32, asked: &[Asked], clock: i64) -> Vec<Event> {
        if self.prometheus.away.covers(self.now) {
            return vec![Event::UsageAway { at: clock }];
        }
        let mut used = BTreeMap::new();
        for asked in asked {
            let Some(id) = self.containers.iter().rposition(|container| container.uid == asked.uid) else { continue };
            let mut gathered = Gathered::default();
            for piece in query::pieces(asked, clock) {
                let within = ((piece.until - piece.seconds) * SECOND, piece.until * SECOND);
                let found = self.prometheus.tells(id, &self.containers[id], within, self.now);
                gathered.take(found, asked, &BTreeMap::new());
            }
            used.insert(asked.uid.clone(), told(asked, &gathered, &Gathered::default(), GAP_MILLIS));
        }
        vec![Event::Used { work, attempt, used }]
    }
}
