//! What is told of tasks that wait, in whose words and how often; and what a node has for them.

use super::node_tests::{condition, settled, stranger};
use super::simulation::{Theatre, pool, task, terms};
use super::tests::{calm, ends, pods, runs, set, status, until};
use super::{Booking, Effect, plan};
use crate::world::records::{Node, Pool, Requests, Task};
use crate::world::{Event, convert};
use serde_json::json;
use std::collections::BTreeSet;
use supercargo_crds::common::{Money, Tenancy};
use supercargo_crds::pool::Binding;
use supercargo_ledger::Posting;

/// The names of those whose statuses one pass writes.
fn told(theatre: &mut Theatre) -> Vec<String> {
    let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
    let names = effects.iter().filter_map(|effect| if let Effect::WriteTask { name, .. } = effect { Some(name.clone()) } else { None });
    let names = names.collect();
    effects.into_iter().for_each(|effect| theatre.carry_out(effect));
    names
}

fn waits(theatre: &mut Theatre) -> Vec<(String, i32, String)> {
    let written = until(theatre, "write_task");
    status(&written).waiting.iter().map(|one| (one.reason.clone(), one.nodes, one.example.clone())).collect()
}

#[test]
fn the_last_gpu_of_a_node_has_its_share_beside_pods_that_run_on_every_node() {
    let shared = |index: usize| {
        let mut task = task(&format!("t{index}"), "3", 0);
        (task.spec.resources.cpu, task.spec.resources.memory) = (None, None);
        task
    };
    let mut theatre = calm((0..8).map(shared));
    for node in ["n1", "n2"] {
        let requests = Requests { cpu_millis: 1_700, memory_bytes: 3 << 30, ..Requests::default() };
        let daemon = crate::world::records::Pod { requests, ..stranger(&format!("daemon-{node}"), node) };
        theatre.world.apply(Event::Pod(Box::new(daemon)));
    }
    for _ in 0..10 {
        theatre.pass();
    }
    let shares: Vec<(u64, u64)> = theatre.pods.values().map(|pod| (pod.requests.cpu_millis, pod.requests.memory_bytes)).collect();
    assert_eq!(shares, [((64_000 - 1_700) / 4, (253_u64 << 30) / 4); 8]);
}

#[test]
fn a_node_with_a_taint_that_tasks_do_not_tolerate_is_closed_to_them_and_says_which() {
    let mut theatre = calm([]);
    settled(&mut theatre, "n1");
    let with = |theatre: &Theatre, name: &str, taints: &[&str]| {
        let closing_taints = taints.iter().map(|taint| (*taint).to_owned()).collect();
        Event::Node(Box::new(Node { closing_taints, ..theatre.node(name) }))
    };
    for name in ["n1", "n2"] {
        let tainted = with(&theatre, name, &["acme.test/kept=for-us:NoSchedule", "acme.test/old:NoExecute"]);
        theatre.world.apply(tainted);
    }
    let words = "it has a taint that tasks do not tolerate: acme.test/kept=for-us:NoSchedule, acme.test/old:NoExecute";
    let ready = condition(&settled(&mut theatre, "n1"), "Ready");
    assert_eq!(ready, Some((false, "NodeTainted".into(), words.into())));
    theatre.tasks.insert("a".into(), task("a", "1", 0));
    theatre.world.apply(Event::Task(Box::new(task("a", "1", 0))));
    assert_eq!(waits(&mut theatre), [("NodeTainted".into(), 2, format!("n1: {words}"))]);
    let open = with(&theatre, "n2", &[]);
    theatre.world.apply(open);
    let made = until(&mut theatre, "create_pod");
    assert_eq!(pods(&made)[0].spec.as_ref().and_then(|spec| spec.node_name.as_deref()), Some("n2"));
}

#[test]
fn more_gpus_than_any_node_has_are_not_told_as_in_use() {
    let mut large = task("a", "10", 0);
    large.spec.resources.gpu.count = 16;
    let mut theatre = calm([]);
    settled(&mut theatre, "n1");
    theatre.world.apply(Event::Task(Box::new(large)));
    assert_eq!(waits(&mut theatre), [("NodeTooSmall".into(), 2, "n1: sells 4 in all, and 16 are asked for".into())]);
}

#[test]
fn the_schedulers_words_are_read_while_it_finds_no_node() {
    let read = |status: &str, reason: &str| {
        let told = json!({ "type": "PodScheduled", "status": status, "reason": reason, "message": "in words" });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "n", "name": "p", "uid": "u" },
            "spec": { "containers": [{ "name": "c" }] }, "status": { "phase": "Pending", "conditions": [told] },
        });
        convert::pod(&serde_json::from_value(pod).expect("a pod"), 0).expect("a pod").unbound
    };
    for reason in ["Unschedulable", "SchedulerError", "SchedulingGated"] {
        assert_eq!(read("False", reason), Some((reason.into(), "in words".into())));
        assert_eq!(read("True", reason), None);
    }
}

#[test]
fn a_pod_that_the_scheduler_can_not_bind_is_told_at_once_in_its_words() {
    let mut theatre = calm([task("a", "1", 0)]);
    let mut shared = pool();
    shared.spec.binding = Binding::Scheduler;
    theatre.world.apply(Event::Pool(Box::new(Pool { generation: 2, ..shared })));
    until(&mut theatre, "create_pod").into_iter().for_each(|effect| theatre.carry_out(effect));
    theatre.pass();
    let words = "0/2 nodes are available: 2 Insufficient cpu.";
    set(&mut theatre, |pod| pod.unbound = Some(("Unschedulable".into(), words.into())));
    let written = until(&mut theatre, "write_task");
    let next = status(&written).clone();
    let started = next.conditions.iter().find(|condition| condition.type_ == "Started").expect("Started");
    assert_eq!((started.reason.as_str(), started.message.as_str()), ("Unschedulable", words));
    assert_eq!((next.waiting[0].reason.as_str(), next.waiting[0].example.as_str()), ("Unschedulable", words));
    written.into_iter().for_each(|effect| theatre.carry_out(effect));

    // Bound at last: it waits for nothing any more, and what was said of it before is not said again.
    let begun = theatre.now;
    set(&mut theatre, |pod| {
        (pod.node, pod.unbound, pod.first_running, pod.started) = (Some("n1".into()), None, Some(begun), Some(begun));
        pod.phase = crate::world::records::PodPhase::Running;
    });
    theatre.now += 3;
    let written = until(&mut theatre, "write_task");
    assert!(status(&written).waiting.is_empty());
}

#[test]
fn a_watch_that_is_behind_does_not_make_a_task_run_again() {
    let mut theatre = calm([task("a", "1", 0)]);
    let early = theatre.tasks["a"].clone();
    until(&mut theatre, "create_pod").into_iter().for_each(|effect| theatre.carry_out(effect));
    let begun = theatre.now;
    set(&mut theatre, |pod| {
        pod.phase = crate::world::records::PodPhase::Succeeded;
        (pod.started, pod.first_running, pod.last_alive) = (Some(begun), Some(begun), Some(begun));
        (pod.finished, pod.exit_code, pod.terminal) = (Some(begun + 5), Some(0), Some(begun + 5));
    });
    theatre.now += 5;
    while !theatre.pods.is_empty() {
        theatre.pass();
    }
    let spec = early.spec.clone();
    for stale in [early, Task { generation: 0, spec, ..theatre.tasks["a"].clone() }] {
        theatre.world.apply(Event::Task(Box::new(stale)));
        theatre.now += 1;
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        assert!(effects.iter().all(|effect| !["book", "write_task"].contains(&effect.kind())), "{effects:?}");
    }
}

#[test]
fn a_watch_that_is_behind_does_not_bring_to_life_what_has_ended() {
    let mut theatre = calm([task("a", "1", 0)]);
    until(&mut theatre, "create_pod").into_iter().for_each(|effect| theatre.carry_out(effect));
    theatre.pass();
    let begun = theatre.now;
    set(&mut theatre, |pod| runs(pod, begun));
    let early = theatre.pods["a-uidofa-0-0"].clone();
    theatre.now += 60;
    set(&mut theatre, |pod| ends(pod, begun + 60, 0));
    until(&mut theatre, "book").into_iter().for_each(|effect| theatre.carry_out(effect));
    // It is charged, and not told yet.
    theatre.world.apply(Event::Pod(Box::new(early.clone())));
    let told = until(&mut theatre, "write_task");
    assert_eq!((status(&told).phase.as_deref(), status(&told).attempts[0].billed_seconds), (Some("Succeeded"), 60));
    let leaving = crate::world::records::Pod { deleting: true, ..early.clone() };
    assert!(leaving.is_later_than(&early) && !early.is_later_than(&leaving));
    // A kubelet that lost the container's record tells of its end without it.
    let (mut record, mut lost) = (early.clone(), early);
    record.finished = Some(begun + 60);
    lost.phase = crate::world::records::PodPhase::Failed;
    assert!(!record.is_later_than(&lost));
}

/// Tasks whose images can't be pulled, as many as there are.
fn without_images(count: usize) -> Theatre {
    let plain = |index: usize| {
        let mut task = task(&format!("t{index:02}"), "1", 0);
        task.spec.resources.gpu.count = 0;
        task
    };
    let mut theatre = calm((0..count).map(plain));
    for _ in 0..6 {
        theatre.pass();
    }
    assert_eq!(theatre.pods.len(), count);
    theatre
}

fn says(theatre: &mut Theatre, reason: &str) {
    set(theatre, |pod| pod.waiting = Some((reason.to_owned(), "no such image".to_owned())));
}

#[test]
fn what_keeps_a_task_from_starting_is_told_at_once_and_then_once_a_minute_however_often_it_changes() {
    let mut theatre = without_images(1);
    let begun = theatre.now;
    let mut at = Vec::new();
    for second in 0..300 {
        theatre.now = begun + second;
        if second % 10 == 0 {
            says(&mut theatre, if second % 20 == 0 { "ErrImagePull" } else { "ImagePullBackOff" });
        }
        at.extend(told(&mut theatre).into_iter().map(|_| second));
    }
    assert_eq!(at, [0, 70, 140, 210, 280], "at each whole minute it is what was told last, and ten seconds later another");
}

#[test]
fn who_takes_long_to_start_is_told_what_for_though_nothing_speaks_against_it() {
    let mut theatre = without_images(1);
    let begun = theatre.now;
    theatre.now = begun + 29;
    assert!(told(&mut theatre).is_empty(), "most start sooner");
    theatre.now = begun + 30;
    let making = ("ContainerCreating".to_owned(), 0, "n1 is still pulling its image or making its container".to_owned());
    assert_eq!(waits(&mut theatre), [making]);
    assert_eq!(told(&mut theatre).len(), 1);
    theatre.now = begun + 95;
    assert!(told(&mut theatre).is_empty(), "that is told already");
    theatre.silent.insert("n1".into(), theatre.now);
    let silent = theatre.node("n1");
    theatre.world.apply(Event::Node(Box::new(silent)));
    assert_eq!(waits(&mut theatre), [("NodeNotReady".to_owned(), 0, "nothing is heard of n1".to_owned())]);
}

#[test]
fn who_waits_for_the_books_is_told_so() {
    let mut theatre = calm([]);
    settled(&mut theatre, "n1");
    theatre.tasks.insert("a".into(), task("a", "1", 0));
    theatre.world.apply(Event::Task(Box::new(task("a", "1", 0))));
    let without_books = |theatre: &mut Theatre| {
        for effect in plan(&mut theatre.world, &terms(), theatre.now).effects {
            let reserves = |all: &[Booking]| all.iter().any(|one| matches!(one, Booking::Reserve(..)));
            if !matches!(&effect, Effect::Book(all) if reserves(all)) {
                theatre.carry_out(effect);
            }
        }
        theatre.tasks["a"].status.waiting.first().map(|one| one.reason.clone())
    };
    for second in 0..30 {
        assert_eq!(without_books(&mut theatre), None, "after {second} s");
        theatre.now += 1;
    }
    assert_eq!(without_books(&mut theatre).as_deref(), Some("BooksSilent"));
    until(&mut theatre, "create_pod");
}

#[test]
fn first_reasons_go_ahead_and_of_the_others_ten_a_second_are_told() {
    let mut theatre = without_images(30);
    says(&mut theatre, "ErrImagePull");
    assert_eq!(told(&mut theatre).len(), 30);
    theatre.now += 60;
    says(&mut theatre, "ImagePullBackOff");
    let mut all = BTreeSet::new();
    for _ in 0..5 {
        let now = told(&mut theatre);
        assert!(now.len() <= 10, "{now:?}");
        all.extend(now);
        theatre.now += 1;
    }
    assert_eq!(all.len(), 30);
}

#[test]
fn another_attempts_first_reason_goes_ahead_too() {
    let mut theatre = without_images(1);
    says(&mut theatre, "ErrImagePull");
    assert_eq!(told(&mut theatre).len(), 1);
    let next: Vec<Task> = theatre.tasks.values().cloned().collect();
    for mut task in next {
        // As a retry leaves it.
        task.status.conditions.retain(|condition| condition.type_ != "Started");
        theatre.tasks.insert(task.name.clone(), task.clone());
        theatre.world.apply(Event::Task(Box::new(task)));
    }
    theatre.now += 1;
    says(&mut theatre, "InvalidImageName");
    assert_eq!(told(&mut theatre).len(), 1);
}

#[test]
fn who_was_sent_away_for_want_of_money_is_not_what_another_waits_for_and_nobody_is_told_the_same_again() {
    // Each alone costs more than may be charged in a day, and finds the other in its way as long as that one was not refused.
    let alone = |name: &str| {
        let mut task = task(name, "3", 0);
        task.spec.placement.tenancy = Tenancy::Exclusive;
        task
    };
    let mut theatre = calm([]);
    theatre.escrow.spec.daily_limit = "1".parse().ok().map(Money);
    theatre.pool.spec.tenancies = vec![Tenancy::Exclusive];
    theatre.restart();
    ["n1", "n2"].into_iter().for_each(|node| drop(settled(&mut theatre, node)));
    for name in ["a", "b", "c"] {
        theatre.tasks.insert(name.into(), alone(name));
        theatre.world.apply(Event::Task(Box::new(alone(name))));
    }
    let begun = theatre.now;
    let mut written = Vec::new();
    for second in 0..600 {
        theatre.now = begun + second;
        written.extend(told(&mut theatre));
    }
    let reasons = theatre.tasks.values().map(|task| task.status.reason.as_deref().unwrap_or_default().to_owned());
    assert_eq!(reasons.collect::<Vec<_>>(), ["DailyLimit"; 3]);
    written.sort();
    assert_eq!(written, ["a", "b", "c"], "each is told once");
}

#[test]
fn of_what_the_books_hold_and_nobody_can_read_nothing_is_done_and_it_says_so() {
    let mut theatre = calm([task("a", "1", 0), task("b", "1", 0)]);
    for _ in 0..6 {
        theatre.pass();
    }
    let begun = theatre.now;
    set(&mut theatre, |pod| runs(pod, begun));
    theatre.pass();
    let (work, why) = (theatre.tasks["a"].work(), "the books contradict themselves: x");
    theatre.world.apply(Event::Unread { work: work.clone(), why: why.into() });
    assert_eq!(told(&mut theatre), ["a"]);
    let stalled = theatre.tasks["a"].status.conditions.iter().find(|condition| condition.type_ == "Stalled").expect("a condition");
    assert_eq!((stalled.reason.as_str(), stalled.message.as_str()), ("BooksUnreadable", why));
    theatre.now += 60;
    set(&mut theatre, |pod| ends(pod, begun + 60, 0));
    let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
    let all = effects.iter().filter_map(|effect| if let Effect::Book(all) = effect { Some(all) } else { None }).flatten();
    let released = all.filter_map(|one| if let Booking::Post(Posting::Release { work }) = one { Some(&*work.uid) } else { None });
    assert_eq!(released.collect::<Vec<_>>(), ["uid-of-b"]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::WriteTask { name, .. } if name == "a")));
}
