//! What truly happens, to the nanosecond: jobs, how long each of their containers would run, and what goes wrong when. All of
//! it follows from the seed.

use super::faults::Faults;

/// Nanoseconds since 1970, by a clock that nobody in the simulation has.
pub type Nanos = i64;

pub const SECOND: Nanos = 1_000_000_000;
pub const BEGIN: Nanos = 1_800_000_000 * SECOND;
/// A day brings ten thousand containers.
const BETWEEN_CONTAINERS: Nanos = 8_640 * SECOND / 1_000;
/// A container runs for 0.2 s to two hours.
pub const SHORTEST: Nanos = SECOND / 5;
pub const LONGEST: Nanos = 7_200 * SECOND;

/// Randomness that two runs share: the same parts give the same rolls.
pub struct Dice(u64);

impl Dice {
    pub fn of(parts: &[u64]) -> Self {
        let mut dice = Self(0);
        for part in parts {
            dice.0 = dice.0.rotate_left(17) ^ part.wrapping_mul(0xff51_afd7_ed55_8ccd);
            dice.0 = dice.next();
        }
        dice
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, sides: u64) -> u64 {
        self.next() % sides.max(1)
    }

    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    pub fn between(&mut self, least: Nanos, most: Nanos) -> Nanos {
        least + self.below((most - least).max(1).unsigned_abs()).cast_signed()
    }

    /// As many between one second and ten as between ten minutes and a hundred.
    pub fn log_uniform(&mut self, least: Nanos, most: Nanos) -> Nanos {
        let (least, most) = (least as f64, (most as f64).max(least as f64));
        (least * (most / least).powf(self.fraction())) as Nanos
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    Succeeds,
    /// Fails so often before it succeeds.
    Recovers(u32),
    /// Always fails, and at once.
    Crashes,
    /// Runs longer than it may.
    Overruns,
}

/// Something that somebody applies.
#[derive(Debug, Clone)]
pub struct Job {
    pub name: String,
    pub uid: String,
    pub submitted: Nanos,
    pub habit: Habit,
    pub workers: u32,
    pub devices: u32,
    /// Whether it asks for a part of a GPU.
    pub shared: bool,
    pub retries: u32,
    pub limit_seconds: i64,
    /// Somebody deletes it so long after it was applied.
    pub deleted_after: Option<Nanos>,
}

impl Job {
    /// What it brings at least, if nothing ends it before.
    fn containers(&self) -> usize {
        let attempts = match self.habit {
            Habit::Succeeds | Habit::Overruns => 1,
            Habit::Recovers(times) => times + 1,
            Habit::Crashes => self.retries + 1,
        };
        if self.deleted_after.is_some() { 0 } else { (self.workers * attempts) as usize }
    }
}

/// How one container would live.
#[derive(Debug, Clone)]
pub struct Life {
    /// From its kubelet's first sight of the pod to the container's start.
    pub pull: Nanos,
    pub runs: Nanos,
    pub exit_code: i32,
    /// The kubelet throws it out so long after its start.
    pub evicted_after: Option<Nanos>,
    /// How long it goes on after SIGTERM.
    pub heeds: Nanos,
}

/// All that is drawn before anything happens.
pub struct Trace {
    pub seed: u64,
    pub jobs: Vec<Job>,
    pub evictions: f64,
    /// From the first job to the last.
    pub span: Nanos,
}

impl Trace {
    pub fn new(seed: u64, faults: &Faults, containers: usize) -> Self {
        let mut dice = Dice::of(&[seed, 1]);
        let mut trace = Self { seed, jobs: Vec::new(), evictions: faults.evictions, span: 0 };
        let mut planned = 0;
        // Some never start: they are deleted before.
        while planned < containers + containers / 50 {
            let job = trace.draw(&mut dice);
            planned += job.containers();
            trace.span += dice.between(0, 2 * BETWEEN_CONTAINERS * i64::from(job.workers));
            trace.jobs.push(job);
        }
        trace
    }

    fn draw(&self, dice: &mut Dice) -> Job {
        let index = self.jobs.len();
        let (habit, retries) = match dice.below(20) {
            0..=1 => (Habit::Recovers(1 + dice.below(3) as u32), 3),
            2 => (Habit::Crashes, 2 + dice.below(4) as u32),
            3 => (Habit::Overruns, 0),
            _ => (Habit::Succeeds, dice.below(3) as u32),
        };
        let together = dice.chance(0.08);
        // A name that was there before: its last bearer is deleted, whatever it does.
        let name = match self.jobs.is_empty() || !dice.chance(0.1) {
            true => format!("job-{index}"),
            false => self.jobs[dice.between((index as i64 - 50).max(0), index as i64) as usize].name.clone(),
        };
        Job {
            name,
            uid: format!("{index:08x}-{:04x}", self.seed),
            submitted: BEGIN + 60 * SECOND + self.span,
            habit,
            workers: if together { 2 + dice.below(3) as u32 } else { 1 },
            devices: if dice.chance(0.1) { 2 } else { 1 },
            shared: !together && dice.chance(0.3),
            retries,
            limit_seconds: if habit == Habit::Overruns { 1 + dice.log_uniform(1, 1_800) } else { 10_800 },
            deleted_after: dice.chance(0.04).then(|| dice.log_uniform(SECOND, 3_600 * SECOND)),
        }
    }

    pub fn life(&self, job: usize, attempt: u32, worker: u32) -> Life {
        let mut dice = Dice::of(&[self.seed, 2, job as u64, u64::from(attempt), u64::from(worker)]);
        let Job { habit, limit_seconds, .. } = self.jobs[job];
        let (runs, fails) = match habit {
            Habit::Succeeds => (dice.log_uniform(SHORTEST, LONGEST), false),
            Habit::Recovers(times) => (dice.log_uniform(SHORTEST, LONGEST), attempt < times),
            Habit::Crashes => (dice.log_uniform(SHORTEST, 5 * SECOND), true),
            Habit::Overruns => (dice.between(limit_seconds * SECOND, 2 * limit_seconds * SECOND), false),
        };
        Life {
            pull: if dice.chance(0.05) { dice.between(30 * SECOND, 300 * SECOND) } else { dice.log_uniform(3 * SECOND / 10, 30 * SECOND) },
            runs,
            exit_code: i32::from(fails),
            evicted_after: dice.chance(self.evictions).then(|| dice.between(0, runs)),
            heeds: dice.log_uniform(SECOND / 20, 40 * SECOND),
        }
    }
}
