//! Payment as a part of health: how long payees have waited, how much they are owed, and whether books and chain say the
//! same.

use super::SettlementError;
use super::agree::{Agreed, NoAgreement};
use super::told::Told;
use crate::runtime::config::ChainConfig;
use crate::runtime::payment::PaymentMetrics;
use crate::world::records::{Differs, Stall};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use supercargo_crds::names::{escrow_gas, escrow_stall};
use supercargo_ledger::{Ledger, PostState};
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

const STATES: [(PostState, &str); 3] = [(PostState::Planned, "Planned"), (PostState::Signed, "Signed"), (PostState::Mined, "Mined")];

const REASONS: [&str; 7] = [
    escrow_stall::CHAIN_SET_UP,
    escrow_stall::ENDPOINTS_DISAGREE,
    escrow_stall::OTHER_SETTLER,
    escrow_stall::OTHER_LEDGER,
    escrow_stall::KEY_USED_ELSEWHERE,
    escrow_stall::POST_REFUSED,
    escrow_stall::NO_GAS,
];

/// A figure as a gauge has it.
fn gauge(value: u128) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Who agrees, and on what.
pub fn of_endpoints(metrics: &PaymentMetrics, config: &ChainConfig, look: &Result<Agreed, NoAgreement>) {
    let chain = config.name.as_str();
    let by = look.as_ref().map(|agreed| agreed.by.as_slice()).unwrap_or_default();
    for number in 0..config.rpcs.len() {
        let agrees = i64::from(by.contains(&number));
        metrics.endpoint_agrees.with_label_values(&[chain, &(number + 1).to_string()]).set(agrees);
    }
    metrics.endpoints.with_label_values(&[chain]).set(gauge(config.rpcs.len() as u128));
    metrics.endpoints_needed.with_label_values(&[chain]).set(gauge(super::agree::needed(config.rpcs.len()) as u128));
    if let Ok(agreed) = look {
        metrics.final_block.with_label_values(&[chain]).set(gauge(agreed.block.number.into()));
    }
}

/// The key in use, and what it has left.
pub fn of_signer(metrics: &PaymentMetrics, config: &ChainConfig, address: &str, gas_wei: u128) {
    let chain = config.name.as_str();
    metrics.signer.with_label_values(&[chain, address]).set(1);
    metrics.signer_gas_gwei.with_label_values(&[chain]).set(gauge(gas_wei / 1_000_000_000));
    metrics.signer_gas_alert_gwei.with_label_values(&[chain]).set(gauge(config.gas_alert_gwei.into()));
}

/// That posts wait until gas is cheaper.
pub fn fee_high(failed: Option<&SettlementError>) -> Option<Stall> {
    let Some(SettlementError::FeeHigh(words)) = failed else { return None };
    Some(Stall { reason: escrow_gas::FEE_HIGH, words: words.clone() })
}

/// That little is left for gas, in words which change only now and then: so much is a sixteenth of the level that alerts.
pub fn gas_low(config: &ChainConfig, address: &str, gas_wei: u128) -> Option<Stall> {
    let (left, alert) = (gas_wei / 1_000_000_000, u128::from(config.gas_alert_gwei));
    let step = (alert / 16).max(1);
    (left < alert).then(|| {
        let least = (left / step + 1) * step;
        let words =
            format!("the settler's key {address} has less than {least} gwei left for gas, and {alert} is what alerts: send it some");
        Stall { reason: escrow_gas::GAS_LOW, words }
    })
}

pub fn of_accounts(metrics: &PaymentMetrics, chain: &str, told: &Told, credited_units: u128, posted_units: u128) {
    for reason in REASONS {
        metrics.stalled.with_label_values(&[chain, reason]).set(gauge(told.count(reason) as u128));
    }
    metrics.difference_units.with_label_values(&[chain]).set(gauge(credited_units).saturating_sub(gauge(posted_units)));
}

/// Since when the chain has credited something else than the books have as posted, by account.
#[derive(Debug, Default)]
pub struct Differing(BTreeMap<FundingId, i64>);

impl Differing {
    /// Takes a look at one in. A post that is final is booked in a moment, so only what lasts is told.
    pub fn look(&mut self, funding: &FundingId, (credited, posted): (u128, u128), now: i64, patience_seconds: i64) -> Option<Differs> {
        if credited == posted {
            self.0.remove(funding);
            return None;
        }
        let since = *self.0.entry(funding.clone()).or_insert(now);
        let units = |units: u128| Amount::from_units(u64::try_from(units).unwrap_or(u64::MAX));
        (now >= since + patience_seconds).then(|| Differs { credited: units(credited), posted: units(posted), since })
    }

    /// Forgets accounts that nobody names any more.
    pub fn keep(&mut self, named: &[FundingId]) {
        self.0.retain(|funding, _| named.contains(funding));
    }
}

/// Since when each account is owed for, as far as this process knows.
#[derive(Debug, Default)]
pub struct Owing {
    since: BTreeMap<FundingId, i64>,
    /// Payees that have a gauge.
    payees: BTreeMap<u32, u64>,
}

impl Owing {
    /// What the books say of a chain's payees.
    pub async fn look(&mut self, metrics: &PaymentMetrics, ledger: &Ledger, chain: &str, now: i64) -> Result<(), SettlementError> {
        let ours = |funding: &FundingId| funding.account().is_some_and(|(name, _)| name == chain);
        let mut since = BTreeMap::new();
        // A payee that is owed nothing any more is told so.
        self.payees.values_mut().for_each(|units| *units = 0);
        for (funding, lane) in ledger.unsettled().await?.into_iter().filter(|(funding, _)| ours(funding)) {
            let units = self.payees.entry(lane.payee).or_default();
            *units = units.saturating_add(lane.total.units() - lane.posted.units());
            if let Entry::Vacant(unknown) = since.entry(funding) {
                let seen = self.since.get(unknown.key()).copied().unwrap_or(now);
                let planned = ledger.open_since(unknown.key()).await?;
                unknown.insert(planned.map_or(seen, |planned| planned.min(seen)));
            }
        }
        self.since = since;
        for (payee, units) in &self.payees {
            metrics.exposure_units.with_label_values(&[chain, &payee.to_string()]).set(gauge((*units).into()));
        }
        let oldest = self.since.values().min().map_or(0, |since| now.saturating_sub(*since).max(0));
        metrics.oldest_unposted_seconds.with_label_values(&[chain]).set(oldest);
        let open = ledger.open_posts().await?;
        for (state, name) in STATES {
            let count = open.iter().filter(|post| post.state == state && ours(&post.funding)).count();
            metrics.open_posts.with_label_values(&[chain, name]).set(gauge(count as u128));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_books_and_chain_say_differently_is_told_when_it_lasts_with_how_much_and_since_when() {
        let (mut differing, funding) = (Differing::default(), FundingId::chain("c", "0x1"));
        let differs =
            |credited, posted, since| Some(Differs { credited: Amount::from_units(credited), posted: Amount::from_units(posted), since });
        for (now, credited, posted, expected) in [
            (100, 5, 5, None),
            // It is final now, and booked at once.
            (110, 9, 5, None),
            (120, 9, 9, None),
            (130, 10, 9, None),
            (179, 10, 9, None),
            (180, 10, 9, differs(10, 9, 130)),
            (190, 12, 9, differs(12, 9, 130)),
            (200, 0, 9, differs(0, 9, 130)),
            (210, 9, 9, None),
            (220, 8, 9, None),
        ] {
            assert_eq!(differing.look(&funding, (credited, posted), now, 50), expected, "at {now}");
        }
        differing.keep(&[]);
        assert_eq!(differing.look(&funding, (8, 9), 300, 50), None, "it is another delay");
    }

    #[test]
    fn what_is_left_for_gas_is_told_below_the_alert_and_in_steps() {
        let config = crate::settlement::course::tests::config();
        let config = ChainConfig { gas_alert_gwei: 160, ..config };
        let told = |gwei: u128| gas_low(&config, "0xs", gwei * 1_000_000_000).map(|told| told.words);
        assert_eq!(told(160), None);
        let words =
            |least: u32| format!("the settler's key 0xs has less than {least} gwei left for gas, and 160 is what alerts: send it some");
        assert_eq!(told(159), Some(words(160)));
        assert_eq!((told(19), told(10), told(9)), (Some(words(20)), Some(words(20)), Some(words(10))));
        assert_eq!(told(0), Some(words(10)));
        assert_eq!(gas_low(&ChainConfig { gas_alert_gwei: 0, ..config.clone() }, "0xs", 0), None, "nobody wants to be told");
    }
}
