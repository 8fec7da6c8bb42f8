//! Random frames as a host could send them, right and wrong.

use std::net::{Ipv4Addr, Ipv6Addr};

/// What a host's frames are made of.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) mac: [u8; 6],
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Ipv6Addr,
}

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators").
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.word() % n as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    fn byte(&mut self) -> u8 {
        self.word() as u8
    }

    fn mac(&mut self) -> [u8; 6] {
        [2, 0, 0, self.byte(), self.byte(), self.byte()]
    }
}

const GATEWAY_MAC: [u8; 6] = [0x02, 0x5E, 0x1F, 0x00, 0x00, 0x01];
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const ETHERNET_LEN: usize = 14;
/// What eth0 takes: its MTU of 1,500 bytes and an Ethernet header.
const MAX_FRAME: usize = 1514;

const ODD_V4: [Ipv4Addr; 8] = [
    Ipv4Addr::new(10, 9, 9, 9),
    Ipv4Addr::new(192, 0, 2, 7),
    GATEWAY_V4,
    Ipv4Addr::new(224, 0, 0, 5),
    Ipv4Addr::BROADCAST,
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::UNSPECIFIED,
    Ipv4Addr::new(169, 254, 7, 7),
];
const ODD_V6: [Ipv6Addr; 10] = [
    Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 9, 9),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7),
    GATEWAY_V6,
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x22),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::LOCALHOST,
    Ipv6Addr::UNSPECIFIED,
    // Segments: of a switch's decapsulation, of nobody, of another block.
    Ipv6Addr::new(0x5f00, 0, 1, 0xe001, 0, 0, 0, 0),
    Ipv6Addr::new(0x5f00, 0, 0xfff, 0xe001, 0, 0, 0, 0),
    Ipv6Addr::new(0x5f00, 1, 0, 0, 0, 0, 0, 1),
];

/// A frame of at least an Ethernet header, which is what the kernel takes.
pub(crate) fn any(random: &mut Random, hosts: &[Host], sender: usize) -> Vec<u8> {
    let own = &hosts[sender];
    let mut frame = match random.below(100) {
        0..45 => ipv4(random, hosts, own),
        45..77 => ipv6(random, hosts, own),
        77..87 => arp(random, hosts, own),
        87..95 => solicitation(random, hosts, own),
        _ => {
            // VLANs, loopback test, EAPOL, a length, IP that is none. LLDP is the agent's.
            let ethertype = random.of(&[0x8100, 0x88a8, 0x9000, 0x888e, 0x0040, 0x0800, 0x86dd]);
            let payload: Vec<u8> = (0..random.below(200)).map(|_| random.byte()).collect();
            ethernet(random, own, ethertype, &payload)
        }
    };
    if random.chance(5) {
        frame.truncate(ETHERNET_LEN + random.below(frame.len() - ETHERNET_LEN + 1));
    }
    if random.chance(10) {
        let padding = random.below(64);
        frame.extend((0..padding).map(|_| random.byte()));
    }
    frame.truncate(MAX_FRAME);
    frame
}

fn ethernet(random: &mut Random, own: &Host, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let destination = if random.chance(90) { GATEWAY_MAC } else { random.mac() };
    let source = if random.chance(90) { own.mac } else { random.mac() };
    [&destination[..], &source, &ethertype.to_be_bytes(), payload].concat()
}

/// Somebody's address, most often that of `usual`.
fn somebody<'a>(
    random: &mut Random,
    hosts: &'a [Host],
    usual: &'a Host,
    percent: usize,
) -> &'a Host {
    if random.chance(percent) { usual } else { &hosts[random.below(hosts.len())] }
}

/// The one that shares a slice with `own`, in examples/metro with its slices.
fn partner<'a>(hosts: &'a [Host], own: &Host) -> &'a Host {
    let name = match own.name.as_str() {
        "robot-1" => "plc",
        "plc" => "robot-1",
        "phone-1" => "video",
        _ => "phone-1",
    };
    hosts.iter().find(|host| host.name == name).expect("a host of examples/metro")
}

fn ipv4(random: &mut Random, hosts: &[Host], own: &Host) -> Vec<u8> {
    let mut source = somebody(random, hosts, own, 90).ipv4;
    if random.chance(3) {
        source = random.of(&ODD_V4);
    }
    let mut destination = somebody(random, hosts, partner(hosts, own), 60).ipv4;
    if random.chance(12) {
        destination = random.of(&ODD_V4);
    }
    let (protocol, payload) = transport(random, 1);
    let options = if random.chance(5) { 4 * random.below(11) } else { 0 };
    let header_len = 20 + options;
    let payload = &payload[..payload.len().min(MAX_FRAME - ETHERNET_LEN - header_len)];
    let mut total_len = (header_len + payload.len()) as u16;
    if random.chance(5) {
        total_len = random.of(&[0, 19, 20, 28, total_len - 1, total_len + 1, 1501, 0xffff]);
    }
    let mut packet = vec![0x40 | (header_len / 4) as u8, random.byte()];
    packet.extend(total_len.to_be_bytes());
    packet.extend([random.byte(), random.byte()]);
    let fragment: u16 = if random.chance(6) { random.of(&[0x2000, 0x4000, 0x00b9]) } else { 0 };
    packet.extend(fragment.to_be_bytes());
    packet.extend([hops(random), protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(std::iter::repeat_n(1, options)); // no operation
    if random.chance(3) {
        packet[0] = random.of(&[0x44, 0x4f, 0x55, 0x65, 0x05]);
    }
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    if random.chance(5) {
        packet[10] ^= 0x11; // a wrong one stays wrong
    }
    packet.extend_from_slice(payload);
    ethernet(random, own, 0x0800, &packet)
}

fn ipv6(random: &mut Random, hosts: &[Host], own: &Host) -> Vec<u8> {
    let mut source = somebody(random, hosts, own, 90).ipv6;
    if random.chance(3) {
        source = random.of(&ODD_V6);
    }
    let mut destination = somebody(random, hosts, partner(hosts, own), 60).ipv6;
    if random.chance(15) {
        destination = random.of(&ODD_V6);
    }
    let (protocol, payload) = transport(random, 58);
    let payload = &payload[..payload.len().min(MAX_FRAME - ETHERNET_LEN - 40)];
    let mut packet = ipv6_header(random.byte(), protocol, hops(random), source, destination);
    let mut len = payload.len() as u16;
    if random.chance(5) {
        len = random.of(&[0, len.saturating_sub(1), len + 1, 1461, 0xffff]);
    }
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    // A flow label.
    packet[1] |= random.byte() & 0xf;
    packet[2..4].copy_from_slice(&[random.byte(), random.byte()]);
    if random.chance(3) {
        packet[0] = random.of(&[0x40, 0x50, 0x00]);
    }
    packet.extend_from_slice(payload);
    ethernet(random, own, 0x86dd, &packet)
}

fn ipv6_header(class: u8, next: u8, hops: u8, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut header = vec![0x60 | class >> 4, class << 4, 0, 0, 0, 0, next, hops];
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

fn hops(random: &mut Random) -> u8 {
    if random.chance(90) { random.of(&[2, 3, 64, 64, 255]) } else { random.of(&[0, 1]) }
}

/// A protocol, ICMP's being `icmp`, and what a packet of it carries. Nobody reads checksums.
fn transport(random: &mut Random, icmp: u8) -> (u8, Vec<u8>) {
    let protocol = random.of(&[17, 17, 17, 6, 6, icmp, 132, 50, 0, 44]);
    let len = random.of(&[0, 1, 3, 4, 8, 26, 40, 500, 1200, 1452, 1460, 1480]);
    let mut payload: Vec<u8> = (0..len).map(|_| random.byte()).collect();
    if let Some(first) = payload.first_mut().filter(|_| protocol == icmp) {
        // Echo, its reply, unreachable; of ICMPv6 also discovery and multicast listening.
        *first = random.of(&[8, 0, 3, 128, 129, 133, 134, 136, 137, 143]);
    }
    if protocol == 17 && len >= 8 && random.chance(80) {
        payload[2..4].copy_from_slice(&5000u16.to_be_bytes()); // the example's traffic rule
    }
    (protocol, payload)
}

/// RFC 826.
fn arp(random: &mut Random, hosts: &[Host], own: &Host) -> Vec<u8> {
    let sender = somebody(random, hosts, own, 75);
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, if random.chance(85) { 1 } else { 2 }];
    if random.chance(5) {
        body[random.below(6)] ^= 4;
    }
    body.extend(own.mac);
    body.extend(if random.chance(90) { sender.ipv4 } else { random.of(&ODD_V4) }.octets());
    body.extend([0; 6]);
    let target = if random.chance(80) { GATEWAY_V4 } else { hosts[0].ipv4 };
    body.extend(target.octets());
    if random.chance(50) {
        body.extend([0; 18]); // as hardware pads it
    }
    ethernet(random, own, 0x0806, &body)
}

/// RFC 4861 §4.3.
fn solicitation(random: &mut Random, hosts: &[Host], own: &Host) -> Vec<u8> {
    let mut source = somebody(random, hosts, own, 75).ipv6;
    if random.chance(25) {
        source = random.of(&ODD_V6);
    }
    let target = if random.chance(80) { GATEWAY_V6 } else { hosts[0].ipv6 };
    let low = target.octets();
    let group =
        Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, low[13], low[14], low[15]]);
    let destination = if random.chance(80) { group } else { target };
    let mut message = vec![135, 0, random.byte(), random.byte(), 0, 0, 0, 0];
    message.extend(target.octets());
    if random.chance(70) {
        message.extend([1, 1]);
        message.extend(own.mac);
    }
    if random.chance(5) {
        message.truncate(random.below(24));
    }
    let hops = if random.chance(85) { 255 } else { 64 };
    let mut packet = ipv6_header(0, 58, hops, source, destination);
    packet[4..6].copy_from_slice(&(message.len() as u16).to_be_bytes());
    packet.extend(message);
    ethernet(random, own, 0x86dd, &packet)
}

/// RFC 1071, over a header whose checksum is zero.
fn checksum(header: &[u8]) -> u16 {
    let words =
        header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}
