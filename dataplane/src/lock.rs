//! One agent for each instance: a locked file with the owner's process id in it.
//!
//! The lock is the kernel's (`flock(2)`), so it ends with the process whatever kills it; the
//! id inside is for people.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

/// Who was killed a moment ago may still have it: the kernel closes a process's files one by one.
const DYING: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("switch instance {instance:?} is already run by process {pid} (lock {path:?})")]
    Held { instance: String, pid: String, path: PathBuf },
    #[error("cannot lock {path:?}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Held until dropped. The file stays: removing it would let two agents lock two files.
#[derive(Debug)]
pub struct InstanceLock {
    _file: Flock<File>,
}

impl InstanceLock {
    /// # Errors
    /// [`LockError::Held`] when another process has it, [`LockError::File`] when the file
    /// cannot be opened or written.
    pub fn take(run_dir: &Path, instance: &str) -> Result<Self, LockError> {
        let path = run_dir.join("lock");
        let failed = |source| LockError::File { path: path.clone(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        let deadline = Instant::now() + DYING;
        let mut tried = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        let locked = loop {
            match tried {
                Err((file, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                    tried = Flock::lock(file, FlockArg::LockExclusiveNonblock);
                }
                ended => break ended,
            }
        };
        match locked {
            Ok(mut file) => {
                file.set_len(0).map_err(failed)?;
                file.rewind().map_err(failed)?;
                writeln!(file, "{}", std::process::id()).map_err(failed)?;
                Ok(Self { _file: file })
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).map_err(failed)?;
                let pid = match pid.trim() {
                    "" => "(unknown)".to_owned(),
                    pid => pid.to_owned(),
                };
                Err(LockError::Held { instance: instance.to_owned(), pid, path })
            }
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = InstanceLock::take(dir.path(), "lab-s1").unwrap();
        match InstanceLock::take(dir.path(), "lab-s1") {
            Err(LockError::Held { instance, pid, .. }) => {
                assert_eq!(instance, "lab-s1");
                assert_eq!(pid, std::process::id().to_string());
            }
            other => panic!("{other:?}"),
        }
        drop(first);
        InstanceLock::take(dir.path(), "lab-s1").unwrap();
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = InstanceLock::take(Path::new("/nonexistent/run"), "x").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/run/lock"), "{error}");
    }
}
