//! Compute hooks, as the agent sees them (DESIGN §7): what becomes of each ([`state`]), its
//! veth pair ([`port`]), its module kept for the next agent ([`store`]), and the task that
//! talks with the Wasm host over the socket of `selvedge_southbound::compute`.
//!
//! The host has no rights to maps: its AF_XDP sockets come here as descriptors and go into the
//! socket map; our copies are closed at once, so that the host's death empties the map.

pub mod port;
pub mod state;
pub mod store;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use selvedge_pipeline::{Entry, LocalSidAction, LocalSidEntry, OnFailure, TableKind};
use selvedge_southbound::compute::{self, AsyncChannel, AsyncListener};
use selvedge_southbound::selvedge::v1;
use selvedge_xdp as xdp;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use v1::from_host::Message as FromHost;
use v1::to_host::Message as ToHost;

use crate::backend::Tables;
use crate::ports::netlink::Netlink;
use crate::ports::{SharedSwitch, chain, with};
use crate::report::{HookStatus, Report};
use state::{Effect, Hooks, Input, MAX_HOOKS, MapState, Status};
use store::Store;

/// Commands of the controller that wait; the session waits with them when there are more.
pub const COMMANDS: usize = 16;
/// How long a host that does not read may hold the hooks up.
const SEND_LIMIT: Duration = Duration::from_secs(2);
/// Pause after the listener failed.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// From the controller.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Load(v1::LoadHook),
    Unload(u32),
}

/// The hooks' task.
#[derive(Debug)]
pub struct HookTask<T> {
    hooks: Hooks,
    switch: SharedSwitch,
    tables: T,
    netlink: Netlink,
    store: Store,
    report: watch::Sender<Report>,
    host: Option<Host>,
    /// What the host was last told to do when a hook fails.
    on_failure: BTreeMap<u32, v1::HookOnFailure>,
}

#[derive(Debug)]
struct Host {
    channel: AsyncChannel,
    greeted: bool,
}

impl<T: Tables> HookTask<T> {
    /// Takes up what an earlier agent left.
    ///
    /// # Errors
    /// When the stored modules cannot be listed.
    pub async fn new(
        switch: SharedSwitch,
        tables: T,
        netlink: Netlink,
        store: Store,
        report: watch::Sender<Report>,
    ) -> io::Result<Self> {
        let mut task = Self {
            hooks: Hooks::default(),
            switch,
            tables,
            netlink,
            store,
            report,
            host: None,
            on_failure: BTreeMap::new(),
        };
        let mut effects = Vec::new();
        for spec in task.store.all()? {
            let hook = spec.load.hook;
            task.hooks.resume(spec, task.map_state(hook), &mut effects);
        }
        let left = with(&task.switch, |switch| switch.hooks()).unwrap_or_default();
        for hook in left.into_iter().map(|left| u32::from(left.hook)) {
            if task.hooks.spec(hook).is_none() {
                effects.push(Effect::RemovePort(hook));
            }
        }
        let inputs = task.carry_out(effects, None).await;
        debug_assert!(inputs.is_empty(), "reports and removals lead to nothing more");
        Ok(task)
    }

    fn map_state(&self, hook: u32) -> MapState {
        let id = u16::try_from(hook).expect("checked when it was loaded");
        match with(&self.switch, |switch| switch.hook(id)).map(|hook| hook.state) {
            Ok(Some(xdp::HookState::Running)) => MapState::Running,
            Ok(Some(xdp::HookState::Quarantined)) => MapState::Quarantined,
            Ok(Some(xdp::HookState::Down)) => MapState::Down,
            Ok(None) | Err(_) => MapState::Absent,
        }
    }

    /// Runs until the controller's side of `commands` closes.
    pub async fn run(
        mut self,
        listener: AsyncListener,
        mut commands: mpsc::Receiver<Command>,
        mut written: watch::Receiver<u64>,
    ) {
        let grace = tokio::time::sleep(state::GRACE);
        tokio::pin!(grace);
        let mut graced = false;
        loop {
            tokio::select! {
                accepted = listener.accept() => self.accept(accepted).await,
                received = receive(self.host.as_ref()) => self.received(received).await,
                command = commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => return,
                },
                changed = written.changed() => match changed {
                    Ok(()) => self.compare_on_failure().await,
                    Err(_) => return,
                },
                () = &mut grace, if !graced => {
                    graced = true;
                    if self.hooks.is_resuming() {
                        self.step(Input::GraceOver, None).await;
                    }
                }
            }
        }
    }

    async fn accept(&mut self, accepted: io::Result<AsyncChannel>) {
        match accepted {
            Ok(channel) if self.host.is_none() => {
                self.host = Some(Host { channel, greeted: false });
            }
            Ok(_) => tracing::warn!("a second compute process was turned away"),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!("a compute process of another user was turned away");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept the compute process");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    async fn received(&mut self, received: io::Result<Option<(v1::FromHost, Option<OwnedFd>)>>) {
        let (message, fd) = match received {
            Ok(Some((v1::FromHost { message: Some(message) }, fd))) => (message, fd),
            Ok(Some((v1::FromHost { message: None }, _))) => return, // of a later version
            Ok(None) => return self.lose_host("the compute process is gone").await,
            Err(error) => {
                return self.lose_host(&format!("the compute process is gone: {error}")).await;
            }
        };
        let Some(host) = &mut self.host else { return };
        if !host.greeted {
            return match message {
                FromHost::Hello(v1::Hello { protocol: compute::PROTOCOL, pid }) => {
                    host.greeted = true;
                    tracing::info!(pid, "compute process");
                }
                FromHost::Hello(v1::Hello { protocol, .. }) => {
                    let ours = compute::PROTOCOL;
                    let what =
                        format!("the compute process speaks protocol {protocol}, not {ours}");
                    self.lose_host(&what).await;
                }
                _ => self.lose_host("the compute process did not say hello").await,
            };
        }
        match message {
            FromHost::Hello(_) => {}
            FromHost::Running(v1::Running { hook, name, sha256, ifname }) => {
                // Of an interface that is not this hook's, it would see no packet.
                if ifname != port::socket_end(hook) {
                    tracing::warn!(hook, ifname, "a hook runs on another interface than its own");
                }
                match fd {
                    Some(fd) => self.step(Input::Running { hook, name, sha256 }, Some(fd)).await,
                    None => self.lose_host("a running hook came without its socket").await,
                }
            }
            FromHost::Refused(v1::Refused { hook, reason, sha256 }) => {
                self.step(Input::Refused { hook, reason, sha256 }, None).await;
            }
            FromHost::Quarantined(v1::Quarantined { hook, reason, sha256 }) => {
                self.step(Input::Quarantined { hook, reason, sha256 }, None).await;
            }
            FromHost::Unloaded(v1::Unloaded { hook, reason }) => {
                self.step(Input::Unloaded { hook, reason }, None).await;
            }
            FromHost::Announced(v1::Announced {}) => self.step(Input::Announced, None).await,
            FromHost::Stats(stats) => tracing::trace!(?stats, "hook"),
            FromHost::Emitted(v1::Emitted { hook, payload }) => {
                tracing::debug!(hook, bytes = payload.len(), "event of a hook");
            }
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Load(load) => match refusal(&load) {
                None => self.step(Input::Load(store::spec(load)), None).await,
                Some(reason) => {
                    let hook = load.hook;
                    let sha256 = store::spec(load).sha256;
                    let state = v1::hook_state::State::Refused;
                    self.tell(hook, Status { state, reason, sha256 });
                }
            },
            Command::Unload(hook) => self.step(Input::Unload(hook), None).await,
        }
    }

    async fn lose_host(&mut self, reason: &str) {
        if self.host.take().is_some() {
            tracing::warn!(reason, "no compute process");
            self.step(Input::HostGone(reason.to_owned()), None).await;
        }
    }

    /// Entries were written: a hook whose slices now want something else of its failure is
    /// loaded again with that.
    async fn compare_on_failure(&mut self) {
        let hooks: Vec<u32> = self.on_failure.keys().copied().collect();
        if hooks.is_empty() {
            return;
        }
        let wanted = self.wanted_on_failure();
        for hook in hooks {
            if self.on_failure.get(&hook) != Some(&on_failure(&wanted, hook)) {
                self.step(Input::Reload(hook), None).await;
            }
        }
    }

    /// By hook; where slices differ, drop.
    fn wanted_on_failure(&self) -> BTreeMap<u32, OnFailure> {
        let mut wanted = BTreeMap::new();
        for entry in self.tables.entries(TableKind::LocalSid).unwrap_or_default() {
            if let Entry::LocalSid(LocalSidEntry {
                action: LocalSidAction::Compute { hook, on_failure },
                ..
            }) = entry
            {
                let so_far = wanted.entry(hook.0.into()).or_insert(on_failure);
                if on_failure == OnFailure::Drop {
                    *so_far = OnFailure::Drop;
                }
            }
        }
        wanted
    }

    /// One input and all that follows from it.
    async fn step(&mut self, input: Input, mut fd: Option<OwnedFd>) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            self.hooks.handle(input, &mut effects);
            inputs.extend(self.carry_out(effects, fd.take()).await);
        }
    }

    /// Carries effects out in order. Returns what went wrong, as inputs.
    async fn carry_out(&mut self, effects: Vec<Effect>, fd: Option<OwnedFd>) -> Vec<Input> {
        let mut inputs = Vec::new();
        let mut broken = Vec::new(); // hooks whose remaining effects make no sense
        for effect in effects {
            match effect {
                Effect::Store(hook) => self.keep(hook),
                Effect::Forget(hook) => {
                    self.on_failure.remove(&hook);
                    if let Err(error) = self.store.remove(hook) {
                        tracing::warn!(hook, %error, "cannot remove a stored hook");
                    }
                }
                Effect::SetState(hook, _) if broken.contains(&hook) => {}
                Effect::SetState(hook, state) => self.set_state(hook, state),
                Effect::EnsurePort(hook) => {
                    let ensured = port::ensure(hook, &self.switch, &self.netlink).await;
                    if let Err(reason) = ensured {
                        tracing::warn!(hook, reason, "no compute port");
                        broken.push(hook);
                        inputs.push(Input::PortFailed { hook, reason });
                    }
                }
                Effect::RemovePort(hook) => {
                    if let Err(reason) = port::remove(hook, &self.switch, &self.netlink).await {
                        tracing::warn!(hook, reason, "cannot remove a compute port");
                    }
                }
                Effect::TakeSocket(hook) if broken.contains(&hook) => {}
                Effect::TakeSocket(hook) => {
                    let id = u16::try_from(hook).expect("checked when it was loaded");
                    let socket = fd.as_ref().expect("it comes with the input that takes it");
                    let taken =
                        with(&self.switch, |switch| switch.set_hook_socket(id, socket.as_fd()));
                    if let Err(error) = taken {
                        let reason = chain(&error);
                        tracing::warn!(hook, reason, "cannot take a hook's socket");
                        broken.push(hook);
                        inputs.push(Input::PortFailed { hook, reason });
                    }
                }
                Effect::SendLoad(hook) if broken.contains(&hook) => {}
                Effect::SendLoad(hook) => inputs.extend(self.send_load(hook).await),
                Effect::SendUnload(hook) => {
                    let unload = ToHost::Unload(v1::UnloadHook { hook });
                    inputs.extend(self.send(unload, None).await);
                }
                Effect::Report(hook, _) if broken.contains(&hook) => {}
                Effect::Report(hook, status) => self.tell(hook, status),
                Effect::ReportGone(hook) => {
                    self.report.send_modify(|report| drop(report.hooks.remove(&hook)));
                }
            }
        }
        inputs // `fd` is closed here: the map has its own reference
    }

    fn keep(&self, hook: u32) {
        let Some(spec) = self.hooks.spec(hook) else { return };
        if let Err(error) = self.store.put(&spec.load) {
            tracing::warn!(hook, %error, "cannot store a hook; after a restart the controller must");
        }
    }

    fn set_state(&self, hook: u32, state: MapState) {
        let state = match state {
            MapState::Absent => None,
            MapState::Running => Some(xdp::HookState::Running),
            MapState::Down => Some(xdp::HookState::Down),
            MapState::Quarantined => Some(xdp::HookState::Quarantined),
        };
        let id = u16::try_from(hook).expect("checked when it was loaded");
        if let Err(error) = with(&self.switch, |switch| switch.set_hook_state(id, state)) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(hook, error, "cannot set the state of a hook");
        }
    }

    async fn send_load(&mut self, hook: u32) -> Option<Input> {
        let spec = self.hooks.spec(hook)?;
        let on_failure = on_failure(&self.wanted_on_failure(), hook);
        let load = v1::Load {
            hook: Some(v1::LoadHook { module: Default::default(), ..spec.load.clone() }),
            ifname: port::socket_end(hook),
            on_failure: on_failure.into(),
        };
        let memfd = match compute::module_memfd(&spec.load.module) {
            Ok(memfd) => memfd,
            Err(error) => {
                let reason = format!("no memory for the module: {error}");
                return Some(Input::PortFailed { hook, reason });
            }
        };
        self.on_failure.insert(hook, on_failure);
        self.send(ToHost::Load(load), Some(memfd)).await
    }

    async fn send(&mut self, message: ToHost, fd: Option<OwnedFd>) -> Option<Input> {
        let host = self.host.as_ref()?;
        let message = v1::ToHost { message: Some(message) };
        let sending = host.channel.send(&message, fd.as_ref().map(AsFd::as_fd));
        let reason = match timeout(SEND_LIMIT, sending).await {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => format!("the compute process is gone: {error}"),
            Err(_) => "the compute process does not read".to_owned(),
        };
        tracing::warn!(reason, "no compute process");
        self.host = None;
        Some(Input::HostGone(reason))
    }

    fn tell(&self, hook: u32, Status { state, reason, sha256 }: Status) {
        self.report.send_modify(|report| {
            let was = report.hooks.get(&hook);
            if was.is_none_or(|was| was.state != state) {
                tracing::info!(hook, state = state.as_str_name(), reason, "hook");
            }
            let answers = was.map_or(0, |was| was.answers + 1);
            report.hooks.insert(hook, HookStatus { state, reason, sha256, answers });
        });
    }
}

/// Takes every hook off a switch that is run without compute.
pub async fn remove_all(switch: &SharedSwitch, netlink: &Netlink) {
    let hooks = with(switch, |switch| switch.hooks()).unwrap_or_default();
    for hook in hooks {
        if let Err(reason) = port::remove(hook.hook.into(), switch, netlink).await {
            tracing::warn!(hook = hook.hook, reason, "cannot remove a compute port");
        }
    }
}

/// What the host says next; never, while there is none.
async fn receive(host: Option<&Host>) -> io::Result<Option<(v1::FromHost, Option<OwnedFd>)>> {
    match host {
        Some(host) => host.channel.recv().await,
        None => std::future::pending().await,
    }
}

/// Of a hook that no slice uses yet, nothing is let by.
fn on_failure(wanted: &BTreeMap<u32, OnFailure>, hook: u32) -> v1::HookOnFailure {
    match wanted.get(&hook) {
        Some(OnFailure::Bypass) => v1::HookOnFailure::Bypass,
        Some(OnFailure::Drop) | None => v1::HookOnFailure::Drop,
    }
}

/// Why a load cannot be a hook of this switch, before anybody has looked at its module.
fn refusal(load: &v1::LoadHook) -> Option<String> {
    if load.hook >= MAX_HOOKS {
        return Some(format!("hook {}: hooks are numbered 0 to {}", load.hook, MAX_HOOKS - 1));
    }
    if load.module.len() > compute::MAX_MODULE {
        let (len, max) = (load.module.len(), compute::MAX_MODULE);
        return Some(format!("the module has {len} bytes, at most {max} are taken"));
    }
    if load.config.len() > compute::MAX_CONFIG {
        let (len, max) = (load.config.len(), compute::MAX_CONFIG);
        return Some(format!("the configuration has {len} bytes, at most {max} are taken"));
    }
    None
}
