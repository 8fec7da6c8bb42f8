use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;

/// Reads an exact copy, so that Miri and the allocator see overruns.
fn parse(payload: &[u8]) -> Result<Message, Refusal> {
    read_bytes(&Box::<[u8]>::from(payload))
}

/// What a writer leaves in `N` bytes that were all ones.
fn written<const N: usize>(write: impl FnOnce(Window<N>)) -> [u8; N] {
    let mut bytes = [0xff; N];
    let start = bytes.as_mut_ptr() as usize;
    // SAFETY: the window is used while `bytes` is borrowed here.
    write(unsafe { Cursor::new(start, start + N) }.peek().unwrap());
    bytes
}

const DOWN_9: Session = Session { direction: Direction::Down, qfi: 9 };
const UP_9: Session = Session { direction: Direction::Up, qfi: 9 };

/// A G-PDU of a gNB, field by field from TS 29.281 figure 5.1-1, figure 5.2.1-1 and TS 38.415
/// figure 5.5.2.2-1, with an inner packet of three bytes.
const UPLINK: [u8; 19] = [
    0b0011_0100, // version 1, protocol type GTP, spare; E, S, PN
    255,         // G-PDU
    0,
    11, // length: 4 optional, 4 container, 3 inner
    0x12,
    0x34,
    0x56,
    0x78, // TEID
    0,
    0,    // sequence number
    0,    // N-PDU number
    0x85, // next extension header type: PDU session container
    1,    // its length, times four bytes
    0x10, // PDU type 1, uplink; no flags
    9,    // QFI, two spare bits before
    0,    // no more extension headers
    0xaa,
    0xbb,
    0xcc,
];

/// A message of these flags and this type, TEID 1, with a length that fits.
fn message(flags: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x30 | flags, kind, 0, 0, 0, 0, 0, 1];
    bytes[2..4].copy_from_slice(&(rest.len() as u16).to_be_bytes());
    bytes.extend(rest);
    bytes
}

/// A G-PDU with these extension headers (the first's type, then the bytes of all) and one byte
/// of inner packet.
fn extended(first: u8, extensions: &[u8]) -> Vec<u8> {
    message(EXTENDED, G_PDU, &[&[0, 0, 0, first], extensions, &[0x45]].concat())
}

#[test]
fn a_packet_of_a_gnb_is_read_field_by_field() {
    let want = Message {
        kind: Kind::GPdu,
        teid: 0x1234_5678,
        sequence: None,
        session: Some(UP_9),
        header_len: 16,
        len: 19,
    };
    assert_eq!(parse(&UPLINK), Ok(want));
    let padded = [&UPLINK[..], &[0; 30]].concat();
    assert_eq!(parse(&padded), Ok(want), "a longer datagram is the same message");
    let mut flagged = UPLINK;
    flagged[14] |= 0xc0;
    assert_eq!(parse(&flagged), Ok(want), "the two bits before the QFI are none of it");
}

#[test]
fn every_truncation_is_refused() {
    let error = written(|at| write_error_v6(at, 1, 2, [3, 4]));
    for whole in [&UPLINK[..], &error, &message(SEQUENCED, ECHO_REQUEST, &[0, 7, 0, 0])] {
        assert!(parse(whole).is_ok());
        for len in 0..whole.len() {
            let want = if len < 8 { Refusal::Short } else { Refusal::Length };
            assert_eq!(parse(&whole[..len]), Err(want), "{len} bytes");
        }
    }
    // And when the length field follows.
    for len in 8..UPLINK.len() {
        let mut bytes = UPLINK[..len].to_vec();
        bytes[3] = len as u8 - 8;
        let want = match len {
            ..12 => Some(Refusal::Length),
            12..16 => Some(Refusal::ExtensionBeyondMessage),
            16 => Some(Refusal::NoPacket),
            _ => None,
        };
        assert_eq!(parse(&bytes).err(), want, "{len} bytes");
    }
}

#[test]
fn headers_that_lie_are_refused() {
    use Refusal::*;
    // (offset, value, refusal)
    let cases = [
        (0, 0x3c, None), // the spare bit is not evaluated
        (0, 0x35, None), // an N-PDU number
        (0, 0x14, Some(Version)),
        (0, 0x54, Some(Version)), // GTPv2
        (0, 0x24, Some(Version)), // GTP'
        (1, 253, Some(UnknownMessage)),
        (1, 0, Some(UnknownMessage)),
        (2, 1, Some(Length)),
        (3, 12, Some(Length)),
        (3, 3, Some(Length)),
        (3, 4, Some(ExtensionBeyondMessage)),
        (11, 0, None), // E without an extension header
        (11, 0xc0, Some(NotUnderstood(0xc0))),
        (11, 0x82, Some(NotUnderstood(0x82))),
        (11, 0x40, None),
        (11, 0x20, None),
        (12, 0, Some(EmptyExtension)),
        (12, 2, Some(ExtensionBeyondMessage)),
        (12, 255, Some(ExtensionBeyondMessage)),
        (13, 0x00, None),
        (13, 0x20, Some(SessionType)),
        (13, 0xf0, Some(SessionType)),
        (13, 0x1f, None), // fields that are not looked at
        (15, 0x85, Some(ExtensionBeyondMessage)),
    ];
    for (at, value, want) in cases {
        let mut bytes = UPLINK;
        bytes[at] = value;
        assert_eq!(parse(&bytes).err(), want, "byte {at} = {value:#x}");
    }
}

#[test]
fn unknown_extension_headers_are_skipped_unless_they_must_be_understood() {
    for kind in 1..=255u8 {
        // Before the container and behind it; two units long.
        let before = extended(kind, &[2, 0x10, 9, 3, 4, 5, 6, 0x85, 1, 0x10, 9, 0]);
        let behind = extended(0x85, &[1, 0x10, 9, kind, 2, 0x10, 9, 3, 4, 5, 6, 0]);
        let want = match kind {
            0x85 => Err(Refusal::SecondSession),
            0x80.. => Err(Refusal::NotUnderstood(kind)),
            _ => Ok((Some(UP_9), 24)),
        };
        for bytes in [before, behind] {
            let got = parse(&bytes).map(|message| (message.session, message.header_len));
            assert_eq!(got, want, "type {kind:#x}");
        }
    }
}

#[test]
fn what_the_flags_do_not_promise_is_not_evaluated() {
    // S alone: a sequence number, and a next type that is none.
    let bytes = message(SEQUENCED, G_PDU, &[0x12, 0x34, 0x56, 0x85, 0x45]);
    let read = parse(&bytes).unwrap();
    assert_eq!((read.sequence, read.session, read.header_len), (Some(0x1234), None, 12));
    // PN alone: neither.
    let bytes = message(NUMBERED, G_PDU, &[0x12, 0x34, 0x56, 0x85, 0x45]);
    let read = parse(&bytes).unwrap();
    assert_eq!((read.sequence, read.session, read.header_len), (None, None, 12));
    // None of them: the packet follows the TEID.
    let read = parse(&message(0, G_PDU, &[0x45])).unwrap();
    assert_eq!((read.sequence, read.session, read.header_len), (None, None, 8));
}

#[test]
fn chains_end_at_what_is_written_down() {
    let chain = |lens: &[u8]| {
        let mut bytes = Vec::new();
        for (i, len) in lens.iter().enumerate() {
            let mut extension = vec![0; usize::from(*len) * 4];
            extension[0] = *len;
            *extension.last_mut().unwrap() = if i + 1 < lens.len() { 0x20 } else { 0 };
            bytes.extend(extension);
        }
        parse(&extended(0x20, &bytes)).map(|m| m.header_len)
    };
    assert_eq!(chain(&[1; MAX_EXTENSIONS]), Ok(12 + 4 * MAX_EXTENSIONS));
    assert_eq!(chain(&[1; MAX_EXTENSIONS + 1]), Err(Refusal::TooManyExtensions));
    assert_eq!(chain(&[29]), Ok(MAX_HEADER_LEN));
    assert_eq!(chain(&[30]), Err(Refusal::TooManyExtensions));
    assert_eq!(chain(&[28, 1]), Ok(MAX_HEADER_LEN));
    assert_eq!(chain(&[29, 1]), Err(Refusal::TooManyExtensions));
    assert_eq!(chain(&[255]), Err(Refusal::TooManyExtensions));
}

#[test]
fn messages_are_written_as_the_standard_draws_them() {
    let g_pdu = written(|at| write_g_pdu(at, 0x1234_5678, UP_9, 3));
    assert_eq!(g_pdu, UPLINK[..16]);
    assert_eq!(written(|at| write_g_pdu(at, 0, DOWN_9, 1500))[2..4], [5, 228]);
    assert_eq!(written(|at| write_g_pdu(at, 0, DOWN_9, 0))[13], 0);

    // TS 29.281 table 7.2.2-1, figure 8.2-1: recovery, type 14, restart counter 0.
    let echo = written(|at| write_echo_response(at, 0xabcd));
    assert_eq!(echo, [0x32, 2, 0, 6, 0, 0, 0, 0, 0xab, 0xcd, 0, 0, 14, 0]);

    // TS 29.281 table 7.3.1-1, figures 5.2.2.1-1, 8.3-1 and 8.4-1.
    let peer = u32::from_ne_bytes([192, 0, 2, 7]);
    let error = written(|at| write_error_v4(at, 0x1234_5678, 0xc001, peer));
    let want = [
        &[0x36, 26, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0x40][..],
        &[1, 0xc0, 0x01, 0],
        &[16, 0x12, 0x34, 0x56, 0x78],
        &[133, 0, 4, 192, 0, 2, 7],
    ];
    assert_eq!(error.to_vec(), want.concat());

    let octets = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets();
    let halves = [0, 8].map(|at| u64::from_ne_bytes(octets[at..at + 8].try_into().unwrap()));
    let error = written(|at| write_error_v6(at, 0x1234_5678, 0xc001, halves));
    let want = [
        &[0x36, 26, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0x40][..],
        &[1, 0xc0, 0x01, 0],
        &[16, 0x12, 0x34, 0x56, 0x78],
        &[133, 0, 16],
        &octets,
    ];
    assert_eq!(error.to_vec(), want.concat());

    // TS 29.281 table 7.2.3-1, figure 8.5-1.
    let supported = written(write_supported_extensions);
    assert_eq!(supported, [0x32, 31, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 141, 2, 0x40, 0x85]);

    assert_eq!(end_marker(0x1234_5678), [0x30, 254, 0, 0, 0x12, 0x34, 0x56, 0x78]);
}

#[test]
fn what_is_written_is_read() {
    let read = |bytes: &[u8]| {
        let message = parse(bytes).unwrap();
        assert_eq!(message.len, bytes.len());
        (message.kind, message.teid, message.sequence, message.header_len)
    };
    let echo = written(|at| write_echo_response(at, 7));
    assert_eq!(read(&echo), (Kind::EchoResponse, 0, Some(7), 12));
    let supported = written(write_supported_extensions);
    assert_eq!(read(&supported), (Kind::SupportedExtensionHeaders, 0, Some(0), 12));
    assert_eq!(read(&end_marker(9)), (Kind::EndMarker, 9, None, 8));

    let v4 = Ipv4Addr::new(192, 0, 2, 7);
    let error = written(|at| write_error_v4(at, 0x1234_5678, 9, u32::from_ne_bytes(v4.octets())));
    assert_eq!(read(&error), (Kind::ErrorIndication, 0, Some(0), 16));
    let want = ErrorIndication { teid: 0x1234_5678, peer: v4.to_ipv6_mapped().octets() };
    assert_eq!(ErrorIndication::from_bytes(&error[16..]), Some(want));

    let peer = [0x0102_0304_0506_0708, u64::MAX];
    let error = written(|at| write_error_v6(at, 0x1234_5678, 9, peer));
    let got = ErrorIndication::from_bytes(&error[16..]).unwrap();
    assert_eq!(got.peer.as_slice(), peer.map(u64::to_ne_bytes).concat());
}

/// Published of several tools and user plane functions: the reader goes forward by the length
/// of the extension header, which is 0, and never arrives.
#[test]
fn regression_extension_header_of_length_0_is_no_endless_loop() {
    for kind in 1..=255u8 {
        for bytes in [
            extended(kind, &[0, 0x10, 9, 0]),
            extended(kind, &[0, 0x10, 9, kind]),
            extended(0x20, &[1, 0, 0, kind, 0, 0, 0, kind]),
        ] {
            assert_eq!(parse(&bytes), Err(Refusal::EmptyExtension), "type {kind:#x}");
        }
    }
}

/// Published of user plane functions: a field that the flags promise, or all of it, is not
/// there, and the reader takes what lies behind the datagram for it, or ends with a signal.
#[test]
fn regression_missing_and_zero_length_fields_are_malformed() {
    for flags in 1..8 {
        for there in 0..4 {
            let bytes = message(flags, G_PDU, &[0; 4][..there]);
            assert_eq!(parse(&bytes), Err(Refusal::Length), "flags {flags}, {there} bytes");
        }
    }
    // The optional fields are there, the packet is not.
    assert_eq!(parse(&message(0, G_PDU, &[])), Err(Refusal::NoPacket));
    assert_eq!(parse(&message(SEQUENCED, G_PDU, &[0; 4])), Err(Refusal::NoPacket));
    // The type of an extension header, and nothing of it.
    let bytes = message(EXTENDED, ECHO_REQUEST, &[0, 0, 0, 0x85]);
    assert_eq!(parse(&bytes), Err(Refusal::ExtensionBeyondMessage));
    assert_eq!(parse(&[]), Err(Refusal::Short));

    let tunnel = [16, 0, 0, 0, 1];
    // (elements of an error indication, whether they say something)
    let cases: &[(&[u8], bool)] = &[
        (&[133, 0, 4, 192, 0, 2, 7], true),
        (&[133, 0, 4, 192, 0, 2, 7, 255, 0, 0], true), // and another element
        (&[133, 0, 4, 192, 0, 2], false),
        (&[133, 0, 0], false),
        (&[133, 0, 0, 192, 0, 2, 7], false),
        (&[133, 0, 5, 192, 0, 2, 7, 8], false),
        (&[133, 0, 16, 192, 0, 2, 7], false),
        (&[133, 1, 4, 192, 0, 2, 7], false),
        (&[133, 0], false),
        (&[14, 0], false),
        (&[], false),
    ];
    for (rest, want) in cases {
        let elements: Box<[u8]> = [&tunnel[..], rest].concat().into();
        assert_eq!(ErrorIndication::from_bytes(&elements).is_some(), *want, "{rest:?}");
        assert_eq!(ErrorIndication::from_bytes(rest), None);
    }
}

/// Published of a user plane function: an end marker of no session it knows ended the process,
/// for it looked for a packet, or followed a session that was not there.
#[test]
fn regression_end_marker_without_session_or_teid_is_an_end_marker() {
    let end = |bytes: &[u8]| parse(bytes).map(|m| (m.kind, m.teid, m.session, m.len));
    assert_eq!(end(&end_marker(0)), Ok((Kind::EndMarker, 0, None, 8)));
    let long = message(EXTENDED, END_MARKER, &[0, 0, 0, 0]);
    assert_eq!(end(&long), Ok((Kind::EndMarker, 1, None, 12)));
    let with_session = message(EXTENDED, END_MARKER, &[0, 0, 0, 0x85, 1, 0, 9, 0]);
    assert_eq!(end(&with_session), Ok((Kind::EndMarker, 1, Some(DOWN_9), 16)));
}

/// Published of user plane functions: a UE sends GTP-U through its tunnel to the core's end
/// point, which unpacks it as if a gNB had sent it.
#[test]
fn regression_gtp_in_gtp_is_seen() {
    let seen = |inner: &[u8]| {
        let header = written(|at| write_g_pdu(at, 1, UP_9, inner.len() as u16));
        let mut bytes = [&header[..], inner].concat();
        let message = parse(&bytes).unwrap();
        let start = bytes.as_mut_ptr() as usize;
        // SAFETY: `bytes` outlives the cursor.
        let mut cursor = unsafe { Cursor::new(start, start + bytes.len()) };
        cursor.skip(message.header_len);
        let available = message.len - message.header_len;
        let packet = match inner[0] >> 4 {
            4 => ip::ipv4(cursor, available),
            _ => ip::ipv6(cursor, available),
        };
        is_gtpu(&packet.unwrap())
    };
    let v4 = || PacketBuilder::ipv4([10, 45, 0, 2], [192, 0, 2, 7], 64);
    // (source port, destination port, seen); an answer's port alone is none of a tunnel's end.
    for (source, destination, want) in
        [(40_000, 2152, true), (2152, 53, false), (2152, 2153, false)]
    {
        let mut inner = Vec::new();
        v4().udp(source, destination).write(&mut inner, &UPLINK).unwrap();
        assert_eq!(seen(&inner), want, "port {source} to {destination}");
    }
    let mut inner = Vec::new();
    PacketBuilder::ipv6([1; 16], [2; 16], 64).udp(2152, 2152).write(&mut inner, &UPLINK).unwrap();
    assert!(seen(&inner));
    let mut inner = Vec::new();
    v4().tcp(40_000, 2152, 0, 10).write(&mut inner, &[]).unwrap();
    assert!(!seen(&inner));
}

/// Type, TEID, sequence number, PDU type and QFI, bytes of header.
type Fields = (u8, u32, Option<u16>, Option<(u8, u8)>, usize);

/// TS 29.281 again, byte by byte and with slices instead of a cursor.
fn model(bytes: &[u8]) -> Option<Fields> {
    let flags = *bytes.first()?;
    let kind = *bytes.get(1)?;
    let len = 8 + usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?));
    let teid = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
    let bytes = bytes.get(..len)?;
    if flags >> 4 != 3 || ![1, 2, 26, 31, 254, 255].contains(&kind) {
        return None;
    }
    let (mut rest, mut sequence, mut sessions) = (&bytes[8..], None, vec![]);
    if flags & 7 != 0 {
        let optional = rest.split_off(..4)?;
        if flags & 2 != 0 {
            sequence = Some(u16::from_be_bytes([optional[0], optional[1]]));
        }
        let mut next = if flags & 4 != 0 { optional[3] } else { 0 };
        let mut count = 0;
        while next != 0 {
            count += 1;
            let extension = rest.split_off(..usize::from(*rest.first()?) * 4)?;
            let [_, content @ .., after] = extension else { return None };
            if next == 0x85 {
                sessions.push((content[0] >> 4, content[1] % 64));
            } else if next >= 0x80 {
                return None;
            }
            next = *after;
        }
        if count > MAX_EXTENSIONS {
            return None;
        }
    }
    let header_len = len - rest.len();
    if sessions.len() > 1
        || sessions.iter().any(|(direction, _)| *direction > 1)
        || header_len > MAX_HEADER_LEN
        || kind == 255 && rest.is_empty()
    {
        return None;
    }
    Some((kind, teid, sequence, sessions.first().copied(), header_len))
}

/// What follows the first eight bytes: any bytes, or extension headers that mostly hang together
/// and a packet.
fn rest() -> impl Strategy<Value = Vec<u8>> {
    let kind = || prop::sample::select(vec![0x85u8, 0x85, 0x20, 0x40, 0x03, 0xc0, 0]);
    let extension = (0u8..8, prop::collection::vec(any::<u8>(), 28), kind(), 0u8..3);
    let chained = (kind(), prop::collection::vec(extension, 0..6), 0usize..9).prop_map(
        |(first, extensions, inner)| {
            let mut bytes = vec![1, 2, 3, first];
            let n_extensions = extensions.len();
            for (i, (len, content, next, direction)) in extensions.into_iter().enumerate() {
                let start = bytes.len();
                bytes.push(len);
                bytes.extend(&content[..usize::from(len.max(1)) * 4 - 1]);
                bytes[start + 1] = direction << 4;
                *bytes.last_mut().unwrap() = if i + 1 == n_extensions { 0 } else { next };
            }
            bytes.resize(bytes.len() + inner, 0xaa);
            bytes
        },
    );
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..30), 9 => chained]
}

proptest! {
    #[test]
    fn any_bytes_are_read_as_the_model_reads_them(
        flags in prop_oneof![4 => 0x30u8..0x38, 1 => any::<u8>()],
        kind in prop_oneof![
            4 => prop::sample::select(vec![1u8, 2, 26, 31, 254, 255]),
            1 => any::<u8>(),
        ],
        rest in rest(),
        short in prop_oneof![0u8..1, 0u8..20],
    ) {
        let mut bytes = message(0, kind, &rest);
        bytes[0] = flags;
        bytes[3] = bytes[3].saturating_sub(short);
        let got = parse(&bytes);
        if let Ok(message) = got {
            prop_assert!(message.header_len <= MAX_HEADER_LEN && message.header_len % 4 == 0);
            prop_assert!(message.header_len <= message.len && message.len <= bytes.len());
        }
        let kinds = [
            (1, Kind::EchoRequest), (2, Kind::EchoResponse), (26, Kind::ErrorIndication),
            (31, Kind::SupportedExtensionHeaders), (254, Kind::EndMarker), (255, Kind::GPdu),
        ];
        let got = got.ok().map(|m| {
            let kind = kinds.iter().find(|(_, kind)| *kind == m.kind).unwrap().0;
            let session = m.session.map(|session| (session.direction as u8, session.qfi));
            (kind, m.teid, m.sequence, session, m.header_len)
        });
        prop_assert_eq!(got, model(&bytes));
    }

    #[test]
    fn any_truncation_of_what_is_read_is_refused(
        flags in 0u8..8,
        rest in rest(),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = message(flags, G_PDU, &rest);
        if parse(&bytes).is_ok() {
            prop_assert!(parse(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }

    #[test]
    fn a_g_pdu_that_is_written_is_read(
        teid in any::<u32>(),
        up in any::<bool>(),
        qfi in 0u8..64,
        inner in prop::collection::vec(any::<u8>(), 1..100),
    ) {
        let direction = if up { Direction::Up } else { Direction::Down };
        let session = Session { direction, qfi };
        let header = written(|at| write_g_pdu(at, teid, session, inner.len() as u16));
        let bytes = [&header[..], &inner].concat();
        let want = Message {
            kind: Kind::GPdu,
            teid,
            sequence: None,
            session: Some(session),
            header_len: G_PDU_LEN,
            len: bytes.len(),
        };
        prop_assert_eq!(parse(&bytes), Ok(want));
    }

    #[test]
    fn an_error_indication_that_is_written_is_read(
        teid in any::<u32>(),
        port in any::<u16>(),
        peer in any::<[u64; 2]>(),
        cut in 16usize..40,
    ) {
        let error = written(|at| write_error_v6(at, teid, port, peer));
        let got = ErrorIndication::from_bytes(&error[16..]);
        prop_assert_eq!(got.map(|e| e.teid), Some(teid));
        prop_assert_eq!(ErrorIndication::from_bytes(&error[16..cut]), None);
    }
}
