//! `p4.v1.TableEntry` to typed entries and back. What an entry means is `selvedge-pipeline`'s;
//! here protobuf becomes plain data, and parts of P4Runtime that our tables do not have are
//! refused.

use selvedge_pipeline::{Code, CodecError, Entry, Key, codec, raw};

use crate::p4::v1::{self as p4v1, field_match::FieldMatchType, table_action};

/// The entry as P4Runtime carries it.
///
/// # Errors
/// The entry cannot be expressed; see [`codec::encode`].
pub fn entry_to_wire(entry: &Entry) -> Result<p4v1::TableEntry, CodecError> {
    Ok(raw_to_wire(codec::encode(entry)?))
}

/// The typed entry of an insertion, a modification or a read's answer.
///
/// # Errors
/// See [`ConvertError`].
pub fn entry_from_wire(wire: &p4v1::TableEntry) -> Result<Entry, ConvertError> {
    Ok(codec::decode(&raw_from_wire(wire)?)?)
}

/// The key of a deletion; the action is ignored, even a nonsensical one (P4Runtime §9.1).
/// A `classifier` deletion must also pass [`codec::same_match`] against the rule held.
///
/// # Errors
/// See [`ConvertError`].
pub fn key_from_wire(wire: &p4v1::TableEntry) -> Result<Key, ConvertError> {
    Ok(codec::decode_key(&match_from_wire(wire)?)?)
}

/// What a read of table entries asks for.
///
/// # Errors
/// See [`ConvertError`].
pub fn selector_from_wire(wire: &p4v1::TableEntry) -> Result<codec::Selector, ConvertError> {
    let raw = raw::TableEntry { priority: wire.priority, ..match_from_wire(wire)? };
    Ok(codec::Selector::new(&raw)?)
}

/// Match, action and priority as plain data.
///
/// # Errors
/// See [`ConvertError`].
pub fn raw_from_wire(wire: &p4v1::TableEntry) -> Result<raw::TableEntry, ConvertError> {
    if wire.is_const {
        return Err(ConvertError::Const);
    }
    if wire.meter_config.is_some() || wire.meter_counter_data.is_some() {
        return Err(ConvertError::NoDirectMeter);
    }
    if wire.counter_data.is_some() {
        return Err(ConvertError::NoDirectCounter);
    }
    if wire.idle_timeout_ns != 0 {
        return Err(ConvertError::NoIdleTimeout);
    }
    let action = match wire.action.as_ref().and_then(|action| action.r#type.as_ref()) {
        None => None,
        Some(table_action::Type::Action(action)) => Some(raw::Action {
            action_id: action.action_id,
            params: action
                .params
                .iter()
                .map(|param| raw::Param { param_id: param.param_id, value: param.value.clone() })
                .collect(),
        }),
        Some(_) => return Err(ConvertError::Indirect),
    };
    Ok(raw::TableEntry { action, ..match_from_wire(wire)? })
}

/// Match and priority alone.
fn match_from_wire(wire: &p4v1::TableEntry) -> Result<raw::TableEntry, ConvertError> {
    if wire.is_default_action {
        return Err(ConvertError::DefaultEntry);
    }
    let matches = wire.r#match.iter().map(|field| {
        let field_id = field.field_id;
        let value = match &field.field_match_type {
            Some(FieldMatchType::Exact(m)) => raw::MatchValue::Exact(m.value.clone()),
            Some(FieldMatchType::Ternary(m)) => {
                raw::MatchValue::Ternary { value: m.value.clone(), mask: m.mask.clone() }
            }
            Some(FieldMatchType::Lpm(m)) => {
                raw::MatchValue::Lpm { value: m.value.clone(), prefix_len: m.prefix_len }
            }
            Some(FieldMatchType::Range(m)) => {
                raw::MatchValue::Range { low: m.low.clone(), high: m.high.clone() }
            }
            Some(FieldMatchType::Optional(m)) => raw::MatchValue::Optional(m.value.clone()),
            Some(FieldMatchType::Other(_)) | None => {
                return Err(ConvertError::NoMatchValue { field_id });
            }
        };
        Ok(raw::FieldMatch { field_id, value })
    });
    Ok(raw::TableEntry {
        table_id: wire.table_id,
        matches: matches.collect::<Result<_, _>>()?,
        action: None,
        priority: wire.priority,
    })
}

pub fn raw_to_wire(raw: raw::TableEntry) -> p4v1::TableEntry {
    let matches = raw.matches.into_iter().map(|field| {
        let value = match field.value {
            raw::MatchValue::Exact(value) => {
                FieldMatchType::Exact(p4v1::field_match::Exact { value })
            }
            raw::MatchValue::Ternary { value, mask } => {
                FieldMatchType::Ternary(p4v1::field_match::Ternary { value, mask })
            }
            raw::MatchValue::Lpm { value, prefix_len } => {
                FieldMatchType::Lpm(p4v1::field_match::Lpm { value, prefix_len })
            }
            raw::MatchValue::Range { low, high } => {
                FieldMatchType::Range(p4v1::field_match::Range { low, high })
            }
            raw::MatchValue::Optional(value) => {
                FieldMatchType::Optional(p4v1::field_match::Optional { value })
            }
        };
        p4v1::FieldMatch { field_id: field.field_id, field_match_type: Some(value) }
    });
    let action = raw.action.map(|action| p4v1::TableAction {
        r#type: Some(table_action::Type::Action(p4v1::Action {
            action_id: action.action_id,
            params: action
                .params
                .into_iter()
                .map(|param| p4v1::action::Param { param_id: param.param_id, value: param.value })
                .collect(),
        })),
    });
    p4v1::TableEntry {
        table_id: raw.table_id,
        r#match: matches.collect(),
        action,
        priority: raw.priority,
        ..Default::default()
    }
}

/// Why a `TableEntry` is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("match field {field_id}: has no value, or one of a kind we do not know")]
    NoMatchValue { field_id: u32 },
    #[error("no table has a default entry that can be set")]
    DefaultEntry,
    #[error("no table has an action profile")]
    Indirect,
    #[error("no table has a direct meter; rates are parameters of slice_meter")]
    NoDirectMeter,
    #[error("no table has a direct counter")]
    NoDirectCounter,
    #[error("no table has idle time-outs")]
    NoIdleTimeout,
    #[error("an entry that is written cannot be const")]
    Const,
}

impl ConvertError {
    pub fn code(&self) -> Code {
        match self {
            Self::Codec(error) => error.code(),
            Self::DefaultEntry => Code::PermissionDenied, // as for an action out of scope, §9.1.2
            Self::NoMatchValue { .. }
            | Self::Indirect
            | Self::NoDirectMeter
            | Self::NoDirectCounter
            | Self::NoIdleTimeout
            | Self::Const => Code::InvalidArgument,
        }
    }
}

impl From<u128> for p4v1::Uint128 {
    fn from(value: u128) -> Self {
        Self { high: (value >> 64) as u64, low: value as u64 } // both halves
    }
}

impl From<p4v1::Uint128> for u128 {
    fn from(value: p4v1::Uint128) -> Self {
        Self::from(value.high) << 64 | Self::from(value.low)
    }
}

/// A table entry as an entity of an update or a read.
pub fn entity(table_entry: p4v1::TableEntry) -> p4v1::Entity {
    p4v1::Entity { entity: Some(p4v1::entity::Entity::TableEntry(table_entry)) }
}
