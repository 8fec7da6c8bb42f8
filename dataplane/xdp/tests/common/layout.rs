//! What switches of old layouts hold, for tests of what becomes of it: entries of every table,
//! the same in each layout, which `layouts/vN.txt` has as layout N keeps them; and a switch of
//! layout 5, whose programs `layouts/v5.o` are.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use aya::maps::{MapData, ProgramArray};
use aya::programs::links::FdLink;
use aya::programs::{Xdp, XdpMode};
use selvedge_pipeline::entry::FUNCTION_UDT46;
use selvedge_pipeline::{
    BackupEntry, Class, ClassifierAction, ClassifierEntry, DeliveryEntry, Direction, EndpointEntry,
    EndpointId, EndpointTag, Entry, GenerationEntry, GtpSessionEntry, HookId, LocalSidAction,
    LocalSidEntry, N3AddressEntry, NextHopEntry, NodeSid, OnFailure, PolicyEntry, PolicyId,
    PortEntry, PortId, PortKind, PortQueueEntry, RouteAction, SliceId, SliceMeterEntry,
    SliceRouteEntry, SliceSet, Tunnel,
};

/// Hosts at `p1` and `p2`, which are ports 1 and 2.
pub const A: &str = "10.1.0.11";
pub const B: &str = "10.1.0.12";
pub const A_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];
pub const B_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];
/// Of the switch itself.
const NODE: u16 = 5;

/// What A sends to B is encapsulated, and decapsulated, by this switch alone. The rest is one
/// entry of each other sort, which no packet meets.
pub fn entries() -> Vec<Entry> {
    let slice = SliceId::DEFAULT;
    let slice_set = SliceSet(slice.0);
    let net = |text: &str| text.parse().unwrap();
    let port = |port, kind| Entry::Port(PortEntry { port: PortId(port), kind });
    let endpoint = |port, prefix| {
        let (port, direction, endpoint) = (PortId(port), Direction::Uplink, EndpointId::NONE);
        Entry::Endpoint(EndpointEntry {
            port,
            prefix,
            slice_set,
            direction,
            endpoint,
            tag: EndpointTag::NONE,
        })
    };
    let route = |prefix, action| {
        let endpoint = EndpointId::NONE;
        Entry::SliceRoute(SliceRouteEntry { slice_set, prefix, slice, action, endpoint })
    };
    let delivery = |prefix, port, mac, tunnel| {
        Entry::Delivery(DeliveryEntry { slice, prefix, port: PortId(port), mac, tunnel })
    };
    let local = |sid, action| Entry::LocalSid(LocalSidEntry { sid, action });
    let policy = |id, sids| Entry::Policy(PolicyEntry::one(PolicyId(id), sids));
    let tunnel = Tunnel {
        local: "192.0.2.1".parse().unwrap(),
        gnb: "192.0.2.9".parse().unwrap(),
        teid: 0x1234_5678,
        qfi: 9,
        mtu: 1500,
    };
    let mut entries = vec![
        port(1, PortKind::Access),
        port(2, PortKind::Access),
        port(3, PortKind::Fabric),
        endpoint(1, net("10.1.0.11/32")),
        endpoint(2, net("10.1.0.12/32")),
        endpoint(2, net("fd10::/64")),
        Entry::Classifier(Box::new(ClassifierEntry {
            source: Some(net("10.9.0.0/16")),
            protocol: Some(17),
            destination_ports: Some([5001, 5003]),
            dscp: Some(46),
            ..ClassifierEntry::any(70, ClassifierAction::SetSlice(SliceId(9)))
        })),
        route(net("10.1.0.11/32"), RouteAction::Local),
        route(net("10.1.0.12/32"), RouteAction::Policy(PolicyId(1))),
        route(net("10.8.0.0/16"), RouteAction::Policy(PolicyId(65535))),
        Entry::SliceMeter(SliceMeterEntry {
            slice: SliceId(9),
            direction: Direction::Uplink,
            class: Class::Urllc,
            guaranteed_bps: 20_000_000,
            guaranteed_burst_bytes: 30_000,
            maximum_bps: 50_000_000,
            maximum_burst_bytes: 60_000,
        }),
        policy(1, vec![NODE, FUNCTION_UDT46]),
        policy(65535, vec![7, 0xE100, 0xE001]),
        local(NODE, LocalSidAction::Node),
        local(FUNCTION_UDT46, LocalSidAction::Decapsulate),
        local(0xE101, LocalSidAction::Compute { hook: HookId(2), on_failure: OnFailure::Bypass }),
        Entry::NextHop(NextHopEntry {
            node: NodeSid(7),
            port: PortId(3),
            mac: [2, 0, 0, 0, 0, 3],
            backup: 4,
        }),
        Entry::Backup(BackupEntry {
            around: PortId(3),
            backup: 4,
            port: PortId(2),
            mac: [2, 0, 0, 0, 0, 4],
            sids: vec![9, 8],
        }),
        delivery(net("10.1.0.11/32"), 1, A_MAC, None),
        delivery(net("10.1.0.12/32"), 2, B_MAC, None),
        delivery(net("fd10::/64"), 2, B_MAC, None),
        delivery(net("10.7.0.1/32"), 3, [2, 0, 0, 0, 0, 7], Some(Box::new(tunnel))),
        Entry::PortQueue(PortQueueEntry {
            port: PortId(3),
            rate_bps: 97_000_000,
            threshold_bytes: [1000, 2000, 3000],
            shaped_bps: [0; 3],
        }),
        Entry::Generation(GenerationEntry { generation: 77 }),
        Entry::N3Address(N3AddressEntry { address: "192.0.2.1".parse().unwrap() }),
        Entry::GtpSession(Box::new(GtpSessionEntry {
            teid: 0x9abc_def0,
            port: PortId(3),
            gnb: "192.0.2.9".parse().unwrap(),
            ue_ipv4: Some("10.7.0.1".parse().unwrap()),
            ue_ipv6: Some("fd17::/64".parse().unwrap()),
            slice_set,
            direction: Direction::Uplink,
            qfis: 1 << 9,
            endpoint: EndpointId::NONE,
            tag: EndpointTag::NONE,
        })),
    ];
    entries.sort();
    entries
}

/// A switch of layout 5 at `pin_dir`: its own programs and maps, pinned as its agent pinned them,
/// with [`entries`] and an election id, and ports 1 and 2 on these interfaces.
pub fn make_v5(pin_dir: &Path, ports: [(u32, [u8; 6]); 2]) {
    const OBJECT: &[u8] = include_bytes!("../layouts/v5.o");
    const ENTRIES: &str = include_str!("../layouts/v5.txt");
    const STAGES: [&str; 7] =
        ["access", "sid", "answer", "extensions", "classify", "gtp", "tunnel"];
    /// Of benches.
    const OWN: [&str; 3] = ["CLOCK", "HEAD", "HEAD_NEXT"];
    let root = pin_dir.join("v5");
    for dir in ["maps", "links", "programs"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    let mut ebpf = aya::Ebpf::load(OBJECT).unwrap();
    for (name, map) in ebpf.maps() {
        match name {
            "JUMP" => map.pin(root.join("programs/jump-0")).unwrap(),
            name if OWN.contains(&name) || name.starts_with('.') => {}
            name => map.pin(root.join("maps").join(name)).unwrap(),
        }
    }
    let mut jump: ProgramArray<_> = ebpf.take_map("JUMP").unwrap().try_into().unwrap();
    for (place, name) in (0..).zip(STAGES) {
        let stage: &mut Xdp = ebpf.program_mut(name).unwrap().try_into().unwrap();
        stage.load().unwrap();
        jump.set(place, stage.fd().unwrap(), 0).unwrap();
    }
    let put = |map: &str, key: &[u8], value: &[u8]| {
        let map = MapData::from_pin(root.join("maps").join(map)).unwrap();
        update(map.fd().as_fd(), key, value);
    };
    for line in ENTRIES.lines() {
        let [map, key, value] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        put(map, &bytes(key), &bytes(value));
    }
    for (port, (ifindex, mac)) in (1u32..).zip(ports) {
        let (port, ifindex) = (port.to_ne_bytes(), ifindex.to_ne_bytes());
        let access = [1, 0, 0, 0];
        put("PORT", &port, &[&mac[..], &[0, 0], &ifindex, &access].concat());
        put("PORT_BY_LOW_IFINDEX", &ifindex, &port);
        put("PORT_BY_IFINDEX", &ifindex, &port);
        put("DEVICE", &port, &[ifindex, [0; 4]].concat());
    }
    let entry: &mut Xdp = ebpf.program_mut("entry").unwrap().try_into().unwrap();
    entry.load().unwrap();
    for (port, (ifindex, _)) in (1..).zip(ports) {
        let link = entry.attach_to_if_index(ifindex, XdpMode::Driver).unwrap();
        let link: FdLink = entry.take_link(link).unwrap().try_into().unwrap();
        link.pin(root.join(format!("links/port-{port}"))).unwrap();
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// `BPF_MAP_UPDATE_ELEM`, of any map.
fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) {
    let fd = u64::try_from(map.as_raw_fd()).unwrap();
    let attr = [fd, key.as_ptr() as u64, value.as_ptr() as u64, 0];
    // SAFETY: `union bpf_attr` for this command is these words; the kernel reads as many bytes as
    // the map's keys and values have, which the files were written with.
    let result = unsafe { libc::syscall(libc::SYS_bpf, 2, attr.as_ptr(), size_of_val(&attr)) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
