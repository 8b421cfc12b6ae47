//! One command at a time brings a cluster up or takes it down: two would start each process twice, or end what the other
//! has just started.

use super::layout::Layout;
use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;

/// Held until it is dropped, and by nobody once the program has ended, however it did.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Waits for whoever has it.
pub fn take(layout: &Layout) -> Result<Lock> {
    std::fs::create_dir_all(layout.state()).with_context(|| format!("making {}", layout.state().display()))?;
    let path = layout.state().join("lock");
    let file = File::options().create(true).append(true).open(&path).with_context(|| format!("opening {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        eprintln!("waiting for another command that brings this cluster up or takes it down");
        flock(&file, FlockOperation::LockExclusive).with_context(|| format!("locking {}", path.display()))?;
    }
    Ok(Lock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_at_a_time_has_it_and_it_is_free_again_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path()).unwrap();
        let lock = take(&layout).unwrap();
        let other = File::options().append(true).open(layout.state().join("lock")).unwrap();
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(lock);
        flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
    }
}
