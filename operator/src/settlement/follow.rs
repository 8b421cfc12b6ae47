//! Following an account: what may be spent of it, from one block that can't be undone.

use super::SettlementError;
use super::evm::{EvmNode, EvmPen, account_of};
use super::rail::Seen;
use crate::runtime::config::ChainConfig;
use crate::world::records::{Account, Stall};
use supercargo_contracts::{Address, BlockId};
use supercargo_crds::names::escrow_stall::{OTHER_LEDGER, OTHER_SETTLER};
use supercargo_ledger::{Lane, Ledger};
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

/// What the chain says at finality.
pub struct Observed {
    pub account: Account,
    /// What the chain has credited, and what of it the books have as posted.
    pub credited_units: u128,
    pub posted_units: u128,
}

/// What was put in is the balance and what our lanes have credited since, both of the same block: a post that is mined
/// and not yet booked moves money from one to the other and changes nothing here.
pub async fn observe(
    ledger: &Ledger,
    seen: &Seen<'_, EvmNode, EvmPen>,
    config: &ChainConfig,
    funding: &FundingId,
) -> Result<Observed, SettlementError> {
    let at = BlockId::number(seen.agreed.block.number);
    let (id, contract) = (account_of(funding)?, seen.pen.contract);
    let chains = || seen.agreeing().map(|node| node.chain.clone());
    // Only what doesn't move with a node's clock: they have to say the same.
    let account = chains().map(|chain| async move {
        let state = chain.account(contract, id, at).await?;
        Ok((state.payer, state.tenant, state.settler, state.balance_units, state.thawing_units, state.allowance_units))
    });
    let (payer, tenant, settler, balance, thawing, allowance) = seen.majority("an account", account).await?;
    let (mut credited_units, mut posted_units, mut foreign) = (0_u128, 0_u128, None);
    for lane in ledger.lanes(funding).await? {
        let posted = chains().map(|chain| async move { Ok(chain.lane(contract, id, lane.payee, at).await?.posted_units) });
        let said = seen.majority("a lane", posted).await?;
        credited_units += said;
        posted_units += u128::from(lane.posted.units());
        foreign = foreign.or_else(|| other_ledger(&lane, said));
    }
    let exists = payer != Address::ZERO;
    let other_settler = || (exists && settler != config.settler).then(|| other_settler(settler, config.settler));
    // What thaws may be gone before we post, and beyond the allowance nothing can be credited.
    let usable = balance.saturating_sub(thawing).min(allowance);
    let funded = u64::try_from(usable + credited_units).map(Amount::from_units).unwrap_or(Amount::MAX).min(Amount::MAX);
    let (tenant, token, stalled) = (tenant.to_string(), config.token.clone(), foreign.or_else(other_settler));
    let account = Account { funded, tenant, settler, token, exists, stalled };
    Ok(Observed { account, credited_units, posted_units })
}

/// The chain never has more of a lane than what we planned to post: of ours, that is.
fn other_ledger(lane: &Lane, credited_units: u128) -> Option<Stall> {
    let planned = lane.planned.units();
    (credited_units > u128::from(planned)).then(|| Stall {
        reason: OTHER_LEDGER,
        words: format!(
            "the chain has credited {credited_units} units to payee {} and these books posted {planned}: another ledger posted, or this one \
             is an old backup. Nothing more is posted from this account until its newest books are back",
            lane.payee
        ),
    })
}

fn other_settler(theirs: u32, ours: u32) -> Stall {
    Stall {
        reason: OTHER_SETTLER,
        words: format!("the account's settler is {theirs} and this operator is settler {ours}: it could not be posted for"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(planned: u64, total: u64) -> Lane {
        Lane { payee: 7, total: Amount::from_units(total), planned: Amount::from_units(planned), posted: Amount::ZERO }
    }

    #[test]
    fn a_chain_that_credited_more_than_was_planned_was_posted_to_by_another_ledger() {
        // What is planned and not booked yet may be on the chain; what is only owed can't be.
        for (credited, foreign) in [(0, false), (5, false), (6, true), (9, true)] {
            assert_eq!(other_ledger(&lane(5, 9), credited).is_some(), foreign, "{credited}");
        }
        let words = other_ledger(&lane(5, 9), 6).map(|stall| stall.words).unwrap_or_default();
        assert!(words.contains("another ledger posted, or this one is an old backup"), "{words}");
    }
}
