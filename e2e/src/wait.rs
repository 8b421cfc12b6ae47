//! Waiting for something to become so: never for a time, always with a deadline that says what was waited for.

use anyhow::{Result, anyhow};
use std::future::Future;
use std::time::{Duration, Instant};

/// An error that asking again can't mend: it ends the waiting at once.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Hopeless(pub String);

/// Asks again, soon at first and then slower, until the answer is `Some`. An error is asked again like `None`, and told when
/// the deadline has passed; only `Hopeless` ends the waiting before. A question that gets no answer ends with the deadline.
pub async fn until<T, F, A>(what: impl Into<String>, deadline: Duration, ask: F) -> Result<T>
where
    F: FnMut() -> A,
    A: Future<Output = Result<Option<T>>>,
{
    asking(what, deadline, Duration::from_millis(250), ask).await
}

/// As `until`, for what has to be known the moment that it is so: it never asks slower. For questions that cost little.
pub async fn closely<T>(what: impl Into<String>, deadline: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    asking(what, deadline, Duration::from_millis(2), || std::future::ready(ask())).await
}

async fn asking<T, F, A>(what: impl Into<String>, deadline: Duration, longest_pause: Duration, mut ask: F) -> Result<T>
where
    F: FnMut() -> A,
    A: Future<Output = Result<Option<T>>>,
{
    let started = Instant::now();
    let mut pause = longest_pause.min(Duration::from_millis(10));
    let mut last = None;
    loop {
        // A first question is always asked, however short the deadline.
        let left = deadline.saturating_sub(started.elapsed()).max(Duration::from_millis(10));
        last = match tokio::time::timeout(left, ask()).await {
            Ok(Ok(Some(answer))) => return Ok(answer),
            Ok(Ok(None)) => None,
            Ok(Err(error)) if error.is::<Hopeless>() => return Err(error),
            Ok(Err(error)) => Some(error),
            Err(_) => last.or_else(|| Some(anyhow!("the last question got no answer"))),
        };
        if started.elapsed() >= deadline {
            let waited = format!("waited {} s for {}", deadline.as_secs(), what.into());
            return Err(match last {
                Some(error) => error.context(waited),
                None => anyhow!("{waited}"),
            });
        }
        tokio::time::sleep(pause.min(deadline.saturating_sub(started.elapsed()))).await;
        pause = (pause * 3 / 2).min(longest_pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_question_is_asked_again() {
        let mut asked = 0;
        let answer = until("the third answer", Duration::from_secs(5), || {
            asked += 1;
            let answer = if asked < 3 { Err(anyhow!("not yet")) } else { Ok(Some(asked)) };
            async move { answer }
        });
        assert_eq!(answer.await.expect("answered"), 3);
    }

    #[tokio::test]
    async fn at_the_deadline_it_says_what_was_waited_for_and_the_last_error() {
        let deadline = Duration::from_millis(50);
        let error = until::<(), _, _>("a thing", deadline, || async { Err(anyhow!("no route")) }).await.expect_err("never");
        assert_eq!(format!("{error:#}"), "waited 0 s for a thing: no route");
        let error = until::<(), _, _>("a thing", deadline, || async { Ok(None) }).await.expect_err("never");
        assert_eq!(format!("{error:#}"), "waited 0 s for a thing");
    }

    #[tokio::test]
    async fn a_question_without_an_answer_ends_with_the_deadline() {
        let error = until::<(), _, _>("a thing", Duration::from_millis(50), std::future::pending).await.expect_err("never");
        assert_eq!(format!("{error:#}"), "waited 0 s for a thing: the last question got no answer");
    }

    #[tokio::test]
    async fn what_can_not_be_mended_ends_the_waiting_at_once() {
        let started = Instant::now();
        let ask = || async { Err(Hopeless("it ended".to_owned()).into()) };
        let error = until::<(), _, _>("a thing", Duration::from_secs(60), ask).await.expect_err("hopeless");
        assert_eq!(format!("{error:#}"), "it ended");
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
