//! Offloads of an interface, by ethtool's netlink family (Documentation/networking/
//! ethtool-netlink.rst in the kernel's tree).

use crate::error::{LabError, Result};
use crate::netlink::{Netlink, Request, attributes, put};

/// Names of `ethtool -k`, as the kernel has them.
pub(crate) const GRO: &str = "rx-gro";
const TX_CHECKSUM: [&str; 2] = ["tx-checksum-ip-generic", "tx-checksum-sctp"];
/// All that `ethtool -K DEV tso off` covers, and generic segmentation with it.
const TX_SEGMENTATION: [&str; 5] = [
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation",
    "tx-generic-segmentation",
];

/// A switch's or a wire's end: GRO on, so that the driver polls and takes redirected frames.
pub(crate) fn fabric() -> Vec<(&'static str, bool)> {
    vec![(GRO, true)]
}

/// A host's end: checksums finished and segments cut before the frame leaves, since XDP would
/// encapsulate what was left unfinished; GRO on for the frames that are redirected to it.
pub(crate) fn host() -> Vec<(&'static str, bool)> {
    let off = TX_SEGMENTATION.into_iter().chain(TX_CHECKSUM).map(|name| (name, false));
    [(GRO, true)].into_iter().chain(off).collect()
}

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const NESTED: u16 = 0x8000;

/// The number of the family, the same in every namespace until the next boot.
pub(crate) fn family(netlink: &mut Netlink) -> Result<u16> {
    let mut payload = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
    put(&mut payload, CTRL_ATTR_FAMILY_NAME, b"ethtool\0");
    let request = Request::raw("find ethtool's family", GENL_ID_CTRL, 0, &payload);
    let answers = netlink.ask(request)?;
    let id = answers.iter().find_map(|answer| {
        let (_, id) =
            attributes(answer.get(4..)?).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID)?;
        Some(u16::from_ne_bytes(*id.first_chunk()?))
    });
    id.ok_or(LabError::Tool {
        tool: "ethtool's netlink family",
        fix: "a kernel with CONFIG_ETHTOOL_NETLINK",
    })
}

/// Wants the features as given on the interface `index`.
pub(crate) fn set(family: u16, index: u32, features: &[(&str, bool)]) -> Request {
    let mut header = Vec::new();
    put(&mut header, 1, &index.to_ne_bytes()); // ETHTOOL_A_HEADER_DEV_INDEX
    let mut bits = Vec::new();
    for (name, on) in features {
        let mut bit = Vec::new();
        put(&mut bit, 2, &[name.as_bytes(), &[0]].concat()); // ETHTOOL_A_BITSET_BIT_NAME
        if *on {
            put(&mut bit, 3, &[]); // ETHTOOL_A_BITSET_BIT_VALUE
        }
        put(&mut bits, 1 | NESTED, &bit); // ETHTOOL_A_BITSET_BITS_BIT
    }
    let mut wanted = Vec::new();
    put(&mut wanted, 3 | NESTED, &bits); // ETHTOOL_A_BITSET_BITS
    let mut payload = vec![ETHTOOL_MSG_FEATURES_SET, 1, 0, 0];
    put(&mut payload, 1 | NESTED, &header); // ETHTOOL_A_FEATURES_HEADER
    put(&mut payload, 3 | NESTED, &wanted); // ETHTOOL_A_FEATURES_WANTED
    Request::raw(format!("set offloads of interface {index}"), family, 0, &payload)
}
