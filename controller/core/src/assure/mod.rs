//! Assurance: what was promised beside what is measured, and when a promise is not kept.
//!
//! Switches tell each second what they counted and measured ([`Event::Measured`](crate::Event)).
//! When all that are joined have told a second, or the next one comes, it is judged: for each
//! direction of each slice its rates, the loss of packets within its guarantee, the delay of its
//! worst path, and whether it worked. Seconds are summed up over windows ([`window`]); breaches
//! begin and end with an event ([`track`]).
//!
//! - *Loss* is exact: all switches count a second's packets by the same mark, where they enter
//!   the fabric and where they leave it. Packets beyond the guarantee do not count.
//! - *Delay* of a path is the sum over its links of half the two-way delay of test packets
//!   (STAMP, RFC 8762), the mean of a second. It holds the links, their queues, and the time
//!   between interface and program; the time in switches and hooks is not in it. 3GPP averages
//!   too (TS 28.554 §6.3.1).
//! - A second is *available* when the slice has a place, no link of its paths is silent (every
//!   test packet lost), and at most [`LOSS_UNAVAILABLE_PPM`] of the packets within the guarantee
//!   are lost.
//!
//! A second of which an end of a slice did not tell is not measured, and counts for nothing.

mod judge;
mod links;
mod track;
mod view;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use selvedge_pipeline::PortId;
use selvedge_slices::ObjectName;
use selvedge_topology::{ArcIx, LinkIx, NodeName};

pub use links::{DelayView, LinkDelaysView, PortRate};
pub use track::{BEGIN_SECONDS, Breach, END_SECONDS, Kind, LOSS_ALLOWED_PPM, LOSS_UNAVAILABLE_PPM};
pub use view::{BreachView, DirectionView, HopView, SliceAssurance, WindowView};

use crate::Core;
use crate::effect::{Effect, Severity};
use crate::event::Measured;
use judge::Second;
use links::LinkDelays;
use track::Track;

/// Seconds that wait for switches to tell them.
const OPEN_SECONDS: usize = 4;
/// Parts that one switch's second may have: 65,536 slices.
const MAX_PARTS: u32 = 64;
/// A switch whose clock is further off counts the packets of another second than its
/// neighbors: marks change each second, and are read half a second later.
const CLOCK_TOLERANCE_MS: u64 = 400;
/// Seconds for which a link's figures are kept.
const LINK_SECONDS: usize = 5;

#[derive(Clone, Debug, Default)]
pub(crate) struct Assurance {
    /// Seconds that are not judged yet.
    open: BTreeMap<u64, BTreeMap<NodeName, Said>>,
    /// The last that was.
    judged: Option<u64>,
    /// The last [`BEGIN_SECONDS`] that were, oldest first.
    recent: VecDeque<(u64, Second)>,
    /// By the direction that packets travel: the last seconds, oldest first.
    links: BTreeMap<ArcIx, VecDeque<(u64, LinkSecond)>>,
    /// Of links with an answered test packet.
    delays: BTreeMap<LinkIx, LinkDelays>,
    /// Of the last seconds, each with its second.
    ports: BTreeMap<(NodeName, PortId), (u64, PortRate)>,
    /// Links on which a test packet was ever answered: one that never was may lead to a switch
    /// that knows none.
    answered: BTreeSet<LinkIx>,
    /// Downlink, uplink.
    slices: BTreeMap<ObjectName, [Track; 2]>,
    /// Switches whose clocks are off.
    skewed: BTreeSet<NodeName>,
}

/// What one switch told of one second, so far.
#[derive(Clone, Debug, Default)]
struct Said {
    parts: u32,
    told: Measured,
}

/// One direction of a link in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LinkSecond {
    probes: u32,
    answered: u32,
    /// One way: half the two-way delay. `None`: no test packet was answered.
    delay_ns: Option<u64>,
    delay_max_ns: u64,
    /// Marked packets at the near and the far end; `None`: an end did not count them.
    sent: Option<u64>,
    received: Option<u64>,
}

impl LinkSecond {
    fn lost(&self) -> Option<u64> {
        Some(self.sent?.saturating_sub(self.received?))
    }

    fn silent(&self) -> bool {
        self.probes > 0 && self.answered == 0
    }
}

impl Core {
    pub(crate) fn measured(
        &mut self,
        switch: &NodeName,
        measured: Measured,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        if self.network.switches.get(switch).is_none_or(|known| !known.joined) {
            return;
        }
        let mut assurance = std::mem::take(&mut self.assurance);
        let state = Arc::make_mut(&mut assurance);
        let in_time = self.clock_agrees(state, switch, measured.at_ms, now_ms, out);
        state.said(switch, measured, in_time, now_ms);
        while let Some(second) = state.complete(self.joined_switches()) {
            let said = state.open.remove(&second).unwrap_or_default();
            self.judge(state, second, &said, now_ms, out);
            state.judged = Some(second);
        }
        self.assurance = assurance;
    }

    fn joined_switches(&self) -> impl Iterator<Item = &NodeName> {
        self.network.switches.iter().filter(|(_, known)| known.joined).map(|(name, _)| name)
    }

    /// Whether the switch's clock is near enough to ours; says when that changes.
    fn clock_agrees(
        &mut self,
        state: &mut Assurance,
        switch: &NodeName,
        at_ms: u64,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) -> bool {
        let off_ms = at_ms.abs_diff(now_ms);
        let agrees = off_ms <= CLOCK_TOLERANCE_MS;
        if agrees && state.skewed.remove(switch) {
            let text = String::from("its clock agrees with the controller's again");
            self.log(Severity::Info, "clock-right", switch, text, now_ms, out);
        } else if !agrees && off_ms > 2 * CLOCK_TOLERANCE_MS && state.skewed.insert(switch.clone())
        {
            let text = format!(
                "its clock is {off_ms} ms off the controller's, or it is behind: the loss of \
                 slices that enter or leave there is not measured (at most {CLOCK_TOLERANCE_MS} \
                 ms; synchronise both by NTP)"
            );
            self.log(Severity::Warning, "clock-off", switch, text, now_ms, out);
        }
        agrees
    }
}

impl Assurance {
    /// Notes a part of what a switch tells. Seconds that are judged, or are not of now, are none
    /// of ours.
    fn said(&mut self, switch: &NodeName, measured: Measured, in_time: bool, now_ms: u64) {
        let second = measured.second;
        let now = now_ms / 1000;
        let near = now.saturating_sub(OPEN_SECONDS as u64)..=now;
        if !near.contains(&second) || self.judged.is_some_and(|judged| second <= judged) {
            return;
        }
        let said = self.open.entry(second).or_default().entry(switch.clone()).or_default();
        if said.told.last || said.parts >= MAX_PARTS {
            return;
        }
        let exact = measured.exact && in_time && (said.parts == 0 || said.told.exact);
        said.parts += 1;
        let Measured { links, slices, last, interval_ms, .. } = measured;
        said.told.exact = exact;
        said.told.interval_ms = interval_ms;
        said.told.last = last;
        said.told.links.extend(links);
        said.told.slices.extend(slices);
    }

    /// The oldest open second, if nobody has to be waited for: all `joined` have told it, or
    /// somebody has told the next one already.
    fn complete<'a>(&self, mut joined: impl Iterator<Item = &'a NodeName>) -> Option<u64> {
        let (second, said) = self.open.first_key_value()?;
        let mut later = self.open.range(second + 1..).flat_map(|(_, said)| said.values());
        let told = |name| said.get(name).is_some_and(|one| one.told.last);
        (later.any(|one| one.told.last) || joined.all(told)).then_some(*second)
    }
}
