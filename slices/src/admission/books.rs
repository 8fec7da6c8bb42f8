//! What is promised on each arc, kept up to date with each slice that comes or goes, so that a
//! decision looks at the arcs in question and never at all slices.
//!
//! Each arc carries the sum of the rates of the ways in use and, for every failure that some
//! slice is protected against, the sum of what moves onto the arc when that happens. Failures
//! are taken one at a time, so slices that cannot fail together share the same spare capacity:
//! what is kept free is the largest of those sums, not their sum.

use std::sync::Arc;

use selvedge_topology::sorted::Sorted;
use selvedge_topology::{ArcIx, BitRate, Link, LinkIx, Topology};

use super::protect::Failure;
use super::{Names, usable};
use crate::{Class, ObjectName};

/// A slice's number in the books, reused after it has gone.
pub(super) type Slot = u32;

/// Rates in bit/s of frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Account {
    /// What may be promised; `None`: not limited.
    usable: Option<u64>,
    used: u64,
    /// By failure; no entry is 0.
    spare: Vec<(Failure, u64)>,
    /// The largest of `spare`.
    most_spare: u64,
    /// There may be thousands, and a copy is made with each decision.
    holders: Sorted<Slot, u64>,
}

impl Account {
    /// Where a failure's sum is, or would be.
    fn at(&self, failure: &Failure) -> Result<usize, usize> {
        let key = failure.key();
        self.spare.binary_search_by_key(&key, |(failure, _)| failure.key())
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    topology: Option<Arc<Topology>>,
    /// By class: a link where it is shaped.
    shaped: [Option<LinkIx>; 3],
    accounts: Vec<Arc<Account>>,
}

/// The same sums; who holds them in which order does not matter.
impl PartialEq for Books {
    fn eq(&self, other: &Self) -> bool {
        let sums =
            |account: &Arc<Account>| (account.used, account.most_spare, account.spare.clone());
        let some = |books: &Self| -> Vec<_> {
            let used = books.accounts.iter().enumerate();
            let used = used.filter(|(_, account)| account.used > 0 || account.most_spare > 0);
            used.map(|(arc, account)| (arc, sums(account))).collect()
        };
        some(self) == some(other)
    }
}

impl Books {
    /// Takes the capacities of a topology; says whether they may be others than before.
    pub(super) fn prepare(&mut self, topology: &Arc<Topology>) -> bool {
        if self.topology.as_ref().is_some_and(|known| Arc::ptr_eq(known, topology)) {
            return false;
        }
        self.accounts.resize_with(topology.links.len() * 2, Arc::default);
        for (i, account) in self.accounts.iter_mut().enumerate() {
            let capacity = topology.links.get(i / 2).and_then(|link| link.capacity);
            Arc::make_mut(account).usable = capacity.map(|capacity| usable(capacity).0);
        }
        self.shaped = Class::ALL.map(|class| {
            let shapes = |(_, link): &(u32, &Link)| class.is_shaped(link.shaped);
            (0..).zip(&topology.links).find(shapes).map(|(index, _)| LinkIx(index))
        });
        self.topology = Some(topology.clone());
        true
    }

    /// A link where the class waits in a queue that no bound counts.
    pub(super) fn shaped(&self, class: Class) -> Option<LinkIx> {
        self.shaped[class as usize]
    }

    /// Who has promises on an arc, and how much.
    pub(super) fn all_holders(&self, arc: ArcIx) -> impl Iterator<Item = (Slot, u64)> {
        let account = self.accounts.get(arc.index()).into_iter();
        account.flat_map(|account| account.holders.iter().map(|(slot, rate)| (*slot, *rate)))
    }

    /// What may be promised on an arc; `None`: not limited.
    pub(super) fn usable(&self, arc: ArcIx) -> Option<u64> {
        self.accounts.get(arc.index())?.usable
    }

    pub(super) fn used(&self, arc: ArcIx) -> u64 {
        self.accounts.get(arc.index()).map_or(0, |account| account.used)
    }

    /// What comes on top of [`Self::used`] after this failure.
    pub(super) fn spare(&self, arc: ArcIx, failure: Failure) -> u64 {
        let Some(account) = self.accounts.get(arc.index()) else { return 0 };
        account.at(&failure).map_or(0, |at| account.spare[at].1)
    }

    /// What comes on top of [`Self::used`] after the worst failure.
    pub(super) fn most_spare(&self, arc: ArcIx) -> u64 {
        self.accounts.get(arc.index()).map_or(0, |account| account.most_spare)
    }

    /// What comes on top, for each failure that somebody is protected against.
    pub(super) fn spares(&self, arc: ArcIx) -> impl Iterator<Item = u64> {
        let account = self.accounts.get(arc.index()).into_iter();
        account.flat_map(|account| account.spare.iter().map(|(_, sum)| *sum))
    }

    /// No arc has more on it, after any one failure, than it may have.
    pub(super) fn all_within(&self) -> bool {
        self.accounts.iter().all(|account| {
            let most = account.used.saturating_add(account.most_spare);
            account.usable.is_none_or(|usable| most <= usable)
        })
    }

    /// The largest holders first, then by name; at most `limit`. `names`: by slot.
    pub(super) fn holders(
        &self,
        arc: ArcIx,
        limit: usize,
        names: &Names,
    ) -> Vec<(ObjectName, BitRate)> {
        let Some(account) = self.accounts.get(arc.index()) else { return Vec::new() };
        let held = || account.holders.iter().map(|(slot, rate)| (*slot, *rate));
        // Of thousands, only those that may be among them are named.
        let mut rates: Vec<u64> = held().map(|(_, rate)| rate).collect();
        let least = match limit.checked_sub(1).filter(|last| *last < rates.len()) {
            Some(last) => *rates.select_nth_unstable_by(last, |a, b| b.cmp(a)).1,
            None => 0,
        };
        let large = held().filter(|(_, rate)| *rate >= least);
        let mut holders: Vec<_> =
            large.map(|(slot, rate)| (std::cmp::Reverse(rate), &names[&slot])).collect();
        holders.sort_unstable();
        holders.truncate(limit);
        holders.into_iter().map(|(rate, name)| (name.clone(), BitRate(rate.0))).collect()
    }

    pub(super) fn add<'a>(
        &mut self,
        slot: Slot,
        used: impl IntoIterator<Item = (&'a ArcIx, &'a BitRate)>,
        spare: &[(ArcIx, Failure, BitRate)],
    ) {
        for (arc, rate) in used {
            let account = Arc::make_mut(&mut self.accounts[arc.index()]);
            account.used = account.used.saturating_add(rate.0);
            account.holders.insert(slot, rate.0);
        }
        for of_arc in spare.chunk_by(|(a, ..), (b, ..)| a == b) {
            let account = Arc::make_mut(&mut self.accounts[of_arc[0].0.index()]);
            for (_, failure, rate) in of_arc {
                let at = account.at(failure).unwrap_or_else(|at| {
                    account.spare.insert(at, (*failure, 0));
                    at
                });
                let sum = account.spare[at].1.saturating_add(rate.0);
                account.spare[at].1 = sum;
                account.most_spare = account.most_spare.max(sum);
            }
        }
    }

    /// Takes back what [`Self::add`] was given.
    pub(super) fn remove<'a>(
        &mut self,
        slot: Slot,
        used: impl IntoIterator<Item = (&'a ArcIx, &'a BitRate)>,
        spare: &[(ArcIx, Failure, BitRate)],
    ) {
        for (arc, rate) in used {
            let account = Arc::make_mut(&mut self.accounts[arc.index()]);
            account.used -= rate.0;
            account.holders.remove(&slot).expect("what is used has a holder");
        }
        for of_arc in spare.chunk_by(|(a, ..), (b, ..)| a == b) {
            let account = Arc::make_mut(&mut self.accounts[of_arc[0].0.index()]);
            let mut was_most = false;
            for (_, failure, rate) in of_arc {
                let at = account.at(failure).expect("what is spared was added");
                was_most |= account.spare[at].1 == account.most_spare;
                account.spare[at].1 -= rate.0;
                if account.spare[at].1 == 0 {
                    account.spare.remove(at);
                }
            }
            if was_most {
                account.most_spare = account.spare.iter().map(|(_, sum)| *sum).max().unwrap_or(0);
            }
        }
    }
}
