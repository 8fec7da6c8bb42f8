//! One second, judged.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_pipeline::{Direction, DropReason, HookId, SliceId};
use selvedge_slices::admission::{Explanation, Placed};
use selvedge_slices::{NetworkSlice, ObjectName};
use selvedge_topology::{ArcIx, LinkIx, NodeName};

use super::track::{BEGIN_SECONDS, Breach, Change, Kind, LOSS_UNAVAILABLE_PPM, Promise, Track};
use super::window::Sum;
use super::{Assurance, LINK_SECONDS, LinkSecond, Said};
use crate::Core;
use crate::effect::{Effect, Severity};
use crate::event::Counted;
use crate::network::Use;

pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Downlink, Direction::Uplink];

/// In the order of [`DIRECTIONS`].
fn index(direction: Direction) -> usize {
    usize::from(direction == Direction::Uplink)
}

pub(super) fn of_slices(direction: Direction) -> selvedge_slices::Direction {
    match direction {
        Direction::Downlink => selvedge_slices::Direction::Downlink,
        Direction::Uplink => selvedge_slices::Direction::Uplink,
    }
}

/// One direction of a slice at all switches.
#[derive(Clone, Debug, Default)]
struct Total {
    offered_bits: u64,
    delivered_bits: u64,
    entered: u64,
    left: u64,
    /// Packets within the guarantee that were dropped, where and why.
    drops: Vec<(NodeName, u64, Option<DropReason>)>,
}

/// What all switches told of one second.
#[derive(Clone, Debug, Default)]
pub(super) struct Second {
    /// Switches that told it, and of those the ones whose marked packets are this second's.
    told: BTreeSet<NodeName>,
    exact: BTreeSet<NodeName>,
    slices: BTreeMap<(SliceId, usize), Total>,
    /// Packets that hooks were handed and did not hand back.
    hooks: BTreeMap<(NodeName, HookId), u64>,
}

impl Core {
    pub(super) fn judge(
        &mut self,
        state: &mut Assurance,
        at: u64,
        said: &BTreeMap<NodeName, Said>,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        let second = self.add_up(state, at, said);
        state.recent.retain(|(second, _)| second + BEGIN_SECONDS > at);
        state.recent.push_back((at, second));
        state.slices.retain(|name, _| self.intent.slices.contains_key(name));
        let names: Vec<ObjectName> = self.intent.slices.keys().cloned().collect();
        for name in names {
            for (direction, which) in DIRECTIONS.into_iter().zip(0..) {
                let Some(slice) = self.intent.slices.get(&name).map(|stored| &stored.object) else {
                    continue;
                };
                let sum = self.second_of(state, slice, direction);
                let promise = promise(slice, direction);
                let paths = self.paths(name.as_str(), direction);
                let track = &mut state.slices.entry(name.clone()).or_default()[which];
                track.goes_over(at, paths.iter().flat_map(|path| path.path.arcs.iter().copied()));
                for change in track.take(at, &sum, promise, now_ms) {
                    self.tell(state, &name, direction, change, now_ms, out);
                }
            }
        }
    }

    /// Links into `state`, slices and hooks into what is returned.
    fn add_up(&self, state: &mut Assurance, at: u64, said: &BTreeMap<NodeName, Said>) -> Second {
        let mut second = Second::default();
        let mut arcs: BTreeMap<ArcIx, LinkSecond> = BTreeMap::new();
        let mut probes: BTreeMap<LinkIx, Vec<(u32, u32, u64, u64)>> = BTreeMap::new();
        for (name, Said { told, .. }) in said.iter().filter(|(_, said)| said.told.last) {
            second.told.insert(name.clone());
            if told.exact {
                second.exact.insert(name.clone());
            }
            for count in &told.links {
                match count.at {
                    Counted::Hook(hook) => {
                        let kept = count.sent.saturating_sub(count.received);
                        second.hooks.insert((name.clone(), hook), kept);
                    }
                    Counted::Port(port) => {
                        let out = self.arc_out_of(name, port);
                        let link = out.map(ArcIx::link);
                        state.add_port(at, (name, port), link, count, told);
                        let Some(out) = out else { continue };
                        let figures = (count.probes, count.answered, count.delay_ns);
                        let figures = (figures.0, figures.1, figures.2, count.delay_max_ns);
                        probes.entry(out.link()).or_default().push(figures);
                        if told.exact {
                            arcs.entry(out).or_default().sent = Some(count.sent);
                            arcs.entry(out.reverse()).or_default().received = Some(count.received);
                        }
                    }
                }
            }
            for count in &told.slices {
                let key = (count.slice, index(count.direction));
                let total = second.slices.entry(key).or_default();
                let rate = |bytes: u64| bits_per_second(bytes, told.interval_ms);
                total.offered_bits = total.offered_bits.saturating_add(rate(count.in_bytes));
                total.delivered_bits =
                    total.delivered_bits.saturating_add(rate(count.delivered_bytes));
                total.entered = total.entered.saturating_add(count.entered);
                total.left = total.left.saturating_add(count.left);
                if count.lost > 0 {
                    total.drops.push((name.clone(), count.lost, count.lost_reason));
                }
            }
        }
        state.forget(at);
        for (link, figures) in probes {
            let measured = measured_link(&figures);
            if measured.answered > 0 {
                state.answered.insert(link);
            }
            for arc in [ArcIx::new(link, true), ArcIx::new(link, false)] {
                let LinkSecond { sent, received, .. } = arcs.get(&arc).copied().unwrap_or_default();
                arcs.insert(arc, LinkSecond { sent, received, ..measured });
            }
        }
        for (arc, link) in arcs {
            let seconds = state.links.entry(arc).or_default();
            seconds.push_back((at, link));
        }
        state.links.retain(|_, seconds| {
            while seconds.front().is_some_and(|(second, _)| second + LINK_SECONDS as u64 <= at) {
                seconds.pop_front();
            }
            !seconds.is_empty()
        });
        second
    }

    /// The declared link that leaves a switch by a port.
    fn arc_out_of(&self, switch: &NodeName, port: selvedge_pipeline::PortId) -> Option<ArcIx> {
        let port = self.network.switches.get(switch)?.ports.get(&port)?;
        let Use::Fabric(link) = self.network.port_use(switch, port)? else { return None };
        let near = &self.network.link(link).a;
        let a_to_b = near.node == *switch && near.port.as_str() == port.name;
        Some(ArcIx::new(link, a_to_b))
    }

    /// The paths of one direction of a slice.
    pub(super) fn paths(&self, slice: &str, direction: Direction) -> Vec<&Placed> {
        let placed = self.derived.ledger.get(slice).map(|admitted| admitted.placed.as_slice());
        let wanted = of_slices(direction);
        placed.unwrap_or_default().iter().filter(|path| path.direction == wanted).collect()
    }

    fn second_of(&self, state: &Assurance, slice: &NetworkSlice, direction: Direction) -> Sum {
        let name = slice.name.as_str();
        let paths = self.paths(name, direction);
        let ends = |set: &BTreeSet<NodeName>| {
            let snapshot = &self.derived.snapshot;
            let ends = paths.iter().flat_map(|path| [path.from, path.to]);
            ends.into_iter().all(|node| set.contains(snapshot.name(node)))
        };
        let mut sum = Sum::default();
        let Some((_, second)) = state.recent.back() else { return sum };
        let key = self.numbers.known_slice(name).map(|id| (id, index(direction)));
        let total = key.and_then(|key| second.slices.get(&key)).cloned().unwrap_or_default();
        if !paths.is_empty() && ends(&second.told) {
            sum.seconds = 1;
            sum.offered_bits = total.offered_bits;
            sum.delivered_bits = total.delivered_bits;
            if ends(&second.exact) {
                sum.exact = 1;
                sum.entered = total.entered;
                sum.lost = total.entered.saturating_sub(total.left);
            }
        }
        let arcs = || paths.iter().flat_map(|path| &path.path.arcs);
        let last = |arc: &ArcIx| state.links.get(arc)?.back().map(|(_, link)| *link);
        let delays = paths.iter().filter_map(|path| {
            let links = path.path.arcs.iter().map(|arc| {
                let link = last(arc)?;
                Some((link.delay_ns?, link.delay_max_ns))
            });
            let links: Option<Vec<_>> = links.collect();
            let links = links.filter(|links| !links.is_empty())?;
            Some(links.iter().fold((0, 0), |(mean, most), link| (mean + link.0, most + link.1)))
        });
        if let Some((mean, most)) = delays.max() {
            sum.delayed = 1;
            sum.delay_ns = mean;
            sum.delay_max_ns = most;
        }
        let placed = self.derived.slices.get(name).is_some_and(|slice| slice.placed);
        let silent = arcs().any(|arc| {
            state.answered.contains(&arc.link()) && last(arc).is_some_and(|l| l.silent())
        });
        let lossy = sum.loss_ppm().is_some_and(|ppm| ppm > LOSS_UNAVAILABLE_PPM);
        if !placed || silent || lossy {
            sum.watched = 1;
            sum.unavailable = 1;
        } else if sum.seconds > 0 || sum.delayed > 0 {
            sum.watched = 1;
        }
        sum
    }

    /// A breach into the event log, and into the track with what is to blame.
    fn tell(
        &mut self,
        state: &mut Assurance,
        name: &ObjectName,
        direction: Direction,
        change: Change,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        let side = of_slices(direction);
        match change {
            Change::Begins(kind) => {
                let (hop, text) = self.breach(state, name, direction, kind);
                let place = hop.as_ref().map(|hop| format!("; {hop}")).unwrap_or_default();
                let line = format!("{side} {}: {text}{place}", kind.as_str());
                self.log(Severity::Error, "slice-breach", name, line, now_ms, out);
                let track = state.slices.get_mut(name).map(|tracks| &mut tracks[index(direction)]);
                if let Some(breach) = track.and_then(|track| track.breaches[kind as usize].as_mut())
                {
                    *breach = Breach { since_ms: breach.since_ms, hop, text };
                }
            }
            Change::Ends(kind, since_ms) => {
                let seconds = now_ms.saturating_sub(since_ms) / 1000;
                let text = format!("{side} {}: kept again after {seconds} s", kind.as_str());
                self.log(Severity::Info, "slice-breach-ended", name, text, now_ms, out);
            }
        }
    }

    /// The hop to blame, and what is measured beside what is promised.
    fn breach(
        &self,
        state: &Assurance,
        name: &ObjectName,
        direction: Direction,
        kind: Kind,
    ) -> (Option<String>, String) {
        let Some(slice) = self.intent.slices.get(name).map(|stored| &stored.object) else {
            return (None, String::new());
        };
        let track = state.slices.get(name).map(|tracks| &tracks[index(direction)]);
        let recent = track.map(|track| track.windows.recent(BEGIN_SECONDS)).unwrap_or_default();
        match kind {
            Kind::Rate => {
                let share = percent(recent.loss_ppm().unwrap_or(0));
                let rate = slice.rates(of_slices(direction)).guaranteed.unwrap_or_default();
                let text = format!(
                    "{share} of the packets within its guarantee of {rate} are lost ({} of {})",
                    recent.lost, recent.entered
                );
                (self.who_loses(state, name, direction), text)
            }
            Kind::Delay => {
                let measured = in_time(recent.mean_delay_ns().unwrap_or(0));
                let promised = slice.latency.unwrap_or_default();
                let text = format!("{measured} on its worst path, promised {promised}");
                (self.who_delays(state, name, direction), text)
            }
            Kind::Availability => {
                let promised = slice.availability.map_or(0, |share| share.ppm());
                let whole = track.map(|t| t.windows.whole(super::window::LONGEST));
                let text = format!(
                    "{} s of the last 15 minutes it did not work, promised {}",
                    whole.unwrap_or_default().unavailable,
                    percent(promised.into())
                );
                let silent = recent_links(state, name, direction).find(|arc| {
                    let last = state.links.get(arc).and_then(|seconds| seconds.back());
                    last.is_some_and(|(_, link)| link.silent())
                });
                let hop = silent.map(|arc| format!("{} is silent", self.arc_text(arc)));
                (hop.or_else(|| self.who_loses(state, name, direction)), text)
            }
        }
    }

    /// The link, switch or hook that lost most of a slice's packets in the last
    /// [`BEGIN_SECONDS`]. Links are shared, so they are asked last: only what no switch and no
    /// hook of the slice accounts for.
    fn who_loses(
        &self,
        state: &Assurance,
        name: &ObjectName,
        direction: Direction,
    ) -> Option<String> {
        let key = (self.numbers.known_slice(name.as_str())?, index(direction));
        let mut lost = 0;
        let mut drops: BTreeMap<(&NodeName, Option<DropReason>), u64> = BTreeMap::new();
        let mut hooks: BTreeMap<&(NodeName, HookId), u64> = BTreeMap::new();
        for (_, second) in &state.recent {
            if let Some(total) = second.slices.get(&key) {
                lost += total.entered.saturating_sub(total.left);
                for (switch, count, reason) in &total.drops {
                    *drops.entry((switch, *reason)).or_default() += count;
                }
            }
            for (hook, kept) in &second.hooks {
                if self.derived.hooks.get(hook).is_some_and(|wanted| wanted.slice == *name) {
                    *hooks.entry(hook).or_default() += kept;
                }
            }
        }
        let at_switch = drops.into_iter().max_by_key(|(_, count)| *count);
        let at_switch = at_switch.map(|((switch, reason), count)| {
            let reason = reason.map_or("unknown", DropReason::name);
            (count, format!("{switch} dropped {count} of them ({reason})"))
        });
        let in_hook = hooks.into_iter().max_by_key(|(_, kept)| *kept).map(|(key, kept)| {
            let called = self.derived.hooks.get(key);
            let called = called.map_or_else(String::new, |wanted| wanted.hook.to_string());
            (kept, format!("hook {called} on {} kept {kept}", key.0))
        });
        let on_link = recent_links(state, name, direction).filter_map(|arc| {
            let seconds = state.links.get(&arc)?.iter().rev().take(BEGIN_SECONDS as usize);
            let (mut lost, mut sent) = (0, 0);
            for (_, link) in seconds {
                lost += link.lost().unwrap_or(0);
                sent += link.sent.unwrap_or(0);
            }
            Some((lost, format!("{} lost {lost} of {sent} packets", self.arc_text(arc))))
        });
        let on_link = on_link.max_by_key(|(lost, _)| *lost);
        let candidates = [at_switch, in_hook, on_link].into_iter().flatten();
        let candidates = candidates.filter(|(count, _)| *count > 0);
        // The first of equals: capped, since links lose other slices' packets as well.
        let worst = candidates.fold(None, |worst: Option<(u64, String)>, (count, text)| {
            let count = count.min(lost.max(1));
            match worst {
                Some((most, _)) if most >= count => worst,
                _ => Some((count, text)),
            }
        });
        worst.map(|(_, text)| text)
    }

    /// The link with the largest delay beyond its part of the bound.
    fn who_delays(
        &self,
        state: &Assurance,
        name: &ObjectName,
        direction: Direction,
    ) -> Option<String> {
        let bounds = self.hop_bounds(name.as_str());
        let excess = recent_links(state, name, direction).filter_map(|arc| {
            let delay_ns = recent_delay_ns(state, arc)?;
            let bound_ns = bounds.get(&arc).copied().flatten().unwrap_or(0);
            Some((delay_ns.saturating_sub(bound_ns), delay_ns, arc))
        });
        let (excess, delay_ns, arc) = excess.max()?;
        let (link, takes, more) = (self.arc_text(arc), in_time(delay_ns), in_time(excess));
        Some(format!("{link} takes {takes}, {more} more than its part of the bound"))
    }

    /// Each link's part of the bound that admission promised by, in nanoseconds; `None`: there
    /// is no bound.
    pub(super) fn hop_bounds(&self, slice: &str) -> BTreeMap<ArcIx, Option<u64>> {
        let explained = self.derived.ledger.explain(&self.derived.placement(), slice);
        let Some(Explanation { paths, .. }) = explained else { return BTreeMap::new() };
        let placed = self.derived.ledger.get(slice).map(|admitted| admitted.placed.as_slice());
        let both = placed.unwrap_or_default().iter().zip(paths);
        let hops = both.flat_map(|(placed, explained)| {
            let hops = explained.delay.map(|bound| bound.hops).unwrap_or_default();
            let terms = hops.into_iter().map(|hop| {
                let propagation = hop.propagation.map_or(0, |delay| delay.us() * 1000);
                Some(propagation + hop.queue?.nanoseconds)
            });
            let terms = terms.chain(std::iter::repeat(None));
            placed.path.arcs.iter().copied().zip(terms).collect::<Vec<_>>()
        });
        hops.collect()
    }

    pub(super) fn arc_text(&self, arc: ArcIx) -> String {
        let (near, far) = self.derived.snapshot.ends(arc);
        format!("{near} -> {far}")
    }
}

/// Links of a slice's paths in the last [`BEGIN_SECONDS`].
fn recent_links(
    state: &Assurance,
    name: &ObjectName,
    direction: Direction,
) -> impl Iterator<Item = ArcIx> {
    let track = state.slices.get(name).map(|tracks| &tracks[index(direction)]);
    track.into_iter().flat_map(Track::recent_links)
}

/// One way, nanoseconds: the mean of the last few seconds.
pub(super) fn recent_delay_ns(state: &Assurance, arc: ArcIx) -> Option<u64> {
    let seconds = state.links.get(&arc)?.iter().rev().take(BEGIN_SECONDS as usize);
    let delays: Vec<u64> = seconds.filter_map(|(_, link)| link.delay_ns).collect();
    delays.iter().sum::<u64>().checked_div(delays.len() as u64)
}

pub(super) fn promise(slice: &NetworkSlice, direction: Direction) -> Promise {
    Promise {
        guaranteed: slice.rates(of_slices(direction)).guaranteed.is_some(),
        latency_ns: slice.latency.map(|latency| latency.us().saturating_mul(1000)),
        availability_ppm: slice.availability.map(|share| share.ppm()),
    }
}

/// Both ends of a link measure it: probes, answers, mean and largest two-way delay of each.
fn measured_link(ends: &[(u32, u32, u64, u64)]) -> LinkSecond {
    let mut link = LinkSecond::default();
    let mut total = 0u64;
    for (probes, answered, mean, most) in ends {
        link.probes += probes;
        link.answered += answered;
        total = total.saturating_add(mean.saturating_mul(u64::from(*answered)));
        link.delay_max_ns = link.delay_max_ns.max(most / 2);
    }
    link.delay_ns = total.checked_div(u64::from(link.answered)).map(|two_way| two_way / 2);
    link
}

pub(super) fn bits_per_second(bytes: u64, interval_ms: u32) -> u64 {
    let bits = u128::from(bytes) * 8000;
    u64::try_from(bits.checked_div(interval_ms.into()).unwrap_or(0)).unwrap_or(u64::MAX)
}

fn in_time(ns: u64) -> String {
    let tenths = ns.div_ceil(100_000);
    format!("{}.{} ms", tenths / 10, tenths % 10)
}

/// Of millionths.
pub(super) fn percent(ppm: u64) -> String {
    let text = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}
