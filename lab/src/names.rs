//! What a lab's things are called, and where they lie.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use selvedge_topology::{End, NodeName};
use serde::{Deserialize, Serialize};

use crate::error::{LabError, Result};

/// Run directories, one a lab.
pub const RUN_DIR: &str = "/run/selvedge";
/// Pins of switches, one directory an instance.
pub const PIN_DIR: &str = "/sys/fs/bpf/selvedge";

/// `/run/selvedge/<lab>`.
pub fn run_dir(lab: &NodeName) -> PathBuf {
    Path::new(RUN_DIR).join(lab.as_str())
}

/// The operator API of the controller; of several, of the first.
pub fn api_socket(lab: &NodeName) -> PathBuf {
    controller_socket(lab, 1)
}

/// The operator API of the controller with this number, from 1.
pub(crate) fn controller_socket(lab: &NodeName, number: u8) -> PathBuf {
    match number {
        1 => run_dir(lab).join("api.sock"),
        _ => run_dir(lab).join(format!("api-{number}.sock")),
    }
}

/// Name of a node's namespace, and of its instance.
pub fn namespace(lab: &NodeName, node: &str) -> String {
    format!("{lab}-{node}")
}

pub(crate) fn management_namespace(lab: &NodeName) -> String {
    namespace(lab, MANAGEMENT)
}

/// No node may be called so.
pub(crate) const MANAGEMENT: &str = "mgmt";

pub(crate) fn wire_namespace(lab: &NodeName, wire: u32) -> String {
    format!("{lab}-w{wire}")
}

pub(crate) fn pin_dir(instance: &str) -> PathBuf {
    Path::new(PIN_DIR).join(instance)
}

/// A process of a lab. Text form: `controller`, `controller 2`, `etcd 1`, `switch s1`,
/// `compute edge1`, `wire 3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum ProcessName {
    /// The only one, or the first of several.
    Controller,
    /// From the second on: 2, 3, ...
    FurtherController(u8),
    /// A member of the store of several controllers, from 1.
    Etcd(u8),
    Switch(NodeName),
    Compute(NodeName),
    /// Relays the frames of a wire that delays or loses.
    Wire(u32),
}

impl ProcessName {
    pub(crate) fn is_controller(&self) -> bool {
        matches!(self, Self::Controller | Self::FurtherController(_))
    }

    /// Its log's file name, without the extension.
    pub(crate) fn file_stem(&self) -> String {
        self.to_string().replace(' ', "-")
    }
}

impl fmt::Display for ProcessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller => f.write_str("controller"),
            Self::FurtherController(number) => write!(f, "controller {number}"),
            Self::Etcd(number) => write!(f, "etcd {number}"),
            Self::Switch(node) => write!(f, "switch {node}"),
            Self::Compute(node) => write!(f, "compute {node}"),
            Self::Wire(wire) => write!(f, "wire {wire}"),
        }
    }
}

impl FromStr for ProcessName {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || LabError::NoSuchProcess(text.to_owned());
        match text.split_once(' ') {
            None if text == "controller" => Ok(Self::Controller),
            Some(("controller", number)) => match number.parse() {
                Ok(number) if number >= 2 => Ok(Self::FurtherController(number)),
                _ => Err(unknown()),
            },
            Some(("etcd", number)) => number.parse().map(Self::Etcd).map_err(|_| unknown()),
            Some(("switch", node)) => node.parse().map(Self::Switch).map_err(|_| unknown()),
            Some(("compute", node)) => node.parse().map(Self::Compute).map_err(|_| unknown()),
            Some(("wire", wire)) => wire.parse().map(Self::Wire).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl From<ProcessName> for String {
    fn from(name: ProcessName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for ProcessName {
    type Error = LabError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// `NODE:PORT`.
pub fn end(text: &str) -> Result<End> {
    let parsed = text
        .split_once(':')
        .and_then(|(node, port)| Some(End { node: node.parse().ok()?, port: port.parse().ok()? }));
    parsed.ok_or_else(|| LabError::NotAPort { given: text.to_owned() })
}

/// Names as text in lab files: the topology crate knows nothing of JSON.
pub(crate) mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_names() {
        for name in
            ["controller", "controller 2", "etcd 1", "switch s1", "compute edge-1", "wire 12"]
        {
            assert_eq!(name.parse::<ProcessName>().unwrap().to_string(), name);
        }
        for bad in ["", "switch", "switch ", "switch S1", "wire x", "controller 1", "agent s1"] {
            assert!(bad.parse::<ProcessName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ends() {
        assert_eq!(end("gnb2:p3").unwrap().to_string(), "gnb2:p3");
        for bad in ["", "gnb2", ":p3", "gnb2:", "gnb2:p3:x", "GNB:p1", "gnb2:lo"] {
            assert!(end(bad).is_err(), "{bad:?}");
        }
    }
}
