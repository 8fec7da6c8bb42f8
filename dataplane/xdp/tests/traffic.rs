//! Real packets between namespaces: the kernel's own ARP, neighbor discovery, UDP and TCP
//! through a switch, and what becomes of them when the agent goes.

mod common;

use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::{PinDir, in_netns, interface, ip};
use nix::sched::{CloneFlags, setns, unshare};
use selvedge_xdp::{
    Delivery, Direction, Endpoint, EndpointSeen, LocalSid, NextHop, Policy, PortKind, Route,
    RouteAction, Switch, Table, offload,
};

/// A namespace held open by a thread, with one interface whose other end is a port.
struct Host {
    stop: mpsc::Sender<()>,
    thread: Option<thread::JoinHandle<()>>,
    netns: std::fs::File,
}

impl Host {
    /// `name` here, `eth0` there.
    fn new(name: &str) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let (up, comes_up) = mpsc::channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            up.send(nix::unistd::gettid()).unwrap();
            let _ = stopped.recv();
        });
        let tid = comes_up.recv().unwrap();
        ip(&format!("link add {name} type veth peer name eth0 netns {tid}"));
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
        ip(&format!("link set {name} up"));
        let netns = std::fs::File::open(format!("/proc/{tid}/ns/net")).unwrap();
        Self { stop, thread: Some(thread), netns }
    }

    fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let run = scope.spawn(|| {
                setns(&self.netns, CloneFlags::CLONE_NEWNET).unwrap();
                body()
            });
            run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn configure(&self, addresses: [&str; 2]) {
        self.run(|| {
            std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0").unwrap();
            ip("link set lo up");
            ip("link set eth0 mtu 1500 up");
            offload::prepare_veth("eth0").unwrap();
            for address in addresses {
                ip(&format!("addr add {address} dev eth0 nodad"));
            }
            ip("route add 169.254.1.1 dev eth0");
            ip("route add default via 169.254.1.1 dev eth0");
            ip("-6 route add default via fe80::1 dev eth0");
        });
    }

    fn mac(&self) -> [u8; 6] {
        self.run(|| interface("eth0").mac)
    }

    /// Whether a datagram to `address` of `other` gets there and is answered.
    fn reaches(&self, other: &Self, address: &str) -> bool {
        let echo = other.run(|| UdpSocket::bind((address, 0)).unwrap());
        echo.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let to = echo.local_addr().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = [0; 16];
                if let Ok((len, from)) = echo.recv_from(&mut buffer) {
                    echo.send_to(&buffer[..len], from).unwrap();
                }
            });
            self.run(|| {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                socket.send_to(b"hello", to).unwrap();
                let mut buffer = [0; 16];
                socket.recv(&mut buffer).is_ok_and(|len| &buffer[..len] == b"hello")
            })
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const A: [&str; 2] = ["10.1.0.11/32", "fd10::11/128"];
const B: [&str; 2] = ["10.1.0.12/32", "fd10::12/128"];

fn bind(switch: &Switch, port: u16, addresses: [&str; 2], mac: [u8; 6]) {
    switch.port.put(port, &PortKind::Access).unwrap();
    for address in addresses {
        let net = address.parse().unwrap();
        let endpoint = Endpoint { slice_set: 1, direction: Direction::Uplink, endpoint: 0, tag: 0 };
        switch.endpoint.put((port, net), &endpoint).unwrap();
        switch.delivery.put((1, net), &Delivery { port, mac, tunnel: None }).unwrap();
    }
}

fn route(switch: &Switch, addresses: [&str; 2], action: RouteAction) {
    for address in addresses {
        switch
            .route
            .put((1, address.parse().unwrap()), &Route { slice: 1, action, endpoint: 0 })
            .unwrap();
    }
}

/// Two switches in one namespace: `a` with host A, `b` with host B, a veth between.
struct Pair {
    a: Switch,
    b: Switch,
    host_a: Host,
    host_b: Host,
    pins_a: PinDir,
    pins_b: PinDir,
}

fn pair() -> Pair {
    let (host_a, host_b) = (Host::new("ha"), Host::new("hb"));
    host_a.configure(A);
    host_b.configure(B);
    ip("link add fa mtu 1600 type veth peer name fb mtu 1600");
    for end in ["fa", "fb"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1").unwrap();
        ip(&format!("link set {end} up"));
    }
    let (pins_a, pins_b) = (PinDir::new(), PinDir::new());
    let (mut a, mut b) = (pins_a.open(), pins_b.open());
    a.attach(1, &interface("ha")).unwrap();
    a.attach(2, &interface("fa")).unwrap();
    b.attach(1, &interface("hb")).unwrap();
    b.attach(2, &interface("fb")).unwrap();
    bind(&a, 1, A, host_a.mac());
    bind(&b, 1, B, host_b.mac());
    let sides = [(&a, 1, 2, "fb", A, B), (&b, 2, 1, "fa", B, A)];
    for (switch, own, other, neighbor, here, there) in sides {
        switch.port.put(2, &PortKind::Fabric).unwrap();
        switch.local_sid.put(own, &LocalSid::Node).unwrap();
        switch.local_sid.put(0xE001, &LocalSid::Decapsulate).unwrap();
        let mac = interface(neighbor).mac;
        switch.next_hop.put(other, &NextHop { port: 2, mac, backup: 0 }).unwrap();
        switch.policy.put(1, &Policy::one(&[other, 0xE001])).unwrap();
        route(switch, here, RouteAction::Local);
        route(switch, there, RouteAction::Policy(1));
    }
    Pair { a, b, host_a, host_b, pins_a, pins_b }
}

fn drops(switch: &Switch, name: &str) -> u64 {
    let named = switch.counters.named_drops().unwrap();
    named.into_iter().find(|(found, _)| *found == name).map_or(0, |(_, count)| count)
}

#[test]
fn hosts_find_the_gateway_and_reach_each_other_over_the_fabric() {
    in_netns(|| {
        let net = pair();
        for address in ["10.1.0.12", "fd10::12"] {
            assert!(
                net.host_a.reaches(&net.host_b, address),
                "{address}: {:?} {:?}, {:?} {:?}",
                net.a.counters.totals(),
                net.a.counters.named_drops(),
                net.b.counters.totals(),
                net.b.counters.named_drops(),
            );
        }
        for address in ["10.1.0.11", "fd10::11"] {
            assert!(net.host_b.reaches(&net.host_a, address), "{address}");
        }
        // The kernel's ARP and neighbor discovery have learned the any-cast address.
        let neighbors = net.host_a.run(|| {
            let output = Command::new("ip").args(["neigh"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        });
        for gateway in ["169.254.1.1", "fe80::1"] {
            let line = neighbors.lines().find(|line| line.starts_with(gateway));
            let line = line.unwrap_or_else(|| panic!("{gateway} in {neighbors}"));
            assert!(line.contains("02:5e:1f:00:00:01"), "{line}");
        }
        // TCP with packets of every size up to the MTU, both versions.
        for address in ["10.1.0.12", "fd10::12"] {
            let listener = net.host_b.run(|| std::net::TcpListener::bind((address, 0)).unwrap());
            let port = listener.local_addr().unwrap().port();
            let sink = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
            });
            net.host_a.run(|| {
                use std::io::Write;
                let mut stream = std::net::TcpStream::connect((address, port)).unwrap();
                stream.write_all(&vec![7; 3_000_000]).unwrap();
            });
            assert_eq!(sink.join().unwrap(), 3_000_000);
        }
        for switch in [&net.a, &net.b] {
            let totals = switch.counters.totals().unwrap();
            assert_eq!(
                totals.received,
                totals.forwarded + totals.passed + totals.answered + totals.dropped,
                "{totals:?}"
            );
            assert!(totals.forwarded > 2000 && totals.answered >= 2, "{totals:?}");
        }
        assert_eq!(
            net.a.counters.port(2).unwrap().tx_packets,
            net.b.counters.port(2).unwrap().rx_packets,
            "the veth lost nothing"
        );
    });
}

/// A UDP stream from A to B for `time`, one packet a tenth of a millisecond: sent, received.
fn stream(net: &Pair, time: Duration) -> (u32, u32) {
    let receiver = net.host_b.run(|| UdpSocket::bind("10.1.0.12:5001").unwrap());
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    thread::scope(|scope| {
        let count = scope.spawn(|| {
            let mut count = 0;
            let mut buffer = [0; 64];
            while receiver.recv(&mut buffer).is_ok() {
                count += 1;
            }
            count
        });
        let sent = net.host_a.run(|| {
            let socket = UdpSocket::bind("10.1.0.11:0").unwrap();
            socket.connect("10.1.0.12:5001").unwrap();
            let end = Instant::now() + time;
            let mut sent = 0u32;
            while Instant::now() < end {
                socket.send(&sent.to_be_bytes()).unwrap();
                sent += 1;
                thread::sleep(Duration::from_micros(100));
            }
            sent
        });
        (sent, count.join().unwrap())
    })
}

#[test]
fn a_new_agent_takes_over_under_traffic_and_no_packet_is_lost() {
    in_netns(|| {
        let net = pair();
        assert!(net.host_a.reaches(&net.host_b, "10.1.0.12"));
        let done = std::sync::atomic::AtomicBool::new(false);
        let (lost, takeovers) = thread::scope(|scope| {
            let agents = scope.spawn(|| {
                let mut takeovers = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    drop(net.pins_a.open());
                    drop(net.pins_b.open());
                    takeovers += 1;
                }
                takeovers
            });
            let (sent, received) = stream(&net, Duration::from_secs(2));
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(sent > 1000);
            (sent - received, agents.join().unwrap())
        });
        assert!(takeovers >= 2, "{takeovers}");
        assert_eq!(lost, 0, "during {takeovers} takeovers");
    });
}

/// Waits for an event.
fn next_event(events: &mut selvedge_xdp::Events) -> Option<EndpointSeen> {
    let mut poll = libc::pollfd { fd: events.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&raw mut poll, 1, 1000) };
    events.next()
}

#[test]
fn unbound_sources_are_told_once_a_second_and_a_flood_does_not_swamp() {
    in_netns(|| {
        let net = pair();
        let mut events = net.a.events().unwrap();
        while events.next().is_some() {}
        // A moves: its address is not bound any more.
        net.a.endpoint.remove((1, A[0].parse().unwrap())).unwrap();
        let before = drops(&net.a, "spoofed_source");
        net.host_a.run(|| {
            let socket = UdpSocket::bind("10.1.0.11:0").unwrap();
            for _ in 0..50 {
                let _ = socket.send_to(b"x", "10.1.0.12:9");
            }
        });
        let event = next_event(&mut events).expect("an event");
        let want = EndpointSeen {
            port: 1,
            mac: net.host_a.mac(),
            address: "10.1.0.11".parse::<IpAddr>().unwrap(),
        };
        assert_eq!(event, want);
        assert_eq!(events.next(), None, "once a second");
        assert!(drops(&net.a, "spoofed_source") > before);

        // On a port that has no entry nothing is answered, and who is there is told all the same.
        net.a.port.remove(1).unwrap();
        let before = drops(&net.a, "port_disabled");
        let ifindex = interface("ha").index;
        let mut arp = vec![0xFF; 6];
        arp.extend([2, 0, 0, 0, 0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 10, 9, 0, 1]);
        arp.extend([0, 0, 0, 0, 0, 0, 169, 254, 1, 1]);
        let mut v6 = Vec::new();
        let own = "fd10::77".parse::<std::net::Ipv6Addr>().unwrap().octets();
        let fabric = "5f00:0:7::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
        for source in [own, fabric] {
            let mut frame = Vec::new();
            etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 7], [2; 6])
                .ipv6(source, own, 64)
                .udp(1, 2)
                .write(&mut frame, b"x")
                .unwrap();
            v6.push(frame);
        }
        for frame in [&arp, &arp[..41].to_vec(), &v6[0], &v6[1]] {
            net.a.test_run(ifindex, frame).unwrap();
        }
        let told: Vec<IpAddr> =
            std::iter::from_fn(|| events.next()).map(|event| event.address).collect();
        assert_eq!(told, ["10.9.0.1", "fd10::77"].map(|a| a.parse::<IpAddr>().unwrap()));
        assert_eq!(drops(&net.a, "port_disabled"), before + 4);
        net.a.port.put(1, &PortKind::Access).unwrap();

        // Ten thousand forged sources.
        let ifindex = interface("ha").index;
        for n in 0..10_000u32 {
            let mut frame = Vec::new();
            let source = (0x0b00_0000 + n).to_be_bytes();
            etherparse::PacketBuilder::ethernet2([2; 6], [2, 0, 0, 0, 0, 7])
                .ipv4(source, [10, 1, 0, 12], 9)
                .udp(1, 2)
                .write(&mut frame, b"x")
                .unwrap();
            net.a.test_run(ifindex, &frame).unwrap();
        }
        let told = std::iter::from_fn(|| events.next()).count();
        assert!((50..1000).contains(&told), "{told} events for 10,000 sources");
    });
}

#[test]
fn hook_frames_find_the_socket_or_are_counted() {
    in_netns(|| {
        let pins = PinDir::new();
        let mut switch = pins.open();
        let p1 = common::veth("p1");
        switch.attach(1, &p1).unwrap();
        switch.port.put(1, &PortKind::Fabric).unwrap();
        let hook = common::veth("hk4");
        switch.attach_hook(4, &hook, &interface("hk4h")).unwrap();
        switch.local_sid.put(0xE104, &LocalSid::Compute { hook: 4, bypass: false }).unwrap();
        switch.set_hook_state(4, Some(selvedge_xdp::HookState::Running)).unwrap();
        let mut frame = vec![2u8; 12];
        frame.extend([0x86, 0xDD, 0x60, 0, 0, 0, 0, 20, 4, 64]);
        let source = [0x5f00u16, 0, 9, 0xfffe, 1, 1, 0, 0];
        let destination = [0x5f00u16, 0, 0xE104, 7, 0xE001, 0, 0, 0];
        frame.extend(source.into_iter().chain(destination).flat_map(u16::to_be_bytes));
        frame.extend([0; 20]);
        let socket = common::xdp_socket();
        switch.set_hook_socket(4, socket.as_fd()).unwrap();
        switch.inject(p1.index, &frame, 50).unwrap();
        switch.inject(p1.index, &frame, 50).unwrap();
        assert_eq!(switch.counters.hook(4).unwrap().to_packets, 100);

        // Its process dies: the next packet knows, without the agent.
        drop(socket);
        switch.inject(p1.index, &frame, 10).unwrap();
        let counters = switch.counters.hook(4).unwrap();
        assert_eq!((counters.to_packets, counters.refused), (100, 10), "{counters:?}");
        switch.local_sid.put(0xE104, &LocalSid::Compute { hook: 4, bypass: true }).unwrap();
        switch.inject(p1.index, &frame, 10).unwrap();
        let counters = switch.counters.hook(4).unwrap();
        assert_eq!((counters.to_packets, counters.bypassed), (100, 10), "{counters:?}");
        switch.local_sid.put(0xE104, &LocalSid::Compute { hook: 4, bypass: false }).unwrap();

        // What was already between the ends of the compute port is counted as well.
        let before = drops(&switch, "hook_down");
        for _ in 0..7 {
            common::send("hk4", &frame);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while switch.counters.hook(4).unwrap().no_socket < 7 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(switch.counters.hook(4).unwrap().no_socket, 7);
        assert_eq!(drops(&switch, "hook_down"), before + 7);
        let totals = switch.counters.totals().unwrap();
        let ended = totals.forwarded + totals.passed + totals.answered + totals.dropped;
        assert_eq!(totals.received, ended, "{totals:?}");

        let refused = switch.counters.hook(4).unwrap().refused;
        switch.set_hook_state(4, Some(selvedge_xdp::HookState::Down)).unwrap();
        switch.inject(p1.index, &frame, 10).unwrap();
        assert_eq!(switch.counters.hook(4).unwrap().refused, refused + 10);
        switch.detach_hook(4).unwrap();
        assert_eq!(switch.hooks().unwrap(), []);
    });
}
