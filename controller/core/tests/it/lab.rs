//! A network made of nothing but tables, and the shell around one core: carries out effects in
//! order, with made-up time and, if asked to, with writes that fail or arrive late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Deref, DerefMut};

use selvedge_core::{
    Change, Config, Core, Effect, Event, HookState, HookStatus, LogEntry, Neighbor, Port, Refusal,
    Reply, Request, RequestId, Timer, Update,
};
use selvedge_pipeline::{Entry, Key, NodeSid, PortId};
use selvedge_topology::{End, NodeName, Topology, read};

use crate::net::Net;

pub(crate) struct Lab {
    pub(crate) core: Core,
    net: Net,
    pub(crate) now_ms: u64,
    pub(crate) store: BTreeMap<String, Vec<u8>>,
    pub(crate) replies: BTreeMap<u64, Result<Reply, Refusal>>,
    pub(crate) log: Vec<LogEntry>,
    /// Updates carried out since the start.
    pub(crate) writes: usize,
    /// Writes that fail, in percent; a failed write is carried out in part.
    pub(crate) failing_percent: u64,
    /// Answers are delivered in any order.
    pub(crate) reordering: bool,
    /// What is written to several switches at the same time takes effect in any order.
    pub(crate) shuffling: bool,
    /// Next hops that led in a circle at some moment: towards which node id, from which switch.
    pub(crate) circles: Vec<(NodeSid, NodeName)>,
    /// Every effect, for comparing runs.
    pub(crate) history: Vec<String>,
    muted: BTreeSet<NodeName>,
    answers: VecDeque<Event>,
    timers: BTreeMap<Timer, u64>,
    random: u64,
    next_request: u64,
}

pub(crate) fn metro() -> Topology {
    let text = include_str!("../../../../examples/metro/topology.yaml");
    read::from_str("metro", text, read::Format::Selvedge).expect("metro is valid").topology
}

pub(crate) fn name(text: &str) -> NodeName {
    text.parse().expect("a node name")
}

/// Objects of a slice file.
pub(crate) fn objects(text: &str) -> Change {
    let put = selvedge_slices::parse("test", text).unwrap_or_else(|error| panic!("{error:?}"));
    let hooks = put.iter().filter_map(|object| match object {
        selvedge_slices::Object::Hook(hook) => Some((hook.name.clone(), digest(&hook.module))),
        _ => None,
    });
    Change { modules: hooks.collect(), put, ..Change::default() }
}

/// Not a digest at all, but as good as one here.
pub(crate) fn digest(module: &str) -> String {
    module.bytes().map(|byte| format!("{byte:02x}")).collect()
}

impl Deref for Lab {
    type Target = Net;

    fn deref(&self) -> &Net {
        &self.net
    }
}

impl DerefMut for Lab {
    fn deref_mut(&mut self) -> &mut Net {
        &mut self.net
    }
}

impl Lab {
    /// A network where nobody has joined yet.
    pub(crate) fn new(topology: Topology) -> Self {
        let core = Core::new(topology.clone(), Config::default());
        Self {
            core,
            net: Net::new(topology),
            now_ms: 1_000_000,
            store: BTreeMap::new(),
            replies: BTreeMap::new(),
            log: Vec::new(),
            writes: 0,
            failing_percent: 0,
            reordering: false,
            shuffling: false,
            circles: Vec::new(),
            history: Vec::new(),
            muted: BTreeSet::new(),
            answers: VecDeque::new(),
            timers: BTreeMap::new(),
            random: 1,
            next_request: 0,
        }
    }

    /// A network where everybody has joined and been seen, and all is quiet.
    pub(crate) fn up(topology: Topology) -> Self {
        let mut lab = Self::new(topology);
        lab.join_all();
        lab.settle();
        lab.see_all();
        lab.settle();
        lab
    }

    pub(crate) fn seeded(mut self, seed: u64) -> Self {
        self.random = seed | 1;
        self
    }

    fn chance(&mut self, percent: u64) -> bool {
        // xorshift64: any sequence that repeats from its seed will do.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100 < percent
    }

    pub(crate) fn join(&mut self, switch: &NodeName) {
        self.switches.get_mut(switch).expect("a switch").joined = true;
        let report = self.report(switch);
        self.event(Event::SwitchJoined { switch: switch.clone(), report });
    }

    pub(crate) fn join_all(&mut self) {
        for switch in self.switches.keys().cloned().collect::<Vec<_>>() {
            self.join(&switch);
        }
    }

    pub(crate) fn leave(&mut self, switch: &NodeName) {
        self.switches.get_mut(switch).expect("a switch").joined = false;
        self.event(Event::SwitchLeft { switch: switch.clone() });
    }

    /// Every host shows itself where it is.
    pub(crate) fn see_all(&mut self) {
        for host in self.places.keys().cloned().collect::<Vec<_>>() {
            self.see(&host);
        }
    }

    /// The host sends something; its switch reports it if it is not bound there.
    pub(crate) fn see(&mut self, host: &NodeName) {
        let end = self.places[host].clone();
        let switch = &self.switches[&end.node];
        let port = switch.ports.values().find(|port| port.name == end.port.as_str());
        let Some(port) = port.filter(|port| port.up).map(|port| port.id) else { return };
        for address in self.addresses(host) {
            let bound = self.switches[&end.node].entries.values().any(|entry| match entry {
                Entry::Endpoint(entry) => entry.port == port && entry.prefix.contains(&address),
                _ => false,
            });
            if !bound && self.switches[&end.node].joined {
                let (switch, mac) = (end.node.clone(), self.macs[host]);
                self.event(Event::EndpointSeen { switch, port, mac, address });
            }
        }
    }

    /// Both ends of the link lose or get carrier.
    pub(crate) fn link(&mut self, a: &str, b: &str, up: bool) {
        let ends: Vec<End> = self
            .topology
            .links
            .iter()
            .filter(|link| {
                let (x, y) = (link.a.node.as_str(), link.b.node.as_str());
                (x, y) == (a, b) || (x, y) == (b, a)
            })
            .flat_map(|link| [link.a.clone(), link.b.clone()])
            .collect();
        assert!(!ends.is_empty(), "no link {a} - {b}");
        for end in ends {
            self.port(&end, up);
        }
    }

    pub(crate) fn port(&mut self, end: &End, up: bool) {
        let Some(switch) = self.switches.get_mut(&end.node) else { return };
        let found = switch.ports.values_mut().find(|port| port.name == end.port.as_str());
        let port = found.expect("a port of that name");
        port.up = up;
        let port = port.clone();
        if self.switches[&end.node].joined {
            self.event(Event::PortChanged { switch: end.node.clone(), port });
        }
    }

    /// An access port `p9` that the topology says nothing of.
    pub(crate) fn spare_port(&mut self, switch: &str) -> End {
        let place = End { node: name(switch), port: "p9".parse().expect("a port name") };
        let switch = self.switches.get_mut(&place.node).expect("a switch");
        let mac = [2, 0, 9, 9, 9, 9];
        let port = Port { id: PortId(9), name: "p9".into(), mac, up: true };
        switch.ports.insert(port.id, port.clone());
        self.event(Event::PortChanged { switch: place.node.clone(), port });
        self.settle();
        place
    }

    /// Somebody who has shown no key says by LLDP who he is.
    pub(crate) fn claim(&mut self, end: &str, sees: &str) {
        self.hears(end, Some(sees), false);
    }

    pub(crate) fn neighbor(&mut self, end: &str, sees: Option<&str>) {
        self.hears(end, sees, true);
    }

    fn hears(&mut self, end: &str, sees: Option<&str>, authenticated: bool) {
        let (switch, port) = end.split_once(':').expect("node:port");
        let switch = name(switch);
        let ports = &self.switches[&switch].ports;
        let port = ports.values().find(|known| known.name == port).expect("a port").id;
        let neighbor = sees.map(|sees| {
            let (chassis, port) = sees.split_once(':').expect("node:port");
            Neighbor { chassis: chassis.into(), port: port.into(), authenticated }
        });
        self.event(Event::NeighborChanged { switch, port, neighbor });
    }

    pub(crate) fn request(&mut self, request: Request) -> Result<Reply, Refusal> {
        self.next_request += 1;
        let id = self.next_request;
        self.event(Event::Request { id: RequestId(id), author: "tester".into(), request });
        self.replies.remove(&id).expect("a request is answered at once")
    }

    pub(crate) fn apply(&mut self, change: Change) -> Result<Reply, Refusal> {
        let reply = self.request(Request::Apply { change, plan: None });
        self.settle();
        reply
    }

    pub(crate) fn event(&mut self, event: Event) {
        let mut effects = self.core.handle(event, self.now_ms);
        let written = |(at, effect)| matches!(effect, &Effect::Write { .. }).then_some(at);
        let writes: Vec<usize> = effects.iter().enumerate().filter_map(written).collect();
        if self.shuffling {
            for index in (1..writes.len()).rev() {
                self.chance(0);
                effects.swap(writes[index], writes[self.random as usize % (index + 1)]);
            }
        }
        self.history.push(format!("{effects:?}"));
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(changes) => {
                assert!(!changes.is_empty(), "persisting nothing");
                for change in changes {
                    match change.value {
                        Some(value) => self.store.insert(change.key, value),
                        None => self.store.remove(&change.key),
                    };
                }
            }
            Effect::ReadEntries { switch, read } => {
                let real = &self.switches[&switch];
                assert!(real.joined, "{switch} is read, but has no session");
                let result = if self.failing_percent > 0 && self.random.is_multiple_of(7) {
                    Err(String::from("made to fail"))
                } else {
                    Ok(real.entries.values().cloned().collect())
                };
                self.answers.push_back(Event::EntriesRead { switch, read, result });
            }
            Effect::Write { switch, write, updates } => {
                assert!(self.switches[&switch].joined, "{switch} is written, but has no session");
                assert!(!updates.is_empty(), "an empty write to {switch}");
                let fails = self.failing_percent;
                let fails = self.chance(fails);
                let count = if fails { updates.len() / 2 } else { updates.len() };
                for update in updates.into_iter().take(count) {
                    self.write(&switch, update);
                }
                let result = if fails { Err(String::from("made to fail")) } else { Ok(()) };
                self.answers.push_back(Event::WriteDone { switch, write, result });
            }
            Effect::LoadHook { switch, hook, load } => {
                let sha256 = load.sha256.clone();
                self.switches.get_mut(&switch).expect("a switch").hooks.insert(hook, load);
                let state = HookState::Running;
                let status = HookStatus { state, reason: String::new(), sha256 };
                self.answers.push_back(Event::HookChanged { switch, hook, status });
            }
            Effect::UnloadHook { switch, hook } => {
                let real = self.switches.get_mut(&switch).expect("a switch");
                assert!(real.hooks.remove(&hook).is_some(), "{switch} has no hook {}", hook.0);
            }
            Effect::Reply { request, reply } => {
                assert!(self.replies.insert(request.0, reply).is_none(), "answered twice");
            }
            Effect::Log(entry) => self.log.push(entry),
            Effect::SetTimer { timer, at_ms } => {
                self.timers.insert(timer, at_ms);
            }
        }
    }

    /// As a switch does: an insert of what is there, or a change of what is not, is an error.
    fn write(&mut self, switch: &NodeName, update: Update) {
        self.writes += 1;
        let entries = &mut self.net.switches.get_mut(switch).expect("a switch").entries;
        let hop = match &update {
            Update::Insert(Entry::NextHop(hop)) | Update::Modify(Entry::NextHop(hop)) => Some(hop),
            _ => None,
        };
        let sid = hop.map(|hop| hop.node);
        match update {
            Update::Insert(entry) => {
                let before = entries.insert(entry.key(), entry.clone());
                assert!(before.is_none(), "{switch}: insert of {entry:?} over {before:?}");
            }
            Update::Modify(entry) => {
                let before = entries.insert(entry.key(), entry.clone());
                assert!(before.is_some(), "{switch}: {entry:?} changed, but was not there");
            }
            Update::Delete(entry) => {
                assert_eq!(entries.remove(&entry.key()), Some(entry), "{switch}");
            }
        }
        if let Some(sid) = sid.filter(|sid| self.circles_from(switch, *sid)) {
            self.circles.push((sid, switch.clone()));
        }
    }

    /// Whether next hops lead back to the switch, over links that are up.
    fn circles_from(&self, switch: &NodeName, sid: NodeSid) -> bool {
        let mut at = switch.clone();
        for _ in 0..self.switches.len() {
            let Some(Entry::NextHop(hop)) = self.switches[&at].entries.get(&Key::NextHop(sid))
            else {
                return false;
            };
            let Some(port) = self.switches[&at].ports.get(&hop.port) else { return false };
            let is_here = |end: &End| end.node == at && end.port.as_str() == port.name;
            let far = self.topology.links.iter().find_map(|link| match () {
                () if is_here(&link.a) => Some(&link.b),
                () if is_here(&link.b) => Some(&link.a),
                () => None,
            });
            let Some(far) = far.filter(|_| port.up) else { return false };
            if far.node == *switch {
                return true;
            }
            at = far.node.clone();
        }
        false
    }

    /// The switch gets what is sent, but no answer comes back.
    pub(crate) fn mute(&mut self, switch: &NodeName) {
        self.muted.insert(switch.clone());
    }

    pub(crate) fn unmute(&mut self, switch: &NodeName) {
        self.muted.remove(switch);
    }

    fn is_muted(&self, event: &Event) -> bool {
        match event {
            Event::EntriesRead { switch, .. } | Event::WriteDone { switch, .. } => {
                self.muted.contains(switch)
            }
            _ => false,
        }
    }

    /// One answer, if one is there.
    pub(crate) fn step_answers(&mut self) -> bool {
        while let Some(event) = self.answers.pop_front() {
            if !self.is_muted(&event) {
                self.event(event);
                return true;
            }
        }
        false
    }

    /// Until nothing is left to do or so much time has gone.
    pub(crate) fn settle_for(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.now_ms < end && self.step() {}
    }

    /// One answer, or the next timer. False: nothing is left but the periodic resync and the
    /// starts and ends of slices.
    pub(crate) fn step(&mut self) -> bool {
        if !self.answers.is_empty() {
            let last = self.answers.len() - 1;
            let late = self.reordering && self.chance(50);
            let event = self.answers.remove(if late { last } else { 0 }).expect("not empty");
            if !self.is_muted(&event) {
                self.event(event);
            }
            return true;
        }
        let idle = [Timer::Resync, Timer::Lifecycle];
        let timers = self.timers.iter().filter(|(timer, _)| !idle.contains(timer));
        let Some((timer, at)) = timers.map(|(timer, at)| (*timer, *at)).min_by_key(|(_, at)| *at)
        else {
            return false;
        };
        self.timers.remove(&timer);
        self.now_ms = self.now_ms.max(at);
        self.event(Event::TimerDue(timer));
        true
    }

    /// Until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..20_000 {
            if !self.step() {
                return;
            }
        }
        panic!("still not quiet: {:?}", self.core.status().waiting_for);
    }

    /// The resync timer comes.
    pub(crate) fn resync(&mut self) {
        // Set with the first event.
        let Some(at) = self.timers.remove(&Timer::Resync) else { return };
        self.now_ms = self.now_ms.max(at);
        self.event(Event::TimerDue(Timer::Resync));
        self.settle();
    }

    /// `kill -9` of the controller, and a new one over the same store and switches.
    pub(crate) fn restart(&mut self) {
        let records = self.store.clone();
        self.core = Core::restore(self.topology.clone(), Config::default(), records)
            .expect("its own records");
        self.answers.clear();
        self.timers.clear();
    }

    pub(crate) fn converged(&self) -> bool {
        self.core.status().converged
    }

    #[track_caller]
    pub(crate) fn assert_converged(&self) {
        let status = self.core.status();
        assert!(status.converged, "waiting for {:?}", status.waiting_for);
    }

    pub(crate) fn logged(&self, kind: &str) -> Vec<&LogEntry> {
        self.log.iter().filter(|entry| entry.kind == kind).collect()
    }

    pub(crate) fn entries(&self, switch: &str) -> Vec<&Entry> {
        self.switches[switch].entries.values().collect()
    }
}
