//! Interface features that XDP on veth depends on (ethtool, by ioctl).
//!
//! A veth end takes redirected frames only when it runs NAPI: with an XDP program or with GRO.
//! And what its peer sends must be whole packets with whole checksums: encapsulated, nobody
//! finishes them.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::Error;

/// linux/ethtool.h: each `G` reads what its `S` sets.
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_GTSO: u32 = 0x1e;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_GGSO: u32 = 0x23;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Makes a veth end of this thread's network namespace fit to face XDP: GRO on, transmit
/// checksum and segmentation offload off. For host ends, and for ends of wires that carry no
/// program.
///
/// The interface must be up: a veth end that gets GRO while it is down does not tell its peer,
/// when the peer was up before, that frames can be redirected into it; they vanish then.
pub fn prepare_veth(ifname: &str) -> Result<(), Error> {
    // Segmentation first: without checksums the kernel refuses to have it anyway.
    let features = [
        ("switch TCP segmentation offload off on", ETHTOOL_GTSO, ETHTOOL_STSO, 0),
        ("switch generic segmentation offload off on", ETHTOOL_GGSO, ETHTOOL_SGSO, 0),
        ("switch transmit checksum offload off on", ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM, 0),
        ("switch GRO on on", ETHTOOL_GGRO, ETHTOOL_SGRO, 1),
    ];
    for (doing, get, set, wanted) in features {
        // Asked first: once the other end carries XDP, the kernel has segmentation off and
        // refuses to have it set, even to off.
        let change = || {
            if ethtool(ifname, get, 0)? != wanted {
                ethtool(ifname, set, wanted)?;
            }
            Ok(())
        };
        change().map_err(|source| Error::Interface { doing, ifname: ifname.to_owned(), source })?;
    }
    Ok(())
}

/// Whether an interface of this thread's network namespace is left to fill in the checksums
/// of what is sent by it, as is the default.
pub fn leaves_checksums(ifname: &str) -> io::Result<bool> {
    Ok(ethtool(ifname, ETHTOOL_GTXCSUM, 0)? != 0)
}

/// The name of an interface of this thread's network namespace.
pub fn interface_name(ifindex: u32) -> io::Result<String> {
    let name = nix::net::if_::if_indextoname(ifindex)?;
    Ok(name.to_string_lossy().into_owned())
}

/// Carries out a command that takes or gives one value.
fn ethtool(ifname: &str, command: u32, data: u32) -> io::Result<u32> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = EthtoolValue { command, data };
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if ifname.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(ifname.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
    // SAFETY: SIOCETHTOOL takes an ifreq whose data is an ethtool_value for these commands.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
}
