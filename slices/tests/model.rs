//! Templates, class maps, maxima and rates of endpoints: what they mean and what is refused.

use selvedge_slices::class_map::{self, ClassMap};
use selvedge_slices::template::Attribute;
use selvedge_slices::{Class, NetworkSlice, Object, document, parse};
use selvedge_topology::Delay;

fn text(kind: &str, spec: &str) -> String {
    format!("apiVersion: selvedge/v1\nkind: {kind}\nmetadata: {{ name: a }}\nspec: {{ {spec} }}\n")
}

fn slice(spec: &str) -> NetworkSlice {
    let text = text("NetworkSlice", &format!("endpoints: [{{ ue: x }}, {{ dn: y }}], {spec}"));
    match <[Object; 1]>::try_from(parse("f.yaml", &text).unwrap()) {
        Ok([Object::NetworkSlice(slice)]) => slice,
        other => panic!("{other:?}"),
    }
}

fn map(spec: &str) -> ClassMap {
    match <[Object; 1]>::try_from(parse("f.yaml", &text("ClassMap", spec)).unwrap()) {
        Ok([Object::ClassMap(map)]) => map,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_template_fills_what_is_not_stated() {
    use Attribute::{FiveQi, Latency, Sst};
    // spec, then: S-NSSAI, 5QI, latency in ms, class, what the template filled
    type Case = (&'static str, &'static str, u8, Option<u64>, Class, &'static [Attribute]);
    let cases: &[Case] = &[
        ("template: eMBB", "1", 9, None, Class::BestEffort, &[Sst, FiveQi]),
        (
            "template: eMBB, uplink: { guaranteed: 1Mbps }",
            "1",
            9,
            None,
            Class::Guaranteed,
            &[Sst, FiveQi],
        ),
        ("template: URLLC", "2", 82, Some(10), Class::Urllc, &[Sst, FiveQi, Latency]),
        ("template: MIoT", "3", 9, None, Class::BestEffort, &[Sst, FiveQi]),
        ("template: URLLC, latency: 2ms", "2", 82, Some(2), Class::Urllc, &[Sst, FiveQi]),
        ("template: URLLC, 5qi: 1", "2", 1, Some(10), Class::Guaranteed, &[Sst, Latency]),
        (
            "template: URLLC, sNssai: { sd: \"00A1B2\" }",
            "2-00A1B2",
            82,
            Some(10),
            Class::Urllc,
            &[Sst, FiveQi, Latency],
        ),
        (
            "template: URLLC, sNssai: { sst: 200 }",
            "200",
            82,
            Some(10),
            Class::Urllc,
            &[FiveQi, Latency],
        ),
    ];
    for (spec, id, five_qi, latency_ms, class, filled) in cases {
        let slice = slice(spec);
        assert_eq!(slice.s_nssai.unwrap().to_string(), *id, "{spec}");
        assert_eq!(slice.five_qi, Some(*five_qi), "{spec}");
        assert_eq!(slice.latency, latency_ms.map(Delay::from_ms), "{spec}");
        assert_eq!(slice.class, *class, "{spec}");
        let mut from = slice.template.clone().unwrap().filled;
        from.sort();
        assert_eq!(from, *filled, "{spec}");
        // The store keeps what was stated, and the template fills the rest again.
        let object = Object::NetworkSlice(slice.clone());
        assert_eq!(document::object(&document::of(&object)), Ok(object), "{spec}");
    }
    let told = slice("template: URLLC, latency: 2ms").from_template().unwrap();
    assert_eq!(told, "slice a: from template URLLC: sst 2, 5qi 82");
    assert_eq!(slice("").from_template(), None);
}

#[test]
fn an_operators_map_decides_before_3gpp() {
    let map = map("sst: { 3: guaranteed, 2: best-effort }, 5qi: { 200: urllc, 9: guaranteed }");
    let rate = "uplink: { guaranteed: 1Mbps }";
    // (spec, class by 3GPP, class by the map)
    let cases = [
        ("sNssai: { sst: 2 }", Class::Urllc, Class::BestEffort),
        ("sNssai: { sst: 3 }", Class::BestEffort, Class::Guaranteed),
        ("5qi: 200", Class::BestEffort, Class::Urllc),
        ("5qi: 9", Class::BestEffort, Class::Guaranteed),
        ("5qi: 82", Class::Urllc, Class::Urllc),
        (&format!("sNssai: {{ sst: 2 }}, {rate}"), Class::Urllc, Class::Guaranteed),
        ("class: urllc, 5qi: 9", Class::Urllc, Class::Urllc),
    ];
    for (spec, by_3gpp, by_map) in cases {
        let mut slice = slice(spec);
        assert_eq!(slice.class, by_3gpp, "{spec}");
        slice.classify(Some(&map));
        assert_eq!(slice.class, by_map, "{spec}: {}", slice.class_reason);
        slice.classify(None);
        assert_eq!(slice.class, by_3gpp, "{spec}");
    }
    assert_eq!(slice("5qi: 200").unknown_five_qi(None), Some(200));
    assert_eq!(slice("5qi: 200").unknown_five_qi(Some(&map)), None);
    assert_eq!(slice("5qi: 200, class: urllc").unknown_five_qi(None), None);
    let stated = class_map::rows(Some(&map)).into_iter().filter(|row| row.stated).count();
    assert_eq!(stated, 4);
    assert!(class_map::rows(None).iter().all(|row| !row.stated && row.by != "dscp"));
}

#[test]
fn what_is_refused() {
    let slice = |spec: &str| text("NetworkSlice", spec);
    let ends = "endpoints: [{ ue: x }, { dn: y }]";
    let of =
        |x: &str, rest: &str| slice(&format!("endpoints: [{{ ue: x{x} }}, {{ dn: y }}]{rest}"));
    let guaranteed = ", downlink: { guaranteed: 3Mbps }";
    let two = "{ ue: x, uplink: { guaranteed: 2Mbps } }, { ue: z, uplink: { guaranteed: 2Mbps } }";
    // (input, the problem)
    let cases = [
        (slice(&format!("{ends}, template: embb")), "not a template"),
        (slice(&format!("{ends}, maxNumberofUEs: 0")), "from 1 to 1000000000"),
        (slice(&format!("{ends}, maxNumberofPDUSessions: 2000000000")), "from 1 to 1000000000"),
        (slice(&format!("{ends}, resourceSharingLevel: dedicated")), "sharing level"),
        (slice(&format!("{ends}, 5qi: 127")), "127 is not a standardized 5QI"),
        (slice(&format!("{ends}, sNssai: {{ sd: \"00A1B2\" }}")), "no \"sst\""),
        (
            of(", downlink: { guaranteed: 4Mbps }", guaranteed),
            "endpoints are guaranteed 4Mbps downlink together, the slice 3Mbps",
        ),
        (of(", uplink: { guaranteed: 1Mbps }", guaranteed), "guaranteed 1Mbps uplink together"),
        (
            of(", uplink: { maximum: 4Mbps }", ", uplink: { maximum: 3Mbps }"),
            "the maximum 4Mbps is above the slice's uplink maximum 3Mbps",
        ),
        (of(", uplink: { maximum: 1Mbps, burst: 30kB }", ""), "rates have no burst"),
        (
            slice("endpoints: [{ ue: x }, { dn: y, uplink: { maximum: 1Mbps } }]"),
            "a dn has no rates of its own",
        ),
        (
            slice(&format!("endpoints: [{two}, {{ dn: y }}], uplink: {{ guaranteed: 3Mbps }}")),
            "guaranteed 4Mbps uplink together, the slice 3Mbps",
        ),
        (slice(&format!("{ends}, schedule: {{}}")), "a start, an end or both"),
        (slice(&format!("{ends}, schedule: {{ start: tomorrow }}")), "RFC 3339"),
        (
            slice(&format!(
                "{ends}, schedule: {{ start: \"2026-11-24T13:00:00Z\", \
                 end: \"2026-11-24T13:00:00Z\" }}"
            )),
            "the end 2026-11-24T13:00:00Z is not after the start 2026-11-24T13:00:00Z",
        ),
        (text("ClassMap", "dscp: { 64: urllc }"), "\"64\" is not a DSCP"),
        (text("ClassMap", "5qi: { 11: urllc }"), "\"11\" is not a 5QI"),
        (text("ClassMap", "sst: { 01: urllc }"), "\"01\" is not an SST"),
        (text("ClassMap", "sst: { 1: gold }"), "\"gold\" is not a class"),
        (text("ClassMap", "sst: [1]"), "mapping of names"),
        (text("ClassMap", "classes: {}"), "no \"classes\""),
    ];
    for (input, want) in cases {
        let problems = parse("f.yaml", &input).map(drop).expect_err(&input);
        let all: Vec<&str> = problems.problems().iter().map(|p| p.message.as_str()).collect();
        assert!(all.len() == 1 && all[0].contains(want), "{input}: {all:?}");
    }
    // One at a time: the two guarantees never meet.
    let alternating = slice(&format!(
        "endpoints: [{two}, {{ dn: y }}], uplink: {{ guaranteed: 3Mbps }}, maxNumberofUEs: 1"
    ));
    assert!(parse("f.yaml", &alternating).is_ok());
}

#[test]
fn what_is_not_enforced_is_said() {
    let object = |text: &str| parse("f.yaml", text).unwrap().remove(0);
    let quiet = object(&text("NetworkSlice", "endpoints: [{ ue: x }, { dn: y }]"));
    assert_eq!(quiet.not_enforced(), Vec::<String>::new());
    let spec = "resourceSharingLevel: non-shared, endpoints: [{ ue: x }, { dn: y }]";
    let alone = object(&text("NetworkSlice", spec)).not_enforced();
    assert!(alone[0].contains("excess of other slices"), "{alone:?}");
    let dscp = object(&text("ClassMap", "dscp: { 46: urllc }"));
    assert!(dscp.not_enforced()[0].contains("dscp is not enforced"));
}
