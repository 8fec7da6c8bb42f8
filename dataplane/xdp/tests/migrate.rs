//! What a switch of the layout before keeps. Under traffic: `dataplane/tests/root/migrate.rs`.

mod common;

use std::path::Path;

use common::{PinDir, chain, entries, in_netns, layout, veth};
use selvedge_ebpf_common::LAYOUT_VERSION;
use selvedge_xdp::{Error, Switch, Table};

/// Writes what the present layout keeps of [`layout::entries`]. To be run, by
/// `cargo test -p selvedge-xdp --test migrate -- --ignored`, before `LAYOUT_VERSION` is raised;
/// `layouts/vN.o` is then target/bpf/bpfel-unknown-none/release/selvedge-ebpf without debugging
/// information (`llvm-objcopy -g`).
#[test]
#[ignore = "writes a file of the repository"]
fn write_down_the_present_layout() {
    let pins = PinDir::new();
    let switch = pins.open();
    assert_eq!(switch.facts.port_id("p1").unwrap(), 1);
    assert_eq!(switch.facts.port_id("p2").unwrap(), 2);
    for entry in layout::entries() {
        entries::put(&switch, &entry);
    }
    switch.facts.set_election(u128::MAX - 1).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines = switch.raw_entries().unwrap();
    let text: String = lines
        .iter()
        .map(|entry| format!("{} {} {}\n", entry.map, hex(&entry.key), hex(&entry.value)))
        .collect();
    let file = format!("tests/layouts/v{LAYOUT_VERSION}.txt");
    std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(file), text).unwrap();
}

/// Programs on interfaces, by link.
fn attached(root: &Path) -> Vec<u32> {
    ["port-1", "port-2"]
        .map(|port| {
            let link = aya::programs::links::PinnedLink::from_pin(root.join("links").join(port));
            let link = aya::programs::links::FdLink::from(link.unwrap());
            link.info().unwrap().program_id()
        })
        .to_vec()
}

#[test]
fn a_layout_that_is_broken_or_older_is_left_as_it_is() {
    in_netns(|| {
        let pins = PinDir::new();
        let ports = [veth("p1"), veth("p2")].map(|port| (port.index, port.mac));
        layout::make_v5(pins.path(), ports);
        let v5 = pins.path().join("v5");
        let before = attached(&v5);
        let names = || {
            let dir = std::fs::read_dir(pins.path()).unwrap();
            dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        // One map is another's: nothing is made of it.
        let meter = v5.join("maps/METER");
        let queue = aya::maps::MapData::from_pin(v5.join("maps/QUEUE")).unwrap();
        std::fs::rename(&meter, v5.join("maps/kept")).unwrap();
        queue.pin(&meter).unwrap();
        match Switch::open(&pins.options()) {
            Err(Error::PinnedMap { path, .. }) => assert_eq!(path, meter),
            other => panic!("{other:?}"),
        }
        assert_eq!((names(), attached(&v5)), (vec!["v5".to_owned()], before.clone()));
        std::fs::remove_file(&meter).unwrap();
        std::fs::rename(v5.join("maps/kept"), &meter).unwrap();

        // Older than the one before.
        let v4 = pins.path().join("v4");
        std::fs::rename(&v5, &v4).unwrap();
        let error = Switch::open(&pins.options()).unwrap_err();
        assert!(matches!(error, Error::OtherLayout { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("v4") && text.contains("from layout 5 alone"), "{text}");
        assert_eq!((names(), attached(&v4)), (vec!["v4".to_owned()], before.clone()));
        std::fs::rename(&v4, &v5).unwrap();

        let switch =
            Switch::open(&pins.options()).unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_eq!(names(), [format!("v{LAYOUT_VERSION}")]);
        assert_eq!(switch.attached().unwrap().len(), 2);
        assert_ne!(attached(switch.pin_root()), before);
        assert_eq!(switch.facts.election().unwrap(), Some(u128::MAX - 1));
        // Rules are as if they had been written now: written again, they change nothing.
        let lies = || switch.raw_entries().unwrap().into_iter().filter(|e| e.map == "RULE");
        let before: Vec<_> = lies().collect();
        let rules = switch.classifier.entries().unwrap();
        assert!(rules.iter().any(|(_, rule)| rule.dscp.is_some()));
        for (priority, rule) in rules {
            switch.classifier.put(priority, &rule).unwrap();
        }
        assert_eq!(lies().collect::<Vec<_>>(), before);
    });
}
