//! Measured UDP traffic between hosts: numbered packets at a rate, and what became of them.
//!
//! Sender and receiver are threads of this process on sockets that were opened inside the
//! hosts' namespaces, so both read one clock. Everything is bounded: a flow by its duration,
//! its packets by [`MAX_PACKETS`], the wait for stragglers by [`DRAIN`].

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{setsockopt, sockopt};
use selvedge_topology::BitRate;

use crate::Family;
use crate::error::{Doing as _, LabError, Result};
use crate::lab::Lab;

/// Packets of one flow: a minute at 1 Gbit/s of full size is 5 million.
pub const MAX_PACKETS: u64 = 1 << 26;
/// How long after its last packet a flow waits for those that are still on their way.
pub const DRAIN: Duration = Duration::from_millis(500);

/// A flow to be sent. Rate and size count IP bytes, as slices do.
#[derive(Clone, Debug)]
pub struct Flow {
    pub from: String,
    pub to: String,
    pub family: Family,
    pub rate: BitRate,
    /// Of a packet with its IP header: 60..=1,500.
    pub packet_bytes: usize,
    pub duration: Duration,
    /// UDP destination port; 0 for one that is free.
    pub port: u16,
    /// DSCP and ECN, as in the IP header.
    pub traffic_class: u8,
    /// The processor to send from, where it matters.
    pub cpu: Option<usize>,
}

impl Flow {
    /// 1,000-byte IPv4 packets for five seconds.
    pub fn new(from: &str, to: &str, rate: BitRate) -> Self {
        Self {
            from: from.to_owned(),
            to: to.to_owned(),
            family: Family::V4,
            rate,
            packet_bytes: 1000,
            duration: Duration::from_secs(5),
            port: 0,
            traffic_class: 0,
            cpu: None,
        }
    }

    fn headers(&self) -> usize {
        match self.family {
            Family::V4 => 28,
            Family::V6 => 48,
        }
    }

    /// Time from one packet to the next.
    fn interval(&self) -> Duration {
        let bits = self.packet_bytes as u128 * 8;
        let nanos = bits * 1_000_000_000 / u128::from(self.rate.0.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).max(1))
    }

    /// How long a flow of this rate may last.
    pub fn longest(&self) -> Duration {
        let nanos = self.interval().as_nanos().saturating_mul(u128::from(MAX_PACKETS));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn check(&self) -> Result<()> {
        let bad = |given: String, what| Err(LabError::Argument { given, what });
        let packets = self.duration.as_nanos() / self.interval().as_nanos();
        if !(60..=1500).contains(&self.packet_bytes) {
            bad(self.packet_bytes.to_string(), "a packet size of 60 to 1500 bytes")
        } else if self.rate.0 == 0 {
            bad(self.rate.to_string(), "a rate above zero")
        } else if packets > u128::from(MAX_PACKETS) {
            bad(packets.to_string(), "a number of packets that one flow can count")
        } else {
            Ok(())
        }
    }
}

/// What became of a flow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowReport {
    /// Packets that were to be sent, each with its number.
    pub sent: u64,
    /// Of those, packets that the sender's own kernel refused.
    pub refused: u64,
    /// Different ones that arrived.
    pub received: u64,
    pub duplicates: u64,
    /// Packets that came after one with a higher number.
    pub reordered: u64,
    /// Bytes of packets received, with their IP headers.
    pub received_ip_bytes: u64,
    /// From the first packet sent to the last one.
    pub sending: Duration,
    /// From the first packet received to the last one.
    pub receiving: Duration,
    /// The longest time in which nothing arrived, from the first packet received until the last
    /// one sent: the interruption of the flow. As long as all of it where nothing came.
    pub longest_gap: Duration,
    /// Packets missing in the longest run of missing numbers.
    pub longest_loss: u64,
    /// One way.
    pub delay: Delays,
}

/// One-way delays of what arrived; zero where nothing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    pub min: Duration,
    pub mean: Duration,
    pub max: Duration,
}

impl FlowReport {
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// 0 to 1; 0 where nothing was sent.
    pub fn loss(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { self.lost() as f64 / self.sent as f64 }
    }

    /// IP bits received per second of sending.
    pub fn rate(&self) -> BitRate {
        let seconds = self.sending.as_secs_f64();
        if seconds == 0.0 {
            return BitRate(0);
        }
        BitRate((self.received_ip_bytes as f64 * 8.0 / seconds) as u64)
    }
}

/// A flow under way. Dropping it stops it.
#[derive(Debug)]
pub struct RunningFlow {
    shared: Arc<Shared>,
    sender: Option<JoinHandle<Sent>>,
    receiver: Option<JoinHandle<FlowReport>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Set when the sender has ended, to what it sent.
    ended: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

#[derive(Debug)]
struct Sent {
    sent: u64,
    refused: u64,
    sending: Duration,
}

impl Lab {
    /// Starts a flow.
    ///
    /// # Errors
    /// [`LabError::Argument`] for figures out of range; [`LabError::NoSuchNode`],
    /// [`LabError::NotAHost`], [`LabError::NoAddress`]; where a socket cannot be had.
    pub fn start_flow(&self, flow: &Flow) -> Result<RunningFlow> {
        flow.check()?;
        let any = |family| match family {
            Family::V4 => SocketAddr::from((Ipv4Addr::UNSPECIFIED, flow.port)),
            Family::V6 => SocketAddr::from((Ipv6Addr::UNSPECIFIED, flow.port)),
        };
        let receiver = self.run(&flow.to, || UdpSocket::bind(any(flow.family)))?;
        let port = receiver.local_addr().doing("bind a socket in", &flow.to)?.port();
        let target = SocketAddr::new(self.address(&flow.to, flow.family)?, port);
        let source = SocketAddr::new(self.address(&flow.from, flow.family)?, 0);
        let sender = self.run(&flow.from, || {
            let socket = UdpSocket::bind(source)?;
            mark(&socket, flow.family, flow.traffic_class)?;
            Ok(socket)
        })?;
        // More than a receiver that waits for its turn on a busy machine has to hold.
        setsockopt(&receiver, sockopt::RcvBufForce, &(16 << 20))
            .and_then(|()| setsockopt(&sender, sockopt::SndBufForce, &(4 << 20)))
            .map_err(io::Error::from)
            .and_then(|()| receiver.set_read_timeout(Some(Duration::from_millis(20))))
            .doing("prepare sockets in", &flow.to)?;

        let shared = Arc::new(Shared::default());
        let epoch = Instant::now();
        let thread = |name: &str| thread::Builder::new().name(name.to_owned());
        let (of_flow, of_shared) = (flow.clone(), Arc::clone(&shared));
        let receiver = thread("receive")
            .spawn(move || receive(&receiver, &of_flow, epoch, &of_shared))
            .doing("start", "a thread")?;
        let mut running = RunningFlow { shared, sender: None, receiver: Some(receiver) };
        let (of_flow, of_shared) = (flow.clone(), Arc::clone(&running.shared));
        let sender = thread("send")
            .spawn(move || send(&sender, target, &of_flow, epoch, &of_shared))
            .doing("start", "a thread")?;
        running.sender = Some(sender);
        Ok(running)
    }

    /// Sends flows side by side and waits for all of them; reports in the same order.
    ///
    /// # Errors
    /// As [`Lab::start_flow`].
    pub fn flows(&self, flows: &[Flow]) -> Result<Vec<FlowReport>> {
        let running: Vec<_> =
            flows.iter().map(|flow| self.start_flow(flow)).collect::<Result<_>>()?;
        Ok(running.into_iter().map(RunningFlow::finish).collect())
    }
}

impl RunningFlow {
    /// (sent, received) so far.
    pub fn progress(&self) -> (u64, u64) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (get(&self.shared.sent), get(&self.shared.received))
    }

    /// Has it end before its time.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for it to end.
    ///
    /// # Panics
    /// Where one of its threads did.
    pub fn finish(mut self) -> FlowReport {
        let panicked = |panic| std::panic::resume_unwind(panic);
        let sent = self.sender.take().expect("runs").join().unwrap_or_else(panicked);
        let report = self.receiver.take().expect("runs").join();
        let report = report.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let Sent { sent, refused, sending } = sent;
        let longest_gap = if report.received == 0 { sending } else { report.longest_gap };
        FlowReport { sent, refused, sending, longest_gap, ..report }
    }
}

impl Drop for RunningFlow {
    fn drop(&mut self) {
        self.stop();
        if self.sender.is_none() {
            // Never started, or finished: the receiver must not wait for it.
            self.shared.ended.store(true, Ordering::Release);
        }
    }
}

fn mark(socket: &UdpSocket, family: Family, traffic_class: u8) -> io::Result<()> {
    if traffic_class == 0 {
        return Ok(());
    }
    let value = i32::from(traffic_class);
    match family {
        Family::V4 => setsockopt(socket, sockopt::Ipv4Tos, &value)?,
        Family::V6 => setsockopt(socket, sockopt::Ipv6TClass, &value)?,
    }
    Ok(())
}

/// A packet: number, then nanoseconds from the flow's epoch to its sending, then filling.
const HEADER: usize = 16;

fn send(
    socket: &UdpSocket,
    target: SocketAddr,
    flow: &Flow,
    epoch: Instant,
    shared: &Shared,
) -> Sent {
    if let Some(cpu) = flow.cpu {
        let mut set = CpuSet::new();
        let _ = set.set(cpu).and_then(|()| sched_setaffinity(nix::unistd::Pid::from_raw(0), &set));
    }
    // Pauses of microseconds are meant as such.
    let _ = nix::sys::prctl::set_timerslack(1_000);
    let mut packet = vec![0xA5; flow.packet_bytes - flow.headers()];
    let interval = flow.interval();
    let start = Instant::now();
    let (mut sent, mut refused, mut last) = (0u64, 0, start);
    loop {
        let due = interval.as_nanos() * u128::from(sent);
        let due = Duration::from_nanos(u64::try_from(due).unwrap_or(u64::MAX));
        if due >= flow.duration || shared.stop.load(Ordering::Relaxed) {
            break;
        }
        // After a pause of this process what is late follows at twice the rate: all of it at once
        // would be a burst that nobody asked for, and that a switch may drop.
        let due = due.max(last.duration_since(start) + interval / 2);
        let ahead = due.saturating_sub(start.elapsed());
        // Shorter pauses cost more than they hold back.
        if ahead > Duration::from_micros(60) {
            thread::sleep(ahead);
        }
        last = Instant::now();
        let at = u64::try_from(last.duration_since(epoch).as_nanos()).unwrap_or(u64::MAX);
        packet[..8].copy_from_slice(&sent.to_be_bytes());
        packet[8..HEADER].copy_from_slice(&at.to_be_bytes());
        if socket.send_to(&packet, target).is_err() {
            refused += 1;
        }
        sent += 1;
        shared.sent.store(sent, Ordering::Relaxed);
    }
    shared.ended.store(true, Ordering::Release);
    Sent { sent, refused, sending: last.duration_since(start).max(interval) }
}

fn receive(socket: &UdpSocket, flow: &Flow, epoch: Instant, shared: &Shared) -> FlowReport {
    let mut tally = Tally::default();
    let mut buffer = [0; 2048];
    let mut ended: Option<Instant> = None;
    loop {
        if ended.is_none() && shared.ended.load(Ordering::Acquire) {
            let now = Instant::now();
            ended = Some(now);
            tally.close(now);
        }
        if let Some(ended) = ended {
            let all = tally.report.received >= shared.sent.load(Ordering::Relaxed);
            if all || ended.elapsed() > DRAIN {
                break;
            }
        }
        let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
        let now = Instant::now();
        let (Some(number), Some(at)) = (word(&buffer[..length], 0), word(&buffer[..length], 8))
        else {
            continue;
        };
        if number < MAX_PACKETS {
            let delay = now.duration_since(epoch).saturating_sub(Duration::from_nanos(at));
            tally.count(number, length + flow.headers(), now, delay);
            shared.received.store(tally.report.received, Ordering::Relaxed);
        }
    }
    tally.finish(shared.sent.load(Ordering::Relaxed))
}

fn word(packet: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*packet.get(at..)?.first_chunk()?))
}

/// Counts what arrives.
#[derive(Default)]
struct Tally {
    report: FlowReport,
    /// One bit a number.
    seen: Vec<u64>,
    highest: u64,
    /// When the first and the latest packet came.
    first: Option<Instant>,
    latest: Option<Instant>,
    closed: bool,
    delay_sum: Duration,
}

impl Tally {
    fn count(&mut self, number: u64, ip_bytes: usize, now: Instant, delay: Duration) {
        let (word, bit) = ((number / 64) as usize, 1u64 << (number % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        let report = &mut self.report;
        if self.seen[word] & bit != 0 {
            report.duplicates += 1;
            return;
        }
        self.seen[word] |= bit;
        report.reordered += u64::from(report.received > 0 && number < self.highest);
        self.highest = self.highest.max(number);
        report.received += 1;
        report.received_ip_bytes += ip_bytes as u64;
        report.delay.min = if report.received == 1 { delay } else { report.delay.min.min(delay) };
        report.delay.max = report.delay.max.max(delay);
        self.delay_sum += delay;
        self.gap(now);
        self.latest = Some(now);
        let first = *self.first.get_or_insert(now);
        self.report.receiving = now.duration_since(first);
    }

    /// The sender has ended: what has not come by now is a gap too, what comes later is none.
    fn close(&mut self, now: Instant) {
        self.gap(now);
        self.closed = true;
    }

    fn gap(&mut self, now: Instant) {
        if let Some(latest) = self.latest.filter(|_| !self.closed) {
            self.report.longest_gap = self.report.longest_gap.max(now.duration_since(latest));
        }
    }

    fn finish(mut self, sent: u64) -> FlowReport {
        let received = u32::try_from(self.report.received.max(1)).unwrap_or(u32::MAX);
        self.report.delay.mean = self.delay_sum / received;
        let (mut run, mut longest) = (0, 0);
        for number in 0..sent {
            let word = self.seen.get((number / 64) as usize).copied().unwrap_or(0);
            run = if word >> (number % 64) & 1 == 0 { run + 1 } else { 0 };
            longest = longest.max(run);
        }
        self.report.longest_loss = longest;
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut tally = Tally::default();
        // (number, arrives at ms)
        for (number, ms) in [(0, 0), (1, 10), (3, 20), (2, 21), (3, 22), (9, 80)] {
            tally.count(number, 1000, at(ms), Duration::from_millis(ms));
        }
        tally.close(at(100));
        tally.count(10, 1000, at(300), Duration::from_millis(5));
        let report = tally.finish(12);
        assert_eq!((report.received, report.duplicates, report.reordered), (6, 1, 1));
        assert_eq!(report.longest_gap, Duration::from_millis(59), "not the one after the end");
        assert_eq!(report.longest_loss, 5, "numbers 4 to 8");
        assert_eq!(report.received_ip_bytes, 6000);
        assert_eq!(report.delay.max, Duration::from_millis(80));
        assert_eq!(report.delay.min, Duration::ZERO);
    }

    #[test]
    fn the_silence_at_the_end_counts() {
        let start = Instant::now();
        let mut tally = Tally::default();
        tally.count(0, 100, start, Duration::ZERO);
        tally.close(start + Duration::from_secs(2));
        let report = tally.finish(100);
        assert_eq!(report.longest_gap, Duration::from_secs(2));
        assert_eq!(report.longest_loss, 99);
    }

    #[test]
    fn figures_out_of_range() {
        let flow = Flow::new("a", "b", BitRate(1_000_000));
        assert!(flow.check().is_ok());
        let too_many = Flow { rate: BitRate(10_000_000_000_000), packet_bytes: 60, ..flow.clone() };
        for bad in [
            Flow { packet_bytes: 59, ..flow.clone() },
            Flow { packet_bytes: 1501, ..flow.clone() },
            Flow { rate: BitRate(0), ..flow.clone() },
            too_many,
        ] {
            assert!(matches!(bad.check(), Err(LabError::Argument { .. })), "{bad:?}");
        }
    }
}
