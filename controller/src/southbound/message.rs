//! What a switch says, checked and turned into the core's events.

use std::net::IpAddr;

use selvedge_core::{
    Compute, DiscoveryCounts, Event, HookState, HookStatus, Neighbor, Port, Report,
};
use selvedge_pipeline::{HookId, PortId};
use selvedge_southbound::selvedge::v1;
use selvedge_topology::NodeName;

use super::telemetry;

/// Ports, neighbors or hooks in one registration: as many as a switch can number.
const MAX_ITEMS: usize = 256;
/// Longest name of a port (IFNAMSIZ) and longest LLDP id (IEEE 802.1AB §8.5.2.3), in bytes.
const MAX_PORT_NAME: usize = 15;
const MAX_LLDP_ID: usize = 255;
/// Longer reasons and versions are cut, in bytes.
const MAX_TEXT: usize = 512;

/// A message that breaks the protocol: which field, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub(crate) struct BadMessage {
    pub(crate) field: &'static str,
    pub(crate) problem: String,
}

pub(crate) fn bad<T>(field: &'static str, problem: impl Into<String>) -> Result<T, BadMessage> {
    Err(BadMessage { field, problem: problem.into() })
}

/// Where to dial the switch's P4Runtime server, and the switch as the core sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Registration {
    pub(crate) p4runtime_address: String,
    pub(crate) device_id: u64,
    pub(crate) report: Report,
}

pub(crate) fn registration(message: v1::Register) -> Result<Registration, BadMessage> {
    let v1::Register { p4runtime_address, device_id, version, ports, compute, neighbors, hooks } =
        message;
    let authority = p4runtime_address.parse::<tonic::codegen::http::uri::Authority>();
    if !authority.is_ok_and(|authority| authority.port().is_some()) {
        return bad("p4runtime_address", format!("{:?} is not host:port", cut(p4runtime_address)));
    }
    for (field, length) in
        [("ports", ports.len()), ("neighbors", neighbors.len()), ("hooks", hooks.len())]
    {
        if length > MAX_ITEMS {
            return bad(field, format!("{length} are too many, at most {MAX_ITEMS}"));
        }
    }
    let report = Report {
        version: cut(version),
        ports: ports.into_iter().map(port).collect::<Result<_, _>>()?,
        compute: compute.map(|c| Compute { cpu: c.cpu, memory_bytes: c.memory_bytes }),
        neighbors: neighbors
            .into_iter()
            .map(neighbor)
            .filter_map(|found| match found {
                Ok((port, Some(neighbor))) => Some(Ok((port, neighbor))),
                Ok((_, None)) => None,
                Err(error) => Some(Err(error)),
            })
            .collect::<Result<_, _>>()?,
        hooks: hooks.into_iter().map(hook).collect::<Result<_, _>>()?,
    };
    Ok(Registration { p4runtime_address, device_id, report })
}

pub(crate) fn event(
    switch: &NodeName,
    message: v1::from_switch::Message,
) -> Result<Event, BadMessage> {
    use v1::from_switch::Message;
    let switch = switch.clone();
    Ok(match message {
        Message::Register(_) => return bad("register", "sent a second time"),
        // Of nobody's intent: `Session::run` has it.
        Message::Samples(_) => return bad("samples", "not an event"),
        Message::Port(message) => Event::PortChanged { switch, port: port(message)? },
        Message::PortGone(v1::PortGone { id }) => {
            Event::PortGone { switch, port: port_id("port_gone.id", id)? }
        }
        Message::Neighbor(message) => {
            let (port, neighbor) = neighbor(message)?;
            Event::NeighborChanged { switch, port, neighbor }
        }
        Message::EndpointSeen(v1::EndpointSeen { port, mac, address }) => Event::EndpointSeen {
            switch,
            port: port_id("endpoint_seen.port", port)?,
            mac: mac_address("endpoint_seen.mac", &mac)?,
            address: ip_address(&address)?,
        },
        Message::HookState(message) => {
            let (hook, status) = hook(message)?;
            Event::HookChanged { switch, hook, status }
        }
        Message::Discovery(message) => {
            Event::Discovered { switch, counts: discovery_counts(&message) }
        }
        Message::Telemetry(message) => {
            Event::Measured { switch, measured: telemetry::measured(message)? }
        }
    })
}

fn port(message: v1::Port) -> Result<Port, BadMessage> {
    let v1::Port { id, name, mac, up } = message;
    if name.is_empty() || name.len() > MAX_PORT_NAME {
        return bad("port.name", format!("{:?} is not an interface's name", cut(name)));
    }
    let (id, mac) = (port_id("port.id", id)?, mac_address("port.mac", &mac)?);
    Ok(Port { id, name, mac, up })
}

fn neighbor(message: v1::Neighbor) -> Result<(PortId, Option<Neighbor>), BadMessage> {
    let v1::Neighbor { port, chassis, port_name, authenticated } = message;
    let id = port_id("neighbor.port", port)?;
    if chassis.len() > MAX_LLDP_ID || port_name.len() > MAX_LLDP_ID {
        return bad("neighbor", format!("ids are at most {MAX_LLDP_ID} bytes"));
    }
    let neighbor = Neighbor { chassis: cut(chassis), port: cut(port_name), authenticated };
    Ok((id, (!neighbor.chassis.is_empty()).then_some(neighbor)))
}

fn discovery_counts(message: &v1::Discovery) -> DiscoveryCounts {
    let hosts = message.hosts.unwrap_or_default();
    DiscoveryCounts {
        received: message.received,
        without_end: message.without_end,
        discarded: DiscoveryCounts::REASONS.map(|reason| match reason {
            "malformed" => message.malformed,
            "unauthenticated" => message.unauthenticated,
            "unknown_key" => message.unknown_key,
            "forged" => message.forged,
            "stale" => message.stale,
            "replayed" => message.replayed,
            "misplaced" => message.misplaced,
            _ => message.limited,
        }),
        hosts: DiscoveryCounts::OF_HOSTS.map(|what| match what {
            "solicitations" => hosts.solicitations,
            "advertisements" => hosts.advertisements,
            "to_servers" => hosts.to_servers,
            "to_clients" => hosts.to_clients,
            "malformed" => hosts.malformed,
            "foreign" => hosts.foreign,
            _ => hosts.no_server,
        }),
    }
}

fn hook(message: v1::HookState) -> Result<(HookId, HookStatus), BadMessage> {
    use v1::hook_state::State;
    let state = match message.state() {
        State::Unspecified => return bad("hook_state.state", "not a state"),
        State::Loading => HookState::Loading,
        State::Running => HookState::Running,
        State::Down => HookState::Down,
        State::Quarantined => HookState::Quarantined,
        State::Refused => HookState::Refused,
    };
    let Ok(id @ 0..=255) = u16::try_from(message.hook) else {
        return bad("hook_state.hook", format!("{} is not a hook's number", message.hook));
    };
    let digest = message.sha256.len() == 64
        && message.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !digest && !message.sha256.is_empty() {
        return bad("hook_state.sha256", "not 64 lower-case hex digits");
    }
    let status = HookStatus { state, reason: cut(message.reason), sha256: message.sha256 };
    Ok((HookId(id), status))
}

pub(super) fn port_id(field: &'static str, id: u32) -> Result<PortId, BadMessage> {
    match u16::try_from(id) {
        Ok(id @ 1..=255) => Ok(PortId(id)),
        _ => bad(field, format!("{id} is not a port, 1 to 255")),
    }
}

fn mac_address(field: &'static str, bytes: &[u8]) -> Result<[u8; 6], BadMessage> {
    match bytes.try_into() {
        Ok(mac) => Ok(mac),
        Err(_) => bad(field, format!("{} bytes, a MAC address has 6", bytes.len())),
    }
}

/// IPv4-mapped addresses are IPv4.
fn ip_address(bytes: &[u8]) -> Result<IpAddr, BadMessage> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        Ok(v4.into())
    } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        Ok(IpAddr::from(v6).to_canonical())
    } else {
        bad("endpoint_seen.address", format!("{} bytes, an IP address has 4 or 16", bytes.len()))
    }
}

/// Text for people, at most [`MAX_TEXT`] bytes of it, on one line.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::from_switch::Message;

    fn name() -> NodeName {
        "s1".parse().unwrap()
    }

    #[test]
    fn bad_messages_name_the_field() {
        let mac = vec![2, 0, 0, 0, 0, 1];
        let port = |id, name: &str, mac: &[u8]| {
            Message::Port(v1::Port { id, name: name.into(), mac: mac.into(), up: true })
        };
        let seen = |address: &[u8]| {
            Message::EndpointSeen(v1::EndpointSeen {
                port: 1,
                mac: mac.clone(),
                address: address.into(),
            })
        };
        let hook = |hook, state, sha256: &str| {
            Message::HookState(v1::HookState {
                hook,
                state,
                reason: String::new(),
                sha256: sha256.into(),
            })
        };
        // (message, the field refused; `None`: accepted)
        let cases = [
            (port(1, "p1", &mac), None),
            (port(255, "p1", &mac), None),
            (port(0, "p1", &mac), Some("port.id")),
            (port(256, "p1", &mac), Some("port.id")),
            (port(65_537, "p1", &mac), Some("port.id")),
            (port(1, "", &mac), Some("port.name")),
            (port(1, "sixteen-letters-", &mac), Some("port.name")),
            (port(1, "p1", &mac[..5]), Some("port.mac")),
            (seen(&[10, 0, 0, 1]), None),
            (seen(&[10, 0, 0]), Some("endpoint_seen.address")),
            (hook(255, 2, ""), None),
            (hook(256, 2, ""), Some("hook_state.hook")),
            (hook(1, 0, ""), Some("hook_state.state")),
            (hook(1, 99, ""), Some("hook_state.state")),
            (hook(1, 2, "abc"), Some("hook_state.sha256")),
            (Message::Register(v1::Register::default()), Some("register")),
        ];
        for (message, want) in cases {
            let got = event(&name(), message.clone());
            assert_eq!(got.err().map(|e| e.field), want, "{message:?}");
        }
    }

    #[test]
    fn registration_is_checked() {
        let register = |address: &str| v1::Register {
            p4runtime_address: address.into(),
            ..v1::Register::default()
        };
        for good in ["192.0.2.11:9559", "[2001:db8::1]:9559", "s1.example.net:9559"] {
            assert!(registration(register(good)).is_ok(), "{good}");
        }
        for bad in ["", "192.0.2.11", "http://a:1", "a:b:c", "a:99999", "a b:1"] {
            let error = registration(register(bad)).unwrap_err();
            assert_eq!(error.field, "p4runtime_address", "{bad}");
        }
        let crowd = v1::Register {
            ports: vec![v1::Port::default(); MAX_ITEMS + 1],
            ..register("192.0.2.11:9559")
        };
        assert_eq!(registration(crowd).unwrap_err().field, "ports");
    }

    #[test]
    fn text_is_cut_and_kept_on_one_line() {
        assert_eq!(cut("a\nb\u{1b}[31m".into()), "a b [31m");
        assert_eq!(cut("é".repeat(MAX_TEXT)).len(), MAX_TEXT);
    }
}
