//! A namespace of its own with a hook's veth pair, a program that hands what arrives at the
//! socket side to an XSKMAP, and a packet socket at the switch side.

use std::{
    ffi::c_long,
    io,
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};

/// Runs `body` on its own thread in a fresh network namespace, which goes with the thread.
pub(crate) fn in_netns(body: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("netns tests run as root: CAP_SYS_ADMIN");
            // No router solicitations among the packets that are counted.
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
            body();
        });
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

pub(crate) fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status();
    assert!(status.expect("iproute2 is installed").success(), "ip {args}");
}

/// `hkN` (switch side) and `hkNx` (socket side) with its program.
pub(crate) struct Port {
    pub(crate) socket_side: String,
    map: OwnedFd,
    _link: OwnedFd,
    packets: OwnedFd,
}

impl Port {
    pub(crate) fn new(n: u32) -> Self {
        let (near, far) = (format!("hk{n}"), format!("hk{n}x"));
        ip(&format!(
            "link add {near} numrxqueues 1 numtxqueues 1 mtu 1600 type veth \
             peer name {far} numrxqueues 1 numtxqueues 1 mtu 1600"
        ));
        for side in [&near, &far] {
            ip(&format!("link set {side} up"));
        }
        let map = map_create();
        let program = program_load(&map);
        let link = link_create(&program, if_nametoindex(far.as_str()).unwrap());
        Self { socket_side: far, map, _link: link, packets: packet_socket(&near) }
    }

    /// What the agent does with the socket of a Running.
    pub(crate) fn insert(&self, socket: BorrowedFd<'_>) {
        let (key, value) = (0u32, socket.as_raw_fd() as u32);
        let attr = MapUpdate {
            map_fd: self.map.as_raw_fd() as u32,
            pad: 0,
            key: &raw const key as u64,
            value: &raw const value as u64,
            flags: 0,
        };
        // SAFETY: key and value are of the map's sizes and live until the call is over.
        unsafe { bpf(2, &attr) }.expect("update the XSKMAP");
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        loop {
            // SAFETY: the frame is readable for its length.
            let sent = unsafe {
                libc::send(self.packets.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0)
            };
            if sent == frame.len() as isize {
                return;
            }
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}");
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// The next frame from the hook, within `patience`.
    pub(crate) fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + patience;
        let mut frame = vec![0; 2048];
        loop {
            // SAFETY: the buffer is writable for its length.
            let len = unsafe {
                libc::recv(
                    self.packets.as_raw_fd(),
                    frame.as_mut_ptr().cast(),
                    frame.len(),
                    libc::MSG_DONTWAIT,
                )
            };
            if let Ok(len) = usize::try_from(len) {
                frame.truncate(len);
                return Some(frame);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let mut poll =
                libc::pollfd { fd: self.packets.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd.
            unsafe { libc::poll(&mut poll, 1, left.as_millis().max(1) as i32) };
        }
    }
}

fn packet_socket(ifname: &str) -> OwnedFd {
    let protocol = (libc::ETH_P_IPV6 as u16).to_be();
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol,
        sll_ifindex: if_nametoindex(ifname).unwrap() as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let room: libc::c_int = 64 << 20;
    // SAFETY: the structures are of the sizes given; the descriptor is owned once checked.
    unsafe {
        let fd =
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol));
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        let fd = OwnedFd::from_raw_fd(fd);
        let size = size_of::<libc::sockaddr_ll>() as u32;
        assert_eq!(libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size), 0);
        for option in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
            let size = size_of::<libc::c_int>() as u32;
            let set = libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const room).cast(),
                size,
            );
            assert_eq!(set, 0);
        }
        fd
    }
}

// The bpf(2) attributes that are needed, as in linux/bpf.h.

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    rest: [u64; 4],
}

const XSKMAP: u32 = 17;
const PROGRAM_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const DRIVER_MODE: u32 = 4;

/// # Safety
/// `attr` is what `command` wants and what it points to lives.
unsafe fn bpf<T>(command: c_long, attr: &T) -> io::Result<RawFd> {
    // SAFETY: by the caller.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as RawFd) }
}

fn map_create() -> OwnedFd {
    let attr =
        MapCreate { map_type: XSKMAP, key_size: 4, value_size: 4, max_entries: 1, map_flags: 0 };
    // SAFETY: no pointers; the descriptor is new and owned here.
    unsafe { OwnedFd::from_raw_fd(bpf(0, &attr).expect("create an XSKMAP")) }
}

/// `return bpf_redirect_map(&map, ctx->rx_queue_index, XDP_DROP)`
fn program_load(map: &OwnedFd) -> OwnedFd {
    let instruction = |code: u8, registers: u8, offset: i16, imm: i32| {
        u64::from(code)
            | u64::from(registers) << 8
            | u64::from(offset as u16) << 16
            | u64::from(imm as u32) << 32
    };
    let instructions = [
        instruction(0x61, 0x12, 16, 0),              // r2 = *(u32 *)(r1 + 16)
        instruction(0x18, 0x11, 0, map.as_raw_fd()), // r1 = map
        0,
        instruction(0xb7, 0x03, 0, 1),  // r3 = XDP_DROP
        instruction(0x85, 0x00, 0, 51), // call bpf_redirect_map
        instruction(0x95, 0x00, 0, 0),  // exit
    ];
    let attr = ProgramLoad {
        program_type: PROGRAM_XDP,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        expected_attach_type: ATTACH_XDP,
        ..Default::default()
    };
    // SAFETY: what it points to lives; the descriptor is new and owned here.
    unsafe { OwnedFd::from_raw_fd(bpf(5, &attr).expect("load the XDP program")) }
}

fn link_create(program: &OwnedFd, ifindex: u32) -> OwnedFd {
    let attr = LinkCreate {
        program: program.as_raw_fd() as u32,
        ifindex,
        attach_type: ATTACH_XDP,
        flags: DRIVER_MODE,
        rest: [0; 4],
    };
    // SAFETY: no pointers; the descriptor is new and owned here.
    unsafe { OwnedFd::from_raw_fd(bpf(28, &attr).expect("attach the XDP program")) }
}
