//! Bringing a lab up.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};
use selvedge_topology::NodeName;

use crate::cable::{self, Spaces, Work, parallel};
use crate::error::{Doing as _, LabError, Result};
use crate::host::{self, Role};
use crate::lab::Lab;
use crate::names::{self, ProcessName};
use crate::netlink::{CREATE, Request};
use crate::netns::{self, NetNs};
use crate::plan::{self, Note, Plan, Source};
use crate::process;
use crate::state::{self, Control, Lock, NodeState, Phase, State};
use crate::{down, run, several};

/// How to bring a lab up.
pub struct Options {
    pub source: Source,
    /// Of the lab; the topology's where absent.
    pub name: Option<NodeName>,
    pub control: Control,
    /// How many controllers; with more than one their store is three members of etcd.
    pub controllers: u8,
    /// `false`: switches neither drop nor mark for rates.
    pub metering: bool,
    /// Directory whose files are the whole intent of the controller.
    pub intent: Option<PathBuf>,
    /// The `selvedge` binary that processes are started from.
    pub binary: PathBuf,
    /// For all of it, until the controller says that it has converged.
    pub deadline: Duration,
    /// Hears how it goes.
    pub watch: Box<dyn Fn(Event) + Send + Sync>,
    /// Set to have it given up, and what is there already removed.
    pub cancel: Arc<AtomicBool>,
}

/// Most of [`Options::controllers`].
pub const MAX_CONTROLLERS: u8 = 5;

/// Default of [`Options::deadline`].
pub const DEADLINE: Duration = Duration::from_secs(120);

impl Options {
    /// Everything as usual; nobody watches.
    pub fn new(source: impl Into<Source>, binary: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            name: None,
            control: Control::Controller,
            controllers: 1,
            metering: true,
            intent: None,
            binary: binary.into(),
            deadline: DEADLINE,
            watch: Box::new(|_| {}),
            cancel: Arc::new(AtomicBool::new(false)),
        }
    }
}

/// How bringing up goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Note(Note),
    /// `done` of `total` in this step; a step ends where both are equal.
    Step {
        step: Step,
        done: usize,
        total: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Namespaces,
    Links,
    Certificates,
    Processes,
    /// Switches that are as they should be.
    Converged,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "namespaces",
            Self::Links => "links",
            Self::Certificates => "certificates",
            Self::Processes => "processes",
            Self::Converged => "converged",
        })
    }
}

/// Brings a lab up, or leaves nothing of it.
pub(crate) fn up(options: Options) -> Result<Lab> {
    run::privileged()?;
    let Plan { topology, nodes, links, next_index, notes } = plan::plan(&options.source)?;
    let name = options.name.clone().unwrap_or_else(|| topology.name.clone());
    let needs_binary =
        options.control != Control::Cables || links.iter().any(|link| link.figures.relayed());
    let controllers = options.controllers;
    if !(1..=MAX_CONTROLLERS).contains(&controllers) {
        return Err(LabError::Argument {
            given: controllers.to_string(),
            what: "1 to 5 controllers",
        });
    }
    if options.control == Control::Controller && controllers > 1 {
        several::needs_etcd()?;
    }
    if needs_binary {
        options.binary.metadata().doing("start", options.binary.display())?;
    }
    for note in notes {
        (options.watch)(Event::Note(note));
    }

    let file = match &options.source {
        Source::File(path) => fs::canonicalize(path).doing("find", path.display())?,
        Source::Topology(_) => names::run_dir(&name).join(run::TOPOLOGY),
    };
    let binary = options.binary.clone();
    let (control, metering) = (options.control, options.metering);
    let mut state =
        State::new(name, file, binary, control, controllers, metering, next_index, nodes, links);
    state.intent.clone_from(&options.intent);
    let lock = claim(&state)?;

    let mut up = Up { options, state, deadline: Instant::now(), spaces: Spaces::default() };
    up.deadline += up.options.deadline;
    let cancel = Arc::clone(&up.options.cancel);
    let built = up.build(&topology);
    match built {
        Ok(()) => {
            let Up { state, .. } = up;
            drop(lock);
            Ok(Lab::of(&state))
        }
        Err(error) => {
            let Up { state, spaces, .. } = up;
            drop(spaces);
            if let Err(also) = down::remove(&state.name, Some(&state)) {
                tracing::error!(lab = %state.name, error = &also as &dyn std::error::Error,
                    "what was brought up of a lab could not be removed");
            }
            drop(lock);
            // Ctrl-C reaches a child of ours too, whose end then looks like the reason.
            Err(if cancel.load(Ordering::Relaxed) { LabError::Cancelled } else { error })
        }
    }
}

/// Makes sure that every name is free, and writes down that they are this lab's from now on.
fn claim(state: &State) -> Result<Lock> {
    let all = state::lock_all()?;
    let name = &state.name;
    let own = state.namespaces();
    for other in state::names_of_labs()? {
        if other == *name {
            let name = name.clone();
            return Err(match State::read(&other) {
                Ok(state) if state.phase == Phase::Running => LabError::Exists { name },
                Ok(state) if state.owner.is_alive() => {
                    LabError::Busy { name, pid: state.owner.pid }
                }
                _ => LabError::Leftover { name },
            });
        }
        let Ok(theirs) = State::read(&other) else { continue };
        if let Some(object) = theirs.namespaces().into_iter().find(|ns| own.contains(ns)) {
            return Err(LabError::Overlap { lab: name.clone(), other, object });
        }
    }
    netns::prepare_dir().doing("prepare", netns::DIR)?;
    let spaces = own.iter().filter(|ns| netns::exists(ns)).map(|ns| netns::path_of(ns));
    let pins =
        state.instances().map(|instance| names::pin_dir(&instance)).filter(|pin| pin.exists());
    if let Some(object) = spaces.chain(pins).next() {
        return Err(LabError::Taken { object });
    }
    let lock = Lock::create(name)?;
    if let Err(error) = state.write() {
        let _ = fs::remove_dir_all(names::run_dir(name));
        return Err(error);
    }
    drop(all);
    Ok(lock)
}

struct Up {
    options: Options,
    state: State,
    deadline: Instant,
    spaces: Spaces,
}

impl Up {
    fn build(&mut self, topology: &selvedge_topology::Topology) -> Result<()> {
        self.namespaces()?;
        self.links()?;
        let dir = names::run_dir(&self.state.name);
        let file = dir.join(run::TOPOLOGY);
        fs::write(&file, topology.to_yaml()).doing("write", file.display())?;
        fs::create_dir_all(dir.join(run::LOGS)).doing("create", dir.display())?;
        self.processes()?;
        self.converge()?;
        self.check_cancel()?;
        self.state.phase = Phase::Running;
        self.state.write()
    }

    fn step(&self, step: Step, done: usize, total: usize) {
        (self.options.watch)(Event::Step { step, done, total });
    }

    fn check_cancel(&self) -> Result<()> {
        if self.options.cancel.load(Ordering::Relaxed) { Err(LabError::Cancelled) } else { Ok(()) }
    }

    fn namespaces(&mut self) -> Result<()> {
        let lab = &self.state.name;
        let role = |node: &NodeState| match node {
            NodeState::Switch { .. } => Role::Switch,
            NodeState::Host { .. } => Role::Host,
        };
        let nodes =
            self.state.nodes.iter().map(|(name, node)| (names::namespace(lab, name), role(node)));
        let wires = self.state.links.iter().filter_map(|link| link.wire);
        let wires = wires.map(|wire| (names::wire_namespace(lab, wire), Role::Wire));
        let management = (names::management_namespace(lab), Role::Management);
        let wanted: Vec<_> = nodes.chain(wires).chain([management]).collect();

        let total = wanted.len();
        let made = std::sync::Mutex::new(Vec::with_capacity(total));
        self.step(Step::Namespaces, 0, total);
        parallel(wanted, |(name, role)| {
            self.check_cancel()?;
            let ns = space(&name, role)?;
            let mut made = made.lock().expect("no thread panics holding it");
            made.push(ns);
            self.step(Step::Namespaces, made.len(), total);
            Ok(())
        })?;
        for ns in made.into_inner().expect("no thread panicked") {
            self.spaces.insert(ns);
        }
        Ok(())
    }

    fn links(&mut self) -> Result<()> {
        let total = self.state.links.len();
        self.step(Step::Links, 0, total);
        let mut work = Work::default();
        management(&mut work, &self.state, &self.spaces);
        work.run(&self.spaces)?;
        let mut done = 0;
        for some in self.state.links.chunks(16) {
            self.check_cancel()?;
            let mut work = Work::default();
            for link in some {
                cable::lay(&mut work, &self.state, link, &self.spaces, None);
            }
            work.run(&self.spaces)?;
            done += some.len();
            self.step(Step::Links, done, total);
        }
        Ok(())
    }

    fn processes(&mut self) -> Result<()> {
        let wanted = run::wanted(&self.state);
        let total = wanted.len();
        if self.state.control != Control::Cables && prepare_bpffs()? {
            (self.options.watch)(Event::Note(Note::BpffsMounted));
        }
        if self.state.control == Control::Controller {
            let total = self.state.switches().count() + 1; // and the controller's
            self.step(Step::Certificates, 0, total);
            run::certificates(&self.state)?;
            self.step(Step::Certificates, total, total);
        }
        self.step(Step::Processes, 0, total);
        for (index, name) in wanted.into_iter().enumerate() {
            self.check_cancel()?;
            run::start(&mut self.state, &name)?;
            self.step(Step::Processes, index + 1, total);
        }
        self.state.write()
    }

    /// Waits until all is as it should be; a process that ends meanwhile ends the wait.
    fn converge(&self) -> Result<()> {
        self.state.links.iter().try_for_each(|link| run::relaying(&self.state, link))?;
        let total = self.state.switches().count();
        if self.state.control == Control::Cables || total == 0 {
            return Ok(());
        }
        let mut shown = None;
        loop {
            self.check_cancel()?;
            self.all_alive()?;
            let (done, missing) = match self.state.control {
                Control::Controller => match several::leader(&self.state) {
                    Ok((_, status)) if status.converged => (total, String::new()),
                    Ok((_, status)) => {
                        let missing = status.waiting_for.join("; ");
                        (status.switches.ready.min(total.saturating_sub(1)), missing)
                    }
                    Err(error) => (0, format!("the controller does not answer: {error}")),
                },
                _ => self.listening()?,
            };
            if shown != Some(done) {
                self.step(Step::Converged, done, total);
                shown = Some(done);
            }
            if done == total {
                return Ok(());
            }
            if Instant::now() > self.deadline {
                let first = run::wanted(&self.state).into_iter().find(ProcessName::is_controller);
                let log = first.map(|name| process::tail(&run::log(&self.state.name, &name)));
                let after = self.options.deadline;
                return Err(LabError::Deadline { after, missing, log: log.unwrap_or_default() });
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn all_alive(&self) -> Result<()> {
        let dead = self.state.processes.iter().find(|(_, pid)| !pid.is_alive());
        let Some((name, _)) = dead else { return Ok(()) };
        // What it wrote last may be in flight still.
        thread::sleep(Duration::from_millis(20));
        let log = process::tail(&run::log(&self.state.name, name));
        Err(LabError::Died { process: name.to_string(), log })
    }

    /// How many unmanaged switches serve P4Runtime, and which does not.
    fn listening(&self) -> Result<(usize, String)> {
        let ns = self.spaces.get(&names::management_namespace(&self.state.name));
        let deaf = ns.run(|| {
            let deaf = |(_, number, _): &(&str, u8, _)| {
                let address = SocketAddr::from((run::switch_address(*number), run::P4RUNTIME));
                TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err()
            };
            Ok(self.state.switches().filter(deaf).map(|(name, ..)| name).collect::<Vec<_>>())
        });
        let deaf = deaf.doing("connect from", ns.name())?;
        let missing = deaf.first().map(|node| format!("switch {node} does not serve P4Runtime"));
        Ok((self.state.switches().count() - deaf.len(), missing.unwrap_or_default()))
    }
}

/// A new namespace, prepared for its role, with its loopback up.
pub(crate) fn space(name: &str, role: Role) -> Result<NetNs> {
    let ns = NetNs::create(name).doing("create namespace", name)?;
    ns.run(|| host::prepare(role)).doing("prepare namespace", name)?;
    let mut netlink = crate::netlink::Netlink::route(&ns)?;
    netlink.send(vec![cable::set_up(1, true)])?; // lo is always interface 1
    Ok(ns)
}

/// The management network: a bridge that the controller sits on, and one port a switch.
fn management(work: &mut Work, state: &State, spaces: &Spaces) {
    use std::os::fd::{AsFd as _, AsRawFd as _};

    /// Interface indices; a switch's number is added to the last two.
    const BRIDGE: u32 = 2;
    const PORTS: u32 = 10;
    const SWITCHES: u32 = 500;

    let name = names::management_namespace(&state.name);
    let ns = spaces.get(&name);
    let fd = ns.as_fd().as_raw_fd();
    let bridge = LinkBridge::new("br0").index(BRIDGE).setns_by_fd(fd).build();
    work.pair(Request::new(
        "make the management bridge",
        CREATE,
        RouteNetlinkMessage::NewLink(bridge),
    ));
    work.then(&name, [host::address(BRIDGE, IpAddr::V4(run::CONTROLLER), 24)]);
    for (node, number, _) in state.switches() {
        let switch = names::namespace(&state.name, node);
        let (near, far) = (PORTS + u32::from(number), SWITCHES + u32::from(number));
        let peer = LinkMessageBuilder::<LinkUnspec>::default()
            .name("mgmt0")
            .index(far)
            .setns_by_fd(spaces.get(&switch).as_fd().as_raw_fd())
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(format!("m{number}"))
            .index(near)
            .setns_by_fd(fd)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let what = format!("join {switch} to the management network");
        work.pair(Request::new(what, CREATE, RouteNetlinkMessage::NewLink(message)));
        work.up(&switch, far);
        let enslave = LinkUnspec::new_with_index(near).controller(BRIDGE).build();
        let what = format!("put {switch} on the management bridge");
        work.then(&name, [Request::new(what, 0, RouteNetlinkMessage::SetLink(enslave))]);
        work.then(&switch, [host::address(far, IpAddr::V4(run::switch_address(number)), 24)]);
    }
}

/// Mounts bpffs where it is missing; true when it was.
pub fn prepare_bpffs() -> Result<bool> {
    const DIR: &str = "/sys/fs/bpf";

    if is_bpffs(Path::new(DIR)) {
        return Ok(false);
    }
    mount(Some("bpf"), DIR, Some("bpf"), MsFlags::empty(), None::<&str>)
        .doing("mount bpffs at", DIR)?;
    Ok(true)
}

pub(crate) fn is_bpffs(path: &Path) -> bool {
    let kind = nix::sys::statfs::statfs(path).map(|fs| fs.filesystem_type());
    kind == Ok(nix::sys::statfs::BPF_FS_MAGIC)
}

const _: () = assert!(run::CONTROLLER.octets()[3] == 1, "switches are numbered from 2");
