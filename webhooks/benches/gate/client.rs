//! The clients: a thread for each connection, which is kept. They ask as fast as they are answered, or at a pace that
//! doesn't care for answers: then each answer's time counts from when its question was due, not from when it was sent.

use crate::NAME;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request as it goes over the wire, and what its answer must contain.
#[derive(Clone)]
pub struct Question {
    bytes: Vec<u8>,
    contains: Option<&'static str>,
}

pub fn question(review: &Value, right: Option<bool>) -> Question {
    let body = review.to_string();
    let head = format!(
        "POST /validate?timeout=2s HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: kube-apiserver-admission\r\nContent-Type: application/json\r\n\
         Accept: application/json, */*\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let contains = right.map(|right| if right { "\"allowed\":true" } else { "\"allowed\":false" });
    Question { bytes: [head, body].concat().into_bytes(), contains }
}

pub fn content_length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    let line = head.lines().find(|line| line.get(..15).is_some_and(|name| name.eq_ignore_ascii_case("content-length:")))?;
    line[15..].trim().parse().ok()
}

/// A server, and what it is asked.
pub struct Target {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    questions: Vec<Question>,
}

/// One answer, in milliseconds since it was due: when the question was sent, and when the answer was there.
struct Timed {
    slice: usize,
    sent: f64,
    answered: f64,
}

pub struct Times(Vec<Timed>);

impl Times {
    pub fn latency(&self, percent: f64) -> f64 {
        percentile(self.0.iter().map(|one| one.answered).collect(), percent)
    }

    pub fn lateness(&self, percent: f64) -> f64 {
        percentile(self.0.iter().map(|one| one.sent).collect(), percent)
    }

    /// The latency of each second, the best second first.
    pub fn latency_of_seconds(&self, percent: f64) -> Vec<f64> {
        let seconds = self.0.iter().map(|one| one.slice).max().map_or(0, |last| last + 1);
        let of = |slice: usize| self.0.iter().filter(move |one| one.slice == slice).map(|one| one.answered).collect();
        let mut all: Vec<f64> = (0..seconds).map(|slice| percentile(of(slice), percent)).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    pub fn count(&self) -> f64 {
        self.0.len() as f64
    }
}

fn percentile(mut values: Vec<f64>, percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * percent / 100.0).round() as usize]
}

impl Target {
    pub fn new(address: SocketAddr, trusted: &str, questions: Vec<Question>) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).expect("PEM")).expect("a root");
        let config = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
        Self { address, config, questions }
    }

    pub fn mean_bytes(&self) -> usize {
        self.questions.iter().map(|question| question.bytes.len()).sum::<usize>() / self.questions.len()
    }

    /// How many are answered when each client asks again at once.
    pub fn flat_out(&self, clients: u32, phase: Duration) -> f64 {
        let end = Instant::now() + phase;
        let client = |first: usize| {
            let mut connection = self.connect();
            let mut answered = 0_u32;
            for question in self.questions.iter().cycle().skip(first) {
                if Instant::now() >= end {
                    break;
                }
                connection.ask(question);
                answered += 1;
            }
            f64::from(answered)
        };
        on_threads(clients, client).into_iter().sum()
    }

    /// The times when this many are asked every second, evenly, by all clients together.
    pub fn paced(&self, clients: u32, per_second: u32, phase: Duration) -> Times {
        let pause = Duration::from_secs(1) * clients / per_second;
        // Every client has its connection by then.
        let begin = Instant::now() + Duration::from_millis(500);
        let client = |first: usize| {
            let mut connection = self.connect();
            let mut due = begin + pause * first as u32 / clients;
            let mut times = Vec::new();
            for question in self.questions.iter().cycle().skip(first) {
                if due >= begin + phase {
                    break;
                }
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let sent = milliseconds(due.elapsed());
                connection.ask(question);
                let slice = due.duration_since(begin).as_secs() as usize;
                times.push(Timed { slice, sent, answered: milliseconds(due.elapsed()) });
                due += pause;
            }
            times
        };
        Times(on_threads(clients, client).into_iter().flatten().collect())
    }

    fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).expect("connects");
        stream.set_nodelay(true).expect("a TCP connection");
        let name = ServerName::try_from(NAME).expect("a name");
        let session = ClientConnection::new(self.config.clone(), name).expect("a session");
        Connection { stream: StreamOwned::new(session, stream), answer: vec![0; 4 << 20] }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn on_threads<T: Send>(count: u32, client: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let client = &client;
        let threads: Vec<_> = (0..count as usize).map(|first| scope.spawn(move || client(first))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a client is answered as it must be")).collect()
    })
}

struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    answer: Vec<u8>,
}

impl Connection {
    fn ask(&mut self, question: &Question) {
        self.stream.write_all(&question.bytes).expect("is sent");
        let mut read = 0;
        let (head, length) = loop {
            let count = self.stream.read(&mut self.answer[read..]).expect("is answered");
            assert!(count > 0, "the connection was closed");
            read += count;
            if let Some(at) = self.answer[..read].windows(4).position(|end| end == b"\r\n\r\n") {
                break (at + 4, content_length(&self.answer[..at]).expect("every answer has a length"));
            }
        };
        if read < head + length {
            self.stream.read_exact(&mut self.answer[read..head + length]).expect("the rest is answered");
        }
        let text = std::str::from_utf8(&self.answer[..head + length]).expect("text");
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(question.contains.is_none_or(|words| text[head..].contains(words)), "{text}");
    }
}
