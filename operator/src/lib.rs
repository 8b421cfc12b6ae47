//! The officer: watches what is, decides purely, acts idempotently. See README.md for how a task flows through these
//! rooms.

pub mod books;
pub mod effect;
pub mod engine;
pub mod runtime;
pub mod settlement;
pub mod watch;

pub use supercargo_planner::{plan, world};
