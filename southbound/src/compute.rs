//! The wire between a switch's agent and its Wasm host: one prost message per datagram of a
//! Unix `SOCK_SEQPACKET` socket, with at most one file descriptor beside it (`SCM_RIGHTS`,
//! unix(7)). The messages are `proto/selvedge/compute.proto`; the agent listens, the host
//! dials. Both ends are non-blocking, so the same [`Channel`] serves poll(2) and, inside
//! tokio, [`AsyncChannel`].
//!
//! What it deliberately does not do: retry, reconnect, or know what a message means.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::Path,
};

use prost::Message;
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{MemfdFlags, Mode, SealFlags},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
        SocketType, sockopt,
    },
};
use tokio::io::unix::AsyncFd;

/// Largest datagram, bytes: a hook's configuration and what surrounds it.
pub const MAX_MESSAGE: usize = 128 << 10;
/// Largest module, bytes.
pub const MAX_MODULE: usize = 8 << 20;
/// Largest hook configuration, bytes.
pub const MAX_CONFIG: usize = 64 << 10;
/// `Hello.protocol` of this version.
pub const PROTOCOL: u32 = 1;

const BACKLOG: i32 = 8;
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// A socket file that hosts dial. The file goes when the listener does.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: std::path::PathBuf,
}

impl Listener {
    /// Listens at `path`, for this user only (mode 0600). A file left there by an agent that
    /// died is replaced; one that somebody listens at is `AddrInUse`.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match Channel::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket = seqpacket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// The next host that dialed; `WouldBlock` when there is none. A peer of another user
    /// (other than root) is refused with `PermissionDenied` and its connection closed.
    pub fn accept(&self) -> io::Result<Channel> {
        let socket = rustix::net::accept_with(&self.socket, FLAGS)?;
        let peer = sockopt::socket_peercred(&socket)?.uid;
        if peer != rustix::process::getuid() && !peer.is_root() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Channel { socket })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A file that is already gone is as good.
        drop(std::fs::remove_file(&self.path));
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// One connection. Datagrams: each `send` is one `recv` at the other end, or none.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// A received message and the descriptor that came beside it.
pub type Received<M> = (M, Option<OwnedFd>);

impl Channel {
    /// Dials the agent that listens at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = seqpacket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket })
    }

    /// Two ends that are connected to each other (for tests and for a child process).
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// Sends `message`, and a duplicate of `fd` beside it.
    ///
    /// # Errors
    /// `WouldBlock` when the peer does not read; `BrokenPipe` when it is gone;
    /// `InvalidInput` above [`MAX_MESSAGE`].
    pub fn send(&self, message: &impl Message, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = message.encode_to_vec();
        if bytes.len() > MAX_MESSAGE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("message of {} bytes, at most {MAX_MESSAGE} fit", bytes.len()),
            ));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = fd.map(|fd| [fd]);
        if let Some(fds) = &fds {
            let fits = control.push(SendAncillaryMessage::ScmRights(fds));
            assert!(fits, "space is for one descriptor");
        }
        let iov = [IoSlice::new(&bytes)];
        loop {
            match rustix::net::sendmsg(&self.socket, &iov, &mut control, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next message; `None` when the peer closed.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; `InvalidData` for a datagram that is empty, too long,
    /// carries more than one descriptor, or is no `M`; afterwards the channel is still in step.
    pub fn recv<M: Message + Default>(&self) -> io::Result<Option<Received<M>>> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut iov = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(&self.socket, &mut iov, &mut control, flags) {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        // Taken out first, so that whatever arrived is owned and closed.
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) || fds.len() > 1 {
            return Err(invalid("datagram or its descriptors do not fit"));
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        let message = M::decode(&bytes[..received.bytes]).map_err(invalid)?;
        Ok(Some((message, fds.pop())))
    }

    /// Waits until there is something to `recv`; false after `timeout_ms`.
    pub fn wait_readable(&self, timeout_ms: u32) -> io::Result<bool> {
        wait(&self.socket, PollFlags::IN, timeout_ms)
    }

    /// Waits until the peer can take another datagram; false after `timeout_ms`.
    pub fn wait_writable(&self, timeout_ms: u32) -> io::Result<bool> {
        wait(&self.socket, PollFlags::OUT, timeout_ms)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A [`Listener`] inside a tokio runtime.
#[derive(Debug)]
pub struct AsyncListener(AsyncFd<Listener>);

impl AsyncListener {
    /// Must be called inside a runtime that has its I/O driver enabled.
    #[expect(
        deprecated,
        reason = "the replacement is an unsafe fn for types that may close their descriptor; \
                  this one owns it for its whole life"
    )]
    pub fn new(listener: Listener) -> io::Result<Self> {
        AsyncFd::new(listener).map(Self)
    }

    /// The next host that dials. Cancel-safe.
    pub async fn accept(&self) -> io::Result<AsyncChannel> {
        let channel = self.0.async_io(tokio::io::Interest::READABLE, Listener::accept).await?;
        AsyncChannel::new(channel)
    }
}

/// A [`Channel`] inside a tokio runtime.
#[derive(Debug)]
pub struct AsyncChannel(AsyncFd<Channel>);

impl AsyncChannel {
    /// Must be called inside a runtime that has its I/O driver enabled.
    #[expect(
        deprecated,
        reason = "the replacement is an unsafe fn for types that may close their descriptor; \
                  this one owns it for its whole life"
    )]
    pub fn new(channel: Channel) -> io::Result<Self> {
        AsyncFd::new(channel).map(Self)
    }

    /// As [`Channel::send`], waiting for room. Cancel-safe: sent whole or not at all.
    pub async fn send(&self, message: &impl Message, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let interest = tokio::io::Interest::WRITABLE;
        self.0.async_io(interest, |channel| channel.send(message, fd)).await
    }

    /// As [`Channel::recv`], waiting for a message. Cancel-safe.
    pub async fn recv<M: Message + Default>(&self) -> io::Result<Option<Received<M>>> {
        self.0.async_io(tokio::io::Interest::READABLE, |channel| channel.recv()).await
    }
}

/// A sealed memory file that holds a module, to go beside a `Load`.
pub fn module_memfd(module: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("selvedge-hook", flags)?;
    let mut written = 0;
    while written < module.len() {
        written += rustix::io::pwrite(&fd, &module[written..], written as u64)?;
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals)?;
    Ok(fd)
}

/// The module in a memory file, copied out (so that nobody changes it afterwards).
///
/// # Errors
/// `FileTooLarge` above [`MAX_MODULE`]; `InvalidData` when it is shorter than it says.
pub fn read_module(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let size = usize::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(usize::MAX);
    if size > MAX_MODULE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut module = vec![0; size];
    let mut read = 0;
    while read < size {
        match rustix::io::pread(fd, &mut module[read..], read as u64)? {
            0 => return Err(invalid("module file was truncated")),
            n => read += n,
        }
    }
    Ok(module)
}

fn seqpacket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?)
}

fn wait(socket: &OwnedFd, flags: PollFlags, timeout_ms: u32) -> io::Result<bool> {
    let mut fds = [PollFd::new(socket, flags)];
    let timeout = Timespec {
        tv_sec: i64::from(timeout_ms / 1000),
        tv_nsec: i64::from(timeout_ms % 1000) * 1_000_000,
    };
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(n) => Ok(n > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selvedge::v1::{
        FromHost, Hello, Load, LoadHook, ToHost, UnloadHook, from_host, to_host,
    };

    fn load(config: usize) -> ToHost {
        let hook = LoadHook { hook: 7, config: vec![1; config], ..Default::default() };
        let load = Load { hook: Some(hook), ifname: "hk7x".into(), ..Default::default() };
        ToHost { message: Some(to_host::Message::Load(load)) }
    }

    #[test]
    fn a_module_travels_beside_its_load() {
        let (agent, host) = Channel::pair().unwrap();
        assert_eq!(host.recv::<ToHost>().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let memfd = module_memfd(b"\0asm and more").unwrap();
        agent.send(&load(MAX_CONFIG), Some(memfd.as_fd())).unwrap();
        assert!(host.wait_readable(1000).unwrap());
        let (message, fd) = host.recv::<ToHost>().unwrap().unwrap();
        assert_eq!(message, load(MAX_CONFIG));
        let fd = fd.unwrap();
        assert_eq!(read_module(fd.as_fd()).unwrap(), b"\0asm and more");
        assert!(rustix::io::pwrite(&fd, b"x", 0).is_err(), "sealed");
    }

    #[test]
    fn bad_datagrams_are_refused_and_the_next_one_is_read() {
        let (agent, host) = Channel::pair().unwrap();
        assert_eq!(
            agent.send(&load(MAX_MESSAGE), None).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        rustix::net::send(&agent.socket, &[0xff; 40], SendFlags::empty()).unwrap();
        let unload = to_host::Message::Unload(UnloadHook { hook: 1 });
        let unload = ToHost { message: Some(unload) };
        agent.send(&unload, None).unwrap();
        assert_eq!(host.recv::<ToHost>().unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(host.recv::<ToHost>().unwrap().unwrap().0, unload);
        drop(agent);
        assert!(host.recv::<ToHost>().unwrap().is_none());
        let gone = host.send(&unload, None).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_module_above_the_limit_is_refused() {
        let fd = module_memfd(&vec![0; MAX_MODULE + 1]).unwrap();
        assert_eq!(read_module(fd.as_fd()).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_dead_agents_socket_file_is_replaced_and_a_live_ones_is_not() {
        let path = std::env::temp_dir().join(format!("selvedge-compute-{}", std::process::id()));
        let first = Listener::bind(&path).unwrap();
        assert_eq!(Listener::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // As a killed agent leaves it: nobody listens, the file is there.
        let Listener { socket, .. } = &first;
        rustix::net::shutdown(socket, rustix::net::Shutdown::Both).unwrap();
        let second = Listener::bind(&path).unwrap();
        std::mem::forget(first);
        assert!(Channel::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_asynchronous_ends_wait_for_each_other() {
        let path = std::env::temp_dir().join(format!("selvedge-async-{}", std::process::id()));
        let listener = AsyncListener::new(Listener::bind(&path).unwrap()).unwrap();
        let hello = Hello { protocol: PROTOCOL, pid: 1 };
        let hello = FromHost { message: Some(from_host::Message::Hello(hello)) };
        let host = std::thread::spawn({
            let hello = hello.clone();
            move || Channel::connect(&path).unwrap().send(&hello, None).unwrap()
        });
        let channel = listener.accept().await.unwrap();
        let (message, fd) = channel.recv::<FromHost>().await.unwrap().unwrap();
        assert_eq!(message, hello);
        assert!(fd.is_none());
        host.join().unwrap();
        assert!(channel.recv::<FromHost>().await.unwrap().is_none());
    }
}
