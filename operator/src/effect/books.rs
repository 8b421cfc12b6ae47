//! The ledger's side of effects: a pass's postings in one transaction, and what a new leader has to know.

use crate::plan::Booking;
use crate::watch::now;
use crate::world::Event;
use crate::world::records::{Placement, Reservation};
use std::collections::BTreeSet;
use supercargo_ledger::{Fence, Ledger, LedgerError, Outcome, Posting, ReservationRow, WorkBalance};
use supercargo_market::usage::Anomaly;
use supercargo_market::work::{FundingId, WorkId};

/// Commits what is to be booked and tells what the books say afterwards of everything that they touched.
pub async fn book(ledger: &Ledger, fence: Fence, bookings: Vec<Booking>) -> Result<Vec<Event>, LedgerError> {
    let postings: Vec<Posting> = bookings.into_iter().flat_map(Booking::postings).collect();
    let outcomes = ledger.commit(fence, &postings).await?;
    let mut events = Vec::new();
    let mut fundings: Vec<FundingId> = Vec::new();
    let (mut places, mut works) = (BTreeSet::new(), Vec::new());
    for (posting, outcome) in postings.iter().zip(&outcomes) {
        match (posting, outcome) {
            (Posting::Reserve { work, .. }, Outcome::Refused(why)) => {
                events.push(Event::Refused { work: work.clone(), why: why.clone(), at: now() });
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
            Posting::Hold { at, .. } => events.push(Event::Held { at: *at, fundings: ledger.held().await? }),
        }
    }
    // All of them are in the books by now: once is enough for each.
    works.sort_unstable();
    works.dedup();
    for work in works {
        events.push(load_work(ledger, work).await?);
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

/// What charges say that two sources disagree about.
pub fn anomalies(bookings: &[Booking]) -> Vec<Anomaly> {
    let charges =
        bookings.iter().filter_map(|booking| if let Booking::Post(Posting::Charge(charge)) = booking { Some(charge) } else { None });
    charges.filter_map(|charge| charge.metered.as_ref()).flat_map(|metered| metered.anomalies.iter().copied()).collect()
}

/// What the books say of a funding, and of its last day.
async fn load_funding(ledger: &Ledger, funding: FundingId) -> Result<Vec<Event>, LedgerError> {
    let Some(balance) = ledger.funding(&funding).await? else { return Ok(Vec::new()) };
    let last_post = ledger.last_final(&funding).await?;
    let spent = ledger.last_day(&funding).await?.map(|(day, charged)| Event::Spent { funding: funding.clone(), day, charged });
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
    let open = ledger.open_reservations().await?;
    let closed = works.iter().filter(|work| !open.iter().any(|row| row.work == **work));
    for work in open.iter().map(|row| &row.work).chain(closed) {
        let told = !with_pods.contains(work);
        let event = if told { of_work(ledger, work, ledger.work(work).await?).await? } else { load_work(ledger, work).await? };
        // A work whose reservation was released had its last attempt charged in the same transaction.
        if let Event::Reserved { reservation: None, latest: Some(latest), .. } = &event {
            events.push(Event::Charged { work: work.clone(), attempt: latest.attempt });
        }
        events.push(event);
    }
    events.extend(ledger.records().await?.into_iter().map(|(place, record)| Event::Record { place, record }));
    for funding in ledger.fundings().await? {
        events.extend(load_funding(ledger, funding).await?);
    }
    Ok(events)
}

fn placement(row: &ReservationRow) -> Result<Placement, LedgerError> {
    serde_json::from_str(&row.detail).map_err(|error| LedgerError::Broken(format!("where {} went can't be read: {error}", row.work)))
}
