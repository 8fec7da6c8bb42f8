//! Network namespaces and a BPF file system of this process alone. The kernel takes them back,
//! with every link and pin, when the process ends, however it ends.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns, unshare};
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, socket};
use nix::unistd::{Pid, gettid};
use selvedge_xdp::Interface;

/// Moves this thread, and those it starts from now on, into fresh namespaces.
pub(crate) fn isolate() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("make namespaces (this needs root: cargo xtask bench asks for it)")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("keep mounts to this process")?;
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none)
        .context("mount a BPF file system")?;
    Ok(())
}

/// Keeps this thread on one CPU, the last it may use; softirqs that it raises run there too.
pub(crate) fn stay_on_one_cpu() -> Result<usize> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).context("read the CPU affinity")?;
    let cpu = (0..CpuSet::count())
        .rev()
        .find(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .expect("a thread runs somewhere");
    let mut one = CpuSet::new();
    one.set(cpu).expect("a CPU of the set");
    sched_setaffinity(this, &one).context("set the CPU affinity")?;
    Ok(cpu)
}

/// A second network namespace, there for as long as this value.
#[derive(Debug)]
pub(crate) struct Far {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    tid: Pid,
    netns: File,
}

impl Far {
    pub(crate) fn new() -> Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let (up, comes_up) = mpsc::channel();
        let thread = thread::spawn(move || {
            let made = unshare(CloneFlags::CLONE_NEWNET).map(|()| gettid());
            if up.send(made).is_ok() {
                // Until the sender is dropped.
                let _ = stopped.recv();
            }
        });
        let tid = comes_up.recv().context("start a thread")?.context("make a network namespace")?;
        let path = format!("/proc/self/task/{tid}/ns/net");
        let netns = File::open(&path).with_context(|| format!("open {path}"))?;
        Ok(Self { stop: Some(stop), thread: Some(thread), tid, netns })
    }

    /// For `ip link ... netns`.
    pub(crate) fn tid(&self) -> Pid {
        self.tid
    }

    /// Runs `body` on a thread of that namespace.
    pub(crate) fn run<T: Send>(&self, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let run = scope.spawn(|| {
                setns(&self.netns, CloneFlags::CLONE_NEWNET).context("enter the namespace")?;
                body()
            });
            run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Packets and bytes that an interface there has received.
    pub(crate) fn received(&self, ifname: &str) -> Result<(u64, u64)> {
        let path = format!("/proc/self/task/{}/net/dev", self.tid);
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        received(&text, ifname).with_context(|| format!("find {ifname:?} in {path}"))
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// From the text of /proc/net/dev, which starts each line with the name, bytes and packets
/// received.
fn received(text: &str, ifname: &str) -> Result<(u64, u64)> {
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(ifname)?.strip_prefix(':'))
        .context("no such interface")?;
    let mut fields = line.split_whitespace().map(str::parse);
    match (fields.next(), fields.next()) {
        (Some(Ok(bytes)), Some(Ok(packets))) => Ok((packets, bytes)),
        _ => Err(anyhow!("no counters in {line:?}")),
    }
}

/// `ip ARGS` in the namespace of this thread.
pub(crate) fn ip(args: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(args.split_whitespace())
        .output()
        .context("start ip (Debian: apt-get install iproute2)")?;
    if !output.status.success() {
        bail!("ip {args}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

/// Writes a file under /proc/sys/net/ipv6/conf.
pub(crate) fn ipv6_conf(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv6/conf/{name}");
    fs::write(&path, value).with_context(|| format!("write {value} to {path}"))
}

/// An interface of this thread's namespace, whose MAC address we gave it.
pub(crate) fn interface(name: &str, mac: [u8; 6]) -> Result<Interface> {
    let index = nix::net::if_::if_nametoindex(name).with_context(|| format!("find {name:?}"))?;
    Ok(Interface { index, name: name.to_owned(), mac })
}

/// For whole frames of an interface.
pub(crate) fn packet_socket() -> Result<OwnedFd> {
    socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll)
        .context("open a packet socket")
}

/// An interface of this thread's namespace, as packet sockets name it.
pub(crate) fn link_address(name: &str) -> Result<LinkAddr> {
    let mut all = nix::ifaddrs::getifaddrs().context("list interfaces")?;
    let link = all.find_map(|one| {
        (one.interface_name == name).then_some(one.address)?.and_then(|a| a.as_link_addr().copied())
    });
    link.with_context(|| format!("find interface {name:?}"))
}

/// As people and `ip` write it.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_whole_name() {
        let text = "Inter-|   Receive                 \n face |bytes    packets errs drop\n\
                    \x20 sink2:     1       2    0\n  sink: 6400     100    0    0\n  lo:0 0 0\n";
        // (name, packets and bytes)
        let cases = [("sink", Some((100, 6400))), ("sink2", Some((2, 1))), ("sin", None)];
        for (name, want) in cases {
            assert_eq!(received(text, name).ok(), want, "{name}");
        }
    }
}
