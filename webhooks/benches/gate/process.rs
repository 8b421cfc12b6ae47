//! The processes that are measured: started, put on a core of their own, and looked at from outside.

use crate::NAME;
use rcgen::{CertificateParams, KeyPair};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// In which Linux tells times to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// A server on the first core that we may use; it ends with this value.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
}

impl Running {
    /// Starts a program that says in its log where it listens.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("starts");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process has an id");
        sched_setaffinity(Some(pid), &cores(|index| index == 0)).expect("a child of ours may be put on a core");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let logged: Value = serde_json::from_str(&line).ok()?;
            logged["listen"].as_str()?.parse().ok()
        });
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.expect("it says where it listens") }
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("it runs")
    }

    pub fn cpu_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        // After the name, which may contain anything, user and system time are the 12th and 13th words.
        let words = stat.rsplit_once(") ").expect("a name in brackets").1.split(' ').skip(11).take(2);
        words.map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / TICKS_PER_SECOND
    }

    pub fn peak_mib(&self) -> f64 {
        let status = self.proc("status");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).expect("a peak");
        kib.parse::<f64>().expect("a number") / 1024.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of the cores that we may use, those at the wanted places.
fn cores(wanted: impl Fn(usize) -> bool) -> CpuSet {
    let usable = sched_getaffinity(None).expect("Linux tells");
    let mut set = CpuSet::new();
    for (_, core) in (0..CpuSet::MAX_CPU).filter(|core| usable.is_set(*core)).enumerate().filter(|(index, _)| wanted(*index)) {
        set.set(core);
    }
    set
}

/// The clients, which are threads of this process that are yet to start, leave the servers' core to them.
pub fn leave_the_first_core() {
    let others = cores(|index| index > 0);
    if others.count() == 0 {
        println!("there is only one core: the clients are on it too");
        return;
    }
    sched_setaffinity(None, &others).expect("our own threads may be put on cores");
}

/// A certificate that is its own authority, and its key, where servers read them. Tells what clients have to trust.
pub fn write_pair(certificate: &Path, key: &Path) -> String {
    let pair = KeyPair::generate().expect("a key");
    let made = CertificateParams::new(vec![NAME.to_owned()]).and_then(|leaf| leaf.self_signed(&pair)).expect("a certificate");
    std::fs::write(certificate, made.pem()).expect("written");
    std::fs::write(key, pair.serialize_pem()).expect("written");
    made.pem()
}
