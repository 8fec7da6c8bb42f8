//! What the numbers of a row mean: one arm for each table, in both directions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::{
    CodecError,
    row::{Call, FieldValue, Row},
};
use crate::{entry::*, prefix, tables::TableKind};

/// What numbers may be. Used in both directions, so that nothing is written which would not
/// be read.
struct Range {
    min: u128,
    max: u128,
    text: &'static str,
}

const PORT: Range = Range { min: 1, max: 255, text: "1..=255" };
const ENDPOINT: Range = Range { min: 1, max: 65_535, text: "1..=65535" };
const TAG: Range = Range { min: 1, max: 65_535, text: "1..=65535" };
const BACKUP: Range = Range { min: 1, max: 127, text: "1..=127" };
const BACKUP_OR_NONE: Range = Range { min: 0, max: 127, text: "0..=127" };
const NODE: Range = Range { min: 1, max: 4095, text: "1..=4095" };
const SLICE: Range = Range { min: 1, max: SliceId::MAX.0 as u128, text: "1..=16383" };
const SLICE_SET: Range = Range { min: 1, max: 65_535, text: "1..=65535" };
const POLICY: Range = Range { min: 1, max: 65_535, text: "1..=65535" };
const SID: Range = Range { min: 1, max: 65_535, text: "1..=65535" };
const HOOK: Range = Range { min: 0, max: 255, text: "0..=255" };
const DSCP: Range = Range { min: 0, max: 63, text: "0..=63" };
const CLASS: Range = Range { min: 0, max: 2, text: "0..=2" };
const BIT: Range = Range { min: 0, max: 1, text: "0..=1" };
const ZERO: Range = Range { min: 0, max: 0, text: "0..=0" };
const U64: Range = Range { min: 0, max: u64::MAX as u128, text: "64 bits" };
const U32: Range = Range { min: 0, max: u32::MAX as u128, text: "32 bits" };
const U16: Range = Range { min: 0, max: u16::MAX as u128, text: "16 bits" };
const U8: Range = Range { min: 0, max: u8::MAX as u128, text: "8 bits" };
const TEID: Range = Range { min: 1, max: u32::MAX as u128, text: "1..=4294967295" };
const QFI: Range = Range { min: 0, max: 63, text: "0..=63" };
const MTU: Range = Range { min: 68, max: u16::MAX as u128, text: "68..=65535" };
const ADDRESS: Range = Range { min: 0, max: u128::MAX, text: "128 bits" };
const PREFIX_LEN: Range = Range { min: 0, max: 128, text: "0..=128" };
const MAC: Range = Range { min: 0, max: (1 << 48) - 1, text: "48 bits" };

const SHAPED: [&str; 3] = ["best_effort_bps", "guaranteed_bps", "urllc_bps"];
const REPAIR: [&str; 4] = ["sid1", "sid2", "sid3", "sid4"];
const SEGMENTS: [&str; 6] = ["sid1", "sid2", "sid3", "sid4", "sid5", "sid6"];

pub(super) fn key(row: &Row) -> Result<Key, CodecError> {
    Ok(match row.kind {
        TableKind::Port => Key::Port(row.port()?),
        TableKind::Endpoint => Key::Endpoint(row.port()?, row.prefix()?),
        TableKind::Classifier => {
            row.masked("source")?;
            row.masked("destination")?;
            Key::Classifier(u32::try_from(row.priority).expect("checked to be above 0"))
        }
        TableKind::SliceRoute => Key::SliceRoute(row.slice_set()?, row.prefix()?),
        TableKind::SliceMeter => {
            let direction = direction(row.exact("direction", &BIT)?);
            Key::SliceMeter(SliceId(row.exact("slice", &SLICE)? as u16), direction)
        }
        TableKind::Policy => Key::Policy(PolicyId(row.exact("policy", &POLICY)? as u32)),
        TableKind::LocalSid => Key::LocalSid(row.exact("sid", &SID)? as u16),
        TableKind::NextHop => Key::NextHop(NodeSid(row.exact("node", &NODE)? as u16)),
        TableKind::Backup => Key::Backup(row.port()?, row.exact("backup", &BACKUP)? as u8),
        TableKind::Delivery => {
            Key::Delivery(SliceId(row.exact("slice", &SLICE)? as u16), row.prefix()?)
        }
        TableKind::PortQueue => Key::PortQueue(row.port()?),
        TableKind::Generation => {
            row.exact("row", &ZERO)?;
            Key::Generation
        }
        TableKind::N3Address => Key::N3Address(prefix::address(row.exact("address", &ADDRESS)?)),
        TableKind::GtpSession => Key::GtpSession(row.exact("teid", &TEID)? as u32),
        TableKind::EndpointMeter => Key::EndpointMeter(
            SliceId(row.exact("slice", &SLICE)? as u16),
            direction(row.exact("direction", &BIT)?),
            EndpointId(row.exact("endpoint", &ENDPOINT)? as u16),
        ),
    })
}

pub(super) fn entry(row: &Row) -> Result<Entry, CodecError> {
    let key = key(row)?;
    let action = row.action()?;
    // Casts below are of numbers that their range has bounded.
    Ok(match key {
        Key::Port(port) => Entry::Port(PortEntry {
            port,
            kind: if action == "access" { PortKind::Access } else { PortKind::Fabric },
        }),
        Key::Endpoint(port, prefix) => Entry::Endpoint(EndpointEntry {
            port,
            prefix,
            slice_set: SliceSet(row.param("slice_set", &SLICE_SET)? as u16),
            direction: direction(row.param("direction", &BIT)?),
            endpoint: row.endpoint_param()?,
            tag: row.tag_param()?,
        }),
        Key::Classifier(priority) => Entry::Classifier(Box::new(ClassifierEntry {
            priority,
            source: row.masked("source")?,
            destination: row.masked("destination")?,
            protocol: row.optional("protocol", &U8)?.map(|value| value as u8),
            source_ports: row.ports("source_port"),
            destination_ports: row.ports("destination_port"),
            dscp: row.optional("dscp", &DSCP)?.map(|value| value as u8),
            slice_set: row.optional("slice_set", &SLICE_SET)?.map(|set| SliceSet(set as u16)),
            endpoint_tag: row.optional("endpoint_tag", &TAG)?.map(|tag| EndpointTag(tag as u16)),
            tunnel_id: row.optional("tunnel_id", &TEID)?.map(|teid| teid as u32),
            action: match action {
                "drop" => ClassifierAction::Drop,
                "pass" => ClassifierAction::Pass,
                "mark" => ClassifierAction::Mark(row.param("dscp", &DSCP)? as u8),
                "steer" => ClassifierAction::Steer(PolicyId(row.param("policy", &POLICY)? as u32)),
                _ => ClassifierAction::SetSlice(row.slice_param()?),
            },
        })),
        Key::SliceRoute(slice_set, prefix) => Entry::SliceRoute(SliceRouteEntry {
            slice_set,
            prefix,
            slice: row.slice_param()?,
            action: match action {
                "local" => RouteAction::Local,
                _ => RouteAction::Policy(PolicyId(row.param("policy", &POLICY)? as u32)),
            },
            endpoint: row.endpoint_param()?,
        }),
        Key::SliceMeter(slice, direction) => Entry::SliceMeter(SliceMeterEntry {
            slice,
            direction,
            class: match row.param("class", &CLASS)? {
                0 => Class::BestEffort,
                1 => Class::Guaranteed,
                _ => Class::Urllc,
            },
            guaranteed_bps: row.param("guaranteed_bps", &U64)? as u64,
            guaranteed_burst_bytes: row.param("guaranteed_burst_bytes", &U32)? as u32,
            maximum_bps: row.param("maximum_bps", &U64)? as u64,
            maximum_burst_bytes: row.param("maximum_burst_bytes", &U32)? as u32,
        }),
        Key::Policy(policy) => {
            let paths = row.calls.iter().map(|call| {
                let sids = segments(row, call, &SEGMENTS)?;
                check_path(&sids)?;
                Ok(Path { sids, weight: call.weight as u8 })
            });
            let paths = paths.collect::<Result<Vec<_>, _>>()?;
            Entry::Policy(PolicyEntry { policy, paths })
        }
        Key::LocalSid(sid) => Entry::LocalSid(LocalSidEntry {
            sid,
            action: match action {
                "node" => LocalSidAction::Node,
                "decapsulate" => LocalSidAction::Decapsulate,
                _ => LocalSidAction::Compute {
                    hook: HookId(row.param("hook", &HOOK)? as u16),
                    on_failure: match row.param("on_failure", &BIT)? {
                        0 => OnFailure::Bypass,
                        _ => OnFailure::Drop,
                    },
                },
            },
        }),
        Key::NextHop(node) => {
            let backup = row.param("backup", &BACKUP_OR_NONE)? as u8;
            let (port, mac) = (row.port_param()?, row.mac()?);
            Entry::NextHop(NextHopEntry { node, port, mac, backup })
        }
        Key::Backup(around, backup) => Entry::Backup(BackupEntry {
            around,
            backup,
            port: row.port_param()?,
            mac: row.mac()?,
            sids: segments(row, row.call(), &REPAIR)?,
        }),
        Key::Delivery(slice, prefix) => Entry::Delivery(DeliveryEntry {
            slice,
            prefix,
            port: row.port_param()?,
            mac: row.mac()?,
            tunnel: match action {
                "deliver" => None,
                _ => Some(row.tunnel()?.into()),
            },
        }),
        Key::PortQueue(port) => Entry::PortQueue(PortQueueEntry {
            port,
            rate_bps: row.param("rate_bps", &U64)? as u64,
            threshold_bytes: [
                row.param("best_effort_bytes", &U32)? as u32,
                row.param("guaranteed_bytes", &U32)? as u32,
                row.param("urllc_bytes", &U32)? as u32,
            ],
            shaped_bps: match action {
                "limit" => [0; 3],
                _ => row.shaped()?,
            },
        }),
        Key::Generation => {
            Entry::Generation(GenerationEntry { generation: row.param("generation", &U64)? as u64 })
        }
        Key::N3Address(address) => Entry::N3Address(N3AddressEntry { address }),
        Key::GtpSession(teid) => {
            let (ue_ipv4, ue_ipv6) = row.ue()?;
            Entry::GtpSession(Box::new(GtpSessionEntry {
                teid,
                port: row.port_param()?,
                gnb: row.address("gnb")?,
                ue_ipv4,
                ue_ipv6,
                slice_set: SliceSet(row.param("slice_set", &SLICE_SET)? as u16),
                direction: direction(row.param("direction", &BIT)?),
                qfis: row.param("qfis", &U64)? as u64,
                endpoint: row.endpoint_param()?,
                tag: row.tag_param()?,
            }))
        }
        Key::EndpointMeter(slice, direction, endpoint) => {
            Entry::EndpointMeter(EndpointMeterEntry {
                slice,
                direction,
                endpoint,
                guaranteed_bps: row.param("guaranteed_bps", &U64)? as u64,
                guaranteed_burst_bytes: row.param("guaranteed_burst_bytes", &U32)? as u32,
                maximum_bps: row.param("maximum_bps", &U64)? as u64,
                maximum_burst_bytes: row.param("maximum_burst_bytes", &U32)? as u32,
            })
        }
    })
}

pub(super) fn row(entry: &Entry) -> Result<Row, CodecError> {
    let mut row = Builder::new(entry.table());
    match entry {
        Entry::Port(e) => {
            row.exact("port", &PORT, e.port.0)?;
            row.action(match e.kind {
                PortKind::Access => "access",
                PortKind::Fabric => "fabric",
            });
        }
        Entry::Endpoint(e) => {
            row.exact("port", &PORT, e.port.0)?;
            row.prefix("prefix", e.prefix)?;
            row.action(if e.tag == EndpointTag::NONE { "bind" } else { "bind_tagged" });
            row.param("slice_set", &SLICE_SET, e.slice_set.0)?;
            row.param("direction", &BIT, e.direction as u8)?;
            row.param("endpoint", &U16, e.endpoint.0)?;
            row.tag(e.tag)?;
        }
        Entry::Classifier(e) => {
            row.priority(e.priority)?;
            row.rule_prefix("source", e.source)?;
            row.rule_prefix("destination", e.destination)?;
            row.optional("protocol", &U8, e.protocol)?;
            row.ports("source_port", e.source_ports)?;
            row.ports("destination_port", e.destination_ports)?;
            row.optional("dscp", &DSCP, e.dscp)?;
            row.optional("slice_set", &SLICE_SET, e.slice_set.map(|set| set.0))?;
            row.optional("endpoint_tag", &TAG, e.endpoint_tag.map(|tag| tag.0))?;
            row.optional("tunnel_id", &TEID, e.tunnel_id)?;
            match e.action {
                ClassifierAction::Drop => row.action("drop"),
                ClassifierAction::Pass => row.action("pass"),
                ClassifierAction::SetSlice(slice) => {
                    row.action("set_slice");
                    row.param("slice", &SLICE, slice.0)?;
                }
                ClassifierAction::Mark(dscp) => {
                    row.action("mark");
                    row.param("dscp", &DSCP, dscp)?;
                }
                ClassifierAction::Steer(policy) => {
                    row.action("steer");
                    row.param("policy", &POLICY, policy.0)?;
                }
            }
        }
        Entry::SliceRoute(e) => {
            row.exact("slice_set", &SLICE_SET, e.slice_set.0)?;
            row.prefix("prefix", e.prefix)?;
            match e.action {
                RouteAction::Local => {
                    row.action("local");
                    row.param("slice", &SLICE, e.slice.0)?;
                }
                RouteAction::Policy(policy) => {
                    row.action("to_policy");
                    row.param("slice", &SLICE, e.slice.0)?;
                    row.param("policy", &POLICY, policy.0)?;
                }
            }
            row.param("endpoint", &U16, e.endpoint.0)?;
        }
        Entry::SliceMeter(e) => {
            row.exact("slice", &SLICE, e.slice.0)?;
            row.exact("direction", &BIT, e.direction as u8)?;
            row.action("meter");
            row.param("class", &CLASS, e.class as u8)?;
            row.param("guaranteed_bps", &U64, e.guaranteed_bps)?;
            row.param("guaranteed_burst_bytes", &U32, e.guaranteed_burst_bytes)?;
            row.param("maximum_bps", &U64, e.maximum_bps)?;
            row.param("maximum_burst_bytes", &U32, e.maximum_burst_bytes)?;
        }
        Entry::Policy(e) => {
            row.exact("policy", &POLICY, e.policy.0)?;
            row.check_set(e.paths.len())?;
            for path in &e.paths {
                row.weighted_action("segments", path.weight)?;
                check_path(&path.sids)?;
                row.segments(&SEGMENTS, &path.sids)?;
            }
        }
        Entry::LocalSid(e) => {
            row.exact("sid", &SID, e.sid)?;
            match e.action {
                LocalSidAction::Node => row.action("node"),
                LocalSidAction::Decapsulate => row.action("decapsulate"),
                LocalSidAction::Compute { hook, on_failure } => {
                    row.action("compute");
                    row.param("hook", &HOOK, hook.0)?;
                    row.param(
                        "on_failure",
                        &BIT,
                        match on_failure {
                            OnFailure::Bypass => 0u8,
                            OnFailure::Drop => 1,
                        },
                    )?;
                }
            }
        }
        Entry::NextHop(e) => {
            row.exact("node", &NODE, e.node.0)?;
            row.action("forward");
            row.param("port", &PORT, e.port.0)?;
            row.param("mac", &MAC, mac_number(e.mac))?;
            row.param("backup", &BACKUP_OR_NONE, e.backup)?;
        }
        Entry::Backup(e) => {
            row.exact("port", &PORT, e.around.0)?;
            row.exact("backup", &BACKUP, e.backup)?;
            row.action("repair");
            row.param("port", &PORT, e.port.0)?;
            row.param("mac", &MAC, mac_number(e.mac))?;
            if e.sids.len() > REPAIR.len() {
                let (table, count) = (TableKind::Backup.name(), e.sids.len());
                return Err(CodecError::SegmentCount { table, count, allowed: "0..=4" });
            }
            row.segments(&REPAIR, &e.sids)?;
        }
        Entry::Delivery(e) => {
            row.exact("slice", &SLICE, e.slice.0)?;
            row.prefix("prefix", e.prefix)?;
            row.action(if e.tunnel.is_some() { "deliver_gtp" } else { "deliver" });
            row.param("port", &PORT, e.port.0)?;
            row.param("mac", &MAC, mac_number(e.mac))?;
            if let Some(tunnel) = &e.tunnel {
                check_versions(tunnel)?;
                row.address("local", tunnel.local)?;
                row.address("gnb", tunnel.gnb)?;
                row.param("teid", &TEID, tunnel.teid)?;
                row.param("qfi", &QFI, tunnel.qfi)?;
                row.param("mtu", &MTU, tunnel.mtu)?;
            }
        }
        Entry::PortQueue(e) => {
            row.exact("port", &PORT, e.port.0)?;
            let is_shaped = e.shaped_bps != [0; 3];
            row.action(if is_shaped { "limit_and_shape" } else { "limit" });
            row.param("rate_bps", &U64, e.rate_bps)?;
            row.param("best_effort_bytes", &U32, e.threshold_bytes[0])?;
            row.param("guaranteed_bytes", &U32, e.threshold_bytes[1])?;
            row.param("urllc_bytes", &U32, e.threshold_bytes[2])?;
            for (name, bps) in SHAPED.into_iter().zip(e.shaped_bps).filter(|_| is_shaped) {
                row.param(name, &U64, bps)?;
            }
        }
        Entry::Generation(e) => {
            row.exact("row", &ZERO, 0u8)?;
            row.action("set_generation");
            row.param("generation", &U64, e.generation)?;
        }
        Entry::N3Address(e) => {
            let bits = row.unmapped("address", e.address)?;
            row.exact("address", &ADDRESS, bits)?;
            row.action("end_tunnels");
        }
        Entry::GtpSession(e) => {
            row.exact("teid", &TEID, e.teid)?;
            let is_bare = e.tag == EndpointTag::NONE;
            row.action(if is_bare { "decapsulate_gtp" } else { "decapsulate_gtp_tagged" });
            row.param("port", &PORT, e.port.0)?;
            row.address("gnb", e.gnb)?;
            check_ue(e.ue_ipv4, e.ue_ipv6)?;
            row.param("ue_ipv4", &U32, e.ue_ipv4.map_or(0, Ipv4Addr::to_bits))?;
            row.param("ue_ipv6", &ADDRESS, e.ue_ipv6.map_or(0, |net| net.addr().to_bits()))?;
            row.param("ue_ipv6_len", &PREFIX_LEN, e.ue_ipv6.map_or(0, |net| net.prefix_len()))?;
            row.param("slice_set", &SLICE_SET, e.slice_set.0)?;
            row.param("direction", &BIT, e.direction as u8)?;
            row.param("qfis", &U64, e.qfis)?;
            row.param("endpoint", &U16, e.endpoint.0)?;
            row.tag(e.tag)?;
        }
        Entry::EndpointMeter(e) => {
            row.exact("slice", &SLICE, e.slice.0)?;
            row.exact("direction", &BIT, e.direction as u8)?;
            row.exact("endpoint", &ENDPOINT, e.endpoint.0)?;
            row.action("meter_endpoint");
            row.param("guaranteed_bps", &U64, e.guaranteed_bps)?;
            row.param("guaranteed_burst_bytes", &U32, e.guaranteed_burst_bytes)?;
            row.param("maximum_bps", &U64, e.maximum_bps)?;
            row.param("maximum_burst_bytes", &U32, e.maximum_burst_bytes)?;
        }
    }
    Ok(row.finish())
}

fn check_versions(tunnel: &Tunnel) -> Result<(), CodecError> {
    if tunnel.local.is_ipv4() == tunnel.gnb.is_ipv4() {
        return Ok(());
    }
    Err(CodecError::MixedVersions { table: TableKind::Delivery.name(), name: "local" })
}

/// What a UE sends from: something, none of it anything, and no IPv4 in disguise.
fn check_ue(ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Net>) -> Result<(), CodecError> {
    let (table, name) = (TableKind::GtpSession.name(), "ue_ipv6");
    let empty = |net: Ipv6Net| net.prefix_len() == 0;
    let unspecified = |address: Ipv4Addr| address.is_unspecified();
    let none = ipv4.is_none() && ipv6.is_none();
    if none || ipv4.is_some_and(unspecified) || ipv6.is_some_and(empty) {
        return Err(CodecError::NoUeAddress { table });
    }
    let Some(net) = ipv6 else { return Ok(()) };
    if net.trunc() != net {
        return Err(CodecError::BitsOutsideMask { table, name });
    }
    let (bits, len) = prefix::prefix_bits(net.into());
    if prefix::prefix(bits, len) != IpNet::from(net) {
        return Err(CodecError::MappedPrefix { table, name, prefix: net.to_string() });
    }
    Ok(())
}

fn check_path(sids: &[u16]) -> Result<(), CodecError> {
    if (1..=SEGMENTS.len()).contains(&sids.len()) {
        return Ok(());
    }
    let (table, count) = (TableKind::Policy.name(), sids.len());
    Err(CodecError::SegmentCount { table, count, allowed: "1..=6" })
}

fn segments(row: &Row, call: &Call, names: &[&'static str]) -> Result<Vec<u16>, CodecError> {
    let mut sids = Vec::with_capacity(names.len());
    let mut ended = false;
    for &name in names {
        match row.param_of(call, name, &U16)? as u16 {
            0 => ended = true,
            _ if ended => {
                return Err(CodecError::SegmentGap { table: row.table().name, name });
            }
            sid => sids.push(sid),
        }
    }
    Ok(sids)
}

fn direction(value: u128) -> Direction {
    match value {
        0 => Direction::Downlink,
        _ => Direction::Uplink,
    }
}

fn mac_number(mac: [u8; 6]) -> u64 {
    mac.into_iter().fold(0, |number, byte| number << 8 | u64::from(byte))
}

impl Range {
    fn check(
        &self,
        table: &'static str,
        name: &'static str,
        value: u128,
    ) -> Result<u128, CodecError> {
        if (self.min..=self.max).contains(&value) {
            Ok(value)
        } else {
            Err(CodecError::OutOfRange { table, name, value, allowed: self.text })
        }
    }
}

/// Reading by name. A name that the table does not have is a bug of this file's, and every
/// one of them is read in the tests.
impl Row {
    fn field(&self, name: &'static str) -> FieldValue {
        let index = self.table().fields.iter().position(|field| field.name == name);
        self.fields[index.expect("a field of this table")]
    }

    fn exact(&self, name: &'static str, range: &Range) -> Result<u128, CodecError> {
        match self.field(name) {
            FieldValue::Exact(value) => range.check(self.table().name, name, value),
            _ => unreachable!("{name} is an exact match"),
        }
    }

    fn optional(&self, name: &'static str, range: &Range) -> Result<Option<u128>, CodecError> {
        match self.field(name) {
            FieldValue::Optional(value) => {
                value.map(|value| range.check(self.table().name, name, value)).transpose()
            }
            _ => unreachable!("{name} is an optional match"),
        }
    }

    fn ports(&self, name: &'static str) -> Option<[u16; 2]> {
        match self.field(name) {
            FieldValue::Range(range) => range.map(|ends| ends.map(|end| end as u16)),
            _ => unreachable!("{name} is a range match"),
        }
    }

    fn masked(&self, name: &'static str) -> Result<Option<IpNet>, CodecError> {
        let FieldValue::Masked { value, mask } = self.field(name) else {
            unreachable!("{name} is an lpm or ternary match")
        };
        if mask.leading_ones() + mask.trailing_zeros() < 128 {
            return Err(CodecError::MaskNotPrefix { table: self.table().name, name });
        }
        Ok((mask != 0).then(|| prefix::prefix(value, mask.leading_ones() as u8)))
    }

    fn prefix(&self) -> Result<IpNet, CodecError> {
        Ok(self.masked("prefix")?.unwrap_or_else(|| prefix::prefix(0, 0)))
    }

    fn port(&self) -> Result<PortId, CodecError> {
        Ok(PortId(self.exact("port", &PORT)? as u16))
    }

    fn slice_set(&self) -> Result<SliceSet, CodecError> {
        Ok(SliceSet(self.exact("slice_set", &SLICE_SET)? as u16))
    }

    fn action(&self) -> Result<&'static str, CodecError> {
        let call = self.calls.first();
        call.map(|call| call.action.name).ok_or(CodecError::NoAction { table: self.table().name })
    }

    fn call(&self) -> &Call {
        self.calls.first().expect("`entry` has asked for the action")
    }

    fn param(&self, name: &'static str, range: &Range) -> Result<u128, CodecError> {
        self.param_of(self.call(), name, range)
    }

    fn param_of(&self, call: &Call, name: &'static str, range: &Range) -> Result<u128, CodecError> {
        let index = call.action.params.iter().position(|param| param.name == name);
        let value = call.values[index.expect("a parameter of this action")];
        range.check(self.table().name, name, value)
    }

    fn slice_param(&self) -> Result<SliceId, CodecError> {
        Ok(SliceId(self.param("slice", &SLICE)? as u16))
    }

    fn endpoint_param(&self) -> Result<EndpointId, CodecError> {
        Ok(EndpointId(self.param("endpoint", &U16)? as u16))
    }

    /// None of an action that gives none.
    fn tag_param(&self) -> Result<EndpointTag, CodecError> {
        if self.call().action.params.iter().all(|param| param.name != "tag") {
            return Ok(EndpointTag::NONE);
        }
        Ok(EndpointTag(self.param("tag", &TAG)? as u16))
    }

    fn port_param(&self) -> Result<PortId, CodecError> {
        Ok(PortId(self.param("port", &PORT)? as u16))
    }

    fn address(&self, name: &'static str) -> Result<IpAddr, CodecError> {
        Ok(prefix::address(self.param(name, &ADDRESS)?))
    }

    fn tunnel(&self) -> Result<Tunnel, CodecError> {
        let tunnel = Tunnel {
            local: self.address("local")?,
            gnb: self.address("gnb")?,
            teid: self.param("teid", &TEID)? as u32,
            qfi: self.param("qfi", &QFI)? as u8,
            mtu: self.param("mtu", &MTU)? as u16,
        };
        check_versions(&tunnel)?;
        Ok(tunnel)
    }

    fn ue(&self) -> Result<(Option<Ipv4Addr>, Option<Ipv6Net>), CodecError> {
        let ipv4 = self.param("ue_ipv4", &U32)? as u32;
        let bits = self.param("ue_ipv6", &ADDRESS)?;
        let len = self.param("ue_ipv6_len", &PREFIX_LEN)? as u8;
        let net = Ipv6Net::new(Ipv6Addr::from_bits(bits), len).expect("at most 128 bits");
        // Without a length there are no bits inside it.
        let ipv4 = (ipv4 != 0).then(|| Ipv4Addr::from_bits(ipv4));
        let ipv6 = (len != 0 || bits != 0).then_some(net);
        check_ue(ipv4, ipv6)?;
        Ok((ipv4, ipv6))
    }

    fn shaped(&self) -> Result<[u64; 3], CodecError> {
        let mut rates = [0; 3];
        for (rate, name) in rates.iter_mut().zip(SHAPED) {
            *rate = self.param(name, &U64)? as u64;
        }
        if rates == [0; 3] { Err(CodecError::NothingShaped) } else { Ok(rates) }
    }

    fn mac(&self) -> Result<[u8; 6], CodecError> {
        let value = self.param("mac", &MAC)? as u64;
        let [_, _, mac @ ..] = value.to_be_bytes();
        Ok(mac)
    }
}

/// A row being filled; the same by name.
struct Builder {
    row: Row,
}

impl Builder {
    fn new(kind: TableKind) -> Self {
        use crate::tables::MatchKind::{self, Exact, Lpm, Ternary};
        let fields = kind.table().fields.iter().map(|field| match field.kind {
            Exact => FieldValue::Exact(0),
            Lpm | Ternary => FieldValue::Masked { value: 0, mask: 0 },
            MatchKind::Optional => FieldValue::Optional(None),
            MatchKind::Range => FieldValue::Range(None),
        });
        Self { row: Row { kind, fields: fields.collect(), calls: Vec::new(), priority: 0 } }
    }

    /// No more than there are names; zeros behind the last.
    fn segments(&mut self, names: &[&'static str], sids: &[u16]) -> Result<(), CodecError> {
        let sids = sids.iter().map(|sid| (*sid, &SID));
        let none = std::iter::repeat((0, &ZERO));
        for (name, (sid, range)) in names.iter().zip(sids.chain(none)) {
            self.param(name, range, sid)?;
        }
        Ok(())
    }

    fn tag(&mut self, tag: EndpointTag) -> Result<(), CodecError> {
        if tag == EndpointTag::NONE { Ok(()) } else { self.param("tag", &TAG, tag.0) }
    }

    fn finish(self) -> Row {
        let whole = |call: &Call| call.action.params.len() == call.values.len();
        debug_assert!(!self.row.calls.is_empty() && self.row.calls.iter().all(whole));
        self.row
    }

    fn set(&mut self, name: &'static str, value: FieldValue) {
        let index = self.row.table().fields.iter().position(|field| field.name == name);
        self.row.fields[index.expect("a field of this table")] = value;
    }

    fn exact(
        &mut self,
        name: &'static str,
        range: &Range,
        value: impl Into<u128>,
    ) -> Result<(), CodecError> {
        let value = range.check(self.row.table().name, name, value.into())?;
        self.set(name, FieldValue::Exact(value));
        Ok(())
    }

    fn optional(
        &mut self,
        name: &'static str,
        range: &Range,
        value: Option<impl Into<u128>>,
    ) -> Result<(), CodecError> {
        let Some(value) = value else { return Ok(()) };
        let value = range.check(self.row.table().name, name, value.into())?;
        self.set(name, FieldValue::Optional(Some(value)));
        Ok(())
    }

    fn ports(&mut self, name: &'static str, ports: Option<[u16; 2]>) -> Result<(), CodecError> {
        let Some([first, last]) = ports else { return Ok(()) };
        let table = self.row.table().name;
        let [low, high] = [u128::from(first), u128::from(last)];
        match (first, last) {
            (0, u16::MAX) => return Err(CodecError::DontCare { table, name }),
            (first, last) if first > last => {
                return Err(CodecError::RangeEnds { table, name, low, high });
            }
            _ => self.set(name, FieldValue::Range(Some([low, high]))),
        }
        Ok(())
    }

    fn prefix(&mut self, name: &'static str, net: IpNet) -> Result<(), CodecError> {
        let table = self.row.table().name;
        let (value, len) = prefix::prefix_bits(net);
        if net.trunc() != net {
            return Err(CodecError::BitsOutsideMask { table, name });
        }
        if prefix::prefix(value, len) != net {
            return Err(CodecError::MappedPrefix { table, name, prefix: net.to_string() });
        }
        self.set(name, FieldValue::Masked { value, mask: prefix::mask(len) });
        Ok(())
    }

    /// The bits of an address that is not an IPv4 one in disguise.
    fn unmapped(&self, name: &'static str, address: IpAddr) -> Result<u128, CodecError> {
        let bits = prefix::address_bits(address);
        if prefix::address(bits) == address {
            return Ok(bits);
        }
        let table = self.row.table().name;
        Err(CodecError::MappedPrefix { table, name, prefix: address.to_string() })
    }

    fn address(&mut self, name: &'static str, address: IpAddr) -> Result<(), CodecError> {
        let bits = self.unmapped(name, address)?;
        self.param(name, &ADDRESS, bits)
    }

    /// As `prefix`, but to match anything has a form of its own.
    fn rule_prefix(&mut self, name: &'static str, net: Option<IpNet>) -> Result<(), CodecError> {
        match net {
            None => Ok(()),
            Some(IpNet::V6(v6)) if v6.prefix_len() == 0 => {
                Err(CodecError::DontCare { table: self.row.table().name, name })
            }
            Some(net) => self.prefix(name, net),
        }
    }

    fn priority(&mut self, priority: u32) -> Result<(), CodecError> {
        self.row.priority = i32::try_from(priority).ok().filter(|priority| *priority > 0).ok_or(
            CodecError::PriorityNeeded {
                table: self.row.table().name,
                priority: i64::from(priority),
            },
        )?;
        Ok(())
    }

    fn action(&mut self, name: &'static str) {
        self.call(name, 0);
    }

    fn call(&mut self, name: &'static str, weight: u32) {
        let action = self.row.table().actions.iter().find(|action| action.name == name);
        let action = action.expect("an action of this table");
        self.row.calls.push(Call { action, values: Vec::new(), weight });
    }

    fn check_set(&self, count: usize) -> Result<(), CodecError> {
        let table = self.row.table().name;
        let most = self.row.table().selector().expect("a table with a selector").max_group_size;
        match count {
            0 => Err(CodecError::EmptySet { table }),
            count if count > most as usize => Err(CodecError::SetSize { table, count, most }),
            _ => Ok(()),
        }
    }

    /// One more of a set.
    fn weighted_action(&mut self, name: &'static str, weight: u8) -> Result<(), CodecError> {
        let table = self.row.table().name;
        let most = self.row.table().selector().expect("a table with a selector").max_weight;
        if !(1..=most).contains(&u32::from(weight)) {
            return Err(CodecError::Weight { table, weight: weight.into(), most });
        }
        self.call(name, weight.into());
        Ok(())
    }

    /// Parameters are given in the order of the definition.
    fn param(
        &mut self,
        name: &'static str,
        range: &Range,
        value: impl Into<u128>,
    ) -> Result<(), CodecError> {
        let value = range.check(self.row.table().name, name, value.into())?;
        let call = self.row.calls.last_mut().expect("`action` comes first");
        assert_eq!(call.action.params[call.values.len()].name, name, "parameters in order");
        call.values.push(value);
        Ok(())
    }
}
