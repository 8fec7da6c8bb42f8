//! The real core in a made-up world where everything goes wrong: seeded, and to the letter the
//! same again for the same seed.
//!
//! Messages are late, lost and repeated; switches' sessions break; controllers are killed
//! between any two effects, paused past their lease, cut off from the store or from switches;
//! several of them compete; links fail, hosts move, writes are carried out in part. Then all
//! of it heals. Checked at each write to a switch: no packet goes round for ever or arrives
//! where it must not. Checked at the end: the network converges, and what was acknowledged is
//! what holds.
//!
//! `SELVEDGE_SIM_SEEDS=FIRST..LAST` chooses the seeds; a failure names its own.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use world::World;

mod fault;
mod judge;
mod leader;
mod world;

/// What ordinary tests run.
const SEEDS: Range<u64> = 0..300;

/// Requests that were refused for a next hop that had to wait.
const ONCE_REFUSED: [u64; 4] = [57_116, 65_919, 79_258, 95_156];

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SELVEDGE_SIM_SEEDS") else { return SEEDS };
    let range = text
        .split_once("..")
        .and_then(|(first, last)| Some(first.parse().ok()?..last.parse().ok()?));
    range.unwrap_or_else(|| panic!("SELVEDGE_SIM_SEEDS={text:?} is not FIRST..LAST"))
}

#[test]
fn whatever_goes_wrong_every_acknowledged_intent_ends_in_the_switches() {
    let Range { start, end } = seeds();
    let next = AtomicU64::new(start);
    let failures: Vec<u64> = std::thread::scope(|scope| {
        let worker = || {
            let mut failed = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    return failed;
                }
                if catch_unwind(AssertUnwindSafe(|| World::new(seed).run())).is_err() {
                    eprintln!("seed {seed} failed; SELVEDGE_SIM_SEEDS={seed}..{}", seed + 1);
                    failed.push(seed);
                }
            }
        };
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("it catches panics")).collect()
    });
    assert!(failures.is_empty(), "{} of {} seeds: {failures:?}", failures.len(), end - start);
}

#[test]
fn a_seed_replays_to_the_same_trace() {
    for seed in 0..5 {
        let trace = || {
            let mut world = World::new(seed);
            world.trace = Some(Vec::new());
            world.run();
            world.trace.expect("it was set")
        };
        let (first, second) = (trace(), trace());
        assert!(first.len() > 100, "a trace of {} lines", first.len());
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn what_was_admitted_is_proven_also_while_next_hops_wait() {
    for seed in ONCE_REFUSED {
        World::new(seed).run();
    }
}

/// The faults do happen: a world without them would prove nothing.
#[test]
fn each_kind_of_fault_happens_in_the_ordinary_seeds() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..60 {
        let mut world = World::new(seed);
        world.run();
        for (kind, count) in world.happened {
            *seen.entry(kind).or_insert(0) += count;
        }
    }
    for kind in fault::KINDS.iter().chain(&[
        "acknowledged",
        "refused",
        "killed between effects",
        "fenced by the store",
        "fenced by a switch",
        "elected",
        "lost answer",
        "repeated",
        "written in part",
    ]) {
        assert!(seen.get(kind).copied().unwrap_or(0) > 0, "{kind} never happened: {seen:?}");
    }
}
