//! What the exchange is told of the world, what it decided that the books do not hold yet, and why who waits waits.

use super::records::{Placement, Reservation};
use foldhash::{HashMap, HashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use supercargo_market::account::is_within_rate;
use supercargo_market::money::Amount;
use supercargo_market::placement::{Assignment, Exchange, Offer, Reason, Refused, Running, Tenant, Waiting, Worker};
use supercargo_market::rate_card::RateCard;
use supercargo_market::rating::ExactCost;
use supercargo_market::work::{FundingId, WorkId};

/// A place that was found, and what is to be held back for it. It is asked of the books again and again until they answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub funding: FundingId,
    pub amount: Amount,
    pub placement: Placement,
    /// The cards that its places are priced by, for the books to keep.
    pub cards: Vec<Arc<RateCard>>,
    pub at: i64,
}

/// What a pass of the exchange brought.
#[derive(Debug, Default)]
pub struct Brought {
    pub placed: Vec<(WorkId, Vec<Assignment>)>,
    /// Whose reasons are not what they were.
    pub waiting: Vec<WorkId>,
}

#[derive(Debug, Default)]
pub struct Market {
    exchange: Exchange,
    /// The resources that each node has on offer.
    offered: HashMap<String, BTreeSet<String>>,
    decided: HashMap<WorkId, Arc<Decision>>,
    /// How much more is to be held back for what runs.
    extended: HashMap<WorkId, (FundingId, Amount)>,
    /// The sum of what is decided and not in the books.
    committed: HashMap<FundingId, Amount>,
    /// What a second of everything costs that is decided or in the books.
    burning: HashMap<FundingId, ExactCost>,
    burns: HashMap<WorkId, (FundingId, ExactCost)>,
    /// Who would make it cost more a second than may be paid out: how much more, and until when that keeps it from asking.
    capped: HashMap<FundingId, BTreeMap<WorkId, (ExactCost, i64)>>,
    reasons: HashMap<WorkId, Arc<Vec<Refused>>>,
    /// Who needs more than there is: how much, and until when that keeps it from asking again.
    short: HashMap<FundingId, BTreeMap<WorkId, (Amount, i64)>>,
    /// Whose budget was too small at the place that was found: they look only for what it pays for.
    frugal: HashSet<WorkId>,
    /// Who failed on a node, and until when it goes to others alone.
    elsewhere: HashMap<WorkId, i64>,
}

/// Nodes that are merely in use are waited for so long before a task goes back to one where it failed.
const ELSEWHERE_SECONDS: i64 = 60;

impl Market {
    /// What a node offers now: all of it.
    pub fn offer(&mut self, node: &str, offers: &[Offer]) {
        let now: BTreeSet<String> = offers.iter().map(|offer| offer.resource_name.clone()).collect();
        for gone in self.offered.get(node).into_iter().flatten().filter(|resource| !now.contains(*resource)) {
            self.exchange.withdraw(node, gone);
        }
        offers.iter().for_each(|offer| self.exchange.offer(offer));
        if now.is_empty() {
            self.offered.remove(node);
        } else {
            self.offered.insert(node.to_owned(), now);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.offered.is_empty()
    }

    pub fn wait(&mut self, waiting: &Waiting) {
        self.exchange.wait(waiting);
    }

    /// It does not look for a place, and holds none that the books do not know of.
    pub fn forget(&mut self, work: &WorkId) {
        self.stop(work);
        self.undo(work);
        self.frugal.remove(work);
        self.elsewhere.remove(work);
        self.short.retain(|_, short| {
            short.remove(work);
            !short.is_empty()
        });
        self.capped.retain(|_, capped| {
            capped.remove(work);
            !capped.is_empty()
        });
    }

    /// Who waits for a time asks anew.
    pub fn forget_times(&mut self) {
        self.capped.clear();
        self.short.clear();
        self.elsewhere.clear();
    }

    /// It does not look for a place for now.
    pub fn stop(&mut self, work: &WorkId) {
        self.exchange.forget(&work.uid);
        self.reasons.remove(work);
    }

    pub fn decision(&self, work: &WorkId) -> Option<&Arc<Decision>> {
        self.decided.get(work)
    }

    pub fn decide(&mut self, work: WorkId, decision: Decision) {
        self.commit(&decision.funding, decision.amount);
        self.reasons.remove(&work);
        self.burn(&work, Some((&decision.funding, &decision.placement)));
        self.decided.insert(work, Arc::new(decision));
    }

    /// What a second of a work costs from now on.
    fn burn(&mut self, work: &WorkId, by: Option<(&FundingId, &Placement)>) {
        if let Some((funding, second)) = self.burns.remove(work) {
            let sum = self.burning.get(&funding).copied().unwrap_or_default().saturating_sub(second);
            if sum == ExactCost::default() {
                self.burning.remove(&funding);
            } else {
                self.burning.insert(funding, sum);
            }
        }
        let Some((funding, placement)) = by else { return };
        // What can't be counted was never decided: each of these was rated before.
        let Ok(second) = placement.second() else { return };
        let sum = self.burning.entry(funding.clone()).or_default();
        if let Ok(more) = sum.checked_add(second) {
            *sum = more;
            self.burns.insert(work.clone(), (funding.clone(), second));
        }
    }

    /// What a second of everything costs that a funding pays for.
    pub fn burning(&self, funding: &FundingId) -> ExactCost {
        self.burning.get(funding).copied().unwrap_or_default()
    }

    /// It waits until less is paid a second, and not for a place.
    pub fn is_capped(&mut self, funding: &FundingId, work: WorkId, second: ExactCost, until: i64) {
        self.capped.entry(funding.clone()).or_default().insert(work, (second, until));
    }

    /// What a second of it costs, if it waits for that.
    pub fn capped_at(&self, funding: &FundingId, work: &WorkId, now: i64) -> Option<ExactCost> {
        self.capped.get(funding)?.get(work).filter(|(_, until)| now < *until).map(|(second, _)| *second)
    }

    /// Less is paid a second than before: who may go on now.
    pub fn slower(&self, funding: &FundingId, rate_units_per_second: u64) -> Vec<WorkId> {
        let burning = self.burning(funding);
        let fits = |second: ExactCost| burning.checked_add(second).is_ok_and(|all| is_within_rate(all, rate_units_per_second));
        let capped = self.capped.get(funding).into_iter().flatten();
        capped.filter(|(_, (second, _))| fits(*second)).map(|(work, _)| work.clone()).collect()
    }

    /// More is asked of the books for what runs.
    pub fn extend(&mut self, work: WorkId, funding: FundingId, more: Amount) {
        self.commit(&funding, more);
        self.extended.insert(work, (funding, more));
    }

    fn commit(&mut self, funding: &FundingId, amount: Amount) {
        let sum = self.committed.entry(funding.clone()).or_default();
        *sum = sum.checked_add(amount).unwrap_or(Amount::MAX);
    }

    /// What was decided and can't be: the place is free for others.
    pub fn undo(&mut self, work: &WorkId) {
        self.undecide(work);
        self.exchange.ended(&work.uid);
    }

    /// Nothing is asked of the books for it.
    pub fn undecide(&mut self, work: &WorkId) {
        let decided = self.decided.remove(work).map(|decision| (decision.funding.clone(), decision.amount));
        if decided.is_some() {
            self.burn(work, None);
        }
        for (funding, amount) in decided.into_iter().chain(self.extended.remove(work)) {
            if let Some(sum) = self.committed.get_mut(&funding) {
                *sum = sum.saturating_sub(amount);
                if sum.is_zero() {
                    self.committed.remove(&funding);
                }
            }
        }
    }

    /// What was decided for a funding and is not taken off in the books yet.
    pub fn committed(&self, funding: &FundingId) -> Amount {
        self.committed.get(funding).copied().unwrap_or_default()
    }

    /// What the books say of a work is what counts.
    pub fn booked(&mut self, work: &WorkId, reservation: Option<&Reservation>) {
        self.undecide(work);
        self.burn(work, reservation.map(|reservation| (&reservation.funding, &reservation.placement)));
        match reservation {
            Some(reservation) => {
                self.exchange.run(&running(work, reservation));
                self.stop(work);
                self.frugal.remove(work);
                self.elsewhere.remove(work);
                self.capped.values_mut().for_each(|capped| _ = capped.remove(work));
            }
            None => self.exchange.ended(&work.uid),
        }
    }

    /// It waits for money, and not for a place.
    pub fn is_short(&mut self, funding: &FundingId, work: WorkId, amount: Amount, until: i64) {
        self.short.entry(funding.clone()).or_default().insert(work, (amount, until));
    }

    /// Who may have enough now.
    pub fn funding_has(&mut self, funding: &FundingId, available: Amount) -> Vec<WorkId> {
        let Some(short) = self.short.get_mut(funding) else { return Vec::new() };
        let enough: Vec<WorkId> = short.iter().filter(|(_, (amount, _))| *amount <= available).map(|(work, _)| work.clone()).collect();
        short.retain(|_, (amount, _)| *amount > available);
        if short.is_empty() {
            self.short.remove(funding);
        }
        enough
    }

    /// How much it is short of, if it waits for money.
    pub fn short_of(&self, funding: &FundingId, work: &WorkId, now: i64) -> Option<Amount> {
        self.short.get(funding)?.get(work).filter(|(_, until)| now < *until).map(|(amount, _)| *amount)
    }

    pub fn is_frugal(&self, work: &WorkId) -> bool {
        self.frugal.contains(work)
    }

    /// `false`: it was so already.
    pub fn be_frugal(&mut self, work: &WorkId) -> bool {
        self.frugal.insert(work.clone())
    }

    /// Until when it goes to other nodes than those where it failed. None: no other would have it, or it was not asked yet.
    pub fn elsewhere_until(&self, work: &WorkId) -> Option<i64> {
        self.elsewhere.get(work).copied()
    }

    pub fn assign(&mut self, now: i64) -> Brought {
        let pass = self.exchange.assign(now);
        let placed = pass.placed.into_iter().map(|(id, assignments)| (WorkId::task(id), assignments)).collect();
        let mut waiting = Vec::new();
        for (id, reasons) in pass.waiting {
            let work = WorkId::task(id);
            if self.may_go_back(&work, &reasons, now) {
                // It asks again at once: what keeps it then is what it waits for.
                self.reasons.remove(&work);
            } else {
                self.reasons.insert(work.clone(), reasons);
            }
            waiting.push(work);
        }
        Brought { placed, waiting }
    }

    /// Elsewhere first; but where no other node would have it the same one gets another chance, and where others are only in
    /// use it gets it after a while.
    fn may_go_back(&mut self, work: &WorkId, reasons: &[Refused], now: i64) -> bool {
        if reasons.iter().all(|one| one.reason != Reason::FailedThereBefore) {
            return false;
        }
        let until = if reasons.iter().any(|one| one.reason.may_pass()) { now + ELSEWHERE_SECONDS } else { now };
        let known = self.elsewhere.entry(work.clone()).or_insert(until);
        *known = until.min(*known);
        now >= *known
    }

    /// Why it waits; `None` when it has not been looked at yet.
    pub fn reasons(&self, work: &WorkId) -> Option<&Arc<Vec<Refused>>> {
        self.reasons.get(work)
    }
}

fn running(work: &WorkId, reservation: &Reservation) -> Running {
    let placement = &reservation.placement;
    let tenant =
        Tenant { funding: reservation.funding.clone(), namespace: placement.namespace.clone(), tenancy: placement.tenancy.clone() };
    let workers = placement.workers.iter().map(|place| Worker {
        node: place.node.clone(),
        resource_name: placement.resource_name.clone(),
        held: place.held(),
        storage_bytes: place.storage_bytes,
    });
    let ends = placement.bound.saturating_add_unsigned(placement.hold_seconds);
    Running { id: work.uid.clone(), tenant, ends, workers: workers.collect() }
}
