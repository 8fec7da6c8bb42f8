//! Loading, pinning, adopting, and ports that come and go.

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use common::{PinDir, chain, in_netns, interface, ip, mac, veth};
use selvedge_xdp::common::map::PINNED;
use selvedge_xdp::{
    Backup, Class, Delivery, Direction, Endpoint, Error, HookState, LocalSid, Meter, NextHop, Path,
    Policy, PortKind, Queue, Route, RouteAction, Rule, RuleAction, Session, Switch, Table, Tunnel,
    remove_all,
};

/// One entry of each table.
fn fill(switch: &Switch) {
    switch.port.put(1, &PortKind::Access).unwrap();
    switch.port.put(255, &PortKind::Fabric).unwrap();
    let uplink = Endpoint { slice_set: 16_384, direction: Direction::Uplink, endpoint: 0, tag: 0 };
    switch.endpoint.put((1, "10.1.0.11/32".parse().unwrap()), &uplink).unwrap();
    switch.endpoint.put((1, "fd10::/64".parse().unwrap()), &uplink).unwrap();
    let rule = Rule {
        source: Some("10.0.0.0/8".parse().unwrap()),
        protocol: Some(17),
        destination_ports: Some([5001, 5001]),
        ..Rule::any(RuleAction::SetSlice(9))
    };
    switch.classifier.put(70, &rule).unwrap();
    switch.classifier.put(u32::MAX, &Rule { action: RuleAction::Drop, ..rule }).unwrap();
    let more = [(71, RuleAction::Mark(63)), (72, RuleAction::Steer(0xffff))];
    for (priority, action) in more {
        let rule = Rule { slice_set: Some(16_384), action, ..rule };
        switch.classifier.put(priority, &rule).unwrap();
    }
    let route = Route { slice: 16_383, action: RouteAction::Policy(65535), endpoint: 0 };
    switch.route.put((65535, "0.0.0.0/0".parse().unwrap()), &route).unwrap();
    let local = Route { slice: 1, action: RouteAction::Local, endpoint: 0 };
    switch.route.put((1, "10.1.0.12/32".parse().unwrap()), &local).unwrap();
    let meter = Meter {
        class: Class::Urllc,
        guaranteed_bps: 20_000_000,
        guaranteed_burst_bytes: 30_000,
        maximum_bps: 0,
        maximum_burst_bytes: 7,
    };
    switch.meter.put((16_383, Direction::Uplink), &meter).unwrap();
    switch.policy.put(65535, &Policy::one(&[7, 0xE100, 0xE001])).unwrap();
    switch.policy.put(1, &several()).unwrap();
    switch.local_sid.put(5, &LocalSid::Node).unwrap();
    switch.local_sid.put(0xE101, &LocalSid::Compute { hook: 255, bypass: true }).unwrap();
    let mac = [2, 0, 0, 0, 0, 1];
    switch.next_hop.put(5, &NextHop { port: 255, mac, backup: 127 }).unwrap();
    let backup = Backup { port: 1, mac, sids: vec![9, 0xFFFF, 1, 2] };
    switch.backup.put((255, 127), &backup).unwrap();
    switch.backup.put((1, 1), &Backup { sids: Vec::new(), ..backup }).unwrap();
    let delivery = Delivery { port: 1, mac: [2, 0, 0, 0, 0, 9], tunnel: None };
    switch.delivery.put((1, "::/0".parse().unwrap()), &delivery).unwrap();
    let queue = Queue { rate_bps: 97_000_000, threshold_bytes: [1, 2, 3], shaped_bps: [0; 3] };
    switch.queue.put(255, &queue).unwrap();
    switch.facts.set_generation(Some(u64::MAX)).unwrap();
    switch.facts.set_election(u128::MAX - 1).unwrap();
    assert_eq!(switch.facts.port_id("p1").unwrap(), 1);
    assert_eq!(switch.facts.port_id("eth0.100").unwrap(), 2);
    switch.set_hook_state(3, Some(HookState::Quarantined)).unwrap();
}

/// As many paths as there can be, the longest first.
fn several() -> Policy {
    let path = |n: u8| Path { sids: vec![u16::from(n) + 1; usize::from(6 - n % 6)], weight: n + 1 };
    let buckets = std::array::from_fn(|bucket| (bucket % 8) as u8);
    Policy { paths: (0..8).map(path).collect(), buckets }
}

/// Everything that can be read, as text.
fn everything(switch: &Switch) -> String {
    fn table<T: Table>(table: &T) -> String
    where
        T::Key: std::fmt::Debug,
        T::Value: std::fmt::Debug + PartialEq,
    {
        let entries = table.entries().unwrap();
        for (key, value) in &entries {
            assert_eq!(table.get(*key).unwrap().as_ref(), Some(value), "{key:?}");
        }
        let mut lines: Vec<_> = entries.iter().map(|entry| format!("{entry:?}\n")).collect();
        lines.sort();
        lines.concat()
    }
    [
        table(&switch.port),
        table(&switch.endpoint),
        table(&switch.classifier),
        table(&switch.route),
        table(&switch.meter),
        table(&switch.policy),
        table(&switch.local_sid),
        table(&switch.next_hop),
        table(&switch.backup),
        table(&switch.delivery),
        table(&switch.queue),
        format!("{:?}", switch.facts.generation().unwrap()),
        format!("{:?}", switch.facts.election().unwrap()),
        format!("{:?}", switch.facts.ports().unwrap()),
        format!("{:?}", switch.hooks().unwrap()),
        format!("{:?}", switch.attached().unwrap()),
    ]
    .concat()
}

#[test]
fn entries_are_read_back_losslessly_also_after_a_restart() {
    in_netns(|| {
        let pins = PinDir::new();
        let mut switch = pins.open();
        let empty = everything(&switch);
        fill(&switch);
        switch.attach(1, &veth("p1")).unwrap();
        let full = everything(&switch);
        assert_ne!(full, empty);
        assert_eq!(switch.facts.generation().unwrap(), Some(u64::MAX));
        assert_eq!(switch.facts.election().unwrap(), Some(u128::MAX - 1));
        drop(switch);

        let switch = pins.open();
        assert_eq!(everything(&switch), full);
        assert_eq!(switch.facts.port_id("eth0.100").unwrap(), 2, "numbers are stable");
        assert_eq!(switch.facts.port_id("p9").unwrap(), 3);
        switch.facts.forget_port(2).unwrap();
        assert_eq!(switch.facts.port_id("p10").unwrap(), 2, "the lowest free one");
    });
}

#[test]
fn entries_go_when_removed_and_tables_refuse_what_does_not_fit() {
    in_netns(|| {
        let pins = PinDir::new();
        let switch = pins.open();
        let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
        let route = Route { slice: 1, action: RouteAction::Local, endpoint: 0 };
        for prefix in ["10.0.0.0/8", "10.1.0.0/16", "10.1.0.1/32"] {
            assert!(!switch.route.remove((1, net(prefix))).unwrap(), "{prefix} is not there yet");
            switch.route.put((1, net(prefix)), &route).unwrap();
        }
        assert!(switch.route.get((1, net("10.1.0.0/24"))).unwrap().is_none(), "not a shorter one");
        assert!(switch.route.get((2, net("10.0.0.0/8"))).unwrap().is_none(), "another set");
        assert!(switch.route.remove((1, net("10.1.0.0/16"))).unwrap());
        assert!(switch.route.get((1, net("10.1.0.0/16"))).unwrap().is_none());
        assert_eq!(switch.route.entries().unwrap().len(), 2);

        let range = |result: Result<(), Error>, field: &str| match result {
            Err(Error::Range { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{field}: {other:?}"),
        };
        range(switch.port.put(0, &PortKind::Access), "port");
        range(switch.port.put(256, &PortKind::Access), "port");
        range(switch.policy.put(0, &Policy::one(&[1])), "policy");
        range(switch.policy.put(65536, &Policy::one(&[1])), "policy");
        range(switch.policy.put(1, &Policy::one(&[])), "number of segment ids");
        range(switch.policy.put(1, &Policy::one(&[1; 7])), "number of segment ids");
        range(switch.policy.put(1, &Policy::one(&[1, 0])), "segment id");
        let many = Policy { paths: vec![several().paths[0].clone(); 9], ..several() };
        range(switch.policy.put(1, &many), "number of paths");
        range(switch.policy.put(1, &Policy { paths: vec![], ..several() }), "number of paths");
        let few = Policy { paths: several().paths[..7].to_vec(), ..several() };
        range(switch.policy.put(1, &few), "path of a bucket");
        let mut light = several();
        light.paths[3].weight = 0;
        range(switch.policy.put(1, &light), "weight");
        assert_eq!(switch.policy.entries().unwrap(), [], "what is refused leaves nothing");
        range(switch.local_sid.put(4096, &LocalSid::Decapsulate), "segment id");
        range(switch.local_sid.put(0xE000, &LocalSid::Node), "node id");
        range(switch.next_hop.put(4096, &NextHop { port: 1, mac: [0; 6], backup: 0 }), "node id");
        let backup = |port, sids: &[u16]| Backup { port, mac: [0; 6], sids: sids.to_vec() };
        range(switch.backup.put((1, 0), &backup(2, &[])), "backup");
        range(switch.backup.put((0, 1), &backup(2, &[])), "port");
        range(switch.backup.put((1, 128), &backup(2, &[])), "backup");
        range(switch.backup.put((1, 1), &backup(2, &[1; 5])), "number of segment ids");
        range(switch.backup.put((1, 1), &backup(2, &[0])), "segment id");
        let meter = Meter {
            class: Class::Guaranteed,
            guaranteed_bps: 20_000_000,
            guaranteed_burst_bytes: 1,
            maximum_bps: 10_000_000,
            maximum_burst_bytes: 1,
        };
        range(switch.meter.put((1, Direction::Uplink), &meter), "maximum rate");
        let tunnel = Tunnel {
            local: "192.0.2.1".parse().unwrap(),
            gnb: "192.0.2.2".parse().unwrap(),
            teid: 1,
            qfi: 63,
            mtu: 1500,
        };
        let deliver = |tunnel| {
            let delivery = Delivery { port: 1, mac: [0; 6], tunnel: Some(tunnel) };
            switch.delivery.put((1, net("10.1.0.1/32")), &delivery)
        };
        deliver(tunnel).unwrap();
        range(deliver(Tunnel { teid: 0, ..tunnel }), "teid");
        range(deliver(Tunnel { qfi: 64, ..tunnel }), "qfi");
        range(deliver(Tunnel { mtu: 67, ..tunnel }), "mtu");
        let mixed = deliver(Tunnel { gnb: "2001:db8::1".parse().unwrap(), ..tunnel });
        assert!(matches!(mixed, Err(Error::MixedVersions { .. })), "{mixed:?}");
        let session = Session {
            port: 1,
            gnb: tunnel.gnb,
            ue_ipv4: Some("10.1.0.1".parse().unwrap()),
            ue_ipv6: None,
            slice_set: 1,
            direction: Direction::Uplink,
            qfis: 0,
            endpoint: 0,
            tag: 0,
        };
        range(switch.session.put(0, &session), "teid");
        range(switch.session.put(1, &Session { port: 0, ..session }), "port");
        range(switch.session.put(1, &Session { slice_set: 0, ..session }), "slice set");
        let n3 = |n: u8| std::net::IpAddr::from([192, 0, 2, n]);
        assert!(matches!(switch.n3.put([0; 16].into(), &()), Err(Error::Unspecified { .. })));
        for n in 0..4 {
            switch.n3.put(n3(n), &()).unwrap();
        }
        switch.n3.put(n3(3), &()).unwrap();
        assert!(matches!(switch.n3.put(n3(4), &()), Err(Error::Full { capacity: 4, .. })));
        assert!(switch.n3.remove(n3(1)).unwrap() && !switch.n3.remove(n3(1)).unwrap());
        switch.n3.put(n3(4), &()).unwrap();
        let queue = Queue { rate_bps: 0, threshold_bytes: [0; 3], shaped_bps: [0; 3] };
        range(switch.queue.put(1, &queue), "queue rate");
        assert!(matches!(switch.facts.port_id("sixteen-letters-"), Err(Error::PortName(_))));

        let rule = Rule::any(RuleAction::Pass);
        let (put, ended) = switch.classifier.batch(|| {
            let put = (0..1024).try_for_each(|priority| switch.classifier.put(priority, &rule));
            assert_eq!(switch.classifier.get(1023).unwrap(), Some(rule), "also before its end");
            put
        });
        put.and(ended).unwrap();
        let full = switch.classifier.put(1024, &rule);
        assert!(matches!(full, Err(Error::Full { capacity: 1024, .. })));
        switch.classifier.put(63, &Rule { protocol: Some(1), ..rule }).unwrap();
        assert_eq!(switch.classifier.entries().unwrap().len(), 1024);
        for name in 0..255 {
            switch.facts.port_id(&format!("p{name}")).unwrap();
        }
        assert!(matches!(switch.facts.port_id("one-more"), Err(Error::NoPortFree(255))));
    });
}

#[test]
fn another_layout_is_refused_and_nothing_touched() {
    in_netns(|| {
        let pins = PinDir::new();
        let switch = pins.open();
        fs::create_dir(pins.path().join("v999")).unwrap();
        match Switch::open(&pins.options()) {
            Err(Error::OtherLayout { path, found }) => {
                assert_eq!((path, found.as_str()), (pins.path().join("v999"), "999"));
            }
            other => panic!("{other:?}"),
        }
        assert!(switch.pin_root().join("maps/CONFIG").exists());
        fs::remove_dir(pins.path().join("v999")).unwrap();

        // A map that is not what its name promises: aya would adopt it in silence.
        let maps = switch.pin_root().join("maps");
        let metre = aya::maps::MapData::from_pin(maps.join("METER")).unwrap();
        fs::remove_file(maps.join("POLICY")).unwrap();
        metre.pin(maps.join("POLICY")).unwrap();
        match Switch::open(&pins.options()) {
            Err(error @ Error::PinnedMap { .. }) => {
                let text = chain(&error);
                assert!(text.contains("maps/POLICY") && text.contains("rm -r"), "{text}");
                assert!(text.contains("40 bytes") || text.contains("4+40"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn the_object_has_the_maps_that_are_specified() {
    in_netns(|| {
        let pins = PinDir::new();
        let switch = pins.open();
        let mut names: Vec<_> = fs::read_dir(switch.pin_root().join("maps"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let mut wanted: Vec<_> = PINNED.iter().map(|spec| spec.name.to_owned()).collect();
        wanted.sort();
        assert_eq!(names, wanted);
        // Opening again compares each with its specification.
        pins.open();
    });
}

#[test]
fn programs_are_replaced_and_vanished_interfaces_forgotten() {
    in_netns(|| {
        let pins = PinDir::new();
        let mut switch = pins.open();
        let (p1, p2) = (veth("p1"), veth("p2"));
        switch.attach(1, &p1).unwrap();
        switch.attach(2, &p2).unwrap();
        switch.attach(2, &p2).unwrap();
        assert_eq!(switch.attached().unwrap().len(), 2);
        let links = || {
            let dir = fs::read_dir(pins.layout().join("links")).unwrap();
            let mut names: Vec<_> =
                dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.retain(|name| !name.starts_with("tracer-"));
            names.sort();
            names
        };
        let of = |ports: [u16; 2]| {
            let links = ["port", "shaped"].map(|kind| ports.map(|port| format!("{kind}-{port}")));
            links.as_flattened().to_vec()
        };
        let program = |pin: &str| {
            let path = pins.layout().join("programs").join(pin);
            aya::programs::ProgramInfo::from_pin(path).unwrap().id()
        };
        let before = program("entry");
        drop(switch);
        ip("link del p2");
        assert_eq!(links(), of([1, 2]), "pins outlive interface and agent");

        let mut switch = pins.open();
        assert_ne!(program("entry"), before);
        assert_eq!(links(), ["port-1", "shaped-1"]);
        let attached = switch.attached().unwrap();
        assert_eq!(
            attached.iter().map(|a| (a.port, a.ifindex)).collect::<Vec<_>>(),
            [(1, p1.index)]
        );
        // Another interface of the same name comes back.
        let p2 = veth("p2");
        switch.attach(2, &p2).unwrap();
        // A port moves to another interface, and lets go of the one it had.
        let p3 = veth("p3");
        switch.attach(2, &p3).unwrap();
        assert_eq!(links(), of([1, 2]));
        switch.attach(3, &p2).unwrap();
        // Two ports cannot have one interface.
        match switch.attach(4, &p2) {
            Err(Error::Native { ifname, .. }) => assert_eq!(ifname, "p2"),
            other => panic!("{other:?}"),
        }
        assert_eq!(switch.attached().unwrap().len(), 3, "what was refused left nothing");
        switch.detach(2).unwrap();
        switch.detach(2).unwrap();
        assert_eq!(links(), of([1, 3]));
        let jumps = fs::read_dir(pins.layout().join("programs")).unwrap();
        let jumps = jumps.filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("jump-")
        });
        assert_eq!(jumps.count(), 1);
    });
}

#[test]
fn an_interface_that_takes_no_native_program_is_refused() {
    in_netns(|| {
        let pins = PinDir::new();
        let mut switch = pins.open();
        // A bridge has no native XDP.
        ip("link add br0 type bridge");
        ip("link set br0 up");
        let bridge = interface("br0");
        assert_eq!(bridge.mac, mac("br0"));
        match switch.attach(1, &bridge) {
            Err(error @ Error::Native { .. }) => {
                assert!(chain(&error).contains("\"br0\""), "{}", chain(&error));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(switch.attached().unwrap(), []);
        // Nor a veth whose frames do not fit a page.
        let p1 = veth("p1");
        ip("link set p1 mtu 9000");
        ip("link set p1h mtu 9000");
        assert!(matches!(switch.attach(1, &p1), Err(Error::Native { .. })));
    });
}

/// Runs in a process of its own, is killed, and leaves its pins.
#[test]
#[ignore = "started by the test below"]
fn agent_to_be_killed() {
    let Ok(dir) = std::env::var("SELVEDGE_TEST_PINS") else { return };
    let options = selvedge_xdp::Options { pin_dir: dir.clone().into(), metering: true };
    let mut switch = Switch::open(&options).unwrap();
    switch.attach(1, &interface("p1")).unwrap();
    fill(&switch);
    println!("ready");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn a_killed_agent_leaves_a_switch_that_the_next_adopts() {
    use std::io::{BufRead, BufReader};
    in_netns(|| {
        let pins = PinDir::new();
        let p1 = veth("p1");
        let mut agent = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "agent_to_be_killed", "--nocapture"])
            .env("SELVEDGE_TEST_PINS", pins.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(agent.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).any(|line| line.contains("ready"));
        agent.kill().unwrap();
        agent.wait().unwrap();
        assert!(ready, "the agent came up");

        let switch = pins.open();
        assert_eq!(switch.facts.generation().unwrap(), Some(u64::MAX));
        let attached = switch.attached().unwrap();
        assert_eq!((attached[0].port, attached[0].ifindex), (1, p1.index));
        assert_eq!(attached[0].mac, p1.mac);
        let events = switch.events().unwrap();
        assert!(std::os::fd::AsRawFd::as_raw_fd(&events.as_fd()) > 0);
    });
}

#[test]
fn remove_all_takes_the_switch_off_its_interfaces() {
    in_netns(|| {
        let pins = PinDir::new();
        let mut switch = pins.open();
        let p1 = veth("p1");
        switch.attach(1, &p1).unwrap();
        let has_program = || {
            let output = Command::new("ip").args(["-d", "link", "show", "p1"]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("prog/xdp")
        };
        assert!(has_program());
        drop(switch);
        assert!(has_program());
        remove_all(pins.path()).unwrap();
        assert!(!pins.path().exists());
        assert!(!has_program());
        remove_all(pins.path()).unwrap();
    });
}
