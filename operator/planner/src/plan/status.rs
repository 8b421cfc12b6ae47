//! Statuses: conditions as Kubernetes keeps them, and the words of a task's phase.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use supercargo_crds::task_status::ComputeTaskStatus;

/// Sets a condition; the time of its last transition moves only when its status does.
pub fn set(conditions: &mut Vec<Condition>, kind: &str, status: bool, reason: &str, message: impl Into<String>, generation: i64, now: i64) {
    let status = if status { "True" } else { "False" };
    let message = clipped(message.into());
    let since =
        conditions.iter().find(|known| known.type_ == kind && known.status == status).map(|known| known.last_transition_time.clone());
    let condition = Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: Some(generation),
        last_transition_time: since.or_else(|| time(now)).unwrap_or(Time(Timestamp::UNIX_EPOCH)),
    };
    match conditions.iter_mut().find(|known| known.type_ == kind) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

/// As long as the API server takes it, in a condition or an Event.
pub fn clipped(mut message: String) -> String {
    if message.len() > 1024 {
        let cut = (0..=1020).rev().find(|&at| message.is_char_boundary(at)).unwrap_or_default();
        message.truncate(cut);
        message.push('…');
    }
    message
}

pub fn time(second: i64) -> Option<Time> {
    Timestamp::from_second(second).ok().map(Time)
}

pub fn clear(conditions: &mut Vec<Condition>, kind: &str) {
    conditions.retain(|known| known.type_ != kind);
}

pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|known| known.type_ == kind && known.status == "True")
}

/// When a condition became what it is.
pub fn since(conditions: &[Condition], kind: &str) -> Option<i64> {
    conditions.iter().find(|known| known.type_ == kind).map(|known| known.last_transition_time.0.as_second())
}

/// The words of people for what the conditions say.
pub fn phase(status: &mut ComputeTaskStatus, phase: &str, reason: &str) {
    status.phase = Some(phase.to_owned());
    status.reason = Some(reason.to_owned());
}
