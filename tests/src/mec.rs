//! A MEC application, as its developer tries it: with curl.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use selvedge_lab::Lab;
use selvedge_lab::measure::Flow;
use selvedge_topology::BitRate;
use serde_json::{Value, json};

use crate::scenario::PATIENCE;
use crate::{eventually, succeed};

pub const APPLICATION: &str = "examples/metro/application.yaml";
const SERVICES: &str = "/mec_service_mgmt/v1/applications/camera/services";
/// The rule of [`APPLICATION`], as MEC 011 addresses it.
pub const RULE: &str = "/mec_app_support/v1/applications/camera/traffic_rules/block-phone";

/// Status and body of a request that curl makes to the controller's socket.
pub fn curl(lab: &Lab, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
    let mut curl = std::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--request", method])
        .arg("--unix-socket")
        .arg(lab.api_socket())
        .args(["--write-out", "\n%{http_code}"])
        .arg(format!("http://selvedge{path}"));
    if let Some(body) = body {
        curl.args(["--header", "content-type: application/json", "--data", &body.to_string()]);
    }
    let output = curl.output().context("start curl")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "curl {path}: {errors}");
    let (body, status) = text.rsplit_once('\n').context("curl writes the status last")?;
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    Ok((status.trim().parse().context("a status")?, body))
}

/// Packets that arrived in half a second: before the rule, while it is active, after.
#[derive(Clone, Copy, Debug)]
pub struct Blocked {
    pub before: u64,
    pub during: u64,
    pub after: u64,
}

impl Blocked {
    pub fn holds(self) -> bool {
        self.before > 0 && self.during == 0 && self.after > 0
    }

    pub fn figure(self) -> String {
        format!("{} / {} / {} packets", self.before, self.during, self.after)
    }
}

/// Registers a service, then has the application's DROP rule stop the phone's flow and release
/// it.
pub fn block_and_release(lab: &Lab) -> Result<Blocked> {
    succeed(lab, &["apply", APPLICATION])?;
    let service = json!({
        "serName": "camera-feed", "version": "1.0", "state": "ACTIVE", "serializer": "JSON",
        "transportInfo": {
            "id": "rest", "name": "REST", "type": "REST_HTTP", "protocol": "HTTP",
            "version": "1.1", "endpoint": { "uris": ["http://10.3.0.31/"] }, "security": {},
        },
    });
    let (status, registered) = curl(lab, "POST", SERVICES, Some(&service))?;
    ensure!(status == 201, "registering a service: {status} {registered}");
    let (_, listed) = curl(lab, "GET", "/mec_service_mgmt/v1/services", None)?;
    ensure!(listed == json!([registered]), "the service is not listed: {listed}");

    let mut flow = Flow::new("phone-1", "video", BitRate(4_000_000));
    flow.port = 5000;
    flow.duration = Duration::from_secs(60);
    let flow = lab.start_flow(&flow)?;
    let arrived = || {
        let (sent, so_far) = flow.progress();
        // Half a second's worth of sending, by the sender's own count.
        eventually("packets sent", PATIENCE, || Ok(flow.progress().0 >= sent + 250))?;
        Ok::<u64, anyhow::Error>(flow.progress().1 - so_far)
    };
    let set = |state: &str| {
        let rule = json!({ "TrafficRule": { "state": state } });
        let (status, body) = curl(lab, "PUT", RULE, Some(&rule))?;
        ensure!(status == 200 && body["state"] == state, "PUT {state}: {status} {body}");
        Ok(lab.converged(PATIENCE)?)
    };
    eventually("the flow arriving", PATIENCE, || Ok(flow.progress().1 > 0))?;
    let before = arrived()?;
    set("ACTIVE")?;
    // What was on its way when the switches took the rule has arrived by now.
    arrived()?;
    let during = arrived()?;
    set("INACTIVE")?;
    arrived()?;
    let after = arrived()?;
    flow.stop();
    flow.finish();
    Ok(Blocked { before, during, after })
}
