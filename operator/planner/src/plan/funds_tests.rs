//! What an escrow lends, and what it says of that. A second of one worker costs 0.001 here: ten minutes with their end cost 0.64.

use super::ends_tests::{running, settled};
use super::simulation::{Theatre, pool, task, terms};
use super::tests::{calm, ends, runs, set, status, until};
use super::{Effect, plan};
use crate::world::Event;
use crate::world::records::{Pool, Task};
use supercargo_crds::common::Money;
use supercargo_crds::escrow::EscrowSpec;
use supercargo_crds::names::escrow_condition::FUNDED;
use supercargo_market::money::Amount;

fn money(text: &str) -> Option<Money> {
    Some(Money(text.parse().expect("an amount")))
}

fn spec(theatre: &mut Theatre, change: impl FnOnce(&mut EscrowSpec)) {
    change(&mut theatre.escrow.spec);
    theatre.escrow.generation += 1;
    let escrow = theatre.escrow.clone();
    theatre.world.apply(Event::Escrow(Box::new(escrow)));
}

fn passes(theatre: &mut Theatre) {
    for _ in 0..8 {
        theatre.pass();
    }
}

/// Nobody waits yet, and the books know the escrow.
fn open() -> Theatre {
    let mut theatre = calm([]);
    passes(&mut theatre);
    theatre
}

fn named(name: &str) -> Task {
    task(name, "3", 0)
}

fn add(theatre: &mut Theatre, task: Task) {
    theatre.tasks.insert(task.name.clone(), task.clone());
    theatre.world.apply(Event::Task(Box::new(task)));
}

/// Why a task waits, in words.
fn waits(theatre: &Theatre, name: &str) -> Option<(String, String)> {
    theatre.tasks[name].status.waiting.first().map(|one| (one.reason.clone(), one.example.clone()))
}

fn reserved(theatre: &Theatre) -> usize {
    theatre.world.reservations.len()
}

/// Deposited, withdrawn and available.
fn books(theatre: &Theatre) -> [String; 3] {
    let (balance, _) = theatre.world.fundings.values().next().expect("there is one");
    [balance.deposited, balance.withdrawn, balance.available].map(|amount| amount.to_string())
}

fn shown(theatre: &Theatre) -> [Option<String>; 5] {
    let status = &theatre.escrow.status;
    [&status.deposited, &status.withdrawn, &status.available, &status.reserved, &status.charged]
        .map(|money| money.as_ref().map(|money| money.0.to_string()))
}

#[test]
fn a_grant_rises_and_falls_and_never_below_what_is_bound() {
    let mut theatre = running(named("a"));
    passes(&mut theatre);
    assert_eq!(books(&theatre), ["100.00", "0.00", "99.36"]);
    spec(&mut theatre, |spec| spec.grant = money("120"));
    passes(&mut theatre);
    assert_eq!(books(&theatre), ["120.00", "0.00", "119.36"]);
    // Less than is held back: nothing more is lent, and what runs goes on.
    spec(&mut theatre, |spec| spec.grant = money("0.50"));
    passes(&mut theatre);
    assert_eq!(books(&theatre), ["120.00", "119.36", "0.00"]);
    assert_eq!(reserved(&theatre), 1);
    // It has cost 0.10: of what is given back so much stays as is granted.
    let begun = theatre.now;
    set(&mut theatre, |pod| ends(pod, begun + 100, 0));
    theatre.now += 100;
    passes(&mut theatre);
    assert_eq!(books(&theatre), ["120.00", "119.50", "0.40"]);
    spec(&mut theatre, |spec| spec.grant = money("0"));
    passes(&mut theatre);
    assert_eq!(books(&theatre), ["120.00", "119.90", "0.00"], "what is spent stays");
    theatre.now += 60;
    passes(&mut theatre);
    assert_eq!(shown(&theatre), ["120.00", "119.90", "0.00", "0.00", "0.10"].map(|text| Some(text.to_owned())));
    let quiet = plan(&mut theatre.world, &terms(), theatre.now).effects;
    assert!(quiet.iter().all(|effect| effect.kind() != "book"), "and that is all: {quiet:?}");
}

#[test]
fn a_grant_that_was_lowered_lends_no_more_before_the_books_have_it() {
    let mut theatre = open();
    spec(&mut theatre, |spec| spec.grant = money("0.30"));
    let escrow = theatre.world.escrows.values().next().expect("it is there");
    let (_, funds) = theatre.world.funds(escrow).expect("the books know it");
    assert_eq!(funds.available.to_string(), "0.30");
}

#[test]
fn an_escrow_pays_for_the_namespaces_that_it_names_and_its_own() {
    let mut theatre = open();
    let mut guest = named("a");
    (guest.namespace, guest.payer) = ("guests".into(), ("n".into(), "default".into()));
    add(&mut theatre, guest);
    passes(&mut theatre);
    let words = "Escrow n/default does not list namespace guests in allowedNamespaces".to_owned();
    assert_eq!(waits(&theatre, "a"), Some(("EscrowNotAllowed".to_owned(), words)));
    spec(&mut theatre, |spec| spec.allowed_namespaces = vec!["guests".into()]);
    passes(&mut theatre);
    assert_eq!(reserved(&theatre), 1);
    // What runs goes on when it is named no more; what comes then does not begin.
    spec(&mut theatre, |spec| spec.allowed_namespaces.clear());
    let mut late = named("late");
    (late.namespace, late.payer) = ("guests".into(), ("n".into(), "default".into()));
    add(&mut theatre, late);
    add(&mut theatre, named("own"));
    passes(&mut theatre);
    assert_eq!((reserved(&theatre), waits(&theatre, "late").map(|(reason, _)| reason)), (2, Some("EscrowNotAllowed".to_owned())));
}

#[test]
fn a_pools_accepts_decides_who_is_taken() {
    let mut theatre = open();
    theatre.world.apply(Event::Pool(Box::new(only_chain())));
    add(&mut theatre, named("a"));
    passes(&mut theatre);
    assert_eq!(waits(&theatre, "a").map(|(reason, _)| reason).as_deref(), Some("FundingNotAccepted"));
    theatre.world.apply(Event::Pool(Box::new(pool())));
    passes(&mut theatre);
    assert_eq!(reserved(&theatre), 1);
}

fn only_chain() -> Pool {
    let mut pool = pool();
    pool.spec.accepts = vec![supercargo_crds::pool::Accepts::Chain];
    (pool.spec.chain, pool.spec.payee) = (Some("main".into()), Some(7));
    pool
}

#[test]
fn a_task_that_might_pass_the_days_limit_waits_until_others_end_or_the_day_does() {
    let mut theatre = open();
    spec(&mut theatre, |spec| spec.daily_limit = money("1.50"));
    ["a", "b", "c"].into_iter().for_each(|name| add(&mut theatre, named(name)));
    passes(&mut theatre);
    assert_eq!(reserved(&theatre), 2, "two of them hold back 1.28");
    let words = "0.64 has to be held back, and the Escrow's dailyLimit leaves 0.22: 0.00 was charged today, which ends at 2027-01-16T00:00:00Z, and 1.28 is held back";
    assert_eq!(waits(&theatre, "c"), Some(("DailyLimit".to_owned(), words.to_owned())));
    // They cost 0.50 each: what they give back is too little for a third.
    let begun = theatre.now;
    set(&mut theatre, |pod| runs(pod, begun));
    theatre.now += 500;
    set(&mut theatre, |pod| ends(pod, begun + 500, 0));
    passes(&mut theatre);
    theatre.now += 120;
    passes(&mut theatre);
    assert_eq!((reserved(&theatre), waits(&theatre, "c").map(|(reason, _)| reason).as_deref()), (0, Some("DailyLimit")));
    // The clock is at 08:00 when it all begins.
    theatre.now = begun + 16 * 3_600 - 1;
    passes(&mut theatre);
    assert_eq!(reserved(&theatre), 0);
    theatre.now += 1;
    passes(&mut theatre);
    assert_eq!(reserved(&theatre), 1);
}

#[test]
fn a_clock_that_was_a_year_ahead_for_a_while_leaves_the_days_limit_as_it_was() {
    const YEAR_SECONDS: i64 = 365 * 86_400;
    let mut theatre = open();
    spec(&mut theatre, |spec| spec.daily_limit = money("1.50"));
    let run = |theatre: &mut Theatre, seconds: i64| {
        let begun = theatre.now;
        set(theatre, |pod| runs(pod, begun));
        theatre.now += seconds;
        set(theatre, |pod| ends(pod, begun + seconds, 0));
        passes(theatre);
    };
    ["a", "b"].into_iter().for_each(|name| add(&mut theatre, named(name)));
    passes(&mut theatre);
    run(&mut theatre, 500);
    theatre.now += YEAR_SECONDS;
    add(&mut theatre, named("c"));
    passes(&mut theatre);
    assert_eq!(reserved(&theatre), 1, "nothing was charged on that day");
    run(&mut theatre, 10);
    theatre.now -= YEAR_SECONDS;
    add(&mut theatre, named("d"));
    for told in [Theatre::restart, passes as fn(&mut Theatre)] {
        told(&mut theatre);
        passes(&mut theatre);
        let words = "0.64 has to be held back, and the Escrow's dailyLimit leaves 0.50: 1.00 was charged today, which ends at 2027-01-16T00:00:00Z, and 0.00 is held back";
        assert_eq!(waits(&theatre, "d"), Some(("DailyLimit".to_owned(), words.to_owned())));
    }
    theatre.now += 16 * 3_600;
    passes(&mut theatre);
    assert_eq!(reserved(&theatre), 1, "another day has begun, and only one");
}

#[test]
fn who_waits_for_the_day_begins_when_what_is_given_back_is_enough_or_the_limit_rises() {
    let mut theatre = open();
    spec(&mut theatre, |spec| spec.daily_limit = money("1.00"));
    ["a", "b"].into_iter().for_each(|name| add(&mut theatre, named(name)));
    passes(&mut theatre);
    assert_eq!(reserved(&theatre), 1);
    let begun = theatre.now;
    set(&mut theatre, |pod| {
        runs(pod, begun);
        ends(pod, begun + 10, 0);
    });
    passes(&mut theatre);
    assert_eq!(reserved(&theatre), 1, "it has cost 0.01, and the other takes its turn at once");
    add(&mut theatre, named("c"));
    passes(&mut theatre);
    assert_eq!(waits(&theatre, "c").map(|(reason, _)| reason).as_deref(), Some("DailyLimit"));
    spec(&mut theatre, |spec| spec.daily_limit = money("1.40"));
    passes(&mut theatre);
    assert_eq!(reserved(&theatre), 2);
}

#[test]
fn a_task_that_no_day_is_enough_for_is_told_so() {
    let mut theatre = open();
    spec(&mut theatre, |spec| spec.daily_limit = money("0.30"));
    add(&mut theatre, named("a"));
    passes(&mut theatre);
    let words = "0.64 has to be held back, and the Escrow's dailyLimit is 0.30: ask for less time or a smaller budget";
    assert_eq!(waits(&theatre, "a"), Some(("DailyLimit".to_owned(), words.to_owned())));
}

#[test]
fn a_raised_budget_holds_no_more_back_than_the_day_leaves() {
    let long = |name: &str| {
        let mut task = task(name, "0.30", 0);
        (task.spec.time_limit_seconds, task.spec.grace_period_seconds) = (100_000, 0);
        task
    };
    let mut theatre = open();
    spec(&mut theatre, |spec| spec.daily_limit = money("1.00"));
    ["a", "b"].into_iter().for_each(|name| add(&mut theatre, long(name)));
    passes(&mut theatre);
    let begun = theatre.now;
    set(&mut theatre, |pod| runs(pod, begun));
    for name in ["a", "b"] {
        let task = theatre.tasks.get_mut(name).expect("is there");
        (task.spec.budget, task.generation) = (money("0.60").expect("an amount"), 2);
        let task = task.clone();
        theatre.world.apply(Event::Task(Box::new(task)));
    }
    passes(&mut theatre);
    let held: Vec<u64> = theatre.world.reservations.values().map(|held| held.reserved.units()).collect();
    assert_eq!(held.iter().sum::<u64>(), 900_000, "one of them was extended: {held:?}");
}

/// The Events of an escrow, while all is carried out.
fn events(theatre: &mut Theatre) -> Vec<String> {
    let mut events = Vec::new();
    for _ in 0..8 {
        for effect in plan(&mut theatre.world, &terms(), theatre.now).effects {
            if let Effect::WriteEscrow { note: Some(note), .. } = &effect {
                events.push(format!("{}: {}", note.name, note.message));
            }
            theatre.carry_out(effect);
        }
    }
    events
}

fn funded(theatre: &Theatre) -> (String, String) {
    let found = theatre.escrow.status.conditions.iter().find(|condition| condition.type_ == FUNDED).expect("is told");
    (found.status.clone(), found.reason.clone())
}

#[test]
fn a_low_balance_is_told_in_the_condition_and_by_one_event() {
    let mut theatre = calm([]);
    spec(&mut theatre, |spec| (spec.low_balance, spec.grant) = (money("2"), money("2.50")));
    assert_eq!((events(&mut theatre), funded(&theatre)), (vec![], ("True".into(), "Funded".into())));
    add(&mut theatre, named("a"));
    let told = events(&mut theatre);
    assert_eq!(told, ["default.lowbalance-e-2000000-2500000: 1.86 USDC is available, and spec.lowBalance is 2.00"]);
    assert_eq!(funded(&theatre), ("True".into(), "Low".into()));
    // Whoever leads next tells it no more; and it has one name, however often it comes and goes.
    theatre.restart();
    assert_eq!(events(&mut theatre), Vec::<String>::new());
    let begun = theatre.now;
    set(&mut theatre, |pod| {
        runs(pod, begun);
        ends(pod, begun + 1, 0);
    });
    theatre.now += 60;
    assert_eq!((events(&mut theatre), funded(&theatre)), (vec![], ("True".into(), "Funded".into())));
    add(&mut theatre, named("b"));
    assert!(events(&mut theatre)[0].starts_with("default.lowbalance-e-2000000-2500000: "));
}

#[test]
fn how_long_the_money_lasts_is_told_of_what_runs_now() {
    let mut theatre = running(named("a"));
    spec(&mut theatre, |spec| spec.grant = money("10"));
    let begun = theatre.now;
    settled(&mut theatre);
    let until = |theatre: &Theatre| theatre.escrow.status.funded_until.as_ref().map(|until| until.0.as_second() - begun);
    theatre.now += 61;
    settled(&mut theatre);
    // 10000 seconds of it, whether they are held back, used or free; to ten minutes, for it is far away.
    assert_eq!(until(&theatre), Some(9_600));
    let mut writes = 0;
    for _ in 0..400 {
        theatre.now += 1;
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        writes += effects.iter().filter(|effect| effect.kind() == "write_escrow").count();
        effects.into_iter().for_each(|effect| theatre.carry_out(effect));
    }
    assert_eq!((writes, until(&theatre)), (0, Some(9_600)), "time alone is no reason to write");
    let now = theatre.now;
    set(&mut theatre, |pod| ends(pod, now, 0));
    settled(&mut theatre);
    assert_eq!(until(&theatre), None, "nothing runs");
}

#[test]
fn an_escrow_that_pays_for_many_tasks_is_not_written_with_each() {
    let mut theatre = open();
    let mut writes = 0;
    for number in 0..120 {
        add(&mut theatre, named(&format!("t{number:03}")));
        theatre.now += 1;
        for _ in 0..3 {
            let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
            writes += effects.iter().filter(|effect| effect.kind() == "write_escrow").count();
            effects.into_iter().for_each(|effect| theatre.carry_out(effect));
        }
        let now = theatre.now;
        set(&mut theatre, |pod| {
            if pod.started.is_none() {
                runs(pod, now);
            } else if pod.finished.is_none() {
                ends(pod, now, 0);
            }
        });
    }
    let spent = theatre.world.fundings.values().next().map(|(balance, _)| balance.posted).unwrap_or_default();
    assert!(spent > Amount::ZERO && writes <= 5 + 12, "{writes} writes in two minutes, {spent} charged");
}

#[test]
fn an_account_that_is_short_says_so() {
    let mut theatre = running(named("a"));
    settled(&mut theatre);
    let (funding, (balance, _)) =
        theatre.world.fundings.iter().next().map(|(id, known)| (id.clone(), known.clone())).expect("there is one");
    let short = supercargo_ledger::FundingBalance {
        deposited: balance.reserved,
        available: Amount::ZERO,
        shortfall: Amount::from_units(240_000),
        ..balance
    };
    theatre.world.apply(Event::Funding { funding, balance: short, last_post: None });
    let written = plan(&mut theatre.world, &terms(), theatre.now).effects.into_iter().find_map(|effect| match effect {
        Effect::WriteEscrow { status, .. } => Some(status),
        _ => None,
    });
    let status = written.expect("it is told at once");
    let found = status.conditions.iter().find(|condition| condition.type_ == FUNDED).expect("is told");
    assert_eq!((found.status.as_str(), found.reason.as_str()), ("False", "Short"));
    assert_eq!(found.message, "0.24 less is in it than is held back and charged: that has to come first");
    assert_eq!(status.deposited, money("0.40"));
}

#[test]
fn what_paying_has_read_earlier_changes_nothing_but_what_is_paid() {
    let mut theatre = running(named("a"));
    settled(&mut theatre);
    let (funding, (known, _)) = theatre.world.fundings.iter().next().map(|(id, known)| (id.clone(), known.clone())).expect("there is one");
    let (work, cost) = theatre.world.works.iter().next().map(|(work, cost)| (work.clone(), cost.clone())).expect("there is one");
    let [owed, posted, charged] = [30, 70, 100].map(Amount::from_units);
    let newer = supercargo_ledger::FundingBalance { owed: charged, posted: Amount::ZERO, ..known };
    theatre.world.apply(Event::Funding { funding: funding.clone(), balance: newer.clone(), last_post: None });
    let older = supercargo_ledger::FundingBalance { posted, available: Amount::from_units(999_999), ..Default::default() };
    theatre.world.apply(Event::Posted { funding: funding.clone(), balance: older, last_post: Some(("0xa".into(), 7)) });
    let expected = supercargo_ledger::FundingBalance { owed, posted, ..newer };
    assert_eq!(theatre.world.fundings[&funding], (expected, Some(("0xa".to_owned(), 7))));

    let older = supercargo_ledger::WorkBalance { settled: posted, transaction: Some("0xa".into()), ..Default::default() };
    theatre.world.works.insert(work.clone(), supercargo_ledger::WorkBalance { charged, billed_seconds: 1_200, ..cost.clone() });
    theatre.world.apply(Event::Settled { work: work.clone(), balance: older });
    let expected =
        supercargo_ledger::WorkBalance { charged, billed_seconds: 1_200, settled: posted, transaction: Some("0xa".into()), ..cost };
    assert_eq!(theatre.world.works[&work], expected);
}

#[test]
fn a_tasks_reason_is_the_one_that_its_status_names() {
    let mut theatre = open();
    spec(&mut theatre, |spec| (spec.daily_limit, spec.grant) = (money("0.30"), money("0.20")));
    add(&mut theatre, named("a"));
    let written = until(&mut theatre, "write_task");
    assert_eq!(status(&written).waiting[0].reason, "EscrowTooLow", "what is missing altogether comes first");
}
