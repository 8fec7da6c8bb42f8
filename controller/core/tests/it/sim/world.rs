//! The world: switches, a store, controllers, and what is under way between them.

use std::collections::BTreeMap;

use selvedge_core::{Change, Event, HookState, HookStatus, ReadId, Update, WriteId};
use selvedge_pipeline::{Key, PortId};
use selvedge_topology::{End, NodeName};

use super::fault;
use super::judge::Judge;
use super::leader::{Leader, Store};
use crate::net::{Net, Switch};

pub(super) const CONTROLLERS: usize = 3;
/// A lease that nobody renews is over after so long.
pub(super) const LEASE_MS: u64 = 2_000;
const POLL_MS: u64 = 500;
const CHATTER_MS: u64 = 700;
/// When the last fault is over.
const HEALED_MS: u64 = 30_000;
/// Time to converge in after that: a read that got no answer, a resync, and some.
const PATIENCE_MS: u64 = 200_000;

/// One direction of one session, or a clock.
#[derive(Clone, Debug)]
pub(super) enum Mail {
    /// A controller renews its lease, or tries to get one.
    Poll(usize),
    /// A switch's agent dials the leader.
    Dial {
        controller: usize,
        life: u64,
        switch: NodeName,
    },
    Ask {
        line: Line,
        ask: Ask,
    },
    Tell {
        line: Line,
        event: Event,
    },
    /// The controller learns that a session has ended.
    Ended {
        line: Line,
    },
    /// Hosts say something.
    Chatter,
    /// A client changes the intent.
    Request(Change),
    Fault,
    Heal,
}

/// A session: of one life of a controller with one switch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    pub(super) controller: usize,
    pub(super) life: u64,
    pub(super) switch: NodeName,
    pub(super) session: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Ask {
    Read(ReadId),
    Write(WriteId, Vec<Update>),
    LoadHook(selvedge_pipeline::HookId, selvedge_core::HookLoad),
    UnloadHook(selvedge_pipeline::HookId),
}

#[derive(Default)]
pub(super) struct Controller {
    /// `None`: it leads nobody.
    pub(super) leader: Option<Box<Leader>>,
    /// Killed or stopped until then; what comes for a stopped one waits, for a killed one is
    /// lost.
    pub(super) away_until: u64,
    /// Not reached by the store, or by the switches.
    pub(super) cut_off_until: u64,
    pub(super) lives: u64,
    /// Effects that are still carried out before it is killed.
    pub(super) dies_in: Option<u32>,
}

pub(super) struct World {
    pub(super) net: Net,
    pub(super) now_ms: u64,
    pub(super) store: Store,
    pub(super) controllers: Vec<Controller>,
    /// The highest election id that each switch has seen.
    fences: BTreeMap<NodeName, u64>,
    /// Sessions that switches have open.
    pub(super) open: BTreeMap<(usize, NodeName), Line>,
    mail: BTreeMap<(u64, u64), Mail>,
    /// When the last message of a line and direction arrives: they do not overtake each other.
    last: BTreeMap<(Line, bool), u64>,
    next: u64,
    random: u64,
    pub(super) healed: bool,
    pub(super) judge: Judge,
    pub(super) happened: BTreeMap<&'static str, u64>,
    pub(super) trace: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut world = Self {
            net: fault::network(),
            now_ms: 0,
            store: Store::default(),
            controllers: (0..CONTROLLERS).map(|_| Controller::default()).collect(),
            fences: BTreeMap::new(),
            open: BTreeMap::new(),
            mail: BTreeMap::new(),
            last: BTreeMap::new(),
            next: 0,
            // Splitmix, so that neighboring seeds have nothing in common.
            random: (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            healed: false,
            judge: Judge::default(),
            happened: BTreeMap::new(),
            trace: None,
        };
        for controller in 0..CONTROLLERS {
            let at = world.below(POLL_MS);
            world.post(at, Mail::Poll(controller));
        }
        world.post(CHATTER_MS, Mail::Chatter);
        for _ in 0..2 + world.below(10) {
            let at = world.below(HEALED_MS);
            world.post(at, Mail::Fault);
        }
        for _ in 0..2 + world.below(8) {
            let (at, change) = (world.below(HEALED_MS), fault::change(&mut world));
            world.post(at, Mail::Request(change));
        }
        world.post(HEALED_MS, Mail::Heal);
        world
    }

    /// Until all is quiet, and then looks whether all is well.
    pub(super) fn run(&mut self) {
        while self.now_ms < HEALED_MS + PATIENCE_MS {
            // Hosts that have just moved must have spoken.
            let heard = self.now_ms > HEALED_MS + 2 * CHATTER_MS;
            if self.healed && heard && self.quiet() {
                return super::judge::end(self);
            }
            self.step();
        }
        let waiting: Vec<_> = self.leaders().map(|leader| leader.core.status()).collect();
        panic!("not converged {PATIENCE_MS} ms after the last fault: {waiting:#?}");
    }

    /// One leader, converged, and no answer under way.
    fn quiet(&self) -> bool {
        let mut leaders = self.leaders();
        let (Some(leader), None) = (leaders.next(), leaders.next()) else { return false };
        let clock = |mail: &Mail| matches!(mail, Mail::Poll(_) | Mail::Chatter);
        self.mail.values().all(clock) && leader.is_quiet()
    }

    pub(super) fn leaders(&self) -> impl Iterator<Item = &Leader> {
        self.controllers.iter().filter_map(|controller| controller.leader.as_deref())
    }

    fn step(&mut self) {
        let mail = self.mail.first_key_value().map(|(key, _)| *key);
        let (at, controller) = self.next_timer();
        if let Some(key) = mail.filter(|key| key.0 <= at) {
            let mail = self.mail.remove(&key).expect("it was just seen");
            self.now_ms = self.now_ms.max(key.0);
            self.deliver(key.1, mail);
        } else {
            self.now_ms = self.now_ms.max(at);
            self.timer(controller);
        }
    }

    /// When and at which controller a timer is due next.
    fn next_timer(&self) -> (u64, usize) {
        let times = self.controllers.iter().enumerate().filter_map(|(number, controller)| {
            let at = controller.leader.as_ref()?.next_timer()?;
            Some((at.max(controller.away_until), number))
        });
        times.min().unwrap_or((u64::MAX, 0))
    }

    fn deliver(&mut self, number: u64, mail: Mail) {
        if let Mail::Tell { line, .. } | Mail::Ended { line } = &mail {
            let until = self.controllers[line.controller].away_until;
            if until > self.now_ms {
                // Nothing overtakes it: a session is a stream.
                let last = self.last.entry((line.clone(), true)).or_default();
                *last = (*last).max(until);
                self.mail.insert((until, number), mail);
                return;
            }
        }
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{} {mail:?}", self.now_ms));
        }
        match mail {
            Mail::Poll(controller) => {
                self.post(POLL_MS, Mail::Poll(controller));
                self.poll(controller);
            }
            Mail::Dial { controller, life, switch } => self.dial(controller, life, &switch),
            Mail::Ask { line, ask } => self.answer(line, ask),
            Mail::Tell { line, event } => self.tell(&line, event),
            Mail::Ended { line } => self.ended(&line),
            Mail::Chatter => {
                self.post(CHATTER_MS, Mail::Chatter);
                for host in self.net.places.keys().cloned().collect::<Vec<_>>() {
                    self.speak(&host);
                }
            }
            Mail::Request(change) => self.client(change),
            Mail::Fault => fault::happen(self),
            Mail::Heal => fault::heal(self),
        }
    }

    /// `in_ms` from now.
    pub(super) fn post(&mut self, in_ms: u64, mail: Mail) {
        self.next += 1;
        self.mail.insert((self.now_ms + in_ms, self.next), mail);
    }

    /// Over a session: in order, mostly soon.
    pub(super) fn send(&mut self, line: Line, up: bool, mail: Mail) {
        let delay = match self.below(100) {
            _ if self.healed => 1,
            0..2 => 6_000 + self.below(3_000),
            2..10 => self.below(800),
            _ => self.below(5),
        };
        let last = self.last.entry((line, up)).or_default();
        let at = (self.now_ms + delay).max(*last);
        *last = at;
        self.post(at - self.now_ms, mail);
    }

    pub(super) fn reaches_switches(&self, controller: usize) -> bool {
        self.controllers[controller].cut_off_until <= self.now_ms
    }

    /// Switches that have no session with the leader dial it.
    pub(super) fn dial_all(&mut self, controller: usize) {
        let Some(leader) = &self.controllers[controller].leader else { return };
        let life = leader.life;
        for switch in self.net.switches.keys().cloned().collect::<Vec<_>>() {
            if !self.open.contains_key(&(controller, switch.clone())) {
                let delay = 1 + self.below(200);
                self.post(delay, Mail::Dial { controller, life, switch });
            }
        }
    }

    fn dial(&mut self, controller: usize, life: u64, switch: &NodeName) {
        let stopped = self.controllers[controller].away_until > self.now_ms;
        let Some(leader) = self.controllers[controller].leader.as_ref() else { return };
        let known = self.open.contains_key(&(controller, switch.clone()));
        if leader.life != life || known || stopped || !self.reaches_switches(controller) {
            return;
        }
        let election = leader.election;
        let fence = self.fences.entry(switch.clone()).or_default();
        if election < *fence {
            return self.note("fenced by a switch");
        }
        *fence = election;
        self.next += 1;
        let line = Line { controller, life, switch: switch.clone(), session: self.next };
        self.open.insert((controller, switch.clone()), line.clone());
        let report = self.net.report(switch);
        let event = Event::SwitchJoined { switch: switch.clone(), report };
        self.send(line.clone(), true, Mail::Tell { line, event });
    }

    /// The session breaks: what is under way to the switch arrives now or never.
    pub(super) fn hang_up(&mut self, controller: usize, switch: &NodeName) {
        let Some(line) = self.open.remove(&(controller, switch.clone())) else { return };
        let mut arrives = self.chance(50);
        for mail in self.take_mail(|mail| match mail {
            Mail::Ask { line: other, .. } | Mail::Tell { line: other, .. } => *other == line,
            _ => false,
        }) {
            if let Mail::Ask { line, ask } = mail
                && arrives
            {
                arrives = self.chance(80);
                self.carry_out(&line, ask);
            }
        }
        let delay = if self.healed { 1 } else { self.below(3_000) };
        self.post(delay, Mail::Ended { line });
    }

    fn take_mail(&mut self, which: impl Fn(&Mail) -> bool) -> Vec<Mail> {
        let keys: Vec<_> =
            self.mail.iter().filter(|(_, mail)| which(mail)).map(|(key, _)| *key).collect();
        keys.iter().filter_map(|key| self.mail.remove(key)).collect()
    }

    fn ended(&mut self, line: &Line) {
        let current = self.controllers[line.controller]
            .leader
            .as_mut()
            .filter(|leader| leader.life == line.life)
            .is_some_and(|leader| leader.left(line));
        if current {
            let switch = line.switch.clone();
            self.handle(line.controller, Event::SwitchLeft { switch });
        }
        self.dial_all(line.controller);
    }

    fn tell(&mut self, line: &Line, event: Event) {
        let Some(leader) = &mut self.controllers[line.controller].leader else { return };
        if leader.life != line.life || !leader.is_current(line, &event) {
            return;
        }
        self.handle(line.controller, event);
    }

    /// A switch does as it is asked, and answers; the answer may get lost.
    fn answer(&mut self, line: Line, ask: Ask) {
        if self.open.get(&(line.controller, line.switch.clone())) != Some(&line) {
            return;
        }
        let Some(event) = self.carry_out(&line, ask) else { return };
        if !self.healed && self.chance(2) {
            return self.note("lost answer");
        }
        if !self.healed && self.chance(3) {
            self.note("repeated");
            self.send(line.clone(), true, Mail::Tell { line: line.clone(), event: event.clone() });
        }
        self.send(line.clone(), true, Mail::Tell { line, event });
    }

    fn carry_out(&mut self, line: &Line, ask: Ask) -> Option<Event> {
        let election = self.elected(line)?;
        let switch = line.switch.clone();
        let stale = election < self.fences[&switch];
        match ask {
            Ask::Read(read) => {
                let entries = self.net.switches[&switch].entries.values().cloned().collect();
                Some(Event::EntriesRead { switch, read, result: Ok(entries) })
            }
            Ask::Write(write, _) if stale => {
                self.note("fenced by a switch");
                let result = Err(String::from("election id is not the primary's"));
                Some(Event::WriteDone { switch, write, result })
            }
            Ask::Write(write, updates) => {
                let cut = !self.healed && self.chance(2);
                let count = if cut { updates.len() / 2 } else { updates.len() };
                if cut {
                    self.note("written in part");
                }
                let result = updates.into_iter().take(count).try_fold((), |(), update| {
                    let done = write_one(self.net.switches.get_mut(&switch)?, update);
                    super::judge::look(self);
                    done
                });
                let result = match (result, cut) {
                    (None, _) => Err(String::from("no such entry, or it is there already")),
                    (Some(()), true) => Err(String::from("made to fail")),
                    (Some(()), false) => Ok(()),
                };
                Some(Event::WriteDone { switch, write, result })
            }
            Ask::LoadHook(hook, load) => {
                let sha256 = load.sha256.clone();
                self.net.switches.get_mut(&switch)?.hooks.insert(hook, load);
                let state = HookState::Running;
                let status = HookStatus { state, reason: String::new(), sha256 };
                Some(Event::HookChanged { switch, hook, status })
            }
            Ask::UnloadHook(hook) => {
                self.net.switches.get_mut(&switch)?.hooks.remove(&hook);
                None
            }
        }
    }

    fn elected(&self, line: &Line) -> Option<u64> {
        self.store.elected.get(&(line.controller, line.life)).copied()
    }

    /// All controllers that a switch has a session with hear of what it sees.
    pub(super) fn report(&mut self, switch: &NodeName, event: &Event) {
        let lines: Vec<Line> =
            self.open.values().filter(|line| line.switch == *switch).cloned().collect();
        for line in lines {
            for _ in 0..if !self.healed && self.chance(5) { 2 } else { 1 } {
                let mail = Mail::Tell { line: line.clone(), event: event.clone() };
                self.send(line.clone(), true, mail);
            }
        }
    }

    /// A host sends something; its switch reports it if it is not bound there.
    fn speak(&mut self, host: &NodeName) {
        let end = self.net.places[host].clone();
        let Some(port) = self.port_at(&end).filter(|port| port.up).map(|port| port.id) else {
            return;
        };
        for address in self.net.addresses(host) {
            if !is_bound(&self.net.switches[&end.node], port, address) {
                let (switch, mac) = (end.node.clone(), self.net.macs[host]);
                let event = Event::EndpointSeen { switch, port, mac, address };
                self.report(&end.node, &event);
            }
        }
    }

    pub(super) fn port_at(&self, end: &End) -> Option<&selvedge_core::Port> {
        let ports = &self.net.switches.get(&end.node)?.ports;
        ports.values().find(|port| port.name == end.port.as_str())
    }

    pub(super) fn set_port(&mut self, end: &End, up: bool) {
        let Some(id) = self.port_at(end).map(|port| port.id) else { return };
        let switch = self.net.switches.get_mut(&end.node).expect("a port of it was found");
        let port = switch.ports.get_mut(&id).expect("it was found");
        port.up = up;
        let event = Event::PortChanged { switch: end.node.clone(), port: port.clone() };
        super::judge::look(self);
        self.report(&end.node.clone(), &event);
    }

    pub(super) fn note(&mut self, kind: &'static str) {
        *self.happened.entry(kind).or_default() += 1;
    }

    /// Uniform in `0..limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        // xorshift64*: any sequence that repeats from its seed will do.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn is_bound(switch: &Switch, port: PortId, address: std::net::IpAddr) -> bool {
    switch.entries.values().any(|entry| match entry {
        selvedge_pipeline::Entry::Endpoint(entry) => {
            entry.port == port && entry.prefix.contains(&address)
        }
        _ => false,
    })
}

/// As a switch does: an insert of what is there, or a change of what is not, is an error.
fn write_one(switch: &mut Switch, update: Update) -> Option<()> {
    let entries: &mut BTreeMap<Key, _> = &mut switch.entries;
    match update {
        Update::Insert(entry) => {
            if entries.contains_key(&entry.key()) {
                return None;
            }
            entries.insert(entry.key(), entry);
        }
        Update::Modify(entry) => {
            let held = entries.get_mut(&entry.key())?;
            *held = entry;
        }
        Update::Delete(entry) => {
            entries.remove(&entry.key())?;
        }
    }
    Some(())
}
