//! Raw frames of an interface (packet(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
    setsockopt, socket, sockopt,
};

/// Frames that the kernel holds for us while we are busy, in bytes.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Which way a captured frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
}

/// A socket on one interface of the calling thread's namespace, non-blocking.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: OwnedFd,
    index: usize,
}

impl PacketSocket {
    /// Sees every frame that comes in or goes out.
    pub(crate) fn tap(interface: &str) -> io::Result<Self> {
        let open = Self::open(interface, Some(SockProtocol::EthAll))?;
        setsockopt(&open.fd, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        Ok(open)
    }

    /// Only sends.
    pub(crate) fn output(interface: &str) -> io::Result<Self> {
        Self::open(interface, None)
    }

    fn open(interface: &str, protocol: Option<SockProtocol>) -> io::Result<Self> {
        let address = link_address(interface)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, protocol)?;
        // The address names no protocol, so the socket keeps the one it was made with.
        bind(fd.as_raw_fd(), &address)?;
        Ok(Self { fd, index: address.ifindex() })
    }

    /// The next frame: its whole length, of which `buffer` holds as much as it can, and its way.
    /// `None` when there is none.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Way)>> {
        // <linux/if_packet.h>
        const PACKET_OUTGOING: u8 = 4;

        loop {
            match recvfrom::<LinkAddr>(self.fd.as_raw_fd(), buffer) {
                Ok((length, Some(from))) if from.ifindex() == self.index => {
                    let out = from.pkttype() == PACKET_OUTGOING;
                    return Ok(Some((length, if out { Way::Out } else { Way::In })));
                }
                // Of another interface, from before the socket was bound.
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a frame past the interface's queue; false when it was not taken.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<bool> {
        match send(self.fd.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT) {
            Ok(_) => Ok(true),
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::ENETDOWN | Errno::EMSGSIZE) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn link_address(interface: &str) -> io::Result<LinkAddr> {
    let named = |address: &nix::ifaddrs::InterfaceAddress| address.interface_name == interface;
    nix::ifaddrs::getifaddrs()?
        .filter(named)
        .find_map(|address| address.address?.as_link_addr().copied())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface {interface}")))
}
