//! Why a packet ended in the switch. One number per reason, shared by the XDP programs, the
//! counters, the prover and `selvedge trace`.

use std::{fmt, str::FromStr};

/// The value indexes the `drops` counter; it never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// A header is cut off, or its lengths or version contradict the frame.
    Malformed = 0,
    /// The port has no `port` entry.
    PortDisabled = 1,
    /// Something a Selvedge port does not carry: VLAN, foreign ARP, multicast, bare IP on a
    /// fabric port.
    Unsupported = 2,
    /// The source is not bound to the port by `endpoint`, or is not that of the PDU session.
    SpoofedSource = 3,
    /// An access port sent to the SRv6 block (RFC 8754 §5.1).
    Srv6FromAccess = 4,
    /// No `slice_route` for the destination in the sender's slices.
    NoRoute = 5,
    /// A `classifier` rule says so.
    ClassifierDrop = 6,
    /// Beyond the slice's maximum rate.
    OverMaximum = 7,
    /// The route names a policy that is not there.
    NoPolicy = 8,
    /// Time to live or hop limit ran out.
    HopLimit = 9,
    /// The active segment is a function this switch does not have, or segments never end.
    UnknownSid = 10,
    /// The active segment is a node that `next_hop` does not know.
    NoNextHop = 11,
    /// Decapsulated, but the slice has no such endpoint here.
    NoDelivery = 12,
    /// Excess, and the virtual queue of the egress port is over the class's threshold.
    QueueFull = 13,
    /// The hook is down and its slice says `onFailure: drop`.
    HookDown = 14,
    /// The inner packet is larger than the access MTU, 1500 bytes, or than the tunnel to its gNB
    /// carries.
    TooBig = 15,
    /// The outer source is not one that an ingress of ours writes.
    ForeignSource = 16,
    /// The egress port has no interface, or is down and there is no way around it.
    PortDown = 17,
    /// The way around a port that is down takes more ids than the packet has room for.
    NoRepairRoom = 18,
    /// GTP-U whose header is cut off, of another version, has an empty extension header, or
    /// contradicts itself or the datagram.
    GtpMalformed = 19,
    /// GTP-U that asks for nothing that ends here: a response, a message of another interface,
    /// "down" in a PDU session container.
    GtpUnexpected = 20,
    /// No `gtp_session` for the TEID, and the sender has been told of others often enough.
    UnknownTeid = 21,
    /// The PDU session has no QoS flow of this QFI, or the packet names none.
    QfiNotAllowed = 22,
    /// A UE sent GTP-U.
    GtpInGtp = 23,
    /// Something other than GTP-U to an `n3_address`, or anything from a UE; fragments are.
    CoreAddress = 24,
    /// An end marker: nothing is in it.
    EndMarker = 25,
    /// A gNB does not know a tunnel that we send into.
    ErrorIndication = 26,
    /// Given to the egress port, whose device did not send it: its ring or queue was full, or it
    /// was taken down.
    TransmitError = 27,
    /// Beyond its endpoint's own maximum rate.
    OverEndpointMaximum = 28,
    /// More router solicitations and DHCP messages of a port than the agent hears: 100 a second.
    TooManyRequests = 29,
}

impl DropReason {
    /// Every reason, indexed by its value.
    pub const ALL: [Self; 30] = [
        Self::Malformed,
        Self::PortDisabled,
        Self::Unsupported,
        Self::SpoofedSource,
        Self::Srv6FromAccess,
        Self::NoRoute,
        Self::ClassifierDrop,
        Self::OverMaximum,
        Self::NoPolicy,
        Self::HopLimit,
        Self::UnknownSid,
        Self::NoNextHop,
        Self::NoDelivery,
        Self::QueueFull,
        Self::HookDown,
        Self::TooBig,
        Self::ForeignSource,
        Self::PortDown,
        Self::NoRepairRoom,
        Self::GtpMalformed,
        Self::GtpUnexpected,
        Self::UnknownTeid,
        Self::QfiNotAllowed,
        Self::GtpInGtp,
        Self::CoreAddress,
        Self::EndMarker,
        Self::ErrorIndication,
        Self::TransmitError,
        Self::OverEndpointMaximum,
        Self::TooManyRequests,
    ];

    /// The name that counters, traces and documents use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::PortDisabled => "port_disabled",
            Self::Unsupported => "unsupported",
            Self::SpoofedSource => "spoofed_source",
            Self::Srv6FromAccess => "srv6_from_access",
            Self::NoRoute => "no_route",
            Self::ClassifierDrop => "classifier_drop",
            Self::OverMaximum => "over_maximum",
            Self::NoPolicy => "no_policy",
            Self::HopLimit => "hop_limit",
            Self::UnknownSid => "unknown_sid",
            Self::NoNextHop => "no_next_hop",
            Self::NoDelivery => "no_delivery",
            Self::QueueFull => "queue_full",
            Self::HookDown => "hook_down",
            Self::TooBig => "too_big",
            Self::ForeignSource => "foreign_source",
            Self::PortDown => "port_down",
            Self::NoRepairRoom => "no_repair_room",
            Self::GtpMalformed => "gtp_malformed",
            Self::GtpUnexpected => "gtp_unexpected",
            Self::UnknownTeid => "unknown_teid",
            Self::QfiNotAllowed => "qfi_not_allowed",
            Self::GtpInGtp => "gtp_in_gtp",
            Self::CoreAddress => "core_address",
            Self::EndMarker => "end_marker",
            Self::ErrorIndication => "error_indication",
            Self::TransmitError => "transmit_error",
            Self::OverEndpointMaximum => "over_endpoint_maximum",
            Self::TooManyRequests => "too_many_requests",
        }
    }

    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text is no reason's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no drop reason is named {0:?}")]
pub struct UnknownDropReason(pub String);

impl FromStr for DropReason {
    type Err = UnknownDropReason;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.name() == name)
            .ok_or_else(|| UnknownDropReason(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_names_lead_back() {
        for (value, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, value);
            assert_eq!(DropReason::from_u8(reason as u8), Some(reason));
            assert_eq!(reason.name().parse(), Ok(reason));
        }
        assert_eq!(DropReason::from_u8(30), None);
        assert!("Malformed".parse::<DropReason>().is_err());
    }
}
