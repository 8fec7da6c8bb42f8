//! Every parser that takes bytes from outside, as a function of bytes that fails when something
//! is untrue that must hold for all of them. `fuzz/` looks for such bytes; the test beside this
//! library replays those that it kept.

mod packet;
mod text;
mod wire;

// That crate brings the kernel's side and its build with it; these files need neither.
#[path = "../../../dataplane/src/hosts/dhcp.rs"]
pub mod dhcp_relay;
#[path = "../../../dataplane/src/lldp/frame.rs"]
pub mod lldp_frame;

/// Takes any bytes; panics when what must hold does not.
pub type Input = fn(&[u8]);

/// By name, which is that of the target in `fuzz/targets` and of its folder in `fuzz/corpus`.
pub const INPUTS: &[(&str, Input)] = &[
    ("compute", wire::compute),
    ("dhcp", packet::dhcp),
    ("graphml", text::graphml),
    ("gtp", packet::gtp),
    ("ip", packet::ip),
    ("lldp", packet::lldp),
    ("p4runtime", wire::p4runtime),
    ("repetita", text::repetita),
    ("slices", text::slices),
    ("srv6", packet::srv6),
    ("stamp", packet::stamp),
    ("topology", text::topology),
];

/// The input of this name, which is in [`INPUTS`].
pub fn input(name: &str) -> Input {
    INPUTS.iter().find(|(known, _)| *known == name).expect("the name is in the table").1
}
