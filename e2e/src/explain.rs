//! Why a test failed: the events, conditions and logs of a cluster that explain it, printed in one place for all tests.

use crate::cluster::{self, Layout, Processes};
use crate::{install, kubectl};
use anyhow::{Result, anyhow};
use futures::FutureExt;
use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

/// What is told of each object of a kind: its name and all of its conditions.
const CONDITIONS: &str = "jsonpath={range .items[*]}{.kind} {.metadata.name}{\"\\n\"}{range .status.conditions[*]}\
    {\"  \"}{.type}={.status} {.reason}: {.message}{\"\\n\"}{end}{end}";
const STATUSES: &str = "jsonpath={range .items[*]}{.kind} {.metadata.name} {.status}{\"\\n\"}{end}";

/// Does what a test does. When that fails, by an error or by a panic, prints what explains it; a panic is an error then, so
/// that whoever asked can put things in order first.
pub async fn explained<T>(layout: &Layout, namespaces: &[&str], way: impl Future<Output = Result<T>>) -> Result<T> {
    let went = caught(way).await;
    if went.is_err() {
        print(layout, namespaces).await;
    }
    went
}

async fn caught<T>(way: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(way).catch_unwind().await.unwrap_or_else(|panic| Err(anyhow!("it panicked: {}", words(&*panic))))
}

fn words(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

async fn print(layout: &Layout, namespaces: &[&str]) {
    processes(layout);
    for namespace in namespaces {
        let inside = ["-n", namespace];
        show(layout, &inside, &["get", "pods", "-o", "wide"]).await;
        show(layout, &inside, &["get", "computetasks,escrows", "-o", "wide"]).await;
        show(layout, &inside, &["get", "computetasks,escrows", "-o", STATUSES]).await;
        show(layout, &inside, &["get", "pods", "-o", CONDITIONS]).await;
        show(layout, &inside, &["get", "events", "--sort-by=.lastTimestamp"]).await;
        logs(layout, namespace, 20).await;
    }
    show(layout, &[], &["get", "nodes", "-o", "wide"]).await;
    show(layout, &[], &["get", "nodes", "-o", CONDITIONS]).await;
    show(layout, &[], &["get", "providernodes,providerpools", "-o", CONDITIONS]).await;
    show(layout, &["-n", install::NAMESPACE], &["get", "pods", "-o", "wide"]).await;
    show(layout, &["-n", install::NAMESPACE], &["get", "events", "--sort-by=.lastTimestamp"]).await;
    logs(layout, install::NAMESPACE, 40).await;
}

/// Which of the cluster's own processes run, and what those said last that don't.
fn processes(layout: &Layout) {
    println!("--- the cluster's processes");
    match cluster::status(layout) {
        Ok(all) => {
            let gone: Vec<&str> = all.iter().filter(|(_, pid)| pid.is_none()).map(|(name, _)| name.as_str()).collect();
            println!("{} of {} run", all.len() - gone.len(), all.len());
            let processes = Processes::new(layout);
            gone.iter().for_each(|name| println!("{name} is gone:\n{}", processes.last_words(name)));
        }
        Err(error) => println!("{error:#}"),
    }
}

/// The last lines of every pod there, whoever it is: tasks' own, the operator's, the gate's.
async fn logs(layout: &Layout, namespace: &str, lines: usize) {
    let names = kubectl::run(layout, &["-n", namespace, "get", "pods", "-o", "name", "--request-timeout=10s"]).await;
    let tail = format!("--tail={lines}");
    for pod in names.unwrap_or_default().split_whitespace() {
        show(layout, &["-n", namespace], &["logs", pod, "--all-containers", &tail]).await;
    }
}

/// One that can't be answered says so, and is no reason not to ask the others; none of them is waited for long.
async fn show(layout: &Layout, place: &[&str], args: &[&str]) {
    let asked = [place, args, &["--request-timeout=10s"]].concat();
    println!("--- kubectl {}", [place, args].concat().join(" "));
    match kubectl::run(layout, &asked).await {
        Ok(text) => println!("{text}"),
        Err(error) => println!("{error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_in_its_own_words() {
        let said = |went: Result<()>| format!("{:#}", went.expect_err("it failed"));
        assert_eq!(said(caught(async { panic!("no pod") }).await), "it panicked: no pod");
        assert_eq!(said(caught(async { panic!("no {}", "task") }).await), "it panicked: no task");
        assert_eq!(said(caught(async { Err(anyhow!("no node")) }).await), "no node");
        assert_eq!(caught(async { Ok(7) }).await.expect("all is well"), 7);
    }
}
