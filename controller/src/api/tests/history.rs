//! Who changed what, and the way back.

use super::*;

#[tokio::test]
async fn who_changed_what_and_why_and_back() {
    let api = Fixture::new();
    let _switches = join_pair(&api.controller).await;
    api.controller.until_converged().await;
    let because = |rate: &str, reason: &str| json!({ "documents": slice("control", rate), "reason": reason, "author": "alice" });
    assert_eq!(api.post("/v1/apply", because("10Mbps", "ticket 7")).await.0, 200);
    assert_eq!(api.post("/v1/apply", because("20Mbps", "")).await.0, 200);
    let history = api.get("/v1/history").await;
    let line = |n: usize, field: &str| history[n][field].clone();
    assert_eq!((line(0, "revision"), line(0, "reason")), (json!(1), json!("ticket 7")));
    assert_eq!(line(0, "author"), "alice (unknown)", "{history}");
    let touched = json!([{ "verb": "changed", "kind": "NetworkSlice", "name": "control" }]);
    assert_eq!((line(1, "reason"), &line(1, "objects")), (json!(""), &touched));
    let details = api.get("/v1/history/2").await;
    let rate = |when: &str| details["documents"][0][when]["spec"]["downlink"]["guaranteed"].clone();
    assert_eq!((rate("before"), rate("after")), (json!("10Mbps"), json!("20Mbps")), "{details}");
    assert_eq!(api.call("GET", "/v1/history/3", None).await.0, 404);
    assert_eq!(api.call("GET", "/v1/history/x", None).await.0, 400);

    let (status, plan) = api.post("/v1/plan", json!({ "rollback": 1 })).await;
    assert_eq!((status, &plan["refusal"]), (200, &Value::Null));
    assert_eq!(plan["objects"], touched);
    let back = json!({ "rollback": 1, "plan": plan["id"], "reason": "too much" });
    let (status, applied) = api.post("/v1/apply", back.clone()).await;
    assert_eq!((status, &applied["revision"]), (200, &json!(3)), "{applied}");
    assert_eq!(api.post("/v1/apply", back).await.0, 412);
    assert_eq!(api.get("/v1/history").await[2]["rollback"], 1);

    let long = "x".repeat(1025);
    for (body, want, text) in [
        (json!({ "rollback": 9 }), 404, "the newest is 3"),
        (json!({ "rollback": 1, "documents": slice("a", "1Mbps") }), 422, "goes alone"),
        (json!({ "rollback": 1, "reason": long }), 422, "reason: 1025 bytes"),
        (json!({ "rollback": 1, "author": "a\nb" }), 422, "author: it is one line"),
    ] {
        let (status, problem) = api.post("/v1/apply", body).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(status == want && detail.contains(text), "{status}: {detail}");
    }
}

#[tokio::test]
async fn a_full_store_keeps_history_and_intent_together() {
    let api = Fixture::new();
    api.controller.store.full.store(true, Ordering::SeqCst);
    assert_eq!(api.apply(&slice("control", "20Mbps")).await.0, 507);
    assert_eq!(api.get("/v1/history").await, json!([]));
    api.controller.store.full.store(false, Ordering::SeqCst);
    assert_eq!(api.apply(&slice("control", "20Mbps")).await.0, 200);
    assert_eq!(api.get("/v1/history").await[0]["revision"], 1);
    let keys = api.controller.store.keys("history/").await.unwrap();
    assert_eq!(keys, ["history/00000000000000000001"]);
}
