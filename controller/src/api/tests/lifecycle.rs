//! Feasibility, reservations, activation; slices for other systems.

use super::*;

#[tokio::test]
async fn reserved_for_a_time_activated_and_deactivated() {
    let api = Fixture::new();
    let _switches = join_pair(&api.controller).await;
    api.controller.until_converged().await;
    let job = |extra: Value| {
        let mut job = json!({ "documents": slice("control", "10Mbps") });
        job.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        job
    };
    let (status, answers) = api.post("/v1/feasibility", job(json!({}))).await;
    assert_eq!((status, &answers[0]["feasibilityResult"]), (200, &json!("FEASIBLE")), "{answers}");
    assert_eq!(api.get("/v1/slices").await, json!([]));
    let until = answers[0]["feasibilityExpiration"].as_str().unwrap();
    let until = until.parse::<selvedge_slices::schedule::Timestamp>().unwrap().0;
    let now = crate::clock::unix_ms();
    let ahead = now.saturating_sub(5_000)..=now + selvedge_core::CHECK_VALID_MS;
    assert!(ahead.contains(&until), "{answers}");
    assert!(answers[0]["feasibilityState"].is_string(), "{answers}");
    let much = json!({ "documents": slice("control", "90Gbps") });
    let (status, answers) = api.post("/v1/feasibility", much).await;
    assert_eq!((status, &answers[0]["feasibilityResult"]), (200, &json!("INFEASIBLE")));
    let recommended = answers[0]["recommendedRequirements"].as_str().unwrap();
    assert!(recommended.contains("kind: NetworkSlice"), "{answers}");

    let never = "2000-01-01T00:00:00Z";
    for (extra, want, text) in [
        (json!({ "resourceReservation": true }), 422, "state requestedReservationExpiration"),
        (json!({ "requestedReservationExpiration": "soon" }), 422, "RFC 3339"),
        (
            json!({ "resourceReservation": true, "requestedReservationExpiration": never }),
            409,
            "ends in the future",
        ),
        (json!({ "documents": "kind: x" }), 422, "documents:1:"),
    ] {
        let (status, problem) = api.post("/v1/feasibility", job(extra)).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(status == want && detail.contains(text), "{status}: {detail}");
    }

    let soon = selvedge_slices::schedule::Timestamp(crate::clock::unix_ms() + 3_600_000);
    let reservation = json!({
        "resourceReservation": true, "requestedReservationExpiration": soon.to_string(),
    });
    let (status, answers) = api.post("/v1/feasibility", job(reservation)).await;
    assert_eq!((status, &answers[0]["resourceReservationStatus"]), (200, &json!("RESERVED")));
    assert!(answers[0].get("feasibilityExpiration").is_none(), "{answers}");
    let of = |slice: &Value, field: &str| slice[field].clone();
    let reserved = api.get("/v1/slices/control").await;
    assert_eq!(of(&reserved, "lifecycle"), "reserved");
    assert_eq!(of(&reserved, "reserved_until"), soon.to_string());
    assert_eq!(of(&reserved, "administrative_state"), "LOCKED");

    let (status, applied) = api.post("/v1/slices/control/activate", json!({})).await;
    assert_eq!((status, &applied["changed"]), (200, &json!(true)));
    assert_eq!(of(&api.get("/v1/slices/control").await, "administrative_state"), "UNLOCKED");
    let exported = api.get("/v1/export/ts28541?plmn=00101").await;
    let object = &exported["NetworkSlice"][0];
    assert_eq!(
        (&object["id"], &object["attributes"]["administrativeState"]),
        (&json!("control"), &json!("UNLOCKED"))
    );
    assert_eq!(api.call("GET", "/v1/export/ts28541?plmn=1", None).await.0, 422);

    assert_eq!(api.post("/v1/slices/control/deactivate", json!({})).await.0, 200);
    assert_eq!(of(&api.get("/v1/slices/control").await, "lifecycle"), "deactivated");
    assert_eq!(api.get("/v1/slices/control/explanation").await["lifecycle"], "deactivated");
    for (path, want) in
        [("/v1/slices/nobody/activate", 404), ("/v1/slices/Not%20a%20name/deactivate", 404)]
    {
        assert_eq!(api.post(path, json!({})).await.0, want, "{path}");
    }
    let reasons: Vec<Value> = api
        .get("/v1/history")
        .await
        .as_array()
        .unwrap()
        .iter()
        .map(|h| h["reason"].clone())
        .collect();
    assert_eq!(reasons[1..], [json!("activate slice control"), json!("deactivate slice control")]);
}
