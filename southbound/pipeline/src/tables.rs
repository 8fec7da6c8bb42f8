//! The tables of a Selvedge switch: the one definition that P4Info is made from and that
//! entries are coded by.
//!
//! Ids are P4Runtime's: the high byte says what is named (§6.3), the rest counts from 1 in
//! the order of [`TableKind`]. Field and parameter ids count from 1 in the order given.
//!
//! How our types look as P4 values:
//! - An IP prefix is `bit<128>`; IPv4 is mapped into `::ffff:0:0/96` (RFC 4291 §2.5.5.2), so
//!   `10.1.0.0/16` is `::ffff:10.1.0.0/112`. It is one key space: an IPv6 prefix short enough
//!   to cover the mapped block (`::/0` to `::/80`) matches IPv4 too.
//! - A path's segments are `sid1`..`sid6`, 0 behind the last. A policy's paths are the actions of
//!   one action set ([`PATHS`]).
//! - An enum is a number, named at its parameter.

/// A table, in the order in which a packet meets them; those from `Backup` on came later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableKind {
    Port,
    Endpoint,
    Classifier,
    SliceRoute,
    SliceMeter,
    Policy,
    LocalSid,
    NextHop,
    Delivery,
    PortQueue,
    Generation,
    Backup,
    N3Address,
    GtpSession,
    EndpointMeter,
}

impl TableKind {
    pub const ALL: [Self; 15] = [
        Self::Port,
        Self::Endpoint,
        Self::Classifier,
        Self::SliceRoute,
        Self::SliceMeter,
        Self::Policy,
        Self::LocalSid,
        Self::NextHop,
        Self::Delivery,
        Self::PortQueue,
        Self::Generation,
        Self::Backup,
        Self::N3Address,
        Self::GtpSession,
        Self::EndpointMeter,
    ];

    pub const fn table(self) -> &'static Table {
        &TABLES[self as usize]
    }

    pub const fn name(self) -> &'static str {
        self.table().name
    }

    /// The table with this P4Runtime id.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.table().id == id)
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.table().name == name)
    }
}

#[derive(Debug)]
pub struct Table {
    pub id: u32,
    pub name: &'static str,
    pub doc: &'static str,
    pub fields: &'static [Field],
    pub actions: &'static [Action],
    /// Entries a switch holds at least, and the controller puts there at most.
    pub size: u32,
}

impl Table {
    /// Whether entries have a priority (P4Runtime §9.1: where a key may match several).
    pub fn has_priority(&self) -> bool {
        let may_overlap = |field: &Field| {
            matches!(field.kind, MatchKind::Ternary | MatchKind::Range | MatchKind::Optional)
        };
        self.fields.iter().any(may_overlap)
    }

    /// That its entries' actions are chosen by; `None`: each has one action.
    pub fn selector(&self) -> Option<&'static Selector> {
        Some(&PATHS).filter(|selector| selector.table.table().id == self.id)
    }
}

/// An action selector that is programmed in one shot (P4Runtime §9.2.3).
#[derive(Debug)]
pub struct Selector {
    pub id: u32,
    pub name: &'static str,
    pub doc: &'static str,
    pub table: TableKind,
    /// Actions of one entry.
    pub max_group_size: u32,
    /// Of one action.
    pub max_weight: u32,
}

/// Chooses a policy's path.
pub const PATHS: Selector = Selector {
    id: ACTION_PROFILE | 1,
    name: "paths",
    doc: "By the flow label of the outer header, a hash of the user's flow.",
    table: TableKind::Policy,
    max_group_size: crate::paths::MAX_PATHS as u32,
    max_weight: crate::paths::MAX_WEIGHT as u32,
};

#[derive(Debug)]
pub struct Field {
    pub id: u32,
    pub name: &'static str,
    pub kind: MatchKind,
    /// Bits, at most 128.
    pub width: u32,
    pub doc: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchKind {
    Exact,
    Lpm,
    Ternary,
    Range,
    Optional,
}

impl MatchKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Lpm => "lpm",
            Self::Ternary => "ternary",
            Self::Range => "range",
            Self::Optional => "optional",
        }
    }
}

#[derive(Debug)]
pub struct Action {
    pub id: u32,
    pub name: &'static str,
    pub params: &'static [Param],
    pub doc: &'static str,
}

#[derive(Debug)]
pub struct Param {
    pub id: u32,
    pub name: &'static str,
    /// Bits, at most 128.
    pub width: u32,
    pub doc: &'static str,
}

/// An indexed counter.
#[derive(Debug)]
pub struct Counter {
    pub id: u32,
    pub name: &'static str,
    pub doc: &'static str,
    pub unit: CounterUnit,
    /// Cells; the index is below it.
    pub size: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterUnit {
    Packets,
    PacketsAndBytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CounterKind {
    PortRx,
    PortTx,
    Drops,
    SliceIn,
    SliceDropped,
    Hook,
    SliceDelivered,
    PortTxErrors,
}

impl CounterKind {
    pub const ALL: [Self; 8] = [
        Self::PortRx,
        Self::PortTx,
        Self::Drops,
        Self::SliceIn,
        Self::SliceDropped,
        Self::Hook,
        Self::SliceDelivered,
        Self::PortTxErrors,
    ];

    pub const fn counter(self) -> &'static Counter {
        &COUNTERS[self as usize]
    }

    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.counter().id == id)
    }
}

/// What goes with a packet between a client and the switch (P4Runtime §16.1).
#[derive(Debug)]
pub struct PacketHeader {
    pub id: u32,
    pub name: &'static str,
    pub doc: &'static str,
    pub metadata: Param,
}

/// LLDP that came in. A managed switch sends none: it finds its neighbors itself.
pub const PACKET_IN: PacketHeader = PacketHeader {
    id: CONTROLLER_HEADER | 1,
    name: "packet_in",
    doc: "An LLDP frame (EtherType 0x88cc) that came in on a port with an entry, to each primary \
          client of an unmanaged switch. What comes too fast for its client is dropped.",
    metadata: param(1, "ingress_port", 8, PORT),
};

/// A whole Ethernet frame that is sent as it is.
pub const PACKET_OUT: PacketHeader = PacketHeader {
    id: CONTROLLER_HEADER | 2,
    name: "packet_out",
    doc: "A whole Ethernet frame, sent on a port as it is: past the tables and the counters.",
    metadata: param(1, "egress_port", 8, PORT),
};

/// Index of the `slice_in`, `slice_dropped` and `slice_delivered` counters: `slice * 2 + direction`.
pub const fn slice_counter_index(slice: crate::SliceId, direction: crate::Direction) -> u32 {
    slice.0 as u32 * 2 + direction as u32
}

/// What is counted by slice and direction has so many cells; the first two are nobody's.
const SLICE_CELLS: u32 = slice_counter_index(crate::SliceId::MAX, crate::Direction::Uplink) + 1;

const TABLE: u32 = 0x02 << 24;
const ACTION: u32 = 0x01 << 24;
const ACTION_PROFILE: u32 = 0x11 << 24;
const COUNTER: u32 = 0x12 << 24;
const CONTROLLER_HEADER: u32 = 0x81 << 24;

const fn exact(id: u32, name: &'static str, width: u32, doc: &'static str) -> Field {
    Field { id, name, kind: MatchKind::Exact, width, doc }
}
const fn lpm(id: u32, name: &'static str, doc: &'static str) -> Field {
    Field { id, name, kind: MatchKind::Lpm, width: 128, doc }
}
const fn ternary(id: u32, name: &'static str, doc: &'static str) -> Field {
    Field { id, name, kind: MatchKind::Ternary, width: 128, doc }
}
const fn range(id: u32, name: &'static str, width: u32, doc: &'static str) -> Field {
    Field { id, name, kind: MatchKind::Range, width, doc }
}
const fn optional(id: u32, name: &'static str, width: u32, doc: &'static str) -> Field {
    Field { id, name, kind: MatchKind::Optional, width, doc }
}
const fn action(
    id: u32,
    name: &'static str,
    params: &'static [Param],
    doc: &'static str,
) -> Action {
    Action { id: ACTION | id, name, params, doc }
}
const fn param(id: u32, name: &'static str, width: u32, doc: &'static str) -> Param {
    Param { id, name, width, doc }
}

/// Of the tables matched by prefix; whole addresses do not take from the prefixes' room.
const PREFIX_ROWS: u32 = 131_072;

const PORT: &str = "1..=255";
const SLICE: &str = "1..=16383";
const SET: &str = "1..=16383: the slice of that id; 16384..: a set of slices";
const DIRECTION: &str = "0 downlink, 1 uplink";
const PREFIX: &str = "IPv4 as ::ffff:a.b.c.d, prefix length + 96";
const ENDPOINT: &str = "by which endpoint_meter knows it; 0: it has no rates of its own";
const TAG: &str = "1..=65535";
const ADDRESS: &str = "IPv4 as ::ffff:a.b.c.d";

const SESSION: [Param; 9] = [
    param(1, "port", 8, PORT),
    param(2, "gnb", 128, ADDRESS),
    param(3, "ue_ipv4", 32, "0: none"),
    param(4, "ue_ipv6", 128, "a prefix"),
    param(5, "ue_ipv6_len", 8, "its length in bits, at most 128; 0: none"),
    param(6, "slice_set", 16, SET),
    param(7, "direction", 1, DIRECTION),
    param(8, "qfis", 64, "bit n: QFI n may be used; 0: any, and none"),
    param(9, "endpoint", 16, ENDPOINT),
];
const TAGGED_SESSION: [Param; 10] = {
    let [port, gnb, ipv4, ipv6, ipv6_len, slice_set, direction, qfis, endpoint] = SESSION;
    let tag = param(10, "tag", 16, TAG);
    [port, gnb, ipv4, ipv6, ipv6_len, slice_set, direction, qfis, endpoint, tag]
};

static TABLES: [Table; 15] = [
    Table {
        id: TABLE | 1,
        name: "port",
        doc: "What a port is for. A port without an entry drops everything.",
        fields: &[exact(1, "port", 8, PORT)],
        actions: &[
            action(1, "access", &[], "towards endpoints: bare IP, sources checked"),
            action(2, "fabric", &[], "towards other switches: SRv6 only"),
        ],
        size: 255,
    },
    Table {
        id: TABLE | 2,
        name: "endpoint",
        doc: "Who may send from a port, and in which slices.",
        fields: &[exact(1, "port", 8, PORT), lpm(2, "prefix", PREFIX)],
        actions: &[
            action(
                3,
                "bind",
                &[
                    param(1, "slice_set", 16, SET),
                    param(2, "direction", 1, DIRECTION),
                    param(3, "endpoint", 16, ENDPOINT),
                ],
                "packets from this source belong to these slices",
            ),
            action(
                26,
                "bind_tagged",
                &[
                    param(1, "slice_set", 16, SET),
                    param(2, "direction", 1, DIRECTION),
                    param(3, "endpoint", 16, ENDPOINT),
                    param(4, "tag", 16, TAG),
                ],
                "and rules know their sender by this tag",
            ),
        ],
        size: PREFIX_ROWS,
    },
    Table {
        id: TABLE | 3,
        name: "classifier",
        doc: "Application traffic rules; one rule a priority, the highest that matches decides.",
        fields: &[
            ternary(1, "source", "as a prefix: the mask's ones lead"),
            ternary(2, "destination", "as a prefix: the mask's ones lead"),
            optional(3, "protocol", 8, "IP protocol number"),
            range(4, "source_port", 16, "TCP, UDP, SCTP"),
            range(5, "destination_port", 16, "TCP, UDP, SCTP"),
            optional(6, "dscp", 6, "of the user's packet"),
            optional(7, "slice_set", 16, "that the sender is bound to"),
            optional(8, "endpoint_tag", 16, "of the sender, 1..=65535"),
            optional(9, "tunnel_id", 32, "TEID of the tunnel that it comes in; not 0"),
        ],
        actions: &[
            action(4, "drop", &[], "end here"),
            action(5, "pass", &[], "route in the endpoint's own slices"),
            action(6, "set_slice", &[param(1, "slice", 14, SLICE)], "route in this slice"),
            action(
                22,
                "mark",
                &[param(1, "dscp", 6, "0..=63")],
                "give the user's packet this DSCP, and route in the endpoint's own slices",
            ),
            action(
                23,
                "steer",
                &[param(1, "policy", 16, "1..=65535")],
                "route in the endpoint's own slices, by this policy in place of the route's",
            ),
        ],
        size: 1024,
    },
    Table {
        id: TABLE | 4,
        name: "slice_route",
        doc: "Where a destination is, by slice.",
        fields: &[exact(1, "slice_set", 16, SET), lpm(2, "prefix", PREFIX)],
        actions: &[
            action(
                7,
                "local",
                &[param(1, "slice", 14, SLICE), param(2, "endpoint", 16, ENDPOINT)],
                "on this switch: deliver",
            ),
            action(
                8,
                "to_policy",
                &[
                    param(1, "slice", 14, SLICE),
                    param(2, "policy", 16, "1..=65535"),
                    param(3, "endpoint", 16, ENDPOINT),
                ],
                "encapsulate",
            ),
        ],
        size: PREFIX_ROWS,
    },
    Table {
        id: TABLE | 5,
        name: "slice_meter",
        doc: "A slice's rates in one direction, in the user's IP bytes.",
        fields: &[exact(1, "slice", 14, SLICE), exact(2, "direction", 1, DIRECTION)],
        actions: &[action(
            9,
            "meter",
            &[
                param(1, "class", 2, "0 best effort, 1 guaranteed, 2 urllc"),
                param(2, "guaranteed_bps", 64, "bit/s; 0: everything is excess"),
                param(3, "guaranteed_burst_bytes", 32, "bytes"),
                param(4, "maximum_bps", 64, "bit/s; 0: no maximum"),
                param(5, "maximum_burst_bytes", 32, "bytes"),
            ],
            "within guaranteed: in profile; within maximum: excess; beyond: dropped",
        )],
        size: SLICE_CELLS - 2,
    },
    Table {
        id: TABLE | 6,
        name: "policy",
        doc: "Paths, each the segments that an encapsulated packet travels.",
        fields: &[exact(1, "policy", 16, "1..=65535")],
        actions: &[action(
            10,
            "segments",
            &[
                param(1, "sid1", 16, "first 16-bit id after the block 5f00:0::/32"),
                param(2, "sid2", 16, "0: none"),
                param(3, "sid3", 16, "0: none"),
                param(4, "sid4", 16, "0: none"),
                param(5, "sid5", 16, "0: none"),
                param(6, "sid6", 16, "0: none"),
            ],
            "in travelling order; the last two are the egress node and its function",
        )],
        size: 65_535,
    },
    Table {
        id: TABLE | 7,
        name: "local_sid",
        doc: "What this switch does when the active 16-bit id is its own.",
        fields: &[exact(1, "sid", 16, "1..=65535")],
        actions: &[
            action(11, "node", &[], "uN: this switch; shift and go on. One per switch"),
            action(12, "decapsulate", &[], "uDT46: deliver in the slice the outer source names"),
            action(
                13,
                "compute",
                &[param(1, "hook", 8, "0..=255"), param(2, "on_failure", 1, "0 bypass, 1 drop")],
                "uCompute: hand to the hook's compute port",
            ),
        ],
        size: 1_024,
    },
    Table {
        id: TABLE | 8,
        name: "next_hop",
        doc: "The way to another node.",
        fields: &[exact(1, "node", 12, "1..=4095")],
        actions: &[action(
            14,
            "forward",
            &[
                param(1, "port", 8, PORT),
                param(2, "mac", 48, "of the neighbor's port"),
                param(3, "backup", 7, "of that port, for while it is down; 0: none"),
            ],
            "out of this port",
        )],
        size: 4_095,
    },
    Table {
        id: TABLE | 9,
        name: "delivery",
        doc: "The last step: an endpoint on one of our ports.",
        fields: &[exact(1, "slice", 14, SLICE), lpm(2, "prefix", PREFIX)],
        actions: &[
            action(
                15,
                "deliver",
                &[param(1, "port", 8, PORT), param(2, "mac", 48, "of the endpoint")],
                "out of this port",
            ),
            action(
                19,
                "deliver_gtp",
                &[
                    param(1, "port", 8, PORT),
                    param(2, "mac", 48, "of the gNB, or of the router towards it"),
                    param(3, "local", 128, ADDRESS),
                    param(4, "gnb", 128, ADDRESS),
                    param(5, "teid", 32, "that the gNB has given; not 0"),
                    param(6, "qfi", 6, "QoS flow identifier"),
                    param(7, "mtu", 16, "bytes of IP, the tunnel's headers included; 68 at least"),
                ],
                "out of this port, in GTP-U",
            ),
        ],
        size: PREFIX_ROWS,
    },
    Table {
        id: TABLE | 10,
        name: "port_queue",
        doc: "The virtual queue of an egress port. Without an entry the port is not limited.",
        fields: &[exact(1, "port", 8, PORT)],
        actions: &[
            action(
                16,
                "limit",
                &[
                    param(1, "rate_bps", 64, "drain rate, bit/s on the wire"),
                    param(2, "best_effort_bytes", 32, "threshold of best-effort excess"),
                    param(3, "guaranteed_bytes", 32, "threshold of guaranteed excess"),
                    param(4, "urllc_bytes", 32, "threshold of urllc excess"),
                ],
                "excess passes while the backlog is below its class's threshold",
            ),
            action(
                25,
                "limit_and_shape",
                &[
                    param(1, "rate_bps", 64, "drain rate, bit/s on the wire"),
                    param(2, "best_effort_bytes", 32, "threshold of best-effort excess"),
                    param(3, "guaranteed_bytes", 32, "threshold of guaranteed excess"),
                    param(4, "urllc_bytes", 32, "threshold of urllc excess"),
                    param(5, "best_effort_bps", 64, "of the class in HTB; 0: not there"),
                    param(6, "guaranteed_bps", 64, "of the class in HTB; 0: not there"),
                    param(7, "urllc_bps", 64, "of the class in HTB; 0: not there"),
                ],
                "classes with a rate are queued by the kernel's HTB; one at least",
            ),
        ],
        size: 255,
    },
    Table {
        id: TABLE | 11,
        name: "generation",
        doc: "One row: the generation of the intent that the entries carry out; written last.",
        fields: &[exact(1, "row", 1, "0")],
        actions: &[action(
            17,
            "set_generation",
            &[param(1, "generation", 64, "any number")],
            "these entries are of this generation",
        )],
        size: 1,
    },
    Table {
        id: TABLE | 12,
        name: "backup",
        doc: "The way around a port while it is down, for the next hops that name it.",
        fields: &[exact(1, "port", 8, PORT), exact(2, "backup", 7, "1..=127")],
        actions: &[action(
            18,
            "repair",
            &[
                param(1, "port", 8, PORT),
                param(2, "mac", 48, "of the neighbor's port"),
                param(3, "sid1", 16, "first 16-bit id put before the packet's own; 0: none"),
                param(4, "sid2", 16, "0: none"),
                param(5, "sid3", 16, "0: none"),
                param(6, "sid4", 16, "0: none"),
            ],
            "out of this port, through these ids",
        )],
        size: 32_385,
    },
    Table {
        id: TABLE | 13,
        name: "n3_address",
        doc: "Addresses of this switch where gNBs' tunnels end, on every access port.",
        fields: &[exact(1, "address", 128, ADDRESS)],
        actions: &[action(
            20,
            "end_tunnels",
            &[],
            "answer ARP and neighbor solicitations, and GTP-U",
        )],
        size: 4,
    },
    Table {
        id: TABLE | 14,
        name: "gtp_session",
        doc: "PDU sessions, by the TEID of their uplink.",
        fields: &[exact(1, "teid", 32, "not 0")],
        actions: &[
            action(
                21,
                "decapsulate_gtp",
                &SESSION,
                "packets in it, of this UE and from this gNB, belong to these slices",
            ),
            action(
                27,
                "decapsulate_gtp_tagged",
                &TAGGED_SESSION,
                "and rules know the UE by this tag",
            ),
        ],
        size: 131_072,
    },
    Table {
        id: TABLE | 15,
        name: "endpoint_meter",
        doc: "An endpoint's own rates within its slice in one direction, in the user's IP bytes. \
              Before slice_meter: uplink by who sends, downlink by whom it is for.",
        fields: &[
            exact(1, "slice", 14, SLICE),
            exact(2, "direction", 1, DIRECTION),
            exact(3, "endpoint", 16, "1..=65535"),
        ],
        actions: &[action(
            24,
            "meter_endpoint",
            &[
                param(1, "guaranteed_bps", 64, "bit/s; 0: the slice's guarantee is shared"),
                param(2, "guaranteed_burst_bytes", 32, "bytes"),
                param(3, "maximum_bps", 64, "bit/s; 0: no maximum"),
                param(4, "maximum_burst_bytes", 32, "bytes"),
            ],
            "within guaranteed: within the slice's; beyond: excess; beyond maximum: dropped",
        )],
        size: 131_072,
    },
];

static COUNTERS: [Counter; 8] = [
    Counter {
        id: COUNTER | 1,
        name: "port_rx",
        doc: "Received, by port; bytes with the Ethernet header.",
        unit: CounterUnit::PacketsAndBytes,
        size: 256,
    },
    Counter {
        id: COUNTER | 2,
        name: "port_tx",
        doc: "Sent, by port; bytes with the Ethernet header.",
        unit: CounterUnit::PacketsAndBytes,
        size: 256,
    },
    Counter {
        id: COUNTER | 3,
        name: "drops",
        doc: "Dropped, by reason: the number of `DropReason`.",
        unit: CounterUnit::Packets,
        size: crate::DropReason::ALL.len() as u32,
    },
    Counter {
        id: COUNTER | 4,
        name: "slice_in",
        doc: "Entered the slice here, by slice * 2 + direction; IP bytes.",
        unit: CounterUnit::PacketsAndBytes,
        size: SLICE_CELLS,
    },
    Counter {
        id: COUNTER | 5,
        name: "slice_dropped",
        doc: "Dropped after the slice was known, by slice * 2 + direction.",
        unit: CounterUnit::PacketsAndBytes,
        size: SLICE_CELLS,
    },
    Counter {
        id: COUNTER | 6,
        name: "hook",
        doc: "Handed to the hook.",
        unit: CounterUnit::PacketsAndBytes,
        size: 256,
    },
    Counter {
        id: COUNTER | 7,
        name: "slice_delivered",
        doc: "Delivered here to an endpoint, by slice * 2 + direction; IP bytes.",
        unit: CounterUnit::PacketsAndBytes,
        size: SLICE_CELLS,
    },
    Counter {
        id: COUNTER | 8,
        name: "port_tx_errors",
        doc: "Given to the port and not sent by its device, by port; bytes with the Ethernet \
              header, but for answers of the switch itself, which have none. Not in port_tx.",
        unit: CounterUnit::PacketsAndBytes,
        size: 256,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Names are what `p4runtime-shell` users type, ids what everybody else sends: both are
    /// unique, and the definitions stand where their kinds point.
    #[test]
    fn names_and_ids_are_unique_and_indexed() {
        let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for (n, kind) in (1u32..).zip(TableKind::ALL) {
            let table = kind.table();
            assert_eq!(table.id, TABLE | n, "{}", table.name);
            assert_eq!(TableKind::from_id(table.id), Some(kind));
            assert_eq!(TableKind::from_name(table.name), Some(kind));
            assert!(names.insert(("table", table.name)), "{}", table.name);
            assert!(!table.actions.is_empty() && !table.fields.is_empty(), "{}", table.name);
            for (n, field) in (1..).zip(table.fields) {
                assert_eq!(field.id, n, "{}.{}", table.name, field.name);
                assert!((1..=128).contains(&field.width), "{}.{}", table.name, field.name);
                let twins = table.fields.iter().filter(|other| other.name == field.name);
                assert_eq!(twins.count(), 1, "{}.{}", table.name, field.name);
            }
            for action in table.actions {
                assert!(names.insert(("action", action.name)), "{}", action.name);
                assert!(ids.insert(action.id), "{}", action.name);
                for (n, param) in (1..).zip(action.params) {
                    assert_eq!(param.id, n, "{}.{}", action.name, param.name);
                    assert!((1..=128).contains(&param.width), "{}.{}", action.name, param.name);
                }
            }
        }
        for (n, kind) in (1u32..).zip(CounterKind::ALL) {
            assert_eq!(kind.counter().id, COUNTER | n);
            assert_eq!(CounterKind::from_id(COUNTER | n), Some(kind));
        }
    }
}
