//! The hooks of this process by id, and what the agent is told of them.

use std::{
    collections::BTreeMap,
    mem,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, mpsc},
};

use selvedge_southbound::{
    compute::{MAX_CONFIG, MAX_MODULE, read_module},
    selvedge::v1::{
        Announced, Emitted, HookOnFailure, HookStats, Load, Quarantined, Refused, Running,
        Unloaded, from_host::Message,
    },
};
use sha2::{Digest, Sha256};

use crate::{
    LoadError,
    bridge::OnFailure,
    guest::{DEFAULT_FUEL_PER_PACKET, DEFAULT_MEMORY, MAX_MEMORY, Machine},
    hook::{Hook, News, Report, Reports, Spec, Wake},
    host::Agent,
};

/// Most hooks of one process. Each has a mapping for each frame, and a process has 65,530
/// (`vm.max_map_count`).
const MAX_HOOKS: usize = 32;
/// Largest hook id (its function id is `0xE100 +` it).
const MAX_HOOK: u32 = 255;
/// `IFNAMSIZ` without its NUL.
const MAX_IFNAME: usize = 15;

pub(crate) struct Hooks {
    machine: Arc<Machine>,
    reports: Reports,
    received: mpsc::Receiver<Report>,
    entries: BTreeMap<u32, Entry>,
    starts: u64,
}

/// What runs under one id, and what shall take its place.
#[derive(Default)]
struct Entry {
    current: Option<Current>,
    next: Option<Hook>,
    /// The `current` before was stopped to make room for `next`.
    cleared: bool,
}

struct Current {
    hook: Hook,
    state: State,
    told: HookStats,
}

enum State {
    /// With its socket, to be handed to each agent that comes.
    Running(OwnedFd),
    Quarantined(String),
}

impl Hooks {
    pub(crate) fn new(wake: Wake) -> Result<Self, LoadError> {
        let machine = Arc::new(Machine::new()?);
        let (reports, received) = Reports::new(wake);
        Ok(Self { machine, reports, received, entries: BTreeMap::new(), starts: 0 })
    }

    /// Everything that a new agent has to know.
    pub(crate) fn announce(&self, agent: &mut Agent) {
        for current in self.entries.values().filter_map(|entry| entry.current.as_ref()) {
            current.tell(agent);
        }
        agent.tell(Message::Announced(Announced {}), None);
    }

    pub(crate) fn load(&mut self, load: Load, module: Option<OwnedFd>, agent: &mut Agent) {
        let hook = load.hook.as_ref().map_or(0, |hook| hook.hook);
        let (spec, module) = match self.read(load, module) {
            Ok(read) => read,
            Err(error) => {
                let reason = crate::error::chain(&error);
                tracing::warn!(hook, reason, "load refused");
                let refused = Refused { hook, reason, sha256: String::new() };
                return agent.tell(Message::Refused(refused), None);
            }
        };
        let entry = self.entries.entry(hook).or_default();
        if entry.next.as_ref().is_some_and(|next| *next.spec == spec) {
            return; // on its way; its report is the answer
        }
        if let Some(next) = entry.next.take() {
            next.abandon();
        }
        if let Some(current) = &mut entry.current
            && matches!(current.state, State::Running(_))
            && current.hook.spec.is_same_but_for_failure(&spec)
        {
            current.hook.set_on_failure(spec.on_failure);
            return current.tell(agent);
        }
        self.starts += 1;
        let sha256 = spec.sha256.clone();
        let reports = self.reports.clone();
        match Hook::start(self.machine.clone(), spec, module, self.starts, reports) {
            Ok(next) => entry.next = Some(next),
            Err(error) => {
                if entry.current.is_none() {
                    self.entries.remove(&hook);
                }
                let reason = format!("no thread for it: {error}");
                agent.tell(Message::Refused(Refused { hook, reason, sha256 }), None);
            }
        }
    }

    /// The bounds of a Load, and its defaults.
    fn read(&self, load: Load, fd: Option<OwnedFd>) -> Result<(Spec, Vec<u8>), RequestError> {
        let on_failure = match load.on_failure() {
            HookOnFailure::Bypass => OnFailure::Bypass,
            HookOnFailure::Drop | HookOnFailure::Unspecified => OnFailure::Drop,
        };
        let hook = load.hook.ok_or(RequestError::NoHook)?;
        if hook.hook > MAX_HOOK {
            return Err(RequestError::Id { found: hook.hook });
        }
        if self.entries.len() >= MAX_HOOKS && !self.entries.contains_key(&hook.hook) {
            return Err(RequestError::Full);
        }
        if load.ifname.is_empty() || load.ifname.len() > MAX_IFNAME {
            return Err(RequestError::Ifname { found: load.ifname });
        }
        if hook.config.len() > MAX_CONFIG {
            return Err(RequestError::Config { found: hook.config.len() });
        }
        let or = |asked: u64, default| if asked == 0 { default } else { asked };
        let memory_bytes = or(hook.memory_bytes, DEFAULT_MEMORY);
        if memory_bytes > MAX_MEMORY {
            return Err(RequestError::Memory { found: memory_bytes });
        }
        let module = read_module(fd.ok_or(RequestError::NoModule)?.as_fd())
            .map_err(|source| RequestError::Module { source })?;
        let spec = Spec {
            hook: hook.hook,
            name: hook.name,
            ifname: load.ifname,
            sha256: Sha256::digest(&module).iter().map(|byte| format!("{byte:02x}")).collect(),
            config: hook.config,
            fuel_per_packet: or(hook.fuel_per_packet, DEFAULT_FUEL_PER_PACKET),
            memory_bytes,
            on_failure,
        };
        Ok((spec, module))
    }

    pub(crate) fn unload(&mut self, hook: u32, agent: &mut Agent) {
        if let Some(entry) = self.entries.remove(&hook) {
            tracing::info!(hook, "hook unloaded");
            entry.end();
        }
        agent.tell(Message::Unloaded(Unloaded { hook, reason: String::new() }), None);
    }

    pub(crate) fn take_reports(&mut self, agent: &mut Agent) {
        while let Ok(report) = self.received.try_recv() {
            self.take_report(report, agent);
        }
    }

    fn take_report(&mut self, report: Report, agent: &mut Agent) {
        let Report { hook, start, news } = report;
        let Some(entry) = self.entries.get_mut(&hook) else { return };
        if entry.next.as_ref().is_some_and(|next| next.start == start) {
            match news {
                News::Prepared => {
                    // Its socket must be closed before another can be bound to the queue.
                    entry.cleared |= entry.current.take().is_some();
                    if let Some(next) = &entry.next {
                        next.bind();
                    }
                }
                News::Running(fd) => {
                    let Some(next) = entry.next.take() else { return };
                    tracing::info!(hook, name = next.spec.name, "hook runs");
                    let state = State::Running(fd);
                    entry.cleared = false;
                    let current = Current { hook: next, state, told: HookStats::default() };
                    entry.current.insert(current).tell(agent);
                }
                News::Refused(reason) | News::Gone(reason) => {
                    tracing::warn!(hook, reason, "hook refused");
                    let next = entry.next.take();
                    let sha256 = next.map_or(String::new(), |next| next.spec.sha256.clone());
                    if mem::take(&mut entry.cleared) {
                        let reason = "replaced by one that could not be bound".to_owned();
                        agent.tell(Message::Unloaded(Unloaded { hook, reason }), None);
                    }
                    if entry.current.is_none() {
                        self.entries.remove(&hook);
                    }
                    agent.tell(Message::Refused(Refused { hook, reason, sha256 }), None);
                }
                News::Emitted(payload) => {
                    agent.mention(Message::Emitted(Emitted { hook, payload }));
                }
                News::Quarantined(_) => {} // only what runs is quarantined
            }
        } else if let Some(current) = &mut entry.current
            && current.hook.start == start
        {
            match news {
                News::Quarantined(reason) => {
                    current.state = State::Quarantined(reason);
                    current.tell(agent);
                }
                News::Gone(reason) => {
                    tracing::warn!(hook, reason, "hook gone");
                    entry.current = None;
                    if entry.next.is_none() {
                        self.entries.remove(&hook);
                    }
                    agent.tell(Message::Unloaded(Unloaded { hook, reason }), None);
                }
                News::Emitted(payload) => {
                    agent.mention(Message::Emitted(Emitted { hook, payload }));
                }
                News::Prepared | News::Running(_) | News::Refused(_) => {}
            }
        }
    }

    /// Tells the totals of each hook that did something since.
    pub(crate) fn statistics(&mut self, agent: &mut Agent) {
        for (hook, entry) in &mut self.entries {
            let Some(current) = &mut entry.current else { continue };
            let stats = current.hook.stats.message(*hook);
            if stats != current.told {
                agent.mention(Message::Stats(stats.clone()));
                current.told = stats;
            }
        }
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        for entry in mem::take(&mut self.entries).into_values() {
            entry.end();
        }
    }
}

impl Entry {
    fn end(self) {
        if let Some(next) = self.next {
            next.abandon();
        }
        drop(self.current);
    }
}

impl Current {
    fn tell(&self, agent: &mut Agent) {
        let Spec { hook, name, sha256, ifname, .. } = &*self.hook.spec;
        let (hook, sha256) = (*hook, sha256.clone());
        match &self.state {
            State::Running(fd) => {
                let (name, ifname) = (name.clone(), ifname.clone());
                let running = Running { hook, name, sha256, ifname };
                agent.tell(Message::Running(running), Some(fd.as_fd()));
            }
            State::Quarantined(reason) => {
                let quarantined = Quarantined { hook, reason: reason.clone(), sha256 };
                agent.tell(Message::Quarantined(quarantined), None);
            }
        }
    }
}

/// Why a Load was refused before its module was looked at.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("a Load without a hook")]
    NoHook,
    #[error("hook id {found}, at most {MAX_HOOK}")]
    Id { found: u32 },
    #[error("{MAX_HOOKS} hooks run here, and no more do in one process")]
    Full,
    #[error("interface name {found:?} is not 1 to {MAX_IFNAME} bytes")]
    Ifname { found: String },
    #[error("configuration of {found} bytes, at most {MAX_CONFIG} are taken")]
    Config { found: usize },
    #[error("memory of {found} bytes, at most {MAX_MEMORY} are given")]
    Memory { found: u64 },
    #[error("no module came along")]
    NoModule,
    #[error("cannot read the module (at most {MAX_MODULE} bytes)")]
    Module { source: std::io::Error },
}
