//! What containerd itself says of containers, to the nanosecond: when it started each, and when each ended. Kubelets tell of
//! both in whole seconds.

use crate::cluster::{ClusterInfo, Layout, shell};
use crate::wait;
use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

const NAMESPACE: &str = "k8s.io";
/// Set and cleared, so that something happens that can be waited for.
const MARK: &str = "supercargo.dev/truth";
const PATIENCE: Duration = Duration::from_secs(30);

/// From start to end, by the node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    pub started: Timestamp,
    pub ended: Timestamp,
}

impl Life {
    pub fn nanoseconds(&self) -> Result<u64> {
        let nanoseconds = self.ended.as_nanosecond() - self.started.as_nanosecond();
        u64::try_from(nanoseconds).with_context(|| format!("it ended before it started: {self:?}"))
    }
}

/// What was told of containers so far, by their ids.
#[derive(Debug, Default)]
struct Told {
    any: bool,
    started: BTreeMap<String, Timestamp>,
    ended: BTreeMap<String, Timestamp>,
}

/// The events of every node's containerd. It listens until it is dropped.
#[derive(Debug)]
pub struct Truth {
    _listeners: Vec<Child>,
    told: Vec<Arc<Mutex<Told>>>,
}

impl Truth {
    /// Returns when it listens everywhere: nothing that happens from then on is missed.
    pub async fn begin(layout: &Layout, info: &ClusterInfo) -> Result<Self> {
        let (mut listeners, mut told) = (Vec::new(), Vec::new());
        for node in &info.nodes {
            let socket = layout.containerd_socket(node).display().to_string();
            let ctr = layout.bin("ctr").display().to_string();
            let mut listener = Command::new(&ctr);
            listener.args(["--address", &socket, "events"]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
            let mut listener = listener.spawn().with_context(|| format!("listening to the containerd of {node}"))?;
            let of_node = Arc::new(Mutex::new(Told::default()));
            tokio::spawn(listen(listener.stdout.take().context("ctr has an output")?, of_node.clone()));
            let mark = |value: &str| {
                let label = format!("{MARK}={value}");
                shell::run(&ctr, ["--address", &socket, "namespaces", "label", NAMESPACE, &label])
            };
            wait::until(format!("the events of the containerd of {node}"), PATIENCE, || {
                let heard = mark("heard").map(|_| is_heard(&of_node));
                async move { heard.map(|heard| heard.then_some(())) }
            })
            .await?;
            mark("")?;
            listeners.push(listener);
            told.push(of_node);
        }
        Ok(Self { _listeners: listeners, told })
    }

    /// The life of a container, as a pod's status names it; waits until its end was told.
    pub async fn of(&self, container_id: &Value) -> Result<Life> {
        let id = container_id.as_str().and_then(|id| id.strip_prefix("containerd://")).context("a container of containerd")?;
        wait::closely(format!("containerd to tell of {id}"), PATIENCE, || Ok(self.told.iter().find_map(|told| life(told, id)))).await
    }
}

fn is_heard(told: &Mutex<Told>) -> bool {
    told.lock().is_ok_and(|told| told.any)
}

fn life(told: &Mutex<Told>, id: &str) -> Option<Life> {
    let told = told.lock().ok()?;
    Some(Life { started: *told.started.get(id)?, ended: *told.ended.get(id)? })
}

/// Follows until the listener ends.
async fn listen(output: ChildStdout, told: Arc<Mutex<Told>>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(mut told) = told.lock() {
            told.any = true;
            // What is not about tasks is of no interest here.
            let _ = hear(&mut told, &line);
        }
    }
}

/// Takes in a line: when, in which namespace, what, and of what in JSON.
fn hear(told: &mut Told, line: &str) -> Result<()> {
    let (at, rest) = line.split_once(" UTC ").context("a time of UTC")?;
    let mut parts = rest.splitn(3, ' ');
    let (namespace, topic, event) = (parts.next(), parts.next(), parts.next().context("an event")?);
    ensure!(namespace == Some(NAMESPACE), "it is not Kubernetes' own");
    let event: Value = serde_json::from_str(event)?;
    let id = event["container_id"].as_str().context("a container")?.to_owned();
    match topic {
        Some("/tasks/start") => drop(told.started.insert(id, time(at)?)),
        // Whatever else ran in a container has an id of its own.
        Some("/tasks/exit") if event["id"] == *id => drop(told.ended.insert(id, exited(&event["exited_at"])?)),
        _ => {}
    }
    Ok(())
}

/// A time as Go prints it, without its zone's name.
fn time(text: &str) -> Result<Timestamp> {
    let (day, rest) = text.split_once(' ').context("a day and a time")?;
    let (time, zone) = rest.split_once(' ').context("a time and a zone")?;
    format!("{day}T{time}{zone}").parse().with_context(|| format!("reading the time {text:?}"))
}

/// A time in an event: its seconds and nanoseconds, or as a text.
fn exited(at: &Value) -> Result<Timestamp> {
    if let Some(text) = at.as_str() {
        return text.parse().with_context(|| format!("reading the time {text:?}"));
    }
    let nanoseconds = at["nanos"].as_i64().unwrap_or_default().try_into().context("nanoseconds of a second")?;
    Timestamp::new(at["seconds"].as_i64().context("seconds")?, nanoseconds).context("reading a time")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Mutex<Told> {
        let mut told = Told::default();
        lines.iter().for_each(|line| drop(hear(&mut told, line)));
        Mutex::new(told)
    }

    #[test]
    fn a_life_is_from_the_start_of_a_containers_task_to_its_exit() {
        let told = heard(&[
            r#"2026-11-22 10:00:00.25 +0000 UTC k8s.io /containers/create {"id":"a","image":"i"}"#,
            r#"2026-11-22 10:00:01.5 +0000 UTC k8s.io /tasks/start {"container_id":"a","pid":7}"#,
            r#"2026-11-22 10:00:02.000000001 +0000 UTC k8s.io /tasks/exit {"container_id":"a","id":"probe","pid":9,"exited_at":{"seconds":1795341602}}"#,
            r#"2026-11-22 10:00:09 +0000 UTC k8s.io /tasks/exit {"container_id":"a","id":"a","pid":7,"exited_at":{"seconds":1795341604,"nanos":750000001}}"#,
            r#"2026-11-22 10:00:09 +0000 UTC moby /tasks/start {"container_id":"b","pid":8}"#,
            "no event at all",
        ]);
        let found = life(&told, "a").expect("it has ended");
        assert_eq!(
            (found.started.to_string(), found.ended.to_string()),
            ("2026-11-22T10:00:01.5Z".into(), "2026-11-22T10:00:04.750000001Z".into())
        );
        assert_eq!(found.nanoseconds().expect("in order"), 3_250_000_001);
        assert_eq!(life(&told, "b"), None);
    }

    #[test]
    fn who_has_not_ended_has_no_life_yet() {
        let told = heard(&[r#"2026-11-22 10:00:01.5 +0000 UTC k8s.io /tasks/start {"container_id":"a","pid":7}"#]);
        assert_eq!(life(&told, "a"), None);
        assert!(told.lock().expect("nobody panics with it").started.contains_key("a"));
    }

    #[test]
    fn an_end_before_the_start_is_no_life() {
        let at = |second: i64| Timestamp::new(second, 0).expect("a time");
        assert!(Life { started: at(2), ended: at(1) }.nanoseconds().is_err());
    }

    #[test]
    fn a_time_in_an_event_is_read_in_either_form() {
        let by_number = exited(&serde_json::json!({ "seconds": 1_795_341_604, "nanos": 5 })).expect("a time");
        assert_eq!(exited(&serde_json::json!("2026-11-22T10:00:04.000000005Z")).expect("a time"), by_number);
        assert!(exited(&Value::Null).is_err());
    }
}
