//! The packet that a trace starts with.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use selvedge_core::view::EndpointView;
use selvedge_pipeline::gateway;

use super::{Network, Start};
use crate::api::Problem;
use crate::api::wire_trace::TraceRequest;

/// Largest frame: a fabric MTU of 9,000 bytes and its headers.
const MAX_FRAME_BYTES: usize = 9_216;
/// What a made-up packet carries.
const PAYLOAD: &[u8] = b"selvedge trace";
const HOP_LIMIT: u8 = 64;
const DEFAULT_SOURCE_PORT: u16 = 40_000;
/// Discard (RFC 863).
const DEFAULT_DESTINATION_PORT: u16 = 9;

/// Where the packet that `request` describes comes in, and its bytes.
pub(crate) fn start(
    network: &Network,
    request: &TraceRequest,
) -> Result<(Start, Vec<u8>), Problem> {
    match (&request.node, &request.port, &request.frame, &request.from, &request.to) {
        (Some(node), Some(port), Some(frame), None, None) => {
            let start = network.port(node, port)?;
            Ok((start, from_hex(frame)?))
        }
        (None, None, None, Some(from), Some(to)) => between(network, request, from, to),
        _ => Err(Problem::unprocessable(
            "give `node`, `port` and `frame`, or `from` and `to`, and not both",
        )),
    }
}

fn between(
    network: &Network,
    request: &TraceRequest,
    from: &str,
    to: &str,
) -> Result<(Start, Vec<u8>), Problem> {
    let sender = network.endpoint(from)?;
    let (source, destination) = addresses(network, request, sender, to)?;
    let Some((switch, port)) = &sender.attachment else {
        return Err(Problem::unprocessable(format!("endpoint {from:?} is not attached anywhere")));
    };
    let start = network.port(switch.as_str(), port)?;
    // An endpoint that has not shown itself yet has a MAC address we cannot know; switches do
    // not look at it.
    let mac = sender.mac.unwrap_or([0x02, 0, 0, 0, 0, 1]);
    Ok((start, packet(request, mac, source, destination)?))
}

fn addresses(
    network: &Network,
    request: &TraceRequest,
    sender: &EndpointView,
    to: &str,
) -> Result<(IpAddr, IpAddr), Problem> {
    let receivers = match to.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => network.endpoint(to)?.addresses.clone(),
    };
    let versions: &[bool] = match request.ip_version {
        None => &[true, false],
        Some(4) => &[true],
        Some(6) => &[false],
        Some(other) => {
            return Err(Problem::unprocessable(format!("ip_version: {other} is not 4 or 6")));
        }
    };
    let of = |list: &[IpAddr], v4: bool| list.iter().copied().find(|a| a.is_ipv4() == v4);
    let pair =
        versions.iter().find_map(|v4| Some((of(&sender.addresses, *v4)?, of(&receivers, *v4)?)));
    pair.ok_or_else(|| {
        let from = &sender.name;
        Problem::unprocessable(format!("{from} and {to} have no addresses of one kind"))
    })
}

fn packet(
    request: &TraceRequest,
    mac: [u8; 6],
    source: IpAddr,
    destination: IpAddr,
) -> Result<Vec<u8>, Problem> {
    let dscp = request.dscp.unwrap_or(0);
    if dscp > 63 {
        return Err(Problem::unprocessable(format!("dscp: {dscp} is more than 63")));
    }
    let ethernet = PacketBuilder::ethernet2(mac, gateway::MAC);
    let ip = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = etherparse::Ipv4Header::new(
                0,
                HOP_LIMIT,
                etherparse::IpNumber::UDP,
                source.octets(),
                destination.octets(),
            )
            .expect("an empty payload is not too long");
            header.dscp = etherparse::IpDscp::try_new(dscp).expect("checked above");
            ethernet.ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = etherparse::Ipv6Header {
                traffic_class: dscp << 2,
                hop_limit: HOP_LIMIT,
                source: source.octets(),
                destination: destination.octets(),
                ..Default::default()
            };
            ethernet.ip(etherparse::IpHeaders::Ipv6(header, Default::default()))
        }
        _ => return Err(Problem::unprocessable("source and destination are of two kinds")),
    };
    let source_port = request.source_port.unwrap_or(DEFAULT_SOURCE_PORT);
    let destination_port = request.destination_port.unwrap_or(DEFAULT_DESTINATION_PORT);
    let mut frame = Vec::new();
    let written = match request.protocol.as_deref().unwrap_or("udp") {
        "udp" => ip.udp(source_port, destination_port).write(&mut frame, PAYLOAD),
        "tcp" => ip.tcp(source_port, destination_port, 0, 65_535).write(&mut frame, PAYLOAD),
        "icmp" if source.is_ipv4() => ip.icmpv4_echo_request(1, 1).write(&mut frame, PAYLOAD),
        "icmp" => ip.icmpv6_echo_request(1, 1).write(&mut frame, PAYLOAD),
        other => {
            return Err(Problem::unprocessable(format!(
                "protocol: {other:?} is not udp, tcp or icmp"
            )));
        }
    };
    written.expect("a small packet in memory can be written");
    Ok(frame)
}

/// Spaces, colons and line ends are left out.
fn from_hex(text: &str) -> Result<Vec<u8>, Problem> {
    let bad = |problem: String| Problem::unprocessable(format!("frame: {problem}"));
    let mut digits = Vec::new();
    for (at, c) in text.chars().enumerate().filter(|(_, c)| !c.is_whitespace() && *c != ':') {
        let digit = c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        digits.push(digit.ok_or_else(|| bad(format!("{c:?} at {at} is not a hex digit")))?);
    }
    if digits.len() % 2 == 1 {
        return Err(bad(format!("{} hex digits are no whole bytes", digits.len())));
    }
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    if bytes.len() > MAX_FRAME_BYTES {
        return Err(bad(format!("{} bytes, at most {MAX_FRAME_BYTES}", bytes.len())));
    }
    Ok(bytes)
}
