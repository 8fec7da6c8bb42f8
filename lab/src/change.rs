//! Changing a lab that is up: links down and up, impairments, hosts that move.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use selvedge_topology::{BitRate, Delay, End, Loss, NodeName};

use crate::cable::{self, Spaces, Work};
use crate::error::{Doing as _, LabError, Result};
use crate::host::{self, Role};
use crate::lab::{Lab, host_name};
use crate::names::{self, ProcessName};
use crate::netlink::Netlink;
use crate::netns::NetNs;
use crate::plan::{MAX_WIRE_BPS, Note};
use crate::state::{Cable, Figures, NodeState, Plug, State};
use crate::{process, run, up};

/// What a link is to do to frames from now on. What is absent stays as it is; zero takes an
/// impairment away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impairment {
    /// Each direction; below [`MAX_WIRE_BPS`].
    pub rate: Option<BitRate>,
    /// One way.
    pub delay: Option<Delay>,
    pub loss: Option<Loss>,
}

impl Lab {
    /// Takes a link's carrier away, or gives it back. `a` and `b` are nodes, or `NODE:PORT`
    /// where several links join them.
    ///
    /// A wire breaks in the middle: both ends lose their carrier. Of a plain link the end at the
    /// switch is set down (at the first-named switch of the file between two), and the other end
    /// loses its carrier.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`], [`LabError::NoSuchLink`], [`LabError::SeveralLinks`].
    pub fn link(&self, a: &str, b: &str, up: bool) -> Result<()> {
        self.change(|state| {
            let index = state.link(a, b)?;
            state.links[index].up = up;
            let breakers = cable::breakers(state, &state.links[index]);
            let mut spaces = Spaces::default();
            spaces.open(breakers.iter().map(|(ns, _)| ns.clone()))?;
            // Both at once, as far as one process can.
            let mut sockets = Vec::new();
            for (ns, index) in breakers {
                sockets.push((Netlink::route(spaces.get(&ns))?, index));
            }
            for (mut socket, index) in sockets {
                socket.send(vec![cable::set_up(index, up)])?;
            }
            Ok(())
        })
    }

    /// Changes what a link does to frames, in both directions. A plain link is taken up and laid
    /// anew as a wire, which the notes say. What is in flight may be lost.
    ///
    /// # Errors
    /// Those of [`Lab::link`]; [`LabError::Argument`] for a rate that no wire holds.
    pub fn impair(&self, a: &str, b: &str, impairment: Impairment) -> Result<Vec<Note>> {
        if let Some(rate) = impairment.rate.filter(|rate| rate.0 >= MAX_WIRE_BPS) {
            let what = "a rate below 1Gbps, which is what a wire can hold";
            return Err(LabError::Argument { given: rate.to_string(), what });
        }
        self.change(|state| {
            let at = state.link(a, b)?;
            let old = state.links[at].clone();
            let mut figures = old.figures;
            if let Some(rate) = impairment.rate {
                figures.rate_bps = Some(rate.0).filter(|rate| *rate > 0);
            }
            figures.delay_us = impairment.delay.map_or(figures.delay_us, |delay| delay.0);
            figures.loss_ppm = impairment.loss.map_or(figures.loss_ppm, |loss| loss.ppm());
            if figures == old.figures {
                return Ok(Vec::new());
            }
            if old.wire.is_none() {
                relay_needs_binary(state, figures)?;
                make_wire(state, at, figures)?;
                return Ok(vec![Note::Relaid { link: old.to_string() }]);
            }
            stop_relay(state, &old)?;
            let mut spaces = Spaces::default();
            spaces.open(old.wire.map(|wire| names::wire_namespace(&state.name, wire)))?;
            let mut work = Work::default();
            cable::unwire(&mut work, state, &old);
            work.run(&spaces)?;
            state.links[at].figures = figures;
            state.write()?;
            let mut work = Work::default();
            cable::wire(&mut work, state, &state.links[at], &spaces);
            work.run(&spaces)?;
            start_relay(state, at)?;
            Ok(Vec::new())
        })
    }

    /// Unplugs a host and plugs it in elsewhere, with its addresses: a port that nothing uses.
    /// Its sockets stay; from the moment the old link goes to the moment the new one is there
    /// (a few milliseconds) nothing can be sent. A host without a link gets a plain one. Returns
    /// where it was.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`], [`LabError::NotAHost`], [`LabError::NotASwitch`],
    /// [`LabError::PortTaken`].
    pub fn move_host(&self, host: &str, to: &End) -> Result<Option<End>> {
        let was = self.change(|state| {
            let node = host_name(state, host)?;
            let NodeState::Switch { .. } = state.node(to.node.as_str())?.1 else {
                return Err(LabError::NotASwitch { node: to.node.clone() });
            };
            let target = Plug { node: to.node.clone(), port: to.port.clone() };
            if let Some(link) = state.links.iter().find(|link| link.a == target || link.b == target)
            {
                return Err(LabError::PortTaken { end: to.clone(), link: link.to_string() });
            }
            let Some(at) = state.host_link(&node) else {
                plug_in(state, &node, target)?;
                return Ok(None);
            };
            let (own, was) = if state.links[at].a.node == node {
                (state.links[at].a.clone(), state.links[at].b.end())
            } else {
                (state.links[at].b.clone(), state.links[at].a.end())
            };
            replug(state, at, &own, target)?;
            Ok(Some(was))
        })?;
        self.announce(host);
        Ok(was)
    }

    /// Has a host say where it is, a few times: its kernel asks for the gateway, which shows the
    /// switch its addresses. A question is lost where the switch has not taken up the port yet.
    fn announce(&self, host: &str) {
        let sockets = self.run(host, || {
            let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok();
            let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).ok();
            Ok([(v4, SocketAddr::from((host::GATEWAY_V4, DISCARD))), (v6, DISCARD_V6)])
        });
        for _ in 0..3 {
            for (socket, address) in sockets.iter().flatten() {
                if let Some(socket) = socket {
                    // What comes of it shows at the switch, not here.
                    let _ = socket.send_to(b"here", address);
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Port of the discard service (RFC 863).
const DISCARD: u16 = 9;
/// An address that is routed by the gateway and reaches nobody (RFC 3849).
const DISCARD_V6: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::new(0x2001, 0xDB8, 0, 0, 0, 0, 0, 0)), DISCARD);

fn relay_needs_binary(state: &State, figures: Figures) -> Result<()> {
    if figures.relayed() {
        state.binary.metadata().doing("start", state.binary.display())?;
    }
    Ok(())
}

/// Takes a plain link up and lays it as a wire, with its interfaces named as before.
fn make_wire(state: &mut State, at: usize, figures: Figures) -> Result<()> {
    let old = state.links[at].clone();
    let mut spaces = Spaces::default();
    spaces.open([&old.a, &old.b].map(|plug| names::namespace(&state.name, plug.node.as_str())))?;
    let wire = state.free_wire();
    let index = state.take_indices();
    state.links[at] = Cable { wire: Some(wire), index, figures, ..old.clone() };
    state.write()?; // it is ours from now on

    let mut work = Work::default();
    cable::take_up(&mut work, state, &old);
    work.run(&spaces)?;
    spaces.insert(up::space(&names::wire_namespace(&state.name, wire), Role::Wire)?);
    let mut work = Work::default();
    cable::lay(&mut work, state, &state.links[at], &spaces, None);
    work.run(&spaces)?;
    start_relay(state, at)
}

/// Puts the other end of `own`'s link into `target`. The new link is laid beside the old one, so
/// that the host is without only while addresses change hands.
fn replug(state: &mut State, at: usize, own: &Plug, target: Plug) -> Result<()> {
    let old = state.links[at].clone();
    let own_ns = names::namespace(&state.name, own.node.as_str());
    let mut spaces = Spaces::default();
    spaces.open(
        [&old.a, &old.b, &target].map(|plug| names::namespace(&state.name, plug.node.as_str())),
    )?;
    stop_relay(state, &old)?;

    let index = state.take_indices();
    let wire = old.wire.map(|_| state.free_wire());
    let new = Cable { a: own.clone(), b: target, index, wire, figures: old.figures, up: true };
    // Both are the lab's until the old one is gone.
    state.links.push(new.clone());
    state.write()?;
    if let Some(wire) = wire {
        spaces.insert(up::space(&names::wire_namespace(&state.name, wire), Role::Wire)?);
    }
    let mut work = Work::default();
    cable::lay(&mut work, state, &new, &spaces, Some(&format!("new{index}")));
    work.run(&spaces)?;

    let (old_end, new_end) = (cable::end_index(&old, own), cable::end_index(&new, own));
    let mut hand_over = host::unconfigure(state, &own.node, old_end);
    hand_over.push(cable::set_up(old_end, false));
    hand_over.push(cable::rename(old_end, &format!("old{}", old.index)));
    hand_over.push(cable::rename(new_end, own.port.as_str()));
    hand_over.push(cable::set_up(new_end, true));
    let mut socket = Netlink::route(spaces.get(&own_ns))?;
    socket.send(hand_over)?;
    cable::set_host_offloads(spaces.get(&own_ns), new_end)?;
    let mut settle = host::configure(state, &own.node, new_end);
    settle.push(cable::delete(old_end));
    socket.send(settle)?;

    state.links.pop();
    if let Some(wire) = old.wire {
        let space = names::wire_namespace(&state.name, wire);
        drop(spaces);
        NetNs::delete(&space).doing("remove namespace", &space)?;
        // The pair at the switch goes with the namespace, though not at once.
    }
    state.links[at] = new;
    start_relay(state, at)
}

/// Gives a host its first link.
fn plug_in(state: &mut State, host: &NodeName, target: Plug) -> Result<()> {
    let own = Plug { node: host.clone(), port: "eth0".parse().expect("a port's name") };
    let mut spaces = Spaces::default();
    spaces.open([&own, &target].map(|plug| names::namespace(&state.name, plug.node.as_str())))?;
    let (index, figures) = (state.take_indices(), Figures::default());
    let new = Cable { a: own, b: target, index, wire: None, figures, up: true };
    state.links.push(new.clone());
    state.write()?; // it is ours from now on
    let mut work = Work::default();
    cable::lay(&mut work, state, &new, &spaces, None);
    work.run(&spaces)
}

fn stop_relay(state: &mut State, link: &Cable) -> Result<()> {
    let Some(wire) = link.wire else { return Ok(()) };
    if let Some(pid) = state.processes.remove(&ProcessName::Wire(wire)) {
        process::end(&[pid], Duration::from_secs(1))?;
    }
    Ok(())
}

fn start_relay(state: &mut State, at: usize) -> Result<()> {
    let link = state.links[at].clone();
    if let Some(wire) = link.wire.filter(|_| link.figures.relayed()) {
        run::start(state, &ProcessName::Wire(wire))?;
    }
    run::relaying(state, &link)
}
