//! What the programs tell the agent: sources seen on an access port that are not bound to it.
//!
//! The programs tell each (port, address) at most once a second and each port's at most
//! [`EVENTS_PER_SECOND`] times, so that a flood of forged sources costs its own port's events
//! only. What is told is a hint: a full ring loses it, and the next packet tells again.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya::maps::{MapData, RingBuf};
use selvedge_ebpf_common::value::SeenEvent;

pub use selvedge_ebpf_common::value::EVENTS_PER_SECOND;

use crate::Error;
use crate::maps::Maps;
use crate::table::address_of;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointSeen {
    pub port: u16,
    /// The frame's source.
    pub mac: [u8; 6],
    pub address: IpAddr,
}

/// The event ring. Readable (`POLLIN`) while [`Events::next`] has something; one reader at a
/// time for each switch.
pub struct Events(RingBuf<MapData>);

impl Events {
    pub(crate) fn open(maps: &Maps) -> Result<Self, Error> {
        let failed = |source: aya::maps::MapError| Error::Map {
            doing: "read",
            map: "EVENTS",
            source: std::io::Error::other(source),
        };
        let fd = maps.get("EVENTS").as_fd().try_clone_to_owned();
        let fd = fd.map_err(Error::map("read", "EVENTS"))?;
        let data = MapData::from_fd(fd).map_err(failed)?;
        Ok(Self(RingBuf::try_from(aya::maps::Map::RingBuf(data)).map_err(failed)?))
    }

    /// The next event; `None` when there is none now. Does not block.
    #[expect(clippy::should_implement_trait, reason = "an end is not for good")]
    pub fn next(&mut self) -> Option<EndpointSeen> {
        let item = self.0.next()?;
        let bytes: &[u8] = &item;
        assert!(bytes.len() >= size_of::<SeenEvent>(), "a record is one event");
        // SAFETY: long enough by the assertion, and any bits are a valid `Plain`.
        let event = unsafe { bytes.as_ptr().cast::<SeenEvent>().read_unaligned() };
        let address = address_of(event.address);
        Some(EndpointSeen { port: event.port, mac: event.mac, address })
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns the descriptor, which lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Events").field(&self.as_raw_fd()).finish()
    }
}
