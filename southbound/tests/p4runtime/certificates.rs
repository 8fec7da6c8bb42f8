use std::path::Path;

use selvedge_southbound::{
    client::{P4Client, Target},
    tls::{Credentials, TlsError, certificate_name},
};
use tempfile::TempDir;
use time::Duration;

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

/// The server is tonic's own.
#[tokio::test]
async fn both_ends_know_each_other() {
    let (dir, _authority) = pki();
    let (address, server) = server::start(Some(load(dir.path(), "s1").tonic_server())).await;
    let tls = Some((load(dir.path(), "controller"), "s1".to_owned()));
    let target = Target { uri: format!("https://{address}"), tls, ..crate::target(address, 1) };
    let (client, _channel) = P4Client::connect(target).await.unwrap();
    assert!(client.read_entries().await.unwrap().is_empty());
    assert_eq!(server.state.lock().unwrap().peers, ["controller"]);
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
