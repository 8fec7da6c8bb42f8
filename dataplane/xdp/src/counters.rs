//! Counters, added up over the CPUs. They start at 0 when the maps are made and wrap never.
//!
//! What a port has sent are its `left_*`. `tx_*` are what its device was given: of that, some may
//! have failed (`failed_*`), and what is missing then is on its way, for as long as a poll takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_ebpf_common::drop::{NAMES, REASONS};
use selvedge_ebpf_common::value::{HookCounters, PortCounters, Scratch, SliceCounters};
use selvedge_ebpf_common::{
    COMPUTE_PORT, MAX_HOOKS, MAX_PORT_ID, MAX_SLICE_ID, PORT_SLOTS, Plain, slice_slot,
};

use crate::Error;
use crate::error::within;
use crate::maps::Maps;
use crate::table::{Direction, check_port};

#[derive(Clone, Debug)]
pub struct Counters(pub(crate) Arc<Maps>);

/// Where packets that came in at any port, compute ports included, ended:
/// `received = forwarded + passed + answered + dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub received: u64,
    /// Given to the device of a port, which has not refused it.
    pub forwarded: u64,
    /// Left to the agent: LLDP, router solicitations, DHCP.
    pub passed: u64,
    /// ARP requests and neighbor solicitations answered by the program.
    pub answered: u64,
    pub dropped: u64,
}

impl Counters {
    fn sum<V: Plain, const N: usize>(
        &self,
        map: &str,
        index: u32,
        fields: impl Fn(V) -> [u64; N],
    ) -> Result<[u64; N], Error> {
        let mut sum = [0u64; N];
        for value in self.0.get(map).per_cpu::<V>(index)? {
            for (total, field) in sum.iter_mut().zip(fields(value)) {
                *total = total.wrapping_add(field);
            }
        }
        Ok(sum)
    }

    fn port_slot(&self, slot: u32) -> Result<PortCounters, Error> {
        Ok(self.0.get("PORT_COUNTERS").per_cpu(slot)?.into_iter().fold(Default::default(), add))
    }

    pub fn port(&self, port: u16) -> Result<PortCounters, Error> {
        check_port(port)?;
        self.port_slot(port.into())
    }

    /// By reason, in the order of [`NAMES`].
    pub fn drops(&self) -> Result<[u64; REASONS], Error> {
        let mut drops = [0; REASONS];
        for (reason, count) in (0u32..).zip(&mut drops) {
            [*count] = self.sum("DROPS", reason, |count: u64| [count])?;
        }
        Ok(drops)
    }

    /// Drops that happened at all, with their names.
    pub fn named_drops(&self) -> Result<Vec<(&'static str, u64)>, Error> {
        Ok(NAMES.into_iter().zip(self.drops()?).filter(|(_, count)| *count > 0).collect())
    }

    pub fn slice(&self, slice: u16, direction: Direction) -> Result<SliceCounters, Error> {
        within("slice", slice, 1, MAX_SLICE_ID.into())?;
        let slot = slice_slot(slice, direction as u8);
        Ok(self.0.get("SLICE_COUNTERS").per_cpu(slot)?.into_iter().fold(Default::default(), more))
    }

    /// All ports and compute ports, by slot: port ids, then hooks from [`COMPUTE_PORT`] on. One
    /// system call.
    pub fn ports(&self) -> Result<Vec<PortCounters>, Error> {
        self.0.get("PORT_COUNTERS").per_cpu_array(add)
    }

    /// Slices and directions that had a packet since this layout's maps were made, by
    /// [`slice_slot`], and what was counted since then.
    pub fn slices(&self) -> Result<BTreeMap<u32, SliceCounters>, Error> {
        self.0.get("SLICE_COUNTERS").per_cpu_used(more)
    }

    pub fn hook(&self, hook: u16) -> Result<HookCounters, Error> {
        within("hook", hook, 0, u64::from(MAX_HOOKS) - 1)?;
        let [to_packets, to_bytes, from_packets, from_bytes, bypassed, refused, no_socket] =
            self.sum("HOOK_COUNTERS", hook.into(), |c: HookCounters| {
                [
                    c.to_packets,
                    c.to_bytes,
                    c.from_packets,
                    c.from_bytes,
                    c.bypassed,
                    c.refused,
                    c.no_socket,
                ]
            })?;
        Ok(HookCounters {
            to_packets,
            to_bytes,
            from_packets,
            from_bytes,
            bypassed,
            refused,
            no_socket,
            _pad: 0,
        })
    }

    /// Read while packets flow, the two sides differ by those under way.
    pub fn totals(&self) -> Result<Totals, Error> {
        let (mut totals, mut failed_answers) = (Totals::default(), 0);
        debug_assert!(u32::from(MAX_PORT_ID) < u32::from(COMPUTE_PORT));
        for slot in 0..PORT_SLOTS {
            let port = self.port_slot(slot)?;
            totals.received += port.rx_packets;
            totals.forwarded += port.tx_packets - port.failed_packets;
            failed_answers += port.failed_answers;
        }
        totals.dropped = self.drops()?.iter().sum();
        [totals.passed, totals.answered] =
            self.sum("SCRATCH", 0, |scratch: Scratch| [scratch.passed, scratch.answered])?;
        totals.answered -= failed_answers;
        Ok(totals)
    }
}

fn add(a: PortCounters, b: PortCounters) -> PortCounters {
    PortCounters {
        rx_packets: a.rx_packets.wrapping_add(b.rx_packets),
        rx_bytes: a.rx_bytes.wrapping_add(b.rx_bytes),
        tx_packets: a.tx_packets.wrapping_add(b.tx_packets),
        tx_bytes: a.tx_bytes.wrapping_add(b.tx_bytes),
        rx_marked: pairs(a.rx_marked, b.rx_marked),
        tx_marked: pairs(a.tx_marked, b.tx_marked),
        left_packets: a.left_packets.wrapping_add(b.left_packets),
        left_bytes: a.left_bytes.wrapping_add(b.left_bytes),
        failed_packets: a.failed_packets.wrapping_add(b.failed_packets),
        failed_bytes: a.failed_bytes.wrapping_add(b.failed_bytes),
        failed_answers: a.failed_answers.wrapping_add(b.failed_answers),
        // Of one CPU.
        prepaid_bytes: 0,
        given: 0,
        settled: 0,
        lengths: Default::default(),
    }
}

fn more(a: SliceCounters, b: SliceCounters) -> SliceCounters {
    SliceCounters {
        packets: a.packets.wrapping_add(b.packets),
        bytes: a.bytes.wrapping_add(b.bytes),
        dropped_packets: a.dropped_packets.wrapping_add(b.dropped_packets),
        dropped_bytes: a.dropped_bytes.wrapping_add(b.dropped_bytes),
        delivered_packets: a.delivered_packets.wrapping_add(b.delivered_packets),
        delivered_bytes: a.delivered_bytes.wrapping_add(b.delivered_bytes),
        entered: pairs(a.entered, b.entered),
        left: pairs(a.left, b.left),
        lost: a.lost.wrapping_add(b.lost),
        // Of the CPU that has lost more: its last is likelier what goes on.
        lost_reason: if b.lost > a.lost { b.lost_reason } else { a.lost_reason },
        prepaid_bytes: 0,
    }
}

fn pairs(a: [u64; 2], b: [u64; 2]) -> [u64; 2] {
    [a[0].wrapping_add(b[0]), a[1].wrapping_add(b[1])]
}
