//! What a desk reads of its accounts and tells the world of them.

use super::{Desk, Eyes, Followed};
use crate::settlement::course::{PATIENCE_SECONDS, blindness};
use crate::settlement::{SettlementError, follow, health};
use crate::world::Event;
use crate::world::records::{Account, Stall};
use futures::StreamExt;
use futures::stream;
use supercargo_crds::names::escrow_stall::{ENDPOINTS_DISAGREE, NO_GAS, OTHER_LEDGER, POST_REFUSED};
use supercargo_market::account::Times;
use supercargo_market::work::FundingId;

/// So many accounts are asked about at a time: each question goes to every endpoint, which count them.
const AT_ONCE: usize = 4;
/// After so many in a row that nobody answered for, nobody else's are asked about in this look.
const UNANSWERED: u32 = 3;

impl Desk {
    /// Every account of a chain that can't be used says so.
    pub(super) async fn tell_blind(&mut self, error: &SettlementError, named: &[FundingId], now: i64) {
        let since = *self.blind_since.get_or_insert(now);
        let Some(reason) = blindness(error, since, now) else { return };
        for funding in named {
            let stall = Stall { reason, words: error.briefly() };
            let account = Account { stalled: self.told.tell(funding, Some(stall), now), ..Account::default() };
            self.send(Event::Account { funding: funding.clone(), account: Box::new(account) }).await;
        }
    }

    pub(super) async fn read(
        &mut self,
        seen: &Eyes<'_>,
        times: Times,
        named: &[FundingId],
        now: i64,
    ) -> Result<(u128, Followed), SettlementError> {
        let gas = seen.gas_balance_wei().await?;
        let signer = seen.pen.key.address().to_string();
        health::of_signer(&self.settler.metrics.payment, &self.config, &signer, gas);
        self.gas_low = health::gas_low(&self.config, &signer, gas);
        Ok((gas, self.follow(seen, times, named, now).await?))
    }

    /// Accounts that can't be read though the chain can: what was known of them is not believed for ever.
    pub(super) async fn tell_unread(&mut self, unread: &[FundingId], error: &SettlementError, now: i64) {
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
        let (mut split, mut unanswered) = (false, 0);
        self.unread.retain(|funding, _| named.contains(funding));
        let (ledger, config) = (&self.settler.ledger.clone(), &self.config.clone());
        let unknown = self.settler.owners.unknown(&config.name);
        let looks = stream::iter(self.names.in_turn(named));
        let looks = looks.map(|funding| async move { (follow::observe(ledger, seen, config, times, &funding).await, funding) });
        let mut looks = looks.buffered(AT_ONCE);
        while let Some((observed, funding)) = looks.next().await {
            let funding = &funding;
            let observed = match observed {
                Ok(observed) => observed,
                // Of this one more is known later; the others are no worse for it. Where nobody answers at all the look ends.
                Err(error @ (SettlementError::Waiting(_) | SettlementError::Chain(_))) => {
                    unanswered += u32::from(matches!(error, SettlementError::Chain(_)));
                    if unanswered == UNANSWERED {
                        return Err(error);
                    }
                    self.log(&error);
                    self.tell_unread(std::slice::from_ref(funding), &error, now).await;
                    followed.held.insert(funding.clone());
                    split = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.unread.remove(funding);
            unanswered = 0;
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
            followed.most.insert(funding.clone(), observed.most);
            self.scribe.look(funding, observed.burst);
            account.unknown_payees = observed.room.credited.keys().filter(|payee| unknown.contains(payee)).copied().collect();
            account.stuck = self.stuck.tell(funding, now);
            account.gas_low = self.fee_high.clone().or_else(|| self.gas_low.clone());
            account.stalled = account.stalled.or_else(|| self.not_posted(funding));
            account.stalled = self.told.tell(funding, account.stalled, now);
            followed.rooms.insert(funding.clone(), observed.room);
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
}
