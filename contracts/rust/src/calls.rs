//! Calldata of the calls that the product makes.

use crate::bindings::Escrow;
use crate::encoding::{Row, pack_rows};
use alloy::primitives::{B256, Bytes};
use alloy::sol_types::SolCall;

/// A post of one account's rows.
pub fn post_call(account: B256, rows: &[Row], lines_root: B256, journal_head: B256) -> Bytes {
    Escrow::postCall { account, rows: pack_rows(rows).into(), linesRoot: lines_root, journalHead: journal_head }.abi_encode().into()
}
