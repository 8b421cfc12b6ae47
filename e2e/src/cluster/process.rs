//! Starts the cluster's processes so that they outlive the driver, and knows one again later: by its id together with
//! its start time, for ids are used again.

use super::{cgroup, layout::Layout, shell};
use crate::wait;
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A process of the cluster: what to start, and below which name it is found.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Relative to the cluster's own cgroup.
    pub group: String,
    /// Run inside the namespaces of this process.
    pub inside: Option<u32>,
}

impl Spec {
    pub fn new(name: impl Into<String>, program: PathBuf, args: Vec<String>) -> Self {
        let name = name.into();
        Self { group: name.clone(), name, program, args, env: Vec::new(), inside: None }
    }
}

/// What is known of a process that was started earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    pid: u32,
    start_ticks: u64,
}

/// The processes of one checkout's cluster.
#[derive(Debug, Clone)]
pub struct Processes {
    layout: Layout,
}

impl Processes {
    pub fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone() }
    }

    /// The cluster's cgroup; every process is in it or below.
    pub fn top_group(&self) -> String {
        format!("supercargo-{}", self.layout.id)
    }

    /// The process id, if the process that was started under this name still runs.
    pub fn alive(&self, name: &str) -> Option<u32> {
        let text = std::fs::read_to_string(self.record(name)).ok()?;
        let (pid, start_ticks) = text.trim().split_once(' ')?;
        let known = Identity { pid: pid.parse().ok()?, start_ticks: start_ticks.parse().ok()? };
        (identify(known.pid)? == known).then_some(known.pid)
    }

    /// Starts it if it doesn't run. True when it was started now.
    pub async fn ensure(&self, spec: &Spec) -> Result<bool> {
        if self.alive(&spec.name).is_some() {
            return Ok(false);
        }
        if spec.group == spec.name {
            // What it started itself may have outlived it, and would hold its port.
            self.end(&spec.group).await.with_context(|| format!("ending what is left of {}", spec.name))?;
        }
        self.start(spec).with_context(|| format!("starting {}", spec.name))?;
        Ok(true)
    }

    fn start(&self, spec: &Spec) -> Result<()> {
        let group = format!("{}/{}", self.top_group(), spec.group);
        cgroup::make(&group)?;
        let doors = cgroup::doors(&group)?;
        let log_file = self.layout.logs(&spec.name);
        std::fs::create_dir_all(log_file.parent().context("logs have a folder")?)?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_file)
            .with_context(|| format!("opening {}", log_file.display()))?;

        // The child joins its cgroups before it becomes the program, so nothing of it is ever outside them.
        let mut command = Command::new("sh");
        command.arg("-c").arg("for door in $DOORS; do echo $$ > $door; done; unset DOORS; exec \"$@\"").arg("sh");
        if let Some(pid) = spec.inside {
            command.args(["nsenter", "--target", &pid.to_string(), "--mount", "--net", "--uts", "--cgroup", "--"]);
        }
        command.arg(&spec.program).args(&spec.args).envs(spec.env.iter().cloned());
        command.env("DOORS", doors.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(" "));
        command.current_dir(self.layout.cluster()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().context("starting a shell")?;
        let identity = identify(child.id()).with_context(|| format!("it ended at once: see {}", log_file.display()))?;
        let record = self.record(&spec.name);
        std::fs::create_dir_all(record.parent().context("records have a folder")?)?;
        std::fs::write(&record, format!("{} {}", identity.pid, identity.start_ticks))
            .with_context(|| format!("writing {}", record.display()))
    }

    /// Ends every process in the part `group` of the cluster ("" for all): asked first, then made to.
    pub async fn end(&self, group: &str) -> Result<()> {
        let group = if group.is_empty() { self.top_group() } else { format!("{}/{group}", self.top_group()) };
        for signal in [Signal::TERM, Signal::KILL] {
            let patience = if signal == Signal::TERM { Duration::from_secs(4) } else { Duration::from_secs(20) };
            send(&cgroup::processes(&group)?, signal);
            let gone = wait::until(format!("the processes of {group} to end"), patience, || async {
                if signal == Signal::KILL {
                    send(&cgroup::processes(&group)?, signal);
                }
                Ok(cgroup::processes(&group)?.is_empty().then_some(()))
            });
            match gone.await {
                Ok(()) => return Ok(()),
                Err(error) if signal == Signal::KILL => return Err(error),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Whether anything at all runs in the part `group` of the cluster.
    pub fn any(&self, group: &str) -> Result<bool> {
        Ok(!cgroup::processes(&format!("{}/{group}", self.top_group()))?.is_empty())
    }

    /// The last lines that a process wrote, for a message that explains.
    pub fn last_words(&self, name: &str) -> String {
        let log = self.layout.logs(name).display().to_string();
        shell::run("tail", ["-n", "5", &log]).unwrap_or_default()
    }

    fn record(&self, name: &str) -> PathBuf {
        self.layout.cluster().join("run").join(name)
    }
}

fn send(pids: &[u32], signal: Signal) {
    for pid in pids {
        // It may have ended by itself meanwhile, which is what was wanted.
        if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// The process's id and start, unless it is gone or only waits to be reaped.
fn identify(pid: u32) -> Option<Identity> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the fields after it may not.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let start_ticks = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(Identity { pid, start_ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_and_not_only_by_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path()).unwrap();
        let processes = Processes::new(&layout);
        let me = identify(std::process::id()).unwrap();
        let record = processes.record("me");
        std::fs::create_dir_all(record.parent().unwrap()).unwrap();
        std::fs::write(&record, format!("{} {}", me.pid, me.start_ticks)).unwrap();
        assert_eq!(processes.alive("me"), Some(me.pid));
        std::fs::write(&record, format!("{} {}", me.pid, me.start_ticks + 1)).unwrap();
        assert_eq!(processes.alive("me"), None, "another process with the same id");
    }
}
