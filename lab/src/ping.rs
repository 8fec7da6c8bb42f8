//! Echo requests between hosts, natively and many at once.
//!
//! One ICMP datagram socket for each host and family (icmp(7); the lab opens
//! `ping_group_range`), all served by one thread: forty hosts and both families are 3,120
//! questions, sent in a moment and answered in another.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::error::{Doing as _, Result};
use crate::lab::{Lab, address};
use crate::names;
use crate::netns::NetNs;
use crate::{Family, run};

/// How to ask.
#[derive(Clone, Copy, Debug)]
pub struct PingOptions {
    /// How often a host that did not answer is asked again.
    pub attempts: u32,
    /// How long each time.
    pub timeout: Duration,
    /// Bytes after the ICMP header, at most 1,472.
    pub payload_bytes: usize,
}

impl Default for PingOptions {
    fn default() -> Self {
        Self { attempts: 3, timeout: Duration::from_secs(1), payload_bytes: 56 }
    }
}

/// What came of asking one host from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// `None` where it never answered.
    pub rtt: Option<Duration>,
    /// Times it was asked.
    pub attempts: u32,
}

/// Who reaches whom.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    /// By (from, to, family); pairs where one has no such address are not in it.
    pub pongs: BTreeMap<(String, String, Family), Pong>,
}

impl Matrix {
    pub fn reached(&self) -> usize {
        self.pongs.values().filter(|pong| pong.rtt.is_some()).count()
    }

    /// Of those asked; 100 where nobody was.
    pub fn percent(&self) -> f64 {
        if self.pongs.is_empty() {
            return 100.0;
        }
        self.reached() as f64 * 100.0 / self.pongs.len() as f64
    }

    pub fn is_complete(&self) -> bool {
        self.reached() == self.pongs.len()
    }

    /// Pairs that were not reached.
    pub fn missing(&self) -> impl Iterator<Item = (&str, &str, Family)> {
        self.pongs
            .iter()
            .filter(|(_, pong)| pong.rtt.is_none())
            .map(|((from, to, family), _)| (from.as_str(), to.as_str(), *family))
    }
}

impl Lab {
    /// Asks `to` from `from` `count` times, one after the other: the answer to each.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`], [`LabError::NotAHost`], [`LabError::NoAddress`].
    pub fn ping(
        &self,
        from: &str,
        to: &str,
        family: Family,
        count: u32,
        options: PingOptions,
    ) -> Result<Vec<Pong>> {
        let target = self.address(to, family)?;
        self.ping_address(from, target, count, options)
    }

    /// As [`Lab::ping`], to any address.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`], [`LabError::NotAHost`].
    pub fn ping_address(
        &self,
        from: &str,
        to: IpAddr,
        count: u32,
        options: PingOptions,
    ) -> Result<Vec<Pong>> {
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        let mut asker = Asker::open(&self.netns(from)?, family)?;
        asker.targets.push(to);
        let mut pongs = Vec::new();
        for _ in 0..count {
            let mut askers = [asker];
            ask(&mut askers, options).doing("ping", to)?;
            [asker] = askers;
            pongs.push(asker.pongs[0]);
            asker.pongs.clear();
        }
        Ok(pongs)
    }

    /// Asks every host from every other one.
    ///
    /// # Errors
    /// Where the lab is gone, or sockets cannot be made.
    pub fn pingall(&self, families: &[Family], options: PingOptions) -> Result<Matrix> {
        run::privileged()?;
        let state = self.state()?;
        let hosts: Vec<String> = state.hosts().map(|(name, ..)| name.to_owned()).collect();
        let (mut askers, mut asked) = (Vec::new(), Vec::new());
        for host in &hosts {
            let name = names::namespace(self.name(), host);
            let ns = NetNs::open(&name).doing("open namespace", &name)?;
            for &family in families {
                if address(&state, host, family).is_err() {
                    continue;
                }
                let mut asker = Asker::open(&ns, family)?;
                for other in hosts.iter().filter(|other| *other != host) {
                    if let Ok(address) = address(&state, other, family) {
                        asker.targets.push(address);
                        asked.push((host.clone(), other.clone(), family));
                    }
                }
                askers.push(asker);
            }
        }
        ask(&mut askers, options).doing("ping", "all hosts")?;
        let pongs = askers.into_iter().flat_map(|asker| asker.pongs);
        Ok(Matrix { pongs: asked.into_iter().zip(pongs).collect() })
    }
}

/// One host's socket of one family, and whom it asks.
struct Asker {
    /// ICMP, whatever its type says: the standard library has no other datagram socket.
    socket: UdpSocket,
    family: Family,
    targets: Vec<IpAddr>,
    pongs: Vec<Pong>,
    sent: Vec<Option<Instant>>,
}

/// Echo request and reply (RFC 792; RFC 4443 §4).
const ECHO: [(u8, u8); 2] = [(8, 0), (128, 129)];
/// Questions before answers are looked for, so that no queue on the way is flooded.
const SLICE: usize = 32;

impl Asker {
    fn open(ns: &NetNs, family: Family) -> Result<Self> {
        let (domain, protocol) = match family {
            Family::V4 => (AddressFamily::Inet, SockProtocol::Icmp),
            Family::V6 => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let open = || Ok(socket(domain, SockType::Datagram, flags, protocol)?);
        let socket = ns.run(open).doing("open an ICMP socket in", ns.name())?;
        Ok(Self {
            socket: socket.into(),
            family,
            targets: Vec::new(),
            pongs: Vec::new(),
            sent: Vec::new(),
        })
    }

    fn kinds(&self) -> (u8, u8) {
        ECHO[usize::from(self.family == Family::V6)]
    }

    /// The kernel fills in identifier and checksum.
    fn send(&mut self, index: usize, payload: &[u8]) {
        let sequence = u16::try_from(index).expect("fewer hosts than that");
        let mut message = vec![self.kinds().0, 0, 0, 0, 0, 0];
        message.extend(sequence.to_be_bytes());
        message.extend(payload);
        self.pongs[index].attempts += 1;
        self.sent[index] = Some(Instant::now());
        // A question that could not be sent is one that is not answered.
        let _ = self.socket.send_to(&message, SocketAddr::new(self.targets[index], 0));
    }

    /// Takes what has come in.
    fn receive(&mut self) {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                // Nothing more, or an unreachable for one of the questions: there is a next time.
                Err(_) => return,
            };
            let [kind, _, _, _, _, _, high, low, ..] = buffer[..length] else { continue };
            let index = usize::from(u16::from_be_bytes([high, low]));
            let (Some(target), Some(pong)) = (self.targets.get(index), self.pongs.get_mut(index))
            else {
                continue;
            };
            if kind == ECHO[usize::from(self.family == Family::V6)].1
                && *target == from.ip()
                && pong.rtt.is_none()
            {
                pong.rtt = self.sent[index].map(|sent| sent.elapsed());
            }
        }
    }
}

/// Asks all there is to ask, again and again those that do not answer.
fn ask(askers: &mut [Asker], options: PingOptions) -> io::Result<()> {
    let payload = vec![0x5A; options.payload_bytes.min(1472)];
    for asker in &mut *askers {
        asker.pongs = vec![Pong { rtt: None, attempts: 0 }; asker.targets.len()];
        asker.sent = vec![None; asker.targets.len()];
    }
    for _ in 0..options.attempts {
        // In turns over the askers, so that each of them starts early.
        let longest = askers.iter().map(|asker| asker.targets.len()).max().unwrap_or(0);
        let mut since = 0;
        for index in 0..longest {
            for asker in 0..askers.len() {
                let asker = &mut askers[asker];
                if asker.pongs.get(index).is_some_and(|pong| pong.rtt.is_none()) {
                    asker.send(index, &payload);
                    since += 1;
                }
                if since == SLICE {
                    since = 0;
                    gather(askers, Duration::ZERO)?;
                }
            }
        }
        let deadline = Instant::now() + options.timeout;
        loop {
            let open = |asker: &Asker| asker.pongs.iter().any(|pong| pong.rtt.is_none());
            if !askers.iter().any(open) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            gather(askers, left)?;
        }
    }
    Ok(())
}

/// Waits at most `patience` for answers, and takes those that are there.
fn gather(askers: &mut [Asker], patience: Duration) -> io::Result<()> {
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    let mut fds: Vec<_> =
        askers.iter().map(|asker| PollFd::new(asker.socket.as_fd(), PollFlags::POLLIN)).collect();
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
    for (asker, _) in askers.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
        asker.receive();
    }
    Ok(())
}
