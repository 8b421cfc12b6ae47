//! Who owns which payee, kept in the books: a payee is told of its vouchers for the proof of the key that registered it, and needs
//! them most while the chain, or the operator, is away. A contract never changes who registered a payee. What is asked anew after a
//! restart is whether the key is still our settler's, and which accounts the chain has more of than these books: whoever restarts
//! may do so with an old backup, and signs nothing before it knows.

use super::Desk;
use crate::settlement::SettlementError;
use std::collections::{BTreeMap, BTreeSet};
use supercargo_contracts::Address;

impl Desk {
    /// What these facts are filed under.
    fn contract(&self) -> Option<String> {
        self.config.contract.parse::<Address>().ok().map(|address| address.to_string())
    }

    /// What was known before a restart, before anything is asked of the chain.
    pub(super) async fn recall_owners(&mut self) -> Result<(), SettlementError> {
        let (None, Some(contract)) = (&self.owners_kept, self.contract()) else { return Ok(()) };
        let kept = self.settler.ledger.owners(self.config.chain_id, &contract).await?;
        for (payee, owner) in &kept {
            if let (None, Ok(owner)) = (self.settler.owners.of(&self.config.name, *payee), owner.parse()) {
                self.settler.owners.learn(&self.config.name, *payee, owner);
            }
        }
        self.owners_kept = Some(kept);
        Ok(())
    }

    /// Keeps what was learnt of these payees, if this replica may write.
    pub(super) async fn keep_owners(&mut self, payees: &BTreeSet<u32>) -> Result<(), SettlementError> {
        let (Some(fence), Some(contract), Some(kept)) = (*self.settler.fence.borrow(), self.contract(), &self.owners_kept) else {
            return Ok(());
        };
        let known = payees.iter().filter_map(|payee| Some((*payee, self.settler.owners.of(&self.config.name, *payee)?.to_string())));
        let new: BTreeMap<u32, String> = known.filter(|(payee, owner)| kept.get(payee) != Some(owner)).collect();
        if !new.is_empty() {
            self.settler.ledger.keep_owners(fence, self.config.chain_id, &contract, &new).await?;
            self.owners_kept.get_or_insert_default().extend(new);
        }
        Ok(())
    }

    /// The chain undid what was final: its payees may be others, and are asked for anew.
    pub(super) async fn forget_owners(&mut self) -> Result<(), SettlementError> {
        self.settler.owners.forget(&self.config.name);
        (self.owners_kept, self.last_owners) = (Some(BTreeMap::new()), 0);
        let (Some(fence), Some(contract)) = (*self.settler.fence.borrow(), self.contract()) else { return Ok(()) };
        Ok(self.settler.ledger.forget_owners(fence, self.config.chain_id, &contract).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::config::{ChainConfig, Settlement};
    use crate::runtime::telemetry::Metrics;
    use crate::settlement::{Owners, Settler, course};
    use supercargo_ledger::{Fence, Ledger};
    use supercargo_market::money::Amount;
    use tokio::sync::{mpsc, watch};

    /// A process of its own, of one contract.
    fn desk(ledger: &Ledger, fence: Option<Fence>, contract: u8) -> Desk {
        let settings = Settlement {
            poll_seconds: 5,
            post_seconds: 3_600,
            minimum_amount: Amount::from_units(1),
            post_amount: None,
            post_charges: None,
            post_exposure: None,
            gas_multiple: 0,
        };
        let settler = Settler {
            ledger: ledger.clone(),
            settings,
            fence: watch::channel(fence).1,
            accounts: watch::channel(Vec::new()).1,
            news: mpsc::channel(1).0,
            owners: Owners::default(),
            fee_payees: BTreeSet::new(),
            metrics: Metrics::new().expect("metrics"),
        };
        Desk::new(settler, ChainConfig { contract: Address::repeat_byte(contract).to_string(), ..course::tests::config() })
    }

    async fn recalled(mut desk: Desk) -> Option<Address> {
        desk.recall_owners().await.expect("reads");
        desk.settler.owners.of("c", 7)
    }

    #[tokio::test]
    async fn who_owns_a_payee_is_known_after_a_restart_without_the_chain_until_the_chain_undid_what_was_final() {
        let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
        let fence = Some(ledger.take_lead("one").await.expect("leads"));
        let mut first = desk(&ledger, fence, 1);
        first.recall_owners().await.expect("reads");
        assert_eq!(first.settler.owners.of("c", 7), None);
        let (owner, payees) = (Address::repeat_byte(7), BTreeSet::from([7, 8]));
        first.settler.owners.learn("c", 7, owner);
        for _ in 0..2 {
            first.keep_owners(&payees).await.expect("keeps");
        }
        assert_eq!(recalled(desk(&ledger, fence, 1)).await, Some(owner));
        assert_eq!(recalled(desk(&ledger, fence, 2)).await, None, "another contract's payee 7 is somebody else");
        first.forget_owners().await.expect("forgets");
        assert_eq!(first.settler.owners.of("c", 7), None);
        assert_eq!(recalled(desk(&ledger, fence, 1)).await, None);
        // It is asked again, and kept again.
        first.settler.owners.learn("c", 7, owner);
        first.keep_owners(&payees).await.expect("keeps");
        assert_eq!(recalled(desk(&ledger, None, 1)).await, Some(owner), "a standby knows it, too");
    }

    #[tokio::test]
    async fn who_does_not_lead_keeps_nothing() {
        let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
        let fence = Some(ledger.take_lead("one").await.expect("leads"));
        let mut standby = desk(&ledger, None, 1);
        standby.recall_owners().await.expect("reads");
        standby.settler.owners.learn("c", 7, Address::repeat_byte(7));
        standby.keep_owners(&[7].into()).await.expect("leaves it");
        assert_eq!(recalled(desk(&ledger, fence, 1)).await, None);
    }
}
