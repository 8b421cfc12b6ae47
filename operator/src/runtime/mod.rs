//! What every part runs on: configuration, the lease, telemetry.

pub mod config;
pub mod lease;
pub mod payment;
pub mod telemetry;

pub use config::Config;
