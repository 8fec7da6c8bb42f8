//! A controller that leads: what its shell does around the core. And the store.

use std::collections::{BTreeMap, VecDeque};

use selvedge_core::{
    Change, Config, Core, Defect, Effect, Event, Refusal, Reply, Request, RequestId, Timer,
};
use selvedge_topology::NodeName;

use super::world::{Ask, LEASE_MS, Line, Mail, World};

/// Pause before records that the store refused are offered to it again.
const STORE_RETRY_MS: u64 = 1_000;

/// Transactions that a leader may make while it holds the lease, as etcd has them.
#[derive(Default)]
pub(super) struct Store {
    pub(super) records: BTreeMap<String, Vec<u8>>,
    /// Who leads, until when.
    lease: Option<(usize, u64, u64)>,
    /// Election ids by controller and life.
    pub(super) elected: BTreeMap<(usize, u64), u64>,
    last_election: u64,
    pub(super) down_until: u64,
}

enum StoreError {
    Unreachable,
    /// Another leads, or nobody does.
    Fenced,
}

pub(super) struct Leader {
    pub(super) core: Core,
    pub(super) election: u64,
    pub(super) life: u64,
    sessions: BTreeMap<NodeName, Line>,
    timers: BTreeMap<Timer, u64>,
    unsaved: BTreeMap<String, Option<Vec<u8>>>,
    retry_at: Option<u64>,
    next_request: u64,
}

impl Leader {
    pub(super) fn is_quiet(&self) -> bool {
        let only_resync = self.timers.keys().all(|timer| *timer == Timer::Resync);
        self.core.status().converged && only_resync && self.unsaved.is_empty()
    }

    pub(super) fn next_timer(&self) -> Option<u64> {
        self.timers.values().copied().chain(self.retry_at).min()
    }

    /// Whether the event is of a session that stands; a switch that joins makes it so.
    pub(super) fn is_current(&mut self, line: &Line, event: &Event) -> bool {
        if let Event::SwitchJoined { .. } = event {
            let newer = self.sessions.get(&line.switch).is_none_or(|l| l.session <= line.session);
            if newer {
                self.sessions.insert(line.switch.clone(), line.clone());
            }
            return newer;
        }
        self.sessions.get(&line.switch) == Some(line)
    }

    pub(super) fn left(&mut self, line: &Line) -> bool {
        let current = self.sessions.get(&line.switch) == Some(line);
        if current {
            self.sessions.remove(&line.switch);
        }
        current
    }
}

impl World {
    /// A leader renews its lease, and steps down if it has lost it; the others try to lead.
    pub(super) fn poll(&mut self, number: usize) {
        let controller = &mut self.controllers[number];
        if controller.away_until > self.now_ms {
            return;
        }
        let reached =
            controller.cut_off_until <= self.now_ms && self.store.down_until <= self.now_ms;
        let own = controller.leader.as_ref().map(|leader| leader.election);
        if !reached {
            return;
        }
        let until = self.now_ms + LEASE_MS;
        let free = self.store.lease.is_none_or(|(.., until)| until <= self.now_ms);
        match (own, &mut self.store.lease) {
            (Some(own), Some((_, election, end))) if own == *election && !free => *end = until,
            (Some(_), _) => self.step_down(number),
            (None, _) if free => self.elect(number, until),
            (None, _) => {}
        }
        self.dial_all(number);
    }

    fn elect(&mut self, number: usize, until: u64) {
        self.note("elected");
        self.store.last_election += 1;
        let election = self.store.last_election;
        self.store.lease = Some((number, election, until));
        let controller = &mut self.controllers[number];
        controller.lives += 1;
        let life = controller.lives;
        self.store.elected.insert((number, life), election);
        let (topology, records) = (self.net.topology.clone(), self.store.records.clone());
        let core = Core::restore(topology, Config::default(), records).expect("its own records");
        controller.leader = Some(Box::new(Leader {
            core,
            election,
            life,
            sessions: BTreeMap::new(),
            timers: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            retry_at: None,
            next_request: 0,
        }));
        self.handle(number, Event::TimerDue(Timer::Batch));
    }

    /// The process ends: its sessions break.
    pub(super) fn step_down(&mut self, number: usize) {
        self.controllers[number].leader = None;
        self.controllers[number].dies_in = None;
        for switch in self.net.switches.keys().cloned().collect::<Vec<_>>() {
            self.hang_up(number, &switch);
        }
    }

    pub(super) fn timer(&mut self, number: usize) {
        let now_ms = self.now_ms;
        let Some(leader) = &mut self.controllers[number].leader else { return };
        if leader.retry_at.is_some_and(|at| at <= now_ms) {
            leader.retry_at = None;
            if let Err(StoreError::Fenced) = self.persist(number, Vec::new(), false) {
                return self.fenced(number);
            }
            return;
        }
        let due = leader.timers.iter().find(|(_, at)| **at <= now_ms).map(|(timer, _)| *timer);
        if let Some(timer) = due {
            leader.timers.remove(&timer);
            self.handle(number, Event::TimerDue(timer));
        }
    }

    pub(super) fn handle(&mut self, number: usize, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let Some(leader) = &mut self.controllers[number].leader else { return };
            let effects = leader.core.handle(event, self.now_ms);
            events.extend(self.effects(number, effects, None).0);
        }
    }

    /// A client asks whoever leads. What it is told counts.
    pub(super) fn client(&mut self, change: Change) {
        let leads = |world: &Self, number: usize| {
            let controller = &world.controllers[number];
            controller.leader.is_some() && controller.away_until <= world.now_ms
        };
        let Some(number) = (0..self.controllers.len()).find(|number| leads(self, *number)) else {
            return self.post(1_000, Mail::Request(change));
        };
        let attempt = self.judge.attempt(&change);
        let leader = self.controllers[number].leader.as_mut().expect("it leads");
        leader.next_request += 1;
        let id = RequestId(leader.next_request);
        let before = leader.core.clone();
        let request = Request::Apply { change, plan: None };
        let event = Event::Request { id, author: "client".into(), request };
        let effects = leader.core.handle(event, self.now_ms);
        let (events, reply) = self.effects(number, effects, Some(before));
        if let Some(done) = reply {
            self.note(if done { "acknowledged" } else { "refused" });
            self.judge.answered(attempt, done);
        }
        for event in events {
            self.handle(number, event);
        }
    }

    /// As the engine does. Returns what could not be told to switches, and the answer to a
    /// request, if it got one.
    fn effects(
        &mut self,
        number: usize,
        effects: Vec<Effect>,
        mut before: Option<Core>,
    ) -> (Vec<Event>, Option<bool>) {
        let mut undelivered = Vec::new();
        let mut reply_seen = None;
        for effect in effects {
            if let Some(left) = &mut self.controllers[number].dies_in {
                if *left == 0 {
                    self.note("killed between effects");
                    self.step_down(number);
                    return (Vec::new(), reply_seen);
                }
                *left -= 1;
            }
            match effect {
                Effect::Persist(records) => {
                    let records = records.into_iter().map(|r| (r.key, r.value)).collect();
                    match self.persist(number, records, before.is_some()) {
                        Ok(()) => {
                            let leader = self.controllers[number].leader.as_ref();
                            let core = leader.expect("it has just persisted").core.clone();
                            self.judge.allow(&core);
                        }
                        Err(StoreError::Fenced) => {
                            self.fenced(number);
                            return (Vec::new(), reply_seen);
                        }
                        Err(StoreError::Unreachable) => {
                            if let Some(before) = before.take() {
                                let leader = self.controllers[number].leader.as_mut();
                                leader.expect("it leads").core = before;
                                return (undelivered, Some(false));
                            }
                        }
                    }
                }
                Effect::Reply { reply, .. } => {
                    before = None;
                    let unprotected = matches!(
                        &reply,
                        Err(Refusal::NotProven(counter)) if counter.defect == Defect::Unprotected
                    );
                    assert!(!unprotected, "admitted, and then not proven: {reply:?}");
                    reply_seen = Some(matches!(reply, Ok(Reply::Applied { .. })));
                }
                Effect::ReadEntries { switch, read } => {
                    let failed = |switch| Event::EntriesRead {
                        switch,
                        read,
                        result: Err("no session".into()),
                    };
                    undelivered.extend(self.ask(number, switch, Ask::Read(read), failed));
                }
                Effect::Write { switch, write, updates } => {
                    let failed = |switch| Event::WriteDone {
                        switch,
                        write,
                        result: Err("no session".into()),
                    };
                    undelivered.extend(self.ask(
                        number,
                        switch,
                        Ask::Write(write, updates),
                        failed,
                    ));
                }
                Effect::LoadHook { switch, hook, load } => {
                    self.ask(number, switch, Ask::LoadHook(hook, load), |_| ());
                }
                Effect::UnloadHook { switch, hook } => {
                    self.ask(number, switch, Ask::UnloadHook(hook), |_| ());
                }
                Effect::Log(entry) => {
                    assert_ne!(entry.kind, "plan-refused", "{entry:?}");
                }
                Effect::SetTimer { timer, at_ms } => {
                    let leader = self.controllers[number].leader.as_mut().expect("it leads");
                    leader.timers.insert(timer, at_ms);
                }
            }
        }
        (undelivered, reply_seen)
    }

    fn ask<E>(
        &mut self,
        number: usize,
        switch: NodeName,
        ask: Ask,
        failed: impl FnOnce(NodeName) -> E,
    ) -> Option<E> {
        let leader = self.controllers[number].leader.as_ref()?;
        let Some(line) = leader.sessions.get(&switch).cloned() else {
            return Some(failed(switch));
        };
        // A session that has broken unseen swallows what it is given.
        if self.open.get(&(number, switch)) == Some(&line) {
            self.send(line.clone(), false, Mail::Ask { line, ask });
        }
        None
    }

    fn fenced(&mut self, number: usize) {
        self.note("fenced by the store");
        self.step_down(number);
    }

    fn persist(
        &mut self,
        number: usize,
        records: Vec<(String, Option<Vec<u8>>)>,
        of_request: bool,
    ) -> Result<(), StoreError> {
        let now_ms = self.now_ms;
        let controller = &mut self.controllers[number];
        let leader = controller.leader.as_mut().expect("it leads");
        let mut merged = leader.unsaved.clone();
        merged.extend(records);
        if controller.cut_off_until > now_ms || self.store.down_until > now_ms {
            if !of_request {
                leader.unsaved = merged;
            }
            if !leader.unsaved.is_empty() {
                leader.retry_at = Some(now_ms + STORE_RETRY_MS);
            }
            return Err(StoreError::Unreachable);
        }
        match self.store.lease {
            Some((_, election, until)) if election == leader.election && until > now_ms => {}
            _ => return Err(StoreError::Fenced),
        }
        leader.unsaved.clear();
        leader.retry_at = None;
        for (key, value) in merged {
            match value {
                Some(value) => self.store.records.insert(key, value),
                None => self.store.records.remove(&key),
            };
        }
        Ok(())
    }
}
