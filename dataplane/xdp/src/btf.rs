//! Where the running kernel has a member of a structure, by its type information (BTF).

use std::fs;
use std::io;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const STRUCT: u32 = 4;

/// Bytes from the start of the kernel's `structure` to its `member`.
pub(crate) fn offset(structure: &str, member: &str) -> io::Result<u32> {
    let found = find(&fs::read(VMLINUX)?, structure, member);
    found.ok_or_else(|| {
        io::Error::other(format!("{VMLINUX} tells no member {member} of struct {structure}"))
    })
}

/// Documentation/bpf/btf.rst: a header, types one after the other, and names.
fn find(btf: &[u8], structure: &str, member: &str) -> Option<u32> {
    let word = |at: usize| {
        let bytes = btf.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    };
    let size = |at| usize::try_from(word(at)?).ok();
    let [header, types, types_len, names] = [size(4)?, size(8)?, size(12)?, size(16)?];
    let is = |name: u32, text: &str| {
        let at = header + names + usize::try_from(name).ok()?;
        let rest = btf.get(at..)?.strip_prefix(text.as_bytes())?;
        (rest.first() == Some(&0)).then_some(())
    };
    let (mut at, end) = (header + types, header + types + types_len);
    while at < end {
        let info = word(at + 4)?;
        let (count, kind) = (info & 0xffff, info >> 24 & 0x1f);
        let rest = at + 12;
        if kind == STRUCT && is(word(at)?, structure).is_some() {
            let mut members = (0..usize::try_from(count).ok()?).map(|n| rest + 12 * n);
            let found = members.find(|at| word(*at).and_then(|name| is(name, member)).is_some())?;
            // Bits; where the structure has bit fields, with their size in the high byte.
            let bits = word(found + 8)?;
            return Some((if info >> 31 == 1 { bits & 0xff_ffff } else { bits }) / 8);
        }
        let more = match kind {
            // Integers, variables and declaration tags have one word more, arrays three.
            1 | 14 | 17 => 4,
            3 => 12,
            // Members of structures, unions, sections and 64-bit enumerations; values of
            // enumerations, and parameters.
            4 | 5 | 15 | 19 => 12 * count,
            6 | 13 => 8 * count,
            _ => 0,
        };
        at = rest + usize::try_from(more).ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct list_head { struct list_head *next, *prev; }` is what it is in every kernel, and
    /// `struct net_device` begins with no `ifindex`.
    #[test]
    fn members_are_found_where_they_are() {
        assert_eq!(offset("list_head", "next").unwrap(), 0);
        assert_eq!(offset("list_head", "prev").unwrap(), 8);
        assert_ne!(offset("net_device", "ifindex").unwrap(), 0);
        assert!(offset("net_device", "no_such_member").is_err());
        assert!(offset("no_such_structure", "next").is_err());
    }

    #[test]
    fn what_is_cut_off_is_not_found() {
        let btf = fs::read(VMLINUX).unwrap();
        for len in [0, 3, 24, 1000, btf.len() / 2] {
            assert_eq!(find(&btf[..len], "no_such_structure", "next"), None, "{len} bytes");
        }
    }
}
