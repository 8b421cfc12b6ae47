//! The journal's hashes: every entry names the one before it, so that a changed, missing or reordered entry shows; and
//! usage lines stand under a Merkle root, so that one line can be proved without showing the others.

use sha2::{Digest, Sha256};

pub type Hash = [u8; 32];

/// What is hashed before the first entry.
pub const GENESIS: Hash = [0; 32];
/// An entry that nobody signed, and one that names its signer.
const UNSIGNED: u32 = 1;
const SIGNED: u32 = 2;

/// What stands in the journal around a payload. Postings are one kind of payload. The last entry of each group that is
/// committed names its signer, whose signature over the entry's hash covers everything before it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub journal: &'a str,
    pub sequence: u64,
    pub previous: Hash,
    pub kind: &'a str,
    pub payload: &'a [u8],
    /// The signer's public key.
    pub signer: Option<Hash>,
}

impl Envelope<'_> {
    /// How the entry is hashed.
    pub fn version(&self) -> u32 {
        if self.signer.is_some() { SIGNED } else { UNSIGNED }
    }

    /// The entry's hash: the next entry's `previous`, and as the last one of a post the head that goes on the chain.
    pub fn hash(&self) -> Hash {
        self.hash_with(&Sha256::digest(self.payload).into())
    }

    /// The same from the payload's own hash: who is shown that alone can check the entry, and learns nothing of what it says.
    pub fn hash_with(&self, payload: &Hash) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update(b"supercargo.journal.entry");
        hasher.update(self.version().to_be_bytes());
        for text in [self.journal, self.kind] {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text);
        }
        hasher.update(self.sequence.to_be_bytes());
        hasher.update(self.previous);
        hasher.update(payload);
        if let Some(signer) = self.signer {
            hasher.update(signer);
        }
        hasher.finalize().into()
    }
}

/// A usage line's leaf. The salt keeps a line that can be guessed from being confirmed by its hash.
pub fn leaf(salt: &Hash, line: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(salt);
    hasher.update(line);
    hasher.finalize().into()
}

fn parent(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

/// The root over leaves in their order. A last leaf without a neighbour is carried up as it is; no leaves have the root
/// of zeros.
pub fn root(leaves: &[Hash]) -> Hash {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| if let [left, right] = pair { parent(left, right) } else { pair[0] }).collect();
    }
    level.first().copied().unwrap_or(GENESIS)
}

/// One step of a proof: the neighbour's hash, and on which side it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Left(Hash),
    Right(Hash),
}

/// The neighbours on the way from one leaf to the root. `None` when there is no such leaf.
pub fn prove(leaves: &[Hash], index: usize) -> Option<Vec<Step>> {
    if index >= leaves.len() {
        return None;
    }
    let (mut level, mut at, mut steps) = (leaves.to_vec(), index, Vec::new());
    while level.len() > 1 {
        match (at % 2, level.get(at ^ 1)) {
            (0, Some(right)) => steps.push(Step::Right(*right)),
            (1, Some(left)) => steps.push(Step::Left(*left)),
            _ => {}
        }
        level = level.chunks(2).map(|pair| if let [left, right] = pair { parent(left, right) } else { pair[0] }).collect();
        at /= 2;
    }
    Some(steps)
}

/// The root that a leaf and its proof lead to.
pub fn root_by(leaf: Hash, proof: &[Step]) -> Hash {
    proof.iter().fold(leaf, |hash, step| match step {
        Step::Left(left) => parent(left, &hash),
        Step::Right(right) => parent(&hash, right),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|index| leaf(&GENESIS, &index.to_be_bytes())).collect()
    }

    /// The bytes that the contracts' own tests are held to as well.
    #[test]
    fn roots_and_heads_equal_their_recorded_vectors() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../../contracts/vectors/encodings.json")).unwrap();
        let bytes = |value: &serde_json::Value| hex::decode(&value.as_str().unwrap()[2..]).unwrap();
        let hash = |value: &serde_json::Value| Hash::try_from(bytes(value)).unwrap();

        let lines = &vectors["lines"];
        let leaves: Vec<Hash> = (0..3).map(|n| leaf(&hash(&lines["salts"][n]), &bytes(&lines["lines"][n]))).collect();
        assert_eq!(root(&leaves), hash(&lines["root"]));
        assert_eq!(root(&leaves[..2]), hash(&lines["firstTwo"]));

        let entry = &vectors["journal"];
        let payload = bytes(&entry["payload"]);
        let unsigned = Envelope {
            journal: entry["name"].as_str().unwrap(),
            sequence: entry["sequence"].as_u64().unwrap(),
            previous: hash(&entry["previous"]),
            kind: entry["kind"].as_str().unwrap(),
            payload: &payload,
            signer: None,
        };
        assert_eq!(unsigned.hash(), hash(&entry["unsigned"]));
        assert_eq!(Envelope { signer: Some(hash(&entry["signer"])), ..unsigned }.hash(), hash(&entry["signed"]));
    }

    #[test]
    fn every_part_of_an_entry_is_in_its_hash() {
        let entry = Envelope { journal: "j", sequence: 1, previous: GENESIS, kind: "posting", payload: b"p", signer: None };
        let others = [
            Envelope { journal: "k", ..entry },
            Envelope { sequence: 2, ..entry },
            Envelope { previous: [1; 32], ..entry },
            Envelope { kind: "head", ..entry },
            Envelope { payload: b"q", ..entry },
            Envelope { journal: "jp", kind: "osting", ..entry },
            Envelope { signer: Some([0; 32]), ..entry },
            Envelope { signer: Some([1; 32]), ..entry },
        ];
        for other in others {
            assert_ne!(other.hash(), entry.hash(), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn every_leaf_proves_itself_and_no_other(count in 1_usize..70, at in 0_usize..70) {
            let leaves = leaves(count);
            let at = at % count;
            let proof = prove(&leaves, at).expect("the leaf exists");
            prop_assert_eq!(root_by(leaves[at], &proof), root(&leaves));
            prop_assert_ne!(root_by(leaf(&GENESIS, b"another"), &proof), root(&leaves));
            prop_assert_eq!(prove(&leaves, count), None);
        }
    }
}
