//! Modules against the host's side of the ABI, without a socket.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use super::*;
use crate::{error::chain, outer::MIN_INNER};

const FUEL: u64 = 100_000;

struct Rig {
    machine: Machine,
    frames: Frames,
    events: mpsc::Receiver<Vec<u8>>,
    sink: mpsc::Sender<Vec<u8>>,
}

impl Rig {
    fn new() -> Self {
        let (sink, events) = mpsc::channel();
        Self { machine: Machine::new().unwrap(), frames: Frames::new().unwrap(), events, sink }
    }

    fn load_with(
        &self,
        module: &[u8],
        config: &[u8],
        fuel_per_packet: u64,
    ) -> Result<Guest, LoadError> {
        let terms = Terms { config, fuel_per_packet, memory_bytes: 4 << 20 };
        let sink = self.sink.clone();
        let sink = Box::new(move |payload| sink.send(payload).unwrap());
        Guest::load(&self.machine, module, &terms, &self.frames, sink)
    }

    fn load(&self, wat: &str) -> Result<Guest, LoadError> {
        self.load_with(&wat::parse_str(wat).unwrap(), b"", FUEL)
    }

    /// Runs packets of 100 bytes, each filled with its index, in frames 0, 1, ..
    fn run(&self, guest: &mut Guest, n: u32) -> Result<Vec<Decision>, Failure> {
        let packets: Vec<_> = (0..n)
            .map(|frame| {
                self.frames.write_inner(frame, &[frame as u8; 100]);
                guest.describe(frame, 100, 5)
            })
            .collect();
        let mut decisions = Vec::new();
        guest.run(&packets, &mut decisions).map(|()| decisions)
    }
}

/// A hook with the given body of `hook_batch` (locals `$d`, `$n`) and additions.
fn hook(batch: &str, more: &str) -> String {
    format!(
        r#"(module
          {more}
          (memory (export "memory") 1)
          (func (export "hook_abi") (result i32) (i32.const 1))
          (func (export "hook_init") (param i32 i32) (result i32) (i32.const 0))
          (func (export "hook_batch") (param $d i32) (param $n i32) (result i32) {batch})
          (func (export "hook_quiesce")))"#
    )
}

fn example(name: &str) -> Vec<u8> {
    let path = format!("{}/../../examples/hooks/wat/{name}.wat", env!("CARGO_MANIFEST_DIR"));
    wat::parse_file(path).unwrap()
}

#[test]
fn a_packet_is_read_and_changed_where_it_lies() {
    let rig = Rig::new();
    // Adds 1 to the packet's first byte, and shortens it by the slice id that it is told.
    let batch = "
        (i32.store8 (i32.load (local.get $d))
            (i32.add (i32.load8_u (i32.load (local.get $d))) (i32.const 0x46)))
        (i32.store offset=4 (local.get $d)
            (i32.sub (i32.load offset=4 (local.get $d)) (i32.load offset=12 (local.get $d))))
        (i32.store offset=24 (local.get $d) (i32.const 1))
        (i32.const 0)";
    let mut guest = rig.load(&hook(batch, "")).unwrap();
    let decisions = rig.run(&mut guest, 3).unwrap();
    assert_eq!(
        decisions,
        [Decision::Forward { len: 95 }, Decision::Drop, Decision::Forward { len: 100 }]
    );
    let mut inner = [0; 2];
    rig.frames.read_inner(0, &mut inner);
    assert_eq!(inner, [0x46, 0]);
    guest.quiesce().unwrap();
}

#[test]
fn what_is_no_hook_is_refused_with_its_reason() {
    let rig = Rig::new();
    let plain = hook("(i32.const 0)", "");
    let cases: &[(&str, String, &str)] = &[
        ("no memory", plain.replace("(export \"memory\")", ""), "exports no `memory`"),
        ("no abi", plain.replace("hook_abi", "hook_api"), "exports no `hook_abi`"),
        ("type", plain.replace("(param i32 i32)", "(param i32 i64)"), "`hook_init` has another"),
        ("not a function", "(module (memory (export \"memory\") 1) (global (export \"hook_abi\") i32 (i32.const 1)))".into(), "`hook_abi` has another type"),
        ("abi 2", plain.replace("(i32.const 1))", "(i32.const 2))"), "hook ABI 2"),
        ("full memory", plain.replace("\"memory\") 1", "\"memory\") 1 8"), "no room for the packet window"),
        ("init", plain.replace("(param i32 i32) (result i32) (i32.const 0)", "(param i32 i32) (result i32) (i32.const 7)"), "code 7"),
        ("start", hook("(i32.const 0)", "(func $s unreachable) (start $s)"), "instantiated: trapped: wasm trap: wasm `unreachable`"),
        ("endless start", hook("(i32.const 0)", "(func $s (loop $l (br $l))) (start $s)"), "used up its fuel"),
        ("too large", plain.replace("\"memory\") 1", "\"memory\") 100"), "instantiated"),
        ("import type", hook("(i32.const 0)", "(import \"selvedge\" \"counter\" (global i32))"), "selvedge.counter"),
        ("imported memory", plain.replace("(memory (export \"memory\") 1)", "(import \"env\" \"memory\" (memory 1)) (export \"memory\" (memory 0))"), "env.memory"),
        ("memory64", plain.replace("\"memory\") 1", "\"memory\") i64 1"), "does not compile"),
    ];
    for (name, wat, want) in cases {
        let error = rig.load(wat).err().unwrap_or_else(|| panic!("{name} was taken in"));
        let reason = chain(&error);
        assert!(reason.contains(want), "{name}: {reason}");
    }
    let examples = [
        ("no-abi", "exports no `hook_abi`"),
        ("nosy", "imports what no hook is given: wasi_snapshot_preview1.fd_read"),
        ("hog", "code 12"),
    ];
    for (name, want) in examples {
        let error = rig.load_with(&example(name), b"", FUEL).err().unwrap();
        let reason = chain(&error);
        assert!(reason.contains(want), "{name}: {reason}");
    }
}

#[test]
fn imports_need_the_manifest() {
    let rig = Rig::new();
    let import = r#"(import "selvedge" "clock_ns" (func (result i64)))
                    (import "selvedge" "emit" (func (param i32 i32) (result i32)))"#;
    let reason = chain(&rig.load(&hook("(i32.const 0)", import)).err().unwrap());
    assert!(reason.contains("selvedge.clock_ns, selvedge.emit"), "{reason}");
    let manifest = r#"(@custom "selvedge_hook" "{\"imports\":[\"emit\",\"clock_ns\"]}")"#;
    rig.load(&hook("(i32.const 0)", &format!("{import} {manifest}"))).unwrap();
}

#[test]
fn imports_do_what_they_say() {
    let rig = Rig::new();
    let more = r#"
        (import "selvedge" "counter" (func $counter (param i32 i64)))
        (import "selvedge" "clock_ns" (func $clock (result i64)))
        (import "selvedge" "map_put" (func $put (param i32 i32 i32 i32) (result i32)))
        (import "selvedge" "map_get" (func $get (param i32 i32 i32 i32) (result i32)))
        (import "selvedge" "emit" (func $emit (param i32 i32) (result i32)))
        (@custom "selvedge_hook"
          "{\"imports\":[\"counter\",\"clock_ns\",\"map_put\",\"map_get\",\"emit\"]}")
        (data (i32.const 100) "keyvalue")
        (func $check (param i32) (if (i32.eqz (local.get 0)) (then (unreachable))))"#;
    let batch = "
        (call $counter (i32.const 3) (i64.const 5))
        (call $counter (i32.const 3) (i64.extend_i32_u (local.get $n)))
        (call $check (i64.gt_u (call $clock) (i64.const 0)))
        (call $check (i32.eq (i32.const -1)
          (call $get (i32.const 100) (i32.const 3) (i32.const 200) (i32.const 8))))
        (call $check (i32.eqz
          (call $put (i32.const 100) (i32.const 3) (i32.const 103) (i32.const 5))))
        (call $check (i32.eq (i32.const 5)
          (call $get (i32.const 100) (i32.const 3) (i32.const 200) (i32.const 4))))
        (call $check (i32.eq (i32.load (i32.const 200)) (i32.const 0x756c6176)))
        (call $check (i32.eqz (i32.load8_u (i32.const 204))))
        (call $check (i32.eq (i32.const -2)
          (call $put (i32.const 100) (i32.const 65) (i32.const 103) (i32.const 5))))
        (call $check (i32.eqz
          (call $put (i32.const 100) (i32.const 3) (i32.const 103) (i32.const 0))))
        (call $check (i32.eq (i32.const -1)
          (call $get (i32.const 100) (i32.const 3) (i32.const 200) (i32.const 8))))
        (call $check (i32.eqz (call $emit (i32.const 103) (i32.const 5))))
        (call $check (i32.eq (i32.const -2) (call $emit (i32.const 0) (i32.const 257))))
        (i32.const 0)";
    let mut guest = rig.load(&hook(batch, more)).unwrap();
    rig.run(&mut guest, 2).unwrap();
    assert_eq!(guest.state().counters[3], 7);
    assert_eq!(rig.events.try_recv().unwrap(), b"value");
}

#[test]
fn an_import_called_with_bad_arguments_traps() {
    let rig = Rig::new();
    let more = r#"
        (import "selvedge" "counter" (func $counter (param i32 i64)))
        (import "selvedge" "emit" (func $emit (param i32 i32) (result i32)))
        (@custom "selvedge_hook" "{\"imports\":[\"counter\",\"emit\"]}")"#;
    for (call, want) in [
        ("(call $counter (i32.const 16) (i64.const 1)) (i32.const 0)", "counter 16 of 16"),
        ("(call $emit (i32.const -1) (i32.const 8))", "8 bytes at 4294967295"),
    ] {
        let mut guest = rig.load(&hook(call, more)).unwrap();
        let reason = chain(&rig.run(&mut guest, 1).unwrap_err());
        assert!(reason.contains(want), "{reason}");
    }
}

#[test]
fn a_guest_that_breaks_the_abi_is_told_from_one_that_traps() {
    let rig = Rig::new();
    let set = |at: u32, to: i64| {
        hook(&format!("(i32.store offset={at} (local.get $d) (i32.const {to})) (i32.const 0)"), "")
    };
    let cases: &[(String, &str)] = &[
        (set(16, 5), "descriptor 1: offset moved"),
        (set(4, MIN_INNER as i64 - 1), "descriptor 0: length 19"),
        (set(20, MAX_INNER as i64 + 1), "descriptor 1: length 1501"),
        (set(8, 2), "descriptor 0: verdict `reply` is not among"),
        (set(8, 3), "descriptor 0: verdict `steer`"),
        (set(24, 77), "descriptor 1: unknown verdict 77"),
        (hook("(i32.const 9)", ""), "hook_batch answered 9"),
        (hook("(i32.div_u (i32.const 1) (i32.const 0))", ""), "trapped: wasm trap: integer divide"),
        (hook("(i32.load (i32.const 0x7fffffff))", ""), "out of bounds memory access"),
        (
            hook(
                "(call $deep (i32.const 0))",
                "(func $deep (param i32) (result i32) (call $deep (i32.add (i32.const 1) (local.get 0))))",
            ),
            "call stack exhausted",
        ),
        (
            hook(
                "(loop $l (br_if $l (i32.ne (i32.const -1) (memory.grow (i32.const 1))))) (unreachable)",
                "",
            ),
            "`unreachable`",
        ),
    ];
    for (wat, want) in cases {
        let mut guest = rig.load(wat).unwrap();
        let reason = chain(&rig.run(&mut guest, 3).unwrap_err());
        assert!(reason.contains(want), "{want}: {reason}");
    }
    let reply = r#"(@custom "selvedge_hook" "{\"verdicts\":[\"reply\"]}")"#;
    let reply = set(8, 2).replace("(module", &format!("(module {reply}"));
    let mut guest = rig.load(&reply).unwrap();
    assert_eq!(rig.run(&mut guest, 1).unwrap(), [Decision::Reply { len: 100 }]);
}

#[test]
fn memory_is_what_was_granted_and_the_window_besides() {
    let rig = Rig::new();
    // Grows by single pages until refused, and says how many there were.
    let batch = "(local $pages i32)
        (loop $l
          (if (i32.ne (i32.const -1) (memory.grow (i32.const 1)))
            (then (local.set $pages (i32.add (local.get $pages) (i32.const 1))) (br $l))))
        (local.get $pages)";
    let mut guest = rig.load(&hook(batch, "")).unwrap();
    let reason = chain(&rig.run(&mut guest, 1).unwrap_err());
    // 4 MiB are 64 pages, one of which the module began with.
    assert!(reason.contains("hook_batch answered 63"), "{reason}");
}

#[test]
fn an_endless_loop_ends_by_fuel_or_by_time() {
    let rig = Rig::new();
    let module = example("loop");
    let mut guest = rig.load_with(&module, b"", FUEL).unwrap();
    let reason = chain(&rig.run(&mut guest, 2).unwrap_err());
    assert!(reason.contains("used up its fuel of 200000"), "{reason}");

    let mut guest = rig.load_with(&module, b"", u64::MAX / 64).unwrap();
    let start = Instant::now();
    let failure = rig.run(&mut guest, 2).unwrap_err();
    let took = start.elapsed();
    assert!(matches!(failure, Failure::Overran { .. }), "{failure:?}");
    // 10 ms of processor time and a tick; the rest is what else this machine does.
    assert!(took >= Duration::from_millis(9) && took < Duration::from_millis(400), "{took:?}");
}

#[test]
fn no_byte_in_reach_is_an_outer_header() {
    let rig = Rig::new();
    for frame in 0..FRAMES {
        rig.frames.write_outer(frame, &[0xAB; crate::outer::OUTER]);
    }
    let mut guest = rig.load_with(&example("forger"), b"", 100_000_000).unwrap();
    rig.run(&mut guest, 64).unwrap();
    for frame in 0..FRAMES {
        assert_eq!(rig.frames.read_outer(frame), [0xAB; crate::outer::OUTER], "frame {frame}");
    }
}
