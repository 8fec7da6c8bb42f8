use super::*;

fn spec(hook: u32, module: &str) -> Spec {
    let load = v1::LoadHook { hook, name: "dedup".into(), ..Default::default() };
    Spec { load, sha256: module.to_owned() }
}

fn load(module: &str) -> Input {
    Input::Load(spec(0, module))
}

fn running(module: &str) -> Input {
    Input::Running { hook: 0, name: "dedup".into(), sha256: module.into() }
}

fn refused(module: &str) -> Input {
    Input::Refused { hook: 0, reason: "no ABI".into(), sha256: module.into() }
}

fn quarantined(module: &str) -> Input {
    Input::Quarantined { hook: 0, reason: "trap".into(), sha256: module.into() }
}

fn gone() -> Input {
    Input::HostGone("EOF".into())
}

/// Effects in a form that fits a table.
fn brief(effects: &[Effect]) -> Vec<String> {
    let one = |effect: &Effect| match effect {
        Effect::Store(_) => "store".to_owned(),
        Effect::Forget(_) => "forget".to_owned(),
        Effect::SetState(_, state) => format!("map={state:?}"),
        Effect::EnsurePort(_) => "port".to_owned(),
        Effect::RemovePort(_) => "no port".to_owned(),
        Effect::TakeSocket(_) => "socket".to_owned(),
        Effect::SendLoad(_) => "->load".to_owned(),
        Effect::SendUnload(_) => "->unload".to_owned(),
        Effect::Report(_, s) => format!("{:?} {} {}", s.state, s.sha256, s.reason),
        Effect::ReportGone(_) => "gone".to_owned(),
    };
    effects.iter().map(|effect| one(effect).trim_end().to_owned()).collect()
}

fn run(hooks: &mut Hooks, script: Vec<(Input, &[&str])>) {
    for (step, (input, want)) in script.into_iter().enumerate() {
        let mut out = Vec::new();
        let text = format!("step {step}: {input:?}");
        hooks.handle(input, &mut out);
        assert_eq!(brief(&out), want, "{text}");
    }
}

const ABSENT: &str = "Down A the compute process is not there";
const LOADING: &[&str] = &["map=Down", "port", "Loading A", "->load"];
const STARTED: &[&str] = &["socket", "map=Running", "Running A"];

#[test]
fn a_hook_lives_through_its_host() {
    run(
        &mut Hooks::default(),
        vec![
            (load("A"), &["store", "map=Down", ABSENT]),
            (Input::Announced, LOADING),
            (running("A"), STARTED),
            // The controller asks again after a reconnect.
            (load("A"), &["Running A"]),
            (gone(), &["map=Down", "Down A EOF"]),
            (gone(), &[]),
            // Back with what it had: announced, then compared.
            (running("A"), &["port", "socket", "map=Running", "Running A"]),
            (Input::Announced, &["->load"]),
            (running("A"), STARTED),
            (Input::Unload(0), &["map=Absent", "->unload", "no port", "forget", "gone"]),
            (Input::Unloaded { hook: 0, reason: String::new() }, &[]),
            (Input::Unload(0), &["gone"]),
        ],
    );
}

#[test]
fn a_replacement_passes_packets_by_until_it_runs() {
    let mut hooks = Hooks::default();
    run(
        &mut hooks,
        vec![
            (Input::Announced, &[]),
            (load("A"), &["store", "map=Down", "port", "Loading A", "->load"]),
            (running("A"), STARTED),
            (load("B"), &["store", "map=Down", "port", "Loading B", "->load"]),
            // Late words about the first say nothing of the second.
            (running("A"), &[]),
            (running("B"), &["socket", "map=Running", "Running B"]),
            // Refused: the old one goes on.
            (load("C"), &["store", "map=Down", "port", "Loading C", "->load"]),
            (refused("C"), &["store", "map=Running", "Refused C no ABI"]),
        ],
    );
    assert_eq!(hooks.spec(0), Some(&spec(0, "B")));
    run(
        &mut hooks,
        vec![
            // A replacement of a replacement keeps in mind what really runs.
            (load("D"), &["store", "map=Down", "port", "Loading D", "->load"]),
            (load("E"), &["store", "map=Down", "port", "Loading E", "->load"]),
            (refused("D"), &[]),
            (refused("E"), &["store", "map=Running", "Refused E no ABI"]),
        ],
    );
    assert_eq!(hooks.spec(0), Some(&spec(0, "B")));
}

#[test]
fn a_replacement_that_cannot_be_bound_leaves_nothing() {
    run(
        &mut Hooks::default(),
        vec![
            (Input::Announced, &[]),
            (load("A"), &["store", "map=Down", "port", "Loading A", "->load"]),
            (running("A"), STARTED),
            (load("B"), &["store", "map=Down", "port", "Loading B", "->load"]),
            (Input::Unloaded { hook: 0, reason: "replaced".into() }, &[]),
            (refused("B"), &["map=Down", "forget", "Refused B no ABI"]),
        ],
    );
}

#[test]
fn another_wish_for_failures_is_a_replacement() {
    run(
        &mut Hooks::default(),
        vec![
            (Input::Reload(0), &[]),
            (load("A"), &["store", "map=Down", ABSENT]),
            (Input::Reload(0), &[]),
            (Input::Announced, LOADING),
            (Input::Reload(0), &["->load"]),
            (running("A"), STARTED),
            (Input::Reload(0), &["map=Down", "Loading A", "->load"]),
            (running("A"), STARTED),
            (Input::Reload(0), &["map=Down", "Loading A", "->load"]),
            // Refused unread, without a checksum: the old one goes on.
            (refused(""), &["store", "map=Running", "Refused A no ABI"]),
        ],
    );
}

#[test]
fn a_refused_module_is_not_tried_again_by_itself() {
    run(
        &mut Hooks::default(),
        vec![
            (Input::Announced, &[]),
            (load("A"), &["store", "map=Down", "port", "Loading A", "->load"]),
            (refused("A"), &["map=Down", "forget", "Refused A no ABI"]),
            (gone(), &[]),
            (Input::Announced, &[]),
            (load("A"), &["store", "map=Down", "port", "Loading A", "->load"]),
        ],
    );
}

#[test]
fn quarantine_lasts_until_the_next_load() {
    run(
        &mut Hooks::default(),
        vec![
            (Input::Announced, &[]),
            (load("A"), &["store", "map=Down", "port", "Loading A", "->load"]),
            (running("A"), STARTED),
            (quarantined("A"), &["map=Quarantined", "->unload", "Quarantined A trap"]),
            (Input::Unloaded { hook: 0, reason: String::new() }, &[]),
            (gone(), &[]),
            (Input::Announced, &[]),
            (load("A"), &["store", "map=Down", "port", "Loading A", "->load"]),
            (running("A"), STARTED),
        ],
    );
}

#[test]
fn an_agent_that_restarts_keeps_what_runs() {
    let resumed = |map| {
        let mut hooks = Hooks::default();
        let mut out = Vec::new();
        hooks.resume(spec(0, "A"), map, &mut out);
        (hooks, brief(&out))
    };
    // The host comes back in time: the map never leaves Running.
    let (mut hooks, told) = resumed(MapState::Running);
    assert_eq!(told, ["Running A"]);
    assert!(hooks.is_resuming());
    run(
        &mut hooks,
        vec![
            (running("A"), &["port", "socket", "map=Running", "Running A"]),
            (Input::Announced, &["->load"]),
            (Input::GraceOver, &[]),
        ],
    );
    // It comes back without the hook.
    let (mut hooks, _) = resumed(MapState::Running);
    run(&mut hooks, vec![(Input::Announced, LOADING)]);
    // It does not come back.
    let (mut hooks, _) = resumed(MapState::Running);
    run(
        &mut hooks,
        vec![
            (Input::GraceOver, &["map=Down", "Down A the compute process did not come back"]),
            (Input::Announced, LOADING),
        ],
    );
    // It was in quarantine, and stays there.
    let (mut hooks, told) = resumed(MapState::Quarantined);
    assert_eq!(told, ["Quarantined A before the agent was restarted"]);
    run(&mut hooks, vec![(Input::Announced, &[]), (running("A"), &["->unload"])]);
    // It was down.
    let (mut hooks, told) = resumed(MapState::Down);
    assert_eq!(told, [ABSENT]);
    run(&mut hooks, vec![(Input::Announced, LOADING)]);
}

#[test]
fn what_nobody_asked_for_is_unloaded() {
    run(
        &mut Hooks::default(),
        vec![
            (running("Z"), &["->unload"]),
            (quarantined("Z"), &["->unload"]),
            (refused("Z"), &[]),
            (Input::Announced, &[]),
        ],
    );
}

#[test]
fn ports_fail_and_vanish() {
    let failed = || Input::PortFailed { hook: 0, reason: "no veth".into() };
    run(
        &mut Hooks::default(),
        vec![
            (Input::Announced, &[]),
            (load("A"), &["store", "map=Down", "port", "Loading A", "->load"]),
            (failed(), &["map=Down", "Down A no veth"]),
            (running("A"), &["->unload"]),
            (gone(), &[]),
            (Input::Announced, LOADING),
            (running("A"), STARTED),
            // Somebody deleted the interface: the host says so, and it is made again.
            (
                Input::Unloaded { hook: 0, reason: "hk0x is gone".into() },
                &["map=Down", "Down A hk0x is gone", "port", "->load"],
            ),
            (running("A"), STARTED),
        ],
    );
}
