//! Whether a guaranteed slice keeps its rate while neighbors flood the port, how long its packets
//! wait, and whether what it leaves idle is used.
//!
//! One switch; behind its egress port a wire that does not take more than its rate: a token bucket
//! of the kernel's (tc-tbf(8)), which knows nothing of slices. The slice sends just below its
//! guarantee; 1, 10 and 100 neighbors together ten times what the wire takes.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::socket::{MsgFlags, bind, recv, sendto, setsockopt, sockopt};
use selvedge_slices::{Class as SliceClass, Direction as SliceDirection, Ledger, Object, parse};
use selvedge_topology::{BitRate, Snapshot, read};
use selvedge_xdp::{
    Class, Delivery, Direction, Endpoint, Meter, Options, PortKind, Queue, Route, RouteAction,
    Switch, Table, offload,
};
use serde_json::Value;

use crate::admission::Net;
use crate::net::{self, Far, interface, ip, mac_text};
use crate::report::row;

/// Of the wire; the switch's virtual queue drains at 97 % of it.
const WIRE_BPS: u64 = 100_000_000;
const USABLE_BPS: u64 = 97_000_000;
const GUARANTEED_BPS: u64 = 20_000_000;
/// The slice's, and together its neighbors'.
const OFFERED_BPS: u64 = 19_800_000;
const FLOOD_BPS: u64 = 10 * WIRE_BPS;
const NEIGHBORS: [u16; 3] = [1, 10, 100];
const SAMPLE: Duration = Duration::from_secs(3);
/// Bytes of every packet; its frame has an Ethernet header more.
const PACKET: usize = 1500;
const ETHERNET_LEN: usize = 14;
/// Between looks at what is due.
const TICK: Duration = Duration::from_micros(200);

/// What the switch has before it, as its controller would see it.
const WIRE: &str = "\
name: wire
topology:
  nodes: { near: { kind: switch }, far: { kind: switch } }
  links: [{ endpoints: [near:p1, far:p1], capacity: 100Mbps }]
";
const SLICE_FILE: &str = "\
apiVersion: selvedge/v1
kind: NetworkSlice
metadata: { name: wire }
spec:
  sNssai: { sst: 2 }
  uplink: { guaranteed: 20Mbps }
  endpoints: [{ ue: h0 }, { dn: h1 }]
";

const ACCESS: u16 = 1;
const OUT: u16 = 2;
/// Of the slice; the neighbors' has no meter.
const SLICE: u16 = 2;
const OTHERS: u16 = 1;
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const DESTINATION: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);

const fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 5, number]
}

pub(crate) fn run() -> Result<Vec<Value>> {
    net::isolate()?;
    let (hosts, wire) = (Far::new()?, Far::new()?);
    cables(&hosts, &wire)?;
    let urllc = SliceClass::Urllc;
    let burst = urllc.default_burst(BitRate(GUARANTEED_BPS)).0;
    let _switch = switch(u32::try_from(burst)?)?;
    let bound_ms = promised_ms()?;

    let (mut kept, mut over) = (f64::INFINITY, f64::NEG_INFINITY);
    println!(
        "{:>10} {:>10} {:>8} {:>12} {:>14}",
        "neighbors", "flood", "kept", "p99 delay", "bound"
    );
    for neighbors in NEIGHBORS {
        let seen = drive(&hosts, &wire, true, neighbors)?;
        let share = seen.of_slice as f64 / seen.sent as f64;
        let p99_ms = seen.p99_ms();
        let flood =
            seen.flooded as f64 * (PACKET * 8) as f64 / SAMPLE.as_secs_f64() / WIRE_BPS as f64;
        println!(
            "{neighbors:>10} {flood:>7.1} x {:>7.2}% {p99_ms:>9.2} ms {bound_ms:>11.2} ms",
            share * 100.0
        );
        ensure!(flood > 5.0, "this machine cannot flood the wire: {flood:.1} times what it takes");
        (kept, over) = (kept.min(share), over.max(p99_ms - bound_ms));
    }
    let seen = drive(&hosts, &wire, false, 10)?;
    let used = seen.others as f64 * ((PACKET + ETHERNET_LEN) * 8) as f64
        / SAMPLE.as_secs_f64()
        / USABLE_BPS as f64;
    println!("while the slice is idle its neighbors use {:.1} % of the port", used * 100.0);
    Ok(vec![
        row("flooded_rate_kept", kept, "of what is sent", "higher", ("target", 0.99)),
        row("idle_reused", used, "of the port", "higher", ("target", 0.95)),
        row("flooded_delay_over_bound_ms", over, "ms", "lower", ("target", 1.0)),
    ])
}

/// The delay bound that `explain` prints of a slice like this one over a wire like this one.
fn promised_ms() -> Result<f64> {
    let read = read::from_str("wire.yaml", WIRE, read::Format::Selvedge);
    let topology = read.map_err(|problems| anyhow!("{problems}"))?.topology;
    let net = Net::of(Snapshot::new(Arc::new(topology), 1));
    let objects = parse("slice.yaml", SLICE_FILE).map_err(|problems| anyhow!("{problems}"))?;
    let mut ledger = Ledger::new();
    for object in &objects {
        let Object::NetworkSlice(slice) = object else { bail!("{object:?} is no slice") };
        ledger.admit(&net.network(), slice).map_err(|refusal| anyhow!("{refusal}"))?;
    }
    let explained = ledger.explain(&net.network(), "wire").context("a slice of that name")?;
    let mut uplink = explained.paths.into_iter().filter(|p| p.direction == SliceDirection::Uplink);
    let bound = uplink.next().and_then(|path| path.delay).context("a bound of the uplink")?;
    Ok(bound.total.us() as f64 / 1e3)
}

/// host - in, out - far [redirect] w0 [token bucket] - w1.
fn cables(hosts: &Far, wire: &Far) -> Result<()> {
    let end = |name: &str, number| format!("{name} address {}", mac_text(mac(number)));
    let (hosts_tid, wire_tid) = (hosts.tid(), wire.tid());
    ip(&format!(
        "link add {} type veth peer name {} netns {hosts_tid}",
        end("in", 1),
        end("host", 2)
    ))?;
    ip(&format!(
        "link add {} type veth peer name {} netns {wire_tid}",
        end("out", 3),
        end("far", 4)
    ))?;
    ip("link set in up")?;
    ip("link set out up")?;
    let quiet = || net::ipv6_conf("all/disable_ipv6", "1");
    hosts.run(|| {
        quiet()?;
        ip("link set host up")?;
        Ok(offload::prepare_veth("host")?)
    })?;
    wire.run(|| {
        quiet()?;
        ip(&format!("link add {} type veth peer name {}", end("w0", 5), end("w1", 6)))?;
        for name in ["far", "w0", "w1"] {
            ip(&format!("link set {name} up"))?;
        }
        offload::prepare_veth("far")?;
        tc("qdisc add dev far clsact")?;
        tc("filter add dev far ingress protocol all prio 1 u32 match u32 0 0 \
            action mirred egress redirect dev w0")?;
        tc(&format!("qdisc add dev w0 root tbf rate {WIRE_BPS} burst 4kb limit 2mb"))
    })
}

fn tc(args: &str) -> Result<()> {
    let output = Command::new("tc").args(args.split_whitespace()).output();
    let output = output.context("start tc (Debian: apt-get install iproute2)")?;
    if !output.status.success() {
        bail!("tc {args}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

fn switch(burst_bytes: u32) -> Result<Switch> {
    let pin_dir = PathBuf::from("/sys/fs/bpf/selvedge/bench");
    let mut switch = Switch::open(&Options { pin_dir, metering: true })?;
    switch.attach(ACCESS, &interface("in", mac(1))?)?;
    switch.attach(OUT, &interface("out", mac(3))?)?;
    switch.port.put(ACCESS, &PortKind::Access)?;
    switch.port.put(OUT, &PortKind::Access)?;
    let to = std::net::IpAddr::V4(DESTINATION).into();
    for (slice, sources) in [(SLICE, vec![SOURCE]), (OTHERS, (0..100).map(neighbor).collect())] {
        let route = Route { slice, action: RouteAction::Local, endpoint: 0 };
        switch.route.put((slice, to), &route)?;
        let delivery = Delivery { port: OUT, mac: mac(6), tunnel: None };
        switch.delivery.put((slice, to), &delivery)?;
        let endpoint =
            Endpoint { slice_set: slice, direction: Direction::Uplink, endpoint: 0, tag: 0 };
        for source in sources {
            let source = std::net::IpAddr::V4(source).into();
            switch.endpoint.put((ACCESS, source), &endpoint)?;
        }
    }
    let meter = Meter {
        class: Class::Urllc,
        guaranteed_bps: GUARANTEED_BPS,
        guaranteed_burst_bytes: burst_bytes,
        maximum_bps: 0,
        maximum_burst_bytes: 0,
    };
    switch.meter.put((SLICE, Direction::Uplink), &meter)?;
    let threshold = |class: SliceClass| class.threshold(BitRate(USABLE_BPS)).0;
    let threshold_bytes = SliceClass::ALL.map(|c| u32::try_from(threshold(c)).unwrap_or(u32::MAX));
    switch.queue.put(OUT, &Queue { rate_bps: USABLE_BPS, threshold_bytes, shaped_bps: [0; 3] })?;
    Ok(switch)
}

fn neighbor(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 1, 1 + high, low)
}

/// A UDP frame; what its packet begins with behind the headers is when it was sent.
fn frame(source: Ipv4Addr) -> Vec<u8> {
    let len = u16::try_from(PACKET).expect("a packet");
    let mut frame = [&mac(1)[..], &mac(2), &[8, 0, 0x45, 0]].concat();
    frame.extend(len.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(source.octets());
    frame.extend(DESTINATION.octets());
    frame.extend([0x9c, 0x40, 0x13, 0x89]);
    frame.extend((len - 20).to_be_bytes());
    frame.resize(PACKET + ETHERNET_LEN, 0);
    frame
}

const SENT_AT: usize = ETHERNET_LEN + 28;

#[derive(Debug, Default)]
struct Seen {
    /// Of the slice.
    sent: u64,
    /// Of its neighbors.
    flooded: u64,
    of_slice: u64,
    others: u64,
    delays: Vec<Duration>,
}

impl Seen {
    fn p99_ms(&self) -> f64 {
        let mut delays = self.delays.clone();
        delays.sort_unstable();
        delays.get(delays.len() * 99 / 100).map_or(f64::INFINITY, Duration::as_secs_f64) * 1e3
    }
}

/// Sends for [`SAMPLE`], and waits for what is on its way.
fn drive(hosts: &Far, wire: &Far, slice: bool, neighbors: u16) -> Result<Seen> {
    let (epoch, stop) = (Instant::now(), AtomicBool::new(false));
    let receiver = wire.run(receiver)?;
    let seen = std::thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&receiver, epoch, &stop));
        let sent = hosts.run(|| send(epoch, slice, neighbors));
        // The wire holds what it takes in a fifth of a second at most.
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        let seen = receiving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let ((sent, flooded), seen) = (sent?, seen?);
        anyhow::Ok(Seen { sent, flooded, ..seen })
    })?;
    ensure!(seen.others > 0, "nothing of the flood arrived");
    Ok(seen)
}

/// How many packets were sent, of the slice and of its neighbors.
fn send(epoch: Instant, slice: bool, neighbors: u16) -> Result<(u64, u64)> {
    let socket = net::packet_socket()?;
    setsockopt(&socket, sockopt::SndBuf, &(8 << 20)).context("enlarge a socket's buffer")?;
    let link = net::link_address("host")?;
    let mut own = frame(SOURCE);
    let flood: Vec<_> = (0..neighbors).map(|n| frame(neighbor(n))).collect();
    let due = |bps: u64, since: Duration| {
        let bits = u128::from(bps) * since.as_nanos() / 1_000_000_000;
        u64::try_from(bits).expect("seconds") / (PACKET as u64 * 8)
    };
    let (mut sent, mut flooded, mut left_out) = (0, 0, 0);
    let begun = Instant::now();
    while begun.elapsed() < SAMPLE {
        let since = begun.elapsed();
        while slice && sent < due(OFFERED_BPS, since) {
            let now = u64::try_from(epoch.elapsed().as_nanos()).expect("seconds");
            own[SENT_AT..SENT_AT + 8].copy_from_slice(&now.to_be_bytes());
            sendto(socket.as_raw_fd(), &own, &link, MsgFlags::empty()).context("send a frame")?;
            sent += 1;
        }
        // What a slow machine cannot send in time it leaves out.
        left_out += due(FLOOD_BPS, since).saturating_sub(flooded + left_out + 64);
        while flooded + left_out < due(FLOOD_BPS, since) {
            let frame = &flood[flooded as usize % flood.len()];
            sendto(socket.as_raw_fd(), frame, &link, MsgFlags::empty()).context("send a frame")?;
            flooded += 1;
        }
        while begun.elapsed() < since + TICK {
            std::hint::spin_loop();
        }
    }
    Ok((sent, flooded))
}

/// Hears what comes out of the wire.
fn receiver() -> Result<OwnedFd> {
    let socket = net::packet_socket()?;
    setsockopt(&socket, sockopt::RcvBuf, &(8 << 20)).context("enlarge a socket's buffer")?;
    let timeout = nix::sys::time::TimeVal::new(0, 20_000);
    setsockopt(&socket, sockopt::ReceiveTimeout, &timeout).context("limit a wait")?;
    bind(socket.as_raw_fd(), &net::link_address("w1")?).context("bind a packet socket")?;
    Ok(socket)
}

fn receive(socket: &OwnedFd, epoch: Instant, stop: &AtomicBool) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut frame = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let len = match recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            Ok(len) => len,
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(errno).context("receive a frame"),
        };
        if len < PACKET + ETHERNET_LEN || frame[12..14] != [8, 0] {
            continue;
        }
        if frame[ETHERNET_LEN + 12..][..4] != SOURCE.octets() {
            seen.others += 1;
            continue;
        }
        let at: [u8; 8] = frame[SENT_AT..SENT_AT + 8].try_into().expect("eight bytes");
        seen.of_slice += 1;
        let sent = Duration::from_nanos(u64::from_be_bytes(at));
        seen.delays.push(epoch.elapsed().saturating_sub(sent));
    }
    Ok(seen)
}
