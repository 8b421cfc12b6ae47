//! The gate as its clients meet it: real connections, well-behaved and otherwise, while certificates change and it stops.

use super::*;
use crate::certificate::{Authority, new_authority, new_leaf};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::SystemTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const NAME: &str = "gate.test.svc";
const REVIEW: &str =
    r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"kind":"Pod"},"object":{}}}"#;
const PATIENCE: Duration = Duration::from_secs(60);

struct Gate {
    address: SocketAddr,
    served: Arc<Served>,
    authority: Authority,
    connector: TlsConnector,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    ended: Mutex<Option<JoinHandle<bool>>>,
}

async fn gate(limits: Limits) -> Gate {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authority = new_authority(SystemTime::now()).expect("an authority");
    let served = Arc::new(Served::new(new_leaf(&authority, &[NAME.to_owned()], SystemTime::now()).expect("a leaf")));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::spawn(serve(listener, served.clone(), Arc::new(Counters::default()), limits, async {
        let _ = stopped.await;
    }));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).expect("PEM")).expect("a root");
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    // Each handshake is a whole one: a resumed session would show no certificate.
    config.resumption = rustls::client::Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(config));
    Gate { address, served, authority, connector, stop: Mutex::new(Some(stop)), ended: Mutex::new(Some(ended)) }
}

impl Gate {
    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        self.connector.connect(ServerName::try_from(NAME).expect("a name"), stream).await
    }

    /// One request on a connection of its own, as the API server makes when it has none left.
    async fn post(&self, body: &str) -> std::io::Result<String> {
        let mut stream = self.connect().await?;
        stream.write_all(head(body.len(), "close").as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        Ok(to_the_end(&mut stream).await)
    }

    fn rotate(&self) {
        self.served.swap(new_leaf(&self.authority, &[NAME.to_owned()], SystemTime::now()).expect("a leaf"));
    }

    fn stop(&self) -> JoinHandle<bool> {
        let sender = self.stop.lock().expect("not poisoned").take().expect("is stopped once");
        sender.send(()).expect("it serves");
        self.ended.lock().expect("not poisoned").take().expect("is stopped once")
    }
}

fn head(length: usize, connection: &str) -> String {
    format!("POST /validate HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n")
}

/// What comes until the server closes. One that closes without TLS's goodbye has still answered.
async fn to_the_end(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// One answer on a connection that is kept.
async fn answer(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    let mut answer = String::new();
    while !answer.ends_with("}}") {
        let mut bytes = [0; 1024];
        let count = timeout(PATIENCE, stream.read(&mut bytes)).await??;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    Ok(answer)
}

fn is_good(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200") && answer.contains("\"allowed\":true")
}

/// What a client saw: requests, those that were lost, and the certificates that it was shown.
#[derive(Default)]
struct Seen {
    asked: u64,
    lost: Vec<String>,
    certificates: BTreeSet<Vec<u8>>,
}

/// Asks until the sender of `done` is gone; each time on a new connection, or always on the first.
async fn client(gate: Arc<Gate>, kept: bool, asked: Arc<AtomicU64>, done: watch::Receiver<()>) -> Seen {
    let mut seen = Seen::default();
    let mut connection = None;
    while done.has_changed().is_ok() {
        let one = async {
            let mut stream = match connection.take() {
                Some(stream) => stream,
                None => gate.connect().await?,
            };
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|first| first.to_vec());
            // In one piece: the kernel would keep the second back until the first is acknowledged.
            stream.write_all((head(REVIEW.len(), "keep-alive") + REVIEW).as_bytes()).await?;
            Ok((certificate, answer(&mut stream).await?, stream))
        };
        seen.asked += 1;
        match one.await {
            Ok((certificate, text, stream)) if is_good(&text) => {
                seen.certificates.extend(certificate);
                connection = kept.then_some(stream);
            }
            Ok((_, text, _)) => seen.lost.push(text),
            Err(error) => seen.lost.push(std::io::Error::to_string(&error)),
        }
        asked.fetch_add(1, Ordering::Relaxed);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_under_load_loses_no_request_on_new_connections_nor_on_kept_ones() {
    const ROTATIONS: usize = 20;
    let gate = Arc::new(gate(Limits::default()).await);
    let (done, watched) = watch::channel(());
    let asked = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..6).map(|index| tokio::spawn(client(gate.clone(), index % 2 == 0, asked.clone(), watched.clone()))).collect();
    drop(watched);
    for _ in 0..ROTATIONS {
        gate.rotate();
        // Every certificate is there for some requests, and each change of it comes in the middle of others.
        let until = asked.load(Ordering::Relaxed) + 30;
        let reached = async {
            while asked.load(Ordering::Relaxed) < until {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, reached).await.expect("thirty more requests are answered");
    }
    drop(done);
    let (mut sum, mut lost, mut certificates) = (0, Vec::new(), BTreeSet::new());
    for (index, client) in clients.into_iter().enumerate() {
        let seen = client.await.expect("a client ends");
        assert!(seen.asked > 10, "client {index} asked {} times", seen.asked);
        sum += seen.asked;
        lost.extend(seen.lost);
        certificates.extend(seen.certificates);
    }
    println!("figure gate.rotation_lost {} requests", lost.len());
    assert_eq!(lost, [""; 0], "of {sum}");
    assert!(certificates.len() > ROTATIONS / 2, "only {} certificates were shown in {ROTATIONS} rotations", certificates.len());
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_refused_and_a_wrong_one_is_answered() {
    let gate = gate(Limits::default()).await;
    let answer = gate.post(&"x".repeat((3 << 20) + 1)).await.unwrap_or_default();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(gate.post("{}").await.expect("answers").starts_with("HTTP/1.1 400"));
    assert!(is_good(&gate.post(REVIEW).await.expect("answers")));
}

#[tokio::test]
async fn who_dawdles_is_dropped_and_holds_up_nobody() {
    let short = Duration::from_millis(300);
    let limits = Limits {
        connections: 4,
        bodies_bytes: 4096,
        body_bytes: 4096,
        handshake: short,
        head: short,
        request: short,
        idle: short,
        ..Limits::default()
    };
    let gate = gate(limits).await;
    // All the places there are: without a handshake, without a request, with half a head, with half a body.
    let mut silent = TcpStream::connect(gate.address).await.expect("connects");
    let mut mute = gate.connect().await.expect("connects");
    let mut half_head = gate.connect().await.expect("connects");
    half_head.write_all(b"POST /validate HTTP/1.1\r\nHos").await.expect("writes");
    let mut half_body = gate.connect().await.expect("connects");
    half_body.write_all(head(4096, "keep-alive").as_bytes()).await.expect("writes");
    half_body.write_all(b"{").await.expect("writes");

    assert!(is_good(&timeout(PATIENCE, gate.post(REVIEW)).await.expect("is served when the places are free again").expect("answers")));
    let mut nothing = Vec::new();
    let _ = timeout(PATIENCE, silent.read_to_end(&mut nothing)).await.expect("the silent one is dropped");
    assert_eq!(nothing, b"");
    assert_eq!(to_the_end(&mut mute).await, "");
    let answer = to_the_end(&mut half_head).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let answer = to_the_end(&mut half_body).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn a_kept_connection_is_closed_when_nothing_comes_for_long() {
    let gate = gate(Limits { head: Duration::from_secs(30), idle: Duration::from_millis(200), ..Limits::default() }).await;
    let mut stream = gate.connect().await.expect("connects");
    for _ in 0..3 {
        stream.write_all(head(REVIEW.len(), "keep-alive").as_bytes()).await.expect("writes");
        stream.write_all(REVIEW.as_bytes()).await.expect("writes");
        assert!(is_good(&answer(&mut stream).await.expect("answers")));
    }
    assert_eq!(to_the_end(&mut stream).await, "");
}

#[tokio::test]
async fn stopping_ends_what_is_under_way_and_takes_nothing_new() {
    let gate = gate(Limits::default()).await;
    let mut under_way = gate.connect().await.expect("connects");
    under_way.write_all(head(REVIEW.len(), "keep-alive").as_bytes()).await.expect("writes");
    under_way.write_all(&REVIEW.as_bytes()[..10]).await.expect("writes");
    let mut idle = gate.connect().await.expect("connects");
    idle.write_all(head(REVIEW.len(), "keep-alive").as_bytes()).await.expect("writes");
    idle.write_all(REVIEW.as_bytes()).await.expect("writes");
    assert!(is_good(&answer(&mut idle).await.expect("answers")));
    let mut fresh = gate.connect().await.expect("connects");

    let ended = gate.stop();
    assert_eq!(to_the_end(&mut idle).await, "", "an idle connection is closed at once");
    assert!(TcpStream::connect(gate.address).await.is_err(), "nothing new is accepted");
    fresh.write_all(head(REVIEW.len(), "keep-alive").as_bytes()).await.expect("writes");
    fresh.write_all(REVIEW.as_bytes()).await.expect("writes");
    assert!(is_good(&to_the_end(&mut fresh).await), "who had connected is served once");
    under_way.write_all(&REVIEW.as_bytes()[10..]).await.expect("writes");
    assert!(is_good(&to_the_end(&mut under_way).await), "what was under way is answered, and closed");
    assert!(timeout(PATIENCE, ended).await.expect("ends").expect("without a panic"), "everything ended in its time");
}

#[tokio::test]
async fn stopping_waits_no_longer_than_its_deadline() {
    let limits = Limits { request: PATIENCE, drain: Duration::from_millis(100), ..Limits::default() };
    let gate = gate(limits).await;
    let mut under_way = gate.connect().await.expect("connects");
    under_way.write_all(head(REVIEW.len(), "keep-alive").as_bytes()).await.expect("writes");
    let mut another = gate.connect().await.expect("the first one was accepted");
    another.write_all(b"POST").await.expect("writes");
    assert!(!timeout(PATIENCE / 2, gate.stop()).await.expect("ends").expect("without a panic"), "it says what was cut short");
}
