//! What a task has to cost, by another way than the operator's: its containers' own records and the local provider's prices.

use crate::journey::{Journey, succeeded};
use crate::sights::Watch;
use crate::wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use supercargo_market::money::Amount;

/// What a task has of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub gpus: u64,
    pub cpu_millis: u64,
    pub memory_mebibytes: u64,
}

/// What a journey's task has.
const JOURNEYS: Share = Share { gpus: 1, cpu_millis: 50, memory_mebibytes: 32 };

/// What a journey's task has that has all GPUs of a node.
pub const WHOLE_NODE: Share = Share { gpus: 4, ..JOURNEYS };

impl Share {
    /// What it costs for so long, in millionths: an hour of a GPU is 2.10, of a processor 0.02 and of a GiB 0.004.
    pub fn units(self, seconds: u64) -> u64 {
        self.an_hour() * seconds / 3_600
    }

    /// The same for so many nanoseconds.
    pub fn units_to_the_nanosecond(self, nanoseconds: u64) -> u64 {
        let units = u128::from(self.an_hour()) * u128::from(nanoseconds) / (3_600 * 1_000_000_000);
        u64::try_from(units).unwrap_or(u64::MAX)
    }

    fn an_hour(self) -> u64 {
        2_100_000 * self.gpus + 20 * self.cpu_millis + 4_000 * self.memory_mebibytes / 1_024
    }
}

/// What a journey's task on one GPU costs for so many nanoseconds, in millionths.
pub fn units_to_the_nanosecond(nanoseconds: u64) -> u64 {
    JOURNEYS.units_to_the_nanosecond(nanoseconds)
}

/// What a journey's task on one GPU costs for so long, in millionths.
pub fn units(seconds: u64) -> u64 {
    JOURNEYS.units(seconds)
}

/// An amount in a status.
pub fn amount(value: &Value) -> Result<Amount> {
    value.as_str().context("an amount is a text")?.parse().context("reading an amount")
}

/// The second of a time in an object.
pub fn second(value: &Value) -> Result<i64> {
    let time: jiff::Timestamp = value.as_str().context("a time is a text")?.parse().context("reading a time")?;
    Ok(time.as_second())
}

/// Whole seconds between the two ends of a container's record.
pub fn seconds(ended: &Value) -> Result<u64> {
    u64::try_from(second(&ended["finishedAt"])? - second(&ended["startedAt"])?).context("it ended before it started")
}

/// What a container's record says, and of which attempt.
#[derive(Debug)]
pub struct Record {
    pub attempt: String,
    pub seconds: u64,
    pub started: i64,
    pub finished: i64,
}

/// The pods' own records by their tasks, those of pods that are gone too: of whatever the watch has seen meanwhile.
pub fn records(pods: &mut Watch) -> Result<BTreeMap<String, Vec<Record>>> {
    let mut last = BTreeMap::new();
    for sight in pods.rest() {
        let ended = sight.object["status"]["containerStatuses"][0]["state"]["terminated"].clone();
        if ended.is_object() {
            last.insert(sight.object["metadata"]["uid"].to_string(), (sight.object, ended));
        }
    }
    let mut records: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for (pod, ended) in last.into_values() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let labels = &pod["metadata"]["labels"];
        let (started, finished) = (second(&ended["startedAt"])?, second(&ended["finishedAt"])?);
        let record = Record { attempt: text(&labels["supercargo.dev/attempt"]), seconds: seconds(&ended)?, started, finished };
        records.entry(text(&labels["supercargo.dev/task"])).or_default().push(record);
    }
    records.values_mut().for_each(|pods| pods.sort_by(|one, two| one.attempt.cmp(&two.attempt)));
    Ok(records)
}

/// The task succeeded in one attempt, and is charged for what the one pod of each worker ran: from the start of the last.
pub fn is_paid_once(task: &Value, records: &BTreeMap<String, Vec<Record>>) -> Result<()> {
    let name = task["metadata"]["name"].as_str().context("a name")?;
    let attempts = task["status"]["attempts"].as_array().context("attempts")?;
    ensure!(succeeded(task) && attempts.len() == 1, "{name}: {}", task["status"]);
    let workers = task["spec"]["gang"]["workers"].as_u64().unwrap_or(1);
    let pods = records.get(name).map_or(&[][..], Vec::as_slice);
    ensure!(pods.len() as u64 == workers, "{name} has the pods {pods:?}");
    let began = pods.iter().map(|pod| pod.started).max().context("a pod")?;
    let longest = pods.iter().map(|pod| (pod.finished - began).max(0).unsigned_abs()).max().context("a pod")?;
    let billed = attempts[0]["billedSeconds"].as_u64().context("seconds")?;
    ensure!(billed.abs_diff(longest) <= 1, "{name} is billed {billed} s, and its container ran {longest} s");
    let charged = amount(&task["status"]["cost"]["charged"])?.units();
    // The workers of a gang end apart from each other.
    let slack = (workers - 1) * units(2) + 1;
    ensure!(charged.abs_diff(units(billed) * workers) <= slack, "{name} is charged {charged} millionths for {billed} s");
    Ok(())
}

/// What was granted is what is free and what was charged: nothing is held back any more, and the charges are what all pods'
/// records are worth, those of a gang from the start of the last.
pub async fn adds_up(journey: &Journey, granted: u64, records: &BTreeMap<String, Vec<Record>>) -> Result<()> {
    let pods: Vec<&Record> = records.values().flatten().collect();
    let of_task = |pods: &Vec<Record>| -> u64 {
        let began = |pod: &Record| pods.iter().filter(|other| other.attempt == pod.attempt).map(|other| other.started).max();
        pods.iter().map(|pod| units((pod.finished - began(pod).unwrap_or(pod.started)).max(0).unsigned_abs())).sum()
    };
    let worth: u64 = records.values().map(of_task).sum();
    wait::until("the Escrow to add up", Duration::from_secs(60), || async {
        let status = journey.get("escrow", "default").await?["status"].take();
        let units_of = |name: &str| Ok::<u64, anyhow::Error>(amount(&status[name]).with_context(|| format!("{name} in {status}"))?.units());
        let (available, reserved, charged) = (units_of("available")?, units_of("reserved")?, units_of("charged")?);
        ensure!(units_of("deposited")? == granted && available + reserved + charged == granted, "{status}");
        ensure!(reserved == 0, "{status}");
        // A second of each may be cut by our clock, and a part of a millionth is nobody's.
        let slack = pods.len() as u64 * (units(1) + 1);
        ensure!(charged.abs_diff(worth) <= slack, "{charged} were charged, and {} records are worth {worth}: {records:?}", pods.len());
        Ok(Some(()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_is_price_times_time_to_the_millionth() {
        // An hour of a journey's task: a GPU at 2.10, 0.05 of a processor at 0.02 and 1/32 GiB at 0.004.
        assert_eq!(units(3_600), 2_100_000 + 1_000 + 125);
        assert_eq!(units(1), 583);
        assert_eq!((units_to_the_nanosecond(1_000_000_000), units_to_the_nanosecond(2_500_000_000)), (583, 1_459));
        let large = Share { gpus: 4, cpu_millis: 2_000, memory_mebibytes: 8_192 };
        assert_eq!(large.units(3_600), 8_400_000 + 40_000 + 32_000);
    }

    #[test]
    fn a_record_is_read_in_whole_seconds() {
        let ended = serde_json::json!({ "startedAt": "2026-01-02T03:04:05Z", "finishedAt": "2026-01-02T03:05:04Z" });
        assert_eq!(seconds(&ended).expect("a record"), 59);
        assert!(seconds(&serde_json::json!({ "startedAt": "2026-01-02T03:04:05Z" })).is_err());
    }
}
