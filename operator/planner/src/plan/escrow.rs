//! Escrows: their money goes into the books, and their status says what may be spent and what is missing.

use super::{Booking, ChainTerms, Effect, Plan, Terms, account as collecting, note, running, status, telling};
use crate::world::records::{Account, Escrow, Stall};
use crate::world::{Key, World};
use supercargo_contracts::tenant_id;
use supercargo_crds::common::Money;
use supercargo_crds::escrow::{EscrowStatus, Funding, LastPost};
use supercargo_crds::names::escrow_condition::{BOUND, CHAIN_DIFFERS, FROZEN, FUNDED, LEAVING, READY, STALLED};
use supercargo_ledger::{FundingBalance, LaneCases, Posting};
use supercargo_market::asset::Asset;
use supercargo_market::funding::Granted;
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

/// What the books refuse to take is offered to them again only after so long.
const REFUSED_SECONDS: i64 = 60;

pub fn plan(world: &mut World, terms: &Terms, plan: &mut Plan, bookings: &mut Vec<Booking>, now: i64) {
    while let Some(key) = world.todo.escrow_alarms.pop_due(now) {
        world.todo.escrows.push(key);
    }
    let mut busy = Vec::new();
    while let Some(key) = world.todo.escrows.pop() {
        let before = plan.effects.len() + bookings.len();
        look(world, terms, &key, plan, bookings, now);
        if let Some(funding) = world.escrows.get(&key).and_then(|escrow| escrow.funding.clone()) {
            collecting::recall(world, &funding);
        }
        if plan.effects.len() + bookings.len() > before {
            busy.push(key);
        }
    }
    busy.into_iter().for_each(|key| world.todo.escrows.push(key));
    // Whose Escrow was deleted still pays for what runs.
    while let Some(funding) = world.todo.unnamed.pop() {
        collecting::recall(world, &funding);
    }
    plan.wake_at_next(world.todo.escrow_alarms.next());
}

fn look(world: &mut World, terms: &Terms, key: &Key, plan: &mut Plan, bookings: &mut Vec<Booking>, now: i64) {
    let Some(escrow) = world.escrows.get(key) else { return };
    let tenant = tenant(world, escrow);
    let refused = escrow.funding.as_ref().and_then(|funding| Some((funding.clone(), world.unfunded.get(funding)?.1)));
    let again_at = refused.as_ref().map(|(_, at)| at.saturating_add(REFUSED_SECONDS)).filter(|again_at| now < *again_at);
    let put_in = if again_at.is_none() { put_in(world, escrow, tenant.as_deref()) } else { Vec::new() };
    // What was refused is not asked for any more.
    if let Some((funding, _)) = refused.filter(|_| again_at.is_none() && put_in.is_empty()) {
        world.unfunded.remove(&funding);
    }
    bookings.extend(put_in);
    let Some(escrow) = world.escrows.get(key) else { return };
    let ours = escrow.funding.as_ref().filter(|_| !is_anothers(world, escrow, tenant.as_deref()));
    let runs = ours.is_some_and(|funding| world.held_by(funding).next().is_some());
    let lasts = || running::lasts_until(world, ours?, now).and_then(status::time);
    let next = next_status(world, terms, escrow, tenant.clone(), now);
    let mut telling = world.tellings.get(key).cloned().unwrap_or_default();
    if let Some(status) = telling::due(&mut telling, &escrow.status, next, runs, now, lasts) {
        let note = note::on_escrow(escrow, &status).map(Box::new);
        let (namespace, name) = (escrow.namespace.clone(), escrow.name.clone());
        plan.effects.push(Effect::WriteEscrow { namespace, name, status: Box::new(status), note });
    }
    telling.look_at.into_iter().chain(again_at).for_each(|at| world.todo.escrow_alarms.set(at, key.clone()));
    world.tellings.insert(key.clone(), telling);
}

/// What goes into the books of it: what was put in, and what cases have come to.
fn put_in(world: &World, escrow: &Escrow, tenant: Option<&str>) -> Vec<Booking> {
    let mut bookings = Vec::new();
    if let Some((funding, Granted { deposited, withdrawn })) = funded(world, escrow, tenant) {
        let known = world.fundings.get(&funding).map(|(balance, _)| Granted { deposited: in_it(balance), withdrawn: balance.withdrawn });
        if known != Some(Granted { deposited, withdrawn }) {
            let asset = Asset::of(&funding, &escrow.spec.token);
            bookings.push(Booking::Post(Posting::Fund { funding, asset, deposited, withdrawn }));
        }
    }
    bookings.extend(cases(world, escrow, tenant).map(Booking::Post));
    bookings
}

/// What is in it by the books, where they say more because it is bound.
fn in_it(balance: &FundingBalance) -> Amount {
    balance.deposited.saturating_sub(balance.shortfall)
}

/// What names this escrow on a chain: made of UIDs, so that an escrow of the same name in another cluster is another.
pub fn tenant(world: &World, escrow: &Escrow) -> Option<String> {
    let namespace = world.namespaces.get(&escrow.namespace)?;
    Some(format!("{:#x}", tenant_id(world.cluster_uid()?, &namespace.uid, &escrow.name)))
}

/// The account on the chain that it is paid from: one that names it.
fn bound_account<'a>(world: &'a World, escrow: &Escrow, tenant: Option<&str>) -> Option<&'a Account> {
    account(world, escrow).filter(|account| account.exists && Some(account.tenant.as_str()) == tenant && account.token == escrow.spec.token)
}

/// What disputes and refunds have come to, when the books say otherwise.
fn cases(world: &World, escrow: &Escrow, tenant: Option<&str>) -> Option<Posting> {
    let funding = escrow.funding.clone()?;
    let lanes = &bound_account(world, escrow, tenant)?.cases;
    let sum = |part: fn(&LaneCases) -> Amount| Amount::from_units(lanes.iter().map(|lane| part(lane).units()).fold(0, u64::saturating_add));
    let known = world.fundings.get(&funding).map(|(balance, _)| (balance.returned, balance.case_fees)).unwrap_or_default();
    ((sum(|lane| lane.clawback), sum(|lane| lane.fees)) != known).then(|| Posting::Cases { funding, lanes: lanes.clone() })
}

/// What was put into it and taken out in all, once we know.
fn funded(world: &World, escrow: &Escrow, tenant: Option<&str>) -> Option<(FundingId, Granted)> {
    let funding = escrow.funding.clone()?;
    let granted = match escrow.spec.funding {
        Funding::Internal => {
            let balance = world.fundings.get(&funding).map(|(balance, _)| balance.clone()).unwrap_or_default();
            let bound = balance.reserved.checked_add(balance.owed)?.checked_add(balance.posted)?;
            Granted { deposited: in_it(&balance), withdrawn: balance.withdrawn }.to(escrow.spec.grant?.0, bound)?
        }
        Funding::Chain => {
            let funded = collecting::funded(world, &funding, bound_account(world, escrow, tenant)?);
            Granted { deposited: funded, withdrawn: Amount::ZERO }
        }
    };
    Some((funding, granted))
}

/// Why tasks can't be paid from it, if they can't.
pub fn not_ready(world: &World, escrow: &Escrow) -> Option<String> {
    stalled(world, escrow).map(|stall| stall.words.clone()).or_else(|| not_bound(world, escrow))
}

fn account<'a>(world: &'a World, escrow: &Escrow) -> Option<&'a Account> {
    world.accounts.get(escrow.funding.as_ref()?)
}

fn stalled<'a>(world: &'a World, escrow: &Escrow) -> Option<&'a Stall> {
    account(world, escrow)?.stalled.as_ref()
}

/// Why its account is not one that it may be paid from.
fn not_bound(world: &World, escrow: &Escrow) -> Option<String> {
    if let Some((why, _)) = escrow.funding.as_ref().and_then(|funding| world.unfunded.get(funding)) {
        return Some(format!("the books don't take what is put into it: {why}"));
    }
    if escrow.spec.funding == Funding::Internal {
        return None;
    }
    if escrow.funding.is_none() {
        return Some("spec.accountId names no account yet".to_owned());
    }
    let Some(account) = account(world, escrow) else { return Some("the chain has not been read yet".to_owned()) };
    if !account.exists {
        return Some("the account is not on the chain, or not final yet: open it with `kubectl supercargo escrow open`".to_owned());
    }
    if account.token != escrow.spec.token {
        return Some(format!(
            "the chain's contract holds {} and this Escrow is in {}: name another chain",
            account.token, escrow.spec.token
        ));
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
    let ours = !is_anothers(world, escrow, next.tenant.as_deref());
    if !ours {
        forget(&mut next);
    }
    let books = escrow.funding.as_ref().filter(|_| ours).and_then(|funding| world.fundings.get(funding));
    if let Some((balance, last_post)) = books {
        stands(&mut next, balance, escrow.spec.funding);
        next.last_post =
            last_post.as_ref().map(|(transaction, block)| LastPost { transaction: transaction.clone(), block: block.cast_signed() });
    }
    let why = match (escrow.spec.funding, chain) {
        _ if !terms.tokens.contains(&escrow.spec.token) => Some(format!("the token {} is not configured", escrow.spec.token)),
        (Funding::Chain, None) => Some(format!("the chain {:?} is not configured", escrow.spec.chain.as_deref().unwrap_or_default())),
        _ => not_bound(world, escrow),
    };
    let balance = books.map(|(balance, _)| balance.clone()).unwrap_or_default();
    let stall = stalled(world, escrow);
    if escrow.spec.funding == Funding::Chain && stall.is_none_or(|_| account(world, escrow).is_some_and(|account| account.exists)) {
        let alone = if chain.is_some_and(|chain| chain.endpoints == 1) { ", as the one endpoint of its chain says" } else { "" };
        let message = why.clone().unwrap_or_else(|| format!("the account names this Escrow as its tenant{alone}"));
        let reason = if why.is_none() { "Bound" } else { "NotBound" };
        status::set(&mut next.conditions, BOUND, why.is_none(), reason, message, escrow.generation, now);
    }
    match stall {
        Some(stall) => status::set(&mut next.conditions, STALLED, true, stall.reason, &stall.words, escrow.generation, now),
        None => status::clear(&mut next.conditions, STALLED),
    }
    if ours {
        collecting::told(world, escrow, &mut next, now);
    }
    let why = stall.map(|stall| stall.words.clone()).or(why).or_else(|| Some(collecting::closed(world, escrow)?.example));
    conditions(escrow, &mut next, why, &balance, now);
    next
}

/// The chain says that the account it names is not its own.
fn is_anothers(world: &World, escrow: &Escrow, tenant: Option<&str>) -> bool {
    let named = account(world, escrow).filter(|_| escrow.spec.funding == Funding::Chain);
    named.is_some_and(|account| account.exists && Some(account.tenant.as_str()) != tenant)
}

/// Whose account it is not is told nothing of it, and nothing that was told once is left.
fn forget(next: &mut EscrowStatus) {
    let EscrowStatus { observed_generation, conditions, tenant, chain_id, contract, settler, .. } = std::mem::take(next);
    *next = EscrowStatus { observed_generation, conditions, tenant, chain_id, contract, settler, ..EscrowStatus::default() };
    for condition in [LEAVING, FROZEN, CHAIN_DIFFERS] {
        status::clear(&mut next.conditions, condition);
    }
}

/// Where its money is. What works that run have used is charged already, and may still be given back.
fn stands(next: &mut EscrowStatus, balance: &FundingBalance, funding: Funding) {
    let sum = |parts: &[Amount]| parts.iter().try_fold(Amount::ZERO, |sum, part| sum.checked_add(*part)).unwrap_or(Amount::MAX);
    next.deposited = Some(Money(balance.put_in()));
    let some = |amount: Amount, before: Option<Money>| (!amount.is_zero() || before.is_some()).then_some(Money(amount));
    next.withdrawn = some(balance.withdrawn, next.withdrawn);
    next.returned = some(balance.returned, next.returned);
    next.case_fees = some(balance.case_fees, next.case_fees);
    next.available = Some(Money(balance.available));
    next.reserved = Some(Money(balance.reserved.saturating_sub(balance.held)));
    next.held = Some(Money(balance.held));
    next.charged = Some(Money(sum(&[balance.held, balance.owed, balance.posted])));
    next.settled = Some(Money(balance.posted));
    if funding == Funding::Chain {
        (next.owed, next.posted) = (Some(Money(balance.owed)), Some(Money(balance.posted)));
    }
}

fn facts(chain: Option<&ChainTerms>) -> (Option<i64>, Option<String>, Option<i64>) {
    match chain {
        Some(chain) => (i64::try_from(chain.chain_id).ok(), Some(chain.contract.clone()), Some(i64::from(chain.settler))),
        None => (None, None, None),
    }
}

fn conditions(escrow: &Escrow, next: &mut EscrowStatus, why: Option<String>, balance: &FundingBalance, now: i64) {
    let (generation, available) = (escrow.generation, balance.available);
    let mut tell = |kind: &str, status: bool, reason: &str, message: String| {
        let at = status::since(&next.conditions, kind).filter(|_| status::is_true(&next.conditions, kind) == status).unwrap_or(now);
        status::set(&mut next.conditions, kind, status, reason, message, generation, at);
    };
    let low = escrow.spec.low_balance.is_some_and(|low| available < low.0);
    let funded = !available.is_zero();
    let (reason, message) = match (funded, low) {
        (false, _) if !balance.shortfall.is_zero() => {
            ("Short", format!("{} less is in it than is held back and charged: that has to come first", balance.shortfall))
        }
        (false, _) => ("Empty", "nothing is available".to_owned()),
        (true, true) => ("Low", "less is available than spec.lowBalance".to_owned()),
        (true, false) => ("Funded", "money is available".to_owned()),
    };
    tell(FUNDED, funded, reason, message.clone());
    match why {
        Some(why) => tell(READY, false, "NotReady", why),
        None if !funded => tell(READY, false, reason, message),
        None => tell(READY, true, "Ready", "tasks are paid from it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::simulation::escrow_with;
    use crate::world::Event;
    use crate::world::records::Namespace;
    use supercargo_crds::common::Condition;
    use supercargo_crds::names::escrow_stall::{CHAIN_SET_UP, POST_REFUSED};

    const NOW: i64 = 1_800_000_000;

    fn terms(endpoints: usize) -> Terms {
        let chain = ChainTerms { name: "c".into(), chain_id: 1, contract: "0x1".into(), token: "USDC".into(), settler: 1, endpoints };
        Terms { tokens: vec!["USDC".into(), "EURC".into()], chains: vec![chain], ..Terms::default() }
    }

    /// An Escrow in this token, whose account the chain has been read for.
    fn world(token: &str, account: Account) -> World {
        let spec = serde_json::json!({ "funding": "Chain", "token": token, "chain": "c", "accountId": format!("0x{}", "1".repeat(64)) });
        let escrow = escrow_with(spec);
        let funding = escrow.funding.clone().expect("it names an account");
        let mut world = World::default();
        for (name, uid) in [("kube-system", "cluster"), ("n", "nu")] {
            world.apply(Event::Namespace(Namespace { name: name.into(), uid: uid.into(), deleting: false }));
        }
        world.apply(Event::Escrow(Box::new(escrow)));
        world.apply(Event::Account { funding, account: Box::new(account) });
        world
    }

    /// As the chain has it once it is bound.
    fn bound(stalled: Option<Stall>) -> Account {
        let tenant = format!("{:#x}", tenant_id("cluster", "nu", "default"));
        Account { funded: Amount::from_units(5), tenant, settler: 1, token: "USDC".into(), exists: true, stalled, ..Account::default() }
    }

    fn stall(reason: &'static str) -> Option<Stall> {
        Some(Stall { reason, words: "these words".into() })
    }

    /// The status that is written, and whether money goes into the books.
    fn pass(world: &mut World, endpoints: usize) -> (EscrowStatus, bool) {
        let plan = crate::plan::plan(world, &terms(endpoints), NOW);
        let books = plan.effects.iter().any(|effect| effect.kind() == "book");
        let status = plan.effects.into_iter().find_map(|effect| match effect {
            Effect::WriteEscrow { status, .. } => Some(*status),
            _ => None,
        });
        (status.expect("a status is written"), books)
    }

    fn told(status: &EscrowStatus, kind: &str) -> Option<(String, String, String)> {
        let of = |found: &Condition| (found.status.clone(), found.reason.clone(), found.message.clone());
        status.conditions.iter().find(|found| found.type_ == kind).map(of)
    }

    #[test]
    fn an_account_whose_posts_are_refused_is_stalled_in_words_and_stays_bound() {
        let (status, books) = pass(&mut world("USDC", bound(stall(POST_REFUSED))), 3);
        let words = |status: &str, reason: &str| Some((status.to_owned(), reason.to_owned(), "these words".to_owned()));
        assert_eq!(told(&status, STALLED), words("True", POST_REFUSED));
        assert_eq!(told(&status, READY), words("False", "NotReady"));
        assert!(told(&status, BOUND).is_some_and(|(status, ..)| status == "True"));
        assert!(books, "what the chain says of its money is still followed");
    }

    #[test]
    fn while_the_chain_cant_be_read_nothing_is_said_of_the_binding_and_the_money_stays() {
        let blind = Account { stalled: stall(CHAIN_SET_UP), ..Account::default() };
        let (status, books) = pass(&mut world("USDC", blind), 3);
        assert_eq!(told(&status, BOUND), None);
        assert!(told(&status, STALLED).is_some_and(|(_, reason, _)| reason == CHAIN_SET_UP));
        assert!(!books, "a chain that can't be read has not taken the money away");
    }

    #[test]
    fn stalled_goes_when_it_is_mended() {
        let mut world = world("USDC", bound(stall(POST_REFUSED)));
        let (status, _) = pass(&mut world, 3);
        let mut escrow = world.escrows.values().next().cloned().expect("it is there");
        let funding = escrow.funding.clone().expect("it names an account");
        escrow.status = status;
        world.apply(Event::Escrow(Box::new(escrow)));
        world.apply(Event::Account { funding, account: Box::new(bound(None)) });
        assert_eq!(told(&pass(&mut world, 3).0, STALLED), None);
    }

    #[test]
    fn an_escrow_in_another_token_than_the_contract_holds_is_not_paid_from() {
        let (status, books) = pass(&mut world("EURC", bound(None)), 3);
        let expected = "the chain's contract holds USDC and this Escrow is in EURC: name another chain";
        assert_eq!(told(&status, READY), Some(("False".to_owned(), "NotReady".to_owned(), expected.to_owned())));
        assert!(!books);
    }

    #[test]
    fn what_came_back_and_what_cases_cost_go_into_the_books_and_were_not_put_in() {
        let cases = |clawback, fees| LaneCases { payee: 7, clawback: Amount::from_units(clawback), fees: Amount::from_units(fees) };
        let units = |units| Some(Money(Amount::from_units(units)));
        let account = Account { funded: Amount::from_units(1_035), cases: vec![cases(40, 5)], ..bound(None) };
        let mut world = world("USDC", account.clone());
        let escrow = world.escrows.values().next().cloned().expect("it is there");
        let (funding, tenant) = (escrow.funding.clone().expect("it names an account"), account.tenant.clone());
        let posting = Posting::Cases { funding: funding.clone(), lanes: account.cases.clone() };
        assert_eq!(super::cases(&world, &escrow, Some(&tenant)), Some(posting));
        assert_eq!(super::cases(&world, &escrow, Some("another")), None, "another Escrow's account");
        let [deposited, available, posted] = [1_035, 935, 100].map(Amount::from_units);
        let [returned, case_fees] = [40, 5].map(Amount::from_units);
        let balance = FundingBalance { deposited, available, posted, returned, case_fees, ..FundingBalance::default() };
        world.apply(Event::Funding { funding, balance, last_post: None });
        assert_eq!(super::cases(&world, &escrow, Some(&tenant)), None, "the books have it");
        let (status, books) = pass(&mut world, 3);
        assert!(!books, "nothing is new");
        assert_eq!((status.deposited, status.returned, status.case_fees), (units(1_000), units(40), units(5)));
        assert_eq!((status.available, status.posted), (units(935), units(100)));
    }

    fn balance() -> FundingBalance {
        let [deposited, available, reserved] = [100, 60, 40].map(Amount::from_units);
        FundingBalance { deposited, available, reserved, ..FundingBalance::default() }
    }

    #[test]
    fn an_escrow_that_only_names_an_account_is_told_nothing_of_its_money() {
        let account = Account { funded: Amount::from_units(100), ..bound(None) };
        let mut world = world("USDC", account.clone());
        let funding = world.escrows.values().next().and_then(|escrow| escrow.funding.clone()).expect("it names an account");
        world.apply(Event::Funding { funding: funding.clone(), balance: balance(), last_post: Some(("0xa".into(), 7)) });
        let (own, _) = pass(&mut world, 3);
        assert_eq!((own.available, own.last_post.is_some()), (Some(Money(Amount::from_units(60))), true));

        let mut escrow = world.escrows.values().next().cloned().expect("it is there");
        escrow.status = own;
        world.apply(Event::Escrow(Box::new(escrow)));
        world.apply(Event::Account { funding, account: Box::new(Account { tenant: "another's".into(), ..account }) });
        let (told_now, books) = pass(&mut world, 3);
        let known = (told_now.deposited, told_now.available, told_now.reserved, told_now.last_post.clone());
        assert_eq!(known, (None, None, None, None), "what was told when it was bound is gone too");
        assert!(told(&told_now, FUNDED).is_some_and(|(status, reason, _)| (status.as_str(), reason.as_str()) == ("False", "Empty")));
        assert!(!books);
    }

    #[test]
    fn what_the_books_refuse_to_take_is_said_and_offered_again_a_minute_later() {
        let mut world = world("USDC", Account { funded: Amount::from_units(100), ..bound(None) });
        let (_, books) = pass(&mut world, 3);
        let funding = world.escrows.values().next().and_then(|escrow| escrow.funding.clone()).expect("it names an account");
        assert!(books, "it is offered");
        world.apply(Event::Unfunded { funding: funding.clone(), why: "it is full".into(), at: NOW });
        let (status, books) = pass(&mut world, 3);
        assert!(!books, "it is not offered at once");
        assert_eq!(told(&status, READY).expect("it is told").2, "the books don't take what is put into it: it is full");
        let books_at =
            |world: &mut World, now| crate::plan::plan(world, &terms(3), now).effects.iter().any(|effect| effect.kind() == "book");
        assert_eq!([NOW + 59, NOW + 60].map(|now| books_at(&mut world, now)), [false, true]);
        world.apply(Event::Funding {
            funding,
            balance: FundingBalance { available: balance().deposited, reserved: Amount::ZERO, ..balance() },
            last_post: None,
        });
        assert_eq!(told(&pass(&mut world, 3).0, READY).expect("it is told").0, "True", "it was taken");
    }

    #[test]
    fn that_one_endpoint_alone_is_believed_is_shown() {
        let message = |endpoints| told(&pass(&mut world("USDC", bound(None)), endpoints).0, BOUND).expect("it is told").2;
        assert_eq!(message(1), "the account names this Escrow as its tenant, as the one endpoint of its chain says");
        assert_eq!(message(3), "the account names this Escrow as its tenant");
    }
}
