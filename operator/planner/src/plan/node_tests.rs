//! What is done about nodes and volumes: whom the taint keeps away, who is set apart, what broken devices leave, and where a
//! volume lets a task run.

use super::simulation::{Theatre, pool, task, terms};
use super::tests::{calm, pods, status, until};
use super::{Effect, Terms, plan};
use crate::world::Event;
use crate::world::records::{Claim, Device, Node, Pod, PodPhase, Pool, StorageClass, Task, Volume};
use crate::world::volumes::Requirement;
use supercargo_crds::node::{DeviceHealth, ProviderNodeStatus};
use supercargo_crds::pool::Binding;
use supercargo_market::placement::Record;

/// What is on the books of nobody: some pod of a node.
pub(super) fn stranger(name: &str, node: &str) -> Pod {
    Pod {
        namespace: "other".into(),
        name: name.into(),
        uid: format!("uid-of-{name}"),
        node: Some(node.into()),
        phase: PodPhase::Running,
        ..Pod::default()
    }
}

/// Passes until nothing is left to do, and what was then written of the node.
pub(super) fn settled(theatre: &mut Theatre, node: &str) -> ProviderNodeStatus {
    for _ in 0..6 {
        theatre.pass();
    }
    theatre.written.get(node).cloned().expect("a status was written")
}

pub(super) fn condition(status: &ProviderNodeStatus, kind: &str) -> Option<(bool, String, String)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status == "True", found.reason.clone(), found.message.clone()))
}

#[test]
fn a_node_that_is_only_ours_is_tainted_once_nobody_would_be_thrown_out() {
    let mut theatre = calm([]);
    for pod in [stranger("logs", "n1"), Pod { tolerates_sold: true, ..stranger("plugin", "n2") }] {
        theatre.world.apply(Event::Pod(Box::new(pod)));
    }
    let status = settled(&mut theatre, "n1");
    let (sold, reason, message) = condition(&status, "Sold").expect("Sold");
    assert_eq!((sold, reason.as_str()), (false, "PodsWouldGo"));
    assert!(message.ends_with(": other/logs"), "{message}");
    assert_eq!(theatre.tainted.iter().collect::<Vec<_>>(), ["n2"]);
    assert!(condition(&theatre.written["n2"], "Sold").is_some_and(|(sold, ..)| sold));

    theatre.world.apply(Event::PodGone { uid: "uid-of-logs".into(), at: theatre.now });
    settled(&mut theatre, "n1");
    assert_eq!(theatre.tainted.len(), 2);

    // A pool that shares its nodes again gives them back to everybody.
    let mut shared = pool();
    shared.spec.binding = Binding::Scheduler;
    theatre.world.apply(Event::Pool(Box::new(Pool { generation: 2, ..shared })));
    let status = settled(&mut theatre, "n1");
    assert!(theatre.tainted.is_empty() && condition(&status, "Sold").is_none());
}

#[test]
fn an_operator_that_may_not_write_to_nodes_does_not_try() {
    let mut theatre = calm([]);
    let terms = Terms { taints_nodes: false, ..terms() };
    let effects = plan(&mut theatre.world, &terms, theatre.now).effects;
    assert!(effects.iter().all(|effect| effect.kind() != "taint_node"), "{effects:?}");
}

#[test]
fn a_node_that_is_set_apart_stays_so_after_a_restart_and_the_next_time_is_longer() {
    let mut theatre = calm([]);
    for _ in 0..3 {
        super::node::blame(&mut theatre.world, "n1", theatre.now);
    }
    let written = until(&mut theatre, "write_node");
    let notes: Vec<_> =
        written.iter().filter_map(|effect| if let Effect::WriteNode { note, .. } = effect { note.clone() } else { None }).collect();
    assert_eq!((notes.len(), notes[0].name.as_str(), notes[0].warning), (1, "n1.quarantined-1800000600", true));
    let status = settled(&mut theatre, "n1");
    assert_eq!(condition(&status, "Ready").map(|(ready, reason, _)| (ready, reason)), Some((false, "Quarantined".into())));
    theatre.restart();
    assert!(theatre.world.is_set_apart("n1", theatre.now + 599) && !theatre.world.is_set_apart("n1", theatre.now + 600));
    theatre.now += 600;
    let status = settled(&mut theatre, "n1");
    assert!(condition(&status, "Ready").is_some_and(|(ready, ..)| ready) && status.quarantine.is_none());
    for _ in 0..3 {
        super::node::blame(&mut theatre.world, "n1", theatre.now);
    }
    assert!(theatre.world.is_set_apart("n1", theatre.now + 1_199));
}

#[test]
fn a_broken_device_that_somebody_has_is_not_taken_off_twice() {
    let mut theatre = calm([]);
    let broken = Device { id: "gpu-2".into(), resource_name: "nvidia.com/gpu".into(), healthy: Some(false) };
    let mut user = Pod { devices: vec![broken], ..stranger("user", "n1") };
    user.requests.devices.insert("nvidia.com/gpu".into(), 2);
    theatre.world.apply(Event::Pod(Box::new(user)));
    let free = |theatre: &Theatre| theatre.world.offers_of("n1", &terms().data_classes, theatre.now)[0].free_devices;
    assert_eq!(free(&theatre), 2, "the kubelet has not counted it out yet");
    let mut node = theatre.node("n1");
    node.devices.insert("nvidia.com/gpu".into(), 3);
    theatre.world.apply(Event::Node(Box::new(node)));
    assert_eq!(free(&theatre), 2, "of four one is broken and in use, another is in use");
    let status = settled(&mut theatre, "n1");
    assert_eq!((status.offers[0].count, status.offers[0].free), (3, 2));
    assert_eq!((status.devices[0].id.as_str(), status.devices[0].health), ("gpu-2", DeviceHealth::Unhealthy));
    let (healthy, reason, message) = condition(&status, "Healthy").expect("Healthy");
    assert_eq!((healthy, reason.as_str(), message.as_str()), (false, "DevicesUnhealthy", "not healthy: 1 of 4 nvidia.com/gpu"));
    theatre.world.apply(Event::PodGone { uid: "uid-of-user".into(), at: theatre.now });
    assert_eq!(free(&theatre), 3);
}

#[test]
fn a_node_that_its_pool_selects_no_more_is_sold_no_more() {
    let mut theatre = calm([]);
    settled(&mut theatre, "n1");
    assert_eq!(theatre.world.offers_of("n1", &terms().data_classes, theatre.now).len(), 1);
    let relabelled = Node { labels: Default::default(), ..theatre.node("n1") };
    theatre.world.apply(Event::Node(Box::new(relabelled)));
    assert!(theatre.world.offers_of("n1", &terms().data_classes, theatre.now).is_empty());
    let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
    let written = effects.iter().find_map(|effect| match effect {
        Effect::WriteNode { name, status, .. } if name == "n1" => Some(status),
        _ => None,
    });
    let (ready, reason, _) = condition(written.expect("a status"), "Ready").expect("Ready");
    assert_eq!((ready, reason.as_str()), (false, "NotSelected"));
    assert!(effects.contains(&Effect::TaintNode { name: "n1".into(), sold: false }));
}

#[test]
fn a_reputation_is_what_the_books_know_of_the_node() {
    let mut theatre = calm([]);
    assert_eq!(settled(&mut theatre, "n1").reputation, Some(50));
    let record = Record { served_seconds: 1_000 * 3_600, faults: 1, disagreements: 0 };
    theatre.world.apply(Event::Record { place: "acme/n1".into(), record });
    let status = settled(&mut theatre, "n1");
    assert_eq!(status.reputation, Some(90));
    assert_eq!(status.record.map(|record| (record.served_seconds, record.faults)), Some((3_600_000, 1)));
    assert_eq!(theatre.world.offers_of("n1", &terms().data_classes, theatre.now)[0].reputation, 90);
    // More service alone is no reason to write.
    let more = Record { served_seconds: record.served_seconds + 3_600, ..record };
    theatre.world.apply(Event::Record { place: "acme/n1".into(), record: more });
    let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
    assert!(effects.iter().all(|effect| effect.kind() != "write_node"), "{effects:?}");
}

#[test]
fn what_is_free_is_written_when_it_has_been_another_for_a_minute() {
    let mut theatre = calm([]);
    assert_eq!(settled(&mut theatre, "n1").free.as_deref(), Some("4/4 nvidia.com/gpu"));
    let begun = theatre.now;
    let mut user = stranger("user", "n1");
    user.requests.devices.insert("nvidia.com/gpu".into(), 1);
    let there = Event::Pod(Box::new(user));
    let gone = || Event::PodGone { uid: "uid-of-user".into(), at: begun };
    let written = |theatre: &mut Theatre, after: i64, news: Option<Event>| {
        theatre.now = begun + after;
        news.into_iter().for_each(|event| theatre.world.apply(event));
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        let all: Vec<Option<String>> = effects
            .iter()
            .filter_map(|effect| if let Effect::WriteNode { status, .. } = effect { Some(status.free.clone()) } else { None })
            .collect();
        effects.into_iter().for_each(|effect| theatre.carry_out(effect));
        all.into_iter().flatten().collect::<Vec<_>>()
    };
    let none = Vec::<String>::new();
    assert_eq!(written(&mut theatre, 0, Some(there.clone())), none);
    assert_eq!(written(&mut theatre, 30, Some(gone())), none);
    assert_eq!(written(&mut theatre, 99, None), none, "a task that came and went within the minute cost nothing");
    assert_eq!(written(&mut theatre, 100, Some(there)), none);
    assert_eq!(written(&mut theatre, 159, None), none);
    assert_eq!(written(&mut theatre, 160, None), ["3/4 nvidia.com/gpu"]);
    assert_eq!(written(&mut theatre, 161, Some(gone())), none, "once a minute at most");
    assert_eq!(written(&mut theatre, 220, None), none);
    assert_eq!(written(&mut theatre, 221, None), ["4/4 nvidia.com/gpu"]);
    assert_eq!(written(&mut theatre, 600, None), none);
}

/// Two nodes that sell GPUs and slices of others, also to one task alone.
fn mixed(tasks: impl IntoIterator<Item = Task>) -> Theatre {
    let mut theatre = calm([]);
    let mut mixed = pool();
    let spec = serde_json::json!({ "token": "USDC", "resources": [
        { "resourceName": "nvidia.com/gpu", "perHour": "3.60" }, { "resourceName": "nvidia.com/mig-1g.10gb", "perHour": "0.50" },
    ] });
    mixed.spec.pricing = serde_json::from_value(spec).expect("prices");
    mixed.spec.tenancies = serde_json::from_value(serde_json::json!(["Shared", "Exclusive"])).expect("tenancies");
    theatre.world.apply(Event::Pool(Box::new(Pool { generation: 2, ..mixed })));
    settled(&mut theatre, "n1");
    for name in ["n1", "n2"] {
        let mut node = theatre.node(name);
        for devices in [&mut node.devices, &mut node.device_capacity] {
            devices.insert("nvidia.com/mig-1g.10gb".into(), 7);
        }
        theatre.world.apply(Event::Node(Box::new(node)));
    }
    for task in tasks {
        theatre.world.apply(Event::Task(Box::new(task.clone())));
        theatre.tasks.insert(task.name.clone(), task);
    }
    theatre
}

fn alone(gpus: i32) -> Task {
    let mut task = task("a", "10", 0);
    task.spec.placement.tenancy = supercargo_crds::common::Tenancy::Exclusive;
    task.spec.resources.gpu.count = gpus;
    task
}

#[test]
fn who_has_a_node_alone_pays_for_everything_that_is_sold_there_and_leaves_nothing_free() {
    // What it asks for, and what its pod is given of that: who asks for none sees none.
    for (asked, given) in [(1, Some("4")), (0, None)] {
        let mut theatre = mixed([alone(asked)]);
        let made = until(&mut theatre, "create_pod");
        let limits = pods(&made)[0].spec.as_ref().and_then(|spec| spec.containers[0].resources.clone()).and_then(|all| all.limits);
        let limits = limits.expect("limits");
        assert_eq!(limits.get("nvidia.com/gpu").map(|count| count.0.as_str()), given);
        let held = theatre.world.reservations.values().next().expect("it is held").clone();
        assert_eq!(held.placement.workers[0].price_per_hour.to_string(), "17.90", "four at 3.60 and seven at 0.50");
        // The time limit, the grace period and what a kubelet takes to end it.
        assert_eq!(held.reserved.units(), (17_900_000_u64 * (600 + 30 + 10)).div_ceil(3_600));
        made.into_iter().for_each(|effect| theatre.carry_out(effect));
        theatre.now += 1;
        plan(&mut theatre.world, &terms(), theatre.now).effects.into_iter().for_each(|effect| theatre.carry_out(effect));
        theatre.now += 60;
        let node = held.placement.workers[0].node.clone();
        assert_eq!(settled(&mut theatre, &node).free.as_deref(), Some("0/4 nvidia.com/gpu, 0/7 nvidia.com/mig-1g.10gb"));
    }
}

#[test]
fn nobody_has_a_node_alone_while_a_stranger_has_any_of_its_devices() {
    let mut theatre = mixed([]);
    for node in ["n1", "n2"] {
        let mut user = stranger(&format!("user-{node}"), node);
        user.requests.devices.insert("nvidia.com/mig-1g.10gb".into(), 1);
        theatre.world.apply(Event::Pod(Box::new(user)));
    }
    theatre.tasks.insert("a".into(), alone(1));
    theatre.world.apply(Event::Task(Box::new(alone(1))));
    let waits = until(&mut theatre, "write_task");
    let told: Vec<(&str, i32)> = status(&waits).waiting.iter().map(|one| (one.reason.as_str(), one.nodes)).collect();
    assert_eq!(told, [("DevicesInUse", 2)]);
    theatre.world.apply(Event::PodGone { uid: "uid-of-user-n2".into(), at: theatre.now });
    let made = until(&mut theatre, "create_pod");
    assert_eq!(pods(&made)[0].spec.as_ref().and_then(|spec| spec.node_name.as_deref()), Some("n2"));
}

#[test]
fn a_device_that_is_handed_out_several_times_is_not_shared_with_a_stranger_of_another_namespace_nor_a_dedicated_node_with_any() {
    let dedicated = serde_json::json!({ "tenancy": "Dedicated" });
    for (replicas, namespace, asks, welcome) in [
        ("4", "n", serde_json::json!({}), true),
        ("4", "others", serde_json::json!({}), false),
        ("1", "others", serde_json::json!({}), true),
        ("1", "others", dedicated, false),
    ] {
        let mut theatre = calm([]);
        let mut shared = pool();
        shared.spec.tenancies = serde_json::from_value(serde_json::json!(["Shared", "Dedicated"])).expect("tenancies");
        theatre.world.apply(Event::Pool(Box::new(Pool { generation: 2, ..shared })));
        settled(&mut theatre, "n1");
        for node in ["n1", "n2"] {
            let mut node = theatre.world.nodes[node].clone();
            node.labels.insert("nvidia.com/gpu.replicas".into(), replicas.into());
            theatre.world.apply(Event::Node(Box::new(node.clone())));
            let mut user = Pod { namespace: namespace.into(), ..stranger(&format!("user-{}", node.name), &node.name) };
            user.requests.devices.insert("nvidia.com/gpu".into(), 1);
            theatre.world.apply(Event::Pod(Box::new(user)));
            // What takes no devices shares none.
            theatre
                .world
                .apply(Event::Pod(Box::new(Pod { namespace: "logs".into(), ..stranger(&format!("logs-{}", node.name), &node.name) })));
        }
        let mut task = task("a", "1", 0);
        task.spec.placement = serde_json::from_value(asks).expect("placement");
        theatre.tasks.insert("a".into(), task.clone());
        theatre.world.apply(Event::Task(Box::new(task)));
        if welcome {
            assert_eq!(pods(&until(&mut theatre, "create_pod")).len(), 1);
            continue;
        }
        let waits = until(&mut theatre, "write_task");
        let told: Vec<(&str, i32)> = status(&waits).waiting.iter().map(|one| (one.reason.as_str(), one.nodes)).collect();
        assert_eq!(told, [("OccupiedByOthers", 2)], "{replicas} {namespace}");
    }
}

fn claim(class: &str, volume: Option<&str>) -> Event {
    Event::Claim(Claim { namespace: "n".into(), name: "data".into(), class: class.into(), volume: volume.map(Into::into) })
}

fn with_claim(name: &str) -> Task {
    let mut task = task("a", "1", 0);
    let volume = serde_json::json!([{ "name": "data", "mountPath": "/data", "persistentVolumeClaim": { "claimName": name } }]);
    task.spec.volumes = serde_json::from_value(volume).expect("volumes");
    task
}

#[test]
fn a_task_goes_where_its_volume_is() {
    let mut theatre = calm([]);
    settled(&mut theatre, "n1");
    let task = with_claim("data");
    theatre.tasks.insert(task.name.clone(), task.clone());
    theatre.world.apply(Event::Task(Box::new(task)));
    let waits = until(&mut theatre, "write_task");
    let first = &status(&waits).waiting[0];
    assert_eq!(
        (first.reason.as_str(), first.example.as_str()),
        ("VolumeNotFound", "there is no PersistentVolumeClaim data in namespace n")
    );
    waits.into_iter().for_each(|effect| theatre.carry_out(effect));

    let on = |node: &str| {
        let name = Requirement { key: "metadata.name".into(), operator: "In".into(), values: vec![node.into()], of_name: true };
        Event::Volume(Box::new(Volume { name: "disk".into(), class: String::new(), claimed: true, terms: vec![vec![name]] }))
    };
    theatre.world.apply(on("n9"));
    theatre.world.apply(claim("", Some("disk")));
    theatre.now += 61;
    let waits = until(&mut theatre, "write_task");
    assert_eq!(status(&waits).waiting[0].reason, "VolumeElsewhere");
    waits.into_iter().for_each(|effect| theatre.carry_out(effect));

    theatre.world.apply(Event::VolumeGone("disk".into()));
    theatre.now += 61;
    let waits = until(&mut theatre, "write_task");
    assert_eq!(status(&waits).waiting[0].reason, "VolumePending");
    waits.into_iter().for_each(|effect| theatre.carry_out(effect));

    theatre.world.apply(on("n2"));
    let made = until(&mut theatre, "create_pod");
    let spec = pods(&made)[0].spec.clone().expect("a spec");
    assert_eq!(spec.node_name.as_deref(), Some("n2"));
}

#[test]
fn only_volumes_that_wait_for_pods_are_left_to_the_scheduler() {
    let mut theatre = calm([]);
    settled(&mut theatre, "n1");
    theatre.world.apply(claim("local", None));
    let task = with_claim("data");
    theatre.tasks.insert(task.name.clone(), task.clone());
    theatre.world.apply(Event::Task(Box::new(task)));
    let waits = until(&mut theatre, "write_task");
    assert_eq!(status(&waits).waiting[0].reason, "VolumePending", "who knows where it will be bound");
    waits.into_iter().for_each(|effect| theatre.carry_out(effect));

    theatre.now += 61;
    let class = StorageClass { name: "local".into(), waits_for_pods: true, makes_volumes: false };
    theatre.world.apply(Event::StorageClass(class));
    assert!(plan(&mut theatre.world, &terms(), theatre.now).effects.iter().all(|effect| effect.kind() != "book"), "none is there");
    let name = Requirement { key: "metadata.name".into(), operator: "In".into(), values: vec!["n2".into()], of_name: true };
    let volume = Volume { name: "disk".into(), class: "local".into(), claimed: false, terms: vec![vec![name]] };
    theatre.world.apply(Event::Volume(Box::new(volume)));
    let made = until(&mut theatre, "create_pod");
    let spec = pods(&made)[0].spec.clone().expect("a spec");
    assert!(spec.node_name.is_none() && spec.affinity.is_some_and(|affinity| format!("{affinity:?}").contains("n2")));
}

#[test]
fn pods_have_users_of_their_own_where_the_node_can_and_no_volume_is_shared() {
    let host_users = |task: Task, able: bool, user_namespaces: bool| {
        let terms = Terms { user_namespaces, taints_nodes: false, ..terms() };
        let mut theatre = calm([task]);
        let disk = Volume { name: "disk".into(), class: String::new(), claimed: true, terms: Vec::new() };
        theatre.world.apply(Event::Volume(Box::new(disk)));
        theatre.world.apply(claim("", Some("disk")));
        for name in ["n1", "n2"] {
            let node = Node { user_namespaces: able, ..theatre.node(name) };
            theatre.world.apply(Event::Node(Box::new(node)));
        }
        loop {
            let effects = plan(&mut theatre.world, &terms, theatre.now).effects;
            if let Some(pod) = pods(&effects).first() {
                return pod.spec.as_ref().and_then(|spec| spec.host_users);
            }
            assert!(!effects.is_empty(), "there is a pod in the end");
            effects.into_iter().for_each(|effect| theatre.carry_out(effect));
        }
    };
    assert_eq!(host_users(task("a", "1", 0), true, true), Some(false));
    assert_eq!(host_users(task("a", "1", 0), false, true), None);
    assert_eq!(host_users(with_claim("data"), true, true), None);
    assert_eq!(host_users(task("a", "1", 0), true, false), None);
}
