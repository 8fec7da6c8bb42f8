//! What hosts ask a router on access ports: who it is (router advertisements, `advertise`), and
//! an address (DHCP and DHCPv6, relayed: [`dhcp`]).
//!
//! The XDP programs leave these frames to the agent, at most `HOST_REQUESTS_PER_SECOND` of a port,
//! and ARP and neighbor discovery they answer themselves. Servers are reached over the agent's own
//! network, not through the fabric.

mod advertise;
pub mod dhcp;
mod frame;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use selvedge_pipeline::{PortId, gateway};
use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::backend::Tables;
use crate::backoff::random;
use crate::error::AgentError;
use crate::gateway::ETHERTYPE_IPV6;
use crate::options::HostOptions;
use crate::packet::{FRAME_MAX, PacketSocket};
use crate::report::Report;
use crate::seen::Around;
use advertise::Schedule;
use dhcp::Refused;

const ETHERTYPE_IPV4: u16 = 0x0800;
const DHCP_SERVER: u16 = 67;
const DHCPV6_SERVER: u16 = 547;
const ICMPV6: u8 = 58;
const ROUTER_SOLICITATION: u8 = 133;

/// Counts are told no more often.
const TELL_COUNTS: Duration = Duration::from_secs(1);
/// Clients whose MAC addresses are kept for answers of DHCPv6; beyond it who asked longest ago is
/// forgotten, and asks again.
const CLIENTS: usize = 1024;

/// What hosts asked and got, since the agent's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub solicitations: u64,
    pub advertisements: u64,
    /// Messages that went to servers, and to clients.
    pub to_servers: u64,
    pub to_clients: u64,
    /// Of hosts or servers: cut off, or contradicting itself.
    pub malformed: u64,
    /// From who may not say it, or about a port or client that is not here.
    pub foreign: u64,
    /// No server is configured, or none can be reached.
    pub no_server: u64,
}

/// Where the servers of one protocol are heard.
struct Servers<A> {
    socket: Option<UdpSocket>,
    addresses: Vec<A>,
    port: u16,
}

impl<A: Copy + Into<IpAddr>> Servers<A> {
    /// # Errors
    /// [`AgentError::Relay`].
    fn open(addresses: Vec<A>, any: IpAddr, port: u16) -> Result<Self, AgentError> {
        let socket = match addresses.is_empty() {
            true => None,
            false => Some(listen((any, port).into()).map_err(AgentError::relay(port))?),
        };
        Ok(Self { socket, addresses, port })
    }

    /// The next message of a server, or of who says to be one. Pends where there are none.
    async fn recv(&self, bytes: &mut [u8; FRAME_MAX]) -> io::Result<(usize, bool)> {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        let (len, from) = socket.recv_from(bytes).await?;
        let ours = |address: &A| (*address).into() == from.ip();
        Ok((len, self.addresses.iter().any(ours)))
    }

    /// Gives each server what `message` makes of it for our address towards that one. Whether one
    /// got it.
    fn send(&self, message: impl Fn(IpAddr) -> Result<Vec<u8>, Refused>) -> Result<bool, Refused> {
        let mut sent = false;
        let Some(socket) = &self.socket else { return Ok(false) };
        for address in &self.addresses {
            let server = SocketAddr::from(((*address).into(), self.port));
            let Ok(own) = towards(server) else { continue };
            sent |= socket.try_send_to(&message(own)?, server).is_ok();
        }
        Ok(sent)
    }
}

fn listen(any: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(any), Type::DGRAM.nonblocking(), None)?;
    if any.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&any.into())?;
    UdpSocket::from_std(socket.into())
}

/// Our own address towards `server`, as routes are now.
fn towards(server: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let probe = std::net::UdpSocket::bind((any, 0))?;
    probe.connect(server)?;
    Ok(probe.local_addr()?.ip())
}

/// Where hosts and servers are heard.
pub(crate) struct Sockets {
    v4: PacketSocket,
    v6: PacketSocket,
    dhcp: Servers<Ipv4Addr>,
    dhcpv6: Servers<Ipv6Addr>,
}

impl Sockets {
    /// In this thread's network namespace; must be called inside a runtime.
    ///
    /// # Errors
    /// [`AgentError::Relay`]; [`AgentError::System`] without CAP_NET_RAW.
    pub(crate) fn open(options: &HostOptions) -> Result<Self, AgentError> {
        let of_gateway = |ethertype| {
            let socket = PacketSocket::open(ethertype)?;
            socket.only_to(gateway::MAC)?;
            Ok(socket)
        };
        let hear =
            |ethertype| of_gateway(ethertype).map_err(AgentError::system("open a packet socket"));
        let (v4, v6) = (options.dhcp_relay.clone(), options.dhcpv6_relay.clone());
        Ok(Self {
            v4: hear(ETHERTYPE_IPV4)?,
            v6: hear(ETHERTYPE_IPV6)?,
            dhcp: Servers::open(v4, Ipv4Addr::UNSPECIFIED.into(), DHCP_SERVER)?,
            dhcpv6: Servers::open(v6, Ipv6Addr::UNSPECIFIED.into(), DHCPV6_SERVER)?,
        })
    }
}

/// The agent's part in what hosts ask; [`Hosts::run`] is its task.
pub(crate) struct Hosts<T> {
    switch: String,
    around: Around<T>,
    report: watch::Sender<Report>,
    sockets: Sockets,
    advertisement: Vec<u8>,
    schedule: Schedule,
    access: BTreeSet<(PortId, u32)>,
    clients: BTreeMap<(u32, Ipv6Addr), ([u8; 6], Instant)>,
    counts: Counts,
}

impl<T: Tables> Hosts<T> {
    pub(crate) fn new(
        switch: String,
        options: &HostOptions,
        sockets: Sockets,
        around: Around<T>,
        report: watch::Sender<Report>,
    ) -> Self {
        let managed = !options.dhcpv6_relay.is_empty();
        Self {
            switch,
            around,
            report,
            sockets,
            advertisement: advertise::frame(managed, &options.ra_prefixes),
            schedule: Schedule::default(),
            access: BTreeSet::new(),
            clients: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// Runs until the ports' task ends.
    ///
    /// # Errors
    /// When a socket cannot be read.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        let (mut of_v4, mut of_v6) = ([0; FRAME_MAX], [0; FRAME_MAX]);
        let (mut of_dhcp, mut of_dhcpv6) = ([0; FRAME_MAX], [0; FRAME_MAX]);
        let (mut told, mut tell_at) = (self.counts, None);
        self.look()?;
        loop {
            let deadline = self.schedule.deadline().into_iter().chain(tell_at).min();
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.around.ports.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.look()?;
                }
                Ok(()) = self.around.written.changed() => self.look()?,
                received = self.sockets.v4.recv(&mut of_v4) => {
                    if let Some((len, ifindex)) = heard(received)? {
                        let relayed = self.dhcp(&of_v4[..len], ifindex);
                        self.count_client(relayed);
                    }
                }
                received = self.sockets.v6.recv(&mut of_v6) => {
                    if let Some((len, ifindex)) = heard(received)? {
                        self.ipv6(&of_v6[..len], ifindex);
                    }
                }
                received = self.sockets.dhcp.recv(&mut of_dhcp) => {
                    if let Some((len, ours)) = heard(received)? {
                        let relayed = ours.then(|| self.answer(&of_dhcp[..len]));
                        self.count_server(relayed.unwrap_or(Err(Refused::Foreign)));
                    }
                }
                received = self.sockets.dhcpv6.recv(&mut of_dhcpv6) => {
                    if let Some((len, ours)) = heard(received)? {
                        let relayed = ours.then(|| self.answer6(&of_dhcpv6[..len]));
                        self.count_server(relayed.unwrap_or(Err(Refused::Foreign)));
                    }
                }
                () = due => {
                    let now = Instant::now();
                    if tell_at.take_if(|at| *at <= now).is_some() {
                        told = self.counts;
                        self.report.send_modify(|report| report.hosts = told);
                    }
                    for (port, ifindex) in self.schedule.tick(now, random) {
                        match self.sockets.v6.send(ifindex, &self.advertisement) {
                            Ok(()) => self.counts.advertisements += 1,
                            Err(error) => {
                                tracing::debug!(port = port.0, %error, "router not advertised");
                            }
                        }
                    }
                }
            }
            if tell_at.is_none() && told != self.counts {
                tell_at = Some(Instant::now() + TELL_COUNTS);
            }
        }
    }

    /// At the ports, which may have changed.
    fn look(&mut self) -> io::Result<()> {
        self.around.written.mark_unchanged();
        self.around.ports.mark_unchanged();
        self.sockets.v4.refresh()?;
        self.sockets.v6.refresh()?;
        if let Some(access) = self.around.access() {
            self.schedule.set_ports(&access, Instant::now(), random);
            self.access = access;
        }
        Ok(())
    }

    /// How servers know a port: they say it again, and may go by it.
    fn name_of(&self, ifindex: u32) -> Option<String> {
        let (id, _) = self.access.iter().find(|(_, index)| *index == ifindex)?;
        Some(format!("{}/{}", self.switch, self.around.ports.borrow().get(id)?.name))
    }

    fn ifindex_of(&self, name: &str) -> Option<u32> {
        let of = |(_, ifindex): &(PortId, u32)| self.name_of(*ifindex).as_deref() == Some(name);
        Some(self.access.iter().find(|port| of(port))?.1)
    }

    fn dhcp(&self, frame: &[u8], ifindex: u32) -> Result<bool, Refused> {
        let port = self.name_of(ifindex).ok_or(Refused::Foreign)?;
        let datagram = frame::datagram(frame).ok_or(Refused::Malformed)?;
        self.sockets.dhcp.send(|own| match own {
            IpAddr::V4(own) => dhcp::to_server4(datagram.payload, own, &port, gateway::IPV4),
            IpAddr::V6(_) => Err(Refused::Foreign),
        })
    }

    fn ipv6(&mut self, frame: &[u8], ifindex: u32) {
        const PROTOCOL: usize = 20;
        const CODE_AND_TYPE: [u8; 2] = [ROUTER_SOLICITATION, 0];
        if frame.get(PROTOCOL) != Some(&ICMPV6) {
            let relayed = self.dhcpv6(frame, ifindex);
            return self.count_client(relayed);
        }
        self.counts.solicitations += 1;
        // RFC 4861 §6.1.1; what else there is to check the program has checked.
        if frame.get(54..56) != Some(&CODE_AND_TYPE) {
            self.counts.malformed += 1;
        } else if !self.schedule.solicited(ifindex, Instant::now(), random()) {
            self.counts.foreign += 1;
        }
    }

    fn dhcpv6(&mut self, frame: &[u8], ifindex: u32) -> Result<bool, Refused> {
        let port = self.name_of(ifindex).ok_or(Refused::Foreign)?;
        let frame::Datagram { mac, source, payload } =
            frame::datagram(frame).ok_or(Refused::Malformed)?;
        let IpAddr::V6(source) = source else { return Err(Refused::Malformed) };
        let sent = self.sockets.dhcpv6.send(|own| match own {
            IpAddr::V6(own) => dhcp::to_server6(payload, (source, mac), own, &port),
            IpAddr::V4(_) => Err(Refused::Foreign),
        })?;
        let client = (ifindex, source);
        if self.clients.len() >= CLIENTS && !self.clients.contains_key(&client) {
            let oldest = self.clients.iter().min_by_key(|(_, (_, at))| *at).map(|(key, _)| *key);
            oldest.and_then(|key| self.clients.remove(&key));
        }
        self.clients.insert(client, (mac, Instant::now()));
        Ok(sent)
    }

    fn answer(&self, message: &[u8]) -> Result<bool, Refused> {
        let dhcp::ToClient4 { port, mac, address, message } = dhcp::to_client4(message)?;
        let ifindex = self.ifindex_of(&port).ok_or(Refused::Foreign)?;
        Ok(self.sockets.v4.send(ifindex, &frame::to_client4(mac, address, &message)).is_ok())
    }

    fn answer6(&self, message: &[u8]) -> Result<bool, Refused> {
        let dhcp::ToClient6 { port, peer, message } = dhcp::to_client6(message)?;
        let ifindex = self.ifindex_of(&port).ok_or(Refused::Foreign)?;
        let (mac, _) = self.clients.get(&(ifindex, peer)).ok_or(Refused::Foreign)?;
        Ok(self.sockets.v6.send(ifindex, &frame::to_client6(*mac, peer, &message)).is_ok())
    }

    fn count_client(&mut self, relayed: Result<bool, Refused>) {
        match relayed {
            Ok(true) => self.counts.to_servers += 1,
            Ok(false) => self.counts.no_server += 1,
            Err(refused) => self.count_refused(refused),
        }
    }

    fn count_server(&mut self, relayed: Result<bool, Refused>) {
        match relayed {
            // An interface that has gone meanwhile; the client asks again.
            Ok(sent) => self.counts.to_clients += u64::from(sent),
            Err(refused) => self.count_refused(refused),
        }
    }

    fn count_refused(&mut self, refused: Refused) {
        match refused {
            Refused::Malformed => self.counts.malformed += 1,
            Refused::Foreign => self.counts.foreign += 1,
        }
    }
}

/// What was received; nothing where that says only that an interface is down, or that a server
/// was not there when it was asked.
fn heard<R>(received: io::Result<R>) -> io::Result<Option<R>> {
    match received {
        Ok(received) => Ok(Some(received)),
        Err(error)
            if error.raw_os_error() == Some(nix::libc::ENETDOWN)
                || error.kind() == io::ErrorKind::ConnectionRefused =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
