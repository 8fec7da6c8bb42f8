//! What the controller has to be told. Pure.
//!
//! The agent's tasks write what they see into one [`Report`]; the session sends the difference
//! between what it last told and what is true. So nothing is queued, nothing is lost when the
//! controller is away, and after a reconnect everything is told again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use selvedge_pipeline::PortId;
use selvedge_southbound::selvedge::v1;
use v1::from_switch::Message;

use crate::hosts;
use crate::lldp::state::{Counts, Neighbor};

/// Unbound sources that are kept for telling.
pub const SEEN_MAX: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStatus {
    pub name: String,
    pub mac: [u8; 6],
    pub up: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookStatus {
    pub state: v1::hook_state::State,
    /// For what is not running.
    pub reason: String,
    /// Of the module, hexadecimal.
    pub sha256: String,
    /// Raised by whoever wants the same told again: a request is always answered.
    pub answers: u64,
}

/// A source seen on an access port that the `endpoint` table does not bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub mac: [u8; 6],
    /// Sightings so far: a new one is told again.
    pub sightings: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub ports: BTreeMap<PortId, PortStatus>,
    pub neighbors: BTreeMap<PortId, Neighbor>,
    pub hooks: BTreeMap<u32, HookStatus>,
    pub seen: BTreeMap<(PortId, IpAddr), Seen>,
    pub lldp: Counts,
    pub hosts: hosts::Counts,
}

impl Report {
    /// Notes a sighting. When there are [`SEEN_MAX`] others, it is forgotten: the source will
    /// be seen again, and by then the others are bound or have expired.
    pub fn saw(&mut self, port: PortId, address: IpAddr, mac: [u8; 6]) {
        if self.seen.len() >= SEEN_MAX && !self.seen.contains_key(&(port, address)) {
            return;
        }
        let seen = self.seen.entry((port, address)).or_insert(Seen { mac, sightings: 0 });
        *seen = Seen { mac, sightings: seen.sightings + 1 };
    }

    /// First message of a session. Sightings and counts are not in it; [`changes`] tells them.
    pub fn register(
        &self,
        p4runtime_address: String,
        device_id: u64,
        compute: Option<v1::Compute>,
    ) -> v1::Register {
        v1::Register {
            p4runtime_address,
            device_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ports: self.ports.iter().map(port_message).collect(),
            compute,
            neighbors: self.neighbors.iter().map(|(p, n)| neighbor_message(*p, Some(n))).collect(),
            hooks: self.hooks.iter().map(hook_message).collect(),
        }
    }

    /// What was told by [`Report::register`].
    pub fn registered(&self) -> Self {
        Self {
            seen: BTreeMap::new(),
            lldp: Counts::default(),
            hosts: hosts::Counts::default(),
            ..self.clone()
        }
    }
}

/// The messages that take a controller from knowing `told` to knowing `now`.
pub fn changes(told: &Report, now: &Report) -> Vec<Message> {
    let mut messages = Vec::new();
    for port in told.neighbors.keys() {
        if !now.neighbors.contains_key(port) && now.ports.contains_key(port) {
            messages.push(Message::Neighbor(neighbor_message(*port, None)));
        }
    }
    for port in told.ports.keys().filter(|port| !now.ports.contains_key(port)) {
        messages.push(Message::PortGone(v1::PortGone { id: port.0.into() }));
    }
    let news = |(id, status): &(&PortId, &PortStatus)| told.ports.get(id) != Some(status);
    messages.extend(now.ports.iter().filter(news).map(|port| Message::Port(port_message(port))));
    for (port, neighbor) in &now.neighbors {
        // A port that has been away has lost its neighbor at the other end too.
        if told.neighbors.get(port) != Some(neighbor) || !told.ports.contains_key(port) {
            messages.push(Message::Neighbor(neighbor_message(*port, Some(neighbor))));
        }
    }
    for (id, status) in &told.hooks {
        if !now.hooks.contains_key(id) {
            let reason = "unloaded".to_owned();
            let state = v1::hook_state::State::Down;
            let gone = HookStatus { state, reason, ..status.clone() };
            messages.push(Message::HookState(hook_message((id, &gone))));
        }
    }
    for (id, status) in &now.hooks {
        if told.hooks.get(id) != Some(status) {
            messages.push(Message::HookState(hook_message((id, status))));
        }
    }
    for ((port, address), seen) in &now.seen {
        if told.seen.get(&(*port, *address)) != Some(seen) {
            messages.push(Message::EndpointSeen(v1::EndpointSeen {
                port: port.0.into(),
                mac: seen.mac.to_vec(),
                address: address_bytes(*address),
            }));
        }
    }
    if (told.lldp, told.hosts) != (now.lldp, now.hosts) {
        messages.push(Message::Discovery(discovery_message(&now.lldp, &now.hosts)));
    }
    messages
}

fn port_message((id, status): (&PortId, &PortStatus)) -> v1::Port {
    v1::Port { id: id.0.into(), name: status.name.clone(), mac: status.mac.to_vec(), up: status.up }
}

fn neighbor_message(port: PortId, neighbor: Option<&Neighbor>) -> v1::Neighbor {
    let (chassis, port_name, authenticated) = match neighbor {
        Some(Neighbor { chassis, port, authenticated }) => {
            (chassis.clone(), port.clone(), *authenticated)
        }
        None => (String::new(), String::new(), false),
    };
    v1::Neighbor { port: port.0.into(), chassis, port_name, authenticated }
}

fn discovery_message(counts: &Counts, hosts: &hosts::Counts) -> v1::Discovery {
    let Counts { received, without_end, malformed, unauthenticated, unknown_key, .. } = *counts;
    let Counts { forged, stale, replayed, misplaced, limited, .. } = *counts;
    v1::Discovery {
        received,
        without_end,
        malformed,
        unauthenticated,
        unknown_key,
        forged,
        stale,
        replayed,
        misplaced,
        limited,
        hosts: Some(v1::Hosts {
            solicitations: hosts.solicitations,
            advertisements: hosts.advertisements,
            to_servers: hosts.to_servers,
            to_clients: hosts.to_clients,
            malformed: hosts.malformed,
            foreign: hosts.foreign,
            no_server: hosts.no_server,
        }),
    }
}

fn hook_message((id, status): (&u32, &HookStatus)) -> v1::HookState {
    v1::HookState {
        hook: *id,
        state: status.state.into(),
        reason: status.reason.clone(),
        sha256: status.sha256.clone(),
    }
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::hook_state::State;

    fn port(name: &str, up: bool) -> PortStatus {
        PortStatus { name: name.into(), mac: [2, 0, 0, 0, 0, 1], up }
    }

    fn neighbor(chassis: &str) -> Neighbor {
        Neighbor { chassis: chassis.into(), port: "p1".into(), authenticated: chassis == "s3" }
    }

    fn hook(state: State, answers: u64) -> HookStatus {
        HookStatus { state, reason: String::new(), sha256: "ab".into(), answers }
    }

    fn brief(messages: &[Message]) -> Vec<String> {
        let one = |message: &Message| match message {
            Message::Register(_) => "register".to_owned(),
            Message::Port(p) => format!("port {} {} {}", p.id, p.name, p.up),
            Message::PortGone(p) => format!("gone {}", p.id),
            Message::Neighbor(n) => {
                format!(
                    "neighbor {} {:?}{}",
                    n.port,
                    n.chassis,
                    if n.authenticated { "!" } else { "" }
                )
            }
            Message::EndpointSeen(s) => format!("seen {} {:?}", s.port, s.address.to_vec()),
            Message::HookState(h) => format!("hook {} {:?} {}", h.hook, h.state(), h.reason),
            Message::Telemetry(t) => format!("telemetry of {}", t.second),
            Message::Samples(s) => format!("{} samples", s.samples.len()),
            Message::Discovery(d) => {
                let asked = d.hosts.as_ref().map_or(0, |hosts| hosts.solicitations);
                format!("{} frames, {} forged, {asked} solicitations", d.received, d.forged)
            }
        };
        messages.iter().map(one).collect()
    }

    #[test]
    fn only_what_changed_is_told() {
        let (p1, p2) = (PortId(1), PortId(2));
        let mut now = Report::default();
        // (change, messages)
        type Change = fn(&mut Report, PortId, PortId);
        let script: &[(Change, &[&str])] = &[
            (
                |r, p1, p2| {
                    r.ports.insert(p1, port("p1", true));
                    r.ports.insert(p2, port("p2", false));
                    r.neighbors.insert(p1, neighbor("s2"));
                },
                &["port 1 p1 true", "port 2 p2 false", "neighbor 1 \"s2\""],
            ),
            (|_, _, _| {}, &[]),
            (|r, _, p2| r.ports.get_mut(&p2).unwrap().up = true, &["port 2 p2 true"]),
            (|r, p1, _| drop(r.neighbors.insert(p1, neighbor("s3"))), &["neighbor 1 \"s3\"!"]),
            (|r, p1, _| drop(r.neighbors.remove(&p1)), &["neighbor 1 \"\""]),
            (|r, p1, _| drop(r.neighbors.insert(p1, neighbor("s3"))), &["neighbor 1 \"s3\"!"]),
            (
                |r, p1, _| {
                    r.neighbors.remove(&p1);
                    r.ports.remove(&p1);
                },
                &["gone 1"],
            ),
            (|r, _, p2| r.saw(p2, [192, 0, 2, 7].into(), [2; 6]), &["seen 2 [192, 0, 2, 7]"]),
            (|r, _, p2| r.saw(p2, [192, 0, 2, 7].into(), [2; 6]), &["seen 2 [192, 0, 2, 7]"]),
            (|r, _, _| r.seen.clear(), &[]),
            (
                |r, _, _| (r.lldp.received, r.lldp.forged) = (3, 2),
                &["3 frames, 2 forged, 0 solicitations"],
            ),
            (|r, _, _| r.hosts.solicitations = 4, &["3 frames, 2 forged, 4 solicitations"]),
            (|r, _, _| drop(r.hooks.insert(3, hook(State::Loading, 0))), &["hook 3 Loading "]),
            (|r, _, _| drop(r.hooks.insert(3, hook(State::Loading, 1))), &["hook 3 Loading "]),
            (|r, _, _| drop(r.hooks.remove(&3)), &["hook 3 Down unloaded"]),
        ];
        for (step, (change, want)) in script.iter().enumerate() {
            let told = now.clone();
            change(&mut now, p1, p2);
            assert_eq!(brief(&changes(&told, &now)), *want, "step {step}");
        }
    }

    #[test]
    fn a_registration_tells_all_but_sightings() {
        let mut report = Report::default();
        report.ports.insert(PortId(1), port("p1", true));
        report.neighbors.insert(PortId(1), neighbor("s2"));
        report.hooks.insert(0, hook(State::Running, 0));
        report.saw(PortId(1), "fd10::1".parse().unwrap(), [2; 6]);
        let register = report.register("192.0.2.1:9559".into(), 1, None);
        assert_eq!(register.ports.len() + register.neighbors.len() + register.hooks.len(), 3);
        let rest = changes(&report.registered(), &report);
        assert_eq!(rest.len(), 1);
        assert!(matches!(&rest[0], Message::EndpointSeen(seen) if seen.address.len() == 16));
    }

    #[test]
    fn sightings_are_bounded() {
        let mut report = Report::default();
        for n in 0..2 * SEEN_MAX as u32 {
            report.saw(PortId(1), IpAddr::V4(n.into()), [2; 6]);
        }
        assert_eq!(report.seen.len(), SEEN_MAX);
        report.saw(PortId(1), IpAddr::V4(0.into()), [3; 6]);
        let first = &report.seen[&(PortId(1), IpAddr::V4(0.into()))];
        assert_eq!(*first, Seen { mac: [3; 6], sightings: 2 });
    }
}
