//! bpf(2), the few commands used here, without interpretation.
//!
//! `union bpf_attr` of linux/bpf.h is written as one struct for each command; the kernel takes
//! any prefix of the union whose rest is zero.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{c_int, c_long};

const MAP_CREATE: c_int = 0;
const MAP_LOOKUP_ELEM: c_int = 1;
const MAP_UPDATE_ELEM: c_int = 2;
const MAP_DELETE_ELEM: c_int = 3;
const MAP_GET_NEXT_KEY: c_int = 4;
const OBJ_PIN: c_int = 6;
const OBJ_GET: c_int = 7;
const PROG_TEST_RUN: c_int = 10;
const OBJ_GET_INFO_BY_FD: c_int = 15;
const PROG_QUERY: c_int = 16;
const RAW_TRACEPOINT_OPEN: c_int = 17;
const MAP_LOOKUP_BATCH: c_int = 24;
const MAP_UPDATE_BATCH: c_int = 26;
const LINK_CREATE: c_int = 28;
const LINK_UPDATE: c_int = 29;
const LINK_DETACH: c_int = 34;

/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_XDP: u32 = 37;
/// `BPF_TCX_INGRESS` of `enum bpf_attach_type`.
const ATTACH_TCX_INGRESS: u32 = 46;
/// `XDP_FLAGS_DRV_MODE`: native or not at all.
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// `BPF_F_TEST_XDP_LIVE_FRAMES`.
const TEST_LIVE_FRAMES: u32 = 1 << 1;

#[repr(C)]
#[derive(Default)]
struct MapAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct ElemAttr {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value_or_next: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ObjAttr {
    path: u64,
    fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    /// Where among the programs of a TCX hook: at its end.
    relative: u64,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    _pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct TracepointAttr {
    name: u64,
    prog_fd: u32,
    _pad: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _pad: u32,
}

/// `struct xdp_md` of linux/bpf.h.
#[repr(C)]
#[derive(Default)]
struct XdpMd {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// First fields of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) map_flags: u32,
}

/// First fields of `struct bpf_link_info`, of an XDP link or one of TCX.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) prog_id: u32,
    _pad: u32,
    /// 0 when the interface is gone.
    pub(crate) ifindex: u32,
    _pad2: u32,
}

/// # Safety
/// The pointers in `attr` are valid for what `command` reads and writes.
unsafe fn bpf<T>(command: c_int, attr: &mut T) -> io::Result<c_long> {
    // SAFETY: by this function's contract; the size is that of `attr`.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn owned(fd: c_long) -> OwnedFd {
    let fd = c_int::try_from(fd).expect("a descriptor is an int");
    // SAFETY: the kernel has just given it to us and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// `None`: no such key.
fn found(result: io::Result<c_long>) -> io::Result<Option<()>> {
    match result {
        Ok(_) => Ok(Some(())),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// # Safety
/// `key` has the map's key size, `value` its value size (for each CPU, rounded up to 8, of a
/// per-CPU map).
pub(crate) unsafe fn lookup(
    map: BorrowedFd<'_>,
    key: *const u8,
    value: *mut u8,
) -> io::Result<Option<()>> {
    let mut attr = ElemAttr {
        map_fd: raw(map),
        key: key as u64,
        value_or_next: value as u64,
        ..Default::default()
    };
    // SAFETY: by this function's contract.
    found(unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) })
}

/// # Safety
/// As for [`lookup`].
pub(crate) unsafe fn update(
    map: BorrowedFd<'_>,
    key: *const u8,
    value: *const u8,
) -> io::Result<()> {
    let mut attr = ElemAttr {
        map_fd: raw(map),
        key: key as u64,
        value_or_next: value as u64,
        ..Default::default()
    };
    // SAFETY: by this function's contract.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// # Safety
/// `key` has the map's key size.
pub(crate) unsafe fn delete(map: BorrowedFd<'_>, key: *const u8) -> io::Result<Option<()>> {
    let mut attr = ElemAttr { map_fd: raw(map), key: key as u64, ..Default::default() };
    // SAFETY: by this function's contract.
    found(unsafe { bpf(MAP_DELETE_ELEM, &mut attr) })
}

/// # Safety
/// `key` (null: from the start) and `next` have the map's key size.
pub(crate) unsafe fn next_key(
    map: BorrowedFd<'_>,
    key: *const u8,
    next: *mut u8,
) -> io::Result<Option<()>> {
    let mut attr = ElemAttr {
        map_fd: raw(map),
        key: key as u64,
        value_or_next: next as u64,
        ..Default::default()
    };
    // SAFETY: by this function's contract.
    found(unsafe { bpf(MAP_GET_NEXT_KEY, &mut attr) })
}

/// So many elements of an array, or as many as there are; `after`: from the one after it on.
///
/// # Safety
/// `keys` has room for `count` u32, `values` for `count` values of the map.
pub(crate) unsafe fn lookup_array(
    map: BorrowedFd<'_>,
    after: Option<u32>,
    keys: *mut u32,
    values: *mut u8,
    count: u32,
) -> io::Result<u32> {
    let mut cursor = 0u32;
    let mut attr = BatchAttr {
        in_batch: after.as_ref().map_or(std::ptr::null(), std::ptr::from_ref) as u64,
        out_batch: std::ptr::from_mut(&mut cursor) as u64,
        keys: keys as u64,
        values: values as u64,
        count,
        map_fd: raw(map),
        ..Default::default()
    };
    // SAFETY: by this function's contract; an array's cursor is an index of four bytes.
    found(unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) })?;
    Ok(attr.count)
}

/// Writes `count` elements, each whole.
///
/// # Safety
/// `keys` has `count` keys of the map, `values` as many values.
pub(crate) unsafe fn update_many(
    map: BorrowedFd<'_>,
    keys: *const u8,
    values: *const u8,
    count: u32,
) -> io::Result<()> {
    let mut attr = BatchAttr {
        keys: keys as u64,
        values: values as u64,
        count,
        map_fd: raw(map),
        ..Default::default()
    };
    // SAFETY: by this function's contract.
    unsafe { bpf(MAP_UPDATE_BATCH, &mut attr) }.map(drop)
}

/// Comes back when every program that runs now, for a packet, has ended.
///
/// The kernel waits so long (`synchronize_rcu`) before it answers a change of a map of maps;
/// membarrier(2) would say it more plainly, but has it not where processors run without a tick.
pub(crate) fn wait_for_programs() -> io::Result<()> {
    const ARRAY: u32 = 2;
    const ARRAY_OF_MAPS: u32 = 12;
    let create = |kind, inner_map_fd| {
        let mut attr = MapAttr {
            kind,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
            inner_map_fd,
            ..Default::default()
        };
        // SAFETY: the kernel reads the struct alone.
        unsafe { bpf(MAP_CREATE, &mut attr) }.map(owned)
    };
    let inner = create(ARRAY, 0)?;
    let outer = create(ARRAY_OF_MAPS, raw(inner.as_fd()))?;
    let value = raw(inner.as_fd());
    // SAFETY: key and value are of four bytes.
    unsafe {
        update(outer.as_fd(), std::ptr::from_ref(&0u32).cast(), std::ptr::from_ref(&value).cast())
    }
}

fn path_text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_text(path)?;
    let mut attr = ObjAttr { path: path.as_ptr() as u64, fd: raw(fd), ..Default::default() };
    // SAFETY: `path` is a C string that outlives the call.
    unsafe { bpf(OBJ_PIN, &mut attr) }.map(drop)
}

pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = path_text(path)?;
    let mut attr = ObjAttr { path: path.as_ptr() as u64, ..Default::default() };
    // SAFETY: `path` is a C string that outlives the call.
    unsafe { bpf(OBJ_GET, &mut attr) }.map(owned)
}

/// # Safety
/// Any bits are a valid `T`.
unsafe fn info<T: Default>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let len = u32::try_from(size_of::<T>()).expect("a small struct");
    let mut attr = InfoAttr { fd: raw(fd), len, info: std::ptr::from_mut(&mut info) as u64 };
    // SAFETY: the kernel writes at most `len` bytes of `info`.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

pub(crate) fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    // SAFETY: integers only.
    unsafe { info(fd) }
}

pub(crate) fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // SAFETY: integers only.
    unsafe { info(fd) }
}

/// Puts a program on an interface of this thread's network namespace, in native mode.
pub(crate) fn link_xdp(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: raw(program),
        target_ifindex: ifindex,
        attach_type: ATTACH_XDP,
        flags: XDP_FLAGS_DRV_MODE,
        ..Default::default()
    };
    // SAFETY: no pointers.
    unsafe { bpf(LINK_CREATE, &mut attr) }.map(owned)
}

/// Puts a program at the kernel's ingress of an interface of this thread's network namespace.
pub(crate) fn link_ingress(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: raw(program),
        target_ifindex: ifindex,
        attach_type: ATTACH_TCX_INGRESS,
        ..Default::default()
    };
    // SAFETY: no pointers.
    unsafe { bpf(LINK_CREATE, &mut attr) }.map(owned)
}

/// Whether a link is at the kernel's ingress of that interface of this thread's network namespace:
/// what a link says of itself has the number of an interface, and not its namespace.
pub(crate) fn is_at_ingress(link_id: u32, ifindex: u32) -> io::Result<bool> {
    // BPF_MPROG_MAX of kernel/bpf/mprog.c.
    let (mut programs, mut links) = ([0u32; 64], [0u32; 64]);
    let mut attr = QueryAttr {
        target_ifindex: ifindex,
        attach_type: ATTACH_TCX_INGRESS,
        prog_ids: programs.as_mut_ptr() as u64,
        count: 64,
        link_ids: links.as_mut_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: both arrays have room for `count`.
    match unsafe { bpf(PROG_QUERY, &mut attr) } {
        Ok(_) => Ok(links.iter().take(attr.count as usize).any(|id| *id == link_id)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Puts a program on a tracepoint of the kernel. Its program cannot be replaced.
pub(crate) fn link_tracepoint(program: BorrowedFd<'_>, tracepoint: &str) -> io::Result<OwnedFd> {
    let name = CString::new(tracepoint).map_err(io::Error::other)?;
    let mut attr =
        TracepointAttr { name: name.as_ptr() as u64, prog_fd: raw(program), ..Default::default() };
    // SAFETY: `name` is a C string that outlives the call.
    unsafe { bpf(RAW_TRACEPOINT_OPEN, &mut attr) }.map(owned)
}

/// Replaces a link's program; no packet sees neither.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr =
        LinkUpdateAttr { link_fd: raw(link), new_prog_fd: raw(program), ..Default::default() };
    // SAFETY: no pointers.
    unsafe { bpf(LINK_UPDATE, &mut attr) }.map(drop)
}

/// Takes a link's program off its interface now; closing the last reference does it later.
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut fd = raw(link);
    // SAFETY: no pointers.
    unsafe { bpf(LINK_DETACH, &mut fd) }.map(drop)
}

pub(crate) struct Ran {
    pub(crate) frame: Vec<u8>,
    /// Nanoseconds, the mean over the repetitions.
    pub(crate) duration_ns: u32,
}

/// Runs an XDP program on `frame` as if received on `ifindex` (0: the loopback device).
pub(crate) fn test_run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    ifindex: u32,
    repeat: u32,
) -> io::Result<Ran> {
    let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let context = XdpMd { data_end: len, ingress_ifindex: ifindex, ..Default::default() };
    let mut out = vec![0u8; frame.len() + 256];
    let mut attr = TestAttr {
        prog_fd: raw(program),
        data_size_in: len,
        data_size_out: u32::try_from(out.len()).map_err(io::Error::other)?,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat,
        ctx_size_in: u32::try_from(size_of::<XdpMd>()).expect("24 bytes"),
        ctx_in: std::ptr::from_ref(&context) as u64,
        ..Default::default()
    };
    // SAFETY: every pointer is to a buffer of the size given beside it.
    unsafe { bpf(PROG_TEST_RUN, &mut attr) }?;
    out.truncate(usize::try_from(attr.data_size_out).expect("a 64-bit machine"));
    Ok(Ran { frame: out, duration_ns: attr.duration })
}

/// Injects `repeat` copies of `frame` at `ifindex`, whose program's verdicts are carried out.
/// The mean time for each in nanoseconds, less that in which the kernel let others run.
pub(crate) fn live_run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    ifindex: u32,
    repeat: u32,
    batch: u32,
) -> io::Result<u32> {
    let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let context = XdpMd { data_end: len, ingress_ifindex: ifindex, ..Default::default() };
    let mut attr = TestAttr {
        prog_fd: raw(program),
        data_size_in: len,
        data_in: frame.as_ptr() as u64,
        repeat,
        ctx_size_in: u32::try_from(size_of::<XdpMd>()).expect("24 bytes"),
        ctx_in: std::ptr::from_ref(&context) as u64,
        flags: TEST_LIVE_FRAMES,
        batch_size: batch,
        ..Default::default()
    };
    // SAFETY: every pointer is to a buffer of the size given beside it.
    unsafe { bpf(PROG_TEST_RUN, &mut attr) }?;
    Ok(attr.duration)
}

/// A socket that sends whole frames, and receives none.
pub(crate) fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed; the answer is checked, and owned here.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Sends a frame out of an interface of the socket's network namespace.
pub(crate) fn send_frame(socket: &OwnedFd, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: ifindex.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointers are of live values, with their lengths.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
