//! The ways around failures that switches take by themselves, and how next hops name them.

use std::sync::{Arc, OnceLock};

use selvedge_topology::{ArcIx, Backup, Forwarding, Graph, LinkIx, Live, NodeIx, Snapshot};

/// Links that may change for what is known to be followed; more are computed anew.
const FOLLOWED: usize = 8;
/// The backup of a port for packets to the switch behind it. Those behind its links come after.
const TO_NEIGHBOR: u8 = 1;
const MAX_BACKUP: u8 = 127;

/// Of one snapshot; computed when first asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repairs(Arc<OnceLock<Live>>);

impl Repairs {
    /// For `after`, from what is known for `before`.
    pub(crate) fn following(&self, before: &Snapshot, after: &Snapshot) -> Self {
        let next = Self::default();
        let changed: Vec<LinkIx> =
            before.down().symmetric_difference(after.down()).copied().collect();
        if let Some(live) = self.0.get().filter(|_| changed.len() <= FOLLOWED) {
            let mut live = live.clone();
            for link in changed {
                if after.down().contains(&link) {
                    live.fail(link)
                } else {
                    live.restore(link)
                };
            }
            next.0.set(live).expect("it was made here");
        }
        next
    }

    fn live(&self, snapshot: &Snapshot) -> &Live {
        self.0.get_or_init(|| Live::new(Graph::of(snapshot), Vec::new(), 1))
    }

    /// What leads around the end of an arc: by number, the way and the ids along it. Numbers stay
    /// what they are while the topology does.
    pub(crate) fn of(
        &self,
        snapshot: &Snapshot,
        next: ArcIx,
    ) -> impl Iterator<Item = (u8, &Backup, &[NodeIx])> {
        let (live, graph) = (self.live(snapshot), snapshot.graph());
        let backups = live.backups();
        let over = graph.ends(next).map(|(_, over)| over);
        let beyond = over.into_iter().flat_map(|over| graph.out(over));
        let beyond = (TO_NEIGHBOR + 1..=MAX_BACKUP).zip(beyond);
        let nodes = beyond.map(move |(number, edge)| (number, backups.node(next, edge.arc)));
        let all = std::iter::once((TO_NEIGHBOR, backups.link(next))).chain(nodes);
        all.filter_map(|(number, backup)| Some((number, backup?, backup?.segments.as_deref()?)))
    }

    /// The number of the backup for packets to `root` that take `next`: around the switch there,
    /// or, where that is the root or there is no way around it, around the link. 0: none.
    pub(crate) fn number(
        &self,
        (snapshot, forwarding): (&Snapshot, &Forwarding),
        next: ArcIx,
        root: NodeIx,
    ) -> u8 {
        let backups = self.live(snapshot).backups();
        let is_there = |backup: Option<&Backup>| backup.is_some_and(|b| b.segments.is_some());
        let graph = snapshot.graph();
        let Some((_, over)) = graph.ends(next) else { return 0 };
        if let Some(after) = forwarding.tree(snapshot, root).next(over)
            && is_there(backups.node(next, after))
            && let Some(at) = graph.out(over).iter().position(|edge| edge.arc == after)
            && let Ok(at) = u8::try_from(at)
            && at < MAX_BACKUP - TO_NEIGHBOR
        {
            return TO_NEIGHBOR + 1 + at;
        }
        if is_there(backups.link(next)) { TO_NEIGHBOR } else { 0 }
    }
}
