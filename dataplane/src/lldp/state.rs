//! When each port sends, who its neighbor is, and whether that is believed. Pure: no clock, no
//! socket, no task. The caller feeds inputs with the current time, carries out the outputs, and
//! calls back no later than [`Discovery::deadline`].
//!
//! A port that comes up sends at once, three times more a second apart (a fast start, as
//! 802.1AB-2016 §9.2.10.2 has it, so that a lab converges in a second), then every
//! [`INTERVAL`]. A switch port has one cable, so it has one neighbor: who speaks last.
//!
//! On a port that leads to another switch of ours, once there are keys, only a frame that is
//! proven, fresh and not seen before says anything. Hosts may say what they like: it is told as
//! what it is, and never proven, whatever they repeat.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use selvedge_pipeline::PortId;

use super::auth::Key;
use super::frame::{self, Advertisement, Parsed, Proof};

/// Between frames in steady state.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Between the first frames.
pub const FAST_INTERVAL: Duration = Duration::from_secs(1);
/// Frames sent a [`FAST_INTERVAL`] after the one before.
pub const FAST_COUNT: u8 = 3;
/// What our frames say: four intervals, so three may be lost (§9.2.5.6, msgTxHold).
pub const TTL: Duration = Duration::from_secs(20);
/// Frames that are read of one port in a second; then it is not listened to for what is left of
/// it. A neighbor that keeps to the standard sends one (§9.2.5.22, txFast).
pub const PER_SECOND: u8 = 10;
/// How far the clocks of two switches may be apart, ms; so long a frame can be repeated to a
/// switch that has not seen it.
pub const FRESH_MS: u64 = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    pub chassis: String,
    pub port: String,
    /// It has a key of this network.
    pub authenticated: bool,
}

/// What a port is for, as far as the switch has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Facing {
    /// Another switch of this network.
    Fabric,
    /// A host, or nobody knows.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Send(PortId),
    /// `None`: the neighbor is gone.
    Neighbor(PortId, Option<Neighbor>),
    /// Whether frames of that port are to be kept from us.
    Mute(PortId, bool),
}

/// Frames that were received, and those that said nothing, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub received: u64,
    /// Taken nevertheless.
    pub without_end: u64,
    pub malformed: u64,
    /// On a fabric port: without a proof.
    pub unauthenticated: u64,
    /// By a key that we were not given.
    pub unknown_key: u64,
    /// Not made with the key that it names.
    pub forged: u64,
    /// Made longer ago, or later, than [`FRESH_MS`].
    pub stale: u64,
    /// Not newer than the last of the same port of the same switch.
    pub replayed: u64,
    /// With a proof where no switch should be; told as if it had none.
    pub misplaced: u64,
    /// Beyond [`PER_SECOND`]; those that did not even reach us are not in it.
    pub limited: u64,
}

#[derive(Debug)]
struct Port {
    facing: Facing,
    next_send: Instant,
    fast_left: u8,
    neighbor: Option<(Neighbor, Instant)>, // with when it expires
    second_ends: Instant,
    heard: u8, // in this second
}

impl Port {
    fn new(facing: Facing, now: Instant) -> Self {
        let (next_send, second_ends) = (now, now);
        Self { facing, next_send, fast_left: FAST_COUNT, neighbor: None, second_ends, heard: 0 }
    }

    fn is_muted(&self) -> bool {
        self.heard > PER_SECOND
    }

    fn start_fast(&mut self, now: Instant) {
        (self.next_send, self.fast_left) = (now, FAST_COUNT);
    }
}

/// Discovery on all ports of a switch that have carrier.
#[derive(Debug, Default)]
pub struct Discovery {
    ports: BTreeMap<PortId, Port>,
    /// The first is to send with.
    keys: Vec<Key>,
    /// When the last frame of each port of each switch was made, ms since the Unix epoch. None
    /// is older than [`FRESH_MS`], and all were proven.
    made: BTreeMap<(String, String), u64>,
    pub counts: Counts,
}

impl Discovery {
    /// The ports that are up, all of them: new ones start fast, missing ones lose their
    /// neighbor, and so do those that are for something else now.
    pub fn set_up(&mut self, up: &[(PortId, Facing)], now: Instant, out: &mut Vec<Output>) {
        self.ports.retain(|id, port| {
            let stays = up.contains(&(*id, port.facing));
            if !stays && port.neighbor.is_some() {
                out.push(Output::Neighbor(*id, None));
            }
            if !stays && port.is_muted() {
                out.push(Output::Mute(*id, false));
            }
            stays
        });
        for (id, facing) in up {
            self.ports.entry(*id).or_insert_with(|| Port::new(*facing, now));
        }
        self.tick(now, out);
    }

    /// The first is to send with, all are good to receive with. None are not taken: whoever
    /// once had keys is not talked out of them.
    pub fn set_keys(&mut self, keys: Vec<Key>, now: Instant, out: &mut Vec<Output>) {
        if keys.is_empty() {
            return;
        }
        if self.keys.is_empty() {
            let fabric = self.ports.values_mut().filter(|port| port.facing == Facing::Fabric);
            fabric.for_each(|port| port.start_fast(now));
        }
        self.keys = keys;
        self.tick(now, out);
    }

    /// What a frame that is sent on `port` is proven with. Hosts are shown no proof, so there is
    /// none that they could take elsewhere.
    pub fn key(&self, port: PortId) -> Option<&Key> {
        let facing = self.ports.get(&port)?.facing;
        self.keys.first().filter(|_| facing == Facing::Fabric)
    }

    /// A frame came in on `port`; `clock_ms` is the time since the Unix epoch. What says nothing
    /// is counted and forgotten.
    pub fn receive(
        &mut self,
        port: PortId,
        bytes: &[u8],
        now: Instant,
        clock_ms: u64,
        out: &mut Vec<Output>,
    ) {
        self.counts.received += 1;
        // A port that has just gone down: it has no neighbor.
        let Some(state) = self.ports.get_mut(&port) else { return };
        if state.second_ends <= now && !state.is_muted() {
            (state.second_ends, state.heard) = (now + Duration::from_secs(1), 0);
        }
        if state.is_muted() {
            self.counts.limited += 1;
            return;
        }
        state.heard += 1;
        if state.is_muted() {
            self.counts.limited += 1;
            out.push(Output::Mute(port, true));
            return;
        }
        let Ok(Parsed { advertisement, proof, has_end }) = frame::parse(bytes) else {
            self.counts.malformed += 1;
            return;
        };
        self.counts.without_end += u64::from(!has_end);
        let Advertisement { chassis, port: port_name, ttl } = advertisement;
        let mut neighbor = Neighbor { chassis, port: port_name, authenticated: false };
        match (state.facing, proof) {
            (Facing::Other, proof) => self.counts.misplaced += u64::from(proof.is_some()),
            (Facing::Fabric, _) if self.keys.is_empty() => {}
            (Facing::Fabric, None) => {
                self.counts.unauthenticated += 1;
                return;
            }
            (Facing::Fabric, Some(proof)) => {
                if let Err(count) = self.judge(bytes, &neighbor, &proof, clock_ms) {
                    *count(&mut self.counts) += 1;
                    return;
                }
                neighbor.authenticated = true;
            }
        }
        self.heard_of(port, neighbor, ttl, now, out);
    }

    /// Whether a proof holds; else what is to be counted.
    fn judge(
        &mut self,
        frame: &[u8],
        neighbor: &Neighbor,
        proof: &Proof,
        clock_ms: u64,
    ) -> Result<(), fn(&mut Counts) -> &mut u64> {
        let Some(key) = self.keys.iter().find(|key| key.id() == proof.key_id) else {
            return Err(|counts| &mut counts.unknown_key);
        };
        if !key.holds(frame, proof) {
            return Err(|counts| &mut counts.forged);
        }
        if proof.at_ms.abs_diff(clock_ms) > FRESH_MS {
            return Err(|counts| &mut counts.stale);
        }
        self.made.retain(|_, at_ms| at_ms.abs_diff(clock_ms) <= FRESH_MS);
        let of = (neighbor.chassis.clone(), neighbor.port.clone());
        if self.made.get(&of).is_some_and(|last| proof.at_ms <= *last) {
            return Err(|counts| &mut counts.replayed);
        }
        self.made.insert(of, proof.at_ms);
        Ok(())
    }

    fn heard_of(
        &mut self,
        port: PortId,
        neighbor: Neighbor,
        ttl: Duration,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let Some(state) = self.ports.get_mut(&port) else { return };
        let was = state.neighbor.take();
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
            if port.is_muted() && port.second_ends <= now {
                port.heard = 0;
                out.push(Output::Mute(*id, false));
            }
        }
    }

    /// When [`Self::tick`] has something to do; `None`: no port is up.
    pub fn deadline(&self) -> Option<Instant> {
        let expiries = self.ports.values().filter_map(|p| p.neighbor.as_ref().map(|(_, at)| *at));
        let muted = self.ports.values().filter(|p| p.is_muted()).map(|p| p.second_ends);
        self.ports.values().map(|p| p.next_send).chain(expiries).chain(muted).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P1: PortId = PortId(1);
    const P2: PortId = PortId(2);

    fn neighbor(chassis: &str) -> Option<Neighbor> {
        Some(Neighbor { chassis: chassis.into(), port: "p9".into(), authenticated: false })
    }

    fn proven(chassis: &str) -> Option<Neighbor> {
        neighbor(chassis).map(|neighbor| Neighbor { authenticated: true, ..neighbor })
    }

    /// What `chassis` sends, made at a time in ms since the epoch.
    fn frame_of(chassis: &str, ttl: u64, by: Option<(&Key, u64)>) -> Vec<u8> {
        let encode = |prover: Option<frame::Prover<'_>>| {
            frame::encode([2; 6], chassis, "p9", Duration::from_secs(ttl), prover)
        };
        match by {
            Some((key, at_ms)) => key.proving(at_ms, |prover| encode(Some(prover))),
            None => encode(None),
        }
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
                Up(ports) => {
                    let up: Vec<_> = ports.iter().map(|port| (*port, Facing::Other)).collect();
                    discovery.set_up(&up, now, &mut out);
                }
                Frame(port, chassis, ttl) => {
                    discovery.receive(*port, &frame_of(chassis, *ttl, None), now, 0, &mut out);
                }
                Bytes(port, bytes) => discovery.receive(*port, bytes, now, 0, &mut out),
                Tick => discovery.tick(now, &mut out),
            }
            assert_eq!(out, *want, "at {at_ms} ms");
            let deadline = deadline_ms.map(|ms| start + Duration::from_millis(ms));
            assert_eq!(discovery.deadline(), deadline, "after {at_ms} ms");
        }
        assert_eq!(discovery.counts, Counts { received: 9, malformed: 1, ..Counts::default() });
    }

    /// P1 leads to a switch, P2 to a host.
    fn with_keys(keys: &[&Key], now: Instant) -> Discovery {
        let mut discovery = Discovery::default();
        let mut out = Vec::new();
        discovery.set_up(&[(P1, Facing::Fabric), (P2, Facing::Other)], now, &mut out);
        discovery.set_keys(keys.iter().map(|key| (*key).clone()).collect(), now, &mut out);
        discovery
    }

    #[test]
    fn only_who_has_a_key_is_believed_on_a_fabric_port() {
        type Reason = fn(&mut Counts) -> &mut u64;
        type Case = (&'static str, PortId, Vec<u8>, Option<Neighbor>, Option<Reason>);
        let [old, key, foreign] = [1, 2, 3].map(|byte| Key::new(&[byte; 32]));
        let start = Instant::now();
        let (clock, mut fresh) = (1_800_000_000_000, 1_800_000_000_000);
        let mut by = |key| {
            fresh += 1;
            frame_of("s2", 20, Some((key, fresh)))
        };
        let mut forged = by(&key);
        forged[18] ^= 1; // the last letter of the chassis
        let end = by(&key).len() - 2;
        let first = by(&key);
        // (what, port, frame, neighbor that is told, reason that is counted)
        let cases: Vec<Case> = vec![
            ("no proof", P1, frame_of("s2", 20, None), None, Some(|c| &mut c.unauthenticated)),
            ("foreign", P1, by(&foreign), None, Some(|c| &mut c.unknown_key)),
            ("forged", P1, forged, None, Some(|c| &mut c.forged)),
            (
                "old",
                P1,
                frame_of("s2", 20, Some((&key, clock - FRESH_MS - 1))),
                None,
                Some(|c| &mut c.stale),
            ),
            (
                "of tomorrow",
                P1,
                frame_of("s2", 20, Some((&key, clock + FRESH_MS + 1))),
                None,
                Some(|c| &mut c.stale),
            ),
            ("proven", P1, first.clone(), proven("s2"), None),
            ("again", P1, first.clone(), None, Some(|c| &mut c.replayed)),
            (
                "made before",
                P1,
                frame_of("s2", 20, Some((&key, clock))),
                None,
                Some(|c| &mut c.replayed),
            ),
            ("the key before", P1, by(&old), None, None),
            ("no end", P1, by(&key)[..end].to_vec(), None, Some(|c| &mut c.without_end)),
        ];
        let mut discovery = with_keys(&[&key, &old], start);
        for (what, port, frame, want, reason) in cases {
            // Each a second after the other, so that there are never too many.
            let now = start + Duration::from_secs(discovery.counts.received);
            let (mut counts, mut out) = (discovery.counts, Vec::new());
            discovery.receive(port, &frame, now, clock, &mut out);
            let want = want.map(|neighbor| Output::Neighbor(port, Some(neighbor)));
            assert_eq!(out, Vec::from_iter(want), "{what}");
            counts.received += 1;
            if let Some(reason) = reason {
                *reason(&mut counts) += 1;
            }
            assert_eq!(discovery.counts, counts, "{what}");
        }
    }

    /// A relay: what a host got hold of, or says itself, from another port.
    #[test]
    fn a_host_is_never_proven_and_shown_no_proof() {
        let key = Key::new(&[1; 32]);
        let now = Instant::now();
        let mut discovery = with_keys(&[&key], now);
        assert!(discovery.key(P1).is_some());
        assert!(discovery.key(P2).is_none());
        let mut out = Vec::new();
        discovery.receive(P2, &frame_of("s2", 20, Some((&key, 1))), now, 1, &mut out);
        assert_eq!(out, [Output::Neighbor(P2, neighbor("s2"))]);
        assert_eq!(discovery.counts.misplaced, 1);
        // And it does not use up what the true sender says afterwards.
        out.clear();
        discovery.receive(P1, &frame_of("s2", 20, Some((&key, 1))), now, 1, &mut out);
        assert_eq!(out, [Output::Neighbor(P1, proven("s2"))]);
        // Nor is it proven by becoming a fabric port.
        out.clear();
        discovery.set_up(&[(P1, Facing::Fabric), (P2, Facing::Fabric)], now, &mut out);
        assert_eq!(out, [Output::Neighbor(P2, None), Output::Send(P2)]);
    }

    #[test]
    fn without_keys_all_is_told_and_nothing_proven_and_keys_stay() {
        let (key, now) = (Key::new(&[1; 32]), Instant::now());
        let mut discovery = with_keys(&[], now);
        let mut out = Vec::new();
        discovery.receive(P1, &frame_of("s2", 20, Some((&key, 1))), now, 1, &mut out);
        assert_eq!(out, [Output::Neighbor(P1, neighbor("s2"))]);
        out.clear();
        // Who gets keys shows it at once, where it matters.
        discovery.set_keys(vec![key.clone()], now, &mut out);
        assert_eq!(out, [Output::Send(P1)]);
        out.clear();
        discovery.set_keys(Vec::new(), now, &mut out);
        discovery.receive(P1, &frame_of("s2", 20, None), now, 1, &mut out);
        assert_eq!((out, discovery.counts.unauthenticated), (vec![], 1));
    }

    #[test]
    fn a_port_that_talks_too_much_is_not_listened_to_for_a_second() {
        let start = Instant::now();
        let mut discovery = with_keys(&[], start);
        let mut out = Vec::new();
        let frame = frame_of("s2", 20, None);
        for _ in 0..=PER_SECOND {
            out.clear();
            discovery.receive(P2, &frame, start, 0, &mut out);
        }
        assert_eq!(out, [Output::Mute(P2, true)]);
        out.clear();
        // What was under way, and its neighbor.
        discovery.receive(P2, &frame, start, 0, &mut out);
        discovery.receive(P1, &frame, start, 0, &mut out);
        assert_eq!(out, [Output::Neighbor(P1, neighbor("s2"))]);
        assert_eq!(discovery.counts.limited, 2);
        out.clear();
        let later = discovery.deadline().unwrap();
        assert_eq!(later, start + Duration::from_secs(1));
        discovery.tick(later, &mut out);
        assert_eq!(out, [Output::Send(P1), Output::Send(P2), Output::Mute(P2, false)]);
        out.clear();
        discovery.receive(P2, &frame_of("s3", 20, None), later, 0, &mut out);
        assert_eq!(out, [Output::Neighbor(P2, neighbor("s3"))]);
    }
}
