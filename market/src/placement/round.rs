//! One pass on its way: who was placed, what did not fit, and what is kept for whom. What is kept for an escrow that has a large
//! task already which went before others yields to those who hold less, where they have nowhere else to go.

use super::Assignment;
use super::catalog::Catalog;
use super::claims::{Claims, Gang, Places};
use super::exchange::{Kind, Turn};
use super::fit::fit;
use super::holdings::Holdings;
use super::pick::Pick;
use crate::work::FundingId;
use foldhash::{HashMap, HashSet};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Round {
    pub(super) now: i64,
    /// All that is kept.
    pub(super) claims: Claims,
    /// What of that is kept from everybody: all of it where there is none.
    firm: Option<Claims>,
    /// What yields: until its escrow's turn has come.
    yielding: BTreeMap<FundingId, (Turn, Places)>,
    /// To whoever holds less.
    yields_below: u64,
    pub(super) tries: usize,
    /// What finds all that it could use claimed by others.
    pub(super) behind: HashSet<Gang>,
    pub(super) placed: Vec<(Arc<str>, Vec<Assignment>)>,
    /// What did not fit, and how many of its workers did.
    pub(super) refused: HashMap<Kind, u32>,
    /// Of that what does not fit beside what is kept from everybody either.
    refused_by_firm: HashSet<Kind>,
    /// For whom something is kept.
    keepers: HashSet<Arc<str>>,
}

impl Round {
    pub(super) fn at(now: i64) -> Self {
        Self { now, ..Self::default() }
    }

    /// What is kept from now on yields.
    pub(super) fn begin_to_yield(&mut self) {
        self.firm = Some(self.claims.clone());
        self.refused_by_firm = self.refused.keys().copied().collect();
        self.yields_below = u64::MAX;
    }

    /// Keeps what the task waits for until the turn of its escrow, which holds so much.
    pub(super) fn keep_until_its_turn(
        &mut self,
        catalog: &Catalog,
        holdings: &Holdings,
        (funding, held): (FundingId, u64),
        turn: Turn,
        places: Places,
    ) {
        self.claims.claim(catalog, holdings, &places);
        self.yielding.insert(funding, (turn, places));
        self.yields_below = self.yields_below.min(held);
    }

    /// Keeps places from everybody.
    pub(super) fn keep(&mut self, catalog: &Catalog, holdings: &Holdings, turn: &Turn, places: &Places) {
        self.keepers.insert(turn.2.clone());
        self.claims.claim(catalog, holdings, places);
        self.firm.iter_mut().for_each(|firm| firm.claim(catalog, holdings, places));
    }

    /// It has had its turn and did not fit: what was kept for it until then is kept from everybody who comes after it.
    pub(super) fn keeps_on(&mut self, catalog: &Catalog, holdings: &Holdings, funding: &FundingId, turn: &Turn) -> bool {
        let Some((_, places)) = self.yielding.get(funding).filter(|(known, _)| known == turn).cloned() else { return false };
        self.yielding.remove(funding);
        self.keepers.insert(turn.2.clone());
        self.firm.iter_mut().for_each(|firm| firm.claim(catalog, holdings, &places));
        true
    }

    /// It was placed: nothing is kept for it any more, and those who come after it may find room.
    pub(super) fn had_its_turn(&mut self, catalog: &Catalog, holdings: &Holdings, funding: &FundingId, turn: &Turn) {
        if self.yielding.get(funding).is_none_or(|(known, _)| known != turn) {
            return;
        }
        self.yielding.remove(funding);
        self.claims = self.firm.clone().unwrap_or_default();
        self.yielding.values().for_each(|(_, places)| self.claims.claim(catalog, holdings, places));
        self.refused.retain(|kind, _| self.refused_by_firm.contains(kind));
    }

    /// Whether an escrow that holds so much minds only what is kept from everybody: it holds less than they whose places yield,
    /// or it is one of them.
    fn may_pass(&self, (funding, held): (&FundingId, u64)) -> bool {
        !self.yielding.is_empty() && (held < self.yields_below || self.yielding.contains_key(funding))
    }

    /// Whether it had its turn in this pass, or one that is like it had: room only becomes less.
    pub(super) fn is_refused(&self, by: (&FundingId, u64), turn: &Turn, kind: &Kind) -> bool {
        let known = if self.may_pass(by) { self.refused_by_firm.contains(kind) } else { self.refused.contains_key(kind) };
        known || self.keepers.contains(&turn.2)
    }

    /// Places for all workers, taken.
    pub(super) fn fit(&mut self, catalog: &mut Catalog, by: (&FundingId, u64), kind: Kind, ends: i64) -> Result<Vec<Pick>, ()> {
        let (gang, may_pass) = (kind.0, self.may_pass(by));
        let firm = self.firm.as_ref().filter(|_| may_pass);
        let found = match firm {
            // Its own places are not kept from it.
            Some(firm) if self.yielding.contains_key(by.0) => fit(catalog, gang, firm, ends),
            // What nobody waits for comes first.
            Some(firm) => fit(catalog, gang, &self.claims, ends).or_else(|_| fit(catalog, gang, firm, ends)),
            None => fit(catalog, gang, &self.claims, ends),
        };
        found.map_err(|fitting| {
            self.refused.insert(kind, fitting);
            if may_pass || self.yielding.is_empty() {
                self.refused_by_firm.insert(kind);
            }
        })
    }

    /// Somebody comes there.
    pub(super) fn comes(&mut self, catalog: &Catalog, pick: &Pick, ends: i64) {
        let all = std::iter::once(&mut self.claims).chain(&mut self.firm);
        all.for_each(|claims| claims.pass(catalog, pick.slot, pick.need, ends));
    }
}
