//! The officer: watches what is, decides purely, acts idempotently. See README.md for how a task flows through these
//! rooms.

pub mod api;
pub mod books;
pub mod effect;
pub mod engine;
pub mod metering;
pub mod runtime;
pub mod settlement;
pub mod watch;

pub use supercargo_planner::{plan, world};

/// The benchmark's matrix names this crate from outside.
#[cfg(test)]
extern crate self as supercargo_operator;
#[cfg(test)]
#[path = "../benches/metering/matrix/mod.rs"]
mod metering_matrix;
#[cfg(test)]
mod metering_tests;
