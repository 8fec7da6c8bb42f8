use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::thread;

use proptest::prelude::*;
use selvedge_ebpf_common::exact::COMPARED;

use super::*;

const ALL: [Keys; 4] = [Keys::V4, Keys::V6, Keys::Number, Keys::NumberOfAddress];

fn table(keys: Keys) -> Exact {
    let words = ROWS as usize * keys.words();
    Exact::new("test", keys, Mapped::anonymous(words), Mapped::anonymous(PLACES))
}

fn entry(keys: Keys, scope: u32, n: u64, data: u64) -> Entry {
    let address = match keys {
        Keys::V4 => [0, n << 32 | MAPPED],
        Keys::V6 | Keys::NumberOfAddress => [n, !n],
        Keys::Number => [0; 2],
    };
    Entry { scope, address, data }
}

fn sorted(exact: &Exact) -> Vec<(u32, [u64; 2], u64)> {
    let mut all: Vec<_> = exact.entries().map(|e| (e.scope, e.address, e.data)).collect();
    all.sort_unstable();
    all
}

#[derive(Clone, Debug)]
enum Change {
    Put(u32, u64, u64),
    Remove(u32, u64),
    Reopen,
}

fn change() -> impl Strategy<Value = Change> {
    let key = (1u32..4, 0u64..50);
    prop_oneof![
        4 => (key.clone(), any::<u64>()).prop_map(|((s, n), data)| Change::Put(s, n, data)),
        2 => key.prop_map(|(s, n)| Change::Remove(s, n)),
        1 => Just(Change::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn it_is_a_map(
        keys in prop::sample::select(&ALL),
        changes in prop::collection::vec(change(), 0..200),
    ) {
        let mut exact = table(keys);
        let mut model: BTreeMap<(u32, [u64; 2]), Entry> = BTreeMap::new();
        let has_address = matches!(keys, Keys::V4 | Keys::V6);
        let key = |entry: &Entry| (entry.scope, if has_address { entry.address } else { [0; 2] });
        for change in changes {
            match change {
                Change::Put(scope, n, data) => {
                    let new = entry(keys, scope, n, data);
                    let old = model.insert(key(&new), new);
                    prop_assert_eq!(exact.put(new).unwrap(), old);
                }
                Change::Remove(scope, n) => {
                    let Entry { address, .. } = entry(keys, scope, n, 0);
                    let old = model.remove(&key(&entry(keys, scope, n, 0)));
                    prop_assert_eq!(exact.get(scope, address), old);
                    prop_assert_eq!(exact.remove(scope, address), old);
                }
                Change::Reopen => {
                    let Exact { rows, places, .. } = exact;
                    exact = Exact::new("test", keys, rows, places);
                }
            }
            prop_assert_eq!(exact.len as usize, model.len());
        }
        for ((scope, _), want) in &model {
            prop_assert_eq!(exact.get(*scope, want.address), Some(*want));
        }
        let mut want: Vec<_> = model.values().map(|e| (e.scope, e.address, e.data)).collect();
        want.sort_unstable();
        prop_assert_eq!(sorted(&exact), want);
    }
}

#[test]
fn as_many_as_promised_fit_and_not_one_more() {
    for keys in ALL {
        let mut exact = table(keys);
        let nth = |n: u32, data| entry(keys, 1 + n, (n % 1000).into(), data);
        let nth = |n: u32, data| match keys {
            Keys::V4 | Keys::V6 => entry(keys, n % 7, n.into(), data),
            Keys::Number | Keys::NumberOfAddress => nth(n, data),
        };
        for n in 0..MAX_KEYS {
            assert_eq!(exact.put(nth(n, 1)).unwrap(), None, "{keys:?}");
        }
        let full = exact.put(nth(MAX_KEYS, 1)).unwrap_err();
        assert!(matches!(full, Error::Full { table: "test", capacity: MAX_KEYS }), "{full}");
        assert!(exact.put(nth(0, 2)).unwrap().is_some(), "one that is there can be changed");
        let Entry { scope, address, .. } = nth(0, 2);
        exact.remove(scope, address).unwrap();
        assert_eq!(exact.put(nth(MAX_KEYS, 1)).unwrap(), None);
        assert_eq!(exact.entries().count(), MAX_KEYS as usize);
    }
}

/// Dead in the middle of moving a group: its keys are in two rows each, maybe of one line.
#[test]
fn rows_that_nobody_is_led_to_are_freed_when_it_is_opened() {
    for keys in ALL {
        let mut exact = table(keys);
        for n in 0..100 {
            exact.put(entry(keys, 1 + n as u32, n, n)).unwrap();
        }
        let whole = sorted(&exact);
        let twice = exact.find(6, entry(keys, 6, 5, 0).address).unwrap();
        let beside = (twice / keys.rows_of_line() * keys.rows_of_line()..)
            .find(|at| *at > twice && exact.entry(*at).is_none());
        exact.fill(beside.unwrap(), &entry(keys, 6, 5, 5));
        let stray = (0..ROWS).rev().find(|at| exact.entry(*at).is_none()).unwrap();
        exact.fill(stray, &entry(keys, 6, 5, 5));
        let Exact { rows, places, .. } = exact;
        let again = Exact::new("test", keys, rows, places);
        assert_eq!(sorted(&again), whole);
        assert_eq!(again.len, 100);
    }
}

/// What stays is found all the time, with data of its own, while others of its group come and go.
/// The reader is as `lookup.rs` has it, for narrow rows.
#[test]
fn who_reads_meanwhile_finds_what_is_there() {
    const STAY: u64 = 20;
    let of = |n: u64, round: u64| entry(Keys::V4, 1, n, n << 32 | round);
    let mut exact = table(Keys::V4);
    for n in 0..STAY {
        exact.put(of(n, 0)).unwrap();
    }
    let (rows, places) = (exact.rows.alias(), exact.places.alias());
    let look = |n: u64| {
        let wanted = narrow_key(1, n as u32) | LIVE;
        let hash = narrow_hash(wanted & !LIVE);
        let place = &places[(group(hash) / IN_WORD) as usize];
        let mut now = place.load(Ordering::Acquire);
        for _ in 0..4 {
            let row = row(hash, displacement(now, group(hash)));
            let mut changed = false;
            for at in (0..NARROW).map(|n| row / NARROW * NARROW + (row + n) % NARROW) {
                let [key, data] = [0, 1].map(|word| &rows[2 * at as usize + word]);
                let before = key.load(Ordering::Acquire);
                if (before ^ wanted) & COMPARED != 0 {
                    continue;
                }
                let data = data.load(Ordering::Acquire);
                if key.load(Ordering::Relaxed) == before {
                    return Some(data);
                }
                changed = true;
            }
            let was = std::mem::replace(&mut now, place.load(Ordering::Acquire));
            if !changed && now == was {
                return None;
            }
        }
        None
    };
    let done = AtomicBool::new(false);
    let looked = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looked = 0u64;
            while !done.load(Ordering::Relaxed) {
                let n = looked * 7 % STAY;
                let data = look(n).expect("it is there");
                assert_eq!(data >> 32, n, "of another");
                looked += 1;
            }
            looked
        });
        for n in STAY..100_000 {
            exact.put(of(n, 0)).unwrap();
        }
        for round in 0..200_000 {
            let moved = of(round % STAY, round);
            let at = exact.find(moved.scope, moved.address);
            let hash = exact.keys.hash(moved.scope, moved.address);
            exact.place(group(hash), at, moved).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(looked > 1000, "{looked}");
}
