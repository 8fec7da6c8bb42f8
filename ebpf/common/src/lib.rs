//! What the XDP programs and the agent agree on: map keys and values, their sizes, constants,
//! and the rate arithmetic.
//!
//! No `std`, no dependency: the same code runs in the kernel and in the agent, and is tested
//! on the host. Everything that lies in a map is `repr(C)` with named padding and a size
//! asserted at compile time. Fields are host-endian; a word that holds packet bytes in the
//! order of the wire says so. Little-endian machines only (`bpfel`).
//!
//! Units: time is picoseconds in `u64` and wraps every 213 days (compare with
//! [`rate::until`] only), rates are bits per second, sizes are bytes, a cost is picoseconds
//! per byte times 256 ([`rate::cost_x256`]).
//!
//! Changing a layout, a map's size or a constant's meaning changes [`LAYOUT_VERSION`].

#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod drop;
pub mod exact;
pub mod flight;
pub mod key;
pub mod map;
pub mod rate;
pub mod rule;
pub mod value;

/// Version of everything in this crate that lies in pinned maps; part of the pins' path.
pub const LAYOUT_VERSION: u32 = 6;

/// Ports `1..=255` are the switch's, as P4Runtime numbers them.
pub const MAX_PORT_ID: u16 = 255;
/// Internal port of hook `n` is `COMPUTE_PORT + n`: it has counters and a devmap slot as the
/// others have, and no P4Runtime number.
pub const COMPUTE_PORT: u16 = 256;
/// Hooks are `0..MAX_HOOKS`.
pub const MAX_HOOKS: u16 = 256;
/// Port numbers and compute ports together.
pub const PORT_SLOTS: u32 = 512;

/// Slices are `1..=MAX_SLICE_ID`.
pub const MAX_SLICE_ID: u16 = 16_383;
/// Slots indexed by `slice << 1 | direction`. Their meters take 4 MiB, their counters what is
/// counted times these for each processor.
pub const SLICE_SLOTS: u32 = 32_768;

/// Endpoints with rates of their own are `1..=MAX_ENDPOINT_ID`.
pub const MAX_ENDPOINT_ID: u16 = 65_535;

/// Node ids are `1..=MAX_NODE_SID`.
pub const MAX_NODE_SID: u16 = 4095;
/// Ids from here up are functions of the node that owns the id before.
pub const FIRST_FUNCTION: u16 = 0xE000;
/// Slots of the `SID` map: node ids, then functions. See [`sid_slot`].
pub const SID_SLOTS: u32 = 0x1000 + 0x2000;

/// Policies are `1..POLICY_SLOTS`.
pub const POLICY_SLOTS: u32 = 65536;
/// Ids that one outer destination address carries.
pub const MAX_SIDS: usize = 6;

/// Ids that a repair puts before a packet's own.
pub const MAX_REPAIR_SIDS: usize = 4;
/// Backups of a port are `1..=MAX_BACKUP`.
pub const MAX_BACKUP: u8 = 127;
/// Slots of the `BACKUP` map. See [`backup_slot`].
pub const BACKUP_SLOTS: u32 = (MAX_PORT_ID as u32 + 1) * (MAX_BACKUP as u32 + 1);
/// Set in the last byte of an outer source, beside the mark: the packet has been led around a
/// failure, and is not a second time. So two failures make no loop.
pub const REPAIRED: u8 = 2;

/// Own addresses on N3.
pub const N3_ADDRESSES: usize = 4;
/// GTP-U messages that one port may be answered in a second, and at once, for tunnels and
/// extension headers that are not known.
pub const GTP_ANSWERS_PER_SECOND: u64 = 1000;
/// ICMP errors that one port may be the cause of in a second, and at once.
pub const ICMP_ERRORS_PER_SECOND: u64 = 1000;
/// Router solicitations and DHCP messages of one port that the agent hears in a second, and at
/// once.
pub const HOST_REQUESTS_PER_SECOND: u64 = 100;
/// UDP source ports of tunnels are this and 14 bits of the flow's label (RFC 6335 §6, dynamic).
pub const TUNNEL_SOURCE_PORT: u16 = 0xc000;

/// Application rules on one switch.
pub const MAX_RULES: u32 = 1024;

/// Largest inner IP packet, bytes: the access MTU.
pub const MAX_INNER_LEN: u32 = 1500;
/// Bytes of the outer IPv6 header.
pub const OUTER_LEN: usize = 40;

/// First 32 bits of every SID and outer source, as a number: `5f00::/32` (RFC 9602).
pub const SID_BLOCK: u32 = 0x5f00_0000;
/// Group 3 of an outer source address, which no SID has.
pub const SOURCE_MARK: u16 = 0xfffe;
/// Hop limit of a fresh outer header.
pub const OUTER_HOP_LIMIT: u8 = 64;

/// Handle of a port's HTB (tc-htb(8)); its classes are 1 plus the number of ours.
pub const HTB_MAJOR: u32 = 0x5e1f;

/// Indices of the tail-call map. A frame comes to `access` and `sid` by the first two, where
/// samplers are while packets are sampled, and comes back to them by the `_ON`.
pub const STAGE_ACCESS: u32 = 0;
pub const STAGE_SID: u32 = 1;
pub const STAGE_ANSWER: u32 = 2;
pub const STAGE_EXTENSIONS: u32 = 3;
pub const STAGE_CLASSIFY: u32 = 4;
pub const STAGE_GTP: u32 = 5;
pub const STAGE_TUNNEL: u32 = 6;
pub const STAGE_ICMP: u32 = 7;
pub const STAGE_ACCESS_ON: u32 = 8;
pub const STAGE_SID_ON: u32 = 9;
/// Where packets end that were chosen to be told of.
pub const STAGE_SAMPLED: u32 = 10;
/// Where benches put the program they measure; empty in a switch.
pub const STAGE_UNDER_TEST: u32 = 11;
pub const STAGE_SHAPE: u32 = 12;
pub const STAGES: u32 = 13;

/// Sampled packets that a switch tells of in a second, and at once.
pub const SAMPLES_PER_SECOND: u64 = 200;
/// Bytes of a sampled frame that are told: the first.
pub const SAMPLE_HEAD: usize = 256;
/// Addresses of one end that samples are chosen by.
pub const SAMPLE_ADDRESSES: usize = 4;

/// Indices of the `TRACE` map: what devices sent and refused of a bulk, and what did not come to
/// them.
pub const TRACE_TRANSMITTED: u32 = 0;
pub const TRACE_REFUSED: u32 = 1;
pub const TRACES: u32 = 2;

/// Test packets of STAMP (RFC 8762) between neighbors: where the sender hears, and where the
/// reflector does. Of the two switches on a link only, so the addresses are nobody's.
pub const PROBE_SENDER: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x5e, 0x1f, 0, 1];
pub const PROBE_REFLECTOR: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x5e, 0x1f, 0, 2];
/// Reflector's UDP port (RFC 8762 §4.1), and the sender's.
pub const PROBE_PORT: u16 = 862;
pub const PROBE_SENDER_PORT: u16 = 50_862;

/// Bytes at the start of a frame that the generator of benches puts back, and of one that is
/// shorter.
pub const GENERATOR_HEAD_LEN: usize = 80;
pub const GENERATOR_SHORT_HEAD_LEN: usize = 64;

/// The any-cast gateway (DESIGN §5).
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0x5E, 0x1F, 0x00, 0x00, 0x01];
pub const GATEWAY_IPV4: [u8; 4] = [169, 254, 1, 1];
pub const GATEWAY_IPV6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Index of `id` in the `SID` map; `None` for ids that are neither a node's nor a function.
#[inline(always)]
pub const fn sid_slot(id: u16) -> Option<u32> {
    if id <= MAX_NODE_SID {
        Some(id as u32)
    } else if id >= FIRST_FUNCTION {
        Some((id - FIRST_FUNCTION) as u32 + 0x1000)
    } else {
        None
    }
}

/// Index of a port's backup in the `BACKUP` map.
#[inline(always)]
pub const fn backup_slot(port: u16, backup: u8) -> u32 {
    (port as u32) << 7 | backup as u32 & 0x7f
}

/// Index of a slice and direction in the meter and counter maps.
#[inline(always)]
pub const fn slice_slot(slice: u16, direction: u8) -> u32 {
    (slice as u32) << 1 | (direction & 1) as u32
}

/// Key of an endpoint's rates in a slice and direction.
#[inline(always)]
pub const fn endpoint_meter_key(slice: u16, direction: u8, endpoint: u16) -> u32 {
    slice_slot(slice, direction) << 16 | endpoint as u32
}

/// A MAC address in the low six bytes of a word, in wire order; the high two are zero.
#[inline(always)]
pub const fn mac_word(mac: [u8; 6]) -> u64 {
    u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0])
}

/// Inverse of [`mac_word`].
#[inline(always)]
pub const fn mac_bytes(word: u64) -> [u8; 6] {
    let b = word.to_le_bytes();
    [b[0], b[1], b[2], b[3], b[4], b[5]]
}

/// A type whose bytes may be copied to and from the kernel.
///
/// # Safety
/// `repr(C)`, integers and arrays of integers only, no implicit padding, any bits valid.
pub unsafe trait Plain: Copy + 'static {}

// SAFETY: an integer.
unsafe impl Plain for u16 {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sid_slots_do_not_overlap() {
        // (id, slot)
        let cases = [
            (0, Some(0)),
            (1, Some(1)),
            (4095, Some(4095)),
            (4096, None),
            (0xDFFF, None),
            (0xE000, Some(4096)),
            (0xE001, Some(4097)),
            (0xFFFF, Some(SID_SLOTS - 1)),
        ];
        for (id, want) in cases {
            assert_eq!(sid_slot(id), want, "{id:#x}");
        }
    }

    #[test]
    fn mac_words_keep_wire_order() {
        let mac = [2, 0x5e, 3, 4, 5, 6];
        assert_eq!(mac_word(mac).to_le_bytes(), [2, 0x5e, 3, 4, 5, 6, 0, 0]);
        assert_eq!(mac_bytes(mac_word(mac)), mac);
    }

    #[test]
    fn last_slice_fits() {
        assert_eq!(slice_slot(MAX_SLICE_ID, 1), SLICE_SLOTS - 1);
    }
}
