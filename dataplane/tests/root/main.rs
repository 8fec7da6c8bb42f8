//! The agent against the real kernel: each test in network namespaces of its own. Root only.
//!
//! `lossless`: what is put into the maps comes back. `forwarding`: an unmanaged switch,
//! programmed over P4Runtime, forwards between two namespaces, also while its agent is away.
//! `managed`: mutual TLS, registration, neighbors, ports that come and go. `hooks`: a compute
//! hook in a Wasm host, its death and the agent's. `assure`: links measured by test packets.
//! `hosts`: other people's clients of routers and DHCP.
//! `interop`: Linux's own SRv6 beside ours. `soak`: agents killed and upgraded under traffic.
//! `migrate`: the same from another map layout.

mod assure;
mod facing;
mod forwarding;
mod hooks;
mod hosts;
mod interop;
#[allow(unsafe_code, unreachable_pub, reason = "bpf(2), for maps of another layout; shared")]
#[path = "../../xdp/tests/common/layout.rs"]
mod layout;
mod lossless;
mod managed;
mod migrate;
mod soak;
mod support;
