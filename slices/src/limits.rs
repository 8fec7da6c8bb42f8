//! What objects may be at most. Beyond it a file is refused, with the limit named.

/// A file of objects.
pub const MAX_FILE_BYTES: usize = 16 << 20;
/// Slices a controller numbers: `1..=16383`, of which 1 is `default`.
pub const MAX_SLICES: usize = 16_382;
/// Hooks a controller numbers: `0..=255`.
pub const MAX_HOOKS: usize = 256;
/// Endpoints that one slice names; its pairs are up to a million.
pub const MAX_ENDPOINTS: usize = 1024;
/// What `maxNumberofUEs` and `maxNumberofPDUSessions` may say.
pub const MAX_MAXIMUM: u64 = 1_000_000_000;
/// Hooks that one slice goes through: each costs an id of six, and the end two.
pub const MAX_THROUGH: usize = 3;
/// What a meter can hold, in bit/s (DESIGN §6): 1 Mbit/s to 100 Gbit/s, and below that down to
/// 64 kbit/s, which is as exact.
pub const MIN_RATE_BPS: u64 = 64_000;
pub const MAX_RATE_BPS: u64 = 100_000_000_000;
/// A meter's burst is a 32-bit number of bytes.
pub const MAX_BURST_BYTES: u64 = u32::MAX as u64;
/// The smallest burst that lets a full packet pass; also the access MTU.
pub const MTU_BYTES: u64 = 1500;
pub const MIN_LATENCY_US: u64 = 1;
pub const MAX_LATENCY_US: u64 = 10_000_000;
/// A slice's priority where an endpoint is in several: higher is preferred.
pub const MAX_PRIORITY: u64 = 255;
/// Fuel of one packet in a hook.
pub const MAX_FUEL: u64 = 1_000_000_000;
/// Memory of a hook's module: one WebAssembly page to 4 GiB.
pub const MIN_MEMORY_BYTES: u64 = 64 << 10;
pub const MAX_MEMORY_BYTES: u64 = 4 << 30;
/// Configuration handed to `hook_init`.
pub const MAX_CONFIG_BYTES: usize = 64 << 10;
pub const MAX_PATH_BYTES: usize = 4096;
/// Traffic rules of one application, and filters of one rule.
pub const MAX_RULES: usize = 64;
pub const MAX_FILTERS: usize = 16;
/// A rule's matches, its filters' lists multiplied out: classifier entries on one switch.
pub const MAX_MATCHES: usize = 64;
/// What one application may ask of a node: processors in thousandths, and memory.
pub const MAX_CPU_MILLI: u64 = 4_096_000;
pub const MIN_INSTANCE_BYTES: u64 = 64 << 10;
pub const MAX_INSTANCE_BYTES: u64 = 1 << 50;
/// Accelerators of one kind.
pub const MAX_ACCELERATOR_COUNT: u64 = 4096;
/// Sites, architectures, groups or kinds of accelerators that one application lists.
pub const MAX_WORDS: usize = 16;
/// Half the Earth's circumference is 20,015 km.
pub const MAX_RADIUS_M: u64 = 20_016_000;
/// 1 MW.
pub const MAX_MOVING_MW: u64 = 1_000_000_000;
/// QoS flows of one PDU session (TS 23.501 §5.7.1.1: a QFI is 6 bits).
pub const MAX_FLOWS: usize = 64;
/// Least MTU of a tunnel to a gNB: a UE's IPv6 packets of 1,280 bytes fit (RFC 8200 §5).
pub const MIN_TUNNEL_MTU: u64 = 1344;
/// A traffic rule's id.
pub const MAX_RULE_ID_BYTES: usize = 64;
