//! The state machine itself: which event changes what, and when to compute anew.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use selvedge_pipeline::{HookId, PortId};
use selvedge_slices::ObjectName;
use selvedge_topology::sorted::Sorted;
use selvedge_topology::{NodeName, Topology};

use crate::assure::Assurance;
use crate::attach::{Endpoints, Seen};
use crate::config::Config;
use crate::derived::Derived;
use crate::effect::{Effect, LogEntry, RecordChange, Severity};
use crate::event::{DiscoveryCounts, Event, HookState, HookStatus, Neighbor, Port, Report, Timer};
use crate::history::History;
use crate::hooks::Retry;
use crate::intent::Intent;
use crate::network::{LinkState, Network, Reason};
use crate::numbers::Numbers;
use crate::prove::Proofs;
use crate::reconcile::{Running, Session};
use crate::records::MadeOf;
use crate::truth::Truth;
use crate::view::IntentFiles;

/// The controller's brain. See the crate's documentation.
///
/// Cheap enough to clone for a trial: tables are shared until they change.
#[derive(Clone, Debug)]
pub struct Core {
    pub(crate) config: Config,
    pub(crate) network: Network,
    pub(crate) endpoints: Endpoints,
    pub(crate) intent: Intent,
    pub(crate) history: Arc<History>,
    pub(crate) numbers: Numbers,
    /// Switches of placed applications.
    pub(crate) places: BTreeMap<ObjectName, NodeName>,
    /// The highest generation given to entries.
    pub(crate) generation: u64,
    /// What follows from all of the above.
    pub(crate) derived: Arc<Derived>,
    pub(crate) truth: Truth,
    pub(crate) proofs: Proofs,
    pub(crate) sessions: BTreeMap<NodeName, Session>,
    pub(crate) running: Option<Running>,
    /// Why the store takes nothing, if so.
    pub(crate) store_unwritable: Option<String>,
    /// The directory of files that is the intent, if one is.
    pub(crate) files: Option<IntentFiles>,
    /// Why the last plan was not begun.
    pub(crate) blocked: Option<String>,
    /// What was last sent to each hook, as a digest: sent again when it differs.
    pub(crate) hooks_sent: BTreeMap<(NodeName, HookId), u64>,
    pub(crate) hook_retries: BTreeMap<(NodeName, HookId), Retry>,
    /// As the store has it, or was asked to take it.
    pub(crate) made_of: Arc<MadeOf>,
    /// What the store is to be told besides.
    pub(crate) unsaved: Vec<RecordChange>,
    /// When to plan anew; `None`: nothing has changed.
    pub(crate) due_at: Option<u64>,
    /// `derived` is not of the present state.
    pub(crate) stale: bool,
    pub(crate) resync_at: Option<u64>,
    /// When a slice's phase changes next by itself; follows from the intent.
    pub(crate) lifecycle_at_ms: Option<u64>,
    /// When a start or end that was refused is tried again.
    pub(crate) lifecycle_retry_ms: Option<u64>,
    /// Times that the shell was asked for.
    pub(crate) timers: BTreeMap<Timer, u64>,
    pub(crate) next_id: u64,
    /// The last ones, by sequence.
    pub(crate) events: Sorted<u64, Arc<LogEntry>>,
    pub(crate) sequence: u64,
    pub(crate) assurance: Arc<Assurance>,
    /// What switches have heard by LLDP: nothing follows from it.
    pub(crate) heard: BTreeMap<NodeName, Heard>,
}

/// What a switch has heard by LLDP.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// Neighbors that have not shown who they are.
    pub(crate) claims: BTreeMap<PortId, Neighbor>,
    pub(crate) counts: DiscoveryCounts,
}

impl Core {
    /// A controller that starts with nothing but a topology.
    pub fn new(topology: Topology, config: Config) -> Self {
        let network = Network::new(Arc::new(topology));
        let sessions =
            network.switches.keys().map(|name| (name.clone(), Session::default())).collect();
        let derived = Arc::new(Derived::empty(&network.topology));
        let mut core = Self {
            config,
            truth: Truth::new(&network),
            proofs: Proofs::default(),
            network,
            endpoints: Endpoints::default(),
            intent: Intent::default(),
            history: Arc::default(),
            numbers: Numbers::new(),
            places: BTreeMap::new(),
            generation: 0,
            derived,
            sessions,
            running: None,
            store_unwritable: None,
            files: None,
            blocked: None,
            hooks_sent: BTreeMap::new(),
            hook_retries: BTreeMap::new(),
            made_of: Arc::default(),
            unsaved: Vec::new(),
            due_at: Some(0),
            stale: true,
            resync_at: None,
            lifecycle_at_ms: None,
            lifecycle_retry_ms: None,
            timers: BTreeMap::new(),
            next_id: 0,
            events: Sorted::new(),
            sequence: 0,
            assurance: Arc::default(),
            heard: BTreeMap::new(),
        };
        core.derive_or_keep();
        core
    }

    /// One event in, what to do about it out. Effects are to be carried out in order.
    ///
    /// `now_ms`: milliseconds since the Unix epoch by a clock that never goes back (the shell
    /// reads the wall clock once and adds a monotonic one).
    ///
    /// Cost: nothing to speak of for most events; where the network or the intent changed, what
    /// follows from that is computed and proven (docs/decisions/0009).
    pub fn handle(&mut self, event: Event, now_ms: u64) -> Vec<Effect> {
        let mut out = Vec::new();
        if self.resync_at.is_none() {
            self.resync_at = Some(now_ms + self.config.resync_ms);
        }
        self.lifecycle(now_ms, &mut out);
        self.take(event, now_ms, &mut out);
        self.advance(now_ms, &mut out);
        out
    }

    pub(crate) fn take(&mut self, event: Event, now_ms: u64, out: &mut Vec<Effect>) {
        match event {
            Event::SwitchJoined { switch, report } => self.joined(switch, report, now_ms, out),
            Event::SwitchLeft { switch } => {
                let Some(known) = self.network.switch_mut(&switch) else { return };
                if std::mem::replace(&mut known.joined, false) {
                    self.sessions.entry(switch.clone()).or_default().close();
                    self.running = None;
                    let text = String::from("session ended; it forwards as before");
                    self.log(Severity::Warning, "switch-left", &switch, text, now_ms, out);
                    self.soon(now_ms);
                }
            }
            Event::PortChanged { switch, port } => self.port(&switch, port, now_ms, out),
            Event::PortGone { switch, port } => {
                let Some(known) = self.network.switch_mut(&switch) else { return };
                let Some(gone) = known.ports.get(&port).cloned() else { return };
                known.remove_port(port);
                if let Some(heard) = self.heard.get_mut(&switch) {
                    heard.claims.remove(&port);
                }
                self.at_once(now_ms);
                self.port_lost(&switch, &gone.name, true, now_ms, out);
            }
            Event::NeighborChanged { switch, port, neighbor } => {
                self.neighbor(&switch, port, neighbor, now_ms);
            }
            Event::EndpointSeen { switch, port, mac, address } => {
                self.seen(&switch, port, mac, address, now_ms, out);
            }
            Event::HookChanged { switch, hook, status } => {
                self.hook_changed(&switch, hook, status, now_ms, out);
            }
            Event::Discovered { switch, counts } => {
                if self.network.switches.contains_key(&switch) {
                    self.heard.entry(switch).or_default().counts = counts;
                }
            }
            Event::Measured { switch, measured } => self.measured(&switch, measured, now_ms, out),
            Event::EntriesRead { switch, read, result } => {
                self.entries_read(&switch, read, result, now_ms, out);
            }
            Event::WriteDone { switch, write, result } => {
                self.write_done(&switch, write, result, now_ms, out);
            }
            Event::Request { id, author, request } => {
                self.request(id, &author, request, now_ms, out);
            }
            Event::IntentFiles { dir, refused } => self.intent_files(dir, refused, now_ms, out),
            Event::Store { unwritable } => self.store_changed(unwritable, now_ms, out),
            // `advance` looks at the time itself.
            Event::TimerDue(timer) => {
                self.timers.remove(&timer);
            }
        }
    }

    fn store_changed(&mut self, why: Option<String>, now_ms: u64, out: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.store_unwritable, why);
        match (before, self.store_unwritable.clone()) {
            (None, Some(why)) => {
                let text = format!("every change is refused until it can be written: {why}");
                self.log(Severity::Error, "store-unwritable", "store", text, now_ms, out);
            }
            (Some(_), None) => {
                let text = String::from("takes writes again");
                self.log(Severity::Info, "store-writable", "store", text, now_ms, out);
            }
            _ => {}
        }
    }

    fn intent_files(
        &mut self,
        dir: String,
        refused: Option<String>,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        let count = self.files.as_ref().map_or(0, |files| files.refusals);
        let before = self.files.take().and_then(|files| files.refused);
        let is_new = refused.is_some() && before != refused;
        let files = IntentFiles { dir, refused, refusals: count + u64::from(is_new) };
        match (&before, &files.refused) {
            (_, Some(why)) if is_new => {
                let text = format!("what runs is kept: {why}");
                self.log(Severity::Error, "intent-refused", &files.dir, text, now_ms, out);
            }
            (Some(_), None) => {
                let text = String::from("its files are taken again");
                self.log(Severity::Info, "intent-accepted", &files.dir, text, now_ms, out);
            }
            _ => {}
        }
        self.files = Some(files);
    }

    fn joined(&mut self, switch: NodeName, report: Report, now_ms: u64, out: &mut Vec<Effect>) {
        let Some(known) = self.network.switch_mut(&switch) else {
            let text =
                String::from("it has a valid certificate, but the topology has no such switch");
            self.log(Severity::Warning, "switch-unknown", &switch, text, now_ms, out);
            return;
        };
        let version = report.version.clone();
        let claims = report.neighbors.iter().filter(|(_, neighbor)| !neighbor.authenticated);
        let heard = Heard { claims: claims.cloned().collect(), ..Heard::default() };
        known.join(report);
        self.heard.insert(switch.clone(), heard);
        let hooks: Vec<(HookId, HookStatus)> =
            known.hooks.iter().map(|(hook, status)| (*hook, status.clone())).collect();
        self.sessions.entry(switch.clone()).or_default().open();
        self.running = None;
        self.hooks_rejoined(&switch, &hooks, now_ms);
        self.soon(now_ms);
        let text = format!("joined, version {version}");
        self.log(Severity::Info, "switch-joined", &switch, text, now_ms, out);
    }

    fn port(&mut self, switch: &NodeName, port: Port, now_ms: u64, out: &mut Vec<Effect>) {
        let Some(known) = self.network.switch_mut(switch) else { return };
        let before = known.ports.get(&port.id).cloned();
        if before.as_ref() == Some(&port) {
            return;
        }
        let name = port.name.clone();
        let lost = !port.up && before.is_none_or(|before| before.up);
        if !known.set_port(port) {
            return;
        }
        if lost {
            self.at_once(now_ms);
            self.port_lost(switch, &name, false, now_ms, out);
        } else {
            self.soon(now_ms);
        }
    }

    fn port_lost(
        &mut self,
        switch: &NodeName,
        port: &str,
        gone: bool,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        let again = self.endpoints.port_lost(&self.network, switch, port, gone, now_ms);
        for (switch, port, mac, address) in again {
            self.seen(&switch, port, mac, address, now_ms, out);
        }
    }

    fn neighbor(
        &mut self,
        switch: &NodeName,
        port: PortId,
        neighbor: Option<Neighbor>,
        now_ms: u64,
    ) {
        let Some(known) = self.network.switch_mut(switch) else { return };
        if !known.ports.contains_key(&port) {
            return;
        }
        let claims = &mut self.heard.entry(switch.clone()).or_default().claims;
        claims.remove(&port);
        let neighbor = match neighbor {
            Some(claim) if !claim.authenticated => {
                claims.insert(port, claim);
                None
            }
            neighbor => neighbor,
        };
        if known.neighbors.get(&port) == neighbor.as_ref() {
            return;
        }
        match neighbor {
            Some(neighbor) => known.neighbors.insert(port, neighbor),
            None => known.neighbors.remove(&port),
        };
        self.soon(now_ms);
    }

    fn seen(
        &mut self,
        switch: &NodeName,
        port: PortId,
        mac: [u8; 6],
        address: IpAddr,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        // A UE behind a gNB shows itself in no frame of its own.
        let owner = self.network.declared.owner(address);
        if owner.is_some_and(|host| self.intent.sessions.of_ue(host).is_some()) {
            return;
        }
        let links = self.network.link_states();
        let seen = self.endpoints.seen(&self.network, &links, (switch, port), mac, address, now_ms);
        let name = |core: &Self| {
            let port = core.network.switches.get(switch).and_then(|s| s.ports.get(&port));
            port.map_or_else(|| port_number(switch), |port| format!("{switch}:{}", port.name))
        };
        match seen {
            Seen::Nothing => {}
            Seen::Learned { host } => {
                let text = format!("at {}, MAC address {}", name(self), Mac(mac));
                self.log(Severity::Info, "endpoint-seen", &host, text, now_ms, out);
                self.at_once(now_ms);
            }
            Seen::Moved { host, from } => {
                let from =
                    from.map_or(String::new(), |(node, port)| format!(" from {node}:{port}"));
                let text = format!("moved{from} to {}", name(self));
                self.log(Severity::Info, "endpoint-moved", &host, text, now_ms, out);
                self.at_once(now_ms);
            }
            Seen::Spoof { host, reason, log } => {
                if log {
                    let text = format!("its address was used at {}, but {reason}", name(self));
                    self.log(Severity::Warning, "endpoint-spoofed", &host, text, now_ms, out);
                }
            }
        }
    }

    /// The state is another: computes when the burst of events that this one may belong to is
    /// over.
    pub(crate) fn soon(&mut self, now_ms: u64) {
        self.stale = true;
        self.plan_soon(now_ms);
    }

    /// What switches hold is another.
    pub(crate) fn plan_soon(&mut self, now_ms: u64) {
        let at = now_ms + self.config.batch_ms;
        self.due_at = Some(self.due_at.map_or(at, |due| due.min(at)));
    }

    /// The state is another, and traffic is being lost: computes now.
    pub(crate) fn at_once(&mut self, now_ms: u64) {
        self.stale = true;
        self.due_at = Some(now_ms);
    }

    /// Computes what follows from the state, and says what is different. False: it could not
    /// be computed, and what followed before stands.
    pub(crate) fn refresh(&mut self, now_ms: u64, out: &mut Vec<Effect>) -> bool {
        if !self.stale {
            return true;
        }
        let before = self.derived.clone();
        if let Err(refusal) = self.derive() {
            let text = refusal.to_string();
            if self.blocked.as_ref() != Some(&text) {
                self.log(Severity::Error, "plan-refused", "plan", text.clone(), now_ms, out);
            }
            self.blocked = Some(text);
            self.persist(out);
            return false;
        }
        self.log_differences(&before, now_ms, out);
        true
    }

    /// Says what is different from `before`.
    pub(crate) fn log_differences(&mut self, before: &Derived, now_ms: u64, out: &mut Vec<Effect>) {
        let after = self.derived.clone();
        self.log_links(before, &after, now_ms, out);
        self.log_slices(before, &after, now_ms, out);
        self.log_places(before, &after, now_ms, out);
        self.log_seats(&before.seats, &after.seats, now_ms, out);
    }

    /// Computes what follows from the state. On an error nothing has changed.
    pub(crate) fn derive(&mut self) -> Result<(), crate::Refusal> {
        let (derived, numbers) = Derived::compute(self)?;
        self.derived = Arc::new(derived);
        self.numbers = numbers;
        self.take_places();
        self.truth = self.truth_now();
        self.stale = false;
        Ok(())
    }

    pub(crate) fn derive_or_keep(&mut self) {
        if let Err(refusal) = self.derive() {
            self.blocked = Some(refusal.to_string());
        }
    }

    fn log_links(&mut self, before: &Derived, after: &Derived, now_ms: u64, out: &mut Vec<Effect>) {
        for (ix, state) in &*after.links {
            let old = before.links.get(ix);
            if old == Some(state) {
                continue;
            }
            let link = self.network.link(*ix).to_string();
            let was_usable = matches!(old, Some(LinkState::Usable { .. }));
            match state {
                LinkState::Usable { .. } if was_usable => {}
                LinkState::Usable { .. } => {
                    self.log(Severity::Info, "link-up", &link, "usable".to_owned(), now_ms, out);
                }
                LinkState::Unusable(reason @ Reason::Miscabled { .. }) => {
                    let text = reason.to_string();
                    self.log(Severity::Warning, "link-miscabled", &link, text, now_ms, out);
                }
                LinkState::Unusable(reason) if was_usable => {
                    let text = reason.to_string();
                    self.log(Severity::Warning, "link-down", &link, text, now_ms, out);
                }
                LinkState::Unusable(_) => {}
            }
        }
    }

    fn log_slices(
        &mut self,
        before: &Derived,
        after: &Derived,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        let mut changed = Vec::new();
        before.slices.differences(&after.slices, |name, old, new| changed.push((name, old, new)));
        for (name, old, new) in changed {
            let (old, Some(slice)) = (old.map(|slice| slice.reasons.as_slice()), new) else {
                continue;
            };
            if old.unwrap_or_default() == slice.reasons {
                continue;
            }
            if slice.reasons.is_empty() {
                let text = String::from("its promise is kept again");
                self.log(Severity::Info, "slice-restored", name, text, now_ms, out);
            } else {
                let text = slice.reasons.join("; ");
                self.log(Severity::Error, "slice-degraded", name, text, now_ms, out);
            }
        }
    }

    pub(crate) fn log(
        &mut self,
        severity: Severity,
        kind: &'static str,
        subject: impl std::fmt::Display,
        text: String,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        self.sequence += 1;
        let subject = subject.to_string();
        let entry =
            LogEntry { sequence: self.sequence, at_ms: now_ms, severity, kind, subject, text };
        if self.events.len() >= self.config.events_kept {
            self.events.pop_first();
        }
        self.events.insert(self.sequence, Arc::new(entry.clone()));
        out.push(Effect::Log(entry));
    }
}

fn port_number(switch: &NodeName) -> String {
    format!("a port of {switch}")
}

struct Mac([u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

impl HookState {
    pub const ALL: [Self; 5] =
        [Self::Loading, Self::Running, Self::Down, Self::Quarantined, Self::Refused];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Running => "running",
            Self::Down => "down",
            Self::Quarantined => "quarantined",
            Self::Refused => "refused",
        }
    }
}
