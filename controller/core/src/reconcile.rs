//! Switches one by one: reading what they hold, writing what they should, step by step.
//!
//! ```text
//!            joined              entries read
//!  unknown ---------> reading -------------------> known <-----.
//!     ^                  |  failed, or no answer     | step    | written
//!     |  pause           |                           v         |
//!     `------------------+---------------------- writing ------'
//!                                failed, or no answer
//! ```
//!
//! A switch that leaves keeps its entries as last known: it goes on forwarding by them. The
//! steps of one plan follow each other; a change that comes meanwhile ends the plan between
//! two steps, and the next plan starts from what is held then.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use selvedge_pipeline::Key;
use selvedge_topology::NodeName;

use crate::Core;
use crate::effect::{Effect, Severity, Update};
use crate::event::{ReadId, Timer, WriteId};
use crate::order::{self, Held};
use crate::plan::{self, Difference, Stage, Step, Table};
use crate::prove::{self, Cause, Proofs, Rigor};

/// What is known of one switch's tables, and what it was asked and has not answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    /// Its entries as last read and since written; `None`: not known.
    pub(crate) held: Option<Arc<Table>>,
    /// What it should hold, if `held` is just that and its generation.
    same_as: Option<Arc<Table>>,
    reading: Option<(ReadId, u64)>,
    writing: Option<(WriteId, Vec<Update>, u64)>,
    /// When it may be read again after something failed.
    retry_at: Option<u64>,
    /// While `held` is not known: what it was last, and what was written since in vain.
    doubt: Option<(Arc<Table>, Vec<Update>)>,
}

impl Session {
    pub(crate) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether it is known to hold just what it should, and its generation.
    fn is_same_as(&self, wanted: Option<&Arc<Table>>) -> bool {
        self.same_as.as_ref().zip(wanted).is_some_and(|(same, wanted)| Arc::ptr_eq(same, wanted))
    }

    /// A new session: nothing of before counts.
    pub(crate) fn open(&mut self) {
        *self = Self { retry_at: Some(0), doubt: self.doubted(), ..Self::default() };
    }

    /// What it may hold, now that nobody knows.
    fn doubted(&mut self) -> Option<(Arc<Table>, Vec<Update>)> {
        let writing = self.writing.take().map(|(_, updates, _)| updates);
        match (self.held.take(), self.doubt.take()) {
            (Some(held), _) => Some((held, writing.unwrap_or_default())),
            (None, doubt) => doubt,
        }
    }

    fn as_held(&self, joined: bool) -> Held<'_> {
        match (&self.held, &self.doubt, &self.writing) {
            (Some(held), _, None) if joined => Held::Known(held),
            (Some(held), _, None) => Held::Fixed(held, &[]),
            (Some(held), _, Some((_, updates, _))) => Held::Fixed(held, updates),
            (None, Some((held, tried)), _) => Held::Fixed(held, tried),
            (None, None, _) => Held::Unknown,
        }
    }

    /// The session is gone, and with it every answer. If a write was under way, nobody knows
    /// what the switch holds.
    pub(crate) fn close(&mut self) {
        let held = self.held.clone().filter(|_| self.writing.is_none());
        *self = Self { held, doubt: self.doubted(), ..Self::default() };
    }
}

/// A plan that is being carried out.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    steps: VecDeque<Step>,
    /// Set while packets in flight are waited for.
    resume_at: Option<u64>,
}

/// A plan, and all that its proof needs.
#[derive(Clone, Debug)]
pub struct Proof {
    proofs: Proofs,
    world: Arc<prove::World>,
    held: prove::Tables,
    steps: Vec<Step>,
    rigor: Rigor,
    /// What switches should hold, where somebody asked for a change.
    wanted: Option<prove::Tables>,
}

impl Proof {
    /// Entries that the plan changes.
    pub fn entries(&self) -> usize {
        self.steps.iter().flat_map(|step| step.updates.values()).map(Vec::len).sum()
    }

    /// Proves the plan as [`Core::handle`] does.
    ///
    /// # Errors
    /// The first counter-example.
    pub fn check(mut self) -> Result<(), prove::CounterExample> {
        if let Some(wanted) = &self.wanted {
            let steps = (self.steps.as_slice(), self.rigor.whole);
            self.proofs.change(&self.world, (&self.held, wanted), steps)?;
        }
        self.run().map(drop)
    }

    fn run(&mut self) -> Result<prove::View, prove::CounterExample> {
        self.proofs.plan(&self.world, &self.held, &self.steps, self.rigor)
    }

    /// The result alone.
    fn run_at_one_go(&mut self) -> Result<prove::View, prove::CounterExample> {
        let steps = prove::at_one_go(&self.steps);
        self.proofs.plan(&self.world, &self.held, &steps, self.rigor)
    }
}

impl Core {
    pub(crate) fn entries_read(
        &mut self,
        switch: &NodeName,
        read: ReadId,
        result: Result<Vec<selvedge_pipeline::Entry>, String>,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        let Some(session) = self.sessions.get_mut(switch) else { return };
        if session.reading.is_none_or(|(asked, _)| asked != read) {
            return; // of an earlier session
        }
        session.reading = None;
        match result {
            Ok(entries) => {
                let table: Table = entries.into_iter().collect();
                if session.held.as_deref() != Some(&table) {
                    (session.held, session.same_as) = (Some(Arc::new(table)), None);
                    self.share(switch);
                    self.plan_soon(now_ms);
                }
            }
            Err(why) => self.failed(switch, &format!("reading entries: {why}"), now_ms, out),
        }
    }

    pub(crate) fn write_done(
        &mut self,
        switch: &NodeName,
        write: WriteId,
        result: Result<(), String>,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        let Some(session) = self.sessions.get_mut(switch) else { return };
        if session.writing.as_ref().is_none_or(|(asked, ..)| *asked != write) {
            return;
        }
        match result {
            Ok(()) => {
                let Some((_, updates, _)) = session.writing.take() else { return };
                plan::apply(Arc::make_mut(session.held.get_or_insert_default()), &updates);
                session.same_as = None;
                self.share(switch);
            }
            Err(why) => self.failed(switch, &format!("writing entries: {why}"), now_ms, out),
        }
    }

    /// Nobody knows what the switch holds now: read it again, after a pause.
    fn failed(&mut self, switch: &NodeName, why: &str, now_ms: u64, out: &mut Vec<Effect>) {
        let retry_at = now_ms + self.config.retry_ms;
        let session = self.sessions.entry(switch.clone()).or_default();
        let doubt = session.doubted();
        *session = Session { retry_at: Some(retry_at), doubt, ..Session::default() };
        // No removal overtakes an addition that failed.
        self.running = None;
        self.plan_soon(now_ms);
        self.log(Severity::Warning, "switch-failed", switch, why.to_owned(), now_ms, out);
    }

    /// Everything that is due: answers that did not come, reads, steps, and a new plan.
    pub(crate) fn advance(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        self.expire(now_ms, out);
        self.resync(now_ms);
        self.read(now_ms, out);
        let idle = |core: &Self| !core.sessions.values().any(Session::is_writing);
        // Each round writes something or ends.
        while idle(self) {
            if self.due_at.is_some_and(|at| at <= now_ms) {
                self.running = None;
                self.pass(now_ms, out);
            } else if !self.step(now_ms, out) {
                break;
            }
        }
        self.drive_hooks(now_ms, out);
        self.set_timers(out);
    }

    fn expire(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let late = |session: &Session| {
            session.reading.is_some_and(|(_, at)| at <= now_ms)
                || session.writing.as_ref().is_some_and(|(.., at)| *at <= now_ms)
        };
        let late: Vec<NodeName> =
            self.sessions.iter().filter(|(_, s)| late(s)).map(|(name, _)| name.clone()).collect();
        for switch in late {
            self.failed(&switch, "it did not answer in time", now_ms, out);
        }
    }

    /// Reads every switch again, from time to time, hint or no hint.
    fn resync(&mut self, now_ms: u64) {
        if self.resync_at.is_none_or(|at| at > now_ms) {
            return;
        }
        self.resync_at = Some(now_ms + self.config.resync_ms);
        for (name, session) in &mut self.sessions {
            let joined = self.network.switches.get(name).is_some_and(|s| s.joined);
            if joined && session.reading.is_none() && session.retry_at.is_none() {
                session.retry_at = Some(now_ms);
            }
        }
    }

    fn read(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let deadline = now_ms + self.config.answer_ms;
        for (name, session) in &mut self.sessions {
            let due = session.retry_at.is_some_and(|at| at <= now_ms);
            // What is read while a write is under way may be from before it.
            if !due || session.reading.is_some() || session.writing.is_some() {
                continue;
            }
            if !self.network.switches.get(name).is_some_and(|s| s.joined) {
                continue;
            }
            self.next_id += 1;
            let read = ReadId(self.next_id);
            session.reading = Some((read, deadline));
            session.retry_at = None;
            out.push(Effect::ReadEntries { switch: name.clone(), read });
        }
    }

    /// Plans from what switches hold towards what they should, and starts on it if it is safe.
    fn pass(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        self.due_at = None;
        if !self.refresh(now_ms, out) {
            return;
        }
        let (steps, generation, withheld) = self.plan_steps();
        if steps.is_empty() {
            self.blocked = None;
            self.persist(out);
            return;
        }
        let mut proof = self.proof(steps, withheld);
        let mut proven = proof.run();
        if withheld && proven.is_err() && proof.run_at_one_go().is_err() {
            // Nothing is sent a way that has to wait.
            proof.steps.retain(|step| step.stage == Stage::Fabric);
            proven = proof.run();
        }
        if let Err(counter) = &proven {
            let text = counter.to_string();
            // The network has forced this change: standing still would keep what is broken.
            // So if only a state on the way is at fault, it is said, and the way is taken.
            if proof.run_at_one_go().is_err() {
                if self.blocked.as_ref() != Some(&text) {
                    self.log(Severity::Error, "plan-refused", "plan", text.clone(), now_ms, out);
                }
                self.blocked = Some(text);
                self.proofs = proof.proofs;
                self.persist(out);
                return;
            }
            self.log(Severity::Warning, "plan-step-unsafe", "plan", text, now_ms, out);
        }
        let steps = proof.steps;
        self.proofs = proof.proofs;
        if let Ok(result) = proven {
            self.proofs.will_hold(result);
        }
        self.blocked = None;
        self.generation = generation;
        self.persist(out);
        self.running = Some(Running { steps: steps.into(), resume_at: None });
    }

    /// What [`Core`] is about to prove, apart from the rest of it; `None`: there is nothing to
    /// write. For measuring; the core itself does the same when it plans.
    pub fn proof_due(&mut self, now_ms: u64) -> Option<Proof> {
        self.refresh(now_ms, &mut Vec::new());
        let (steps, _, withheld) = self.plan_steps();
        (!steps.is_empty()).then(|| self.proof(steps, withheld))
    }

    /// The same for what an event brings about at once, besides what is due; the event is not
    /// taken.
    pub fn proof_of(&self, event: crate::Event, now_ms: u64) -> Option<Proof> {
        let mut then = self.clone();
        let asked = matches!(event, crate::Event::Request { .. });
        then.take(event, now_ms, &mut Vec::new());
        then.due_at.filter(|at| *at <= now_ms)?;
        // A plan waits until what is being written is answered.
        if then.sessions.values().any(Session::is_writing) {
            return None;
        }
        then.proofs = self.proofs.clone();
        let wanted = asked.then(|| then.derived.tables.clone());
        Some(Proof { wanted, ..then.proof_due(now_ms)? })
    }

    fn proof(&mut self, steps: Vec<Step>, withheld: bool) -> Proof {
        let whole = !withheld && !self.some_unknown();
        Proof {
            proofs: std::mem::take(&mut self.proofs),
            world: Arc::new(self.world()),
            held: self.held(),
            steps,
            rigor: Rigor { cause: Cause::Network, whole },
            wanted: None,
        }
    }

    /// The steps from what joined switches hold to what they should, their generation, and
    /// whether next hops are missing that have to wait for a switch.
    pub(crate) fn plan_steps(&self) -> (Vec<Step>, u64, bool) {
        let empty = Table::new();
        let writable = self.sessions.iter().filter_map(|(name, session)| {
            let wanted = self.derived.tables.get(name);
            let held = session.held.as_deref().filter(|_| !session.is_same_as(wanted))?;
            let joined = self.network.switches.get(name).is_some_and(|s| s.joined);
            joined.then(|| (name, held, wanted.map_or(&empty, Arc::as_ref)))
        });
        let mut writable = writable.peekable();
        if writable.peek().is_none() {
            return (Vec::new(), self.generation, false);
        }
        let highest =
            self.sessions.values().filter_map(|s| generation_of(s.held.as_deref()?)).max();
        let generation = self.generation.max(highest.unwrap_or(0)) + 1;
        let steps = plan::steps(writable, generation, self.some_unknown());
        let held = self.sessions.iter().map(|(name, session)| {
            let joined = self.network.switches.get(name).is_some_and(|s| s.joined);
            (name, session.as_held(joined))
        });
        let held = held.collect();
        let mut withheld = false;
        let in_rounds = |step: Step| {
            if step.stage != Stage::Fabric {
                return vec![step];
            }
            let (steps, some) = order::in_rounds(step, &held, &self.network, |switch| {
                self.numbers.known_node(switch)
            });
            withheld |= some;
            steps
        };
        let steps = steps.into_iter().flat_map(in_rounds).collect();
        (steps, generation, withheld)
    }

    /// Whether some switch that answers holds what nobody knows yet.
    pub(crate) fn some_unknown(&self) -> bool {
        let joined = |name: &NodeName| self.network.switches.get(name).is_some_and(|s| s.joined);
        self.sessions.iter().any(|(name, session)| joined(name) && session.held.is_none())
    }

    pub(crate) fn held(&self) -> BTreeMap<NodeName, Arc<Table>> {
        let known =
            |(name, session): (&NodeName, &Session)| Some((name.clone(), session.held.clone()?));
        self.sessions.iter().filter_map(known).collect()
    }

    /// Starts the next step, if there is one and its time has come.
    fn step(&mut self, now_ms: u64, out: &mut Vec<Effect>) -> bool {
        let Some(running) = &mut self.running else { return false };
        let Some(next) = running.steps.front() else {
            self.running = None;
            return false;
        };
        if next.stage == Stage::Removal {
            let resume_at = *running.resume_at.get_or_insert(now_ms + self.config.in_flight_ms);
            if now_ms < resume_at {
                return false;
            }
        }
        let step = running.steps.pop_front().expect("it was just looked at");
        let deadline = now_ms + self.config.answer_ms;
        for (switch, updates) in step.updates {
            // A plan is ended when a session is; so this is only to be sure.
            let joined = self.network.switches.get(&switch).is_some_and(|s| s.joined);
            let Some(session) = self.sessions.get_mut(&switch).filter(|_| joined) else { continue };
            self.next_id += 1;
            let write = WriteId(self.next_id);
            session.writing = Some((write, updates.clone(), deadline));
            // What a read that is under way answers may be from before this write.
            if session.reading.take().is_some() {
                session.retry_at = Some(now_ms);
            }
            out.push(Effect::Write { switch, write, updates });
        }
        true
    }

    fn set_timers(&mut self, out: &mut Vec<Effect>) {
        let step = self.running.as_ref().and_then(|running| running.resume_at);
        let waiting = step.filter(|_| !self.sessions.values().any(Session::is_writing));
        let answers = self.sessions.values().flat_map(|session| {
            let reading = session.reading.map(|(_, at)| at);
            let writing = session.writing.as_ref().map(|(.., at)| *at);
            [reading, writing, session.retry_at.filter(|at| *at > 0)]
        });
        let times = [
            (
                Timer::Batch,
                self.due_at.filter(|_| !self.sessions.values().any(Session::is_writing)),
            ),
            (Timer::Step, waiting),
            (Timer::Deadline, answers.flatten().min()),
            (Timer::Resync, self.resync_at),
            (Timer::Lifecycle, self.lifecycle_due_ms()),
            (Timer::Hooks, self.hook_retries.values().map(|retry| retry.at_ms).min()),
        ];
        for (timer, at) in times {
            if let Some(at_ms) = at
                && self.timers.insert(timer, at_ms) != Some(at_ms)
            {
                out.push(Effect::SetTimer { timer, at_ms });
            }
        }
    }

    /// Whether a switch holds exactly what it should.
    pub(crate) fn in_sync(&self, switch: &NodeName) -> bool {
        let wanted = self.derived.tables.get(switch);
        let Some(session) = self.sessions.get(switch) else { return false };
        session.is_same_as(wanted)
            || session.held.as_deref().is_some_and(|held| {
                let empty = Table::new();
                held.contains_key(&Key::Generation)
                    && !Difference::is_any(held, wanted.map_or(&empty, Arc::as_ref))
            })
    }

    /// A switch that holds what it should shares the entries of what it should: they take up
    /// memory once, and are not compared again.
    fn share(&mut self, switch: &NodeName) {
        if !self.in_sync(switch) {
            return;
        }
        let Some(wanted) = self.derived.tables.get(switch) else { return };
        let Some(session) = self.sessions.get_mut(switch) else { return };
        let generation = session.held.as_deref().and_then(|held| held.get(&Key::Generation));
        let mut shared = Table::clone(wanted);
        if let Some(generation) = generation.cloned() {
            shared.insert(generation);
        }
        let shared = Arc::new(shared);
        self.proofs.share(switch, &shared);
        (session.held, session.same_as) = (Some(shared), Some(wanted.clone()));
    }
}

pub(crate) fn generation_of(table: &Table) -> Option<u64> {
    match table.get(&Key::Generation)? {
        selvedge_pipeline::Entry::Generation(entry) => Some(entry.generation),
        _ => None,
    }
}
