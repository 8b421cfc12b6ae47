//! The market as it would be worked out on paper: slow, obvious, and after each placement everything anew. What is faster is
//! held against it.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) struct Run {
    pub(super) task: Waiting,
    pub(super) places: Vec<Assignment>,
    pub(super) ends: i64,
}

/// What a large task waits for, and since when it could be there.
struct Kept {
    task: Waiting,
    places: Vec<Assignment>,
    begins: i64,
}

/// What is offered, who waits and who runs, with nothing worked out beforehand.
#[derive(Default)]
pub(super) struct Plain {
    pub(super) offered: Vec<Offer>,
    pub(super) waits: Vec<Waiting>,
    pub(super) runs: Vec<Run>,
    /// Large tasks that did not fit before, and when what was first kept for them was to be free.
    stuck: BTreeMap<Arc<str>, Option<i64>>,
    /// Large tasks that a first turn placed.
    went_first: Vec<Arc<str>>,
    /// For whom places are kept in this pass: here for one at a time.
    kept: Option<Kept>,
    /// It yields to whoever holds less, until its escrow's turn.
    yields_below: Option<u64>,
}

impl Plain {
    /// The whole pass: who is placed, and where.
    pub(super) fn pass(&mut self, now: i64) -> Vec<(Arc<str>, Vec<Assignment>)> {
        let (mut placed, mut passed) = (Vec::new(), BTreeSet::new());
        (self.kept, self.yields_below) = (None, None);
        let rank = |task: &Waiting| (-task.priority, task.created, task.id.clone());
        self.went_first.retain(|id| self.runs.iter().any(|run| run.task.id == *id));
        let one_went = |task: &Waiting| {
            self.runs.iter().any(|run| self.went_first.contains(&run.task.id) && run.task.request.funding == task.request.funding)
        };
        let first =
            self.waits.iter().find(|task| self.stuck.contains_key(&task.id) && !one_went(task) && self.could_wait(task, now)).cloned();
        if let Some(large) = first {
            let of_it = |task: &&Waiting| task.request.funding == large.request.funding && rank(task) < rank(&large);
            let mut before: Vec<Waiting> = self.waits.iter().filter(of_it).cloned().collect();
            before.sort_by_key(rank);
            let late = self.stuck[&large.id].is_some_and(|begins| begins <= now);
            let holds_more = self.waits.iter().any(|task| self.held_by(&task.request.funding) < self.held_by(&large.request.funding));
            if late && before.is_empty() {
                self.stuck.insert(large.id.clone(), None);
            }
            let next = before.into_iter().find(|task| self.places(task, now).is_some() || !passed.insert(task.id.clone()));
            if !(late && holds_more && next.is_some()) {
                for task in next.into_iter().chain([large.clone()]) {
                    if !self.attempt(&task, now, &mut placed) {
                        passed.insert(task.id);
                    } else if task.id == large.id {
                        self.went_first.push(task.id);
                    }
                }
            }
        }
        if self.kept.is_none()
            && let Some(next) = self.waits.iter().find(|task| self.stuck.contains_key(&task.id) && self.could_wait(task, now)).cloned()
        {
            self.kept = self.soonest(&next, now);
            self.yields_below = Some(self.held_by(&next.request.funding));
        }
        loop {
            // Of each escrow the next one; of those whose escrow holds the least the oldest.
            let mut fronts = BTreeMap::<FundingId, &Waiting>::new();
            for task in self.waits.iter().filter(|task| !passed.contains(&task.id)) {
                let front = fronts.entry(task.request.funding.clone()).or_insert(task);
                if rank(task) < rank(front) {
                    *front = task;
                }
            }
            let turn = |(funding, task): &(&FundingId, &&Waiting)| (self.held_by(funding), task.created, (*funding).clone());
            let Some(next) = fronts.iter().min_by_key(turn).map(|(_, task)| (*task).clone()) else { return placed };
            if !self.attempt(&next, now, &mut placed) {
                passed.insert(next.id);
            }
        }
    }

    /// Why a task waits, and how many nodes say so.
    pub(super) fn reasons(&self, task: &Waiting) -> Vec<(Reason, u32)> {
        let mut counts = BTreeMap::new();
        for offer in self.left(i64::MIN) {
            let missing = if task.workers > 1 { Reason::GangIncomplete } else { Reason::KeptForGang };
            *counts.entry(filter::check(&offer, &task.request).map_or_else(|(reason, _)| reason, |_| missing)).or_default() += 1;
        }
        if task.workers > 1 {
            counts.entry(Reason::GangIncomplete).or_default();
        }
        counts.into_iter().collect()
    }

    /// Whether it is large, and would be placed if only nobody else came.
    pub(super) fn could_wait(&self, task: &Waiting, now: i64) -> bool {
        let tied = task.request.only_nodes.as_ref().is_some_and(|nodes| nodes.len() == 1);
        let large = task.workers > 1 || task.request.devices > 1 || task.request.tenancy != "Shared" || tied;
        large && self.soonest(task, now).is_some()
    }

    fn held_by(&self, funding: &FundingId) -> u64 {
        let theirs = self.runs.iter().filter(|run| run.task.request.funding == *funding);
        theirs.flat_map(|run| &run.places).map(|place| place.price_per_hour.units()).sum()
    }

    fn attempt(&mut self, task: &Waiting, now: i64, placed: &mut Vec<(Arc<str>, Vec<Assignment>)>) -> bool {
        let kept_for_it = self.yields_below.is_some() && self.kept.as_ref().is_some_and(|kept| kept.task.id == task.id);
        let Some(places) = self.places_beside(task, now) else {
            if kept_for_it {
                self.yields_below = None;
            }
            if self.could_wait(task, now) {
                let begins = self.stuck.entry(task.id.clone()).or_default().to_owned();
                if self.kept.is_none() {
                    self.kept = self.soonest(task, now);
                    self.stuck.insert(task.id.clone(), begins.or(self.kept.as_ref().map(|kept| kept.begins)));
                }
            }
            return false;
        };
        if kept_for_it {
            (self.kept, self.yields_below) = (None, None);
        }
        self.waits.retain(|other| other.id != task.id);
        placed.push((task.id.clone(), places.clone()));
        self.runs.push(Run { task: task.clone(), places, ends: now + task.seconds });
        true
    }

    /// The best places, also of what is kept where that yields to it.
    fn places_beside(&mut self, task: &Waiting, now: i64) -> Option<Vec<Assignment>> {
        let of_it = |kept: &Kept| kept.task.request.funding == task.request.funding;
        let own = self.yields_below.is_some() && self.kept.as_ref().is_some_and(of_it);
        let less = self.yields_below.is_some_and(|held| self.held_by(&task.request.funding) < held);
        let places = if own { None } else { self.places(task, now) };
        if places.is_some() || !(own || less) {
            return places;
        }
        let kept = self.kept.take();
        let places = self.places(task, now);
        self.kept = kept;
        places
    }

    /// What is left of every offer beside those who run longer than that.
    fn left(&self, until: i64) -> Vec<Offer> {
        let mut left = self.offered.clone();
        for run in self.runs.iter().filter(|run| run.ends > until) {
            for place in &run.places {
                left.iter_mut().filter(|offer| offer.node == place.node).for_each(|offer| hold(offer, place, &run.task.request));
            }
        }
        left
    }

    /// The best places that are left for all its workers.
    fn places(&self, task: &Waiting, now: i64) -> Option<Vec<Assignment>> {
        let offers = self.left(i64::MIN);
        let all_on = |mut offers: Vec<Offer>, at_once: u32| -> Option<Vec<Assignment>> {
            let one = |_| {
                let may: Vec<Offer> = offers.iter().filter(|offer| self.is_nobodys(offer, task, at_once, now)).cloned().collect();
                let place = choose(&may, &task.request).ok()?;
                let offer = offers.iter_mut().find(|offer| offer.node == place.node)?;
                hold(offer, &place, &task.request);
                Some(place)
            };
            (0..task.workers).map(one).collect()
        };
        match task.topology {
            Topology::Node if task.workers > 1 => {
                let fits = |offer: &&Offer| self.copies(offer, task) == task.workers && self.is_nobodys(offer, task, task.workers, now);
                let could: Vec<Offer> = offers.iter().filter(fits).cloned().collect();
                Some(vec![choose(&could, &task.request).ok()?; task.workers as usize])
            }
            Topology::Zone if task.workers > 1 => {
                let zones: BTreeSet<&String> = offers.iter().filter_map(|offer| offer.zone.as_ref()).collect();
                let within = |zone| offers.iter().filter(|offer| offer.zone.as_ref() == Some(zone)).cloned().collect();
                let price = |places: &Vec<Assignment>| places.iter().map(|place| place.price_per_hour.units()).sum::<u64>();
                zones.into_iter().filter_map(|zone| all_on(within(zone), 1)).min_by_key(price)
            }
            _ => all_on(offers, 1),
        }
    }

    /// Whether so many workers take nothing there that is kept: they have ended before, or all whom it is kept for still fit.
    fn is_nobodys(&self, offer: &Offer, task: &Waiting, copies: u32, now: i64) -> bool {
        let Some(kept) = self.kept.as_ref().filter(|kept| now + task.seconds > kept.begins) else { return true };
        let mut then = offer.clone();
        for run in self.runs.iter().filter(|run| run.ends <= kept.begins) {
            run.places.iter().filter(|place| place.node == offer.node).for_each(|place| leave(&mut then, place, &run.task.request));
        }
        let theirs = kept.places.iter().filter(|place| place.node == offer.node).map(|_| &kept.task.request);
        let both = std::iter::repeat_n(&task.request, copies as usize).chain(theirs);
        kept.places.iter().all(|place| place.node != offer.node) || both.into_iter().all(|request| comes(&mut then, request).is_some())
    }

    /// How many of its workers an offer has room for.
    fn copies(&self, offer: &Offer, task: &Waiting) -> u32 {
        let mut left = offer.clone();
        (0..task.workers).take_while(|_| comes(&mut left, &task.request).is_some()).map(|_| 1).sum()
    }

    /// The places that will be free the soonest, if nobody comes and everybody runs for as long as they may.
    fn soonest(&self, task: &Waiting, now: i64) -> Option<Kept> {
        let times: BTreeSet<i64> = self.runs.iter().map(|run| run.ends).chain([now]).collect();
        let workers = task.workers as usize;
        let mut openings = Vec::new();
        for index in 0..self.offered.len() {
            let copies: Vec<(i64, u32)> = times.iter().map(|time| (*time, self.copies(&self.left(*time)[index], task))).collect();
            for copy in 1..=task.workers {
                openings.extend(copies.iter().find(|(_, copies)| *copies >= copy).map(|(time, _)| (*time, index)));
            }
        }
        openings.sort_unstable();
        let together = |index: usize| match task.topology {
            Topology::Node if workers > 1 => Some(self.offered[index].node.clone()),
            Topology::Zone if workers > 1 => self.offered[index].zone.clone(),
            _ => Some(String::new()),
        };
        let mut groups: Vec<String> = Vec::new();
        (0..self.offered.len()).filter_map(together).for_each(|group| groups.extend((!groups.contains(&group)).then_some(group)));
        let of = |group: &String| {
            openings.iter().filter(|(_, index)| together(*index).as_ref() == Some(group)).take(workers).collect::<Vec<_>>()
        };
        let whole = groups.iter().map(of).filter(|openings| openings.len() == workers);
        let best = whole.min_by_key(|openings| openings.last().map(|(time, _)| *time))?;
        let begins = best.last()?.0;
        let place = |(time, index): &&(i64, usize)| comes(&mut self.left(*time)[*index].clone(), &task.request);
        Some(Kept { task: task.clone(), places: best.iter().filter_map(place).collect(), begins })
    }
}

/// A worker comes to an offer, if it may.
fn comes(offer: &mut Offer, request: &Request) -> Option<Assignment> {
    let place = choose(std::slice::from_ref(offer), request).ok()?;
    hold(offer, &place, request);
    Some(place)
}

fn tenant(request: &Request) -> Tenant {
    Tenant { funding: request.funding.clone(), namespace: request.namespace.clone(), tenancy: request.tenancy.clone() }
}

pub(super) fn hold(offer: &mut Offer, place: &Assignment, request: &Request) {
    offer.free_devices = offer.free_devices.saturating_sub(place.held.devices);
    offer.free_cpu_millis = offer.free_cpu_millis.saturating_sub(place.held.cpu_millis);
    offer.free_memory_bytes = offer.free_memory_bytes.saturating_sub(place.held.memory_bytes);
    offer.free_storage_bytes = offer.free_storage_bytes.saturating_sub(request.storage_bytes);
    offer.free_pods = offer.free_pods.saturating_sub(1);
    // Each task once: two of one tenant leave one after the other.
    offer.tenants.push(tenant(request));
}

pub(super) fn leave(offer: &mut Offer, place: &Assignment, request: &Request) {
    offer.free_devices += place.held.devices;
    offer.free_cpu_millis += place.held.cpu_millis;
    offer.free_memory_bytes += place.held.memory_bytes;
    offer.free_storage_bytes += request.storage_bytes;
    offer.free_pods += 1;
    let at = offer.tenants.iter().position(|known| *known == tenant(request)).expect("it was there");
    offer.tenants.remove(at);
}
