//! Agents that are killed, and upgraded, under [`RATE`] packets a second. Every packet arrives
//! exactly once, and the switch's counters are exactly what was sent. One packet in [`ASTRAY`] more
//! goes to a host whose interface is down: each of them is a transmit error, and no more. Meanwhile
//! a client inserts and deletes entries of every table that packets meet, of other hosts.
//!
//! An agent here is a process, this test program run again ([`an_agent`]), and it is killed with
//! SIGKILL: at any moment of its start, and in particular while it replaces programs. Packets
//! take three programs (`entry`, `access`, `sid`), so each meets the tail-call map twice.
//!
//! `SELVEDGE_SOAK=1` makes it 1,000 kills and 100 upgrades, which takes about
//! a quarter of an hour.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::UdpSocket;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use selvedge_dataplane::run_until;
use selvedge_pipeline::entry::FUNCTION_UDT46;
use selvedge_pipeline::{
    CounterKind, Entry, LocalSidAction, LocalSidEntry, PolicyEntry, PolicyId, RouteAction,
};
use selvedge_southbound::client::{P4Client, Update};
use tokio::sync::oneshot;

use super::forwarding::{A, B, Stop};
use super::support::{
    Host, PATIENCE, Place, access, block_on, connect, endpoint, in_netns, inserts, ip, unmanaged,
    until,
};

/// Packets a second.
const RATE: u64 = 10_000;
/// Of packets to B, to one that goes to C.
const ASTRAY: u64 = 10;
/// A host that is not up.
const C: &str = "10.1.0.13";
/// Packets that may be under way: what is lost is then lost by the switch, and not by a ring of
/// a veth end (256) or a socket of the test.
const WINDOW: u64 = 128;
/// Bytes of a datagram; its number comes first.
const PAYLOAD: usize = 120;
/// Of the frame: Ethernet, IPv4 and UDP before the datagram.
pub(crate) const FRAME: u64 = 14 + INNER;
pub(crate) const INNER: u64 = 20 + 8 + PAYLOAD as u64;
/// Where B listens.
const PORT: u16 = 5001;
/// Segment id of the switch itself.
const NODE: u16 = 5;

/// Tells [`an_agent`] that it is one: instance and directory.
const AGENT: &str = "SELVEDGE_SOAK_AGENT";

/// Kills, and upgrades among them.
fn extent() -> (u64, u64) {
    if std::env::var_os("SELVEDGE_SOAK").is_some() { (1000, 100) } else { (10, 2) }
}

/// What an agent's process does; nothing when it is run as a test. It ends, gracefully, when its
/// standard input does, so also when the test is killed.
#[test]
#[ignore = "the soak's own agent process"]
fn an_agent() {
    let Ok(place) = std::env::var(AGENT) else { return };
    let (instance, run_dir) = place.split_once(' ').unwrap();
    let options = unmanaged(instance, Path::new(run_dir));
    let (ended, end) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        drop(ended);
    });
    let result = block_on(run_until(options, async { drop(end.await) }));
    result.unwrap_or_else(|error| panic!("{}", selvedge_dataplane::ports::chain(&error)));
}

/// This test program, to be run for one of its tests that others run.
pub(crate) fn run_again(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--ignored", "--nocapture"]).stdin(Stdio::piped());
    command
}

/// An agent's process; killed when dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(place: &Place) -> Self {
        let at = format!("{} {}", place.instance, place.run_dir().display());
        Self(run_again("soak::an_agent").env(AGENT, at).stdout(Stdio::null()).spawn().unwrap())
    }

    /// SIGKILL, of a process that runs.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        let status = self.0.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it had ended by itself: {status}");
    }

    /// As SIGTERM does.
    pub(crate) fn stop(mut self) {
        drop(self.0.stdin.take());
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill or to wait for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `p1` to `p2` through a policy of two segments that are both this switch's.
fn program(a: &Host, b: &Host, c: &Host) -> Vec<Entry> {
    let policy = PolicyId(1);
    let local = |sid, action| Entry::LocalSid(LocalSidEntry { sid, action });
    let mut entries = vec![
        access(1),
        access(2),
        access(3),
        local(NODE, LocalSidAction::Node),
        local(FUNCTION_UDT46, LocalSidAction::Decapsulate),
        Entry::Policy(PolicyEntry::one(policy, vec![NODE, FUNCTION_UDT46])),
    ];
    entries.extend(endpoint(1, A, a.mac()));
    entries.extend(endpoint(3, C, c.mac()));
    entries.extend(endpoint(2, B, b.mac()).into_iter().map(|entry| match entry {
        Entry::SliceRoute(mut route) => {
            route.action = RouteAction::Policy(policy);
            Entry::SliceRoute(route)
        }
        other => other,
    }));
    entries.sort();
    entries
}

/// A host that says nothing by itself.
pub(crate) fn quiet(host: &Host, port: &str, address: &str) {
    host.cable(port);
    host.run(|| {
        std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1").unwrap();
    });
    host.address(address);
    host.run(|| ip("neighbor replace 169.254.1.1 lladdr 02:5e:1f:00:00:01 dev eth0"));
}

/// Sends numbers from 0 on until told to stop, or until nothing has arrived for [`PATIENCE`]. How
/// many, to C how many, and in what time. `astray`: of packets to B, to one that goes to C.
pub(crate) fn send(
    host: &Host,
    received: &Arc<AtomicU64>,
    stop: &Stop,
    astray: Option<u64>,
) -> Receiver<(u64, u64, Duration)> {
    let (received, stop) = (Arc::clone(received), Arc::clone(&stop.0));
    host.start(move || {
        let [socket, other] = [B, C].map(|host| {
            let socket = UdpSocket::bind((A, 0)).unwrap();
            socket.connect((host, PORT)).unwrap();
            socket
        });
        let mut datagram = [0; PAYLOAD];
        let start = Instant::now();
        let (mut sent, mut failed, mut moved) = (0u64, 0, start);
        while !stop.load(Ordering::Relaxed) && moved.elapsed() < PATIENCE {
            let due = start.elapsed().as_micros() as u64 * RATE / 1_000_000;
            let most = due.min(received.load(Ordering::Relaxed) + WINDOW);
            while sent < most {
                datagram[..8].copy_from_slice(&sent.to_be_bytes());
                socket.send(&datagram).unwrap();
                (sent, moved) = (sent + 1, Instant::now());
                if astray.is_some_and(|every| sent.is_multiple_of(every)) {
                    other.send(&datagram).unwrap();
                    failed += 1;
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        (sent, failed, start.elapsed())
    })
}

/// What arrived.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    /// By number: how often.
    pub(crate) times: Vec<u8>,
    /// Longest time between two of them: the switch's, and the scheduler's.
    pub(crate) pause: Duration,
}

impl Arrived {
    pub(crate) fn each_once(&self, sent: u64) {
        let lost: Vec<u64> = (0..sent)
            .filter(|number| self.times.get(*number as usize).is_none_or(|times| *times == 0))
            .collect();
        assert_eq!(lost, [0u64; 0], "of {sent}");
        assert!(self.times.iter().all(|times| *times == 1), "some arrived twice");
    }
}

/// Counts until told to stop and then nothing comes for half a second.
pub(crate) fn receive(host: &Host, received: &Arc<AtomicU64>, stop: &Stop) -> Receiver<Arrived> {
    let (received, stop) = (Arc::clone(received), Arc::clone(&stop.0));
    let (ready, is_ready) = std::sync::mpsc::channel();
    let arrived = host.start(move || {
        let socket = UdpSocket::bind((B, PORT)).unwrap();
        setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        ready.send(()).unwrap();
        let (mut arrived, mut last) = (Arrived::default(), None::<Instant>);
        let mut bytes = [0; 2048];
        loop {
            match socket.recv(&mut bytes) {
                Ok(len) => {
                    assert_eq!(len, PAYLOAD);
                    let number = u64::from_be_bytes(bytes[..8].try_into().unwrap()) as usize;
                    if arrived.times.len() <= number {
                        arrived.times.resize(number + 1, 0);
                    }
                    arrived.times[number] += 1;
                    received.fetch_add(1, Ordering::Relaxed);
                    let now = Instant::now();
                    let pause = last.map_or(Duration::ZERO, |last| now - last);
                    (arrived.pause, last) = (arrived.pause.max(pause), Some(now));
                }
                Err(_) if stop.load(Ordering::Relaxed) => return arrived,
                Err(_) => {}
            }
        }
    });
    is_ready.recv().unwrap();
    arrived
}

/// Inserts and deletes what three tables say of other hosts, until told to stop, whatever becomes
/// of agents. How many updates an agent said were made; then none of those entries is there.
fn write_on(stop: &Stop) -> std::thread::JoinHandle<u64> {
    let stop = Arc::clone(&stop.0);
    let others = (1..=60).flat_map(|n| endpoint(2, &format!("10.1.1.{n}"), [2, 0, 0, 0, 1, n]));
    let others: Vec<Entry> = others.collect();
    let deletes: Vec<_> = others.iter().cloned().map(Update::Delete).collect();
    // In the namespace of this thread.
    std::thread::spawn(move || {
        block_on(async {
            let mut made = 0;
            while !stop.load(Ordering::Relaxed) {
                let (client, _channel) = connect(2).await;
                while !stop.load(Ordering::Relaxed)
                    && client.write(&inserts(others.clone())).await.is_ok()
                    && client.write(&deletes).await.is_ok()
                {
                    made += 2 * others.len() as u64;
                }
                // It was killed halfway: what is there of them goes, and not all of it is there.
                let _ = client.write(&deletes).await;
            }
            let (client, _channel) = connect(2).await;
            let _ = client.write(&deletes).await;
            made
        })
    })
}

/// Packets and bytes that a counter has in all its cells.
async fn sum(client: &P4Client, counter: CounterKind) -> (u64, u64) {
    let cells = client.read_counter(counter).await.unwrap();
    cells.iter().fold((0, 0), |(packets, bytes), cell| (packets + cell.packets, bytes + cell.bytes))
}

pub(crate) async fn counters(client: &P4Client) -> Vec<(CounterKind, (u64, u64))> {
    let mut all = Vec::new();
    for counter in CounterKind::ALL {
        all.push((counter, sum(client, counter).await));
    }
    all
}

/// Frames that interfaces of this thread's namespace could not send, redirected ones too: their
/// errors and drops, by the kernel's account.
fn transmit_errors() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let fields = text.lines().filter_map(|line| line.split_once(':')).map(|(_, rest)| {
        let all: Vec<u64> = rest.split_whitespace().map(|n| n.parse().unwrap()).collect();
        // Eight columns of what was received; of what was sent: bytes packets errs drop ...
        all[10] + all[11]
    });
    fields.sum()
}

/// Tail-call maps that are pinned: another one is there while programs are replaced.
fn jumps(place: &Place) -> BTreeSet<String> {
    let layout = format!("v{}", selvedge_xdp::common::LAYOUT_VERSION);
    let programs = Path::new("/sys/fs/bpf/selvedge").join(&place.instance).join(layout);
    let names = std::fs::read_dir(programs.join("programs")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("jump-")).collect()
}

/// Numbers that look random, the same each time (Steele et al., SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_micros((z ^ (z >> 31)) % end.as_micros() as u64)
    }
}

#[test]
fn agents_are_killed_and_upgraded_and_every_packet_arrives_and_is_counted_once() {
    in_netns(|| {
        let place = Place::new();
        let (a, b, c) = (Host::new("a"), Host::new("b"), Host::new("c"));
        quiet(&a, "p1", A);
        quiet(&b, "p2", B);
        quiet(&c, "p3", C);
        c.run(|| ip("link set eth0 down"));
        let (received, stop) = (Arc::new(AtomicU64::new(0)), Stop::new());
        let started = Instant::now();
        let mut agent = Process::start(&place);
        let entries = program(&a, &b, &c);
        let before = block_on(async {
            let (client, _channel) = connect(1).await;
            until("ports are known", async || {
                let _ = client.write(&inserts(entries.clone())).await;
                let mut read = client.read_entries().await.unwrap();
                read.sort();
                read == entries
            })
            .await;
            counters(&client).await
        });
        let start_time = started.elapsed();
        let errors = [transmit_errors(), a.run(transmit_errors), b.run(transmit_errors)];

        let arrived = receive(&b, &received, &stop);
        let sent = send(&a, &received, &stop, Some(ASTRAY));
        let writes = write_on(&stop);
        let (kills, upgrades) = extent();
        let mut numbers = Numbers(5);
        let mut replacing = 0;
        for n in 0..kills {
            agent.kill();
            let known = jumps(&place);
            agent = Process::start(&place);
            if n % 2 == 0 {
                std::thread::sleep(numbers.below(start_time));
            } else {
                let spawned = Instant::now();
                while jumps(&place).is_subset(&known) {
                    assert!(spawned.elapsed() < PATIENCE, "it replaces no program");
                    std::thread::sleep(Duration::from_micros(100));
                }
                std::thread::sleep(numbers.below(Duration::from_millis(20)));
            }
            replacing += u64::from(jumps(&place).len() > 1);
            if n % (kills / upgrades) == 0 {
                // The one that was started again finishes that, or is stopped before.
                agent.stop();
                agent = Process::start(&place);
                let read = block_on(async {
                    let (client, _channel) = connect(1).await;
                    client.read_entries().await.unwrap()
                });
                let missing = entries.iter().find(|entry| !read.contains(entry));
                assert_eq!(missing, None, "upgrade after kill {n}");
                assert_eq!(jumps(&place).len(), 1, "what was replaced is gone");
            }
        }
        agent.kill();
        let agent = Process::start(&place);
        block_on(async { drop(connect(1).await) });
        stop.0.store(true, Ordering::Relaxed);
        let made = writes.join().unwrap();
        let (sent, failed, time) = sent.recv().unwrap();
        let arrived = arrived.recv().unwrap();
        let (after, read) = block_on(async {
            let (client, _channel) = connect(1).await;
            let mut read = client.read_entries().await.unwrap();
            read.sort();
            (counters(&client).await, read)
        });

        let rate = sent as f64 / time.as_secs_f64();
        println!(
            "{kills} kills ({replacing} while programs were being replaced), {upgrades} upgrades, \
             an agent starts in {start_time:.2?}: {sent} packets in {time:.1?}, {rate:.0} a second, \
             and {failed} that could not be sent; {made} updates of tables; longest pause {:.1?}",
            arrived.pause
        );
        arrived.each_once(sent);
        for ((counter, (packets, bytes)), (_, was)) in after.into_iter().zip(before) {
            let wanted = match counter {
                CounterKind::PortRx => (sent + failed, (sent + failed) * FRAME),
                CounterKind::PortTx => (sent, sent * FRAME),
                CounterKind::PortTxErrors => (failed, failed * FRAME),
                CounterKind::Drops => (failed, 0),
                // Delivered is what was given to the endpoint's port.
                CounterKind::SliceIn | CounterKind::SliceDelivered => {
                    (sent + failed, (sent + failed) * INNER)
                }
                CounterKind::SliceDropped | CounterKind::Hook => (0, 0),
            };
            assert_eq!((packets - was.0, bytes - was.1), wanted, "{counter:?}");
        }
        let errors_after = [transmit_errors(), a.run(transmit_errors), b.run(transmit_errors)];
        assert_eq!(
            errors_after,
            [errors[0] + failed, errors[1], errors[2]],
            "at the switch, A and B"
        );
        assert_eq!(read, entries);
        assert!(made > 0);
        assert!(rate > 0.9 * RATE as f64, "{rate:.0} packets a second only");
        agent.stop();
    });
}
