//! The XDP programs of a switch, and two that hear what devices make of their redirects.
//!
//! | program | runs | does |
//! |---|---|---|
//! | `entry` | first, on every port and compute port | finds the port; step A |
//! | `access` | by tail call, access ports | step B, encapsulation, and what follows directly |
//! | `sid` | by tail call, fabric and compute ports, local segments at the ingress | step C |
//! | `answer` | by tail call, access ports | ARP and neighbor solicitations |
//! | `gtp` | by tail call, access ports | what gNBs send to this switch's N3 addresses |
//! | `tunnel` | by tail call, from `access` and `sid` | puts a UE's packet into its tunnel |
//! | `sample_access`, `sample_sid` | before `access` and `sid`, while packets are asked for | choose some of them |
//! | `sampled` | by tail call, at the end of those | tells the agent |
//! | `shape` | by tail call, from `access`, `sid` and `tunnel` | passes frames of shaped classes to the kernel |
//! | `shaped` | at the kernel's ingress (TCX), on every port and compute port | gives those to the egress port's HTB |
//! | `hook_rx` | on the socket end of compute ports | hands frames to the hook's socket |
//! | `on_transmitted`, `on_refused` | on the kernel's tracepoints, for as long as the switch is there | call the next two, which are replaced |
//! | `transmitted`, `refused` | when a device has sent, or not, what was redirected to it | counts it |
//! | `redirect`, `pass`, `discard` | nowhere; benches and tests | what they are called |
//! | `generator` | nowhere; benches | makes frames anew, for the program under test |
//!
//! Steps are those of southbound/pipeline's model, which is what these programs are held
//! against. A frame is forwarded, answered, passed to the kernel (LLDP, what the agent answers, and what HTB queues) or dropped; every
//! drop is counted under its reason. Steps D (delivery) and E (virtual queue) end `access` and
//! `sid` inline: a stage of its own would cost a tail call for each packet.

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch))]
#![cfg_attr(target_arch = "bpf", expect(internal_features, reason = "BPF atomics have no other"))]

#[cfg(target_arch = "bpf")]
mod bpf;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
