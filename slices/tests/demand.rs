//! What an application asks of its node, as written.

use std::collections::BTreeMap;

use selvedge_slices::placement::{Area, Demand, MOVING_MW};
use selvedge_slices::{Object, parse};
use selvedge_topology::{Bytes, Delay, Position};

fn file(rest: &str) -> String {
    format!(
        "apiVersion: selvedge/v1\nkind: Application\nmetadata: {{ name: a }}\nspec:\n  \
         endpoint: analyser\n{rest}"
    )
}

fn demand(rest: &str) -> Option<Demand> {
    match parse("a.yaml", &file(rest)).unwrap().remove(0) {
        Object::Application(application) => application.demand,
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_of_it() {
    let got = demand(
        "  computeDescriptor: { cpu: 1.5, memory: 2Gi, architecture: x86_64, accelerators: { gpu: 1 } }
  latency: 5ms
  placement:
    sites: [east, north west]
    preferredSites: east
    area: { position: [49.6, 6.13], radius: 20km }
    antiAffinity: [vision]
    movingCost: 7.5W
",
    );
    let want = Demand {
        cpu_milli: 1_500,
        memory: Bytes(2 << 30),
        accelerators: BTreeMap::from([("gpu".to_owned(), 1)]),
        architectures: vec!["x86_64".to_owned()],
        latency: Some(Delay(5_000)),
        sites: vec!["east".to_owned(), "north west".to_owned()],
        preferred_sites: vec!["east".to_owned()],
        area: Some(Area { center: Position::from_degrees(49.6, 6.13).unwrap(), radius_m: 20_000 }),
        anti_affinity: vec!["vision".to_owned()],
        moving_mw: 7_500,
    };
    assert_eq!(got, Some(want));
    let least = demand("  computeDescriptor: { cpu: 250m, memory: 64Mi }\n").unwrap();
    assert_eq!((least.cpu_milli, least.memory, least.moving_mw), (250, Bytes(64 << 20), MOVING_MW));
    assert_eq!(demand(""), None);
}

#[test]
fn everything_wrong_in_one_go() {
    let text = file(
        "  computeDescriptor: { cpu: 0, memory: 2, gpu: 1, accelerators: { g p u: 0 } }
  latency: 0ms
  placement:
    site: east
    sites: [a, a, '']
    area: { position: [91, 6, 1], radius: 20 }
    movingCost: 7
",
    );
    let want = [
        "6:29: processors is from 0.001 to 4096",
        "6:40: \"2\" is not a size such as 30kB or 4Gi [did you mean 2B?]",
        "6:43: computeDescriptor has no \"gpu\" [did you mean \"cpu\"?]",
        "6:67: \"g p u\" is not 1 to 63 of letters, digits, '-', '_' and '.'",
        "6:74: \"0\" is not a whole number from 1 to 4096",
        "7:12: a latency is from 1us to 10s",
        "9:5: placement has no \"site\" [did you mean \"sites\"?]",
        "10:16: \"a\" is here twice",
        "10:19: a site is a text of 1 to 253 bytes",
        "11:23: a position is [latitude, longitude] in degrees, such as [49.61, 6.13]",
        "11:43: \"20\" is not a distance such as 20km or 500m, up to 20016km",
        "12:17: \"7\" is not a power such as 12W [did you mean 7W?]",
    ];
    assert_eq!(problems(&text), want);
    let alone = file("  latency: 5ms\n  placement: { sites: east }\n");
    let help = " [such as computeDescriptor: { cpu: 500m, memory: 256Mi }]";
    let want = [
        format!("6:12: latency goes with a computeDescriptor{help}"),
        format!("7:14: placement goes with a computeDescriptor{help}"),
    ];
    assert_eq!(problems(&alone), want);
}

fn problems(text: &str) -> Vec<String> {
    let problems = parse("a.yaml", text).unwrap_err();
    let line = |(line, column, problem): (usize, usize, &selvedge_topology::Problem)| {
        let help = problem.help.as_ref().map(|help| format!(" [{help}]")).unwrap_or_default();
        format!("{line}:{column}: {}{help}", problem.message)
    };
    problems.places().map(line).collect()
}
