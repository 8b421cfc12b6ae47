//! Who owns payees, kept in the books.

use super::*;
use std::collections::BTreeMap;

on_both! {
    async fn who_owns_a_payee_is_kept_by_contract_and_found_after_a_restart(place: Place) {
        let (ledger, fence) = place.books().await;
        let owners = |list: &[(u32, &str)]| list.iter().map(|(payee, owner)| (*payee, (*owner).to_owned())).collect::<BTreeMap<_, _>>();
        for _ in 0..2 {
            ledger.keep_owners(fence, 1, "0xc", &owners(&[(7, "0xa"), (12, "0xb")])).await.expect("keeps");
        }
        ledger.keep_owners(fence, 1, "0xd", &owners(&[(7, "0xe")])).await.expect("keeps");
        drop(ledger);
        let ledger = Ledger::open(&place.url).await.expect("opens again");
        assert_eq!(ledger.owners(1, "0xc").await.expect("reads"), owners(&[(7, "0xa"), (12, "0xb")]));
        assert_eq!(ledger.owners(1, "0xd").await.expect("reads"), owners(&[(7, "0xe")]), "another contract's payee 7");
        assert_eq!(ledger.owners(2, "0xc").await.expect("reads"), owners(&[]), "another chain");
        ledger.forget_owners(fence, 1, "0xc").await.expect("forgets");
        assert_eq!(ledger.owners(1, "0xc").await.expect("reads"), owners(&[]));
        assert_eq!(ledger.owners(1, "0xd").await.expect("reads"), owners(&[(7, "0xe")]));
        ledger.take_lead("another").await.expect("leads");
        ledger.keep_owners(fence, 1, "0xc", &owners(&[(7, "0xf")])).await.expect_err("only who leads may say so");
        ledger.forget_owners(fence, 1, "0xd").await.expect_err("only who leads may say so");
        ledger.verify().await.expect("the journal is whole");
    }
}
