//! Table `delivery`, and the end markers of tunnels that it leads into no more (TS 29.281 §7.3.2,
//! TS 23.501 §5.8.2.9).
//!
//! A gNB that a UE has left forwards what still arrives, and passes on the end marker, so that the
//! next gNB knows when it has everything. So the marker is sent when no delivery leads into the
//! tunnel any more and no program that may have read one that did is still running: after a grace
//! period of RCU, which membarrier(2) waits for. What those programs sent is with the driver by
//! then: a redirected frame leaves at the end of the poll that it was received in. The marker goes
//! the way of the kernel's own frames. On an interface whose driver has one queue that is behind
//! them; where there are several, the interface may still change the order.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use ipnet::IpNet;
use selvedge_ebpf_common::GATEWAY_MAC;
use selvedge_ebpf_common::value::PortValue;

use super::prefix::{Delivery, PrefixTable};
use super::{Table, Tunnel};
use crate::maps::Maps;
use crate::{Error, sys};

/// What a gNB gets of each tunnel: one may be lost on the way.
pub const END_MARKERS: usize = 3;
/// Tunnels whose markers wait for the grace period; a change of another waits for room.
const WAITING: usize = 4096;

/// By slice and prefix.
#[derive(Clone, Debug)]
pub struct DeliveryTable {
    table: PrefixTable<Delivery>,
    maps: Arc<Maps>,
    tunnels: Arc<Mutex<Tunnels>>,
}

#[derive(Debug, Default)]
struct Tunnels {
    /// How many deliveries lead into each; `None`: not counted yet.
    users: Option<BTreeMap<(IpAddr, u32), u32>>,
    /// To the thread that sends; `None`: there was no need yet.
    sender: Option<SyncSender<Delivery>>,
}

fn tunnel_of(delivery: &Delivery) -> Option<(IpAddr, u32)> {
    delivery.tunnel.map(|Tunnel { gnb, teid, .. }| (gnb, teid))
}

impl DeliveryTable {
    pub(crate) fn new(maps: Arc<Maps>) -> Self {
        let table = PrefixTable::new(Arc::clone(&maps));
        Self { table, maps, tunnels: Arc::default() }
    }

    pub(crate) fn refresh(&self, writer: &std::sync::MutexGuard<'_, ()>) -> Result<(), Error> {
        self.table.refresh(writer)
    }

    /// Carries out a change of one entry, and has the end of a tunnel told that it was the last
    /// user of.
    fn change<T>(
        &self,
        key: (u16, IpNet),
        new: Option<&Delivery>,
        change: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.table.get(key)?;
        let before = old.as_ref().and_then(tunnel_of);
        let after = new.and_then(tunnel_of);
        if before == after {
            return change();
        }
        if tunnels.users.is_none() {
            let mut users: BTreeMap<_, u32> = BTreeMap::new();
            for (_, delivery) in self.table.entries()? {
                if let Some(tunnel) = tunnel_of(&delivery) {
                    *users.entry(tunnel).or_default() += 1;
                }
            }
            tunnels.users = Some(users);
        }
        let changed = change()?;
        let users = tunnels.users.as_mut().expect("counted just now");
        if let Some(after) = after {
            *users.entry(after).or_default() += 1;
        }
        let Some(before) = before else { return Ok(changed) };
        let left = users.get_mut(&before).expect("it was counted");
        *left -= 1;
        if *left == 0 {
            users.remove(&before);
            let ended = old.expect("it had a tunnel");
            if let Err(error) = self.tell(&mut tunnels, ended) {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, gnb = %before.0, teid = before.1, "no end marker is sent");
            }
        }
        Ok(changed)
    }

    fn tell(&self, tunnels: &mut Tunnels, ended: Delivery) -> io::Result<()> {
        let sender = match &tunnels.sender {
            Some(sender) => sender,
            None => {
                let (sender, receiver) = sync_channel(WAITING);
                // Of this thread's network namespace, which is the switch's.
                let socket = sys::packet_socket()?;
                let maps = Arc::clone(&self.maps);
                let run = move || send_all(&maps, &socket, &receiver);
                thread::Builder::new().name("end-markers".into()).spawn(run)?;
                tunnels.sender.insert(sender)
            }
        };
        sender.send(ended).map_err(|_| io::Error::other("the thread that sends them has ended"))
    }
}

impl Table for DeliveryTable {
    type Key = (u16, IpNet);
    type Value = Delivery;

    fn put(&self, key: (u16, IpNet), delivery: &Delivery) -> Result<(), Error> {
        self.change(key, Some(delivery), || self.table.put(key, delivery))
    }

    fn remove(&self, key: (u16, IpNet)) -> Result<bool, Error> {
        self.change(key, None, || self.table.remove(key))
    }

    fn get(&self, key: (u16, IpNet)) -> Result<Option<Delivery>, Error> {
        self.table.get(key)
    }

    fn entries(&self) -> Result<Vec<((u16, IpNet), Delivery)>, Error> {
        self.table.entries()
    }
}

/// Until there is nobody who could ask for more.
fn send_all(maps: &Maps, socket: &OwnedFd, ended: &Receiver<Delivery>) {
    while let Ok(first) = ended.recv() {
        let all: Vec<Delivery> = [first].into_iter().chain(ended.try_iter()).collect();
        if let Err(source) = sys::wait_for_programs() {
            let error = &source as &dyn std::error::Error;
            tracing::warn!(error, tunnels = all.len(), "their end markers may come early");
        }
        for delivery in all {
            if let Err(error) = send(maps, socket, &delivery) {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, port = delivery.port, "no end marker is sent");
            }
        }
    }
}

fn send(maps: &Maps, socket: &OwnedFd, delivery: &Delivery) -> Result<(), Error> {
    let Some(tunnel) = &delivery.tunnel else { return Ok(()) };
    let port: PortValue = maps.get("PORT").at(delivery.port.into())?;
    let frame = frame(delivery.mac, tunnel);
    for _ in 0..END_MARKERS {
        sys::send_frame(socket, port.ifindex, &frame).map_err(|source| Error::Port {
            doing: "send an end marker on",
            port: delivery.port,
            source,
        })?;
    }
    Ok(())
}

/// One's-complement sum of big-endian words (RFC 1071), of an even number of bytes.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn frame(mac: [u8; 6], tunnel: &Tunnel) -> Vec<u8> {
    const UDP: u8 = 17;
    const HOP_LIMIT: u8 = 64;
    const GTP_PORT: u16 = 2152;
    // Version 1, no optional fields, end marker, and nothing in it (TS 29.281 §5.1).
    let message = [&[0x30, 254, 0, 0][..], &tunnel.teid.to_be_bytes()].concat();
    let len = 8 + message.len() as u16; // eight bytes
    let mut udp = [GTP_PORT, GTP_PORT, len, 0].map(u16::to_be_bytes).concat();
    udp.extend(message);
    let mut frame = [mac, GATEWAY_MAC].concat();
    match (tunnel.local, tunnel.gnb) {
        (IpAddr::V4(local), IpAddr::V4(gnb)) => {
            let total = (20 + len).to_be_bytes();
            let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, HOP_LIMIT, UDP, 0, 0];
            ip.extend(local.octets());
            ip.extend(gnb.octets());
            let checksum = !sum(&ip);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend([0x08, 0x00]);
            frame.extend(ip);
        }
        (IpAddr::V6(local), IpAddr::V6(gnb)) => {
            let ends = [local.octets(), gnb.octets()].concat();
            let pseudo = [&ends[..], &[0, UDP], &len.to_be_bytes(), &udp].concat();
            let checksum = match !sum(&pseudo) {
                0 => 0xffff,
                checksum => checksum,
            };
            udp[6..8].copy_from_slice(&checksum.to_be_bytes());
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([UDP, HOP_LIMIT]);
            frame.extend(ends);
        }
        _ => unreachable!("the table takes ends of one version only"),
    }
    frame.extend(udp);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_marker_is_well_formed_in_both_versions() {
        for (local, gnb) in [("198.51.100.1", "192.0.2.9"), ("2001:db8:3::1", "2001:db8::9")] {
            let tunnel = Tunnel {
                local: local.parse().unwrap(),
                gnb: gnb.parse().unwrap(),
                teid: 0x8765_4321,
                qfi: 1,
                mtu: 1500,
            };
            let frame = frame([2, 0, 0, 0, 0, 9], &tunnel);
            let headers = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
            let Some(etherparse::TransportHeader::Udp(udp)) = &headers.transport else {
                panic!("{headers:?}");
            };
            let message = headers.payload.slice();
            match headers.net.as_ref().unwrap() {
                etherparse::NetHeaders::Ipv4(ip, _) => {
                    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                }
                etherparse::NetHeaders::Ipv6(ip, _) => {
                    assert_eq!(Ok(udp.checksum), udp.calc_checksum_ipv6(ip, message));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!((udp.destination_port, udp.length), (2152, 16));
            assert_eq!(message, [0x30, 254, 0, 0, 0x87, 0x65, 0x43, 0x21]);
        }
    }
}
