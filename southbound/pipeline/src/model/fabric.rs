//! Steps C and D: what comes from other switches and from hooks, and what this switch has
//! encapsulated itself.

use super::{
    Ingress, Run, Step, Verdict,
    frame::{self, Outer, Packet, Version},
    gtp,
    icmp::{Bound, Notice, Sender, Told},
    wire::{self, Profile},
};
use crate::{
    BackupEntry, Direction, DropReason, LocalSidAction, NextHopEntry, NodeSid, OnFailure, PortId,
    SliceId, SliceSet, TableKind, entry::gateway,
};

/// Segments that one switch may consume of a packet before it has to leave (C.3).
const ROUNDS: usize = 4;

/// How the packet got here.
pub(super) struct Link {
    /// Ethernet destination and source it came with.
    pub(super) addresses: ([u8; 6], [u8; 6]),
    /// This switch wrote the outer header, and does not count it down.
    pub(super) fresh: bool,
}

impl Run<'_> {
    pub(super) fn fabric(&mut self, ingress: Ingress, frame: &[u8]) -> Step {
        if frame::ethertype(frame)? != wire::ETHERTYPE_IPV6 {
            return Err(DropReason::Unsupported);
        }
        let mut outer = outer(frame::payload(frame))?;
        if outer.source_group(3) != wire::SOURCE_MARK {
            return Err(DropReason::ForeignSource);
        }
        if let Ingress::Compute(_) = ingress {
            let slice = SliceId(outer.source_group(4));
            let direction = match outer.source_group(5) {
                0 => Some(Direction::Downlink),
                1 => Some(Direction::Uplink),
                _ => None,
            };
            if let Some(profile) = direction.and_then(|direction| self.meter(slice, direction)) {
                outer.set_traffic_class(profile.dscp() << 2 | outer.traffic_class() & 3);
            }
        }
        self.segments(outer, Link { addresses: frame::addresses(frame)?, fresh: false })
    }

    /// C.3.
    pub(super) fn segments(&mut self, mut outer: Outer, link: Link) -> Step {
        for _ in 0..ROUNDS {
            let active = outer.active();
            let key = format!("sid {active:x}");
            match self.switch.local_sid(active) {
                Some(LocalSidAction::Node) => {
                    self.hit(TableKind::LocalSid, key, "this node");
                    outer.shift();
                }
                Some(LocalSidAction::Decapsulate) => {
                    self.hit(TableKind::LocalSid, key, "decapsulate");
                    return self.decapsulate(&outer, &link);
                }
                Some(LocalSidAction::Compute { hook, on_failure }) => {
                    outer.shift();
                    if self.switch.runs(hook) {
                        self.hit(TableKind::LocalSid, key, format_args!("hook {}", hook.0));
                        let (destination, source) = link.addresses;
                        let frame = outer.framed(destination, source);
                        return Ok(Verdict::ToHook { hook, frame });
                    }
                    let then = match on_failure {
                        OnFailure::Bypass => "bypass",
                        OnFailure::Drop => "drop",
                    };
                    let detail = format!("hook {} does not run: {then}", hook.0);
                    self.hit(TableKind::LocalSid, key, detail);
                    if on_failure == OnFailure::Drop {
                        return Err(DropReason::HookDown);
                    }
                }
                None if active == 0 || active >= wire::FIRST_FUNCTION => {
                    self.miss(TableKind::LocalSid, key);
                    return Err(DropReason::UnknownSid);
                }
                None => return self.forward(outer, NodeSid(active), &link),
            }
        }
        Err(DropReason::UnknownSid)
    }

    fn forward(&mut self, mut outer: Outer, node: NodeSid, link: &Link) -> Step {
        let key = format!("node {:x}", node.0);
        let Some(next) = self.switch.next_hop(node).copied() else {
            self.miss(TableKind::NextHop, key);
            return Err(DropReason::NoNextHop);
        };
        self.hit(TableKind::NextHop, key, format_args!("port {}", next.port.0));
        let (port, mac) = match self.switch.is_down(next.port) {
            true => self.around(&mut outer, &next)?,
            false => (next.port, next.mac),
        };
        if !link.fresh {
            if outer.hop_limit() <= 1 {
                return Err(DropReason::HopLimit);
            }
            outer.decrement_hop_limit();
        }
        // Without an interface there is no source address, and no frame either.
        let source = self.switch.egress(port).map_or([0; 6], |port| port.mac);
        let profile = Profile::from_dscp(outer.traffic_class() >> 2);
        self.out(port, profile, outer.framed(mac, source))
    }

    /// Around the port of the next hop, which is down: the port and MAC address to go to.
    fn around(
        &mut self,
        outer: &mut Outer,
        next: &NextHopEntry,
    ) -> Result<(PortId, [u8; 6]), DropReason> {
        if outer.is_repaired() {
            return Err(DropReason::PortDown);
        }
        let key = format!("port {}, backup {}", next.port.0, next.backup);
        let backup = self.switch.backup(next.port, next.backup);
        let backup = backup.filter(|backup| !self.switch.is_down(backup.port));
        let Some(BackupEntry { port, mac, sids, .. }) = backup.cloned() else {
            self.miss(TableKind::Backup, key);
            return Err(DropReason::PortDown);
        };
        self.hit(TableKind::Backup, key, format_args!("port {}", port.0));
        if outer.repair(&sids) { Ok((port, mac)) } else { Err(DropReason::NoRepairRoom) }
    }

    fn decapsulate(&mut self, outer: &Outer, link: &Link) -> Step {
        let version = Version::of_protocol(outer.next_header()).ok_or(DropReason::Unsupported)?;
        let mut packet = Packet::parse(version, outer.payload())?;
        if packet.bytes.len() != outer.payload().len() {
            return Err(DropReason::Malformed);
        }
        let came = packet.clone();
        // RFC 6040 §4.2: outer, inner.
        match (outer.traffic_class() & 3, packet.traffic_class() & 3) {
            (wire::ECN_CE, 0) => return Err(DropReason::Malformed),
            (told @ (wire::ECN_CE | wire::ECN_ECT_1), wire::ECN_ECT_0 | wire::ECN_ECT_1) => {
                packet.set_ecn(told);
            }
            _ => {}
        }
        let profile = Profile::from_dscp(outer.traffic_class() >> 2);
        let slice = SliceId(outer.source_group(4));
        // Of a slice that nobody numbered there is no way back.
        let set = SliceSet(if slice > SliceId::MAX { 0 } else { slice.0 });
        let direction = match outer.source_group(5) & 1 {
            0 => Direction::Downlink,
            _ => Direction::Uplink,
        };
        let sender = Sender::Elsewhere(link.addresses.1, Bound::of_slice(set, direction));
        self.deliver(slice, profile, &packet, Told { packet: &came, sender })
    }

    /// Step D.
    pub(super) fn deliver(
        &mut self,
        slice: SliceId,
        profile: Profile,
        packet: &Packet,
        told: Told<'_>,
    ) -> Step {
        let key = format!("slice {}, {}", slice.0, packet.destination);
        let Some(delivery) = self.switch.delivery(slice, packet.destination).cloned() else {
            self.miss(TableKind::Delivery, key);
            return Err(DropReason::NoDelivery);
        };
        let detail = format!("{}: port {}", delivery.prefix, delivery.port.0);
        self.hit(TableKind::Delivery, key, detail);
        let (ethertype, bytes) = match &delivery.tunnel {
            None => (packet.version.ethertype(), packet.bytes.clone()),
            Some(tunnel) => {
                let mtu = usize::from(tunnel.mtu).saturating_sub(tunnel.overhead());
                if packet.bytes.len() > mtu {
                    return self.tell(Notice::TooBig(mtu), told);
                }
                let v4 = tunnel.gnb.is_ipv4();
                let outer = if v4 { Version::V4 } else { Version::V6 };
                (outer.ethertype(), gtp::tunnelled(tunnel, profile, packet))
            }
        };
        let mut frame = frame::ethernet(delivery.mac, gateway::MAC, ethertype);
        frame.extend_from_slice(&bytes);
        self.out(delivery.port, profile, frame)
    }
}

/// C.1: the outer header, if it is one of ours, and as much behind it as it says.
fn outer(payload: &[u8]) -> Result<Outer, DropReason> {
    let header: [u8; wire::IPV6_LEN] = frame::array(payload, 0).ok_or(DropReason::Malformed)?;
    let ours = header[0] >> 4 == 6
        && header[8..12] == wire::BLOCK
        && header[24..28] == wire::BLOCK
        && Version::of_protocol(header[6]).is_some();
    if !ours {
        return Err(DropReason::Unsupported);
    }
    let len = wire::IPV6_LEN + usize::from(frame::word(&header, 4).expect("40 bytes"));
    let bytes = payload.get(..len).ok_or(DropReason::Malformed)?.to_vec();
    Ok(Outer { bytes })
}
