//! Receipts: what a work cost and why, in one document that whoever has it can check by himself. Its body is what was final
//! when the charges were written, and has the digest; beside it stand the journal's entries of the charges, and, as they
//! come, the proofs that lead to the roots on a chain.

mod verify;

pub use verify::{Checked, Expected, ReceiptError, Signatures, verify};

use crate::canonical;
use crate::fees::Payee;
use crate::journal::{Hash, Step};
use crate::metering::{Cut, Evidence, Second};
use crate::money::{Amount, Price};
use crate::rate_card::{Basis, RateCard};
use crate::rating::{self, ExactCost, Held, Quantity, TooMuch};
use crate::usage::{Anomaly, Used};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What a receipt's body calls itself.
pub const FORMAT: &str = "supercargo.receipt.v1";

/// Who says which devices a container had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceSource {
    /// The node's kubelet, in the pod's status.
    Kubelet,
    /// The GPUs' exporter, which names the pod of each device.
    Exporter,
    /// Nobody names them: so many of the node's devices of this kind.
    Count,
}

/// The devices of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Devices {
    pub resource_name: String,
    /// The model that it was priced as.
    pub model: String,
    pub count: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    pub source: DeviceSource,
}

/// How the container ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The SHA-256 of what it left as its last words: who writes the digest of a result there has it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    /// By its provider's fault, or its node was drained.
    #[serde(default, skip_serializing_if = "is_not")]
    pub by_provider: bool,
}

/// All that the price of a segment follows from, and where and when it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metered {
    /// The task, as namespace/name.
    pub task: String,
    pub worker: u32,
    pub provider: String,
    pub node: String,
    /// Unix seconds, by the clock of the evidence: what it ran, of which the billed seconds are the last.
    pub from: Second,
    pub until: Second,
    /// Of a clamped one: what its record was cut by. Receipts of older versions don't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
    /// The hash of the rate card.
    pub card: String,
    pub devices: Devices,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    /// What the node's other devices cost an hour, for who had the node alone.
    #[serde(default, skip_serializing_if = "is_free")]
    pub beside_per_hour: Price,
    /// Of the billed seconds those that it did not run: its card's minimum.
    #[serde(default, skip_serializing_if = "is_none")]
    pub added_seconds: u64,
    /// What was used, where somebody can tell. It is the price of CPU and memory when the card says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Used>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub anomalies: Vec<Anomaly>,
    #[serde(default)]
    pub ended: Ended,
}

fn is_free(price: &Price) -> bool {
    *price == Price::ZERO
}

fn is_none(seconds: &u64) -> bool {
    *seconds == 0
}

fn is_not(told: &bool) -> bool {
    !told
}

/// The hash of what somebody said.
pub fn words_digest(words: &str) -> String {
    hex::encode(Sha256::digest(words))
}

impl Metered {
    /// What so many seconds of it cost with these prices.
    pub fn cost(&self, basis: Basis, held: &Held, seconds: u64) -> Result<ExactCost, TooMuch> {
        match basis {
            Basis::Allocated => rating::cost(held, seconds),
            // What can't be shown is not charged, and in seconds that it did not run nothing was used.
            Basis::Used => {
                let used = rating::cost_of_used(held, seconds.saturating_sub(self.added_seconds), &self.quantity())?;
                used.checked_add(rating::cost_of_used(held, self.added_seconds.min(seconds), &Quantity::default())?)
            }
        }
    }

    fn quantity(&self) -> Quantity {
        self.used.as_ref().map_or(Quantity::default(), |used| Quantity {
            cpu_milli_seconds: used.cpu_milli_seconds,
            memory_mib_seconds: used.memory_mib_seconds,
        })
    }

    /// Its one text, as the books keep it.
    pub fn text(&self) -> String {
        canonical::of(self)
    }
}

/// So many bytes of a digest stand in the journal, which has millions of them: enough that nobody finds a second text.
const TAG_BYTES: usize = 20;

/// What the journal's entry of a charge says of what was metered.
pub fn tag(metered: &Hash) -> String {
    base64(&metered[..TAG_BYTES])
}

/// Base64 of the kind that stands in addresses, without padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letters = bytes.chunks(3).flat_map(|three| {
        let group = three.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        (0..=three.len()).map(move |place| char::from(LETTERS[(group >> (18 - 6 * place) & 63) as usize]))
    });
    letters.collect()
}

/// One charge: a segment, its price and what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Charged {
    pub segment: String,
    pub attempt: u32,
    /// Billed ones, with those that were added.
    pub seconds: u64,
    pub evidence: Evidence,
    pub amount: Amount,
    /// Which entry of the journal it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<u64>,
    /// Books of an older version kept no more than the above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metered: Option<Metered>,
}

impl Charged {
    /// What stands under a root of usage lines for it, besides the salt.
    pub fn line(&self, work: &str) -> String {
        let metered = self.metered.as_ref().map(|metered| Sha256::digest(metered.text()).into());
        usage_line(&self.segment, work, self.attempt, self.seconds, self.evidence, self.amount, metered.as_ref())
    }
}

/// A usage line: a charge as a leaf of the tree whose root is posted.
pub fn usage_line(
    segment: &str,
    work: &str,
    attempt: u32,
    seconds: u64,
    evidence: Evidence,
    amount: Amount,
    metered: Option<&Hash>,
) -> String {
    let mut line = serde_json::json!({
        "segment": segment, "work": work, "attempt": attempt, "seconds": seconds, "evidence": evidence, "amount": amount,
    });
    if let Some(metered) = metered {
        line["metered"] = hex::encode(metered).into();
    }
    line.to_string()
}

/// What does not change any more once a work is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Body {
    pub format: String,
    /// Its kind and UID.
    pub work: String,
    /// Who pays: an account on a chain, or a grant.
    pub funding: String,
    pub token: String,
    /// Whether something is still held back for it: more may be charged.
    pub open: bool,
    /// In the order in which they were charged.
    pub charges: Vec<Charged>,
    /// By their hashes.
    pub cards: BTreeMap<String, RateCard>,
    pub charged: Amount,
    /// What it cost beyond what was held back: the operator bears it.
    pub absorbed: Amount,
    /// Of what was charged: the providers' part and the fees, where a chain pays.
    pub provider: Amount,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fees: BTreeMap<Payee, Amount>,
}

impl Body {
    pub fn digest(&self) -> Hash {
        Sha256::digest(canonical::of(self)).into()
    }

    /// How busy its devices were on average, in percent, as far as somebody told.
    pub fn gpu_percent(&self) -> Option<u32> {
        let told = self.charges.iter().filter_map(|charge| charge.metered.as_ref()?.used.as_ref());
        let told: Vec<(u64, u64)> = told.filter_map(|used| Some((u64::from(used.gpu_percent?), used.gpu_seconds_shown))).collect();
        let (busy, all) = told.iter().fold((0, 0), |(busy, all), (percent, seconds)| (busy + percent * seconds, all + seconds));
        busy.checked_div(all).and_then(|average| u32::try_from(average).ok())
    }
}

/// An entry of the journal. Of those that are others' no more is shown than the hash of what they say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    pub sequence: u64,
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The payload's SHA-256, where it is not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_hash: Option<String>,
    pub hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// Entries that follow each other, up to one that is signed where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The hash of the entry before the first.
    pub previous: String,
    pub links: Vec<Link>,
}

/// The journal, as far as it is about a work.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Journal {
    pub name: String,
    pub stretches: Vec<Stretch>,
}

/// A neighbour on the way to a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Neighbour {
    Left(String),
    Right(String),
}

impl From<Step> for Neighbour {
    fn from(step: Step) -> Self {
        match step {
            Step::Left(hash) => Self::Left(hex::encode(hash)),
            Step::Right(hash) => Self::Right(hex::encode(hash)),
        }
    }
}

/// That one charge stands under a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub segment: String,
    /// Known to nobody but who has the receipt.
    pub salt: String,
    pub path: Vec<Neighbour>,
}

/// A post that pays for charges of the work: where its root is, and how they lead to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Anchor {
    pub post: String,
    pub root: String,
    pub journal_head: String,
    /// Once it is final on the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<u64>,
    pub proofs: Vec<Proof>,
}

/// A receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub body: Body,
    /// The SHA-256 of the body's one text: what the task's status says.
    pub digest: String,
    pub journal: Journal,
    pub anchors: Vec<Anchor>,
}

impl Receipt {
    /// Its one text: the same books give the same bytes.
    pub fn text(&self) -> String {
        canonical::of(self)
    }
}

#[cfg(test)]
mod tests;
