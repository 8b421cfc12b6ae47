//! Following an account: what may be spent of it, from one block that can't be undone.

use super::rail::Evm;
use super::{SettlementError, account_of};
use crate::runtime::config::ChainConfig;
use crate::world::records::Account;
use supercargo_contracts::{Address, BlockId};
use supercargo_ledger::Ledger;
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

/// What the chain says at finality; `None` while nothing is final yet.
///
/// What was put in is the balance and what our lanes have credited since, both of the same block: a post that is mined
/// and not yet booked moves money from one to the other and changes nothing here.
pub async fn observe(ledger: &Ledger, rail: &Evm, config: &ChainConfig, funding: &FundingId) -> Result<Option<Account>, SettlementError> {
    let Some(block) = rail.chain.finalized().await? else { return Ok(None) };
    let at = BlockId::number(block.number);
    let id = account_of(funding)?;
    let state = rail.chain.account(rail.contract, id, at).await?;
    let mut credited = 0_u128;
    for lane in ledger.lanes(funding).await? {
        credited += rail.chain.lane(rail.contract, id, lane.payee, at).await?.posted_units;
    }
    let exists = state.payer != Address::ZERO;
    let stalled = (exists && state.settler != config.settler).then(|| {
        format!("the account's settler is {} and this operator is settler {}: it could not be posted for", state.settler, config.settler)
    });
    // What thaws may be gone before we post, and beyond the allowance nothing can be credited.
    let usable = state.balance_units.saturating_sub(state.thawing_units).min(state.allowance_units);
    let funded = u64::try_from(usable + credited).map(Amount::from_units).unwrap_or(Amount::MAX).min(Amount::MAX);
    Ok(Some(Account { funded, tenant: state.tenant.to_string(), settler: state.settler, exists, stalled }))
}
