//! Every kind of packet that switches send, read by somebody else: tshark takes each apart without
//! a complaint, and finds each kind.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use selvedge_lab::{CaptureOptions, Family, Lab, PingOptions};
use selvedge_tests::scenario::{self, METRO, PATIENCE};
use selvedge_tests::{eventually, up};

/// Links, and the kinds of frames that have to be seen there, as display filters. Checksums are
/// worked out by tshark.
const KINDS: &[(&str, &str, &[&str])] = &[
    // Between switches, in the middle of a wire.
    (
        "gnb1",
        "s1",
        &[
            "lldp.tlv.type == 127 && lldp.chassis.id",
            "ipv6.dst == 5f00::/16 && ipv6.nxt == 4 && icmp.checksum.status == 1",
            "ipv6.dst == 5f00::/16 && icmpv6.type == 128 && icmpv6.checksum.status == 1",
            "udp.dstport == 862 && udp.checksum.status == 1",
            "udp.srcport == 862 && udp.checksum.status == 1",
        ],
    ),
    // At a host: what the switch answers itself, and what it says of its own accord.
    (
        "gnb1",
        "robot-1",
        &[
            "lldp && !(lldp.tlv.type == 127)",
            "arp.opcode == 2 && arp.src.proto_ipv4 == 169.254.1.1",
            "icmpv6.type == 136 && icmpv6.checksum.status == 1",
            "icmp.type == 0 && icmp.checksum.status == 1",
            "icmpv6.type == 129 && icmpv6.checksum.status == 1",
        ],
    ),
];

#[test]
fn tshark_takes_apart_all_that_we_send() -> Result<()> {
    let lab = up("t-dissect", METRO)?;
    scenario::apply_slices(&lab)?;
    lab.converged(PATIENCE)?;
    for (a, b, kinds) in KINDS {
        let file = lab.run_dir().join(format!("{a}-{b}.pcap"));
        captured(&lab, (a, b), &file, || {
            eventually("a frame of each kind", PATIENCE, || {
                talk(&lab)?;
                for kind in *kinds {
                    if tshark(&file, kind)?.is_empty() {
                        println!("{a} - {b}: not yet {kind}");
                        return Ok(false);
                    }
                }
                Ok(true)
            })
        })?;
        // PI_WARN of epan/proto.h: warnings and errors, malformed packets among them.
        let complaints = tshark(&file, "_ws.expert.severity >= 0x00600000 || _ws.malformed")?;
        ensure!(complaints.is_empty(), "{a} - {b}: {complaints}");
    }
    Ok(())
}

/// Everything once more: hosts forget whom they know, and ask again.
fn talk(lab: &Lab) -> Result<()> {
    for family in ["-4", "-6"] {
        let flush = ["ip", family, "neighbor", "flush", "dev", "eth0"];
        ensure!(lab.exec("robot-1", &flush)?.success(), "robot-1 forgets its neighbors");
    }
    for family in [Family::V4, Family::V6] {
        lab.ping("robot-1", "plc", family, 2, PingOptions::default())?;
    }
    Ok(())
}

/// Captures a link into `file` while `body` runs.
fn captured(
    lab: &Lab,
    (a, b): (&str, &str),
    file: &Path,
    body: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let stop = AtomicBool::new(false);
    let mut to = File::create(file).context("make a capture file")?;
    std::thread::scope(|scope| {
        let (started, is_started) = std::sync::mpsc::channel();
        let capture = scope.spawn({
            let stop = &stop;
            move || {
                let options =
                    CaptureOptions { frames: None, duration: None, stop, snap_bytes: 65_535 };
                lab.capture(a, b, &mut to, options, |_| {
                    let _ = started.send(());
                })
            }
        });
        // An error is a capture that has ended, and says why.
        let done = match is_started.recv() {
            Ok(()) => body(),
            Err(_) => Ok(()),
        };
        stop.store(true, Ordering::Relaxed);
        capture.join().expect("a capture does not panic")?;
        done
    })
}

/// Frames of a capture that a display filter finds, a line each, with what tshark says of them.
fn tshark(file: &Path, filter: &str) -> Result<String> {
    let checks = ["ip.check_checksum", "udp.check_checksum", "tcp.check_checksum"];
    let mut command = Command::new("tshark");
    command.args(["-n", "-Q", "-r"]).arg(file).args(["-Y", filter]);
    for check in checks {
        command.args(["-o", &format!("{check}:TRUE")]);
    }
    command.args(["-T", "fields", "-e", "frame.number", "-e", "_ws.col.Protocol"]);
    command.args(["-e", "_ws.expert.message", "-e", "frame.protocols"]);
    let output = command.output().context("tshark: apt-get install tshark, or cargo xtask test")?;
    // A capture that is still written to may end within a frame: exit code 2 then.
    let said = String::from_utf8_lossy(&output.stderr);
    let cut_off = said.contains("cut short");
    ensure!(output.status.success() || cut_off, "tshark {filter:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
