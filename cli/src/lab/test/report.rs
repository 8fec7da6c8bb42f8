//! What came of a test: TAP 14, JUnit XML, JSON.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::file::Step;

pub(super) enum Verdict {
    /// What was seen.
    Passed(String),
    /// What was expected, and what was seen.
    Failed(String),
    /// An earlier step failed.
    Skipped,
}

pub(super) struct Outcome {
    name: String,
    line: usize,
    took: Duration,
    verdict: Verdict,
}

/// Outcomes so far, told as they come.
pub(super) struct Report<'f> {
    file: &'f str,
    name: String,
    /// TAP is printed.
    tap: bool,
    outcomes: Vec<Outcome>,
}

impl<'f> Report<'f> {
    pub(super) fn begin(file: &'f str, name: String, steps: usize, tap: bool) -> Self {
        if tap {
            println!("TAP version 14");
            println!("1..{steps}");
        }
        Self { file, name, tap, outcomes: Vec::new() }
    }

    pub(super) fn say(&self, line: &str) {
        if self.tap {
            println!("# {line}");
        }
    }

    pub(super) fn add(&mut self, step: &Step, took: Duration, verdict: Verdict) {
        let outcome = Outcome { name: step.name.clone(), line: step.line, took, verdict };
        if self.tap {
            println!("{}", tap(self.outcomes.len() + 1, self.file, &outcome));
        }
        self.outcomes.push(outcome);
    }

    /// The test ends here, whatever is left.
    pub(super) fn bail(&self, why: &str) {
        if self.tap {
            println!("Bail out! {}", one_line(why));
        }
    }

    pub(super) fn failed(&self) -> usize {
        self.outcomes.iter().filter(|o| matches!(o.verdict, Verdict::Failed(_))).count()
    }

    pub(super) fn print_json(&self) {
        let steps: Vec<_> = self
            .outcomes
            .iter()
            .map(|outcome| {
                let (result, text) = match &outcome.verdict {
                    Verdict::Passed(text) => ("passed", text.as_str()),
                    Verdict::Failed(text) => ("failed", text.as_str()),
                    Verdict::Skipped => ("skipped", ""),
                };
                let (name, line) = (&outcome.name, outcome.line);
                let seconds = outcome.took.as_secs_f64();
                json!({ "name": name, "line": line, "result": result, "text": text,
                        "seconds": seconds })
            })
            .collect();
        println!("{:#}", json!({ "test": self.name, "file": self.file, "steps": steps }));
    }

    /// `error`: what ended the test before its last step.
    pub(super) fn write_junit(&self, path: &Path, error: Option<&str>) -> anyhow::Result<()> {
        std::fs::write(path, self.junit(error))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn junit(&self, error: Option<&str>) -> String {
        let count = |which: fn(&Verdict) -> bool| {
            self.outcomes.iter().filter(|outcome| which(&outcome.verdict)).count()
        };
        let (tests, failures) = (self.outcomes.len(), self.failed());
        let skipped = count(|verdict| matches!(verdict, Verdict::Skipped));
        let errors = usize::from(error.is_some());
        let seconds: f64 = self.outcomes.iter().map(|outcome| outcome.took.as_secs_f64()).sum();
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{}\" \
             tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" \
             time=\"{seconds:.3}\">\n",
            escape(&self.name),
            tests + errors,
        );
        let file = escape(self.file);
        for Outcome { name, line, took, verdict } in &self.outcomes {
            let (name, seconds) = (escape(name), took.as_secs_f64());
            let body = match verdict {
                Verdict::Passed(text) => format!("<system-out>{}</system-out>", escape(text)),
                Verdict::Failed(text) => format!("<failure message=\"{}\"/>", escape(text)),
                Verdict::Skipped => "<skipped/>".to_owned(),
            };
            let _ = writeln!(
                xml,
                "    <testcase classname=\"{file}\" name=\"{name}\" file=\"{file}\" \
                 line=\"{line}\" time=\"{seconds:.3}\">{body}</testcase>",
            );
        }
        if let Some(error) = error {
            let error = escape(error);
            let _ = writeln!(
                xml,
                "    <testcase classname=\"{file}\" name=\"the lab\" file=\"{file}\">\
                 <error message=\"{error}\"/></testcase>",
            );
        }
        xml + "  </testsuite>\n</testsuites>\n"
    }
}

/// A test point of TAP 14: `#` and `\` are escaped in descriptions, details are YAML.
fn tap(number: usize, file: &str, outcome: &Outcome) -> String {
    let name = one_line(&outcome.name).replace('\\', "\\\\").replace('#', "\\#");
    match &outcome.verdict {
        Verdict::Passed(text) => format!("ok {number} - {name}\n# {}", one_line(text)),
        Verdict::Skipped => format!("ok {number} - {name} # SKIP an earlier step failed"),
        Verdict::Failed(text) => {
            // JSON's strings are YAML's.
            let (text, at) = (json!(text), json!(format!("{file}:{}", outcome.line)));
            format!("not ok {number} - {name}\n  ---\n  message: {text}\n  at: {at}\n  ...")
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// For XML 1.0, which has no way to write most control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(' '),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdicts: Vec<(&str, Verdict)>) -> Report<'static> {
        let outcome = |(name, verdict): (&str, Verdict)| Outcome {
            name: name.to_owned(),
            line: 3,
            took: Duration::from_millis(1500),
            verdict,
        };
        let outcomes = verdicts.into_iter().map(outcome).collect();
        Report { file: "a&b.yaml", name: "t".into(), tap: false, outcomes }
    }

    #[test]
    fn tap_escapes_what_it_would_read_itself() {
        let report = report(vec![
            ("a # b", Verdict::Passed("2 of\n2".into())),
            ("c", Verdict::Failed("lost \"all\"".into())),
            ("d", Verdict::Skipped),
        ]);
        let lines: Vec<_> = report.outcomes.iter().map(|o| tap(7, report.file, o)).collect();
        assert_eq!(lines[0], "ok 7 - a \\# b\n# 2 of 2");
        let block = "  ---\n  message: \"lost \\\"all\\\"\"\n  at: \"a&b.yaml:3\"\n  ...";
        assert_eq!(lines[1], format!("not ok 7 - c\n{block}"));
        assert_eq!(lines[2], "ok 7 - d # SKIP an earlier step failed");
    }

    #[test]
    fn junit_is_xml_whatever_was_said() {
        let report = report(vec![
            ("<a> & \"b\"", Verdict::Failed("\u{1b}[1m <x>".into())),
            ("c", Verdict::Skipped),
        ]);
        let xml = report.junit(Some("it died & <left>"));
        assert!(
            xml.contains("tests=\"3\" failures=\"1\" errors=\"1\" skipped=\"1\" time=\"3.000\"")
        );
        assert!(xml.contains("name=\"&lt;a&gt; &amp; &quot;b&quot;\""), "{xml}");
        assert!(xml.contains("message=\"\u{fffd}[1m &lt;x&gt;\""), "{xml}");
        assert!(!xml.contains('\u{1b}'));
    }
}
