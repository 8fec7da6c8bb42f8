use selvedge_ebpf_common::map::{LOW_IFINDICES, PINNED};
use selvedge_ebpf_common::value::{
    ConfigValue, END_DROPPED, EVENTS_PER_SECOND, PORT_ACCESS, PORT_NONE, PortValue, RECENT_NS,
    SampleValue, Scratch,
};
use selvedge_ebpf_common::{COMPUTE_PORT, SAMPLES_PER_SECOND, drop};

use super::*;

#[test]
fn the_maps_are_those_that_are_specified() {
    for spec in PINNED {
        let def = named(spec.name);
        let found = (def.kind, def.key_bytes, def.value_bytes, def.entries);
        assert_eq!(
            found,
            (spec.kind, spec.key_bytes, spec.value_bytes, spec.entries),
            "{}",
            spec.name
        );
    }
    assert_eq!(NAMED.len(), PINNED.len());
}

fn prefix(bits: u32, data: [u8; 4]) -> Vec<u8> {
    let mut key = bits.to_ne_bytes().to_vec();
    key.extend(data);
    key.extend([0; 16]);
    key
}

#[test]
fn the_longest_prefix_is_found() {
    clear();
    let prefixes = [(0, [0; 4]), (8, [10, 0, 0, 0]), (13, [10, 8, 0, 0]), (32, [10, 8, 0, 1])];
    for (n, (bits, data)) in (1u8..).zip(prefixes) {
        put("ENDPOINT_PREFIX", &prefix(bits, data), &[n; 16]);
    }
    // (address, which)
    let cases = [([9, 0, 0, 0], 1), ([10, 0, 0, 0], 2), ([10, 15, 0, 1], 3), ([10, 8, 0, 1], 4)];
    for (data, want) in cases {
        assert_eq!(get("ENDPOINT_PREFIX", &prefix(160, data)), Some(vec![want; 16]), "{data:?}");
    }
    put("ENDPOINT_PREFIX", &prefix(13, [10, 15, 0, 0]), &[9; 16]);
    assert_eq!(get("ENDPOINT_PREFIX", &prefix(160, [10, 9, 0, 0])), Some(vec![9; 16]), "replaced");
    assert_eq!(get("ENDPOINT_PREFIX", &prefix(12, [10, 8, 0, 0])), Some(vec![2; 16]), "shorter");
}

#[test]
fn each_thread_has_its_own() {
    clear();
    const BYTES: usize = size_of::<ConfigValue>();
    put("CONFIG", &[0; 4], &[1; BYTES]);
    let other = std::thread::spawn(|| get("CONFIG", &[0; 4])).join().unwrap();
    assert_eq!((get("CONFIG", &[0; 4]), other), (Some(vec![1; BYTES]), Some(vec![0; BYTES])));
}

fn key(index: impl Into<u32>) -> [u8; 4] {
    index.into().to_ne_bytes()
}

/// The first word of a counter.
fn count(map: &str, index: impl Into<u32>) -> u64 {
    let value = get(map, &key(index)).unwrap();
    u64::from_ne_bytes(*value.first_chunk().unwrap())
}

/// Makes the interface `ifindex` port 1, of a kind or none.
fn attach(ifindex: u32, kind: u8) {
    let map = if ifindex < LOW_IFINDICES { "PORT_BY_LOW_IFINDEX" } else { "PORT_BY_IFINDEX" };
    put(map, &key(ifindex), &key(1u32));
    let mut value = [0; 16];
    value[std::mem::offset_of!(PortValue, kind)] = kind;
    put("PORT", &key(1u32), &value);
}

/// What has metadata is forwarded by the program at the kernel's ingress.
#[test]
fn nobody_else_s_metadata_reaches_the_kernel() {
    clear();
    attach(3, PORT_ACCESS);
    let mut frame = vec![0; 60];
    frame[12..14].copy_from_slice(&[0x88, 0xcc]);
    for metadata in [0, 16] {
        let ran = run_behind("entry", 3, metadata, &frame);
        assert_eq!((ran.action, ran.metadata), (xdp_action::XDP_PASS, vec![]));
    }
}

#[test]
fn nothing_counts_after_a_tail_call() {
    clear();
    attach(3, PORT_ACCESS);
    // To the stage, which drops a frame of no known type.
    let ran = run("entry", 3, &[0x12; 60]);
    assert_eq!((ran.action, ran.tail_calls), (xdp_action::XDP_DROP, 1));
    let drops = [drop::UNSUPPORTED, drop::PORT_DISABLED].map(|reason| count("DROPS", reason));
    assert_eq!(drops, [1, 0]);
}

#[test]
fn interfaces_are_found_by_low_and_by_high_indices() {
    clear();
    for ifindex in [1, LOW_IFINDICES - 1, LOW_IFINDICES, u32::MAX] {
        attach(ifindex, PORT_ACCESS);
        run("entry", ifindex, &[0; 60]);
    }
    run("entry", 7, &[0; 60]);
    assert_eq!((count("PORT_COUNTERS", 1u32), count("PORT_COUNTERS", 0u32)), (4, 1));
}

/// An IPv4 packet from `10.0.0.<from>`.
fn frame(from: u8) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[12..15].copy_from_slice(&[8, 0, 0x45]);
    frame[26..30].copy_from_slice(&[10, 0, 0, from]);
    frame
}

#[test]
fn a_source_is_told_once_a_second_and_a_port_tells_a_hundred() {
    const START: u64 = 1 << 40;
    clear();
    attach(3, PORT_NONE);
    // (nanoseconds, told)
    for (after, told) in [(0, 1), (1, 0), (RECENT_NS - 1, 0), (RECENT_NS, 1), (RECENT_NS + 1, 0)] {
        set_clock(START + after);
        run("entry", 3, &frame(1));
        assert_eq!(records("EVENTS").len(), told, "after {after} ns");
    }
    set_clock(START + 10 * RECENT_NS);
    (0..200).for_each(|from| drop_frame(&frame(from)));
    assert_eq!(records("EVENTS").len() as u64, EVENTS_PER_SECOND);
    set_clock(START + 10 * RECENT_NS + 1_000_000_000 / EVENTS_PER_SECOND);
    (200..210).for_each(|from| drop_frame(&frame(from)));
    assert_eq!(records("EVENTS").len(), 1);
}

fn drop_frame(frame: &[u8]) {
    assert_eq!(run("entry", 3, frame).action, xdp_action::XDP_DROP);
}

#[test]
fn a_frame_at_a_hook_goes_to_its_socket_or_is_counted() {
    clear();
    let slot = u32::from(COMPUTE_PORT) + 5;
    put("HOOK_BY_IFINDEX", &key(9u32), &key(5u32));
    put("SOCKET", &key(5u32), &key(1u32));
    let ran = run("hook_rx", 9, &[0; 60]);
    assert_eq!((ran.action, ran.redirected), (xdp_action::XDP_REDIRECT, Some(5)));
    assert_eq!(count("PORT_COUNTERS", slot), 0);

    clear();
    put("HOOK_BY_IFINDEX", &key(9u32), &key(5u32));
    assert_eq!(run("hook_rx", 9, &[0; 60]).action, xdp_action::XDP_DROP);
    assert_eq!((count("PORT_COUNTERS", slot), count("DROPS", drop::HOOK_DOWN)), (1, 1));
    assert_eq!(run("hook_rx", 8, &[0; 60]).action, xdp_action::XDP_DROP, "no hook's");
    assert_eq!((count("PORT_COUNTERS", slot), count("DROPS", drop::HOOK_DOWN)), (1, 1));
}

#[test]
fn what_benches_load_does_what_it_is_called() {
    clear();
    let action = |name: &str| run(name, 1, &[0; 60]).action;
    assert_eq!((action("pass"), action("discard")), (xdp_action::XDP_PASS, xdp_action::XDP_DROP));
    assert_eq!(count("PORT_COUNTERS", 0u32), 1);
    assert_eq!(action("redirect"), xdp_action::XDP_ABORTED, "no device");
    put("DEVICE", &key(0u32), &[0; 8]);
    assert_eq!(action("redirect"), xdp_action::XDP_REDIRECT);
}

#[test]
fn a_sampler_tells_how_a_frame_came_and_ended_until_its_time_is_over() {
    clear();
    attach(3, PORT_ACCESS);
    let mut value = [0; size_of::<SampleValue>()];
    let mut set = |at: usize, bytes: &[u8]| {
        value[at..at + bytes.len()].copy_from_slice(bytes);
    };
    set(std::mem::offset_of!(SampleValue, until_ns), &9_000_000_000u64.to_ne_bytes());
    set(std::mem::offset_of!(SampleValue, most), &u32::MAX.to_ne_bytes());
    put("SAMPLE", &key(0u32), &value);
    let frame: Vec<u8> = (0..60).collect();
    let told = |now_ns, frame: &[u8]| {
        set_clock(now_ns);
        run("entry", 3, frame);
        records("SAMPLES")
    };
    assert!(told(5_000_000_000, &frame).is_empty(), "no sampler is there");
    set_samples(true);
    let records = told(5_000_000_000, &frame);
    let [record] = &records[..] else { panic!("{}", records.len()) };
    let word = |at: usize| u32::from_ne_bytes(*record[at..].first_chunk().unwrap());
    assert_eq!(word(std::mem::offset_of!(Scratch, end)), END_DROPPED);
    assert_eq!(word(std::mem::offset_of!(Scratch, detail)), drop::UNSUPPORTED.into());
    assert_eq!(word(std::mem::offset_of!(Scratch, frame_len)), 60);
    assert_eq!(record[std::mem::offset_of!(Scratch, head)..][..60], frame);
    let more = (0..2 * SAMPLES_PER_SECOND).map(|_| told(5_000_000_000, &frame).len() as u64);
    assert_eq!(1 + more.sum::<u64>(), SAMPLES_PER_SECOND, "at once");
    assert!(!told(8_999_999_999, &frame).is_empty());
    assert!(told(9_000_000_000, &frame).is_empty(), "nobody has to end it");
    set_samples(false);
}
