//! P4Info and its cookie, from the table definitions.

use prost::Message;
use selvedge_pipeline::{
    CounterKind, TableKind,
    tables::{self, CounterUnit, MatchKind},
};

use crate::p4::config::v1::{
    Action, ActionProfile, ActionRef, ControllerPacketMetadata, Counter, CounterSpec,
    Documentation, MatchField, P4Info, PkgInfo, Preamble, Table, action,
    action_profile::{SelectorSizeSemantics, SumOfMembers},
    action_ref, controller_packet_metadata, counter_spec, match_field,
};

/// What any P4Runtime client needs to read and program a Selvedge switch. The same bytes on
/// every switch of this version.
pub fn p4info() -> P4Info {
    let all = TableKind::ALL.map(TableKind::table);
    P4Info {
        pkg_info: Some(PkgInfo {
            name: "selvedge".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            doc: Some(brief("5G edge fabric over SRv6, in eBPF/XDP")),
            arch: "selvedge-xdp".to_owned(),
            ..Default::default()
        }),
        tables: all
            .iter()
            .map(|table| Table {
                preamble: Some(preamble(table.id, table.name, table.doc)),
                match_fields: table
                    .fields
                    .iter()
                    .map(|field| MatchField {
                        id: field.id,
                        name: field.name.to_owned(),
                        bitwidth: field.width as i32, // at most 128
                        r#match: Some(match_field::Match::MatchType(
                            match field.kind {
                                MatchKind::Exact => match_field::MatchType::Exact,
                                MatchKind::Lpm => match_field::MatchType::Lpm,
                                MatchKind::Ternary => match_field::MatchType::Ternary,
                                MatchKind::Range => match_field::MatchType::Range,
                                MatchKind::Optional => match_field::MatchType::Optional,
                            }
                            .into(),
                        )),
                        doc: Some(brief(field.doc)),
                        ..Default::default()
                    })
                    .collect(),
                action_refs: table
                    .actions
                    .iter()
                    .map(|action| ActionRef {
                        id: action.id,
                        scope: action_ref::Scope::TableOnly.into(),
                        ..Default::default()
                    })
                    .collect(),
                implementation_id: table.selector().map_or(0, |selector| selector.id),
                size: i64::from(table.size),
                ..Default::default()
            })
            .collect(),
        action_profiles: all
            .iter()
            .filter_map(|table| table.selector().map(|selector| (table, selector)))
            .map(|(table, selector)| ActionProfile {
                preamble: Some(preamble(selector.id, selector.name, selector.doc)),
                table_ids: vec![table.id],
                with_selector: true,
                size: i64::from(table.size) * i64::from(selector.max_group_size),
                max_group_size: selector.max_group_size as i32, // a handful
                selector_size_semantics: Some(SelectorSizeSemantics::SumOfMembers(SumOfMembers {
                    max_member_weight: selector.max_weight as i32, // a byte
                })),
                ..Default::default()
            })
            .collect(),
        actions: all
            .iter()
            .flat_map(|table| table.actions)
            .map(|action| Action {
                preamble: Some(preamble(action.id, action.name, action.doc)),
                params: action
                    .params
                    .iter()
                    .map(|param| action::Param {
                        id: param.id,
                        name: param.name.to_owned(),
                        bitwidth: param.width as i32, // at most 128
                        doc: Some(brief(param.doc)),
                        ..Default::default()
                    })
                    .collect(),
            })
            .collect(),
        counters: CounterKind::ALL
            .map(CounterKind::counter)
            .iter()
            .map(|counter| Counter {
                preamble: Some(preamble(counter.id, counter.name, counter.doc)),
                spec: Some(CounterSpec {
                    unit: match counter.unit {
                        CounterUnit::Packets => counter_spec::Unit::Packets,
                        CounterUnit::PacketsAndBytes => counter_spec::Unit::Both,
                    }
                    .into(),
                }),
                size: i64::from(counter.size),
                index_type_name: None,
            })
            .collect(),
        controller_packet_metadata: [&tables::PACKET_IN, &tables::PACKET_OUT]
            .map(|header| ControllerPacketMetadata {
                preamble: Some(preamble(header.id, header.name, header.doc)),
                metadata: vec![controller_packet_metadata::Metadata {
                    id: header.metadata.id,
                    name: header.metadata.name.to_owned(),
                    bitwidth: header.metadata.width as i32, // at most 128
                    ..Default::default()
                }],
            })
            .to_vec(),
        ..Default::default()
    }
}

/// Tells one P4Info from another: FNV-1a, 64 bits, over the encoded message.
pub fn cookie() -> u64 {
    p4info().encode_to_vec().into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn preamble(id: u32, name: &str, doc: &str) -> Preamble {
    Preamble {
        id,
        name: name.to_owned(),
        alias: name.to_owned(),
        annotations: Vec::new(),
        doc: Some(brief(doc)),
    }
}

fn brief(text: &str) -> Documentation {
    Documentation { brief: text.to_owned(), description: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_of_a_table_is_there_once() {
        let info = p4info();
        let ids: Vec<u32> = info.actions.iter().map(|a| a.preamble.as_ref().unwrap().id).collect();
        let refs: Vec<u32> =
            info.tables.iter().flat_map(|table| &table.action_refs).map(|r| r.id).collect();
        assert_eq!(ids, refs);
        assert_eq!(info.tables.len(), TableKind::ALL.len());
        assert_eq!(info.counters.len(), CounterKind::ALL.len());
        let [profile] = &info.action_profiles[..] else { panic!("one action profile") };
        let by_profile = info.tables.iter().filter(|table| table.implementation_id != 0);
        let by_profile: Vec<&str> =
            by_profile.map(|table| table.preamble.as_ref().unwrap().name.as_str()).collect();
        assert_eq!(by_profile, ["policy"]);
        assert_eq!(profile.table_ids, [TableKind::Policy.table().id]);
        assert_eq!(cookie(), cookie());
    }
}
