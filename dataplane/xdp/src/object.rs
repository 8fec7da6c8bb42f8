//! The eBPF object that build.rs compiled.

/// `include_bytes` aligned as an ELF reader wants it.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> =
    &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/selvedge-ebpf.o")));

pub(crate) fn bytes() -> &'static [u8] {
    &OBJECT.0
}

/// Programs of the object and their place in the tail-call map; the entry is in no place.
pub(crate) const STAGES: [(&str, u32); 10] = [
    ("access", selvedge_ebpf_common::STAGE_ACCESS_ON),
    ("sid", selvedge_ebpf_common::STAGE_SID_ON),
    ("answer", selvedge_ebpf_common::STAGE_ANSWER),
    ("classify", selvedge_ebpf_common::STAGE_CLASSIFY),
    ("extensions", selvedge_ebpf_common::STAGE_EXTENSIONS),
    ("gtp", selvedge_ebpf_common::STAGE_GTP),
    ("tunnel", selvedge_ebpf_common::STAGE_TUNNEL),
    ("icmp", selvedge_ebpf_common::STAGE_ICMP),
    ("sampled", selvedge_ebpf_common::STAGE_SAMPLED),
    ("shape", selvedge_ebpf_common::STAGE_SHAPE),
];
/// Where frames come to two of them: the place, the program that is there, and the one that is
/// there while packets are sampled.
pub(crate) const FIRST: [(u32, &str, &str); 2] = [
    (selvedge_ebpf_common::STAGE_ACCESS, "access", "sample_access"),
    (selvedge_ebpf_common::STAGE_SID, "sid", "sample_sid"),
];
/// Programs on tracepoints: attached once, their tracepoint, the program they jump to, and its
/// place in [`TRACE`].
pub(crate) const TRACERS: [(&str, &str, &str, u32); 2] = [
    ("on_transmitted", "xdp_devmap_xmit", "transmitted", selvedge_ebpf_common::TRACE_TRANSMITTED),
    ("on_refused", "xdp_redirect_err", "refused", selvedge_ebpf_common::TRACE_REFUSED),
];
/// Pinned: those who jump outlive this load.
pub(crate) const TRACE: &str = "TRACE";
pub(crate) const ENTRY: &str = "entry";
/// At the kernel's ingress of ports.
pub(crate) const SHAPED: &str = "shaped";
pub(crate) const HOOK_RX: &str = "hook_rx";
/// The tail-call map. Made anew at each load, so that the stages of two loads never mix.
pub(crate) const JUMP: &str = "JUMP";
