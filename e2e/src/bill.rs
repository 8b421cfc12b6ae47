//! What a task has to cost, by another way than the operator's: its containers' own records and the local provider's price.

use anyhow::{Context, Result};
use serde_json::Value;
use supercargo_market::money::Amount;

/// An hour of a journey's task, in millionths: a GPU at 2.10, 0.05 of a processor at 0.02 and 1/32 GiB at 0.004.
const UNITS_AN_HOUR: u64 = 2_100_000 + 1_000 + 125;

/// An amount in a status.
pub fn amount(value: &Value) -> Result<Amount> {
    value.as_str().context("an amount is a text")?.parse().context("reading an amount")
}

/// Whole seconds between the two ends of a container's record.
pub fn seconds(ended: &Value) -> Result<u64> {
    let time =
        |name: &str| -> Result<jiff::Timestamp> { ended[name].as_str().context("a time is a text")?.parse().context("reading a time") };
    u64::try_from(time("finishedAt")?.as_second() - time("startedAt")?.as_second()).context("it ended before it started")
}

/// What a journey's task on one GPU costs for so long, in millionths.
pub fn units(seconds: u64) -> u64 {
    UNITS_AN_HOUR * seconds / 3_600
}
