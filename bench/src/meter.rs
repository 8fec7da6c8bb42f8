//! How exactly a slice gets its rate, from 1 Mbit/s to 100 Gbit/s.
//!
//! The programs that forward are run on frames at times that the bench sets (their clock is chosen
//! when they are loaded), because no wire here carries the higher rates: for each rate, size of
//! packets and burstiness once at 0.99 of the rate, of which nothing may be lost, once at twice the
//! rate, of which half may pass. Once the rate is a maximum, beyond which packets are dropped, once
//! a guarantee, beyond which they are excess.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use selvedge_xdp::{
    Class, Direction, Endpoint, Interface, LocalSid, Meter, NextHop, Options, Policy, PortKind,
    Route, RouteAction, Switch, Table, Verdict,
};
use serde_json::Value;

use crate::net::{self, interface, ip, mac_text};
use crate::report::row;

const RATES_BPS: [u64; 8] = [
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    5_000_000_000,
    10_000_000_000,
    40_000_000_000,
    100_000_000_000,
];
/// Of the user's packets, bytes.
const SIZES: [u32; 3] = [46, 576, 1500];
/// Packets that come at once.
const BURSTS: [u64; 3] = [1, 8, 32];
/// A burst that holds the largest of those.
const BURST_BYTES: u32 = 64_000;
/// Packets of a case, beyond those that the burst lets through.
const PACKETS: u64 = 4_000;
/// How much more or less than its rate a slice may get.
const MOST: f64 = 0.01;

const ACCESS: u16 = 1;
const FABRIC: u16 = 2;
const NODE: u16 = 2;
const DECAPSULATE: u16 = 0xE001;
const SLICE: u16 = 2;
const AF41: u8 = 34;
const IN_MAC: [u8; 6] = [2, 0, 0, 0, 4, 1];
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 4, 2];
const OUT_MAC: [u8; 6] = [2, 0, 0, 0, 4, 3];
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 4, 4];

/// Which of a slice's rates is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Guaranteed,
    Maximum,
}

pub(crate) fn run() -> Result<Vec<Value>> {
    net::isolate()?;
    let (switch, input) = switch()?;
    let mut now_ns = 1_000_000_000;
    let (mut worst, mut lost): (f64, u64) = (0.0, 0);
    println!("error of a slice's rate, worst of sizes and bursts\n");
    println!("{:>14} {:>12} {:>12}", "bit/s", "guaranteed", "maximum");
    for rate_bps in RATES_BPS {
        let mut errors = Vec::new();
        for of in [Of::Guaranteed, Of::Maximum] {
            let mut error: f64 = 0.0;
            for (size, burst) in SIZES.into_iter().flat_map(|s| BURSTS.map(|b| (s, b))) {
                switch.meter.put((SLICE, Direction::Uplink), &meter(of, rate_bps))?;
                let mut case = Case { switch: &switch, input: &input, of, size, burst };
                lost += case.offer(&mut now_ns, rate_bps, 0.99)?.refused;
                let twice = case.offer(&mut now_ns, rate_bps, 2.0)?;
                error = error.max((twice.share_after_burst(size) - 0.5).abs() / 0.5);
            }
            errors.push(error);
            worst = worst.max(error);
        }
        println!("{rate_bps:>14} {:>11.3}% {:>11.3}%", errors[0] * 100.0, errors[1] * 100.0);
    }
    println!("\nof packets at 0.99 of the rate {lost} were refused");
    ensure!(lost == 0, "{lost} packets were refused at 0.99 of the rate");
    Ok(vec![row("rate_error_max", worst, "of the rate", "lower", ("target", MOST))])
}

fn meter(of: Of, rate_bps: u64) -> Meter {
    let none = Meter {
        class: Class::Guaranteed,
        guaranteed_bps: 0,
        guaranteed_burst_bytes: BURST_BYTES,
        maximum_bps: 0,
        maximum_burst_bytes: BURST_BYTES,
    };
    match of {
        Of::Guaranteed => Meter { guaranteed_bps: rate_bps, ..none },
        Of::Maximum => Meter { maximum_bps: rate_bps, ..none },
    }
}

/// A switch whose clock is set, with a way for the slice's packets.
fn switch() -> Result<(Switch, Interface)> {
    // What the kernel sends by itself would come between a packet and what became of it.
    for which in ["all", "default"] {
        net::ipv6_conf(&format!("{which}/disable_ipv6"), "1")?;
    }
    for (name, mac, peer, far) in
        [("in", IN_MAC, "host", HOST_MAC), ("out", OUT_MAC, "far", FAR_MAC)]
    {
        let (mac, far) = (mac_text(mac), mac_text(far));
        ip(&format!(
            "link add {name} mtu 1600 address {mac} type veth peer name {peer} mtu 1600 address {far}"
        ))?;
        ip(&format!("link set {name} up"))?;
        ip(&format!("link set {peer} up"))?;
    }
    let (input, output) = (interface("in", IN_MAC)?, interface("out", OUT_MAC)?);
    let pin_dir = PathBuf::from("/sys/fs/bpf/selvedge/bench");
    let mut switch = Switch::open_with_set_clock(&Options { pin_dir, metering: true })?;
    switch.attach(ACCESS, &input)?;
    switch.attach(FABRIC, &output)?;
    switch.port.put(ACCESS, &PortKind::Access)?;
    switch.port.put(FABRIC, &PortKind::Fabric)?;
    switch.local_sid.put(1, &LocalSid::Node)?;
    switch.next_hop.put(NODE, &NextHop { port: FABRIC, mac: FAR_MAC, backup: 0 })?;
    switch.policy.put(1, &Policy::one(&[NODE, DECAPSULATE]))?;
    let endpoint = Endpoint { slice_set: SLICE, direction: Direction::Uplink, endpoint: 0, tag: 0 };
    switch.endpoint.put((ACCESS, "10.1.0.1/32".parse()?), &endpoint)?;
    let route = Route { slice: SLICE, action: RouteAction::Policy(1), endpoint: 0 };
    switch.route.put((SLICE, "10.2.0.1/32".parse()?), &route)?;
    Ok((switch, input))
}

struct Case<'a> {
    switch: &'a Switch,
    input: &'a Interface,
    of: Of,
    size: u32,
    burst: u64,
}

/// What became of packets.
struct Offered {
    packets: u64,
    refused: u64,
}

impl Offered {
    /// Of what came once the burst was used up, the share that passed.
    fn share_after_burst(&self, size: u32) -> f64 {
        let burst = f64::from(BURST_BYTES) / f64::from(size);
        // At twice the rate half of a burst's worth more comes in while it lasts.
        let passed = (self.packets - self.refused) as f64 - burst;
        passed / self.packets as f64
    }
}

impl Case<'_> {
    /// Packets at `load` times the rate, after a rest in which the burst fills up.
    fn offer(&mut self, now_ns: &mut u64, rate_bps: u64, load: f64) -> Result<Offered> {
        // A hundred bursts for one that is used up: what it is off by does not count.
        let packets = PACKETS + 100 * u64::from(BURST_BYTES / self.size) * u64::from(load > 1.0);
        *now_ns += 2 * u64::from(BURST_BYTES) * 8 * 1_000_000_000 / rate_bps + 1_000;
        let frame = frame(self.size);
        let gap_ns = f64::from(self.size) * 8e9 / (rate_bps as f64 * load);
        let mut refused = 0;
        for n in 0..packets {
            let at_ns = *now_ns + (gap_ns * (n / self.burst * self.burst) as f64) as u64;
            self.switch.set_clock(at_ns)?;
            refused += u64::from(!self.passes(&frame)?);
        }
        *now_ns += (gap_ns * packets as f64) as u64;
        Ok(Offered { packets, refused })
    }

    fn passes(&self, frame: &[u8]) -> Result<bool> {
        match self.switch.test_run(self.input.index, frame)?.verdict {
            Verdict::Forwarded { frame, .. } => {
                let dscp = (frame[14] << 4 | frame[15] >> 4) >> 2;
                Ok(self.of == Of::Maximum || dscp == AF41)
            }
            Verdict::Dropped(reason) if reason == selvedge_xdp::common::drop::OVER_MAXIMUM => {
                Ok(false)
            }
            other => bail!("the switch did {other:?}"),
        }
    }
}

/// A UDP packet of IPv4 of so many bytes.
fn frame(size: u32) -> Vec<u8> {
    let len = u16::try_from(size).expect("a packet");
    let mut frame = Vec::from(IN_MAC);
    frame.extend(HOST_MAC);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(len.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1]);
    frame.extend([0x9c, 0x40, 0x13, 0x89]);
    frame.extend((len - 20).to_be_bytes());
    frame.resize(14 + size as usize, 0);
    frame
}
