//! The contract through the bindings on a real chain of its own: the life of an account, and what each step costs by real
//! receipts.

#![allow(clippy::unwrap_used, reason = "all of this program is tests, and theirs alone")]

mod gas;
mod market;
mod walk;
