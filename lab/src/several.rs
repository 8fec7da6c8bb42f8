//! Several controllers, and the etcd cluster that they share: three members on loopback addresses
//! of the management namespace, with their data in the run directory.

use std::env;
use std::io;
use std::path::PathBuf;

use selvedge_topology::NodeName;

use crate::error::{LabError, Result};
use crate::names::{self, ProcessName};
use crate::run::words;
use crate::state::State;
use crate::status::{self, Status};

/// The program.
pub(crate) const ETCD: &str = "etcd";
/// One may be missing.
const MEMBERS: u8 = 3;
/// Where members serve clients, and each other (IANA).
const CLIENTS: u16 = 2379;
const PEERS: u16 = 2380;

/// # Errors
/// [`LabError::Tool`] where etcd is not installed.
pub(crate) fn needs_etcd() -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|dir| dir.join(ETCD).is_file());
    let missing = LabError::Tool { tool: ETCD, fix: "apt-get install etcd-server" };
    if found { Ok(()) } else { Err(missing) }
}

/// Numbers of etcd's members; none for a single controller.
pub(crate) fn members(state: &State) -> impl Iterator<Item = u8> {
    1..=(if state.controllers > 1 { MEMBERS } else { 0 })
}

/// Number and process of each controller.
pub(crate) fn controllers(state: &State) -> impl Iterator<Item = (u8, ProcessName)> {
    (1..=state.controllers).map(|number| match number {
        1 => (number, ProcessName::Controller),
        _ => (number, ProcessName::FurtherController(number)),
    })
}

/// For `--store`; `None`: a single controller keeps a file.
pub(crate) fn store(state: &State) -> Option<String> {
    let members: Vec<_> = members(state).map(|n| format!("127.0.0.{n}:{CLIENTS}")).collect();
    (!members.is_empty()).then(|| format!("etcd://{}", members.join(",")))
}

/// Arguments to etcd.
pub(crate) fn member(lab: &NodeName, number: u8) -> Vec<String> {
    let name = |number: u8| format!("m{number}");
    let peer = |number: u8| format!("http://127.0.0.{number}:{PEERS}");
    let cluster: Vec<_> = (1..=MEMBERS).map(|n| format!("{}={}", name(n), peer(n))).collect();
    let clients = format!("http://127.0.0.{number}:{CLIENTS}");
    let data = names::run_dir(lab).join(format!("etcd-{number}")).display().to_string();
    let mut args = words(["--name", &name(number), "--data-dir", &data]);
    args.extend(words(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]));
    let peer = peer(number);
    args.extend(words(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]));
    args.extend(words(["--initial-cluster", &cluster.join(","), "--logger", "zap"]));
    // What the largest change and the largest module need; see docs/several-controllers.md.
    args.extend(words(["--max-txn-ops", "65536", "--max-request-bytes", "33554432"]));
    args
}

/// The API's socket of the controller that leads, and what it says.
pub(crate) fn leader(state: &State) -> io::Result<(ProcessName, Status)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no controller leads");
    for (number, name) in controllers(state) {
        match status::status(&names::controller_socket(&state.name, number)) {
            Ok(status) if status.role == "leader" => return Ok((name, status)),
            Ok(_) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// As in [`names::controller_socket`].
pub(crate) fn socket(lab: &NodeName, controller: &ProcessName) -> PathBuf {
    match controller {
        ProcessName::FurtherController(number) => names::controller_socket(lab, *number),
        _ => names::api_socket(lab),
    }
}
