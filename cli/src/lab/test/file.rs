//! The file of a lab test: a topology, and steps with what is expected of them.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use selvedge_lab::{Family, ProcessName, end};
use selvedge_topology::read;
use selvedge_topology::yaml::{self, Decoder, Fields, Value, Wrong};
use selvedge_topology::{BitRate, Delay, End, Loss, NodeName, Problem, Problems, Topology};

/// Largest file, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;
/// Steps of a file, those during others included.
const MAX_STEPS: usize = 1_000;
const MAX_SECONDS: u64 = 3_600;
const MAX_PINGS: u64 = 1_000;

pub(super) struct LabTest {
    pub(super) name: NodeName,
    pub(super) topology: PathBuf,
    pub(super) steps: Vec<Step>,
}

pub(super) struct Step {
    pub(super) name: String,
    /// In the file, from 1.
    pub(super) line: usize,
    pub(super) action: Action,
    /// Tried again for so long until it passes.
    pub(super) within: Option<Duration>,
    /// Carried out while a `udp` step's packets flow.
    pub(super) during: Vec<Step>,
}

/// What is done, and what is expected of it.
pub(super) enum Action {
    Apply { files: Vec<PathBuf>, refused: Option<String> },
    Delete { what: Vec<String> },
    Ping { from: String, to: String, families: Families, count: u32, max_loss: Loss },
    Unreachable { from: String, to: String, families: Families, dropped: Option<String> },
    Pingall { families: Families, max_loss: Loss },
    Udp(Udp),
    Tcp(Tcp),
    Link { a: String, b: String, up: bool },
    Impair { a: String, b: String, impairment: selvedge_lab::Impairment },
    Move { host: String, to: End },
    Kill(ProcessName),
    Start(ProcessName),
    Exec { node: String, command: Vec<String>, code: i32, output: Option<String> },
}

pub(super) struct Udp {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) family: Family,
    /// Of IP bytes.
    pub(super) rate: BitRate,
    pub(super) packet_bytes: usize,
    pub(super) duration: Duration,
    pub(super) max_loss: Loss,
    pub(super) min_loss: Option<Loss>,
    pub(super) min_rate: Option<BitRate>,
    pub(super) max_gap: Option<Delay>,
}

pub(super) struct Tcp {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) family: Family,
    pub(super) seconds: u32,
    pub(super) min_rate: Option<BitRate>,
    pub(super) max_rate: Option<BitRate>,
}

/// `None`: both, as far as the hosts have addresses.
pub(super) type Families = Option<Family>;

impl LabTest {
    /// Steps in the order in which they end: those during another before it.
    pub(super) fn count(&self) -> usize {
        fn of(steps: &[Step]) -> usize {
            steps.iter().map(|step| 1 + of(&step.during)).sum()
        }
        of(&self.steps)
    }
}

/// Reads and checks a file, and the names in it against the topology that it names.
pub(super) fn read(path: &Path) -> Result<LabTest, Problems> {
    let text = read::text_of(path, MAX_FILE_BYTES)?;
    let dir = path.parent().unwrap_or(Path::new(""));
    parse(&path.display().to_string(), dir, &text)
}

fn parse(file: &str, dir: &Path, text: &str) -> Result<LabTest, Problems> {
    let documents = yaml::documents(text);
    let mut reader = Reader {
        d: Decoder { problems: documents.problems },
        dir,
        text,
        nodes: Vec::new(),
        steps: 0,
    };
    let test = match &documents.values[..] {
        [one] => reader.test(one)?,
        [] => {
            reader.d.problem(Problem::new(0..0, "there is no lab test in this file"));
            None
        }
        [_, second, ..] => {
            let span = second.span.start..second.span.start;
            reader.d.problem(Problem::new(span, "a file has one lab test"));
            None
        }
    };
    match test {
        Some(test) if reader.d.problems.is_empty() => Ok(test),
        _ => Err(Problems::new(file, text, reader.d.problems)),
    }
}

struct Reader<'t> {
    d: Decoder,
    dir: &'t Path,
    text: &'t str,
    /// Of the topology; empty where the lab makes up its hosts.
    nodes: Vec<String>,
    steps: usize,
}

const STEPS: [&str; 13] = [
    "apply",
    "delete",
    "ping",
    "unreachable",
    "pingall",
    "udp",
    "tcp",
    "link",
    "impair",
    "move",
    "kill",
    "start",
    "exec",
];

/// Steps that only look.
const AGAIN: [&str; 4] = ["ping", "pingall", "unreachable", "exec"];

impl Reader<'_> {
    /// `Err`: the topology's own problems.
    fn test(&mut self, document: &Value) -> Result<Option<LabTest>, Problems> {
        let Some(mut top) = self.d.fields(document, "a lab test") else { return Ok(None) };
        if let Some(value) = top.required(&mut self.d, "apiVersion") {
            self.d.choice(value, "a version that is known", &[("selvedge/v1", ())]);
        }
        if let Some(value) = top.required(&mut self.d, "kind") {
            self.d.choice(value, "a kind of test", &[("LabTest", ())]);
        }
        let name = top.required(&mut self.d, "metadata").and_then(|value| {
            let mut fields = self.d.fields(value, "metadata")?;
            let name = fields.required(&mut self.d, "name");
            let name = name.and_then(|value| self.d.parse::<NodeName>(value, "the test's name"));
            fields.finish(&mut self.d);
            name
        });
        let spec = top.required(&mut self.d, "spec");
        top.finish(&mut self.d);
        let Some(mut spec) = spec.and_then(|value| self.d.fields(value, "a spec")) else {
            return Ok(None);
        };
        let topology = spec.required(&mut self.d, "topology");
        let topology =
            topology.and_then(|value| Some(self.dir.join(self.d.text(value, "a file")?)));
        if let Some(path) = &topology {
            self.nodes = nodes(&read::from_path(path)?.topology);
        }
        let steps = spec.required(&mut self.d, "steps");
        let steps = steps.map(|value| self.steps(value)).unwrap_or_default();
        spec.finish(&mut self.d);
        let test = |(name, topology)| LabTest { name, topology, steps };
        Ok(name.zip(topology).map(test))
    }

    fn steps(&mut self, value: &Value) -> Vec<Step> {
        let items = self.d.items(value, "steps");
        if items.is_empty() {
            self.d.problem(Problem::new(value.span.clone(), "a test has at least one step"));
        }
        items.iter().filter_map(|item| self.step(item)).collect()
    }

    fn step(&mut self, value: &Value) -> Option<Step> {
        self.steps += 1;
        if self.steps == MAX_STEPS + 1 {
            let message = format!("more than {MAX_STEPS} steps");
            self.d.problem(Problem::new(value.span.start..value.span.start, message));
        }
        let mut fields = self.d.fields(value, "a step")?;
        let name = fields.optional("name").and_then(|v| self.d.text(v, "a step's name"));
        let within = fields.optional("within");
        let within = within.and_then(|value| self.d.parse::<Delay>(value, "a time to pass in"));
        let during = fields.optional("during");
        let mut actions = Vec::new();
        for word in STEPS {
            if let Some(value) = fields.optional(word) {
                actions.push((word, value, fields.key(word).unwrap_or(0..0)));
            }
        }
        let start = fields.span.start;
        fields.finish(&mut self.d);
        if let [_, (word, _, span), ..] = &actions[..] {
            let problem =
                Problem::new(span.clone(), format!("a step does one thing; {word:?} is another"));
            self.d.problem(problem);
            return None;
        }
        let Some((word, value, span)) = actions.pop() else {
            let problem = Problem::new(start..start, "this step does nothing");
            self.d.problem(problem.help(format!("a step has one of {}", STEPS.join(", "))));
            return None;
        };
        if let Some(during) = during.filter(|_| word != "udp") {
            let span = during.span.start..during.span.start;
            self.d.problem(Problem::new(span, "only a \"udp\" step has something \"during\" it"));
        }
        if within.is_some() && !AGAIN.contains(&word) {
            let message = format!("only {} may be tried again \"within\" a time", AGAIN.join(", "));
            self.d.problem(Problem::new(span.clone(), message));
        }
        let within = within.map(|within| Duration::from_micros(within.0));
        let action = self.action(word, value);
        let during = during.map(|value| self.steps(value)).unwrap_or_default();
        let action = action?;
        let name = name.map_or_else(|| self.shown(word, value), str::to_owned);
        Some(Step { name, line: self.line(&span), action, within, during })
    }

    /// The step's own text, on one line.
    fn shown(&self, word: &str, value: &Value) -> String {
        let text: Vec<&str> = self.text[value.span.clone()].split_whitespace().collect();
        let text = text.join(" ");
        let text = text.trim_start_matches(['{', ' ']).trim_end_matches(['}', ' ']);
        format!("{word} {text}").trim_end().to_owned()
    }

    fn line(&self, span: &Range<usize>) -> usize {
        1 + self.text[..span.start].matches('\n').count()
    }

    fn action(&mut self, word: &str, value: &Value) -> Option<Action> {
        match word {
            "apply" => self.apply(value),
            "delete" => {
                let what = self.words(value, "what to delete");
                Some(Action::Delete { what })
            }
            "ping" => self.ping(value),
            "unreachable" => self.unreachable(value),
            "pingall" => self.pingall(value),
            "udp" => self.udp(value).map(Action::Udp),
            "tcp" => self.tcp(value).map(Action::Tcp),
            "link" => self.link(value),
            "impair" => self.impair(value),
            "move" => self.move_host(value),
            "kill" => self.process(value).map(Action::Kill),
            "start" => self.process(value).map(Action::Start),
            "exec" => self.exec(value),
            other => unreachable!("{other} is not in STEPS"),
        }
    }

    /// A file, a list of files, or a mapping of those and what the refusal has to say.
    fn apply(&mut self, value: &Value) -> Option<Action> {
        let (files, refused) = match &value.kind {
            yaml::Kind::Mapping(_) => {
                let mut fields = self.d.fields(value, "an apply step")?;
                let files = fields.required(&mut self.d, "files");
                let files = files.map(|value| self.words(value, "files")).unwrap_or_default();
                let refused = fields.optional("refused");
                let refused = refused.and_then(|v| self.d.text(v, "a part of the refusal"));
                fields.finish(&mut self.d);
                (files, refused.map(str::to_owned))
            }
            _ => (self.words(value, "a file"), None),
        };
        let files = files.iter().map(|file| self.dir.join(file)).collect();
        Some(Action::Apply { files, refused })
    }

    /// One text, or a list of them.
    fn words(&mut self, value: &Value, what: &'static str) -> Vec<String> {
        let items = match &value.kind {
            yaml::Kind::Sequence(items) => items.iter().collect(),
            _ => vec![value],
        };
        items.into_iter().filter_map(|item| Some(self.d.text(item, what)?.to_owned())).collect()
    }

    fn ping(&mut self, value: &Value) -> Option<Action> {
        let mut fields = self.d.fields(value, "a ping")?;
        let (from, to) = self.pair(&mut fields);
        let families = self.family(&mut fields);
        let count = fields.optional("count");
        let count = count.and_then(|v| self.d.integer(v, "a number of pings", 1..=MAX_PINGS));
        let max_loss = self.quantity(&mut fields, "maxLoss", "a share of the pings");
        fields.finish(&mut self.d);
        let count = u32::try_from(count.unwrap_or(4)).expect("bounded above");
        let max_loss = max_loss.unwrap_or_default();
        Some(Action::Ping { from: from?, to: to?, families, count, max_loss })
    }

    fn unreachable(&mut self, value: &Value) -> Option<Action> {
        let mut fields = self.d.fields(value, "an unreachable step")?;
        let (from, to) = self.pair(&mut fields);
        let families = self.family(&mut fields);
        let dropped = fields.optional("dropped").and_then(|value| {
            let reasons = selvedge_pipeline::DropReason::ALL.map(|r| (r.name(), r.name()));
            self.d.choice(value, "a drop reason", &reasons)
        });
        fields.finish(&mut self.d);
        let dropped = dropped.map(str::to_owned);
        Some(Action::Unreachable { from: from?, to: to?, families, dropped })
    }

    fn pingall(&mut self, value: &Value) -> Option<Action> {
        let mut fields = match value.kind {
            yaml::Kind::Null => {
                return Some(Action::Pingall { families: None, max_loss: Loss::default() });
            }
            _ => self.d.fields(value, "a pingall")?,
        };
        let families = self.family(&mut fields);
        let max_loss = self.quantity(&mut fields, "maxLoss", "a share of the pairs");
        fields.finish(&mut self.d);
        Some(Action::Pingall { families, max_loss: max_loss.unwrap_or_default() })
    }

    fn udp(&mut self, value: &Value) -> Option<Udp> {
        let mut fields = self.d.fields(value, "a udp step")?;
        let (from, to) = self.pair(&mut fields);
        let family = self.family(&mut fields).unwrap_or(Family::V4);
        let rate = fields.required(&mut self.d, "rate");
        let rate = rate.and_then(|value| self.d.parse(value, "a rate"));
        let size = fields.optional("size");
        let size = size.and_then(|v| self.d.integer(v, "a packet's size in bytes", 60..=1500));
        let seconds = self.seconds(&mut fields);
        let max_loss = self.quantity(&mut fields, "maxLoss", "a share of the packets");
        let min_loss = self.quantity(&mut fields, "minLoss", "a share of the packets");
        let min_rate = self.quantity(&mut fields, "minRate", "a rate");
        let max_gap = self.quantity(&mut fields, "maxGap", "a time without packets");
        fields.finish(&mut self.d);
        // Where loss is asked for, it is allowed.
        let default = if min_loss.is_some() { Loss::from_ppm(1_000_000) } else { None };
        Some(Udp {
            from: from?,
            to: to?,
            family,
            rate: rate?,
            packet_bytes: usize::try_from(size.unwrap_or(1000)).expect("bounded above"),
            duration: Duration::from_secs(seconds),
            max_loss: max_loss.or(default).unwrap_or_default(),
            min_loss,
            min_rate,
            max_gap,
        })
    }

    fn tcp(&mut self, value: &Value) -> Option<Tcp> {
        let mut fields = self.d.fields(value, "a tcp step")?;
        let (from, to) = self.pair(&mut fields);
        let family = self.family(&mut fields).unwrap_or(Family::V4);
        let seconds = self.seconds(&mut fields);
        let min_rate = self.quantity(&mut fields, "minRate", "a rate");
        let max_rate = self.quantity(&mut fields, "maxRate", "a rate");
        fields.finish(&mut self.d);
        let seconds = u32::try_from(seconds).expect("bounded above");
        Some(Tcp { from: from?, to: to?, family, seconds, min_rate, max_rate })
    }

    fn link(&mut self, value: &Value) -> Option<Action> {
        let mut fields = self.d.fields(value, "a link step")?;
        let ends = self.ends(&mut fields);
        let state = fields.required(&mut self.d, "state");
        let states = [("up", true), ("down", false)];
        let up = state.and_then(|value| self.d.choice(value, "a link's state", &states));
        fields.finish(&mut self.d);
        let (a, b) = ends?;
        Some(Action::Link { a, b, up: up? })
    }

    fn impair(&mut self, value: &Value) -> Option<Action> {
        let mut fields = self.d.fields(value, "an impair step")?;
        let ends = self.ends(&mut fields);
        let impairment = selvedge_lab::Impairment {
            rate: self.quantity(&mut fields, "rate", "a rate"),
            delay: self.quantity(&mut fields, "delay", "a delay"),
            loss: self.quantity(&mut fields, "loss", "a share of the frames"),
        };
        fields.finish(&mut self.d);
        let (a, b) = ends?;
        Some(Action::Impair { a, b, impairment })
    }

    fn move_host(&mut self, value: &Value) -> Option<Action> {
        let mut fields = self.d.fields(value, "a move")?;
        let host = self.node(&mut fields, "host");
        let to = fields.required(&mut self.d, "to");
        let to = to
            .and_then(|value| self.d.parse_with(value, "a port", |text| end(text).map_err(wrong)));
        fields.finish(&mut self.d);
        Some(Action::Move { host: host?, to: to? })
    }

    fn process(&mut self, value: &Value) -> Option<ProcessName> {
        self.d.parse_with(value, "a process of the lab", |text| text.parse().map_err(wrong))
    }

    fn exec(&mut self, value: &Value) -> Option<Action> {
        let mut fields = self.d.fields(value, "an exec step")?;
        let node = self.node(&mut fields, "node");
        let command = fields.required(&mut self.d, "command");
        let command = command.map(|value| {
            let words = self.words(value, "a command");
            if words.is_empty() {
                let problem = Problem::new(value.span.clone(), "a command has at least one word");
                self.d.problem(problem);
            }
            words
        });
        let code = fields.optional("code");
        let code = code.and_then(|value| self.d.integer(value, "an exit code", 0..=255));
        let output = fields.optional("output").and_then(|v| self.d.text(v, "a part of the output"));
        fields.finish(&mut self.d);
        let code = i32::try_from(code.unwrap_or(0)).expect("bounded above");
        let output = output.map(str::to_owned);
        Some(Action::Exec { node: node?, command: command?, code, output })
    }

    fn pair(&mut self, fields: &mut Fields<'_>) -> (Option<String>, Option<String>) {
        (self.node(fields, "from"), self.node(fields, "to"))
    }

    fn node(&mut self, fields: &mut Fields<'_>, key: &'static str) -> Option<String> {
        let value = fields.required(&mut self.d, key)?;
        let name = self.d.text(value, "a node")?;
        self.known(value, name);
        Some(name.to_owned())
    }

    /// Both ends of a link: nodes, or NODE:PORT.
    fn ends(&mut self, fields: &mut Fields<'_>) -> Option<(String, String)> {
        let value = fields.required(&mut self.d, "ends")?;
        let ends = self.d.items(value, "a link's ends");
        let [a, b] = ends else {
            let problem = Problem::new(value.span.clone(), "a link has two ends");
            self.d
                .problem(problem.help("ends: [gnb1, s1], or with ports [\"gnb1:p1\", \"s1:p3\"]"));
            return None;
        };
        let mut end = |value: &Value| {
            let text = self.d.text(value, "an end")?.to_owned();
            self.known(value, text.split(':').next().unwrap_or_default());
            Some(text)
        };
        let (a, b) = (end(a), end(b));
        a.zip(b)
    }

    fn known(&mut self, value: &Value, name: &str) {
        if !self.nodes.is_empty() && !self.nodes.iter().any(|node| node == name) {
            let message = format!("the topology has no node {name:?}");
            let problem = Problem::new(value.span.clone(), message).label("not there");
            self.d.problem(problem.meant(name, self.nodes.iter().map(String::as_str)));
        }
    }

    fn family(&mut self, fields: &mut Fields<'_>) -> Families {
        let value = fields.optional("family")?;
        let words = [("ipv4", Family::V4), ("ipv6", Family::V6)];
        self.d.choice(value, "an address family", &words)
    }

    fn seconds(&mut self, fields: &mut Fields<'_>) -> u64 {
        let value = fields.optional("seconds");
        let seconds = value.and_then(|v| self.d.integer(v, "a time in seconds", 1..=MAX_SECONDS));
        seconds.unwrap_or(5)
    }

    fn quantity<T>(
        &mut self,
        fields: &mut Fields<'_>,
        key: &'static str,
        what: &'static str,
    ) -> Option<T>
    where
        T: std::str::FromStr,
        T::Err: Into<Wrong>,
    {
        let value = fields.optional(key)?;
        self.d.parse(value, what)
    }
}

fn wrong(error: selvedge_lab::LabError) -> Wrong {
    Wrong::new(error.to_string())
}

/// Names that steps may use; none where the topology has no hosts, since the lab adds them.
fn nodes(topology: &Topology) -> Vec<String> {
    if topology.hosts().next().is_none() {
        return Vec::new();
    }
    topology.nodes.keys().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/metro");

    fn steps(steps: &str) -> Result<LabTest, String> {
        let text = format!(
            "apiVersion: selvedge/v1\nkind: LabTest\nmetadata: {{ name: t }}\n\
             spec:\n  topology: topology.yaml\n  steps:\n{steps}"
        );
        parse("t.yaml", Path::new(METRO), &text).map_err(|problems| {
            let places = problems.places();
            let shown = places.map(|(line, _, p)| {
                format!("{line}: {} {}", p.message, p.help.clone().unwrap_or_default())
            });
            shown.collect::<Vec<_>>().join("\n")
        })
    }

    #[test]
    fn names_lines_and_steps_during_others() {
        let test = steps(
            "  - pingall:\n  - name: flood\n    udp: { from: phone-1, to: video, rate: 1Gbps }\n    \
             during:\n    - ping: { from: robot-1, to: plc }\n",
        );
        let test = test.unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(test.count(), 3);
        let names: Vec<_> = test.steps.iter().map(|s| (s.name.as_str(), s.line)).collect();
        assert_eq!(names, [("pingall", 7), ("flood", 9)]);
        let inner = &test.steps[1].during[0];
        assert_eq!((inner.name.as_str(), inner.line), ("ping from: robot-1, to: plc", 11));
    }

    #[test]
    fn every_problem_at_once_with_its_line() {
        let cases = [
            (
                "  - ping: { from: robot-2, to: plc }\n",
                "7: the topology has no node \"robot-2\" did you mean \"robot-1\"?",
            ),
            ("  - pong: {}\n", "7: a step has no \"pong\""),
            ("  - name: x\n", "a step has one of apply"),
            ("  - pingall:\n    apply: x.yaml\n", "a step does one thing"),
            ("  - pingall:\n    during:\n    - pingall:\n", "only a \"udp\" step"),
            ("  - udp: { from: plc, to: video, rate: 5 }\n", "did you mean 5Mbps?"),
            (
                "  - udp: { from: plc, to: video, rate: 5Mbps, maxLos: 1% }\n",
                "did you mean \"maxLoss\"?",
            ),
            (
                "  - unreachable: { from: plc, to: video, dropped: no_rout }\n",
                "did you mean \"no_route\"?",
            ),
            ("  - link: { ends: [gnb1], state: down }\n", "a link has two ends"),
            ("  - link: { ends: [gnb1, s1], state: sideways }\n", "is not a link's state"),
            ("  - kill: controller\n    within: 5s\n", "may be tried again"),
            ("  - kill: swich s1\n", "the lab has no process"),
            ("  - exec: { node: plc, command: [] }\n", "at least one word"),
            ("    []\n", "at least one step"),
        ];
        for (text, want) in cases {
            let Err(got) = steps(text) else { panic!("{text} is taken") };
            assert!(got.contains(want), "{text}: {got}");
        }
        let Err(both) = steps("  - ping: { from: a }\n  - link: { ends: [b, s1], state: up }\n")
        else {
            panic!("taken")
        };
        for want in ["node \"a\"", "has no \"to\"", "node \"b\""] {
            assert!(both.contains(want), "{both}");
        }
    }
}
