//! Paths, and the hooks on them, as lists of 16-bit segment ids (NEXT-C-SID, RFC 9800).
//!
//! Between two ids the fabric goes its own shortest path trees, of which each switch has one
//! next hop a node; so an id stands for one stretch of a path, the same at every switch.

use crate::{ArcIx, Forwarding, NodeIx, Path, Snapshot};

/// Ids in one IPv6 destination address: 32 bits of block, 16 of each id (F3216).
pub const MAX_SIDS: usize = 6;

/// One id of a list, or what it stands for until numbers are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sid {
    /// Go to this node.
    Node(NodeIx),
    /// Run the hook of this index, here.
    Hook(usize),
    /// Unwrap, and deliver.
    Deliver,
}

/// Why a path cannot be spelled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error(
        "the path needs {needed} ids, and {limit} fit into one address; a routing header for more is not offered"
    )]
    TooManySids { needed: usize, limit: usize },
    #[error("the path needs {needed} way-points, and {limit} fit")]
    TooLong { needed: usize, limit: usize },
    #[error(
        "no way-point leads over {link}: from {from} the fabric goes to {to} another way, and \
         leaving by a given port (uA) is not offered"
    )]
    OffTree { from: String, to: String, link: String },
}

/// The shortest list of ids that leads along `path`, through its hooks and out at its end.
///
/// `hooks[i]` is the position in `path.nodes` where hook `i` runs; positions do not fall. A hook
/// costs the id of its node, unless the packet is there already, and one of its own.
///
/// # Errors
/// [`EncodeError::TooManySids`] above `limit` ids (DESIGN §5 lets such a path be refused), and
/// [`EncodeError::OffTree`].
///
/// # Panics
/// When a position falls or is not on the path.
pub fn encode(
    snapshot: &Snapshot,
    forwarding: &Forwarding,
    path: &Path,
    hooks: &[usize],
    limit: usize,
) -> Result<Vec<Sid>, EncodeError> {
    assert!(hooks.is_sorted() && hooks.last().is_none_or(|at| *at < path.nodes.len()));
    let (mut sids, mut at) = (Vec::new(), 0);
    let stretch = |sids: &mut Vec<Sid>, at: usize, end: usize| {
        let found = positions(snapshot, forwarding, path, at, end)?;
        sids.extend(found.into_iter().map(|position| Sid::Node(path.nodes[position])));
        Ok(())
    };
    for (hook, &position) in hooks.iter().enumerate() {
        stretch(&mut sids, at, position)?;
        sids.push(Sid::Hook(hook));
        at = position;
    }
    stretch(&mut sids, at, path.arcs.len())?;
    sids.push(Sid::Deliver);
    if sids.len() > limit {
        return Err(EncodeError::TooManySids { needed: sids.len(), limit });
    }
    Ok(sids)
}

/// The fewest way-points whose shortest path trees, one after the other, make up `path`; the
/// last is the path's end. Empty for a path without arcs.
///
/// # Errors
/// [`EncodeError::TooLong`] above `limit` way-points, and [`EncodeError::OffTree`].
pub fn encode_segments(
    snapshot: &Snapshot,
    forwarding: &Forwarding,
    path: &Path,
    limit: usize,
) -> Result<Vec<NodeIx>, EncodeError> {
    let found = positions(snapshot, forwarding, path, 0, path.arcs.len())?;
    if found.len() > limit {
        return Err(EncodeError::TooLong { needed: found.len(), limit });
    }
    Ok(found.into_iter().map(|position| path.nodes[position]).collect())
}

/// Way-points of the part of `path` from one position to another, as positions.
fn positions(
    snapshot: &Snapshot,
    forwarding: &Forwarding,
    path: &Path,
    start: usize,
    end: usize,
) -> Result<Vec<usize>, EncodeError> {
    let follows = |hop: usize, end: usize| {
        let tree = forwarding.tree(snapshot, path.nodes[end]);
        tree.next(path.nodes[hop]) == Some(path.arcs[hop])
    };
    waypoints(start, end, follows).map_err(|hop| {
        let (near, far) = snapshot.ends(path.arcs[hop]);
        EncodeError::OffTree {
            from: near.node.to_string(),
            to: far.node.to_string(),
            link: snapshot.link(path.arcs[hop].link()).to_string(),
        }
    })
}

/// The fewest positions after `start`, the last of them `end`, such that between two the arcs
/// are those of the tree towards the second; or the hop that is not on its own tree.
/// `follows(hop, end)`: the tree towards the node at `end` leaves the node at `hop` by the arc
/// that the path takes there.
///
/// A stretch of a tree's path is a tree's path itself ([`crate::Graph`] has why ties do not
/// change that), so the farthest position is found by going on while it is, and going farther
/// never leaves a worse rest: greedy is optimal.
pub(crate) fn waypoints(
    start: usize,
    end: usize,
    follows: impl Fn(usize, usize) -> bool,
) -> Result<Vec<usize>, usize> {
    let mut found = Vec::new();
    let mut at = start;
    while at < end {
        let whole = |to: usize| (at..to).rev().all(|hop| follows(hop, to));
        let mut far = at;
        while far < end && whole(far + 1) {
            far += 1;
        }
        if far == at {
            return Err(at);
        }
        found.push(far);
        at = far;
    }
    Ok(found)
}

/// What a list of ids makes a packet do: the arcs it takes. For checks.
pub fn follow(
    snapshot: &Snapshot,
    forwarding: &Forwarding,
    from: NodeIx,
    sids: &[Sid],
) -> Vec<ArcIx> {
    let (mut at, mut arcs) = (from, Vec::new());
    for sid in sids {
        if let Sid::Node(node) = sid {
            let tree = forwarding.tree(snapshot, *node);
            arcs.extend(tree.walk(snapshot, at).map(|arc| arc.ix));
            at = *node;
        }
    }
    arcs
}
