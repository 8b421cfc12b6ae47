//! What was billed of CPU and memory where a card bills them as they are used, against what was truly used.

use super::play::Play;
use super::prometheus::Use;
use super::report::SECOND_LINE;
use supercargo_ledger::Charge;
use supercargo_market::metering::Evidence;
use supercargo_market::usage::Shows;

const MIB_PER_GIB: f64 = 1_024.0;

/// One of both, in seconds of all that containers may have of it.
#[derive(Debug, Default, Clone, Copy)]
pub struct Side {
    pub used: f64,
    pub billed: f64,
    /// The most that a container was billed for beyond what it used.
    pub over: f64,
    /// The most that was not billed of one whose samples are said to show all of it.
    pub unsaid: f64,
}

#[derive(Debug, Default, Clone, Copy)]
pub struct UsedVerdict {
    pub containers: usize,
    pub cpu: Side,
    pub memory: Side,
    /// Containers of which samples are said to show a part, or nothing.
    pub incomplete: usize,
    /// Charges that are not what their quantities cost, or more than what was held.
    pub wrong: usize,
}

impl Side {
    fn add(&mut self, used: f64, billed: f64, whole: bool) {
        (self.used, self.billed) = (self.used + used, self.billed + billed);
        self.over = self.over.max(billed - used);
        if whole {
            self.unsaid = self.unsaid.max(used - billed);
        }
    }

    /// In percent of what was used.
    pub fn error(&self) -> f64 {
        if self.used > 0.0 { 100.0 * (self.billed - self.used) / self.used } else { 0.0 }
    }
}

pub fn judge(play: &Play) -> UsedVerdict {
    let mut verdict = UsedVerdict::default();
    for (id, container) in play.containers.iter().enumerate().filter(|(_, container)| play.machines[container.node].shared) {
        let charge = play.books.charges.get(&container.uid).filter(|charge| charge.seconds > 0);
        let (Some(charge), Some(started), Some(ended)) = (charge, container.started, container.ended) else { continue };
        let (cpu, memory) = Use::of(play.trace.seed, id, ended - started).seconds(ended - started);
        let metered = charge.metered.as_ref().expect("it is new");
        // Of one core and one GiB.
        let shown = metered.used.map(|used| (used.cpu_milli_seconds as f64 / 1_000.0, used.memory_mib_seconds as f64 / MIB_PER_GIB));
        let (billed_cpu, billed_memory) = shown.unwrap_or_default();
        let most = charge.seconds as f64;
        let whole = metered.used.is_some_and(|used| used.shows == Shows::Whole);
        // Of what nobody has a record of the end is missing too, or by a clock that was set.
        let was_set = play.machines[container.node].was_set(started, ended);
        let recorded = charge.evidence == Evidence::Record && !was_set;
        verdict.containers += 1;
        verdict.cpu.add(cpu, billed_cpu.min(most), whole && recorded);
        verdict.memory.add(memory, billed_memory.min(most), whole && recorded);
        verdict.incomplete += usize::from(!whole);
        verdict.wrong += usize::from(!costs(charge, billed_cpu.min(most), billed_memory.min(most)));
    }
    verdict
}

/// Whether a charge is what so much costs by the card of the row: 0.90 an hour for each device, 0.36 for a core and 0.072 for a GiB.
fn costs(charge: &Charge, cpu: f64, memory: f64) -> bool {
    let devices = charge.metered.as_ref().map_or(0, |metered| metered.devices.count);
    let due = (900_000.0 * f64::from(devices) * charge.seconds as f64 + 360_000.0 * cpu + 72_000.0 * memory) / 3_600.0;
    charge.cost.charged().is_ok_and(|charged| (charged.units() as f64 - due).abs() <= 1.0)
}

/// The line of a row.
pub fn line(verdict: &UsedVerdict) -> String {
    let UsedVerdict { containers, cpu, memory, incomplete, .. } = verdict;
    let side = |name: &str, side: &Side| format!("{name} {:+.2} % (at most {:+.2} s a container)", side.error(), side.over);
    format!(
        "{:<SECOND_LINE$} {:<18} {containers:>10} {}, {}, {incomplete} with gaps or less",
        "",
        "what was used",
        side("CPU", cpu),
        side("memory", memory)
    )
}
