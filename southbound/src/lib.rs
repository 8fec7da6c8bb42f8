//! Between a controller and a switch: P4Runtime v1 as gRPC messages, their conversion to and
//! from the typed entries of `selvedge-pipeline`, the client that the controller drives a
//! switch with, and the certificates both ends show each other. Also the messages that
//! P4Runtime has no words for: registration ([`selvedge::v1`]) and compute ([`compute`]).
//!
//! What it deliberately does not do: decide. Planning is `controller/core`'s, tables are the
//! switch's; retrying is whoever's who calls.

pub mod accept;
pub mod client;
pub mod compute;
pub mod convert;
pub mod limits;
pub mod p4info;
pub mod status;
pub mod tls;

pub use proto::{google, p4, selvedge};

/// Generated from `proto/`; the modules are nested as the packages are.
#[allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::large_futures,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated code"
)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/proto.rs"));
}

#[cfg(test)]
mod wire_tests;
