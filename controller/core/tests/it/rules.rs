//! Traffic rules of applications.

use selvedge_core::{Refusal, Reply, Request};
use selvedge_pipeline::{ClassifierAction, DropReason, Entry};
use selvedge_slices::TrafficRule;
use selvedge_slices::rules::RuleState;

use crate::lab::{Lab, metro, name, objects};

const APPLICATION: &str = "apiVersion: selvedge/v1\nkind: Application\nmetadata: { name: player }\n\
    spec:\n  endpoint: video\n  trafficRules:\n    - trafficRuleId: block\n      \
    filterType: PACKET\n      priority: 1\n      action: DROP\n      trafficFilter:\n        \
    - { srcAddress: [10.1.0.12], dstAddress: [10.3.0.31], protocol: [UDP], dstPort: [\"5000\"] }\n";

fn rule(lab: &Lab) -> TrafficRule {
    lab.core.traffic_rules("player").expect("it was put")[0].clone()
}

fn set(lab: &mut Lab, new: TrafficRule) -> Result<Reply, Refusal> {
    let old = rule(lab);
    let application = "player".parse().unwrap();
    let reply = lab.request(Request::ReplaceTrafficRule { application, old, new });
    lab.settle();
    reply
}

fn classifiers(lab: &Lab) -> Vec<(String, ClassifierAction)> {
    let mut found = Vec::new();
    for switch in lab.switches.keys() {
        for entry in lab.entries(switch.as_str()) {
            if let Entry::Classifier(entry) = entry {
                found.push((switch.to_string(), entry.action));
            }
        }
    }
    found
}

#[test]
fn an_active_rule_is_where_its_traffic_enters_and_an_inactive_one_nowhere() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(APPLICATION)).unwrap();
    assert_eq!(classifiers(&lab), []);
    let phone = name("phone-1");
    assert!(lab.reaches(&phone, &name("video"), false));
    let active = TrafficRule { state: RuleState::Active, ..rule(&lab) };
    assert_eq!(set(&mut lab, active), Ok(Reply::Applied { changed: true, revision: 2 }));
    lab.assert_converged();
    assert_eq!(classifiers(&lab), [("gnb1".to_owned(), ClassifierAction::Drop)]);
    let sent = lab.send(&phone, "10.3.0.31".parse().unwrap());
    assert_eq!(sent.dropped(), Some(DropReason::ClassifierDrop));
    assert!(lab.reaches(&phone, &name("video"), true), "IPv6 is not meant");
    assert!(lab.reaches(&name("robot-1"), &name("video"), false));
    // It outlives the controller.
    lab.restart();
    lab.join_all();
    lab.settle();
    assert_eq!(classifiers(&lab).len(), 1);
    let inactive = TrafficRule { state: RuleState::Inactive, ..rule(&lab) };
    set(&mut lab, inactive).unwrap();
    assert_eq!(classifiers(&lab), []);
    assert!(lab.reaches(&phone, &name("video"), false));
}

#[test]
fn changes_of_rules_that_are_refused() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(APPLICATION)).unwrap();
    let present = rule(&lab);
    let mut replace = |application: &str, old: &TrafficRule, new: &TrafficRule| {
        let (old, new) = (old.clone(), new.clone());
        let application = application.parse().unwrap();
        lab.request(Request::ReplaceTrafficRule { application, old, new })
    };
    let active = TrafficRule { state: RuleState::Active, ..present.clone() };
    let other = TrafficRule { id: "other".into(), ..present.clone() };
    let empty = TrafficRule { filters: Vec::new(), ..present.clone() };
    assert!(matches!(replace("nobody", &present, &active), Err(Refusal::NotFound { .. })));
    assert!(matches!(replace("player", &active, &present), Err(Refusal::RuleChanged { .. })));
    assert!(matches!(replace("player", &present, &other), Err(Refusal::UnknownRule { .. })));
    assert!(matches!(replace("player", &other, &other), Err(Refusal::UnknownRule { .. })));
    assert!(matches!(replace("player", &present, &empty), Err(Refusal::RuleUnsupported { .. })));
    let same = replace("player", &present, &present);
    assert_eq!(same, Ok(Reply::Applied { changed: false, revision: 1 }));
}

#[test]
fn more_rules_than_a_switch_holds_are_refused() {
    let mut lab = Lab::up(metro());
    let ports: Vec<String> = (0..32).map(|port| format!("\"{port}\"")).collect();
    // 64 entries each: 32 ports, in both directions.
    let rules = |name: &str, count: usize| {
        let head = format!(
            "apiVersion: selvedge/v1\nkind: Application\nmetadata: {{ name: {name} }}\nspec:\n  \
             endpoint: video\n  trafficRules:\n"
        );
        let rule = |n| {
            format!(
                "    - trafficRuleId: many-{n}\n      filterType: FLOW\n      priority: 1\n      \
                 action: DROP\n      state: ACTIVE\n      trafficFilter:\n        \
                 - {{ srcAddress: [10.1.0.12], dstPort: [{}] }}\n",
                ports.join(", ")
            )
        };
        head + &(0..count).map(rule).collect::<String>()
    };
    lab.apply(objects(&rules("one", 16))).unwrap();
    lab.assert_converged();
    let refused = lab.apply(objects(&rules("two", 1)));
    assert!(matches!(refused, Err(Refusal::TooManyRules { limit: 1024, .. })), "{refused:?}");
}

#[test]
fn a_rule_follows_an_endpoint_that_moves() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(&APPLICATION.replace("action: DROP", "action: DROP\n      state: ACTIVE")))
        .unwrap();
    assert_eq!(classifiers(&lab)[0].0, "gnb1");
    let phone = name("phone-1");
    let from = lab.places[&phone].clone();
    lab.port(&from, false);
    let to = lab.spare_port("gnb2");
    lab.places.insert(phone.clone(), to);
    lab.see(&phone);
    lab.settle();
    lab.assert_converged();
    assert_eq!(classifiers(&lab), [("gnb2".to_owned(), ClassifierAction::Drop)]);
}
