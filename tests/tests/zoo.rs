//! Real networks from their GraphML, a host on each switch.

use std::time::Duration;

use anyhow::Result;
use selvedge_tests::{scenario, up};

fn brought_up(name: &str, file: &str, switches: usize) -> Result<()> {
    let lab = up(name, file)?;
    let took = lab.up_in;
    assert_eq!(lab.switches()?.len(), switches);
    let percent = scenario::ping_all(&lab)?;
    println!("{file}: {switches} switches up in {:.1} s, pingall {percent} %", took.as_secs_f64());
    assert_eq!(percent, 100.0);
    // Half a minute on two cores that have nothing else to do. Where they have, longer, but not so
    // long that somebody thinks it hangs.
    assert!(took < Duration::from_secs(120), "took {took:?}");
    Ok(())
}

#[test]
fn abilene() -> Result<()> {
    brought_up("t-abilene", "examples/topologies/Abilene.graphml", 11)
}

#[test]
fn geant2012() -> Result<()> {
    brought_up("t-geant", "examples/topologies/Geant2012.graphml", 40)
}
