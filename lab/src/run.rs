//! The processes of a lab: what they are started with, and where they write.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use selvedge_topology::NodeName;

use crate::cable;
use crate::error::{Doing as _, LabError, Result};
use crate::names::{self, ProcessName};
use crate::netns::NetNs;
use crate::process::{self, Pid};
use crate::several;
use crate::state::{Cable, Control, State};

/// The controller's management address; a switch's is 192.0.2.N (RFC 5737, TEST-NET-1).
pub(crate) const CONTROLLER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Where switches register.
pub(crate) const SOUTHBOUND: u16 = 9558;
/// From a controller's port to the next one's.
const FURTHER: u16 = 100;
/// Where switches serve P4Runtime (IANA).
pub(crate) const P4RUNTIME: u16 = 9559;

/// In the run directory.
pub(crate) const TOPOLOGY: &str = "topology.yaml";
pub(crate) const LOGS: &str = "logs";
const PKI: &str = "pki";
const STORE: &str = "controller.redb";

pub(crate) fn switch_address(number: u8) -> Ipv4Addr {
    let [a, b, c, _] = CONTROLLER.octets();
    Ipv4Addr::new(a, b, c, number)
}

pub(crate) fn log(lab: &NodeName, process: &ProcessName) -> PathBuf {
    names::run_dir(lab).join(LOGS).join(process.file_stem()).with_extension("log")
}

/// Every process that the lab is to have, in the order they are started.
pub(crate) fn wanted(state: &State) -> Vec<ProcessName> {
    let node = |name: &str| name.parse::<NodeName>().expect("nodes have names");
    let mut wanted = Vec::new();
    for link in &state.links {
        wanted.extend(link.wire.filter(|_| link.figures.relayed()).map(ProcessName::Wire));
    }
    if state.control == Control::Controller {
        wanted.extend(several::members(state).map(ProcessName::Etcd));
        wanted.extend(several::controllers(state).map(|(_, name)| name));
    }
    if state.control != Control::Cables {
        for (name, _, compute) in state.switches() {
            wanted.push(ProcessName::Switch(node(name)));
            wanted.extend(compute.map(|_| ProcessName::Compute(node(name))));
        }
    }
    wanted
}

/// Starts a process that does not run, and notes its pid in `state`; the caller writes that.
pub(crate) fn start(state: &mut State, name: &ProcessName) -> Result<Pid> {
    if let Some(pid) = state.processes.get(name).filter(|pid| pid.is_alive()) {
        return Err(LabError::Running { process: name.to_string(), pid: pid.pid });
    }
    let (space, args) = command(state, name)?;
    let ns = NetNs::open(&space).doing("open namespace", &space)?;
    let program = matches!(name, ProcessName::Etcd(_)).then_some(several::ETCD);
    let log = log(&state.name, name);
    let pid = process::launch(&ns, &state.binary, program, &args, &log)?;
    state.processes.insert(name.clone(), pid);
    Ok(pid)
}

/// Waits until the relay of a wire is at work, or has died.
pub(crate) fn relaying(state: &State, link: &Cable) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(10);

    let Some(wire) = link.wire.filter(|_| link.figures.relayed()) else { return Ok(()) };
    let name = ProcessName::Wire(wire);
    let pid = state.processes.get(&name).copied();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let alive = pid.filter(|pid| pid.is_alive());
        let log = || process::tail(&log(&state.name, &name));
        match alive {
            Some(pid) if cable::is_relayed(link, pid) => return Ok(()),
            None => return Err(LabError::Died { process: name.to_string(), log: log() }),
            Some(_) if Instant::now() > deadline => {
                let missing = format!("{name} to relay");
                return Err(LabError::Deadline { after: PATIENCE, missing, log: log() });
            }
            Some(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// (namespace, arguments to the binary).
fn command(state: &State, name: &ProcessName) -> Result<(String, Vec<String>)> {
    let lab = &state.name;
    let dir = names::run_dir(lab);
    let path = |name: &str| dir.join(name).display().to_string();
    let socket = |node: &NodeName| path(&format!("compute-{node}.sock"));
    let unknown = || LabError::NoSuchProcess(name.to_string());
    let switch = |node: &NodeName| {
        let found = state.switches().find(|(name, ..)| *name == node.as_str());
        found.map(|(_, number, compute)| (number, compute)).ok_or_else(unknown)
    };
    Ok(match name {
        ProcessName::Controller => (names::management_namespace(lab), controller(state, 1)),
        ProcessName::FurtherController(number) => {
            (names::management_namespace(lab), controller(state, *number))
        }
        ProcessName::Etcd(number) => {
            (names::management_namespace(lab), several::member(lab, *number))
        }
        ProcessName::Switch(node) => {
            let (number, compute) = switch(node)?;
            let space = names::namespace(lab, node.as_str());
            let address = format!("{}:{P4RUNTIME}", switch_address(number));
            let mut args = words(["switch", "--name", node.as_str(), "--instance", &space]);
            args.extend(words(["--ports", ports(state, node), "--p4runtime", &address]));
            args.extend(words(["--run-dir", &path(&format!("switch-{node}"))]));
            if state.control == Control::Unmanaged {
                args.extend(words(["--unmanaged"]));
            } else {
                args.extend(words(["--tls", &path(PKI)]));
                for (number, _) in several::controllers(state) {
                    let controller = format!("https://{}", southbound(number));
                    args.extend(words(["--controller", &controller]));
                }
            }
            if !state.metering {
                args.extend(words(["--no-metering"]));
            }
            if let Some(compute) = compute {
                let (cpu, memory) = (compute.cpu.to_string(), compute.memory_bytes.to_string());
                args.extend(words(["--compute-socket", &socket(node), "--cpu", &cpu]));
                args.extend(words(["--memory", &memory]));
            }
            (space, args)
        }
        ProcessName::Compute(node) => {
            switch(node)?.1.ok_or_else(unknown)?;
            let args = words(["compute", "--socket", &socket(node)]);
            (names::namespace(lab, node.as_str()), args)
        }
        ProcessName::Wire(wire) => {
            let link = state.links.iter().find(|link| link.wire == Some(*wire));
            let figures = link.ok_or_else(unknown)?.figures;
            let (delay, loss) = (figures.delay().to_string(), figures.loss().to_string());
            let mut args = words(["lab", "wire", "--delay", &delay, "--loss", &loss]);
            args.extend(words(["--seed", &wire.to_string()]));
            (names::wire_namespace(lab, *wire), args)
        }
    })
}

fn controller(state: &State, number: u8) -> Vec<String> {
    let lab = &state.name;
    let path = |name: &str| names::run_dir(lab).join(name).display().to_string();
    let api = names::controller_socket(lab, number).display().to_string();
    let store = several::store(state).unwrap_or_else(|| path(STORE));
    let mut args = words(["controller", "--topology", &path(TOPOLOGY)]);
    args.extend(words(["--store", &store, "--tls", &path(PKI)]));
    args.extend(words(["--southbound", &southbound(number), "--api-socket", &api]));
    if let Some(dir) = &state.intent {
        args.extend(words(["--intent", &dir.display().to_string()]));
    }
    args
}

/// Where a controller listens for switches.
fn southbound(number: u8) -> String {
    let port = SOUTHBOUND + FURTHER * (u16::from(number) - 1);
    format!("{CONTROLLER}:{port}")
}

pub(crate) fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

/// Which interfaces of the switch are ports, those that come later with `lab move` included.
fn ports(state: &State, node: &NodeName) -> &'static str {
    let plugs = state.links.iter().flat_map(|link| [&link.a, &link.b]);
    let mut own = plugs.filter(|plug| plug.node == *node);
    if own.all(|plug| plug.port.as_str().starts_with('p')) { "p*" } else { "*" }
}

/// Has the binary make an authority, and certificates for the controller and each switch; in
/// the management namespace, where taking the lab down would find it.
pub(crate) fn certificates(state: &State) -> Result<()> {
    let dir = names::run_dir(&state.name).join(PKI);
    let mut command = Command::new(&state.binary);
    command.args(["pki", "init"]).arg(&dir);
    command.args(["--node", &format!("controller={CONTROLLER}")]);
    for (name, number, _) in state.switches() {
        command.args(["--node", &format!("{name}={}", switch_address(number))]);
    }
    let space = names::management_namespace(&state.name);
    let ns = NetNs::open(&space).doing("open namespace", &space)?;
    let run = || command.stdin(Stdio::null()).output();
    let output = ns.run(run).doing("start", state.binary.display())?;
    if output.status.success() {
        return Ok(());
    }
    let log = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
    Err(LabError::Died { process: "pki init".to_owned(), log })
}

/// # Errors
/// [`LabError::Privilege`] without CAP_NET_ADMIN or CAP_SYS_ADMIN (capabilities(7)).
pub(crate) fn privileged() -> Result<()> {
    const CAP_NET_ADMIN: u64 = 1 << 12;
    const CAP_SYS_ADMIN: u64 = 1 << 21;

    let held = effective_capabilities(Path::new("/proc/thread-self/status")).unwrap_or(0);
    let needed = CAP_NET_ADMIN | CAP_SYS_ADMIN;
    if held & needed == needed { Ok(()) } else { Err(LabError::Privilege) }
}

/// The `CapEff` line of a status file (proc_pid_status(5)).
pub(crate) fn effective_capabilities(status: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}
