//! What a desk does in each step of a look, once it has seen the chain and its accounts.

use super::{Desk, Eyes, Followed, is_time};
use crate::settlement::SettlementError;
use crate::settlement::due::{self, Asked, Gas};
use crate::settlement::recheck::recheck;
use crate::settlement::steps::Steps;
use std::collections::BTreeSet;
use supercargo_ledger::Fence;
use supercargo_market::work::FundingId;

/// So often final posts are looked at again, and when the chain undid what was final.
const RECHECK_SECONDS: i64 = 600;

pub(super) struct Turn<'a> {
    pub(super) desk: &'a mut Desk,
    pub(super) seen: &'a Eyes<'a>,
    pub(super) followed: &'a Followed,
    pub(super) fence: Fence,
    pub(super) now: i64,
}

impl Turn<'_> {
    fn asked<'a>(&'a self, unknown: &'a BTreeSet<u32>) -> Asked<'a> {
        let Desk { settler, config, refused, .. } = &*self.desk;
        Asked { chain: &config.name, settings: &settler.settings, followed: self.followed, refused, gas: None, unknown }
    }

    /// What gas costs could not be asked: of nobody can it be said whether a post would be due.
    async fn not_planned(&mut self, error: SettlementError) -> Result<bool, SettlementError> {
        let words = format!("nobody says what gas costs: {}", error.briefly());
        let owing = self.desk.settler.ledger.unsettled().await?.into_iter();
        let ours = |funding: &FundingId| funding.account().is_some_and(|(chain, _)| chain == self.desk.config.name);
        let unplanned = owing.filter(|(funding, lane)| lane.planned < lane.total && ours(funding));
        let found = unplanned.map(|(funding, _)| (funding, words.clone())).collect();
        self.desk.stuck.unplanned(found, self.now);
        Err(error)
    }
}

impl Steps for Turn<'_> {
    async fn recheck(&mut self) -> Result<Option<SettlementError>, SettlementError> {
        if !is_time(self.desk.last_recheck, RECHECK_SECONDS, self.now) {
            return Ok(None);
        }
        self.desk.last_recheck = self.now;
        let Desk { settler, config, untold, .. } = &mut *self.desk;
        let looked = recheck(&settler.ledger, self.fence, self.seen, &config.name, untold, self.now).await;
        let told = self.desk.announce().await;
        let undone = self.desk.untold.count_undone();
        self.desk.settler.metrics.payment.posts.with_label_values(&["undone"]).inc_by(undone);
        let (_, kept) = looked?;
        told?;
        Ok(kept)
    }

    async fn pay(&mut self) -> Result<Option<SettlementError>, SettlementError> {
        self.desk.pay(self.seen, self.fence, &self.followed.held, self.now).await
    }

    async fn plan(&mut self) -> Result<bool, SettlementError> {
        if !self.desk.calendar.is_worth_a_look(&self.asked(&BTreeSet::new()), self.now) {
            return Ok(false);
        }
        // Who was never asked for is asked for before a post has a row for it.
        let (settler, chain) = (&self.desk.settler, self.desk.config.name.as_str());
        let is_here = |funding: &FundingId| funding.account().is_some_and(|(name, _)| name == chain);
        let owed = settler.ledger.unsettled().await?.into_iter().filter(|(funding, _)| is_here(funding));
        let strangers = settler.owners.strangers(chain, owed.map(|(_, lane)| lane.payee).collect());
        if !strangers.is_empty() {
            self.desk.learn(self.seen, &strangers).await;
        }
        let unknown = self.desk.settler.owners.unknown(&self.desk.config.name);
        let Desk { settler, config, calendar, refused, .. } = &mut *self.desk;
        let (chain, settings) = (config.name.as_str(), &settler.settings);
        let mut asked = Asked { chain, settings, followed: self.followed, refused, gas: None, unknown: &unknown };
        let gas = Gas::of(config, settings, self.seen).await;
        asked.gas = match gas {
            Ok(gas) => gas,
            Err(error) => return self.not_planned(error).await,
        };
        let posts = calendar.plan(&settler.ledger, self.fence, &asked, self.now).await?;
        due::forget(refused, &posts, settings, self.now);
        let words = format!(
            "what is owed is less than {} times what a post of it costs in gas now (settlement.gasMultiple): it waits for more, or for \
             cheaper gas",
            settings.gas_multiple
        );
        let dear = calendar.dear.iter().map(|funding| (funding.clone(), words.clone())).collect();
        self.desk.stuck.unplanned(dear, self.now);
        Ok(true)
    }
}
