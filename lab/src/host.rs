//! What is inside the namespaces of nodes: settings, addresses, routes.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::route::RouteFlags;
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};
use selvedge_topology::NodeName;

use crate::netlink::{REPLACE, Request};
use crate::state::{NodeState, State};

/// The gateway that every switch answers for (southbound/pipeline, `Gateway`).
pub(crate) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
pub(crate) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 1);

/// What a namespace is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Host,
    /// Its kernel has no part in the data plane: no address on any port, nothing forwarded.
    Switch,
    Wire,
    Management,
}

/// (file under `/proc/sys/net`, value), before any interface but `lo` is there.
fn settings(role: Role) -> &'static [(&'static str, &'static str)] {
    match role {
        Role::Host => &[
            // An address is there at once, and nobody is asked for one.
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/dad_transmits", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv6/conf/default/autoconf", "0"),
            ("ipv6/conf/default/router_solicitations", "0"),
            // Routes and addresses outlive a moment without carrier.
            ("ipv6/conf/default/keep_addr_on_down", "1"),
            // Says where it is when it gets an address or a carrier, so that a move is noticed.
            ("ipv4/conf/default/arp_notify", "1"),
            ("ipv6/conf/default/ndisc_notify", "1"),
            // A lost question for the gateway is asked again soon.
            ("ipv4/neigh/default/retrans_time_ms", "200"),
            ("ipv4/neigh/default/mcast_solicit", "10"),
            ("ipv6/neigh/default/retrans_time_ms", "200"),
            ("ipv6/neigh/default/mcast_solicit", "10"),
            // Anyone may ping (icmp(7)); our own pings use this too.
            ("ipv4/ping_group_range", "0 2147483647"),
        ],
        Role::Switch | Role::Wire | Role::Management => &[
            ("ipv6/conf/all/disable_ipv6", "1"),
            ("ipv6/conf/default/disable_ipv6", "1"),
            ("ipv6/conf/all/forwarding", "0"),
            ("ipv4/ip_forward", "0"),
        ],
    }
}

/// Applies the settings of `role` to the namespace of the calling thread, since
/// `/proc/sys/net` shows each thread its own. What a kernel does not have is passed over.
pub(crate) fn prepare(role: Role) -> io::Result<()> {
    for (file, value) in settings(role) {
        match fs::write(format!("/proc/sys/net/{file}"), value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let text = format!("write {value} to net/{file}: {error}");
                return Err(io::Error::new(error.kind(), text));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Gives a host's interface its addresses and default routes; what is there already stays.
pub(crate) fn configure(state: &State, host: &NodeName, index: u32) -> Vec<Request> {
    let Some(NodeState::Host { ipv4, ipv6, .. }) = state.nodes.get(host.as_str()) else {
        return Vec::new();
    };
    let mut requests = Vec::new();
    if let Some(ipv4) = *ipv4 {
        requests.push(address(index, ipv4.into(), 32));
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(GATEWAY_V4)
            .output_interface(index)
            .build();
        route.header.flags |= RouteFlags::Onlink;
        requests.push(request("route IPv4", RouteNetlinkMessage::NewRoute(route)));
    }
    if let Some(ipv6) = *ipv6 {
        requests.push(address(index, ipv6.into(), 128));
        let route = RouteMessageBuilder::<Ipv6Addr>::new()
            .gateway(GATEWAY_V6)
            .output_interface(index)
            .build();
        requests.push(request("route IPv6", RouteNetlinkMessage::NewRoute(route)));
    }
    requests
}

/// Takes a host's addresses off an interface.
pub(crate) fn unconfigure(state: &State, host: &NodeName, index: u32) -> Vec<Request> {
    let Some(NodeState::Host { ipv4, ipv6, .. }) = state.nodes.get(host.as_str()) else {
        return Vec::new();
    };
    let remove = |address: IpAddr, length: u8| {
        let message = RouteNetlinkMessage::DelAddress(message(index, address, length));
        Request::new(format!("take {address} off interface {index}"), 0, message)
    };
    let ipv4 = ipv4.map(|address| remove(address.into(), 32));
    let ipv6 = ipv6.map(|address| remove(address.into(), 128));
    ipv4.into_iter().chain(ipv6).collect()
}

pub(crate) fn address(index: u32, address: IpAddr, prefix: u8) -> Request {
    let message = message(index, address, prefix);
    let what = format!("give {address} to interface {index}");
    Request::new(what, REPLACE, RouteNetlinkMessage::NewAddress(message))
}

fn message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = match address {
        IpAddr::V4(address) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, prefix).build()
        }
        IpAddr::V6(address) => {
            AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(address, prefix).build()
        }
    };
    message.header.scope = AddressScope::Universe;
    if address.is_ipv6() {
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

fn request(what: &str, message: RouteNetlinkMessage) -> Request {
    Request::new(what, REPLACE, message)
}
