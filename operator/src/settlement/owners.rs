//! Whose payees are, and which of them a chain's contract does not know: read from the chain, and forgotten with every restart.

use super::SettlementError;
use super::evm::{EvmNode, EvmPen};
use super::rail::Seen;
use super::setup::said;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, RwLock};
use supercargo_contracts::{Address, BlockId};

/// So many payees' owners are asked for in one go.
const MOST_OWNERS: usize = 32;

/// What the contract says of a payee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Owner(Address),
    /// Nobody has registered it. Who was asked for later has a higher number.
    Unknown(u64),
}

/// Who owns which payee of which chain, as far as it is known, and which the chain does not know.
#[derive(Debug, Clone, Default)]
pub struct Owners(Arc<RwLock<HashMap<(String, u32), Whose>>>);

impl Owners {
    pub fn of(&self, chain: &str, payee: u32) -> Option<Address> {
        match self.said(chain, payee)? {
            Whose::Owner(owner) => Some(owner),
            Whose::Unknown(_) => None,
        }
    }

    /// Payees of which the contract says that it does not know them. Of whom nothing was ever said is not one of them.
    pub fn unknown(&self, chain: &str) -> BTreeSet<u32> {
        let Ok(known) = self.0.read() else { return BTreeSet::new() };
        let unknown = known.iter().filter(|((name, _), whose)| name == chain && matches!(whose, Whose::Unknown(_)));
        unknown.map(|((_, payee), _)| *payee).collect()
    }

    pub fn learn(&self, chain: &str, payee: u32, owner: Address) {
        self.note(chain, payee, Some(owner));
    }

    fn said(&self, chain: &str, payee: u32) -> Option<Whose> {
        self.0.read().ok()?.get(&(chain.to_owned(), payee)).copied()
    }

    /// Whether the payee got to be known by that, or unknown.
    fn note(&self, chain: &str, payee: u32, owner: Option<Address>) -> bool {
        let Ok(mut known) = self.0.write() else { return false };
        let turns = known.values().map(|whose| if let Whose::Unknown(turn) = whose { *turn } else { 0 });
        let whose = owner.map_or(Whose::Unknown(turns.max().unwrap_or_default() + 1), Whose::Owner);
        let before = known.insert((chain.to_owned(), payee), whose);
        matches!(before, Some(Whose::Unknown(_))) != owner.is_none()
    }

    /// Whose turn it is of these: those of whom nothing is known, and then those that were unknown the longest time ago.
    fn in_turn(&self, chain: &str, payees: &BTreeSet<u32>) -> Vec<u32> {
        let turn = |payee: u32| match self.said(chain, payee) {
            Some(Whose::Owner(_)) => None,
            Some(Whose::Unknown(turn)) => Some((turn, payee)),
            None => Some((0, payee)),
        };
        let mut turns: Vec<(u64, u32)> = payees.iter().filter_map(|payee| turn(*payee)).collect();
        turns.sort_unstable();
        turns.into_iter().take(MOST_OWNERS).map(|(_, payee)| payee).collect()
    }

    /// Those of whom nothing was ever said.
    pub fn strangers(&self, chain: &str, payees: BTreeSet<u32>) -> BTreeSet<u32> {
        payees.into_iter().filter(|payee| self.said(chain, *payee).is_none()).collect()
    }

    /// The chain undid what was final: its payees may be others.
    pub fn forget(&self, chain: &str) {
        if let Ok(mut known) = self.0.write() {
            known.retain(|(name, _), _| name != chain);
        }
    }
}

/// What came of asking for payees: those of whom it has changed whether the contract knows them, and what kept others from being
/// asked for.
#[derive(Debug, Default)]
pub struct Learnt {
    pub changed: BTreeSet<u32>,
    pub failed: Option<SettlementError>,
}

/// Reads who owns payees that are not known yet. Of whom it can't be said now nothing changes: only that the contract says no makes
/// a payee unknown.
pub async fn learn(seen: &Seen<'_, EvmNode, EvmPen>, owners: &Owners, chain: &str, payees: &BTreeSet<u32>) -> Learnt {
    let (at, contract) = (BlockId::number(seen.agreed.block.number), seen.pen.contract);
    let mut learnt = Learnt::default();
    for payee in owners.in_turn(chain, payees) {
        let chains = seen.agreeing().map(|node| node.chain.clone());
        let asked = chains.map(|chain| async move { said(chain.payee_owner(contract, payee, at).await) });
        match seen.majority("a payee", asked).await {
            Ok(Ok(owner)) => {
                if owners.note(chain, payee, owner) {
                    learnt.changed.insert(payee);
                    tell(chain, payee, owner);
                }
            }
            Ok(Err(words)) => {
                let words = format!("what is asked of payee {payee} on chain {chain} is refused: {words}");
                learnt.failed.get_or_insert(SettlementError::Waiting(words));
            }
            Err(error) => {
                // Where nobody answers, nobody does for the next one.
                let is_away = matches!(error, SettlementError::Chain(_));
                learnt.failed.get_or_insert(error);
                if is_away {
                    break;
                }
            }
        }
    }
    learnt
}

fn tell(chain: &str, payee: u32, owner: Option<Address>) {
    match owner {
        Some(owner) => tracing::info!(chain, payee, %owner, "the contract knows the payee now: what it is owed is posted"),
        None => tracing::warn!(chain, payee, "the contract knows no such payee: what it is owed is kept until somebody registers it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_owns_a_payee_is_known_by_chain() {
        let owners = Owners::default();
        owners.learn("a", 7, Address::repeat_byte(1));
        owners.learn("b", 7, Address::repeat_byte(2));
        owners.forget("a");
        assert_eq!((owners.of("a", 7), owners.of("b", 7), owners.of("b", 8)), (None, Some(Address::repeat_byte(2)), None));
    }

    #[test]
    fn only_a_payee_that_the_contract_denied_is_unknown_and_each_is_asked_for_in_its_turn() {
        let owners = Owners::default();
        let payees: BTreeSet<u32> = (1..=40).collect();
        assert_eq!(owners.in_turn("c", &payees), (1..=32).collect::<Vec<_>>());
        assert!(owners.unknown("c").is_empty(), "nothing was said of any");
        for payee in 1..=32 {
            assert!(owners.note("c", payee, None), "payee {payee} is news");
        }
        assert_eq!(owners.unknown("c"), (1..=32).collect());
        assert!(owners.unknown("another").is_empty());
        assert_eq!(owners.strangers("c", payees.clone()), (33..=40).collect());
        let next: Vec<u32> = (33..=40).chain(1..=24).collect();
        assert_eq!(owners.in_turn("c", &payees), next, "those that were never asked for come first");
        assert!(!owners.note("c", 1, None), "that is known");
        assert!(owners.note("c", 2, Some(Address::repeat_byte(2))), "it is registered");
        assert!(!owners.note("c", 33, Some(Address::repeat_byte(3))), "of whom nothing was said was paid before, too");
        assert!(!owners.unknown("c").contains(&2) && !owners.in_turn("c", &payees).contains(&2));
        assert_eq!(owners.in_turn("c", &[1, 3].into()), [3, 1]);
    }
}
