//! What is kept of vouchers, on both databases.

use super::*;
use crate::{LedgerError, Reader, Voucher, VoucherTerms, restore};

fn terms(signer: &str) -> VoucherTerms {
    VoucherTerms { chain_id: 1, contract: "0xc".into(), signer: signer.into() }
}

fn voucher(payee: u32, total: u64, signer: &str) -> Voucher {
    Voucher { funding: account(), payee, total: units(total), step: Amount::MAX, terms: terms(signer), signature: vec![1, 2], signed_at: 9 }
}

async fn missing(ledger: &Ledger, signer: &str) -> Vec<(u32, u64)> {
    let found = ledger.lanes_without_voucher("default", &terms(signer), None, 10).await.expect("reads");
    found.iter().map(|(_, lane)| (lane.payee, lane.total.units())).collect()
}

async fn kept(ledger: &Ledger, payee: u32) -> Vec<Voucher> {
    ledger.vouchers("default", payee, &FundingId::from_stored(""), 10).await.expect("reads")
}

on_both! {
    async fn of_each_lane_the_greatest_is_kept(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        assert_eq!(missing(&ledger, "0xs").await, [(1, 10), (7, 90)]);
        ledger.keep_vouchers(fence, &[voucher(7, 90, "0xs"), voucher(1, 10, "0xs")]).await.expect("keeps");
        assert_eq!(missing(&ledger, "0xs").await, []);
        assert_eq!(kept(&ledger, 7).await, [voucher(7, 90, "0xs")]);

        ledger.commit(fence, &[charge("a", 1, 50)]).await.expect("commits");
        assert_eq!(missing(&ledger, "0xs").await, [(1, 15), (7, 135)]);
        ledger.keep_vouchers(fence, &[voucher(7, 135, "0xs")]).await.expect("keeps");
        ledger.keep_vouchers(fence, &[voucher(7, 90, "0xs")]).await.expect("keeps what is greater");
        assert_eq!(kept(&ledger, 7).await, [voucher(7, 135, "0xs")]);
        assert_eq!(ledger.vouched(&account()).await.expect("reads"), [(1, units(10)), (7, units(135))].into());
    }

    async fn another_key_signs_all_of_them_again_and_another_contract_begins_anew(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        ledger.keep_vouchers(fence, &[voucher(7, 90, "0xs"), voucher(1, 10, "0xs")]).await.expect("keeps");
        assert_eq!(missing(&ledger, "0xnew").await, [(1, 10), (7, 90)]);
        ledger.keep_vouchers(fence, &[voucher(7, 90, "0xnew")]).await.expect("keeps");
        assert_eq!(kept(&ledger, 7).await[0].terms, terms("0xnew"));
        let elsewhere = VoucherTerms { contract: "0xd".into(), ..terms("0xnew") };
        let less = Voucher { terms: elsewhere.clone(), ..voucher(7, 5, "0xnew") };
        ledger.keep_vouchers(fence, std::slice::from_ref(&less)).await.expect("keeps");
        assert_eq!(kept(&ledger, 7).await, [less]);
    }

    async fn the_vouchers_of_a_lane_lead_in_steps_to_its_total_and_give_way_to_those_that_lead_further(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        let steps = |totals: &[u64], step: u64| -> Vec<Voucher> {
            totals.iter().map(|total| Voucher { step: units(step), ..voucher(7, *total, "0xs") }).collect()
        };
        let totals = async || kept(&ledger, 7).await.into_iter().map(|voucher| voucher.total.units()).collect::<Vec<_>>();
        let wide = async |step| {
            let lanes = ledger.lanes_with_wide_vouchers(&account(), &terms("0xs"), units(step)).await.expect("reads");
            lanes.into_iter().map(|lane| lane.payee).collect::<Vec<_>>()
        };
        let both = [steps(&[40, 80, 90], 40), vec![voucher(1, 10, "0xs")]].concat();
        ledger.keep_vouchers(fence, &both).await.expect("keeps");
        assert_eq!(totals().await, [90, 80, 40]);
        assert_eq!(missing(&ledger, "0xs").await, []);
        assert_eq!(ledger.vouched(&account()).await.expect("reads"), [(1, units(10)), (7, units(90))].into());
        assert_eq!((wide(39).await, wide(40).await, wide(9).await), (vec![7], vec![], vec![1, 7]));
        assert_eq!((wide(90).await, kept(&ledger, 1).await.len()), (vec![], 1), "as much as that is owed to nobody");

        ledger.keep_vouchers(fence, &steps(&[40, 80], 40)).await.expect("keeps what leads further");
        assert_eq!(totals().await, [90, 80, 40]);
        ledger.keep_vouchers(fence, &steps(&[60, 80, 90], 20)).await.expect("keeps");
        assert_eq!((totals().await, wide(20).await), (vec![90, 80, 60], vec![]));
        let below = async |total, most| {
            let found = ledger.vouchers_below("default", 7, (&account(), units(total)), most).await.expect("reads");
            found.into_iter().map(|voucher| voucher.total.units()).collect::<Vec<_>>()
        };
        assert_eq!((below(90, 1).await, below(80, 9).await, below(60, 9).await), (vec![80], vec![60], vec![]));
    }

    async fn a_payee_is_given_its_own_in_pages_and_of_one_chain(place: Place) {
        let (ledger, fence) = place.books().await;
        let mut all = Vec::new();
        for name in ["chain:default:0xaa", "chain:default:0xbb", "chain:default:0xcc", "chain:other:0xaa"] {
            let funding = FundingId::from_stored(name);
            let fund = Posting::Fund { asset: Asset::of(&funding, "USDC"), funding: funding.clone(), deposited: units(5), withdrawn: units(0) };
            ledger.commit(fence, &[fund]).await.expect("commits");
            all.push(Voucher { funding, ..voucher(7, 5, "0xs") });
        }
        ledger.keep_vouchers(fence, &all).await.expect("keeps");
        ledger.keep_vouchers(fence, &[voucher(8, 5, "0xs")]).await.expect("keeps");
        let first = ledger.vouchers("default", 7, &FundingId::from_stored(""), 2).await.expect("reads");
        assert_eq!(first, all[..2]);
        let rest = ledger.vouchers("default", 7, &first[1].funding, 2).await.expect("reads");
        assert_eq!(rest, all[2..3]);
    }

    async fn an_old_leader_keeps_none(place: Place) {
        let (ledger, old) = place.books().await;
        ledger.commit(old, &[fund(1_000)]).await.expect("commits");
        ledger.take_lead("another").await.expect("leads");
        assert!(matches!(ledger.keep_vouchers(old, &[voucher(7, 5, "0xs")]).await, Err(LedgerError::Fenced { .. })));
        assert_eq!(kept(&ledger, 7).await, []);
    }

    async fn they_are_in_a_backup(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000)]).await.expect("commits");
        ledger.keep_vouchers(fence, &[voucher(7, 5, "0xs")]).await.expect("keeps");
        drop(ledger);
        let mut copy = Vec::new();
        Reader::open(&place.url).await.expect("opens").backup(&mut copy).await.expect("copies");
        let other = Place::sqlite();
        restore(&other.url, None, copy.as_slice(), crate::Expect::default()).await.expect("restores");
        assert_eq!(kept(&Ledger::open(&other.url).await.expect("opens"), 7).await, [voucher(7, 5, "0xs")]);
    }
}
