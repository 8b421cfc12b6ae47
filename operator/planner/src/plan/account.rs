//! What an account on a chain lets its escrow do: how fast it may be paid from, what goes of it, and who has to end because
//! what they would cost from then on could not be collected. The rules are `market::account`'s.

use super::place::Wait;
use super::status;
use crate::world::World;
use crate::world::records::{Account, Differs, Escrow, Leaving, Pod, Pool, Recall, Reservation, Stall, Stuck};
use std::collections::{BTreeMap, BTreeSet};
use supercargo_crds::common::Money;
use supercargo_crds::escrow::EscrowStatus;
use supercargo_crds::names::escrow_condition::{CHAIN_DIFFERS, FROZEN, GAS_LOW, LEAVING};
use supercargo_crds::names::node_condition::VOUCHER_FRESH;
use supercargo_crds::names::{NOT_POSTED, PAYEE_UNKNOWN};
use supercargo_crds::pool::ProviderPoolStatus;
use supercargo_market::account::{MOST_RATE_PERCENT, is_within_rate, outlast};
use supercargo_market::money::Amount;
use supercargo_market::rating::ExactCost;
use supercargo_market::work::{FundingId, WorkId};

/// A clock's second, and the one that Kubernetes rounds off.
const CLOCK_SECONDS: i64 = 2;

/// What goes into the books as put in: what can be collected, and never less than what is bound already.
pub fn funded(world: &World, funding: &FundingId, account: &Account) -> Amount {
    account.funded.max(world.fundings.get(funding).map(|(balance, _)| bound(balance)).unwrap_or_default())
}

/// What is held back and charged in all.
fn bound(balance: &supercargo_ledger::FundingBalance) -> Amount {
    let sum = balance.reserved.units().saturating_add(balance.owed.units()).saturating_add(balance.posted.units());
    Amount::from_units(sum)
}

/// Why no task starts on it for now, if none does.
pub fn closed(world: &World, escrow: &Escrow) -> Option<Wait> {
    let until = world.accounts.get(escrow.funding.as_ref()?)?.leaving.frozen_until?;
    let words =
        format!("the account of Escrow {}/{} is frozen until {}, by its payer or guardian", escrow.namespace, escrow.name, time(until));
    Some(Wait::new("EscrowFrozen", words))
}

/// Why this much more a second would be more than an account lets out, if it would.
pub fn too_fast(world: &World, funding: &FundingId, second: ExactCost) -> Option<Wait> {
    let rate = world.accounts.get(funding)?.leaving.rate_units_per_second?;
    let burning = world.market.burning(funding);
    if burning.checked_add(second).is_ok_and(|all| is_within_rate(all, rate)) {
        return None;
    }
    let hourly = |second: ExactCost| second.times(3_600).and_then(ExactCost::reserved).unwrap_or(Amount::MAX);
    let most = u64::try_from(u128::from(rate) * 36 * u128::from(MOST_RATE_PERCENT)).unwrap_or(u64::MAX);
    let helps = if is_within_rate(second, rate) { "it waits for others to end" } else { "it alone is too much" };
    let words = format!(
        "it costs {} an hour, and of the {} that its account lets out for running tasks {} is in use: {helps}, or for `kubectl supercargo escrow raise`",
        hourly(second),
        Amount::from_units(most),
        hourly(burning),
    );
    Some(Wait::new("RateCap", words))
}

/// Finds out again whom of an account's works its money goes from.
pub fn recall(world: &mut World, funding: &FundingId) {
    let Some(next) = recalls(world, funding) else { return };
    // What has ended keeps its reason until that is told.
    let spared = |(work, known): (&WorkId, &Recall)| {
        (known.funding == *funding && world.reservations.contains_key(work) && !next.contains_key(work)).then(|| work.clone())
    };
    let spared: BTreeSet<WorkId> = world.recalled.iter().filter_map(spared).collect();
    for work in spared {
        world.recalled.remove(&work);
        world.todo.works.push(work);
    }
    for (work, recall) in next {
        if world.recalled.get(&work) != Some(&recall) {
            world.recalled.insert(work.clone(), recall);
            world.todo.works.push(work);
        }
    }
}

/// Who has to end, and when: of what is bound, the works that began last. `None`: nothing is known that could change that. A
/// chain that can't be read has taken no money away.
fn recalls(world: &World, funding: &FundingId) -> Option<BTreeMap<WorkId, Recall>> {
    // What keeps us from posting takes no money away either, and keeps nobody from taking it.
    let account = world.accounts.get(funding).filter(|account| account.exists)?;
    let (balance, _) = world.fundings.get(funding)?;
    let bound = bound(balance);
    let goes = account.leaving.until.filter(|_| bound > account.funded);
    if goes.is_none() && bound <= account.leaving.there {
        return Some(BTreeMap::new());
    }
    let mut works: Vec<(&WorkId, &Reservation)> = world.reservations.iter().filter(|(_, held)| held.funding == *funding).collect();
    works.sort_by_key(|(work, held)| (held.placement.bound, (*work).clone()));
    let spent = balance.owed.units().saturating_add(balance.posted.units());
    let from = |collectable: Amount| outlast(collectable.units(), spent, works.iter().map(|(_, held)| held.reserved.units()));
    let mut found = BTreeMap::new();
    let mut end = |from: usize, at: i64, why: &str| {
        for (work, held) in &works[from..] {
            let recall = Recall { funding: funding.clone(), attempt: held.placement.attempt, at, why: why.to_owned() };
            found.insert((*work).clone(), recall);
        }
    };
    if let Some(until) = goes {
        let why = format!("it was ended: {}; what it costs from then on could not be collected", words(&account.leaving));
        end(from(account.funded), until, &why);
    }
    if bound > account.leaving.there {
        end(from(account.leaving.there), 0, "it was ended: the money that was held back for it is not in its Escrow's account any more");
    }
    Some(found)
}

/// When this attempt has to end because its money goes.
pub fn recalled_at(world: &World, work: &WorkId, attempt: u32) -> Option<i64> {
    world.recalled.get(work).filter(|recall| recall.attempt == attempt).map(|recall| recall.at)
}

/// Why the attempt that this pod was of was ended, if its money was the reason.
pub fn ended_for(world: &World, work: &WorkId, attempt: u32, pod: &Pod) -> Option<String> {
    let recall = world.recalled.get(work).filter(|recall| recall.attempt == attempt)?;
    pod.delete_sent.is_some_and(|sent| sent + CLOCK_SECONDS >= recall.at).then(|| recall.why.clone())
}

/// What goes of it, in words.
fn words(leaving: &Leaving) -> String {
    let thaws =
        leaving.thaw_end.map(|end| format!("{} of its Escrow's account thaws and may be withdrawn from {}", leaving.thawing, time(end)));
    let changes = leaving.change_at.map(|at| {
        let what =
            if leaving.leaves_us { "its Escrow's account changes to another settler" } else { "its Escrow's account lowers its limits" };
        format!("{what} at {}", time(at))
    });
    thaws.into_iter().chain(changes).collect::<Vec<_>>().join(", and ")
}

fn time(second: i64) -> String {
    status::time(second).map(|time| time.0.to_string()).unwrap_or_default()
}

/// What a pool's status says of the vouchers of its payee.
pub fn voucher_fresh(world: &World, pool: &Pool, next: &mut ProviderPoolStatus, now: i64) {
    let paid = pool.spec.chain.as_ref().and_then(|chain| Some((world.unsigned.get(chain)?, u32::try_from(pool.spec.payee?).ok()?)));
    let Some((unsigned, payee)) = paid else {
        return status::clear(&mut next.conditions, VOUCHER_FRESH);
    };
    let chain = pool.spec.chain.as_deref().unwrap_or_default();
    let unknown = world.unknown_payees.get(chain).is_some_and(|unknown| unknown.contains(&payee));
    let since = unsigned.get(&payee).copied();
    let (reason, message) = match since {
        _ if unknown => (
            PAYEE_UNKNOWN,
            format!(
                "the contract of chain {chain:?} knows no payee {payee}: what it earns is kept and can be neither posted nor claimed \
                 until somebody registers it with `kubectl supercargo payee register`"
            ),
        ),
        None => ("Signed", format!("all that payee {payee} has earned is signed for: take it with `kubectl supercargo voucher pull`")),
        Some(since) => (
            "NotSigned",
            format!(
                "since {} something that payee {payee} has earned is not signed for: the operator can't use its key or its books",
                time(since)
            ),
        ),
    };
    status::set(&mut next.conditions, VOUCHER_FRESH, since.is_none() && !unknown, reason, message, pool.generation, now);
}

/// What differs, and by how much.
fn differing(Differs { credited, posted, since }: Differs) -> (&'static str, String) {
    let since = time(since);
    if credited > posted {
        let more = credited.saturating_sub(posted);
        let words = "a payee has claimed with a voucher, which the next post books, or another ledger posts from this account";
        return ("ChainHasMore", format!("since {since} the chain has credited {more} more than the books have as posted: {words}"));
    }
    let more = posted.saturating_sub(credited);
    let words = "the chain has undone what was final, and it is posted again";
    ("BooksHaveMore", format!("since {since} the books have {more} more as posted than the chain has credited: {words}"))
}

/// Whom it owes that the chain does not know.
fn unknown(payees: &[u32]) -> Option<(&'static str, String)> {
    let (first, others) = payees.split_first()?;
    let others = if others.is_empty() { String::new() } else { format!(" nor {} more", others.len()) };
    let message = format!(
        "the chain's contract knows no payee {first}{others}: what is owed there is kept, and posted once somebody registers it; all \
         other payees are paid"
    );
    Some((PAYEE_UNKNOWN, message))
}

/// That nothing of what it owes goes out.
fn not_posted(Stuck { since, why }: &Stuck) -> (&'static str, String) {
    let since = time(*since);
    let message = format!(
        "since {since} nothing of what it owes goes out to the chain: {why}. It stays owed, and whoever it is owed to can claim it with \
         `kubectl supercargo voucher claim`"
    );
    (NOT_POSTED, message)
}

/// The first one's reason, and the words of both.
fn both((reason, first): (&'static str, String), (_, second): (&'static str, String)) -> (&'static str, String) {
    (reason, format!("{first}; and {second}"))
}

/// What an escrow's status says of its account.
pub fn told(world: &World, escrow: &Escrow, next: &mut EscrowStatus, now: i64) {
    let Some(account) = escrow.funding.as_ref().and_then(|funding| world.accounts.get(funding)).filter(|account| account.exists) else {
        return;
    };
    let leaving = &account.leaving;
    next.thawing = (!leaving.thawing.is_zero()).then_some(Money(leaving.thawing));
    match leaving.until {
        Some(until) => {
            let reason = match leaving {
                Leaving { leaves_us: true, .. } => "SettlerChanges",
                Leaving { thaw_end: Some(_), .. } => "Thawing",
                _ => "LimitsFall",
            };
            let message = format!("{}: tasks that need more than what stays end by {}", words(leaving), time(until));
            status::set(&mut next.conditions, LEAVING, true, reason, message, escrow.generation, now);
        }
        None => status::clear(&mut next.conditions, LEAVING),
    }
    match &account.gas_low {
        Some(Stall { reason, words }) => status::set(&mut next.conditions, GAS_LOW, true, reason, words, escrow.generation, now),
        None => status::clear(&mut next.conditions, GAS_LOW),
    }
    let stuck = account.stuck.as_ref().map(not_posted).into_iter();
    match stuck.chain(account.differs.map(differing)).chain(unknown(&account.unknown_payees)).reduce(both) {
        Some((reason, message)) => status::set(&mut next.conditions, CHAIN_DIFFERS, true, reason, message, escrow.generation, now),
        None => status::clear(&mut next.conditions, CHAIN_DIFFERS),
    }
    match leaving.frozen_until {
        Some(until) => {
            let message = format!(
                "its payer or guardian froze it until {}: nothing is posted and no task starts until then; what runs goes on",
                time(until)
            );
            status::set(&mut next.conditions, FROZEN, true, "Frozen", message, escrow.generation, now);
        }
        None => status::clear(&mut next.conditions, FROZEN),
    }
}
