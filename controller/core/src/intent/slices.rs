//! Slices by name, and who finds them otherwise: there may be ten thousand, and a change of one
//! looks at those only that it concerns.

use std::ops::Deref;
use std::sync::Arc;

use selvedge_slices::admission::InOrder;
use selvedge_slices::{NetworkSlice, ObjectName, Side};
use selvedge_topology::NodeName;
use selvedge_topology::sorted::Sorted;

use super::Stored;
use crate::lifecycle::Phase;

pub(crate) type StoredSlice = Stored<Arc<NetworkSlice>>;

/// Cheap to clone and to compare.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slices {
    by_name: Sorted<ObjectName, Arc<StoredSlice>>,
    /// By endpoint, then by side: the slices that name it there, which may be thousands.
    naming: Sorted<NodeName, [Sorted<ObjectName, ()>; 2]>,
    /// Endpoints that are on the data network's side.
    sites: Sorted<NodeName, ()>,
    /// Those that hold capacity.
    holding: InOrder,
    /// Those that are active and have a maximum of endpoints.
    with_maximum: Sorted<ObjectName, Arc<NetworkSlice>>,
    /// When the phases of slices change next by themselves.
    due: Sorted<(u64, ObjectName), ()>,
}

/// The rest follows from it.
impl PartialEq for Slices {
    fn eq(&self, other: &Self) -> bool {
        self.by_name == other.by_name
    }
}

impl Deref for Slices {
    type Target = Sorted<ObjectName, Arc<StoredSlice>>;

    fn deref(&self) -> &Sorted<ObjectName, Arc<StoredSlice>> {
        &self.by_name
    }
}

impl Slices {
    /// Puts a slice in place of the one of that name.
    pub(crate) fn insert(&mut self, stored: Arc<StoredSlice>) {
        let name = stored.object.name.clone();
        let old = self.by_name.insert(name.clone(), stored.clone());
        let same = |old: &Arc<StoredSlice>| old.object.endpoints == stored.object.endpoints;
        let renamed = !old.as_ref().is_some_and(same);
        if let Some(old) = old {
            self.forget(&old, renamed);
        }
        if renamed {
            for endpoint in &stored.object.endpoints {
                let slices = self.naming.get(&endpoint.name).cloned();
                let mut slices = slices.unwrap_or_default();
                slices[endpoint.side as usize].insert(name.clone(), ());
                self.note_naming(&endpoint.name, slices);
            }
        }
        if stored.phase().holds_capacity() {
            self.holding.insert((stored.meta.revision, name.clone()), stored.object.clone());
        }
        if let Some(due_ms) = stored.due_ms() {
            self.due.insert((due_ms, name.clone()), ());
        }
        if stored.phase() == Phase::Active && stored.object.most_ues().is_some() {
            self.with_maximum.insert(name, stored.object.clone());
        }
    }

    pub(crate) fn remove(&mut self, name: &ObjectName) -> Option<Arc<StoredSlice>> {
        let stored = self.by_name.remove(name)?;
        self.forget(&stored, true);
        Some(stored)
    }

    /// Changes a slice, if it is there.
    pub(crate) fn edit(&mut self, name: &ObjectName, edit: impl FnOnce(&mut StoredSlice)) {
        let Some(stored) = self.by_name.get(name) else { return };
        let mut stored = StoredSlice::clone(stored);
        edit(&mut stored);
        self.insert(Arc::new(stored));
    }

    fn forget(&mut self, old: &StoredSlice, endpoints: bool) {
        let name = &old.object.name;
        self.holding.remove(&(old.meta.revision, name.clone()));
        self.with_maximum.remove(name);
        if let Some(due_ms) = old.due_ms() {
            self.due.remove(&(due_ms, name.clone()));
        }
        let endpoints = old.object.endpoints.iter().filter(|_| endpoints);
        for endpoint in endpoints {
            let Some(mut slices) = self.naming.get(&endpoint.name).cloned() else { continue };
            slices[endpoint.side as usize].remove(name);
            self.note_naming(&endpoint.name, slices);
        }
    }

    fn note_naming(&mut self, endpoint: &NodeName, slices: [Sorted<ObjectName, ()>; 2]) {
        match (!slices[Side::Dn as usize].is_empty(), self.sites.contains_key(endpoint)) {
            (true, false) => drop(self.sites.insert(endpoint.clone(), ())),
            (false, true) => drop(self.sites.remove(endpoint)),
            _ => {}
        }
        if slices.iter().all(Sorted::is_empty) {
            self.naming.remove(endpoint);
        } else {
            self.naming.insert(endpoint.clone(), slices);
        }
    }

    /// Endpoints that some slice has on the data network's side.
    pub(crate) fn sites(&self) -> impl Iterator<Item = &NodeName> {
        self.sites.keys()
    }

    /// The slices that name an endpoint, whatever their phase, in the order of names.
    pub(crate) fn naming(&self, endpoint: &NodeName) -> impl Iterator<Item = &ObjectName> {
        // No endpoint is on both sides.
        [Side::Ue, Side::Dn].into_iter().flat_map(|side| self.naming_as(endpoint, side))
    }

    /// Those that have it on this side.
    pub(crate) fn naming_as(
        &self,
        endpoint: &NodeName,
        side: Side,
    ) -> impl Iterator<Item = &ObjectName> {
        let slices = self.naming.get(endpoint).into_iter();
        slices.flat_map(move |slices| slices[side as usize].keys())
    }

    /// Those that hold capacity, in the order in which it was promised: who came first keeps
    /// what it has.
    pub(crate) fn holding(&self) -> &InOrder {
        &self.holding
    }

    /// Active slices that have a maximum of endpoints.
    pub(crate) fn with_maximum(&self) -> impl Iterator<Item = &NetworkSlice> {
        self.with_maximum.values().map(Arc::as_ref)
    }

    /// Slices whose phase changes by itself, by when, since the Unix epoch in milliseconds.
    pub(crate) fn due(&self) -> impl Iterator<Item = &(u64, ObjectName)> {
        self.due.keys()
    }

    /// What a later state has otherwise: name, slice before and after.
    pub(crate) fn since<'a>(&'a self, later: &'a Self) -> Vec<Difference<'a>> {
        let mut found = Vec::new();
        self.by_name.differences(&later.by_name, |name, old, new| found.push((name, old, new)));
        found
    }
}

/// Name, slice before and after.
pub(crate) type Difference<'a> =
    (&'a ObjectName, Option<&'a Arc<StoredSlice>>, Option<&'a Arc<StoredSlice>>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use selvedge_slices::Object;

    use super::*;
    use crate::intent::Meta;

    fn stored(number: u8, revision: u64, endpoints: &[u8], phase: Phase) -> Arc<StoredSlice> {
        let list: Vec<String> =
            endpoints.iter().map(|e| format!("{{ {}: h{e} }}", side(*e))).collect();
        let yaml = format!(
            "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{name: s{number}}}\n\
             spec: {{ endpoints: [{}] }}\n",
            list.join(", ")
        );
        let objects = selvedge_slices::parse("test", &yaml).unwrap_or_else(|_| unreachable!());
        let Some(Object::NetworkSlice(slice)) = objects.into_iter().next() else { unreachable!() };
        let author = "test".to_owned();
        let meta = Meta { module: None, revision, author, changed_at_ms: 0, phase };
        Arc::new(Stored { object: Arc::new(slice), meta })
    }

    fn side(endpoint: u8) -> &'static str {
        if endpoint.is_multiple_of(2) { "ue" } else { "dn" }
    }

    proptest! {
        /// However the slices came about.
        #[test]
        fn indexes_are_as_if_made_anew(
            steps in prop::collection::vec((0u8..12, prop::collection::btree_set(0u8..6, 2..4), 0u8..4), 1..60)
        ) {
            let mut slices = Slices::default();
            for (revision, (number, endpoints, what)) in (1u64..).zip(steps) {
                let endpoints: Vec<u8> = endpoints.into_iter().collect();
                let name: ObjectName = format!("s{number}").parse().expect("a name");
                match what {
                    0 => drop(slices.remove(&name)),
                    1 => slices.edit(&name, |stored| {
                        stored.meta.phase = Phase::Reserved { until_ms: Some(revision / 3) };
                    }),
                    2 => slices.insert(stored(number, revision, &endpoints, Phase::Designed)),
                    _ => slices.insert(stored(number, revision, &endpoints, Phase::Active)),
                }
                let mut anew = Slices::default();
                for stored in slices.values() {
                    anew.insert(stored.clone());
                }
                prop_assert_eq!(&anew.by_name, &slices.by_name);
                prop_assert_eq!(&anew.naming, &slices.naming);
                prop_assert_eq!(&anew.holding, &slices.holding);
                prop_assert_eq!(&anew.sites, &slices.sites);
                prop_assert_eq!(&anew.with_maximum, &slices.with_maximum);
                prop_assert_eq!(&anew.due, &slices.due);
                for stored in slices.values() {
                    let key = (stored.meta.revision, stored.object.name.clone());
                    let holds = stored.phase() != Phase::Designed;
                    prop_assert_eq!(slices.holding().contains_key(&key), holds);
                    let due = slices.due().find(|(_, due)| *due == stored.object.name);
                    prop_assert_eq!(due.map(|(at, _)| *at), stored.due_ms());
                    for endpoint in &stored.object.endpoints {
                        let mut names = slices.naming_as(&endpoint.name, endpoint.side);
                        prop_assert!(names.any(|name| *name == stored.object.name));
                    }
                }
            }
        }
    }
}
