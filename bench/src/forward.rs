//! What the ingress path costs: the same frames, from the same interface to the same veth pair,
//! through the whole pipeline, through a bare XDP redirect, and through the kernel's own SRv6
//! encapsulation; and the encapsulated frames through a transit and an egress switch. Then what
//! comes from and goes to UEs, in and out of GTP-U, with 100,000 PDU sessions in the tables, and
//! whether it matters how many of them the packets are of.
//!
//! One CPU does it all: it makes the frames, runs the program under test (or the kernel's
//! stack) and receives what comes out. So a figure is the cost of a whole hop, and a ratio to
//! the bare redirect is closer to 1 than that of the programs alone. What enters is of 4,096 flows
//! that hit 1,000 classifier rules evenly; what is encapsulated already is of one. Sessions meet
//! no rules. Frames are the smallest, so that only the work for each packet counts.
//!
//! Seconds are those of the kernel's own account of a run, which leaves out how long it takes to
//! begin and to end one, and the time given to others where the kernel is not preempted; so the
//! figures hold still on a busy machine too.
//!
//! Each is received as is cheapest for it: what is redirected is dropped by an XDP program;
//! what the kernel sends is dropped by its IPv6 for the address of the frame, since it would be
//! copied for an XDP program.

use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use selvedge_xdp::{
    Class, Delivery, Direction, Endpoint, Generator, Interface, LocalSid, Meter, NextHop, Options,
    Policy, PortKind, Queue, Route, RouteAction, Switch, Table, UnderTest,
};

use self::flows::{DESTINATIONS, FLOWS, Flow, RULES, SOURCES, rule};
use self::sessions::{SESSIONS, Spread};
use crate::net::{self, Far, interface, ip, ipv6_conf, mac_text};
use crate::report::Row;

mod flows;
mod sessions;

/// Repetitions of each case, taken in turns; the median counts.
const ROUNDS: usize = 7;
/// How long a case is driven in each round, and before the first.
const SAMPLE: Duration = Duration::from_millis(400);
const WARM_UP: Duration = Duration::from_millis(100);
/// Frames of one system call.
const CHUNK: u32 = 262_144;
/// More than arrives here by far: nothing is over a rate.
const RATE_BPS: u64 = 100_000_000_000;
const BURST_BYTES: u32 = 1_000_000;

const IN_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
const OUT_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
const SINK_MAC: [u8; 6] = [2, 0, 0, 0, 2, 3];
/// Of the next hop; not the sink's, so that the kernel there drops at once.
const NEXT_MAC: [u8; 6] = [2, 0, 0, 0, 2, 2];

const ETHERNET_LEN: usize = 14;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const FRAME_LEN: usize = 64;
/// What an encapsulated frame is longer by: the outer header, or IPv4, UDP and GTP-U with a PDU
/// session container.
const OUTER_LEN: usize = 40;
const TUNNEL_LEN: usize = 20 + 8 + 16;
/// Of what a UE sends: IPv4 and UDP.
const USER_LEN: usize = 20 + 8;
/// Next header of an outer header.
const IPV6: u8 = 41;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    name: &'static str,
    what: &'static str,
    under_test: UnderTest,
    traffic: Traffic,
    frame_out: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    /// Frames of all flows, from the access port.
    Bare,
    /// One flow's, in an outer header to this node.
    Encapsulated(u16),
    /// From UEs, by way of their gNB.
    Uplink(Spread),
    /// To UEs, from another switch.
    Downlink(Spread),
}

impl Traffic {
    fn frames(self) -> Vec<Vec<u8>> {
        let of = |spread: Spread, frame: fn(u32) -> Vec<u8>| {
            spread.sequence().into_iter().map(frame).collect()
        };
        match self {
            Self::Bare => flows::flows().map(|flow| flow.frame().to_vec()).collect(),
            Self::Encapsulated(node) => {
                let flow = Flow { source: 1, destination: 1, ports: [40_000, 5_001] };
                vec![encapsulated(node, IPV6, &flow.frame()[ETHERNET_LEN..])]
            }
            Self::Uplink(spread) => of(spread, sessions::uplink),
            Self::Downlink(spread) => of(spread, sessions::downlink),
        }
    }
}

const REDIRECT: Case = Case {
    name: "xdp_redirect",
    what: "bare XDP redirect",
    under_test: UnderTest::Redirect,
    traffic: Traffic::Bare,
    frame_out: FRAME_LEN,
};
const INGRESS: Case = Case {
    name: "ingress",
    what: "Selvedge, ingress with encapsulation",
    under_test: UnderTest::Pipeline,
    traffic: Traffic::Bare,
    frame_out: FRAME_LEN + OUTER_LEN,
};
const KERNEL: Case = Case {
    name: "kernel_seg6_encap_red",
    what: "kernel, seg6 encap.red",
    under_test: UnderTest::Kernel,
    traffic: Traffic::Bare,
    frame_out: FRAME_LEN + OUTER_LEN,
};
const TRANSIT: Case = Case {
    name: "transit",
    what: "Selvedge, transit",
    under_test: UnderTest::Pipeline,
    traffic: Traffic::Encapsulated(NEXT_NODE),
    frame_out: FRAME_LEN + OUTER_LEN,
};
const EGRESS: Case = Case {
    name: "egress",
    what: "Selvedge, egress with delivery",
    under_test: UnderTest::Pipeline,
    traffic: Traffic::Encapsulated(OWN_NODE),
    frame_out: FRAME_LEN,
};
const CASES: [Case; 5] = [REDIRECT, INGRESS, KERNEL, TRANSIT, EGRESS];

const fn uplink(name: &'static str, what: &'static str, spread: Spread) -> Case {
    Case {
        name,
        what,
        under_test: UnderTest::Pipeline,
        traffic: Traffic::Uplink(spread),
        frame_out: ETHERNET_LEN + OUTER_LEN + USER_LEN,
    }
}

const fn downlink(name: &'static str, what: &'static str, spread: Spread) -> Case {
    Case {
        name,
        what,
        under_test: UnderTest::Pipeline,
        traffic: Traffic::Downlink(spread),
        frame_out: ETHERNET_LEN + TUNNEL_LEN + USER_LEN,
    }
}

const SESSION_CASES: [Case; 9] = [
    REDIRECT,
    uplink("gtpu_uplink", "Selvedge, GTP-U into SRv6", Spread::Single),
    downlink("gtpu_downlink", "Selvedge, SRv6 into GTP-U", Spread::Single),
    uplink("one_session_uplink", "  uplink, one session", Spread::One),
    uplink("sessions_uplink_uniform", "  uplink, of all alike", Spread::Uniform),
    uplink("sessions_uplink_zipf", "  uplink, by Zipf", Spread::Zipf),
    downlink("one_session_downlink", "  downlink, one session", Spread::One),
    downlink("sessions_downlink_uniform", "  downlink, of all alike", Spread::Uniform),
    downlink("sessions_downlink_zipf", "  downlink, by Zipf", Spread::Zipf),
];

const OWN_NODE: u16 = 1;
const NEXT_NODE: u16 = 2;
/// `uDT46`.
const DECAPSULATE: u16 = 0xE001;
const SLICE: u16 = 2;
const POLICY: u32 = 1;
const ACCESS: u16 = 1;
const FABRIC: u16 = 2;

/// What one drive of a case came to.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Packets that arrived at the sink, each second of the drive.
    rate: f64,
    sent: u64,
    arrived: u64,
}

pub(crate) fn run() -> Result<Vec<Row>> {
    net::isolate()?;
    let far = Far::new()?;
    let place = Place::new(&far)?;
    kernel_routes()?;
    let cpu = net::stay_on_one_cpu()?;
    let bed = place.bed(&far)?;

    println!("forwarding, {FRAME_LEN}-byte frames, {FLOWS} flows, {RULES} rules, on CPU {cpu}");
    println!("{ROUNDS} rounds of {} ms for each, in turns; medians\n", SAMPLE.as_millis());
    let [redirect, ingress, kernel, transit, egress] = bed.compare(CASES)?;
    let mut rows = vec![
        row("ingress_vs_redirect", ingress, redirect),
        row("ingress_vs_kernel_seg6", ingress, kernel),
        row("transit_vs_redirect", transit, redirect),
        row("egress_vs_redirect", egress, redirect),
    ];

    sessions::install(&place.switch)?;
    println!("\n{SESSIONS} PDU sessions, no rules\n");
    let [redirect, up, down, up_one, up_uniform, up_zipf, down_one, down_uniform, down_zipf] =
        bed.compare(SESSION_CASES)?;
    // Of the direction that does worse.
    let worse = |name, one: [Measured; 2], other: [Measured; 2]| {
        let [one, other] = [one, other].map(|[value, baseline]| row(name, value, baseline));
        if one.ratio() < other.ratio() { one } else { other }
    };
    rows.extend([
        worse("gtpu_vs_redirect", [up, redirect], [down, redirect]),
        worse("sessions_100k_uniform", [up_uniform, up_one], [down_uniform, down_one]),
        worse("sessions_100k_zipf", [up_zipf, up_one], [down_zipf, down_one]),
    ]);
    println!();
    for row in &rows {
        println!("{:<24} {:.2} of {}", row.name, row.ratio(), row.baseline.0);
    }
    Ok(rows)
}

/// A case, and the median of its rates in packets each second.
type Measured = (Case, f64);

fn row(name: &'static str, (_, value): Measured, (case, baseline): Measured) -> Row {
    Row { name, value, unit: "packets/s", baseline: (case.name, baseline) }
}

/// The two veth pairs: host and `in`, `out` and sink.
fn links(far: &Far) -> Result<(Interface, Interface)> {
    let tid = far.tid();
    let [input, host, output, sink] = [IN_MAC, HOST_MAC, OUT_MAC, SINK_MAC].map(mac_text);
    ip("link set lo up")?;
    ip(&format!(
        "link add in address {input} type veth peer name host address {host} netns {tid}"
    ))?;
    ip(&format!(
        "link add out mtu 1600 address {output} type veth \
         peer name sink mtu 1600 address {sink} netns {tid}"
    ))?;
    far.run(|| {
        for end in ["host", "sink"] {
            ipv6_conf(&format!("{end}/disable_ipv6"), "1")?;
            ip(&format!("link set {end} up"))?;
        }
        Ok(())
    })?;
    for end in ["in", "out"] {
        ipv6_conf(&format!("{end}/accept_dad"), "0")?;
        ip(&format!("link set {end} up"))?;
    }
    Ok((interface("in", IN_MAC)?, interface("out", OUT_MAC)?))
}

/// The kernel as the same ingress: one segment list, no routing header, to the same next hop.
fn kernel_routes() -> Result<()> {
    ipv6_conf("all/forwarding", "1")?;
    ip("-6 addr add fd00:1::1/64 dev out nodad")?;
    let next = mac_text(NEXT_MAC);
    ip(&format!("-6 neigh add fd00:1::2 lladdr {next} dev out nud permanent"))?;
    ip("-6 route add 5f00::/32 via fd00:1::2 dev out")?;
    // Else it looks for a source address for each packet.
    ip("sr tunsrc set 5f00:0:1:fffe::")?;
    let encap = "encap seg6 mode encap.red segs 5f00:0:2:e001::";
    ip(&format!("-6 route add fd10:2::/64 {encap} dev out"))
}

/// A switch with an entry for the flow in each table that ingress looks into.
fn switch(input: &Interface, output: &Interface) -> Result<Switch> {
    const BOUND_SET: u16 = 1;
    const RULE_SET: u16 = 2;
    let pin_dir = PathBuf::from("/sys/fs/bpf/selvedge/bench");
    let mut switch = Switch::open(&Options { pin_dir, metering: true })?;
    switch.attach(ACCESS, input)?;
    switch.attach(FABRIC, output)?;
    switch.port.put(ACCESS, &PortKind::Access)?;
    switch.port.put(FABRIC, &PortKind::Fabric)?;
    switch.local_sid.put(OWN_NODE, &LocalSid::Node)?;
    switch.local_sid.put(DECAPSULATE, &LocalSid::Decapsulate)?;
    switch.next_hop.put(NEXT_NODE, &NextHop { port: FABRIC, mac: NEXT_MAC, backup: 0 })?;
    switch.policy.put(POLICY, &Policy::one(&[NEXT_NODE, DECAPSULATE]))?;

    let endpoint =
        Endpoint { slice_set: BOUND_SET, direction: Direction::Uplink, endpoint: 0, tag: 0 };
    for number in 0..SOURCES {
        let prefix = IpAddr::from(flows::source(number)).into();
        switch.endpoint.put((ACCESS, prefix), &endpoint)?;
    }
    let (put, ended) = switch.classifier.batch(|| {
        (0..RULES).try_for_each(|n| switch.classifier.put(RULES - n, &rule(n, RULE_SET).0))
    });
    put.and(ended)?;
    // Only in the set that rules give: without one a packet would have no route.
    let route = Route { slice: SLICE, action: RouteAction::Policy(POLICY), endpoint: 0 };
    for number in 0..DESTINATIONS {
        let prefix = IpAddr::from(flows::destination(number)).into();
        switch.route.put((RULE_SET, prefix), &route)?;
        switch
            .delivery
            .put((SLICE, prefix), &Delivery { port: FABRIC, mac: NEXT_MAC, tunnel: None })?;
    }
    let meter = Meter {
        class: Class::Guaranteed,
        guaranteed_bps: RATE_BPS,
        guaranteed_burst_bytes: BURST_BYTES,
        maximum_bps: RATE_BPS,
        maximum_burst_bytes: BURST_BYTES,
    };
    switch.meter.put((SLICE, Direction::Uplink), &meter)?;
    let queue = Queue { rate_bps: RATE_BPS, threshold_bytes: [BURST_BYTES; 3], shaped_bps: [0; 3] };
    switch.queue.put(FABRIC, &queue)?;
    Ok(switch)
}

/// A packet in an outer header to `node`, in profile of a guaranteed slice.
fn encapsulated(node: u16, next_header: u8, inner: &[u8]) -> Vec<u8> {
    const AF41: u8 = 34;
    let mut frame = [IN_MAC, HOST_MAC].concat();
    frame.extend([0x86, 0xdd, 0x60 | AF41 >> 2, AF41 << 6, 0, 0]);
    frame.extend(u16::try_from(inner.len()).expect("a short frame").to_be_bytes());
    frame.extend([next_header, 64]);
    let source = [0x5f00, 0, 9, 0xfffe, SLICE, 1, 0, 0];
    let destination = [0x5f00, 0, node, DECAPSULATE, 0, 0, 0, 0];
    frame.extend(source.into_iter().chain(destination).flat_map(u16::to_be_bytes));
    frame.extend(inner);
    frame
}

/// A switch with what the cases need, between two veth pairs.
pub(crate) struct Place {
    pub(crate) switch: Switch,
    input: Interface,
    output: Interface,
}

impl Place {
    pub(crate) fn new(far: &Far) -> Result<Self> {
        let (input, output) = links(far)?;
        Ok(Self { switch: switch(&input, &output)?, input, output })
    }

    pub(crate) fn bed<'a>(&'a self, far: &'a Far) -> Result<Bed<'a>> {
        let Self { switch, input, output } = self;
        Ok(Bed { far, switch, generator: Generator::new(switch, output)?, input, output })
    }
}

pub(crate) struct Bed<'a> {
    far: &'a Far,
    switch: &'a Switch,
    generator: Generator<'a>,
    input: &'a Interface,
    output: &'a Interface,
}

impl Bed<'_> {
    /// Packets that the ingress path forwards in a second.
    pub(crate) fn ingress(&self, time: Duration) -> Result<f64> {
        Ok(self.drive(INGRESS, time)?.rate)
    }

    /// Drives all cases in turns, prints what came of it, and gives medians. The first is the
    /// bare redirect.
    fn compare<const N: usize>(&self, cases: [Case; N]) -> Result<[Measured; N]> {
        let mut samples = cases.map(|case| (case, Vec::new()));
        for case in cases {
            self.drive(case, WARM_UP)?;
        }
        for _ in 0..ROUNDS {
            for (case, samples) in &mut samples {
                samples.push(self.drive(*case, SAMPLE)?);
            }
        }
        print_table(&samples);
        Ok(samples.map(|(case, samples)| (case, median(&samples))))
    }

    /// Sends through `case` for `time`, and checks that it did what it should.
    fn drive(&self, case: Case, time: Duration) -> Result<Sample> {
        let sink = match case.under_test {
            UnderTest::Kernel => None,
            UnderTest::Redirect | UnderTest::Pipeline => {
                let attach = || Ok(self.generator.sink(&interface("sink", SINK_MAC)?)?);
                Some(self.far.run(attach)?)
            }
        };
        let input = match case.traffic {
            Traffic::Bare | Traffic::Uplink(_) => self.input,
            Traffic::Encapsulated(_) | Traffic::Downlink(_) => self.output,
        };
        let frames = case.traffic.frames();
        self.generator.set_heads(&frames)?;
        let (packets, bytes) = self.far.received("sink")?;
        let mut sent = 0;
        let mut busy = Duration::ZERO;
        let start = Instant::now();
        while start.elapsed() < time {
            let each = self
                .generator
                .run(case.under_test, input.index, &frames[0], CHUNK)
                .with_context(|| format!("send through {}", case.what))?;
            busy += each * CHUNK;
            sent += u64::from(CHUNK);
        }
        let (packets_after, bytes_after) = self.settled()?;
        drop(sink);

        let (arrived, bytes) = (packets_after - packets, bytes_after - bytes);
        ensure!(arrived > 0, "{}: nothing arrived of {sent} packets", case.what);
        // The mean, because the kernel sends a packet of its own now and then (MLD).
        ensure!(
            (bytes + arrived / 2) / arrived == case.frame_out as u64,
            "{}: {arrived} packets of {} bytes were to arrive, but it was {bytes} bytes",
            case.what,
            case.frame_out
        );
        let drops = self.switch.counters.named_drops()?;
        if let Some((reason, count)) = drops.iter().find(|(_, count)| *count > 0) {
            bail!("{}: the switch dropped {count} packets: {reason}", case.what);
        }
        ensure!(busy > Duration::ZERO, "{}: this kernel tells no time of live frames", case.what);
        Ok(Sample { rate: arrived as f64 / busy.as_secs_f64(), sent, arrived })
    }

    /// The sink's counters once they stand still.
    fn settled(&self) -> Result<(u64, u64)> {
        let mut before = self.far.received("sink")?;
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(2));
            let now = self.far.received("sink")?;
            if now == before {
                break;
            }
            before = now;
        }
        Ok(before)
    }
}

fn median(samples: &[Sample]) -> f64 {
    let mut rates: Vec<f64> = samples.iter().map(|sample| sample.rate).collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn print_table(samples: &[(Case, Vec<Sample>)]) {
    let redirect = median(&samples[0].1);
    println!(
        "{:<38} {:>7} {:>7} {:>13} {:>8} {:>12}",
        "", "Mpps", "ns", "least..most", "lost", "of redirect"
    );
    for (case, samples) in samples {
        let rate = median(samples);
        let rates = || samples.iter().map(|sample| sample.rate / 1e6);
        let range = format!(
            "{:.2}..{:.2}",
            rates().fold(f64::INFINITY, f64::min),
            rates().fold(0.0, f64::max)
        );
        let sent: u64 = samples.iter().map(|sample| sample.sent).sum();
        let arrived: u64 = samples.iter().map(|sample| sample.arrived).sum();
        println!(
            "{:<38} {:>7.3} {:>7.0} {range:>13} {:>7.2}% {:>12.2}",
            case.what,
            rate / 1e6,
            1e9 / rate,
            100.0 * (1.0 - arrived as f64 / sent as f64),
            rate / redirect
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_what_its_headers_say() {
        let frame = flows::flows().next().expect("a flow").frame();
        let payload = usize::from(u16::from_be_bytes([frame[18], frame[19]]));
        assert_eq!(ETHERNET_LEN + IPV6_LEN + payload, FRAME_LEN);
    }

    /// Each rule is hit, and about as often as another.
    #[test]
    fn flows_hit_the_rules_evenly() {
        let rules: Vec<_> = (0..RULES).map(|n| rule(n, 1).0).collect();
        let mut hits = vec![0; rules.len()];
        for Flow { source, destination, ports } in flows::flows() {
            let is_in = |net: Option<ipnet::IpNet>, address: std::net::Ipv6Addr| {
                net.is_none_or(|net| net.contains(&std::net::IpAddr::from(address)))
            };
            let holds = |range: Option<[u16; 2]>, port| {
                range.is_none_or(|[first, last]| (first..=last).contains(&port))
            };
            let first = rules.iter().position(|rule| {
                is_in(rule.source, flows::source(source))
                    && is_in(rule.destination, flows::destination(destination))
                    && holds(rule.source_ports, ports[0])
                    && holds(rule.destination_ports, ports[1])
            });
            hits[first.expect("a rule")] += 1;
        }
        assert!(hits.iter().all(|count| (4..=5).contains(count)), "{hits:?}");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let sample = |rate| Sample { rate, sent: 1, arrived: 1 };
        assert_eq!(median(&[3.0, 1.0, 2.0].map(sample)), 2.0);
    }
}
