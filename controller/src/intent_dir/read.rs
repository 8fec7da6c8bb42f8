//! What a directory of files asks for, or everything that is wrong with them.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use selvedge_core::ObjectId;
use selvedge_slices::limits::MAX_FILE_BYTES;
use selvedge_slices::{Object, ObjectName};

use crate::api::lines;
use crate::modules::{MAX_MODULE_BYTES, sha256};

/// Files of objects in one directory and below.
const MAX_FILES: usize = 4_096;
/// Directories within directories. A link that leads back up ends here.
const MAX_DEPTH: usize = 16;
/// What all files of objects have together, in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// The header of every core module and component (WebAssembly 3.0 §5.5.16).
const WASM_MAGIC: &[u8] = b"\0asm";

/// What tells a file from another and from what it was: device, inode, size, and the times of
/// its last change in nanoseconds. A checkout, an editor's rename and the swap of a link to a
/// directory all show in it.
type Stamp = (u64, u64, u64, [i64; 4]);

/// Files as they were at some moment. Two that are equal have the same content.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Picture(BTreeMap<PathBuf, Option<Stamp>>);

/// What is in the files.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) objects: Vec<Object>,
    /// Where each object is declared: `slices/a.yaml:12`.
    pub(super) places: BTreeMap<ObjectId, String>,
    /// Of hooks, by name: digest and bytes.
    pub(super) modules: BTreeMap<ObjectName, (String, Vec<u8>)>,
}

/// Files of objects in `dir` and below: `*.yaml` and `*.yml`, but for what begins with a dot,
/// so neither `.git` nor the directories behind a Kubernetes volume are looked into twice.
fn list(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut open = vec![(dir.to_owned(), 0)];
    while let Some((dir, depth)) = open.pop() {
        let failed = |error| format!("cannot list {}: {error}", dir.display());
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(text) = name.to_str() else { continue };
            let path = dir.join(text);
            // Through links. One that leads nowhere is no file: if it is named by a hook, its
            // absence is said there.
            let Ok(about) = fs::metadata(&path) else { continue };
            if text.starts_with('.') {
                continue;
            }
            if about.is_dir() && depth < MAX_DEPTH {
                open.push((path, depth + 1));
            } else if about.is_file() && (text.ends_with(".yaml") || text.ends_with(".yml")) {
                found.push(path);
            }
            if found.len() > MAX_FILES {
                return Err(format!("more than {MAX_FILES} files, the limit"));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn stamp(about: &Metadata) -> Stamp {
    let times = [about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec()];
    (about.dev(), about.ino(), about.size(), times)
}

impl Picture {
    /// Of the directory as it is now, and of the modules that its hooks were last seen to name.
    pub(super) fn take(dir: &Path, modules: &[PathBuf]) -> Result<Self, String> {
        let files = list(dir)?;
        let stamps = files.iter().chain(modules).map(|path| {
            let stamp = fs::metadata(path).ok().map(|about| stamp(&about));
            (path.clone(), stamp)
        });
        Ok(Self(stamps.collect()))
    }
}

/// Reads all of it, and beside what it asks for the paths of the modules that it names.
///
/// # Errors
/// One line for each problem: `file:line:column: message (help)`.
pub(super) fn read(dir: &Path) -> (Result<Files, Vec<String>>, Vec<PathBuf>) {
    let mut reading =
        Reading { dir, files: Files::default(), problems: Vec::new(), modules: Vec::new() };
    match list(dir) {
        Err(problem) => reading.problems.push(problem),
        // Not what anybody means, but what a mount that is late looks like.
        Ok(files) if files.is_empty() => reading.problems.push(format!(
            "{} has no .yaml file; a file of comments alone asks for nothing",
            dir.display()
        )),
        Ok(files) => reading.all(&files),
    }
    let Reading { files, problems, modules, .. } = reading;
    (if problems.is_empty() { Ok(files) } else { Err(problems) }, modules)
}

struct Reading<'a> {
    dir: &'a Path,
    files: Files,
    problems: Vec<String>,
    modules: Vec<PathBuf>,
}

impl Reading<'_> {
    fn all(&mut self, files: &[PathBuf]) {
        let mut bytes = 0;
        for path in files {
            let name = path.strip_prefix(self.dir).unwrap_or(path).display().to_string();
            let text = match selvedge_topology::read::text_of(path, MAX_FILE_BYTES) {
                Ok(text) => text,
                Err(problems) => {
                    self.problems.extend(lines(&problems));
                    continue;
                }
            };
            bytes += text.len() as u64;
            if bytes > MAX_BYTES {
                self.problems.push(format!("{name}: all files have more than {MAX_BYTES} bytes"));
                return;
            }
            self.file(path, &name, &text);
        }
    }

    fn file(&mut self, path: &Path, name: &str, text: &str) {
        let is_comment = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if text.lines().all(is_comment) {
            return;
        }
        let objects = match selvedge_slices::parse_lines(name, text) {
            Ok(objects) => objects,
            Err(problems) => return self.problems.extend(lines(&problems)),
        };
        for (line, object) in objects {
            let id = ObjectId { kind: object.kind(), name: object.name().clone() };
            let place = format!("{name}:{line}");
            if let Some(first) = self.files.places.get(&id) {
                let ObjectId { kind, name } = &id;
                self.problems.push(format!(
                    "{place}: {kind} {name:?} is at {first} too; a name belongs to one file"
                ));
                continue;
            }
            if let Object::Hook(hook) = &object {
                match self.module(path, &hook.module) {
                    Ok(module) => drop(self.files.modules.insert(hook.name.clone(), module)),
                    Err(why) => self.problems.push(format!("{place}: hook {}: {why}", hook.name)),
                }
            }
            self.files.places.insert(id, place);
            self.files.objects.push(object);
        }
    }

    /// The module that a file names, relative to the file.
    fn module(&mut self, file: &Path, module: &str) -> Result<(String, Vec<u8>), String> {
        let path = file.parent().unwrap_or(self.dir).join(module);
        let failed = |error| format!("module {}: {error}", path.display());
        self.modules.push(path.clone());
        let size = fs::metadata(&path).map_err(failed)?.len();
        if size > MAX_MODULE_BYTES as u64 {
            return Err(format!(
                "module {} has {size} bytes, at most {MAX_MODULE_BYTES}",
                path.display()
            ));
        }
        let bytes = fs::read(&path).map_err(failed)?;
        if !bytes.starts_with(WASM_MAGIC) {
            return Err(format!("{} is not a WebAssembly module", path.display()));
        }
        Ok((sha256(&bytes), bytes))
    }
}
