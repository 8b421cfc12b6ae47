//! How what runs comes to its end, and what follows: whose doing an end was, and when the time of a gang that waits for its
//! last worker, of a lost node or of a drain is over.

use super::outcome::{self, Outcome, is_provider_fault, of_worker};
use super::simulation::{Theatre, gang, task, terms};
use super::tests::{calm, ends, pods, runs, set, status, until};
use super::{Effect, plan};
use crate::world::Event;
use crate::world::records::{Device, Node, Parting, Placement, Pod, PodPhase, Task};
use supercargo_crds::node::ProviderNodeStatus;
use supercargo_crds::task::OnNodeLoss;
use supercargo_crds::task_status::ComputeTaskStatus;

/// All its pods are there, and none of them runs yet.
pub(super) fn made(task: Task) -> Theatre {
    let mut theatre = calm([task]);
    while !until(&mut theatre, "create_pod").is_empty() {
        theatre.pass();
        let wanted: usize = theatre.world.reservations.values().map(|held| held.placement.workers.len()).sum();
        if theatre.pods.len() == wanted {
            break;
        }
    }
    theatre
}

/// All its pods run.
pub(super) fn running(task: Task) -> Theatre {
    let mut theatre = made(task);
    let now = theatre.now;
    set(&mut theatre, |pod| runs(pod, now));
    theatre
}

fn placement(theatre: &Theatre) -> Placement {
    theatre.world.reservations.values().next().expect("something is held back").placement.clone()
}

/// What was told to end ends with this code, and everybody sees it.
pub(super) fn obeys(theatre: &mut Theatre, code: i32) {
    let now = theatre.now;
    set(theatre, |pod| {
        if pod.deleting && pod.started.is_some() {
            pod.ran_on = true;
            ends(pod, now, code);
        } else if pod.deleting {
            pod.terminal = Some(now);
        }
    });
}

pub(super) fn write(theatre: &mut Theatre, change: impl FnOnce(&mut Task)) {
    let task = theatre.tasks.get_mut("a").expect("the task");
    change(task);
    task.generation += 1;
    let task = task.clone();
    theatre.world.apply(Event::Task(Box::new(task)));
}

/// Carries out all that there is to do, a few times, and says what the task's status is then.
pub(super) fn settled(theatre: &mut Theatre) -> ComputeTaskStatus {
    for _ in 0..8 {
        theatre.pass();
    }
    theatre.tasks["a"].status.clone()
}

pub(super) fn holds(status: &ComputeTaskStatus, kind: &str) -> Option<(bool, String)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status == "True", found.reason.clone()))
}

#[test]
fn whose_doing_an_end_was_is_told_by_who_came_first_and_not_by_the_exit_code() {
    let theatre = running(task("a", "1", 0));
    let (placement, t) = (placement(&theatre), theatre.now);
    let ran = theatre.pods.values().next().expect("a pod").clone();
    let timeout = placement.bound + 600;
    let ended = |pod: &Pod, at: i64, code: i32| {
        let mut pod = pod.clone();
        ends(&mut pod, t + at, code);
        pod
    };
    let told = |pod: Pod, at: i64| Pod { deleting: true, delete_sent: Some(t + at), ..pod };
    let seen = |pod: Pod| Pod { ran_on: true, ..pod };
    let itself = |pod: Pod| Pod { parting: Parting { drained: true, by_itself: true, ..Parting::default() }, ..pod };
    let never = Pod { started: None, first_running: None, last_alive: None, phase: PodPhase::Pending, ..ran.clone() };
    let reason = |pod: &Pod, reason: &str| Pod { phase: PodPhase::Failed, reason: Some(reason.into()), ..pod.clone() };
    use Outcome::*;
    let cases = [
        ("by itself, with 0", ended(&ran, 60, 0), false, 60, Succeeded),
        ("by itself, with 1", ended(&ran, 60, 1), false, 60, Failed),
        ("suspended, and ends in order", told(ended(&ran, 61, 0), 60), true, 61, Suspended),
        ("suspended, and is killed", told(ended(&ran, 90, 137), 60), true, 90, Suspended),
        ("suspended, and ends in the same second", told(ended(&ran, 60, 0), 60), true, 60, Suspended),
        ("had ended, as was seen, in the same second", itself(told(ended(&ran, 60, 0), 60)), true, 60, Succeeded),
        ("had ended when it was suspended", told(ended(&ran, 59, 0), 60), true, 59, Succeeded),
        ("had failed when it was suspended", told(ended(&ran, 59, 1), 60), true, 59, Failed),
        ("had just ended, and still seemed to run", seen(told(ended(&ran, 59, 0), 60)), true, 59, Succeeded),
        ("seen to run on, by a node whose clock is behind", seen(told(ended(&ran, -240, 0), 60)), true, 61, Suspended),
        ("at its limit, in order", told(ended(&ran, 600, 0), 600), false, 600, TimeLimit),
        ("at its limit, killed", told(ended(&ran, 630, 137), 600), false, 630, TimeLimit),
        ("at its limit, a second short by whole seconds", told(ended(&ran, 600, 143), 600), false, 599, TimeLimit),
        ("by itself, a second before its limit", told(ended(&ran, 599, 0), 600), false, 599, Succeeded),
        ("by the kubelet's own limit", reason(&ended(&ran, 1_200, 137), "DeadlineExceeded"), false, 1_200, TimeLimit),
        ("by hand, long before its limit, in order", told(ended(&ran, 61, 0), 60), false, 61, Deleted),
        ("gone without a word", Pod { gone: true, ..ran.clone() }, false, 60, Deleted),
        ("gone after it had failed", Pod { gone: true, ..ended(&ran, 60, 1) }, false, 60, Failed),
        ("never started, by its start timeout", told(Pod { terminal: Some(timeout), ..never.clone() }, 600), false, 0, StartTimeout),
        ("never started, by hand", told(Pod { terminal: Some(timeout - 9), ..never.clone() }, 591), false, 0, Deleted),
        ("never started, by the kubelet's own limit", reason(&never, "DeadlineExceeded"), false, 0, StartTimeout),
    ];
    for (name, pod, suspend, seconds, outcome) in cases {
        let mut task = task("a", "1", 0);
        task.spec.suspend = suspend;
        assert_eq!(of_worker(&task, &placement, &pod, seconds), outcome, "{name}");
    }
}

#[test]
fn what_the_cluster_does_to_a_pod_is_the_providers_fault_and_what_the_task_does_is_not() {
    let t = 1_800_000_000;
    let mut ran = Pod { exit_code: Some(137), ..Pod::default() };
    runs(&mut ran, t);
    let mut failed = ran.clone();
    ends(&mut failed, t + 60, 137);
    let never = Pod { phase: PodPhase::Failed, ..Pod::default() };
    let of = |pod: &Pod, reason: &str, message: &str| Pod { reason: Some(reason.into()), message: Some(message.into()), ..pod.clone() };
    let refused = [
        "InvalidNodeInfo",
        "NodeAffinity",
        "NodeShutdown",
        "OutOfcpu",
        "OutOfmemory",
        "OutOfnvidia.com/gpu",
        "OutOfpods",
        "SMTAlignmentError",
        "TaintToleration",
        "TopologyAffinityError",
        "UnexpectedAdmissionError",
        "UnexpectedPredicateFailureType",
        "UnknownReason",
    ];
    for reason in refused {
        assert!(is_provider_fault(&of(&never, reason, "Pod was rejected")), "{reason}");
    }
    for reason in ["NodeLost", "Preempting", "Shutdown", "Terminated", "ContainerStatusUnknown"] {
        assert!(is_provider_fault(&of(&failed, reason, "")), "{reason}");
    }
    for reason in ["ContainerStatusUnknown", "StartError", "ContainerCannotRun", "DeadlineExceeded"] {
        assert!(!is_provider_fault(&of(&never, reason, "")), "{reason} of what never ran");
    }
    assert!(!is_provider_fault(&failed) && !is_provider_fault(&of(&failed, "OOMKilled", "")), "its own doing");

    let low = "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 9Gi. ";
    let evictions = [
        (low.to_owned(), true),
        ("The node was low on resource: memory. ".to_owned(), true),
        ("The node had condition: [DiskPressure]. ".to_owned(), true),
        (format!("{low}Container task was using 2Gi, request is 1Gi, has larger consumption of ephemeral-storage. "), false),
        ("Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ".to_owned(), false),
        ("Container task exceeded its local ephemeral storage limit \"1Gi\". ".to_owned(), false),
        ("Usage of EmptyDir volume \"data\" exceeds the limit \"1Gi\". ".to_owned(), false),
    ];
    for (message, fault) in evictions {
        assert_eq!(is_provider_fault(&of(&failed, "Evicted", &message)), fault, "{message}");
    }

    let device = |healthy| vec![Device { id: "gpu-0".into(), resource_name: "nvidia.com/gpu".into(), healthy }];
    let mut done = ran.clone();
    ends(&mut done, t + 60, 0);
    for (healthy, fault) in [(Some(false), true), (Some(true), false), (None, false)] {
        assert_eq!(is_provider_fault(&Pod { devices: device(healthy), ..failed.clone() }), fault, "{healthy:?}");
        assert!(!is_provider_fault(&Pod { devices: device(healthy), ..done.clone() }), "it did what it was to do");
        let stopped = Pod { deleting: true, delete_sent: Some(t + 60), devices: device(healthy), ..failed.clone() };
        assert!(!is_provider_fault(&stopped), "somebody ended it");
    }
    for reason in ["DeletionByTaintManager", "EvictionByEvictionAPI", "PreemptionByScheduler", "DeletionByPodGC", "TerminationByKubelet"] {
        let parting = Parting { evicted: reason == "EvictionByEvictionAPI", ..Parting::default() };
        let disrupted =
            |pod: &Pod| Pod { disruption: Some(reason.into()), deleting: true, delete_sent: Some(t + 60), parting, ..pod.clone() };
        assert!(is_provider_fault(&disrupted(&failed)) && is_provider_fault(&disrupted(&done)), "{reason}, whatever the exit code");
        let mut before = failed.clone();
        ends(&mut before, t + 50, 1);
        assert!(!is_provider_fault(&disrupted(&before)), "{reason} came when it had failed already");
    }
}

#[test]
fn a_device_that_broke_while_it_ran_counts_also_when_the_kubelet_took_it_back() {
    let mut theatre = running(task("a", "1", 1));
    let broken = Device { id: "gpu-0".into(), resource_name: "nvidia.com/gpu".into(), healthy: Some(false) };
    set(&mut theatre, |pod| pod.devices = vec![broken.clone()]);
    theatre.now += 60;
    let now = theatre.now;
    set(&mut theatre, |pod| {
        pod.devices.clear();
        ends(pod, now, 139);
    });
    let told = until(&mut theatre, "write_task");
    let last = &status(&told).attempts[0];
    assert_eq!((last.outcome.as_str(), last.billed_seconds), ("ProviderFault", 0));
    assert!(status(&told).conditions.iter().any(|condition| condition.message.ends_with("exit code 139 (DeviceUnhealthy)")));
    assert_eq!(theatre.world.records.values().map(|record| record.faults).sum::<u32>(), 1);
}

#[test]
fn a_suspended_run_that_ends_in_order_runs_again_when_it_is_resumed() {
    let mut theatre = running(task("a", "1", 0));
    theatre.now += 60;
    write(&mut theatre, |task| task.spec.suspend = true);
    theatre.pass();
    theatre.now += 2;
    obeys(&mut theatre, 0);
    let status = settled(&mut theatre);
    assert_eq!((status.phase.as_deref(), status.attempts[0].outcome.as_str()), (Some("Suspended"), "Suspended"));
    assert_eq!((status.attempts[0].exit_code, status.attempts[0].billed_seconds), (Some(0), 62));
    let held = ["Reserved", "Placed", "Started", "Finished"].map(|kind| holds(&status, kind));
    assert_eq!(held, [None, None, None, None], "nothing is held back for it");
    write(&mut theatre, |task| task.spec.suspend = false);
    let again = until(&mut theatre, "create_pod");
    assert_eq!(pods(&again)[0].metadata.name.as_deref(), Some("a-uidofa-1-0"));
}

#[test]
fn a_run_that_its_limit_ends_has_failed_whatever_it_exits_with() {
    for code in [0, 143] {
        let mut theatre = running(task("a", "1", 0));
        theatre.now += 600;
        theatre.pass();
        obeys(&mut theatre, code);
        let status = settled(&mut theatre);
        assert_eq!(holds(&status, "Succeeded"), Some((false, "TimeLimit".to_owned())), "exit code {code}");
    }
}

#[test]
fn of_a_gang_that_is_ended_in_order_none_has_succeeded() {
    let mut theatre = running(gang("a", "3", 0, 2, "Leader"));
    theatre.now += 60;
    write(&mut theatre, |task| task.spec.suspend = true);
    theatre.pass();
    obeys(&mut theatre, 0);
    assert_eq!(settled(&mut theatre).phase.as_deref(), Some("Suspended"));
}

#[test]
fn a_gang_of_which_one_never_starts_has_failed_by_its_start_timeout() {
    // One is ended while it waits for the other, in the same second; or the other was never made.
    for never_made in [false, true] {
        let mut theatre = made(gang("a", "3", 0, 2, "All"));
        let (now, bound) = (theatre.now, placement(&theatre).bound);
        if never_made {
            let uid = theatre.pods.remove("a-uidofa-0-1").expect("the second worker").uid;
            let pod = theatre.world.pods[&uid].clone();
            theatre.world.forget_pod(&pod);
            // Its pool's terms are not known any more: nobody makes it again.
            theatre.world.apply(Event::PoolGone("pool".into()));
        }
        set(&mut theatre, |pod| {
            if pod.name.ends_with("-0") {
                runs(pod, now);
            }
        });
        theatre.now = bound + 599;
        assert!(plan(&mut theatre.world, &terms(), theatre.now).effects.iter().all(|effect| effect.kind() != "delete_pod"));
        theatre.now = bound + 600;
        // First who has not started, as it was seen: it may have, and then nobody ends.
        for ends in if never_made { &["-0"][..] } else { &["-1", "-0"] } {
            let effects = until(&mut theatre, "delete_pod");
            let deletes = |effect: &Effect| match effect {
                Effect::DeletePod { name, .. } => Some(name.clone()),
                _ => None,
            };
            let names: Vec<String> = effects.iter().filter_map(deletes).collect();
            assert!(names.len() == 1 && names[0].ends_with(ends), "{names:?}");
            effects.into_iter().for_each(|effect| theatre.carry_out(effect));
            set(&mut theatre, |_| ());
        }
        obeys(&mut theatre, 0);
        let status = settled(&mut theatre);
        assert_eq!(holds(&status, "Succeeded"), Some((false, "StartTimeout".to_owned())), "never made: {never_made}");
        assert!(status.conditions.iter().any(|condition| condition.message == "worker 1 did not start within 600 s"), "{status:?}");
        assert_eq!(status.usage.map(|usage| usage.seconds), Some(0), "what waits for the others is not billed");
    }
}

/// A person turns what may be turned of both nodes.
pub(super) fn turn(theatre: &mut Theatre, change: serde_json::Value) {
    for name in ["n1", "n2"] {
        theatre.turned.insert(name.into(), change.clone());
        let provided = theatre.provided(name);
        theatre.world.apply(Event::ProviderNode(Box::new(provided)));
    }
}

#[test]
fn a_drains_deadline_counts_from_when_it_began_whatever_else_is_true_of_the_node() {
    let mut theatre = running(task("a", "1", 0));
    let drain = |theatre: &mut Theatre, seconds: i64| {
        turn(theatre, serde_json::json!({ "availability": "Draining", "drainDeadlineSeconds": seconds }));
        settled(theatre);
    };
    let told = |status: &ProviderNodeStatus| {
        let found = status.conditions.iter().find(|condition| condition.type_ == "Draining").expect("Draining");
        (found.status.clone(), found.last_transition_time.0.as_second())
    };
    // Closed for long: that is no draining.
    turn(&mut theatre, serde_json::json!({ "availability": "Closed" }));
    settled(&mut theatre);
    theatre.now += 50;
    let begun = theatre.now;
    drain(&mut theatre, 200);
    theatre.now = begun + 100;
    for name in ["n1", "n2"] {
        let node = Node { cordoned: true, ..theatre.node(name) };
        theatre.world.apply(Event::Node(Box::new(node)));
    }
    settled(&mut theatre);
    assert_eq!(told(&theatre.written["n1"]), ("True".to_owned(), begun));
    let is_ended = |theatre: &Theatre| theatre.pods["a-uidofa-0-0"].deleting;
    theatre.now = begun + 199;
    settled(&mut theatre);
    assert!(!is_ended(&theatre));
    // The deadline moves with the spec, there and back.
    drain(&mut theatre, 300);
    theatre.now = begun + 299;
    settled(&mut theatre);
    assert!(!is_ended(&theatre));
    drain(&mut theatre, 299);
    assert!(is_ended(&theatre), "its time is over, cordoned or not");
    obeys(&mut theatre, 0);
    let written = until(&mut theatre, "write_task");
    assert_eq!(status(&written).attempts[0].outcome, "ProviderFault");
    assert_eq!(theatre.world.records.values().map(|record| record.faults).sum::<u32>(), 0, "who drains a node said so before");

    turn(&mut theatre, serde_json::json!({}));
    let written = until(&mut theatre, "write_node");
    let Effect::WriteNode { status, .. } = &written[0] else { panic!("it is a node's status") };
    assert_eq!(told(status), ("False".to_owned(), begun + 299));
}

#[test]
fn what_was_suspended_before_a_drains_deadline_was_not_ended_by_it() {
    let mut theatre = running(task("a", "1", 0));
    turn(&mut theatre, serde_json::json!({ "availability": "Draining", "drainDeadlineSeconds": 100 }));
    settled(&mut theatre);
    theatre.now += 90;
    write(&mut theatre, |task| task.spec.suspend = true);
    until(&mut theatre, "delete_pod").into_iter().for_each(|effect| theatre.carry_out(effect));
    let now = theatre.now;
    set(&mut theatre, |pod| (pod.phase, pod.delete_sent, pod.finished, pod.exit_code) = (PodPhase::Running, Some(now), None, None));
    theatre.now += 15;
    theatre.pass();
    obeys(&mut theatre, 0);
    assert_eq!(settled(&mut theatre).attempts[0].outcome, "Suspended");
}

#[test]
fn a_task_that_waits_for_its_lost_node_is_neither_ended_nor_made_again_until_the_node_is_back() {
    for (policy, outcomes) in [(OnNodeLoss::Retry, vec!["ProviderFault"]), (OnNodeLoss::Wait, vec!["Succeeded"])] {
        let mut task = task("a", "1", 0);
        task.spec.on_node_loss = policy;
        let mut theatre = running(task);
        let begun = theatre.now;
        for name in ["n1", "n2"] {
            theatre.silent.insert(name.into(), begun + 60);
            theatre.were_silent.insert(name.into());
            let node = theatre.node(name);
            theatre.world.apply(Event::Node(Box::new(node)));
        }
        theatre.now = begun + 359;
        settled(&mut theatre);
        assert!(theatre.world.pods.values().all(|pod| !pod.parting.lost), "{policy:?}: it may come back");
        theatre.now = begun + 360;
        let status = settled(&mut theatre);
        assert_eq!(status.attempts.len(), usize::from(policy == OnNodeLoss::Retry), "{policy:?}");
        theatre.silent.clear();
        for name in ["n1", "n2"] {
            let node = theatre.node(name);
            theatre.world.apply(Event::Node(Box::new(node)));
        }
        set(&mut theatre, |pod| {
            if pod.name == "a-uidofa-0-0" {
                ends(pod, begun + 300, 0);
            }
        });
        let status = settled(&mut theatre);
        let told: Vec<_> = status.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
        assert_eq!(told, outcomes, "{policy:?}");
    }
}

#[test]
fn a_task_that_may_fail_more_often_than_is_kept_comes_to_an_end_all_the_same() {
    let mut theatre = calm([task("a", "10", 11)]);
    for attempt in 0..12 {
        assert_eq!(holds(&theatre.tasks["a"].status, "Finished"), None, "attempt {attempt}");
        until(&mut theatre, "create_pod");
        theatre.pass();
        let now = theatre.now;
        set(&mut theatre, |pod| {
            runs(pod, now);
            ends(pod, now + 5, 1);
        });
        theatre.now += 5;
        until(&mut theatre, "free_pod");
        theatre.pass();
    }
    let status = settled(&mut theatre);
    assert_eq!(holds(&status, "Finished"), Some((true, "Failed".to_owned())));
    let kept = (status.attempts.len(), status.attempts.last().map(|last| last.index));
    assert_eq!((kept, status.failed_attempts), ((10, Some(11)), Some(12)));
}

#[test]
fn what_was_seen_to_have_ended_nobody_has_ended_who_told_it_to_in_the_same_second() {
    for seen in [true, false] {
        let mut theatre = running(task("a", "1", 0));
        let now = theatre.now;
        let mut ended = theatre.world.pods.values().next().expect("a pod").clone();
        ends(&mut ended, now, 0);
        if seen {
            theatre.world.apply(Event::Pod(Box::new(ended.clone())));
        }
        theatre.world.apply(Event::Pod(Box::new(Pod { deleting: true, delete_sent: Some(now), ..ended })));
        let pod = theatre.world.pods.values().next().expect("a pod");
        assert_eq!((outcome::was_stopped(pod), outcome::succeeded(pod)), (!seen, seen));
    }
}
