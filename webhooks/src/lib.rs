//! The gate: an admission server that says what is wrong with a manifest while its author still looks at it. It decides
//! nothing by itself: the findings are those of `crds`, and the plan holds every task to them again.

pub mod authority;
pub mod certificate;
pub mod connection;
pub mod review;
pub mod rotation;
pub mod server;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod samples;
