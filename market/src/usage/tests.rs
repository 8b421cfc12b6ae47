use super::*;
use proptest::prelude::*;

const T: Second = 1_800_000_000;

/// A container that ran for 100 s, looked at whole.
fn whole() -> Window {
    Window { from: T, until: T + 100, from_start: true, to_end: true, longest_step_millis: 30_000 }
}

/// Seconds since its start, and what a sample said then.
fn series(samples: &[(i64, u64)]) -> Series {
    Series::of(samples.iter().map(|&(at, value)| Sample { at_millis: (T + at) * 1_000, value }).collect())
}

#[test]
fn a_counter_is_worth_what_its_samples_show() {
    let part = Window { from: T + 20, until: T + 80, from_start: false, to_end: false, ..whole() };
    let last = Window { to_end: true, until: T + 100, ..part };
    type Case = (&'static str, Window, &'static [(i64, u64)], (u128, u64, u32, u32));
    // The quantity, the seconds that are shown, gaps and resets.
    let cases: [Case; 17] = [
        ("no samples", whole(), &[], (0, 0, 0, 0)),
        ("one sample: it was zero at the start", whole(), &[(10, 7)], (7, 10, 0, 0)),
        ("the start was not seen, and nothing before it", whole(), &[(20, 20), (40, 40), (60, 60)], (60, 60, 0, 0)),
        ("the first sample is late: a gap that loses nothing", whole(), &[(50, 50), (60, 60)], (60, 60, 1, 0)),
        ("a gap in between loses nothing", whole(), &[(10, 10), (90, 90)], (90, 90, 1, 0)),
        ("it stands still", whole(), &[(10, 5), (30, 5), (50, 5)], (5, 50, 0, 0)),
        ("it begins anew", whole(), &[(10, 10), (30, 30), (50, 4), (70, 9)], (39, 70, 0, 1)),
        ("it begins anew twice", whole(), &[(10, 10), (30, 3), (50, 2)], (15, 50, 0, 2)),
        ("doubled samples", whole(), &[(10, 10), (30, 30), (30, 30), (10, 10)], (30, 30, 0, 0)),
        ("out of order", whole(), &[(70, 70), (10, 10), (30, 30), (50, 50)], (70, 70, 0, 0)),
        ("two that contradict each other", whole(), &[(10, 10), (20, 0), (20, 20), (30, 30)], (30, 30, 0, 0)),
        ("what is told after the end is what it came to", whole(), &[(10, 10), (30, 30), (55, 55), (80, 80), (104, 99)], (99, 100, 0, 0)),
        ("a clock that is behind", whole(), &[(-5, 3), (15, 20)], (20, 15, 0, 0)),
        ("a part of its life", part, &[(10, 10), (18, 18), (40, 40), (70, 70), (90, 90)], (52, 50, 0, 0)),
        ("a part whose beginning nobody saw", part, &[(40, 40), (70, 70)], (30, 30, 0, 0)),
        ("a part that was over before the first sample", part, &[(90, 90)], (0, 0, 0, 0)),
        ("the last part", last, &[(18, 18), (40, 40), (70, 70), (90, 90), (103, 95)], (77, 80, 0, 0)),
    ];
    for (name, window, samples, expected) in cases {
        let shown = counter(&series(samples), &window);
        assert_eq!((shown.quantity, shown.covered_millis / 1_000, shown.gaps, shown.resets), expected, "{name}");
    }
}

#[test]
fn parts_of_a_life_add_up_to_the_whole_of_it() {
    let series = series(&[(7, 5), (21, 30), (44, 31), (66, 2), (88, 40)]);
    let parts = [(0, 30, true, false), (30, 60, false, false), (60, 100, false, true)].map(|(from, until, from_start, to_end)| {
        counter(&series, &Window { from: T + from, until: T + until, from_start, to_end, ..whole() }).quantity
    });
    assert_eq!(parts.iter().sum::<u128>(), counter(&series, &whole()).quantity);
}

#[test]
fn a_gauge_counts_for_what_both_its_neighbours_show() {
    type Case = (&'static str, &'static [(i64, u64)], (u128, u64, u32));
    // In parts times seconds; the seconds that are shown; gaps.
    let cases: [Case; 9] = [
        ("no samples", &[], (0, 0, 0)),
        ("one sample says nothing of any time", &[(10, 7)], (0, 0, 0)),
        ("it stays", &[(10, 7), (30, 7)], (140, 20, 0)),
        ("it rises, it falls", &[(10, 2), (30, 8), (50, 4)], (40 + 80, 40, 0)),
        ("a gap counts for nothing", &[(10, 5), (20, 5), (80, 5), (90, 5)], (100, 20, 1)),
        ("before it began and after it ended", &[(-10, 4), (10, 4), (30, 4), (95, 4), (110, 4)], (40 + 80 + 20, 35, 1)),
        ("doubled and out of order", &[(30, 6), (10, 6), (30, 6)], (120, 20, 0)),
        ("two that contradict each other", &[(10, 6), (20, 1), (20, 9), (30, 6)], (120, 20, 0)),
        ("only before it began", &[(-30, 4), (-10, 4)], (0, 0, 0)),
    ];
    for (name, samples, expected) in cases {
        let shown = gauge(&series(samples), &whole(), Between::Lesser);
        assert_eq!((shown.quantity / 1_000, shown.covered_millis / 1_000, shown.gaps), expected, "{name}");
    }
    let mean = gauge(&series(&[(10, 2), (30, 8), (50, 4)]), &whole(), Between::Mean);
    assert_eq!(mean.quantity / 1_000, 100 + 120);
}

#[test]
fn what_is_no_number_is_no_sample() {
    let read = |at: f64, text: &str| Sample::read(at, text, 1_000.0);
    assert_eq!(read(1.5, "2.25"), Some(Sample { at_millis: 1_500, value: 2_250 }));
    assert_eq!(read(1.5, "1e3"), Some(Sample { at_millis: 1_500, value: 1_000_000 }));
    for text in ["NaN", "+Inf", "-Inf", "-1", "1e300", "", "seven"] {
        assert_eq!(read(1.5, text), None, "{text:?}");
    }
    for at in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        assert_eq!(read(at, "1"), None, "{at}");
    }
}

fn container(cpu: &[(i64, u64)], memory: &[(i64, u64)]) -> Container {
    let scaled = |samples: &[(i64, u64)], by: u64| samples.iter().map(|&(at, value)| (at, value * by)).collect::<Vec<_>>();
    Container { cpu: series(&scaled(cpu, 1_000_000)), memory: series(&scaled(memory, 1 << 20)), devices: Vec::new() }
}

#[test]
fn how_much_of_a_segment_is_shown_is_said() {
    let every = |step: i64, until: i64| {
        (0..).map(move |n| n * step).take_while(move |at| *at <= until).map(|at| (at, at as u64)).collect::<Vec<_>>()
    };
    let steady = every(15, 90);
    let reset: Vec<_> = steady.iter().map(|&(at, value)| (at, if at > 40 { value - 40 } else { value })).collect();
    let cases = [
        ("all of it", container(&steady, &steady), Shows::Whole),
        ("nothing", container(&[], &[]), Shows::Nothing),
        ("no memory", container(&steady, &[]), Shows::Part),
        ("a gap", container(&[(0, 0), (15, 1), (75, 5), (90, 6)], &steady), Shows::Part),
        ("it began anew", container(&reset, &steady), Shows::Part),
        ("its last half is missing", container(&every(15, 30), &every(15, 30)), Shows::Part),
    ];
    for (name, container, expected) in cases {
        assert_eq!(used(&container, &whole()).shows, expected, "{name}");
    }
    let told = used(&container(&steady, &[(0, 512), (15, 512), (30, 256)]), &whole());
    assert_eq!((told.cpu_milli_seconds, told.cpu_seconds_shown), (90_000, 90));
    assert_eq!((told.memory_mib_seconds, told.memory_seconds_shown), (512 * 15 + 256 * 15, 30));
}

#[test]
fn devices_are_as_busy_as_they_are_on_average_over_the_time_that_is_told_of() {
    let devices = [&[(0, 9_000), (20, 9_000)][..], &[(0, 1_000), (20, 1_000), (30, 1_000), (40, 1_000)], &[]].map(series).to_vec();
    let busy = used(&Container { devices, ..container(&[], &[]) }, &whole());
    assert_eq!((busy.gpu_percent, busy.gpu_seconds_shown), (Some((90 * 20 + 10 * 40) / 60), 60));
    assert_eq!(used(&container(&[(10, 1)], &[]), &whole()).gpu_percent, None);
}

#[test]
fn a_record_that_samples_contradict_is_an_anomaly() {
    let honest = container(&[(0, 0), (50, 50), (100, 100)], &[]);
    assert_eq!(disagreements(&honest, &whole(), 100, 1_000), []);
    // It goes on for two minutes more than its record says, and then it can't have used so much either.
    let longer = container(&[(0, 0), (100, 100), (220, 220)], &[]);
    assert_eq!(disagreements(&longer, &whole(), 100, 1_000), [Anomaly::SampledLonger, Anomaly::MoreCpuThanItHad]);
    assert_eq!(disagreements(&longer, &whole(), 220, 1_000), []);
    let busier = container(&[(0, 0), (100, 400)], &[]);
    assert_eq!(disagreements(&busier, &whole(), 100, 1_000), [Anomaly::MoreCpuThanItHad]);
    assert_eq!(disagreements(&busier, &whole(), 100, 4_000), []);
}

#[test]
fn two_sources_disagree_about_devices_only_where_both_name_them_alike() {
    let cases: [(&str, &[&str], &[&str], bool); 7] = [
        ("the same", &["GPU-b", "GPU-a"], &["GPU-a", "GPU-b"], true),
        ("another", &["GPU-a"], &["GPU-b"], false),
        ("one less", &["GPU-a", "GPU-b"], &["GPU-a"], false),
        ("the kubelet says nothing", &[], &["GPU-a"], true),
        ("a slice", &["MIG-x"], &["GPU-a/1"], true),
        ("one of several who share it", &["GPU-a::3"], &["GPU-a"], true),
        ("shared with another", &["GPU-b::3"], &["GPU-a"], false),
    ];
    for (name, told, exported, same) in cases {
        let (exported, given) = (exported.iter().map(|id| (*id).to_owned()).collect(), told.len().max(2));
        assert_eq!(same_devices(told, &exported, u32::try_from(given).expect("few")), same, "{name}");
    }
    // Nobody else says which: but how many there were is known.
    let exported = ["GPU-a".to_owned(), "GPU-b".to_owned()].into();
    for (given, same) in [(0, false), (1, false), (2, true), (3, true)] {
        assert_eq!(same_devices(&[], &exported, given), same, "{given}");
    }
}

proptest! {
    /// Whatever is lost, doubled or told late, no more is counted than what there was.
    #[test]
    fn samples_that_are_lost_or_doubled_never_make_it_more(
        steps in prop::collection::vec((1_i64..40, 0_u64..1_000), 1..40), lost in prop::collection::vec(any::<bool>(), 40), twice in prop::collection::vec(any::<bool>(), 40),
    ) {
        let (mut at, mut counted, mut all) = (0, 0, Vec::new());
        for (seconds, more) in &steps {
            at += seconds;
            counted += more;
            all.push((at, counted));
        }
        let window = Window { from: T, until: T + at, ..whole() };
        let mut told: Vec<(i64, u64)> = all.iter().zip(&lost).filter(|(_, lost)| !**lost).map(|(sample, _)| *sample).collect();
        let again: Vec<(i64, u64)> = told.iter().zip(&twice).filter(|(_, twice)| **twice).map(|(sample, _)| *sample).collect();
        told.extend(again.into_iter().rev());
        let shown = counter(&series(&told), &window);
        prop_assert!(shown.quantity <= u128::from(counted));
        prop_assert_eq!(shown.resets, 0);
        if let Some(last) = told.iter().map(|(_, value)| *value).max() {
            prop_assert_eq!(shown.quantity, u128::from(last), "a gap loses nothing of a counter");
        }
        let (some, most) = (gauge(&series(&told), &window, Between::Lesser), steps.iter().map(|(_, value)| value).sum::<u64>());
        prop_assert!(some.covered_millis <= u64::try_from(at).expect("it is positive") * 1_000);
        prop_assert!(some.quantity <= u128::from(most) * u128::from(some.covered_millis));
    }
}
