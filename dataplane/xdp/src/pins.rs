//! Where things are pinned: `<pin dir>/v<layout>/{maps,links,programs}/...` on a BPF file
//! system. A pin is what keeps a map, a link or a program when its maker is gone.
//!
//! While another layout is taken over from there are two of these directories, and `next` and
//! `gone` beside them: see [`migrate`].

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use selvedge_ebpf_common::LAYOUT_VERSION;

use crate::migrate::{self, BEFORE};
use crate::{Error, htb, sys};

/// Where every system has its BPF file system.
const BPFFS: &str = "/sys/fs/bpf";

/// Pins of a layout that is not complete, and of one that nothing needs any more.
const NEXT: &str = "next";
const GONE: &str = "gone";

/// What there is.
#[derive(Debug)]
pub(crate) enum Found {
    /// Pins of this layout, or none at all. `before`: some links are still there.
    Own { own: Pins, before: Option<Pins> },
    /// Only those of the layout before.
    Before { before: Pins, next: Pins },
}

#[derive(Clone, Debug)]
pub(crate) struct Pins {
    root: PathBuf,
}

/// What a link carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LinkName {
    /// The entry program of a port or, from `COMPUTE_PORT` on, of a compute port.
    Port(u16),
    /// The socket end of a hook's compute port.
    Socket(u16),
    /// At the kernel's ingress of a port or compute port.
    Shaped(u16),
    /// A tracepoint, by its place in the object's list.
    Tracer(u16),
}

impl LinkName {
    fn text(self) -> String {
        match self {
            Self::Port(port) => format!("port-{port}"),
            Self::Socket(hook) => format!("socket-{hook}"),
            Self::Shaped(port) => format!("shaped-{port}"),
            Self::Tracer(place) => format!("tracer-{place}"),
        }
    }

    fn parse(text: &OsStr) -> Option<Self> {
        let text = text.to_str()?;
        if let Some(port) = text.strip_prefix("port-") {
            port.parse().ok().map(Self::Port)
        } else if let Some(hook) = text.strip_prefix("socket-") {
            hook.parse().ok().map(Self::Socket)
        } else if let Some(port) = text.strip_prefix("shaped-") {
            port.parse().ok().map(Self::Shaped)
        } else {
            text.strip_prefix("tracer-")?.parse().ok().map(Self::Tracer)
        }
    }
}

impl Pins {
    /// What is pinned, after what earlier agents left half made or half removed is gone.
    ///
    /// # Errors
    /// [`Error::OtherLayout`] when there are pins of a layout that is not taken over from.
    pub(crate) fn find(pin_dir: &Path) -> Result<Found, Error> {
        mount_bpffs(pin_dir)?;
        for unfinished in [NEXT, GONE] {
            migrate::remove(&pin_dir.join(unfinished))?;
        }
        let own = format!("v{LAYOUT_VERSION}");
        let (mut has_own, mut before) = (false, None);
        for (name, path) in list(pin_dir)? {
            let Some(version) = name.to_str().and_then(|name| name.strip_prefix('v')) else {
                continue;
            };
            if name.to_str() == Some(&own) {
                has_own = true;
            } else if version == BEFORE.version.to_string() {
                before = Some(Self { root: path });
            } else {
                return Err(Error::OtherLayout { path, found: version.to_owned() });
            }
        }
        Ok(match before {
            Some(before) if !has_own => {
                Found::Before { before, next: Self { root: pin_dir.join(NEXT) } }
            }
            before => Found::Own { own: Self { root: pin_dir.join(own) }, before },
        })
    }

    /// Makes the directories.
    pub(crate) fn make(&self) -> Result<(), Error> {
        for dir in ["maps", "links", "programs"] {
            let path = self.root.join(dir);
            fs::create_dir_all(&path).map_err(Error::path("make the directory", &path))?;
        }
        Ok(())
    }

    /// Makes them those of this layout: in one step, from where they were prepared.
    pub(crate) fn commit(&mut self) -> Result<(), Error> {
        let own = self.root.with_file_name(format!("v{LAYOUT_VERSION}"));
        fs::rename(&self.root, &own).map_err(Error::path("rename", &self.root))?;
        self.root = own;
        Ok(())
    }

    /// Removes all of them: in one step, as whoever looks for them sees it.
    pub(crate) fn retire(&self) -> Result<(), Error> {
        let gone = self.root.with_file_name(GONE);
        fs::rename(&self.root, &gone).map_err(Error::path("rename", &self.root))?;
        migrate::remove(&gone)
    }

    pub(crate) fn remove(&self) -> Result<(), Error> {
        migrate::remove(&self.root)
    }

    /// Takes over the pin of a link.
    pub(crate) fn move_link(&self, name: LinkName, to: &Self) -> Result<(), Error> {
        let path = self.link(name);
        fs::rename(&path, to.link(name)).map_err(Error::path("rename", &path))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.root.join("programs").join(name)
    }

    pub(crate) fn link(&self, name: LinkName) -> PathBuf {
        self.root.join("links").join(name.text())
    }

    pub(crate) fn links(&self) -> Result<Vec<LinkName>, Error> {
        let listed = list(&self.root.join("links"))?;
        let mut links: Vec<_> =
            listed.into_iter().filter_map(|(name, _)| LinkName::parse(&name)).collect();
        links.sort();
        Ok(links)
    }

    /// Programs and tail-call maps.
    pub(crate) fn programs(&self) -> Result<Vec<PathBuf>, Error> {
        let listed = list(&self.root.join("programs"))?;
        Ok(listed.into_iter().map(|(_, path)| path).collect())
    }
}

/// Removes a pin; `false`: there was none.
pub(crate) fn unpin(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::path("remove the pin", path)(source)),
    }
}

/// Takes a pinned link's program off its interface, with the queues that it fills, and removes the
/// pin. When this returns the interface is free. A tracepoint's goes with its pin.
pub(crate) fn remove_link(path: &Path) -> Result<(), Error> {
    match sys::open_pin(path) {
        Ok(link) => {
            if let Some(LinkName::Shaped(_)) = path.file_name().and_then(LinkName::parse) {
                let info = sys::link_info(link.as_fd()).map_err(Error::path("look at", path))?;
                let here = sys::is_at_ingress(info.id, info.ifindex);
                if here.map_err(Error::path("look for", path))? {
                    htb::remove(info.ifindex).map_err(Error::path("empty the queues of", path))?;
                }
            }
            match sys::detach_link(link.as_fd()) {
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                detached => detached.map_err(Error::path("detach", path))?,
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::path("open the pin", path)(source)),
    }
    unpin(path).map(drop)
}

/// Takes a switch off its interfaces: removes every pin under `pin_dir`, of whatever layout,
/// and the directory. Traffic stops. Nothing there is fine.
pub fn remove_all(pin_dir: &Path) -> Result<(), Error> {
    for (_, version) in list(pin_dir)? {
        for (_, link) in list(&version.join("links"))? {
            remove_link(&link)?;
        }
    }
    match fs::remove_dir_all(pin_dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::path("remove the pins under", pin_dir)(source)),
    }
}

/// Entries of a directory; none when there is no directory.
fn list(dir: &Path) -> Result<Vec<(std::ffi::OsString, PathBuf)>, Error> {
    let failed = || Error::path("list", dir);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        // A file where a directory is looked for is not ours.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Vec::new()),
        Err(source) => return Err(failed()(source)),
    };
    entries
        .map(|entry| entry.map(|entry| (entry.file_name(), entry.path())).map_err(failed()))
        .collect()
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.filesystem_type() == BPF_FS_MAGIC)
}

/// Mounts a BPF file system where one belongs, if `path` is to be on it and it is not there.
fn mount_bpffs(path: &Path) -> Result<(), Error> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    if is_bpffs(existing).map_err(Error::path("look at", existing))? {
        return Ok(());
    }
    let mount_point = Path::new(BPFFS);
    let failed = |source| Error::NoBpffs {
        path: path.to_owned(),
        mount_point: mount_point.to_owned(),
        source,
    };
    if !path.starts_with(mount_point) {
        return Err(failed(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    mount(Some("bpf"), mount_point, Some("bpf"), MsFlags::empty(), None::<&str>)
        .map_err(|errno| failed(errno.into()))
}
