//! How a planner uses the exchange, from its first pass to a restart: the table in the module's documentation, as a test.

use super::tests::{offer, request};
use super::*;
use crate::rating::Held;
use std::sync::Arc;

fn task(id: &str, created: i64) -> Waiting {
    let request = Arc::new(Request { cpu_millis: Some(1_000), memory_bytes: Some(1 << 30), ..request() });
    Waiting { id: id.into(), request, priority: 0, created, workers: 1, topology: Topology::Any, seconds: 600 }
}

/// What the books say of a task that is placed, as a planner reads it back.
fn reserved(waiting: &Waiting, assignments: &[Assignment], ends: i64) -> Running {
    let request = &waiting.request;
    let tenant = Tenant { funding: request.funding.clone(), namespace: request.namespace.clone(), tenancy: request.tenancy.clone() };
    let worker = |one: &Assignment| Worker {
        node: one.node.clone(),
        resource_name: request.resource_name.clone(),
        held: Held { ..one.held },
        storage_bytes: request.storage_bytes,
    };
    Running { id: waiting.id.clone(), tenant, ends, workers: assignments.iter().map(worker).collect() }
}

#[test]
fn a_planner_says_what_changed_and_hears_what_changed() {
    let mut exchange = Exchange::new();
    let node = Offer { free_devices: 2, ..offer("a", "1") };
    exchange.offer(&node);
    let tasks: Vec<Waiting> = (0..3).map(|number| task(&format!("task-{number}"), number)).collect();
    tasks.iter().for_each(|task| exchange.wait(task));
    let pass = exchange.assign(0);
    let ids: Vec<&str> = pass.placed.iter().map(|(id, _)| &**id).collect();
    assert_eq!((ids, pass.waiting.len()), (vec!["task-0", "task-1"], 1));

    // Before the books have answered the node's offer is made again, for some reason of its own: nothing is given twice.
    exchange.offer(&Offer { free_pods: node.free_pods - 1, ..node.clone() });
    assert!(exchange.assign(1).placed.is_empty());

    // The books hold the first and refuse the second, whose place goes to the third.
    let books = reserved(&tasks[0], &pass.placed[0].1, 600);
    exchange.run(&books);
    exchange.ended("task-1");
    assert_eq!(exchange.assign(2).placed.into_iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>(), ["task-2"]);
    assert_eq!(exchange.assign(3), Pass::default(), "nothing changed");

    // A restart: the same offer, the same reservations, in another order; and then they are as they were.
    let mut again = Exchange::new();
    again.run(&books);
    again.run(&reserved(&tasks[2], &pass.placed[1].1, 602));
    again.offer(&node);
    again.wait(&tasks[1]);
    assert!(again.assign(4).placed.is_empty());
    again.run(&books);
    assert_eq!(again.assign(5), Pass::default(), "what was said before changes nothing");

    // The first is charged and its pod is over.
    again.ended("task-0");
    assert_eq!(again.assign(6).placed.into_iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>(), ["task-1"]);
}
