//! What a topology may be at most. Beyond it a file is refused, with the limit named.

/// A file. Kdl, the largest of the Topology Zoo, is 0.3 MB.
pub const MAX_FILE_BYTES: usize = 16 << 20;
/// Switches and hosts together, since a node's 16-bit segment id is `1..=4095`.
pub const MAX_NODES: usize = 4095;
pub const MAX_LINKS: usize = 65_535;
/// Ports of one switch: its port ids are `1..=255`.
pub const MAX_PORTS: usize = 255;
/// Mappings and sequences within each other.
pub const MAX_YAML_DEPTH: usize = 64;
/// Values in one YAML file, counting every use of an alias.
pub const MAX_YAML_VALUES: usize = 1 << 20;
/// Problems reported of one file; the rest is counted.
pub const MAX_PROBLEMS: usize = 100;
/// Problems counted.
pub const MAX_COUNTED_PROBLEMS: usize = 10_000;
/// A link's routing weight: 24 bits, as in IS-IS wide metrics (RFC 5305 §3.7).
pub const MAX_COST: u32 = 0x00FF_FFFE;
/// A link's propagation delay: 10 s.
pub const MAX_DELAY_US: u64 = 10_000_000;
/// A link's capacity: 1 kbit/s to 10 Tbit/s.
pub const MIN_CAPACITY_BPS: u64 = 1_000;
pub const MAX_CAPACITY_BPS: u64 = 10_000_000_000_000;
/// Shared-risk groups of one link.
pub const MAX_SRLGS: usize = 32;
/// Administrative groups of one network, a bit each.
pub const MAX_AFFINITIES: usize = 64;
/// Kinds of accelerators of one node, and how many of a kind.
pub const MAX_ACCELERATORS: usize = 16;
pub const MAX_ACCELERATOR_COUNT: u64 = 4096;
/// What a processor in use draws: 10 kW.
pub const MAX_ENERGY_MW: u64 = 10_000_000;
/// A site's name, in bytes.
pub const MAX_TEXT: usize = 253;
