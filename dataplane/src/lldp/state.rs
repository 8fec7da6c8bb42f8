//! When each port sends, and who its neighbor is. Pure: no clock, no socket, no task. The
//! caller feeds inputs with the current time, carries out the outputs, and calls back no
//! later than [`Discovery::deadline`].
//!
//! A port that comes up sends at once, three times more a second apart (a fast start, as
//! 802.1AB-2016 §9.2.10.2 has it, so that a lab converges in a second), then every
//! [`INTERVAL`]. A switch port has one cable, so it has one neighbor: who speaks last.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use selvedge_pipeline::PortId;

use super::frame::{self, Advertisement};

/// Between frames in steady state.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Between the first frames.
pub const FAST_INTERVAL: Duration = Duration::from_secs(1);
/// Frames sent a [`FAST_INTERVAL`] after the one before.
pub const FAST_COUNT: u8 = 3;
/// What our frames say: four intervals, so three may be lost (§9.2.5.6, msgTxHold).
pub const TTL: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    pub chassis: String,
    pub port: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Send(PortId),
    /// `None`: the neighbor is gone.
    Neighbor(PortId, Option<Neighbor>),
}

/// What was received, for `debug` logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub received: u64,
    pub without_end: u64,
    pub discarded: u64,
    pub unknown_port: u64,
}

#[derive(Debug)]
struct Port {
    next_send: Instant,
    fast_left: u8,
    neighbor: Option<(Neighbor, Instant)>, // with when it expires
}

/// Discovery on all ports of a switch that have carrier.
#[derive(Debug, Default)]
pub struct Discovery {
    ports: BTreeMap<PortId, Port>,
    pub counts: Counts,
}

impl Discovery {
    /// The ports that are up, all of them: new ones start fast, missing ones lose their
    /// neighbor.
    pub fn set_up(&mut self, up: &[PortId], now: Instant, out: &mut Vec<Output>) {
        self.ports.retain(|id, port| {
            let stays = up.contains(id);
            if !stays && port.neighbor.is_some() {
                out.push(Output::Neighbor(*id, None));
            }
            stays
        });
        for id in up {
            self.ports.entry(*id).or_insert(Port {
                next_send: now,
                fast_left: FAST_COUNT,
                neighbor: None,
            });
        }
        self.tick(now, out);
    }

    /// A frame came in on `port`. What cannot be parsed is counted and forgotten.
    pub fn receive(&mut self, port: PortId, bytes: &[u8], now: Instant, out: &mut Vec<Output>) {
        self.counts.received += 1;
        let (Advertisement { chassis, port: port_name, ttl }, end) = match frame::parse(bytes) {
            Ok(parsed) => parsed,
            Err(_) => {
                self.counts.discarded += 1;
                return;
            }
        };
        self.counts.without_end += u64::from(!end);
        let Some(state) = self.ports.get_mut(&port) else {
            self.counts.unknown_port += 1;
            return;
        };
        let was = state.neighbor.take();
        let neighbor = Neighbor { chassis, port: port_name };
        if ttl.is_zero() {
            match was {
                Some((was, _)) if was == neighbor => out.push(Output::Neighbor(port, None)),
                was => state.neighbor = was,
            }
            return;
        }
        let news = was.is_none_or(|(was, _)| was != neighbor);
        if news {
            out.push(Output::Neighbor(port, Some(neighbor.clone())));
            // The other end may have come up after our fast start: let it know us soon.
            state.fast_left = state.fast_left.max(1);
            state.next_send = state.next_send.min(now + FAST_INTERVAL);
        }
        state.neighbor = Some((neighbor, now + ttl));
    }

    /// Sends and expires what is due.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        for (id, port) in &mut self.ports {
            if port.next_send <= now {
                out.push(Output::Send(*id));
                // From now, not from when it was due: after a sleep there is no backlog.
                port.next_send = now + if port.fast_left > 0 { FAST_INTERVAL } else { INTERVAL };
                port.fast_left = port.fast_left.saturating_sub(1);
            }
            if port.neighbor.as_ref().is_some_and(|(_, expires)| *expires <= now) {
                port.neighbor = None;
                out.push(Output::Neighbor(*id, None));
            }
        }
    }

    /// When [`Self::tick`] has something to do; `None`: no port is up.
    pub fn deadline(&self) -> Option<Instant> {
        let expiries = self.ports.values().filter_map(|p| p.neighbor.as_ref().map(|(_, at)| *at));
        self.ports.values().map(|p| p.next_send).chain(expiries).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P1: PortId = PortId(1);
    const P2: PortId = PortId(2);

    fn neighbor(chassis: &str) -> Option<Neighbor> {
        Some(Neighbor { chassis: chassis.into(), port: "p9".into() })
    }

    enum Input {
        Up(&'static [PortId]),
        Frame(PortId, &'static str, u64), // chassis, ttl in seconds
        Bytes(PortId, &'static [u8]),
        Tick,
    }

    #[test]
    fn script() {
        use Input::{Bytes, Frame, Tick, Up};
        use Output::{Neighbor as N, Send};
        // (at, input, outputs, deadline), times in ms
        let script: &[(u64, Input, Vec<Output>, Option<u64>)] = &[
            (0, Tick, vec![], None),
            (0, Up(&[P1]), vec![Send(P1)], Some(1000)),
            (500, Up(&[P1]), vec![], Some(1000)),
            (1000, Tick, vec![Send(P1)], Some(2000)),
            (2000, Tick, vec![Send(P1)], Some(3000)),
            (3000, Tick, vec![Send(P1)], Some(8000)),
            (8000, Tick, vec![Send(P1)], Some(13_000)),
            // A newcomer is answered within a second, then the slow pace goes on.
            (9000, Frame(P1, "s2", 20), vec![N(P1, neighbor("s2"))], Some(10_000)),
            (10_000, Tick, vec![Send(P1)], Some(11_000)),
            (11_000, Tick, vec![Send(P1)], Some(16_000)),
            (12_000, Frame(P1, "s2", 20), vec![], Some(16_000)),
            (13_000, Frame(P2, "s3", 20), vec![], Some(16_000)),
            (13_000, Bytes(P1, b"junk"), vec![], Some(16_000)),
            // Another takes its place; its predecessor's farewell says nothing of it.
            (14_000, Frame(P1, "s4", 3), vec![N(P1, neighbor("s4"))], Some(15_000)),
            (14_500, Frame(P1, "s2", 0), vec![], Some(15_000)),
            (15_000, Tick, vec![Send(P1)], Some(16_000)),
            (17_000, Tick, vec![Send(P1), N(P1, None)], Some(22_000)),
            (18_000, Frame(P1, "s2", 20), vec![N(P1, neighbor("s2"))], Some(19_000)),
            (18_500, Frame(P1, "s2", 0), vec![N(P1, None)], Some(19_000)),
            (18_600, Frame(P1, "s2", 20), vec![N(P1, neighbor("s2"))], Some(19_000)),
            (18_700, Up(&[P2]), vec![N(P1, None), Send(P2)], Some(19_700)),
            (18_800, Up(&[]), vec![], None),
        ];
        let start = Instant::now();
        let mut discovery = Discovery::default();
        for (at_ms, input, want, deadline_ms) in script {
            let now = start + Duration::from_millis(*at_ms);
            let mut out = Vec::new();
            match input {
                Up(ports) => discovery.set_up(ports, now, &mut out),
                Frame(port, chassis, ttl) => {
                    let ttl = Duration::from_secs(*ttl);
                    let frame = frame::encode([2; 6], chassis, "p9", ttl);
                    discovery.receive(*port, &frame, now, &mut out);
                }
                Bytes(port, bytes) => discovery.receive(*port, bytes, now, &mut out),
                Tick => discovery.tick(now, &mut out),
            }
            assert_eq!(out, *want, "at {at_ms} ms");
            let deadline = deadline_ms.map(|ms| start + Duration::from_millis(ms));
            assert_eq!(discovery.deadline(), deadline, "after {at_ms} ms");
        }
        let counts = Counts { received: 9, without_end: 0, discarded: 1, unknown_port: 1 };
        assert_eq!(discovery.counts, counts);
    }
}
