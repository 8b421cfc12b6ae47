//! What a task that runs is told of its budget, and when. A second of one worker costs 0.001 here.

use super::simulation::{Theatre, gang, task, terms};
use super::tests::{calm, env, pods, runs, set, until};
use super::{Effect, plan};
use crate::world::records::{Pod, PodPhase, Task};
use crate::world::{Event, convert};

/// A task that runs for as long as this budget pays for: no grace, so that its end takes ten seconds of it.
fn long(budget: &str) -> Task {
    let mut long = task("a", budget, 0);
    (long.spec.time_limit_seconds, long.spec.grace_period_seconds) = (1_000_000, 0);
    long
}

/// Its pods run from now on, and that is told.
fn begin(theatre: &mut Theatre) -> i64 {
    let workers = |theatre: &Theatre| theatre.world.reservations.values().map(|held| held.placement.workers.len()).sum::<usize>();
    while theatre.pods.is_empty() || theatre.pods.len() < workers(theatre) {
        until(theatre, "create_pod").into_iter().for_each(|effect| theatre.carry_out(effect));
        theatre.pass();
    }
    let begun = theatre.now;
    set(theatre, |pod| runs(pod, begun));
    theatre.now += 3;
    said(theatre);
    begun
}

/// Everything that is found to do now is done: each Event's words, and each notice.
fn said(theatre: &mut Theatre) -> (Vec<String>, Vec<String>) {
    let (mut events, mut notices) = (Vec::new(), Vec::new());
    set(theatre, |_| {});
    for _ in 0..5 {
        for effect in plan(&mut theatre.world, &terms(), theatre.now).effects {
            match &effect {
                Effect::WriteTask { note: Some(note), .. } => {
                    assert_eq!(note.reason, "BudgetMark");
                    events.push(note.message.clone());
                }
                Effect::MarkPod { notice, .. } => notices.push(notice.clone().unwrap_or_default()),
                _ => {}
            }
            theatre.carry_out(effect);
        }
    }
    (events, notices)
}

fn charged(theatre: &Theatre) -> Option<String> {
    theatre.tasks["a"].status.cost.as_ref().map(|cost| cost.charged.0.to_string())
}

fn change(theatre: &mut Theatre, change: impl Fn(&mut Task)) {
    let task = theatre.tasks.get_mut("a").expect("the task");
    change(task);
    task.generation += 1;
    let task = task.clone();
    theatre.world.apply(Event::Task(Box::new(task)));
}

fn raise(theatre: &mut Theatre, budget: &str) {
    change(theatre, |task| task.spec.budget.0 = budget.parse().expect("an amount"));
}

#[test]
fn each_mark_is_told_in_the_second_that_passes_it_and_once() {
    let mut theatre = calm([long("1")]);
    let begun = begin(&mut theatre);
    for (at, percent, used) in [(500, 50, "0.50"), (800, 80, "0.80"), (950, 95, "0.95")] {
        theatre.now = begun + at - 1;
        assert_eq!(said(&mut theatre), (vec![], vec![]), "a second before {percent} %");
        theatre.now = begun + at;
        let (events, notices) = said(&mut theatre);
        let ends = super::status::time(begun + 990).expect("a time").0;
        let words =
            format!("the container runs; {percent} % of the budget is used, {used} of 1.00 USDC, and it ends at {ends} at the latest");
        assert_eq!((events.len(), &events[0]), (1, &words));
        assert_eq!(notices, [format!("usedPercent={percent}\nused={used}\nbudget=1.00\nendsAt={ends}\n")]);
        let status = &theatre.tasks["a"].status;
        let started = status.conditions.iter().find(|condition| condition.type_ == "Started").expect("Started");
        assert_eq!((started.reason.as_str(), &started.message), ("Running", &words));
        let cost = status.cost.as_ref().expect("a cost");
        assert_eq!((cost.charged.0.to_string().as_str(), cost.charged.0.units() + cost.reserved.0.units()), (used, 1_000_000));
    }
    theatre.now = begun + 990;
    until(&mut theatre, "delete_pod");
}

#[test]
fn the_planner_wakes_for_a_mark_though_nothing_happens() {
    let mut theatre = calm([long("1")]);
    let begun = begin(&mut theatre);
    while theatre.now < begun + 500 {
        // Before it, it may wake for what becomes of the node.
        let wake = plan(&mut theatre.world, &terms(), theatre.now).wake.expect("something is to come");
        assert!(wake > theatre.now && wake <= begun + 500, "{wake}");
        theatre.now = wake;
    }
    let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
    assert!(effects.iter().any(|effect| effect.kind() == "mark_pod"), "{effects:?}");
}

#[test]
fn who_leads_next_tells_no_mark_again_and_of_those_that_passed_meanwhile_the_last() {
    let mut theatre = calm([long("1")]);
    let begun = begin(&mut theatre);
    theatre.now = begun + 600;
    assert_eq!(said(&mut theatre).0.len(), 1);
    theatre.restart();
    assert_eq!(said(&mut theatre), (vec![], vec![]));
    theatre.now = begun + 960;
    theatre.restart();
    let (events, notices) = said(&mut theatre);
    assert!(matches!(&events[..], [one] if one.contains("95 % of the budget is used, 0.95 of 1.00 USDC")), "{events:?}");
    assert_eq!(notices.len(), 1);
}

#[test]
fn a_task_that_its_budget_is_enough_for_is_told_nothing_and_has_no_file() {
    let mut theatre = calm([task("a", "3", 0)]);
    let made = until(&mut theatre, "create_pod");
    let pod = pods(&made)[0];
    assert!(pod.spec.as_ref().expect("a spec").volumes.is_none() && !env(pod).contains_key("SUPERCARGO_NOTICE"));
    let begun = begin(&mut theatre);
    for at in [300, 599] {
        theatre.now = begun + at;
        assert_eq!(said(&mut theatre), (vec![], vec![]));
    }
}

#[test]
fn a_task_that_may_come_to_a_mark_is_told_where_it_reads_of_it() {
    let made = until(&mut calm([long("1")]), "create_pod");
    let pod = pods(&made)[0];
    assert_eq!(env(pod)["SUPERCARGO_NOTICE"], "/etc/supercargo/budget-notice");
    let spec = pod.spec.as_ref().expect("a spec");
    let volume = &spec.volumes.as_ref().expect("volumes")[0];
    let file = &volume.downward_api.as_ref().expect("a downward API volume").items.as_ref().expect("items")[0];
    assert_eq!(file.path, "budget-notice");
    let read = file.field_ref.as_ref().map(|field| field.field_path.as_str());
    assert_eq!(read, Some("metadata.annotations['supercargo.dev/budget-notice']"));
    let mount = &spec.containers[0].volume_mounts.as_ref().expect("mounts")[0];
    assert_eq!((&mount.name, mount.mount_path.as_str(), mount.read_only), (&volume.name, "/etc/supercargo", Some(true)));

    // What it was told is read back from there: nobody patches it twice.
    let mut told = pod.clone();
    told.metadata.uid = Some("u".into());
    let notice = ("supercargo.dev/budget-notice".to_owned(), "usedPercent=50\n".to_owned());
    told.metadata.annotations.get_or_insert_default().extend([notice]);
    assert_eq!(convert::pod(&told, 0).and_then(|pod| pod.notice).as_deref(), Some("usedPercent=50\n"));
}

#[test]
fn a_budget_that_is_raised_moves_the_marks_and_takes_the_notice_back() {
    let mut theatre = calm([long("1")]);
    let begun = begin(&mut theatre);
    theatre.now = begun + 850;
    said(&mut theatre);
    assert_eq!(charged(&theatre).as_deref(), Some("0.80"));
    // A mark that lies before what was told already is in the file, and no news.
    raise(&mut theatre, "1.50");
    let (events, notices) = said(&mut theatre);
    assert!(events.is_empty() && notices[0].starts_with("usedPercent=50\nused=0.75\nbudget=1.50\n"), "{events:?} {notices:?}");
    raise(&mut theatre, "2");
    assert_eq!(said(&mut theatre), (vec![], vec![String::new()]), "the file is empty again");
    let started = theatre.tasks["a"].status.conditions.iter().find(|condition| condition.type_ == "Started").expect("Started");
    assert_eq!((started.message.as_str(), charged(&theatre).as_deref()), ("the container runs", Some("0.80")));
    theatre.now = begun + 999;
    assert_eq!(said(&mut theatre), (vec![], vec![]));
    theatre.now = begun + 1_000;
    let (events, notices) = said(&mut theatre);
    assert!(events[0].contains("50 % of the budget is used, 1.00 of 2.00 USDC"), "{events:?}");
    assert_eq!((events.len(), notices.len()), (1, 1));
}

#[test]
fn a_raise_that_nobody_has_the_money_for_takes_no_notice_back() {
    let mut theatre = calm([long("1")]);
    let begun = begin(&mut theatre);
    theatre.now = begun + 500;
    assert_eq!(said(&mut theatre).0.len(), 1);
    // There are 100 in all.
    raise(&mut theatre, "200");
    assert_eq!(said(&mut theatre), (vec![], vec![]));
    theatre.now = begun + 800;
    assert!(said(&mut theatre).0[0].contains("80 % of the budget is used, 0.80 of 1.00 USDC"));
}

#[test]
fn a_suspended_task_is_told_nothing_and_its_next_run_counts_on() {
    let mut theatre = calm([long("1")]);
    let begun = begin(&mut theatre);
    theatre.now = begun + 600;
    assert_eq!(said(&mut theatre).0.len(), 1);
    change(&mut theatre, |task| task.spec.suspend = true);
    said(&mut theatre);
    theatre.now += 5_000;
    assert_eq!(said(&mut theatre), (vec![], vec![]));
    assert!(theatre.pods.is_empty() && charged(&theatre).as_deref() == Some("0.60"), "{:?}", charged(&theatre));

    change(&mut theatre, |task| task.spec.suspend = false);
    let made = until(&mut theatre, "create_pod");
    assert!(env(pods(&made)[0]).contains_key("SUPERCARGO_NOTICE"));
    made.into_iter().for_each(|effect| theatre.carry_out(effect));
    let begun = theatre.now;
    set(&mut theatre, |pod| runs(pod, begun));
    theatre.now = begun + 3;
    let (events, notices) = said(&mut theatre);
    assert!(
        events.is_empty() && notices[0].starts_with("usedPercent=50\n"),
        "it is known, and the new container is told: {events:?} {notices:?}"
    );
    theatre.now = begun + 199;
    assert_eq!(said(&mut theatre), (vec![], vec![]));
    theatre.now = begun + 200;
    assert!(said(&mut theatre).0[0].contains("80 % of the budget is used, 0.80 of 1.00 USDC"));
}

#[test]
fn workers_use_one_budget_together_and_each_is_told() {
    let mut together = gang("a", "1", 0, 2, "All");
    (together.spec.time_limit_seconds, together.spec.grace_period_seconds) = (1_000_000, 0);
    let mut theatre = calm([together]);
    let begun = begin(&mut theatre);
    assert_eq!(theatre.pods.len(), 2);
    theatre.now = begun + 249;
    assert_eq!(said(&mut theatre), (vec![], vec![]));
    theatre.now = begun + 250;
    let (events, notices) = said(&mut theatre);
    assert!(events[0].starts_with("all 2 workers run; 50 % of the budget is used, 0.50 of 1.00 USDC"), "{events:?}");
    assert_eq!((events.len(), notices.len()), (1, 2));
    // One that has done its part reads nothing any more.
    set(&mut theatre, |pod: &mut Pod| {
        if pod.name.ends_with("-1") {
            (pod.phase, pod.exit_code, pod.finished, pod.terminal) = (PodPhase::Succeeded, Some(0), Some(begun + 300), Some(begun + 300));
        }
    });
    theatre.now = begun + 400;
    assert_eq!(said(&mut theatre).1.len(), 1);
}
