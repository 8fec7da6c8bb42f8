//! `trace` against the switches: random frames, and for each what was said is what happens.
//!
//! Hosts lose their addresses first, so that no kernel says anything of its own and every
//! frame and every drop is the test's.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
    socket,
};
use selvedge_lab::{Family, Lab};
use selvedge_tests::scenario::{self, METRO, PATIENCE};
use selvedge_tests::{eventually, mec, succeed, up};
use serde_json::{Value, json};

use frames::{Host, Random};

#[path = "trace/frames.rs"]
mod frames;

const FRAMES: usize = 1_000;
const SEED: u64 = 0x5E1_7ED6E;
/// How long one frame may take to come out, or to be counted.
const DEADLINE: Duration = Duration::from_secs(3);

/// Drops by node and reason.
type Drops = BTreeMap<(String, String), u64>;

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// These bytes come out at this host.
    Arrives {
        host: String,
        frame: Vec<u8>,
    },
    Dropped {
        node: String,
        reason: String,
    },
    /// The agent gets it, and no host.
    Local,
}

/// A host's interface, and the switch port behind it.
struct Tap {
    host: Host,
    socket: OwnedFd,
    index: usize,
    node: String,
    port: String,
}

#[test]
fn trace_says_what_the_kernel_does() -> Result<()> {
    let lab = up("t-trace", METRO)?;
    scenario::apply_slices(&lab)?;
    succeed(&lab, &["apply", mec::APPLICATION])?;
    let active = json!({ "TrafficRule": { "state": "ACTIVE" } });
    let (status, body) = mec::curl(&lab, "PUT", mec::RULE, Some(&active))?;
    ensure!(status == 200, "activating the rule: {status} {body}");
    lab.converged(PATIENCE)?;

    let taps = lab.hosts()?.iter().map(|host| Tap::open(&lab, host)).collect::<Result<Vec<_>>>()?;
    let hosts: Vec<Host> = taps.iter().map(|tap| tap.host.clone()).collect();
    silence(&lab, &taps)?;
    let before = quiet(&lab)?;
    for tap in &taps {
        while tap.receive()?.is_some() {}
    }

    let start = Instant::now();
    let mut random = Random(SEED);
    let mut dropped = Drops::new();
    let mut fates: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..FRAMES {
        let sender = random.below(taps.len());
        let frame = frames::any(&mut random, &hosts, sender);
        let what = || {
            let hex = hex(&frame);
            format!("frame {number} of seed {SEED:#x}, from {}: {hex}", hosts[sender].name)
        };
        let (result, said) = foretold(&lab, &taps[sender], &frame).with_context(what)?;
        taps[sender].send(&frame).with_context(what)?;
        match &said {
            Fate::Arrives { .. } => {
                let arrived = arrival(&taps)?.with_context(|| format!("{said:?}; nothing came"));
                ensure!(arrived.with_context(what)? == said, "{}\nforetold: {said:?}", what());
            }
            Fate::Dropped { node, reason } => {
                let key = (node.clone(), reason.clone());
                *dropped.entry(key.clone()).or_default() += 1;
                let wanted = before.get(&key).copied().unwrap_or(0) + dropped[&key];
                counted(&lab, &key, wanted).with_context(what)?;
            }
            Fate::Local => {}
        }
        let kind = match said {
            Fate::Arrives { .. } | Fate::Local => result,
            Fate::Dropped { reason, .. } => reason,
        };
        *fates.entry(kind).or_default() += 1;
        for tap in &taps {
            if let Some(more) = tap.receive()? {
                bail!("{}\nalso came to {}: {}", what(), tap.host.name, hex(&more));
            }
        }
    }
    let took = start.elapsed().as_secs_f64();
    println!("{FRAMES} frames in {took:.1} s, all as foretold: {fates:?}");

    // Nothing was dropped that was foretold to arrive.
    let mut wanted = before;
    for (key, count) in dropped {
        *wanted.entry(key).or_default() += count;
    }
    assert_eq!(drops(&lab)?, wanted);
    // The frames were not all of one kind.
    for (kind, at_least) in [
        ("delivered", 200),
        ("answered", 20),
        ("classifier_drop", 3),
        ("hop_limit", 10),
        ("malformed", 20),
        ("no_route", 20),
        ("spoofed_source", 20),
        ("srv6_from_access", 3),
        ("unsupported", 20),
    ] {
        let found = fates.get(kind).copied().unwrap_or(0);
        assert!(found >= at_least, "{kind}: only {found} frames, of {fates:?}");
    }
    Ok(())
}

/// What `trace` says of a frame: its result and the fate that it means.
fn foretold(lab: &Lab, at: &Tap, frame: &[u8]) -> Result<(String, Fate)> {
    let request = json!({ "node": at.node, "port": at.port, "frame": hex(frame) });
    let trace = request_api(lab, "POST", "/v1/trace", &request.to_string())?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let result = text(&trace["result"]).with_context(|| format!("no result in {trace}"))?;
    let out = || -> Result<Vec<u8>> {
        let out = trace["frame_out"].as_str().with_context(|| format!("no frame in {trace}"))?;
        unhex(out).with_context(|| format!("bad frame in {trace}"))
    };
    let fate = match result.as_str() {
        "delivered" => {
            let host = text(&trace["detail"]).context("delivered to nobody")?;
            Fate::Arrives { host, frame: out()? }
        }
        "answered" => Fate::Arrives { host: at.host.name.clone(), frame: out()? },
        "dropped" => {
            let last = trace["steps"].as_array().and_then(|steps| steps.last());
            let last = last.context("dropped nowhere")?;
            let node = text(&last["node"]).context("dropped at no node")?;
            let reason = text(&last["detail"]).context("dropped for no reason")?;
            Fate::Dropped { node, reason }
        }
        "local" => Fate::Local,
        _ => bail!("no frame of this test should end like this: {trace}"),
    };
    Ok((result, fate))
}

/// The next frame that comes to any host.
fn arrival(taps: &[Tap]) -> Result<Option<Fate>> {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        for tap in taps {
            if let Some(frame) = tap.receive()? {
                return Ok(Some(Fate::Arrives { host: tap.host.name.clone(), frame }));
            }
        }
        let fds = taps.iter().map(|tap| PollFd::new(tap.socket.as_fd(), PollFlags::POLLIN));
        let mut fds: Vec<PollFd<'_>> = fds.collect();
        poll(&mut fds, PollTimeout::from(50u8)).context("wait for a frame")?;
    }
    Ok(None)
}

/// Waits until a switch has counted so many drops for one reason.
fn counted(lab: &Lab, (node, reason): &(String, String), wanted: u64) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let found = drops_of(lab, node)?.remove(reason).unwrap_or(0);
        if found == wanted {
            return Ok(());
        }
        if found > wanted || Instant::now() > deadline {
            let all = drops(lab)?;
            bail!("foretold: {reason} at {node}, {wanted} by now; counted {found}; in all {all:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn drops_of(lab: &Lab, node: &str) -> Result<BTreeMap<String, u64>> {
    let counters = request_api(lab, "GET", &format!("/v1/nodes/{node}/counters"), "")?;
    let drops = counters["drops"].as_object().with_context(|| format!("no drops: {counters}"))?;
    drops
        .iter()
        .map(|(reason, count)| Ok((reason.clone(), count.as_u64().context("a count")?)))
        .collect()
}

/// Of all switches, where not zero.
fn drops(lab: &Lab) -> Result<Drops> {
    let mut all = Drops::new();
    for node in lab.switches()? {
        let counted = drops_of(lab, &node)?.into_iter().filter(|(_, count)| *count > 0);
        all.extend(counted.map(|(reason, count)| ((node.clone(), reason), count)));
    }
    Ok(all)
}

/// Takes the hosts' addresses, so that their kernels neither answer nor ask.
fn silence(lab: &Lab, taps: &[Tap]) -> Result<()> {
    for tap in taps {
        let host = tap.host.name.as_str();
        lab.run(host, || fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1"))?;
        let flush = ["ip", "address", "flush", "dev", "eth0"];
        ensure!(lab.exec(host, &flush)?.success(), "{host} keeps its addresses");
    }
    Ok(())
}

/// The switches' drops once they have not changed for half a second.
fn quiet(lab: &Lab) -> Result<Drops> {
    let mut last = drops(lab)?;
    let mut since = Instant::now();
    eventually("a quiet network", PATIENCE, || {
        let now = drops(lab)?;
        if now != last {
            last = now;
            since = Instant::now();
        }
        Ok(since.elapsed() > Duration::from_millis(500))
    })?;
    Ok(last)
}

impl Tap {
    fn open(lab: &Lab, name: &str) -> Result<Self> {
        let at = lab.attachment(name)?;
        let (socket, address) = lab.run(name, || {
            let address = nix::ifaddrs::getifaddrs()?
                .filter(|found| found.interface_name == "eth0")
                .find_map(|found| found.address?.as_link_addr().copied())
                .ok_or_else(|| io::Error::other("no eth0"))?;
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let all = Some(SockProtocol::EthAll);
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, all)?;
            // The address names no protocol, so the socket keeps the one it was made with.
            bind(socket.as_raw_fd(), &address)?;
            Ok((socket, address))
        })?;
        let ip = |family| lab.address(name, family).with_context(|| format!("{name}: {family}"));
        let (IpAddr::V4(ipv4), IpAddr::V6(ipv6)) = (ip(Family::V4)?, ip(Family::V6)?) else {
            bail!("{name}: an address of another family")
        };
        let mac = address.addr().with_context(|| format!("{name}: eth0 has no address"))?;
        Ok(Self {
            host: Host { name: name.to_owned(), mac, ipv4, ipv6 },
            socket,
            index: address.ifindex(),
            node: at.node.to_string(),
            port: at.port.to_string(),
        })
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).context("send")?;
        ensure!(sent == frame.len(), "sent {sent} bytes of {}", frame.len());
        Ok(())
    }

    /// The next frame that came in, if any, but for the LLDP and the router advertisements that
    /// agents send.
    fn receive(&self) -> Result<Option<Vec<u8>>> {
        // <linux/if_packet.h>
        const PACKET_OUTGOING: u8 = 4;

        let mut buffer = vec![0; 1 << 16];
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                Ok((len, Some(from)))
                    if from.ifindex() == self.index && from.pkttype() != PACKET_OUTGOING =>
                {
                    let advertised = buffer[12..14] == [0x86, 0xdd] && buffer[54] == 134;
                    if buffer[12..14] != [0x88, 0xcc] && !advertised {
                        buffer.truncate(len);
                        return Ok(Some(buffer));
                    }
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error).context("receive"),
            }
        }
    }
}

/// One request to the lab's controller; curl would take longer to start than to ask.
fn request_api(lab: &Lab, method: &str, path: &str, body: &str) -> Result<Value> {
    let mut stream = UnixStream::connect(lab.api_socket()).context("connect to the controller")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: selvedge\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("{method} {path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
    serde_json::from_str(body).with_context(|| format!("{method} {path}: {answer}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
    text.as_bytes().chunks(2).map(pair).collect::<Option<Vec<u8>>>().context("hex digits")
}
