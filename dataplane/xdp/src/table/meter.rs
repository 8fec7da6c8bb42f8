//! Tables `slice_meter`, `endpoint_meter` and `port_queue`: rates as configured, and as the programs count them.

use std::io;
use std::sync::Arc;

use selvedge_ebpf_common::rate::{cost_x256, prepay_bytes, threshold_ps, tolerance_ps};
use selvedge_ebpf_common::value::{
    CLASS_BEST_EFFORT, CLASS_GUARANTEED, CLASS_URLLC, EndpointMeterValue, MeterValue, PortValue,
    QueueValue, ShaperValue,
};
use selvedge_ebpf_common::{
    MAX_ENDPOINT_ID, MAX_PORT_ID, MAX_SLICE_ID, endpoint_meter_key, slice_slot,
};

use super::Table;
use super::port::check_port;
use crate::error::within;
use crate::maps::Maps;
use crate::{Error, htb};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    BestEffort = 0,
    Guaranteed = 1,
    Urllc = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    Downlink = 0,
    Uplink = 1,
}

impl Direction {
    pub(crate) fn parse(raw: u8) -> Self {
        if raw & 1 == 0 { Self::Downlink } else { Self::Uplink }
    }
}

/// Of a slice and direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Meter {
    pub class: Class,
    /// 0: everything is excess. Best effort is excess in any case.
    pub guaranteed_bps: u64,
    pub guaranteed_burst_bytes: u32,
    /// 0: no maximum.
    pub maximum_bps: u64,
    pub maximum_burst_bytes: u32,
}

/// Of an endpoint within a slice, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointMeter {
    /// 0: it shares its slice's guarantee.
    pub guaranteed_bps: u64,
    pub guaranteed_burst_bytes: u32,
    /// 0: no maximum.
    pub maximum_bps: u64,
    pub maximum_burst_bytes: u32,
}

/// Of an egress port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Queue {
    /// Rate at which the virtual queue drains, not 0.
    pub rate_bps: u64,
    /// By [`Class`]: excess passes while the backlog is below this.
    pub threshold_bytes: [u32; 3],
    /// By [`Class`]: the rate at which the kernel's HTB sends it, not above `rate_bps`, and then
    /// what counts as its backlog is what waits there. 0: it does not go there.
    pub shaped_bps: [u64; 3],
}

/// Below this a packet's cost no longer fits its word; see [`cost_x256`].
const MIN_RATE_BPS: u64 = 8_000;
const MAX_RATE_BPS: u64 = 1_000_000_000_000;

fn check_rate(field: &'static str, bps: u64, optional: bool) -> Result<(), Error> {
    if optional && bps == 0 { Ok(()) } else { within(field, bps, MIN_RATE_BPS, MAX_RATE_BPS) }
}

/// Processors that packets may be on.
fn cpus() -> u32 {
    // Where nobody knows, each packet pays for itself.
    aya::util::nr_cpus().map_or(u32::MAX, |cpus| u32::try_from(cpus).unwrap_or(u32::MAX))
}

/// By slice and direction.
#[derive(Clone, Debug)]
pub struct MeterTable(pub(crate) Arc<Maps>);

fn check_slice(slice: u16) -> Result<(), Error> {
    within("slice", slice, 1, MAX_SLICE_ID.into())
}

fn decode(value: &MeterValue) -> Option<Meter> {
    let class = match value.class {
        CLASS_URLLC => Class::Urllc,
        CLASS_GUARANTEED => Class::Guaranteed,
        _ => Class::BestEffort,
    };
    (value.present != 0).then_some(Meter {
        class,
        guaranteed_bps: value.guaranteed_bps,
        guaranteed_burst_bytes: value.guaranteed_burst_bytes,
        maximum_bps: value.maximum_bps,
        maximum_burst_bytes: value.maximum_burst_bytes,
    })
}

impl Table for MeterTable {
    type Key = (u16, Direction);
    type Value = Meter;

    fn put(&self, (slice, direction): (u16, Direction), meter: &Meter) -> Result<(), Error> {
        check_slice(slice)?;
        let class = match meter.class {
            Class::BestEffort => CLASS_BEST_EFFORT,
            Class::Guaranteed => CLASS_GUARANTEED,
            Class::Urllc => CLASS_URLLC,
        };
        // Best effort is never in profile.
        let guaranteed_bps =
            if meter.class == Class::BestEffort { 0 } else { meter.guaranteed_bps };
        let rates = rates(
            (meter.guaranteed_bps, meter.guaranteed_burst_bytes),
            (meter.maximum_bps, meter.maximum_burst_bytes),
        )?;
        let value = MeterValue {
            guaranteed_cost: cost_x256(guaranteed_bps),
            class,
            prepay_bytes: match guaranteed_bps {
                0 => 0,
                _ => prepay_bytes(meter.guaranteed_burst_bytes, cpus()),
            },
            ..rates
        };
        self.0.get("METER").put(&slice_slot(slice, direction as u8), &value)
    }

    fn remove(&self, (slice, direction): (u16, Direction)) -> Result<bool, Error> {
        check_slice(slice)?;
        let slot = slice_slot(slice, direction as u8);
        let map = self.0.get("METER");
        let present = map.at::<MeterValue>(slot)?.present != 0;
        if present {
            map.put(&slot, &MeterValue::default())?;
        }
        Ok(present)
    }

    fn get(&self, (slice, direction): (u16, Direction)) -> Result<Option<Meter>, Error> {
        check_slice(slice)?;
        Ok(decode(&self.0.get("METER").at(slice_slot(slice, direction as u8))?))
    }

    fn entries(&self) -> Result<Vec<((u16, Direction), Meter)>, Error> {
        let meters = self.0.get("METER").array::<MeterValue>()?;
        let numbered = (0u16..).zip(&meters);
        Ok(numbered
            .filter_map(|(slot, value)| {
                let direction = Direction::parse((slot & 1) as u8);
                Some(((slot >> 1, direction), decode(value)?))
            })
            .collect())
    }
}

/// A guaranteed rate and a maximum with their bursts, as a meter of no class that takes no payment
/// in advance.
fn rates(guaranteed: (u64, u32), maximum: (u64, u32)) -> Result<MeterValue, Error> {
    check_rate("guaranteed rate", guaranteed.0, true)?;
    check_rate("maximum rate", maximum.0, true)?;
    if maximum.0 != 0 {
        // What is guaranteed is charged to the maximum too, and never held back by it.
        within("maximum rate", maximum.0, guaranteed.0, MAX_RATE_BPS)?;
    }
    let (guaranteed_cost, maximum_cost) = (cost_x256(guaranteed.0), cost_x256(maximum.0));
    Ok(MeterValue {
        guaranteed_cost,
        guaranteed_tolerance_ps: tolerance_ps(guaranteed_cost, guaranteed.1),
        maximum_cost,
        maximum_tolerance_ps: tolerance_ps(maximum_cost, maximum.1),
        guaranteed_bps: guaranteed.0,
        maximum_bps: maximum.0,
        guaranteed_burst_bytes: guaranteed.1,
        maximum_burst_bytes: maximum.1,
        present: 1,
        ..Default::default()
    })
}

/// By slice, direction and number of the endpoint.
#[derive(Clone, Debug)]
pub struct EndpointMeterTable(pub(crate) Arc<Maps>);

type OfEndpoint = (u16, Direction, u16);

fn endpoint_key((slice, direction, endpoint): OfEndpoint) -> Result<u32, Error> {
    check_slice(slice)?;
    within("endpoint", endpoint, 1, MAX_ENDPOINT_ID.into())?;
    Ok(endpoint_meter_key(slice, direction as u8, endpoint))
}

fn decode_endpoint(EndpointMeterValue { meter, .. }: &EndpointMeterValue) -> EndpointMeter {
    EndpointMeter {
        guaranteed_bps: meter.guaranteed_bps,
        guaranteed_burst_bytes: meter.guaranteed_burst_bytes,
        maximum_bps: meter.maximum_bps,
        maximum_burst_bytes: meter.maximum_burst_bytes,
    }
}

impl Table for EndpointMeterTable {
    type Key = OfEndpoint;
    type Value = EndpointMeter;

    fn put(&self, at: OfEndpoint, of: &EndpointMeter) -> Result<(), Error> {
        let key = endpoint_key(at)?;
        let meter = rates(
            (of.guaranteed_bps, of.guaranteed_burst_bytes),
            (of.maximum_bps, of.maximum_burst_bytes),
        )?;
        let _writer = self.0.write();
        let map = self.0.get("ENDPOINT_METER");
        let held: Option<EndpointMeterValue> = map.get(&key)?;
        let state = held.map_or_else(Default::default, |held| held.state);
        map.put(&key, &EndpointMeterValue { meter, state })
    }

    fn remove(&self, at: OfEndpoint) -> Result<bool, Error> {
        self.0.get("ENDPOINT_METER").remove(&endpoint_key(at)?)
    }

    fn get(&self, at: OfEndpoint) -> Result<Option<EndpointMeter>, Error> {
        let held = self.0.get("ENDPOINT_METER").get(&endpoint_key(at)?)?;
        Ok(held.as_ref().map(decode_endpoint))
    }

    fn entries(&self) -> Result<Vec<(OfEndpoint, EndpointMeter)>, Error> {
        let held = self.0.get("ENDPOINT_METER").entries::<u32, EndpointMeterValue>()?;
        let of = |(key, value): &(u32, EndpointMeterValue)| {
            let (slot, endpoint) = ((key >> 16) as u16, *key as u16);
            let at = (slot >> 1, Direction::parse((slot & 1) as u8), endpoint);
            (at, decode_endpoint(value))
        };
        Ok(held.iter().map(of).collect())
    }
}

/// By egress port.
#[derive(Clone, Debug)]
pub struct QueueTable(pub(crate) Arc<Maps>);

impl QueueTable {
    /// Makes what the row of a port needs on the interface that the port has now.
    ///
    /// # Errors
    /// [`Error::Htb`]: the kernel has no HTB, or something else is in its place.
    fn ensure_htb(&self, port: u16, queue: &Queue) -> Result<(), Error> {
        if queue.shaped_bps == [0; 3] {
            return Ok(());
        }
        self.on_interface(port, |ifindex| match self.0.has_tcx() {
            true => htb::ensure(ifindex, queue),
            false => Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel has no TCX")),
        })
    }

    /// Whether any row has a class in HTB.
    pub(crate) fn shapes(&self) -> Result<bool, Error> {
        let queues = self.0.get("QUEUE").array::<QueueValue>()?;
        Ok(queues.iter().any(|queue| queue.shaped != 0))
    }

    /// For an interface that has just become the port's.
    pub(crate) fn attached(&self, port: u16) -> Result<(), Error> {
        self.get(port)?.map_or(Ok(()), |queue| self.ensure_htb(port, &queue))
    }

    fn remove_htb(&self, port: u16) -> Result<(), Error> {
        self.on_interface(port, htb::remove)
    }

    fn on_interface(
        &self,
        port: u16,
        work: impl FnOnce(u32) -> io::Result<()>,
    ) -> Result<(), Error> {
        let value: PortValue = self.0.get("PORT").at(port.into())?;
        let done = if value.ifindex == 0 { Ok(()) } else { work(value.ifindex) };
        done.map_err(|source| Error::Htb { port, source })
    }
}

fn decode_queue(value: &QueueValue, shaped_bps: [u64; 3]) -> Option<Queue> {
    (value.cost != 0).then_some(Queue {
        rate_bps: value.rate_bps,
        threshold_bytes: value.threshold_bytes,
        shaped_bps,
    })
}

fn shaper(queue: &Queue) -> ShaperValue {
    let cost = queue.shaped_bps.map(cost_x256);
    let threshold = |class: usize| threshold_ps(cost[class], queue.threshold_bytes[class]);
    ShaperValue {
        cost,
        threshold_ps: [threshold(0), threshold(1), threshold(2)],
        rate_bps: queue.shaped_bps,
    }
}

impl Table for QueueTable {
    type Key = u16;
    type Value = Queue;

    fn put(&self, port: u16, queue: &Queue) -> Result<(), Error> {
        check_port(port)?;
        check_rate("queue rate", queue.rate_bps, false)?;
        let mut shaped = 0;
        for (class, bps) in queue.shaped_bps.into_iter().enumerate().filter(|(_, bps)| *bps != 0) {
            within("shaped rate", bps, MIN_RATE_BPS, queue.rate_bps)?;
            shaped |= 1 << class;
        }
        let cost = cost_x256(queue.rate_bps);
        let least = queue.threshold_bytes.into_iter().min().expect("there are three");
        let value = QueueValue {
            cost,
            threshold_ps: queue.threshold_bytes.map(|bytes| threshold_ps(cost, bytes)),
            rate_bps: queue.rate_bps,
            threshold_bytes: queue.threshold_bytes,
            prepay_bytes: prepay_bytes(least, cpus()),
            shaped,
            _pad: 0,
        };
        // Before a packet is sent there, and below until none is.
        self.ensure_htb(port, queue)?;
        let index = u32::from(port);
        // A class that the row in force has shaped has its rates until that row is replaced.
        let (queues, shapers) = (self.0.get("QUEUE"), self.0.get("SHAPER"));
        let held: QueueValue = queues.at(index)?;
        if held.shaped & !shaped != 0 {
            queues.put(&index, &QueueValue { shaped: held.shaped & shaped, ..held })?;
        }
        shapers.put(&index, &shaper(queue))?;
        queues.put(&index, &value)?;
        if shaped == 0 && held.shaped != 0 { self.remove_htb(port) } else { Ok(()) }
    }

    fn remove(&self, port: u16) -> Result<bool, Error> {
        let held = self.get(port)?;
        if let Some(held) = &held {
            self.0.get("QUEUE").put(&u32::from(port), &QueueValue::default())?;
            if held.shaped_bps != [0; 3] {
                self.remove_htb(port)?;
            }
            self.0.get("SHAPER").put(&u32::from(port), &ShaperValue::default())?;
        }
        Ok(held.is_some())
    }

    fn get(&self, port: u16) -> Result<Option<Queue>, Error> {
        check_port(port)?;
        let shaper: ShaperValue = self.0.get("SHAPER").at(port.into())?;
        Ok(decode_queue(&self.0.get("QUEUE").at(port.into())?, shaper.rate_bps))
    }

    fn entries(&self) -> Result<Vec<(u16, Queue)>, Error> {
        let queues = self.0.get("QUEUE").array::<QueueValue>()?;
        let shapers = self.0.get("SHAPER").array::<ShaperValue>()?;
        let numbered = (0u16..).zip(queues.iter().zip(&shapers));
        Ok(numbered
            .take(usize::from(MAX_PORT_ID) + 1)
            .filter_map(|(port, (queue, shaper))| {
                Some((port, decode_queue(queue, shaper.rate_bps)?))
            })
            .collect())
    }
}
