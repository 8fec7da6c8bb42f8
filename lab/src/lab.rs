//! A lab that is up.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use selvedge_topology::{End, NodeName};

use crate::error::{Doing as _, LabError, Result};
use crate::names::{self, ProcessName};
use crate::netns::NetNs;
use crate::process::{self, Pid};
use crate::state::{self, Control, Lock, NodeState, Phase, State};
use crate::up::Options;
use crate::{Family, run, several};

/// A handle to a lab. Holds nothing: what is known is read from the lab's file for each call, so
/// that several commands can work on one lab.
#[derive(Clone, Debug)]
pub struct Lab {
    name: NodeName,
}

/// Takes the lab down when it goes out of scope, also by a panic: for tests.
#[derive(Debug)]
pub struct Guard(Lab);

/// A line of [`list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub name: NodeName,
    /// `None` where the lab's file is missing or not ours: what a crash left.
    pub phase: Option<Phase>,
    /// The process that brings it up or down at this moment.
    pub busy: Option<u32>,
    pub file: Option<PathBuf>,
    pub control: Option<Control>,
    pub switches: usize,
    pub hosts: usize,
    pub links: usize,
    /// (running, wanted)
    pub processes: (usize, usize),
}

impl Summary {
    pub fn is_running(&self) -> bool {
        self.phase == Some(Phase::Running)
    }

    /// Not up, and nobody is bringing it up or down: left by a crash.
    pub fn is_leftover(&self) -> bool {
        !self.is_running() && self.busy.is_none()
    }
}

/// All labs on this machine, leftovers included.
///
/// # Errors
/// Where the run directory cannot be read.
pub fn list() -> Result<Vec<Summary>> {
    let summary = |name: NodeName| match State::read(&name) {
        Ok(state) => {
            let wanted = run::wanted(&state);
            let runs = |name| state.processes.get(name).is_some_and(|pid: &Pid| pid.is_alive());
            Summary {
                name,
                phase: Some(state.phase),
                busy: Some(state.owner.pid)
                    .filter(|_| state.phase != Phase::Running && state.owner.is_alive()),
                file: Some(state.file.clone()),
                control: Some(state.control),
                switches: state.switches().count(),
                hosts: state.hosts().count(),
                links: state.links.len(),
                processes: (wanted.iter().filter(|name| runs(name)).count(), wanted.len()),
            }
        }
        Err(_) => Summary {
            name,
            phase: None,
            busy: None,
            file: None,
            control: None,
            switches: 0,
            hosts: 0,
            links: 0,
            processes: (0, 0),
        },
    };
    Ok(state::names_of_labs()?.into_iter().map(summary).collect())
}

impl Lab {
    /// Brings a lab up: namespaces, links, processes; returns when all of it is ready.
    ///
    /// # Errors
    /// Any but those about single nodes; nothing of the lab is left then.
    pub fn up(options: Options) -> Result<Self> {
        crate::up::up(options)
    }

    /// A lab that is up.
    ///
    /// # Errors
    /// [`LabError::NoSuchLab`]; [`LabError::Leftover`] where it is not whole.
    pub fn open(name: &NodeName) -> Result<Self> {
        let state = State::read(name)?;
        let name = name.clone();
        match state.phase {
            Phase::Running => Ok(Self { name }),
            _ if state.owner.is_alive() => Err(LabError::Busy { name, pid: state.owner.pid }),
            _ => Err(LabError::Leftover { name }),
        }
    }

    /// The only lab that is up.
    ///
    /// # Errors
    /// [`LabError::NoLab`], [`LabError::SeveralLabs`].
    pub fn only() -> Result<Self> {
        let labs = list()?.into_iter().filter(Summary::is_running).map(|lab| lab.name);
        let mut labs: Vec<_> = labs.collect();
        match labs.len() {
            0 => Err(LabError::NoLab),
            1 => Ok(Self { name: labs.remove(0) }),
            _ => Err(LabError::SeveralLabs(labs)),
        }
    }

    pub(crate) fn of(state: &State) -> Self {
        Self { name: state.name.clone() }
    }

    /// See [`crate::down`].
    ///
    /// # Errors
    /// As there.
    pub fn down(self) -> Result<()> {
        crate::down::down(&self.name)
    }

    pub fn guard(self) -> Guard {
        Guard(self)
    }

    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// `/run/selvedge/<lab>`: the controller's `api.sock`, `pki/`, `logs/`, `topology.yaml`.
    pub fn run_dir(&self) -> PathBuf {
        names::run_dir(&self.name)
    }

    pub fn api_socket(&self) -> PathBuf {
        names::api_socket(&self.name)
    }

    /// The controllers, and where each serves the operator API; none where the lab has none.
    ///
    /// # Errors
    /// Where the lab is gone.
    pub fn controllers(&self) -> Result<Vec<(ProcessName, PathBuf)>> {
        let state = self.state()?;
        let controllers = several::controllers(&state).map(|(_, name)| name);
        let with_socket = |name: ProcessName| {
            let socket = several::socket(&self.name, &name);
            (name, socket)
        };
        Ok(controllers.filter(|_| state.control == Control::Controller).map(with_socket).collect())
    }

    /// The controller that leads and says so, if one does at this moment.
    ///
    /// # Errors
    /// Where the lab is gone.
    pub fn leader(&self) -> Result<Option<ProcessName>> {
        Ok(several::leader(&self.state()?).ok().map(|(name, _)| name))
    }

    pub(crate) fn state(&self) -> Result<State> {
        State::read(&self.name)
    }

    /// Changes the lab under its lock, and writes down what came of it, also of a failure.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let _lock = Lock::of(&self.name)?;
        let mut state = self.state()?;
        let changed = change(&mut state);
        state.write()?;
        changed
    }

    /// Names of all hosts, sorted.
    ///
    /// # Errors
    /// Where the lab is gone.
    pub fn hosts(&self) -> Result<Vec<String>> {
        Ok(self.state()?.hosts().map(|(name, ..)| name.to_owned()).collect())
    }

    /// Names of all switches, sorted.
    ///
    /// # Errors
    /// Where the lab is gone.
    pub fn switches(&self) -> Result<Vec<String>> {
        Ok(self.state()?.switches().map(|(name, ..)| name.to_owned()).collect())
    }

    /// A host's address.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`], [`LabError::NotAHost`], [`LabError::NoAddress`].
    pub fn address(&self, host: &str, family: Family) -> Result<IpAddr> {
        address(&self.state()?, host, family)
    }

    /// A node's namespace; `mgmt` is that of the management network.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`].
    pub fn netns(&self, node: &str) -> Result<NetNs> {
        if node != names::MANAGEMENT {
            self.state()?.node(node)?;
        }
        let name = names::namespace(&self.name, node);
        NetNs::open(&name).doing("open namespace", &name)
    }

    /// Does something on a thread inside a node's namespace; sockets made there stay in it.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`]; those of `body`.
    pub fn run<T: Send>(
        &self,
        node: &str,
        body: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<T> {
        self.netns(node)?.run(body).doing("work in", node)
    }

    /// Starts a command in a node's namespace.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`]; where it cannot be started.
    pub fn spawn(&self, node: &str, command: &mut Command) -> Result<Child> {
        let program = command.get_program().to_string_lossy().into_owned();
        self.netns(node)?.run(|| command.spawn()).doing("start", program)
    }

    /// Runs a command in a node's namespace, with the caller's terminal.
    ///
    /// # Errors
    /// As [`Lab::spawn`].
    pub fn exec(&self, node: &str, command: &[&str]) -> Result<ExitStatus> {
        let mut child = self.spawn(node, &mut self.command(command)?)?;
        child.wait().doing("wait for", command[0])
    }

    /// Runs a command in a node's namespace and collects what it prints.
    ///
    /// # Errors
    /// As [`Lab::spawn`].
    pub fn output(&self, node: &str, command: &[&str]) -> Result<Output> {
        let mut process = self.command(command)?;
        self.netns(node)?.run(|| process.output()).doing("start", command[0])
    }

    /// As [`Lab::output`], without input; `None` where `stop` came true before the command had
    /// ended, which is then killed with all that it started.
    ///
    /// # Errors
    /// As [`Lab::spawn`].
    pub fn output_until(
        &self,
        node: &str,
        command: &[&str],
        stop: impl Fn() -> bool,
    ) -> Result<Option<Output>> {
        let mut process = self.command(command)?;
        process::collected(&mut process);
        let child = self.netns(node)?.run(|| process.spawn()).doing("start", command[0])?;
        process::output_until(child, stop).doing("wait for", command[0])
    }

    fn command(&self, command: &[&str]) -> Result<Command> {
        let [program, args @ ..] = command else {
            return Err(LabError::Argument { given: String::new(), what: "a command" });
        };
        let mut command = Command::new(program);
        command.args(args).env("SELVEDGE_LAB", self.name.as_str());
        Ok(command)
    }

    /// All processes of the lab, with those that run.
    ///
    /// # Errors
    /// Where the lab is gone.
    pub fn processes(&self) -> Result<Vec<(ProcessName, Option<Pid>)>> {
        let state = self.state()?;
        let running = |name: &ProcessName| state.processes.get(name).filter(|pid| pid.is_alive());
        Ok(run::wanted(&state)
            .into_iter()
            .map(|name| {
                let pid = running(&name).copied();
                (name, pid)
            })
            .collect())
    }

    /// The log of a process.
    pub fn log(&self, process: &ProcessName) -> PathBuf {
        run::log(&self.name, process)
    }

    /// Kills a process, or asks it to end, and waits until it has. True when it ran.
    ///
    /// # Errors
    /// [`LabError::NoSuchProcess`].
    pub fn stop(&self, name: &ProcessName, signal: Signal) -> Result<bool> {
        let state = self.state()?;
        if !run::wanted(&state).contains(name) {
            return Err(LabError::NoSuchProcess(name.to_string()));
        }
        let Some(pid) = state.processes.get(name).filter(|pid| pid.is_alive()) else {
            return Ok(false);
        };
        pid.signal(signal).doing("signal", name)?;
        if process::gone(&[*pid], Duration::from_secs(10)) {
            Ok(true)
        } else {
            let missing = format!("{name} to end");
            Err(LabError::Deadline { after: Duration::from_secs(10), missing, log: Vec::new() })
        }
    }

    /// Kills a process on the spot (SIGKILL). True when it ran.
    ///
    /// # Errors
    /// [`LabError::NoSuchProcess`].
    pub fn kill(&self, name: &ProcessName) -> Result<bool> {
        self.stop(name, Signal::SIGKILL)
    }

    /// Starts a process that does not run.
    ///
    /// # Errors
    /// [`LabError::NoSuchProcess`], [`LabError::Running`].
    pub fn start(&self, name: &ProcessName) -> Result<Pid> {
        self.change(|state| {
            if run::wanted(state).contains(name) {
                run::start(state, name)
            } else {
                Err(LabError::NoSuchProcess(name.to_string()))
            }
        })
    }

    /// The switch port that a host hangs on.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`], [`LabError::NotAHost`]; [`LabError::NoSuchLink`] for a host
    /// without a link.
    pub fn attachment(&self, host: &str) -> Result<End> {
        let state = self.state()?;
        let node = host_name(&state, host)?;
        let none = || LabError::NoSuchLink { a: host.to_owned(), b: "a switch".to_owned() };
        let link = &state.links[state.host_link(&node).ok_or_else(none)?];
        Ok(if link.a.node == node { link.b.end() } else { link.a.end() })
    }
}

pub(crate) fn host_name(state: &State, host: &str) -> Result<NodeName> {
    match state.node(host)? {
        (name, NodeState::Host { .. }) => Ok(name),
        (node, NodeState::Switch { .. }) => Err(LabError::NotAHost { node }),
    }
}

pub(crate) fn address(state: &State, host: &str, family: Family) -> Result<IpAddr> {
    let node = host_name(state, host)?;
    let (_, ipv4, ipv6) =
        state.hosts().find(|(name, ..)| *name == host).expect("a host, as checked");
    let address = match family {
        Family::V4 => ipv4.map(IpAddr::V4),
        Family::V6 => ipv6.map(IpAddr::V6),
    };
    address.ok_or(LabError::NoAddress { node, family })
}

impl std::ops::Deref for Guard {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        match crate::down::down(&self.0.name) {
            Ok(()) | Err(LabError::NoSuchLab { .. }) => {}
            Err(error) => eprintln!("lab {} could not be taken down: {error:?}", self.0.name),
        }
    }
}
