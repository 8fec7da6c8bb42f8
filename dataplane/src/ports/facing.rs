//! Whether frames reach what is behind a port, and come from it whole. A switch cannot set
//! that at the far end of a veth pair, but it can see it and say what to do.
//!
//! - A frame can be redirected to an interface whose driver takes it (`NDO_XMIT` among the XDP
//!   features of the kernel's `netdev` netlink family). For veth that is so when the far end
//!   polls: with an XDP program or with GRO. Otherwise the frame vanishes, counted nowhere.
//! - A host that leaves checksums to its interface sends TCP and UDP over veth with none; what
//!   is redirected keeps none, and its receiver drops it. (Segmentation is no concern: the
//!   kernel has it off at a veth end whose peer carries XDP.)

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use rtnetlink::sys::{Socket, SocketAddr, protocols};
use selvedge_xdp::offload;

use super::table::{Far, Link};

/// What is wrong with an interface's far end, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The driver of this interface does not send redirected frames.
    Driver(String),
    /// The far end of this veth pair takes no redirected frames.
    NotPolled(String, Where),
    /// The far end of this veth pair sends unfinished checksums.
    Checksums(String, Where),
}

/// Where `ethtool` is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// In the named namespace, on this interface.
    Namespace(String, String),
    /// In the switch's own namespace, on this interface.
    Here(String),
    /// A namespace without a name in `/run/netns`, such as a container's.
    Unknown,
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(namespace, name) => {
                write!(f, "ip netns exec {namespace} ethtool -K {name} gro on tx off")
            }
            Self::Here(name) => write!(f, "ethtool -K {name} gro on tx off"),
            Self::Unknown => write!(f, "ethtool -K ITS-INTERFACE gro on tx off"),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(name) => write!(f, "the driver of {name} sends no redirected frames"),
            Self::NotPolled(name, there) => write!(
                f,
                "no frame reaches the far end of {name}, which has neither GRO nor an XDP \
                 program; at that end run: {there}"
            ),
            Self::Checksums(name, there) => write!(
                f,
                "the far end of {name} leaves checksums unfinished, so that what it sends is \
                 dropped by whom it is for; at that end run: {there}"
            ),
        }
    }
}

/// What is wrong with an interface that is up and carries the programs.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn trouble(link: &Link) -> io::Result<Option<Trouble>> {
    let takes = takes_redirects(link.ifindex)?;
    let Some(far) = link.far else {
        return Ok((takes == Some(false)).then(|| Trouble::Driver(link.name.clone())));
    };
    let (there, checksums) = look_at(far)?;
    Ok(match takes {
        Some(false) => Some(Trouble::NotPolled(link.name.clone(), there)),
        Some(true) | None if checksums => Some(Trouble::Checksums(link.name.clone(), there)),
        Some(true) | None => None,
    })
}

/// Where the far end is, and whether it leaves checksums unfinished.
fn look_at(far: Far) -> io::Result<(Where, bool)> {
    let found = match far.namespace {
        None => offload::interface_name(far.ifindex)
            .and_then(|name| Ok((offload::leaves_checksums(&name)?, Where::Here(name))))
            .ok(),
        Some(id) => named(id)?.and_then(|(name, namespace)| {
            let look = move || {
                setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
                let interface = offload::interface_name(far.ifindex)?;
                Ok::<_, io::Error>((offload::leaves_checksums(&interface)?, interface))
            };
            // Its own thread, which stays where it went.
            let (checksums, interface) = std::thread::spawn(look).join().ok()?.ok()?;
            Some((checksums, Where::Namespace(name, interface)))
        }),
    };
    // An end that went away in the meantime, or that we may not look at.
    Ok(found.map_or((Where::Unknown, false), |(checksums, there)| (there, checksums)))
}

const NETNS_DIR: &str = "/run/netns";

/// The namespace that this one knows by number `id`, if it has a name.
fn named(id: i32) -> io::Result<Option<(String, File)>> {
    const RTM_GETNSID: u16 = 90;
    const NETNSA_NSID: u16 = 1;
    const NETNSA_FD: u16 = 3;

    let Ok(names) = std::fs::read_dir(NETNS_DIR) else { return Ok(None) };
    let socket = open(protocols::NETLINK_ROUTE)?;
    for name in names.flatten().map(|entry| entry.file_name()) {
        let Ok(namespace) = File::open(Path::new(NETNS_DIR).join(&name)) else { continue };
        let mut request = vec![0; 4]; // struct rtgenmsg
        put(&mut request, NETNSA_FD, &namespace.as_raw_fd().to_ne_bytes());
        // A file left by a namespace that is gone is an error here, and none of ours.
        let Ok(answer) = ask(&socket, RTM_GETNSID, &request) else { continue };
        if attribute(&answer, 4, NETNSA_NSID) == Some(&id.to_ne_bytes()[..]) {
            return Ok(Some((name.to_string_lossy().into_owned(), namespace)));
        }
    }
    Ok(None)
}

/// Whether frames can be redirected to the interface. `None`: the kernel does not say, as
/// those before 6.3.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn takes_redirects(ifindex: u32) -> io::Result<Option<bool>> {
    const GENL_ID_CTRL: u16 = 0x10;
    const CTRL_CMD_GETFAMILY: u8 = 3;
    const CTRL_ATTR_FAMILY_ID: u16 = 1;
    const CTRL_ATTR_FAMILY_NAME: u16 = 2;
    const NETDEV_CMD_DEV_GET: u8 = 1;
    const NETDEV_A_DEV_IFINDEX: u16 = 1;
    const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
    const NETDEV_XDP_ACT_NDO_XMIT: u64 = 4;
    /// Of `struct genlmsghdr`.
    const HEADER: usize = 4;

    let socket = open(protocols::NETLINK_GENERIC)?;
    let mut request = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
    put(&mut request, CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let answer = match ask(&socket, GENL_ID_CTRL, &request) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        answer => answer?,
    };
    let id = attribute(&answer, HEADER, CTRL_ATTR_FAMILY_ID).and_then(|id| id.first_chunk());
    let Some(id) = id else { return Ok(None) };

    let mut request = vec![NETDEV_CMD_DEV_GET, 1, 0, 0];
    put(&mut request, NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes());
    let answer = ask(&socket, u16::from_ne_bytes(*id), &request)?;
    let features = attribute(&answer, HEADER, NETDEV_A_DEV_XDP_FEATURES);
    let features = features.and_then(|bits| bits.first_chunk());
    Ok(features.map(|bits| u64::from_ne_bytes(*bits) & NETDEV_XDP_ACT_NDO_XMIT != 0))
}

fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Bytes of `struct nlmsghdr`.
const NLMSG_HEADER: usize = 16;

/// Carries out a request that has one answer; its payload.
fn ask(socket: &Socket, kind: u16, payload: &[u8]) -> io::Result<Vec<u8>> {
    const NLM_F_REQUEST: u16 = 1;
    const NLMSG_ERROR: u16 = 2;

    let length = u32::try_from(NLMSG_HEADER + payload.len()).expect("a request is small");
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence, port: one request at a time
    message.extend(payload);
    socket.send(&message, 0)?;
    let (mut answer, _) = socket.recv_from_full()?;
    if answer.len() < NLMSG_HEADER + 4 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    answer.drain(..NLMSG_HEADER);
    match (kind, answer.first_chunk()) {
        (NLMSG_ERROR, Some(code)) => {
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes(*code).wrapping_neg()))
        }
        _ => Ok(answer),
    }
}

/// Appends an attribute (`struct nlattr`).
fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("a value is small");
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// The value of the first attribute of that kind, behind `header` bytes.
fn attribute(payload: &[u8], header: usize, wanted: u16) -> Option<&[u8]> {
    let mut rest = payload.get(header..)?;
    loop {
        let [l0, l1, k0, k1] = *rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([k0, k1]) == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}
