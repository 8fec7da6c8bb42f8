//! Named network namespaces, in `/run/netns` as iproute2 keeps them (ip-netns(8)), so that
//! `ip netns` sees them.
//!
//! A namespace belongs to a thread. [`NetNs::run`] does something on a thread that has entered
//! one; sockets and child processes made there stay in it wherever they are used afterwards.
//! Only the network namespace is entered: `/sys` stays the caller's, so bpffs remains visible
//! (`ip netns exec` would hide it).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where named namespaces live.
pub const DIR: &str = "/run/netns";

/// An open namespace; it exists at least as long as this value.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    file: File,
}

pub fn path_of(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

pub fn exists(name: &str) -> bool {
    path_of(name).symlink_metadata().is_ok()
}

impl NetNs {
    /// A new namespace with its loopback down.
    ///
    /// # Errors
    /// `AlreadyExists` where the name is taken; otherwise what the kernel said.
    pub fn create(name: &str) -> io::Result<Self> {
        let path = path_of(name);
        File::options().write(true).create_new(true).open(&path)?;
        let mounted = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let here = Some("/proc/thread-self/ns/net");
            mount(here, &path, NONE, MsFlags::MS_BIND, NONE).map_err(io::Error::from)
        });
        if let Err(error) = mounted {
            // The file is ours and nothing is mounted on it.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Self::open(name)
    }

    /// # Errors
    /// `NotFound` where there is none; otherwise what the kernel said.
    pub fn open(name: &str) -> io::Result<Self> {
        Ok(Self { name: name.to_owned(), file: File::open(path_of(name))? })
    }

    /// Takes away the name. The namespace goes with the last process, socket or handle in it.
    /// Nothing to do where there is none.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn delete(name: &str) -> io::Result<()> {
        let path = path_of(name);
        match umount2(&path, MntFlags::MNT_DETACH) {
            // EINVAL: a file with nothing mounted on it, left by a create that was cut short.
            Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
            Err(error) => return Err(error.into()),
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What identifies it: `/proc/PID/ns/net` of a process inside has the same inode.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn inode(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt as _;

        Ok(self.file.metadata()?.ino())
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?)
    }

    /// Runs `body` on a thread of its own inside the namespace, and waits for it.
    ///
    /// # Errors
    /// Those of entering, and of `body`.
    ///
    /// # Panics
    /// Where `body` does.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_thread(|| {
            self.enter()?;
            body()
        })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Makes [`DIR`] fit for namespaces: a mount of its own that propagates, so that what is
/// mounted there is seen, and let go of, in other mount namespaces too. As iproute2 does
/// (`ip/ipnetns.c`, `create_netns_dir`).
///
/// # Errors
/// What the kernel said.
pub fn prepare_dir() -> io::Result<()> {
    std::fs::create_dir_all(DIR)?;
    let share = || mount(Some(""), DIR, Some("none"), MsFlags::MS_SHARED | MsFlags::MS_REC, NONE);
    match share() {
        Err(Errno::EINVAL) => {
            mount(Some(DIR), DIR, Some("none"), MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
            Ok(share()?)
        }
        done => Ok(done?),
    }
}

const NONE: Option<&str> = None;

/// A thread of its own, since a thread that changed its namespace is of no further use.
fn on_thread<T: Send>(body: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, body)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
