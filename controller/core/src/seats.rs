//! Who is attached to a slice that has a maximum: maxNumberofUEs, maxNumberofPDUSessions
//! (TS 28.541 §6.3.3).
//!
//! A `ue` endpoint attaches when it is located, and holds its seat until it no longer is. Who
//! comes when all seats are taken waits, outside of the slice, for one to be given up. An
//! endpoint whose port has lost its carrier keeps its seat as long as nobody waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_slices::{NetworkSlice, ObjectName, Side};
use selvedge_topology::NodeName;

use crate::Core;
use crate::attach::Located;
use crate::effect::{Effect, Severity};
use selvedge_topology::sorted::Sorted;

/// By slice; those without a maximum are not here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seats(Arc<BTreeMap<ObjectName, Seating>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seating {
    /// As the slice states them, in words.
    maximum: String,
    /// In the order in which they came.
    seated: Vec<NodeName>,
    waiting: BTreeSet<NodeName>,
}

impl Seats {
    /// Who is attached now, where `self` is who was before.
    pub(crate) fn after(&self, core: &Core, located: &Sorted<NodeName, Located>) -> Self {
        let of = |slice: &NetworkSlice| {
            let most = slice.most_ues()?;
            let before = self.0.get(&slice.name).map(|seating| seating.seated.as_slice());
            let seating = seating(core, located, slice, most, before.unwrap_or_default());
            Some((slice.name.clone(), seating))
        };
        let seats = core.intent.slices.with_maximum().filter_map(of).collect();
        if *self.0 == seats { self.clone() } else { Self(Arc::new(seats)) }
    }

    /// Slices where others are attached, or wait.
    pub(crate) fn changed<'a>(&'a self, now: &'a Self) -> impl Iterator<Item = &'a ObjectName> {
        let same = Arc::ptr_eq(&self.0, &now.0);
        let all = self.0.keys().chain(now.0.keys()).filter(move |_| !same);
        all.filter(|slice| self.0.get(*slice) != now.0.get(*slice))
    }

    /// Who waits for a slice.
    pub(crate) fn waiting(&self, slice: &ObjectName) -> impl Iterator<Item = &NodeName> {
        self.0.get(slice).into_iter().flat_map(|seating| &seating.waiting)
    }

    pub(crate) fn waits(&self, slice: &ObjectName, endpoint: &NodeName) -> bool {
        self.0.get(slice).is_some_and(|seating| seating.waiting.contains(endpoint))
    }

    /// Who is attached to a slice: what the store keeps.
    pub(crate) fn seated(&self, slice: &ObjectName) -> Option<Vec<&str>> {
        Some(self.0.get(slice)?.seated.iter().map(NodeName::as_str).collect())
    }

    /// Puts back what [`Seats::seated`] gave.
    pub(crate) fn restore(&mut self, slice: ObjectName, seated: Vec<NodeName>) {
        Arc::make_mut(&mut self.0).insert(slice, Seating { seated, ..Seating::default() });
    }

    /// For people; `None`: the slice has no maximum.
    pub(crate) fn explain(&self, slice: &ObjectName) -> Option<String> {
        let seating = self.0.get(slice)?;
        let mut text = format!("{}: {} attached", seating.maximum, seating.seated.len());
        if !seating.seated.is_empty() {
            text += &format!(" ({})", list(&seating.seated));
        }
        if !seating.waiting.is_empty() {
            text += &format!("; not admitted: {}", list(&seating.waiting));
        }
        Some(text)
    }
}

fn seating(
    core: &Core,
    located: &Sorted<NodeName, Located>,
    slice: &NetworkSlice,
    most: usize,
    before: &[NodeName],
) -> Seating {
    let is_up = |name: &NodeName| {
        let at = located.get(name);
        let port = at.and_then(|at| core.network.switches.get(&at.switch)?.ports.get(&at.port));
        port.is_some_and(|port| port.up)
    };
    let here: BTreeSet<&NodeName> =
        slice.endpoints_on(Side::Ue).filter(|name| located.contains_key(*name)).collect();
    let mut seated: Vec<NodeName> =
        before.iter().filter(|name| here.contains(name)).cloned().collect();
    if here.len() > most {
        seated.retain(is_up);
    }
    seated.truncate(most);
    let mut others: Vec<&NodeName> =
        here.into_iter().filter(|name| !seated.contains(name)).collect();
    others.sort_by_key(|name| !is_up(name));
    let waiting = others.split_off(others.len().min(most - seated.len()));
    seated.extend(others.into_iter().cloned());
    let maxima = [
        slice.max_ues.map(|most| format!("maxNumberofUEs {most}")),
        slice.max_pdu_sessions.map(|most| format!("maxNumberofPDUSessions {most}")),
    ];
    Seating {
        maximum: maxima.into_iter().flatten().collect::<Vec<_>>().join(", "),
        seated,
        waiting: waiting.into_iter().cloned().collect(),
    }
}

fn list<'a>(names: impl IntoIterator<Item = &'a NodeName>) -> String {
    names.into_iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

impl Core {
    pub(crate) fn log_seats(
        &mut self,
        before: &Seats,
        after: &Seats,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        let empty = Seating::default();
        for (slice, seating) in &*after.0 {
            let old = before.0.get(slice).unwrap_or(&empty);
            for endpoint in seating.waiting.difference(&old.waiting) {
                let holders = list(&seating.seated);
                let text = format!(
                    "{endpoint} is not admitted: {}, attached are {holders}",
                    seating.maximum
                );
                self.log(Severity::Warning, "endpoint-refused", slice, text, now_ms, out);
            }
            for endpoint in seating.seated.iter().filter(|name| old.waiting.contains(*name)) {
                let text = format!("{endpoint} is admitted now");
                self.log(Severity::Info, "endpoint-admitted", slice, text, now_ms, out);
            }
        }
    }
}
