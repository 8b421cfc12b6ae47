//! What every part runs on: configuration, the lease, telemetry.

pub mod config;
pub mod lease;
pub mod pauses;
mod paying;
pub mod payment;
pub mod steady;
pub mod telemetry;

pub use config::Config;

use std::time::Duration;

/// Longer than a watch may be silent, which the API server ends before.
const SILENCE: Duration = Duration::from_secs(330);

/// A way to the API server that tells of each failure at once: who asked knows for how long to wait, keeps no place among the
/// effects meanwhile, and asks for what is right by then.
pub fn client(mut config: kube::Config) -> Result<kube::Client, kube::Error> {
    config.default_retry = false;
    // Of a connection that is dead nobody tells; a list that is asked for on one would be waited for for ever.
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    kube::Client::try_from(config)
}
