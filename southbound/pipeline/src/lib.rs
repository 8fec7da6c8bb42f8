//! The pipeline of a Selvedge switch, as one Rust definition: what it can be told
//! ([`entry`]), how P4Runtime names it ([`tables`]), the codec between the two ([`codec`],
//! [`raw`]), why packets end ([`DropReason`]), and an interpreter that says what a switch with
//! given entries does with a given frame ([`model`]).
//!
//! Pure: no protobuf, no socket, no clock. `selvedge-southbound` turns [`raw`] entries and
//! [`tables`] into P4Runtime messages; the XDP programs are a second implementation of the
//! same semantics, and tests hold one against the other.

pub mod codec;
pub mod delay;
mod drop_reason;
pub mod entry;
pub mod model;
pub mod paths;
pub mod prefix;
pub mod raw;
pub mod tables;

pub use codec::{Code, CodecError};
pub use drop_reason::{DropReason, UnknownDropReason};
pub use entry::*;
pub use tables::{CounterKind, TableKind};

impl Entry {
    pub fn table(&self) -> TableKind {
        self.key().table()
    }
}

impl Key {
    pub fn table(&self) -> TableKind {
        match self {
            Self::Port(..) => TableKind::Port,
            Self::Endpoint(..) => TableKind::Endpoint,
            Self::Classifier(..) => TableKind::Classifier,
            Self::SliceRoute(..) => TableKind::SliceRoute,
            Self::SliceMeter(..) => TableKind::SliceMeter,
            Self::Policy(..) => TableKind::Policy,
            Self::LocalSid(..) => TableKind::LocalSid,
            Self::NextHop(..) => TableKind::NextHop,
            Self::Backup(..) => TableKind::Backup,
            Self::Delivery(..) => TableKind::Delivery,
            Self::PortQueue(..) => TableKind::PortQueue,
            Self::Generation => TableKind::Generation,
            Self::N3Address(..) => TableKind::N3Address,
            Self::GtpSession(..) => TableKind::GtpSession,
            Self::EndpointMeter(..) => TableKind::EndpointMeter,
        }
    }
}
