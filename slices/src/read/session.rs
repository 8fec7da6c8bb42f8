//! A PDU session.

use std::collections::BTreeMap;

use selvedge_topology::yaml::{Fields, Value, Wrong};
use selvedge_topology::{NodeName, Problem};

use super::Reader;
use crate::limits::{MAX_FLOWS, MIN_TUNNEL_MTU};
use crate::{ObjectName, PduSession};

impl Reader {
    pub(super) fn session(&mut self, name: ObjectName, mut spec: Fields<'_>) -> Option<PduSession> {
        let ue = spec.required(&mut self.d, "ue");
        let ue = ue.and_then(|value| self.d.parse::<NodeName>(value, "a host's name"));
        let slice = spec.required(&mut self.d, "slice");
        let slice = slice.and_then(|value| self.d.parse::<ObjectName>(value, "a slice's name"));
        let gnb = spec.required(&mut self.d, "gnb");
        let gnb = gnb.and_then(|value| self.d.parse::<NodeName>(value, "a host's name"));
        let n3 = spec.required(&mut self.d, "n3").and_then(|value| self.n3(value));
        let uplink_teid = spec.required(&mut self.d, "uplink");
        let uplink_teid = uplink_teid.and_then(|value| self.teid(value, "uplink"));
        let downlink_teid = spec.required(&mut self.d, "downlink");
        let downlink_teid = downlink_teid.and_then(|value| self.teid(value, "downlink"));
        let flows = spec.required(&mut self.d, "qosFlows");
        let flows = flows.and_then(|value| self.flows(value));
        let mtu = spec.optional("mtu").and_then(|value| {
            self.d.integer(value, "an MTU", MIN_TUNNEL_MTU..=u64::from(u16::MAX))
        });
        spec.finish(&mut self.d);
        let mtu = mtu.map(|mtu| u16::try_from(mtu).expect("bounded above"));
        Some(PduSession {
            name,
            ue: ue?,
            slice: slice?,
            gnb: gnb?,
            n3: n3?,
            uplink_teid: uplink_teid?,
            downlink_teid: downlink_teid?,
            flows: flows?,
            mtu: mtu.unwrap_or(PduSession::DEFAULT_MTU),
        })
    }

    fn n3(&mut self, value: &Value) -> Option<std::net::IpAddr> {
        self.d.parse_with(value, "an address", |text| {
            let address: std::net::IpAddr =
                text.parse().map_err(|_| Wrong::new(format!("{text:?} is not an IP address")))?;
            let is_mapped =
                matches!(address, std::net::IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
            if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
                Err(Wrong::new(format!("{address} is no address of one switch on N3")))
            } else if is_mapped {
                Err(Wrong::new(format!("{address} is IPv4; write it as IPv4")))
            } else {
                Ok(address)
            }
        })
    }

    /// `{ teid: N }`.
    fn teid(&mut self, value: &Value, what: &'static str) -> Option<u32> {
        let mut fields = self.d.fields(value, what)?;
        let teid = fields.required(&mut self.d, "teid");
        fields.finish(&mut self.d);
        let teid = self.d.integer(teid?, "a TEID", 1..=u64::from(u32::MAX))?;
        Some(u32::try_from(teid).expect("bounded above"))
    }

    fn flows(&mut self, value: &Value) -> Option<BTreeMap<u8, u8>> {
        let items = self.d.items(value, "QoS flows");
        let end = value.span.end.min(value.span.start + 40);
        if !(1..=MAX_FLOWS).contains(&items.len()) {
            let message = format!("a session has 1 to {MAX_FLOWS} QoS flows, not {}", items.len());
            self.d.problem(Problem::new(value.span.start..end, message));
            return None;
        }
        let mut flows = BTreeMap::new();
        let mut good = true;
        for item in items {
            let Some(mut fields) = self.d.fields(item, "a QoS flow") else {
                good = false;
                continue;
            };
            let qfi = fields.required(&mut self.d, "qfi");
            let qfi_at = qfi.map_or(item.span.clone(), |value| value.span.clone());
            let qfi = qfi.and_then(|value| self.d.integer(value, "a QFI", 0..=63));
            let five_qi = fields.required(&mut self.d, "5qi");
            let five_qi = five_qi.and_then(|value| self.five_qi(value));
            fields.finish(&mut self.d);
            let (Some(qfi), Some(five_qi)) = (qfi, five_qi) else {
                good = false;
                continue;
            };
            let qfi = u8::try_from(qfi).expect("bounded above");
            if flows.insert(qfi, five_qi).is_some() {
                let message = format!("QFI {qfi} is here twice");
                self.d.problem(Problem::new(qfi_at, message).label("again here"));
                good = false;
            }
        }
        good.then_some(flows)
    }
}
