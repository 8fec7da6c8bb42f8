//! Messages as the bytes that any P4Runtime program puts on the wire, written out by hand
//! from the field numbers of the specification.

use prost::Message;
use selvedge_pipeline::*;

use crate::{
    convert,
    google::rpc,
    p4::{config::v1 as p4config, v1 as p4v1},
};

/// A length-delimited field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(number < 16 && bytes.len() < 128, "one byte each");
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

fn varint(number: u8, value: u8) -> Vec<u8> {
    assert!(number < 16 && value < 128, "one byte each");
    vec![number << 3, value]
}

#[test]
fn a_write_request() {
    // update.entity.table_entry: endpoint, port 1, 10.1.0.0/16, bind(2, 1, 0).
    let table_id = [0x08, 0x82, 0x80, 0x80, 0x10]; // 0x02000002
    let port = [varint(1, 1), field(2, &field(1, &[1]))].concat();
    let prefix = [0xff, 0xff, 10, 1, 0, 0];
    let prefix = [varint(1, 2), field(4, &[field(1, &prefix), varint(2, 112)].concat())].concat();
    let param = |id, value: &[u8]| field(4, &[varint(2, id), field(3, value)].concat());
    let action =
        [&[0x08, 0x83, 0x80, 0x80, 0x08][..], &param(1, &[2]), &param(2, &[1]), &param(3, &[0])]
            .concat();
    let table_entry =
        [&table_id[..], &field(2, &port), &field(2, &prefix), &field(3, &field(1, &action))]
            .concat();
    let update = [varint(1, 1), field(2, &field(2, &table_entry))].concat();
    let election_id = [varint(1, 3), varint(2, 4)].concat();
    let request = [
        varint(1, 7),
        field(3, &election_id),
        field(4, &update),
        varint(5, 1),
        field(6, b"selvedge"),
        vec![0x98, 0x06, 0x01], // field 99: not in any version we know
    ]
    .concat();

    let entry = Entry::Endpoint(EndpointEntry {
        port: PortId(1),
        prefix: "10.1.0.0/16".parse().unwrap(),
        slice_set: SliceSet(2),
        direction: Direction::Uplink,
        endpoint: EndpointId::NONE,
        tag: EndpointTag::NONE,
    });
    let wire = convert::entry_to_wire(&entry).unwrap();
    assert_eq!(wire.encode_to_vec(), table_entry);
    let decoded = p4v1::WriteRequest::decode(&*request).unwrap();
    let expected = p4v1::WriteRequest {
        device_id: 7,
        election_id: Some(((3u128 << 64) | 4).into()),
        updates: vec![p4v1::Update {
            r#type: p4v1::update::Type::Insert.into(),
            entity: Some(convert::entity(wire.clone())),
        }],
        atomicity: p4v1::write_request::Atomicity::RollbackOnError.into(),
        role: "selvedge".to_owned(),
        ..Default::default()
    };
    assert_eq!(decoded, expected);
    assert_eq!(convert::entry_from_wire(&wire), Ok(entry));
}

#[test]
fn ternary_optional_and_priority() {
    let entry = Entry::Classifier(Box::new(ClassifierEntry {
        source: Some("fd00::/8".parse().unwrap()),
        protocol: Some(17),
        ..ClassifierEntry::any(9, ClassifierAction::Drop)
    }));
    let bits = |first| [&[first][..], &[0; 15]].concat();
    let ternary = [field(1, &bits(0xfd)), field(2, &bits(0xff))].concat();
    let source = [varint(1, 1), field(3, &ternary)].concat();
    let protocol = [varint(1, 3), field(7, &field(1, &[17]))].concat();
    let expected = [
        &[0x08, 0x83, 0x80, 0x80, 0x10][..],
        &field(2, &source),
        &field(2, &protocol),
        &field(3, &field(1, &[0x08, 0x84, 0x80, 0x80, 0x08])),
        &varint(4, 9),
    ]
    .concat();
    assert_eq!(convert::entry_to_wire(&entry).unwrap().encode_to_vec(), expected);
}

#[test]
fn a_policy_is_a_set_in_one_shot() {
    let paths = [(7, 3), (9, 1)].map(|(sid, weight)| Path { sids: vec![sid], weight });
    let entry = Entry::Policy(PolicyEntry { policy: PolicyId(5), paths: paths.to_vec() });
    let param = |id, value: &[u8]| field(4, &[varint(2, id), field(3, value)].concat());
    let path = |sid, weight| {
        let ids = (1..).zip([sid, 0, 0, 0, 0, 0]);
        let params: Vec<u8> = ids.flat_map(|(id, sid)| param(id, &[sid])).collect();
        let action = [&[0x08, 0x8a, 0x80, 0x80, 0x08][..], &params].concat();
        field(1, &[field(1, &action), varint(2, weight)].concat())
    };
    let key = field(2, &[varint(1, 1), field(2, &field(1, &[5]))].concat());
    let set = [path(7, 3), path(9, 1)].concat();
    let action = field(3, &field(4, &set));
    let expected = [&[0x08, 0x86, 0x80, 0x80, 0x10][..], &key, &action].concat();
    let wire = convert::entry_to_wire(&entry).unwrap();
    assert_eq!(wire.encode_to_vec(), expected);
    assert_eq!(convert::entry_from_wire(&wire), Ok(entry));
}

/// What P4Runtime has for sets and this switch does not.
#[test]
fn what_our_sets_do_not_have() {
    use convert::ConvertError::{Indirect, SetSettings, SetWithoutAction, WatchPort};
    use p4v1::{action_profile_action::WatchKind, table_action::Type};
    let policy = Entry::Policy(PolicyEntry::one(PolicyId(5), vec![7]));
    let good = convert::entry_to_wire(&policy).unwrap();
    let set = |edit: fn(&mut p4v1::ActionProfileActionSet)| {
        let mut wire = good.clone();
        match wire.action.as_mut().unwrap().r#type.as_mut() {
            Some(Type::ActionProfileActionSet(set)) => edit(set),
            other => panic!("{other:?}"),
        }
        convert::entry_from_wire(&wire)
    };
    assert_eq!(set(|set| set.action_selection_mode = 2), Err(SetSettings));
    assert_eq!(set(|set| set.size_semantics = 1), Err(SetSettings));
    assert_eq!(set(|set| set.group_action = Some(Default::default())), Err(SetSettings));
    assert_eq!(set(|set| set.action_profile_actions[0].action = None), Err(SetWithoutAction));
    assert_eq!(
        set(|set| set.action_profile_actions[0].watch_kind = Some(WatchKind::WatchPort(vec![1]))),
        Err(WatchPort)
    );
    assert_eq!(
        set(|set| set.action_profile_actions[0].watch_kind = Some(WatchKind::WatchPort(vec![]))),
        Ok(policy.clone())
    );
    let mut wire = good.clone();
    wire.action = Some(p4v1::TableAction { r#type: Some(Type::ActionProfileGroupId(1)) });
    assert_eq!(convert::entry_from_wire(&wire), Err(Indirect));
    let codes = [Indirect, SetSettings, WatchPort, SetWithoutAction].map(|error| error.code());
    use Code::{InvalidArgument, Unimplemented};
    assert_eq!(codes, [InvalidArgument, Unimplemented, Unimplemented, InvalidArgument]);
}

#[test]
fn arbitration() {
    let role = field(3, b"r");
    let status = varint(1, 6);
    let update =
        [varint(1, 1), field(2, &role), field(3, &varint(2, 5)), field(4, &status)].concat();
    let message = p4v1::MasterArbitrationUpdate {
        device_id: 1,
        role: Some(p4v1::Role { name: "r".to_owned(), ..Default::default() }),
        election_id: Some(5u128.into()),
        status: Some(rpc::Status { code: 6, ..Default::default() }),
    };
    let request = p4v1::StreamMessageRequest {
        update: Some(p4v1::stream_message_request::Update::Arbitration(message.clone())),
    };
    assert_eq!(request.encode_to_vec(), field(1, &update));
    let response = p4v1::StreamMessageResponse {
        update: Some(p4v1::stream_message_response::Update::Arbitration(message)),
    };
    assert_eq!(response.encode_to_vec(), field(1, &update));
}

#[test]
fn p4info_of_a_table() {
    let match_field = p4config::MatchField {
        id: 1,
        name: "port".to_owned(),
        bitwidth: 8,
        r#match: Some(p4config::match_field::Match::MatchType(
            p4config::match_field::MatchType::Exact.into(),
        )),
        ..Default::default()
    };
    let expected = [varint(1, 1), field(2, b"port"), varint(4, 8), varint(5, 2)].concat();
    assert_eq!(match_field.encode_to_vec(), expected);
    let table = p4config::Table {
        match_fields: vec![match_field],
        action_refs: vec![p4config::ActionRef { id: 3, scope: 1, ..Default::default() }],
        size: 100,
        ..Default::default()
    };
    let expected =
        [field(2, &expected), field(3, &[varint(1, 3), varint(3, 1)].concat()), varint(8, 100)];
    assert_eq!(table.encode_to_vec(), expected.concat());
}

/// Parts of P4Runtime that no table of ours has.
#[test]
fn what_our_tables_do_not_have() {
    use convert::ConvertError::*;
    let port = Entry::Port(PortEntry { port: PortId(1), kind: PortKind::Access });
    let good = convert::entry_to_wire(&port).unwrap();
    type Edit = fn(&mut p4v1::TableEntry);
    let cases: [(Edit, convert::ConvertError, Code); 8] = [
        (|entry| entry.is_default_action = true, DefaultEntry, Code::PermissionDenied),
        (|entry| entry.is_const = true, Const, Code::InvalidArgument),
        (
            |entry| entry.meter_config = Some(Default::default()),
            NoDirectMeter,
            Code::InvalidArgument,
        ),
        (
            |entry| entry.counter_data = Some(Default::default()),
            NoDirectCounter,
            Code::InvalidArgument,
        ),
        (|entry| entry.idle_timeout_ns = 1, NoIdleTimeout, Code::InvalidArgument),
        (
            |entry| entry.r#match[0].field_match_type = None,
            NoMatchValue { field_id: 1 },
            Code::InvalidArgument,
        ),
        (
            |entry| {
                let member = p4v1::table_action::Type::ActionProfileMemberId(1);
                entry.action = Some(p4v1::TableAction { r#type: Some(member) });
            },
            Indirect,
            Code::InvalidArgument,
        ),
        (
            |entry| entry.action = None,
            Codec(CodecError::NoAction { table: "port" }),
            Code::InvalidArgument,
        ),
    ];
    for (edit, error, code) in cases {
        let mut wire = good.clone();
        edit(&mut wire);
        let got = convert::entry_from_wire(&wire).unwrap_err();
        assert_eq!((got.code(), &got), (code, &error));
    }
    // A deletion looks at the key alone.
    let mut wire = good;
    wire.action = None;
    wire.idle_timeout_ns = 1;
    assert_eq!(convert::key_from_wire(&wire), Ok(Key::Port(PortId(1))));
}
