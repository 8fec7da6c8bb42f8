//! LLDP frames: Ethernet header, then type-length-value fields (IEEE 802.1AB-2016 §8, §9).
//!
//! The parser takes whatever a wire carries. It is strict where the standard says to discard
//! (§9.2.7.2: the three mandatory TLVs first, in order, once each, within their lengths) and
//! lenient where it does not: the End TLV may be missing (optional since 2016; a frame that
//! ends with its last TLV is whole), and optional TLVs are stepped over unread, but for our own
//! ([`Proof`]).

use std::fmt::Write;
use std::time::Duration;

/// Ethertype of LLDP (§7.4).
pub const ETHERTYPE: u16 = 0x88CC;
/// Nearest-bridge group address: never forwarded by a bridge (§7.1).
pub const DESTINATION: [u8; 6] = [0x01, 0x80, 0xC2, 0x00, 0x00, 0x0E];
/// Longest identifier in a chassis or port TLV, bytes (§8.5.2.3).
pub const ID_MAX: usize = 255;

const ETHERNET: usize = 14;
/// Shortest Ethernet frame without its check sequence (IEEE 802.3 §3.2.8).
const FRAME_MIN: usize = 60;

const TLV_END: u8 = 0;
const TLV_CHASSIS: u8 = 1;
const TLV_PORT: u8 = 2;
const TLV_TTL: u8 = 3;
/// Organizationally specific (§8.6).
const TLV_ORGANIZATION: u8 = 127;
/// Mandatory order.
const MANDATORY: [u8; 3] = [TLV_CHASSIS, TLV_PORT, TLV_TTL];

const CHASSIS_MAC: u8 = 4;
const CHASSIS_NETWORK: u8 = 5;
const PORT_MAC: u8 = 3;
const PORT_NETWORK: u8 = 4;
/// Chassis (§8.5.2.2) and port (§8.5.3.2) alike.
const LOCALLY_ASSIGNED: u8 = 7;

/// Whose TLV it is, and which of theirs. No identifier was bought for it: the first three bytes
/// are of the addresses that anybody may assign at home (IEEE 802c-2017, quadrant AAI).
const PROOF: [u8; 4] = [0x02, b'S', b'V', 1];
/// Of a key's name, and of a code, bytes.
pub const KEY_ID_LEN: usize = 8;
pub const CODE_LEN: usize = 16;
const PROOF_LEN: usize = PROOF.len() + KEY_ID_LEN + 8 + CODE_LEN;

/// Shows who made a frame, and when. In the TLV: [`PROOF`], then these three in order, the time
/// as 64 bits, the most significant first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    pub key_id: [u8; KEY_ID_LEN],
    /// Milliseconds since the Unix epoch, by the sender's clock.
    pub at_ms: u64,
    /// Of all that is in the frame before it, from the Ethernet header on.
    pub code: [u8; CODE_LEN],
    /// How many bytes that is.
    pub covers: usize,
}

/// How a frame is to be proven: by which key, at which time, and the code for some bytes.
pub struct Prover<'a> {
    pub key_id: [u8; KEY_ID_LEN],
    pub at_ms: u64,
    pub code: &'a dyn Fn(&[u8]) -> [u8; CODE_LEN],
}

/// What one frame says of its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// A Selvedge switch's name. Addresses, which other vendors use, as hexadecimal with
    /// colons; bytes outside printable ASCII as `?`.
    pub chassis: String,
    pub port: String,
    /// Zero: forget the sender at once (§9.1.2.4).
    pub ttl: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("not LLDP")]
    Ethertype,
    #[error("frame ends within a field")]
    Truncated,
    #[error("TLV {found} where TLV {wanted} must stand")]
    Order { wanted: u8, found: u8 },
    #[error("TLV {0} comes twice")]
    Duplicate(u8),
    #[error("TLV {kind} has {len} bytes")]
    Length { kind: u8, len: usize },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub advertisement: Advertisement,
    /// `None`: it has no such TLV. Whether it holds is for others to say.
    pub proof: Option<Proof>,
    /// Whether it closed with an End TLV.
    pub has_end: bool,
}

/// The frame a port sends: chassis and port by locally assigned names, time to live, proof, End.
///
/// # Panics
/// If a name is empty or longer than [`ID_MAX`]; both are checked long before.
pub fn encode(
    source: [u8; 6],
    chassis: &str,
    port: &str,
    ttl: Duration,
    prover: Option<Prover<'_>>,
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_MIN);
    frame.extend_from_slice(&DESTINATION);
    frame.extend_from_slice(&source);
    frame.extend_from_slice(&ETHERTYPE.to_be_bytes());
    for (kind, id) in [(TLV_CHASSIS, chassis), (TLV_PORT, port)] {
        assert!((1..=ID_MAX).contains(&id.len()), "identifier of {} bytes", id.len());
        header(&mut frame, kind, 1 + id.len());
        frame.push(LOCALLY_ASSIGNED);
        frame.extend_from_slice(id.as_bytes());
    }
    header(&mut frame, TLV_TTL, 2);
    let seconds = u16::try_from(ttl.as_secs()).unwrap_or(u16::MAX);
    frame.extend_from_slice(&seconds.to_be_bytes());
    if let Some(Prover { key_id, at_ms, code }) = prover {
        header(&mut frame, TLV_ORGANIZATION, PROOF_LEN);
        frame.extend_from_slice(&PROOF);
        frame.extend_from_slice(&key_id);
        frame.extend_from_slice(&at_ms.to_be_bytes());
        let code = code(&frame);
        frame.extend_from_slice(&code);
    }
    header(&mut frame, TLV_END, 0);
    frame.resize(frame.len().max(FRAME_MIN), 0);
    frame
}

/// # Errors
/// [`FrameError`] for everything that §9.2.7.2 discards.
pub fn parse(frame: &[u8]) -> Result<Parsed, FrameError> {
    let (ethernet, mut rest) = frame.split_at_checked(ETHERNET).ok_or(FrameError::Truncated)?;
    if ethernet[12..] != ETHERTYPE.to_be_bytes() {
        return Err(FrameError::Ethertype);
    }
    let mut mandatory = [&[][..]; MANDATORY.len()];
    for (wanted, slot) in MANDATORY.into_iter().zip(&mut mandatory) {
        let (found, value) = tlv(&mut rest)?.ok_or(FrameError::Truncated)?;
        if found != wanted {
            return Err(FrameError::Order { wanted, found });
        }
        *slot = value;
    }
    let [chassis, port, ttl] = mandatory;
    let advertisement = Advertisement {
        chassis: identifier(TLV_CHASSIS, chassis, CHASSIS_MAC, CHASSIS_NETWORK)?,
        port: identifier(TLV_PORT, port, PORT_MAC, PORT_NETWORK)?,
        // Longer than two bytes is allowed and the rest ignored (§9.2.7.2.3).
        ttl: match ttl {
            [high, low, ..] => Duration::from_secs(u16::from_be_bytes([*high, *low]).into()),
            _ => return Err(FrameError::Length { kind: TLV_TTL, len: ttl.len() }),
        },
    };
    let mut proof = None;
    loop {
        let has_end = match tlv(&mut rest)? {
            None => false,
            Some((TLV_END, _)) => true,
            Some((kind, _)) if MANDATORY.contains(&kind) => {
                return Err(FrameError::Duplicate(kind));
            }
            Some((TLV_ORGANIZATION, value)) if value.starts_with(&PROOF) => {
                let covers = (frame.len() - rest.len()).saturating_sub(CODE_LEN);
                if proof.replace(self::proof(value, covers)?).is_some() {
                    return Err(FrameError::Duplicate(TLV_ORGANIZATION));
                }
                continue;
            }
            Some(_) => continue,
        };
        return Ok(Parsed { advertisement, proof, has_end });
    }
}

/// `value` ends `CODE_LEN` bytes after the first `covers` of the frame.
fn proof(value: &[u8], covers: usize) -> Result<Proof, FrameError> {
    let length = || FrameError::Length { kind: TLV_ORGANIZATION, len: value.len() };
    let rest = &value[PROOF.len()..];
    let (key_id, rest) = rest.split_first_chunk().ok_or_else(length)?;
    let (at_ms, rest) = rest.split_first_chunk().ok_or_else(length)?;
    let code = *<&[u8; CODE_LEN]>::try_from(rest).map_err(|_| length())?;
    Ok(Proof { key_id: *key_id, at_ms: u64::from_be_bytes(*at_ms), code, covers })
}

/// Seven bits of type, nine of length (§8.4).
fn header(frame: &mut Vec<u8>, kind: u8, len: usize) {
    let len = u16::try_from(len).expect("identifiers are at most 255 bytes");
    frame.extend_from_slice(&((u16::from(kind) << 9) | len).to_be_bytes());
}

/// Takes the next TLV off `rest`; `None` at the frame's end.
fn tlv<'a>(rest: &mut &'a [u8]) -> Result<Option<(u8, &'a [u8])>, FrameError> {
    let (high, low, after) = match *rest {
        [] => return Ok(None),
        [_] => return Err(FrameError::Truncated),
        [high, low, after @ ..] => (*high, *low, after),
    };
    let len = usize::from(high & 1) << 8 | usize::from(low);
    let (value, after) = after.split_at_checked(len).ok_or(FrameError::Truncated)?;
    *rest = after;
    Ok(Some((high >> 1, value)))
}

/// Text of a chassis or port identifier, whose subtypes for addresses are `mac`, `network`.
fn identifier(kind: u8, value: &[u8], mac: u8, network: u8) -> Result<String, FrameError> {
    let (subtype, id) = match value {
        [subtype, id @ ..] if (1..=ID_MAX).contains(&id.len()) => (*subtype, id),
        _ => return Err(FrameError::Length { kind, len: value.len() }),
    };
    if subtype == mac || subtype == network {
        let mut text = String::with_capacity(3 * id.len());
        for (at, byte) in id.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(text, "{colon}{byte:02x}").expect("a string takes everything");
        }
        return Ok(text);
    }
    let printable = |byte: &u8| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '?' };
    Ok(id.iter().map(printable).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn sent() -> Vec<u8> {
        encode(MAC, "s1", "p1", Duration::from_secs(20), None)
    }

    /// Of whatever bytes.
    fn code(bytes: &[u8]) -> [u8; CODE_LEN] {
        let mut code = [0; CODE_LEN];
        bytes.iter().enumerate().for_each(|(at, byte)| code[at % CODE_LEN] ^= byte);
        code
    }

    fn proven() -> Vec<u8> {
        let prover = Prover { key_id: [9; KEY_ID_LEN], at_ms: 0x0102_0304_0506_0708, code: &code };
        encode(MAC, "s1", "p1", Duration::from_secs(20), Some(prover))
    }

    /// A frame with these TLVs.
    fn frame(tlvs: &[(u8, &[u8])]) -> Vec<u8> {
        let mut frame = sent()[..ETHERNET].to_vec();
        for (kind, value) in tlvs {
            header(&mut frame, *kind, value.len());
            frame.extend_from_slice(value);
        }
        frame
    }

    #[test]
    fn bytes_on_the_wire() {
        let frame = sent();
        assert_eq!(frame.len(), 60);
        assert_eq!(frame[..14], [1, 0x80, 0xC2, 0, 0, 0x0E, 2, 0, 0, 0, 0, 1, 0x88, 0xCC]);
        assert_eq!(
            frame[14..30],
            [0x02, 3, 7, b's', b'1', 0x04, 3, 7, b'p', b'1', 0x06, 2, 0, 20, 0, 0]
        );
    }

    #[test]
    fn what_is_accepted_and_what_not() {
        let (c, p, t) = ((1, &b"\x07s1"[..]), (2, &b"\x07p1"[..]), (3, &b"\0\x14"[..]));
        let end = (0, &b""[..]);
        let ok = |chassis: &str, port: &str, ttl, end| {
            let ttl = Duration::from_secs(ttl);
            let advertisement = Advertisement { chassis: chassis.into(), port: port.into(), ttl };
            Ok(Parsed { advertisement, proof: None, has_end: end })
        };
        let long = [7; 300];
        // (what, TLVs, result)
        type Case<'a> = (&'a str, &'a [(u8, &'a [u8])], Result<Parsed, FrameError>);
        let cases: &[Case] = &[
            ("whole", &[c, p, t, end], ok("s1", "p1", 20, true)),
            (
                "optional",
                &[c, p, t, (5, b"name"), (127, b"\0\0\0\0x"), end],
                ok("s1", "p1", 20, true),
            ),
            ("after the end", &[c, p, t, end, c], ok("s1", "p1", 20, true)),
            (
                "MAC chassis",
                &[(1, b"\x04\x02\x00\x5e\x00\xff\x01"), (2, b"\x03\x02\x00"), t, end],
                ok("02:00:5e:00:ff:01", "02:00", 20, true),
            ),
            (
                "network address",
                &[(1, b"\x05\x01\xc0\x00\x02\x01"), p, t],
                ok("01:c0:00:02:01", "p1", 20, false),
            ),
            ("interface name", &[c, (2, b"\x05eth0"), t], ok("s1", "eth0", 20, false)),
            ("control characters", &[(1, b"\x07a\n\xff"), p, t], ok("a??", "p1", 20, false)),
            ("shutdown", &[c, p, (3, b"\0\0"), end], ok("s1", "p1", 0, true)),
            ("long ttl", &[c, p, (3, b"\0\x14xx"), end], ok("s1", "p1", 20, true)),
            ("short ttl", &[c, p, (3, b"\x14")], Err(FrameError::Length { kind: 3, len: 1 })),
            ("order", &[p, c, t], Err(FrameError::Order { wanted: 1, found: 2 })),
            ("early end", &[c, end, t], Err(FrameError::Order { wanted: 2, found: 0 })),
            ("only two", &[c, p], Err(FrameError::Truncated)),
            ("twice", &[c, p, t, c, end], Err(FrameError::Duplicate(1))),
            ("empty id", &[(1, b"\x07"), p, t], Err(FrameError::Length { kind: 1, len: 1 })),
            ("no subtype", &[(1, b""), p, t], Err(FrameError::Length { kind: 1, len: 0 })),
            ("long id", &[(1, &long), p, t], Err(FrameError::Length { kind: 1, len: 300 })),
        ];
        for (what, tlvs, want) in cases {
            assert_eq!(parse(&frame(tlvs)), *want, "{what}");
        }
        let mut ipv4 = sent();
        ipv4[12] = 8;
        assert_eq!(parse(&ipv4), Err(FrameError::Ethertype));
    }

    #[test]
    fn every_truncation_is_refused_or_whole() {
        let frame = sent();
        let last_field = 28; // first byte after the TTL
        for len in 0..frame.len() {
            let parsed = parse(&frame[..len]);
            match len {
                _ if len < last_field || len == last_field + 1 => {
                    assert_eq!(parsed, Err(FrameError::Truncated), "{len} bytes");
                }
                _ => assert_eq!(parsed.map(|p| p.has_end), Ok(len > last_field), "{len} bytes"),
            }
        }
    }

    /// A published failure of another system (an endless loop). Since 2016 the TLV is optional.
    #[test]
    fn lldp_without_end_tlv_is_taken() {
        let whole = proven();
        let end = whole.len() - 2;
        assert_eq!(whole[end..], [0, 0]);
        let (with, without) = (parse(&whole).unwrap(), parse(&whole[..end]).unwrap());
        assert!(with.has_end && !without.has_end);
        assert_eq!((with.advertisement, with.proof), (without.advertisement, without.proof));
    }

    #[test]
    fn a_proof_is_read_as_it_was_written() {
        let frame = proven();
        let proof = parse(&frame).unwrap().proof.unwrap();
        // Mandatory TLVs, header, whose it is, key, time: and then the code.
        assert_eq!(frame[28..34], [0xFE, 36, 0x02, b'S', b'V', 1]);
        assert_eq!(proof.covers, 50);
        assert_eq!((proof.key_id, proof.at_ms), ([9; KEY_ID_LEN], 0x0102_0304_0506_0708));
        assert_eq!((&proof.code[..], proof.code), (&frame[50..66], code(&frame[..50])));

        let (c, p, t) = ((1, &b"\x07s1"[..]), (2, &b"\x07p1"[..]), (3, &b"\0\x14"[..]));
        let value = &frame[30..66];
        let wrong = |len| Err(FrameError::Length { kind: 127, len });
        let longer = [value, &[0]].concat();
        let cases = [
            (vec![&value[..35]], wrong(35)),
            (vec![&value[..4]], wrong(4)),
            (vec![&longer[..]], wrong(37)),
            (vec![value, value], Err(FrameError::Duplicate(127))),
            // Another's, though it begins like ours.
            (vec![&value[..3]], Ok(false)),
            (vec![b"\x02SV\x02"], Ok(false)),
            (vec![b"\x02SV\x02", value], Ok(true)),
        ];
        for (values, want) in cases {
            let mut tlvs = vec![c, p, t];
            tlvs.extend(values.iter().map(|value| (127, *value)));
            let got = self::parse(&self::frame(&tlvs)).map(|parsed| parsed.proof.is_some());
            assert_eq!(got, want, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn damaged_frames_never_panic(at in 0usize..68, value: u8, len in 0usize..69) {
            let mut frame = proven();
            frame[at] = value;
            let _ = parse(&frame[..len]);
        }

        #[test]
        fn what_is_sent_is_read(chassis in "[!-~]{1,255}", port in "[!-~]{1,255}", ttl: u16) {
            let ttl = Duration::from_secs(ttl.into());
            let frame = encode(MAC, &chassis, &port, ttl, None);
            let advertisement = Advertisement { chassis, port, ttl };
            let want = Parsed { advertisement, proof: None, has_end: true };
            prop_assert_eq!(parse(&frame), Ok(want));
        }
    }
}
