//! How long a cut interrupts what a switch forwards, with nobody but its own agent's guard
//! there to see it: no controller.
//!
//! Two switches, joined twice. Frames go in at the first at 100,000 a second and out of the
//! second; one link is cut, and the frames that are missing in the end, at 10 us each, are the
//! interruption. The carrier is lost when the far end's interface is taken down. Frames vanish
//! in silence when the far end does not poll for any.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{MsgFlags, sendto, setsockopt, sockopt};
use selvedge_dataplane::backend::xdp::XdpTables;
use selvedge_dataplane::guard::{Guard, Probes, probe};
use selvedge_dataplane::ports::table::{Link, Port};
use selvedge_pipeline::PortId;
use selvedge_xdp::common::value::PortCounters;
use selvedge_xdp::{
    Backup, Delivery, Direction, Endpoint, Generator, Interface, LocalSid, NextHop, Options,
    Policy, PortKind, Route, RouteAction, Switch, Table,
};
use serde_json::Value;
use tokio::sync::watch;

use crate::net::{self, Far, interface, ip, mac_text};
use crate::report::row;

/// Cuts of each kind.
const CARRIER_CUTS: usize = 200;
const SILENT_CUTS: usize = 50;
/// Times that the carrier comes and goes in a row, faster than damping lets the link come back.
const FLAPS: usize = 1_000;
/// A link that flapped is up again within this: what it is held down for at most, and its answers.
const CALM: Duration = Duration::from_secs(5);
/// Between two frames.
const GAP: Duration = Duration::from_micros(10);
/// Frames are sent for so long before a cut, at least, and after.
const BEFORE: Duration = Duration::from_millis(150);
const AFTER: Duration = Duration::from_millis(150);

const ACCESS: u16 = 1;
const FIRST: u16 = 2;
const SECOND: u16 = 3;
const NEAR_NODE: u16 = 1;
const FAR_NODE: u16 = 2;
/// `uDT46`.
const DECAPSULATE: u16 = 0xE001;
const SLICE: u16 = 2;
const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfd10, 1, 0, 0, 0, 0, 0, 1);
const DESTINATION: Ipv6Addr = Ipv6Addr::new(0xfd10, 2, 0, 0, 0, 0, 0, 1);

/// Of an interface, by its number.
const fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 3, number]
}

/// (name, number) of both ends of each cable, and whether an end is in the far switch's or the
/// hosts' namespace.
const HOST: (&str, u8) = ("host", 1);
const IN: (&str, u8) = ("in", 2);
const NEAR: [(&str, u8); 2] = [("n1", 3), ("n2", 4)];
const FAR: [(&str, u8); 2] = [("f1", 5), ("f2", 6)];
const OUT: (&str, u8) = ("out", 7);
const SINK: (&str, u8) = ("sink", 8);

pub(crate) fn run() -> Result<Vec<Value>> {
    net::isolate()?;
    let (beyond, hosts) = (Far::new()?, Far::new()?);
    cables(&beyond, &hosts)?;
    let near = near()?;
    let far = beyond.run(far)?;
    let out = beyond.run(|| interface(OUT.0, mac(OUT.1)))?;
    let generator = Generator::new(&far, &out)?;
    let _sink = hosts.run(|| Ok(generator.sink(&interface(SINK.0, mac(SINK.1))?)?))?;
    let mut bed = Bed { near, far, beyond: &beyond, hosts: &hosts };

    let down = format!("link set {} down", FAR[0].0);
    let mut carrier = bed.cuts(CARRIER_CUTS, |bed| bed.beyond.run(|| ip(&down)))?;
    let mut silent = bed.cuts(SILENT_CUTS, |bed| Ok(bed.far.detach(FIRST)?))?;
    bed.flaps(FLAPS)?;
    for of in [&mut carrier, &mut silent] {
        of.sort_by(f64::total_cmp);
    }
    let at = |of: &[f64], share: f64| of[(of.len() as f64 * share) as usize];
    for (what, of) in [("no carrier", &carrier), ("silence", &silent)] {
        println!(
            "{what}: {} cuts, interrupted for {:.2} ms (p50), {:.2} ms (p99), {:.2} ms (most)",
            of.len(),
            at(of, 0.5),
            at(of, 0.99),
            of[of.len() - 1]
        );
    }
    let row = |name, value, target| row(name, value, "ms", "lower", ("target", target));
    Ok(vec![
        row("cut_carrier_p50_ms", at(&carrier, 0.5), 1.0),
        row("cut_carrier_p99_ms", at(&carrier, 0.99), 5.0),
        row("cut_silent_ms", silent[silent.len() - 1], 50.0),
    ])
}

fn cables(beyond: &Far, hosts: &Far) -> Result<()> {
    let (beyond_tid, hosts_tid) = (beyond.tid(), hosts.tid());
    let end =
        |(name, number): (&str, u8)| format!("{name} mtu 1600 address {}", mac_text(mac(number)));
    ip(&format!("link add {} type veth peer name {} netns {hosts_tid}", end(IN), end(HOST)))?;
    for (near, far) in NEAR.into_iter().zip(FAR) {
        ip(&format!("link add {} type veth peer name {} netns {beyond_tid}", end(near), end(far)))?;
    }
    beyond.run(|| {
        ip(&format!("link add {} type veth peer name {} netns {hosts_tid}", end(OUT), end(SINK)))
    })?;
    let up = |ends: &[(&str, u8)]| {
        ends.iter().try_for_each(|(name, _)| ip(&format!("link set {name} up")))
    };
    let quiet = || {
        net::ipv6_conf("all/disable_ipv6", "1")
            .and_then(|()| net::ipv6_conf("default/disable_ipv6", "1"))
    };
    quiet()?;
    up(&[IN, NEAR[0], NEAR[1]])?;
    beyond.run(|| quiet().and_then(|()| up(&[OUT, FAR[0], FAR[1]])))?;
    hosts.run(|| quiet().and_then(|()| up(&[HOST, SINK])))
}

fn switch(name: &str, ports: [(&str, u8); 3]) -> Result<Switch> {
    let pin_dir = PathBuf::from("/sys/fs/bpf/selvedge").join(name);
    let mut switch = Switch::open(&Options { pin_dir, metering: false })?;
    for (port, (name, number)) in [ACCESS, FIRST, SECOND].into_iter().zip(ports) {
        switch.attach(port, &interface(name, mac(number))?)?;
        let kind = if port == ACCESS { PortKind::Access } else { PortKind::Fabric };
        switch.port.put(port, &kind)?;
    }
    Ok(switch)
}

/// Where frames enter: the first link is its next hop, the second the way around.
fn near() -> Result<Switch> {
    let switch = switch("near", [IN, NEAR[0], NEAR[1]])?;
    switch.local_sid.put(NEAR_NODE, &LocalSid::Node)?;
    switch.next_hop.put(FAR_NODE, &NextHop { port: FIRST, mac: mac(FAR[0].1), backup: 1 })?;
    let around = Backup { port: SECOND, mac: mac(FAR[1].1), sids: Vec::new() };
    switch.backup.put((FIRST, 1), &around)?;
    switch.policy.put(1, &Policy::one(&[FAR_NODE, DECAPSULATE]))?;
    let endpoint = Endpoint { slice_set: 1, direction: Direction::Uplink, endpoint: 0, tag: 0 };
    switch.endpoint.put((ACCESS, ipnet(SOURCE)), &endpoint)?;
    let route = Route { slice: SLICE, action: RouteAction::Policy(1), endpoint: 0 };
    switch.route.put((1, ipnet(DESTINATION)), &route)?;
    Ok(switch)
}

/// Where they leave.
fn far() -> Result<Switch> {
    let switch = switch("far", [OUT, FAR[0], FAR[1]])?;
    switch.local_sid.put(FAR_NODE, &LocalSid::Node)?;
    switch.local_sid.put(DECAPSULATE, &LocalSid::Decapsulate)?;
    let delivery = Delivery { port: ACCESS, mac: mac(SINK.1), tunnel: None };
    switch.delivery.put((SLICE, ipnet(DESTINATION)), &delivery)?;
    Ok(switch)
}

fn ipnet(address: Ipv6Addr) -> ipnet::IpNet {
    std::net::IpAddr::V6(address).into()
}

/// UDP, from the host to its gateway.
fn frame() -> Vec<u8> {
    let mut frame = mac(IN.1).to_vec();
    frame.extend(mac(HOST.1));
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 10, 17, 64]);
    frame.extend(SOURCE.octets());
    frame.extend(DESTINATION.octets());
    frame.extend([40_000u16, 5001, 10, 0xbeef, 0].into_iter().flat_map(u16::to_be_bytes));
    frame
}

struct Bed<'a> {
    near: Switch,
    far: Switch,
    beyond: &'a Far,
    hosts: &'a Far,
}

impl Bed<'_> {
    /// Milliseconds of each of so many interruptions.
    fn cuts(&mut self, count: usize, cut: impl Fn(&mut Self) -> Result<()>) -> Result<Vec<f64>> {
        (0..count).map(|n| self.one(n, &cut)).collect()
    }

    fn one(&mut self, n: usize, cut: impl Fn(&mut Self) -> Result<()>) -> Result<f64> {
        self.mend()?;
        let silent = self.guarded()?;
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let (before, _) = self.hosts.received(SINK.0)?;
        let hosts = self.hosts;
        thread::scope(|scope| -> Result<()> {
            let sending = scope.spawn(|| hosts.run(|| send(&stop, &sent)));
            // Not always at the same time after a test packet.
            thread::sleep(BEFORE + Duration::from_micros(n as u64 * 1_700 % 10_000));
            let done = cut(self);
            thread::sleep(AFTER);
            stop.store(true, Ordering::Relaxed);
            sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            done
        })?;
        drop(silent);
        let sent = sent.load(Ordering::Relaxed);
        let arrived = self.settled()? - before;
        ensure!(arrived <= sent, "{arrived} frames arrived of {sent}");
        ensure!(!self.near.port_states.is_up(FIRST)?, "the cut was not noticed");
        Ok((sent - arrived) as f64 * GAP.as_secs_f64() * 1e3)
    }

    /// The carrier goes and comes back so many times while frames flow. No frame goes in circles, none
    /// goes twice, and no entry is left over.
    fn flaps(&mut self, count: usize) -> Result<()> {
        self.mend()?;
        let silent = self.guarded()?;
        let before = [Seen::of(&self.near)?, Seen::of(&self.far)?];
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let (sunk, _) = self.hosts.received(SINK.0)?;
        let (hosts, name) = (self.hosts, FAR[0].0);
        thread::scope(|scope| -> Result<()> {
            let sending = scope.spawn(|| hosts.run(|| send(&stop, &sent)));
            let flapped = (0..count).try_for_each(|n| {
                let change = |state| self.beyond.run(|| ip(&format!("link set {name} {state}")));
                change("down")?;
                thread::sleep(Duration::from_micros(n as u64 * 1_700 % 9_000));
                change("up")?;
                thread::sleep(Duration::from_micros(n as u64 * 2_300 % 9_000));
                Ok(())
            });
            stop.store(true, Ordering::Relaxed);
            sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            flapped
        })?;
        let calm = Instant::now();
        while !self.near.port_states.is_up(FIRST)? {
            ensure!(
                calm.elapsed() < CALM,
                "the link is not used again {CALM:?} after its last flap"
            );
            thread::sleep(Duration::from_millis(5));
        }
        let calm = calm.elapsed();
        drop(silent);
        let sent = sent.load(Ordering::Relaxed);
        let arrived = self.settled()? - sunk;
        let [near, far] = [Seen::of(&self.near)?, Seen::of(&self.far)?];
        for (now, before) in [&near, &far].into_iter().zip(&before) {
            ensure!(now.entries == before.entries, "there are other entries than before");
            ensure!(now.circling == before.circling, "frames went in circles");
        }
        let way = [
            sent,
            near.access[0] - before[0].access[0],
            near.outer[1] - before[0].outer[1],
            far.outer[0] - before[1].outer[0],
            far.access[1] - before[1].access[1],
            arrived,
        ];
        ensure!(way.is_sorted_by(|from, to| from >= to), "more frames went on than came: {way:?}");
        println!(
            "{count} flaps: {sent} frames, {:.3} % of them lost, none in circles, none twice; no \
             entry more or less; the link in use {:.1} s after the last",
            100.0 * (sent - arrived) as f64 / sent as f64,
            calm.as_secs_f64()
        );
        Ok(())
    }

    /// The link as it was before it was cut.
    fn mend(&mut self) -> Result<()> {
        let (name, number) = FAR[0];
        let far = &mut self.far;
        self.beyond.run(|| {
            ip(&format!("link set {name} up"))?;
            Ok(far.attach(FIRST, &interface(name, mac(number))?)?)
        })?;
        Ok(self.near.port_states.set(FIRST, true)?)
    }

    /// A guard that has had answers. It ends with what is returned.
    fn guarded(&self) -> Result<(watch::Receiver<BTreeSet<PortId>>, impl Sized + use<>)> {
        let port = |port: u16, (name, number): (&str, u8)| -> Result<(PortId, Port)> {
            let Interface { index, .. } = interface(name, mac(number))?;
            let (name, mac) = (name.to_owned(), Some(mac(number)));
            let link = Link {
                ifindex: index,
                name: name.clone(),
                mac,
                up: true,
                is_veth: true,
                far: None,
            };
            Ok((PortId(port), Port { name, link }))
        };
        let ports = BTreeMap::from([port(FIRST, NEAR[0])?, port(SECOND, NEAR[1])?]);
        let (told, ports) = watch::channel(ports);
        let (silent, is_silent) = watch::channel(BTreeSet::new());
        let guard = Guard {
            tables: XdpTables::of(&self.near),
            states: self.near.port_states.clone(),
            answers: self.near.probes.clone(),
            counters: self.near.counters.clone(),
            ports,
            interval: probe::INTERVAL,
            probes: Probes::default(),
            silent,
        };
        let ended = guard.start()?;
        Ok((is_silent, (told, ended)))
    }

    /// The sink's counter once it stands still.
    fn settled(&self) -> Result<u64> {
        let (mut before, _) = self.hosts.received(SINK.0)?;
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(2));
            let (now, _) = self.hosts.received(SINK.0)?;
            if now == before {
                break;
            }
            before = now;
        }
        Ok(before)
    }
}

/// What a switch holds and has counted.
struct Seen {
    /// But for test packets and what is counted.
    entries: Vec<selvedge_xdp::RawEntry>,
    /// Of users' frames: at the access port, and in an outer header, in and out.
    access: [u64; 2],
    outer: [u64; 2],
    circling: u64,
}

impl Seen {
    fn of(switch: &Switch) -> Result<Self> {
        let counters = &switch.counters;
        let mut entries = switch.raw_entries()?;
        entries.retain(|entry| !["PROBE", "PORT_STATE"].contains(&entry.map));
        let [access, first, second] = [ACCESS, FIRST, SECOND].map(|port| counters.port(port));
        let (access, fabric) = (access?, [first?, second?]);
        let sum = |of: fn(&PortCounters) -> [u64; 2]| fabric.iter().flat_map(of).sum();
        let circling = counters.named_drops()?.into_iter().find(|(name, _)| *name == "hop_limit");
        Ok(Self {
            entries,
            access: [access.rx_packets, access.left_packets],
            outer: [sum(|port| port.rx_marked), sum(|port| port.tx_marked)],
            circling: circling.map_or(0, |(_, count)| count),
        })
    }
}

/// One frame each [`GAP`], until told to stop; this processor does nothing else.
fn send(stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    net::stay_on_one_cpu()?;
    let socket = net::packet_socket()?;
    setsockopt(&socket, sockopt::SndBuf, &(4 << 20)).context("make room in a socket")?;
    let link = net::link_address(HOST.0)?;
    let frame = frame();
    let begun = Instant::now();
    for n in 0.. {
        while begun.elapsed() < GAP * n {
            std::hint::spin_loop();
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        sendto(socket.as_raw_fd(), &frame, &link, MsgFlags::empty()).context("send a frame")?;
        sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
