//! What becomes of tasks when an account lets out too little a second, when money goes of it, and when it is frozen. A second
//! of one worker costs 1,000 units here.

use super::ends_tests::{holds, obeys, running, settled};
use super::simulation::{Theatre, task, terms};
use super::tests::{calm, until};
use super::{Effect, plan};
use crate::world::Event;
use crate::world::records::{Account, Differs, Leaving, Stall, Stuck};
use supercargo_crds::common::Condition;
use supercargo_crds::names::escrow_stall::{CHAIN_SET_UP, NO_GAS};
use supercargo_ledger::FundingBalance;
use supercargo_market::money::Amount;
use supercargo_market::work::{FundingId, WorkId};

fn units(units: u64) -> Amount {
    Amount::from_units(units)
}

/// Plenty, and nothing of it goes.
fn account(leaving: Leaving) -> Account {
    let there = if leaving.there.is_zero() { units(100_000_000) } else { leaving.there };
    Account { exists: true, funded: units(100_000_000), leaving: Leaving { there, ..leaving }, ..Account::default() }
}

fn says(theatre: &mut Theatre, account: Account) {
    theatre.world.apply(Event::Account { funding: FundingId::internal("e"), account: Box::new(account) });
}

fn lets_out(theatre: &mut Theatre, rate: u64) {
    says(theatre, account(Leaving { rate_units_per_second: Some(rate), ..Leaving::default() }));
}

/// So much is held back for what runs.
fn books_say(theatre: &mut Theatre) -> u64 {
    let reserved = theatre.world.reservations.values().map(|held| held.reserved.units()).sum();
    let (deposited, reserved_units) = (units(100_000_000), units(reserved));
    let available = deposited.saturating_sub(reserved_units);
    let balance = FundingBalance { deposited, available, reserved: reserved_units, ..FundingBalance::default() };
    theatre.world.apply(Event::Funding { funding: FundingId::internal("e"), balance, last_post: None });
    reserved
}

/// A cluster whose escrow is in the books, and no task yet.
fn open() -> Theatre {
    let mut theatre = calm([]);
    (0..4).for_each(|_| theatre.pass());
    theatre
}

fn joins(theatre: &mut Theatre, name: &str) {
    let task = task(name, "1", 0);
    theatre.tasks.insert(name.into(), task.clone());
    theatre.world.apply(Event::Task(Box::new(task)));
}

/// Passes until nothing is left to do, and the reason and words in which a task waits.
fn waits(theatre: &mut Theatre, name: &str) -> Option<(String, String)> {
    (0..8).for_each(|_| theatre.pass());
    let waiting = &theatre.tasks[name].status.waiting;
    waiting.first().map(|one| (one.reason.clone(), one.example.clone()))
}

fn holds_money(theatre: &Theatre, name: &str) -> bool {
    theatre.world.reservations.contains_key(&WorkId::task(format!("uid-of-{name}")))
}

#[test]
fn what_runs_uses_four_fifths_of_the_rate_and_who_is_next_waits_and_is_told_what_helps() {
    let mut theatre = open();
    lets_out(&mut theatre, 2_499);
    joins(&mut theatre, "a");
    assert_eq!(waits(&mut theatre, "a"), None);
    assert!(holds_money(&theatre, "a"));
    joins(&mut theatre, "b");
    let (reason, words) = waits(&mut theatre, "b").expect("it waits");
    assert_eq!(reason, "RateCap");
    let expected = "it costs 3.60 an hour, and of the 7.19712 that its account lets out for running tasks 3.60 is in use: it waits for \
                    others to end, or for `kubectl supercargo escrow raise`";
    assert_eq!(words, expected);
    assert!(!holds_money(&theatre, "b"));

    // More is let out: nobody waits for the next look at the market.
    lets_out(&mut theatre, 2_500);
    waits(&mut theatre, "b");
    assert!(holds_money(&theatre, "b"));
}

#[test]
fn who_waits_for_the_rate_begins_when_another_has_ended() {
    let mut theatre = running(task("a", "1", 0));
    lets_out(&mut theatre, 1_250);
    joins(&mut theatre, "b");
    assert!(waits(&mut theatre, "b").is_some_and(|(reason, _)| reason == "RateCap"));
    theatre.now += 5;
    let now = theatre.now;
    super::tests::set(&mut theatre, |pod| super::tests::ends(pod, now, 0));
    waits(&mut theatre, "b");
    assert!(holds_money(&theatre, "b") && !holds_money(&theatre, "a"));
}

#[test]
fn what_is_too_much_for_the_rate_by_itself_is_told_so() {
    let mut theatre = open();
    lets_out(&mut theatre, 1_249);
    joins(&mut theatre, "a");
    let (reason, words) = waits(&mut theatre, "a").expect("it waits");
    assert!(reason == "RateCap" && words.contains("it alone is too much"), "{reason}: {words}");
}

#[test]
fn what_thaws_is_worked_for_until_it_could_not_be_collected_any_more() {
    let mut theatre = running(task("a", "1", 0));
    let (begun, reserved) = (theatre.now, books_say(&mut theatre));
    let thaws = |funded: u64| {
        let leaving = Leaving {
            there: units(reserved),
            until: Some(begun + 100),
            thawing: units(5),
            thaw_end: Some(begun + 200),
            ..Leaving::default()
        };
        Account { funded: units(funded), ..account(leaving) }
    };
    says(&mut theatre, thaws(reserved - 1));
    theatre.now = begun + 99;
    settled(&mut theatre);
    assert!(theatre.pods.values().all(|pod| !pod.deleting), "it can still be collected");

    // The thaw is given up: what stays is enough again.
    says(&mut theatre, thaws(reserved));
    theatre.now = begun + 101;
    settled(&mut theatre);
    assert!(theatre.pods.values().all(|pod| !pod.deleting), "what stays pays for it");

    says(&mut theatre, thaws(reserved - 1));
    until(&mut theatre, "delete_pod").into_iter().for_each(|effect| theatre.carry_out(effect));
    theatre.now += 5;
    obeys(&mut theatre, 143);
    let status = settled(&mut theatre);
    let attempt = status.attempts.last().expect("it ended");
    assert_eq!(attempt.outcome, "Unfunded");
    assert!(attempt.billed_seconds > 100, "what ran is billed");
    assert_eq!(holds(&status, "Finished"), None, "it may go on with other money");
}

#[test]
fn who_began_last_ends_first_and_nobody_for_a_chain_that_cant_be_read() {
    let mut theatre = calm([task("a", "1", 0), task("b", "1", 0), task("c", "1", 0)]);
    settled(&mut theatre);
    for (bound, name) in (0..).zip(["a", "b", "c"]) {
        let held = theatre.world.reservations.get_mut(&WorkId::task(format!("uid-of-{name}"))).expect("it has its place");
        (held.reserved, held.placement.bound) = (units(100), theatre.now + bound);
    }
    let now = theatre.now;
    let until = Some(now + 50);
    let blind = Account { stalled: Some(Stall { reason: CHAIN_SET_UP, words: "w".into() }), ..Account::default() };
    let gone = |there: u64, until| account(Leaving { there: units(there), until, ..Leaving::default() });
    let unable = Stall { reason: NO_GAS, words: "w".into() };
    for (name, account, ends) in [
        ("nothing goes", gone(300, None), vec![]),
        ("what goes is not needed", Account { funded: units(300), ..gone(300, until) }, vec![]),
        ("a unit of it is", Account { funded: units(299), ..gone(300, until) }, vec![("c", now + 50)]),
        ("we can't post for now", Account { funded: units(299), stalled: Some(unable), ..gone(300, until) }, vec![("c", now + 50)]),
        ("nothing stays", Account { funded: units(0), ..gone(300, until) }, vec![("a", now + 50), ("b", now + 50), ("c", now + 50)]),
        ("some of it is gone already", Account { funded: units(0), ..gone(200, until) }, vec![("a", now + 50), ("b", now + 50), ("c", 0)]),
        ("the bucket alone ends nothing", Account { funded: units(0), ..gone(300, None) }, vec![]),
        ("it is gone", Account { funded: units(0), ..gone(100, None) }, vec![("b", 0), ("c", 0)]),
        ("it can't be read", blind, vec![("b", 0), ("c", 0)]),
        ("it is back", gone(300, None), vec![]),
    ] {
        books_say(&mut theatre);
        says(&mut theatre, account);
        plan(&mut theatre.world, &terms(), now - 1_000);
        let mut found: Vec<(String, i64)> =
            theatre.world.recalled.iter().map(|(work, recall)| (work.uid.replace("uid-of-", ""), recall.at)).collect();
        found.sort();
        let expected: Vec<(String, i64)> = ends.into_iter().map(|(name, at)| (name.to_owned(), at)).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn what_runs_ends_for_a_thaw_also_when_its_escrow_was_deleted() {
    let mut theatre = running(task("a", "1", 0));
    let (now, reserved) = (theatre.now, books_say(&mut theatre));
    let names: Vec<_> = theatre.world.escrows.keys().cloned().collect();
    names.into_iter().for_each(|key| theatre.world.apply(Event::EscrowGone(key)));
    let leaving = Leaving { there: units(reserved), until: Some(now + 100), ..Leaving::default() };
    says(&mut theatre, Account { funded: units(reserved - 1), ..account(leaving) });
    plan(&mut theatre.world, &terms(), now);
    let ends: Vec<i64> = theatre.world.recalled.values().map(|recall| recall.at).collect();
    assert_eq!(ends, [now + 100]);
}

#[test]
fn on_a_frozen_account_nothing_starts_and_what_runs_goes_on() {
    let mut theatre = running(task("a", "1", 0));
    let frozen = Leaving { frozen_until: Some(theatre.now + 1_000), ..Leaving::default() };
    says(&mut theatre, account(frozen));
    joins(&mut theatre, "b");
    let (reason, words) = waits(&mut theatre, "b").expect("it waits");
    assert!(reason == "EscrowFrozen" && words.starts_with("the account of Escrow n/default is frozen until 2027-"), "{reason}: {words}");
    assert!(theatre.pods.values().all(|pod| !pod.deleting));
    says(&mut theatre, account(Leaving::default()));
    waits(&mut theatre, "b");
    assert!(holds_money(&theatre, "b"));
}

#[test]
fn what_goes_is_told_in_the_escrows_status_and_once_as_an_event() {
    let mut theatre = calm([]);
    let mut told = |leaving: Leaving| {
        says(&mut theatre, account(leaving));
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        let written = effects.into_iter().find_map(|effect| match effect {
            Effect::WriteEscrow { status, note, .. } => Some((*status, note)),
            _ => None,
        });
        let (status, note) = written?;
        let mut escrow = theatre.world.escrows.values().next().cloned().expect("it is there");
        escrow.status = status.clone();
        theatre.world.apply(Event::Escrow(Box::new(escrow)));
        let of =
            |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind).map(|told: &Condition| told.reason.clone());
        Some((of("Leaving"), of("Frozen"), note.map(|note| (note.reason, note.message))))
    };
    told(Leaving::default());
    let thaws = Leaving { until: Some(1_800_000_100), thawing: units(5_000_000), thaw_end: Some(1_800_000_200), ..Leaving::default() };
    let message = "5.00 of its Escrow's account thaws and may be withdrawn from 2027-01-15T08:03:20Z: tasks that need more than what \
                   stays end by 2027-01-15T08:01:40Z";
    let event = Some(("Thawing".to_owned(), message.to_owned()));
    assert_eq!(told(thaws.clone()), Some((Some("Thawing".into()), None, event)));
    assert_eq!(told(thaws), None, "it is told");
    let (leaving, frozen, note) = told(Leaving { frozen_until: Some(1_800_000_300), ..Leaving::default() }).expect("it is told");
    assert_eq!((leaving, frozen.as_deref()), (None, Some("Frozen")));
    assert!(note.is_some_and(|(reason, _)| reason == "Frozen"));
    let change = |leaves_us| Leaving { until: Some(1_800_000_100), change_at: Some(1_800_000_200), leaves_us, ..Leaving::default() };
    assert_eq!(told(change(true)).map(|(leaving, ..)| leaving), Some(Some("SettlerChanges".into())));
    assert_eq!(told(change(false)).map(|(leaving, ..)| leaving), Some(Some("LimitsFall".into())));
    let (leaving, frozen, note) = told(Leaving::default()).expect("it is told");
    assert_eq!((leaving, frozen, note), (None, None, None), "that it is over is no news");
}

#[test]
fn that_the_settlers_key_runs_out_of_gas_or_that_gas_is_dear_is_told_before_anything_stalls() {
    let mut theatre = calm([]);
    let mut told = |gas_low: Option<(&'static str, &str)>| {
        let gas_low = gas_low.map(|(reason, words)| Stall { reason, words: words.to_owned() });
        says(&mut theatre, Account { gas_low, ..account(Leaving::default()) });
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        let status =
            effects.into_iter().find_map(|effect| if let Effect::WriteEscrow { status, .. } = effect { Some(*status) } else { None })?;
        let mut escrow = theatre.world.escrows.values().next().cloned().expect("it is there");
        escrow.status = status.clone();
        theatre.world.apply(Event::Escrow(Box::new(escrow)));
        let found = status.conditions.iter().find(|condition| condition.type_ == "GasLow");
        Some(found.map(|told| (told.reason.clone(), told.message.clone())))
    };
    let (low, high) = (("GasLow", "little is left"), ("FeeHigh", "it is dear"));
    let says = |(reason, words): (&str, &str)| Some(Some((reason.to_owned(), words.to_owned())));
    assert_eq!(told(None), Some(None));
    assert_eq!(told(Some(low)), says(low));
    assert_eq!(told(Some(low)), None, "it is told");
    assert_eq!(told(Some(high)), says(high), "that posts wait is news");
    assert_eq!(told(None), Some(None));
}

#[test]
fn what_the_chain_and_the_books_say_differently_is_told_with_how_much_and_since_when_and_goes_when_they_agree() {
    let mut theatre = calm([]);
    let mut says_of = |differs: Option<(u64, u64)>, unknown_payees: &[u32]| {
        let differs = differs.map(|(credited, posted)| Differs { credited: units(credited), posted: units(posted), since: 1_800_000_000 });
        says(&mut theatre, Account { differs, unknown_payees: unknown_payees.to_vec(), ..account(Leaving::default()) });
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        let status =
            effects.into_iter().find_map(|effect| if let Effect::WriteEscrow { status, .. } = effect { Some(*status) } else { None })?;
        let mut escrow = theatre.world.escrows.values().next().cloned().expect("it is there");
        escrow.status = status.clone();
        theatre.world.apply(Event::Escrow(Box::new(escrow)));
        let differs = status.conditions.iter().find(|condition| condition.type_ == "ChainDiffers");
        assert!(status.conditions.iter().all(|condition| condition.type_ != "Stalled"), "that stalls nothing");
        Some(differs.map(|told| (told.reason.clone(), told.message.clone())))
    };
    let mut told = |differs| says_of(differs, &[]);
    assert_eq!(told(None), Some(None));
    let (reason, words) = told(Some((1_500_000, 1_000_000))).flatten().expect("it is told");
    assert_eq!(reason, "ChainHasMore");
    let expected = "since 2027-01-15T08:00:00Z the chain has credited 0.50 more than the books have as posted: a payee has claimed with a \
                    voucher, which the next post books, or another ledger posts from this account";
    assert_eq!(words, expected);
    assert_eq!(told(Some((1_500_000, 1_000_000))), None, "it is told");
    let (reason, words) = told(Some((0, 1_000_000))).flatten().expect("it is told");
    assert_eq!(reason, "BooksHaveMore");
    assert!(words.starts_with("since 2027-01-15T08:00:00Z the books have 1.00 more as posted than the chain has credited"), "{words}");
    assert_eq!(told(None), Some(None));

    let waits = "what is owed there is kept, and posted once somebody registers it; all other payees are paid";
    let words = |of: &str| format!("the chain's contract knows no payee {of}: {waits}");
    assert_eq!(says_of(None, &[9]).flatten(), Some(("PayeeUnknown".to_owned(), words("9"))));
    assert_eq!(says_of(None, &[9, 12, 13]).flatten(), Some(("PayeeUnknown".to_owned(), words("9 nor 2 more"))));
    let (reason, both) = says_of(Some((0, 1_000_000)), &[9]).flatten().expect("it is told");
    assert_eq!(reason, "BooksHaveMore");
    assert!(both.ends_with(&format!("it is posted again; and {}", words("9"))), "{both}");
    assert_eq!(says_of(None, &[]), Some(None), "it is registered");
}

#[test]
fn that_nothing_goes_out_to_the_chain_is_told_with_since_when_and_why_and_ends_when_it_does() {
    let mut theatre = calm([]);
    let mut told = |stuck: Option<Stuck>, differs: bool| {
        let differs = differs.then_some(Differs { credited: units(5), posted: units(4), since: 1_800_000_000 });
        says(&mut theatre, Account { stuck, differs, ..account(Leaving::default()) });
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        let status =
            effects.into_iter().find_map(|effect| if let Effect::WriteEscrow { status, .. } = effect { Some(*status) } else { None })?;
        let mut escrow = theatre.world.escrows.values().next().cloned().expect("it is there");
        escrow.status = status.clone();
        theatre.world.apply(Event::Escrow(Box::new(escrow)));
        let stalled = status.conditions.iter().any(|condition| condition.type_ == "Stalled");
        let found = status.conditions.iter().find(|condition| condition.type_ == "ChainDiffers");
        Some((stalled, found.map(|told| (told.reason.clone(), told.message.clone()))))
    };
    let stuck = || Some(Stuck { since: 1_800_000_000, why: "gas is dear".to_owned() });
    assert_eq!(told(None, false).map(|(_, found)| found), Some(None));
    let words = "since 2027-01-15T08:00:00Z nothing of what it owes goes out to the chain: gas is dear. It stays owed, and whoever it is \
                 owed to can claim it with `kubectl supercargo voucher claim`";
    assert_eq!(told(stuck(), false), Some((false, Some(("NotPosted".to_owned(), words.to_owned())))), "and tasks go on");
    assert_eq!(told(stuck(), false), None, "it is told");
    let (_, both) = told(stuck(), true).expect("that is news");
    let (reason, message) = both.expect("both are told");
    assert!(reason == "NotPosted" && message.starts_with(words) && message.contains("; and since"), "{message}");
    assert_eq!(told(None, false).map(|(_, found)| found), Some(None));
}

#[test]
fn a_pool_says_whether_its_payee_could_claim_all_that_it_has_earned() {
    let mut theatre = calm([]);
    let mut paid = super::simulation::pool();
    (paid.spec.chain, paid.spec.payee) = (Some("c".into()), Some(7));
    theatre.world.apply(Event::Pool(Box::new(paid)));
    let mut says = |unsigned: &[(u32, i64)], unknown: &[u32]| {
        let (unsigned, unknown) = (unsigned.iter().copied().collect(), unknown.iter().copied().collect());
        theatre.world.apply(Event::Vouched { chain: "c".into(), unsigned, unknown });
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        let status =
            effects.into_iter().find_map(|effect| if let Effect::WritePool { status, .. } = effect { Some(*status) } else { None });
        let mut pool = theatre.world.pools["pool"].clone();
        pool.status = status?;
        let fresh = pool.status.conditions.iter().find(|condition| condition.type_ == "VoucherFresh").cloned();
        theatre.world.apply(Event::Pool(Box::new(pool)));
        fresh.map(|fresh| (fresh.status, fresh.message))
    };
    let mut told = |unsigned: &[(u32, i64)]| says(unsigned, &[]);
    let words = |status: &str, message: &str| Some((status.to_owned(), message.to_owned()));
    let good = "all that payee 7 has earned is signed for: take it with `kubectl supercargo voucher pull`";
    assert_eq!(told(&[]), words("True", good));
    assert_eq!(told(&[(8, 5)]), None, "that is another payee");
    let bad = "since 2027-01-15T08:00:00Z something that payee 7 has earned is not signed for: the operator can't use its key or its books";
    assert_eq!(told(&[(7, 1_800_000_000)]), words("False", bad));
    assert_eq!(told(&[]), words("True", good));

    let nobody = "the contract of chain \"c\" knows no payee 7: what it earns is kept and can be neither posted nor claimed until somebody \
                  registers it with `kubectl supercargo payee register`";
    assert_eq!(says(&[], &[8]), None, "that is another payee");
    assert_eq!(says(&[], &[7]), words("False", nobody));
    assert_eq!(says(&[(7, 1_800_000_000)], &[7]), None, "whether it is signed for helps nobody then");
    assert_eq!(says(&[], &[]), words("True", good));
}
