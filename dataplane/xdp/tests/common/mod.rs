//! Namespaces, veth pairs and pins for tests that need root. Everything goes when the test
//! ends, by panic as well.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod entries;
pub mod layout;

use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use selvedge_xdp::{Interface, Options, Switch, remove_all};

/// Runs `body` on its own thread in a fresh network namespace. The kernel removes the
/// namespace, and every link in it, when the thread ends.
pub fn in_netns(body: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            // Fails rather than skips: a skipped test reads as a passed one.
            unshare(CloneFlags::CLONE_NEWNET).expect("netns tests run as root: CAP_SYS_ADMIN");
            ip("link set lo up");
            body();
        });
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// `ip ARGS`, in the namespace of this thread.
pub fn ip(args: &str) {
    let output = Command::new("ip").args(args.split_whitespace()).output();
    let output = output.expect("iproute2 is installed");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A pin directory of its own, removed when dropped.
pub struct PinDir(PathBuf);

impl PinDir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-xdp-{}-{n}", std::process::id());
        Self(Path::new("/sys/fs/bpf/selvedge").join(name))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where a switch opened here keeps its pins.
    pub fn layout(&self) -> PathBuf {
        self.0.join(format!("v{}", selvedge_ebpf_common::LAYOUT_VERSION))
    }

    pub fn options(&self) -> Options {
        Options { pin_dir: self.0.clone(), metering: true }
    }

    pub fn open(&self) -> Switch {
        Switch::open(&self.options()).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }
}

impl Drop for PinDir {
    fn drop(&mut self) {
        if let Err(error) = remove_all(&self.0) {
            eprintln!("{}", chain(&error));
        }
    }
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!("\n  because: {error}"));
        source = error.source();
    }
    text
}

/// A veth pair in this namespace, both ends up: `name` and `name` + "h".
pub fn veth(name: &str) -> Interface {
    ip(&format!("link add {name} type veth peer name {name}h"));
    for end in [name.to_owned(), format!("{name}h")] {
        let path = format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6");
        std::fs::write(path, "1").unwrap();
        ip(&format!("link set {end} up"));
    }
    interface(name)
}

pub fn interface(name: &str) -> Interface {
    let index = nix::net::if_::if_nametoindex(name).unwrap();
    Interface { index, name: name.to_owned(), mac: mac(name) }
}

/// A link's MAC address, by getifaddrs(3), which knows the thread's namespace.
pub fn mac(name: &str) -> [u8; 6] {
    let addresses = nix::ifaddrs::getifaddrs().unwrap();
    addresses
        .filter(|a| a.interface_name == name)
        .find_map(|a| a.address?.as_link_addr()?.addr())
        .unwrap_or_else(|| panic!("{name} has a link address"))
}

/// An AF_XDP socket that is bound to nothing: it has its place in the map, and takes no frame.
pub fn xdp_socket() -> OwnedFd {
    // SAFETY: no pointer is passed; the answer is checked, and owned here.
    unsafe {
        let fd = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

/// Sends a frame out of an interface of this namespace, past every program.
pub fn send(name: &str, frame: &[u8]) {
    let mut address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: interface(name).index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    address.sll_addr[..6].copy_from_slice(&frame[..6]);
    // SAFETY: the pointers are of live values, with their lengths; the socket is owned here.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(fd);
        let sent = libc::sendto(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of_val(&address) as u32,
        );
        assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
    }
}
