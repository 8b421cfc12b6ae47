//! Metering: how long a container ran, from what its pod's record says and what our own clock saw. Kubernetes gives
//! whole seconds of the kubelet's clock; both ends come from the same clock, so its skew cancels. A record that can't be
//! true is never arithmetic: it is bounded by the last evidence, or worth nothing, and says which.

use serde::{Deserialize, Serialize};

/// Unix seconds.
pub type Second = i64;

/// How far our clock is ahead of a kubelet's, at least and at most. Nothing starts before it is bound, and nothing is seen before
/// it is: each container on a node narrows it, however late it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    pub least: Second,
    pub most: Second,
}

impl Ahead {
    /// What one container shows of that clock when it started.
    pub fn of(record: &PodRecord) -> Option<Self> {
        let (start, end) = (Self::of_start(record), Self::of_end(record));
        match (start, end) {
            // Where its end shows something else the clock was set while it ran.
            (Some(start), Some(end)) => Some(start.and(end).unwrap_or(start)),
            (Some(one), None) | (None, Some(one)) => Some(one),
            (None, None) => None,
        }
    }

    /// What it shows of that clock as it is by now.
    pub fn lately(record: &PodRecord) -> Option<Self> {
        let was_set = |start: Self, end: Self| start.and(end).is_none().then_some(Self { least: Second::MIN, ..end });
        let set = Self::of_start(record).zip(Self::of_end(record)).and_then(|(start, end)| was_set(start, end));
        set.or_else(|| Self::of(record))
    }

    /// What others on its node had shown until then counts where it was seen at once: by a clock that was set before it started, and
    /// of which nobody knew that yet, it seems to have been seen late.
    fn of_start(record: &PodRecord) -> Option<Self> {
        let started = record.started.filter(|&started| started >= EARLIEST)?;
        let own = Self { least: record.bound - started, most: record.first_running? - started };
        let others = record.clock_at_start.filter(|others| own.most <= others.most.saturating_add(SLACK_SECONDS));
        Some(others.and_then(|others| others.and(own)).unwrap_or(own))
    }

    fn of_end(record: &PodRecord) -> Option<Self> {
        let started = record.started.filter(|&started| started >= EARLIEST)?;
        let (seen, finished) = record.told().zip(record.finished).filter(|&(_, finished)| finished >= started)?;
        Some(Self { least: record.bound - started, most: seen - finished })
    }

    /// Both hold. None: one of the clocks was set meanwhile.
    pub fn and(self, other: Self) -> Option<Self> {
        let both = Self { least: self.least.max(other.least), most: self.most.min(other.most) };
        (both.least <= both.most.saturating_add(SLACK_SECONDS)).then_some(both)
    }

    /// A clock is right until something says otherwise.
    fn shown(self) -> Second {
        if self.most < 0 {
            self.most
        } else if self.least <= SLACK_SECONDS {
            0
        } else if self.most - self.least <= LATE_SECONDS {
            self.most
        } else {
            self.least
        }
    }
}

/// What is known of one container, by two clocks that are never mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodRecord {
    /// The kubelet's clock: when the container started and finished.
    pub started: Option<Second>,
    pub finished: Option<Second>,
    /// Our clock: when the pod was bound, first seen running, last known to run, seen at its end.
    pub bound: Second,
    pub first_running: Option<Second>,
    pub last_alive: Option<Second>,
    pub terminal: Option<Second>,
    /// When its end was told, where that was later: somebody may have said before that it is over.
    pub recorded: Option<Second>,
    /// What other containers on its node showed of that kubelet's clock.
    pub clock: Option<Ahead>,
    /// What they had shown of it when this one was first seen to run, as far as that was seen by this clock of ours.
    pub clock_at_start: Option<Ahead>,
}

impl PodRecord {
    fn told(&self) -> Option<Second> {
        self.recorded.or(self.terminal)
    }
}

/// How good the evidence of a charge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Evidence {
    /// The container's own record, both ends.
    Record,
    /// The record said more than our clock allows, and was cut to that.
    Clamped,
    /// There is no whole record: from first seen running to last known alive.
    Observed,
    /// It never ran, as far as anybody knows.
    None,
}

/// What a record was longer than.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CutBy {
    /// What passed from its binding to its end, by our clock.
    OurClock,
    /// What passed by our clock since its node's clock showed the start that it tells, as others on that node had shown that clock:
    /// it was set forward while this one ran.
    NodeClock,
}

/// Why less is billed than a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    pub by: CutBy,
    /// So many seconds more the record says.
    pub seconds: u64,
}

/// What is billed of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    pub seconds: u64,
    pub evidence: Evidence,
    /// By the clock of the evidence, for receipts.
    pub from: Second,
    pub until: Second,
    /// Of a clamped one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
}

/// A whole second may be lost at each end of what our clock saw.
const SLACK_SECONDS: i64 = 2;
/// What takes longer to be seen is not late because we began anew, or a watch did.
const LATE_SECONDS: i64 = 60;
/// Before this nothing of ours ran: 1970 and its like are not times.
const EARLIEST: Second = 1_600_000_000;

pub fn measure(record: &PodRecord) -> Measured {
    let valid = |second: Option<Second>| second.filter(|&second| second >= EARLIEST);
    match (valid(record.started), valid(record.finished)) {
        (Some(started), Some(finished)) if finished >= started => clamped(record, started, finished),
        _ => observed(record),
    }
}

/// Workers that belong together are billed from the start of the last of them: nothing, if one of them never started. Each
/// start is read on our clock: the kubelets' own are compared only as far as ours does not tell them apart.
pub fn measure_together(records: &[Option<PodRecord>]) -> Vec<Option<Measured>> {
    let starts: Vec<Option<Second>> = records.iter().map(|record| record.as_ref().and_then(start)).collect();
    let last = starts.iter().copied().try_fold(Second::MIN, |last, start| Some(last.max(start?)));
    let alone = records.len() == 1;
    let one = |(record, start): (&Option<PodRecord>, &Option<Second>)| {
        let mut measured = measure(record.as_ref()?);
        if !alone {
            let early = last.zip(*start).map(|(last, start)| (last - start).unsigned_abs());
            measured.seconds = early.map_or(0, |early| measured.seconds.saturating_sub(early));
        }
        Some(measured)
    };
    records.iter().zip(&starts).map(one).collect()
}

/// When a container started, if it did.
fn start(record: &PodRecord) -> Option<Second> {
    let ran = record.first_running.is_some() || record.finished.is_some();
    let told = record.started.filter(|&started| started >= EARLIEST && ran);
    told.map(|started| started + ahead(record)).or(record.first_running)
}

/// How far our clock is ahead of a kubelet's: not at all, unless what we saw says otherwise, of this container or of others on
/// its node. A start and an end that were seen equally late, by more than we are ever late ourselves, are its doing too.
fn ahead(record: &PodRecord) -> Second {
    let Some(own) = Ahead::of(record) else { return record.clock.map_or(0, Ahead::shown) };
    let all = record.clock.and_then(|clock| clock.and(own)).unwrap_or(own);
    let seen_start = record.first_running.zip(record.started).map(|(seen, started)| seen - started);
    let seen_end = record.told().zip(record.finished).map(|(seen, finished)| seen - finished);
    let equally = seen_start.zip(seen_end).is_some_and(|(start, end)| start.abs_diff(end) <= 1);
    let apart = record.first_running.zip(record.terminal).is_some_and(|(first, last)| last - first > SLACK_SECONDS);
    if all.shown() == 0 && equally && apart && all.most > LATE_SECONDS { all.most } else { all.shown() }
}

/// Cut to what our clock saw between binding and the end: a longer record is a wrong one. Binding may be long before the start, and
/// a record wrong by as much: what others showed of the node's clock bounds the start as well. A clock that was set back makes a
/// record shorter than what ran, and nothing is made longer for it.
fn clamped(record: &PodRecord, started: Second, finished: Second) -> Measured {
    let ran = finished - started;
    let earliest = Ahead::of_start(record).map_or(record.bound, |ahead| started + ahead.least);
    let most = record.terminal.map_or(ran, |terminal| (terminal - earliest).max(0) + SLACK_SECONDS);
    let seconds = ran.min(most);
    let by = if earliest > record.bound { CutBy::NodeClock } else { CutBy::OurClock };
    let cut = (seconds < ran).then(|| Cut { by, seconds: (ran - seconds).unsigned_abs() });
    let evidence = if cut.is_none() { Evidence::Record } else { Evidence::Clamped };
    Measured { seconds: seconds.unsigned_abs(), evidence, from: started, until: started + seconds, cut }
}

fn observed(record: &PodRecord) -> Measured {
    let Some(from) = record.first_running else {
        return Measured { seconds: 0, evidence: Evidence::None, from: record.bound, until: record.bound, cut: None };
    };
    let last = record.last_alive.unwrap_or(from);
    let until = record.terminal.map_or(last, |terminal| last.min(terminal)).max(from);
    Measured { seconds: (until - from).unsigned_abs(), evidence: Evidence::Observed, from, until, cut: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Second = 1_800_000_000;

    fn record() -> PodRecord {
        PodRecord {
            started: Some(T + 2),
            finished: Some(T + 62),
            bound: T,
            first_running: Some(T + 3),
            last_alive: Some(T + 60),
            terminal: Some(T + 63),
            recorded: None,
            clock: None,
            clock_at_start: None,
        }
    }

    #[test]
    fn each_kind_of_record_is_worth_what_it_proves() {
        let skewed = |by: Second| PodRecord { started: Some(T + 2 + by), finished: Some(T + 62 + by), ..record() };
        let cases = [
            ("a whole record", record(), 60, Evidence::Record),
            ("a node five minutes ahead", skewed(300), 60, Evidence::Record),
            ("a node five minutes behind", skewed(-300), 60, Evidence::Record),
            ("an end that we missed", PodRecord { terminal: None, ..record() }, 60, Evidence::Record),
            ("longer than we saw", PodRecord { finished: Some(T + 900), ..record() }, 65, Evidence::Clamped),
            ("started in 1970", PodRecord { started: Some(0), ..record() }, 57, Evidence::Observed),
            ("no end", PodRecord { finished: None, ..record() }, 57, Evidence::Observed),
            ("an end before the start", PodRecord { finished: Some(T - 9), ..record() }, 57, Evidence::Observed),
            ("nothing but one sight of it", PodRecord { started: None, last_alive: None, ..record() }, 0, Evidence::Observed),
            ("never ran", PodRecord { started: None, finished: None, first_running: None, ..record() }, 0, Evidence::None),
        ];
        for (name, record, seconds, evidence) in cases {
            let measured = measure(&record);
            assert_eq!((measured.seconds, measured.evidence), (seconds, evidence), "{name}");
        }
    }

    #[test]
    fn a_clamped_record_says_what_it_was_cut_by_and_by_how_much() {
        let measured = measure(&PodRecord { finished: Some(T + 900), ..record() });
        assert_eq!(measured.cut, Some(Cut { by: CutBy::OurClock, seconds: 833 }));
        assert_eq!((measured.seconds, measured.from, measured.until), (65, T + 2, T + 67));
        for whole in [record(), PodRecord { terminal: None, ..record() }, PodRecord { started: None, ..record() }] {
            assert_eq!(measure(&whole).cut, None);
        }
    }

    #[test]
    fn a_record_is_cut_by_as_much_as_its_nodes_clock_was_set_forward_while_it_ran() {
        // It was bound 10 min before it started, and ran 60 s: from binding to end there was time for 11 min.
        let set = |by: Second| PodRecord { bound: T - 600, finished: Some(T + 62 + by), ..record() };
        let others = |least: Second, most: Second| Some(Ahead { least, most });
        let right = others(-2, 1);
        let shown = |by: Second, clock_at_start| PodRecord { clock_at_start, ..set(by) };
        let skewed = |record: PodRecord| PodRecord { started: record.started.map(|at| at + 300), ..record };
        let cases = [
            ("nobody else shows it", shown(300, None), 360, None),
            ("others had shown that it was right", shown(300, right), 65, Some(295)),
            ("it was the same all the time", shown(0, right), 60, None),
            ("it was ahead all the time", skewed(shown(300, others(-302, -299))), 60, None),
            ("it was set by less than can be told", shown(5, right), 65, None),
            ("it was set back", shown(-30, right), 30, None),
            ("others contradict its own start", shown(300, others(900, 901)), 360, None),
            ("by a clock that was set before it is seen late", PodRecord { first_running: Some(T + 9), ..shown(300, right) }, 360, None),
            ("its end was seen late", PodRecord { terminal: Some(T + 163), ..shown(300, right) }, 165, Some(195)),
            ("nobody saw its end", PodRecord { terminal: None, ..shown(300, right) }, 360, None),
        ];
        for (name, record, seconds, cut) in cases {
            let measured = measure(&record);
            assert_eq!((measured.seconds, measured.cut.map(|cut| cut.seconds)), (seconds, cut), "{name}");
            assert_eq!(measured.evidence == Evidence::Clamped, cut.is_some(), "{name}");
            assert!(measured.cut.is_none_or(|cut| cut.by == CutBy::NodeClock), "{name}");
        }
    }

    #[test]
    fn a_clock_that_was_set_while_a_worker_ran_moves_no_start() {
        let set = PodRecord { finished: Some(T + 362), ..record() };
        let late = PodRecord { bound: T - 600, clock_at_start: Some(Ahead { least: -2, most: 1 }), ..set };
        for set in [set, late] {
            let seconds: Vec<u64> = measure_together(&[Some(record()), Some(set)]).into_iter().flatten().map(|one| one.seconds).collect();
            assert_eq!(seconds, [60, measure(&set).seconds]);
        }
        assert_eq!(Ahead::of(&set), Some(Ahead { least: -2, most: 1 }));
        assert_eq!(Ahead::lately(&set), Some(Ahead { least: Second::MIN, most: -299 }));
    }

    #[test]
    fn workers_are_billed_from_the_start_of_the_last_of_them() {
        let worker = |start: Second| PodRecord { started: Some(T + start), first_running: Some(T + start + 1), ..record() };
        let never = PodRecord { started: None, finished: None, first_running: None, ..record() };
        let ahead = |by: Second, start: Second| PodRecord { started: Some(T + start + by), finished: Some(T + 62 + by), ..worker(start) };
        let seen_late = |start: Second| PodRecord { first_running: None, terminal: Some(T + 900), ..worker(start) };
        type Case = (&'static str, Vec<Option<PodRecord>>, Vec<Option<u64>>);
        let behind = PodRecord { bound: T - 200, ..ahead(-90, 42) };
        let short = PodRecord { finished: Some(T + 23), first_running: Some(T + 900), terminal: Some(T + 900), ..worker(22) };
        let pulled = |behind: Second, clock: Option<Ahead>| PodRecord { bound: T - 200, clock, ..ahead(-behind, 42) };
        let late = PodRecord { first_running: Some(T + 900), terminal: Some(T + 900), ..worker(22) };
        let failed_before = PodRecord { terminal: Some(T + 32), recorded: Some(T + 64), ..worker(22) };
        let cases: [Case; 17] = [
            ("one alone", vec![Some(worker(2))], vec![Some(60)]),
            ("one of two is late", vec![Some(worker(2)), Some(worker(22))], vec![Some(40), Some(40)]),
            ("one never starts", vec![Some(worker(2)), Some(never)], vec![Some(0), Some(0)]),
            ("one was never made", vec![Some(worker(2)), None], vec![Some(0), None]),
            (
                "one ends before the other starts",
                vec![Some(PodRecord { finished: Some(T + 9), ..worker(2) }), Some(worker(22))],
                vec![Some(0), Some(40)],
            ),
            ("a clock that is five minutes ahead", vec![Some(ahead(300, 2)), Some(worker(2))], vec![Some(60), Some(59)]),
            ("a late one whose clock is behind", vec![Some(worker(2)), Some(ahead(-300, 42))], vec![Some(19), Some(20)]),
            ("bound long before, and its clock is behind", vec![Some(worker(2)), Some(behind)], vec![Some(19), Some(20)]),
            ("a short one, seen when all was over", vec![Some(worker(2)), Some(short)], vec![Some(40), Some(1)]),
            ("an early one whose clock is behind", vec![Some(ahead(-300, 2)), Some(worker(42))], vec![Some(21), Some(20)]),
            ("all were seen when all was over", vec![Some(seen_late(2)), Some(seen_late(22))], vec![Some(40), Some(40)]),
            ("one was seen late", vec![Some(seen_late(2)), Some(worker(22))], vec![Some(40), Some(40)]),
            ("somebody called one failed before it was", vec![Some(worker(2)), Some(failed_before)], vec![Some(40), Some(34)]),
            (
                "others on its node show that its clock is behind",
                vec![Some(worker(2)), Some(pulled(50, Some(Ahead { least: 48, most: 51 })))],
                vec![Some(19), Some(20)],
            ),
            (
                "others on its node show that its clock is right, and it was seen late",
                vec![Some(worker(2)), Some(PodRecord { clock: Some(Ahead { least: -2, most: 1 }), ..late })],
                vec![Some(40), Some(40)],
            ),
            (
                "others were seen late as well",
                vec![Some(worker(2)), Some(PodRecord { clock: Some(Ahead { least: -30, most: 700 }), ..late })],
                vec![Some(40), Some(40)],
            ),
            (
                "its clock was set since others showed it",
                vec![Some(worker(2)), Some(pulled(0, Some(Ahead { least: 200, most: 202 })))],
                vec![Some(20), Some(20)],
            ),
        ];
        for (name, records, seconds) in cases {
            let measured: Vec<Option<u64>> = measure_together(&records).into_iter().map(|one| one.map(|one| one.seconds)).collect();
            assert_eq!(measured, seconds, "{name}");
        }
    }

    #[test]
    fn a_container_that_ended_within_its_first_second_costs_nothing() {
        let measured = measure(&PodRecord { finished: Some(T + 2), ..record() });
        assert_eq!((measured.seconds, measured.evidence), (0, Evidence::Record));
    }
}
