//! Reading what operators wrote: YAML, and beside it the modules that hooks name.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use selvedge_controller::MAX_MODULE_BYTES;
use selvedge_controller::api::wire_intent::{Document, ObjectRef};
use selvedge_slices::Object;
use selvedge_slices::limits::MAX_FILE_BYTES;

/// The header of every core module and component (WebAssembly 3.0 §5.5.16).
const WASM_MAGIC: &[u8] = b"\0asm";

/// Files of objects, checked.
pub(super) struct Files {
    pub(super) documents: Vec<Document>,
    pub(super) objects: Vec<ObjectRef>,
    /// By the hook's name, base64.
    pub(super) modules: BTreeMap<String, String>,
}

/// Every file has to be right; what is wrong with any of them goes to stderr.
pub(super) fn read(files: &[impl AsRef<Path>]) -> anyhow::Result<Files> {
    let mut read = Files { documents: Vec::new(), objects: Vec::new(), modules: BTreeMap::new() };
    let mut wrong = 0;
    for path in files {
        if let Err(report) = add(&mut read, path.as_ref()) {
            eprintln!("{report:?}");
            wrong += 1;
        }
    }
    match wrong {
        0 => Ok(read),
        1 => anyhow::bail!("nothing was sent: a file is wrong"),
        n => anyhow::bail!("nothing was sent: {n} files are wrong"),
    }
}

fn add(read: &mut Files, path: &Path) -> miette::Result<()> {
    let text = selvedge_topology::read::text_of(path, MAX_FILE_BYTES)?;
    let name = path.display().to_string();
    for object in selvedge_slices::parse(&name, &text)? {
        if let Object::Hook(hook) = &object {
            let bytes = module(path, &hook.module)
                .map_err(|error| miette::miette!("{name}: hook {}: {error:#}", hook.name))?;
            read.modules.insert(hook.name.as_str().to_owned(), STANDARD.encode(bytes));
        }
        let (kind, name) = (object.kind().to_string(), object.name().as_str().to_owned());
        read.objects.push(ObjectRef { kind, name });
    }
    read.documents.push(Document { name, text });
    Ok(())
}

/// The module that a file names, relative to the file.
pub(super) fn module(file: &Path, module: &str) -> anyhow::Result<Vec<u8>> {
    let path = file.parent().unwrap_or(Path::new("")).join(module);
    let shown = path.display();
    let size = std::fs::metadata(&path).with_context(|| format!("module {shown}"))?.len();
    let limit = MAX_MODULE_BYTES as u64;
    anyhow::ensure!(size <= limit, "module {shown} has {size} bytes, at most {limit}");
    let bytes = std::fs::read(&path).with_context(|| format!("module {shown}"))?;
    anyhow::ensure!(bytes.starts_with(WASM_MAGIC), "{shown} is not a WebAssembly module");
    Ok(bytes)
}
