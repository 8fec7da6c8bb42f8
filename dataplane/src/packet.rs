//! A packet socket on all ports: it sees one EtherType only, says which interface a frame came in
//! on, and sends on the interface it is told.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc::{
    BPF_ABS, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SKF_AD_IFINDEX, SKF_AD_OFF,
};
use nix::sys::socket::{LinkAddr, MsgFlags, recvfrom, sendto};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::gateway::link_addresses;

/// Largest frame that is read; the rest of a longer one is cut off, and nobody here has a use for
/// it.
pub const FRAME_MAX: usize = 1600;

/// `PACKET_OUTGOING`, if_packet.h: our own frame, looped back.
const OUTGOING: u8 = 4;

#[derive(Debug)]
pub struct PacketSocket {
    socket: AsyncFd<Socket>,
    /// By interface index.
    addresses: BTreeMap<u32, LinkAddr>,
}

impl PacketSocket {
    /// In this thread's network namespace; must be called inside a runtime.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW.
    pub fn open(ethertype: u16) -> io::Result<Self> {
        let protocol = Protocol::from(i32::from(ethertype.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(protocol))?;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe code for descriptors that may close under it; \
                      this one owns its socket"
        )]
        let socket = AsyncFd::new(socket)?;
        Ok(Self { socket, addresses: BTreeMap::new() })
    }

    /// Looks up the interfaces there are; to be called when they have changed.
    pub fn refresh(&mut self) -> io::Result<()> {
        self.addresses = link_addresses()?;
        Ok(())
    }

    /// From now on the kernel drops what comes in on these interfaces, and on no others: at the
    /// socket, so that it costs us nothing. What waits in the socket's queue is still received.
    ///
    /// # Errors
    /// The system's.
    pub fn mute(&self, interfaces: impl Iterator<Item = u32>) -> io::Result<()> {
        self.socket.get_ref().attach_filter(&filter(interfaces))
    }

    /// From now on the kernel drops what is not for `mac`, as [`Self::mute`] has it.
    ///
    /// # Errors
    /// The system's.
    pub fn only_to(&self, mac: [u8; 6]) -> io::Result<()> {
        let [a, b, c, d, e, f] = mac;
        self.socket.get_ref().attach_filter(&[
            step(BPF_LD | BPF_W | BPF_ABS, 0, 0),
            step(BPF_JMP | BPF_JEQ | BPF_K, 3, u32::from_be_bytes([a, b, c, d])),
            step(BPF_LD | BPF_H | BPF_ABS, 0, 4),
            step(BPF_JMP | BPF_JEQ | BPF_K, 1, u32::from_be_bytes([0, 0, e, f])),
            step(BPF_RET | BPF_K, 0, WHOLE),
            step(BPF_RET | BPF_K, 0, 0),
        ])
    }

    /// The next frame: its length in `frame`, and the interface it came in on. Cancel-safe.
    pub async fn recv(&self, frame: &mut [u8; FRAME_MAX]) -> io::Result<(usize, u32)> {
        loop {
            let receive = |socket: &Socket| Ok(recvfrom::<LinkAddr>(socket.as_raw_fd(), frame)?);
            let (len, from) = self.socket.async_io(Interest::READABLE, receive).await?;
            let Some(from) = from.filter(|from| from.pkttype() != OUTGOING) else { continue };
            if let Ok(ifindex) = u32::try_from(from.ifindex()) {
                return Ok((len, ifindex));
            }
        }
    }

    /// Sends at once or not at all: a full queue costs one frame, and the next is due soon.
    ///
    /// # Errors
    /// `NotFound` for an interface that [`Self::refresh`] has not seen; the system's.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let address = self.addresses.get(&ifindex).ok_or(io::ErrorKind::NotFound)?;
        let fd = self.socket.get_ref().as_raw_fd();
        sendto(fd, frame, address, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }
}

/// Longest frame that a filter lets through: all of it.
const WHOLE: u32 = u32::MAX;

/// Of classic BPF (linux/filter.h); `jf`: steps that are left out where a comparison fails.
fn step(code: u32, jf: u8, k: u32) -> SockFilter {
    SockFilter::new(code as u16, 0, jf, k)
}

/// Two steps for each interface, and a switch has 255 ports.
fn filter(muted: impl Iterator<Item = u32>) -> Vec<SockFilter> {
    let of = (SKF_AD_OFF + SKF_AD_IFINDEX) as u32;
    let mut steps = vec![step(BPF_LD | BPF_W | BPF_ABS, 0, of)];
    for ifindex in muted {
        steps.push(step(BPF_JMP | BPF_JEQ | BPF_K, 1, ifindex));
        steps.push(step(BPF_RET | BPF_K, 0, 0));
    }
    steps.push(step(BPF_RET | BPF_K, 0, WHOLE));
    steps
}
