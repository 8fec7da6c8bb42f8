//! Whether the network can keep a slice's promises, over which paths, and if not, why not.
//!
//! Pure. A [`Ledger`] holds what is promised; [`Ledger::admit`] adds a slice or refuses it and
//! leaves everything as it was. What is promised adds up by these rules:
//!
//! - A slice's rate in a direction is its total (a hose): it is reserved once on every link
//!   that any of its paths in that direction uses, and as often as one path crosses the link.
//! - Rates count the user's IP bytes; a link carries them in frames. Reserved is the rate of
//!   full packets' frames ([`frame_rate`]). Smaller packets cost more on the wire: that is not
//!   covered, and [`Explanation::assumed`] says so.
//! - At most [`MARGIN_PERCENT`] of a link's capacity is promised. A link without a stated
//!   capacity limits nothing, which is an assumption too.
//! - Hooks take memory of the node they run on, one instance for each slice ([`HookMemory`]);
//!   together they take no more than it has.
//! - The delay bound is in [`delay`].

pub mod delay;
mod explain;
mod memory;
mod place;
mod refusal;
mod route;

use std::collections::BTreeMap;

use selvedge_topology::{ArcIx, BitRate, Forwarding, LinkIx, NodeIx, NodeName, Path, Snapshot};

use crate::class::{FRAME_BYTES, OVERHEAD_BYTES};
use crate::limits::MTU_BYTES;
use crate::{Direction, NetworkSlice, ObjectName};

pub use delay::{DelayBound, HopDelay};
pub use explain::{Explanation, LinkUse, PathExplanation};
pub use memory::HookMemory;
pub use refusal::Refusal;

/// Share of a link's capacity that may be promised, and the rate its virtual queue drains at.
pub const MARGIN_PERCENT: u64 = 97;
/// 16-bit ids that one IPv6 destination carries after the block (RFC 9800 §4).
pub const MAX_IDS: usize = 6;
/// Hooks one after the other on one node: a switch takes at most four steps of a packet's ids
/// at a time, its own id and what follows included.
pub const MAX_HOOKS_IN_A_ROW: usize = 2;

/// What a link of this capacity may promise, and its queue drains at.
pub fn usable(capacity: BitRate) -> BitRate {
    let share = u128::from(capacity.0) * u128::from(MARGIN_PERCENT) / 100;
    BitRate(u64::try_from(share).expect("a share is not more than the whole"))
}

/// The rate of a fabric link's frames for a rate of full IP packets, rounded up.
pub fn frame_rate(ip: BitRate) -> BitRate {
    scale(ip, FRAME_BYTES)
}

fn scale(ip: BitRate, frame: u64) -> BitRate {
    let rate = (u128::from(ip.0) * u128::from(frame)).div_ceil(u128::from(MTU_BYTES));
    BitRate(u64::try_from(rate).unwrap_or(u64::MAX))
}

/// The largest rate of full IP packets whose frames fit a rate.
fn ip_rate(frames: BitRate) -> BitRate {
    let rate = u128::from(frames.0) * u128::from(MTU_BYTES) / u128::from(FRAME_BYTES);
    BitRate(u64::try_from(rate).expect("IP packets are smaller than their frames"))
}

/// Where an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub switch: NodeIx,
    /// The link it hangs on, when that is one of the topology's; its capacity counts.
    pub link: Option<LinkIx>,
}

/// The network that slices are placed in.
#[derive(Clone, Copy, Debug)]
pub struct Network<'a> {
    pub snapshot: &'a Snapshot,
    /// Made for that snapshot.
    pub forwarding: &'a Forwarding,
    pub endpoints: &'a BTreeMap<NodeName, Attachment>,
    /// The nodes that each known hook can run on.
    pub hooks: &'a BTreeMap<ObjectName, Vec<NodeIx>>,
    pub memory: &'a HookMemory,
}

impl Network<'_> {
    /// The arc that leads from the endpoint's switch to it, where its link is known.
    fn access(&self, endpoint: &NodeName) -> Option<ArcIx> {
        let link = self.endpoints.get(endpoint)?.link?;
        Some(ArcIx::new(link, self.snapshot.link(link).b.node == *endpoint))
    }

    fn capacity(&self, arc: ArcIx) -> Option<BitRate> {
        self.snapshot.link(arc.link()).capacity
    }
}

/// One id of a policy, in travelling order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// A node's own id (uN): go there.
    Node(NodeIx),
    /// Hook `index` of [`NetworkSlice::through`], on the node where the packet then is
    /// (uCompute).
    Hook { index: usize, node: NodeIx },
    /// Decapsulate and deliver, on the node where the packet then is (uDT46). Always last.
    Deliver,
}

/// The way from one switch to another in one direction of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub direction: Direction,
    pub from: NodeIx,
    pub to: NodeIx,
    /// The arcs that packets travel, detours to hooks included; none when both endpoints are on
    /// one switch and no hook is elsewhere.
    pub path: Path,
    /// At most [`MAX_IDS`]. A node's id is left out where the packet is there already, so
    /// `[Deliver]` alone is local delivery.
    pub segments: Vec<Segment>,
    /// The egress links to the endpoints served, for the delay bound.
    exits: Vec<ArcIx>,
}

/// A slice with its place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    pub slice: NetworkSlice,
    /// By direction, sender's switch, receiver's switch: one for each that is needed.
    pub placed: Vec<Placed>,
    /// Frames' rate by arc, access links included. Nothing is reserved when the promise is
    /// waived.
    pub reserved: BTreeMap<ArcIx, BitRate>,
    /// Why the promise is not kept at present; `None` when it is.
    pub waived: Option<Refusal>,
}

impl Admitted {
    /// The way from one switch to another.
    pub fn way(&self, direction: Direction, from: NodeIx, to: NodeIx) -> Option<&Placed> {
        self.placed.iter().find(|p| (p.direction, p.from, p.to) == (direction, from, to))
    }
}

/// What the network has promised, by slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    admitted: BTreeMap<ObjectName, Admitted>,
}

impl Ledger {
    pub fn new() -> Self {
        Self::default()
    }

    /// Places a slice so that its promises and everyone else's are kept, in place of an earlier
    /// slice of that name. A refusal leaves the ledger as it was.
    pub fn admit(
        &mut self,
        network: &Network<'_>,
        slice: &NetworkSlice,
    ) -> Result<&Admitted, Box<Refusal>> {
        let before = self.admitted.remove(&slice.name);
        let result = place::promised(self, network, slice);
        self.settle(slice, before, result)
    }

    /// Places a slice without its promises, for a network that can no longer keep them: paths
    /// and hooks only. Whoever meters it treats it as best effort.
    pub fn admit_waived(
        &mut self,
        network: &Network<'_>,
        slice: &NetworkSlice,
        why: Refusal,
    ) -> Result<&Admitted, Box<Refusal>> {
        let before = self.admitted.remove(&slice.name);
        let result = place::waived(self, network, slice, why);
        self.settle(slice, before, result)
    }

    fn settle(
        &mut self,
        slice: &NetworkSlice,
        before: Option<Admitted>,
        result: Result<Admitted, Box<Refusal>>,
    ) -> Result<&Admitted, Box<Refusal>> {
        match result {
            Ok(admitted) => Ok(self.admitted.entry(slice.name.clone()).or_insert(admitted)),
            Err(refusal) => {
                self.admitted.extend(before.map(|before| (slice.name.clone(), before)));
                Err(refusal)
            }
        }
    }

    /// The same slices in a changed network, in this order: those that still fit keep their
    /// promise, those that do not are waived, those that cannot even be reached are left out and
    /// listed.
    pub fn rebuilt<'s>(
        network: &Network<'_>,
        slices: impl IntoIterator<Item = &'s NetworkSlice>,
    ) -> (Self, BTreeMap<ObjectName, Refusal>) {
        let mut ledger = Self::new();
        let mut unplaced = BTreeMap::new();
        let mut later = Vec::new();
        for slice in slices {
            if let Err(refusal) = ledger.admit(network, slice) {
                later.push((slice, *refusal));
            }
        }
        for (slice, refusal) in later {
            if let Err(refusal) = ledger.admit_waived(network, slice, refusal) {
                unplaced.insert(slice.name.clone(), *refusal);
            }
        }
        (ledger, unplaced)
    }

    pub fn remove(&mut self, name: &ObjectName) -> Option<Admitted> {
        self.admitted.remove(name)
    }

    /// Puts back what [`Self::remove`] gave, with everything else as it was then.
    pub(crate) fn restore(&mut self, _network: &Network<'_>, admitted: Admitted) {
        self.admitted.insert(admitted.slice.name.clone(), admitted);
    }

    pub fn get(&self, name: &str) -> Option<&Admitted> {
        self.admitted.get(name)
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectName, &Admitted)> {
        self.admitted.iter()
    }

    pub fn len(&self) -> usize {
        self.admitted.len()
    }

    pub fn is_empty(&self) -> bool {
        self.admitted.is_empty()
    }

    /// What is promised on an arc, as frames' rate.
    pub fn reserved(&self, arc: ArcIx) -> BitRate {
        let each = self.admitted.values().filter_map(|admitted| admitted.reserved.get(&arc));
        BitRate(each.fold(0, |sum, rate| sum.saturating_add(rate.0)))
    }

    /// Who has promises on an arc, and how much, as frames' rate.
    pub fn holders(&self, arc: ArcIx) -> Vec<(ObjectName, BitRate)> {
        let holder = |(name, admitted): (&ObjectName, &Admitted)| {
            Some((name.clone(), *admitted.reserved.get(&arc)?)).filter(|(_, rate)| rate.0 > 0)
        };
        self.admitted.iter().filter_map(holder).collect()
    }

    /// Why a slice is placed as it is.
    pub fn explain(&self, network: &Network<'_>, name: &str) -> Option<Explanation> {
        Some(explain::explain(self, network, self.admitted.get(name)?))
    }
}

/// Bytes on a wire per packet beyond the user's, for access and fabric links.
fn overhead(network: &Network<'_>, arc: ArcIx) -> u64 {
    const ETHERNET: u64 = 14;
    if network.snapshot.arc(arc).is_some() { OVERHEAD_BYTES } else { ETHERNET }
}
