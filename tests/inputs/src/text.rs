//! Files that people write. What is wrong with one is shown to them, so the showing is run too.

use selvedge_slices::{Object, document};
use selvedge_topology::read::from_str;
use selvedge_topology::{Format, Problems};

fn shown(problems: Problems) {
    assert!(!problems.problems().is_empty());
    let _ = problems.to_string();
    for (line, column, problem) in problems.places() {
        assert!(line > 0 && column > 0, "{problem}");
    }
    // With the lines that are meant, as on a terminal.
    let _ = format!("{:?}", miette::Report::new(problems));
}

fn network(bytes: &[u8], file: &str, format: Format) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let read = match from_str(file, text, format) {
        Ok(read) => read,
        Err(problems) => return shown(problems),
    };
    for assumption in &read.assumptions {
        let _ = assumption.to_string();
    }
    // Every network can be written down as one of our files.
    let yaml = read.topology.to_yaml();
    match from_str("again.yaml", &yaml, Format::Selvedge) {
        Ok(again) => assert_eq!(again.topology, read.topology, "{yaml}"),
        Err(problems) => panic!("{problems:?}\n{yaml}"),
    }
}

pub(crate) fn topology(bytes: &[u8]) {
    network(bytes, "input.yaml", Format::Selvedge);
}

pub(crate) fn graphml(bytes: &[u8]) {
    network(bytes, "input.graphml", Format::GraphMl);
}

pub(crate) fn repetita(bytes: &[u8]) {
    network(bytes, "input.graph", Format::Repetita);
}

/// Slices, hooks, applications, class maps.
pub(crate) fn slices(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let objects = match selvedge_slices::parse("input.yaml", text) {
        Ok(objects) => objects,
        Err(problems) => return shown(problems),
    };
    for object in objects {
        let of_text = |text: &str| -> Result<Vec<Object>, String> {
            selvedge_slices::parse("again.yaml", text).map_err(|problems| format!("{problems:?}"))
        };
        let text = document::text(&object);
        assert_eq!(document::object(&document::of(&object)).as_ref(), Ok(&object));
        assert_eq!(of_text(&text), Ok(vec![object]), "{text}");
    }
}
