//! One connection, from its handshake to its end. What a client may take of the gate is bounded, in time as in memory, so
//! that one who dawdles or floods costs the others nothing.

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use warp::Reply;
use warp::http::{Request, StatusCode};
use warp::reply::Response;

/// What clients may take. The times are far above what an API server needs: it waits for 2 s and no longer.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// At once; who comes beyond them waits to be accepted.
    pub connections: u32,
    /// One body: an object is at most 1.5 MiB, and a review has the old one beside the new.
    pub body_bytes: u32,
    /// All bodies that are being read or judged; who comes beyond them waits, for as long as a request may last.
    pub bodies_bytes: u32,
    pub handshake: Duration,
    /// From the handshake to the first request, and for each request's head.
    pub head: Duration,
    /// From a request's head to its answer.
    pub request: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// From the signal to stop to the end of the last request.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            body_bytes: 3 << 20,
            bodies_bytes: 24 << 20,
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(15),
            request: Duration::from_secs(5),
            idle: Duration::from_secs(120),
            drain: Duration::from_secs(10),
        }
    }
}

/// How HTTP is spoken: with little buffered for each client.
pub(crate) fn protocol(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    protocol.http1().timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(64 << 10);
    protocol
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.head)
        .keep_alive_timeout(limits.head)
        .max_concurrent_streams(128)
        .max_header_list_size(16 << 10)
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(128 << 10);
    protocol
}

/// What a connection is doing. Only its first request is told to who waits; the rest is there to be looked at.
#[derive(Debug, Clone, Copy)]
struct Use {
    /// A request has come.
    begun: bool,
    /// Requests without an answer yet.
    open: usize,
    /// When `open` last changed.
    since: Instant,
}

/// Serves one client until it goes, is quiet for too long, or the gate stops.
pub(crate) async fn serve<I, S, F>(
    handshake: impl Future<Output = std::io::Result<I>>,
    protocol: auto::Builder<TokioExecutor>,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
    service: S,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response> + Send + 'static,
{
    let Ok(Ok(stream)) = timeout(limits.handshake, handshake).await else { return };
    let usage = watch::Sender::new(Use { begun: false, open: 0, since: Instant::now() });
    let (used, seen) = (usage.clone(), usage.subscribe());
    let counted = hyper::service::service_fn(move |request| {
        used.send_if_modified(|usage| {
            let first = !usage.begun;
            *usage = Use { begun: true, open: usage.open + 1, since: Instant::now() };
            first
        });
        let ended = Ended(used.clone());
        let answer = service(request);
        async move {
            let answer = timeout(limits.request, answer).await.unwrap_or_else(|_| too_slow());
            drop(ended);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = pin!(protocol.serve_connection(TokioIo::new(stream), counted));
    tokio::select! {
        // What goes wrong on one connection is that client's to see.
        _ = connection.as_mut() => return,
        () = quiet(seen.clone(), limits) => {}
        () = told_to_stop(&mut stopping, seen, limits) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(limits.request, connection).await;
}

/// Counts a request out, however it ends: a client that goes away takes its requests along.
struct Ended(watch::Sender<Use>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.send_if_modified(|usage| {
            *usage = Use { begun: true, open: usage.open.saturating_sub(1), since: Instant::now() };
            false
        });
    }
}

fn too_slow() -> Response {
    warp::reply::with_status("the request took too long to arrive\n", StatusCode::REQUEST_TIMEOUT).into_response()
}

/// Comes back when no request was open for longer than is granted.
async fn quiet(seen: watch::Receiver<Use>, limits: Limits) {
    // Looked at now and then: cheaper than to be told of each request.
    let least = Duration::from_millis(10);
    let pause = limits.head.min(limits.idle).max(least);
    loop {
        let (usage, now) = (*seen.borrow(), Instant::now());
        let end = usage.since + if usage.begun { limits.idle } else { limits.head };
        if usage.open == 0 && end <= now {
            return;
        }
        sleep_until(end.clamp(now + least, now + pause)).await;
    }
}

/// Comes back when the gate stops. Who has connected but not asked yet is still answered once: nothing told it not to.
async fn told_to_stop(stopping: &mut watch::Receiver<bool>, mut seen: watch::Receiver<Use>, limits: Limits) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
    let _ = timeout(limits.request.min(Duration::from_secs(1)), seen.wait_for(|usage| usage.begun)).await;
}
