//! PDU sessions, found by name, by UE and by gNB; and what N3 makes of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use selvedge_pipeline::Tunnel;
use selvedge_slices::{ObjectName, PduSession, Side, class_map};
use selvedge_topology::sorted::Sorted;
use selvedge_topology::{NodeName, Topology};

use super::{Intent, Stored};
use crate::refusal::{Refusal, SessionFault};

/// Addresses of N3, of all sessions together: as many as a switch has.
pub(crate) const MAX_N3: usize = 4;

/// Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sessions {
    by_name: Sorted<ObjectName, Arc<Stored<PduSession>>>,
    /// As long as `by_name`, unless a UE or a TEID is in two sessions.
    by_ue: Sorted<NodeName, ObjectName>,
    by_teid: Sorted<u32, ObjectName>,
    by_gnb: Sorted<(NodeName, NodeName), ()>,
}

/// How a UE is reached behind its gNB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct N3Way {
    /// Towards the UE.
    pub(crate) tunnel: Tunnel,
    /// Of the tunnel from there.
    pub(crate) uplink_teid: u32,
    pub(crate) qfis: u64,
}

impl Sessions {
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Stored<PduSession>>> {
        self.by_name.get(name)
    }

    pub(crate) fn of_ue(&self, ue: &NodeName) -> Option<&PduSession> {
        Some(&self.by_name.get(self.by_ue.get(ue)?)?.object)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<Stored<PduSession>>> {
        self.by_name.values()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &ObjectName> {
        self.by_name.keys()
    }

    /// Names with what is another in `later`: before and after.
    pub(crate) fn differences<'a>(
        &'a self,
        later: &'a Self,
        each: impl FnMut(
            &'a ObjectName,
            Option<&'a Arc<Stored<PduSession>>>,
            Option<&'a Arc<Stored<PduSession>>>,
        ),
    ) {
        self.by_name.differences(&later.by_name, each);
    }

    /// Unless it is there just so.
    pub(crate) fn put(&mut self, stored: Stored<PduSession>) -> bool {
        let name = stored.object.name.clone();
        if self.by_name.get(&name).is_some_and(|old| old.object == stored.object) {
            return false;
        }
        self.remove(&name);
        let PduSession { ue, gnb, uplink_teid, .. } = &stored.object;
        self.by_ue.insert(ue.clone(), name.clone());
        self.by_teid.insert(*uplink_teid, name.clone());
        self.by_gnb.insert((gnb.clone(), ue.clone()), ());
        self.by_name.insert(name, Arc::new(stored));
        true
    }

    pub(crate) fn remove(&mut self, name: &ObjectName) -> bool {
        let Some(old) = self.by_name.remove(name) else { return false };
        let PduSession { ue, gnb, uplink_teid, .. } = &old.object;
        if self.by_ue.get(ue) == Some(name) {
            self.by_ue.remove(ue);
        }
        if self.by_teid.get(uplink_teid) == Some(name) {
            self.by_teid.remove(uplink_teid);
        }
        self.by_gnb.remove(&(gnb.clone(), ue.clone()));
        true
    }

    /// UEs whose sessions go through a host.
    fn behind<'a>(&'a self, gnb: &NodeName) -> impl Iterator<Item = &'a NodeName> {
        let from_there = self.by_gnb.from(&(gnb.clone(), first_name())).map(|(key, ())| key);
        from_there.take_while(move |key| key.0 == *gnb).map(|key| &key.1)
    }

    /// Where gNBs send to.
    pub(crate) fn n3(&self) -> BTreeSet<IpAddr> {
        self.values().map(|stored| stored.object.n3).collect()
    }

    /// The first of two sessions that have something that only one can have.
    fn twins(&self) -> Option<(&ObjectName, SessionFault)> {
        let n = self.by_name.len();
        if self.by_ue.len() == n && self.by_teid.len() == n {
            return None;
        }
        self.values().find_map(|stored| {
            let PduSession { name, ue, uplink_teid, .. } = &stored.object;
            let ue_of = self.by_ue.get(ue).filter(|other| *other != name);
            let teid_of = self.by_teid.get(uplink_teid).filter(|other| *other != name);
            let fault = match (ue_of, teid_of) {
                (Some(other), _) => {
                    SessionFault::SecondOfUe { ue: ue.clone(), other: other.clone() }
                }
                (None, Some(other)) => {
                    SessionFault::SameTeid { teid: *uplink_teid, other: other.clone() }
                }
                (None, None) => return None,
            };
            Some((name, fault))
        })
    }
}

impl Intent {
    /// UEs of which N3 may make something else in a later intent, or when `hosts` are elsewhere.
    pub(crate) fn ues_since<'a>(
        &'a self,
        later: &'a Self,
        hosts: &BTreeSet<&NodeName>,
    ) -> BTreeSet<&'a NodeName> {
        let mut ues = BTreeSet::new();
        self.sessions.differences(&later.sessions, |_, old, new| {
            ues.extend([old, new].into_iter().flatten().map(|stored| &stored.object.ue));
        });
        if later.sessions.by_name.is_empty() {
            return ues;
        }
        if self.class_map() != later.class_map() {
            ues.extend(later.sessions.by_ue.keys());
        }
        // The class decides the flow.
        for (_, _, new) in self.slices.since(&later.slices) {
            let endpoints = new.into_iter().flat_map(|stored| &stored.object.endpoints);
            let known = endpoints.filter_map(|endpoint| later.sessions.of_ue(&endpoint.name));
            ues.extend(known.map(|session| &session.ue));
        }
        for host in hosts {
            ues.extend(later.sessions.behind(host));
        }
        ues
    }

    /// What N3 makes of a session. `None`: the gNB is no host with an address of that version.
    pub(crate) fn n3_way(&self, session: &PduSession, topology: &Topology) -> Option<N3Way> {
        let gnb = topology.nodes.get(&session.gnb)?.as_host()?;
        let gnb = match session.n3 {
            IpAddr::V4(_) => IpAddr::V4(gnb.ipv4?.addr()),
            IpAddr::V6(_) => IpAddr::V6(gnb.ipv6?.addr()),
        };
        let class = self.slices.get(&session.slice).map(|stored| stored.object.class);
        let class = class.unwrap_or(selvedge_slices::Class::BestEffort);
        Some(N3Way {
            tunnel: Tunnel {
                local: session.n3,
                gnb,
                teid: session.downlink_teid,
                qfi: session.downlink_qfi(class, self.class_map()),
                mtu: session.mtu,
            },
            uplink_teid: session.uplink_teid,
            qfis: session.qfis(),
        })
    }

    /// Sessions that are not as they were have what they name.
    pub(super) fn check_sessions(&self, before: &Self, topology: &Topology) -> Result<(), Refusal> {
        let refuse =
            |session: &ObjectName, fault| Err(Refusal::Session { session: session.clone(), fault });
        if let Some((name, fault)) = self.sessions.twins() {
            return refuse(name, fault);
        }
        let n3 = self.sessions.n3();
        let mut wrong = None;
        before.sessions.differences(&self.sessions, |name, _, new| {
            let Some(stored) = new.filter(|_| wrong.is_none()) else { return };
            let fault = match self.fault(&stored.object, topology) {
                None if n3.len() > MAX_N3 => SessionFault::TooManyAddresses { limit: MAX_N3 },
                None => return,
                Some(fault) => fault,
            };
            wrong = Some((name, fault));
        });
        match wrong {
            Some((name, fault)) => refuse(name, fault),
            None => Ok(()),
        }
    }

    fn fault(&self, session: &PduSession, topology: &Topology) -> Option<SessionFault> {
        let PduSession { ue, gnb, slice, n3, .. } = session;
        let host = |name: &NodeName| topology.nodes.get(name).and_then(|node| node.as_host());
        let Some(of_ue) = host(ue) else {
            return Some(SessionFault::UnknownHost { host: ue.clone() });
        };
        let Some(of_gnb) = host(gnb) else {
            return Some(SessionFault::UnknownHost { host: gnb.clone() });
        };
        if let Some((_, _, at)) = topology.attachment(ue) {
            return Some(SessionFault::UeIsLinked { ue: ue.clone(), at: at.to_string() });
        }
        if self.sessions.of_ue(gnb).is_some() {
            return Some(SessionFault::GnbIsUe { gnb: gnb.clone() });
        }
        let whole = of_ue.ipv4.is_none_or(|net| net.prefix_len() == 32);
        if !whole || (of_ue.ipv4.is_none() && of_ue.ipv6.is_none()) {
            return Some(SessionFault::UeAddress { ue: ue.clone() });
        }
        let (v4, v6) = (of_gnb.ipv4.is_some(), of_gnb.ipv6.is_some());
        if !if n3.is_ipv4() { v4 } else { v6 } {
            return Some(SessionFault::GnbWithoutAddress { gnb: gnb.clone(), n3: *n3 });
        }
        let owned = topology.hosts().find(|(_, host)| {
            let nets = [host.ipv4.map(Into::into), host.ipv6.map(Into::into)];
            nets.into_iter().flatten().any(|net: ipnet::IpNet| net.contains(n3))
        });
        if let Some((owner, _)) = owned {
            return Some(SessionFault::N3IsHost { n3: *n3, host: owner.clone() });
        }
        let names_it = self
            .slices
            .get(slice)
            .is_some_and(|stored| stored.object.endpoints_on(Side::Ue).any(|name| name == ue));
        if !names_it {
            return Some(SessionFault::NotInSlice { ue: ue.clone(), slice: slice.clone() });
        }
        let map = self.class_map();
        let unknown = |five_qi: &&u8| class_map::of_five_qi(map, **five_qi).is_none();
        let number = session.flows.values().find(unknown)?;
        Some(SessionFault::UnknownFiveQi { number: *number })
    }
}

/// Before every name.
fn first_name() -> NodeName {
    "0".parse().expect("a name")
}
