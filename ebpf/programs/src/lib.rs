//! The XDP programs on the host: the very modules that the BPF object is made of, on a shim of
//! the part of aya-ebpf that they use. For differential tests, fuzzing and counting instructions;
//! nothing of it runs in a switch. On the BPF target this library is empty.
//!
//! Maps, clock and events are each thread's own: see [`host`].

#![cfg_attr(target_arch = "bpf", no_std)]

// What the programs call aya_ebpf is the shim, found here.
#[cfg(not(target_arch = "bpf"))]
extern crate self as aya_ebpf;
#[cfg(not(target_arch = "bpf"))]
use shim::{EbpfContext, bindings, helpers, maps, programs};

#[cfg(not(target_arch = "bpf"))]
mod bpf;
#[cfg(not(target_arch = "bpf"))]
pub mod host;
#[cfg(not(target_arch = "bpf"))]
mod shim;
