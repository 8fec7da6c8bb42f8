//! The modules of loaded hooks, kept beside the agent's lock, so that an agent that restarts
//! can load them again while the controller is away.
//!
//! One file a hook: its `LoadHook` message as it came. A file is whole or not there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use prost::Message;
use selvedge_southbound::selvedge::v1::LoadHook;
use sha2::{Digest, Sha256};

use super::state::{MAX_HOOKS, Spec};

const SUFFIX: &str = "hook";

#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// In `run_dir`, which exists.
    pub fn open(run_dir: &Path) -> io::Result<Self> {
        let dir = run_dir.join("hooks");
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    fn path(&self, hook: u32) -> PathBuf {
        self.dir.join(format!("{hook}.{SUFFIX}"))
    }

    pub fn put(&self, load: &LoadHook) -> io::Result<()> {
        let path = self.path(load.hook);
        let new = path.with_extension("new");
        fs::write(&new, load.encode_to_vec())?;
        fs::rename(&new, &path)
    }

    /// What is not there is as good as removed.
    pub fn remove(&self, hook: u32) -> io::Result<()> {
        match fs::remove_file(self.path(hook)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Every hook that can be read; others are left out, with a warning.
    pub fn all(&self) -> io::Result<Vec<Spec>> {
        let mut specs = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != SUFFIX) {
                continue;
            }
            let load = fs::read(&path)
                .and_then(|bytes| LoadHook::decode(&*bytes).map_err(io::Error::other));
            match load {
                Ok(load) if load.hook < MAX_HOOKS => specs.push(spec(load)),
                Ok(load) => tracing::warn!(?path, hook = load.hook, "not a hook's number"),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(?path, error, "cannot read a stored hook");
                }
            }
        }
        specs.sort_by_key(|spec| spec.load.hook);
        Ok(specs)
    }
}

/// A load and its module's checksum.
pub fn spec(load: LoadHook) -> Spec {
    let digest = Sha256::digest(&load.module);
    let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Spec { load, sha256 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_survive_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let load = |hook, module: &str| LoadHook {
            hook,
            name: "dedup".into(),
            module: module.as_bytes().to_vec(),
            config: b"c".to_vec(),
            fuel_per_packet: 7,
            memory_bytes: 8,
        };
        store.put(&load(3, "old")).unwrap();
        store.put(&load(3, "new")).unwrap();
        store.put(&load(1, "abc")).unwrap();
        store.put(&load(9, "gone")).unwrap();
        store.remove(9).unwrap();
        store.remove(9).unwrap();
        fs::write(dir.path().join("hooks/7.hook"), [0xff; 9]).unwrap();
        fs::write(dir.path().join("hooks/5.new"), b"half").unwrap();
        let found = Store::open(dir.path()).unwrap().all().unwrap();
        assert_eq!(found, [spec(load(1, "abc")), spec(load(3, "new"))]);
        // SHA-256 of "abc", FIPS 180-2 appendix B.1.
        assert!(found[0].sha256.starts_with("ba7816bf8f01cfea"), "{}", found[0].sha256);
    }
}
