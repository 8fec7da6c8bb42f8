//! In which order next hops change at different switches, so that no packet goes in circles
//! meanwhile.
//!
//! For one destination the old next hops lead there without a circle, and so do the new ones;
//! a mixture need not. A circle in a mixture has a switch that has changed and whose new next
//! hop has not: so a switch changes after the new next hop has, *where* both lie on a circle of
//! old and new next hops together. Whatever else happens in any order, no mixture then has a
//! circle: from a switch that has changed, every step that stays among such switches leads to
//! another that has changed, along the new next hops alone.
//!
//! This is the ordered convergence of RFC 6976 without its timers, decided in one place, and
//! kept to where it is needed: most changes have one round. Next hops over links that are down
//! carry nothing, and make no circle.
//!
//! Limit: [`MAX_ROUNDS`]. What would come later comes in the last, where switches are written
//! at the same time: on a ring of more than twice as many switches packets may circle for as
//! long as one write takes; their hop limit bounds that.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_pipeline::{Entry, Key, NextHopEntry, NodeSid, PortId};
use selvedge_topology::NodeName;

use crate::plan::Table;

/// Rounds of writes that a change of next hops may take. Each costs one exchange with the
/// slowest of its switches, a few milliseconds.
const MAX_ROUNDS: usize = 8;

/// Where a usable link from a port leads.
pub(crate) type Wires = BTreeMap<(NodeName, PortId), NodeName>;

/// The rounds of next hops that must not change in the first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    late: BTreeMap<(NodeName, NodeSid), usize>,
}

impl Order {
    /// `held` and `wanted`: the tables of every switch as far as known; a switch that cannot be
    /// written stays as it is.
    ///
    /// Cost: for each destination where a next hop changes that packets use, the number of
    /// switches.
    pub(crate) fn of(
        wires: &Wires,
        held: &BTreeMap<NodeName, Arc<Table>>,
        wanted: impl Fn(&NodeName) -> Option<Arc<Table>>,
    ) -> Self {
        let names: Vec<&NodeName> = held.keys().collect();
        let wanted: Vec<Arc<Table>> = held
            .iter()
            .map(|(name, table)| wanted(name).unwrap_or_else(|| table.clone()))
            .collect();
        let far = |node: usize, hop: &NextHopEntry| {
            let end = wires.get(&(names[node].clone(), hop.port))?;
            names.binary_search(&end).ok()
        };
        let mut order = Self::default();
        for sid in redirected(held, &wanted) {
            let hops = |tables: &mut dyn Iterator<Item = &Arc<Table>>| -> Vec<Option<usize>> {
                tables.enumerate().map(|(node, table)| far(node, next_hop(table, sid)?)).collect()
            };
            let (old, new) = (hops(&mut held.values()), hops(&mut wanted.iter()));
            let late = rounds(&old, &new).into_iter().enumerate().filter(|(_, round)| *round > 0);
            order.late.extend(
                late.map(|(node, round)| ((names[node].clone(), sid), round.min(MAX_ROUNDS - 1))),
            );
        }
        order
    }

    /// From 0.
    pub(crate) fn round(&self, switch: &NodeName, entry: &Entry) -> usize {
        let Entry::NextHop(hop) = entry else { return 0 };
        self.late.get(&(switch.clone(), hop.node)).copied().unwrap_or(0)
    }
}

fn next_hop(table: &Table, sid: NodeSid) -> Option<&NextHopEntry> {
    match table.get(&Key::NextHop(sid))? {
        Entry::NextHop(hop) => Some(hop),
        _ => None,
    }
}

/// Destinations where some switch exchanges one next hop for another, by rising number.
fn redirected(
    held: &BTreeMap<NodeName, Arc<Table>>,
    wanted: &[Arc<Table>],
) -> std::collections::BTreeSet<NodeSid> {
    let first = Key::NextHop(NodeSid(0));
    let last = Key::NextHop(NodeSid(u16::MAX));
    let changed = |(held, wanted): (&Arc<Table>, &Arc<Table>)| {
        let hops = held.range(first.clone()..=last.clone());
        let changed = hops.filter_map(|(key, old)| match (wanted.get(key)?, old) {
            (Entry::NextHop(new), Entry::NextHop(old)) if new.port != old.port => Some(new.node),
            _ => None,
        });
        changed.collect::<Vec<_>>()
    };
    held.values().zip(wanted).flat_map(changed).collect()
}

/// When each node may go from its old next hop to its new one, from round 0; `None`: it has
/// none. Nodes without a new one, or with the same, have no round to speak of (0).
fn rounds(old: &[Option<usize>], new: &[Option<usize>]) -> Vec<usize> {
    let circling = circling(old, new);
    // After how many rounds a node and everything that it then leads to has changed.
    let mut settled: Vec<Option<usize>> = vec![None; new.len()];
    let changes = |node: usize| usize::from(new[node].is_some() && new[node] != old[node]);
    for start in 0..new.len() {
        let mut way = Vec::new();
        let mut at = Some(start);
        // The new next hops of switches that cannot be written may lead in a circle.
        while let Some(node) = at.filter(|node| settled[*node].is_none() && way.len() <= new.len())
        {
            way.push(node);
            at = new[node].filter(|next| circling[*next]);
        }
        let mut after = at.and_then(|node| settled[node]).unwrap_or(0);
        for node in way.into_iter().rev() {
            after += changes(node);
            settled[node] = Some(after);
        }
    }
    let round = |node: usize| {
        let after = settled[node].unwrap_or(0);
        if circling[node] { after.saturating_sub(changes(node)) } else { 0 }
    };
    (0..new.len()).map(round).collect()
}

/// Nodes that lie on a circle of old and new next hops together, or between two of them.
fn circling(old: &[Option<usize>], new: &[Option<usize>]) -> Vec<bool> {
    let hops = |node: usize| {
        let other = new[node].filter(|_| new[node] != old[node]);
        old[node].into_iter().chain(other)
    };
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); old.len()];
    let (mut ways_in, mut ways_out) = (vec![0usize; old.len()], vec![0usize; old.len()]);
    for node in 0..old.len() {
        for next in hops(node) {
            before[next].push(node);
            ways_in[next] += 1;
            ways_out[node] += 1;
        }
    }
    let mut circling = vec![true; old.len()];
    let ends = |node: &usize| ways_in[*node] == 0 || ways_out[*node] == 0;
    let mut loose: Vec<usize> = (0..old.len()).filter(ends).collect();
    while let Some(node) = loose.pop() {
        if !std::mem::replace(&mut circling[node], false) {
            continue;
        }
        for next in hops(node) {
            ways_in[next] -= 1;
            if ways_in[next] == 0 {
                loose.push(next);
            }
        }
        for &previous in &before[node] {
            ways_out[previous] -= 1;
            if ways_out[previous] == 0 {
                loose.push(previous);
            }
        }
    }
    circling
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_could_circle_waits() {
        // (old, new, rounds), towards node 0.
        let hop = |hops: &[usize]| -> Vec<Option<usize>> {
            hops.iter().map(|hop| (*hop != 9).then_some(*hop)).collect()
        };
        for (old, new, want) in [
            // A ring 0-1-2-3-0, the link 0-1 down: 2 turns round first, then 1.
            (&[9, 9, 1, 0][..], &[9, 2, 3, 0][..], &[0, 1, 0, 0][..]),
            // And up again: 1 first, then 2.
            (&[9, 2, 3, 0], &[9, 0, 1, 0], &[0, 0, 1, 0]),
            // Over another way that never came from here: at once.
            (&[9, 9, 0, 0], &[9, 2, 0, 0], &[0, 0, 0, 0]),
            // A ring of six: one after the other.
            (&[9, 9, 1, 2, 5, 0], &[9, 2, 3, 4, 5, 0], &[0, 2, 1, 0, 0, 0]),
            // The first of all.
            (&[9, 9, 9, 9], &[9, 2, 3, 0], &[0, 0, 0, 0]),
        ] {
            assert_eq!(rounds(&hop(old), &hop(new)), want, "{old:?} -> {new:?}");
        }
    }

    /// Next hops towards node 0 along a random tree: the parent of each node, by a random order.
    /// With `broken`, one in ten leads over a link that is down, and so nowhere.
    fn tree(n: usize, broken: bool) -> impl Strategy<Value = Vec<Option<usize>>> {
        let order = Just((1..n).collect::<Vec<_>>()).prop_shuffle();
        (order, prop::collection::vec((any::<prop::sample::Index>(), 0..10u8), n)).prop_map(
            move |(order, parents)| {
                let mut hops = vec![None; n];
                let mut there = vec![0];
                for node in order {
                    let (parent, dead) = &parents[node];
                    hops[node] = (!broken || *dead > 0).then(|| there[parent.index(there.len())]);
                    there.push(node);
                }
                hops
            },
        )
    }

    fn circle(hops: &[Option<usize>]) -> bool {
        let ends = |start| {
            let mut at = Some(start);
            (0..=hops.len()).any(|_| {
                at = at.and_then(|node: usize| hops[node]);
                at.is_none()
            })
        };
        !(0..hops.len()).all(ends)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn no_mixture_circles(
            (old, new, picks) in (2..9usize).prop_flat_map(|n| {
                (tree(n, true), tree(n, false), prop::collection::vec(any::<prop::sample::Index>(), n))
            })
        ) {
            let rounds = rounds(&old, &new);
            let mut now = old.clone();
            for round in 0..=rounds.iter().copied().max().unwrap_or(0) {
                let mut due: Vec<usize> = (0..now.len())
                    .filter(|node| rounds[*node] == round && new[*node].is_some())
                    .collect();
                // In any order within a round.
                for pick in &picks {
                    if due.is_empty() {
                        break;
                    }
                    let node = due.swap_remove(pick.index(due.len()));
                    now[node] = new[node];
                    prop_assert!(!circle(&now), "{old:?} -> {new:?} by {rounds:?}: {now:?}");
                }
            }
        }
    }
}
