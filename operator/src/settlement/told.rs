//! What accounts are told to be stalled for. The words stay while the reason does, so that a figure in them that moves with
//! every block is not a write to the API server with every block.

use crate::world::records::Stall;
use std::collections::BTreeMap;
use supercargo_crds::names::escrow_stall::KEY_USED_ELSEWHERE;
use supercargo_market::work::FundingId;

/// So often at most the words change under one reason.
pub const SECONDS_BETWEEN_WORDS: i64 = 300;

/// Somebody else signs with our key: that stays so, whatever is done with it, until the settler has another.
pub fn key_used_elsewhere(signer: &str, nonce: u64) -> Stall {
    let words = format!(
        "a transaction that these books don't know has nonce {nonce} of the settler's key {signer}: the key is in other hands, or these \
         books are an old backup. Nothing more is signed with it: rotate the settler to another key"
    );
    Stall { reason: KEY_USED_ELSEWHERE, words }
}

#[derive(Debug, Default)]
pub struct Told(BTreeMap<FundingId, (Stall, i64)>);

impl Told {
    /// What to tell of an account now.
    pub fn tell(&mut self, funding: &FundingId, stall: Option<Stall>, now: i64) -> Option<Stall> {
        let Some(stall) = stall else {
            self.0.remove(funding);
            return None;
        };
        let known = self.0.get(funding).filter(|(known, at)| known.reason == stall.reason && now < at + SECONDS_BETWEEN_WORDS);
        if let Some((known, _)) = known {
            return Some(known.clone());
        }
        self.0.insert(funding.clone(), (stall.clone(), now));
        Some(stall)
    }

    /// How many accounts are stalled for a reason.
    pub fn count(&self, reason: &str) -> usize {
        self.0.values().filter(|(stall, _)| stall.reason == reason).count()
    }

    /// Forgets accounts that nobody names any more.
    pub fn keep(&mut self, named: &[FundingId]) {
        self.0.retain(|funding, _| named.contains(funding));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_for_a_while_as_long_as_the_reason_does() {
        let (mut told, funding) = (Told::default(), FundingId::chain("c", "0x1"));
        let stall = |reason, words: &str| Some(Stall { reason, words: words.to_owned() });
        for (now, given, expected) in [
            (0, stall("NoGas", "5 left"), stall("NoGas", "5 left")),
            (299, stall("NoGas", "4 left"), stall("NoGas", "5 left")),
            (300, stall("NoGas", "3 left"), stall("NoGas", "3 left")),
            (301, stall("OtherLedger", "9"), stall("OtherLedger", "9")),
            (302, None, None),
            (303, stall("OtherLedger", "10"), stall("OtherLedger", "10")),
        ] {
            assert_eq!(told.tell(&funding, given, now), expected, "at {now}");
        }
        assert_eq!((told.count("OtherLedger"), told.count("NoGas")), (1, 0));
        told.keep(&[]);
        assert_eq!(told.count("OtherLedger"), 0);
    }
}
