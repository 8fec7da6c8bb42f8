//! The inputs that fuzzing kept, each through its parser.

use std::fs;
use std::path::{Path, PathBuf};

use selvedge_inputs::INPUTS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// Names in a folder, without extensions, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<_> = entries.map(|entry| stem(entry.unwrap().path())).collect();
    names.sort();
    names
}

#[test]
fn every_input_has_a_target_and_a_corpus() {
    let inputs: Vec<_> = INPUTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz().join("targets")), inputs);
    assert_eq!(names(&fuzz().join("corpus")), inputs);
}

#[test]
fn what_fuzzing_kept_goes_through_every_parser() {
    for (name, input) in INPUTS {
        let files = fs::read_dir(fuzz().join("corpus").join(name)).expect("a corpus");
        let mut n_files = 0;
        for file in files {
            let path = file.unwrap().path();
            // Said before the parser may end the process; shown when the test fails.
            println!("{name}: {}", path.display());
            input(&fs::read(&path).unwrap());
            n_files += 1;
        }
        assert!(n_files > 0, "{name}: nothing to replay");
    }
}
