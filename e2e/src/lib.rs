//! A real Kubernetes cluster on one machine, the journeys through it, and the repository's own checks.
//! Nothing in the product depends on this crate.

pub mod audit;
