//! What is wrong with a file: every problem at once, each with its place and a suggestion.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

use crate::limits::{MAX_COUNTED_PROBLEMS, MAX_PROBLEMS};

/// One thing wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub message: String,
    /// What the label at the place says; may be empty.
    pub label: String,
    /// Byte range in the file.
    pub span: Range<usize>,
    /// What to write instead.
    pub help: Option<String>,
    /// Another place that has to do with it, such as the first use of a duplicate name.
    pub also: Option<Box<(Range<usize>, String)>>,
    /// Line and column, when the line is too long to be shown as a snippet.
    pub(crate) off_screen: Option<(u32, u32)>,
}

impl Problem {
    pub fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            label: String::new(),
            span,
            help: None,
            also: None,
            off_screen: None,
        }
    }

    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub fn also(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.also = Some(Box::new((span, label.into())));
        self
    }

    /// Help that names the nearest of `known` to what was written, or else all of them when
    /// they are few.
    #[must_use]
    pub fn meant<'a>(self, written: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        match nearest(written, known.iter().copied()) {
            Some(near) => self.help(format!("did you mean {near:?}?")),
            None if (1..=16).contains(&known.len()) => {
                self.help(format!("known here: {}", known.join(", ")))
            }
            None => self,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.off_screen {
            Some((line, column)) => write!(f, " (line {line}, column {column})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        if self.span == (0..0) || self.off_screen.is_some() {
            return None; // the file as a whole, or no line to show
        }
        let label = (!self.label.is_empty()).then(|| self.label.clone());
        let main = LabeledSpan::new_primary_with_span(label, self.span.clone());
        let also = self.also.as_deref().into_iter();
        let also =
            also.map(|(span, label)| LabeledSpan::new_with_span(Some(label.clone()), span.clone()));
        Some(Box::new(std::iter::once(main).chain(also)))
    }
}

/// Everything wrong with one file. As a [`miette::Diagnostic`] it prints each problem with file,
/// line and snippet; [`Problems::places`] gives the same to machines.
#[derive(Clone, Debug)]
pub struct Problems {
    source: NamedSource<Arc<str>>,
    problems: Vec<Problem>,
    /// Found beyond [`MAX_PROBLEMS`], and not listed.
    unlisted: usize,
}

impl Problems {
    pub fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.span.start, problem.span.end));
        problems.dedup();
        let unlisted = problems.len().saturating_sub(MAX_PROBLEMS);
        problems.truncate(MAX_PROBLEMS);
        // A span past the end of the text would make miette print no snippet at all.
        let clamp = |span: &mut Range<usize>| {
            span.end = span.end.min(text.len());
            span.start = span.start.min(span.end);
        };
        for problem in &mut problems {
            clamp(&mut problem.span);
            if let Some(also) = &mut problem.also {
                clamp(&mut also.0);
            }
            let start = floor_char_boundary(text, problem.span.start);
            let line = text[start..].find('\n').map_or(text.len(), |end| start + end)
                - text[..start].rfind('\n').map_or(0, |at| at + 1);
            if line > MAX_SNIPPET {
                let (line, column) = place(text, start);
                let small = |n| u32::try_from(n).unwrap_or(u32::MAX);
                problem.off_screen = Some((small(line), small(column)));
            }
        }
        Self { source: NamedSource::new(file, text.into()), problems, unlisted }
    }

    /// A problem with a file as a whole, such as that it cannot be read.
    pub fn of_file(file: &str, message: impl Into<String>, help: Option<String>) -> Self {
        let problem = Problem { help, ..Problem::new(0..0, message) };
        Self { source: NamedSource::new(file, "".into()), problems: vec![problem], unlisted: 0 }
    }

    pub fn file(&self) -> &str {
        self.source.name()
    }

    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Each problem with its line and column, both from 1; the column counts characters.
    pub fn places(&self) -> impl Iterator<Item = (usize, usize, &Problem)> {
        let text = self.source.inner();
        self.problems.iter().map(move |problem| {
            let (line, column) = place(text, problem.span.start);
            (line, column, problem)
        })
    }
}

/// Longest line that is shown, in bytes.
const MAX_SNIPPET: usize = 400;

/// Line and column, both from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..floor_char_boundary(text, at)];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len() + self.unlisted;
        let s = if count == 1 { "" } else { "s" };
        let least = if count >= MAX_COUNTED_PROBLEMS { "at least " } else { "" };
        write!(f, "{}: {least}{count} problem{s}", self.file())?;
        if self.unlisted > 0 {
            write!(f, ", the first {MAX_PROBLEMS} of them listed")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Diagnostic for Problems {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}

/// The one of `known` that `written` is probably a slip of: at most a third of its letters
/// changed, added, left out or swapped with the next; the first of equals.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > 128 {
        return None; // not a slip, and the comparison is quadratic
    }
    let allowed = (written.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= 128 && *candidate != written)
        .map(|candidate| (edits(&written.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(edits, candidate)| *edits <= allowed && *edits < candidate.chars().count())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips() {
        let known = ["capacity", "delay", "cost", "srlg", "loss", "endpoints"];
        let cases = [
            ("capcity", Some("capacity")),
            ("Capacity", Some("capacity")),
            ("dealy", Some("delay")),
            ("endpoint", Some("endpoints")),
            ("cots", Some("cost")),
            ("bandwidth", None),
            ("x", None),
            ("", None),
        ];
        for (written, want) in cases {
            assert_eq!(nearest(written, known), want, "written {written:?}");
        }
    }

    #[test]
    fn a_long_line_is_named_and_not_shown() {
        let text = format!("a\n{}", "b".repeat(10_000));
        let problems = Problems::new("f", &text, vec![Problem::new(5_002..5_003, "bad")]);
        let mut shown = String::new();
        miette::GraphicalReportHandler::new().render_report(&mut shown, &problems).unwrap();
        assert!(shown.contains("bad (line 2, column 5001)"), "{shown}");
        assert!(!shown.contains("bbb"), "{shown}");
    }

    #[test]
    fn places_count_from_one_in_characters() {
        let text = "a: é\nbé: x";
        let problem = |at| Problem::new(at..at + 1, "m");
        let problems = Problems::new("f", text, vec![problem(9), problem(0), problem(500)]);
        let places: Vec<_> = problems.places().map(|(line, column, _)| (line, column)).collect();
        assert_eq!(places, [(1, 1), (2, 3), (2, 6)]);
        assert_eq!(problems.to_string(), "f: 3 problems");
    }
}
