//! What is known of a lab: `lab.json` in its run directory, and the lock on that directory.
//!
//! The file names everything the lab owns *before* it is made, so that whatever a crash leaves
//! can be found and removed. It is replaced as a whole, under the lock.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use selvedge_topology::{BitRate, Delay, Loss, NodeName, PortName};
use serde::{Deserialize, Serialize};

use crate::error::{Doing as _, LabError, Result};
use crate::names::{self, ProcessName, text};
use crate::process::Pid;

/// Of `lab.json`.
const VERSION: u32 = 1;
const FILE: &str = "lab.json";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    version: u32,
    #[serde(with = "text")]
    pub(crate) name: NodeName,
    pub(crate) phase: Phase,
    /// Who brings it up, or did.
    pub(crate) owner: Pid,
    pub(crate) file: PathBuf,
    pub(crate) binary: PathBuf,
    pub(crate) control: Control,
    /// Their number, where they are in control; with more than one the store is in etcd.
    #[serde(default = "one")]
    pub(crate) controllers: u8,
    pub(crate) metering: bool,
    /// Files that are the controller's whole intent.
    #[serde(default)]
    pub(crate) intent: Option<PathBuf>,
    /// The next interface index to give away; those of a lab never repeat, see [`Cable`].
    pub(crate) next_index: u32,
    pub(crate) nodes: BTreeMap<String, NodeState>,
    pub(crate) links: Vec<Cable>,
    pub(crate) processes: BTreeMap<ProcessName, Pid>,
}

fn one() -> u8 {
    1
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Starting,
    Running,
    Stopping,
}

/// Who programs the switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// A controller of the lab's own.
    #[default]
    Controller,
    /// Whoever speaks P4Runtime to them: switches run with `--unmanaged`.
    Unmanaged,
    /// No switch runs; there are namespaces and links.
    Cables,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NodeState {
    Switch {
        /// Last byte of its management address.
        number: u8,
        compute: Option<ComputeState>,
    },
    Host {
        ipv4: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Addr>,
        mac: [u8; 6],
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ComputeState {
    pub(crate) cpu: u32,
    pub(crate) memory_bytes: u64,
}

/// A link as it is laid. Interface indices count up from `index`: the end at `a`, its peer in
/// the wire, the peer of `b`, the end at `b`, then the two queues and their far ends where
/// frames are relayed. Both ends of a veth pair thus differ, without which the kernel would
/// hold back the loss of carrier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cable {
    pub(crate) a: Plug,
    pub(crate) b: Plug,
    pub(crate) index: u32,
    /// The number of its wire; `None` for a plain veth.
    pub(crate) wire: Option<u32>,
    pub(crate) figures: Figures,
    pub(crate) up: bool,
}

/// Interface indices that a cable takes.
pub(crate) const INDICES: u32 = 8;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plug {
    #[serde(with = "text")]
    pub(crate) node: NodeName,
    #[serde(with = "text")]
    pub(crate) port: PortName,
}

/// What a wire does to frames, in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) rate_bps: Option<u64>,
    pub(crate) delay_us: u64,
    pub(crate) loss_ppm: u32,
}

impl Figures {
    pub(crate) fn rate(&self) -> Option<BitRate> {
        self.rate_bps.map(BitRate)
    }

    pub(crate) fn delay(&self) -> Delay {
        Delay(self.delay_us)
    }

    pub(crate) fn loss(&self) -> Loss {
        Loss::from_ppm(self.loss_ppm).unwrap_or_default()
    }

    /// Needs the relay process.
    pub(crate) fn relayed(&self) -> bool {
        self.delay_us > 0 || self.loss_ppm > 0
    }
}

impl Plug {
    pub(crate) fn end(&self) -> selvedge_topology::End {
        selvedge_topology::End { node: self.node.clone(), port: self.port.clone() }
    }

    /// `text` is the node, or the node and this port.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.node.as_str() == text || self.to_string() == text
    }
}

impl std::fmt::Display for Plug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.node, self.port)
    }
}

impl std::fmt::Display for Cable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} - {}", self.a, self.b)
    }
}

impl State {
    #[expect(clippy::too_many_arguments, reason = "one caller, and each is a field")]
    pub(crate) fn new(
        name: NodeName,
        file: PathBuf,
        binary: PathBuf,
        control: Control,
        controllers: u8,
        metering: bool,
        next_index: u32,
        nodes: BTreeMap<String, NodeState>,
        links: Vec<Cable>,
    ) -> Self {
        let processes = BTreeMap::new();
        let (version, phase, owner) = (VERSION, Phase::Starting, Pid::own());
        Self {
            version,
            name,
            phase,
            owner,
            file,
            binary,
            control,
            controllers,
            metering,
            intent: None,
            next_index,
            nodes,
            links,
            processes,
        }
    }

    /// # Errors
    /// [`LabError::NoSuchLab`] where there is no such directory or no file in it,
    /// [`LabError::State`] where the file is not one of ours.
    pub(crate) fn read(name: &NodeName) -> Result<Self> {
        let path = names::run_dir(name).join(FILE);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LabError::NoSuchLab { name: name.clone() });
            }
            read => read.doing("read", path.display())?,
        };
        let state: Self = serde_json::from_slice(&bytes).map_err(|source| LabError::State {
            name: name.clone(),
            path: path.clone(),
            source,
        })?;
        if state.version == VERSION && state.name == *name {
            Ok(state)
        } else {
            let source = serde::de::Error::custom("another version, or another lab's");
            Err(LabError::State { name: name.clone(), path, source })
        }
    }

    /// Replaces the file as a whole.
    pub(crate) fn write(&self) -> Result<()> {
        let dir = names::run_dir(&self.name);
        let (new, path) = (dir.join("lab.json.new"), dir.join(FILE));
        let bytes = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        bytes
            .and_then(|bytes| fs::write(&new, bytes))
            .and_then(|()| fs::rename(&new, &path))
            .doing("write", path.display())
    }

    /// Every namespace the lab owns or is about to.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        let nodes = self.nodes.keys().map(|node| names::namespace(&self.name, node));
        let wires = self.links.iter().filter_map(|link| link.wire);
        let wires = wires.map(|wire| names::wire_namespace(&self.name, wire));
        nodes.chain(wires).chain([names::management_namespace(&self.name)]).collect()
    }

    /// Every instance that may have pins.
    pub(crate) fn instances(&self) -> impl Iterator<Item = String> + '_ {
        self.switches().map(|(node, ..)| names::namespace(&self.name, node))
    }

    /// (name, number, compute) of each switch.
    pub(crate) fn switches(&self) -> impl Iterator<Item = (&str, u8, Option<ComputeState>)> {
        self.nodes.iter().filter_map(|(name, node)| match node {
            NodeState::Switch { number, compute } => Some((name.as_str(), *number, *compute)),
            NodeState::Host { .. } => None,
        })
    }

    /// (name, IPv4, IPv6) of each host.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = (&str, Option<Ipv4Addr>, Option<Ipv6Addr>)> {
        self.nodes.iter().filter_map(|(name, node)| match node {
            NodeState::Host { ipv4, ipv6, .. } => Some((name.as_str(), *ipv4, *ipv6)),
            NodeState::Switch { .. } => None,
        })
    }

    pub(crate) fn node(&self, node: &str) -> Result<(NodeName, &NodeState)> {
        match (self.nodes.get(node), node.parse()) {
            (Some(state), Ok(name)) => Ok((name, state)),
            _ => Err(LabError::NoSuchNode {
                lab: self.name.clone(),
                node: node.to_owned(),
                known: self.nodes.keys().filter_map(|name| name.parse().ok()).collect(),
            }),
        }
    }

    /// The index in `links` of the one between `a` and `b`, each a node or NODE:PORT.
    pub(crate) fn link(&self, a: &str, b: &str) -> Result<usize> {
        for text in [a, b] {
            self.node(text.split_once(':').map_or(text, |(node, _)| node))?;
        }
        let joins = |link: &Cable| (link.a.is(a) && link.b.is(b)) || (link.a.is(b) && link.b.is(a));
        let mut found = self.links.iter().enumerate().filter(|(_, link)| joins(link));
        let (a, b) = (a.to_owned(), b.to_owned());
        match (found.next(), found.next()) {
            (Some((index, _)), None) => Ok(index),
            (None, _) => Err(LabError::NoSuchLink { a, b }),
            (Some(_), Some(_)) => Err(LabError::SeveralLinks { a, b }),
        }
    }

    pub(crate) fn host_link(&self, host: &NodeName) -> Option<usize> {
        self.links.iter().position(|link| link.a.node == *host || link.b.node == *host)
    }

    /// Takes interface indices for one more cable.
    pub(crate) fn take_indices(&mut self) -> u32 {
        let index = self.next_index;
        self.next_index += INDICES;
        index
    }

    /// A number that no wire has and that makes no other namespace's name.
    pub(crate) fn free_wire(&self) -> u32 {
        let taken = |wire: u32| {
            self.links.iter().any(|link| link.wire == Some(wire))
                || self.nodes.contains_key(&format!("w{wire}"))
        };
        (1..).find(|wire| !taken(*wire)).expect("fewer links than numbers")
    }
}

/// The lock on a lab, held while it is changed. The kernel lets go of it when its holder dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _dir: File,
}

/// How long a command waits for another one's change.
const PATIENCE: Duration = Duration::from_secs(5);

impl Lock {
    /// Of an existing lab.
    pub(crate) fn of(name: &NodeName) -> Result<Self> {
        let path = names::run_dir(name);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let dir = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(LabError::NoSuchLab { name: name.clone() });
                }
                opened => opened.doing("open", path.display())?,
            };
            match dir.try_lock() {
                // Not one that has been removed since, or removed and made again.
                Ok(()) if same(&dir, &path) => return Ok(Self { _dir: dir }),
                Ok(()) => {}
                Err(TryLockError::Error(error)) => return Err(error).doing("lock", path.display()),
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                    let pid = State::read(name).map_or(0, |state| state.owner.pid);
                    return Err(LabError::Busy { name: name.clone(), pid });
                }
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Makes the run directory and takes its lock. The caller holds the [`lock_all`] lock.
    pub(crate) fn create(name: &NodeName) -> Result<Self> {
        let path = names::run_dir(name);
        fs::create_dir(&path).doing("create", path.display())?;
        Self::of(name)
    }
}

/// The lock on the set of labs, held while one claims its names.
pub(crate) fn lock_all() -> Result<File> {
    fs::create_dir_all(names::RUN_DIR).doing("create", names::RUN_DIR)?;
    let dir = File::open(names::RUN_DIR).doing("open", names::RUN_DIR)?;
    dir.lock().doing("lock", names::RUN_DIR)?;
    Ok(dir)
}

/// Names of all labs that have a run directory, whole or not.
pub(crate) fn names_of_labs() -> Result<Vec<NodeName>> {
    let entries = match fs::read_dir(names::RUN_DIR) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.doing("list", names::RUN_DIR)?,
    };
    let mut labs: Vec<NodeName> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().to_str()?.parse().ok()?;
            entry.file_type().ok()?.is_dir().then_some(name)
        })
        .collect();
    labs.sort();
    Ok(labs)
}

fn same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    match (file.metadata(), path.metadata()) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}
