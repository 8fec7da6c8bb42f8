//! Slices as TS 28.541 has them: out, back, and from elsewhere.

use selvedge_slices::ts28541::{Exported, Plmn, export, import};
use selvedge_slices::{NetworkSlice, Object, Side, document, parse};
use selvedge_topology::NodeName;
use serde_json::json;

fn slices(specs: &[&str]) -> Vec<NetworkSlice> {
    let document = |(index, spec): (usize, &&str)| {
        format!(
            "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: s{index} }}\n\
             spec: {{ {spec} }}\n"
        )
    };
    let texts: Vec<String> = specs.iter().enumerate().map(document).collect();
    let objects = parse("f.yaml", &texts.join("---\n")).unwrap().into_iter();
    objects
        .map(|object| match object {
            Object::NetworkSlice(slice) => slice,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn exported(slices: &[NetworkSlice], plmn: Option<&Plmn>) -> serde_json::Value {
    let of = |slice: &NetworkSlice| Exported {
        slice: slice.clone(),
        administrative_state: "UNLOCKED",
        operational_state: "ENABLED",
    };
    export(&slices.iter().map(of).collect::<Vec<_>>(), plmn)
}

const SPECS: [&str; 5] = [
    "endpoints: [{ ue: a }, { dn: b }]",
    "sNssai: { sst: 2, sd: \"00A1B2\" }, 5qi: 82, class: urllc, priority: 7, \
     downlink: { guaranteed: 20Mbps, maximum: 40Mbps }, \
     uplink: { guaranteed: 1500bps000, maximum: 40Mbps, burst: 30kB }, latency: 2500us, \
     availability: 99.999, resourceSharingLevel: non-shared, maxNumberofUEs: 3, \
     maxNumberofPDUSessions: 4, endpoints: [{ ue: a }, { dn: b }], \
     through: [{ hook: h, onFailure: drop }]",
    // Alike for every user: an attribute of the profile.
    "uplink: { guaranteed: 9Mbps }, endpoints: [{ ue: a, uplink: { guaranteed: 2Mbps } }, \
     { ue: c, uplink: { guaranteed: 2Mbps } }, { dn: b }]",
    // Different: beside it.
    "uplink: { guaranteed: 9Mbps }, endpoints: [{ ue: a, uplink: { guaranteed: 2Mbps } }, \
     { ue: c, downlink: { maximum: 1Mbps } }, { dn: b }]",
    "template: URLLC, endpoints: [{ ue: a }, { dn: b }]",
];

#[test]
fn what_is_exported_comes_back_whole() {
    let specs = SPECS.map(|spec| spec.replace("1500bps000", "1500kbps"));
    let wanted = slices(&specs.each_ref().map(String::as_str));
    for plmn in [None, Some("00101".parse::<Plmn>().unwrap())] {
        let json = exported(&wanted, plmn.as_ref());
        let read = import(&json.to_string(), &[]).unwrap();
        assert_eq!(read.len(), wanted.len());
        for (read, wanted) in read.into_iter().zip(&wanted) {
            // The standard has no templates: what one filled in is stated then.
            let wanted = NetworkSlice { template: None, ..wanted.clone() };
            assert_eq!(read.object, Object::NetworkSlice(wanted), "{json:#}");
            let lost: Vec<&String> =
                read.lost.iter().filter(|lost| !lost.contains("plmnId")).collect();
            assert!(lost.is_empty(), "{lost:?}");
            // And as a file that `apply` takes.
            let text = document::text(&read.object);
            assert_eq!(parse("f.yaml", &text).unwrap(), [read.object], "{text}");
        }
    }
}

#[test]
fn units_are_the_standards() {
    let slices = slices(&[&SPECS[1].replace("1500bps000", "1500kbps")]);
    let plmn = "310410".parse::<Plmn>().unwrap();
    let json = exported(&slices, Some(&plmn));
    let attributes = &json["NetworkSlice"][0]["attributes"];
    assert_eq!(attributes["administrativeState"], "UNLOCKED");
    let profile = &attributes["serviceProfileList"][0];
    assert_eq!(profile["dLThptPerSlice"], json!({ "guaThpt": 20_000, "maxThpt": 40_000 }));
    assert_eq!(profile["uLThptPerSlice"]["guaThpt"], 1_500);
    assert_eq!(profile["dLLatency"], 2.5);
    assert_eq!(profile["availability"], 99.999);
    assert_eq!(profile["maxNumberofPDUSessions"]["nOofPDUSessions"], 4);
    assert_eq!(profile["resourceSharingLevel"], "NON-SHARED");
    let info = json!([{ "plmnId": { "mcc": "310", "mnc": "410" },
                        "snssai": { "sst": 2, "sd": "00A1B2" } }]);
    assert_eq!(profile["plmnInfoList"], info);
    for wrong in ["", "0010", "0010111", "0010a"] {
        assert!(wrong.parse::<Plmn>().is_err(), "{wrong:?}");
    }
}

/// As another system might send it: what a slice does not have is named, the rest is taken.
#[test]
fn a_foreign_profile_names_what_is_lost() {
    let foreign = json!({
        "serviceProfileId": "Video_Wall",
        "plmnInfoList": [{ "plmnId": { "mcc": "001", "mnc": "01" }, "snssai": { "sst": 1 } }],
        "sst": 1,
        "dLThptPerSlice": { "servAttrCom": {}, "guaThpt": 500.5, "maxThpt": 1000 },
        "dLThptPerUE": { "maxThpt": 200 },
        "dLLatency": 20, "uLLatency": 10,
        "coverageAreas": ["north"],
        "uESpeed": 3,
        "networkSliceSharingIndicator": "SHARED",
    });
    let name = |text: &str| text.parse::<NodeName>().unwrap();
    let ends = [(Side::Ue, name("wall")), (Side::Dn, name("video"))];
    let read = import(&foreign.to_string(), &ends).unwrap().remove(0);
    let Object::NetworkSlice(slice) = &read.object else { panic!("a slice") };
    assert_eq!(slice.name.as_str(), "video-wall");
    assert_eq!(slice.downlink.guaranteed.unwrap().0, 500_500);
    assert_eq!(slice.latency.unwrap().us(), 10_000, "the lower keeps both");
    assert_eq!(slice.endpoints[0].downlink.maximum.unwrap().0, 200_000);
    for word in ["Video_Wall", "plmnId", "coverageAreas", "uESpeed: 3", "uLLatency"] {
        assert!(read.lost.iter().any(|lost| lost.contains(word)), "{word}: {:?}", read.lost);
    }
    assert_eq!(read.lost.len(), 5, "{:?}", read.lost);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let ends = [(Side::Ue, "a".parse().unwrap()), (Side::Dn, "b".parse().unwrap())];
    // (input, the problem)
    let cases = [
        (json!(7), "an object or a list"),
        (json!([]), "no NetworkSlice"),
        (
            json!({ "NetworkSlice": [{ "attributes": {} }] }),
            "NetworkSlice[0].attributes: there is no",
        ),
        (json!({ "sst": 1 }), "serviceProfileId: a name is needed"),
        (json!({ "serviceProfileId": "x", "sst": 300 }), "300"),
        (json!({ "serviceProfileId": "x", "dLThptPerSlice": { "guaThpt": -1 } }), "guaThpt"),
        (json!({ "serviceProfileId": "x", "dLThptPerSlice": 5 }), "dLThptPerSlice: {guaThpt"),
        (json!({ "serviceProfileId": "x", "dLThptPerSlice": { "guaThpt": 1e300 } }), "guaThpt"),
        (json!({ "serviceProfileId": "x", "maxNumberofUEs": 1.5 }), "maxNumberofUEs"),
        (json!({ "serviceProfileId": "x", "availability": 101 }), "availability"),
        (json!({ "serviceProfileId": "x", "resourceSharingLevel": "some" }), "NON-SHARED"),
        (
            json!({ "serviceProfileId": "x", "sNSSAIList": [{ "sst": 1 }, { "sst": 2 }] }),
            "one S-NSSAI, here are several",
        ),
        (
            json!({ "serviceProfileId": "x",
                    "dLThptPerSlice": { "guaThpt": 2000, "maxThpt": 1000 } }),
            "below the guaranteed",
        ),
    ];
    for (input, want) in cases {
        let wrong = import(&input.to_string(), &ends).expect_err(&input.to_string());
        assert!(wrong.iter().any(|line| line.contains(want)), "{input}: {wrong:?}");
    }
    let none = import(r#"{ "serviceProfileId": "x" }"#, &[]).unwrap_err();
    assert!(none[0].contains("--ue"), "{none:?}");
    assert!(import("{", &ends).is_err());
}
