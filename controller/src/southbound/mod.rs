//! Switches: they dial us and register over mutual TLS, then we dial their P4Runtime server.
//!
//! A switch's name is the one in its certificate. For each session there are two tasks: one
//! reads what the switch says ([`session`]), one carries out what the core wants of it
//! ([`switch`]). They end together, and no switch ever waits for another.

mod keys;
mod message;
mod session;
mod switch;
mod telemetry;

pub(crate) use message::{BadMessage, bad};
pub(crate) use session::{Southbound, serve};
pub(crate) use switch::Dialer;
