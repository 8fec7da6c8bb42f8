//! The frames of the ingress path: flows whose packets hit the rules of a full classifier, each
//! rule as often as the others.

use std::net::Ipv6Addr;

use selvedge_xdp::{Rule, RuleAction};

use super::{ETHERNET_LEN, FRAME_LEN, HOST_MAC, IN_MAC, IPV6_LEN, UDP_LEN};

pub(super) const RULES: u32 = 1_000;
/// A power of two. Their heads take up 256 KiB.
pub(super) const FLOWS: u32 = 4_096;
/// Hosts that send, and that are sent to.
pub(super) const SOURCES: u16 = 16;
pub(super) const DESTINATIONS: u16 = 250;

const UDP: u8 = 17;

/// Of a host that sends: `fd10:1::`, and its number.
pub(super) fn source(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd10, 1, 0, 0, 0, 0, 0, number)
}

pub(super) fn destination(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd10, 2, 0, 0, 0, 0, 0, number)
}

/// A packet of UDP, by what rules look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) source: u16,
    pub(super) destination: u16,
    pub(super) ports: [u16; 2],
}

impl Flow {
    /// Its frame: two bytes of payload.
    pub(super) fn frame(self) -> [u8; FRAME_LEN] {
        let payload = u16::try_from(FRAME_LEN - ETHERNET_LEN - IPV6_LEN).expect("a short frame");
        let mut frame = Vec::with_capacity(FRAME_LEN);
        frame.extend(IN_MAC);
        frame.extend(HOST_MAC);
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(payload.to_be_bytes());
        frame.extend([UDP, 64]);
        frame.extend(source(self.source).octets());
        frame.extend(destination(self.destination).octets());
        // Ports, length, checksum: nobody here looks at the last.
        let [from, to] = self.ports;
        frame.extend([from, to, payload, 0xbeef].into_iter().flat_map(u16::to_be_bytes));
        frame.resize(ETHERNET_LEN + IPV6_LEN + UDP_LEN + 2, 0);
        frame.try_into().expect("its length")
    }
}

/// The rule of a number, and what of a packet makes it hit: a quarter each by host and port, by
/// host and range, by prefixes and range, and by source port and range.
pub(super) fn rule(number: u32, set: u16) -> (Rule, Flow) {
    let n = u16::try_from(number).expect("few rules");
    let (quarter, host) = (n / DESTINATIONS, n % DESTINATIONS);
    let net = |address: Ipv6Addr, bits| ipnet::Ipv6Net::new(address, bits).expect("bits").trunc();
    let to_host = Some(net(destination(host), 128).into());
    let any = Rule { protocol: Some(UDP), ..Rule::any(RuleAction::SetSlice(set)) };
    let flow = |ports| Flow { source: n % SOURCES, destination: host, ports };
    match quarter {
        0 => {
            let port = 5_000 + n % 7;
            let rule = Rule { destination: to_host, destination_ports: Some([port, port]), ..any };
            (rule, flow([40_000, port]))
        }
        1 => {
            let first = 6_000 + 10 * (n % 50);
            let rule =
                Rule { destination: to_host, destination_ports: Some([first, first + 9]), ..any };
            (rule, flow([40_000, first + n % 10]))
        }
        2 => {
            let first = 10_000 + 10 * host;
            let rule = Rule {
                source: Some(net(source(n % SOURCES), 126).into()),
                destination: Some(net(destination(host), 124).into()),
                destination_ports: Some([first, first + 9]),
                ..any
            };
            (rule, flow([40_000, first + n % 10]))
        }
        _ => {
            let rule = Rule {
                source_ports: Some([20_000 + host; 2]),
                destination_ports: Some([8_000, 8_999]),
                ..any
            };
            (rule, flow([20_000 + host, 8_000 + n % 1_000]))
        }
    }
}

/// The flows, in an order that has nothing to do with that of the rules.
pub(super) fn flows() -> impl Iterator<Item = Flow> {
    // 7,919 and the number of rules have no factor in common.
    (0..FLOWS).map(|n| rule(n * 7_919 % RULES, 1).1)
}
