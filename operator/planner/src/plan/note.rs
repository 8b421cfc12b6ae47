//! What is told besides a status, as an Event: the few moments that a person may want to know the time of. None for a task
//! that simply runs.

use super::status;
use crate::world::records::{Escrow, ProviderNode, Task};
use supercargo_crds::escrow::EscrowStatus;
use supercargo_crds::names::escrow_condition::{FROZEN, FUNDED, LEAVING};
use supercargo_crds::names::node_condition::READY;
use supercargo_crds::names::task_condition::{FINISHED, RECONCILING, STALLED, STARTED};
use supercargo_crds::node::ProviderNodeStatus;
use supercargo_crds::task_status::ComputeTaskStatus;

/// One such moment. Telling it twice is telling it once: its name is made of what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub kind: &'static str,
    /// Empty for what is in no namespace.
    pub namespace: String,
    pub object: String,
    pub uid: String,
    pub name: String,
    pub reason: String,
    pub message: String,
    /// Somebody should look at it.
    pub warning: bool,
}

/// The most of an object's name that an Event's own is made of.
const MOST_OF_NAME: usize = 180;

fn name(object: &str, reason: &str, which: impl std::fmt::Display) -> String {
    let object: String = object.chars().take(MOST_OF_NAME).collect();
    format!("{}.{}-{which}", object.trim_end_matches(['-', '.']), reason.to_ascii_lowercase())
}

fn of_task(task: &Task, reason: &str, which: impl std::fmt::Display, message: &str, warning: bool) -> Note {
    Note {
        kind: "ComputeTask",
        namespace: task.namespace.clone(),
        object: task.name.clone(),
        uid: task.uid.to_string(),
        // Another task may have the name by and by.
        name: name(&task.name, reason, format_args!("{}-{which}", task.uid.chars().take(8).collect::<String>())),
        reason: reason.to_owned(),
        message: status::clipped(message.to_owned()),
        warning,
    }
}

/// A person has to act, a mark of its budget was passed, or another attempt follows.
pub fn on_task(task: &Task, next: &ComputeTaskStatus) -> Option<Note> {
    let of = |status: &ComputeTaskStatus, kind: &str| {
        let found = status.conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True");
        found.map(|condition| (condition.reason.clone(), condition.message.clone()))
    };
    let stalled = of(next, STALLED);
    if let Some((reason, message)) = stalled.filter(|stalled| of(&task.status, STALLED).as_ref() != Some(stalled)) {
        return Some(of_task(task, &reason, task.generation, &message, true));
    }
    let charged = |status: &ComputeTaskStatus| status.cost.as_ref().map(|cost| cost.charged.0).unwrap_or_default();
    let goes_on = next.attempts.last() == task.status.attempts.last() && of(next, FINISHED).is_none();
    // Nothing but a mark raises what is charged while an attempt goes on.
    if goes_on && charged(next) > charged(&task.status) {
        let attempt = next.attempts.last().map_or(0, |last| last.index + 1);
        let (_, message) = of(next, STARTED)?;
        return Some(of_task(task, "BudgetMark", format_args!("{attempt}-{}", charged(next).units()), &message, false));
    }
    let last = next.attempts.last().filter(|last| !task.status.attempts.iter().any(|known| known.index == last.index))?;
    let (_, message) = of(next, RECONCILING).filter(|(reason, _)| reason == "Retrying")?;
    Some(of_task(task, "Retrying", last.index, &format!("attempt {} ended as {}: {message}", last.index, last.outcome), false))
}

/// What is told of an escrow's money.
pub fn on_escrow(escrow: &Escrow, next: &EscrowStatus) -> Option<Note> {
    undone(escrow, next).or_else(|| leaves(escrow, next)).or_else(|| is_low(escrow, next))
}

/// What its books had as posted is owed again.
fn undone(escrow: &Escrow, next: &EscrowStatus) -> Option<Note> {
    let (before, now) = (escrow.status.posted?.0, next.posted?.0);
    if now >= before {
        return None;
    }
    let block = escrow.status.last_post.as_ref().map_or(0, |post| post.block);
    let (of, token) = (escrow.uid.chars().take(8).collect::<String>(), &escrow.spec.token);
    let message = format!(
        "{} {token} that was posted by block {block} is owed again, and is posted anew: the chain has undone what was final, or the \
         operator's books are an older copy",
        before.saturating_sub(now)
    );
    Some(Note {
        kind: "Escrow",
        namespace: escrow.namespace.clone(),
        object: escrow.name.clone(),
        uid: escrow.uid.clone(),
        name: name(&escrow.name, "PostUndone", format_args!("{of}-{block}-{}-{}", before.units(), now.units())),
        reason: "PostUndone".to_owned(),
        message,
        warning: true,
    })
}

/// Money goes of an escrow's account, or it was frozen.
fn leaves(escrow: &Escrow, next: &EscrowStatus) -> Option<Note> {
    let of = |status: &EscrowStatus, kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind).cloned();
    // Whoever has the later end of two has told both: a message has the times in it.
    let news = |kind| of(next, kind).filter(|told| of(&escrow.status, kind).is_none_or(|known| known.message != told.message));
    let told = [FROZEN, LEAVING].into_iter().find_map(news)?;
    let short = escrow.uid.chars().take(8).collect::<String>();
    Some(Note {
        kind: "Escrow",
        namespace: escrow.namespace.clone(),
        object: escrow.name.clone(),
        uid: escrow.uid.clone(),
        name: name(&escrow.name, &told.reason, format_args!("{short}-{}", told.last_transition_time.0.as_second())),
        reason: told.reason,
        message: told.message,
        warning: true,
    })
}

/// A node was set apart.
pub fn on_node(provided: &ProviderNode, next: &ProviderNodeStatus) -> Option<Note> {
    let until = next.quarantine.as_ref().map(|quarantine| quarantine.until.0.as_second())?;
    if provided.status.quarantine.as_ref().is_some_and(|known| known.until.0.as_second() == until) {
        return None;
    }
    let told = next.conditions.iter().find(|condition| condition.type_ == READY && condition.reason == "Quarantined")?;
    Some(Note {
        kind: "ProviderNode",
        namespace: String::new(),
        object: provided.name.clone(),
        uid: provided.uid.clone(),
        name: name(&provided.name, "Quarantined", until),
        reason: "Quarantined".to_owned(),
        message: told.message.clone(),
        warning: true,
    })
}

/// Less is available than its owner wants to be told of: once for what was put in so far.
fn is_low(escrow: &Escrow, next: &EscrowStatus) -> Option<Note> {
    let low = escrow.spec.low_balance.as_ref()?;
    let low_in = |status: &EscrowStatus| {
        let reason = status.conditions.iter().find(|condition| condition.type_ == FUNDED).map(|condition| condition.reason.as_str());
        status.available.is_some() && reason.is_some_and(|reason| reason != "Funded")
    };
    if !low_in(next) || low_in(&escrow.status) {
        return None;
    }
    let (available, deposited) = (next.available.as_ref()?.0, next.deposited.as_ref()?.0);
    let (of, token) = (escrow.uid.chars().take(8).collect::<String>(), &escrow.spec.token);
    Some(Note {
        kind: "Escrow",
        namespace: escrow.namespace.clone(),
        object: escrow.name.clone(),
        uid: escrow.uid.clone(),
        name: name(&escrow.name, "LowBalance", format_args!("{of}-{}-{}", low.0.units(), deposited.units())),
        reason: "LowBalance".to_owned(),
        message: format!("{available} {token} is available, and spec.lowBalance is {}", low.0),
        warning: true,
    })
}
