//! Ends that pods' records do not tell: whose doing they were, also for an operator that was not there when they came.

use super::ends_tests::{obeys, running, settled, turn};
use super::simulation::{Theatre, task, terms};
use super::tests::{calm, ends, set, until};
use super::{Effect, plan};
use crate::world::Event;
use crate::world::records::{Device, Node, Pod, PodPhase};
use serde_json::json;
use supercargo_crds::task_status::Attempt;
use supercargo_market::placement::Closed;

/// Everything that runs is evicted, and ends in order two seconds later.
fn evict(theatre: &mut Theatre) {
    let now = theatre.now;
    set(theatre, |pod| {
        (pod.deleting, pod.delete_sent, pod.disruption) = (true, Some(now), Some("EvictionByEvictionAPI".into()));
    });
    theatre.pass();
    theatre.now += 2;
    obeys(theatre, 0);
}

/// A task runs, on a node that is about to be closed.
fn closing() -> Theatre {
    let mut theatre = running(task("a", "1", 0));
    theatre.were_closed.extend(["n1".to_owned(), "n2".to_owned()]);
    theatre
}

fn cordon(theatre: &mut Theatre) {
    for name in ["n1", "n2"] {
        let node = Node { cordoned: true, ..theatre.node(name) };
        theatre.world.apply(Event::Node(Box::new(node)));
    }
}

/// It is charged, and the operator begins anew before it has told so; both nodes are open then, as if nothing had been.
fn dies_before_it_tells(theatre: &mut Theatre) -> Attempt {
    loop {
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        let told = effects.iter().any(|effect| matches!(effect, Effect::WriteTask { status, .. } if !status.attempts.is_empty()));
        if told {
            break;
        }
        assert!(!effects.is_empty(), "it is told in the end");
        effects.into_iter().for_each(|effect| theatre.carry_out(effect));
    }
    theatre.silent.clear();
    theatre.turned.clear();
    theatre.restart();
    settled(theatre).attempts.remove(0)
}

fn charged_seconds(theatre: &Theatre) -> i64 {
    theatre.world.works.values().map(|balance| balance.charged.units()).sum::<u64>().cast_signed() / 1_000
}

fn faults(theatre: &Theatre) -> u32 {
    theatre.world.records.values().map(|record| record.faults).sum()
}

#[test]
fn who_evicts_its_own_pod_pays_for_it_as_for_one_that_was_deleted() {
    let mut theatre = running(task("a", "1", 0));
    theatre.now += 58;
    evict(&mut theatre);
    let status = settled(&mut theatre);
    assert_eq!((status.attempts[0].outcome.as_str(), status.attempts[0].billed_seconds), ("Deleted", 60));
    assert_eq!((charged_seconds(&theatre), faults(&theatre)), (60, 0), "no fault of the provider's");
}

#[test]
fn an_eviction_from_a_node_that_is_closed_to_tasks_is_the_providers_doing() {
    let tainted = |theatre: &mut Theatre| {
        let node = Node { closing_taints: vec!["acme.test/going:NoSchedule".into()], ..theatre.node("n1") };
        theatre.world.apply(Event::Node(Box::new(node)));
    };
    let gone = |theatre: &mut Theatre| theatre.world.apply(Event::NodeGone("n1".into()));
    let drains = |theatre: &mut Theatre| turn(theatre, json!({ "availability": "Draining" }));
    let closed = |theatre: &mut Theatre| turn(theatre, json!({ "availability": "Closed" }));
    type Way<'a> = (&'a str, &'a dyn Fn(&mut Theatre));
    let ways: [Way<'_>; 5] =
        [("cordoned", &cordon), ("tainted", &tainted), ("taken away", &gone), ("drained", &drains), ("closed", &closed)];
    for (way, close) in ways {
        let mut theatre = closing();
        theatre.now += 58;
        close(&mut theatre);
        evict(&mut theatre);
        let status = settled(&mut theatre);
        assert_eq!((status.attempts[0].outcome.as_str(), status.attempts[0].billed_seconds), ("ProviderFault", 0), "{way}");
        assert_eq!((charged_seconds(&theatre), faults(&theatre)), (0, 1), "{way}");
    }
}

#[test]
fn an_eviction_from_a_closed_node_stays_the_providers_doing_when_the_node_is_open_again() {
    for restarts in [false, true] {
        let mut theatre = closing();
        theatre.now += 58;
        cordon(&mut theatre);
        let now = theatre.now;
        set(&mut theatre, |pod| {
            (pod.deleting, pod.delete_sent, pod.disruption) = (true, Some(now), Some("EvictionByEvictionAPI".into()));
        });
        theatre.pass();
        for name in ["n1", "n2"] {
            let node = theatre.node(name);
            theatre.world.apply(Event::Node(Box::new(node)));
        }
        if restarts {
            theatre.restart();
        }
        theatre.now += 2;
        obeys(&mut theatre, 0);
        let status = settled(&mut theatre);
        assert_eq!(status.attempts[0].outcome, "ProviderFault", "restarts: {restarts}");
    }
}

#[test]
fn what_a_drain_or_an_eviction_ended_is_told_as_that_also_by_an_operator_that_came_later() {
    for drained in [true, false] {
        let mut theatre = closing();
        theatre.now += 58;
        if drained {
            turn(&mut theatre, json!({ "availability": "Draining", "drainDeadlineSeconds": 0 }));
            until(&mut theatre, "delete_pod").into_iter().for_each(|effect| theatre.carry_out(effect));
            theatre.now += 2;
            let now = theatre.now;
            set(&mut theatre, |pod| (pod.delete_sent, pod.phase) = (Some(now - 2), PodPhase::Running));
            obeys(&mut theatre, 0);
        } else {
            cordon(&mut theatre);
            evict(&mut theatre);
        }
        let attempt = dies_before_it_tells(&mut theatre);
        assert_eq!((attempt.outcome.as_str(), attempt.billed_seconds), ("ProviderFault", 0), "drained: {drained}");
        assert_eq!((charged_seconds(&theatre), faults(&theatre)), (0, u32::from(!drained)), "who drains a node said so before");
    }
}

#[test]
fn what_a_lost_node_was_charged_for_is_told_also_by_an_operator_that_came_later() {
    for ran in [60, 900] {
        let mut long = task("a", "5", 0);
        long.spec.time_limit_seconds = 7_200;
        let mut theatre = running(long);
        let begun = theatre.now;
        theatre.now = begun + ran;
        // Its nodes are heard of once more, and then no more.
        set(&mut theatre, |pod| pod.last_alive = Some(begun + ran));
        for name in ["n1", "n2"] {
            theatre.silent.insert(name.into(), begun + ran);
            theatre.were_silent.insert(name.into());
            let node = theatre.node(name);
            theatre.world.apply(Event::Node(Box::new(node)));
        }
        theatre.now += 300;
        let attempt = dies_before_it_tells(&mut theatre);
        let billed = if ran < 600 { 0 } else { ran };
        assert_eq!((attempt.outcome.as_str(), attempt.billed_seconds), ("ProviderFault", billed), "after {ran} s");
        assert_eq!((charged_seconds(&theatre), faults(&theatre)), (billed, 1));
    }
}

#[test]
fn what_failed_with_a_broken_device_is_told_as_that_also_by_an_operator_that_came_later() {
    let mut theatre = running(task("a", "1", 1));
    theatre.now += 60;
    let now = theatre.now;
    let report = |healthy| vec![Device { id: "gpu-0".into(), resource_name: "nvidia.com/gpu".into(), healthy: Some(healthy) }];
    set(&mut theatre, |pod| pod.devices = report(true));
    // The kubelet tells of the device and of the end at once, and takes the device back before the next operator looks.
    set(&mut theatre, |pod| {
        pod.devices = report(false);
        ends(pod, now, 139);
    });
    let attempt = dies_before_it_tells(&mut theatre);
    assert_eq!((attempt.outcome.as_str(), attempt.billed_seconds), ("ProviderFault", 0));
    assert_eq!((charged_seconds(&theatre), faults(&theatre)), (0, 1));
}

#[test]
fn what_somebody_calls_a_worker_of_a_task_is_none() {
    let mut theatre = running(task("a", "1", 0));
    let (name, worker) = theatre.pods.iter().next().map(|(name, pod)| (name.clone(), pod.clone())).expect("a pod");
    let node = worker.node.clone().expect("it is bound");
    let free = |theatre: &Theatre| theatre.world.offers_of(&node, &terms().data_classes, theatre.now)[0].free_devices;
    let before = free(&theatre);
    let ended = |pod: Pod| Pod { phase: PodPhase::Succeeded, exit_code: Some(0), finished: Some(theatre.now), ..pod };
    let elsewhere = ended(Pod { namespace: "other".into(), uid: "0".into(), ..worker.clone() });
    let beside = ended(Pod { name: format!("{name}-too"), uid: "1".into(), ..worker.clone() });
    for forged in [elsewhere, beside] {
        theatre.world.apply(Event::Pod(Box::new(forged)));
    }
    assert!(settled(&mut theatre).attempts.is_empty(), "the task's own worker goes on");
    // What takes room takes it, whatever it is called.
    let taker = Pod { name: format!("{name}-more"), uid: "2".into(), ..worker };
    theatre.world.apply(Event::Pod(Box::new(taker)));
    assert_eq!(free(&theatre), before - 1);
}

#[test]
fn a_pod_of_a_calm_cluster_parts_with_nothing() {
    let mut theatre = calm([task("a", "1", 0)]);
    settled(&mut theatre);
    let placement = &theatre.world.reservations.values().next().expect("it is held").placement;
    let written = serde_json::to_string(placement).expect("JSON");
    assert!(!written.contains("parting") && !written.contains("billed"), "{written}");
}

/// Its node has been silent since it began to run.
fn silent(theatre: &mut Theatre) -> String {
    let there = theatre.pods["a-uidofa-0-0"].node.clone().expect("it is bound");
    theatre.silent.insert(there.clone(), theatre.now);
    theatre.were_silent.insert(there.clone());
    heard(theatre, &there);
    there
}

fn heard(theatre: &mut Theatre, node: &str) {
    let node = theatre.node(node);
    theatre.world.apply(Event::Node(Box::new(node)));
}

/// Why it takes no tasks, and what is said of it.
fn sells(theatre: &mut Theatre, node: &str) -> (Option<Closed>, Option<String>) {
    let closed = theatre.world.offers_of(node, &terms().data_classes, theatre.now)[0].closed;
    let conditions = &theatre.written[node].conditions;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.reason.clone());
    (closed, ready)
}

#[test]
fn a_node_that_was_given_up_takes_nothing_before_it_has_ended_what_it_ran() {
    let mut theatre = running(task("a", "1", 0));
    let there = silent(&mut theatre);
    theatre.now += 300;
    // It is told to end, and its kubelet has not heard of it.
    let pass = |theatre: &mut Theatre| {
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        let reaches = |effect: &Effect| !matches!(effect, Effect::FreePod { name, .. } if name == "a-uidofa-0-0");
        effects.into_iter().filter(reaches).for_each(|effect| theatre.carry_out(effect));
        set(theatre, |_| {});
    };
    (0..8).for_each(|_| pass(&mut theatre));
    assert!(theatre.pods.contains_key("a-uidofa-1-0"), "it goes on elsewhere");
    theatre.silent.clear();
    heard(&mut theatre, &there);
    pass(&mut theatre);
    assert_eq!(sells(&mut theatre, &there), (Some(Closed::NotReady), Some("Returning".to_owned())));
    let now = theatre.now;
    set(&mut theatre, |pod| {
        if pod.name == "a-uidofa-0-0" {
            ends(pod, now, 137);
        }
    });
    (0..3).for_each(|_| theatre.pass());
    assert_eq!(sells(&mut theatre, &there), (None, Some("Open".to_owned())));
}

#[test]
fn a_node_that_was_given_up_has_a_minute_to_end_what_is_no_longer_in_the_api() {
    let mut theatre = running(task("a", "1", 0));
    let there = silent(&mut theatre);
    theatre.now += 300;
    settled(&mut theatre);
    assert!(!theatre.pods.contains_key("a-uidofa-0-0"), "nobody waits for it");
    let wake = plan(&mut theatre.world, &terms(), theatre.now).wake;
    assert!(wake.is_none_or(|at| at < theatre.now + 3_600), "nobody knows when it is back: {wake:?}");
    theatre.now += 1_000;
    theatre.silent.clear();
    heard(&mut theatre, &there);
    theatre.pass();
    assert_eq!(sells(&mut theatre, &there), (Some(Closed::NotReady), Some("Returning".to_owned())));
    theatre.now += 59;
    theatre.pass();
    assert_eq!(sells(&mut theatre, &there).0, Some(Closed::NotReady));
    theatre.now += 1;
    theatre.pass();
    assert_eq!(sells(&mut theatre, &there), (None, Some("Open".to_owned())));
}

#[test]
fn a_task_that_is_deleted_while_its_node_is_silent_gives_its_money_back() {
    let mut theatre = running(task("a", "1", 0));
    silent(&mut theatre);
    theatre.now += 200;
    let key = theatre.tasks.remove("a").expect("the task").key();
    theatre.world.apply(Event::TaskGone(key));
    (0..6).for_each(|_| theatre.pass());
    assert_eq!(theatre.world.reservations.len(), 1, "it may come back");
    set(&mut theatre, |_| {});
    assert!(theatre.pods["a-uidofa-0-0"].deleting && !theatre.pods["a-uidofa-0-0"].forced);
    theatre.now += 100;
    let mut forced = false;
    for _ in 0..6 {
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        forced |= effects.iter().any(|effect| matches!(effect, Effect::DeletePod { grace_seconds: Some(0), .. }));
        effects.into_iter().for_each(|effect| theatre.carry_out(effect));
    }
    assert!(forced, "the API server would wait for its kubelet");
    assert_eq!((theatre.world.reservations.len(), theatre.pods.len()), (0, 0));
}

#[test]
fn a_kubelet_that_calls_itself_not_ready_by_a_late_clock_is_waited_for_all_the_same() {
    let mut theatre = running(task("a", "1", 0));
    let there = theatre.pods["a-uidofa-0-0"].node.clone().expect("it is bound");
    let now = theatre.now;
    let node = Node { ready: false, ready_since: now - 400, seen: now, ..theatre.node(&there) };
    theatre.world.apply(Event::Node(Box::new(node)));
    let lost = |theatre: &Theatre| theatre.world.pods.values().any(|pod| pod.parting.lost);
    for (at, expected) in [(0, false), (299, false), (300, true)] {
        theatre.now = now + at;
        looks(&mut theatre);
        assert_eq!(lost(&theatre), expected, "after {at} s");
    }
}

/// Plans, and carries nothing out.
fn looks(theatre: &mut Theatre) {
    plan(&mut theatre.world, &terms(), theatre.now);
}
