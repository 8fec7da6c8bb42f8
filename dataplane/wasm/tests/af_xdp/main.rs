//! The host against the real kernel: packets over a veth pair, AF_XDP and a module, each test
//! in a namespace of its own. Run as root.

mod agent;
mod net;

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use agent::{Rig, example, example_wat, load, wat};
use net::{Port, in_netns, ip};
use selvedge_southbound::selvedge::v1::{HookOnFailure, from_host::Message};

const OUTER: usize = 54;
const SOON: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(300);

/// A frame as the pipeline hands it over: outer header of slice 5, an IPv4 or IPv6 UDP packet
/// with a right checksum inside. `n` makes it different from others.
fn frame(n: u32, payload_len: usize) -> Vec<u8> {
    let mut payload = n.to_be_bytes().to_vec();
    payload.resize(payload_len.max(4), n as u8);
    let mut inner = Vec::new();
    if n.is_multiple_of(2) {
        let builder = etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 63);
        builder.udp(7, 9).write(&mut inner, &payload).unwrap();
    } else {
        let (a, b) = ([0xfd; 16], [0xfc; 16]);
        let builder = etherparse::PacketBuilder::ipv6(a, b, 63);
        builder.udp(7, 9).write(&mut inner, &payload).unwrap();
    }
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xDD];
    frame.extend([0x6B, 0x81, n as u8, (n >> 8) as u8]);
    frame.extend((inner.len() as u16).to_be_bytes());
    frame.extend([if n.is_multiple_of(2) { 4 } else { 41 }, 60]);
    frame.extend([0x5f, 0, 0, 0, 0, 3, 0xff, 0xfe, 0, 5, 0, 1, 0, 0, 0, 0]);
    frame.extend([0x5f, 0, 0, 0, 0, 7, 0xE0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(inner);
    frame
}

/// Sends `frames` in steps that fit the rings, and answers what comes back, in order.
fn exchange(port: &Port, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut back = Vec::new();
    for step in frames.chunks(200) {
        step.iter().for_each(|frame| port.send(frame));
        back.extend(step.iter().map_while(|_| port.receive(SOON)));
    }
    back
}

/// A hook with this body of `hook_batch` (`$d`, `$n`) and this manifest.
fn hook(batch: &str, manifest: &str) -> Vec<u8> {
    wat(&format!(
        r#"(module
          (memory (export "memory") 1)
          (func (export "hook_abi") (result i32) (i32.const 1))
          (func (export "hook_init") (param i32 i32) (result i32) (i32.const 0))
          (func (export "hook_batch") (param $d i32) (param $n i32) (result i32)
            {batch} (i32.const 0))
          (func (export "hook_quiesce"))
          (@custom "selvedge_hook" "{manifest}"))"#
    ))
}

#[test]
fn every_packet_comes_back_marked_under_its_own_outer_header() {
    in_netns(|| {
        let port = Port::new(1);
        let rig = Rig::start("mark");
        let mut mark = load(1, &port.socket_side, HookOnFailure::Drop);
        mark.hook.as_mut().unwrap().config = b"key=0x21".to_vec();
        rig.load(mark, &example("mark"));
        port.insert(rig.running(1).as_fd());

        let frames: Vec<_> = (0..5000).map(|n| frame(n, n as usize % 1453)).collect();
        let back = exchange(&port, &frames);
        assert_eq!(back.len(), frames.len());
        for (sent, got) in frames.iter().zip(&back) {
            assert_eq!(sent[..OUTER], got[..OUTER], "outer header");
            let [sent, got] = [sent, got]
                .map(|frame| etherparse::PacketHeaders::from_ip_slice(&frame[OUTER..]).unwrap());
            assert_eq!(sent.net, got.net);
            let marked: Vec<u8> = sent.payload.slice().iter().map(|byte| byte ^ 0x21).collect();
            assert_eq!(got.payload.slice(), marked);
            let udp = got.transport.unwrap().udp().unwrap();
            let checksum = match got.net.unwrap() {
                etherparse::NetHeaders::Ipv4(ip, _) => udp.calc_checksum_ipv4(&ip, &marked),
                etherparse::NetHeaders::Ipv6(ip, _) => udp.calc_checksum_ipv6(&ip, &marked),
                other => panic!("{other:?}"),
            };
            assert_eq!(udp.checksum, checksum.unwrap());
        }
        let stats = rig.stats(1, |stats| stats.received >= 5000);
        assert_eq!((stats.forwarded, stats.dropped, stats.invalid), (5000, 0, 0));
        assert_eq!(stats.counters, [5000], "the module's own count");
    });
}

#[test]
fn a_guest_that_overwrites_all_it_reaches_changes_no_outer_header() {
    in_netns(|| {
        let port = Port::new(1);
        let rig = Rig::start("forger");
        let mut forger = load(1, &port.socket_side, HookOnFailure::Drop);
        forger.hook.as_mut().unwrap().fuel_per_packet = 100_000_000;
        rig.load(forger, &example_wat("forger"));
        port.insert(rig.running(1).as_fd());
        // Bursts, so that packets wait in the rings while the guest writes.
        let frames: Vec<_> = (0..3000).map(|n| frame(n, 100)).collect();
        assert_eq!(exchange(&port, &frames), frames);
    });
}

#[test]
fn the_kernel_writes_into_the_guests_memory_while_the_guest_runs() {
    in_netns(|| {
        let port = Port::new(1);
        let rig = Rig::start("nocopy");
        // With one packet in hand it watches where the next frame's packet would begin, for at
        // most 4 ms. No code of the host runs meanwhile: what appears there, the kernel wrote.
        let module = wat(r#"(module
          (import "selvedge" "counter" (func $counter (param i32 i64)))
          (import "selvedge" "clock_ns" (func $clock (result i64)))
          (memory (export "memory") 1)
          (func (export "hook_abi") (result i32) (i32.const 1))
          (func (export "hook_init") (param i32 i32) (result i32) (i32.const 0))
          (func (export "hook_batch") (param $d i32) (param $n i32) (result i32)
            (local $next i32) (local $until i64)
            (if (i32.ne (local.get $n) (i32.const 1)) (then (return (i32.const 0))))
            (local.set $next (i32.add (i32.load (local.get $d)) (i32.const 4096)))
            (i32.store8 (local.get $next) (i32.const 0))
            (local.set $until (i64.add (call $clock) (i64.const 4000000)))
            (loop $watch
              (if (i32.load8_u (local.get $next))
                (then (call $counter (i32.const 0) (i64.const 1)) (return (i32.const 0))))
              (br_if $watch (i64.lt_u (call $clock) (local.get $until))))
            (i32.const 0))
          (func (export "hook_quiesce"))
          (@custom "selvedge_hook" "{\"imports\":[\"counter\",\"clock_ns\"]}"))"#);
        let mut request = load(1, &port.socket_side, HookOnFailure::Drop);
        request.hook.as_mut().unwrap().fuel_per_packet = 1 << 40;
        rig.load(request, &module);
        port.insert(rig.running(1).as_fd());
        // Frames are used in order at first, so that the next one is the adjacent one.
        for n in 0..200 {
            port.send(&frame(n, 60));
            std::thread::sleep(Duration::from_micros(500));
        }
        let stats = rig.stats(1, |stats| stats.received == 200);
        assert!(!stats.counters.is_empty(), "never seen in {} batches", stats.batches);
    });
}

#[test]
fn lengths_and_versions_follow_the_guest_and_a_reply_goes_back() {
    in_netns(|| {
        let port = Port::new(1);
        let rig = Rig::start("lengths");
        // Even packets (IPv4) lose their last 4 bytes, odd ones are answered with 4 more.
        let batch = "(local $i i32) (local $v i32)
            (loop $next
              (local.set $v
                (i32.shr_u (i32.load8_u (i32.load (local.get $d))) (i32.const 4)))
              (if (i32.eq (local.get $v) (i32.const 4))
                (then (i32.store offset=4 (local.get $d)
                  (i32.sub (i32.load offset=4 (local.get $d)) (i32.const 4))))
                (else
                  (i32.store offset=8 (local.get $d) (i32.const 2))
                  (i32.store offset=4 (local.get $d)
                    (i32.add (i32.load offset=4 (local.get $d)) (i32.const 4)))))
              (local.set $d (i32.add (local.get $d) (i32.const 16)))
              (br_if $next (i32.lt_u
                (local.tee $i (i32.add (local.get $i) (i32.const 1))) (local.get $n))))";
        let module = hook(batch, r#"{\"verdicts\":[\"reply\"]}"#);
        rig.load(load(1, &port.socket_side, HookOnFailure::Drop), &module);
        port.insert(rig.running(1).as_fd());
        let back = exchange(&port, &[frame(0, 100), frame(1, 100)]);
        let [short, reply] = back.as_slice() else { panic!("{back:?}") };
        let mut want = frame(0, 100);
        want.truncate(want.len() - 4);
        want[18..20].copy_from_slice(&124u16.to_be_bytes());
        assert_eq!(*short, want);
        assert_eq!(reply.len(), OUTER + 152);
        assert_eq!(reply[18..20], 152u16.to_be_bytes());
        assert_eq!(reply[38..46], [0x5f, 0, 0, 0, 0, 3, 0xE0, 1], "to node 3, uDT46");
        assert_eq!(reply[30..34], [0, 5, 0, 0], "slice 5, downlink");
    });
}

#[test]
fn a_failing_hook_is_quarantined_and_its_packets_get_what_the_load_says() {
    in_netns(|| {
        let ports = [Port::new(1), Port::new(2), Port::new(3), Port::new(4)];
        let rig = Rig::start("failing");
        let [endless, trap, strict, good] = &ports;
        let patient = |hook, port: &Port, on_failure| {
            let mut load = load(hook, &port.socket_side, on_failure);
            load.hook.as_mut().unwrap().fuel_per_packet = u64::MAX >> 8; // time must stop it
            load
        };
        rig.load(patient(1, endless, HookOnFailure::Bypass), &example_wat("loop"));
        rig.load(load(2, &trap.socket_side, HookOnFailure::Bypass), &example_wat("trap"));
        rig.load(load(3, &strict.socket_side, HookOnFailure::Drop), &example_wat("trap"));
        rig.load(load(4, &good.socket_side, HookOnFailure::Drop), &example("mark"));
        // Running comes in whatever order compilation ends.
        let mut waiting = 4;
        while waiting > 0 {
            rig.expect_with_fd(|message, fd| match message {
                Message::Running(running) => {
                    ports[running.hook as usize - 1].insert(fd.unwrap().as_fd());
                    Some(())
                }
                Message::Refused(refused) => panic!("{refused:?}"),
                _ => None,
            });
            waiting -= 1;
        }
        let frames: Vec<_> = (0..1000).map(|n| frame(n, 200)).collect();

        let start = Instant::now();
        endless.send(&frames[0]);
        let reason = rig.quarantined(1);
        let took = start.elapsed();
        assert!(reason.contains("ran longer than 10 ms"), "{reason}");
        assert!(took < Duration::from_millis(500), "{took:?}");
        assert_eq!(endless.receive(SOON).as_ref(), Some(&frames[0]), "bypassed unchanged");
        assert_eq!(exchange(endless, &frames), frames, "and all that come later");

        trap.send(&frames[2]);
        let reason = rig.quarantined(2);
        assert!(reason.contains("unreachable"), "{reason}");
        assert_eq!(trap.receive(SOON).as_ref(), Some(&frames[2]), "half-done change undone");

        strict.send(&frames[0]);
        rig.quarantined(3);
        strict.send(&frames[1]);
        assert_eq!(strict.receive(SHORT), None);
        let stats = rig.stats(3, |stats| stats.received == 2);
        assert_eq!((stats.failed, stats.bypassed), (2, 0));

        assert_eq!(exchange(good, &frames).len(), frames.len(), "the others go on");
        println!("endless loop quarantined after {took:?}");
    });
}

#[test]
fn hooks_outlive_the_agent_and_are_announced_to_the_next() {
    in_netns(|| {
        let ports = [Port::new(1), Port::new(2)];
        let mut rig = Rig::start("agent");
        rig.load(load(1, &ports[0].socket_side, HookOnFailure::Drop), &example_wat("forward"));
        ports[0].insert(rig.running(1).as_fd());
        rig.load(load(2, &ports[1].socket_side, HookOnFailure::Bypass), &example_wat("trap"));
        ports[1].insert(rig.running(2).as_fd());
        let frames: Vec<_> = (0..100).map(|n| frame(n, 60)).collect();
        exchange(&ports[1], &frames[..1]);
        rig.quarantined(2);

        rig.kill_agent();
        assert_eq!(exchange(&ports[0], &frames), frames, "while there is no agent");
        rig.restart_agent();
        let (mut running, mut quarantined) = (None, None);
        rig.expect_with_fd(|message, fd| match message {
            Message::Running(it) => {
                running = Some((it.hook, it.ifname, it.sha256.len(), fd.is_some()));
                None
            }
            Message::Quarantined(it) => {
                quarantined = Some(it.hook);
                None
            }
            Message::Announced(_) => Some(()),
            _ => None,
        });
        assert_eq!(running, Some((1, "hk1x".into(), 64, true)));
        assert_eq!(quarantined, Some(2));
        assert_eq!(exchange(&ports[0], &frames), frames, "after");
        // Asked for again as it is, it goes on as it is.
        rig.load(load(1, &ports[0].socket_side, HookOnFailure::Drop), &example_wat("forward"));
        drop(rig.running(1));
        assert_eq!(exchange(&ports[0], &frames), frames);

        rig.stop();
        ports[0].send(&frames[0]);
        assert_eq!(ports[0].receive(SHORT), None, "stopped: the socket has left the XSKMAP");
    });
}

#[test]
fn a_hook_is_replaced_by_a_good_module_only() {
    in_netns(|| {
        let port = Port::new(1);
        let rig = Rig::start("replace");
        let request = || load(1, &port.socket_side, HookOnFailure::Drop);
        rig.load(request(), &example_wat("forward"));
        port.insert(rig.running(1).as_fd());
        let frames: Vec<_> = (0..50).map(|n| frame(n, 60)).collect();

        for (module, want) in [
            (example_wat("no-abi"), "exports no `hook_abi`"),
            (example_wat("nosy"), "wasi_snapshot_preview1.fd_read"),
            (example_wat("hog"), "code 12"),
            (b"\x7fELF".to_vec(), "precompiled"),
            (b"(module)".to_vec(), "text form"),
            (b"garbage".to_vec(), "not a WebAssembly module"),
            (vec![0; (8 << 20) + 1], "at most 8388608"),
        ] {
            rig.load(request(), &module);
            let reason = rig.refused(1);
            assert!(reason.contains(want), "{reason}");
        }
        let mut elsewhere = request();
        elsewhere.ifname = "nowhere".into();
        elsewhere.hook.as_mut().unwrap().hook = 2;
        rig.load(elsewhere, &example_wat("forward"));
        let reason = rig.refused(2);
        assert!(reason.contains("no interface \"nowhere\""), "{reason}");
        assert_eq!(exchange(&port, &frames), frames, "what runs still runs");

        rig.load(request(), &example("mark"));
        port.insert(rig.running(1).as_fd());
        let back = exchange(&port, &frames);
        assert_eq!(back.len(), frames.len());
        assert_ne!(back, frames, "now marked");

        rig.unload(1);
        rig.expect(|message| matches!(message, Message::Unloaded(_)).then_some(()));
        port.send(&frames[0]);
        assert_eq!(port.receive(SHORT), None);
    });
}

#[test]
fn what_a_failure_means_is_changed_without_a_restart() {
    in_netns(|| {
        let port = Port::new(1);
        let rig = Rig::start("onfailure");
        // Fails at a packet of 99 bytes, and counts nothing anew: a restart would need the
        // new socket in the map.
        let batch = "(if (i32.eq (i32.load offset=4 (local.get $d)) (i32.const 99))
            (then (unreachable)))";
        let module = hook(batch, "{}");
        rig.load(load(1, &port.socket_side, HookOnFailure::Drop), &module);
        port.insert(rig.running(1).as_fd());
        rig.load(load(1, &port.socket_side, HookOnFailure::Bypass), &module);
        drop(rig.running(1));
        let fatal = frame(0, 99 - 28);
        // One at a time, since the module looks at the first of a batch only.
        for frame in [frame(2, 60), fatal] {
            port.send(&frame);
            assert_eq!(port.receive(SOON), Some(frame));
        }
        rig.quarantined(1);
    });
}

#[test]
fn repeated_packets_are_dropped_by_the_example() {
    in_netns(|| {
        let port = Port::new(1);
        let rig = Rig::start("deduplicate");
        let mut request = load(1, &port.socket_side, HookOnFailure::Drop);
        request.hook.as_mut().unwrap().config = b"window_ms=60000".to_vec();
        rig.load(request, &example("deduplicate"));
        port.insert(rig.running(1).as_fd());
        let frames: Vec<_> = (0..100).map(|n| frame(n, 60)).collect();
        assert_eq!(exchange(&port, &frames), frames);
        frames.iter().for_each(|frame| port.send(frame));
        assert_eq!(port.receive(SHORT), None, "all repeated");
        let stats = rig.stats(1, |stats| stats.received == 200);
        assert_eq!((stats.forwarded, stats.dropped), (100, 100));
        assert_eq!(stats.counters, [100, 100]);
    });
}

#[test]
fn an_interface_that_goes_away_ends_its_hook() {
    in_netns(|| {
        let port = Port::new(1);
        let rig = Rig::start("gone");
        rig.load(load(1, &port.socket_side, HookOnFailure::Drop), &example_wat("forward"));
        port.insert(rig.running(1).as_fd());
        ip("link del hk1");
        let reason = rig.expect(|message| match message {
            Message::Unloaded(unloaded) => Some(unloaded.reason),
            _ => None,
        });
        assert!(reason.contains("hk1x"), "{reason}");
    });
}

#[test]
fn frames_that_are_not_ours_are_dropped_and_counted() {
    in_netns(|| {
        let port = Port::new(1);
        let rig = Rig::start("foreign");
        rig.load(load(1, &port.socket_side, HookOnFailure::Bypass), &example_wat("forward"));
        port.insert(rig.running(1).as_fd());
        let good = frame(0, 400);
        let mut sent = 0;
        for len in 14..good.len() {
            port.send(&good[..len]);
            sent += 1;
        }
        assert_eq!(exchange(&port, std::slice::from_ref(&good)), [good]);
        let stats = rig.stats(1, |stats| stats.received == sent + 1);
        assert_eq!((stats.forwarded, stats.invalid), (1, sent));
    });
}
