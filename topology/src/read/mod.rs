//! Readers: Selvedge YAML, Topology Zoo GraphML, REPETITA `.graph`.

mod graphml;
mod names;
mod repetita;
mod selvedge;
pub mod traffic;

use std::path::Path;

use crate::limits::MAX_FILE_BYTES;
use crate::{Problems, Topology};

pub use assumption::Assumption;

mod assumption;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// DESIGN §11: containerlab's shape.
    Selvedge,
    /// Topology Zoo.
    GraphMl,
    /// `.graph`.
    Repetita,
}

impl Format {
    /// By extension: `yaml`, `yml`, `graphml`, `graph`.
    pub fn of_file(file: &str) -> Option<Self> {
        match Path::new(file).extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "yaml" | "yml" => Some(Self::Selvedge),
            "graphml" | "xml" => Some(Self::GraphMl),
            "graph" => Some(Self::Repetita),
            _ => None,
        }
    }
}

/// A valid topology, and what the reader took for granted where the file is silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub topology: Topology,
    pub assumptions: Vec<Assumption>,
}

/// Reads a file whose format its extension tells.
pub fn from_path(path: &Path) -> Result<Read, Problems> {
    let file = path.display().to_string();
    let text = text_of(path, MAX_FILE_BYTES)?;
    let Some(format) = Format::of_file(&file) else {
        let help = "a topology is .yaml (Selvedge), .graphml (Topology Zoo) or .graph (REPETITA)";
        return Err(Problems::of_file(&file, "unknown kind of file", Some(help.into())));
    };
    from_str(&file, &text, format)
}

/// `file` is for messages only.
pub fn from_str(file: &str, text: &str, format: Format) -> Result<Read, Problems> {
    if text.len() > MAX_FILE_BYTES {
        return Err(too_large(file, MAX_FILE_BYTES));
    }
    let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or("network");
    let read = match format {
        Format::Selvedge => selvedge::read(text),
        Format::GraphMl => graphml::read(text, stem),
        Format::Repetita => repetita::read(text, stem),
    };
    read.map_err(|problems| Problems::new(file, text, problems))
}

/// A text file of at most `limit` bytes, for this and other readers.
pub fn text_of(path: &Path, limit: usize) -> Result<String, Problems> {
    use std::io::Read as _;

    let file = path.display().to_string();
    let unreadable =
        |error: std::io::Error| Problems::of_file(&file, format!("cannot be read: {error}"), None);
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path).map_err(unreadable)?;
    // One byte more than allowed tells too large from just fitting, whatever the file claims.
    opened.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > limit {
        return Err(too_large(&file, limit));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Problems::of_file(&file, format!("is not UTF-8 text: byte {at} is not"), None)
    })
}

fn too_large(file: &str, limit: usize) -> Problems {
    Problems::of_file(file, format!("is larger than {limit} bytes, the limit"), None)
}
