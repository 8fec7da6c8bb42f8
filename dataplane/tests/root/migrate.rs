//! A switch of the layout before, with that layout's own programs, is taken over under traffic:
//! every packet arrives exactly once, counters go on, and entries are read back as they were.
//!
//! It is taken over by a process of its own that is killed at a step of that; an agent finishes
//! it. `SELVEDGE_SOAK=1`: at each step, and not only at those that are not like another.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use selvedge_pipeline::CounterKind;
use selvedge_xdp::Switch;

use super::forwarding::Stop;
use super::layout::{self, A, A_MAC, B, B_MAC};
use super::soak::{FRAME, INNER, Process, counters, quiet, receive, run_again, send};
use super::support::{Host, PATIENCE, Place, block_on, connect, in_netns, ip, until};

/// Tells [`an_agent_that_ends_early`] where: directory of pins, and a step that it does not
/// survive, by number.
const EARLY: &str = "SELVEDGE_MIGRATE_EARLY";

fn pins(place: &Place) -> PathBuf {
    Path::new("/sys/fs/bpf/selvedge").join(&place.instance)
}

/// Opens the switch and prints each step.
#[test]
#[ignore = "the tests' own process"]
fn an_agent_that_ends_early() {
    let Ok(text) = std::env::var(EARLY) else { return };
    let (pin_dir, last) = text.split_once(' ').unwrap();
    let (last, mut steps): (usize, usize) = (last.parse().unwrap(), 0);
    let options = selvedge_xdp::Options { pin_dir: pin_dir.into(), metering: true };
    let opened = Switch::open_in_steps(&options, &mut |step| {
        println!("step: {step}");
        if steps == last {
            kill(nix::unistd::getpid(), Signal::SIGKILL).unwrap();
        }
        steps += 1;
    });
    opened.unwrap_or_else(|error| panic!("{}", selvedge_dataplane::ports::chain(&error)));
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Killed,
    Failed,
    Opened,
}

/// Its steps, and how it ended. `descriptors`: how many it may have open.
fn end_early(pin_dir: &Path, last: usize, descriptors: u32) -> (Vec<String>, Ended) {
    let limit = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
    let test = run_again("migrate::an_agent_that_ends_early");
    let mut child = Command::new("sh")
        .args(["-c", &limit])
        .arg(test.get_program())
        .args(test.get_args())
        .env(EARLY, format!("{} {last}", pin_dir.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let status = child.wait().unwrap();
    let ended = match (status.signal(), status.success()) {
        (Some(9), _) => Ended::Killed,
        (None, true) => Ended::Opened,
        _ => Ended::Failed,
    };
    let steps = text.lines().filter_map(|line| line.split_once("step: "));
    (steps.map(|(_, step)| step.to_owned()).collect(), ended)
}

/// Two hosts at a switch of layout 5.
fn bed(place: &Place) -> (Host, Host) {
    let (a, b) = (Host::new("a"), Host::new("b"));
    let mut ports = Vec::new();
    for (host, port, address, mac) in [(&a, "p1", A, A_MAC), (&b, "p2", B, B_MAC)] {
        quiet(host, port, address);
        let [.., last] = mac;
        host.run(move || {
            ip(&format!("link set eth0 address 02:00:00:00:00:{last:02x}"));
            // The kernel forgets who was reached from the other address.
            ip("neighbor replace 169.254.1.1 lladdr 02:5e:1f:00:00:01 dev eth0");
        });
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{port}/disable_ipv6"), "1").unwrap();
        ip(&format!("link set {port} up"));
        let index = nix::net::if_::if_nametoindex(port).unwrap();
        ports.push((index, mac_of(port)));
    }
    layout::make_v5(&pins(place), ports.try_into().unwrap());
    (a, b)
}

/// By getifaddrs(3), which knows the thread's namespace.
fn mac_of(ifname: &str) -> [u8; 6] {
    let mut interfaces = nix::ifaddrs::getifaddrs().unwrap();
    let mac = interfaces.find_map(|interface| {
        let ours = interface.interface_name == ifname;
        ours.then_some(interface.address?).and_then(|address| address.as_link_addr()?.addr())
    });
    mac.unwrap()
}

/// One switch is taken over: by a process that is killed at step `last`, and then by an agent.
/// The steps of the first, and how long it was from its start to when the agent served.
fn taken_over(last: usize) -> (Vec<String>, Ended, Duration) {
    let mut outcome = None;
    in_netns(|| {
        let place = Place::new();
        let (a, b) = bed(&place);
        let (received, stop) = (Arc::new(AtomicU64::new(0)), Stop::new());
        let arrived = receive(&b, &received, &stop);
        let sent = send(&a, &received, &stop, None);
        let more = |packets: u64| {
            let (start, from) = (Instant::now(), received.load(Ordering::Relaxed));
            while received.load(Ordering::Relaxed) < from + packets {
                assert!(start.elapsed() < PATIENCE, "{packets} more than {from} do not arrive");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        more(500);
        let start = Instant::now();
        let (steps, ended) = end_early(&pins(&place), last, 1024);
        more(500);
        let agent = Process::start(&place);
        block_on(async { drop(connect(u128::MAX).await) });
        let took = start.elapsed();
        more(500);
        stop.0.store(true, Ordering::Relaxed);
        let (sent, _, time) = sent.recv().unwrap();
        let arrived = arrived.recv().unwrap();
        let (read, counted) = block_on(async {
            let (client, _channel) = connect(u128::MAX).await;
            let mut read = client.read_entries().await.unwrap();
            read.sort();
            (read, counters(&client).await)
        });
        let rate = sent as f64 / time.as_secs_f64();
        let at = steps.last().cloned().unwrap_or_default();
        println!(
            "{ended:?} at {last} ({at}): {sent} packets, {rate:.0} a second; longest pause {:.1?}",
            arrived.pause
        );
        arrived.each_once(sent);
        for (counter, counts) in counted {
            let wanted = match counter {
                CounterKind::PortRx | CounterKind::PortTx => (sent, sent * FRAME),
                CounterKind::SliceIn | CounterKind::SliceDelivered => (sent, sent * INNER),
                CounterKind::Drops
                | CounterKind::SliceDropped
                | CounterKind::Hook
                | CounterKind::PortTxErrors => (0, 0),
            };
            assert_eq!(counts, wanted, "{counter:?} after an end at {last}, {at}");
        }
        assert_eq!(read, layout::entries(), "after an end at {last}, {at}");
        let names = std::fs::read_dir(pins(&place)).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [format!("v{}", selvedge_xdp::common::LAYOUT_VERSION).as_str()]);
        // On a busy machine the sender waits for the receiver.
        assert!(rate > 5000.0, "{rate:.0} packets a second only");
        agent.stop();
        outcome = Some((steps, ended, took));
    });
    outcome.unwrap()
}

#[test]
fn a_layout_is_taken_over_under_traffic_and_whoever_dies_at_it_is_succeeded() {
    let (steps, ended, took) = taken_over(usize::MAX);
    assert_eq!(ended, Ended::Opened);
    println!("{} steps, {took:.1?} with the start of an agent afterwards", steps.len());
    let load = steps.iter().position(|step| step == "load").unwrap();
    let every = if std::env::var_os("SELVEDGE_SOAK").is_some() { 1 } else { load };
    for last in (0..steps.len()).filter(|n| *n >= load || n.is_multiple_of(every)) {
        let (done, ended, _) = taken_over(last);
        assert_eq!((&done[..], ended), (&steps[..=last], Ended::Killed));
    }
}

/// Descriptors run out, at any place: until the new layout is complete, the old one goes on as it
/// was, and afterwards the next agent finishes.
#[test]
fn a_take_over_that_fails_changes_nothing_or_is_finished_by_the_next() {
    in_netns(|| {
        let place = Place::new();
        let (_a, _b) = bed(&place);
        let pins = pins(&place);
        let new = pins.join(format!("v{}", selvedge_xdp::common::LAYOUT_VERSION));
        let links = |root: &Path| std::fs::read_dir(root.join("links")).unwrap().count();
        let mut failures = 0;
        for descriptors in (20..).step_by(6) {
            let (steps, ended) = end_early(&pins, usize::MAX, descriptors);
            println!("{descriptors} descriptors: {ended:?} after {:?}", steps.last());
            if ended == Ended::Opened {
                break;
            }
            assert_eq!(ended, Ended::Failed);
            assert!(!new.exists() && !pins.join("next").exists(), "{steps:?}");
            assert_eq!(links(&pins.join("v5")), 2);
            failures += 1;
            assert!(failures < 50, "it never opens");
        }
        assert!(failures > 2, "{failures}");
        assert!(!pins.join("v5").exists());
        assert_eq!(links(&new), 4, "two ports and two tracepoints");
        let agent = Process::start(&place);
        block_on(async {
            let (client, _channel) = connect(u128::MAX).await;
            until("entries are those of layout 5", async || {
                let mut read = client.read_entries().await.unwrap();
                read.sort();
                read == layout::entries()
            })
            .await;
        });
        agent.stop();
    });
}
