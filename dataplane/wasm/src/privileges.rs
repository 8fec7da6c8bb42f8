//! What the process gives up before it takes in anything from outside: every capability but
//! the two that AF_XDP needs, and the right to gain any. So a module that broke out of its
//! sandbox could still load no program, change no interface and read no file of another user.

use std::io;

/// Open AF_XDP sockets (`xsk_create`).
const CAP_NET_RAW: u32 = 13;
/// Pin frames beyond RLIMIT_MEMLOCK (`xdp_umem_account_pages`).
const CAP_IPC_LOCK: u32 = 14;
const KEPT: u64 = 1 << CAP_NET_RAW | 1 << CAP_IPC_LOCK;
/// `_LINUX_CAPABILITY_VERSION_3` (linux/capability.h).
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives them up for the calling thread and those it starts from now on; for the process, when
/// there is no other thread yet.
pub(crate) fn drop_all_but_sockets() -> io::Result<()> {
    // SAFETY: no pointers are passed.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: header and data are laid out as version 3 says, two of the latter.
    if unsafe { libc::syscall(libc::SYS_capget, &header, data.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for (data, kept) in data.iter_mut().zip([KEPT as u32, (KEPT >> 32) as u32]) {
        data.effective &= kept;
        data.permitted &= kept;
        data.inheritable = 0;
    }
    // SAFETY: as above; the kernel only reads.
    if unsafe { libc::syscall(libc::SYS_capset, &header, data.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::{FromRawFd, OwnedFd};

    use super::*;

    #[test]
    fn what_is_left_opens_sockets_and_loads_no_program() {
        // Capabilities are a thread's, so the test process keeps its own.
        std::thread::spawn(|| {
            assert!(create_xskmap().is_ok(), "this test runs as root");
            drop_all_but_sockets().unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = |name: &str| {
                let line = status.lines().find(|line| line.starts_with(name)).unwrap();
                u64::from_str_radix(line[name.len()..].trim(), 16).unwrap()
            };
            assert_eq!((line("CapEff:"), line("CapPrm:"), line("CapInh:")), (KEPT, KEPT, 0));
            assert_eq!(line("NoNewPrivs:"), 1);
            assert_eq!(create_xskmap().unwrap_err().raw_os_error(), Some(libc::EPERM));
            // SAFETY: no pointers; the answer is checked.
            let socket =
                unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            assert!(socket >= 0, "{}", io::Error::last_os_error());
            // SAFETY: just opened, and not used further.
            unsafe { libc::close(socket) };
        })
        .join()
        .unwrap();
    }

    fn create_xskmap() -> io::Result<OwnedFd> {
        let attr = [17u32, 4, 4, 1, 0]; // type, key and value size, entries, flags
        // SAFETY: the attribute is of the size given; the descriptor is new and owned here.
        unsafe {
            let map = libc::syscall(libc::SYS_bpf, 0, attr.as_ptr(), size_of_val(&attr));
            if map < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(OwnedFd::from_raw_fd(map as i32))
        }
    }
}
