//! What a switch with given tables does with a given frame: the pipeline's semantics as a
//! plain interpreter. `selvedge trace` shows its answer, tests hold the XDP programs against
//! it, byte by byte.
//!
//! Every bucket is full and every queue empty: nothing is metered away or marked, and a
//! packet is excess only where its slice guarantees nothing. A virtual queue is reported as
//! passed, with the class and colour it was passed in.
//!
//! Where the semantics leave a choice, this is it:
//! - An IP packet is read whole, its lengths included, before anything else is asked of it;
//!   from there on checks come in the order written, and the first that fails names the drop.
//! - Ports are those of TCP, UDP and SCTP, when the packet is no fragment and holds the four
//!   bytes; a rule that names a port matches no packet without ports.
//! - A frame longer than its IP packet is trimmed, on fabric ports too; an encapsulated
//!   packet that is not as long as the outer header says is malformed where it is
//!   decapsulated.
//! - A packet for a node that `next_hop` knows is checked for its hop limit only then.
//! - Ethernet addresses stay as they came towards a hook.
//! - Test packets between neighbors (RFC 8762) are not answered: to this model they are foreign
//!   frames, `unsupported`.
//! - Hosts may ask the agent as often as they like.
//! - A gNB may be told as often as it asks, and of each TEID that is not known.
//! - IPv6 is matched as [`crate::prefix`] has it: `::/0` matches IPv4 too.

mod access;
mod fabric;
mod frame;
mod gtp;
mod icmp;
mod switch;
pub mod wire;

pub use switch::{Port, Switch};

use std::net::IpAddr;

use crate::{DropReason, HookId, PortId, TableKind};

/// Where a frame came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ingress {
    Port(PortId),
    /// The compute port of a hook: the frame left the switch by [`Verdict::ToHook`].
    Compute(HookId),
}

impl From<PortId> for Ingress {
    fn from(port: PortId) -> Self {
        Self::Port(port)
    }
}

impl From<HookId> for Ingress {
    fn from(hook: HookId) -> Self {
        Self::Compute(hook)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// What was looked up, in order, misses too where they decided.
    pub hits: Vec<Hit>,
    /// A source that is not bound to the port showed itself; the agent reports it.
    pub seen: Option<Seen>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Drop(DropReason),
    Out {
        port: PortId,
        frame: Vec<u8>,
    },
    /// Back out of the port it came in by: ARP reply, neighbor advertisement.
    Answer {
        port: PortId,
        frame: Vec<u8>,
    },
    /// The agent reads it from the interface: LLDP, router solicitations, DHCP of clients.
    PassToKernel,
    ToHook {
        hook: HookId,
        frame: Vec<u8>,
    },
}

/// One look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    pub table: TableKind,
    /// What was looked for.
    pub key: String,
    /// What was found.
    pub detail: String,
}

/// As `selvedge.v1.EndpointSeen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub port: PortId,
    pub mac: [u8; 6],
    pub address: IpAddr,
}

/// What `switch` does with `frame`. Any bytes will do; a frame is at least dropped.
///
/// Cost: a look-up for each prefix length in use, at most 129, in each longest-prefix table.
pub fn process(switch: &Switch, ingress: impl Into<Ingress>, frame: &[u8]) -> Outcome {
    let mut run = Run { switch, hits: Vec::new(), seen: None };
    let verdict = match ingress.into() {
        Ingress::Port(port) => run.port(port, frame),
        Ingress::Compute(hook) => run.fabric(Ingress::Compute(hook), frame),
    };
    let verdict = verdict.unwrap_or_else(Verdict::Drop);
    Outcome { verdict, hits: run.hits, seen: run.seen }
}

/// One packet on its way: the tables, and what it has met so far.
struct Run<'a> {
    switch: &'a Switch,
    hits: Vec<Hit>,
    seen: Option<Seen>,
}

type Step = Result<Verdict, DropReason>;

impl Run<'_> {
    fn hit(&mut self, table: TableKind, key: impl ToString, detail: impl ToString) {
        self.hits.push(Hit { table, key: key.to_string(), detail: detail.to_string() });
    }

    fn miss(&mut self, table: TableKind, key: impl ToString) {
        self.hit(table, key, "no entry");
    }

    /// Step A.
    fn port(&mut self, port: PortId, frame: &[u8]) -> Step {
        use crate::PortKind::{Access, Fabric};
        let Some(kind) = self.switch.port_kind(port) else {
            self.miss(TableKind::Port, format_args!("port {}", port.0));
            self.unassigned(port, frame);
            return Err(DropReason::PortDisabled);
        };
        let name = if kind == Access { "access" } else { "fabric" };
        self.hit(TableKind::Port, format_args!("port {}", port.0), name);
        if frame::ethertype(frame)? == wire::ETHERTYPE_LLDP {
            return Ok(Verdict::PassToKernel);
        }
        match kind {
            Access => self.access(port, frame),
            Fabric => self.fabric(Ingress::Port(port), frame),
        }
    }

    /// Step E: `frame`'s Ethernet header is complete.
    fn out(&mut self, port: PortId, profile: wire::Profile, frame: Vec<u8>) -> Step {
        if let Some(queue) = self.switch.port_queue(port) {
            let key = format_args!("port {}", port.0).to_string();
            let shaped = queue.shaped_bps[profile.class as usize];
            let detail = match profile.in_profile {
                _ if shaped != 0 => format!("{profile}: queued by HTB at {shaped} bit/s"),
                true => format!("{profile}: passes and is charged {} bytes", frame.len()),
                false => format!(
                    "{profile}: passes below {} bytes of backlog",
                    queue.threshold_bytes[profile.class as usize]
                ),
            };
            self.hit(TableKind::PortQueue, key, detail);
        }
        match self.switch.egress(port) {
            Some(_) => Ok(Verdict::Out { port, frame }),
            None => Err(DropReason::PortDown),
        }
    }
}

#[cfg(test)]
mod tests;
