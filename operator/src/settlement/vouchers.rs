//! Vouchers: of each lane the newest total is signed for its payee, and kept in the books before anybody is given it. A row
//! is a total, so whatever is signed, posted and claimed of one lane counts once.

use super::SettlementError;
use super::evm::{EvmPen, account_of};
use std::collections::{BTreeMap, BTreeSet};
use supercargo_contracts::{ChainError, Row, sign_row};
use supercargo_ledger::{Fence, Lane, Ledger, Voucher, VoucherTerms};
use supercargo_market::work::FundingId;

/// So many rows are signed in one go; the rest with the next look.
const MOST_AT_ONCE: u32 = 256;
/// What is not signed for so long is told.
const PATIENCE_SECONDS: i64 = 300;

/// Since when something that each payee has earned is not signed for.
#[derive(Debug, Default)]
pub struct Unsigned(BTreeMap<u32, i64>);

impl Unsigned {
    /// Takes a look in, and says for whom that lasts already, and since when.
    pub fn look(&mut self, payees: &BTreeSet<u32>, now: i64) -> BTreeMap<u32, i64> {
        self.0.retain(|payee, _| payees.contains(payee));
        payees.iter().for_each(|payee| _ = self.0.entry(*payee).or_insert(now));
        self.0.iter().filter(|(_, since)| now >= **since + PATIENCE_SECONDS).map(|(payee, since)| (*payee, *since)).collect()
    }
}

/// Lanes whose vouchers can't be written: they are told once.
pub type Unfit = BTreeSet<(FundingId, u32)>;

pub fn terms(pen: &EvmPen) -> VoucherTerms {
    VoucherTerms { chain_id: pen.chain_id, contract: pen.contract.to_string(), signer: pen.key.address().to_string() }
}

/// Signs what is not signed yet, but of these accounts, whose books may be old. What one leader signs and doesn't get to
/// keep, the next one signs again: the same bytes.
pub async fn sign(
    ledger: &Ledger,
    fence: Fence,
    pen: &EvmPen,
    chain: &str,
    foreign: &BTreeSet<FundingId>,
    unfit: &mut Unfit,
    now: i64,
) -> Result<(), SettlementError> {
    let vouchers = next(ledger, pen, chain, foreign, unfit, (now, MOST_AT_ONCE)).await?;
    if vouchers.is_empty() {
        return Ok(());
    }
    Ok(ledger.keep_vouchers(fence, &vouchers).await?)
}

/// What is to be signed next, at this time and in pages of so many.
async fn next(
    ledger: &Ledger,
    pen: &EvmPen,
    chain: &str,
    foreign: &BTreeSet<FundingId>,
    unfit: &mut Unfit,
    (now, page): (i64, u32),
) -> Result<Vec<Voucher>, SettlementError> {
    let terms = terms(pen);
    let (mut vouchers, mut after) = (Vec::new(), None);
    // Those whose books may be old are passed over, however many there are.
    while vouchers.is_empty() {
        let lanes = ledger.lanes_without_voucher(chain, &terms, after.as_ref(), page).await?;
        let Some((funding, lane)) = lanes.last() else { break };
        after = Some((funding.clone(), lane.payee));
        for (funding, lane) in lanes.into_iter().filter(|(funding, _)| !foreign.contains(funding)) {
            let payee = lane.payee;
            match signed(pen, &terms, funding.clone(), lane, now) {
                Ok(voucher) => vouchers.push(voucher),
                Err(error) if unfit.insert((funding, payee)) => tracing::error!(payee, "a voucher is not signed: {error}"),
                Err(_) => {}
            }
        }
    }
    Ok(vouchers)
}

fn signed(pen: &EvmPen, terms: &VoucherTerms, funding: FundingId, lane: Lane, now: i64) -> Result<Voucher, SettlementError> {
    let row = Row::new(lane.payee, lane.total.units().into());
    let row = row.ok_or_else(|| SettlementError::Stalled("a row's total does not fit the contract".to_owned()))?;
    let signature = sign_row(&pen.key, pen.chain_id, pen.contract, account_of(&funding)?, row).map_err(ChainError::from)?;
    let (payee, total) = (lane.payee, lane.total);
    Ok(Voucher { funding, payee, total, terms: terms.clone(), signature: signature.to_vec(), signed_at: now })
}

/// The payees of a chain for whom something is not signed yet.
pub async fn unsigned(ledger: &Ledger, pen: &EvmPen, chain: &str) -> Result<BTreeSet<u32>, SettlementError> {
    Ok(ledger.payees_without_voucher(chain, &terms(pen)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settlement::simulation::{account, charge, open};
    use supercargo_contracts::{Address, B256, PrivateKeySigner};
    use supercargo_ledger::Posting;
    use supercargo_market::asset::Asset;
    use supercargo_market::money::Amount;
    use supercargo_market::work::WorkId;

    #[test]
    fn what_is_signed_late_is_told_only_when_it_lasts() {
        let mut unsigned = Unsigned::default();
        let both: BTreeSet<u32> = [1, 7].into();
        assert_eq!(unsigned.look(&both, 100), [].into());
        assert_eq!(unsigned.look(&both, 399), [].into());
        assert_eq!(unsigned.look(&[7].into(), 400), [(7, 100)].into());
        assert_eq!(unsigned.look(&[].into(), 500), [].into());
        assert_eq!(unsigned.look(&both, 600), [].into(), "it is another delay");
    }

    #[tokio::test]
    async fn each_lanes_newest_total_is_signed_once_and_again_with_another_key() {
        let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
        let fence = ledger.take_lead("test").await.expect("leads");
        open(&ledger, fence).await;
        ledger.commit(fence, &[charge(0, 1, 100), charge(1, 2, 100)]).await.expect("commits");
        let pen = |byte| EvmPen {
            key: PrivateKeySigner::from_bytes(&B256::repeat_byte(byte)).expect("a key"),
            chain_id: 1,
            contract: Address::repeat_byte(9),
            most_fee_wei: None,
        };
        let left = async |byte: u8| unsigned(&ledger, &pen(byte), "c").await.expect("reads");
        let kept = async || ledger.vouchers("c", 7, &FundingId::from_stored(""), 10).await.expect("reads");
        assert_eq!(left(1).await, [1, 7].into());
        let first = async |foreign| {
            let found = next(&ledger, &pen(1), "c", &[account(foreign)].into(), &mut Unfit::new(), (5, 1)).await.expect("signs");
            found.into_iter().map(|voucher| (voucher.funding, voucher.payee)).collect::<Vec<_>>()
        };
        assert_eq!(first(1).await, [(account(0), 1)]);
        assert_eq!(first(0).await, [(account(1), 1)], "pages of what may be old keep nobody from theirs");
        sign(&ledger, fence, &pen(1), "c", &[account(1)].into(), &mut Unfit::new(), 5).await.expect("signs");
        let first = kept().await;
        assert_eq!(first.iter().map(|voucher| voucher.funding.clone()).collect::<Vec<_>>(), [account(0)], "the other's books may be old");
        assert_eq!(left(1).await, [1, 7].into());

        sign(&ledger, fence, &pen(1), "c", &BTreeSet::new(), &mut Unfit::new(), 6).await.expect("signs");
        sign(&ledger, fence, &pen(1), "c", &BTreeSet::new(), &mut Unfit::new(), 7).await.expect("signs nothing");
        assert!(left(1).await.is_empty());
        let both = kept().await;
        assert_eq!(both.iter().map(|voucher| voucher.signed_at).collect::<Vec<_>>(), [5, 6]);
        for voucher in &both {
            let paper = supercargo_contracts::Voucher {
                chain_id: 1,
                contract: Address::repeat_byte(9),
                account: account_of(&voucher.funding).expect("an account"),
                payee: 7,
                total_units: voucher.total.units(),
                signer: pen(1).key.address(),
                signature: voucher.signature.clone().into(),
                signed_at: 0,
            };
            assert!(paper.is_signed());
        }

        // Another hot key: what the old one signed is good for a week, and what the new one signs from now on.
        assert_eq!(left(2).await, [1, 7].into());
        sign(&ledger, fence, &pen(2), "c", &BTreeSet::new(), &mut Unfit::new(), 8).await.expect("signs");
        assert!(left(2).await.is_empty());
        assert!(kept().await.iter().all(|voucher| voucher.terms.signer == pen(2).key.address().to_string()));
    }

    #[tokio::test]
    async fn an_account_that_no_chain_could_know_is_not_signed_for_and_keeps_nobody_from_theirs() {
        let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
        let pen = EvmPen { key: PrivateKeySigner::random(), chain_id: 1, contract: Address::repeat_byte(9), most_fee_wei: None };
        let fence = ledger.take_lead("test").await.expect("leads");
        let funding = FundingId::chain("c", "0x12");
        assert!(account_of(&funding).is_err());
        let mut unfit = Unfit::new();
        sign(&ledger, fence, &pen, "c", &BTreeSet::new(), &mut unfit, 5).await.expect("there is nothing to sign");
        open(&ledger, fence).await;
        owe(&ledger, fence, &funding).await;
        ledger.commit(fence, &[charge(1, 2, 100)]).await.expect("commits");
        for now in [6, 7] {
            sign(&ledger, fence, &pen, "c", &BTreeSet::new(), &mut unfit, now).await.expect("signs");
            let signed = ledger.vouchers("c", 7, &FundingId::from_stored(""), 10).await.expect("reads");
            assert_eq!(signed.into_iter().map(|voucher| voucher.funding).collect::<Vec<_>>(), [account(1)]);
            assert_eq!(unfit, [(funding.clone(), 1), (funding.clone(), 7)].into(), "each is told once");
        }
    }

    /// A work of its own.
    async fn owe(ledger: &Ledger, fence: Fence, funding: &FundingId) {
        let (asset, work) = (Asset::of(funding, "USDC"), WorkId::task("2"));
        let (deposited, withdrawn, detail) = (Amount::from_units(1_000), Amount::ZERO, "{}".to_owned());
        let fund = Posting::Fund { funding: funding.clone(), asset: asset.clone(), deposited, withdrawn };
        let reserve = Posting::Reserve { work, asset, funding: funding.clone(), amount: Amount::from_units(500), detail, parent: None };
        ledger.commit(fence, &[fund, reserve, charge(2, 1, 100)]).await.expect("commits");
    }
}
