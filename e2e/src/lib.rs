//! A real Kubernetes cluster on one machine, the journeys through it, and the repository's own checks.
//! Nothing in the product depends on this crate.

pub mod api_log;
pub mod audit;
pub mod bill;
pub mod chain_setup;
pub mod cluster;
pub mod demo;
pub mod explain;
pub mod gpus;
pub mod harness;
pub mod http;
pub mod image;
pub mod install;
pub mod journey;
pub mod kubectl;
pub mod people;
pub mod postgres;
pub mod sights;
pub mod truth;
pub mod wait;
