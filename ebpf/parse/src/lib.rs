//! Reading and rewriting packets in place, for the kernel's verifier and for the host's tests.
//!
//! Everything is inlined, bounded and free of panics. Headers are read and written as words
//! ([`Window`]): the same header as `[u8; N]` costs three times the instructions. "Raw" words
//! are the bytes as they lie in the packet; little-endian machines only.
//!
//! No maps and no decisions: those are in ebpf/programs.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod gtp;
pub mod ip;
pub mod rewrite;
pub mod srv6;
pub mod stamp;
pub mod udp;
mod window;

pub use window::{Cursor, Window};

/// Bytes of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_ARP: u16 = 0x0806;
pub const ETHERTYPE_IPV6: u16 = 0x86DD;
pub const ETHERTYPE_LLDP: u16 = 0x88CC;
