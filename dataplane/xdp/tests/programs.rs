//! What the programs are to the verifier, held against `docs/reference/programs.tsv`: one
//! verified instruction is one that it walked, on any path, of a million that it walks at most.
//!
//! Another kernel's verifier walks another number; a tenth more than the table says, or a quarter
//! of the limit, fails. `SELVEDGE_UPDATE=1 cargo test -p selvedge-xdp --test programs` writes it.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use aya::programs::ProgramInfo;
use common::PinDir;

/// `BPF_COMPLEXITY_LIMIT_INSNS` of the kernel, of which we use a quarter.
const MOST_VERIFIED: u32 = 1_000_000 / 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    verified: u32,
    /// Instructions of the loaded program.
    instructions: u32,
}

type Sizes = BTreeMap<String, Size>;

fn loaded() -> Sizes {
    let pins = PinDir::new();
    let switch = pins.open();
    let listed = std::fs::read_dir(switch.pin_root().join("programs")).unwrap();
    let paths = listed.map(|entry| entry.unwrap().path());
    let named = paths.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path));
    named
        .filter(|(name, _)| !name.starts_with("jump-"))
        .map(|(name, path)| {
            let info = ProgramInfo::from_pin(path).unwrap();
            let verified = info.verified_instruction_count().expect("known since Linux 5.16");
            let instructions = info.size_translated().expect("root may see it") / 8;
            (name, Size { verified, instructions })
        })
        .collect()
}

const HEAD: &str = "program\tverified\tinstructions\n";

fn write(sizes: &Sizes) -> String {
    let line = |(name, size): (&String, &Size)| {
        format!("{name}\t{}\t{}\n", size.verified, size.instructions)
    };
    HEAD.to_owned() + &sizes.iter().map(line).collect::<String>()
}

fn read(text: &str) -> Sizes {
    let lines = text.strip_prefix(HEAD).expect("the head").lines();
    lines
        .map(|line| {
            let [name, verified, instructions] =
                line.split('\t').collect::<Vec<_>>().try_into().expect("three columns");
            let number = |text: &str| text.parse().expect("a number");
            let size = Size { verified: number(verified), instructions: number(instructions) };
            (name.to_owned(), size)
        })
        .collect()
}

#[test]
fn the_programs_have_not_grown() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/programs.tsv");
    let now = loaded();
    if std::env::var_os("SELVEDGE_UPDATE").is_some() {
        std::fs::write(&path, write(&now)).unwrap();
    }
    let published = read(&std::fs::read_to_string(&path).unwrap());
    println!("{}", write(&now));
    assert!(now.keys().eq(published.keys()), "{now:?}, but published {published:?}");
    for (name, size) in &now {
        assert!(size.verified <= MOST_VERIFIED, "{name}: {size:?}");
        let before = published[name];
        let tenth = |new: u32, old: u32| u64::from(new) * 10 <= u64::from(old) * 11;
        assert!(
            tenth(size.verified, before.verified) && tenth(size.instructions, before.instructions),
            "{name}: {size:?}, published {before:?}"
        );
    }
}
