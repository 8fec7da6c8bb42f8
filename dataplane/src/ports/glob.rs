//! Shell patterns over interface names (POSIX `fnmatch`, without classes by name).
//!
//! Recursion and backtracking are bounded by the pattern's length: one `*` remembers one
//! place to come back to, so a match costs at most `pattern * name` steps.

/// Longest pattern.
pub const PATTERN_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    #[error("it has {0} characters")]
    Length(usize),
    #[error("a '[' is not closed")]
    OpenClass,
}

/// # Errors
/// [`GlobError`] when `pattern` is empty, too long or has an open class.
pub fn check(pattern: &str) -> Result<(), GlobError> {
    let bytes = pattern.as_bytes();
    if bytes.is_empty() || bytes.len() > PATTERN_MAX {
        return Err(GlobError::Length(bytes.len()));
    }
    let mut at = 0;
    while at < bytes.len() {
        at += match bytes[at] {
            b'[' => class(&bytes[at..], 0).ok_or(GlobError::OpenClass)?.0,
            _ => 1,
        };
    }
    Ok(())
}

/// Whether `name` as a whole matches `pattern`. A pattern that [`check`] refuses matches
/// nothing beyond its own literal part.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None; // pattern after the star, name it stands at
    loop {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
                continue;
            }
            None if n == name.len() => return true,
            None => None,
            Some(_) if n == name.len() => return false,
            Some(b'?') => Some(1),
            Some(b'[') => match class(&pattern[p..], name[n]) {
                Some((len, true)) => Some(len),
                _ => None,
            },
            Some(literal) => (*literal == name[n]).then_some(1),
        };
        match (step, star) {
            (Some(len), _) => {
                p += len;
                n += 1;
            }
            (None, Some((after, from))) if from < name.len() => {
                star = Some((after, from + 1));
                p = after;
                n = from + 1;
            }
            (None, _) => return false,
        }
    }
}

/// Length of the class that `pattern` begins with, and whether `byte` is in it; `None` if it
/// is not closed. A `]` in first place is a member.
fn class(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let first = if negated { 2 } else { 1 };
    let mut at = first;
    let mut found = false;
    loop {
        match *pattern.get(at)? {
            b']' if at > first => return Some((at + 1, found != negated)),
            low => match (pattern.get(at + 1), pattern.get(at + 2)) {
                (Some(b'-'), Some(high)) if *high != b']' => {
                    found |= (low..=*high).contains(&byte);
                    at += 3;
                }
                _ => {
                    found |= low == byte;
                    at += 1;
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        // (pattern, name, matches)
        let cases = [
            ("p*", "p1", true),
            ("p*", "p", true),
            ("p*", "mgmt0", false),
            ("p*", "xp1", false),
            ("p?", "p1", true),
            ("p?", "p10", false),
            ("p[1-3]", "p2", true),
            ("p[1-3]", "p4", false),
            ("p[!1-3]", "p4", true),
            ("p[]x]", "p]", true),
            ("p[x-]", "p-", true),
            ("*", "", true),
            ("*a*b*c", "xaxbxc", true),
            ("*a*b*c", "xaxbx", false),
            ("*aab", "aaaab", true),
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("p[", "p[", false),
        ];
        for (pattern, name, want) in cases {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn bad_patterns_are_named() {
        let cases = [
            ("", Err(GlobError::Length(0))),
            ("p[1", Err(GlobError::OpenClass)),
            ("p[]", Err(GlobError::OpenClass)),
            ("p[1]*?", Ok(())),
        ];
        for (pattern, want) in cases {
            assert_eq!(check(pattern), want, "{pattern}");
        }
        assert_eq!(check(&"p".repeat(65)), Err(GlobError::Length(65)));
    }

    #[test]
    fn many_stars_cost_little() {
        let pattern = "*a".repeat(32);
        assert!(!matches(&pattern, &"b".repeat(4096)));
    }
}
