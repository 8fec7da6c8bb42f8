//! PDU sessions: 100,000 of them in the tables, and the frames of one, of all alike, and of some
//! more than others. All are of one gNB and one slice.
//!
//! The generator goes through a ring of as many heads whatever is in them, one behind the other,
//! so it costs the same in each case; what differs is which entries they lead to.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use selvedge_xdp::{Delivery, Direction, Route, RouteAction, Session, Switch, Table, Tunnel};

use super::{
    ACCESS, FABRIC, HOST_MAC, IN_MAC, NEXT_MAC, OWN_NODE, POLICY, RULES, SLICE, encapsulated,
};
use crate::paths::Random;

pub(super) const SESSIONS: u32 = 100_000;
/// Heads of a round: a power of two, as the generator wants it, and more than there are sessions.
const RING: u32 = 131_072;

/// Slice set of the sessions.
const SET: u16 = 3;
const GNB: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const N3: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// In the data network.
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const QFI: u8 = 1;
const UDP: u8 = 17;
/// Bytes of the access link's packets.
const MTU: u16 = 1_500;

/// Whose frames are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// One session's, all from one head.
    Single,
    /// One session's, from as many heads as those of others.
    One,
    /// Each session's once in a round, or twice.
    Uniform,
    /// The n-th session's n times less often than the first's.
    Zipf,
}

impl Spread {
    /// Sessions in the order of their packets.
    pub(super) fn sequence(self) -> Vec<u32> {
        let mut random = Random(1);
        // Those that are put into the tables one behind the other may lie so in memory.
        let mut order: Vec<u32> = (0..SESSIONS).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, below(&mut random, last + 1));
        }
        self.ranks(&mut random).into_iter().map(|rank| order[rank]).collect()
    }

    /// The same by how often each comes: 0 is the first of [`Spread::Zipf`].
    fn ranks(self, random: &mut Random) -> Vec<usize> {
        let (sessions, ring) = (SESSIONS as usize, RING as usize);
        match self {
            Self::Single => vec![0],
            Self::One => vec![0; ring],
            Self::Uniform => (0..sessions).cycle().take(ring).collect(),
            Self::Zipf => {
                let mut all = 0.0;
                let ends: Vec<f64> = (1..=SESSIONS)
                    .map(|rank| {
                        all += 1.0 / f64::from(rank);
                        all
                    })
                    .collect();
                let mut draw = || {
                    let at = random.next() as f64 / u64::MAX as f64 * all;
                    ends.partition_point(|end| *end < at).min(sessions - 1)
                };
                (0..ring).map(|_| draw()).collect()
            }
        }
    }
}

fn below(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.below(limit as u64)).expect("below a usize")
}

fn ue(session: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 64, 0, 0).to_bits() + session)
}

fn teid(session: u32) -> u32 {
    session + 1
}

/// Puts all sessions into the tables of `switch`, and takes its application rules out: what is
/// measured here is not the classifier.
pub(super) fn install(switch: &Switch) -> Result<()> {
    let (removed, ended) = switch
        .classifier
        .batch(|| (1..=RULES).try_for_each(|n| switch.classifier.remove(n).map(drop)));
    removed.and(ended).context("take the rules out")?;
    switch.n3.put(N3.into(), &())?;
    let route = Route { slice: SLICE, action: RouteAction::Policy(POLICY), endpoint: 0 };
    switch.route.put((SET, IpAddr::from(SERVER).into()), &route)?;
    for number in 0..SESSIONS {
        let session = Session {
            port: ACCESS,
            gnb: GNB.into(),
            ue_ipv4: Some(ue(number)),
            ue_ipv6: None,
            slice_set: SET,
            direction: Direction::Uplink,
            qfis: 1 << QFI,
            endpoint: 0,
            tag: 0,
        };
        switch.session.put(teid(number), &session)?;
        let tunnel =
            Tunnel { local: N3.into(), gnb: GNB.into(), teid: teid(number), qfi: QFI, mtu: MTU };
        let delivery = Delivery { port: FABRIC, mac: NEXT_MAC, tunnel: Some(tunnel) };
        switch.delivery.put((SLICE, IpAddr::from(ue(number)).into()), &delivery)?;
    }
    Ok(())
}

/// From a UE by way of its gNB (TS 29.281, TS 38.415 §5.5.2.2): an empty datagram.
pub(super) fn uplink(session: u32) -> Vec<u8> {
    const G_PDU: u8 = 255;
    const CONTAINER: u8 = 0x85;
    let inner = datagram(ue(session), SERVER, [40_000, 5_001], &[]);
    let extension = [0, 0, 0, CONTAINER, 1, 0x10, QFI, 0];
    let len = u16::try_from(extension.len() + inner.len()).expect("a short frame");
    let mut message = vec![0x34, G_PDU];
    message.extend(len.to_be_bytes());
    message.extend(teid(session).to_be_bytes());
    message.extend(extension);
    message.extend(inner);
    let mut frame = [IN_MAC, HOST_MAC].concat();
    frame.extend([0x08, 0x00]);
    frame.extend(datagram(GNB, N3, [2_152, 2_152], &message));
    frame
}

/// To a UE, from another switch: an empty datagram.
pub(super) fn downlink(session: u32) -> Vec<u8> {
    const IPIP: u8 = 4;
    encapsulated(OWN_NODE, IPIP, &datagram(SERVER, ue(session), [5_001, 40_000], &[]))
}

/// UDP without a checksum, over IPv4.
fn datagram(from: Ipv4Addr, to: Ipv4Addr, ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(8 + payload.len()).expect("a short frame");
    let mut packet = vec![0x45, 0];
    packet.extend((20 + udp_len).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let words = packet.chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let fold = |sum: u32| (sum & 0xffff) + (sum >> 16);
    let checksum = !fold(fold(words.sum()));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes()[2..]);
    packet.extend(ports.into_iter().chain([udp_len, 0]).flat_map(u16::to_be_bytes));
    packet.extend(payload);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_is_once_or_twice_each() {
        let mut counts = vec![0; SESSIONS as usize];
        for session in Spread::Uniform.sequence() {
            counts[session as usize] += 1;
        }
        assert!(counts.iter().all(|count| (1..=2).contains(count)));
    }

    /// Of exponent 1 over 100,000, the first has one part in 12.09, and half is of the first 237.
    #[test]
    fn zipf_falls_as_it_should() {
        let ranks = Spread::Zipf.ranks(&mut Random(7));
        for (first, want) in [(1, 0.0827), (237, 0.5002), (10_000, 0.8096)] {
            let of = ranks.iter().filter(|rank| **rank < first).count();
            let share = of as f64 / ranks.len() as f64;
            assert!((share - want).abs() < 0.005, "{first}: {share}, not {want}");
        }
    }

    #[test]
    fn one_is_one_from_as_many_heads() {
        let (one, single) = (Spread::One.sequence(), Spread::Single.sequence());
        assert_eq!(one.len(), Spread::Uniform.sequence().len());
        assert!(one.iter().all(|session| *session == single[0]));
    }
}
