//! What a bench leaves behind: target/bench/NAME.json.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A figure and what it is compared with, both of one unit and more of it better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) baseline: (&'static str, f64),
}

impl Row {
    pub(crate) fn ratio(&self) -> f64 {
        self.value / self.baseline.1
    }

    fn json(&self) -> Value {
        let (name, value) = self.baseline;
        json!({
            "name": self.name,
            "value": whole(self.value),
            "unit": self.unit,
            "better": "higher",
            "baseline": { "name": name, "value": whole(value) },
            "ratio": (self.ratio() * 1e4).round() / 1e4,
        })
    }
}

/// A figure of any unit and direction; `ratio` is value to baseline, so a speed-up where both
/// are rates.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// `higher` or `lower`.
    pub(crate) better: &'static str,
    pub(crate) baseline: (String, f64),
}

impl Figure {
    pub(crate) fn json(&self) -> Value {
        let (name, value) = &self.baseline;
        let rounded = |figure: f64| (figure * 1e4).round() / 1e4;
        json!({
            "name": self.name,
            "value": rounded(self.value),
            "unit": self.unit,
            "better": self.better,
            "baseline": { "name": name, "value": rounded(*value) },
            "ratio": rounded(self.value / value),
        })
    }
}

/// Fractions of a packet a second say nothing.
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// A row with a figure of any kind; `better` is `higher` or `lower`.
pub(crate) fn row(
    name: &str,
    value: f64,
    unit: &str,
    better: &str,
    (baseline, of): (&str, f64),
) -> Value {
    let digits = |value: f64| (value * 1e6).round() / 1e6;
    json!({
        "name": name,
        "value": digits(value),
        "unit": unit,
        "better": better,
        "baseline": { "name": baseline, "value": digits(of) },
        "ratio": digits(value / of),
    })
}

pub(crate) fn write(name: &str, rows: &[Row]) -> Result<()> {
    write_values(name, &rows.iter().map(Row::json).collect::<Vec<_>>())
}

pub(crate) fn write_values(name: &str, rows: &[Value]) -> Result<()> {
    let dir = Path::new("target/bench");
    let path = dir.join(name).with_extension("json");
    let mut text = serde_json::to_string_pretty(rows).context("write JSON")?;
    text.push('\n');
    fs::create_dir_all(dir).with_context(|| format!("make the directory {dir:?}"))?;
    fs::write(&path, text).with_context(|| format!("write {path:?}"))?;
    println!("\nwritten: {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_written_as_design_12_has_it() {
        let row = Row {
            name: "a_vs_b",
            value: 2_500_000.4,
            unit: "packets/s",
            baseline: ("b", 7_500_000.0),
        };
        let want = json!({
            "name": "a_vs_b",
            "value": 2_500_000,
            "unit": "packets/s",
            "better": "higher",
            "baseline": { "name": "b", "value": 7_500_000 },
            "ratio": 0.3333,
        });
        assert_eq!(row.json(), want);
    }
}
