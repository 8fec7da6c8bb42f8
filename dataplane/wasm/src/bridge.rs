//! Packets between a socket and a guest: receive a batch, ask, carry out what it decided.
//! Without a guest (it failed) every packet gets what the Load said for that case, so the
//! queue is emptied either way.

use std::{io, sync::Arc, time::Instant};

use crate::{
    batch::{BATCH, Decision, Descriptor},
    error::Failure,
    guest::Guest,
    outer::{MAX_INNER, OUTER, Outer},
    socket::{Received, Socket},
    stats::{Stats, Total},
};

/// What becomes of a packet that the guest did not decide about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    Bypass,
    Drop,
}

pub(crate) struct Bridge {
    socket: Socket,
    guest: Option<Guest>,
    on_failure: OnFailure,
    stats: Arc<Stats>,
    packets: Vec<Packet>,
    descriptors: Vec<Descriptor>,
    decisions: Vec<Decision>,
    /// Inner packets as they came, one behind the other: the guest changes them in place, and
    /// a bypassed packet goes on unchanged. Kept only where failures bypass.
    saved: Vec<u8>,
}

/// One packet of the batch in hand.
struct Packet {
    frame: u32,
    outer: Outer,
    inner_len: usize,
}

/// What a turn found.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Nothing was received; `unsent` tells whether packets still wait to be sent.
    Idle {
        unsent: bool,
    },
    Busy,
    /// The guest failed at this batch and is gone.
    Failed(Failure),
}

impl Bridge {
    pub(crate) fn new(
        socket: Socket,
        guest: Guest,
        on_failure: OnFailure,
        stats: Arc<Stats>,
    ) -> Self {
        let mut bridge = Self {
            socket,
            guest: Some(guest),
            on_failure,
            stats,
            packets: Vec::with_capacity(BATCH),
            descriptors: Vec::with_capacity(BATCH),
            decisions: Vec::with_capacity(BATCH),
            saved: Vec::new(),
        };
        bridge.set_on_failure(on_failure);
        bridge
    }

    pub(crate) fn set_on_failure(&mut self, on_failure: OnFailure) {
        self.on_failure = on_failure;
        self.saved = match on_failure {
            OnFailure::Bypass => vec![0; BATCH * MAX_INNER],
            OnFailure::Drop => Vec::new(),
        };
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Handles what was received, at most [`BATCH`] packets. An error is the interface's end.
    pub(crate) fn turn(&mut self) -> io::Result<Turn> {
        if self.collect() == 0 {
            let sent = self.socket.flush()?;
            return Ok(Turn::Idle { unsent: !sent });
        }
        let turn = match self.ask() {
            Some(Ok(())) => {
                self.carry_out();
                Turn::Busy
            }
            Some(Err(failure)) => {
                self.restore();
                self.guest = None;
                self.give_default();
                Turn::Failed(failure)
            }
            None => {
                self.give_default();
                Turn::Busy
            }
        };
        self.packets.clear();
        self.socket.flush()?;
        Ok(turn)
    }

    /// Ends the guest in an orderly way.
    pub(crate) fn quiesce(&mut self) -> Result<(), Failure> {
        self.guest.take().map_or(Ok(()), |mut guest| guest.quiesce())
    }

    pub(crate) fn update_kernel_stats(&self) {
        self.stats.kernel_dropped.set(self.socket.kernel_dropped());
    }

    /// Takes in packets; answers how many frames were received, the invalid ones (which are
    /// dropped here) among them.
    fn collect(&mut self) -> usize {
        let mut received = 0;
        while self.packets.len() < BATCH && received < 2 * BATCH {
            let Some(Received { frame, len }) = self.socket.receive() else { break };
            received += 1;
            let outer = self.socket.frames().read_outer(frame);
            match Outer::parse(outer, len as usize) {
                Ok((outer, inner_len)) => self.packets.push(Packet { frame, outer, inner_len }),
                Err(reason) => {
                    tracing::trace!(%reason, "frame dropped");
                    self.discard(frame, &self.stats.clone().invalid);
                }
            }
        }
        self.stats.received.add(received as u64);
        received
    }

    /// Runs the guest over the batch; `None` when there is none, or nothing to ask.
    fn ask(&mut self) -> Option<Result<(), Failure>> {
        let guest = self.guest.as_mut()?;
        if self.packets.is_empty() {
            return None;
        }
        self.descriptors.clear();
        self.descriptors.extend(
            self.packets.iter().map(|p| guest.describe(p.frame, p.inner_len, p.outer.meta())),
        );
        if self.on_failure == OnFailure::Bypass {
            for (packet, room) in self.packets.iter().zip(self.saved.chunks_exact_mut(MAX_INNER)) {
                self.socket.frames().read_inner(packet.frame, &mut room[..packet.inner_len]);
            }
        }
        let start = Instant::now();
        let result = guest.run(&self.descriptors, &mut self.decisions);
        self.stats.guest_ns.add(start.elapsed().as_nanos() as u64);
        self.stats.batches.add(1);
        let state = guest.state();
        for (total, counter) in self.stats.counters.iter().zip(state.counters) {
            total.set(counter);
        }
        self.stats.emit_dropped.set(state.events_dropped());
        Some(result)
    }

    fn carry_out(&mut self) {
        assert_eq!(self.decisions.len(), self.packets.len(), "one decision a packet");
        let stats = self.stats.clone();
        for index in 0..self.packets.len() {
            let Packet { frame, ref outer, .. } = self.packets[index];
            let (len, header, total) = match self.decisions[index] {
                Decision::Drop => {
                    self.discard(frame, &stats.dropped);
                    continue;
                }
                Decision::Forward { len } => {
                    (len, outer.clone().forward(self.begins(frame), len), &stats.forwarded)
                }
                Decision::Reply { len } => {
                    (len, outer.clone().reply(self.begins(frame), len), &stats.replied)
                }
            };
            match header {
                Some(header) => {
                    self.socket.frames().write_outer(frame, &header);
                    self.send(frame, len, total);
                }
                None => self.discard(frame, &stats.invalid),
            }
        }
    }

    /// First bytes of an inner packet: IP version and what follows it.
    fn begins(&self, frame: u32) -> [u8; 2] {
        let mut inner = [0; 2];
        self.socket.frames().read_inner(frame, &mut inner);
        inner
    }

    /// Undoes what a failed guest did to the batch's packets.
    fn restore(&mut self) {
        if self.on_failure == OnFailure::Bypass {
            for (packet, saved) in self.packets.iter().zip(self.saved.chunks_exact(MAX_INNER)) {
                self.socket.frames().write_inner(packet.frame, &saved[..packet.inner_len]);
            }
        }
    }

    fn give_default(&mut self) {
        let stats = self.stats.clone();
        for index in 0..self.packets.len() {
            let Packet { frame, inner_len, .. } = self.packets[index];
            match self.on_failure {
                OnFailure::Bypass => self.send(frame, inner_len, &stats.bypassed),
                OnFailure::Drop => self.discard(frame, &stats.failed),
            }
        }
    }

    fn send(&mut self, frame: u32, inner_len: usize, total: &Total) {
        self.socket.transmit(frame, (OUTER + inner_len) as u32);
        total.add(1);
    }

    fn discard(&mut self, frame: u32, total: &Total) {
        self.socket.release(frame);
        total.add(1);
    }
}
