//! Which accounts a post is planned for now: the rule is `market::posting`, and this is what the books and the chain say for it.

use super::SettlementError;
use super::agree;
use super::desk::Followed;
use super::evm::{EvmNode, EvmPen};
use super::rail::Seen;
use crate::runtime::config::{ChainConfig, Settlement};
use std::collections::{BTreeMap, BTreeSet};
use supercargo_ledger::{Fence, Lane, Ledger, Room};
use supercargo_market::money::Amount;
use supercargo_market::posting::{self, LEAVING_SECONDS, Leaving, Owed, REFUSED_SECONDS, Terms};
use supercargo_market::work::FundingId;

/// As many rows as one post carries.
const MOST_ROWS: u64 = 100;

/// Accounts whose last post the contract refused: in words, and when.
pub type Refused = BTreeMap<FundingId, (String, i64)>;

/// When posts were planned. A restart begins with nothing, and plans at once.
#[derive(Debug, Default)]
pub struct Calendar {
    last_post: i64,
    /// What goes was seen of these, until when what runs has ended; and when it was posted for.
    pressed: BTreeMap<FundingId, (i64, i64)>,
    /// Of these payees it has changed whether the contract knows them: whoever owes them something is posted for next.
    changed: BTreeSet<u32>,
    /// Their post would be due, and is not worth its gas.
    pub dear: BTreeSet<FundingId>,
}

/// What posts of a chain are planned by.
pub struct Asked<'a> {
    pub chain: &'a str,
    pub settings: &'a Settlement,
    pub followed: &'a Followed,
    pub refused: &'a Refused,
    pub gas: Option<Gas>,
    /// Payees that the contract does not know. What they are owed waits until it does.
    pub unknown: &'a BTreeSet<u32>,
}

/// What a unit of gas and a coin cost, where a post has to be worth its gas.
#[derive(Debug, Clone, Copy)]
pub struct Gas {
    pub coin: Amount,
    pub fee_wei: u128,
}

impl Gas {
    /// None where it is not configured. What is paid for gas now is asked of the chain.
    pub async fn of(
        config: &ChainConfig,
        settings: &Settlement,
        seen: &Seen<'_, EvmNode, EvmPen>,
    ) -> Result<Option<Self>, SettlementError> {
        let Some(coin) = config.coin_price.filter(|_| settings.gas_multiple > 0) else { return Ok(None) };
        let fees = seen.agreeing().map(|node| async move { Ok(node.chain.fees().await?.max_fee_wei) });
        let fee_wei = agree::low_middle(seen.enough(fees).await?).unwrap_or_default();
        Ok(Some(Self { coin, fee_wei }))
    }
}

/// What no post carries yet.
#[derive(Debug, Default)]
struct Unplanned {
    accounts: BTreeMap<FundingId, Vec<Lane>>,
    /// Of all accounts together.
    payees: BTreeMap<u32, u64>,
    /// Where they are counted.
    charges: BTreeMap<FundingId, u64>,
    /// Who owes something to payees of whom it has changed whether the contract knows them.
    changed: BTreeMap<FundingId, BTreeSet<u32>>,
}

impl Unplanned {
    async fn read(ledger: &Ledger, asked: &Asked<'_>, changed: &BTreeSet<u32>) -> Result<Self, SettlementError> {
        let mut unplanned = Self::default();
        for (funding, lane) in ledger.unsettled().await? {
            let units = lane.total.saturating_sub(lane.planned).units();
            if units == 0 || funding.account().is_none_or(|(chain, _)| chain != asked.chain) {
                continue;
            }
            if changed.contains(&lane.payee) {
                unplanned.changed.entry(funding.clone()).or_default().insert(lane.payee);
            }
            if !asked.unknown.contains(&lane.payee) {
                let payee = unplanned.payees.entry(lane.payee).or_default();
                *payee = payee.saturating_add(units);
                unplanned.accounts.entry(funding).or_default().push(lane);
            }
        }
        if asked.settings.post_charges.is_some() && !unplanned.accounts.is_empty() {
            unplanned.charges = ledger.unposted_charges(asked.unknown).await?;
        }
        Ok(unplanned)
    }

    fn owed(&self, funding: &FundingId, lanes: &[Lane], room: &Room) -> Owed {
        let exposure = lanes.iter().filter_map(|lane| self.payees.get(&lane.payee)).max().copied();
        Owed {
            amount: Amount::from_units(room.books(lanes)),
            charges: self.charges.get(funding).copied().unwrap_or_default(),
            exposure: Amount::from_units(exposure.unwrap_or_default()),
            ..Owed::default()
        }
    }
}

impl Asked<'_> {
    /// Of a post of so many rows, where none ever carries more than this.
    fn terms(&self, rows: usize, most: Amount) -> Terms {
        let Settlement { post_seconds, minimum_amount, post_amount, post_charges, post_exposure, gas_multiple, .. } = *self.settings;
        let rows = u64::try_from(rows).unwrap_or(MOST_ROWS).min(MOST_ROWS);
        let cost = self.gas.map_or(Amount::ZERO, |gas| posting::cost(rows, gas.fee_wei, gas.coin));
        let least = posting::worth(minimum_amount, cost, gas_multiple, most);
        Terms { least, seconds: post_seconds, amount: post_amount, charges: post_charges, exposure: post_exposure }
    }
}

impl Calendar {
    /// Whether anything can be due by now, before the books are asked.
    pub fn is_worth_a_look(&self, asked: &Asked<'_>, now: i64) -> bool {
        let Settlement { post_seconds, post_amount, post_charges, post_exposure, .. } = asked.settings;
        let sooner = post_amount.is_some() || post_charges.is_some() || post_exposure.is_some();
        let leaves = asked.followed.leaving.iter().any(|(funding, until)| !self.is_pressed(funding, *until, now));
        sooner || leaves || !asked.refused.is_empty() || !self.changed.is_empty() || since(self.last_post, now) >= *post_seconds
    }

    /// The contract knows some payees now that it did not, or the other way round.
    pub fn change(&mut self, payees: BTreeSet<u32>) {
        self.changed.extend(payees);
    }

    /// Whether what goes of it was posted for lately.
    fn is_pressed(&self, funding: &FundingId, until: i64, now: i64) -> bool {
        self.pressed.get(funding).is_some_and(|(known, at)| *known == until && since(*at, now) < LEAVING_SECONDS)
    }

    /// Plans a post of each account that is due. What an account does not let through now waits for the next. Gives back who has
    /// a post that is planned, or was.
    pub async fn plan(
        &mut self,
        ledger: &Ledger,
        fence: Fence,
        asked: &Asked<'_>,
        now: i64,
    ) -> Result<BTreeSet<FundingId>, SettlementError> {
        let Asked { followed, settings, .. } = asked;
        // What something goes from is posted at once when that is seen, and from then on every hour at least.
        self.pressed.retain(|funding, (until, _)| followed.leaving.get(funding) == Some(until));
        let waited_seconds = since(self.last_post, now);
        let open: BTreeSet<FundingId> = ledger.open_posts().await?.into_iter().map(|post| post.funding).collect();
        let unplanned = Unplanned::read(ledger, asked, &self.changed).await?;
        let mut later = BTreeSet::new();
        let (mut waiting, mut planned) = (BTreeSet::new(), BTreeSet::new());
        self.dear.retain(|funding| unplanned.accounts.contains_key(funding) && !open.contains(funding));
        for (funding, lanes) in &unplanned.accounts {
            let changed = unplanned.changed.get(funding);
            // Of who owes something only since this look began there is no room yet: the next one looks at it first.
            let room = followed.rooms.get(funding).filter(|_| !followed.held.contains(funding) && !open.contains(funding));
            let Some(room) = room.map(|room| Room { unknown: asked.unknown.clone(), ..room.clone() }) else {
                later.extend(changed.into_iter().flatten().copied());
                continue;
            };
            let most = followed.most.get(funding).copied().unwrap_or(Amount::MAX);
            let leaving = match followed.leaving.get(funding) {
                None => Leaving::No,
                Some(until) if self.is_pressed(funding, *until, now) => Leaving::Known,
                Some(_) => Leaving::New,
            };
            // What it was refused for may have been the payee.
            let refused_seconds = asked.refused.get(funding).filter(|_| changed.is_none()).map(|(_, at)| since(*at, now));
            let waited_seconds = if changed.is_some() { u64::MAX } else { waited_seconds };
            let owed = Owed { waited_seconds, refused_seconds, leaving, ..unplanned.owed(funding, lanes, &room) };
            if let Some(due) = posting::due(&owed, &asked.terms(lanes.len(), most)) {
                tracing::debug!(%funding, ?due, "a post is due");
                self.dear.remove(funding);
                planned.extend(ledger.plan_post_within(fence, funding, room, now).await?.map(|post| post.funding));
            } else {
                waiting.insert(funding);
                // Whether anything but gas keeps it is known when a post would be due.
                let cheap = Asked { gas: None, ..*asked }.terms(lanes.len(), most);
                if posting::due(&owed, &cheap).is_some() {
                    self.dear.insert(funding.clone());
                } else if owed.amount < cheap.least {
                    self.dear.remove(funding);
                }
            }
        }
        self.changed = later;
        if waited_seconds >= settings.post_seconds {
            self.last_post = now;
        }
        for (funding, until) in &followed.leaving {
            let waits = followed.held.contains(funding) || open.contains(funding) || waiting.contains(funding);
            if !waits && !self.is_pressed(funding, *until, now) {
                self.pressed.insert(funding.clone(), (*until, now));
            }
        }
        Ok(planned.into_iter().chain(open).collect())
    }
}

/// Of what was refused long enough ago to be tried again, and is not, nothing is due any more: it keeps nobody from anything.
pub fn forget(refused: &mut Refused, posts: &BTreeSet<FundingId>, settings: &Settlement, now: i64) {
    let seconds = settings.post_seconds.min(REFUSED_SECONDS);
    refused.retain(|funding, (_, at)| posts.contains(funding) || since(*at, now) < seconds);
}

/// A time that is yet to come was told by a clock that was wrong: whatever was done then is long ago.
fn since(then: i64, now: i64) -> u64 {
    now.checked_sub(then).and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "due_tests.rs"]
mod tests;
