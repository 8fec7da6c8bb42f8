//! YAML as a tree in which every value knows its place, and a decoder that goes on after a
//! problem. (serde stops at the first one, and what it buffers loses its place.)
//!
//! The tree is built from parser events without recursion and within limits, so neither deep
//! nesting nor an alias bomb costs more than an error. Scalars are texts: what they mean is for
//! whoever reads them, so `sd: 001122` and `sd: "001122"` are the same. Tags and merge keys are
//! refused.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span};

use crate::limits::{MAX_COUNTED_PROBLEMS, MAX_PROBLEMS, MAX_YAML_DEPTH, MAX_YAML_VALUES};
use crate::{NameError, Problem, UnitError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Byte range in the file.
    pub span: Range<usize>,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    Scalar(String),
    Sequence(Vec<Value>),
    /// In the order of the file, without duplicates.
    Mapping(Vec<(Key, Value)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub span: Range<usize>,
    pub text: String,
}

/// The documents of a YAML text that are whole, and what is wrong with it as YAML.
#[derive(Debug, Default)]
pub struct Documents {
    /// Without those that are empty.
    pub values: Vec<Value>,
    pub problems: Vec<Problem>,
}

/// An open mapping or sequence.
enum Open {
    Sequence {
        start: usize,
        anchor: usize,
        items: Vec<Value>,
    },
    Mapping {
        start: usize,
        anchor: usize,
        key: Option<Key>,
        entries: Vec<(Key, Value)>,
        /// Where each key is.
        seen: HashMap<String, Range<usize>>,
    },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    /// Anchored values with their size and height.
    anchors: HashMap<usize, (Value, usize, usize)>,
    values: usize,
    out: Documents,
}

pub fn documents(text: &str) -> Documents {
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let step = match event {
            Ok((event, span)) => builder.event(event, range(&span)),
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(text.len()).min(text.len());
                let end = text[at..].char_indices().nth(1).map_or(text.len(), |(i, _)| at + i);
                if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
                    Err(too_deep(at..end)) // the scanner has a limit of its own, for [ and {
                } else {
                    Err(Problem::new(at..end, format!("not YAML: {}", error.info())))
                }
            }
        };
        if let Err(problem) = step {
            builder.out.problems.push(problem);
            break;
        }
    }
    builder.out
}

fn range(span: &Span) -> Range<usize> {
    let start = span.start.byte_offset().unwrap_or(0);
    start..span.end.byte_offset().unwrap_or(start).max(start)
}

impl Builder {
    /// `Err` ends the reading.
    fn event(&mut self, event: Event<'_>, span: Range<usize>) -> Result<(), Problem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.is_some(), &span)?;
                let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null");
                let kind = if null { Kind::Null } else { Kind::Scalar(text.into_owned()) };
                self.count(1, &span)?;
                self.value(Value { span, kind }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.is_some(), &span)?;
                let start = span.start;
                self.enter(Open::Sequence { start, anchor, items: Vec::new() }, span)
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.is_some(), &span)?;
                let start = span.start;
                let (entries, seen) = (Vec::new(), HashMap::new());
                self.enter(Open::Mapping { start, anchor, key: None, entries, seen }, span)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (value, anchor) = match self.open.pop() {
                    Some(Open::Sequence { start, anchor, items }) => {
                        let end = items.last().map_or(span.end, |item| item.span.end).max(start);
                        (Value { span: start..end, kind: Kind::Sequence(items) }, anchor)
                    }
                    Some(Open::Mapping { start, anchor, entries, .. }) => {
                        let end = entries.last().map_or(span.end, |(_, v)| v.span.end).max(start);
                        (Value { span: start..end, kind: Kind::Mapping(entries) }, anchor)
                    }
                    None => return Ok(()), // the parser balances them
                };
                self.value(value, anchor)
            }
            Event::Alias(id) => {
                let Some((value, size, height)) = self.anchors.get(&id).cloned() else {
                    return Err(Problem::new(span, "this alias stands within what it names"));
                };
                self.count(size, &span)?;
                if self.open.len() + height > MAX_YAML_DEPTH {
                    return Err(too_deep(span));
                }
                self.value(Value { span, ..value }, 0)
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, more: usize, span: &Range<usize>) -> Result<(), Problem> {
        self.values += more;
        if self.values <= MAX_YAML_VALUES {
            return Ok(());
        }
        let message = format!("more than {MAX_YAML_VALUES} values, counting each use of an alias");
        Err(Problem::new(span.clone(), message).label("the limit is reached here"))
    }

    fn enter(&mut self, open: Open, span: Range<usize>) -> Result<(), Problem> {
        self.count(1, &span)?;
        if self.open.len() >= MAX_YAML_DEPTH {
            return Err(too_deep(span));
        }
        self.open.push(open);
        Ok(())
    }

    fn value(&mut self, value: Value, anchor: usize) -> Result<(), Problem> {
        if anchor != 0 {
            let (size, height) = measure(&value);
            self.anchors.insert(anchor, (value.clone(), size, height));
        }
        match self.open.last_mut() {
            None => {
                if value.kind != Kind::Null {
                    self.out.values.push(value);
                }
            }
            Some(Open::Sequence { items, .. }) => items.push(value),
            Some(Open::Mapping { key, entries, seen, .. }) => match key.take() {
                None => {
                    let Kind::Scalar(text) = value.kind else {
                        return Err(Problem::new(value.span, "a key is a text"));
                    };
                    *key = Some(Key { span: value.span, text });
                }
                Some(key) => match seen.get(&key.text) {
                    None => {
                        seen.insert(key.text.clone(), key.span.clone());
                        entries.push((key, value));
                    }
                    Some(first) => self.out.problems.push(
                        Problem::new(key.span, format!("{:?} is here twice", key.text))
                            .label("again here")
                            .also(first.clone(), "first here"),
                    ),
                },
            },
        }
        Ok(())
    }
}

fn refuse_tag(tagged: bool, span: &Range<usize>) -> Result<(), Problem> {
    if tagged { Err(Problem::new(span.clone(), "YAML tags are not read here")) } else { Ok(()) }
}

fn too_deep(span: Range<usize>) -> Problem {
    let message = format!("mappings and sequences nest deeper than {MAX_YAML_DEPTH}");
    Problem::new(span, message).label("one too many opens here")
}

/// How many values, and how many of them within each other. Recursion is bounded by
/// [`MAX_YAML_DEPTH`].
fn measure(value: &Value) -> (usize, usize) {
    let within: Vec<(usize, usize)> = match &value.kind {
        Kind::Null | Kind::Scalar(_) => return (1, 0),
        Kind::Sequence(items) => items.iter().map(measure).collect(),
        Kind::Mapping(entries) => entries.iter().map(|(_, value)| measure(value)).collect(),
    };
    let size = within.iter().map(|(size, _)| size).sum::<usize>() + 1;
    (size, within.iter().map(|(_, height)| height).max().unwrap_or(&0) + 1)
}

/// What a text is not, in words, and what it might be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub message: String,
    pub help: Option<String>,
}

impl Wrong {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }
}

/// An architecture, a kind of accelerator or another word of the operator's own.
pub fn word(text: &str) -> Result<String, Wrong> {
    let valid = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if (1..=63).contains(&text.len()) && text.bytes().all(valid) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{text:?} is not 1 to 63 of letters, digits, '-', '_' and '.'")))
}

impl From<UnitError> for Wrong {
    fn from(error: UnitError) -> Self {
        let help = error.suggestion.as_ref().map(|near| format!("did you mean {near}?"));
        Self { message: error.to_string(), help }
    }
}

impl From<NameError> for Wrong {
    fn from(error: NameError) -> Self {
        let written = match &error {
            NameError::Node(text) => crate::NodeName::from_label(text),
            NameError::Port(_) | NameError::Reserved(_) => None,
        };
        let help = written.map(|near| format!("did you mean {near}?"));
        Self { message: error.to_string(), help }
    }
}

/// Collects problems while values are taken out of a tree. Every method that finds one says so
/// and returns `None`; the caller goes on with the rest.
#[derive(Debug, Default)]
pub struct Decoder {
    pub problems: Vec<Problem>,
}

impl Decoder {
    /// Beyond [`MAX_COUNTED_PROBLEMS`] problems are no longer kept.
    pub fn problem(&mut self, problem: Problem) {
        if self.problems.len() < MAX_COUNTED_PROBLEMS {
            self.problems.push(problem);
        }
    }

    /// A problem with the nearest of `known` as its help. Comparing takes time, so problems that
    /// are not listed any more go without.
    pub fn unknown<'a>(
        &mut self,
        problem: Problem,
        written: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        let listed = self.problems.len() < MAX_PROBLEMS;
        self.problem(if listed { problem.meant(written, known) } else { problem });
    }

    /// The keys of a mapping. `what` names it in messages, with its article.
    pub fn fields<'v>(&mut self, value: &'v Value, what: &'static str) -> Option<Fields<'v>> {
        match &value.kind {
            Kind::Mapping(entries) => Some(Fields {
                what,
                span: value.span.clone(),
                entries,
                known: Vec::new(),
                denied: Vec::new(),
            }),
            _ => {
                self.expected(value, what, "a mapping of keys to values");
                None
            }
        }
    }

    /// The entries of a mapping whose keys are names.
    pub fn entries<'v>(&mut self, value: &'v Value, what: &'static str) -> &'v [(Key, Value)] {
        match &value.kind {
            Kind::Mapping(entries) => entries,
            _ => {
                self.expected(value, what, "a mapping of names to values");
                &[]
            }
        }
    }

    pub fn items<'v>(&mut self, value: &'v Value, what: &'static str) -> &'v [Value] {
        match &value.kind {
            Kind::Sequence(items) => items,
            _ => {
                self.expected(value, what, "a list");
                &[]
            }
        }
    }

    pub fn text<'v>(&mut self, value: &'v Value, what: &'static str) -> Option<&'v str> {
        match &value.kind {
            Kind::Scalar(text) => Some(text),
            _ => {
                self.expected(value, what, "a single value");
                None
            }
        }
    }

    fn expected(&mut self, value: &Value, what: &'static str, form: &str) {
        let is = match value.kind {
            Kind::Null => "there is nothing here",
            Kind::Scalar(_) => "this is a single value",
            Kind::Sequence(_) => "this is a list",
            Kind::Mapping(_) => "this is a mapping",
        };
        // A whole mapping as snippet would be long: the place where it begins says enough.
        let span = value.span.start..value.span.end.min(value.span.start + 40);
        self.problem(Problem::new(span, format!("{what} is {form}")).label(is));
    }

    /// A scalar through its type's own parser.
    pub fn parse<T>(&mut self, value: &Value, what: &'static str) -> Option<T>
    where
        T: FromStr,
        T::Err: Into<Wrong>,
    {
        self.parse_with(value, what, |text| text.parse::<T>().map_err(Into::into))
    }

    pub fn parse_with<T>(
        &mut self,
        value: &Value,
        what: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let text = self.text(value, what)?;
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(Wrong { message, help }) => {
                let problem = Problem::new(value.span.clone(), message).label(what);
                self.problem(Problem { help, ..problem });
                None
            }
        }
    }

    /// A scalar through its type's own parser, and within a range.
    pub fn parse_in<T>(
        &mut self,
        value: &Value,
        what: &'static str,
        range: RangeInclusive<T>,
    ) -> Option<T>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
        T::Err: Into<Wrong>,
    {
        let parsed = self.parse::<T>(value, what)?;
        if range.contains(&parsed) {
            return Some(parsed);
        }
        let message = format!("{what} is from {} to {}", range.start(), range.end());
        self.problem(Problem::new(value.span.clone(), message).label("out of range"));
        None
    }

    /// A whole decimal number in a range.
    pub fn integer(
        &mut self,
        value: &Value,
        what: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        self.parse_with(value, what, |text| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let number = text.parse().ok().filter(|n| digits && range.contains(n));
            number.ok_or_else(|| {
                let (start, end) = (range.start(), range.end());
                Wrong::new(format!("{text:?} is not a whole number from {start} to {end}"))
            })
        })
    }

    /// One of a few words.
    pub fn choice<T: Copy>(
        &mut self,
        value: &Value,
        what: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(value, what)?;
        if let Some((_, chosen)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*chosen);
        }
        let message = format!("{text:?} is not {what}");
        let problem = Problem::new(value.span.clone(), message);
        self.unknown(problem, text, words.iter().map(|(word, _)| *word));
        None
    }
}

/// The keys of one mapping, while they are being taken. [`Fields::finish`] reports those that
/// nobody asked for.
#[derive(Debug)]
pub struct Fields<'v> {
    what: &'static str,
    pub span: Range<usize>,
    entries: &'v [(Key, Value)],
    known: Vec<&'static str>,
    denied: Vec<(&'static str, &'static str)>,
}

impl<'v> Fields<'v> {
    pub fn optional(&mut self, name: &'static str) -> Option<&'v Value> {
        self.known.push(name);
        self.entries.iter().find(|(key, _)| key.text == name).map(|(_, value)| value)
    }

    pub fn required(&mut self, decoder: &mut Decoder, name: &'static str) -> Option<&'v Value> {
        let value = self.optional(name);
        if value.is_none() {
            let span = self.span.start..self.span.end.min(self.span.start + 40);
            let message = format!("{} has no {name:?}", self.what);
            decoder.problem(Problem::new(span, message).label("missing here"));
        }
        value
    }

    /// The place of a key that is there.
    pub fn key(&self, name: &str) -> Option<Range<usize>> {
        self.entries.iter().find(|(key, _)| key.text == name).map(|(key, _)| key.span.clone())
    }

    /// Says of a key why it cannot be here, should it be.
    pub fn deny(&mut self, name: &'static str, why: &'static str) {
        self.denied.push((name, why));
    }

    pub fn finish(self, decoder: &mut Decoder) {
        for (key, _) in self.entries {
            if self.known.contains(&key.text.as_str()) {
                continue;
            }
            let denied = self.denied.iter().find(|(name, _)| *name == key.text);
            let message = match denied {
                Some((name, why)) => format!("{} has no {name:?}: {why}", self.what),
                None => format!("{} has no {:?}", self.what, key.text),
            };
            let problem = Problem::new(key.span.clone(), message).label("unknown key");
            if denied.is_some() {
                decoder.problem(problem);
            } else {
                decoder.unknown(problem, &key.text, self.known.iter().copied());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_problem(text: &str) -> String {
        documents(text).problems.first().map(|p| p.message.clone()).unwrap_or_default()
    }

    #[test]
    fn a_tree_with_places() {
        let text = "a: [1, \"2\"]\nb:\n---\nc\n";
        let documents = documents(text);
        assert_eq!(documents.problems, []);
        assert_eq!(documents.values.len(), 2);
        let Kind::Mapping(entries) = &documents.values[0].kind else { panic!("a mapping") };
        let Kind::Sequence(items) = &entries[0].1.kind else { panic!("a sequence") };
        assert_eq!(&text[items[1].span.clone()], "\"2\"");
        assert_eq!(items[1].kind, Kind::Scalar("2".into()));
        assert_eq!(entries[1].1.kind, Kind::Null);
    }

    #[test]
    fn what_is_refused() {
        // (input, part of the problem)
        let deep_flow = "[".repeat(10_000);
        let deep_block = "- ".repeat(10_000);
        let deep_maps: String = (0..500).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned()
            + &(b'b'..=b'h')
                .map(|c| {
                    let (c, p) = (char::from(c), char::from(c - 1));
                    format!("{c}: &{c} [{}]\n", vec![format!("*{p}"); 10].join(","))
                })
                .collect::<String>();
        let cases: &[(&str, &str)] = &[
            (&deep_flow, "nest deeper than 64"),
            (&deep_block, "nest deeper than 64"),
            (&deep_maps, "nest deeper than 64"),
            (&bomb, "more than 1048576 values"),
            ("a: *a", "not YAML"),
            ("a: &a [*a]", "within what it names"),
            ("a: !!python/object x", "tags"),
            ("a: 1\na: 2", "\"a\" is here twice"),
            ("[1]: 2", "a key is a text"),
            ("a: [1", "not YAML"),
            ("a: 'x", "not YAML"),
            ("", ""),
            ("# nothing", ""),
        ];
        for (input, want) in cases {
            let got = first_problem(input);
            let shown: String = input.chars().take(40).collect();
            assert!(got.contains(want) && got.is_empty() == want.is_empty(), "{shown:?}: {got}");
        }
    }

    #[test]
    fn an_alias_is_its_value_at_its_own_place() {
        let text = "a: &x {k: v}\nb: *x\n";
        let documents = documents(text);
        let Kind::Mapping(entries) = &documents.values[0].kind else { panic!("a mapping") };
        assert_eq!(entries[0].1.kind, entries[1].1.kind);
        assert_eq!(&text[entries[1].1.span.clone()], "*x");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[-\\[\\]{}:,&*!|>'\"%@`a-c \\n\\t#é?]{0,200}") {
            for problem in documents(&text).problems {
                assert!(text.is_char_boundary(problem.span.start.min(text.len())), "{problem:?}");
            }
        }
    }
}
