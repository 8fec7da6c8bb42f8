//! The alert rules in docs/monitoring, by Prometheus' own tool: they parse, each fires when it
//! should, and none does in a network where all is well. That the metrics exist is looked at where
//! they are made (controller/src/api/tests/assure.rs).

use std::process::Command;

use selvedge_tests::root;

fn promtool(args: &[&str]) {
    let output = Command::new("promtool").args(args).output();
    let output = output.expect("promtool starts: apt-get install prometheus, or cargo xtask test");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {args:?}: {text}");
}

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    let dir = root().join("docs/monitoring");
    let path = |name: &str| dir.join(name).to_str().expect("a path in UTF-8").to_owned();
    let (rules, cases) = (path("alerts.yml"), path("alerts_test.yml"));
    promtool(&["check", "rules", "--lint-fatal", &rules]);
    promtool(&["test", "rules", &cases]);
    let (rules, cases) = (std::fs::read_to_string(rules), std::fs::read_to_string(cases));
    let (rules, cases) = (rules.unwrap(), cases.unwrap());
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut count = 0;
    for alert in alerts {
        count += 1;
        assert!(cases.contains(&format!("alertname=\"{alert}\"")), "{alert} is tried nowhere");
    }
    assert!(count > 10, "{count} alerts");
}
