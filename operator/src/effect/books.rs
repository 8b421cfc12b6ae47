//! The ledger's side of effects: a pass's postings in one transaction, and what a new leader has to know.

use super::PATIENCE;
use crate::plan::Booking;
use crate::watch::now;
use crate::world::Event;
use crate::world::records::{Placement, Reservation};
use futures::future::join_all;
use std::collections::BTreeSet;
use supercargo_ledger::{Fence, Ledger, LedgerError, Outcome, Posting, ReservationRow, WorkBalance};
use supercargo_market::funding::day_of;
use supercargo_market::usage::Anomaly;
use supercargo_market::work::{FundingId, WorkId};

/// So many postings are booked, and what they touched is read, as long as an effect may take.
const PORTION: usize = 500;
const READING: &str = "reading what the books hold";

/// Books what is to be booked, and tells what the books say afterwards of everything that was touched. However much it is, what is
/// booked is told: what comes after something that took too long, or failed, is planned again. What two sources disagree about is found
/// of what is in the books for the first time, whatever fails afterwards.
pub async fn book(ledger: &Ledger, fence: Fence, bookings: Vec<Booking>, anomalies: &mut Vec<Anomaly>) -> Result<Vec<Event>, LedgerError> {
    let mut events = Vec::new();
    for portion in portions(bookings.into_iter().flat_map(Booking::postings)) {
        match in_time("booking", book_portion(ledger, fence, portion, anomalies)).await {
            Ok(news) => events.extend(news),
            Err(error) if events.is_empty() => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "a part of what was to be booked is not");
                break;
            }
        }
    }
    Ok(events)
}

async fn in_time<T>(doing: &'static str, asked: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
    let late = LedgerError::Silent { doing, seconds: PATIENCE.as_secs() };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(late))
}

/// In their order; what is of one work stays together.
fn portions(postings: impl Iterator<Item = Posting>) -> Vec<Vec<Posting>> {
    let mut portions: Vec<Vec<Posting>> = Vec::new();
    for posting in postings {
        let same = |last: &Posting| work_of(last).is_some() && work_of(last) == work_of(&posting);
        match portions.last_mut().filter(|portion| portion.len() < PORTION || portion.last().is_some_and(same)) {
            Some(portion) => portion.push(posting),
            None => portions.push(vec![posting]),
        }
    }
    portions
}

/// Whose a posting is, where it is of one work.
fn work_of(posting: &Posting) -> Option<&WorkId> {
    match posting {
        Posting::Reserve { work, .. } | Posting::Release { work } => Some(work),
        Posting::Charge(charge) => Some(&charge.work),
        _ => None,
    }
}

/// Unless what the books hold of one thing can't be read: that is no reason to tell nothing of the others.
fn or_unread(work: &WorkId, read: Result<Event, LedgerError>) -> Result<Event, LedgerError> {
    match read {
        Err(error) if error.is_of_the_request() => {
            tracing::error!(%work, %error, "what the books hold of this can't be read: nothing is done of it");
            Ok(Event::Unread { work: work.clone(), why: error.to_string() })
        }
        read => read,
    }
}

async fn book_portion(
    ledger: &Ledger,
    fence: Fence,
    postings: Vec<Posting>,
    anomalies: &mut Vec<Anomaly>,
) -> Result<Vec<Event>, LedgerError> {
    let booked = commit(ledger, fence, postings, anomalies).await?;
    let mut events = Vec::new();
    let mut fundings: Vec<FundingId> = Vec::new();
    let (mut places, mut works, mut held_at) = (BTreeSet::new(), Vec::new(), None);
    for (posting, outcome) in &booked {
        match (posting, outcome) {
            (Posting::Reserve { work, .. }, Outcome::Refused(why)) => {
                events.push(Event::Refused { work: work.clone(), why: why.clone(), at: now() });
                continue;
            }
            (Posting::Fund { funding, .. } | Posting::Cases { funding, .. }, Outcome::Refused(why)) => {
                tracing::warn!(?posting, why, "the books refuse what is put in");
                events.push(Event::Unfunded { funding: funding.clone(), why: why.clone(), at: now() });
                continue;
            }
            (_, Outcome::Refused(why)) => tracing::error!(?posting, why, "the books refuse a posting"),
            (Posting::Charge(charge), _) => {
                events.push(Event::Charged { work: charge.work.clone(), attempt: charge.attempt });
                places.insert(charge.place.as_str());
            }
            _ => {}
        }
        match posting {
            Posting::Fund { funding, .. } => fundings.push(funding.clone()),
            Posting::Reserve { work, funding, .. } => {
                fundings.push(funding.clone());
                works.push(work);
            }
            Posting::Charge(charge) => works.push(&charge.work),
            Posting::Card(_) => {}
            Posting::Release { work } => {
                works.push(work);
                fundings.extend(ledger.reservation(work).await?.map(|row| row.funding));
            }
            Posting::Cases { funding, .. } => fundings.push(funding.clone()),
            Posting::Hold { at, .. } => held_at = held_at.max(Some(*at)),
        }
    }
    if let Some(at) = held_at {
        events.push(Event::Held { at, fundings: ledger.held().await? });
    }
    // All of them are in the books by now: once is enough for each.
    works.sort_unstable();
    works.dedup();
    for work in works {
        events.push(or_unread(work, load_work(ledger, work).await)?);
    }
    for place in places {
        events.push(Event::Record { place: place.to_owned(), record: ledger.record(place).await? });
    }
    fundings.sort();
    fundings.dedup();
    for funding in fundings {
        events.extend(load_funding(ledger, funding).await?);
    }
    Ok(events)
}

/// All of it in one transaction. What the books can't take is no reason to refuse the rest: then each thing asks for itself, and
/// what was taken is given back. An error: nothing was, or the books are away.
async fn commit(
    ledger: &Ledger,
    fence: Fence,
    postings: Vec<Posting>,
    anomalies: &mut Vec<Anomaly>,
) -> Result<Vec<(Posting, Outcome)>, LedgerError> {
    let things = match ledger.commit(fence, &postings).await {
        Ok(outcomes) => {
            anomalies.extend(disagreements(&postings, &outcomes));
            return Ok(postings.into_iter().zip(outcomes).collect());
        }
        Err(error) if error.is_of_the_request() => apart(postings),
        Err(error) => return Err(error),
    };
    let answers = join_all(things.iter().map(|thing| ledger.commit(fence, thing))).await;
    for (thing, answer) in things.iter().zip(&answers) {
        anomalies.extend(answer.iter().flat_map(|outcomes| disagreements(thing, outcomes)));
    }
    let (mut booked, mut refused) = (Vec::new(), None);
    for (thing, answer) in things.into_iter().zip(answers) {
        match answer {
            Ok(outcomes) => booked.extend(thing.into_iter().zip(outcomes)),
            Err(error) if error.is_of_the_request() => {
                tracing::error!(postings = ?thing, %error, "the books can't take this, and go on with the rest");
                refused = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    refused.filter(|_| booked.is_empty()).map_or(Ok(booked), Err)
}

/// Things that have nothing to do with each other, in their order: what is of one work stays together, and what runs is told of
/// each work by itself.
fn apart(postings: Vec<Posting>) -> Vec<Vec<Posting>> {
    let mut things: Vec<(Option<WorkId>, Vec<Posting>)> = Vec::new();
    for posting in postings {
        let work = work_of(&posting).cloned();
        match (posting, things.last_mut()) {
            (Posting::Hold { at, works }, _) => {
                things.extend(works.into_iter().map(|one| (None, vec![Posting::Hold { at, works: vec![one] }])));
            }
            (posting, Some((last, same))) if work.is_some() && *last == work => same.push(posting),
            (posting, _) => things.push((work, vec![posting])),
        }
    }
    things.into_iter().map(|(_, postings)| postings).collect()
}

/// What charges say that two sources disagree about. A charge that is booked again counts no more.
fn disagreements(postings: &[Posting], outcomes: &[Outcome]) -> Vec<Anomaly> {
    let booked = postings.iter().zip(outcomes).filter(|(_, outcome)| **outcome == Outcome::Applied);
    let charges = booked.filter_map(|(posting, _)| if let Posting::Charge(charge) = posting { Some(charge) } else { None });
    charges.filter_map(|charge| charge.metered.as_ref()).flat_map(|metered| metered.anomalies.iter().copied()).collect()
}

/// What the books say of a funding, and of its last day.
async fn load_funding(ledger: &Ledger, funding: FundingId) -> Result<Vec<Event>, LedgerError> {
    let Some(balance) = ledger.funding(&funding).await? else { return Ok(Vec::new()) };
    let last_post = ledger.last_final(&funding).await?;
    // Tomorrow has begun by the clock of whoever charged on it.
    let latest = day_of(now()) + 1;
    let spent = ledger.last_day(&funding, latest).await?.map(|(day, charged)| Event::Spent { funding: funding.clone(), day, charged });
    Ok(spent.into_iter().chain([Event::Funding { funding, balance, last_post }]).collect())
}

/// What the books say of one work.
pub async fn load_work(ledger: &Ledger, work: &WorkId) -> Result<Event, LedgerError> {
    let balance = ledger.work_with_receipt(work).await?;
    of_work(ledger, work, balance).await
}

async fn of_work(ledger: &Ledger, work: &WorkId, balance: WorkBalance) -> Result<Event, LedgerError> {
    let row = ledger.reservation(work).await?;
    let latest = row.as_ref().map(placement).transpose()?;
    let reservation = row
        .filter(|row| row.open)
        .zip(latest.clone())
        .map(|(row, placement)| Box::new(Reservation { funding: row.funding, reserved: row.reserved, charged: row.charged, placement }));
    Ok(Event::Reserved { work: work.clone(), reservation, latest: latest.map(Box::new), balance })
}

/// Where a new leader begins: every open reservation, and the works that are given. Who has pods may yet have to be told how
/// it ended, with its receipt; of the others there may be very many.
pub async fn load(ledger: &Ledger, works: &[WorkId], with_pods: &BTreeSet<WorkId>) -> Result<Vec<Event>, LedgerError> {
    let mut events = Vec::new();
    let open = in_time(READING, ledger.open_reservations()).await?;
    let closed = works.iter().filter(|work| !open.iter().any(|row| row.work == **work));
    for work in open.iter().map(|row| &row.work).chain(closed) {
        let told = !with_pods.contains(work);
        let read = async { if told { of_work(ledger, work, ledger.work(work).await?).await } else { load_work(ledger, work).await } };
        let event = or_unread(work, in_time(READING, read).await)?;
        // A work whose reservation was released had its last attempt charged in the same transaction.
        if let Event::Reserved { reservation: None, latest: Some(latest), .. } = &event {
            events.push(Event::Charged { work: work.clone(), attempt: latest.attempt });
        }
        events.push(event);
    }
    let records = in_time(READING, ledger.records()).await?;
    events.extend(records.into_iter().map(|(place, record)| Event::Record { place, record }));
    for funding in in_time(READING, ledger.fundings()).await? {
        events.extend(in_time(READING, load_funding(ledger, funding)).await?);
    }
    Ok(events)
}

fn placement(row: &ReservationRow) -> Result<Placement, LedgerError> {
    serde_json::from_str(&row.detail).map_err(|error| LedgerError::Broken(format!("where {} went can't be read: {error}", row.work)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use sqlx::Connection;
    use supercargo_ledger::Charge;
    use supercargo_market::asset::Asset;
    use supercargo_market::fees::FeeSchedule;
    use supercargo_market::metering::Evidence;
    use supercargo_market::money::Amount;
    use supercargo_market::rating::{self, Held};
    use supercargo_market::work::SegmentId;

    fn units(units: u64) -> Amount {
        Amount::from_units(units)
    }

    fn detail() -> String {
        let placement = serde_json::json!({
            "attempt": 0, "namespace": "n", "task": "a", "token": "USDC", "tenancy": "Shared", "resourceName": "nvidia.com/gpu",
            "runSeconds": 600, "holdSeconds": 700, "bound": 0, "workers": [],
        });
        placement.to_string()
    }

    /// A base unit a second.
    fn charge(seconds: u64) -> Posting {
        charge_of("a", "p", seconds)
    }

    pub(in crate::effect) fn charge_of(work: &str, pod: &str, seconds: u64) -> Posting {
        let held = Held { devices: 1, device_price: "0.0036".parse().expect("a price"), ..Held::default() };
        Posting::Charge(Charge {
            work: WorkId::task(work),
            attempt: 0,
            segment: SegmentId::of_pod(pod, 0),
            seconds,
            evidence: Evidence::Record,
            place: "acme/n1".into(),
            fault: false,
            cost: rating::cost(&held, seconds).expect("fits"),
            payee: None,
            metered: None,
            fees: FeeSchedule::default(),
            day: 20_000,
        })
    }

    /// What is told of the money, in short.
    fn told(events: &[Event]) -> Vec<String> {
        let of = |event: &Event| match event {
            Event::Held { at, fundings } => {
                Some(format!("held at {at}: {:?}", fundings.iter().map(|(_, held)| held.units()).collect::<Vec<_>>()))
            }
            Event::Spent { day, charged, .. } => Some(format!("{} on day {day}", charged.units())),
            Event::Funding { balance, .. } => {
                Some(format!("{} free, {} held of {}", balance.available.units(), balance.held.units(), balance.reserved.units()))
            }
            _ => None,
        };
        events.iter().filter_map(of).collect()
    }

    #[tokio::test]
    async fn what_the_books_were_told_of_runs_and_days_is_told_back_and_to_whoever_leads_next() {
        let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
        let fence = ledger.take_lead("first").await.expect("leads");
        let (work, funding) = (WorkId::task("a"), FundingId::internal("e"));
        let book = async |postings: Vec<Posting>| {
            let bookings = postings.into_iter().map(Booking::Post).collect();
            told(&book(&ledger, fence, bookings, &mut Vec::new()).await.expect("books"))
        };
        let fund = Posting::Fund {
            asset: Asset::of(&funding, "USDC"),
            funding: funding.clone(),
            deposited: units(1_000),
            withdrawn: Amount::ZERO,
        };
        let reserve = Posting::Reserve {
            work: work.clone(),
            asset: Asset::of(&funding, "USDC"),
            funding,
            amount: units(400),
            detail: detail(),
            parent: None,
        };
        assert_eq!(book(vec![fund, reserve]).await, ["600 free, 0 held of 400"]);
        let hold = Posting::Hold { at: 60, works: vec![(work.clone(), units(60)), (WorkId::task("gone"), units(9))] };
        assert_eq!(book(vec![hold]).await, ["held at 60: [60]"]);
        let found = load(&ledger, &[], &BTreeSet::new()).await.expect("reads");
        assert_eq!(told(&found), ["600 free, 60 held of 400"]);
        assert_eq!(book(vec![charge(90), Posting::Release { work }]).await, ["90 on day 20000", "910 free, 0 held of 0"]);
        assert_eq!(book(vec![Posting::Hold { at: 120, works: Vec::new() }]).await, ["held at 120: []"]);
        assert_eq!(told(&load(&ledger, &[], &BTreeSet::new()).await.expect("reads")), ["90 on day 20000", "910 free, 0 held of 0"]);
    }

    pub(in crate::effect) fn fund() -> Posting {
        let funding = FundingId::internal("e");
        Posting::Fund { asset: Asset::of(&funding, "USDC"), funding, deposited: units(1_000), withdrawn: Amount::ZERO }
    }

    pub(in crate::effect) fn reserve(work: &str) -> Posting {
        let (work, funding) = (WorkId::task(work), FundingId::internal("e"));
        Posting::Reserve { work, asset: Asset::of(&funding, "USDC"), funding, amount: units(100), detail: detail(), parent: None }
    }

    fn release(work: &str) -> Posting {
        Posting::Release { work: WorkId::task(work) }
    }

    fn hold(works: &[&str]) -> Posting {
        Posting::Hold { at: 60, works: works.iter().map(|work| (WorkId::task(*work), units(7))).collect() }
    }

    #[test]
    fn what_is_of_one_work_stays_together_and_everything_else_stands_for_itself() {
        let pass = vec![fund(), fund(), reserve("a"), charge(1), release("a"), reserve("b"), release("c"), hold(&["a", "b"]), reserve("b")];
        let things = vec![
            vec![fund()],
            vec![fund()],
            vec![reserve("a"), charge(1), release("a")],
            vec![reserve("b")],
            vec![release("c")],
            vec![hold(&["a"])],
            vec![hold(&["b"])],
            vec![reserve("b")],
        ];
        assert_eq!(apart(pass), things);
    }

    #[tokio::test]
    async fn what_the_books_cant_take_stops_nothing_else_and_is_told_when_it_is_alone() {
        let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
        let fence = ledger.take_lead("first").await.expect("leads");
        let book = async |postings: &[Posting]| {
            let bookings = postings.iter().cloned().map(Booking::Post).collect();
            super::book(&ledger, fence, bookings, &mut Vec::new()).await
        };
        book(&[fund(), reserve("a"), reserve("b"), reserve("c"), charge_of("a", "p", 10)]).await.expect("books");
        // There is no such payee: the database refuses it.
        let Posting::Charge(other) = charge_of("b", "r", 10) else { unreachable!("it is a charge") };
        let wrong = [Posting::Charge(Charge { payee: Some(0), ..other }), release("b")];
        let pass = [&wrong[..], &[charge_of("c", "q", 20), release("c"), hold(&["a", "b"])]].concat();
        let entries = ledger.verify().await.expect("verifies").entries;
        let events = book(&pass).await.expect("the rest is taken");
        let charged: Vec<_> =
            events.iter().filter_map(|event| if let Event::Charged { work, .. } = event { Some(&*work.uid) } else { None }).collect();
        assert_eq!(charged, ["c"]);
        assert_eq!(told(&events), ["held at 60: [14]", "30 on day 20000", "780 free, 14 held of 190"]);
        let open: Vec<_> = ledger.open_reservations().await.expect("reads").into_iter().map(|row| row.work.uid.to_string()).collect();
        assert_eq!(open, ["a", "b"], "nothing of what was refused is done by half");
        assert_eq!(ledger.verify().await.expect("verifies").entries, entries + 4);

        let error = book(&wrong).await.expect_err("there is nothing else").to_string();
        assert!(error.starts_with("adding to lanes: "), "{error}");
        book(&pass).await.expect("again");
        assert_eq!(ledger.work(&WorkId::task("c")).await.expect("reads").charged, units(20), "counts once");
    }

    #[tokio::test]
    async fn what_cant_be_read_of_one_work_keeps_nothing_else_from_being_told_also_to_whoever_leads_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("books.db").display());
        let ledger = Ledger::open(&url).await.expect("opens");
        let fence = ledger.take_lead("first").await.expect("leads");
        let book = async |postings: &[Posting]| {
            let bookings = postings.iter().cloned().map(Booking::Post).collect();
            super::book(&ledger, fence, bookings, &mut Vec::new()).await.expect("books")
        };
        book(&[fund(), reserve("a"), reserve("b")]).await;
        sqlx::any::install_default_drivers();
        let mut other = sqlx::AnyConnection::connect(&url).await.expect("connects");
        // Whatever is written there is broken.
        let broken = "CREATE TRIGGER broken AFTER UPDATE ON reservations WHEN NEW.work LIKE '%a' AND NEW.detail <> '{' \
                      BEGIN UPDATE reservations SET detail = '{' WHERE work = NEW.work; END";
        sqlx::query(broken).execute(&mut other).await.expect("makes it");
        let told = |events: &[Event]| -> Vec<String> {
            let of = |event: &Event| match event {
                Event::Charged { work, .. } => Some(format!("{} is charged", work.uid)),
                Event::Reserved { work, reservation, .. } => Some(format!("{} is read, open: {}", work.uid, reservation.is_some())),
                Event::Unread { work, why } => Some(format!("{}: {}", work.uid, why.split(':').next().unwrap_or_default())),
                _ => None,
            };
            events.iter().filter_map(of).collect()
        };
        let unread = "a: the books contradict themselves";
        let events = book(&[charge_of("a", "p", 10), charge_of("b", "q", 20)]).await;
        assert_eq!(told(&events), ["a is charged", "b is charged", unread, "b is read, open: true"]);
        let found = load(&ledger, &[], &BTreeSet::new()).await.expect("reads");
        assert_eq!(told(&found), [unread, "b is read, open: true"]);
    }

    #[test]
    fn much_is_booked_in_portions_and_what_is_of_one_work_in_one() {
        let works: Vec<String> = (0..PORTION).map(|number| format!("w{number}")).collect();
        let ends = |work: &String| [charge_of(work, work, 1), charge_of(work, "another", 1), release(work)];
        let all: Vec<Posting> = works.iter().flat_map(ends).chain([fund(), fund()]).collect();
        let portions = portions(all.iter().cloned());
        assert_eq!(portions.iter().map(Vec::len).collect::<Vec<_>>(), [501, 501, 500]);
        assert_eq!(portions.concat(), all);
    }
}
