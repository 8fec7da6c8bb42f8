//! Which path of a policy a flow takes.
//!
//! A flow is in one of [`BUCKETS`] buckets, by the low bits of its label (`wire::flow_label`:
//! addresses, protocol and ports of the user's packet). Each bucket belongs to one path, so a
//! flow stays on its path for as long as the policy stays as it is.
//!
//! The buckets follow from the paths and their weights alone, whatever their order, and whatever
//! the policy was before: two switches, or one that was written anew, spread alike. Every path has
//! as many buckets as its weight gives it (Sainte-Laguë, one at least); which ones, a hash of path
//! and bucket says, the highest first, as in rendezvous hashing (Thaler and Ravishankar, 1998).
//! So a path that comes takes buckets from the others and leaves them the rest: an eighth
//! more of them move than have to.

use crate::Path;

/// What the flows of a policy are divided into.
pub const BUCKETS: usize = 128;
/// Paths of one policy.
pub const MAX_PATHS: usize = 8;
/// A path of this weight may have another beside it that gets one bucket.
pub const MAX_WEIGHT: u8 = BUCKETS as u8;

/// The place in `paths` of the one that a flow takes, by the label of its outer header.
pub fn choose(paths: &[Path], label: u32) -> usize {
    match paths {
        [_] => 0,
        paths => buckets(paths)[label as usize % BUCKETS].into(),
    }
}

/// For each bucket the place of its path in `paths`, which are `1..=`[`MAX_PATHS`], of weights
/// `1..=`[`MAX_WEIGHT`].
///
/// Cost: sorts `BUCKETS` numbers for each path.
pub fn buckets(paths: &[Path]) -> [u8; BUCKETS] {
    assert!((1..=MAX_PATHS).contains(&paths.len()), "{} paths", paths.len());
    let hashes = hashes(paths);
    let mut left = shares(paths, &hashes);
    let mut claims: Vec<(u64, usize, u8)> = Vec::with_capacity(BUCKETS * paths.len());
    for (path, hash) in (0u8..).zip(&hashes) {
        claims.extend((0..BUCKETS).map(|bucket| (mix(hash ^ bucket as u64), bucket, path)));
    }
    claims.sort_unstable();
    let mut owners = [None; BUCKETS];
    for (_, bucket, path) in claims.into_iter().rev() {
        let left = &mut left[usize::from(path)];
        if owners[bucket].is_none() && *left > 0 {
            owners[bucket] = Some(path);
            *left -= 1;
        }
    }
    owners.map(|owner| owner.expect("as many shares as buckets, and each path claims each"))
}

/// How many buckets each path has.
fn shares(paths: &[Path], hashes: &[u64]) -> Vec<u32> {
    let mut shares = vec![1u32; paths.len()];
    for _ in paths.len()..BUCKETS {
        // The quotients weight / (2 * share + 1), compared without dividing.
        let next = (0..paths.len()).max_by(|a, b| {
            let [x, y] = [*a, *b].map(|at| u32::from(paths[at].weight));
            let [p, q] = [*a, *b].map(|at| 2 * shares[at] + 1);
            (x * q, hashes[*a]).cmp(&(y * p, hashes[*b]))
        });
        shares[next.expect("there is a path")] += 1;
    }
    shares
}

/// One number for each path; paths of the same segments are told apart by how many came before.
fn hashes(paths: &[Path]) -> Vec<u64> {
    let hash = |at: usize| {
        let sids = &paths[at].sids;
        let twins = paths[..at].iter().filter(|path| path.sids == *sids).count();
        let words = sids.iter().map(|sid| u64::from(*sid)).chain([1 << 16 | twins as u64]);
        words.fold(0, |hash, word| mix(hash ^ word))
    };
    (0..paths.len()).map(hash).collect()
}

/// A step of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(word: u64) -> u64 {
    let z = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(first: u16, weight: u8) -> Path {
        Path { sids: vec![first, 0xE001], weight }
    }

    fn counts(buckets: &[u8; BUCKETS], paths: usize) -> Vec<usize> {
        (0..paths)
            .map(|path| buckets.iter().filter(|at| usize::from(**at) == path).count())
            .collect()
    }

    /// Buckets whose path is another one after a change.
    fn moved(before: &[Path], after: &[Path]) -> usize {
        let [old, new] = [buckets(before), buckets(after)];
        let same =
            |(a, b): &(&u8, &u8)| before[usize::from(**a)].sids == after[usize::from(**b)].sids;
        BUCKETS - old.iter().zip(&new).filter(same).count()
    }

    /// Buckets that have to move, as some path has fewer than before.
    fn must_move(before: &[Path], after: &[Path]) -> usize {
        let [old, new] = [before, after].map(|paths| counts(&buckets(paths), paths.len()));
        let kept = before.iter().zip(old).map(|(path, had)| {
            let now = after.iter().position(|other| other.sids == path.sids);
            had.min(now.map_or(0, |at| new[at]))
        });
        BUCKETS - kept.sum::<usize>()
    }

    proptest! {
        #[test]
        fn shares_are_the_weights(weights in prop::collection::vec(1..=MAX_WEIGHT, 1..=MAX_PATHS)) {
            let paths: Vec<Path> = (1..).zip(&weights).map(|(n, w)| path(n, *w)).collect();
            let counts = counts(&buckets(&paths), paths.len());
            let sum: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let exact = (BUCKETS * usize::from(*weight)) as f64 / sum as f64;
                // The one that each path has at least is taken from the others.
                prop_assert!(*count >= 1 && (*count as f64 - exact).abs() < 4.0, "{counts:?}");
            }
        }

        #[test]
        fn the_order_of_paths_makes_no_difference(
            paths in prop::collection::vec((1u16..6, 1..=MAX_WEIGHT), 2..=MAX_PATHS),
            by in 1usize..8,
        ) {
            let mut seen = std::collections::BTreeSet::new();
            let paths: Vec<Path> = paths.iter().filter(|p| seen.insert(p.0)).map(|p| path(p.0, p.1)).collect();
            let mut turned = paths.clone();
            turned.rotate_left(by % paths.len());
            prop_assert_eq!(moved(&paths, &turned), 0);
        }
    }

    /// Few more buckets move than must: over all sizes of sets, and weights one up.
    #[test]
    fn few_flows_move() {
        let (mut must, mut did, mut worst) = (0, 0, 0);
        for first in 1..200u16 {
            for n in 1..MAX_PATHS as u16 {
                let before: Vec<Path> = (0..n).map(|k| path(first * 8 + k, 2)).collect();
                let grown = [before.clone(), vec![path(first * 8 + n, 2)]].concat();
                let mut heavier = grown.clone();
                heavier[0].weight = 3;
                for (a, b) in [(&before, &grown), (&grown, &before), (&grown, &heavier)] {
                    let (needed, found) = (must_move(a, b), moved(a, b));
                    must += needed;
                    did += found;
                    worst = worst.max(found - needed);
                }
            }
        }
        println!("{did} moved, {must} had to; at most {worst} of {BUCKETS} too many");
        assert!(did * 100 <= must * 115 && worst <= 12, "{did} moved, {must} had to, {worst}");
    }

    #[test]
    fn one_path_has_all_and_a_light_one_has_some() {
        assert_eq!(buckets(&[path(7, 3)]), [0; BUCKETS]);
        assert_eq!(counts(&buckets(&[path(1, 128), path(2, 1)]), 2), [127, 1]);
        // The same path twice is two paths.
        let twins = [path(1, 1), path(1, 1), path(2, 2)];
        assert_eq!(counts(&buckets(&twins), 3), [32, 32, 64]);
    }
}
