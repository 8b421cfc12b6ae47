//! One chain's desk: a look at what is final, at every account that an escrow names, and a step of each open post. What it
//! remembers between looks decides about no money: a restart begins with nothing.

mod accounts;
mod kept;
mod turn;

use super::agree::{Agreed, Terms};
use super::course::{Course, goes_on, no_agreement};
use super::due::{Calendar, Refused};
use super::evm::{EvmNode, EvmPen};
use super::health::{self, Differing, Owing};
use super::key::KeyFile;
use super::names::Names;
use super::outbox::{self, Progress};
use super::owners;
use super::rail::Seen;
use super::setup::{self, Wires};
use super::steps;
use super::stuck::{self, Watch};
use super::told::{Told, key_used_elsewhere};
use super::untold::Untold;
use super::vouchers::{self, Scribe, Unsigned};
use super::{SettlementError, Settler};
use crate::runtime::config::ChainConfig;
use crate::watch::News;
use crate::world::Event;
use crate::world::records::Stall;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use supercargo_contracts::{Address, Finality};
use supercargo_ledger::{Fence, Post, Room};
use supercargo_market::account::Times;
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;
use turn::Turn;

const HEALTH_SECONDS: i64 = 30;
pub struct Desk {
    settler: Settler,
    config: ChainConfig,
    names: Names,
    key: KeyFile,
    wires: Option<Arc<Wires>>,
    /// The contract's, once it is known to be ours.
    times: Option<Times>,
    last_final: Option<Finality>,
    /// Since when there was no look that could be used.
    blind_since: Option<i64>,
    last_health: i64,
    last_owners: i64,
    /// Who owns which payee, as the books have it, once they were read.
    owners_kept: Option<BTreeMap<u32, String>>,
    last_recheck: i64,
    /// The key that the chain says is our settler's, and the accounts whose books may be old: once they were looked at.
    checked: Option<Address>,
    foreign: Option<BTreeSet<FundingId>>,
    unsigned: Unsigned,
    scribe: Scribe,
    /// Since when accounts could not be read.
    unread: BTreeMap<FundingId, i64>,
    untold: Untold,
    stuck: Watch,
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
    /// As much as one post could ever credit.
    pub most: BTreeMap<FundingId, Amount>,
}

type Eyes<'a> = Seen<'a, EvmNode, EvmPen>;

/// A time that is yet to come was told by a clock that was wrong.
fn is_time(last: i64, seconds: i64, now: i64) -> bool {
    now < last || now >= last + seconds
}

impl Desk {
    pub fn new(settler: Settler, config: ChainConfig) -> Self {
        Self {
            settler,
            config,
            names: Names::default(),
            key: KeyFile::default(),
            wires: None,
            times: None,
            last_final: None,
            blind_since: None,
            last_health: 0,
            last_owners: 0,
            owners_kept: None,
            last_recheck: 0,
            checked: None,
            foreign: None,
            unsigned: Unsigned::default(),
            scribe: Scribe::default(),
            unread: BTreeMap::new(),
            untold: Untold::default(),
            stuck: Watch::default(),
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

    pub fn chain(&self) -> &str {
        &self.config.name
    }

    pub async fn turn(&mut self, now: i64) {
        if let Err(error) = self.names.read(&self.settler.ledger).await {
            self.log(&error.into());
        }
        if let Err(error) = self.tell_what_is_left().await {
            self.log(&error);
        }
        if let Err(error) = self.recall_owners().await {
            self.log(&error);
        }
        let escrows = self.settler.accounts.borrow().clone();
        let Some(named) = self.names.of(&self.config.name, escrows) else { return };
        self.told.keep(&named);
        self.differing.keep(&named);
        self.scribe.keep(&named);
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
        let wires = self.wires().await?;
        let terms = Terms { chain_id: self.config.chain_id, now, oldest_seconds: self.config.oldest_final_seconds.into() };
        let look = wires.endpoints.look(terms).await;
        health::of_endpoints(&self.settler.metrics.payment, &self.config, &look);
        let agreed = look.map_err(|none| no_agreement(&self.config, &none))?;
        for (number, words) in &agreed.left_out {
            tracing::debug!(chain = self.config.name, endpoint = number + 1, words, "an endpoint is left out");
        }
        if goes_on(self.last_final, agreed.block, self.blind_since, now)? == Course::Undone {
            tracing::error!(chain = self.config.name, last = agreed.block.number, "the chain undid what was final");
            if let Err(error) = self.forget_owners().await {
                self.log(&error);
            }
            self.last_recheck = 0;
        }
        let seen = Seen { endpoints: &wires.endpoints, agreed: &agreed, pen: &wires.pen };
        let times = match self.times {
            Some(times) => times,
            None => {
                let times = setup::check_contract(&seen, &self.config).await?;
                if let Some(words) = setup::check_fees(&seen, &self.config, &self.settler.owners, &self.settler.fee_payees).await? {
                    tracing::error!(chain = self.config.name, "{words}");
                }
                *self.times.insert(times)
            }
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
    async fn wires(&mut self) -> Result<Arc<Wires>, SettlementError> {
        let key = self.key.read(&self.config).await?;
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

    /// Follows accounts, and pays.
    async fn work(&mut self, seen: &Eyes<'_>, times: Times, named: &[FundingId], now: i64) -> Result<(), SettlementError> {
        let (gas, followed) = match self.read(seen, times, named, now).await {
            Ok(read) => read,
            Err(error) => {
                self.tell_unread(named, &error, now).await;
                return Err(error);
            }
        };
        if is_time(self.last_owners, HEALTH_SECONDS, now) {
            let payees = self.settler.ledger.payees(&self.config.name).await?;
            if self.learn(seen, &payees).await {
                self.last_owners = now;
            }
            self.keep_owners(&payees).await?;
        }
        let Some(fence) = *self.settler.fence.borrow() else {
            // Whoever leads meanwhile may post what was refused.
            self.refused.clear();
            self.no_gas = None;
            self.fee_high = None;
            self.stuck = Watch::default();
            return Ok(());
        };
        let signer = seen.pen.key.address();
        self.no_gas = (gas == 0).then(|| format!("the settler's key {signer} has nothing left for gas: send it some"));
        steps::take(&mut Turn { desk: self, seen, followed: &followed, fence, now }).await
    }

    /// Asks the contract for payees. Whether it said something of each: what it can't be asked keeps nobody from being paid.
    async fn learn(&mut self, seen: &Eyes<'_>, payees: &BTreeSet<u32>) -> bool {
        let learnt = owners::learn(seen, &self.settler.owners, &self.config.name, payees).await;
        self.calendar.change(learnt.changed);
        learnt.failed.inspect(|error| self.log(error)).is_none()
    }

    /// One step of each open post. Gives back what kept the rest from one.
    async fn pay(
        &mut self,
        seen: &Eyes<'_>,
        fence: Fence,
        held: &BTreeSet<FundingId>,
        now: i64,
    ) -> Result<Option<SettlementError>, SettlementError> {
        let ledger = self.settler.ledger.clone();
        self.untold.begin(&self.open_posts().await?);
        let Progress { done, void, signed, refused, kept, waits, failed } =
            outbox::advance(&ledger, fence, seen, &self.config.name, held, now).await?;
        self.untold.end(done.iter().map(|(post, _)| post));
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
        }
        let key_used = self.key_used.is_some();
        self.watch_posts(&kept, |funding| key_used || held.contains(funding) || waits.contains(funding), now).await?;
        self.announce().await?;
        Ok(failed)
    }

    async fn open_posts(&self) -> Result<Vec<Post>, SettlementError> {
        let mut open = self.settler.ledger.open_posts().await?;
        open.retain(|post| post.funding.account().is_some_and(|(chain, _)| chain == self.config.name));
        Ok(open)
    }

    /// Takes in which posts are in no block after a step of each, and why.
    async fn watch_posts(
        &mut self,
        kept: &BTreeMap<FundingId, String>,
        waits: impl Fn(&FundingId) -> bool,
        now: i64,
    ) -> Result<(), SettlementError> {
        let open = self.open_posts().await?;
        let found = stuck::obstacles(&open, kept, waits);
        let (unknown, mut since) = (self.stuck.unknown(&found), BTreeMap::new());
        for post in open.iter().filter(|post| unknown.contains(&post.funding)) {
            since.extend(self.settler.ledger.first_signed_at(&post.id).await?.map(|at| (post.funding.clone(), at)));
        }
        self.stuck.open(found, &since, now);
        Ok(())
    }

    /// Tells the world what became of posts. What the books could not be asked about is told at the next look.
    async fn announce(&mut self) -> Result<(), SettlementError> {
        while let Some(news) = self.untold.first() {
            for event in news.read(&self.settler.ledger).await? {
                self.send(event).await;
            }
            self.untold.told();
        }
        Ok(())
    }

    /// What a look has booked that was given up, or failed, before it could tell.
    async fn tell_what_is_left(&mut self) -> Result<(), SettlementError> {
        if self.untold.is_empty() {
            return Ok(());
        }
        self.untold.begin(&self.open_posts().await?);
        self.announce().await
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
        vouchers::sign(&self.settler.ledger, fence, &wires.pen, &self.config.name, foreign, &mut self.scribe, now).await
    }

    async fn look_after_health(&mut self, now: i64) -> Result<(), SettlementError> {
        let leads = self.settler.fence.borrow().is_some();
        if leads && is_time(self.last_health, HEALTH_SECONDS, now) {
            self.last_health = now;
            self.owing.look(&self.settler.metrics.payment, &self.settler.ledger, &self.config.name, now).await?;
            let ledger = &self.settler.ledger;
            // Without a key nothing more is signed, of whomever.
            let unsigned = match &self.wires {
                Some(wires) => vouchers::unsigned(ledger, &wires.pen, &self.config.name).await?,
                None => ledger.payees(&self.config.name).await?,
            };
            let unsigned = self.unsigned.look(&unsigned, now);
            let unknown = self.settler.owners.unknown(&self.config.name);
            self.send(Event::Vouched { chain: self.config.name.clone(), unsigned, unknown }).await;
        }
        Ok(())
    }
}
