//! What an operator may get wrong, and what is said to it: what, where, and what would do.

use super::*;

/// A slice of one direction, with further lines.
fn file(spec: &str) -> String {
    format!(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: bad }}\nspec:\n  \
         endpoints: [{{ ue: h1 }}, {{ dn: h2 }}]\n{spec}"
    )
}

#[tokio::test]
async fn every_mistake_is_named_with_its_place() {
    let api = Fixture::new();
    let _switches = join_pair(&api.controller).await;
    api.controller.until_converged().await;
    let good = slice("good", "10Mbps");
    let marked = file("  through: [{ hook: dedup, onFailure: drop }]\n").replace("bad", "marked");
    let modules = json!({ "dedup": STANDARD.encode("\0asm") });
    let both =
        json!({ "documents": format!("{good}---\n{HOOK}---\n{marked}"), "modules": modules });
    let (status, applied) = api.post("/v1/apply", both).await;
    assert_eq!(status, 200, "{applied}");
    let (before, events) = (api.get("/v1/history").await, api.get("/v1/slices").await);

    // (what is in `f.yaml`, status, what is said)
    let cases = [
        // Contradictions.
        (
            "  uplink: { guaranteed: 20Mbps, maximum: 10Mbps }\n",
            422,
            "f.yaml:6:42: the maximum 10Mbps is below the guaranteed 20Mbps",
        ),
        ("  class: guaranteed\n", 422, "f.yaml:6:10: class guaranteed does not go"),
        ("  class: best-effort\n  uplink: { guaranteed: 1Mbps }\n", 422, "f.yaml:6:10: class best"),
        ("  uplink: { burst: 30kB }\n", 422, "f.yaml:6:20: a burst goes with"),
        ("  latency: 100us\n  uplink: { guaranteed: 1Mbps }\n", 409, "slice \"bad\" does not fit"),
        ("  uplink: { guaranteed: 90Mbps }\n", 409, "slice \"bad\" does not fit: "),
        // Rates.
        ("  uplink: { guaranteed: 0Mbps }\n", 422, "f.yaml:6:25: a guaranteed rate is from 64kbps"),
        ("  uplink: { maximum: 0bps }\n", 422, "f.yaml:6:22: a maximum rate is from 64kbps to"),
        ("  uplink: { guaranteed: -5Mbps }\n", 422, "f.yaml:6:25: \"-5Mbps\" is not a bit rate"),
        ("  uplink: { guaranteed: 101Gbps }\n", 422, "from 64kbps to 100Gbps"),
        ("  uplink: { guaranteed: 99999999999999999999Gbps }\n", 422, "f.yaml:6:25: \"9999"),
        ("  uplink: { guaranteed: 18446744073709551616bps }\n", 422, "f.yaml:6:25: \"1844"),
        ("  uplink: { guaranteed: 1e400Mbps }\n", 422, "f.yaml:6:25: \"1e400Mbps\" is not a bit"),
        ("  uplink: { guaranteed: .inf }\n", 422, "f.yaml:6:25: \".inf\" is not a bit rate"),
        ("  uplink: { guaranteed: 20Mbps, burst: 99999GB }\n", 422, "f.yaml:6:40: "),
        // Delays.
        ("  latency: 0ms\n", 422, "f.yaml:6:12: a latency is from 1us to 10s"),
        ("  latency: -5ms\n", 422, "f.yaml:6:12: \"-5ms\" is not a time"),
        ("  latency: 3h\n", 422, "f.yaml:6:12: \"3h\" is not a time"),
        ("  latency: 11s\n", 422, "f.yaml:6:12: a latency is from 1us to 10s"),
        ("  latency: 99999999999999999999s\n", 422, "f.yaml:6:12: \"9999"),
        ("  availability: 0\n", 422, "f.yaml:6:17: "),
        ("  availability: -1\n", 422, "f.yaml:6:17: "),
        // References.
        (
            "  through: [{ hook: gone, onFailure: drop }]\n",
            409,
            "hook \"gone\", which there is not",
        ),
    ];
    for (spec, want, text) in cases {
        let named = json!({ "documents": [{ "name": "f.yaml", "text": file(spec) }] });
        let (status, problem) = api.post("/v1/apply", named).await;
        let detail = problem["detail"].as_str().unwrap_or_else(|| panic!("taken: {spec}"));
        assert!(
            status == want && detail.contains(text),
            "{spec}: want {text:?} in {status} {detail:?}"
        );
    }

    let two = |a: &str, b: &str| json!({ "documents": [{ "name": "a.yaml", "text": a }, { "name": "b.yaml", "text": b }] });
    let dedup = json!([{ "kind": "Hook", "name": "dedup" }]);
    let newer = file("  colour: red\n").replace("selvedge/v1", "selvedge/v7");
    let unknown = file("").replace("selvedge/v1", "selvedge/1");
    let (other, reversed) =
        (slice("bad", "2Mbps"), file("").replace("ue: h1 }, { dn: h2", "dn: h1 }, { ue: h2"));
    let cases = [
        (two(&file(""), &other), 422, "b.yaml:3: NetworkSlice \"bad\" is at a.yaml:3 too"),
        (
            two(&newer, ""),
            422,
            "a.yaml:1:13: \"selvedge/v7\" is for a newer Selvedge; this one knows",
        ),
        (
            two(&unknown, &file("")),
            422,
            "a.yaml:1:13: \"selvedge/1\" is not a version that is known",
        ),
        // What is being deleted.
        (json!({ "delete": dedup }), 409, "hook \"dedup\" is used by slice \"marked\""),
        (
            json!({ "delete": dedup, "documents": file("  through: [{ hook: dedup, onFailure: drop }]\n") }),
            409,
            "hook \"dedup\" is used by slices \"bad\", \"marked\"",
        ),
        (
            json!({ "delete": [{ "kind": "NetworkSlice", "name": "good" }], "documents": good }),
            409,
            "NetworkSlice \"good\" is there twice",
        ),
        (json!({ "documents": reversed }), 409, "endpoint \"h1\" is `ue` in slice"),
        (json!({ "documents": file("").replace("h2", "h7") }), 409, "no host \"h7\""),
        (
            json!({ "drain": [{ "kind": "switch", "name": "s1" }] }),
            422,
            "\"switch\" is not a kind: node or link",
        ),
        (json!({ "drain": [{ "kind": "node", "name": "s3" }] }), 404, "did you mean \"s1\"?"),
        (
            json!({ "drain": [{ "kind": "link", "name": "s1 - s2" }] }),
            409,
            "nothing else leads to s",
        ),
    ];
    for (body, want, text) in cases {
        let (status, problem) = api.post("/v1/apply", body).await;
        let detail = problem["detail"].as_str().unwrap_or_else(|| panic!("taken: want {text}"));
        assert!(status == want && detail.contains(text), "want {text:?} in {status} {detail:?}");
    }
    assert_eq!((api.get("/v1/history").await, api.get("/v1/slices").await), (before, events));
}

#[tokio::test]
async fn with_files_as_the_intent_objects_are_changed_there() {
    let mut api = Fixture::new();
    let mut with_files = Api::new(
        api.controller.handle.clone(),
        api.controller.store.clone(),
        api.controller.topology.clone(),
    );
    with_files.intent_dir = Some(std::path::Path::new("/etc/intent").into());
    api.router = router(with_files);
    let _switches = join_pair(&api.controller).await;
    api.controller.until_converged().await;
    let body = json!({ "documents": slice("control", "20Mbps") });
    assert_eq!(api.post("/v1/plan", body.clone()).await.0, 200, "a plan changes nothing");
    for (method, path, body) in [
        ("POST", "/v1/apply", Some(body)),
        ("POST", "/v1/apply", Some(json!({ "rollback": 0 }))),
        ("DELETE", "/v1/slices/control", None),
    ] {
        let (status, problem) = api.call(method, path, body).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(status == 409 && detail.contains("/etc/intent"), "{method} {path}: {detail}");
    }
    let undrain = json!({ "undrain": [{ "kind": "node", "name": "s1" }] });
    assert_eq!(api.post("/v1/apply", undrain).await.0, 200);
}

#[tokio::test]
async fn figures_for_prometheus() {
    let api = Fixture::new();
    let _switches = join_pair(&api.controller).await;
    api.controller.until_converged().await;
    let told = selvedge_core::Event::IntentFiles { dir: "/x".into(), refused: Some("a:1".into()) };
    api.controller.handle.send(crate::engine::Input::Tell(told)).await.unwrap();
    let page = api.get("/metrics").await;
    let page = page.as_str().unwrap();
    for line in [
        "selvedge_converged 1",
        "selvedge_switches_joined 2",
        "selvedge_slices 0",
        "selvedge_intent_files_refused 1",
        "selvedge_intent_files_refusals_total 1",
    ] {
        assert!(page.lines().any(|found| found == line), "no {line:?} in {page}");
    }
    for line in page.lines() {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        assert!(name.starts_with("selvedge_"), "{line}");
    }
}
