use super::*;
use selvedge_pipeline::{
    ClassifierAction, ClassifierEntry, Entry, GenerationEntry, PolicyEntry, PolicyId, PortEntry,
    PortId, PortKind, SliceSet, TableKind,
};
use selvedge_southbound::convert;
use selvedge_southbound::p4::v1::stream_message_response::Update as Said;

use crate::backend::memory::MemoryTables;

struct Client {
    id: ClientId,
    inbox: mpsc::Receiver<Result<p4v1::StreamMessageResponse, Status>>,
}

impl Client {
    fn new(core: &mut Core<MemoryTables>) -> Self {
        let (outbox, inbox) = mpsc::channel(OUTBOX);
        Self { id: core.connect(outbox), inbox }
    }

    /// Codes of the arbitrations heard since last asked.
    fn heard(&mut self) -> Vec<i32> {
        let mut codes = Vec::new();
        while let Ok(message) = self.inbox.try_recv() {
            match message.unwrap().update {
                Some(Said::Arbitration(update)) => codes.push(update.status.unwrap().code),
                Some(Said::Error(error)) => codes.push(-error.canonical_code),
                other => panic!("{other:?}"),
            }
        }
        codes
    }
}

fn core(mode: Mode) -> Core<MemoryTables> {
    Core::new(MemoryTables::default(), no_ports(), mode, 1).unwrap()
}

fn no_ports() -> SendFrame {
    Box::new(|_, _| Err(io::ErrorKind::NotFound.into()))
}

fn packet_out(port: &[u8], payload: &[u8]) -> p4v1::StreamMessageRequest {
    let metadata = vec![p4v1::PacketMetadata { metadata_id: 1, value: port.to_vec() }];
    let packet = p4v1::PacketOut { payload: payload.to_vec(), metadata };
    let update = Some(p4v1::stream_message_request::Update::Packet(packet));
    p4v1::StreamMessageRequest { update }
}

fn bid(device_id: u64, role: &str, id: Option<u128>) -> p4v1::StreamMessageRequest {
    let role = (!role.is_empty()).then(|| p4v1::Role { name: role.into(), ..Default::default() });
    let election_id = id.map(Into::into);
    let update = p4v1::MasterArbitrationUpdate { device_id, role, election_id, status: None };
    p4v1::StreamMessageRequest {
        update: Some(p4v1::stream_message_request::Update::Arbitration(update)),
    }
}

fn write(role: &str, id: Option<u128>, entries: &[Entry]) -> p4v1::WriteRequest {
    let update = |entry| p4v1::Update {
        r#type: p4v1::update::Type::Insert.into(),
        entity: Some(convert::entity(convert::entry_to_wire(entry).unwrap())),
    };
    p4v1::WriteRequest {
        device_id: 1,
        role: role.into(),
        election_id: id.map(Into::into),
        updates: entries.iter().map(update).collect(),
        ..Default::default()
    }
}

fn port(port: u16) -> Entry {
    Entry::Port(PortEntry { port: PortId(port), kind: PortKind::Access })
}

fn code(result: Result<(), Status>) -> tonic::Code {
    result.map_or_else(|status| status.code(), |()| tonic::Code::Ok)
}

/// Of each update of a batch in which something failed.
fn codes(result: Result<(), Status>) -> Vec<Code> {
    let results = status::update_results(&result.unwrap_err()).unwrap();
    results.into_iter().map(|r| r.map_or_else(|error| error.code, |()| Code::Ok)).collect()
}

#[test]
fn only_the_primary_writes() {
    let mut core = core(Mode::Unmanaged);
    let (mut first, mut second) = (Client::new(&mut core), Client::new(&mut core));
    assert_eq!(code(core.write(&write("", Some(2), &[port(1)]))), tonic::Code::NotFound);
    core.hear(first.id, bid(1, "", Some(2))).unwrap();
    core.hear(second.id, bid(1, "", Some(1))).unwrap();
    assert_eq!((first.heard(), second.heard()), (vec![0], vec![6]));
    let cases = [
        (write("", Some(2), &[port(1)]), tonic::Code::Ok),
        (write("", Some(1), &[port(2)]), tonic::Code::PermissionDenied),
        (write("", None, &[port(2)]), tonic::Code::PermissionDenied),
        (write("x", Some(2), &[port(2)]), tonic::Code::NotFound),
        (p4v1::WriteRequest { device_id: 2, ..write("", Some(2), &[]) }, tonic::Code::NotFound),
        (
            p4v1::WriteRequest { atomicity: 2, ..write("", Some(2), &[port(2)]) },
            tonic::Code::Unimplemented,
        ),
    ];
    for (request, want) in cases {
        assert_eq!(code(core.write(&request)), want, "{request:?}");
    }
    assert_eq!(core.tables().entries(TableKind::Port).unwrap(), [port(1)]);

    // The primary goes: the other is told, and is not primary for that.
    core.disconnect(first.id);
    assert_eq!(second.heard(), [5]);
    assert_eq!(code(core.write(&write("", Some(1), &[port(2)]))), tonic::Code::PermissionDenied);
    core.hear(second.id, bid(1, "", Some(2))).unwrap();
    assert_eq!(second.heard(), [0]);
    assert_eq!(code(core.write(&write("", Some(2), &[port(2)]))), tonic::Code::Ok);
}

#[test]
fn a_batch_that_is_to_be_undone_is_so_with_its_first_error() {
    let mut core = core(Mode::Unmanaged);
    let client = Client::new(&mut core);
    core.hear(client.id, bid(1, "", Some(1))).unwrap();
    core.write(&write("", Some(1), &[port(1), port(2)])).unwrap();
    let whole = |mut request: p4v1::WriteRequest| {
        request.atomicity = p4v1::write_request::Atomicity::RollbackOnError.into();
        request
    };
    let mut request = whole(write("", Some(1), &[port(3), port(1), port(1), port(1), port(4)]));
    // Removed, put back, and put once more; 4 is not tried.
    request.updates[1].r#type = p4v1::update::Type::Delete.into();
    let codes = codes(core.write(&request));
    use Code::{Aborted, AlreadyExists};
    assert_eq!(codes, [Aborted, Aborted, Aborted, AlreadyExists, Aborted]);
    assert_eq!(core.tables().entries(TableKind::Port).unwrap(), [port(1), port(2)]);

    request.updates.remove(3);
    core.write(&request).unwrap();
    let held = [1, 2, 3, 4].map(port);
    assert_eq!(core.tables().entries(TableKind::Port).unwrap(), held);
}

#[test]
fn only_what_packets_see_at_once_is_taken_for_it() {
    let mut core = core(Mode::Unmanaged);
    let client = Client::new(&mut core);
    core.hear(client.id, bid(1, "", Some(1))).unwrap();
    let mut at_once = |entries: &[Entry]| {
        let mut request = write("", Some(1), entries);
        request.atomicity = p4v1::write_request::Atomicity::DataplaneAtomic.into();
        core.write(&request)
    };
    let policy = |id| Entry::Policy(PolicyEntry::one(PolicyId(id), vec![7]));
    let rule = |priority, action| {
        Entry::Classifier(Box::new(ClassifierEntry {
            priority,
            source: None,
            destination: None,
            protocol: Some(17),
            source_ports: None,
            destination_ports: None,
            dscp: None,
            slice_set: Some(SliceSet(3)),
            endpoint_tag: None,
            tunnel_id: None,
            action,
        }))
    };
    let mark = |priority| rule(priority, ClassifierAction::Mark(46));
    let refused = [vec![port(1)], vec![policy(1), policy(2)], vec![mark(1), policy(1)]];
    for entries in refused {
        assert_eq!(code(at_once(&entries)), tonic::Code::Unimplemented, "{entries:?}");
    }
    at_once(&[mark(1), mark(2)]).unwrap();
    at_once(&[policy(1)]).unwrap();
    // All or none.
    let again = codes(at_once(&[mark(3), rule(2, ClassifierAction::Drop)]));
    assert_eq!(again, [Code::Aborted, Code::AlreadyExists]);
    let held = |table| core.tables().entries(table).unwrap();
    assert_eq!(held(TableKind::Port), []);
    assert_eq!(held(TableKind::Classifier), [mark(1), mark(2)]);
    assert_eq!(held(TableKind::Policy), [policy(1)]);
}

#[test]
fn a_batch_goes_on_after_an_error() {
    let mut core = core(Mode::Unmanaged);
    let client = Client::new(&mut core);
    core.hear(client.id, bid(1, "", Some(1))).unwrap();
    let codes = codes(core.write(&write("", Some(1), &[port(1), port(1), port(99), port(2)])));
    assert_eq!(codes, [Code::Ok, Code::AlreadyExists, Code::InvalidArgument, Code::Ok]);
    assert_eq!(core.tables().entries(TableKind::Port).unwrap().len(), 2);
}

#[test]
fn a_managed_switch_remembers_and_has_one_role() {
    let mut core = core(Mode::Managed);
    let mut client = Client::new(&mut core);
    let refused = core.hear(client.id, bid(1, "", Some(9))).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    core.hear(client.id, bid(1, CONTROLLER_ROLE, Some(9))).unwrap();
    assert_eq!(client.heard(), [0]);
    core.disconnect(client.id);
    assert_eq!(core.tables().election().unwrap(), Some(9));

    // The next agent, over the same tables.
    let mut core = Core::new(core.tables, no_ports(), Mode::Managed, 1).unwrap();
    let mut client = Client::new(&mut core);
    core.hear(client.id, bid(1, CONTROLLER_ROLE, Some(8))).unwrap();
    assert_eq!(client.heard(), [5]);
    let request = write(CONTROLLER_ROLE, Some(8), &[port(1)]);
    assert_eq!(code(core.write(&request)), tonic::Code::PermissionDenied);
    core.hear(client.id, bid(1, CONTROLLER_ROLE, Some(10))).unwrap();
    assert_eq!(client.heard(), [0]);
    assert_eq!(core.tables().election().unwrap(), Some(10));

    // Unmanaged over the same tables: nothing is remembered.
    let mut core = Core::new(core.tables, no_ports(), Mode::Unmanaged, 1).unwrap();
    let mut client = Client::new(&mut core);
    core.hear(client.id, bid(1, CONTROLLER_ROLE, Some(1))).unwrap();
    assert_eq!(client.heard(), [0]);
    assert_eq!(core.tables().election().unwrap(), Some(10));
}

#[test]
fn streams_end_with_what_the_specification_says() {
    let mut core = core(Mode::Unmanaged);
    let (mut first, second) = (Client::new(&mut core), Client::new(&mut core));
    core.hear(first.id, bid(1, "", Some(2))).unwrap();
    let configured = |mut message: p4v1::StreamMessageRequest| {
        let Some(p4v1::stream_message_request::Update::Arbitration(update)) = &mut message.update
        else {
            panic!("an arbitration");
        };
        update.role = Some(p4v1::Role { config: Some(Default::default()), ..Default::default() });
        message
    };
    let cases = [
        (second.id, bid(7, "", Some(3)), tonic::Code::NotFound),
        (second.id, bid(1, "", Some(2)), tonic::Code::InvalidArgument),
        (second.id, configured(bid(1, "", Some(3))), tonic::Code::InvalidArgument),
        (first.id, bid(1, "other", Some(3)), tonic::Code::FailedPrecondition),
    ];
    for (client, message, want) in cases {
        assert_eq!(code(core.hear(client, message.clone())), want, "{message:?}");
    }
    let ack = p4v1::stream_message_request::Update::DigestAck(Default::default());
    core.hear(first.id, p4v1::StreamMessageRequest { update: Some(ack) }).unwrap();
    core.hear(first.id, p4v1::StreamMessageRequest { update: None }).unwrap();
    assert_eq!(first.heard(), [0, -12]);
}

#[test]
fn a_primary_sends_frames_on_ports_that_are_there() {
    let (frames, sent) = std::sync::mpsc::channel();
    let send: SendFrame = Box::new(move |port, frame| match port.0 {
        1 => frames.send(frame.to_vec()).map_err(io::Error::other),
        2 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Err(io::ErrorKind::NotFound.into()),
    });
    let mut core = Core::new(MemoryTables::default(), send, Mode::Unmanaged, 1).unwrap();
    let (mut first, mut second) = (Client::new(&mut core), Client::new(&mut core));
    core.hear(first.id, bid(1, "", Some(2))).unwrap();
    core.hear(second.id, bid(1, "", Some(1))).unwrap();
    let (_, _) = (first.heard(), second.heard());
    let frame = [7; 14];
    core.hear(first.id, packet_out(&[1], &frame)).unwrap();
    assert_eq!((first.heard(), sent.try_iter().collect()), (vec![], vec![frame.to_vec()]));
    core.hear(second.id, packet_out(&[1], &frame)).unwrap();
    assert_eq!(second.heard(), [-(Code::PermissionDenied as i32)]);

    let renamed = |mut message: p4v1::StreamMessageRequest| {
        if let Some(p4v1::stream_message_request::Update::Packet(packet)) = &mut message.update {
            packet.metadata[0].metadata_id = 2;
        }
        message
    };
    let nothing = p4v1::stream_message_request::Update::Packet(p4v1::PacketOut {
        payload: frame.to_vec(),
        ..Default::default()
    });
    let cases = [
        (packet_out(&[2], &frame), Code::Unavailable),
        (packet_out(&[3], &frame), Code::NotFound),
        (packet_out(&[0], &frame), Code::InvalidArgument),
        (packet_out(&[1, 0], &frame), Code::InvalidArgument),
        (packet_out(&[], &frame), Code::InvalidArgument),
        (packet_out(&[1], &frame[1..]), Code::InvalidArgument),
        (packet_out(&[1], &[0; 65_536]), Code::InvalidArgument),
        (renamed(packet_out(&[1], &frame)), Code::InvalidArgument),
        (p4v1::StreamMessageRequest { update: Some(nothing) }, Code::InvalidArgument),
    ];
    for (n, (message, want)) in cases.into_iter().enumerate() {
        core.hear(first.id, message).unwrap();
        assert_eq!(first.heard(), [-(want as i32)], "case {n}");
    }
    assert_eq!(sent.try_iter().count(), 0);
}

#[test]
fn what_comes_in_goes_to_primaries_that_keep_up() {
    let mut core = core(Mode::Unmanaged);
    let (mut first, mut second) = (Client::new(&mut core), Client::new(&mut core));
    core.hear(first.id, bid(1, "", Some(2))).unwrap();
    core.hear(second.id, bid(1, "", Some(1))).unwrap();
    let (_, _) = (first.heard(), second.heard());
    for _ in 0..2 * OUTBOX {
        core.packet_in(PortId(9), &[1, 2, 3]);
    }
    assert!(second.inbox.try_recv().is_err(), "a backup");
    let mut heard = 0;
    while let Ok(message) = first.inbox.try_recv() {
        let Some(Said::Packet(packet)) = message.unwrap().update else { panic!("a packet") };
        let metadata = p4v1::PacketMetadata { metadata_id: 1, value: vec![9] };
        assert_eq!((packet.payload, packet.metadata), (vec![1, 2, 3], vec![metadata]));
        heard += 1;
    }
    assert_eq!(heard, OUTBOX / 2, "the other half is for answers");
    assert!(core.clients.contains_key(&first.id), "nobody is cut off for packets");

    let mut core = self::core(Mode::Managed);
    let mut client = Client::new(&mut core);
    core.hear(client.id, bid(1, CONTROLLER_ROLE, Some(1))).unwrap();
    assert_eq!(client.heard(), [0]);
    core.packet_in(PortId(9), &[1, 2, 3]);
    assert!(client.inbox.try_recv().is_err(), "a managed switch keeps them");
}

#[test]
fn who_does_not_read_is_cut_off() {
    let mut core = core(Mode::Unmanaged);
    let mut deaf = Client::new(&mut core);
    for id in 0..=OUTBOX as u128 {
        core.hear(deaf.id, bid(1, "", Some(id))).unwrap();
    }
    assert!(!core.clients.contains_key(&deaf.id));
    assert_eq!(deaf.heard().len(), OUTBOX);
    assert!(deaf.inbox.is_closed());
}

#[test]
fn pipelines() {
    use p4v1::set_forwarding_pipeline_config_request::Action;
    let ours = || {
        Some(p4v1::ForwardingPipelineConfig {
            p4info: Some(p4info::p4info()),
            cookie: Some(p4v1::forwarding_pipeline_config::Cookie { cookie: 42 }),
            ..Default::default()
        })
    };
    let other = || {
        let mut config = ours().unwrap();
        config.p4info.as_mut().unwrap().tables.pop();
        Some(config)
    };
    let program =
        || Some(p4v1::ForwardingPipelineConfig { p4_device_config: vec![1], ..ours().unwrap() });
    let none = || Some(p4v1::ForwardingPipelineConfig::default());
    // (action, configuration, code, entries kept)
    let script = [
        (Action::Unspecified, ours(), tonic::Code::InvalidArgument, true),
        (Action::Verify, ours(), tonic::Code::Ok, true),
        (Action::Verify, other(), tonic::Code::InvalidArgument, true),
        (Action::Verify, program(), tonic::Code::InvalidArgument, true),
        (Action::Verify, none(), tonic::Code::InvalidArgument, true),
        (Action::Verify, None, tonic::Code::InvalidArgument, true),
        (Action::Commit, None, tonic::Code::NotFound, true),
        (Action::VerifyAndSave, ours(), tonic::Code::Ok, true),
        (Action::Commit, ours(), tonic::Code::InvalidArgument, true),
        (Action::Commit, None, tonic::Code::Ok, true),
        (Action::Commit, None, tonic::Code::NotFound, true),
        (Action::ReconcileAndCommit, ours(), tonic::Code::Ok, true),
        (Action::VerifyAndCommit, other(), tonic::Code::InvalidArgument, true),
        (Action::VerifyAndCommit, ours(), tonic::Code::Ok, false),
    ];
    let mut core = core(Mode::Unmanaged);
    let client = Client::new(&mut core);
    core.hear(client.id, bid(1, "", Some(1))).unwrap();
    let generation = Entry::Generation(GenerationEntry { generation: 3 });
    core.write(&write("", Some(1), &[port(1), generation])).unwrap();
    for (step, (action, config, want, kept)) in script.into_iter().enumerate() {
        let request = p4v1::SetForwardingPipelineConfigRequest {
            device_id: 1,
            election_id: Some(1u128.into()),
            action: action.into(),
            config,
            ..Default::default()
        };
        assert_eq!(code(core.set_pipeline(&request)), want, "step {step}");
        let entries = core.tables().entries(TableKind::Port).unwrap();
        assert_eq!(!entries.is_empty(), kept, "step {step}");
    }
    let backup = p4v1::SetForwardingPipelineConfigRequest {
        device_id: 1,
        election_id: Some(0u128.into()),
        action: Action::Verify.into(),
        config: ours(),
        ..Default::default()
    };
    assert_eq!(code(core.set_pipeline(&backup)), tonic::Code::PermissionDenied);

    let get = |response_type| {
        let request = p4v1::GetForwardingPipelineConfigRequest { device_id: 1, response_type };
        let config = core.pipeline(&request).unwrap();
        (config.p4info.is_some(), config.cookie.unwrap().cookie)
    };
    assert_eq!(
        [get(0), get(1), get(2), get(3)],
        [(true, 42), (false, 42), (true, 42), (false, 42)]
    );
}
