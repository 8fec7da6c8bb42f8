//! The API over a platform in memory: what a client sends, and what it gets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use selvedge_mec_api::{Platform, PlatformError, ServiceInfo, router};
use selvedge_slices::{Object, TrafficRule};
use serde_json::{Value, json};
use tower::ServiceExt;

const DESCRIPTOR: &str = "\
apiVersion: selvedge/v1
kind: Application
metadata: { name: cam }
spec:
  endpoint: video
  trafficRules:
    - trafficRuleId: block
      filterType: PACKET
      priority: 1
      trafficFilter: [{ dstAddress: [10.3.0.31], protocol: [UDP], dstPort: ['5000-5001'] }]
      action: DROP
";

/// One application, `cam`.
struct Memory {
    rules: Mutex<Vec<TrafficRule>>,
    services: Mutex<BTreeMap<String, (String, ServiceInfo)>>,
}

impl Platform for Memory {
    async fn applications(&self) -> Result<Vec<String>, PlatformError> {
        Ok(vec!["cam".to_owned()])
    }

    async fn services(&self) -> Result<Vec<(String, ServiceInfo)>, PlatformError> {
        Ok(self.services.lock().unwrap().values().cloned().collect())
    }

    async fn put_service(&self, owner: &str, service: ServiceInfo) -> Result<(), PlatformError> {
        let id = service.ser_instance_id.clone().unwrap();
        self.services.lock().unwrap().insert(id, (owner.to_owned(), service));
        Ok(())
    }

    async fn delete_service(&self, _: &str, id: &str) -> Result<(), PlatformError> {
        self.services.lock().unwrap().remove(id);
        Ok(())
    }

    async fn traffic_rules(&self, _: &str) -> Result<Vec<TrafficRule>, PlatformError> {
        Ok(self.rules.lock().unwrap().clone())
    }

    async fn replace_traffic_rule(
        &self,
        _: &str,
        old: TrafficRule,
        new: TrafficRule,
    ) -> Result<(), PlatformError> {
        let mut rules = self.rules.lock().unwrap();
        let held = rules.iter_mut().find(|rule| **rule == old).ok_or(PlatformError::Changed)?;
        *held = new;
        Ok(())
    }
}

fn api() -> Router {
    let objects = selvedge_slices::parse("app.yaml", DESCRIPTOR).unwrap();
    let Some(Object::Application(application)) = objects.into_iter().next() else {
        panic!("the descriptor is one application");
    };
    router(Arc::new(Memory {
        rules: Mutex::new(application.traffic_rules),
        services: Mutex::default(),
    }))
}

async fn call(api: &Router, method: &str, path: &str, body: impl ToString) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = api.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn service(name: &str) -> Value {
    json!({
        "serName": name, "version": "1.0", "state": "ACTIVE", "serializer": "JSON",
        "transportInfo": {
            "id": "t1", "name": "REST", "type": "REST_HTTP", "protocol": "HTTP", "version": "1.1",
            "endpoint": { "uris": ["http://10.3.0.31/"] }, "security": {},
        },
    })
}

const SERVICES: &str = "/mec_service_mgmt/v1/applications/cam/services";
const RULE: &str = "/mec_app_support/v1/applications/cam/traffic_rules/block";

#[tokio::test]
async fn a_service_is_registered_listed_read_and_deleted() {
    let api = api();
    // The published files wrap the body; both forms are one service each.
    let (status, plain) = call(&api, "POST", SERVICES, service("plain")).await;
    assert_eq!(status, StatusCode::CREATED, "{plain}");
    let wrapped = json!({ "ServiceInfo": service("wrapped") });
    let (status, wrapped) = call(&api, "POST", SERVICES, wrapped).await;
    assert_eq!(status, StatusCode::CREATED, "{wrapped}");
    assert_eq!(wrapped["serName"], "wrapped", "answers are not wrapped");

    let (_, all) = call(&api, "GET", "/mec_service_mgmt/v1/services", "").await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    let (_, one) = call(&api, "GET", &format!("{SERVICES}?ser_name=plain"), "").await;
    assert_eq!(one, json!([plain]));

    let own = format!("{SERVICES}/{}", plain["serInstanceId"].as_str().unwrap());
    assert_eq!(call(&api, "GET", &own, "").await, (StatusCode::OK, plain.clone()));
    assert_eq!(call(&api, "DELETE", &own, "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(call(&api, "GET", &own, "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(call(&api, "DELETE", &own, "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_rule_is_switched_on_and_off() {
    let api = api();
    let (_, before) = call(&api, "GET", RULE, "").await;
    assert_eq!(before["state"], "INACTIVE");
    assert_eq!(before["trafficFilter"][0]["dstPort"], json!(["5000-5001"]));
    // Only what changes, wrapped; then the whole rule, bare.
    let partial = json!({ "TrafficRule": { "state": "ACTIVE" } });
    let (status, active) = call(&api, "PUT", RULE, partial).await;
    assert_eq!((status, &active["state"]), (StatusCode::OK, &json!("ACTIVE")));
    assert_eq!(active["trafficFilter"], before["trafficFilter"]);
    let (status, after) = call(&api, "PUT", RULE, before.clone()).await;
    assert_eq!((status, after), (StatusCode::OK, before));
}

#[tokio::test]
async fn bad_requests_name_what_is_wrong() {
    let api = api();
    let both = json!({ "transportId": "x", "transportInfo": {} });
    let mut no_endpoint = service("x");
    no_endpoint["transportInfo"]["endpoint"] = json!({});
    let rule = |change: Value| change.to_string();
    // (method, path, body, status, words of the detail)
    let cases: &[(&str, &str, String, u16, &str)] = &[
        ("POST", SERVICES, "{".into(), 400, "JSON"),
        ("POST", SERVICES, "[]".into(), 400, "not a ServiceInfo object"),
        ("POST", SERVICES, "{}".into(), 400, "serName"),
        ("POST", SERVICES, both.to_string(), 400, "transportId and transportInfo"),
        ("POST", SERVICES, no_endpoint.to_string(), 400, "exactly one of uris"),
        ("POST", SERVICES, format!("\"{}\"", "x".repeat(70_000)), 413, "limit"),
        ("GET", "/mec_service_mgmt/v1/services?colour=red", "".into(), 400, "colour"),
        ("GET", "/mec_service_mgmt/v1/services?is_local=2", "".into(), 400, "is_local=2"),
        ("GET", "/mec_service_mgmt/v1/applications/no/services", "".into(), 404, "\"no\""),
        ("GET", "/mec_app_support/v1/applications/cam/traffic_rules/no", "".into(), 404, "\"no\""),
        ("PUT", RULE, rule(json!({"state": "MAYBE"})), 400, "state: \"MAYBE\""),
        ("PUT", RULE, rule(json!({"action": "FORWARD_DECAPSULATED"})), 400, "offered are DROP"),
        ("PUT", RULE, rule(json!({"trafficRuleId": "other"})), 400, "cannot become"),
        ("PUT", RULE, rule(json!({"priority": 256})), 400, "256"),
        ("PUT", RULE, rule(json!({"dstInterface": {}})), 400, "dstInterface"),
        (
            "PUT",
            RULE,
            rule(json!({"trafficFilter": [{"srcAddress": ["10.0.0.300"]}]})),
            400,
            "trafficFilter[0].srcAddress: \"10.0.0.300\"",
        ),
        (
            "PUT",
            RULE,
            rule(json!({"trafficFilter": [{"tag": ["x"]}]})),
            400,
            "trafficFilter[0].tag",
        ),
        ("PUT", RULE, rule(json!({"trafficFilter": []})), 400, "filters"),
    ];
    for (method, path, body, status, words) in cases {
        let (got, problem) = call(&api, method, path, body).await;
        assert_eq!(got.as_u16(), *status, "{method} {path} {body:.80}: {problem}");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(words), "{method} {path} {body:.80}: {detail:?} lacks {words:?}");
        assert_eq!(problem["status"], *status);
    }
    let (_, rule) = call(&api, "GET", RULE, "").await;
    assert_eq!(rule["state"], "INACTIVE", "nothing half-applied");
}

#[tokio::test]
async fn if_match_guards_a_put() {
    let api = api();
    let get = Request::builder().uri(RULE).body(Body::empty()).unwrap();
    let response = api.clone().oneshot(get).await.unwrap();
    let tag = response.headers()["etag"].clone();
    let put = |tag: &axum::http::HeaderValue| {
        Request::builder()
            .method("PUT")
            .uri(RULE)
            .header("content-type", "application/json")
            .header("if-match", tag)
            .body(Body::from(r#"{"state":"ACTIVE"}"#))
            .unwrap()
    };
    assert_eq!(api.clone().oneshot(put(&tag)).await.unwrap().status(), StatusCode::OK);
    let stale = api.clone().oneshot(put(&tag)).await.unwrap();
    assert_eq!(stale.status(), StatusCode::PRECONDITION_FAILED);
}
