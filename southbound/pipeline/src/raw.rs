//! Table entries as P4Runtime carries them, without protobuf: ids, and values as bytestrings.
//!
//! Values are big-endian without leading zero bytes, at least one byte (P4Runtime §8.4,
//! "canonical"). [`canonical`] makes one; whoever reads accepts the others as well.

/// What one table entry says; `selvedge_southbound` converts it to and from
/// `p4.v1.TableEntry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TableEntry {
    pub table_id: u32,
    /// By rising field id; a field that matches anything is left out.
    pub matches: Vec<FieldMatch>,
    /// `None` where only the key counts: a deletion, a read.
    pub action: Option<TableAction>,
    /// Larger wins; `0` in tables without priorities.
    pub priority: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldMatch {
    pub field_id: u32,
    pub value: MatchValue,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MatchValue {
    Exact(Vec<u8>),
    Lpm { value: Vec<u8>, prefix_len: i32 },
    Ternary { value: Vec<u8>, mask: Vec<u8> },
    Range { low: Vec<u8>, high: Vec<u8> },
    Optional(Vec<u8>),
}

impl MatchValue {
    /// The kind, as P4 spells it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Lpm { .. } => "lpm",
            Self::Ternary { .. } => "ternary",
            Self::Range { .. } => "range",
            Self::Optional(_) => "optional",
        }
    }
}

/// What an entry says that is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TableAction {
    One(Action),
    /// One-shot programming of an action selector (P4Runtime §9.2.3), in the order given.
    Set(Vec<WeightedAction>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WeightedAction {
    pub action: Action,
    pub weight: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Action {
    pub action_id: u32,
    pub params: Vec<Param>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Param {
    pub param_id: u32,
    pub value: Vec<u8>,
}

/// The canonical bytestring of `value`.
pub fn canonical(value: u128) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let leading = (value.leading_zeros() / 8).min(15) as usize;
    bytes[leading..].to_vec()
}

/// The number that a bytestring stands for, leading zeros or not. `None` if it is empty or
/// has more than 128 significant bits.
pub fn number(bytes: &[u8]) -> Option<u128> {
    if bytes.is_empty() {
        return None;
    }
    let significant = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())..];
    (significant.len() <= 16)
        .then(|| significant.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytestrings() {
        // (number, canonical); P4Runtime §8.4, table of valid bytestrings.
        let cases: &[(u128, &[u8])] = &[
            (0, &[0]),
            (1, &[1]),
            (0x63, &[0x63]),
            (0x3064, &[0x30, 0x64]),
            (0x100, &[1, 0]),
            (u128::MAX, &[0xff; 16]),
            (1 << 120, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ];
        for (value, bytes) in cases {
            assert_eq!(canonical(*value), *bytes, "{value:#x}");
            assert_eq!(number(bytes), Some(*value), "{bytes:x?}");
            let padded = [&[0, 0][..], bytes].concat();
            assert_eq!(number(&padded), Some(*value), "{padded:x?}");
        }
        assert_eq!(number(&[]), None);
        assert_eq!(number(&[1; 17]), None);
        assert_eq!(number(&[0; 99]), Some(0));
    }
}
