//! What users write: the four kinds, their defaults, and the validation that is pure. Each field's text here is what
//! `kubectl explain` shows.

#![allow(clippy::duplicated_attributes, reason = "each printed column repeats the attributes of the one before it")]

pub mod common;
pub mod escrow;
pub mod names;
pub mod node;
pub mod pool;
pub mod quantity;
pub mod schema;
pub mod task;
mod task_container;
mod task_placement;
pub mod task_status;
pub mod validate;

#[cfg(test)]
mod published;
#[cfg(test)]
mod recorded;

pub use escrow::Escrow;
pub use node::ProviderNode;
pub use pool::ProviderPool;
pub use quantity::Quantity;
pub use task::ComputeTask;
