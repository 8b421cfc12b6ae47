//! Escrows: their money goes into the books, and their status says what may be spent and what is missing.

use super::{Booking, ChainTerms, Effect, Plan, Terms, status};
use crate::world::records::Escrow;
use crate::world::{Key, World};
use supercargo_contracts::tenant_id;
use supercargo_crds::common::Money;
use supercargo_crds::escrow::{EscrowStatus, Funding, LastPost};
use supercargo_crds::names::escrow_condition::{BOUND, FUNDED, READY};
use supercargo_ledger::Posting;
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

pub fn plan(world: &mut World, terms: &Terms, plan: &mut Plan, bookings: &mut Vec<Booking>, now: i64) {
    let mut busy = Vec::new();
    while let Some(key) = world.todo.escrows.pop() {
        let before = plan.effects.len() + bookings.len();
        look(world, terms, &key, plan, bookings, now);
        if plan.effects.len() + bookings.len() > before {
            busy.push(key);
        }
    }
    busy.into_iter().for_each(|key| world.todo.escrows.push(key));
}

fn look(world: &World, terms: &Terms, key: &Key, plan: &mut Plan, bookings: &mut Vec<Booking>, now: i64) {
    if let Some(escrow) = world.escrows.get(key) {
        let tenant = tenant(world, escrow);
        if let Some((funding, funded)) = funded(world, escrow, tenant.as_deref()) {
            let known = world.fundings.get(&funding).map(|(balance, _)| (balance.deposited, balance.withdrawn));
            if known != Some((funded, Amount::ZERO)) {
                bookings.push(Booking::Post(Posting::Fund {
                    funding,
                    asset: escrow.spec.token.clone(),
                    deposited: funded,
                    withdrawn: Amount::ZERO,
                }));
            }
        }
        let next = next_status(world, terms, escrow, tenant, now);
        if told_differently(&escrow.status, &next) {
            plan.effects.push(Effect::WriteEscrow {
                namespace: escrow.namespace.clone(),
                name: escrow.name.clone(),
                status: Box::new(next),
            });
        }
    }
}

/// Balances move with every task: what is held back alone is no reason to write.
fn told_differently(before: &EscrowStatus, next: &EscrowStatus) -> bool {
    let steady = |status: &EscrowStatus| EscrowStatus { available: None, reserved: None, charged: None, ..status.clone() };
    steady(before) != steady(next)
}

/// What names this escrow on a chain: made of UIDs, so that an escrow of the same name in another cluster is another.
pub fn tenant(world: &World, escrow: &Escrow) -> Option<String> {
    let namespace = world.namespaces.get(&escrow.namespace)?;
    Some(format!("{:#x}", tenant_id(world.cluster_uid()?, &namespace.uid, &escrow.name)))
}

/// What may be spent of it in all, once we know.
fn funded(world: &World, escrow: &Escrow, tenant: Option<&str>) -> Option<(FundingId, Amount)> {
    let funding = escrow.funding.clone()?;
    match escrow.spec.funding {
        Funding::Internal => Some((funding, escrow.spec.grant?.0)),
        Funding::Chain => {
            let account = world.accounts.get(&funding)?;
            (account.exists && Some(account.tenant.as_str()) == tenant).then_some((funding, account.funded))
        }
    }
}

/// Why tasks can't be paid from it, if they can't.
pub fn not_ready(world: &World, escrow: &Escrow) -> Option<String> {
    if escrow.spec.funding == Funding::Internal {
        return None;
    }
    let Some(funding) = &escrow.funding else { return Some("spec.accountId names no account yet".to_owned()) };
    let Some(account) = world.accounts.get(funding) else { return Some("the chain has not been read yet".to_owned()) };
    if let Some(stalled) = &account.stalled {
        return Some(stalled.clone());
    }
    if !account.exists {
        return Some("the account is not on the chain, or not final yet: open it with `kubectl supercargo escrow open`".to_owned());
    }
    if tenant(world, escrow).as_deref() != Some(account.tenant.as_str()) {
        return Some("the account is not bound to this Escrow: bind it with `kubectl supercargo escrow bind`".to_owned());
    }
    None
}

fn next_status(world: &World, terms: &Terms, escrow: &Escrow, tenant: Option<String>, now: i64) -> EscrowStatus {
    let mut next = escrow.status.clone();
    next.observed_generation = escrow.generation;
    let chain = escrow.spec.chain.as_deref().and_then(|name| terms.chains.iter().find(|chain| chain.name == name));
    if escrow.spec.funding == Funding::Chain {
        next.tenant = tenant;
        (next.chain_id, next.contract, next.settler) = facts(chain);
    }
    let funding = escrow.funding.clone();
    let books = funding.as_ref().and_then(|funding| world.fundings.get(funding));
    if let Some((balance, last_post)) = books {
        next.deposited = Some(Money(balance.deposited));
        next.available = Some(Money(balance.available));
        next.reserved = Some(Money(balance.reserved));
        let charged = balance.owed.checked_add(balance.posted).unwrap_or(balance.posted);
        next.charged = Some(Money(charged));
        next.settled = Some(Money(balance.posted));
        next.last_post =
            last_post.as_ref().map(|(transaction, block)| LastPost { transaction: transaction.clone(), block: block.cast_signed() });
    }
    let why = match (escrow.spec.funding, chain) {
        _ if !terms.tokens.contains(&escrow.spec.token) => Some(format!("the token {} is not configured", escrow.spec.token)),
        (Funding::Chain, None) => Some(format!("the chain {:?} is not configured", escrow.spec.chain.as_deref().unwrap_or_default())),
        _ => not_ready(world, escrow),
    };
    let available = books.map(|(balance, _)| balance.available).unwrap_or_default();
    conditions(escrow, &mut next, why, available, now);
    next
}

fn facts(chain: Option<&ChainTerms>) -> (Option<i64>, Option<String>, Option<i64>) {
    match chain {
        Some(chain) => (i64::try_from(chain.chain_id).ok(), Some(chain.contract.clone()), Some(i64::from(chain.settler))),
        None => (None, None, None),
    }
}

fn conditions(escrow: &Escrow, next: &mut EscrowStatus, why: Option<String>, available: Amount, now: i64) {
    let generation = escrow.generation;
    let mut tell = |kind: &str, status: bool, reason: &str, message: String| {
        let at = status::since(&next.conditions, kind).filter(|_| status::is_true(&next.conditions, kind) == status).unwrap_or(now);
        status::set(&mut next.conditions, kind, status, reason, message, generation, at);
    };
    let low = escrow.spec.low_balance.is_some_and(|low| available < low.0);
    let funded = !available.is_zero();
    if escrow.spec.funding == Funding::Chain {
        let message = why.clone().unwrap_or_else(|| "the account names this Escrow as its tenant".to_owned());
        tell(BOUND, why.is_none(), if why.is_none() { "Bound" } else { "NotBound" }, message);
    }
    let (reason, message) = match (funded, low) {
        (false, _) => ("Empty", "nothing is available"),
        (true, true) => ("Low", "less is available than spec.lowBalance"),
        (true, false) => ("Funded", "money is available"),
    };
    tell(FUNDED, funded, reason, message.to_owned());
    match why {
        Some(why) => tell(READY, false, "NotReady", why),
        None if !funded => tell(READY, false, "Empty", "nothing is available".to_owned()),
        None => tell(READY, true, "Ready", "tasks are paid from it".to_owned()),
    }
}
