//! What the books say, and what the API server says against what they hold money back for.

use super::World;
use super::records::{Placement, Pod, Reservation, Unmade};
use supercargo_ledger::{FundingBalance, WorkBalance};
use supercargo_market::funding::day_of;
use supercargo_market::money::Amount;
use supercargo_market::work::{FundingId, WorkId};

impl World {
    /// Paying has read the books at another time than whoever holds back and charges: it says only what paying changes.
    pub(super) fn posted(&mut self, funding: FundingId, balance: FundingBalance, last_post: Option<(String, u64)>) {
        let Some((known, _)) = self.fundings.get(&funding) else { return self.apply_funding(funding, balance, last_post) };
        let billed = known.owed.units().saturating_add(known.posted.units());
        let owed = Amount::from_units(billed.saturating_sub(balance.posted.units()));
        let balance = FundingBalance { owed, posted: balance.posted, ..known.clone() };
        self.apply_funding(funding, balance, last_post);
    }

    pub(super) fn settled(&mut self, work: WorkId, balance: WorkBalance) {
        let balance = match self.works.get(&work) {
            Some(known) => WorkBalance { settled: balance.settled, transaction: balance.transaction, root: balance.root, ..known.clone() },
            None => balance,
        };
        self.works.insert(work.clone(), balance);
        self.todo.works.push(work);
    }

    pub(super) fn apply_funding(&mut self, funding: FundingId, balance: FundingBalance, last_post: Option<(String, u64)>) {
        let put_in = |balance: &FundingBalance| (balance.deposited, balance.withdrawn, balance.returned, balance.case_fees);
        let now = put_in(&balance);
        let before = self.fundings.insert(funding.clone(), (balance, last_post));
        if before.as_ref().is_none_or(|(before, _)| put_in(before) != now) {
            self.unfunded.remove(&funding);
        }
        self.lend(&funding);
        for key in self.escrows_of(&funding) {
            if before.is_some() { self.todo.escrows.push(key) } else { self.escrow_changed(&key) }
        }
    }

    /// A refusal of an attempt that is no more says nothing of the one that is.
    pub(super) fn unmade(&mut self, work: WorkId, pod: String, why: String) {
        let held = self.reservations.get(&work).map(|held| &held.placement);
        if let Some(placement) = held.filter(|placement| placement.workers.iter().any(|place| place.pod == pod)) {
            let (attempt, before) = (placement.attempt, self.unmade.remove(&work));
            let times = before.as_ref().map_or(1, |before| before.times + u32::from(before.attempt != attempt));
            let mut pods = before.filter(|before| before.attempt == attempt).map(|before| before.pods).unwrap_or_default();
            pods.insert(pod);
            self.unmade.insert(work.clone(), Unmade { attempt, why, times, pods });
        }
        self.todo.works.push(work);
    }

    /// What the books know of how its workers' nodes parted with them.
    fn part(&mut self, work: &WorkId, latest: &Placement) {
        let parted = |pod: &Pod| Some((pod.uid.clone(), latest.place_of(pod)?.parting));
        let parted: Vec<_> = self.pods_of(work).filter_map(parted).filter(|(_, parting)| !parting.is_none()).collect();
        for (uid, parting) in parted {
            self.pods.get_mut(&uid).into_iter().for_each(|pod| pod.part(parting));
        }
    }

    pub(super) fn reserved(
        &mut self,
        work: WorkId,
        reservation: Option<Box<Reservation>>,
        latest: Option<Box<Placement>>,
        balance: WorkBalance,
    ) {
        self.refusals.remove(&work);
        self.unread.remove(&work);
        self.absent.remove(&work);
        self.market.booked(&work, reservation.as_deref());
        if reservation.is_none()
            && let Some(before) = self.reservations.get(&work)
        {
            let rate = self.accounts.get(&before.funding).and_then(|account| account.leaving.rate_units_per_second);
            let freed = rate.map(|rate| self.market.slower(&before.funding, rate));
            freed.into_iter().flatten().for_each(|capped| self.todo.works.push(capped));
        }
        // Pods that are of no reservation are counted apart.
        let places = self.reservations.get(&work).into_iter().chain(reservation.as_deref()).flat_map(|held| &held.placement.workers);
        places.for_each(|place| self.todo.nodes.push(place.node.clone()));
        if let Some(latest) = latest {
            self.part(&work, &latest);
            self.latest.insert(work.clone(), *latest);
        }
        let attempt = |held: &Reservation| held.placement.attempt;
        if reservation.as_deref().map(attempt) != self.reservations.get(&work).map(attempt) {
            // Nothing of this one was asked for yet.
            self.asked.remove(&work);
        }
        // What was held back on a day that this clock has yet to see is charged on no earlier one.
        self.today = self.today.max(reservation.as_ref().map_or(0, |held| day_of(held.placement.bound)));
        let after = reservation.as_ref().map(|reservation| reservation.funding.clone());
        let before = match reservation {
            Some(reservation) => self.reservations.insert(work.clone(), *reservation),
            None => self.reservations.remove(&work),
        };
        self.link_funding(&work, before.as_ref().map(|before| &before.funding), after.as_ref());
        self.works.insert(work.clone(), balance);
        self.todo.works.push(work);
    }
}
