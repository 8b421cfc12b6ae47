//! What every part runs on: configuration, the lease, telemetry.

pub mod config;
pub mod lease;
pub mod pauses;
mod paying;
pub mod payment;
pub mod steady;
pub mod telemetry;

pub use config::Config;

/// A way to the API server that tells of each failure at once: who asked knows for how long to wait, keeps no place among the
/// effects meanwhile, and asks for what is right by then.
pub fn client(mut config: kube::Config) -> Result<kube::Client, kube::Error> {
    config.default_retry = false;
    kube::Client::try_from(config)
}
