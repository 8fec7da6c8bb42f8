//! MEC 011 from a shell.

use anyhow::Result;
use selvedge_tests::scenario::METRO;
use selvedge_tests::{json, mec, up};

#[test]
fn a_drop_rule_stops_a_flow_only_while_it_is_active() -> Result<()> {
    let lab = up("t-mec", METRO)?;
    let blocked = mec::block_and_release(&lab)?;
    println!("before / active / inactive again: {}", blocked.figure());
    assert!(blocked.holds(), "{blocked:?}");
    // INACTIVE means absent, on every switch.
    for node in lab.switches()? {
        let entries = json(&lab, &["get", "entries", &node])?;
        assert!(!entries.to_string().contains("classifier"), "{node}: {entries}");
    }
    Ok(())
}
