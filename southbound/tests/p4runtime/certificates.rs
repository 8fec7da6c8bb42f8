use std::{net::SocketAddr, path::Path};

use selvedge_southbound::{
    client::{P4Client, Target},
    tls::{Credentials, TlsError, certificate_name},
};
use tempfile::TempDir;
use time::Duration;
use tonic::transport::{Certificate, ClientTlsConfig};

use crate::{pki::Authority, server};

const DAY: Duration = Duration::DAY;

/// A directory with the authority, `s1` and `controller`.
fn pki() -> (TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(dir.path(), &["s1", "192.0.2.2"], DAY);
    authority.issue(dir.path(), &["controller"], DAY);
    (dir, authority)
}

fn load(dir: &Path, name: &str) -> Credentials {
    Credentials::load(dir, name).unwrap()
}

fn target(address: SocketAddr, tls: Option<ClientTlsConfig>) -> Target {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let uri = format!("{scheme}://{address}");
    Target { uri, tls, ..crate::target(address, 1) }
}

#[tokio::test]
async fn both_ends_know_each_other() {
    let (dir, _authority) = pki();
    let (address, server) = server::start(Some(load(dir.path(), "s1").server())).await;
    let tls = load(dir.path(), "controller").client("s1");
    let (client, _channel) = P4Client::connect(target(address, Some(tls))).await.unwrap();
    assert!(client.read_entries().await.unwrap().is_empty());
    assert_eq!(server.state.lock().unwrap().peers, ["controller"]);
}

#[tokio::test]
async fn strangers_are_refused() {
    let (dir, authority) = pki();
    let dir = dir.path();
    let (address, server) = server::start(Some(load(dir, "s1").server())).await;

    authority.issue(dir, &["late"], -DAY);
    let elsewhere = tempfile::tempdir().unwrap();
    Authority::new().issue(elsewhere.path(), &["controller"], DAY);
    // Believes in our authority, but was issued by another.
    std::fs::copy(dir.join("ca.pem"), elsewhere.path().join("ca.pem")).unwrap();
    let ca = Certificate::from_pem(std::fs::read(dir.join("ca.pem")).unwrap());

    // (who, its TLS)
    let cases = [
        ("in the clear", None),
        ("no certificate", Some(ClientTlsConfig::new().ca_certificate(ca).domain_name("s1"))),
        ("expired", Some(load(dir, "late").client("s1"))),
        ("of another authority", Some(load(elsewhere.path(), "controller").client("s1"))),
        ("who expects another switch", Some(load(dir, "controller").client("s2"))),
    ];
    for (who, tls) in cases {
        assert!(P4Client::connect(target(address, tls)).await.is_err(), "{who}");
    }
    assert!(server.state.lock().unwrap().peers.is_empty());
}

#[tokio::test]
async fn a_switch_with_a_wrong_certificate_is_refused() {
    let (dir, authority) = pki();
    let dir = dir.path();
    authority.issue(dir, &["late"], -DAY);
    let elsewhere = tempfile::tempdir().unwrap();
    Authority::new().issue(elsewhere.path(), &["s1"], DAY);
    // (who, as a server, expected name)
    let cases = [
        ("expired", load(dir, "late"), "late"),
        ("of another authority", load(elsewhere.path(), "s1"), "s1"),
        ("another switch", load(dir, "s1"), "s2"),
    ];
    for (who, server, name) in cases {
        let (address, _server) = server::start(Some(server.server())).await;
        let tls = load(dir, "controller").client(name);
        assert!(P4Client::connect(target(address, Some(tls))).await.is_err(), "{who}");
    }
}

#[test]
fn errors_name_the_file() {
    let (dir, authority) = pki();
    let dir = dir.path();
    let error = |name: &str| Credentials::load(dir, name).unwrap_err();
    assert!(matches!(error("s9"), TlsError::Read { path, .. } if path == dir.join("s9.pem")));

    authority.issue(dir, &["nokey"], DAY);
    std::fs::remove_file(dir.join("nokey.key")).unwrap();
    assert!(matches!(error("nokey"), TlsError::Read { path, .. } if path == dir.join("nokey.key")));
    std::fs::copy(dir.join("s1.pem"), dir.join("nokey.key")).unwrap();
    assert!(matches!(error("nokey"), TlsError::NoKey { path } if path == dir.join("nokey.key")));

    std::fs::copy(dir.join("s1.pem"), dir.join("thief.pem")).unwrap();
    std::fs::copy(dir.join("s1.key"), dir.join("thief.key")).unwrap();
    assert!(matches!(error("thief"), TlsError::OtherName { wanted, found, .. }
            if wanted == "thief" && found == "s1"));

    std::fs::write(dir.join("s1.pem"), "not PEM").unwrap();
    assert!(matches!(error("s1"), TlsError::NoCertificate { path } if path == dir.join("s1.pem")));
    std::fs::write(dir.join("ca.pem"), "").unwrap();
    let message = error("controller").to_string();
    assert!(message.contains("ca.pem"), "{message}");
}

#[test]
fn the_name_is_the_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    // (DNS names and addresses, the first also as common name; name)
    let cases: &[(&[&str], &str)] =
        &[(&["s1"], "s1"), (&["s1", "192.0.2.2"], "s1"), (&["s1", "alias", "192.0.2.2"], "s1")];
    for (names, wanted) in cases {
        authority.issue(dir.path(), names, DAY);
        let pem = std::fs::read(dir.path().join("s1.pem")).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        assert_eq!(certificate_name(&pem.contents).as_deref(), Ok(*wanted), "{names:?}");
    }
    assert!(certificate_name(&[0x30, 0x00]).is_err());
}
