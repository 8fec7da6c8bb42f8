//! Namespaces, links and wires, as root: what is made, what it does, and that all of it goes.

mod common;

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{binary, options, pair, route_pair, tool, unique, up};
use selvedge_lab::measure::Flow;
use selvedge_lab::{
    CaptureOptions, Family, Impairment, IperfOptions, Lab, LabError, PingOptions, end, netns,
};
use selvedge_topology::{BitRate, Delay, Loss, NodeName};

const BOTH: [Family; 2] = [Family::V4, Family::V6];

fn mbps(mbps: u64) -> BitRate {
    BitRate(mbps * 1_000_000)
}

/// Everything that may carry a lab's name.
fn traces(lab: &NodeName) -> Vec<String> {
    let prefix = format!("{lab}-");
    let spaces = fs::read_dir(netns::DIR).unwrap().map(|entry| entry.unwrap().file_name());
    let spaces = spaces.map(|name| name.into_string().unwrap());
    let mut found: Vec<_> = spaces.filter(|name| name.starts_with(&prefix)).collect();
    let dir = selvedge_lab::run_dir(lab);
    found.extend(dir.exists().then(|| dir.display().to_string()));
    found
}

#[test]
fn hosts_reach_each_other_over_a_plain_switch() {
    let lab = up("plain", &pair(""));
    assert_eq!(lab.hosts().unwrap(), ["a", "b"]);
    // Nobody forwards yet.
    let once = PingOptions { attempts: 1, timeout: Duration::from_millis(300), ..<_>::default() };
    let matrix = lab.pingall(&BOTH, once).unwrap();
    assert_eq!((matrix.reached(), matrix.pongs.len()), (0, 4));
    route_pair(&lab);
    let matrix = lab.pingall(&BOTH, PingOptions::default()).unwrap();
    assert!(matrix.is_complete(), "{matrix:?}");

    // What is where, and how it is set.
    let eth0 = tool(&lab, "a", "ip -d link show eth0");
    assert!(eth0.contains("mtu 1500") && eth0.contains("02:53:48:00:00:01"), "{eth0}");
    let offloads = tool(&lab, "a", "ethtool -k eth0");
    for line in [
        "tx-checksumming: off",
        "tx-tcp-segmentation: off",
        "generic-segmentation-offload: off",
        "generic-receive-offload: on",
    ] {
        assert!(offloads.contains(line), "{line}: {offloads}");
    }
    assert!(tool(&lab, "s", "ethtool -k p1").contains("generic-receive-offload: on"));
    let routes = tool(&lab, "a", "ip route");
    assert!(routes.contains("default via 169.254.1.1 dev eth0"), "{routes}");
    let addresses = tool(&lab, "a", "ip -6 address show dev eth0");
    assert!(addresses.contains("fd10::1/128") && !addresses.contains("tentative"), "{addresses}");

    let name = lab.name().clone();
    assert!(Lab::open(&name).is_ok());
    drop(lab);
    assert_eq!(traces(&name), Vec::<String>::new());
    assert!(matches!(Lab::open(&name), Err(LabError::NoSuchLab { .. })));
}

#[test]
fn ports_of_switches_have_no_addresses() {
    let lab = up("bare", &pair(""));
    let addresses = tool(&lab, "s", "ip address show dev p1");
    assert!(!addresses.contains("inet"), "{addresses}");
}

#[test]
fn a_wire_holds_its_rate() {
    let lab = up("rate", &pair(", capacity: 100Mbps"));
    route_pair(&lab);
    // Full-size frames: 1,500 bytes of IP in 1,514 of frame.
    let flow = Flow {
        packet_bytes: 1500,
        duration: Duration::from_secs(4),
        ..Flow::new("a", "b", mbps(200))
    };
    // A machine that pauses carries less meanwhile, never more.
    let mut rates = (0..3).map(|_| {
        let report = lab.start_flow(&flow).unwrap().finish();
        let frames = report.received_ip_bytes as f64 * 1514.0 / 1500.0 * 8.0;
        let rate = frames / report.receiving.as_secs_f64() / 1e6;
        eprintln!("{rate:.2} Mbit/s of frames, {:.1} % lost: {report:?}", report.loss() * 100.0);
        assert!(rate <= 101.0, "{rate} Mbit/s");
        rate
    });
    assert!(rates.any(|rate| rate >= 95.0));
    // Below the rate nothing is lost.
    let slow = Flow { packet_bytes: 1500, ..Flow::new("b", "a", mbps(80)) };
    let report = lab.start_flow(&slow).unwrap().finish();
    assert_eq!(report.lost(), 0, "{report:?}");
}

#[test]
fn iperf_fills_a_wire() {
    let lab = up("iperf", &pair(", capacity: 50Mbps"));
    route_pair(&lab);
    let options = IperfOptions { seconds: 3, ..IperfOptions::default() };
    let tcp = lab.iperf("a", "b", options).unwrap();
    let mbps_of = |rate: BitRate| rate.0 as f64 / 1e6;
    eprintln!("TCP {:.1} Mbit/s", mbps_of(tcp.received));
    assert!((42.0..=50.0).contains(&mbps_of(tcp.received)), "{tcp:?}");
    let udp = IperfOptions { udp: Some(mbps(20)), family: Family::V6, ..options };
    let udp = lab.iperf("b", "a", udp).unwrap();
    assert!((19.0..=21.0).contains(&mbps_of(udp.received)), "{udp:?}");
    assert!(udp.lost_percent.unwrap() < 0.5, "{udp:?}");
}

#[test]
fn a_wire_delays_and_loses() {
    assert!(binary().exists(), "cargo build -p selvedge first");
    let lab = up("relay", &pair(", capacity: 100Mbps, delay: 5ms"));
    route_pair(&lab);
    let flow = Flow { duration: Duration::from_secs(2), ..Flow::new("a", "b", mbps(20)) };
    let report = lab.start_flow(&flow).unwrap().finish();
    eprintln!("delay {:?}", report.delay);
    assert_eq!(report.lost(), 0, "{report:?}");
    assert!(report.delay.min >= Duration::from_millis(5), "{report:?}");
    assert!(report.delay.mean < Duration::from_millis(7), "{report:?}");

    let loss = Loss::from_ppm(100_000);
    let impairment = Impairment { delay: Some(Delay(0)), loss, ..Impairment::default() };
    assert_eq!(lab.impair("s", "b", impairment).unwrap(), []);
    let report = lab.start_flow(&flow).unwrap().finish();
    eprintln!("loss {:.2} %, delay {:?}", report.loss() * 100.0, report.delay);
    assert!((0.08..0.12).contains(&report.loss()), "{report:?}");
    assert!(report.delay.mean < Duration::from_millis(3), "{report:?}");

    let none = Impairment { loss: Loss::from_ppm(0), ..Impairment::default() };
    lab.impair("s", "b", none).unwrap();
    let report = lab.start_flow(&flow).unwrap().finish();
    assert_eq!(report.lost(), 0, "{report:?}");
    let rate = Impairment { rate: Some(mbps(10)), ..Impairment::default() };
    lab.impair("b", "s", rate).unwrap();
    let report = &lab.flows(&[Flow::new("a", "b", mbps(20))]).unwrap()[0];
    assert!((9..=10).contains(&(report.rate().0 / 1_000_000)), "{report:?}");
}

#[test]
fn a_plain_link_becomes_a_wire() {
    let lab = up("rewire", &pair(""));
    let rate = Impairment { rate: Some(mbps(10)), ..Impairment::default() };
    assert_eq!(lab.impair("s", "b", rate).unwrap().len(), 1);
    route_pair(&lab);
    assert!(lab.pingall(&BOTH, PingOptions::default()).unwrap().is_complete());
    let flow = Flow { duration: Duration::from_secs(2), ..Flow::new("a", "b", mbps(20)) };
    let report = lab.start_flow(&flow).unwrap().finish();
    assert!((9..=10).contains(&(report.rate().0 / 1_000_000)), "{report:?}");
    let refused = lab.impair("s", "b", Impairment { rate: Some(mbps(1000)), ..rate }).unwrap_err();
    assert!(matches!(refused, LabError::Argument { .. }), "{refused}");
}

#[test]
fn both_ends_notice_a_broken_wire() {
    let carrier = |lab: &Lab, node: &str, port: &str| {
        let shown = tool(lab, node, &format!("ip link show {port}"));
        (shown.contains("LOWER_UP"), shown.contains(",UP"))
    };
    for (name, figures) in [("cut-wire", ", capacity: 100Mbps"), ("cut-plain", "")] {
        let lab = up(name, &pair(figures));
        assert_eq!(carrier(&lab, "s", "p2"), (true, true), "{name}");
        let start = Instant::now();
        lab.link("b", "s", false).unwrap();
        let took = start.elapsed();
        assert_eq!(carrier(&lab, "b", "eth0"), (false, true), "{name}");
        assert!(!carrier(&lab, "s", "p2").0, "{name}");
        assert!(took < Duration::from_millis(500), "{name}: {took:?}");
        lab.link("s:p2", "b:eth0", true).unwrap();
        route_pair(&lab);
        let matrix = lab.pingall(&BOTH, PingOptions::default()).unwrap();
        assert!(matrix.is_complete(), "{name}: {matrix:?}");
    }
}

#[test]
fn a_host_moves_with_its_addresses() {
    let lab = up(
        "move",
        "  nodes:
    s: { kind: switch }
    t: { kind: switch }
    a: { kind: host, ipv4: 10.0.0.1/32, ipv6: fd10::1/128 }
    b: { kind: host, ipv4: 10.0.0.2/32, ipv6: fd10::2/128 }
    c: { kind: host, ipv4: 10.0.0.3/32, ipv6: fd10::3/128 }
    d: { kind: host, ipv4: 10.0.0.4/32, ipv6: fd10::4/128 }
  links:
    - { endpoints: ['s:p1', 'a:eth0'], capacity: 50Mbps }
    - { endpoints: ['s:p2', 'b:eth0'] }
    - { endpoints: ['t:p1', 'c:eth0'] }
    - { endpoints: ['s:p9', 't:p9'] }
",
    );
    assert_eq!(lab.attachment("a").unwrap().to_string(), "s:p1");
    // In the middle of sending.
    let flow = Flow { duration: Duration::from_millis(1500), ..Flow::new("a", "b", mbps(1)) };
    common::route_in(&lab, "s", &[("p1", "10.0.0.1", "fd10::1"), ("p2", "10.0.0.2", "fd10::2")]);
    let running = lab.start_flow(&flow).unwrap();
    while running.progress().1 < 20 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    let was = lab.move_host("a", &end("t:p2").unwrap()).unwrap();
    eprintln!("moved in {:?}", start.elapsed());
    assert_eq!(was.map(|was| was.to_string()).as_deref(), Some("s:p1"));
    assert_eq!(lab.attachment("a").unwrap().to_string(), "t:p2");
    running.finish();
    common::route_in(&lab, "t", &[("p2", "10.0.0.1", "fd10::1"), ("p1", "10.0.0.3", "fd10::3")]);
    for family in BOTH {
        let pongs = lab.ping("c", "a", family, 1, PingOptions::default()).unwrap();
        assert!(pongs[0].rtt.is_some(), "{family}");
    }
    assert_eq!(tool(&lab, "a", "ip -o link show").lines().count(), 2, "lo and eth0 only");

    // A host without a link gets one.
    assert_eq!(lab.move_host("d", &end("t:p4").unwrap()).unwrap(), None);
    assert_eq!(lab.attachment("d").unwrap().to_string(), "t:p4");
    common::route_in(&lab, "t", &[("p4", "10.0.0.4", "fd10::4")]);
    for family in BOTH {
        let pongs = lab.ping("c", "d", family, 1, PingOptions::default()).unwrap();
        assert!(pongs[0].rtt.is_some(), "{family}");
    }

    let refuse = |host: &str, to: &str| lab.move_host(host, &end(to).unwrap()).unwrap_err();
    assert!(matches!(refuse("a", "t:p1"), LabError::PortTaken { .. }));
    assert!(matches!(refuse("a", "b:p1"), LabError::NotASwitch { .. }));
    assert!(matches!(refuse("s", "t:p5"), LabError::NotAHost { .. }));
    assert!(matches!(refuse("x", "t:p5"), LabError::NoSuchNode { .. }));
}

#[test]
fn captures() {
    let lab = up(
        "capture",
        "  nodes:
    s: { kind: switch }
    t: { kind: switch }
    a: { kind: host, ipv4: 10.0.0.1/32 }
    b: { kind: host, ipv4: 10.0.0.2/32 }
  links:
    - { endpoints: ['s:p1', 'a:eth0'] }
    - { endpoints: ['s:p2', 'b:eth0'], capacity: 100Mbps }
    - { endpoints: ['s:p9', 't:p9'] }
",
    );
    let stop = std::sync::atomic::AtomicBool::new(false);
    let options = CaptureOptions {
        frames: None,
        duration: Some(Duration::from_secs(20)),
        stop: &stop,
        snap_bytes: 65_535,
    };
    let refused = lab.capture("s", "t", &mut Vec::new(), options, |_| {}).unwrap_err();
    assert!(matches!(refused, LabError::NoTap { .. }), "{refused}");

    for link in [("a", "s"), ("s", "b")] {
        stop.store(false, Ordering::Relaxed);
        let mut bytes = Vec::new();
        let captured = std::thread::scope(|scope| {
            let (sender, started) = std::sync::mpsc::channel();
            let (lab, bytes) = (&*lab, &mut bytes);
            let thread = scope.spawn(move || {
                lab.capture(link.0, link.1, bytes, options, |_| sender.send(()).unwrap())
            });
            started.recv().unwrap();
            let (node, port) = if link.0 == "a" { ("a", "eth0") } else { ("b", "eth0") };
            // A frame of ours out of the host: a question for the gateway.
            let _ = lab.output(node, &["ping", "-c1", "-W1", "-I", port, "10.9.9.9"]);
            let _ = lab.ping_address(
                node,
                "10.9.9.9".parse().unwrap(),
                1,
                PingOptions { attempts: 1, timeout: Duration::from_millis(300), ..<_>::default() },
            );
            stop.store(true, Ordering::Relaxed);
            thread.join().unwrap().unwrap()
        });
        assert!(captured.frames > 0, "{link:?}");
        // pcap: magic with nanoseconds, then Ethernet frames, the first at 24 + 16.
        assert_eq!(bytes[..4], 0xA1B2_3C4Du32.to_ne_bytes(), "{link:?}");
        let arp = bytes.windows(2).any(|at| at == [0x08, 0x06]);
        assert!(arp, "{link:?}: no ARP in {} bytes", bytes.len());
    }
}

#[test]
fn names_that_are_taken_are_refused_and_stay() {
    let lab = up("taken", &pair(""));
    let again = Lab::up(options("taken", &pair(""))).unwrap_err();
    assert!(matches!(again, LabError::Exists { .. }), "{again}");
    assert!(lab.netns("a").is_ok(), "the first lab is as it was");

    // A namespace of somebody else's.
    let foreign = format!("{}-a", unique("foreign"));
    let _theirs = netns::NetNs::create(&foreign).unwrap();
    let refused = Lab::up(options("foreign", &pair(""))).unwrap_err();
    assert!(matches!(refused, LabError::Taken { .. }), "{refused}");
    assert!(netns::exists(&foreign));
    netns::NetNs::delete(&foreign).unwrap();
    assert_eq!(traces(&unique("foreign").parse().unwrap()), Vec::<String>::new());
}

#[test]
fn a_lab_that_is_cancelled_or_cannot_start_leaves_nothing() {
    let cancelled = options("cancel", &pair(""));
    cancelled.cancel.store(true, Ordering::Relaxed);
    let refused = Lab::up(cancelled).unwrap_err();
    assert!(matches!(refused, LabError::Cancelled), "{refused}");
    assert_eq!(traces(&unique("cancel").parse().unwrap()), Vec::<String>::new());

    // A binary that ends at once.
    let mut broken = options("broken", &pair(", delay: 1ms"));
    broken.binary = "/bin/false".into();
    let refused = Lab::up(broken).unwrap_err();
    assert!(matches!(refused, LabError::Died { .. }), "{refused}");
    assert_eq!(traces(&unique("broken").parse().unwrap()), Vec::<String>::new());
}

#[test]
fn processes_inside_end_with_the_lab() {
    let lab = up("inside", &pair(""));
    let mut sleeper = std::process::Command::new("sleep");
    let mut child = lab.spawn("a", sleeper.arg("1000")).unwrap();
    drop(lab);
    let status = child.try_wait().unwrap();
    assert!(status.is_some(), "still there");
}
