//! Files in a directory, the real engine and store; looks are taken by hand.

use std::fs;
use std::os::unix::fs::symlink;

use selvedge_core::view;

use super::*;
use crate::testing::{Controller, join_pair};

struct Fixture {
    controller: Controller,
    dir: tempfile::TempDir,
    looking: IntentDir,
}

fn slice(name: &str, guaranteed: &str) -> String {
    format!(
        "# A slice.\napiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: {name} }}\n\
         spec:\n  downlink: {{ guaranteed: {guaranteed} }}\n  \
         endpoints: [{{ ue: h1 }}, {{ dn: h2 }}]\n"
    )
}

const HOOK: &str = "apiVersion: selvedge/v1\nkind: Hook\nmetadata: { name: mark }\n\
                    spec: { module: mark.wasm }\n";

const APPLICATION: &str = "apiVersion: selvedge/v1\nkind: Application\nmetadata: { name: app }\n\
    spec:\n  endpoint: h2\n  trafficRules:\n    - { trafficRuleId: r, filterType: FLOW, \
    priority: 1, action: DROP, trafficFilter: [{ dstPort: [23], protocol: [TCP] }] }\n";

impl Fixture {
    async fn new() -> Self {
        let controller = Controller::start();
        let dir = tempfile::tempdir().unwrap();
        let mut fixture = Self { looking: Self::looking(&controller, &dir), controller, dir };
        fixture.write("a.yaml", "# Nothing yet.\n");
        fixture.look().await;
        fixture
    }

    fn looking(controller: &Controller, dir: &tempfile::TempDir) -> IntentDir {
        let (handle, store) = (controller.handle.clone(), controller.store.clone());
        let api = Api::new(handle, store, controller.topology.clone());
        IntentDir::new(dir.path().to_owned(), api)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Twice: a change is taken when it was still for one look.
    async fn look(&mut self) {
        self.looking.look().await;
        self.looking.look().await;
    }

    async fn status(&self) -> view::Status {
        self.controller.handle.query(|core| core.status()).await.unwrap()
    }

    async fn refused(&self) -> Option<String> {
        self.status().await.files.unwrap().refused
    }

    async fn objects(&self) -> Vec<String> {
        let ids = self.controller.handle.query(|core| core.object_ids()).await.unwrap();
        ids.into_iter().map(|id| id.name.to_string()).collect()
    }

    async fn last(&self) -> view::Revision {
        let last = self.controller.handle.query(|core| core.history().next_back());
        last.await.unwrap().expect("something was changed")
    }

    /// The downlink of the slice `volume`.
    async fn rate(&self) -> Option<String> {
        let id = ObjectId { kind: ObjectKind::NetworkSlice, name: "volume".parse().unwrap() };
        match self.controller.handle.query(move |core| core.object(&id)).await.unwrap() {
            Some(Object::NetworkSlice(slice)) => slice.downlink.guaranteed.map(|r| r.to_string()),
            _ => None,
        }
    }

    /// The rule of the application `app`.
    async fn rule(&self) -> selvedge_slices::TrafficRule {
        let rule = |core: &selvedge_core::Core| core.traffic_rules("app").unwrap()[0].clone();
        self.controller.handle.query(rule).await.unwrap()
    }

    async fn events(&self) -> Vec<(String, String)> {
        let of = |entry: &selvedge_core::LogEntry| (entry.kind.to_owned(), entry.text.clone());
        let all = self.controller.handle.query(move |core| core.events().map(of).collect());
        let all: Vec<(String, String)> = all.await.unwrap();
        all.into_iter().filter(|(kind, _)| kind.starts_with("intent-")).collect()
    }
}

#[tokio::test]
async fn the_files_are_the_intent() {
    let mut fixture = Fixture::new().await;
    let _switches = join_pair(&fixture.controller).await;
    fixture.controller.until_converged().await;
    fixture.write("slices/control.yaml", slice("control", "1Mbps"));
    fixture.write("hooks/mark.yml", HOOK);
    fixture.write("hooks/mark.wasm", b"\0asm one");
    fixture.write(".git/other.yaml", slice("hidden", "1Mbps"));
    fixture.write("notes.txt", "no intent");
    fixture.look().await;
    assert_eq!(fixture.refused().await, None);
    assert_eq!(fixture.objects().await, ["control", "mark"]);
    let first = fixture.last().await;
    assert_eq!(first.author, format!("files in {}", fixture.dir.path().display()));
    assert_eq!(first.reason, "hooks/mark.yml, slices/control.yaml");

    // Nothing has changed; a touched file neither.
    fixture.look().await;
    fixture.write("slices/control.yaml", slice("control", "1Mbps"));
    fixture.look().await;
    assert_eq!(fixture.last().await.revision, 1);

    // A file changed, a module replaced, a file gone: one change.
    fixture.write("slices/control.yaml", slice("control", "2Mbps"));
    fixture.write("hooks/mark.wasm", b"\0asm two");
    fixture.look().await;
    let second = fixture.last().await;
    assert_eq!((second.revision, second.touched.len()), (2, 2));
    fs::remove_file(fixture.dir.path().join("slices/control.yaml")).unwrap();
    fixture.look().await;
    assert_eq!(fixture.objects().await, ["mark"]);
    let kinds: Vec<String> = fixture.events().await.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["intent-changed"; 3]);
}

#[tokio::test]
async fn a_bad_change_keeps_what_runs_and_says_why() {
    let mut fixture = Fixture::new().await;
    let _switches = join_pair(&fixture.controller).await;
    fixture.controller.until_converged().await;
    fixture.write("b.yaml", slice("control", "1Mbps"));
    fixture.look().await;
    let newer = slice("newer", "1Mbps").replace("selvedge/v1", "selvedge/v2");
    let cases = [
        ("c.yaml", "apiVersion: selvedge/v1\nkind: [".to_owned(), "c.yaml:2:"),
        ("c.yaml", slice("other", "-1Mbps"), "c.yaml:6:27: \"-1Mbps\" is not a bit rate"),
        ("c.yaml", slice("other", "1Mbps") + "  colour: red\n", "c.yaml:8:3: a spec has no"),
        ("c.yaml", newer, "c.yaml:2:13: \"selvedge/v2\" is for a newer Selvedge"),
        ("c.yaml", slice("control", "2Mbps"), "c.yaml:4: NetworkSlice \"control\" is at b.yaml:4"),
        ("c.yaml", slice("big", "200Mbps"), "c.yaml:4: slice \"big\" does not fit: "),
        ("c.yaml", slice("other", "1Mbps").replace("h1", "h9"), "c.yaml:4: slice \"other\": the"),
        ("c.yaml", HOOK.to_owned(), "c.yaml:3: hook mark: module "),
    ];
    for (number, (name, text, want)) in (1..).zip(cases) {
        fixture.write(name, &text);
        fixture.look().await;
        let why = fixture.refused().await.unwrap_or_else(|| panic!("taken: {text}"));
        assert!(why.contains(want), "want {want:?} in {why:?}");
        assert_eq!(fixture.objects().await, ["control"]);
        let status = fixture.status().await;
        assert_eq!((status.revision, status.files.unwrap().refusals), (1, number), "{why}");
        let (kind, said) = fixture.events().await.pop().unwrap();
        assert!(kind == "intent-refused" && said.contains(&why), "{kind}: {said}");
        // Said once for as long as it lasts.
        let lines = fixture.events().await.len();
        fixture.look().await;
        assert_eq!(fixture.events().await.len(), lines);
    }
    fixture.write("c.yaml", slice("other", "1Mbps"));
    fixture.look().await;
    assert_eq!((fixture.refused().await, fixture.objects().await.len()), (None, 2));
    let kinds: Vec<String> = fixture.events().await.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds[kinds.len() - 2..], ["intent-changed", "intent-accepted"]);

    // A directory that is empty, or gone, is nobody's wish.
    for name in ["a.yaml", "b.yaml", "c.yaml"] {
        fs::remove_file(fixture.dir.path().join(name)).unwrap();
    }
    fixture.look().await;
    assert!(fixture.refused().await.unwrap().contains("no .yaml file"));
    fs::remove_dir(fixture.dir.path()).unwrap();
    fixture.look().await;
    assert!(fixture.refused().await.unwrap().contains("cannot list"));
    assert_eq!(fixture.objects().await.len(), 2);
    fixture.write("a.yaml", "# Nothing.\n");
    fixture.look().await;
    assert_eq!((fixture.refused().await, fixture.objects().await.len()), (None, 0));
}

#[tokio::test]
async fn what_did_not_fit_is_tried_again() {
    let mut fixture = Fixture::new().await;
    let _switches = join_pair(&fixture.controller).await;
    fixture.controller.until_converged().await;
    // Somebody else has the link; by an order to the core, as before there were files.
    let objects = selvedge_slices::parse("x", &slice("first", "60Mbps")).unwrap();
    let change = Change { put: objects, ..Change::default() };
    let request = Request::Apply { change, plan: None };
    fixture.controller.handle.request("x".into(), request).await.unwrap();
    fixture.write("a.yaml", slice("first", "60Mbps"));
    fixture.write("b.yaml", slice("second", "60Mbps"));
    fixture.look().await;
    assert!(fixture.refused().await.unwrap().contains("b.yaml:4: slice \"second\""));
    let change = Change {
        put: selvedge_slices::parse("x", &slice("first", "1Mbps")).unwrap(),
        ..Change::default()
    };
    let request = Request::Apply { change, plan: None };
    fixture.controller.handle.request("x".into(), request).await.unwrap();
    fixture.write("a.yaml", slice("first", "1Mbps"));
    for _ in 0..TRY_AGAIN {
        fixture.look().await;
    }
    assert_eq!((fixture.refused().await, fixture.objects().await.len()), (None, 2));
}

#[tokio::test]
async fn a_half_written_file_waits_and_swapped_links_are_seen() {
    let mut fixture = Fixture::new().await;
    fixture.write("a.yaml", slice("control", "1Mbps"));
    fixture.looking.look().await;
    assert_eq!(fixture.objects().await, [""; 0], "it has only just changed");
    fixture.write("a.yaml", slice("control", "1Mbps") + "---\n" + HOOK);
    fixture.write("mark.wasm", b"\0asm");
    fixture.looking.look().await;
    assert_eq!(fixture.objects().await, [""; 0], "and again");
    fixture.looking.look().await;
    assert_eq!(fixture.objects().await, ["control", "mark"]);

    // A Kubernetes volume: `..data` leads to a directory, files lead through it.
    let path = |name: &str| fixture.dir.path().join(name);
    for (name, rate) in [("..one", "3Mbps"), ("..two", "4Mbps")] {
        fixture.write(&format!("{name}/v.yaml"), slice("volume", rate));
    }
    symlink("..one", path("..data")).unwrap();
    symlink("..data/v.yaml", path("v.yaml")).unwrap();
    fixture.look().await;
    assert_eq!(fixture.rate().await.as_deref(), Some("3Mbps"));
    let path = |name: &str| fixture.dir.path().join(name);
    symlink("..two", path("..tmp")).unwrap();
    fs::rename(path("..tmp"), path("..data")).unwrap();
    fixture.look().await;
    assert_eq!(fixture.rate().await.as_deref(), Some("4Mbps"));
}

#[tokio::test]
async fn an_applications_own_changes_stay_until_its_file_changes() {
    let mut fixture = Fixture::new().await;
    fixture.write("app.yaml", APPLICATION);
    fixture.look().await;
    let old = fixture.rule().await;
    let new = selvedge_slices::TrafficRule { priority: 9, ..old.clone() };
    let application = "app".parse().unwrap();
    let request = Request::ReplaceTrafficRule { application, old, new: new.clone() };
    fixture.controller.handle.request(crate::mec::AUTHOR.into(), request).await.unwrap();
    fixture.write("b.yaml", slice("control", "1Mbps"));
    fixture.look().await;
    assert_eq!(fixture.objects().await.len(), 2);
    assert_eq!(fixture.rule().await, new);
    // The controller starts again.
    fixture.looking = Fixture::looking(&fixture.controller, &fixture.dir);
    fixture.look().await;
    assert_eq!(fixture.rule().await, new);
    fixture.write("app.yaml", APPLICATION.replace("priority: 1", "priority: 2"));
    fixture.look().await;
    assert_eq!(fixture.rule().await.priority, 2);
}
