//! Names of what is paid and of what pays. They are made of facts that never change, so the same thing has the same
//! name after a restart, on another replica and in a restored book.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Kinds of work that the books know. Sessions, agents and services will join tasks here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WorkKind {
    Task,
}

/// One piece of work: what a reservation, an attempt, a charge and a receipt are about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkId {
    pub kind: WorkKind,
    /// Shared: a work is named in many places.
    #[serde(with = "shared")]
    pub uid: Arc<str>,
}

impl WorkId {
    pub fn task(uid: impl Into<Arc<str>>) -> Self {
        Self { kind: WorkKind::Task, uid: uid.into() }
    }
}

impl fmt::Display for WorkId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            WorkKind::Task => "task",
        };
        write!(formatter, "{kind}:{}", self.uid)
    }
}

/// What pays: an account on a chain, or a grant. Two Escrow objects that name one account share one funding, and an
/// Escrow that is deleted and made again finds its funding as it was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FundingId(#[serde(with = "shared")] Arc<str>);

impl FundingId {
    pub fn chain(chain: &str, account: &str) -> Self {
        Self(format!("chain:{chain}:{}", account.to_ascii_lowercase()).into())
    }

    pub fn internal(escrow_uid: &str) -> Self {
        Self(format!("internal:{escrow_uid}").into())
    }

    /// Reads what `as_str` gave.
    pub fn from_stored(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The chain's name and the account, when this is an account.
    pub fn account(&self) -> Option<(&str, &str)> {
        self.0.strip_prefix("chain:")?.split_once(':')
    }
}

impl fmt::Display for FundingId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A text that is shared is written and read like any other.
mod shared {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::sync::Arc;

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Into::into)
    }
}

/// One stretch of use of one thing: charged once, whatever is retried, replayed or run twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentId {
    /// Who says so: `pod`.
    pub source: String,
    /// Whose use it is: the pod's UID.
    pub subject: String,
    /// Which life of it: the container's restart count.
    pub incarnation: u32,
    pub index: u32,
}

impl SegmentId {
    pub fn of_pod(pod_uid: impl Into<String>, index: u32) -> Self {
        Self { source: "pod".to_owned(), subject: pod_uid.into(), incarnation: 0, index }
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}/{}", self.source, self.subject, self.incarnation, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_the_same_funding_however_its_hex_is_written() {
        assert_eq!(FundingId::chain("main", "0xABcd"), FundingId::chain("main", "0xabCD"));
        assert_eq!(FundingId::chain("main", "0xAB").account(), Some(("main", "0xab")));
        assert_eq!(FundingId::internal("u").account(), None);
    }
}
