//! Whether a chain goes on, and what is said of endpoints that don't agree.

use super::SettlementError;
use super::agree::{NoAgreement, needed};
use super::setup;
use crate::runtime::config::ChainConfig;
use supercargo_contracts::Finality;
use supercargo_crds::names::escrow_stall::{CHAIN_SET_UP, ENDPOINTS_DISAGREE};

/// For so long endpoints may say nothing, or less than before, until it is told and taken for what it is.
pub const PATIENCE_SECONDS: i64 = 60;

/// Whether the chain went on.
#[derive(Debug, PartialEq, Eq)]
pub enum Course {
    On,
    Undone,
}

/// What was final stays so. Endpoints that are a little behind are waited for; what they say for long enough is what is. The
/// contract credits nothing twice then either, and a post that was undone before it was booked is sent again.
pub fn goes_on(last: Option<Finality>, block: Finality, blind_since: Option<i64>, now: i64) -> Result<Course, SettlementError> {
    let Some(last) = last.filter(|last| block.number < last.number) else { return Ok(Course::On) };
    if now >= blind_since.unwrap_or(now) + PATIENCE_SECONDS {
        return Ok(Course::Undone);
    }
    Err(SettlementError::Waiting(format!(
        "the last final block was {} and is {} now: waits for endpoints that are up to date",
        last.number, block.number
    )))
}

/// What accounts of a chain that can't be used are stalled for: at once when a person set it up wrongly, else when it lasts. Books
/// that can't be read say nothing of a chain.
pub fn blindness(error: &SettlementError, since: i64, now: i64) -> Option<&'static str> {
    match error {
        SettlementError::Stalled(_) => Some(CHAIN_SET_UP),
        SettlementError::Ledger(_) => None,
        _ => (now >= since + PATIENCE_SECONDS).then_some(ENDPOINTS_DISAGREE),
    }
}

/// In words, with each endpoint's.
pub fn no_agreement(config: &ChainConfig, none: &NoAgreement) -> SettlementError {
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
pub mod tests {
    use super::*;
    use supercargo_contracts::B256;
    use supercargo_ledger::LedgerError;

    pub fn config() -> ChainConfig {
        ChainConfig {
            name: "c".to_owned(),
            chain_id: 1,
            rpcs: vec!["https://a.test/v2/KEY".to_owned(), "https://user:KEY@b.test?k=KEY".to_owned()],
            oldest_final_seconds: 3_600,
            confirmations: None,
            contract: String::new(),
            token: String::new(),
            token_address: None,
            gas_alert_gwei: 0,
            coin_price: None,
            max_fee_gwei: None,
            settler: 1,
            settler_key_file: "k".into(),
            settler_password_file: None,
        }
    }

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
    fn a_wrong_set_up_stalls_at_once_endpoints_that_disagree_when_it_lasts_and_broken_books_never() {
        let words = || "w".to_owned();
        let wrong = || SettlementError::Stalled(words());
        let apart = || SettlementError::Waiting(words());
        let books = || SettlementError::Ledger(LedgerError::Broken(words()));
        for (error, now, expected) in [
            (wrong(), 100, Some("ChainSetUp")),
            (apart(), 100, None),
            (apart(), 159, None),
            (apart(), 160, Some("EndpointsDisagree")),
            (books(), 100, None),
            (books(), 1_000, None),
        ] {
            assert_eq!(blindness(&error, 100, now), expected, "{error:?} at {now}");
        }
    }

    #[test]
    fn words_about_endpoints_name_them_by_host_and_never_tell_a_key() {
        let config = config();
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
