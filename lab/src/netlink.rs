//! Requests to the kernel over one netlink socket, many to a system call.
//!
//! Messages are built with `rtnetlink`'s types; this module sends them. It is synchronous,
//! because a lab is a few thousand requests in a known order, each of which must have succeeded
//! before the next kind: sixty-four go in one `send`, and the answers are gathered.

use std::io;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkMessage,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket, SocketAddr, protocols};

use crate::error::{Doing as _, Result};
use crate::netns::NetNs;

/// Requests in one `send`; their answers fit a default receive buffer.
const BATCH: usize = 64;

/// Creation that refuses what exists.
pub(crate) const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
/// Creation that takes the place of what exists.
pub(crate) const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// A message, ready to send, and what to call it in an error.
pub(crate) struct Request {
    what: String,
    bytes: Vec<u8>,
}

impl Request {
    pub(crate) fn new(what: impl Into<String>, flags: u16, message: RouteNetlinkMessage) -> Self {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        Self { what: what.into(), bytes }
    }

    /// A message in the kernel's own form: header with flags but for the sequence number, and
    /// payload.
    pub(crate) fn raw(what: impl Into<String>, kind: u16, flags: u16, payload: &[u8]) -> Self {
        let length = u32::try_from(16 + payload.len()).expect("a request is small");
        let mut bytes = Vec::with_capacity(16 + payload.len());
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(payload);
        Self { what: what.into(), bytes }
    }
}

/// A socket in one namespace and one netlink family.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// For links, addresses, routes and traffic control (rtnetlink(7)).
    pub(crate) fn route(ns: &NetNs) -> Result<Self> {
        Self::open(ns, protocols::NETLINK_ROUTE)
    }

    /// For families that are found by name.
    pub(crate) fn generic(ns: &NetNs) -> Result<Self> {
        Self::open(ns, protocols::NETLINK_GENERIC)
    }

    fn open(ns: &NetNs, protocol: isize) -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?; // errors with words
            socket.set_cap_ack(true)?; // and without the request
            Ok(socket)
        };
        let socket = ns.run(open).doing("open a netlink socket in namespace", ns.name())?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Carries out the requests in order, as far as each batch of them is concerned even after
    /// one has failed; the first failure is reported.
    pub(crate) fn send(&mut self, requests: Vec<Request>) -> Result<()> {
        for batch in requests.chunks(BATCH) {
            self.exchange(batch)?;
        }
        Ok(())
    }

    /// Carries out one request and hands over the payloads of its answers.
    pub(crate) fn ask(&mut self, request: Request) -> Result<Vec<Vec<u8>>> {
        self.exchange(&[request])
    }

    fn exchange(&mut self, batch: &[Request]) -> Result<Vec<Vec<u8>>> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for request in batch {
            self.sequence = self.sequence.wrapping_add(1);
            let at = bytes.len();
            bytes.extend(&request.bytes);
            bytes[at + 8..at + 12].copy_from_slice(&self.sequence.to_ne_bytes());
        }
        let all = || batch.first().map_or("nothing", |request| request.what.as_str());
        self.socket.send(&bytes, 0).doing("ask the kernel to", all())?;

        let (mut pending, mut failed, mut answers) = (batch.len(), None, Vec::new());
        while pending > 0 {
            let (datagram, _) = self.socket.recv_from_full().doing("hear whether it did", all())?;
            for answer in messages(&datagram) {
                let Some(index) = answer.sequence.checked_sub(first) else { continue };
                let Some(request) = batch.get(index as usize) else { continue };
                match answer.result {
                    None => answers.push(answer.payload.to_vec()),
                    Some(result) => {
                        pending -= 1;
                        if failed.is_none() {
                            failed = result.doing("have the kernel", &request.what).err();
                        }
                    }
                }
            }
        }
        failed.map_or(Ok(answers), Err)
    }
}

/// One message of an answer. `result` is there where it is the verdict on a request.
struct Answer<'a> {
    sequence: u32,
    result: Option<io::Result<()>>,
    payload: &'a [u8],
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;

fn messages(datagram: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let buffer = NetlinkBuffer::new_checked(rest).ok()?;
        let length = buffer.length() as usize;
        let payload = rest.get(16..length)?;
        let (kind, sequence, flags) =
            (buffer.message_type(), buffer.sequence_number(), buffer.flags());
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let result = match kind {
            NLMSG_ERROR => Some(verdict(payload, flags)),
            NLMSG_DONE => Some(Ok(())),
            _ => None,
        };
        Some(Answer { sequence, result, payload })
    })
}

/// `struct nlmsgerr`, with the kernel's words on it where it has some (`NLMSGERR_ATTR_MSG`).
fn verdict(payload: &[u8], flags: u16) -> io::Result<()> {
    const NLM_F_CAPPED: u16 = 0x100;
    const NLM_F_ACK_TLVS: u16 = 0x200;

    let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
    if code == 0 {
        return Ok(());
    }
    let error = io::Error::from_raw_os_error(-code);
    if flags & NLM_F_ACK_TLVS == 0 || flags & NLM_F_CAPPED == 0 {
        return Err(error);
    }
    let words = attributes(payload.get(20..).unwrap_or_default())
        .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
        .map(|(_, value)| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
    Err(match words {
        Some(words) => crate::netlink::Worded { words, error }.into(),
        None => error,
    })
}

/// An error code with the kernel's explanation.
#[derive(Debug, thiserror::Error)]
#[error("{error}: {words}")]
struct Worded {
    words: String,
    error: io::Error,
}

impl From<Worded> for io::Error {
    fn from(worded: Worded) -> Self {
        Self::new(worded.error.kind(), worded)
    }
}

/// Walks netlink attributes: (kind without flags, value).
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(*rest.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & 0x3FFF, value))
    })
}

/// Appends one netlink attribute, padded.
pub(crate) fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("an attribute is small");
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}
