//! PDU sessions of UEs behind gNBs (3GPP TS 23.501 §5.6), as far as N3 needs them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use selvedge_topology::NodeName;

use crate::class::Class;
use crate::{ClassMap, ObjectName, class_map};

/// A UE behind a gNB: what the gNB sends through a tunnel is the UE's, and what is for the UE goes
/// there through another (GTP-U, TS 29.281). The UE's addresses are the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PduSession {
    pub name: ObjectName,
    /// A host of the topology, without a link.
    pub ue: NodeName,
    /// One that names the UE.
    pub slice: ObjectName,
    /// A host of the topology, at an access port of a switch.
    pub gnb: NodeName,
    /// Where the gNB sends to: an address of every switch, of the version that tunnels have.
    pub n3: IpAddr,
    /// That the network gives, and the gNB sends with; not 0.
    pub uplink_teid: u32,
    /// That the gNB gives; not 0.
    pub downlink_teid: u32,
    /// 5QI by QFI, `0..=63`; at least one.
    pub flows: BTreeMap<u8, u8>,
    /// Bytes of IP between switch and gNB.
    pub mtu: u16,
}

impl PduSession {
    /// What Ethernet carries.
    pub const DEFAULT_MTU: u16 = 1500;

    /// The flow that packets to the UE go in: the first of the slice's class, else the first.
    pub fn downlink_qfi(&self, class: Class, map: Option<&ClassMap>) -> u8 {
        let is_of_class = |five_qi: &u8| class_map::of_five_qi(map, *five_qi) == Some(class);
        let of_class = self.flows.iter().find(|(_, five_qi)| is_of_class(five_qi));
        let first = || self.flows.first_key_value();
        of_class.or_else(first).map_or(0, |(qfi, _)| *qfi)
    }

    /// Bit `n` is QFI `n`.
    pub fn qfis(&self) -> u64 {
        self.flows.keys().fold(0, |mask, qfi| mask | 1 << (qfi & 63))
    }
}
