//! Requests: tried on a copy, proven, and only then taken.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_slices::{Object, ObjectName};
use selvedge_topology::NodeName;

use crate::Core;
use crate::derived::{Unfit, unfit_when_joined};
use crate::drain::DrainMeta;
use crate::effect::{Effect, Reply, Severity};
use crate::event::{Change, Request, RequestId};
use crate::history::Note;
use crate::intent::Intent;
use crate::offers::Offers;
use crate::plan::{Difference, Plan, PlanId};
use crate::refusal::Refusal;

impl Core {
    pub(crate) fn request(
        &mut self,
        id: RequestId,
        author: &str,
        request: Request,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        // What follows from the network as it is now, so that the change alone is judged.
        self.refresh(now_ms, out);
        let reply = match request {
            Request::Plan(change) => Ok(Reply::Plan(self.plan(&change, author, now_ms))),
            Request::Apply { change, plan } => {
                self.apply(&change, plan.as_ref(), author, now_ms, out)
            }
            Request::Slice(request) => self.slice_request(&request, author, now_ms, out),
            Request::ReplaceTrafficRule { application, old, new } => {
                let next = self.intent.with_rule(&application, &old, &new, author, now_ms);
                let reason = format!("traffic rule {} of application {application}", new.id);
                let note = Note { author: author.to_owned(), reason, rollback: None };
                next.and_then(|next| self.take_intent(next, note, now_ms, out))
            }
        };
        out.push(Effect::Reply { request: id, reply });
    }

    fn apply(
        &mut self,
        change: &Change,
        plan: Option<&PlanId>,
        author: &str,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        if let Some(asked) = plan {
            let now = self.plan(change, author, now_ms).id;
            if *asked != now {
                return Err(Refusal::OtherPlan { asked: asked.clone(), now });
            }
        }
        let next = self.next(&*self.resolved(change)?, author, now_ms)?;
        let (author, reason) = (author.to_owned(), change.reason.clone());
        self.take_intent(next, Note { author, reason, rollback: change.rollback }, now_ms, out)
    }

    /// The intent after a change that is no rollback; `None`: it would be the same.
    fn next(&self, change: &Change, author: &str, now_ms: u64) -> Result<Option<Intent>, Refusal> {
        let next = self.intent.changed(change, author, now_ms)?;
        let (author, reason) = (author.to_owned(), change.reason.clone());
        let meta = DrainMeta { author, reason, at_ms: now_ms };
        self.with_drains((&change.drain, &change.undrain), next, &meta)
    }

    /// A rollback as what it puts and deletes.
    fn resolved<'a>(&self, change: &'a Change) -> Result<Cow<'a, Change>, Refusal> {
        match change.rollback {
            Some(revision) => self.history.back_to(revision, &self.intent).map(Cow::Owned),
            None => Ok(Cow::Borrowed(change)),
        }
    }

    /// Takes a new intent if everything about it is right; else nothing has changed.
    pub(crate) fn take_intent(
        &mut self,
        next: Option<Intent>,
        note: Note,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let Some(next) = next else {
            return Ok(Reply::Applied { changed: false, revision: self.intent.revision });
        };
        let mut trial = self.trial(next)?;
        let before = self.derived.clone();
        let text = note.text();
        let extent = self.extent(&trial);
        let history = Arc::make_mut(&mut trial.history);
        history.add((&self.intent, &trial.intent), note, extent, now_ms);
        *self = trial;
        self.persist(out);
        let subject = format!("revision {}", self.intent.revision);
        self.log(Severity::Info, "intent-changed", subject, text, now_ms, out);
        self.log_differences(&before, now_ms, out);
        self.due_at = Some(now_ms);
        Ok(Reply::Applied { changed: true, revision: self.intent.revision })
    }

    /// A copy of the core that has the new intent, computed and proven.
    pub(crate) fn trial(&self, next: Intent) -> Result<Self, Refusal> {
        next.check(&self.intent, &self.network.topology)?;
        let mut trial = self.clone();
        trial.intent = next;
        trial.lifecycle_at_ms = trial.intent.next_due_ms();
        trial.release_numbers(&self.intent);
        self.check_drains(&trial)?;
        trial.derive()?;
        let mut unfit: Option<Unfit> = None;
        // Before all switches have joined it is what is declared that counts.
        let all_joined = trial.network.switches.values().all(|switch| switch.joined);
        // Only what this change brings about is held against it.
        for (name, place) in &trial.derived.places {
            let before = self.derived.places.get(name);
            let object = |core: &Self| core.intent.applications.get(name).map(|s| s.object.clone());
            let was_kept = before.is_none_or(|before| before.reason.is_none());
            if place.reason.is_none() || (object(self) == object(&trial) && !was_kept) {
                continue;
            }
            let reason = match all_joined {
                true => place.reason.as_ref(),
                false => {
                    unfit.get_or_insert_with(|| unfit_when_joined(&trial)).applications.get(name)
                }
            };
            if let Some(reason) = reason {
                let (application, reason) = (name.to_string(), reason.clone());
                return Err(Refusal::NoPlace { application, reason });
            }
        }
        let mut names: BTreeSet<&ObjectName> = BTreeSet::new();
        self.derived.slices.differences(&trial.derived.slices, |name, _, _| names.extend([name]));
        names.extend(self.intent.slices.since(&trial.intent.slices).iter().map(|(name, ..)| *name));
        for name in names {
            let Some(slice) = trial.derived.slices.get(name) else { continue };
            let before = self.derived.slices.get(name);
            let object = |core: &Self| core.intent.slices.get(name).map(|s| s.object.clone());
            let same = object(self) == object(&trial);
            let was_kept = before.is_none_or(|before| before.reasons.is_empty());
            if slice.reasons.is_empty() || (same && !was_kept) {
                continue;
            }
            let reason = match all_joined {
                true => slice.reasons.first(),
                false => {
                    unfit.get_or_insert_with(|| unfit_when_joined(&trial)).slices.get(name.as_str())
                }
            };
            if let Some(reason) = reason {
                let (slice, reason) = (name.to_string(), reason.clone());
                if same && let Some(what) = trial.intent.newly_drained(&self.intent) {
                    return Err(Refusal::DrainBreaks { what, slice, reason });
                }
                let object = trial.intent.slices[name].object.clone();
                let offers = Offers::instead_of(object, trial.derived.clone());
                return Err(Refusal::DoesNotFit { slice, reason, offers });
            }
        }
        trial.prove_desired()?;
        Ok(trial)
    }

    /// The tables as they should be, and the way there from what switches hold.
    fn prove_desired(&mut self) -> Result<(), Refusal> {
        let world = Arc::new(self.world());
        let (steps, _, withheld) = self.plan_steps();
        let tables = (&self.held(), &self.derived.tables);
        let whole = !withheld && !self.some_unknown();
        self.proofs.change(&world, tables, (&steps, whole)).map_err(Refusal::NotProven)
    }

    /// Gives back what `before` has numbers for, and the intent does not any more.
    fn release_numbers(&mut self, before: &Intent) {
        let intent = &self.intent;
        let slices = before.slices.since(&intent.slices);
        let gone = slices.iter().filter(|(_, _, new)| new.is_none());
        self.numbers.release_slices(&gone.map(|(name, ..)| name.as_str()).collect());
        let has_rates = |slice: &ObjectName, host: &NodeName| {
            let stored = intent.slices.get(slice).map(|stored| stored.object.rated());
            stored.is_some_and(|mut rated| rated.any(|endpoint| endpoint.name == *host))
        };
        let were = slices.iter().filter_map(|(_, old, _)| *old).flat_map(|old| old.object.rated());
        let ended = were
            .map(|endpoint| &endpoint.name)
            .filter(|host| !intent.slices.naming(host).any(|slice| has_rates(slice, host)));
        self.numbers.release_endpoints(ended);
        if before.applications == intent.applications {
            return;
        }
        let rules: BTreeSet<String> = intent
            .applications
            .iter()
            .flat_map(|(name, stored)| {
                let rules = stored.object.traffic_rules.iter();
                rules.map(move |rule| format!("{name}/{}/", rule.id))
            })
            .collect();
        self.numbers.release_rules(|name| rules.iter().any(|prefix| name.starts_with(prefix)));
    }

    /// What a change would do, on a copy.
    fn plan(&self, change: &Change, author: &str, now_ms: u64) -> Plan {
        let mut differences = BTreeMap::new();
        let mut places = self.places.clone();
        let mut warnings: Vec<String> = change.put.iter().flat_map(Object::not_enforced).collect();
        let mut notes: Vec<String> = change.put.iter().flat_map(Object::filled_in).collect();
        let mut refusal = None;
        let (mut objects, mut operations) = (Vec::new(), Vec::new());
        let resolved = self.resolved(change);
        let trial = resolved.as_ref().map_err(Refusal::clone).and_then(|change| {
            match self.next(change, author, now_ms)? {
                None => Ok(None),
                Some(next) => self.trial(next).map(Some),
            }
        });
        match trial {
            Ok(None) => {}
            Ok(Some(trial)) => {
                differences = self.differences(&trial);
                objects = self.intent.touched(&trial.intent);
                operations = self.intent.operations(&trial.intent);
                warnings.extend(self.drain_warnings(&trial));
                notes.extend(trial.intent.not_active(&change.put));
                for (name, slice) in &trial.derived.slices {
                    for reason in &slice.reasons {
                        warnings.push(format!("slice {name}: {reason}"));
                    }
                }
                for (name, place) in &trial.derived.places {
                    let reason = place.reason.iter();
                    warnings.extend(reason.map(|reason| format!("application {name}: {reason}")));
                }
                notes.extend(trial.places_new_to(self));
                places = trial.places;
            }
            Err(why) => refusal = Some(why),
        }
        let network = (self.derived.snapshot.down(), &self.derived.located);
        let text = match &refusal {
            Some(refusal) => format!("{network:?} refused: {refusal}"),
            None => {
                let change = resolved.as_deref().unwrap_or(change);
                let objects = (&change.put, &change.modules, &change.delete);
                format!("{network:?} {objects:?} {operations:?} {places:?}")
            }
        };
        let id = PlanId::new(self.intent.revision, &text, &differences);
        Plan { id, objects, operations, switches: differences, refusal, warnings, notes }
    }

    /// Table entries that a trial adds, changes and removes, and on how many switches.
    fn extent(&self, trial: &Self) -> [usize; 4] {
        let differences = self.differences(trial);
        differences.values().fold([0, 0, 0, differences.len()], |[a, c, r, switches], d| {
            [a + d.added.len(), c + d.changed.len(), r + d.removed.len(), switches]
        })
    }

    fn differences(&self, trial: &Self) -> BTreeMap<NodeName, Difference> {
        let empty = crate::plan::Table::new();
        let names: BTreeSet<&NodeName> =
            self.derived.tables.keys().chain(trial.derived.tables.keys()).collect();
        let between = |name: &NodeName| {
            let (before, after) = (self.derived.tables.get(name), trial.derived.tables.get(name));
            if before.zip(after).is_some_and(|(before, after)| Arc::ptr_eq(before, after)) {
                return Difference::default();
            }
            let before = before.map_or(&empty, Arc::as_ref);
            Difference::between(before, after.map_or(&empty, Arc::as_ref))
        };
        let all = names.into_iter().map(|name| (name.clone(), between(name)));
        all.filter(|(_, difference)| !difference.is_empty()).collect()
    }
}
