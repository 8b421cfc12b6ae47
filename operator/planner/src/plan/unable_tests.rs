//! Whose doing it is when a container does not start: what is the node's own is retried elsewhere and counted against the node,
//! and what is the task's own stays the task's.

use super::ends_tests::{holds, obeys, settled};
use super::node_tests::stranger;
use super::outcome::{is_in_vain, is_of_the_node, is_provider_fault};
use super::simulation::{Theatre, gang, task, terms};
use super::tests::{calm, pods, set, status, until};
use super::{Effect, plan};
use crate::world::Event;
use crate::world::records::{Node, Parting, Pod, PodPhase, Requests, Task};
use supercargo_crds::task_status::{Attempt, ComputeTaskStatus};

const NETWORK: &str = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox \"5f\": plugin type=\"calico\" failed (add)";
const OCI: &str = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: ";
const DRIVER: &str = "error during container init: error running prestart hook #0: exit status 1, stdout: , stderr: Auto-detected mode as 'legacy'\nnvidia-container-cli: initialization error: nvml error: driver not loaded: unknown";

#[test]
fn what_keeps_a_container_from_starting_is_the_nodes_only_where_no_task_could_have_done_it() {
    let cases = [
        ("FailedCreatePodSandBox", NETWORK.to_owned(), true),
        ("FailedCreatePodSandBox", "Failed to create pod sandbox: no runtime for \"kata\" is configured".into(), true),
        (
            "FailedCreatePodSandBox",
            format!("Failed to create pod sandbox: {OCI}container init was OOM-killed (memory limit too low?)"),
            false,
        ),
        ("FailedAttachVolume", "AttachVolume.Attach failed for volume \"v\" : rpc error: code = Internal".into(), true),
        ("FailedAttachVolume", "Multi-Attach error for volume \"v\" Volume is already used by pod(s) b".into(), false),
        ("FailedMount", "MountVolume.SetUp failed for volume \"keys\" : secret \"keys\" not found".into(), false),
        ("FailedMount", "MountVolume.MountDevice failed: driver name a.b not found in the list of registered CSI drivers".into(), true),
        ("CreateContainerConfigError", "couldn't find key a in Secret n/keys".into(), false),
        ("CreateContainerError", "context deadline exceeded".into(), true),
        ("CreateContainerError", "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=0".into(), true),
        ("CreateContainerError", "failed to apply OCI options: no command specified".into(), false),
        ("RunContainerError", format!("{OCI}{DRIVER}"), true),
        ("StartError", format!("{OCI}{DRIVER}"), true),
        ("StartError", format!("{OCI}exec: \"nope\": executable file not found in $PATH: unknown"), false),
        ("StartError", format!("{OCI}exec: \"nvidia-container-cli: initialization error\": executable file not found in $PATH"), false),
        ("StartError", format!("{OCI}chdir to cwd (\"/context deadline exceeded\") set in config.json failed: not a directory"), false),
        ("ErrImagePull", "failed to pull and unpack image: context deadline exceeded".into(), false),
        ("ImagePullBackOff", "Back-off pulling image \"i\"".into(), false),
    ];
    for (reason, message, of_the_node) in cases {
        assert_eq!(is_of_the_node(reason, &message), of_the_node, "{reason}: {message}");
    }
}

fn hinder(theatre: &mut Theatre, worker: &str, (reason, message): (&str, &str)) {
    let pod = theatre.pods.values().find(|pod| pod.name.ends_with(worker)).expect("a pod");
    let (uid, namespace) = (pod.uid.clone(), "n".to_owned());
    theatre.world.apply(Event::Hindered { uid, namespace, reason: reason.into(), message: message.into() });
}

/// All its pods are there, and this keeps one of them from starting.
fn hindered(task: Task, worker: &str, why: (&str, &str)) -> Theatre {
    let workers = task.spec.gang.as_ref().map_or(1, |gang| gang.workers.unsigned_abs()) as usize;
    let mut theatre = calm([task]);
    while theatre.pods.len() < workers {
        until(&mut theatre, "create_pod").into_iter().for_each(|effect| theatre.carry_out(effect));
    }
    hinder(&mut theatre, worker, why);
    theatre
}

/// Its time to start is over, and its pods end.
fn times_out(theatre: &mut Theatre) -> ComputeTaskStatus {
    theatre.now += 600;
    until(theatre, "delete_pod").into_iter().for_each(|effect| theatre.carry_out(effect));
    // What never was is not to be found.
    set(theatre, |pod| (pod.reason, pod.exit_code) = (Some("ContainerStatusUnknown".into()), Some(137)));
    obeys(theatre, 137);
    let told = until(theatre, "write_task");
    let next = status(&told).clone();
    told.into_iter().for_each(|effect| theatre.carry_out(effect));
    next
}

fn faults(theatre: &Theatre) -> Vec<(&str, usize)> {
    theatre.world.quarantine.iter().map(|(node, record)| (node.as_str(), record.faults.len())).collect()
}

#[test]
fn a_node_that_can_not_make_a_sandbox_is_blamed_and_the_task_tries_another_one() {
    let mut theatre = hindered(task("a", "1", 0), "-0", ("FailedCreatePodSandBox", NETWORK));
    let told = until(&mut theatre, "write_task");
    assert_eq!(holds(status(&told), "Started"), Some((false, "FailedCreatePodSandBox".to_owned())), "it is told at once");
    assert_eq!(status(&told).waiting[0].reason, "FailedCreatePodSandBox");
    told.into_iter().for_each(|effect| theatre.carry_out(effect));

    let next = times_out(&mut theatre);
    let last = &next.attempts[0];
    assert_eq!((last.outcome.as_str(), last.exit_code, last.billed_seconds), ("ProviderFault", None, 0));
    assert_eq!((last.message.as_deref(), next.failed_attempts), (Some(NETWORK), None), "it is none of the task's failures");
    let words = next.conditions.iter().find(|condition| condition.type_ == "Reconciling").expect("Reconciling");
    assert_eq!(words.message, format!("another attempt follows: n1 could not start it in time: {NETWORK}"));
    assert_eq!(faults(&theatre), [("n1", 1)]);
    assert_eq!(theatre.world.records.values().map(|record| record.faults).sum::<u32>(), 0, "anybody there could have told it");
    let again = until(&mut theatre, "create_pod");
    assert_eq!(pods(&again)[0].spec.as_ref().and_then(|spec| spec.node_name.as_deref()), Some("n2"));
}

#[test]
fn one_namespace_alone_sets_no_node_apart_by_what_events_say_and_a_volume_none_at_all() {
    let mut theatre = calm([]);
    let heeds = |theatre: &mut Theatre, namespace: &str, at: i64| super::node::heeds(&mut theatre.world, "n1", namespace, at);
    assert!(heeds(&mut theatre, "n", 1_000));
    assert!(!heeds(&mut theatre, "n", 1_001) && !heeds(&mut theatre, "n", 1_599));
    assert!(heeds(&mut theatre, "m", 1_002) && heeds(&mut theatre, "n", 1_600));

    let gone = "AttachVolume.Attach failed for volume \"pvc-1\" : rpc error: code = NotFound";
    let mut theatre = hindered(task("a", "1", 0), "-0", ("FailedAttachVolume", gone));
    assert_eq!(times_out(&mut theatre).attempts[0].outcome, "ProviderFault");
    assert_eq!(faults(&theatre), []);
}

#[test]
fn whoever_leads_next_knows_that_a_node_could_not_start_it() {
    let mut theatre = hindered(task("a", "1", 0), "-0", ("FailedCreatePodSandBox", NETWORK));
    theatre.now += 600;
    let seen = |theatre: &Theatre| theatre.world.reservations.values().any(|held| held.placement.workers[0].parting.unable);
    while !seen(&theatre) {
        until(&mut theatre, "book").into_iter().for_each(|effect| theatre.carry_out(effect));
    }
    // Events are kept for an hour, and the pod does not say it.
    theatre.restart();
    until(&mut theatre, "delete_pod").into_iter().for_each(|effect| theatre.carry_out(effect));
    obeys(&mut theatre, 137);
    let next = settled(&mut theatre);
    assert_eq!((next.attempts[0].outcome.as_str(), next.attempts[0].index), ("ProviderFault", 0));
    assert_eq!(faults(&theatre), [("n1", 1)]);
}

#[test]
fn of_a_gang_the_node_of_the_worker_that_could_not_be_started_is_blamed() {
    let mut theatre = hindered(gang("a", "3", 0, 2, "All"), "-1", ("FailedCreatePodSandBox", NETWORK));
    let node = theatre.pods["a-uidofa-0-1"].node.clone().expect("a node");
    let next = times_out(&mut theatre);
    assert_eq!((next.attempts[0].outcome.as_str(), &next.attempts[0].node), ("ProviderFault", &node));
    assert_eq!(faults(&theatre), [(node.as_str(), 1)]);
}

#[test]
fn what_a_task_asks_for_in_vain_is_its_own_failure_whatever_was_in_the_way_before() {
    let missing = ("FailedMount", "MountVolume.SetUp failed for volume \"keys\" : secret \"keys\" not found");
    let mut theatre = hindered(task("a", "1", 0), "-0", ("FailedCreatePodSandBox", NETWORK));
    hinder(&mut theatre, "-0", missing);
    let next = times_out(&mut theatre);
    assert_eq!(holds(&next, "Succeeded"), Some((false, "StartTimeout".to_owned())));
    assert_eq!(faults(&theatre), []);

    // The sandbox was made at last, and then the image could not be pulled.
    let mut theatre = hindered(task("a", "1", 0), "-0", ("FailedCreatePodSandBox", NETWORK));
    set(&mut theatre, |pod| (pod.has_sandbox, pod.waiting) = (true, Some(("ImagePullBackOff".into(), "no such image".into()))));
    assert_eq!(times_out(&mut theatre).attempts[0].outcome, "StartTimeout");
    assert_eq!(faults(&theatre), []);
}

#[test]
fn who_ends_a_task_before_its_time_to_start_is_over_blames_nobody() {
    let mut theatre = hindered(task("a", "1", 0), "-0", ("FailedCreatePodSandBox", NETWORK));
    theatre.now += 599;
    set(&mut theatre, |pod| pod.deleting = true);
    theatre.pass();
    theatre.now += 1;
    set(&mut theatre, |pod| pod.phase = PodPhase::Failed);
    let next = settled(&mut theatre);
    assert_ne!(next.attempts[0].outcome, "ProviderFault");
    assert_eq!(faults(&theatre), []);
}

#[test]
fn a_runtime_that_fails_on_the_nodes_devices_costs_no_try() {
    let failed = |message: String| Pod {
        phase: PodPhase::Failed,
        reason: Some("StartError".into()),
        exit_code: Some(128),
        last_words: Some(message),
        ..Pod::default()
    };
    assert!(is_provider_fault(&failed(format!("{OCI}{DRIVER}"))));
    assert!(!is_provider_fault(&failed(format!("{OCI}exec: \"nope\": executable file not found in $PATH"))));
    let stopped = Pod { deleting: true, delete_sent: Some(1), ..failed(format!("{OCI}{DRIVER}")) };
    assert!(!is_provider_fault(&stopped), "somebody ended it first");
}

/// The node of the second attempt, and how long after the first one it was chosen. The other node is in use until then, or
/// nobody can have it.
fn second_attempt(others: impl Fn(&mut Theatre), freed_after: Option<i64>) -> (String, i64) {
    let mut theatre = hindered(task("a", "1", 0), "-0", ("FailedCreatePodSandBox", NETWORK));
    others(&mut theatre);
    times_out(&mut theatre);
    let failed = theatre.now;
    for second in 0..100 {
        if freed_after == Some(second) {
            theatre.world.apply(Event::PodGone { uid: "uid-of-big".into(), at: theatre.now });
        }
        for _ in 0..6 {
            let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
            if let [pod] = &pods(&effects)[..] {
                return (pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).expect("a node"), theatre.now - failed);
            }
            effects.into_iter().for_each(|effect| theatre.carry_out(effect));
        }
        theatre.now += 1;
    }
    panic!("there is no second attempt")
}

/// Somebody has all the devices of the other node.
fn in_use(theatre: &mut Theatre) {
    let devices = [("nvidia.com/gpu".to_owned(), 99)].into();
    let big = Pod { requests: Requests { devices, ..Requests::default() }, ..stranger("big", "n2") };
    theatre.world.apply(Event::Pod(Box::new(big)));
}

#[test]
fn a_task_goes_back_to_the_node_that_failed_it_only_when_no_other_takes_it() {
    let cordoned = |theatre: &mut Theatre| {
        let node = Node { cordoned: true, ..theatre.node("n2") };
        theatre.world.apply(Event::Node(Box::new(node)));
    };
    assert_eq!(second_attempt(|_| {}, None), ("n2".to_owned(), 0));
    assert_eq!(second_attempt(in_use, Some(59)), ("n2".to_owned(), 59), "what is only in use is waited for");
    assert_eq!(second_attempt(in_use, None), ("n1".to_owned(), 60), "for a while: the same node before none");
    assert_eq!(second_attempt(cordoned, None), ("n1".to_owned(), 0), "what nobody can have is not");
}

/// The task gets its next place and its pods there, and one of them is kept from starting.
fn again(theatre: &mut Theatre, why: (&str, &str)) -> ComputeTaskStatus {
    let made = |theatre: &Theatre| !theatre.pods.is_empty() && theatre.pods.values().all(|pod| !pod.deleting);
    for _ in 0..1_000 {
        if made(theatre) {
            break;
        }
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        effects.into_iter().for_each(|effect| theatre.carry_out(effect));
        theatre.now += 1;
    }
    assert!(made(theatre), "there is no other attempt: {:?}", theatre.tasks["a"].status);
    hinder(theatre, "-0", why);
    times_out(theatre)
}

#[test]
fn what_one_node_after_the_other_can_not_start_comes_to_an_end() {
    let gone = ("FailedAttachVolume", "AttachVolume.Attach failed for volume \"pvc-1\" : rpc error: code = NotFound");
    let mut theatre = hindered(task("a", "1", 0), "-0", gone);
    let next = times_out(&mut theatre);
    assert!(next.attempts[0].outcome == "ProviderFault" && holds(&next, "Finished").is_none());
    let next = again(&mut theatre, gone);
    assert_eq!(holds(&next, "Succeeded"), Some((false, "StartTimeout".to_owned())));
    let words = next.conditions.iter().find(|condition| condition.type_ == "Finished").expect("Finished");
    assert!(words.message.ends_with(&format!("could not start it either: {}", gone.1)), "{}", words.message);

    // Two nodes that make no sandbox, however often, are the nodes' own trouble.
    let sandbox = ("FailedCreatePodSandBox", NETWORK);
    let mut theatre = hindered(task("a", "1", 0), "-0", sandbox);
    times_out(&mut theatre);
    for _ in 0..5 {
        let next = again(&mut theatre, sandbox);
        assert_eq!(next.attempts.last().map(|last| last.outcome.as_str()), Some("ProviderFault"));
    }
}

#[test]
fn only_what_several_nodes_say_in_a_row_is_in_vain() {
    type Told = (&'static str, &'static str, &'static str);
    let attempt = |(node, outcome, message): Told| Attempt {
        node: node.into(),
        outcome: outcome.into(),
        message: Some(message.into()),
        index: 0,
        exit_code: None,
        billed_seconds: 0,
        evidence: "None".into(),
        image_digest: None,
    };
    let unable = |reason: &str, message: &str| Pod {
        parting: Parting { unable: true, ..Parting::default() },
        hindrance: Some((reason.into(), message.into())),
        ..Pod::default()
    };
    let sandbox = unable("FailedCreatePodSandBox", NETWORK);
    let volume = unable("FailedAttachVolume", "AttachVolume.Attach failed");
    let fault = |node: &'static str| (node, "ProviderFault", NETWORK);
    let detached = |node: &'static str| (node, "ProviderFault", "AttachVolume.Attach failed");
    let cases: [(&[Told], &Pod, bool); 8] = [
        (&[fault("n1"), fault("n2")], &sandbox, true),
        (&[fault("n1"), fault("n3"), fault("n1")], &sandbox, false),
        (&[fault("n1"), ("n2", "ProviderFault", "context deadline exceeded")], &sandbox, false),
        (&[fault("n1"), ("n2", "Failed", NETWORK)], &sandbox, false),
        (&[detached("n1")], &volume, true),
        (&[detached("n3"), detached("n3")], &volume, false),
        (&[detached("n3"), detached("n3"), detached("n3")], &volume, true),
        (&[fault("n1")], &volume, false),
    ];
    for (index, (before, pod, in_vain)) in cases.into_iter().enumerate() {
        let before: Vec<Attempt> = before.iter().copied().map(attempt).collect();
        assert_eq!(is_in_vain(&before, "n3", pod), in_vain, "case {index}");
    }
}

#[test]
fn who_starts_after_all_ends_as_every_other_does() {
    for restarts in [false, true] {
        let mut theatre = hindered(task("a", "1", 0), "-0", ("FailedCreatePodSandBox", NETWORK));
        theatre.now += 600;
        let seen = |theatre: &Theatre| theatre.world.reservations.values().any(|held| held.placement.workers[0].parting.unable);
        while !seen(&theatre) {
            // What it is told to end by is lost.
            until(&mut theatre, "book")
                .into_iter()
                .filter(|effect| matches!(effect, Effect::Book(_)))
                .for_each(|effect| theatre.carry_out(effect));
        }
        let now = theatre.now;
        set(&mut theatre, |pod| {
            (pod.has_sandbox, pod.phase, pod.started, pod.first_running) = (true, PodPhase::Running, Some(now), Some(now));
        });
        if restarts {
            theatre.restart();
        }
        theatre.now += 200;
        set(&mut theatre, |pod| super::tests::ends(pod, now + 200, 1));
        let next = settled(&mut theatre);
        let last = &next.attempts[0];
        assert_eq!((last.outcome.as_str(), last.exit_code, last.billed_seconds), ("Failed", Some(1), 200), "restarts: {restarts}");
        assert_eq!(faults(&theatre), []);
    }
}
