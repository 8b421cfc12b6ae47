//! One chain's desk: a look at what is final, at every account that an escrow names, and a step of each open post. What it
//! remembers between looks decides about no money: a restart begins with nothing.

use super::agree::{Agreed, NoAgreement, Terms, needed};
use super::evm::{EvmNode, EvmPen};
use super::health::{self, Owing};
use super::outbox::{self, Progress};
use super::rail::Seen;
use super::setup::{self, Wires};
use super::told::Told;
use super::{SettlementError, Settler, follow};
use crate::runtime::config::ChainConfig;
use crate::watch::News;
use crate::world::Event;
use crate::world::records::{Account, Stall};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use supercargo_contracts::Finality;
use supercargo_crds::names::escrow_stall::{CHAIN_SET_UP, ENDPOINTS_DISAGREE, NO_GAS, POST_REFUSED};
use supercargo_ledger::Fence;
use supercargo_market::work::FundingId;

/// For so long endpoints may say nothing, or less than before, until it is told and taken for what it is.
const PATIENCE_SECONDS: i64 = 60;
const HEALTH_SECONDS: i64 = 30;

pub struct Desk {
    settler: Settler,
    config: ChainConfig,
    wires: Option<Arc<Wires>>,
    contract_checked: bool,
    last_final: Option<Finality>,
    /// Since when there was no look that could be used.
    blind_since: Option<i64>,
    last_post: i64,
    last_health: i64,
    refused: BTreeMap<FundingId, String>,
    no_gas: Option<String>,
    told: Told,
    owing: Owing,
    logged: String,
}

type Eyes<'a> = Seen<'a, EvmNode, EvmPen>;

impl Desk {
    pub fn new(settler: Settler, config: ChainConfig) -> Self {
        Self {
            settler,
            config,
            wires: None,
            contract_checked: false,
            last_final: None,
            blind_since: None,
            last_post: 0,
            last_health: 0,
            refused: BTreeMap::new(),
            no_gas: None,
            told: Told::default(),
            owing: Owing::default(),
            logged: String::new(),
        }
    }

    pub async fn turn(&mut self, now: i64) {
        let named = self.settler.accounts.borrow().clone();
        let named: Vec<FundingId> = named.into_iter().filter(|funding| self.is_ours(funding)).collect();
        self.told.keep(&named);
        let looked = match self.look(now).await {
            Ok((wires, agreed)) => {
                self.blind_since = None;
                let seen = Seen { endpoints: &wires.endpoints, agreed: &agreed, pen: &wires.pen };
                self.work(&seen, &named, now).await
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
    async fn look(&mut self, now: i64) -> Result<(Arc<Wires>, Agreed), SettlementError> {
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
        }
        let seen = Seen { endpoints: &wires.endpoints, agreed: &agreed, pen: &wires.pen };
        if !self.contract_checked {
            setup::check_contract(&seen, &self.config).await?;
            self.contract_checked = true;
        }
        setup::check_key(&seen, &self.config).await?;
        self.last_final = Some(agreed.block);
        Ok((wires, agreed))
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
            self.send(Event::Account { funding: funding.clone(), account }).await;
        }
    }

    /// Follows accounts, and pays.
    async fn work(&mut self, seen: &Eyes<'_>, named: &[FundingId], now: i64) -> Result<(), SettlementError> {
        let gas = seen.gas_balance_wei().await?;
        let signer = seen.pen.key.address().to_string();
        health::of_signer(&self.settler.metrics.payment, &self.config, &signer, gas);
        let held = self.follow(seen, named, now).await?;
        let Some(fence) = *self.settler.fence.borrow() else { return Ok(()) };
        self.no_gas = (gas == 0).then(|| format!("the settler's key {signer} has nothing left for gas: send it some"));
        let failed = self.pay(seen, fence, &held, now).await?;
        if now < self.last_post + self.settler.settings.post_seconds.cast_signed() {
            return failed.map_or(Ok(()), Err);
        }
        self.last_post = now;
        for funding in self.settler.ledger.accounts().await? {
            if self.is_ours(&funding) && !held.contains(&funding) {
                outbox::plan(&self.settler.ledger, fence, &funding, self.settler.settings.minimum_amount, now).await?;
            }
        }
        let failed = self.pay(seen, fence, &held, now).await?.or(failed);
        failed.map_or(Ok(()), Err)
    }

    /// Tells what the chain says of each account, and gives back those that nothing is posted from.
    async fn follow(&mut self, seen: &Eyes<'_>, named: &[FundingId], now: i64) -> Result<BTreeSet<FundingId>, SettlementError> {
        let (mut held, mut credited, mut posted) = (BTreeSet::new(), 0, 0);
        let mut split = None;
        for funding in named {
            let observed = match follow::observe(&self.settler.ledger, seen, &self.config, funding).await {
                Ok(observed) => observed,
                // The endpoints will agree on this one later; the others are no worse for it.
                Err(error @ SettlementError::Waiting(_)) => {
                    split = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            credited += observed.credited_units;
            posted += observed.posted_units;
            let mut account = observed.account;
            if account.stalled.is_some() {
                held.insert(funding.clone());
            }
            account.stalled = account.stalled.or_else(|| self.not_posted(funding));
            account.stalled = self.told.tell(funding, account.stalled, now);
            self.send(Event::Account { funding: funding.clone(), account }).await;
        }
        health::of_accounts(&self.settler.metrics.payment, &self.config.name, &self.told, credited, posted);
        split.map_or(Ok(held), Err)
    }

    /// What the last tries to post were refused for.
    fn not_posted(&self, funding: &FundingId) -> Option<Stall> {
        let refused =
            self.refused.get(funding).map(|words| Stall { reason: POST_REFUSED, words: format!("the contract refuses a post: {words}") });
        refused.or_else(|| Some(Stall { reason: NO_GAS, words: self.no_gas.clone()? }))
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
        self.refused.extend(refused);
        if let Some(SettlementError::NoGas(words)) = &failed {
            self.no_gas = Some(words.clone());
        }
        let metrics = &self.settler.metrics.payment;
        metrics.posts.with_label_values(&["void"]).inc_by(void);
        for (post, gas_used) in done {
            metrics.posts.with_label_values(&["final"]).inc();
            metrics.gas_per_row.observe(gas_used as f64 / post.rows.len().max(1) as f64);
            self.announce(&post.funding, &post.id).await?;
        }
        Ok(failed)
    }

    /// Tells the world what a final post has changed.
    async fn announce(&self, funding: &FundingId, post: &str) -> Result<(), SettlementError> {
        let ledger = &self.settler.ledger;
        if let Some(balance) = ledger.funding(funding).await? {
            let last_post = ledger.last_final(funding).await?;
            self.send(Event::Funding { funding: funding.clone(), balance, last_post }).await;
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

    async fn look_after_health(&mut self, now: i64) -> Result<(), SettlementError> {
        let leads = self.settler.fence.borrow().is_some();
        if leads && now >= self.last_health + HEALTH_SECONDS {
            self.last_health = now;
            self.owing.look(&self.settler.metrics.payment, &self.settler.ledger, &self.config.name, now).await?;
        }
        Ok(())
    }
}

/// Whether the chain went on.
#[derive(Debug, PartialEq, Eq)]
enum Course {
    On,
    Undone,
}

/// What was final stays so. Endpoints that are a little behind are waited for; what they say for long enough is what is. The
/// contract credits nothing twice then either, and a post that was undone before it was booked is sent again.
fn goes_on(last: Option<Finality>, block: Finality, blind_since: Option<i64>, now: i64) -> Result<Course, SettlementError> {
    let Some(last) = last.filter(|last| block.number < last.number) else { return Ok(Course::On) };
    if now >= blind_since.unwrap_or(now) + PATIENCE_SECONDS {
        return Ok(Course::Undone);
    }
    Err(SettlementError::Waiting(format!(
        "the last final block was {} and is {} now: waits for endpoints that are up to date",
        last.number, block.number
    )))
}

/// In words, with each endpoint's.
fn no_agreement(config: &ChainConfig, none: &NoAgreement) -> SettlementError {
    let names = setup::names(config);
    let said: Vec<String> = none.said.iter().map(|(number, words)| format!("{} {words}", names[*number])).collect();
    let said = said.join("; ");
    if none.other_chain {
        return SettlementError::Stalled(said);
    }
    let (all, needed) = (names.len(), needed(names.len()));
    SettlementError::Waiting(format!("waits for endpoints of chain {} that agree, {needed} of {all}: {said}", config.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use supercargo_contracts::B256;

    fn block(number: u64) -> Finality {
        Finality { number, hash: B256::ZERO, timestamp: 0 }
    }

    #[test]
    fn endpoints_that_fall_behind_are_waited_for_and_believed_when_it_lasts() {
        let told = |last, number, blind_since| goes_on(last, block(number), blind_since, 100).map_err(|error| error.to_string());
        let waits = || Err("the last final block was 9 and is 8 now: waits for endpoints that are up to date".to_owned());
        for (last, number, blind_since, expected) in [
            (None, 5, None, Ok(Course::On)),
            (Some(block(9)), 9, None, Ok(Course::On)),
            (Some(block(9)), 10, Some(0), Ok(Course::On)),
            (Some(block(9)), 8, None, waits()),
            (Some(block(9)), 8, Some(41), waits()),
            (Some(block(9)), 8, Some(40), Ok(Course::Undone)),
        ] {
            assert_eq!(told(last, number, blind_since), expected, "{number} after {last:?}");
        }
    }

    #[test]
    fn words_about_endpoints_name_them_by_host_and_never_tell_a_key() {
        let config = ChainConfig {
            name: "c".to_owned(),
            chain_id: 1,
            rpcs: vec!["https://a.test/v2/KEY".to_owned(), "https://user:KEY@b.test?k=KEY".to_owned()],
            oldest_final_seconds: 3_600,
            contract: String::new(),
            token: String::new(),
            token_address: None,
            gas_alert_gwei: 0,
            settler: 1,
            settler_key_file: "k".into(),
        };
        let said = vec![(0, "does not answer".to_owned()), (1, "serves chain id 5, and 1 is configured".to_owned())];
        let told = no_agreement(&config, &NoAgreement { said: said.clone(), other_chain: false });
        assert_eq!(
            told.to_string(),
            "waits for endpoints of chain c that agree, 2 of 2: endpoint 1 (a.test) does not answer; \
             endpoint 2 (b.test) serves chain id 5, and 1 is configured"
        );
        let set_up = no_agreement(&config, &NoAgreement { said, other_chain: true });
        assert!(matches!(set_up, SettlementError::Stalled(_)), "only a person can mend it");
    }
}
