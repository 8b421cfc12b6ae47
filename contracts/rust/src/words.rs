//! A revert in words: what the contract refused, with the values that explain it and what would help.

use super::bindings::Escrow::EscrowErrors as Refusal;
use alloy::primitives::Bytes;
use alloy::sol_types::{Revert, SolError, SolInterface};

/// What a call was refused for. Data of another contract's error is shown as it is.
pub fn revert_words(data: &Bytes) -> String {
    if let Ok(refusal) = Refusal::abi_decode(data) {
        return words(&refusal);
    }
    if let Ok(revert) = Revert::abi_decode(data) {
        return revert.reason;
    }
    if data.is_empty() { "the contract gave no reason (is the address right?)".into() } else { format!("the contract refused with {data}") }
}

fn words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::UnknownAccount(e) => format!("no account {} was opened on this contract", e.account),
        Refusal::UnknownPayee(e) => format!("no payee has the number {}: register it first", e.payee),
        Refusal::UnknownSettler(e) => format!("no settler has the number {}: it has to enroll first", e.settler),
        Refusal::AlreadyOpen(e) => format!("account {} is open already; another salt opens another account", e.account),
        Refusal::NotPayer(e) => format!("{} is not the payer of account {}", e.caller, e.account),
        Refusal::NotOwner(e) => format!("{} doesn't own payee {}", e.caller, e.payee),
        Refusal::NotSettler(e) => format!("{} is not the hot key of settler {}, which this account names", e.caller, e.settler),
        Refusal::NotSigned(e) => format!("the row is signed by {}, not by the hot key of settler {}", e.signer, e.settler),
        Refusal::AlreadyBound(e) => {
            format!("account {} is bound to tenant {} for ever; open another for another escrow", e.account, e.tenant)
        }
        Refusal::ZeroAddress(_) => "an address is zero".into(),
        Refusal::ZeroAmount(_) => "the amount is zero".into(),
        Refusal::AmountTooLarge(e) => format!("{} units are more than an account can hold", e.amount),
        Refusal::ShortTransfer(e) => {
            format!("the token delivered {} of {} units: tokens with fees on transfers are not supported", e.arrived, e.expected)
        }
        Refusal::BalanceTooLow(e) => format!("account {} has {} units and {} are wanted", e.account, e.balance, e.wanted),
        Refusal::RateExceeded(e) => format!(
            "the rate limit of account {} lets {} units go now and {} are wanted: later, or raise it",
            e.account, e.available, e.wanted
        ),
        Refusal::AllowanceExceeded(e) => {
            format!("the allowance of account {} is {} units and {} are wanted: raise it", e.account, e.allowance, e.wanted)
        }
        Refusal::OnlyRaises(e) => format!("limits can only be raised at once: it is {} and {} is wanted", e.have, e.wanted),
        Refusal::StillThawing(e) => format!("account {} thaws until {} (seconds since 1970)", e.account, e.thawEnd),
        Refusal::NothingThaws(e) => format!("nothing thaws in account {}", e.account),
        Refusal::NothingToCollect(e) => format!("nothing is mature for payee {} in these accounts", e.payee),
        Refusal::MalformedRows(e) => format!("{} bytes are no whole number of rows of 13", e.length),
        Refusal::WindowOpen(e) => {
            format!("the lane of payee {} in account {} takes its next row at {} (seconds since 1970)", e.payee, e.account, e.maturesAt)
        }
        Refusal::TooEarly(e) => format!("not before {} (seconds since 1970)", e.changeAt),
        Refusal::ThawTooShort(e) => format!("a thaw of {} s is too short: it has to be longer than {} s", e.thaw, e.least),
        Refusal::CaseTooShort(e) => format!("a case of {} s is shorter than the window of {} s", e.case_, e.window),
        Refusal::NotGuardian(e) => format!("{} is neither the payer of account {} nor its guardian", e.caller, e.account),
        Refusal::NotArbiter(e) => format!("{} is not the arbiter of this contract", e.caller),
        Refusal::NotCold(e) => format!("{} is not the cold key of settler {}", e.caller, e.settler),
        Refusal::AccountFrozen(e) => format!("account {} is frozen until {} (seconds since 1970)", e.account, e.until),
        Refusal::SettlerHalted(e) => format!("settler {} is halted until {} (seconds since 1970)", e.settler, e.until),
        Refusal::NothingScheduled(e) => format!("no change is scheduled for account {}", e.account),
        Refusal::NothingToDispute(e) => format!("everything that account {} owes payee {} has matured", e.account, e.payee),
        Refusal::AlreadyDisputed(e) => {
            format!("account {} disputes payee {} already, until {} (seconds since 1970)", e.account, e.payee, e.lapsesAt)
        }
        Refusal::NotDisputed(e) => format!("account {} has no open case with payee {}", e.account, e.payee),
        Refusal::CutTooLarge(e) => format!("{} units can't be cut: {} are disputed", e.cut, e.disputed),
        Refusal::MalformedSignatures(e) => format!("{} bytes of signatures came and {} are needed, 65 a row", e.length, e.expected),
        Refusal::ReentrancyGuardReentrantCall(_) => "the token called back into the contract".into(),
        Refusal::SafeERC20FailedOperation(e) => format!("the token {} refused the transfer: is there enough, and is it approved?", e.token),
        Refusal::ECDSAInvalidSignature(_) | Refusal::ECDSAInvalidSignatureLength(_) | Refusal::ECDSAInvalidSignatureS(_) => {
            "the signature is malformed".into()
        }
        Refusal::InvalidShortString(_) | Refusal::StringTooLong(_) => "the contract was built with names that are too long".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::Escrow;
    use alloy::primitives::{B256, U256};

    #[test]
    fn a_refusal_names_its_values_and_foreign_data_is_shown() {
        let data = Escrow::BalanceTooLow { account: B256::ZERO, wanted: U256::from(5), balance: U256::from(3) }.abi_encode();
        assert!(revert_words(&data.into()).ends_with("has 3 units and 5 are wanted"));
        assert!(revert_words(&Bytes::from_static(&[1, 2, 3, 4])).contains("0x01020304"));
        assert!(revert_words(&Bytes::new()).contains("no reason"));
    }
}
