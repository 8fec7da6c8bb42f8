//! The middle of the codec: an entry whose ids are resolved and whose values are numbers in
//! the order of the table's definition. Everything P4Runtime asks of any table is checked
//! here; what a number means is [`super::typed`]'s.

use super::CodecError;
use crate::{
    prefix::mask,
    raw,
    tables::{Action, Field, MatchKind, Table, TableKind},
};

pub(super) struct Row {
    pub(super) kind: TableKind,
    /// One for each field of the table.
    pub(super) fields: Vec<FieldValue>,
    /// None in a key; one, or in a table with a selector several.
    pub(super) calls: Vec<Call>,
    pub(super) priority: i32,
}

/// An action with its parameters, in the order of their definition.
pub(super) struct Call {
    pub(super) action: &'static Action,
    pub(super) values: Vec<u128>,
    /// 0 where the table has no selector.
    pub(super) weight: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldValue {
    Exact(u128),
    /// No bits of `value` are outside `mask`; a mask of 0 matches anything.
    Masked {
        value: u128,
        mask: u128,
    },
    Optional(Option<u128>),
    /// First and last; `None` matches anything.
    Range(Option<[u128; 2]>),
}

impl Row {
    pub(super) fn from_raw(raw: &raw::TableEntry) -> Result<Self, CodecError> {
        let row = Self::key_from_raw(raw)?;
        let table = row.table();
        match (table.has_priority(), row.priority) {
            (true, ..=0) => Err(CodecError::PriorityNeeded {
                table: table.name,
                priority: i64::from(row.priority),
            }),
            (false, priority) if priority != 0 => {
                Err(CodecError::PriorityRefused { table: table.name, priority })
            }
            _ => Ok(row),
        }
    }

    /// As [`Row::from_raw`], with any priority: a read may leave it open.
    pub(super) fn key_from_raw(raw: &raw::TableEntry) -> Result<Self, CodecError> {
        let kind = TableKind::from_id(raw.table_id)
            .ok_or(CodecError::UnknownTable { table_id: raw.table_id })?;
        let table = kind.table();
        let mut given: Vec<Option<&raw::MatchValue>> = vec![None; table.fields.len()];
        for found in &raw.matches {
            let index =
                table.fields.iter().position(|field| field.id == found.field_id).ok_or(
                    CodecError::UnknownField { table: table.name, field_id: found.field_id },
                )?;
            if given[index].replace(&found.value).is_some() {
                let name = table.fields[index].name;
                return Err(CodecError::FieldTwice { table: table.name, name });
            }
        }
        let fields = table.fields.iter().zip(given);
        let fields = fields
            .map(|(field, value)| read_field(table, field, value))
            .collect::<Result<_, _>>()?;
        let calls = raw.action.as_ref().map_or(Ok(Vec::new()), |action| read_calls(table, action));
        Ok(Self { kind, fields, calls: calls?, priority: raw.priority })
    }

    pub(super) fn to_raw(&self) -> raw::TableEntry {
        let fields = self.table().fields.iter().zip(&self.fields);
        raw::TableEntry {
            table_id: self.table().id,
            matches: fields.filter_map(|(field, value)| write_field(field, *value)).collect(),
            action: match (&self.calls[..], self.table().selector()) {
                ([], _) => None,
                ([call, ..], None) => Some(raw::TableAction::One(call.to_raw())),
                (calls, Some(_)) => Some(raw::TableAction::Set(
                    calls
                        .iter()
                        .map(|call| raw::WeightedAction {
                            action: call.to_raw(),
                            weight: i32::try_from(call.weight).expect("of the selector's range"),
                        })
                        .collect(),
                )),
            },
            priority: self.priority,
        }
    }

    pub(super) fn table(&self) -> &'static Table {
        self.kind.table()
    }
}

impl Call {
    fn to_raw(&self) -> raw::Action {
        let params = self.action.params.iter().zip(&self.values);
        let params = params
            .map(|(param, value)| raw::Param { param_id: param.id, value: raw::canonical(*value) });
        raw::Action { action_id: self.action.id, params: params.collect() }
    }
}

fn read_field(
    table: &'static Table,
    field: &'static Field,
    value: Option<&raw::MatchValue>,
) -> Result<FieldValue, CodecError> {
    use raw::MatchValue::{Exact, Lpm, Optional, Range, Ternary};
    let (table, name) = (table.name, field.name);
    let number = |bytes: &[u8]| number(table, name, field.width, bytes);
    let masked = |value: u128, mask: u128| match value & !mask {
        0 => Ok(FieldValue::Masked { value, mask }),
        _ => Err(CodecError::BitsOutsideMask { table, name }),
    };
    match (field.kind, value) {
        (MatchKind::Exact, Some(Exact(value))) => Ok(FieldValue::Exact(number(value)?)),
        (MatchKind::Exact, None) => Err(CodecError::MissingField { table, name }),
        (MatchKind::Optional, Some(Optional(value))) => {
            Ok(FieldValue::Optional(Some(number(value)?)))
        }
        (MatchKind::Optional, None) => Ok(FieldValue::Optional(None)),
        (MatchKind::Range, Some(Range { low, high })) => {
            let [low, high] = [number(low)?, number(high)?];
            if low > high {
                return Err(CodecError::RangeEnds { table, name, low, high });
            }
            // P4Runtime §9.1.1: what matches anything is left out.
            if low == 0 && high == u128::MAX >> (128 - field.width) {
                return Err(CodecError::DontCare { table, name });
            }
            Ok(FieldValue::Range(Some([low, high])))
        }
        (MatchKind::Range, None) => Ok(FieldValue::Range(None)),
        (MatchKind::Lpm | MatchKind::Ternary, None) => Ok(FieldValue::Masked { value: 0, mask: 0 }),
        (MatchKind::Lpm, Some(Lpm { prefix_len: 0, .. })) => {
            Err(CodecError::DontCare { table, name })
        }
        (MatchKind::Lpm, Some(Lpm { value, prefix_len })) => {
            let value = number(value)?;
            let len = u8::try_from(*prefix_len)
                .ok()
                .filter(|len| u32::from(*len) <= field.width)
                .ok_or(CodecError::PrefixLength {
                table,
                name,
                prefix_len: *prefix_len,
                width: field.width,
            })?;
            masked(value, mask(len))
        }
        (MatchKind::Ternary, Some(Ternary { value, mask })) => {
            let (value, mask) = (number(value)?, number(mask)?);
            if mask == 0 {
                return Err(CodecError::DontCare { table, name });
            }
            masked(value, mask)
        }
        (expected, Some(found)) => Err(CodecError::FieldKind {
            table,
            name,
            expected: expected.name(),
            found: found.kind(),
        }),
    }
}

fn write_field(field: &Field, value: FieldValue) -> Option<raw::FieldMatch> {
    let value = match value {
        FieldValue::Exact(value) => raw::MatchValue::Exact(raw::canonical(value)),
        FieldValue::Optional(value) => raw::MatchValue::Optional(raw::canonical(value?)),
        FieldValue::Range(range) => {
            let [low, high] = range?.map(raw::canonical);
            raw::MatchValue::Range { low, high }
        }
        FieldValue::Masked { mask: 0, .. } => return None,
        FieldValue::Masked { value, mask } if field.kind == MatchKind::Lpm => {
            raw::MatchValue::Lpm {
                value: raw::canonical(value),
                prefix_len: mask.leading_ones() as i32, // at most 128
            }
        }
        FieldValue::Masked { value, mask } => {
            raw::MatchValue::Ternary { value: raw::canonical(value), mask: raw::canonical(mask) }
        }
    };
    Some(raw::FieldMatch { field_id: field.id, value })
}

/// P4Runtime 1.4 §9.1.2 says which kind of action a table takes, §9.2.3 what a set may be.
fn read_calls(table: &'static Table, raw: &raw::TableAction) -> Result<Vec<Call>, CodecError> {
    let name = table.name;
    match (raw, table.selector()) {
        (raw::TableAction::One(action), None) => Ok(vec![read_action(table, action, 0)?]),
        (raw::TableAction::One(_), Some(_)) => Err(CodecError::SetNeeded { table: name }),
        (raw::TableAction::Set(_), None) => Err(CodecError::SetRefused { table: name }),
        (raw::TableAction::Set(set), Some(selector)) => {
            let (count, most) = (set.len(), selector.max_group_size);
            if count == 0 {
                return Err(CodecError::EmptySet { table: name });
            }
            if count > most as usize {
                return Err(CodecError::SetSize { table: name, count, most });
            }
            let calls = set.iter().map(|weighted| {
                let (weight, most) = (weighted.weight, selector.max_weight);
                let good = u32::try_from(weight).ok().filter(|w| (1..=most).contains(w));
                let good = good.ok_or(CodecError::Weight { table: name, weight, most })?;
                read_action(table, &weighted.action, good)
            });
            calls.collect()
        }
    }
}

fn read_action(table: &'static Table, raw: &raw::Action, weight: u32) -> Result<Call, CodecError> {
    let action = table
        .actions
        .iter()
        .find(|action| action.id == raw.action_id)
        .ok_or(CodecError::UnknownAction { table: table.name, action_id: raw.action_id })?;
    let mut values = vec![None; action.params.len()];
    for found in &raw.params {
        let index = action.params.iter().position(|param| param.id == found.param_id).ok_or(
            CodecError::UnknownParam {
                table: table.name,
                action: action.name,
                param_id: found.param_id,
            },
        )?;
        let param = &action.params[index];
        let value = number(table.name, param.name, param.width, &found.value)?;
        if values[index].replace(value).is_some() {
            return Err(CodecError::ParamTwice { table: table.name, name: param.name });
        }
    }
    let values = action.params.iter().zip(values).map(|(param, value)| {
        value.ok_or(CodecError::MissingParam { table: table.name, name: param.name })
    });
    Ok(Call { action, values: values.collect::<Result<_, _>>()?, weight })
}

fn number(
    table: &'static str,
    name: &'static str,
    width: u32,
    bytes: &[u8],
) -> Result<u128, CodecError> {
    if bytes.is_empty() {
        return Err(CodecError::EmptyValue { table, name });
    }
    raw::number(bytes)
        .filter(|value| 128 - value.leading_zeros() <= width)
        .ok_or(CodecError::TooWide { table, name, width })
}
