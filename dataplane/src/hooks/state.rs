//! What becomes of each compute hook. Pure: no clock, no socket, no map.
//!
//! ```text
//!            load             Load sent         Running
//!   (none) ───────► Waiting ───────────► Loading ───────► Running
//!                      ▲  ▲                 │ Refused        │ Quarantined
//!         host is back │  └─────────────────┼────────────────┤ (not loaded again
//!                      │     host is gone   ▼                ▼  until the next load)
//!                      └──────────────── Refused         Quarantined
//! ```
//!
//! A hook that an earlier agent left running starts as `Resuming`: the maps still
//! send it packets, and they go on doing so while the Wasm host has the time of
//! [`GRACE`] to come back and hand its socket over again. So an agent's restart loses nothing.
//!
//! The caller carries out effects in order. Map states are changed before the host is told,
//! so that packets pass by a hook (as `onFailure` says) while it is being replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use selvedge_southbound::selvedge::v1;
use v1::hook_state::State;

/// How long a restarted agent waits for the Wasm host before it takes its hooks for dead.
pub const GRACE: Duration = Duration::from_secs(3);

/// Hook ids are below this (pipeline, `HookId`).
pub const MAX_HOOKS: u32 = 256;

/// What the controller asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// As received, the module included.
    pub load: v1::LoadHook,
    /// Of the module, hexadecimal.
    pub sha256: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For the Wasm host to be there.
    Waiting,
    /// Left running by an earlier agent; the host has not said so yet.
    Resuming,
    Loading,
    Running,
    Refused,
    Quarantined,
    /// The compute port could not be made; the next load or host tries again.
    Broken,
}

/// State of a hook in the data plane's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapState {
    /// No such hook.
    Absent,
    Running,
    Down,
    Quarantined,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// From the controller.
    Load(Spec),
    Unload(u32),
    /// What the slices want of a hook that fails has changed.
    Reload(u32),
    /// From the host, a socket came along.
    Running {
        hook: u32,
        name: String,
        sha256: String,
    },
    Refused {
        hook: u32,
        reason: String,
        sha256: String,
    },
    Quarantined {
        hook: u32,
        reason: String,
        sha256: String,
    },
    Unloaded {
        hook: u32,
        reason: String,
    },
    /// The host has said what it has.
    Announced,
    /// Its connection has ended, or it broke the protocol.
    HostGone(String),
    /// Nobody came within [`GRACE`].
    GraceOver,
    /// The compute port of a hook could not be made.
    PortFailed {
        hook: u32,
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Keep the module and its settings for the next agent.
    Store(u32),
    Forget(u32),
    SetState(u32, MapState),
    /// Make the veth pair if it is not there.
    EnsurePort(u32),
    RemovePort(u32),
    /// Put the socket that came with this input into the map, and close our copy.
    TakeSocket(u32),
    SendLoad(u32),
    SendUnload(u32),
    Report(u32, Status),
    /// There is no such hook any more.
    ReportGone(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    pub reason: String,
    pub sha256: String,
}

#[derive(Debug)]
struct Hook {
    spec: Spec,
    phase: Phase,
    /// What the host runs while it looks at a replacement.
    previous: Option<Spec>,
}

/// All hooks of a switch.
#[derive(Debug, Default)]
pub struct Hooks {
    hooks: BTreeMap<u32, Hook>,
    /// A host is connected and has announced what it has.
    host_ready: bool,
}

impl Hooks {
    /// A hook that an earlier agent stored, and what the map says of it. Effects: the report.
    pub fn resume(&mut self, spec: Spec, map: MapState, out: &mut Vec<Effect>) {
        let hook = spec.load.hook;
        let (phase, state, reason) = match map {
            MapState::Running => (Phase::Resuming, State::Running, ""),
            MapState::Quarantined => {
                (Phase::Quarantined, State::Quarantined, "before the agent was restarted")
            }
            MapState::Down | MapState::Absent => {
                (Phase::Waiting, State::Down, "the compute process is not there")
            }
        };
        out.push(report(hook, state, reason, &spec.sha256));
        self.hooks.insert(hook, Hook { spec, phase, previous: None });
    }

    /// Hooks that are waiting for a host that may still come.
    pub fn is_resuming(&self) -> bool {
        self.hooks.values().any(|hook| hook.phase == Phase::Resuming)
    }

    pub fn spec(&self, hook: u32) -> Option<&Spec> {
        self.hooks.get(&hook).map(|hook| &hook.spec)
    }

    /// Hooks that run now.
    pub fn running(&self) -> BTreeSet<u32> {
        let running = |(id, hook): (&u32, &Hook)| (hook.phase == Phase::Running).then_some(*id);
        self.hooks.iter().filter_map(running).collect()
    }

    pub fn handle(&mut self, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Load(spec) => self.load(spec, out),
            Input::Unload(hook) => self.unload(hook, out),
            Input::Reload(hook) => self.reload(hook, out),
            Input::Running { hook, name, sha256 } => self.started(hook, &name, &sha256, out),
            Input::Refused { hook, reason, sha256 } => self.refused(hook, &reason, &sha256, out),
            Input::Quarantined { hook, reason, sha256 } => {
                self.quarantined(hook, &reason, &sha256, out);
            }
            Input::Unloaded { hook, reason } => self.unloaded(hook, &reason, out),
            Input::Announced => {
                self.host_ready = true;
                for (id, hook) in &mut self.hooks {
                    if matches!(hook.phase, Phase::Refused | Phase::Quarantined) {
                        continue;
                    }
                    // Also to one that runs: the host compares settings that it did not
                    // announce, and answers a load of what it has without touching it.
                    if hook.phase != Phase::Running {
                        hook.phase = Phase::Loading;
                        out.push(Effect::SetState(*id, MapState::Down));
                        out.push(Effect::EnsurePort(*id));
                        out.push(report(*id, State::Loading, "", &hook.spec.sha256));
                    }
                    out.push(Effect::SendLoad(*id));
                }
            }
            Input::HostGone(reason) => {
                self.host_ready = false;
                self.down(
                    &reason,
                    |phase| matches!(phase, Phase::Loading | Phase::Running | Phase::Resuming),
                    out,
                );
            }
            Input::GraceOver => {
                self.down(
                    "the compute process did not come back",
                    |phase| phase == Phase::Resuming,
                    out,
                );
            }
            Input::PortFailed { hook, reason } => {
                if let Some(state) = self.hooks.get_mut(&hook) {
                    state.phase = Phase::Broken;
                    out.push(Effect::SetState(hook, MapState::Down));
                    out.push(report(hook, State::Down, &reason, &state.spec.sha256));
                }
            }
        }
    }

    fn load(&mut self, spec: Spec, out: &mut Vec<Effect>) {
        let id = spec.load.hook;
        if let Some(was) = self.hooks.get(&id).filter(|was| was.spec == spec) {
            let same = match was.phase {
                Phase::Running | Phase::Resuming => Some(State::Running),
                Phase::Loading => Some(State::Loading),
                Phase::Waiting | Phase::Refused | Phase::Quarantined | Phase::Broken => None,
            };
            if let Some(state) = same {
                out.push(report(id, state, "", &spec.sha256));
                return;
            }
        }
        let previous = match self.hooks.remove(&id) {
            Some(Hook { spec, phase: Phase::Running | Phase::Resuming, .. }) => Some(spec),
            // A replacement of a replacement: the host still runs the first.
            Some(Hook { previous, phase: Phase::Loading, .. }) => previous,
            _ => None,
        };
        out.push(Effect::Store(id));
        out.push(Effect::SetState(id, MapState::Down));
        let phase = if self.host_ready {
            out.push(Effect::EnsurePort(id));
            out.push(report(id, State::Loading, "", &spec.sha256));
            out.push(Effect::SendLoad(id));
            Phase::Loading
        } else {
            let reason = "the compute process is not there";
            out.push(report(id, State::Down, reason, &spec.sha256));
            Phase::Waiting
        };
        self.hooks.insert(id, Hook { spec, phase, previous });
    }

    fn unload(&mut self, id: u32, out: &mut Vec<Effect>) {
        if self.hooks.remove(&id).is_some() {
            out.push(Effect::SetState(id, MapState::Absent));
            if self.host_ready {
                out.push(Effect::SendUnload(id));
            }
            out.push(Effect::RemovePort(id));
            out.push(Effect::Forget(id));
        }
        out.push(Effect::ReportGone(id));
    }

    fn reload(&mut self, id: u32, out: &mut Vec<Effect>) {
        let Some(hook) = self.hooks.get_mut(&id).filter(|_| self.host_ready) else { return };
        match hook.phase {
            Phase::Running => {
                // To the host it is another hook: it gets another socket.
                hook.previous = Some(hook.spec.clone());
                hook.phase = Phase::Loading;
                out.push(Effect::SetState(id, MapState::Down));
                out.push(report(id, State::Loading, "", &hook.spec.sha256));
                out.push(Effect::SendLoad(id));
            }
            Phase::Loading => out.push(Effect::SendLoad(id)),
            // The load to come will say it.
            Phase::Waiting
            | Phase::Resuming
            | Phase::Refused
            | Phase::Quarantined
            | Phase::Broken => {}
        }
    }

    fn started(&mut self, id: u32, name: &str, sha256: &str, out: &mut Vec<Effect>) {
        let Some(hook) = self.hooks.get_mut(&id) else {
            out.push(Effect::SendUnload(id));
            return;
        };
        // Another module: an announcement of what we have since replaced. Its socket is
        // closed with this input, and the load that follows replaces it.
        if hook.spec.sha256 != sha256 || hook.spec.load.name != name {
            return;
        }
        match hook.phase {
            Phase::Quarantined | Phase::Refused | Phase::Broken => {
                out.push(Effect::SendUnload(id));
            }
            Phase::Waiting | Phase::Resuming | Phase::Loading | Phase::Running => {
                // Announced by a host that was there before us: its port may be unknown.
                if !matches!(hook.phase, Phase::Loading | Phase::Running) {
                    out.push(Effect::EnsurePort(id));
                }
                out.push(Effect::TakeSocket(id));
                out.push(Effect::SetState(id, MapState::Running));
                hook.phase = Phase::Running;
                hook.previous = None;
                out.push(report(id, State::Running, "", &hook.spec.sha256));
            }
        }
    }

    fn refused(&mut self, id: u32, reason: &str, sha256: &str, out: &mut Vec<Effect>) {
        let Some(hook) = self.hooks.get_mut(&id) else { return };
        // A load that was refused unread has no checksum.
        let ours = sha256.is_empty() || hook.spec.sha256 == sha256;
        if !ours || hook.phase != Phase::Loading {
            return;
        }
        let sha256 = hook.spec.sha256.clone();
        match hook.previous.take() {
            // What ran goes on running: the host keeps it, so do we.
            Some(previous) => {
                hook.spec = previous;
                hook.phase = Phase::Running;
                out.push(Effect::Store(id));
                out.push(Effect::SetState(id, MapState::Running));
            }
            None => {
                hook.phase = Phase::Refused;
                out.push(Effect::SetState(id, MapState::Down));
                out.push(Effect::Forget(id));
            }
        }
        out.push(report(id, State::Refused, reason, &sha256));
    }

    fn quarantined(&mut self, id: u32, reason: &str, sha256: &str, out: &mut Vec<Effect>) {
        match self.hooks.get_mut(&id) {
            Some(hook) if hook.spec.sha256 == sha256 => {
                hook.phase = Phase::Quarantined;
                hook.previous = None;
                out.push(Effect::SetState(id, MapState::Quarantined));
                out.push(Effect::SendUnload(id));
                out.push(report(id, State::Quarantined, reason, sha256));
            }
            // The one being replaced: the replacement is on its way.
            Some(hook) => hook.previous = None,
            None => out.push(Effect::SendUnload(id)),
        }
    }

    fn unloaded(&mut self, id: u32, reason: &str, out: &mut Vec<Effect>) {
        let Some(hook) = self.hooks.get_mut(&id) else { return };
        // Whatever is being replaced does not run any more.
        hook.previous = None;
        if hook.phase != Phase::Running {
            return; // as we asked
        }
        // Unasked: its interface went away.
        hook.phase = Phase::Loading;
        out.push(Effect::SetState(id, MapState::Down));
        out.push(report(id, State::Down, reason, &hook.spec.sha256));
        out.push(Effect::EnsurePort(id));
        out.push(Effect::SendLoad(id));
    }

    fn down(&mut self, reason: &str, which: impl Fn(Phase) -> bool, out: &mut Vec<Effect>) {
        for (id, hook) in &mut self.hooks {
            hook.previous = None;
            if which(hook.phase) {
                hook.phase = Phase::Waiting;
                out.push(Effect::SetState(*id, MapState::Down));
                out.push(report(*id, State::Down, reason, &hook.spec.sha256));
            }
        }
    }
}

fn report(hook: u32, state: State, reason: &str, sha256: &str) -> Effect {
    let status = Status { state, reason: reason.to_owned(), sha256: sha256.to_owned() };
    Effect::Report(hook, status)
}

#[cfg(test)]
mod tests;
