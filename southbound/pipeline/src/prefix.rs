//! IP prefixes as the data plane matches them: 128 bits, IPv4 mapped into `::ffff:0:0/96`
//! (RFC 4291 §2.5.5.2). One key space for both families: an IPv6 prefix shorter than 81 bits
//! that covers the mapped block (`::/0`) matches IPv4 addresses as well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const MAPPED: u128 = 0xffff << 32;
const MAPPED_LEN: u8 = 96;

/// The 128 bits of an address.
pub fn address_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => MAPPED | u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of 128 bits; in the mapped block it is an IPv4 one.
pub fn address(bits: u128) -> IpAddr {
    if bits >> 32 == MAPPED >> 32 {
        IpAddr::V4(Ipv4Addr::from_bits(bits as u32)) // the low 32 bits
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(bits))
    }
}

/// The bits of a prefix without its host bits, and its length, `0..=128`.
pub fn prefix_bits(prefix: IpNet) -> (u128, u8) {
    let prefix = prefix.trunc();
    match prefix {
        IpNet::V4(v4) => (address_bits(prefix.addr()), MAPPED_LEN + v4.prefix_len()),
        IpNet::V6(v6) => (address_bits(prefix.addr()), v6.prefix_len()),
    }
}

/// The prefix of `len` bits (at most 128) of `bits`; inside the mapped block it is an IPv4 one.
pub fn prefix(bits: u128, len: u8) -> IpNet {
    match address(bits) {
        IpAddr::V4(v4) if len >= MAPPED_LEN => {
            IpNet::V4(Ipv4Net::new(v4, len - MAPPED_LEN).expect("at most 128 - 96 bits").trunc())
        }
        _ => IpNet::V6(
            Ipv6Net::new(Ipv6Addr::from_bits(bits), len).expect("at most 128 bits").trunc(),
        ),
    }
}

/// A mask of `len` leading ones, `0..=128`.
pub const fn mask(len: u8) -> u128 {
    match len {
        0 => 0,
        len => u128::MAX << (128 - len as u32),
    }
}

/// Whether `address` is in `prefix`, as the data plane sees it.
pub fn contains(prefix: IpNet, address: IpAddr) -> bool {
    let (bits, len) = prefix_bits(prefix);
    address_bits(address) & mask(len) == bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapping() {
        // (prefix, bits, length)
        let cases: &[(&str, &str, u8)] = &[
            ("10.1.0.11/32", "::ffff:10.1.0.11", 128),
            ("10.1.0.0/16", "::ffff:10.1.0.0", 112),
            ("0.0.0.0/0", "::ffff:0:0", 96),
            ("fd10::11/128", "fd10::11", 128),
            ("::/0", "::", 0),
            ("::/95", "::", 95),
        ];
        for (text, bits, len) in cases {
            let net: IpNet = text.parse().unwrap();
            let bits = bits.parse::<Ipv6Addr>().unwrap().to_bits();
            assert_eq!(prefix_bits(net), (bits, *len), "{text}");
            assert_eq!(prefix(bits, *len), net, "{text}");
        }
    }

    #[test]
    fn one_key_space() {
        // (prefix, address, inside)
        let cases = [
            ("10.1.0.0/16", "10.1.255.1", true),
            ("10.1.0.0/16", "10.2.0.1", false),
            ("0.0.0.0/0", "fd10::1", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("::/0", "192.0.2.1", true),
            ("::/80", "192.0.2.1", true),
            ("::/81", "192.0.2.1", false),
            ("2000::/3", "192.0.2.1", false),
        ];
        for (net, address, inside) in cases {
            let got = contains(net.parse().unwrap(), address.parse().unwrap());
            assert_eq!(got, inside, "{address} in {net}");
        }
    }
}
