//! A slice led through a WebAssembly hook, seen from its receiver.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use selvedge_lab::{Family, Lab};
use serde_json::Value;

use crate::scenario::{PATIENCE, SLICES};
use crate::{eventually, json, succeed};

/// The example: robot-1's slice through `mark`.
pub const HOOKS: &str = "examples/metro/hooks.yaml";
/// What `mark` XORs the payload with.
const KEY: u8 = 0x5A;
/// Packets from each of two processors, in each slice.
const PACKETS: u16 = 500;

/// What arrived of [`PACKETS`] sent by each of two processors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrived {
    pub changed: u64,
    pub unchanged: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Marked {
    /// In the slice that goes through the hook.
    pub through: Arrived,
    /// In another slice at the same time.
    pub beside: Arrived,
}

impl Marked {
    /// Every packet of the slice was changed, and none of the other's.
    pub fn all(self) -> bool {
        let sent = 2 * u64::from(PACKETS);
        self.through.changed == sent
            && self.through.unchanged == 0
            && self.beside.unchanged == sent
            && self.beside.changed == 0
    }

    pub fn figure(self) -> String {
        let Self { through, beside } = self;
        let sent = 2 * PACKETS;
        format!("{} of {sent}; {} of {sent} beside it", through.changed, beside.changed)
    }
}

/// Leads robot-1's slice through `mark`, sends, and leads it straight again.
pub fn through_hook(lab: &Lab) -> Result<Marked> {
    succeed(lab, &["apply", HOOKS])?;
    lab.converged(PATIENCE)?;
    running(lab, "mark")?;
    let marked = Marked {
        through: exchange(lab, "robot-1", "plc")?,
        beside: exchange(lab, "phone-1", "video")?,
    };
    succeed(lab, &["apply", SLICES])?;
    succeed(lab, &["delete", "hook/mark"])?;
    lab.converged(PATIENCE)?;
    Ok(marked)
}

/// Waits until a hook runs on its switch.
pub fn running(lab: &Lab, hook: &str) -> Result<()> {
    eventually("the hook running", PATIENCE, || Ok(state(lab, hook)? == "running"))
}

/// A hook's state as the operator sees it; empty until its switch has reported one.
pub fn state(lab: &Lab, hook: &str) -> Result<String> {
    Ok(instance(lab, hook)?["state"].as_str().unwrap_or_default().to_owned())
}

/// The switch that a hook is on.
pub fn switch(lab: &Lab, hook: &str) -> Result<String> {
    let instance = instance(lab, hook)?;
    Ok(instance["switch"].as_str().with_context(|| format!("{hook} is nowhere"))?.to_owned())
}

fn instance(lab: &Lab, hook: &str) -> Result<Value> {
    Ok(json(lab, &["get", "hooks", hook])?["instances"][0].take())
}

/// Numbered packets from two processors at once, and how they look on arrival.
pub fn exchange(lab: &Lab, from: &str, to: &str) -> Result<Arrived> {
    let receiver = lab.run(to, || UdpSocket::bind("0.0.0.0:0"))?;
    receiver.set_read_timeout(Some(Duration::from_secs(1)))?;
    let port = receiver.local_addr()?.port();
    let target = SocketAddr::new(lab.address(to, Family::V4)?, port);
    let socket = || lab.run(from, || UdpSocket::bind("0.0.0.0:0"));
    let senders = [socket()?, socket()?];
    let mut arrived = Arrived::default();
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = senders
            .iter()
            .enumerate()
            .map(|(cpu, socket)| scope.spawn(move || send(socket, target, cpu)))
            .collect();
        let mut buffer = [0; 128];
        while arrived.changed + arrived.unchanged < 2 * u64::from(PACKETS) {
            match receiver.recv(&mut buffer) {
                Ok(bytes) if is_ours(&buffer[..bytes], KEY) => arrived.changed += 1,
                Ok(bytes) if is_ours(&buffer[..bytes], 0) => arrived.unchanged += 1,
                Ok(bytes) => anyhow::bail!("a payload of {bytes} bytes that nobody sent"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("receive"),
            }
        }
        for thread in threads {
            thread.join().expect("a sender does not panic")?;
        }
        Ok(())
    })?;
    ensure!(arrived.changed + arrived.unchanged > 0, "nothing arrived from {from} at {to}");
    Ok(arrived)
}

const TEXT: &[u8; 32] = b"selvedge: the edge of the fabric";

fn is_ours(payload: &[u8], key: u8) -> bool {
    payload.len() == TEXT.len() && payload.iter().zip(TEXT).all(|(got, sent)| got ^ key == *sent)
}

/// A packet a millisecond, so that what is counted is the hook and not a full queue.
fn send(socket: &UdpSocket, target: SocketAddr, cpu: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &only)?;
    for _ in 0..PACKETS {
        socket.send_to(TEXT, target)?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
