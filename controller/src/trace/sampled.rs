//! Packets that switches told of, each with all its switches, and the tables that it met there.
//!
//! How a packet came, where it went, its slice and its colour are what the switch's programs told.
//! Which tables say so is the pipeline's model over the entries that the switch was last seen to
//! hold; where the model ends otherwise, both are shown.

use std::net::IpAddr;
use std::time::Duration;

use selvedge_pipeline::DropReason;
use selvedge_pipeline::model::wire::{BLOCK, HOP_LIMIT};
use selvedge_pipeline::model::{self, Verdict};
use selvedge_southbound::selvedge::v1;

use super::{Network, Start, hex, said, step};
use crate::api::Problem;
use crate::api::wire_trace::{SampleRequest, SampledPacket, SampledStep};
use crate::sampling::Told;
use crate::text;

/// Two packets of one digest are one packet if they are seen within this, at two switches.
const TOGETHER: Duration = Duration::from_secs(1);
/// Longest time to wait for packets: a request to the API is given up after 30 s.
const MAX_SECONDS: u32 = 20;
const MAX_PACKETS: u32 = 100;
/// Addresses of one end (session.proto, `Sampling`).
const MAX_ADDRESSES: usize = 4;

/// Bytes up to the hop limit and the source of an outer header.
const HOP_LIMIT_AT: usize = 14 + 7;
const SOURCE_AT: usize = 14 + 8;

/// Numbers of slices by their names.
pub(crate) type Slices = Vec<(String, u16)>;

/// What the switches are asked for.
pub(crate) fn wanted(
    network: &Network,
    slices: &Slices,
    request: &SampleRequest,
) -> Result<v1::Sampling, Problem> {
    let within = |field: &str, value: u32, most: u32| match value {
        value if (1..=most).contains(&value) => Ok(value),
        _ => Err(Problem::unprocessable(format!("{field}: {value} is not 1 to {most}"))),
    };
    within("packets", request.packets, MAX_PACKETS)?;
    let seconds = within("seconds", request.seconds, MAX_SECONDS)?;
    let one_in = within("one_in", request.one_in, u32::MAX)?;
    let slice = match &request.slice {
        None => 0,
        Some(name) => {
            let found = slices.iter().find(|(of, _)| of == name);
            found.ok_or_else(|| Problem::not_found("slice", name))?.1
        }
    };
    let direction = match request.direction.as_deref() {
        None => 0,
        Some("downlink") => 1,
        Some("uplink") => 2,
        Some(other) => {
            let detail = format!("direction: {other:?} is not downlink or uplink");
            return Err(Problem::unprocessable(detail));
        }
    };
    Ok(v1::Sampling {
        id: 0,
        sources: addresses(network, request.from.as_deref())?,
        destinations: addresses(network, request.to.as_deref())?,
        slice: slice.into(),
        direction,
        one_in,
        duration_ms: seconds * 1000,
    })
}

/// Of an endpoint, or the one that is given.
fn addresses(network: &Network, end: Option<&str>) -> Result<Vec<Vec<u8>>, Problem> {
    let Some(end) = end else { return Ok(Vec::new()) };
    let addresses = match end.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => network.endpoint(end)?.addresses.clone(),
    };
    if !(1..=MAX_ADDRESSES).contains(&addresses.len()) {
        let detail = format!("{end} has {} addresses, 1 to {MAX_ADDRESSES}", addresses.len());
        return Err(Problem::unprocessable(detail));
    }
    let octets = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    Ok(addresses.iter().map(octets).collect())
}

/// What is told, sorted out packet by packet as it comes.
#[derive(Debug, Default)]
pub(crate) struct Packets(Vec<Packet>);

#[derive(Debug)]
struct Packet {
    at: Vec<Told>,
    /// It came while a switch of its way may not have told yet.
    is_early: bool,
}

impl Packets {
    /// How many have all switches of their way, or will have.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().filter(|packet| !packet.is_early).count()
    }

    /// `is_early`: when it came, not all switches told.
    pub(crate) fn add(&mut self, told: Told, is_early: bool) {
        let belongs = |Packet { at, .. }: &&mut Packet| {
            at[0].digest == told.digest
                && at[0].after.abs_diff(told.after) < TOGETHER
                && at.iter().all(|at| (&at.switch, at.ingress) != (&told.switch, told.ingress))
        };
        match self.0.iter_mut().find(belongs) {
            Some(packet) => {
                packet.at.push(told);
                packet.is_early |= is_early;
            }
            None => self.0.push(Packet { at: vec![told], is_early }),
        }
    }

    /// The first so many, as people read them.
    pub(crate) fn shown(
        self,
        network: &Network,
        slices: &Slices,
        most: usize,
    ) -> Vec<SampledPacket> {
        let came = |at: &[Told]| at.iter().map(|told| told.at_ns).min().unwrap_or(0);
        let shown = |mut at: Vec<Told>| {
            in_order(&mut at);
            let steps = at.iter().map(|told| at_switch(network, slices, told)).collect();
            SampledPacket { at_ms: came(&at) / 1_000_000, steps }
        };
        let whole = self.0.into_iter().filter(|packet| !packet.is_early).map(|packet| packet.at);
        let mut packets: Vec<Vec<Told>> = whole.collect();
        packets.sort_by_key(|at| came(at));
        packets.into_iter().take(most).map(shown).collect()
    }
}

/// As it went.
fn in_order(packet: &mut [Told]) {
    packet.sort_by_key(|told| (hops(told), told.at_ns));
}

/// Switches that it has crossed, which clocks of several machines would not tell.
fn hops(told: &Told) -> u8 {
    let is_outer = told.frame.get(SOURCE_AT..).is_some_and(|rest| rest.starts_with(&BLOCK));
    match told.frame.get(HOP_LIMIT_AT) {
        Some(left) if is_outer => HOP_LIMIT.saturating_sub(*left).saturating_add(1),
        _ => 0,
    }
}

fn at_switch(network: &Network, slices: &Slices, told: &Told) -> SampledStep {
    let at = Start { node: told.switch.to_string(), ingress: told.ingress };
    let outcome = network
        .switches
        .get(&at.node)
        .map(|switch| model::process(switch, told.ingress, &told.frame));
    let hits = outcome.as_ref().map_or(&[][..], |outcome| &outcome.hits);
    let otherwise = outcome.as_ref().map(|outcome| said(network, &at.node, &outcome.verdict));
    let otherwise = otherwise.filter(|expected| {
        // The model's buckets are full and its queues empty.
        let is_rate =
            matches!(told.verdict, Verdict::Drop(DropReason::OverMaximum | DropReason::QueueFull));
        !is_rate && *expected != said(network, &at.node, &told.verdict)
    });
    let slice = told.slice.map(|(id, direction)| {
        let name = slices.iter().find(|(_, of)| *of == id);
        (name.map_or_else(|| format!("slice {id}"), |(name, _)| name.clone()), direction)
    });
    SampledStep {
        step: step(network, &at, hits, &told.verdict, None),
        at_ns: told.at_ns,
        slice: slice.as_ref().map(|(name, _)| name.clone()),
        direction: slice.map(|(_, direction)| text::direction(direction).to_owned()),
        in_profile: told.slice.map(|_| told.in_profile),
        tables_say: otherwise.map(|(verdict, detail)| format!("{verdict} {detail}")),
        frame_len: told.frame.len(),
        head: hex(&told.frame[..told.head_len]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use selvedge_pipeline::PortId;
    use selvedge_pipeline::model::Ingress;

    /// `hops`: 0 at an access port; else as the outer header says.
    fn told(switch: &str, digest: u64, at_ms: u64, hops: u8) -> Told {
        let mut frame = vec![0; 100];
        if hops > 0 {
            frame[HOP_LIMIT_AT] = HOP_LIMIT + 1 - hops;
            frame[SOURCE_AT] = 0x5f;
        }
        Told {
            switch: switch.parse().unwrap(),
            at_ns: at_ms * 1_000_000,
            after: Duration::from_millis(at_ms),
            digest,
            ingress: Ingress::Port(PortId(1)),
            verdict: Verdict::Drop(DropReason::NoRoute),
            slice: None,
            in_profile: false,
            frame,
            head_len: 100,
        }
    }

    #[test]
    fn what_switches_tell_of_one_packet_is_one_packet() {
        let mut packets = Packets::default();
        for (switch, digest, at_ms, hops) in [
            // Clocks differ: the second switch is ahead.
            ("s2", 7, 990, 1),
            ("s1", 7, 1000, 0),
            ("s1", 8, 1001, 0),
            ("s3", 7, 1001, 2),
            // The same bytes again, and long after.
            ("s1", 7, 1500, 0),
            ("s2", 7, 3000, 1),
        ] {
            packets.add(told(switch, digest, at_ms, hops), false);
        }
        let mut ways: Vec<Vec<String>> = packets
            .0
            .into_iter()
            .map(|Packet { mut at, .. }| {
                in_order(&mut at);
                at.iter().map(|told| told.switch.to_string()).collect()
            })
            .collect();
        ways.sort();
        assert_eq!(ways, [vec!["s1"], vec!["s1"], vec!["s1", "s2", "s3"], vec!["s2"]]);
    }

    #[test]
    fn what_came_before_all_told_is_no_packet() {
        let mut packets = Packets::default();
        packets.add(told("s2", 7, 1000, 1), false);
        packets.add(told("s1", 8, 1000, 0), false);
        assert_eq!(packets.len(), 2);
        packets.add(told("s1", 7, 999, 0), true);
        assert_eq!(packets.len(), 1);
    }
}
