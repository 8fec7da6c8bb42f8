//! Meters: each slice's totals, split among the switches where its traffic enters.
//!
//! What endpoints are guaranteed of their own is part of the share where it enters: of the uplink
//! where they are, of the downlink divided among all switches where it enters. The rest of shares is
//! equal, and they never add up to more than the total. Endpoints' bursts are part of the slice's in
//! the same way. A switch that runs a hook of the
//! slice meters what comes back from it by the same entry, so there the total is added once
//! for each hook: at a switch where traffic of that direction also enters only while the hook
//! runs, since what bypasses it is counted once only.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_pipeline::{
    Class, Direction, EndpointId, EndpointMeterEntry, Entry, SliceId, SliceMeterEntry,
};
use selvedge_slices::limits::MTU_BYTES;
use selvedge_slices::{Endpoint, NetworkSlice, ObjectName, Rates};
use selvedge_topology::{BitRate, Bytes, NodeName};

use super::Scope;
use super::fabric::put;
use super::slices::Member;
use super::ways::Ways;
use crate::derived::Derived;
use crate::event::HookState;
use crate::numbers::Numbers;
use crate::refusal::Refusal;
use crate::table::Table;

pub(super) fn meters(
    derived: &Derived,
    scope: &Scope,
    members: &[Member<'_>],
    ways: &Ways,
    numbers: &mut Numbers,
    tables: &mut BTreeMap<NodeName, Table>,
) -> Result<(), Refusal> {
    let mut ingresses: BTreeMap<(&ObjectName, Direction), BTreeSet<&NodeName>> = BTreeMap::new();
    for member in members {
        for slice in &member.slices {
            let entered = ingresses.entry((slice, member.direction())).or_default();
            entered.insert(&member.located.switch);
        }
    }
    let mut rated: BTreeMap<&ObjectName, Vec<&Member<'_>>> = BTreeMap::new();
    for member in members {
        for slice in member.own.keys() {
            rated.entry(slice).or_default().push(member);
        }
    }
    for name in &scope.slices {
        let rated = rated.get(name).map(Vec::as_slice).unwrap_or_default();
        let Some(stored) = derived.of.intent.active_slice(name) else { continue };
        let id = numbers.slice(name.as_str())?;
        let kept = derived.slices.get(name.as_str()).is_some_and(|s| s.reasons.is_empty());
        for direction in [Direction::Downlink, Direction::Uplink] {
            let entered = ingresses.get(&(name, direction)).cloned().unwrap_or_default();
            let (mut own, mut own_at) = (Total::NONE, BTreeMap::new());
            for member in rated {
                let Some(rates) = Total::own(&stored.object, member.own[name], direction, kept)
                else {
                    continue;
                };
                let at: Vec<&NodeName> = match direction {
                    Direction::Uplink => vec![&member.located.switch],
                    Direction::Downlink => entered.iter().copied().collect(),
                };
                let share = rates.share(at.len());
                for switch in at {
                    let meter = share.endpoint_meter(id, direction, member.endpoint);
                    put(tables.entry(switch.clone()).or_default(), Entry::EndpointMeter(meter));
                    *own_at.entry(switch).or_default() += share.guaranteed.0;
                }
                own = own.plus(&rates, 1);
            }
            let Some(total) = Total::of(&stored.object, direction, kept) else { continue };
            let hooks = ways.hooks_of(name, direction);
            let rest = total.without(&own).share(entered.len());
            let switches: BTreeSet<&NodeName> =
                entered.iter().copied().chain(hooks.keys().copied()).collect();
            for switch in switches {
                let enters = entered.contains(switch);
                let counted = hooks.get(switch).map_or(0, |hooks| {
                    let runs = |hook: &&_| {
                        let known = derived.of.switches.get(switch);
                        let status = known.and_then(|known| known.hooks.get(*hook));
                        status.is_some_and(|status| status.state == HookState::Running)
                    };
                    if enters { hooks.iter().filter(runs).count() } else { hooks.len() }
                });
                let counted = u64::try_from(counted).expect("few hooks");
                let first = match enters {
                    true => rest.with(own_at.get(switch).copied().unwrap_or_default()),
                    false => Total { class: total.class, ..Total::NONE },
                };
                let sum = first.plus(&total, counted);
                let meter = sum.meter(id, direction);
                put(tables.entry(switch.clone()).or_default(), Entry::SliceMeter(meter));
            }
        }
    }
    Ok(())
}

/// Below it a meter of a switch holds no rate.
const LEAST_METERED_BPS: u64 = 8_000;

/// Rates of a slice or an endpoint.
#[derive(Clone, Copy)]
struct Total {
    class: Class,
    guaranteed: BitRate,
    guaranteed_burst: Bytes,
    maximum: BitRate,
    maximum_burst: Bytes,
}

impl Total {
    const NONE: Self = Self {
        class: Class::BestEffort,
        guaranteed: BitRate(0),
        guaranteed_burst: Bytes(0),
        maximum: BitRate(0),
        maximum_burst: Bytes(0),
    };

    /// An endpoint's own; `None`: it has none. A burst is its share of the slice's.
    fn own(
        slice: &NetworkSlice,
        endpoint: &Endpoint,
        direction: Direction,
        kept: bool,
    ) -> Option<Self> {
        let (all, own) = (slice.rates(of_slices(direction)), endpoint.rates(of_slices(direction)));
        let guaranteed = own.guaranteed.filter(|_| kept).unwrap_or_default();
        let burst = u128::from(all.guaranteed_burst(slice.class).0) * u128::from(guaranteed.0)
            / u128::from(all.guaranteed.unwrap_or_default().0.max(1));
        own.is_some().then_some(Self {
            class: Class::BestEffort,
            guaranteed,
            guaranteed_burst: Bytes(u64::try_from(burst).unwrap_or(u64::MAX)),
            maximum: own.maximum.unwrap_or_default(),
            maximum_burst: Rates { burst: all.burst, ..*own }.maximum_burst(slice.class),
        })
    }

    /// What is left of a slice's total besides what its endpoints are guaranteed.
    fn without(&self, own: &Self) -> Self {
        let (of, burst) = (own.guaranteed.0, own.guaranteed_burst.0);
        Self {
            guaranteed: BitRate(self.guaranteed.0.saturating_sub(of)),
            guaranteed_burst: Bytes(self.guaranteed_burst.0.saturating_sub(burst)),
            // None is no maximum.
            maximum: BitRate(match self.maximum.0 {
                0 => 0,
                maximum => maximum.saturating_sub(of).max(1),
            }),
            ..*self
        }
    }

    /// A share, and what endpoints are guaranteed where it is.
    fn with(&self, own_bps: u64) -> Self {
        let maximum = if self.maximum.0 == 0 { 0 } else { self.maximum.0 + own_bps };
        Self {
            guaranteed: BitRate(self.guaranteed.0 + own_bps),
            maximum: BitRate(maximum),
            ..*self
        }
    }

    /// `None`: nothing to meter. A slice whose promise is not kept is best effort.
    fn of(slice: &NetworkSlice, direction: Direction, kept: bool) -> Option<Self> {
        let rates: &Rates = slice.rates(of_slices(direction));
        let class = match slice.class {
            selvedge_slices::Class::Guaranteed if kept => Class::Guaranteed,
            selvedge_slices::Class::Urllc if kept => Class::Urllc,
            _ => Class::BestEffort,
        };
        if class == Class::BestEffort && rates.maximum.is_none() {
            return None;
        }
        let guaranteed = rates.guaranteed.filter(|_| kept).unwrap_or_default();
        Some(Self {
            class,
            guaranteed,
            guaranteed_burst: rates.guaranteed_burst(slice.class),
            maximum: rates.maximum.unwrap_or_default(),
            maximum_burst: rates.maximum_burst(slice.class),
        })
    }

    fn share(&self, of: usize) -> Self {
        let of = u64::try_from(of.max(1)).expect("few switches");
        // A burst below one packet would let nothing pass.
        let burst = |bytes: Bytes| Bytes((bytes.0 / of).max(MTU_BYTES));
        let (guaranteed, maximum) = (self.guaranteed.0 / of, self.maximum.0 / of);
        Self {
            class: self.class,
            guaranteed: BitRate(if guaranteed < LEAST_METERED_BPS { 0 } else { guaranteed }),
            guaranteed_burst: burst(self.guaranteed_burst),
            maximum: BitRate(match self.maximum.0 {
                0 => 0,
                _ => maximum.max(LEAST_METERED_BPS),
            }),
            maximum_burst: burst(self.maximum_burst),
        }
    }

    fn plus(&self, other: &Self, times: u64) -> Self {
        let sum = |a: u64, b: u64| a.saturating_add(b.saturating_mul(times));
        Self {
            class: self.class,
            guaranteed: BitRate(sum(self.guaranteed.0, other.guaranteed.0)),
            guaranteed_burst: Bytes(sum(self.guaranteed_burst.0, other.guaranteed_burst.0)),
            maximum: BitRate(sum(self.maximum.0, other.maximum.0)),
            maximum_burst: Bytes(sum(self.maximum_burst.0, other.maximum_burst.0)),
        }
    }

    fn meter(&self, slice: SliceId, direction: Direction) -> SliceMeterEntry {
        SliceMeterEntry {
            slice,
            direction,
            class: self.class,
            guaranteed_bps: self.guaranteed.0,
            guaranteed_burst_bytes: burst(self.guaranteed, self.guaranteed_burst),
            maximum_bps: self.maximum.0,
            maximum_burst_bytes: burst(self.maximum, self.maximum_burst),
        }
    }

    fn endpoint_meter(
        &self,
        slice: SliceId,
        direction: Direction,
        endpoint: EndpointId,
    ) -> EndpointMeterEntry {
        EndpointMeterEntry {
            slice,
            direction,
            endpoint,
            guaranteed_bps: self.guaranteed.0,
            guaranteed_burst_bytes: burst(self.guaranteed, self.guaranteed_burst),
            maximum_bps: self.maximum.0,
            maximum_burst_bytes: burst(self.maximum, self.maximum_burst),
        }
    }
}

/// A burst without a rate is nothing.
fn burst(rate: BitRate, bytes: Bytes) -> u32 {
    if rate.0 == 0 { 0 } else { u32::try_from(bytes.0).unwrap_or(u32::MAX) }
}

fn of_slices(direction: Direction) -> selvedge_slices::Direction {
    match direction {
        Direction::Downlink => selvedge_slices::Direction::Downlink,
        Direction::Uplink => selvedge_slices::Direction::Uplink,
    }
}
