//! What a relay makes of the messages of DHCP (RFC 2131, RFC 1542 §4, RFC 3046) and DHCPv6 (RFC
//! 8415 §19). Pure. A client's message goes on as it came, but for what a relay adds: the port
//! that it came in by, which the server says again, so that nothing has to be remembered here.
//!
//! Access ports are untrusted: who says to be a relay itself is refused.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Why a message is not relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Cut off, or its lengths contradict it.
    Malformed,
    /// Not for a relay, from somebody who may not say it, or about a port that is not here.
    Foreign,
}

use Refused::{Foreign, Malformed};

/// Largest message that is relayed, with what is added: UDP's share of 1,500 bytes.
pub const LARGEST: usize = 1452;
/// BOOTP's least message (RFC 1542 §2.1).
const LEAST: usize = 300;

const BOOTREQUEST: u8 = 1;
const BOOTREPLY: u8 = 2;
const ETHERNET: [u8; 2] = [1, 6]; // and the length of its addresses
const HOPS: usize = 3;
const FLAGS: usize = 10;
const CIADDR: usize = 12;
const YIADDR: usize = 16;
const GIADDR: usize = 24;
const CHADDR: usize = 28;
/// Where the magic cookie is, and options begin behind it (RFC 2131 §3).
const COOKIE: usize = 236;
const OPTIONS: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const PAD: u8 = 0;
const END: u8 = 255;
const BROADCAST: u8 = 0x80;
/// RFC 1542 §4.1.1.
const MOST_HOPS: u8 = 16;
/// RFC 3046 §2.0, and its suboptions: RFC 3046 §3.1, RFC 5107 §4.
const RELAY_AGENT: u8 = 82;
const CIRCUIT_ID: u8 = 1;
const SERVER_ID_OVERRIDE: u8 = 11;

/// Code, value and place of the options behind the cookie, and where they end.
type Options4<'a> = (Vec<(u8, &'a [u8], std::ops::Range<usize>)>, usize);

fn options4(message: &[u8]) -> Option<Options4<'_>> {
    if message.get(COOKIE..OPTIONS)? != MAGIC || message[1..3] != ETHERNET {
        return None;
    }
    let (mut options, mut at) = (Vec::new(), OPTIONS);
    loop {
        match *message.get(at)? {
            END => return Some((options, at)),
            PAD => at += 1,
            code => {
                let end = at + 2 + usize::from(*message.get(at + 1)?);
                options.push((code, message.get(at + 2..end)?, at..end));
                at = end;
            }
        }
    }
}

fn ipv4(message: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from(*message[at..].first_chunk::<4>().expect("before the options"))
}

/// A client's message as a server gets it from the relay at `relay`. The server is to call itself
/// `gateway` (RFC 5107), so that who renews asks a relay again, of whichever switch.
///
/// # Errors
/// See [`Refused`].
pub fn to_server4(
    message: &[u8],
    relay: Ipv4Addr,
    port: &str,
    gateway: Ipv4Addr,
) -> Result<Vec<u8>, Refused> {
    let (options, end) = options4(message).ok_or(Malformed)?;
    let relayed = !ipv4(message, GIADDR).is_unspecified()
        || options.iter().any(|(code, ..)| *code == RELAY_AGENT);
    // RFC 3046 §2.1, and its §2.1.1 on untrusted circuits.
    if message[0] != BOOTREQUEST || message[HOPS] >= MOST_HOPS || relayed {
        return Err(Foreign);
    }
    let mut out = message[..end].to_vec();
    out[HOPS] += 1;
    out[GIADDR..GIADDR + 4].copy_from_slice(&relay.octets());
    let len = |bytes: &[u8]| u8::try_from(bytes.len()).map_err(|_| Malformed);
    let port = port.as_bytes();
    let circuit = [&[CIRCUIT_ID, len(port)?], port].concat();
    let added = [&circuit[..], &[SERVER_ID_OVERRIDE, 4], &gateway.octets()].concat();
    out.extend([RELAY_AGENT, len(&added)?]);
    out.extend(added);
    out.push(END);
    out.resize(out.len().max(LEAST), PAD);
    if out.len() > LARGEST { Err(Malformed) } else { Ok(out) }
}

/// A server's answer, and whom it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToClient4 {
    pub port: String,
    pub mac: [u8; 6],
    /// `None`: to all, because the client cannot take it otherwise (RFC 1542 §4.1.2).
    pub address: Option<Ipv4Addr>,
    pub message: Vec<u8>,
}

/// What a client gets of a server's answer to the relay.
///
/// # Errors
/// See [`Refused`]; `Foreign` too if the server does not say the port again, as RFC 3046 §2.2 has
/// it.
pub fn to_client4(message: &[u8]) -> Result<ToClient4, Refused> {
    let (options, end) = options4(message).ok_or(Malformed)?;
    if message[0] != BOOTREPLY {
        return Err(Foreign);
    }
    let added = options.iter().find(|(code, ..)| *code == RELAY_AGENT).ok_or(Foreign)?;
    let (_, mut rest, place) = added.clone();
    let port = loop {
        let (&[code, len], more) = rest.split_first_chunk().ok_or(Foreign)?;
        let (value, more) = more.split_at_checked(len.into()).ok_or(Malformed)?;
        if code == CIRCUIT_ID {
            break value;
        }
        rest = more;
    };
    let port = String::from_utf8(port.to_vec()).map_err(|_| Foreign)?;
    let mut out = [&message[..place.start], &message[place.end..=end]].concat();
    out.resize(out.len().max(LEAST), PAD);
    let address = [YIADDR, CIADDR].map(|at| ipv4(message, at));
    let address = address.into_iter().find(|address| !address.is_unspecified());
    let address = address.filter(|_| message[FLAGS] & BROADCAST == 0);
    let mac = *message[CHADDR..].first_chunk().expect("before the options");
    Ok(ToClient4 { port, mac, address, message: out })
}

const ADVERTISE: u8 = 2;
const REPLY: u8 = 7;
const RECONFIGURE: u8 = 10;
const RELAY_FORW: u8 = 12;
const RELAY_REPL: u8 = 13;
const RELAY_MESSAGE: [u8; 2] = [0, 9];
const INTERFACE_ID: [u8; 2] = [0, 18];
/// RFC 6939.
const CLIENT_LINK_LAYER: [u8; 2] = [0, 79];
/// Type, hop count, and two addresses (RFC 8415 §9).
const RELAY_HEADER: usize = 34;

/// Type and transaction id (RFC 8415 §8).
const LEAST6: usize = 4;

/// A client's message as a server gets it from the relay (RFC 8415 §19.1.1); `link`: an address by
/// which the server knows where the client is.
///
/// # Errors
/// See [`Refused`].
pub fn to_server6(
    message: &[u8],
    (peer, mac): (Ipv6Addr, [u8; 6]),
    link: Ipv6Addr,
    port: &str,
) -> Result<Vec<u8>, Refused> {
    if message.len() < LEAST6 {
        return Err(Malformed);
    }
    // What is unknown is relayed (RFC 7283 §5.1).
    if [ADVERTISE, REPLY, RECONFIGURE, RELAY_FORW, RELAY_REPL].contains(&message[0]) {
        return Err(Foreign);
    }
    let mut out = vec![RELAY_FORW, 0];
    out.extend(link.octets());
    out.extend(peer.octets());
    let mac = [&[0, ETHERNET[0]][..], &mac].concat();
    let port = (INTERFACE_ID, port.as_bytes());
    for (code, value) in [port, (CLIENT_LINK_LAYER, &mac), (RELAY_MESSAGE, message)] {
        out.extend(code);
        out.extend(u16::try_from(value.len()).map_err(|_| Malformed)?.to_be_bytes());
        out.extend(value);
    }
    if out.len() > LARGEST { Err(Malformed) } else { Ok(out) }
}

/// A server's answer, and whom it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToClient6 {
    pub port: String,
    pub peer: Ipv6Addr,
    pub message: Vec<u8>,
}

/// What a client gets of a server's answer to the relay (RFC 8415 §19.2).
///
/// # Errors
/// See [`Refused`].
pub fn to_client6(message: &[u8]) -> Result<ToClient6, Refused> {
    let (header, mut rest) = message.split_first_chunk::<RELAY_HEADER>().ok_or(Malformed)?;
    if header[0] != RELAY_REPL {
        return Err(Foreign);
    }
    let (mut port, mut inner) = (None, None);
    while !rest.is_empty() {
        let (&[c, d, high, low], more) = rest.split_first_chunk().ok_or(Malformed)?;
        let len = u16::from_be_bytes([high, low]);
        let (value, more) = more.split_at_checked(len.into()).ok_or(Malformed)?;
        match [c, d] {
            INTERFACE_ID => port = Some(value),
            RELAY_MESSAGE => inner = Some(value),
            _ => {}
        }
        rest = more;
    }
    let (port, inner) = (port.ok_or(Foreign)?, inner.ok_or(Foreign)?);
    let port = String::from_utf8(port.to_vec()).map_err(|_| Foreign)?;
    let peer = Ipv6Addr::from(*header.last_chunk::<16>().expect("34 bytes"));
    let for_relay = inner.first().is_none_or(|kind| [RELAY_FORW, RELAY_REPL].contains(kind));
    if inner.len() < LEAST6 || for_relay || !peer.is_unicast_link_local() {
        return Err(Foreign);
    }
    Ok(ToClient6 { port, peer, message: inner.to_vec() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RELAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
    const PORT: &str = "s1/p2";
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn message4(op: u8, options: &[&[u8]]) -> Vec<u8> {
        let mut message = vec![0; COOKIE];
        message[0] = op;
        message[1..3].copy_from_slice(&ETHERNET);
        message[CHADDR..CHADDR + 6].copy_from_slice(&MAC);
        [&message[..], &MAGIC, &options.concat(), &[END, PAD, PAD]].concat()
    }

    fn put(mut message: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
        message[at..at + bytes.len()].copy_from_slice(bytes);
        message
    }

    const DISCOVER: &[u8] = &[53, 1, 1];
    const ADDED: &[u8] = &[82, 13, 1, 5, b's', b'1', b'/', b'p', b'2', 11, 4, 169, 254, 1, 1];

    #[test]
    fn what_a_server_gets() {
        let discover = message4(BOOTREQUEST, &[DISCOVER, &[PAD], &[12, 2, b'h', b'i']]);
        let got = to_server4(&discover, RELAY, PORT, GATEWAY).unwrap();
        let options = [DISCOVER, &[PAD], &[12, 2, b'h', b'i'], ADDED];
        let mut want = message4(BOOTREQUEST, &options);
        want = put(put(want, HOPS, &[1]), GIADDR, &RELAY.octets());
        want.resize(LEAST, PAD);
        assert_eq!(got, want);

        let plain = || message4(BOOTREQUEST, &[DISCOVER]);
        let cases = [
            ("a reply", message4(BOOTREPLY, &[DISCOVER]), Foreign),
            ("of another relay", put(plain(), GIADDR, &[10, 0, 0, 1]), Foreign),
            ("with its option", message4(BOOTREQUEST, &[DISCOVER, &[82, 0]]), Foreign),
            ("in a circle", put(plain(), HOPS, &[16]), Foreign),
            ("no cookie", put(plain(), COOKIE, &[0]), Malformed),
            ("no Ethernet", put(plain(), 1, &[6]), Malformed),
            ("an option beyond the end", message4(BOOTREQUEST, &[&[12, 9, 1]]), Malformed),
            (
                "too large",
                message4(BOOTREQUEST, &[&[&[12, 255][..], &[7; 255]].concat()[..]; 5]),
                Malformed,
            ),
        ];
        for (what, message, why) in cases {
            assert_eq!(to_server4(&message, RELAY, PORT, GATEWAY), Err(why), "{what}");
        }
    }

    #[test]
    fn what_a_client_gets() {
        let you = Ipv4Addr::new(10, 1, 0, 11);
        let offer =
            put(message4(BOOTREPLY, &[&[53, 1, 2], ADDED, &[51, 1, 9]]), YIADDR, &you.octets());
        let mut want = put(message4(BOOTREPLY, &[&[53, 1, 2], &[51, 1, 9]]), YIADDR, &you.octets());
        want.resize(LEAST, PAD);
        let to = |address, message| Ok(ToClient4 { port: PORT.into(), mac: MAC, address, message });
        assert_eq!(to_client4(&offer), to(Some(you), want.clone()));
        let to_all = |message| put(message, FLAGS, &[BROADCAST]);
        assert_eq!(to_client4(&to_all(offer.clone())), to(None, to_all(want.clone())));
        let renewed = |message| put(put(message, YIADDR, &[0; 4]), CIADDR, &you.octets());
        assert_eq!(to_client4(&renewed(offer.clone())), to(Some(you), renewed(want.clone())));
        let refused = |message| put(message, YIADDR, &[0; 4]);
        assert_eq!(to_client4(&refused(offer)), to(None, refused(want)));

        let cases = [
            ("a request", message4(BOOTREQUEST, &[ADDED]), Foreign),
            ("no port", message4(BOOTREPLY, &[DISCOVER]), Foreign),
            ("another suboption", message4(BOOTREPLY, &[&[82, 3, 2, 1, 7]]), Foreign),
            ("a port cut off", message4(BOOTREPLY, &[&[82, 3, 1, 9, 7]]), Malformed),
            ("a port that is no text", message4(BOOTREPLY, &[&[82, 3, 1, 1, 0xff]]), Foreign),
        ];
        for (what, message, why) in cases {
            assert_eq!(to_client4(&message), Err(why), "{what}");
        }
    }

    #[test]
    fn dhcpv6_is_wrapped_and_unwrapped() {
        let (peer, link): (Ipv6Addr, Ipv6Addr) =
            ("fe80::9".parse().unwrap(), "2001:db8::7".parse().unwrap());
        let solicit = [1, 0xa, 0xb, 0xc, 0, 8, 0, 2, 0, 0];
        let forward = to_server6(&solicit, (peer, MAC), link, PORT).unwrap();
        let want = [
            &[12, 0][..],
            &link.octets(),
            &peer.octets(),
            &[0, 18, 0, 5, b's', b'1', b'/', b'p', b'2'],
            &[0, 79, 0, 8, 0, 1, 2, 0, 0, 0, 0, 9],
            &[0, 9, 0, 10],
            &solicit,
        ]
        .concat();
        assert_eq!(forward, want);
        let reply = |mut message: Vec<u8>| {
            message[0] = RELAY_REPL;
            message
        };
        let client = ToClient6 { port: PORT.into(), peer, message: solicit.to_vec() };
        assert_eq!(to_client6(&reply(forward.clone())), Ok(client));

        for kind in [2, 7, 10, 12, 13] {
            let message = [kind, 0, 0, 0];
            assert_eq!(to_server6(&message, (peer, MAC), link, PORT), Err(Foreign), "type {kind}");
        }
        assert_eq!(to_server6(&[1, 0, 0], (peer, MAC), link, PORT), Err(Malformed));
        assert_eq!(to_server6(&[1; 1400], (peer, MAC), link, PORT), Err(Malformed));
        assert_eq!(to_client6(&forward), Err(Foreign), "no reply");
        let cases = [
            ("cut off", reply(forward[..forward.len() - 1].to_vec()), Malformed),
            ("no message", reply(forward[..55].to_vec()), Foreign),
            ("no port", reply([&forward[..34], &forward[43..]].concat()), Foreign),
            ("to an address of others", put(reply(forward.clone()), 18, &[0x20]), Foreign),
            ("for a relay", put(reply(forward.clone()), 59, &[RELAY_REPL]), Foreign),
        ];
        for (what, message, why) in cases {
            assert_eq!(to_client6(&message), Err(why), "{what}");
        }
    }

    proptest! {
        /// Whatever a server makes of it, a port comes back only as it was said.
        #[test]
        fn any_bytes_will_do(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            options in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let shaped = message4(BOOTREQUEST, &[&options]);
            for message in [&bytes, &shaped] {
                if let Ok(mut relayed) = to_server4(message, RELAY, PORT, GATEWAY) {
                    relayed[0] = BOOTREPLY;
                    prop_assert_eq!(to_client4(&relayed).unwrap().port, PORT);
                }
                let _ = to_client4(message);
                let client = ("fe80::9".parse().unwrap(), MAC);
                if let Ok(mut relayed) = to_server6(message, client, Ipv6Addr::LOCALHOST, PORT) {
                    relayed[0] = RELAY_REPL;
                    prop_assert_eq!(&to_client6(&relayed).unwrap().message, message);
                }
                let _ = to_client6(message);
            }
        }
    }
}
