//! Vouchers: of each lane the newest total is signed for its payee, and the steps that lead to it through its account's burst, and
//! kept in the books before anybody is given them. A row is a total, so whatever is signed, posted and claimed of one lane counts
//! once.

use super::SettlementError;
use super::evm::{EvmPen, account_of};
use std::collections::{BTreeMap, BTreeSet};
use supercargo_contracts::{ChainError, Row, sign_row};
use supercargo_ledger::{Fence, Lane, Ledger, Voucher, VoucherTerms};
use supercargo_market::money::Amount;
use supercargo_market::vouchers::{step, totals};
use supercargo_market::work::FundingId;

/// Of so many lanes rows are signed in one go; the rest with the next look.
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

/// What is remembered between looks of what is signed for.
#[derive(Debug, Default)]
pub struct Scribe {
    /// Lanes whose vouchers can't be written: they are told once.
    unfit: BTreeSet<(FundingId, u32)>,
    /// What each account lets through at once, as the chain said last.
    bursts: BTreeMap<FundingId, Amount>,
    /// Those of which that is less than before, or known only now: what is signed for them may be more than can be claimed at once.
    narrowed: BTreeSet<FundingId>,
}

impl Scribe {
    /// Takes in how much an account lets through at once.
    pub fn look(&mut self, funding: &FundingId, burst: Amount) {
        if self.bursts.insert(funding.clone(), burst).is_none_or(|before| burst < before) {
            self.narrowed.insert(funding.clone());
        }
    }

    /// Forgets accounts that nobody names any more.
    pub fn keep(&mut self, named: &[FundingId]) {
        self.bursts.retain(|funding, _| named.binary_search(funding).is_ok());
        self.narrowed.retain(|funding| named.binary_search(funding).is_ok());
    }

    /// How far the account's vouchers are from each other at most. Of one that was not looked at yet it is not known.
    fn step(&self, funding: &FundingId) -> Amount {
        self.bursts.get(funding).map_or(Amount::MAX, |burst| step(*burst))
    }

    /// The vouchers of a lane; none where they can't be written, which is told once.
    fn lane(&mut self, pen: &EvmPen, terms: &VoucherTerms, funding: &FundingId, lane: Lane, now: i64) -> Vec<Voucher> {
        let step = self.step(funding);
        let steps = totals(lane.posted, lane.total, step).into_iter();
        match steps.map(|total| signed(pen, terms, funding.clone(), Lane { total, ..lane }, (step, now))).collect() {
            Ok(vouchers) => vouchers,
            Err(error) => {
                if self.unfit.insert((funding.clone(), lane.payee)) {
                    tracing::error!(payee = lane.payee, "a voucher is not signed: {error}");
                }
                Vec::new()
            }
        }
    }
}

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
    scribe: &mut Scribe,
    now: i64,
) -> Result<(), SettlementError> {
    let vouchers = next(ledger, pen, chain, foreign, scribe, (now, MOST_AT_ONCE)).await?;
    if !vouchers.is_empty() {
        ledger.keep_vouchers(fence, &vouchers).await?;
    }
    narrow(ledger, fence, pen, foreign, scribe, now).await
}

/// Signs closer together what is further apart than its account lets through at once.
async fn narrow(
    ledger: &Ledger,
    fence: Fence,
    pen: &EvmPen,
    foreign: &BTreeSet<FundingId>,
    scribe: &mut Scribe,
    now: i64,
) -> Result<(), SettlementError> {
    let terms = terms(pen);
    let narrowed: Vec<FundingId> = scribe.narrowed.iter().filter(|funding| !foreign.contains(funding)).cloned().collect();
    for funding in narrowed {
        let lanes = ledger.lanes_with_wide_vouchers(&funding, &terms, scribe.step(&funding)).await?;
        let vouchers: Vec<Voucher> = lanes.into_iter().flat_map(|lane| scribe.lane(pen, &terms, &funding, lane, now)).collect();
        if !vouchers.is_empty() {
            ledger.keep_vouchers(fence, &vouchers).await?;
        }
        scribe.narrowed.remove(&funding);
    }
    Ok(())
}

/// What is to be signed next, at this time and in pages of so many.
async fn next(
    ledger: &Ledger,
    pen: &EvmPen,
    chain: &str,
    foreign: &BTreeSet<FundingId>,
    scribe: &mut Scribe,
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
            vouchers.extend(scribe.lane(pen, &terms, &funding, lane, now));
        }
    }
    Ok(vouchers)
}

fn signed(
    pen: &EvmPen,
    terms: &VoucherTerms,
    funding: FundingId,
    lane: Lane,
    (step, now): (Amount, i64),
) -> Result<Voucher, SettlementError> {
    let row = Row::new(lane.payee, lane.total.units().into());
    let row = row.ok_or_else(|| SettlementError::Stalled("a row's total does not fit the contract".to_owned()))?;
    let signature = sign_row(&pen.key, pen.chain_id, pen.contract, account_of(&funding)?, row).map_err(ChainError::from)?;
    let (payee, total) = (lane.payee, lane.total);
    Ok(Voucher { funding, payee, total, step, terms: terms.clone(), signature: signature.to_vec(), signed_at: now })
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
            let found = next(&ledger, &pen(1), "c", &[account(foreign)].into(), &mut Scribe::default(), (5, 1)).await.expect("signs");
            found.into_iter().map(|voucher| (voucher.funding, voucher.payee)).collect::<Vec<_>>()
        };
        assert_eq!(first(1).await, [(account(0), 1)]);
        assert_eq!(first(0).await, [(account(1), 1)], "pages of what may be old keep nobody from theirs");
        sign(&ledger, fence, &pen(1), "c", &[account(1)].into(), &mut Scribe::default(), 5).await.expect("signs");
        let first = kept().await;
        assert_eq!(first.iter().map(|voucher| voucher.funding.clone()).collect::<Vec<_>>(), [account(0)], "the other's books may be old");
        assert_eq!(left(1).await, [1, 7].into());

        sign(&ledger, fence, &pen(1), "c", &BTreeSet::new(), &mut Scribe::default(), 6).await.expect("signs");
        sign(&ledger, fence, &pen(1), "c", &BTreeSet::new(), &mut Scribe::default(), 7).await.expect("signs nothing");
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
        sign(&ledger, fence, &pen(2), "c", &BTreeSet::new(), &mut Scribe::default(), 8).await.expect("signs");
        assert!(left(2).await.is_empty());
        assert!(kept().await.iter().all(|voucher| voucher.terms.signer == pen(2).key.address().to_string()));
    }

    #[tokio::test]
    async fn what_is_more_than_an_account_lets_through_at_once_is_signed_for_in_steps_and_closer_ones_once_its_burst_falls() {
        let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
        let fence = ledger.take_lead("test").await.expect("leads");
        open(&ledger, fence).await;
        // The provider gets 975 of it.
        ledger.commit(fence, &[charge(0, 1, 1_000)]).await.expect("commits");
        let pen = EvmPen { key: PrivateKeySigner::random(), chain_id: 1, contract: Address::repeat_byte(9), most_fee_wei: None };
        let mut scribe = Scribe::default();
        let signed = async |scribe: &mut Scribe, foreign: &[FundingId], now| {
            let foreign = foreign.iter().cloned().collect();
            sign(&ledger, fence, &pen, "c", &foreign, scribe, now).await.expect("signs");
            let kept = ledger.vouchers("c", 7, &FundingId::from_stored(""), 100).await.expect("reads");
            kept.into_iter().rev().map(|voucher| (voucher.total.units(), voucher.signed_at)).collect::<Vec<_>>()
        };
        let burst = Amount::from_units;
        assert_eq!(signed(&mut scribe, &[], 1).await, [(975, 1)], "the account was not looked at yet");
        scribe.look(&account(0), burst(800));
        assert_eq!(signed(&mut scribe, &[account(0)], 2).await, [(975, 1)], "the books may be old");
        assert_eq!(signed(&mut scribe, &[], 3).await, [(400, 3), (800, 3), (975, 3)]);
        for higher in [800, 5_000] {
            scribe.look(&account(0), burst(higher));
            assert_eq!(signed(&mut scribe, &[], 4).await, [(400, 3), (800, 3), (975, 3)], "they fit through {higher}");
        }
        scribe.look(&account(0), burst(600));
        assert_eq!(signed(&mut scribe, &[], 5).await, [(300, 5), (600, 5), (900, 5), (975, 5)]);

        // What is posted for good needs no voucher any more, and what comes has its own.
        let post = ledger.plan_post_within(fence, &account(0), burst(725), 0).await.expect("plans").expect("is owed");
        ledger.book_final(fence, &post.id, "0x1", 1, &[]).await.expect("books");
        ledger.commit(fence, &[charge(0, 2, 300)]).await.expect("commits");
        assert_eq!(signed(&mut scribe, &[], 6).await, [(900, 6), (1_200, 6), (1_268, 6)]);
        // Whoever leads next finds them.
        let mut next = Scribe::default();
        next.look(&account(0), burst(600));
        assert_eq!(signed(&mut next, &[], 7).await, [(900, 6), (1_200, 6), (1_268, 6)]);
    }

    #[tokio::test]
    async fn an_account_that_no_chain_could_know_is_not_signed_for_and_keeps_nobody_from_theirs() {
        let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
        let pen = EvmPen { key: PrivateKeySigner::random(), chain_id: 1, contract: Address::repeat_byte(9), most_fee_wei: None };
        let fence = ledger.take_lead("test").await.expect("leads");
        let funding = FundingId::chain("c", "0x12");
        assert!(account_of(&funding).is_err());
        let mut scribe = Scribe::default();
        sign(&ledger, fence, &pen, "c", &BTreeSet::new(), &mut scribe, 5).await.expect("there is nothing to sign");
        open(&ledger, fence).await;
        owe(&ledger, fence, &funding).await;
        ledger.commit(fence, &[charge(1, 2, 100)]).await.expect("commits");
        for now in [6, 7] {
            sign(&ledger, fence, &pen, "c", &BTreeSet::new(), &mut scribe, now).await.expect("signs");
            let signed = ledger.vouchers("c", 7, &FundingId::from_stored(""), 10).await.expect("reads");
            assert_eq!(signed.into_iter().map(|voucher| voucher.funding).collect::<Vec<_>>(), [account(1)]);
            assert_eq!(scribe.unfit, [(funding.clone(), 1), (funding.clone(), 7)].into(), "each is told once");
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
