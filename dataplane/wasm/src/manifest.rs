//! What a module says about itself, read from its bytes before anything is compiled: the
//! custom section [`SECTION`], JSON such as `{"abi":1,"imports":["counter"]}`. A module
//! without the section imports nothing.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::LoadError;

/// Name of the custom section.
pub const SECTION: &str = "selvedge_hook";
/// The ABI of this host.
pub const ABI: i32 = 1;
/// Largest manifest, bytes.
const MAX_MANIFEST: usize = 4 << 10;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Checked here so that the reason is clear before code runs; `hook_abi` says it again.
    #[serde(default)]
    pub(crate) abi: Option<i32>,
    #[serde(default)]
    pub(crate) imports: BTreeSet<String>,
    #[serde(default)]
    pub(crate) verdicts: BTreeSet<Verdict>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Forward,
    Drop,
    Reply,
    Steer,
}

impl Manifest {
    /// The manifest of `module`, which must be a core Wasm binary.
    pub(crate) fn read(module: &[u8]) -> Result<Self, LoadError> {
        let sections = match module {
            [0, b'a', b's', b'm', 1, 0, 0, 0, sections @ ..] => sections,
            [0, b'a', b's', b'm', _, _, layer, ..] if *layer != 0 => {
                return Err(LoadError::Component);
            }
            [0x7f, b'E', b'L', b'F', ..] => return Err(LoadError::Precompiled),
            _ if module.trim_ascii_start().starts_with(b"(") => return Err(LoadError::Text),
            _ => return Err(LoadError::NotWasm),
        };
        let Some(text) = find_section(sections).ok_or(LoadError::Truncated)? else {
            return Ok(Self::default());
        };
        if text.len() > MAX_MANIFEST {
            return Err(LoadError::ManifestSize { found: text.len(), most: MAX_MANIFEST });
        }
        let manifest: Self =
            serde_json::from_slice(text).map_err(|source| LoadError::Manifest { source })?;
        if let Some(found) = manifest.abi.filter(|abi| *abi != ABI) {
            return Err(LoadError::Abi { found });
        }
        if manifest.verdicts.contains(&Verdict::Steer) {
            return Err(LoadError::Steer);
        }
        Ok(manifest)
    }
}

/// Content of the custom section [`SECTION`]; `Some(None)` when there is none, `None` when
/// the sections do not add up (Wasm core specification §5.5.2).
fn find_section(mut rest: &[u8]) -> Option<Option<&[u8]>> {
    while let Some((id, tail)) = rest.split_first() {
        let (size, tail) = leb128(tail)?;
        let (content, tail) = tail.split_at_checked(size)?;
        rest = tail;
        if *id == 0 {
            let (name_len, content) = leb128(content)?;
            let (name, content) = content.split_at_checked(name_len)?;
            if name == SECTION.as_bytes() {
                return Some(Some(content));
            }
        }
    }
    Some(None)
}

/// An unsigned 32-bit LEB128 number and what follows it.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).ok()?;
            return Some((value as usize, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(manifest: &str) -> Vec<u8> {
        let manifest = manifest.replace('"', "\\\"");
        let text = format!("(module (memory 1) (@custom \"{SECTION}\" \"{manifest}\"))");
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn a_manifest_is_found_behind_other_sections() {
        let manifest =
            Manifest::read(&module(r#"{"abi":1,"imports":["counter","emit"]}"#)).unwrap();
        assert_eq!(manifest.abi, Some(1));
        assert_eq!(manifest.imports, BTreeSet::from(["counter".into(), "emit".into()]));
        assert_eq!(Manifest::read(b"\0asm\x01\0\0\0").unwrap(), Manifest::default());
    }

    #[test]
    fn what_is_no_module_is_refused_by_its_kind() {
        let cases: &[(&[u8], &str)] = &[
            (b"", "not a WebAssembly module"),
            (b"\0asm\x02\0\0\0", "not a WebAssembly module"),
            (b"\0asm\x0d\0\x01\0", "a component"),
            (b"\x7fELF\x02", "precompiled"),
            (b"  (module)", "text form"),
            (b"\0asm\x01\0\0\0\x00\x05", "truncated"),
            (b"\0asm\x01\0\0\0\x00\xff\xff\xff\xff\xff", "truncated"),
        ];
        for (bytes, want) in cases {
            let error = Manifest::read(bytes).unwrap_err().to_string();
            assert!(error.contains(want), "{bytes:x?}: {error}");
        }
    }

    #[test]
    fn a_bad_manifest_is_refused_with_its_reason() {
        let cases = [
            ("{", "manifest"),
            (r#"{"abi":2}"#, "ABI 2"),
            (r#"{"import":[]}"#, "manifest"),
            (r#"{"verdicts":["steer"]}"#, "steer"),
            (r#"{"verdicts":["explode"]}"#, "manifest"),
        ];
        for (manifest, want) in cases {
            let error = Manifest::read(&module(manifest)).unwrap_err().to_string();
            assert!(error.contains(want), "{manifest}: {error}");
        }
        let long = format!("{{\"imports\":[\"{}\"]}}", "x".repeat(MAX_MANIFEST));
        assert!(matches!(Manifest::read(&module(&long)), Err(LoadError::ManifestSize { .. })));
    }

    #[test]
    fn every_truncation_is_an_error_or_a_module_without_manifest() {
        let whole = module(r#"{"abi":1,"imports":["counter"]}"#);
        for len in 0..whole.len() {
            if let Ok(manifest) = Manifest::read(&whole[..len]) {
                assert_eq!(manifest, Manifest::default(), "{len} bytes");
            }
        }
    }
}
