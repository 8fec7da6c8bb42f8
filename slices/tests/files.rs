//! Files of objects: what they say, and what is refused.

use std::collections::BTreeSet;
use std::path::Path;

use selvedge_slices::rules::{FilterType, RuleAction, RuleState};
use selvedge_slices::{
    Class, Direction, Object, OnFailure, ResourceSharingLevel, Side, check, json_schema, parse,
};
use selvedge_topology::{BitRate, Bytes, Delay};

/// Every key that a file can have.
const EVERYTHING: &str = r#"
apiVersion: selvedge/v1
kind: NetworkSlice
metadata: { name: factory-control }
spec:
  template: URLLC
  sNssai: { sst: 2, sd: "00A1B2" }
  5qi: 82
  class: urllc
  priority: 7
  downlink: { guaranteed: 20Mbps, maximum: 40Mbps }
  uplink:   { guaranteed: 20Mbps, maximum: 40Mbps, burst: 30kB }
  latency: 5ms
  availability: 99.99
  resourceSharingLevel: non-shared
  maxNumberofUEs: 1
  maxNumberofPDUSessions: 2
  schedule: { start: "2026-11-24T13:00:00Z", end: "2026-11-25T01:00:00+01:00" }
  endpoints:
    - { ue: robot-1, downlink: { guaranteed: 5Mbps }, uplink: { maximum: 10Mbps } }
    - { dn: plc }
  through: [{ hook: deduplicate, onFailure: bypass }]
---
apiVersion: selvedge/v1
kind: ClassMap
metadata: { name: operator }
spec:
  sst: { "3": best-effort }
  5qi: { "200": guaranteed }
  dscp: { "46": urllc }
---
apiVersion: selvedge/v1
kind: Hook
metadata: { name: deduplicate }
spec:
  module: hooks/deduplicate.wasm
  config: "window=64"
  fuelPerPacket: 5000
  memory: 4Mi
---
apiVersion: selvedge/v1
kind: Application
metadata: { name: monitor }
spec:
  endpoint: plc
  computeDescriptor: { cpu: 2, memory: 1Gi, architecture: x86_64, accelerators: {} }
  latency: 5ms
  placement:
    sites: [east, west]
    preferredSites: east
    area: { position: [49.6, 6.13], radius: 20km }
    antiAffinity: [vision]
    movingCost: 7.5W
  trafficRules:
    - trafficRuleId: block-telnet
      filterType: FLOW
      priority: 1
      action: DROP
      state: ACTIVE
      trafficFilter:
        - srcAddress: [10.1.0.0/16, 10.9.0.1]
          dstAddress: [10.2.0.21]
          srcPort: ["1000-1002"]
          dstPort: [23]
          protocol: [TCP]
          dSCP: 10
---
apiVersion: selvedge/v1
kind: PduSession
metadata: { name: robot }
spec:
  ue: robot-1
  slice: everything
  gnb: gnb-1
  n3: 198.51.100.1
  uplink: { teid: 1 }
  downlink: { teid: 4294967295 }
  qosFlows: [{ qfi: 0, 5qi: 9 }, { qfi: 63, 5qi: 200 }]
  mtu: 1344
"#;

#[test]
fn everything() {
    let objects = parse("all.yaml", EVERYTHING).unwrap();
    let [
        Object::NetworkSlice(slice),
        Object::ClassMap(map),
        Object::Hook(hook),
        Object::Application(app),
        Object::PduSession(session),
    ] = &objects[..]
    else {
        panic!("five kinds: {objects:?}")
    };
    assert_eq!(slice.s_nssai.unwrap().to_string(), "2-00A1B2");
    assert_eq!((slice.class, slice.priority, slice.five_qi), (Class::Urllc, 7, Some(82)));
    assert_eq!(slice.downlink.guaranteed_burst(slice.class), Bytes(12_500));
    assert_eq!(slice.uplink.guaranteed_burst(slice.class), Bytes(30_000));
    assert_eq!(slice.uplink.maximum, Some(BitRate::from_mbps(40)));
    assert_eq!(slice.latency, Some(Delay::from_ms(5)));
    assert_eq!(slice.availability.unwrap().ppm(), 999_900);
    assert_eq!(slice.through[0].on_failure, OnFailure::Bypass);
    let pairs: Vec<String> =
        slice.pairs().iter().map(|(from, to, d)| format!("{from} {to} {d}")).collect();
    assert_eq!(pairs, ["robot-1 plc uplink", "plc robot-1 downlink"]);
    assert_eq!(slice.endpoints_on(Side::Dn).count(), 1);
    assert_eq!(slice.rates(Direction::Uplink).guaranteed, Some(BitRate::from_mbps(20)));
    assert_eq!((hook.fuel_per_packet, hook.memory), (5000, Bytes(4 << 20)));
    assert_eq!((session.uplink_teid, session.downlink_teid, session.mtu), (1, u32::MAX, 1344));
    assert_eq!(session.qfis(), 1 << 63 | 1);
    // By the map 5QI 200 is guaranteed; without a flow of a class the first one takes it.
    assert_eq!(session.downlink_qfi(Class::Guaranteed, Some(map)), 63);
    assert_eq!(session.downlink_qfi(Class::Urllc, Some(map)), 0);
    let rule = &app.traffic_rules[0];
    assert_eq!(
        (rule.filter_type, rule.action, rule.state),
        (FilterType::Flow, RuleAction::Drop, RuleState::Active)
    );
    // Both directions of two addresses, with a range of ports.
    assert_eq!(rule.matches().len(), 2 * 2);
    assert_eq!(slice.resource_sharing_level, ResourceSharingLevel::NonShared);
    assert_eq!(
        (slice.max_ues, slice.max_pdu_sessions, slice.most_ues()),
        (Some(1), Some(2), Some(1))
    );
    assert_eq!(slice.schedule.unwrap().told(), "from 2026-11-24T13:00:00Z to 2026-11-25T00:00:00Z");
    let robot = &slice.endpoints[0];
    assert_eq!(robot.downlink.guaranteed, Some(BitRate::from_mbps(5)));
    assert_eq!(robot.uplink.maximum, Some(BitRate::from_mbps(10)));
    assert_eq!(map.five_qi.get(&200), Some(&Class::Guaranteed));
}

/// What the store keeps is what a file would say.
#[test]
fn objects_become_documents_and_come_back() {
    for object in parse("all.yaml", EVERYTHING).unwrap() {
        let document = selvedge_slices::document::of(&object);
        assert_eq!(
            selvedge_slices::document::object(&document).as_ref(),
            Ok(&object),
            "{document}"
        );
    }
}

#[test]
fn examples() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let objects = check(&examples.join("metro/slices.yaml")).unwrap();
    let [Object::NetworkSlice(slice)] = &objects[..] else { panic!("one slice: {objects:?}") };
    assert_eq!(slice.class, Class::Guaranteed);
    assert_eq!(slice.uplink.guaranteed_burst(slice.class), Bytes(625_000));
}

/// line:column: message [help]
fn problems(text: &str) -> Vec<String> {
    match parse("f.yaml", text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .places()
            .map(|(line, column, problem)| {
                let help = problem.help.as_ref().map(|help| format!(" [{help}]"));
                format!("{line}:{column}: {}{}", problem.message, help.unwrap_or_default())
            })
            .collect(),
    }
}

#[test]
fn everything_wrong_in_one_go() {
    let text = r#"
apiVersion: selvedge/v0
kind: NetworkSlice
metadata: { name: Factory, labels: {} }
spec:
  sNsai: { sst: 1 }
  sNssai: { sst: 256, sd: "A1B2" }
  5qi: 11
  class: guarantied
  downlink: { guaranteed: 20mbps, maximum: 40 }
  uplink: { guaranteed: 20Mbps, maximum: 10Mbps, burst: 1kB }
  latency: 5
  availability: 101
  endpoints: [{ ue: robot-1 }, { dn: robot-1 }, { ue: a, dn: b }, robot-2]
  through: [{ hook: deduplicate }, { hook: x, onFailure: skip }]
---
apiVersion: selvedge/v1
kind: Hok
metadata: { name: a }
spec: {}
---
apiVersion: selvedge/v1
kind: Hook
metadata: { name: a }
spec: { modul: a.wasm, memory: 4Ti, fuelPerPacket: 0 }
---
apiVersion: selvedge/v1
kind: Application
metadata: { name: a }
spec:
  endpoint: plc
  trafficRules:
    - trafficRuleId: r
      filterType: FLOW
      priority: 256
      action: FORWARD_DECAPSULATED
      dstInterface: {}
      trafficFilter: [{ srcAddress: [10.0.0.0-10.0.0.9], dstPort: [http], qCI: 1 }]
"#;
    let want = [
        "2:13: \"selvedge/v0\" is not a version that is known [did you mean \"selvedge/v1\"?]",
        "4:19: \"Factory\" is not a name: 1 to 63 of a-z, 0-9 and '-', no '-' at either end \
         [did you mean factory?]",
        "4:28: metadata has no \"labels\" [known here: name]",
        "6:3: a spec has no \"sNsai\" [did you mean \"sNssai\"?]",
        "7:18: \"256\" is not a whole number from 0 to 255",
        "7:27: \"A1B2\" is not a slice differentiator: six hexadecimal digits [did you mean \
         \"00A1B2\"?]",
        "8:8: 11 is not a standardized 5QI [see 3GPP TS 23.501, table 5.7.4-1; or state a class]",
        "9:10: \"guarantied\" is not a class [did you mean \"guaranteed\"?]",
        "10:27: \"20mbps\" is not a bit rate such as 20Mbps [did you mean 20Mbps?]",
        "10:44: \"40\" is not a bit rate such as 20Mbps [did you mean 40Mbps?]",
        "11:42: the maximum 10Mbps is below the guaranteed 20Mbps",
        "11:57: a burst is from 1500B to 4294967295B",
        "12:12: \"5\" is not a time in whole microseconds such as 5ms [did you mean 5ms?]",
        "13:17: \"101\" is not a percentage of time such as 99.99, to four decimals",
        "14:38: endpoint robot-1 is here twice",
        "14:49: an endpoint is either a ue or a dn [such as { ue: robot-1 } or { dn: plc }]",
        "14:67: an endpoint is a mapping of keys to values",
        "15:13: a hook on the path has no \"onFailure\"",
        "15:58: \"skip\" is not what happens when it fails [known here: bypass, drop]",
        "18:7: \"Hok\" is not a kind of object [did you mean \"Hook\"?]",
        "25:7: a spec has no \"module\"",
        "25:9: a spec has no \"modul\" [did you mean \"module\"?]",
        "25:32: a hook's memory is from 64Ki to 4Gi",
        "25:52: \"0\" is not a whole number from 1 to 1000000000",
        "35:17: \"256\" is not a whole number from 0 to 255",
        "36:15: action \"FORWARD_DECAPSULATED\": forwarding to another interface is not offered: \
         packets go to their destination [offered are DROP and PASSTHROUGH]",
        "37:7: a traffic rule has no \"dstInterface\": packets go to their destination or nowhere",
        "38:38: \"10.0.0.0-10.0.0.9\": address ranges are not offered [write the range as \
         prefixes, such as 10.0.0.0/24]",
        "38:68: \"http\" is not a port from 0 to 65535, or a range such as 80-90",
        "38:75: a traffic filter has no \"qCI\": a slice stands for its quality of service",
    ];
    let got = problems(text);
    assert_eq!(got, want, "{got:#?}");
}

#[test]
fn whole_files() {
    let slice = |spec: &str| {
        let ends = "endpoints: [{ ue: a }, { dn: b }]";
        format!(
            "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: a }}\n\
             spec: {{ {ends}{spec} }}\n"
        )
    };
    let twice = format!("{}---\n{}", slice(""), slice(""));
    let deep = "{a: ".repeat(10_000);
    let reserved = slice("").replace("name: a", "name: default");
    let hooks = slice(
        ", through: [{ hook: a, onFailure: drop }, { hook: a, onFailure: drop }, \
         { hook: b, onFailure: drop }, { hook: c, onFailure: drop }]",
    );
    let session = |more: &str| {
        let flows = "qosFlows: [{ qfi: 1, 5qi: 9 }, { qfi: 2, 5qi: 3 }]";
        let tunnels = "n3: 192.0.2.1, uplink: { teid: 1 }, downlink: { teid: 2 }";
        format!(
            "apiVersion: selvedge/v1\nkind: PduSession\nmetadata: {{ name: a }}\n\
             spec: {{ ue: a, slice: b, gnb: c, {tunnels}, {flows}{more} }}\n"
        )
    };
    // (input, parts of the problems)
    let cases: &[(&str, &[&str])] = &[
        ("", &["no object"]),
        ("[]", &["an object is a mapping"]),
        (&deep, &["deeper than 64"]),
        (&slice(""), &[]),
        (&twice, &["NetworkSlice a is here twice"]),
        (&reserved, &["slice of endpoints that no slice names"]),
        (&hooks, &["hook a is here twice", "at most 3 hooks"]),
        (&slice(", class: guaranteed"), &["class guaranteed does not go"]),
        (&slice(", class: best-effort, uplink: { guaranteed: 1Mbps }"), &["class best-effort"]),
        (&slice(", class: urllc"), &[]),
        (&slice(", uplink: { burst: 30kB }"), &["a burst goes with"]),
        (&slice(", uplink: { guaranteed: 1kbps }"), &["from 64kbps to 100Gbps"]),
        (&slice(", latency: 0us"), &["from 1us to 10s"]),
        (&session(""), &[]),
        (&session(", mtu: 1343"), &["from 1344 to 65535"]),
        (&session("").replace("192.0.2.1", "::ffff:192.0.2.1"), &["write it as IPv4"]),
        (&session("").replace("192.0.2.1", "224.0.0.1"), &["no address of one switch"]),
        (&session("").replace("teid: 1 ", "teid: 0 "), &["from 1 to 4294967295"]),
        (&session("").replace("qfi: 1,", "qfi: 64,"), &["from 0 to 63"]),
        (&session("").replace("qfi: 2,", "qfi: 1,"), &["QFI 1 is here twice"]),
        (&session("").replace("5qi: 9", "5qi: 11"), &["not a standardized 5QI"]),
        ("name: x\ntopology: {}", &["this is a topology"]),
        ("apiVersion: selvedge/v1", &["\"kind\"", "\"metadata\"", "\"spec\""]),
    ];
    for (input, want) in cases {
        let got = problems(input);
        let shown: String = input.chars().take(300).collect();
        assert_eq!(got.len(), want.len(), "{shown:?}: {got:?}");
        for (got, want) in got.iter().zip(*want) {
            assert!(got.contains(want), "{shown:?}: {got}");
        }
    }
    let missing = check(Path::new("no/such/file.yaml")).unwrap_err();
    assert!(format!("{missing:?}").contains("cannot be read"), "{missing:?}");
}

/// The schema and the reader know the same keys: each key of the schema is in [`EVERYTHING`],
/// which the reader takes, and each key of [`EVERYTHING`] is in the schema.
#[test]
fn the_schema_knows_the_readers_keys() {
    let schema = json_schema();
    let mut in_schema = BTreeSet::new();
    properties(&schema, &mut in_schema);
    let mut in_file = BTreeSet::new();
    for document in selvedge_topology::yaml::documents(EVERYTHING).values {
        keys(&document, &mut in_file);
    }
    assert_eq!(in_schema, BTreeSet::from_iter(in_file.into_iter().chain(["dn".into()])));
    assert!(schema.to_string().contains("\"selvedge/v1\""));
}

/// What `selvedge schema` prints is published as docs/reference/object.schema.json;
/// `SELVEDGE_UPDATE=1` writes it.
#[test]
fn the_published_schema_is_this_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/object.schema.json");
    let schema = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    if std::env::var_os("SELVEDGE_UPDATE").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(published == schema, "{} is of another version", path.display());
}

fn properties(schema: &serde_json::Value, found: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(map) => {
            if let Some(serde_json::Value::Object(properties)) = map.get("properties") {
                found.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| properties_of(value, found));
        }
        serde_json::Value::Array(list) => {
            list.iter().for_each(|value| properties_of(value, found));
        }
        _ => {}
    }
}

fn properties_of(schema: &serde_json::Value, found: &mut BTreeSet<String>) {
    properties(schema, found);
}

fn keys(value: &selvedge_topology::yaml::Value, found: &mut BTreeSet<String>) {
    use selvedge_topology::yaml::Kind;
    match &value.kind {
        Kind::Mapping(entries) => {
            for (key, value) in entries {
                // Of a map of classes: any number.
                if !key.text.bytes().all(|b| b.is_ascii_digit()) {
                    found.insert(key.text.clone());
                }
                keys(value, found);
            }
        }
        Kind::Sequence(items) => items.iter().for_each(|item| keys(item, found)),
        Kind::Null | Kind::Scalar(_) => {}
    }
}
