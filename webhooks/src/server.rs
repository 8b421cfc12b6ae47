//! Serving reviews over TLS: warp's filter has none of its own, so it is a service under hyper with rustls in front.

use crate::certificate::Served;
use crate::connection::{self, Limits};
use crate::review::{self, Verdict};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use warp::http::{Request, StatusCode};
use warp::reply::Response;
use warp::{Filter, Rejection};

/// How many reviews ended how.
#[derive(Debug, Default)]
pub struct Counters {
    pub allowed: AtomicU64,
    pub refused: AtomicU64,
    pub malformed: AtomicU64,
    /// When the certificate that is served was taken up, in Unix seconds.
    pub certificate_since: AtomicU64,
    /// Looks at the certificate, its authority or what is announced that failed.
    pub certificate_failures: AtomicU64,
}

impl Counters {
    fn page(&self) -> String {
        let line = |verdict: &str, count: &AtomicU64| {
            format!("supercargo_gate_reviews_total{{verdict=\"{verdict}\"}} {}\n", count.load(Ordering::Relaxed))
        };
        let head = "# HELP supercargo_gate_reviews_total Reviews, by verdict\n# TYPE supercargo_gate_reviews_total counter\n";
        let one = |name: &str, kind: &str, help: &str, value: &AtomicU64| {
            let value = value.load(Ordering::Relaxed);
            format!("# HELP supercargo_gate_{name} {help}\n# TYPE supercargo_gate_{name} {kind}\nsupercargo_gate_{name} {value}\n")
        };
        let since = "When the certificate that is served was taken up";
        let failures = "Looks at the certificate, its authority or what is announced that failed";
        [
            head.to_owned(),
            line("allowed", &self.allowed),
            line("refused", &self.refused),
            line("malformed", &self.malformed),
            one("certificate_taken_up_timestamp_seconds", "gauge", since, &self.certificate_since),
            one("certificate_failures_total", "counter", failures, &self.certificate_failures),
        ]
        .concat()
    }

    /// Notes that another certificate is served from now on.
    pub fn taken_up(&self, now: SystemTime) {
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.certificate_since.store(seconds, Ordering::Relaxed);
    }
}

fn reply(counters: &Counters, body: &[u8]) -> warp::reply::WithHeader<warp::reply::WithStatus<String>> {
    warp::reply::with_header(judged(counters, body), "content-type", "application/json")
}

fn judged(counters: &Counters, body: &[u8]) -> warp::reply::WithStatus<String> {
    let counted = |counter: &AtomicU64| {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    match review::answer(body) {
        Ok((answer, verdict)) => {
            counted(if verdict == Verdict::Allowed { &counters.allowed } else { &counters.refused });
            warp::reply::with_status(answer.to_string(), StatusCode::OK)
        }
        Err(error) => {
            counted(&counters.malformed);
            warp::reply::with_status(format!("{error}\n"), StatusCode::BAD_REQUEST)
        }
    }
}

/// What a request is answered with, some time.
type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// The path of reviews. A body is read once there is room for all of it.
fn reviews(counters: Arc<Counters>, limits: &Limits) -> impl Fn(Request<Incoming>) -> Answer + Clone + Send + 'static {
    let room = Arc::new(Semaphore::new(limits.bodies_bytes as usize));
    let taken = move |bytes: u32| {
        let room = room.clone();
        async move { Ok::<_, Rejection>(room.acquire_many_owned(bytes).await.expect("the semaphore is never closed")) }
    };
    let filter = warp::path!("validate")
        .and(warp::post())
        .and(warp::body::content_length_limit(limits.body_bytes.into()))
        .and(warp::header("content-length").and_then(taken))
        .and(warp::body::bytes())
        .map(move |_room: OwnedSemaphorePermit, body: warp::hyper::body::Bytes| reply(&counters, &body));
    called(TowerToHyperService::new(warp::service(filter)))
}

/// Health and counters.
fn pages(counters: Arc<Counters>) -> impl Fn(Request<Incoming>) -> Answer + Clone + Send + 'static {
    let health = warp::path!("healthz").map(|| "alive\n".to_owned());
    let metrics = warp::path!("metrics").map(move || counters.page());
    called(TowerToHyperService::new(warp::service(warp::get().and(health.or(metrics)))))
}

/// A service as a function.
fn called<S>(service: S) -> impl Fn(Request<Incoming>) -> Answer + Clone + Send + 'static
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    move |request| {
        let answer = service.call(request);
        Box::pin(async move { answer.await.unwrap_or_else(|never| match never {}) })
    }
}

/// Serves reviews on this listener until `stop`; then nothing more is accepted, and what is under way may end in its time.
/// Tells whether all of it did.
pub async fn serve(
    listener: TcpListener,
    served: Arc<Served>,
    counters: Arc<Counters>,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> bool {
    let mut tls = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(served);
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    accept(listener, limits, stop, move |stream| acceptor.accept(stream), reviews(counters, &limits)).await
}

/// Health and counters, without TLS: the kubelet and Prometheus ask.
pub async fn health(listener: TcpListener, counters: Arc<Counters>) {
    let limits = Limits { connections: 32, ..Limits::default() };
    accept(listener, limits, std::future::pending(), |stream| std::future::ready(Ok(stream)), pages(counters)).await;
}

async fn accept<H, I, S>(
    listener: TcpListener,
    limits: Limits,
    stop: impl Future<Output = ()>,
    handshake: impl Fn(TcpStream) -> H,
    service: S,
) -> bool
where
    H: Future<Output = std::io::Result<I>> + Send + 'static,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Request<Incoming>) -> Answer + Clone + Send + 'static,
{
    let protocol = connection::protocol(&limits);
    let places = Arc::new(Semaphore::new(limits.connections as usize));
    let stopping = watch::Sender::new(false);
    let begin = |stream: TcpStream, place: OwnedSemaphorePermit| {
        // An answer is one small write: it must not wait for the client's acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let one = connection::serve(handshake(stream), protocol.clone(), limits, stopping.subscribe(), service.clone());
        tokio::spawn(async move {
            one.await;
            drop(place);
        });
    };
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        tokio::select! {
            () = stop.as_mut() => break,
            (place, accepted) = accepted => match accepted {
                Ok((stream, _)) => begin(stream, place),
                // A client that is gone again, or no file descriptor left: neither is a reason to stop, nor to spin.
                Err(error) => {
                    tracing::warn!("accepting a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            },
        }
    }
    accept_the_last(&listener, &places, begin).await;
    drop(listener);
    stopping.send_replace(true);
    tokio::time::timeout(limits.drain, places.acquire_many(limits.connections)).await.is_ok()
}

/// Who stands in the listener's queue believes to be connected: as far as there are places, they are served too.
async fn accept_the_last(listener: &TcpListener, places: &Arc<Semaphore>, begin: impl Fn(TcpStream, OwnedSemaphorePermit)) {
    while let Ok(place) = places.clone().try_acquire_owned() {
        tokio::select! {
            biased;
            Ok((stream, _)) = listener.accept() => begin(stream, place),
            () = std::future::ready(()) => return,
        }
    }
}

#[cfg(test)]
mod tests;
