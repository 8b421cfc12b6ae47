//! The rules of postings: each is applied to the part of the books in memory that its group touches, with its own outcome.

use crate::group::Written;
use crate::posting::{Charge, LaneCases, Line, Outcome, Posting};
use crate::working::{Funding, Reservation, Working};
use crate::{Fence, Ledger, LedgerError, Result};
use std::collections::BTreeMap;
use supercargo_market::asset::{Asset, Rail};
use supercargo_market::canonical;
use supercargo_market::fees::Payee;
use supercargo_market::money::Amount;
use supercargo_market::rate_card::RateCard;
use supercargo_market::work::{FundingId, WorkId};

impl Ledger {
    /// Applies the postings in their order, durably and all in one transaction, which it may share with other callers'. One
    /// that is refused leaves the others as they are; an error leaves everything as it was.
    pub async fn commit(&self, fence: Fence, postings: &[Posting]) -> Result<Vec<Outcome>> {
        self.writer.commit(fence, postings.to_vec()).await
    }
}

pub(crate) fn signed(amount: Amount) -> i64 {
    // What is greater than the books can hold was refused before; a column's CHECK refuses what becomes negative here.
    i64::try_from(amount.units()).unwrap_or(i64::MIN)
}

pub(crate) fn amount(units: i64) -> Amount {
    Amount::from_units(units.unsigned_abs())
}

impl Working {
    pub(crate) fn apply(&mut self, posting: &Posting, metered: Option<&Written>) -> Result<Outcome> {
        match posting {
            Posting::Fund { funding, asset, deposited, withdrawn } => Ok(self.fund(funding, asset, *deposited, *withdrawn)),
            Posting::Reserve { work, funding, asset, amount, detail, parent } => {
                self.reserve((work, parent.as_ref()), (funding, asset), *amount, detail)
            }
            Posting::Charge(charge) => self.charge(charge, metered),
            Posting::Card(card) => Ok(self.keep(card)),
            Posting::Release { work } => self.release(work),
            Posting::Hold { at, works } => self.hold(*at, works),
            Posting::Cases { funding, lanes } => Ok(self.keep_cases(funding, lanes)),
        }
    }

    fn fund(&mut self, funding: &FundingId, asset: &Asset, deposited: Amount, withdrawn: Amount) -> Outcome {
        if deposited > Amount::MAX || withdrawn > Amount::MAX {
            return Outcome::Refused(format!("{funding} would hold more than the books can"));
        }
        if asset.rail != Rail::of(funding) {
            return Outcome::Refused(format!("{funding} can't hold {asset}: that moves elsewhere"));
        }
        let new = Funding { asset: asset.clone(), ..Funding::default() };
        let row = self.fundings.get(funding.as_str()).cloned().unwrap_or(new);
        if row.asset != *asset {
            return Outcome::Refused(format!("{funding} is in {}, not in {asset}", row.asset));
        }
        if (deposited, withdrawn) == (row.deposited.saturating_sub(row.shortfall), row.withdrawn) {
            return Outcome::Already;
        }
        // Each is at most Amount::MAX, of which an i64 holds nine.
        let bound = signed(withdrawn) + signed(row.reserved) + signed(row.owed) + signed(row.posted);
        let left = signed(deposited) - bound;
        // What is held back and charged stays so: it is short of that, and not in the red.
        let (available, shortfall) = if left < 0 { (Amount::ZERO, amount(left)) } else { (amount(left), Amount::ZERO) };
        let Some(all) = deposited.checked_add(shortfall).filter(|all| *all <= Amount::MAX) else {
            return Outcome::Refused(format!("{funding} would hold more than the books can"));
        };
        self.fundings.insert(funding.to_string(), Funding { deposited: all, withdrawn, available, shortfall, ..row });
        self.changes.fundings.insert(funding.to_string());
        let (funding, asset) = (funding.to_string(), asset.clone());
        let (deposited, withdrawn, shortfall) = (deposited.units(), withdrawn.units(), shortfall.units());
        self.changes.lines.push(Line::Fund { funding, asset, deposited, withdrawn, shortfall });
        Outcome::Applied
    }

    fn reserve(
        &mut self,
        (work, parent): (&WorkId, Option<&WorkId>),
        (funding, asset): (&FundingId, &Asset),
        wanted: Amount,
        detail: &str,
    ) -> Result<Outcome> {
        let (id, parent) = (work.to_string(), parent.map(ToString::to_string));
        let (held, lent) = match self.reservations.get(&id) {
            None => (Amount::ZERO, Amount::ZERO),
            Some(row) if row.funding != funding.as_str() => {
                return Ok(Outcome::Refused(format!("{work} was reserved from {} and can't change to {funding}", row.funding)));
            }
            Some(row) if row.kin.parent != parent => {
                let named = |parent: &Option<String>| parent.as_ref().map_or("nothing".to_owned(), Clone::clone);
                let words = format!("{work} is below {} and can't come below {}", named(&row.kin.parent), named(&parent));
                return Ok(Outcome::Refused(words));
            }
            Some(row) if row.open && row.detail == detail && row.reserved.checked_add(row.kin.lent) == Some(wanted) => {
                return Ok(Outcome::Already);
            }
            Some(row) => (row.reserved, row.kin.lent),
        };
        let Some(own) = wanted.checked_sub(lent) else {
            return Ok(Outcome::Refused(format!("{wanted} is wanted for {work}, and works below it hold {lent}")));
        };
        if let Some(why) = self.hold_back(&id, parent.as_deref(), (funding, asset), (held, own))? {
            return Ok(Outcome::Refused(why));
        }
        let new = Reservation { funding: funding.to_string(), whole: true, ..Reservation::default() };
        let row = self.reservations.entry(id.clone()).or_insert(new);
        if row.used > own {
            let source =
                self.fundings.get_mut(funding.as_str()).ok_or_else(|| LedgerError::Broken(format!("{work}'s funding is unknown")))?;
            source.held = moved(source.held, row.used, own, funding.as_str())?;
            row.used = own;
            self.changes.fundings.insert(funding.to_string());
            self.changes.holds.insert(id.clone());
        }
        row.reserved = own;
        row.open = true;
        detail.clone_into(&mut row.detail);
        if parent.is_some() && row.kin.parent.is_none() {
            row.kin.parent.clone_from(&parent);
            self.changes.kin.insert(id.clone());
        }
        self.changes.reservations.insert(id.clone());
        self.changes.lines.push(Line::Reserve { work: id, funding: funding.to_string(), amount: wanted.units(), parent });
        Ok(Outcome::Applied)
    }

    /// What is held back becomes another amount, by what the funding has left or the work above. In words why not.
    fn hold_back(
        &mut self,
        work: &str,
        parent: Option<&str>,
        (funding, asset): (&FundingId, &Asset),
        (held, own): (Amount, Amount),
    ) -> Result<Option<String>> {
        let Some(source) = self.fundings.get_mut(funding.as_str()) else { return Ok(Some(format!("{funding} has no money yet"))) };
        if source.asset != *asset {
            return Ok(Some(format!("{work} is priced in {asset}, and {funding} is in {}", source.asset)));
        }
        if let Some(parent) = parent {
            if !self.reservations.contains_key(work)
                && let Some(why) = self.refuses_child(parent, funding.as_str())?
            {
                return Ok(Some(why));
            }
            return match own.checked_sub(held) {
                Some(more) => self.draw(parent, more),
                None => self.give_back(work, held.saturating_sub(own)).map(|()| None),
            };
        }
        let Some(left) = source.available.checked_add(held).and_then(|free| free.checked_sub(own)) else {
            return Ok(Some(format!("{own} is wanted and {} is available", source.available)));
        };
        source.reserved = moved(source.reserved, held, own, funding.as_str())?;
        source.available = left;
        source.cover_shortfall();
        self.changes.fundings.insert(funding.to_string());
        Ok(None)
    }

    fn charge(&mut self, charge: &Charge, metered: Option<&Written>) -> Result<Outcome> {
        let (work, segment) = (charge.work.to_string(), charge.segment.to_string());
        if self.found.contains(&segment) {
            return Ok(Outcome::Already);
        }
        let Some(row) = self.reservations.get_mut(&work) else {
            return Ok(Outcome::Refused(format!("{work} has no reservation to charge")));
        };
        if row.segments.contains(&segment) {
            return Ok(Outcome::Already);
        }
        let exact = row.exact.checked_add(charge.cost);
        let all = exact.and_then(|exact| Ok((exact, exact.charged()?))).ok().filter(|(_, all)| *all <= Amount::MAX);
        let Some((exact, all)) = all else {
            return Ok(Outcome::Refused(format!("{segment} costs more than the books can hold")));
        };
        // What the reservation no longer covers is ours to bear: it is shown, and never the buyer's.
        // What was absorbed once stays so: a later attempt's reservation does not pay for it.
        let due = all.checked_sub(row.charged).and_then(|rest| rest.checked_sub(row.absorbed));
        let due = due.ok_or_else(|| LedgerError::Broken(format!("{work} was charged more than it cost")))?;
        let taken = due.min(row.reserved);
        let absorbed = due.saturating_sub(taken);
        let funding = self.fundings.get_mut(&row.funding).ok_or_else(|| LedgerError::Broken(format!("{work}'s funding is unknown")))?;
        if row.forget_use(funding)? {
            self.changes.holds.insert(work.clone());
        }
        funding.reserved = moved(funding.reserved, taken, Amount::ZERO, &row.funding)?;
        // A grant is paid in the books: what is charged is settled at once.
        let column = if charge.payee.is_some() { &mut funding.owed } else { &mut funding.posted };
        *column = plus(*column, taken, &row.funding)?;
        funding.absorbed = plus(funding.absorbed, absorbed, &row.funding)?;
        row.charged = plus(row.charged, taken, &work)?;
        row.absorbed = plus(row.absorbed, absorbed, &work)?;
        row.reserved = row.reserved.saturating_sub(taken);
        row.exact = exact;
        row.segments.insert(segment.clone());
        if let Some(payee) = charge.payee {
            let split = row.split.grown_to(&charge.fees, row.charged);
            self.changes.grow_lanes(&row.funding, payee, &row.split, &split);
            row.split = split;
        }
        let tagged = metered.map(|written| written.tag.clone());
        self.changes.add_charge(charge, &row.funding, taken, metered);
        self.changes.fundings.insert(row.funding.clone());
        self.changes.reservations.insert(work.clone());
        self.charge_above(&work, taken)?;
        let (attempt, seconds, evidence) = (charge.attempt, charge.seconds, charge.evidence);
        let (amount, absorbed) = (taken.units(), absorbed.units());
        self.changes.lines.push(Line::Charge { work, segment, attempt, seconds, evidence, amount, absorbed, metered: tagged });
        Ok(Outcome::Applied)
    }

    /// A card is named by its hash, so it is never another one.
    fn keep(&mut self, card: &RateCard) -> Outcome {
        let hash = card.hash().to_string();
        if !self.cards.insert(hash.clone()) {
            return Outcome::Already;
        }
        self.changes.cards.insert(hash.clone(), canonical::of(card));
        self.changes.lines.push(Line::Card { card: hash });
        Outcome::Applied
    }

    /// What the chain says of them takes the place of what it said before.
    fn keep_cases(&mut self, funding: &FundingId, lanes: &[LaneCases]) -> Outcome {
        let sum = |part: fn(&LaneCases) -> Amount| {
            lanes.iter().try_fold(Amount::ZERO, |sum, lane| sum.checked_add(part(lane))).filter(|sum| *sum <= Amount::MAX)
        };
        let (Some(returned), Some(case_fees)) = (sum(|lane| lane.clawback), sum(|lane| lane.fees)) else {
            return Outcome::Refused(format!("{funding}'s cases come to more than the books can hold"));
        };
        if !self.fundings.contains_key(funding.as_str()) {
            return Outcome::Refused(format!("{funding} has no money yet"));
        }
        let lanes: BTreeMap<Payee, LaneCases> = lanes.iter().map(|lane| (lane.payee, *lane)).collect();
        if self.cases.get(funding.as_str()).is_some_and(|known| *known == lanes) {
            return Outcome::Already;
        }
        let clawback = lanes.values().map(|lane| (lane.payee, lane.clawback.units(), lane.fees.units())).collect();
        self.cases.insert(funding.to_string(), lanes);
        self.changes.cases.insert(funding.to_string());
        let (funding, returned, case_fees) = (funding.to_string(), returned.units(), case_fees.units());
        self.changes.lines.push(Line::Cases { funding, returned, case_fees, clawback });
        Outcome::Applied
    }

    fn release(&mut self, work: &WorkId) -> Result<Outcome> {
        let id = work.to_string();
        let Some(row) = self.reservations.get_mut(&id).filter(|row| row.open) else { return Ok(Outcome::Already) };
        let funding = self.fundings.get_mut(&row.funding).ok_or_else(|| LedgerError::Broken(format!("{work}'s funding is unknown")))?;
        let returned = row.reserved;
        if row.forget_use(funding)? {
            self.changes.holds.insert(id.clone());
        }
        row.reserved = Amount::ZERO;
        row.open = false;
        self.changes.fundings.insert(row.funding.clone());
        self.changes.reservations.insert(id.clone());
        self.give_back(&id, returned)?;
        self.changes.lines.push(Line::Release { work: id, returned: returned.units() });
        Ok(Outcome::Applied)
    }

    fn hold(&mut self, at: i64, works: &[(WorkId, Amount)]) -> Result<Outcome> {
        let mut grown: BTreeMap<Asset, (u64, u64)> = BTreeMap::new();
        for (work, used) in works {
            let id = work.to_string();
            // What is over was charged, or never will be.
            let Some(row) = self.reservations.get_mut(&id).filter(|row| row.open) else { continue };
            let used = (*used).min(row.reserved);
            if used <= row.used {
                continue;
            }
            let funding = self.fundings.get_mut(&row.funding).ok_or_else(|| LedgerError::Broken(format!("{work}'s funding is unknown")))?;
            funding.held = moved(funding.held, row.used, used, &row.funding)?;
            let (works, more) = grown.entry(funding.asset.clone()).or_default();
            (*works, *more) = (*works + 1, *more + used.saturating_sub(row.used).units());
            (row.used, row.seen) = (used, at);
            self.changes.fundings.insert(row.funding.clone());
            self.changes.holds.insert(id);
        }
        let outcome = if grown.is_empty() { Outcome::Already } else { Outcome::Applied };
        self.changes.lines.extend(grown.into_iter().map(|(asset, (works, more))| Line::Hold { asset, at, works, more }));
        Ok(outcome)
    }
}

impl Funding {
    /// What is free again is first what was short.
    pub(crate) fn cover_shortfall(&mut self) {
        let covered = self.available.min(self.shortfall);
        for part in [&mut self.available, &mut self.shortfall, &mut self.deposited] {
            *part = part.saturating_sub(covered);
        }
    }
}

impl Reservation {
    /// A charge says what it has used, or nobody does. Whether anything was said before.
    fn forget_use(&mut self, funding: &mut Funding) -> Result<bool> {
        let used = std::mem::take(&mut self.used);
        funding.held = moved(funding.held, used, Amount::ZERO, &self.funding)?;
        Ok(!used.is_zero())
    }
}

fn plus(one: Amount, other: Amount, whose: &str) -> Result<Amount> {
    let sum = one.checked_add(other).filter(|sum| *sum <= Amount::MAX);
    sum.ok_or_else(|| LedgerError::Broken(format!("{whose} would hold more than the books can")))
}

/// Without `less`, with `more`.
pub(crate) fn moved(whole: Amount, less: Amount, more: Amount, whose: &str) -> Result<Amount> {
    let rest = whole.checked_sub(less).ok_or_else(|| LedgerError::Broken(format!("{whose} has less reserved than its works hold")))?;
    plus(rest, more, whose)
}
