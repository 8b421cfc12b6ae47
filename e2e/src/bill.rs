//! What a task has to cost, by another way than the operator's: its containers' own records and the local provider's prices.

use crate::sights::Watch;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
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
        let an_hour = 2_100_000 * self.gpus + 20 * self.cpu_millis + 4_000 * self.memory_mebibytes / 1_024;
        an_hour * seconds / 3_600
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_is_price_times_time_to_the_millionth() {
        // An hour of a journey's task: a GPU at 2.10, 0.05 of a processor at 0.02 and 1/32 GiB at 0.004.
        assert_eq!(units(3_600), 2_100_000 + 1_000 + 125);
        assert_eq!(units(1), 583);
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
