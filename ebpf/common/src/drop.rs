//! Why a packet was dropped. Index into the `DROPS` map; numbers are part of the layout.

pub const MALFORMED: u8 = 0;
pub const PORT_DISABLED: u8 = 1;
pub const UNSUPPORTED: u8 = 2;
pub const SPOOFED_SOURCE: u8 = 3;
pub const SRV6_FROM_ACCESS: u8 = 4;
pub const NO_ROUTE: u8 = 5;
pub const CLASSIFIER_DROP: u8 = 6;
pub const OVER_MAXIMUM: u8 = 7;
pub const NO_POLICY: u8 = 8;
pub const HOP_LIMIT: u8 = 9;
pub const UNKNOWN_SID: u8 = 10;
pub const NO_NEXT_HOP: u8 = 11;
pub const NO_DELIVERY: u8 = 12;
pub const QUEUE_FULL: u8 = 13;
pub const HOOK_DOWN: u8 = 14;
pub const TOO_BIG: u8 = 15;
pub const FOREIGN_SOURCE: u8 = 16;
/// The egress port has no interface, or is down and there is no way around it.
pub const PORT_DOWN: u8 = 17;
/// The way around a port that is down takes more ids than the packet has room for.
pub const NO_REPAIR_ROOM: u8 = 18;

pub const GTP_MALFORMED: u8 = 19;
pub const GTP_UNEXPECTED: u8 = 20;
pub const UNKNOWN_TEID: u8 = 21;
pub const QFI_NOT_ALLOWED: u8 = 22;
pub const GTP_IN_GTP: u8 = 23;
pub const CORE_ADDRESS: u8 = 24;
pub const END_MARKER: u8 = 25;
pub const ERROR_INDICATION: u8 = 26;
/// Given to the egress port, whose device did not send it.
pub const TRANSMIT_ERROR: u8 = 27;
/// Beyond its endpoint's own maximum rate.
pub const OVER_ENDPOINT_MAXIMUM: u8 = 28;
/// What hosts of the port ask the agent, beyond `HOST_REQUESTS_PER_SECOND`.
pub const TOO_MANY_REQUESTS: u8 = 29;

/// Number of reasons.
pub const REASONS: usize = 30;

/// Names by number, as metrics and traces print them.
pub const NAMES: [&str; REASONS] = [
    "malformed",
    "port_disabled",
    "unsupported",
    "spoofed_source",
    "srv6_from_access",
    "no_route",
    "classifier_drop",
    "over_maximum",
    "no_policy",
    "hop_limit",
    "unknown_sid",
    "no_next_hop",
    "no_delivery",
    "queue_full",
    "hook_down",
    "too_big",
    "foreign_source",
    "port_down",
    "no_repair_room",
    "gtp_malformed",
    "gtp_unexpected",
    "unknown_teid",
    "qfi_not_allowed",
    "gtp_in_gtp",
    "core_address",
    "end_marker",
    "error_indication",
    "transmit_error",
    "over_endpoint_maximum",
    "too_many_requests",
];
