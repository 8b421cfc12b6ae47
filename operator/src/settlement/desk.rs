//! One chain's desk: a look at what is final, at every account that an escrow names, and a step of each open post. What it
//! remembers between looks decides about no money: a restart begins with nothing.

use super::agree::{Agreed, Terms};
use super::course::{Course, PATIENCE_SECONDS, goes_on, no_agreement};
use super::due::{Asked, Calendar, Gas, Refused};
use super::evm::{EvmNode, EvmPen};
use super::health::{self, Differing, Owing};
use super::outbox::{self, Progress};
use super::rail::Seen;
use super::recheck::recheck;
use super::setup::{self, Wires};
use super::told::{Told, key_used_elsewhere};
use super::vouchers::{self, Unsigned};
use super::{SettlementError, Settler, follow};
use crate::runtime::config::ChainConfig;
use crate::watch::News;
use crate::world::Event;
use crate::world::records::{Account, Stall};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use supercargo_contracts::{Address, Finality};
use supercargo_crds::names::escrow_stall::{CHAIN_SET_UP, ENDPOINTS_DISAGREE, NO_GAS, OTHER_LEDGER, POST_REFUSED};
use supercargo_ledger::{Fence, Room};
use supercargo_market::account::Times;
use supercargo_market::work::FundingId;

const HEALTH_SECONDS: i64 = 30;
/// So often final posts are looked at again, and when the chain undid what was final.
const RECHECK_SECONDS: i64 = 600;

pub struct Desk {
    settler: Settler,
    config: ChainConfig,
    wires: Option<Arc<Wires>>,
    /// The contract's, once it is known to be ours.
    times: Option<Times>,
    last_final: Option<Finality>,
    /// Since when there was no look that could be used.
    blind_since: Option<i64>,
    last_health: i64,
    last_owners: i64,
    last_recheck: i64,
    /// The key that the chain says is our settler's, and the accounts whose books may be old: once they were looked at.
    checked: Option<Address>,
    foreign: Option<BTreeSet<FundingId>>,
    unsigned: Unsigned,
    /// Since when accounts could not be read.
    unread: BTreeMap<FundingId, i64>,
    /// Final posts that the world does not know of yet.
    untold: Vec<(FundingId, String)>,
    calendar: Calendar,
    refused: Refused,
    no_gas: Option<String>,
    /// Somebody else has the key: nothing new is signed with it.
    key_used: Option<Stall>,
    /// What is said of gas: that little is left, or that posts wait until it is cheaper.
    gas_low: Option<Stall>,
    fee_high: Option<Stall>,
    told: Told,
    owing: Owing,
    differing: Differing,
    logged: String,
}

/// What the accounts that are followed mean for posts.
#[derive(Debug, Default)]
pub struct Followed {
    /// From these nothing is posted.
    pub held: BTreeSet<FundingId>,
    /// The chain has more of these than our books.
    foreign: BTreeSet<FundingId>,
    /// Something goes from these: what is owed is posted before. Until when what runs has ended.
    pub leaving: BTreeMap<FundingId, i64>,
    /// As much as one post may credit.
    pub rooms: BTreeMap<FundingId, Room>,
}

type Eyes<'a> = Seen<'a, EvmNode, EvmPen>;

impl Desk {
    pub fn new(settler: Settler, config: ChainConfig) -> Self {
        Self {
            settler,
            config,
            wires: None,
            times: None,
            last_final: None,
            blind_since: None,
            last_health: 0,
            last_owners: 0,
            last_recheck: 0,
            checked: None,
            foreign: None,
            unsigned: Unsigned::default(),
            unread: BTreeMap::new(),
            untold: Vec::new(),
            calendar: Calendar::default(),
            refused: Refused::default(),
            no_gas: None,
            key_used: None,
            gas_low: None,
            fee_high: None,
            told: Told::default(),
            owing: Owing::default(),
            differing: Differing::default(),
            logged: String::new(),
        }
    }

    pub async fn turn(&mut self, now: i64) {
        let named = self.settler.accounts.borrow().clone();
        // What is owed is looked after whether an Escrow names it or not. When the books can't be asked the rest says so.
        let owing = self.settler.ledger.unsettled().await.unwrap_or_default().into_iter().map(|(funding, _)| funding);
        let mut named: Vec<FundingId> = named.into_iter().chain(owing).filter(|funding| self.is_ours(funding)).collect();
        named.sort();
        named.dedup();
        self.told.keep(&named);
        self.differing.keep(&named);
        let looked = match self.look(now).await {
            Ok((wires, agreed, times)) => {
                self.blind_since = None;
                let seen = Seen { endpoints: &wires.endpoints, agreed: &agreed, pen: &wires.pen };
                self.work(&seen, times, &named, now).await
            }
            Err(error) => {
                self.tell_blind(&error, &named, now).await;
                Err(error)
            }
        };
        match looked {
            Ok(()) => self.logged.clear(),
            Err(error) => self.log(&error),
        }
        if let Err(error) = self.vouch(now).await {
            self.log(&error);
        }
        if let Err(error) = self.look_after_health(now).await {
            self.log(&error);
        }
    }

    fn is_ours(&self, funding: &FundingId) -> bool {
        funding.account().is_some_and(|(chain, _)| chain == self.config.name)
    }

    /// Once, until something else goes wrong.
    fn log(&mut self, error: &SettlementError) {
        let words = error.briefly();
        if words != self.logged {
            tracing::warn!(chain = self.config.name, words, "settling");
            self.logged = words;
        }
    }

    /// What is final by enough endpoints, on a chain that is what the configuration says.
    async fn look(&mut self, now: i64) -> Result<(Arc<Wires>, Agreed, Times), SettlementError> {
        let wires = self.wires()?;
        let terms = Terms { chain_id: self.config.chain_id, now, oldest_seconds: self.config.oldest_final_seconds.into() };
        let look = wires.endpoints.look(terms).await;
        health::of_endpoints(&self.settler.metrics.payment, &self.config, &look);
        let agreed = look.map_err(|none| no_agreement(&self.config, &none))?;
        for (number, words) in &agreed.left_out {
            tracing::debug!(chain = self.config.name, endpoint = number + 1, words, "an endpoint is left out");
        }
        if goes_on(self.last_final, agreed.block, self.blind_since, now)? == Course::Undone {
            tracing::error!(chain = self.config.name, last = agreed.block.number, "the chain undid what was final");
            self.settler.owners.forget(&self.config.name);
            self.last_recheck = 0;
        }
        let seen = Seen { endpoints: &wires.endpoints, agreed: &agreed, pen: &wires.pen };
        let times = match self.times {
            Some(times) => times,
            None => *self.times.insert(setup::check_contract(&seen, &self.config).await?),
        };
        let checked = setup::check_key(&seen, &self.config).await;
        if matches!(checked, Err(SettlementError::Stalled(_))) {
            self.checked = None;
        }
        checked?;
        let signer = wires.pen.key.address();
        let used = self.settler.ledger.foreign_nonce(&self.config.name, &signer.to_string()).await?;
        self.key_used = used.map(|nonce| key_used_elsewhere(&signer.to_string(), nonce));
        self.checked = self.key_used.is_none().then_some(signer);
        self.last_final = Some(agreed.block);
        Ok((wires, agreed, times))
    }

    /// The endpoints, and the key as its file has it now: a new one is taken up without a restart.
    fn wires(&mut self) -> Result<Arc<Wires>, SettlementError> {
        let key = setup::read_key(&self.config.settler_key_file)?;
        if let Some(wires) = self.wires.as_ref().filter(|wires| wires.pen.key.address() == key.address()) {
            return Ok(Arc::clone(wires));
        }
        if let Some(old) = &self.wires {
            let old = old.pen.key.address().to_string();
            self.settler.metrics.payment.signer.with_label_values(&[&self.config.name, &old]).set(0);
        }
        let wires = Arc::new(setup::wires(&self.config, key)?);
        self.wires = Some(Arc::clone(&wires));
        Ok(wires)
    }

    /// Every account of a chain that can't be used says so: at once when a person set it up wrongly, else when it lasts.
    async fn tell_blind(&mut self, error: &SettlementError, named: &[FundingId], now: i64) {
        let since = *self.blind_since.get_or_insert(now);
        let reason = match error {
            SettlementError::Stalled(_) => CHAIN_SET_UP,
            SettlementError::Ledger(_) => return,
            _ if now < since + PATIENCE_SECONDS => return,
            _ => ENDPOINTS_DISAGREE,
        };
        for funding in named {
            let stall = Stall { reason, words: error.briefly() };
            let account = Account { stalled: self.told.tell(funding, Some(stall), now), ..Account::default() };
            self.send(Event::Account { funding: funding.clone(), account: Box::new(account) }).await;
        }
    }

    /// Follows accounts, and pays.
    async fn work(&mut self, seen: &Eyes<'_>, times: Times, named: &[FundingId], now: i64) -> Result<(), SettlementError> {
        let (gas, followed) = match self.read(seen, times, named, now).await {
            Ok(read) => read,
            Err(error) => {
                self.tell_unread(named, &error, now).await;
                return Err(error);
            }
        };
        if now >= self.last_owners + HEALTH_SECONDS {
            let payees = self.settler.ledger.payees(&self.config.name).await?;
            vouchers::learn(seen, &self.settler.owners, &self.config.name, payees).await?;
            self.last_owners = now;
        }
        let Some(fence) = *self.settler.fence.borrow() else {
            // Whoever leads meanwhile may post what was refused.
            self.refused.clear();
            self.no_gas = None;
            self.fee_high = None;
            return Ok(());
        };
        let signer = seen.pen.key.address();
        self.no_gas = (gas == 0).then(|| format!("the settler's key {signer} has nothing left for gas: send it some"));
        if now >= self.last_recheck + RECHECK_SECONDS {
            let rechecked = recheck(&self.settler.ledger, fence, seen, &self.config.name).await?;
            self.settler.metrics.payment.posts.with_label_values(&["undone"]).inc_by(rechecked.sent + rechecked.undone);
            self.last_recheck = now;
        }
        let failed = self.pay(seen, fence, &followed.held, now).await?;
        let (chain, settings) = (self.config.name.as_str(), &self.settler.settings);
        let mut asked = Asked { chain, settings, followed: &followed, refused: &self.refused, gas: None };
        if !self.calendar.is_worth_a_look(&asked, now) {
            return failed.map_or(Ok(()), Err);
        }
        asked.gas = Gas::of(&self.config, settings, seen).await?;
        self.calendar.plan(&self.settler.ledger, fence, &asked, now).await?;
        let failed = self.pay(seen, fence, &followed.held, now).await?.or(failed);
        failed.map_or(Ok(()), Err)
    }

    async fn read(&mut self, seen: &Eyes<'_>, times: Times, named: &[FundingId], now: i64) -> Result<(u128, Followed), SettlementError> {
        let gas = seen.gas_balance_wei().await?;
        let signer = seen.pen.key.address().to_string();
        health::of_signer(&self.settler.metrics.payment, &self.config, &signer, gas);
        self.gas_low = health::gas_low(&self.config, &signer, gas);
        Ok((gas, self.follow(seen, times, named, now).await?))
    }

    /// Accounts that can't be read though the chain can: what was known of them is not believed for ever.
    async fn tell_unread(&mut self, unread: &[FundingId], error: &SettlementError, now: i64) {
        if matches!(error, SettlementError::Ledger(_)) {
            return;
        }
        for funding in unread {
            let since = *self.unread.entry(funding.clone()).or_insert(now);
            if now >= since + PATIENCE_SECONDS {
                let stall = Stall { reason: ENDPOINTS_DISAGREE, words: error.briefly() };
                let account = Account { stalled: self.told.tell(funding, Some(stall), now), ..Account::default() };
                self.send(Event::Account { funding: funding.clone(), account: Box::new(account) }).await;
            }
        }
    }

    /// Tells what the chain says of each account, and gives back what it means for posts.
    async fn follow(&mut self, seen: &Eyes<'_>, times: Times, named: &[FundingId], now: i64) -> Result<Followed, SettlementError> {
        let (mut followed, mut credited, mut posted) = (Followed::default(), 0, 0);
        let mut split = false;
        self.unread.retain(|funding, _| named.contains(funding));
        for funding in named {
            let observed = match follow::observe(&self.settler.ledger, seen, &self.config, times, funding).await {
                Ok(observed) => observed,
                // The endpoints will agree on this one later; the others are no worse for it.
                Err(error @ SettlementError::Waiting(_)) => {
                    self.log(&error);
                    self.tell_unread(std::slice::from_ref(funding), &error, now).await;
                    followed.held.insert(funding.clone());
                    split = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.unread.remove(funding);
            credited += observed.credited_units;
            posted += observed.posted_units;
            let mut account = observed.account;
            let said = (observed.credited_units, observed.posted_units);
            account.differs = self.differing.look(funding, said, now, 2 * self.settler.settings.post_seconds.cast_signed());
            if account.stalled.as_ref().is_some_and(|stall| stall.reason == OTHER_LEDGER) {
                followed.foreign.insert(funding.clone());
            }
            if account.stalled.is_some() || account.leaving.frozen_until.is_some() {
                followed.held.insert(funding.clone());
            }
            if let Some(until) = account.leaving.until {
                followed.leaving.insert(funding.clone(), until);
            }
            followed.rooms.insert(funding.clone(), observed.room);
            account.gas_low = self.fee_high.clone().or_else(|| self.gas_low.clone());
            account.stalled = account.stalled.or_else(|| self.not_posted(funding));
            account.stalled = self.told.tell(funding, account.stalled, now);
            self.send(Event::Account { funding: funding.clone(), account: Box::new(account) }).await;
        }
        health::of_accounts(&self.settler.metrics.payment, &self.config.name, &self.told, credited, posted);
        self.foreign = Some(followed.foreign.clone()).filter(|_| !split).or_else(|| self.foreign.take());
        Ok(followed)
    }

    /// What the last tries to post were refused for.
    fn not_posted(&self, funding: &FundingId) -> Option<Stall> {
        let refused = self
            .refused
            .get(funding)
            .map(|(words, _)| Stall { reason: POST_REFUSED, words: format!("the contract refuses a post: {words}") });
        self.key_used.clone().or(refused).or_else(|| Some(Stall { reason: NO_GAS, words: self.no_gas.clone()? }))
    }

    /// One step of each open post. Gives back what kept the rest from one.
    async fn pay(
        &mut self,
        seen: &Eyes<'_>,
        fence: Fence,
        held: &BTreeSet<FundingId>,
        now: i64,
    ) -> Result<Option<SettlementError>, SettlementError> {
        let Progress { done, void, signed, refused, failed } =
            outbox::advance(&self.settler.ledger, fence, seen, &self.config.name, held, now).await?;
        for funding in signed.iter().chain(done.iter().map(|(post, _)| &post.funding)) {
            self.refused.remove(funding);
        }
        self.refused.extend(refused.into_iter().map(|(funding, words)| (funding, (words, now))));
        if let Some(SettlementError::NoGas(words)) = &failed {
            self.no_gas = Some(words.clone());
        }
        self.fee_high = health::fee_high(failed.as_ref());
        let metrics = &self.settler.metrics.payment;
        metrics.posts.with_label_values(&["void"]).inc_by(void);
        for (post, gas_used) in done {
            metrics.posts.with_label_values(&["final"]).inc();
            metrics.gas_per_row.observe(gas_used as f64 / post.rows.len().max(1) as f64);
            self.untold.push((post.funding, post.id));
        }
        // What the books could not be asked about is told at the next look.
        while let Some((funding, post)) = self.untold.first().cloned() {
            self.announce(&funding, &post).await?;
            self.untold.remove(0);
        }
        Ok(failed)
    }

    /// Tells the world what a final post has changed.
    async fn announce(&self, funding: &FundingId, post: &str) -> Result<(), SettlementError> {
        let ledger = &self.settler.ledger;
        if let Some(balance) = ledger.funding(funding).await? {
            let last_post = ledger.last_final(funding).await?;
            self.send(Event::Posted { funding: funding.clone(), balance, last_post }).await;
        }
        for (work, balance) in ledger.works_of(post).await? {
            self.send(Event::Settled { work, balance }).await;
        }
        Ok(())
    }

    async fn send(&self, event: Event) {
        // Nobody listens any more when the operator stops.
        let _ = self.settler.news.send(News::Event(event)).await;
    }

    /// Signs what payees have earned, also while the chain can't be read: that is when they need it.
    async fn vouch(&mut self, now: i64) -> Result<(), SettlementError> {
        let (Some(fence), Some(wires), Some(foreign)) = (*self.settler.fence.borrow(), &self.wires, &self.foreign) else { return Ok(()) };
        // Another key than the settler's would sign what nobody can claim with.
        if self.checked != Some(wires.pen.key.address()) {
            return Ok(());
        }
        vouchers::sign(&self.settler.ledger, fence, &wires.pen, &self.config.name, foreign, now).await
    }

    async fn look_after_health(&mut self, now: i64) -> Result<(), SettlementError> {
        let leads = self.settler.fence.borrow().is_some();
        if leads && now >= self.last_health + HEALTH_SECONDS {
            self.last_health = now;
            self.owing.look(&self.settler.metrics.payment, &self.settler.ledger, &self.config.name, now).await?;
            let ledger = &self.settler.ledger;
            // Without a key nothing more is signed, of whomever.
            let unsigned = match &self.wires {
                Some(wires) => vouchers::unsigned(ledger, &wires.pen, &self.config.name).await?,
                None => ledger.payees(&self.config.name).await?,
            };
            let unsigned = self.unsigned.look(&unsigned, now);
            self.send(Event::Vouched { chain: self.config.name.clone(), unsigned }).await;
        }
        Ok(())
    }
}
