//! The chain as the rest of the product sees it: typed calls to the escrow contract, its encodings, transactions that
//! are signed before they are sent, and an idempotent deployment. Money is in the token's base units, as `u128`.

#![allow(clippy::result_large_err, reason = "a chain's errors carry what the node said; none is made in a hot loop")]

#[allow(clippy::too_many_arguments, reason = "generated from the contracts' interface")]
mod bindings;
pub mod calls;
mod client;
mod deploy;
mod encoding;
mod transaction;
mod voucher;
mod words;

pub use alloy::eips::BlockId;
pub use alloy::primitives::{Address, B256, Bytes, U256, keccak256};
pub use alloy::signers::local::PrivateKeySigner;
pub use bindings::{Escrow, TestToken};
pub use client::{AccountState, Chain, ChainError, ChangeState, Finality, Finalized, LaneState, PostedEvent, Receipt, SettlerKeys};
pub use deploy::{Addresses, Terms, deploy, deploy_with};
pub use encoding::{Row, account_id, pack_rows, release_digest, row_digest, tenant_id, unpack_rows};
pub use transaction::{Call, Fees, SignedTransaction, read, sign};
pub use voucher::{PayeeRequest, Voucher, Vouchers, sign_row};
pub use words::revert_words;
