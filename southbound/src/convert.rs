//! `p4.v1.TableEntry` to typed entries and back. What an entry means is `selvedge-pipeline`'s;
//! here protobuf becomes plain data, and parts of P4Runtime that our tables do not have are
//! refused.

use selvedge_pipeline::{Code, CodecError, Entry, Key, codec, raw};

use crate::p4::v1::{
    self as p4v1, action_profile_action::WatchKind, field_match::FieldMatchType, table_action,
};

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
        Some(table_action::Type::Action(action)) => {
            Some(raw::TableAction::One(action_from_wire(action)))
        }
        Some(table_action::Type::ActionProfileActionSet(set)) => {
            Some(raw::TableAction::Set(set_from_wire(set)?))
        }
        Some(
            table_action::Type::ActionProfileMemberId(_)
            | table_action::Type::ActionProfileGroupId(_),
        ) => return Err(ConvertError::Indirect),
    };
    Ok(raw::TableEntry { action, ..match_from_wire(wire)? })
}

fn action_from_wire(action: &p4v1::Action) -> raw::Action {
    let params = action.params.iter();
    let params =
        params.map(|param| raw::Param { param_id: param.param_id, value: param.value.clone() });
    raw::Action { action_id: action.action_id, params: params.collect() }
}

/// Of a set's settings only those that every target has (P4Runtime 1.5 §9.2.3).
fn set_from_wire(
    set: &p4v1::ActionProfileActionSet,
) -> Result<Vec<raw::WeightedAction>, ConvertError> {
    if set.action_selection_mode != 0 || set.size_semantics != 0 || set.group_action.is_some() {
        return Err(ConvertError::SetSettings);
    }
    let actions = set.action_profile_actions.iter().map(|weighted| {
        match &weighted.watch_kind {
            // An empty one is none (§9.2.2).
            Some(WatchKind::WatchPort(port)) if port.is_empty() => {}
            None => {}
            Some(_) => return Err(ConvertError::WatchPort),
        }
        let action = weighted.action.as_ref().ok_or(ConvertError::SetWithoutAction)?;
        Ok(raw::WeightedAction { action: action_from_wire(action), weight: weighted.weight })
    });
    actions.collect()
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
        r#type: Some(match action {
            raw::TableAction::One(action) => table_action::Type::Action(action_to_wire(action)),
            raw::TableAction::Set(set) => {
                let actions = set.into_iter().map(|weighted| p4v1::ActionProfileAction {
                    action: Some(action_to_wire(weighted.action)),
                    weight: weighted.weight,
                    watch_kind: None,
                });
                table_action::Type::ActionProfileActionSet(p4v1::ActionProfileActionSet {
                    action_profile_actions: actions.collect(),
                    ..Default::default()
                })
            }
        }),
    });
    p4v1::TableEntry {
        table_id: raw.table_id,
        r#match: matches.collect(),
        action,
        priority: raw.priority,
        ..Default::default()
    }
}

fn action_to_wire(action: raw::Action) -> p4v1::Action {
    let params = action.params.into_iter();
    let params =
        params.map(|param| p4v1::action::Param { param_id: param.param_id, value: param.value });
    p4v1::Action { action_id: action.action_id, params: params.collect() }
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
    #[error("there are no members and groups; the table policy takes a set of actions in one shot")]
    Indirect,
    #[error("a set's paths are chosen by hash, and its size is that of its members; no others")]
    SetSettings,
    #[error("no path watches a port; switches lead packets around ports that are down")]
    WatchPort,
    #[error("an element of the set has no action")]
    SetWithoutAction,
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
            // Well-formed P4Runtime that this switch cannot do.
            Self::SetSettings | Self::WatchPort => Code::Unimplemented,
            Self::NoMatchValue { .. }
            | Self::Indirect
            | Self::SetWithoutAction
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
