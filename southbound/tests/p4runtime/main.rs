//! The client against a small switch over loopback: with certificates, without, with wrong
//! ones; batches that fail in part; several controllers.

mod certificates;
mod mutual_tls;
mod pki;
mod server;

use std::net::SocketAddr;

use selvedge_pipeline::{
    Code, CounterKind, Entry, GenerationEntry, NextHopEntry, NodeSid, PolicyEntry, PolicyId,
    PortEntry, PortId, PortKind,
};
use selvedge_southbound::{
    client::{
        CONTROLLER_ROLE, Channel, ChannelEvent, ClientError, P4Client, Target, Update, WriteError,
    },
    limits, p4info,
};

fn target(address: SocketAddr, election_id: u128) -> Target {
    Target {
        uri: format!("http://{address}"),
        tls: None,
        device_id: server::DEVICE,
        role: CONTROLLER_ROLE.to_owned(),
        election_id,
    }
}

async fn connect(address: SocketAddr, election_id: u128) -> (P4Client, Channel) {
    P4Client::connect(target(address, election_id)).await.unwrap()
}

fn port(id: u16, kind: PortKind) -> Entry {
    Entry::Port(PortEntry { port: PortId(id), kind })
}

fn policy(id: u32) -> Entry {
    Entry::Policy(PolicyEntry::one(PolicyId(id), vec![0x12, 0xe001]))
}

#[tokio::test]
async fn entries_go_in_and_come_back() {
    let (address, _server) = server::start(None).await;
    let (client, channel) = connect(address, 1 << 100 | 5).await;
    assert!(channel.is_primary());
    assert_eq!(channel.highest(), 1 << 100 | 5);

    let next =
        NextHopEntry { node: NodeSid(0x12), port: PortId(3), mac: [2, 0, 0, 0, 0, 1], backup: 0 };
    let entries = [
        port(1, PortKind::Access),
        policy(9),
        Entry::NextHop(next),
        Entry::Generation(GenerationEntry { generation: u64::MAX }),
    ];
    client.write(&entries.clone().map(Update::Insert)).await.unwrap();
    let mut read = client.read_entries().await.unwrap();
    read.sort();
    let mut all = entries.to_vec();
    all.sort();
    assert_eq!(read, all);

    let changed = port(1, PortKind::Fabric);
    let changes = [Update::Modify(changed.clone()), Update::Delete(policy(9))];
    client.write(&changes).await.unwrap();
    let read = client.read_entries().await.unwrap();
    assert_eq!(read.len(), 3);
    assert!(read.contains(&changed));
    client.write(&[]).await.unwrap();
}

#[tokio::test]
async fn the_pipeline_and_counters_are_read() {
    let (address, _server) = server::start(None).await;
    let (client, _channel) = connect(address, 1).await;
    assert_eq!(client.cookie().await.unwrap(), p4info::cookie());
    assert_eq!(client.pipeline().await.unwrap(), (p4info::p4info(), p4info::cookie()));
    let cells = client.read_counter(CounterKind::Drops).await.unwrap();
    let cells: Vec<_> = cells.iter().map(|cell| (cell.index, cell.packets, cell.bytes)).collect();
    assert_eq!(cells, [(0, 10, 0), (3, 13, 0)]);
}

#[tokio::test]
async fn each_update_fails_for_itself() {
    let (address, server) = server::start(None).await;
    let (client, _channel) = connect(address, 1).await;
    let updates = [
        Update::Insert(port(1, PortKind::Access)),
        Update::Insert(port(1, PortKind::Fabric)),
        Update::Delete(policy(1)),
        Update::Insert(policy(2)),
    ];
    let Err(WriteError::Updates { failed, attempted }) = client.write(&updates).await else {
        panic!("two of them fail");
    };
    let codes: Vec<_> = failed.iter().map(|failed| (failed.index, failed.code)).collect();
    assert_eq!(codes, [(1, Code::AlreadyExists), (2, Code::NotFound)]);
    assert_eq!((attempted, failed[0].update.clone()), (4, updates[1].clone()));
    assert_eq!(server.state.lock().unwrap().entries.len(), 2);
}

#[tokio::test]
async fn many_updates_go_in_batches_and_stop_at_a_failure() {
    let (address, server) = server::start(None).await;
    let (client, _channel) = connect(address, 1).await;
    let count = limits::MAX_UPDATES_PER_WRITE * 3 + 1;
    let inserts: Vec<_> = (1..=count as u32).map(|id| Update::Insert(policy(id))).collect();
    client.write(&inserts).await.unwrap();
    assert_eq!(server.state.lock().unwrap().writes, 4);
    assert_eq!(client.read_entries().await.unwrap().len(), count);

    // All of the first batch fails: its errors still fit one header.
    let error = client.write(&inserts).await.unwrap_err();
    assert!(error.to_string().starts_with("500 of 500 updates failed, first: update 0 of policy"));
    assert_eq!(server.state.lock().unwrap().writes, 5);
}

#[tokio::test]
async fn what_cannot_be_expressed_is_not_sent() {
    let (address, server) = server::start(None).await;
    let (client, _channel) = connect(address, 1).await;
    let updates = [Update::Insert(policy(1)), Update::Insert(port(0, PortKind::Access))];
    let error = client.write(&updates).await.unwrap_err();
    assert!(matches!(error, WriteError::Encode { index: 1, .. }), "{error}");
    assert_eq!(server.state.lock().unwrap().writes, 0);
}

#[tokio::test]
async fn the_highest_election_id_writes() {
    let (address, _server) = server::start(None).await;
    let (old, mut old_channel) = connect(address, 5).await;
    let (lower, lower_channel) = connect(address, 4).await;
    assert!(!lower_channel.is_primary());
    assert_eq!(lower_channel.highest(), 5);
    let error = lower.write(&[Update::Insert(policy(1))]).await.unwrap_err();
    let WriteError::Client(error) = error else { panic!("{error}") };
    assert_eq!(error.code(), Some(tonic::Code::PermissionDenied));

    let (new, new_channel) = connect(address, 6).await;
    let demoted = ChannelEvent::Arbitration { primary: false, highest: 6 };
    while old_channel.next().await.unwrap() != demoted {}
    assert!(!old_channel.is_primary());
    assert!(old.write(&[Update::Insert(policy(1))]).await.is_err());
    new.write(&[Update::Insert(policy(1))]).await.unwrap();

    // The primary goes: the next one learns of it.
    drop((new, new_channel));
    let promoted = ChannelEvent::Arbitration { primary: true, highest: 5 };
    while old_channel.next().await.unwrap() != promoted {}
    old.write(&[Update::Insert(policy(2))]).await.unwrap();
}

#[tokio::test]
async fn a_switch_that_is_not_there_or_another() {
    let (address, _server) = server::start(None).await;
    let other = Target { device_id: 8, ..target(address, 1) };
    let error = P4Client::connect(other).await.unwrap_err();
    assert_eq!(error.code(), Some(tonic::Code::NotFound));

    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let error = P4Client::connect(target(address, 1)).await.unwrap_err();
    assert!(matches!(&error, ClientError::Connect { uri, .. } if uri.contains("127.0.0.1")));

    let nonsense = Target { uri: "not a uri".to_owned(), ..target(address, 1) };
    assert!(matches!(P4Client::connect(nonsense).await, Err(ClientError::Connect { .. })));
}
