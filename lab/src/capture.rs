//! Frames of a link into a pcap file.
//!
//! Where: at the host's interface of an access link, in the middle of a wire, both directions.
//! A plain veth between two switches cannot be captured: XDP takes a frame before, and puts it
//! out past, every tap that the kernel has.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd as _;

use crate::cable::WIRE_ENDS;
use crate::error::{Doing as _, LabError, Result};
use crate::lab::Lab;
use crate::names;
use crate::netns::NetNs;
use crate::packet::PacketSocket;
use crate::state::{NodeState, State};

/// When to end, whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct CaptureOptions<'a> {
    pub frames: Option<u64>,
    pub duration: Option<Duration>,
    pub stop: &'a AtomicBool,
    /// Bytes kept of a frame, at most 65,535.
    pub snap_bytes: u32,
}

/// What was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    pub frames: u64,
    /// `NAMESPACE:INTERFACE`.
    pub at: String,
}

impl Lab {
    /// Captures the link between `a` and `b` (nodes, or `NODE:PORT`) until it is to end.
    /// `started` is called once frames are seen from then on.
    ///
    /// # Errors
    /// [`LabError::NoTap`] for a plain link between two switches; those of finding a link; what
    /// writing said.
    pub fn capture(
        &self,
        a: &str,
        b: &str,
        to: &mut dyn Write,
        options: CaptureOptions<'_>,
        started: impl FnOnce(&str),
    ) -> Result<Captured> {
        let state = self.state()?;
        let (space, interface) = tap(&state, state.link(a, b)?)?;
        let ns = NetNs::open(&space).doing("open namespace", &space)?;
        let at = format!("{space}:{interface}");
        let socket = ns.run(|| PacketSocket::tap(&interface)).doing("capture at", &at)?;
        header(to, options.snap_bytes).doing("write", "the capture")?;
        started(&at);

        let deadline = options.duration.map(|duration| Instant::now() + duration);
        let mut buffer = vec![0; 1 << 16];
        let mut frames = 0;
        let ended = |frames| {
            options.stop.load(Ordering::Relaxed)
                || options.frames.is_some_and(|limit| frames >= limit)
                || deadline.is_some_and(|deadline| Instant::now() >= deadline)
        };
        while !ended(frames) {
            match socket.receive(&mut buffer).doing("capture at", &at)? {
                Some((length, _)) => {
                    frame(to, &buffer[..length], options.snap_bytes)
                        .doing("write", "the capture")?;
                    frames += 1;
                }
                None => {
                    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                    let _ = poll(&mut fds, PollTimeout::from(50u8));
                }
            }
        }
        to.flush().doing("write", "the capture")?;
        Ok(Captured { frames, at })
    }
}

/// (namespace, interface) that sees all of a link's frames.
fn tap(state: &State, link: usize) -> Result<(String, String)> {
    let link = &state.links[link];
    if let Some(wire) = link.wire {
        return Ok((names::wire_namespace(&state.name, wire), WIRE_ENDS.0.to_owned()));
    }
    let host = [&link.a, &link.b]
        .into_iter()
        .find(|plug| matches!(state.nodes.get(plug.node.as_str()), Some(NodeState::Host { .. })));
    match host {
        Some(plug) => {
            let space = names::namespace(&state.name, plug.node.as_str());
            Ok((space, plug.port.as_str().to_owned()))
        }
        None => Err(LabError::NoTap { a: link.a.end(), b: link.b.end() }),
    }
}

/// pcap with nanoseconds, in this machine's byte order (draft-ietf-opsawg-pcap §4).
fn header(to: &mut dyn Write, snap_bytes: u32) -> io::Result<()> {
    const MAGIC: u32 = 0xA1B2_3C4D;
    const ETHERNET: u32 = 1;

    to.write_all(&MAGIC.to_ne_bytes())?;
    to.write_all(&2u16.to_ne_bytes())?;
    to.write_all(&4u16.to_ne_bytes())?;
    to.write_all(&[0; 8])?;
    to.write_all(&snap_bytes.to_ne_bytes())?;
    to.write_all(&ETHERNET.to_ne_bytes())
}

fn frame(to: &mut dyn Write, frame: &[u8], snap_bytes: u32) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let kept = &frame[..frame.len().min(snap_bytes as usize)];
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    // Seconds in 32 bits, as the format has them: good until 2106.
    for word in [now.as_secs() as u32, now.subsec_nanos(), length(kept), length(frame)] {
        to.write_all(&word.to_ne_bytes())?;
    }
    to.write_all(kept)
}
