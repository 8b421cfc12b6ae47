//! Waiting for something to become so: never for a time, always with a deadline that says what was waited for.

use anyhow::{Result, bail};
use std::future::Future;
use std::time::{Duration, Instant};

/// Asks again, soon at first and then slower, until the answer is `Some`. An error ends the waiting at once.
pub async fn until<T, F, A>(what: impl Into<String>, deadline: Duration, mut ask: F) -> Result<T>
where
    F: FnMut() -> A,
    A: Future<Output = Result<Option<T>>>,
{
    let started = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if started.elapsed() >= deadline {
            bail!("waited {} s for {}", deadline.as_secs(), what.into());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(250));
    }
}
