//! Names of objects and identities of slices.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use selvedge_topology::yaml::Wrong;

/// A slice, hook or application: an RFC 1123 label, 1 to 63 of `a-z`, `0-9` and `-`, with a
/// letter or digit at both ends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name: 1 to 63 of a-z, 0-9 and '-', no '-' at either end")]
pub struct ObjectNameError(String);

impl ObjectName {
    /// The slice of endpoints that no slice names.
    pub const DEFAULT_SLICE: &str = "default";

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ObjectName {
    type Err = ObjectNameError;

    fn from_str(s: &str) -> Result<Self, ObjectNameError> {
        match s.parse::<selvedge_topology::NodeName>() {
            Ok(_) => Ok(Self(s.into())), // the same grammar
            Err(_) => Err(ObjectNameError(s.to_owned())),
        }
    }
}

impl From<ObjectNameError> for Wrong {
    fn from(error: ObjectNameError) -> Self {
        let near = selvedge_topology::NodeName::from_label(&error.0);
        let help = near.map(|near| format!("did you mean {near}?"));
        Self { message: error.to_string(), help }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::borrow::Borrow<str> for ObjectName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A network slice identity: Slice/Service Type plus optional differentiator.
///
/// Text form is `SST[-SD]`, SST in decimal, SD as six hex digits (3GPP TS 29.571, type
/// `Snssai`). The wire value `0xFFFFFF` means "no SD" (TS 23.003 §28.4.2), so it never
/// appears inside this type: absence is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Snssai {
    sst: u8,
    sd: Option<u32>, // invariant: < 0xFF_FFFF
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnssaiError {
    #[error("{0:?} is not a slice/service type: a number from 0 to 255")]
    Sst(String),
    #[error("{0:?} is not a slice differentiator: six hexadecimal digits")]
    Sd(String),
}

impl Snssai {
    const NO_SD: u32 = 0xFF_FFFF;

    pub fn new(sst: u8, sd: Option<&str>) -> Result<Self, SnssaiError> {
        let sd = match sd {
            None => None,
            Some(hex) if hex.len() == 6 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                let raw = u32::from_str_radix(hex, 16).expect("six hex digits fit in 24 bits");
                (raw != Self::NO_SD).then_some(raw)
            }
            Some(hex) => return Err(SnssaiError::Sd(hex.to_owned())),
        };
        Ok(Self { sst, sd })
    }

    pub fn sst(self) -> u8 {
        self.sst
    }

    pub fn sd(self) -> Option<u32> {
        self.sd
    }
}

impl FromStr for Snssai {
    type Err = SnssaiError;

    fn from_str(s: &str) -> Result<Self, SnssaiError> {
        let (sst, sd) = match s.split_once('-') {
            Some((sst, sd)) => (sst, Some(sd)),
            None => (s, None),
        };
        let canonical = sst == "0" || !sst.starts_with(['0', '+']);
        match sst.parse() {
            Ok(number) if canonical => Self::new(number, sd),
            _ => Err(SnssaiError::Sst(sst.to_owned())),
        }
    }
}

impl fmt::Display for Snssai {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sd {
            None => write!(f, "{}", self.sst),
            Some(sd) => write!(f, "{}-{sd:06X}", self.sst),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snssai_text_form() {
        use SnssaiError::{Sd, Sst};
        // (input, expected); expected Ok is the canonical rendering.
        let cases: &[(&str, Result<&str, SnssaiError>)] = &[
            ("1", Ok("1")),
            ("255-19CDE0", Ok("255-19CDE0")),
            ("1-00000a", Ok("1-00000A")),
            ("1-ffffff", Ok("1")), // reserved "no SD" collapses to absence
            ("", Err(Sst("".into()))),
            ("256", Err(Sst("256".into()))),
            ("01", Err(Sst("01".into()))),
            ("+1", Err(Sst("+1".into()))),
            ("1-", Err(Sd("".into()))),
            ("1-12345", Err(Sd("12345".into()))),
            ("1-+12345", Err(Sd("+12345".into()))),
        ];
        for (input, want) in cases {
            let got = input.parse::<Snssai>().map(|s| s.to_string());
            assert_eq!(got.as_deref(), want.as_ref().map(|s| *s), "input {input:?}");
        }
    }
}
