//! Where the fabric takes packets for one node id: the same for all of them, whatever their
//! slice, so it is walked once for each node id and only when a next hop towards it changed.

use selvedge_pipeline::PortId;

/// No such node: `end` and `next` of a [`Class`].
pub(crate) const LOST: u16 = u16::MAX;
pub(crate) const LOOP: u16 = u16::MAX - 1;
/// At a switch whose entries are not known.
pub(crate) const UNKNOWN: u16 = u16::MAX - 2;

/// One node id. Indexed by node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Class {
    /// As in the entries.
    pub(crate) hop: Vec<Option<(PortId, [u8; 6])>>,
    /// The node after this one; itself where the id is local; [`LOST`] or [`UNKNOWN`].
    pub(crate) next: Vec<u16>,
    /// The node where the id is local that packets arrive at; [`LOST`], [`LOOP`] or [`UNKNOWN`].
    pub(crate) end: Vec<u16>,
    /// Links on the way there; 255: as many or more.
    pub(crate) hops: Vec<u8>,
}

/// What changed at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    No,
    /// The same end, by another way.
    Way,
    End,
}

impl Class {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            hop: vec![None; nodes],
            next: vec![LOST; nodes],
            end: vec![LOST; nodes],
            hops: vec![0; nodes],
        }
    }

    /// Walks anew after `next` changed at some nodes from what `before` has; says for each node
    /// what is different.
    ///
    /// Cost: a few nanoseconds for each node.
    pub(crate) fn settle(&mut self, before: &[u16]) -> Vec<Changed> {
        const OPEN: u8 = 0;
        const ON_THE_WAY: u8 = 1;
        const DONE: u8 = 2;
        let n = self.next.len();
        let mut state = vec![OPEN; n];
        let mut changed = vec![Changed::No; n];
        let mut way: Vec<usize> = Vec::new();
        for start in 0..n {
            let mut at = start;
            let (end, mut hops, mut differs) = loop {
                match state[at] {
                    DONE => break (self.end[at], self.hops[at], changed[at]),
                    ON_THE_WAY => break (LOOP, 0, Changed::End),
                    _ => {}
                }
                state[at] = ON_THE_WAY;
                way.push(at);
                let next = self.next[at];
                if next >= UNKNOWN {
                    break (next, 0, Changed::No);
                }
                if usize::from(next) == at {
                    // It is its own end, at no distance: undone one step below.
                    break (next, u8::MAX, Changed::No);
                }
                at = usize::from(next);
            };
            let mut local =
                hops == u8::MAX && way.last().is_some_and(|last| usize::from(end) == *last);
            while let Some(node) = way.pop() {
                hops = if std::mem::take(&mut local) { 0 } else { hops.saturating_add(1) };
                let moved = differs != Changed::No || self.next[node] != before[node];
                // Farther than a third of the hop limit counts: a packet may have such ways
                // behind it and before it.
                let far = hops != self.hops[node] && hops > 20;
                changed[node] = match moved {
                    _ if self.end[node] != end || far => Changed::End,
                    true => Changed::Way,
                    false => Changed::No,
                };
                differs = if moved { Changed::Way } else { Changed::No };
                self.end[node] = end;
                self.hops[node] = hops;
                state[node] = DONE;
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_distances_and_what_changed() {
        let mut class = Class::new(6);
        let before = class.next.clone();
        // 0 is the node; 1 -> 0, 2 -> 1, 3 <-> 4, 5 nowhere.
        class.next = vec![0, 0, 1, 4, 3, LOST];
        let changed = class.settle(&before);
        assert_eq!(class.end, [0, 0, 0, LOOP, LOOP, LOST]);
        assert_eq!(class.hops[..3], [0, 1, 2]);
        assert_eq!(changed[..5], [Changed::End; 5]);
        assert_eq!(changed[5], Changed::No);
        let before = class.next.clone();
        class.next[2] = 0;
        class.next[3] = 2;
        let changed = class.settle(&before);
        assert_eq!(class.end, [0, 0, 0, 0, 0, LOST]);
        assert_eq!(class.hops[..5], [0, 1, 1, 2, 3]);
        let want =
            [Changed::No, Changed::No, Changed::Way, Changed::End, Changed::End, Changed::No];
        assert_eq!(changed, want);
        assert_eq!(class.settle(&class.next.clone()), [Changed::No; 6]);
    }
}
