//! An AF_XDP socket on one interface's queue 0, in copy mode (veth has no other), over the
//! frames of one hook. By hand over libc: what the crates for it offer own their memory, and
//! here the memory is the sandbox's.
//!
//! A frame is at any time in one place: the fill ring (the kernel may receive into it), the
//! receive ring or the caller's hands, or between transmit and completion ring.

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use libc::{SOL_XDP, c_int};

use crate::{
    frames::{self, FRAMES, Frames},
    ring::{Consumer, Producer},
};

/// How long a queue may still belong to a socket that was just closed: the kernel lets go of
/// it in a work item.
const BIND_PATIENCE: Duration = Duration::from_secs(2);
/// System calls to get one batch sent before giving the rest a pause; each sends up to 32.
const KICKS: u32 = 16;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("no interface {ifname:?}")]
    NoInterface { ifname: String, source: nix::Error },
    #[error("cannot map {} bytes of frames", frames::AREA)]
    Map { source: io::Error },
    #[error("cannot {doing} the AF_XDP socket for {ifname:?}")]
    Socket { ifname: String, doing: &'static str, source: io::Error },
    #[error("queue 0 of {ifname:?} belongs to another socket")]
    Busy { ifname: String },
}

/// What was received: a frame, and how many bytes from the outer header on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) frame: u32,
    pub(crate) len: u32,
}

pub(crate) struct Socket {
    fd: OwnedFd,
    frames: Frames,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
}

impl Socket {
    /// Opens and binds; every frame is then the kernel's to receive into.
    pub(crate) fn bind(ifname: &str, frames: Frames) -> Result<Self, SocketError> {
        let ifindex = nix::net::if_::if_nametoindex(ifname)
            .map_err(|source| SocketError::NoInterface { ifname: ifname.to_owned(), source })?;
        let context = |doing: &'static str| {
            move |source| SocketError::Socket { ifname: ifname.to_owned(), doing, source }
        };
        // SAFETY: no pointer is passed; the answer is checked and owned here.
        let fd = unsafe {
            let fd = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                return Err(context("open")(io::Error::last_os_error()));
            }
            OwnedFd::from_raw_fd(fd)
        };
        let umem = libc::xdp_umem_reg {
            addr: frames.area() as u64,
            len: frames::AREA as u64,
            chunk_size: frames::CHUNK,
            headroom: 0,
            flags: libc::XDP_UMEM_UNALIGNED_CHUNK_FLAG,
            tx_metadata_len: 0,
        };
        set(&fd, libc::XDP_UMEM_REG, &umem).map_err(context("register the memory of"))?;
        for ring in [
            libc::XDP_UMEM_FILL_RING,
            libc::XDP_UMEM_COMPLETION_RING,
            libc::XDP_RX_RING,
            libc::XDP_TX_RING,
        ] {
            set(&fd, ring, &FRAMES).map_err(context("size the rings of"))?;
        }
        let offsets: libc::xdp_mmap_offsets =
            get(&fd, libc::XDP_MMAP_OFFSETS).map_err(context("lay out"))?;
        let mapped = context("map the rings of");
        let borrowed = fd.as_fd();
        let umem_page = |offset: u64| i64::try_from(offset).expect("a constant below 2^33");
        let mut fill =
            Producer::map(borrowed, offsets.fr, umem_page(libc::XDP_UMEM_PGOFF_FILL_RING), FRAMES)
                .map_err(&mapped)?;
        let completion = Consumer::map(
            borrowed,
            offsets.cr,
            umem_page(libc::XDP_UMEM_PGOFF_COMPLETION_RING),
            FRAMES,
        )
        .map_err(&mapped)?;
        let rx = Consumer::map(borrowed, offsets.rx, libc::XDP_PGOFF_RX_RING, FRAMES)
            .map_err(&mapped)?;
        let tx = Producer::map(borrowed, offsets.tx, libc::XDP_PGOFF_TX_RING, FRAMES)
            .map_err(&mapped)?;
        for frame in 0..FRAMES {
            let room = fill.push(frames::chunk_at(frame));
            assert!(room, "the fill ring holds every frame");
        }
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: libc::XDP_COPY | libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: 0,
            sxdp_shared_umem_fd: 0,
        };
        bind(&fd, &address, Instant::now() + BIND_PATIENCE).map_err(|source| {
            if source.raw_os_error() == Some(libc::EBUSY) {
                SocketError::Busy { ifname: ifname.to_owned() }
            } else {
                context("bind")(source)
            }
        })?;
        Ok(Self { fd, frames, fill, completion, rx, tx })
    }

    pub(crate) fn frames(&self) -> &Frames {
        &self.frames
    }

    /// The next received packet. A descriptor that is not where a frame's packet can be is
    /// skipped: the kernel is trusted, but an index from it is not used unchecked.
    pub(crate) fn receive(&mut self) -> Option<Received> {
        loop {
            let descriptor = self.rx.pop()?;
            if let Some(frame) = frames::received_frame(descriptor.addr) {
                return Some(Received { frame, len: descriptor.len });
            }
            tracing::error!(addr = descriptor.addr, "receive descriptor outside every frame");
        }
    }

    /// Gives a frame back to receive into.
    pub(crate) fn release(&mut self, frame: u32) {
        let room = self.fill.push(frames::chunk_at(frame));
        assert!(room, "the fill ring holds every frame");
    }

    /// Queues a frame's packet of `len` bytes from its outer header on; [`Socket::flush`]
    /// sends it.
    pub(crate) fn transmit(&mut self, frame: u32, len: u32) {
        let addr = frames::packet_at(frame);
        let room = self.tx.push(libc::xdp_desc { addr, len, options: 0 });
        assert!(room, "the transmit ring holds every frame");
    }

    /// Sends what is queued, and takes back the frames that have been sent. True when nothing
    /// is left in the queue.
    ///
    /// # Errors
    /// The interface is gone. A link that is down, or a full device queue, is no error: what
    /// is queued stays so.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        for _ in 0..KICKS {
            self.reclaim();
            if self.tx.pending() == 0 {
                return Ok(true);
            }
            if self.tx.needs_wakeup() && !self.kick()? {
                break;
            }
        }
        self.reclaim();
        Ok(self.tx.pending() == 0)
    }

    /// One system call to send; false when the kernel took nothing more for now.
    fn kick(&self) -> io::Result<bool> {
        let before = self.tx.pending();
        // SAFETY: no pointer but null with length zero, which sendto(2) takes as no data.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                std::ptr::null(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null(),
                0,
            )
        };
        if sent >= 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // EAGAIN also says that there is more than one call may send.
            Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR) => {
                Ok(self.tx.pending() < before)
            }
            Some(libc::ENETDOWN) => Ok(false),
            _ => Err(error),
        }
    }

    fn reclaim(&mut self) {
        while let Some(addr) = self.completion.pop() {
            match frames::frame_of(addr) {
                Some(frame) => self.release(frame),
                None => tracing::error!(addr, "completion of a packet outside every frame"),
            }
        }
    }

    /// Packets that the kernel had no room for since the socket was opened.
    pub(crate) fn kernel_dropped(&self) -> u64 {
        get::<libc::xdp_statistics>(&self.fd, libc::XDP_STATISTICS)
            .map_or(0, |statistics| statistics.rx_dropped + statistics.rx_ring_full)
    }

    /// `ENETDOWN` once the interface is gone for good.
    pub(crate) fn check(&self) -> io::Result<()> {
        let error: c_int = option(&self.fd, libc::SOL_SOCKET, libc::SO_ERROR)?;
        if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn bind(fd: &OwnedFd, address: &libc::sockaddr_xdp, deadline: Instant) -> io::Result<()> {
    loop {
        // SAFETY: `address` is a sockaddr of the length that is given.
        let failed = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                std::ptr::from_ref(address).cast(),
                size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
            )
        };
        if failed == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() >= deadline {
            return Err(error);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn set<T>(fd: &OwnedFd, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is readable for its own size; the kernel copies it.
    let failed = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            SOL_XDP,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get<T: Plain>(fd: &OwnedFd, name: c_int) -> io::Result<T> {
    option(fd, SOL_XDP, name)
}

fn option<T: Plain>(fd: &OwnedFd, level: c_int, name: c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `value`.
    let failed = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &mut len)
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    if len as usize != size_of::<T>() {
        return Err(io::ErrorKind::InvalidData.into()); // a kernel before 5.9
    }
    // SAFETY: written whole, and any bytes are a `T` by `Plain`.
    Ok(unsafe { value.assume_init() })
}

/// Types of which any bytes are a value.
///
/// # Safety
/// `repr(C)` of integers only.
unsafe trait Plain {}
// SAFETY: four structs of four u64.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: six u64.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: an integer.
unsafe impl Plain for c_int {}
