//! Serving reviews over TLS: warp's filter has none of its own, so it is a service under hyper with rustls in front.

use crate::certificate::Served;
use crate::review::{self, Verdict};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use warp::Filter;
use warp::http::StatusCode;

/// An object is at most 1.5 MiB, and a review has the old one beside the new.
const MOST_BYTES: u64 = 3 << 20;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many reviews ended how.
#[derive(Debug, Default)]
pub struct Counters {
    pub allowed: AtomicU64,
    pub refused: AtomicU64,
    pub malformed: AtomicU64,
}

impl Counters {
    fn page(&self) -> String {
        let line = |verdict: &str, count: &AtomicU64| {
            format!("supercargo_gate_reviews_total{{verdict=\"{verdict}\"}} {}\n", count.load(Ordering::Relaxed))
        };
        let head = "# HELP supercargo_gate_reviews_total Reviews, by verdict\n# TYPE supercargo_gate_reviews_total counter\n";
        [head.to_owned(), line("allowed", &self.allowed), line("refused", &self.refused), line("malformed", &self.malformed)].concat()
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

/// Serves reviews on this listener for ever.
pub async fn serve(listener: TcpListener, served: Arc<Served>, counters: Arc<Counters>) -> std::io::Result<()> {
    let mut tls = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(served);
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let reviews = warp::path!("validate")
        .and(warp::post())
        .and(warp::body::content_length_limit(MOST_BYTES))
        .and(warp::body::bytes())
        .map(move |body: warp::hyper::body::Bytes| reply(&counters, &body));
    let service = TowerToHyperService::new(warp::service(reviews));
    loop {
        // A client that is gone before it is accepted is no reason to stop.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, service) = (acceptor.clone(), service.clone());
        tokio::spawn(async move {
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else { return };
            // What goes wrong on one connection is that client's to see.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Health and counters, without TLS: the kubelet and Prometheus ask.
pub async fn health(address: SocketAddr, counters: Arc<Counters>) -> std::io::Result<()> {
    let health = warp::path!("healthz").map(|| "alive\n".to_owned());
    let metrics = warp::path!("metrics").map(move || counters.page());
    let listener = TcpListener::bind(address).await?;
    warp::serve(warp::get().and(health.or(metrics))).incoming(listener).run().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::{new_authority, new_leaf};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use std::time::SystemTime;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;

    const NAME: &str = "gate.test.svc";

    struct Gate {
        address: SocketAddr,
        served: Arc<Served>,
        authority: crate::certificate::Authority,
        connector: TlsConnector,
    }

    async fn gate() -> Gate {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = new_authority(SystemTime::now()).expect("an authority");
        let served = Arc::new(Served::new(new_leaf(&authority, &[NAME.to_owned()], SystemTime::now()).expect("a leaf")));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(serve(listener, served.clone(), Arc::new(Counters::default())));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).expect("PEM")).expect("a root");
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Gate { address, served, authority, connector: TlsConnector::from(Arc::new(config)) }
    }

    /// One request on a connection of its own, as the API server makes when it has none left.
    async fn post(gate: &Gate, body: &str) -> std::io::Result<String> {
        let stream = TcpStream::connect(gate.address).await?;
        let mut stream = gate.connector.connect(ServerName::try_from(NAME).expect("a name"), stream).await?;
        let head = format!("POST /validate HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = Vec::new();
        // A server that closes without TLS's goodbye has still answered.
        let _ = stream.read_to_end(&mut answer).await;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    const REVIEW: &str =
        r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"kind":"Pod"},"object":{}}}"#;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rotation_under_load_loses_no_request() {
        let gate = Arc::new(gate().await);
        let rotating = {
            let gate = gate.clone();
            tokio::spawn(async move {
                for _ in 0..40 {
                    gate.served.swap(new_leaf(&gate.authority, &[NAME.to_owned()], SystemTime::now()).expect("a leaf"));
                    tokio::task::yield_now().await;
                }
            })
        };
        let mut lost = 0;
        let mut asked = 0;
        while !rotating.is_finished() || asked < 200 {
            asked += 1;
            match post(&gate, REVIEW).await {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") && answer.contains("\"allowed\":true") => {}
                _ => lost += 1,
            }
        }
        println!("figure gate.rotation_lost {lost} requests");
        assert_eq!(lost, 0, "of {asked}");
    }

    #[tokio::test]
    async fn a_body_beyond_the_bound_is_refused_and_a_wrong_one_is_answered() {
        let gate = gate().await;
        let answer = post(&gate, &"x".repeat((3 << 20) + 1)).await.unwrap_or_default();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(post(&gate, "{}").await.expect("answers").starts_with("HTTP/1.1 400"));
        assert!(post(&gate, REVIEW).await.expect("still answers").starts_with("HTTP/1.1 200"));
    }
}
