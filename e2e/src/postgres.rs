//! A PostgreSQL server of a test's own: a fresh folder, a Unix socket and no port. It ends, and its folder goes, when the
//! value is dropped, and just as well when the test's process is killed.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long making the first database may take, and then again how long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The shell owns the server: when its standard input closes, because the value was dropped or because this process is
/// gone however it went, it ends the server and removes the folder. PostgreSQL refuses to run as root.
const SUPERVISOR: &str = r#"
set -eu
folder=$1 programs=$2 user=$3 fsync=$4 patience=$5
trap 'rm -rf "$folder"' EXIT
as=
if [ "$(id -u)" = 0 ]; then
  as="setpriv --reuid $user --regid $user --clear-groups"
  chown "$user:" "$folder"
fi
cd "$folder"
if ! timeout "$patience" $as "$programs/initdb" -D "$folder/data" -U postgres -A trust -E UTF8 --no-locale --no-sync --no-instructions > "$folder/initdb.log" 2>&1; then
  echo "initdb failed or took longer than $patience s: $(tail -1 "$folder/initdb.log")"
  exit 1
fi
# No function here: its process would be the shell's, deaf to the signal below.
$as "$programs/postgres" -D "$folder/data" -k "$folder" -c listen_addresses= -c fsync="$fsync" -c max_connections=50 > "$folder/postgres.log" 2>&1 &
server=$!
deadline=$(($(date +%s) + patience))
until $as "$programs/pg_isready" -q -h "$folder"; do
  if ! kill -0 "$server" 2> /dev/null; then
    echo "postgres: $(tail -1 "$folder/postgres.log")"
    exit 1
  fi
  if [ "$(date +%s)" -ge "$deadline" ]; then
    kill -KILL "$server"
    echo "waited $patience s for postgres to take connections: $(tail -1 "$folder/postgres.log")"
    exit 1
  fi
  sleep 0.05
done
echo ready
cat > /dev/null
# An immediate stop: nobody will read this folder again.
kill -QUIT "$server" 2> /dev/null || true
wait "$server" || true
"#;

/// A running server.
pub struct Postgres {
    folder: PathBuf,
    supervisor: Child,
}

impl Postgres {
    /// Starts a server and waits until it answers. It does not wait for the disk: what it holds is gone with it anyway.
    pub fn start() -> Result<Self> {
        Self::start_with(&programs()?, "off", PATIENCE)
    }

    /// The same, and an answer means that it is on the disk: for measuring what that costs.
    pub fn start_durable() -> Result<Self> {
        Self::start_with(&programs()?, "on", PATIENCE)
    }

    fn start_with(programs: &Path, fsync: &str, patience: Duration) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postgres-").tempdir().context("making a folder for PostgreSQL")?.keep();
        let supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "sh"])
            .args([folder.as_path(), programs])
            .args([user(), fsync, &patience.as_secs().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting PostgreSQL's supervisor")?;
        let mut server = Self { folder, supervisor };
        let output = server.supervisor.stdout.take().context("the supervisor has an output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("waiting for PostgreSQL to answer")?;
        ensure!(line.trim() == "ready", "PostgreSQL did not start: {}", line.trim());
        Ok(server)
    }

    /// Where a client connects to, as superuser, to the database that is always there.
    pub fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.folder.display())
    }

    /// The folder of the socket, for psql's `-h`.
    pub fn socket_folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        // Nothing can be done here about a supervisor that can't be waited for.
        let _ = self.supervisor.wait();
    }
}

/// Debian's package makes a user for the server; without it any user without rights does.
fn user() -> &'static str {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    if users.lines().any(|line| line.starts_with("postgres:")) { "postgres" } else { "nobody" }
}

/// The folder of the newest PostgreSQL on this machine.
fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = versions.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))));
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).map(|folder| (0, folder)).collect::<Vec<_>>());
    let mut found: Vec<_> = debian.chain(on_path.into_iter().flatten()).filter(|(_, bin)| bin.join("initdb").is_file()).collect();
    found.sort_by_key(|(version, _)| *version);
    match found.pop() {
        Some((_, bin)) => Ok(bin),
        None => bail!("PostgreSQL is not installed: run `make prerequisites`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_server_answers_and_goes_with_its_folder() {
        if programs().is_err() {
            println!("skipped: PostgreSQL is not installed");
            return;
        }
        let server = Postgres::start().unwrap();
        let folder = server.socket_folder().to_owned();
        let asked = Command::new("psql").args(["-XAt", "-U", "postgres", "-c", "select 6 * 7", "-h"]).arg(&folder).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&asked.stdout).trim(), "42", "{}", String::from_utf8_lossy(&asked.stderr));
        let pid = std::fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
        let process = PathBuf::from(format!("/proc/{}", pid.lines().next().unwrap()));
        assert!(process.exists());
        drop(server);
        assert!(!process.exists() && !folder.exists());
    }

    #[test]
    fn a_server_that_never_answers_is_waited_for_until_a_deadline_and_ended() {
        let programs = tempfile::tempdir().unwrap();
        let open = |file: &Path| std::fs::set_permissions(file, Permissions::from_mode(0o755)).unwrap();
        open(programs.path());
        let script = |name: &str, text: &str| {
            let file = programs.path().join(name);
            std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
            open(&file);
        };
        script("initdb", "true");
        // It is another user's.
        let said = programs.path().join("said");
        std::fs::create_dir(&said).and_then(|()| std::fs::set_permissions(&said, Permissions::from_mode(0o777))).unwrap();
        let word = said.join("word").display().to_string();
        script("postgres", &format!("echo \"I am $$\"; touch {word}; exec sleep 600"));
        script("pg_isready", &format!("for try in $(seq 200); do [ -e {word} ] && break; sleep 0.05; done; false"));
        let error = Postgres::start_with(programs.path(), "off", Duration::from_secs(1)).map(drop).unwrap_err().to_string();
        let (words, pid) = error.split_once("I am ").unwrap();
        assert_eq!(words, "PostgreSQL did not start: waited 1 s for postgres to take connections: ");
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!command.starts_with(b"sleep"), "it still runs");
    }
}
