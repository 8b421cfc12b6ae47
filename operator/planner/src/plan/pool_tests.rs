//! What pools and people make of nodes: two pools that select the same ones, what is written over one node, and who may be
//! beside whom there.

use super::node_tests::settled;
use super::simulation::{Theatre, escrow_with, pool, task, terms};
use super::tests::{calm, ends, pods, set};
use super::{Effect, plan};
use crate::world::Event;
use crate::world::records::{Escrow, Node, Pool, Task};
use serde_json::json;
use std::collections::BTreeMap;
use supercargo_crds::common::{DataClass, Tenancy};
use supercargo_crds::names::node_condition::READY;
use supercargo_crds::node::DataClassBasis;
use supercargo_crds::pool::ProviderPoolStatus;

/// A pool like the theatre's, made so many seconds later, for nodes that have this label.
fn another(name: &str, later: i64, label: &str) -> Pool {
    let mut another = Pool { name: name.into(), created: pool().created + later, ..pool() };
    another.spec.selector.match_labels = [(label.to_owned(), "yes".to_owned())].into();
    another
}

fn labelled(theatre: &Theatre, name: &str, labels: &[&str]) -> Event {
    let labels = labels.iter().map(|label| ((*label).to_owned(), "yes".to_owned())).collect();
    Event::Node(Box::new(Node { name: name.into(), labels, ..theatre.node("n1") }))
}

/// What a pass would write: which nodes go to which pool, and what is said of pools.
fn told(theatre: &mut Theatre) -> (BTreeMap<String, String>, BTreeMap<String, ProviderPoolStatus>) {
    theatre.world.todo.pools = true;
    let (mut nodes, mut pools) = (BTreeMap::new(), BTreeMap::new());
    for effect in plan(&mut theatre.world, &terms(), theatre.now).effects {
        match effect {
            Effect::ApplyNode { name, pool } => _ = nodes.insert(name, pool),
            Effect::WritePool { name, status } => _ = pools.insert(name, *status),
            _ => {}
        }
    }
    (nodes, pools)
}

/// How many nodes it sells, whether it is ready and why.
fn says(status: &ProviderPoolStatus) -> (i32, &str, &str, &str) {
    let ready = status.conditions.iter().find(|condition| condition.type_ == READY).expect("Ready");
    (status.nodes, ready.status.as_str(), ready.reason.as_str(), ready.message.as_str())
}

#[test]
fn of_two_pools_that_select_a_node_the_older_keeps_it_and_the_younger_says_so() {
    let mut theatre = calm([]);
    theatre.world.apply(Event::Pool(Box::new(another("young", 1, "gpu"))));
    let (nodes, pools) = told(&mut theatre);
    assert!(nodes.is_empty(), "they are the older one's already: {nodes:?}");
    let words = "an older pool has 2 of the nodes that it selects, such as n1";
    assert_eq!(says(&pools["young"]), (0, "False", "NodesTaken", words));
    assert_eq!(says(&pools["pool"]), (2, "True", "Selling", "it sells 2 nodes"));

    // A node that only the younger selects is its own, and it is ready with that.
    let third = labelled(&theatre, "n3", &["gpu", "large"]);
    theatre.world.apply(third);
    for name in ["n1", "n2"] {
        let both = labelled(&theatre, name, &["gpu", "small"]);
        theatre.world.apply(both);
    }
    theatre.world.apply(Event::Pool(Box::new(another("pool", 0, "small"))));
    let (nodes, pools) = told(&mut theatre);
    assert_eq!(nodes, BTreeMap::from([("n3".to_owned(), "young".to_owned())]));
    assert_eq!(says(&pools["young"]), (1, "True", "NodesTaken", words));

    // What the older one leaves is the younger one's.
    theatre.world.apply(Event::PoolGone("pool".into()));
    let (nodes, pools) = told(&mut theatre);
    assert_eq!(
        nodes.into_iter().map(|(node, pool)| (node, pool == "young")).collect::<Vec<_>>(),
        ["n1", "n2", "n3"].map(|node| (node.to_owned(), true))
    );
    assert_eq!(says(&pools["young"]), (3, "True", "Selling", "it sells 3 nodes"));
}

#[test]
fn of_two_pools_of_one_age_the_same_one_keeps_the_nodes_whoever_is_told_of_first() {
    for names in [["a", "b"], ["b", "a"]] {
        let mut theatre = calm([]);
        theatre.world.apply(Event::PoolGone("pool".into()));
        names.into_iter().for_each(|name| theatre.world.apply(Event::Pool(Box::new(another(name, 0, "gpu")))));
        let (nodes, pools) = told(&mut theatre);
        assert!(nodes.len() == 2 && nodes.values().all(|pool| pool == "a"), "{nodes:?}");
        assert_eq!((says(&pools["a"]).2, says(&pools["b"]).2), ("Selling", "NodesTaken"));
    }
}

#[test]
fn what_a_person_writes_over_a_node_counts_there_and_is_not_fought() {
    let mut theatre = calm([]);
    settled(&mut theatre, "n1");
    let turn = |theatre: &mut Theatre, over: serde_json::Value| {
        theatre.turned.insert("n1".into(), over);
        let provided = theatre.provided("n1");
        theatre.world.apply(Event::ProviderNode(Box::new(provided)));
    };
    let sold = |theatre: &Theatre, node: &str| {
        let offer = theatre.world.offers_of(node, &terms().data_classes, theatre.now).remove(0);
        (offer.region.unwrap_or_default(), offer.tenancies.join(" "), offer.data_classes.join(" "), offer.model)
    };
    let facts = json!([{ "resourceName": "nvidia.com/gpu", "model": "NVIDIA-L4", "memory": "24Gi" }]);
    let over = json!({ "region": "mars", "tenancies": ["Dedicated", "Exclusive"], "dataClasses": ["Public"], "gpus": facts });
    turn(&mut theatre, over.clone());
    let of_pool = |region: &str| {
        let mut changed = Pool { generation: 2, ..pool() };
        (changed.spec.region, changed.spec.data_classes) =
            (Some(region.to_owned()), serde_json::from_value(json!(["Public", "Shared"])).expect("classes"));
        changed
    };
    let own = ("mars", "Dedicated Exclusive", "Public", "NVIDIA-L4");
    for region in ["venus", "pluto"] {
        theatre.world.apply(Event::Pool(Box::new(of_pool(region))));
        let (nodes, _) = told(&mut theatre);
        assert!(nodes.is_empty(), "neither the pool nor a pass writes to the node: {nodes:?}");
        settled(&mut theatre, "n1");
        let (one, other) = (sold(&theatre, "n1"), sold(&theatre, "n2"));
        assert_eq!((one.0.as_str(), one.1.as_str(), one.2.as_str(), one.3.as_str()), own);
        assert_eq!((other.0.as_str(), other.1.as_str(), other.2.as_str(), other.3.as_str()), (region, "Shared", "Public Shared", ""));
    }
    // Its node may go to another pool meanwhile: what is written over it stays.
    theatre.world.apply(Event::PoolGone("pool".into()));
    theatre.world.apply(Event::Pool(Box::new(Pool { name: "next".into(), ..of_pool("next") })));
    assert_eq!(told(&mut theatre).0.get("n1").map(String::as_str), Some("next"));
    let mut moved = over;
    moved["pool"] = "next".into();
    turn(&mut theatre, moved);
    assert_eq!(sold(&theatre, "n1").0, "mars");
    turn(&mut theatre, json!({ "pool": "next" }));
    assert_eq!(sold(&theatre, "n1").0, "next", "what a person takes back is the pool's again");
}

fn tenant(name: &str, tenancy: Tenancy, escrow: &str) -> Task {
    let mut task = Task { payer: ("n".into(), escrow.into()), ..task(name, "20", 0) };
    task.spec.escrow_ref.name = escrow.into();
    task.spec.placement.tenancy = tenancy;
    task
}

/// One node, which is sold to everybody in every way, and two Escrows in its tasks' namespace.
fn one_node() -> Theatre {
    let mut theatre = calm([]);
    theatre.world.apply(Event::NodeGone("n2".into()));
    theatre.world.apply(Event::ProviderNodeGone("n2".into()));
    let mut every = Pool { generation: 2, ..pool() };
    every.spec.tenancies = vec![Tenancy::Shared, Tenancy::Dedicated, Tenancy::Exclusive];
    theatre.world.apply(Event::Pool(Box::new(every)));
    let funded = escrow_with(json!({ "funding": "Internal", "token": "USDC", "grant": "100" }));
    let other = Escrow { name: "other".into(), uid: "o".into(), funding: Escrow::funding("o", &funded.spec), ..funded };
    theatre.world.apply(Event::Escrow(Box::new(other)));
    settled(&mut theatre, "n1");
    theatre
}

/// Applies it, and passes until nothing more comes of it: whether it has a pod then, or what it waits for.
fn comes(theatre: &mut Theatre, task: Task) -> Result<(), Vec<String>> {
    let name = task.name.clone();
    theatre.tasks.insert(name.clone(), task.clone());
    theatre.world.apply(Event::Task(Box::new(task)));
    for _ in 0..6 {
        theatre.pass();
    }
    let made = theatre.pods.values().any(|pod| pod.ours.as_ref().is_some_and(|ours| ours.task == name));
    if made { Ok(()) } else { Err(theatre.tasks[&name].status.waiting.iter().map(|one| one.reason.clone()).collect()) }
}

#[test]
fn who_runs_beside_whom_is_as_both_tenancies_say_and_who_waits_comes_when_the_other_is_gone() {
    use Tenancy::{Dedicated, Exclusive, Shared};
    // Who is there, who comes, whether one Escrow pays for both, and what the second waits for.
    let cases = [
        (Shared, Shared, false, None),
        (Shared, Dedicated, false, Some("OccupiedByOthers")),
        (Shared, Dedicated, true, None),
        (Dedicated, Shared, false, Some("OccupiedByOthers")),
        (Dedicated, Shared, true, None),
        (Dedicated, Dedicated, false, Some("OccupiedByOthers")),
        (Dedicated, Dedicated, true, None),
        (Exclusive, Shared, true, Some("DevicesInUse")),
        (Exclusive, Exclusive, true, Some("DevicesInUse")),
        (Shared, Exclusive, true, Some("DevicesInUse")),
    ];
    for (there, comer, same, waits) in cases {
        let mut theatre = one_node();
        let case = format!("{there:?}, then {comer:?}, of one Escrow: {same}");
        assert_eq!(comes(&mut theatre, tenant("a", there, "default")), Ok(()), "{case}");
        let found = comes(&mut theatre, tenant("b", comer, if same { "default" } else { "other" }));
        assert_eq!(found, waits.map_or(Ok(()), |reason| Err(vec![reason.to_owned()])), "{case}");
        if waits.is_none() {
            continue;
        }
        let now = theatre.now;
        set(&mut theatre, |pod| {
            pod.started = Some(now);
            ends(pod, now, 0);
        });
        for _ in 0..6 {
            theatre.pass();
        }
        let left: Vec<&str> = theatre.pods.values().filter_map(|pod| Some(pod.ours.as_ref()?.task.as_str())).collect();
        assert_eq!(left, ["b"], "{case}");
    }
}

#[test]
fn confidential_tasks_wait_where_a_providers_word_is_not_enough_and_are_told_so() {
    let mut task = task("a", "1", 0);
    task.spec.data_class = DataClass::Confidential;
    let offering = |classes: &[DataClass]| {
        let mut theatre = calm([task.clone()]);
        let mut pool = pool();
        pool.generation = 2;
        pool.spec.data_classes = classes.to_vec();
        theatre.world.apply(Event::Pool(Box::new(pool)));
        theatre
    };
    let waits = |theatre: &mut Theatre| {
        // The money is there first, and another reason comes a minute later.
        for _ in 0..3 {
            theatre.now += 61;
            theatre.pass();
        }
        let one = &theatre.tasks["a"].status.waiting[0];
        (one.reason.clone(), one.nodes, one.example.clone())
    };
    let no = "DataClassNotAllowed".to_owned();
    let words = "n1: its provider vouches for Confidential data, and the operator's dataClasses want it Proved";
    let mut theatre = offering(&[DataClass::Public, DataClass::Confidential]);
    assert_eq!(waits(&mut theatre), (no.clone(), 2, words.to_owned()));
    assert_eq!(waits(&mut offering(&[DataClass::Public])), (no, 2, "n1: is not vouched for Confidential data".to_owned()));

    // Where the configuration takes their word for it the task runs.
    let mut terms = terms();
    terms.data_classes.confidential = DataClassBasis::Vouched;
    let mut theatre = offering(&[DataClass::Confidential]);
    let made = (0..10).any(|_| {
        let effects = plan(&mut theatre.world, &terms, theatre.now).effects;
        let made = !pods(&effects).is_empty();
        effects.into_iter().for_each(|effect| theatre.carry_out(effect));
        made
    });
    assert!(made, "{:?}", theatre.tasks["a"].status.waiting);
}
