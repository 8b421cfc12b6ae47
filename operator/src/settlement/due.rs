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
}

/// What posts of a chain are planned by.
pub struct Asked<'a> {
    pub chain: &'a str,
    pub settings: &'a Settlement,
    pub followed: &'a Followed,
    pub refused: &'a Refused,
    pub gas: Option<Gas>,
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
}

impl Unplanned {
    async fn read(ledger: &Ledger, asked: &Asked<'_>) -> Result<Self, SettlementError> {
        let mut unplanned = Self::default();
        for (funding, lane) in ledger.unsettled().await? {
            let units = lane.total.saturating_sub(lane.planned).units();
            if units > 0 && funding.account().is_some_and(|(chain, _)| chain == asked.chain) {
                let payee = unplanned.payees.entry(lane.payee).or_default();
                *payee = payee.saturating_add(units);
                unplanned.accounts.entry(funding).or_default().push(lane);
            }
        }
        if asked.settings.post_charges.is_some() && !unplanned.accounts.is_empty() {
            unplanned.charges = ledger.unposted_charges().await?;
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
        sooner || leaves || !asked.refused.is_empty() || since(self.last_post, now) >= *post_seconds
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
        let unplanned = Unplanned::read(ledger, asked).await?;
        let (mut waiting, mut planned) = (BTreeSet::new(), BTreeSet::new());
        for (funding, lanes) in &unplanned.accounts {
            if followed.held.contains(funding) || open.contains(funding) {
                continue;
            }
            // It owes something since this look began: the next one looks at it first.
            let Some(room) = followed.rooms.get(funding).cloned() else { continue };
            let most = followed.most.get(funding).copied().unwrap_or(Amount::MAX);
            let leaving = match followed.leaving.get(funding) {
                None => Leaving::No,
                Some(until) if self.is_pressed(funding, *until, now) => Leaving::Known,
                Some(_) => Leaving::New,
            };
            let refused_seconds = asked.refused.get(funding).map(|(_, at)| since(*at, now));
            let owed = Owed { waited_seconds, refused_seconds, leaving, ..unplanned.owed(funding, lanes, &room) };
            if let Some(due) = posting::due(&owed, &asked.terms(lanes.len(), most)) {
                tracing::debug!(%funding, ?due, "a post is due");
                planned.extend(ledger.plan_post_within(fence, funding, room, now).await?.map(|post| post.funding));
            } else {
                waiting.insert(funding);
            }
        }
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
mod tests {
    use super::*;
    use crate::settlement::simulation::{account, charge, open};
    use supercargo_ledger::PostState;

    /// Time is the only reason, and it was just now.
    const HOURLY: Settlement = Settlement {
        poll_seconds: 5,
        post_seconds: 3_600,
        minimum_amount: Amount::from_units(1),
        post_amount: None,
        post_charges: None,
        post_exposure: None,
        gas_multiple: 0,
    };
    const NOW: i64 = 1_000_000;

    struct Office {
        ledger: Ledger,
        fence: Fence,
        calendar: Calendar,
        followed: Followed,
        refused: Refused,
        gas: Option<Gas>,
        segment: u32,
    }

    impl Office {
        /// Two accounts that owe nothing yet, and posts that were just planned.
        async fn open() -> Self {
            let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
            let fence = ledger.take_lead("one").await.expect("leads");
            open(&ledger, fence).await;
            let calendar = Calendar { last_post: NOW, ..Calendar::default() };
            let mut followed = Followed::default();
            followed.rooms.extend([0, 1].map(|number| (account(number), Room::from(Amount::MAX))));
            Self { ledger, fence, calendar, followed, refused: Refused::default(), gas: None, segment: 0 }
        }

        async fn earns(&mut self, work: u64, units: u64) {
            self.segment += 1;
            self.ledger.commit(self.fence, &[charge(work, self.segment, units)]).await.expect("commits");
        }

        /// Whose posts are planned when this is looked at: each is final at once.
        async fn plans(&mut self, settings: &Settlement, after: i64) -> Vec<(FundingId, u64)> {
            let Self { ledger, fence, calendar, followed, refused, gas, .. } = self;
            let asked = Asked { chain: "c", settings, followed, refused, gas: *gas };
            if calendar.is_worth_a_look(&asked, NOW + after) {
                let posts = calendar.plan(ledger, *fence, &asked, NOW + after).await.expect("plans");
                forget(refused, &posts, settings, NOW + after);
            }
            let posts = ledger.open_posts().await.expect("reads");
            for post in &posts {
                assert_eq!(post.state, PostState::Planned);
                ledger.book_final(*fence, &post.id, "0x1", 1, &[]).await.expect("books");
            }
            posts.into_iter().map(|post| (post.funding, post.amount.units())).collect()
        }
    }

    #[tokio::test]
    async fn by_default_posts_are_planned_by_time_alone() {
        let mut office = Office::open().await;
        office.earns(0, 100_000).await;
        office.earns(1, 10).await;
        assert_eq!(office.plans(&HOURLY, 3_599).await, []);
        assert_eq!(office.plans(&HOURLY, 3_600).await, [(account(0), 100_000), (account(1), 10)]);
        office.earns(1, 10).await;
        assert_eq!(office.plans(&HOURLY, 3_700).await, [], "and an hour later again");
        let minimum = Settlement { minimum_amount: Amount::from_units(11), ..HOURLY };
        assert_eq!(office.plans(&minimum, 7_200).await, [], "too little waits");
        office.earns(1, 1).await;
        assert_eq!(office.plans(&minimum, 10_800).await, [(account(1), 11)], "and is not dropped");
    }

    #[tokio::test]
    async fn an_amount_or_a_number_of_charges_is_posted_for_at_once_and_of_that_account_alone() {
        for settings in
            [Settlement { post_amount: Some(Amount::from_units(300)), ..HOURLY }, Settlement { post_charges: Some(3), ..HOURLY }]
        {
            let mut office = Office::open().await;
            office.earns(1, 100).await;
            office.earns(0, 100).await;
            office.earns(0, 100).await;
            assert_eq!(office.plans(&settings, 5).await, [], "{settings:?}");
            office.earns(0, 100).await;
            assert_eq!(office.plans(&settings, 10).await, [(account(0), 300)], "{settings:?}");
            office.earns(0, 100).await;
            assert_eq!(office.plans(&settings, 15).await, [], "what was posted counts no more: {settings:?}");
        }
    }

    #[tokio::test]
    async fn what_one_payee_is_owed_by_all_accounts_together_is_posted_for_by_each_of_them() {
        let mut office = Office::open().await;
        // Of each hundred two and a half are a fee.
        let settings = Settlement { post_exposure: Some(Amount::from_units(195)), ..HOURLY };
        office.earns(0, 100).await;
        assert_eq!(office.plans(&settings, 5).await, []);
        office.earns(1, 100).await;
        assert_eq!(office.plans(&settings, 10).await, [(account(0), 100), (account(1), 100)]);
    }

    #[tokio::test]
    async fn what_is_not_worth_its_gas_waits_until_gas_is_cheaper_or_more_is_owed() {
        let mut office = Office::open().await;
        let settings = Settlement { gas_multiple: 10, post_amount: Some(Amount::from_units(1)), ..HOURLY };
        // Two rows are 52,000 gas: at this fee 130 units.
        let coin = Amount::from_units(2_500_000_000);
        office.gas = Some(Gas { coin, fee_wei: 1_000_000 });
        office.earns(0, 1_299).await;
        assert_eq!(office.plans(&settings, 5).await, []);
        office.earns(0, 1).await;
        assert_eq!(office.plans(&settings, 10).await, [(account(0), 1_300)]);
        office.earns(0, 130).await;
        assert_eq!(office.plans(&settings, 9_000).await, [], "time does not make it worth more");
        office.gas = Some(Gas { coin, fee_wei: 100_000 });
        assert_eq!(office.plans(&settings, 9_005).await, [(account(0), 130)]);
    }

    #[tokio::test]
    async fn who_goes_is_posted_for_at_once_and_once_and_nothing_is_too_little() {
        let mut office = Office::open().await;
        let settings = Settlement { minimum_amount: Amount::from_units(1_000), ..HOURLY };
        office.earns(0, 10).await;
        office.earns(1, 10).await;
        office.followed.leaving.insert(account(0), NOW);
        office.followed.held.insert(account(0));
        assert_eq!(office.plans(&settings, 5).await, [], "what is held is not posted");
        office.followed.held.clear();
        assert_eq!(office.plans(&settings, 10).await, [(account(0), 10)]);
        office.earns(0, 10).await;
        assert_eq!(office.plans(&settings, 15).await, []);
        assert_eq!(office.plans(&settings, 3_600).await, [(account(0), 10)]);
    }

    #[tokio::test]
    async fn where_no_post_can_carry_what_is_waited_for_a_full_one_is_made() {
        let mut office = Office::open().await;
        let settings = Settlement { minimum_amount: Amount::from_units(10), ..HOURLY };
        office.earns(0, 1_000).await;
        office.followed.most.insert(account(0), Amount::from_units(5));
        office.followed.rooms.insert(account(0), Amount::from_units(4).into());
        assert_eq!(office.plans(&settings, 3_600).await, [], "it is not full yet");
        office.followed.rooms.insert(account(0), Amount::from_units(5).into());
        assert_eq!(office.plans(&settings, 7_200).await, [(account(0), 5)]);
    }

    #[tokio::test]
    async fn while_something_goes_posts_are_made_every_hour_however_seldom_they_are_else() {
        let mut office = Office::open().await;
        let settings = Settlement { post_seconds: 604_800, ..HOURLY };
        office.earns(0, 10).await;
        office.earns(1, 10).await;
        office.followed.leaving.insert(account(0), NOW);
        office.followed.rooms.insert(account(0), Amount::ZERO.into());
        assert_eq!(office.plans(&settings, 5).await, [], "nothing may leave it now");
        office.followed.rooms.insert(account(0), Amount::MAX.into());
        assert_eq!(office.plans(&settings, 10).await, [(account(0), 10)]);
        office.earns(0, 10).await;
        assert_eq!(office.plans(&settings, 3_609).await, []);
        assert_eq!(office.plans(&settings, 3_610).await, [(account(0), 10)]);
    }

    #[tokio::test]
    async fn what_the_contract_refused_is_planned_again_after_a_while_and_within_what_room_there_is() {
        let mut office = Office::open().await;
        let settings = Settlement { post_amount: Some(Amount::from_units(1)), ..HOURLY };
        office.earns(0, 100).await;
        office.refused.insert(account(0), ("frozen".to_owned(), NOW));
        for after in [5, 599] {
            assert_eq!(office.plans(&settings, after).await, [], "after {after} s");
        }
        office.followed.rooms.insert(account(0), Amount::from_units(40).into());
        assert_eq!(office.plans(&HOURLY, 600).await, [(account(0), 40)]);
    }

    #[tokio::test]
    async fn what_was_refused_and_is_too_little_to_be_posted_now_keeps_an_account_from_nothing() {
        let mut office = Office::open().await;
        let settings = Settlement { minimum_amount: Amount::from_units(100), ..HOURLY };
        office.earns(0, 99).await;
        office.earns(1, 100).await;
        for number in 0..2 {
            office.refused.insert(account(number), ("frozen".to_owned(), NOW));
        }
        for (after, posts, left) in [(599, vec![], vec![account(0), account(1)]), (600, vec![(account(1), 100)], vec![account(1)])] {
            assert_eq!(office.plans(&settings, after).await, posts, "after {after} s");
            assert_eq!(office.refused.keys().cloned().collect::<Vec<_>>(), left, "after {after} s");
        }
    }

    #[tokio::test]
    async fn a_clock_that_was_ahead_for_a_while_holds_no_post_back() {
        let mut office = Office::open().await;
        office.earns(0, 100).await;
        assert_eq!(office.plans(&HOURLY, 86_400).await, [(account(0), 100)]);
        office.earns(0, 10).await;
        assert_eq!(office.plans(&HOURLY, 3_600).await, [(account(0), 10)]);
        office.earns(0, 10).await;
        assert_eq!(office.plans(&HOURLY, 3_605).await, [], "and from then on every hour");
    }

    #[tokio::test]
    async fn what_was_not_looked_at_on_the_chain_is_not_posted() {
        let mut office = Office::open().await;
        let settings = Settlement { post_amount: Some(Amount::from_units(1)), ..HOURLY };
        office.earns(0, 100).await;
        office.earns(1, 100).await;
        let room = office.followed.rooms.remove(&account(1)).expect("is there");
        assert_eq!(office.plans(&settings, 5).await, [(account(0), 100)]);
        office.followed.rooms.insert(account(1), room);
        assert_eq!(office.plans(&settings, 10).await, [(account(1), 100)]);
    }
}
