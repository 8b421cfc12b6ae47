//! Usage: from samples of counters and gauges to quantities. Whole numbers all the way, and never more than the samples show:
//! what no sample shows is not counted, and said to be missing.

use crate::metering::Second;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A sample, in whole parts of its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub at_millis: i64,
    pub value: u64,
}

impl Sample {
    /// As Prometheus tells it: seconds, and a number in text. What is no number, not finite or less than nothing is no sample.
    pub fn read(at_seconds: f64, text: &str, parts_per_unit: f64) -> Option<Self> {
        let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0)? * parts_per_unit;
        // Beyond this a float skips whole numbers, and no counter of ours comes near it.
        const LARGEST: f64 = 9_007_199_254_740_992.0;
        let within = value <= LARGEST && (0.0..LARGEST / 1_000.0).contains(&at_seconds);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both are within the bounds just above")]
        within.then(|| Self { at_millis: (at_seconds * 1_000.0).round() as i64, value: value as u64 })
    }
}

/// Samples of one series in the order of their times, each time once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Series {
    samples: Vec<Sample>,
    /// Samples that were left out: they contradict another one of the same time.
    pub contradicted: u64,
}

impl Series {
    /// However they come: late, doubled, in whichever order. Of two that contradict each other neither is believed.
    pub fn of(mut samples: Vec<Sample>) -> Self {
        samples.sort_unstable_by_key(|sample| (sample.at_millis, sample.value));
        samples.dedup();
        let all = samples.len();
        let mut kept: Vec<Sample> = Vec::with_capacity(all);
        for same_time in samples.chunk_by(|one, other| one.at_millis == other.at_millis) {
            if let [only] = same_time {
                kept.push(*only);
            }
        }
        let contradicted = (all - kept.len()) as u64;
        Self { samples: kept, contradicted }
    }

    pub fn len(&self) -> usize {
        self.samples.len()
    }

    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// From its first sample to its last.
    pub fn span_millis(&self) -> u64 {
        self.samples.first().zip(self.samples.last()).map_or(0, |(first, last)| millis(first.at_millis, last.at_millis))
    }
}

fn millis(from: i64, until: i64) -> u64 {
    u64::try_from(until.saturating_sub(from)).unwrap_or_default()
}

/// The part of a container's life that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub from: Second,
    pub until: Second,
    /// It begins with the container: its counters were zero then.
    pub from_start: bool,
    /// It ends with the container: what a counter said afterwards is what it came to.
    pub to_end: bool,
    /// Two samples further apart than this have a gap between them.
    pub longest_step_millis: u64,
}

impl Window {
    fn begin_millis(&self) -> i64 {
        self.from.saturating_mul(1_000)
    }

    fn end_millis(&self) -> i64 {
        self.until.saturating_mul(1_000)
    }
}

/// What the samples of one series show of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shown {
    /// Of a counter what it grew by; of a gauge its parts times milliseconds.
    pub quantity: u128,
    pub covered_millis: u64,
    pub gaps: u32,
    /// How often a counter began anew.
    pub resets: u32,
}

/// What a counter grew by: from what the last sample before the window said, or from zero where the window begins with the
/// container, to the last sample in it. A counter that falls has begun anew, and what it said before that since is lost. A gap
/// loses nothing: the counter went on.
pub fn counter(series: &Series, window: &Window) -> Shown {
    let within = |sample: &&Sample| window.to_end || sample.at_millis <= window.end_millis();
    let first = if window.from_start {
        0
    } else {
        // Its last sample before the window; if it has none, what it said first is where counting begins.
        series.samples.partition_point(|sample| sample.at_millis <= window.begin_millis()).saturating_sub(1)
    };
    let counted: Vec<Sample> = series.samples.iter().skip(first).take_while(within).copied().collect();
    let Some(base) = counted.first() else { return Shown::default() };
    let mut shown = Shown::default();
    let mut begun = base.at_millis;
    if window.from_start {
        shown.quantity = u128::from(base.value);
        begun = window.begin_millis().min(base.at_millis);
        shown.gaps += u32::from(millis(begun, base.at_millis) > window.longest_step_millis);
    }
    for pair in counted.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        let reset = after.value < before.value;
        shown.resets += u32::from(reset);
        shown.gaps += u32::from(millis(before.at_millis, after.at_millis) > window.longest_step_millis);
        shown.quantity += u128::from(if reset { after.value } else { after.value - before.value });
    }
    let ended = counted.last().map_or(begun, |last| last.at_millis.min(window.end_millis()));
    shown.covered_millis = millis(begun.max(window.begin_millis()), ended);
    shown
}

/// What a gauge is taken for between two of its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// For what both of them show: the lesser. It is for what is paid.
    Lesser,
    /// For their mean. It is for what is told.
    Mean,
}

/// A gauge over time. In a gap nobody knows what it was, so nothing is counted there.
pub fn gauge(series: &Series, window: &Window, between: Between) -> Shown {
    let mut shown = Shown::default();
    for pair in series.samples.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        let (from, until) = (before.at_millis.max(window.begin_millis()), after.at_millis.min(window.end_millis()));
        let inside = millis(from, until);
        if inside == 0 {
            continue;
        }
        if millis(before.at_millis, after.at_millis) > window.longest_step_millis {
            shown.gaps += 1;
            continue;
        }
        let twice = match between {
            Between::Lesser => 2 * u128::from(before.value.min(after.value)),
            Between::Mean => u128::from(before.value) + u128::from(after.value),
        };
        shown.quantity += twice * u128::from(inside) / 2;
        shown.covered_millis += inside;
    }
    shown
}

/// How much of a segment its samples show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shows {
    /// All but what lies between two samples at either end.
    Whole,
    /// There are gaps, or an end is missing.
    Part,
    Nothing,
}

/// What a container used in a segment, as far as samples show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Used {
    /// Thousandths of a core, times seconds.
    pub cpu_milli_seconds: u64,
    /// MiB of its working set, times seconds.
    pub memory_mib_seconds: u64,
    /// Seconds of the segment that the samples of each show.
    pub cpu_seconds_shown: u64,
    pub memory_seconds_shown: u64,
    /// How busy its devices were on average, in percent, where somebody tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_percent: Option<u32>,
    /// Seconds of all its devices that this is the average of.
    #[serde(default)]
    pub gpu_seconds_shown: u64,
    pub gaps: u32,
    pub resets: u32,
    pub shows: Shows,
}

/// Series of one container: CPU in millionths of a second, memory in bytes, and each device's percent in hundredths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Container {
    pub cpu: Series,
    pub memory: Series,
    pub devices: Vec<Series>,
}

const MICROS_PER_MILLI: u128 = 1_000;
const MILLIS_PER_SECOND: u128 = 1_000;
const MIB: u128 = 1 << 20;
const HUNDREDTHS: u128 = 100;

fn fits(quantity: u128) -> u64 {
    u64::try_from(quantity).unwrap_or(u64::MAX)
}

/// What a container used in a window.
pub fn used(container: &Container, window: &Window) -> Used {
    let cpu = counter(&container.cpu, window);
    let memory = gauge(&container.memory, window, Between::Lesser);
    let devices: Vec<Shown> = container.devices.iter().map(|series| gauge(series, window, Between::Mean)).collect();
    let busy = devices.iter().map(|shown| shown.quantity).sum::<u128>();
    let told = devices.iter().map(|shown| u128::from(shown.covered_millis)).sum::<u128>();
    let asked = millis(window.begin_millis(), window.end_millis());
    let short = |shown: &Shown| shown.covered_millis.saturating_add(2 * window.longest_step_millis) < asked;
    let shows = match () {
        () if container.cpu.is_empty() && container.memory.is_empty() => Shows::Nothing,
        () if cpu.gaps + memory.gaps + cpu.resets > 0 || short(&cpu) || short(&memory) => Shows::Part,
        () => Shows::Whole,
    };
    Used {
        cpu_milli_seconds: fits(cpu.quantity / MICROS_PER_MILLI),
        memory_mib_seconds: fits(memory.quantity / MILLIS_PER_SECOND / MIB),
        cpu_seconds_shown: cpu.covered_millis / 1_000,
        memory_seconds_shown: memory.covered_millis / 1_000,
        gpu_percent: busy.checked_div(told).map(|average| u32::try_from(average / HUNDREDTHS).unwrap_or(u32::MAX)),
        gpu_seconds_shown: fits(told / MILLIS_PER_SECOND),
        gaps: cpu.gaps + memory.gaps,
        resets: cpu.resets,
        shows,
    }
}

/// Two sources that do not say the same of a segment, or one that says nothing where it is the price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Anomaly {
    /// Its samples go on for longer than its record says that it ran.
    SampledLonger,
    /// It used more CPU than anybody could with what it had, in the time that its record says.
    MoreCpuThanItHad,
    /// The kubelet and the GPUs' exporter name different devices.
    OtherDevices,
    /// CPU and memory are billed as they are used, and nobody could show in time what was: they are not billed.
    UseNotShown,
}

/// Whether a kubelet and the GPUs' exporter can mean the same devices. Of slices the exporter names the GPU alone, and what is
/// handed out several times has a number of its own at the kubelet. Nobody has more of them than it was given.
pub fn same_devices(told: &[&str], exported: &BTreeSet<String>, given: u32) -> bool {
    if exported.len() > given as usize {
        return false;
    }
    let whole: BTreeSet<&str> = told.iter().filter(|id| id.starts_with("GPU-")).map(|id| id.split("::").next().unwrap_or(id)).collect();
    whole.is_empty() || whole.len() < told.len() || whole.iter().copied().eq(exported.iter().map(String::as_str))
}

/// Exporters repeat what they knew for a while, and clocks are a little apart.
const TOLERANCE_MILLIS: u64 = 60_000;

/// Holds what a record says against what samples show; `ran_seconds` is all that the container ran.
pub fn disagreements(container: &Container, window: &Window, ran_seconds: u64, cpu_millis: u64) -> Vec<Anomaly> {
    let ran_millis = ran_seconds.saturating_mul(1_000).saturating_add(TOLERANCE_MILLIS);
    let longer = container.cpu.span_millis().max(container.memory.span_millis()) > ran_millis;
    let whole = Window { from_start: window.from_start, to_end: true, ..*window };
    // Millionths of a second of one core, against thousandths of a core times milliseconds.
    let most = u128::from(cpu_millis) * u128::from(ran_millis);
    let more = counter(&container.cpu, &whole).quantity > most;
    [(longer, Anomaly::SampledLonger), (more, Anomaly::MoreCpuThanItHad)].into_iter().filter(|(is, _)| *is).map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests;
