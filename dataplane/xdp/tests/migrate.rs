//! Layouts.

mod common;

use std::path::Path;

use common::{PinDir, entries, layout};
use selvedge_ebpf_common::LAYOUT_VERSION;

/// Writes what the present layout keeps of [`layout::entries`]. To be run, by
/// `cargo test -p selvedge-xdp --test migrate -- --ignored`, before `LAYOUT_VERSION` is raised;
/// `layouts/vN.o` is then target/bpf/bpfel-unknown-none/release/selvedge-ebpf, without what
/// `llvm-objcopy -g --remove-section=.BTF.ext` takes off it.
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
