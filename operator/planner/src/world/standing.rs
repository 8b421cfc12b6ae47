//! What stands beside pods: the NetworkPolicies that we made, and what a watch shows of them now. One that somebody changed
//! or took away is amiss until it is made again.

use super::{Key, World};
use foldhash::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use supercargo_crds::validate::Range;
use supercargo_market::work::WorkId;

/// A NetworkPolicy of ours, without what it says: its generation moves with that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
    /// Whose own it is; none of one that stands for all tasks of its namespace.
    pub owner: Option<WorkId>,
}

/// A namespace's policies.
#[derive(Debug, Default)]
pub struct Standing {
    /// What was cut out of them when all of them were made, and when something was made last.
    closed: Option<Arc<BTreeSet<Range>>>,
    pub fitted_at: i64,
    made: BTreeMap<String, Policy>,
    seen: BTreeMap<String, Policy>,
}

impl Standing {
    /// Whether it is to be made, or made again.
    pub fn is_amiss(&self, name: &str) -> bool {
        !self.made.get(name).is_some_and(|made| self.seen.get(name) == Some(made))
    }

    /// Of two states of one object the later counts: a watch may be behind an answer.
    fn see(&mut self, policy: &Policy) {
        let known = self.seen.get(&policy.name);
        if known.is_none_or(|known| known.uid != policy.uid || known.generation < policy.generation) {
            self.seen.insert(policy.name.clone(), policy.clone());
        }
    }
}

/// Every namespace where something was made, and what is to be looked at there.
#[derive(Debug, Default)]
pub struct Grounds {
    /// What no task may reach, and whether that is so as the nodes are now.
    pub closed: Option<Arc<BTreeSet<Range>>>,
    pub surveyed: bool,
    /// Where something may be amiss.
    pub todo: BTreeSet<String>,
    /// Where the API server refuses what pods need, and why.
    pub refused: HashMap<String, String>,
    namespaces: HashMap<String, Standing>,
}

impl Grounds {
    pub fn of(&self, namespace: &str) -> Option<&Standing> {
        self.namespaces.get(namespace)
    }

    /// Whether all of it was made with what is closed now.
    pub fn is_up_to_date(&self, namespace: &str) -> bool {
        self.closed.is_some() && self.of(namespace).is_some_and(|standing| standing.closed == self.closed)
    }

    pub fn forget(&mut self, namespace: &str) {
        self.namespaces.remove(namespace);
        self.refused.remove(namespace);
        self.todo.remove(namespace);
    }

    /// A watch shows it.
    pub fn see(&mut self, policy: Policy) {
        let standing = self.namespaces.entry(policy.namespace.clone()).or_default();
        standing.see(&policy);
        if standing.made.contains_key(&policy.name) && standing.is_amiss(&policy.name) {
            self.todo.insert(policy.namespace);
        }
    }

    /// The API server made it so, just now.
    pub fn made(&mut self, policy: Policy) {
        let standing = self.namespaces.entry(policy.namespace.clone()).or_default();
        standing.see(&policy);
        if standing.seen.get(&policy.name) != Some(&policy) {
            self.todo.insert(policy.namespace.clone());
        }
        standing.made.insert(policy.name.clone(), policy);
    }

    pub fn fitted(&mut self, namespace: &str, closed: Arc<BTreeSet<Range>>, at: i64) {
        self.refused.remove(namespace);
        let standing = self.namespaces.entry(namespace.to_owned()).or_default();
        (standing.closed, standing.fitted_at) = (Some(closed), at);
    }
}

impl World {
    /// One that goes with its task is missed by nobody.
    pub(super) fn policy_gone(&mut self, uid: &str, (namespace, name): &Key) {
        let Some(standing) = self.grounds.namespaces.get_mut(namespace) else { return };
        let Some(seen) = standing.seen.get(name).filter(|seen| seen.uid == uid) else { return };
        let needed = seen.owner.as_ref().is_none_or(|owner| self.reservations.contains_key(owner));
        standing.seen.remove(name);
        if standing.made.remove(name).is_some() && needed {
            self.grounds.todo.insert(namespace.clone());
        }
    }
}
