//! Starts the cluster's processes so that they outlive the driver, and knows one again later: by its id together with
//! its start time, for ids are used again.

use super::{cgroup, layout::Layout, shell};
use crate::wait;
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
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
        format!("{}{}", super::machine::CLUSTERS, self.layout.id)
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
        // What it started itself may have outlived it, and would hold its port; and it runs itself when only its record is
        // gone.
        let left = || if spec.group == spec.name { self.members(&spec.group) } else { self.copies(spec) };
        self.end_all(&format!("what is left of {}", spec.name), left).await?;
        self.start(spec).await.with_context(|| format!("starting {}", spec.name))?;
        Ok(true)
    }

    async fn start(&self, spec: &Spec) -> Result<()> {
        let group = format!("{}/{}", self.top_group(), spec.group);
        cgroup::make(&group)?;
        let log_file = self.layout.logs(&spec.name);
        std::fs::create_dir_all(log_file.parent().context("logs have a folder")?)?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_file)
            .with_context(|| format!("opening {}", log_file.display()))?;
        let record = self.record(&spec.name);
        std::fs::create_dir_all(record.parent().context("records have a folder")?)?;

        let mut command = entered(&cgroup::doors(&group)?, &record);
        if let Some(pid) = spec.inside {
            command.args(["nsenter", "--target", &pid.to_string(), "--mount", "--net", "--uts", "--cgroup", "--"]);
        }
        command.arg(&spec.program).args(&spec.args).envs(crate::http::direct()).envs(spec.env.iter().cloned());
        command.current_dir(self.layout.cluster()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut child = command.spawn().context("starting a shell")?;
        let recorded = wait::until("its record", Duration::from_secs(10), || {
            let ended = child.try_wait();
            let pid = self.alive(&spec.name);
            async move {
                anyhow::ensure!(ended?.is_none(), wait::Hopeless("it ended at once".to_owned()));
                Ok(pid)
            }
        });
        recorded.await.map(drop).with_context(|| format!("{}see {}", self.last_words(&spec.name), log_file.display()))
    }

    /// Ends every process in the part `group` of the cluster ("" for all): asked first, then made to.
    pub async fn end(&self, group: &str) -> Result<()> {
        self.end_all(&format!("the processes of {}", self.path(group)), || self.members(group)).await
    }

    async fn end_all(&self, what: &str, members: impl Fn() -> Result<Vec<u32>>) -> Result<()> {
        for signal in [Signal::TERM, Signal::KILL] {
            let patience = if signal == Signal::TERM { Duration::from_secs(4) } else { Duration::from_secs(20) };
            send(&members()?, signal);
            let gone = wait::until(format!("{what} to end"), patience, || async {
                if signal == Signal::KILL {
                    send(&members()?, signal);
                }
                Ok(members()?.is_empty().then_some(()))
            });
            match gone.await {
                Ok(()) => return Ok(()),
                Err(error) if signal == Signal::KILL => return Err(error),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn path(&self, group: &str) -> String {
        if group.is_empty() { self.top_group() } else { format!("{}/{group}", self.top_group()) }
    }

    fn members(&self, group: &str) -> Result<Vec<u32>> {
        cgroup::processes(&self.path(group))
    }

    /// Those of its group that run this very command: what a daemon started, such as containers, is to outlive it.
    fn copies(&self, spec: &Spec) -> Result<Vec<u32>> {
        let words = std::iter::once(spec.program.as_os_str()).chain(spec.args.iter().map(OsStr::new));
        let command: Vec<u8> = words.flat_map(|word| word.as_encoded_bytes().iter().copied().chain([0])).collect();
        let runs = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == command);
        Ok(self.members(&spec.group)?.into_iter().filter(runs).collect())
    }

    /// Whether anything at all runs in the part `group` of the cluster.
    pub fn any(&self, group: &str) -> Result<bool> {
        Ok(!self.members(group)?.is_empty())
    }

    /// The processes whose command line has this word, on whichever node and in whichever container.
    pub fn that_run(&self, word: &str) -> Result<Vec<u32>> {
        let has = |pid: &u32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.split(|byte| *byte == 0).any(|found| found == word.as_bytes())
        };
        Ok(self.members("")?.into_iter().filter(has).collect())
    }

    /// Ends processes as a fault would: they are not asked.
    pub fn kill(&self, pids: &[u32]) {
        send(pids, Signal::KILL);
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

/// A shell that joins the cgroups, writes down who it is, and then becomes the program given to it as arguments. So nothing
/// of the program is ever outside its cgroups or unknown, whenever the driver itself is killed.
fn entered(doors: &[PathBuf], record: &Path) -> Command {
    let mut command = Command::new("sh");
    // The 22nd field of its stat is when it was started; it is called `sh`, without spaces.
    command.arg("-c").arg(
        "set -e\n\
         for door in $DOORS; do echo $$ > \"$door\"; done\n\
         started=$(cut -d ' ' -f 22 /proc/$$/stat)\n\
         echo \"$$ $started\" > \"$RECORD.half\"\n\
         mv -f \"$RECORD.half\" \"$RECORD\"\n\
         unset DOORS RECORD started\n\
         exec \"$@\"",
    );
    command.arg("sh").env("RECORD", record);
    command.env("DOORS", doors.iter().map(|door| door.display().to_string()).collect::<Vec<_>>().join(" "));
    command
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
        std::fs::write(&record, "").unwrap();
        assert_eq!(processes.alive("me"), None, "a record without a word");
    }

    #[tokio::test]
    async fn a_process_writes_its_record_before_it_becomes_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let (door, record) = (folder.path().join("door"), folder.path().join("record"));
        let mut child = entered(std::slice::from_ref(&door), &record).args(["sleep", "60"]).spawn().unwrap();
        let pid = child.id();
        wait::closely("the shell to become the program", Duration::from_secs(20), || {
            anyhow::ensure!(child.try_wait()?.is_none(), wait::Hopeless("it ended".to_owned()));
            Ok((std::fs::read(format!("/proc/{pid}/cmdline"))? == b"sleep\x0060\0").then_some(()))
        })
        .await
        .unwrap();
        let me = identify(pid).unwrap();
        assert_eq!(std::fs::read_to_string(&record).unwrap(), format!("{pid} {}\n", me.start_ticks));
        assert_eq!(std::fs::read_to_string(&door).unwrap(), format!("{pid}\n"));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_can_not_join_its_cgroup_is_never_started() {
        let folder = tempfile::tempdir().unwrap();
        let (door, record) = (folder.path().join("absent/door"), folder.path().join("record"));
        let ended = entered(&[door], &record).args(["true"]).output().unwrap();
        assert!(!ended.status.success() && !record.exists(), "{ended:?}");
    }
}
