//! Slices through hooks: where they run, what leads through them, what happens when they fail.

use selvedge_core::{Effect, Event, HookState, HookStatus, Refusal, Timer};
use selvedge_pipeline::{Direction, Entry, HookId};
use selvedge_slices::ObjectKind;

use crate::forward::Fate;
use crate::intent::delete;
use crate::lab::{Lab, digest, metro, name, objects};

const HOOK: &str = "apiVersion: selvedge/v1\nkind: Hook\nmetadata: { name: mark }\nspec:\n  \
                    module: mark.wasm\n  memory: 1Mi\n";

fn through(on_failure: &str) -> String {
    format!(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: marked }}\nspec:\n  \
         downlink: {{ guaranteed: 10Mbps }}\n  uplink: {{ guaranteed: 10Mbps }}\n  \
         endpoints: [{{ ue: robot-1 }}, {{ dn: video }}]\n  \
         through: [{{ hook: mark, onFailure: {on_failure} }}]\n"
    )
}

fn status(state: HookState, module: &str) -> HookStatus {
    HookStatus { state, reason: String::new(), sha256: digest(module) }
}

#[test]
fn every_packet_of_the_slice_and_none_of_another_goes_through() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(&format!("{HOOK}---\n{}", through("drop")))).unwrap();
    lab.assert_converged();
    for (from, to) in [("robot-1", "10.3.0.31"), ("video", "10.1.0.11"), ("video", "fd10::11")] {
        let sent = lab.send(&name(from), to.parse().unwrap());
        assert_eq!(sent.hooks, ["marked/mark"], "{from} -> {to}: {sent:?}");
        assert!(matches!(sent.fate, Fate::Delivered(..)), "{sent:?}");
    }
    assert_eq!(lab.send(&name("phone-1"), "10.2.0.21".parse().unwrap()).hooks, [""; 0]);
    let view = &lab.core.hooks()[0];
    assert_eq!(view.instances.len(), 1);
    let at = view.instances[0].switch.clone();
    assert!(["edge1", "edge2"].map(name).contains(&at), "only those have compute: {at}");
    assert_eq!(view.instances[0].state, Some(HookState::Running));
    // What comes back from the hook is metered with the full total.
    let meters = lab.entries(at.as_str()).into_iter().filter_map(|entry| match entry {
        Entry::SliceMeter(meter) => Some((meter.direction, meter.guaranteed_bps)),
        _ => None,
    });
    let both = [(Direction::Downlink, 10_000_000), (Direction::Uplink, 10_000_000)];
    assert_eq!(meters.collect::<Vec<_>>(), both);
}

#[test]
fn a_hook_in_use_is_not_deleted() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(&format!("{HOOK}---\n{}", through("drop")))).unwrap();
    let refused = lab.apply(delete(ObjectKind::Hook, "mark")).unwrap_err();
    let slices = vec![String::from("marked")];
    assert_eq!(refused, Refusal::HookInUse { hook: "mark".into(), slices });
    assert_eq!(
        refused.to_string(),
        "hook \"mark\" is used by slice \"marked\"; delete or change that first"
    );
    // Both at once is fine, and the switch forgets the hook when nothing leads to it.
    let mut both = delete(ObjectKind::Hook, "mark");
    both.delete.extend(delete(ObjectKind::NetworkSlice, "marked").delete);
    lab.apply(both).unwrap();
    lab.assert_converged();
    assert!(lab.switches.values().all(|switch| switch.hooks.is_empty()));
    assert_eq!(lab.unreachable(), Vec::<String>::new());
}

#[test]
fn another_module_is_loaded_and_the_same_is_not() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(&format!("{HOOK}---\n{}", through("bypass")))).unwrap();
    let loads = |lab: &Lab| lab.history.iter().filter(|e| e.contains("LoadHook")).count();
    assert_eq!(loads(&lab), 1);
    lab.apply(objects(HOOK)).unwrap();
    assert_eq!(loads(&lab), 1);
    lab.apply(objects(&HOOK.replace("mark.wasm", "mark2.wasm"))).unwrap();
    assert_eq!(loads(&lab), 2);
    lab.apply(objects(&HOOK.replace("module: mark.wasm", "module: mark2.wasm\n  config: x")))
        .unwrap();
    assert_eq!(loads(&lab), 3, "other settings");
    // Neither a new controller nor a new session loads it again.
    lab.restart();
    lab.join_all();
    lab.settle();
    assert_eq!(loads(&lab), 3);
    // A switch that has lost it gets it again.
    let at = lab.core.hooks()[0].instances[0].switch.clone();
    lab.switches.get_mut(&at).unwrap().hooks.clear();
    lab.join(&at);
    lab.settle();
    assert_eq!(loads(&lab), 4);
}

#[test]
fn a_hook_that_is_down_is_loaded_again_with_growing_pauses() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(&format!("{HOOK}---\n{}", through("bypass")))).unwrap();
    let instance = lab.core.hooks()[0].instances[0].clone();
    let down = Event::HookChanged {
        switch: instance.switch.clone(),
        hook: instance.hook,
        status: status(HookState::Down, "mark.wasm"),
    };
    let mut times = Vec::new();
    let mut core = lab.core.clone();
    let mut now = lab.now_ms;
    let start = now;
    let mut effects = core.handle(down.clone(), now);
    while times.len() < 4 {
        let next = effects.iter().find_map(|effect| match effect {
            Effect::SetTimer { timer: Timer::Hooks, at_ms } => Some(*at_ms),
            _ => None,
        });
        now = next.expect("it will be tried again");
        effects = core.handle(Event::TimerDue(Timer::Hooks), now);
        let loads = |effect: &&Effect| matches!(effect, Effect::LoadHook { .. });
        assert_eq!(effects.iter().filter(loads).count(), 1);
        times.push(now - start);
    }
    assert_eq!(times, [1_000, 3_000, 7_000, 15_000]);
    // Running again: no more of it.
    let status = status(HookState::Running, "mark.wasm");
    let (switch, hook) = (instance.switch, instance.hook);
    core.handle(Event::HookChanged { switch, hook, status }, now);
    let effects = core.handle(Event::TimerDue(Timer::Hooks), now + 100_000);
    assert!(!effects.iter().any(|e| matches!(e, Effect::LoadHook { .. })), "{effects:?}");
}

#[test]
fn a_quarantined_hook_stays_so_until_it_changes() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(&format!("{HOOK}---\n{}", through("bypass")))).unwrap();
    let instance = lab.core.hooks()[0].instances[0].clone();
    let loads = |lab: &Lab| lab.history.iter().filter(|e| e.contains("LoadHook")).count();
    let before = loads(&lab);
    let status =
        HookStatus { reason: "trap".into(), ..status(HookState::Quarantined, "mark.wasm") };
    lab.event(Event::HookChanged { switch: instance.switch, hook: instance.hook, status });
    lab.settle();
    lab.resync();
    assert_eq!(loads(&lab), before);
    let line = lab.logged("hook-state").last().copied().cloned().unwrap();
    assert!(line.text.contains("quarantined") && line.text.contains("trap"), "{line:?}");
    lab.apply(objects(&HOOK.replace("mark.wasm", "fixed.wasm"))).unwrap();
    assert_eq!(loads(&lab), before + 1);
}

#[test]
fn a_hook_where_traffic_enters_is_counted_twice_while_it_runs() {
    let mut lab = Lab::up(metro());
    let text = through("bypass").replace("video", "plc");
    lab.apply(objects(&format!("{HOOK}---\n{text}"))).unwrap();
    let instance = lab.core.hooks()[0].instances[0].clone();
    assert_eq!(instance.switch, name("edge1"), "where plc is");
    let down = |lab: &Lab| {
        lab.entries("edge1").into_iter().find_map(|entry| match entry {
            Entry::SliceMeter(meter) if meter.direction == Direction::Downlink => {
                Some(meter.guaranteed_bps)
            }
            _ => None,
        })
    };
    assert_eq!(down(&lab), Some(20_000_000));
    let status = status(HookState::Down, "mark.wasm");
    lab.event(Event::HookChanged {
        switch: instance.switch,
        hook: HookId(instance.hook.0),
        status,
    });
    while lab.step_answers() {}
    assert_eq!(down(&lab), Some(10_000_000), "bypassed, it is counted once");
}

#[test]
fn a_slice_without_compute_in_reach_is_refused() {
    let mut lab = Lab::up(metro());
    let huge = HOOK.replace("1Mi", "3Gi").replace("mark", "huge");
    let text = through("drop").replace("hook: mark", "hook: huge");
    lab.apply(objects(&format!("{huge}---\n{text}"))).unwrap();
    let more = HOOK.replace("memory: 1Mi", "memory: 4Gi");
    lab.apply(objects(&more)).unwrap();
    // Both edge sites are cut off: `drop` means that nothing goes, `bypass` that all does.
    for (a, b) in [("edge1", "s3"), ("edge1", "s2"), ("edge2", "s2"), ("edge2", "s1")] {
        lab.link(a, b, false);
    }
    lab.settle();
    lab.assert_converged();
    assert!(!lab.reaches(&name("robot-1"), &name("video"), false));
    lab.apply(objects(&text.replace("drop", "bypass"))).unwrap_err();
    for (a, b) in [("edge1", "s3"), ("edge2", "s2")] {
        lab.link(a, b, true);
    }
    lab.settle();
    lab.apply(objects(&text.replace("drop", "bypass"))).unwrap();
    for (a, b) in [("edge1", "s3"), ("edge2", "s2")] {
        lab.link(a, b, false);
    }
    lab.settle();
    lab.assert_converged();
    assert!(lab.reaches(&name("robot-1"), &name("video"), false), "{:?}", lab.log);
    assert_eq!(lab.core.status().slices_degraded, 1);
}
