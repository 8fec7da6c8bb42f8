//! Meters: each slice's totals, split among the switches where its traffic enters.
//!
//! Shares are equal, and never add up to more than the total. A switch that runs a hook of the
//! slice meters what comes back from it by the same entry, so there the total is added once
//! for each hook: at a switch where traffic of that direction also enters only while the hook
//! runs, since what bypasses it is counted once only.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_pipeline::{Class, Direction, Entry, SliceMeterEntry};
use selvedge_slices::limits::MTU_BYTES;
use selvedge_slices::{NetworkSlice, ObjectName, Rates};
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
    for name in &scope.slices {
        let Some(stored) = derived.of.intent.active_slice(name) else { continue };
        let id = numbers.slice(name.as_str())?;
        let kept = derived.slices.get(name.as_str()).is_some_and(|s| s.reasons.is_empty());
        for direction in [Direction::Downlink, Direction::Uplink] {
            let Some(total) = Total::of(&stored.object, direction, kept) else { continue };
            let entered = ingresses.get(&(name, direction)).cloned().unwrap_or_default();
            let hooks = ways.hooks_of(name, direction);
            let share = total.share(entered.len());
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
                let first =
                    if enters { share } else { Total { class: total.class, ..Total::NONE } };
                let sum = first.plus(&total, counted);
                let meter = sum.meter(id, direction);
                put(tables.entry(switch.clone()).or_default(), Entry::SliceMeter(meter));
            }
        }
    }
    Ok(())
}

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

    /// `None`: nothing to meter. A slice whose promise is not kept is best effort.
    fn of(slice: &NetworkSlice, direction: Direction, kept: bool) -> Option<Self> {
        let rates: &Rates = match direction {
            Direction::Downlink => &slice.downlink,
            Direction::Uplink => &slice.uplink,
        };
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
        Self {
            class: self.class,
            guaranteed: BitRate(self.guaranteed.0 / of),
            guaranteed_burst: burst(self.guaranteed_burst),
            maximum: BitRate(self.maximum.0 / of),
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

    fn meter(&self, slice: selvedge_pipeline::SliceId, direction: Direction) -> SliceMeterEntry {
        // A burst without a rate is nothing.
        let burst = |rate: BitRate, bytes: Bytes| {
            if rate.0 == 0 { 0 } else { u32::try_from(bytes.0).unwrap_or(u32::MAX) }
        };
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
}
