//! The P4Runtime server (P4Runtime 1.4): who may write ([`arbitration`]), updates ([`write`])
//! and reads ([`read`]) on the tables, the state behind all calls ([`core`]), and the gRPC
//! service around it ([`server`]).

pub mod arbitration;
pub mod core;
pub mod read;
pub mod server;
pub mod write;
