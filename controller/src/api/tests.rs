//! The API in process: the real router, engine and store, switches made up.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body as HttpBody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt as _;
use selvedge_pipeline::Entry;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::testing::{Controller, join_pair};

struct Fixture {
    controller: Controller,
    router: Router,
}

impl Fixture {
    fn new() -> Self {
        let controller = Controller::start();
        let api = Api::new(
            controller.handle.clone(),
            controller.store.clone(),
            controller.topology.clone(),
        );
        Self { controller, router: router(api) }
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = body.map_or_else(HttpBody::empty, |body| HttpBody::from(body.to_string()));
        self.send(method, path, body).await
    }

    async fn send(&self, method: &str, path: &str, body: HttpBody) -> (u16, Value) {
        let request = axum::http::Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        if status >= 400 {
            assert_eq!(kind.unwrap(), "application/problem+json", "{path}: {text}");
            let value: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["status"], status, "{text}");
            return (status, value);
        }
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, value) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call("POST", path, Some(body)).await
    }

    async fn apply(&self, yaml: &str) -> (u16, Value) {
        self.post("/v1/apply", json!({ "documents": yaml })).await
    }
}

fn slice(name: &str, guaranteed: &str) -> String {
    format!(
        "apiVersion: selvedge/v1\n\
         kind: NetworkSlice\n\
         metadata: {{ name: {name} }}\n\
         spec:\n  \
           downlink: {{ guaranteed: {guaranteed} }}\n  \
           uplink: {{ guaranteed: {guaranteed} }}\n  \
           endpoints: [{{ ue: h1 }}, {{ dn: h2 }}]\n"
    )
}

const HOOK: &str = "apiVersion: selvedge/v1\n\
                    kind: Hook\n\
                    metadata: { name: dedup }\n\
                    spec: { module: hooks/dedup.wasm }\n";

#[tokio::test]
async fn the_network_as_it_is() {
    let api = Fixture::new();
    let status = api.get("/v1/status").await;
    assert_eq!(status["converged"], false);
    assert_eq!(status["switches"], json!({ "ready": 0, "declared": 2 }));

    let _switches = join_pair(&api.controller).await;
    api.controller.until_converged().await;
    let status = api.get("/v1/status").await;
    assert_eq!(status["converged"], true, "{status}");
    assert_eq!(status["switches"], json!({ "ready": 2, "declared": 2 }));
    assert_eq!(status["links"]["ready"], status["links"]["declared"]);

    let nodes = api.get("/v1/nodes").await;
    assert_eq!(nodes.as_array().unwrap().len(), 2);
    let node = api.get("/v1/nodes/s1").await;
    assert_eq!(node["name"], "s1");
    assert_eq!(
        node["ports"][0]["neighbor"],
        json!({ "chassis": "s2", "port": "p1", "authenticated": true })
    );
    let entries = api.get("/v1/nodes/s1/entries").await;
    let desired = api.get("/v1/nodes/s1/entries?which=desired").await;
    for entry in desired.as_array().unwrap() {
        assert!(entries.as_array().unwrap().contains(entry), "{entry}");
    }
    let tables: Vec<&str> =
        entries.as_array().unwrap().iter().map(|e| e["table"].as_str().unwrap()).collect();
    for table in ["port", "endpoint", "local_sid", "next_hop", "generation"] {
        assert!(tables.contains(&table), "{table} in {tables:?}");
    }
    let endpoint = api.get("/v1/endpoints/h1").await;
    assert_eq!(endpoint["slices"], json!(["default"]));
    assert_eq!(endpoint["switch"], "s1");
    assert!(api.get("/v1/topology").await.as_str().unwrap().contains("s1:p1"));
    let kinds: Vec<Value> = api
        .get("/v1/events")
        .await
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["kind"].clone())
        .collect();
    assert!(kinds.contains(&json!("switch-joined")), "{kinds:?}");
}

#[tokio::test]
async fn counters_come_from_the_switch_under_their_names() {
    let api = Fixture::new();
    let (status, problem) = api.call("GET", "/v1/nodes/s1/counters", None).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(status == 503 && detail.contains("s1") && detail.contains("not joined"), "{problem}");
    assert_eq!(api.call("GET", "/v1/nodes/s9/counters", None).await.0, 404);

    let _switches = join_pair(&api.controller).await;
    api.controller.until_converged().await;
    assert_eq!(api.apply(&slice("control", "20Mbps")).await.0, 200);
    let counters = api.get("/v1/nodes/s1/counters").await;
    assert_eq!(counters["node"], "s1");
    // The made-up switch: 1,000 packets and 100,000 bytes a counter, plus the index.
    let drops = counters["drops"].as_object().unwrap();
    assert_eq!(drops.len(), selvedge_pipeline::DropReason::ALL.len());
    assert_eq!((&drops["spoofed_source"], &drops["no_route"]), (&json!(3_003), &json!(3_005)));
    let p2 = json!({ "port": 2, "name": "p2", "rx_packets": 1_002, "rx_bytes": 100_002,
                     "tx_packets": 2_002, "tx_bytes": 200_002, "tx_errors": 8_002,
                     "capacity_bps": 1_000_000_000, "rate": null });
    assert_eq!(counters["ports"][1], p2);
    assert_eq!(counters["ports"].as_array().unwrap().len(), 3);
    let id = api.get("/v1/slices/control").await["id"].as_u64().unwrap();
    let uplink = json!({ "slice": "control", "direction": "uplink",
                         "packets": 4_001 + 2 * id, "bytes": 400_001 + 2 * id,
                         "dropped_packets": 5_001 + 2 * id, "dropped_bytes": 500_001 + 2 * id });
    let slices = counters["slices"].as_array().unwrap();
    assert_eq!(slices.len(), 4, "control and default, both directions");
    assert!(slices.contains(&uplink), "{uplink} in {slices:?}");
}

#[test]
fn a_hook_is_as_well_as_its_worst_instance() {
    use selvedge_core::HookState::{Down, Loading, Quarantined, Refused, Running};
    use selvedge_core::view::{HookInstanceView, HookView};
    let hook = |states: &[Option<selvedge_core::HookState>]| {
        let instance = |(n, state): (usize, &Option<_>)| HookInstanceView {
            slice: "a".into(),
            switch: format!("s{n}").parse().unwrap(),
            hook: selvedge_pipeline::HookId(0),
            state: *state,
            reason: String::new(),
        };
        let view = HookView {
            name: "mark".into(),
            sha256: String::new(),
            fuel_per_packet: 1,
            memory_bytes: 1,
            instances: states.iter().enumerate().map(instance).collect(),
            revision: 1,
            author: String::new(),
        };
        let hook = wire::Hook::from(view);
        (hook.state, hook.node)
    };
    let at = |node: &str| Some(node.to_owned());
    for (states, state, node) in [
        (&[][..], "unused", None),
        (&[None], "loading", at("s0")),
        (&[Some(Running)], "running", at("s0")),
        (&[Some(Running), None], "loading", at("s1")),
        (&[Some(Running), Some(Running)], "running", at("s0")),
        (&[Some(Loading), Some(Down), Some(Down)], "down", at("s1")),
        (&[Some(Quarantined), Some(Down)], "quarantined", at("s0")),
        (&[Some(Quarantined), Some(Refused)], "refused", at("s1")),
    ] {
        assert_eq!(hook(states), (state.to_owned(), node), "{states:?}");
    }
}

#[tokio::test]
async fn a_slice_from_plan_to_deletion() {
    let api = Fixture::new();
    let _switches = join_pair(&api.controller).await;
    api.controller.until_converged().await;

    let body = json!({ "documents": slice("control", "20Mbps") });
    let (status, plan) = api.post("/v1/plan", body.clone()).await;
    assert_eq!(status, 200, "{plan}");
    assert_eq!(plan["refusal"], Value::Null, "{plan}");
    assert!(plan["switches"]["s1"]["added"].as_array().unwrap().len() > 1, "{plan}");
    assert_eq!(api.get("/v1/slices").await.as_array().unwrap().len(), 0, "a plan changes nothing");

    let mut body = body;
    body["plan"] = plan["id"].clone();
    let (status, applied) = api.post("/v1/apply", body.clone()).await;
    assert_eq!((status, &applied["changed"]), (200, &json!(true)), "{applied}");
    api.controller.until_converged().await;

    let (status, stale) = api.post("/v1/apply", body).await;
    assert_eq!(status, 412, "{stale}");
    let (status, again) = api.apply(&slice("control", "20Mbps")).await;
    assert_eq!((status, &again["changed"]), (200, &json!(false)), "{again}");

    let found = api.get("/v1/slices/control").await;
    assert_eq!(found["state"], "kept", "{found}");
    let explanation = api.get("/v1/slices/control/explanation").await;
    let path = &explanation["placement"]["paths"][0];
    assert!(path["nodes"].as_array().unwrap().len() == 2, "{explanation}");
    assert!(path["delay"]["total_us"].as_u64().unwrap() > 300, "{explanation}");

    let (status, gone) = api.call("DELETE", "/v1/slices/control", None).await;
    assert_eq!((status, &gone["changed"]), (200, &json!(true)), "{gone}");
    let (status, problem) = api.call("DELETE", "/v1/slices/control", None).await;
    assert_eq!(status, 404, "{problem}");
    let (status, _) = api.call("GET", "/v1/slices/control", None).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_nothing_changes() {
    let api = Fixture::new();
    let switches = join_pair(&api.controller).await;
    api.controller.until_converged().await;
    let before = switches[0].entries.lock().unwrap().clone();
    let (status, problem) = api.apply(&slice("greedy", "200Mbps")).await;
    assert_eq!(status, 409, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("greedy") && detail.contains("s1:p1"), "{detail}");
    let (status, plan) =
        api.post("/v1/plan", json!({ "documents": slice("greedy", "200Mbps") })).await;
    assert_eq!(status, 200);
    assert!(plan["refusal"].as_str().unwrap().contains("greedy"), "{plan}");
    assert_eq!(api.get("/v1/slices").await, json!([]));
    assert_eq!(*switches[0].entries.lock().unwrap(), before);
}

#[tokio::test]
async fn bad_requests_say_what_and_where() {
    let api = Fixture::new();
    let wrong = "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: { name: Bad }\nspec:\n  \
                 downlink: { guaranteed: 20Mbit }\n  endpoints: [{ ue: h1 }]\n  colour: red\n";
    let hook = |modules: Value| json!({ "documents": HOOK, "modules": modules });
    let named = json!({ "documents": [{ "name": "a.yaml", "text": wrong }] });
    let big = STANDARD.encode(vec![0; crate::modules::MAX_MODULE_BYTES + 1]);
    // (path, body, status, what the detail has)
    let cases = [
        ("/v1/apply", json!({}), 422, "nothing to put"),
        ("/v1/apply", json!({ "documents": wrong }), 422, "documents:5:"),
        ("/v1/plan", named.clone(), 422, "a.yaml:7:"),
        ("/v1/apply", named, 422, "\"Bad\""),
        ("/v1/apply", json!({ "document": "" }), 422, "document"),
        ("/v1/apply", json!({ "delete": [{ "kind": "Slice", "name": "a" }] }), 422, "NetworkSlice"),
        ("/v1/apply", json!({ "delete": [{ "kind": "Hook", "name": "A" }] }), 422, "\"A\""),
        ("/v1/apply", json!({ "delete": [{ "kind": "Hook", "name": "a" }] }), 404, "\"a\""),
        ("/v1/apply", json!({ "documents": HOOK, "plan": "7" }), 422, "plan"),
        ("/v1/apply", hook(json!({})), 422, "hooks/dedup.wasm"),
        ("/v1/apply", hook(json!({ "dedup": "%" })), 422, "base64"),
        ("/v1/apply", hook(json!({ "dedup": big })), 422, "at most"),
        ("/v1/trace", json!({}), 422, "`from` and `to`"),
        ("/v1/trace", json!({ "from": "h1", "to": "nobody" }), 404, "nobody"),
        ("/v1/trace", json!({ "node": "s9", "port": "p1", "frame": "" }), 404, "s9"),
        ("/v1/trace", json!({ "node": "s1", "port": "p1", "frame": "" }), 404, "p1"),
        ("/v1/trace", json!({ "from": "h1", "to": "h2" }), 404, "no port"),
        ("/v1/trace", json!({ "from": "h1", "to": "h2", "ip_version": 5 }), 422, "4 or 6"),
        ("/v1/trace", json!({ "from": "h3", "to": "h2", "ip_version": 6 }), 422, "addresses"),
        ("/v1/nothing", json!({}), 404, "/v1/nothing"),
        ("/v1/status", json!({}), 405, "POST"),
    ];
    for (path, body, want, text) in cases {
        let (status, problem) = api.post(path, body).await;
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(status, want, "{path}: {detail}");
        assert!(detail.contains(text), "want {text:?} in {detail:?}");
    }
    let (status, _) = api.send("POST", "/v1/apply", "{".into()).await;
    assert_eq!(status, 400);
    let (status, _) = api.send("POST", "/v1/apply", vec![b' '; MAX_BODY_BYTES + 1].into()).await;
    assert_eq!(status, 413);
    for (path, want) in [
        ("/v1/nodes/s9", 404),
        ("/v1/nodes/s9/entries", 404),
        ("/v1/nodes/s1/entries?which=all", 400),
        ("/v1/events?before=3", 400),
        ("/v1/slices/default%2F", 404),
    ] {
        assert_eq!(api.call("GET", path, None).await.0, want, "{path}");
    }
}

#[tokio::test]
async fn a_full_store_refuses_intent_and_reads_go_on() {
    let api = Fixture::new();
    let _switches = join_pair(&api.controller).await;
    api.controller.until_converged().await;
    api.controller.store.full.store(true, Ordering::SeqCst);
    let (status, problem) = api.apply(&slice("control", "20Mbps")).await;
    assert_eq!(status, 507, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    let file = api.controller.dir.path().join("controller.redb");
    assert!(detail.contains(file.to_str().unwrap()), "{detail}");
    assert!(detail.contains("nothing was changed"), "{detail}");
    assert_eq!(api.get("/v1/slices").await, json!([]));
    assert_eq!(api.get("/v1/status").await["converged"], true);
    let with_module = json!({ "documents": HOOK, "modules": { "dedup": STANDARD.encode("x") } });
    assert_eq!(api.post("/v1/apply", with_module).await.0, 507);
    api.controller.store.full.store(false, Ordering::SeqCst);
    let (status, applied) = api.apply(&slice("control", "20Mbps")).await;
    assert_eq!(status, 200, "{applied}");
    assert_eq!(api.get("/v1/slices").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn modules_are_kept_while_a_hook_or_a_rollback_needs_them() {
    let api = Fixture::new();
    let kept = || async { api.controller.store.keys("module/").await.unwrap() };
    let body = |module: &str| json!({ "documents": HOOK, "modules": { "hooks/dedup.wasm": STANDARD.encode(module) } });
    let (status, applied) = api.post("/v1/apply", body("\0asm one")).await;
    assert_eq!(status, 200, "{applied}");
    let one = format!("module/{}", crate::modules::sha256(b"\0asm one"));
    assert_eq!(kept().await, std::slice::from_ref(&one));
    let (status, _) = api.post("/v1/plan", body("\0asm planned")).await;
    assert_eq!((status, kept().await), (200, vec![one]), "a plan keeps nothing");
    let (status, _) = api.post("/v1/apply", body("\0asm two")).await;
    assert_eq!((status, kept().await.len()), (200, 2));
    let (status, _) = api.call("DELETE", "/v1/hooks/dedup", None).await;
    assert_eq!((status, kept().await.len()), (200, 2));
    let (status, applied) = api.post("/v1/apply", json!({ "rollback": 1 })).await;
    assert_eq!((status, &applied["revision"]), (200, &json!(4)), "{applied}");
    assert_eq!(api.get("/v1/hooks/dedup").await["sha256"], crate::modules::sha256(b"\0asm one"));
    // Those of hooks that the history no longer has go.
    for n in 0..selvedge_core::HISTORY_MODULES + 3 {
        assert_eq!(api.post("/v1/apply", body(&format!("\0asm {n}"))).await.0, 200);
    }
    assert_eq!(kept().await.len(), selvedge_core::HISTORY_MODULES + 1);
}

#[tokio::test]
async fn events_can_be_waited_for() {
    let api = Fixture::new();
    let lines = api.get("/v1/events?wait=0").await;
    let last =
        lines.as_array().unwrap().last().map_or(0, |line| line["sequence"].as_u64().unwrap());
    let path = format!("/v1/events?after={last}&wait=20");
    let (lines, _switches) = tokio::join!(api.get(&path), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        join_pair(&api.controller).await
    });
    assert_eq!(lines[0]["sequence"], last + 1, "{lines}");
}

#[tokio::test]
async fn a_packet_is_followed_to_its_end() {
    let api = Fixture::new();
    let _switches = join_pair(&api.controller).await;
    api.controller.until_converged().await;
    for (protocol, version) in [("udp", 4), ("tcp", 4), ("icmp", 4), ("udp", 6), ("icmp", 6)] {
        let body = json!({ "from": "h1", "to": "h2", "protocol": protocol, "ip_version": version });
        let (status, trace) = api.post("/v1/trace", body).await;
        assert_eq!(status, 200, "{trace}");
        assert_eq!(trace["result"], "delivered", "{trace}");
        assert_eq!(trace["detail"], "h2");
        let nodes: Vec<&str> = trace["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["node"].as_str().unwrap())
            .collect();
        assert_eq!(nodes, ["s1", "s2"]);
    }
    let body = json!({ "from": "h1", "to": "203.0.113.9" });
    let (_, trace) = api.post("/v1/trace", body).await;
    assert_eq!((&trace["result"], &trace["detail"]), (&json!("dropped"), &json!("no_route at s1")));
    let body = json!({ "node": "s1", "port": "p2", "frame": "ffff" });
    let (_, trace) = api.post("/v1/trace", body).await;
    assert_eq!(trace["detail"], "malformed at s1", "{trace}");
    let body = json!({ "node": "s1", "port": "p2", "frame": "fff" });
    assert_eq!(api.post("/v1/trace", body).await.0, 422);
}

#[tokio::test]
async fn mec_rules_reach_the_switches() {
    let api = Fixture::new();
    let switches = join_pair(&api.controller).await;
    api.controller.until_converged().await;
    let application = "apiVersion: selvedge/v1\nkind: Application\nmetadata: { name: video }\n\
                       spec:\n  endpoint: h2\n  trafficRules:\n  - trafficRuleId: r1\n    \
                       filterType: FLOW\n    priority: 1\n    state: INACTIVE\n    action: DROP\n    \
                       trafficFilter: [{ dstAddress: [10.0.0.2/32], protocol: [UDP], dstPort: [\"9\"] }]\n";
    let (status, applied) = api.apply(application).await;
    assert_eq!(status, 200, "{applied}");
    let rules = || {
        let entries = switches[0].entries.lock().unwrap();
        entries.values().filter(|entry| matches!(entry, Entry::Classifier(_))).count()
    };
    api.controller.until_converged().await;
    assert_eq!(rules(), 0, "an inactive rule is absent");
    let path = "/mec_app_support/v1/applications/video/traffic_rules/r1";
    let mut rule = api.get(path).await;
    rule["state"] = json!("ACTIVE");
    let (status, answer) = api.call("PUT", path, Some(rule)).await;
    assert_eq!(status, 200, "{answer}");
    api.controller.until_converged().await;
    assert!(rules() > 0, "an active rule is there");
    let body = json!({ "from": "h1", "to": "h2" });
    let (_, trace) = api.post("/v1/trace", body).await;
    assert_eq!(trace["detail"], "classifier_drop at s1", "{trace}");
    assert_eq!(api.get("/mec_service_mgmt/v1/services").await, json!([]));
}

/// Methods that a route can have. `HEAD` comes with every `GET`.
const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "PATCH"];

/// Every path of the router, as it prints them.
fn served(router: &Router) -> Vec<String> {
    let text = format!("{router:?}");
    let quoted = text.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/'));
    let mut paths: Vec<String> =
        quoted.filter(|path| path.len() > 1 && !path.contains("axum")).map(str::to_owned).collect();
    paths.sort();
    paths.dedup();
    paths
}

/// The path with something in place of each name.
fn filled(path: &str, name: &str) -> String {
    let segment = |part: &str| match part.starts_with('{') {
        true => name.to_owned(),
        false => part.to_owned(),
    };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn the_document_has_every_route_and_no_other() {
    let api = Fixture::new();
    let document = api.get("/v1/openapi.json").await;
    let text = document.to_string();
    for reference in text.split("\"#/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.pointer(&format!("/{reference}")).is_some(), "{reference}");
    }
    let mut documented = std::collections::BTreeSet::new();
    let mut ids = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path} says what it does");
            assert!(
                ids.insert(operation["operationId"].to_string()),
                "{}",
                operation["operationId"]
            );
            documented.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let mut served_here = std::collections::BTreeSet::new();
    let paths = served(&api.router);
    assert!(paths.len() > 20, "{paths:?}");
    for path in paths {
        for method in METHODS {
            if api.call(method, &filled(&path, "none"), Some(json!({}))).await.0 != 405 {
                served_here.insert(format!("{method} {path}"));
            }
        }
    }
    assert_eq!(documented, served_here);
    let page = api.get("/docs").await;
    assert!(page.as_str().unwrap().contains("/v1/openapi.json"));
}

#[tokio::test]
async fn whatever_comes_is_answered_with_a_reason() {
    let api = Fixture::new();
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"{\"documents\": \"\xc3\x28\"}",
        b"{\"a\": 1e999999}",
        deep.as_bytes(),
    ];
    let kinds: [Option<&[u8]>; 4] =
        [None, Some(b"application/json"), Some(b"text/plain"), Some(b"\xff")];
    let long = "a".repeat(500);
    let names = ["none", "%ff", "%00", "%2e%2e", "a%2fb", "%F0%9F%A6%80", "CAPITAL", &long];
    let queries =
        ["", "?", "?=", "?which=%ff", "?wait=-1&after=18446744073709551616", "?ser_name="];
    for path in served(&api.router) {
        for method in METHODS.into_iter().chain(["OPTIONS", "BREW"]) {
            for (n, name) in names.iter().enumerate() {
                for (m, body) in bodies.iter().enumerate() {
                    let kind = kinds[(n + m) % kinds.len()];
                    let uri = filled(&path, name) + queries[(n + m) % queries.len()];
                    let mut request = axum::http::Request::builder().method(method).uri(&uri);
                    if let Some(kind) = kind {
                        request = request.header(header::CONTENT_TYPE, kind);
                    }
                    let request = request.body(HttpBody::from(body.to_vec())).unwrap();
                    let answer = api.router.clone().oneshot(request).await.unwrap();
                    let status = answer.status().as_u16();
                    assert!(status < 500 || status == 503, "{method} {uri}: {status}");
                    if status < 400 {
                        continue;
                    }
                    let what = format!("{method} {uri} {body:?}");
                    let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
                    assert_eq!(kind.unwrap(), "application/problem+json", "{what}");
                    assert!(
                        status != 405 || answer.headers().contains_key(header::ALLOW),
                        "{what}"
                    );
                    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
                    let problem: Value = serde_json::from_slice(&bytes).unwrap();
                    assert_eq!(problem["status"], status, "{what}");
                    let detail = problem["detail"].as_str().unwrap();
                    assert!(!detail.is_empty() && detail.len() < 4_000, "{what}: {detail}");
                }
            }
        }
    }
    // And it still answers.
    assert_eq!(api.get("/v1/slices").await, json!([]));
}

#[tokio::test]
async fn too_many_requests_are_told_to_come_back() {
    let api = Fixture::new();
    let waiting = (0..MAX_REQUESTS).map(|_| {
        let router = api.router.clone();
        tokio::spawn(async move {
            let request = axum::http::Request::get("/v1/events?after=1000000&wait=60");
            router.oneshot(request.body(HttpBody::empty()).unwrap()).await
        })
    });
    let waiting: Vec<_> = waiting.collect();
    // One thread: once all of them have been polled, each has taken its place.
    for _ in 0..MAX_REQUESTS {
        tokio::task::yield_now().await;
    }
    assert_eq!(api.call("GET", "/v1/status", None).await.0, 503);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    for task in waiting {
        drop(task.await);
    }
    assert_eq!(api.call("GET", "/v1/status", None).await.0, 200);
}

mod assure;
mod bad_input;
mod history;
mod lifecycle;
