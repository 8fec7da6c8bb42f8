use super::*;

fn some() -> Backup {
    let records =
        [("meta", &b"{\"format\":1}\n"[..]), ("module/x", &[0, 0xff, 0xfe, 0x0a]), ("empty", b"")];
    Backup {
        version: "9.9.9".to_owned(),
        taken_at_ms: 1_790_000_000_000,
        records: records.map(|(key, value)| (key.to_owned(), value.to_vec())).into(),
    }
}

#[test]
fn a_file_says_what_was_there() {
    let file = some().encode();
    assert_eq!(Backup::decode(&file), Ok(some()));
    let none = Backup { records: BTreeMap::new(), ..some() };
    assert_eq!(Backup::decode(&none.encode()), Ok(none));
    let lines: Vec<_> = std::str::from_utf8(&file).unwrap().lines().collect();
    assert_eq!(lines[1], r#"{"key":"empty","text":""}"#);
    assert_eq!(lines[3], r#"{"key":"module/x","base64":"AP/+Cg=="}"#);
}

#[test]
fn what_was_cut_off_or_changed_is_no_backup() {
    let file = some().encode();
    for length in 0..file.len() {
        Backup::decode(&file[..length]).unwrap_err();
    }
    for at in 0..file.len() {
        for change in [1, 0x20, 0x80] {
            let mut changed = file.clone();
            changed[at] ^= change;
            // Upper-case digits of a digest, and spaces, are nothing that we write either.
            Backup::decode(&changed).unwrap_err();
        }
    }
    let twice = [file.clone(), file].concat();
    Backup::decode(&twice).unwrap_err();
    assert_eq!(Backup::decode(b"\0\x01redb"), Err(ReadError::Foreign));
    assert_eq!(Backup::decode(b"{\"a\":1}\n"), Err(ReadError::Foreign));
}

#[test]
fn a_newer_format_is_told_before_anything_else_of_it_is_read() {
    let file = b"{\"selvedge\":\"backup\",\"format\":2,\"version\":\"7.1.0\",\"chunks\":[]}\nnew\n";
    let refused = Backup::decode(file).unwrap_err();
    assert!(matches!(&refused, ReadError::Newer { found: 2, .. }), "{refused}");
    assert!(refused.to_string().contains("7.1.0"), "{refused}");
}
