//! Metering and the virtual queue on the host, whose clock the test sets, against buckets in
//! exact arithmetic: bits that leak at a rate, where the programs have arrival times in
//! picoseconds. They agree on every frame that is not within [`MARGIN`] of a limit, or within what
//! is paid in advance ([`prepay_bytes`]); there the buckets follow the programs.

use etherparse::PacketBuilder;
use selvedge_pipeline::model::wire::{Profile, outer_destination, outer_source};
use selvedge_pipeline::*;
use selvedge_xdp::Verdict;
use selvedge_xdp::common::drop;
use selvedge_xdp::common::rate::{MAX_BACKLOG_PS, MIN_BURST_BYTES, prepay_bytes};

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
const OUTER_LEN: u32 = 40;

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

/// What the programs may have charged in advance, or sent of that later, where `bytes` are a burst
/// or a threshold.
fn advance(bytes: u32) -> u128 {
    bits(prepay_bytes(bytes, aya::util::nr_cpus().unwrap() as u32))
}

/// Whether `level` is at most `limit`; what was `found` when that is too close to say.
fn at_most(level: u128, limit: u128, advance: u128, found: bool) -> bool {
    if level.abs_diff(limit) <= MARGIN + advance { found } else { level < limit }
}

/// What one frame met: colour and ECN, or a reason.
type Met = Result<(bool, u8), u8>;

/// Rates of the endpoint's own.
struct Own {
    meter: EndpointMeterEntry,
    guaranteed: Bucket,
    maximum: Bucket,
}

struct Slice {
    meter: SliceMeterEntry,
    guaranteed: Bucket,
    maximum: Bucket,
    own: Option<Own>,
}

impl Own {
    /// What they should say of a packet: whether it is within their guarantee, if there is one.
    fn judge(
        &mut self,
        now_ns: u64,
        len: u32,
        (found, in_profile): (Met, bool),
    ) -> Result<Option<bool>, u8> {
        let meter = &self.meter;
        self.guaranteed.leak(now_ns);
        self.maximum.leak(now_ns);
        let burst = |bytes: u32| bits(bytes.max(MIN_BURST_BYTES));
        let guarantees = meter.guaranteed_bps != 0;
        let level = self.guaranteed.level + bits(len);
        let within =
            guarantees && at_most(level, burst(meter.guaranteed_burst_bytes), 0, in_profile);
        if within {
            self.guaranteed.add(len);
        }
        if meter.maximum_bps != 0 {
            let level = self.maximum.level + bits(len);
            let passed = found != Err(drop::OVER_ENDPOINT_MAXIMUM);
            if !at_most(level, burst(meter.maximum_burst_bytes), 0, passed) && !within {
                return Err(drop::OVER_ENDPOINT_MAXIMUM);
            }
            self.maximum.add(len);
        }
        Ok(guarantees.then_some(within))
    }
}

impl Slice {
    /// What `meter` of the programs should say of a packet of `len` bytes: whether it is in
    /// profile. `found` is what became of it, `in_profile` what they said; `own`: whether it is
    /// within the guarantee of its endpoint, if that has one.
    fn judge(
        &mut self,
        now_ns: u64,
        len: u32,
        (found, in_profile): (Met, bool),
        own: Option<bool>,
    ) -> Result<bool, u8> {
        let meter = &self.meter;
        self.guaranteed.leak(now_ns);
        self.maximum.leak(now_ns);
        let burst = |bytes: u32| bits(bytes.max(MIN_BURST_BYTES));
        let guarantees = meter.class != Class::BestEffort && meter.guaranteed_bps != 0;
        let advance = if guarantees { advance(meter.guaranteed_burst_bytes) } else { 0 };
        let level = self.guaranteed.level + bits(len);
        let conforms = at_most(level, burst(meter.guaranteed_burst_bytes), advance, in_profile);
        let in_profile = guarantees && own.unwrap_or(conforms);
        if in_profile {
            self.guaranteed.add(len);
        }
        if meter.maximum_bps != 0 {
            let level = self.maximum.level + bits(len);
            let found = found != Err(drop::OVER_MAXIMUM);
            let limit = burst(meter.maximum_burst_bytes);
            if !at_most(level, limit, advance, found) && !in_profile {
                return Err(drop::OVER_MAXIMUM);
            }
            self.maximum.add(len);
        }
        Ok(in_profile)
    }
}

struct Queue {
    entry: PortQueueEntry,
    bucket: Bucket,
}

impl Queue {
    /// What `queue` of the programs should say of a frame of `len` bytes: whether it is marked.
    fn judge(
        &mut self,
        now_ns: u64,
        len: u32,
        profile: Profile,
        found: Result<bool, u8>,
    ) -> Result<bool, u8> {
        let Self { entry, bucket } = self;
        bucket.leak(now_ns);
        if profile.in_profile {
            let most = u128::from(MAX_BACKLOG_PS) * bucket.bps / 1000;
            assert!(bucket.level.abs_diff(most) > MARGIN, "no round comes near it");
            if bucket.level < most {
                bucket.add(len);
            }
            return Ok(false);
        }
        // Below is what passes, above half of it what is marked.
        let threshold = bits(entry.threshold_bytes[profile.class as usize]);
        let advance = advance(entry.threshold_bytes.into_iter().min().unwrap());
        if !at_most(bucket.level, threshold, advance, found != Err(drop::QUEUE_FULL)) {
            return Err(drop::QUEUE_FULL);
        }
        let marked = !at_most(bucket.level, threshold / 2, advance, found == Ok(false));
        bucket.add(len);
        Ok(marked)
    }
}

/// How a frame goes through the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Encapsulate,
    Local,
    Transit,
    Decapsulate,
    FromHook,
}

const WAYS: [Way; 5] =
    [Way::Encapsulate, Way::Local, Way::Transit, Way::Decapsulate, Way::FromHook];

impl Way {
    fn metered(self) -> bool {
        matches!(self, Self::Encapsulate | Self::Local | Self::FromHook)
    }

    /// Into an endpoint's port, without outer header.
    fn delivers(self) -> bool {
        matches!(self, Self::Local | Self::Decapsulate)
    }
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

/// A guarantee of its own only in a slice that has one (as admission has it): else nobody sees what
/// the programs said of it.
fn own_meter(random: &mut Random, id: u16, slice: &SliceMeterEntry) -> EndpointMeterEntry {
    let guarantees = slice.class != Class::BestEffort && slice.guaranteed_bps != 0;
    let guaranteed_bps = random.of(&[0, 500_000, 20_000_000]) * u64::from(guarantees);
    let more = random.of(&[0, 700_000, 55_555_555]);
    let burst = |random: &mut Random| random.below(50_000) as u32 + 2 * MIN_BURST_BYTES;
    EndpointMeterEntry {
        slice: SliceId(id),
        direction: Direction::Uplink,
        endpoint: EndpointId(id),
        guaranteed_bps,
        guaranteed_burst_bytes: burst(random),
        maximum_bps: if more == 0 { 0 } else { guaranteed_bps + more },
        maximum_burst_bytes: burst(random),
    }
}

fn buckets(guaranteed_bps: u64, maximum_bps: u64) -> (Bucket, Bucket) {
    (Bucket::new(guaranteed_bps), Bucket::new(maximum_bps))
}

/// Three slices, each with an endpoint, that share a fabric port and an access port.
fn round(bed: &Bed, seed: u64, met: &mut [usize; 6]) {
    let mut random = Random(seed);
    let mut queues = [FABRIC[0], ACCESS[1]].map(|port| {
        let rate_bps = random.of(&[10_000_000, 97_000_000, 970_000_000, 9_700_000_000]);
        let threshold_bytes = std::array::from_fn(|_| random.below(200_000) as u32 + 200);
        let entry =
            PortQueueEntry { port: PortId(port), rate_bps, threshold_bytes, shaped_bps: [0; 3] };
        Queue { entry, bucket: Bucket::new(rate_bps) }
    });
    let mut slices: Vec<Slice> = Vec::new();
    let mut entries = entries();
    for id in 1..=3 {
        let meter = SliceMeterEntry { slice: SliceId(id), ..meters(&mut random) };
        let route = |prefix: &str, action| {
            let prefix = prefix.parse().unwrap();
            SliceRouteEntry {
                slice_set: SliceSet(id),
                prefix,
                slice: SliceId(id),
                action,
                endpoint: EndpointId::NONE,
            }
        };
        entries.extend([
            Entry::Endpoint(EndpointEntry {
                port: PortId(ACCESS[0]),
                prefix: std::net::IpAddr::from([10, 1, 0, id as u8]).into(),
                slice_set: SliceSet(id),
                direction: Direction::Uplink,
                endpoint: EndpointId(id),
                tag: EndpointTag::NONE,
            }),
            Entry::SliceRoute(route("0.0.0.0/0", RouteAction::Policy(PolicyId(1)))),
            Entry::SliceRoute(route("10.9.0.0/16", RouteAction::Local)),
            Entry::Delivery(DeliveryEntry {
                slice: SliceId(id),
                prefix: "10.9.0.0/16".parse().unwrap(),
                port: PortId(ACCESS[1]),
                mac: NEIGHBOR,
                tunnel: None,
            }),
            Entry::SliceMeter(meter),
        ]);
        let own = random.chance(60).then(|| {
            let meter = own_meter(&mut random, id, &meter);
            entries.push(Entry::EndpointMeter(meter));
            let (guaranteed, maximum) = buckets(meter.guaranteed_bps, meter.maximum_bps);
            Own { meter, guaranteed, maximum }
        });
        let (guaranteed, maximum) = buckets(meter.guaranteed_bps, meter.maximum_bps);
        slices.push(Slice { meter, guaranteed, maximum, own });
    }
    entries.extend(queues.iter().map(|queue| Entry::PortQueue(queue.entry)));
    bed.replace_entries(&entries);
    host::load(&bed.switch, true);

    // From quiet to three times what a queue takes, in turns.
    let (mut load, mut busy) = (100, 0);
    let mut now_ns = random.word() % (1 << 50);
    for n in 0..FRAMES {
        if n % 500 == 0 {
            (load, busy) = (random.of(&[20, 80, 100, 130, 300]), random.below(2));
        }
        let id = random.below(slices.len()) as u16 + 1;
        let way = random.of(&WAYS);
        let len = random.of(&[28, 100, 576, 1500]);
        let ecn = random.below(4) as u8;
        let mean_ns =
            u64::from(len + HEADERS) * 8_000_000_000 / queues[busy].entry.rate_bps * 100 / load;
        now_ns += random.word() % (2 * mean_ns + 1);
        selvedge_ebpf_programs::host::set_clock(now_ns);

        let class = random.of(&[Class::BestEffort, Class::Guaranteed, Class::Urllc]);
        let in_profile = class != Class::BestEffort && random.chance(50);
        let carried = Profile { class, in_profile };
        // Congestion on the way, told of in the outer header only.
        let outer_ecn = if matches!(ecn, 1 | 2) && random.chance(20) { 3 } else { ecn };
        let frame = frame(way, id, len, carried.dscp() << 2 | outer_ecn, ecn);
        let verdict = host::run(ifindex(bed, way), &frame);
        let in_profile = host::in_profile();
        let found: Met = match &verdict {
            Verdict::Forwarded { frame, .. } if way.delivers() => Ok((in_profile, frame[15] & 3)),
            Verdict::Forwarded { frame, .. } => Ok((in_profile, frame[15] >> 4 & 3)),
            Verdict::Dropped(reason) => Err(*reason),
            other => panic!("{other:?}"),
        };

        let slice = &mut slices[usize::from(id) - 1];
        let queue = &mut queues[usize::from(way.delivers())];
        let before = if way == Way::Encapsulate || way == Way::Local { ecn } else { outer_ecn };
        let mut profile = Ok(carried);
        if way.metered() {
            // What comes back from a hook is its slice's, and nobody's in particular.
            let own = slice.own.as_mut().filter(|_| way != Way::FromHook);
            let said = (found, in_profile);
            let own = own.map_or(Ok(None), |own| own.judge(now_ns, len, said));
            let judged = own.and_then(|own| slice.judge(now_ns, len, said, own));
            let class = slice.meter.class;
            profile = judged.map(|in_profile| Profile { class, in_profile });
        }
        let want = profile.and_then(|profile| {
            let headers = if way.delivers() { HEADERS - OUTER_LEN } else { HEADERS };
            let said = found.map(|(_, now)| now != before);
            let marked = queue.judge(now_ns, headers + len, profile, said)?;
            let capable = matches!(ecn, 1 | 2) && matches!(before, 1 | 2);
            let now = if marked && capable { 3 } else { before };
            Ok((profile.in_profile, now))
        });
        assert_eq!(
            found,
            want,
            "seed {seed}, frame {n}, {way:?} of {len} bytes, ECN {ecn}, {carried:?}: {:?}, {:?}; \
             backlog {} bytes",
            slice.meter,
            queue.entry,
            queue.bucket.level / BIT / 8
        );
        if let (Verdict::Forwarded { frame, .. }, false) = (&verdict, way.delivers()) {
            let dscp = (frame[14] << 4 | frame[15] >> 4) >> 2;
            assert_eq!(Some(dscp), profile.ok().map(Profile::dscp), "seed {seed}, frame {n}");
        }
        met[match found {
            Ok((true, _)) => 0,
            Ok((false, now)) if now == before => 1,
            Ok((false, _)) => 2,
            Err(drop::OVER_MAXIMUM) => 3,
            Err(drop::OVER_ENDPOINT_MAXIMUM) => 4,
            Err(_) => 5,
        }] += 1;
    }
}

const NEIGHBOR: [u8; 6] = [2, 0, 0, 0, 0, 9];
const NODE: u16 = 8;
const DECAPSULATE: u16 = 0xE001;

/// What does not depend on the seed.
fn entries() -> Vec<Entry> {
    let port = |port, kind| Entry::Port(PortEntry { port: PortId(port), kind });
    let next_hop =
        NextHopEntry { node: NodeSid(NODE), port: PortId(FABRIC[0]), mac: NEIGHBOR, backup: 0 };
    let action = LocalSidAction::Decapsulate;
    vec![
        port(ACCESS[0], PortKind::Access),
        port(ACCESS[1], PortKind::Access),
        port(FABRIC[0], PortKind::Fabric),
        port(FABRIC[1], PortKind::Fabric),
        Entry::Policy(PolicyEntry::one(PolicyId(1), vec![NODE])),
        Entry::NextHop(next_hop),
        Entry::LocalSid(LocalSidEntry { sid: DECAPSULATE, action }),
    ]
}

fn ifindex(bed: &Bed, way: Way) -> u32 {
    match way {
        Way::Encapsulate | Way::Local => bed.ports[&ACCESS[0]].index,
        Way::Transit | Way::Decapsulate => bed.ports[&FABRIC[1]].index,
        Way::FromHook => bed.hook.index,
    }
}

/// A packet of `len` bytes of slice `id`; `class` is the outer header's, if it comes in one.
fn frame(way: Way, id: u16, len: u32, class: u8, ecn: u8) -> Vec<u8> {
    let to = if way.delivers() { [10, 9, 0, 1] } else { [192, 0, 2, 9] };
    let payload = vec![0; len as usize - 28];
    let builder = PacketBuilder::ethernet2(NEIGHBOR, entry::gateway::MAC)
        .ipv4([10, 1, 0, id as u8], to, 64)
        .udp(1, 2);
    let mut frame = Vec::new();
    builder.write(&mut frame, &payload).unwrap();
    frame[15] = ecn;
    if matches!(way, Way::Encapsulate | Way::Local) {
        return frame;
    }
    let sid = if way == Way::Decapsulate { DECAPSULATE } else { NODE };
    let mut outer = vec![0x86, 0xdd, 0x60 | class >> 4, class << 4, 0, 0];
    outer.extend((len as u16).to_be_bytes());
    outer.extend([4, 64]);
    outer.extend(outer_source(4, SliceId(id), Direction::Uplink, false).octets());
    outer.extend(outer_destination(&[sid]).octets());
    frame.splice(12..14, outer);
    frame
}

#[test]
fn rates_are_those_of_exact_buckets() {
    in_netns(|| {
        let bed = Bed::new();
        let mut met = [0; 6];
        for seed in 0..25 {
            round(&bed, seed, &mut met);
        }
        println!(
            "in profile, excess, marked, over the maximum, over the endpoint's, queue full: {met:?}"
        );
        assert!(met.iter().all(|n| *n > 500), "{met:?}");
    });
}
