//! Checking a receipt with nothing but itself: that its body is what its digest says, that each charge follows from its
//! card, that they add up, that the journal says the same and that the proofs lead to their roots.

use super::{Anchor, Body, Charged, FORMAT, Metered, Neighbour, Receipt, Stretch, tag};
use crate::canonical;
use crate::journal::{Envelope, Hash, Step, leaf, root_by};
use crate::metering::Evidence;
use crate::minimum::Over;
use crate::money::Amount;
use crate::rate_card::CardError;
use crate::rating::{ExactCost, Held, TooMuch};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// What else must be true of a receipt than that it fits together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// This is its digest: what the task's status says.
    pub digest: Option<Hash>,
    /// Every charge stands under one of its roots, and this is one of them.
    pub root: Option<Hash>,
    /// Nobody but this key signed what is shown of the journal, and every charge is covered.
    pub signer: Option<Hash>,
}

/// Whether a signature over a hash is a key's: which curve that takes is not known here.
pub type Signatures<'a> = &'a dyn Fn(&Hash, &Hash, &[u8]) -> bool;

/// What a receipt that holds says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub digest: Hash,
    pub charged: Amount,
    pub charges: usize,
    /// How many of them stand under a root; in the journal; and in a part of it that somebody signed.
    pub anchored: usize,
    pub entered: usize,
    pub signed: usize,
    pub signers: BTreeSet<Hash>,
    /// Charges that nobody can calculate again: books of an older version kept too little of them.
    pub unrated: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    #[error("this is no receipt: {0}")]
    Form(String),
    #[error("the receipt was changed: its body's digest is {found}, and it says {said}")]
    Digest { said: String, found: String },
    #[error("this is another receipt than is asked for: its digest is {0}")]
    Another(String),
    #[error("card {0} was changed: its hash is another")]
    Card(String),
    #[error("{segment}: {why}")]
    Price { segment: String, why: CardError },
    #[error("{segment}: {why}")]
    TooMuch { segment: String, why: TooMuch },
    #[error("{segment} costs {due} by its card, and {amount} was charged")]
    Overcharged { segment: String, due: Amount, amount: Amount },
    #[error("{segment} is short of its card's minimum by {due} s, and {added} s were added")]
    Added { segment: String, due: u64, added: u64 },
    #[error("{segment} is billed for {billed} s, and by its own evidence it ran {ran} s")]
    Longer { segment: String, billed: u64, ran: u64 },
    #[error("{what} is {said} on the receipt, and its parts come to {found}")]
    Sum { what: &'static str, said: Amount, found: Amount },
    #[error("entry {0} of the journal is not what its hash says")]
    Entry(u64),
    #[error("entry {0} of the journal does not say what the receipt says of its charge")]
    EntrySays(u64),
    #[error("entry {0} of the journal has a false signature")]
    Signature(u64),
    #[error("the proof of {segment} leads to another root than {root}")]
    Proof { segment: String, root: String },
    #[error("{0}")]
    Missing(String),
}

type Result<T> = std::result::Result<T, ReceiptError>;

fn hash(text: &str) -> Result<Hash> {
    let bytes = hex::decode(text.trim_start_matches("0x")).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| ReceiptError::Form(format!("{text:?} is no hash of 64 hexadecimal digits")))
}

/// Checks a receipt as it was given.
pub fn verify(text: &str, expected: &Expected, signatures: Signatures<'_>) -> Result<Checked> {
    let value: Value = serde_json::from_str(text).map_err(|error| ReceiptError::Form(error.to_string()))?;
    // Of the bytes that were given: a part that this version does not know counts too.
    let digest = canonical::digest(&value["body"]);
    let receipt: Receipt = serde_json::from_value(value).map_err(|error| ReceiptError::Form(error.to_string()))?;
    let body = &receipt.body;
    if body.format != FORMAT {
        return Err(ReceiptError::Form(format!("its format is {:?}, and this version knows {FORMAT}", body.format)));
    }
    if hash(&receipt.digest)? != digest {
        return Err(ReceiptError::Digest { said: receipt.digest, found: hex::encode(digest) });
    }
    if expected.digest.is_some_and(|expected| expected != digest) {
        return Err(ReceiptError::Another(hex::encode(digest)));
    }
    let mut checked = Checked {
        digest,
        charged: body.charged,
        charges: body.charges.len(),
        anchored: 0,
        entered: 0,
        signed: 0,
        signers: BTreeSet::new(),
        unrated: body.charges.iter().filter(|charge| charge.metered.is_none()).count(),
    };
    rate(body)?;
    let mut seen = Seen::default();
    for stretch in &receipt.journal.stretches {
        follow(body, &receipt.journal.name, stretch, signatures, &mut seen)?;
    }
    (checked.entered, checked.signed, checked.signers) = (seen.entered.len(), seen.signed.len(), seen.signers);
    checked.anchored = anchored(body, &receipt.anchors)?;
    expect(expected, &receipt, &checked)?;
    Ok(checked)
}

fn expect(expected: &Expected, receipt: &Receipt, checked: &Checked) -> Result<()> {
    if let Some(root) = expected.root {
        let named = receipt.anchors.iter().any(|anchor| hash(&anchor.root) == Ok(root));
        if !named || checked.anchored < checked.charges {
            let words = format!("{} of {} charges stand under a root", checked.anchored, checked.charges);
            let rest = if named { String::new() } else { format!(", and none under {}", hex::encode(root)) };
            return Err(ReceiptError::Missing(words + &rest));
        }
    }
    if let Some(signer) = expected.signer
        && (checked.signed < checked.charges || checked.signers.iter().any(|known| *known != signer))
    {
        let by: Vec<String> = checked.signers.iter().map(hex::encode).collect();
        let by = if by.is_empty() { "nobody".to_owned() } else { by.join(", ") };
        return Err(ReceiptError::Missing(format!("{} of {} charges are signed, by {by}", checked.signed, checked.charges)));
    }
    Ok(())
}

/// Calculates every charge again from its card, and adds them up.
fn rate(body: &Body) -> Result<()> {
    for (named, card) in &body.cards {
        if card.hash().to_string() != *named {
            return Err(ReceiptError::Card(named.clone()));
        }
    }
    let segments: BTreeSet<&str> = body.charges.iter().map(|charge| charge.segment.as_str()).collect();
    if segments.len() < body.charges.len() {
        return Err(ReceiptError::Form("a segment is charged twice".to_owned()));
    }
    add("what was charged", body.charged, body.charges.iter().map(|charge| charge.amount))?;
    if !(body.provider.is_zero() && body.fees.is_empty()) {
        add("what was charged", body.charged, body.fees.values().copied().chain([body.provider]))?;
    }
    minimums(body)?;
    bounds(body)?;
    // Seconds are added up before they are divided, so what a charge is due depends on those before it.
    let (mut exact, mut before, mut absorbed) = (ExactCost::default(), Amount::ZERO, Vec::new());
    for charge in &body.charges {
        let Some(cost) = cost(body, charge)? else { return Ok(()) };
        let too_much = |why| ReceiptError::TooMuch { segment: charge.segment.clone(), why };
        exact = exact.checked_add(cost).map_err(too_much)?;
        let all = exact.charged().map_err(too_much)?;
        let due = all.saturating_sub(before);
        let Some(rest) = due.checked_sub(charge.amount) else {
            return Err(ReceiptError::Overcharged { segment: charge.segment.clone(), due, amount: charge.amount });
        };
        absorbed.push(rest);
        before = all;
    }
    add("what was absorbed", body.absorbed, absorbed.into_iter())
}

/// That no more seconds were added than the cards' minimum asks for, of attempts in their order.
fn minimums(body: &Body) -> Result<()> {
    let mut attempts: BTreeMap<u32, Vec<(&Charged, &Metered)>> = BTreeMap::new();
    for charge in &body.charges {
        attempts.entry(charge.attempt).or_default().extend(charge.metered.as_ref().map(|metered| (charge, metered)));
    }
    let mut before_seconds: u64 = 0;
    for workers in attempts.values() {
        let longest = |of: fn(&(&Charged, &Metered)) -> u64| workers.iter().map(of).max().unwrap_or_default();
        let over = Over {
            before_seconds,
            longest_seconds: longest(|(charge, metered)| charge.seconds.saturating_sub(metered.added_seconds)),
            ran: workers.iter().all(|(charge, _)| charge.evidence != Evidence::None),
            by_provider: workers.iter().any(|(_, metered)| metered.ended.by_provider),
        };
        for (charge, metered) in workers {
            let minimum = body.cards.get(&metered.card).map_or(0, |card| card.minimum_seconds);
            let (due, added) = (over.added_seconds(minimum), metered.added_seconds);
            // Less is what the budget paid for.
            if added > due || added > charge.seconds {
                return Err(ReceiptError::Added { segment: charge.segment.clone(), due, added });
            }
        }
        before_seconds = before_seconds.saturating_add(longest(|(charge, _)| charge.seconds));
    }
    Ok(())
}

/// That nothing is billed for longer than its evidence says that it ran, but for what was added.
fn bounds(body: &Body) -> Result<()> {
    for (charge, metered) in body.charges.iter().filter_map(|charge| Some((charge, charge.metered.as_ref()?))) {
        let ran = u64::try_from(metered.until.saturating_sub(metered.from)).unwrap_or_default();
        let billed = charge.seconds.saturating_sub(metered.added_seconds);
        if billed > ran {
            return Err(ReceiptError::Longer { segment: charge.segment.clone(), billed, ran });
        }
    }
    Ok(())
}

/// That parts come to what is said of them all.
fn add(what: &'static str, said: Amount, mut parts: impl Iterator<Item = Amount>) -> Result<()> {
    let found = parts.try_fold(Amount::ZERO, |sum, part| sum.checked_add(part));
    let found = found.ok_or_else(|| ReceiptError::Form(format!("{what} is more than there can be")))?;
    if found == said { Ok(()) } else { Err(ReceiptError::Sum { what, said, found }) }
}

/// What a segment costs exactly; `None` when too little of it was kept.
fn cost(body: &Body, charge: &Charged) -> Result<Option<ExactCost>> {
    let Some(metered) = &charge.metered else { return Ok(None) };
    let segment = || charge.segment.clone();
    let missing = || ReceiptError::Missing(format!("{} was billed by card {}, which is not on the receipt", segment(), metered.card));
    let card = body.cards.get(&metered.card).ok_or_else(missing)?;
    let devices = &metered.devices;
    let held = Held {
        devices: devices.count,
        device_price: match devices.count {
            0 => Default::default(),
            _ => card.price_of(&devices.resource_name, &devices.model).map_err(|why| ReceiptError::Price { segment: segment(), why })?,
        },
        cpu_millis: metered.cpu_millis,
        cpu_price: card.cpu_per_hour,
        memory_bytes: metered.memory_bytes,
        memory_gib_price: card.memory_gib_per_hour,
        beside_price: metered.beside_per_hour,
    };
    let cost = metered.cost(card.basis, &held, charge.seconds);
    cost.map(Some).map_err(|why| ReceiptError::TooMuch { segment: segment(), why })
}

/// What the journal says of the charges: the entries that are theirs, and those that somebody signed.
#[derive(Default)]
struct Seen {
    entered: BTreeSet<u64>,
    signed: BTreeSet<u64>,
    signers: BTreeSet<Hash>,
}

/// Holds a stretch of the journal together, and what it says of charges to what the receipt says.
fn follow(body: &Body, journal: &str, stretch: &Stretch, signatures: Signatures<'_>, seen: &mut Seen) -> Result<()> {
    let (mut previous, mut next, mut unsigned) = (hash(&stretch.previous)?, None, Vec::new());
    for link in &stretch.links {
        let payload = match (&link.payload, &link.payload_hash) {
            (Some(payload), _) => Sha256::digest(payload).into(),
            (None, Some(hashed)) => hash(hashed)?,
            (None, None) => return Err(ReceiptError::Entry(link.sequence)),
        };
        let signer = link.signer.as_deref().map(hash).transpose()?;
        let envelope = Envelope { journal, sequence: link.sequence, previous, kind: &link.kind, payload: &[], signer };
        previous = envelope.hash_with(&payload);
        if hash(&link.hash)? != previous || next.is_some_and(|next| next != link.sequence) {
            return Err(ReceiptError::Entry(link.sequence));
        }
        next = link.sequence.checked_add(1);
        if let Some(charge) = body.charges.iter().find(|charge| charge.entry == Some(link.sequence)) {
            if !link.payload.as_ref().is_some_and(|payload| says(payload, body, charge)) {
                return Err(ReceiptError::EntrySays(link.sequence));
            }
            seen.entered.insert(link.sequence);
            unsigned.push(link.sequence);
        }
        if let Some(signer) = signer {
            let signature = link.signature.as_deref().and_then(|text| hex::decode(text).ok()).unwrap_or_default();
            if !signatures(&signer, &previous, &signature) {
                return Err(ReceiptError::Signature(link.sequence));
            }
            seen.signers.insert(signer);
            seen.signed.extend(unsigned.drain(..));
        }
    }
    Ok(())
}

/// Whether an entry's payload is of this very charge.
fn says(payload: &str, body: &Body, charge: &Charged) -> bool {
    let Ok(line) = serde_json::from_str::<Value>(payload) else { return false };
    let tagged = charge.metered.as_ref().map(|metered| tag(&Sha256::digest(metered.text()).into()));
    line["posting"] == "charge"
        && line["work"] == body.work.as_str()
        && line["segment"] == charge.segment.as_str()
        && line["attempt"] == charge.attempt
        && line["seconds"] == charge.seconds
        && line["amount"] == charge.amount.units()
        && serde_json::to_value(charge.evidence).is_ok_and(|evidence| line["evidence"] == evidence)
        && line.get("metered").and_then(Value::as_str) == tagged.as_deref()
}

/// Follows every proof to its root. How many charges have one.
fn anchored(body: &Body, anchors: &[Anchor]) -> Result<usize> {
    let mut proved = BTreeSet::new();
    for anchor in anchors {
        let root = hash(&anchor.root)?;
        for proof in &anchor.proofs {
            let wrong = || ReceiptError::Proof { segment: proof.segment.clone(), root: anchor.root.clone() };
            let charge = body.charges.iter().find(|charge| charge.segment == proof.segment).ok_or_else(wrong)?;
            let step = |neighbour: &Neighbour| match neighbour {
                Neighbour::Left(text) => hash(text).map(Step::Left),
                Neighbour::Right(text) => hash(text).map(Step::Right),
            };
            let path: Vec<Step> = proof.path.iter().map(step).collect::<Result<_>>()?;
            if root_by(leaf(&hash(&proof.salt)?, charge.line(&body.work).as_bytes()), &path) != root {
                return Err(wrong());
            }
            proved.insert(&proof.segment);
        }
    }
    Ok(proved.len())
}
