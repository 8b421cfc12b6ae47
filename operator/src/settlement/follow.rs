//! Following an account: what may be spent of it, from one block that can't be undone.

use super::SettlementError;
use super::agree;
use super::evm::{EvmNode, EvmPen, account_of};
use super::rail::Seen;
use crate::runtime::config::ChainConfig;
use crate::world::records::{Account, Leaving, Stall};
use supercargo_contracts::{AccountState, Address, BlockId, ChangeState};
use supercargo_crds::names::escrow_stall::{OTHER_LEDGER, OTHER_SETTLER};
use supercargo_ledger::{Lane, LaneCases, Ledger, Room};
use supercargo_market::account::{self, Change, Limits, Reach, Times};
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

/// What the chain says at finality.
pub struct Observed {
    pub account: Account,
    /// What the chain has credited, and what of it the books have as posted.
    pub credited_units: u128,
    pub posted_units: u128,
    /// What one post may credit now.
    pub room: Room,
    /// What one could when the account's bucket is full.
    pub most: Amount,
    /// How much its bucket can hold, also after what waits for its time.
    pub burst: Amount,
}

/// A lane of our books, and what the chain says of it.
struct OnChain {
    lane: Lane,
    /// For so much of it there is a voucher.
    signed: Amount,
    credited_units: u128,
    cases: LaneCases,
}

/// What was put in is the balance and what our lanes have credited since, both of the same block: a post that is mined
/// and not yet booked moves money from one to the other and changes nothing here.
pub async fn observe(
    ledger: &Ledger,
    seen: &Seen<'_, EvmNode, EvmPen>,
    config: &ChainConfig,
    times: Times,
    funding: &FundingId,
) -> Result<Observed, SettlementError> {
    let at = BlockId::number(seen.agreed.block.number);
    let (id, contract) = (account_of(funding)?, seen.pen.contract);
    let chains = || seen.agreeing().map(|node| node.chain.clone());
    let accounts = seen.enough(chains().map(|chain| async move { Ok(chain.account(contract, id, at).await?) })).await?;
    // What moves with a node's clock is not the same everywhere; of everything else they have to say the same.
    let room = agree::low_middle(accounts.iter().map(|state| state.spendable_units).collect()).unwrap_or_default();
    let steady = accounts.into_iter().map(|state| Ok(AccountState { spendable_units: 0, ..state })).collect();
    let state = agree::majority("an account", steady, seen.endpoints.needed())?;
    let change =
        seen.majority("a scheduled change", chains().map(|chain| async move { Ok(chain.change(contract, id, at).await?) })).await?;
    let lanes = lanes(ledger, seen, funding).await?;
    let known_units = known_units(&lanes);
    let exists = state.payer != Address::ZERO;
    let other_settler = || (exists && state.settler != config.settler).then(|| other_settler(state.settler, config.settler));
    let reach = account::reach(&terms(&state, change, room, config.settler), times);
    let with_credited = |units: u64| Amount::from_units(units.saturating_add(narrow(known_units))).min(Amount::MAX);
    let account = Account {
        funded: with_credited(reach.lasting_units),
        tenant: state.tenant.to_string(),
        settler: state.settler,
        token: config.token.clone(),
        exists,
        stalled: foreign(&lanes, state.credited_units).or_else(other_settler),
        leaving: leaving(&state, change, reach, with_credited(reach.there_units), seen.agreed.block.timestamp, config.settler),
        cases: lanes.iter().map(|found| found.cases).filter(|cases| !(cases.clawback.is_zero() && cases.fees.is_zero())).collect(),
        differs: None,
        unknown_payees: Vec::new(),
        gas_low: None,
        stuck: None,
    };
    let credited = lanes.iter().map(|found| (found.lane.payee, units(found.credited_units))).collect();
    Ok(Observed {
        account,
        credited_units: state.credited_units,
        posted_units: lanes.iter().map(|found| u128::from(found.lane.posted.units())).sum(),
        room: Room { credited, ..Room::from(units(room)) },
        burst: units(change.map_or(state.burst_units, |change| change.burst_units.min(state.burst_units))),
        most: units(state.balance_units.min(state.allowance_units).min(state.burst_units)),
    })
}

/// What the chain says of each lane that the books know, at the block that is agreed on.
async fn lanes(ledger: &Ledger, seen: &Seen<'_, EvmNode, EvmPen>, funding: &FundingId) -> Result<Vec<OnChain>, SettlementError> {
    let at = BlockId::number(seen.agreed.block.number);
    let (id, contract) = (account_of(funding)?, seen.pen.contract);
    let vouched = ledger.vouched(funding).await?;
    let mut lanes = Vec::new();
    for lane in ledger.lanes(funding).await? {
        let said = seen.agreeing().map(|node| node.chain.clone()).map(|chain| async move {
            let said = chain.lane(contract, id, lane.payee, at).await?;
            // Its times move with a node's clock.
            Ok((said.posted_units, said.returned_units, said.case_fee_units))
        });
        let (credited_units, returned, fees) = seen.majority("a lane", said).await?;
        let cases = LaneCases { payee: lane.payee, clawback: units(returned), fees: units(fees) };
        lanes.push(OnChain { lane, signed: vouched.get(&lane.payee).copied().unwrap_or_default(), credited_units, cases });
    }
    Ok(lanes)
}

fn known_units(lanes: &[OnChain]) -> u128 {
    lanes.iter().map(|found| found.credited_units).sum()
}

fn units(units: u128) -> Amount {
    Amount::from_units(narrow(units))
}

fn narrow(units: u128) -> u64 {
    u64::try_from(units).unwrap_or(u64::MAX)
}

/// The account in the words of the rule.
fn terms(state: &AccountState, change: Option<ChangeState>, room: u128, settler: u32) -> account::Account {
    let limits = |allowance, burst, rate| Limits {
        allowance_units: narrow(allowance),
        burst_units: narrow(burst),
        rate_units_per_second: narrow(rate),
    };
    account::Account {
        balance_units: narrow(state.balance_units),
        thawing_units: narrow(state.thawing_units),
        thaw_end: state.thaw_end,
        limits: limits(state.allowance_units, state.burst_units, state.rate_units_per_second),
        level_units: narrow(room),
        change: change.map(|change| Change {
            limits: limits(change.allowance_units, change.burst_units, change.rate_units_per_second),
            leaves_us: change.settler != settler,
            apply_at: change.apply_at,
        }),
    }
}

/// What goes of it, and until when it is frozen.
fn leaving(state: &AccountState, change: Option<ChangeState>, reach: Reach, there: Amount, now: u64, settler: u32) -> Leaving {
    let time = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    Leaving {
        there,
        until: reach.until.map(time),
        thawing: Amount::from_units(narrow(state.thawing_units)),
        thaw_end: (state.thawing_units > 0).then(|| time(state.thaw_end)),
        change_at: change.map(|change| time(change.apply_at)),
        leaves_us: change.is_some_and(|change| change.settler != settler),
        frozen_until: (now < state.frozen_until).then(|| time(state.frozen_until)),
        rate_units_per_second: Some(reach.rate_units_per_second),
    }
}

/// The chain never has more of a lane than what we planned to post, or signed for the payee to claim: of ours, that is.
pub fn other_ledger(lane: &Lane, signed: Amount, credited_units: u128) -> Option<Stall> {
    let planned = lane.planned.max(signed).units();
    let words =
        || format!("the chain has credited {credited_units} units to payee {} and these books posted or signed {planned}", lane.payee);
    (credited_units > u128::from(planned)).then(|| beyond_books(&words()))
}

/// Nor has it more of the account than of our lanes together: the rest went to payees that these books don't know.
fn foreign(lanes: &[OnChain], credited_units: u128) -> Option<Stall> {
    let known = known_units(lanes);
    let words =
        || format!("the chain has credited {credited_units} units from this account and {known} of them to payees that these books know");
    let unknown = || (credited_units > known).then(|| beyond_books(&words()));
    lanes.iter().find_map(|found| other_ledger(&found.lane, found.signed, found.credited_units)).or_else(unknown)
}

fn beyond_books(what: &str) -> Stall {
    Stall {
        reason: OTHER_LEDGER,
        words: format!(
            "{what}: another ledger posted, or this one is an old backup. Nothing more is posted from this account until its newest books \
             are back"
        ),
    }
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
            assert_eq!(other_ledger(&lane(5, 9), Amount::ZERO, credited).is_some(), foreign, "{credited}");
        }
        // With a voucher the payee may have claimed what we did not post.
        for (credited, foreign) in [(6, false), (7, false), (8, true)] {
            assert_eq!(other_ledger(&lane(5, 9), Amount::from_units(7), credited).is_some(), foreign, "{credited}");
        }
        let words = other_ledger(&lane(5, 9), Amount::ZERO, 6).map(|stall| stall.words).unwrap_or_default();
        assert!(words.contains("another ledger posted, or this one is an old backup"), "{words}");
    }
    #[test]
    fn what_no_lane_of_these_books_has_went_to_payees_that_they_do_not_know() {
        let found = |payee, credited_units| OnChain {
            lane: Lane { payee, ..lane(5, 9) },
            signed: Amount::ZERO,
            credited_units,
            cases: LaneCases { payee, clawback: Amount::ZERO, fees: Amount::ZERO },
        };
        let told = |lanes: &[OnChain], credited_units| foreign(lanes, credited_units).map(|stall| stall.words);
        assert_eq!(told(&[], 0), None, "nothing was ever posted");
        assert_eq!(told(&[found(7, 5), found(8, 3)], 8), None);
        let words = told(&[found(7, 5), found(8, 3)], 9).unwrap_or_default();
        assert!(words.starts_with("the chain has credited 9 units from this account and 8 of them to payees that these books know"));
        assert!(words.contains("another ledger posted, or this one is an old backup"), "{words}");
        assert!(told(&[], 1).is_some(), "books from before the first post");
        let words = told(&[found(7, 6)], 6).unwrap_or_default();
        assert!(words.contains("to payee 7"), "a lane that is known is named: {words}");
    }
}
