//! The gate as a process: how it starts, takes up another certificate, stands bodies made to hurt it, and ends.

use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const NAME: &str = "gate.test.svc";
const PATIENCE: Duration = Duration::from_secs(60);
const REVIEW: &str =
    r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"kind":"Pod"},"object":{}}}"#;

type Stream = StreamOwned<ClientConnection, TcpStream>;

struct Gate {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
    trusted: CertificateDer<'static>,
    log: Receiver<String>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate that is its own authority, in the files that the gate reads.
fn write_pair(folder: &Path) -> CertificateDer<'static> {
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec![NAME.to_owned()]).and_then(|leaf| leaf.self_signed(&key)).expect("a certificate");
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).expect("written");
    std::fs::write(folder.join("tls.crt"), certificate.pem()).expect("written");
    CertificateDer::from_pem_slice(certificate.pem().as_bytes()).expect("PEM")
}

fn gate() -> Gate {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = write_pair(folder.path());
    let mut child = Command::new(std::env::var_os("CARGO_BIN_EXE_supercargo-gate").expect("cargo says where it is"))
        .args(["--listen", "127.0.0.1:0", "--health", "127.0.0.1:0", "--certificate-interval-seconds", "1", "--certificate-file"])
        .arg(folder.path().join("tls.crt"))
        .arg("--key-file")
        .arg(folder.path().join("tls.key"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let logged: Value = serde_json::from_str(&line).ok()?;
        logged["listen"].as_str()?.parse().ok()
    });
    let (sender, log) = channel();
    std::thread::spawn(move || lines.map_while(Result::ok).all(|line| sender.send(line).is_ok()));
    Gate { log, child, address: address.expect("it says where it listens"), folder, trusted }
}

impl Gate {
    fn connect(&self, trusted: &CertificateDer<'static>) -> std::io::Result<Stream> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).expect("a root");
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let session = ClientConnection::new(Arc::new(config), ServerName::try_from(NAME).expect("a name")).expect("a session");
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(session, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    fn asked(&self, body: &[u8]) -> String {
        let mut stream = self.connect(&self.trusted).expect("connects");
        stream.write_all(head(body.len()).as_bytes()).and_then(|()| stream.write_all(body)).expect("is sent");
        to_the_end(&mut stream)
    }

    fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).expect("a peak");
        kib.parse::<u64>().expect("a number") >> 10
    }

    fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process has an id");
        kill_process(pid, Signal::TERM).expect("it runs");
    }

    fn ended(&mut self) -> ExitStatus {
        until("the gate ends", || self.child.try_wait().expect("it is ours"))
    }
}

fn head(length: usize) -> String {
    format!("POST /validate HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
}

/// A server that closes without TLS's goodbye has still answered.
fn to_the_end(stream: &mut Stream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn until<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = there() {
            return value;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn on_sigterm_it_answers_what_is_under_way_takes_nothing_new_and_exits_with_0() {
    let mut gate = gate();
    let mut under_way = gate.connect(&gate.trusted).expect("connects");
    under_way.write_all(head(REVIEW.len()).as_bytes()).and_then(|()| under_way.write_all(&REVIEW.as_bytes()[..20])).expect("is sent");
    under_way.flush().expect("is sent");
    gate.terminate();
    until("nothing new is accepted", || TcpStream::connect(gate.address).err());
    assert!(gate.child.try_wait().expect("it is ours").is_none(), "it waits for what is under way");
    under_way.write_all(&REVIEW.as_bytes()[20..]).expect("is sent");
    let answer = to_the_end(&mut under_way);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"allowed\":true"), "{answer}");
    assert_eq!(gate.ended().code(), Some(0));
}

#[test]
fn a_certificate_that_is_renewed_in_its_file_is_served_without_a_restart_and_half_a_pair_is_not() {
    let gate = gate();
    assert!(gate.asked(REVIEW.as_bytes()).starts_with("HTTP/1.1 200"));
    let another = tempfile::tempdir().expect("a folder");
    let renewed = write_pair(another.path());
    let put = |file: &str| std::fs::copy(another.path().join(file), gate.folder.path().join(file)).expect("copied");
    // The certificate is there before its key: until they belong together the last pair is served.
    put("tls.crt");
    let mut said = std::iter::from_fn(|| gate.log.recv_timeout(PATIENCE).ok());
    said.find(|line| line.contains("renewing the certificate")).expect("it says what is wrong with the pair");
    assert!(gate.connect(&gate.trusted).is_ok(), "the last good pair is served");
    put("tls.key");
    until("the renewed certificate is served", || gate.connect(&renewed).ok());
    assert!(gate.connect(&gate.trusted).is_err(), "the old one is served no more");
}

#[test]
fn bodies_made_to_cost_much_cost_little() {
    let gate = gate();
    let full = |start: &str, piece: &str, end: &str| {
        let room = (3 << 20) - start.len() - end.len();
        [start, &piece.repeat(room / piece.len()), end].concat()
    };
    let review = |spec: &str| {
        format!(
            r#"{{"apiVersion":"admission.k8s.io/v1","request":{{"uid":"u","kind":{{"group":"supercargo.dev","kind":"ComputeTask"}},"object":{{"metadata":{{}},"spec":{{"budget":"1","image":"i",{spec}"#
        )
    };
    let bodies = [
        full(&review(r#""args":[""#), r#"",""#, r#""]}}}}"#),
        full(&review(r#""env":[{"name":"A"}"#), r#",{"name":"NVIDIA_"}"#, "]}}}}"),
        full(&review(r#""volumes":[{"name":"a","mountPath":"/a"}"#), r#",{"name":"shm","mountPath":"/a"}"#, "]}}}}"),
        full(&review(r#""network":{"rules":[{"cidr":""}"#), r#",{"cidr":""}"#, "]}}}}}"),
        full(&review(r#""x":"#), "[", ""),
        full(&review(r#""x":[0"#), ",0", "]}}}}"),
        full(r#"{"apiVersion":"admission.k8s.io/v1","request":{"oldObject":{"spec":[0"#, ",0", "]}}}"),
        full("", "\u{fffd}", ""),
    ];
    for body in &bodies {
        let started = Instant::now();
        let answer = gate.asked(body.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 400"), "{}: {answer}", &body[..200]);
        assert!(answer.len() < 32 << 10, "{} bytes", answer.len());
        assert!(started.elapsed() < Duration::from_secs(10), "{:?} for {}", started.elapsed(), &body[..200]);
    }
    assert!(gate.peak_mib() < 128, "{} MiB", gate.peak_mib());
    println!("the worst bodies cost {} MiB", gate.peak_mib());
}
