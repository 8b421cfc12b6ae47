//! A small version of the fault matrix, held to the same targets as the benchmark.

use crate::metering_matrix::faults::{self, Faults};
use crate::metering_matrix::report::{self, Whole};
use crate::metering_matrix::trace::{Habit, Job, LONGEST, Nanos, SECOND, SHORTEST, Trace};
use crate::metering_matrix::{Row, row};

/// So many a row: the benchmark has ten thousand.
const CONTAINERS: usize = 500;
/// So long Kubernetes takes to notice that a node is silent: who looks at it meanwhile sees what runs there alive.
const UNHEARD_SECONDS: f64 = 41.0;
/// What a container may be billed too much whose node's clock was set while it ran: no more than the time until it was seen to
/// have ended, and from its binding, in which its image was pulled, for at most 5 min.
const SET_SECONDS: f64 = 305.0;
/// So often kubelets are scraped; and so much of a life may lie outside of samples that are said to show all of it.
const STEP_SECONDS: f64 = 15.0;
const UNSHOWN_SECONDS: f64 = 240.0;

fn play(faults: &Faults, seed: u64) -> Row {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(row(faults, CONTAINERS, seed))
}

#[test]
fn whatever_fails_each_container_is_billed_once_for_what_it_ran() {
    let rows: Vec<Row> = std::thread::scope(|scope| {
        let plays: Vec<_> = (1..).zip(faults::rows()).map(|(seed, faults)| scope.spawn(move || play(&faults, seed))).collect();
        plays.into_iter().map(|play| play.join().expect("a row")).collect()
    });
    println!("{}", report::head());
    rows.iter().flat_map(report::lines).for_each(|line| println!("{line}"));
    assert!(rows.iter().all(|row| row.ended), "something never came to an end");
    assert!(rows.iter().all(|row| row.held == 0), "what was used was charged or given back");
    let whole = Whole::of(&rows);
    assert_eq!((whole.missed, whole.false_faults), (0, 0));
    assert!(whole.errors.most() <= 1.0, "{} s beside what a container ran", whole.errors.most());
    assert!(whole.double_seconds == 0.0, "{} s are billed twice", whole.double_seconds);
    assert_eq!(whole.used_wrong, 0, "a charge is what its quantities cost");
    assert!(whole.used_over <= STEP_SECONDS, "{} s of CPU or memory are billed that nobody used", whole.used_over);
    assert!(whole.used_unsaid <= UNSHOWN_SECONDS, "{} s of CPU are missing, and nothing says so", whole.used_unsaid);
    assert!(whole.busiest <= 1.0, "{} of a GPU's time is billed", whole.busiest);
    assert!(whole.incomplete_over <= UNHEARD_SECONDS, "{} s that nobody has a record of", whole.incomplete_over);
    assert!(whole.errors.mean().abs() <= 0.02, "{} s more than it ran", whole.errors.mean());
    assert!(whole.containers * 10 >= CONTAINERS * 9, "{} containers in the smallest row", whole.containers);
    assert!(whole.together.mean() <= 1.0, "{} s more than gangs ran whose clocks are apart", whole.together.mean());
    println!("{:.2} s too much by a clock that was set meanwhile", whole.set.over());
    assert!(whole.set.0.len() >= 10, "{} containers whose nodes' clocks were set", whole.set.0.len());
    assert!(whole.set.over() <= SET_SECONDS, "{} s by a clock that was set meanwhile", whole.set.over());
    let apart = rows.iter().find(|row| row.faults.skew_seconds > 0 && !row.faults.api).expect("a row");
    assert!(apart.verdict.together.within(900) <= 3.0, "{} s by two clocks", apart.verdict.together.within(900));
}

#[test]
fn a_seed_is_one_trace_with_every_habit_in_it() {
    let faults = Faults::none("none");
    let (one, again) = (Trace::new(7, &faults, 500), Trace::new(7, &faults, 500));
    assert_eq!(format!("{:?}", one.jobs), format!("{:?}", again.jobs));
    assert_ne!(format!("{:?}", one.jobs), format!("{:?}", Trace::new(8, &faults, 500).jobs));
    let any = |found: fn(&Job) -> bool| one.jobs.iter().any(found);
    assert!(any(|job| job.workers > 1) && any(|job| job.shared) && any(|job| job.deleted_after.is_some()));
    assert!(any(|job| job.habit == Habit::Crashes) && any(|job| job.habit == Habit::Overruns));
    let names: std::collections::BTreeSet<&str> = one.jobs.iter().map(|job| job.name.as_str()).collect();
    assert!(names.len() < one.jobs.len(), "a name is used again");
}

#[test]
fn lives_are_as_often_short_as_long() {
    let trace = Trace::new(7, &Faults::none("none"), 2_000);
    let lives: Vec<Nanos> =
        (0..trace.jobs.len()).filter(|job| trace.jobs[*job].habit == Habit::Succeeds).map(|job| trace.life(job, 0, 0).runs).collect();
    let within = |least: f64, most: f64| {
        let range = (least * SECOND as f64) as Nanos..(most * SECOND as f64) as Nanos;
        lives.iter().filter(|life| range.contains(life)).count() as f64 / lives.len() as f64
    };
    assert!(lives.iter().all(|life| (SHORTEST..=LONGEST).contains(life)));
    assert!((within(0.2, 38.0) - 0.5).abs() < 0.05 && (within(38.0, 7_200.0) - 0.5).abs() < 0.05);
}
