//! The programs on this thread, with the tables of a switch in the kernel.

use std::mem::offset_of;

use selvedge_ebpf_programs::host;
use selvedge_xdp::common::value::{ConfigValue, Scratch, SeenEvent};
use selvedge_xdp::{Switch, Verdict};

use crate::packets::HOOK;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// In place of the address of a socket.
const SOCKET: u32 = 1;

/// Begins anew with the tables of `switch`; [`HOOK`] has a socket.
pub(crate) fn load(switch: &Switch, metering: bool) {
    host::clear();
    for entry in switch.raw_entries().unwrap() {
        host::put(entry.map, &entry.key, &entry.value);
    }
    host::put("SOCKET", &u32::from(HOOK).to_ne_bytes(), &SOCKET.to_ne_bytes());
    let mut config = host::get("CONFIG", &[0; 4]).expect("an array");
    let at = offset_of!(ConfigValue, metering);
    config[at..at + 4].copy_from_slice(&u32::from(metering).to_ne_bytes());
    host::put("CONFIG", &[0; 4], &config);
}

fn scratch() -> Scratch {
    let bytes = host::get("SCRATCH", &[0; 4]).expect("an array");
    let word = |at: usize| u32::from_ne_bytes(*bytes[at..].first_chunk().unwrap());
    Scratch {
        end: word(offset_of!(Scratch, end)),
        detail: word(offset_of!(Scratch, detail)),
        in_profile: bytes[offset_of!(Scratch, in_profile)],
        ..Scratch::default()
    }
}

/// Whether the last packet was within the guarantee of its slice.
pub(crate) fn in_profile() -> bool {
    scratch().in_profile != 0
}

/// As `Switch::test_run` does it; the action must be that of the verdict.
pub(crate) fn run(ifindex: u32, frame: &[u8]) -> Verdict {
    let ran = host::run("entry", ifindex, frame);
    let scratch = scratch();
    let verdict = Verdict::of(&scratch, ran.frame);
    match verdict {
        Verdict::Forwarded { .. } | Verdict::ToHook { .. } => {
            assert_eq!((ran.action, ran.redirected), (XDP_REDIRECT, Some(scratch.detail)));
        }
        Verdict::Answered { .. } => assert_eq!(ran.action, XDP_REDIRECT),
        Verdict::Dropped(_) => assert_eq!(ran.action, XDP_DROP),
        Verdict::Passed => assert_eq!(ran.action, XDP_PASS),
    }
    verdict
}

/// What was told of sources that are not bound, since the last time.
pub(crate) fn seen() -> Vec<SeenEvent> {
    let records = host::records("EVENTS").into_iter();
    let half = |record: &[u8], at: usize| u64::from_ne_bytes(*record[at..].first_chunk().unwrap());
    records
        .map(|record| SeenEvent {
            address: [half(&record, 0), half(&record, 8)],
            mac: *record[offset_of!(SeenEvent, mac)..].first_chunk().unwrap(),
            port: u16::from_ne_bytes(*record[offset_of!(SeenEvent, port)..].first_chunk().unwrap()),
        })
        .collect()
}

/// The elements of a counter map, as words.
pub(crate) fn counters<const WORDS: usize>(map: &str, elements: u32) -> Vec<[u64; WORDS]> {
    (0..elements)
        .map(|index| {
            let bytes = host::get(map, &index.to_ne_bytes()).expect("within the array");
            let mut words =
                bytes.chunks_exact(8).map(|w| u64::from_ne_bytes(w.try_into().unwrap()));
            std::array::from_fn(|_| words.next().unwrap())
        })
        .collect()
}
