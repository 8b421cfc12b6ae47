//! What the planner does in given situations, one after the other. Everything at once is in `simulation.rs`.

use super::simulation::{Theatre, gang, task, terms};
use super::waits_tests::refusal;
use super::{Booking, Effect, Fitting, plan};
use crate::world::records::{Pod, PodPhase};
use k8s_openapi::api::core::v1 as core;
use std::collections::BTreeMap;
use supercargo_crds::task_status::ComputeTaskStatus;
use supercargo_ledger::Posting;

/// A cluster without faults and with these tasks alone.
pub(super) fn calm(tasks: impl IntoIterator<Item = crate::world::records::Task>) -> Theatre {
    let mut theatre = Theatre::new(3);
    theatre.faults = false;
    theatre.tasks = tasks.into_iter().map(|task| (task.name.clone(), task)).collect();
    theatre.restart();
    theatre
}

/// Passes until an effect of the kind is planned; it is not carried out.
pub(super) fn until(theatre: &mut Theatre, kind: &str) -> Vec<Effect> {
    for _ in 0..10 {
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        if effects.iter().any(|effect| effect.kind() == kind) {
            return effects.into_iter().filter(|effect| effect.kind() == kind).collect();
        }
        effects.into_iter().for_each(|effect| theatre.carry_out(effect));
    }
    panic!("no {kind} in ten passes")
}

pub(super) fn pods(effects: &[Effect]) -> Vec<&core::Pod> {
    effects.iter().filter_map(|effect| if let Effect::CreatePod { pod, .. } = effect { Some(&**pod) } else { None }).collect()
}

pub(super) fn env(pod: &core::Pod) -> BTreeMap<String, String> {
    let all = pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|container| container.env.iter().flatten());
    all.map(|variable| (variable.name.clone(), variable.value.clone().unwrap_or_default())).collect()
}

/// Every pod runs, or has ended as it is told here.
pub(super) fn set(theatre: &mut Theatre, change: impl Fn(&mut Pod)) {
    theatre.pods.values_mut().for_each(change);
    let pods: Vec<Pod> = theatre.pods.values().cloned().collect();
    pods.into_iter().for_each(|pod| theatre.world.apply(crate::world::Event::Pod(Box::new(pod))));
}

pub(super) fn runs(pod: &mut Pod, at: i64) {
    (pod.phase, pod.started, pod.first_running, pod.last_alive) = (PodPhase::Running, Some(at), Some(at), Some(at));
}

pub(super) fn ends(pod: &mut Pod, at: i64, code: i32) {
    pod.phase = if code == 0 { PodPhase::Succeeded } else { PodPhase::Failed };
    (pod.finished, pod.terminal, pod.exit_code) = (Some(at), Some(at), Some(code));
}

pub(super) fn status(effects: &[Effect]) -> &ComputeTaskStatus {
    effects.iter().find_map(|effect| if let Effect::WriteTask { status, .. } = effect { Some(&**status) } else { None }).expect("a status")
}

#[test]
fn a_pass_over_a_world_where_nothing_is_to_do_does_nothing() {
    let mut theatre = Theatre::new(7);
    theatre.tasks.clear();
    theatre.restart();
    theatre.faults = false;
    for _ in 0..3 {
        theatre.pass();
    }
    let quiet = plan(&mut theatre.world, &terms(), theatre.now).effects;
    let writes: Vec<String> = quiet
        .iter()
        .filter(|effect| !matches!(effect, Effect::WriteNode { .. } | Effect::WritePool { .. } | Effect::WriteEscrow { .. }))
        .map(ToString::to_string)
        .collect();
    assert!(writes.is_empty(), "{writes:?}");
}

#[test]
fn the_floor_of_every_pod_is_there_whatever_the_task_says() {
    let effects = until(&mut calm([task("a", "1", 0)]), "create_pod");
    let pod = pods(&effects)[0];
    let spec = pod.spec.as_ref().expect("a spec");
    assert_eq!(pod.metadata.name.as_deref(), Some("a-uidofa-0-0"));
    assert_eq!(spec.automount_service_account_token, Some(false));
    assert_eq!(spec.enable_service_links, Some(false));
    assert_eq!(spec.host_network.or(spec.host_pid).or(spec.host_ipc), None);
    assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
    assert_eq!(spec.priority_class_name.as_deref(), Some("supercargo-paid"));
    let security = spec.containers[0].security_context.as_ref().expect("a security context");
    assert_eq!((security.allow_privilege_escalation, security.privileged), (Some(false), Some(false)));
    assert_eq!(security.capabilities.as_ref().and_then(|all| all.drop.clone()), Some(vec!["ALL".to_owned()]));
    let resources = spec.containers[0].resources.as_ref().expect("resources");
    assert_eq!(resources.requests, resources.limits, "what is paid for is what is had");
    assert!(spec.volumes.iter().flatten().all(|volume| volume.host_path.is_none()));
}

#[test]
fn a_task_without_a_device_sees_none() {
    let mut plain = task("a", "1", 0);
    plain.spec.resources.gpu.count = 0;
    let effects = until(&mut calm([plain]), "create_pod");
    assert_eq!(env(pods(&effects)[0]).get("NVIDIA_VISIBLE_DEVICES").map(String::as_str), Some("void"));
}

#[test]
fn a_gang_has_its_policy_before_its_pods_and_each_worker_knows_the_leader() {
    let mut theatre = calm([gang("g", "3", 0, 3, "All")]);
    let standing = until(&mut theatre, "fit_namespace");
    assert!(matches!(&standing[0], Effect::FitNamespace { fittings, .. } if fittings.len() == 3));
    let first = until(&mut theatre, "create_pod");
    assert!(matches!(&first[..], [Effect::CreatePod { fitting: Some(Fitting::Policy(_)), .. }]), "the first comes alone, with the policy");
    first.into_iter().for_each(|effect| theatre.carry_out(effect));
    let others = until(&mut theatre, "create_pod");
    let known: Vec<_> = pods(&others).into_iter().map(env).collect();
    assert_eq!(known.len(), 2);
    for (worker, env) in (1..).zip(&known) {
        assert_eq!(env["SUPERCARGO_LEADER"], "g-uidofg-0-0.supercargo-workers.n.svc");
        assert_eq!((env["PET_NODE_RANK"].clone(), env["PET_NNODES"].as_str()), (worker.to_string(), "3"));
    }
}

#[test]
fn a_worker_that_fails_ends_the_others_and_all_are_billed_from_the_last_start() {
    let mut theatre = calm([gang("g", "3", 0, 2, "All")]);
    let first = until(&mut theatre, "create_pod");
    first.into_iter().for_each(|effect| theatre.carry_out(effect));
    theatre.pass();
    let begun = theatre.now;
    set(&mut theatre, |pod| runs(pod, if pod.name.ends_with("-0") { begun } else { begun + 10 }));
    theatre.now += 30;
    set(&mut theatre, |pod| {
        if pod.name.ends_with("-1") {
            ends(pod, begun + 30, 7);
        }
    });
    let ended = until(&mut theatre, "delete_pod");
    assert!(matches!(&ended[..], [Effect::DeletePod { name, .. }] if name.ends_with("-0")));
    ended.into_iter().for_each(|effect| theatre.carry_out(effect));
    set(&mut theatre, |_| {});
    let written = until(&mut theatre, "write_task");
    let status = status(&written);
    assert_eq!((status.phase.as_deref(), status.attempts[0].exit_code), (Some("Failed"), Some(7)));
    assert_eq!(status.usage.as_ref().map(|usage| (usage.seconds, usage.gpu_seconds)), Some((20, 40)));
}

#[test]
fn the_leader_alone_decides_where_the_task_says_so() {
    let mut theatre = calm([gang("g", "3", 0, 2, "Leader")]);
    let first = until(&mut theatre, "create_pod");
    first.into_iter().for_each(|effect| theatre.carry_out(effect));
    theatre.pass();
    let begun = theatre.now;
    set(&mut theatre, |pod| runs(pod, begun));
    theatre.now += 30;
    set(&mut theatre, |pod| {
        if pod.name.ends_with("-0") {
            ends(pod, begun + 30, 0);
        }
    });
    let ended = until(&mut theatre, "delete_pod");
    ended.into_iter().for_each(|effect| theatre.carry_out(effect));
    set(&mut theatre, |_| {});
    let written = until(&mut theatre, "write_task");
    assert_eq!(status(&written).phase.as_deref(), Some("Succeeded"));
}

/// A task whose start was told, and then an operator that sees it run only a hundred seconds later: when each was.
fn seen_late() -> (Theatre, i64, i64) {
    let mut theatre = calm([task("a", "1", 0)]);
    let made = until(&mut theatre, "create_pod");
    made.into_iter().for_each(|effect| theatre.carry_out(effect));
    theatre.pass();
    let begun = theatre.now;
    set(&mut theatre, |pod| runs(pod, begun));
    theatre.now += 3;
    let told = until(&mut theatre, "write_task");
    told.into_iter().for_each(|effect| theatre.carry_out(effect));
    theatre.now += 100;
    let anew = theatre.now;
    theatre.pods.values_mut().for_each(|pod| pod.first_running = Some(anew));
    theatre.restart();
    (theatre, begun, anew)
}

#[test]
fn an_operator_that_begins_anew_counts_no_time_anew_and_tells_nothing_again() {
    let (mut theatre, begun, _) = seen_late();
    let limit: u64 = theatre.world.reservations.values().map(|held| held.placement.run_seconds).sum();
    let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
    assert!(effects.iter().all(|effect| !["write_task", "delete_pod"].contains(&effect.kind())), "{effects:?}");
    theatre.now = begun + limit.cast_signed();
    set(&mut theatre, |_| {});
    until(&mut theatre, "delete_pod");
}

#[test]
fn a_pod_that_goes_without_a_word_is_billed_from_when_its_start_was_told_whoever_leads_then() {
    let (mut theatre, begun, anew) = seen_late();
    set(&mut theatre, |pod| pod.last_alive = Some(anew + 50));
    let uid = theatre.pods.values().next().expect("a pod").uid.clone();
    theatre.world.apply(crate::world::Event::PodGone { uid, at: anew + 50 });
    theatre.now = anew + 50;
    let book = until(&mut theatre, "book");
    let Effect::Book(bookings) = &book[0] else { panic!("it is booked") };
    let seconds =
        bookings.iter().find_map(|one| if let Booking::Post(Posting::Charge(charge)) = one { Some(charge.seconds) } else { None });
    assert_eq!(seconds, Some((anew + 50 - begun).unsigned_abs()));
}

#[test]
fn what_was_told_of_an_attempt_before_is_not_this_ones_start() {
    let (theatre, begun, _) = seen_late();
    let (task, held) = (&theatre.tasks["a"], theatre.world.reservations.values().next().expect("it is held"));
    let told = |bound: i64| super::attempt::told_started(task, &crate::world::records::Placement { bound, ..held.placement.clone() });
    assert_eq!((told(held.placement.bound), told(begun + 1)), (Some(begun), None));
}

#[test]
fn a_node_that_keeps_failing_tasks_is_set_apart_for_a_time_that_doubles() {
    let mut theatre = calm([]);
    let now = theatre.now;
    for at in [0, 10, 20] {
        super::node::blame(&mut theatre.world, "n1", now + at);
    }
    assert!(theatre.world.is_set_apart("n1", now + 619) && !theatre.world.is_set_apart("n1", now + 620));
    for at in [700, 701, 702] {
        super::node::blame(&mut theatre.world, "n1", now + at);
    }
    assert!(theatre.world.is_set_apart("n1", now + 702 + 1_199) && !theatre.world.is_set_apart("n1", now + 702 + 1_200));
    for at in [3_000, 3_700, 4_400] {
        super::node::blame(&mut theatre.world, "n1", now + at);
    }
    assert!(!theatre.world.is_set_apart("n1", now + 4_401), "three faults in half an hour are none too many");
}

#[test]
fn a_task_that_is_gone_before_its_pod_was_made_gives_back_what_was_held() {
    let mut theatre = calm([task("a", "1", 0)]);
    until(&mut theatre, "create_pod");
    theatre.world.apply(crate::world::Event::TaskGone(("n".into(), "a".into())));
    let soon = plan(&mut theatre.world, &terms(), theatre.now + 1).effects;
    assert!(soon.iter().all(|effect| effect.kind() != "book"), "a pod may be on its way: {soon:?}");
    theatre.now += 61;
    let find = until(&mut theatre, "find_pods");
    assert!(matches!(&find[..], [Effect::FindPods { names, .. }] if *names == ["a-uidofa-0-0"]), "nothing is given back on a guess");
    find.into_iter().for_each(|effect| theatre.carry_out(effect));
    let book = until(&mut theatre, "book");
    assert!(matches!(&book[..], [Effect::Book(bookings)] if matches!(bookings[..], [Booking::Post(Posting::Release { .. })])));
}

#[test]
fn what_an_api_server_refuses_is_told_in_its_words() {
    let mut theatre = calm([task("a", "1", 0)]);
    let made = until(&mut theatre, "create_pod");
    theatre.world.apply(refusal(&made[0]));
    let written = until(&mut theatre, "write_task");
    let started = status(&written).conditions.iter().find(|condition| condition.type_ == "Started").expect("Started");
    assert_eq!((started.reason.as_str(), started.message.as_str()), ("PodRefused", "exceeded quota: gpus"));
}

#[test]
fn a_volume_that_is_not_there_is_told_in_the_kubelets_words() {
    let mut theatre = calm([task("a", "1", 0)]);
    until(&mut theatre, "create_pod").into_iter().for_each(|effect| theatre.carry_out(effect));
    theatre.pass();
    let hindered = crate::world::Event::Hindered {
        uid: theatre.pods.values().next().expect("a pod").uid.clone(),
        namespace: "n".into(),
        reason: "FailedMount".into(),
        message: "secret \"keys\" not found".into(),
    };
    theatre.world.apply(hindered);
    // What a watch brings of the pod later does not say it.
    set(&mut theatre, |pod| pod.waiting = Some(("ContainerCreating".into(), String::new())));
    let written = until(&mut theatre, "write_task");
    let started = status(&written).conditions.iter().find(|condition| condition.type_ == "Started").expect("Started");
    assert_eq!((started.reason.as_str(), started.message.as_str()), ("FailedMount", "secret \"keys\" not found"));

    // Mended: what was said before is not said of what keeps it now, nor when the words come once more.
    set(&mut theatre, |pod| pod.has_sandbox = true);
    let pod = theatre.pods.values().next().expect("a pod");
    let again = crate::world::Event::Hindered {
        uid: pod.uid.clone(),
        namespace: "n".into(),
        reason: "FailedMount".into(),
        message: "secret \"keys\" not found".into(),
    };
    theatre.world.apply(again);
    assert!(theatre.world.pods.values().all(|pod| pod.hindrance.is_none()));
}

#[test]
fn a_task_waits_where_it_would_be_given_a_device_that_it_does_not_pay_for() {
    let without = |mut plain: crate::world::records::Task| {
        plain.spec.resources.gpu.count = 0;
        plain
    };
    let limits =
        |device: &str| crate::world::records::Limits { namespace: "n".into(), name: "gift".into(), devices: [device.to_owned()].into() };
    let first = |theatre: &mut Theatre| status(&until(theatre, "write_task")).waiting.first().map(|one| one.reason.clone());
    let mut theatre = calm([without(task("a", "1", 0))]);
    theatre.world.apply(crate::world::Event::Limits(limits("nvidia.com/gpu")));
    assert_eq!(first(&mut theatre).as_deref(), Some("UnpaidDevice"));
    theatre.world.apply(crate::world::Event::LimitsGone(("n".into(), "gift".into())));
    until(&mut theatre, "create_pod");

    // Its money is held back already, and its pod is not made: that waits too.
    theatre.world.apply(crate::world::Event::Limits(limits("nvidia.com/gpu")));
    let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
    assert!(effects.iter().all(|effect| effect.kind() != "create_pod"), "{effects:?}");
    let started = status(&effects).conditions.iter().find(|condition| condition.type_ == "Started").expect("Started");
    assert!(started.message.starts_with("LimitRange gift gives every container"), "{started:?}");
    theatre.world.apply(crate::world::Event::LimitsGone(("n".into(), "gift".into())));
    until(&mut theatre, "create_pod");

    let mut theatre = calm([task("a", "1", 0)]);
    theatre.world.apply(crate::world::Event::Limits(limits("nvidia.com/gpu")));
    until(&mut theatre, "create_pod");
    let mut theatre = calm([task("a", "1", 0)]);
    theatre.world.apply(crate::world::Event::Limits(limits("nvidia.com/mig-1g.10gb")));
    assert_eq!(first(&mut theatre).as_deref(), Some("UnpaidDevice"), "it pays for another one");
}

#[test]
fn a_budget_that_is_raised_lets_the_task_run_on() {
    let mut theatre = calm([task("a", "0.20", 0)]);
    let made = until(&mut theatre, "create_pod");
    made.into_iter().for_each(|effect| theatre.carry_out(effect));
    theatre.pass();
    let begun = theatre.now;
    set(&mut theatre, |pod| runs(pod, begun));
    let seconds = |theatre: &Theatre| theatre.world.reservations.values().map(|held| held.placement.run_seconds).sum::<u64>();
    // 0.20 at 3.60 an hour are 200 s, less the grace period and what a kubelet takes to end it.
    assert_eq!(seconds(&theatre), 200 - 40);
    let raised = task("a", "0.40", 0);
    theatre.world.apply(crate::world::Event::Task(Box::new(crate::world::records::Task { generation: 2, ..raised })));
    theatre.pass();
    assert_eq!(seconds(&theatre), 400 - 40);
    theatre.now = begun + 300;
    set(&mut theatre, |_| {});
    let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
    assert!(effects.iter().all(|effect| effect.kind() != "delete_pod"), "it has more time: {effects:?}");
    theatre.now = begun + 360;
    until(&mut theatre, "delete_pod");
}

#[test]
fn an_event_tells_of_a_retry_and_of_what_a_person_must_mend_and_of_nothing_else() {
    let mut theatre = calm([task("a", "1", 1)]);
    let mut notes = Vec::new();
    let mut pass = |theatre: &mut Theatre| {
        for effect in plan(&mut theatre.world, &terms(), theatre.now).effects {
            if let Effect::WriteTask { note: Some(note), .. } = &effect {
                notes.push((note.name.clone(), note.warning, note.message.clone()));
            }
            theatre.carry_out(effect);
        }
    };
    for attempt in 0..2 {
        while theatre.pods.is_empty() {
            pass(&mut theatre);
        }
        let now = theatre.now;
        set(&mut theatre, |pod| runs(pod, now));
        theatre.now += 30;
        set(&mut theatre, |pod| ends(pod, now + 30, 1 - attempt));
        while !theatre.pods.is_empty() {
            pass(&mut theatre);
        }
    }
    let words = "attempt 0 ended as Failed: another attempt follows: it ended with exit code 1";
    assert_eq!(notes, [("a.retrying-uid-of-a-0".to_owned(), false, words.to_owned())]);

    let broken = crate::world::records::Task { findings: vec!["spec.image: is empty".into()], ..task("b", "1", 0) };
    let stalled = until(&mut calm([broken]), "write_task");
    assert!(matches!(&stalled[..], [Effect::WriteTask { note: Some(note), .. }] if note.warning && note.reason == "Invalid"));
}

#[test]
fn an_old_answer_that_a_pod_was_not_there_gives_nothing_back() {
    let mut theatre = calm([task("a", "1", 0)]);
    let made = until(&mut theatre, "create_pod");
    let Effect::CreatePod { work, .. } = made[0].clone() else { panic!("it is a pod") };
    let absent = |at: i64| crate::world::Event::Absent { work: work.clone(), attempt: 0, at };
    theatre.now += 700;
    // It was asked for again and again until its start timeout, and the answer is from before.
    let before = theatre.world.asked[&work];
    theatre.world.apply(absent(before));
    let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
    assert!(effects.iter().all(|effect| effect.kind() != "book"), "{effects:?}");
    assert!(effects.iter().any(|effect| effect.kind() == "find_pods"), "{effects:?}");
    theatre.world.apply(absent(theatre.now));
    let book = until(&mut theatre, "book");
    assert!(matches!(&book[..], [Effect::Book(bookings)] if matches!(bookings[..], [Booking::Post(Posting::Release { .. })])));
}
