use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn nodes(texts: &[&str]) -> Vec<Node> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn outcomes(done: &[Done]) -> Vec<(&str, What)> {
    done.iter().map(|done| (done.name.as_str(), done.what)).collect()
}

#[test]
fn node_text_form() {
    let cases: &[(&str, Result<usize, NodeError>)] = &[
        ("s1", Ok(0)),
        ("s1=192.0.2.7", Ok(1)),
        ("s1=192.0.2.7,2001:db8::7", Ok(2)),
        ("s1=", Ok(0)),
        ("", Err(NodeError::Name(String::new()))),
        ("S1", Err(NodeError::Name("S1".into()))),
        ("-s", Err(NodeError::Name("-s".into()))),
        ("../s", Err(NodeError::Name("../s".into()))),
        ("ca", Err(NodeError::Reserved)),
        ("s1=north", Err(NodeError::Address { node: "s1".into(), address: "north".into() })),
    ];
    for (text, want) in cases {
        let got = text.parse::<Node>().map(|node| node.addresses.len());
        assert_eq!(&got, want, "{text:?}");
    }
    let longest = "a".repeat(63);
    assert!(longest.parse::<Node>().is_ok());
    assert!(format!("{longest}a").parse::<Node>().is_err());
}

#[test]
fn doing_it_again_changes_nothing_and_adds_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let first = init(dir, &nodes(&["controller=192.0.2.1", "s1"]), Options::default()).unwrap();
    assert_eq!(
        outcomes(&first),
        [("ca", What::Created), ("controller", What::Created), ("s1", What::Created)]
    );
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    let before: Vec<_> = ["ca.pem", "ca.key", "s1.pem", "s1.key"].map(read).into();
    let again = nodes(&["controller=192.0.2.1", "s1", "s2"]);
    assert_eq!(
        outcomes(&init(dir, &again, Options::default()).unwrap()),
        [("ca", What::Kept), ("controller", What::Kept), ("s1", What::Kept), ("s2", What::Created)]
    );
    let after: Vec<_> = ["ca.pem", "ca.key", "s1.pem", "s1.key"].map(read).into();
    assert_eq!(before, after);
    for (name, mode) in [("ca.key", 0o600), ("s2.key", 0o600), ("s2.pem", 0o644)] {
        let found = fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
}

#[test]
fn overwrites_only_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    init(dir, &nodes(&["s1"]), Options::default()).unwrap();
    let before = fs::read(dir.join("s1.pem")).unwrap();
    let moved = nodes(&["s2", "s1=192.0.2.9"]);
    let refused = init(dir, &moved, Options::default()).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("s1.pem") && text.contains("--force"), "{text}");
    assert!(text.contains("192.0.2.9"), "{text}");
    assert_eq!(fs::read(dir.join("s1.pem")).unwrap(), before);
    assert!(!dir.join("s2.pem").exists(), "nothing is half done");
    let forced = Options { force: true, ..Options::default() };
    let done = init(dir, &moved, forced).unwrap();
    assert_eq!(
        outcomes(&done),
        [("ca", What::Kept), ("s2", What::Created), ("s1", What::Replaced)]
    );
    assert_ne!(fs::read(dir.join("s1.pem")).unwrap(), before);
}

#[test]
fn what_differs_is_told() {
    // (how the directory is disturbed, what the refusal says)
    type Disturb = fn(&Path);
    let cases: &[(Disturb, &str)] = &[
        (|dir| fs::remove_file(dir.join("s1.key")).unwrap(), "s1.key is not"),
        (|dir| fs::write(dir.join("s1.pem"), "hello").unwrap(), "is empty"),
        (
            |dir| {
                fs::copy(dir.join("s2.pem"), dir.join("s1.pem")).unwrap();
            },
            "another node's",
        ),
        (
            |dir| {
                fs::copy(dir.join("s2.key"), dir.join("s1.key")).unwrap();
            },
            "its key is another's",
        ),
        (
            |dir| {
                fs::remove_file(dir.join("ca.pem")).unwrap();
                fs::remove_file(dir.join("ca.key")).unwrap();
            },
            "another authority",
        ),
    ];
    for (disturb, want) in cases {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        init(dir, &nodes(&["s1", "s2"]), Options::default()).unwrap();
        disturb(dir);
        let text = init(dir, &nodes(&["s1"]), Options::default()).unwrap_err().to_string();
        assert!(text.contains(want), "want {want:?} in {text:?}");
    }
}

#[test]
fn an_expired_certificate_is_made_and_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { force: false, validity: Validity::expired() };
    init(dir.path(), &nodes(&["s1"]), options).unwrap();
    let text = init(dir.path(), &nodes(&["s1"]), Options::default()).unwrap_err().to_string();
    assert!(text.contains("not valid now"), "{text}");
}

#[test]
fn half_an_authority_is_refused_and_a_lone_key_finished() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    init(dir, &[], Options::default()).unwrap();
    let key = fs::read(dir.join("ca.key")).unwrap();
    fs::remove_file(dir.join("ca.key")).unwrap();
    let text = init(dir, &[], Options::default()).unwrap_err().to_string();
    assert!(text.contains("ca.pem is there without"), "{text}");
    fs::write(dir.join("ca.key"), &key).unwrap();
    fs::remove_file(dir.join("ca.pem")).unwrap();
    let done = init(dir, &nodes(&["s1"]), Options::default()).unwrap();
    assert_eq!(outcomes(&done), [("ca", What::Created), ("s1", What::Created)]);
    assert_eq!(fs::read(dir.join("ca.key")).unwrap(), key);
}

#[test]
fn who_is_revoked_stays_so_and_a_new_certificate_is_good() {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    use selvedge_southbound::tls::Credentials;

    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let gone = revoke(dir, &nodes(&["s1"])).unwrap_err();
    assert!(matches!(&gone, PkiError::NotThere { path } if path == &dir.join("ca.pem")), "{gone}");
    init(dir, &nodes(&["controller", "s1", "s2"]), Options::default()).unwrap();
    let gone = revoke(dir, &nodes(&["s2", "s9"])).unwrap_err();
    assert!(matches!(&gone, PkiError::NotThere { path } if path == &dir.join("s9.pem")), "{gone}");
    assert!(!dir.join("crl.pem").exists());

    let controller = Credentials::load(dir, "controller").unwrap();
    let shown =
        |name: &str| vec![CertificateDer::from_pem_file(dir.join(format!("{name}.pem"))).unwrap()];
    let (s1, s2) = (shown("s1"), shown("s2"));
    let good = || [&s1, &s2].map(|shown| controller.still_good(shown).is_ok());
    assert_eq!(good(), [true, true]);
    revoke(dir, &nodes(&["s1"])).unwrap();
    assert_eq!(good(), [false, true]);
    revoke(dir, &nodes(&["s2"])).unwrap();
    assert_eq!(good(), [false, false], "who was on the list stays there");
    let force = Options { force: true, ..Options::default() };
    init(dir, &nodes(&["s1"]), force).unwrap();
    assert!(controller.still_good(&shown("s1")).is_ok());
    assert_eq!(good(), [false, false]);

    let other = tempfile::tempdir().unwrap();
    init(other.path(), &nodes(&["s1"]), Options::default()).unwrap();
    std::fs::copy(other.path().join("s1.pem"), dir.join("s1.pem")).unwrap();
    let text = revoke(dir, &nodes(&["s1"])).unwrap_err().to_string();
    assert!(text.contains("another authority"), "{text}");
}
