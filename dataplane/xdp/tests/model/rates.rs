//! Metering and the virtual queue on the host, whose clock the test sets, against buckets in
//! exact arithmetic: bits that leak at a rate, where the programs have arrival times in
//! picoseconds. They agree on every frame that is not within [`MARGIN`] of a limit; there the
//! buckets follow the programs.

use std::net::Ipv4Addr;

use etherparse::PacketBuilder;
use selvedge_pipeline::*;
use selvedge_xdp::Verdict;
use selvedge_xdp::common::drop;
use selvedge_xdp::common::rate::{MAX_BACKLOG_PS, MIN_BURST_BYTES};

use crate::common::in_netns;
use crate::packets::{ACCESS, FABRIC, Random};
use crate::{Bed, host};

const FRAMES: usize = 4_000;
/// A bit, as a bucket counts it: for a nanosecond at any whole rate.
const BIT: u128 = 1_000_000_000;
/// What rounding of costs and spans may add up to in one round.
const MARGIN: u128 = 16 * 8 * BIT;
/// Ethernet and outer header.
const HEADERS: u32 = 54;

struct Bucket {
    bps: u128,
    level: u128,
    at_ns: u64,
}

impl Bucket {
    fn new(bps: u64) -> Self {
        Self { bps: bps.into(), level: 0, at_ns: 0 }
    }

    fn leak(&mut self, now_ns: u64) {
        let leaked = self.bps * u128::from(now_ns - self.at_ns);
        (self.level, self.at_ns) = (self.level.saturating_sub(leaked), now_ns);
    }

    fn add(&mut self, bytes: u32) {
        self.level += bits(bytes);
    }
}

fn bits(bytes: u32) -> u128 {
    u128::from(bytes) * 8 * BIT
}

/// Whether `level` is at most `limit`; what was `found` when that is too close to say.
fn at_most(level: u128, limit: u128, found: bool) -> bool {
    if level.abs_diff(limit) <= MARGIN { found } else { level < limit }
}

/// What one frame of a slice met: colour and ECN, or a reason.
type Met = Result<(bool, u8), u8>;

struct Slice {
    meter: SliceMeterEntry,
    guaranteed: Bucket,
    maximum: Bucket,
}

/// What `meter` and `queue` of the programs should say of a packet of `len` bytes; `found` is
/// what they said.
fn judge(
    slice: &mut Slice,
    entry: &PortQueueEntry,
    queue: &mut Bucket,
    now_ns: u64,
    (len, ecn): (u32, u8),
    found: Met,
) -> Met {
    let meter = &slice.meter;
    for bucket in [&mut slice.guaranteed, &mut slice.maximum, queue] {
        bucket.leak(now_ns);
    }
    let burst = |bytes: u32| bits(bytes.max(MIN_BURST_BYTES));
    let guarantees = meter.class != Class::BestEffort && meter.guaranteed_bps != 0;
    let in_profile = guarantees
        && at_most(
            slice.guaranteed.level + bits(len),
            burst(meter.guaranteed_burst_bytes),
            found.is_ok_and(|(in_profile, _)| in_profile),
        );
    if in_profile {
        slice.guaranteed.add(len);
    }
    if meter.maximum_bps != 0 {
        let level = slice.maximum.level + bits(len);
        let fits =
            at_most(level, burst(meter.maximum_burst_bytes), found != Err(drop::OVER_MAXIMUM));
        if !in_profile && !fits {
            return Err(drop::OVER_MAXIMUM);
        }
        slice.maximum.add(len);
    }
    let mut marked = ecn;
    if in_profile {
        let second = u128::from(MAX_BACKLOG_PS) * queue.bps / 1000;
        assert!(queue.level.abs_diff(second) > MARGIN, "no round comes near it");
        if queue.level < second {
            queue.add(HEADERS + len);
        }
    } else {
        let threshold = bits(entry.threshold_bytes[meter.class as usize]);
        // Below is what passes, above half of it what is marked.
        if !at_most(queue.level, threshold, found != Err(drop::QUEUE_FULL)) {
            return Err(drop::QUEUE_FULL);
        }
        let quiet = at_most(queue.level, threshold / 2, found.is_ok_and(|(_, now)| now == ecn));
        if !quiet && (ecn == 1 || ecn == 2) {
            marked = 3;
        }
        queue.add(HEADERS + len);
    }
    Ok((in_profile, marked))
}

fn meters(random: &mut Random) -> SliceMeterEntry {
    let class = random.of(&[Class::BestEffort, Class::Guaranteed, Class::Urllc]);
    let guaranteed_bps = random.of(&[0, 1_000_000, 33_333_333, 400_000_000]);
    let more = random.of(&[0, 1_000_000, 77_777_777, 2_000_000_000]);
    SliceMeterEntry {
        slice: SliceId(0),
        direction: Direction::Uplink,
        class,
        guaranteed_bps,
        guaranteed_burst_bytes: random.below(100_000) as u32,
        maximum_bps: if more == 0 { 0 } else { guaranteed_bps + more },
        maximum_burst_bytes: random.below(100_000) as u32,
    }
}

/// Three slices of an access port that share a fabric port.
fn round(bed: &Bed, seed: u64, met: &mut [usize; 5]) {
    const NODE: u16 = 8;
    let mut random = Random(seed);
    let queue_bps = random.of(&[10_000_000, 97_000_000, 970_000_000, 9_700_000_000]);
    let entry = PortQueueEntry {
        port: PortId(FABRIC[0]),
        rate_bps: queue_bps,
        threshold_bytes: std::array::from_fn(|_| random.below(200_000) as u32 + 200),
    };
    let mut entries = vec![
        Entry::Port(PortEntry { port: PortId(ACCESS[0]), kind: PortKind::Access }),
        Entry::Port(PortEntry { port: PortId(FABRIC[0]), kind: PortKind::Fabric }),
        Entry::Policy(PolicyEntry { policy: PolicyId(1), sids: vec![NODE] }),
        Entry::NextHop(NextHopEntry {
            node: NodeSid(NODE),
            port: PortId(FABRIC[0]),
            mac: [2, 0, 0, 0, 0, 9],
        }),
        Entry::PortQueue(entry),
    ];
    let mut slices: Vec<Slice> = Vec::new();
    for id in 1..=3 {
        let meter = SliceMeterEntry { slice: SliceId(id), ..meters(&mut random) };
        entries.extend([
            Entry::Endpoint(EndpointEntry {
                port: PortId(ACCESS[0]),
                prefix: source(id).into(),
                slice_set: SliceSet(id),
                direction: Direction::Uplink,
            }),
            Entry::SliceRoute(SliceRouteEntry {
                slice_set: SliceSet(id),
                prefix: "0.0.0.0/0".parse().unwrap(),
                slice: SliceId(id),
                action: RouteAction::Policy(PolicyId(1)),
            }),
            Entry::SliceMeter(meter),
        ]);
        slices.push(Slice {
            meter,
            guaranteed: Bucket::new(meter.guaranteed_bps),
            maximum: Bucket::new(meter.maximum_bps),
        });
    }
    bed.replace_entries(&entries);
    host::load(&bed.switch, &[], true);

    let mut queue = Bucket::new(queue_bps);
    // From quiet to three times what the queue takes, in turns.
    let mut load = 100;
    let mut now_ns = random.word() % (1 << 50);
    for n in 0..FRAMES {
        if n % 500 == 0 {
            load = random.of(&[20, 80, 100, 130, 300]);
        }
        let which = random.below(slices.len());
        let len = random.of(&[28, 100, 576, 1500]);
        let ecn = random.below(4) as u8;
        let mean_ns = u64::from(len + HEADERS) * 8 * 1_000_000_000 / queue_bps * 100 / load;
        now_ns += random.word() % (2 * mean_ns + 1);
        selvedge_ebpf_programs::host::set_clock(now_ns);

        let frame = frame(which as u16 + 1, len, ecn);
        let found: Met = match host::run(bed.ports[&ACCESS[0]].index, &frame) {
            Verdict::Forwarded { frame, .. } => {
                let class = frame[14] << 4 | frame[15] >> 4;
                Ok(([34, 46].contains(&(class >> 2)), class & 3))
            }
            Verdict::Dropped(reason) => Err(reason),
            other => panic!("{other:?}"),
        };
        let want = judge(&mut slices[which], &entry, &mut queue, now_ns, (len, ecn), found);
        let meter = &slices[which].meter;
        assert_eq!(
            found,
            want,
            "seed {seed}, frame {n} of {len} bytes, ECN {ecn}: {meter:?}, {entry:?}; backlog {} bytes",
            queue.level / BIT / 8
        );
        met[match found {
            Ok((true, _)) => 0,
            Ok((false, now)) if now == ecn => 1,
            Ok((false, _)) => 2,
            Err(drop::OVER_MAXIMUM) => 3,
            Err(_) => 4,
        }] += 1;
    }
}

fn source(id: u16) -> std::net::IpAddr {
    Ipv4Addr::new(10, 1, 0, id as u8).into()
}

fn frame(id: u16, len: u32, ecn: u8) -> Vec<u8> {
    let payload = vec![0; len as usize - 28];
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], entry::gateway::MAC)
        .ipv4([10, 1, 0, id as u8], [192, 0, 2, 9], 64)
        .udp(1, 2);
    let mut frame = Vec::new();
    builder.write(&mut frame, &payload).unwrap();
    frame[15] = ecn;
    frame
}

#[test]
fn rates_are_those_of_exact_buckets() {
    in_netns(|| {
        let bed = Bed::new();
        let mut met = [0; 5];
        for seed in 0..25 {
            round(&bed, seed, &mut met);
        }
        println!("in profile, excess, marked, over the maximum, queue full: {met:?}");
        assert!(met.iter().all(|n| *n > 500), "{met:?}");
    });
}
