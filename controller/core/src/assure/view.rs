//! What the APIs read of assurance.

use std::collections::BTreeSet;

use selvedge_pipeline::Direction;
use selvedge_slices::ObjectName;
use selvedge_topology::ArcIx;

use super::Assurance;
use super::DelayView;
use super::judge::{DIRECTIONS, of_slices, promise, recent_delay_ns};
use super::track::{Breach, Kind, Track};
use super::window::{LONGEST, Sum, WINDOWS};
use crate::Core;

/// A slice's promises, and what is measured of them.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceAssurance {
    pub slice: String,
    /// The last second that was judged, since the Unix epoch; `None`: none was.
    pub second: Option<u64>,
    /// Promised; in millionths.
    pub availability_ppm: Option<u32>,
    /// Downlink, uplink.
    pub directions: Vec<DirectionView>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DirectionView {
    /// `downlink` or `uplink`.
    pub direction: &'static str,
    /// Promised.
    pub guaranteed_bps: Option<u64>,
    pub maximum_bps: Option<u64>,
    pub latency_us: Option<u64>,
    /// The last 5 s, minute and quarter of an hour.
    pub windows: Vec<WindowView>,
    /// Links of its paths, in their order; none in [`Core::assurances`].
    pub hops: Vec<HopView>,
    pub breaches: Vec<BreachView>,
}

/// What is not measured is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowView {
    pub seconds: u64,
    /// Seconds of it that were measured.
    pub measured_seconds: u32,
    /// The user's IP bits, as a mean over the seconds that were measured.
    pub offered_bps: Option<u64>,
    pub delivered_bps: Option<u64>,
    /// Of packets within the guarantee, in millionths; `None`: none entered.
    pub loss_ppm: Option<u64>,
    /// One way, nanoseconds: mean, and the largest of any test packet.
    pub delay_ns: Option<u64>,
    pub delay_max_ns: Option<u64>,
    /// Share of the seconds watched in which it worked, in millionths.
    pub availability_ppm: Option<u64>,
}

/// One link, over the last seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct HopView {
    pub link: String,
    pub delay_ns: Option<u64>,
    /// Of all test packets, not only of their means.
    pub delays: Option<DelayView>,
    /// Its part of the bound by which the slice was admitted.
    pub bound_ns: Option<u64>,
    /// Of packets of all slices.
    pub loss_ppm: Option<u64>,
    pub probes: u32,
    pub probes_answered: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct BreachView {
    pub kind: Kind,
    pub breach: Breach,
}

impl Core {
    /// Of one slice; `None`: there is none of that name.
    pub fn assurance(&self, slice: &str) -> Option<SliceAssurance> {
        let mut view = self.measured_beside_promised(slice)?;
        for (direction, view) in DIRECTIONS.into_iter().zip(&mut view.directions) {
            view.hops = self.hops(&self.assurance, slice, direction);
        }
        Some(view)
    }

    fn measured_beside_promised(&self, slice: &str) -> Option<SliceAssurance> {
        let stored = self.intent.slices.get(slice)?;
        let state = &*self.assurance;
        let tracks = state.slices.get(slice);
        let directions = DIRECTIONS.into_iter().zip(0..).map(|(direction, at)| {
            let rates = stored.object.rates(of_slices(direction));
            let track = tracks.map(|tracks| &tracks[at]);
            DirectionView {
                direction: match direction {
                    Direction::Downlink => "downlink",
                    Direction::Uplink => "uplink",
                },
                guaranteed_bps: rates.guaranteed.map(|rate| rate.bps()),
                maximum_bps: rates.maximum.map(|rate| rate.bps()),
                latency_us: stored.object.latency.map(|latency| latency.us()),
                windows: (0..=LONGEST).map(|n| window(track, n)).collect(),
                hops: Vec::new(),
                breaches: track.map(breaches).unwrap_or_default(),
            }
        });
        Some(SliceAssurance {
            slice: slice.to_owned(),
            second: state.judged,
            availability_ppm: promise(&stored.object, Direction::Downlink).availability_ppm,
            directions: directions.collect(),
        })
    }

    /// Of every slice, by name, without hops.
    pub fn assurances(&self) -> Vec<SliceAssurance> {
        let view = |name: &ObjectName| self.measured_beside_promised(name.as_str());
        self.intent.slices.keys().filter_map(view).collect()
    }

    fn hops(&self, state: &Assurance, slice: &str, direction: Direction) -> Vec<HopView> {
        let paths = self.paths(slice, direction);
        let arcs = paths.into_iter().flat_map(|path| path.path.arcs.iter().copied());
        // Each once, and along the paths.
        let mut seen = BTreeSet::new();
        let arcs = arcs.filter(|&arc| seen.insert(arc));
        let bounds = self.hop_bounds(slice);
        let view = |arc: ArcIx| {
            let seconds = state.links.get(&arc).into_iter().flatten();
            let (mut lost, mut sent, mut probes, mut answered) = (0u64, 0u64, 0, 0);
            for (_, link) in seconds {
                if let Some(missing) = link.lost() {
                    lost += missing;
                    sent += link.sent.unwrap_or(0);
                }
                probes += link.probes;
                answered += link.answered;
            }
            HopView {
                link: self.arc_text(arc),
                delay_ns: recent_delay_ns(state, arc),
                delays: state.delay(arc.link()),
                bound_ns: bounds.get(&arc).copied().flatten(),
                loss_ppm: lost.saturating_mul(1_000_000).checked_div(sent),
                probes,
                probes_answered: answered,
            }
        };
        arcs.map(view).collect()
    }
}

fn breaches(track: &Track) -> Vec<BreachView> {
    let both = Kind::ALL.into_iter().zip(&track.breaches);
    both.filter_map(|(kind, breach)| Some(BreachView { kind, breach: breach.clone()? })).collect()
}

fn window(track: Option<&Track>, which: usize) -> WindowView {
    let sum = track.map(|track| track.windows.whole(which)).unwrap_or_default();
    let Sum { seconds, offered_bits, delivered_bits, .. } = sum;
    let mean = |bits: u64| bits.checked_div(seconds.into());
    let up = u64::from(sum.watched - sum.unavailable) * 1_000_000;
    WindowView {
        seconds: WINDOWS[which].0,
        measured_seconds: seconds,
        offered_bps: mean(offered_bits),
        delivered_bps: mean(delivered_bits),
        loss_ppm: sum.loss_ppm(),
        delay_ns: sum.mean_delay_ns(),
        delay_max_ns: (sum.delayed > 0).then_some(sum.delay_max_ns),
        availability_ppm: up.checked_div(sum.watched.into()),
    }
}
