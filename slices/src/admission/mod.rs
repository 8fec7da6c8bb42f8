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
//! - A slice whose `availability` asks for it ([`Protection`]) has a backup beside each way. What
//!   moves onto a link after a failure is kept free there; slices that no one failure hits
//!   together share it. What a failed way leaves free elsewhere is not counted on.
//! - A slice whose resourceSharingLevel is `non-shared` (TS 28.541 §6.3.3) shares nothing that is
//!   allocated to it: what its backups need on a link is reserved for it alone, beside what it
//!   uses there and beside what others keep free for theirs.
//! - The delay bound is in [`delay`].
//!
//! A decision costs what the slice's own ways cost, not what is admitted already: sums by link
//! (`books.rs`) and delay bounds (`bounds.rs`) are kept, not computed anew.

mod books;
mod bounds;
pub mod delay;
mod explain;
mod memory;
mod offer;
mod place;
mod port;
mod protect;
mod rebuild;
mod refusal;
mod route;
mod tries;
mod watch;
mod why;

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_topology::sorted::Sorted;
use selvedge_topology::{
    ArcIx, BitRate, End, Forwarding, LinkIx, NodeIx, NodeName, Path, Snapshot,
};

use self::books::{Books, Slot};
use self::bounds::Bounds;
use self::rebuild::Whole;
use self::watch::{Watch, Watches};

use crate::class::{Class, FRAME_BYTES, OVERHEAD_BYTES};
use crate::limits::MTU_BYTES;
use crate::{Direction, NetworkSlice, ObjectName};

pub use delay::{DelayBound, HopDelay};
pub use explain::{Explanation, LinkUse, PathExplanation};
pub use memory::HookMemory;
pub use offer::Offer;
pub use protect::{Failure, Protection, failures};
pub use rebuild::InOrder;
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
    if let Some(bits) = ip.0.checked_mul(frame) {
        return BitRate(bits.div_ceil(MTU_BYTES));
    }
    let rate = (u128::from(ip.0) * u128::from(frame)).div_ceil(u128::from(MTU_BYTES));
    BitRate(u64::try_from(rate).unwrap_or(u64::MAX))
}

/// The largest rate of full IP packets whose frames fit a rate.
fn ip_rate(frames: BitRate) -> BitRate {
    if let Some(bits) = frames.0.checked_mul(MTU_BYTES) {
        return BitRate(bits / FRAME_BYTES);
    }
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
    pub endpoints: &'a Arc<BTreeMap<NodeName, Attachment>>,
    /// The nodes that each known hook can run on.
    pub hooks: &'a BTreeMap<ObjectName, Vec<NodeIx>>,
    pub memory: &'a HookMemory,
}

impl Network<'_> {
    /// The endpoint's switch, and the arc that leads from there to it, where its link is known.
    fn attached(&self, endpoint: &NodeName) -> Option<(NodeIx, Option<ArcIx>)> {
        let Attachment { switch, link } = *self.endpoints.get(endpoint)?;
        let to = |link| ArcIx::new(link, self.snapshot.link(link).b.node == *endpoint);
        Some((switch, link.map(to)))
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
    /// Where packets go after a failure on `path`; `None`: the slice is not protected here.
    pub backup: Option<Backup>,
    /// The egress links to the endpoints served, for the delay bound.
    exits: Vec<ArcIx>,
}

/// A second way, for the failures that the first does not survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    pub path: Path,
    /// As [`Placed::segments`].
    pub segments: Vec<Segment>,
}

/// A slice with its place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    pub slice: NetworkSlice,
    /// By direction, sender's switch, receiver's switch: one for each that is needed.
    pub placed: Vec<Placed>,
    /// Frames' rate by arc, access links included, and of a slice that is not shared also what
    /// the worst failure adds. Nothing is reserved when the promise is waived.
    pub reserved: BTreeMap<ArcIx, BitRate>,
    /// Frames' rate that comes on top on an arc when that failure moves ways to their backups.
    /// By arc, then by failure. Others may count on the same capacity for other failures.
    pub spare: Vec<(ArcIx, Failure, BitRate)>,
    /// Why the promise is not kept at present; `None` when it is.
    pub waived: Option<Refusal>,
}

impl Admitted {
    /// What its ways and their backups lead over, links to endpoints included.
    fn arcs(&self) -> impl Iterator<Item = ArcIx> {
        self.placed.iter().flat_map(|placed| {
            let backup = placed.backup.iter().flat_map(|backup| &backup.path.arcs);
            placed.path.arcs.iter().chain(backup).chain(&placed.exits).copied()
        })
    }

    /// The way from one switch to another.
    pub fn way(&self, direction: Direction, from: NodeIx, to: NodeIx) -> Option<&Placed> {
        self.placed.iter().find(|p| (p.direction, p.from, p.to) == (direction, from, to))
    }
}

/// What the network has promised, by slice.
///
/// Cheap to clone: slices, and the sums of each arc, are shared until they change.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    admitted: Sorted<ObjectName, Entry>,
    books: Books,
    bounds: Bounds,
    /// The promised latencies.
    watches: Watches,
    /// By slot; the name that was there last where it is free.
    names: Names,
    free: Vec<Slot>,
    /// What was made of the same slices with all links up.
    whole: Option<Arc<Whole>>,
}

type Names = Sorted<Slot, ObjectName>;

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    slot: Slot,
    /// It might have been placed otherwise if others had taken less.
    pressed: bool,
    admitted: Arc<Admitted>,
}

/// The same promises, however they came about.
impl PartialEq for Ledger {
    fn eq(&self, other: &Self) -> bool {
        self.books == other.books && self.iter().eq(other.iter())
    }
}

impl Eq for Ledger {}

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
        self.prepare(network);
        if let (Some(latency), Some(link)) = (slice.latency, self.books.shaped(slice.class)) {
            let link = network.snapshot.link(link);
            return Err(Box::new(Refusal::Shaped {
                slice: slice.name.clone(),
                class: slice.class,
                latency,
                link: format!("{} - {}", link.a, link.b),
            }));
        }
        let before = self.take(&slice.name);
        let slot = self.slot(&slice.name);
        let result = place::promised(self, network, slice, slot);
        self.settle(network, slot, before, result)
    }

    /// Places a slice without its promises, for a network that can no longer keep them: paths
    /// and hooks only. Whoever meters it treats it as best effort.
    pub fn admit_waived(
        &mut self,
        network: &Network<'_>,
        slice: &NetworkSlice,
        why: Refusal,
    ) -> Result<&Admitted, Box<Refusal>> {
        self.prepare(network);
        let before = self.take(&slice.name);
        let slot = self.slot(&slice.name);
        let result = place::waived(self, network, slice, why);
        self.settle(network, slot, before, result.map(|admitted| (admitted, true)))
    }

    fn settle(
        &mut self,
        network: &Network<'_>,
        slot: Slot,
        before: Option<Entry>,
        result: Result<(Admitted, bool), Box<Refusal>>,
    ) -> Result<&Admitted, Box<Refusal>> {
        match result {
            Ok((admitted, pressed)) => {
                self.free.extend(before.map(|before| before.slot));
                Ok(self.enter(network, Entry { slot, pressed, admitted: Arc::new(admitted) }))
            }
            Err(refusal) => {
                self.free.push(slot);
                if let Some(before) = before {
                    self.put_back(network, before);
                }
                Err(refusal)
            }
        }
    }

    fn put_back(&mut self, network: &Network<'_>, entry: Entry) {
        self.add_flows(entry.slot, &entry.admitted);
        self.bounds.forget();
        self.enter(network, entry);
    }

    /// Tables for this network's links.
    fn prepare(&mut self, network: &Network<'_>) {
        if self.books.prepare(network.snapshot.topology()) {
            self.bounds.prepare(network);
        }
    }

    fn slot(&mut self, name: &ObjectName) -> Slot {
        let more = Slot::try_from(self.names.len()).expect("slices are fewer than 2^32");
        let slot = self.free.pop().unwrap_or(more);
        self.names.insert(slot, name.clone());
        slot
    }

    fn add_flows(&mut self, slot: Slot, admitted: &Admitted) {
        for (direction, flow) in delay::flows(admitted) {
            self.bounds.add((slot, direction), &flow);
        }
    }

    fn remove_flows(&mut self, slot: Slot, admitted: &Admitted) {
        for (direction, flow) in delay::flows(admitted) {
            self.bounds.remove((slot, direction), &flow);
        }
    }

    /// Writes down a slice whose flows are in the bounds already.
    fn enter(&mut self, network: &Network<'_>, entry: Entry) -> &Admitted {
        let Entry { slot, admitted, .. } = &entry;
        self.books.add(*slot, &admitted.reserved, &admitted.spare);
        if let Some(watch) = Watch::of(network, *slot, admitted) {
            self.watches.insert(&watch);
        }
        let name = admitted.slice.name.clone();
        self.admitted.insert(name.clone(), entry);
        &self.admitted[&name].admitted
    }

    /// Strikes a slice out, flows included; its slot stays taken.
    fn take(&mut self, name: &ObjectName) -> Option<Entry> {
        let entry = self.admitted.remove(name)?;
        self.books.remove(entry.slot, &entry.admitted.reserved, &entry.admitted.spare);
        self.remove_flows(entry.slot, &entry.admitted);
        if entry.admitted.slice.latency.is_some() {
            self.watches.remove(entry.slot);
        }
        Some(entry)
    }

    pub fn remove(&mut self, name: &ObjectName) -> Option<Admitted> {
        let Entry { slot, admitted, .. } = self.take(name)?;
        self.free.push(slot);
        Some(Arc::unwrap_or_clone(admitted))
    }

    /// Puts back what [`Self::remove`] gave, with everything else as it was then.
    pub(crate) fn restore(&mut self, network: &Network<'_>, admitted: Admitted) {
        let slot = self.slot(&admitted.slice.name);
        self.put_back(network, Entry { slot, pressed: true, admitted: Arc::new(admitted) });
    }

    pub fn get(&self, name: &str) -> Option<&Admitted> {
        self.admitted.get(name).map(|entry| &*entry.admitted)
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectName, &Admitted)> {
        self.admitted.iter().map(|(name, entry)| (name, &*entry.admitted))
    }

    /// Slices that `after` has otherwise or has not, and those that it has besides, by name.
    pub fn differences<'a>(&'a self, after: &'a Self, mut each: impl FnMut(&'a ObjectName)) {
        self.admitted.differences(&after.admitted, |name, _, _| each(name));
    }

    pub fn len(&self) -> usize {
        self.admitted.len()
    }

    pub fn is_empty(&self) -> bool {
        self.admitted.is_empty()
    }

    /// What is promised on an arc, as frames' rate: what is in use, and what the worst failure
    /// adds.
    pub fn reserved(&self, arc: ArcIx) -> BitRate {
        BitRate(self.books.used(arc).saturating_add(self.books.most_spare(arc)))
    }

    /// What is promised to a class on an arc, as frames' rate: what is in use, and at least what
    /// any failure adds.
    pub fn promised(&self, arc: ArcIx, class: Class) -> BitRate {
        let is_of = |slot: &Slot| self.admitted[&self.names[slot]].admitted.slice.class == class;
        let used = self.books.all_holders(arc).filter(|(slot, _)| is_of(slot));
        let used = used.fold(0u64, |sum, (_, rate)| sum.saturating_add(rate));
        BitRate(used.saturating_add(self.books.most_spare(arc)))
    }

    /// What a failure adds to an arc, as frames' rate.
    pub fn spare(&self, arc: ArcIx, failure: Failure) -> BitRate {
        BitRate(self.books.spare(arc, failure))
    }

    /// Who has promises on an arc, and how much, as frames' rate: the largest first, at most
    /// `limit`. Spare capacity is nobody's.
    pub fn holders(&self, arc: ArcIx, limit: usize) -> Vec<(ObjectName, BitRate)> {
        self.books.holders(arc, limit, &self.names)
    }

    /// Why a slice is placed as it is.
    pub fn explain(&self, network: &Network<'_>, name: &str) -> Option<Explanation> {
        Some(explain::explain(self, network, self.get(name)?))
    }
}

/// Bytes on a wire per packet beyond the user's, for access and fabric links.
fn overhead(network: &Network<'_>, arc: ArcIx) -> u64 {
    const ETHERNET: u64 = 14;
    let (near, far) = network.snapshot.ends(arc);
    let is_switch = |end: &End| network.snapshot.node(end.node.as_str()).is_some();
    if is_switch(near) && is_switch(far) { OVERHEAD_BYTES } else { ETHERNET }
}
