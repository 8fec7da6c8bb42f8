//! Typed entries to raw ones and back, by the definitions in [`crate::tables`].
//!
//! What is encoded is canonical (P4Runtime §8.4, "read-write symmetry"); what is decoded may
//! have leading zero bytes and its fields in any order. `decode(encode(entry)) == entry`.

mod row;
mod typed;

use crate::{Entry, Key, TableKind, raw};
use row::Row;

/// The raw entry.
///
/// # Errors
/// An id out of its range, host bits in a prefix, a prefix or a segment list that the tables
/// cannot express: see [`CodecError`]. Only a bug of the caller's can be behind it.
pub fn encode(entry: &Entry) -> Result<raw::TableEntry, CodecError> {
    Ok(typed::row(entry)?.to_raw())
}

/// The typed entry of a raw one that has an action, as in an insertion or modification.
///
/// # Errors
/// See [`CodecError`].
pub fn decode(raw: &raw::TableEntry) -> Result<Entry, CodecError> {
    typed::entry(&Row::from_raw(raw)?)
}

/// The key of a raw entry; everything else is ignored, as in a deletion (P4Runtime §9.1).
///
/// # Errors
/// See [`CodecError`].
pub fn decode_key(raw: &raw::TableEntry) -> Result<Key, CodecError> {
    typed::key(&Row::from_raw(&without_action(raw))?)
}

/// Whether a raw entry has the very match of `entry`. [`Key`] says the same for all tables
/// but `classifier`, where our key is the priority alone: there a deletion that names other
/// fields than those installed must not find the rule.
///
/// # Errors
/// See [`CodecError`].
pub fn same_match(entry: &Entry, raw: &raw::TableEntry) -> Result<bool, CodecError> {
    let asked = Row::from_raw(&without_action(raw))?.to_raw();
    let held = encode(entry)?;
    Ok((held.table_id, &held.matches, held.priority)
        == (asked.table_id, &asked.matches, asked.priority))
}

fn without_action(raw: &raw::TableEntry) -> raw::TableEntry {
    raw::TableEntry { action: None, ..raw.clone() }
}

/// What a read asks for: all entries, those of a table, or the one with a given key
/// (P4Runtime §11.1, wildcard reads).
#[derive(Clone, Debug)]
pub struct Selector {
    table: Option<TableKind>,
    /// Empty: any.
    matches: Vec<raw::FieldMatch>,
    /// `0`: any.
    priority: i32,
}

impl Selector {
    /// Table id 0 is every table; no match is every entry.
    ///
    /// # Errors
    /// An unknown table, a malformed match: see [`CodecError`].
    pub fn new(raw: &raw::TableEntry) -> Result<Self, CodecError> {
        if raw.table_id == 0 {
            return Ok(Self { table: None, matches: Vec::new(), priority: 0 });
        }
        let table = TableKind::from_id(raw.table_id)
            .ok_or(CodecError::UnknownTable { table_id: raw.table_id })?;
        let matches = if raw.matches.is_empty() {
            Vec::new()
        } else {
            Row::key_from_raw(raw)?.to_raw().matches
        };
        Ok(Self { table: Some(table), matches, priority: raw.priority })
    }

    pub fn selects(&self, entry: &Entry) -> bool {
        if self.table.is_some_and(|table| table != entry.table()) {
            return false;
        }
        if self.matches.is_empty() && self.priority == 0 {
            return true;
        }
        encode(entry).is_ok_and(|raw| {
            (self.matches.is_empty() || raw.matches == self.matches)
                && (self.priority == 0 || raw.priority == self.priority)
        })
    }
}

/// The canonical codes of gRPC (google.rpc.Code) that updates end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Code {
    Ok = 0,
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

impl Code {
    /// A code that is none of these is `Unknown`.
    pub fn from_i32(code: i32) -> Self {
        [
            Self::Ok,
            Self::InvalidArgument,
            Self::NotFound,
            Self::AlreadyExists,
            Self::PermissionDenied,
            Self::ResourceExhausted,
            Self::FailedPrecondition,
            Self::Aborted,
            Self::OutOfRange,
            Self::Unimplemented,
            Self::Internal,
            Self::Unavailable,
        ]
        .into_iter()
        .find(|known| *known as i32 == code)
        .unwrap_or(Self::Unknown)
    }
}

/// Why an entry cannot be read, or written down. `name` is a match field or a parameter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("there is no table {table_id:#010x}")]
    UnknownTable { table_id: u32 },
    #[error("table {table}: there is no match field {field_id}")]
    UnknownField { table: &'static str, field_id: u32 },
    #[error("table {table}, field {name}: given twice")]
    FieldTwice { table: &'static str, name: &'static str },
    #[error("table {table}, field {name}: missing, and an exact match has no wildcard")]
    MissingField { table: &'static str, name: &'static str },
    #[error("table {table}, field {name}: is an {expected} match, got {found}")]
    FieldKind {
        table: &'static str,
        name: &'static str,
        expected: &'static str,
        found: &'static str,
    },
    #[error("table {table}, field {name}: matches anything, and must then be left out")]
    DontCare { table: &'static str, name: &'static str },
    #[error("table {table}, field {name}: the range from {low} to {high} ends before it begins")]
    RangeEnds { table: &'static str, name: &'static str, low: u128, high: u128 },
    #[error("table {table}, field {name}: prefix length {prefix_len} is not within 1..={width}")]
    PrefixLength { table: &'static str, name: &'static str, prefix_len: i32, width: u32 },
    #[error("table {table}, field {name}: has bits outside its prefix or mask")]
    BitsOutsideMask { table: &'static str, name: &'static str },
    #[error("table {table}, field {name}: only prefixes can be matched, the mask has gaps")]
    MaskNotPrefix { table: &'static str, name: &'static str },
    #[error("table {table}: no action")]
    NoAction { table: &'static str },
    #[error("table {table}: has an action selector, and takes a set of actions in one shot")]
    SetNeeded { table: &'static str },
    #[error("table {table}: has no action selector, and takes one action")]
    SetRefused { table: &'static str },
    #[error("table {table}: a set without an action")]
    EmptySet { table: &'static str },
    #[error("table {table}: {count} actions in a set, at most {most}")]
    SetSize { table: &'static str, count: usize, most: u32 },
    #[error("table {table}: weight {weight} is not within 1..={most}")]
    Weight { table: &'static str, weight: i32, most: u32 },
    #[error("table {table}: action {action_id:#010x} is not one of its own")]
    UnknownAction { table: &'static str, action_id: u32 },
    #[error("table {table}, action {action}: there is no parameter {param_id}")]
    UnknownParam { table: &'static str, action: &'static str, param_id: u32 },
    #[error("table {table}, parameter {name}: given twice")]
    ParamTwice { table: &'static str, name: &'static str },
    #[error("table {table}, parameter {name}: missing")]
    MissingParam { table: &'static str, name: &'static str },
    #[error("table {table}: entries have a priority, 1..=2147483647, got {priority}")]
    PriorityNeeded { table: &'static str, priority: i64 },
    #[error("table {table}: entries have no priority, got {priority}")]
    PriorityRefused { table: &'static str, priority: i32 },
    #[error("table {table}, {name}: empty value")]
    EmptyValue { table: &'static str, name: &'static str },
    #[error("table {table}, {name}: does not fit {width} bits")]
    TooWide { table: &'static str, name: &'static str, width: u32 },
    #[error("table {table}, {name}: {value} is not within {allowed}")]
    OutOfRange { table: &'static str, name: &'static str, value: u128, allowed: &'static str },
    #[error("table {table}, {name}: {prefix} cannot be told from IPv4; write it as IPv4")]
    MappedPrefix { table: &'static str, name: &'static str, prefix: String },
    #[error("table {table}, {name}: is of another IP version than the gNB")]
    MixedVersions { table: &'static str, name: &'static str },
    #[error("table {table}: ue_ipv4 and ue_ipv6 name nobody, or everybody")]
    NoUeAddress { table: &'static str },
    #[error("table port_queue: limit_and_shape without a class that has a rate")]
    NothingShaped,
    #[error("table {table}, {name}: a segment behind an absent one")]
    SegmentGap { table: &'static str, name: &'static str },
    #[error("table {table}: {count} segments, not {allowed}")]
    SegmentCount { table: &'static str, count: usize, allowed: &'static str },
}

impl CodecError {
    /// The code that the update ends with.
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownTable { .. } => Code::NotFound,
            Self::EmptyValue { .. }
            | Self::TooWide { .. }
            | Self::OutOfRange { .. }
            | Self::SegmentCount { .. } => Code::OutOfRange,
            // Well-formed P4Runtime that this switch cannot do.
            Self::MaskNotPrefix { .. } | Self::EmptySet { .. } => Code::Unimplemented,
            Self::UnknownField { .. }
            | Self::FieldTwice { .. }
            | Self::MissingField { .. }
            | Self::FieldKind { .. }
            | Self::DontCare { .. }
            | Self::RangeEnds { .. }
            | Self::PrefixLength { .. }
            | Self::BitsOutsideMask { .. }
            | Self::NoAction { .. }
            | Self::SetNeeded { .. }
            | Self::SetRefused { .. }
            | Self::SetSize { .. }
            | Self::Weight { .. }
            | Self::UnknownAction { .. }
            | Self::UnknownParam { .. }
            | Self::ParamTwice { .. }
            | Self::MissingParam { .. }
            | Self::PriorityNeeded { .. }
            | Self::PriorityRefused { .. }
            | Self::MappedPrefix { .. }
            | Self::MixedVersions { .. }
            | Self::NoUeAddress { .. }
            | Self::NothingShaped
            | Self::SegmentGap { .. } => Code::InvalidArgument,
        }
    }
}

#[cfg(test)]
mod tests;
