//! The life of a slice (TS 28.530 §4.3, TS 28.531 §5.1) as a state of the intent.
//!
//! ```text
//!              reserve                  activate, or its start
//!  (in a file) --------> reserved ------------------------------> active <----.
//!       |                 |    ^                                  |   ^       | activate
//!       |         expires |    | reserve               deactivate |   | apply |
//!       |                 v    |                                  v   |       |
//!       |               designed ---------------------------------|---'  deactivated
//!       |                 ^           its end (of any)            |
//!       |                 '---------------------------------------'
//!       '--- apply ---> active, or reserved until its start
//! ```
//!
//! A slice that is *reserved* or *deactivated* holds its capacity in admission's ledger, and
//! switches have nothing of it: commissioning allocates resources, deactivation stops the
//! service, and only termination gives them back (TS 28.530 §4.3.3 to 4.3.5). One that is
//! *designed* holds nothing. Deleting is possible at any time. What is deactivated stays so
//! until it is activated: applying a changed document changes it, no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_slices::schedule::Timestamp;
use selvedge_slices::{NetworkSlice, Object, ObjectName};

use crate::Core;
use crate::effect::{Effect, LogEntry, Reply, Severity};
use crate::event::Change;
use crate::history::Note;
use crate::intent::{Intent, StoredSlice};
use crate::offers::Offers;
use crate::plan::PlanId;
use crate::refusal::Refusal;

/// The longest time that a reservation is given.
pub const MAX_RESERVATION_MS: u64 = 30 * 86_400_000;
/// What a feasibility check found is good for this time at most.
pub const CHECK_VALID_MS: u64 = 300_000;
/// A start or end that could not be carried out is tried again after this time.
const TRY_AGAIN_MS: u64 = 10_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Known; nothing is held for it.
    Designed,
    Reserved {
        /// When it is given up; `None`: it waits for its start.
        until_ms: Option<u64>,
    },
    #[default]
    Active,
    Deactivated,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Designed => "designed",
            Self::Reserved { .. } => "reserved",
            Self::Active => "active",
            Self::Deactivated => "deactivated",
        }
    }

    pub(crate) fn holds_capacity(self) -> bool {
        self != Self::Designed
    }
}

/// What is asked of slices as such, beside what [`Change`] does.
#[derive(Clone, Debug, PartialEq)]
pub enum SliceRequest {
    /// Would the slices of this change fit, one after the other? Changes nothing. Reply:
    /// [`Reply::Feasibility`].
    Check(Change),
    /// Takes the change, but its slices hold their capacity only, until then. Reply:
    /// [`Reply::Applied`].
    Reserve { change: Change, until_ms: u64 },
    /// Reply: [`Reply::Applied`].
    Activate(ObjectName),
    /// Reply: [`Reply::Applied`].
    Deactivate(ObjectName),
}

impl SliceRequest {
    /// For the history.
    fn reason(&self) -> String {
        match self {
            Self::Check(change) | Self::Reserve { change, .. } if !change.reason.is_empty() => {
                change.reason.clone()
            }
            Self::Check(_) => String::new(),
            Self::Reserve { change, until_ms } => {
                let slices: Vec<&str> = change.put.iter().map(|o| o.name().as_str()).collect();
                format!("reserve {} until {}", slices.join(", "), Timestamp(*until_ms))
            }
            Self::Activate(name) => format!("activate slice {name}"),
            Self::Deactivate(name) => format!("deactivate slice {name}"),
        }
    }
}

/// Whether a slice would fit (TS 28.541 §6.3.36, FeasibilityCheckAndReservationJob).
#[derive(Clone, Debug, PartialEq)]
pub struct Feasibility {
    pub slice: ObjectName,
    /// Why not; `None`: it fits.
    pub refusal: Option<Refusal>,
    /// What would be accepted in its place.
    pub recommended: Option<NetworkSlice>,
    pub valid: Validity,
}

/// How long a check's answer holds: it keeps nothing free, a reservation does. It is good for
/// the state that it was found in, and until a time: [`CHECK_VALID_MS`] from the check, or when
/// a slice starts, ends or gives its reservation up by itself, whichever is first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Names intent and network by the intent's revision and a digest; a later check of the same
    /// state names it so, too.
    pub state: PlanId,
    /// Since the Unix epoch.
    pub until_ms: u64,
}

impl StoredSlice {
    pub(crate) fn phase(&self) -> Phase {
        self.meta.phase
    }

    /// When its phase changes by itself.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        let schedule = self.object.schedule;
        let start = schedule.and_then(|schedule| schedule.start).map(|at| at.0);
        let end = schedule.and_then(|schedule| schedule.end).map(|at| at.0);
        match self.phase() {
            Phase::Designed => None,
            Phase::Reserved { until_ms } => [until_ms, start, end].into_iter().flatten().min(),
            Phase::Active | Phase::Deactivated => end,
        }
    }

    /// The phase it goes to now by itself, and what to call that; `None`: it stays.
    fn transition(&self, now_ms: u64) -> Option<(Phase, &'static str, String)> {
        let schedule = self.object.schedule;
        let past = |at: Option<u64>| at.is_some_and(|at| at <= now_ms);
        let start = schedule.and_then(|schedule| schedule.start).map(|at| at.0);
        let end = schedule.and_then(|schedule| schedule.end).map(|at| at.0);
        let told = schedule.map(|schedule| schedule.told()).unwrap_or_default();
        match self.phase() {
            Phase::Designed => None,
            _ if past(end) => {
                let text = format!("its schedule ({told}) is over; what it held is given back");
                Some((Phase::Designed, "slice-ended", text))
            }
            Phase::Reserved { .. } if past(start) => {
                Some((Phase::Active, "slice-activated", format!("as scheduled ({told})")))
            }
            Phase::Reserved { until_ms } if past(until_ms) => {
                let text = String::from("its reservation has expired; what it held is given back");
                Some((Phase::Designed, "reservation-expired", text))
            }
            Phase::Reserved { .. } | Phase::Active | Phase::Deactivated => None,
        }
    }
}

/// The phase of a slice that is put, where `old` is there already.
pub(crate) fn phase_of_put(
    old: Option<&StoredSlice>,
    slice: &NetworkSlice,
    now_ms: u64,
) -> Result<Phase, Refusal> {
    let schedule = slice.schedule;
    if let Some(end) = schedule.and_then(|schedule| schedule.end).filter(|end| end.0 <= now_ms) {
        // A file with a slice that is over may still be applied for the others in it.
        let over = old.filter(|old| old.object.schedule == schedule).map(StoredSlice::phase);
        let refusal = || Refusal::ScheduleOver { slice: slice.name.clone(), end };
        return over.ok_or_else(refusal);
    }
    let waits = schedule.and_then(|schedule| schedule.start).is_some_and(|at| at.0 > now_ms);
    Ok(match old.map(StoredSlice::phase) {
        Some(Phase::Deactivated) => Phase::Deactivated,
        _ if waits => Phase::Reserved { until_ms: None },
        _ => Phase::Active,
    })
}

impl Intent {
    /// Slices that switches should have.
    pub(crate) fn active(&self) -> impl Iterator<Item = (&ObjectName, &Arc<StoredSlice>)> {
        self.slices.iter().filter(|(_, stored)| stored.phase() == Phase::Active)
    }

    /// One of them.
    pub(crate) fn active_slice(&self, name: &ObjectName) -> Option<&Arc<StoredSlice>> {
        self.slices.get(name).filter(|stored| stored.phase() == Phase::Active)
    }

    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.slices.due().next().map(|(due_ms, _)| *due_ms)
    }

    /// Of slices that are put: those that switches will have nothing of, and why, for people.
    pub(crate) fn not_active(&self, put: &[Object]) -> Vec<String> {
        let told = |object: &Object| {
            let Object::NetworkSlice(slice) = object else { return None };
            let stored = self.slices.get(&slice.name)?;
            let what = match (stored.phase(), stored.object.schedule) {
                (Phase::Active, _) => return None,
                (Phase::Reserved { .. }, Some(schedule)) => {
                    format!("is reserved until it starts: active {}", schedule.told())
                }
                (phase, _) => format!("is {} and stays so until it is activated", phase.as_str()),
            };
            Some(format!("slice {} {what}", slice.name))
        };
        put.iter().filter_map(told).collect()
    }

    fn with_phase(&self, name: &ObjectName, phase: Phase) -> Self {
        let mut next = self.clone();
        next.revision += 1;
        let revision = next.revision;
        next.slices.edit(name, |stored| {
            // Who has held nothing stands behind those who have.
            if !stored.phase().holds_capacity() {
                stored.meta.revision = revision;
            }
            stored.meta.phase = phase;
        });
        next
    }

    fn reserved(
        &self,
        change: &Change,
        until_ms: u64,
        author: &str,
        now_ms: u64,
    ) -> Result<Option<Self>, Refusal> {
        if until_ms <= now_ms || until_ms - now_ms > MAX_RESERVATION_MS {
            return Err(Refusal::ReservationTime { days: MAX_RESERVATION_MS / 86_400_000 });
        }
        let changed = self.changed(change, author, now_ms)?;
        let mut next =
            changed.unwrap_or_else(|| Self { revision: self.revision + 1, ..self.clone() });
        for object in &change.put {
            let Object::NetworkSlice(NetworkSlice { name, .. }) = object else { continue };
            let before = self.slices.get(name).map(|stored| stored.phase());
            if let Some(phase @ (Phase::Active | Phase::Deactivated)) = before {
                let why = "it holds its capacity already";
                return Err(Refusal::Phase { slice: name.clone(), phase, why });
            }
            let phase = Phase::Reserved { until_ms: Some(until_ms) };
            next.slices.edit(name, |stored| stored.meta.phase = phase);
        }
        Ok(Some(next))
    }

    fn activated(&self, name: &ObjectName, now_ms: u64) -> Result<Option<Self>, Refusal> {
        let stored = self.slice(name)?;
        let schedule = stored.object.schedule;
        let phase = stored.phase();
        let refused = |why| Refusal::Phase { slice: name.clone(), phase, why };
        if schedule.and_then(|schedule| schedule.end).is_some_and(|end| end.0 <= now_ms) {
            return Err(refused("its schedule is over; apply it with another"));
        }
        if schedule.and_then(|schedule| schedule.start).is_some_and(|at| at.0 > now_ms) {
            return Err(refused("its schedule has not begun; apply it with another"));
        }
        Ok((phase != Phase::Active).then(|| self.with_phase(name, Phase::Active)))
    }

    fn deactivated(&self, name: &ObjectName) -> Result<Option<Self>, Refusal> {
        match self.slice(name)?.phase() {
            Phase::Active => Ok(Some(self.with_phase(name, Phase::Deactivated))),
            Phase::Deactivated => Ok(None),
            phase @ (Phase::Designed | Phase::Reserved { .. }) => Err(Refusal::Phase {
                slice: name.clone(),
                phase,
                why: "only what is active can be deactivated; delete gives a reservation back",
            }),
        }
    }

    fn slice(&self, name: &ObjectName) -> Result<&StoredSlice, Refusal> {
        let kind = selvedge_slices::ObjectKind::NetworkSlice;
        let stored = self.slices.get(name);
        stored.map(Arc::as_ref).ok_or_else(|| Refusal::NotFound { kind, name: name.clone() })
    }
}

impl Core {
    pub(crate) fn slice_request(
        &mut self,
        request: &SliceRequest,
        author: &str,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let next = match request {
            SliceRequest::Check(change) => {
                return self.feasibility(change, author, now_ms).map(Reply::Feasibility);
            }
            SliceRequest::Reserve { change, until_ms } => {
                self.intent.reserved(change, *until_ms, author, now_ms)
            }
            SliceRequest::Activate(name) => self.intent.activated(name, now_ms),
            SliceRequest::Deactivate(name) => self.intent.deactivated(name),
        };
        let before = self.intent.clone();
        let note = Note { author: author.to_owned(), reason: request.reason(), rollback: None };
        let reply = self.take_intent(next?, note, now_ms, out)?;
        self.log_phases(&before, author, now_ms, out);
        Ok(reply)
    }

    fn log_phases(&mut self, before: &Intent, author: &str, now_ms: u64, out: &mut Vec<Effect>) {
        let intent = self.intent.clone();
        for (name, old, new) in before.slices.since(&intent.slices) {
            let (old, new) = (old.map(|stored| stored.phase()), new.map(|stored| stored.phase()));
            let Some(phase) = new.filter(|_| old != new) else { continue };
            let kind = match phase {
                Phase::Designed => "slice-ended",
                Phase::Reserved { .. } => "slice-reserved",
                Phase::Active => "slice-activated",
                Phase::Deactivated => "slice-deactivated",
            };
            self.log(Severity::Info, kind, name, format!("by {author}"), now_ms, out);
        }
    }

    /// Starts, ends and expiries that are due.
    pub(crate) fn lifecycle(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let wait = self.lifecycle_retry_ms.is_some_and(|at| at > now_ms);
        if wait || self.lifecycle_at_ms.is_none_or(|at| at > now_ms) {
            return;
        }
        self.lifecycle_retry_ms = None;
        // What follows from the network as it is now, so that the change alone is judged.
        self.refresh(now_ms, out);
        let due: Vec<(ObjectName, Phase, &str, String)> = self
            .intent
            .slices
            .due()
            .take_while(|(due_ms, _)| *due_ms <= now_ms)
            .filter_map(|(_, name)| {
                let (phase, kind, text) = self.intent.slices.get(name)?.transition(now_ms)?;
                Some((name.clone(), phase, kind, text))
            })
            .collect();
        for (name, phase, kind, text) in due {
            let next = self.intent.with_phase(&name, phase);
            let note = Note {
                author: "schedule".to_owned(),
                reason: format!("slice {name}: {text}"),
                rollback: None,
            };
            match self.take_intent(Some(next), note, now_ms, out) {
                Ok(_) => self.log(Severity::Info, kind, &name, text, now_ms, out),
                Err(refusal) => {
                    // The same refusal each time is one line of the log.
                    let text = format!("{kind} is due, but {refusal}");
                    let about = |entry: &&Arc<LogEntry>| entry.subject == *name.as_str();
                    let said = self.events.values().rev().find(about);
                    if said.is_none_or(|said| said.text != text) {
                        self.log(Severity::Error, "slice-overdue", &name, text, now_ms, out);
                    }
                    self.lifecycle_retry_ms = Some(now_ms + TRY_AGAIN_MS);
                }
            }
        }
    }

    /// When [`Core::lifecycle`] has something to do next.
    pub(crate) fn lifecycle_due_ms(&self) -> Option<u64> {
        let due = self.lifecycle_at_ms?;
        Some(self.lifecycle_retry_ms.map_or(due, |retry| retry.max(due)))
    }

    /// Each slice of the change on what the ones before it leave.
    fn feasibility(
        &self,
        change: &Change,
        author: &str,
        now_ms: u64,
    ) -> Result<Vec<Feasibility>, Refusal> {
        let is_slice = |object: &&Object| matches!(object, Object::NetworkSlice(_));
        let others = change.put.iter().filter(|object| !is_slice(object)).cloned().collect();
        let others = Change { put: others, ..change.clone() };
        let mut base = match self.intent.changed(&others, author, now_ms)? {
            Some(next) => self.trial(next)?,
            None => self.clone(),
        };
        let valid = self.validity(now_ms);
        let mut answers = Vec::new();
        for object in change.put.iter().filter(is_slice) {
            let Object::NetworkSlice(slice) = object else { continue };
            let (refusal, recommended) = match base.tried(slice, author, now_ms) {
                Ok(next) => {
                    base = next;
                    (None, None)
                }
                Err(refusal) => (Some(refusal), base.recommended(slice, author, now_ms)),
            };
            let (slice, valid) = (slice.name.clone(), valid.clone());
            answers.push(Feasibility { slice, refusal, recommended, valid });
        }
        Ok(answers)
    }

    fn validity(&self, now_ms: u64) -> Validity {
        let derived = &self.derived;
        let network = (derived.snapshot.down(), &derived.attachments, &derived.hook_memory);
        let state = PlanId::new(self.intent.revision, &format!("{network:?}"), &BTreeMap::new());
        let latest = now_ms.saturating_add(CHECK_VALID_MS);
        let until_ms = self.lifecycle_at_ms.map_or(latest, |due| due.clamp(now_ms, latest));
        Validity { state, until_ms }
    }

    /// The core with the slice active.
    fn tried(&self, slice: &NetworkSlice, author: &str, now_ms: u64) -> Result<Self, Refusal> {
        let put = vec![Object::NetworkSlice(slice.clone())];
        let change = Change { put, ..Change::default() };
        match self.intent.changed(&change, author, now_ms)? {
            Some(next) => self.trial(next),
            None => Ok(self.clone()),
        }
    }

    /// The nearest slice that would be taken, where admission can say.
    fn recommended(&self, slice: &NetworkSlice, author: &str, now_ms: u64) -> Option<NetworkSlice> {
        let mut slice = slice.clone();
        slice.classify(self.intent.class_map());
        let slice = Arc::new(slice);
        let offers = Offers::instead_of(slice.clone(), self.derived.clone());
        let mut offers = offers.iter().map(|offer| offer.applied(&slice));
        offers.find(|offer| self.tried(offer, author, now_ms).is_ok())
    }
}
