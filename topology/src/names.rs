//! Names of nodes and ports: what a namespace, a certificate and an interface can all carry.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A node: an RFC 1123 label, 1 to 63 of `a-z`, `0-9` and `-`, with a letter or digit at both
/// ends. It is also a namespace, a certificate's name and a DNS label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

/// A port of a node: a Linux interface name, 1 to 15 of letters, digits, `.`, `_` and `-`, with
/// a letter or digit first. Names that the switch itself uses are not for ports.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortName(Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{0:?} is not a node name: 1 to 63 of a-z, 0-9 and '-', no '-' at either end")]
    Node(String),
    #[error("{0:?} is not a port name: 1 to 15 of letters, digits, '.', '_', '-', not first")]
    Port(String),
    #[error("port name {0:?} is taken by the switch itself (lo, mgmt0, hk<number>)")]
    Reserved(String),
}

impl NodeName {
    /// Longest name, in bytes (RFC 1035 §2.3.4).
    pub const MAX: usize = 63;

    /// The nearest valid name to any text: lower case, accents dropped where Latin letters have
    /// them, everything else a dash. `None` when nothing is left.
    pub fn from_label(label: &str) -> Option<Self> {
        let mut name = String::new();
        for c in label.chars().flat_map(char::to_lowercase) {
            match plain(c) {
                Some(text) => name.push_str(text),
                None if c.is_ascii_alphanumeric() => name.push(c),
                None if name.is_empty() || name.ends_with('-') => {}
                None => name.push('-'),
            }
        }
        name.truncate(Self::MAX); // ASCII by construction
        name.trim_end_matches('-').parse().ok()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PortName {
    /// Longest name, in bytes (IFNAMSIZ less the terminator).
    pub const MAX: usize = 15;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Latin letters with marks, as far as the Topology Zoo's labels have them.
fn plain(c: char) -> Option<&'static str> {
    Some(match c {
        'à' | 'á' | 'â' | 'ã' | 'å' | 'ă' | 'ą' | 'ā' => "a",
        'ä' | 'æ' => "ae",
        'ç' | 'ć' | 'č' => "c",
        'ď' | 'đ' => "d",
        'è' | 'é' | 'ê' | 'ë' | 'ě' | 'ę' | 'ė' => "e",
        'ğ' => "g",
        'ì' | 'í' | 'î' | 'ï' | 'ı' => "i",
        'ł' | 'ľ' => "l",
        'ñ' | 'ń' | 'ň' => "n",
        'ò' | 'ó' | 'ô' | 'õ' | 'ő' | 'ø' => "o",
        'ö' | 'œ' => "oe",
        'ř' => "r",
        'ś' | 'š' | 'ş' | 'ș' => "s",
        'ß' => "ss",
        'ť' | 'ţ' | 'ț' => "t",
        'ù' | 'ú' | 'û' | 'ů' | 'ű' => "u",
        'ü' => "ue",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        _ => return None,
    })
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let valid = (1..=Self::MAX).contains(&s.len())
            && s.bytes().all(inner)
            && !s.starts_with('-')
            && !s.ends_with('-');
        if valid { Ok(Self(s.into())) } else { Err(NameError::Node(s.to_owned())) }
    }
}

impl FromStr for PortName {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let hook = |n: &str| !n.is_empty() && n.trim_end_matches('x').parse::<u32>().is_ok();
        if !(1..=Self::MAX).contains(&s.len())
            || !s.bytes().all(inner)
            || !s.as_bytes()[0].is_ascii_alphanumeric()
        {
            Err(NameError::Port(s.to_owned()))
        } else if s == "lo" || s == "mgmt0" || s.strip_prefix("hk").is_some_and(hook) {
            Err(NameError::Reserved(s.to_owned()))
        } else {
            Ok(Self(s.into()))
        }
    }
}

macro_rules! as_text {
    ($name:ty) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

as_text!(NodeName);
as_text!(PortName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let long = "a".repeat(63);
        for good in ["s1", "robot-1", "0", "5g", long.as_str()] {
            assert!(good.parse::<NodeName>().is_ok(), "{good:?}");
        }
        let longer = "a".repeat(64);
        for bad in ["", "-a", "a-", "S1", "a_b", "a.b", "é", longer.as_str(), "a\0"] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
        for good in ["eth0", "p1", "enp3s0f1np1", "eth0.100", "p_1", "hkx", "hk"] {
            assert!(good.parse::<PortName>().is_ok(), "{good:?}");
        }
        for bad in ["", ".", "-p", "a/b", "a b", "sixteen-letters-", "lo", "mgmt0", "hk0", "hk12x"]
        {
            assert!(bad.parse::<PortName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn labels() {
        let cases = [
            ("New York", Some("new-york")),
            ("Washington, DC", Some("washington-dc")),
            ("Zürich", Some("zuerich")),
            ("São  Paulo ", Some("sao-paulo")),
            ("北京", None),
            ("", None),
            ("--x--", Some("x")),
        ];
        for (label, want) in cases {
            let got = NodeName::from_label(label);
            assert_eq!(got.as_ref().map(NodeName::as_str), want, "label {label:?}");
        }
        assert_eq!(NodeName::from_label(&"é ".repeat(100)).unwrap().as_str().len(), 63);
    }
}
