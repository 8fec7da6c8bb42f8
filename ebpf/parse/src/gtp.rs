//! GTP-U, version 1 (3GPP TS 29.281), as the N3 end point of a 5G core needs it, with the PDU
//! session container (3GPP TS 38.415) between it and the gNB.
//!
//! A length in a GTP-U header counts what follows its first eight bytes; one of an extension
//! header counts units of four. Offsets and lengths in this interface are bytes and count from
//! the header's first.

use crate::ip::{self, Packet};
use crate::{Cursor, Window};

/// UDP port of requests and G-PDUs (TS 29.281 §4.4.2).
pub const PORT: u16 = 2152;
/// Bytes of the header without optional fields (TS 29.281 §5.1).
pub const HEADER_LEN: usize = 8;
/// Bytes of the header when one of E, S and PN is set.
pub const LONG_HEADER_LEN: usize = 12;
/// Extension headers that are followed. N3 has one, or two.
pub const MAX_EXTENSIONS: usize = 4;
/// Bytes of a header with all of its extension headers.
pub const MAX_HEADER_LEN: usize = 128;

const VERSION_1: u8 = 0x30; // and protocol type GTP; without the spare bit
const EXTENDED: u8 = 0x04;
const SEQUENCED: u8 = 0x02;
const NUMBERED: u8 = 0x01;

const NO_MORE: u8 = 0;
const UDP_PORT: u8 = 0x40;
const PDU_SESSION_CONTAINER: u8 = 0x85;
/// Bit 8 of a type: the end point must understand it (TS 29.281 §5.2.1).
const COMPREHENSION_REQUIRED: u8 = 0x80;

const ECHO_REQUEST: u8 = 1;
const ECHO_RESPONSE: u8 = 2;
const ERROR_INDICATION: u8 = 26;
const SUPPORTED_EXTENSION_HEADERS: u8 = 31;
const END_MARKER: u8 = 254;
const G_PDU: u8 = 255;

const RECOVERY: u8 = 14;
const TEID_DATA_I: u8 = 16;
const PEER_ADDRESS: u8 = 133;
const EXTENSION_HEADER_TYPES: u8 = 141;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: Kind,
    /// Tunnel endpoint identifier. 0 in what is about the path rather than a tunnel.
    pub teid: u32,
    /// `None` unless flag S is set.
    pub sequence: Option<u16>,
    /// `None` without a PDU session container.
    pub session: Option<Session>,
    /// Where the inner packet of a G-PDU starts, or another message's information elements: a
    /// multiple of 4, at most [`MAX_HEADER_LEN`] and at most `len`.
    pub header_len: usize,
    /// Of the message, header included; the datagram has as much.
    pub len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    EchoRequest,
    EchoResponse,
    ErrorIndication,
    SupportedExtensionHeaders,
    /// The last of a tunnel; no packet is in it (TS 29.281 §7.3.2).
    EndMarker,
    /// Carries a packet of at least one byte.
    GPdu,
}

/// What a PDU session container says of the packet behind it (TS 38.415 §5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub direction: Direction,
    /// QoS flow identifier, `0..=63`.
    pub qfi: u8,
}

/// PDU type of a PDU session container. A gNB that forwards what it can no longer deliver
/// sends "down" upwards (TS 38.415 §5.4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Down = 0,
    Up = 1,
}

/// Why a datagram is no message for us. All but [`Refusal::NotUnderstood`] and
/// [`Refusal::UnknownMessage`] are malformed, or longer than we follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The datagram ends inside the first eight bytes.
    Short,
    /// Not version 1, or GTP' (TS 29.281 §5.1).
    Version,
    /// The length field has more than the datagram, or less than the optional fields that the
    /// flags promise.
    Length,
    /// Of a message type that has no meaning on N3; to be dropped in silence.
    UnknownMessage,
    /// An extension header of length 0, which has neither an end nor a next.
    EmptyExtension,
    /// An extension header that ends behind the message.
    ExtensionBeyondMessage,
    /// More than [`MAX_EXTENSIONS`], or more than [`MAX_HEADER_LEN`] of them.
    TooManyExtensions,
    /// An extension header of this type, which says that we must understand it, and we do not.
    NotUnderstood(u8),
    /// A PDU session container of a type other than down and up.
    SessionType,
    /// A second PDU session container: which of the two holds would be anyone's choice.
    SecondSession,
    /// A G-PDU with nothing in it.
    NoPacket,
}

/// The message at the cursor, in the `available` bytes of a datagram's payload. Bytes behind
/// the message's own length are not its. `available` as for [`ip::ipv4`].
#[inline(always)]
pub fn read(cursor: Cursor, available: usize) -> Result<Message, Refusal> {
    if available < HEADER_LEN {
        return Err(Refusal::Short);
    }
    let Some(header) = cursor.peek::<HEADER_LEN>() else { return Err(Refusal::Short) };
    let flags = header.u8::<0>();
    if flags & 0xf0 != VERSION_1 {
        return Err(Refusal::Version);
    }
    let len = HEADER_LEN + header.be16::<2>() as usize;
    if len > available {
        return Err(Refusal::Length);
    }
    let kind = match header.u8::<1>() {
        ECHO_REQUEST => Kind::EchoRequest,
        ECHO_RESPONSE => Kind::EchoResponse,
        ERROR_INDICATION => Kind::ErrorIndication,
        SUPPORTED_EXTENSION_HEADERS => Kind::SupportedExtensionHeaders,
        END_MARKER => Kind::EndMarker,
        G_PDU => Kind::GPdu,
        _ => return Err(Refusal::UnknownMessage),
    };
    let mut message = Message {
        kind,
        teid: header.be32::<4>(),
        sequence: None,
        session: None,
        header_len: HEADER_LEN,
        len,
    };
    if flags & (EXTENDED | SEQUENCED | NUMBERED) != 0 {
        if len < LONG_HEADER_LEN {
            return Err(Refusal::Length);
        }
        let Some(header) = cursor.peek::<LONG_HEADER_LEN>() else { return Err(Refusal::Length) };
        message.header_len = LONG_HEADER_LEN;
        if flags & SEQUENCED != 0 {
            message.sequence = Some(header.be16::<8>());
        }
        // Without flag E the next type is there and means nothing (TS 29.281 §5.1).
        if flags & EXTENDED != 0 {
            (message.header_len, message.session) = extensions(cursor, len, header.u8::<11>())?;
        }
    }
    if matches!(kind, Kind::GPdu) && message.header_len == len {
        return Err(Refusal::NoPacket);
    }
    Ok(message)
}

/// The chain of extension headers (TS 29.281 §5.2) from `kind` on, in a message of `len`: where
/// it ends, and what its PDU session container says.
#[inline(always)]
fn extensions(
    cursor: Cursor,
    len: usize,
    mut kind: u8,
) -> Result<(usize, Option<Session>), Refusal> {
    let mut at = LONG_HEADER_LEN;
    let mut session = Noted::NONE;
    for _ in 0..MAX_EXTENSIONS {
        if kind == NO_MORE {
            return Ok((at, session.read()));
        }
        if at + 4 > len {
            return Err(Refusal::ExtensionBeyondMessage);
        }
        // Length in units of four bytes, content, and in the last byte the next type.
        let Some(start) = word(cursor, at) else { return Err(Refusal::ExtensionBeyondMessage) };
        let extension_len = (start.u8::<0>() as usize) << 2;
        if extension_len == 0 {
            return Err(Refusal::EmptyExtension);
        }
        let after = at + extension_len;
        if after > len {
            return Err(Refusal::ExtensionBeyondMessage);
        }
        if after > MAX_HEADER_LEN {
            return Err(Refusal::TooManyExtensions);
        }
        if kind == PDU_SESSION_CONTAINER {
            if session != Noted::NONE {
                return Err(Refusal::SecondSession);
            }
            session = Noted::of(session_of(start)?);
        } else if kind & COMPREHENSION_REQUIRED != 0 {
            return Err(Refusal::NotUnderstood(kind));
        }
        let Some(end) = word(cursor, after - 4) else {
            return Err(Refusal::ExtensionBeyondMessage);
        };
        kind = end.u8::<3>();
        at = after;
    }
    if kind == NO_MORE { Ok((at, session.read())) } else { Err(Refusal::TooManyExtensions) }
}

/// An `Option<Session>` in one word. Of the fields of a `None` a compiler may take whatever is in
/// a register, and if that is a pointer the verifier refuses to calculate with it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Noted(u16);

impl Noted {
    const NONE: Self = Self(0);
    const SOME: u16 = 0x80;

    #[inline(always)]
    const fn of(session: Session) -> Self {
        Self(Self::SOME | (session.direction as u16) << 6 | session.qfi as u16)
    }

    #[inline(always)]
    const fn read(self) -> Option<Session> {
        if self.0 == 0 {
            return None;
        }
        let direction = if self.0 & 0x40 == 0 { Direction::Down } else { Direction::Up };
        Some(Session { direction, qfi: self.0 as u8 & 0x3f })
    }
}

#[inline(always)]
fn word(mut cursor: Cursor, at: usize) -> Option<Window<4>> {
    cursor.skip_computed(at);
    cursor.peek()
}

/// What every PDU session container starts with: the fields that its flags promise come
/// behind, and are of no use here (TS 38.415 §5.5.2).
#[inline(always)]
fn session_of(start: Window<4>) -> Result<Session, Refusal> {
    let direction = match start.u8::<1>() >> 4 {
        0 => Direction::Down,
        1 => Direction::Up,
        _ => return Err(Refusal::SessionType),
    };
    Ok(Session { direction, qfi: start.u8::<2>() & 0x3f })
}

/// As [`read`], of a datagram's payload in user space.
pub fn read_bytes(payload: &[u8]) -> Result<Message, Refusal> {
    let start = payload.as_ptr() as usize;
    // SAFETY: `payload` outlives the cursor, and `read` writes nothing.
    read(unsafe { Cursor::new(start, start + payload.len()) }, payload.len())
}

/// Whether a user's packet is GTP-U itself, to the end of some tunnel: what a UE sends to be
/// unpacked by a second end point, whose core then takes it for another UE's.
///
/// A packet that shows no ports (see [`Packet::has_ports`]) is not.
#[inline(always)]
pub const fn is_gtpu(inner: &Packet) -> bool {
    inner.has_ports && inner.protocol == ip::UDP && inner.ports & 0xffff == PORT as u32
}

/// The information elements of an error indication (TS 29.281 §7.3.1): a tunnel that the peer
/// does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorIndication {
    pub teid: u32,
    /// Of the end point that does not know it; IPv4 is IPv4-mapped.
    pub peer: [u8; 16],
}

impl ErrorIndication {
    /// From the bytes of the message behind its header, in user space. Elements come in the
    /// order of their types (TS 29.060 §7.1.1), so these two are the first; what follows them is
    /// optional. `None`: one of them is missing, or its length is not that of an address.
    pub fn from_bytes(elements: &[u8]) -> Option<Self> {
        let &[TEID_DATA_I, a, b, c, d, PEER_ADDRESS, high, low, ref rest @ ..] = elements else {
            return None;
        };
        let peer = match (u16::from_be_bytes([high, low]), rest) {
            (4, &[e, f, g, h, ..]) => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, e, f, g, h],
            (16, rest) => *rest.first_chunk()?,
            _ => return None,
        };
        Some(Self { teid: u32::from_be_bytes([a, b, c, d]), peer })
    }
}

/// Bytes of [`write_g_pdu`]'s header.
pub const G_PDU_LEN: usize = 16;
/// Bytes of an echo response: header, restart counter.
pub const ECHO_RESPONSE_LEN: usize = 14;
/// Bytes of an error indication about an IPv4 address, and about an IPv6 address.
pub const ERROR_V4_LEN: usize = 28;
pub const ERROR_V6_LEN: usize = 40;
/// Bytes of [`write_supported_extensions`].
pub const SUPPORTED_EXTENSIONS_LEN: usize = 16;

/// The first eight bytes of a message; `len` is the length field.
#[inline(always)]
const fn header(flags: u8, kind: u8, len: u16, teid: u32) -> u64 {
    ((VERSION_1 | flags) as u64) << 56 | (kind as u64) << 48 | (len as u64) << 32 | teid as u64
}

/// The header of a G-PDU in front of `inner_len` bytes, at most 65,527, with one extension
/// header: a PDU session container of the shortest form. `session.qfi` is below 64.
#[inline(always)]
pub fn write_g_pdu(at: Window<G_PDU_LEN>, teid: u32, session: Session, inner_len: u16) {
    let len = inner_len.wrapping_add((G_PDU_LEN - HEADER_LEN) as u16);
    at.set_raw64::<0>(header(EXTENDED, G_PDU, len, teid).to_be());
    // No sequence and no N-PDU number; one unit of container, and no other behind it.
    let container = 1 << 24 | (session.direction as u64) << 20 | u64::from(session.qfi) << 8;
    at.set_raw64::<8>((u64::from(PDU_SESSION_CONTAINER) << 32 | container).to_be());
}

/// The answer to an echo request of this sequence number (TS 29.281 §7.2.2). The restart
/// counter is 0, and has no meaning in GTP-U.
#[inline(always)]
pub fn write_echo_response(at: Window<ECHO_RESPONSE_LEN>, sequence: u16) {
    let len = (ECHO_RESPONSE_LEN - HEADER_LEN) as u16;
    at.set_raw64::<0>(header(SEQUENCED, ECHO_RESPONSE, len, 0).to_be());
    at.set_raw32::<8>((u32::from(sequence) << 16).to_be());
    at.set_raw16::<12>((u16::from(RECOVERY) << 8).to_be());
}

/// What an error indication (TS 29.281 §7.3.1) says before the address, with the UDP port
/// extension header (§5.2.2.1). The sequence number is there and means nothing (§5.1).
#[inline(always)]
fn write_error<const N: usize>(at: Window<N>, teid: u32, source_port: u16, address_len: u16) {
    let len = (N - HEADER_LEN) as u16;
    at.set_raw64::<0>(header(EXTENDED | SEQUENCED, ERROR_INDICATION, len, 0).to_be());
    let port = 1 << 24 | u64::from(source_port) << 8;
    at.set_raw64::<8>((u64::from(UDP_PORT) << 32 | port).to_be());
    let elements = u64::from(TEID_DATA_I) << 56
        | u64::from(teid) << 24
        | u64::from(PEER_ADDRESS) << 16
        | u64::from(address_len);
    at.set_raw64::<16>(elements.to_be());
}

/// Tells the sender of a G-PDU, from this UDP port to `peer` (raw), that we do not know its
/// tunnel.
#[inline(always)]
pub fn write_error_v4(at: Window<ERROR_V4_LEN>, teid: u32, source_port: u16, peer: u32) {
    write_error(at, teid, source_port, 4);
    at.set_raw32::<24>(peer);
}

/// As [`write_error_v4`], to an IPv6 address (raw).
#[inline(always)]
pub fn write_error_v6(at: Window<ERROR_V6_LEN>, teid: u32, source_port: u16, peer: [u64; 2]) {
    write_error(at, teid, source_port, 16);
    at.set_raw64::<24>(peer[0]);
    at.set_raw64::<32>(peer[1]);
}

/// The answer to an extension header that is [`Refusal::NotUnderstood`]: the types that are
/// understood (TS 29.281 §7.2.3).
#[inline(always)]
pub fn write_supported_extensions(at: Window<SUPPORTED_EXTENSIONS_LEN>) {
    let len = (SUPPORTED_EXTENSIONS_LEN - HEADER_LEN) as u16;
    at.set_raw64::<0>(header(SEQUENCED, SUPPORTED_EXTENSION_HEADERS, len, 0).to_be());
    let types = [EXTENSION_HEADER_TYPES, 2, UDP_PORT, PDU_SESSION_CONTAINER];
    at.set_raw64::<8>(u64::from(u32::from_be_bytes(types)).to_be());
}

/// The whole of an end marker (TS 29.281 §7.3.2).
#[inline(always)]
pub const fn end_marker(teid: u32) -> [u8; HEADER_LEN] {
    header(0, END_MARKER, 0, teid).to_be_bytes()
}

#[cfg(test)]
mod tests;
