//! Taking a lab down, whole or what is left of it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use selvedge_topology::NodeName;

use crate::error::{Doing as _, LabError, Result};
use crate::names;
use crate::netns::{self, NetNs};
use crate::process::{self, Pid};
use crate::run;
use crate::state::{self, Lock, Phase, State};

/// How long processes have to end by themselves.
const GRACE: Duration = Duration::from_millis(1500);

/// Removes a lab: processes, pins, namespaces with every link in them, run directory. What is
/// gone already is passed over.
///
/// # Errors
/// [`LabError::NoSuchLab`]; [`LabError::Busy`] while another process changes it; what could not
/// be removed.
pub fn down(name: &NodeName) -> Result<()> {
    run::privileged()?;
    let lock = Lock::of(name)?;
    let state = match State::read(name) {
        Ok(mut state) => {
            state.phase = Phase::Stopping;
            state.owner = Pid::own();
            state.write()?;
            Some(state)
        }
        // Nothing is made before the file is there.
        Err(LabError::NoSuchLab { .. }) => None,
        Err(error) => return Err(error),
    };
    let removed = remove(name, state.as_ref());
    drop(lock);
    removed
}

/// Removes every lab, and says which; the first that could not be is an error after all others
/// have been tried.
///
/// # Errors
/// As [`down`].
pub fn down_all() -> Result<Vec<NodeName>> {
    let (mut removed, mut failed) = (Vec::new(), None);
    for name in state::names_of_labs()? {
        match down(&name) {
            Ok(()) => removed.push(name),
            Err(LabError::NoSuchLab { .. }) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(removed), Err)
}

/// The caller holds the lab's lock.
pub(crate) fn remove(name: &NodeName, state: Option<&State>) -> Result<()> {
    if let Some(state) = state {
        end_processes(state)?;
        for instance in state.instances() {
            let dir = names::pin_dir(&instance);
            remove_tree(&dir).doing("remove pins", dir.display())?;
        }
        for space in state.namespaces() {
            NetNs::delete(&space).doing("remove namespace", netns::path_of(&space).display())?;
        }
    }
    let dir = names::run_dir(name);
    remove_tree(&dir).doing("remove", dir.display())
}

/// Those that were started, and whatever else is inside.
fn end_processes(state: &State) -> Result<()> {
    let mut inodes = Vec::new();
    for space in state.namespaces() {
        match NetNs::open(&space).and_then(|ns| ns.inode()) {
            Ok(inode) => inodes.push(inode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).doing("open namespace", space),
        }
    }
    // A name without a namespace on it is a plain file; no process is in that.
    let mut all: Vec<_> = state.processes.values().copied().filter(|pid| pid.is_alive()).collect();
    for pid in process::inside(&inodes)? {
        if !all.contains(&pid) {
            all.push(pid);
        }
    }
    process::end(&all, GRACE)?;
    // One that was being started in that moment.
    process::end(&process::inside(&inodes)?, Duration::ZERO)
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
