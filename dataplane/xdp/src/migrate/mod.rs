//! Taking over from the layout before, while packets flow. Layouts older than that are refused.
//!
//! ```text
//! v5/{maps,links,programs}
//!   | 1. `next/maps`: maps that are the same are pinned there once more, the others made; the
//!   |    programs loaded; converted maps filled
//!   | 2. `next` becomes `v6`                                         <- from here on, forward only
//!   | 3. each link gets the new programs, then its pin moves to `v6/links`
//!   | 4. no packet is in the old programs any more: what they counted becomes the base of the
//!   |    new counters
//! v6/{maps,links,programs}, and `v5` goes, as `gone`
//! ```
//!
//! Up to 2 a failure takes `next` away, and the switch forwards as before: a crash leaves it to
//! the next agent. After that the next agent, if need be, goes on with 3. Nothing but the
//! programs writes old maps meanwhile, because their agent has ended; and nothing reads new
//! counters, because ours serves nobody yet.
//!
//! What a map becomes is said by [`Becomes`], in one table for the layout before ([`BEFORE`]). A
//! map that is the same is not copied: it is the same kernel map, so that what both old and new
//! programs write there (meters, queues, hooks' states, counters) is whole at any moment.
//!
//! Frames that old programs have given to a device are settled by what listens then, which is
//! new: exact as long as `TRACE` and `PORT_COUNTERS` are the same, or no device refuses any in these
//! milliseconds.
//!
//! Who changes a layout: raises `LAYOUT_VERSION`; keeps the table of the one before in `vN.rs`
//! in place of the last one, with the old types of what has changed; and writes one function
//! for each map that is not the same. A test says which those are.

mod v5;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use selvedge_ebpf_common::map::{Kind, Spec};

use crate::load::{self, Clock, Programs};
use crate::map::{Map, mismatch};
use crate::maps::Maps;
use crate::pins::Pins;
use crate::{Error, sys};

/// The layout that pins are taken over from.
pub(crate) use v5::LAYOUT as BEFORE;

/// A layout that was.
pub(crate) struct Layout {
    pub(crate) version: u32,
    maps: &'static [Old],
}

/// A map of it. The numbers are written out: types change.
struct Old {
    spec: Spec,
    becomes: Becomes,
}

/// What is kept of a map. The functions get all old maps, and all new ones.
#[derive(Clone, Copy)]
enum Becomes {
    /// All, in the same kernel map. Kind, sizes, and what its bytes mean, have not changed.
    Same,
    /// What the function makes of it, before a packet meets the new programs. For what agents
    /// write: what programs write there from then on is not kept.
    Converted(Convert),
    /// What the function makes of it, when no old program runs any more. For counters, whose
    /// `*_BASE` it writes whole: it may be called again.
    Counted(Convert),
}

type Convert = fn(&OldMaps, &Arc<Maps>) -> Result<(), Error>;

/// The maps of the layout before, by name.
struct OldMaps(BTreeMap<&'static str, Map>);

impl OldMaps {
    fn get(&self, name: &str) -> &Map {
        self.0.get(name).expect("a map of that layout")
    }
}

const fn old(
    name: &'static str,
    kind: Kind,
    key_bytes: usize,
    value_bytes: usize,
    entries: u32,
    becomes: Becomes,
) -> Old {
    Old { spec: Spec { name, kind, key_bytes, value_bytes, entries }, becomes }
}

/// Called before each step, by its name: tests end an agent there.
pub(crate) type Step<'a> = &'a mut dyn FnMut(&str);

/// Steps 1 and 2. `next` is where new pins are made, and where they are at the end.
pub(crate) fn prepare(
    before: &Pins,
    next: &mut Pins,
    clock: Clock,
    step: Step<'_>,
) -> Result<Programs, Error> {
    let prepared = fill(before, next, clock, step).and_then(|programs| {
        step("commit");
        next.commit()?;
        Ok(programs)
    });
    if prepared.is_err()
        && let Err(error) = next.remove()
    {
        tracing::warn!(%error, "the next start will remove it");
    }
    prepared
}

fn fill(before: &Pins, next: &Pins, clock: Clock, step: Step<'_>) -> Result<Programs, Error> {
    let old = open(before)?;
    next.make()?;
    for Old { spec, becomes } in BEFORE.maps {
        if matches!(becomes, Becomes::Same) {
            step(spec.name);
            let path = next.map(spec.name);
            sys::pin(old.get(spec.name).as_fd(), &path)
                .map_err(Error::path("pin a map at", path))?;
        }
    }
    step("load");
    let programs = load::load(next, clock)?;
    let new = Arc::new(Maps::open(next)?);
    for Old { spec, becomes } in BEFORE.maps {
        if let Becomes::Converted(convert) = becomes {
            step(spec.name);
            convert(&old, &new)?;
        }
    }
    Ok(programs)
}

/// Step 4, when no packet is in old programs.
pub(crate) fn finish(before: &Pins, new: &Arc<Maps>, step: Step<'_>) -> Result<(), Error> {
    let old = open(before)?;
    for Old { spec, becomes } in BEFORE.maps {
        if let Becomes::Counted(convert) = becomes {
            step(spec.name);
            convert(&old, new)?;
        }
    }
    step("retire");
    before.retire()
}

/// # Errors
/// [`Error::PinnedMap`]: a map is not what its layout says.
fn open(before: &Pins) -> Result<OldMaps, Error> {
    let mut maps = BTreeMap::new();
    for Old { spec, .. } in BEFORE.maps {
        let path = before.map(spec.name);
        let fd = sys::open_pin(&path).map_err(Error::path("open the pin", &path))?;
        let different = mismatch(fd.as_fd(), spec).map_err(Error::path("look at", &path))?;
        if let Some((found, wanted)) = different {
            let dir = before.root().to_owned();
            return Err(Error::PinnedMap { path, dir, found, wanted });
        }
        maps.insert(spec.name, Map::new(fd, spec));
    }
    Ok(OldMaps(maps))
}

/// Removes a directory of pins that nothing needs any more.
pub(crate) fn remove(dir: &std::path::Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::path("remove the pins under", dir)),
    }
}

#[cfg(test)]
mod tests {
    use selvedge_ebpf_common::LAYOUT_VERSION;
    use selvedge_ebpf_common::map::PINNED;

    use super::*;

    #[test]
    fn the_layout_before_is_the_one_before() {
        assert_eq!(BEFORE.version + 1, LAYOUT_VERSION);
    }

    /// A map that has changed is no longer the same. One of the same shape may be converted for what
    /// its bytes mean.
    #[test]
    fn what_is_the_same_has_not_changed() {
        for Old { spec, becomes } in BEFORE.maps {
            let now = PINNED.iter().find(|now| now.name == spec.name);
            let is_kept = matches!(becomes, Becomes::Same);
            assert!(!is_kept || now == Some(spec), "{}", spec.name);
        }
    }
}
