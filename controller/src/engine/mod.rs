//! The task that owns the core.
//!
//! Everything that happens becomes one [`Input`] in one bounded queue; the core's effects are
//! carried out in order before the next input is looked at. The engine owns the clock and the
//! timers, and decides nothing. It waits for nothing but the store: commands to switches go
//! through bounded queues that it never waits on, so a slow or dead switch holds up nobody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use selvedge_core::{
    Core, Effect, Event, LogEntry, Refusal, Reply, Request, RequestId, Severity, Timer,
};
use selvedge_pipeline::CounterKind;
use selvedge_topology::NodeName;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::api::problem::chain;
use crate::clock::Clock;
use crate::store::{Operation, Store, StoreError, Transaction};
use offers::OpenOffers;

mod handle;
mod offers;
mod switch;

pub(crate) use handle::CountersError;
pub use handle::{Handle, RequestError};
pub(crate) use switch::{Command, CountersAnswer, SessionId, SwitchLink};

/// Inputs that may wait for the core. A full queue makes the sender wait: a session then
/// reads no more from its switch, a request no more from its client.
const INPUTS: usize = 1024;
/// Requests that are taken one after the other before anything else is looked at. Those that come
/// while a commit is on its way to the disk are decided meanwhile and share the next one.
const GROUP: usize = 64;
/// Pause before records that the store refused are offered to it again.
const STORE_RETRY_MS: u64 = 1_000;

type Answer = oneshot::Sender<Result<Reply, RequestError>>;

/// An engine in this process and without sockets, which leads until `stop` is set: for whoever
/// measures it.
pub fn embedded(
    core: Core,
    store: Arc<dyn Store>,
    stop: watch::Receiver<bool>,
) -> (Handle, JoinHandle<()>) {
    let (engine, handle) =
        Engine::new(core, store, Clock::start(), Role::Leader { election_id: 1 });
    (handle, engine.start(stop))
}

/// What the engine is told.
pub(crate) enum Input {
    /// A switch registered. Replaces an earlier session of that name.
    Joined {
        switch: NodeName,
        link: SwitchLink,
        event: Event,
    },
    /// Something a switch said or answered; dropped if its session is not the current one.
    FromSwitch {
        switch: NodeName,
        session: SessionId,
        event: Event,
    },
    /// A session ended.
    Left {
        switch: NodeName,
        session: SessionId,
    },
    Request(Asked),
    /// The core as the store has it now, if it is to be replaced, and who leads.
    Role {
        core: Option<Box<Core>>,
        role: Role,
    },
    /// What the core is told, of no switch.
    Tell(Event),
    Query(Box<dyn FnOnce(&Core) + Send>),
    /// Handed to the switch's task; the core has no part in it.
    ReadCounters {
        switch: NodeName,
        cells: Vec<(CounterKind, u32)>,
        answer: CountersAnswer,
    },
}

/// Whether this controller decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It does, and switches obey it under this id.
    Leader { election_id: u128 },
    /// It answers questions from what the store has; who leads, if anybody does.
    Follower { leader: Option<String> },
}

impl Role {
    pub fn election_id(&self) -> Option<u128> {
        match self {
            Self::Leader { election_id } => Some(*election_id),
            Self::Follower { .. } => None,
        }
    }
}

pub(crate) struct Engine {
    core: Core,
    store: Arc<dyn Store>,
    clock: Clock,
    inputs: mpsc::Receiver<Input>,
    /// What came after a group of requests.
    held: Option<Input>,
    sessions: BTreeMap<NodeName, SwitchLink>,
    timers: BTreeMap<Timer, u64>,
    /// Records that the store has refused so far: newest value of each key.
    unsaved: Records,
    /// The store did not take the last that it was told, and the core knows.
    unwritable: bool,
    /// What the core is to be told first.
    untold: Option<Event>,
    retry_at_ms: Option<u64>,
    next_request: u64,
    /// Sequence number of the newest line of the event log.
    logged: watch::Sender<u64>,
    role: watch::Sender<Role>,
    offers: OpenOffers,
}

/// A request, by whom, and where the answer goes.
pub(crate) struct Asked {
    author: String,
    request: Request,
    answer: Answer,
}

/// Requests that share one commit.
struct Group {
    /// The core before the first of them.
    before: Core,
    handled: Vec<Handled>,
}

impl Group {
    fn new(before: Core) -> Self {
        Self { before, handled: Vec::new() }
    }

    /// The first of them that changes something, and the records of all.
    fn take_records(&mut self) -> Option<(usize, Vec<Record>)> {
        let first = self.handled.iter().position(|request| !request.records.is_empty())?;
        let records = self.handled.iter_mut().flat_map(|of| std::mem::take(&mut of.records));
        Some((first, records.collect()))
    }
}

/// A request that the core has looked at.
struct Handled {
    answer: Answer,
    reply: Result<Reply, Refusal>,
    /// Ready when what a refusal offers is worked out.
    offers: Option<oneshot::Receiver<()>>,
    records: Vec<Record>,
    /// What else is to be done.
    effects: Vec<Effect>,
}

impl Handled {
    /// A client that went away does not hear the answer.
    fn answer(self) {
        let Self { answer, reply, offers, .. } = self;
        let reply = reply.map_err(RequestError::Refused);
        match offers {
            None => drop(answer.send(reply)),
            Some(offers) => drop(tokio::spawn(async move {
                drop(offers.await);
                drop(answer.send(reply));
            })),
        }
    }
}

impl Engine {
    pub(crate) fn new(
        core: Core,
        store: Arc<dyn Store>,
        clock: Clock,
        role: Role,
    ) -> (Self, Handle) {
        let (sender, inputs) = mpsc::channel(INPUTS);
        let (logged, log) = watch::channel(0);
        let (role, roles) = watch::channel(role);
        let engine = Self {
            core,
            store,
            clock,
            inputs,
            held: None,
            sessions: BTreeMap::new(),
            timers: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            unwritable: false,
            untold: None,
            retry_at_ms: None,
            next_request: 0,
            logged,
            role,
            offers: OpenOffers::new(),
        };
        (engine, Handle::new(sender, log, roles))
    }

    /// Before the start: what the store did not take, and why. It is offered again until it does.
    pub(crate) fn owe(&mut self, key: &str, value: Vec<u8>, error: &StoreError) {
        self.unsaved.insert(key.to_owned(), Some(value));
        self.retry_at_ms = Some(self.clock.now_ms() + STORE_RETRY_MS);
        self.untold = self.store_event(Some(error));
    }

    /// Runs on a thread of its own: what a decision looks at stays in one processor's caches, and
    /// no server's work comes between two of them.
    pub(crate) fn start(self, stop: watch::Receiver<bool>) -> JoinHandle<()> {
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(self.run(stop)))
    }

    /// Runs until `stop` is set. What is queued by then is dropped: whoever waits for an
    /// answer is told that the controller stops.
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        // What was restored may want something done already.
        self.handle(Event::TimerDue(Timer::Batch)).await;
        if let Some(event) = self.untold.take() {
            self.handle(event).await;
        }
        loop {
            let due = self.timers.values().copied().chain(self.retry_at_ms).min();
            let sleep_until = due.map(|at_ms| self.clock.instant(at_ms).into());
            let timer = async {
                match sleep_until {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            if let Some(input) = self.held.take() {
                self.take(input).await;
                continue;
            }
            // `recv` and `wait_for` are cancel-safe. A sender of `stop` that is gone stops too.
            let input = tokio::select! {
                () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
                input = self.inputs.recv() => Some(input),
                () = timer => None,
            };
            match input {
                Some(Some(input)) => self.take(input).await,
                Some(None) => return,
                None => self.timers_due().await,
            }
        }
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Role { core, role } => self.change_role(core, role).await,
            // Its session ends as well.
            Input::Joined { .. } if !self.leads() => {}
            Input::Joined { switch, link, event } => {
                // Dropping the old link ends its task; what that still says is not current.
                self.sessions.insert(switch, link);
                self.handle(event).await;
            }
            Input::FromSwitch { switch, session, event } => {
                if self.is_current(&switch, session) {
                    self.handle(event).await;
                }
            }
            Input::Left { switch, session } => {
                if self.is_current(&switch, session) {
                    self.sessions.remove(&switch);
                    self.handle(Event::SwitchLeft { switch }).await;
                }
            }
            Input::Request(Asked { answer, .. }) if !self.leads() => {
                let leader = self.store.leader();
                let error = RequestError::Store(Arc::new(StoreError::NotLeader { leader }));
                drop(answer.send(Err(error)));
            }
            Input::Request(asked) => self.requests(asked).await,
            Input::Tell(event) => self.handle(event).await,
            Input::Query(query) => query(&self.core),
            Input::ReadCounters { switch, cells, answer } => match self.sessions.get(&switch) {
                Some(link) => link.read_counters(cells, answer),
                None => drop(answer.send(Err(CountersError::NotJoined))),
            },
        }
    }

    /// Decides on a request and on those that come meanwhile, one after the other. Those that come
    /// while a commit is on its way see what it stores, and are committed after it. Nobody is
    /// answered before what he asked for is stored, and with it all that he saw.
    async fn requests(&mut self, first: Asked) {
        let mut left = GROUP - 1;
        let mut group = Group::new(self.core.clone());
        group.handled.push(self.decided(first));
        let mut events = Vec::new();
        loop {
            let mut later = Group::new(self.core.clone());
            if let Some((first, records)) = group.take_records() {
                let merged = self.merged(records);
                let stored = self.commit_and_decide(&merged, &mut later, &mut left).await;
                let stored = self.committed(merged, true, stored);
                events.extend(self.store_event(stored.as_ref().err()));
                if let Err(error) = stored {
                    // What came after saw what is not stored.
                    self.core = group.before.clone();
                    left = 0;
                    let error = Arc::new(error);
                    for of in group.handled.drain(first..).chain(later.handled.drain(..)) {
                        drop(of.answer.send(Err(RequestError::Store(error.clone()))));
                    }
                }
            }
            for mut handled in group.handled {
                events.extend(self.carry_out(std::mem::take(&mut handled.effects)).await);
                handled.answer();
            }
            group = later;
            if group.handled.is_empty() {
                // Whoever was just answered may be about to ask again.
                tokio::task::yield_now().await;
                let Some(asked) = self.waiting_request(&mut left) else { break };
                group.handled.push(self.decided(asked));
            }
        }
        for event in events {
            self.handle(event).await;
        }
    }

    /// Commits, and decides on the requests that come meanwhile.
    async fn commit_and_decide(
        &mut self,
        records: &Records,
        later: &mut Group,
        left: &mut usize,
    ) -> Result<(), StoreError> {
        let store = self.store.clone();
        let mut commit = store.commit(transaction(records));
        loop {
            let input = tokio::select! {
                biased;
                stored = &mut commit => return stored.map(drop),
                Some(input) = self.inputs.recv(), if *left > 0 && self.held.is_none() => input,
            };
            if let Some(asked) = self.request(input) {
                *left -= 1;
                later.handled.push(self.decided(asked));
                tokio::task::yield_now().await;
            }
        }
    }

    fn decided(&mut self, Asked { author, request, answer }: Asked) -> Handled {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let event = Event::Request { id, author, request };
        let (mut records, mut effects, mut replies) = (Vec::new(), Vec::new(), Vec::new());
        for effect in self.core.handle(event, self.clock.now_ms()) {
            match effect {
                Effect::Persist(more) => records.extend(more.into_iter().map(record)),
                Effect::Reply { reply, .. } => replies.push(reply),
                other => effects.push(other),
            }
        }
        let reply = replies.pop().expect("the core replies to each request, once");
        let offers = reply.as_ref().err().and_then(Refusal::offers);
        let offers = offers.and_then(|offers| self.offers.work_out(offers.clone()));
        Handled { answer, reply, offers, records, effects }
    }

    /// The next input, if it is there, is a request and may be taken.
    fn waiting_request(&mut self, left: &mut usize) -> Option<Asked> {
        if *left == 0 || self.held.is_some() {
            return None;
        }
        let input = self.inputs.try_recv().ok()?;
        let asked = self.request(input)?;
        *left -= 1;
        Some(asked)
    }

    /// Anything else is kept for afterwards.
    fn request(&mut self, input: Input) -> Option<Asked> {
        match input {
            Input::Request(asked) => Some(asked),
            other => {
                self.held = Some(other);
                None
            }
        }
    }

    fn leads(&self) -> bool {
        self.role.borrow().election_id().is_some()
    }

    /// Whoever leads no more has no sessions; whoever begins to has what the store has.
    async fn change_role(&mut self, core: Option<Box<Core>>, role: Role) {
        self.sessions.clear();
        self.timers.clear();
        self.unsaved.clear();
        (self.retry_at_ms, self.unwritable) = (None, false);
        if let Some(core) = core {
            self.core = *core;
        }
        self.role.send_if_modified(|was| {
            let changed = *was != role;
            *was = role;
            changed
        });
        if self.leads() {
            self.handle(Event::TimerDue(Timer::Batch)).await;
        }
    }

    async fn timers_due(&mut self) {
        let now_ms = self.clock.now_ms();
        if self.retry_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.retry_at_ms = None;
            let stored = self.persist(Vec::new()).await;
            if let Err(error) = &stored {
                tracing::debug!(error = error as &dyn std::error::Error, "still not writable");
            }
            if let Some(event) = self.store_event(stored.as_ref().err()) {
                self.handle(event).await;
            }
        }
        let due: Vec<Timer> = self
            .timers
            .iter()
            .filter(|(_, at_ms)| **at_ms <= now_ms)
            .map(|(timer, _)| *timer)
            .collect();
        for timer in due {
            self.timers.remove(&timer);
            self.handle(Event::TimerDue(timer)).await;
        }
    }

    /// Tells the core, and then what could not be done of what it wanted.
    async fn handle(&mut self, event: Event) {
        if !self.leads() {
            return;
        }
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let effects = self.core.handle(event, self.clock.now_ms());
            events.extend(self.carry_out(effects).await);
        }
    }

    fn is_current(&self, switch: &NodeName, session: SessionId) -> bool {
        self.sessions.get(switch).is_some_and(|link| link.session() == session)
    }

    /// Returns what could not be told to a switch, as the events that say so.
    async fn carry_out(&mut self, effects: Vec<Effect>) -> Vec<Event> {
        let mut undelivered = Vec::new();
        for effect in effects {
            match effect {
                Effect::Persist(records) => {
                    // What happened in the network cannot be refused.
                    let stored = self.persist(records.into_iter().map(record).collect());
                    let stored = stored.await;
                    undelivered.extend(self.store_event(stored.as_ref().err()));
                }
                // Of a request only, where it was taken out.
                Effect::Reply { .. } => {}
                Effect::ReadEntries { switch, read } => {
                    undelivered.extend(self.tell(&switch, Command::Read { read }));
                }
                Effect::Write { switch, write, updates } => {
                    undelivered.extend(self.tell(&switch, Command::Write { write, updates }));
                }
                Effect::LoadHook { switch, hook, load } => {
                    undelivered.extend(self.tell(&switch, Command::LoadHook { hook, load }));
                }
                Effect::UnloadHook { switch, hook } => {
                    undelivered.extend(self.tell(&switch, Command::UnloadHook { hook }));
                }
                Effect::Log(entry) => self.log(&entry),
                Effect::SetTimer { timer, at_ms } => {
                    self.timers.insert(timer, at_ms);
                }
            }
        }
        undelivered
    }

    /// Hands a command to a switch's task. The event it fails with, if it cannot be.
    fn tell(&self, switch: &NodeName, command: Command) -> Option<Event> {
        match self.sessions.get(switch) {
            Some(link) => link.send(switch, command),
            None => command.failed(switch, "the switch has no session"),
        }
    }

    /// Commits records of what nobody can refuse, and with them what the store refused earlier.
    async fn persist(&mut self, records: Vec<Record>) -> Result<(), StoreError> {
        let merged = self.merged(records);
        // Nothing is what a store is asked whether it can be written with.
        if merged.is_empty() && !self.unwritable {
            return Ok(());
        }
        let stored = self.store.commit(transaction(&merged)).await.map(drop);
        self.committed(merged, false, stored)
    }

    /// The records, and before them what the store refused earlier.
    fn merged(&self, records: Vec<Record>) -> Records {
        let mut merged = self.unsaved.clone();
        merged.extend(records);
        merged
    }

    /// Notes how a commit ended. On failure all of it is kept for a later try, but for the records
    /// of a request, which is refused.
    fn committed(
        &mut self,
        records: Records,
        of_request: bool,
        stored: Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match stored {
            Ok(()) => {
                if !self.unsaved.is_empty() {
                    tracing::info!(records = records.len(), "the store takes writes again");
                }
                self.unsaved.clear();
                self.retry_at_ms = None;
                Ok(())
            }
            Err(error) => {
                if !of_request {
                    if self.unsaved.is_empty() {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, "kept in memory until the store takes it");
                    }
                    self.unsaved = records;
                }
                if !self.unsaved.is_empty() || error.is_retryable() {
                    self.retry_at_ms = Some(self.clock.now_ms() + STORE_RETRY_MS);
                }
                Err(error)
            }
        }
    }

    /// What the core has to be told of the store after a commit, if that is new.
    fn store_event(&mut self, failure: Option<&StoreError>) -> Option<Event> {
        let why = match failure {
            Some(error) if error.is_retryable() => Some(chain(error)),
            // Of the transaction, not of the store.
            Some(_) => return None,
            None => None,
        };
        let before = std::mem::replace(&mut self.unwritable, why.is_some());
        (before != why.is_some()).then_some(Event::Store { unwritable: why })
    }

    fn log(&self, entry: &LogEntry) {
        let LogEntry { kind, subject, text, .. } = entry;
        match entry.severity {
            Severity::Info => tracing::info!(kind, subject, "{text}"),
            Severity::Warning => tracing::warn!(kind, subject, "{text}"),
            Severity::Error => tracing::error!(kind, subject, "{text}"),
        }
        self.logged.send_replace(entry.sequence);
    }
}

/// A key and its new value, `None`: deleted.
type Record = (String, Option<Vec<u8>>);

type Records = BTreeMap<String, Option<Vec<u8>>>;

fn record(record: selvedge_core::RecordChange) -> Record {
    (record.key, record.value)
}

fn transaction(records: &Records) -> Transaction {
    let operations = records.iter().map(|(key, value)| match value {
        Some(value) => Operation::Put { key: key.clone(), value: value.clone() },
        None => Operation::Delete { key: key.clone() },
    });
    Transaction { preconditions: Vec::new(), operations: operations.collect() }
}

#[cfg(test)]
mod tests;
