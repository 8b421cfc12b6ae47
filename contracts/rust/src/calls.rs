//! Calldata of the calls that the product and its people make.

use crate::bindings::{Escrow, IEscrow, TestToken};
use crate::encoding::{Row, pack_rows};
use alloy::primitives::{Address, B256, Bytes, U256, Uint};
use alloy::sol_types::SolCall;

/// What an account's payer allows to leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub allowance_units: u64,
    pub burst_units: u64,
    pub rate_units_per_second: u64,
    pub settler: u32,
}

/// The greatest burst and rate: 40 bits of base units.
pub const MOST_BURST_UNITS: u64 = (1 << 40) - 1;

pub fn post_call(account: B256, rows: &[Row], lines_root: B256, journal_head: B256) -> Bytes {
    Escrow::postCall { account, rows: pack_rows(rows).into(), linesRoot: lines_root, journalHead: journal_head }.abi_encode().into()
}

/// With a guardian, who may freeze and dispute, unless it is zero. `None` when burst or rate is more than the contract can
/// hold.
pub fn open_call(salt: B256, guardian: Address, limits: Limits) -> Option<Bytes> {
    let narrow = |units: u64| (units <= MOST_BURST_UNITS).then(|| Uint::from(units));
    let limits = IEscrow::Limits {
        allowance: Uint::from(limits.allowance_units),
        burst: narrow(limits.burst_units)?,
        rate: narrow(limits.rate_units_per_second)?,
        settler: limits.settler,
    };
    Some(Escrow::openCall { salt, tenant: B256::ZERO, guardian, limits }.abi_encode().into())
}

/// Raises limits at once. `None` as for [`open_call`]; the settler stays.
pub fn raise_call(account: B256, limits: Limits) -> Option<Bytes> {
    let narrow = |units: u64| (units <= MOST_BURST_UNITS).then(|| Uint::from(units));
    let (burst, rate) = (narrow(limits.burst_units)?, narrow(limits.rate_units_per_second)?);
    Some(Escrow::raiseCall { account, allowance: Uint::from(limits.allowance_units), burst, rate }.abi_encode().into())
}

pub fn bind_call(account: B256, tenant: B256) -> Bytes {
    Escrow::bindCall { account, tenant }.abi_encode().into()
}

pub fn approve_call(spender: Address, units: u64) -> Bytes {
    TestToken::approveCall { spender, value: U256::from(units) }.abi_encode().into()
}

pub fn deposit_call(account: B256, units: u64) -> Bytes {
    Escrow::depositCall { account, amount: U256::from(units) }.abi_encode().into()
}

pub fn thaw_call(account: B256, units: u64) -> Bytes {
    Escrow::thawCall { account, amount: Uint::from(units) }.abi_encode().into()
}

/// Holds what hasn't matured: by the payer or its guardian.
pub fn dispute_call(account: B256, payee: u32) -> Bytes {
    Escrow::disputeCall { account, payee }.abi_encode().into()
}

/// By the arbiter.
pub fn resolve_call(account: B256, payee: u32, cut_units: u64) -> Bytes {
    Escrow::resolveCall { account, payee, cut: Uint::from(cut_units) }.abi_encode().into()
}

/// Stops everything that would be credited: by the payer or its guardian.
pub fn freeze_call(account: B256) -> Bytes {
    Escrow::freezeCall { account }.abi_encode().into()
}

pub fn appoint_call(account: B256, guardian: Address) -> Bytes {
    Escrow::appointCall { account, guardian }.abi_encode().into()
}

/// A row with the settler's signature: anybody may bring it.
pub fn claim_call(account: B256, row: Row, signature: Bytes) -> Bytes {
    Escrow::claimCall { account, payee: row.payee, total: Uint::from(row.total_units()), signature }.abi_encode().into()
}

/// Rows with a signature of 65 bytes for each, joined in their order.
pub fn claim_many_call(account: B256, rows: &[Row], signatures: Bytes) -> Bytes {
    Escrow::claimManyCall { account, rows: pack_rows(rows).into(), signatures }.abi_encode().into()
}

pub fn withdraw_call(account: B256) -> Bytes {
    Escrow::withdrawCall { account }.abi_encode().into()
}

pub fn register_call(pay_to: Address) -> Bytes {
    Escrow::registerCall { payTo: pay_to }.abi_encode().into()
}

pub fn set_pay_to_call(payee: u32, pay_to: Address) -> Bytes {
    Escrow::setPayToCall { payee, payTo: pay_to }.abi_encode().into()
}

pub fn collect_call(payee: u32, accounts: &[B256]) -> Bytes {
    Escrow::collectCall { payee, accounts: accounts.to_vec() }.abi_encode().into()
}

pub fn enroll_call(hot: Address) -> Bytes {
    Escrow::enrollCall { hot }.abi_encode().into()
}

/// Another hot key, by the cold one.
pub fn rotate_call(settler: u32, hot: Address, compromised: bool) -> Bytes {
    Escrow::rotateCall { settler, hot, compromised }.abi_encode().into()
}

/// Of the test token only.
pub fn mint_call(to: Address, units: u64) -> Bytes {
    TestToken::mintCall { to, amount: U256::from(units) }.abi_encode().into()
}
