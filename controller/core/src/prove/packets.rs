//! What happens to packets between endpoints, and whether it should.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use selvedge_pipeline::{
    DeliveryEntry, Direction, Entry, HookId, Key, PortId, PortKind, RouteAction, SliceId,
    SliceRouteEntry, SliceSet, Tunnel,
};

use super::Defect;
use super::node::sources;
use super::view::{End, Sent, Text, View, Why, function_name};
use super::world::{Endpoint, Member, Slice};
use crate::attach::as_held;

/// What became of a packet from an endpoint to an address.
struct Fate {
    /// Of the route that was taken.
    slice: Option<SliceId>,
    route: Option<IpNet>,
    at: usize,
    hooks: Vec<(usize, HookId)>,
    end: FateEnd,
}

enum FateEnd {
    /// Sent out of this port with this destination MAC.
    Delivered {
        port: PortId,
        mac: [u8; 6],
        tunnel: Option<Tunnel>,
    },
    Unknown,
    Loop,
    NoRoute,
    Lost(Why),
    NoDelivery,
    NotAccess(PortId),
}

impl View {
    /// Every source is bound where it is attached and nowhere else.
    pub(super) fn binding(
        &self,
        node: usize,
        port: PortId,
        net: IpNet,
        text: Option<&mut Text>,
    ) -> Option<Defect> {
        let Some(Entry::Endpoint(entry)) = self.nodes[node].get(&Key::Endpoint(port, net)) else {
            return None;
        };
        let mut direction: Option<Direction> = None;
        self.world.hosts.overlapping(net, |host| {
            let there = self.world.endpoint(host).filter(|e| (e.node, e.port) == (node, port));
            if let Some(owner) = there.filter(|e| e.prefixes.iter().any(|p| p.contains(&net))) {
                direction = Some(owner.member.direction);
            }
        });
        if direction == Some(entry.direction) {
            return None;
        }
        let defect = if direction.is_none() { Defect::Spoof } else { Defect::Promise };
        if let Some(text) = text {
            text.subject = format!("{net} at port {} of {}", port.0, self.world.name(node));
            text.nodes = vec![node];
            text.detail = match direction {
                None => String::from("no endpoint of that address is attached there"),
                Some(_) => format!("its packets count as {:?}", entry.direction),
            };
        }
        Some(defect)
    }

    /// Every session is of a UE whose gNB is at that port, and has what is the UE's and no more.
    pub(super) fn session(
        &self,
        node: usize,
        teid: u32,
        text: Option<&mut Text>,
    ) -> Option<Defect> {
        let entry = self.nodes[node].session(teid)?;
        let mut right: Option<&Endpoint> = None;
        for net in sources(entry) {
            self.world.hosts.overlapping(net, |host| {
                let endpoint = self.world.endpoint(host).filter(|endpoint| {
                    let is_its = endpoint.n3.is_some_and(|way| {
                        (way.uplink_teid, way.tunnel.gnb, way.qfis) == (teid, entry.gnb, entry.qfis)
                    });
                    (endpoint.node, endpoint.port) == (node, entry.port)
                        && is_its
                        && sources(entry).all(|net| endpoint.prefixes.contains(&as_held(net)))
                });
                right = right.or(endpoint);
            });
        }
        let direction = right.map(|endpoint| endpoint.member.direction);
        if direction == Some(entry.direction) {
            return None;
        }
        let defect = if direction.is_none() { Defect::Spoof } else { Defect::Promise };
        if let Some(text) = text {
            let (port, name) = (entry.port.0, self.world.name(node));
            text.subject = format!("session {teid:#x} at port {port} of {name}");
            text.nodes = vec![node];
            text.detail = match direction {
                None => String::from("no UE of those addresses has that session through that gNB"),
                Some(_) => format!("its packets count as {:?}", entry.direction),
            };
        }
        Some(defect)
    }

    /// Every delivery is of an endpoint in that slice, to where it is.
    pub(super) fn delivery(
        &self,
        node: usize,
        slice: SliceId,
        net: IpNet,
        text: Option<&mut Text>,
    ) -> Option<Defect> {
        let Some(Entry::Delivery(entry)) = self.nodes[node].get(&Key::Delivery(slice, net)) else {
            return None;
        };
        let mut right = false;
        self.world.hosts.overlapping(net, |host| {
            right |= self.world.endpoint(host).is_some_and(|endpoint| {
                (endpoint.node, endpoint.port, endpoint.mac) == (node, entry.port, entry.mac)
                    && endpoint.n3.map(|way| way.tunnel) == entry.tunnel.as_deref().copied()
                    && endpoint.member.slices.contains(&slice)
                    && endpoint.prefixes.iter().any(|prefix| prefix.contains(&net))
            });
        });
        if right {
            return None;
        }
        if let Some(text) = text {
            let name = self.world.name(node);
            text.subject = format!("delivery of {net} in {} at {name}", self.slice_name(slice));
            text.nodes = vec![node];
            text.detail = format!(
                "no endpoint of that slice and address is at port {} with that MAC address and \
                 tunnel",
                entry.port.0
            );
        }
        Some(Defect::Leak)
    }

    /// An endpoint that has somebody to talk with is bound where it is.
    pub(super) fn source(&self, host: u32, text: Option<&mut Text>) -> Option<Defect> {
        let endpoint = self.world.endpoint(host)?;
        let here = &self.nodes[endpoint.node];
        if !here.known() {
            return None;
        }
        let access = here.ports.get(&endpoint.port) == Some(&PortKind::Access);
        for ipv6 in [false, true] {
            let Some(source) = endpoint.address(ipv6) else { continue };
            if access && here.bound(endpoint, source).is_some() {
                continue;
            }
            let Some((to, destination, slice)) = self.anybody(host, ipv6) else { continue };
            if let Some(text) = text {
                let port = endpoint.port.0;
                text.subject = self.subject(source, destination, (host, to), &slice.name);
                text.nodes = vec![endpoint.node];
                text.detail = match access {
                    true if endpoint.n3.is_some() => {
                        format!("{source} is in no session of its gNB at port {port}")
                    }
                    true => format!("{source} is not bound to port {port}"),
                    false => format!("port {port} is no access port"),
                };
            }
            return Some(Defect::BlackHole);
        }
        None
    }

    /// Somebody whom an endpoint must reach.
    fn anybody(&self, host: u32, ipv6: bool) -> Option<(u32, IpAddr, &Slice)> {
        let from = self.world.endpoint(host)?;
        self.world.reached(&from.member).filter(|to| *to != host).find_map(|number| {
            let to = self.world.endpoint(number)?;
            let (_, slice) = self.world.shared(&from.member, &to.member)?;
            let must = self.part[from.node] == self.part[to.node]
                && (slice.placed || slice.hooks.is_empty());
            Some((number, to.address(ipv6)?, slice)).filter(|_| must)
        })
    }

    /// Packets of a group of endpoints at `node` for an endpoint, in each family that both have.
    pub(super) fn pair(
        &self,
        (node, set): (usize, SliceSet),
        member: &Arc<Member>,
        froms: &[u32],
        to: u32,
        mut text: Option<&mut Text>,
    ) -> Option<Defect> {
        let towards = self.world.endpoint(to)?;
        for ipv6 in [false, true] {
            let Some(destination) = towards.address(ipv6) else { continue };
            let source = froms
                .iter()
                .filter(|from| **from != to)
                .find_map(|from| Some((*from, self.world.endpoint(*from)?.address(ipv6)?)));
            let Some((from, source)) = source else { continue };
            for destination in self.judged(set, node, towards.prefixes.as_slice(), destination) {
                let ends = (from, source, to, destination);
                let found = self.packet((node, set), member, ends, text.as_deref_mut());
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    /// The addresses of an endpoint that stand for all of them: its own, and one for each route
    /// that takes part of its prefix another way.
    fn judged(&self, set: SliceSet, node: usize, nets: &[IpNet], own: IpAddr) -> Vec<IpAddr> {
        let mut judged = vec![own];
        let net = nets.iter().find(|net| net.contains(&own));
        if let Some(net) = net.filter(|net| net.prefix_len() < net.max_prefix_len()) {
            let inside = self.nodes[node].routes_of(set).map(|route| route.prefix);
            judged.extend(inside.filter(|p| net.contains(p) && p != net).map(|p| p.addr()));
        }
        judged
    }

    fn packet(
        &self,
        (node, set): (usize, SliceSet),
        member: &Member,
        (from, source, to, destination): (u32, IpAddr, u32, IpAddr),
        text: Option<&mut Text>,
    ) -> Option<Defect> {
        let world = &self.world;
        let towards = world.endpoint(to)?;
        let shared = world.shared(member, &towards.member);
        // A set of paths is right if all are: which one a packet takes is its flow's.
        let fates = self.fates(node, set, destination);
        let judged = |fate| self.verdict(node, to, shared, fate);
        let wrong = fates.iter().enumerate().find_map(|(path, fate)| Some((path, judged(fate)?)));
        let (path, (defect, detail)) = wrong?;
        if let Some(text) = text {
            let name = shared.map_or("no slice", |(_, slice)| slice.name.as_str());
            text.subject = self.subject(source, destination, (from, to), name);
            text.detail = match fates.len() {
                1 => detail(),
                of => format!("on path {} of {of}: {}", path + 1, detail()),
            };
            // A leak is helped at its ingress.
            text.nodes = match shared {
                Some(_) => self.nodes_of(node, set, destination, path),
                None => vec![node],
            };
        }
        Some(defect)
    }

    fn verdict<'a>(
        &'a self,
        node: usize,
        to: u32,
        shared: Option<(SliceId, &'a Slice)>,
        fate: &'a Fate,
    ) -> Option<(Defect, Box<dyn Fn() -> String + 'a>)> {
        type Detail<'a> = Box<dyn Fn() -> String + 'a>;
        let towards = self.world.endpoint(to)?;
        let Some((id, slice)) = shared else {
            // A route of its own is a leak even where nothing arrives at present.
            let own = |route: IpNet| towards.prefixes.iter().any(|p| p.contains(&route));
            let there = match fate.end {
                FateEnd::Delivered { port, .. } => (fate.at, port) == (towards.node, towards.port),
                _ => false,
            };
            let text: Detail<'a> = Box::new(|| "they share no slice, yet there is a way".into());
            return (fate.route.is_some_and(own) || there).then_some((Defect::Leak, text));
        };
        if let Some(taken) = fate.slice.filter(|taken| *taken != id) {
            let text = move || format!("it travels in {}", self.slice_name(taken));
            return Some((Defect::Leak, Box::new(text)));
        }
        match &fate.end {
            FateEnd::Unknown => None,
            FateEnd::Loop => {
                let text = || "it comes back to where it was, with the same ids left".into();
                Some((Defect::Loop, Box::new(text)))
            }
            FateEnd::Delivered { port, mac, tunnel } => {
                let right = towards.n3.map(|way| way.tunnel);
                if (fate.at, *port, *mac) != (towards.node, towards.port, towards.mac)
                    || *tunnel != right
                {
                    let name = self.world.host(to);
                    let text = move || format!("it leaves by port {}, where {name} is not", port.0);
                    return Some((Defect::Leak, Box::new(text)));
                }
                self.hooks_missed(id, slice, &fate.hooks)
            }
            _ => {
                let connected = self.part[node] == self.part[towards.node];
                let must = connected && (slice.placed || slice.hooks.is_empty());
                let text: Detail<'a> = Box::new(move || self.why(fate));
                must.then_some((Defect::BlackHole, text))
            }
        }
    }

    /// By path, where the route leads to a policy of several; one at least.
    fn fates(&self, node: usize, set: SliceSet, destination: IpAddr) -> Vec<Fate> {
        let Some(route) = self.nodes[node].route(set, destination) else {
            let end = FateEnd::NoRoute;
            return vec![Fate { slice: None, route: None, at: node, hooks: Vec::new(), end }];
        };
        let sent = match route.action {
            RouteAction::Policy(policy) => self.sent(node, policy, None),
            RouteAction::Local => {
                vec![Sent { at: node, hooks: Vec::new(), end: End::Decapsulated }]
            }
        };
        sent.into_iter().map(|sent| self.fate(route, sent, destination)).collect()
    }

    fn fate(&self, route: &SliceRouteEntry, sent: Sent, destination: IpAddr) -> Fate {
        let Sent { at, hooks, end } = sent;
        let end = match end {
            End::Decapsulated => FateEnd::NoDelivery,
            End::Unknown => FateEnd::Unknown,
            End::Loop => FateEnd::Loop,
            End::Lost(why) => FateEnd::Lost(why),
        };
        let mut fate = Fate { slice: Some(route.slice), route: Some(route.prefix), at, hooks, end };
        if !matches!(fate.end, FateEnd::NoDelivery) {
            return fate;
        }
        let egress = &self.nodes[fate.at];
        fate.end = match egress.delivery(route.slice, destination) {
            _ if !egress.known() => FateEnd::Unknown,
            None => FateEnd::NoDelivery,
            Some(entry) if egress.ports.get(&entry.port) != Some(&PortKind::Access) => {
                FateEnd::NotAccess(entry.port)
            }
            Some(DeliveryEntry { port, mac, tunnel, .. }) => {
                FateEnd::Delivered { port: *port, mac: *mac, tunnel: tunnel.as_deref().copied() }
            }
        };
        fate
    }

    fn hooks_missed<'a>(
        &'a self,
        id: SliceId,
        slice: &'a Slice,
        met: &[(usize, HookId)],
    ) -> Option<(Defect, Box<dyn Fn() -> String + 'a>)> {
        if slice.hooks.is_empty() && met.is_empty() {
            return None;
        }
        let seen: Vec<String> = met.iter().map(|at| self.hook_name(id, *at)).collect();
        let mut rest = seen.as_slice();
        let all = slice.hooks.iter().all(|(wanted, may_be_missed)| match rest {
            [next, after @ ..] if next == wanted => {
                rest = after;
                true
            }
            _ => *may_be_missed,
        });
        if all && rest.is_empty() {
            return None;
        }
        let text = move || {
            let list = |names: Vec<&str>| match names.as_slice() {
                [] => String::from("no hook"),
                names => names.join(", "),
            };
            let seen = list(seen.iter().map(String::as_str).collect());
            let wanted = list(slice.hooks.iter().map(|(name, _)| name.as_str()).collect());
            format!("it goes through {seen}, not {wanted}")
        };
        Some((Defect::HookMissed, Box::new(text)))
    }

    fn hook_name(&self, slice: SliceId, at: (usize, HookId)) -> String {
        match self.world.hooks.get(&at) {
            Some(hook) if hook.slice == slice => hook.name.clone(),
            Some(hook) => format!("{} of {}", hook.name, self.slice_name(hook.slice)),
            None => format!("unknown function {}", at.1.0),
        }
    }

    fn slice_name(&self, id: SliceId) -> String {
        match self.world.slices.get(&id) {
            Some(slice) => format!("slice {}", slice.name),
            None => format!("slice number {}, which nobody has", id.0),
        }
    }

    /// Whether packets of one endpoint for another were lost, or did wrong, in this state.
    pub(super) fn was_wrong(&self, from: u32, to: u32) -> Option<Defect> {
        let endpoint = self.world.endpoint(from)?;
        let here = &self.nodes[endpoint.node];
        if let Some(defect) = self.source(from, None) {
            return Some(defect);
        }
        let bound = [false, true]
            .into_iter()
            .filter_map(|ipv6| here.bound(endpoint, endpoint.address(ipv6)?));
        bound
            .into_iter()
            .find_map(|set| self.pair((endpoint.node, set), &endpoint.member, &[from], to, None))
    }

    // Words.

    fn subject(
        &self,
        source: IpAddr,
        destination: IpAddr,
        (from, to): (u32, u32),
        slice: &str,
    ) -> String {
        let (from, to) = (self.world.host(from), self.world.host(to));
        format!("{source} -> {destination} ({from} -> {to}) in {slice}")
    }

    /// The switches that a packet on one of the paths is at, in order.
    fn nodes_of(&self, node: usize, set: SliceSet, destination: IpAddr, path: usize) -> Vec<usize> {
        let mut nodes = vec![node];
        let action = self.nodes[node].route(set, destination).map(|route| route.action);
        if let Some(RouteAction::Policy(policy)) = action {
            let mut sent_from = Vec::new();
            let mut crossed = |of, node, _| sent_from.extend((of == path).then_some(node));
            let mut sent = self.sent(node, policy, Some(&mut crossed));
            let sent = sent.swap_remove(path);
            nodes.extend(sent_from.into_iter().skip(1));
            if nodes.last() != Some(&sent.at) {
                nodes.push(sent.at);
            }
            if let End::Lost(Why::NoWay(sid)) = sent.end {
                nodes.extend(self.refuses(sid, sent.at));
            }
        }
        nodes
    }

    /// The switch that a packet is sent to and that does not take it, at its end.
    fn refuses(&self, sid: u16, at: usize) -> Option<usize> {
        let (port, mac) = self.classes.get(usize::from(sid))?.hop[at]?;
        let wire = self.world.wires.get(&(at, port)).filter(|wire| wire.mac == mac)?;
        self.nodes[at].ports.contains_key(&port).then_some(wire.node)
    }

    fn why(&self, fate: &Fate) -> String {
        let slice = fate.slice.map_or_else(|| "no slice".into(), |id| self.slice_name(id));
        let name = self.world.name(fate.at);
        match &fate.end {
            FateEnd::NoRoute => format!("{name} has no route to it in its slices"),
            FateEnd::NoDelivery => format!("no delivery for it in {slice} at {name}"),
            FateEnd::NotAccess(port) => format!("delivery to port {}, no access port", port.0),
            FateEnd::Lost(why) => match why {
                Why::NoPolicy(policy) => format!("there is no policy {}", policy.0),
                Why::TooManyIds(policy) => format!("policy {} has more ids than fit", policy.0),
                Why::UnknownId(id) => {
                    format!("id {id:#06x} ({}) is not known there", function_name(*id))
                }
                Why::NoWay(id) => format!(
                    "no next hop over a usable link leads all the way to node {id}; a link may \
                     be down, or have another MAC address or kind of port at its far end"
                ),
                Why::TooManyLocal => {
                    String::from("more local ids follow each other than one switch handles")
                }
                Why::HopLimit => String::from("it crosses more links than its hop limit allows"),
            },
            FateEnd::Delivered { .. } | FateEnd::Unknown | FateEnd::Loop => String::new(),
        }
    }
}
