//! Endpoints of one switch whose packets are treated alike: bound to one slice set there, and
//! members of the same slices on the same side.

use std::ops::Range;
use std::sync::Arc;

use selvedge_pipeline::SliceSet;

use super::world::Member;

/// In order of slice sets, then members. In two pieces of memory, however many groups there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups {
    /// With the place of their hosts.
    groups: Vec<(SliceSet, Arc<Member>, Range<usize>)>,
    hosts: Vec<u32>,
}

impl Groups {
    /// Of who is bound to what.
    pub(crate) fn new(mut bound: Vec<(SliceSet, &Arc<Member>, u32)>) -> Self {
        bound.sort_unstable();
        bound.dedup();
        let (mut groups, mut last) = (Vec::new(), 0);
        for group in bound.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (set, member, _) = group[0];
            groups.push((set, member.clone(), last..last + group.len()));
            last += group.len();
        }
        Self { groups, hosts: bound.into_iter().map(|(.., host)| host).collect() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SliceSet, &Arc<Member>, &[u32])> {
        self.groups.iter().map(|(set, member, hosts)| (*set, member, &self.hosts[hosts.clone()]))
    }

    /// The groups of a set, with their hosts in rising order.
    pub(crate) fn of(&self, set: SliceSet) -> impl Iterator<Item = (&Arc<Member>, &[u32])> {
        let first = self.groups.partition_point(|(of, ..)| *of < set);
        let from_there = self.groups[first..].iter().take_while(move |(of, ..)| *of == set);
        from_there.map(|(_, member, hosts)| (member, &self.hosts[hosts.clone()]))
    }

    pub(crate) fn get(&self, set: SliceSet, member: &Arc<Member>) -> Option<&[u32]> {
        let key = |(of, known, _): &(SliceSet, Arc<Member>, _)| (*of, known).cmp(&(set, member));
        let at = self.groups.binary_search_by(key).ok()?;
        Some(&self.hosts[self.groups[at].2.clone()])
    }

    pub(crate) fn has(&self, set: SliceSet) -> bool {
        self.of(set).next().is_some()
    }
}
