//! A real Kubernetes cluster on one machine, the journeys through it, and the repository's own checks.
//! Nothing in the product depends on this crate.

pub mod audit;
pub mod cluster;
pub mod gpus;
pub mod http;
pub mod image;
pub mod kubectl;
pub mod wait;
