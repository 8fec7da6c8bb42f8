//! examples/n3: gNBs in user space (GTP-U, TS 29.281) at the access ports of switches, and a UE
//! behind them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use selvedge_lab::Lab;
use selvedge_tests::scenario::PATIENCE;
use selvedge_tests::{eventually, json, succeed, up};

const N3: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 1), 2152);
const ROBOT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const PLC: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
const UPLINK: u32 = 4097;
/// Of the robot's session before and after its hand-over.
const DOWNLINK: [u32; 2] = [8193, 12289];
const ROBOT_PORT: u16 = 4000;
const PLC_PORT: u16 = 5000;

const ECHO_RESPONSE: u8 = 2;
const ERROR_INDICATION: u8 = 26;
const END_MARKER: u8 = 254;
const G_PDU: u8 = 255;

/// What comes is there by then.
const RECEIVE: Duration = Duration::from_millis(500);

/// The N3 side of a gNB.
struct Gnb(UdpSocket);

impl Gnb {
    fn new(lab: &Lab, name: &str, address: [u8; 4]) -> Result<Self> {
        let socket = lab.run(name, || UdpSocket::bind((Ipv4Addr::from(address), 2152)))?;
        socket.set_read_timeout(Some(RECEIVE))?;
        Ok(Self(socket))
    }

    fn send(&self, kind: u8, flags: u8, teid: u32, rest: &[u8]) -> Result<()> {
        let mut message = vec![0x30 | flags, kind];
        message.extend(u16::try_from(rest.len())?.to_be_bytes());
        message.extend(teid.to_be_bytes());
        message.extend(rest);
        self.0.send_to(&message, N3).context("send to N3")?;
        Ok(())
    }

    /// What the robot sends, in QoS flow 2.
    fn uplink(&self, teid: u32, packet: &[u8]) -> Result<()> {
        self.send(G_PDU, 4, teid, &[&[0, 0, 0, 0x85, 1, 0x10, 2, 0], packet].concat())
    }

    /// Type, TEID, and what follows it; `None`: nothing comes.
    fn receive(&self) -> Result<Option<(u8, u32, Vec<u8>)>> {
        let mut bytes = [0; 2048];
        match self.0.recv_from(&mut bytes) {
            Ok((len, from)) => {
                ensure!(from.ip() == N3.0, "from {from}");
                let teid = u32::from_be_bytes(bytes[4..8].try_into()?);
                Ok(Some((bytes[1], teid, bytes[8..len].to_vec())))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// A datagram of the robot's for the plc, without a UDP checksum.
fn of_robot(payload: &[u8]) -> Vec<u8> {
    let len = 28 + payload.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(ROBOT.octets());
    packet.extend(PLC.octets());
    let words = packet.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet.extend([ROBOT_PORT, PLC_PORT, len - 20, 0].iter().flat_map(|word| word.to_be_bytes()));
    packet.extend(payload);
    packet
}

/// What the datagram in a downlink G-PDU carries; QFI 2, of the slice's class.
fn to_robot(rest: &[u8]) -> Result<&[u8]> {
    ensure!(rest[..8] == [0, 0, 0, 0x85, 1, 0, 2, 0], "{:02x?}", &rest[..8]);
    let packet = &rest[8..];
    ensure!(packet[12..20] == [PLC.octets(), ROBOT.octets()].concat(), "{packet:02x?}");
    Ok(&packet[28..])
}

#[test]
fn a_gnb_s_tunnels_end_at_its_switch_and_move_with_a_hand_over() -> Result<()> {
    let lab = up("t-gtp", "examples/n3/topology.yaml")?;
    succeed(&lab, &["apply", "examples/n3/sessions.yaml", "--wait", "20"])?;
    let sessions = json(&lab, &["get", "pdu-sessions"])?;
    ensure!(sessions[0]["attachment"] == "s1:p2", "{sessions}");
    let gnbs = [Gnb::new(&lab, "gnb-1", [192, 0, 2, 1])?, Gnb::new(&lab, "gnb-2", [192, 0, 2, 2])?];
    let plc = lab.run("plc", || UdpSocket::bind((PLC, PLC_PORT)))?;
    plc.set_read_timeout(Some(PATIENCE))?;

    // The switch itself answers.
    eventually("an echo response", PATIENCE, || {
        gnbs[0].send(1, 2, 0, &[0x12, 0x34, 0, 0])?;
        let answer = gnbs[0].receive()?;
        Ok(matches!(answer, Some((ECHO_RESPONSE, 0, rest)) if rest == [0x12, 0x34, 0, 0, 14, 0]))
    })?;
    gnbs[0].uplink(UPLINK + 1, &of_robot(b"astray"))?;
    let told = gnbs[0].receive()?.context("an error indication")?;
    ensure!(told.0 == ERROR_INDICATION, "{told:?}");

    // Up and back.
    let mut bytes = [0; 100];
    gnbs[0].uplink(UPLINK, &of_robot(b"ping"))?;
    let (len, from) = plc.recv_from(&mut bytes)?;
    ensure!(from == SocketAddr::from((ROBOT, ROBOT_PORT)) && &bytes[..len] == b"ping", "{from}");
    plc.send_to(b"pong", from)?;
    let (kind, teid, rest) = gnbs[0].receive()?.context("a pong")?;
    ensure!((kind, teid, to_robot(&rest)?) == (G_PDU, DOWNLINK[0], b"pong"), "{rest:02x?}");

    // Too long for the tunnel: the plc is told so through the fabric, and its kernel heeds it.
    eventually("the path MTU", PATIENCE, || {
        plc.send_to(&[0; 1472], from)?;
        let route = lab.run("plc", || {
            Command::new("ip").args(["route", "get", &ROBOT.to_string()]).output()
        })?;
        Ok(String::from_utf8_lossy(&route.stdout).contains("mtu 1456"))
    })?;
    gnbs[0].0.set_read_timeout(Some(Duration::from_millis(50)))?;
    while gnbs[0].receive()?.is_some() {}
    gnbs[0].0.set_read_timeout(Some(RECEIVE))?;

    // The robot moves to another gNB, while a thousand packets a second are on their way to it.
    let (stop, numbered) = (AtomicBool::new(false), AtomicU32::new(0));
    let received = thread::scope(|scope| -> Result<[Vec<(u8, u32, u32)>; 2]> {
        let sender = scope.spawn(|| -> io::Result<()> {
            while !stop.load(Ordering::Relaxed) {
                let number = numbered.fetch_add(1, Ordering::Relaxed);
                plc.send_to(&number.to_be_bytes(), (ROBOT, ROBOT_PORT))?;
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        let receivers = gnbs.each_ref().map(|gnb| {
            scope.spawn(|| -> Result<Vec<(u8, u32, u32)>> {
                let mut all = Vec::new();
                loop {
                    match gnb.receive()? {
                        Some((G_PDU, teid, rest)) => {
                            let number = u32::from_be_bytes(to_robot(&rest)?[..4].try_into()?);
                            all.push((G_PDU, teid, number));
                        }
                        Some((kind, teid, _)) => all.push((kind, teid, 0)),
                        None if stop.load(Ordering::Relaxed) => return Ok(all),
                        None => {}
                    }
                }
            })
        });
        let sent = |more: u32| {
            let so_far = numbered.load(Ordering::Relaxed);
            eventually("more packets sent", PATIENCE, || {
                Ok(numbered.load(Ordering::Relaxed) > so_far + more)
            })
        };
        let moved = sent(300)
            .and_then(|()| succeed(&lab, &["apply", "examples/n3/hand-over.yaml", "--wait", "20"]))
            .and_then(|_| sent(300));
        stop.store(true, Ordering::Relaxed);
        let received = receivers.map(|receiver| receiver.join().expect("no panic"));
        sender.join().expect("no panic")?;
        moved?;
        let [old, new] = received;
        Ok([old?, new?])
    })?;

    let [old, new] = &received;
    let markers = old.iter().rev().take_while(|message| message.0 == END_MARKER).count();
    ensure!(
        markers == 3,
        "the last from the old tunnel: {:?}",
        &old[old.len().saturating_sub(6)..]
    );
    let packets = [&old[..old.len() - markers], new];
    for (packets, teid) in packets.iter().zip(DOWNLINK) {
        ensure!(packets.len() > 100, "{} packets with TEID {teid}", packets.len());
        ensure!(packets.iter().all(|m| (m.0, m.1) == (G_PDU, teid)), "{packets:?}");
    }
    // Each once and in order, first there, then here.
    let numbers: Vec<u32> =
        packets.iter().flat_map(|p| p.iter().map(|message| message.2)).collect();
    let all: Vec<u32> = (0..numbered.load(Ordering::Relaxed)).collect();
    ensure!(numbers == all, "{} of {} packets, in order", numbers.len(), all.len());

    // And what the robot sends comes by the new one.
    gnbs[1].uplink(UPLINK, &of_robot(b"moved"))?;
    let (len, _) = plc.recv_from(&mut bytes)?;
    ensure!(&bytes[..len] == b"moved", "{:?}", &bytes[..len]);
    Ok(())
}
